package people

import (
	"cmp"
	"net/http"
	"slices"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/lists"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// userList is the list of users with its filters.
type userList struct {
	page  rest.Page[rest.User]
	f     desk.UserFilter
	after string
	may   bool
}

func (l userList) filtered() bool {
	l.f.Sort = ""
	return l.f != desk.UserFilter{}
}

func (l userList) path(after string) string {
	return lists.Path("/console/users", "prefix", l.f.Prefix, "role", l.f.Role, "state", l.f.State, "mfa", l.f.MFA, "group", l.f.Group, "sort", l.f.Sort, "after", after)
}

// by is the address of the list in another order.
func (l userList) by(sort string) string {
	l.f.Sort = sort
	return l.path("")
}

func (l userList) cols() []ui.Col {
	cols := ui.Cols(words.DeskUser, words.DeskState, words.DeskRole, words.DeskMFA, words.DeskFactors, words.NavGroups, words.DeskAdded)
	cols[0] = lists.Sorted(cols[0], cmp.Or(l.f.Sort, "name"), "name", l.by)
	cols[6] = lists.Sorted(cols[6], l.f.Sort, "-created", l.by)
	return cols
}

func listUsers(r *ui.Request) error {
	l := userList{
		f:     desk.UserFilter{Prefix: r.Value("prefix"), Role: r.Value("role"), State: r.Value("state"), MFA: r.Value("mfa"), Group: r.Value("group"), Sort: r.Value("sort")},
		after: r.Value("after"), may: r.Actor().Can("change"),
	}
	var err error
	if l.page, err = r.Desk.ListUsers(r.Context(), r.Actor(), l.f, l.after, 0); err != nil {
		return err
	}
	p := ui.Page{Title: words.NavUsers, Section: "users", Wide: true, Curl: &ui.Curl{Method: "GET", Path: lists.Path(
		rest.Base+"/users", "prefix", l.f.Prefix, "role", l.f.Role, "state", l.f.State, "mfa", l.f.MFA, "group", l.f.Group, "sort", l.f.Sort)}}
	if l.may {
		p.Actions = userListActions()
	}
	return r.Show(p, usersPage(l))
}

func newUser(r *ui.Request) error {
	if !r.Actor().Can("change") {
		return fault.New(fault.Forbidden, nil)
	}
	return r.Show(newUserFrame(), newUserPage(nil, r.Actor()))
}

func newUserFrame() ui.Page {
	return ui.Page{
		Title: words.DeskUserNew, Section: "users", Crumbs: []ui.Crumb{{Text: words.NavUsers, Path: "/console/users"}},
		Curl: &ui.Curl{Method: "POST", Path: rest.Base + "/users", Body: rest.NewUser{Name: "NAME", Role: rest.RoleNone, Groups: []string{}}},
	}
}

// theUser is the form in which a user is added.
const theUser = "user"

func addUser(r *ui.Request) error {
	get := func(field string) string { return forms.Get(r, theUser, field) }
	bad := fault.New(fault.Invalid, nil)
	in := rest.NewUser{
		Name: get("name"), DisplayName: get("display_name"), Mail: get("mail"), Role: get("role"), MFA: get("mfa"), Activation: get("activation"),
		MustChange: get("must_change") != "", Groups: lists.Names(get("groups")), UID: number(bad, "uid", get("uid")),
	}
	if in.Activation == rest.ActivateAt {
		in.ActivateAt = moment(bad, "activate_at", get("activate_at"))
	}
	v, err := r.Values()
	if err != nil {
		return err
	}
	password := v.Get(forms.Name(theUser, "password"))
	if password != v.Get(forms.Name(theUser, "again")) {
		bad.With("again", "it differs from the password; type the same twice")
	}
	if password != "" {
		in.Password = rest.Hide(secret.FromString(password))
		defer in.Password.Wipe()
	}
	if in.Role == rest.RoleOwner && r.Actor().Role == rest.RoleOwner {
		bad.With("role", "%s", words.DeskOwnerSteps) // nobody could give them a factor afterwards
	}
	var u rest.User
	if err = nil; len(bad.Fields) > 0 {
		also(r, in, bad)
		err = bad
		if !r.Actor().Can("change") {
			err = fault.New(fault.Forbidden, nil)
		}
	} else if !r.Session.IsFresh(r.Clock.Now()) && r.Actor().Can("change") {
		return r.ShowStatus(http.StatusForbidden, newUserFrame(), forms.Confirm(newUserPage(forms.Was(r, theUser, nil), r.Actor())))
	} else {
		u, err = r.Desk.AddUser(r.Context(), r.Actor(), in)
	}
	if err == nil {
		return r.Go(userPath(u.ID), words.DeskUserAdded(u.Name))
	}
	if !forms.Again(err) {
		return err
	}
	if fault.Is(err, fault.Exists) {
		err = fault.New(fault.Exists, err).With("name", "it is taken; choose another")
	}
	return r.ShowStatus(fault.Of(err).Status(), newUserFrame(), newUserPage(forms.Was(r, theUser, err), r.Actor()))
}

// also adds what the desk finds wrong, so that all of it is shown at once. An activation
// that is none keeps the user from being added.
func also(r *ui.Request, in rest.NewUser, bad *fault.Fault) {
	in.Activation = "none"
	_, err := r.Desk.AddUser(r.Context(), r.Actor(), in)
	for _, x := range fault.Of(err).Fields {
		known := slices.ContainsFunc(bad.Fields, func(f fault.Field) bool { return f.Name == x.Name })
		if x.Name != "activation" && !known {
			bad.With(x.Name, "%s", x.Fault)
		}
	}
}

// number reads a whole number; nil if there is none.
func number(bad *fault.Fault, field, s string) *int64 {
	if s == "" {
		return nil
	}
	n := int64(0)
	for _, c := range s {
		if c < '0' || c > '9' || n > 1<<40 {
			bad.With(field, "%q is no account number; allowed are 0 to 4294967294", s)
			return nil
		}
		n = n*10 + int64(c-'0')
	}
	return &n
}

// moment reads a point in time as a browser writes it, in UTC.
func moment(bad *fault.Fault, field, s string) time.Time {
	for _, form := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC()
		}
	}
	if s == "" {
		bad.With(field, "it is missing; say when, in UTC")
	} else {
		bad.With(field, "%.40q is no time; allowed are times such as 2026-12-01T08:00, in UTC", s)
	}
	return time.Time{}
}
