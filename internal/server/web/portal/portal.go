// Package portal holds the pages on which people look after themselves: their
// factors with the first enrolment, backup codes, machines, sign-ins, reports and
// password. It also has the console's pages of what people report.
//
// It promises: every page does without script; what somebody does here is a function
// of the desk, which judges the right, and an operation of the API; whoever has only
// an enrolment code is led through the enrolment and sees nothing else; a secret is
// shown once, in the answer to the request that made it, and stored by no page.
//
// Rows: E1 (enrolment by the user), M1, M5, O14 (disenrolment by the user), O16
// (what is left offline), S9 (the password).
package portal

import (
	"net/url"
	"slices"

	"github.com/a-h/templ"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	own := func(pattern string, fresh bool, serve func(*ui.Request) error) ui.Route {
		return ui.Route{Pattern: pattern, Needs: ui.Person, Fresh: fresh, Serve: whole(serve)}
	}
	return append(append(append(phoneRoutes(), passkeyRoutes()...), addressRoutes()...), []ui.Route{
		own("GET /me", false, home),
		own("GET /me/profile", false, profile),
		own("POST /me/profile", false, changeProfile),

		{Pattern: "GET /me/enrol", Needs: ui.Person, Serve: enrol},
		{Pattern: "POST /me/enrol", Needs: ui.Person, Serve: confirmEnrol},
		own("GET /me/enrol/codes", false, enrolCodes),
		own("POST /me/enrol/codes", true, makeEnrolCodes),
		own("POST /me/enrol/kept", false, keptEnrolCodes),
		own("GET /me/enrol/done", false, enrolDone),

		own("GET /me/factors", false, factors),
		own("GET /me/factors/add", true, addFactor),
		own("POST /me/factors/add", false, confirmFactor),
		own("GET /me/factors/backup", false, backup),
		own("POST /me/factors/backup", true, makeBackup),
		own("POST /me/factors/backup/kept", false, keptBackup),
		own("GET /me/factors/{factor}", false, oneFactor),
		own("POST /me/factors/{factor}/name", false, renameFactor),
		own("POST /me/factors/{factor}/remove", true, removeFactor),
		own("POST /me/factors/{factor}/lost", true, loseFactor),

		own("GET /me/machines", false, machines),
		own("GET /me/machines/{machine}", false, machine),
		own("POST /me/machines/{machine}/disenrol", false, disenrol),
		own("POST /me/machines/{machine}/lost", false, loseMachine),

		own("GET /me/signins", false, signins),
		own("GET /me/signins/{signin}", false, signin),
		own("POST /me/signins/{signin}/report", false, reportSignin),
		own("GET /me/reports", false, reports),

		own("GET /me/password", true, password),
		own("POST /me/password", true, changePassword),

		{Pattern: "GET /console/reports", Needs: ui.Console, Serve: deskReports},
		{Pattern: "GET /console/reports/{report}", Needs: ui.Console, Serve: deskReport},
		{Pattern: "POST /console/reports/{report}/handled", Needs: ui.Console, Serve: handleReport},
	}...)
}

// enrolling tells whether the session can do nothing but enrol (E1).
func enrolling(r *ui.Request) bool { return r.Session.Factor == session.Enrol }

// whole leads whoever has only an enrolment code to the enrolment, and whoever must
// give the second factor again to where that is done.
func whole(serve func(*ui.Request) error) func(*ui.Request) error {
	return func(r *ui.Request) error {
		if enrolling(r) {
			return r.Go("/me/enrol", "")
		}
		return again(r, serve(r))
	}
}

// again turns the wish for a fresh second factor into the way to it and back to the
// page on which the action was begun.
func again(r *ui.Request, err error) error {
	if !fault.Is(err, fault.StepUp) {
		return err
	}
	to := "/me"
	if r.Method == "GET" {
		to = r.URL.RequestURI()
	} else if u, e := url.Parse(r.Referer()); e == nil && u.Host == r.Host && ui.Inside(u.RequestURI()) {
		to = u.RequestURI()
	}
	return r.Go("/stepup?"+url.Values{"next": {to}}.Encode(), "")
}

// curl is the operation behind a page.
func curl(method, path string, body any) *ui.Curl {
	return &ui.Curl{Method: method, Path: rest.Base + path, Body: body}
}

var (
	toMe       = ui.Crumb{Text: words.MeTitle, Path: "/me"}
	toFactors  = ui.Crumb{Text: words.MyFactorsTitle, Path: "/me/factors"}
	toMachines = ui.Crumb{Text: words.MyMachinesTitle, Path: "/me/machines"}
	toSignins  = ui.Crumb{Text: words.MySigninsTitle, Path: "/me/signins"}
)

// next is the address of the next page of a list, or empty.
func next(path, cursor string) string {
	if cursor == "" {
		return ""
	}
	return path + "?" + url.Values{"after": {cursor}}.Encode()
}

// start is the address of a list's first page, when another is shown.
func start(r *ui.Request, path string) string {
	if r.Value("after") == "" {
		return ""
	}
	return path
}

// ── start page ──

// overview is what stands on the start page.
type overview struct {
	me       rest.Me
	machines []rest.OwnMachine
	signins  []rest.OwnSignin
}

func home(r *ui.Request) error {
	ctx, a := r.Context(), r.Actor()
	me, err := r.Desk.Me(ctx, a)
	if err != nil {
		return err
	}
	v := overview{me: me}
	m, err := r.Desk.ListOwnMachines(ctx, a, "", 5)
	if err != nil {
		return err
	}
	s, err := r.Desk.ListOwnSignins(ctx, a, "", 5)
	if err != nil {
		return err
	}
	v.machines, v.signins = m.Items, s.Items
	return r.Show(ui.Page{Title: words.MeTitle, Section: "me"}, homePage(v))
}

func profile(r *ui.Request) error {
	me, err := r.Desk.Me(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	return r.Show(profileOf(), profilePage(me, nil))
}

func profileOf() ui.Page {
	return ui.Page{Title: words.MeProfile, Section: "me", Crumbs: []ui.Crumb{toMe}}
}

func changeProfile(r *ui.Request) error {
	name, mail := r.Value("display_name"), r.Value("mail")
	_, err := r.Desk.ChangeMe(r.Context(), r.Actor(), 0, rest.MeChange{DisplayName: &name, Mail: &mail})
	if err == nil {
		return r.Go("/me", words.MeSaved)
	}
	if !ui.Refill(err) {
		return err
	}
	me, e := r.Desk.Me(r.Context(), r.Actor())
	if e != nil {
		return e
	}
	me.DisplayName, me.Mail = name, mail
	return r.ShowStatus(fault.Of(err).Status(), profileOf(), profilePage(me, ui.Faults(err)))
}

// ── password ──

func passwordOf() ui.Page {
	return ui.Page{Title: words.MyPasswordTitle, Lead: words.MyPasswordLead, Section: "password"}
}

func password(r *ui.Request) error {
	me, err := r.Desk.Me(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	return r.Show(passwordOf(), passwordPage(me, nil))
}

func changePassword(r *ui.Request) error {
	ctx, a := r.Context(), r.Actor()
	v, err := r.Values()
	if err != nil {
		return err
	}
	in := rest.OwnPassword{Old: rest.HideText(v.Get("old")), New: rest.HideText(v.Get("new"))}
	defer in.Old.Wipe()
	defer in.New.Wipe()
	if v.Get("new") != v.Get("again") {
		err = fault.New(fault.Invalid, nil).With("again", words.MyPasswordDiffers)
	} else if err = r.Desk.ChangeOwnPassword(ctx, a, in); err == nil {
		return r.Go("/me", words.MyPasswordChanged)
	}
	if !ui.Refill(err) && !fault.Is(err, fault.TooMany) {
		return err
	}
	me, e := r.Desk.Me(ctx, a)
	if e != nil {
		return e
	}
	return r.ShowStatus(fault.Of(err).Status(), passwordOf(), passwordPage(me, ui.Faults(err)))
}

// link is a button of a page's head.
func link(label, path, kind, icon string) templ.Component {
	return ui.Button(ui.ButtonProps{Label: label, Path: path, Kind: kind, Icon: icon})
}

// authenticators are the factors but the backup codes.
func authenticators(list []rest.Factor) []rest.Factor {
	return slices.DeleteFunc(slices.Clone(list), func(f rest.Factor) bool { return f.Kind == "backup" })
}

// codes is the set of backup codes; nil if there is none.
func codes(list []rest.Factor) *rest.Factor {
	for i := range list {
		if list[i].Kind == "backup" {
			return &list[i]
		}
	}
	return nil
}
