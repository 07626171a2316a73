package facts

import (
	"context"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/store/db"
)

// Users gathers the facts about many accounts, without lock-outs, with a number of
// queries that does not grow with theirs: what User gathers for one. at says when.
func Users(ctx context.Context, q *db.Queries, rows []db.User, at time.Time) (map[string]*policy.User, error) {
	out := make(map[string]*policy.User, len(rows))
	ids := make([]string, len(rows))
	for i, u := range rows {
		ids[i] = u.ID
		f := &policy.User{
			ID: u.ID, Name: u.Name, Disabled: u.Disabled, NotYet: NotYet(u, at), MustChange: u.MustChange, Generation: u.PasswordGeneration,
		}
		var err error
		if f.MFA, err = toggle(u.MFA); err != nil {
			return nil, fmt.Errorf("user %s: %w", u.ID, err)
		}
		out[u.ID] = f
	}
	groups, err := q.GroupsOfUsers(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("groups of users: %w", err)
	}
	for _, g := range groups {
		s, err := toggle(g.MFA)
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", g.ID, err)
		}
		u := out[g.UserID]
		u.Groups = append(u.Groups, policy.Group{ID: g.ID, Name: g.Name, MFA: s})
	}
	have, err := q.FactorsOfUsers(ctx, ids, clock.Micros(at))
	if err != nil {
		return nil, fmt.Errorf("factors of users: %w", err)
	}
	for _, f := range have {
		u := out[f.UserID]
		if kind := policy.Factor(f.Kind); (f.Confirmed || kind == policy.TOTP) && !slices.Contains(u.Factors, kind) {
			u.Factors = append(u.Factors, kind)
		}
	}
	locked, err := q.PushLockedOf(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("locks of push: %w", err)
	}
	for _, id := range locked {
		u := out[id]
		u.Factors = slices.DeleteFunc(u.Factors, func(f policy.Factor) bool { return f == policy.Push })
	}
	for _, u := range out {
		strongestFirst(u.Factors)
	}
	return out, nil
}

// strongestFirst orders kinds as policy does, an administrator's word last.
func strongestFirst(fs []policy.Factor) {
	place := func(f policy.Factor) int {
		if i := slices.Index(policy.Kinds, f); i >= 0 {
			return i
		}
		return len(policy.Kinds)
	}
	slices.SortStableFunc(fs, func(a, b policy.Factor) int { return place(a) - place(b) })
}

// Pair is a user on a machine, and the facts about a sign-in there.
type Pair struct {
	Machine db.Machine
	User    db.User
	Request policy.Request
	Facts   policy.Facts
}

// Offline gathers for each pair what Gather does for one: a sign-in at the seat while
// the server is not reachable. The number of queries does not grow with that of pairs.
func Offline(ctx context.Context, q *db.Queries, pairs []db.Pair, at time.Time) ([]Pair, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	var userIDs, machineIDs []string
	for _, p := range pairs {
		userIDs, machineIDs = append(userIDs, p.UserID), append(machineIDs, p.MachineID)
	}
	userIDs, machineIDs = distinct(userIDs), distinct(machineIDs)
	ps, err := Policies(ctx, q)
	if err != nil {
		return nil, err
	}
	rows, err := q.UsersOf(ctx, userIDs)
	if err != nil {
		return nil, fmt.Errorf("find users: %w", err)
	}
	known, err := Users(ctx, q, rows, at)
	if err != nil {
		return nil, err
	}
	users := map[string]db.User{}
	for _, u := range rows {
		users[u.ID] = u
	}
	list, err := q.MachinesOf(ctx, machineIDs)
	if err != nil {
		return nil, fmt.Errorf("find machines: %w", err)
	}
	machines := map[string]db.Machine{}
	for _, m := range list {
		machines[m.ID] = m
	}
	type key struct{ user, machine string }
	vaults := map[key]db.Vault{}
	held, err := q.ActiveVaultsOf(ctx, pairs)
	if err != nil {
		return nil, fmt.Errorf("offline data: %w", err)
	}
	for _, v := range held { // the youngest generation comes first
		if _, ok := vaults[key{v.UserID, v.MachineID}]; !ok {
			vaults[key{v.UserID, v.MachineID}] = v
		}
	}
	locked := map[key]int64{}
	locks, err := q.LocksOf(ctx, pairs, clock.Micros(at))
	if err != nil {
		return nil, fmt.Errorf("lock-outs: %w", err)
	}
	for _, a := range locks {
		locked[key{a.UserID, a.MachineID}] = a.LockedUntil
	}
	out := make([]Pair, 0, len(pairs))
	for _, p := range pairs {
		row, ok := users[p.UserID]
		m, there := machines[p.MachineID]
		if !ok || !there {
			continue // gone in the meantime
		}
		u := *known[p.UserID]
		k := key{p.UserID, p.MachineID}
		if until := locked[k]; until > 0 {
			u.LockedUntil = clock.FromMicros(until)
		}
		x := Pair{
			Machine: m, User: row,
			Request: policy.Request{User: row.Name, Scope: policy.Logon, At: at, Link: policy.LinkDown, Boot: m.Boot},
			Facts:   policy.Facts{Machine: Machine(m), Policies: ps, User: &u, Assigned: m.AllUsers || p.Assigned},
		}
		if v, ok := vaults[k]; ok {
			x.Facts.Vault, x.Facts.VaultProblem = vaultOf(v, u, ps)
		}
		trouble(m, &x.Facts)
		out = append(out, x)
	}
	return out, nil
}

func distinct(ids []string) []string {
	slices.Sort(ids)
	return slices.Compact(ids)
}
