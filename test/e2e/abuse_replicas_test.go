//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/text"
	"latchkey/test/scale"
)

// Several servers over one PostgreSQL (S10, W7, V4), and a PostgreSQL that dies,
// hangs and fails over under them.

// fleet is a world with further servers on the same machine; the world's own one is
// the first, r1.
type fleet struct {
	*world
	more []*Process
}

func replicaData(n int) string { return fmt.Sprintf("%s%d", strings.TrimSuffix(serverData, "/"), n) }
func replicaPort(n int) string { return fmt.Sprint(8443 + n) } // r1 has agentPort

// newFleet starts n servers at once on an empty database.
func newFleet(t *testing.T, database string, n int) *fleet {
	t.Helper()
	t.Parallel()
	w := &world{&realm{root: t, database: database, dir: t.TempDir(), people: map[string]*person{}, options: []string{"--replica", "r1"}}, t}
	w.srv = NewMachine(t)
	w.turn()
	f := &fleet{world: w}
	// They need the same master key, and the first of them has nothing yet.
	master := filepath.Join(t.TempDir(), "first")
	if err := os.Mkdir(master, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.CreateMaster(master); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(keys.MasterPath(master))
	if err != nil {
		t.Fatal(err)
	}
	w.srv.Write(keys.MasterPath(serverData), string(key), 0o600)
	w.srv.Run("chmod", "700", serverData)
	for i := 2; i <= n; i++ {
		w.srv.Write(keys.MasterPath(replicaData(i)), string(key), 0o600)
		w.srv.Run("chmod", "700", replicaData(i))
		f.more = append(f.more, f.replica(i, fmt.Sprint("r", i)))
	}
	w.startServer()
	for i := 2; i <= n; i++ {
		f.serves(i)
	}
	t.Cleanup(func() { w.settled(t) })
	return f
}

// replica starts the server of a data folder under a name.
func (f *fleet) replica(n int, name string, options ...string) *Process {
	f.t.Helper()
	argv := []string{
		TestProgram(f.t, "latchkeyd"), "serve", "--data", replicaData(n), "--listen", "127.0.0.1:" + fmt.Sprint(9443+n),
		"--listen-agent", "0.0.0.0:" + replicaPort(n), "--database", f.database, "--replica", name,
	}
	return f.srv.In(f.root).StartEnv([]string{"LATCHKEY_TEST_CLOCK=" + f.clockFile("server")}, append(argv, options...)...)
}

// at runs the command of administrators at a server.
func (f *fleet) at(n int, args ...string) (string, error) {
	data := serverData
	if n > 1 {
		data = replicaData(n)
	}
	return f.srv.stdout("", append([]string{
		"env", "LATCHKEY_TEST_CLOCK=" + f.clockFile("server"), TestProgram(f.t, "latchkey"), "--server", "unix:" + data + "/admin.sock",
	}, args...))
}

func (f *fleet) serves(n int) {
	f.t.Helper()
	f.srv.In(f.t).Until(30*time.Second, fmt.Sprintf("server r%d serves", n), func() bool {
		if n > 1 && !f.more[n-2].Running() {
			f.t.Fatalf("server r%d ended:\n%s", n, f.more[n-2].Output())
		}
		_, err := f.at(n, "user", "list")
		return err == nil
	})
}

// machineAt makes a machine that has joined a server.
func (f *fleet) machineAt(name, port string) *station {
	f.t.Helper()
	s := &station{f.world, &seat{name: name, state: agentState, spec: "none", port: port}}
	f.place(s)
	return s
}

// balance makes port a balancer over servers, for connections from now on.
func (f *fleet) balance(port string, ns ...int) {
	f.t.Helper()
	var to []string
	for i, n := range ns {
		to = append(to, fmt.Sprintf("%d : %s", i, replicaPort(n)))
	}
	rules := fmt.Sprintf("table ip balance\ndelete table ip balance\ntable ip balance {\nchain in {\ntype nat hook prerouting priority dstnat\ntcp dport %s redirect to :numgen inc mod %d map { %s }\n}\n}\n",
		port, len(ns), strings.Join(to, ", "))
	if out, err := f.srv.TryInput(rules, "nft", "-f", "-"); err != nil {
		f.t.Fatalf("nft: %v %s", err, out)
	}
}

// outcome is how one of several sign-ins at once went.
type outcome struct {
	opened bool
	output string
}

// together brings every machine to the question for the code, and then types the
// same code everywhere at once.
func together(t *testing.T, p *person, code string, where []*station) []outcome {
	out := make([]outcome, len(where))
	var ready, all sync.WaitGroup
	ready.Add(len(where))
	for i, s := range where {
		all.Go(func() {
			term := s.here().Terminal("", "pamtester", "x", p.name, "authenticate", "acct_mgmt")
			asked := term.Expect("assword", Patience)
			if asked {
				time.Sleep(100 * time.Millisecond)
				term.Type(p.pw)
				asked = term.Expect("code: ", Patience)
			}
			time.Sleep(100 * time.Millisecond) // it turns the echo off first
			ready.Done()
			ready.Wait()
			if asked {
				term.Type(code)
				if !term.Expect(text.CodeUsed, Patience) {
					out[i].opened = term.Exit(Patience) == 0
				}
			}
			out[i].output = term.Output()
			term.Close()
		})
	}
	all.Wait()
	return out
}

// back waits until the servers answer, and looks with new agents: the old ones may not
// have noticed yet that their server was away.
func (f *fleet) back(t *testing.T, stations ...*station) {
	t.Helper()
	for i := range len(f.more) + 1 {
		f.serves(i + 1)
	}
	for _, s := range stations {
		s := s.In(t)
		s.restartAgent()
		s.online()
	}
}

// enrolAt is station.enrol; places of events in several chains can not be compared.
func (f *fleet) enrolAt(s *station, p *person) {
	f.t.Helper()
	s.online()
	if r := s.x(p, s.full(p)); !r.Opened {
		f.t.Fatalf("%s can not sign in at %s: %+v", p.name, s.name, r)
	}
	s.enrolled(p)
}

func (f *fleet) unlock(p *person) { f.t.Helper(); f.cli("user", "unlock", p.name) }

// TestOneCodeAtOnce: S10. One code, typed at the same moment on one machine twice, on
// two machines of one server, on machines of two servers and of three.
func TestOneCodeAtOnce(t *testing.T) {
	f := newFleet(t, storetest.PostgreSQL(t), 3)
	a, b := f.machineAt("a", replicaPort(1)), f.machineAt("b", replicaPort(1))
	c, d := f.machineAt("c", replicaPort(2)), f.machineAt("d", replicaPort(3))
	f.set("window=0s")
	alice := f.addUser("alice")
	t.Run("exactly one is accepted", func(t *testing.T) {
		before := f.totals()
		cases := [][]*station{{a, a}, {a, b}, {a, c}, {b, c, d}}
		rounds, losers := scale.N(20, 1000), 0
		for n := range rounds {
			where := cases[n%len(cases)]
			code := f.code(alice)
			opened, used := 0, 0
			got := together(t, alice, code, where)
			for _, o := range got {
				if o.opened {
					opened++
				}
				if strings.Contains(o.output, text.CodeUsed) {
					used++
				}
				for _, wrong := range []string{text.WrongCode, text.OfflineNow, text.DeniedUnreachable} {
					if strings.Contains(o.output, wrong) {
						t.Errorf("round %d: somebody was told %q:\n%s", n, wrong, o.output)
					}
				}
			}
			if opened != 1 || used != len(where)-1 {
				t.Fatalf("round %d: %d of %d were let in, %d were told that the code was used: %+v", n, opened, len(where), used, got)
			}
			losers += used
			f.unlock(alice) // who has failed twice can not begin twice at once
		}
		after := f.totals()
		if got := after["factor.accepted "] - before["factor.accepted "]; got != rounds {
			t.Errorf("%d codes were accepted in %d rounds", got, rounds)
		}
		if got := after["factor.rejected totp-replayed"] - before["factor.rejected totp-replayed"]; got != losers {
			t.Errorf("%d codes were rejected as used, %d people were told so", got, losers)
		}
		if got := after["factor.rejected wrong-code"]; got != 0 {
			t.Errorf("%d were taken for wrong codes", got)
		}
	})
	t.Run("the used code counts as one wrong try, there and nowhere else", func(t *testing.T) {
		f.unlock(alice)
		f.set("lockout_after=3") // a pause is over before a busy machine has looked
		defer f.set("lockout_after=10")
		code := f.code(alice)
		opened(t, a.In(t).x(alice, Say("assword", alice.pw, "code: ", code)), true)
		for range 3 {
			term := c.here().Terminal("", "pamtester", "x", "alice", "authenticate")
			if !term.Expect("assword", Patience) {
				t.Fatal(term.Output())
			}
			time.Sleep(200 * time.Millisecond)
			term.Type(alice.pw)
			if term.Expect("code: ", Patience) {
				time.Sleep(200 * time.Millisecond)
				term.Type(code)
				if !term.Expect(text.CodeUsed, Patience) {
					t.Error(term.Output())
				}
			}
			term.Close()
		}
		var u rest.User
		f.read(&u, "user", "show", "alice")
		if len(u.Locks) != 1 || u.Locks[0].Machine != "c" {
			t.Errorf("%+v", u.Locks)
		}
		// Counted at r2, held at r1 as well: the rows are the same.
		if out, err := f.at(3, "user", "show", "alice", "--output", "json"); err != nil || !strings.Contains(out, `"machine": "c"`) {
			t.Errorf("%s %v", out, err)
		}
		f.unlock(alice)
		opened(t, c.In(t).x(alice, f.full(alice)), true)
	})
	f.enrolAt(a, alice)
	f.enrolAt(d, alice)
	t.Run("a machine that is cut off and one that is not: both open, and the collision is an event when they have met the server", func(t *testing.T) {
		a, c := a.In(t), c.In(t)
		a.cut()
		for n, later := range []bool{false, true} {
			before := f.totals()
			code := f.code(alice)
			turns := func() []Turn { return Say("assword", alice.pw, "code: ", code) }
			first, second := a, c
			if later {
				first, second = c, a
			}
			opened(t, first.x(alice, turns()), true)
			opened(t, second.x(alice, turns()), true)
			// On each machine it was used, and is refused there from now on.
			for _, s := range []*station{a, c} {
				if o := together(t, alice, code, []*station{s}); o[0].opened || !strings.Contains(o[0].output, text.CodeUsed) {
					t.Errorf("the code was accepted twice on %s: %+v", s.name, o)
				}
			}
			if later {
				// A later code online must not hide it.
				opened(t, c.x(alice, f.full(alice)), true)
			}
			a.mend()
			a.delivered()
			if got := f.totals()["totp.collision "] - before["totp.collision "]; got != 1 {
				t.Errorf("try %d: %d collisions; there are %s", n, got, short(f.events()))
			}
			f.unlock(alice)
			a.cut()
		}
		a.mend()
	})
	t.Run("two machines that are cut off: as soon as both have met the server", func(t *testing.T) {
		a, d := a.In(t), d.In(t)
		before := f.totals()
		a.cut()
		d.cut()
		code := f.code(alice)
		for i, o := range together(t, alice, code, []*station{a, a, d, d}) {
			if o.opened == strings.Contains(o.output, text.CodeUsed) {
				t.Errorf("%d: %+v", i, o)
			}
		}
		a.mend()
		a.delivered()
		if got := f.totals()["totp.collision "] - before["totp.collision "]; got != 0 {
			t.Errorf("%d collisions before both have met the server", got)
		}
		if o := together(t, alice, code, []*station{c.In(t)}); o[0].opened || !strings.Contains(o[0].output, text.CodeUsed) {
			t.Errorf("the server does not know what was used at a: %+v", o)
		}
		d.mend()
		d.delivered()
		if got := f.totals()["totp.collision "] - before["totp.collision "]; got != 1 {
			t.Errorf("%d collisions", got)
		}
		f.unlock(alice)
	})
	t.Run("every chain is whole", func(t *testing.T) { f.whole(t, "r1", "r2", "r3") })
}

// totals counts events by type and reason.
func (f *fleet) totals() map[string]int {
	f.t.Helper()
	n := map[string]int{}
	for _, e := range f.events("--type", "factor.,totp.,signin.", "--limit", "0") {
		n[e.Type+" "+e.Reason]++
	}
	return n
}

// whole verifies all chains, and that these servers have written.
func (f *fleet) whole(t *testing.T, chains ...string) {
	t.Helper()
	out := f.cli("events", "verify")
	for _, c := range chains {
		if !strings.Contains(out, c) {
			t.Errorf("the chain %s was not verified:\n%s", c, out)
		}
	}
}

// TestServersShareTheWork: what is begun, decided or ended at one server holds at the
// others (O5, S10, W7, P1), a server's name and key are looked at when it starts (V4).
func TestServersShareTheWork(t *testing.T) {
	f := newFleet(t, storetest.BarePostgreSQL(t), 2)
	const balancer = "8440"
	f.balance(balancer, 1)
	a, b := f.machineAt("a", replicaPort(1)), f.machineAt("b", replicaPort(2))
	c := f.machineAt("c", balancer)
	alice := f.addUser("alice")
	refused := make(chan string, 2)
	go func() { // it waits a while for the name
		p := f.replica(9, "r2")
		select {
		case <-p.done:
			refused <- p.Output()
		case <-time.After(90 * time.Second):
			refused <- "it goes on"
		}
	}()
	t.Run("a conversation goes on at another server when its own is killed", func(t *testing.T) {
		c := c.In(t)
		f.set("window=0s")
		code := f.code(alice)
		term := c.here().Terminal("", "pamtester", "x", "alice", "authenticate", "acct_mgmt")
		if !term.Expect("assword", Patience) {
			t.Fatal(term.Output())
		}
		time.Sleep(200 * time.Millisecond)
		term.Type(alice.pw)
		if !term.Expect("code: ", Patience) {
			t.Fatal(term.Output())
		}
		time.Sleep(200 * time.Millisecond)
		f.balance(balancer, 2)
		f.world.realm.server.Kill("KILL")
		term.Type(code)
		if got := term.Exit(Patience); got != 0 {
			t.Errorf("exit %d\n%s", got, term.Output())
		}
		if out := term.Output(); strings.Contains(out, text.OfflineNow) {
			t.Errorf("it became an offline one:\n%s", out)
		}
		term.Close()
		f.startServer()
		chain := ""
		for _, e := range f.events("--type", "signin.allowed") {
			chain = e.Chain
		}
		if chain != "r2" {
			t.Errorf("the event is in the chain %q", chain)
		}
	})
	f.balance(balancer, 1, 2)
	a.online()
	t.Run("a window opened at one server silences at another, and ends everywhere when it is revoked at one", func(t *testing.T) {
		c := c.In(t)
		f.set("window=8h")
		opened(t, c.here().Login("alice", f.full(alice)), true)
		for range 3 {
			c.restartAgent() // a new connection, to the next server
			c.online()
			opened(t, c.here().Login("alice", Say("assword: ", alice.pw)), true)
		}
		opened(t, b.In(t).here().Login("alice", f.full(alice)), true)
		f.cli("window", "revoke", "--user", "alice", "--yes")
		for _, s := range []*station{b.In(t), c} {
			opened(t, s.here().Login("alice", f.full(alice)), true)
		}
	})
	quickly := func(t *testing.T, what string, done func() bool) {
		t.Helper()
		begun := time.Now()
		f.srv.In(t).Until(90*time.Second, what, done)
		// A poll that nobody has woken ends after 50 s, and the next one looks.
		if took := time.Since(begun); took > 30*time.Second {
			t.Errorf("%s: it took %v", what, took)
		}
	}
	t.Run("a change at one server reaches machines of the other at once", func(t *testing.T) {
		b := b.In(t)
		for n := range 3 {
			f.set(fmt.Sprintf("offline_days=%d", 5+n))
			quickly(t, "b has the policy", func() bool {
				var m rest.Machine
				f.read(&m, "machine", "show", "b")
				st, err := b.status()
				return err == nil && st.Offline.PolicySerial == m.Serial
			})
		}
		f.enrolAt(b, alice)
		f.cli("offline", "disenroll", "--user", "alice", "--machine", "b", "--yes")
		quickly(t, "the offline data of b is gone", func() bool { return len(b.vaultFiles()) == 0 })
		f.cli("machine", "revoke", "b", "--yes")
		quickly(t, "b knows that it is revoked", func() bool {
			st, err := b.status()
			return err == nil && st.Link == "refused"
		})
		opened(t, b.x(alice, Say("assword", alice.pw)), false)
	})
	t.Run("the name of a server that runs is refused, and so is another master key", func(t *testing.T) {
		if out := <-refused; !strings.Contains(out, "another server with this replica name") {
			t.Errorf("%s", out)
		}
		// The folder had no key; it was not given one that fits nothing.
		p := f.replica(8, "r8")
		select {
		case <-p.done:
		case <-time.After(30 * time.Second):
		}
		if out := p.Output(); p.Running() || !strings.Contains(out, "the master key is missing") {
			t.Errorf("%s", out)
		}
		if _, err := os.Stat(f.srv.Path(keys.MasterPath(replicaData(8)))); err == nil {
			t.Error("a key was made")
		}
	})
	t.Run("every chain is whole, from every server", func(t *testing.T) {
		f.whole(t, "r1", "r2")
		if out, err := f.at(2, "events", "verify"); err != nil || !strings.Contains(out, "r1") {
			t.Errorf("%s %v", out, err)
		}
		n := 0
		for _, e := range f.events("--type", "policy.changed") {
			if e.Reason == "first-start" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("of two first starts at once %d have made the default policy", n)
		}
	})
}

// TestPostgreSQLInTrouble: the database is killed, hangs, and fails over to its
// synchronous standby while people sign in. No server is restarted, no machine opens
// that should not, nothing acknowledged is lost, no code and no try is given back.
func TestPostgreSQLInTrouble(t *testing.T) {
	primary := storetest.NewCluster(t)
	primary.Exec("CREATE DATABASE latchkey")
	standby := primary.Standby(true)
	f := newFleet(t, primary.URL("latchkey", standby), 2)
	a, b := f.machineAt("a", replicaPort(1)), f.machineAt("b", replicaPort(2))
	f.set("window=0s", "offline=mfa")
	alice, bob := f.addUser("alice"), f.addUser("bob")
	f.enrolAt(a, alice)
	used := "" // the last code that was accepted
	// fresh is a code at the beginning of its half minute: a minute later it would still
	// be good, had it not been used.
	fresh := func() string {
		f.code(alice)
		f.pass(30*time.Second - time.Duration(f.now().UnixNano()%int64(30*time.Second)))
		return f.code(alice)
	}
	signin := func(s *station) {
		s.t.Helper()
		used = fresh()
		if r := s.x(alice, Say("assword", alice.pw, "code: ", used)); !r.Opened {
			s.t.Fatalf("%+v", r)
		}
	}
	again := func(s *station) {
		s.t.Helper()
		if o := together(s.t.(*testing.T), alice, used, []*station{s}); o[0].opened || !strings.Contains(o[0].output, text.CodeUsed) {
			s.t.Errorf("a used code: %+v", o)
		}
	}
	// wrong types wrong codes as bob until the conversation ends; it returns what he saw.
	wrong := func(s *station, n int) string {
		term := s.here().Terminal("", "pamtester", "x", "bob", "authenticate")
		defer term.Close()
		term.Expect("assword", Patience)
		time.Sleep(200 * time.Millisecond)
		term.Type(bob.pw)
		for range n {
			if !term.Expect("code: ", Patience) {
				break
			}
			time.Sleep(200 * time.Millisecond)
			before := strings.Count(term.Output(), text.WrongCode)
			term.Type(f.wrong(bob))
			for end := time.Now().Add(Patience); strings.Count(term.Output(), text.WrongCode) == before && time.Now().Before(end); {
				time.Sleep(20 * time.Millisecond)
			}
		}
		if n == 1 {
			term.Expect("Too many wrong tries", 5*time.Second)
		}
		return term.Output()
	}
	known := func() []string {
		var ids []string
		for _, e := range f.events("--limit", "0") {
			ids = append(ids, e.ID)
		}
		return ids
	}
	kept := func(t *testing.T, ids []string) {
		t.Helper()
		now := known()
		for _, id := range ids {
			if !slices.Contains(now, id) {
				t.Errorf("the event %s is gone", id)
			}
		}
	}
	// offline: the server answers 503, or nothing: the machine goes on without it.
	offline := func(t *testing.T) {
		t.Helper()
		s := a.In(t)
		used = fresh()
		r := s.x(alice, Say("assword", alice.pw, "code: ", used))
		opened(t, r, true)
		shows(t, r, text.OfflineNow, true)
		if r.Waits[1] > 15*time.Second {
			t.Errorf("the question for the code took %v", r.Waits[1])
		}
		// Nobody is enrolled at b: denied, and told why.
		r = b.In(t).x(bob, Say("assword", bob.pw))
		opened(t, r, false)
		for _, s := range []string{text.WrongCode, text.CodeUsed, text.DeniedFirst} {
			shows(t, r, s, false)
		}
	}
	back := func(t *testing.T) {
		t.Helper()
		f.back(t, a, b)
		a.In(t).delivered()
	}
	t.Run("killed (-9) and started again", func(t *testing.T) {
		signin(a.In(t))
		wrong(b.In(t), 2)
		ids := known()
		primary.Kill()
		primary.Start()
		primary.Synchronous()
		back(t)
		again(b.In(t))
		f.unlock(alice)
		kept(t, ids)
		// Two tries were counted; the third makes a pause.
		if out := wrong(b.In(t), 1); !strings.Contains(out, "Too many wrong tries") {
			t.Errorf("the tries of before were forgotten:\n%s", out)
		}
	})
	t.Run("away for a while", func(t *testing.T) {
		ids := known()
		primary.Kill()
		offline(t)
		if _, err := f.at(1, "user", "list"); err == nil || !strings.Contains(err.Error(), "can not answer now") {
			t.Errorf("administrators are told %v", err)
		}
		primary.Start()
		primary.Synchronous()
		back(t)
		again(b.In(t))
		f.unlock(alice)
		kept(t, ids)
	})
	t.Run("hung", func(t *testing.T) {
		signin(a.In(t))
		primary.Freeze()
		offline(t)
		begun := time.Now()
		if _, err := f.at(2, "user", "list"); err == nil || !strings.Contains(err.Error(), "can not answer now") {
			t.Errorf("administrators are told %v", err)
		}
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("after %v", took)
		}
		primary.Thaw()
		primary.Synchronous()
		back(t)
		again(b.In(t))
		f.unlock(alice)
	})
	t.Run("failed over to the standby", func(t *testing.T) {
		f.pass(20 * time.Minute) // bob's pause
		f.unlock(bob)
		wrong(b.In(t), 2)
		signin(b.In(t))
		ids := known()
		primary.Kill()
		standby.Promote()
		back(t)
		again(a.In(t))
		again(b.In(t))
		kept(t, ids)
		if out := wrong(b.In(t), 1); !strings.Contains(out, "Too many wrong tries") {
			t.Errorf("the tries of before were forgotten:\n%s", out)
		}
		f.unlock(alice)
		signin(a.In(t))
		signin(b.In(t))
		// The servers hear each other there: what is said at r1 reaches b at once.
		f.set("offline_days=3")
		b.In(t).serial()
		if n := f.totals(); n["chain.rewound "] != 0 {
			t.Errorf("%v", n)
		}
		f.whole(t, "r1", "r2")
		for i, p := range append([]*Process{f.world.realm.server}, f.more...) {
			if !p.Running() {
				t.Errorf("server r%d ended:\n%s", i+1, p.Output())
			}
		}
	})
}

// TestPostgreSQLForgets: a standby takes over that replicates asynchronously and lacks
// the last seconds. What they held is lost; but the server notices by itself, and what
// was accepted or revoked in them is not open again (S10, W7, O8).
func TestPostgreSQLForgets(t *testing.T) {
	primary := storetest.NewCluster(t)
	primary.Exec("CREATE DATABASE latchkey")
	standby := primary.Standby(false)
	f := newFleet(t, primary.URL("latchkey", standby), 2)
	a, b := f.machineAt("a", replicaPort(1)), f.machineAt("b", replicaPort(2))
	alice, bob := f.addUser("alice"), f.addUser("bob")
	opened(t, a.here().Login("alice", f.full(alice)), true)
	opened(t, a.here().Login("alice", Say("assword: ", alice.pw)), true) // the window
	f.enrolAt(a, alice)
	// The standby gets all until now, and no more.
	want := len(f.events("--limit", "0"))
	f.srv.Until(20*time.Second, "the standby has it", func() bool {
		n, err := standby.Count("latchkey", "events")
		return err == nil && n >= want
	})
	standby.Unfollow()
	f.cli("window", "revoke", "--user", "alice", "--yes")
	f.set("offline_days=2") // a's serial is one that another change will have, too
	a.serial()
	f.code(bob)
	f.pass(30*time.Second - time.Duration(f.now().UnixNano()%int64(30*time.Second)))
	code := f.code(bob)
	opened(t, b.x(bob, Say("assword", bob.pw, "code: ", code)), true)
	primary.Kill()
	standby.Promote()
	f.back(t, a, b)
	var rewound []rest.Event
	f.srv.Until(20*time.Second, "both servers have noticed", func() bool {
		rewound = f.events("--type", "chain.rewound")
		return len(rewound) == 2
	})
	for _, s := range []*station{a, b} {
		if o := together(t, bob, code, []*station{s}); o[0].opened || !strings.Contains(o[0].output, text.CodeUsed) {
			t.Errorf("a code that was used in the lost seconds: %+v", o)
		}
	}
	f.unlock(bob)
	term := a.here().Terminal("", "login", "alice")
	if !term.Expect("assword: ", Patience) {
		t.Fatal(term.Output())
	}
	time.Sleep(200 * time.Millisecond)
	term.Type(alice.pw)
	if !term.Expect("code: ", 10*time.Second) {
		t.Errorf("the window that was revoked in the lost seconds is open:\n%s", term.Output())
	}
	term.Close()
	f.set("offline_days=4")
	a.serial()
	f.pass(2 * time.Minute)
	for _, s := range []*station{a, b} {
		opened(t, s.x(bob, f.full(bob)), true)
	}
	f.whole(t, "r1", "r2")
}
