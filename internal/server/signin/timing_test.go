package signin_test

import (
	"testing"
	"time"

	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// S5: what is found out about a name takes different times; what is told takes whole grains, for a repeat too.
func TestADenialBeforeTheFirstFactorTakesAWholeGrain(t *testing.T) {
	onOne(t, func(r *rig) {
		u := r.addUser("alice")
		const grain = 60 * time.Millisecond
		r.svc = signin.New(signin.Deps{Store: r.store, Keys: r.keys, Directories: r.dirs, Factors: r.factors, Clock: r.clock, Grain: grain})
		timed := func(do func()) time.Duration {
			begun := time.Now()
			do()
			return time.Since(begun)
		}
		for _, name := range []string{"alice", "ALICE", "zelda"} {
			c := r.begin(begin(name, ssh, with(""))).asks(wire.ForPassword)
			if d := timed(func() { c.answer(wrongPassword) }); d < grain {
				t.Errorf("%s is denied after %v", name, d)
			}
			if c.last.Done == nil || c.last.Done.Text != text.DeniedFirst {
				t.Errorf("%s: %s", name, c.show())
			}
			// Begun when the first has long been decided: it takes its own time.
			if d := timed(func() { c.again() }); d < grain {
				t.Errorf("a repeat for %s is answered after %v", name, d)
			}
		}
		r.addTOTP(u)
		c := r.begin(begin("alice", ssh, with(""))).asks(wire.ForPassword)
		c.answer(password).asks(wire.ForCode)
		c.send(wire.Step{Cancel: true})
	})
}

// S5: the prompt for a password does not depend on whose name it is, because nobody has looked.
func TestNobodyIsLookedUpBeforeAPasswordIsThere(t *testing.T) {
	onOne(t, func(r *rig) {
		r.addUser("alice")
		for _, name := range []string{"alice", "zelda"} {
			c := r.begin(begin(name, ssh, with(""))).asks(wire.ForPassword)
			var known string
			r.read(func(q *store.Queries) error {
				row, err := q.GetConversation(t.Context(), c.id)
				known = row.UserID
				return err
			})
			if known != "" {
				t.Errorf("%s is known as %q before a password was given", name, known)
			}
			c.send(wire.Step{Cancel: true})
		}
	})
}
