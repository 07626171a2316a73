//go:build latchkey_test

// Package failpoint names the steps at which a process may be killed in tests.
// With the build tag latchkey_test, Hit kills the process at the step that the
// file named by LATCHKEY_TEST_FAILPOINT holds. In release builds it does nothing.
package failpoint

import (
	"os"
	"strings"
	"syscall"
)

// Hit kills the process with SIGKILL if name is the armed step. The file is
// removed first, so that a step kills once.
func Hit(name string) {
	file := os.Getenv("LATCHKEY_TEST_FAILPOINT")
	if file == "" {
		return
	}
	b, err := os.ReadFile(file)
	if err != nil || strings.TrimSpace(string(b)) != name {
		return
	}
	_ = os.Remove(file)
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		_ = p.Signal(syscall.SIGKILL)
	}
	select {}
}
