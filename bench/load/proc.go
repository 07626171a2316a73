package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of times in /proc: 1/100 s on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// usage is what a process, with its children where it has any, has used so far.
type usage struct {
	cpu time.Duration
	rss float64 // octets, now
}

// used reads the usage of the process and of its direct children.
func used(pid int, children bool) (usage, error) {
	u, err := usedBy(pid)
	if err != nil || !children {
		return u, err
	}
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return u, err
	}
	for _, p := range all {
		n, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		if err != nil {
			continue
		}
		f, err := stat(n)
		if err != nil || f[1] != strconv.Itoa(pid) {
			continue // it has just ended, or is somebody else's
		}
		if c, err := usedBy(n); err == nil {
			u.cpu += c.cpu
			u.rss += c.rss
		}
	}
	return u, nil
}

// stat gives the fields of /proc/PID/stat from the third on: state, parent, …
func stat(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 22 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(f))
	}
	return f, nil
}

func usedBy(pid int) (u usage, err error) {
	f, err := stat(pid)
	if err != nil {
		return u, err
	}
	for _, i := range []int{11, 12} { // utime, stime
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return u, err
		}
		u.cpu += time.Duration(n) * clockTick
	}
	pages, err := strconv.ParseInt(f[21], 10, 64)
	u.rss = float64(pages) * float64(os.Getpagesize())
	return u, err
}

// own is the processor time of this process.
func own() time.Duration {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// manyFiles raises the limit of open files for this process and its children, and tells what it is then: not every root
// may.
func manyFiles(n uint64) (uint64, error) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	want := syscall.Rlimit{Cur: max(n, l.Max), Max: max(n, l.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want) == nil {
		return want.Max, nil
	}
	want = syscall.Rlimit{Cur: l.Max, Max: l.Max}
	return l.Max, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want)
}

// quantile is the time that the given part of them stays below; 1 is the longest.
func quantile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(times))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
