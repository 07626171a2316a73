package server

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// front is the door for people. Until there is a console it says what this is.
func (r *running) front() http.Handler {
	mux := http.NewServeMux()
	r.health(mux)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, page)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, req)
	})
}

const page = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Latchkey</title>
<style>
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem }
</style>
</head>
<body>
<main>
<h1>Latchkey</h1>
<p>This is a Latchkey server. It asks people for a second factor when they open a machine.</p>
<p>Administrators work with the command <code>latchkey</code> on the server itself. Machines have a door of their own.</p>
</main>
</body>
</html>
`

// health serves the two questions of a supervisor: does the process live, and can
// it do its work.
func (r *running) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if why := r.notReady(req.Context()); why != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, why)
			return
		}
		fmt.Fprintln(w, "ready")
	})
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
