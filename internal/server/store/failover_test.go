package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/test/scale"
)

// load writes from several replicas at once: each change is a row and an event. What
// was acknowledged is remembered; what was not may be there or not.
type load struct {
	t       *testing.T
	stores  []*store.Store
	mu      sync.Mutex
	acked   map[string]bool
	failed  int
	slow    time.Duration // the longest that a change waited for its answer
	strange []error
	stop    chan struct{}
	work    sync.WaitGroup
}

func underLoad(t *testing.T, stores ...*store.Store) *load {
	l := &load{t: t, stores: stores, acked: map[string]bool{}, stop: make(chan struct{})}
	var n atomic.Int64
	for _, s := range stores {
		for range 4 {
			l.work.Go(func() {
				for {
					select {
					case <-l.stop:
						return
					default:
					}
					l.write(s, fmt.Sprintf("k%d", n.Add(1)))
					time.Sleep(2 * time.Millisecond)
				}
			})
		}
	}
	return l
}

func (l *load) write(s *store.Store, key string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	begun := time.Now()
	err := s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.PutSetting(ctx, setting(key)); err != nil {
			return err
		}
		_, err := tx.Event(event.Event{Type: event.SigninAllowed, Subject: key})
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slow = max(l.slow, time.Since(begun))
	if err == nil {
		l.acked[key] = true
		return
	}
	l.failed++
	if !store.IsUnavailable(err) {
		l.strange = append(l.strange, err)
	}
}

// count is how many changes were acknowledged.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// more waits until every replica acknowledges again.
func (l *load) more(n int) {
	l.t.Helper()
	from := l.count()
	for end := time.Now().Add(60 * time.Second); l.count() < from+n; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("%d changes were acknowledged, %d before; %v", l.count(), from, l.strange)
		}
	}
}

func (l *load) end() {
	close(l.stop)
	l.work.Wait()
	for _, err := range l.strange {
		l.t.Errorf("a change failed with a word that is not \"unavailable\": %v", err)
	}
}

// kept checks that all acknowledged changes and events are there, once.
func (l *load) kept() {
	l.t.Helper()
	s := l.stores[0]
	there := keys(l.t, s)
	events := map[string]int{}
	pos := store.Position{}
	for {
		es, err := s.EventsAfter(l.t.Context(), pos, 1000)
		if err != nil {
			l.t.Fatal(err)
		}
		if len(es) == 0 {
			break
		}
		for _, e := range es {
			events[e.Subject]++
		}
	}
	for k := range l.acked {
		if !there[k] || events[k] != 1 {
			l.t.Errorf("%s was acknowledged: row %v, %d events", k, there[k], events[k])
		}
	}
	for k := range there {
		if strings.HasPrefix(k, "k") && !strings.HasPrefix(k, "key.") && events[k] != 1 {
			l.t.Errorf("the row %s is there with %d events", k, events[k])
		}
	}
	r, err := s.VerifyEvents(l.t.Context())
	if err != nil || !r.Whole() {
		l.t.Errorf("%+v, %v", r, err)
	}
}

func replicas(t *testing.T, database string) []*store.Store {
	var out []*store.Store
	for _, name := range []string{"r1", "r2"} {
		out = append(out, storetest.Open(t, store.Config{Database: database, Replica: name, Claim: true}))
	}
	return out
}

// PostgreSQL is killed (-9) as a whole in the middle of many changes from two
// replicas, and started again: nothing acknowledged is lost, and the replicas go on
// by themselves.
func TestPostgreSQLKilledUnderLoad(t *testing.T) {
	c := storetest.NewCluster(t)
	l := underLoad(t, replicas(t, c.Database("d"))...)
	for range 2 {
		l.more(100)
		c.Kill()
		time.Sleep(300 * time.Millisecond)
		c.Start()
	}
	l.more(100)
	l.end()
	l.kept()
	if l.failed == 0 {
		t.Error("nothing failed: PostgreSQL was not away")
	}
}

// A PostgreSQL that accepts connections and does not answer: changes and reads are
// refused within seconds, at once when it is known, and go on when it is back.
func TestPostgreSQLThatHangsIsNotWaitedFor(t *testing.T) {
	c := storetest.NewCluster(t)
	stores := replicas(t, c.Database("d"))
	l := underLoad(t, stores...)
	l.more(50)
	c.Freeze()
	unavailable := func(s *store.Store) bool {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		return errors.Is(s.Ping(ctx), store.ErrUnavailable)
	}
	begun := time.Now()
	for _, s := range stores {
		if !unavailable(s) {
			t.Error("a database that hangs answers pings")
		}
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v to notice", took)
	}
	begun = time.Now()
	for range 100 {
		if err := stores[0].Read(t.Context(), func(*store.Queries) error { return nil }); !store.IsUnavailable(err) {
			t.Errorf("a read: %v", err)
		}
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("what is known was waited for: %v", took)
	}
	c.Thaw()
	l.more(50)
	l.end()
	l.kept()
}

// The disk of PostgreSQL is full: changes are refused as unavailable, what was
// acknowledged stays, reads go on, and so do changes when there is room again.
func TestPostgreSQLWithAFullDisk(t *testing.T) {
	c := storetest.NewSmallCluster(t, 48)
	l := underLoad(t, replicas(t, c.Database("d"))...)
	l.more(50)
	room := c.Fill()
	for end := time.Now().Add(60 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		l.mu.Lock()
		failed := l.failed
		l.mu.Unlock()
		if failed >= 20 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the disk is full, and changes go on")
		}
	}
	if !keys(t, l.stores[0])["k1"] {
		t.Error("what was there can not be read")
	}
	room()
	l.more(100)
	l.end()
	l.kept()
}

// The primary is killed and its synchronous standby promoted: nothing acknowledged
// is lost, and the replicas find the new primary in their list of hosts.
func TestPostgreSQLFailsOverToASynchronousStandby(t *testing.T) {
	primary := storetest.NewCluster(t)
	primary.Exec("CREATE DATABASE d")
	standby := primary.Standby(true)
	stores := replicas(t, primary.URL("d", standby))
	l := underLoad(t, stores...)
	machine, cancel := stores[1].Watch("m1")
	defer cancel()
	l.more(100)
	primary.Kill()
	standby.Promote()
	l.more(100)
	l.end()
	l.kept()
	for len(machine) > 0 {
		<-machine
	}
	for _, e := range chainEvents(t, stores[0]) {
		if e.Type == string(event.ChainRewound) {
			t.Errorf("%s: %s", e.Chain, e.Data)
		}
	}
	// The replicas hear each other on the new primary.
	hearing(t, standby.URL("d"), 2)
	if err := stores[0].Update(t.Context(), func(_ context.Context, tx *store.Tx) error { tx.Wake("m1"); return nil }); err != nil {
		t.Fatal(err)
	}
	woken(t, machine, "m1 behind the fail-over")
}

func chainEvents(t *testing.T, s *store.Store) []db.Event {
	t.Helper()
	es, err := s.EventsAfter(t.Context(), store.Position{}, 1_000_000)
	if err != nil {
		t.Fatal(err)
	}
	return es
}

// An asynchronous standby is promoted that lacks what was acknowledged last. Every
// replica that was told so notices by itself, writes it down in its chain, and does
// what must be done before it does anything else.
func TestPostgreSQLThatLostCommittedChangesIsNoticed(t *testing.T) {
	primary := storetest.NewCluster(t)
	primary.Exec("CREATE DATABASE d")
	standby := primary.Standby(false)
	url := primary.URL("d", standby)
	var stores []*store.Store
	var done [3]atomic.Int64
	for i, name := range []string{"r1", "r2", "idle"} {
		stores = append(stores, storetest.Open(t, store.Config{
			Database: url, Replica: name, Claim: true,
			Rewound: func(ctx context.Context, tx *store.Tx) error {
				done[i].Add(1)
				return tx.PutSetting(ctx, setting("rewound-"+name))
			},
		}))
		add(t, stores[i], event.Event{Type: event.ServerStarted})
	}
	// What the standby has now is all that it will have.
	for range 500 {
		if there, err := standby.Count("d", "events"); err == nil && there == 3 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	standby.Unfollow()
	for _, s := range stores[:2] {
		for i := range 5 {
			add(t, s, event.Event{Type: event.SigninAllowed, Subject: fmt.Sprint("lost ", i)})
		}
	}
	primary.Kill()
	standby.Promote()
	for end := time.Now().Add(30 * time.Second); done[0].Load() == 0 || done[1].Load() == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nobody noticed")
		}
	}
	var err error
	for i, s := range stores {
		for range 50 {
			if err = s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
				_, err := tx.Event(event.Event{Type: event.SigninAllowed, Subject: "afterwards"})
				return err
			}); err == nil {
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
		if err != nil {
			t.Errorf("replica %d: %v", i, err)
		}
	}
	if done[0].Load() != 1 || done[1].Load() != 1 || done[2].Load() != 0 {
		t.Errorf("it was dealt with %d, %d and %d times", done[0].Load(), done[1].Load(), done[2].Load())
	}
	var kinds []string
	for _, e := range chainEvents(t, stores[2]) {
		if e.Chain == "r1" {
			kinds = append(kinds, e.Type+" "+e.Subject)
		}
	}
	want := "server.started |chain.rewound r1|signin.allowed afterwards"
	if got := strings.Join(kinds, "|"); got != want {
		t.Errorf("the chain r1 holds %s, want %s", got, want)
	}
	if there := keys(t, stores[0]); !there["rewound-r1"] || !there["rewound-r2"] || there["rewound-idle"] {
		t.Errorf("%v", there)
	}
	r, err := stores[0].VerifyEvents(t.Context())
	if err != nil || !r.Whole() {
		t.Errorf("%+v, %v", r, err)
	}
}

// A server that is started with the name of another that runs is refused; one whose
// holder is gone gets it.
func TestAReplicasNameIsItsOwn(t *testing.T) {
	database := storetest.PostgreSQL(t)
	a := storetest.Open(t, store.Config{Database: database, Replica: "r", Claim: true})
	storetest.Open(t, store.Config{Database: database, Replica: "other", Claim: true})
	storetest.Open(t, store.Config{Database: database, Replica: "r"}) // a command beside it
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	_, err := store.Open(ctx, store.Config{Database: database, Replica: "r", Claim: true, Clock: clock.Real})
	if !errors.Is(err, store.ErrNameTaken) {
		t.Fatalf("%v", err)
	}
	later := make(chan error)
	go func() {
		b, err := store.Open(context.WithoutCancel(t.Context()), store.Config{Database: database, Replica: "r", Claim: true, Clock: clock.Real})
		if err == nil {
			err = b.Close()
		}
		later <- err
	}()
	time.Sleep(300 * time.Millisecond)
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := <-later; err != nil {
		t.Errorf("the name is free: %v", err)
	}
}

// A server that lost its name to another with the connection that held it changes
// nothing until the name is its own again: two must not write one chain.
func TestAServerThatLostItsNameIsSilent(t *testing.T) {
	database := storetest.PostgreSQL(t)
	s := storetest.Open(t, store.Config{Database: database, Replica: "r", Claim: true})
	d, err := raw(t, database).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := d.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
	exec("SELECT pg_advisory_lock($1, hashtext($2))", 0x6c61746b, "r")
	try := func() error {
		return s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
			_, err := tx.Event(event.Event{Type: event.SigninAllowed})
			return err
		})
	}
	until := func(what string, reached func(error) bool) {
		t.Helper()
		var err error
		for range 300 {
			if err = try(); reached(err) {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatalf("not %s: %v", what, err)
	}
	until("silent", func(err error) bool {
		return errors.Is(err, store.ErrUnavailable) && errors.Is(err, store.ErrNameTaken)
	})
	exec("SELECT pg_advisory_unlock_all()")
	until("back", func(err error) bool { return err == nil })
}

// Connections that PostgreSQL has ended meanwhile cost nobody an answer.
func TestAConnectionThatWasEndedIsMadeAnewUnnoticed(t *testing.T) {
	database := storetest.PostgreSQL(t)
	s := storetest.Open(t, store.Config{Database: database})
	d := raw(t, database)
	for i := range 5 {
		add(t, s, event.Event{Type: event.SigninAllowed})
		if _, err := d.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
			t.Fatal(err)
		}
		add(t, s, event.Event{Type: event.SigninAllowed, Subject: fmt.Sprint(i)})
	}
	verify(t, s, 10)
}

// A server that is frozen in the middle of a transaction, or whose host is gone,
// keeps its rows from the others for a bounded time only; and its own change is not
// half done.
func TestAServerThatFreezesKeepsNoRows(t *testing.T) {
	database := storetest.PostgreSQL(t)
	a := storetest.Open(t, store.Config{Database: database, Replica: "a"})
	b := storetest.Open(t, store.Config{Database: database, Replica: "b"})
	put := func(s *store.Store, value string, then func()) error {
		return s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			err := tx.PutSetting(ctx, db.PutSettingParams{Key: "x", Value: []byte(value), UpdatedAt: 1})
			then()
			return err
		})
	}
	if !scale.Long() {
		// The short form looks at what makes it so.
		d := raw(t, database)
		if err := put(a, "a", func() {
			var n int
			err := d.QueryRow("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'").Scan(&n)
			if err != nil || n != 1 {
				t.Errorf("%d transactions, %v", n, err)
			}
		}); err != nil {
			t.Error(err)
		}
		if got := store.SessionSetting(t, a, "idle_in_transaction_session_timeout"); got != "10s" {
			t.Errorf("idle_in_transaction_session_timeout is %q", got)
		}
		return
	}
	holds, freed := make(chan struct{}), make(chan error)
	go func() {
		first := true
		freed <- put(a, "frozen", func() {
			if first {
				first = false
				close(holds)
				time.Sleep(14 * time.Second)
			}
		})
	}()
	<-holds
	begun := time.Now()
	var err error
	for range 3 {
		if err = put(b, "b", func() {}); err == nil {
			break
		}
	}
	if took := time.Since(begun); err != nil || took > 13*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	if err := <-freed; err != nil && !store.IsUnavailable(err) {
		t.Error(err)
	}
}
