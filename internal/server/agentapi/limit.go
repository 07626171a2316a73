package agentapi

import (
	"context"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
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
func (l *limiter) take(key string) bool { return l.takeN(key, 1) }

// takeN is take for n at once.
func (l *limiter) takeN(key string, n float64) bool {
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
	if b.left < n {
		l.buckets[key] = b
		return false
	}
	b.left -= n
	l.buckets[key] = b
	return true
}

// wait is takeN that waits until it may go on.
func (l *limiter) wait(ctx context.Context, key string, n int) error {
	for !l.takeN(key, min(float64(n), l.rate.Burst)) {
		pause, done := context.WithTimeout(ctx, 50*time.Millisecond)
		<-pause.Done()
		done()
		if ctx.Err() != nil {
			return fault.New(fault.TooMany, ctx.Err())
		}
	}
	return nil
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

// queues let one at a time of each key go on, and a few of it wait.
type queues struct {
	mu sync.Mutex
	of map[string]*queue
}

type queue struct {
	turn chan struct{}
	n    int
}

// maxQueue is how many of one key go on or wait.
const maxQueue = 4

// enter waits for the turn; leave ends it.
func (q *queues) enter(ctx context.Context, key string) (leave func(), err error) {
	q.mu.Lock()
	if q.of == nil {
		q.of = map[string]*queue{}
	}
	one := q.of[key]
	if one == nil {
		one = &queue{turn: make(chan struct{}, 1)}
		q.of[key] = one
	}
	if one.n >= maxQueue {
		q.mu.Unlock()
		return nil, fault.New(fault.TooMany, nil)
	}
	one.n++
	q.mu.Unlock()
	out := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if one.n--; one.n == 0 {
			delete(q.of, key)
		}
	}
	select {
	case one.turn <- struct{}{}:
		return func() { <-one.turn; out() }, nil
	case <-ctx.Done():
		out()
		return nil, fault.New(fault.TooMany, ctx.Err())
	}
}
