//go:build latchkey_test

package clock

import (
	"context"
	"os"
	"strings"
	"syscall"
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
	// Three calls of the system and no more: a sign-in looks at the clock some fifty times.
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		return 0
	}
	defer syscall.Close(fd)
	b := make([]byte, 64)
	n, err := syscall.Read(fd, b)
	if err != nil || n < 0 {
		return 0
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b[:n])))
	if err != nil {
		return 0
	}
	return d
}

// longSleep is a sleep that the turning of the clock ends: a job that is due every hour
// is done when an hour has passed by the clock.
const longSleep = 10 * time.Second

func sleepUntil(ctx context.Context, d time.Duration) error {
	const look = 100 * time.Millisecond
	was := offset()
	for end := time.Now().Add(d); ; {
		left := time.Until(end) - (offset() - was)
		if left <= 0 {
			return nil
		}
		if err := sleep(ctx, min(left, look)); err != nil {
			return err
		}
	}
}
