package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"latchkey/internal/otp"
	"latchkey/internal/rest"
	"latchkey/internal/wire"
)

// bundles measures what offline data costs: at the server for 7 and 30 days, and on a machine whose TPM is an emulator.
func bundles(ctx context.Context, o *options, r *report) (err error) {
	r.begin("offline data")
	w, err := newWorld(o, "sqlite")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	f, err := w.fill(ctx, stock{users: 2})
	if err != nil {
		return err
	}
	if err := w.serve(ctx); err != nil {
		return err
	}
	m, err := w.join(ctx, 0)
	if err != nil {
		return err
	}
	defer m.close()
	for i, days := range []int{7, 30} {
		if err := w.bundle(ctx, o, r, m, f.people[i], days); err != nil {
			return fmt.Errorf("%d days: %w", days, err)
		}
	}
	return w.inTPM(ctx, r)
}

func (w *world) offlineDays(ctx context.Context, days int) error {
	b, err := json.Marshal(map[string]int{"offline_days": days})
	if err != nil {
		return err
	}
	return w.call(ctx, http.MethodPatch, "/policies/default", rest.PolicyChange{Settings: b}, nil)
}

// bundle measures the request for tags.
func (w *world) bundle(ctx context.Context, o *options, r *report, m *machine, p *person, days int) error {
	if err := w.offlineDays(ctx, days); err != nil {
		return err
	}
	code, ok := p.code(time.Now())
	if !ok {
		return errors.New("no code is left")
	}
	_, conversation, err := m.signin(ctx, p, code)
	if err != nil {
		return err
	}
	var prepared wire.PrepareReply
	if _, err := m.call(ctx, http.MethodPost, wire.PathPrepare, wire.Prepare{Conversation: conversation, Class: "software", HavePassword: true}, &prepared); err != nil {
		return err
	}
	if prepared.Action != wire.ActionGeneration {
		return fmt.Errorf("the server answers %q %s", prepared.Action, prepared.Reason)
	}
	if _, err := m.call(ctx, http.MethodPost, wire.PathReady, wire.Ready{Conversation: conversation, UserID: prepared.UserID, Generation: prepared.Generation}, nil); err != nil {
		return err
	}
	ask := func(what string, have map[string]int64, n int) error {
		before, err := w.clocks()
		if err != nil {
			return err
		}
		var times []time.Duration
		size := 0
		for range n {
			begun := time.Now()
			var reply wire.BundleReply
			var err error
			size, err = m.call(ctx, http.MethodPost, wire.PathBundle, wire.BundleRequest{UserID: prepared.UserID, Generation: prepared.Generation, Have: have}, &reply)
			var slow *refusal
			if errors.As(err, &slow) && slow.status == http.StatusTooManyRequests {
				time.Sleep(100 * time.Millisecond)
				continue
			}
			if err != nil {
				return err
			}
			if size < 100 {
				return fmt.Errorf("a bundle of %d octets", size)
			}
			times = append(times, time.Since(begun))
		}
		after, err := w.clocks()
		if err != nil {
			return err
		}
		r.add(what+": on the wire", float64(size)/1e3, "KB", "")
		r.add("  until it is there", ms(quantile(times, .5)), "ms", after.minus(before).share(len(times)))
		return nil
	}
	n := 30
	if o.short {
		n = 3
	}
	if err := ask(fmt.Sprintf("bundle of %d days, one authenticator, all of it", days), nil, n); err != nil {
		return err
	}
	// What a machine lacks a day later.
	factors := rest.Page[rest.Factor]{}
	if err := w.call(ctx, http.MethodGet, "/users/"+p.name+"/factors", nil, &factors); err != nil {
		return err
	}
	have := map[string]int64{}
	for _, f := range factors.Items {
		have[strings.TrimPrefix(f.ID, rest.FactorPrefix)] = app.Step(time.Now().Add(time.Duration(days-1) * 24 * time.Hour))
	}
	return ask(fmt.Sprintf("bundle of %d days, the one day that is missing", days), have, n)
}

// inTPM plays a day of a machine with the real agent and an emulated TPM, and counts the TPM's commands.
func (w *world) inTPM(ctx context.Context, r *report) (err error) {
	if _, err := exec.LookPath("swtpm"); err != nil {
		r.add("TPM commands: left out", 0, "", "swtpm is not installed")
		return nil
	}
	const name, password = "tina", "a long enough password 1"
	if err := w.offlineDays(ctx, 7); err != nil {
		return err
	}
	if err := w.call(ctx, http.MethodPost, "/users", map[string]string{"name": name, "password": password}, nil); err != nil {
		return err
	}
	var t rest.TOTP
	if err := w.call(ctx, http.MethodPost, "/users/"+name+"/factors/totp", rest.NewTOTP{}, &t); err != nil {
		return err
	}
	u, err := url.Parse(t.URI.Show())
	if err != nil {
		return err
	}
	seed, err := otp.ParseSeed(u.Query().Get("secret"))
	if err != nil {
		return err
	}
	tina := &person{name: name, seed: seed}

	emulator, err := w.startTPM()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, emulator.close()) }()
	spec := "socket:" + emulator.path
	state, socket := filepath.Join(w.dir, "agent"), filepath.Join(w.dir, "agent.sock")
	var token rest.Token
	if err := w.call(ctx, http.MethodPost, "/machine-tokens", rest.NewToken{ServerURL: "https://" + w.machines}, &token); err != nil {
		return err
	}
	morning, err := w.clocks()
	if err != nil {
		return err
	}
	join := exec.CommandContext(ctx, filepath.Join(w.bin, "latchkey-agent"), "join", "-", "--state", state, "--tpm", spec)
	join.Stdin = strings.NewReader(token.Token.Show() + "\n")
	begun := time.Now()
	if out, err := join.CombinedOutput(); err != nil {
		return fmt.Errorf("join: %w: %s", err, out)
	}
	r.add("join with a machine key in the TPM", time.Since(begun).Seconds(), "s", emulator.since())
	agent, err := start(exec.Command(filepath.Join(w.bin, "latchkey-agent"), "run", "--state", state, "--tpm", spec, "--socket", socket,
		"--break-glass", filepath.Join(w.dir, "nobody"), "--log", "json"), filepath.Join(w.dir, "agent.log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, agent.stop(syscall.SIGTERM)) }()
	for range 200 {
		if _, err = os.Stat(socket); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	time.Sleep(2 * time.Second) // hello, policy
	emulator.since()

	signin := func() (time.Duration, error) {
		for {
			code, ok := tina.code(time.Now())
			if !ok {
				time.Sleep(time.Second)
				continue
			}
			c := exec.CommandContext(ctx, filepath.Join(w.bin, "latchkey"), "signin", name, "--service", "login", "--scope", "elevation", "--tty", "tty1", "--socket", socket)
			c.Stdin = strings.NewReader(password + "\n" + code + "\n")
			begun := time.Now()
			out, err := c.CombinedOutput()
			if err != nil {
				return 0, fmt.Errorf("sign-in: %w: %s; the agent's log ends: %s", err, out, agent.tail())
			}
			return time.Since(begun), nil
		}
	}
	enrolled := func() error {
		for range 300 {
			var page rest.Page[rest.OfflineEntry]
			if err := w.call(ctx, http.MethodGet, "/offline?user="+name, nil, &page); err != nil {
				return err
			}
			if len(page.Items) == 1 && page.Items[0].State == "active" && emulator.quiet() {
				return nil
			}
			time.Sleep(50 * time.Millisecond)
		}
		return errors.New("the machine was not enrolled: " + agent.tail())
	}
	before, err := w.clocks()
	if err != nil {
		return err
	}
	begun = time.Now()
	took, err := signin()
	if err != nil {
		return err
	}
	if err := enrolled(); err != nil {
		return err
	}
	after, err := w.clocks()
	if err != nil {
		return err
	}
	whole := after.minus(morning).server
	r.add("10 000 machines in a morning, calculated: join, connect, a sign-in with password, 7 days of tags", 10_000*whole.Minutes(), "min",
		"of one core of the server, "+short(ms(whole))+" ms for each; in 4 hours that is "+short(100*10_000*whole.Hours()/4)+" % of a core")
	r.add("first sign-in online, Argon2id at the server", took.Seconds(), "s", "")
	r.add("  until offline data is on the machine, behind the answer", (time.Since(begun) - took - quietTime).Seconds(), "s",
		emulator.since()+", "+after.minus(before).share(1))
	if _, err = signin(); err != nil {
		return err
	}
	time.Sleep(2 * time.Second) // the answer comes first
	if err := enrolled(); err != nil {
		return err
	}
	lifted := emulator.commands.Load() - emulator.told.commands
	r.add("second sign-in online: counters lifted, nothing missing", float64(lifted), "commands", emulator.since())
	time.Sleep(10 * time.Second) // what a derivation takes is given back
	u2, err := usedBy(agent.cmd.Process.Pid)
	if err != nil {
		return err
	}
	r.add("agent's memory, idle, one user enrolled", u2.rss/1e6, "MB", "")

	if err := w.pause(); err != nil {
		return err
	}
	defer func() { w.server = nil }()
	time.Sleep(time.Second)
	emulator.since()
	if took, err = signin(); err != nil {
		return err
	}
	r.add("sign-in offline, Argon2id on the machine", took.Seconds(), "s", emulator.since())
	return nil
}

// emulator is a swtpm behind a relay that counts its commands.
type emulator struct {
	*process
	path     string
	listener net.Listener
	commands atomic.Int64
	busy     atomic.Int64 // nanoseconds
	last     atomic.Int64 // unix nanoseconds
	told     struct{ commands, busy int64 }
}

func (w *world) startTPM() (*emulator, error) {
	dir := filepath.Join(w.dir, "tpm")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	behind := filepath.Join(dir, "s")
	e := &emulator{path: filepath.Join(dir, "relay")}
	var err error
	e.process, err = start(exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+behind, "--flags", "startup-clear"), filepath.Join(w.dir, "tpm.log"))
	if err != nil {
		return nil, err
	}
	for range 100 {
		if _, err = os.Stat(behind); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if e.listener, err = net.Listen("unix", e.path); err != nil {
		return nil, err
	}
	go e.relay(behind)
	return e, nil
}

// relay serves one connection at a time, as the emulator does. swtpm ends when its connection ends: the relay keeps one.
func (e *emulator) relay(behind string) {
	up, err := net.Dial("unix", behind)
	if err != nil {
		return
	}
	defer up.Close()
	for {
		c, err := e.listener.Accept()
		if err != nil {
			return
		}
		e.pass(c, up)
		_ = c.Close()
	}
}

func (e *emulator) pass(c, up net.Conn) {
	for {
		command, err := packet(c)
		if err != nil {
			return
		}
		begun := time.Now()
		if _, err := up.Write(command); err != nil {
			return
		}
		answer, err := packet(up)
		if err != nil {
			return
		}
		e.commands.Add(1)
		e.busy.Add(int64(time.Since(begun)))
		e.last.Store(time.Now().UnixNano())
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// packet reads a TPM's command or answer: two octets of tag, four of the length of all.
func packet(r io.Reader) ([]byte, error) {
	head := make([]byte, 10)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[2:])
	if n < 10 || n > 1<<16 {
		return nil, fmt.Errorf("a packet of %d octets", n)
	}
	rest := make([]byte, n-10)
	_, err := io.ReadFull(r, rest)
	return append(head, rest...), err
}

// since tells what the TPM has done since it was asked last.
func (e *emulator) since() string {
	c, b := e.commands.Load(), e.busy.Load()
	s := fmt.Sprintf("%d TPM commands, %s ms in the emulator", c-e.told.commands, short(ms(time.Duration(b-e.told.busy))))
	e.told.commands, e.told.busy = c, b
	return s
}

const quietTime = 700 * time.Millisecond

// quiet tells whether the TPM has had nothing to do for a while.
func (e *emulator) quiet() bool {
	return time.Since(time.Unix(0, e.last.Load())) > quietTime
}

func (e *emulator) close() error {
	_ = e.listener.Close()
	return e.stop(syscall.SIGTERM)
}
