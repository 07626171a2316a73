package touch_test

import (
	"context"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/touch"
)

// A user is disabled at one replica while, at another, a machine is about to learn of
// the user: whoever is second sees the first, so that the machine is not left with
// what was before.
func TestAMachineThatLearnsOfAUserMissesNoChangeOfAnotherReplica(t *testing.T) {
	database := storetest.PostgreSQL(t)
	a := storetest.Open(t, store.Config{Database: database, Replica: "a"})
	b := storetest.Open(t, store.Config{Database: database, Replica: "b"})
	err := a.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertUser(ctx, db.InsertUserParams{ID: "u1", Name: "alice", NameFold: "alice"}); err != nil {
			return err
		}
		return tx.InsertMachine(ctx, db.InsertMachineParams{ID: "m1", Number: 1, Name: "m1", Status: "active", TPMInfo: "{}", AllUsers: true})
	})
	if err != nil {
		t.Fatal(err)
	}
	known := make(chan error, 1)
	err = a.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.RaiseUserGeneration(ctx, "u1"); err != nil {
			return err
		}
		if err := touch.User(ctx, tx, "u1"); err != nil { // m1 does not know the user
			return err
		}
		go func() {
			known <- b.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx *store.Tx) error {
				return touch.Known(ctx, tx, "m1", "u1", clock.Real.Now())
			})
		}()
		select {
		case err := <-known:
			t.Errorf("the machine learnt of the user as it was before, and nobody tells it: %v", err)
			known <- err
		case <-time.After(500 * time.Millisecond):
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-known; err != nil {
		t.Fatal(err)
	}
	err = b.Read(t.Context(), func(q *store.Queries) error {
		m, err := q.GetMachine(t.Context(), "m1")
		if err == nil && m.Serial != 2 {
			t.Errorf("serial %d: the machine was not told", m.Serial)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
