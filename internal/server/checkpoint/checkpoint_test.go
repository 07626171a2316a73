package checkpoint_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/checkpoint"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

func TestV4TheHeadIsSignedAndLogged(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		k, _, err := keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: s, Clock: clock.Real})
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := keys.Open(t.Context(), keys.Config{
			Dir: t.TempDir(), Store: storetest.Open(t, store.Config{Database: storetest.SQLite(t)}), Clock: clock.Real,
		})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		c := checkpoint.Config{Store: s, Keys: k, Clock: clock.Real, Log: slog.New(slog.NewTextHandler(&log, nil))}
		add := func() {
			t.Helper()
			err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
				_, err := tx.Event(event.Event{Type: event.SigninAllowed})
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		write := func() {
			t.Helper()
			if err := checkpoint.Write(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		write() // nothing has happened: nothing is written
		add()
		heads, err := s.Heads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		write()
		write() // nothing but the checkpoint itself
		add()
		write()
		n, faults, err := checkpoint.Verify(t.Context(), s, k.GrantPublic())
		if err != nil || n != 2 || len(faults) != 0 {
			t.Errorf("%d, %+v, %v", n, faults, err)
		}
		if !strings.Contains(log.String(), heads[0].String()) {
			t.Errorf("the log does not name the head: %s", log.String())
		}
		mark, err := store.ParseMark(heads[0].String())
		if err != nil {
			t.Fatal(err)
		}
		if r, err := s.VerifyEvents(t.Context(), mark); err != nil || !r.Whole() {
			t.Errorf("%+v, %v", r, err)
		}
		if _, faults, err := checkpoint.Verify(t.Context(), s, other.GrantPublic()); err != nil || len(faults) != 2 {
			t.Errorf("with another key: %+v, %v", faults, err)
		}
		// A checkpoint that was copied to another place.
		var data string
		err = s.Read(t.Context(), func(q *store.Queries) error {
			list, err := q.ListChainEvents(t.Context(), db.ListChainEventsParams{Chain: s.Replica(), After: 1, N: 1})
			data = strings.Replace(list[0].Data, `"signed":"`, `"signed":"AA`, 1)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
			_, err := tx.Event(event.Event{Type: event.ChainCheckpoint, Data: []byte(data)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, faults, err := checkpoint.Verify(t.Context(), s, k.GrantPublic()); err != nil || len(faults) != 1 {
			t.Errorf("with a forged one: %+v, %v", faults, err)
		}
	})
}
