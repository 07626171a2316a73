package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
	out.Unprivileged = !parseRoot(readSmall(filepath.Join(dir, "status")))
	out.Session, out.Manager = parseCgroup(readSmall(filepath.Join(dir, "cgroup")))
	return out, true
}

func (p procFS) Seat(session string) (remote bool, host string, ok bool) {
	return parseSession(readSmall(filepath.Join(p.sessions, session)))
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

// parseRoot tells from /proc/PID/status (proc(5)) whether a process runs as root and was
// started so: a setuid program keeps the real uid of who started it. The kernel writes the
// name before it on one line, whatever it holds.
func parseRoot(b []byte) bool {
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		if uids, ok := bytes.CutPrefix(line, []byte("Uid:\t")); ok {
			f := bytes.Split(uids, []byte("\t"))
			return len(f) == 4 && string(f[0]) == "0" && string(f[1]) == "0"
		}
	}
	return false
}

// AtSeat reads logind's files of all sessions.
func (p procFS) AtSeat(uid string) bool {
	d, err := os.Open(p.sessions)
	if err != nil {
		return false
	}
	defer d.Close()
	names, err := d.Readdirnames(maxSessions)
	if err != nil {
		return false
	}
	for _, n := range names {
		if parseAtSeat(readSmall(filepath.Join(p.sessions, n)), uid) {
			return true
		}
	}
	return false
}

// parseCgroup finds logind's session in /proc/PID/cgroup, a path with a part
// "session-ID.scope", or whose own systemd the process belongs to, a path with a part
// "user@UID.service". Nobody but root gets out of the one into the other's.
func parseCgroup(b []byte) (session, manager string) {
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		f := bytes.SplitN(line, []byte(":"), 3)
		if len(f) != 3 || len(f[1]) != 0 && string(f[1]) != "name=systemd" {
			continue
		}
		for part := range strings.SplitSeq(string(f[2]), "/") {
			if id, ok := between(part, "session-", ".scope"); ok && session == "" && manager == "" &&
				strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == "" {
				session = id
			}
			// What stands below it the user has named himself.
			if id, ok := between(part, "user@", ".service"); ok && session == "" && manager == "" && strings.Trim(id, "0123456789") == "" {
				manager = id
			}
		}
	}
	return session, manager
}

// between is what stands between a beginning and an end, if it is short.
func between(s, begin, end string) (string, bool) {
	s, ok := strings.CutPrefix(s, begin)
	s, whole := strings.CutSuffix(s, end)
	return s, ok && whole && s != "" && len(s) <= 32
}

// parseSession reads logind's file of a session. One of a job (cron, at) has no seat:
// nobody sits at the machine for it, wherever it was ordered from.
func parseSession(b []byte) (remote bool, host string, ok bool) {
	job := false
	for line := range strings.SplitSeq(string(b), "\n") {
		switch k, v, _ := strings.Cut(line, "="); k {
		case "REMOTE":
			remote, ok = v == "1", v == "0" || v == "1"
		case "REMOTE_HOST":
			host = strings.Trim(v, `"`)
		case "CLASS":
			job = strings.HasPrefix(v, "background")
		}
	}
	remote = remote || job
	if len(host) > 256 {
		host = ""
	}
	return remote, host, ok
}

// parseAtSeat tells whether logind's file of a session is one of the uid's, of a
// person, with a seat of this machine, and in front of it.
func parseAtSeat(b []byte, uid string) bool {
	is := map[string]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		if k, v, ok := strings.Cut(line, "="); ok {
			is[k] = strings.Trim(v, `"`)
		}
	}
	return uid != "" && is["UID"] == uid && is["REMOTE"] == "0" && is["SEAT"] != "" && is["ACTIVE"] == "1" &&
		(is["CLASS"] == "user" || strings.HasPrefix(is["CLASS"], "user-"))
}
