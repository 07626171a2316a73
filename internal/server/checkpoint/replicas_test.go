package checkpoint_test

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/checkpoint"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// Every server records the head of its own chain; any of them verifies all chains,
// with the marks from all logs.
func TestV4EveryServerRecordsItsOwnHead(t *testing.T) {
	database := storetest.PostgreSQL(t)
	dir := t.TempDir()
	var stores []*store.Store
	var marks []store.Mark
	var grant *keys.Keys
	for _, name := range []string{"r1", "r2"} {
		s := storetest.Open(t, store.Config{Database: database, Replica: name, Claim: true})
		stores = append(stores, s)
		k, _, err := keys.Open(t.Context(), keys.Config{Dir: dir, Store: s, Clock: clock.Real})
		if err != nil {
			t.Fatal(err)
		}
		grant = k
		for range 3 {
			err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
				_, err := tx.Event(event.Event{Type: event.SigninAllowed})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		var log bytes.Buffer
		if err := checkpoint.Write(t.Context(), checkpoint.Config{Store: s, Keys: k, Clock: clock.Real, Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`mark=(\S+)`).FindAllStringSubmatch(log.String(), -1)
		if len(found) != 1 {
			t.Fatalf("%s logs %s", name, log.String())
		}
		m, err := store.ParseMark(found[0][1])
		if err != nil || m.Chain != name || m.Seq != 3 {
			t.Errorf("%+v %v", m, err)
		}
		marks = append(marks, m)
	}
	for _, s := range stores {
		r, err := s.VerifyEvents(t.Context(), marks...)
		if err != nil || !r.Whole() || len(r.Chains) < 2 || r.Events != 8 {
			t.Errorf("%+v %v", r, err)
		}
		n, faults, err := checkpoint.Verify(t.Context(), s, grant.GrantPublic())
		if err != nil || n != 2 || len(faults) != 0 {
			t.Errorf("%d checked, %+v, %v", n, faults, err)
		}
	}
	// The other server's mark shows that its chain is another one now.
	marks[1].Hash[0]++
	if r, err := stores[0].VerifyEvents(t.Context(), marks...); err != nil || r.Whole() {
		t.Errorf("%+v %v", r, err)
	}
}
