//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/shim"
	units "latchkey/packaging/systemd/user"
)

const (
	certLife = 30 * 24 * time.Hour
	noMFA    = "Sign in on this machine with a second factor first."
)

// certRig is a home with the databases of two browsers, and an agent that issues.
type certRig struct {
	testing.TB
	home, file, socket string
	clock              *clock.Manual

	mu     sync.Mutex
	serial int64
	no     string // what the agent says in place of a certificate
	asked  int
}

func newCertRig(t *testing.T) *certRig {
	t.Helper()
	for _, tool := range []string{"certutil", "pk12util", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed: certificates are put into browsers with it (apt-get install libnss3-tools openssl)", tool)
		}
	}
	home, err := os.MkdirTemp("", "lk") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "") // put back after the test
	_ = os.Unsetenv("XDG_CONFIG_HOME")
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "none"))
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	r := &certRig{
		TB: t, home: home, file: filepath.Join(home, ".config", "latchkey", "certificate.pem"), socket: filepath.Join(home, "agent"),
		clock: clock.NewManual(time.Now().Truncate(time.Second)),
	}
	r.must(os.MkdirAll(r.firefox(), 0o700))
	r.nss("certutil", "-N", "-d", "sql:"+r.firefox(), "--empty-password")
	ca, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	l, err := net.Listen("unix", r.socket)
	r.must(err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.issue(shim.NewAgentConn(c), ca)
		}
	}()
	return r
}

// issue is the agent's end: a certificate for whatever key is brought.
func (r *certRig) issue(a *shim.AgentConn, ca *ecdsa.PrivateKey) {
	defer a.Close()
	const within = 10 * time.Second
	if a.Greet(within, "") != nil {
		return
	}
	m, err := a.Receive(within)
	c, ok := m.(shim.Certificate)
	if err != nil || !ok {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	reply := shim.CertificateReply{Problem: r.no, User: "alice"}
	if r.no == "" {
		var in shim.CertificateRequest
		if err := json.Unmarshal([]byte(c.Request), &in); err != nil {
			r.Error(err)
			return
		}
		csr, err := x509.ParseCertificateRequest(in.CSR)
		if err != nil {
			r.Error(err)
			return
		}
		r.serial++
		now := r.clock.Now()
		t := &x509.Certificate{SerialNumber: big.NewInt(r.serial), Subject: pkix.Name{CommonName: "alice"}, NotBefore: now, NotAfter: now.Add(certLife)}
		if reply.Certificate, err = x509.CreateCertificate(rand.Reader, t, t, csr.PublicKey, ca); err != nil {
			r.Error(err)
			return
		}
	}
	b, err := json.Marshal(reply)
	if err != nil {
		r.Error(err)
		return
	}
	_ = a.Send(shim.Tell{Text: string(b)}, within)
}

func (r *certRig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *certRig) firefox() string {
	return filepath.Join(r.home, ".mozilla", "firefox", "abc.default")
}

func (r *certRig) nss(name string, args ...string) string {
	r.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		r.Fatalf("%s %v: %v %s", name, args, err, out)
	}
	return string(out)
}

// refuse has the agent say this in place of a certificate; empty: it gives one.
func (r *certRig) refuse(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.no = why
}

// run runs the command, and gives its exit code and what it wrote.
func (r *certRig) run(args ...string) (code int, out, errs string) {
	r.Helper()
	var files [2]*os.File
	for i := range files {
		f, err := os.CreateTemp(r.home, "said")
		r.must(err)
		defer f.Close()
		files[i] = f
	}
	a := &app{in: os.Stdin, out: files[0], err: files[1], clock: r.clock}
	code = a.run(r.Context(), append([]string{"certificate"}, args...))
	var said [2]string
	for i, f := range files {
		b, err := os.ReadFile(f.Name())
		r.must(err)
		said[i] = string(b)
	}
	return code, said[0], said[1]
}

// inBrowsers checks that each database holds this one certificate and its key, and no other.
func (r *certRig) inBrowsers(serial int64) {
	r.Helper()
	for _, dir := range []string{r.firefox(), filepath.Join(r.home, ".pki", "nssdb")} {
		rest := []byte(r.nss("certutil", "-L", "-d", "sql:"+dir, "-n", "Latchkey alice", "-a"))
		var got []int64
		for {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			c, err := x509.ParseCertificate(b.Bytes)
			r.must(err)
			got = append(got, c.SerialNumber.Int64())
		}
		if len(got) != 1 || got[0] != serial {
			r.Errorf("%s holds %v, want %d", dir, got, serial)
		}
		if keys := r.nss("certutil", "-K", "-d", "sql:"+dir); strings.Count(keys, "Latchkey alice") != 1 || strings.Contains(keys, "orphan") {
			r.Errorf("%s: %s", dir, keys)
		}
	}
}

func TestM4RenewalIsSilent(t *testing.T) {
	r := newCertRig(t)
	quiet := []string{"renew", "--quiet", "--socket", r.socket}
	nothing := func(when string) {
		t.Helper()
		if code, out, errs := r.run(quiet...); code != 0 || out != "" || errs != "" {
			t.Errorf("%s: exit code %d, %q, %q", when, code, out, errs)
		}
	}
	nothing("without a certificate")
	if code, out, errs := r.run("install", "--socket", r.socket, "--no-timer"); code != 0 || !strings.Contains(out, "The certificate of alice is good until") {
		t.Fatalf("%d, %s, %s", code, out, errs)
	}
	r.inBrowsers(1)
	nothing("fresh")
	r.clock.Advance(certLife*2/3 - time.Second)
	nothing("a second before two thirds")
	r.mu.Lock()
	asked := r.asked
	r.mu.Unlock()
	if asked != 1 {
		t.Fatalf("the agent was asked %d times", asked)
	}

	// Nobody has signed in with a second factor since: a line for the log, and again tomorrow.
	r.clock.Advance(2 * time.Second)
	r.refuse(noMFA)
	code, out, errs := r.run(quiet...)
	if code != 0 || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "was not renewed") || !strings.Contains(errs, noMFA) {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	r.inBrowsers(1)
	if code, _, errs := r.run("renew", "--socket", r.socket); code != 1 || !strings.Contains(errs, noMFA) {
		t.Errorf("who is asked by a person says that it did not work: %d, %q", code, errs)
	}

	// Somebody has.
	r.refuse("")
	if code, out, errs = r.run(quiet...); code != 0 || out != "" || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "the certificate of alice was renewed") {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	r.inBrowsers(2)
	nothing("renewed")

	// One that has run out is a failure that the timer's unit shows.
	r.clock.Advance(certLife + time.Second)
	r.refuse(noMFA)
	if code, out, errs = r.run(quiet...); code != 1 || out != "" || !strings.Contains(errs, noMFA) {
		t.Errorf("%d, %q, %q", code, out, errs)
	}
	r.refuse("")
	if code, _, errs = r.run(quiet...); code != 0 {
		t.Errorf("%d, %q", code, errs)
	}
	r.inBrowsers(3)
}

// TestM4TheOneOfBeforeGoesLast: where the new certificate can not be put in, the browsers
// keep the old one.
func TestM4TheOneOfBeforeGoesLast(t *testing.T) {
	r := newCertRig(t)
	if code, _, errs := r.run("install", "--socket", r.socket, "--no-timer"); code != 0 {
		t.Fatal(errs)
	}
	r.clock.Advance(certLife)
	bin := filepath.Join(r.home, "bin")
	r.must(os.Mkdir(bin, 0o700))
	r.must(os.WriteFile(filepath.Join(bin, "pk12util"), []byte("#!/bin/sh\necho the database is locked\nexit 1\n"), 0o700))
	path := os.Getenv("PATH")
	t.Setenv("PATH", bin+":"+path)
	code, _, errs := r.run("renew", "--quiet", "--socket", r.socket)
	if code != 0 || strings.Count(errs, "the database is locked") != 2 {
		t.Errorf("%d, %s", code, errs)
	}
	t.Setenv("PATH", path)
	r.inBrowsers(1)
	if code, _, errs := r.run("install", "--socket", r.socket, "--no-timer"); code != 0 {
		t.Fatal(errs)
	}
	r.inBrowsers(3)
}

// verify shows units to systemd itself.
func verify(t *testing.T, service, timer string) {
	t.Helper()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("without systemd-analyze the units are not shown to systemd")
		return
	}
	dir := t.TempDir()
	for name, unit := range map[string]string{serviceUnit: service, timerUnit: timer} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(unit), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := t.TempDir()
	for _, name := range []string{serviceUnit, timerUnit} {
		cmd := exec.CommandContext(t.Context(), analyze, "verify", "--user", "--man=no", filepath.Join(dir, name))
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+run)
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), units.Name) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestM4SystemdTakesTheUserUnits(t *testing.T) {
	program := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/latchkey certificate renew --quiet$`)
	if !program.MatchString(units.Service) {
		t.Errorf("the packaged unit does not renew:\n%s", units.Service)
	}
	verify(t, program.ReplaceAllString(units.Service, "ExecStart=/bin/true certificate"), units.Timer)
	for _, line := range []string{"OnCalendar=daily", "Persistent=true", "WantedBy=timers.target"} {
		if !strings.Contains(units.Timer, line+"\n") {
			t.Errorf("%s is missing", line)
		}
	}
	if !regexp.MustCompile(`(?m)^RandomizedDelaySec=\d+h$`).MatchString(units.Timer) {
		t.Error("everybody comes at once")
	}
	odd := renewal{program: "/bin/true", file: `/home/a b/50%"$HOME\c.pem`, socket: "/run/x", noBrowser: true}
	service := odd.service()
	for _, want := range []string{
		`ExecStart="/bin/true" "certificate" "renew" "--quiet" "--file" "/home/a b/50%%\"$$HOME\\c.pem" "--socket" "/run/x" "--no-browser"` + "\n",
		`ConditionPathExists=/home/a b/50%%"$HOME\c.pem` + "\n",
	} {
		if !strings.Contains(service, want) {
			t.Errorf("%s is missing in\n%s", want, service)
		}
	}
	verify(t, service, units.Timer)
	if got, want := odd.cron([]byte{61}), `1 14 * * * /bin/true certificate renew --quiet --file '/home/a b/50\%"$HOME\c.pem' --socket /run/x --no-browser`; got != want {
		t.Errorf("cron: %s\nwant  %s", got, want)
	}
}

// TestM4InstallSwitchesTheTimerOn: the systemd here is one that writes down what it is
// told; enable is the real one's, that makes the link.
func TestM4InstallSwitchesTheTimerOn(t *testing.T) {
	r := newCertRig(t)
	real, err := exec.LookPath("systemctl")
	if err != nil {
		t.Fatal("systemctl is not installed (apt-get install systemd)")
	}
	own := filepath.Join(r.home, ".config", "systemd", "user")

	// No systemd of the user's: one sentence, with the line for cron. The exit code is 0, for the certificate is there.
	code, out, errs := r.run("install", "--socket", r.socket)
	if code != 0 || strings.Contains(out, "renewed by itself") || !regexp.MustCompile(`(?m)^latchkey: nothing renews the certificate by itself, .* put this into cron \(crontab -e\): \d+ \d+ \* \* \* \S+ certificate renew --quiet --socket \S+$`).MatchString(errs) {
		t.Errorf("%d, %s, %s", code, out, errs)
	}
	if _, err := os.Stat(own); err == nil {
		t.Error("units were written for nobody")
	}
	if _, out, _ = r.run("show"); !regexp.MustCompile(`Renewal:? +from \d{4}-`).MatchString(out) || !regexp.MustCompile(`Timer:? +none`).MatchString(out) {
		t.Errorf("show says:\n%s", out)
	}

	bin, told := filepath.Join(r.home, "bin"), filepath.Join(r.home, "told")
	r.must(os.Mkdir(bin, 0o700))
	r.must(os.WriteFile(filepath.Join(bin, "systemctl"), fmt.Appendf(nil, `#!/bin/sh
echo "$*" >>%[1]s
case "$2" in
is-system-running) echo degraded; exit 1;;
show) echo "$PACKAGED";;
daemon-reload) ;;
enable) exec %[2]s --user enable latchkey-certificate.timer 2>/dev/null;;
*) exec %[2]s "$@";;
esac
`, told, real), 0o700))
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	code, out, errs = r.run("install", "--socket", r.socket)
	if code != 0 || errs != "" || !strings.Contains(out, "It is renewed by itself from ") {
		t.Errorf("%d, %s, %s", code, out, errs)
	}
	service, err := os.ReadFile(filepath.Join(own, serviceUnit))
	r.must(err)
	timer, err := os.ReadFile(filepath.Join(own, timerUnit))
	r.must(err)
	program, err := os.Executable()
	r.must(err)
	if !strings.Contains(string(service), `ExecStart="`+program+`" "certificate" "renew" "--quiet" "--socket" "`+r.socket+`"`) {
		t.Errorf("the unit:\n%s", service)
	}
	verify(t, string(service), string(timer))
	if at, err := os.Readlink(filepath.Join(own, "timers.target.wants", timerUnit)); err != nil || filepath.Base(at) != timerUnit {
		t.Errorf("the timer is not enabled: %s, %v", at, err)
	}
	b, err := os.ReadFile(told)
	r.must(err)
	if want := "--user daemon-reload\n--user enable --now " + timerUnit + "\n"; !strings.HasSuffix(string(b), want) {
		t.Errorf("systemd was told\n%s", b)
	}
	if _, out, _ = r.run("show"); !regexp.MustCompile(`Timer:? +latchkey-certificate.timer, daily`).MatchString(out) {
		t.Errorf("show says:\n%s", out)
	}

	// Where a package has the units, none are written.
	r.must(os.RemoveAll(own))
	on, problem := false, ""
	t.Setenv("PACKAGED", "/usr/lib/systemd/user/"+timerUnit)
	on, problem = startTimer(t.Context(), renewal{program: program}, []byte{1})
	if _, err := os.Stat(filepath.Join(own, serviceUnit)); err == nil {
		t.Error("units are written over packaged ones")
	}
	// The real one knows of no such package and does not enable it: it says so, and cron is told.
	if on || !strings.Contains(problem, "put this into cron") {
		t.Errorf("%v, %s", on, problem)
	}
}
