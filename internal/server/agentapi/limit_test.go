package agentapi

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/turnstile"
)

// Each address of one connection to the Internet is not a stranger of its own: every
// one may leave an event.
func TestANetworkOfOneStrangerHasOneBucket(t *testing.T) {
	l := newLimiter(Rate{PerSecond: 1.0 / 60, Burst: 1}, clock.NewManual(time.Unix(1_800_000_000, 0)))
	taken := 0
	for i := range 1000 {
		if l.take(turnstile.Network(netip.MustParseAddr(fmt.Sprintf("2001:db8:1:2::%x", i)))) {
			taken++
		}
	}
	if taken != 1 {
		t.Errorf("one /64 was let through %d times", taken)
	}
	for _, a := range []string{"2001:db8:1:3::1", "192.0.2.1", "192.0.2.2"} {
		if !l.take(turnstile.Network(netip.MustParseAddr(a))) {
			t.Errorf("%s is somebody else", a)
		}
	}
}
