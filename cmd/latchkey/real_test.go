//go:build unix

package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"latchkey/internal/otp"
)

// TestRealServer walks through the command's nouns against a real latchkeyd: its own
// process, first start, admin socket and all.
func TestRealServer(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "latchkeyd")
	build := exec.Command("go", "build", "-o", bin, "latchkey/cmd/latchkeyd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build latchkeyd: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "real"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			dir, err := os.MkdirTemp("", "lk")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = os.RemoveAll(dir) })
			e.Setenv("TZ", "UTC")
			e.Setenv("SERVER", "unix:"+filepath.Join(dir, "admin"))
			e.Setenv("DATABASE", filepath.Join(dir, "data", "latchkey.db"))
			return startServer(e, bin, dir)
		},
		Cmds: realCmds,
	})
}

var realCmds = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"field": cmdField, "code": cmdCode, "export": cmdExport, "answers": cmdAnswers, "private": cmdPrivate, "stale": cmdStale,
}

func startServer(e *testscript.Env, bin, dir string) error {
	log, err := os.Create(filepath.Join(e.WorkDir, ".server.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(bin, "serve", "--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--listen-agent", "127.0.0.1:0", "--admin-socket", filepath.Join(dir, "admin"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	e.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-ended:
			if err != nil {
				e.T().Log("the server: ", err)
			}
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		var addrs struct {
			Listen      string `json:"listen"`
			ListenAgent string `json:"listen_agent"`
			CA          string `json:"ca"`
		}
		b, err := os.ReadFile(filepath.Join(dir, "data", "serve.json"))
		if err == nil {
			err = json.Unmarshal(b, &addrs)
		}
		if err == nil {
			e.Setenv("MACHINES", "https://"+addrs.ListenAgent)
			e.Setenv("PEOPLE", "https://"+addrs.Listen)
			e.Setenv("CA", addrs.CA)
			return nil
		}
		select {
		case <-ended:
			b, _ := os.ReadFile(log.Name())
			return errors.New("the server ended: " + strings.TrimSpace(string(b)))
		case <-ctx.Done():
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return errors.New("the server does not start")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// cmdAnswers: answers FILE KEY-FILE STEPS LINE… writes what somebody types: the lines, and
// behind them the code of the key for now, or for so many half minutes later.
func cmdAnswers(ts *testscript.TestScript, _ bool, args []string) {
	var v struct{ Key string }
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &v); err != nil {
		ts.Fatalf("%v", err)
	}
	seed, err := otp.ParseSeed(v.Key)
	if err != nil {
		ts.Fatalf("key: %v", err)
	}
	later, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	// Not at the end of a half minute: the code must still be good when it comes.
	if rest := 30 - time.Now().Unix()%30; rest < 4 {
		time.Sleep(time.Duration(rest) * time.Second)
	}
	code := otp.DefaultParams.Code(seed, otp.DefaultParams.Step(time.Now())+later)
	lines := strings.Join(append(slices.Clone(args[3:]), code), "\n") + "\n"
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(lines), 0o600))
}

// cmdStale: stale makes the second factor of every session one of an hour ago.
func cmdStale(ts *testscript.TestScript, _ bool, _ []string) {
	d, err := sql.Open("sqlite", "file:"+ts.Getenv("DATABASE")+"?_pragma=busy_timeout(5000)")
	ts.Check(err)
	defer d.Close()
	_, err = d.Exec("UPDATE sessions SET fresh_at = fresh_at - 3600000000")
	ts.Check(err)
}

// cmdPrivate: private FILE… fails unless only its owner may look into each.
func cmdPrivate(ts *testscript.TestScript, _ bool, args []string) {
	for _, f := range args {
		info, err := os.Stat(ts.MkAbs(f))
		ts.Check(err)
		if info.Mode().Perm()&0o077 != 0 {
			ts.Fatalf("%s has the mode %v", f, info.Mode())
		}
	}
}
