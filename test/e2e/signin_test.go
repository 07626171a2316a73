//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/text"
)

// Sign-ins on the real programs with the real agent and server, the server there.

// classes runs a test on a machine with a TPM and on one without.
func classes(t *testing.T, f func(t *testing.T, withTPM bool)) {
	t.Run("tpm", func(t *testing.T) { f(t, true) })
	t.Run("software", func(t *testing.T) { f(t, false) })
}

var once = []string{"-o", "NumberOfPasswordPrompts=1"}

const rootPassword = "root's own word 9"

// giveUp is what is typed at a further prompt for a code: Ctrl-C.
var giveUp = Turn{Prompt: "code: ", Answer: func() string { return "\x03" }, Keys: true}

// program is a way in.
type program struct {
	name, service string
	scope         policy.Scope
	in            func(s *station, p *person, turns []Turn) Result
}

var programs = []program{
	{"sshd", "sshd", policy.Remote, func(s *station, p *person, turns []Turn) Result { return s.here().SSH(p.name, turns, once...) }},
	{"sudo", "sudo", policy.Elevation, func(s *station, p *person, turns []Turn) Result { return s.here().Sudo(p.name, turns) }},
	{"su", "su", policy.Elevation, func(s *station, p *person, turns []Turn) Result { return s.here().Su(p.name, "root", turns) }},
	{"login", "login", policy.Logon, func(s *station, p *person, turns []Turn) Result { return s.here().Login(p.name, turns) }},
	{"pamtester", "x", policy.Logon, func(s *station, p *person, turns []Turn) Result { return s.x(p, turns) }},
}

// TestEveryProgramOnlineAndOffline: S1, S2, S11, O1-O3, O8, O11 on sshd, sudo, su, login
// and pamtester, with both stacks, with the server there, in a black hole, and gone.
func TestEveryProgramOnlineAndOffline(t *testing.T) {
	classes(t, func(t *testing.T, withTPM bool) {
		w := newWorld(t, "")
		s := w.station("desk", withTPM)
		w.set("window=0s")
		alice := w.addUser("alice")
		// The stack where pam_unix judges first wants the password of both; su wants root's.
		s.m.SetPassword("alice", alice.pw)
		s.m.SetPassword("root", rootPassword)
		s.m.SSHD()

		both := []string{"latchkey-full", "latchkey-second"}
		every := func(t *testing.T, link policy.Link, stacks []string) {
			for _, stack := range stacks {
				for _, p := range programs {
					t.Run(p.name+" "+stack, func(t *testing.T) {
						s := s.In(t)
						s.here().PAM(p.service, s.m.Shipped(stack))
						var before int64
						if link == policy.LinkUp {
							before = s.mark()
						}
						turns := s.full(alice)
						// su opens another account: its password is asked for, too.
						target := Say("assword: ", rootPassword)
						switch {
						case p.name != "su":
						case stack == "latchkey-full":
							turns = append(turns, target...)
						case link == policy.LinkUp:
							turns[0] = target[0]
						default:
							turns = slices.Concat(target, Say("used here online): ", alice.pw), turns[1:])
						}
						r := p.in(s, alice, turns)
						opened(t, r, true)
						if len(r.Waits) == 0 || r.Waits[0] > 3*time.Second {
							t.Errorf("the first prompt took %v", r.Waits)
						}
						if r.Took > 15*time.Second {
							t.Errorf("the sign-in took %v", r.Took)
						}
						if link != policy.LinkUp {
							return
						}
						e := s.last("signin.allowed", "alice", before)
						got := []string{e.Machine, e.Service, e.Scope, e.Link, e.Outcome, e.Reason, e.Factor}
						want := []string{"desk", p.service, string(p.scope), "up", "allow", "mfa-required", "totp"}
						if d := cmp.Diff(want, got); d != "" {
							t.Error(d)
						}
					})
				}
			}
		}
		t.Run("online", func(t *testing.T) { every(t, policy.LinkUp, both) })
		s.enrolled(alice)
		t.Run("the server's packets are dropped", func(t *testing.T) {
			s.cut()
			every(t, policy.LinkDown, both[:1]) // each waits for two seconds
		})
		t.Run("the server is gone", func(t *testing.T) {
			w.server.Kill("KILL")
			s.here().RestoreServer(s.addr)
			every(t, policy.LinkDown, both)
		})
		t.Run("everything is delivered once, in order (O11)", func(t *testing.T) {
			s, w := s.In(t), w.In(t)
			w.startServer()
			s.online()
			s.delivered()
			var got []string
			at := time.Time{}
			for _, e := range w.events("--type", "signin.allowed") {
				if e.Link != "down" {
					continue
				}
				got = append(got, e.Service)
				if e.At.Before(at) {
					t.Errorf("%s is out of order", e.At)
				}
				at = e.At
			}
			var want []string
			for range 3 {
				for _, p := range programs {
					want = append(want, p.service)
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			w.cli("events", "verify")
		})
	})
}

// TestKeys: a key and a code, online and offline; a key alone is refused.
func TestKeys(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	alice := w.addUser("alice")
	key := s.m.AuthorizeKey("alice")
	s.enrol(alice)
	t.Run("a key alone is refused at the account phase, with what to do", func(t *testing.T) {
		s := s.In(t)
		defer s.here().SSHD().Kill("KILL")
		before := s.mark()
		r := s.here().SSH("alice", nil, "-i", key, "-o", "PreferredAuthentications=publickey")
		opened(t, r, false)
		shows(t, r, "AuthenticationMethods publickey,keyboard-interactive:pam", true)
		if e := s.last("signin.denied", "alice", before); e.Reason != "key-alone" || e.Service != "sshd" || e.Address != "127.0.0.1" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("key and code: no password is asked", func(t *testing.T) {
		s := s.In(t)
		defer s.here().SSHD("AuthenticationMethods publickey,keyboard-interactive:pam").Kill("KILL")
		before := s.mark()
		r := s.here().SSH("alice", Say("code: ", s.code(alice)), "-i", key)
		opened(t, r, true)
		shows(t, r, "Password:", false)
		e := s.last("signin.allowed", "alice", before)
		if !strings.Contains(string(e.Data), `"first":"sshkey"`) {
			t.Errorf("%s", e.Data)
		}
		wrong := s.wrong(alice)
		opened(t, s.here().SSH("alice", Say("code: ", wrong, "code: ", wrong, "code: ", wrong), append(once, "-i", key)...), false)
		s.cli("user", "unlock", "alice")
	})
	t.Run("key and code offline: the vault wants the password (O8)", func(t *testing.T) {
		s := s.In(t)
		defer s.here().SSHD("AuthenticationMethods publickey,keyboard-interactive:pam").Kill("KILL")
		s.cut()
		defer s.mend()
		r := s.here().SSH("alice", Say("used here online): ", alice.pw, "code: ", s.code(alice)), "-i", key)
		opened(t, r, true)
		shows(t, r, text.OfflineNow, true)
	})
	t.Run("a key alone is refused offline, too", func(t *testing.T) {
		s := s.In(t)
		defer s.here().SSHD().Kill("KILL")
		s.cut()
		defer s.mend()
		opened(t, s.here().SSH("alice", nil, "-i", key, "-o", "PreferredAuthentications=publickey"), false)
	})
}

// TestFirstFactor: S5, S6, S4 by uid, P2, and that one text covers all failures.
func TestFirstFactor(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	alice := w.addUser("alice")
	w.set("window=0s")
	s.m.SSHD()
	denied := func(t *testing.T, r Result) {
		t.Helper()
		opened(t, r, false)
		shows(t, r, text.DeniedFirst, true)
		shows(t, r, "code:", false)
	}
	t.Run("a wrong password and an unknown name have the same text and time", func(t *testing.T) {
		s := s.In(t)
		s.m.AddUser("nobody2", "the machine's own 7")
		before := s.mark()
		wrong := s.here().Login("alice", Say("assword: ", "not it at all"))
		unknown := s.here().Login("nobody2", Say("assword: ", "not it at all"))
		denied(t, wrong)
		denied(t, unknown)
		if d := wrong.Took - unknown.Took; d > 700*time.Millisecond || d < -700*time.Millisecond {
			t.Errorf("%v for a wrong password, %v for an unknown name", wrong.Took, unknown.Took)
		}
		if e := s.last("signin.denied", "alice", before); e.Reason != "first-factor-rejected" {
			t.Errorf("%+v", e)
		}
		if e := s.last("signin.denied", "nobody2", before); e.Reason != "user-unknown" {
			t.Errorf("%+v", e)
		}
		s.cli("user", "unlock", "alice")
	})
	t.Run("sshd's junk password for unknown accounts is not counted", func(t *testing.T) {
		s := s.In(t)
		// Known to Latchkey, not to the machine.
		s.cliInput("winter apples at noon\n", "user", "add", "carol", "--password-stdin")
		denied(t, s.here().SSH("carol", Say("assword: ", "winter apples at noon"), once...))
		denied(t, s.here().SSH("nobody-here", Say("assword: ", "whatever it may be"), once...))
		var u rest.User
		s.read(&u, "user", "show", "carol")
		if len(u.Locks) != 0 {
			t.Errorf("%+v", u.Locks)
		}
	})
	t.Run("the machine's own password does not do", func(t *testing.T) {
		s := s.In(t)
		denied(t, s.here().Login("alice", Say("assword: ", alice.unix)))
		s.cli("user", "unlock", "alice")
	})
	t.Run("a rejection by the server denies whatever the machine said (S5)", func(t *testing.T) {
		s := s.In(t)
		s.here().PAM("x", s.m.Shipped("latchkey-second"))
		defer s.here().PAM("x", s.m.Shipped("latchkey-full"))
		r := s.x(alice, Say("assword: ", alice.unix))
		opened(t, r, false)
		shows(t, r, "code:", false)
		s.cli("user", "unlock", "alice")
	})
	t.Run("a name that differs by case is denied (S6)", func(t *testing.T) {
		s := s.In(t)
		s.here().AddUser("Alice", alice.unix)
		before := s.mark()
		denied(t, s.here().Login("Alice", Say("assword: ", alice.pw)))
		if e := s.last("signin.denied", "Alice", before); e.Reason != "name-differs" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("another name of the same uid is denied, and not left to the machine", func(t *testing.T) {
		s := s.In(t)
		s.cli("machine", "set", "desk", "--unknown-users", "skip")
		defer s.cli("machine", "set", "desk", "--unknown-users", "deny")
		uid := strings.TrimSpace(s.here().Run("id", "-u", "alice"))
		s.here().Run("useradd", "-o", "-u", uid, "-s", "/bin/sh", "-d", "/home/alice", "wonderland")
		s.here().SetPassword("wonderland", "the machine's own 7")
		before := s.mark()
		opened(t, s.here().Login("wonderland", Say("assword: ", "the machine's own 7")), false)
		if e := s.last("signin.denied", "wonderland", before); e.Reason != "name-differs" {
			t.Errorf("%+v", e)
		}
		s.here().Run("userdel", "-f", "wonderland")
	})
	t.Run("unknown_users=skip leaves unknown names to the machine (S5)", func(t *testing.T) {
		s := s.In(t)
		s.cli("machine", "set", "desk", "--unknown-users", "skip")
		defer s.cli("machine", "set", "desk", "--unknown-users", "deny")
		before := s.mark()
		opened(t, s.here().Login("nobody2", Say("assword: ", "the machine's own 7")), true)
		if e := s.last("signin.left_to_machine", "nobody2", before); e.Reason != "user-unknown-skipped" {
			t.Errorf("%+v", e)
		}
		opened(t, s.here().Login("nobody2", Say("assword: ", "not it")), false)
	})
	t.Run("an exempt account by uid needs a password alone (S4)", func(t *testing.T) {
		s := s.In(t)
		bob := s.addUser("bob")
		uid := strings.TrimSpace(s.here().Run("id", "-u", "bob"))
		svc := strconv.Itoa(s.here().AddUser("backup-job", "the machine's own 7"))
		s.set("exempt_uids=" + uid + "," + svc)
		before := s.mark()
		// Whom the server knows by a password is judged by it (S5).
		opened(t, s.here().Login("bob", Say("assword: ", bob.unix)), false)
		opened(t, s.here().Login("bob", Say("assword: ", bob.pw)), true)
		e := s.last("signin.allowed", "bob", before)
		if e.Reason != "account-exempt" {
			t.Errorf("%+v", e)
		}
		s.explains(e, "bob")
		// Whom it does not know, by the machine.
		opened(t, s.here().Login("backup-job", Say("assword: ", "not it")), false)
		opened(t, s.here().Login("backup-job", Say("assword: ", "the machine's own 7")), true)
		if e := s.last("signin.left_to_machine", "backup-job", before); e.Reason != "account-exempt" {
			t.Errorf("%+v", e)
		}
		s.set("exempt_uids=")
	})
	t.Run("2FA off for the user: the password alone (P2)", func(t *testing.T) {
		s := s.In(t)
		dora := s.addUser("dora", "--2fa", "off")
		before := s.mark()
		opened(t, s.here().Login("dora", Say("assword: ", dora.pw)), true)
		e := s.last("signin.allowed", "dora", before)
		if e.Reason != "2fa-off" {
			t.Errorf("%+v", e)
		}
		s.explains(e, "dora")
		s.cli("machine", "set", "desk", "--mode", "enforced")
		defer s.cli("machine", "set", "desk", "--mode", "normal")
		opened(t, s.here().Login("dora", s.full(dora)), true)
	})
	t.Run("a group switches it off, the user's own setting on again (P2)", func(t *testing.T) {
		s := s.In(t)
		s.cli("group", "add", "guests", "--2fa", "off")
		eve := s.addUser("eve")
		s.cli("group", "member", "add", "guests", "eve")
		opened(t, s.here().Login("eve", Say("assword: ", eve.pw)), true)
		s.cli("user", "set", "eve", "--2fa", "on")
		opened(t, s.here().Login("eve", s.full(eve)), true)
	})
	t.Run("an exempt machine asks for the password alone (P3)", func(t *testing.T) {
		s := s.In(t)
		s.cli("machine", "set", "desk", "--mode", "exempt")
		defer s.cli("machine", "set", "desk", "--mode", "normal")
		before := s.mark()
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw)), true)
		if e := s.last("signin.allowed", "alice", before); e.Reason != "machine-exempt" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("an unknown name's denial is explained as it happened (S13)", func(t *testing.T) {
		s := s.In(t)
		before := s.mark()
		s.here().PAM("x", s.m.Shipped("latchkey-second"))
		defer s.here().PAM("x", s.m.Shipped("latchkey-full"))
		opened(t, s.here().Pamtester(nil, "x", "nobody2", auth, Say("assword: ", "the machine's own 7")), false)
		e := s.last("signin.denied", "nobody2", before)
		if e.Reason != "user-unknown" {
			t.Errorf("%+v", e)
		}
		s.explains(e, "nobody2")
	})
}

// explains fails unless `latchkey explain` prints the trace of the event (S13).
func (s *station) explains(e rest.Event, user string, options ...string) {
	s.t.Helper()
	var data struct {
		First string `json:"first"`
		Mode  string `json:"mode"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		s.t.Fatal(err)
	}
	args := []string{
		"explain", "--user", user, "--machine", s.name, "--scope", e.Scope, "--service", e.Service,
		"--at", e.At.Add(-time.Millisecond).Format(time.RFC3339Nano),
	} // the sign-in has opened a window since
	if uid, err := s.here().Try("id", "-u", user); err == nil {
		args = append(args, "--uid", strings.TrimSpace(uid))
	}
	if data.Mode == "second" {
		args = append(args, "--first", "machine")
	}
	var x rest.Explained
	s.read(&x, append(args, options...)...)
	if d := cmp.Diff(trace(s.t, e), x.Decision.Trace); d != "" {
		s.t.Errorf("the event says (-), explain says (+):\n%s", d)
	}
	if string(x.Decision.Reason) != e.Reason {
		s.t.Errorf("the event says %s, explain says %s", e.Reason, x.Decision.Reason)
	}
}

// TestCodes: replay, wrong codes, back-off, lock-out, unlock, backup, bypass (S10, M5, E3).
func TestCodes(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	t.Run("a code is accepted once", func(t *testing.T) {
		s := s.In(t)
		code := s.code(alice)
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code)), true)
		before := s.mark()
		next := func() string { return s.code(alice) }
		r := s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code, "code: ", next))
		shows(t, r, text.CodeUsed, true)
		opened(t, r, true)
		if e := s.last("factor.rejected", "alice", before); e.Reason != "totp-replayed" || e.Factor != "totp" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("wrong codes: three in one sign-in, then a pause that is told, then a lock-out", func(t *testing.T) {
		s := s.In(t)
		wrong := func() string { return s.wrong(alice) }
		r := s.here().Login("alice", Say("assword: ", alice.pw, "code: ", wrong, "code: ", wrong, "code: ", wrong))
		opened(t, r, false)
		shows(t, r, text.WrongCode, true)
		shows(t, r, "Too many wrong tries. Wait 1 s", true)
		for range 2 {
			s.pass(time.Minute)
			r = s.here().Login("alice", Say("assword: ", alice.pw, "code: ", wrong, "code: ", wrong))
			opened(t, r, false)
			shows(t, r, "Too many wrong tries. Wait ", true)
		}
		// Before an accepted first factor nobody is told that he must wait (S5).
		r = s.here().Login("alice", Say("assword: ", alice.pw))
		opened(t, r, false)
		shows(t, r, text.DeniedFirst, true)
		var locks []rest.Lock
		for range 10 {
			s.pass(6 * time.Minute)
			s.here().Login("alice", append(Say("assword: ", alice.pw, "code: ", wrong), giveUp))
			s.read(&locks, "user", "locked")
			if len(locks) > 0 && !locks[0].LockedUntil.IsZero() {
				break
			}
		}
		if len(locks) != 1 || locks[0].User != "alice" || locks[0].LockedUntil.IsZero() {
			t.Fatalf("nobody is locked out: %+v", locks)
		}
		s.last("lockout.began", "alice", 0)
		opened(t, s.here().Login("alice", s.full(alice)), false)
		s.cli("user", "unlock", "alice")
		opened(t, s.here().Login("alice", s.full(alice)), true)
		s.last("lockout.lifted", "alice", 0)
	})
	t.Run("a backup code once (M5)", func(t *testing.T) {
		s := s.In(t)
		bob := s.addAccount("bob")
		s.addBackup(bob)
		if len(bob.backup) != 10 {
			t.Fatalf("%d backup codes", len(bob.backup))
		}
		opened(t, s.here().Login("bob", Say("assword: ", bob.pw, "code: ", bob.backup[0])), true)
		r := s.here().Login("bob", Say("assword: ", bob.pw, "code: ", bob.backup[0], "code: ", bob.backup[1]))
		shows(t, r, text.BackupUsed, true)
		opened(t, r, true)
	})
	t.Run("a menu where there is a choice (S2)", func(t *testing.T) {
		s := s.In(t)
		s.addBackup(alice)
		r := s.here().Login("alice", Say("assword: ", alice.pw, "[1-2]: ", "2", "ackup code: ", alice.backup[0]))
		opened(t, r, true)
		shows(t, r, text.OptionTOTP, true)
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "[1-2]: ", "1", "code: ", s.code(alice))), true)
		s.cli("factor", "remove", "alice", "backup", "--yes")
	})
	t.Run("an administrator's bypass code once, with its reason (E3)", func(t *testing.T) {
		s := s.In(t)
		var c rest.Code
		s.read(&c, "user", "bypass-code", "alice", "--reason", "phone in the river")
		before := s.mark()
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "[1-2]: ", "2", "administrator: ", c.Code.Show())), true)
		if e := s.last("signin.allowed", "alice", before); e.Factor != "bypass" {
			t.Errorf("%+v", e)
		}
		r := s.here().Login("alice", Say("assword: ", alice.pw, "code: ", c.Code.Show(), "code: ", s.code(alice)))
		opened(t, r, true)
		issued := s.last("code.issued", "", 0)
		if !strings.Contains(string(issued.Data), "phone in the river") {
			t.Errorf("%s", issued.Data)
		}
	})
}

// TestWindow: W1, W5, W6, W7.
func TestWindow(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	alice := w.addUser("alice")
	password := Say("assword", alice.pw)
	silent := func(t *testing.T, s *station) rest.Event {
		t.Helper()
		before := s.mark()
		opened(t, s.here().Login("alice", password), true)
		e := s.last("signin.allowed", "alice", before)
		if e.Reason != "window-valid" {
			t.Errorf("%s", short([]rest.Event{e}))
		}
		return e
	}
	asked := func(t *testing.T, s *station) {
		t.Helper()
		r := s.here().Login("alice", s.full(alice))
		opened(t, r, true)
		shows(t, r, "code:", true)
	}
	t.Run("the second logon asks nothing, sudo does (W5)", func(t *testing.T) {
		s := s.In(t)
		asked(t, s)
		s.explains(silent(t, s), "alice")
		opened(t, s.here().Sudo("alice", s.full(alice)), true)
	})
	t.Run("it survives restarts of server and agent (W7)", func(t *testing.T) {
		s := s.In(t)
		s.server0().Kill("KILL")
		s.startServer()
		s.restartAgent()
		s.online()
		silent(t, s)
	})
	t.Run("it ends when it is revoked (W7)", func(t *testing.T) {
		s := s.In(t)
		s.cli("window", "revoke", "--user", "alice", "--yes")
		asked(t, s)
		silent(t, s)
	})
	t.Run("it ends with its time (W1)", func(t *testing.T) {
		s := s.In(t)
		s.pass(8*time.Hour + time.Minute)
		asked(t, s)
	})
	t.Run("never at the first logon after a boot (W5)", func(t *testing.T) {
		s := s.In(t)
		silent(t, s)
		s.agent.Kill("TERM")
		s.tpm.Restart() // the power was cut: the reset count rises
		s.startAgent()
		s.online()
		asked(t, s)
		silent(t, s)
	})
	t.Run("never while offline", func(t *testing.T) {
		s := s.In(t)
		s.enrolled(alice)
		s.cut()
		asked(t, s)
		s.mend()
	})
	t.Run("a log-off ends it where the policy says so (W6)", func(t *testing.T) {
		s := s.In(t)
		s.delivered()
		s.set("window_ends_on=logoff")
		s.cli("window", "revoke", "--user", "alice", "--yes")
		before := s.mark()
		asked(t, s) // and the session behind it ends
		e := s.last("window.ended", "", before)
		if e.Reason != "logoff" {
			t.Errorf("%+v", e)
		}
		asked(t, s)
		s.set("window_ends_on=")
	})
}

// server0 is the server's process.
func (w *world) server0() *Process { return w.realm.server }

// TestPasswords: S9.
func TestPasswords(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	w.set("window=0s")
	s.m.SSHD()
	for _, p := range programs {
		if p.name != "sshd" && p.name != "login" {
			continue
		}
		t.Run("a password that must be changed is changed in "+p.name+", the factor first", func(t *testing.T) {
			s := s.In(t)
			alice := s.addUser("alice-"+p.name, "--must-change")
			before := s.mark()
			fresh := "violet kettle marsh"
			turns := append(s.full(alice), Say("New password: ", "short", "New password: ", fresh, "again: ", fresh)...)
			r := p.in(s, alice, turns)
			opened(t, r, true)
			old := alice.pw
			alice.pw = fresh
			s.last("password.changed", alice.name, before)
			s.enrolled(alice)
			opened(t, p.in(s, alice, Say("assword: ", old)), false)
			opened(t, p.in(s, alice, s.full(alice)), true)
			s.cut()
			opened(t, p.in(s, alice, s.full(alice)), true)
			s.mend()
			s.delivered()
		})
	}
	t.Run("who has no factor changes it at a local seat only", func(t *testing.T) {
		s := s.In(t)
		bob := s.addAccount("bob", "--must-change", "--2fa", "off")
		r := s.here().SSH("bob", Say("assword: ", bob.pw), once...)
		opened(t, r, false)
		shows(t, r, text.DeniedRemoteChange, true)
		fresh := "violet kettle marsh"
		opened(t, s.here().Login("bob", Say("assword: ", bob.pw, "New password: ", fresh, "again: ", fresh)), true)
		opened(t, s.here().SSH("bob", Say("assword: ", fresh), once...), true)
	})
}

// TestEnrolmentAtSignIn: E1.
func TestEnrolmentAtSignIn(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	alice := w.addAccount("alice")
	w.set("enrol_at_signin=true", "window=0s")
	s.m.SSHD()
	var c rest.Code
	w.read(&c, "user", "enrol-code", "alice")
	t.Run("not over ssh", func(t *testing.T) {
		s := s.In(t)
		r := s.here().SSH("alice", Say("assword: ", alice.pw), once...)
		opened(t, r, false)
		shows(t, r, "nrolment code:", false)
	})
	t.Run("not without the enrolment code", func(t *testing.T) {
		s := s.In(t)
		r := s.here().Login("alice", append(Say("assword: ", alice.pw, "nrolment code: ", "ABCD-EFGH-JKLM"), giveUp))
		opened(t, r, false)
		shows(t, r, text.EnrolScan, false)
		s.cli("user", "unlock", "alice")
	})
	t.Run("at login with the code: a QR code, a key, and the first code counts", func(t *testing.T) {
		s := s.In(t)
		term := s.here().Terminal("", "login", "alice")
		talk := func(prompt, answer string) {
			t.Helper()
			if !term.Expect(prompt, Patience) {
				t.Fatalf("%q did not come:\n%s", prompt, term.Output())
			}
			time.Sleep(200 * time.Millisecond)
			term.Type(answer)
		}
		talk("assword: ", alice.pw)
		talk("nrolment code: ", c.Code.Show())
		if !term.Expect("type this key into it: ", Patience) || !term.Expect("\n", Patience) {
			t.Fatal(term.Output())
		}
		shown := term.Output()
		_, line, _ := strings.Cut(shown, "type this key into it: ")
		key, _, _ := strings.Cut(line, "\n")
		if n := strings.Count(shown, "█"); n < 100 {
			t.Errorf("no QR code: %d blocks\n%s", n, shown)
		}
		alice.key = strings.ReplaceAll(key, " ", "")
		alice.step = s.now().Unix() / 30
		talk("shows now: ", totp(t, alice.key, alice.step))
		talk("$ ", markerCmd+"; exit")
		if !term.Expect(marker, Patience) {
			t.Fatal(term.Output())
		}
		term.Exit(Patience)
		s.last("factor.added", "alice", 0)
		opened(t, s.here().SSH("alice", s.full(alice), once...), true)
	})
	t.Run("the enrolment code is spent", func(t *testing.T) {
		s := s.In(t)
		s.cli("factor", "remove", "alice", "totp", "--yes")
		r := s.here().Login("alice", append(Say("assword: ", alice.pw, "nrolment code: ", c.Code.Show()), giveUp))
		opened(t, r, false)
		shows(t, r, text.EnrolScan, false)
	})
}

// TestWithoutTheRealAgent: S8 with the shipped programs.
func TestWithoutTheRealAgent(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	alice := w.addUser("alice")
	s.m.SSHD()
	uid := s.m.Run("id", "-u", "alice")
	s.m.Write("/etc/latchkey/break-glass", uid, 0o644)
	t.Run("break-glass while the agent lives is an event", func(t *testing.T) {
		s := s.In(t)
		before := s.mark()
		opened(t, s.here().Login("alice", Say("assword: ", alice.unix)), true)
		if e := s.last("breakglass.used", "alice", before); e.Machine != "desk" || e.Service != "login" {
			t.Errorf("%+v", e)
		}
		// Not from the network.
		opened(t, s.here().SSH("alice", Say("assword: ", alice.unix), once...), false)
		s.cli("user", "unlock", "alice")
	})
	t.Run("break-glass works while the server is away", func(t *testing.T) {
		s := s.In(t)
		s.cut()
		defer s.mend()
		opened(t, s.here().Login("alice", Say("assword: ", alice.unix)), true)
	})
	s.agent.Kill("KILL")
	t.Run("no agent: denied, and told", func(t *testing.T) {
		s := s.In(t)
		s.m.AddUser("bob", "the machine's own 7")
		r := s.here().Login("bob", nil)
		opened(t, r, false)
		shows(t, r, "does not answer, so nobody can be signed in here", true)
		opened(t, s.here().SSH("alice", nil, once...), false)
	})
	t.Run("no agent: break-glass at login is in the system log", func(t *testing.T) {
		s := s.In(t)
		opened(t, s.here().Login("alice", Say("assword: ", alice.unix)), true)
		if !s.here().Logged("<81>", "break-glass sign-in without second factor", `user="alice"`) {
			t.Error("it is not")
		}
	})
	t.Run("the agent is back", func(t *testing.T) {
		s := s.In(t)
		s.here().Run("rm", "/etc/latchkey/break-glass")
		s.startAgent()
		s.online()
		opened(t, s.here().Login("alice", s.full(alice)), true)
	})
}

// TestEventsSayWhoWhereHow: S11.
func TestEventsSayWhoWhereHow(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	alice := w.addUser("alice")
	s.m.SSHD()
	wrong := w.wrong(alice)
	opened(t, s.here().SSH("alice", append(Say("assword: ", alice.pw, "code: ", wrong), Say("code: ", w.code(alice))...), once...), true)
	e := w.last("signin.allowed", "alice", 0)
	var u rest.User
	w.read(&u, "user", "show", "alice")
	got := []string{
		e.Actor, e.Subject, e.UserID, e.Machine, e.Address, e.Scope, e.Service, e.Link, e.Outcome, e.Reason, e.Factor,
		fmt.Sprint(e.MachineID != ""), fmt.Sprint(e.ID != ""), fmt.Sprint(!e.At.IsZero()), fmt.Sprint(!e.ReceivedAt.IsZero()),
	}
	want := []string{
		"alice", "alice", u.ID, "desk", "127.0.0.1", "remote", "sshd", "up", "allow", "mfa-required", "totp",
		"true", "true", "true", "true",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var data map[string]any
	if err := json.Unmarshal(e.Data, &data); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"trace", "policy", "duration_ms", "first", "conversation"} {
		if data[k] == nil {
			t.Errorf("data has no %s: %s", k, e.Data)
		}
	}
	s.In(t).explains(e, "alice", "--from", "127.0.0.1")
	if e := w.last("factor.rejected", "alice", 0); e.Factor != "totp" || e.Reason == "" || e.Machine != "desk" {
		t.Errorf("%+v", e)
	}
	if e := w.last("factor.accepted", "alice", 0); e.Factor != "totp" {
		t.Errorf("%+v", e)
	}
	// Nothing that was typed is in any event or log.
	all := w.cli("events", "--output", "json", "--limit", "1000") + w.realm.server.Output() + s.agent.Output()
	for _, secret := range []string{alice.pw, alice.key, wrong} {
		if strings.Contains(all, secret) {
			t.Errorf("%q stands in an event or a log", secret)
		}
	}
}

// half is a sign-in whose password was accepted and whose code is asked for.
func (s *station) half(p *person) *Terminal {
	s.t.Helper()
	term := s.here().Terminal("", "pamtester", "x", p.name, "authenticate")
	if !term.Expect("assword: ", Patience) {
		s.t.Fatal(term.Output())
	}
	time.Sleep(200 * time.Millisecond)
	term.Type(p.pw)
	if !term.Expect("code: ", Patience) {
		s.t.Fatal(term.Output())
	}
	return term
}

// TestTheServerIsKilledInASignIn: a step is repeated with the same number.
func TestTheServerIsKilledInASignIn(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	t.Run("and comes back: the sign-in goes on", func(t *testing.T) {
		s := s.In(t)
		code := s.code(alice)
		term := s.half(alice)
		s.server0().Kill("KILL")
		term.Type(code)
		time.Sleep(2 * time.Second)
		s.startServer()
		if n := term.Exit(Patience); n != 0 {
			t.Errorf("exit %d\n%s", n, term.Output())
		}
	})
	t.Run("and stays away, or its packets vanish: denied, never offline (O1)", func(t *testing.T) {
		s, far := s.In(t), w.In(t).station("far", true)
		far.m.AddUser("alice", alice.unix)
		s.enrolled(alice)
		far.enrol(alice)
		code, gone := s.code(alice), s.half(alice)
		hole := far.half(alice)
		far.cut()
		hole.Type(code)
		s.server0().Kill("KILL")
		gone.Type(code)
		for name, term := range map[string]*Terminal{"the server is gone": gone, "its packets vanish": hole} {
			if n := term.Exit(70 * time.Second); n == 0 || n == -1 {
				t.Errorf("%s: exit %d\n%s", name, n, term.Output())
			}
			out := term.Output()
			if !strings.Contains(out, text.DeniedUnreachable) || strings.Contains(out, text.OfflineNow) || strings.Count(out, "code: ") != 1 {
				t.Errorf("%s:\n%s", name, out)
			}
		}
		// The next ones are offline ones.
		opened(t, s.x(alice, s.full(alice)), true)
		opened(t, far.x(alice, s.full(alice)), true)
	})
}

// TestOnPostgreSQL: the thin path on the other engine.
func TestOnPostgreSQL(t *testing.T) {
	w := newWorld(t, storetest.PostgreSQL(t))
	s := w.station("desk", true)
	alice := w.addUser("alice")
	before := w.mark()
	opened(t, s.here().Login("alice", w.full(alice)), true)
	s.In(t).explains(w.last("signin.allowed", "alice", before), "alice")
	opened(t, s.here().Login("alice", Say("assword: ", alice.pw)), true) // the window
	s.enrolled(alice)
	s.cut()
	opened(t, s.here().Login("alice", w.full(alice)), true)
	s.mend()
	s.delivered()
	w.realm.server.Kill("KILL")
	w.startServer()
	s.online()
	opened(t, s.here().Sudo("alice", w.full(alice)), true)
	w.cli("offline", "disenroll", "--user", "alice", "--machine", "desk", "--yes")
	s.here().Until(5*time.Second, "the offline data is gone", func() bool { return len(s.vaultFiles()) == 0 })
	w.cli("events", "verify")
	offline := slices.DeleteFunc(w.events("--type", "signin.allowed"), func(e rest.Event) bool { return e.Link != "down" })
	if len(offline) != 1 {
		t.Errorf("%s", short(offline))
	}
	var st rest.Status
	w.read(&st, "server", "status")
	if !strings.HasPrefix(st.Engine, "postgres") {
		t.Errorf("%+v", st)
	}
	if _, err := os.Stat(w.srv.Path(serverData + "/latchkey.db")); err == nil {
		t.Error("there is an SQLite file, too")
	}
}
