package db

import (
	"context"
	"slices"
	"strings"
)

// pairMost is how many pairs one query asks for.
const pairMost = 256

// eachPair asks for at most so many pairs at a time. with makes a table "pair" of them,
// whose size is rounded up, so that there are few texts of a query.
func eachPair[T any](pairs []Pair, ask func(with string, args []any) ([]T, error)) ([]T, error) {
	out := []T{}
	for part := range slices.Chunk(pairs, pairMost) {
		n := 1
		for n < len(part) {
			n *= 4
		}
		var c clauses
		marks := make([]string, n)
		for i := range marks {
			p := part[min(i, len(part)-1)]
			marks[i] = "(" + c.arg(p.MachineID) + ", " + c.arg(p.UserID) + ")"
		}
		// DISTINCT: what the number is rounded up with counts once.
		rows, err := ask("WITH given(machine_id, user_id) AS (VALUES "+strings.Join(marks, ", ")+"), pair AS (SELECT DISTINCT machine_id, user_id FROM given) ", c.args)
		if err != nil {
			return nil, err
		}
		out = append(out, rows...)
	}
	return out, nil
}

// ActiveVaultsOf gives the active offline data of these pairs, of each pair the youngest
// generation first.
func (q *Queries) ActiveVaultsOf(ctx context.Context, pairs []Pair) ([]Vault, error) {
	return eachPair(pairs, func(with string, args []any) ([]Vault, error) {
		rows, err := q.db.QueryContext(ctx, with+"SELECT "+columns(getActiveVault, "v")+
			" FROM pair p JOIN vaults v ON v.user_id = p.user_id AND v.machine_id = p.machine_id WHERE v.state = 'active' ORDER BY v.user_id, v.machine_id, v.generation DESC", args...)
		return all(rows, err, plain[Vault])
	})
}

// LocksOf gives the lock-outs of these pairs at the time.
func (q *Queries) LocksOf(ctx context.Context, pairs []Pair, at int64) ([]Attempt, error) {
	return eachPair(pairs, func(with string, args []any) ([]Attempt, error) {
		c := clauses{args: args}
		rows, err := q.db.QueryContext(ctx, with+"SELECT "+columns(getAttempt, "a")+
			" FROM pair p JOIN attempts a ON a.user_id = p.user_id AND a.machine_id = p.machine_id WHERE a.locked_until > "+c.arg(at)+" ORDER BY a.user_id, a.machine_id", c.args...)
		return all(rows, err, plain[Attempt])
	})
}

// KnownOf gives those of the pairs whose machine knows the user: see MachineKnowsUser.
func (q *Queries) KnownOf(ctx context.Context, pairs []Pair) ([]Pair, error) {
	return eachPair(pairs, func(with string, args []any) ([]Pair, error) {
		rows, err := q.db.QueryContext(ctx, with+"SELECT p.machine_id, p.user_id FROM pair p WHERE EXISTS (SELECT 1 FROM users u WHERE u.id = p.user_id) AND ("+
			"EXISTS (SELECT 1 FROM machine_users a WHERE a.machine_id = p.machine_id AND a.user_id = p.user_id)"+
			" OR EXISTS (SELECT 1 FROM machine_known k WHERE k.machine_id = p.machine_id AND k.user_id = p.user_id)"+
			" OR EXISTS (SELECT 1 FROM vaults v WHERE v.machine_id = p.machine_id AND v.user_id = p.user_id)) ORDER BY p.machine_id, p.user_id", args...)
		return all(rows, err, func(p *Pair) []any { return []any{&p.MachineID, &p.UserID} })
	})
}
