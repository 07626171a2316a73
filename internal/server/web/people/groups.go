package people

import (
	"cmp"
	"encoding/json"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/lists"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

type groupList struct {
	page  rest.Page[rest.Group]
	sort  string
	after string
	may   bool
}

func (l groupList) path(after string) string {
	return lists.Path("/console/groups", "sort", l.sort, "after", after)
}

// by is the address of the list in another order.
func (l groupList) by(sort string) string { return lists.Path("/console/groups", "sort", sort) }

func (l groupList) cols() []ui.Col {
	return []ui.Col{
		lists.Sorted(ui.Col{Label: words.DeskGroup}, cmp.Or(l.sort, "name"), "name", l.by),
		{Label: words.DeskMFASetting},
		{Label: words.DeskMembers, Num: true},
		lists.Sorted(ui.Col{Label: words.DeskAdded}, l.sort, "-created", l.by),
	}
}

func listGroups(r *ui.Request) error {
	l := groupList{sort: r.Value("sort"), after: r.Value("after"), may: r.Actor().Can("change")}
	var err error
	if l.page, err = r.Desk.ListGroups(r.Context(), r.Actor(), l.sort, l.after, 0); err != nil {
		return err
	}
	p := ui.Page{Title: words.NavGroups, Section: "groups", Curl: &ui.Curl{Method: "GET", Path: lists.Path(rest.Base+"/groups", "sort", l.sort)}}
	if l.may {
		p.Actions = groupListActions()
	}
	return r.Show(p, groupsPage(l))
}

const theGroup = "group"

func newGroupFrame() ui.Page {
	return ui.Page{
		Title: words.DeskGroupNew, Section: "groups", Crumbs: []ui.Crumb{{Text: words.NavGroups, Path: "/console/groups"}},
		Curl: &ui.Curl{Method: "POST", Path: rest.Base + "/groups", Body: rest.NewGroup{Name: "NAME", MFA: rest.MFAInherit}},
	}
}

func newGroup(r *ui.Request) error {
	if !r.Actor().Can("change") {
		return fault.New(fault.Forbidden, nil)
	}
	return r.Show(newGroupFrame(), newGroupPage(nil))
}

func addGroup(r *ui.Request) error {
	g, err := r.Desk.AddGroup(r.Context(), r.Actor(), rest.NewGroup{Name: forms.Get(r, theGroup, "name"), MFA: forms.Get(r, theGroup, "mfa")})
	if err == nil {
		return r.Go(groupPath(g.ID), words.DeskGroupAdded(g.Name))
	}
	if !forms.Again(err) {
		return err
	}
	if fault.Is(err, fault.Exists) {
		err = fault.New(fault.Exists, err).With("name", "it is taken; choose another")
	}
	return r.ShowStatus(fault.Of(err).Status(), newGroupFrame(), newGroupPage(forms.Was(r, theGroup, err)))
}

// groupBench is everything that stands on a group's page.
type groupBench struct {
	g       rest.Group
	members rest.Page[rest.User]
	prefix  string
	after   string
	may     bool
	s       *forms.Sent
}

func (b *groupBench) path(action string) string { return groupPath(b.g.ID) + "/" + action }

func (b *groupBench) list(after string) string {
	return lists.Path(groupPath(b.g.ID), "prefix", b.prefix, "after", after)
}

func (b *groupBench) fields() []forms.Changed {
	return []forms.Changed{
		{Name: "name", Label: words.DeskName, Is: b.g.Name},
		{Name: "mfa", Label: words.DeskMFASetting, Is: b.g.MFA},
	}
}

func loadGroup(r *ui.Request, ref, prefix, after string) (*groupBench, error) {
	b := &groupBench{prefix: prefix, after: after, may: r.Actor().Can("change")}
	var err error
	if b.g, err = r.Desk.ShowGroup(r.Context(), r.Actor(), ref); err != nil {
		return nil, err
	}
	b.members, err = r.Desk.ListMembers(r.Context(), r.Actor(), b.g.ID, prefix, after, 0)
	return b, err
}

func (b *groupBench) frame() ui.Page {
	return ui.Page{
		Title: b.g.Name, Section: "groups", Lead: words.DeskMembersCount(b.g.Members), Wide: true,
		Crumbs: []ui.Crumb{{Text: words.NavGroups, Path: "/console/groups"}}, Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/groups/" + b.g.ID},
	}
}

func showGroup(r *ui.Request) error {
	b, err := loadGroup(r, r.PathValue("group"), r.Value("prefix"), r.Value("after"))
	if err != nil {
		return err
	}
	return r.Show(b.frame(), groupPage(b))
}

type groupAction struct {
	path, form string
	fresh      bool
	do         func(r *ui.Request, a desk.Actor, ref string) (done, error)
}

var groupActions []groupAction

func init() {
	groupActions = []groupAction{
		{"change", "change", true, changeGroup},
		{"members", "members", true, addMembers},
		{"members/{user}/remove", "members", true, removeMember},
		{"remove", "remove", true, removeGroup},
	}
}

func (x groupAction) serve() func(*ui.Request) error {
	return func(r *ui.Request) error {
		ref := r.PathValue("group")
		out, err := x.do(r, r.Actor(), ref)
		if err == nil {
			if out.to == "" {
				out.to = groupPath(ref)
			}
			return r.Go(out.to, out.notice)
		}
		if !forms.Again(err) {
			return err
		}
		b, lost := loadGroup(r, ref, "", "")
		if lost != nil {
			return err
		}
		b.s = forms.Was(r, x.form, err)
		if fault.Is(err, fault.Conflict) && forms.Has(r, x.form, "rev") && forms.Rev(r, x.form) != b.g.Rev {
			b.s.Faults = map[string]string{}
			var fields []forms.Changed
			if x.form == "change" {
				fields = b.fields()
			}
			b.s.Compare(b.lastChange(r), fields)
		}
		return r.ShowStatus(fault.Of(err).Status(), b.frame(), groupPage(b))
	}
}

// lastChange says who has changed the group last, as far as the latest events tell.
func (b *groupBench) lastChange(r *ui.Request) forms.Clash {
	c := forms.Clash{Path: groupPath(b.g.ID)}
	page, err := r.Desk.ListEvents(r.Context(), r.Actor(), desk.EventFilter{Types: []string{string(event.GroupChanged)}}, "", 50)
	if err != nil {
		return c
	}
	for _, e := range page.Items {
		var d struct {
			Group string `json:"group"`
		}
		if json.Unmarshal(e.Data, &d) == nil && d.Group == b.g.ID {
			c.By, c.At = e.Actor, e.At
			break
		}
	}
	return c
}

func changeGroup(r *ui.Request, a desk.Actor, ref string) (done, error) {
	g, err := r.Desk.ChangeGroup(r.Context(), a, ref, forms.Rev(r, "change"), rest.GroupChange{Name: changed(r, "change", "name"), MFA: changed(r, "change", "mfa")})
	if fault.Is(err, fault.Exists) {
		err = fault.New(fault.Exists, err).With("name", "it is taken; choose another")
	}
	return done{notice: words.DeskGroupChanged(g.Name)}, err
}

// mostNames is how many members are put into a group by hand at once.
const mostNames = 50

func addMembers(r *ui.Request, a desk.Actor, ref string) (done, error) {
	if !a.Can("change") {
		return done{}, fault.New(fault.Forbidden, nil)
	}
	list := lists.Names(forms.Get(r, "members", "users"))
	if len(list) == 0 {
		return done{}, fault.New(fault.Invalid, nil).With("users", "nobody is named; type one or more names")
	}
	if len(list) > mostNames {
		return done{}, fault.New(fault.Invalid, nil).With("users", "%d names; at most %d at once, more with an import", len(list), mostNames)
	}
	// First all names are looked at, so that nothing is half-done.
	bad := fault.New(fault.Invalid, nil)
	for _, n := range list {
		if _, err := r.Desk.ShowUser(r.Context(), a, n); fault.Is(err, fault.NotFound) {
			bad.With("users", "there is no user %q", n)
		} else if err != nil {
			return done{}, err
		}
	}
	if len(bad.Fields) > 0 {
		return done{}, bad
	}
	count := 0
	for _, n := range list {
		d, err := r.Desk.AddMember(r.Context(), a, ref, n)
		if err != nil {
			return done{}, err
		}
		count += d.Count
	}
	return done{notice: words.DeskMembersAdded(count)}, nil
}

func removeMember(r *ui.Request, a desk.Actor, ref string) (done, error) {
	_, err := r.Desk.RemoveMember(r.Context(), a, ref, r.PathValue("user"))
	return done{notice: words.DeskMemberRemoved}, err
}

func removeGroup(r *ui.Request, a desk.Actor, ref string) (done, error) {
	return done{to: "/console/groups", notice: words.DeskGroupRemoved}, r.Desk.RemoveGroup(r.Context(), a, ref, forms.Rev(r, "remove"))
}

// ---- Lock-outs

type lockList struct {
	page  rest.Page[rest.Lock]
	after string
	may   bool
}

func (l lockList) path(after string) string { return lists.Path("/console/locks", "after", after) }

func listLocks(r *ui.Request) error {
	l := lockList{after: r.Value("after"), may: r.Actor().Can("helpdesk")}
	var err error
	if l.page, err = r.Desk.ListLocks(r.Context(), r.Actor(), l.after, 0); err != nil {
		return err
	}
	return r.Show(ui.Page{Title: words.NavLocks, Section: "locks", Lead: words.DeskLocksLead, Curl: &ui.Curl{Method: "GET", Path: rest.Base + "/locks"}}, locksPage(l))
}

func liftLock(r *ui.Request) error {
	n, err := r.Desk.Unlock(r.Context(), r.Actor(), r.PathValue("user"))
	if err != nil {
		return err
	}
	return r.Go("/console/locks", words.DeskUnlocked(n.Count))
}
