package agent

import (
	"os"
	"path/filepath"
	"strconv"
)

type procFS struct{ proc, sessions string }

func systemProcesses() processes { return procFS{"/proc", "/run/systemd/sessions"} }

func (p procFS) Get(pid int) (process, bool) {
	if pid <= 0 {
		return process{}, false
	}
	dir := filepath.Join(p.proc, strconv.Itoa(pid))
	comm, ppid, start, ok := parseStat(readSmall(filepath.Join(dir, "stat")))
	if !ok {
		return process{}, false
	}
	out := process{PID: pid, PPID: ppid, Start: start, Comm: comm}
	if exe, err := os.Readlink(filepath.Join(dir, "exe")); err == nil {
		out.Exe = exe
	}
	out.Session = parseCgroup(readSmall(filepath.Join(dir, "cgroup")))
	return out, true
}

func (p procFS) Seat(session string) (remote bool, host string, ok bool) {
	return parseSession(readSmall(filepath.Join(p.sessions, session)))
}
