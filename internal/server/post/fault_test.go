//go:build linux

package post_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/post"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
	"latchkey/test/scale"
)

// The database goes away between the yes of the mail server and the note of it. It comes
// back within the lease: the mail was sent once. It stays away for longer: the mail comes
// twice and is not lost, as the package says. Meanwhile no code is asked for, or judged.
func TestTheDatabaseGoesAwayWhileAMailIsSent(t *testing.T) {
	for _, x := range []struct {
		name  string
		later time.Duration // than the lease
		mails int
	}{{"and comes back within the lease", 0, 1}, {"and stays away", 45 * time.Second, 2}} {
		t.Run(x.name, func(t *testing.T) {
			database, link := storetest.Linked(t)
			c := &later{}
			o := newOffice(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c, t.TempDir())
			o.store.OnEvent(o.Notice)
			o.user = o.person("anna", "anna@example.org")
			o.address(o.user, rest.ChannelMail, "anna@example.org")
			r := newRelay(t, relayOption{})
			o.mail(r.settings())
			if _, err := o.ask(rest.ChannelMail, "t", c.Now()); err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			away := make(chan struct{})
			r.set(func(r *relay) {
				r.data = func() error {
					once.Do(func() {
						link.Cut()
						close(away)
					})
					return nil
				}
			})
			stepped := make(chan error, 1)
			go func() {
				did, err := o.Step(t.Context(), rest.ChannelMail)
				if err == nil && !did {
					err = errors.New("there was nothing to send")
				}
				stepped <- err
			}()
			select {
			case <-away:
			case <-time.After(20 * time.Second):
				t.Fatal("nothing is sent")
			}
			if _, err := o.ask(rest.ChannelMail, "t2", c.Now()); !store.IsUnavailable(err) {
				t.Errorf("a code is asked for: %v", err)
			}
			err := o.store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				v, err := o.JudgeCode(ctx, tx, rest.ChannelMail, factor.Try{User: o.user, Ticket: "t", Door: factor.AtMachine, Typed: typed("12345678"), Now: c.Now()})
				if v.OK() {
					t.Error("a code opens without a database")
				}
				return err
			})
			if !store.IsUnavailable(err) {
				t.Errorf("a code is judged: %v", err)
			}
			c.put(x.later)
			if x.later == 0 {
				time.Sleep(3200 * time.Millisecond) // longer than one try to write it down
			}
			if x.later > 0 {
				if err := <-stepped; !store.IsUnavailable(err) {
					t.Errorf("what became of it was written down: %v", err)
				}
			}
			link.Mend()
			if x.later == 0 {
				if err := <-stepped; err != nil {
					t.Fatal(err)
				}
			}
			for until := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // the store finds the database again
				if did, err := o.Step(t.Context(), rest.ChannelMail); err == nil && !did {
					break
				} else if time.Now().After(until) {
					t.Fatalf("the database is not found again: %v", err)
				}
			}
			if q := o.queue(rest.ChannelMail); len(q) != 1 || q[0].State != "sent" || q[0].Tries != int64(x.mails) {
				t.Errorf("%+v", q)
			}
			codes := sentCodes(t, r)
			if len(codes) != x.mails || codes[0] != codes[len(codes)-1] {
				t.Fatalf("%d mails: %v", len(codes), codes)
			}
			if v := o.answer(rest.ChannelMail, "t", codes[0], c.Now()); !v.OK() {
				t.Errorf("the code: %+v", v)
			}
			if v := o.answer(rest.ChannelMail, "t", codes[len(codes)-1], c.Now()); v.OK() || v.Reason != factor.ReasonReplayed {
				t.Errorf("the code of the second mail: %+v", v)
			}
		})
	}
}

// A disk that is full: what is to be told is refused together with what it tells of, and
// whatever was not refused is sent once, as soon as there is room.
func TestAFullDiskLosesNoMessageAndSendsNoneTwice(t *testing.T) {
	dir := storetest.Small(t, scale.N(6<<20, 24<<20))
	if dir == "" {
		return // it went well in there
	}
	o := newOffice(t, storetest.Open(t, store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db")}), clock.Real, t.TempDir())
	o.store.OnEvent(o.Notice)
	r := newRelay(t, relayOption{})
	o.mail(r.settings())
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { o.Run(ctx) })
	defer work.Wait()
	defer cancel()

	want := map[string]bool{}
	refused := 0
	for round := range scale.N(2, 20) {
		var names []string
		for i := range 15 {
			name := fmt.Sprintf("p%d-%d", round, i)
			o.user = o.person(name, name+"@example.org")
			o.address(o.user, rest.ChannelMail, name+"@example.org")
			names = append(names, name)
		}
		coded := fmt.Sprint("code", round)
		o.user, o.machine = o.person(coded, ""), coded
		o.address(o.user, rest.ChannelMail, coded+"@example.org")
		room := storetest.Fill(t, dir)
		for _, name := range names {
			err := o.store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
				u, err := tx.GetUserByName(ctx, name)
				if err != nil {
					return err
				}
				_, err = tx.Event(event.Event{Type: event.PasswordChanged, UserID: u.ID, Data: []byte(`{"pad":"` + strings.Repeat("x", 2000) + `"}`)})
				return err
			})
			if err != nil && !store.IsUnavailable(err) {
				t.Errorf("refused as %v", err)
			}
			if err != nil {
				refused++
			}
			want[name] = err == nil
		}
		_, err := o.ask(rest.ChannelMail, coded, time.Now())
		if err != nil && !store.IsUnavailable(err) {
			t.Errorf("a code was refused as %v", err)
		}
		want[coded] = err == nil
		time.Sleep(500 * time.Millisecond) // the workers find it full
		room()
		// The next wakes them.
		last := fmt.Sprintf("last%d", round)
		o.user = o.person(last, last+"@example.org")
		o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
		want[last] = true
	}
	if refused == 0 {
		t.Fatal("the disk was never full")
	}
	waiting := func() (n int) {
		for _, q := range o.queue(rest.ChannelMail) {
			if q.State != "sent" {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(30 * time.Second); waiting() > 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	got := map[string]int{}
	for _, l := range r.letters() {
		got[l.to[0]]++
	}
	for name, confirmed := range want {
		if n := got[name+"@example.org"]; n > 1 || (n == 1) != confirmed {
			t.Errorf("%s, confirmed %v, got %d mails", name, confirmed, n)
		}
	}
	if n := waiting(); n > 0 {
		t.Errorf("%d messages wait for ever", n)
	}
	if rep, err := o.store.VerifyEvents(t.Context()); err != nil || !rep.Whole() {
		t.Errorf("%v %+v", err, rep)
	}
	t.Logf("%d were refused, %d mails", refused, len(r.letters()))
}

// A server is killed (SIGKILL) while a gateway, which charges for it, has a code: the next
// one sends the same code, once. Both may arrive; the code opens once.
func TestAServerIsKilledWhileATextMessageIsSent(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		for _, answered := range []bool{false, true} {
			t.Run(fmt.Sprint("the gateway has it: ", answered), func(t *testing.T) {
				dir := t.TempDir()
				c := &later{}
				if answered && filepath.Ext(database) == ".db" {
					database = storetest.SQLite(t)
				} else if answered {
					database = storetest.PostgreSQL(t)
				}
				o := newOffice(t, storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "first"}), c, dir)
				o.user = o.person("anna", "")
				o.address(o.user, rest.ChannelSMS, "+491701234567")
				var mu sync.Mutex
				var got []string
				hangs, killed := make(chan struct{}), make(chan struct{})
				first := true
				o.sms(gateway(t, func(w http.ResponseWriter, q *http.Request) {
					_ = q.ParseForm()
					mu.Lock()
					hang := first
					first = false
					if !hang || answered {
						got = append(got, codeIn(t, q.PostForm.Get("Body")))
					}
					mu.Unlock()
					if hang {
						close(hangs)
						<-killed
					}
					w.WriteHeader(http.StatusOK)
				}))
				if _, err := o.ask(rest.ChannelSMS, "t", c.Now()); err != nil {
					t.Fatal(err)
				}
				killedWhile(t, database, dir, hangs)
				close(killed)
				if o.step(rest.ChannelSMS) {
					t.Error("it is sent while another may still be sending it")
				}
				c.put(40 * time.Second)
				if !o.step(rest.ChannelSMS) || o.step(rest.ChannelSMS) {
					t.Error("it was not sent once more")
				}
				mu.Lock()
				defer mu.Unlock()
				want := 1
				if answered {
					want = 2
				}
				if len(got) != want || got[0] != got[len(got)-1] {
					t.Fatalf("%d messages: %v", len(got), got)
				}
				opened := 0
				for range 3 {
					if o.answer(rest.ChannelSMS, "t", got[0], c.Now()).OK() {
						opened++
					}
				}
				if opened != 1 {
					t.Errorf("the code opened %d times", opened)
				}
			})
		}
	})
}

// A clock that is put back, or was ahead and is right again, prolongs no code, keeps nobody
// from asking for one, and holds no message back.
func TestAClockThatIsWrongForCodesAndMessages(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(start)
		o := newOffice(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c, t.TempDir())
		o.store.OnEvent(o.Notice)
		o.user = o.person("anna", "anna@example.org")
		o.address(o.user, rest.ChannelMail, "anna@example.org")
		r := newRelay(t, relayOption{})
		o.mail(r.settings())
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		newest := func() string {
			t.Helper()
			all := r.letters()
			_, body := all[len(all)-1].read(t)
			return codeIn(t, body)
		}
		code := func(ticket string) string {
			t.Helper()
			_, err := o.ask(rest.ChannelMail, ticket, c.Now())
			must(err)
			o.step(rest.ChannelMail)
			return newest()
		}

		// Back an hour.
		one := code("t1")
		c.Advance(-time.Hour)
		if v := o.answer(rest.ChannelMail, "t1", one, c.Now()); v.OK() || v.Reason != post.ReasonTooLate {
			t.Errorf("a code of an hour from now: %+v", v)
		}
		two := code("t2")
		if v := o.answer(rest.ChannelMail, "t2", two, c.Now()); !v.OK() {
			t.Errorf("a code of now: %+v", v)
		}
		c.Advance(time.Hour)
		if v := o.answer(rest.ChannelMail, "t1", one, c.Now()); !v.OK() {
			t.Errorf("the first, when the clock is right again: %+v", v)
		}
		for ticket, code := range map[string]string{"t1": one, "t2": two} {
			if v := o.answer(rest.ChannelMail, ticket, code, c.Now()); v.OK() {
				t.Errorf("%s opens twice", ticket)
			}
		}

		// Two months ahead: somebody asks until he may not, one message waits, and a server
		// dies while it sends another.
		const months = 60 * 24 * time.Hour
		c.Advance(months)
		asked := 0
		for ; asked < 50; asked++ {
			if _, err := o.ask(rest.ChannelMail, fmt.Sprint("a", asked), c.Now()); fault.Is(err, fault.TooMany) {
				break
			} else if must(err); !o.step(rest.ChannelMail) {
				t.Fatal("a code is not sent")
			}
			if asked == 0 && !o.answer(rest.ChannelMail, "a0", newest(), c.Now()).OK() {
				t.Fatal("the first does not open")
			}
		}
		if asked == 0 || asked == 50 {
			t.Fatalf("%d codes were sent", asked)
		}
		n := len(r.letters())
		o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
		id, err := o.Lease(t.Context(), rest.ChannelMail)
		if must(err); id == "" {
			t.Fatal("nothing to lease")
		}
		o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
		c.Advance(-months)
		if o.step(rest.ChannelMail) {
			t.Error("what is due in two months is sent before anybody has looked at the clock")
		}
		if _, err := o.ask(rest.ChannelMail, "t3", c.Now()); !fault.Is(err, fault.TooMany) {
			t.Errorf("what was asked for in two months counts no more: %v", err)
		}
		must(o.Clear(t.Context()))
		for range 2 {
			if !o.step(rest.ChannelMail) {
				t.Error("what waited is not sent")
			}
		}
		if o.step(rest.ChannelMail) {
			t.Error("there is more than what waited")
		}
		if len(r.letters()) != n+2 {
			t.Errorf("%d mails, want %d", len(r.letters()), n+2)
		}
		three := code("t3")
		if v := o.answer(rest.ChannelMail, "t3", three, c.Now()); !v.OK() {
			t.Errorf("a code behind all that: %+v", v)
		}

		// Three days forward with a message in the queue: it is given up, with an event, and
		// an administrator sends it when the clock is right.
		o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
		c.Advance(72 * time.Hour)
		o.step(rest.ChannelMail)
		c.Advance(-72 * time.Hour)
		q := o.queue(rest.ChannelMail)
		last := q[len(q)-1]
		if last.State != "failed" || len(o.events(event.PostGivenUp)) == 0 {
			t.Fatalf("%+v", last)
		}
		o.update(func(ctx context.Context, tx *store.Tx) error {
			ok, err := o.Again(ctx, tx, last)
			if !ok {
				t.Error("it can not be sent again")
			}
			return err
		})
		n = len(r.letters())
		if !o.step(rest.ChannelMail) || len(r.letters()) != n+1 {
			t.Error("it is not sent again")
		}
	})
}
