package entry

import (
	"cmp"
	"net/http"
	"slices"

	"latchkey/internal/fault"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// question is how somebody is asked for a factor, at the sign-in and at a step-up.
type question struct {
	kinds  []session.Kind
	kind   string // that is asked for; empty: the choice
	sent   factor.Sent
	next   string
	door   string // the page: /signin or /stepup
	answer string // where answers go
	submit string // the label of the button; empty: the usual
	wrong  string // head of the summary of faults; empty: the usual
	faults map[string]string
}

// pick says what to ask for: what was wished for or is under way, and else the strongest
// kind if it can be asked for at once, or the choice (S2).
func (q question) pick(asked session.Asked, wished string) question {
	find := func(name string) (session.Kind, bool) {
		i := slices.IndexFunc(q.kinds, func(k session.Kind) bool { return k.Name == name })
		if i < 0 {
			return session.Kind{}, false
		}
		return q.kinds[i], true
	}
	if wished == "choice" {
		return q
	}
	for _, name := range []string{wished, asked.Kind} {
		if k, ok := find(name); ok && (!k.Sends || asked.Kind == name) {
			if q.kind = name; k.Sends {
				q.sent = asked.Sent
			}
			return q
		}
	}
	if len(q.kinds) > 0 && !q.kinds[0].Sends {
		q.kind = q.kinds[0].Name
	}
	return q
}

// others are the kinds beside the one that is asked for.
func (q question) others() []session.Kind {
	return slices.DeleteFunc(slices.Clone(q.kinds), func(k session.Kind) bool { return k.Name == q.kind })
}

// waits tells whether the answer comes another way.
func (q question) waits() bool {
	return slices.ContainsFunc(q.kinds, func(k session.Kind) bool { return k.Name == q.kind && k.Waits })
}

// path is the page with another kind.
func (q question) path(kind string) string {
	p := with(q.door, q.next)
	if p == q.door {
		return p + "?with=" + kind
	}
	return p + "&with=" + kind
}

// goOn is the label of the main button.
func (q question) goOn() string { return cmp.Or(q.submit, words.Continue) }

// options is what the browser is to ask the passkey for.
func (q question) options() string { return string(q.sent.Public) }

// useWord is how a button names another way.
func useWord(k session.Kind) string {
	switch k.Name {
	case session.TOTP:
		return words.UseApp
	case session.Backup:
		return words.UseBackup
	}
	return k.Option
}

// wait answers a script with nothing: the phone has not answered yet, or nothing came of it.
func wait(r *ui.Request) error {
	r.W.WriteHeader(http.StatusNoContent)
	return nil
}

// leave is what the page says that waits for a phone, when it is left for another: nobody
// waits any more.
func leave(r *ui.Request) error {
	if err := r.Sessions.Leave(r.Context(), pendingCookie(r), r.Address()); err != nil {
		return err
	}
	return wait(r)
}

func leaveProof(r *ui.Request) error {
	if err := r.Sessions.LeaveProof(r.Context(), r.Session, r.Address()); err != nil {
		return err
	}
	return wait(r)
}

// choose asks for a kind at the sign-in.
func choose(r *ui.Request) error {
	p := signinPage{next: Next(r.Value("next")), kind: "choice"}
	_, err := r.Sessions.Choose(r.Context(), pendingCookie(r), r.Value("kind"), r.Value("again") != "", r.Address())
	if fault.Is(err, fault.Unavailable) {
		err = fault.Newf(fault.TooMany, "%s", fault.Of(err).Detail).Because(err)
	}
	if err != nil {
		return resumed(r, p, err)
	}
	return r.Go(with("/signin", p.next), "")
}

// chooseProof asks for a kind at a step-up.
func chooseProof(r *ui.Request) error {
	p := stepupOf(r, "choice")
	_, err := r.Sessions.ChooseProof(r.Context(), r.Session, r.Value("kind"), r.Value("again") != "", r.Address())
	switch {
	case fault.Is(err, fault.TooMany) || fault.Is(err, fault.Unavailable) || fault.Is(err, fault.BadRequest) || fault.Is(err, fault.Invalid):
		p.faults = ui.Faults(err)
		return p.show(r, fault.Of(err).Status())
	case err != nil:
		return err
	}
	return r.Go(with("/stepup", p.next), "")
}

// beginPasskey gives a script the options of a sign-in without a name.
func beginPasskey(r *ui.Request) error {
	options, raw, err := r.Sessions.BeginPasskey(r.Context(), r.Address(), r.UserAgent())
	if fault.Is(err, fault.Unavailable) || fault.Is(err, fault.TooMany) {
		return ui.PasskeySays(r, fault.Of(err))
	}
	if err != nil {
		return err
	}
	session.SetSigninCookie(r.W, raw)
	return ui.PasskeyOptions(r, "", options)
}

func finishPasskey(r *ui.Request) error {
	p := signinPage{next: Next(r.Value("next"))}
	answer := secretOf(r, "code")
	defer answer.Wipe()
	known := ""
	if c := r.CookiesNamed(session.KnownCookie); len(c) == 1 {
		known = c[0].Value
	}
	o, err := r.Sessions.FinishPasskey(r.Context(), pendingCookie(r), answer, r.Address(), known)
	switch {
	case err == nil:
		return arrived(r, o, p.next)
	case fault.Is(err, fault.Unauthorized) || fault.Is(err, fault.TooMany) || fault.Is(err, fault.Invalid):
		p.faults = map[string]string{"": fault.Of(err).Detail}
		for _, f := range ui.Faults(err) {
			p.faults[""] = f
		}
		session.ClearCookie(r.W, session.SigninCookie)
		return p.show(r, fault.Of(err).Status())
	}
	return resumed(r, p, err)
}
