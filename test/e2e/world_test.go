//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/shim"
	"latchkey/internal/tpm/tpmtest"
)

// The real thing: a server on a machine of its own, and machines with the real agent,
// joined to it by cables that can be cut. The programs are those with a movable clock
// (.cache/bin-test), so that nothing waits for the next half minute.

// world is a server and whoever has joined it.
type world struct {
	*realm
	t testing.TB
}

// realm is what all views of a world share.
type realm struct {
	root     testing.TB
	srv      *Machine
	server   *Process
	database string   // empty: SQLite in the data folder
	options  []string // further ones of latchkeyd serve
	offset   time.Duration
	astray   time.Duration // by how much the server's clock is wrong
	extra    []string      // of the server's environment
	dir      string        // of the clocks, on the host
	stations []*seat
	// people are what passwords and authenticators the test has in hand.
	people map[string]*person
}

// station is a machine with an agent.
type station struct {
	*world
	*seat
}

type seat struct {
	m       *Machine
	name    string // under which it joined
	addr    string // of the server's door for machines, as seen from here
	port    string // of that door, if it is not agentPort
	agent   *Process
	tpm     *tpmtest.Emulator // nil: --tpm none
	spec    string            // of --tpm
	clock   string            // file
	astray  time.Duration     // by how much this machine's clock is wrong
	state   string
	extra   []string // of the agent's environment
	started int      // how often the agent was
	// lay lays the cable; nil is Connect.
	lay func(t testing.TB, a, b *Machine) (addrA, addrB string)
}

// person is somebody with an account on the server and on the machines.
type person struct {
	name   string
	unix   string // password of the machine
	pw     string // password of Latchkey
	key    string // base32, of the authenticator app
	backup []string
	step   int64 // of the newest code that was made
}

const (
	serverData = "/var/lib/latchkey/server"
	agentState = "/var/lib/latchkey/agent"
	peoplePort = "8443"
	agentPort  = "8444"
)

// newWorld starts a server.
func newWorld(t *testing.T, database string) *world {
	t.Helper()
	t.Parallel()
	return newWorldAlone(t, database)
}

// newWorldAlone is for a test beside which no other runs.
func newWorldAlone(t *testing.T, database string) *world {
	t.Helper()
	w := &world{&realm{root: t, database: database, dir: t.TempDir(), people: map[string]*person{}}, t}
	w.srv = NewMachine(t)
	w.turn()
	w.startServer()
	t.Cleanup(func() { w.settled(t) })
	return w
}

// settled looks at what every world must leave behind, whatever the test has done to it: a whole chain of events, and no
// event with a reason that nobody explains.
func (w *world) settled(t *testing.T) {
	if t.Failed() {
		return
	}
	out, err := w.try("events", "--limit", "0", "--output", "json")
	if err != nil {
		t.Logf("the server is not there at the end; its events were not looked at: %v", err)
		return
	}
	if out, err := w.try("events", "verify"); err != nil {
		t.Errorf("%s %v", out, err)
	}
	for line := range strings.Lines(out) {
		var e rest.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("%v: %s", err, line)
			continue
		}
		kind, _, _ := strings.Cut(e.Type, ".")
		if e.Reason != "" && event.Reasons[e.Reason] == "" && slices.Contains([]string{"signin", "offline", "tpm", "journal", "totp", "backup", "clock", "factor", "lockout", "token", "window"}, kind) {
			t.Errorf("the reason %q of %s has no sentence in event.Reasons", e.Reason, e.Type)
		}
	}
}

// In is the same world for a subtest.
func (w *world) In(t testing.TB) *world { return &world{w.realm, t} }

// In is the same station for a subtest.
func (s *station) In(t testing.TB) *station { return &station{s.world.In(t), s.seat} }

// here is the machine, for what the subtest does on it.
func (s *station) here() *Machine { return s.m.In(s.t) }

func (w *world) clockFile(name string) string { return filepath.Join(w.dir, name+".clock") }

// turn writes the clocks.
func (w *world) turn() {
	write := func(file string, d time.Duration) {
		if err := os.WriteFile(file+".new", []byte(d.String()), 0o644); err != nil {
			w.t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			w.t.Fatal(err)
		}
	}
	write(w.clockFile("server"), w.offset+w.astray)
	for _, s := range w.stations {
		write(s.clock, w.offset+s.astray)
	}
}

// pass lets time go by, everywhere.
func (w *world) pass(d time.Duration) {
	w.offset += d
	w.turn()
}

// turnClock makes the clock of one machine wrong by d.
func (s *station) turnClock(d time.Duration) {
	s.astray = d
	s.turn()
}

func (w *world) now() time.Time { return time.Now().Add(w.offset) }

// startServer starts latchkeyd, anew if it was killed.
func (w *world) startServer() {
	w.t.Helper()
	argv := []string{
		TestProgram(w.t, "latchkeyd"), "serve", "--data", serverData,
		"--listen", "127.0.0.1:" + peoplePort, "--listen-agent", "0.0.0.0:" + agentPort, "--admin-socket", serverData + "/admin.sock",
	}
	if w.database != "" {
		argv = append(argv, "--database", w.database)
	}
	argv = append(argv, w.options...)
	w.server = w.srv.In(w.root).StartEnv(append([]string{"LATCHKEY_TEST_CLOCK=" + w.clockFile("server")}, w.extra...), argv...)
	w.srv.In(w.t).Until(30*time.Second, "the server serves", func() bool {
		if !w.server.Running() {
			w.t.Fatalf("the server ended:\n%s", w.server.Output())
		}
		_, err := w.try("user", "list", "--output", "json")
		return err == nil
	})
}

// try runs the command of administrators on the server's machine and returns what it
// printed to standard output; the error holds the rest.
func (w *world) try(args ...string) (string, error) { return w.tryInput("", args...) }

func (w *world) tryInput(input string, args ...string) (string, error) {
	return w.srv.stdout(input, append([]string{
		"env", "LATCHKEY_TEST_CLOCK=" + w.clockFile("server"),
		TestProgram(w.t, "latchkey"), "--server", "unix:" + serverData + "/admin.sock",
	}, args...))
}

// stdout runs a command as root and keeps its two outputs apart.
func (m *Machine) stdout(input string, argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	argv = m.inside("", argv)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, complaint.String())
	}
	return out.String(), nil
}

// cli is try that must succeed.
func (w *world) cli(args ...string) string {
	w.t.Helper()
	return w.cliInput("", args...)
}

func (w *world) cliInput(input string, args ...string) string {
	w.t.Helper()
	out, err := w.tryInput(input, args...)
	if err != nil {
		w.t.Fatalf("latchkey %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// read runs a command of administrators and decodes what it prints.
func (w *world) read(dst any, args ...string) {
	w.t.Helper()
	out := w.cli(append(args, "--output", "json")...)
	if err := json.Unmarshal([]byte(out), dst); err != nil {
		w.t.Fatalf("latchkey %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// set changes settings of the default policy, whomever that shuts out.
func (w *world) set(settings ...string) {
	w.t.Helper()
	w.cli(append([]string{"policy", "set", "default", "--yes"}, settings...)...)
}

// station makes a machine, lays a cable, joins it and starts its agent.
func (w *world) station(name string, withTPM bool) *station {
	w.t.Helper()
	s := &station{w, &seat{name: name, state: agentState, spec: "none"}}
	if withTPM {
		s.tpm = tpmtest.Start(w.root)
		s.spec = s.tpm.Spec()
	}
	w.place(s)
	return s
}

// place puts a station into the world.
func (w *world) place(s *station) {
	w.t.Helper()
	s.m = NewMachine(w.root)
	if s.lay == nil {
		s.lay = Connect
	}
	_, addr := s.lay(w.t, s.m, w.srv)
	s.addr = addr + ":" + cmp.Or(s.port, agentPort)
	s.clock = w.clockFile(s.name)
	w.stations = append(w.stations, s.seat)
	w.turn()
	for _, service := range []string{"x", "sshd", "sudo", "su", "login"} {
		s.m.PAM(service, s.m.Shipped("latchkey-full"))
	}
	s.join()
	s.startAgent()
	s.online()
}

func (s *station) env() []string {
	return append([]string{"LATCHKEY_TEST_CLOCK=" + s.clock, "LATCHKEY_TEST_FAILPOINT=" + s.clock + ".kill"}, s.extra...)
}

// killAt has the agent killed when it comes to a named step.
func (s *station) killAt(step string) {
	s.t.Helper()
	if err := os.WriteFile(s.clock+".kill", []byte(step), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// join gives the machine its identity.
func (s *station) join(options ...string) {
	s.t.Helper()
	var token rest.Token
	s.read(&token, "machine", "token", "--name", s.name, "--server-url", "https://"+s.addr)
	argv := append([]string{"env"}, s.env()...)
	argv = append(argv, TestProgram(s.t, "latchkey-agent"), "join", token.Token.Show(), "--state", s.state, "--tpm", s.spec)
	s.here().Run(append(argv, options...)...)
}

// startAgent starts the agent and waits until its socket is there.
func (s *station) startAgent() {
	s.t.Helper()
	_ = os.Remove(s.m.Path(Socket))
	s.agent = s.m.StartEnv(s.env(), TestProgram(s.t, "latchkey-agent"), "run", "--state", s.state, "--socket", Socket, "--tpm", s.spec)
	s.here().Until(15*time.Second, "the agent listens", func() bool {
		if !s.agent.Running() {
			s.t.Fatalf("the agent ended:\n%s", s.agent.Output())
		}
		_, err := os.Stat(s.m.Path(Socket))
		return err == nil
	})
	s.started++
}

// restartAgent kills the agent without a word and starts it again.
func (s *station) restartAgent() {
	s.t.Helper()
	s.agent.Kill("KILL")
	s.startAgent()
}

// status is what the machine says of itself.
func (s *station) status() (shim.MachineStatus, error) {
	var st shim.MachineStatus
	argv := append([]string{"env"}, s.env()...)
	out, err := s.m.stdout("", append(argv, TestProgram(s.t, "latchkey"), "status", "--socket", Socket, "--output", "json"))
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(out), &st)
}

// link waits for a state of the link.
func (s *station) link(want string) {
	s.t.Helper()
	var st shim.MachineStatus
	var err error
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if st, err = s.status(); err == nil && st.Link == want {
			return
		}
	}
	s.t.Fatalf("the link is not %s: %+v %v", want, st, err)
}

func (s *station) online() { s.t.Helper(); s.link("up") }

// cut makes a black hole of the way to the server.
func (s *station) cut() {
	s.t.Helper()
	s.here().DropServer(s.addr)
}

// unplug takes the cable out: nothing goes, and the machine can know it.
func (s *station) unplug() {
	s.t.Helper()
	s.here().Run("ip", "link", "set", "dev", s.cable(), "down")
}

func (s *station) cable() string {
	s.t.Helper()
	for _, f := range strings.FieldsFunc(s.here().Run("ip", "-brief", "link"), func(r rune) bool { return strings.ContainsRune(" @\n", r) }) {
		if strings.HasPrefix(f, "cable") {
			return f
		}
	}
	s.t.Fatalf("%s has no cable", s.name)
	return ""
}

// plug undoes unplug and cut.
func (s *station) plug() {
	s.t.Helper()
	s.here().Run("ip", "link", "set", "dev", s.cable(), "up")
	s.here().RestoreServer(s.addr)
}

// mend is plug, and waits until the machine has noticed. An agent looks for its
// server less and less often; a new one does it at once.
func (s *station) mend() {
	s.t.Helper()
	s.plug()
	if st, err := s.status(); err != nil || st.Link != "up" {
		s.restartAgent()
	}
	s.online()
}

// addUser makes an account on the server with an authenticator app, and one of the
// same name on every machine, with a password of its own.
func (w *world) addUser(name string, options ...string) *person {
	w.t.Helper()
	p := w.addAccount(name, options...)
	w.addTOTP(p)
	return p
}

// addAccount is addUser without a second factor.
func (w *world) addAccount(name string, options ...string) *person {
	w.t.Helper()
	p := &person{name: name, unix: "the machine's own 7", pw: "plum orchard ladder"}
	w.cliInput(p.pw+"\n", append([]string{"user", "add", name, "--password-stdin"}, options...)...)
	for _, s := range w.stations {
		s.m.In(w.t).AddUser(name, p.unix)
	}
	w.people[name] = p
	return p
}

func (w *world) addTOTP(p *person) {
	w.t.Helper()
	var f rest.TOTP
	w.read(&f, "factor", "add", "totp", p.name)
	p.key = f.Key.Show()
	if p.key == "" {
		w.t.Fatalf("no key for %s", p.name)
	}
}

func (w *world) addBackup(p *person) {
	w.t.Helper()
	var f rest.BackupCodes
	w.read(&f, "factor", "add", "backup", p.name)
	p.backup = nil
	for _, c := range f.Codes {
		p.backup = append(p.backup, c.Show())
	}
}

// code is the next code of a person's authenticator app, by an oracle that is not
// ours. If this half minute's was used, half a minute goes by.
func (w *world) code(p *person) string {
	w.t.Helper()
	now := w.now()
	step := now.Unix() / 30
	if step <= p.step {
		step = p.step + 1
	} else if now.Sub(time.Unix(step*30, 0)) > 10*time.Second {
		step++
	}
	if ahead := time.Unix(step*30, 0).Sub(now); ahead > 0 {
		w.pass(ahead)
	}
	p.step = step
	return totp(w.t, p.key, step)
}

func totp(t testing.TB, key string, step int64) string {
	t.Helper()
	out, err := exec.Command("oathtool", "--totp", "-b", strings.ReplaceAll(key, " ", ""), "--now", "@"+strconv.FormatInt(step*30, 10)).CombinedOutput()
	if err != nil {
		t.Fatalf("oathtool: %v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// wrong is a code that is not right now, nor just before or after.
func (w *world) wrong(p *person) string {
	w.t.Helper()
	var near []string
	for d := int64(-3); d <= 3; d++ {
		near = append(near, totp(w.t, p.key, w.now().Unix()/30+d))
	}
	for n := 100000; ; n++ {
		if c := strconv.Itoa(n); !slices.Contains(near, c) {
			return c
		}
	}
}

// full is what a person types where Latchkey judges the password.
func (w *world) full(p *person) []Turn {
	w.t.Helper()
	return Say("assword", p.pw, "code: ", w.code(p))
}

// enrolled waits until the machine holds offline data of the person, and the server
// knows it.
func (s *station) enrolled(p *person) {
	s.t.Helper()
	var st shim.MachineStatus
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		st, _ = s.status()
		for _, u := range st.Offline.Users {
			if u.User == p.name && u.Enrolled && s.report(p) == "active" {
				return
			}
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s is not enrolled for offline sign-in at %s: %+v, the server says %q", p.name, s.name, st, s.report(p))
		}
	}
}

// report is the state of the pair's newest data in the server's report.
func (s *station) report(p *person) string {
	s.t.Helper()
	newest := rest.OfflineEntry{}
	for _, e := range s.offlineList() {
		if e.User == p.name && e.Machine == s.name && e.Generation > newest.Generation {
			newest = e
		}
	}
	return newest.State
}

func (w *world) offlineList() []rest.OfflineEntry {
	w.t.Helper()
	var list []rest.OfflineEntry
	w.read(&list, "offline", "list")
	return list
}

// enrol signs a person in online, so that the machine is enrolled. Where the tests
// share two cores with others the server may take longer than a sign-in waits for it;
// a person would try again.
func (s *station) enrol(p *person) {
	s.t.Helper()
	var r Result
	for range 3 {
		s.online()
		before := s.mark()
		r = s.x(p, s.full(p))
		if r.Opened && slices.ContainsFunc(s.since(before, "--type", "signin.allowed"), func(e rest.Event) bool { return e.Link == "up" }) {
			s.enrolled(p)
			return
		}
		time.Sleep(time.Second)
	}
	s.t.Fatalf("%s can not sign in at %s: %+v", p.name, s.name, r)
}

// x signs in through pamtester, which is the quickest, at the console: of a service that nobody has described, nothing
// else would say so.
func (s *station) x(p *person, turns []Turn) Result {
	s.t.Helper()
	return s.here().Pamtester([]string{"-I", "tty=/dev/tty1"}, "x", p.name, []string{"authenticate", "acct_mgmt"}, turns)
}

// events are those that match the options, the oldest first.
func (w *world) events(options ...string) []rest.Event {
	w.t.Helper()
	var es []rest.Event
	for line := range strings.Lines(w.cli(append([]string{"events", "--limit", "1000", "--output", "json"}, options...)...)) {
		var e rest.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			w.t.Fatalf("event %s: %v", line, err)
		}
		es = append(es, e)
	}
	slices.SortStableFunc(es, func(a, b rest.Event) int { return int(a.Seq - b.Seq) })
	return es
}

// last is the newest event of a type about somebody; it waits for one that is newer
// than after.
func (w *world) last(typ, user string, after int64) rest.Event {
	w.t.Helper()
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		es := w.events("--type", typ)
		for _, e := range slices.Backward(es) {
			if (user == "" || e.Subject == user) && e.Seq > after {
				return e
			}
		}
		if time.Now().After(end) {
			w.t.Fatalf("no event %s of %q after %d; there are %s", typ, user, after, short(w.events()))
		}
	}
}

// mark is the place of the newest event: what comes behind it is new.
func (w *world) mark() int64 {
	w.t.Helper()
	top := int64(0)
	for _, e := range w.events() {
		top = max(top, e.Seq)
	}
	return top
}

// since are the events behind a mark.
func (w *world) since(mark int64, options ...string) []rest.Event {
	w.t.Helper()
	return slices.DeleteFunc(w.events(options...), func(e rest.Event) bool { return e.Seq <= mark })
}

// short lists events in few words.
func short(es []rest.Event) string {
	var b strings.Builder
	for _, e := range es {
		fmt.Fprintf(&b, "\n  %d %s subject=%s machine=%s scope=%s service=%s link=%s outcome=%s reason=%s factor=%s", e.Seq, e.Type, e.Subject, e.Machine, e.Scope, e.Service, e.Link, e.Outcome, e.Reason, e.Factor)
	}
	return b.String()
}

// trace is that of an event.
func trace(t testing.TB, e rest.Event) []policy.Step {
	t.Helper()
	var d struct {
		Trace []policy.Step `json:"trace"`
	}
	if err := json.Unmarshal(e.Data, &d); err != nil || len(d.Trace) == 0 {
		t.Fatalf("event %s has no trace: %v %s", e.Type, err, e.Data)
	}
	return d.Trace
}

// vaultFiles lists what the machine keeps of offline data, but for the policy, the
// ledger and the journal.
func (s *station) vaultFiles() []string {
	s.t.Helper()
	out, err := s.here().Try("find", s.state, "-type", "f", "(", "-path", "*/vaults/*", "-o", "-path", "*/bundles/*", ")")
	if err != nil {
		s.t.Fatal(out)
	}
	return strings.Fields(out)
}

// delivered waits until the journal is empty.
func (s *station) delivered() {
	s.t.Helper()
	var st shim.MachineStatus
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if st, err = s.status(); err == nil && st.Link == "up" && st.Offline.Undelivered == 0 {
			return
		}
	}
	s.t.Fatalf("the journal was not delivered: %+v %v", st, err)
}
