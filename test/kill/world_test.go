//go:build e2e

package kill

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the test reads the server's own counts

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/shim"
	"latchkey/internal/tpm/tpmtest"
)

// world is a server with its machines and people, all of one clock.
type world struct {
	t      testing.TB
	dir    string
	rng    *rand.Rand
	name   string
	server *process
	data   string
	house  string // address of the loopback interface
	addr   string // of the door for machines
	api    *http.Client

	offset   time.Duration
	stations []*station
	alice    *person // has a second factor
	plain    *person // needs none
	book     *book
	guests   int
	verbose  bool

	// What the present episode kills, and whom else it may mean.
	present     *kill
	guest       *station
	firstServer *process
}

// person is somebody with an account.
type person struct {
	name, password, key string
	step                int64 // of the newest code that was made
}

// station is a machine.
type station struct {
	w     *world
	name  string
	state string
	sock  string
	tpm   *tpmtest.Emulator // nil: software class
	spec  string
	agent *process
	cable *cable

	// What is counted at least, by the model.
	wrongOnline, wrongOffline int
}

const (
	tries   = 100
	signins = 10000
)

// settings are so that no limit is met by chance, and every sign-in is asked.
var settings = fmt.Sprintf(`{"window_silences":[],"offline_tries":%d,"offline_signins":%d,"offline_days":2,"backoff_after":100,"lockout_after":1000,"lockout_for":"24h"}`, tries, signins)

// newWorld starts a server with two machines: one with a TPM, one without.
func newWorld(t testing.TB, name string, rng *rand.Rand) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "lk-kill-") // short: a socket's path has about 100 octets
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir, rng: rng, name: name, data: filepath.Join(dir, "srv"), house: house(), verbose: os.Getenv("LATCHKEY_KILL_VERBOSE") != ""}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what is left of world %s lies in %s", name, dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	w.addr = net.JoinHostPort(w.house, "18444")
	w.turn()
	w.server = w.newServer("latchkeyd", w.data, net.JoinHostPort(w.house, "18443"), w.addr)
	t.Cleanup(w.server.stop)
	w.server.start()
	w.api = apiOf(filepath.Join(w.data, "admin.sock"))
	w.until(20*time.Second, "the server serves", func() bool { return w.call("GET", "/status", nil, nil) == nil })
	w.must("PATCH", "/policies/default", json.RawMessage(`{"settings":`+settings+`}`), nil)
	w.alice = w.addPerson("alice-" + name)
	var f rest.TOTP
	w.must("POST", "/users/"+w.alice.name+"/factors/totp", json.RawMessage(`{}`), &f)
	w.alice.key = strings.ReplaceAll(f.Key.Show(), " ", "")
	w.plain = w.addPerson("plain-" + name)
	w.must("PATCH", "/users/"+w.plain.name, json.RawMessage(`{"mfa":"off"}`), nil)
	w.book = newBook()
	for _, withTPM := range []bool{false, true} {
		s := w.newStation(map[bool]string{false: "soft", true: "chip"}[withTPM], withTPM)
		if out, err := s.join(s.token()); err != nil {
			t.Fatalf("%s can not join: %v\n%s", s.name, err, out)
		}
		s.agent.start()
		w.stations = append(w.stations, s)
		s.up()
		s.enrol()
		if r := w.signin(s, attempt{who: w.plain, full: true}); r.verdict != allow && r.verdict != ignore {
			t.Fatalf("%s is not let in at %s: %s", w.plain.name, s.name, r)
		}
	}
	return w
}

func (w *world) newServer(name, data, people, machines string) *process {
	return newProcess(w.t, w.dir, name, []string{"LATCHKEY_TEST_CLOCK=" + w.clock()}, program(w.t, "latchkeyd"), "serve",
		"--data", data, "--listen", people, "--listen-agent", machines)
}

func (w *world) newStation(name string, withTPM bool) *station {
	w.t.Helper()
	s := &station{w: w, name: name, state: filepath.Join(w.dir, name), sock: filepath.Join(w.dir, name+".sock"), spec: "none", cable: layCable(w.t, w.addr)}
	if withTPM {
		s.tpm = tpmtest.Start(w.t)
		s.spec = s.tpm.Spec()
	}
	s.agent = newProcess(w.t, w.dir, name, []string{"LATCHKEY_TEST_CLOCK=" + w.clock()}, program(w.t, "latchkey-agent"), "run",
		"--state", s.state, "--socket", s.sock, "--tpm", s.spec, "--break-glass", filepath.Join(w.dir, "nobody"))
	w.t.Cleanup(s.agent.stop)
	return s
}

// join gives the machine its identity.
func (s *station) join(token string, options ...string) (string, error) {
	s.w.t.Helper()
	cmd := exec.Command(program(s.w.t, "latchkey-agent"), append([]string{"join", "--state", s.state, "--tpm", s.spec, "--name", s.name}, append(options, token)...)...)
	cmd.Env = s.agent.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) clock() string { return filepath.Join(w.dir, "clock") }

// turn writes the clock.
func (w *world) turn() {
	if err := os.WriteFile(w.clock()+".new", []byte(w.offset.String()), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(w.clock()+".new", w.clock()); err != nil {
		w.t.Fatal(err)
	}
}

// pass lets time go by, everywhere.
func (w *world) pass(d time.Duration) {
	w.offset += d
	w.turn()
}

func (w *world) now() time.Time { return time.Now().Add(w.offset) }

func (w *world) until(within time.Duration, what string, is func() bool) {
	w.t.Helper()
	if !w.wait(within, is) {
		w.fatal("%s: not within %s", what, within)
	}
}

func (w *world) wait(within time.Duration, is func() bool) bool {
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		if is() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// fatal ends the world with the ends of all logs.
func (w *world) fatal(format string, a ...any) {
	w.t.Helper()
	logs := ""
	for _, p := range append([]*process{w.server}, w.agents()...) {
		logs += "\n-- " + p.name + "\n" + p.tail(15)
	}
	w.t.Fatalf("world %s: %s%s", w.name, fmt.Sprintf(format, a...), logs)
}

func (w *world) agents() (ps []*process) {
	for _, s := range w.stations {
		ps = append(ps, s.agent)
	}
	return ps
}

// ── the administrator ──

func apiOf(socket string) *http.Client {
	var d net.Dialer
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableKeepAlives: true,
	}}
}

func (w *world) call(method, path string, in, out any) error {
	return callAPI(w.api, method, path, in, out)
}

func callAPI(c *http.Client, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://latchkey"+rest.Base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode > 299 {
		var p rest.Problem
		if json.Unmarshal(b, &p) == nil && p.Detail != "" {
			return &p
		}
		return errors.New(res.Status)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// must repeats the request until the server answers: it may be dead for a moment.
func (w *world) must(method, path string, in, out any) {
	w.t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var p *rest.Problem
		if err = w.call(method, path, in, out); err == nil {
			return
		} else if errors.As(err, &p) && p.Status < 500 {
			break
		}
	}
	w.fatal("%s %s: %v", method, path, err)
}

func (w *world) addPerson(name string) *person {
	w.t.Helper()
	p := &person{name: name, password: "plum orchard ladder"}
	w.must("POST", "/users", rest.NewUser{Name: name, Password: rest.HideText(p.password)}, nil)
	return p
}

func (s *station) token() string {
	s.w.t.Helper()
	var t rest.Token
	s.w.must("POST", "/machine-tokens", rest.NewToken{Name: s.name, ServerURL: "https://" + s.cable.addr()}, &t)
	return t.Token.Show()
}

// database opens the server's own, to be read while the server uses it.
func (w *world) database() *sql.DB {
	w.t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(w.data, "latchkey.db")+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		w.t.Fatal(err)
	}
	return db
}

// failures is how many failures the server has counted for alice there.
func (w *world) failures(s *station) int {
	w.t.Helper()
	db := w.database()
	defer db.Close()
	var n int
	err := db.QueryRow(`SELECT a.failures FROM attempts a JOIN users u ON u.id = a.user_id JOIN machines m ON m.id = a.machine_id WHERE u.name = ? AND m.name = ?`,
		w.alice.name, s.name).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		w.fatal("the server's database can not be read: %v", err)
	}
	return n
}

// ── the machine ──

func (s *station) dial() (*shim.ShimConn, error) {
	c, err := net.DialTimeout("unix", s.sock, 2*time.Second)
	if err != nil {
		return nil, err
	}
	return shim.NewShimConn(c), nil
}

func (s *station) status() (st shim.MachineStatus, err error) {
	c, err := s.dial()
	if err != nil {
		return st, err
	}
	defer c.Close()
	text, err := c.Status()
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal([]byte(text), &st)
}

// offline is what the agent says of alice's offline data.
func (s *station) offline() (u shim.OfflineUser, ok bool) {
	all, err := s.status()
	if err != nil {
		return u, false
	}
	for _, u := range all.Offline.Users {
		if u.User == s.w.alice.name {
			return u, true
		}
	}
	return u, true
}

// up waits until the link is up, and nudges it as a person does who begins to sign in.
func (s *station) up() {
	s.w.t.Helper()
	begun, last := time.Now(), time.Time{}
	s.w.until(40*time.Second, s.name+" is online", func() bool {
		st, err := s.status()
		if err == nil && st.Link == string(policy.LinkUp) && st.Offline.PolicySerial > 0 {
			return true
		}
		if err == nil && time.Since(begun) > 100*time.Millisecond && time.Since(last) > 300*time.Millisecond {
			last = time.Now()
			s.nudge()
		}
		return false
	})
}

// nudge begins a sign-in and goes away at the password prompt: nothing is spent.
func (s *station) nudge() {
	c, err := s.dial()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Converse(s.begin(attempt{who: s.w.alice, full: true, silent: true}, "nudge"), &mouth{})
}
