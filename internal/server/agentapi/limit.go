package agentapi

import (
	"sync"
	"time"

	"latchkey/internal/clock"
)

// Rate is a bucket's size and how fast it fills.
type Rate struct {
	PerSecond float64
	Burst     float64
}

func (r Rate) or(d Rate) Rate {
	if r == (Rate{}) {
		return d
	}
	return r
}

// limiter is a token bucket per key. It remembers only buckets that are not full,
// and at most maxKeys of them: behind that many strangers everybody shares one.
type limiter struct {
	rate  Rate
	clock clock.Clock

	mu      sync.Mutex
	buckets map[string]bucket
	swept   time.Time
}

type bucket struct {
	left float64
	at   time.Time
}

const maxKeys = 50_000

func newLimiter(r Rate, c clock.Clock) *limiter {
	return &limiter{rate: r, clock: c, buckets: map[string]bucket{}}
}

// take tells whether the key may go on, and counts it.
func (l *limiter) take(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clock.Now()
	l.sweep(now)
	b, ok := l.buckets[key]
	if !ok && len(l.buckets) >= maxKeys {
		key = ""
		b, ok = l.buckets[key]
	}
	if !ok {
		b = bucket{left: l.rate.Burst, at: now}
	}
	b = l.fill(b, now)
	if b.left < 1 {
		l.buckets[key] = b
		return false
	}
	b.left--
	l.buckets[key] = b
	return true
}

func (l *limiter) fill(b bucket, now time.Time) bucket {
	if d := now.Sub(b.at); d > 0 { // a clock that was put back gives nothing
		b.left = min(l.rate.Burst, b.left+d.Seconds()*l.rate.PerSecond)
	}
	b.at = now
	return b
}

// sweep forgets full buckets, now and then.
func (l *limiter) sweep(now time.Time) {
	if d := now.Sub(l.swept); d >= 0 && d < time.Minute {
		return
	}
	l.swept = now
	for k, b := range l.buckets {
		if l.fill(b, now).left >= l.rate.Burst {
			delete(l.buckets, k)
		}
	}
}
