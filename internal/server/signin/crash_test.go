package signin_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// dying is a clock that ends the process, as far as one step can tell, at its n-th
// reading: 1 is within the claim, 2 between the claim and the outcome.
type dying struct {
	clock.Clock
	left int
}

var errDied = errors.New("the server died here")

func (d *dying) Now() time.Time {
	d.left--
	if d.left == 0 {
		panic(errDied)
	}
	return d.Clock.Now()
}

// dies sends the step to a server that dies at that reading.
func (c *conv) dies(reading int, s wire.Step) {
	c.r.Helper()
	healthy := c.svc
	defer func() {
		c.svc = healthy
		if got := recover(); got != errDied { //nolint:errorlint // the very value
			c.r.Fatalf("it did not die: %v, %s", got, c.show())
		}
	}()
	c.svc = signin.New(signin.Deps{
		Store: c.r.store, Keys: c.r.keys, Directories: c.r.dirs, Factors: c.r.factors, Clock: &dying{c.r.clock, reading},
	})
	c.send(s)
}

func TestTheServerDiesInTheMiddleOfAStep(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.svc.Impatient()
		u := r.addUser("alice")
		phone := r.addTOTP(u)
		b := begin("alice")
		for reading := 1; reading <= 2; reading++ {
			c := r.talk()
			c.dies(reading, wire.Step{Begin: &b})
			if reading == 2 {
				if n := r.attempt(u, r.machine.ID).Failures; n != 1 {
					t.Errorf("the attempt was not written down before it was judged: %d", n)
				}
			}
			c.again().asks(wire.ForCode)
			r.clock.Advance(30 * time.Second)
			// A wrong code that was counted stays counted: dying gives no guess back.
			before := r.attempt(u, r.machine.ID).Failures
			c.dies(reading, answerStep(phone.wrong()))
			c.again().says(text.WrongCode)
			if n := r.attempt(u, r.machine.ID).Failures; n != before+int64(reading) {
				t.Errorf("dying at %d: %d failures, before %d", reading, n, before)
			}
			r.update(func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.ClearAttemptsOfUser(ctx, u.ID)
				return err
			})
			c = r.begin(begin("alice", boot("x"))).asks(wire.ForCode)
			c.dies(reading, answerStep(phone.code()))
			c.again().allowed(true)
			if n := r.attempt(u, r.machine.ID).Failures; n != 0 {
				t.Errorf("a success leaves %d failures", n)
			}
			r.clock.Advance(9 * time.Hour)
		}
		// And who never comes back is abandoned.
		c := r.talk()
		c.dies(2, wire.Step{Begin: &b})
		r.clock.Advance(time.Minute)
		if n, err := r.svc.Expire(t.Context()); err != nil || n != 2 { // this one, and one with a wrong code
			t.Errorf("Expire: %d, %v", n, err)
		}
		c.again().faults(fault.Expired)
	})
}

// A queue of passwords that is full is told before anything is stored or counted.
func TestABusyServerJudgesNothing(t *testing.T) {
	onOne(t, func(r *rig) {
		u := r.addUser("alice")
		r.addTOTP(u)
		slow := local.Config{Slots: 1, Queue: 1, Cost: local.Cost{Memory: 32 << 10, Time: 8, Threads: 1}}
		var err error
		r.dirs, err = directory.All(directory.Deps{Clock: r.clock, Settings: map[string]any{directory.Local: slow}})
		r.must(err)
		r.svc = r.replica(r.store)
		dir := r.dirs.Of(nil)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					dir.Verify(ctx, nil, secret.FromString("x"))
				}
			})
		}
		for !dir.Busy() {
			time.Sleep(time.Millisecond)
		}
		c := r.talk()
		b := begin("alice")
		unavailable := false
		for range 50 {
			c.seq = 0
			// Not "unavailable": that would be a reason to go on without the server.
			if c.send(wire.Step{Begin: &b}); fault.Is(c.err, fault.TooMany) {
				unavailable = true
				r.read(func(q *store.Queries) error {
					if _, err := q.GetConversation(context.Background(), c.id); !store.IsNotFound(err) {
						t.Errorf("something was stored: %v", err)
					}
					return nil
				})
				if r.attempt(u, r.machine.ID).Failures != 0 {
					t.Error("something was counted")
				}
				break
			}
			c.id = store.NewID()
		}
		if !unavailable {
			t.Error("a full queue was never told")
		}
		stop()
		wg.Wait()
		c.again().asks(wire.ForCode)
	})
}

// A long queue that is not full: the first step, for which a machine waits two
// seconds, is told that the server is busy, and is not kept until the machine goes by
// its offline rules. Nothing is counted; later steps wait for their turn.
func TestALongQueueOfPasswordsIsNoServerThatIsGone(t *testing.T) {
	onOne(t, func(r *rig) {
		u := r.addUser("alice")
		r.addTOTP(u)
		slow := local.Config{Slots: 1, Queue: 1000, Cost: local.Cost{Memory: 16 << 10, Time: 6, Threads: 1}}
		var err error
		r.dirs, err = directory.All(directory.Deps{Clock: r.clock, Settings: map[string]any{directory.Local: slow}})
		r.must(err)
		r.svc = r.replica(r.store)
		dir := r.dirs.Of(nil)
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 300 {
			wg.Go(func() {
				for ctx.Err() == nil {
					dir.Verify(ctx, nil, secret.FromString("x"))
				}
			})
		}
		time.Sleep(300 * time.Millisecond) // all of them wait
		for _, name := range []string{"alice", "nobody"} {
			b := begin(name)
			b.Mode, b.First = "second", policy.FirstMachine
			c := r.talk()
			c.send(wire.Step{Begin: &b})
			r.must(c.err)
			if d := c.last.Done; d == nil || d.Outcome != policy.Deny || d.Text != text.DeniedBusy {
				t.Errorf("%s: %+v", name, c.last)
			}
		}
		if n := r.attempt(u, r.machine.ID).Failures; n != 0 {
			t.Errorf("%d failures were counted", n)
		}
		for _, e := range r.events(event.SigninDenied) {
			if e.Reason != "server-busy" {
				t.Errorf("%+v", e)
			}
		}
		stop()
		wg.Wait()
		b := begin("alice")
		b.Mode, b.First = "second", policy.FirstMachine
		c := r.talk()
		c.send(wire.Step{Begin: &b})
		c.asks(wire.ForCode)
	})
}

// asleep is a clock whose second reading waits: a server that hangs between the
// claim and the outcome of a step, and wakes up later.
type asleep struct {
	clock.Clock
	read  int
	there chan struct{}
	wake  chan struct{}
}

func (a *asleep) Now() time.Time {
	if a.read++; a.read == 2 {
		close(a.there)
		<-a.wake
	}
	return a.Clock.Now()
}

func TestAServerThatWakesUpTooLateChangesNothing(t *testing.T) {
	c := clock.NewManual(start)
	database := storetest.PostgreSQL(t)
	r := newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "a"}), c)
	r.svc.Impatient()
	other := storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "b"})
	u := r.addUser("alice")
	phone := r.addTOTP(u)
	hang := func(cv *conv, s wire.Step) (late *conv, wake func() *conv) {
		slow := &asleep{Clock: c, there: make(chan struct{}), wake: make(chan struct{})}
		late = new(*cv)
		late.svc = signin.New(signin.Deps{Store: other, Keys: r.keys, Directories: r.dirs, Factors: r.factors, Clock: slow, Grain: -1})
		woken := make(chan struct{})
		go func() {
			defer close(woken)
			late.send(s)
		}()
		<-slow.there
		cv.seq++
		cv.body = slices.Clone(late.body)
		return late, func() *conv {
			close(slow.wake)
			<-woken
			return late
		}
	}
	// A hash is computed by then, but its transaction has not begun: the sleeper
	// holds nothing that others wait for only because its replica is another one.
	cv := r.talk()
	b := begin("alice")
	_, wake := hang(cv, wire.Step{Begin: &b})
	cv.again().asks(wire.ForCode)
	wake().faults(fault.Conflict)
	cv.again().asks(wire.ForCode)

	_, wake = hang(cv, answerStep(phone.code()))
	cv.again().allowed(true)
	wake().faults(fault.Conflict)
	if n := len(r.events(event.FactorAccepted)); n != 1 {
		t.Errorf("%d events of an accepted factor", n)
	}
	r.eachEndHasOneEvent()
}
