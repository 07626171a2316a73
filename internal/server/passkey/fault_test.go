//go:build linux

package passkey_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/test/scale"
)

// The test binary is its own second server: one that a test kills.
const childDatabase = "LATCHKEY_PASSKEY_DATABASE"

// order is what the child is asked to do; name: it registers.
type order struct {
	User, Ticket, Answer, Name string
	Door                       factor.Door
	Now                        time.Time
}

// told is its answer, behind the commit.
type told struct {
	OK     bool
	Reason string
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
	s, err := store.Open(ctx, store.Config{Database: os.Getenv(childDatabase), Replica: store.NewID(), Clock: clock.Real})
	if err != nil {
		return err
	}
	keys := passkey.New(passkey.Config{Random: rand.Reader, URL: func() string { return site }})
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(told{}); err != nil { // it is ready
		return err
	}
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	var t told
	err = s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		t, err = obey(ctx, tx, keys, o)
		return err
	})
	if err == nil {
		err = out.Encode(t)
	}
	return err
}

func obey(ctx context.Context, tx *store.Tx, keys *passkey.Service, o order) (told, error) {
	u, err := tx.GetUser(ctx, o.User)
	if err != nil {
		return told{}, err
	}
	if o.Name != "" {
		_, err := keys.Finish(ctx, tx, o.Ticket, secret.FromString(o.Answer), o.Name, passkey.Order{User: u, Now: o.Now})
		if fault.Is(err, fault.Expired) {
			return told{Reason: passkey.ReasonOver}, nil
		}
		return told{OK: err == nil}, err
	}
	v, err := keys.Judge(ctx, tx, factor.Try{User: u, Ticket: o.Ticket, Typed: secret.FromString(o.Answer), Machine: "m-1", Door: o.Door, Now: o.Now})
	return told{OK: v.OK(), Reason: v.Reason}, err
}

// killed has a server of its own obey and kills it so long after it was asked, or if that
// is negative when it has answered; ok is false where nobody was told anything. Behind an
// answer it says how long that took.
func (r *rig) killed(database string, after time.Duration, o order) (t told, ok bool, took time.Duration) {
	r.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDatabase+"="+database)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	r.must(err)
	out, err := cmd.StdoutPipe()
	r.must(err)
	r.must(cmd.Start())
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		_ = cmd.Wait()
		r.Fatalf("the child is not ready: %v", err)
	}
	began := time.Now()
	r.must(json.NewEncoder(in).Encode(o))
	if after >= 0 {
		time.Sleep(after)
		_ = cmd.Process.Kill()
	}
	line, err := lines.ReadString('\n')
	took = time.Since(began)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return t, err == nil && json.Unmarshal([]byte(line), &t) == nil, took
}

func (r *rig) obey(o order) (t told) {
	r.Helper()
	r.must(r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		t, err = obey(ctx, tx, r.keys, o)
		return err
	}))
	return t
}

// count is how many events of the type there are.
func (r *rig) count(what event.Type) int {
	r.Helper()
	rows, err := r.desk.Store.Events(context.Background(), store.EventFilter{Types: []string{string(what)}, Limit: 1000})
	r.must(err)
	return len(rows)
}

// passkeys are those of the user.
func (r *rig) passkeys() (rows []db.ListPasskeysOfUserRow) {
	r.Helper()
	r.must(r.desk.Store.Read(context.Background(), func(q *store.Queries) (err error) {
		rows, err = q.ListPasskeysOfUser(context.Background(), r.user.ID)
		return err
	}))
	return rows
}

// A server is killed at a moment that chance chooses while it judges an assertion, at a door
// or that of a copy, or registers a passkey. An assertion opens once at most, however often
// it is sent; the counter never goes back; a copy that was found stays found; a registration
// is whole or can be sent again.
func TestAServerIsKilledWhileAPasskeyIsJudged(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(start)
		r := newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c, Replica: "here"}), c)
		r.register()
		lost := 0
		takes := map[int]time.Duration{} // of an answer by a server that is not killed
		for round := range scale.N(12, 400) {
			after := time.Duration(-1)
			if d, ok := takes[round%4]; ok {
				after = time.Duration(mathrand.Int64N(int64(2*d) + 1))
			}
			var took time.Duration
			var first told
			var ok bool
			ticket := fmt.Sprint("t", round)
			switch round % 4 {
			case 0, 1: // a sign-in, and a step-up
				door := []factor.Door{factor.AtPortal, factor.AtStepUp}[round%2]
				r.key.Counter++
				o := order{User: r.user.ID, Ticket: ticket, Answer: string(r.sign(home, r.send(door, ticket)).Reveal()), Door: door, Now: c.Now()}
				first, ok, took = r.killed(database, after, o)
				opened := 0
				if ok && first.OK {
					opened++
				}
				second := r.obey(o)
				if second.OK {
					opened++
				}
				third := r.obey(o)
				if opened > 1 || ok && (!first.OK || second.OK) || third.OK || !second.OK && second.Reason != passkey.ReasonOver {
					t.Errorf("told %v %+v, then %+v, then %+v", ok, first, second, third)
				}
				if p, _ := r.row(); p.SignCount != int64(r.key.Counter) {
					t.Errorf("its counter is %d, want %d", p.SignCount, r.key.Counter)
				}
				if !ok {
					lost++
				}
			case 2: // a copy
				copies := r.count(event.FactorCloned)
				o := order{User: r.user.ID, Ticket: ticket, Answer: string(r.sign(home, r.send(factor.AtPortal, ticket)).Reveal()), Door: factor.AtPortal, Now: c.Now()}
				first, ok, took = r.killed(database, after, o)
				second := r.obey(o)
				if first.OK || second.OK || ok && first.Reason != passkey.ReasonCloned || !ok && second.Reason != passkey.ReasonCloned && second.Reason != passkey.ReasonOver {
					t.Errorf("a copy: told %v %+v, then %+v", ok, first, second)
				}
				if p, a := r.row(); p.ClonedAt == 0 || !a.Lost {
					t.Errorf("a copy is trusted: %+v, %+v", p, a)
				}
				if n := r.count(event.FactorCloned) - copies; n != 1 {
					t.Errorf("%d alerts", n)
				}
				err := r.update(func(ctx context.Context, tx *store.Tx) error {
					_, err := r.keys.Send(ctx, tx, factor.Ask{User: r.now(r.user), Ticket: ticket, Door: factor.AtPortal, Now: c.Now()}, false)
					return err
				})
				if !fault.Is(err, fault.Unavailable) {
					t.Errorf("it is asked for: %v", err)
				}
				if !ok {
					lost++
				}
				r.must(r.update(func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.DeleteAuthenticator(ctx, r.id)
					return err
				}))
			case 3: // a new one in its place
				r.key = newKey()
				r.key.Counter = 5
				ticket, options := r.begin(r.user)
				o := order{User: r.user.ID, Ticket: ticket, Answer: string(r.make(home, options).Reveal()), Name: "New", Now: c.Now()}
				first, ok, took = r.killed(database, after, o)
				second := r.obey(o)
				if ok && (!first.OK || second.OK) || !second.OK && second.Reason != passkey.ReasonOver {
					t.Errorf("registered: told %v %+v, then %+v", ok, first, second)
				}
				rows := r.passkeys()
				if len(rows) != 1 || rows[0].Authenticator.ConfirmedAt == 0 {
					t.Fatalf("there are %d passkeys: %+v", len(rows), rows)
				}
				r.id, r.user = rows[0].Authenticator.ID, r.now(r.user)
				if !ok {
					lost++
				}
			}
			if after < 0 {
				if !ok {
					t.Fatal("a server that was not killed did not answer")
				}
				takes[round%4] = took
			}
		}
		if lost == 0 && scale.Long() {
			t.Error("every server was killed behind its answer")
		}
		if rep, err := r.desk.Store.VerifyEvents(t.Context()); err != nil || !rep.Whole() {
			t.Errorf("%v %+v", err, rep)
		}
		t.Logf("%d answers were lost; they take %v", lost, takes)
	})
}

// The database goes away: nothing is judged and nothing is spent, and the same assertion
// counts, once, when it can be written down.
func TestAnAssertionWithoutADatabaseOpensNothing(t *testing.T) {
	database, link := storetest.Linked(t)
	c := clock.NewManual(start)
	r := newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c)
	r.register()
	r.key.Counter++
	r.unwritten(link.Cut, link.Mend)
}

// The same on a disk that is full.
func TestAFullDiskOpensNothingByAPasskey(t *testing.T) {
	dir := storetest.Small(t, 6<<20)
	if dir == "" {
		return // it went well in there
	}
	c := clock.NewManual(start)
	r := newRig(t, storetest.Open(t, store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: c}), c)
	r.register()
	r.key.Counter++
	var room func()
	r.unwritten(func() {
		room = storetest.Fill(t, dir)
		for i := range 40 { // what room is left within the database's own files
			_ = r.update(func(ctx context.Context, tx *store.Tx) error {
				return tx.PutSetting(ctx, db.PutSettingParams{Key: fmt.Sprint("fill.", i), Value: []byte(strings.Repeat("x", 20_000)), UpdatedAt: 1})
			})
		}
	}, func() { room() })
}

func (r *rig) unwritten(away, back func()) {
	r.Helper()
	o := order{User: r.user.ID, Ticket: "t", Answer: string(r.sign(home, r.send(factor.AtPortal, "t")).Reveal()), Door: factor.AtPortal, Now: r.clock.Now()}
	before, _ := r.row()
	// A change that is too large for what room is left goes along.
	judge := func() (t told, err error) {
		err = r.update(func(ctx context.Context, tx *store.Tx) error {
			if t, err = obey(ctx, tx, r.keys, o); err != nil {
				return err
			}
			return tx.PutSetting(ctx, db.PutSettingParams{Key: "large", Value: []byte(strings.Repeat("y", 20_000)), UpdatedAt: 1})
		})
		return t, err
	}
	away()
	if v, err := judge(); !store.IsUnavailable(err) {
		r.Errorf("it was judged: %+v, %v", v, err)
	}
	back()
	var v told
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if v, err = judge(); err == nil {
			break
		}
	}
	if r.must(err); !v.OK {
		r.Errorf("when it can be written down: %+v", v)
	}
	if v, err = judge(); v.OK || v.Reason != passkey.ReasonOver {
		r.Errorf("again: %+v, %v", v, err)
	}
	if p, _ := r.row(); p.SignCount != before.SignCount+1 {
		r.Errorf("its counter went from %d to %d", before.SignCount, p.SignCount)
	}
}

// A clock that is put back prolongs no challenge, and one that is ahead ends it: it is spent
// by what was tried, and the next one counts.
func TestAClockThatIsWrongForPasskeys(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.register()
		for _, by := range []time.Duration{-time.Hour, time.Hour, -30 * 24 * time.Hour} {
			for _, door := range []factor.Door{factor.AtPortal, factor.AtStepUp} {
				r.key.Counter++
				answer := r.sign(home, r.send(door, "t"))
				r.clock.Advance(by)
				r.want(by.String(), r.judge("t", answer), passkey.ReasonOver)
				r.clock.Advance(-by)
				r.want(by.String()+", and right again", r.judge("t", answer), passkey.ReasonOver)
				r.key.Counter++
				r.want("the next", r.judge("t", r.sign(home, r.send(door, "t"))), "")
			}
			ticket, options := r.begin(r.user)
			had := r.key
			r.key = newKey()
			answer := r.make(home, options)
			r.clock.Advance(by)
			if _, err := r.finish(r.user, ticket, answer, ""); !fault.Is(err, fault.Expired) {
				r.Errorf("%s: a registration: %v", by, err)
			}
			r.clock.Advance(-by)
			r.key = had
		}
		if rows := r.passkeys(); len(rows) != 1 {
			r.Errorf("there are %d passkeys", len(rows))
		}
	})
}
