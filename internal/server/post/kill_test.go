package post_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// The test binary is its own second server: one that a test kills while it sends.
const (
	childDatabase = "LATCHKEY_POST_DATABASE"
	childKeys     = "LATCHKEY_POST_KEYS"
)

// killedWhile has a server of its own send, and kills it when its message hangs.
func killedWhile(t *testing.T, database, keys string, hangs <-chan struct{}) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDatabase+"="+database, childKeys+"="+keys)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-hangs:
	case <-time.After(20 * time.Second):
		t.Error("the child sends nothing")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

func TestMain(m *testing.M) {
	if os.Getenv(childDatabase) == "" {
		os.Exit(m.Run())
	}
	if err := child(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child() error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Database: os.Getenv(childDatabase), Replica: "child", Clock: clock.Real})
	if err != nil {
		return err
	}
	p, err := poster(ctx, s, clock.Real, os.Getenv(childKeys))
	if err != nil {
		return err
	}
	p.Run(ctx)
	return nil
}

// later is the real clock, put forward.
type later struct {
	fixed
	mu sync.Mutex
	by time.Duration
}

func (l *later) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.by)
}

func (l *later) put(by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.by = by
}

// TestAServerIsKilled while it sends: what the relay had not taken is sent by the next
// one, once; what it had just taken, without anybody having written that down, comes twice
// and is not lost.
func TestAServerIsKilled(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		dir := t.TempDir() // of the keys: both use the same database
		for name, taken := range map[string]bool{"before the relay has it": false, "when the relay has it": true} {
			t.Run(name, func(t *testing.T) {
				c := &later{}
				o := newOffice(t, storetest.Open(t, store.Config{Database: database, Clock: c, Replica: fmt.Sprint("taken-", taken)}), c, dir)
				o.store.OnEvent(o.Notice)
				r := newRelay(t, relayOption{})
				m := r.settings()
				o.mail(m)
				o.user = o.person(fmt.Sprint("anna", taken), "anna@example.org")
				hangs, killed := make(chan struct{}), make(chan struct{})
				var once sync.Once
				stop := func() error {
					once.Do(func() {
						close(hangs)
						<-killed
					})
					return nil
				}
				r.set(func(r *relay) {
					if taken {
						r.data = stop
					} else {
						r.refuse = func(string) error { return stop() }
					}
				})
				o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
				killedWhile(t, database, dir, hangs)
				close(killed)
				if o.step(rest.ChannelMail) {
					t.Error("it is sent while another may still be sending it")
				}
				c.put(45 * time.Second)
				if !o.step(rest.ChannelMail) {
					t.Fatal("the message is lost")
				}
				time.Sleep(100 * time.Millisecond)
				want := 1
				if taken {
					want = 2
				}
				if n := len(r.letters()); n != want {
					t.Errorf("%d mails, want %d", n, want)
				}
				q := o.queue(rest.ChannelMail)
				if last := q[len(q)-1]; last.State != "sent" || last.Tries != 2 {
					t.Errorf("%+v", last)
				}
			})
		}
	})
}
