package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// TestReadinessIsAnsweredFromMemoryForASecond: whoever asks needs no right, and must not
// reach the database as often as he likes.
func TestReadinessIsAnsweredFromMemoryForASecond(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		now := clock.NewManual(time.Now())
		s := storetest.Open(t, store.Config{Database: database, Clock: now})
		r := &running{Config: Config{Clock: now, Log: slog.New(slog.DiscardHandler)}, store: s}
		mux := http.NewServeMux()
		r.health(mux)
		ask := func(ctx context.Context) int {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/readyz", nil))
			return w.Code
		}
		all := func(want int) {
			t.Helper()
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if got := ask(t.Context()); got != want {
						t.Errorf("%d, want %d", got, want)
					}
				})
			}
			wg.Wait()
		}
		// The answer is the server's, and not of whoever asked first and has gone.
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if got := ask(gone); got != http.StatusOK {
			t.Errorf("%d for who has gone", got)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		now.Advance(readyFor - 1)
		all(http.StatusOK) // from memory: the database is gone
		now.Advance(1)
		all(http.StatusServiceUnavailable)
	})
}

// TestOneAsksWhetherTheServerIsReady: however many want to know, also where it fails and
// where the clock is put back.
func TestOneAsksWhetherTheServerIsReady(t *testing.T) {
	now := clock.NewManual(time.Now())
	var a readiness
	const failing = "no room"
	asked := 0
	why := failing
	all := func(want string, n int) {
		t.Helper()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got := a.ask(t.Context(), now, func(context.Context) string { asked++; return why }); got != want {
					t.Errorf("%q, want %q", got, want)
				}
			})
		}
		wg.Wait()
		if asked != n {
			t.Errorf("asked %d times, want %d", asked, n)
		}
	}
	all(failing, 1)
	why = ""
	all(failing, 1)
	now.Advance(readyFor)
	all("", 2)
	why = failing
	now.Advance(-time.Hour)
	all(failing, 3)
}
