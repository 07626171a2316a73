package signin_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// ringer is a phone that says what a test wants: what the sign-in makes of each answer
// is tested here, what phones answer in package push, and both together in test/e2e.
type ringer struct {
	mu      sync.Mutex
	verdict factor.Verdict
	refuse  error
	asks    []factor.Ask
	tries   int
	woken   chan struct{}

	withdrawn []string // tickets
}

func (*ringer) Kind() policy.Factor { return policy.Push }
func (*ringer) Option() string      { return "A phone" }
func (*ringer) Prompt() string      { return "Look at your phone." }
func (*ringer) Echo() bool          { return true }

func (p *ringer) Send(_ context.Context, _ *store.Tx, a factor.Ask) (factor.Sent, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return factor.Sent{}, p.refuse
	}
	p.asks = append(p.asks, a)
	p.verdict = factor.Verdict{Outcome: factor.Waiting}
	return factor.Sent{Prompt: "Number 42.", Number: "42", Expires: a.Now.Add(time.Minute)}, nil
}

func (p *ringer) Judge(_ context.Context, _ *store.Tx, t factor.Try) (factor.Verdict, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tries++
	if len(p.asks) == 0 || t.Ticket != p.asks[len(p.asks)-1].Ticket {
		return factor.Verdict{Outcome: factor.Over}, nil
	}
	return p.verdict, nil
}

func (p *ringer) Wait(ctx context.Context, _ string) {
	select {
	case <-p.woken:
	case <-ctx.Done():
	}
}

func (p *ringer) Withdraw(_ context.Context, _ *store.Tx, ticket string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.withdrawn = append(p.withdrawn, ticket)
	return nil
}

func (p *ringer) say(v factor.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verdict = v
}

// letter is a kind that is sent and typed: "1234" is right.
type letter struct{ asks []factor.Ask }

func (*letter) Kind() policy.Factor { return policy.Mail }
func (*letter) Option() string      { return "A mail" }
func (*letter) Prompt() string      { return "Code from the mail: " }
func (*letter) Echo() bool          { return false }

func (l *letter) Send(_ context.Context, _ *store.Tx, a factor.Ask) (factor.Sent, error) {
	l.asks = append(l.asks, a)
	return factor.Sent{Prompt: "Code from the mail to a…@example.org: ", Tell: "A mail is on its way.", Expires: a.Now.Add(10 * time.Minute)}, nil
}

func (l *letter) Judge(_ context.Context, _ *store.Tx, t factor.Try) (factor.Verdict, error) {
	if s, _ := factor.Typed(t.Typed); s != "1234" || t.Ticket != l.asks[len(l.asks)-1].Ticket {
		return factor.Verdict{Reason: factor.ReasonWrong, Text: text.WrongCode}, nil
	}
	return factor.Verdict{Outcome: factor.Accepted, Own: true}, nil
}

// sending is a rig whose server can ring phones and write letters.
func sending(r *rig) (*ringer, *letter) {
	p, l := &ringer{woken: make(chan struct{}, 1)}, &letter{}
	r.factors = factor.All(r.factors.Keeper, p, l)
	r.svc = r.replica(r.store)
	return p, l
}

func (r *rig) addKind(u db.User, kind policy.Factor, confirmed bool) {
	r.Helper()
	r.update(func(ctx context.Context, tx *store.Tx) error {
		row := db.InsertAuthenticatorParams{ID: store.NewID(), UserID: u.ID, Kind: string(kind), Name: string(kind), Params: "{}", CreatedAt: clock.Micros(r.clock.Now())}
		if confirmed {
			row.ConfirmedAt = row.CreatedAt
		}
		return tx.InsertAuthenticator(ctx, row)
	})
}

func waits(b *wire.Begin) { b.Can = []string{wire.PromptWait} }

// phoneAndApp is alice with a phone and an authenticator app, at the menu.
func phoneAndApp(r *rig) (p *ringer, u db.User, a app, c *conv) {
	p, _ = sending(r)
	u = r.addUser("alice")
	r.addKind(u, policy.Push, true)
	a = r.addTOTP(u)
	c = r.begin(begin("alice", waits)).asks(wire.ForChoice)
	if !slices.Equal(c.last.Prompt.Options, []string{"A phone", text.OptionTOTP}) {
		r.Fatalf("menu %q", c.last.Prompt.Options)
	}
	return p, u, a, c
}

func TestS2ThePhoneIsWaitedForAndLetsIn(t *testing.T) {
	onBoth(t, func(r *rig) {
		p, u, _, c := phoneAndApp(r)
		c.answer("1").asks(wire.ForPush)
		if q := c.last.Prompt; q.Kind != wire.PromptWait || q.Text != "Number 42." || !slices.Equal(q.Options, []string{wire.Back}) {
			t.Errorf("prompt %+v", q)
		}
		a := p.asks[0]
		if a.Ticket != c.id || a.Door != factor.AtMachine || a.Name != "desk-1" || a.Scope != policy.Logon || a.Service != "login" || a.User.ID != u.ID {
			t.Errorf("asked %+v", a)
		}
		for range 3 {
			c.answer("").asks(wire.ForPush)
			if c.last.Prompt.Text != "" || len(c.last.Messages) != 0 {
				t.Errorf("a look shows %s", c.show())
			}
		}
		if n := r.attempt(u, r.machine.ID).Failures; n != 0 {
			t.Errorf("looking counts as %d attempts", n)
		}
		p.say(factor.Verdict{Outcome: factor.Accepted, Own: true, ID: "phone"})
		c.answer("").allowed(true)
		if r.windows() != 1 {
			t.Error("no window was opened")
		}
		if e := r.events(event.FactorSent, event.FactorAccepted); len(e) != 2 || e[0].Factor != "push" || e[1].Factor != "push" {
			t.Errorf("events %+v", e)
		}
	})
}

func TestS2FromThePhoneBackToTheMenu(t *testing.T) {
	onBoth(t, func(r *rig) {
		p, u, a, c := phoneAndApp(r)
		c.answer("1").asks(wire.ForPush).answer("m").asks(wire.ForChoice).answer("1").asks(wire.ForPush)
		if len(p.asks) != 2 {
			t.Errorf("asked %+v", p.asks)
		}
		c.answer(" 0 ").asks(wire.ForChoice).answer("2").asks(wire.ForCode).answer(a.code()).allowed(true)
		if p.tries != 0 || r.attempt(u, r.machine.ID).Failures != 0 {
			t.Errorf("going back was judged %d times", p.tries)
		}
	})
}

// S12: no phone asks for a conversation that does not wait for it any more.
func TestS12WhoGoesBackOrAwayWithdrawsTheRequest(t *testing.T) {
	onBoth(t, func(r *rig) {
		for _, c := range []struct {
			name string
			do   func(p *ringer, c *conv)
			want int
		}{
			{"back to the menu", func(_ *ringer, c *conv) { c.answer("m").asks(wire.ForChoice) }, 1},
			{"gives up", func(_ *ringer, c *conv) { c.send(wire.Step{Cancel: true}) }, 1},
			{"nobody comes back", func(_ *ringer, c *conv) {
				r.clock.Advance(5 * time.Minute)
				if _, err := r.svc.Expire(r.Context()); err != nil {
					r.Fatal(err)
				}
			}, 1},
			{"waits on", func(_ *ringer, c *conv) { c.answer("").asks(wire.ForPush).answer("").asks(wire.ForPush) }, 0},
		} {
			p, _ := sending(r)
			u := r.addUser(strings.ReplaceAll(c.name, " ", "-"))
			r.addKind(u, policy.Push, true)
			r.addTOTP(u)
			conv := r.begin(begin(u.Name, waits)).asks(wire.ForChoice).answer("1").asks(wire.ForPush)
			c.do(p, conv)
			if len(p.withdrawn) != c.want || c.want > 0 && p.withdrawn[0] != conv.id {
				r.Errorf("%s: withdrawn %q", c.name, p.withdrawn)
			}
		}
	})
}

func TestS2ASilentPhoneLeadsToTheOthers(t *testing.T) {
	onBoth(t, func(r *rig) {
		p, u, a, c := phoneAndApp(r)
		c.answer("1").asks(wire.ForPush)
		p.say(factor.Verdict{Outcome: factor.Over, Reason: factor.ReasonExpired, Text: "Nobody is there."})
		c.answer("").says("Nobody is there.").asks(wire.ForChoice).answer("2").asks(wire.ForCode).answer(a.code()).allowed(true)
		if n := r.attempt(u, r.machine.ID).Failures; n != 0 {
			t.Errorf("silence counts as %d attempts", n)
		}
		if e := r.events(event.FactorRejected); len(e) != 1 || e[0].Reason != factor.ReasonExpired || e[0].Factor != "push" {
			t.Errorf("events %+v", e)
		}
	})
}

func TestS2ASilentPhoneAloneEndsIt(t *testing.T) {
	onOne(t, func(r *rig) {
		p, _ := sending(r)
		r.addKind(r.addUser("alice"), policy.Push, true)
		c := r.begin(begin("alice", waits)).asks(wire.ForPush)
		if len(c.last.Prompt.Options) != 0 {
			t.Errorf("a way back to no menu: %+v", c.last.Prompt)
		}
		c.answer("m").says(text.NoOtherWay).asks(wire.ForPush)
		p.say(factor.Verdict{Outcome: factor.Over, Reason: factor.ReasonExpired})
		c.answer("").denied(text.NobodyThere, factor.ReasonExpired)
	})
}

func TestS12NoOnThePhoneEndsItAndCounts(t *testing.T) {
	onBoth(t, func(r *rig) {
		p, u, _, c := phoneAndApp(r)
		for i, v := range []factor.Verdict{
			{Outcome: factor.Ended, Reason: factor.ReasonDenied, Text: "Denied on the phone."},
			{Outcome: factor.Ended, Reason: factor.ReasonReported, Text: "Denied on the phone."},
		} {
			c.answer("1").asks(wire.ForPush)
			p.say(v)
			c.answer("").denied("Denied on the phone.", v.Reason)
			if n := r.attempt(u, r.machine.ID).Failures; n != int64(i+1) {
				t.Errorf("%d denials count as %d", i+1, n)
			}
			c = r.begin(begin("alice", waits)).asks(wire.ForChoice)
		}
		// The third makes it wait.
		c.answer("1").asks(wire.ForPush)
		p.say(factor.Verdict{Reason: factor.ReasonWrongNumber, Text: "Another number."})
		c.answer("").says("Another number.")
		if d := c.done(); d.Outcome != policy.Deny || d.Reason != "back-off" {
			t.Errorf("%s", c.show())
		}
	})
}

func TestS2ARequestThatCanNotBeSentIsSaid(t *testing.T) {
	onBoth(t, func(r *rig) {
		p, _, a, c := phoneAndApp(r)
		p.refuse = fault.Newf(fault.TooMany, "Too many requests to this phone.")
		c.answer("1").says("Too many requests").asks(wire.ForChoice).answer("2").asks(wire.ForCode).answer(a.code()).allowed(true)
	})
	onOne(t, func(r *rig) {
		p, _ := sending(r)
		r.addKind(r.addUser("alice"), policy.Push, true)
		p.refuse = fault.Newf(fault.Unavailable, "No phone can be reached.")
		r.begin(begin("alice", waits)).denied("No phone can be reached.", "factor-not-sent")
	})
	onOne(t, func(r *rig) { // and does not go on for ever
		p, _, _, c := phoneAndApp(r)
		p.refuse = fault.Newf(fault.TooMany, "Too many requests to this phone.")
		for range 4 {
			c.answer("1").asks(wire.ForChoice)
		}
		c.answer("1").denied("Too many requests to this phone.", "factor-not-sent")
	})
}

// What can not be asked for is left out before it is decided, and the trace says so.
func TestS2WhatTheSeatCanNotDoIsNotAskedFor(t *testing.T) {
	passed := func(r *rig, c *conv) string {
		r.Helper()
		for _, s := range of(c.ending()).Trace {
			if s.Rule == "S2 factors of this seat" {
				return s.Why
			}
		}
		r.Fatal("the trace has no such rule")
		return ""
	}
	onOne(t, func(r *rig) {
		sending(r)
		u := r.addUser("alice")
		r.addKind(u, policy.Push, true)
		r.addKind(u, policy.FIDO2, true)
		a := r.addTOTP(u)
		c := r.begin(begin("alice")).asks(wire.ForCode) // neither waits nor has keys
		c.answer(a.code()).allowed(true)
		if got := passed(r, c); got != "without fido2, push: there is no way to ask for it here" {
			t.Errorf("%q", got)
		}
		// Who unlocks their own session may not have anything sent.
		r.setPolicy(func(p *policy.Policy) { p.Window = 0 })
		c = r.begin(begin("alice", waits, func(b *wire.Begin) { b.Unlock = true })).asks(wire.ForCode)
		c.answer(a.fresh()).allowed(true)
		if got := passed(r, c); got != "without fido2, push: there is no way to ask for it here" {
			t.Errorf("%q", got)
		}
	})
	onOne(t, func(r *rig) { // one that nobody has confirmed is none
		sending(r)
		u := r.addUser("alice")
		r.addKind(u, policy.Push, false)
		r.begin(begin("alice", waits)).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
	})
}

func TestP1AChainGoesThroughEachKindOnce(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(func(p *policy.Policy) {
			p.FactorsOnline, p.OnlineFactors = 3, []policy.Factor{policy.Push, policy.TOTP, policy.Backup, policy.Mail}
		})
		p, l := sending(r)
		u := r.addUser("alice")
		r.addKind(u, policy.Push, true)
		r.addKind(u, policy.Mail, true)
		a, codes := r.addTOTP(u), r.addBackup(u)

		c := r.begin(begin("alice", waits)).asks(wire.ForChoice)
		if q := c.last.Prompt; q.Text != "Step 1 of 3. "+text.PromptFactor || len(q.Options) != 4 || q.Options[0] != "A phone" {
			t.Fatalf("prompt %+v", q)
		}
		c.answer("2").asks(wire.ForCode)
		if q := c.last.Prompt.Text; q != "Step 1 of 3. "+text.PromptCode {
			t.Errorf("prompt %q", q)
		}
		c.answer(a.code()).asks(wire.ForChoice)
		if q := c.last.Prompt; q.Text != "Step 2 of 3. "+text.PromptFactor || !slices.Equal(q.Options, []string{"A phone", text.OptionBackup, "A mail"}) {
			t.Errorf("the second menu: %+v", q)
		}
		c.answer("1").asks(wire.ForPush)
		if q := c.last.Prompt.Text; q != "Step 2 of 3. Number 42." {
			t.Errorf("prompt %q", q)
		}
		p.say(factor.Verdict{Outcome: factor.Accepted, Own: true})
		c.answer("").asks(wire.ForChoice)
		if q := c.last.Prompt; q.Text != "Step 3 of 3. "+text.PromptFactor || !slices.Equal(q.Options, []string{text.OptionBackup, "A mail"}) {
			t.Errorf("the third menu: %+v", q)
		}
		// What was sent is asked for in the words it was sent with, also behind a wrong code.
		c.answer("2").says("on its way").asks(wire.ForCode).answer("9999").says(text.WrongCode).asks(wire.ForCode)
		if q := c.last.Prompt.Text; q != "Step 3 of 3. Code from the mail to a…@example.org: " || len(l.asks) != 1 {
			t.Errorf("prompt %q, %d mails", q, len(l.asks))
		}
		// Nothing typed leads back, and another one may be taken.
		c.answer("").asks(wire.ForChoice).answer("1").asks(wire.ForCode).answer(codes[0]).allowed(true)
		if got := of(c.ending()).Factors; !slices.Equal(got, []string{"totp", "push", "backup"}) {
			t.Errorf("factors %q", got)
		}
	})
}

func TestM6WhoHasOnlyTheMailGetsAnother(t *testing.T) {
	onOne(t, func(r *rig) {
		r.setPolicy(func(p *policy.Policy) { p.OnlineFactors = []policy.Factor{policy.TOTP, policy.Mail} })
		_, l := sending(r)
		r.addKind(r.addUser("alice"), policy.Mail, true)
		c := r.begin(begin("alice")).asks(wire.ForCode).answer("").asks(wire.ForCode)
		if len(l.asks) != 2 {
			t.Errorf("asked %+v", l.asks)
		}
		c.answer("1234").allowed(true)
	})
}

// TestM6FromTheCodeBackToTheMenu: at the prompt for a code that was sent, m is no try; at that of an app it is one.
func TestM6FromTheCodeBackToTheMenu(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(func(p *policy.Policy) { p.OnlineFactors = []policy.Factor{policy.TOTP, policy.Mail} })
		_, l := sending(r)
		u := r.addUser("alice")
		r.addKind(u, policy.Mail, true)
		a := r.addTOTP(u)
		c := r.begin(begin("alice")).asks(wire.ForChoice).answer("2").asks(wire.ForCode).answer("m").asks(wire.ForChoice)
		if len(c.last.Messages) != 0 {
			t.Errorf("going back says %s", c.show())
		}
		c.answer("2").asks(wire.ForCode).answer(" 0 ").asks(wire.ForChoice)
		if len(l.asks) != 2 || r.attempt(u, r.machine.ID).Failures != 0 {
			t.Errorf("asked %+v, %d failures", l.asks, r.attempt(u, r.machine.ID).Failures)
		}
		c.answer("1").asks(wire.ForCode).answer("m").says(text.WrongCode).asks(wire.ForCode)
		if n := r.attempt(u, r.machine.ID).Failures; n != 1 {
			t.Errorf("%d failures", n)
		}
		c.answer(a.code()).allowed(true)
	})
	onOne(t, func(r *rig) { // without another way it is sent again, not for ever
		const most = 5
		r.setPolicy(func(p *policy.Policy) { p.OnlineFactors = []policy.Factor{policy.Mail} })
		_, l := sending(r)
		r.addKind(r.addUser("alice"), policy.Mail, true)
		c := r.begin(begin("alice")).asks(wire.ForCode)
		for range most - 1 {
			c.answer("m").asks(wire.ForCode)
		}
		c.answer("m").denied(text.DeniedCodes, "too-many-mistakes")
		if len(l.asks) != most {
			t.Errorf("%d were sent", len(l.asks))
		}
	})
}

// TestS12AMachinesWordAloneRingsNobody: root of a machine says of anybody that the password
// was right, or the key of sshd.
func TestS12AMachinesWordAloneRingsNobody(t *testing.T) {
	empty := func(b *wire.Begin) { b.Password = wire.Secret{} }
	onBoth(t, func(r *rig) {
		p, _ := sending(r)
		u := r.addUser("alice")
		r.addKind(u, policy.Push, true)
		a := r.addTOTP(u)
		c := r.begin(begin("alice", waits, second, empty)).asks(wire.ForChoice).answer("1").says(text.NotSentHere).asks(wire.ForChoice)
		if len(p.asks) != 0 {
			t.Fatalf("the phone rings: %+v", p.asks)
		}
		c.answer("2").asks(wire.ForCode).answer(a.code()).allowed(true)
		// Who was let in there once is somebody there.
		r.clock.Advance(time.Minute)
		r.update(func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.EndWindows(ctx, db.EndWindowsParams{UserID: u.ID, At: clock.Micros(r.clock.Now())})
			return err
		})
		r.begin(begin("alice", waits, second, empty)).asks(wire.ForChoice).answer("1").asks(wire.ForPush)
		if len(p.asks) != 1 || p.asks[0].Unproven {
			t.Errorf("asked %+v", p.asks)
		}
	})
	onOne(t, func(r *rig) { // the password was judged here
		p, _ := sending(r)
		r.addKind(r.addUser("alice"), policy.Push, true)
		r.begin(begin("alice", waits, second)).asks(wire.ForPush)
		if len(p.asks) != 1 || p.asks[0].Unproven {
			t.Errorf("asked %+v", p.asks)
		}
	})
	onOne(t, func(r *rig) { // a key can not be passed on: a little is sent
		p, _ := sending(r)
		r.addKind(r.addUser("alice"), policy.Push, true)
		r.begin(begin("alice", waits, ssh, key)).asks(wire.ForPush)
		if len(p.asks) != 1 || !p.asks[0].Unproven {
			t.Errorf("asked %+v", p.asks)
		}
	})
}

// A conversation has fifty seconds; a phone gets what it needs on top.
func TestAPhoneHasItsTime(t *testing.T) {
	onOne(t, func(r *rig) {
		p, _, _, c := phoneAndApp(r)
		r.clock.Advance(45 * time.Second)
		c.answer("1").asks(wire.ForPush)
		r.clock.Advance(59 * time.Second)
		p.say(factor.Verdict{Outcome: factor.Accepted, Own: true})
		c.answer("").allowed(true)
	})
	onOne(t, func(r *rig) { // but not for ever
		p, _, _, c := phoneAndApp(r)
		for range 3 {
			c.answer("1").asks(wire.ForPush)
			r.clock.Advance(49 * time.Second)
			c.answer("m").asks(wire.ForChoice)
		}
		c.answer("1").asks(wire.ForPush)
		r.clock.Advance(49 * time.Second)
		p.say(factor.Verdict{Outcome: factor.Accepted, Own: true})
		c.answer("").faults(fault.Expired)
	})
}

func TestWaitReturnsWhenSomethingCame(t *testing.T) {
	onOne(t, func(r *rig) {
		p, _, _, c := phoneAndApp(r)
		took := func(m db.Machine, id string) time.Duration {
			r.Helper()
			begun := time.Now()
			r.must(r.svc.Wait(r.Context(), m, id))
			return time.Since(begun)
		}
		if d := took(r.machine, c.id); d > time.Second {
			t.Errorf("a conversation that waits for nothing was waited for %s", d)
		}
		c.answer("1").asks(wire.ForPush)
		other := r.addMachine("desk-2")
		if d := took(other, c.id); d > time.Second {
			t.Errorf("another machine's conversation was waited for %s", d)
		}
		if d := took(r.machine, store.NewID()); d > time.Second {
			t.Errorf("no conversation was waited for %s", d)
		}
		go func() {
			time.Sleep(100 * time.Millisecond)
			p.woken <- struct{}{}
		}()
		if d := took(r.machine, c.id); d < 100*time.Millisecond || d > 2*time.Second {
			t.Errorf("woken after %s", d)
		}
		ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_ = r.svc.Wait(ctx, r.machine, c.id)
		if d := time.Since(begun); d > 2*time.Second {
			t.Errorf("a wait that was given up lasted %s", d)
		}
		// It is no step: the conversation goes on as if nothing had been.
		p.say(factor.Verdict{Outcome: factor.Accepted, Own: true})
		c.answer("").allowed(true)
	})
}

// Two replicas look at once: one of them takes the answer.
func TestALookIsTakenOnce(t *testing.T) {
	onBoth(t, func(r *rig) {
		p, _, _, c := phoneAndApp(r)
		c.answer("1").asks(wire.ForPush)
		p.say(factor.Verdict{Outcome: factor.Accepted, Own: true})
		c.answer("").allowed(true)
		first := c.last
		c.again()
		if c.err != nil || c.last.Done == nil || c.last.Done.Outcome != first.Done.Outcome || p.tries != 1 {
			t.Errorf("%s, judged %d times", c.show(), p.tries)
		}
	})
}
