package agent

import (
	"sync"
	"time"

	"latchkey/internal/clock"
)

// limits keeps strangers on the machine from using up what root's sign-ins need.
// Root's own programs are bounded too, far above what a machine does.
type limits struct {
	clk clock.Clock

	mu      sync.Mutex
	open    map[uint32]int // connections by uid
	guests  int            // of all who are not privileged
	root    int            // of all who are
	callers map[string]int // sign-ins under way by who started root's program
	unlocks map[uint32]*bucket
	running map[uint32]int // unlocks under way by uid
}

// The bounds.
const (
	maxRoot        = 512
	maxCaller      = 32 // of root's, started by one and the same user
	maxGuests      = 64
	maxPerUID      = 8
	maxUnlocks     = 4  // at a time for one uid
	unlocksAMinute = 10 // for one uid
)

// bucket holds what is left of a uid's unlocks.
type bucket struct {
	left float64
	at   time.Time
}

func newLimits(clk clock.Clock) *limits {
	return &limits{clk: clk, open: map[uint32]int{}, unlocks: map[uint32]*bucket{}, running: map[uint32]int{}, callers: map[string]int{}}
}

// enter takes a place for a connection; leave gives it back.
func (l *limits) enter(c caller) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.privileged() {
		if l.root >= maxRoot {
			return nil, false
		}
		l.root++
		return func() { l.mu.Lock(); l.root--; l.mu.Unlock() }, true
	}
	if l.guests >= maxGuests || l.open[c.uid] >= maxPerUID {
		return nil, false
	}
	l.guests++
	l.open[c.uid]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.guests--
		if l.open[c.uid]--; l.open[c.uid] <= 0 {
			delete(l.open, c.uid)
		}
	}, true
}

// behind takes a place for a program of root's that somebody else has started: he
// may start as many of them as he likes.
func (l *limits) behind(name string) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.callers[name] >= maxCaller {
		return nil, false
	}
	l.callers[name]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.callers[name]--; l.callers[name] <= 0 {
			delete(l.callers, name)
		}
	}, true
}

// unlock takes a place for an unlock of an unprivileged caller.
func (l *limits) unlock(uid uint32) (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clk.Now()
	b := l.unlocks[uid]
	if b == nil {
		if len(l.unlocks) > 4096 {
			l.tidy(now)
		}
		b = &bucket{left: unlocksAMinute, at: now}
		l.unlocks[uid] = b
	}
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(unlocksAMinute, b.left+passed.Minutes()*unlocksAMinute)
	}
	b.at = now
	if l.running[uid] >= maxUnlocks || b.left < 1 {
		return nil, false
	}
	b.left--
	l.running[uid]++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.running[uid]--; l.running[uid] <= 0 {
			delete(l.running, uid)
		}
	}, true
}

// tidy forgets those who have waited long enough to begin anew.
func (l *limits) tidy(now time.Time) {
	for uid, b := range l.unlocks {
		if now.Sub(b.at) > time.Minute {
			delete(l.unlocks, uid)
		}
	}
}
