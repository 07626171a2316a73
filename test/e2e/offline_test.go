//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
	"latchkey/internal/tpm/tpmtest"
)

// Sign-ins without the server, on the real programs, with a TPM and without.

// refused fails unless the sign-in was denied with the text of the reason.
func refused(t testing.TB, r Result, why policy.Reason) {
	t.Helper()
	opened(t, r, false)
	// Whom to ask comes behind it, and differs.
	words, _, _ := strings.Cut(text.Denied(why, ""), " Ask an administrator")
	shows(t, r, words, true)
}

// left is what the machine says is left to somebody.
func (s *station) left(p *person) (signins, tries, checks int) {
	s.t.Helper()
	st, err := s.status()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, u := range st.Offline.Users {
		if u.User == p.name {
			return u.Left.Signins, u.Left.Tries, u.Left.Checks
		}
	}
	s.t.Fatalf("%s is not in the status: %+v", p.name, st.Offline)
	return
}

// serial waits until the machine has the policy that the server wants it to have.
func (s *station) serial() {
	s.t.Helper()
	var m rest.Machine
	s.here().Until(15*time.Second, "the machine has the newest policy", func() bool {
		s.read(&m, "machine", "show", s.name)
		st, err := s.status()
		return err == nil && st.Offline.PolicySerial == m.Serial
	})
}

// TestOfflineLimits: O6, O8, O9, O10.
func TestOfflineLimits(t *testing.T) {
	classes(t, func(t *testing.T, withTPM bool) {
		w := newWorld(t, "")
		s := w.station("desk", withTPM)
		w.set("window=0s", "offline_tries=5", "offline_signins=4")
		alice := w.addUser("alice")
		s.enrol(alice)
		s.serial()
		password := Say("assword: ", alice.pw)
		t.Run("wrong codes are counted, also through kill -9 of agent and TPM (O10)", func(t *testing.T) {
			s := s.In(t)
			s.cut()
			wrong := s.wrong(alice)
			_, _, checks := s.left(alice)
			r := s.here().Login("alice", append(password, Say("code: ", wrong, "code: ", wrong, "code: ", wrong)...))
			opened(t, r, false)
			shows(t, r, text.OfflineNow, true)
			shows(t, r, text.WrongCode, true)
			if r.Waits[0] > 3*time.Second {
				t.Errorf("the first prompt took %v", r.Waits[0])
			}
			s.agent.Kill("KILL")
			if s.tpm != nil {
				s.tpm.Restart()
			}
			s.startAgent()
			_, tries, now := s.left(alice)
			if tries != 2 || checks-now != 3 {
				t.Errorf("%d tries left, %d checks spent", tries, checks-now)
			}
		})
		t.Run("wrong passwords are, too; at the limit the right one is refused", func(t *testing.T) {
			s := s.In(t)
			for range 2 {
				r := s.here().Login("alice", Say("assword: ", "some other thing", "code: ", s.code(alice)))
				opened(t, r, false)
				shows(t, r, text.DeniedOffline, true)
			}
			refused(t, s.here().Login("alice", password), policy.ReasonVaultTries)
			s.agent.Kill("KILL")
			if s.tpm != nil {
				s.tpm.Restart()
			}
			s.startAgent()
			s.pass(24 * time.Hour)
			refused(t, s.here().Login("alice", password), policy.ReasonVaultTries)
		})
		t.Run("until the server lifts it", func(t *testing.T) {
			s := s.In(t)
			s.mend()
			s.delivered()
			s.unplug()
			refused(t, s.here().Login("alice", password), policy.ReasonVaultTries)
			s.mend()
			s.cli("offline", "lift", "--user", "alice", "--machine", "desk", "--yes")
			s.here().Until(15*time.Second, "the counters are lifted", func() bool {
				_, tries, _ := s.left(alice)
				return tries == 5
			})
			s.last("offline.lifted", "", 0)
			s.unplug()
			opened(t, s.here().Login("alice", s.full(alice)), true)
		})
		t.Run("sign-ins are counted, and the last ones announced (O6)", func(t *testing.T) {
			s := s.In(t)
			for n := 2; n >= 0; n-- {
				r := s.here().Login("alice", s.full(alice))
				opened(t, r, true)
				if n == 0 {
					shows(t, r, "Left for sign-in without the server: ", true)
				}
				if signins, _, _ := s.left(alice); signins != n {
					t.Errorf("%d sign-ins are left, not %d", signins, n)
				}
			}
			refused(t, s.here().Login("alice", password), policy.ReasonVaultSignins)
			s.restartAgent()
			refused(t, s.here().Login("alice", password), policy.ReasonVaultSignins)
		})
		t.Run("an online sign-in gives them back (O5), the days end all the same (O6)", func(t *testing.T) {
			s := s.In(t)
			s.mend()
			s.enrol(alice)
			s.here().Until(15*time.Second, "the counters are lifted", func() bool {
				signins, _, _ := s.left(alice)
				return signins == 4
			})
			s.unplug()
			s.pass(6*24*time.Hour + 23*time.Hour)
			r := s.here().Login("alice", s.full(alice))
			opened(t, r, true)
			shows(t, r, "Left for sign-in without the server: 0 days", true)
			s.pass(2 * time.Hour)
			refused(t, s.here().Login("alice", password), policy.ReasonVaultDays)
		})
		t.Run("a clock far ahead opens nothing and costs nothing (O9)", func(t *testing.T) {
			s := s.In(t)
			s.mend()
			s.enrol(alice)
			s.unplug()
			s.turnClock(400 * 24 * time.Hour)
			opened(t, s.here().Login("alice", password), false)
			s.turnClock(0)
			opened(t, s.here().Login("alice", s.full(alice)), true)
			s.pass(7*24*time.Hour + time.Hour)
			refused(t, s.here().Login("alice", password), policy.ReasonVaultDays)
		})
		t.Run("a clock that is turned back prolongs nothing (O9)", func(t *testing.T) {
			s := s.In(t)
			// The days are those of the codes that are known here: the phone's is none.
			code := s.code(alice)
			s.turnClock(-3 * 24 * time.Hour)
			opened(t, s.here().Login("alice", append(password, Say("code: ", code)[0], giveUp)), false)
			s.turnClock(0)
			refused(t, s.here().Login("alice", password), policy.ReasonVaultDays)
		})
		t.Run("everything is told, and the chain is whole (O11)", func(t *testing.T) {
			s := s.In(t)
			s.mend()
			s.delivered()
			reasons := map[string]int{}
			for _, e := range s.events("--type", "signin.denied") {
				if e.Link == "down" {
					reasons[e.Reason]++
				}
			}
			for _, want := range []string{"wrong-code", "wrong-password", "offline-tries-used-up", "offline-signins-used-up", "offline-days-used-up"} {
				if reasons[want] == 0 {
					t.Errorf("nothing tells of %s: %v", want, reasons)
				}
			}
			if reasons["wrong-code"] != 4 || reasons["wrong-password"] != 2 {
				t.Errorf("%v", reasons)
			}
			s.cli("events", "verify")
			for _, bad := range []string{"journal.gap", "journal.forged"} {
				if es := s.events("--type", bad); len(es) > 0 {
					t.Error(short(es))
				}
			}
		})
	})
}

// TestOfflineFromAfar: remote callers may spend a quarter of the tries.
func TestOfflineFromAfar(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	w.set("window=0s", "offline_tries=8")
	alice := w.addUser("alice")
	s.m.SSHD()
	s.enrol(alice)
	s.serial()
	s.unplug()
	for range 2 {
		opened(t, s.here().SSH("alice", Say("assword: ", "some other thing", "code: ", w.code(alice)), once...), false)
	}
	opened(t, s.here().SSH("alice", w.full(alice), once...), false)
	if _, tries, _ := s.left(alice); tries != 6 {
		t.Errorf("%d tries are left", tries)
	}
	opened(t, s.here().Login("alice", w.full(alice)), true)
	opened(t, s.here().SSH("alice", w.full(alice), once...), true)
}

// TestCodesAcrossTheLink: a code is spent on both sides of a cut (S10, O9, M5).
func TestCodesAcrossTheLink(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	w.set("window=0s")
	alice := w.addUser("alice")
	w.addBackup(alice)
	menu := func(n, prompt, code string) []Turn { return Say("assword: ", alice.pw, "[1-2]: ", n, prompt, code) }
	opened(t, s.here().Login("alice", menu("1", "code: ", w.code(alice))), true)
	s.enrolled(alice)
	opened(t, s.here().Login("alice", menu("2", "ackup code: ", alice.backup[0])), true)
	t.Run("what was accepted online is not accepted offline", func(t *testing.T) {
		s := s.In(t)
		code := s.code(alice)
		opened(t, s.here().Login("alice", menu("1", "code: ", code)), true)
		s.unplug()
		next := s.code(alice)
		r := s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code, "code: ", alice.backup[0], "code: ", next))
		opened(t, r, true)
		// The backup code is not in the machine's data any more: not used, but unknown.
		if strings.Count(r.Output, text.CodeUsed) != 1 || strings.Count(r.Output, text.WrongCode) != 1 {
			t.Errorf("what was refused is not told apart\n%s", r.Output)
		}
	})
	t.Run("nor twice offline, also after kill -9", func(t *testing.T) {
		s := s.In(t)
		code := s.code(alice)
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code)), true)
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", alice.backup[1])), true)
		s.restartAgent()
		r := s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code, "code: ", alice.backup[1], "code: ", alice.backup[2]))
		opened(t, r, true)
		if strings.Count(r.Output, text.CodeUsed) != 1 || strings.Count(r.Output, text.BackupUsed) != 1 {
			t.Errorf("the codes are not both called used\n%s", r.Output)
		}
		s.turnClock(-5 * time.Minute)
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code, "code: ", code, "code: ", code)), false)
		s.turnClock(0)
	})
	t.Run("what was accepted offline is spent online", func(t *testing.T) {
		s := s.In(t)
		code := s.code(alice)
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code)), true)
		s.mend()
		s.delivered()
		opened(t, s.here().Login("alice", append(menu("1", "code: ", code), giveUp)), false)
		opened(t, s.here().Login("alice", append(menu("2", "ackup code: ", alice.backup[1]), giveUp)), false)
		opened(t, s.here().Login("alice", menu("2", "ackup code: ", alice.backup[3])), true)
	})
}

// TestPoliciesOffline: O2, O3, O4, and the policy file itself.
func TestPoliciesOffline(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	w.set("window=0s")
	alice := w.addUser("alice")
	bob := w.addUser("bob")
	dora := w.addUser("dora", "--2fa", "off")
	s.m.AddUser("nobody2", "the machine's own 7")
	// Only whom the machine has met is in its policy file, and nobody else is let in.
	opened(t, s.here().Login("dora", Say("assword: ", dora.pw)), true)
	w.set("offline_enrol=off")
	opened(t, s.here().Login("bob", w.full(bob)), true)
	w.set("offline_enrol=auto")
	s.enrol(alice)
	// with sets the policy, and cuts.
	with := func(t *testing.T, settings ...string) *station {
		s := s.In(t)
		s.set(settings...)
		s.serial()
		s.unplug()
		t.Cleanup(s.mend)
		return s
	}
	t.Run("mfa: who is enrolled gives a code, who is not is denied", func(t *testing.T) {
		s := with(t, "offline=mfa")
		opened(t, s.here().Login("alice", s.full(alice)), true)
		refused(t, s.here().Login("bob", Say("assword: ", bob.pw)), policy.ReasonNoVault)
		opened(t, s.here().Login("nobody2", Say("assword: ", "the machine's own 7", "code: ", "123456")), false)
		r := s.here().Login("dora", Say("assword: ", dora.unix))
		opened(t, r, true) // 2FA is off: the machine decides
	})
	t.Run("mfa_or_bypass: who is not enrolled has the machine's password", func(t *testing.T) {
		s := with(t, "offline=mfa_or_bypass")
		opened(t, s.here().Login("bob", Say("assword: ", bob.unix)), true)
		opened(t, s.here().Login("bob", Say("assword: ", bob.pw)), false)
		opened(t, s.here().Login("alice", s.full(alice)), true)
		opened(t, s.here().Login("alice", Say("assword: ", alice.unix, "code: ", s.code(alice))), false)
	})
	t.Run("bypass: everybody has the machine's password, and it is told (O11)", func(t *testing.T) {
		s := with(t, "offline=bypass")
		opened(t, s.here().Login("alice", Say("assword: ", alice.unix)), true)
		opened(t, s.here().Login("nobody2", Say("assword: ", "the machine's own 7", "code: ", "123456")), false)
	})
	t.Run("deny", func(t *testing.T) {
		s := with(t, "offline=deny")
		refused(t, s.here().Login("alice", Say("assword: ", alice.pw)), policy.ReasonOfflineDeny)
	})
	t.Run("explain says offline what the event says (S13)", func(t *testing.T) {
		s := s.In(t)
		s.set("offline=mfa")
		s.serial()
		s.delivered()
		before := s.mark()
		s.unplug()
		opened(t, s.here().Login("alice", s.full(alice)), true)
		s.mend()
		s.delivered()
		e := s.last("signin.allowed", "alice", before)
		if e.Link != "down" || e.Reason != "offline-mfa" || e.Machine != "desk" || e.Service != "login" || e.Scope != "logon" || e.Factor != "totp" {
			t.Error(short([]rest.Event{e}))
		}
		var x rest.Explained
		s.read(&x, "explain", "--user", "alice", "--machine", "desk", "--scope", "logon", "--service", "login", "--offline",
			"--uid", strings.TrimSpace(s.here().Run("id", "-u", "alice")))
		if d := cmp.Diff(trace(t, e), x.Decision.Trace); d != "" {
			t.Errorf("the event says (-), explain says (+):\n%s", d)
		}
	})
	t.Run("without its policy file the machine denies", func(t *testing.T) {
		s := s.In(t)
		s.set("offline=bypass")
		s.serial()
		s.unplug()
		files := strings.Fields(s.here().Run("find", s.state, "-name", "policy"))
		if len(files) != 1 {
			t.Fatalf("%q", files)
		}
		s.agent.Kill("KILL")
		old := s.here().Read(files[0])
		s.here().Run("rm", files[0])
		s.startAgent()
		refused(t, s.here().Login("alice", Say("assword: ", alice.unix)), policy.ReasonPolicyAbsent)
		// What is not the server's word is none.
		s.agent.Kill("KILL")
		s.here().Write(files[0], strings.Replace(old, "a", "b", 1), 0o600)
		s.startAgent()
		refused(t, s.here().Login("alice", Say("assword: ", alice.unix)), policy.ReasonPolicyForeign)
		s.mend()
		s.set("offline=mfa")
		s.serial()
		// An older one: bypass as it was.
		s.agent.Kill("KILL")
		s.unplug()
		s.here().Write(files[0], old, 0o600)
		s.startAgent()
		refused(t, s.here().Login("alice", Say("assword: ", alice.unix)), policy.ReasonPolicyOlder)
		s.mend()
		s.serial()
		s.unplug()
		opened(t, s.here().Login("alice", s.full(alice)), true)
		s.mend()
	})
	t.Run("asked: who says not now is not enrolled, who says yes is (O4)", func(t *testing.T) {
		s := s.In(t)
		s.set("offline_enrol=ask")
		carol := s.addUser("carol")
		r := s.here().Login("carol", append(s.full(carol), Say("[1-2]: ", "2")...))
		opened(t, r, true)
		shows(t, r, text.PromptOffline, true)
		time.Sleep(time.Second)
		if got := s.report(carol); got != "" {
			t.Errorf("the report says %q", got)
		}
		opened(t, s.here().Login("carol", append(s.full(carol), Say("[1-2]: ", "1")...)), true)
		s.enrolled(carol)
	})
}

// TestDisenrolment: O14, O5.
func TestDisenrolment(t *testing.T) {
	classes(t, func(t *testing.T, withTPM bool) {
		w := newWorld(t, "")
		s := w.station("desk", withTPM)
		w.set("window=0s")
		alice := w.addUser("alice")
		s.enrol(alice)
		s.serial()
		gone := func(t *testing.T) {
			t.Helper()
			begun := time.Now()
			s.In(t).here().Until(2*time.Second, "the offline data is gone", func() bool { return len(s.vaultFiles()) == 0 })
			t.Logf("wiped after %v", time.Since(begun).Round(time.Millisecond))
		}
		denied := func(t *testing.T, s *station, why policy.Reason) {
			t.Helper()
			s.unplug()
			refused(t, s.here().Login("alice", Say("assword: ", alice.pw)), why)
			s.mend()
		}
		t.Run("by an administrator: at once", func(t *testing.T) {
			s := s.In(t)
			if len(s.vaultFiles()) == 0 {
				t.Fatal("there is no offline data")
			}
			s.cli("offline", "disenroll", "--user", "alice", "--machine", "desk", "--yes")
			gone(t)
			denied(t, s, policy.ReasonNoVault)
			s.last("offline.wiped", "", 0)
		})
		t.Run("a changed password (O5)", func(t *testing.T) {
			s := s.In(t)
			s.enrol(alice)
			alice.pw = "harbour lantern moss"
			s.cliInput(alice.pw+"\n", "user", "password", "alice", "--password-stdin")
			gone(t)
			denied(t, s, policy.ReasonNoVault)
		})
		t.Run("a removed authenticator (O5)", func(t *testing.T) {
			s := s.In(t)
			s.enrol(alice)
			s.cli("factor", "remove", "alice", "totp", "--yes")
			gone(t)
			denied(t, s, policy.ReasonNoVault)
			s.addTOTP(alice)
		})
		t.Run("a disabled user (O5)", func(t *testing.T) {
			s := s.In(t)
			s.enrol(alice)
			s.cli("user", "disable", "alice")
			gone(t)
			s.unplug()
			opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", s.code(alice))), false)
			s.mend()
			s.cli("user", "enable", "alice")
		})
		t.Run("while the machine is away: at the next contact, without a sign-in", func(t *testing.T) {
			s := s.In(t)
			s.enrol(alice)
			s.unplug()
			opened(t, s.here().Login("alice", s.full(alice)), true)
			s.cli("offline", "disenroll", "--user", "alice", "--yes")
			if len(s.vaultFiles()) == 0 {
				t.Error("the data went by itself")
			}
			s.mend()
			s.here().Until(5*time.Second, "the offline data is gone", func() bool { return len(s.vaultFiles()) == 0 })
			denied(t, s, policy.ReasonNoVault)
		})
	})
}

// TestRevocation: O1 refused, E4, O14 lost.
func TestRevocation(t *testing.T) {
	classes(t, func(t *testing.T, withTPM bool) {
		w := newWorld(t, "")
		near, far := w.station("near", withTPM), w.station("far", withTPM)
		alice := w.addUser("alice")
		near.enrol(alice)
		far.enrol(alice)
		t.Run("at once, also when the network is cut right afterwards", func(t *testing.T) {
			s := near.In(t)
			s.cli("machine", "revoke", "near", "--reason", "sold", "--yes")
			time.Sleep(time.Second)
			s.cut()
			s.here().Until(2*time.Second, "the offline data is gone", func() bool { return len(s.vaultFiles()) == 0 })
			r := s.here().Login("alice", Say("assword: ", alice.pw))
			refused(t, r, policy.ReasonRefused)
			s.restartAgent()
			refused(t, s.here().Login("alice", Say("assword: ", alice.pw)), policy.ReasonRefused)
			st, err := s.status()
			if err != nil || st.Link != "refused" {
				t.Errorf("%+v %v", st, err)
			}
		})
		t.Run("while it is away: at its next contact", func(t *testing.T) {
			s := far.In(t)
			s.unplug()
			opened(t, s.here().Login("alice", s.full(alice)), true)
			var lost rest.Lost
			s.read(&lost, "machine", "lost", "far", "--yes")
			if len(lost.Reseed) != 1 || lost.Reseed[0].User != "alice" || lost.Reseed[0].Urgent == withTPM {
				t.Errorf("%+v", lost.Reseed)
			}
			s.plug()
			s.link("refused")
			if files := s.vaultFiles(); len(files) != 0 {
				t.Errorf("%q", files)
			}
			refused(t, s.here().Login("alice", Say("assword: ", alice.pw)), policy.ReasonRefused)
			s.unplug()
			s.restartAgent()
			refused(t, s.here().Login("alice", Say("assword: ", alice.pw)), policy.ReasonRefused)
		})
	})
}

// TestOldStatePutBack: O9.
func TestOldStatePutBack(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.enrol(alice)
	s.serial()
	s.unplug()
	keep := filepath.Join(t.TempDir(), "state")
	copyState := func(from, to string) {
		t.Helper()
		if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	s.agent.Kill("KILL")
	copyState(s.m.Path(s.state), keep)
	s.startAgent()
	code := w.code(alice)
	opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", code)), true)
	s.agent.Kill("KILL")
	if err := os.RemoveAll(s.m.Path(s.state)); err != nil {
		t.Fatal(err)
	}
	copyState(keep, s.m.Path(s.state))
	s.startAgent()
	t.Run("denied, and not as a wrong code", func(t *testing.T) {
		s := s.In(t)
		refused(t, s.here().Login("alice", Say("assword: ", alice.pw)), policy.ReasonVaultRolledBack)
	})
	t.Run("told to the server, and mended by an online sign-in", func(t *testing.T) {
		s := s.In(t)
		s.mend()
		s.last("offline.state_restored", "", 0)
		s.enrol(alice)
		s.unplug()
		opened(t, s.here().Login("alice", s.full(alice)), true)
		s.mend()
	})
}

// TestTheStateOnAnotherMachine: O8. The folder alone, and the folder with a TPM that
// is not its own.
func TestTheStateOnAnotherMachine(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	alice := w.addUser("alice")
	s.enrol(alice)
	s.serial()
	s.unplug()
	s.agent.Kill("KILL")
	thief := NewMachine(t)
	thief.AddUser("alice", alice.unix)
	thief.PAM("login", thief.Shipped("latchkey-full"))
	if err := os.MkdirAll(filepath.Dir(thief.Path(s.state)), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", s.m.Path(s.state), thief.Path(s.state)).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for name, c := range map[string]struct {
		spec string
		why  policy.Reason
	}{
		"with another TPM": {tpmtest.Start(t).Spec(), policy.ReasonTPMCleared},
		"without a TPM":    {"none", policy.ReasonTPMGone},
	} {
		t.Run(name, func(t *testing.T) {
			m := thief.In(t)
			_ = os.Remove(m.Path(Socket))
			p := m.StartEnv(s.env(), TestProgram(t, "latchkey-agent"), "run", "--state", s.state, "--socket", Socket, "--tpm", c.spec)
			m.Until(15*time.Second, "the agent listens", func() bool {
				_, err := os.Stat(m.Path(Socket))
				return err == nil
			})
			r := m.Login("alice", Say("assword: ", alice.pw, "code: ", w.code(alice)))
			refused(t, r, c.why)
			shows(t, r, "code: ", false)
			p.Kill("KILL")
		})
	}
}

// TestTPMTroubles: O17, O8: cleared, locked, gone are told apart, in text and event.
func TestTPMTroubles(t *testing.T) {
	w := newWorld(t, "")
	s := &station{w, &seat{name: "desk", state: agentState}}
	s.tpm = tpmtest.Start(t)
	proxy := tpmtest.NewProxy(t, s.tpm)
	s.spec = proxy.Spec()
	w.place(s)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.enrol(alice)
	s.serial()
	password := Say("assword: ", alice.pw)
	told := func(t *testing.T, s *station, reason string, before int64) {
		t.Helper()
		s.mend()
		e := s.last("tpm.problem", "", before)
		if e.Reason != reason || e.Machine != "desk" {
			t.Error(short([]rest.Event{e}))
		}
	}
	t.Run("gone", func(t *testing.T) {
		s := s.In(t)
		before := s.mark()
		s.unplug()
		s.tpm.Kill()
		refused(t, s.here().Login("alice", s.full(alice)), policy.ReasonTPMGone)
		s.tpm.Start()
		opened(t, s.here().Login("alice", s.full(alice)), true)
		told(t, s, "tpm-gone", before)
	})
	t.Run("locked", func(t *testing.T) {
		s := s.In(t)
		s.delivered()
		before := s.mark()
		s.unplug()
		const policySecret, lockout = 0x151, 0x921
		proxy.Hook(func(c []byte) []byte {
			if tpmtest.Command(c) == policySecret {
				return tpmtest.Answer(lockout)
			}
			return nil
		})
		r := s.here().Login("alice", s.full(alice))
		proxy.Hook(nil)
		refused(t, r, policy.ReasonTPMLocked)
		opened(t, s.here().Login("alice", s.full(alice)), true)
		told(t, s, "tpm-locked", before)
	})
	t.Run("cleared", func(t *testing.T) {
		s := s.In(t)
		s.delivered()
		before := s.mark()
		s.unplug()
		s.tpm.Clear()
		r := s.here().Login("alice", s.full(alice))
		refused(t, r, policy.ReasonTPMCleared)
		s.restartAgent()
		refused(t, s.here().Login("alice", password), policy.ReasonTPMCleared)
		_ = before
	})
}

// TestOfflineIsDeliveredOnce: O11, also when the agent is killed while it delivers.
func TestOfflineIsDeliveredOnce(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	w.set("window=0s", "offline=bypass")
	alice := w.addUser("alice")
	opened(t, s.x(alice, w.full(alice)), true)
	s.serial()
	s.unplug()
	var want []string
	for i := range 8 {
		tty := fmt.Sprintf("/dev/tty%d", i)
		want = append(want, tty)
		opened(t, s.here().Pamtester([]string{"-I", "tty=" + tty}, "x", "alice", auth, Say("assword: ", alice.unix)), true)
	}
	s.plug()
	for range 6 {
		time.Sleep(150 * time.Millisecond)
		s.restartAgent()
	}
	s.online()
	s.delivered()
	var got []string
	for _, e := range w.events("--type", "signin.left_to_machine") {
		var d struct{ TTY string }
		if err := json.Unmarshal(e.Data, &d); err != nil {
			t.Fatal(err)
		}
		got = append(got, d.TTY)
		if e.Reason != "offline-bypass" || e.Subject != "alice" || e.ReceivedAt.Before(e.At) {
			t.Error(short([]rest.Event{e}))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	w.cli("events", "verify")
	if slices.ContainsFunc(w.events(), func(e rest.Event) bool { return strings.HasPrefix(e.Type, "journal.") }) {
		t.Error("the chain is not whole")
	}
}
