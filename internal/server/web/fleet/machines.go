package fleet

import (
	"cmp"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/a-h/templ"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/lists"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/why"
	"latchkey/internal/server/web/words"
)

type machineList struct {
	page    rest.Page[rest.Machine]
	f       desk.MachineFilter
	after   string
	may     bool
	pending int64
	least   string // the oldest version of the agent that is not outdated
}

func (l machineList) filtered() bool {
	l.f.Sort = ""
	return l.f != desk.MachineFilter{}
}

// by is the address of the list in another order.
func (l machineList) by(sort string) string {
	l.f.Sort = sort
	return l.path("")
}

func (l machineList) cols() []ui.Col {
	cols := ui.Cols(words.DeskMachine, words.FleetStatus, words.FleetAgent, words.FleetOS, words.FleetTPM, words.FleetOwner, words.DeskOfflineData, words.DeskLastSeen)
	cols[0] = lists.Sorted(cols[0], l.f.Sort, "name", l.by)
	cols[7] = lists.Sorted(cols[7], l.f.Sort, "-seen", l.by)
	return cols
}

func (l machineList) query(after string) []string {
	outdated := ""
	if l.f.Outdated {
		outdated = "true"
	}
	return []string{
		"prefix", l.f.Prefix, "status", l.f.Status, "mode", l.f.Mode, "os", l.f.OS, "tpm", l.f.TPM, "outdated", outdated,
		"silent", l.f.Silent, "owner", l.f.Owner, "user", l.f.User, "sort", l.f.Sort, "after", after,
	}
}

func (l machineList) path(after string) string {
	return lists.Path("/console/machines", l.query(after)...)
}

func listMachines(r *ui.Request) error {
	l := machineList{
		f: desk.MachineFilter{
			Prefix: r.Value("prefix"), Status: r.Value("status"), Mode: r.Value("mode"), OS: r.Value("os"), TPM: r.Value("tpm"),
			Outdated: r.Value("outdated") != "", Silent: r.Value("silent"), Owner: r.Value("owner"), User: r.Value("user"), Sort: r.Value("sort"),
		},
		after: r.Value("after"), may: r.Actor().Can("change"),
	}
	var err error
	if l.page, err = r.Desk.ListMachines(r.Context(), r.Actor(), l.f, l.after, 0); err != nil {
		return err
	}
	status, err := r.Desk.Status(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	l.pending = status.Machines[rest.MachinePending]
	set, err := r.Desk.Settings(r.Context(), r.Actor())
	if err != nil {
		return err
	}
	l.least = set.MinAgent
	p := ui.Page{Title: words.NavMachines, Section: "machines", Wide: true, Curl: &ui.Curl{Method: "GET", Path: lists.Path(rest.Base+"/machines", l.query("")...)}}
	if l.may {
		p.Actions = machineListActions()
	}
	return r.Show(p, machinesPage(l))
}

type pendingList struct {
	page  rest.Page[rest.Machine]
	after string
	may   bool
}

func (l pendingList) path(after string) string {
	return lists.Path("/console/machines/pending", "after", after)
}

func listPending(r *ui.Request) error {
	l := pendingList{after: r.Value("after"), may: r.Actor().Can("change")}
	var err error
	if l.page, err = r.Desk.ListMachines(r.Context(), r.Actor(), desk.MachineFilter{Status: rest.MachinePending}, l.after, 0); err != nil {
		return err
	}
	return r.Show(ui.Page{
		Title: words.FleetPending, Section: "machines", Lead: words.FleetPendingLead, Wide: true,
		Crumbs: []ui.Crumb{{Text: words.NavMachines, Path: "/console/machines"}},
		Curl:   &ui.Curl{Method: "GET", Path: rest.Base + "/machines?status=pending"},
	}, pendingPage(l))
}

// bench is everything that stands on a machine's page.
type bench struct {
	m       rest.Machine
	offline rest.Page[rest.OfflineEntry]
	windows rest.Page[rest.Window]
	signins []why.Signin
	reseed  []rest.Reseed // of a machine that is no longer trusted
	least   string
	me      desk.Actor
	fresh   bool
	asked   []session.Approval
	now     time.Time
	s       *forms.Sent
}

func (b *bench) may(right string) bool { return b.me.Can(right) }

func (b *bench) path(action string) string { return machinePath(b.m.ID) + "/" + action }

// gone tells whether the machine is no longer trusted.
func (b *bench) gone() bool {
	return b.m.Status == rest.MachineRevoked || b.m.Status == rest.MachineLost
}

func (b *bench) fields(form string) []forms.Changed {
	only := ""
	if b.m.OnlyAssigned {
		only = "on"
	}
	switch form {
	case "change":
		return []forms.Changed{
			{Name: "name", Label: words.DeskName, Is: b.m.Name},
			{Name: "owner", Label: words.FleetOwner, Is: b.m.Owner},
			{Name: "unknown_users", Label: words.FleetUnknownUsers, Is: b.m.UnknownUsers},
			{Name: "only_assigned", Label: words.FleetOnlyAssigned, Is: only},
			{Name: "users", Label: words.FleetAssigned, Is: strings.Join(b.m.Users, "\n")},
		}
	case "mode":
		return []forms.Changed{{Name: "mode", Label: words.FleetMode, Is: b.m.Mode}}
	}
	return nil
}

// approved is the id of an approval to exempt the machine that can be used now (E3).
func (b *bench) approved() string {
	for _, a := range b.asked {
		if a.Action == "change-machine" && a.State == session.StateGiven && a.Subject == b.m.Owner && a.RequesterID == b.me.UserID {
			return a.ID
		}
	}
	return ""
}

const (
	benchOffline = 100
	benchSignins = 10
)

func load(r *ui.Request, ref string) (*bench, error) {
	ctx, a := r.Context(), r.Actor()
	b := &bench{me: a, fresh: r.Session.IsFresh(r.Clock.Now()), now: r.Clock.Now()}
	var err error
	if b.m, err = r.Desk.ShowMachine(ctx, a, ref); err != nil {
		return nil, err
	}
	if b.offline, err = r.Desk.ListOffline(ctx, a, desk.OfflineFilter{Machine: b.m.ID}, "", benchOffline); err != nil {
		return nil, err
	}
	if b.windows, err = r.Desk.ListWindows(ctx, a, "", b.m.ID, "", 0); err != nil {
		return nil, err
	}
	events, err := r.Desk.ListEvents(ctx, a, desk.EventFilter{Types: []string{"signin."}, Machine: b.m.ID}, "", benchSignins)
	if err != nil {
		return nil, err
	}
	b.signins = why.Signins(events.Items)
	set, err := r.Desk.Settings(ctx, a)
	if err != nil {
		return nil, err
	}
	b.least = set.MinAgent
	if b.gone() {
		list, err := r.Desk.ListReseed(ctx, a, b.m.ID)
		if err != nil {
			return nil, err
		}
		b.reseed = list.Items
	}
	if a.Role == rest.RoleOwner && b.m.Owner != "" {
		if b.asked, err = r.Sessions.ListApprovals(ctx, a); err != nil && !fault.Is(err, fault.Unavailable) {
			return nil, err
		}
	}
	return b, nil
}

func (b *bench) frame() ui.Page {
	return ui.Page{
		Title: b.m.Name, Section: "machines", Lead: ui.System(b.m.OS), Badge: statusBadge(b.m), Wide: true,
		Crumbs: []ui.Crumb{{Text: words.NavMachines, Path: "/console/machines"}},
		Curl:   &ui.Curl{Method: "GET", Path: rest.Base + "/machines/" + b.m.ID},
	}
}

func showMachine(r *ui.Request) error {
	b, err := load(r, r.PathValue("machine"))
	if err != nil {
		return err
	}
	return r.Show(b.frame(), machinePage(b))
}

// done is what an action has brought: a notice on the page, or a page of its own.
type done struct {
	to, notice string
	page       *ui.Page
	body       templ.Component
}

type machineAction struct {
	path, form string
	fresh      bool
	do         func(r *ui.Request, a desk.Actor, ref string) (done, error)
}

var machineActions []machineAction

func init() {
	machineActions = []machineAction{
		{"change", "change", true, changeMachine},
		{"mode", "mode", true, changeMode},
		{"approve", "approve", true, approve},
		{"refuse", "refuse", true, refuse},
		{"revoke", "revoke", true, revoke},
		{"lost", "lost", true, lose},
		{"remove", "remove", true, remove},
		{"disenrol", "disenrol", true, disenrol},
		{"lift", "lift", true, lift},
		{"windows", "windows", false, endWindowsHere},
	}
}

func (x machineAction) serve() func(*ui.Request) error {
	return func(r *ui.Request) error {
		ref := r.PathValue("machine")
		var out done
		act := func(a desk.Actor) (err error) {
			out, err = x.do(r, a, ref)
			return err
		}
		var err error
		if id := forms.Get(r, x.form, "approval"); id != "" && x.form == "mode" {
			err = r.Sessions.Approved(r.Context(), r.Session, r.Address(), id, "change-machine", act)
		} else {
			err = act(r.Actor())
		}
		switch {
		case err == nil && out.body != nil:
			return r.Show(*out.page, out.body)
		case err == nil:
			return r.Go(cmp.Or(out.to, machinePath(ref)), out.notice)
		case !forms.Again(err):
			return err
		}
		b, lost := load(r, ref)
		if lost != nil {
			return err
		}
		b.s = forms.Was(r, x.form, err)
		if fault.Is(err, fault.Conflict) && forms.Has(r, x.form, "rev") && forms.Rev(r, x.form) != b.m.Rev && !b.gone() {
			b.s.Faults = map[string]string{}
			b.s.Compare(b.lastChange(r), b.fields(x.form))
		}
		return r.ShowStatus(fault.Of(err).Status(), b.frame(), machinePage(b))
	}
}

// lastChange says who has changed the machine last.
func (b *bench) lastChange(r *ui.Request) forms.Clash {
	c := forms.Clash{Path: machinePath(b.m.ID)}
	page, err := r.Desk.ListEvents(r.Context(), r.Actor(), desk.EventFilter{Machine: b.m.ID, Types: []string{string(event.MachineChanged), string(event.MachineApproved)}}, "", 1)
	if err == nil && len(page.Items) == 1 {
		c.By, c.At = page.Items[0].Actor, page.Items[0].At
	}
	return c
}

// changed gives a pointer where the field differs from what the page was opened with.
func changed(r *ui.Request, form, field string) *string {
	v := forms.Get(r, form, field)
	if forms.Has(r, form, "seen-"+field) && v == forms.Get(r, form, "seen-"+field) && forms.Rev(r, form) > 0 {
		return nil
	}
	return &v
}

func changeMachine(r *ui.Request, a desk.Actor, ref string) (done, error) {
	const form = "change"
	only := forms.Get(r, form, "only_assigned") != ""
	in := rest.MachineChange{
		Name: changed(r, form, "name"), Owner: changed(r, form, "owner"), UnknownUsers: changed(r, form, "unknown_users"), OnlyAssigned: &only,
	}
	list, was := lists.Names(forms.Get(r, form, "users")), lists.Names(forms.Get(r, form, "seen-users"))
	slices.Sort(list)
	slices.Sort(was)
	if !slices.Equal(list, was) || !forms.Has(r, form, "seen-users") {
		in.Users = &list
	}
	m, err := r.Desk.ChangeMachine(r.Context(), a, ref, forms.Rev(r, form), in)
	return done{notice: words.FleetMachineChanged(m.Name)}, err
}

func changeMode(r *ui.Request, a desk.Actor, ref string) (done, error) {
	mode := forms.Get(r, "mode", "mode")
	m, err := r.Desk.ChangeMachine(r.Context(), a, ref, forms.Rev(r, "mode"), rest.MachineChange{Mode: &mode})
	return done{notice: words.FleetModeIsNow(m.Name, words.FleetModes[m.Mode])}, err
}

func approve(r *ui.Request, a desk.Actor, ref string) (done, error) {
	active := rest.MachineActive
	m, err := r.Desk.ChangeMachine(r.Context(), a, ref, 0, rest.MachineChange{Status: &active})
	return done{to: afterPending(r, ref), notice: words.FleetApproved(m.Name)}, err
}

func refuse(r *ui.Request, a desk.Actor, ref string) (done, error) {
	m, err := r.Desk.RefuseMachine(r.Context(), a, ref, rest.Why{Reason: forms.Get(r, "refuse", "reason")})
	return done{to: afterPending(r, ref), notice: words.FleetRefused(m.Name)}, err
}

// afterPending is the list of pending machines for whoever came from there.
func afterPending(r *ui.Request, ref string) string {
	if r.Value("from") == "pending" {
		return "/console/machines/pending"
	}
	return machinePath(ref)
}

func revoke(r *ui.Request, a desk.Actor, ref string) (done, error) {
	m, err := r.Desk.RevokeMachine(r.Context(), a, ref, rest.Why{Reason: forms.Get(r, "revoke", "reason")})
	return done{notice: words.FleetRevoked(m.Name)}, err
}

func lose(r *ui.Request, a desk.Actor, ref string) (done, error) {
	l, err := r.Desk.LoseMachine(r.Context(), a, ref, rest.Why{Reason: forms.Get(r, "lost", "reason")})
	if err != nil {
		return done{}, err
	}
	p := ui.Page{Title: words.FleetLostTitle(l.Machine.Name), Section: "machines", Crumbs: []ui.Crumb{
		{Text: words.NavMachines, Path: "/console/machines"}, {Text: l.Machine.Name, Path: machinePath(l.Machine.ID)},
	}}
	return done{page: &p, body: lostPage(l)}, nil
}

func remove(r *ui.Request, a desk.Actor, ref string) (done, error) {
	return done{to: "/console/machines", notice: words.FleetRemoved}, r.Desk.RemoveMachine(r.Context(), a, ref, forms.Rev(r, "remove"))
}

func disenrol(r *ui.Request, a desk.Actor, ref string) (done, error) {
	n, err := r.Desk.Disenrol(r.Context(), a, rest.Pairs{Machine: ref, User: forms.Get(r, "disenrol", "user")})
	return done{notice: words.DeskDisenrolled(n.Count)}, err
}

func lift(r *ui.Request, a desk.Actor, ref string) (done, error) {
	n, err := r.Desk.Lift(r.Context(), a, rest.Pairs{Machine: ref, User: forms.Get(r, "lift", "user")})
	return done{notice: words.FleetLifted(n.Count)}, err
}

func endWindowsHere(r *ui.Request, a desk.Actor, ref string) (done, error) {
	n, err := r.Desk.RevokeWindows(r.Context(), a, rest.Pairs{Machine: ref})
	return done{notice: words.FleetWindowsEnded(n.Count)}, err
}

// ---- Join tokens

type tokenList struct {
	page  rest.Page[rest.Token]
	after string
	may   bool
	url   string // of the machines' listener
	guess bool   // url is a guess: the setting is empty
	now   time.Time
	s     *forms.Sent
}

func (l tokenList) path(after string) string { return lists.Path("/console/join", "after", after) }

func loadTokens(r *ui.Request, after string) (tokenList, error) {
	l := tokenList{after: after, may: r.Actor().Can("change"), now: r.Clock.Now()}
	var err error
	if l.page, err = r.Desk.ListTokens(r.Context(), r.Actor(), l.after, 0); err != nil {
		return l, err
	}
	set, err := r.Desk.Settings(r.Context(), r.Actor())
	if l.url = set.ServerURL; l.url == "" {
		l.url, l.guess = machinesURL(r), true
	}
	return l, err
}

// machinesURL is where machines probably reach this server: at the name under which this
// browser does, at the port for machines. Empty where that is not known.
func machinesURL(r *ui.Request) string {
	if r.MachinePort == nil {
		return ""
	}
	host, port := r.Host, r.MachinePort()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "" || port == "" {
		return ""
	}
	return "https://" + net.JoinHostPort(strings.Trim(host, "[]"), port)
}

func tokensFrame() ui.Page {
	return ui.Page{
		Title: words.NavJoin, Section: "join", Lead: words.FleetJoinLead, Wide: true,
		Curl: &ui.Curl{Method: "POST", Path: rest.Base + "/machine-tokens", Body: rest.NewToken{ValidFor: "24h"}},
	}
}

func listTokens(r *ui.Request) error {
	l, err := loadTokens(r, r.Value("after"))
	if err != nil {
		return err
	}
	return r.Show(tokensFrame(), tokensPage(l))
}

func makeToken(r *ui.Request) error {
	t, err := r.Desk.IssueToken(r.Context(), r.Actor(), rest.NewToken{
		Name: forms.Get(r, "token", "name"), Mass: forms.Get(r, "token", "kind") == "mass", ValidFor: forms.Get(r, "token", "valid_for"),
		ServerURL: forms.Get(r, "token", "server_url"),
	})
	if err == nil {
		p := ui.Page{Title: words.FleetTokenTitle, Section: "join", Crumbs: []ui.Crumb{{Text: words.NavJoin, Path: "/console/join"}}}
		return r.Show(p, tokenPage(t))
	}
	if !forms.Again(err) {
		return err
	}
	l, lost := loadTokens(r, "")
	if lost != nil {
		return err
	}
	l.s = forms.Was(r, "token", err)
	return r.ShowStatus(fault.Of(err).Status(), tokensFrame(), tokensPage(l))
}

func withdrawToken(r *ui.Request) error {
	if err := r.Desk.WithdrawToken(r.Context(), r.Actor(), r.PathValue("token")); err != nil {
		return err
	}
	return r.Go("/console/join", words.FleetTokenWithdrawn)
}
