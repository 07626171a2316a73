package portal

import (
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// A phone is set up by a code that lives for ten minutes. It is made when it is asked
// for and not when a page is opened, because each ends the one before.

// phone is a code as its page shows it.
type phone struct {
	rest.PhoneCode
	svg   string
	first bool
}

func phoneRoutes() []ui.Route {
	return []ui.Route{
		{Pattern: "GET /me/phone", Needs: ui.Person, Fresh: true, Serve: whole(func(r *ui.Request) error { return r.Show(phoneOf(false), phoneBefore(false)) })},
		{Pattern: "POST /me/phone", Needs: ui.Person, Fresh: true, Serve: whole(func(r *ui.Request) error { return showPhone(r, false) })},
		{Pattern: "GET /me/phone/{code}", Needs: ui.Person, Serve: whole(func(r *ui.Request) error { return lookPhone(r, false) })},
		{Pattern: "POST /me/phone/{code}/came", Needs: ui.Person, Serve: whole(func(r *ui.Request) error { return r.Go("/me/factors", words.PhoneCame) })},

		{Pattern: "GET /me/enrol/phone", Needs: ui.Person, Serve: first(func(r *ui.Request) error { return r.Show(phoneOf(true), phoneBefore(true)) })},
		{Pattern: "POST /me/enrol/phone", Needs: ui.Person, Serve: first(func(r *ui.Request) error { return showPhone(r, true) })},
		{Pattern: "GET /me/enrol/phone/{code}", Needs: ui.Person, Serve: first(func(r *ui.Request) error { return lookPhone(r, true) })},
		{Pattern: "POST /me/enrol/phone/{code}/came", Needs: ui.Person, Serve: first(phoneEnrolled)},
	}
}

// first is for a session that an enrolment code has opened; whoever has a whole one goes
// where a further phone is set up.
func first(serve func(*ui.Request) error) func(*ui.Request) error {
	return func(r *ui.Request) error {
		if !enrolling(r) {
			return r.Go("/me/phone", "")
		}
		return serve(r)
	}
}

func phonePath(first bool) string {
	if first {
		return "/me/enrol/phone"
	}
	return "/me/phone"
}

func phoneOf(first bool) ui.Page {
	p := ui.Page{Title: words.PhoneTitle, Lead: words.PhoneLead, Section: "factors"}
	if !first {
		p.Crumbs = []ui.Crumb{toFactors}
	}
	return p
}

func showPhone(r *ui.Request, first bool) error {
	c, err := r.Desk.BeginOwnPhone(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	svg, err := factor.SVG(c.Link.Show(), words.PhoneQR)
	if err != nil {
		return err
	}
	return r.Show(phoneOf(first), phoneCode(phone{PhoneCode: c, svg: svg, first: first}))
}

// lookPhone tells what has become of the code.
func lookPhone(r *ui.Request, first bool) error {
	p, err := r.Desk.ShowOwnPhoneCode(r.Context(), r.Actor(), r.PathValue("code"))
	if err != nil {
		return err
	}
	if r.Htmx() {
		return r.Part(phoneState(p, first))
	}
	return r.Show(phoneOf(first), phonePage(p, first))
}

// phoneEnrolled makes the session of an enrolment code a whole one, when the phone has
// come.
func phoneEnrolled(r *ui.Request) error {
	secret, err := r.Sessions.Enrolled(r.Context(), r.Session, r.Address())
	if err != nil {
		return err
	}
	session.SetCookie(r.W, secret)
	return r.Go("/me/enrol/codes", words.PhoneCame)
}

func yesNo(yes bool) string {
	if yes {
		return words.PhoneYes
	}
	return words.PhoneNo
}

func notified(yes bool) string {
	if yes {
		return words.PhoneYes
	}
	return words.PhoneNotNotified
}

// factorKind says what a factor is.
func factorKind(f rest.Factor) string {
	switch {
	case f.Phone != nil:
		return words.PhoneKind
	case f.Passkey != nil:
		return passkeyKind(f.Passkey)
	case f.Period != 0 && f.On != "":
		return words.PhoneOn + ", " + words.MyAppCodes(f.Digits, f.Period)
	case f.Period != 0:
		return f.Algorithm + ", " + words.MyAppCodes(f.Digits, f.Period)
	}
	return f.Kind
}
