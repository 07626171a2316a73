package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/window"
)

// The bounds of a trial.
const (
	tryBack  = 7 * 24 * time.Hour
	tryMost  = 31 * 24 * time.Hour
	tryTime  = 15 * time.Second // of reading; what is older then is left out, and that is said
	tryPage  = 1000
	tryPairs = 5000 // people on machines whose side without the server is judged
)

// TryPolicy judges the sign-ins of the last days twice, with the rules as they are and
// with a draft, and tells for whom something changes (P5). Nothing is written.
//
// Who somebody is, their groups and factors and how machines are set are taken as they
// are now; when, where, from where and with which password judged as the event says.
// MFA windows are played through on both sides, so that a longer window shows as fewer
// prompts. What can not be known is counted and said.
func (d *Desk) TryPolicy(ctx context.Context, a Actor, in rest.TryPolicy) (rest.Tried, error) {
	out := rest.Tried{Unjudged: []rest.Left{}, Changes: []rest.Trial{}, Offline: []rest.Trial{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	now := d.Clock.Now()
	var v faults
	if !in.Since.IsZero() && (in.Since.After(now) || now.Sub(in.Since) > tryMost) {
		v.add("since", "it is out of range; allowed are the last %d days", int(tryMost.Hours()/24))
	}
	if in.Limit < 0 || in.Limit > rest.MaxTrySignins {
		v.add("limit", "%d is out of range; allowed are 1 to %d", in.Limit, rest.MaxTrySignins)
	}
	if in.People < 0 || in.People > rest.MaxTryPeople {
		v.add("people", "%d is out of range; allowed are 1 to %d", in.People, rest.MaxTryPeople)
	}
	since := now.Add(-tryBack)
	if !in.Since.IsZero() {
		since = in.Since
	}
	t := trial{
		desk: d, out: &out, since: clock.Micros(since), most: positive(in.Limit, rest.TrySignins), who: positive(in.People, rest.TryPeople),
		skipped: map[string]int{}, changes: map[policy.Change]*kind{}, offline: map[policy.Change]*kind{},
	}
	// One at a time: it reads much, and a second one would only wait for the same disk.
	select {
	case d.trials <- struct{}{}:
		defer func() { <-d.trials }()
	default:
		return out, fault.Newf(fault.TooMany, "Somebody tries a policy right now. Try again in a few seconds.")
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		if err := t.draft(ctx, q, in, &v); err != nil {
			return err
		}
		x, err := d.shutOut(ctx, q, shutting{id: t.id, before: t.sides[0], after: t.sides[1], most: t.who, everybodyAsked: true})
		x.Policy, out.ShutOut = out.Policy, &x
		return err
	})
	if err != nil {
		return out, err
	}
	if err := t.read(ctx); err != nil {
		return out, err
	}
	if err := d.Store.Read(ctx, func(q *store.Queries) error { return t.meet(ctx, q) }); err != nil {
		return out, err
	}
	t.judge()
	if err := d.Store.Read(ctx, func(q *store.Queries) error { return t.apart(ctx, q, now) }); err != nil {
		return out, err
	}
	t.tell(since, now)
	return out, nil
}

func positive(n, otherwise int) int {
	if n <= 0 {
		return otherwise
	}
	return n
}

// trial is one trial of a draft.
type trial struct {
	desk  *Desk
	out   *rest.Tried
	since int64
	most  int
	who   int

	sides [2][]policy.Policy // as it is, and with the draft
	id    string             // of the policy that the draft is about
	added []policy.WindowEnd // occasions that only the draft ends windows on

	signins  []past // the youngest first, until judge turns them
	ends     []ended
	users    map[string]*policy.User
	machines map[string]db.Machine

	skipped map[string]int
	changes map[policy.Change]*kind
	offline map[policy.Change]*kind
	people  map[string]bool
	applies map[string]bool
}

// past is one sign-in as its event keeps it.
type past struct {
	id, subject, user, machine, name, rule string
	then                                   policy.Then
	past                                   policy.Past
	given                                  []policy.Factor
	allowed, mfa, unlock, lent             bool
	windows                                [2]*policy.Window // filled in by judge, for examples
}

// ended is the end of a window.
type ended struct {
	user, machine, reason string
	at                    int64
}

// kind gathers one kind of change.
type kind struct {
	signins int
	people  map[string]*somebody
}

type somebody struct {
	user, id string
	n        int
	example  int // the youngest sign-in, as an index
	before   *policy.Decision
	after    *policy.Decision
	at       past
}

// draft makes the two lists of policies.
func (t *trial) draft(ctx context.Context, q *store.Queries, in rest.TryPolicy, v *faults) error {
	v.priority(in.Priority)
	if in.Groups != nil {
		v.count("groups", len(*in.Groups))
	}
	ps, err := facts.Policies(ctx, q)
	if err != nil {
		return err
	}
	p, at := policy.NewPolicy(), -1
	p.ID, p.Name, p.Priority = "draft", "the draft", defaultPriority
	if in.Policy != "" {
		row, err := policyRow(ctx, q, in.Policy)
		if err != nil {
			return err
		}
		if at = slices.IndexFunc(ps, func(p policy.Policy) bool { return p.ID == row.ID }); at < 0 {
			return missing("policy", in.Policy)
		}
		p = ps[at]
		if in.Version != 0 {
			if p, err = t.older(ctx, q, p, in.Version); err != nil {
				return err
			}
		}
	} else if in.Remove || in.Version != 0 {
		v.add("policy", "it is missing: say which one")
	}
	if at >= 0 && ps[at].Default && in.Remove {
		return fault.Newf(fault.Conflict, "%q is the default policy: one always exists.", ps[at].Name)
	}
	was := p.WindowEndsOn
	p = v.settings(p, in.Settings)
	if in.Priority != nil {
		p.Priority = *in.Priority
	}
	if in.Groups != nil {
		if p.Groups, err = v.groupIDs(ctx, q, "groups", *in.Groups); err != nil {
			return err
		}
	}
	if err := v.err(); err != nil {
		return err
	}
	// The question is what it would do in force, whether it is saved as report-only or not.
	p.ReportOnly = false
	t.sides[0], t.sides[1] = ps, slices.Clone(ps)
	switch {
	case at < 0:
		t.sides[1] = append(t.sides[1], p)
	case in.Remove:
		t.sides[1] = slices.Delete(t.sides[1], at, at+1)
	default:
		t.sides[1][at] = p
	}
	t.id = p.ID
	if at >= 0 {
		t.out.Policy = ps[at].Name
	}
	if !in.Remove {
		t.out.Warnings = p.Warnings()
		for _, e := range p.WindowEndsOn {
			if at < 0 || !slices.Contains(was, e) {
				t.added = append(t.added, e)
			}
		}
		if !p.Default && len(p.Groups) == 0 {
			t.out.Notes = append(t.out.Notes, "The draft belongs to no group, so that it applies to nobody.")
		}
	}
	return nil
}

// older is the policy as it was in a version, under its present name.
func (t *trial) older(ctx context.Context, q *store.Queries, p policy.Policy, version int64) (policy.Policy, error) {
	row, err := q.GetPolicyVersion(ctx, db.GetPolicyVersionParams{PolicyID: p.ID, Version: version})
	if store.IsNotFound(err) {
		return p, fault.Newf(fault.NotFound, "Policy %q has no version %d in its history.", p.Name, version)
	} else if err != nil {
		return p, err
	}
	groups, err := groupsIn(row)
	if err != nil {
		return p, err
	}
	old, err := policy.Parse([]byte(row.Body))
	if err != nil {
		return p, fault.Newf(fault.Conflict, "Version %d of policy %q no longer fits this server: %s.", version, p.Name, err)
	}
	old.ID, old.Name, old.Default, old.Version, old.Priority, old.Groups = p.ID, p.Name, p.Default, p.Version, row.Priority, groups
	return old, nil
}

// read brings the sign-ins, the youngest first, within the bounds.
func (t *trial) read(ctx context.Context) error {
	begun := clock.Real.Now() // of work, not of what is judged
	at, id := int64(math.MaxInt64), ""
	oldest := int64(0)
	for {
		rows, err := t.desk.Store.TrialEvents(ctx, t.since, at, id, tryPage)
		if err != nil {
			return err
		}
		for _, e := range rows {
			at, id = e.At, e.ID
			if e.Type == string(event.WindowEnded) {
				t.ends = append(t.ends, ended{e.UserID, e.MachineID, e.Reason, e.At})
				continue
			}
			if len(t.signins) == t.most {
				t.out.Capped = fmt.Sprintf("Only the youngest %d sign-ins were judged: that is the bound.", t.most)
				t.out.Since = rest.Time(oldest)
				return nil
			}
			oldest = e.At
			t.take(e)
		}
		if len(rows) < tryPage {
			return nil
		}
		if clock.Real.Now().Sub(begun) > tryTime {
			t.out.Capped = fmt.Sprintf("Reading took longer than %s, so that older sign-ins were left out.", tryTime)
			t.out.Since = rest.Time(oldest)
			return nil
		}
	}
}

const (
	leftOld     = "They were written by an earlier version of the server or agent, which did not keep what a second judgement needs."
	leftDropped = "Their data was too large or damaged."
	leftGone    = "The user was removed since."
	leftMachine = "The machine was removed since."
	leftGlass   = "They were decided without a policy (a sign-in that was given up before anything was asked, or sent twice)."
)

func (t *trial) skip(why string) { t.skipped[why]++ }

// take keeps of an event what is needed.
func (t *trial) take(e store.TrialEvent) {
	var data struct {
		Past    *policy.Past    `json:"past"`
		Trace   []policy.Step   `json:"trace"`
		Factors []policy.Factor `json:"factors"`
		MFA     bool            `json:"mfa"`
		Unlock  bool            `json:"unlock"`
	}
	if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
		t.skip(leftDropped)
		return
	}
	if data.Past == nil || data.Past.Form < 1 {
		if len(data.Trace) == 0 {
			t.skip(leftGlass)
		} else {
			t.skip(leftOld)
		}
		return
	}
	if data.Past.Form > policy.PastForm {
		t.skip("They were written by a newer version, whose form this server does not know.")
		return
	}
	p := past{
		id: e.ID, subject: e.Subject, user: e.UserID, machine: e.MachineID, name: e.Machine, past: *data.Past, given: data.Factors,
		allowed: e.Type == string(event.SigninAllowed), mfa: data.MFA, unlock: data.Unlock,
		then: policy.Then{User: e.Subject, Scope: policy.Scope(e.Scope), Service: e.Service, Link: policy.Link(e.Link), At: clock.FromMicros(e.At)},
	}
	p.lent = slices.Contains(p.given, policy.Bypass)
	if n := len(data.Trace); n > 0 {
		p.rule = data.Trace[n-1].Rule
	}
	t.signins = append(t.signins, p)
}

// meet looks up who and what the sign-ins speak of, as they are now.
func (t *trial) meet(ctx context.Context, q *store.Queries) error {
	userIDs, machineIDs := map[string]bool{}, map[string]bool{}
	for _, p := range t.signins {
		if p.user != "" {
			userIDs[p.user] = true
		}
		machineIDs[p.machine] = true
	}
	rows, err := q.UsersOf(ctx, keysIn(userIDs))
	if err != nil {
		return err
	}
	if t.users, err = facts.Users(ctx, q, rows, t.desk.Clock.Now()); err != nil {
		return err
	}
	machines, err := q.MachinesOf(ctx, keysIn(machineIDs))
	if err != nil {
		return err
	}
	t.machines = map[string]db.Machine{}
	for _, m := range machines {
		t.machines[m.ID] = m
	}
	return nil
}

func keysIn(m map[string]bool) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

type pairOf struct{ user, machine string }

// judge plays the sign-ins through in the order of time, on both sides.
func (t *trial) judge() {
	slices.Reverse(t.signins)
	slices.Reverse(t.ends)
	windows := map[pairOf][2]*policy.Window{}
	seeded := map[pairOf]bool{}
	t.people, t.applies = map[string]bool{}, map[string]bool{}
	chosen := map[string][2]*policy.Policy{}
	for id, u := range t.users {
		var c [2]*policy.Policy
		for s := range t.sides {
			c[s], _ = policy.Choose(u, t.sides[s])
		}
		chosen[id] = c
	}
	next := 0
	for i := range t.signins {
		p := &t.signins[i]
		for ; next < len(t.ends) && t.ends[next].at <= clock.Micros(p.then.At); next++ {
			e := t.ends[next]
			k := pairOf{e.user, e.machine}
			w := windows[k]
			for s := range w {
				if c := chosen[e.user][s]; ends(c, e.reason) {
					w[s] = nil
				}
			}
			windows[k] = w
		}
		var u *policy.User
		if p.user != "" {
			if u = t.users[p.user]; u == nil {
				t.skip(leftGone)
				continue
			}
		}
		m, ok := t.machines[p.machine]
		if !ok {
			t.skip(leftMachine)
			continue
		}
		k := pairOf{p.user, p.machine}
		if !seeded[k] {
			// What was open before the first of them.
			seeded[k] = true
			windows[k] = [2]*policy.Window{p.past.Window, p.past.Window}
		}
		p.windows = windows[k]
		var ds [2]policy.Decision
		for s := range t.sides {
			ds[s] = t.decide(p, u, m, s)
		}
		windows[k] = t.opened(p, u, ds, windows[k])
		t.count(i, p, u, ds)
	}
}

// ends tells whether what ended a window on record ends it under the policy too.
func ends(p *policy.Policy, reason string) bool {
	switch on := policy.WindowEnd(reason); on {
	case policy.EndLogoff, policy.EndReboot, policy.EndNetwork, policy.EndOffline:
		return p != nil && window.Ends(*p, on)
	}
	return true
}

// decide judges a sign-in on one side.
func (t *trial) decide(p *past, u *policy.User, m db.Machine, side int) policy.Decision {
	r, f := p.past.Again(p.then, u, facts.Machine(m), t.sides[side])
	f.Window = nil
	if p.then.Link == policy.LinkUp && !p.past.NoWindow {
		f.Window = p.windows[side]
	}
	if p.then.Link == policy.LinkDown && u != nil && f.Vault != nil {
		f.Vault = t.counted(*f.Vault, u, side)
	}
	return policy.Decide(r, f)
}

// counted brings the limits of a policy to what a machine held: it had counted down
// from those of the time.
func (t *trial) counted(v policy.Vault, u *policy.User, side int) *policy.Vault {
	now, _ := policy.Choose(u, t.sides[0])
	then, _ := policy.Choose(u, t.sides[side])
	if now == nil || then == nil || side == 0 {
		return &v
	}
	v.SigninsLeft += then.OfflineSignins - now.OfflineSignins
	v.TriesLeft += then.OfflineTries - now.OfflineTries
	v.RemoteTries = min(v.RemoteTries+max(1, then.OfflineTries/4)-max(1, now.OfflineTries/4), v.TriesLeft)
	v.Until = v.Until.AddDate(0, 0, then.OfflineDays-now.OfflineDays)
	return &v
}

// opened is which windows hold behind a sign-in.
func (t *trial) opened(p *past, u *policy.User, ds [2]policy.Decision, w [2]*policy.Window) [2]*policy.Window {
	if u == nil || !p.allowed || p.unlock || p.then.Link != policy.LinkUp || p.past.NoWindow {
		return w
	}
	for s, d := range ds {
		if d.Outcome != policy.MFA || p.lent {
			continue
		}
		// What was given; where nobody was asked, that they would have given what is asked.
		given := slices.DeleteFunc(slices.Clone(p.given), func(f policy.Factor) bool { return !slices.Contains(d.Factors, f) })
		for _, f := range d.Factors {
			if len(given) < d.Count && f != policy.Bypass && !slices.Contains(given, f) {
				given = append(given, f)
			}
		}
		if x, ok := window.Open(d.Applied(), p.user, p.machine, p.past.Boot, p.then.Scope, given, p.then.At); ok {
			w[s] = &policy.Window{Boot: x.Boot, Opened: x.Opened, Expires: x.Expires, Factors: x.Factors}
		}
	}
	return w
}

func (t *trial) count(i int, p *past, u *policy.User, ds [2]policy.Decision) {
	t.out.Judged++
	who := p.user
	if who == "" {
		who = "?" + p.subject
	}
	t.people[who] = true
	if u != nil {
		if c, _ := policy.Choose(u, t.sides[1]); c != nil && c.ID == t.id {
			t.applies[who] = true
		}
	}
	if ds[0].Prompts() {
		t.out.Before++
	}
	if ds[1].Prompts() {
		t.out.After++
	}
	if n := len(ds[0].Trace); n > 0 && p.rule != "" && p.rule != ds[0].Trace[n-1].Rule && !strings.HasPrefix(p.rule, "S10 pause") {
		t.out.Moved++
	}
	c := policy.Compare(ds[0], ds[1])
	if c == policy.Same {
		t.out.Same++
		return
	}
	note1(t.changes, c, who, somebody{user: p.subject, id: p.user, example: i})
}

// note1 counts one change of somebody.
func note1(in map[policy.Change]*kind, c policy.Change, who string, x somebody) {
	k := in[c]
	if k == nil {
		k = &kind{people: map[string]*somebody{}}
		in[c] = k
	}
	k.signins++
	s := k.people[who]
	if s == nil {
		s = &somebody{}
		k.people[who] = s
	}
	x.n = s.n + 1
	*s = x
}

// apart judges what the same people would meet on the same machines while the server
// is not reachable, as far as machines have told.
func (t *trial) apart(ctx context.Context, q *store.Queries, now time.Time) error {
	type where struct {
		pairOf
		scope policy.Scope
	}
	seen := map[where]int{}
	var list []where
	pairs := map[pairOf]bool{}
	for i := len(t.signins) - 1; i >= 0; i-- { // the youngest
		p := t.signins[i]
		k := where{pairOf{p.user, p.machine}, p.then.Scope}
		if _, ok := seen[k]; ok || t.users[p.user] == nil || t.machines[p.machine].ID == "" {
			continue
		}
		if len(list) == tryPairs {
			t.out.Notes = append(t.out.Notes, fmt.Sprintf("Without the server only the %d pairs of person and machine that signed in last were judged.", tryPairs))
			break
		}
		seen[k] = i
		list, pairs[k.pairOf] = append(list, k), true
	}
	held, known, err := t.held(ctx, q, pairs)
	if err != nil {
		return err
	}
	for _, k := range list {
		i := seen[k]
		p := t.signins[i]
		u, m := t.users[k.user], t.machines[k.machine]
		var ds [2]policy.Decision
		for s := range t.sides {
			then := p.then
			then.Link, then.At = policy.LinkDown, now
			again := p.past
			again.LockedUntil = time.Time{}
			if again.First == policy.FirstServer || again.First == policy.FirstNone {
				again.First, again.Result = policy.FirstNone, policy.FirstPending
			} else {
				again.Result = policy.FirstAccepted
			}
			again.Vault, again.VaultProblem, again.PolicyProblem = nil, "", ""
			r, f := again.Again(then, u, facts.Machine(m), t.sides[s])
			f.Window, f.Assigned = nil, true
			if !known[k.pairOf] {
				f.User = nil
			} else if v, ok := held[k.pairOf]; ok {
				f.Vault, f.VaultProblem = facts.Held(v, *u, t.sides[s])
			}
			facts.Reported(m, &f)
			ds[s] = policy.Decide(r, f)
		}
		t.out.Pairs++
		if c := policy.Compare(ds[0], ds[1]); c != policy.Same {
			note1(t.offline, c, k.user, somebody{user: u.Name, id: u.ID, example: i, before: &ds[0], after: &ds[1], at: p})
		}
	}
	return nil
}

// held is the offline data of the pairs, and which of the machines know the user.
func (t *trial) held(ctx context.Context, q *store.Queries, pairs map[pairOf]bool) (map[pairOf]db.Vault, map[pairOf]bool, error) {
	list := make([]db.Pair, 0, len(pairs))
	for k := range pairs {
		list = append(list, db.Pair{MachineID: k.machine, UserID: k.user})
	}
	held, known := map[pairOf]db.Vault{}, map[pairOf]bool{}
	vaults, err := q.ActiveVaultsOf(ctx, list)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range vaults { // the youngest generation comes first
		if k := (pairOf{v.UserID, v.MachineID}); held[k].UserID == "" {
			held[k] = v
		}
	}
	knows, err := q.KnownOf(ctx, list)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range knows {
		known[pairOf{p.UserID, p.MachineID}] = true
	}
	return held, known, nil
}

// tell writes the answer.
func (t *trial) tell(since, now time.Time) {
	o := t.out
	if o.Since.IsZero() {
		o.Since = since.UTC()
	}
	o.Until, o.People, o.Applies = now.UTC(), len(t.people), len(t.applies)
	for why, n := range t.skipped {
		o.Unjudged = append(o.Unjudged, rest.Left{Why: why, N: n})
	}
	slices.SortFunc(o.Unjudged, func(a, b rest.Left) int {
		if a.N != b.N {
			return b.N - a.N
		}
		return strings.Compare(a.Why, b.Why)
	})
	o.Changes, o.Offline = t.trials(t.changes), t.trials(t.offline)
	if len(t.added) > 0 {
		words := make([]string, len(t.added))
		for i, e := range t.added {
			words[i] = string(e)
		}
		o.Notes = append(o.Notes, "The draft ends MFA windows on "+strings.Join(words, ", ")+". Machines' reports of that are kept only where they ended a window, so that prompts which it would add are not counted.")
	}
	for _, p := range t.sides[1] {
		if p.ID != t.id {
			continue
		}
		was := policy.NewPolicy()
		if i := slices.IndexFunc(t.sides[0], func(q policy.Policy) bool { return q.ID == t.id }); i >= 0 {
			was = t.sides[0][i]
		}
		if p.LockoutAfter != was.LockoutAfter || p.BackoffAfter != was.BackoffAfter || p.LockoutFor != was.LockoutFor {
			o.Notes = append(o.Notes, "Lock-outs and pauses after failures are taken as they were: other thresholds are not played through.")
		}
	}
}

func (t *trial) trials(in map[policy.Change]*kind) []rest.Trial {
	out := []rest.Trial{}
	for _, c := range policy.Changes {
		k := in[c]
		if k == nil {
			continue
		}
		x := rest.Trial{Change: c, Signins: k.signins, People: len(k.people), Who: []rest.TriedUser{}}
		list := make([]*somebody, 0, len(k.people))
		for _, s := range k.people {
			list = append(list, s)
		}
		slices.SortFunc(list, func(a, b *somebody) int {
			if a.n != b.n {
				return b.n - a.n
			}
			return strings.Compare(a.user, b.user)
		})
		for _, s := range list[:min(len(list), t.who)] {
			x.Who = append(x.Who, t.example(s))
		}
		out = append(out, x)
	}
	return out
}

// example shows somebody with their youngest sign-in.
func (t *trial) example(s *somebody) rest.TriedUser {
	p := t.signins[s.example]
	x := rest.TriedUser{
		User: s.user, Signins: s.n, Event: rest.EventPrefix + p.id, At: p.then.At.UTC(), Machine: p.name, MachineID: rest.MachinePrefix + p.machine,
		Scope: string(p.then.Scope), Service: p.then.Service,
	}
	if s.id != "" {
		x.UserID = rest.UserPrefix + s.id
	}
	if s.before != nil {
		x.Before, x.After = *s.before, *s.after
		return x
	}
	var u *policy.User
	if p.user != "" {
		u = t.users[p.user]
	}
	x.Before, x.After = t.decide(&p, u, t.machines[p.machine], 0), t.decide(&p, u, t.machines[p.machine], 1)
	return x
}
