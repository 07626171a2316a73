package touch_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/touch"
)

func TestThoseConcernedAreToldAndNobodyElse(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		change := func(fn func(tx *store.Tx) error) {
			t.Helper()
			if err := s.Update(ctx, func(ctx context.Context, tx *store.Tx) error { return fn(tx) }); err != nil {
				t.Fatal(err)
			}
		}
		change(func(tx *store.Tx) error {
			for i, id := range []string{"m1", "m2", "m3"} {
				if err := tx.InsertMachine(ctx, db.InsertMachineParams{ID: id, Number: int64(i + 1), Name: id, Status: "active", TPMInfo: "{}", AllUsers: true}); err != nil {
					return err
				}
			}
			if err := tx.InsertUser(ctx, db.InsertUserParams{ID: "u1", Name: "alice", NameFold: "alice"}); err != nil {
				return err
			}
			_, err := tx.AddMachineUser(ctx, db.AddMachineUserParams{MachineID: "m1", UserID: "u1"})
			return err
		})
		woken := map[string]<-chan struct{}{}
		for _, id := range []string{"m1", "m2", "m3"} {
			ch, cancel := s.Watch(id)
			defer cancel()
			woken[id] = ch
		}
		expect := func(what string, want map[string]int64, awake ...string) {
			t.Helper()
			for id, serial := range want {
				err := s.Read(ctx, func(q *store.Queries) error {
					m, err := q.GetMachine(ctx, id)
					if err == nil && m.Serial != serial {
						t.Errorf("%s: machine %s has serial %d, want %d", what, id, m.Serial, serial)
					}
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				should := slices.Contains(awake, id)
				told, wait := false, time.Millisecond
				if should {
					wait = 5 * time.Second
				}
				select {
				case <-woken[id]:
					told = true
				case <-time.After(wait):
				}
				// To be woken for nothing is allowed: it only says "look".
				if should && !told {
					t.Errorf("%s: machine %s was not woken", what, id)
				}
			}
		}
		change(func(tx *store.Tx) error { return touch.User(ctx, tx, "u1") })
		expect("assigned user", map[string]int64{"m1": 2, "m2": 1, "m3": 1}, "m1")
		now := clock.Real.Now()
		change(func(tx *store.Tx) error { return touch.Known(ctx, tx, "m2", "u1", now) })
		expect("first sign-in", map[string]int64{"m1": 2, "m2": 2, "m3": 1}, "m2")
		change(func(tx *store.Tx) error { return touch.Known(ctx, tx, "m2", "u1", now) })
		expect("second sign-in", map[string]int64{"m1": 2, "m2": 2, "m3": 1})
		change(func(tx *store.Tx) error { return touch.User(ctx, tx, "u1") })
		expect("user known on two machines", map[string]int64{"m1": 3, "m2": 3, "m3": 1}, "m1", "m2")
		change(func(tx *store.Tx) error { return touch.Machine(ctx, tx, "m3") })
		expect("one machine", map[string]int64{"m1": 3, "m2": 3, "m3": 2}, "m3")
		change(func(tx *store.Tx) error { return touch.All(ctx, tx) })
		expect("all", map[string]int64{"m1": 4, "m2": 4, "m3": 3}, "m1", "m2", "m3")
	})
}
