package desk

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
)

// The states of a row of the offline report. Those of the tables (activating,
// active, retired) are refined by what makes the data useless although it is there.
const (
	offlineActive       = "active"
	offlineExpired      = "expired"       // the days are used up
	offlineUsedUp       = "used up"       // the sign-ins are used up, as far as the machine has told
	offlineShut         = "shut"          // so are the tries, or the TPM's checks
	offlineShutRemote   = "shut remotely" // tries from afar are used up, and at the machine itself some are left
	offlineOutdated     = "outdated"      // password or authenticators have changed since
	offlineDisenrolling = "disenrolling"  // the machine wipes it at its next contact
)

// OfflineFilter chooses offline data; what is empty means any.
type OfflineFilter struct {
	User    string // name or id
	Machine string // name, number or id
	Class   string // tpm or software
	Sort    string // user (in order of their creation) or until, with "-" the other way round
}

// ListOffline is the offline enrolment report (O14, O16): whose data lies on which
// machine, and how long it lasts.
func (d *Desk) ListOffline(ctx context.Context, a Actor, f OfflineFilter, after string, limit int) (rest.Page[rest.OfflineEntry], error) {
	out := rest.Page[rest.OfflineEntry]{Items: []rest.OfflineEntry{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	var v faults
	if f.Class != "" {
		v.word("class", f.Class, []string{"tpm", "software"})
	}
	order, kind := v.order("offline", f.Sort, "user", "until")
	if err := v.err(); err != nil {
		return out, err
	}
	from, err := resume(kind, after, 4)
	if err != nil {
		return out, err
	}
	generation, err := cursorNumber(from[2])
	if err != nil {
		return out, err
	}
	until, err := cursorNumber(from[3])
	if err != nil {
		return out, err
	}
	ask, show := page(limit)
	now := d.Clock.Now()
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		userID, machineID, err := pair(ctx, q, f.User, f.Machine)
		if err != nil {
			return err
		}
		rows, err := q.FindVaults(ctx, db.VaultFilter{
			AfterUser: from[0], AfterMachine: from[1], AfterGeneration: generation, Order: order, AfterUntil: until, UserID: userID, MachineID: machineID, Class: f.Class, N: ask,
		})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			last := rows[show-1].Vault
			out.Next = cursor(kind, last.UserID, last.MachineID, strconv.FormatInt(last.Generation, 10), strconv.FormatInt(last.ExpiresAt, 10))
		}
		policies, err := policiesOf(ctx, q, rows, now)
		if err != nil {
			return err
		}
		for _, r := range rows {
			out.Items = append(out.Items, offlineOf(r, policies[r.Vault.UserID], now))
		}
		return nil
	})
	return out, err
}

// policiesOf is the policy that applies to each user of these rows.
func policiesOf(ctx context.Context, q *db.Queries, rows []db.VaultRow, now time.Time) (map[string]*policy.Policy, error) {
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.Vault.UserID)
	}
	slices.Sort(ids)
	users, err := q.UsersOf(ctx, slices.Compact(ids))
	if err != nil {
		return nil, err
	}
	known, err := facts.Users(ctx, q, users, now)
	if err != nil {
		return nil, err
	}
	ps, err := facts.Policies(ctx, q)
	if err != nil {
		return nil, err
	}
	out := map[string]*policy.Policy{}
	for id, u := range known {
		out[id], _ = policy.Choose(u, ps)
	}
	return out, nil
}

func offlineOf(r db.VaultRow, p *policy.Policy, now time.Time) rest.OfflineEntry {
	v := r.Vault
	left := facts.LeftOf(v, p)
	until := rest.Time(v.ExpiresAt)
	e := rest.OfflineEntry{
		User: r.UserName, UserID: rest.UserPrefix + v.UserID, Machine: r.MachineName, MachineID: rest.MachinePrefix + v.MachineID,
		Generation: v.Generation, Class: v.Class, State: v.State, EnrolledAt: rest.Time(v.EnrolledAt), SyncedAt: rest.Time(v.SyncedAt),
		LastMFAAt: rest.Time(v.LastMFAAt), Until: until, SigninsLeft: int64(left.Signins), TriesLeft: int64(left.Tries), SeenAt: rest.Time(r.MachineSeenAt), LiftWanted: v.LiftWanted,
	}
	if span := until.Sub(now); v.ExpiresAt > 0 && span > 0 {
		e.DaysLeft = math.Floor(span.Hours()/24*10) / 10
	}
	switch {
	case v.DisenrolWanted:
		e.State = offlineDisenrolling
	case v.State != offlineActive:
	case v.PasswordGeneration != r.UserGeneration:
		e.State = offlineOutdated
	case clock.Micros(now) >= v.ExpiresAt:
		e.State = offlineExpired
	case left.Signins <= 0:
		e.State = offlineUsedUp
	case left.Tries <= 0 || v.Shut == facts.ReasonChecks:
		e.State = offlineShut
	case left.Remote <= 0:
		e.State = offlineShutRemote
	}
	return e
}

// Disenrol wipes offline data: of a user, of a machine, of one pair or all. A
// machine that is connected does it at once, others at their next contact (O14).
func (d *Desk) Disenrol(ctx context.Context, a Actor, in rest.Pairs) (rest.Done, error) {
	var out rest.Done
	if err := a.may(change); err != nil {
		return out, err
	}
	if err := chosen(in); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		var vs []vault
		err := eachPair(ctx, tx.Queries, in, func(userID, machineID string) error {
			rows, err := tx.WantDisenrol(ctx, db.WantDisenrolParams{At: d.now(), UserID: userID, MachineID: machineID})
			for _, r := range rows {
				vs = append(vs, vault{r.UserID, r.MachineID, r.Generation})
			}
			return err
		})
		if err != nil {
			return err
		}
		out, err = d.tellVaults(ctx, tx, a, event.VaultDisenroled, vs)
		return err
	})
	return out, err
}

// Lift asks machines to have the counters of offline data lifted by the server, for
// somebody who is shut out after too many wrong tries (O6). Where nobody is named, the
// data of whoever the actor does not stand over is left out (E3) and counted.
func (d *Desk) Lift(ctx context.Context, a Actor, in rest.Pairs) (rest.Done, error) {
	var out rest.Done
	if err := a.may(change); err != nil {
		return out, err
	}
	if err := chosen(in); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		var vs []vault
		left := 0
		err := eachPair(ctx, tx.Queries, in, func(userID, machineID string) error {
			spared := int64(len(rest.Roles))
			if userID != "" {
				u, err := tx.GetUser(ctx, userID)
				if err != nil {
					return err
				}
				if err := a.over(u.Name, u.ID, u.Role); err != nil {
					return err
				}
			} else {
				spared = a.standsUnder()
				n, err := tx.CountLiftsSpared(ctx, db.CountLiftsSparedParams{Spared: spared, MachineID: machineID})
				if err != nil {
					return err
				}
				left += int(n)
			}
			rows, err := tx.WantLifts(ctx, db.WantLiftsParams{At: d.now(), UserID: userID, MachineID: machineID, Spared: spared})
			for _, r := range rows {
				vs = append(vs, vault{r.UserID, r.MachineID, r.Generation})
			}
			return err
		})
		if err != nil {
			return err
		}
		out, err = d.tellVaults(ctx, tx, a, event.VaultLiftWanted, vs)
		out.LeftOut = left
		return err
	})
	return out, err
}

type vault struct {
	user, machine string
	generation    int64
}

// tellVaults writes one event for each (user, machine) and tells the machines.
func (d *Desk) tellVaults(ctx context.Context, tx *store.Tx, a Actor, t event.Type, vs []vault) (rest.Done, error) {
	var out rest.Done
	slices.SortFunc(vs, func(x, y vault) int {
		return cmp.Or(strings.Compare(x.user, y.user), strings.Compare(x.machine, y.machine))
	})
	vs = slices.CompactFunc(vs, func(x, y vault) bool { return x.user == y.user && x.machine == y.machine })
	var userIDs, machines []string
	for _, v := range vs {
		userIDs, machines = append(userIDs, v.user), append(machines, v.machine)
	}
	names := map[string]string{}
	users, err := tx.UsersOf(ctx, userIDs)
	if err != nil {
		return out, err
	}
	for _, u := range users {
		names[u.ID] = u.Name
	}
	list, err := tx.MachinesOf(ctx, machines)
	if err != nil {
		return out, err
	}
	for _, m := range list {
		names[m.ID] = m.Name
	}
	for _, v := range vs {
		e := event.Event{Type: t, Subject: names[v.user], UserID: v.user, MachineID: v.machine, Machine: names[v.machine]}
		if err := note(tx, a, e, nil); err != nil {
			return out, err
		}
	}
	slices.Sort(machines)
	machines = slices.Compact(machines)
	out = rest.Done{Count: len(vs), Machines: ids(rest.MachinePrefix, machines)}
	if len(machines) == 0 {
		return out, nil
	}
	return out, touch.Machine(ctx, tx, machines...)
}
