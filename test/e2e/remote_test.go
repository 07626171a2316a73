//go:build e2e

package e2e

import (
	"strings"
	"testing"
	"time"
)

// TestWhoNamesAHostIsNotAtTheMachine: W5, P6, S2. A window that was opened at the desk, and a network that is trusted,
// let the person at the desk in without a code. Whoever comes through a program that names the host of whom it asks for
// is asked for one, whatever its service is called: login -h, as a telnet daemon starts it; a real sshd that runs, and
// so asks PAM, under a name that nobody has described; displays over XDMCP and daemons of the network; and a daemon
// without a host too.
func TestWhoNamesAHostIsNotAtTheMachine(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	alice := w.addUser("alice")
	s.m.PAM("login", s.m.Shipped("latchkey-full"))
	opened(t, s.m.Login("alice", s.full(alice)), true)

	// The machine's sshd under another name asks for a PAM service of that name.
	const gate = "/run/gate" // a folder that is the machine's own
	s.m.PAM("gate", s.m.Shipped("latchkey-full"))
	s.m.Run("ln", "-s", "/usr/sbin/sshd", gate)
	sshd := s.m.SSHDAs(gate, "ListenAddress 127.0.0.1")
	defer sshd.Kill("TERM")

	password := Say("assword", alice.pw)
	silent := func(t *testing.T, reason string) {
		t.Helper()
		s := s.In(t)
		before := s.mark()
		opened(t, s.here().Login("alice", password), true)
		if e := s.last("signin.allowed", "alice", before); e.Reason != reason || e.Scope != "logon" {
			t.Errorf("at the desk: %+v", e)
		}
	}
	// asked signs in and has no code to give.
	asked := func(t *testing.T, service, scope string, in func(*station, []Turn) Result) {
		t.Helper()
		s := s.In(t)
		before := s.mark()
		opened(t, in(s, append(Say("assword", alice.pw), giveUp)), false)
		es := s.since(before, "--type", "signin.")
		for end := time.Now().Add(10 * time.Second); len(es) == 0 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			es = s.since(before, "--type", "signin.")
		}
		for _, e := range es {
			if string(e.Type) == "signin.allowed" || e.Service != service || e.Scope != scope {
				t.Errorf("%s", short(es))
			}
		}
		if len(es) == 0 {
			t.Error("no event")
		}
	}
	ways := func(t *testing.T) {
		t.Run("login -h", func(t *testing.T) {
			// Debian's login asks as "login", util-linux's as "remote".
			service := "login"
			if out, _ := s.In(t).here().Try("login", "--version"); strings.Contains(out, "util-linux") {
				service = "remote"
				s.In(t).here().PAM(service, s.m.Shipped("latchkey-full"))
			}
			for _, host := range []string{"203.0.113.9", "evil.example", "localhost"} {
				asked(t, service, "remote", func(s *station, turns []Turn) Result {
					term := s.here().Terminal("", "login", "-h", host, "alice")
					term.refusal = []string{"Login incorrect", "Maximum number of tries"}
					return term.Talk(turns)
				})
			}
		})
		t.Run("a real daemon under a name that nobody has described", func(t *testing.T) {
			asked(t, "gate", "remote", func(s *station, turns []Turn) Result { return s.here().SSH("alice", turns, once...) })
		})
		for _, service := range []string{"xrdp-sesman", "vsftpd", "dovecot", "lightdm", "gdm-password", "saslauthd"} {
			t.Run(service, func(t *testing.T) {
				var options []string
				if service != "saslauthd" {
					options = []string{"-I", "rhost=203.0.113.9"}
				}
				s.In(t).here().PAM(service, s.m.Shipped("latchkey-full"))
				asked(t, service, "remote", func(s *station, turns []Turn) Result {
					return s.here().Pamtester(options, service, "alice", auth, turns)
				})
			})
		}
	}
	t.Run("with a window open at the desk", func(t *testing.T) {
		silent(t, "window-valid")
		ways(t)
		silent(t, "window-valid")
	})
	w.set("window=0s", "trusted_networks=0.0.0.0/0,::/0")
	t.Run("in a trusted network", func(t *testing.T) {
		silent(t, "trusted-network")
		ways(t)
		silent(t, "trusted-network")
	})
}
