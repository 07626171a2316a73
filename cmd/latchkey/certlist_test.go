//go:build unix

package main

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/server/api"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// TestM4TheListSaysWhenACertificateIsRenewed: one of this machine's agent with its day and
// the timer, one by request without.
func TestM4TheListSaysWhenACertificateIsRenewed(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	c := clock.NewManual(now)
	r := desktest.New(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c)
	u, err := r.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	id := ""
	if err := r.Store.Read(t.Context(), func(q *store.Queries) error {
		row, err := q.GetUserByName(t.Context(), u.Name)
		id = row.ID
		return err
	}); err != nil {
		t.Fatal(err)
	}
	m := r.Machine(t, "laptop", "active")
	byRequest := r.Certificate(t, id, "")
	_, csr, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	who := ca.User{ID: id, Name: "alice", MachineID: m.ID}
	leaf, err := r.CA.SignUser(csr, who, 30*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return ca.KeepUser(ctx, tx, leaf, who, "laptop", ca.KeyFile, clock.Micros(now))
	})
	if err != nil {
		t.Fatal(err)
	}

	dir, err := os.MkdirTemp("", "lk") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	alice := desk.Actor{Name: "alice", Role: rest.RoleNone, UserID: id, Session: "s", Fresh: true}
	srv := &http.Server{
		Handler: api.New(api.Deps{Desk: r.Desk, Version: "test"}), ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return api.WithActor(context.Background(), alice) },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	a := &app{in: os.Stdin, out: out, err: os.Stderr, clock: c}
	if code := a.run(t.Context(), []string{"--server", "unix:" + filepath.Join(dir, "s"), "certificate", "list"}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	b, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]string{
		"the agent's":  `(?m)^` + serialOf(leaf) + ` .*laptop.* file .* from ` + when(renewAfter(leaf)),
		"by request":   `(?m)^` + serialOf(byRequest) + ` .* request +` + when(byRequest.NotAfter) + ` *$`,
		"of the timer": `(?m)^Timer on this computer: (none|latchkey-certificate.timer)`,
	} {
		if !regexp.MustCompile(want).Match(b) {
			t.Errorf("%s: %s is not shown:\n%s", what, want, b)
		}
	}
}

func serialOf(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }
