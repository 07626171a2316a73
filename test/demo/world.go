package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// world is the private folder, and with root the private namespace, in which server, agent and sign-ins live.
type world struct {
	ctx     context.Context
	dir     string // everything that is written
	bin     string // the release programs
	private bool   // in namespaces of its own, as root: sign-ins go through PAM
	user    string // who signs in

	server, agent, tpm *process
	noTPM              bool // play as a machine without one
	tpmArg             string
	people, machines   string // listeners
}

// The names of the story.
const (
	machineName = "demo-laptop"
	password    = "correct horse battery staple"
)

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}
func (w *world) adminSocket() string { return w.path("server", "admin.sock") }
func (w *world) agentSocket() string { return w.path("agent.sock") }

// enter makes the namespace a machine of its own: its own /etc, /run, /home, loopback and users. Nothing of it is left
// when the last process is gone.
func (w *world) enter() error {
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	steps := [][]string{
		{"mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", w.dir},
		{"mkdir", w.path("up"), w.path("work"), w.path("home")},
		{"mount", "-t", "overlay", "overlay", "-o", "lowerdir=/etc,upperdir=" + w.path("up") + ",workdir=" + w.path("work"), "/etc"},
		{"mount", "--bind", w.path("home"), "/home"},
		{"mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"},
		{"mount", "-t", "tmpfs", "tmpfs", "/var/log"},
		{"hostname", machineName},
		{"ip", "link", "set", "lo", "up"},
	}
	for _, s := range steps {
		if out, err := exec.CommandContext(w.ctx, s[0], s[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(s, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// addUser makes the account on the machine; its password there is locked, so that only the server's counts.
func (w *world) addUser() error {
	out, err := exec.CommandContext(w.ctx, "useradd", "--create-home", "--shell", "/bin/sh", "--no-log-init", w.user).CombinedOutput()
	if err != nil {
		return fmt.Errorf("useradd: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// stacks writes the PAM services of the namespace out of the stack that is shipped, with the module and socket of the demo.
func (w *world) stacks() error {
	b, err := os.ReadFile(filepath.Join(w.bin, "..", "packaging", "pam", "latchkey-full"))
	if err != nil {
		return err
	}
	body := strings.ReplaceAll(string(b), " pam_latchkey.so", " "+filepath.Join(w.bin, "pam_latchkey.so")+" socket="+w.agentSocket())
	for _, service := range []string{"login", "sudo"} {
		if err := os.WriteFile(filepath.Join("/etc/pam.d", service), []byte(body), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// process is a program that runs beside the story.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// start runs a program in the background, its output in a log of its own.
func (w *world) start(name string, argv ...string) (*process, error) {
	p := &process{log: w.path(name + ".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// stop ends a program politely, then not.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// tail is the end of a program's log, for a step that went wrong.
func (p *process) tail(n int) string {
	if p == nil {
		return ""
	}
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// errEnded ends a wait at once: what is waited for can not come any more.
var errEnded = errors.New("the program has ended by itself")

// until waits for cond, looking ten times a second.
func (w *world) until(what string, limit time.Duration, cond func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := cond()
		if err == nil {
			return nil
		}
		if w.ctx.Err() != nil {
			return w.ctx.Err()
		}
		if errors.Is(err, errEnded) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// freePort finds a port on loopback that nobody has now.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startServer starts latchkeyd and waits until its admin socket answers.
func (w *world) startServer() error {
	var err error
	if w.people == "" {
		if w.people, err = freePort(); err != nil {
			return err
		}
		if w.machines, err = freePort(); err != nil {
			return err
		}
	}
	w.server, err = w.start("server", filepath.Join(w.bin, "latchkeyd"), "serve", "--data", w.path("server"),
		"--listen", w.people, "--listen-agent", w.machines)
	if err != nil {
		return err
	}
	return w.until("the server starts", 30*time.Second, func() error {
		if !w.server.running() {
			return errEnded
		}
		_, err := w.cli("user", "list", "--output", "json")
		return err
	})
}

// startTPM starts an emulated TPM where the emulator is installed; w.tpmArg then names it to the agent.
func (w *world) startTPM() (string, error) {
	if w.noTPM {
		w.tpmArg = "none"
		return "no TPM: a memory-hard hash stands in", nil
	}
	w.tpmArg = "auto"
	if _, err := os.Stat("/dev/tpmrm0"); err == nil && os.Geteuid() == 0 && !w.private {
		return "this machine's own TPM", nil
	}
	if _, err := exec.LookPath("swtpm"); err != nil {
		w.tpmArg = "none"
		return "no TPM: a memory-hard hash stands in (install swtpm to see the other)", nil
	}
	state, sock := w.path("tpm"), w.path("tpm.sock")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return "", err
	}
	var err error
	w.tpm, err = w.start("tpm", "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+state,
		"--server", "type=unixio,path="+sock, "--flags", "not-need-init,startup-clear")
	if err != nil {
		return "", err
	}
	w.tpmArg = "socket:" + sock
	return "an emulated TPM 2.0", w.until("the TPM starts", 10*time.Second, func() error {
		_, err := os.Stat(sock)
		return err
	})
}

// join gives the machine its identity, once.
func (w *world) join() error {
	out, err := w.cli("machine", "token", "--name", machineName, "--server-url", "https://"+w.machines, "--output", "json")
	if err != nil {
		return err
	}
	var tok struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(out, &tok); err != nil || tok.Token == "" {
		return fmt.Errorf("no token in %s (%v)", out, err)
	}
	out, err = w.run(filepath.Join(w.bin, "latchkey-agent"), "join", tok.Token, "--state", w.path("agent"), "--tpm", w.tpmArg)
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// startAgent starts the agent and waits until it says that its link is up.
func (w *world) startAgent() error {
	var err error
	w.agent, err = w.start("agent", filepath.Join(w.bin, "latchkey-agent"), "run", "--state", w.path("agent"),
		"--socket", w.agentSocket(), "--tpm", w.tpmArg)
	if err != nil {
		return err
	}
	return w.waitLink("up", 30*time.Second)
}

// waitLink waits until the agent's own status says that the link is in the state.
func (w *world) waitLink(state string, limit time.Duration) error {
	return w.until("the link is "+state, limit, func() error {
		if !w.agent.running() {
			return errEnded
		}
		st, err := w.status()
		if err != nil {
			return err
		}
		if st.Link != state {
			return fmt.Errorf("it is %s", st.Link)
		}
		return nil
	})
}

// status is what the story reads of `latchkey status`.
type status struct {
	Link    string `json:"link"`
	Offline struct {
		Class string `json:"class"` // "tpm" or "software"
		Users []struct {
			User     string `json:"user"`
			Enrolled bool   `json:"enrolled"`
			Class    string `json:"class"`
		} `json:"users"`
	} `json:"offline"`
}

// class tells how the person's offline data is kept on the machine.
func (w *world) class() (string, error) {
	st, err := w.status()
	if err != nil {
		return "", err
	}
	for _, u := range st.Offline.Users {
		if u.User == w.user && u.Enrolled {
			return u.Class, nil
		}
	}
	return "", errors.New("the agent does not list " + w.user + " as enrolled")
}

func (w *world) status() (status, error) {
	var st status
	out, err := w.run(filepath.Join(w.bin, "latchkey"), "status", "--socket", w.agentSocket(), "--output", "json")
	if err != nil {
		return st, fmt.Errorf("%w: %s", err, out)
	}
	return st, json.Unmarshal(out, &st)
}

// cli runs the command that administrators type, against the server's root-only socket.
func (w *world) cli(args ...string) ([]byte, error) {
	return w.cliWith("", args...)
}

func (w *world) cliWith(stdin string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "latchkey"), append([]string{"--server", "unix:" + w.adminSocket()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("latchkey %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out.Bytes(), nil
}

func (w *world) run(name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(w.ctx, 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("%s: %w: %s", filepath.Base(name), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out.Bytes(), nil
}

// cut takes the server away. In the namespace its packets are dropped, the worst way to be gone: nothing is refused, all
// is silence. Elsewhere the server is frozen, which answers as little.
func (w *world) cut() error {
	if !w.private {
		return w.server.cmd.Process.Signal(syscall.SIGSTOP)
	}
	_, port, err := net.SplitHostPort(w.machines)
	if err != nil {
		return err
	}
	rules := "table inet demo {\nchain cut {\ntype filter hook input priority 0\ntcp dport " + port + " drop\ntcp sport " + port + " drop\n}\n}\n"
	cmd := exec.CommandContext(w.ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// mend brings the server back.
func (w *world) mend() error {
	if !w.private {
		return w.server.cmd.Process.Signal(syscall.SIGCONT)
	}
	if out, err := exec.CommandContext(w.ctx, "nft", "delete", "table", "inet", "demo").CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (w *world) close() {
	w.agent.stop()
	w.server.stop()
	w.tpm.stop()
}

// signInArgs is how a person at this machine signs in: through PAM, or without root through the agent's socket.
func (w *world) signInArgs(service string) []string {
	if w.private {
		return []string{"pamtester", "-I", "tty=/dev/tty1", "-I", "ruser=" + w.user, service, w.user, "authenticate", "acct_mgmt"}
	}
	return []string{filepath.Join(w.bin, "latchkey"), "signin", w.user, "--service", service, "--socket", w.agentSocket()}
}
