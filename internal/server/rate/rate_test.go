package rate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/turnstile"
)

// Each address of one connection to the Internet is not a stranger of its own: every
// one may leave an event.
func TestANetworkOfOneStrangerHasOneBucket(t *testing.T) {
	k := New(Rate{PerSecond: 1.0 / 60, Burst: 1}, clock.NewManual(time.Unix(1_800_000_000, 0)))
	taken := 0
	for i := range 1000 {
		if k.Take(turnstile.Network(netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%x", i)))) {
			taken++
		}
	}
	if taken != 1 {
		t.Errorf("one /64 was let through %d times", taken)
	}
	for _, a := range []string{"2001:db8:1:3::1", "192.0.2.1", "192.0.2.2"} {
		if !k.Take(turnstile.Network(netip.MustParseAddr(a))) {
			t.Errorf("%s is somebody else", a)
		}
	}
}

func TestABucketFillsWithTime(t *testing.T) {
	c := clock.NewManual(time.Unix(1_800_000_000, 0))
	k := New(Rate{PerSecond: 2, Burst: 3}, c)
	for i := range 3 {
		if w := k.TakeN("a", 1); w != 0 {
			t.Fatalf("the %d. of a full bucket waits %s", i+1, w)
		}
	}
	if w := k.TakeN("a", 1); w != 500*time.Millisecond {
		t.Errorf("an empty bucket of two a second says to wait %s", w)
	}
	if !k.Take("b") {
		t.Error("another key has another bucket")
	}
	c.Advance(500 * time.Millisecond)
	if !k.Take("a") || k.Take("a") {
		t.Error("half a second gives one")
	}
	c.Advance(-time.Hour)
	if k.Take("a") {
		t.Error("a clock that was put back gives something")
	}
	c.Advance(time.Hour)
	if k.Take("a") {
		t.Error("a clock that was put back and forward again gives something")
	}
	c.Advance(24 * time.Hour)
	if k.TakeN("a", 3) != 0 || k.Take("a") {
		t.Error("a bucket holds more than its size after a day")
	}
}

func TestStrangersBehindTooManyShareOneBucket(t *testing.T) {
	c := clock.NewManual(time.Unix(1_800_000_000, 0))
	k := New(Rate{PerSecond: 1, Burst: 2}, c)
	for i := range MaxKeys {
		k.Take(fmt.Sprint(i))
	}
	taken := 0
	for i := range 100 {
		if k.Take(fmt.Sprint("new", i)) {
			taken++
		}
	}
	if taken != 2 || len(k.buckets) > MaxKeys+1 {
		t.Errorf("%d strangers went on, %d buckets", taken, len(k.buckets))
	}
	c.Advance(2 * time.Minute)
	if !k.Take("later") || len(k.buckets) != 1 {
		t.Errorf("%d buckets are remembered although all were full", len(k.buckets))
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	c := clock.NewManual(time.Unix(1_800_000_000, 0))
	k := New(Rate{PerSecond: 1, Burst: 5}, c)
	if err := k.Wait(t.Context(), "a", 50); err != nil {
		t.Fatal("more than a bucket holds is a whole bucket:", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Millisecond)
	defer cancel()
	var f *fault.Fault
	if err := k.Wait(ctx, "a", 1); !errors.As(err, &f) || f.Code != fault.TooMany {
		t.Error(err)
	}
}
