package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"latchkey/internal/rest"
)

// world is a folder with one server of the release build, and the database that it needs.
type world struct {
	dir      string
	bin      string
	database string // empty: SQLite in the data folder
	postgres *process
	server   *process
	admin    *http.Client
	machines string // address of the machines' door
	people   string // of the people's, which is the phones'
	metrics  string
	keep     bool
}

// process is a child with its own log.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

func start(cmd *exec.Cmd, log string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if cmd.Stdout == nil {
		cmd.Stdout = f
	}
	cmd.Stderr = f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() { p.err = cmd.Wait(); close(p.done) }()
	return p, nil
}

func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-2000):])
}

// stop ends the process: with the signal, and by force when it does not go.
func (p *process) stop(sig syscall.Signal) error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
		return nil
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within 20 s; its log ends: %s", filepath.Base(p.cmd.Path), p.tail())
	}
}

func newWorld(o *options, engine string) (w *world, err error) {
	dir, err := os.MkdirTemp("/tmp", "latchkey-load-") // a socket's path is short
	if err != nil {
		return nil, err
	}
	w = &world{dir: dir, bin: o.bin, keep: o.keep}
	if engine == "postgresql" {
		if err := w.startPostgres(); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	return w, nil
}

func (w *world) close() error {
	err := w.server.stop(syscall.SIGTERM)
	err = errors.Join(err, w.postgres.stop(syscall.SIGINT))
	if w.keep {
		fmt.Fprintln(os.Stderr, "left behind:", w.dir)
		return err
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

func (w *world) data() string { return filepath.Join(w.dir, "data") }

// serve starts the server and waits until it serves.
func (w *world) serve(ctx context.Context) error {
	args := []string{
		"serve", "--data", w.data(), "--listen", "127.0.0.1:0", "--listen-agent", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
		"--admin-socket", filepath.Join(w.dir, "admin.sock"), "--log", "json",
	}
	if w.database != "" {
		args = append(args, "--database", w.database)
	}
	_ = os.Remove(filepath.Join(w.data(), "serve.json"))
	cmd := exec.Command(filepath.Join(w.bin, "latchkeyd"), args...)
	var err error
	if w.server, err = start(cmd, filepath.Join(w.dir, "server.log")); err != nil {
		return err
	}
	var at struct {
		Listen  string `json:"listen_agent"`
		People  string `json:"listen"`
		Admin   string `json:"admin_socket"`
		Metrics string `json:"metrics"`
	}
	for {
		b, err := os.ReadFile(filepath.Join(w.data(), "serve.json"))
		if err == nil && json.Unmarshal(b, &at) == nil && at.Listen != "" {
			break
		}
		select {
		case <-w.server.done:
			return fmt.Errorf("the server did not start: %s", w.server.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	w.machines, w.people, w.metrics = at.Listen, at.People, at.Metrics
	w.admin = &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", at.Admin)
		},
		MaxIdleConnsPerHost: 64,
	}}
	// serve.json is written a moment before the first answer.
	for range 500 {
		res, err := w.admin.Get("http://latchkey/readyz")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("the server is not ready: %s", w.server.tail())
}

// pause stops the server, to start it again later.
func (w *world) pause() error {
	err := w.server.stop(syscall.SIGTERM)
	w.server = nil
	return err
}

// call makes one request of an administrator.
func (w *world) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://latchkey"+rest.Base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := w.admin.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode > 299 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// events is how many events of a type the server has counted since it started, and with that outcome where one is given.
func (w *world) events(ctx context.Context, typ, outcome string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.metrics+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "latchkey_events_total{") || !strings.Contains(line, `type="`+typ+`"`) || !strings.Contains(line, `outcome="`+outcome) {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

// startPostgres runs a PostgreSQL of its own, durable as it comes out of the box.
func (w *world) startPostgres() error {
	bin, err := postgresBin()
	if err != nil {
		return err
	}
	dir := filepath.Join(w.dir, "pg")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(w.dir, 0o711); err != nil { //nolint:gosec // the account postgres walks through
		return err
	}
	attr := &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the measuring program, which stops it in order
	if os.Getuid() == 0 {                       // initdb refuses root
		uid, gid, err := account("postgres")
		if err != nil {
			return err
		}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return err
		}
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.SysProcAttr, c.Dir, c.Env = attr, dir, []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
		return c
	}
	data := filepath.Join(dir, "data")
	out, err := command("initdb", "-D", data, "-U", "latchkey", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	w.postgres, err = start(command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "max_connections=100"), filepath.Join(w.dir, "postgres.log"))
	if err != nil {
		return err
	}
	for range 500 {
		out, err = command("psql", "-h", dir, "-U", "latchkey", "-d", "postgres", "-c", "CREATE DATABASE latchkey").CombinedOutput()
		if err == nil {
			w.database = "postgres://latchkey@/latchkey?host=" + dir
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("PostgreSQL does not answer: %s", out)
}

var errNoPostgres = errors.New("there is no PostgreSQL in /usr/lib/postgresql: install the package postgresql")

func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errNoPostgres
	}
	version := func(p string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
		return n
	}
	slices.SortFunc(found, func(a, b string) int { return version(b) - version(a) })
	return filepath.Dir(found[0]), nil
}

func account(name string) (uid, gid uint32, err error) {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(line, ":")
		if len(f) > 3 && f[0] == name {
			u, err1 := strconv.ParseUint(f[2], 10, 32)
			g, err2 := strconv.ParseUint(f[3], 10, 32)
			return uint32(u), uint32(g), errors.Join(err1, err2)
		}
	}
	return 0, 0, fmt.Errorf("there is no account %s", name)
}
