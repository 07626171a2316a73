package desk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"

	"latchkey/internal/buildinfo"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/touch"
	"latchkey/internal/wire"
)

// serverURL judges the address of the machines' listener.
func (v *faults) serverURL(field, value string) {
	if err := wire.CheckServerURL(value); err != nil {
		v.add(field, "%s", strings.TrimPrefix(err.Error(), "server address: "))
	}
}

// Settings gives the settings of the server.
func (d *Desk) Settings(ctx context.Context, a Actor) (rest.Settings, error) {
	if err := a.may(read); err != nil {
		return rest.Settings{}, err
	}
	s, err := d.settings(ctx)
	return rest.Settings{Contact: s.Contact, ServerURL: s.ServerURL, MinAgent: s.MinAgent, PeopleURL: s.PeopleURL, Attestation: or(s.Attestation, settings.AttestationNone), Models: s.Models, OutwardProxy: s.OutwardProxy, PushNetworks: s.PushNetworks}, err
}

// SettingsTag stands for the settings as they are, as a revision does for a thing that
// has one.
func SettingsTag(s rest.Settings) string {
	b, err := json.Marshal(s)
	if err != nil {
		return "" // texts are always JSON
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:12])
}

// ChangeSettings changes them. Machines learn a new contact at once.
func (d *Desk) ChangeSettings(ctx context.Context, a Actor, in rest.SettingsChange) (rest.Settings, error) {
	return d.ChangeSettingsIf(ctx, a, "", in)
}

// ChangeSettingsIf changes them if they still have the tag that was seen; empty is any.
func (d *Desk) ChangeSettingsIf(ctx context.Context, a Actor, seen string, in rest.SettingsChange) (rest.Settings, error) {
	var out rest.Settings
	if err := a.may(own); err != nil {
		return out, err
	}
	var v faults
	if in.Contact != nil {
		v.line("contact", *in.Contact, maxLine)
	}
	if in.ServerURL != nil && *in.ServerURL != "" {
		v.serverURL("server_url", *in.ServerURL)
	}
	if in.MinAgent != nil && *in.MinAgent != "" && !buildinfo.ValidVersion(*in.MinAgent) {
		v.add("min_agent_version", "%.40q is not allowed; allowed are one to three numbers with dots, such as 1.2.0, or nothing", *in.MinAgent)
	}
	if in.PeopleURL != nil && *in.PeopleURL != "" {
		if err := settings.CheckPeopleURL(*in.PeopleURL); err != nil {
			v.add("people_url", "%s", err.Error())
		}
	}
	if in.Attestation != nil {
		if _, err := settings.ParseRule(*in.Attestation, ""); err != nil {
			v.add("passkey_attestation", "%s", err.Error())
		}
		if *in.Attestation == settings.AttestationNone {
			in.Attestation = new(string) // what is not set is that
		}
	}
	if in.Models != nil {
		if _, err := settings.ParseRule("", *in.Models); err != nil {
			v.add("passkey_models", "%s", err.Error())
		}
	}
	if in.OutwardProxy != nil && *in.OutwardProxy != "" {
		if err := settings.CheckProxy(*in.OutwardProxy); err != nil {
			v.add("outward_proxy", "%s", err.Error())
		}
	}
	if in.PushNetworks != nil {
		if err := settings.CheckNetworks(*in.PushNetworks); err != nil {
			v.add("push_networks", "%s", err.Error())
		}
	}
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		s, err := settings.Read(ctx, tx.Queries)
		if err != nil {
			return err
		}
		now := func() rest.Settings {
			return rest.Settings{
				Contact: s.Contact, ServerURL: or(s.ServerURL, d.ServerURL), MinAgent: s.MinAgent, PeopleURL: or(s.PeopleURL, d.peopleURL()),
				Attestation: or(s.Attestation, settings.AttestationNone), Models: s.Models,
				OutwardProxy: or(s.OutwardProxy, d.OutwardProxy), PushNetworks: or(s.PushNetworks, d.PushNetworks),
			}
		}
		if seen != "" && seen != SettingsTag(now()) {
			return fault.New(fault.Conflict, nil)
		}
		var list []changed
		set(&list, "contact", &s.Contact, in.Contact)
		set(&list, "server_url", &s.ServerURL, in.ServerURL)
		set(&list, "min_agent_version", &s.MinAgent, in.MinAgent)
		set(&list, "people_url", &s.PeopleURL, in.PeopleURL)
		set(&list, "passkey_attestation", &s.Attestation, in.Attestation)
		set(&list, "passkey_models", &s.Models, in.Models)
		set(&list, "outward_proxy", &s.OutwardProxy, in.OutwardProxy)
		set(&list, "push_networks", &s.PushNetworks, in.PushNetworks)
		out = now()
		if len(list) == 0 {
			return nil
		}
		if err := settings.Write(ctx, tx, s, d.now()); err != nil {
			return err
		}
		if err := note(tx, a, event.Event{Type: event.SettingsChanged}, map[string]any{"changes": list}); err != nil {
			return err
		}
		return touch.All(ctx, tx)
	})
	return out, err
}

// CertificateAuthority gives the certificate that machines pin, and that browsers and
// programs may be given.
func (d *Desk) CertificateAuthority(_ context.Context, a Actor) (rest.CertificateAuthority, error) {
	if err := a.may(read); err != nil {
		return rest.CertificateAuthority{}, err
	}
	if d.CACert == nil {
		return rest.CertificateAuthority{}, nil // as Status does, where there is none
	}
	der := d.CACert()
	sum := sha256.Sum256(der)
	return rest.CertificateAuthority{PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), Print: hex.EncodeToString(sum[:])}, nil
}

// Status says how the server is.
func (d *Desk) Status(ctx context.Context, a Actor) (rest.Status, error) {
	out := rest.Status{
		Version: d.Version, Replica: d.Store.Replica(), Engine: d.Store.Engine(), Time: d.Clock.Now().UTC(), Machines: map[string]int64{},
		Actor: a.Name, ActorRole: a.Role,
	}
	if err := a.may(read); err != nil {
		return out, err
	}
	if d.CA != nil {
		ca := d.CA()
		out.CAPrint = hex.EncodeToString(ca[:])
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		var err error
		if out.Users, err = q.CountUsers(ctx); err != nil {
			return err
		}
		rows, err := q.CountMachinesByStatus(ctx)
		if err != nil {
			return err
		}
		for _, s := range machineStates {
			out.Machines[s] = 0
		}
		for _, r := range rows {
			out.Machines[r.Status] = r.N
		}
		out.Locked, err = q.CountLocked(ctx, d.now())
		return err
	})
	return out, err
}
