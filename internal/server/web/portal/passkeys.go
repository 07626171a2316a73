package portal

import (
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// passkeyRoutes are the pages of passkeys. What begins is asked for by the page's script;
// whoever enrols his first factor comes here too.
func passkeyRoutes() []ui.Route {
	return []ui.Route{
		{Pattern: "GET /me/factors/passkey", Needs: ui.Person, Fresh: true, Serve: whole(addPasskey)},
		{Pattern: "POST /me/factors/passkey/begin", Needs: ui.Person, Serve: beginPasskey},
		{Pattern: "POST /me/factors/passkey", Needs: ui.Person, Serve: whole(confirmPasskey)},
		{Pattern: "POST /me/factors/passkey/remove-all", Needs: ui.Person, Fresh: true, Serve: whole(removePasskeys)},
		{Pattern: "GET /me/enrol/passkey", Needs: ui.Person, Serve: enrolPasskey},
		{Pattern: "POST /me/enrol/passkey", Needs: ui.Person, Serve: confirmEnrolPasskey},
	}
}

func passkeyPath(first bool) string {
	if first {
		return "/me/enrol/passkey"
	}
	return "/me/factors/passkey"
}

// passkeyOf is the page.
func passkeyOf(first bool) ui.Page {
	p := ui.Page{Title: words.PasskeyTitle, Lead: words.PasskeyLead, Section: "factors"}
	if !first {
		p.Crumbs = []ui.Crumb{toFactors}
	}
	return p
}

// newPasskey is what its form shows.
type newPasskey struct {
	first  bool
	name   string
	faults map[string]string
}

func addPasskey(r *ui.Request) error {
	return showPasskey(r, false)
}

// enrolPasskey is for the first factor; whoever has one adds another.
func enrolPasskey(r *ui.Request) error {
	if !enrolling(r) {
		if !r.Actor().Fresh {
			return again(r, fault.New(fault.StepUp, nil))
		}
		return addPasskey(r)
	}
	return showPasskey(r, true)
}

// showPasskey shows the form, or why there can be no passkeys.
func showPasskey(r *ui.Request, first bool) error {
	why, err := r.Desk.NoPasskeys(r.Context())
	if err != nil {
		return err
	}
	if why != "" {
		return r.Show(passkeyOf(first), ui.Notice(ui.Warn, why))
	}
	return r.Show(passkeyOf(first), passkeyPage(newPasskey{first: first}))
}

// beginPasskey gives the script the options, or says why there are none.
func beginPasskey(r *ui.Request) error {
	p, err := r.Desk.BeginOwnPasskey(r.Context(), r.Actor())
	if f := fault.Of(err); err != nil && f.Status() < 500 || fault.Is(err, fault.Unavailable) {
		return ui.PasskeySays(r, f)
	}
	if err != nil {
		return err
	}
	return ui.PasskeyOptions(r, p.Ticket.Show(), p.Options)
}

func madePasskey(r *ui.Request, first bool, done func() error) error {
	v, err := r.Values()
	if err != nil {
		return err
	}
	in := rest.ConfirmPasskey{Ticket: rest.HideText(v.Get("ticket")), Credential: rest.HideText(v.Get("code")), Name: strings.TrimSpace(v.Get("name"))}
	defer in.Credential.Wipe()
	_, err = r.Desk.ConfirmOwnPasskey(r.Context(), r.Actor(), in)
	switch {
	case err == nil:
		return done()
	case fault.Is(err, fault.Expired):
		return r.ShowStatus(fault.Of(err).Status(), passkeyOf(first), passkeyPage(newPasskey{first, in.Name, map[string]string{"": words.PasskeyGone}}))
	case !ui.Refill(err):
		return err
	}
	return r.ShowStatus(fault.Of(err).Status(), passkeyOf(first), passkeyPage(newPasskey{first, in.Name, ui.Faults(err)}))
}

func confirmPasskey(r *ui.Request) error {
	return madePasskey(r, false, func() error { return r.Go("/me/factors", words.PasskeyDone) })
}

// confirmEnrolPasskey makes the first factor, which spends the enrolment code, and with it
// the session a whole one.
func confirmEnrolPasskey(r *ui.Request) error {
	if !enrolling(r) {
		return r.Go("/me/factors/passkey", "")
	}
	return madePasskey(r, true, func() error {
		secret, err := r.Sessions.Enrolled(r.Context(), r.Session, r.Address())
		if err != nil {
			return err
		}
		session.SetCookie(r.W, secret)
		return r.Go("/me/enrol/codes", words.PasskeyDone)
	})
}

func removePasskeys(r *ui.Request) error {
	if _, err := r.Desk.RemoveOwnPasskeys(r.Context(), r.Actor()); err != nil {
		return err
	}
	return r.Go("/me/factors", words.PasskeysRemoved)
}

// passkeysOf and apartFrom part the passkeys from whatever else there is.
func passkeysOf(have []rest.Factor) []rest.Factor {
	var out []rest.Factor
	for _, f := range have {
		if f.Passkey != nil {
			out = append(out, f)
		}
	}
	return out
}

func otherThanPasskeys(have []rest.Factor) []rest.Factor {
	var out []rest.Factor
	for _, f := range authenticators(have) {
		if f.Passkey == nil {
			out = append(out, f)
		}
	}
	return out
}

// passkeyKind names a passkey in a list.
func passkeyKind(p *rest.Passkey) string {
	switch {
	case p.Model != "":
		return p.Model
	case p.Synced:
		return words.PasskeySyncedOn
	}
	return words.PasskeySingle
}

func yes(b bool) string {
	if b {
		return words.PasskeyYes
	}
	return words.PasskeyNo
}
