package signin_test

import (
	"testing"
	"time"

	"latchkey/internal/policy"
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
