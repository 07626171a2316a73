package desk_test

import (
	"context"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

func TestO16TheDashboardCountsWhatTheListsHold(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		if _, err := r.Dashboard(ctx, desk.Actor{Name: "anna", Role: rest.RoleNone}); !fault.Is(err, fault.Forbidden) {
			t.Fatalf("somebody without a role: %v", err)
		}
		anna, err := r.AddUser(ctx, root, rest.NewUser{Name: "anna"})
		must(t, err)
		m := r.Machine(t, "laptop", rest.MachineActive)
		r.Machine(t, "new", rest.MachinePending)
		happen := func(typ event.Type, ago time.Duration) {
			t.Helper()
			must(t, r.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
				_, err := tx.Event(event.Event{Type: typ, Subject: "anna", At: clock.Micros(c.Now().Add(-ago))})
				return err
			}))
		}
		happen(event.SigninAllowed, time.Minute)
		happen(event.SigninAllowed, 30*time.Hour)
		happen(event.SigninAllowed, 8*24*time.Hour)
		happen(event.SigninDenied, 2*time.Hour)
		happen(event.FactorRejected, 2*time.Hour)
		happen(event.FactorAccepted, time.Minute)
		must(t, r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.KnowUser(ctx, db.KnowUserParams{MachineID: m.ID, UserID: anna.ID[4:], Since: 1}); err != nil {
				return err
			}
			if _, err := tx.CountAttempt(ctx, db.CountAttemptParams{UserID: anna.ID[4:], At: 1}); err != nil {
				return err
			}
			_, err := tx.BlockAttempts(ctx, db.BlockAttemptsParams{UserID: anna.ID[4:], LockedUntil: clock.Micros(c.Now().Add(time.Hour))})
			return err
		}))
		must(t, r.CountFigures(ctx))
		d, err := r.Dashboard(ctx, root)
		must(t, err)
		if want := (rest.Activity{Allowed: 1, Denied: 1, Prompts: 2, Wrong: 1}); d.Day != want {
			t.Errorf("the day: %+v", d.Day)
		}
		if want := (rest.Activity{Allowed: 2, Denied: 1, Prompts: 2, Wrong: 1}); d.Week != want {
			t.Errorf("the week: %+v", d.Week)
		}
		if len(d.Hours) != 168 || !d.Hours[167].At.Before(c.Now().Add(time.Nanosecond)) {
			t.Errorf("%d hours", len(d.Hours))
		}
		if d.Users != 1 || d.Locked != 1 || d.Machines != 1 || d.Pending != 1 || d.Silent != 0 || d.Outdated != 0 {
			t.Errorf("%+v", d)
		}
		if d.Stuck.Count != 1 || len(d.Stuck.Reasons) != 1 || d.Stuck.Reasons[0].Count != 1 || d.Stuck.Reasons[0].Why == "" {
			t.Errorf("stuck: %+v", d.Stuck)
		}
		if len(d.Log) == 0 || d.Log[0].Broken != 0 || !d.Log[0].Done || d.Log[0].Seq == 0 {
			t.Errorf("the log: %+v", d.Log)
		}

		// What came since is seen when it is counted again, also late from machines that were
		// offline; what the settings say counts at once.
		happen(event.SigninAllowed, 50*time.Hour)
		happen(event.BreakGlass, 2*time.Minute)
		minimum := "2.0"
		_, err = r.ChangeSettings(ctx, root, rest.SettingsChange{MinAgent: &minimum})
		must(t, err)
		c.Advance(time.Minute)
		must(t, r.CountFigures(ctx))
		d, err = r.Dashboard(ctx, root)
		must(t, err)
		if d.Week.Allowed != 2 || d.Week.Glass != 1 || d.Outdated != 1 {
			t.Errorf("a minute later: %+v, %d outdated", d.Week, d.Outdated)
		}
		c.Advance(2 * time.Hour)
		d, err = r.Dashboard(ctx, root) // the job has not come: the request counts
		must(t, err)
		if d.Week.Allowed != 3 || d.Silent != 1 || d.Locked != 0 {
			t.Errorf("two hours later: %+v, %d silent, %d locked", d.Week, d.Silent, d.Locked)
		}
	})
}
