//go:build latchkey_test

package clock

import (
	"os"
	"strings"
	"time"
)

// offset is read from the file named by LATCHKEY_TEST_CLOCK (a Go duration such
// as "-720h") at every call, so that a test can turn the clock of a running
// process. A file that is missing or damaged means no offset.
func offset() time.Duration {
	name := os.Getenv("LATCHKEY_TEST_CLOCK")
	if name == "" {
		return 0
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return d
}
