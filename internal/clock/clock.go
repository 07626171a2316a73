// Package clock is the only place that reads the wall clock or sleeps. Everything
// else takes a Clock. In builds with the tag latchkey_test the real clock can be
// moved by a file (see movable.go); release builds have no such code.
package clock

import (
	"context"
	"time"
)

// Clock tells the time and waits.
type Clock interface {
	// Now is the wall clock with its monotonic part.
	Now() time.Time
	// Sleep waits for d or until the context ends; it returns the context's error.
	Sleep(ctx context.Context, d time.Duration) error
	// After gives a channel that receives once after d.
	After(d time.Duration) <-chan time.Time
}

// Real is the machine's own clock.
var Real Clock = real{}

type real struct{}

func (real) Now() time.Time                         { return time.Now().Add(offset()) }
func (real) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (real) Sleep(ctx context.Context, d time.Duration) error {
	if d >= longSleep {
		return sleepUntil(ctx, d)
	}
	return sleep(ctx, d)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Deadline is a point in time for net.Conn deadlines and contexts. It follows
// the machine's own clock, never an offset.
func Deadline(d time.Duration) time.Time { return time.Now().Add(d) }

// Micros turns t into unix microseconds, the form of times in the database and
// on the wire.
func Micros(t time.Time) int64 { return t.UnixMicro() }

// FromMicros is the inverse of Micros, in UTC.
func FromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }
