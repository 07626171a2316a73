package signin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

func totpWaiting(a app) factor.TOTP {
	return factor.TOTP{Params: otp.DefaultParams, Seed: a.seed, Waiting: true}
}

func TestARepeatGetsTheSameReply(t *testing.T) {
	onBoth(t, func(r *rig) {
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		c := r.begin(begin("alice")).asks(wire.ForCode)
		first := c.last
		if diff := cmp.Diff(first, c.again().last); diff != "" {
			t.Error(diff)
		}
		c.answer(phone.wrong()).asks(wire.ForCode)
		c.again().says(text.WrongCode).asks(wire.ForCode)
		if n := r.attempt(u, r.machine.ID).Failures; n != 1 {
			t.Errorf("a repeat was counted: %d", n)
		}
		c.answer(phone.code()).allowed(true)
		end := c.last
		r.clock.Advance(time.Hour) // long after
		if diff := cmp.Diff(end, c.again().last); diff != "" {
			t.Error(diff)
		}
		if len(r.events(event.FactorAccepted)) != 1 || len(r.events(event.WindowOpened)) != 1 {
			t.Error("a repeat did something")
		}
		// What was said is not to be read from the table.
		row := c.row()
		if b, _ := json.Marshal(end); slices.Equal(b, row.Reply) || len(row.BodyHash) != 32 {
			t.Error("the reply lies in clear")
		}
		c.answerAnyway("1").faults(fault.Conflict)
	})
}

// answerAnyway sends an answer where none was asked for.
func (c *conv) answerAnyway(s string) *conv {
	c.r.Helper()
	c.last.Prompt, c.err = &wire.Prompt{}, nil
	return c.answer(s)
}

func TestTheSameStepWithAnotherBodyEndsTheConversation(t *testing.T) {
	onBoth(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		c := r.begin(begin("alice")).asks(wire.ForCode)
		c.answer(phone.wrong()).asks(wire.ForCode)
		c.seq--
		c.answer(phone.code()).faults(fault.Replayed)
		if e := c.ending(); e.Type != event.SigninDenied || e.Reason != "replayed" {
			t.Errorf("event %+v", e)
		}
		if e := r.events(event.SigninReplayed); len(e) != 1 || e[0].Subject != "alice" {
			t.Errorf("events %+v", e)
		}
		c.seq++
		c.answerAnyway(phone.code()).faults(fault.Conflict)
		// After a good end it is told, and changes nothing.
		c = r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowedConv(true)
		c.seq--
		c.answerAnyway("000000").faults(fault.Replayed)
		if e := c.ending(); e.Type != event.SigninAllowed {
			t.Errorf("event %+v", e)
		}
		// Steps do not overtake each other.
		c = r.begin(begin("alice", ssh)).asks(wire.ForCode)
		c.seq++
		c.answer(phone.fresh()).faults(fault.Conflict)
	})
}

func (c *conv) allowedConv(mfa bool) *conv { c.r.Helper(); c.allowed(mfa); return c }

func TestExpiredConversationsAreAbandonedOnce(t *testing.T) {
	onBoth(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		a := r.begin(begin("alice")).asks(wire.ForCode)
		b := r.begin(begin("alice")).asks(wire.ForCode)
		done := r.begin(begin("alice")).asks(wire.ForCode).answer(phone.code()).allowedConv(true)
		r.clock.Advance(50*time.Second + 1000)
		a.answer(phone.code()).faults(fault.Expired)
		if e := a.ending(); e.Type != event.SigninAbandoned || e.Reason != "timed-out" {
			t.Errorf("event %+v", e)
		}
		n, err := r.svc.Expire(t.Context())
		if err != nil || n != 1 {
			t.Errorf("Expire: %d, %v", n, err)
		}
		if n, err = r.svc.Expire(t.Context()); err != nil || n != 0 {
			t.Errorf("Expire again: %d, %v", n, err)
		}
		if e := b.ending(); e.Type != event.SigninAbandoned || e.Outcome != facts.Abandoned || len(of(e).Trace) == 0 {
			t.Errorf("event %+v", e)
		}
		b.answer(phone.code()).faults(fault.Conflict)
		if e := done.ending(); e.Type != event.SigninAllowed {
			t.Errorf("event %+v", e)
		}
		r.clock.Advance(25 * time.Hour)
		if _, err := r.svc.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.read(func(q *store.Queries) error {
			if _, err := q.GetConversation(context.Background(), done.id); !store.IsNotFound(err) {
				t.Errorf("an old conversation is kept: %v", err)
			}
			return nil
		})
	})
}

func TestGivingUp(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.addTOTP(r.addUser("alice"))
		c := r.begin(begin("alice")).asks(wire.ForCode).send(wire.Step{Cancel: true})
		if d := c.done(); d.Outcome != policy.Deny || d.Text != text.DeniedGivenUp || d.MFA {
			t.Errorf("Done %+v", d)
		}
		if e := c.ending(); e.Type != event.SigninAbandoned || e.Reason != "cancelled" {
			t.Errorf("event %+v", e)
		}
	})
}

func TestTheUserIsDisabledBetweenTwoSteps(t *testing.T) {
	onBoth(t, func(r *rig) {
		phone := r.addTOTP(r.addUser("alice"))
		c := r.begin(begin("alice")).asks(wire.ForCode)
		r.setUser("alice", func(p *db.UpdateUserParams) { p.Disabled = true })
		c.answer(phone.code()).denied(text.Denied(policy.ReasonDisabled, ""), "changed-meanwhile")
	})
}

func TestOneMachineDoesNotOpenConversationsWithoutEnd(t *testing.T) {
	onOne(t, func(r *rig) {
		r.addTOTP(r.addUser("alice"))
		b := begin("alice", second, with(""))
		for range 256 {
			r.begin(b).asks(wire.ForCode)
		}
		r.begin(b).faults(fault.TooMany)
		other := r.talk().on(r.addMachine("desk-2"))
		other.send(wire.Step{Begin: &b}).asks(wire.ForCode)
		r.clock.Advance(time.Minute)
		if _, err := r.svc.Expire(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.begin(b).asks(wire.ForCode)
	})
}

// atOnce runs the steps at the same moment and returns the conversations.
func atOnce(cs []*conv, answer string) {
	var wg sync.WaitGroup
	ready := make(chan struct{})
	for _, c := range cs {
		wg.Go(func() {
			<-ready
			c.answer(answer)
		})
	}
	close(ready)
	wg.Wait()
}

// outcomes counts how the conversations stand.
func outcomes(cs []*conv) (allowed, refused int) {
	for _, c := range cs {
		if c.err == nil && c.last.Done != nil && c.last.Done.Outcome == policy.Allow {
			allowed++
		} else if c.err == nil && (c.last.Prompt != nil || c.last.Done.Outcome == policy.Deny) {
			refused++
		}
	}
	return allowed, refused
}

// S10: a code is accepted once, on any replica and any machine that can reach it.
func TestS10OneCodeAtOnceOpensOnce(t *testing.T) {
	for _, kind := range []policy.Factor{policy.TOTP, policy.Backup, policy.Bypass} {
		t.Run(string(kind), func(t *testing.T) {
			c := clock.NewManual(start)
			storetest.Databases(t, func(t *testing.T, database string) {
				a := storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "a"})
				r := newRig(t, a, c)
				replicas := []*signin.Service{r.svc, r.svc}
				if a.Engine() == "postgresql" { // SQLite has one server
					replicas[1] = r.replica(storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "b"}))
				}
				u := r.addUser("alice")
				phone, codes := app{r: r}, []string(nil)
				switch kind {
				case policy.TOTP:
					phone = r.addTOTP(u)
				case policy.Backup:
					codes = r.addBackup(u)
				}
				// Two places to try it at once: more would have to wait for being wrong.
				machines := []db.Machine{r.machine, r.addMachine("desk-2")}
				const rounds = 6
				for round := range rounds {
					var code string
					switch kind {
					case policy.TOTP:
						code = phone.fresh()
					case policy.Backup:
						code = codes[round]
					case policy.Bypass:
						code = r.addBypass(u, "")
					}
					var cs []*conv
					for i, m := range machines {
						cv := r.talk().on(m)
						cv.svc = replicas[i%2]
						b := begin("alice", second, with(""), boot(fmt.Sprint(round)))
						cs = append(cs, cv.send(wire.Step{Begin: &b}).asks(wire.ForCode))
					}
					atOnce(cs, code)
					if allowed, refused := outcomes(cs); allowed != 1 || refused != 1 {
						t.Fatalf("round %d: %d allowed, %d refused: %s %s", round, allowed, refused, cs[0].show(), cs[1].show())
					}
					// Forgive the wrong one, so that the next round is judged.
					r.update(func(ctx context.Context, tx *store.Tx) error {
						_, err := tx.ClearAttemptsOfUser(ctx, u.ID)
						return err
					})
				}
				n := len(r.events(event.FactorAccepted))
				if n != rounds {
					t.Errorf("%d events of an accepted factor", n)
				}
			})
		})
	}
}

// The same step twice at once is judged once.
func TestARepeatAtTheSameMomentIsJudgedOnce(t *testing.T) {
	c := clock.NewManual(start)
	storetest.Databases(t, func(t *testing.T, database string) {
		a := storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "a"})
		r := newRig(t, a, c)
		second := r.svc
		if a.Engine() == "postgresql" {
			second = r.replica(storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "b"}))
		}
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		for round := range 5 {
			x := r.talk()
			y := *x
			y.svc = second
			b := begin("alice", boot(fmt.Sprint(round)))
			both := func(s wire.Step) {
				var wg sync.WaitGroup
				for _, cv := range []*conv{x, &y} {
					wg.Go(func() { cv.send(s) })
				}
				wg.Wait()
				if x.err != nil || y.err != nil {
					t.Fatal(x.err, y.err)
				}
				if diff := cmp.Diff(x.last, y.last); diff != "" {
					t.Fatalf("two replies:\n%s", diff)
				}
			}
			both(wire.Step{Begin: &b})
			x.asks(wire.ForCode)
			both(answerStep(phone.wrong()))
			x.asks(wire.ForCode)
			if n := r.attempt(u, r.machine.ID).Failures; n != 1 {
				t.Fatalf("%d failures", n)
			}
			both(answerStep(phone.fresh()))
			x.allowed(true)
		}
	})
}

// A conversation belongs to no replica.
func TestEachStepOnAnotherReplica(t *testing.T) {
	c := clock.NewManual(start)
	database := storetest.PostgreSQL(t)
	r := newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "a"}), c)
	other := r.replica(storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "b"}))
	u := r.addUser("alice")
	phone, codes := r.addTOTP(u), r.addBackup(u)
	_ = phone
	cv := r.begin(begin("alice")).asks(wire.ForChoice)
	cv.svc = other
	cv.answer("2").asks(wire.ForCode)
	cv.svc = r.svc
	cv.answer("AAAAA-AAAA-AAAA").asks(wire.ForCode)
	cv.svc = other
	cv.answer(codes[0]).allowed(true)
	cv.svc = r.svc
	cv.again().allowed(true)
}
