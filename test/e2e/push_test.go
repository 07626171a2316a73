//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/text"
)

// phone is a person's phone with Latchkey Authenticator, in software, at the people's door.
type phone struct {
	*phonetest.Phone
	t testing.TB
}

// atWorld is a clock that goes as the world does.
type atWorld struct {
	clock.Clock
	w *realm
}

func (c atWorld) Now() time.Time { return time.Now().Add(c.w.offset) }

// phoneLink is what a phone of the person opens to be enrolled: a code that an administrator has made.
func (w *world) phoneLink(p *person) string {
	w.t.Helper()
	socket := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.srv.Path(serverData+"/admin.sock"))
	}}}
	res, err := socket.Post("http://latchkey"+rest.Base+"/users/"+p.name+"/factors/push", "application/json", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	var code rest.PhoneCode
	if err != nil || res.StatusCode != http.StatusCreated || json.Unmarshal(raw, &code) != nil {
		w.t.Fatalf("no code for a phone: %s %v %s", res.Status, err, raw)
	}
	return code.Link.Show()
}

// phone enrols a phone for the person.
func (w *world) phone(p *person) *phone {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 8}}
	ph, err := phonetest.New(client, atWorld{clock.Real, w.realm})
	if err != nil {
		w.t.Fatal(err)
	}
	ph.Base = w.door()
	if err := ph.Enrol(w.t.Context(), w.phoneLink(p), "phone of "+p.name); err != nil {
		w.t.Fatal(err)
	}
	return &phone{ph, w.t}
}

func (p *phone) In(t testing.TB) *phone { return &phone{p.Phone, t} }

// asked waits for the request, and gives it with what the phone shows.
func (p *phone) asked() (push.Request, push.Content) {
	p.t.Helper()
	r, c, err := p.Next(p.t.Context(), 15*time.Second)
	if err != nil {
		p.t.Fatal(err)
	}
	return r, c
}

func (p *phone) approve(r push.Request, number string) {
	p.t.Helper()
	if err := p.Approve(p.t.Context(), r, number); err != nil {
		p.t.Fatal(err)
	}
}

var shownNumber = regexp.MustCompile(`type the number (\d\d) there`)

// number waits for the newest number that stands at the sign-in.
func number(t testing.TB, term *Terminal) string {
	t.Helper()
	if !term.Expect("type the number ", Patience) || !term.Expect(" there", Patience) {
		t.Fatalf("no number is shown:\n%s", term.Output())
	}
	all := shownNumber.FindAllStringSubmatch(term.Output(), -1)
	return all[len(all)-1][1]
}

// dialogue types the answers to prompts, and goes on only if each prompt comes.
func dialogue(t testing.TB, term *Terminal, pairs ...string) {
	t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		if !term.Expect(pairs[i], Patience) {
			t.Fatalf("%q did not come:\n%s", pairs[i], term.Output())
		}
		time.Sleep(200 * time.Millisecond)
		term.Type(pairs[i+1])
	}
}

// ends waits for the end and tells whether the sign-in has opened.
func ends(t testing.TB, term *Terminal, want bool) {
	t.Helper()
	term.Exit(Patience)
	if out := term.Output(); strings.Contains(out, marker) != want {
		t.Errorf("opened: %v\n%s", !want, out)
	}
}

const phoneOfTwo = "[1-2]: " // the phone stands before the authenticator app

// TestPhones: an approval on a phone, with number matching, opens sshd, login, su and sudo;
// a denial, a wrong number and silence do not; and what else there is can be chosen
// (S2, S12, M3, M7).
func TestPhones(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.m.SSHD()
	ph := w.phone(alice)
	login := func(s *station) *Terminal { return s.here().Terminal("", "login", "alice") }
	ssh := func(s *station) *Terminal { return s.here().SSHTerminal("alice", markerCmd, once...) }
	forgive := func() { w.cli("user", "unlock", "alice") }

	t.Run("over ssh the number stands in a prompt, and Enter goes on", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		before := s.mark()
		term := ssh(s)
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(t, term)
		r, c := ph.asked()
		// Whose, where, and when; and not the number that it is to ask for.
		want := push.Content{
			Machine: "desk", Place: text.PlaceNetwork, Address: "127.0.0.1", Scope: "remote", Service: "sshd", Door: "machine", User: "alice",
			At: c.At, Expires: c.Expires, Nonce: c.Nonce,
		}
		if c != want || c.Expires-c.At != int64(push.Life/time.Second) {
			t.Errorf("the phone shows %+v", c)
		}
		ph.approve(r, n)
		dialogue(t, term, "press Enter", "")
		ends(t, term, true)
		if e := s.last("signin.allowed", "alice", before); e.Factor != "push" || e.Service != "sshd" {
			t.Errorf("%+v", e)
		}
		// The same answer again is worth nothing.
		if _, err := ph.Send(t.Context(), r.ID, ph.Draft(r, push.Approve, n)); err == nil {
			t.Error("an answer is taken twice")
		}
	})
	t.Run("Enter before the approval waits for it", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		term := ssh(s)
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(t, term)
		dialogue(t, term, "press Enter", "")
		r, _ := ph.asked()
		time.Sleep(time.Second)
		ph.approve(r, n)
		ends(t, term, true)
	})
	t.Run("at login it goes on by itself", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		var took []time.Duration
		for range 3 {
			term := login(s)
			dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
			n := number(t, term)
			r, c := ph.asked()
			if c.Service != "login" || c.Place != text.PlaceLocal {
				t.Errorf("the phone shows %+v", c)
			}
			begun := time.Now()
			ph.approve(r, n)
			if !term.Expect("$ ", Patience) {
				t.Fatalf("no shell:\n%s", term.Output())
			}
			took = append(took, time.Since(begun))
			term.Type(markerCmd + "; exit")
			ends(t, term, true)
		}
		slices.Sort(took)
		t.Logf("from the approval to the shell: %v", took)
		if took[0] > 2*time.Second {
			t.Errorf("from the approval to the shell: %v", took)
		}
	})
	t.Run("su and sudo too", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		s.m.SetPassword("root", rootPassword)
		s.here().Write("/etc/sudoers.d/e2e-alice", "Defaults:alice !lecture\nalice ALL=(ALL) ALL\n", 0o440)
		term := s.here().Terminal("alice", "su", "-s", "/bin/sh", "-c", markerCmd, "root")
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(t, term)
		r, c := ph.asked()
		if c.Scope != "elevation" || c.Service != "su" || c.User != "alice" {
			t.Errorf("the phone shows %+v", c)
		}
		ph.approve(r, n)
		dialogue(t, term, "assword: ", rootPassword)
		ends(t, term, true)

		term = s.here().Terminal("alice", "sudo", "-k", "sh", "-c", markerCmd)
		dialogue(t, term, "assword", alice.pw, phoneOfTwo, "1")
		n = number(t, term) // although sudo wants silence
		r, _ = ph.asked()
		ph.approve(r, n)
		ends(t, term, true)
	})
	t.Run("denied on the phone", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		before := s.mark()
		term := ssh(s)
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		number(t, term)
		r, _ := ph.asked()
		if err := ph.Deny(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		dialogue(t, term, "press Enter", "")
		ends(t, term, false)
		if !strings.Contains(term.Output(), text.PushDenied) {
			t.Errorf("why is not said:\n%s", term.Output())
		}
		if e := s.last("signin.denied", "alice", before); e.Reason != "push-denied" {
			t.Errorf("%+v", e)
		}
		forgive()
	})
	t.Run("a wrong number on the phone", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		before := s.mark()
		term := login(s)
		term.refusal = []string{"Login incorrect"}
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(t, term)
		r, _ := ph.asked()
		other := "11"
		if n == other {
			other = "12"
		}
		if state, err := ph.Send(t.Context(), r.ID, ph.Draft(r, push.Approve, other)); err == nil && state == push.StateApproved {
			t.Fatalf("another number than %s is taken", n)
		}
		if !term.Expect("is not the one that is shown", Patience) {
			t.Errorf("why is not said:\n%s", term.Output())
		}
		term.Expect("Login incorrect", Patience)
		term.Close()
		if e := s.last("signin.denied", "alice", before); e.Reason != "push-wrong-number" {
			t.Errorf("%+v", e)
		}
		forgive()
	})
	t.Run("nobody answers: the menu again, and another way", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		before := s.mark()
		term := ssh(s)
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(t, term)
		r, _ := ph.asked()
		s.pass(push.Life + 2*time.Second)
		dialogue(t, term, "press Enter", "")
		if !term.Expect(text.PushExpired, Patience) {
			t.Fatalf("it is not said that nobody answered:\n%s", term.Output())
		}
		dialogue(t, term, phoneOfTwo, "2", "code: ", s.code(alice))
		ends(t, term, true)
		if e := s.last("factor.rejected", "alice", before); e.Reason != "nobody-answered" || e.Factor != "push" {
			t.Errorf("%+v", e)
		}
		if _, err := ph.Send(t.Context(), r.ID, ph.Draft(r, push.Approve, n)); err == nil {
			t.Error("an answer that comes late is taken")
		}
	})
	t.Run("back to the menu from the prompt", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		term := ssh(s)
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		number(t, term)
		first, _ := ph.asked()
		dialogue(t, term, "press Enter", "m", phoneOfTwo, "1")
		n := number(t, term)
		// The request of before is no more; the new one is answered.
		var r push.Request
		for end := time.Now().Add(10 * time.Second); r.ID == "" || r.ID == first.ID; {
			if time.Now().After(end) {
				t.Fatal("no new request came")
			}
			r, _ = ph.asked()
		}
		ph.approve(r, n)
		dialogue(t, term, "press Enter", "")
		ends(t, term, true)
	})
	t.Run("one request at a time", func(t *testing.T) {
		s, ph := s.In(t), ph.In(t)
		one, two := ssh(s), ssh(s)
		dialogue(t, one, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(t, one)
		dialogue(t, two, "assword: ", alice.pw, phoneOfTwo, "1")
		if !two.Expect("Another request for this machine waits", Patience) {
			t.Fatalf("a second request goes out:\n%s", two.Output())
		}
		r, _ := ph.asked()
		ph.approve(r, n)
		dialogue(t, one, "press Enter", "")
		ends(t, one, true)
		dialogue(t, two, phoneOfTwo, "2", "code: ", s.code(alice))
		ends(t, two, true)
	})
	// There are only a few requests that come to nothing in a while: others go on.
	t.Run("Ctrl-C while the phone is waited for", func(t *testing.T) {
		s := s.In(t)
		p := s.addUser("bob")
		ph := s.phone(p)
		for name, start := range map[string]func() *Terminal{
			"login": func() *Terminal { return s.here().Terminal("", "login", p.name) },
			"su":    func() *Terminal { return s.here().Terminal(p.name, "su", "-s", "/bin/sh", "-c", markerCmd, "root") },
			"sudo":  func() *Terminal { return s.here().Terminal(p.name, "sudo", "-k", "sh", "-c", markerCmd) },
		} {
			s.here().Write("/etc/sudoers.d/e2e-bob", "Defaults:bob !lecture\nbob ALL=(ALL) ALL\n", 0o440)
			before := s.mark()
			term := start()
			dialogue(t, term, "assword", p.pw, phoneOfTwo, "1")
			number(t, term)
			ph.asked()
			time.Sleep(300 * time.Millisecond)
			begun := time.Now()
			term.Press("\x03")
			s.here().Until(8*time.Second, name+" gives the sign-in up", func() bool {
				return len(s.since(before, "--type", "signin.abandoned")) > 0
			})
			if d := time.Since(begun); d > 4*time.Second {
				t.Errorf("%s: given up after %s", name, d)
			}
			term.Close()
			if out := term.Output(); strings.Contains(out, marker) {
				t.Errorf("%s has opened\n%s", name, out)
			}
		}
	})
	t.Run("it wasn't me", func(t *testing.T) {
		s := s.In(t)
		p := s.addUser("carol")
		ph := s.phone(p)
		before := s.mark()
		term := s.here().SSHTerminal(p.name, markerCmd, once...)
		dialogue(t, term, "assword: ", p.pw, phoneOfTwo, "1")
		number(t, term)
		r, _ := ph.asked()
		if err := ph.Report(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		dialogue(t, term, "press Enter", "")
		ends(t, term, false)
		if e := s.last("signin.denied", p.name, before); e.Reason != "push-reported" {
			t.Errorf("%+v", e)
		}
		s.cli("user", "unlock", p.name)
		// No more requests: the code is asked for at once.
		opened(t, s.here().SSH(p.name, s.full(p), once...), true)
	})
}

// TestAPhoneInAChain: the phone, and an authenticator app behind it (P1).
func TestAPhoneInAChain(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s", "factors_online=2")
	alice := w.addUser("alice")
	w.addBackup(alice)
	s.m.SSHD()
	ph := w.phone(alice)
	for i, start := range []func() *Terminal{
		func() *Terminal { return s.here().SSHTerminal("alice", markerCmd, once...) },
		func() *Terminal { return s.here().Terminal("", "login", "alice") },
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s, ph := s.In(t), ph.In(t)
			before := s.mark()
			term := start()
			dialogue(t, term, "assword: ", alice.pw)
			if !term.Expect("Step 1 of 2. "+text.PromptFactor, Patience) {
				t.Fatalf("the step is not shown:\n%s", term.Output())
			}
			dialogue(t, term, "[1-3]: ", "1")
			if !term.Expect("Step 1 of 2. Open Latchkey Authenticator", Patience) {
				t.Fatalf("the step is not shown:\n%s", term.Output())
			}
			n := number(t, term)
			r, _ := ph.asked()
			ph.approve(r, n)
			if i == 0 {
				dialogue(t, term, "press Enter", "")
			}
			if !term.Expect("Step 2 of 2. "+text.PromptFactor, Patience) {
				t.Fatalf("the step is not shown:\n%s", term.Output())
			}
			dialogue(t, term, "[1-2]: ", "2", "Step 2 of 2. "+text.PromptBackup, alice.backup[i])
			if i == 1 {
				dialogue(t, term, "$ ", markerCmd+"; exit")
			}
			ends(t, term, true)
			if e := s.last("signin.allowed", "alice", before); e.Factor != "push+backup" {
				t.Errorf("%+v", e)
			}
		})
	}
}
