package people

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/a-h/templ"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/why"
	"latchkey/internal/server/web/words"
)

// bench is everything that stands on a user's page.
type bench struct {
	u        rest.User
	factors  []rest.Factor
	machines []place
	more     bool // machines that are not shown
	windows  []rest.Window
	sessions []session.Session
	signins  []why.Signin
	me       desk.Actor
	fresh    bool
	here     string // the page's address
	// blocked says why nothing may be done for this user that would let somebody in as
	// them (E3); empty: it may. With approval, another owner can allow it.
	blocked  string
	approval bool
	asked    []session.Approval
	s        *forms.Sent
}

// place is a machine that the user knows, and what lies there for them.
type place struct {
	m       rest.Machine
	offline []rest.OfflineEntry
}

func (b *bench) id() string { return strings.TrimPrefix(b.u.ID, rest.UserPrefix) }

func (b *bench) path(action string) string { return userPath(b.u.ID) + "/" + action }

func (b *bench) may(right string) bool { return b.me.Can(right) }

// allows tells whether the form of an operation that E3 stands over is offered: where
// another owner must agree, when they have.
func (b *bench) allows(right, op string) bool {
	return b.may(right) && (b.blocked == "" || b.approved(op) != "")
}

// mine tells whether the page is about who looks at it.
func (b *bench) mine() bool { return b.me.UserID != "" && b.me.UserID == b.id() }

// approved is the id of an approval of the action that can be used now.
func (b *bench) approved(op string) string {
	for _, a := range b.asked {
		if a.Action == op && a.State == session.StateGiven && a.SubjectID == b.id() && a.RequesterID == b.me.UserID {
			return a.ID
		}
	}
	return ""
}

const (
	benchMachines = 25
	benchSignins  = 10
)

func load(r *ui.Request, ref string) (*bench, error) {
	ctx, a := r.Context(), r.Actor()
	b := &bench{me: a, fresh: r.Session.IsFresh(r.Clock.Now())}
	var err error
	if b.u, err = r.Desk.ShowUser(ctx, a, ref); err != nil {
		return nil, err
	}
	b.here = userPath(b.u.ID)
	factors, err := r.Desk.ListFactors(ctx, a, b.u.ID)
	if err != nil {
		return nil, err
	}
	b.factors = factors.Items
	machines, err := r.Desk.ListMachines(ctx, a, desk.MachineFilter{User: b.u.ID}, "", benchMachines)
	if err != nil {
		return nil, err
	}
	offline, err := r.Desk.ListOffline(ctx, a, desk.OfflineFilter{User: b.u.ID}, "", rest.MaxPage)
	if err != nil {
		return nil, err
	}
	b.more = machines.Next != ""
	for _, m := range machines.Items {
		p := place{m: m}
		for _, e := range offline.Items {
			if e.MachineID == m.ID {
				p.offline = append(p.offline, e)
			}
		}
		b.machines = append(b.machines, p)
	}
	windows, err := r.Desk.ListWindows(ctx, a, b.u.ID, "", "", 0)
	if err != nil {
		return nil, err
	}
	b.windows = windows.Items
	if b.sessions, err = r.Sessions.List(ctx, a, b.id()); err != nil {
		return nil, err
	}
	events, err := r.Desk.ListEvents(ctx, a, desk.EventFilter{Types: []string{"signin."}, User: b.u.ID}, "", benchSignins)
	if err != nil {
		return nil, err
	}
	b.signins = why.Signins(events.Items)
	if err := a.Over(b.u.Name, b.id(), b.u.Role); err != nil {
		b.blocked = fault.Of(err).Public()
		b.approval = a.Role == rest.RoleOwner && a.UserID != b.id()
	}
	// Also one about somebody who is to become an owner is used by the form.
	if a.Role == rest.RoleOwner && a.UserID != b.id() {
		if b.asked, err = r.Sessions.ListApprovals(ctx, a); err != nil && !fault.Is(err, fault.Unavailable) {
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) frame() ui.Page {
	return ui.Page{
		Title: b.u.Name, Section: "users", Lead: b.u.DisplayName, Badge: stateBadge(b.u), Wide: true,
		Crumbs: []ui.Crumb{{Text: words.NavUsers, Path: "/console/users"}},
		Curl:   &ui.Curl{Method: "GET", Path: rest.Base + "/users/" + b.u.ID},
	}
}

func showUser(r *ui.Request) error {
	b, err := load(r, r.PathValue("user"))
	if err != nil {
		return err
	}
	return r.Show(b.frame(), userPage(b))
}

// done is what an action has brought: a notice on the page, or a page of its own that
// shows a secret once.
type done struct {
	to, notice string
	page       *ui.Page
	body       templ.Component
}

// userAction is something that is done to a user.
type userAction struct {
	path  string
	form  string
	op    string // of the API, for an approval (E3)
	fresh bool
	do    func(r *ui.Request, a desk.Actor, ref string) (done, error)
}

var userActions []userAction

func init() {
	userActions = []userAction{
		{"identity", "identity", "change-user", true, changeIdentity},
		{"mfa", "mfa", "change-user", true, changeMFA},
		{"role", "role", "change-user", true, changeRole},
		{"disable", "state", "change-user", true, disable},
		{"enable", "state", "change-user", true, enable},
		{"password", "password", "set-password", true, setPassword},
		{"unlock", "unlock", "unlock-user", false, unlock},
		{"enrolment-code", "enrol", "issue-enrolment-code", true, enrolCode},
		{"bypass-code", "bypass", "issue-bypass-code", true, bypassCode},
		{"totp", "totp", "add-totp", true, addTOTP},
		{"phone", "phone", "add-phone", true, addPhone},
		{"mail", "mail", "add-mail", true, addAddress(rest.ChannelMail)},
		{"sms", "sms", "add-sms", true, addAddress(rest.ChannelSMS)},
		{"push/unlock", "push", "unlock-push", true, unlockPush},
		{"backup", "backup", "add-backup", true, addBackup},
		{"factors/{factor}/remove", "factor", "remove-factor", true, removeFactor},
		{"factors/{factor}/lost", "factor", "lose-factor", true, loseFactor},
		{"groups", "group", "add-member", true, joinGroup},
		{"groups/{group}/remove", "group", "remove-member", true, leaveGroup},
		{"everywhere", "everywhere", "", false, signOutEverywhere},
		{"sessions/{session}/end", "sessions", "", false, endSession},
		{"disenrol", "disenrol", "disenroll-offline", true, disenrol},
		{"approval", "approval", "", true, askApproval},
		{"remove", "remove", "remove-user", true, removeUser},
	}
}

// serve carries the action out, and shows the page again with the form where that did
// not work.
func (x userAction) serve() func(*ui.Request) error {
	return func(r *ui.Request) error {
		ref := r.PathValue("user")
		var out done
		act := func(a desk.Actor) (err error) {
			out, err = x.do(r, a, ref)
			return err
		}
		var err error
		if id := forms.Get(r, x.form, "approval"); id != "" && x.op != "" {
			err = r.Sessions.Approved(r.Context(), r.Session, r.Address(), id, x.op, act)
		} else {
			err = act(r.Actor())
		}
		switch {
		case err == nil && out.body != nil:
			return r.Show(*out.page, out.body)
		case err == nil:
			if out.to == "" {
				out.to = userPath(ref)
			}
			return r.Go(out.to, out.notice)
		case !forms.Again(err):
			return err
		}
		b, lost := load(r, ref)
		if lost != nil {
			return err // what was wrong with the action says more
		}
		b.s = forms.Was(r, x.form, err)
		if fault.Is(err, fault.Conflict) && forms.Has(r, x.form, "rev") && forms.Rev(r, x.form) != b.u.Rev {
			b.s.Faults = map[string]string{}
			b.s.Compare(lastChange(r, b), b.fields(x.form))
		}
		return r.ShowStatus(fault.Of(err).Status(), b.frame(), userPage(b))
	}
}

// fields are what the form changes, as it is now.
func (b *bench) fields(form string) []forms.Changed {
	u := b.u
	switch form {
	case "identity":
		uid, must := "", ""
		if u.UID != nil {
			uid = strconv.FormatInt(*u.UID, 10)
		}
		if u.MustChange {
			must = "on"
		}
		return []forms.Changed{
			{Name: "display_name", Label: words.DeskDisplayName, Is: u.DisplayName},
			{Name: "mail", Label: words.DeskMail, Is: u.Mail},
			{Name: "uid", Label: words.DeskUID, Is: uid},
			{Name: "activation", Label: words.DeskActivation, Is: u.Activation},
			{Name: "activate_at", Label: words.DeskActivateAt, Is: localTime(u.ActivateAt)},
			{Name: "must_change", Label: words.DeskMustChange, Is: must},
		}
	case "mfa":
		return []forms.Changed{{Name: "mfa", Label: words.DeskMFASetting, Is: u.MFA}}
	case "role":
		return []forms.Changed{{Name: "role", Label: words.DeskRole, Is: u.Role}}
	}
	return nil
}

// lastChange says who has changed the user last.
func lastChange(r *ui.Request, b *bench) forms.Clash {
	c := forms.Clash{Path: b.here}
	page, err := r.Desk.ListEvents(r.Context(), r.Actor(), desk.EventFilter{User: b.u.ID, Types: []string{
		string(event.UserChanged), string(event.UserDisabled), string(event.UserEnabled), string(event.PasswordChanged),
	}}, "", 1)
	if err == nil && len(page.Items) == 1 {
		c.By, c.At = page.Items[0].Actor, page.Items[0].At
	}
	return c
}

// changed gives a pointer where the form's field differs from what the page was opened
// with: what was not touched is not written.
func changed(r *ui.Request, form, field string) *string {
	v := forms.Get(r, form, field)
	if forms.Has(r, form, "seen-"+field) && v == forms.Get(r, form, "seen-"+field) && forms.Rev(r, form) > 0 {
		return nil
	}
	return &v
}

func changeIdentity(r *ui.Request, a desk.Actor, ref string) (done, error) {
	const form = "identity"
	bad := fault.New(fault.Invalid, nil)
	in := rest.UserChange{DisplayName: changed(r, form, "display_name"), Mail: changed(r, form, "mail")}
	if uid := changed(r, form, "uid"); uid != nil {
		if in.UID = number(bad, "uid", *uid); in.UID == nil {
			none := int64(-1)
			in.UID = &none
		}
	}
	must := forms.Get(r, form, "must_change") != ""
	in.MustChange = &must
	if word := forms.Get(r, form, "activation"); word != "" && (changed(r, form, "activation") != nil || word == rest.ActivateAt && changed(r, form, "activate_at") != nil) {
		in.Activation = &word
		if word == rest.ActivateAt {
			at := moment(bad, "activate_at", forms.Get(r, form, "activate_at"))
			in.ActivateAt = &at
		}
	}
	if len(bad.Fields) > 0 && a.Can("change") {
		return done{}, bad
	}
	u, err := r.Desk.ChangeUser(r.Context(), a, ref, forms.Rev(r, form), in)
	return done{notice: words.DeskUserChanged(u.Name)}, err
}

func changeMFA(r *ui.Request, a desk.Actor, ref string) (done, error) {
	word := forms.Get(r, "mfa", "mfa")
	u, err := r.Desk.ChangeUser(r.Context(), a, ref, forms.Rev(r, "mfa"), rest.UserChange{MFA: &word})
	return done{notice: words.DeskMFAIsNow(u.Name, u.MFAEffective)}, err
}

func changeRole(r *ui.Request, a desk.Actor, ref string) (done, error) {
	word := forms.Get(r, "role", "role")
	u, err := r.Desk.ChangeUser(r.Context(), a, ref, forms.Rev(r, "role"), rest.UserChange{Role: &word})
	return done{notice: words.DeskRoleIsNow(u.Name, words.DeskRoles[u.Role])}, err
}

func disable(r *ui.Request, a desk.Actor, ref string) (done, error) {
	yes := true
	u, err := r.Desk.ChangeUser(r.Context(), a, ref, forms.Rev(r, "state"), rest.UserChange{Disabled: &yes})
	return done{notice: words.DeskUserDisabled(u.Name)}, err
}

func enable(r *ui.Request, a desk.Actor, ref string) (done, error) {
	no := false
	u, err := r.Desk.ChangeUser(r.Context(), a, ref, forms.Rev(r, "state"), rest.UserChange{Disabled: &no})
	return done{notice: words.DeskUserEnabled(u.Name)}, err
}

func setPassword(r *ui.Request, a desk.Actor, ref string) (done, error) {
	v, err := r.Values()
	if err != nil {
		return done{}, err
	}
	if !a.Can("change") {
		return done{}, fault.New(fault.Forbidden, nil)
	}
	one, two := v.Get("password-password"), v.Get("password-again")
	switch {
	case one == "":
		return done{}, fault.New(fault.Invalid, nil).With("password", "it is missing")
	case one != two:
		return done{}, fault.New(fault.Invalid, nil).With("again", "it differs from the password; type the same twice")
	}
	in := rest.NewPassword{Password: rest.Hide(secret.FromString(one)), MustChange: forms.Get(r, "password", "must_change") != ""}
	defer in.Password.Wipe()
	return done{notice: words.DeskPasswordSet}, r.Desk.SetPassword(r.Context(), a, ref, in)
}

func unlock(r *ui.Request, a desk.Actor, ref string) (done, error) {
	n, err := r.Desk.Unlock(r.Context(), a, ref)
	return done{notice: words.DeskUnlocked(n.Count)}, err
}

// shown is a page with a secret that is shown once.
func shown(title string, u rest.Code) *ui.Page {
	return &ui.Page{Title: title, Section: "users", Crumbs: []ui.Crumb{{Text: words.NavUsers, Path: "/console/users"}, {Text: u.User, Path: userPath(u.User)}}}
}

func enrolCode(r *ui.Request, a desk.Actor, ref string) (done, error) {
	u, err := r.Desk.ShowUser(r.Context(), r.Actor(), ref)
	if err != nil {
		return done{}, err
	}
	c, err := r.Desk.IssueEnrolCode(r.Context(), a, ref, rest.NewEnrolCode{ValidFor: forms.Get(r, "enrol", "valid_for"), Mail: forms.Get(r, "enrol", "mail") != ""})
	if err != nil {
		return done{}, err
	}
	return done{page: shown(words.DeskEnrolCodeTitle, c), body: enrolPage(c, u, "https://"+r.Host+"/me", userPath(ref))}, nil
}

func bypassCode(r *ui.Request, a desk.Actor, ref string) (done, error) {
	c, err := r.Desk.IssueBypassCode(r.Context(), a, ref, rest.NewBypassCode{
		Reason: forms.Get(r, "bypass", "reason"), Scope: forms.Get(r, "bypass", "scope"), ValidFor: forms.Get(r, "bypass", "valid_for"),
	})
	if err != nil {
		return done{}, err
	}
	return done{page: shown(words.DeskBypassCodeTitle, c), body: codePage(c, words.DeskBypassCodeText, userPath(ref))}, nil
}

func addTOTP(r *ui.Request, a desk.Actor, ref string) (done, error) {
	digits, _ := strconv.Atoi(forms.Get(r, "totp", "digits"))
	period, _ := strconv.Atoi(forms.Get(r, "totp", "period"))
	t, err := r.Desk.AddTOTP(r.Context(), a, ref, rest.NewTOTP{
		Name: forms.Get(r, "totp", "name"), Algorithm: forms.Get(r, "totp", "algorithm"), Digits: digits, Period: period,
		RequireFirstCode: forms.Get(r, "totp", "first") != "",
	})
	if err != nil {
		return done{}, err
	}
	picture, err := factor.SVG(t.URI.Show(), words.DeskQRLabel(t.User))
	if err != nil {
		return done{}, err
	}
	return done{page: shown(words.DeskTOTPTitle, rest.Code{User: t.User}), body: totpPage(t, picture, userPath(ref))}, nil
}

func addBackup(r *ui.Request, a desk.Actor, ref string) (done, error) {
	c, err := r.Desk.AddBackup(r.Context(), a, ref)
	if err != nil {
		return done{}, err
	}
	return done{page: shown(words.DeskBackupTitle, rest.Code{User: c.User}), body: backupPage(c, userPath(ref))}, nil
}

func removeFactor(r *ui.Request, a desk.Actor, ref string) (done, error) {
	_, err := r.Desk.RemoveFactor(r.Context(), a, ref, r.PathValue("factor"))
	return done{notice: words.DeskFactorRemoved}, err
}

func loseFactor(r *ui.Request, a desk.Actor, ref string) (done, error) {
	_, err := r.Desk.LoseFactor(r.Context(), a, ref, r.PathValue("factor"))
	return done{notice: words.DeskFactorLost}, err
}

func joinGroup(r *ui.Request, a desk.Actor, ref string) (done, error) {
	name := forms.Get(r, "group", "group")
	if name == "" && a.Can("change") {
		return done{}, fault.New(fault.Invalid, nil).With("group", "it is missing; type the name of a group")
	}
	_, err := r.Desk.AddMember(r.Context(), a, name, ref)
	if fault.Is(err, fault.NotFound) && strings.Contains(fault.Of(err).Public(), "group") {
		err = fault.New(fault.Invalid, err).With("group", "there is no group %q; names are exact", name)
	}
	return done{notice: words.DeskInGroup(name)}, err
}

func leaveGroup(r *ui.Request, a desk.Actor, ref string) (done, error) {
	_, err := r.Desk.RemoveMember(r.Context(), a, r.PathValue("group"), ref)
	return done{notice: words.DeskOutOfGroup(r.PathValue("group"))}, err
}

// signOutEverywhere ends the windows on all machines and the sessions in all browsers, and
// of somebody else the API tokens and certificates.
func signOutEverywhere(r *ui.Request, a desk.Actor, ref string) (done, error) {
	ctx := r.Context()
	u, err := r.Desk.ShowUser(ctx, a, ref)
	if err != nil {
		return done{}, err
	}
	windows := func() (int, error) {
		n, err := r.Desk.RevokeWindows(ctx, a, rest.Pairs{User: ref})
		return n.Count, err
	}
	id := strings.TrimPrefix(u.ID, rest.UserPrefix)
	if id == a.UserID {
		n, err := windows()
		if err != nil {
			return done{}, err
		}
		ended, err := r.Sessions.RevokeAll(ctx, a, id, r.Session.ID)
		return done{notice: words.DeskSignedOutSelf(n, ended.Sessions)}, err
	}
	ended, err := r.Sessions.RevokeAll(ctx, a, id, "")
	if fault.Is(err, fault.Forbidden) { // one who stands higher: the windows alone
		n, err := windows()
		return done{notice: words.DeskWindowsEndedOnly(n)}, err
	}
	return done{notice: words.DeskSignedOut(ended.Windows, ended.Sessions, ended.Tokens, ended.Certificates)}, err
}

func endSession(r *ui.Request, a desk.Actor, _ string) (done, error) {
	if !a.Can("helpdesk") {
		return done{}, fault.New(fault.Forbidden, nil)
	}
	return done{notice: words.DeskSessionEnded}, r.Sessions.Revoke(r.Context(), a, r.PathValue("session"))
}

func disenrol(r *ui.Request, a desk.Actor, ref string) (done, error) {
	n, err := r.Desk.Disenrol(r.Context(), a, rest.Pairs{User: ref, Machine: forms.Get(r, "disenrol", "machine")})
	return done{notice: words.DeskDisenrolled(n.Count)}, err
}

func askApproval(r *ui.Request, a desk.Actor, ref string) (done, error) {
	if a.Role != rest.RoleOwner {
		return done{}, fault.New(fault.Forbidden, nil)
	}
	op := forms.Get(r, "approval", "op")
	if !slices.Contains(session.Actions, op) {
		return done{}, fault.New(fault.Invalid, nil).With("op", "choose what is to be approved")
	}
	_, err := r.Sessions.Ask(r.Context(), r.Session, r.Address(), op, ref, forms.Get(r, "approval", "reason"))
	return done{notice: words.DeskApprovalAsked}, err
}

func removeUser(r *ui.Request, a desk.Actor, ref string) (done, error) {
	if !a.Can("change") {
		return done{}, fault.New(fault.Forbidden, nil)
	}
	u, err := r.Desk.ShowUser(r.Context(), a, ref)
	if err != nil {
		return done{}, err
	}
	if forms.Get(r, "remove", "confirm") != u.Name {
		return done{}, fault.New(fault.Invalid, nil).With("confirm", "type %s exactly as it stands above", u.Name)
	}
	return done{to: "/console/users", notice: words.DeskUserRemoved(u.Name)}, r.Desk.RemoveUser(r.Context(), a, ref, forms.Rev(r, "remove"))
}

func kindOfFactor(state string) string {
	switch state {
	case "usable":
		return ui.OK
	case "lost":
		return ui.Bad
	}
	return ui.Warn
}

func offlineKind(state string) string {
	switch state {
	case "active":
		return ui.OK
	case "activating", "retired", "disenrolling":
		return ui.Info
	}
	return ui.Warn
}

func isMine(ctx context.Context, s session.Session) bool {
	r := ui.From(ctx)
	return r != nil && r.Session != nil && r.Session.ID == s.ID
}
