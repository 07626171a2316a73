package signin_test

import (
	"testing"
	"time"

	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// S10: a stranger who goes on guessing at one machine makes the user wait where he has
// not been, and not on a machine where he has lately given his second factor.
func TestAStrangerElsewhereKeepsNobodyFromHisOwnMachine(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.addUser("bob")
		phone := r.addTOTP(bob)
		front := r.addMachine("front")
		r.begin(begin("bob")).answer(phone.fresh()).allowed(true)
		guess := func() {
			for _, m := range []string{front.ID, ""} {
				if w, now := r.attempt(bob, m).BlockedUntil, r.clock.Now().UnixMicro(); now < w {
					r.clock.Advance(time.Duration(w-now+1) * time.Microsecond)
				}
			}
			b := begin("bob", with("wrong wrong wrong"), in(policy.Remote, "sshd"))
			r.talk().on(front).send(wire.Step{Begin: &b}).denied(text.DeniedFirst, "first-factor-rejected")
		}
		for r.attempt(bob, "").Failures < 9 {
			guess()
		}
		if r.attempt(bob, "").BlockedUntil <= r.clock.Now().UnixMicro() {
			t.Fatal("nobody has to wait")
		}
		b := begin("bob", in(policy.Elevation, "sudo"))
		r.talk().on(r.addMachine("new")).send(wire.Step{Begin: &b}).denied(text.DeniedFirst, "back-off")
		// At his own he is asked for the code, and wrong ones count there as ever.
		own := r.begin(b).asks(wire.ForCode)
		if own.answer(phone.wrong()); r.attempt(bob, r.machine.ID).Failures != 1 {
			t.Errorf("%d wrong codes are counted at his own machine", r.attempt(bob, r.machine.ID).Failures)
		}
		own.asks(wire.ForCode).answer(phone.fresh()).allowed(true)
	})
}

// A machine learns of nobody, and may speak of nobody, by saying that it has judged
// his password.
func TestAMachinesWordMakesNobodyItsUser(t *testing.T) {
	onOne(t, func(r *rig) {
		bob := r.addUser("bob")
		phone := r.addTOTP(bob)
		known := func() (n int64) {
			r.read(func(q *store.Queries) (err error) {
				n, err = q.MachineKnowsUser(t.Context(), db.MachineKnowsUserParams{MachineID: r.machine.ID, UserID: bob.ID})
				return err
			})
			return n
		}
		b := begin("bob", second)
		b.Password = wire.Secret{}
		c := r.begin(b).asks(wire.ForCode)
		if known() != 0 {
			t.Error("known before a second factor was given")
		}
		if c.answer(phone.fresh()).allowed(true); known() != 1 {
			t.Error("not known behind it")
		}
	})
	onOne(t, func(r *rig) {
		bob := r.addUser("bob")
		r.addTOTP(bob)
		r.begin(begin("bob")).asks(wire.ForCode)
		r.read(func(q *store.Queries) error {
			n, err := q.MachineKnowsUser(t.Context(), db.MachineKnowsUserParams{MachineID: r.machine.ID, UserID: bob.ID})
			if n != 1 {
				t.Error("not known although the server has judged his password")
			}
			return err
		})
	})
}
