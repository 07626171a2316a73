package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// world is the private machine and everything that runs on it.
type world struct {
	options
	ctx      context.Context
	procs    []*process
	server   *process
	people   string // listeners
	machines string
	agents   []*agent
	users    []*user // of the unix machine, of google-authenticator, pam_oath and Latchkey alike
	flyer    *user   // who signs in without the server
	hash     string  // of everybody's password, as in /etc/shadow
}

// agent is one agent of two: with and without a TPM.
type agent struct {
	name, tpm string
	class     string
	proc      *process
	told      int           // lines of the log that were read
	clock     string        // file
	offset    time.Duration // in it
}

// user has one seed for every module.
type user struct {
	name string
	seed []byte // google-authenticator and pam_oath
	keys map[string][]byte
	step int64 // of the newest code for Latchkey
}

const (
	password = "correct horse battery staple"
	ldapPort = "3636"
)

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}
func (w *world) adminSocket() string     { return w.path("server", "admin.sock") }
func (a *agent) socket(w *world) string  { return w.path(a.name + ".sock") }
func (a *agent) state(w *world) string   { return w.path(a.name) }
func (w *world) program(n string) string { return filepath.Join(w.root, "bin", n) }
func (w *world) movable(n string) string { return filepath.Join(w.root, ".cache", "bin-test", n) }

// enter makes the namespace a machine of its own. What the programs under test write is on the disk below dir, all else
// in memory.
func (w *world) enter() error {
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	for _, s := range [][]string{
		{"mkdir", w.path("mem"), w.path("oath"), w.path("ga"), w.path("unix-ga"), w.path("ga-off")},
		{"mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", w.path("mem")},
		{"mkdir", w.path("mem", "up"), w.path("mem", "work"), w.path("mem", "home")},
		{"mount", "-t", "overlay", "overlay", "-o", "lowerdir=/etc,upperdir=" + w.path("mem", "up") + ",workdir=" + w.path("mem", "work"), "/etc"},
		{"mount", "--bind", w.path("mem", "home"), "/home"},
		{"mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"},
		{"mount", "-t", "tmpfs", "tmpfs", "/var/log"},
		{"hostname", "bench"},
		{"ip", "link", "set", "lo", "up"},
	} {
		if err := sh(w.ctx, s...); err != nil {
			return err
		}
	}
	return nil
}

// addUsers makes the accounts of the machine: all with one password, hashed as Debian does (yescrypt).
func (w *world) addUsers() error {
	if err := sh(w.ctx, "useradd", "--no-create-home", "--no-log-init", "--shell", "/bin/sh", "flyer"); err != nil {
		return err
	}
	cmd := exec.CommandContext(w.ctx, "chpasswd", "-c", "YESCRYPT")
	cmd.Stdin = strings.NewReader("flyer:" + password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("chpasswd: %w: %s", err, out)
	}
	b, err := os.ReadFile("/etc/shadow")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); f[0] == "flyer" {
			w.hash = f[1]
		}
	}
	if !strings.HasPrefix(w.hash, "$y$") {
		return fmt.Errorf("the machine's hash is %.3s…, not yescrypt", w.hash)
	}
	var passwd, shadow strings.Builder
	day := time.Now().Unix() / 86400
	for i := range w.n {
		u := &user{name: fmt.Sprintf("u%03d", i), keys: map[string][]byte{}}
		mac := hmac.New(sha1.New, []byte("seed"))
		fmt.Fprint(mac, i)
		u.seed = mac.Sum(nil)
		w.users = append(w.users, u)
		fmt.Fprintf(&passwd, "%s:x:%d:100::/home:/bin/sh\n", u.name, 30000+i)
		fmt.Fprintf(&shadow, "%s:%s:%d:0:99999:7:::\n", u.name, w.hash, day)
	}
	w.flyer = &user{name: "flyer", keys: map[string][]byte{}}
	return errors.Join(appendTo("/etc/passwd", passwd.String()), appendTo("/etc/shadow", shadow.String()))
}

func appendTo(file, more string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(more)
	return errors.Join(err, f.Close())
}

// gaFolders are google-authenticator's: one for each kind of sign-in, because it forgets no code.
var gaFolders = []string{"ga", "unix-ga", "ga-off"}

// addPeers writes the peers' secrets: google-authenticator has a file per user, pam_oath one for all.
func (w *world) addPeers() error {
	var oath strings.Builder
	for _, u := range w.users {
		ga := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(u.seed) + "\n\" RATE_LIMIT 3 30\n\" WINDOW_SIZE 3\n\" DISALLOW_REUSE\n\" TOTP_AUTH\n"
		for _, f := range gaFolders {
			if err := os.WriteFile(w.path(f, u.name), []byte(ga), 0o600); err != nil {
				return err
			}
		}
		fmt.Fprintf(&oath, "HOTP/T30/6\t%s\t-\t%s\n", u.name, hex.EncodeToString(u.seed))
	}
	return os.WriteFile(w.path("oath", "users"), []byte(oath.String()), 0o600)
}

// stacks writes one service for each kind of sign-in.
func (w *world) stacks() error {
	module := w.program("pam_latchkey.so")
	lk := func(a *agent) string {
		return "auth [success=ok ignore=ignore default=die] " + module + " mode=second scope=elevation socket=" + a.socket(w) + "\n"
	}
	unix := "auth requisite pam_unix.so\n"
	ga := func(folder string) string {
		return "auth required pam_google_authenticator.so user=root secret=" + w.path(folder) + "/${USER}\n"
	}
	stacks := map[string]string{
		"b-permit":  "auth required pam_permit.so\n",
		"b-unix":    unix,
		"b-ga":      ga("ga"),
		"b-ga-off":  ga("ga-off"),
		"b-oath":    "auth required pam_oath.so usersfile=" + w.path("oath", "users") + " window=3 digits=6\n",
		"b-unix-ga": unix + ga("unix-ga"),
		"b-sss":     "auth required pam_sss.so\n",
	}
	for _, a := range w.agents {
		stacks["b-"+a.name] = lk(a)
		stacks["b-unix-"+a.name] = unix + lk(a)
		stacks["b-full-"+a.name] = "auth [success=done ignore=ignore default=die] " + module + " mode=full scope=elevation socket=" + a.socket(w) + "\n"
	}
	for name, body := range stacks {
		if err := os.WriteFile("/etc/pam.d/"+name, []byte(body), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// process is a program that runs beside the measurement.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func (w *world) start(name string, env []string, argv ...string) (*process, error) {
	p := &process{log: w.path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if env != nil {
		argv = slices.Concat([]string{"env"}, env, argv)
	}
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	w.procs = append(w.procs, p)
	return p, nil
}

func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

func (w *world) close() {
	for _, p := range w.procs {
		p.stop()
	}
}

var errEnded = errors.New("the program has ended by itself")

func (w *world) until(what string, limit time.Duration, cond func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := cond()
		switch {
		case err == nil:
			return nil
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case errors.Is(err, errEnded):
			return fmt.Errorf("%s: %w", what, err)
		case time.Now().After(deadline):
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startServer starts the server, with SQLite on the disk.
func (w *world) startServer(program string, env ...string) error {
	var err error
	if w.people == "" {
		if w.people, err = freePort(); err != nil {
			return err
		}
		if w.machines, err = freePort(); err != nil {
			return err
		}
	}
	w.server, err = w.start("server", env, program, "serve", "--data", w.path("server"), "--listen", w.people, "--listen-agent", w.machines)
	if err != nil {
		return err
	}
	return w.until("the server starts", 30*time.Second, func() error {
		if !w.server.running() {
			return fmt.Errorf("%w: %s", errEnded, w.server.tail())
		}
		_, err := w.cli("", "user", "list", "--output", "json")
		return err
	})
}

// cli runs the command of administrators.
func (w *world) cli(stdin string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(w.ctx, w.program("latchkey"), append([]string{"--server", "unix:" + w.adminSocket()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("latchkey %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return out.Bytes(), nil
}

// enrolPeople makes the accounts on the server. The many have no password there, as where the machine judges it; the
// one who flies has, because offline data is opened with it.
func (w *world) enrolPeople() error {
	// Checked first so that nobody waits for what only the measurement needs.
	if _, err := w.cli("", "policy", "set", "default", "window=0s", "offline_signins=1000", "offline_days=7"); err != nil {
		return err
	}
	for _, u := range w.users {
		if _, err := w.cli("", "user", "add", u.name, "--no-password"); err != nil {
			return err
		}
		if err := w.addTOTP(u, u.name, ""); err != nil {
			return err
		}
	}
	if _, err := w.cli(password+"\n", "user", "add", w.flyer.name, "--password-stdin"); err != nil {
		return err
	}
	return w.addTOTP(w.flyer, w.flyer.name, "")
}

func (w *world) addTOTP(u *user, name, label string) error {
	out, err := w.cli("", "factor", "add", "totp", name, "--output", "json")
	if err != nil {
		return err
	}
	var f struct{ Key string }
	if err := json.Unmarshal(out, &f); err != nil {
		return err
	}
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(f.Key, " ", ""))
	u.keys[label] = key
	return err
}

// startTPM starts an emulated TPM.
func (w *world) startTPM() (string, error) {
	state, sock := w.path("tpm"), w.path("tpm.sock")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", err
	}
	if _, err := w.start("tpm", nil, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state, "--server", "type=unixio,path="+sock,
		"--flags", "not-need-init,startup-clear"); err != nil {
		return "", err
	}
	return "socket:" + sock, w.until("the TPM starts", 10*time.Second, func() error {
		_, err := os.Stat(sock)
		return err
	})
}

// join gives an agent its identity.
func (w *world) join(a *agent) error {
	out, err := w.cli("", "machine", "token", "--name", a.name, "--server-url", "https://"+w.machines, "--output", "json")
	if err != nil {
		return err
	}
	var tok struct{ Token string }
	if err := json.Unmarshal(out, &tok); err != nil || tok.Token == "" {
		return fmt.Errorf("no token in %s (%w)", out, err)
	}
	return sh(w.ctx, w.program("latchkey-agent"), "join", tok.Token, "--state", a.state(w), "--tpm", a.tpm)
}

// startAgent starts an agent; with a movable clock where the offline sign-ins want a new code each.
func (w *world) startAgent(a *agent, movable bool) error {
	program, env := w.program("latchkey-agent"), []string(nil)
	if movable {
		a.clock = w.path("mem", a.name+".clock")
		program, env = w.movable("latchkey-agent"), []string{"LATCHKEY_TEST_CLOCK=" + a.clock}
		if err := a.turn(0); err != nil { // there before the first look at it
			return err
		}
	}
	_ = os.Remove(a.socket(w))
	var err error
	a.proc, err = w.start(a.name, env, program, "run", "--state", a.state(w), "--socket", a.socket(w), "--tpm", a.tpm)
	if err != nil {
		return err
	}
	return w.until("the agent "+a.name+" listens", 20*time.Second, func() error {
		if !a.proc.running() {
			return fmt.Errorf("%w: %s", errEnded, a.proc.tail())
		}
		_, err := w.status(a)
		return err
	})
}

// turn moves the clock of an agent.
func (a *agent) turn(d time.Duration) error {
	a.offset += d
	if err := os.WriteFile(a.clock+".new", []byte(a.offset.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(a.clock+".new", a.clock)
}

type status struct {
	Link    string `json:"link"`
	Offline struct {
		Users []struct {
			User     string `json:"user"`
			Enrolled bool   `json:"enrolled"`
			Class    string `json:"class"`
		} `json:"users"`
	} `json:"offline"`
}

func (w *world) status(a *agent) (status, error) {
	var st status
	out, err := exec.CommandContext(w.ctx, w.program("latchkey"), "status", "--socket", a.socket(w), "--output", "json").Output()
	if err != nil {
		return st, err
	}
	return st, json.Unmarshal(out, &st)
}

func (w *world) link(a *agent, want string) error {
	return w.until("the link of "+a.name+" is "+want, 40*time.Second, func() error {
		st, err := w.status(a)
		if err == nil && st.Link != want {
			err = fmt.Errorf("it is %s: %s", st.Link, a.proc.tail())
		}
		return err
	})
}

// cut drops every packet to and from a port of loopback, mend undoes it.
func (w *world) cut(port string) error {
	rules := "table inet bench {\nchain cut {\ntype filter hook input priority 0\ntcp dport " + port + " drop\ntcp sport " + port + " drop\n}\n}\n"
	cmd := exec.CommandContext(w.ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func (w *world) mend() error { return sh(w.ctx, "nft", "delete", "table", "inet", "bench") }

// totp is RFC 6238 with SHA-1 and six digits.
func totp(seed []byte, step int64) string {
	mac := hmac.New(sha1.New, seed)
	_ = binary.Write(mac, binary.BigEndian, step)
	h := mac.Sum(nil)
	return fmt.Sprintf("%06d", binary.BigEndian.Uint32(h[h[19]&15:])&0x7fffffff%1000000)
}

func stepOf(t time.Time) int64 { return t.Unix() / 30 }

// pamtester signs in once; whatever it did not let in is an error. The answers are typed ahead. It
// says that it is at the console: of a service that the agent does not know it would else be taken for a daemon.
func (w *world) pamtester(service, user string, answers ...string) (time.Duration, error) {
	cmd := exec.CommandContext(w.ctx, "pamtester", "-I", "tty=/dev/tty1", service, user, "authenticate")
	in, feed, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	for _, a := range answers {
		_, _ = io.WriteString(feed, a+"\n")
	}
	feed.Close()
	defer in.Close()
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &out
	begun := time.Now()
	err = cmd.Run()
	took := time.Since(begun)
	if err != nil {
		return took, fmt.Errorf("%s of %s: %w: %s", service, user, err, bytes.TrimSpace(out.Bytes()))
	}
	return took, nil
}
