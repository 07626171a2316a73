//go:build latchkey_test

// Package failpoint names the steps at which a process may be killed in tests.
// With the build tag latchkey_test, Hit kills the process at the step that the
// file named by LATCHKEY_TEST_FAILPOINT holds. In release builds it does nothing.
package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

var (
	mu    sync.Mutex
	armed string // the file's content when it was read last
	left  int    // how many times the step passes unharmed
)

// Hit kills the process with SIGKILL if name is the armed step. The file holds a
// step's name and, behind a space, how often it passes first ("store.committed 3");
// what stands behind that is not looked at. The file is removed first, so that a
// step kills once.
func Hit(name string) {
	file := os.Getenv("LATCHKEY_TEST_FAILPOINT")
	if file == "" {
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	words := strings.Fields(string(b))
	if len(words) == 0 || words[0] != name {
		return
	}
	mu.Lock()
	if armed != string(b) {
		armed, left = string(b), 0
		if len(words) > 1 {
			left, _ = strconv.Atoi(words[1])
		}
	}
	if left > 0 {
		left--
		mu.Unlock()
		return
	}
	// The lock is kept: nobody else gets past this step.
	_ = os.Remove(file)
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		_ = p.Signal(syscall.SIGKILL)
	}
	select {}
}
