package agentapi_test

import (
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// left is what the server believes of the person's offline data on the machine.
func (m *machine) left(p *person) (l facts.Left, v db.Vault, d policy.Decision) {
	m.r.Helper()
	m.r.read(func(q *store.Queries) error {
		ctx := m.r.Context()
		row, err := q.GetMachine(ctx, m.id)
		if err != nil {
			return err
		}
		r, f, u, err := facts.Gather(ctx, q, row, facts.Ask{Name: facts.Name{User: "alice"}, Scope: policy.Logon, At: m.r.clock.Now(), Link: policy.LinkDown})
		if err != nil {
			return err
		}
		d = policy.Decide(r, f)
		if v, err = q.GetActiveVault(ctx, db.GetActiveVaultParams{UserID: u.ID, MachineID: m.id}); err != nil {
			return err
		}
		pol, err := facts.PolicyOf(ctx, q, u.ID)
		l = facts.LeftOf(v, pol)
		return err
	})
	return l, v, d
}

// TestTheServerKnowsWhoIsShutOutOffline is O14 and O16: what the journal tells of tries
// and sign-ins is what "who is stuck" and the report go by, until it is over.
func TestTheServerKnowsWhoIsShutOutOffline(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		m.enrolSoftware(alice)
		tries, signins := policy.NewPolicy().OfflineTries, policy.NewPolicy().OfflineSignins
		c := &chain{m: m}
		told := 0
		tell := func(t event.Type, reason string, at time.Time) {
			r.Helper()
			c.add(event.Event{Type: t, Subject: "alice", UserID: alice.id, Scope: "logon", Service: "login", Link: "down", Outcome: "deny", Reason: reason, At: clock.Micros(at)}, nil)
			c.deliver(told, told+1)
			told++
		}
		want := func(reason policy.Reason, triesLeft, signinsLeft int) {
			r.Helper()
			l, v, d := m.left(alice)
			if d.Reason != reason || l.Tries != triesLeft || l.Signins != signinsLeft {
				r.Errorf("%s with %+v (%+v), want %s, %d tries, %d sign-ins", d.Reason, l, v, reason, triesLeft, signinsLeft)
			}
		}
		reset := func() {
			r.change(func(tx *store.Tx) error {
				_, err := tx.SyncVault(r.Context(), db.SyncVaultParams{UserID: alice.id, MachineID: m.id, Generation: int64(1), UsesLeft: int64(signins), At: clock.Micros(r.clock.Now())})
				return err
			})
		}
		want(policy.ReasonOfflineMFA, tries, signins)
		r.clock.off += time.Minute
		now := r.clock.Now()
		for range 3 {
			tell(event.SigninDenied, "wrong-code", now)
		}
		tell(event.SigninDenied, "cancelled", now) // no answer was judged
		want(policy.ReasonOfflineMFA, tries-3, signins)
		tell(event.SigninAllowed, "offline-mfa", now)
		want(policy.ReasonOfflineMFA, tries, signins-1)
		for range tries {
			tell(event.SigninDenied, "wrong-password", now)
		}
		want(policy.ReasonVaultTries, 0, signins-1)

		// Fresh counters; what a journal tells of before is over.
		r.clock.off += time.Minute
		reset()
		tell(event.SigninDenied, string(policy.ReasonVaultTries), now)
		want(policy.ReasonOfflineMFA, tries, signins)

		now = r.clock.Now()
		tell(event.SigninDenied, string(policy.ReasonVaultTries), now) // the counted ones were lost
		want(policy.ReasonVaultTries, 0, signins)
		reset()
		tell(event.SigninDenied, facts.ReasonChecks, r.clock.Now())
		want(facts.ReasonChecks, tries, signins)
		reset()
		tell(event.SigninDenied, string(policy.ReasonVaultRemote), r.clock.Now())
		if l, _, d := m.left(alice); l.Remote != 0 || d.Reason != policy.ReasonOfflineMFA {
			t.Errorf("from afar %+v, %s", l, d.Reason)
		}
		reset()

		// A tighter policy counts what was used before.
		for range 5 {
			tell(event.SigninAllowed, "offline-mfa", now)
		}
		r.setPolicy(func(p *policy.Policy) { p.OfflineSignins = 5 })
		want(policy.ReasonVaultSignins, tries, 0)
	})
}
