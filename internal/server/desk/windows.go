package desk

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
)

// ListWindows gives the open windows of a user, a machine, both or all, those that end
// first at the beginning.
func (d *Desk) ListWindows(ctx context.Context, a Actor, userRef, machineRef, after string, limit int) (rest.Page[rest.Window], error) {
	out := rest.Page[rest.Window]{Items: []rest.Window{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	from, err := resume("windows", after, 2)
	if err != nil {
		return out, err
	}
	ends := int64(0)
	if from[0] != "" {
		if ends, err = strconv.ParseInt(from[0], 10, 64); err != nil {
			return out, fault.New(fault.Invalid, err).With("after", "it is not a cursor of this list")
		}
	}
	ask, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		userID, machineID, err := pair(ctx, q, userRef, machineRef)
		if err != nil {
			return err
		}
		rows, err := q.FindWindows(ctx, db.WindowFilter{UserID: userID, MachineID: machineID, At: d.now(), AfterExpires: ends, AfterID: from[1], N: ask})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			last := rows[show-1].Window
			out.Next = cursor("windows", strconv.FormatInt(last.ExpiresAt, 10), last.ID)
		}
		for _, r := range rows {
			w := rest.Window{
				ID: rest.WindowPrefix + r.Window.ID, User: r.UserName, UserID: rest.UserPrefix + r.Window.UserID,
				Machine: r.MachineName, MachineID: rest.MachinePrefix + r.Window.MachineID,
				OpenedAt: rest.Time(r.Window.OpenedAt), ExpiresAt: rest.Time(r.Window.ExpiresAt), Factors: []string{},
			}
			if err := json.Unmarshal([]byte(r.Window.Factors), &w.Factors); err != nil {
				return fmt.Errorf("window %s: factors: %w", r.Window.ID, err)
			}
			out.Items = append(out.Items, w)
		}
		return nil
	})
	return out, err
}

// pair resolves an optional user and an optional machine.
func pair(ctx context.Context, q *db.Queries, userRef, machineRef string) (userID, machineID string, err error) {
	if userRef != "" {
		u, err := user(ctx, q, userRef)
		if err != nil {
			return "", "", err
		}
		userID = u.ID
	}
	if machineRef != "" {
		m, err := machine(ctx, q, machineRef)
		if err != nil {
			return "", "", err
		}
		machineID = m.ID
	}
	return userID, machineID, nil
}

// chosen refuses a choice that says nothing, or two things.
func chosen(in rest.Pairs) error {
	var v faults
	switch {
	case in.All && (in.User != "" || in.Machine != "" || len(in.Pairs) > 0):
		v.add("all", "it stands beside a user, machine or pairs; allowed is one or the other")
	case len(in.Pairs) > 0 && (in.User != "" || in.Machine != ""):
		v.add("pairs", "they stand beside a user or machine; allowed is one or the other")
	case !in.All && in.User == "" && in.Machine == "" && len(in.Pairs) == 0:
		v.add("user", "nobody is named; allowed are a user, a machine, both, pairs, or all")
	}
	if v.count("pairs", len(in.Pairs)) {
		for i, p := range in.Pairs {
			if p.User == "" || p.Machine == "" {
				v.add(fmt.Sprintf("pairs[%d]", i), "it lacks the user or the machine; both are needed")
			}
		}
	}
	return v.err()
}

// eachPair resolves what was chosen and calls fn for each user and machine; an empty
// id is any.
func eachPair(ctx context.Context, q *db.Queries, in rest.Pairs, fn func(userID, machineID string) error) error {
	if len(in.Pairs) == 0 {
		in.Pairs = []rest.Pair{{User: in.User, Machine: in.Machine}}
	}
	for _, p := range in.Pairs {
		userID, machineID, err := pair(ctx, q, p.User, p.Machine)
		if err != nil {
			return err
		}
		if err := fn(userID, machineID); err != nil {
			return err
		}
	}
	return nil
}

// RevokeWindows ends windows at once: the second factor is asked for again (W7).
func (d *Desk) RevokeWindows(ctx context.Context, a Actor, in rest.Pairs) (rest.Done, error) {
	var out rest.Done
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	if err := chosen(in); err != nil {
		return out, err
	}
	if in.All {
		if err := a.may(change); err != nil {
			return out, err
		}
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		var ended []db.EndWindowsRow
		err := eachPair(ctx, tx.Queries, in, func(userID, machineID string) error {
			rows, err := d.endWindows(ctx, tx, a, userID, machineID, "revoked")
			ended = append(ended, rows...)
			return err
		})
		out = rest.Done{Count: len(ended), Machines: ids(rest.MachinePrefix, machinesOf(ended))}
		return err
	})
	return out, err
}

// endWindows ends the open windows of a user, a machine, both or (both empty) all,
// writes their events and tells the machines.
func (d *Desk) endWindows(ctx context.Context, tx *store.Tx, a Actor, userID, machineID, reason string) ([]db.EndWindowsRow, error) {
	return ending.Windows(ctx, tx, d.cause(a, reason), userID, machineID)
}

// cause is the actor as the one who ends something.
func (d *Desk) cause(a Actor, reason string) ending.Cause {
	return ending.Cause{By: a.Name, Address: a.Address, Reason: reason, At: d.Clock.Now()}
}

func machinesOf(rows []db.EndWindowsRow) []string {
	var out []string
	for _, r := range rows {
		out = append(out, r.MachineID)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func ids(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = prefix + s
	}
	return out
}

// RevokeWindow ends one window.
func (d *Desk) RevokeWindow(ctx context.Context, a Actor, ref string) error {
	if err := a.may(helpDesk); err != nil {
		return err
	}
	id, ok := cut(rest.WindowPrefix, ref)
	if !ok {
		return missing("window", ref)
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		w, err := tx.GetWindow(ctx, id)
		if store.IsNotFound(err) {
			return missing("window", ref)
		} else if err != nil {
			return err
		}
		n, err := tx.EndWindow(ctx, db.EndWindowParams{At: d.now(), Reason: "revoked", ID: id})
		if err != nil {
			return err
		}
		if n == 0 {
			return fault.Newf(fault.Conflict, "The window has ended already.")
		}
		e := event.Event{Type: event.WindowEnded, UserID: w.UserID, MachineID: w.MachineID, Reason: "revoked"}
		if err := note(tx, a, e, map[string]any{"window": ref}); err != nil {
			return err
		}
		return touch.Machine(ctx, tx, w.MachineID)
	})
}
