package agentapi_test

import (
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// window opens one for the person on the machine.
func (u *person) window(m *machine, boot string) {
	u.r.Helper()
	now := u.r.clock.Now()
	u.r.change(func(tx *store.Tx) error {
		return tx.InsertWindow(u.r.Context(), db.InsertWindowParams{
			ID: store.NewID(), UserID: u.id, MachineID: m.id, Boot: boot, OpenedAt: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(8 * time.Hour)),
			Scopes: `["logon"]`, Factors: `["totp"]`,
		})
	})
}

func (u *person) windows(m *machine) (n int) {
	u.r.Helper()
	u.r.read(func(q *store.Queries) error {
		rows, err := q.ListValidWindows(u.r.Context(), db.ListValidWindowsParams{UserID: u.id, MachineID: m.id, At: clock.Micros(u.r.clock.Now())})
		n = len(rows)
		return err
	})
	return n
}

func TestW6ARebootEndsWindowsWhereThePolicySaysSo(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		for _, c := range []struct {
			ends bool
			left int
		}{{false, 2}, {true, 1}} {
			r.setPolicy(func(p *policy.Policy) {
				if c.ends {
					p.WindowEndsOn = []policy.WindowEnd{policy.EndReboot}
				}
			})
			m.facts.Boot = "boot-" + store.NewID()
			m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
			alice.window(m, m.facts.Boot)
			m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
			before := alice.windows(m)
			// The next boot has a window already when it says hello.
			m.facts.Boot = "boot-" + store.NewID()
			alice.window(m, m.facts.Boot)
			m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
			if got := alice.windows(m); before != 1 || got != c.left {
				t.Errorf("ends %v: %d windows, then %d; want %d", c.ends, before, got, c.left)
			}
			r.change(func(tx *store.Tx) error {
				_, err := tx.EndWindows(t.Context(), db.EndWindowsParams{MachineID: m.id, At: clock.Micros(r.clock.Now()), Reason: "test"})
				return err
			})
		}
		if got := r.reasons(event.WindowEnded); got != "window.ended/reboot" {
			t.Error(got)
		}
	})
}

func TestW6AnOfflineSigninEndsWindowsWhereThePolicySaysSo(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		m.enrolSoftware(alice)
		c := &chain{m: m}
		allowed := event.Event{Type: event.SigninAllowed, UserID: alice.id, Outcome: "allow", Link: "down"}
		denied := event.Event{Type: event.SigninDenied, UserID: alice.id, Outcome: "deny", Link: "down"}
		deliver := func(e event.Event, want int) {
			t.Helper()
			alice.window(m, "boot-1")
			c.add(e, nil)
			c.deliver(len(c.list)-1, len(c.list))
			if got := alice.windows(m); got != want {
				t.Errorf("%s: %d windows, want %d", e.Type, got, want)
			}
		}
		deliver(allowed, 1)
		r.setPolicy(func(p *policy.Policy) { p.WindowEndsOn = []policy.WindowEnd{policy.EndOffline} })
		deliver(denied, 2)
		deliver(allowed, 0)
	})
}

func TestOccasionsGoToTheSignin(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	var got []wire.Occasion
	r.occasion = func(who db.Machine, o wire.Occasion) error {
		if who.ID != m.id {
			t.Errorf("of machine %s", who.ID)
		}
		got = append(got, o)
		return nil
	}
	sent := wire.Occasion{Kind: policy.EndLogoff, User: "alice"}
	m.must("POST", wire.PathOccasion, sent, nil)
	if len(got) != 1 || got[0] != sent {
		t.Errorf("%+v", got)
	}
}
