//go:build unix

package daemon

import "golang.org/x/sys/unix"

// withoutCore keeps passwords and keys in memory out of core files. Where the
// limit can not be set the process runs all the same: the service manager's own
// limit is the second line.
func withoutCore() { _ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }
