package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/agent/conversation"
	"latchkey/internal/agent/identity"
	"latchkey/internal/agent/link"
	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/text"
)

// asGuest is set in a copy of this program that runs as nobody and speaks to the
// socket: what it says is judged by the test that started it.
const asGuest = "-as-guest="

func TestMain(m *testing.M) {
	for i, a := range os.Args {
		if rest, ok := strings.CutPrefix(a, asGuest); ok {
			guest(rest, os.Args[i+1:])
			os.Exit(0)
		}
	}
	os.Exit(m.Run())
}

// guest prints what the agent answers to a status or a begin.
func guest(socket string, args []string) {
	c, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println("error", err)
		return
	}
	s := shim.NewShimConn(c)
	if args[0] == "status" {
		_ = s.Send(shim.Hello{Version: shim.Version}, time.Second)
		_ = s.Send(shim.Status{}, time.Second)
		m, err := s.Receive(5 * time.Second)
		fmt.Println(m, err)
		return
	}
	r, err := s.Converse(start(shim.Phase(args[0]), args[1], args[2]), silent{})
	fmt.Printf("%T %+v %v authtok=%v\n", r.Verdict, r.Verdict, err, r.HasAuthtok)
}

// silent answers every prompt with nothing.
type silent struct{}

func (silent) Secret(string) (secret.Bytes, error) { return secret.FromString("x"), nil }
func (silent) Ask(string) (secret.Bytes, error)    { return secret.FromString("x"), nil }
func (silent) Tell(string)                         {}
func (silent) Warn(string)                         {}

// answers gives prepared answers and keeps the prompts.
type answers struct {
	list    []string
	prompts []string
	shown   []string
}

func (a *answers) Secret(p string) (secret.Bytes, error) {
	a.prompts = append(a.prompts, p)
	if len(a.list) == 0 {
		return secret.Bytes{}, shim.ErrGaveUp
	}
	s := a.list[0]
	a.list = a.list[1:]
	return secret.FromString(s), nil
}
func (a *answers) Ask(p string) (secret.Bytes, error) { return a.Secret(p) }
func (a *answers) Tell(s string)                      { a.shown = append(a.shown, s) }
func (a *answers) Warn(s string)                      { a.shown = append(a.shown, s) }

func start(p shim.Phase, service, user string) shim.Start {
	return shim.Start{Phase: p, Request: shim.Request{Service: service, User: user, PWName: user, Known: true, UID: 20001, Mode: shim.ModeFull, First: shim.FirstNone}}
}

// world is a running agent whose server is not there.
type world struct {
	t      *testing.T
	cfg    Config
	cancel context.CancelFunc
	ended  chan error
}

func deadAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// joined makes a state folder with an identity.
func joined(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	if err := identity.Folder(dir); err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	key, err := identity.NewKey(t.Context(), nil)
	must(err)
	signer, err := key.Signer(nil)
	must(err)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	caDER, err := x509.CreateCertificate(rand.Reader, tpl, tpl, caKey.Public(), caKey)
	must(err)
	ca, err := x509.ParseCertificate(caDER)
	must(err)
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}, ca, signer.Public(), caKey)
	must(err)
	grant, _, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	permit, err := x509.MarshalPKIXPublicKey(caKey.Public())
	must(err)
	must(identity.Save(dir, &identity.Identity{
		MachineID: "0198c0de-0000-7000-8000-000000000001", Name: "m1", Number: 1, Server: "https://" + deadAddress(t), CA: caDER,
		Certificate: cert, GrantKey: grant, PermitKey: permit,
	}, key))
	return dir
}

func newWorld(t *testing.T) *world {
	t.Helper()
	run, err := os.MkdirTemp("", "lk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(run) })
	if err := os.Chmod(run, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ended: make(chan error, 1)}
	w.cfg = Config{
		State: joined(t), Socket: filepath.Join(run, "agent.sock"), BreakGlass: filepath.Join(run, "break-glass"), Clock: clock.Real,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Timing: link.Timing{First: 300 * time.Millisecond}, Cost: vault.Cost{Time: 1, Memory: 64}, Grain: -1,
	}
	w.start()
	t.Cleanup(w.stop)
	return w
}

func (w *world) start() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	ready := make(chan struct{})
	cfg := w.cfg
	cfg.Ready = func() { close(ready) }
	go func() { w.ended <- Run(ctx, cfg) }()
	select {
	case <-ready:
	case err := <-w.ended:
		w.t.Fatal(err)
	case <-time.After(10 * time.Second):
		w.t.Fatal("the agent does not start")
	}
}

func (w *world) stop() {
	w.cancel()
	select {
	case err := <-w.ended:
		if err != nil {
			w.t.Error(err)
		}
		w.ended <- nil
	case <-time.After(10 * time.Second):
		w.t.Error("the agent does not stop")
	}
}

func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("unix", w.cfg.Socket)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) converse(m shim.Start, p shim.Person) shim.Result {
	w.t.Helper()
	c := w.dial()
	defer c.Close()
	r, err := shim.NewShimConn(c).Converse(m, p)
	if err != nil {
		w.t.Fatalf("%s %s: %v", m.Phase, m.Service, err)
	}
	return r
}

func (w *world) status() shim.MachineStatus {
	w.t.Helper()
	c := w.dial()
	defer c.Close()
	s := shim.NewShimConn(c)
	if err := errors.Join(s.Send(shim.Hello{Version: shim.Version}, time.Second), s.Send(shim.Status{}, time.Second)); err != nil {
		w.t.Fatal(err)
	}
	m, err := s.Receive(5 * time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	var st shim.MachineStatus
	if err := json.Unmarshal([]byte(m.(shim.Tell).Text), &st); err != nil {
		w.t.Fatal(err)
	}
	return st
}

func TestTheStatusSaysWhatIsTheMatter(t *testing.T) {
	w := newWorld(t)
	for end := time.Now().Add(5 * time.Second); w.status().Reason != string(link.ConnectionRefused); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", w.status())
		}
	}
	st := w.status()
	if st.Link != "down" || st.Class != "software" || st.Machine != "m1" || st.Text == "" || len(st.Health) == 0 || st.Offline.PolicyProblem != policy.ReasonPolicyAbsent {
		t.Errorf("%+v", st)
	}
	codes := map[string]string{}
	for _, h := range st.Health {
		codes[h.Code] = h.Text + h.Next
	}
	if codes["link-down"] == "" || codes[string(policy.ReasonPolicyAbsent)] == "" || len(codes) > 3 {
		t.Errorf("what monitoring reads: %q", codes)
	}
}

func TestWithoutServerAndPolicyEverythingIsDeniedWithItsReason(t *testing.T) {
	w := newWorld(t)
	p := &answers{list: []string{"pw", "123456"}}
	r := w.converse(start(shim.PhaseAuth, "login", "alice"), p)
	d, ok := r.Verdict.(shim.Deny)
	if !ok || d.Text != text.Denied(policy.ReasonPolicyAbsent, "") || r.HasAuthtok {
		t.Errorf("%+v", r)
	}
	if len(p.prompts) != 1 || p.prompts[0] != text.PromptPassword {
		t.Errorf("prompts %q", p.prompts)
	}
}

func TestLaterPhases(t *testing.T) {
	w := newWorld(t)
	if r := w.converse(start(shim.PhaseAccount, "sshd", "alice"), silent{}); !strings.Contains(fmt.Sprint(r.Verdict), "AuthenticationMethods publickey,keyboard-interactive:pam") {
		t.Errorf("a key alone: %+v", r.Verdict)
	}
	for service, want := range map[string]string{"cron": "shim.Ignore", "systemd-user": "shim.Ignore", "su": "shim.Allow", "sudo": "shim.Allow", "login": "shim.Allow"} {
		if r := w.converse(start(shim.PhaseAccount, service, "alice"), silent{}); fmt.Sprintf("%T", r.Verdict) != want {
			t.Errorf("account of %s: %T", service, r.Verdict)
		}
	}
	for _, p := range []shim.Phase{shim.PhaseSetcred, shim.PhaseSessionOpen, shim.PhaseSessionClose} {
		if r := w.converse(start(p, "sshd", "alice"), silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Allow" {
			t.Errorf("%s: %T", p, r.Verdict)
		}
	}
	change := start(shim.PhaseChauthtok, "passwd", "alice")
	if r := w.converse(change, silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Ignore" {
		t.Errorf("root sets a password of the machine: %T", r.Verdict)
	}
	change.RUID = 20001
	if r := w.converse(change, silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Deny" {
		t.Errorf("a change without server and policy: %T", r.Verdict)
	}
	change.Flags = shim.FlagPrelimCheck
	if r := w.converse(change, silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Allow" {
		t.Errorf("the preliminary check: %T", r.Verdict)
	}
}

func TestBreakGlassAtTheMachineItself(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.cfg.BreakGlass, []byte("20001\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := start(shim.PhaseAuth, "login", "alice")
	at.TTY = "/dev/tty1"
	if r := w.converse(at, silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Ignore" {
		t.Errorf("at the console: %T", r.Verdict)
	}
	if r := w.converse(start(shim.PhaseAccount, "login", "alice"), silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Ignore" {
		t.Errorf("its account phase: %T", r.Verdict)
	}
	at.RHost = "192.0.2.1"
	if r := w.converse(at, silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Deny" {
		t.Errorf("from over the network: %T", r.Verdict)
	}
	at.RHost, at.UID = "", 20002
	if r := w.converse(at, silent{}); fmt.Sprintf("%T", r.Verdict) != "shim.Deny" {
		t.Errorf("somebody else: %T", r.Verdict)
	}
	if n := w.status().Offline.Undelivered; n < 2 {
		t.Errorf("%d events are in the journal", n)
	}
}

// The kernel says who calls: a stranger on the machine can begin for nobody else.
func TestStrangersOnTheMachine(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("NOT TESTED: what strangers on the machine may do; this needs root, to become somebody else")
	}
	w := newWorld(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The test program lies in a folder of root's.
	copied := filepath.Join(filepath.Dir(w.cfg.Socket), "guest")
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	as := func(uid uint32, args ...string) string {
		t.Helper()
		cmd := exec.Command(copied, append([]string{asGuest + w.cfg.Socket}, args...)...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	nobody, ok := systemAccounts().UID(t.Context(), "nobody")
	if !ok {
		t.Fatal("this machine has no user nobody")
	}
	for _, c := range []struct{ phase, service, user, want string }{
		{"auth", "sudo", "root", textNotYours},
		{"auth", "login", "alice", textNotYours},
		{"auth", "swaylock", "nobody", "shim.Deny"}, // no policy: denied, but begun
		{"account", "login", "root", textNotYours},
		{"account", "swaylock", "nobody", "shim.Ignore"},
		{"chauthtok", "passwd", "nobody", textNotYours},
		{"setcred", "sshd", "nobody", "shim.Ignore"},
		{"session-open", "sshd", "nobody", "shim.Ignore"},
	} {
		if out := as(nobody, c.phase, c.service, c.user); !strings.Contains(out, c.want) || strings.Contains(out, "shim.Allow") || strings.Contains(out, "authtok=true") {
			t.Errorf("%+v: %s", c, out)
		}
	}
	if out := as(nobody, "status"); !strings.Contains(out, `"users":[]`) || strings.Contains(out, w.cfg.State) {
		t.Errorf("status for a stranger: %s", out)
	}
	if out := as(4_000_000_001, "auth", "swaylock", "nobody"); !strings.Contains(out, textNotYours) {
		t.Errorf("a uid without a name: %s", out)
	}
	begun, served := time.Now(), 0
	for range 2 * unlocksAMinute {
		if !strings.Contains(as(nobody, "auth", "swaylock", "nobody"), textBusy) {
			served++
		}
	}
	if most := unlocksAMinute + int(time.Since(begun).Minutes()*unlocksAMinute) + 1; served > most {
		t.Errorf("%d unlocks were served, at most %d are allowed", served, most)
	}
}

// su and sudo run as root for everybody: whoever starts many of them keeps nobody else
// from signing in.
func TestOneUsersProgramsOfRootsLeaveRoomForOthers(t *testing.T) {
	w := newWorld(t)
	begin := func(service string, ruid uint32, ruser string) shim.FromAgent {
		t.Helper()
		c := w.dial()
		t.Cleanup(func() { _ = c.Close() })
		m := start(shim.PhaseAuth, service, "alice")
		m.RUID, m.RUser = ruid, ruser
		s := shim.NewShimConn(c)
		if err := errors.Join(s.Send(shim.Hello{Version: shim.Version}, time.Second), s.Send(m, time.Second)); err != nil {
			t.Fatal(err)
		}
		got, err := s.Receive(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, c := range []struct {
		service, ruser string
		ruid           uint32
	}{{"su", "mallory", 20009}, {"sudo", "mallory", 0}} {
		served := 0
		for range maxRoot / 2 {
			if _, ok := begin(c.service, c.ruid, c.ruser).(shim.Secret); ok {
				served++
			}
		}
		if served != maxCaller {
			t.Errorf("%d of %s were served, %d are allowed", served, c.service, maxCaller)
		}
	}
	for _, ruser := range []string{"root", "alice"} {
		if got, ok := begin("login", 0, ruser).(shim.Secret); !ok {
			t.Errorf("%s gets %+v", ruser, got)
		}
	}
}

// S1: su is judged for the caller. That he is who he says does not make him the other
// account: its password is still asked for by the modules behind.
func TestTheCallersFactorsAloneDoNotOpenAnotherAccount(t *testing.T) {
	for _, c := range []struct {
		subject, user string
		mode          shim.Mode
		in, out       policy.Outcome
		authtok, next bool
	}{
		{"alice", "root", shim.ModeFull, policy.Allow, policy.Ignore, false, true},
		{"alice", "root", shim.ModeFull, policy.Ignore, policy.Ignore, false, true},
		{"alice", "root", shim.ModeFull, policy.Deny, policy.Deny, false, false},
		{"alice", "root", shim.ModeSecond, policy.Allow, policy.Allow, false, false},
		{"alice", "root", shim.ModeSecond, policy.Ignore, policy.Ignore, false, false},
		{"alice", "alice", shim.ModeFull, policy.Allow, policy.Allow, true, false},
	} {
		m := start(shim.PhaseAuth, "su", c.user)
		m.Mode = c.mode
		v := conversation.Verdict{Outcome: c.in, Authtok: secret.FromString("alice's"), HasAuthtok: true}
		if next := leaveTarget(&v, c.subject, m); v.Outcome != c.out || v.HasAuthtok != c.authtok || next != c.next {
			t.Errorf("%+v: %+v %v", c, v, next)
		}
	}
}

// nameless is a machine with one account.
type nameless struct{}

func (nameless) Names(context.Context, uint32) []string { return nil }
func (nameless) UID(_ context.Context, name string) (uint32, bool) {
	return 20002, name == "mallory"
}

// Everybody may start polkit's helper for everybody's account: what he tries there
// counts like what comes from over the network, so that he can not use up the tries
// of the person whose account it is (O6).
func TestTriesForSomebodyElsesAccountCountAsRemote(t *testing.T) {
	a := &agent{procs: systemProcesses(), names: nameless{}, seen: newSeen(clock.Real)}
	for _, c := range []struct {
		service, ruser string
		ruid           uint32
		remote         bool
	}{
		{"polkit-1", "mallory", 20002, true},
		{"polkit-1", "alice", 20001, false},
		{"polkit-1", "root", 0, false},  // its helper behind a socket
		{"su", "mallory", 20002, false}, // mallory's own tries
		{"sudo", "alice", 0, false},
		{"login", "root", 0, false},
	} {
		m := start(shim.PhaseAuth, c.service, "alice")
		m.RUser, m.RUID = c.ruser, c.ruid
		s, _ := serviceOf(c.service)
		r, why := a.request(t.Context(), caller{uid: 0}, s, m)
		if why != "" || r.RemoteSeat != c.remote {
			t.Errorf("%+v: %q %v", c, why, r.RemoteSeat)
		}
	}
}

func TestNonsenseOnTheSocketIsDenied(t *testing.T) {
	w := newWorld(t)
	for name, raw := range map[string][]byte{
		"an endless frame":          {0xff, 0xff, 0xff, 0xff, 1, 2, 3},
		"an empty frame":            {0, 0, 0, 0},
		"no hello":                  append([]byte{0, 0, 0, 6}, "status"...),
		"an unknown verb":           append([]byte{0, 0, 0, 7}, append([]byte("hello\x001"), append([]byte{0, 0, 0, 4}, "sing"...)...)...),
		"an answer to no question":  append([]byte{0, 0, 0, 7}, append([]byte("hello\x001"), append([]byte{0, 0, 0, 10}, "answer\x001\x00x"...)...)...),
		"a begin that lacks a user": append([]byte{0, 0, 0, 7}, append([]byte("hello\x001"), append([]byte{0, 0, 0, 16}, "begin\x00phase=auth"...)...)...),
	} {
		c := w.dial()
		_ = c.SetDeadline(time.Now().Add(4 * time.Second))
		_, _ = c.Write(raw)
		out, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) || strings.Contains(string(out), "allow") || strings.Contains(string(out), "ignore") {
			t.Errorf("%s: %q %v", name, out, err)
		}
		_ = c.Close()
	}
	t.Run("another version", func(t *testing.T) {
		c := w.dial()
		defer c.Close()
		s := shim.NewShimConn(c)
		if err := s.Send(shim.Hello{Version: 99}, time.Second); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Receive(2 * time.Second); err != nil || fmt.Sprintf("%T", m) != "shim.TooOld" {
			t.Errorf("%v %v", m, err)
		}
	})
	t.Run("octets that trickle", func(t *testing.T) {
		c := w.dial()
		defer c.Close()
		begun := time.Now()
		for range 30 {
			if _, err := c.Write([]byte{0}); err != nil {
				break
			}
			time.Sleep(400 * time.Millisecond)
		}
		if took := time.Since(begun); took > beginTime+2*time.Second {
			t.Errorf("the agent waited %s", took)
		}
	})
	if w.status().Link == "" {
		t.Error("the agent is gone")
	}
}

func TestAnOpenPromptDoesNotHoldTheAgentUp(t *testing.T) {
	w := newWorld(t)
	c := w.dial()
	defer c.Close()
	s := shim.NewShimConn(c)
	if err := errors.Join(s.Send(shim.Hello{Version: shim.Version}, time.Second), s.Send(start(shim.PhaseAuth, "login", "alice"), time.Second)); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if m, err := s.Receive(5 * time.Second); err != nil || fmt.Sprintf("%T", m) != "shim.Secret" {
		t.Fatalf("%v %v", m, err)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the first prompt came after %s", took)
	}
	begun = time.Now()
	w.cancel()
	select {
	case err := <-w.ended:
		if err != nil || time.Since(begun) > 8*time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		w.ended <- nil
	case <-time.After(10 * time.Second):
		t.Fatal("the agent waits for an answer")
	}
	if _, err := os.Stat(w.cfg.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is left behind")
	}
}

func TestOneAgentForOneFolderAndOneSocket(t *testing.T) {
	w := newWorld(t)
	second := w.cfg
	if err := Run(t.Context(), second); err == nil || !strings.Contains(err.Error(), "another latchkey-agent") {
		t.Errorf("the same folder: %v", err)
	}
	second.State = joined(t)
	if err := Run(t.Context(), second); err == nil || !strings.Contains(err.Error(), "another program listens") {
		t.Errorf("the same socket: %v", err)
	}
	if w.status().Link == "" {
		t.Error("the first agent was harmed")
	}
}

func TestASocketThatWasLeftBehindIsReplaced(t *testing.T) {
	w := newWorld(t)
	w.stop()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: w.cfg.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	<-w.ended
	w.start()
	if w.status().Link == "" {
		t.Error("no agent")
	}
	st, err := os.Stat(w.cfg.Socket)
	if err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

func TestTheSocketIsNotPutWhereOthersCouldReplaceIt(t *testing.T) {
	dir := t.TempDir()
	for name, prepare := range map[string]func() string{
		"a folder that all may write to": func() string {
			d := filepath.Join(dir, "open")
			_ = os.Mkdir(d, 0o700)
			_ = os.Chmod(d, 0o777)
			return filepath.Join(d, "s")
		},
		"a file in its place": func() string {
			d := filepath.Join(dir, "shut")
			_ = os.Mkdir(d, 0o755)
			_ = os.WriteFile(filepath.Join(d, "s"), nil, 0o600)
			return filepath.Join(d, "s")
		},
		"a relative path": func() string { return "agent.sock" },
		"an endless path": func() string { return "/" + strings.Repeat("x", 120) },
	} {
		if l, err := listen(prepare()); err == nil {
			_ = l.Close()
			t.Errorf("%s was taken", name)
		}
	}
}

func TestAMachineThatHasNotJoinedSaysSo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	err := Run(t.Context(), Config{State: dir, Socket: filepath.Join(dir, "s"), Clock: clock.Real, Log: slog.New(slog.DiscardHandler)})
	if !NotJoined(err) {
		t.Errorf("%v", err)
	}
}

func TestAStatusOfManyUsersFitsItsFrame(t *testing.T) {
	s := shim.MachineStatus{Link: "up"}
	for i := range 1000 {
		s.Offline.Users = append(s.Offline.Users, vault.UserStatus{User: fmt.Sprintf("user-%d-%s", i, strings.Repeat("x", 100))})
	}
	out := fit(&s)
	if len(out) > shim.MaxBody-64 || !json.Valid([]byte(out)) || s.More == 0 || s.More+len(s.Offline.Users) != 1000 {
		t.Errorf("%d octets, %d left out", len(out), s.More)
	}
}
