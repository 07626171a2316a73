package server

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/http"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/api"
	"latchkey/internal/server/ca"
)

// front is the door for people: the health endpoints, and behind them the pages and,
// at their side, the API.
func (r *running) front(pages http.Handler) http.Handler {
	mux := http.NewServeMux()
	r.health(mux)
	// The CA's certificate is no secret. Whoever takes it from here compares its fingerprint.
	mux.HandleFunc("GET /ca.pem", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Header().Set("Content-Disposition", `attachment; filename="latchkey-ca.pem"`)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: r.ca.Certificate()})
	})
	mux.HandleFunc("GET "+ca.ListPath, r.ca.ServeList)
	mux.Handle("/", pages)
	return mux
}

// fronted is the API as people reach it. There is no other way to it at their door.
func (r *running) fronted(rest http.Handler) http.Handler {
	return api.Front(api.FrontDeps{API: rest, Sessions: r.sessions, Clock: r.Clock, Logger: r.Log})
}

// health serves the two questions of a supervisor: does the process live, and can
// it do its work.
func (r *running) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if why := r.ready.ask(req.Context(), r.Clock, r.notReady); why != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, why)
			return
		}
		fmt.Fprintln(w, "ready")
	})
}

// Whether the server is ready is answered from memory for a second: whoever needs no
// right to ask must not reach the database as often as he likes.
const readyFor = time.Second

// readiness is the answer to whoever asked last. Its zero value is ready to be asked.
type readiness struct {
	mu  sync.Mutex
	why string
	at  time.Time
}

// ask gives why the server is not ready, as it was within the last second. One asks; others
// wait for that answer, and none of them longer than it takes.
func (a *readiness) ask(ctx context.Context, c clock.Clock, notReady func(context.Context) string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if age := c.Now().Sub(a.at); a.at.IsZero() || age < 0 || age >= readyFor {
		// Others wait for it too: it does not fail because the first has gone.
		a.why = notReady(context.WithoutCancel(ctx))
		a.at = c.Now()
	}
	return a.why
}

// notReady says in a sentence why the server can not do its work; empty if it can.
func (r *running) notReady(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := r.store.Ping(ctx); err != nil {
		r.Log.Error("not ready", "error", err)
		return "the database does not answer"
	}
	if err := r.store.Writable(ctx); err != nil {
		r.Log.Error("not ready", "error", err)
		return "the database can not be written: see that its disk has room, is not read-only and works; the server goes on by itself then"
	}
	return ""
}
