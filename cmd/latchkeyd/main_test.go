package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func try(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

func write(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUsedWronglyItSaysWhatIsWrongAndWhatIsAllowed(t *testing.T) {
	dir := t.TempDir()
	pass := write(t, "pass", "correct horse battery\n", 0o600)
	open := write(t, "open", "correct horse battery\n", 0o644)
	bad := write(t, "server.toml", "listen = \"nowhere\"\nnames = [\"a b\"]\nsurprise = 1\nlog = \"loud\"\npassword-length = 3\n", 0o600)
	twice := write(t, "twice.toml", "listen = \":1\"\nlisten-agent = \":1\"\nnames = [\"http://x\"]\n", 0o600)
	for _, c := range []struct {
		name   string
		args   []string
		status int
		says   []string
	}{
		{"no command", nil, 2, []string{"name a command"}},
		{"an unknown command", []string{"dance"}, 2, []string{`no command "dance"`, "serve, backup, restore and version"}},
		{"an unknown flag", []string{"serve", "--fast"}, 2, []string{"--fast"}},
		{"a word too many", []string{"serve", "now"}, 2, []string{`"now" is one word too many`}},
		{"no address", []string{"serve", "--data", dir, "--listen", "nowhere"}, 2, []string{"listen", "nowhere", "127.0.0.1:8443"}},
		{"an empty folder name", []string{"serve", "--data", ""}, 2, []string{"data"}},
		{"a strange form of the log", []string{"serve", "--log", "loud"}, 2, []string{"log", "auto", "text", "json"}},
		{"all mistakes of a file at once", []string{"serve", "--data", dir, "--config", bad}, 2, []string{"listen", "surprise", "log", "password-length", "mistakes"}},
		{"mistakes between settings", []string{"serve", "--data", dir, "--config", twice}, 2, []string{"listen-agent", "a listener each", "names", "without a port"}},
		{"a certificate without its key", []string{"serve", "--data", dir, "--tls-cert", pass}, 2, []string{"tls-key", "both or none"}},
		{"a key without its certificate", []string{"serve", "--data", dir, "--tls-key", pass}, 2, []string{"tls-cert", "both or none"}},
		{"a certificate that is none", []string{"serve", "--data", filepath.Join(t.TempDir(), "e"), "--tls-cert", pass, "--tls-key", pass}, 1, []string{"--tls-cert", "PEM"}},
		{"a file of settings that is not there", []string{"serve", "--config", filepath.Join(dir, "none.toml")}, 1, []string{"none.toml"}},
		{"a strange database", []string{"serve", "--data", filepath.Join(dir, "d"), "--database", "mysql://root@x/y"}, 1, []string{"sqlite:PATH", "postgres://"}},
		{"a backup without a file", []string{"backup", "--data", dir}, 2, []string{"name of the backup's file"}},
		{"a backup of nothing", []string{"backup", "--data", dir, filepath.Join(dir, "b")}, 1, []string{"the database can not be read"}},
		{"a key without a passphrase", []string{"backup", "--data", dir, "--with-key", "b"}, 2, []string{"belong together"}},
		{"a passphrase without a key", []string{"backup", "--data", dir, "--passphrase-file", pass, "b"}, 2, []string{"belong together"}},
		{"a passphrase that others may read", []string{"backup", "--data", dir, "--with-key", "--passphrase-file", open, "b"}, 1, []string{"chmod 600"}},
		{"an empty passphrase", []string{"backup", "--data", dir, "--with-key", "--passphrase-file", write(t, "empty", "\nx", 0o600), "b"}, 1, []string{"0 octets"}},
		{"a restore of nothing", []string{"restore", "--data", filepath.Join(dir, "r"), filepath.Join(dir, "none")}, 1, []string{"the backup can not be read"}},
		{"a restore without a key", []string{"restore", "--data", filepath.Join(dir, "r"), pass}, 1, []string{"master.key"}},
	} {
		status, out, errs := try(t, c.args...)
		if status != c.status {
			t.Errorf("%s: exit %d, want %d: %s", c.name, status, c.status, errs)
		}
		for _, word := range c.says {
			if !strings.Contains(errs, word) {
				t.Errorf("%s: it does not say %q: %s%s", c.name, word, out, errs)
			}
		}
	}
	// Nothing of these has left anything behind.
	if left, err := os.ReadDir(dir); err != nil || len(left) > 2 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestVersion(t *testing.T) {
	if status, out, errs := try(t, "version"); status != 0 || !strings.HasPrefix(out, "latchkeyd ") || errs != "" {
		t.Error(status, out, errs)
	}
}

func TestWhereAdministratorsFindIt(t *testing.T) {
	for data, want := range map[string]string{
		defaultData:       "/run/latchkey/admin.sock",
		defaultData + "/": "/run/latchkey/admin.sock", // said aloud
		"/srv/x":          "/srv/x/admin.sock",
	} {
		if got := adminSocket(data); got != want {
			t.Errorf("%s: %s", data, got)
		}
	}
}

func TestServeBackupRestore(t *testing.T) {
	dir, err := os.MkdirTemp("", "lkd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data := filepath.Join(dir, "a")
	pass := write(t, "pass", "correct horse battery\r\nsecond line\n", 0o600)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	var out, errs bytes.Buffer
	go func() {
		done <- run(ctx, []string{"serve", "--data", data, "--listen", "127.0.0.1:0", "--listen-agent", "127.0.0.1:0", "--log", "text"}, &out, &errs)
	}()
	waitFor(t, filepath.Join(data, "serve.json"))
	// A SIGHUP has it read its certificate anew; it does not end it.
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "b")
	if status, said, why := try(t, "backup", "--data", data, "--with-key", "--passphrase-file", pass, file); status != 0 || !strings.Contains(said, file+".key") {
		t.Error(status, said, why)
	}
	stop()
	if status := <-done; status != 0 {
		t.Error(status, errs.String())
	}
	if status, said, why := try(t, "restore", "--data", filepath.Join(dir, "c"), "--passphrase-file", pass, file); status != 0 || !strings.Contains(said, "latchkeyd serve --data") {
		t.Error(status, said, why)
	}
}

func FuzzHostName(f *testing.F) {
	for _, s := range []string{"a", "a.b", "::1", "192.0.2.1", "-", "a..b", "a b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if hostName(s) && (len(s) > 253 || strings.ContainsAny(s, " /@\x00\n")) {
			t.Errorf("%q", s)
		}
	})
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	t.Fatalf("%s does not appear", path)
}
