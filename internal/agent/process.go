package agent

import (
	"bytes"
	"strconv"
	"strings"
)

// process is one of the machine's processes.
type process struct {
	PID, PPID int
	Start     uint64 // in ticks since boot: tells it from another with the same number
	Exe       string // empty: it can not be read
	Comm      string // as the process calls itself: anybody can forge it
	Session   string // logind's, if it is in one
}

// same tells whether both are one process.
func (p process) same(o process) bool { return p.PID != 0 && p.PID == o.PID && p.Start == o.Start }

// processes looks them up.
type processes interface {
	Get(pid int) (process, bool)
	// Seat tells what logind knows of a session.
	Seat(session string) (remote bool, host string, ok bool)
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

// parseStat reads /proc/PID/stat: proc(5). The name in brackets may hold brackets,
// blanks and newlines, so that the last bracket counts.
func parseStat(b []byte) (comm string, ppid int, start uint64, ok bool) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open || len(b) > 4096 {
		return "", 0, 0, false
	}
	f := strings.Fields(string(b[shut+1:]))
	// f[0] is field 3, the state.
	if len(f) < 20 {
		return "", 0, 0, false
	}
	ppid, err := strconv.Atoi(f[1])
	if err != nil || ppid < 0 {
		return "", 0, 0, false
	}
	start, err = strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return "", 0, 0, false
	}
	return string(b[open+1 : shut]), ppid, start, true
}

// parseCgroup finds logind's session in /proc/PID/cgroup: a path with a part
// "session-ID.scope".
func parseCgroup(b []byte) string {
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		f := bytes.SplitN(line, []byte(":"), 3)
		if len(f) != 3 || len(f[1]) != 0 && string(f[1]) != "name=systemd" {
			continue
		}
		for part := range strings.SplitSeq(string(f[2]), "/") {
			id, ok := strings.CutPrefix(part, "session-")
			id, whole := strings.CutSuffix(id, ".scope")
			if ok && whole && id != "" && len(id) <= 32 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == "" {
				return id
			}
		}
	}
	return ""
}

// parseSession reads logind's file of a session.
func parseSession(b []byte) (remote bool, host string, ok bool) {
	for line := range strings.SplitSeq(string(b), "\n") {
		switch k, v, _ := strings.Cut(line, "="); k {
		case "REMOTE":
			remote, ok = v == "1", v == "0" || v == "1"
		case "REMOTE_HOST":
			host = strings.Trim(v, `"`)
		}
	}
	if len(host) > 256 {
		host = ""
	}
	return remote, host, ok
}
