// Package entry is the way in: sign-in, step-up, the first owner, one's own sessions,
// and the approvals of a second owner (E3). Everything is judged by package session;
// these pages ask and show.
//
// It promises: a page before the accepted password says the same whoever the name is of
// (S5); a secret is in a cookie and never in an address; and whoever is sent back goes
// to a page of this server.
package entry

import (
	"cmp"
	"net/http"
	"net/url"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	return []ui.Route{
		{Pattern: "GET /signin", Needs: ui.Anyone, Serve: showSignin},
		{Pattern: "POST /signin", Needs: ui.Anyone, Serve: signin},
		{Pattern: "POST /signin/choose", Needs: ui.Anyone, Serve: choose},
		{Pattern: "POST /signin/leave", Needs: ui.Anyone, Serve: leave},
		{Pattern: "POST /signin/code", Needs: ui.Anyone, Serve: code},
		{Pattern: "POST /signin/passkey/begin", Needs: ui.Anyone, Serve: beginPasskey},
		{Pattern: "POST /signin/passkey", Needs: ui.Anyone, Serve: finishPasskey},
		{Pattern: "POST /signin/certificate", Needs: ui.Anyone, Serve: byCertificate},
		{Pattern: "POST /signin/password", Needs: ui.Anyone, Serve: newPassword},
		{Pattern: "POST /signin/restart", Needs: ui.Anyone, Serve: restart},
		{Pattern: "GET /signout", Needs: ui.Person, Serve: showSignout},
		{Pattern: "POST /signout", Needs: ui.Anyone, Serve: signout},
		{Pattern: "GET /stepup", Needs: ui.Person, Serve: showStepup},
		{Pattern: "POST /stepup", Needs: ui.Person, Serve: stepup},
		{Pattern: "POST /stepup/choose", Needs: ui.Person, Serve: chooseProof},
		{Pattern: "POST /stepup/leave", Needs: ui.Person, Serve: leaveProof},
		{Pattern: "GET /setup", Needs: ui.Anyone, Serve: showSetup},
		{Pattern: "POST /setup", Needs: ui.Anyone, Serve: setup},
		{Pattern: "POST /setup/confirm", Needs: ui.Anyone, Serve: confirmSetup},
		{Pattern: "GET /me/sessions", Needs: ui.Person, Serve: ownSessions},
		{Pattern: "POST /me/sessions/{id}/end", Needs: ui.Person, Serve: endOwn},
		{Pattern: "POST /me/sessions/end-others", Needs: ui.Person, Serve: endOthers},
		{Pattern: "GET /console/approvals", Needs: ui.Console, Serve: approvals},
		{Pattern: "POST /console/approvals", Needs: ui.Console, Fresh: true, Serve: ask},
		{Pattern: "POST /console/approvals/{id}/decide", Needs: ui.Console, Fresh: true, Serve: decide},
	}
}

// maxNext bounds the path of a page to come back to.
const maxNext = 2000

// Next is the page to which somebody goes after a sign-in or step-up: a path of this
// server, and none of the pages that lead here; anything else is "/".
func Next(path string) string {
	if len(path) > maxNext || !ui.Inside(path) {
		return "/"
	}
	for _, c := range []byte(path) {
		if c < 0x20 || c == 0x7f {
			return "/"
		}
	}
	u, err := url.Parse(path)
	if err != nil || strings.HasPrefix(u.Path, "//") || strings.Contains(u.Path, "\\") {
		return "/"
	}
	for _, p := range []string{"/signin", "/signout", "/stepup", "/setup", "/api", "/assets"} {
		if u.Path == p || strings.HasPrefix(u.Path, p+"/") {
			return "/"
		}
	}
	return path
}

// with is a path with the page to come back to.
func with(path, next string) string {
	if next == "/" {
		return path
	}
	return path + "?" + url.Values{"next": {next}}.Encode()
}

// secretOf is a field that is not to be printed. Blanks belong to it.
func secretOf(r *ui.Request, name string) secret.Bytes {
	v, err := r.Values()
	if err != nil {
		return secret.Bytes{}
	}
	return secret.FromString(v.Get(name))
}

func pendingCookie(r *ui.Request) string {
	c := r.CookiesNamed(session.SigninCookie)
	if len(c) != 1 {
		return ""
	}
	return c[0].Value
}

// signinPage is what a page of the sign-in shows.
type signinPage struct {
	next    string
	name    string
	shown   string // whose certificate the browser shows
	kind    string // that was wished for; "choice": the menu
	pending *session.Pending
	faults  map[string]string
}

func showSignin(r *ui.Request) error {
	next := Next(r.Value("next"))
	if r.Session != nil {
		return r.Go(next, "")
	}
	p := signinPage{next: next, kind: r.Value("with")}
	var err error
	if raw := pendingCookie(r); raw != "" {
		if p.pending, err = r.Sessions.Pending(r.Context(), raw); err != nil {
			return err
		}
	}
	if p.pending == nil {
		wanted, err := r.Sessions.SetupWanted(r.Context())
		if err != nil {
			return err
		}
		if wanted {
			return r.Go("/setup", "")
		}
	}
	return p.show(r, http.StatusOK)
}

// show shows the page that the sign-in has come to.
func (p signinPage) show(r *ui.Request, status int) error {
	switch {
	case p.pending == nil:
		p.shown = shownBy(r)
		return r.ShowStatus(status, ui.Page{Title: words.SignInTitle, Lead: words.SignInLead}, passwordForm(p))
	case p.pending.Next == session.AskCode:
		q := question{kinds: p.pending.Kinds, next: p.next, door: "/signin", answer: "/signin/code", wrong: words.SigninFailed, faults: p.faults}
		return r.ShowStatus(status, ui.Page{Title: words.CodeTitle}, factorForm(p, q.pick(p.pending.Asked, p.kind)))
	case p.pending.Next == session.AskEnrolCode:
		return r.ShowStatus(status, ui.Page{Title: words.SigninEnrolTitle, Lead: words.SigninEnrolLead}, enrolForm(p))
	case p.pending.Next == session.AskNewPassword:
		lead := words.PasswordMust
		if p.pending.Why == session.Expired {
			lead = words.PasswordExpired
		}
		return r.ShowStatus(status, ui.Page{Title: words.NewPasswordTitle, Lead: lead}, newPasswordForm(p))
	}
	return fault.New(fault.Internal, nil)
}

func signin(r *ui.Request) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	v, _ := r.Values()
	p := signinPage{next: Next(r.Value("next")), name: v.Get("name")}
	password := secretOf(r, "password")
	defer password.Wipe()
	known := ""
	if c := r.CookiesNamed(session.KnownCookie); len(c) == 1 {
		known = c[0].Value
	}
	o, err := r.Sessions.Begin(r.Context(), session.Attempt{
		Name: p.name, Password: password, Kind: session.Browser, Address: r.Address(), Agent: r.UserAgent(), Known: known,
	})
	if fault.Is(err, fault.Unauthorized) || fault.Is(err, fault.TooMany) {
		p.faults = ui.Faults(err)
		return p.show(r, fault.Of(err).Status())
	}
	if err != nil {
		return err
	}
	if o.Pending != nil && o.Pending.Next == session.AskCode && len(o.Pending.Kinds) == 1 && o.Pending.Kinds[0].Sends {
		// There is nothing to choose: it is asked for at once (S2). What keeps it from being
		// sent is told where it is chosen.
		_, err := r.Sessions.Choose(r.Context(), string(o.Secret.Reveal()), o.Pending.Kinds[0].Name, false, r.Address())
		if err != nil && !fault.Is(err, fault.TooMany) && !fault.Is(err, fault.Unavailable) {
			return err
		}
	}
	return arrived(r, o, p.next)
}

// arrived gives the browser what a step of the sign-in came to, and goes on.
func arrived(r *ui.Request, o session.Opened, next string) error {
	if o.Session == nil {
		session.SetSigninCookie(r.W, o.Secret)
		return r.Go(with("/signin", next), "")
	}
	session.ClearCookie(r.W, session.SigninCookie)
	session.SetCookie(r.W, o.Secret)
	session.SetKnownCookie(r.W, o.Known)
	kind := "info"
	if o.Tell != "" {
		kind = "warn"
	}
	if !o.Session.Console && (next == "/console" || strings.HasPrefix(next, "/console/") || strings.HasPrefix(next, "/console?")) {
		next = "/me"
		if o.Tell == "" && o.Session.Factor == session.Backup {
			o.Tell = words.BackupIsPortal
		}
	}
	return r.GoWith(next, kind, o.Tell)
}

// resumed handles what a step of a sign-in came to if it was no session.
func resumed(r *ui.Request, p signinPage, err error) error {
	if r.Htmx() && (ui.Refill(err) || fault.Is(err, fault.Expired) || fault.Is(err, fault.Conflict) || fault.Is(err, fault.BadRequest)) {
		// A script that waits for the phone: the page says it anew.
		said := words.SigninOver
		for _, f := range ui.Faults(err) {
			said = f
		}
		if fault.Is(err, fault.Expired) {
			session.ClearCookie(r.W, session.SigninCookie)
		}
		return r.GoWith(with("/signin", p.next), "warn", said)
	}
	switch {
	case fault.Is(err, fault.Invalid) || fault.Is(err, fault.TooMany):
		var e error
		if p.pending, e = r.Sessions.Pending(r.Context(), pendingCookie(r)); e != nil {
			return e
		}
		p.faults = ui.Faults(err)
		return p.show(r, fault.Of(err).Status())
	case fault.Is(err, fault.Expired) || fault.Is(err, fault.Conflict) || fault.Is(err, fault.BadRequest):
		session.ClearCookie(r.W, session.SigninCookie)
		p.pending = nil
		p.faults = map[string]string{"": words.SigninOver}
		if d := fault.Of(err).Detail; d != "" {
			p.faults[""] = d
		}
		return p.show(r, http.StatusUnauthorized)
	}
	return err
}

func code(r *ui.Request) error {
	p := signinPage{next: Next(r.Value("next")), kind: r.Value("kind")}
	typed := secretOf(r, "code")
	defer typed.Wipe()
	o, err := r.Sessions.Answer(r.Context(), pendingCookie(r), p.kind, typed, r.Address())
	if err != nil {
		return resumed(r, p, err)
	}
	if o.Pending != nil && o.Pending.Next == session.AskCode {
		if r.Htmx() {
			return wait(r)
		}
		return r.GoWith(with("/signin", p.next), "info", words.ProofNotYet)
	}
	return arrived(r, o, p.next)
}

func newPassword(r *ui.Request) error {
	p := signinPage{next: Next(r.Value("next"))}
	password, again := secretOf(r, "password"), secretOf(r, "again")
	defer password.Wipe()
	defer again.Wipe()
	o, err := r.Sessions.NewPassword(r.Context(), pendingCookie(r), password, again, r.Address())
	if err != nil {
		return resumed(r, p, err)
	}
	return arrived(r, o, p.next)
}

func restart(r *ui.Request) error {
	// This is the way out of a sign-in, so the browser forgets it whatever comes of the rest.
	session.ClearCookie(r.W, session.SigninCookie)
	if err := r.Sessions.GiveUp(r.Context(), pendingCookie(r), r.Address()); err != nil && !fault.Is(err, fault.TooMany) {
		return err
	}
	return r.Go(with("/signin", Next(r.Value("next"))), "")
}

func showSignout(r *ui.Request) error {
	return r.Show(ui.Page{Title: words.SignOutTitle, Lead: words.SignOutLead}, signoutForm())
}

func signout(r *ui.Request) error {
	if r.Session != nil {
		if err := r.Sessions.End(r.Context(), r.Session, r.Address()); err != nil {
			return err
		}
	}
	session.ClearCookies(r.W)
	// What a page has left in the browser's cache goes too. The storage stays: the keys of
	// Latchkey Authenticator lie there, which another account of this browser may use (M3).
	r.W.Header().Set("Clear-Site-Data", `"cache"`)
	return r.Go("/signin", words.SignedOut)
}

// cancel is where "Cancel" leads: back, unless the page behind it would ask for the same
// proof again.
func (p stepupPage) cancel(r *ui.Request) string {
	u, err := url.Parse(p.next)
	switch {
	case err == nil && (u.Path == "/me/factors/add" || u.Path == "/me/password" || u.Path == "/me/enrol"):
		return "/me"
	case p.next == "/" && r.Session.Console:
		return "/console"
	case p.next == "/":
		return "/me"
	}
	return p.next
}

// stepupPage is what the page shows.
type stepupPage struct {
	next   string
	kind   string // that was wished for
	back   string // of "Cancel"
	faults map[string]string
}

func stepupOf(r *ui.Request, kind string) stepupPage {
	p := stepupPage{next: Next(r.Value("next")), kind: kind}
	p.back = p.cancel(r)
	return p
}

func (p stepupPage) show(r *ui.Request, status int) error {
	proof, err := r.Sessions.Proof(r.Context(), r.Session)
	if err != nil {
		return err
	}
	q := question{kinds: proof.Kinds, next: p.next, door: "/stepup", answer: "/stepup", submit: words.StepUpGo, faults: p.faults}
	return r.ShowStatus(status, ui.Page{Title: words.StepUpTitle, Lead: words.StepUpLead}, stepupForm(p, q.pick(proof.Asked, p.kind)))
}

func showStepup(r *ui.Request) error {
	return stepupOf(r, r.Value("with")).show(r, http.StatusOK)
}

func stepup(r *ui.Request) error {
	p := stepupOf(r, cmp.Or(r.Value("kind"), session.TOTP))
	typed := secretOf(r, "code")
	defer typed.Wipe()
	next, still, err := r.Sessions.StepUp(r.Context(), r.Session, p.kind, typed, r.Address())
	switch {
	case r.Htmx() && ui.Refill(err):
		said := ""
		for _, f := range ui.Faults(err) {
			said = f
		}
		return r.GoWith(with("/stepup", p.next), "warn", said)
	case fault.Is(err, fault.Invalid) || fault.Is(err, fault.TooMany):
		p.faults = ui.Faults(err)
		return p.show(r, fault.Of(err).Status())
	case err != nil:
		return err
	case still != nil && r.Htmx():
		return wait(r)
	case still != nil:
		return r.GoWith(with("/stepup", p.next), "info", words.ProofNotYet)
	}
	session.SetCookie(r.W, next)
	return r.Go(p.next, words.StepUpDone)
}

// setupPage is what the pages of the setup show.
type setupPage struct {
	name, display, code string
	enrolment           factor.Enrolment
	qr                  string // SVG
	faults              map[string]string
	codes               []string
}

func showSetup(r *ui.Request) error {
	wanted, err := r.Sessions.SetupWanted(r.Context())
	if err != nil {
		return err
	}
	if !wanted {
		return r.Show(ui.Page{Title: words.SetupTitle}, setupGone())
	}
	return setupPage{}.show(r, http.StatusOK)
}

func (p setupPage) show(r *ui.Request, status int) error {
	return r.ShowStatus(status, ui.Page{Title: words.SetupTitle, Lead: words.SetupLead}, setupForm(p))
}

func (p setupPage) scan(r *ui.Request, status int) error {
	var err error
	if p.qr, err = factor.SVG(p.enrolment.URI, words.SetupScanTitle); err != nil {
		return err
	}
	return r.ShowStatus(status, ui.Page{Title: words.SetupTitle}, scanForm(p))
}

func setup(r *ui.Request) error {
	if _, err := r.Values(); err != nil {
		return err
	}
	p := setupPage{name: r.Value("name"), display: r.Value("display"), code: r.Value("setup")}
	password, again := secretOf(r, "password"), secretOf(r, "again")
	defer password.Wipe()
	defer again.Wipe()
	e, raw, err := r.Sessions.BeginSetup(r.Context(), session.Owner{
		Code: secret.FromString(p.code), Name: p.name, Display: p.display, Password: password, Again: again, Address: r.Address(), Agent: r.UserAgent(),
	})
	switch {
	case fault.Is(err, fault.Invalid) || fault.Is(err, fault.TooMany):
		p.faults = ui.Faults(err)
		return p.show(r, fault.Of(err).Status())
	case fault.Is(err, fault.Forbidden):
		return r.ShowStatus(http.StatusForbidden, ui.Page{Title: words.SetupTitle}, setupGone())
	case err != nil:
		return err
	}
	session.SetSigninCookie(r.W, raw)
	p.enrolment = e
	return p.scan(r, http.StatusOK)
}

func confirmSetup(r *ui.Request) error {
	typed := secretOf(r, "code")
	defer typed.Wipe()
	raw := pendingCookie(r)
	o, codes, err := r.Sessions.FinishSetup(r.Context(), raw, typed, r.Address(), r.UserAgent())
	switch {
	case fault.Is(err, fault.Invalid) || fault.Is(err, fault.TooMany):
		p := setupPage{faults: ui.Faults(err)}
		var e error
		if p.name, p.enrolment, e = r.Sessions.ShowSetup(r.Context(), raw); e != nil {
			return e
		}
		return p.scan(r, fault.Of(err).Status())
	case fault.Is(err, fault.Expired) || fault.Is(err, fault.Conflict):
		session.ClearCookie(r.W, session.SigninCookie)
		return setupPage{faults: map[string]string{"": words.SigninOver}}.show(r, http.StatusUnauthorized)
	case fault.Is(err, fault.Forbidden):
		return r.ShowStatus(http.StatusForbidden, ui.Page{Title: words.SetupTitle}, setupGone())
	case err != nil:
		return err
	}
	session.ClearCookie(r.W, session.SigninCookie)
	session.SetCookie(r.W, o.Secret)
	session.SetKnownCookie(r.W, o.Known)
	return r.Show(ui.Page{Title: words.SetupTitle}, codesPage(setupPage{codes: codes}))
}
