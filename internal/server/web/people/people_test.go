package people_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/webtest"
)

// scene is a rig with people of every role and something to look at.
type scene struct {
	*webtest.Rig
	otto, adam, hilda, aud, anna webtest.Person
	group                        rest.Group
	laptop                       string
}

func newScene(r *webtest.Rig) *scene {
	s := &scene{
		Rig: r, otto: r.Person("otto", rest.RoleOwner), adam: r.Person("adam", rest.RoleAdministrator), hilda: r.Person("hilda", rest.RoleHelpDesk),
		aud: r.Person("aud", rest.RoleAuditor), anna: r.Person("anna", rest.RoleNone),
	}
	var err error
	s.group, err = r.AddGroup(r.Context(), desk.Root(), rest.NewGroup{Name: "staff", MFA: "on"})
	r.Must(err)
	_, err = r.AddMember(r.Context(), desk.Root(), "staff", "anna")
	r.Must(err)
	m := r.Machine(r.T, "laptop", rest.MachineActive)
	s.laptop = rest.MachinePrefix + m.ID
	r.Vault(r.T, s.anna.ID, m.ID, "tpm", r.Manual.Now().Add(60*time.Hour).UnixMicro(), 5)
	return s
}

func (s *scene) user(p webtest.Person) rest.User {
	s.Helper()
	u, err := s.ShowUser(s.Context(), desk.Root(), p.Ref)
	s.Must(err)
	return u
}

func TestEveryRoleSeesThePagesAndNobodyElseDoes(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		anna := "/console/users/" + s.anna.Ref
		pages := map[string]string{
			"/console/users": "anna", "/console/users?state=unenrolled": "Nobody fits", "/console/users?prefix=AN": "anna", "/console/users?role=owner": "otto",
			"/console/users?group=staff": "anna", anna: "laptop", "/console/groups": "staff", "/console/groups/staff": "anna", "/console/locks": "Nobody is locked out",
		}
		for _, p := range []webtest.Person{s.otto, s.adam, s.hilda, s.aud} {
			b := p.SignedIn()
			for path, has := range pages {
				b.Get(path).Is(http.StatusOK).Has(has)
			}
			for _, path := range []string{"/console/users/new", "/console/groups/new"} {
				want := http.StatusOK
				if p.Name == "hilda" || p.Name == "aud" {
					want = http.StatusForbidden
				}
				b.Get(path).Is(want)
			}
			b.Get("/console/users/nobody").Is(http.StatusNotFound)
		}
		// Somebody without a role, and nobody, learn nothing of what is there.
		b := s.anna.SignedIn()
		for path := range pages {
			b.Get(path).Is(http.StatusForbidden).Lacks("laptop")
			r.Nobody().Get(path).Is(http.StatusSeeOther)
		}
		if a, n := b.Get("/console/users/nobody"), b.Get(anna); a.Status != n.Status || a.Text() != n.Text() {
			t.Errorf("whether a user exists can be told: %d %q, %d %q", a.Status, a.Text(), n.Status, n.Text())
		}
	})
}

// TestEveryFormOfAUser sends each form right, wrong, without the right, and late.
func TestEveryFormOfAUser(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		page := "/console/users/" + s.anna.Ref
		forms := []struct {
			name, path string
			good       []string
			goes       string // where a good form leads; empty: a page with a secret
			shows      string
			bad        []string
			field      string // at which the fault stands; empty: in the summary
			fault      string
			did        func(u rest.User) bool
		}{
			{
				"identity", page + "/identity",
				[]string{"identity-display_name", "Anna A.", "identity-mail", "anna@example.org", "identity-uid", "1000"},
				page, "",
				[]string{"identity-mail", "no address", "identity-display_name", "half written"},
				"identity-mail", "no mail address",
				func(u rest.User) bool {
					return u.DisplayName == "Anna A." && u.Mail == "anna@example.org" && u.UID != nil && *u.UID == 1000
				},
			},
			{
				"mfa", page + "/mfa",
				[]string{"mfa-mfa", "off"},
				page, "",
				[]string{"mfa-mfa", "perhaps"},
				"mfa-mfa", "not allowed",
				func(u rest.User) bool { return u.MFA == "off" && !u.MFAEffective },
			},
			{
				"role", page + "/role",
				[]string{"role-role", "auditor"},
				page, "",
				[]string{"role-role", "king"},
				"role-role", "not allowed",
				func(u rest.User) bool { return u.Role == "auditor" },
			},
			{
				"password", page + "/password",
				[]string{"password-password", "another horse entirely", "password-again", "another horse entirely"},
				page, "",
				[]string{"password-password", "another horse entirely", "password-again", "something else"},
				"password-again", "differs", nil,
			},
			{
				"enrolment code", page + "/enrolment-code",
				[]string{"enrol-valid_for", "1h"},
				"", "shown only now",
				[]string{"enrol-valid_for", "9999h"},
				"enrol-valid_for", "out of range",
				nil,
			},
			{
				"bypass code", page + "/bypass-code",
				[]string{"bypass-reason", "phone at home", "bypass-scope", "logon", "bypass-valid_for", "15m"},
				"", "shown only now",
				[]string{"bypass-reason", "", "bypass-valid_for", "15m"},
				"bypass-reason", "missing",
				func(u rest.User) bool { return strings.Contains(strings.Join(u.Factors, " "), "bypass") },
			},
			{
				"authenticator", page + "/totp",
				[]string{"totp-name", "tablet", "totp-digits", "8"},
				"", "<svg",
				[]string{"totp-digits", "7"},
				"totp-digits", "not allowed",
				nil,
			},
			{
				"backup codes", page + "/backup", nil, "", "latchkey-backup-codes.txt", nil, "", "",
				func(u rest.User) bool { return strings.Contains(strings.Join(u.Factors, " "), "backup") },
			},
			{
				"group", page + "/groups",
				[]string{"group-group", "others"},
				page, "",
				[]string{"group-group", "nowhere"},
				"group-group", "there is no group",
				func(u rest.User) bool { return len(u.Groups) == 2 },
			},
			{
				"leave group", page + "/groups/others/remove", nil, page, "", nil, "", "",
				func(u rest.User) bool { return len(u.Groups) == 1 },
			},
			{"everywhere", page + "/everywhere", nil, page, "", nil, "", "", nil},
			{"disenrol", page + "/disenrol", []string{"disenrol-machine", s.laptop}, page, "", nil, "", "", nil},
			{"disable", page + "/disable", nil, page, "", nil, "", "", func(u rest.User) bool { return u.Disabled }},
			{"enable", page + "/enable", nil, page, "", nil, "", "", func(u rest.User) bool { return !u.Disabled }},
			{
				"remove", page + "/remove",
				[]string{"remove-confirm", "anna"},
				"/console/users", "",
				[]string{"remove-confirm", "Anna"},
				"remove-confirm", "exactly",
				nil,
			},
		}
		_, err := r.AddGroup(r.Context(), desk.Root(), rest.NewGroup{Name: "others"})
		r.Must(err)
		_, err = r.AddMember(r.Context(), desk.Root(), "others", "aud") // so that the form is there for nobody else
		r.Must(err)
		b, late, aud := s.adam.SignedIn(), s.adam.SignedIn(), s.aud.SignedIn()
		for _, f := range forms {
			before := asJSON(s.user(s.anna))
			b.StepUp()
			// Without the right nothing changes, and the page says so.
			aud.StepUp()
			a := aud.Post(f.path, append([]string{"identity-rev", "1"}, f.good...)...)
			if a.Status != http.StatusForbidden {
				t.Errorf("%s by an auditor: %d\n%s", f.name, a.Status, a.Text())
			}
			if f.bad != nil {
				a := b.Submit(page, f.path, f.bad...).Is(http.StatusUnprocessableEntity)
				a.FaultAt(f.field, f.fault)
			}
			if after := asJSON(s.user(s.anna)); after != before {
				t.Errorf("%s: something was written although it was refused:\n%s\n%s", f.name, before, after)
			}
			old := late.Get(page)
			a = b.Submit(page, f.path, f.good...)
			if f.goes != "" {
				a.Goes(f.goes)
			} else {
				a.Is(http.StatusOK).Has(f.shows)
			}
			if f.name == "remove" {
				b.Get(page).Is(http.StatusNotFound)
				break
			}
			if f.did != nil && !f.did(s.user(s.anna)) {
				t.Errorf("%s: it was not done: %+v", f.name, s.user(s.anna))
			}
			// The same form from a page that is older is not carried out.
			form, _ := webtest.Form(old.Body, f.path)
			for k := range form {
				if strings.HasSuffix(k, "-rev") {
					late.StepUp()
					late.Resubmit(old, f.path, f.good...).Is(http.StatusConflict).Has("adam changed it")
				}
			}
		}
	})
}

func TestTwoAdministratorsSeeEachOther(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		page := "/console/users/" + s.anna.Ref
		adam, otto := s.adam.SignedIn(), s.otto.SignedIn()
		opened := adam.Get(page)
		otto.Submit(page, page+"/identity", "identity-display_name", "Anna of Otto", "identity-mail", "otto@example.org").Goes(page)
		// adam changes one of them and something else: he is shown what otto did.
		a := adam.Resubmit(opened, page+"/identity", "identity-display_name", "Anna of Adam", "identity-uid", "1234").Is(http.StatusConflict)
		a.Has("otto changed it").Has("Anna of Otto").Has("both changed").Has("otto@example.org")
		if u := s.user(s.anna); u.DisplayName != "Anna of Otto" || u.UID != nil {
			t.Errorf("something of adam's was written: %+v", u)
		}
		// The form holds his words where he had changed something, and else the newer ones.
		form, _ := webtest.Form(a.Body, page+"/identity")
		if form.Get("identity-display_name") != "Anna of Adam" || form.Get("identity-mail") != "otto@example.org" || form.Get("identity-uid") != "1234" {
			t.Errorf("the form holds %v", form)
		}
		// He looks and sends it again.
		adam.Resubmit(a, page+"/identity").Goes(page)
		if u := s.user(s.anna); u.DisplayName != "Anna of Adam" || u.Mail != "otto@example.org" || u.UID == nil || *u.UID != 1234 {
			t.Errorf("what was decided is not what is: %+v", u)
		}
		// A form without a revision has seen nothing.
		adam.Post(page+"/identity", "identity-display_name", "blind").Is(http.StatusConflict)
	})
}

func TestWhatIsDangerousNeedsAFreshCode(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	page := "/console/users/" + s.anna.Ref
	b := s.adam.SignedIn()
	r.Manual.Advance(6 * time.Minute)
	b.Get(page).Has("Confirm now")
	for _, action := range []string{"bypass-code", "enrolment-code", "totp", "backup", "password", "mfa", "role", "disable", "remove", "disenrol", "identity", "groups"} {
		if a := b.Post(page+"/"+action, "bypass-reason", "x"); a.Status != http.StatusSeeOther || !strings.HasPrefix(a.To, "/stepup?") {
			t.Errorf("%s without a fresh code: %d to %q", action, a.Status, a.To)
		}
	}
	if u := s.user(s.anna); u.Disabled || len(u.Factors) != 1 {
		t.Errorf("something was done: %+v", u)
	}
	b.StepUp().Submit(page, page+"/bypass-code", "bypass-reason", "x").Is(http.StatusOK)
}

func TestRankStandsOverTheHelpDesk(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	adam := "/console/users/" + s.adam.Ref
	hilda := s.hilda.SignedIn()
	hilda.Get(adam).Has("Some actions are not offered").Lacks("bypass-reason")
	hilda.Post(adam+"/bypass-code", "bypass-reason", "please").Is(http.StatusForbidden).Lacks("shown only now")
	// An owner needs another owner for a third, and none of them twice.
	olga, omar := s.Person("olga", rest.RoleOwner), s.Person("omar", rest.RoleOwner)
	page := "/console/users/" + olga.Ref
	otto := s.otto.SignedIn()
	otto.Get(page).Lacks(`name="bypass-reason"`).Has("approval first")
	otto.Post(page+"/bypass-code", "bypass-reason", "lost phone").Is(http.StatusForbidden).Has("second owner")
	otto.Submit(page, page+"/approval", "approval-op", "issue-bypass-code", "approval-reason", "she lost her phone").Goes(page)
	list, err := s.Sessions.ListApprovals(s.Context(), desk.Root())
	s.Must(err)
	if len(list) != 1 {
		t.Fatalf("%d approvals", len(list))
	}
	omar.SignedIn().Post("/console/approvals/"+list[0].ID+"/decide", "decision", "give").Is(http.StatusSeeOther)
	a := otto.StepUp().Get(page)
	if !strings.Contains(a.Body, `name="bypass-approval"`) {
		t.Fatalf("the approval is not used: %s", a.Text())
	}
	otto.Resubmit(a, page+"/bypass-code", "bypass-reason", "lost phone").Is(http.StatusOK).Has("shown only now")
	// It is good once.
	otto.Get(page).Lacks(`name="bypass-approval"`)
	otto.Resubmit(a, page+"/bypass-code", "bypass-reason", "again").Lacks("shown only now")
}

func TestGroups(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		b, aud := s.adam.SignedIn(), s.aud.SignedIn()
		b.Submit("/console/groups/new", "/console/groups", "group-name", "").Is(http.StatusUnprocessableEntity).FaultAt("group-name", "empty")
		b.Submit("/console/groups/new", "/console/groups", "group-name", "staff").Is(http.StatusConflict).FaultAt("group-name", "taken")
		aud.Post("/console/groups", "group-name", "mine", "group-mfa", "inherit").Is(http.StatusForbidden)
		a := b.Submit("/console/groups/new", "/console/groups", "group-name", "night shift", "group-mfa", "inherit").Is(http.StatusSeeOther)
		page := a.To
		// Several members at once, and none if one is wrong.
		b.Submit(page, page+"/members", "members-users", "anna\nnobody").Is(http.StatusUnprocessableEntity).FaultAt("members-users", "nobody")
		if g, err := s.ShowGroup(s.Context(), desk.Root(), "night shift"); err != nil || g.Members != 0 {
			t.Errorf("half of them were put in: %+v %v", g, err)
		}
		aud.Post(page+"/members", "members-users", "anna").Is(http.StatusForbidden)
		b.Submit(page, page+"/members", "members-users", "anna, hilda").Goes(page)
		b.Get(page).Has("hilda").Has("2 members")
		b.Submit(page, page+"/members/"+s.hilda.Ref+"/remove").Goes(page)
		b.Get(page + "?prefix=h").Has("Nobody fits")
		// Renamed by two.
		otto := s.otto.SignedIn()
		old := b.StepUp().Get(page)
		otto.StepUp().Submit(page, page+"/change", "change-name", "early shift").Goes(page)
		b.Resubmit(old, page+"/change", "change-name", "late shift").Is(http.StatusConflict).Has("otto changed it").Has("early shift")
		b.Submit(page, page+"/change", "change-name", "staff").Is(http.StatusConflict).FaultAt("change-name", "taken")
		aud.StepUp().Post(page+"/change", "change-rev", "1", "change-name", "x").Is(http.StatusForbidden)
		b.Resubmit(old, page+"/remove").Is(http.StatusConflict).Has("in the meantime")
		aud.Post(page+"/remove", "remove-rev", "2").Is(http.StatusForbidden)
		b.Submit(page, page+"/remove").Goes("/console/groups")
		b.Get(page).Is(http.StatusNotFound)
	})
}

func TestAddingAUser(t *testing.T) {
	r := rig(t)
	s := newScene(r)
	b := s.adam.SignedIn()
	const at = "/console/users"
	add := func(pairs ...string) webtest.Answer { return b.Submit(at+"/new", at, pairs...) }
	add("user-name", "").Is(http.StatusUnprocessableEntity).FaultAt("user-name", "empty")
	add("user-name", "anna").Is(http.StatusConflict).FaultAt("user-name", "taken")
	add("user-name", "ben", "user-groups", "staff, nowhere").Is(http.StatusUnprocessableEntity).FaultAt("user-groups", "nowhere")
	add("user-name", "ben", "user-password", "one and another", "user-again", "two").Is(http.StatusUnprocessableEntity).FaultAt("user-again", "differs")
	add("user-name", "ben", "user-password", "short", "user-again", "short").Is(http.StatusUnprocessableEntity).FaultAt("user-password", "")
	add("user-name", "ben", "user-activation", "at").Is(http.StatusUnprocessableEntity).FaultAt("user-activate_at", "missing")
	add("user-name", "ben", "user-uid", "many").Is(http.StatusUnprocessableEntity).FaultAt("user-uid", "no account number")
	// All that is wrong is shown at once.
	add("user-name", "a b c\x00", "user-uid", "many", "user-mail", "nowhere").Is(http.StatusUnprocessableEntity).FaultAt("user-uid", "no account number").FaultAt("user-mail", "mail").FaultAt("user-name", "")
	add("user-name", "ben", "user-role", "owner").Is(http.StatusForbidden)
	// An owner who is added as such could not be given a factor by anybody.
	s.otto.SignedIn().Submit(at+"/new", at, "user-name", "ben", "user-role", "owner").Is(http.StatusUnprocessableEntity).FaultAt("user-role", "steps")
	if _, err := s.ShowUser(s.Context(), desk.Root(), "ben"); err == nil {
		t.Error("ben is there although he was refused")
	}
	s.aud.SignedIn().Post(at, "user-name", "ben").Is(http.StatusForbidden)
	a := add("user-name", "ben", "user-groups", "staff", "user-activation", "at", "user-activate_at", "2027-01-02T08:00", "user-password", "a long way to go", "user-again", "a long way to go")
	u, err := s.ShowUser(s.Context(), desk.Root(), "ben")
	s.Must(err)
	a.Goes(at + "/" + u.ID)
	if len(u.Groups) != 1 || !u.HasPassword || u.ActivateAt.Format(time.RFC3339) != "2027-01-02T08:00:00Z" {
		t.Errorf("ben is %+v", u)
	}
	b.Get(a.To).Is(http.StatusOK).Has("Not active yet").Lacks("a long way to go")
}

func asJSON(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// TestListsAreSortedByTheirHeads: the head of a column is a link that sorts, says for screen
// readers how the list comes, turns the order round, and keeps the filters.
func TestListsAreSortedByTheirHeads(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		s := newScene(r)
		b := s.adam.SignedIn()
		for path, want := range map[string][]string{
			"/console/users?role=none":     {`aria-sort="ascending"`, `href="/console/users?role=none&amp;sort=-name"`, `href="/console/users?role=none&amp;sort=-created"`},
			"/console/users?sort=-name":    {`aria-sort="descending"`, `href="/console/users?sort=name"`},
			"/console/users?sort=-created": {`aria-sort="descending"`, `href="/console/users?sort=created"`, `href="/console/users?sort=name"`},
		} {
			a := b.Get(path).Is(http.StatusOK)
			for _, w := range want {
				if !strings.Contains(a.Body, w) {
					t.Errorf("%s lacks %s", path, w)
				}
			}
		}
		b.Get("/console/users?sort=mail").Is(http.StatusUnprocessableEntity)
		b.Get("/console/groups?sort=members").Is(http.StatusUnprocessableEntity)
	})
}
