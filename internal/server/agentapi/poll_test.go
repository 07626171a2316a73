package agentapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/server/agentapi"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/touch"
	"latchkey/internal/wire"
)

type contextT = context.Context

func newStore(t *testing.T) *store.Store {
	t.Helper()
	return storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
}

type polled struct {
	wire.Changes
	status  int
	problem wire.Problem
	took    time.Duration
}

// poll asks in the background, and is on its way when it returns.
func (m *machine) poll(since int64) <-chan polled {
	m.r.Helper()
	out := make(chan polled, 1)
	before := m.r.api.Polls()
	begun := time.Now()
	go func() {
		var p polled
		var err error
		p.status, p.problem, err = m.callAgain("GET", fmt.Sprintf("%s?since=%d", wire.PathChanges, since), nil, &p.Changes)
		if err != nil {
			m.r.Errorf("poll: %v", err)
		}
		p.took = time.Since(begun)
		out <- p
	}()
	for end := time.Now().Add(5 * time.Second); m.r.api.Polls() == before && len(out) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	return out
}

// open verifies a policy as the machine does.
func (m *machine) open(c wire.Changes) (f wire.PolicyFile) {
	m.r.Helper()
	payload, err := seal.Verify(m.grant, seal.Policy, m.id, c.Policy)
	if err != nil {
		m.r.Fatalf("policy: %v", err)
	}
	if err := json.Unmarshal(payload, &f); err != nil {
		m.r.Fatal(err)
	}
	if f.MachineID != m.id || f.Serial != c.Serial {
		m.r.Errorf("the policy is for %s with serial %d, told %d", f.MachineID, f.Serial, c.Serial)
	}
	return f
}

func (m *machine) policy(since int64) wire.PolicyFile {
	m.r.Helper()
	var c wire.Changes
	m.must("GET", fmt.Sprintf("%s?since=%d", wire.PathChanges, since), nil, &c)
	return m.open(c)
}

func TestAPollIsAnsweredWhenSomethingChanges(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, other := r.joined(), r.joined()
		f := m.policy(0)
		if f.Machine.Name != m.name || f.Machine.Status != enroll.Active || len(f.Policies) != 1 || f.Contact != "help desk, 123" {
			t.Errorf("%+v", f)
		}
		if life := clock.FromMicros(f.NotAfter).Sub(clock.FromMicros(f.IssuedAt)); life != 90*24*time.Hour {
			t.Errorf("the policy lasts %v", life)
		}
		if len(f.Users) != 0 {
			t.Errorf("it names %d users whom nobody has seen here", len(f.Users))
		}
		alice := r.person("alice")
		answered, quiet := m.poll(f.Serial), other.poll(other.policy(0).Serial)
		alice.signedIn(m, nil)
		c := <-answered
		if c.took > 15*time.Second {
			t.Errorf("it took %v", c.took)
		}
		f = m.open(c.Changes)
		if len(f.Users) != 1 || f.Users[0].Name != "alice" || f.Users[0].MFA != policy.On {
			t.Errorf("%+v", f.Users)
		}
		select {
		case c := <-quiet:
			t.Errorf("the other machine was told too: %+v", c)
		case <-time.After(100 * time.Millisecond):
		}
		r.change(func(tx *store.Tx) error { return touch.All(t.Context(), tx) })
		if c := <-quiet; len(other.open(c.Changes).Users) != 0 {
			t.Error("the other machine knows of somebody who was never there")
		}
		// Asked again with 0 the whole policy comes, changed or not.
		if got := m.policy(0); got.Serial < f.Serial || len(got.Users) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

func TestAPollEndsWithThePatienceOfTheServer(t *testing.T) {
	r := newRig(t, newStore(t), func(c *agentapi.Config) { c.Patience = 300 * time.Millisecond })
	m := r.joined()
	serial := m.policy(0).Serial
	c := <-m.poll(serial)
	if c.status != 200 || c.Serial != serial || len(c.Policy) != 0 || c.took < 250*time.Millisecond || c.Time == 0 {
		t.Errorf("%+v", c)
	}
	m.fails("GET", wire.PathChanges+"?since=x", nil, "invalid")
	m.fails("GET", wire.PathChanges+"?since=-1", nil, "invalid")
	m.fails("GET", wire.PathChanges, nil, "invalid")
}

func TestPollsAreAnsweredWhenTheServerStops(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	answered := m.poll(m.policy(0).Serial)
	r.api.Stop()
	if c := <-answered; c.status != 200 || c.took > 15*time.Second {
		t.Errorf("%+v", c)
	}
	if r.api.Polls() != 0 {
		t.Error("polls are left")
	}
}

func TestAMachineThatHasSeenMoreThanTheDatabaseIsCaughtUpWith(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	if f := m.policy(1000); f.Serial <= 1000 {
		t.Errorf("serial %d", f.Serial)
	}
}

// callAgain is call for a machine whose connections are being cut: what was under way then is asked once more.
func (m *machine) callAgain(method, path string, in, out any) (status int, p wire.Problem, err error) {
	if status, p, err = m.call(method, path, in, out); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return m.call(method, path, in, out)
	}
	return status, p, err
}

func TestARevokedMachineIsToldAtOnceEverywhere(t *testing.T) {
	for _, status := range []string{enroll.Revoked, enroll.Lost} {
		t.Run(status, func(t *testing.T) {
			engines(t, func(t *testing.T, r *rig) {
				m, other := r.joined(), r.joined()
				alice := r.person("alice")
				m.enrolSoftware(alice)
				answered := m.poll(m.policy(0).Serial)
				begun := time.Now()
				var holders []string
				r.change(func(tx *store.Tx) (err error) {
					holders, err = r.enroll.Dismiss(t.Context(), tx, m.id, status)
					return err
				})
				c := <-answered
				if took := time.Since(begun); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				m.refused(c.status, c.problem, status)
				if len(holders) != 1 || holders[0] != alice.id {
					t.Errorf("holders %v", holders)
				}
				for path, body := range closedPaths(m) {
					s, p, err := m.callAgain("POST", path, body, nil)
					if err != nil {
						t.Fatal(err)
					}
					m.refused(s, p, status)
				}
				for _, c := range []struct {
					method, path string
					body         any
				}{
					{"POST", wire.PathHello, wire.Hello{Facts: m.facts}},
					{"POST", wire.PathRenew, wire.Renew{CSR: m.csr()}},
					{"GET", wire.PathChanges + "?since=0", nil},
					{"GET", wire.PathProbe, nil},
				} {
					s, p, err := m.callAgain(c.method, c.path, c.body, nil)
					if err != nil {
						t.Fatal(err)
					}
					m.refused(s, p, status)
				}
				// Over a new connection, and when the certificate is long past.
				r.clock.off = 200 * 24 * time.Hour
				m.connect()
				s, p, err := m.call("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, nil)
				if err != nil {
					t.Fatal(err)
				}
				m.refused(s, p, status)
				r.eventually("the event", func() bool {
					return strings.Contains(r.reasons(event.MachineRefused), "machine.refused/machine-refused")
				})
				r.read(func(q *store.Queries) error {
					vs, err := q.ListVaultsOfMachine(t.Context(), m.id)
					if len(vs) != 0 {
						t.Errorf("%d vaults are left", len(vs))
					}
					return err
				})
				r.clock.off = 0
				other.must("POST", wire.PathHello, wire.Hello{Facts: other.facts}, nil)
				// There is no way back, and no second time.
				if err := r.store.Update(t.Context(), func(ctx contextT, tx *store.Tx) error {
					return r.enroll.Approve(ctx, tx, m.id)
				}); err == nil {
					t.Error("it was approved again")
				}
				if err := r.store.Update(t.Context(), func(ctx contextT, tx *store.Tx) error {
					_, err := r.enroll.Dismiss(ctx, tx, m.id, status)
					return err
				}); err == nil {
					t.Error("it was dismissed twice")
				}
			})
		})
	}
}

// refused checks that an answer is the signed refusal of this machine.
func (m *machine) refused(status int, p wire.Problem, why string) {
	m.r.Helper()
	if status != 403 || p.Code != "machine-refused" {
		m.r.Errorf("%d %+v, want the refusal", status, p)
		return
	}
	payload, err := seal.Verify(m.grant, seal.Refusal, m.id, p.Refusal)
	if err != nil {
		m.r.Errorf("the refusal: %v", err)
		return
	}
	var note wire.RefusalNote
	if err := json.Unmarshal(payload, &note); err != nil || note.MachineID != m.id || note.Status != why || note.Text == "" || note.At == 0 {
		m.r.Errorf("%s, %v", payload, err)
	}
}
