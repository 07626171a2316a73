//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"

	"latchkey/internal/policy"
	"latchkey/internal/text"
)

// ways are the programs of the acceptance: over the network, and at the machine.
var ways = []program{programs[0], programs[3]}

// TestCodesWithThePacketsDropped: an authenticator app and a backup code open sshd and
// login while the server's packets are dropped, each code once (S10, O3, O9, M5).
func TestCodesWithThePacketsDropped(t *testing.T) {
	classes(t, func(t *testing.T, withTPM bool) {
		w := newWorld(t, "")
		s := w.station("desk", withTPM)
		w.set("window=0s")
		alice := w.addUser("alice")
		s.m.SSHD()
		s.enrol(alice)
		w.addBackup(alice) // they come with the next sign-in
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "[1-2]: ", "1", "code: ", w.code(alice))), true)
		s.enrolled(alice)
		s.cut()
		for i, p := range ways {
			t.Run(p.name, func(t *testing.T) {
				s := s.In(t)
				code := s.code(alice)
				opened(t, p.in(s, alice, Say("assword: ", alice.pw, "code: ", code)), true)
				opened(t, p.in(s, alice, Say("assword: ", alice.pw, "code: ", alice.backup[2*i])), true)
				// Neither a second time; and what follows resets the count of wrong ones.
				next := func() string { return s.code(alice) }
				r := p.in(s, alice, Say("assword: ", alice.pw, "code: ", code, "code: ", next))
				opened(t, r, true)
				shows(t, r, text.CodeUsed, true)
				r = p.in(s, alice, Say("assword: ", alice.pw, "code: ", alice.backup[2*i], "code: ", alice.backup[2*i+1]))
				opened(t, r, true)
				shows(t, r, text.BackupUsed, true)
			})
		}
		t.Run("the server learns of each", func(t *testing.T) {
			s := s.In(t)
			s.mend()
			s.delivered()
			var got []string
			for _, e := range s.events("--type", "signin.allowed") {
				if e.Link == "down" {
					got = append(got, e.Service+" "+e.Factor)
				}
			}
			want := []string{"sshd totp", "sshd backup", "sshd totp", "sshd backup", "login totp", "login backup", "login totp", "login backup"}
			if !slices.Equal(got, want) {
				t.Errorf("delivered %q, want %q", got, want)
			}
			if es := s.events("--type", "backup.double_spend"); len(es) != 0 {
				t.Errorf("%+v", es)
			}
		})
	})
}

// TestABackupCodeOnTwoMachines: two machines that can not meet accept the same backup
// code, and as soon as both have met the server it is an event (S10, M5). From then on
// it is good nowhere.
func TestABackupCodeOnTwoMachines(t *testing.T) {
	w := newWorld(t, "")
	desk, van := w.station("desk", false), w.station("van", false)
	w.set("window=0s")
	alice := w.addAccount("alice")
	w.addBackup(alice)
	for i, s := range []*station{desk, van} {
		opened(t, s.here().Login("alice", Say("assword: ", alice.pw, "code: ", alice.backup[i])), true)
		s.enrolled(alice)
	}
	desk.cut()
	van.cut()
	same := Say("assword: ", alice.pw, "code: ", alice.backup[5])
	for _, s := range []*station{desk, van} {
		opened(t, s.here().Login("alice", same), true)
	}
	desk.mend()
	desk.delivered()
	if es := w.events("--type", "backup.double_spend"); len(es) != 0 {
		t.Errorf("one machine alone spends twice: %+v", es)
	}
	van.mend()
	van.delivered()
	e := w.last("backup.double_spend", "alice", 0)
	if e.Machine != "van" {
		t.Errorf("%+v", e)
	}
	if es := w.events("--type", "backup.double_spend"); len(es) != 1 {
		t.Errorf("%d events: %+v", len(es), es)
	}
	for _, s := range []*station{desk, van} {
		r := s.here().Login("alice", append(Say("assword: ", alice.pw, "code: ", alice.backup[5]), giveUp))
		opened(t, r, false)
		shows(t, r, text.BackupUsed, true)
	}
	// A code that one machine has spent is not good at the other, which was never cut.
	opened(t, desk.here().Login("alice", Say("assword: ", alice.pw, "code: ", alice.backup[6])), true)
	r := van.here().Login("alice", append(Say("assword: ", alice.pw, "code: ", alice.backup[6]), giveUp))
	opened(t, r, false)
	shows(t, r, text.BackupUsed, true)
	van.serial()
	van.cut()
	r = van.here().Login("alice", append(Say("assword: ", alice.pw, "code: ", alice.backup[6]), giveUp))
	opened(t, r, false)
}

// TestAChainOfTwo: two kinds are asked one after the other, with the number of the step,
// online and offline, and one kind does not count twice (P1).
func TestAChainOfTwo(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s", "factors_online=2", "factors_offline=2")
	alice := w.addUser("alice")
	w.addBackup(alice)
	s.m.SSHD()
	n := 0
	next := func() string { n++; return alice.backup[n-1] }
	for _, p := range ways {
		t.Run(p.name+" online", func(t *testing.T) {
			s := s.In(t)
			before := s.mark()
			opened(t, p.in(s, alice, Say("assword: ", alice.pw, "Step 1 of 2. One-time code: ", s.code(alice), "Step 2 of 2. Backup code: ", next())), true)
			if e := s.last("signin.allowed", "alice", before); e.Factor != "totp+backup" {
				t.Errorf("%+v", e)
			}
		})
	}
	s.enrolled(alice)
	s.cut()
	for _, p := range ways {
		t.Run(p.name+" offline", func(t *testing.T) {
			s := s.In(t)
			// In any order: what is typed tells which kind it is.
			opened(t, p.in(s, alice, Say("assword: ", alice.pw, "Step 1 of 2. ", next(), "Step 2 of 2. ", s.code(alice))), true)
		})
	}
	t.Run("one kind twice is not two", func(t *testing.T) {
		s := s.In(t)
		one, two := next(), next()
		r := s.here().Login("alice", append(Say("assword: ", alice.pw, "Step 1 of 2. ", one, "Step 2 of 2. ", two), giveUp))
		opened(t, r, false)
	})
	t.Run("the server learns with which kinds", func(t *testing.T) {
		s := s.In(t)
		s.mend()
		s.delivered()
		down := 0
		for _, e := range s.events("--type", "signin.allowed") {
			if e.Link != string(policy.LinkDown) {
				continue
			}
			down++
			if !strings.Contains(e.Factor, "totp") || !strings.Contains(e.Factor, "backup") {
				t.Errorf("%+v", e)
			}
		}
		if down != len(ways) {
			t.Errorf("%d sign-ins without the server", down)
		}
	})
}
