package agent

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"latchkey/internal/agent/conversation"
	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/shim"
)

// afarAgent is as much of an agent as request needs, over processes of its own.
func afarAgent(ps processes) *agent {
	return &agent{procs: ps, names: nameless{}, seen: newSeen(clock.Real), limits: newLimits(clock.NewManual(time.Unix(1_800_000_000, 0)))}
}

// daemon is a process of root's that nobody's session holds.
func daemon(name string) (table, caller) {
	f := chainOf(name, "systemd")
	return f, caller{uid: 0, peer: f.ps[2]}
}

// everyService is all that the agent knows and one that it does not.
func everyService() []string { return append(slices.Sorted(maps.Keys(services)), "vsftpd") }

// Whoever names a remote host is not at the machine, whatever the service is called: a
// service that serves screens and daemons alike (login -h, a display over XDMCP), one
// that goes by another name than its program (xrdp-sesman), and one that nobody has
// described (S2, S3, O6, W5, E1).
func TestAServiceThatNamesAHostIsNoLocalSeat(t *testing.T) {
	for _, name := range everyService() {
		for _, scope := range []shim.Scope{shim.ScopeNone, shim.ScopeLogon, shim.ScopeElevation, shim.ScopeRemote} {
			for _, host := range []string{"203.0.113.9", "2001:db8::7", "evil.example", "localhost", "127.0.0.1", "::1"} {
				s, _ := serviceOf(name)
				if s.here(host) {
					continue // its own word for this machine
				}
				t.Run(fmt.Sprintf("%s scope=%s from %s", name, scope, host), func(t *testing.T) {
					ps, who := daemon(name)
					a := afarAgent(ps)
					m := start(shim.PhaseAuth, name, "alice")
					m.RHost, m.Scope = host, scope
					r, why := a.request(t.Context(), who, s, m)
					if why != "" {
						t.Fatal(why)
					}
					if r.Scope != policy.Remote && !r.RemoteSeat {
						t.Errorf("it is a local seat: scope %s", r.Scope)
					}
					if r.RHost != host {
						t.Errorf("the host is told as %q", r.RHost)
					}
					if scope == shim.ScopeNone && s.scope == policy.Logon && r.Scope != policy.Remote {
						t.Errorf("a sign-in from over the network is a %s", r.Scope)
					}
					if scope != shim.ScopeNone && string(r.Scope) != string(scope) {
						t.Errorf("scope= of the stack does not win: %s", r.Scope)
					}
					if r.BreakGlass {
						t.Error("break-glass")
					}
					if s.scope == policy.Elevation && scope == shim.ScopeNone || scope == shim.ScopeElevation {
						return // counted by who calls
					}
					in := 0
					for range 100 {
						if a.admit(r) {
							in++
						}
					}
					if in > sourceBurst {
						t.Errorf("%d of 100 are carried to the server at once", in)
					}
				})
			}
		}
	}
}

// A display's number is no host, wherever it is written.
func TestADisplayOfTheMachineIsNoHost(t *testing.T) {
	for _, host := range []string{"", ":0", ":0.0", ":11"} {
		ps := chainOf("lightdm", "lightdm", "systemd")
		m := start(shim.PhaseAuth, "lightdm", "alice")
		m.TTY, m.RHost = ":0", host
		s, _ := serviceOf("lightdm")
		r, why := afarAgent(ps).request(t.Context(), caller{uid: 0, peer: ps.ps[3]}, s, m)
		if why != "" || r.Scope != policy.Logon || r.RemoteSeat || r.RHost != "" {
			t.Errorf("%q: %+v %q", host, r, why)
		}
	}
	for service, host := range map[string]string{"slim": "localhost", "sudo": ownName(), "sudo-i": ownName()} {
		ps := chainOf(service, "bash", "login", "systemd")
		m := start(shim.PhaseAuth, service, "alice")
		m.RHost = host
		s, _ := serviceOf(service)
		r, why := afarAgent(ps).request(t.Context(), caller{uid: 0, peer: ps.ps[4]}, s, m)
		if why != "" || r.Scope != s.scope || r.RemoteSeat || r.RHost != "" {
			t.Errorf("%s, which writes %q: %+v %q", service, host, r, why)
		}
	}
}

// A host that is one stays one when it was cleaned: what cleaning leaves nothing of, or a
// display's number, is said to be unknown, and not to be none.
func TestAHostThatIsCleanedAwayIsStillAHost(t *testing.T) {
	for host, want := range map[string]string{
		"\x01": "?", "\xff": "?", "\u202e": "?", ":0\x00": "?", "\u200b:0": "?", ":\x7f11.0": "?", " ": " ", "evil\x1b.example": "evil.example",
	} {
		for _, scope := range []shim.Scope{shim.ScopeNone, shim.ScopeLogon, shim.ScopeElevation, shim.ScopeRemote} {
			ps, who := daemon("lightdm")
			m := start(shim.PhaseAuth, "lightdm", "alice")
			m.RHost, m.Scope = host, scope
			s, _ := serviceOf("lightdm")
			r, why := afarAgent(ps).request(t.Context(), who, s, m)
			if why != "" || r.RHost != want || !policy.Elsewhere(r.RHost) || r.Scope != policy.Remote && !r.RemoteSeat {
				t.Errorf("%q, scope=%s: told as %q, %s, remote seat %v, %q", host, scope, r.RHost, r.Scope, r.RemoteSeat, why)
			}
			a := afarAgent(ps)
			m.Phase = shim.PhaseSessionOpen
			a.sessionOpen(t.Context(), who, s, m)
			if got := a.seen.remotesOf(m.UID); len(got) != 1 {
				t.Errorf("%q, scope=%s: its session is %+v", host, scope, got)
			}
		}
	}
}

// At the machine's own screen somebody sits there, whatever else he has open over the
// network: every program that serves one is known.
func TestAScreenIsTheMachinesOwnWhateverElseIsOpen(t *testing.T) {
	for program, service := range map[string]string{
		"slim": "slim", "lxdm-binary": "lxdm", "lxdm-session": "lxdm", "sddm-helper": "sddm", "plasmalogin-helper": "plasmalogin", "gdm-session-worker": "gdm-password",
		"lightdm": "lightdm", "greetd": "greetd", "xdm": "xdm", "login": "login",
	} {
		ps := chainOf(program, "systemd")
		m := start(shim.PhaseAuth, service, "alice")
		s, _ := serviceOf(service)
		a := afarAgent(ps)
		a.seen.open(session{leader: process{PID: 77, Start: 7}, service: "sshd", user: "alice", uid: m.UID, known: true, remote: true, host: "192.0.2.1"})
		r, why := a.request(t.Context(), caller{uid: 0, peer: ps.ps[2]}, s, m)
		if why != "" || r.Scope != policy.Logon || r.RemoteSeat || r.RHost != "" {
			t.Errorf("%s: %s, remote seat %v, from %q, %q", program, r.Scope, r.RemoteSeat, r.RHost, why)
		}
	}
}

// A service that nobody has described and that names no host (saslauthd's, a web
// server's) is remote too, unless something says that it is of this machine.
func TestAnUnknownServiceIsRemoteUnlessSomethingSpeaksForIt(t *testing.T) {
	session := func(seat string) table {
		f := chainOf("mydm", "systemd")
		p := f.ps[2]
		p.Session = "5"
		f.ps[2], f.seats["5"] = p, seat
		return f
	}
	of := func(manager string, in bool) table {
		f := chainOf("lock", "systemd", "systemd")
		p := f.ps[3]
		p.Manager = manager
		f.ps[3] = p
		if in {
			f.seats["at "+manager] = "yes"
		}
		return f
	}
	for name, c := range map[string]struct {
		ps    table
		tty   string
		scope shim.Scope
		want  policy.Scope
		seat  bool
	}{
		"a daemon":                                {chainOf("saslauthd", "systemd"), "", "", policy.Remote, false},
		"a daemon that names its display":         {chainOf("vncserver", "systemd"), ":1", "", policy.Remote, false},
		"a daemon that names a pseudo-terminal":   {chainOf("telnetd", "systemd"), "/dev/pts/3", "", policy.Remote, false},
		"a process that is gone":                  {table{}, "", "", policy.Remote, false},
		"a daemon whose stack says logon":         {chainOf("saslauthd", "systemd"), "", shim.ScopeLogon, policy.Logon, false},
		"a daemon whose stack says remote":        {chainOf("saslauthd", "systemd"), "", shim.ScopeRemote, policy.Remote, false},
		"a display manager on a console":          {chainOf("mydm", "systemd"), "/dev/tty2", "", policy.Logon, false},
		"one that writes the console without dev": {chainOf("mydm", "systemd"), "tty7", "", policy.Logon, false},
		"in a session at the machine":             {session("-"), "", "", policy.Logon, false},
		"in a session from elsewhere":             {session("192.0.2.9"), "", "", policy.Logon, true},
		"below login":                             {chainOf("chsh", "bash", "login", "systemd"), "", "", policy.Logon, false},
		"below sshd":                              {chainOf("chsh", "bash", "sshd", "systemd"), "", "", policy.Logon, true},
		"of a user who sits there":                {of("1000", true), "", "", policy.Logon, false},
		"of a user who sits nowhere":              {of("1000", false), "", "", policy.Remote, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := start(shim.PhaseAuth, "unheard-of", "alice")
			m.TTY, m.Scope = c.tty, c.scope
			s, _ := serviceOf(m.Service)
			r, why := afarAgent(c.ps).request(t.Context(), caller{uid: 0, peer: c.ps.ps[len(c.ps.ps)]}, s, m)
			if why != "" || r.Scope != c.want || r.RemoteSeat != c.seat {
				t.Errorf("scope %s, remote seat %v, from %q, %q", r.Scope, r.RemoteSeat, r.RHost, why)
			}
		})
	}
}

// What is done in a session that came from elsewhere is remote as well, also where the
// service is one that nobody has described.
func TestASessionOfAnUnknownDaemonIsRemote(t *testing.T) {
	for service, host := range map[string]string{"vsftpd": "203.0.113.9", "saslauthd": "", "lightdm": "203.0.113.9", "remote": ""} {
		ps, who := daemon(service)
		a := afarAgent(ps)
		m := start(shim.PhaseSessionOpen, service, "alice")
		m.RHost = host
		s, _ := serviceOf(service)
		a.sessionOpen(t.Context(), who, s, m)
		if n := len(a.seen.remotesOf(m.UID)); n != 1 {
			t.Errorf("%s: %d remote sessions", service, n)
		}
	}
}

// What a person at the machine does is not counted, and what is not at the machine is,
// in whatever scope it comes.
func TestOnlyWhoSitsAtTheMachineIsAlwaysAdmitted(t *testing.T) {
	a := afarAgent(table{})
	for range 1000 {
		if !a.admit(conversation.Request{Scope: policy.Logon}) || !a.admit(conversation.Request{Scope: policy.Logon, RemoteSeat: true, Unprivileged: true}) {
			t.Fatal("somebody at the machine is turned away")
		}
	}
	for name, r := range map[string]conversation.Request{
		"a logon with a host":         {Scope: policy.Logon, RHost: "198.51.100.1"},
		"a logon from a remote seat":  {Scope: policy.Logon, RemoteSeat: true},
		"a remote one without a host": {Scope: policy.Remote},
	} {
		in := 0
		for range 1000 {
			if a.admit(r) {
				in++
			}
		}
		if in > sourceBurst {
			t.Errorf("%s: %d of 1000", name, in)
		}
	}
}
