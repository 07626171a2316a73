//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/agent/link"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
	"latchkey/internal/wire"
	"latchkey/test/scale"
)

// placed is a station by a way of its own to the server.
func (w *world) placed(name, port string, lay func(t testing.TB, a, b *Machine) (string, string), extra ...string) *station {
	w.t.Helper()
	s := &station{w, &seat{name: name, state: agentState, spec: "none", port: port, lay: lay, extra: extra}}
	w.place(s)
	return s
}

// TestARoughCable: 30 % of the packets are lost each way and those that arrive take
// 400 ms there and back; every second round it is 10 % and 100 ms. Each sign-in is let
// in by the server, or by the machine's own rules, or denied because the server became
// unreachable in the middle or because what happened offline could not be delivered
// first. Nobody reads that a right code was wrong, and afterwards everything arrives
// once (O1, O11).
func TestARoughCable(t *testing.T) {
	w := newWorld(t, "")
	const seed = 20261122
	rough, milder := Weather{Loss: 30, Delay: 200 * time.Millisecond}, Weather{Loss: 10, Delay: 50 * time.Millisecond}
	var cable *Rough
	s := w.placed("desk", "", func(t testing.TB, a, b *Machine) (addrA, addrB string) {
		cable, addrA, addrB = ConnectRough(t, a, b, seed, Weather{})
		return addrA, addrB
	})
	w.set("window=0s", "offline_signins=500", "offline_tries=50")
	var people []*person
	for i := range scale.N(5, 20) {
		p := w.addUser(fmt.Sprintf("person%d", i))
		s.enrol(p)
		people = append(people, p)
	}
	before := w.mark()
	online, offline, denied, unknown := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	rounds := scale.N(10, 200) / len(people)
	var slowest time.Duration
	for round := range rounds {
		var wg sync.WaitGroup
		results := make([]Result, len(people))
		codes := make([]string, len(people))
		for i, p := range people {
			codes[i] = s.code(p)
		}
		weather := []Weather{rough, milder}[round%2]
		cable.Turn(weather)
		if weather == milder {
			s.online() // after the rough one nobody is at once
		}
		for i, p := range people {
			wg.Go(func() { results[i] = s.patiently(p, codes[i]) })
		}
		wg.Wait()
		if passed, lost := cable.Counts(); weather == rough && lost*4 < passed {
			t.Errorf("the cable was not rough: %d packets lost of %d", lost, passed+lost)
		}
		for i, r := range results {
			name, out := people[i].name, r.Output
			if r.Unasked == ranOut {
				denied[name]++
				continue
			}
			for _, no := range []string{text.WrongCode, text.CodeUsed, text.DeniedFirst, text.DeniedOffline, text.DeniedInternal, text.DeniedReplayed} {
				shows(t, r, no, false)
			}
			for _, wait := range r.Waits {
				slowest = max(slowest, wait)
			}
			switch {
			case r.Opened && strings.Contains(out, text.OfflineNow):
				offline[name]++
			case r.Opened:
				online[name]++
			case strings.Contains(out, text.DeniedUnreachable), strings.Contains(out, text.DeniedTooLong), strings.Contains(out, text.DeniedBusy), strings.Contains(out, text.DeniedDelivering):
				denied[name]++
			default:
				unknown[name]++
				t.Errorf("neither opened nor denied as it should be: exit %d, unasked %q\n%s", r.Exit, r.Unasked, out)
			}
		}
	}
	t.Logf("seed %d: online %v, offline %v, denied %v; slowest prompt after %v", seed, online, offline, denied, slowest)
	cable.Turn(Weather{})
	s.restartAgent()
	s.online()
	s.delivered()
	allowed := map[bool]map[string]int{true: {}, false: {}}
	ids := map[string]bool{}
	for _, e := range w.since(before, "--type", "signin.allowed") {
		allowed[e.Link == "down"][e.Subject]++
		if ids[e.ID] {
			t.Errorf("event %s arrived twice", e.ID)
		}
		ids[e.ID] = true
	}
	for _, p := range people {
		if n := allowed[true][p.name]; n != offline[p.name] {
			t.Errorf("%s: %d events of sign-ins without the server, %d happened", p.name, n, offline[p.name])
		}
		// The server's word may have been lost on its way.
		if n := allowed[false][p.name]; n < online[p.name] || n > online[p.name]+denied[p.name] {
			t.Errorf("%s: the server let in %d times, %d were opened and %d denied", p.name, n, online[p.name], denied[p.name])
		}
	}
	for _, e := range w.since(before) {
		switch string(e.Type) {
		case "totp.collision", "backup.double_spend", "journal.gap", "journal.forged", "offline.state_restored", "offline.state_damaged", "signin.replayed", "lockout.began":
			t.Errorf("event %s %s %s", e.Type, e.Subject, e.Reason)
		}
	}
	for _, p := range people {
		r := s.x(p, s.full(p))
		opened(t, r, true)
		shows(t, r, text.OfflineNow, false)
	}
}

// ranOut is where a code ran out while a rough cable carried it.
const ranOut = "the code ran out on its way"

// patiently signs somebody in who waits as long as a sign-in may take.
func (s *station) patiently(p *person, code string) (r Result) {
	const long = 80 * time.Second
	term := s.here().Terminal("", "pamtester", "x", p.name, "authenticate")
	defer term.Close()
	var typed time.Time
	for _, turn := range [][2]string{{"assword", p.pw}, {"code: ", code}} {
		begun := time.Now()
		if !term.Expect(turn[0], long) {
			r.Unasked = turn[0]
			break
		}
		r.Waits = append(r.Waits, time.Since(begun))
		time.Sleep(200 * time.Millisecond)
		if step := s.now().Unix() / 30; turn[1] == code && step > p.step {
			p.step, turn[1] = step, totp(s.t, p.key, step) // what the app shows by now
		}
		term.Type(turn[1])
		typed = time.Now()
	}
	// A code that was on its way for half a minute has run out, and is told so.
	for term.Exit(50*time.Millisecond) == -1 && time.Since(typed) < long {
		if strings.Contains(term.Output(), text.WrongCode) {
			if time.Since(typed) > 20*time.Second {
				r.Unasked, r.Output = ranOut, term.Output()
				return r
			}
			break
		}
	}
	r.Exit = term.Exit(long)
	r.Output, r.Opened = term.Output(), r.Exit == 0
	return r
}

// TestABlackHole measures what a server that swallows packets, and one that is not
// there, costs a sign-in (O1).
func TestABlackHole(t *testing.T) {
	w := newWorld(t, "")
	s := w.placed("desk", "", nil)
	w.set("window=0s", "offline_signins=500")
	// Everybody once, so that the clock need not be turned for the next code.
	var people []*person
	for i := range scale.N(6, 20) {
		p := w.addUser(fmt.Sprintf("person%d", i))
		s.enrol(p)
		people = append(people, p)
	}
	measure := func(t *testing.T, away func()) (first, code []time.Duration) {
		var turns [][]Turn
		for _, p := range people {
			turns = append(turns, s.full(p))
		}
		s.In(t).online()
		away()
		for i, p := range people {
			r := s.In(t).x(p, turns[i])
			opened(t, r, true)
			shows(t, r, text.OfflineNow, true)
			if len(r.Waits) == 2 {
				first, code = append(first, r.Waits[0].Round(time.Millisecond)), append(code, r.Waits[1].Round(time.Millisecond))
			}
		}
		return first, code
	}
	t.Run("packets vanish", func(t *testing.T) {
		s := s.In(t)
		first, code := measure(t, s.cut)
		t.Logf("black hole: prompt for the password after %v, for the code %v behind the password", first, code)
		// Generous, because others work on this machine too.
		if len(code) == 0 || code[0] > 8*time.Second || slices.Max(first) > 8*time.Second {
			t.Errorf("a server that swallows packets costs too much: %v %v", first, code)
		}
		for _, d := range code[1:] {
			if d > 1500*time.Millisecond {
				t.Errorf("later sign-ins pay for the black hole again: %v", code)
				break
			}
		}
		s.mend()
		s.delivered()
	})
	t.Run("nobody is there", func(t *testing.T) {
		s := s.In(t)
		first, code := measure(t, func() {
			s.server0().Kill("KILL")
			s.why(link.ConnectionRefused)
		})
		t.Logf("refused: prompt for the password after %v, for the code %v behind the password", first, code)
		if len(code) == 0 || slices.Max(code) > 1500*time.Millisecond {
			t.Errorf("a server that refuses costs time: %v", code)
		}
		s.startServer()
		s.mend()
		s.delivered()
	})
}

// TestProxies: whatever a configured proxy does has a reason of its own, and none of it
// is told as the server's (O1).
func TestProxies(t *testing.T) {
	w := newWorld(t, "")
	s := w.placed("desk", "", nil)
	w.set("window=0s", "offline_signins=500")
	alice := w.addUser("alice")
	s.enrol(alice)
	f := newFront(w, "3128")
	host, _, err := net.SplitHostPort(s.addr)
	if err != nil {
		t.Fatal(err)
	}
	start := func(s *station) {
		s.agent.Kill("KILL")
		_ = os.Remove(s.m.Path(Socket))
		s.agent = s.m.StartEnv(s.env(), TestProgram(s.t, "latchkey-agent"), "run", "--state", s.state, "--socket", Socket, "--tpm", s.spec, "--proxy", "http://"+net.JoinHostPort(host, f.port))
		s.here().Until(15*time.Second, "the agent listens", func() bool {
			_, err := os.Stat(s.m.Path(Socket))
			return err == nil
		})
	}
	// behind answers CONNECT with 200 and plays something behind it.
	behind := func(next func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
			next(c)
		}
	}
	portalTLS := newLiar(t, selfMade(t), portal)
	for _, c := range []struct {
		name string
		talk func(net.Conn)
		want link.Reason
	}{
		{"it refuses", octets("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), link.ProxyRefused},
		{"it has no way to the server", octets("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"), link.ProxyRefused},
		{"it wants credentials", octets("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n"), link.ProxyCredentials},
		{"it takes the call and says nothing", mute, link.ProxySilent},
		{"it hangs up", octets(""), link.ProxyRefused},
		{"it answers with a page", octets("HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n"), link.ProxyRefused},
		{"it looks into TLS", behind(portalTLS.play), link.Foreign},
		{"it cuts the line behind its answer", behind(func(net.Conn) {}), link.Broken},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s.In(t)
			f.play(c.talk)
			start(s)
			s.why(c.want)
			s.byOwnRules(alice, nil)
		})
	}
	t.Run("it is not there", func(t *testing.T) {
		s := s.In(t)
		f.hangUp()
		start(s)
		s.why(link.ProxyUnreachable)
		s.byOwnRules(alice, nil)
		f.listen()
	})
	t.Run("it does its work", func(t *testing.T) {
		s := s.In(t)
		f.play(behind(f.pass))
		start(s)
		s.online()
		s.delivered()
		r := s.x(alice, s.full(alice))
		opened(t, r, true)
		shows(t, r, text.OfflineNow, false)
	})
	if n := portalTLS.asked.Load(); n != 0 {
		t.Errorf("whoever looks into TLS was asked %d times", n)
	}
}

// TestTroubleInTheMiddle: a conversation that has begun online is carried on with the
// same octets, or denied because the server became unreachable; never offline, never
// as a wrong code (O1).
func TestTroubleInTheMiddle(t *testing.T) {
	w := newWorld(t, "")
	f := newFront(w, "9444")
	s := w.placed("desk", f.port, nil)
	cert := serverCert(t, w.stolen(0))
	unavailable := fault.New(fault.Unavailable, nil)
	users := map[string]func(w http.ResponseWriter, n int64){
		"recovers": func(w http.ResponseWriter, n int64) {
			if n < 3 {
				say(w, unavailable.Status(), wire.Problem{Code: string(unavailable.Code), Detail: unavailable.Public()})
				return
			}
			say(w, 200, wire.StepReply{Done: &wire.Done{Outcome: policy.Allow, Reason: "mfa", MFA: true, UserName: "recovers"}})
		},
		"failing": func(w http.ResponseWriter, _ int64) {
			say(w, unavailable.Status(), wire.Problem{Code: string(unavailable.Code), Detail: unavailable.Public()})
		},
		"portal": func(w http.ResponseWriter, _ int64) { portal(w, nil) },
		"endless": func(w http.ResponseWriter, _ int64) {
			w.Header().Set(wire.VersionHeader, "1")
			for part := bytes.Repeat([]byte(" "), 64<<10); ; {
				if _, err := w.Write(part); err != nil {
					return
				}
			}
		},
	}
	var who sync.Map // conversation → user
	counts := map[string]*atomic.Int64{}
	for u := range users {
		counts[u] = &atomic.Int64{}
	}
	// The liar reads a body before it answers, so the user is found by what was begun.
	var l *liar
	l = newLiar(t, cert, func(rw http.ResponseWriter, r *http.Request) {
		parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/agent/v1/conversations/"), "/")
		switch {
		case r.URL.Path == wire.PathHello:
			say(rw, 200, wire.HelloReply{Time: w.now().UnixMicro()})
		case r.URL.Path == wire.PathProbe:
			rw.Header().Set(wire.VersionHeader, "1")
			rw.WriteHeader(204)
		case len(parts) != 2:
			<-r.Context().Done()
		case parts[1] == "1":
			var step wire.Step
			for _, b := range l.bodies(r.URL.Path) {
				_ = json.Unmarshal(b, &step)
			}
			if step.Begin != nil {
				who.Store(parts[0], step.Begin.User)
			}
			say(rw, 200, wire.StepReply{Prompt: &wire.Prompt{Kind: wire.PromptSecret, For: wire.ForPassword, Text: text.PromptPassword}})
		case parts[1] == "2":
			say(rw, 200, wire.StepReply{Prompt: &wire.Prompt{Kind: wire.PromptSecret, For: wire.ForCode, Text: text.PromptCode}})
		default:
			u, _ := who.Load(parts[0])
			name, _ := u.(string)
			if do := users[name]; do != nil && parts[1] == "3" {
				do(rw, counts[name].Add(1))
				return
			}
			rw.WriteHeader(404)
		}
	})
	f.play(l.play)
	s.restartAgent()
	s.online()
	terms := map[string]*Terminal{}
	for u := range users {
		s.here().AddUser(u, "the machine's own 7")
		terms[u] = s.half(&person{name: u, pw: "plum orchard ladder"})
	}
	for _, u := range []string{"recovers", "failing", "portal", "endless"} {
		terms[u].Type("123456")
	}
	for u, term := range terms {
		n := term.Exit(80 * time.Second)
		out := term.Output()
		if want := u == "recovers"; (n == 0) != want || n == -1 {
			t.Errorf("%s: exit %d\n%s", u, n, out)
		}
		words := map[string]string{"recovers": "", "portal": text.DeniedUnreachable}
		say, other := words[u]
		if !other {
			say = text.DeniedServer
		}
		if !strings.Contains(out, say) || strings.Contains(out, text.OfflineNow) || strings.Contains(out, text.WrongCode) || strings.Count(out, "code: ") != 1 {
			t.Errorf("%s was shown:\n%s", u, out)
		}
		if counts[u].Load() < 3 {
			t.Errorf("%s: the step was sent %d times", u, counts[u].Load())
		}
	}
	// A repetition has the same octets.
	who.Range(func(id, _ any) bool {
		bodies := l.bodies("/agent/v1/conversations/" + id.(string) + "/3")
		for _, b := range bodies {
			if !bytes.Equal(b, bodies[0]) {
				t.Errorf("a repetition differs: %s and %s", bodies[0], b)
			}
		}
		return true
	})
}

// bodies are those that came to a path.
func (l *liar) bodies(path string) (out [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.steps {
		if rest, ok := bytes.CutPrefix(b, []byte(path+" ")); ok {
			out = append(out, rest)
		}
	}
	return out
}

// TestYesterdaysObjects: whoever has the server's TLS key and what it signed yesterday
// can not put a policy back, nor refuse a machine with another's refusal (O1, O2).
func TestYesterdaysObjects(t *testing.T) {
	w := newWorld(t, "")
	f := newFront(w, "9444")
	s, gone := w.placed("desk", f.port, nil), w.placed("gone", "", nil)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.enrol(alice)
	w.set("offline=bypass")
	s.serial()
	yesterday := s.signed("policy")
	w.set("offline=mfa")
	s.serial()
	st, err := s.status()
	if err != nil {
		t.Fatal(err)
	}
	today := st.Offline.PolicySerial
	w.cli("machine", "revoke", "gone")
	gone.link("refused")
	refusal := gone.signed("refusal")

	var asked atomic.Int64
	cert := serverCert(t, w.stolen(0))
	old := newLiar(t, cert, func(rw http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case wire.PathHello:
			say(rw, 200, wire.HelloReply{Time: w.now().UnixMicro()})
		case wire.PathChanges:
			if asked.Add(1) > 3 {
				<-r.Context().Done()
				return
			}
			say(rw, 200, wire.Changes{Serial: today + 1, Time: w.now().UnixMicro(), Policy: yesterday})
		default:
			say(rw, 503, wire.Problem{Code: string(fault.Unavailable)})
		}
	})
	t.Run("yesterday's policy is refused, and so bypasses nobody", func(t *testing.T) {
		s := s.In(t)
		f.play(old.play)
		s.restartAgent()
		s.here().Until(30*time.Second, "the old policy is brought", func() bool { return asked.Load() > 0 })
		time.Sleep(500 * time.Millisecond)
		if st, err := s.status(); err != nil || st.Offline.PolicySerial != today || st.Offline.PolicyProblem != "" {
			t.Errorf("policy %d, want %d (%s) %v", st.Offline.PolicySerial, today, st.Offline.PolicyProblem, err)
		}
		f.play(mute)
		s.restartAgent()
		s.why(link.Silence)
		r := s.x(alice, Say("assword", alice.pw, "code: ", s.wrong(alice), "code: ", s.wrong(alice), "code: ", s.wrong(alice)))
		opened(t, r, false)
		shows(t, r, text.WrongCode, true)
		opened(t, s.x(alice, s.full(alice)), true)
	})
	t.Run("another machine's refusal refuses nobody", func(t *testing.T) {
		s := s.In(t)
		f0 := fault.New(fault.MachineRefused, nil)
		l := newLiar(t, cert, func(rw http.ResponseWriter, _ *http.Request) {
			say(rw, f0.Status(), wire.Problem{Code: string(f0.Code), Detail: f0.Public(), Refusal: refusal})
		})
		f.play(l.play)
		s.restartAgent()
		s.here().Until(30*time.Second, "the refusal is brought", func() bool { return l.asked.Load() > 1 })
		st, err := s.status()
		if err != nil || st.Link == "refused" || len(st.Offline.Users) == 0 {
			t.Errorf("%+v %v", st, err)
		}
		f.play(f.pass)
		s.restartAgent()
		s.online()
		s.delivered()
		r := s.x(alice, s.full(alice))
		opened(t, r, true)
		shows(t, r, text.OfflineNow, false)
	})
}

// signed is an object that the server has signed for the machine.
func (s *station) signed(name string) []byte {
	s.t.Helper()
	state := s.m.Path(s.state)
	id, _, err := identity.Load(state, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(id.VaultDir(state), name))
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// TestAFloodAtTheMachinesDoor: thousands of half-open handshakes of one address; others
// sign in, and so do in the end the machines at that very address (E4).
func TestAFloodAtTheMachinesDoor(t *testing.T) {
	w := newWorld(t, "")
	s, den := w.placed("desk", "", nil), w.placed("den", "", nil)
	w.set("window=0s")
	alice := w.addUser("alice")
	n := scale.N(2000, 6000)
	half := append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 100)...)
	var conns []net.Conn
	err := den.m.InNetwork(func() error {
		for range n {
			c, err := net.DialTimeout("tcp", den.addr, 10*time.Second)
			if err != nil {
				return err
			}
			_, _ = c.Write(half)
			conns = append(conns, c)
		}
		return nil
	})
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	if err != nil {
		t.Fatalf("after %d connections: %v", len(conns), err)
	}
	files := strings.Count(w.srv.Run("ls", "/proc/"+w.server.pid+"/fd"), "\n")
	t.Logf("%d half-open connections were made; the server holds %d files", n, files)
	if files > 600 {
		t.Errorf("the server holds %d files", files)
	}
	for _, s := range []*station{s, den} {
		s.restartAgent() // a handshake of its own, in the middle of it
		s.online()
		r := s.x(alice, s.full(alice))
		opened(t, r, true)
		shows(t, r, text.OfflineNow, false)
	}
	e := w.last("machine.refused", "", 0)
	host, _, _ := net.SplitHostPort(den.addr)
	if e.Reason != "too-many-connections" || e.Address == "" || e.Address == host {
		t.Errorf("event %+v", e)
	}
	for line := range strings.Lines(w.srv.Run("cat", "/proc/"+w.server.pid+"/status")) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if t.Logf("the server's memory at its highest: %d KiB", kib); err != nil || kib > 600<<10 {
				t.Errorf("the server needed %d KiB (%v)", kib, err)
			}
		}
	}
}

// TestVersionsOfTheWire: an agent of an older version works, a too old one is told to
// be updated, and an agent that is ahead of its server speaks the server's version.
func TestVersionsOfTheWire(t *testing.T) {
	w := newWorld(t, "")
	alice := w.addUser("alice")
	w.set("window=0s")
	serve := func(versions string) {
		w.server.Kill("KILL")
		w.extra = []string{"LATCHKEY_TEST_WIRE=" + versions}
		w.startServer()
	}
	ahead := w.placed("ahead", "", nil, "LATCHKEY_TEST_WIRE=1-2")
	plain := w.placed("plain", "", nil)
	for _, s := range []*station{ahead, plain} {
		s.m.In(t).Try("id", alice.name) // made by addUser where the station was there
		if _, err := s.m.Try("id", alice.name); err != nil {
			s.m.AddUser(alice.name, alice.unix)
		}
	}
	t.Run("the agent is ahead: it joins, signs in and delivers in the server's version", func(t *testing.T) {
		s := ahead.In(t)
		s.enrol(alice)
		s.unplug()
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
	})
	t.Run("the server is ahead: an older agent works", func(t *testing.T) {
		s := plain.In(t)
		serve("1-2")
		s.mend()
		s.enrol(alice)
	})
	t.Run("the agent is too old: it is told so, and so is whoever signs in", func(t *testing.T) {
		s := plain.In(t)
		before := w.mark()
		serve("2-2")
		s.restartAgent()
		too := fault.New(fault.TooOld, nil).Public()
		s.here().Until(30*time.Second, "the machine knows it", func() bool {
			st, err := s.status()
			return err == nil && st.Link == "up" && st.ServerSays == too
		})
		r := s.x(alice, Say("assword", alice.pw))
		opened(t, r, false)
		shows(t, r, too, true)
		shows(t, r, text.OfflineNow, false)
		if e := w.last("machine.refused", "plain", before); e.Reason != string(fault.TooOld) || e.Machine != "plain" {
			t.Errorf("event %+v", e)
		}
	})
	t.Run("the agent is too new for the server: the server is to be updated", func(t *testing.T) {
		s := plain.In(t)
		serve("1-1")
		before := w.mark()
		s.extra = []string{"LATCHKEY_TEST_WIRE=2-2"}
		s.restartAgent()
		too := fault.New(fault.TooNew, nil).Public()
		s.here().Until(30*time.Second, "the machine knows it", func() bool {
			st, err := s.status()
			return err == nil && st.Link == "up" && st.ServerSays == too
		})
		r := s.x(alice, Say("assword", alice.pw))
		opened(t, r, false)
		shows(t, r, too, true)
		if e := w.last("machine.refused", "plain", before); e.Reason != string(fault.TooNew) {
			t.Errorf("event %+v", e)
		}
		s.extra = nil
		s.restartAgent()
		s.online()
		opened(t, s.x(alice, s.full(alice)), true)
	})
	t.Run("a machine with an older agent stands out (P3)", func(t *testing.T) {
		w := w.In(t)
		w.cli("server", "set", "--min-agent-version", "99.0")
		var list []rest.Machine
		w.read(&list, "machine", "list")
		for _, m := range list {
			if !m.Outdated {
				t.Errorf("%s with %s is not outdated", m.Name, m.AgentVersion)
			}
		}
		if len(list) != 2 {
			t.Errorf("%d machines", len(list))
		}
	})
}
