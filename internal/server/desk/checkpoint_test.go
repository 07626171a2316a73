package desk_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/checkpoint"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

func TestV4AChainThatTheServerHasNotSignedIsBroken(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := desktest.New(t, s, clock.Real)
		add := func(e event.Event) {
			t.Helper()
			err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
				_, err := tx.Event(e)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		add(event.Event{Type: event.SigninAllowed})
		c := checkpoint.Config{Store: s, Keys: r.Keys, Clock: clock.Real, Log: slog.New(slog.DiscardHandler)}
		if err := checkpoint.Write(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		v, err := r.VerifyEvents(t.Context(), desk.Root(), rest.Verify{})
		if err != nil || !v.Whole {
			t.Fatalf("%+v, %v", v, err)
		}
		// Whoever rewrites a chain can make its hashes fit, but sign no checkpoint.
		add(event.Event{Type: event.ChainCheckpoint, Data: []byte(`{"mark":"main:1:00","signed":"AAAA"}`)})
		v, err = r.VerifyEvents(t.Context(), desk.Root(), rest.Verify{})
		if err != nil || v.Whole || len(v.Chains) != 1 || !strings.Contains(v.Chains[0].Why, "not signed by this server") {
			t.Errorf("%+v, %v", v, err)
		}
	})
}
