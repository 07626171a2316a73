// Package certs are the pages about certificates: one's own in the portal, those of a
// user and of a machine in the console, and what users' certificates may do at all. What
// is issued and revoked is judged by package desk. Rows: M4, E4.
package certs

import (
	"net/url"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
	"latchkey/internal/text"
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	return []ui.Route{
		{Pattern: "GET /me/certificates", Needs: ui.Person, Serve: listOwn},
		{Pattern: "POST /me/certificates", Needs: ui.Person, Fresh: true, MaxBody: 64 << 10, Serve: request},
		{Pattern: "POST /me/certificates/{serial}/revoke", Needs: ui.Person, Serve: revokeOwn},
		{Pattern: "GET /console/users/{user}/certificates", Serve: listUser},
		{Pattern: "POST /console/users/{user}/certificates/{serial}/revoke", Fresh: true, Serve: revokeUser},
		{Pattern: "GET /console/machines/{machine}/certificates", Serve: listMachine},
		{Pattern: "POST /console/machines/{machine}/certificates/{serial}/revoke", Fresh: true, Serve: revokeMachine},
		{Pattern: "GET /console/settings/certificates", Serve: showSettings},
		{Pattern: "POST /console/settings/certificates", Fresh: true, Serve: changeSettings},
	}
}

// list is what a page with certificates shows.
type list struct {
	certs   []rest.Certificate
	base    string // address of the list; that of an action is behind it
	machine bool   // of a machine
	none    string // where there are none
	revokes bool   // whoever looks may revoke
}

func (l list) question() string {
	if l.machine {
		return words.CertRevokeMachineQ
	}
	return words.CertRevokeQ
}

// where is on what the key was made.
func where(c rest.Certificate) string {
	switch {
	case c.Kind == "user" && c.Key == ca.KeyRequest:
		return words.CertByRequest
	case c.Key == ca.KeyTPM:
		return c.Machine + " (" + words.CertInTPM + ")"
	}
	return c.Machine
}

// lifeInWords is for who only reads; the form holds what can be sent in again.
func lifeInWords(s string) string {
	if d, err := text.ParseDuration(s); err == nil {
		return text.Duration(d)
	}
	return s
}

func state(s string) (kind, text string) {
	switch s {
	case rest.CertificateGood:
		return ui.OK, words.CertGood
	case rest.CertificateRevoked:
		return ui.Bad, words.CertRevoked
	}
	return ui.Neutral, words.CertExpired
}

// form is a request as typed.
type form struct {
	name, request string
	faults        map[string]string
}

var labels = map[string]string{"name": words.CertNewName, "request": words.CertNewRequest, "use": words.CertUse, "life": words.CertLife}

func listOwn(r *ui.Request) error { return ownWith(r, form{}, nil) }

func ownWith(r *ui.Request, f form, err error) error {
	status := 200
	if err != nil {
		f.faults, status = ui.Faults(err), fault.Of(err).Status()
	}
	page, e := r.Desk.ListOwnCertificates(r.Context(), r.Actor())
	if e != nil {
		return e
	}
	on, e := r.Desk.CertificatesOn(r.Context())
	if e != nil {
		return e
	}
	l := list{certs: page.Items, base: "/me/certificates", none: words.CertNoneText, revokes: true}
	lead := words.CertLead
	if !on {
		lead, l.none = "", ""
	}
	return r.ShowStatus(status, ui.Page{
		Title: words.CertTitle, Section: "factors", Lead: lead, Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/me/certificates"},
	}, ownPage(l, f, on))
}

func request(r *ui.Request) error {
	v, err := r.Values()
	if err != nil {
		return err
	}
	f := form{name: v.Get("name"), request: v.Get("request")}
	c, err := r.Desk.RequestOwnCertificate(r.Context(), r.Actor(), rest.NewCertificate{Request: f.request, Name: f.name})
	if err != nil {
		if ui.Refill(err) || fault.Is(err, fault.Conflict) {
			return ownWith(r, f, err)
		}
		return err
	}
	return r.Show(ui.Page{Title: words.CertIssued, Section: "factors", Crumbs: []ui.Crumb{{Text: words.CertTitle, Path: "/me/certificates"}}}, issuedPage(c))
}

func reason(r *ui.Request) rest.RevokeCertificate {
	return rest.RevokeCertificate{Reason: r.Value("reason")}
}

func revokeOwn(r *ui.Request) error {
	if _, err := r.Desk.RevokeOwnCertificate(r.Context(), r.Actor(), r.PathValue("serial"), reason(r)); err != nil {
		return err
	}
	return r.Go("/me/certificates", words.CertRevokedNow)
}

func listUser(r *ui.Request) error {
	user := r.PathValue("user")
	page, err := r.Desk.UserCertificates(r.Context(), r.Actor(), user)
	if err != nil {
		return err
	}
	u, err := r.Desk.ShowUser(r.Context(), r.Actor(), user)
	if err != nil {
		return err
	}
	at := "/console/users/" + url.PathEscape(u.ID)
	return r.Show(ui.Page{
		Title: words.CertOfUser + u.Name, Section: "users", Crumbs: []ui.Crumb{{Text: u.Name, Path: at}},
		Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/users/" + u.ID + "/certificates"},
	}, listPage(list{certs: page.Items, base: at + "/certificates", none: words.CertNoneUser, revokes: r.Actor().Can("helpdesk")}))
}

func revokeUser(r *ui.Request) error {
	if _, err := r.Desk.RevokeUserCertificate(r.Context(), r.Actor(), r.PathValue("user"), r.PathValue("serial"), reason(r)); err != nil {
		return err
	}
	return r.Go("/console/users/"+url.PathEscape(r.PathValue("user"))+"/certificates", words.CertRevokedNow)
}

func listMachine(r *ui.Request) error {
	ref := r.PathValue("machine")
	page, err := r.Desk.MachineCertificates(r.Context(), r.Actor(), ref)
	if err != nil {
		return err
	}
	m, err := r.Desk.ShowMachine(r.Context(), r.Actor(), ref)
	if err != nil {
		return err
	}
	at := "/console/machines/" + url.PathEscape(m.ID)
	return r.Show(ui.Page{
		Title: words.CertOfMachine + m.Name, Section: "machines", Crumbs: []ui.Crumb{{Text: m.Name, Path: at}},
		Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/machines/" + m.ID + "/certificates"},
	}, listPage(list{certs: page.Items, base: at + "/certificates", machine: true, none: words.CertNoneMachine, revokes: r.Actor().Can("change")}))
}

func revokeMachine(r *ui.Request) error {
	if _, err := r.Desk.RevokeMachineCertificate(r.Context(), r.Actor(), r.PathValue("machine"), r.PathValue("serial"), reason(r)); err != nil {
		return err
	}
	return r.Go("/console/machines/"+url.PathEscape(r.PathValue("machine"))+"/certificates", words.CertRevokedNow)
}

func showSettings(r *ui.Request) error {
	s, err := r.Desk.CertificateSettings(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	return settingsWith(r, s, nil)
}

func settingsWith(r *ui.Request, s rest.CertificateSettings, err error) error {
	status, faults := 200, map[string]string(nil)
	if err != nil {
		status, faults = fault.Of(err).Status(), ui.Faults(err)
	}
	return r.ShowStatus(status, ui.Page{
		Title: words.CertSettings, Section: "settings", Lead: words.CertSettingsLead, Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/settings/certificates"},
	}, settingsPage(s, faults, may(r.Actor())))
}

func may(a desk.Actor) bool { return a.Can("own") }

func changeSettings(r *ui.Request) error {
	v, err := r.Values()
	if err != nil {
		return err
	}
	use, life := v.Get("use"), v.Get("life")
	_, err = r.Desk.ChangeCertificateSettings(r.Context(), r.Actor(), rest.CertificateSettingsChange{Use: &use, Life: &life})
	if err != nil {
		if ui.Refill(err) {
			return settingsWith(r, rest.CertificateSettings{Use: use, Life: life}, err)
		}
		return err
	}
	return r.Go("/console/settings/certificates", words.CertSaved)
}

func uses() []ui.Option {
	return []ui.Option{
		{Value: ca.Off, Label: words.CertUseOff, Hint: words.CertUseOffText},
		{Value: ca.Portal, Label: words.CertUsePortal, Hint: words.CertUsePortalText},
		{Value: ca.Console, Label: words.CertUseConsole, Hint: words.CertUseConsoleText},
	}
}

func reasons() []ui.Option {
	out := make([]ui.Option, len(words.CertReasons))
	for i, r := range words.CertReasons {
		out[i] = ui.Option{Value: r[0], Label: r[1]}
	}
	return out
}
