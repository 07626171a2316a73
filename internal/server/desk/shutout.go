package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// maxShutOut is how many people a preview, a refusal and an event name.
const maxShutOut = 20

// shutting asks whom a change of policies shuts out: from where to go on, and whether
// those count who are shut out as it is.
type shutting struct {
	id             string // of the policy that changes
	before, after  []policy.Policy
	all            bool // list also who is shut out before
	fold, name     string
	most           int
	everybodyAsked bool // also where nothing changed that matters
}

// find gives the policy that changes, on one side; nil where it is not.
func (s *shutting) find(ps []policy.Policy) *policy.Policy {
	for i := range ps {
		if ps[i].ID == s.id {
			return &ps[i]
		}
	}
	return nil
}

// matters tells whether the change can shut anybody out at all.
func (s *shutting) matters() bool {
	was, is := s.find(s.before), s.find(s.after)
	return (was != nil || is != nil) && (was == nil || is == nil || !policy.SameAsked(*was, *is))
}

// shutOut tells who could sign in with the policies before, and could not with those
// after: the one rule behind previews, saves, trials and lists. It reads everybody to
// whom the policy applies on either side with the same few questions, however many they
// are, and judges each combination of policies, 2FA and factors once.
func (d *Desk) shutOut(ctx context.Context, q *db.Queries, s shutting) (rest.ShutOut, error) {
	out := rest.ShutOut{Who: []rest.ShutOutUser{}}
	was, is := s.find(s.before), s.find(s.after)
	if !s.everybodyAsked && !s.matters() {
		return out, nil
	}
	groups := []string{}
	for _, p := range []*policy.Policy{was, is} {
		switch {
		case p == nil:
		case p.Default:
			groups = nil
		case groups != nil:
			groups = append(groups, p.Groups...)
		}
	}
	people, err := q.People(ctx, groups, d.now())
	if err != nil {
		return out, fmt.Errorf("people: %w", err)
	}
	j, err := d.judges(ctx, q, s, groups)
	if err != nil {
		return out, err
	}
	for _, p := range people {
		v := j.verdict(p)
		if len(v.after) == 0 {
			continue
		}
		switch {
		case len(v.fresh) > 0:
			out.People++
		default:
			out.Already++
			if !s.all {
				continue
			}
		}
		if s.name != "" && (p.Fold < s.fold || p.Fold == s.fold && p.Name <= s.name) {
			continue
		}
		if len(out.Who) == s.most {
			if out.Next == "" {
				last := out.Who[s.most-1].User
				out.Next = cursor("shut-out", facts.Fold(last), last)
			}
			continue
		}
		x := rest.ShutOutUser{User: p.Name, UserID: rest.UserPrefix + p.ID, Has: []string{}, Where: v.after, New: v.fresh, Policy: v.policy, Needs: v.needs, Accepts: v.accepts}
		if p.Role != rest.RoleNone {
			x.Role = p.Role
		}
		for _, k := range kindsOf(p) {
			x.Has = append(x.Has, string(k))
		}
		out.Who = append(out.Who, x)
	}
	return out, nil
}

// kindsOf are the kinds of factors that a person could use.
func kindsOf(p db.Person) []policy.Factor {
	var out []policy.Factor
	for _, k := range policy.Kinds {
		has := false
		switch k {
		case policy.FIDO2:
			has = p.FIDO2
		case policy.Push:
			has = p.Push
		case policy.TOTP:
			has = p.TOTP
		case policy.Backup:
			has = p.Backup
		case policy.Mail:
			has = p.Mail
		case policy.SMS:
			has = p.SMS
		}
		if has {
			out = append(out, k)
		}
	}
	return out
}

// judges judges people by what decides about them.
type judges struct {
	sides  [2][]policy.Policy
	groups map[string][]policy.Group // of each user, those that matter
	seen   map[string]verdict
}

// verdict is what comes of everybody in whom what decides is the same.
type verdict struct {
	after, fresh []policy.Place // shut out of, and newly
	policy       string
	needs        int
	accepts      []policy.Factor
}

// judges brings which groups that matter people are in: those of policies, and those that
// switch 2FA on or off.
func (d *Desk) judges(ctx context.Context, q *db.Queries, s shutting, scope []string) (*judges, error) {
	j := &judges{sides: [2][]policy.Policy{s.before, s.after}, groups: map[string][]policy.Group{}, seen: map[string]verdict{}}
	matter := map[string]policy.Switch{}
	for _, ps := range j.sides {
		for _, p := range ps {
			for _, g := range p.Groups {
				matter[g] = policy.Inherit
			}
		}
	}
	switches, err := q.GroupSwitches(ctx)
	if err != nil {
		return nil, fmt.Errorf("groups: %w", err)
	}
	for _, g := range switches {
		// A word that is not known is no reason to leave anybody out: it counts as on.
		matter[g.ID] = policy.On
		if g.MFA == facts.MFAOff {
			matter[g.ID] = policy.Off
		}
	}
	members, err := q.Memberships(ctx, slices.Sorted(maps.Keys(matter)), scope)
	if err != nil {
		return nil, fmt.Errorf("members: %w", err)
	}
	for _, m := range members {
		j.groups[m.UserID] = append(j.groups[m.UserID], policy.Group{ID: m.GroupID, Name: m.GroupID, MFA: matter[m.GroupID]})
	}
	return j, nil
}

// verdict judges a person, or remembers how their like was judged.
func (j *judges) verdict(p db.Person) verdict {
	u := policy.User{Name: p.Name, Factors: kindsOf(p), Groups: j.groups[p.ID]}
	switch p.MFA {
	case facts.MFAOff:
		u.MFA = policy.Off
	case facts.MFAOn:
		u.MFA = policy.On
	}
	slices.SortFunc(u.Groups, func(a, b policy.Group) int { return strings.Compare(a.ID, b.ID) })
	var key strings.Builder
	key.WriteString(string(u.MFA))
	for _, k := range u.Factors {
		key.WriteString("," + string(k))
	}
	for _, g := range u.Groups {
		key.WriteString(";" + g.ID)
	}
	v, ok := j.seen[key.String()]
	if ok {
		return v
	}
	v.after = policy.ShutOut(u, j.sides[1])
	v.fresh = append([]policy.Place{}, policy.NewlyShutOut(u, j.sides[0], j.sides[1])...)
	if c, _ := policy.Choose(&u, j.sides[1]); c != nil {
		v.policy, v.needs, v.accepts = c.Name, c.FactorsOnline, list(c.OnlineFactors)
		if slices.Equal(v.after, []policy.Place{policy.Apart}) {
			v.needs, v.accepts = c.FactorsOffline, list(c.OfflineFactors)
		}
	}
	j.seen[key.String()] = v
	return v
}

// owners names those who can sign in at a machine.
type owners struct{ names []string }

func (o owners) can() bool { return len(o.names) > 0 }

// owners judges the owners by policies, groups and their 2FA as they stand. A machine opens
// by its own seat or from afar: elevation, covered or not, is no way in. A lock of the
// phones does not count, because it is lifted: else who locks an owner's phones first could
// shut him out for good.
func (d *Desk) owners(ctx context.Context, q *db.Queries) (owners, error) {
	var out owners
	rows, err := q.FindUsers(ctx, db.UserFilter{Role: rest.RoleOwner, State: "active", At: d.now(), N: math.MaxInt32})
	if err != nil || len(rows) == 0 {
		return out, err
	}
	known, err := facts.Users(ctx, q, rows, d.Clock.Now())
	if err != nil {
		return out, err
	}
	ids := make([]string, len(rows))
	for i, u := range rows {
		ids[i] = u.ID
	}
	have, err := q.FactorsOfUsers(ctx, ids, d.now())
	if err != nil {
		return out, err
	}
	for _, f := range have {
		if u := known[f.UserID]; f.Confirmed && policy.Factor(f.Kind) == policy.Push && !slices.Contains(u.Factors, policy.Push) {
			u.Factors = append(u.Factors, policy.Push)
		}
	}
	ps, err := facts.Policies(ctx, q)
	if err != nil {
		return out, err
	}
	for _, u := range rows {
		if !policy.AtNoMachine(policy.ShutOut(*known[u.ID], ps)) {
			out.names = append(out.names, u.Name)
		}
	}
	return out, nil
}

// keepsAnOwner refuses what was done since was, if no owner can sign in at any machine
// now, while one could then. Nobody can accept that: who would undo it?
func (d *Desk) keepsAnOwner(ctx context.Context, q *db.Queries, was owners) error {
	if !was.can() {
		return nil
	}
	is, err := d.owners(ctx, q)
	if err != nil || is.can() {
		return err
	}
	names := was.names // who could
	if len(names) > maxShutOut {
		names = append(names[:maxShutOut:maxShutOut], fmt.Sprintf("and %d others", len(names)-maxShutOut))
	}
	return fault.Newf(fault.Forbidden, "No owner could sign in at a machine any more: %s. Nobody may accept that. Enrol what the policy accepts for one of them first, or give owners a group and a policy of their own.", strings.Join(names, ", "))
}

// regroup runs a change of groups or of who is in them: it says of whom it asks less than
// before (E3), and refuses one that leaves no owner who can sign in.
func (d *Desk) regroup(ctx context.Context, tx *store.Tx, a Actor, do func() error) ([]string, error) {
	was, err := d.owners(ctx, tx.Queries)
	if err != nil {
		return nil, err
	}
	weakens, err := d.weakens(ctx, tx, a, do)
	if err != nil {
		return nil, err
	}
	return weakens, d.keepsAnOwner(ctx, tx.Queries, was)
}

// rewrite runs a change of the policy with this id: it says of whom it asks less than
// before (E3), and whom it shuts out. More people than accepted refuse it, and so does
// one that leaves no owner who can sign in; then nothing is written.
func (d *Desk) rewrite(ctx context.Context, tx *store.Tx, a Actor, id string, c *count, do func() error) (weakens []string, shut rest.ShutOut, err error) {
	s := shutting{id: id, most: maxShutOut}
	if s.before, err = facts.Policies(ctx, tx.Queries); err != nil {
		return nil, shut, err
	}
	if weakens, err = d.regroup(ctx, tx, a, do); err != nil {
		return nil, shut, err
	}
	if s.after, err = facts.Policies(ctx, tx.Queries); err != nil {
		return nil, shut, err
	}
	switch {
	case !s.matters():
		return weakens, shut, nil
	case !c.done:
		c.of = s
		return nil, shut, errCount
	case reflect.DeepEqual(c.of.before, s.before) && reflect.DeepEqual(c.of.after, s.after):
		shut = c.out
	default:
		// Policies have changed since, which is rare: now it is right.
		if shut, err = d.shutOut(ctx, tx.Queries, s); err != nil {
			return nil, shut, err
		}
	}
	if shut.People > c.accepted {
		return nil, shut, shutsOut(shut, c.accepted)
	}
	return weakens, shut, nil
}

// count is whom a change of a policy shuts out, and how many were accepted.
type count struct {
	accepted int64
	of       shutting // what is to be counted, or was
	out      rest.ShutOut
	done     bool // said outside: a transaction that is tried again has counted nothing
}

// errCount undoes a change that is to be counted before it is made.
var errCount = errors.New("whom it shuts out is to be counted")

// updateCounted runs a change of a policy. Counting everybody takes seconds where they are
// many, and as long as one writes nobody else does: so the change is tried, undone, counted
// outside of the transaction for the policies as they came out, and then made. Who comes
// into a group or loses a factor in between is judged as if it were a moment later.
func (d *Desk) updateCounted(ctx context.Context, accepted int64, fn func(ctx context.Context, tx *store.Tx, c *count) error) error {
	c := &count{accepted: accepted}
	run := func() error {
		return d.update(ctx, func(ctx context.Context, tx *store.Tx) error { return fn(ctx, tx, c) })
	}
	err := run()
	if !errors.Is(err, errCount) {
		return err
	}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		c.out, err = d.shutOut(ctx, q, c.of)
		return err
	})
	if err != nil {
		return err
	}
	c.done = true
	return run()
}

// previewShutOut tells whom the policy would shut out as it would be written; nil is
// nobody. One without an id would be new.
func (d *Desk) previewShutOut(ctx context.Context, q *db.Queries, next db.Policy, groups []string) (*rest.ShutOut, error) {
	ps, err := facts.Policies(ctx, q)
	if err != nil {
		return nil, err
	}
	p, err := facts.Policy(next, groups)
	if err != nil {
		return nil, err
	}
	s := shutting{id: p.ID, most: maxShutOut, before: ps, after: slices.Clone(ps)}
	if i := slices.IndexFunc(ps, func(x policy.Policy) bool { return x.ID == p.ID }); i >= 0 {
		s.after[i] = p
	} else {
		s.after = append(s.after, p)
	}
	out, err := d.shutOut(ctx, q, s)
	if err != nil || out.People == 0 {
		return nil, err
	}
	out.Policy = p.Name
	return &out, nil
}

// shutsOut is the refusal of a change that shuts more people out than was accepted.
func shutsOut(s rest.ShutOut, accepted int64) error {
	text := fmt.Sprintf("This shuts out %s, who could sign in until now: %s. Nothing was changed.", peopleCount(s.People), shutNames(s))
	if accepted > 0 {
		text += fmt.Sprintf(" Accepted were %d.", accepted)
	}
	text += fmt.Sprintf(" Enrol what the policy accepts for them first, or accept it (shut_out: %d).", s.People)
	about, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f := fault.Newf(fault.ShutsOut, "%s", text)
	f.About = about
	return f
}

func peopleCount(n int64) string {
	if n == 1 {
		return "1 person"
	}
	return strconv.FormatInt(n, 10) + " people"
}

// shutNames names the first of them.
func shutNames(s rest.ShutOut) string {
	names := shutList(s)
	if more := s.People - int64(len(s.Who)); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

func shutList(s rest.ShutOut) []string {
	names := make([]string, len(s.Who))
	for i, w := range s.Who {
		names[i] = w.User
	}
	return names
}

// saidOut adds to an event's data whom the change shut out.
func saidOut(data map[string]any, s rest.ShutOut) map[string]any {
	if s.People > 0 {
		data["shut_out"], data["shut_out_first"] = s.People, shutList(s)
	}
	return data
}

// ListShutOut lists whom a draft of a policy would shut out, in order of names: those who
// can sign in as it is and could not then, and with All also those who can not as it is.
// Without any change it tells who is shut out now. A report-only policy is judged as if
// it were in force. Nothing is written.
func (d *Desk) ListShutOut(ctx context.Context, a Actor, in rest.ShutOutDraft) (rest.ShutOut, error) {
	out := rest.ShutOut{Who: []rest.ShutOutUser{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	from, err := resume("shut-out", in.After, 2)
	if err != nil {
		return out, err
	}
	_, show := page(in.Limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		var v faults
		t := trial{desk: d, out: &rest.Tried{}}
		if err := t.draft(ctx, q, in.Try(), &v); err != nil {
			return err
		}
		out, err = d.shutOut(ctx, q, shutting{
			id: t.id, before: t.sides[0], after: t.sides[1], all: in.All, fold: from[0], name: from[1], most: show, everybodyAsked: true,
		})
		out.Policy = t.out.Policy
		return err
	})
	return out, err
}
