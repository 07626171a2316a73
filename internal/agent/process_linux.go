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
	out.Session = parseCgroup(readSmall(filepath.Join(dir, "cgroup")))
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
