package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey/internal/agent/conversation"
	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/shim"
	"latchkey/internal/text"
)

func TestProcessesAreRead(t *testing.T) {
	ps := systemProcesses()
	me, ok := ps.Get(os.Getpid())
	if !ok || me.PPID != os.Getppid() || me.Start == 0 || !strings.HasSuffix(me.Exe, ".test") {
		t.Fatalf("%+v %v", me, ok)
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	chain := ancestors(ps, cmd.Process.Pid)
	if len(chain) < 2 || !chain[1].same(me) {
		t.Errorf("the child's parent is not this process: %+v", chain)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if _, ok := ps.Get(pid); ok {
			t.Errorf("there is no process %d", pid)
		}
	}
}

func TestWhoRunsAsRootIsRead(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tlogin\nUmask:\t0022\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n": true,
		"Name:\tlogin\nUid:\t1000\t1000\t1000\t1000\n":                     false,
		"Name:\tsudo, that somebody started\nUid:\t1000\t0\t0\t0\n":        false,
		"Name:\troot's, that has stepped down\nUid:\t0\t1000\t0\t1000\n":   false,
		"Name:\ta\\nUid:\t0\t0\t0\t0\nUid:\t1000\t1000\t1000\t1000\n":      false,
		"Uid:\t1000\t1000\t1000\t1000\nUid:\t0\t0\t0\t0\n":                 false,
		"Uid:\t0\t0\n": false, "Uid:\t\n": false, "Uid: 0 0 0 0\n": false, "": false,
	} {
		if got := parseRoot([]byte(status)); got != want {
			t.Errorf("%q: %v", status, got)
		}
	}
	me, ok := systemProcesses().Get(os.Getpid())
	if !ok || me.Unprivileged != (os.Getuid() != 0) {
		t.Errorf("this process, of uid %d: %+v", os.Getuid(), me)
	}
}

func TestStatIsReadBehindTheLastBracket(t *testing.T) {
	const rest = " S 17 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	for comm, want := range map[string]string{
		"sh":                    "sh",
		"a) R 1 (b":             "a) R 1 (b",
		"evil) S 1 1 1 1 1 1 1": "evil) S 1 1 1 1 1 1 1",
		"":                      "",
	} {
		got, ppid, start, ok := parseStat([]byte("42 (" + comm + ")" + rest))
		if !ok || got != want || ppid != 17 || start != 4711 {
			t.Errorf("%q: %q %d %d %v", comm, got, ppid, start, ok)
		}
	}
	for _, bad := range []string{"", "42 (sh", "42 (sh) S", "42 (sh) S x 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711", "42 (sh) S -3 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711"} {
		if _, _, _, ok := parseStat([]byte(bad)); ok {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestSessionsOfLogindAreRead(t *testing.T) {
	for in, want := range map[string]string{
		"0::/user.slice/user-1000.slice/session-c2.scope\n":                         "c2",
		"1:name=systemd:/user.slice/user-1000.slice/session-7.scope\n0::/x\n":       "7",
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope\n":  "",
		"0::/user.slice/session-../../etc/passwd.scope\n":                           "",
		"3:cpu:/session-9.scope\n":                                                  "",
		"0::/session-" + strings.Repeat("a", 40) + ".scope":                         "",
		"0::/user.slice/user-0.slice/session-4.scope/something/below/it-in-a-group": "4",
	} {
		if got, _ := parseCgroup([]byte(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.scope\n":         "1000",
		"1:name=systemd:/user.slice/user-1000.slice/user@1000.service/init.scope\n0::/x\n": "1000",
		// The user names what is below his own systemd: that is no session of logind's.
		"0::/user.slice/user-1000.slice/user@1000.service/app.slice/session-1.scope\n": "1000",
		"0::/user.slice/user-1000.slice/user@1000.service/user@1001.service\n":         "1000",
		"0::/user.slice/user-1000.slice/session-4.scope/user@1001.service\n":           "",
		"0::/user.slice/user@.service\n":                                               "",
		"0::/user.slice/user@alice.service\n":                                          "",
		"0::/system.slice/ssh.service\n":                                               "",
	} {
		session, got := parseCgroup([]byte(in))
		if got != want || got != "" && session != "" {
			t.Errorf("%q: %q (session %q), want %q", in, got, session, want)
		}
	}
	const front = "UID=1000\nUSER=alice\nACTIVE=1\nSTATE=active\nREMOTE=0\nTYPE=wayland\nCLASS=user\nSEAT=seat0\n"
	if !parseAtSeat([]byte(front), "1000") {
		t.Error("who is in front of the machine was not seen")
	}
	for _, change := range [][2]string{
		{"UID=1000", "UID=1001"},
		{"ACTIVE=1", "ACTIVE=0"},
		{"REMOTE=0", "REMOTE=1"},
		{"SEAT=seat0\n", ""},
		{"CLASS=user", "CLASS=greeter"},
		{"CLASS=user", "CLASS=background"},
		{"CLASS=user", "CLASS=manager"},
		{"REMOTE=0\n", ""},
		{"ACTIVE=1\n", ""},
	} {
		if parseAtSeat([]byte(strings.Replace(front, change[0], change[1], 1)), "1000") {
			t.Errorf("%s: in front of the machine", change[1])
		}
	}
	if parseAtSeat(nil, "") {
		t.Error("nobody is in front of the machine")
	}
	remote, host, ok := parseSession([]byte("UID=1000\nREMOTE=1\nREMOTE_HOST=192.0.2.7\n"))
	if !ok || !remote || host != "192.0.2.7" {
		t.Error(remote, host, ok)
	}
	if remote, _, ok := parseSession([]byte("REMOTE=0\n")); !ok || remote {
		t.Error("a local session")
	}
	// cron and at have sessions of their own: whoever leaves work there from over the
	// network does not sit at the machine for it.
	if remote, host, ok := parseSession([]byte("REMOTE=0\nTYPE=unspecified\nCLASS=background\n")); !ok || !remote || host != "" {
		t.Error("a job's session is one at the machine")
	}
	if remote, _, ok := parseSession([]byte("REMOTE=0\nTYPE=tty\nCLASS=user\n")); !ok || remote {
		t.Error("a session at a terminal of the machine")
	}
	if _, _, ok := parseSession([]byte("REMOTE=maybe\n")); ok {
		t.Error("an odd session was read")
	}
}

func TestAccountsAreReadFromTheMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwd")
	content := "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n# bob:x:1000:\nAlice2:x:1000:1000::/:/bin/sh\nbad:x:minus:0\nhuge:x:4294967296:0::\nshort:x\n:x:5:5::\n"
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	a := passwdAccounts{file: file}
	if n := a.Names(t.Context(), 1000); !slices.Equal(n, []string{"alice", "Alice2"}) {
		t.Errorf("%q", n)
	}
	for name, want := range map[string]bool{"root": true, "alice": true, "ALICE": false, "huge": false, "bad": false, "": false, "-x": false} {
		if _, ok := a.UID(t.Context(), name); ok != want {
			t.Errorf("%q: %v", name, ok)
		}
	}
	if uid, ok := systemAccounts().UID(t.Context(), "root"); !ok || uid != 0 {
		t.Error("root of this machine is not found")
	}
	if n := systemAccounts().Names(t.Context(), 4_000_000_123); len(n) != 0 {
		t.Errorf("%q", n)
	}
}

func TestServicesHaveTheirScope(t *testing.T) {
	for name, want := range map[string]policy.Scope{
		"sshd": policy.Remote, "sudo": policy.Elevation, "sudo-i": policy.Elevation, "su": policy.Elevation, "su-l": policy.Elevation,
		"polkit-1": policy.Elevation, "doas": policy.Elevation, "login": policy.Logon, "gdm-password": policy.Logon, "lightdm": policy.Logon,
		"cron": policy.Logon, "something-new": policy.Logon,
	} {
		if s, _ := serviceOf(name); s.scope != want {
			t.Errorf("%s: %s", name, s.scope)
		}
	}
	if _, known := serviceOf("something-new"); known {
		t.Error("an unknown service is known")
	}
	s, _ := serviceOf("sudo")
	for exe, want := range map[string]bool{"/usr/bin/sudo": true, "/usr/bin/sudo (deleted)": true, "": true, "/home/eve/sudo2": false, "/tmp/su": false} {
		if s.runs(exe) != want {
			t.Errorf("%s: %v", exe, !want)
		}
	}
}

// The same rule as in the module: native/pam/seat.c.
func TestLocalSeatsAreThoseOfTheModule(t *testing.T) {
	for _, c := range []struct {
		service, tty, rhost string
		want                bool
	}{
		{"login", "/dev/tty1", "", true},
		{"login", "/dev/tty1", "192.0.2.1", false},
		{"gdm-password", ":0", "", true},
		{"sudo", "/dev/tty1", "", true},
		{"sudo", "/dev/ttyS0", "", true},
		{"su", "/dev/console", "", true},
		{"su", "/dev/hvc0", "", true},
		{"sudo", "/dev/pts/3", "", false},
		{"sudo", "/dev/tty", "", false},
		{"sudo", "/dev/ttyp0", "", false},
		{"sudo", "tty1", "", false},
		{"sudo", "", "", false},
		{"sshd", "ssh", "", false},
		{"cron", "/dev/tty1", "", false},
		{"unknown", "/dev/tty1", "", false},
	} {
		s, _ := serviceOf(c.service)
		if got := localSeat(s, c.tty, c.rhost); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestTheBreakGlassListIsReadStrictly(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "list")
	write := func(s string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	b := breakGlass{file}
	if ok, err := b.lists(0); ok || err != nil {
		t.Error("an absent list is no fault, and nobody is on it:", ok, err)
	}
	for name, c := range map[string]struct {
		content   string
		mode      os.FileMode
		want, bad bool
	}{
		"listed":               {"0\n1000\n", 0o644, true, false},
		"last line":            {"7\n1000", 0o600, true, false},
		"blanks":               {" 1000\n1000 \n", 0o600, false, false},
		"leading zero":         {"01000\n", 0o600, false, false},
		"carriage return":      {"1000\r\n", 0o600, false, false},
		"a comment":            {"1000 # admin\n#1000\n", 0o600, false, false},
		"a name":               {"alice\n", 0o600, false, false},
		"writable for a group": {"1000\n", 0o664, false, true},
		"writable for all":     {"1000\n", 0o646, false, true},
		"too large":            {"1000\n" + strings.Repeat("#", 4096), 0o600, false, true},
	} {
		write(c.content, c.mode)
		ok, err := b.lists(1000)
		if ok != c.want || (err != nil) != c.bad {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
	write("1000\n", 0o600)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if ok, err := (breakGlass{link}).lists(1000); ok || err == nil {
		t.Error("a symbolic link was followed")
	}
	if ok, err := (breakGlass{dir}).lists(1000); ok || err == nil {
		t.Error("a folder was read")
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 12345, 0); err != nil {
			t.Fatal(err)
		}
		if ok, err := b.lists(1000); ok || err == nil {
			t.Error("another's list was read")
		}
	}
}

func TestUnlocksAreBounded(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	l := newLimits(clk)
	var leave []func()
	for range maxUnlocks {
		f, ok := l.unlock(1000)
		if !ok {
			t.Fatal("too few at a time")
		}
		leave = append(leave, f)
	}
	if _, ok := l.unlock(1000); ok {
		t.Error("too many at a time")
	}
	if f, ok := l.unlock(1001); !ok {
		t.Error("one uid shuts out another")
	} else {
		f()
	}
	for _, f := range leave {
		f()
	}
	n := maxUnlocks
	for {
		f, ok := l.unlock(1000)
		if !ok {
			break
		}
		f()
		n++
	}
	if n != unlocksAMinute {
		t.Errorf("%d in a minute", n)
	}
	clk.Advance(-time.Hour)
	if _, ok := l.unlock(1000); ok {
		t.Error("turning the clock back gives unlocks")
	}
	clk.Advance(time.Hour + 7*time.Second)
	if f, ok := l.unlock(1000); !ok {
		t.Error("none after a while")
	} else {
		f()
	}
}

func TestConnectionsAreBoundedForEachAndForGuests(t *testing.T) {
	l := newLimits(clock.Real)
	guest := func(uid uint32) caller { return caller{uid: uid} }
	n := 0
	for range 100 {
		if _, ok := l.enter(guest(100_000)); ok {
			n++
		}
	}
	if n != maxPerUID {
		t.Errorf("one uid has %d", n)
	}
	for uid := range uint32(200) {
		if _, ok := l.enter(guest(200_000 + uid)); ok {
			n++
		}
	}
	if n != maxGuests {
		t.Errorf("guests have %d", n)
	}
	leave, ok := l.enter(caller{uid: 0})
	if !ok {
		t.Fatal("guests shut out root")
	}
	leave()
}

// A crowd on the network leaves room for who sits at the machine: places, and what is
// carried to the server.
func TestTheNetworkLeavesRoomForTheMachine(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	l := newLimits(clk)
	root := caller{uid: 0}
	n := 0
	for range 2 * maxRoot {
		leave, ok := l.enter(root)
		if !ok {
			break
		}
		if _, ok := l.fromAfar(); ok {
			n++
		} else {
			leave()
		}
	}
	if n != maxAfar || l.root != maxAfar {
		t.Errorf("the network has %d places, root's programs have %d left of %d", n, maxRoot-l.root, maxRoot)
	}
	for user := range 1000 {
		for range maxCaller {
			l.behind(strconv.Itoa(user))
		}
	}
	if l.called != maxCallers || l.called+l.afar+maxCaller > maxRoot {
		t.Errorf("all users' programs together have %d places", l.called)
	}

	judge := func(host string) bool { return l.judge(neighbourhood(host), true) }
	one, all := 0, 0
	for range 1000 {
		if judge("192.0.2.1") {
			one++
		}
	}
	for i := range 1000 {
		if judge(fmt.Sprintf("2001:db8:0:%x::1", i)) {
			all++
		}
	}
	if one != strangerBurst || one+all != afarBurst {
		t.Errorf("one address had %d, all had %d", one, one+all)
	}
	// Who starts su in a loop uses up his own, and nobody else's.
	own := 0
	for range 1000 {
		if l.judge("user mallory", false) {
			own++
		}
	}
	if own != sourceBurst || !l.judge("user alice", false) {
		t.Errorf("one user had %d", own)
	}
	clk.Advance(-time.Hour)
	if judge("192.0.2.2") {
		t.Error("turning the clock back gives sign-ins")
	}
	clk.Advance(2 * time.Hour)
	for one, all = 0, 0; all < 100; all++ {
		if judge(fmt.Sprintf("2001:db8::%x", all)) { // one /64
			one++
		}
	}
	if one != strangerBurst {
		t.Errorf("one network had %d", one)
	}
	clk.Advance(time.Second)
	if judge("2001:db8::1") {
		t.Error("who goes on regardless is let through as soon as who waits")
	}
	clk.Advance(time.Minute)
	for one = 0; judge("2001:db8::1"); one++ {
	}
	clk.Advance(3 * time.Second) // one of it for the refusal
	for one = 0; judge("2001:db8::1"); one++ {
	}
	if one != 2*strangerRate {
		t.Errorf("one network had %d in two seconds", one)
	}
	said, left := 0, 0
	for range 1000 {
		if _, ok := l.line(); ok {
			said++
		}
	}
	clk.Advance(time.Second)
	if left, _ = l.line(); said != linesBurst || left != 1000-linesBurst {
		t.Errorf("%d lines of a thousand were logged, %d are said to be left out", said, left)
	}
	for i := range 3 * maxSources {
		clk.Advance(time.Second)
		judge(fmt.Sprintf("198.51.%d.%d", i/256, i%256))
	}
	if len(l.sources) > maxSources {
		t.Errorf("%d sources are remembered", len(l.sources))
	}
	// Users whom nobody remembers share what one has.
	for i := range 3 * maxSources {
		l.judge(fmt.Sprintf("by %d", i), false)
	}
	for i := range 100 {
		if !l.judge(fmt.Sprintf("by another %d", i), false) {
			return
		}
	}
	t.Error("who can not be remembered has no limit")
}

// Strangers' addresses keep nobody out who has come in from where he is before, however
// many they are; and one user's su and sudo keep out only himself.
func TestStrangersLeaveRoomForThoseWhoHaveComeInBefore(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	l := newLimits(clk)
	const office = "192.0.2.7"
	judge := func(host string) bool { return l.judge(neighbourhood(host), true) }
	if !judge(office) {
		t.Fatal("the first one of all is refused")
	}
	l.cameIn(neighbourhood(office))
	in, strangers := 0, 0
	for range 60 {
		clk.Advance(time.Second)
		for i := range 20 {
			for range 4 {
				if judge(fmt.Sprintf("198.51.100.%d", i)) {
					strangers++
				}
			}
		}
		if judge(office) {
			in++
		}
	}
	if in != 60 {
		t.Errorf("who was here before was let through %d times of 60", in)
	}
	if strangers > afarBurst+60*afarRate {
		t.Errorf("strangers were let through %d times in a minute", strangers)
	}
	clk.Advance(welcomeFor)
	for range 200 {
		judge("198.51.100.1")
		for i := range 30 {
			judge(fmt.Sprintf("203.0.113.%d", i))
		}
	}
	if judge(office) {
		t.Error("who was here long ago is known for ever")
	}
	for i := range 3 * maxSources {
		l.cameIn(fmt.Sprint("a", i))
	}
	if len(l.welcome) > maxSources {
		t.Errorf("%d addresses are remembered", len(l.welcome))
	}

	a := &agent{limits: l, clk: clk}
	as := func(caller, user string) bool {
		return a.admit(conversation.Request{Scope: policy.Elevation, Caller: caller, User: user})
	}
	for range 100 {
		as("uid 1001", "alice") // polkit's helper in alice's name
	}
	if as("uid 1001", "alice") || !as("uid 1000", "alice") || !as("", "alice") {
		t.Error("one user uses up what another has of su and sudo")
	}
	a.procs, a.names, a.seen = table{}, systemAccounts(), newSeen(clk)
	s, _ := serviceOf("polkit-1")
	r, why := a.request(context.Background(), caller{}, s, shim.Start{Phase: shim.PhaseAuth, Request: shim.Request{Service: "polkit-1", User: "alice", RUID: 1001}})
	if why != "" || r.Scope != policy.Elevation || r.Caller != "uid 1001" {
		t.Errorf("polkit's helper of another counts for %q (%s, %s)", r.Caller, r.Scope, why)
	}
}

// What is too long or odd to be a name is refused and never cut: what is left of it could
// be somebody else's.
func TestNamesThatNobodyHasAreRefused(t *testing.T) {
	long := strings.Repeat("a", maxLabel)
	for name, c := range map[string]struct {
		m  shim.Request
		ok bool
	}{
		"as they are":                     {shim.Request{Service: "sshd", User: "alice", RUser: "root", RHost: "192.0.2.1"}, true},
		"as long as they may be":          {shim.Request{Service: long[:maxService], User: long, RUser: long, PWName: long, RHost: long}, true},
		"a service that is longer":        {shim.Request{Service: long[:maxService+1], User: "alice"}, false},
		"a service of control characters": {shim.Request{Service: "ss\x01hd", User: "alice"}, false},
		"a service that is no UTF-8":      {shim.Request{Service: "sshd\xff", User: "alice"}, false},
		"a user whose name is longer":     {shim.Request{Service: "sshd", User: long + "a"}, false},
		"a caller whose name is longer":   {shim.Request{Service: "su", User: "alice", RUser: long + "a"}, false},
		"an account whose name is longer": {shim.Request{Service: "su", User: "alice", PWName: long + "a"}, false},
		"a host whose name is longer":     {shim.Request{Service: "sshd", User: "alice", RHost: long + "a"}, false},
	} {
		if fits(shim.Start{Request: c.m}) != c.ok {
			t.Errorf("%s: fits is %v", name, !c.ok)
		}
	}
}

// table is a set of processes of the tests.
type table struct {
	ps    map[int]process
	seats map[string]string // session → host; "-" is local
}

func (f table) AtSeat(uid string) bool      { return f.seats["at "+uid] != "" }
func (f table) Get(pid int) (process, bool) { p, ok := f.ps[pid]; return p, ok }
func (f table) Seat(s string) (bool, string, bool) {
	h, ok := f.seats[s]
	return h != "-", strings.TrimPrefix(h, "-"), ok
}

func chainOf(names ...string) table {
	f := table{ps: map[int]process{}, seats: map[string]string{}}
	for i, n := range names {
		pid := len(names) - i
		f.ps[pid] = process{PID: pid, PPID: pid - 1, Start: uint64(100 + pid), Exe: "/usr/bin/" + n, Comm: n}
	}
	return f
}

func TestRemoteSeatsAreFound(t *testing.T) {
	newAgent := func(ps processes) *agent { return &agent{procs: ps, seen: newSeen(clock.Real)} }
	for name, c := range map[string]struct {
		ps     table
		change func(*agent, *table)
		remote bool
		host   string
	}{
		"console":         {chainOf("sudo", "bash", "login", "init"), nil, false, ""},
		"ssh":             {chainOf("sudo", "bash", "sshd", "sshd", "init"), nil, true, ""},
		"ssh, new daemon": {chainOf("sudo", "bash", "sshd-session", "sshd", "init"), nil, true, ""},
		"desktop":         {chainOf("sudo", "bash", "gnome-terminal-server", "systemd"), nil, false, ""},
		"a forged name": {func() table {
			f := chainOf("sudo", "evil", "bash")
			p := f.ps[2]
			p.Comm = "login"
			f.ps[2] = p
			return f
		}(), nil, false, ""},
		"somebody's own program of that name, from his own systemd": {func() table {
			f := chainOf("sudo", "login", "systemd")
			for pid, p := range f.ps {
				p.Manager, p.Unprivileged = "1000", pid == 2
				f.ps[pid] = p
			}
			return f
		}(), nil, true, ""},
		"somebody's own program of that name, that has left its session": {func() table {
			f := chainOf("sudo", "slim", "init")
			p := f.ps[2]
			p.Unprivileged = true
			f.ps[2] = p
			return f
		}(), func(a *agent, _ *table) {
			a.seen.open(session{leader: process{PID: 77, Start: 7}, service: "sshd", user: "alice", uid: 1000, known: true, remote: true, host: "192.0.2.1"})
		}, true, "192.0.2.1"},
		"a setuid program, below the machine's login": {func() table {
			f := chainOf("sudo", "bash", "login", "init")
			for _, pid := range []int{3, 4} {
				p := f.ps[pid]
				p.Unprivileged = true
				f.ps[pid] = p
			}
			return f
		}(), func(a *agent, _ *table) {
			a.seen.open(session{leader: process{PID: 77, Start: 7}, service: "sshd", user: "alice", uid: 1000, known: true, remote: true, host: "192.0.2.1"})
		}, false, ""},
		"no longer there": {table{}, nil, false, ""},
		"ssh that we saw": {chainOf("sudo", "bash", "sshd", "sshd", "init"), func(a *agent, f *table) {
			a.seen.open(session{leader: f.ps[2], service: "sshd", user: "alice", uid: 1000, known: true, remote: true, host: "192.0.2.1"})
		}, true, "192.0.2.1"},
		"a number used again": {chainOf("sudo", "bash", "screen", "init"), func(a *agent, f *table) {
			old := f.ps[2]
			old.Start--
			a.seen.open(session{leader: old, service: "sshd", user: "bob", uid: 1001, known: true, remote: true, host: "192.0.2.1"})
		}, false, ""},
		"tmux that was begun over ssh": {chainOf("sudo", "bash", "tmux", "init"), func(a *agent, _ *table) {
			a.seen.open(session{leader: process{PID: 77, Start: 7}, service: "sshd", user: "alice", uid: 1000, known: true, remote: true, host: "192.0.2.1"})
		}, true, "192.0.2.1"},
		"two remote sessions from two places": {chainOf("sudo", "bash", "tmux", "init"), func(a *agent, _ *table) {
			for i, h := range []string{"192.0.2.1", "192.0.2.2"} {
				a.seen.open(session{leader: process{PID: 77 + i, Start: 7}, service: "sshd", user: "alice", uid: 1000, known: true, remote: true, host: h})
			}
		}, true, ""},
		"console while a remote session is open": {chainOf("sudo", "bash", "login", "init"), func(a *agent, _ *table) {
			a.seen.open(session{leader: process{PID: 77, Start: 7}, service: "sshd", user: "alice", uid: 1000, known: true, remote: true, host: "192.0.2.1"})
		}, false, ""},
		"logind says remote": {chainOf("sudo", "bash", "tmux", "init"), func(_ *agent, f *table) {
			p := f.ps[3]
			p.Session = "5"
			f.ps[3], f.seats["5"] = p, "192.0.2.9"
		}, true, "192.0.2.9"},
		"the user's own systemd, and nobody in front": {chainOf("sudo", "bash", "systemd", "init"), func(_ *agent, f *table) {
			p := f.ps[2]
			p.Manager = "1000"
			f.ps[2] = p
		}, true, ""},
		"the user's own systemd, and the user in front": {chainOf("sudo", "bash", "gnome-terminal-", "systemd", "init"), func(_ *agent, f *table) {
			p := f.ps[2]
			p.Manager = "1000"
			f.ps[2], f.seats["at 1000"] = p, "yes"
		}, false, ""},
		"the user's own systemd, another user in front": {chainOf("sudo", "bash", "systemd", "init"), func(_ *agent, f *table) {
			p := f.ps[2]
			p.Manager = "1000"
			f.ps[2], f.seats["at 1001"] = p, "yes"
		}, true, ""},
		"the user's own systemd, in front and over ssh at once": {chainOf("sudo", "bash", "systemd", "init"), func(a *agent, f *table) {
			p := f.ps[2]
			p.Manager = "1000"
			f.ps[2], f.seats["at 1000"] = p, "yes"
			a.seen.open(session{leader: process{PID: 77, Start: 7}, service: "sshd", user: "alice", uid: 1000, known: true, remote: true, host: "192.0.2.1"})
		}, true, "192.0.2.1"},
		"logind says local": {chainOf("sudo", "bash", "x", "init"), func(a *agent, f *table) {
			p := f.ps[3]
			p.Session = "5"
			f.ps[3], f.seats["5"] = p, "-"
			a.seen.open(session{leader: process{PID: 77, Start: 7}, service: "sshd", user: "alice", uid: 1000, known: true, remote: true})
		}, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAgent(c.ps)
			if c.change != nil {
				c.change(a, &c.ps)
			}
			remote, host := a.seat(len(c.ps.ps), 1000, true)
			if remote != c.remote || host != c.host {
				t.Errorf("remote %v from %q", remote, host)
			}
		})
	}
}

func TestAFinishedAuthIsFoundBySameProcessOrParentOnly(t *testing.T) {
	clk := clock.NewManual(time.Unix(1_800_000_000, 0))
	s := newSeen(clk)
	pam, priv, other := process{PID: 10, PPID: 9, Start: 5}, process{PID: 9, PPID: 1, Start: 4}, process{PID: 11, PPID: 9, Start: 6}
	s.finish(finished{peer: pam, parent: priv, service: "sshd", user: "alice", outcome: policy.Allow})
	for name, c := range map[string]struct {
		p             process
		service, user string
		want          bool
	}{
		"the same process":          {pam, "sshd", "alice", true},
		"its parent":                {priv, "sshd", "alice", true},
		"a sibling":                 {other, "sshd", "alice", false},
		"another user":              {pam, "sshd", "bob", false},
		"another service":           {pam, "sudo", "alice", false},
		"a number used again":       {process{PID: 10, Start: 50}, "sshd", "alice", false},
		"a process nobody can name": {process{}, "sshd", "alice", false},
	} {
		if _, ok := s.auth(c.p, c.service, c.user); ok != c.want {
			t.Errorf("%s: %v", name, ok)
		}
	}
	clk.Advance(authLasts)
	if _, ok := s.auth(pam, "sshd", "alice"); ok {
		t.Error("it lasts for ever")
	}
	for i := range 3 * maxAuths {
		s.finish(finished{peer: process{PID: i + 1, Start: 1}, service: "x", user: "y"})
	}
	if len(s.auths) > maxAuths {
		t.Errorf("%d are kept", len(s.auths))
	}
}

func TestLogOffIsTheEndOfTheLastSession(t *testing.T) {
	s := newSeen(clock.Real)
	a, b := process{PID: 1, Start: 1}, process{PID: 2, Start: 1}
	s.open(session{leader: a, service: "sshd", user: "alice"})
	s.open(session{leader: b, service: "login", user: "alice"})
	if _, last, ok := s.shut(a, "sshd", "alice"); !ok || last {
		t.Error("the first of two")
	}
	if _, _, ok := s.shut(a, "sshd", "alice"); ok {
		t.Error("twice")
	}
	if u := s.gone(table{}); !slices.Equal(u, []string{"alice"}) {
		t.Errorf("a session whose process is gone: %v", u)
	}
}

func TestOSRelease(t *testing.T) {
	for in, want := range map[string]string{
		"NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n": "Debian GNU/Linux 12 (bookworm)",
		"PRETTY_NAME=Plain": "Plain", "": "", "NAME=x": "",
	} {
		if got := osRelease([]byte(in)); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
	if id := bootID(); len(id) != 36 {
		t.Errorf("boot id %q", id)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (systemd) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 30 1 1"))
	f.Add([]byte("42 (a) R 1 (b)) S 17 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711"))
	f.Fuzz(func(t *testing.T, b []byte) {
		comm, ppid, _, ok := parseStat(b)
		if ok && (ppid < 0 || len(comm) > len(b)) {
			t.Fatal(comm, ppid)
		}
	})
}

func FuzzParseRoot(f *testing.F) {
	f.Add([]byte("Name:\tlogin\nUid:\t0\t0\t0\t0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if parseRoot(b) && !bytes.Contains(b, []byte("Uid:\t0\t0\t")) {
			t.Fatalf("%q", b)
		}
	})
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("0::/user.slice/user-1000.slice/session-c2.scope\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, uid := parseCgroup(b); strings.Trim(uid, "0123456789") != "" || id != "" && uid != "" || strings.ContainsAny(id, "/.\x00") || len(id) > 32 {
			t.Fatalf("%q", id)
		}
	})
}

func FuzzParseSession(f *testing.F) {
	f.Add([]byte("REMOTE=1\nREMOTE_HOST=192.0.2.7\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if remote, host, ok := parseSession(b); remote && !ok || len(host) > 256 {
			t.Fatal(remote, host, ok)
		}
	})
}

func FuzzParseAtSeat(f *testing.F) {
	f.Add([]byte("UID=1000\nUSER=alice\nACTIVE=1\nSTATE=active\nREMOTE=0\nTYPE=wayland\nCLASS=user\nSEAT=seat0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if parseAtSeat(b, "1000") && !bytes.Contains(b, []byte("1000")) || parseAtSeat(b, "") {
			t.Fatal("somebody sits there who is not named")
		}
	})
}

func FuzzParsePasswd(f *testing.F) {
	f.Add([]byte("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		names, uids := parsePasswd(b, func(string, uint32) bool { return true })
		if len(names) != len(uids) {
			t.Fatal(len(names), len(uids))
		}
		for _, n := range names {
			if n == "" || strings.ContainsAny(n, ":\n") {
				t.Fatalf("%q", n)
			}
		}
	})
}

func FuzzListed(f *testing.F) {
	f.Add([]byte("0\n1000\n"), uint32(1000))
	f.Add([]byte("01000\n 0"), uint32(0))
	f.Fuzz(func(t *testing.T, b []byte, uid uint32) {
		want := slices.Contains(strings.Split(string(b), "\n"), fmt.Sprint(uid))
		if listed(b, uid) != want {
			t.Fatal(want)
		}
	})
}

// TestWhyIsToldToTrialsOfRootAlone: a module would show it to whoever signs in.
func TestWhyIsToldToTrialsOfRootAlone(t *testing.T) {
	me, other := uint32(os.Geteuid()), uint32(os.Geteuid()+1)
	let := conversation.Verdict{Outcome: policy.Allow, Reason: string(policy.ReasonNoFactors)}
	for name, c := range map[string]struct {
		who  caller
		v    conversation.Verdict
		told bool
	}{
		"root tries it out":                   {caller{uid: me, peer: process{Exe: "/usr/bin/latchkey"}}, let, true},
		"left to the machine":                 {caller{uid: me, peer: process{Exe: "/usr/bin/latchkey"}}, conversation.Verdict{Outcome: policy.Ignore, Reason: "user-unknown-skipped"}, true},
		"a module in a program of root's":     {caller{uid: me, peer: process{Exe: "/usr/bin/sudo"}}, let, false},
		"somebody else's latchkey":            {caller{uid: other, peer: process{Exe: "/usr/bin/latchkey"}}, let, false},
		"a system that names no programs":     {caller{uid: me}, let, false},
		"a denial, which has its own words":   {caller{uid: me, peer: process{Exe: "/usr/bin/latchkey"}}, conversation.Verdict{Outcome: policy.Deny, Reason: "user-disabled"}, false},
		"a reason that this agent knows none": {caller{uid: me, peer: process{Exe: "/usr/bin/latchkey"}}, conversation.Verdict{Outcome: policy.Allow, Reason: "of tomorrow"}, false},
	} {
		if got := whyTold(c.who, c.v); (got != "") != c.told || c.told && !strings.HasPrefix(got, text.WhyHead) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
