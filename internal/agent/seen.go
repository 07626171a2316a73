package agent

import (
	"net/netip"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
)

// seen is what the agent remembers of finished sign-ins and open sessions, to
// bring together the phases that a sign-in program makes from different processes.
// It is lost when the agent restarts, and then denies rather than guesses.
type seen struct {
	clk clock.Clock

	mu       sync.Mutex
	auths    []finished
	sessions []session
}

// finished is an auth phase that did not end in a denial.
type finished struct {
	peer, parent process
	service      string
	user         string
	outcome      policy.Outcome
	at           time.Time
}

// session is an open one.
type session struct {
	leader  process
	service string
	user    string
	uid     uint32
	known   bool // uid is
	remote  bool
	host    string
}

// The bounds of memory.
const (
	authLasts   = 5 * time.Minute
	maxAuths    = 1024
	maxSessions = 4096
)

func newSeen(clk clock.Clock) *seen { return &seen{clk: clk} }

// finish remembers an auth phase.
func (s *seen) finish(f finished) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.at = s.clk.Now()
	s.forget(f.at)
	if len(s.auths) >= maxAuths {
		s.auths = s.auths[1:]
	}
	s.auths = append(s.auths, f)
}

func (s *seen) forget(now time.Time) {
	keep := s.auths[:0]
	for _, a := range s.auths {
		if age := now.Sub(a.at); age >= 0 && age < authLasts {
			keep = append(keep, a)
		}
	}
	s.auths = keep
}

// auth finds the finished auth phase of a peer: made by the same process, or, as
// sshd does it, by a child of the process that asks now.
func (s *seen) auth(peer process, service, user string) (finished, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(s.clk.Now())
	for i := len(s.auths) - 1; i >= 0; i-- {
		a := s.auths[i]
		if a.service == service && a.user == user && (a.peer.same(peer) || a.parent.same(peer)) {
			return a, true
		}
	}
	return finished{}, false
}

// open remembers a session.
func (s *seen) open(x session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x.leader.PID == 0 || len(s.sessions) >= maxSessions {
		return
	}
	s.sessions = append(s.sessions, x)
}

// shut forgets the session that a process leads. last tells whether the user has no
// other one.
func (s *seen) shut(leader process, service, user string) (ended session, last, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, x := range s.sessions {
		if x.leader.same(leader) && x.service == service && x.user == user {
			s.sessions = append(s.sessions[:i:i], s.sessions[i+1:]...)
			return x, !s.has(user), true
		}
	}
	return session{}, false, false
}

func (s *seen) has(user string) bool {
	for _, x := range s.sessions {
		if x.user == user {
			return true
		}
	}
	return false
}

// gone forgets sessions whose process has ended without saying so, and lists the
// users who have none left.
func (s *seen) gone(ps processes) (users []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keep []session
	lost := map[string]bool{}
	for _, x := range s.sessions {
		if p, ok := ps.Get(x.leader.PID); ok && p.same(x.leader) {
			keep = append(keep, x)
		} else {
			lost[x.user] = true
		}
	}
	s.sessions = keep
	for u := range lost {
		if !s.has(u) {
			users = append(users, u)
		}
	}
	return users
}

// remoteOf finds the remote session that one of the processes leads.
func (s *seen) remoteOf(chain []process) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range chain {
		for _, x := range s.sessions {
			if x.remote && x.leader.same(p) {
				return x, true
			}
		}
	}
	return session{}, false
}

// remotesOf lists the remote sessions of a user.
func (s *seen) remotesOf(uid uint32) []session {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []session
	for _, x := range s.sessions {
		if x.remote && x.known && x.uid == uid {
			out = append(out, x)
		}
	}
	return out
}

// localPrograms start sessions at the machine itself. They run as root: anybody may call a
// program of his own so.
var localPrograms = map[string]bool{
	"login": true, "gdm-session-worker": true, "lightdm": true, "sddm-helper": true, "plasmalogin-helper": true, "greetd": true, "xdm": true, "slim": true,
	"lxdm-binary": true, "lxdm-session": true,
}

// remotePrograms start sessions from over the network.
var remotePrograms = map[string]bool{
	"sshd": true, "sshd-session": true, "in.telnetd": true, "xrdp-sesman": true, "xrdp-sesexec": true, "cockpit-session": true, "mosh-server": true,
}

// seat tells whether a request that names no remote host comes from a remote
// session, and from which peer. A process that has left the session in which it
// was started (tmux, nohup) is taken for remote while its user has a remote session
// open, unless logind or a local ancestor says otherwise: this only ever takes
// something away. What runs under somebody's own systemd (systemd-run --user, timers,
// lingering) may have been started from anywhere at any time: it is remote unless that
// person sits in front of the machine now.
func (a *agent) seat(pid int, uid uint32, known bool) (remote bool, host string) {
	chain := ancestors(a.procs, pid)
	if x, ok := a.seen.remoteOf(chain); ok {
		return true, x.host
	}
	for _, p := range chain {
		if remotePrograms[nameOf(p)] {
			return true, ""
		}
	}
	for _, p := range chain {
		if p.Session == "" {
			continue
		}
		if remote, host, ok := a.procs.Seat(p.Session); ok {
			return remote, numeric(host)
		}
	}
	managed := false
	for _, p := range chain {
		if servesScreen(p) {
			return false, ""
		}
		managed = managed || p.Manager != "" && !a.procs.AtSeat(p.Manager)
	}
	if !known {
		return managed, ""
	}
	open := a.seen.remotesOf(uid)
	if len(open) == 0 {
		return managed, ""
	}
	for _, x := range open[1:] {
		if x.host != open[0].host {
			return true, ""
		}
	}
	return true, open[0].host
}

// placed tells whether something but its own word says where a process belongs: a
// session, here or over the network, whose place seat then tells, or a person in front
// of this machine whose systemd it runs under. A daemon that serves the network is in
// neither.
func (a *agent) placed(pid int) bool {
	chain := ancestors(a.procs, pid)
	if _, ok := a.seen.remoteOf(chain); ok {
		return true
	}
	for _, p := range chain {
		if servesScreen(p) || remotePrograms[nameOf(p)] || p.Manager != "" && a.procs.AtSeat(p.Manager) {
			return true
		}
		if p.Session != "" {
			if _, _, ok := a.procs.Seat(p.Session); ok {
				return true
			}
		}
	}
	return false
}

// servesScreen tells whether a process is a program that starts sessions at the machine.
func servesScreen(p process) bool { return !p.Unprivileged && localPrograms[nameOf(p)] }

// nameOf is the program of a process, by its executable, and where that can not be
// read by what it calls itself.
func nameOf(p process) string {
	if p.Exe != "" {
		return program(p.Exe)
	}
	return p.Comm
}

// numeric keeps addresses and drops names.
func numeric(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String()
	}
	return ""
}
