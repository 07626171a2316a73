package office

import (
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

func settingsFrame() ui.Page {
	return ui.Page{
		Title: words.SettingsTitle, Section: "settings", Lead: words.SettingsLead,
		Curl: &ui.Curl{Method: "PATCH", Path: rest.Base + "/settings", Body: map[string]string{"contact": "IT service desk, extension 4711"}},
	}
}

func showSettings(r *ui.Request) error {
	s, err := r.Desk.Settings(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	return r.Show(settingsFrame(), settingsPage(s, r.Actor().Can("own"), nil))
}

func changeSettings(r *ui.Request) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	in := rest.Settings{Contact: r.Value("contact"), ServerURL: r.Value("server_url"), MinAgent: r.Value("min_agent_version"), PeopleURL: r.Value("people_url"), Attestation: r.Value("passkey_attestation"), Models: r.Value("passkey_models"), OutwardProxy: r.Value("outward_proxy"), PushNetworks: r.Value("push_networks")}
	_, err := r.Desk.ChangeSettings(r.Context(), r.Actor(), rest.SettingsChange{Contact: &in.Contact, ServerURL: &in.ServerURL, MinAgent: &in.MinAgent, PeopleURL: &in.PeopleURL, Attestation: &in.Attestation, Models: &in.Models, OutwardProxy: &in.OutwardProxy, PushNetworks: &in.PushNetworks})
	if err != nil {
		if ui.Refill(err) {
			return r.ShowStatus(fault.Of(err).Status(), settingsFrame(), settingsPage(in, true, ui.Faults(err)))
		}
		return err
	}
	return r.Go("/console/settings", words.SettingsSaved)
}

var settingLabels = map[string]string{"contact": words.SetContact, "server_url": words.SetServerURL, "min_agent_version": words.SetMinAgent, "people_url": words.SetPeopleURL, "passkey_attestation": words.SetAttestation, "passkey_models": words.SetModels, "outward_proxy": words.SetProxy, "push_networks": words.SetPushNets}

// attestations are the choices of what a new passkey must say of itself.
func attestations() []ui.Option {
	return []ui.Option{{Value: "none", Label: words.SetAttestNone}, {Value: "direct", Label: words.SetAttestDirect}}
}

func status(r *ui.Request) error {
	s, err := r.Desk.Status(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	d, err := r.Desk.Dashboard(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	v := dash{Dashboard: d, status: s, may: r.Actor().Can}
	if r.NotReady != nil {
		v.ready = r.NotReady(r.Context())
	}
	return r.Show(ui.Page{
		Title: words.StatusTitle, Section: "status", Lead: words.StatusLead, Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/status"},
	}, statusPage(v))
}

var machineStates = []string{rest.MachineActive, rest.MachinePending, rest.MachineRevoked, rest.MachineLost}
