//go:build e2e

package browser

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/test/fill"
)

// server is a latchkeyd with a movable clock, on loopback.
type server struct {
	t      testing.TB
	dir    string
	base   string // of people's door
	admin  string // socket
	clock  string
	offset time.Duration
}

func program(t testing.TB, name string) string {
	t.Helper()
	p := filepath.Join(Root(), ".cache", "bin-test", name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is not there: run scripts/build --test (%v)", p, err)
	}
	return p
}

// start starts a server on the data folder, which may hold a database; more are further flags.
func start(t testing.TB, dir string, more ...string) *server {
	t.Helper()
	s := &server{t: t, dir: dir, clock: filepath.Join(dir, "clock")}
	s.pass(0)
	log := filepath.Join(dir, "server.log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(program(t, "latchkeyd"), append([]string{
		"serve", "--data", dir, "--listen", "127.0.0.1:0", "--listen-agent", "127.0.0.1:0", "--admin-socket", filepath.Join(dir, "admin.sock"),
	}, more...)...)
	cmd.Env = append(os.Environ(), "LATCHKEY_TEST_CLOCK="+s.clock)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	said := func() string { b, _ := os.ReadFile(log); return string(b) }
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-done
			t.Errorf("the server does not stop")
		}
		if strings.Contains(said(), "panic") {
			t.Errorf("the server panicked")
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", said())
		}
	})
	var at struct {
		Listen string `json:"listen"`
		Admin  string `json:"admin_socket"`
	}
	for end := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "serve.json"))
		if err == nil && json.Unmarshal(b, &at) == nil && at.Listen != "" {
			break
		}
		select {
		case <-done:
			t.Fatalf("the server ended:\n%s", said())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("the server does not start:\n%s", said())
		}
	}
	s.base, s.admin = "https://"+at.Listen, at.Admin
	return s
}

// short is a folder with a short name: a socket's path is.
func short(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "latchkey-web-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// filled is a server with a small organisation in it, and the cookie of a session of its owner.
func filled(t testing.TB) (*server, fill.Named, string) {
	t.Helper()
	dir := short(t)
	made, err := fill.Database(context.Background(), dir, "", fill.Size{Users: 400, Groups: 20, Machines: 300, Events: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	cookie, err := fill.Session(context.Background(), "sqlite:"+filepath.Join(dir, "latchkey.db"), made.Admin, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return start(t, dir), made.Named, cookie
}

// named is a server as filled makes, that is called localhost: some things a browser does for names alone.
func named(t testing.TB) (*server, fill.Named) {
	t.Helper()
	dir := short(t)
	made, err := fill.Database(context.Background(), dir, "", fill.Size{Users: 400, Groups: 20, Machines: 300, Events: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	s := start(t, dir, "--listen", "127.0.0.1:"+port, "--people-url", "https://localhost:"+port)
	s.base = "https://localhost:" + port
	return s, made.Named
}

// pass lets time go by.
func (s *server) pass(d time.Duration) {
	s.t.Helper()
	s.offset += d
	if err := os.WriteFile(s.clock+".new", []byte(s.offset.String()), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.clock+".new", s.clock); err != nil {
		s.t.Fatal(err)
	}
}

// cli runs the command of administrators.
func (s *server) cli(args ...string) string {
	s.t.Helper()
	cmd := exec.Command(program(s.t, "latchkey"), append([]string{"--server", "unix:" + s.admin}, args...)...)
	cmd.Env = append(os.Environ(), "LATCHKEY_TEST_CLOCK="+s.clock)
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("latchkey %s: %v %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// events are the last ones, for whoever looks into a failure.
func (s *server) events() string {
	out, err := exec.Command(program(s.t, "latchkey"), "--server", "unix:"+s.admin, "events").CombinedOutput()
	if err != nil {
		return err.Error() + ": " + string(out)
	}
	return string(out)
}

// code is the next code of an authenticator app, by an oracle that is not ours; half a minute goes by, so that it is one
// that was not used.
func (s *server) code(base32 string) string {
	s.t.Helper()
	s.pass(30 * time.Second)
	now := strconv.FormatInt(time.Now().Add(s.offset).Unix(), 10)
	out, err := exec.Command("oathtool", "--totp", "-b", strings.ReplaceAll(base32, " ", ""), "--now", "@"+now).CombinedOutput()
	if err != nil {
		s.t.Fatalf("oathtool: %v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}
