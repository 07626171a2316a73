//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Machine is a small Debian in namespaces of its own: mounts (an overlay on /etc
// and /var, fresh /run, /home, /root and /dev), network (only loopback), processes,
// host name. Its users, its services and its log are its own.
type Machine struct {
	*core
	t testing.TB
}

// core is what all views of one machine share.
type core struct {
	// Name is its host name.
	Name string

	init *exec.Cmd // process 1; ends when its standard input does
	pid  int       // of process 1, as seen from outside

	mu      sync.Mutex
	log     []string
	nextUID int
	dropped map[string]bool
	files   atomic.Int64
}

// setup runs as process 1. $1 is an empty folder, $2 the host name, $3 a mark by
// which the machine is known again.
const setup = `set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs "$1"
cd "$1"
mkdir etc etc.work var var.work home root dev
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/etc.work" /etc
mount -t overlay overlay -o "lowerdir=/var,upperdir=$1/var,workdir=$1/var.work" /var
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/lock /run/latchkey /run/sudo /etc/latchkey
echo "$3" >/run/e2e-mark
mount --bind "$1/home" /home
mount --bind "$1/root" /root
chmod 700 /root
for d in null zero full random urandom tty; do : >dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/pts dev/shm
mount --bind /dev/pts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin; ln -s fd/1 dev/stdout; ln -s fd/2 dev/stderr
mknod -m 666 dev/ptmx c 5 2 # not bound: it looks for pts beside itself
mount --rbind dev /dev
# Its users are its own: whoever has an account on this host has none here.
for u in $(awk -F: '$3 >= 1000 && $3 < 65534 { print $1 }' /etc/passwd /etc/group | sort -u); do
	for f in passwd shadow group gshadow subuid subgid; do [ ! -e /etc/$f ] || sed -i "/^$u:/d" /etc/$f; done
done
hostname "$2"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$2" >/etc/hosts
: >/etc/resolv.conf
rm -f /var/run/utmp /run/nologin /etc/nologin
for f in /var/log/wtmp /var/log/btmp /var/log/lastlog /run/utmp; do : >$f; done
ip link set lo up
echo ready
exec cat`

// Root is the root of the repository.
var Root = func() string {
	_, file, _, _ := runtime.Caller(0)
	if filepath.IsAbs(file) {
		return filepath.Dir(filepath.Dir(filepath.Dir(file)))
	}
	// Built with -trimpath: tests run in their package's folder.
	dir, err := os.Getwd()
	for err == nil {
		if _, e := os.Stat(filepath.Join(dir, "go.mod")); e == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	return "" // outside of the repository; what is looked for there will be missed
}()

// Program is the absolute path of a program or module in bin/.
func Program(t testing.TB, name string) string { return built(t, "bin", name, "make build") }

// TestProgram is the absolute path of a program built with `-tags latchkey_test`.
func TestProgram(t testing.TB, name string) string {
	return built(t, ".cache/bin-test", name, "scripts/build --test")
}

func built(t testing.TB, dir, name, how string) string {
	t.Helper()
	p := filepath.Join(Root, dir, name)
	if _, err := os.Stat(p); err != nil {
		t.Fatalf("%s is not there; run %s first (%v)", filepath.Join(dir, name), how, err)
	}
	return p
}

var machines atomic.Int64

// NewMachine makes a machine that lives as long as the test.
func NewMachine(t testing.TB) *Machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests make namespaces, users and mounts: run them as root with CAP_SYS_ADMIN")
	}
	m := &Machine{&core{Name: fmt.Sprintf("m%d", machines.Add(1)), nextUID: 20001, dropped: map[string]bool{}}, t}
	dir, err := os.MkdirTemp("", "latchkey-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	m.init = exec.Command("/bin/sh", "-c", setup, "sh", dir, m.Name, dir)
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	var complaint bytes.Buffer
	m.init.Stderr = &complaint
	in, err1 := m.init.StdinPipe()
	out, err2 := m.init.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if err := m.init.Start(); err != nil {
		os.Remove(dir)
		t.Fatalf("no namespaces can be made here (CAP_SYS_ADMIN is needed): %v", err)
	}
	m.pid = m.init.Process.Pid
	t.Cleanup(func() {
		in.Close()
		m.init.Process.Kill()
		m.pid = 0 // the number may soon be somebody else's
		m.init.Wait()
		os.Remove(dir)
		if t.Failed() {
			t.Logf("system log of %s:\n%s", m.Name, strings.Join(m.Syslog(), "\n"))
		}
	})
	line := make([]byte, 6)
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
		m.init.Process.Kill()
		m.init.Wait()
		t.Fatalf("the machine could not be made (CAP_SYS_ADMIN is needed): %s", complaint.String())
	}
	// In a PID namespace whose /proc is that of another, the number would name a
	// process of the host, and what is done to the machine would be done to the host.
	if mark, err := os.ReadFile(m.Path("/run/e2e-mark")); err != nil || strings.TrimSpace(string(mark)) != dir {
		t.Fatalf("/proc/%d is not the machine: /proc must be that of the PID namespace in which the tests run (%v)", m.pid, err)
	}
	m.listenSyslog()
	return m
}

// In is the same machine for a subtest: what fails, and what is cleaned up, is the
// subtest's.
func (m *Machine) In(t testing.TB) *Machine { return &Machine{m.core, t} }

// Path is where the test finds a file of the machine.
func (m *Machine) Path(file string) string {
	return filepath.Join("/proc", strconv.Itoa(m.pid), "root", file)
}

// Write writes a file in the machine, owned by root; its folder is made.
func (m *Machine) Write(file, content string, mode os.FileMode) {
	m.t.Helper()
	p := m.Path(file)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		m.t.Fatal(err)
	}
}

// Read reads a file of the machine.
func (m *Machine) Read(file string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.Path(file))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// inside prefixes argv so that it runs in the machine as the user ("" is root).
func (m *Machine) inside(user string, argv []string) []string {
	// With -r: where the tests run in a chroot, the namespace's root is not the machine's.
	cmd := []string{"nsenter", "-t", strconv.Itoa(m.pid), "-m", "-r", "-n", "-p", "-u", "-i", "--"}
	home, name := "/root", "root"
	if user != "" {
		home, name = "/home/"+user, user
		cmd = append(cmd, "setpriv", "--reuid", user, "--regid", user, "--init-groups", "--")
	}
	cmd = append(cmd, "env", "-i", "-C", "/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"TERM=dumb", "LANG=C.UTF-8", "PS1=$ ", "HOME="+home, "USER="+name, "LOGNAME="+name)
	return append(cmd, argv...)
}

// Run runs a command as root to its end and returns what it printed; the test
// fails if it fails.
func (m *Machine) Run(argv ...string) string {
	m.t.Helper()
	out, err := m.Try(argv...)
	if err != nil {
		m.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return out
}

// Try is Run that returns the error.
func (m *Machine) Try(argv ...string) (string, error) { return m.TryInput("", argv...) }

// TryInput is Try with text at standard input, which then ends.
func (m *Machine) TryInput(input string, argv ...string) (string, error) {
	return m.TryAs("", input, argv...)
}

// TryAs is TryInput as a user.
func (m *Machine) TryAs(user, input string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	argv = m.inside(user, argv)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = time.Second
	// No terminal of the person who runs the tests: sudo would open it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Process is a program that runs in a machine.
type Process struct {
	m    *Machine
	name string
	cmd  *exec.Cmd
	pid  string // as seen inside
	done chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

// Start starts a command as root; it ends with the machine at the latest. What it
// prints is shown when the test fails.
func (m *Machine) Start(argv ...string) *Process { return m.StartEnv(nil, argv...) }

// StartEnv is Start with additions to the environment ("KEY=value").
func (m *Machine) StartEnv(env []string, argv ...string) *Process {
	m.t.Helper()
	p := &Process{m: m, name: filepath.Base(argv[0]), done: make(chan struct{})}
	pidfile := fmt.Sprintf("/run/e2e-%d.pid", m.files.Add(1))
	full := append([]string{"env"}, env...)
	full = append(full, "sh", "-c", `echo $$ >"$0.new"; mv "$0.new" "$0"; exec "$@"`, pidfile)
	full = m.inside("", append(full, argv...))
	p.cmd = exec.Command(full[0], full[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = time.Second // its children may hold its output open
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	m.t.Cleanup(func() {
		if p.Running() {
			p.Kill("KILL")
		}
		if m.t.Failed() {
			m.t.Logf("%s printed:\n%s", p.name, p.Output())
		}
	})
	m.Until(10*time.Second, p.name+" starts", func() bool {
		b, err := os.ReadFile(m.Path(pidfile))
		p.pid = strings.TrimSpace(string(b))
		return err == nil
	})
	return p
}

// Write takes the output of the program.
func (p *Process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// Output is what the program has printed so far.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// Running tells whether it has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Kill sends a signal ("TERM", "KILL", "STOP", …); for TERM and KILL it waits for
// the end.
func (p *Process) Kill(signal string) {
	p.m.t.Helper()
	out, err := p.m.Try("kill", "-s", signal, p.pid)
	if err != nil && p.Running() {
		p.m.t.Fatalf("kill -s %s %s: %v %s", signal, p.name, err, out)
	}
	if signal != "TERM" && signal != "KILL" {
		return
	}
	select {
	case <-p.done:
	case <-time.After(15 * time.Second):
		p.m.t.Fatalf("%s does not end at SIG%s", p.name, signal)
	}
}

// Exit waits for the end and returns the exit status, -1 after a signal.
func (p *Process) Exit(within time.Duration) int {
	p.m.t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		p.m.t.Fatalf("%s runs longer than %v", p.name, within)
		return -1
	}
}

// Until waits until something is so; the test fails if it does not become so.
func (m *Machine) Until(within time.Duration, what string, so func() bool) {
	m.t.Helper()
	for end := time.Now().Add(within); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			m.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// AddUser makes a user with a home folder, the shell /bin/sh and a password of the
// machine's own; an empty password locks it. It returns the uid.
func (m *Machine) AddUser(name, password string) int {
	m.t.Helper()
	m.mu.Lock()
	uid := m.nextUID
	m.nextUID++
	m.mu.Unlock()
	m.Run("useradd", "-m", "-s", "/bin/sh", "-u", strconv.Itoa(uid), name)
	if password != "" {
		m.SetPassword(name, password)
	}
	return uid
}

// SetPassword sets the machine's own password of a user.
func (m *Machine) SetPassword(name, password string) {
	m.t.Helper()
	// Hashed cheaply and not through PAM, whose stacks may be under test.
	hash, err := m.TryInput(password+"\n", "openssl", "passwd", "-6", "-stdin")
	if err != nil {
		m.t.Fatalf("openssl passwd: %v %s", err, hash)
	}
	m.Run("usermod", "-p", strings.TrimSpace(hash), name)
}

// PAM writes the stack of a service. The name pam_latchkey.so in it becomes the
// absolute path of the module in bin/.
func (m *Machine) PAM(service, stack string) {
	m.t.Helper()
	m.Write("/etc/pam.d/"+service, strings.ReplaceAll(stack, "pam_latchkey.so", Program(m.t, "pam_latchkey.so")), 0o644)
}

// Shipped is the stack of a file in packaging/pam, with options added to every
// line of the module.
func (m *Machine) Shipped(file string, options ...string) string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(Root, "packaging", "pam", file))
	if err != nil {
		m.t.Fatal(err)
	}
	s := string(b)
	for _, o := range options {
		s = strings.ReplaceAll(s, "pam_latchkey.so", "pam_latchkey.so "+o)
	}
	return s
}

// listenSyslog takes what programs in the machine send to /dev/log.
func (m *Machine) listenSyslog() {
	m.t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.Path("/dev/log"), Net: "unixgram"})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(m.Path("/dev/log"), 0o666); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 8192)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.log = append(m.log, string(b[:n]))
			m.mu.Unlock()
		}
	}()
}

// Syslog is what the machine's programs have logged: "<priority>date name: text".
func (m *Machine) Syslog() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.log...)
}

// Logged tells whether a line of the system log holds all the texts; it waits a
// little for it.
func (m *Machine) Logged(texts ...string) bool {
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, l := range m.Syslog() {
			all := true
			for _, t := range texts {
				all = all && strings.Contains(l, t)
			}
			if all {
				return true
			}
		}
	}
	return false
}

// networkOnly runs a command outside of everything of the machine but its network.
func (m *Machine) networkOnly(argv ...string) (string, error) {
	argv = append([]string{"-t", strconv.Itoa(m.pid), "-n", "--"}, argv...)
	out, err := exec.Command("nsenter", argv...).CombinedOutput()
	return string(out), err
}
