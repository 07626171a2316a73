//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"latchkey/internal/agent/identity"
	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
	"latchkey/test/scale"
)

// Attackers on the machine itself and at its sshd, and root on a machine, on the real
// sshd, pamtester, su, login, agent and server.

// guestMark makes this test program one that an unprivileged user runs in a machine.
const guestMark = "e2e-guest"

func init() {
	if len(os.Args) > 3 && os.Args[1] == guestMark {
		os.Exit(guest(os.Args[2], os.Args[3:]))
	}
}

// guest connects to the agent as whoever runs it.
func guest(socket string, args []string) int {
	dial := func() (net.Conn, error) { return net.DialTimeout("unix", socket, 5*time.Second) }
	switch args[0] {
	case "begin": // phase service user
		c, err := dial()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		r, err := shim.NewShimConn(c).Converse(shim.Start{Phase: shim.Phase(args[1]), Request: shim.Request{Service: args[2], User: args[3], Mode: shim.ModeFull, First: shim.FirstNone}}, nobody{})
		fmt.Printf("%T %+v authtok=%v err=%v\n", r.Verdict, r.Verdict, r.HasAuthtok, err)
	case "answer": // n user: unlocks a session of his own, of a program whose name has n octets, and answers everything
		c, err := dial()
		if err != nil {
			fmt.Println(err)
			return 1
		}
		n, _ := strconv.Atoi(args[1])
		r, err := shim.NewShimConn(c).Converse(shim.Start{Phase: shim.PhaseAuth, Request: shim.Request{Service: strings.Repeat("\x01", n), User: args[2], Mode: shim.ModeFull, First: shim.FirstNone}}, typist{})
		fmt.Printf("%T %+v err=%v\n", r.Verdict, r.Verdict, err)
	case "flood": // n: holds as many connections as it gets, until its input ends
		n, _ := strconv.Atoi(args[1])
		var conns []net.Conn
		for range n {
			c, err := dial()
			if err != nil {
				continue
			}
			_ = shim.NewShimConn(c).Send(shim.Hello{Version: shim.Version}, time.Second)
			conns = append(conns, c)
		}
		time.Sleep(time.Second)
		held := 0
		for _, c := range conns {
			var b [64]byte
			_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := c.Read(b[:]); errors.Is(err, os.ErrDeadlineExceeded) {
				held++
			}
		}
		fmt.Printf("holds %d\n", held)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return 0
}

type nobody struct{}

func (nobody) Ask(string) (s secret.Bytes, err error)    { return s, shim.ErrGaveUp }
func (nobody) Secret(string) (s secret.Bytes, err error) { return s, shim.ErrGaveUp }
func (nobody) Tell(string)                               {}
func (nobody) Warn(string)                               {}

// typist answers everything.
type typist struct{ nobody }

func (typist) Ask(string) (secret.Bytes, error)    { return secret.FromString("123456"), nil }
func (typist) Secret(string) (secret.Bytes, error) { return secret.FromString("123456"), nil }

// guest puts the test program into the machine, where everybody may run it.
func (m *Machine) guest() string {
	m.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		m.t.Fatal(err)
	}
	m.Write("/run/e2e-guest", string(b), 0o755)
	return "/run/e2e-guest"
}

// dial connects from within the machine's network.
func (m *Machine) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			ns.Close()
		}
		if err != nil {
			done <- result{nil, err}
			return
		}
		c, err := (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, network, addr)
		done <- result{c, err}
	}()
	r := <-done
	return r.c, r.err
}

// usage is what the agent uses of the machine: memory in KiB and open files.
func (s *station) usage() (rss, files int) {
	s.t.Helper()
	for line := range strings.Lines(s.here().Read("/proc/" + s.agent.pid + "/status")) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			rss, _ = strconv.Atoi(strings.Fields(v)[0])
		}
	}
	fds, err := os.ReadDir(s.m.Path("/proc/" + s.agent.pid + "/fd"))
	if err != nil || rss == 0 {
		s.t.Fatalf("%d KiB, %v", rss, err)
	}
	return rss, len(fds)
}

// crowd is many ssh clients at once.
type crowd struct {
	prompted, refused, opened, failed atomic.Int64
	said                              sync.Map // what was shown instead of a prompt
	leave                             chan struct{}
	wg                                sync.WaitGroup
}

// swarm opens n ssh connections, some at a time. Each answers as many prompts as it
// has answers, then hangs at the next until leave is closed, and hangs up.
func (s *station) swarm(n int, user string, answers ...string) *crowd {
	c := &crowd{leave: make(chan struct{})}
	slots := make(chan struct{}, 12)
	for range n {
		c.wg.Go(func() {
			slots <- struct{}{}
			var once sync.Once
			free := func() { once.Do(func() { <-slots }) }
			defer free()
			conn, err := s.m.dial(context.Background(), "tcp", "127.0.0.1:22")
			if err != nil {
				c.failed.Add(1)
				return
			}
			defer conn.Close()
			asked := 0
			questions := func(_, instruction string, qs []string, _ []bool) ([]string, error) {
				if len(qs) == 0 {
					c.said.Store(strings.TrimSpace(instruction), true)
					return nil, nil
				}
				if asked++; asked <= len(answers) {
					return []string{answers[asked-1]}, nil
				}
				c.prompted.Add(1)
				free()
				<-c.leave
				return nil, errors.New("hung up")
			}
			client, chans, reqs, err := ssh.NewClientConn(conn, "127.0.0.1:22", &ssh.ClientConfig{
				User: user, Auth: []ssh.AuthMethod{ssh.KeyboardInteractive(questions)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
			})
			switch {
			case err == nil:
				c.opened.Add(1)
				go ssh.DiscardRequests(reqs)
				go func() {
					for ch := range chans {
						_ = ch.Reject(ssh.Prohibited, "")
					}
				}()
				_ = client.Close()
			case asked <= len(answers):
				c.refused.Add(1)
			}
		})
	}
	return c
}

// hangUp ends all of them.
func (c *crowd) hangUp() {
	select {
	case <-c.leave:
	default:
		close(c.leave)
	}
	c.wg.Wait()
}

// settled waits until every one of n has a prompt or a refusal.
func (c *crowd) settled(m *Machine, n int) {
	m.t.Helper()
	m.Until(3*time.Minute, "every client has a prompt or a refusal", func() bool {
		return c.prompted.Load()+c.refused.Load()+c.failed.Load()+c.opened.Load() >= int64(n)
	})
}

func (c *crowd) String() string {
	return fmt.Sprintf("%d prompted, %d refused, %d let in, %d without connection", c.prompted.Load(), c.refused.Load(), c.opened.Load(), c.failed.Load())
}

// roomFor is what sshd needs to let a crowd come as far as the module.
func roomFor(n int) []string {
	return []string{fmt.Sprintf("MaxStartups %d", 4*n+100), "LoginGraceTime 300", "MaxAuthTries 3", "LogLevel INFO"}
}

// noLocks fails if the server holds anything against somebody.
func (w *world) noLocks(user string) {
	w.t.Helper()
	var u rest.User
	w.read(&u, "user", "show", user)
	if len(u.Locks) != 0 {
		w.t.Errorf("%s: %+v", user, u.Locks)
	}
}

// TestAThousandConnectionsThatHangUp: S10, O10. Whoever knocks at sshd spends nobody's
// tries, and whoever sits at the machine signs in meanwhile.
func TestAThousandConnectionsThatHangUp(t *testing.T) {
	const places = 128 // for people on the network: internal/agent
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.enrol(alice)
	n := scale.N(places+12, 1000)
	s.m.SSHD(roomFor(n)...)
	rss0, files0 := s.usage()
	_, tries, _ := s.left(alice)

	t.Run("at the prompt for the password", func(t *testing.T) {
		s := s.In(t)
		before := s.mark()
		c := s.swarm(n, "alice")
		defer c.hangUp()
		c.settled(s.here(), n)
		rss, files := s.usage()
		// Some of a long form's have waited for their fifty seconds by now.
		if c.prompted.Load() < places || c.refused.Load() == 0 || c.opened.Load() != 0 || c.failed.Load() != 0 {
			t.Errorf("%v", c)
		}
		if files > files0+2*places || rss > rss0+64<<10 {
			t.Errorf("the agent has %d files open and %d KiB, before %d and %d", files, rss, files0, rss0)
		}
		opened(t, s.here().Login("alice", s.full(alice)), true)
		opened(t, s.here().Sudo("alice", s.full(alice)), true)
		c.hangUp()
		s.here().Until(20*time.Second, "the agent has let go of them", func() bool { _, f := s.usage(); return f < files0+20 })
		if es := s.since(before, "--type", "signin.denied"); len(es) != 0 {
			t.Errorf("who said nothing was denied: %s", short(es))
		}
		s.noLocks("alice")
		opened(t, s.here().SSH("alice", s.full(alice), once...), true)
	})
	t.Run("with the passwords that sshd makes up", func(t *testing.T) {
		s := s.In(t)
		// Known to the server, not to the machine: sshd refuses her whatever is typed, and
		// hands on junk.
		s.cliInput("winter apples at noon\n", "user", "add", "carol", "--password-stdin")
		before := s.mark()
		m := scale.N(40, 1000)
		c := s.swarm(m, "carol", "winter apples at noon", "winter apples at noon", "winter apples at noon")
		for range 3 { // meanwhile
			opened(t, s.here().Login("alice", s.full(alice)), true)
		}
		c.settled(s.here(), m)
		c.hangUp()
		if c.opened.Load() != 0 || c.refused.Load() != int64(m) {
			t.Errorf("%v", c)
		}
		for _, e := range s.since(before) {
			if e.Subject == "carol" && e.Outcome != "" && e.Reason != "cancelled" {
				t.Errorf("junk was judged: %s", short([]rest.Event{e}))
			}
		}
		s.noLocks("carol")
		s.noLocks("alice")
	})
	t.Run("offline, at the prompt for the code", func(t *testing.T) {
		s := s.In(t)
		s.unplug()
		s.pass(time.Minute) // until the crowd before no longer counts against this address
		m := scale.N(20, 1000)
		c := s.swarm(m, "alice", alice.pw)
		opened(t, s.here().Login("alice", s.full(alice)), true)
		c.settled(s.here(), m)
		if c.prompted.Load() == 0 || c.opened.Load() != 0 {
			t.Errorf("%v", c)
		}
		c.hangUp()
		if _, left, _ := s.left(alice); left != tries {
			t.Errorf("%d tries are left of %d", left, tries)
		}
		opened(t, s.here().Login("alice", s.full(alice)), true)
		before := s.mark()
		s.mend()
		s.delivered()
		told := 0
		for _, e := range s.since(before, "--type", "signin.abandoned") {
			// Those of a long form have waited for their fifty seconds by now.
			if e.Subject != "alice" || e.Link != "down" || e.Scope != "remote" || e.Address != "127.0.0.1" || e.Reason != "given-up" && e.Reason != "too-long" {
				t.Errorf("%+v", e)
			}
			if e.Reason == "given-up" || scale.Long() {
				told++
			}
		}
		if told == 0 {
			t.Error("nothing tells of those who hung up")
		}
		if es := s.since(before, "--type", "signin.denied"); len(es) != 0 {
			t.Errorf("who hung up was denied: %s", short(es))
		}
	})
}

// TestAStrangerOnTheMachine: an unprivileged user begins somebody else's sign-in, wants
// the socket's place, and floods the socket (S1, S8; architecture §4).
func TestAStrangerOnTheMachine(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.m.AddUser("mallory", "x")
	exe := s.m.guest()
	as := func(s *station, args ...string) string {
		out, _ := s.here().TryAs("mallory", "", append([]string{exe, guestMark, Socket}, args...)...)
		return out
	}
	t.Run("begins somebody else's sign-in", func(t *testing.T) {
		s := s.In(t)
		before := s.mark()
		for _, phase := range []shim.Phase{shim.PhaseAuth, shim.PhaseAccount, shim.PhaseChauthtok} {
			for _, service := range []string{"login", "sshd", "sudo", "su", "swaylock", "passwd"} {
				if out := as(s, "begin", string(phase), service, "alice"); !strings.Contains(out, "shim.Deny") || !strings.Contains(out, "your own session") || strings.Contains(out, "authtok=true") {
					t.Errorf("%s %s: %s", phase, service, out)
				}
			}
		}
		r := s.here().PamtesterAs("mallory", nil, "x", "alice", auth, Say("assword: ", alice.pw, "code: ", s.code(alice)))
		opened(t, r, false)
		shows(t, r, "You may only unlock your own session here.", true)
		if es := s.since(before); len(es) != 0 {
			t.Errorf("the server heard of it: %s", short(es))
		}
		s.noLocks("alice")
		if !strings.Contains(s.agent.Output(), "a caller may not do what it asked for") {
			t.Error("the agent's log does not say so")
		}
	})
	t.Run("wants the socket's place", func(t *testing.T) {
		s := s.In(t)
		for _, cmd := range []string{
			"rm -f " + Socket, "mv " + Socket + " /tmp/x", "ln -sf /tmp/x " + Socket, "mv /run/latchkey /run/x", "touch /run/latchkey/x", "chmod 777 /run/latchkey",
		} {
			if out, err := s.here().TryAs("mallory", "", "sh", "-c", cmd); err == nil {
				t.Errorf("%s: %s", cmd, out)
			}
		}
		// The agent is away: the place is not his either.
		s.agent.Kill("KILL")
		if out, err := s.here().TryAs("mallory", "", "sh", "-c", "rm -f "+Socket+"; socat -u OPEN:/dev/null UNIX-LISTEN:"+Socket); err == nil {
			t.Errorf("socat: %s", out)
		}
		r := s.here().Login("alice", nil)
		opened(t, r, false)
		shows(t, r, "does not answer, so nobody can be signed in here", true)
		s.startAgent()
		s.online()
		opened(t, s.here().Login("alice", s.full(alice)), true)
	})
	t.Run("floods the socket", func(t *testing.T) {
		s := s.In(t)
		_, files0 := s.usage()
		var floods []*Process
		for i := range 3 {
			name := fmt.Sprint("flood", i)
			s.here().AddUser(name, "x")
			floods = append(floods, s.here().Start("sh", "-c", "sleep 60 | setpriv --reuid "+name+" --regid "+name+" --init-groups "+exe+" "+guestMark+" "+Socket+" flood "+strconv.Itoa(scale.N(100, 2000))))
		}
		held := 0
		for _, p := range floods {
			s.here().Until(time.Minute, "the flood is there", func() bool { return strings.Contains(p.Output(), "holds ") })
			_, n, _ := strings.Cut(p.Output(), "holds ")
			k, _ := strconv.Atoi(strings.TrimSpace(n))
			held += k
		}
		if held == 0 || held > 3*8 {
			t.Errorf("strangers hold %d connections", held)
		}
		if _, files := s.usage(); files > files0+64 {
			t.Errorf("the agent has %d files open, before %d", files, files0)
		}
		opened(t, s.here().Login("alice", s.full(alice)), true)
		opened(t, s.here().Sudo("alice", s.full(alice)), true)
		for _, p := range floods {
			p.Kill("KILL")
		}
	})
	t.Run("starts many programs of root's", func(t *testing.T) {
		s := s.In(t)
		var terms []*Terminal
		for range 40 {
			terms = append(terms, s.here().Terminal("mallory", "su", "-s", "/bin/sh", "-c", markerCmd, "root"))
		}
		prompts, busy := 0, 0
		for _, term := range terms {
			if term.Expect("assword: ", 5*time.Second) {
				prompts++
			} else if strings.Contains(term.Output(), text.DeniedCrowd) {
				busy++
			}
		}
		if prompts > 32 || busy == 0 || prompts+busy != 40 {
			t.Errorf("%d prompts, %d refused", prompts, busy)
		}
		opened(t, s.here().Login("alice", s.full(alice)), true)
		opened(t, s.here().Sudo("alice", s.full(alice)), true)
		for _, term := range terms {
			term.Close()
		}
	})
}

// TestGarbageOnTheSocket: garbage, huge and slow frames cost their connection and
// nobody else's sign-in.
func TestGarbageOnTheSocket(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	hello := "\x00\x00\x00\x07hello\x001"
	_, files0 := s.usage()
	type peer struct {
		name, octets string
		trickle      bool
	}
	peers := []peer{
		{"nothing at all", "", false},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", false},
		{"a huge frame", "\xff\xff\xff\xff" + strings.Repeat("x", 1<<20), false},
		{"a frame of the greatest length and no more", "\x00\x00\x40\x00", false},
		{"a frame without length", "\x00\x00\x00\x00", false},
		{"a hello that is none", "\x00\x00\x00\x05hello", false},
		{"a version of later", "\x00\x00\x00\x0ahello\x009999", false},
		{"no hello", "\x00\x00\x00\x05begin", false},
		{"a hundred fields", hello + "\x00\x00\x00\x69begin" + strings.Repeat("\x00", 100), false},
		{"an unknown key", hello + "\x00\x00\x00\x0bbegin\x00x=yz1", false},
		{"a begin without a name", hello + "\x00\x00\x00\x14begin\x00service=login\x00", false},
		{"an answer to nothing", hello + "\x00\x00\x00\x0canswer\x001\x00abc", false},
		{"verbs of the agent's", hello + "\x00\x00\x00\x0callow\x00alice\x00", false},
		{"an octet a second", hello, true},
	}
	var wg sync.WaitGroup
	var slow atomic.Int64
	for _, p := range peers {
		wg.Go(func() {
			c, err := net.Dial("unix", s.m.Path(Socket))
			if err != nil {
				t.Error(p.name, err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			if p.trickle {
				for i := range p.octets {
					if _, err := c.Write([]byte{p.octets[i]}); err != nil {
						break
					}
					time.Sleep(time.Second)
				}
			} else {
				_, _ = io.WriteString(c, p.octets)
			}
			got, err := io.ReadAll(c)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				slow.Add(1)
				t.Errorf("%s: the connection is still open", p.name)
			}
			for _, open := range []string{"allow", "ignore", "authtok"} {
				if bytes.Contains(got, []byte(open)) {
					t.Errorf("%s: %q", p.name, got)
				}
			}
		})
	}
	opened(t, s.here().Login("alice", s.full(alice)), true) // meanwhile
	wg.Wait()
	// The same from many sides.
	for range scale.N(300, 5000) {
		c, err := net.Dial("unix", s.m.Path(Socket))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, peers[2].octets[:4096])
		c.Close()
	}
	s.here().Until(15*time.Second, "the agent has let go of them", func() bool { _, f := s.usage(); return f < files0+10 })
	if rss, _ := s.usage(); rss > 128<<10 {
		t.Errorf("the agent has %d KiB", rss)
	}
	opened(t, s.here().Login("alice", s.full(alice)), true)
	if es := s.events("--type", "signin.denied"); len(es) != 0 {
		t.Errorf("garbage became a denial: %s", short(es))
	}
	s.noLocks("alice")
}

// TestNamesThatAreAlmostThere: S5, S6 with unknown_users=skip. A name that only the
// operating system or another way of writing makes alice's is not left to the machine.
func TestNamesThatAreAlmostThere(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	w.cli("machine", "set", "desk", "--unknown-users", "skip")
	s.serial()
	uid := strings.TrimSpace(s.m.Run("id", "-u", "alice"))
	hash := ""
	for line := range strings.Lines(s.m.Read("/etc/shadow")) {
		if f := strings.Split(line, ":"); f[0] == "alice" {
			hash = f[1]
		}
	}
	account := func(s *station, name, uid string) {
		passwd, shadow := s.m.Read("/etc/passwd"), s.m.Read("/etc/shadow")
		s.here().Write("/etc/passwd", passwd+name+":x:"+uid+":"+uid+"::/home/alice:/bin/sh\n", 0o644)
		s.here().Write("/etc/shadow", shadow+name+":"+hash+":20000:0:99999:7:::\n", 0o640)
		s.t.Cleanup(func() {
			s.m.Write("/etc/passwd", passwd, 0o644)
			s.m.Write("/etc/shadow", shadow, 0o640)
		})
	}
	stranger := 23456
	for name, c := range map[string]struct {
		user string
		fold bool // the same but for case: denied whoever it is on the machine
	}{
		"in capitals":                {"ALICE", true},
		"one capital":                {"Alice", true},
		"in full width":              {"ａｌｉｃｅ", false},
		"with a Cyrillic letter":     {"аlice", false},
		"with a dot behind":          {"alice.", false},
		"with a blank behind":        {"alice ", false},
		"of a domain":                {`CORP\alice`, false},
		"of a realm":                 {"alice@corp.test", false},
		"with an invisible letter":   {"ali\u00adce", false},
		"turned round":               {"\u202eecila", false},
		"with an accent typed apart": {"alicé", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.In(t)
			// The same account of the machine: the operating system says that it is hers.
			account(s, c.user, uid)
			before := s.mark()
			r := s.here().Pamtester([]string{"-I", "tty=/dev/tty1"}, "x", c.user, auth, Say("assword: ", alice.unix))
			opened(t, r, false)
			shows(t, r, text.DeniedFirst, true)
			shows(t, r, "code:", false)
			es := s.since(before, "--type", "signin.")
			if len(es) != 1 || es[0].Type != "signin.denied" || es[0].Reason != "name-differs" {
				t.Errorf("%s", short(es))
			}
		})
		t.Run(name+", an account of its own", func(t *testing.T) {
			s := s.In(t)
			stranger++
			account(s, c.user, strconv.Itoa(stranger))
			before := s.mark()
			if scale.Long() {
				opened(t, s.here().Pamtester([]string{"-I", "tty=/dev/tty1"}, "x", c.user, auth, Say("assword: ", alice.pw)), false)
				before = s.mark()
			}
			r := s.here().Pamtester([]string{"-I", "tty=/dev/tty1"}, "x", c.user, auth, Say("assword: ", alice.unix))
			opened(t, r, !c.fold)
			want := "signin.left_to_machine"
			if c.fold {
				want = "signin.denied"
			}
			if es := s.since(before, "--type", "signin."); len(es) != 1 || string(es[0].Type) != want {
				t.Errorf("%s", short(es))
			}
		})
	}
	w.noLocks("alice")
	opened(t, s.here().Login("alice", s.full(alice)), true)
}

// attacker is root on a machine, with the machine's own key.
type attacker struct {
	*station
	id   *identity.Identity
	http *http.Client
}

// root makes requests in the machine's name; its agent should not run.
func (s *station) root() *attacker {
	s.t.Helper()
	id, key, err := identity.Load(s.m.Path(s.state), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &attacker{s, id, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: s.m.dial,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{id.Certificate}, PrivateKey: key}},
		},
	}}}
}

// ask sends one request and returns its status and fault.
func (a *attacker) ask(path string, in, out any) (int, wire.Problem) {
	a.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		a.t.Fatal(err)
	}
	req, err := http.NewRequest("POST", "https://"+a.addr+path, bytes.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set(wire.VersionHeader, "1")
	r, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var p wire.Problem
	if r.StatusCode >= 300 {
		_ = json.Unmarshal(b, &p)
	} else if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			a.t.Fatalf("%s: %v", b, err)
		}
	}
	return r.StatusCode, p
}

// forge delivers one entry behind what the server has; change may spoil its hash.
func (a *attacker) forge(e event.Event, spent *wire.Spent, change func(*wire.JournalEntry)) wire.JournalReply {
	a.t.Helper()
	var hello wire.HelloReply
	if code, p := a.ask(wire.PathHello, wire.Hello{Facts: wire.MachineFacts{Hostname: "desk", Class: "software", Boot: "x"}}, &hello); code != 200 {
		a.t.Fatalf("%d %+v", code, p)
	}
	var prev event.Hash
	copy(prev[:], hello.JournalHash)
	if e.ID == "" {
		e.ID = newID()
	}
	if e.At == 0 {
		e.At = a.now().UnixMicro()
	}
	entry := wire.JournalEntry{Seq: hello.JournalSeq + 1, Counter: hello.JournalSeq + 1000, Event: e, Spent: spent}
	h := wire.EntryHash(a.id.MachineID, prev, entry)
	entry.Hash = h[:]
	if change != nil {
		change(&entry)
	}
	var reply wire.JournalReply
	if code, p := a.ask(wire.PathJournal, wire.Journal{Entries: []wire.JournalEntry{entry}}, &reply); code != 200 {
		a.t.Fatalf("%d %+v", code, p)
	}
	return reply
}

// bare is an id as machines know it.
func bare(id string) string { return id[strings.LastIndexByte(id, '_')+1:] }

func newID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic(err)
	}
	return id.String()
}

// openBundle reads the file of a machine's offline data.
func openBundle(t *testing.T, key ed25519.PublicKey, machine string, raw []byte) wire.Bundle {
	t.Helper()
	payload, err := seal.Verify(key, seal.Bundle, machine, raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := wire.DecodeBundle(payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// joinBy joins with whatever a machine may say of itself, and greets the server with it.
func (s *station) joinBy(token string, facts wire.MachineFacts, reply *wire.JoinReply) (wire.Problem, bool) {
	s.t.Helper()
	tok, err := wire.DecodeToken(token)
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := identity.NewKey(context.Background(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	signer, err := key.Signer(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	csr, err := identity.Request(signer, "x")
	if err != nil {
		s.t.Fatal(err)
	}
	client := func(certs ...tls.Certificate) *attacker {
		return &attacker{s, nil, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
			DialContext: s.m.dial, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: certs},
		}}}
	}
	if code, p := client().ask(wire.PathJoin, wire.Join{Token: wire.Hide(tok.Secret), CSR: csr, Facts: facts}, reply); code != 200 {
		return p, false
	}
	a := client(tls.Certificate{Certificate: [][]byte{reply.Certificate}, PrivateKey: signer})
	code, p := a.ask(wire.PathHello, wire.Hello{Facts: facts}, nil)
	return p, code == 200
}

// TestRootOnAMachineForgesItsJournal: O11, S10, with the machine's real key.
func TestRootOnAMachineForgesItsJournal(t *testing.T) {
	w := newWorld(t, "")
	s, far := w.station("desk", false), w.station("far", false)
	w.set("window=0s", "offline_factors=totp,backup")
	alice, bob := w.addUser("alice"), w.addUser("bob")
	w.addBackup(alice)
	w.addBackup(bob)
	menu := func(n, prompt, code string) func(p *person) []Turn {
		return func(p *person) []Turn { return Say("assword: ", p.pw, "[1-2]: ", n, prompt, code) }
	}
	enrol := func(s *station, p *person) {
		opened(t, s.x(p, menu("1", "code: ", w.code(p))(p)), true)
		s.enrolled(p)
	}
	enrol(s, alice)
	enrol(far, bob)
	var users []rest.User
	w.read(&users, "user", "list")
	ids := map[string]string{}
	for _, u := range users {
		ids[u.Name] = bare(u.ID)
	}
	s.agent.Kill("KILL")
	far.agent.Kill("KILL")
	bundleOf := func(s *station, user string) wire.Bundle {
		id, err := identity.Read(s.m.Path(s.state))
		if err != nil {
			t.Fatal(err)
		}
		var raw []byte
		for _, f := range s.vaultFiles() {
			if strings.Contains(f, "/bundles/") && strings.Contains(f, user) {
				raw = []byte(s.m.Read(f))
			}
		}
		return openBundle(t, id.Grant(), id.MachineID, raw)
	}
	hers, his := bundleOf(s, ids["alice"]), bundleOf(far, ids["bob"])
	if len(hers.Backup) == 0 || len(his.Backup) == 0 || len(hers.Authenticators) != 1 {
		t.Fatalf("%d and %d backup codes", len(hers.Backup), len(his.Backup))
	}
	a := s.root()
	step := w.now().Unix() / 30
	allowed := event.Event{Type: event.SigninAllowed, UserID: ids["alice"], Outcome: "allow", Link: "down", Reason: "offline-mfa", Scope: "logon"}
	with := func(f func(*event.Event)) event.Event { e := allowed; f(&e); return e }
	auth := hers.Authenticators[0].ID
	for _, c := range []struct {
		name   string
		e      event.Event
		spent  *wire.Spent
		change func(*wire.JournalEntry)
		want   string
	}{
		{"another user", with(func(e *event.Event) { e.UserID = ids["bob"] }), nil, nil, "not-a-user-of-this-machine"},
		{"nobody", with(func(e *event.Event) { e.UserID = "0198c0de-0000-7000-8000-00000000dead" }), nil, nil, "not-a-user-of-this-machine"},
		{"a step of next week", allowed, &wire.Spent{Authenticator: auth, Step: step + 20160}, nil, "step-in-the-future"},
		{"the present step", allowed, &wire.Spent{Authenticator: auth, Step: step}, nil, "code-was-not-typed-here"},
		{"the next steps", allowed, &wire.Spent{Authenticator: auth, Step: step + 8, Proof: make([]byte, wire.ProofSize)}, nil, "code-was-not-typed-here"},
		{"bob's authenticator", allowed, &wire.Spent{Authenticator: his.Authenticators[0].ID, Step: step}, nil, "not-this-users-authenticator"},
		{"bob's backup code", allowed, &wire.Spent{Backup: his.Backup[0].ID}, nil, "not-this-users-authenticator"},
		{"her own backup code", allowed, &wire.Spent{Backup: hers.Backup[1].ID, Proof: hers.Backup[1].Tag}, nil, "code-was-not-typed-here"},
		{"an administrator's event", with(func(e *event.Event) { e.Type = event.UserRemoved }), nil, nil, "not-a-machines-event"},
		{"an edited entry", allowed, nil, func(e *wire.JournalEntry) { e.Event.Subject = "bob" }, "hash-differs"},
	} {
		before := w.mark()
		a.forge(c.e, c.spent, c.change)
		es := slices.DeleteFunc(w.since(before), func(e rest.Event) bool { return e.Type == string(event.MachineChanged) })
		if len(es) != 1 || string(es[0].Type) != "journal.forged" || es[0].Reason != c.want || es[0].Machine != "desk" {
			t.Errorf("%s: %s", c.name, short(es))
		}
	}
	// In the name of another machine: what it says of that is not heard.
	before := w.mark()
	a.forge(with(func(e *event.Event) {
		e.MachineID, e.Machine, e.Type, e.Reason, e.Outcome = far.root().id.MachineID, "far", event.SigninDenied, "wrong-code", "deny"
	}), nil, nil)
	if e := w.last("signin.denied", "alice", before); e.Machine != "desk" || e.Link != "down" {
		t.Errorf("%+v", e)
	}
	// Nobody is kept from signing in by it.
	far.startAgent()
	far.online()
	opened(t, far.x(alice, menu("1", "code: ", w.code(alice))(alice)), true)
	for i := range 2 {
		opened(t, far.x(alice, menu("2", "ackup code: ", alice.backup[i])(alice)), true)
	}
	opened(t, far.x(bob, menu("2", "ackup code: ", bob.backup[0])(bob)), true)
	w.noLocks("alice")
	w.noLocks("bob")
	w.cli("events", "verify")

	// The same on the machine's disk: an entry that was edited there.
	s.startAgent()
	s.online()
	enrol(s, alice)
	s.unplug()
	opened(t, s.x(alice, Say("assword: ", alice.pw, "code: ", w.code(alice))), true)
	s.agent.Kill("KILL")
	file := ""
	for _, f := range strings.Fields(s.here().Run("find", s.state, "-name", "journal")) {
		file = f
	}
	raw := s.m.Read(file)
	edited := strings.Replace(raw, ids["alice"], ids["bob"], 1)
	if raw == edited {
		t.Fatal("the journal does not name her")
	}
	s.here().Write(file, edited, 0o600)
	before = w.mark()
	s.startAgent()
	s.mend()
	s.delivered()
	if e := w.last("journal.gap", "", before); e.Machine != "desk" {
		t.Errorf("%+v", e)
	}
	for _, e := range w.since(before, "--type", "signin.") {
		if e.Subject == "bob" {
			t.Errorf("%s", short([]rest.Event{e}))
		}
	}
	opened(t, s.x(alice, menu("1", "code: ", w.code(alice))(alice)), true)
}

// TestRootAsksForOfflineDataOfAStranger: O4, O8. For a pair without an MFA just now the
// server makes nothing, whatever the machine's own key asks for.
func TestRootAsksForOfflineDataOfAStranger(t *testing.T) {
	w := newWorld(t, "")
	s, far := w.station("desk", false), w.station("far", false)
	w.set("window=0s")
	alice, bob := w.addUser("alice"), w.addUser("bob")
	far.enrol(bob) // and never at the desk
	before := w.mark()
	opened(t, s.x(alice, w.full(alice)), true)
	s.enrolled(alice)
	conversation := func(e rest.Event) string {
		var d struct {
			Conversation string `json:"conversation"`
		}
		if err := json.Unmarshal(e.Data, &d); err != nil || d.Conversation == "" {
			t.Fatalf("%s: %v", e.Data, err)
		}
		return d.Conversation
	}
	his := w.last("signin.allowed", "bob", 0)
	hers := w.last("signin.allowed", "alice", before)
	s.agent.Kill("KILL")
	a := s.root()
	prepare := func(c string) (int, wire.Problem) {
		return a.ask(wire.PathPrepare, wire.Prepare{Conversation: c, Class: "software", HavePassword: true}, nil)
	}
	w.pass(6 * time.Minute)
	mark := w.mark()
	for name, c := range map[string]string{
		"a conversation that never was": newID(), "bob's at another machine": conversation(his), "alice's, six minutes ago": conversation(hers), "none": "",
	} {
		if code, p := prepare(c); code != 403 || p.Code != "forbidden" {
			t.Errorf("%s: %d %+v", name, code, p)
		}
	}
	for name, ask := range map[string]func() (int, wire.Problem){
		"a permit for his counters at another machine": func() (int, wire.Problem) {
			return a.ask(wire.PathPermit, wire.PermitRequest{Conversation: conversation(his), UserID: bare(his.UserID), Generation: 1, Kind: "use", Nonce: make([]byte, 32)}, nil)
		},
		"a lift of them": func() (int, wire.Problem) {
			return a.ask(wire.PathPermit, wire.PermitRequest{UserID: bare(his.UserID), Generation: 1, Kind: "use", Written: true, Nonce: make([]byte, 32)}, nil)
		},
		"his tags": func() (int, wire.Problem) {
			return a.ask(wire.PathBundle, wire.BundleRequest{UserID: bare(his.UserID), Generation: 1}, nil)
		},
		"that his data is ready": func() (int, wire.Problem) {
			return a.ask(wire.PathReady, wire.Ready{Conversation: conversation(his), UserID: bare(his.UserID), Generation: 1}, nil)
		},
	} {
		if code, p := ask(); code != 403 && code != 404 {
			t.Errorf("%s: %d %+v", name, code, p)
		}
	}
	if code, p := a.ask(wire.PathWiped, wire.Wiped{UserID: bare(his.UserID), Generation: 1, Reason: "x"}, nil); code >= 500 {
		t.Errorf("%d %+v", code, p)
	}
	if got := far.report(bob); got != "active" {
		t.Errorf("bob's data at the other machine is %s", got)
	}
	for _, e := range w.offlineList() {
		if e.User == "bob" && e.Machine == "desk" {
			t.Errorf("%+v", e)
		}
	}
	// The machine says that it has judged the password of somebody who never was here:
	// that alone opens nothing, and his factor is asked for.
	if e := w.last("offline.enrol_refused", "", mark); e.Machine != "desk" || e.Reason != "no-sign-in-entitles" {
		t.Errorf("%+v", e)
	}
	if es := w.since(mark, "--type", "offline.enrolled"); len(es) != 0 {
		t.Errorf("%s", short(es))
	}
}

// TestACodeOnBothSidesOfTheCable: S10, O9. One code on one machine, online and offline.
func TestACodeOnBothSidesOfTheCable(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.enrol(alice)
	// Online, and again offline.
	code := w.code(alice)
	opened(t, s.x(alice, Say("assword: ", alice.pw, "code: ", code)), true)
	s.unplug()
	_, tries, _ := s.left(alice)
	r := s.x(alice, append(Say("assword: ", alice.pw, "code: ", code), giveUp))
	opened(t, r, false)
	shows(t, r, text.CodeUsed, true)
	shows(t, r, text.WrongCode, false)
	if _, left, _ := s.left(alice); left != tries-1 {
		t.Errorf("%d tries are left of %d: a guess is a guess", left, tries)
	}
	// Offline, and again online: the link comes back in the middle of it.
	code = w.code(alice)
	opened(t, s.x(alice, Say("assword: ", alice.pw, "code: ", code)), true)
	before := w.mark()
	s.plug()
	end := time.Now().Add(time.Minute)
	for online := false; !online; {
		r := s.x(alice, append(Say("assword: ", alice.pw, "code: ", code), giveUp))
		opened(t, r, false)
		shows(t, r, text.CodeUsed, true)
		online = !strings.Contains(r.Output, text.OfflineNow)
		if time.Now().After(end) {
			t.Fatal("the link does not come back")
		}
	}
	if e := w.last("factor.rejected", "alice", before); e.Reason != "totp-replayed" {
		t.Errorf("%+v", e)
	}
	s.delivered()
	if e := w.last("signin.denied", "alice", 0); e.Reason != "code-used" && e.Reason != "cancelled" {
		t.Errorf("%+v", e)
	}
	opened(t, s.x(alice, w.full(alice)), true)
}

// escapes are what a terminal, a log or a table must never get of a stranger.
const escapes = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\u009b31m\u0090q\u202eevil\u2066\r\n\tfake line\x00\x7f\u200b\ufeff"

// harmless fails if a text could do more than be read. Line feeds are the table's own.
func harmless(t *testing.T, where, s string) {
	t.Helper()
	for i, r := range s {
		if r != '\n' && r != '\t' && (unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029') {
			t.Errorf("%s: U+%04X in %q", where, r, s[max(0, i-40):min(len(s), i+40)])
			return
		}
	}
}

// TestTerminalEscapes: what machines and people call themselves reaches terminals,
// tables, prompts, events and logs as harmless text.
func TestTerminalEscapes(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s", "offline=deny")
	alice := w.addUser("alice")
	s.m.SSHD()
	// A machine joins whose own words are all bad, and goes on like that.
	var token rest.Token
	w.read(&token, "machine", "token", "--server-url", "https://"+s.addr)
	facts := wire.MachineFacts{Hostname: "host" + escapes, OS: "os" + escapes, AgentVersion: "1" + escapes, Boot: "boot", Class: "software"}
	for what, spoil := range map[string]func(f *wire.MachineFacts){
		"boot":          func(f *wire.MachineFacts) { f.Boot += escapes },
		"class":         func(f *wire.MachineFacts) { f.Class += escapes },
		"tpm_problem":   func(f *wire.MachineFacts) { f.TPMProblem = "tpm" + escapes },
		"vault_problem": func(f *wire.MachineFacts) { f.VaultProblem = "vault" + escapes },
	} {
		bad := facts
		spoil(&bad)
		p, ok := s.joinBy(token.Token.Show(), bad, nil)
		if ok || !strings.Contains(p.Detail, what) {
			t.Errorf("%s was taken: %+v", what, p)
		}
		harmless(t, what, p.Detail)
	}
	var joined wire.JoinReply
	if p, ok := s.joinBy(token.Token.Show(), facts, &joined); !ok {
		t.Fatalf("%+v", p)
	}
	harmless(t, "the name it was given", joined.Name)
	opened(t, s.x(alice, s.full(alice)), true)
	// Who signs in is typed by anybody.
	for _, name := range []string{"al" + strings.ReplaceAll(escapes, "\x00", "") + "ice", "\x1b[31malice", "alice\x9b2J"} {
		r := s.here().Pamtester(nil, "x", name, auth, Say("assword: ", "x"))
		opened(t, r, false)
		if r.Took > Patience/2 {
			t.Errorf("pamtester took %v: %s", r.Took, r.Output)
		}
		opened(t, s.here().SSH(name, Say("assword: ", "x"), append(once, "-o", "LogLevel=QUIET")...), false)
	}
	r := s.here().Pamtester([]string{"-I", "rhost=1" + strings.ReplaceAll(escapes, "\x00", ""), "-I", "tty=\x1b[2J", "-I", "ruser=\x1b]0;x\x07"}, "x", "alice", auth, Say("assword: ", "wrong one"))
	opened(t, r, false)
	// What administrators write is refused where it is written.
	for _, args := range [][]string{
		{"server", "set", "--contact", "call\x1b[2J 123"},
		{"user", "add", "ev\x1bil"},
		{"group", "add", "gr\u202eoup"},
		{"user", "set", "alice", "--display-name", "A\x1b[2J"},
		{"machine", "set", "desk", "--name", "de\x07sk"},
		{"user", "bypass-code", "alice", "--reason", "lost\x1b]0;x\x07"},
		{"policy", "add", "p\x1bq"},
	} {
		out, err := w.try(args...)
		if err == nil {
			t.Errorf("%q was taken: %s", args, out)
			continue
		}
		harmless(t, strings.Join(args[:2], " "), out+err.Error())
	}
	// The contact is read at the prompt.
	w.cli("server", "set", "--contact", "the desk, 2nd floor <help@example.org>")
	s.serial()
	s.unplug()
	s.here().PAM("x", s.m.Shipped("latchkey-second"))
	r = s.here().Pamtester(nil, "x", "alice", auth, Say("assword: ", alice.unix))
	opened(t, r, false)
	shows(t, r, "the desk, 2nd floor <help@example.org>", true)
	s.mend()
	s.delivered()

	for _, args := range [][]string{
		{"machine", "list"},
		{"machine", "show", joined.Name},
		{"events", "--limit", "500"},
		{"offline", "list"},
		{"user", "list"},
		{"user", "show", "alice"},
		{"machine", "list", "--output", "json"},
		{"events", "--limit", "500", "--output", "json"},
	} {
		out, err := w.try(args...)
		if err != nil {
			t.Errorf("%q: %v", args, err)
		}
		harmless(t, strings.Join(args, " "), out)
		if args[0] == "machine" && !strings.Contains(out, "redq") && !strings.Contains(out, "[31mred") && args[1] == "list" {
			t.Errorf("the machine is not in the list: %s", out)
		}
		if args[0] == "events" && strings.Contains(out, "\nfake line") {
			t.Errorf("a line that nobody wrote: %s", out)
		}
	}
	harmless(t, "the server's log", w.server0().Output())
	harmless(t, "the agent's log", s.agent.Output())
	status := func(args ...string) string {
		out, err := s.m.stdout("", append([]string{"env", "LATCHKEY_TEST_CLOCK=" + s.clock, TestProgram(t, "latchkey"), "status", "--socket", Socket}, args...))
		if err != nil {
			t.Error(err)
		}
		return out
	}
	harmless(t, "latchkey status", status())
	harmless(t, "latchkey status", status("--output", "json"))
}

// TestTheRecordOfASu: S1, S11. Where the machine has judged the password of the account
// that is opened, the record says so, and does not say that the caller's was judged.
func TestTheRecordOfASu(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.m.SetPassword("root", rootPassword)
	s.here().PAM("su", s.m.Shipped("latchkey-second"))
	before := w.mark()
	opened(t, s.here().Su("alice", "root", Say("assword: ", rootPassword, "code: ", w.code(alice))), true)
	record := func(e rest.Event) {
		t.Helper()
		var d struct {
			Target  string `json:"target"`
			FirstOf string `json:"first_of"`
			Judged  bool   `json:"password_judged"`
		}
		if err := json.Unmarshal(e.Data, &d); err != nil || d.Target != "root" || d.FirstOf != "root" || d.Judged {
			t.Errorf("%+v %v", d, err)
		}
	}
	record(w.last("signin.allowed", "alice", before))
	before = w.mark()
	opened(t, s.here().Su("alice", "root", append(Say("assword: ", rootPassword, "code: ", w.wrong(alice)), giveUp)), false)
	record(w.last("signin.abandoned", "alice", before))
	before = w.mark()
	s.unplug()
	opened(t, s.here().Su("alice", "root", Say("assword: ", rootPassword)), false) // she was never enrolled here
	s.mend()
	s.delivered()
	record(w.last("signin.denied", "alice", before))
}
