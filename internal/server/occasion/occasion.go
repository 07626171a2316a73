// Package occasion ends MFA windows early on the occasions that a policy names:
// log-off, reboot, change of network, an offline sign-in. Row W6. A window that no
// policy ends stays: for silence it does not outlive the boot anyway (W5), for the
// connection it may (W2).
package occasion

import (
	"context"
	"fmt"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/window"
)

// What happened on a machine.
type What struct {
	Kind   policy.WindowEnd
	UserID string // whose windows; empty: everybody's on the machine
	Boot   string // with reboot: windows of this boot stay
}

// Valid tells whether the kind is one that a machine may report.
func Valid(k policy.WindowEnd) bool {
	switch k {
	case policy.EndLogoff, policy.EndReboot, policy.EndNetwork, policy.EndOffline:
		return true
	}
	return false
}

// Report ends the windows on the machine that the occasion ends, each with its
// event, and tells how many.
func Report(ctx context.Context, tx *store.Tx, m db.Machine, w What, now time.Time) (ended int, err error) {
	at := clock.Micros(now)
	var ps []policy.Policy
	for after := ""; ; {
		rows, err := tx.ListWindowsOfMachine(ctx, db.ListWindowsOfMachineParams{MachineID: m.ID, At: at, After: after, N: 100})
		if err != nil {
			return ended, fmt.Errorf("windows of a machine: %w", err)
		}
		if len(rows) == 0 {
			return ended, nil
		}
		if ps == nil {
			if ps, err = facts.Policies(ctx, tx.Queries); err != nil {
				return ended, err
			}
		}
		for _, r := range rows {
			after = r.ID
			if w.UserID != "" && r.UserID != w.UserID || w.Kind == policy.EndReboot && r.Boot == w.Boot {
				continue
			}
			u, err := tx.GetUser(ctx, r.UserID)
			if err != nil {
				return ended, err
			}
			f, err := facts.User(ctx, tx.Queries, u, facts.At{Now: now})
			if err != nil {
				return ended, err
			}
			p, _ := policy.Choose(&f, ps)
			if p == nil || !window.Ends(*p, w.Kind) {
				continue
			}
			n, err := tx.EndWindow(ctx, db.EndWindowParams{ID: r.ID, At: at, Reason: string(w.Kind)})
			if err != nil {
				return ended, err
			}
			if n == 0 {
				continue
			}
			ended++
			_, err = tx.Event(event.Event{
				Type: event.WindowEnded, Subject: u.Name, UserID: u.ID, MachineID: m.ID, Machine: m.Name, Reason: string(w.Kind),
			})
			if err != nil {
				return ended, err
			}
		}
	}
}
