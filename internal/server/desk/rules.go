package desk

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// EffectivePolicy tells which policy holds for a user, why, and with which settings on
// a machine, which may be left out (P1, P2).
func (d *Desk) EffectivePolicy(ctx context.Context, a Actor, userRef, machineRef string) (rest.Effective, error) {
	out := rest.Effective{Considered: []rest.Considered{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		row, err := user(ctx, q, userRef)
		if err != nil {
			return err
		}
		at := facts.At{Now: d.Clock.Now()}
		var m *db.Machine
		if machineRef != "" {
			x, err := machine(ctx, q, machineRef)
			if err != nil {
				return err
			}
			m, at.MachineID = &x, x.ID
			out.Machine, out.MachineID = x.Name, rest.MachinePrefix+x.ID
		}
		u, err := facts.User(ctx, q, row, at)
		if err != nil {
			return err
		}
		ps, err := facts.Policies(ctx, q)
		if err != nil {
			return err
		}
		out.User, out.UserID = row.Name, rest.UserPrefix+row.ID
		out.TwoFactor, out.Because = policy.TwoFactor(u)
		won := ""
		var best *policy.Policy
		for _, s := range policy.Stand(&u, ps) {
			c := rest.Considered{Policy: s.Policy.Name, PolicyID: rest.PolicyPrefix + s.Policy.ID, Priority: s.Policy.Priority, Applies: s.Applies, ReportOnly: s.ReportOnly}
			switch {
			case s.Applies && s.Policy.Default:
				c.Why = "no other policy applies: it is the default"
			case s.Applies:
				c.Why = fmt.Sprintf("%s is in group %q, and no policy that is looked at before applies", row.Name, s.Through)
			case s.ReportOnly && s.Belongs:
				c.Why = fmt.Sprintf("%s is in group %q, but it only reports", row.Name, s.Through)
			case s.Belongs && s.Policy.Default:
				c.Why = fmt.Sprintf("it is the default, and %q applies", won)
			case s.Belongs:
				c.Why = fmt.Sprintf("%s is in group %q, but %q is looked at before", row.Name, s.Through, won)
			case len(s.Policy.Groups) == 0:
				c.Why = "it belongs to no group"
			default:
				c.Why = fmt.Sprintf("%s is in none of its groups", row.Name)
			}
			if s.Applies {
				p := s.Policy
				best, won = &p, p.Name
				out.Policy, out.PolicyID, out.Through = p.Name, c.PolicyID, s.Through
			}
			out.Considered = append(out.Considered, c)
		}
		if best == nil {
			return fault.Newf(fault.Conflict, "No policy applies to %s and there is no default policy: every sign-in is denied.", row.Name)
		}
		return d.merged(&out, *best, u, m)
	})
	return out, err
}

// merged lays what the machine changes over the policy.
func (d *Desk) merged(out *rest.Effective, p policy.Policy, u policy.User, m *db.Machine) error {
	out.Warnings = p.Warnings()
	next := p
	if m != nil {
		switch policy.Mode(m.Mode) {
		case policy.Exempt:
			out.Notes = append(out.Notes, "The machine is exempt: no second factor is asked for on it, whatever the policy says.")
		case policy.Enforced:
			next.Scopes = slices.Clone(policy.Scopes)
			next.FactorsOnline, next.FactorsOffline = max(1, p.FactorsOnline), max(1, p.FactorsOffline)
			if p.Offline == policy.OfflineBypass || p.Offline == policy.OfflineMFAOrBypass {
				next.Offline = policy.OfflineMFA
			}
			next.TrustedNetworks = nil
			if !out.TwoFactor {
				out.TwoFactor = true
				out.Because += ", but the machine is enforced"
			}
		}
		if m.Status != rest.MachineActive {
			out.Notes = append(out.Notes, fmt.Sprintf("The machine is %s: every sign-in on it is denied.", m.Status))
		}
		if !m.AllUsers {
			out.Notes = append(out.Notes, "The machine is for assigned users only.")
		}
	}
	switch {
	case u.Disabled:
		out.Notes = append(out.Notes, "The user is disabled: every sign-in is denied.")
	case u.NotYet:
		out.Notes = append(out.Notes, "The user's activation lies in the future: every sign-in is denied until then.")
	}
	if !u.LockedUntil.IsZero() {
		out.Notes = append(out.Notes, "The user is locked out on this machine now.")
	}
	if !out.TwoFactor {
		out.Notes = append(out.Notes, "2FA is off, so that no second factor is asked for.")
	}
	was, err := settingsOf(p)
	if err != nil {
		return err
	}
	if out.Settings, err = settingsOf(next); err != nil {
		return err
	}
	a, b := db.Policy{Name: p.Name, Body: string(was)}, db.Policy{Name: p.Name, Body: string(out.Settings)}
	out.Raised, err = differences(a, b, nil, nil)
	return err
}

// PreviewPolicy tells what ChangePolicy would write, and writes nothing. An empty ref
// previews a new policy against the defaults.
func (d *Desk) PreviewPolicy(ctx context.Context, a Actor, ref string, in rest.PolicyChange) (rest.PolicyPreview, error) {
	out := rest.PolicyPreview{Changes: []rest.Difference{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		var v faults
		body, err := settingsOf(policy.NewPolicy())
		if err != nil {
			return err
		}
		row := db.Policy{Priority: defaultPriority, Body: string(body)}
		var old []string
		if ref != "" {
			if row, err = policyRow(ctx, q, ref); err != nil {
				return err
			}
			have, err := q.ListGroupsOfPolicy(ctx, row.ID)
			if err != nil {
				return err
			}
			for _, g := range have {
				old = append(old, g.ID)
			}
		}
		out.Policy, out.Rev = row.Name, row.Rev
		next, groups, err := v.changed(ctx, q, row, old, in)
		if err != nil {
			return err
		}
		if next.Name != row.Name && askable(next.Name) {
			if _, err := q.GetPolicyByName(ctx, next.Name); err == nil {
				v.add("name", "there is a policy of this name already")
			} else if !store.IsNotFound(err) {
				return err
			}
		}
		if err := v.err(); err != nil {
			return err
		}
		names, err := groupNames(ctx, q)
		if err != nil {
			return err
		}
		if out.Changes, err = differences(row, next, named(old, names), named(groups, names)); err != nil {
			return err
		}
		p, err := policy.Parse([]byte(next.Body))
		if err != nil {
			return err
		}
		out.Warnings = p.Warnings()
		if out.ShutOut, err = d.previewShutOut(ctx, q, next, groups); err != nil {
			return err
		}
		if row.IsDefault {
			out.People, err = q.CountUsers(ctx)
			return err
		}
		for _, g := range groups {
			n, err := q.CountPeopleOfGroup(ctx, g)
			if err != nil {
				return err
			}
			out.People += n
		}
		return nil
	})
	return out, err
}

// changed is the next state of a policy with a change, and the ids of its groups; what
// is wrong with the change is collected.
func (v *faults) changed(ctx context.Context, q *db.Queries, row db.Policy, have []string, in rest.PolicyChange) (db.Policy, []string, error) {
	next := row
	if in.Name != nil {
		v.name("name", *in.Name)
		next.Name = *in.Name
	}
	v.priority(in.Priority)
	v.line("comment", in.Comment, maxLine)
	was, err := facts.Policy(row, nil)
	if err != nil {
		return next, nil, err
	}
	p := v.settings(was, in.Settings)
	v.whole(row, p)
	body, err := settingsOf(p)
	if err != nil {
		return next, nil, err
	}
	next.Body = string(body)
	if in.Priority != nil {
		if row.IsDefault {
			v.add("priority", "the default policy has none: it applies to whom no other does")
		}
		next.Priority = *in.Priority
	}
	groups := have
	if in.Groups != nil && v.count("groups", len(*in.Groups)) {
		if row.IsDefault && len(*in.Groups) > 0 {
			v.add("groups", "the default policy belongs to none: it applies to whom no other does")
		}
		if groups, err = v.groupIDs(ctx, q, "groups", *in.Groups); err != nil {
			return next, nil, err
		}
	}
	return next, groups, nil
}

// whole judges what only the policy as a whole can tell.
func (v *faults) whole(row db.Policy, p policy.Policy) {
	if row.IsDefault && p.ReportOnly {
		v.add("settings.report_only", "the default policy is always in force: it applies to whom no other does")
	}
}

// ComparePolicies compares two versions of a policy; 0 is the present one (P5).
func (d *Desk) ComparePolicies(ctx context.Context, a Actor, ref string, from, to int64) (rest.PolicyComparison, error) {
	out := rest.PolicyComparison{Changes: []rest.Difference{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		row, err := policyRow(ctx, q, ref)
		if err != nil {
			return err
		}
		names, err := groupNames(ctx, q)
		if err != nil {
			return err
		}
		all, err := groupsOf(ctx, q)
		if err != nil {
			return err
		}
		one := func(version int64) (db.Policy, []string, error) {
			if version == 0 || version == row.Version {
				return row, named(all[row.ID], names), nil
			}
			x, err := q.GetPolicyVersion(ctx, db.GetPolicyVersionParams{PolicyID: row.ID, Version: version})
			if store.IsNotFound(err) {
				return row, nil, fault.Newf(fault.NotFound, "Policy %q has no version %d in its history.", row.Name, version)
			} else if err != nil {
				return row, nil, err
			}
			groups, err := groupsIn(x)
			return rowOf(x), named(groups, names), err
		}
		x, gx, err := one(from)
		if err != nil {
			return err
		}
		y, gy, err := one(to)
		if err != nil {
			return err
		}
		out.Policy, out.From, out.To = row.Name, or64(from, row.Version), or64(to, row.Version)
		out.Changes, err = differences(x, y, gx, gy)
		return err
	})
	return out, err
}

func or64(n, otherwise int64) int64 {
	if n == 0 {
		return otherwise
	}
	return n
}

// maxReports bounds how many reports are counted.
const maxReports = 100_000

// PolicyReports tells what a policy that only reports would have done: how many
// sign-ins of each change since its last version, and those of the one that is asked
// for (empty: the gravest there is), the youngest first (P5).
func (d *Desk) PolicyReports(ctx context.Context, a Actor, ref, change, after string, limit int) (rest.PolicyReports, error) {
	out := rest.PolicyReports{Counts: []rest.ReportCount{}, Items: []rest.ReportItem{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	from, err := resume("reports", after, 2)
	if err != nil {
		return out, err
	}
	allowed := []string{string(policy.Same)}
	for _, c := range policy.Changes {
		allowed = append(allowed, string(c))
	}
	if change != "" && !slices.Contains(allowed, change) {
		var v faults
		v.word("change", change, allowed)
		return out, v.err()
	}
	beforeAt, beforeID := int64(math.MaxInt64), ""
	if from[0] != "" {
		if beforeAt, err = strconv.ParseInt(from[0], 10, 64); err != nil {
			return out, fault.New(fault.Invalid, err).With("after", "it is not a cursor of this list")
		}
		beforeID = from[1]
	}
	ask, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		row, err := policyRow(ctx, q, ref)
		if err != nil {
			return err
		}
		out.Policy, out.Version = row.Name, row.Version
		rows, err := q.CountPolicyReports(ctx, db.CountPolicyReportsParams{PolicyID: row.ID, Version: row.Version, N: maxReports})
		if err != nil {
			return err
		}
		counts := map[string]rest.ReportCount{}
		for _, r := range rows {
			counts[r.Change] = rest.ReportCount{Change: r.Change, Signins: r.N, People: r.Users}
			out.Signins += int(r.N)
		}
		for _, c := range append(slices.Clone(policy.Changes), policy.Same) {
			if n, ok := counts[string(c)]; ok {
				out.Counts = append(out.Counts, n)
			}
		}
		if change == "" && len(out.Counts) > 0 {
			change = out.Counts[0].Change
		}
		if change == "" {
			return nil
		}
		items, err := q.ListPolicyReports(ctx, db.ListPolicyReportsParams{PolicyID: row.ID, Change: change, BeforeAt: beforeAt, BeforeID: beforeID, N: ask})
		if err != nil {
			return err
		}
		if len(items) > show {
			items = items[:show]
			out.Next = cursor("reports", strconv.FormatInt(items[show-1].At, 10), items[show-1].EventID)
		}
		for _, r := range items {
			x := rest.ReportItem{
				Event: rest.EventPrefix + r.EventID, At: rest.Time(r.At), User: r.Subject, Machine: r.Machine, MachineID: rest.MachinePrefix + r.MachineID,
				Scope: r.Scope, Version: r.Version, Outcome: r.LiveOutcome, Reason: r.LiveReason, Would: r.Outcome, Change: r.Change,
			}
			if r.UserID != "" {
				x.UserID = rest.UserPrefix + r.UserID
			}
			out.Items = append(out.Items, x)
		}
		return nil
	})
	return out, err
}

// The bounds of named lists of events.
const (
	maxViews     = 100 // of one person, and of the shared ones
	maxViewQuery = 2000
)

// ListViews gives the named lists of events that the actor sees: their own and the
// shared ones.
func (d *Desk) ListViews(ctx context.Context, a Actor) (rest.Page[rest.View], error) {
	out := rest.Page[rest.View]{Items: []rest.View{}}
	if err := a.may(events); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.ListEventViews(ctx, a.Name)
		for _, r := range rows {
			out.Items = append(out.Items, viewOf(r))
		}
		return err
	})
	return out, err
}

func viewOf(r db.EventView) rest.View {
	return rest.View{ID: rest.ViewPrefix + r.ID, Name: r.Name, Query: r.Query, Shared: r.Owner == "", MadeBy: r.MadeBy}
}

// AddView gives a list of events a name. Shared ones need the right to change things.
func (d *Desk) AddView(ctx context.Context, a Actor, in rest.NewView) (rest.View, error) {
	var out rest.View
	need := events
	if in.Shared {
		need = change
	}
	if err := a.may(need); err != nil {
		return out, err
	}
	var v faults
	if err := text.ValidLine("name", in.Name, 64); in.Name == "" || err != nil {
		v.add("name", "it is empty, too long or has characters that are none of a line; allowed are 1 to 64 characters")
	}
	if err := text.ValidLine("query", in.Query, maxViewQuery); in.Query != "" && err != nil || strings.ContainsAny(in.Query, "#<>\"") {
		v.add("query", "it is no query of the list of events; allowed is what stands behind the ? of its address, up to %d octets", maxViewQuery)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	owner := a.Name
	if in.Shared {
		owner = ""
	}
	row := db.InsertEventViewParams{ID: store.NewID(), Owner: owner, Name: in.Name, Query: in.Query, MadeBy: a.Name, CreatedAt: d.now()}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.CountEventViews(ctx, owner)
		if err != nil {
			return err
		}
		if n >= maxViews {
			return fault.Newf(fault.Conflict, "There are %d such views already. Remove one first.", n)
		}
		return tx.InsertEventView(ctx, row)
	})
	if fault.Is(err, fault.Exists) {
		return out, fault.New(fault.Invalid, err).With("name", "there is a view of this name already")
	}
	return viewOf(db.EventView(row)), err
}

// RemoveView forgets a named list of events: one's own, or a shared one with the right
// to change things. Those of others do not exist.
func (d *Desk) RemoveView(ctx context.Context, a Actor, ref string) error {
	if err := a.may(events); err != nil {
		return err
	}
	id, ok := cut(rest.ViewPrefix, ref)
	if !ok {
		return missing("view", ref)
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.GetEventView(ctx, id)
		switch {
		case store.IsNotFound(err) || err == nil && row.Owner != "" && row.Owner != a.Name:
			return missing("view", ref)
		case err != nil:
			return err
		case row.Owner == "":
			if err := a.may(change); err != nil {
				return err
			}
		}
		_, err = tx.DeleteEventView(ctx, id)
		return err
	})
}
