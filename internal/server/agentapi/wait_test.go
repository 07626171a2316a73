package agentapi_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

func TestS2AMachineHangsUntilSomethingCame(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	id := store.NewID()
	path := strings.NewReplacer("{id}", id).Replace(wire.PathWait)
	took := func() time.Duration {
		t.Helper()
		begun := time.Now()
		m.must("GET", path, nil, &wire.Empty{})
		return time.Since(begun)
	}
	came := make(chan struct{})
	r.wait = func(ctx context.Context, who db.Machine, conv string) error {
		if who.ID != m.id || conv != id {
			t.Errorf("waits for %s of %s", conv, who.ID)
		}
		select {
		case <-came:
		case <-ctx.Done():
		}
		return ctx.Err()
	}
	time.AfterFunc(300*time.Millisecond, func() { close(came) })
	if d := took(); d < 300*time.Millisecond || d > 3*time.Second {
		t.Errorf("answered after %s", d)
	}
	for _, bad := range []string{"x", "../..", strings.ToUpper(id)} {
		if status, _, err := m.call("GET", strings.NewReplacer("{id}", bad).Replace(wire.PathWait), nil, nil); err != nil || status < 400 {
			t.Errorf("%q is answered %d, %v", bad, status, err)
		}
	}
	// What is wrong is said, and a server that stops keeps nobody waiting.
	r.wait = func(context.Context, db.Machine, string) error { return errors.New("the database is on fire") }
	if status, _, err := m.call("GET", path, nil, nil); err != nil || status != 500 {
		t.Errorf("%d, %v", status, err)
	}
	came = make(chan struct{})
	r.wait = func(ctx context.Context, _ db.Machine, _ string) error { <-ctx.Done(); return ctx.Err() }
	time.AfterFunc(300*time.Millisecond, r.api.Stop)
	if d := took(); d > 3*time.Second {
		t.Errorf("answered %s after the stop", d)
	}
}
