// Package rate bounds how often somebody may ask: a token bucket for each key (an
// address' network, a machine, a name, a token).
//
// It promises: memory is bounded, because only buckets that are not full are
// remembered, and behind MaxKeys of them all strangers share one; a clock that is put
// back gives nothing. Replicas count each for itself. What may be guessed at is
// counted elsewhere, in the database (S10); this keeps one source from keeping the
// server busy.
package rate

import (
	"context"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
)

// Rate is how much a bucket holds, and how fast it fills.
type Rate struct {
	PerSecond float64
	Burst     float64
}

// Or is r, or d if r was not set.
func (r Rate) Or(d Rate) Rate {
	if r == (Rate{}) {
		return d
	}
	return r
}

// MaxKeys is how many buckets are remembered.
const MaxKeys = 50_000

// Keyed holds the buckets. It is safe for concurrent use.
type Keyed struct {
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

// New makes full buckets.
func New(r Rate, c clock.Clock) *Keyed {
	return &Keyed{rate: r, clock: c, buckets: map[string]bucket{}}
}

// Take tells whether the key may go on, and counts it if so.
func (k *Keyed) Take(key string) bool { return k.TakeN(key, 1) == 0 }

// TakeN is Take for n at once; it tells how long to wait if not.
func (k *Keyed) TakeN(key string, n float64) (wait time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	k.sweep(now)
	b, ok := k.buckets[key]
	if !ok && len(k.buckets) >= MaxKeys {
		key = ""
		b, ok = k.buckets[key]
	}
	if !ok {
		b = bucket{left: k.rate.Burst, at: now}
	}
	b = k.fill(b, now)
	if b.left < n {
		k.buckets[key] = b
		return max(time.Duration((n-b.left)/k.rate.PerSecond*float64(time.Second)), time.Millisecond)
	}
	b.left -= n
	k.buckets[key] = b
	return 0
}

// Wait is TakeN that waits until it may go on, but not longer than ctx lasts.
func (k *Keyed) Wait(ctx context.Context, key string, n int) error {
	for k.TakeN(key, min(float64(n), k.rate.Burst)) > 0 {
		pause, done := context.WithTimeout(ctx, 50*time.Millisecond)
		<-pause.Done()
		done()
		if ctx.Err() != nil {
			return fault.New(fault.TooMany, ctx.Err())
		}
	}
	return nil
}

func (k *Keyed) fill(b bucket, now time.Time) bucket {
	// The later time stays: a clock that is put back and then forward gives nothing twice.
	if d := now.Sub(b.at); d > 0 {
		b.left, b.at = min(k.rate.Burst, b.left+d.Seconds()*k.rate.PerSecond), now
	}
	return b
}

// sweep forgets full buckets, now and then.
func (k *Keyed) sweep(now time.Time) {
	if d := now.Sub(k.swept); d >= 0 && d < time.Minute {
		return
	}
	k.swept = now
	for key, b := range k.buckets {
		if k.fill(b, now).left >= k.rate.Burst {
			delete(k.buckets, key)
		}
	}
}
