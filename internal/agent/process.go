package agent

// process is one of the machine's processes.
type process struct {
	PID, PPID int
	Start     uint64 // in ticks since boot: tells it from another with the same number
	Exe       string // empty: it can not be read
	Comm      string // as the process calls itself: anybody can forge it
	Session   string // logind's, if it is in one
	Manager   string // the uid, if it runs under somebody's own systemd (user@UID.service)
	// Unprivileged: it was not started as root, or that can not be known.
	Unprivileged bool
}

// same tells whether both are one process.
func (p process) same(o process) bool { return p.PID != 0 && p.PID == o.PID && p.Start == o.Start }

// processes looks them up.
type processes interface {
	Get(pid int) (process, bool)
	// Seat tells what logind knows of a session.
	Seat(session string) (remote bool, host string, ok bool)
	// AtSeat tells whether logind knows a session of the uid that is in front of a seat
	// of this machine now.
	AtSeat(uid string) bool
}

// ancestors walks from a process up, itself first.
func ancestors(ps processes, pid int) []process {
	var out []process
	for range 64 {
		p, ok := ps.Get(pid)
		if !ok {
			break
		}
		out = append(out, p)
		if p.PPID <= 0 || p.PPID == pid {
			break
		}
		pid = p.PPID
	}
	return out
}
