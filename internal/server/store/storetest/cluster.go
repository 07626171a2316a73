package storetest

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/clock"
)

// Cluster is a PostgreSQL of the test's own that writes as a real one does and may
// be killed, frozen and replaced by its standby.
type Cluster struct {
	t     testing.TB
	bin   string
	dir   string // holds data and the socket
	cred  *syscall.Credential
	pid   int // of the postmaster; 0: not running
	small int // MiB of the small disk; 0: none
	guard io.Closer
	done  chan struct{}
}

// NewCluster makes a cluster and starts it. Further lines go into its configuration.
func NewCluster(t testing.TB, lines ...string) *Cluster {
	t.Helper()
	c := newCluster(t, lines...)
	c.Start()
	return c
}

// NewSmallCluster is NewCluster with a tablespace "small" on a disk of so many MiB,
// which is mounted in a namespace of the cluster's own; the databases of Database are
// there, the log of changes is not.
func NewSmallCluster(t testing.TB, mib int) *Cluster {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: a full disk of PostgreSQL needs CAP_SYS_ADMIN to mount a small one; run the tests as root")
	}
	c := newCluster(t)
	c.small = mib
	if err := os.Mkdir(c.disk(), 0o755); err != nil {
		t.Fatal(err)
	}
	c.Start()
	c.Exec("CREATE TABLESPACE small LOCATION '" + c.disk() + "/space'")
	return c
}

// disk is where the small disk is mounted, as the cluster sees it.
func (c *Cluster) disk() string { return filepath.Join(c.dir, "disk") }

// Fill leaves no room on the small disk; the returned function makes room again.
func (c *Cluster) Fill() (undo func()) {
	c.t.Helper()
	path := filepath.Join("/proc", strconv.Itoa(c.pid), "root", c.disk(), "fill")
	f, err := os.Create(path)
	if err != nil {
		c.t.Fatal(err)
	}
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		c.t.Fatalf("fill the small disk: %v", err)
	}
	_ = f.Close()
	return func() {
		if err := os.Remove(path); err != nil {
			c.t.Error(err)
		}
	}
}

func newCluster(t testing.TB, lines ...string) *Cluster {
	t.Helper()
	c := emptyCluster(t)
	c.run("initdb", "-D", c.data(), "-U", "latchkey", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions")
	c.configure(append([]string{
		"listen_addresses = ''", "max_connections = 100", "shared_buffers = 32MB", "deadlock_timeout = 200ms", "wal_level = replica", "max_wal_senders = 5",
		"synchronous_commit = on", "fsync = on", "wal_sender_timeout = 5s", "unix_socket_directories = '" + c.dir + "'",
	}, lines...)...)
	return c
}

func emptyCluster(t testing.TB) *Cluster {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatalf("these tests need a real PostgreSQL (Debian package \"postgresql\"): %v", err)
	}
	dir, err := os.MkdirTemp("/tmp", "latchkey-pg-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, bin: bin, dir: dir}
	t.Cleanup(func() {
		c.Kill()
		_ = os.RemoveAll(dir)
	})
	if os.Getuid() == 0 { // initdb refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
			t.Fatal(err)
		}
		c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return c
}

func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: c.cred}
	return cmd
}

func (c *Cluster) run(program string, args ...string) {
	c.t.Helper()
	if out, err := c.command(filepath.Join(c.bin, program), args...).CombinedOutput(); err != nil {
		c.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}

func (c *Cluster) configure(lines ...string) {
	c.t.Helper()
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		c.t.Fatal(err)
	}
}

// Start starts it, after Kill too, and waits until it answers.
func (c *Cluster) Start() {
	c.t.Helper()
	// The guard ends it when this process ends, however it ends.
	const script = `"$1/postgres" -D "$2/data" </dev/null >>"$2/log" 2>&1 & pg=$!; echo $pg; read -r _; kill -KILL $pg 2>/dev/null; wait $pg`
	cmd := c.command("/bin/sh", "-c", script, "sh", c.bin, c.dir)
	if c.small > 0 {
		const mounted = `mount -t tmpfs -o size="$3"m tmpfs "$2/disk" && mkdir "$2/disk/space" && chown "$4:$5" "$2/disk/space" &&
			exec setpriv --reuid "$4" --regid "$5" --clear-groups sh -c "$6" sh "$1" "$2"`
		cmd = c.command("unshare", "-m", "--propagation", "private", "sh", "-c", mounted, "sh", c.bin, c.dir,
			strconv.Itoa(c.small), fmt.Sprint(c.cred.Uid), fmt.Sprint(c.cred.Gid), script)
		cmd.SysProcAttr.Credential = nil
	}
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		c.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.t.Fatal(err)
	}
	c.guard = in
	if c.pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		c.t.Fatal(err)
	}
	done := make(chan struct{})
	c.done = done
	go func() { _ = cmd.Wait(); close(done) }()
	for range 1500 {
		if err = c.try("SELECT 1"); err == nil {
			return
		}
		<-clock.Real.After(20 * time.Millisecond)
	}
	log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	c.t.Fatalf("PostgreSQL does not answer: %v\n%s", err, log)
}

// processes are the postmaster and its children.
func (c *Cluster) processes() []int {
	if c.pid == 0 {
		return nil
	}
	all := []int{c.pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		b, _ := os.ReadFile(f)
		_, rest, _ := strings.Cut(string(b), ") ")
		if w := strings.Fields(rest); len(w) > 1 && w[1] == strconv.Itoa(c.pid) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

func (c *Cluster) signal(s syscall.Signal) {
	for _, pid := range c.processes() {
		_ = syscall.Kill(pid, s)
	}
}

// Kill kills all of it at once (-9), as when the host loses its power but for what
// its disk cache holds.
func (c *Cluster) Kill() {
	if c.pid == 0 {
		return
	}
	c.signal(syscall.SIGKILL)
	_ = c.guard.Close()
	<-c.done
	// A child that was forked in between sees that its parent is gone.
	c.pid = 0
}

// Freeze stops all of it: connections are accepted by the system and not answered.
func (c *Cluster) Freeze() { c.signal(syscall.SIGSTOP) }

// Thaw lets it go on.
func (c *Cluster) Thaw() { c.signal(syscall.SIGCONT) }

// URL is the address of a database in it; with further clusters, all of them in
// that order.
func (c *Cluster) URL(name string, others ...*Cluster) string {
	hosts := c.dir
	for _, o := range others {
		hosts += "," + o.dir
	}
	return fmt.Sprintf("postgres://latchkey@/%s?host=%s&target_session_attrs=read-write", name, hosts)
}

// Database makes a database and returns its address; see URL.
func (c *Cluster) Database(name string, others ...*Cluster) string {
	c.t.Helper()
	if c.small > 0 {
		name += " TABLESPACE small"
	}
	c.Exec("CREATE DATABASE " + name)
	name, _, _ = strings.Cut(name, " ")
	return c.URL(name, others...)
}

// Exec runs a statement as the superuser.
func (c *Cluster) Exec(q string) {
	c.t.Helper()
	if err := c.try(q); err != nil {
		c.t.Fatalf("%s: %v", q, err)
	}
}

func (c *Cluster) try(q string) error {
	admin, err := sql.Open("pgx", fmt.Sprintf("postgres://latchkey@/postgres?host=%s", c.dir))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_, err = admin.ExecContext(ctx, q)
	return errors.Join(err, admin.Close())
}

// Standby makes a streaming standby of the cluster and starts it. While it is
// synchronous no commit is acknowledged that it does not have.
func (c *Cluster) Standby(synchronous bool) *Cluster {
	c.t.Helper()
	s := emptyCluster(c.t)
	s.run("pg_basebackup", "-h", c.dir, "-U", "latchkey", "-D", s.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync")
	s.configure("unix_socket_directories = '"+s.dir+"'", "wal_retrieve_retry_interval = 100ms",
		fmt.Sprintf("primary_conninfo = 'host=%s user=latchkey application_name=standby'", c.dir))
	// What -R has written would win.
	if err := os.Truncate(filepath.Join(s.data(), "postgresql.auto.conf"), 0); err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	if synchronous {
		c.Exec("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
		c.Exec("SELECT pg_reload_conf()")
		c.Synchronous()
	}
	return s
}

// Synchronous waits until the standby is there: until then no commit is acknowledged.
func (c *Cluster) Synchronous() {
	c.t.Helper()
	for try := 0; c.try("SELECT 1/COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != nil; try++ {
		if try == 1000 {
			c.t.Fatal("the standby does not become synchronous")
		}
		<-clock.Real.After(20 * time.Millisecond)
	}
}

// Unfollow makes a standby receive nothing more.
func (c *Cluster) Unfollow() {
	c.t.Helper()
	c.Exec("ALTER SYSTEM SET primary_conninfo = ''")
	c.Exec("SELECT pg_reload_conf()")
	for try := 0; c.try("SELECT 1/(1-COUNT(*)) FROM pg_stat_wal_receiver") != nil; try++ {
		if try == 500 {
			c.t.Fatal("the standby still receives")
		}
		<-clock.Real.After(20 * time.Millisecond)
	}
}

// Promote makes a standby the primary.
func (c *Cluster) Promote() {
	c.t.Helper()
	c.Exec("SELECT 1/CAST(pg_promote() AS INTEGER)")
}

// Count counts the rows of a table.
func (c *Cluster) Count(database, table string) (n int, err error) {
	d, err := sql.Open("pgx", fmt.Sprintf("postgres://latchkey@/%s?host=%s", database, c.dir))
	if err != nil {
		return 0, err
	}
	err = d.QueryRow("SELECT COUNT(*) FROM " + table).Scan(&n)
	return n, errors.Join(err, d.Close())
}
