package signin_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

func TestS1PasswordAndCodeOpen(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		c := r.begin(begin("alice")).asks(wire.ForCode)
		if c.last.Prompt.Kind != wire.PromptSecret || c.last.Prompt.Text != text.PromptCode {
			t.Errorf("the prompt is %+v", c.last.Prompt)
		}
		d := c.answer(phone.code()).allowed(true)
		want := &wire.Done{
			Outcome: policy.Allow, Reason: string(policy.ReasonMFA), UserID: u.ID, UserName: "alice", MFA: true, PasswordJudged: true, Offline: true,
			Spent: []wire.Spent{{Authenticator: phone.id, Step: start.Unix() / 30}},
		}
		if diff := cmp.Diff(want, d); diff != "" {
			t.Errorf("Done (-want +got):\n%s", diff)
		}
		row := c.row()
		if row.Outcome != "allow" || row.UserID != u.ID || !facts.MayPrepare(row, r.machine.ID, r.clock.Now()) || row.Data != nil {
			t.Errorf("the row is %+v", row)
		}
		if facts.MayPrepare(row, r.machine.ID, r.clock.Now().Add(5*time.Minute+1000)) || facts.MayPrepare(row, "other", r.clock.Now()) {
			t.Error("offline data for a stale conversation or another machine")
		}
		e := c.ending()
		if e.Type != event.SigninAllowed || e.Subject != "alice" || e.UserID != u.ID || e.Machine != "desk-1" || e.Scope != "logon" ||
			e.Service != "login" || e.Link != "up" || e.Outcome != "allow" || e.Factor != "totp" || e.Address != "192.0.2.20" {
			t.Errorf("the event is %+v", e)
		}
		if got := r.events(event.FactorAccepted); len(got) != 1 || got[0].Factor != "totp" {
			t.Errorf("factor events: %+v", got)
		}
	})
}

func TestS13TheTraceOfTheEventIsThatOfAnExplanation(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.addTOTP(r.addUser("alice"))
		c := r.begin(begin("alice")).asks(wire.ForCode)
		var want policy.Decision
		r.read(func(q *store.Queries) error {
			req, f, _, err := facts.Gather(t.Context(), q, r.machine, facts.Ask{
				Name: facts.Name{User: "alice"}, Scope: policy.Logon, Service: "login", At: r.clock.Now(), Link: policy.LinkUp,
				First: policy.FirstServer, Result: policy.FirstAccepted, MachineAddr: addr, Boot: "boot-1",
			})
			want = policy.Decide(req, f)
			return err
		})
		c.send(wire.Step{Cancel: true})
		if diff := cmp.Diff(want.Trace, of(c.ending()).Trace); diff != "" {
			t.Errorf("trace (-explained +event):\n%s", diff)
		}
	})
}

func TestS2AMenuWhereThereIsAChoice(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone, codes := r.addTOTP(u), r.addBackup(u)
		c := r.begin(begin("alice")).asks(wire.ForChoice)
		if diff := cmp.Diff([]string{text.OptionTOTP, text.OptionBackup}, c.last.Prompt.Options); diff != "" {
			t.Error(diff)
		}
		c.answer("3").says(text.NotAChoice).asks(wire.ForChoice)
		c.answer(phone.code()).asks(wire.ForChoice)
		c.answer("2").asks(wire.ForCode)
		// Nothing typed is the way back.
		c.answer(" ").asks(wire.ForChoice)
		c.answer("2").asks(wire.ForCode)
		d := c.answer(strings.ToLower(codes[3])).allowed(true)
		if len(d.Spent) != 1 || d.Spent[0].Backup == "" {
			t.Errorf("spent: %+v", d.Spent)
		}
		if r.attempt(u, r.machine.ID).Failures != 0 {
			t.Error("what is no attempt was counted")
		}
		// Endless dithering ends.
		c = r.begin(begin("alice", boot("boot-2"))).asks(wire.ForChoice)
		for range 4 {
			c.answer("").asks(wire.ForChoice)
		}
		c.answer("").denied(text.DeniedCodes, "too-many-mistakes")
	})
}

func TestS2TwoFactorsWhereThePolicyAsksForTwo(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(func(p *policy.Policy) { p.FactorsOnline = 2 })
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		r.begin(begin("alice")).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
		codes := r.addBackup(u)
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.answer(phone.code()).asks(wire.ForCode)
		if c.last.Prompt.Text != text.Step(2, 2, text.PromptBackup) {
			t.Errorf("second prompt: %+v", c.last.Prompt)
		}
		if n := r.attempt(u, r.machine.ID).Failures; n != 0 {
			t.Errorf("a right code leaves %d failures", n)
		}
		// The first factor does not count twice.
		c.answer(phone.fresh()).says(text.WrongCode).asks(wire.ForCode)
		d := c.answer(codes[0]).allowed(true)
		if len(d.Spent) != 2 {
			t.Errorf("spent: %+v", d.Spent)
		}
		if e := c.ending(); e.Factor != "totp+backup" {
			t.Errorf("factors of the event: %q", e.Factor)
		}
	})
}

// Before an accepted first factor everybody gets the same reply, and costs the same.
func TestS5OneAnswerForEveryFailureBeforeTheFirstFactor(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.addTOTP(r.addUser("alice"))
		r.addUser("disabled", func(p *db.InsertUserParams) { p.Disabled = true })
		r.addUser("tomorrow", func(p *db.InsertUserParams) {
			p.Activation, p.ActivateAt = facts.ActivationAt, clock.Micros(start.Add(24*time.Hour))
		})
		r.addUser("nopassword", func(p *db.InsertUserParams) { p.PasswordHash = "" })
		uid := uint32(1000)
		r.addUser("numbered", func(p *db.InsertUserParams) { n := int64(uid); p.UID = &n })
		locked := r.addUser("locked")
		paused := r.addUser("paused")
		r.update(func(ctx context.Context, tx *store.Tx) error {
			for _, id := range []string{locked.ID, paused.ID} {
				if _, err := tx.CountAttempt(ctx, db.CountAttemptParams{UserID: id, MachineID: r.machine.ID, At: clock.Micros(start)}); err != nil {
					return err
				}
			}
			if _, err := tx.BlockAttempts(ctx, db.BlockAttemptsParams{UserID: locked.ID, MachineID: r.machine.ID, LockedUntil: clock.Micros(start.Add(time.Hour))}); err != nil {
				return err
			}
			_, err := tx.BlockAttempts(ctx, db.BlockAttemptsParams{UserID: paused.ID, MachineID: r.machine.ID, BlockedUntil: clock.Micros(start.Add(time.Hour))})
			return err
		})
		want := wire.StepReply{Done: &wire.Done{Outcome: policy.Deny, Reason: "first-factor-rejected", Text: constant}}
		for name, c := range map[string]struct {
			begin  wire.Begin
			reason string // in the event
		}{
			"a wrong password":                             {begin("alice", with(wrongPassword)), "first-factor-rejected"},
			"an unknown name":                              {begin("nobody"), "user-unknown"},
			"S6 another case":                              {begin("Alice"), "name-differs"},
			"S5 another name of the same account":          {begin("other", func(b *wire.Begin) { b.UID = &uid }), "name-differs"},
			"S5 an alias":                                  {begin("other", func(b *wire.Begin) { b.Aliases = []string{"alice"} }), "name-differs"},
			"a disabled user with the right password":      {begin("disabled"), "user-disabled"},
			"D1 a user of tomorrow":                        {begin("tomorrow"), "user-not-active-yet"},
			"a user without a password":                    {begin("nopassword"), "first-factor-rejected"},
			"S10 locked out, with the right password":      {begin("locked"), "locked-out"},
			"S10 who must wait, with the right password":   {begin("paused"), "back-off"},
			"an empty name":                                {begin(""), "bad-request"},
			"a name with control characters":               {begin("ali\x00ce\x1b[2J"), "user-unknown"},
			"a name that becomes another by cleaning":      {begin("alice\x07"), "user-unknown"},
			"a name of 10 kB":                              {begin(strings.Repeat("alice", 2000)), "user-unknown"},
			"a name that is not UTF-8":                     {begin("alice\xff"), "user-unknown"},
			"mode second that nobody has judged":           {begin("alice", func(b *wire.Begin) { b.Mode = "second"; b.Password = wire.Secret{} }), "first-factor-rejected"},
			"S5 mode second, rejected by the server":       {begin("alice", second, with(wrongPassword)), "first-factor-rejected"},
			"a key login that is not remote":               {begin("alice", key, func(b *wire.Begin) { b.Mode = "second" }), "first-factor-rejected"},
			"a password of 300 octets with the right head": {begin("alice", with(password+strings.Repeat("x", 300))), "first-factor-rejected"},
		} {
			r.Helper()
			conv := r.begin(c.begin)
			if diff := cmp.Diff(want, conv.last); conv.err != nil || diff != "" {
				t.Errorf("%s: %v\n%s", name, conv.err, diff)
				continue
			}
			if e := conv.ending(); e.Type != event.SigninDenied || e.Reason != c.reason {
				t.Errorf("%s: event %s with reason %s, want %s", name, e.Type, e.Reason, c.reason)
			}
		}
	})
}

// With mode=full and no password yet, everybody is asked for one.
func TestS5EverybodyIsAskedForThePassword(t *testing.T) {
	onBoth(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		r.addUser("disabled", func(p *db.InsertUserParams) { p.Disabled = true })
		for _, name := range []string{"nobody", "disabled", "Alice"} {
			r.begin(begin(name, with(""))).asks(wire.ForPassword).answer(password)
		}
		for _, e := range r.events(event.SigninDenied) {
			if e.Reason == "" {
				t.Errorf("no reason: %+v", e)
			}
		}
		c := r.begin(begin("alice", with(""))).asks(wire.ForPassword)
		c.answer(wrongPassword).denied(constant, "first-factor-rejected")
		r.begin(begin("alice", with(""))).asks(wire.ForPassword).answer(password).asks(wire.ForCode).answer(phone.code()).allowed(true)
	})
}

func TestS1ModeSecond(t *testing.T) {
	onBoth(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		bob := r.addUser("bob", func(p *db.InsertUserParams) { p.PasswordHash = "" })
		bobs := r.addTOTP(bob)
		// The server agrees with the machine.
		d := r.begin(begin("alice", second)).asks(wire.ForCode).answer(phone.code()).allowed(true)
		if !d.PasswordJudged {
			t.Error("the server has judged the password")
		}
		// There was no password to judge.
		d = r.begin(begin("alice", second, with(""), boot("b2"))).asks(wire.ForCode).answer(phone.fresh()).allowed(true)
		if d.PasswordJudged {
			t.Error("nothing was judged")
		}
		// The server has none: the machine's word stands.
		r.begin(begin("bob", second)).asks(wire.ForCode).answer(bobs.code()).allowed(true)
		// Behind the machine's word denials are explained.
		r.begin(begin("ALICE", second)).denied(text.Denied(policy.ReasonNearMiss, ""), "name-differs")
		r.begin(begin("nobody", second)).denied(text.Denied(policy.ReasonUnknownDenied, ""), "user-unknown")
		// A key login over ssh.
		d = r.begin(begin("alice", ssh, key, func(b *wire.Begin) { b.Mode = "second" })).asks(wire.ForCode).answer(phone.fresh()).allowed(true)
		if d.PasswordJudged {
			t.Error("there was no password")
		}
		r.begin(begin("alice", ssh, key)).asks(wire.ForCode).answer(phone.fresh()).allowed(true)
	})
}

func TestS4AndS5WhatIsLeftToTheMachine(t *testing.T) {
	onBoth(t, func(r *rig) {
		root := uint32(0)
		r.setPolicy(func(p *policy.Policy) { p.ExemptUIDs = []uint32{0} })
		r.addUser("off", func(p *db.InsertUserParams) { p.MFA = facts.MFAOff })
		asRoot := func(b *wire.Begin) { b.UID = &root }
		r.begin(begin("root", asRoot)).ignored("account-exempt")
		r.begin(begin("root", asRoot, with(""))).ignored("account-exempt")
		r.begin(begin("root", asRoot, second)).ignored("account-exempt")
		d := r.begin(begin("root", asRoot, ssh, key)).allowed(false)
		if d.UserID != "" {
			t.Errorf("the server does not know root: %+v", d)
		}
		// Exempt, but known and with another password here: the server's word counts.
		r.addUser("admin")
		r.begin(begin("admin", asRoot, with(wrongPassword))).denied(constant, "first-factor-rejected")

		r.begin(begin("off")).allowed(false)
		r.begin(begin("off", second)).ignored("2fa-off")

		m := r.addMachine("lab", func(p *db.InsertMachineParams) { p.UnknownUsers = facts.UnknownSkip })
		guest := begin("guest")
		r.talk().on(m).send(wire.Step{Begin: &guest}).ignored("user-unknown-skipped")
		near := begin("ADMIN", second)
		r.talk().on(m).send(wire.Step{Begin: &near}).denied(text.Denied(policy.ReasonNearMiss, ""), "name-differs")
		only := r.addMachine("vault", func(p *db.InsertMachineParams) { p.AllUsers = false })
		admin := begin("admin")
		r.talk().on(only).send(wire.Step{Begin: &admin}).denied(text.Denied(policy.ReasonNotAssigned, ""), "user-not-assigned")
	})
}

func TestW1W5TheWindowSilencesWhatItShould(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		if r.windows() != 1 || len(r.events(event.WindowOpened)) != 1 {
			t.Fatal("no window was opened")
		}
		d := r.begin(begin("alice")).allowed(false)
		if d.Reason != string(policy.ReasonWindow) || d.Offline || d.Spent != nil {
			t.Errorf("silent logon: %+v", d)
		}
		r.begin(begin("alice", second)).ignored("window-valid")
		// Not at sudo, over ssh, after a boot, on another machine, or for somebody else.
		r.begin(begin("alice", in(policy.Elevation, "sudo"))).asks(wire.ForCode)
		r.begin(begin("alice", ssh)).asks(wire.ForCode)
		r.begin(begin("alice", boot("boot-2"))).asks(wire.ForCode)
		r.begin(begin("alice", boot(""))).asks(wire.ForCode)
		b := begin("alice")
		r.talk().on(r.addMachine("desk-2")).send(wire.Step{Begin: &b}).asks(wire.ForCode)
		// It ends by itself.
		r.clock.Advance(8*time.Hour - time.Second)
		r.begin(begin("alice")).allowed(false)
		r.clock.Advance(time.Second)
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		// A newer one takes the place of an older one.
		r.clock.Advance(time.Minute)
		r.begin(begin("alice", in(policy.Elevation, "sudo"))).asks(wire.ForCode).answer(phone.code()).allowed(true)
		if n := r.windows(); n != 1 {
			t.Errorf("%d windows stand", n)
		}
		// W1: a length of nought opens none.
		r.setPolicy(func(p *policy.Policy) { p.Window = 0 })
		r.clock.Advance(9 * time.Hour)
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		if r.windows() != 0 {
			t.Error("a window of no length")
		}
	})
}

func TestW6WhatEndsAWindow(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(func(p *policy.Policy) { p.WindowEndsOn = []policy.WindowEnd{policy.EndLogoff, policy.EndOffline} })
		phone, bobs := r.addTOTP(r.addUser("alice")), r.addTOTP(r.addUser("bob"))
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		r.begin(begin("bob")).asks(wire.ForCode).answer(bobs.code()).allowed(true)
		for kind, left := range map[policy.WindowEnd]int{policy.EndNetwork: 2, policy.EndReboot: 2} {
			r.must(r.svc.Occasion(t.Context(), r.machine, wire.Occasion{Kind: kind}))
			if n := r.windows(); n != left {
				t.Errorf("after %s: %d windows", kind, n)
			}
		}
		r.must(r.svc.Occasion(t.Context(), r.machine, wire.Occasion{Kind: policy.EndLogoff, User: "nobody"}))
		r.must(r.svc.Occasion(t.Context(), r.addMachine("desk-2"), wire.Occasion{Kind: policy.EndLogoff}))
		r.must(r.svc.Occasion(t.Context(), r.machine, wire.Occasion{Kind: policy.EndLogoff, User: "alice"}))
		if n := r.windows(); n != 1 {
			t.Errorf("after alice's log-off: %d windows", n)
		}
		r.begin(begin("alice")).asks(wire.ForCode)
		r.begin(begin("bob")).allowed(false)
		if err := r.svc.Occasion(t.Context(), r.machine, wire.Occasion{Kind: "fire"}); !fault.Is(err, fault.BadRequest) {
			t.Errorf("an occasion that does not exist: %v", err)
		}
	})
}

func TestS10WrongCodesBackOffAndLock(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.answer(phone.wrong()).says(text.WrongCode).asks(wire.ForCode)
		c.answer(phone.wrong()).says(text.WrongCode).asks(wire.ForCode)
		c.answer(phone.wrong()).denied(text.Wait(time.Second), "back-off")
		// Who must wait is not judged: not the password, and not the code.
		r.begin(begin("alice")).denied(constant, "back-off")
		r.begin(begin("alice", second, with(""))).denied(text.Wait(time.Second), "back-off")
		r.begin(begin("alice", second)).denied(text.Wait(time.Second), "back-off")
		if n := r.attempt(u, r.machine.ID).Failures; n != 3 {
			t.Errorf("%d failures are counted", n)
		}
		// Longer each time: 2, 4, 8, 16, 32, 64 seconds; the tenth locks.
		for n, wait := 4, 2*time.Second; n < 10; n, wait = n+1, wait*2 {
			r.clock.Advance(wait / 2)
			r.begin(begin("alice")).asks(wire.ForCode).answer(phone.wrong()).denied(text.Wait(wait), "back-off")
		}
		if len(r.events(event.LockoutBegan)) != 0 {
			t.Error("locked before the tenth")
		}
		r.clock.Advance(64 * time.Second)
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.wrong()).denied(text.Locked(15*time.Minute), "locked-out")
		locks := r.events(event.LockoutBegan)
		if len(locks) != 1 || locks[0].UserID != u.ID || of(locks[0]).Until != r.clock.Now().Add(15*time.Minute).Format(time.RFC3339) {
			t.Errorf("lock-out events: %+v", locks)
		}
		r.begin(begin("alice")).denied(constant, "locked-out")
		r.begin(begin("alice", second, with(""))).denied(text.Locked(15*time.Minute), "locked-out")
		// One machine does not lock a person out everywhere: there the ten mean a
		// pause of two seconds.
		r.clock.Advance(2 * time.Second)
		b := begin("alice")
		other := r.addMachine("desk-2")
		c = r.talk().on(other).send(wire.Step{Begin: &b}).asks(wire.ForCode)
		c.answer(phone.code()).allowed(true)
		if len(r.events(event.LockoutBegan)) != 1 {
			t.Error("the lock-out began twice")
		}
		r.clock.Advance(15 * time.Minute)
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		if a := r.attempt(u, r.machine.ID); a.Failures != 0 || a.LockedUntil != 0 {
			t.Errorf("a success forgives: %+v", a)
		}
	})
}

func TestS10SlowerAcrossMachines(t *testing.T) {
	onOne(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		for i := range 4 {
			m := r.addMachine("m" + string(rune('a'+i)))
			b := begin("alice")
			for range 2 {
				c := r.talk().on(m).send(wire.Step{Begin: &b}).asks(wire.ForCode)
				c.answer(phone.wrong()).asks(wire.ForCode)
				b = begin("alice")
			}
		}
		// Eight: the ninth means a pause everywhere, but no lock-out.
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.answer(phone.wrong()).denied(text.Wait(time.Second), "back-off")
		b := begin("alice", second, with(""))
		r.talk().on(r.addMachine("mz")).send(wire.Step{Begin: &b}).denied(text.Wait(time.Second), "back-off")
		if a := r.attempt(u, ""); a.Failures != 9 || a.LockedUntil != 0 {
			t.Errorf("across machines: %+v", a)
		}
		// Remembered longer than on one machine.
		r.clock.Advance(16 * time.Minute)
		r.begin(begin("alice", with(wrongPassword))).denied(constant, "first-factor-rejected")
		if here, all := r.attempt(u, r.machine.ID), r.attempt(u, ""); here.Failures != 1 || all.Failures != 10 {
			t.Errorf("after a while: %d here, %d across machines", here.Failures, all.Failures)
		}
		r.clock.Advance(2 * time.Second)
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		if a := r.attempt(u, ""); a.Failures != 0 {
			t.Errorf("a success forgives: %+v", a)
		}
	})
}

func TestS10WrongPasswordsCountWithTheCodes(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		for range 2 {
			r.begin(begin("alice", with(wrongPassword))).denied(constant, "first-factor-rejected")
		}
		c := r.begin(begin("alice")).asks(wire.ForCode)
		if n := r.attempt(u, r.machine.ID).Failures; n != 2 {
			t.Errorf("a right password leaves %d failures", n)
		}
		c.answer(phone.wrong()).denied(text.Wait(time.Second), "back-off")
		// A right password alone forgives nothing: who knows it could else try codes
		// for ever.
		r.clock.Advance(time.Second)
		r.begin(begin("alice")).asks(wire.ForCode)
		if a := r.attempt(u, r.machine.ID); a.Failures != 3 {
			t.Errorf("after a right password: %+v", a)
		}
		// And neither does a window.
		r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowed(true)
		r.begin(begin("alice", in(policy.Elevation, "sudo"))).asks(wire.ForCode).answer(phone.wrong()).asks(wire.ForCode)
		r.begin(begin("alice")).allowed(false)
		if a := r.attempt(u, r.machine.ID); a.Failures != 1 {
			t.Errorf("after a silent logon: %+v", a)
		}
		// Names that nobody has are not counted.
		for range 20 {
			r.begin(begin("nobody", with(wrongPassword))).denied(constant, "user-unknown")
		}
		// Forgotten after a while.
		r.clock.Advance(16 * time.Minute)
		r.begin(begin("alice", with(wrongPassword))).denied(constant, "first-factor-rejected")
		if a := r.attempt(u, r.machine.ID); a.Failures != 1 {
			t.Errorf("after a while: %+v", a)
		}
	})
}

func TestM1ACodeIsAcceptedOnce(t *testing.T) {
	onBoth(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		code := phone.code()
		r.begin(begin("alice")).asks(wire.ForCode).answer(code).allowed(true)
		c := r.begin(begin("alice", boot("b2"))).asks(wire.ForCode)
		c.answer(code).says(text.CodeUsed).asks(wire.ForCode)
		if got := r.events(event.FactorRejected); len(got) != 1 || got[0].Reason != "totp-replayed" {
			t.Errorf("events: %+v", got)
		}
		// The code of the step before is not a way round it.
		c.answer(phone.fresh()[:5] + "x").says(text.WrongCode).asks(wire.ForCode)
		c.answer(" " + phone.code()[:3] + " " + phone.code()[3:]).allowed(true)
	})
}

func TestM5ABackupCodeIsGoodOnce(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		codes := r.addBackup(u)
		if len(codes) != 10 {
			t.Fatal(codes)
		}
		for i, code := range codes {
			c := r.begin(begin("alice", boot(code))).asks(wire.ForCode)
			d := c.answer(code).allowed(true)
			if len(d.Spent) != 1 || d.Spent[0].Backup == "" {
				t.Errorf("spent: %+v", d.Spent)
			}
			if left := 9 - i; left < 4 {
				c.says(text.BackupLeft(left))
			} else if len(c.last.Messages) != 0 {
				t.Errorf("with %d left: %+v", left, c.last.Messages)
			}
			if i == 0 {
				c = r.begin(begin("alice", boot("x"))).asks(wire.ForCode)
				c.answer(code).says(text.BackupUsed).asks(wire.ForCode)
				if got := r.events(event.FactorRejected); got[0].Reason != "backup-used" {
					t.Errorf("event: %+v", got[0])
				}
			}
		}
		r.begin(begin("alice", boot("y"))).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
		old := codes[0]
		codes = r.addBackup(u)
		c := r.begin(begin("alice", boot("z"))).asks(wire.ForCode)
		c.answer(old).says(text.WrongCode).asks(wire.ForCode)
		c.answer(codes[0]).allowed(true)
	})
}

func TestE3ABypassCode(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		code := r.addBypass(u, policy.Logon)
		// Not in another scope.
		r.begin(begin("alice", in(policy.Elevation, "sudo"))).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
		c := r.begin(begin("alice")).asks(wire.ForCode)
		if c.last.Prompt.Text != text.PromptBypass {
			t.Errorf("prompt: %+v", c.last.Prompt)
		}
		d := c.answer(code).allowed(false)
		if d.Offline || d.Spent != nil || r.windows() != 0 || facts.MayPrepare(c.row(), r.machine.ID, r.clock.Now()) {
			t.Errorf("a bypass opened something: %+v", d)
		}
		spent := r.events(event.CodeSpent)
		if len(spent) != 1 || spent[0].Factor != "bypass" || !strings.Contains(string(spent[0].Data), "lost phone") {
			t.Errorf("event: %+v", spent)
		}
		r.begin(begin("alice")).denied(text.Denied(policy.ReasonNotEnrolled, ""), "not-enrolled")
		// Beside a factor it stands last in the menu, and it expires.
		r.addTOTP(u)
		code = r.addBypass(u, "")
		c = r.begin(begin("alice", ssh)).asks(wire.ForChoice)
		if c.last.Prompt.Options[len(c.last.Prompt.Options)-1] != text.OptionBypass {
			t.Errorf("menu: %v", c.last.Prompt.Options)
		}
		c.answer("2").asks(wire.ForCode)
		r.clock.Advance(45 * time.Second)
		c.answer(code).allowed(false)
		r.addBypass(u, "")
		r.clock.Advance(time.Hour)
		r.begin(begin("alice", ssh)).asks(wire.ForCode)
	})
}

func TestABypassCodeInAnotherScopeIsNotSpent(t *testing.T) {
	onOne(t, func(r *rig) {
		u := r.addUser("alice")
		logon, sudo := r.addBypass(u, policy.Logon), r.addBypass(u, policy.Elevation)
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.answer(sudo).says(text.WrongCode).asks(wire.ForCode)
		c.answer(logon).allowed(false)
		r.begin(begin("alice", in(policy.Elevation, "sudo"))).asks(wire.ForCode).answer(sudo).allowed(false)
	})
}

func TestO4WhoIsAskedWhetherToEnrolTheMachine(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(func(p *policy.Policy) { p.OfflineEnrol = policy.EnrolAsk })
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		c := r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).asks(wire.ForOfflineChoice)
		if r.windows() != 0 {
			t.Error("a window before the end")
		}
		if d := c.answer("2").allowed(true); d.Offline || facts.MayPrepare(c.row(), r.machine.ID, r.clock.Now()) {
			t.Errorf("not now, but %+v", d)
		}
		c = r.begin(begin("alice", boot("b2"))).asks(wire.ForCode).answer(phone.fresh()).asks(wire.ForOfflineChoice)
		if d := c.answer("1").allowed(true); !d.Offline || !facts.MayPrepare(c.row(), r.machine.ID, r.clock.Now()) {
			t.Errorf("yes, but %+v", d)
		}
		// Who is enrolled is not asked again.
		r.update(func(ctx context.Context, tx *store.Tx) error {
			return tx.InsertVault(ctx, db.InsertVaultParams{UserID: u.ID, MachineID: r.machine.ID, Generation: 1, State: "active", Class: "software", CreatedAt: 1, UpdatedAt: 1})
		})
		if d := r.begin(begin("alice", boot("b3"))).asks(wire.ForCode).answer(phone.fresh()).allowed(true); !d.Offline {
			t.Errorf("enrolled, but %+v", d)
		}
		for name, change := range map[string]func(*policy.Policy){
			"enrolment is off":           func(p *policy.Policy) { p.OfflineEnrol = policy.EnrolOff },
			"offline is denied":          func(p *policy.Policy) { p.Offline = policy.OfflineDeny },
			"offline asks for no factor": func(p *policy.Policy) { p.FactorsOffline = 0 },
			"offline asks for another":   func(p *policy.Policy) { p.OfflineFactors = []policy.Factor{policy.Backup} },
		} {
			r.setPolicy(change)
			if d := r.begin(begin("alice", boot(name))).asks(wire.ForCode).answer(phone.fresh()).allowed(true); d.Offline {
				t.Errorf("%s, but %+v", name, d)
			}
		}
	})
}

func TestAnUnlockOpensNothing(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.setPolicy(func(p *policy.Policy) { p.EnrolAtSignin = true })
		phone := r.addTOTP(r.addUser("alice", func(p *db.InsertUserParams) { p.MustChange = true }))
		r.addUser("bob")
		unlock := func(b *wire.Begin) { b.Unlock = true }
		c := r.begin(begin("alice", unlock)).asks(wire.ForCode).answer(phone.code())
		if d := c.allowed(true); d.Offline || d.PasswordChanged || r.windows() != 0 || facts.MayPrepare(c.row(), r.machine.ID, r.clock.Now()) {
			t.Errorf("an unlock opened something: %+v", d)
		}
		r.begin(begin("bob", unlock)).denied(text.DeniedUnlock, "unlock-needs-more")
	})
}

func TestFaultsOfTheRequest(t *testing.T) {
	onOne(t, func(r *rig) {
		r.addTOTP(r.addUser("alice"))
		step := func(id string, seq int64, body string) error {
			_, err := r.svc.Step(t.Context(), r.machine, addr, id, seq, []byte(body))
			return err
		}
		good := store.NewID()
		b, err := json.Marshal(wire.Step{Begin: new(begin("alice"))})
		r.must(err)
		body := string(b)
		for name, c := range map[string]struct {
			id   string
			seq  int64
			body string
			want fault.Code
		}{
			"no JSON":                       {good, 1, "x", fault.BadRequest},
			"an unknown field":              {good, 1, `{"begin":{"purpose":"signin","root":true}}`, fault.BadRequest},
			"two things at once":            {good, 2, `{"cancel":true,"answer":{"text":""}}`, fault.BadRequest},
			"nothing":                       {good, 1, `{}`, fault.BadRequest},
			"text behind the end":           {good, 1, body + "{}", fault.BadRequest},
			"an id that is none":            {"../../etc", 1, body, fault.BadRequest},
			"an id of another version":      {"6ba7b810-9dad-11d1-80b4-00c04fd430c8", 1, body, fault.BadRequest},
			"step 0":                        {good, 0, body, fault.BadRequest},
			"a beginning in the middle":     {good, 2, body, fault.BadRequest},
			"an answer at the beginning":    {good, 1, `{"answer":{"text":"MTIz"}}`, fault.BadRequest},
			"an answer to nothing":          {good, 2, `{"answer":{"text":"MTIz"}}`, fault.NotFound},
			"a scope that does not exist":   {good, 1, strings.Replace(body, `"logon"`, `"admin"`, 1), fault.BadRequest},
			"a mode that does not exist":    {good, 1, strings.Replace(body, `"full"`, `"half"`, 1), fault.BadRequest},
			"a first that only servers say": {good, 1, strings.Replace(body, `"mode"`, `"first":"server","mode"`, 1), fault.BadRequest},
			"a purpose that does not exist": {good, 1, strings.Replace(body, `"signin"`, `"console"`, 1), fault.BadRequest},
			"a password that is not base64": {good, 1, strings.Replace(body, `"password":"`, `"password":"!`, 1), fault.BadRequest},
			"an unlock that changes password": {
				good, 1, strings.Replace(strings.Replace(body, `"signin"`, `"password"`, 1), `"mode"`, `"unlock":true,"mode"`, 1), fault.BadRequest,
			},
		} {
			if err := step(c.id, c.seq, c.body); !fault.Is(err, c.want) {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			}
		}
		if n := len(r.events(endings...)); n != 0 {
			t.Errorf("%d events of what never began", n)
		}
		// Another machine does not get at a conversation.
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.on(r.addMachine("thief")).answer("123456").faults(fault.NotFound)
	})
}
