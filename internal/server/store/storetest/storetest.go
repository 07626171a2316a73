// Package storetest gives tests real databases: a fresh SQLite file, and a fresh
// database of a real PostgreSQL that is started once per test binary and goes when
// the binary ends. It needs the Debian package "postgresql" and says so.
package storetest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // driver "pgx"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
)

// Engines runs fn as a subtest on every engine, each time on an empty, migrated
// store with the real clock.
func Engines(t *testing.T, fn func(t *testing.T, s *store.Store)) {
	t.Helper()
	EnginesAt(t, clock.Real, fn)
}

// EnginesAt is Engines with a clock of the test's own.
func EnginesAt(t *testing.T, c clock.Clock, fn func(t *testing.T, s *store.Store)) {
	t.Helper()
	Databases(t, func(t *testing.T, database string) {
		fn(t, Open(t, store.Config{Database: database, Clock: c}))
	})
}

// Databases runs fn as a subtest on every engine with the address of a fresh
// database that nobody has opened yet.
func Databases(t *testing.T, fn func(t *testing.T, database string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { fn(t, SQLite(t)) })
	t.Run("postgresql", func(t *testing.T) { fn(t, PostgreSQL(t)) })
}

// Open opens a store that is closed when the test ends. Clock may be left out.
func Open(t testing.TB, conf store.Config) *store.Store {
	t.Helper()
	if conf.Clock == nil {
		conf.Clock = clock.Real
	}
	if conf.Logger == nil {
		conf.Logger = slog.New(slog.NewTextHandler(logWriter{t}, nil))
	}
	s, err := store.Open(context.Background(), conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

type logWriter struct{ t testing.TB }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Helper()
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

// SQLite is the address of a database file that does not exist yet.
func SQLite(t testing.TB) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "latchkey.db")
}

var (
	once    sync.Once
	server  postgres
	failure error
	number  atomic.Int64
)

// PostgreSQL is the address of a new database with the newest schema and nothing in
// it. The server is started by the first call of the test binary.
func PostgreSQL(t testing.TB) string {
	t.Helper()
	return create(t, " TEMPLATE "+template)
}

// BarePostgreSQL is the address of a database that was never migrated.
func BarePostgreSQL(t testing.TB) string {
	t.Helper()
	return create(t, "")
}

// Durable makes the PostgreSQL of this test binary write as a real one does, with
// fsync, until the test ends: for benchmarks.
func Durable(t testing.TB) {
	t.Helper()
	PostgreSQL(t)
	set := func(value string) {
		for _, q := range []string{
			"ALTER SYSTEM SET fsync = " + value, "ALTER SYSTEM SET synchronous_commit = " + value,
			"ALTER SYSTEM SET full_page_writes = " + value, "SELECT pg_reload_conf()",
		} {
			if err := server.exec(q); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
	}
	set("on")
	t.Cleanup(func() { set("off") })
}

// template is a migrated database that the others are copied from: that is faster.
const template = "latchkey_template"

func create(t testing.TB, from string) string {
	t.Helper()
	once.Do(func() {
		if server, failure = start(); failure == nil {
			failure = server.makeTemplate()
		}
	})
	if failure != nil {
		t.Fatalf("these tests need a real PostgreSQL (Debian package \"postgresql\"): %v", failure)
	}
	name := fmt.Sprintf("t%d", number.Add(1))
	if err := server.exec("CREATE DATABASE " + name + from); err != nil {
		t.Fatalf("make a database: %v", err)
	}
	return server.url(name)
}

func (p postgres) exec(q string) error {
	admin, err := sql.Open("pgx", p.url("postgres"))
	if err != nil {
		return err
	}
	_, err = admin.Exec(q)
	return errors.Join(err, admin.Close())
}

func (p postgres) makeTemplate() error {
	if err := p.exec("CREATE DATABASE " + template); err != nil {
		return err
	}
	s, err := store.Open(context.Background(), store.Config{Database: p.url(template), Clock: clock.Real})
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	// Its sessions end a moment after the connections were closed.
	for range 100 {
		var n int
		admin, err := sql.Open("pgx", p.url("postgres"))
		if err != nil {
			return err
		}
		err = admin.QueryRow("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = $1", template).Scan(&n)
		if err = errors.Join(err, admin.Close()); err != nil || n == 0 {
			return err
		}
		<-clock.Real.After(10 * time.Millisecond)
	}
	return errors.New("sessions on the template do not end")
}

type postgres struct{ dir string }

func (p postgres) url(name string) string {
	return fmt.Sprintf("postgres://latchkey@/%s?host=%s", name, p.dir)
}

// start makes a cluster in a temporary folder and runs it without network. A shell
// stands guard: when this process ends, however it ends, the guard's standard input
// ends, and it stops the server and removes the folder.
func start() (postgres, error) {
	bin, err := binaries()
	if err != nil {
		return postgres{}, err
	}
	dir, err := os.MkdirTemp("/tmp", "latchkey-pg-") // a socket's path is short
	if err != nil {
		return postgres{}, err
	}
	attr := &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the guard's input, not for the server
	if os.Getuid() == 0 {                       // initdb refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			return postgres{}, err
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
			return postgres{}, err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	const script = `
cd "$2" || exit 1
"$1/initdb" -D data -U latchkey -A trust -E UTF8 --locale=C.UTF-8 --locale-provider=icu --icu-locale=en --no-sync --no-instructions >log 2>&1 || { cat log >&2; exit 1; }
cat >>data/postgresql.conf <<EOF
listen_addresses = ''
max_connections = 200
shared_buffers = 64MB
deadlock_timeout = 200ms
fsync = off
synchronous_commit = off
full_page_writes = off
EOF
"$1/postgres" -D "$2/data" -k "$2" </dev/null >>log 2>&1 &
pg=$!
read -r _
kill -QUIT "$pg"
wait "$pg"
cd / && rm -rf "$2"
`
	cmd := exec.Command("/bin/sh", "-c", script, "sh", bin, dir)
	cmd.SysProcAttr = attr
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	if _, err := cmd.StdinPipe(); err != nil { // never written to; open as long as cmd.Wait below holds it
		return postgres{}, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return postgres{}, err
	}
	dead := make(chan error, 1)
	go func() { dead <- cmd.Wait() }()
	p := postgres{dir}
	conn, err := sql.Open("pgx", p.url("postgres"))
	if err != nil {
		return postgres{}, err
	}
	defer conn.Close()
	for range 3000 { // a minute
		if err = conn.Ping(); err == nil {
			return p, nil
		}
		select {
		case <-dead:
			return postgres{}, fmt.Errorf("it did not start: %s", stderr.String())
		case <-clock.Real.After(20 * time.Millisecond):
		}
	}
	log, _ := os.ReadFile(filepath.Join(dir, "log"))
	return postgres{}, fmt.Errorf("it does not answer: %w\n%s", err, log)
}

// binaries finds the newest installed server; Debian keeps it out of PATH.
func binaries() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if p, err := exec.LookPath("postgres"); err == nil {
		found = append(found, p)
	}
	slices.SortFunc(found, func(a, b string) int {
		version := func(p string) int {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(p))))
			return n
		}
		return version(b) - version(a)
	})
	if len(found) == 0 {
		return "", errors.New("no postgres in /usr/lib/postgresql/*/bin or PATH")
	}
	return filepath.Dir(found[0]), nil
}
