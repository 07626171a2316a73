//go:build e2e

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
	"latchkey/internal/tpm"
	"latchkey/internal/tpm/tpmtest"
)

// Attacks on what lies on a machine, troubles of its TPM and of clocks, on the real
// programs: what opens, what the person reads, which event tells it, and whom the
// console lists as stuck (O8-O10, O16, O17, W6, W7).

// copyFolder reads the whole state folder.
func (s *station) copyFolder() map[string][]byte {
	s.t.Helper()
	root, files := s.m.Path(s.state), map[string][]byte{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(root, p)
		files[rel] = b
		return err
	})
	if err != nil || len(files) == 0 {
		s.t.Fatalf("%v, %d files", err, len(files))
	}
	return files
}

// putBack kills the agent, writes the files whose last name is among those given, or
// makes the folder what it was if none is, and starts the agent.
func (s *station) putBack(files map[string][]byte, only ...string) {
	s.t.Helper()
	if s.agent.Running() {
		s.agent.Kill("KILL")
	}
	root := s.m.Path(s.state)
	if len(only) == 0 {
		for name := range s.copyFolder() {
			if _, ok := files[name]; !ok {
				if err := os.Remove(filepath.Join(root, name)); err != nil {
					s.t.Fatal(err)
				}
			}
		}
	}
	done := 0
	for name, b := range files {
		if len(only) > 0 && !slices.Contains(only, filepath.Base(name)) {
			continue
		}
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			s.t.Fatal(err)
		}
		done++
	}
	if done < max(1, len(only)) {
		s.t.Fatalf("%d files were put back, wanted %q", done, only)
	}
	s.startAgent()
}

// first is what a person types first.
func (p *person) first() []Turn { return Say("assword: ", p.pw) }

// denied fails unless the sign-in was refused for the reason, in its words, without a
// code having been asked for.
func (s *station) denied(p *person, why policy.Reason) {
	s.t.Helper()
	refused(s.t, s.x(p, p.first()), why)
}

// stuck lists why a person could not sign in here without the server, as the console
// says; empty: he could (O16).
func (s *station) stuck(p *person) string {
	s.t.Helper()
	var list []rest.Stuck
	s.read(&list, "offline", "stuck")
	for _, x := range list {
		if x.User == p.name && x.Machine == s.name {
			return x.Reason
		}
	}
	return ""
}

// told waits for an event about this machine with a reason.
func (s *station) told(typ string, why policy.Reason, after int64) {
	s.t.Helper()
	var es []rest.Event
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		es = s.since(after, "--type", typ)
		if slices.ContainsFunc(es, func(e rest.Event) bool { return e.Reason == string(why) && e.Machine == s.name }) {
			return
		}
	}
	s.t.Errorf("no event %s of %s with reason %s: %s", typ, s.name, why, short(es))
}

// becomes waits until the console lists the person so.
func (s *station) becomes(p *person, why string) {
	s.t.Helper()
	got := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got = s.stuck(p); got == why {
			return
		}
	}
	s.t.Errorf("the console lists %s at %s as stuck because of %q, not %q", p.name, s.name, got, why)
}

// TestPartsOfTheStatePutBack: O9, O10, O16.
func TestPartsOfTheStatePutBack(t *testing.T) {
	w := newWorld(t, "")
	desk, plain := w.station("desk", true), w.station("plain", false)
	w.set("window=0s", "offline=bypass")
	alice := w.addUser("alice")
	opened(t, desk.x(alice, w.full(alice)), true)
	desk.serial()
	plain.x(alice, w.full(alice))
	plain.serial()
	lastMonth := map[string]map[string][]byte{"desk": desk.copyFolder(), "plain": plain.copyFolder()}
	w.set("offline=mfa")
	desk.enrol(alice)
	plain.enrol(alice)
	desk.serial()
	plain.serial()
	desk.becomes(alice, "")

	t.Run("the power is cut at every step of a write, that disk is kept, and put back later", func(t *testing.T) {
		s := desk.In(t)
		s.unplug()
		for _, step := range []string{"vault.ledger.reserved", "vault.ledger.written", "vault.ledger.counted"} {
			before := s.copyFolder()
			s.killAt(step)
			r := s.x(alice, s.full(alice))
			opened(t, r, false)
			shows(t, r, text.WrongCode, false)
			s.here().Until(10*time.Second, "the agent is dead at "+step, func() bool { return !s.agent.Running() })
			between := s.copyFolder()
			// Somebody goes on with the disk of before the cut, as far as it fits.
			s.putBack(before)
			if step == "vault.ledger.counted" {
				s.denied(alice, policy.ReasonVaultRolledBack)
				s.putBack(between)
			}
			code := s.code(alice)
			opened(t, s.x(alice, Say("assword: ", alice.pw, "code: ", code)), true)
			after := s.copyFolder()
			s.putBack(between)
			s.denied(alice, policy.ReasonVaultRolledBack)
			s.putBack(after)
			r = s.x(alice, Say("assword: ", alice.pw, "code: ", code, "code: ", s.code(alice)))
			opened(t, r, true)
			shows(t, r, text.CodeUsed, true)
		}
	})
	t.Run("the ledger of before the outcome, after an accepted sign-in", func(t *testing.T) {
		s := desk.In(t)
		before := s.copyFolder()
		opened(t, s.x(alice, s.full(alice)), true)
		s.putBack(before, "ledger")
		s.denied(alice, policy.ReasonVaultRolledBack)
		s.putBack(lastMonth["desk"])
		s.denied(alice, policy.ReasonVaultRolledBack)
		mark := s.mark()
		s.mend()
		e := s.last("offline.state_restored", "", mark)
		if e.Machine != "desk" {
			t.Error(short([]rest.Event{e}))
		}
		// The list of who could not sign in on a plane is true at once.
		s.becomes(alice, string(policy.ReasonNoVault))
		if got := s.report(alice); got != "" {
			t.Errorf("the report says %q", got)
		}
		// Contact alone gives nothing back, and it is told as what it was.
		s.serial()
		s.unplug()
		s.denied(alice, policy.ReasonVaultRolledBack)
		s.mend()
		s.enrol(alice)
		s.becomes(alice, "")
		s.unplug()
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
		for _, typ := range []string{"journal.forged", "journal.gap"} {
			if es := s.since(mark, "--type", typ); len(es) > 0 {
				t.Error(short(es))
			}
		}
	})
	t.Run("without a TPM: single files are noticed on the machine", func(t *testing.T) {
		s := plain.In(t)
		s.unplug()
		now := s.copyFolder()
		s.putBack(lastMonth["plain"], "policy")
		refused(t, s.x(alice, Say("assword: ", alice.unix)), policy.ReasonPolicyOlder)
		s.putBack(lastMonth["plain"], "policy", "ledger")
		refused(t, s.x(alice, Say("assword: ", alice.unix)), policy.ReasonVaultRolledBack)
		s.putBack(now)
		opened(t, s.x(alice, s.full(alice)), true)
	})
	t.Run("without a TPM: the whole folder is noticed at the next contact", func(t *testing.T) {
		s := plain.In(t)
		s.mend()
		s.delivered()
		s.unplug()
		s.putBack(lastMonth["plain"])
		// That is the weaker class: last month's machine is a machine that was.
		opened(t, s.x(alice, Say("assword: ", alice.unix)), true)
		mark := s.mark()
		s.mend()
		if e := s.last("offline.state_restored", "", mark); e.Machine != "plain" {
			t.Error(short([]rest.Event{e}))
		}
		s.serial()
		s.unplug()
		s.denied(alice, policy.ReasonVaultRolledBack)
		s.mend()
		s.enrol(alice)
		s.becomes(alice, "")
	})
	w.cli("events", "verify")
}

// TestLockedOutStolenAndRelaid: S10, W5, W6, W7, O8.
func TestLockedOutStolenAndRelaid(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", true)
	alice, bob := w.addUser("alice"), w.addUser("bob")
	s.enrol(alice)
	s.enrol(bob)
	s.serial()
	t.Run("a window is not prolonged by turning the machine's clock (W7)", func(t *testing.T) {
		s := s.In(t)
		r := s.x(alice, alice.first())
		opened(t, r, true)
		shows(t, r, "code: ", false)
		s.turnClock(-9 * time.Hour)
		s.pass(9 * time.Hour)
		r = s.x(alice, append(alice.first(), giveUp))
		opened(t, r, false)
		shows(t, r, "code: ", true)
		s.turnClock(0)
		s.online()
		opened(t, s.x(alice, s.full(alice)), true)
		s.enrolled(alice)
	})
	t.Run("a stolen machine with a valid window, rebooted without network", func(t *testing.T) {
		s := s.In(t)
		// The window silences: the password alone opens.
		r := s.x(alice, alice.first())
		opened(t, r, true)
		shows(t, r, "code: ", false)
		s.unplug()
		s.agent.Kill("KILL")
		s.tpm.Restart()
		s.startAgent()
		r = s.x(alice, append(alice.first(), giveUp))
		opened(t, r, false)
		shows(t, r, text.OfflineNow, true)
		shows(t, r, "code: ", true)
		// Nor at a restart without a reboot: only the server's record silences (W5).
		s.restartAgent()
		opened(t, s.x(alice, append(alice.first(), giveUp)), false)
		opened(t, s.x(alice, s.full(alice)), true)
		// Back on the network another boot has no window either.
		s.mend()
		s.delivered()
		r = s.x(alice, append(alice.first(), giveUp))
		opened(t, r, false)
		shows(t, r, "code: ", true)
		s.set("window=0s")
	})
	t.Run("a locked-out user pulls the cable", func(t *testing.T) {
		s := s.In(t)
		s.set("lockout_after=3", "backoff_after=10")
		s.serial()
		wrong := s.wrong(bob)
		for range 2 {
			opened(t, s.x(bob, Say("assword: ", bob.pw, "code: ", wrong, "code: ", wrong, "code: ", wrong)), false)
		}
		s.last("lockout.began", "bob", 0)
		s.here().Until(10*time.Second, "the machine knows of it", func() bool {
			b, err := os.ReadFile(findPolicy(t, s))
			return err == nil && strings.Contains(string(b), `"locked_until"`)
		})
		s.unplug()
		mark := s.mark()
		r := s.x(bob, s.full(bob))
		opened(t, r, false)
		shows(t, r, text.DeniedOffline, true)
		shows(t, r, text.WrongCode, false)
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
		if e := s.last("signin.denied", "bob", mark); e.Link != "down" || e.Reason != string(policy.ReasonLocked) {
			t.Error(short([]rest.Event{e}))
		}
		s.set("lockout_after=10", "backoff_after=3")
	})
	t.Run("an index deleted and defined anew, then a lift asked for", func(t *testing.T) {
		s := s.In(t)
		s.serial()
		s.unplug()
		// Root looks for the indices and deletes all of them but the machine's counter.
		device, err := tpm.OpenDevice(s.spec)
		if err != nil {
			t.Fatal(err)
		}
		d, err := device.Owned(t.Context())
		if err != nil || len(d) < 5 {
			t.Fatalf("%v %v", d, err)
		}
		for _, h := range d {
			if h.What == "password" {
				s.tpm.Undefine(h.Handle)
			}
		}
		mark := s.mark()
		refused(t, s.x(alice, s.full(alice)), policy.ReasonTPMReplaced)
		s.mend()
		s.delivered()
		s.told("tpm.problem", policy.ReasonTPMReplaced, mark)
		s.cli("offline", "lift", "--user", "alice", "--machine", "desk", "--yes")
		time.Sleep(2 * time.Second)
		if es := s.since(mark, "--type", "offline.lifted"); len(es) > 0 {
			t.Errorf("an index that is not there was lifted: %s", short(es))
		}
		s.unplug()
		opened(t, s.x(alice, s.full(alice)), false)
		s.mend()
		s.enrol(alice)
		s.unplug()
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
	})
}

func findPolicy(t testing.TB, s *station) string {
	t.Helper()
	for name := range s.copyFolder() {
		if filepath.Base(name) == "policy" {
			return filepath.Join(s.m.Path(s.state), name)
		}
	}
	t.Fatal("there is no policy")
	return ""
}

// TestWorseTPMTroubles: O17, O16: slow, sparing its memory, without room, started
// differently, cleared. The others are in TestTPMTroubles.
func TestWorseTPMTroubles(t *testing.T) {
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
	const nvIncrement, nvRate = 0x134, 0x920
	t.Run("it spares its memory: waited for, then busy, never broken", func(t *testing.T) {
		s := s.In(t)
		s.unplug()
		n := 0
		proxy.Hook(func([]byte) []byte {
			if n++; n%2 == 0 {
				return tpmtest.Answer(nvRate)
			}
			return nil
		})
		opened(t, s.x(alice, s.full(alice)), true)
		proxy.Hook(func(c []byte) []byte {
			if tpmtest.Command(c) == nvIncrement {
				return tpmtest.Answer(nvRate)
			}
			return nil
		})
		_, tries, _ := s.left(alice)
		refused(t, s.x(alice, s.full(alice)), policy.ReasonTPMBusy)
		proxy.Hook(nil)
		if _, now, _ := s.left(alice); now != tries {
			t.Errorf("%d tries were left, now %d", tries, now)
		}
		opened(t, s.x(alice, s.full(alice)), true)
	})
	t.Run("slow", func(t *testing.T) {
		s := s.In(t)
		proxy.Slow(15 * time.Millisecond)
		opened(t, s.x(alice, s.full(alice)), true)
		proxy.Slow(3 * time.Second)
		r := s.x(alice, s.full(alice))
		refused(t, r, policy.ReasonTPMGone)
		if r.Waits[0] > 10*time.Second {
			t.Errorf("the first prompt took %v", r.Waits[0])
		}
		proxy.Hook(nil)
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
	})
	t.Run("slow with the server there: the person comes in", func(t *testing.T) {
		s := s.In(t)
		proxy.Slow(3 * time.Second)
		opened(t, s.x(alice, s.full(alice)), true)
		proxy.Hook(nil)
		s.restartAgent()
		s.online()
	})
	t.Run("started differently, where Secure Boot is on", func(t *testing.T) {
		s := s.In(t)
		const pcr7 = 7

		s.here().Run("mount", "-t", "tmpfs", "tmpfs", "/sys/firmware")
		s.here().Run("mkdir", "-p", "/sys/firmware/efi/efivars")
		s.here().Run("sh", "-c", `printf '\6\0\0\0\1' >/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c`)
		begin := func(how string) {
			s.agent.Kill("KILL")
			s.tpm.Restart()
			s.tpm.Extend(pcr7, how)
			s.startAgent()
		}
		begin("Secure Boot") // the contact binds the key to it
		s.online()
		s.unplug()
		begin("another system")
		s.denied(alice, policy.ReasonTPMBoot)
		begin("Secure Boot")
		opened(t, s.x(alice, s.full(alice)), true)
		// The firmware's list of revoked keys is updated.
		begin("Secure Boot, newer dbx")
		s.denied(alice, policy.ReasonTPMBoot)
		mark := s.mark()
		s.mend()
		s.told("tpm.problem", policy.ReasonTPMBoot, mark)
		s.becomes(alice, string(policy.ReasonNoVault))
		s.enrol(alice)
		s.becomes(alice, "")
		s.unplug()
		begin("Secure Boot, newer dbx")
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
	})
	t.Run("without room, and software is allowed", func(t *testing.T) {
		s := s.In(t)
		taken := s.tpm.Fill(0x01000000, false)
		bob := s.addUser("bob")
		mark := s.mark()
		s.enrol(bob)
		s.told("tpm.problem", policy.ReasonTPMNoRoom, mark)
		if i := slices.IndexFunc(s.offlineList(), func(e rest.OfflineEntry) bool {
			return e.User == "bob" && e.State == "active" && e.Class == "software"
		}); i < 0 {
			t.Errorf("%+v", s.offlineList())
		}
		s.unplug()
		opened(t, s.x(bob, s.full(bob)), true)
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.restartAgent()
		s.online()
		var m rest.Machine
		s.read(&m, "machine", "show", "desk")
		if m.TPMProblem != string(policy.ReasonTPMNoRoom) {
			t.Errorf("the console says %q of the TPM", m.TPMProblem)
		}
		s.becomes(bob, "")
		t.Run("and is refused", func(t *testing.T) {
			s := s.In(t)
			s.set("software_vault=false", "offline=mfa_or_bypass")
			carol := s.addUser("carol")
			mark := s.mark()
			opened(t, s.x(carol, s.full(carol)), true)
			if e := s.last("offline.enrol_refused", "carol", mark); e.Reason != string(policy.ReasonVaultSoftware) {
				t.Error(short([]rest.Event{e}))
			}
			s.serial()
			s.unplug()
			s.denied(carol, policy.ReasonTPMNoRoom)
			refused(t, s.x(bob, bob.first()), policy.ReasonVaultSoftware)
			for _, h := range taken {
				s.tpm.Undefine(h)
			}
			s.mend()
			s.enrol(carol)
			s.unplug()
			opened(t, s.x(carol, s.full(carol)), true)
			s.mend()
		})
	})
	t.Run("cleared: the machine joins again", func(t *testing.T) {
		s := s.In(t)
		s.set("software_vault=true", "offline=mfa")
		s.serial()
		s.unplug()
		s.tpm.Clear()
		s.restartAgent()
		s.denied(alice, policy.ReasonTPMCleared)
		// Its key went with the rest: on the network it is told as what it is, too.
		s.plug()
		s.restartAgent()
		s.here().Until(20*time.Second, "the status says that the key is the matter", func() bool {
			st, err := s.status()
			return err == nil && st.Reason == "machine-key"
		})
		s.denied(alice, policy.ReasonTPMCleared)
		s.agent.Kill("KILL")
		s.name = "desk2"
		s.join("--again")
		s.startAgent()
		s.online()
		s.enrol(alice)
		s.becomes(alice, "")
		s.unplug()
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
	})
}

// TestClocks: O9, O6, O1, E4: clocks that are wrong, on machines and on the server.
func TestClocks(t *testing.T) {
	const day, year = 24 * time.Hour, 365 * 24 * time.Hour
	w := newWorld(t, "")
	desk, plain := w.station("desk", true), w.station("plain", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	w.addBackup(alice)
	both := []*station{desk, plain}
	pick := func(n, prompt string, code string) []Turn {
		return Say("assword: ", alice.pw, "[1-2]: ", n, prompt, code)
	}
	enrol := func(s *station) {
		s.t.Helper()
		s.online()
		mark := s.mark()
		opened(s.t, s.x(alice, pick("1", "code: ", s.code(alice))), true)
		s.enrolled(alice)
		s.here().Until(15*time.Second, "the offline data is fresh", func() bool {
			signins, _, checks := s.left(alice)
			return signins == 50 && checks >= 59 && len(s.since(mark, "--type", "offline.")) > 0
		})
		s.restartAgent() // what was begun has ended
		s.online()
	}
	for _, s := range both {
		enrol(s)
		s.serial()
	}
	dead := -time.Duration(time.Now().Unix()) * time.Second // 1970
	backup := 0
	for _, c := range []struct {
		name string
		off  time.Duration
	}{{"back 30 days", -30 * day}, {"a dead battery at 1970", dead}} {
		t.Run(c.name+", without the server", func(t *testing.T) {
			for _, s := range both {
				s := s.In(t)
				used := s.code(alice)
				s.unplug()
				opened(t, s.x(alice, Say("assword: ", alice.pw, "code: ", used)), true)
				s.pass(3 * time.Minute)
				s.turnClock(c.off)
				s.restartAgent()
				r := s.x(alice, Say("assword: ", alice.pw, "code: ", used, "code: ", s.code(alice), "code: ", alice.backup[backup]))
				backup++
				opened(t, r, true) // a backup code needs no clock
				shows(t, r, text.CodeUsed, true)
				shows(t, r, text.ClockBehind, true)
				shows(t, r, text.WrongCode, false)
				s.turnClock(0)
				s.restartAgent()
				opened(t, s.x(alice, Say("assword: ", alice.pw, "code: ", used, "code: ", s.code(alice))), true)
				s.mend()
				s.delivered()
			}
		})
		t.Run(c.name+", with the server there", func(t *testing.T) {
			for _, s := range both {
				s := s.In(t)
				mark := s.mark()
				s.turnClock(c.off)
				s.restartAgent()
				s.online()
				opened(t, s.x(alice, pick("1", "code: ", s.code(alice))), true)
				s.delivered()
				s.told("clock.jump", "clock-behind", mark)
				s.turnClock(0)
				s.restartAgent()
				s.online()
			}
		})
	}
	t.Run("forward 10 years: nothing opens, nothing is spent, nothing is lost", func(t *testing.T) {
		for _, s := range both {
			s := s.In(t)
			enrol(s)
			s.unplug()
			signins, tries, checks := s.left(alice)
			s.turnClock(10 * year)
			s.restartAgent()
			s.denied(alice, policy.ReasonPolicyExpired)
			s.turnClock(0)
			s.restartAgent()
			if a, b, c := s.left(alice); a != signins || b != tries || c != checks {
				t.Errorf("%d %d %d left, now %d %d %d", signins, tries, checks, a, b, c)
			}
			opened(t, s.x(alice, s.full(alice)), true)
			s.mend()
			s.delivered()
		}
	})
	t.Run("a jump in the middle of a conversation", func(t *testing.T) {
		s := desk.In(t)
		s.unplug()
		s.pass(3 * time.Minute)
		turn := Turn{Prompt: "code: ", Answer: func() string {
			code := s.code(alice)
			s.turnClock(-2 * time.Hour)
			return code
		}}
		r := s.x(alice, append(alice.first(), turn, giveUp))
		opened(t, r, false)
		shows(t, r, text.ClockBehind, true)
		s.turnClock(0)
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
		// Online the server's clock alone counts.
		turn.Prompt = "code: "
		r = s.x(alice, append(Say("assword: ", alice.pw, "[1-2]: ", "1"), turn))
		opened(t, r, true)
		s.turnClock(0)
	})
	t.Run("a clock turned back prolongs no limit; one turned forth and back spends none", func(t *testing.T) {
		for _, s := range both {
			s := s.In(t)
			enrol(s)
		}
		w.pass(7*day - time.Hour)
		for _, s := range both {
			s := s.In(t)
			s.unplug()
			s.restartAgent()
			opened(t, s.x(alice, s.full(alice)), true)
		}
		w.pass(2 * time.Hour)
		for _, s := range both {
			s := s.In(t)
			s.denied(alice, policy.ReasonVaultDays)
			// The days end at the highest time seen at the latest, whatever the clock says.
			s.turnClock(-30 * day)
			s.restartAgent()
			r := s.x(alice, append(Say("assword: ", alice.pw, "code: ", s.code(alice)), giveUp))
			opened(t, r, false)
			shows(t, r, text.WrongCode, false)
			s.turnClock(0)
			s.mend()
			s.delivered()
		}
	})
	t.Run("the certificate is renewed behind a dead battery", func(t *testing.T) {
		s := desk.In(t)
		s.unplug()
		s.agent.Kill("KILL")
		w.In(t).pass(80 * day) // of 90, two thirds are over
		s.turnClock(dead)
		mark := s.mark()
		s.plug()
		s.startAgent()
		s.online()
		s.told("machine.certificate_renewed", "", mark)
		opened(t, s.x(alice, pick("1", "code: ", s.code(alice))), true)
		s.turnClock(0)
	})
	t.Run("the server's clock is wrong while the machines' are right", func(t *testing.T) {
		s := desk.In(t)
		wrong := func(off time.Duration) {
			w.In(t).astray = off
			w.turn()
			s.restartAgent()
		}
		defer wrong(0)
		enrol(s)
		// Far behind it shows certificates that are over: it counts as away.
		wrong(-60 * day)
		s.link("down")
		if st, err := s.status(); err != nil || st.Reason != "server-certificate-old" {
			t.Errorf("%+v %v", st, err)
		}
		opened(t, s.x(alice, s.full(alice)), true)
		// Ahead, machines believe it; as soon as it is right again they believe that.
		mark := s.mark()
		wrong(60 * day)
		s.online()
		s.told("clock.jump", "clock-behind", mark)
		wrong(0)
		s.online()
		enrol(s)
		s.unplug()
		opened(t, s.x(alice, s.full(alice)), true)
		s.mend()
		s.delivered()
	})
	w.cli("events", "verify")
}
