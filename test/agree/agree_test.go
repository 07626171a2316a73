// Package agree proves that three parts which speak of the same sign-in say the same:
// the explanation of a decision (S13), the trial of a draft (P5) and what server and
// agent then really do. Policies, groups, machines and sign-ins are random; everything
// passes through the real tables, the real conversation, the signed policy file, and
// the vault of the agent that reads it.
package agree

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup" // kinds of factors that people may give
	_ "latchkey/internal/server/factor/bypass"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/wire"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		_ = flag.Set("rapid.checks", "1000")
	}
	os.Exit(m.Run())
}

const boot = "boot-1"

var machineAddr = netip.MustParseAddr("192.0.2.10") // as desktest's machines have it

// world is a server with three groups, three users and a machine, and the agent's state
// on that machine.
type world struct {
	*desktest.Rig
	clock   *clock.Manual
	sign    *signin.Service
	offline *offline.Service
	vault   *vault.Vault
	machine db.Machine
	users   []rest.User
	groups  []rest.Group
	ids     []string // of policies: the default one first
}

func newWorld(t *testing.T) *world {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, root := t.Context(), desk.Root()
	c := clock.NewManual(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c})
	w := &world{Rig: desktest.New(t, s, c), clock: c}
	dirs, err := directory.All(directory.Deps{Clock: c, Settings: map[string]any{directory.Local: local.Config{Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}}}})
	must(err)
	w.sign = signin.New(signin.Deps{Store: s, Keys: w.Keys, Directories: dirs, Factors: factor.All(w.Keeper), Clock: c, Logger: slog.New(slog.DiscardHandler), Grain: -1})
	w.offline = offline.New(offline.Config{Store: s, Keys: w.Keys, Keeper: w.Keeper, Clock: c, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
	w.machine = w.Machine(t, "laptop", rest.MachineActive)
	w.vault, err = vault.Open(ctx, vault.Config{Dir: filepath.Join(t.TempDir(), "agent"), MachineID: w.machine.ID, Machine: "laptop", GrantKey: w.Keys.GrantPublic(), Clock: c, Log: slog.New(slog.DiscardHandler), BootID: boot, Cost: vault.Cost{Time: 1, Memory: 64}})
	must(err)
	for _, name := range []string{"staff", "admins", "guests"} {
		g, err := w.AddGroup(ctx, root, rest.NewGroup{Name: name})
		must(err)
		w.groups = append(w.groups, g)
	}
	// alice has both factors and is enrolled here, bob has an app, carol nothing; carol is
	// not known on the machine.
	for i, name := range []string{"alice", "bob", "carol"} {
		u, err := w.AddUser(ctx, root, rest.NewUser{Name: name})
		must(err)
		w.users = append(w.users, u)
		if i < 2 {
			_, err := w.AddTOTP(ctx, root, name, rest.NewTOTP{})
			must(err)
		}
		if i == 0 {
			_, err := w.AddBackup(ctx, root, name)
			must(err)
		}
	}
	w.Vault(t, bare(w.users[0].ID), w.machine.ID, "software", clock.Micros(c.Now().AddDate(0, 0, 5000)), int64(policy.NewPolicy().OfflineSignins))
	must(s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.KnowUser(ctx, db.KnowUserParams{MachineID: w.machine.ID, UserID: bare(w.users[1].ID), Since: clock.Micros(c.Now())})
		return err
	}))
	p, err := w.ShowPolicy(ctx, root, "default")
	must(err)
	w.ids = []string{bare(p.ID)}
	for _, name := range []string{"one", "two", "three"} {
		p, err := w.AddPolicy(ctx, root, rest.NewPolicy{Name: name})
		must(err)
		w.ids = append(w.ids, bare(p.ID))
	}
	return w
}

func bare(id string) string { return id[4:] }

func some[T any](t *rapid.T, label string, all ...T) []T {
	out := []T{}
	for i, x := range all {
		if rapid.Bool().Draw(t, fmt.Sprintf("%s %d", label, i)) {
			out = append(out, x)
		}
	}
	return out
}

// most leaves one in six out; few takes one in six.
func most[T any](t *rapid.T, label string, all ...T) []T {
	out := []T{}
	for i, x := range all {
		if rapid.IntRange(0, 5).Draw(t, fmt.Sprintf("%s %d", label, i)) > 0 {
			out = append(out, x)
		}
	}
	return out
}

func few[T any](t *rapid.T, label string, all ...T) []T {
	out := []T{}
	for i, x := range all {
		if rapid.IntRange(0, 5).Draw(t, fmt.Sprintf("%s %d", label, i)) == 5 {
			out = append(out, x)
		}
	}
	return out
}

// drawPolicy makes a policy that the rules accept.
func drawPolicy(t *rapid.T, isDefault bool) policy.Policy {
	p := policy.NewPolicy()
	p.Scopes = most(t, "scopes", policy.Scopes...)
	p.OnlineFactors = most(t, "online factors", policy.TOTP, policy.Backup)
	p.OfflineFactors = most(t, "offline factors", policy.TOTP, policy.Backup)
	p.FactorsOnline = max(0, len(p.OnlineFactors)-rapid.SampledFrom([]int{0, 1, 1, 2}).Draw(t, "fewer online"))
	p.FactorsOffline = max(0, len(p.OfflineFactors)-rapid.SampledFrom([]int{0, 1, 1, 2}).Draw(t, "fewer offline"))
	p.Offline = rapid.SampledFrom([]policy.Offline{policy.OfflineMFA, policy.OfflineMFAOrBypass, policy.OfflineBypass, policy.OfflineDeny}).Draw(t, "offline")
	p.SoftwareVault = rapid.Bool().Draw(t, "software")
	p.Window = rapid.SampledFrom([]policy.Duration{0, policy.Duration(8 * time.Hour)}).Draw(t, "window")
	p.WindowSilences = some(t, "silences", policy.Scopes...)
	p.TrustedScopes = some(t, "trusted scopes", policy.Scopes...)
	p.TrustedNetworks = few(t, "trusted", netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"))
	p.ExemptUIDs = few(t, "exempt", uint32(0), uint32(1000))
	p.ExemptSIDs, p.WindowEndsOn = []string{}, []policy.WindowEnd{}
	p.EnrolAtSignin, p.EnrolRemote = rapid.Bool().Draw(t, "enrol"), rapid.Bool().Draw(t, "enrol remote")
	p.ReportOnly = !isDefault && rapid.IntRange(0, 3).Draw(t, "report-only") == 0
	return p
}

// rule writes random rules, groups and settings into the tables.
func (w *world) rule(ctx context.Context, t *rapid.T) error {
	type row struct {
		body     []byte
		priority int64
		groups   []string
	}
	var rows []row
	for i := range w.ids {
		p := drawPolicy(t, i == 0)
		if err := p.Validate(); err != nil {
			t.Fatalf("a policy that no administrator could save: %v", err)
		}
		b, err := json.Marshal(p)
		if err != nil {
			return err
		}
		var groups []string
		if i > 0 {
			for _, g := range some(t, "groups", w.groups...) {
				groups = append(groups, bare(g.ID))
			}
		}
		rows = append(rows, row{b, int64(rapid.IntRange(1, 3).Draw(t, "priority")), groups})
	}
	members := make([][]rest.Group, len(w.users))
	switches := make([]string, len(w.users))
	for i := range w.users {
		members[i] = some(t, "member", w.groups...)
		switches[i] = rapid.SampledFrom([]string{"inherit", "inherit", "on", "on", "off"}).Draw(t, "2FA")
	}
	mode := rapid.SampledFrom([]string{"normal", "normal", "normal", "enforced", "enforced", "exempt"}).Draw(t, "mode")
	unknown := rapid.SampledFrom([]string{"deny", "skip"}).Draw(t, "unknown users")
	window := rapid.Bool().Draw(t, "a window is open")
	with := rapid.SampledFrom([]string{`["totp"]`, `["totp","backup"]`}).Draw(t, "opened with")
	return w.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		for i, id := range w.ids {
			p, err := tx.GetPolicy(ctx, id)
			if err != nil {
				return err
			}
			if _, err := tx.UpdatePolicy(ctx, db.UpdatePolicyParams{ID: id, Rev: p.Rev, Name: p.Name, Priority: rows[i].priority, Body: string(rows[i].body), UpdatedAt: p.UpdatedAt}); err != nil {
				return err
			}
			if _, err := tx.ClearPolicyGroups(ctx, id); err != nil {
				return err
			}
			for _, g := range rows[i].groups {
				if _, err := tx.AddPolicyGroup(ctx, db.AddPolicyGroupParams{PolicyID: id, GroupID: g}); err != nil {
					return err
				}
			}
		}
		for i, u := range w.users {
			for _, g := range w.groups {
				if _, err := tx.RemoveGroupMember(ctx, db.RemoveGroupMemberParams{GroupID: bare(g.ID), UserID: bare(u.ID)}); err != nil {
					return err
				}
			}
			for _, g := range members[i] {
				if _, err := tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: bare(g.ID), UserID: bare(u.ID)}); err != nil {
					return err
				}
			}
		}
		for i, u := range w.users {
			row, err := tx.GetUser(ctx, bare(u.ID))
			if err != nil {
				return err
			}
			if _, err := tx.UpdateUser(ctx, db.UpdateUserParams{Role: row.Role, Activation: row.Activation, MFA: switches[i], UpdatedAt: row.UpdatedAt, ID: row.ID, Rev: row.Rev}); err != nil {
				return err
			}
		}
		m, err := tx.GetMachine(ctx, w.machine.ID)
		if err != nil {
			return err
		}
		if _, err := tx.UpdateMachine(ctx, db.UpdateMachineParams{Name: m.Name, Mode: mode, UnknownUsers: unknown, AllUsers: true, UpdatedAt: m.UpdatedAt, ID: m.ID, Rev: m.Rev}); err != nil {
			return err
		}
		if _, err := tx.EndWindows(ctx, db.EndWindowsParams{At: clock.Micros(w.clock.Now()), Reason: "revoked"}); err != nil {
			return err
		}
		if !window {
			return nil
		}
		for _, u := range w.users {
			err := tx.InsertWindow(ctx, db.InsertWindowParams{
				ID: store.NewID(), UserID: bare(u.ID), MachineID: m.ID, Boot: boot, OpenedAt: clock.Micros(w.clock.Now()),
				ExpiresAt: clock.Micros(w.clock.Now().Add(time.Hour)), Scopes: "[]", Factors: with,
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// attempt is a random sign-in at the machine.
type attempt struct {
	user, service, rhost string
	scope                policy.Scope
	uid                  *uint32
	first                policy.First
	remote               bool
}

func drawAttempt(t *rapid.T) attempt {
	a := attempt{
		user:    rapid.SampledFrom([]string{"alice", "alice", "bob", "bob", "carol", "Alice", "nobody"}).Draw(t, "user"),
		scope:   rapid.SampledFrom(policy.Scopes).Draw(t, "scope"),
		service: rapid.SampledFrom([]string{"login", "sshd", "sudo"}).Draw(t, "service"),
		first:   policy.FirstMachine,
	}
	if u := rapid.SampledFrom([]int{-1, 0, 1000, 1001}).Draw(t, "uid"); u >= 0 {
		n := uint32(u)
		a.uid = &n
	}
	a.remote = a.scope == policy.Remote || rapid.Bool().Draw(t, "remote seat")
	if a.remote {
		hosts := []string{"", "192.0.2.7", "203.0.113.9", "host.example"}
		if a.scope == policy.Logon {
			hosts = hosts[:3] // a logon that names a host is remote too, and Explain is asked with addresses alone
		}
		a.rhost = rapid.SampledFrom(hosts).Draw(t, "from")
	}
	if a.scope == policy.Remote && rapid.Bool().Draw(t, "ssh key") {
		a.first = policy.FirstSSHKey
	}
	return a
}

func (a attempt) question(down bool) rest.Explain {
	q := rest.Explain{User: a.user, Machine: "laptop", Scope: string(a.scope), Service: a.service, Remote: a.remote, First: string(a.first), Offline: down, Boot: boot}
	if _, err := netip.ParseAddr(a.rhost); err == nil {
		q.From = a.rhost
	}
	if a.uid != nil {
		n := int64(*a.uid)
		q.UID = &n
	}
	return q
}

// TestP5ExplainTrialAndSignInsAgree is the acceptance of the console's rules: on a
// thousand random rules and sign-ins.
func TestP5ExplainTrialAndSignInsAgree(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	seen := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		w.clock.Advance(time.Second)
		begun := w.clock.Now()
		if err := w.rule(ctx, rt); err != nil {
			rt.Fatal(err)
		}
		a := drawAttempt(rt)

		// With the server: what is explained is what happens, and why.
		told, err := w.Explain(ctx, desk.Root(), a.question(false))
		if err != nil {
			rt.Fatal(err)
		}
		did := w.signIn(ctx, rt, a)
		if diff := cmp.Diff(told.Decision.Trace, did.trace); diff != "" {
			rt.Fatalf("the sign-in went another way than was explained (-told +done):\n%s", diff)
		}
		if diff := cmp.Diff(told.Reports, did.reports); diff != "" {
			rt.Fatalf("report-only policies say otherwise than was explained (-told +done):\n%s", diff)
		}
		for _, p := range did.reports {
			x, err := w.PolicyReports(ctx, desk.Root(), rest.PolicyPrefix+p.Policy, string(p.Change), "", 1)
			if err != nil || len(x.Items) == 0 || x.Items[0].Event != did.event || x.Items[0].Would != string(p.Outcome) || x.Signins < 1 {
				rt.Fatalf("the page of the policy lacks the report: %+v, %v", x, err)
			}
			seen["report "+string(p.Change)]++
		}
		if !did.fits(told.Decision) {
			rt.Fatalf("explained was %s (%s), done was %+v", told.Decision.Outcome, told.Decision.Reason, did)
		}
		seen["online "+string(told.Decision.Outcome)]++

		// A trial judges the same event as it was judged, and a draft that changes nothing
		// changes nothing.
		w.clock.Advance(time.Millisecond)
		x, err := w.TryPolicy(ctx, desk.Root(), rest.TryPolicy{Policy: "default", Since: begun, People: 100})
		if err != nil {
			rt.Fatal(err)
		}
		if x.Judged != 1 || x.Same != 1 || x.Moved != 0 || len(x.Unjudged) != 0 || len(x.Offline) != 0 || x.Before != map[bool]int{true: 1}[told.Decision.Prompts()] {
			rt.Fatalf("the trial of no change: %+v; explained was %s (%s)", x, told.Decision.Outcome, told.Decision.Reason)
		}
		// A trial that denies everybody a factor says of this sign-in what the rules then say.
		w.draft(ctx, rt, a, told.Decision, begun)

		// Without the server: what is explained is what the agent does with its signed policy.
		w.apart(ctx, rt, a, seen)
	})
	for _, want := range []string{"online mfa", "online ignore", "online deny", "online enrol", "report " + string(policy.Same), "report " + string(policy.AskedMore), "offline mfa-offline", "offline ignore", "offline deny", "draft " + string(policy.DeniedNow), "draft " + string(policy.AskedMore), "draft " + string(policy.AskedLess)} {
		if seen[want] == 0 && draft[want] == 0 && !testing.Short() {
			t.Errorf("no case of %q was met: %v %v", want, seen, draft)
		}
	}
	t.Log(seen, draft)
}

// done is what came of a sign-in.
type done struct {
	Outcome policy.Outcome // of the end; empty: something was asked
	Reason  string
	Asked   string // what for
	trace   []policy.Step
	reports []policy.Report
	event   string
}

// fits tells whether it is what the decision says.
func (d done) fits(w policy.Decision) bool {
	switch w.Outcome {
	case policy.MFA:
		return d.Asked == wire.ForCode || d.Asked == wire.ForChoice
	case policy.EnrolFirst:
		return d.Asked == wire.ForEnrolCode || d.Outcome == policy.Deny // behind a lock of codes
	case policy.Allow, policy.Ignore, policy.Deny:
		return d.Outcome == w.Outcome && d.Asked == ""
	}
	return false
}

// signIn begins a conversation as an agent does, and gives it up where something is
// asked.
func (w *world) signIn(ctx context.Context, t *rapid.T, a attempt) done {
	m := w.machine
	if err := w.Store.Read(ctx, func(q *store.Queries) (err error) { m, err = q.GetMachine(ctx, m.ID); return err }); err != nil {
		t.Fatal(err)
	}
	id := store.NewID()
	step := func(seq int64, s wire.Step) wire.StepReply {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.sign.Step(ctx, m, machineAddr, id, seq, b)
		if err != nil {
			t.Fatalf("step %d: %v", seq, err)
		}
		return r
	}
	r := step(1, wire.Step{Begin: &wire.Begin{
		Purpose: wire.PurposeSignin, User: a.user, UID: a.uid, Scope: a.scope, Service: a.service, RHost: a.rhost, RemoteSeat: a.remote,
		Mode: "second", First: a.first, Boot: boot, At: clock.Micros(w.clock.Now()),
	}})
	var out done
	switch {
	case r.Done != nil:
		out.Outcome, out.Reason = r.Done.Outcome, r.Done.Reason
	case r.Prompt != nil:
		out.Asked = r.Prompt.For
		step(2, wire.Step{Cancel: true})
	}
	page, err := w.ListEvents(ctx, desk.Root(), desk.EventFilter{Types: []string{"signin."}}, "", 1)
	if err != nil || len(page.Items) == 0 {
		t.Fatal(page, err)
	}
	var data struct {
		Conversation string          `json:"conversation"`
		Trace        []policy.Step   `json:"trace"`
		Reports      []policy.Report `json:"reports"`
	}
	if err := json.Unmarshal(page.Items[0].Data, &data); err != nil || data.Conversation != id {
		t.Fatalf("the event of another sign-in: %s, %v", page.Items[0].Data, err)
	}
	out.trace, out.reports, out.event = data.Trace, data.Reports, page.Items[0].ID
	return out
}

var draft = map[string]int{}

// draft tries a random change of the default policy, writes it, and asks again: the trial
// must have said what is then explained.
func (w *world) draft(ctx context.Context, t *rapid.T, a attempt, before policy.Decision, since time.Time) {
	p := drawPolicy(t, true)
	body, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(body, &settings); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"id", "name", "priority", "default", "groups", "version"} {
		delete(settings, k)
	}
	// The default one counts last: the trial is of a policy for everybody that comes first.
	given, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	x, err := w.TryPolicy(ctx, desk.Root(), rest.TryPolicy{Policy: "default", Settings: given, Since: since})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.GetPolicy(ctx, w.ids[0])
		if err != nil {
			return err
		}
		_, err = tx.UpdatePolicy(ctx, db.UpdatePolicyParams{ID: row.ID, Rev: row.Rev, Name: row.Name, Priority: row.Priority, Body: string(given), UpdatedAt: row.UpdatedAt})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	after, err := w.Explain(ctx, desk.Root(), a.question(false))
	if err != nil {
		t.Fatal(err)
	}
	want := policy.Compare(before, after.Decision)
	got := policy.Same
	if len(x.Changes) > 0 {
		got = x.Changes[0].Change
		if diff := cmp.Diff(after.Decision.Trace, x.Changes[0].Who[0].After.Trace); diff != "" {
			t.Fatalf("the trial decides otherwise than the draft then does:\n%s", diff)
		}
	}
	if got != want {
		t.Fatalf("the trial says %s, and it is %s: %s (%s) before, %s (%s) after", got, want, before.Outcome, before.Reason, after.Decision.Outcome, after.Decision.Reason)
	}
	draft["draft "+string(got)]++
}

// apart lets the agent decide without the server, over what the server has signed.
func (w *world) apart(ctx context.Context, t *rapid.T, a attempt, seen map[string]int) {
	signed, _, err := w.offline.PolicyFile(ctx, w.machine.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.vault.ApplyPolicy(ctx, signed); err != nil {
		t.Fatal(err)
	}
	told, err := w.Explain(ctx, desk.Root(), a.question(true))
	if err != nil {
		t.Fatal(err)
	}
	f := w.vault.Facts(ctx, a.user)
	for _, p := range f.Policies {
		if p.ReportOnly && !p.Default {
			t.Fatalf("the machine was given the policy %q, which only reports", p.Name)
		}
	}
	facts := policy.Facts{
		User: f.User, NearMiss: f.NearMiss, Assigned: f.User != nil, Machine: f.Machine, Policies: f.Policies, Vault: f.Vault,
		VaultProblem: f.VaultProblem, PolicyProblem: f.PolicyProblem, FirstResult: policy.FirstAccepted,
	}
	if f.User != nil && f.User.Name == "alice" {
		// Her bundle is made as fresh as the server believes it to be.
		p, _ := policy.Choose(f.User, f.Policies)
		facts.Vault = &policy.Vault{
			Class: "software", Factors: []policy.Factor{policy.TOTP, policy.Backup}, Until: w.clock.Now().Add(time.Hour),
			SigninsLeft: p.OfflineSignins, TriesLeft: p.OfflineTries, RemoteTries: max(1, p.OfflineTries/4),
		}
	}
	r := policy.Request{User: a.user, UID: a.uid, Scope: a.scope, Service: a.service, At: w.clock.Now(), Link: policy.LinkDown, First: a.first, RemoteSeat: a.remote, Host: a.rhost, Boot: boot}
	d := policy.Decide(r, facts)
	seen["offline "+string(d.Outcome)]++
	if d.Outcome != told.Decision.Outcome {
		t.Fatalf("explained was %s (%s), the agent does %s (%s)", told.Decision.Outcome, told.Decision.Reason, d.Outcome, d.Reason)
	}
	if f.User == nil {
		return // whose name it is like, only the server knows
	}
	if diff := cmp.Diff(told.Decision.Trace, d.Trace); diff != "" {
		t.Fatalf("the agent goes another way than was explained (-told +done):\n%s", diff)
	}
}
