//go:build e2e

package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
	"latchkey/test/scale"
)

// What a disk can do to a machine and to the server (O17): full, read-only, failing
// at every sync, slow; files that are damaged, newer, somebody else's. On the real
// programs, disks and system calls.

// moved puts a folder of a machine onto a disk of its own (tmpfs) of that size. Nobody
// may be using it.
func (m *Machine) moved(folder string, size string) {
	m.t.Helper()
	m.Run("sh", "-ec", `mv "$0" "$0.moving"; mkdir -m 700 "$0"; mount -t tmpfs -o "size=$1,mode=700" tmpfs "$0"; cp -a "$0.moving/." "$0"; rm -rf "$0.moving"`, folder, size)
}

// fill leaves no room on the disk of a folder; empty takes that back.
func (m *Machine) fill(folder string) {
	m.t.Helper()
	m.Run("sh", "-c", `cat /dev/zero >"$0/filler" 2>/dev/null; [ -s "$0/filler" ]`, folder)
}

func (m *Machine) empty(folder string) { m.t.Helper(); m.Run("rm", "-f", folder+"/filler") }

// tampered has strace change what a running program hears of its system calls, until
// the returned function is called.
func (m *Machine) tampered(p *Process, inject string) (stop func()) {
	m.t.Helper()
	call, _, _ := strings.Cut(inject, ":")
	s := m.Start("strace", "-f", "-qq", "-p", p.pid, "-e", "signal=none", "-e", "trace="+call, "-e", "inject="+inject, "-o", "/dev/null")
	m.Until(10*time.Second, "strace has the program (Debian package strace)", func() bool {
		if !s.Running() {
			m.t.Fatalf("strace ended: %s", s.Output())
		}
		out, _ := m.Try("grep", "-L", "^TracerPid:\t[1-9]", "-r", "--include=status", "/proc/"+p.pid+"/task")
		return strings.TrimSpace(out) == ""
	})
	return func() {
		m.t.Helper()
		s.Kill("TERM")
	}
}

// clean fails if the person was told of a wrong code or of the network although it is
// the disk.
func clean(t *testing.T, r Result) {
	t.Helper()
	for _, no := range []string{text.WrongCode, text.CodeUsed, text.DeniedOffline, text.DeniedFirst, text.DeniedUnreachable, text.DeniedInternal} {
		shows(t, r, no, false)
	}
}

func TestO17TheDiskOfAMachine(t *testing.T) {
	kinds := []bool{true}
	if scale.Long() {
		kinds = append(kinds, false)
	}
	for _, withTPM := range kinds {
		t.Run(map[bool]string{true: "tpm", false: "software"}[withTPM], func(t *testing.T) { machineDisk(t, withTPM) })
	}
}

func machineDisk(t *testing.T, withTPM bool) {
	w := newWorld(t, "")
	w.set("window=0s")
	s := w.station("desk", withTPM)
	alice := w.addUser("alice")
	s.enrol(alice)
	s.delivered()
	s.serial()
	s.agent.Kill("TERM")
	s.here().moved(s.state, "12m")
	s.startAgent()
	s.online()

	// denied is a sign-in that the disk stands in the way of.
	denied := func(s *station) {
		s.t.Helper()
		signins, tries, _ := s.left(alice)
		for _, code := range []string{s.code(alice), s.wrong(alice)} {
			r := s.x(alice, Say("assword", alice.pw, "code: ", code))
			opened(s.t.(*testing.T), r, false)
			shows(s.t.(*testing.T), r, text.DeniedJournal, true)
			clean(s.t.(*testing.T), r)
		}
		if a, b, _ := s.left(alice); a != signins || b != tries {
			s.t.Errorf("what was not judged is spent: %d sign-ins and %d tries are left, were %d and %d", a, b, signins, tries)
		}
	}
	works := func(s *station) {
		s.t.Helper()
		opened(s.t.(*testing.T), s.x(alice, s.full(alice)), true)
	}

	t.Run("full: who signs in online gets in, nobody does without the server, and afterwards everything is made up for", func(t *testing.T) {
		s := s.In(t)
		s.here().fill(s.state)
		before := s.mark()
		online := s.code(alice)
		opened(t, s.x(alice, Say("assword", alice.pw, "code: ", online)), true)
		if e := s.last("signin.allowed", "alice", before); e.Link != "up" {
			t.Errorf("not online: %s", short([]rest.Event{e}))
		}
		s.cut()
		r := s.x(alice, Say("assword", alice.pw, "code: ", online))
		opened(t, r, false)
		shows(t, r, text.DeniedJournal, true)
		s.here().empty(s.state)
		// What was accepted online while nothing could be written is spent here too.
		r = s.x(alice, Say("assword", alice.pw, "code: ", online, "code: ", online, "code: ", online))
		opened(t, r, false)
		if !strings.Contains(r.Output, text.CodeUsed) && !strings.Contains(r.Output, text.WrongCode) { // its time may be over
			t.Errorf("the used code is refused as\n%s", r.Output)
		}
		s.here().fill(s.state)
		denied(s)
		if st, err := s.status(); err != nil || st.Offline.Problem != policy.ReasonStateWrite || !strings.Contains(st.Offline.Detail, "no space") {
			t.Errorf("the status says %q %q %v", st.Offline.Problem, st.Offline.Detail, err)
		}
		s.here().empty(s.state)
		works(s)
		s.mend()
		s.delivered()
		told := 0
		for _, e := range s.since(before, "--type", "signin.denied") {
			if e.Reason == string(policy.ReasonStateWrite) && e.Link == "down" {
				told++
			}
		}
		if told < 3 {
			t.Errorf("the denials of the full disk were not delivered: %s", short(s.since(before)))
		}
		if st, err := s.status(); err != nil || st.Offline.Problem != "" {
			t.Errorf("the problem stays: %q %v", st.Offline.Problem, err)
		}
	})
	t.Run("full, and the policy lets the first factor do: what can not be recorded does not open", func(t *testing.T) {
		s := s.In(t)
		s.set("offline=bypass")
		s.serial()
		s.here().fill(s.state)
		s.cut()
		r := s.x(alice, Say("assword", alice.pw))
		opened(t, r, false)
		shows(t, r, text.DeniedJournal, true)
		s.here().empty(s.state)
		s.mend()
		s.set("offline=mfa")
		s.serial()
	})
	t.Run("read-only at the start of the agent", func(t *testing.T) {
		s := s.In(t)
		s.agent.Kill("TERM")
		s.here().Run("mount", "-o", "remount,ro", s.state)
		s.startAgent()
		s.online()
		works(s)
		s.cut()
		denied(s)
		s.here().Run("mount", "-o", "remount,rw", s.state)
		works(s)
		s.mend()
		s.delivered()
	})
	t.Run("a disk that fails at every sync, and one that the system has made read-only meanwhile", func(t *testing.T) {
		s := s.In(t)
		s.cut()
		s.here().Until(20*time.Second, "the machine knows that the server is away", func() bool {
			st, err := s.status()
			return err == nil && st.Link == "down"
		})
		for _, fault := range []string{"fsync:error=EIO", "renameat:error=EROFS"} {
			mend := s.here().tampered(s.agent, fault)
			denied(s)
			mend()
			works(s)
		}
		s.mend()
		s.delivered()
	})
	t.Run("a disk that takes a second for every sync is slow and nothing else", func(t *testing.T) {
		s := s.In(t)
		s.cut()
		mend := s.here().tampered(s.agent, "fsync:delay_exit=1000000")
		defer mend()
		r := s.x(alice, s.full(alice))
		opened(t, r, true)
		if len(r.Waits) > 0 && r.Waits[0] > 3*time.Second {
			t.Errorf("the first prompt took %v", r.Waits[0])
		}
	})
}

// spoil says what is done to a file of the state folder, which sign-in text it gives,
// or with what word the agent ends.
type spoil struct {
	file string // pattern below the state folder
	how  string
	why  policy.Reason // what the person is told
	ends string        // what the agent says when it does not start
}

// The first ones are the short form.
var stateSpoils = []spoil{
	{"vault-*/state", "newer", policy.ReasonVaultNewer, ""},
	{"vault-*/ledger", "cut", policy.ReasonVaultDamaged, ""},
	{"vault-*/policy", "link", policy.ReasonVaultForeign, ""},
	{"vault-*/vaults/*", "owner", policy.ReasonVaultForeign, ""},
	{"vault-*/bundles/*", "bit", policy.ReasonVaultDamaged, ""},
	{"vault-*/journal", "folder", policy.ReasonVaultForeign, ""},
	{"machine.json", "owner", "", "run: chown 0 "},
	{"machine-*.key", "cut", "", "join again"},

	{"machine.json", "cut", "", "join again"},
	{"machine.json", "newer", "", "update the agent"},
	{"machine.json", "link", "", "symbolic link"},
	{"machine.json", "mode", "", "run: chmod"},
	{"machine-*.key", "bit", "", "join again"},
	{"machine-*.key", "gone", "", "join again"},
	{"machine-*.key", "mode", "", "run: chmod"},
	{"vault-*/state", "cut", policy.ReasonVaultDamaged, ""},
	{"vault-*/state", "gone", policy.ReasonVaultRolledBack, ""},
	{"vault-*/state", "mode", policy.ReasonVaultForeign, ""},
	{"vault-*/ledger", "bit", policy.ReasonVaultDamaged, ""},
	{"vault-*/ledger", "gone", policy.ReasonVaultRolledBack, ""},
	{"vault-*/ledger", "newer", policy.ReasonVaultNewer, ""},
	{"vault-*/ledger", "owner", policy.ReasonVaultForeign, ""},
	{"vault-*/ledger", "folder", policy.ReasonVaultForeign, ""},
	{"vault-*/policy", "gone", policy.ReasonPolicyAbsent, ""},
	{"vault-*/policy", "cut", policy.ReasonPolicyForeign, ""},
	{"vault-*/policy", "bit", policy.ReasonPolicyForeign, ""},
	{"vault-*/journal", "newer", policy.ReasonVaultNewer, ""},
	{"vault-*/journal", "link", policy.ReasonVaultForeign, ""},
	{"vault-*/vaults/*", "cut", policy.ReasonVaultDamaged, ""},
	{"vault-*/vaults/*", "newer", policy.ReasonVaultNewer, ""},
	{"vault-*/vaults/*", "gone", policy.ReasonVaultDamaged, ""},
	{"vault-*/bundles/*", "gone", policy.ReasonVaultDamaged, ""},
	{"vault-*/bundles/*", "mode", policy.ReasonVaultForeign, ""},
}

func (m *Machine) spoil(t *testing.T, file, how string) {
	t.Helper()
	path := m.Path(file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) { m.Write(file, string(b), 0o600) }
	switch how {
	case "cut":
		write(b[:len(b)/2])
	case "bit":
		b[len(b)/3] ^= 4 // of a key: of its secret half
		write(b)
	case "newer":
		if filepath.Ext(file) == ".json" {
			write([]byte(strings.Replace(string(b), `"version": 1`, `"version": 2`, 1)))
		} else {
			binary.BigEndian.PutUint16(b[4:], 2)
			write(b)
		}
	case "owner":
		m.Run("chown", "20001", file)
	case "mode":
		m.Run("chmod", "644", file)
	case "link":
		m.Run("sh", "-c", `mv "$0" /root/elsewhere; ln -s /root/elsewhere "$0"`, file)
	case "folder":
		m.Run("sh", "-c", `rm "$0"; mkdir "$0"`, file)
	case "gone":
		m.Run("rm", file)
	default:
		t.Fatal(how)
	}
}

// TestO17EveryFileOfAMachine: the state folder is spoiled while the server is away.
// The machine does not open, says what it is, and is all right when it is mended.
func TestO17EveryFileOfAMachine(t *testing.T) {
	w := newWorld(t, "")
	w.set("window=0s", "offline=mfa_or_bypass")
	s := w.station("desk", false)
	alice := w.addUser("alice")
	s.enrol(alice)
	s.delivered()
	s.serial()
	s.cut()
	opened(t, s.x(alice, s.full(alice)), true) // so that the journal holds something
	s.agent.Kill("TERM")
	m := s.here()
	m.Run("cp", "-a", s.state, "/root/kept")
	for _, c := range stateSpoils[:scale.N(8, len(stateSpoils))] {
		t.Run(fmt.Sprintf("%s %s", c.file, c.how), func(t *testing.T) {
			s := s.In(t)
			m := s.here()
			m.Run("sh", "-ec", `rm -rf "$0"; cp -a /root/kept "$0"`, s.state)
			files := strings.Fields(m.Run("sh", "-c", "ls -d "+s.state+"/"+c.file))
			if len(files) != 1 {
				t.Fatalf("%s is %q", c.file, files)
			}
			m.spoil(t, files[0], c.how)
			if c.ends != "" {
				_ = os.Remove(s.m.Path(Socket))
				a := m.StartEnv(s.env(), TestProgram(t, "latchkey-agent"), "run", "--state", s.state, "--socket", Socket, "--tpm", s.spec)
				if code := a.Exit(15 * time.Second); code == 0 || !strings.Contains(a.Output(), c.ends) {
					t.Errorf("the agent ended with %d and said\n%s\nwant %q", code, a.Output(), c.ends)
				}
				r := s.x(alice, nil)
				opened(t, r, false)
				clean(t, r)
				return
			}
			s.startAgent()
			defer s.agent.Kill("TERM")
			r := s.x(alice, s.full(alice))
			refused(t, r, c.why)
			clean(t, r)
			// By hand, and without another start where nothing was thrown away.
			if c.why == policy.ReasonVaultForeign || c.why == policy.ReasonVaultNewer {
				kept := "/root/kept" + strings.TrimPrefix(files[0], s.state)
				m.Run("sh", "-ec", `rm -rf "$0"; cp -a "$1" "$0"`, files[0], kept)
				opened(t, s.x(alice, s.full(alice)), true)
			}
		})
	}
	m.Run("sh", "-ec", `rm -rf "$0"; cp -a /root/kept "$0"`, s.state)
	// A ledger in pieces is mended by the next contact and sign-in.
	m.spoil(t, strings.TrimSpace(m.Run("sh", "-c", "ls "+s.state+"/vault-*/ledger")), "cut")
	before := s.mark()
	s.startAgent()
	s.plug()
	s.online()
	s.last("offline.state_damaged", "", before)
	s.enrol(alice)
	s.cut()
	opened(t, s.x(alice, s.full(alice)), true)
}

// TestO17TheDiskOfTheServer: its disk is full, fails or is slow while people sign in;
// then files of its folder are spoiled.
func TestO17TheDiskOfTheServer(t *testing.T) {
	w := newWorld(t, "")
	w.set("window=0s")
	s := w.station("desk", false)
	alice := w.addUser("alice")
	s.enrol(alice)
	s.delivered()
	s.agent.Kill("TERM")
	w.server.Kill("TERM")
	w.srv.In(t).moved(serverData, "24m")
	w.startServer()
	s.startAgent()
	s.online()
	srv := w.srv.In(t)
	ready := func(t *testing.T, want string) {
		t.Helper()
		srv.In(t).Until(20*time.Second, "/readyz says "+want, func() bool {
			out, _ := srv.In(t).Try("curl", "-sk", "--max-time", "5", "https://127.0.0.1:"+peoplePort+"/readyz")
			return strings.Contains(out, want)
		})
	}
	ready(t, "ready")
	t.Run("full before the first answer: as without the server", func(t *testing.T) {
		s := s.In(t)
		srv.In(t).fill(serverData)
		before := s.mark()
		r := s.x(alice, s.full(alice))
		opened(t, r, true)
		shows(t, r, text.OfflineNow, true)
		ready(t, "can not be written")
		if !w.server.Running() {
			t.Fatalf("the server ended: %s", w.server.Output())
		}
		srv.In(t).empty(serverData)
		ready(t, "ready")
		s.online()
		if e := s.last("signin.allowed", "alice", before); e.Link != "down" {
			t.Errorf("the offline sign-in is told as %s", short([]rest.Event{e}))
		}
		opened(t, s.x(alice, s.full(alice)), true)
	})
	t.Run("full in the middle: denied, and not as a network fault", func(t *testing.T) {
		s := s.In(t)
		before := s.mark()
		code := s.code(alice)
		term := s.here().Terminal("", "pamtester", "x", "alice", "authenticate")
		if !term.Expect("assword", 20*time.Second) {
			t.Fatal(term.Output())
		}
		time.Sleep(300 * time.Millisecond)
		term.Type(alice.pw)
		if !term.Expect("code: ", 20*time.Second) {
			t.Fatal(term.Output())
		}
		time.Sleep(300 * time.Millisecond)
		srv.In(t).fill(serverData)
		term.Type(code)
		// It is tried again until the conversation's time is over: the disk may be mended.
		told := term.Expect(text.DeniedServer, 90*time.Second)
		if code := term.Exit(20 * time.Second); !told || code == 0 {
			t.Errorf("exit %d\n%s", code, term.Output())
		}
		for _, no := range []string{text.WrongCode, text.DeniedUnreachable, text.DeniedFirst, text.OfflineNow} {
			if strings.Contains(term.Output(), no) {
				t.Errorf("shows %q", no)
			}
		}
		srv.In(t).empty(serverData)
		ready(t, "ready")
		s.online()
		opened(t, s.x(alice, s.full(alice)), true)
		if es := s.since(before, "--type", "signin.allowed"); len(es) != 1 {
			t.Errorf("allowed: %s", short(es))
		}
		if out := s.cli("events", "verify"); !strings.Contains(out, "Whole") {
			t.Errorf("events verify: %s", out)
		}
	})
	t.Run("a disk that fails at every sync, and one that the system has made read-only meanwhile", func(t *testing.T) {
		s := s.In(t)
		for _, fault := range []string{"fsync,fdatasync:error=EIO", "pwrite64:error=EROFS"} {
			mend := srv.In(t).tampered(w.server, fault)
			r := s.x(alice, s.full(alice))
			opened(t, r, true)
			shows(t, r, text.OfflineNow, true)
			ready(t, "can not be written")
			mend()
			ready(t, "ready")
			s.online()
			opened(t, s.x(alice, s.full(alice)), true)
		}
	})
	t.Run("a disk that takes half a second for every sync: with the server or without it, they get in", func(t *testing.T) {
		s := s.In(t)
		mend := srv.In(t).tampered(w.server, "fsync,fdatasync:delay_exit=500000")
		r := s.x(alice, s.full(alice))
		mend()
		opened(t, r, true)
		clean(t, r)
		ready(t, "ready")
		s.online()
	})
	t.Run("files of its folder that are not right: it does not start and says what to do", func(t *testing.T) {
		srv := srv.In(t)
		w.server.Kill("TERM")
		srv.Run("cp", "-a", serverData, "/root/kept")
		for _, c := range []struct{ file, how, says string }{
			{"latchkey.db", "owner", "run: chown 0 "},
			{"latchkey.db", "mode", "run: chmod 600 "},
			{"latchkey.db", "cut", "latchkeyd restore"},
			{"master.key", "owner", "run: chown 0 "},
			{"master.key", "mode", "run: chmod 600 "},
			{"master.key", "bit", "master key"},
			{"master.key", "newer", "update this program"},
			{"master.key", "gone", "master key"},
		} {
			srv.Run("sh", "-ec", `find "$0" -mindepth 1 -delete; cp -a /root/kept/. "$0"`, serverData)
			srv.spoil(t, serverData+"/"+c.file, c.how)
			p := srv.Start(TestProgram(t, "latchkeyd"), "serve", "--data", serverData, "--listen", "127.0.0.1:"+peoplePort, "--listen-agent", "0.0.0.0:"+agentPort)
			if code := p.Exit(20 * time.Second); code == 0 || !strings.Contains(p.Output(), c.says) {
				t.Errorf("%s %s: the server ended with %d and said\n%s\nwant %q", c.file, c.how, code, p.Output(), c.says)
			}
		}
		srv.Run("sh", "-ec", `find "$0" -mindepth 1 -delete; cp -a /root/kept/. "$0"`, serverData)
		for _, c := range []struct{ what, make, undo, says string }{
			{"full", `cat /dev/zero >"$0/filler" 2>/dev/null; true`, `rm "$0/filler"`, "full"},
			{"read-only", `mount -o remount,ro "$0"`, `mount -o remount,rw "$0"`, "read-only"},
		} {
			srv.Run("sh", "-c", c.make, serverData)
			p := srv.Start(TestProgram(t, "latchkeyd"), "serve", "--data", serverData, "--listen", "127.0.0.1:"+peoplePort, "--listen-agent", "0.0.0.0:"+agentPort)
			if code := p.Exit(20 * time.Second); code == 0 || !strings.Contains(p.Output(), c.says) {
				t.Errorf("on a disk that is %s the server ended with %d and said\n%s", c.what, code, p.Output())
			}
			srv.Run("sh", "-c", c.undo, serverData)
		}
		w.In(t).startServer()
		s := s.In(t)
		s.online()
		opened(t, s.x(alice, s.full(alice)), true)
	})
}
