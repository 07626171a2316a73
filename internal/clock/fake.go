package clock

import (
	"context"
	"sync"
	"time"
)

// Manual is a clock that moves only when told. It is for tests of packages that
// take a Clock; its Sleep and After return at once once the clock passed them.
type Manual struct {
	mu      sync.Mutex
	now     time.Time
	waiters []waiter
}

type waiter struct {
	at time.Time
	ch chan time.Time
}

// NewManual starts at t.
func NewManual(t time.Time) *Manual { return &Manual{now: t} }

// Now is the time last set.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Advance moves the clock by d, which may be negative, and wakes those whose
// time has come.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	rest := m.waiters[:0]
	for _, w := range m.waiters {
		if w.at.After(m.now) {
			rest = append(rest, w)
			continue
		}
		w.ch <- m.now
	}
	m.waiters = rest
}

// After gives a channel that receives when the clock has passed d from now.
func (m *Manual) After(d time.Duration) <-chan time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	ch := make(chan time.Time, 1)
	if d <= 0 {
		ch <- m.now
		return ch
	}
	m.waiters = append(m.waiters, waiter{m.now.Add(d), ch})
	return ch
}

// Sleep waits until the clock was advanced by d.
func (m *Manual) Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-m.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Waiting is how many wait for a time that comes within d.
func (m *Manual) Waiting(d time.Duration) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.waiters {
		if !w.at.After(m.now.Add(d)) {
			n++
		}
	}
	return n
}
