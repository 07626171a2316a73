package desk

import (
	"context"
	"fmt"
	"math"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// asked is what is asked of somebody who has a role: the policy that applies to them,
// and whether 2FA is on.
type asked struct {
	user   db.User
	policy *policy.Policy
	on     bool
}

// askedOf gives what is asked of everybody whom the actor does not stand over, which
// are few: most people have no role.
func (d *Desk) askedOf(ctx context.Context, q *db.Queries, a Actor) ([]asked, error) {
	var users []db.User
	for _, role := range rest.Roles[a.standsUnder():] {
		rows, err := q.FindUsers(ctx, db.UserFilter{Role: role, At: d.now(), N: math.MaxInt32})
		if err != nil {
			return nil, err
		}
		users = append(users, rows...)
	}
	if len(users) == 0 {
		return nil, nil
	}
	known, err := facts.Users(ctx, q, users, d.Clock.Now())
	if err != nil {
		return nil, err
	}
	ps, err := facts.Policies(ctx, q)
	if err != nil {
		return nil, err
	}
	out := make([]asked, len(users))
	for i, u := range users {
		p, _ := policy.Choose(known[u.ID], ps)
		on, _ := policy.TwoFactor(*known[u.ID])
		out[i] = asked{u, p, on}
	}
	return out, nil
}

// maxWeakened is how many people an event or a refusal names.
const maxWeakened = 20

// weakens runs a change of policies or groups and says of whom it asks less than
// before, and in what. Whoever is no owner may do that to nobody of the same or a
// higher role, nor to themself (E3): the change is refused, and nothing is written.
func (d *Desk) weakens(ctx context.Context, tx *store.Tx, a Actor, do func() error) ([]string, error) {
	before, err := d.askedOf(ctx, tx.Queries, a)
	if err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	after, err := d.askedOf(ctx, tx.Queries, a)
	if err != nil {
		return nil, err
	}
	now := map[string]asked{}
	for _, x := range after {
		now[x.user.ID] = x
	}
	var list []string
	n := 0
	for _, was := range before {
		is, ok := now[was.user.ID]
		if !ok {
			continue
		}
		var less []string
		if was.on && !is.on {
			less = append(less, "mfa")
		}
		switch {
		case is.policy == nil: // denied
		case was.policy == nil:
			less = append(less, "policy")
		default:
			less = append(less, policy.Weaker(*was.policy, *is.policy)...)
		}
		if len(less) == 0 {
			continue
		}
		if n++; n <= maxWeakened {
			list = append(list, fmt.Sprintf("%s (%s): %s", was.user.Name, was.user.Role, strings.Join(less, ", ")))
		}
	}
	if n > maxWeakened {
		list = append(list, fmt.Sprintf("and %d others", n-maxWeakened))
	}
	if n > 0 && (a.Role != rest.RoleOwner || a.bounded("", rest.RoleOwner) != nil) {
		return nil, fault.Newf(fault.Forbidden, "This would ask less of people with your role or a higher one: %s. Ask an owner to do it, or give those whom you mean a group and a policy of their own.", strings.Join(list, "; "))
	}
	return list, nil
}

// alarm adds to an event's data whom the change weakens.
func alarm(data map[string]any, weakens []string) map[string]any {
	if len(weakens) > 0 {
		data["weakens"], data["severity"] = weakens, alert
	}
	return data
}
