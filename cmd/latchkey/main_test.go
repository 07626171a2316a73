//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/api"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"latchkey": main})
}

// TestScripts is the specification of the command: real processes against the real
// API over a real store, each script with a server of its own. $SERVER is what
// --server takes, $AGENT the socket of an agent that plays by heart (see playAgent).
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			s := storetest.Open(e.T().(testing.TB), store.Config{Database: "sqlite:" + filepath.Join(e.WorkDir, ".server.db")})
			rig := desktest.New(e.T().(testing.TB), s, clock.Real)
			e.Values["rig"] = rig
			// A socket's path is short.
			dir, err := os.MkdirTemp("", "lk")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = os.RemoveAll(dir) })
			e.Setenv("TZ", "UTC")
			e.Setenv("SOCKETS", dir)
			e.Setenv("SERVER", "unix:"+filepath.Join(dir, "admin"))
			e.Setenv("AGENT", filepath.Join(dir, "agent"))
			if err := serve(e, filepath.Join(dir, "admin"), rig.Desk); err != nil {
				return err
			}
			return playAgent(e, filepath.Join(dir, "agent"))
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"machine":  cmdMachine,
			"enrolled": cmdEnrolled,
			"window":   cmdWindow,
			"locked":   cmdLocked,
			"reported": cmdReported,
			"phone":    cmdPhone,
			"push":     cmdReportedPush,
			"tamper":   cmdTamper,
			"field":    cmdField,
			"totp":     cmdTOTP,
			"token":    cmdToken,
			"typed":    cmdTyped,
			"long":     cmdLong,
			"code":     cmdCode,
			"export":   cmdExport,
		},
	})
}

// serve puts the API on a unix socket, as the server does for its own root.
func serve(e *testscript.Env, path string, d *desk.Desk) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           api.New(api.Deps{Desk: d, Version: "test"}),
		ReadHeaderTimeout: 5 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return api.WithActor(context.Background(), desk.Root()) },
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	e.Defer(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			e.T().Log("serving: ", err)
		}
	})
	return nil
}

const agentStatus = `{"link":"down","text":"the server does not answer","since":"2026-11-21T10:00:00Z","machine":"laptop","machine_id":"m","number":1,` +
	`"server":"https://s:8444","version":"1.0","class":"software","key_in_tpm":false,"certificate_until":"2027-01-01T00:00:00Z",` +
	`"health":[{"code":"link-down","severity":"warning","text":"The server can not be reached.","next":"Look at the network.","since":"2026-11-21T10:00:00Z"}],` +
	`"offline":{"class":"software","policy_serial":7,"policy_issued":"2026-11-18T11:06:40Z","undelivered":3,"users":[` +
	`{"user":"alice","enrolled":true,"class":"software","until":"2026-11-30T00:53:20Z","left":{"days":6,"signins":48,"tries":10,"checks":58,"warn":false}},` +
	`{"user":"bob","enrolled":false,"problem":"offline-data-outdated"}]}}`

// playAgent is an agent's end of the socket: who signs in decides what happens.
//
//	alice   Password: (secret) and a code out of a menu; "pw" and "2", "123456" are right
//	guest   is left to the machine
//	slow    gets no verdict: the agent closes
//	old     the agent is too old
func playAgent(e *testscript.Env, path string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	e.Defer(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go playOne(shim.NewAgentConn(c))
		}
	}()
	return nil
}

func playOne(a *shim.AgentConn) {
	defer a.Close()
	const within = 10 * time.Second
	if a.Greet(within, "update the module") != nil {
		return
	}
	m, err := a.Receive(within)
	if err != nil {
		return
	}
	if _, ok := m.(shim.Status); ok {
		_ = a.Send(shim.Tell{Text: agentStatus}, within)
		return
	}
	s, ok := m.(shim.Start)
	if !ok {
		return
	}
	ask := func(m shim.FromAgent) (string, bool) {
		if a.Send(m, within) != nil {
			return "", false
		}
		r, err := a.Receive(within)
		ans, ok := r.(shim.Answer)
		return string(ans.Value.Reveal()), err == nil && ok
	}
	deny := func(s string) { _ = a.Send(shim.Deny{Text: s}, within) }
	switch s.User {
	case "alice":
		if s.Mode == shim.ModeFull {
			if pw, ok := ask(shim.Secret{N: 1, Text: "Password: "}); !ok || pw != "pw" {
				deny("Sign-in failed.")
				return
			}
		}
		_ = a.Send(shim.Tell{Text: "Signing in through " + s.Service + "."}, within)
		choice, ok := ask(shim.Choose{N: 2, Text: "Second factor:", Options: []string{"backup code", "authenticator app"}})
		if !ok || choice != "2" {
			deny("No such choice.")
			return
		}
		if code, ok := ask(shim.Secret{N: 3, Text: "Code: "}); !ok || code != "123456" {
			_ = a.Send(shim.Warn{Text: "This code is wrong."}, within)
			deny("Too many wrong codes.")
			return
		}
		_ = a.Send(shim.Allow{User: "alice"}, within)
	case "known": // whose window is open
		_ = a.Send(shim.Allow{User: "known"}, within)
	case "told": // as root is
		_ = a.Send(shim.Tell{Text: text.WhyHead + event.Reasons["no-factors-asked"]}, within)
		_ = a.Send(shim.Allow{User: "told"}, within)
	case "guest":
		_ = a.Send(shim.Ignore{}, within)
	case "stranger":
		_ = a.Send(shim.Tell{Text: text.WhyHead + event.Reasons["user-unknown-skipped"]}, within)
		_ = a.Send(shim.Ignore{}, within)
	case "old":
		_ = a.Send(shim.TooOld{Text: "This agent is too old. Update it."}, within)
	}
}

func rigOf(ts *testscript.TestScript) *desktest.Rig {
	r, ok := ts.Value("rig").(*desktest.Rig)
	if !ok {
		ts.Fatalf("no rig")
	}
	return r
}

func tb(ts *testscript.TestScript) scriptTB { return scriptTB{ts: ts} }

// scriptTB lets the rig's functions, which take a testing.TB, fail a script.
type scriptTB struct {
	testing.TB
	ts *testscript.TestScript
}

func (s scriptTB) Helper()           {}
func (s scriptTB) Fatal(args ...any) { s.ts.Fatalf("%v", args) }

// cmdMachine: machine NAME STATUS [NAME-OF-VARIABLE] makes a machine as if it had joined.
func cmdMachine(ts *testscript.TestScript, _ bool, args []string) {
	m := rigOf(ts).Machine(tb(ts), args[0], args[1])
	if len(args) > 2 {
		ts.Setenv(args[2], "mch_"+m.ID)
	}
}

func ids(ts *testscript.TestScript, userName, machineName string) (userID, machineID string) {
	r := rigOf(ts)
	err := r.Store.Read(context.Background(), func(q *store.Queries) error {
		u, err := q.GetUserByName(context.Background(), userName)
		if err != nil {
			return err
		}
		m, err := q.ListMachinesByName(context.Background(), machineName)
		if err != nil || len(m) != 1 {
			return errors.Join(err, errors.New("no such machine"))
		}
		userID, machineID = u.ID, m[0].ID
		return nil
	})
	if err != nil {
		ts.Fatalf("%v", err)
	}
	return userID, machineID
}

// cmdEnrolled: enrolled USER MACHINE CLASS makes offline data for three days and 20 sign-ins.
func cmdEnrolled(ts *testscript.TestScript, _ bool, args []string) {
	u, m := ids(ts, args[0], args[1])
	rigOf(ts).Vault(tb(ts), u, m, args[2], clock.Micros(time.Now().Add(72*time.Hour)), 20)
}

// cmdWindow: window USER MACHINE opens a window of the present boot.
func cmdWindow(ts *testscript.TestScript, _ bool, args []string) {
	u, m := ids(ts, args[0], args[1])
	rigOf(ts).Window(tb(ts), u, m, "boot-1", clock.Micros(time.Now().Add(8*time.Hour)))
}

// cmdLocked: locked USER MACHINE locks the user out there.
func cmdLocked(ts *testscript.TestScript, _ bool, args []string) {
	u, m := ids(ts, args[0], args[1])
	rigOf(ts).Lock(tb(ts), u, m, clock.Micros(time.Now().Add(15*time.Minute)))
}

// cmdReported: reported USER MACHINE TEXT: the user reports the machine lost, as in the portal.
func cmdReported(ts *testscript.TestScript, _ bool, args []string) {
	u, m := ids(ts, args[0], args[1])
	a := desk.Actor{Name: args[0], Role: rest.RoleNone, UserID: u, Session: "s", Fresh: true}
	if _, err := rigOf(ts).LoseOwnMachine(context.Background(), a, rest.MachinePrefix+m, rest.NewReport{Told: args[2]}); err != nil {
		ts.Fatalf("%v", err)
	}
}

// cmdField: field FILE PATH VALUE compares a field of a JSON document ("0.name", "left.days"); with ! it must differ.
func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	got, err := pick(v, args[1])
	if err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	if (got == args[2]) == neg {
		ts.Fatalf("%s: %s is %q", args[0], args[1], got)
	}
}

// cmdExport: export NAME FILE PATH sets a variable to a field of a JSON document.
func cmdExport(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile(args[1])), &v); err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	got, err := pick(v, args[2])
	if err != nil {
		ts.Fatalf("%s: %v", args[1], err)
	}
	ts.Setenv(args[0], got)
}

func pick(v any, path string) (string, error) {
	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			if part == "len" {
				v = float64(len(x))
				continue
			}
			i := 0
			if err := json.Unmarshal([]byte(part), &i); err != nil || i >= len(x) {
				return "", errors.New("no place " + part)
			}
			v = x[i]
		default:
			return "", errors.New("nothing at " + part)
		}
	}
	if s, ok := v.(string); ok {
		return s, nil
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// cmdTOTP: totp FILE checks that the key and the URI of the JSON document belong together and make codes.
func cmdTOTP(ts *testscript.TestScript, _ bool, args []string) {
	var v struct{ Key, URI, QR string }
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0])), &v); err != nil {
		ts.Fatalf("%v", err)
	}
	seed, err := otp.ParseSeed(v.Key)
	if err != nil {
		ts.Fatalf("key: %v", err)
	}
	if want := otp.DefaultParams.URI("Latchkey", args[1], seed); v.URI != want {
		ts.Fatalf("URI is %q, want %q", v.URI, want)
	}
	if !strings.Contains(v.QR, "█") {
		ts.Fatalf("no QR code")
	}
}

// cmdToken: token FILE URL checks that the file's first line is a join token for the URL with the CA's fingerprint.
func cmdToken(ts *testscript.TestScript, _ bool, args []string) {
	line, _, _ := strings.Cut(ts.ReadFile(args[0]), "\n")
	t, err := wire.DecodeToken(line)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if t.URL != args[1] || t.CA != rigOf(ts).CA.Fingerprint() || t.Secret.Len() != wire.TokenSecretSize {
		ts.Fatalf("token for %s", t.URL)
	}
}

// cmdTyped: typed FILE NAME fails unless the password in the file opens the user's account.
func cmdTyped(ts *testscript.TestScript, neg bool, args []string) {
	var ok bool
	pw := secret.FromString(strings.TrimSpace(ts.ReadFile(args[0])))
	err := rigOf(ts).Store.Read(context.Background(), func(q *store.Queries) error {
		u, err := q.GetUserByName(context.Background(), args[1])
		if err != nil {
			return err
		}
		ok = rigOf(ts).Passwords.(interface {
			Verify(context.Context, *storeUser, secret.Bytes) outcome
		}).Verify(context.Background(), &u, pw).Proved()
		return nil
	})
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if ok == neg {
		ts.Fatalf("the password of %s: %v", args[1], ok)
	}
}

// cmdLong: long NAME N sets a variable to a text of N letters.
func cmdLong(ts *testscript.TestScript, _ bool, args []string) {
	n := 0
	if err := json.Unmarshal([]byte(args[1]), &n); err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Setenv(args[0], strings.Repeat("a", n))
}

// cmdTamper changes an event behind the program's back.
func cmdTamper(ts *testscript.TestScript, _ bool, _ []string) {
	tamper(ts)
}

// cmdCode: code N PROGRAM ARG… runs the program and compares its exit code.
func cmdCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var ee *exec.ExitError
	switch {
	case errors.As(err, &ee):
		got = ee.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if want := args[0]; strconv.Itoa(got) != want {
		ts.Fatalf("exit code %d, want %s", got, want)
	}
}
