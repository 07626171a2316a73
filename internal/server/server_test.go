package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/secret"
	"latchkey/internal/server"
	_ "latchkey/internal/server/directory/local"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web"
)

// served is a running server.
type served struct {
	t     *testing.T
	conf  server.Config
	addrs server.Addresses
	stop  context.CancelFunc
	done  chan error
	out   *buffer
	log   *buffer
	ended bool
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// folder is short: a socket's path has about 100 octets.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lkd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "data")
}

func conf(data string) server.Config {
	return server.Config{
		Data: data, Listen: "127.0.0.1:0", ListenAgent: "127.0.0.1:0", AdminSocket: filepath.Join(data, "admin.sock"), Metrics: "127.0.0.1:0",
		Clock: clock.Real, Version: "1.2.3",
	}
}

func start(t *testing.T, c server.Config) *served {
	t.Helper()
	s := &served{t: t, conf: c, done: make(chan error, 1), out: &buffer{}, log: &buffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	ready := make(chan server.Addresses, 1)
	c.Out, c.Log, c.Ready = s.out, slog.New(slog.NewTextHandler(s.log, nil)), func(a server.Addresses) { ready <- a }
	go func() { s.done <- server.Run(ctx, c) }()
	select {
	case s.addrs = <-ready:
	case err := <-s.done:
		cancel()
		t.Fatalf("it did not start: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("it does not start")
	}
	t.Cleanup(func() { s.end() })
	return s
}

// end stops it and tells how long that took.
func (s *served) end() time.Duration {
	s.t.Helper()
	begun := time.Now()
	s.stop()
	if s.ended {
		return 0
	}
	s.ended = true
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("it ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		s.t.Fatal("it does not stop")
	}
	return time.Since(begun)
}

func (s *served) web() *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
}

func (s *served) admin() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.addrs.AdminSocket)
	}}}
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestAFirstStartMakesWhatIsNeededAndASecondFindsIt(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		c := conf(folder(t))
		c.Database = database
		s := start(t, c)
		for _, said := range []string{"first start", "master key", "CA ", "default policy", "Next:", "user add", "latchkey-agent join -", "latchkey-agent run", "latchkey signin NAME --service login", "server set --people-url https://NAME", "Warning: people's address is", s.addrs.AdminSocket, s.addrs.ListenAgent} {
			if !strings.Contains(s.out.String(), said) {
				t.Errorf("it does not say %q:\n%s", said, s.out)
			}
		}
		raw, err := os.ReadFile(filepath.Join(c.Data, server.AddressFile))
		if err != nil {
			t.Fatal(err)
		}
		var a server.Addresses
		if err := json.Unmarshal(raw, &a); err != nil || a != s.addrs || a.PID != os.Getpid() {
			t.Errorf("%s, %v", raw, err)
		}
		for name, mode := range map[string]os.FileMode{"master.key": 0o600, "admin.sock": 0o600, server.AddressFile: 0o600, "": 0o700} {
			info, err := os.Stat(filepath.Join(c.Data, name))
			if err != nil || info.Mode().Perm() != mode {
				t.Errorf("%q: %v, %v", name, info.Mode(), err)
			}
		}
		_, policies := get(t, s.admin(), "http://x/api/v1/policies")
		if !strings.Contains(policies, `"default":true`) || strings.Count(policies, `"default":true`) != 1 {
			t.Error(policies)
		}
		if took := s.end(); took > 20*time.Second { // it is no measurement: something hung
			t.Errorf("it took %v to stop with nothing to do", took)
		}
		if _, err := os.Stat(filepath.Join(c.Data, server.AddressFile)); err == nil {
			t.Error("the addresses of a server that is gone are left")
		}
		again := start(t, c)
		if again.addrs.CA != s.addrs.CA || strings.Contains(again.out.String(), "first start") || !strings.Contains(again.out.String(), "Next:") {
			t.Errorf("the second start:\n%s", again.out)
		}
		if _, list := get(t, again.admin(), "http://x/api/v1/policies"); strings.Count(list, `"default":true`) != 1 {
			t.Error(list)
		}
		_, events := get(t, again.admin(), "http://x/api/v1/events")
		for _, word := range []string{"server.started", "server.stopped"} {
			if !strings.Contains(events, word) {
				t.Errorf("no event %s in %s", word, events)
			}
		}
		again.end()
		// An account from before its name was kept free.
		old := storetest.Open(t, store.Config{Database: server.DatabaseOf(c.Data, database)})
		err = old.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			return tx.InsertUser(ctx, db.InsertUserParams{ID: store.NewID(), Name: "agent", NameFold: "agent", Role: "owner"})
		})
		if err := errors.Join(err, old.Close()); err != nil {
			t.Fatal(err)
		}
		if third := start(t, c).out.String(); strings.Count(third, "bears a name") != 1 || !strings.Contains(third, `the account "agent" bears`) {
			t.Errorf("the start with an account of a name that is kept:\n%s", third)
		}
	})
}

func TestAddressesThatArePrintedCanBeOpened(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		names []string
		want  string
	}{"by the host's name": {nil, host}, "by the first configured name": {[]string{"login.example.org", "192.0.2.7"}, "login.example.org"}} {
		c := conf(folder(t))
		c.Listen, c.ListenAgent, c.Names = "0.0.0.0:0", "[::]:0", x.names
		s := start(t, c)
		_, people, _ := net.SplitHostPort(s.addrs.Listen)
		_, machines, _ := net.SplitHostPort(s.addrs.ListenAgent)
		said := s.out.String()
		for _, want := range []string{"https://" + x.want + ":" + people + "/setup", "people https://" + x.want + ":" + people, "machines https://" + x.want + ":" + machines} {
			if !strings.Contains(said, want) {
				t.Errorf("%s: it does not say %q:\n%s", name, want, said)
			}
		}
		if strings.Contains(said, "[::]") || strings.Contains(said, "0.0.0.0") {
			t.Errorf("%s: an address that nobody can open:\n%s", name, said)
		}
	}
}

func TestTheDoorForPeople(t *testing.T) {
	s := start(t, conf(folder(t)))
	base := "https://" + s.addrs.Listen
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		if status, body := get(t, s.web(), base+path); status != 200 || body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	res, err := s.web().Get(base)
	if err != nil {
		t.Fatal(err)
	}
	page, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if !strings.Contains(string(page), "<h1>Set up this server</h1>") || res.Header.Get("Content-Security-Policy") != web.Policy {
		t.Errorf("%v %s", res.Header, page)
	}
	// The CA's certificate: at this door for anybody, and as an operation.
	_, file := get(t, s.web(), base+"/ca.pem")
	block, _ := pem.Decode([]byte(file))
	if block == nil {
		t.Fatalf("no certificate: %q", file)
	}
	if sum := sha256.Sum256(block.Bytes); hex.EncodeToString(sum[:]) != s.addrs.CA {
		t.Error("it is another CA's certificate")
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(file))
	if status, _ := get(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}, base+"/healthz"); status != 200 {
		t.Error(status)
	}
	var op struct{ PEM, SHA256 string }
	_, body := get(t, s.admin(), "http://x/api/v1/ca")
	if err := json.Unmarshal([]byte(body), &op); err != nil || op.PEM != file || op.SHA256 != s.addrs.CA {
		t.Errorf("%v %s", err, body)
	}
	if status, _ := get(t, s.web(), base+"/api/v1/ca"); status != 401 {
		t.Errorf("a stranger: %d", status)
	}
	// Nothing of the other doors is here.
	for path, want := range map[string]int{"/metrics": 404, "/agent/v1/probe": 404, "/x": 404, "/api/v1/users": 401} {
		if status, body := get(t, s.web(), base+path); status != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	if status, body := get(t, s.web(), "http://"+s.addrs.Listen+"/"); status != 400 || strings.Contains(body, "Latchkey server") {
		t.Errorf("plain HTTP: %d %q", status, body)
	}
	if _, err := tls.Dial("tcp", s.addrs.Listen, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

func TestMetrics(t *testing.T) {
	s := start(t, conf(folder(t)))
	probe := s.web()
	if status, _ := get(t, probe, "https://"+s.addrs.ListenAgent+"/agent/v1/probe"); status != 400 {
		t.Errorf("a probe without a version: %d", status)
	}
	for where, c := range map[string]*http.Client{"http://" + s.addrs.Metrics + "/metrics": http.DefaultClient, "http://x/metrics": s.admin()} {
		status, body := get(t, c, where)
		for _, want := range []string{
			`latchkey_agent_requests_total{route="/agent/v1/probe",status="400"} 1`, "latchkey_agent_polls 0", "latchkey_users 0", "latchkey_machines_up 0",
			`latchkey_event_chain_seq{chain="main"}`, "latchkey_agent_request_seconds_bucket", "go_goroutines", "process_resident_memory_bytes",
		} {
			if status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s: %d, no %s", where, status, want)
			}
		}
	}
	if status, _ := get(t, http.DefaultClient, "http://"+s.addrs.Metrics+"/api/v1/users"); status != 404 {
		t.Errorf("the metrics' door serves more: %d", status)
	}
	c := conf(folder(t))
	c.Log = slog.New(slog.DiscardHandler)
	for _, bad := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "localhost:0"} {
		c.Metrics = bad
		if err := server.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "loopback") {
			t.Errorf("metrics on %s: %v", bad, err)
		}
	}
}

func TestAStrangerIsTurnedAwayFromTheAdminSocket(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test makes a call as another user and needs root")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("this test needs curl: apt-get install curl")
	}
	s := start(t, conf(folder(t)))
	// Even where the file lets everybody connect the peer is asked.
	for _, dir := range []string{filepath.Dir(s.conf.Data), s.conf.Data} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(s.addrs.AdminSocket, 0o666); err != nil {
		t.Fatal(err)
	}
	call := func(as ...string) (string, error) {
		args := append(as, "curl", "-sS", "--max-time", "5", "--unix-socket", s.addrs.AdminSocket, "http://x/api/v1/users")
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		return string(out), err
	}
	if out, err := call("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"); err == nil || strings.Contains(out, "items") {
		t.Errorf("nobody was answered: %s", out)
	}
	if !strings.Contains(s.log.String(), "a stranger was turned away") || !strings.Contains(s.log.String(), "uid=65534") {
		t.Errorf("it is not in the log: %s", s.log)
	}
	if out, err := call("env"); err != nil || !strings.Contains(out, `"items"`) {
		t.Errorf("root: %s, %v", out, err)
	}
}

func TestItStopsInTimeWhateverHangs(t *testing.T) {
	s := start(t, conf(folder(t)))
	// Somebody follows the log, somebody sends half a request, somebody is silent.
	req, err := http.NewRequest("GET", "http://x/api/v1/events/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.admin().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); res.StatusCode != 200 || kind != "application/jsonl" {
		t.Fatalf("nobody follows the log: %d %s", res.StatusCode, kind)
	}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		_, _ = io.Copy(io.Discard, res.Body)
	}()
	for _, addr := range []string{s.addrs.ListenAgent, s.addrs.Listen} {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST /agent/v1/join HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\nContent-Length: 1000\r\n\r\n{")
		quiet, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer quiet.Close()
	}
	time.Sleep(200 * time.Millisecond)
	select {
	case <-followed:
		t.Error("the stream ended before the server did")
	default:
	}
	if took := s.end(); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	<-followed
	for _, addr := range []string{s.addrs.ListenAgent, s.addrs.Listen} {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			t.Errorf("%s is still served", addr)
		}
	}
}

func TestStartsThatAreRefused(t *testing.T) {
	run := func(alter func(c *server.Config)) error {
		c := conf(folder(t))
		c.Log = slog.New(slog.DiscardHandler)
		alter(&c)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		return server.Run(ctx, c)
	}
	s := start(t, conf(folder(t)))
	for name, x := range map[string]struct {
		alter func(c *server.Config)
		says  string
	}{
		"a folder that is in use":        {func(c *server.Config) { c.Data = s.conf.Data }, "another latchkeyd works in"},
		"a socket that is in use":        {func(c *server.Config) { c.AdminSocket = s.addrs.AdminSocket }, "another server listens on"},
		"a port that is in use":          {func(c *server.Config) { c.Listen = s.addrs.Listen }, "choose another with --listen"},
		"an agents' port that is in use": {func(c *server.Config) { c.ListenAgent = s.addrs.ListenAgent }, "another program has it (ss -ltnp), or choose another with --listen-agent"},
		"a database that is none":        {func(c *server.Config) { c.Database = "mysql://x" }, "neither sqlite:PATH nor postgres://"},
		"a folder that others may write to": {func(c *server.Config) {
			if err := errors.Join(os.MkdirAll(c.Data, 0o700), os.Chmod(c.Data, 0o777)); err != nil {
				t.Fatal(err)
			}
		}, "its mode is 0777 and must be 0700, nobody else may look in; run: chmod 0700 "},
		"a folder that others may look into": {func(c *server.Config) {
			if err := errors.Join(os.MkdirAll(c.Data, 0o700), os.Chmod(c.Data, 0o755)); err != nil {
				t.Fatal(err)
			}
		}, "its mode is 0755 and must be 0700"},
		"a folder of somebody else": {func(c *server.Config) {
			if os.Geteuid() != 0 {
				c.Data = "/"
				return
			}
			if err := errors.Join(os.MkdirAll(c.Data, 0o700), os.Chown(c.Data, 12345, -1)); err != nil {
				t.Fatal(err)
			}
		}, "that runs the server"},
		"a master key that others may read": {func(c *server.Config) {
			if err := os.MkdirAll(c.Data, 0o700); err != nil {
				t.Fatal(err)
			}
			if _, err := keys.CreateMaster(c.Data); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(keys.MasterPath(c.Data), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "chmod 600"},
		"a file where the socket should be": {func(c *server.Config) {
			c.AdminSocket = c.Data + ".txt"
			if err := os.WriteFile(c.AdminSocket, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "is no socket"},
	} {
		if err := run(x.alter); err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want %q", name, err, x.says)
		}
	}
	// The one that runs was not disturbed.
	if status, _ := get(t, s.admin(), "http://x/readyz"); status != 200 {
		t.Error(status)
	}
	// A socket that a killed server has left behind is no hindrance.
	c := conf(folder(t))
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.AdminSocket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	start(t, c)
}

func TestReplicasOverOneDatabase(t *testing.T) {
	database := storetest.PostgreSQL(t)
	a := conf(folder(t))
	a.Database, a.Replica = database, "a"
	first := start(t, a)
	b := conf(folder(t))
	b.Database, b.Replica, b.Log = database, "b", slog.New(slog.DiscardHandler)
	// Without the master key of the first it does not start, and makes none.
	if err := server.Run(t.Context(), b); !errors.Is(err, keys.ErrMissing) {
		t.Errorf("%v", err)
	}
	key, err := keys.ReadMaster(a.Data)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.WriteMaster(b.Data, key); err != nil {
		t.Fatal(err)
	}
	second := start(t, b)
	if first.addrs.CA != second.addrs.CA {
		t.Error("they have two CAs")
	}
	if _, body := get(t, first.admin(), "http://x/metrics"); !strings.Contains(body, `latchkey_event_chain_seq{chain="b"} `) {
		t.Error("the first does not see the second's chain")
	}
}

func TestBackupAndRestore(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		ctx := t.Context()
		c := conf(folder(t))
		c.Database = database
		s := start(t, c)
		before := s.addrs.CA
		log := slog.New(slog.DiscardHandler)
		file := filepath.Join(filepath.Dir(c.Data), "backup")
		pass := func() secret.Bytes { return secret.FromString("correct horse battery") }
		rows, err := server.Backup{Data: c.Data, Database: database, File: file, Passphrase: pass(), Clock: clock.Real, Log: log}.Write(ctx)
		if err != nil || rows < 8 {
			t.Fatal(rows, err)
		}
		for _, f := range []string{file, server.KeyFile(file)} {
			info, err := os.Stat(f)
			if err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: %v, %v", f, info, err)
			}
		}
		master, err := keys.ReadMaster(c.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{file, server.KeyFile(file)} {
			if raw, err := os.ReadFile(f); err != nil || bytes.Contains(raw, master.Reveal()) {
				t.Errorf("%s holds the master key in clear, %v", f, err)
			}
		}
		_, metrics := get(t, s.admin(), "http://x/metrics")
		for _, line := range []string{"latchkey_ready 1", `latchkey_offline_trouble{state="shut"} 0`, `latchkey_offline_trouble{state="expired"} 0`, "latchkey_backup_timestamp_seconds 1."} {
			if !strings.Contains(metrics, "\n"+line) {
				t.Errorf("no %s among the metrics", line)
			}
		}
		if _, list := get(t, s.admin(), "http://x/api/v1/events"); !strings.Contains(list, "server.backup") {
			t.Error("the backup is no event")
		}

		// A backup with the key goes into an empty folder and an empty database.
		into := folder(t)
		r := server.Backup{Data: into, File: file, Clock: clock.Real, Log: log}
		if _, err := r.Restore(ctx); !errors.Is(err, keys.ErrNoMaster) {
			t.Errorf("without a key: %v", err)
		}
		r.Passphrase = secret.FromString("another passphrase")
		if _, err := r.Restore(ctx); !errors.Is(err, keys.ErrPassphrase) {
			t.Errorf("with another passphrase: %v", err)
		}
		if _, err := os.Stat(filepath.Join(into, "latchkey.db")); err == nil {
			t.Error("a refused restore has left a database")
		}
		r.Passphrase = pass()
		if got, err := r.Restore(ctx); err != nil || got != rows {
			t.Fatal(got, err)
		}
		if _, err := r.Restore(ctx); err == nil {
			t.Error("it was restored over what is there")
		}
		r.Passphrase = secret.Bytes{}
		if _, err := r.Restore(ctx); !errors.Is(err, store.ErrNotEmpty) {
			t.Errorf("over a database: %v", err)
		}
		restored := start(t, conf(into))
		if restored.addrs.CA != before {
			t.Error("the restored server is another one to its machines")
		}
		if _, list := get(t, restored.admin(), "http://x/api/v1/events"); !strings.Contains(list, `"restored"`) {
			t.Error("the restore is no event")
		}
	})
}

func TestARestoredDatabaseGivesNothingOutTwice(t *testing.T) {
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	now := time.Now()
	err := s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertMachine(ctx, db.InsertMachineParams{ID: "m", Number: 1, Name: "m", Status: "active", TPMInfo: "{}"}); err != nil {
			return err
		}
		return offline.Restored(ctx, tx, now)
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Read(t.Context(), func(q *store.Queries) error {
		m, err := q.GetMachine(t.Context(), "m")
		if err != nil || m.Serial < 1_000_000 {
			t.Errorf("serial %d, %v", m.Serial, err)
		}
		v, err := q.GetSetting(t.Context(), "offline.generation_floor")
		if string(v) != fmt.Sprint(now.Unix()) {
			t.Errorf("floor %q", v)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// backedUp is a server's backup and its folder, with the server stopped.
func backedUp(t *testing.T) (data, file string) {
	t.Helper()
	c := conf(folder(t))
	s := start(t, c)
	s.end()
	file = filepath.Join(filepath.Dir(c.Data), "backup")
	if _, err := (server.Backup{Data: c.Data, File: file, Clock: clock.Real, Log: slog.New(slog.DiscardHandler)}).Write(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.Data, file
}

func TestABackupIsNotRestoredUnderAnotherKey(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		ctx := t.Context()
		from, file := backedUp(t)
		into := folder(t)
		if err := os.Mkdir(into, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := keys.CreateMaster(into); err != nil {
			t.Fatal(err)
		}
		r := server.Backup{Data: into, Database: database, File: file, Clock: clock.Real, Log: slog.New(slog.DiscardHandler)}
		_, err := r.Restore(ctx)
		if !errors.Is(err, keys.ErrForeign) || !strings.HasPrefix(err.Error(), "the master key in "+into+" is not the one of this backup; nothing was restored. Put the right master.key there") {
			t.Fatalf("under another key: %v", err)
		}
		// Nothing was kept: with the right key it goes into the same database.
		raw, err := os.ReadFile(keys.MasterPath(from))
		if err == nil {
			err = os.WriteFile(keys.MasterPath(into), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Restore(ctx); err != nil {
			t.Fatalf("under the right key: %v", err)
		}
		c := conf(into)
		c.Database = database
		s := start(t, c)
		if _, list := get(t, s.admin(), "http://x/api/v1/events"); strings.Count(list, `"restored"`) != 1 {
			t.Error("the restore is not one event")
		}
	})
}

func TestARestoreThatWasBrokenOffIsFinishedByTheServer(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		ctx := t.Context()
		from, file := backedUp(t)
		// The rows are kept, and the power goes before anything else is done.
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		_, err = store.Restore(ctx, store.Config{Database: database, Clock: clock.Real}, f, func(ctx context.Context, filled store.Filling) error {
			return filled.PutSetting(ctx, "restore.unfinished", []byte("backup"), 1)
		})
		if err != nil {
			t.Fatal(err)
		}
		c := conf(from)
		c.Database = database
		for range 2 {
			s := start(t, c)
			if _, list := get(t, s.admin(), "http://x/api/v1/events"); strings.Count(list, `"restored"`) != 1 {
				t.Error("the restore is not one event")
			}
			s.end()
		}
		s := storetest.Open(t, store.Config{Database: database})
		err = s.Read(ctx, func(q *store.Queries) error {
			if _, err := q.GetSetting(ctx, "restore.unfinished"); !store.IsNotFound(err) {
				t.Errorf("the mark is still there: %v", err)
			}
			_, err := q.GetSetting(ctx, "offline.generation_floor")
			return err
		})
		if err != nil {
			t.Errorf("generations have no floor: %v", err)
		}
	})
}
