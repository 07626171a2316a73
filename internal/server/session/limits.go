package session

import (
	"net/netip"
	"strings"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/turnstile"
	"latchkey/internal/text"
)

// The rates of what can be guessed at. The counts in the database bound the guesses at
// one account for ever; these bound what one address may cost the server, and how
// quickly one name is tried from many. A name that nobody has is limited like any.
var (
	perAddress = rate{every: 2 * time.Second, burst: 20}
	perName    = rate{every: 3 * time.Second, burst: 10}
)

type rate struct {
	every time.Duration
	burst int
}

// limits are the buckets of one process. Those of several replicas add up.
type limits struct{ address, name *buckets }

func newLimits(c clock.Clock) limits {
	return limits{&buckets{rate: perAddress, clock: c, at: map[string]time.Time{}}, &buckets{rate: perName, clock: c, at: map[string]time.Time{}}}
}

// take counts an attempt, or refuses it.
func (l limits) take(address, name string) error {
	if !l.address.take(network(address)) {
		return fault.Newf(fault.TooMany, "Too many attempts from your network. Wait a minute and try again.")
	}
	if name != "" && !l.name.take(strings.ToLower(text.CleanN(name, 256))) {
		return fault.Newf(fault.TooMany, "Too many attempts for this name. Wait a minute and try again.")
	}
	return nil
}

func network(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	return turnstile.Network(a.Unmap().WithZone(""))
}

// buckets holds for each key the time at which its bucket is full again (GCRA). It
// keeps only those that are not full, and at most maxBuckets: behind that many,
// strangers share one.
type buckets struct {
	rate  rate
	clock clock.Clock

	mu    sync.Mutex
	at    map[string]time.Time
	swept time.Time
}

const maxBuckets = 20_000

func (b *buckets) take(key string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock.Now()
	if d := now.Sub(b.swept); d < 0 || d > time.Minute {
		b.swept = now
		for k, t := range b.at {
			if !t.After(now) {
				delete(b.at, k)
			}
		}
	}
	full, known := b.at[key]
	if !known && len(b.at) >= maxBuckets {
		key = ""
		full = b.at[key]
	}
	if full.Before(now) {
		full = now
	}
	whole := time.Duration(b.rate.burst) * b.rate.every
	full = full.Add(b.rate.every)
	if full.Sub(now) > whole {
		return false
	}
	b.at[key] = full
	return true
}
