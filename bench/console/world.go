package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// process is a child with its own log.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func start(cmd *exec.Cmd, log string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(p.done) }()
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
	case <-time.After(time.Minute):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within a minute; its log ends: %s", filepath.Base(p.cmd.Path), p.tail())
	}
}

// world is a folder with a database and one server of the release build on it.
type world struct {
	dir      string
	bin      string
	engine   string
	postgres *process
	server   *process
	people   string // address of the people's door
	admin    string // socket
}

func (w *world) data() string { return filepath.Join(w.dir, "data") }

// database is what latchkeyd is given; empty: SQLite in the data folder.
func (w *world) database() string {
	if w.engine == "postgresql" {
		return "postgres://latchkey@/latchkey?host=" + filepath.Join(w.dir, "pg")
	}
	return ""
}

func (w *world) close() error {
	return errors.Join(w.server.stop(syscall.SIGTERM), w.postgres.stop(syscall.SIGINT))
}

// openWorld starts what the engine needs; fresh is whether the folder is a new one.
func openWorld(dir, bin, engine string) (w *world, fresh bool, err error) {
	w = &world{dir: filepath.Join(dir, engine), bin: bin, engine: engine}
	_, err = os.Stat(w.data())
	fresh = errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(w.data(), 0o700); err != nil {
		return nil, false, err
	}
	if err := os.Chmod(w.dir, 0o711); err != nil { //nolint:gosec // the account postgres walks through
		return nil, false, err
	}
	if engine == "postgresql" {
		if err := w.startPostgres(fresh); err != nil {
			return nil, false, errors.Join(err, w.close())
		}
	}
	return w, fresh, nil
}

// size is how many octets the database takes.
func (w *world) size() (n int64) {
	_ = filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// serve starts the server and waits until it is ready.
func (w *world) serve(ctx context.Context) error {
	args := []string{
		"serve", "--data", w.data(), "--listen", "127.0.0.1:0", "--listen-agent", "127.0.0.1:0",
		"--admin-socket", filepath.Join(w.dir, "admin.sock"), "--log", "json",
	}
	if d := w.database(); d != "" {
		args = append(args, "--database", d)
	}
	file := filepath.Join(w.data(), "serve.json")
	_ = os.Remove(file)
	var err error
	if w.server, err = start(exec.Command(filepath.Join(w.bin, "latchkeyd"), args...), filepath.Join(w.dir, "server.log")); err != nil {
		return err
	}
	var at struct {
		Listen string `json:"listen"`
		Admin  string `json:"admin_socket"`
	}
	for {
		b, err := os.ReadFile(file)
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
	w.people, w.admin = at.Listen, at.Admin
	return nil
}

var errNoPostgres = errors.New("there is no PostgreSQL in /usr/lib/postgresql: install the package postgresql")

// startPostgres runs a PostgreSQL of its own, with the settings that it comes with.
func (w *world) startPostgres(fresh bool) error {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return errNoPostgres
	}
	bin := slices.Max(found)
	dir := filepath.Join(w.dir, "pg")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the measuring program, which stops it in order
	if os.Getuid() == 0 {                       // initdb refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
			return err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.SysProcAttr, c.Dir, c.Env = attr, dir, []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
		return c
	}
	data := filepath.Join(dir, "data")
	if fresh {
		out, err := command("initdb", "-D", data, "-U", "latchkey", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions").CombinedOutput()
		if err != nil {
			return fmt.Errorf("initdb: %w: %s", err, out)
		}
	}
	w.postgres, err = start(command("postgres", "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "max_wal_size=8GB"), filepath.Join(w.dir, "postgres.log"))
	if err != nil {
		return err
	}
	var out []byte
	for range 500 {
		if out, err = command("psql", "-h", dir, "-U", "latchkey", "-d", "postgres", "-c", "SELECT 1").CombinedOutput(); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err == nil && fresh {
		out, err = command("psql", "-h", dir, "-U", "latchkey", "-d", "postgres", "-c", "CREATE DATABASE latchkey").CombinedOutput()
	}
	if err != nil {
		return fmt.Errorf("PostgreSQL does not answer: %w: %s", err, out)
	}
	return nil
}
