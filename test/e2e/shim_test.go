//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/secret"
	"latchkey/internal/shim"
)

// Tests of the module on real programs, against a scripted agent. What the real
// agent makes of it is tested elsewhere.

// passwordAndCode is the usual script: password "latchkey pw", code "123456", three
// tries each.
func passwordAndCode(c *Caller) {
	if c.Phase != shim.PhaseAuth {
		c.Say(shim.Allow{User: c.User})
		return
	}
	if c.Mode == shim.ModeFull && c.First != shim.FirstSSHKey && !c.HasAuthtok {
		pw, ok := c.Secret("Password: ")
		if !ok {
			return
		}
		if pw != "latchkey pw" {
			c.Say(shim.Deny{Text: "Sign-in failed."})
			return
		}
	}
	for range 3 {
		code, ok := c.Ask("One-time code: ")
		if !ok {
			return
		}
		if code == "123456" {
			c.Say(shim.Allow{User: c.User})
			return
		}
		c.Say(shim.Warn{Text: "This code is wrong."})
	}
	c.Say(shim.Deny{Text: "Too many wrong codes."})
}

// sameSecrets compares what cmp may not look into.
var sameSecrets = cmp.Comparer(func(a, b secret.Bytes) bool { return a.Equal(b) })

var auth = []string{"authenticate"}

// machine has alice (and her uid) and the shipped stacks in every service.
func machine(t *testing.T, file string) (*Machine, int) {
	t.Helper()
	t.Parallel()
	m := NewMachine(t)
	uid := m.AddUser("alice", "unix pw")
	for _, service := range []string{"x", "sshd", "sudo", "su", "login"} {
		m.PAM(service, m.Shipped(file))
	}
	return m, uid
}

// opened fails the test unless the sign-in went through as wanted.
func opened(t testing.TB, r Result, want bool) {
	t.Helper()
	if r.Opened != want || (want && r.Unasked != "") {
		t.Errorf("opened: %v, exit %d after %v, prompt that did not come: %q\n%s", r.Opened, r.Exit, r.Took, r.Unasked, r.Output)
	}
}

// shows fails the test unless the person saw (or did not see) the text.
func shows(t testing.TB, r Result, text string, want bool) {
	t.Helper()
	if strings.Contains(r.Output, text) != want {
		t.Errorf("shows %q: %v\n%s", text, !want, r.Output)
	}
}

func TestPamtester(t *testing.T) {
	m, uid := machine(t, "latchkey-full")
	type person struct {
		turns []Turn
		open  bool
		sees  string // what is shown
	}
	for name, c := range map[string]struct {
		script func(*Caller)
		person
		operations []string
	}{
		"password and code open all phases": {
			passwordAndCode,
			person{Say("assword: ", "latchkey pw", "code: ", "123456"), true, "account management done"},
			[]string{"authenticate", "acct_mgmt", "setcred", "open_session", "close_session"},
		},
		"a wrong code may be followed by the right one": {
			passwordAndCode, person{Say("assword: ", "latchkey pw", "code: ", "000000", "code: ", "123456"), true, "This code is wrong."}, auth,
		},
		"three wrong codes are denied": {
			passwordAndCode,
			person{Say("assword: ", "latchkey pw", "code: ", "1", "code: ", "2", "code: ", "3"), false, "Too many wrong codes."},
			auth,
		},
		"a wrong password is denied before the code": {
			passwordAndCode, person{Say("assword: ", "unix pw"), false, "Sign-in failed."}, auth,
		},
		"a menu, a text and a wait": {
			func(c *Caller) {
				if n, ok := c.Choose("Second factor", "One-time code", "Push"); !ok || n != "2" {
					return
				}
				c.Say(shim.Tell{Text: "Number 42\non your phone"})
				if _, ok := c.Wait("Approve on your phone"); ok {
					c.Say(shim.Allow{User: "alice"})
				}
			},
			person{
				Say("  2) Push\n[1-2]: ", "2", "Enter to check): ", ""), true,
				"Second factor\n  1) One-time code\n  2) Push\n[1-2]: 2\nNumber 42\non your phone\nApprove on your phone (press Enter to check): ",
			},
			auth,
		},
		"control characters do not reach the terminal": {
			func(c *Caller) {
				_, _ = c.Raw.Write([]byte("\x00\x00\x00\x13warn\x00a\x1b[2Jb\x9bm\xc2\x9bm\xe2\x80\xae"))
				c.Say(shim.Deny{Text: "no"})
			},
			person{nil, false, "a?[2Jb?m?m?"},
			auth,
		},
		"must-change at the account phase": {
			func(c *Caller) {
				if c.Phase == shim.PhaseAccount {
					c.Say(shim.MustChange{})
					return
				}
				c.Say(shim.Allow{User: "alice"})
			},
			person{nil, false, "Authentication token is no longer valid; new one required"},
			[]string{"authenticate", "acct_mgmt"},
		},
		"an expired account at the account phase": {
			func(c *Caller) {
				if c.Phase == shim.PhaseAccount {
					c.Say(shim.Deny{Text: "This account has expired.", Expired: true})
					return
				}
				c.Say(shim.Allow{User: "alice"})
			},
			person{nil, false, "This account has expired.\npamtester: User account has expired"},
			[]string{"authenticate", "acct_mgmt"},
		},
		"another denial at the account phase": {
			func(c *Caller) {
				if c.Phase == shim.PhaseAccount {
					c.Say(shim.Deny{Text: "This account is disabled."})
					return
				}
				c.Say(shim.Allow{User: "alice"})
			},
			person{nil, false, "This account is disabled.\npamtester: Permission denied"},
			[]string{"authenticate", "acct_mgmt"},
		},
		"ignore leaves the decision to the machine, which asks once": {
			func(c *Caller) {
				if pw, ok := c.Secret("Password: "); ok {
					_ = c.Send(shim.Authtok{Value: secret.FromString(pw)}, time.Second)
					c.Say(shim.Ignore{})
				}
			},
			person{Say("assword: ", "unix pw"), true, "successfully authenticated"},
			auth,
		},
		"ignore does not let a wrong machine password in": {
			func(c *Caller) {
				if pw, ok := c.Secret("Password: "); ok {
					_ = c.Send(shim.Authtok{Value: secret.FromString(pw)}, time.Second)
					c.Say(shim.Ignore{})
				}
			},
			person{Say("assword: ", "latchkey pw"), false, "Authentication failure"},
			auth,
		},
		"an agent that asks in setcred is not answered": {
			func(c *Caller) {
				if c.Phase == shim.PhaseSetcred {
					_, _ = c.Secret("Password again: ")
					return
				}
				c.Say(shim.Allow{User: "alice"})
			},
			// setcred lets nobody in: it goes on without the agent.
			person{nil, true, "credential info has successfully been set"},
			[]string{"authenticate", "setcred"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := m.In(t)
			f := m.FakeAgent(c.script)
			defer f.Stop()
			r := m.Pamtester([]string{"-I", "rhost=192.0.2.7"}, "x", "alice", c.operations, c.turns)
			opened(t, r, c.open)
			shows(t, r, c.sees, true)
			q := f.Request(t, shim.PhaseAuth)
			want := shim.Request{
				Service: "x", User: "alice", PWName: "alice", UID: uint32(uid), Known: true, RUser: "root", PPID: q.PPID,
				RHost: "192.0.2.7", Mode: shim.ModeFull, First: shim.FirstNone,
			}
			if d := cmp.Diff(want, q.Request, sameSecrets); d != "" {
				t.Error(d)
			}
			if len(f.Heard()) != len(c.operations) {
				t.Errorf("%d phases were heard, want %d", len(f.Heard()), len(c.operations))
			}
		})
	}
}

func TestABrokenAgentIsADenial(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	raw := func(octets string) func(*Caller) {
		return func(c *Caller) { _, _ = c.Raw.Write([]byte(octets)) }
	}
	const gone, broke = "does not answer, so nobody can be signed in here", "broke off"
	for name, c := range map[string]struct {
		script func(*Caller)
		turns  []Turn
		sees   string
		most   time.Duration
	}{
		"goes at once":             {func(*Caller) {}, nil, gone, 2 * time.Second},
		"sends garbage":            {raw("GET / HTTP/1.1\r\n\r\n"), nil, gone, 2 * time.Second},
		"announces a huge frame":   {raw("\x7f\xff\xff\xff" + strings.Repeat("x", 100)), nil, gone, 2 * time.Second},
		"says an unknown verb":     {raw("\x00\x00\x00\x02ok"), nil, gone, 2 * time.Second},
		"stops in a frame":         {raw("\x00\x00\x00\x0eallow\x00alice"), nil, gone, 2 * time.Second},
		"allows nobody":            {raw("\x00\x00\x00\x07allow\x00\x00"), nil, gone, 2 * time.Second},
		"says allow in capitals":   {raw("\x00\x00\x00\x0cALLOW\x00alice\x00"), nil, gone, 2 * time.Second},
		"speaks another version":   {func(c *Caller) { c.Say(shim.TooOld{Text: "Restart this program."}) }, nil, "Restart this program.", 2 * time.Second},
		"goes after an answer":     {func(c *Caller) { _, _ = c.Secret("Password: ") }, Say("assword: ", "latchkey pw"), broke, 2 * time.Second},
		"sends garbage after that": {func(c *Caller) { _, _ = c.Secret("Password: "); raw("\x00\x00\x40\x01")(c) }, Say("assword: ", "x"), broke, 2 * time.Second},
		"trickles a frame": {
			func(c *Caller) {
				_, _ = c.Secret("Password: ")
				for _, b := range []byte("\x00\x00\x00\x0callow\x00alice\x00") {
					if _, err := c.Raw.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(250 * time.Millisecond)
				}
			},
			Say("assword: ", "latchkey pw"), broke, 4 * time.Second,
		},
		"hangs": {
			func(c *Caller) { _, _ = c.Raw.Read(make([]byte, 1)) },
			nil, gone, 4 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := m.In(t)
			m.PAM("x", m.Shipped("latchkey-full", "timeout=2"))
			f := m.FakeAgent(c.script)
			defer f.Stop()
			r := m.Pamtester(nil, "x", "alice", auth, c.turns)
			opened(t, r, false)
			shows(t, r, c.sees, true)
			shows(t, r, "Authentication service cannot retrieve authentication info", true)
			if n := strings.Count(r.Output, "Latchkey:"); n > 1 {
				t.Errorf("%d messages\n%s", n, r.Output)
			}
			if r.Took > c.most {
				t.Errorf("took %v", r.Took)
			}
		})
	}
}

func TestWithoutAnAgent(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	for name, c := range map[string]struct {
		service   string
		options   []string
		operation string
		open      bool
	}{
		"auth is denied": {"x", nil, "authenticate", false},
		"account of an unknown service is denied":    {"x", nil, "acct_mgmt", false},
		"account of sshd is denied":                  {"sshd", []string{"-I", "rhost=192.0.2.7"}, "acct_mgmt", false},
		"account of cron goes on":                    {"cron", nil, "acct_mgmt", true},
		"account of systemd's user instance goes on": {"systemd-user", nil, "acct_mgmt", true},
		"account of sudo goes on":                    {"sudo", []string{"-I", "ruser=alice"}, "acct_mgmt", true},
		"account of login from afar is denied":       {"login", []string{"-I", "rhost=192.0.2.7"}, "acct_mgmt", false},
		"setcred goes on":                            {"x", nil, "setcred", true},
		"a session opens":                            {"x", nil, "open_session", true},
		"a session closes":                           {"x", nil, "close_session", true},
		"chauthtok is denied":                        {"x", nil, "chauthtok", false},
	} {
		t.Run(name, func(t *testing.T) {
			m := m.In(t)
			m.PAM(c.service, m.Shipped("latchkey-full"))
			r := m.Pamtester(c.options, c.service, "alice", []string{c.operation}, nil)
			opened(t, r, c.open)
			if r.Took > 2*time.Second {
				t.Errorf("took %v", r.Took)
			}
		})
	}
	t.Run("root may still set a password", func(t *testing.T) {
		m := m.In(t)
		m.PAM("passwd", m.Shipped("latchkey-full"))
		r := m.Terminal("", "passwd", "alice").Talk(Say("ew password: ", "another unix pw", "new password: ", "another unix pw"))
		if r.Exit != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("a user may not", func(t *testing.T) {
		m := m.In(t)
		r := m.Terminal("alice", "passwd").Talk(nil)
		if r.Exit == 0 {
			t.Errorf("%+v", r)
		}
	})
}

func TestAStrangersSocketIsNoAgent(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	dir := m.Path("/run/latchkey")
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	m.AddUser("mallory", "x")
	// Says "allow" to everything.
	m.Write("/run/mallory", "#!/bin/sh\nprintf '\\000\\000\\000\\014allow\\000alice\\000'; sleep 1\n", 0o755)
	m.Start("setpriv", "--reuid", "mallory", "--regid", "mallory", "--clear-groups", "--",
		"socat", "UNIX-LISTEN:"+Socket+",fork,mode=666", "EXEC:/run/mallory")
	m.Until(5*time.Second, "mallory listens", func() bool {
		_, err := os.Stat(m.Path(Socket))
		return err == nil
	})
	opened(t, m.Pamtester(nil, "x", "alice", auth, nil), false)
	if !m.Logged("auth denied", "not root's") {
		t.Error("not logged")
	}
	t.Run("not even for an unprivileged program", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.PamtesterAs("alice", nil, "x", "alice", auth, nil), false)
	})
	t.Run("whoever asks his own process gets his own answer", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.PamtesterAs("mallory", nil, "x", "alice", auth, nil), true)
	})
}

func TestAnAgentThatIsKilledInTheDialogue(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	m.Write("/run/agent", "#!/bin/sh\nprintf '\\000\\000\\000\\023secret\\0001\\000Password: '; sleep 100\n", 0o755)
	p := m.Start("socat", "UNIX-LISTEN:"+Socket+",mode=666", "EXEC:/run/agent")
	m.Until(5*time.Second, "it listens", func() bool {
		_, err := os.Stat(m.Path(Socket))
		return err == nil
	})
	term := m.Terminal("", "pamtester", "x", "alice", "authenticate")
	if !term.Expect("assword: ", Patience) {
		t.Fatal(term.Output())
	}
	p.Kill("KILL")
	killed := time.Now()
	time.Sleep(200 * time.Millisecond)
	term.Type("latchkey pw")
	if code := term.Exit(Patience); code == 0 || code == -1 {
		t.Errorf("exit %d", code)
	}
	if d := time.Since(killed); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	if !strings.Contains(term.Output(), "broke off") {
		t.Error(term.Output())
	}
}

func TestAMisspeltOptionDenies(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	f := m.FakeAgent(func(c *Caller) { c.Say(shim.Allow{User: "alice"}) })
	for _, option := range []string{"mode=secnd", "debug", "timeout=0", "socket=agent.sock", "scope=everything"} {
		m.PAM("x", "auth required pam_latchkey.so "+option+"\naccount required pam_latchkey.so "+option+"\n")
		opened(t, m.Pamtester(nil, "x", "alice", auth, nil), false)
		opened(t, m.Pamtester(nil, "x", "alice", []string{"acct_mgmt"}, nil), false)
		if !m.Logged("auth denied", option) {
			t.Errorf("%s is not in the log", option)
		}
	}
	if n := len(f.Heard()); n != 0 {
		t.Errorf("the agent was asked %d times", n)
	}
}

func TestOptionsReachTheAgent(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	f := m.FakeAgent(func(c *Caller) { c.Say(shim.Allow{User: "alice"}) })
	m.PAM("x", "auth required pam_latchkey.so scope=elevation mode=second\n")
	opened(t, m.Pamtester(nil, "x", "alice", auth, nil), true)
	q := f.Request(t, shim.PhaseAuth)
	if q.Scope != shim.ScopeElevation || q.Mode != shim.ModeSecond || q.First != shim.FirstMachine {
		t.Errorf("%+v", q.Request)
	}
}

func TestUserNamesArriveAsTyped(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	f := m.FakeAgent(func(c *Caller) { c.Say(shim.Deny{Text: "no"}) })
	for _, name := range []string{"Alice", "nobody-here", "al\x1b[2Jice", " alice", "CORP\\alice", "alice@corp", "-x", "ä", "\xff\xfe", strings.Repeat("x", 10000), "a=b", "root\nroot"} {
		opened(t, m.Pamtester(nil, "x", name, auth, nil), false)
		heard := f.Heard()
		q := heard[len(heard)-1]
		if q.User != name || q.Known {
			t.Errorf("%.40q arrived as %.40q, known: %v", name, q.User, q.Known)
		}
	}
	before := len(f.Heard())
	opened(t, m.Pamtester(nil, "x", strings.Repeat("x", 20000), auth, nil), false)
	if len(f.Heard()) != before {
		t.Error("a name that does not fit a frame was sent")
	}
}

func TestModeSecond(t *testing.T) {
	m, _ := machine(t, "latchkey-second")
	f := m.FakeAgent(passwordAndCode)
	t.Run("a wrong machine password never reaches the agent", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.Pamtester(nil, "x", "alice", auth, Say("assword: ", "wrong")), false)
		if n := len(f.Heard()); n != 0 {
			t.Errorf("the agent was asked %d times", n)
		}
	})
	t.Run("the right one does, and is handed on", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.Pamtester(nil, "x", "alice", auth, Say("assword: ", "unix pw", "code: ", "123456")), true)
		q := f.Request(t, shim.PhaseAuth)
		if q.First != shim.FirstMachine || !q.HasAuthtok || string(q.Authtok.Reveal()) != "unix pw" || q.Junk {
			t.Errorf("%+v", q.Request)
		}
	})
	t.Run("a wrong code denies although the machine was content", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.Pamtester(nil, "x", "alice", auth, Say("assword: ", "unix pw", "code: ", "1", "code: ", "2", "code: ", "3")), false)
	})
	t.Run("no agent denies although the machine was content", func(t *testing.T) {
		m := m.In(t)
		f.Stop()
		opened(t, m.Pamtester(nil, "x", "alice", auth, Say("assword: ", "unix pw")), false)
	})
}

// mustChange lets in at once, and then wants a new password.
func mustChange(changed chan<- string) func(*Caller) {
	return func(c *Caller) {
		switch {
		case c.Phase == shim.PhaseAccount:
			c.Say(shim.MustChange{})
			return
		case c.Phase == shim.PhaseChauthtok && c.Flags&shim.FlagUpdateAuthtok != 0:
			a, _ := c.Secret("New password: ")
			b, ok := c.Secret("New password again: ")
			if !ok || a != b {
				c.Say(shim.Deny{Text: "They differ."})
				return
			}
			changed <- a
		}
		c.Say(shim.Allow{User: c.User})
	}
}

func TestAnAgentThatGoesAfterItsVerdictEndsNoSession(t *testing.T) {
	for _, file := range []string{"latchkey-full", "latchkey-second"} {
		t.Run(file, func(t *testing.T) {
			m, _ := machine(t, file)
			m.AddUser("bob", "bob's unix pw")
			m.SSHD()
			password := "latchkey pw"
			if file == "latchkey-second" {
				password = "unix pw"
			}
			for name, sign := range map[string]func(m *Machine, turns []Turn) Result{
				"ssh":   func(m *Machine, turns []Turn) Result { return m.SSH("alice", turns, "-o", "NumberOfPasswordPrompts=1") },
				"sudo":  func(m *Machine, turns []Turn) Result { return m.Sudo("alice", turns) },
				"login": func(m *Machine, turns []Turn) Result { return m.Login("alice", turns) },
			} {
				t.Run(name, func(t *testing.T) {
					m := m.In(t)
					f := m.FakeAgent(func(c *Caller) {
						// Only the two phases that decide are answered.
						if c.Phase == shim.PhaseAuth || c.Phase == shim.PhaseAccount {
							passwordAndCode(c)
						}
					})
					defer f.Stop()
					opened(t, sign(m, Say("assword", password, "code: ", "123456")), true)
				})
			}
		})
	}
}

func TestTextsBeforeAnApprovalAreSeen(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	m.SSHD()
	m.FakeAgent(func(c *Caller) {
		if c.Phase == shim.PhaseAuth {
			_, _ = c.Secret("Password: ")
			c.Say(shim.Tell{Text: "Three sign-ins are left."})
		}
		c.Say(shim.Allow{User: c.User})
	})
	turns := Say("assword", "latchkey pw")
	for program, r := range map[string]Result{
		"ssh":   m.SSH("alice", turns),
		"login": m.Login("alice", turns),
		"su":    m.Su("alice", "alice", turns),
	} {
		t.Run(program, func(t *testing.T) {
			opened(t, r, true)
			shows(t, r, "Three sign-ins are left.", true)
		})
	}
	t.Run("not in sudo, which asks for silence", func(t *testing.T) {
		r := m.In(t).Sudo("alice", turns)
		opened(t, r, true)
		shows(t, r, "Three sign-ins are left.", false)
	})
}

func TestSSH(t *testing.T) {
	m, uid := machine(t, "latchkey-full")
	sshd := m.SSHD()
	once := []string{"-o", "NumberOfPasswordPrompts=1"}
	t.Run("password and code", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		r := m.SSH("alice", Say("assword: ", "latchkey pw", "code: ", "123456"), once...)
		opened(t, r, true)
		q := f.Request(t, shim.PhaseAuth)
		want := shim.Request{
			Service: "sshd", User: "alice", PWName: "alice", UID: uint32(uid), Known: true, RUser: "root", PPID: q.PPID,
			TTY: "ssh", RHost: "127.0.0.1", Flags: shim.FlagDisallowNullAuthtok, Mode: shim.ModeFull, First: shim.FirstNone,
		}
		if d := cmp.Diff(want, q.Request, sameSecrets); d != "" {
			t.Error(d)
		}
		m.Until(5*time.Second, "the session closes", func() bool {
			for _, c := range f.Heard() {
				if c.Phase == shim.PhaseSessionClose {
					return true
				}
			}
			return false
		})
		for _, phase := range []shim.Phase{shim.PhaseAccount, shim.PhaseSetcred, shim.PhaseSessionOpen, shim.PhaseSessionClose} {
			if c := f.Request(t, phase); c.User != "alice" || c.Peer.Uid != 0 {
				t.Errorf("%s: %+v", phase, c.Request)
			}
		}
		if a, b := f.Request(t, shim.PhaseAuth), f.Request(t, shim.PhaseAccount); a.Peer.Pid != b.Peer.Pid {
			t.Error("auth and account came from different processes")
		}
	})
	t.Run("a menu, a text and a wait", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(func(c *Caller) {
			if c.Phase == shim.PhaseAuth {
				if n, ok := c.Choose("Second factor", "Code", "Push"); !ok || n != "2" {
					return
				}
				c.Say(shim.Tell{Text: "Number 42"})
				if _, ok := c.Wait("Approve"); !ok {
					return
				}
			}
			c.Say(shim.Allow{User: "alice"})
		})
		defer f.Stop()
		r := m.SSH("alice", Say("[1-2]: ", "2", "Enter to check): ", ""), once...)
		opened(t, r, true)
		shows(t, r, "Second factor\n  1) Code\n  2) Push\n[1-2]: ", true)
		shows(t, r, "Number 42", true)
	})
	t.Run("three wrong codes", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		r := m.SSH("alice", Say("assword: ", "latchkey pw", "code: ", "1", "code: ", "2", "code: ", "3"), once...)
		opened(t, r, false)
		shows(t, r, "This code is wrong.", true)
		shows(t, r, "Too many wrong codes.", true)
	})
	t.Run("no agent", func(t *testing.T) {
		m := m.In(t)
		r := m.SSH("alice", nil, once...)
		opened(t, r, false)
		if r.Took > 10*time.Second {
			t.Errorf("took %v", r.Took)
		}
	})
	t.Run("an unknown user's answers are junk", func(t *testing.T) {
		m := m.In(t)
		var answer string
		f := m.FakeAgent(func(c *Caller) {
			answer, _ = c.Secret("Password: ")
			c.Say(shim.Deny{Text: "Sign-in failed."})
		})
		defer f.Stop()
		opened(t, m.SSH("nobody-here", Say("assword: ", "latchkey pw"), once...), false)
		f.Stop()
		if !shim.IsJunk([]byte(answer)) || strings.Contains(answer, "latchkey") {
			t.Errorf("sshd sent %q", answer)
		}
		if q := f.Request(t, shim.PhaseAuth); q.Known || q.User != "nobody-here" {
			t.Errorf("%+v", q.Request)
		}
	})
	t.Run("a junk password that the stack holds is marked", func(t *testing.T) {
		m := m.In(t)
		m.PAM("sshd", "auth optional pam_unix.so\nauth required pam_latchkey.so mode=second\n")
		defer m.PAM("sshd", m.Shipped("latchkey-full"))
		f := m.FakeAgent(func(c *Caller) { c.Say(shim.Deny{Text: "Sign-in failed."}) })
		defer f.Stop()
		opened(t, m.SSH("nobody-here", Say("assword: ", "latchkey pw"), once...), false)
		if q := f.Request(t, shim.PhaseAuth); !q.Junk || !q.HasAuthtok {
			t.Errorf("%+v", q.Request)
		}
	})
	t.Run("a client that goes leaves no waiting module", func(t *testing.T) {
		ended := make(chan time.Time, 1)
		f := m.FakeAgent(func(c *Caller) {
			_, _ = c.Secret("Password: ")
			ended <- time.Now()
		})
		defer f.Stop()
		term := m.SSHTerminal("alice", "true", once...)
		if !term.Expect("assword: ", Patience) {
			t.Fatal(term.Output())
		}
		term.Press("\x03")
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the agent was not told")
		}
	})
	t.Run("a must-change password is changed in the same sign-in", func(t *testing.T) {
		m := m.In(t)
		changed := make(chan string, 1)
		f := m.FakeAgent(mustChange(changed))
		defer f.Stop()
		opened(t, m.SSH("alice", Say("New password: ", "a new pw", "again: ", "a new pw"), once...), true)
		if pw := <-changed; pw != "a new pw" {
			t.Errorf("the agent got %q", pw)
		}
	})
	if !sshd.Running() {
		t.Error("sshd ended")
	}
}

func TestSSHWithKeys(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	key := m.AuthorizeKey("alice")
	t.Run("a key alone is refused at the account phase", func(t *testing.T) {
		m := m.In(t)
		sshd := m.SSHD("ListenAddress 127.0.0.1:22")
		defer sshd.Kill("KILL")
		f := m.FakeAgent(func(c *Caller) {
			if c.Phase == shim.PhaseAccount {
				// The agent saw no finished auth of this peer.
				c.Say(shim.Deny{Text: "A key alone does not open this machine."})
				return
			}
			c.Say(shim.Allow{User: "alice"})
		})
		defer f.Stop()
		r := m.SSH("alice", nil, "-i", key, "-o", "PreferredAuthentications=publickey")
		opened(t, r, false)
		shows(t, r, "A key alone does not open this machine.", true)
		heard := f.Heard()
		if len(heard) != 1 || heard[0].Phase != shim.PhaseAccount {
			t.Errorf("the agent heard %d requests", len(heard))
		}
	})
	t.Run("a key alone is refused while there is no agent, break-glass or not", func(t *testing.T) {
		m := m.In(t)
		sshd := m.SSHD()
		defer sshd.Kill("KILL")
		m.Write("/etc/latchkey/break-glass", m.Run("id", "-u", "alice"), 0o644)
		opened(t, m.SSH("alice", nil, "-i", key, "-o", "PreferredAuthentications=publickey"), false)
	})
	t.Run("key and code", func(t *testing.T) {
		m := m.In(t)
		sshd := m.SSHD("AuthenticationMethods publickey,keyboard-interactive:pam")
		defer sshd.Kill("KILL")
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		opened(t, m.SSH("alice", Say("code: ", "123456"), "-i", key), true)
		if q := f.Request(t, shim.PhaseAuth); q.First != shim.FirstSSHKey {
			t.Errorf("first=%s", q.First)
		}
		opened(t, m.SSH("alice", Say("code: ", "1", "code: ", "2", "code: ", "3"), "-i", key, "-o", "NumberOfPasswordPrompts=1"), false)
	})
	t.Run("key and code, the machine's password between them", func(t *testing.T) {
		m := m.In(t)
		m.PAM("sshd", m.Shipped("latchkey-second"))
		defer m.PAM("sshd", m.Shipped("latchkey-full"))
		sshd := m.SSHD("AuthenticationMethods publickey,keyboard-interactive:pam")
		defer sshd.Kill("KILL")
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		opened(t, m.SSH("alice", Say("assword: ", "unix pw", "code: ", "123456"), "-i", key), true)
		if q := f.Request(t, shim.PhaseAuth); q.First != shim.FirstMachine || !q.HasAuthtok {
			t.Errorf("%+v", q.Request)
		}
	})
	t.Run("the password method can not show the code's prompt", func(t *testing.T) {
		m := m.In(t)
		sshd := m.SSHD("PasswordAuthentication yes", "KbdInteractiveAuthentication no")
		defer sshd.Kill("KILL")
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		opened(t, m.SSH("alice", Say("assword: ", "latchkey pw"), "-o", "NumberOfPasswordPrompts=1"), false)
	})
}

func TestSSHGivesUpWhenTheGraceTimeIsOver(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	m.SSHD("LoginGraceTime 2")
	ended := make(chan struct{})
	m.FakeAgent(func(c *Caller) {
		_, _ = c.Secret("Password: ")
		close(ended)
	})
	term := m.SSHTerminal("alice", "true")
	if !term.Expect("assword: ", Patience) {
		t.Fatal(term.Output())
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the agent still waits for an answer")
	}
}

func TestSudo(t *testing.T) {
	m, uid := machine(t, "latchkey-full")
	t.Run("password and code", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		opened(t, m.Sudo("alice", Say("assword", "latchkey pw", "code: ", "123456")), true)
		q := f.Request(t, shim.PhaseAuth)
		if q.User != "alice" || q.RUser != "alice" || q.RUID != uint32(uid) || q.UID != uint32(uid) || q.RHost != "" || !strings.HasPrefix(q.TTY, "/dev/pts/") || q.Peer.Uid != 0 {
			t.Errorf("%+v", q.Request)
		}
		if q := f.Request(t, shim.PhaseSetcred); q.User != "root" {
			t.Errorf("setcred for %s", q.User)
		}
	})
	t.Run("three attempts of three wrong codes", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(func(c *Caller) {
			_, _ = c.Ask("One-time code: ")
			c.Say(shim.Deny{Text: "This code is wrong."})
		})
		defer f.Stop()
		r := m.Sudo("alice", Say("code: ", "1", "code: ", "2", "code: ", "3"))
		opened(t, r, false)
		if n := len(f.Heard()); n != 3 {
			t.Errorf("the agent was asked %d times", n)
		}
		if q := f.Request(t, shim.PhaseAuth); q.Flags&shim.FlagSilent != 0 {
			// PAM_SILENT: prompts, but no texts.
			shows(t, r, "This code is wrong.", false)
		}
	})
	t.Run("Ctrl-C at the prompt", func(t *testing.T) {
		m := m.In(t)
		cancelled := make(chan bool, 1)
		f := m.FakeAgent(func(c *Caller) {
			_, ok := c.Secret("Password: ")
			cancelled <- !ok
		})
		defer f.Stop()
		opened(t, m.Sudo("alice", []Turn{{Prompt: "assword", Answer: func() string { return "\x03" }, Keys: true}}), false)
		if !<-cancelled {
			t.Error("the agent got an answer")
		}
	})
	t.Run("a pipe that ends after the password", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		begun := time.Now()
		out, err := m.TryAs("alice", "latchkey pw\n", "sudo", "-k", "-S", "sh", "-c", markerCmd)
		if err == nil || strings.Contains(out, marker) {
			t.Error(out)
		}
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("took %v", d)
		}
	})
	t.Run("no terminal and no pipe", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		if out, err := m.TryAs("alice", "", "sudo", "-k", "-n", "true"); err == nil {
			t.Error(out)
		}
		if n := len(f.Heard()); n != 0 {
			t.Errorf("sudo -n asked the agent %d times", n)
		}
	})
	t.Run("no agent", func(t *testing.T) {
		m := m.In(t)
		r := m.Sudo("alice", nil)
		opened(t, r, false)
		// sudo is silent about our text (PAM_SILENT), and tries again by itself.
		shows(t, r, "incorrect password attempts", true)
	})
}

func TestSu(t *testing.T) {
	m, uid := machine(t, "latchkey-full")
	m.AddUser("bob", "bob's unix pw")
	t.Run("the caller is told apart from the target", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		opened(t, m.Su("alice", "bob", Say("assword: ", "latchkey pw", "code: ", "123456")), true)
		q := f.Request(t, shim.PhaseAuth)
		if q.User != "bob" || q.RUser != "alice" || q.RUID != uint32(uid) || q.Peer.Uid != 0 {
			t.Errorf("%+v", q.Request)
		}
	})
	t.Run("texts are shown at once", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(func(c *Caller) { c.Say(shim.Deny{Text: "Ask for a new code."}) })
		defer f.Stop()
		r := m.Su("alice", "bob", nil)
		opened(t, r, false)
		shows(t, r, "Ask for a new code.", true)
	})
	t.Run("root needs no agent where pam_rootok stands first", func(t *testing.T) {
		m := m.In(t)
		m.PAM("su", "auth sufficient pam_rootok.so\n"+m.Shipped("latchkey-full"))
		opened(t, m.Su("", "bob", nil), true)
		opened(t, m.Su("alice", "bob", nil), false)
	})
}

func TestLogin(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	t.Run("password and code", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(passwordAndCode)
		defer f.Stop()
		opened(t, m.Login("alice", Say("assword: ", "latchkey pw", "code: ", "123456")), true)
		for _, phase := range []shim.Phase{shim.PhaseAuth, shim.PhaseAccount, shim.PhaseSetcred, shim.PhaseSessionOpen, shim.PhaseSessionClose} {
			if q := f.Request(t, phase); q.User != "alice" || q.Service != "login" {
				t.Errorf("%s: %+v", phase, q.Request)
			}
		}
	})
	t.Run("a must-change password is changed in the same sign-in", func(t *testing.T) {
		m := m.In(t)
		changed := make(chan string, 1)
		f := m.FakeAgent(mustChange(changed))
		defer f.Stop()
		opened(t, m.Login("alice", Say("New password: ", "a new pw", "again: ", "a new pw")), true)
		if pw := <-changed; pw != "a new pw" {
			t.Errorf("the agent got %q", pw)
		}
	})
}

func TestBreakGlass(t *testing.T) {
	m, uid := machine(t, "latchkey-full")
	m.AddUser("bob", "bob's unix pw")
	list := "/etc/latchkey/break-glass"
	console := []string{"-I", "tty=/dev/tty1"}
	good := strconv.Itoa(uid) + "\n"
	t.Run("without a list nobody comes in", func(t *testing.T) {
		m := m.In(t)
		r := m.Login("alice", nil)
		opened(t, r, false)
		shows(t, r, "does not answer", true)
	})
	m.Write(list, good, 0o644)
	t.Run("at the console with the machine's own password", func(t *testing.T) {
		m := m.In(t)
		r := m.Login("alice", Say("assword: ", "unix pw"))
		opened(t, r, true)
		shows(t, r, "emergency sign-in", true)
		// <81>: LOG_AUTHPRIV, LOG_ALERT.
		if !m.Logged("<81>", "break-glass sign-in without second factor", `user="alice"`, fmt.Sprintf("uid=%d", uid), "service=login") {
			t.Errorf("not in the system log")
		}
	})
	t.Run("not with another password", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.Pamtester(console, "login", "alice", auth, Say("assword: ", "latchkey pw")), false)
	})
	t.Run("not for somebody else", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.Pamtester(console, "login", "bob", auth, nil), false)
	})
	t.Run("not over ssh", func(t *testing.T) {
		m := m.In(t)
		sshd := m.SSHD()
		defer sshd.Kill("KILL")
		opened(t, m.SSH("alice", nil, "-o", "NumberOfPasswordPrompts=1"), false)
	})
	t.Run("not from a remote host, whatever the service", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.Pamtester([]string{"-I", "tty=/dev/tty1", "-I", "rhost=192.0.2.7"}, "login", "alice", auth, nil), false)
	})
	t.Run("sudo at a console counts the caller", func(t *testing.T) {
		m := m.In(t)
		caller := append([]string{"-I", "ruser=alice"}, console...)
		opened(t, m.Pamtester(caller, "sudo", "alice", auth, Say("assword: ", "unix pw")), true)
		other := append([]string{"-I", "ruser=bob"}, console...)
		opened(t, m.Pamtester(other, "su", "alice", auth, nil), false)
	})
	t.Run("sudo elsewhere is no local seat", func(t *testing.T) {
		m := m.In(t)
		opened(t, m.Sudo("alice", nil), false)
		opened(t, m.Pamtester([]string{"-I", "tty=/dev/pts/1", "-I", "ruser=alice"}, "sudo", "alice", auth, nil), false)
	})
	t.Run("an agent that hangs is no agent", func(t *testing.T) {
		m := m.In(t)
		m.PAM("login", m.Shipped("latchkey-full", "timeout=1"))
		f := m.FakeAgent(func(c *Caller) { _, _ = c.Raw.Read(make([]byte, 1)) })
		defer f.Stop()
		opened(t, m.Pamtester(console, "login", "alice", auth, Say("assword: ", "unix pw")), true)
	})
	t.Run("an agent that answers decides by itself", func(t *testing.T) {
		m := m.In(t)
		f := m.FakeAgent(func(c *Caller) { c.Say(shim.Deny{Text: "No."}) })
		defer f.Stop()
		opened(t, m.Pamtester(console, "login", "alice", auth, nil), false)
	})
	for name, spoil := range map[string]func(){
		"a list that others may write":  func() { m.Write(list, good, 0o666) },
		"a list of somebody else":       func() { m.Run("chown", "bob", list) },
		"a list with blanks":            func() { m.Write(list, " "+good, 0o644) },
		"a list with a name":            func() { m.Write(list, "alice\n", 0o644) },
		"a list behind a symbolic link": func() { m.Run("mv", list, list+".real"); m.Run("ln", "-s", list+".real", list) },
		"a FIFO":                        func() { m.Run("mkfifo", "-m", "600", list) },
		"a list of 5000 octets":         func() { m.Write(list, good+strings.Repeat("\n", 5000), 0o644) },
	} {
		t.Run("not with "+name, func(t *testing.T) {
			m.Run("rm", "-f", list)
			m.Write(list, good, 0o644)
			if name == "a FIFO" {
				m.Run("rm", "-f", list)
			}
			spoil()
			r := m.Pamtester(console, "login", "alice", auth, nil)
			opened(t, r, false)
			if r.Took > 2*time.Second {
				t.Errorf("took %v", r.Took)
			}
		})
	}
}

func TestASilentProgramGetsPromptsAndNoTexts(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	f := m.FakeAgent(func(c *Caller) {
		c.Say(shim.Tell{Text: "a text"})
		_, _ = c.Choose("Second factor", "Code", "Push")
		c.Say(shim.Warn{Text: "another text"})
		c.Say(shim.Deny{Text: "the reason"})
	})
	// pamtester takes flags by name, PAM_SILENT among them.
	r := m.Pamtester(nil, "x", "alice", []string{"authenticate(PAM_SILENT)"}, Say("[1-2]: ", "1"))
	opened(t, r, false)
	shows(t, r, "  1) Code", true)
	for _, s := range []string{"a text", "another text", "the reason"} {
		shows(t, r, s, false)
	}
	if q := f.Request(t, shim.PhaseAuth); q.Flags != shim.FlagSilent {
		t.Errorf("flags %#x", q.Flags)
	}
	f.Stop()
	r = m.Pamtester(nil, "x", "alice", []string{"authenticate(PAM_SILENT)"}, nil)
	opened(t, r, false)
	shows(t, r, "Latchkey", false)
}

func TestAProgramWithoutStandardStreams(t *testing.T) {
	m, _ := machine(t, "latchkey-full")
	f := m.FakeAgent(func(c *Caller) { c.Say(shim.Deny{Text: "no"}) })
	_, err := m.Try("sh", "-c", "exec pamtester x alice authenticate <&- >&- 2>&-")
	if err == nil {
		t.Error("was let in")
	}
	if n := len(f.Heard()); n != 1 {
		t.Errorf("the agent heard %d requests", n)
	}
}

func TestAnUnprivilegedProgram(t *testing.T) {
	m, uid := machine(t, "latchkey-full")
	f := m.FakeAgent(passwordAndCode)
	opened(t, m.PamtesterAs("alice", nil, "x", "alice", auth, Say("assword: ", "latchkey pw", "code: ", "123456")), true)
	q := f.Request(t, shim.PhaseAuth)
	if q.Peer.Uid != uint32(uid) || q.RUID != uint32(uid) || q.RUser != "alice" {
		t.Errorf("%+v", q.Request)
	}
}

func TestTheHarnessLeavesNothingBehind(t *testing.T) {
	before, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	// Whose host has an alice of its own keeps her.
	traces := []string{"/etc/pam.d/latchkey-e2e", "/var/lib/latchkey-e2e", "/home/alice", "/home/latchkey-e2e-user"}
	traces = slices.DeleteFunc(traces, func(f string) bool { _, err := os.Stat(f); return err == nil })
	var pid int
	t.Run("machine", func(t *testing.T) {
		m := NewMachine(t)
		m.AddUser("alice", "x")
		m.AddUser("latchkey-e2e-user", "x")
		m.Write("/etc/pam.d/latchkey-e2e", "", 0o644)
		m.Write("/var/lib/latchkey-e2e", "", 0o644)
		m.Start("sleep", "1000")
		pid = m.pid
	})
	after, err := os.ReadFile("/etc/passwd")
	if err != nil || string(after) != string(before) {
		t.Error("/etc/passwd has changed")
	}
	for _, f := range traces {
		if _, err := os.Stat(f); err == nil {
			t.Errorf("%s is there", f)
		}
	}
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("process 1 is still there")
	}
}

func TestABlackHoledServerIsSilent(t *testing.T) {
	t.Parallel()
	a, b := NewMachine(t), NewMachine(t)
	_, addr := Connect(t, a, b)
	b.Start("socat", "TCP-LISTEN:8443,fork,reuseaddr", "SYSTEM:echo hi")
	reach := func() (string, time.Duration) {
		begun := time.Now()
		out, _ := a.Try("timeout", "1", "socat", "-u", "TCP:"+addr+":8443", "-")
		return out, time.Since(begun)
	}
	a.Until(5*time.Second, "the server answers", func() bool { out, _ := reach(); return strings.Contains(out, "hi") })
	a.DropServer(addr + ":8443")
	if out, took := reach(); out != "" || took < 900*time.Millisecond {
		t.Errorf("not a black hole: %q after %v", out, took)
	}
	a.RestoreServer(addr + ":8443")
	if out, _ := reach(); !strings.Contains(out, "hi") {
		t.Errorf("not restored: %q", out)
	}
}
