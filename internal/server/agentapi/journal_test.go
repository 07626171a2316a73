package agentapi_test

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/store"
	"latchkey/internal/server/touch"
	"latchkey/internal/wire"
)

// guess says that a code was typed on the machine, by a proof of that code.
func (c *chain) guess(u *person, step int64, code string) {
	s := wire.Spent{Authenticator: u.auth, Step: step}
	s.Proof = wire.SpentProof(c.m.id, s, []byte(code))
	c.add(event.Event{Type: event.SigninAllowed, Subject: u.name, UserID: u.id, Scope: "logon", Link: "down", Outcome: "allow"}, &s)
}

func (u *person) right(step int64) string { return otp.DefaultParams.Code(u.seed, step) }

// not is a code that is not the one of that step.
func (u *person) not(step int64, n int) string {
	if c := fmt.Sprintf("%06d", n); c != u.right(step) {
		return c
	}
	return "999999"
}

func (u *person) spent() (step int64) {
	u.r.Helper()
	u.r.read(func(q *store.Queries) error {
		a, err := q.GetAuthenticator(u.r.Context(), u.auth)
		step = a.Step
		return err
	})
	return step
}

// Root on a machine tries codes of the next minutes in its journal, by proofs of them.
// After five wrong ones none is looked at; neither the answer nor a failure says which
// was right; and another server, or this one after a restart, knows of it.
func TestAJournalIsNoPlaceToGuessCodes(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, calm := r.joined(), r.joined()
		alice, bob := r.person("alice"), r.person("bob")
		m.enrolSoftware(alice)
		m.enrolSoftware(bob)
		calm.enrolSoftware(alice)
		step := otp.DefaultParams.Step(r.clock.Now()) + 8
		c := &chain{m: m}
		for i := range 200 {
			c.guess(alice, step, alice.not(step, i))
		}
		if got := c.deliver(0, 200); got.Seq != 200 {
			t.Errorf("%+v", got)
		}
		c.guess(alice, step, alice.right(step))
		if got := c.deliver(200, 201); got.Seq != 201 {
			t.Errorf("%+v", got)
		}
		if got := alice.spent(); got >= step {
			t.Errorf("step %d was spent by a guess behind 200 wrong ones", got-step)
		}
		forged := r.reasons(event.JournalForged)
		if n := strings.Count(forged, "code-was-not-typed-here"); n != 5 {
			t.Errorf("%d guesses were looked at", n)
		}
		if n := strings.Count(forged, "too-many-wrong-proofs"); n != 196 {
			t.Errorf("%d guesses were not", n)
		}
		// Another server of the same database, or this one after a start.
		anew := offline.New(offline.Config{Store: r.store, Keys: r.keys, Keeper: r.keeper, Clock: r.clock, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)})
		c.guess(alice, step, alice.right(step))
		if _, err := anew.Journal(t.Context(), r.machineRow(m.id), wire.Journal{Entries: c.list[201:]}); err != nil {
			t.Error(err)
		}
		if got := alice.spent(); got >= step {
			t.Error("another server looks at more guesses")
		}
		// It is this machine's word on this person that counts no more, today.
		c.guess(bob, step, bob.right(step))
		c.deliver(202, 203)
		if got := bob.spent(); got != step {
			t.Errorf("bob's step %d was spent, want %d", got, step)
		}
		other := &chain{m: calm}
		other.guess(alice, step-8, alice.right(step-8))
		other.deliver(0, 1)
		if got := alice.spent(); got != step-8 {
			t.Errorf("step %d was spent, want %d", got, step-8)
		}
		r.clock.off += 24 * time.Hour
		step += 2880
		c.guess(alice, step, alice.right(step))
		c.deliver(203, 204)
		if got := alice.spent(); got != step {
			t.Errorf("the day after step %d was spent, want %d", got, step)
		}
	})
}

// behind is where the machine's journal goes on.
func (r *rig) behind(m *machine) (prev event.Hash, seq uint64) {
	r.Helper()
	r.read(func(q *store.Queries) error {
		h, err := q.GetJournalHead(r.Context(), m.id)
		if store.IsNotFound(err) {
			return nil
		}
		copy(prev[:], h.Hash)
		seq = uint64(h.Seq)
		return err
	})
	return prev, seq
}

// A failure behind the judgement would say that a guess was right and leave the code
// good: whatever could fail is refused before anything is judged, right or wrong.
func TestAJournalThatCanNotBeWrittenIsNotJudged(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		m.enrolSoftware(alice)
		step := otp.DefaultParams.Step(r.clock.Now()) + 3
		for name, spoil := range map[string]func(e *wire.JournalEntry){
			"both kinds":               func(e *wire.JournalEntry) { e.Spent.Backup = "x\x00" },
			"both kinds, well-formed":  func(e *wire.JournalEntry) { e.Spent.Backup = "x" },
			"a user with a NUL":        func(e *wire.JournalEntry) { e.Event.UserID += "\x00" },
			"an authenticator with it": func(e *wire.JournalEntry) { e.Spent.Authenticator += "\x00" },
			"an event with it":         func(e *wire.JournalEntry) { e.Event.ID = "\x00" + e.Event.ID[1:] },
			"a subject with it":        func(e *wire.JournalEntry) { e.Event.Subject, e.Event.Reason = "\x00", "\x00" },
			"data with it":             func(e *wire.JournalEntry) { e.Event.Data = []byte(`{"x\u0000":"\u0000"}`) },
			"data that are no text":    func(e *wire.JournalEntry) { e.Event.Data = []byte("{\"x\":\"\xff\"}") },
			"long data":                func(e *wire.JournalEntry) { e.Event.Data = []byte(`"` + strings.Repeat("x", 70_000) + `"`) },
		} {
			answers := map[bool]int{}
			for _, right := range []bool{false, true} {
				step++ // in reach for as many as there are
				r.clock.off += 30 * time.Second
				code := alice.right(step)
				if !right {
					code = alice.not(step, 1)
				}
				prev, seq := r.behind(m)
				e := wire.JournalEntry{
					Seq: seq + 1, Counter: seq + 1, Spent: &wire.Spent{Authenticator: alice.auth, Step: step},
					Event: event.Event{ID: store.NewID(), Type: event.SigninAllowed, UserID: alice.id, Link: "down", Outcome: "allow", At: clock.Micros(r.clock.Now())},
				}
				spoil(&e)
				e.Spent.Proof = wire.SpentProof(m.id, *e.Spent, []byte(code))
				h := wire.EntryHash(m.id, prev, e)
				e.Hash = h[:]
				status, p, err := m.call("POST", wire.PathJournal, wire.Journal{Entries: []wire.JournalEntry{e}}, nil)
				if err != nil || status >= 500 {
					t.Errorf("%s, right %v: %d %v %v", name, right, status, p, err)
				}
				answers[right] = status
			}
			if answers[false] != answers[true] {
				t.Errorf("%s: %d for a wrong guess, %d for a right one", name, answers[false], answers[true])
			}
			r.clock.off += 24 * time.Hour
			step = otp.DefaultParams.Step(r.clock.Now()) + 3
		}
	})
}

// An event is opened and reported by its id, which stands in addresses of pages: a
// machine chooses none that is not one.
func TestAMachineChoosesIDsAlone(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		m.enrolSoftware(alice)
		good := store.NewID()
		c := &chain{m: m}
		ids := []string{good, strings.ToUpper(store.NewID()), "../../users/alice?notice=0123456789ab", "x" + store.NewID()[1:], strings.Repeat("-", 36), "urn:uuid:" + store.NewID(), "{" + store.NewID()[:34] + "}"}
		for _, id := range ids {
			c.add(event.Event{ID: id, Type: event.SigninAllowed, Subject: "alice", UserID: alice.id, Scope: "logon", Link: "down", Outcome: "allow"}, nil)
		}
		c.deliver(0, len(ids))
		got := r.events(event.SigninAllowed)
		if len(got) != len(ids) {
			t.Fatalf("%d events of %d", len(got), len(ids))
		}
		kept := 0
		for _, e := range got {
			if u, err := uuid.Parse(e.ID); err != nil || u.String() != e.ID {
				t.Errorf("the event has the id %q", e.ID)
			}
			if e.ID == good {
				kept++
			}
		}
		if kept != 1 {
			t.Errorf("the good id was kept %d times", kept)
		}
	})
}

// What is spent must lie in the time in which the machine had offline data of the person.
func TestOfflineDataThatEndedSpendsNothingLater(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		try := func(name string, step int64, want string) {
			t.Helper()
			n := len(r.events(event.JournalForged))
			c := &chain{m: m}
			c.hash, c.seq = r.behind(m)
			c.guess(alice, step, alice.right(step))
			c.deliver(0, 1)
			got := ""
			for _, e := range r.events(event.JournalForged)[n:] {
				got += e.Reason
			}
			if got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
			if spent := alice.spent() == step; spent != (want == "") {
				t.Errorf("%s: spent %v", name, spent)
			}
		}
		now := func() int64 { return otp.DefaultParams.Step(r.clock.Now()) }
		try("never had any", now(), "not-a-user-of-this-machine")
		h := m.enrolSoftware(alice)
		try("as far as a phone can be ahead", now()+11, "")
		try("further", now()+13, "step-in-the-future")
		last := otp.DefaultParams.Step(clock.FromMicros(h.Until))
		r.clock.off += 8 * 24 * time.Hour
		try("of the last day, delivered late", last, "")
		try("its days are over", now(), "after-the-offline-data-ended")
		h = m.enrolSoftware(alice)
		ended := now()
		m.must("POST", wire.PathWiped, wire.Wiped{UserID: alice.id, Generation: h.Generation}, nil)
		r.clock.off += time.Hour
		try("it was wiped", now(), "after-the-offline-data-ended")
		try("before it was wiped", ended, "")
		r.clock.off += 8 * 24 * time.Hour
		try("long after", ended+1, "not-this-users-authenticator")
	})
}

// Ids that one database takes and another does not are no reason to fail.
func TestIDsThatNoDatabaseTakes(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		alice := r.person("alice")
		h := m.enrolSoftware(alice)
		for _, id := range []string{"\x00", alice.id + "\x00", "\ufffd\ufffe"} {
			for path, in := range map[string]any{
				wire.PathPrepare:  wire.Prepare{Conversation: id, Class: "software"},
				wire.PathPermit:   wire.PermitRequest{Conversation: id, UserID: id, Generation: 1, Kind: "use", Nonce: make([]byte, 32)},
				wire.PathReady:    wire.Ready{Conversation: id, UserID: id, Generation: h.Generation},
				wire.PathBundle:   wire.BundleRequest{UserID: id, Generation: 1, Have: map[string]int64{id: 1}},
				wire.PathWiped:    wire.Wiped{UserID: id, Generation: 1, Reason: id},
				wire.PathOccasion: wire.Occasion{Kind: "logout", User: id},
			} {
				if status, p, err := m.call("POST", path, in, nil); err != nil || status >= 500 {
					t.Errorf("%s with %q: %d %v %v", path, id, status, p, err)
				}
			}
		}
	})
}

// One machine's journals come one after the other and at a pace, whatever it asks.
func TestOneMachinesJournalsComeAtAPace(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		c := &chain{m: m}
		for range 200 {
			c.add(event.Event{Type: event.SigninDenied, Subject: "x"}, nil)
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[int]int{}
		begun := time.Now()
		for range 12 {
			wg.Go(func() {
				for range 10 {
					status, p, err := m.call("POST", wire.PathJournal, wire.Journal{Entries: c.list}, nil)
					if err != nil || status != 200 && p.Code != "too-many" {
						t.Error(status, p, err)
					}
					mu.Lock()
					got[status]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if n, most := 200*got[200], 2000+200*time.Since(begun).Seconds(); got[200] == 0 || float64(n) > most {
			t.Errorf("%d entries were taken, allowed are %.0f: %v", n, most, got)
		}
	})
}

// A machine has one poll, and another for a while where its connection was cut.
func TestOneMachinesPollsTakeTheirOwnPlaces(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m, other := r.joined(), r.joined()
	serial := m.policy(0).Serial
	calm := other.poll(other.policy(0).Serial)
	var polls []<-chan polled
	for range 5 {
		polls = append(polls, m.poll(serial))
	}
	for i := range 3 {
		select {
		case p := <-polls[i]:
			if p.status != 200 || p.Serial != serial || len(p.Policy) != 0 {
				t.Errorf("%+v", p)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("poll %d of five hangs", i)
		}
	}
	for end := time.Now().Add(20 * time.Second); r.api.Polls() != 3 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // until the last has begun to hang
	}
	if n := r.api.Polls(); n != 3 {
		t.Errorf("%d polls hang", n)
	}
	r.change(func(tx *store.Tx) error { return touch.All(t.Context(), tx) })
	for _, c := range []<-chan polled{calm, polls[3], polls[4]} {
		if p := <-c; p.status != 200 || len(p.Policy) == 0 {
			t.Errorf("%+v", p)
		}
	}
}
