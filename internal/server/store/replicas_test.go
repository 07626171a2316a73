package store_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

func woken(t *testing.T, ch <-chan struct{}, who string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(10 * time.Second):
		t.Errorf("%s was not woken", who)
	}
}

func asleep(t *testing.T, ch <-chan struct{}, who string) {
	t.Helper()
	select {
	case <-ch:
		t.Errorf("%s was woken", who)
	case <-time.After(50 * time.Millisecond):
	}
}

// hearing waits until n stores on the database listen, and have said "everybody
// look" as they do when they begin.
func hearing(t *testing.T, database string, n int) {
	t.Helper()
	if !strings.HasPrefix(database, "postgres") {
		return
	}
	d := raw(t, database)
	for range 500 {
		var got int
		if err := d.QueryRow("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle' AND query = 'LISTEN latchkey'").Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got == n {
			time.Sleep(20 * time.Millisecond)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nobody listens")
}

func TestAWakeUpFollowsTheCommit(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		s := storetest.Open(t, store.Config{Database: database})
		hearing(t, database, 1)
		one, cancelOne := s.Watch("m1")
		two, cancelTwo := s.Watch("m2")
		defer cancelOne()
		err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
			tx.Wake("m1")
			return fmt.Errorf("no")
		})
		if err == nil {
			t.Error("no error")
		}
		asleep(t, one, "m1 after a failed change")
		if err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error { tx.Wake("m1"); return nil }); err != nil {
			t.Fatal(err)
		}
		woken(t, one, "m1")
		asleep(t, two, "m2")
		time.Sleep(50 * time.Millisecond)
		select {
		case <-one: // PostgreSQL tells the sender too
		default:
		}
		if err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error { tx.WakeAll(); return nil }); err != nil {
			t.Fatal(err)
		}
		woken(t, one, "m1 with all")
		woken(t, two, "m2 with all")
		cancelTwo()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for range one { //nolint:revive // until it is closed
		}
		after, cancel := s.Watch("m1")
		defer cancel()
		if _, open := <-after; open {
			t.Error("a watch on a closed store")
		}
	})
}

func TestTwoReplicasShareOneDatabase(t *testing.T) {
	database := storetest.BarePostgreSQL(t)
	// Both start at the same time: one migrates, the other waits for it.
	stores := make([]*store.Store, 2)
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() {
			stores[i] = storetest.Open(t, store.Config{Database: database, Replica: fmt.Sprint("r", i)})
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	hearing(t, database, 2)
	ids := make([]string, 300) // more than one notification holds
	for i := range ids {
		ids[i] = store.NewID()
	}
	machine, cancel := stores[1].Watch(ids[299])
	defer cancel()
	events, cancelEvents := stores[1].WatchEvents()
	defer cancelEvents()

	if err := stores[0].Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		tx.Wake(ids...)
		return tx.PutSetting(ctx, setting("x"))
	}); err != nil {
		t.Fatal(err)
	}
	woken(t, machine, "the machine at the other replica")
	if !keys(t, stores[1])["x"] {
		t.Error("woken before the row is there")
	}
	add(t, stores[0], event.Event{Type: event.UserAdded})
	woken(t, events, "the follower at the other replica")
	if err := stores[0].Update(t.Context(), func(_ context.Context, tx *store.Tx) error { tx.WakeAll(); return nil }); err != nil {
		t.Fatal(err)
	}
	woken(t, machine, "the machine, with all")

	// Many events at once from both, each in its own chain.
	for _, s := range stores {
		for range 40 {
			wg.Go(func() { add(t, s, event.Event{Type: event.SigninAllowed}, event.Event{Type: event.FactorAccepted}) })
		}
	}
	wg.Wait()
	verify(t, stores[0], 161)
	r, err := stores[1].VerifyEvents(t.Context())
	if err != nil || len(r.Chains) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// Two servers that were given the same name by mistake do not break the chain:
// they wait for each other.
func TestTwoReplicasOfOneNameKeepTheChainWhole(t *testing.T) {
	database := storetest.PostgreSQL(t)
	a := storetest.Open(t, store.Config{Database: database})
	b := storetest.Open(t, store.Config{Database: database})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { add(t, []*store.Store{a, b}[i%2], event.Event{Type: event.SigninAllowed}) })
	}
	wg.Wait()
	verify(t, a, 100)
}

// Two replicas lock two rows in opposite order: the database breaks the deadlock
// and the change that lost is run again.
func TestADeadlockBetweenReplicasIsTriedAgain(t *testing.T) {
	database := storetest.PostgreSQL(t)
	stores := []*store.Store{
		storetest.Open(t, store.Config{Database: database, Replica: "a"}),
		storetest.Open(t, store.Config{Database: database, Replica: "b"}),
	}
	for _, k := range []string{"x", "y"} {
		if err := stores[0].Update(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.PutSetting(ctx, setting(k)) }); err != nil {
			t.Fatal(err)
		}
	}
	var both, wg sync.WaitGroup
	both.Add(2)
	runs := make([]int, 2)
	for i, s := range stores {
		wg.Go(func() {
			order := []string{"x", "y"}
			if i == 1 {
				order = []string{"y", "x"}
			}
			err := s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				runs[i]++
				if err := tx.PutSetting(ctx, db.PutSettingParams{Key: order[0], Value: []byte{byte(i)}, UpdatedAt: 2}); err != nil {
					return err
				}
				if runs[i] == 1 {
					both.Done()
					both.Wait()
				}
				return tx.PutSetting(ctx, db.PutSettingParams{Key: order[1], Value: []byte{byte(i)}, UpdatedAt: 2})
			})
			if err != nil {
				t.Errorf("replica %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if n := runs[0] + runs[1]; n < 3 || n > 6 {
		t.Errorf("the changes ran %v times: there was no deadlock, or it was tried too often", runs)
	}
	err := stores[0].Read(t.Context(), func(q *store.Queries) error {
		x, err := q.GetSetting(t.Context(), "x")
		if err != nil {
			return err
		}
		y, err := q.GetSetting(t.Context(), "y")
		if string(x) != string(y) {
			t.Errorf("the rows are of different changes: %v, %v", x, y)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A server that loses its database says so, and goes on when it is back.
func TestALostConnectionIsMadeAgain(t *testing.T) {
	database := storetest.PostgreSQL(t)
	s := storetest.Open(t, store.Config{Database: database})
	hearing(t, database, 1)
	machine, cancel := s.Watch("m1")
	defer cancel()
	if _, err := raw(t, database).Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
		t.Fatal(err)
	}
	woken(t, machine, "m1 after the listener came back")
	var err error
	for range 5 {
		if err = s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.PutSetting(ctx, setting("x")) }); err == nil {
			break
		}
	}
	if err != nil || !keys(t, s)["x"] {
		t.Errorf("after the connection was lost: %v", err)
	}
}
