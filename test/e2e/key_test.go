//go:build e2e

package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/assertion/softkey"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

// peopleURL is the address to which passkeys are bound here.
const peopleURL = "https://latchkey.example.org"

// plugIn plugs a software key into the machine, until out is called. The agent of the tests takes sockets of a folder for
// keys; everything behind them, from the frames of the transport on, is as with hardware.
func (s *station) plugIn(name string, k *softkey.Key) (out func()) {
	s.t.Helper()
	at := filepath.Join(s.keys(), name+".sock")
	l, err := net.Listen("unix", at)
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go k.Serve(c)
		}
	}()
	out = func() { _ = l.Close(); _ = os.Remove(at) }
	s.t.Cleanup(out)
	return out
}

func (s *station) keys() string { return filepath.Join(s.dir, "keys-"+s.name) }

// readyForKeys lets the agent, when it is started next, look for software keys.
func (s *station) readyForKeys() {
	s.t.Helper()
	if err := os.MkdirAll(s.keys(), 0o700); err != nil {
		s.t.Fatal(err)
	}
	s.extra = append(s.extra, "LATCHKEY_TEST_KEYS="+s.keys())
	s.restartAgent()
	s.online()
}

// register registers a key in the portal, as a browser does.
func (w *world) register(p *person, k *softkey.Key) {
	w.t.Helper()
	base := w.door()
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // the door's own certificate
	call := func(bearer, path string, in, out any) {
		w.t.Helper()
		b, err := json.Marshal(in)
		if err != nil {
			w.t.Fatal(err)
		}
		r, err := http.NewRequest("POST", base+"/api/v1"+path, bytes.NewReader(b))
		if err != nil {
			w.t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		a, err := client.Do(r)
		if err != nil {
			w.t.Fatal(err)
		}
		defer a.Body.Close()
		raw, _ := io.ReadAll(a.Body)
		if a.StatusCode/100 != 2 {
			w.t.Fatalf("%s: %s %s", path, a.Status, raw)
		}
		if err := json.Unmarshal(raw, out); err != nil {
			w.t.Fatalf("%s: %v", path, err)
		}
	}
	var in rest.SignedIn
	call("", "/sessions", rest.Credentials{Name: p.name, Password: rest.HideText(p.pw)}, &in)
	call("", "/sessions/answer", rest.Answer{Signin: in.Signin, Kind: "totp", Code: rest.HideText(w.code(p))}, &in)
	var begun rest.PendingPasskey
	call(in.Secret.Show(), "/me/passkeys/begin", struct{}{}, &begun)
	made, err := k.Create(begun.Options, peopleURL)
	if err != nil {
		w.t.Fatal(err)
	}
	var f rest.Factor
	call(in.Secret.Show(), "/me/passkeys", rest.ConfirmPasskey{Ticket: begun.Ticket, Credential: rest.HideText(string(made)), Name: "Blue key"}, &f)
	if f.Kind != "fido2" {
		w.t.Fatalf("%+v", f)
	}
}

// told fails unless the person has read the words; a terminal breaks lines where it likes.
func told(t *testing.T, r Result, words string) {
	t.Helper()
	if !strings.Contains(strings.Join(strings.Fields(r.Output), " "), words) {
		t.Errorf("the person was not told %q:\n%s", words, r.Output)
	}
}

// A security key opens a machine at its own seat, with the server and without, and nowhere else (M2, O3).
func TestSecurityKeysAtTheMachine(t *testing.T) {
	classes(t, func(t *testing.T, withTPM bool) {
		w := newWorld(t, "")
		w.server.Kill("TERM")
		w.options = append(w.options, "--people-url", peopleURL)
		w.startServer()
		s := w.station("desk", withTPM)
		w.set("window=0s")
		s.readyForKeys()
		s.m.SSHD()
		alice := w.addUser("alice")
		k := &softkey.Key{PIN: "24680"}
		w.register(alice, k)
		s.here().PAM("login", s.m.Shipped("latchkey-full"))
		s.here().PAM("sshd", s.m.Shipped("latchkey-full"))
		login := func(t *testing.T, turns []Turn) Result { t.Helper(); return s.In(t).here().Login("alice", turns) }
		desk := s // what is plugged into it outlives a subtest
		out := desk.plugIn("blue", k)

		t.Run("online by touch", func(t *testing.T) {
			s := s.In(t)
			before := s.mark()
			opened(t, login(t, append(Say("assword", alice.pw), Say("[1-2]: ", "1")...)), true)
			if e := s.last("signin.allowed", "alice", before); e.Factor != "fido2" || e.Link != "up" || e.Scope != "logon" {
				t.Errorf("%+v", e)
			}
		})
		t.Run("online with the PIN where the policy wants it", func(t *testing.T) {
			s := s.In(t)
			s.set("key_verification=true")
			defer s.set("key_verification=false")
			before := s.mark()
			opened(t, login(t, append(Say("assword", alice.pw), Say("[1-2]: ", "1", "PIN of the security key: ", "11111", "PIN of the security key", k.PIN)...)), true)
			e := s.last("factor.accepted", "alice", before)
			if e.Factor != "fido2" || !strings.Contains(string(e.Data), `"verified":true`) {
				t.Errorf("%+v %s", e, e.Data)
			}
		})
		t.Run("over ssh it is not offered", func(t *testing.T) {
			r := s.In(t).here().SSH("alice", Say("assword", alice.pw, "One-time code: ", w.In(t).code(alice)), once...)
			opened(t, r, true)
		})
		t.Run("a key of somebody else is not asked, and the right one may come later", func(t *testing.T) {
			s := s.In(t)
			out()
			other := &softkey.Key{}
			other.Register("latchkey.example.org")
			away := s.plugIn("red", other)
			defer away()
			go func() {
				time.Sleep(2 * time.Second)
				out = desk.plugIn("blue", k)
			}()
			r := login(t, append(Say("assword", alice.pw), Say("[1-2]: ", "1")...))
			opened(t, r, true)
			if other.Asked.Load() != 0 {
				t.Error("somebody else's key was to be touched")
			}
			told(t, r, text.KeyInsert)
		})
		s.enrolled(alice)
		t.Run("the server's packets are dropped", func(t *testing.T) {
			s := s.In(t)
			s.cut()
			opened(t, login(t, append(Say("assword", alice.pw), Say("Enter for the security key: ", "")...)), true)
			// The code of the app is good as well.
			opened(t, login(t, append(Say("assword", alice.pw), Say("Enter for the security key: ", w.In(t).code(alice))...)), true)
			// From afar the key is not asked for, and Enter is no answer.
			r := s.here().SSH("alice", Say("assword", alice.pw, "One-time code or backup code: ", "", "One-time code or backup code: ", w.In(t).code(alice)), once...)
			opened(t, r, true)
			told(t, r, text.WrongCode)
			// A copy, of a counter from before.
			k.Turn(0)
			r = login(t, append(Say("assword", alice.pw), Say("Enter for the security key: ", "", "Enter for the security key: ", w.In(t).code(alice))...))
			opened(t, r, true)
			told(t, r, text.KeyCloned)
			k.Turn(1000)
			out()
			r = login(t, append(Say("assword", alice.pw), Say("One-time code or backup code: ", "", "One-time code or backup code: ", w.In(t).code(alice))...))
			opened(t, r, true)
			told(t, r, text.WrongCode)
		})
		t.Run("what the key has signed offline is verified by the server", func(t *testing.T) {
			s, w := s.In(t), w.In(t)
			s.mend()
			s.online()
			s.delivered()
			n := 0
			for _, e := range w.events("--type", "signin.allowed") {
				if e.Link == "down" && e.Factor == "fido2" && strings.Contains(string(e.Data), `"spent"`) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d offline sign-ins by key: %s", n, short(w.events("--type", "signin.allowed")))
			}
			for _, e := range w.events("--type", "journal.forged") {
				t.Errorf("not believed: %+v", e)
			}
		})
	})
}

// TestAChainOfThree: a security key, a code of the app and a backup code, one after the other, open login without the
// server; two of them do not, and the server learns of each (P1, M2, M5, O3).
func TestAChainOfThree(t *testing.T) {
	classes(t, func(t *testing.T, withTPM bool) {
		w := newWorld(t, "")
		w.server.Kill("TERM")
		w.options = append(w.options, "--people-url", peopleURL)
		w.startServer()
		s := w.station("desk", withTPM)
		w.set("window=0s")
		s.readyForKeys()
		alice := w.addUser("alice")
		k := &softkey.Key{}
		w.register(alice, k)
		w.addBackup(alice)
		w.set("factors_online=3", "factors_offline=3")
		s.plugIn("blue", k)
		n := 0
		backup := func() string { n++; return alice.backup[n-1] }
		code := func() string { return w.code(alice) }
		login := func(t *testing.T, turns []Turn) Result {
			t.Helper()
			return s.In(t).here().Login("alice", append(Say("assword", alice.pw), turns...))
		}

		t.Run("online", func(t *testing.T) {
			s := s.In(t)
			before := s.mark()
			// All are needed, so that there is nothing to choose; the key is touched.
			opened(t, login(t, Say("Step 2 of 3. One-time code: ", code, "Step 3 of 3. Backup code: ", backup)), true)
			if e := s.last("signin.allowed", "alice", before); e.Factor != "fido2+totp+backup" {
				t.Errorf("%+v", e)
			}
		})
		s.enrolled(alice)
		s.cut()
		const key = "Enter for the security key: "
		t.Run("offline", func(t *testing.T) {
			opened(t, login(t, Say("Step 1 of 3. ", "", "Step 2 of 3. ", code, "Step 3 of 3. ", backup)), true)
		})
		t.Run("offline in another order", func(t *testing.T) {
			opened(t, login(t, Say("Step 1 of 3. ", backup, "Step 2 of 3. ", code, key, "")), true)
		})
		t.Run("one kind twice is not two, and two are not three", func(t *testing.T) {
			again := Turn{Prompt: "Step 1 of 3. ", Answer: giveUp.Answer, Keys: true} // all of it, so that nobody learns which was wrong
			r := login(t, append(Say("Step 1 of 3. ", "", "Step 2 of 3. ", backup, "Step 3 of 3. ", backup), again))
			opened(t, r, false)
			if told(t, r, text.WrongCode); r.Unasked == again.Prompt {
				t.Error("it was not asked for again")
			}
		})
		t.Run("the server learns with which kinds", func(t *testing.T) {
			s := s.In(t)
			s.mend()
			s.delivered()
			down := 0
			for _, e := range s.events("--type", "signin.allowed") {
				if e.Link != "down" {
					continue
				}
				down++
				for _, kind := range []string{"fido2", "totp", "backup"} {
					if !strings.Contains(e.Factor, kind) {
						t.Errorf("without %s: %+v", kind, e)
					}
				}
			}
			if down != 2 {
				t.Errorf("%d sign-ins without the server", down)
			}
			for _, e := range s.events("--type", "journal.forged") {
				t.Errorf("not believed: %+v", e)
			}
		})
	})
}
