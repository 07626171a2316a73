package agent

import (
	"net/netip"
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
	called  int            // of all of them together
	afar    int            // sign-ins under way from over the network
	unlocks map[uint32]*bucket
	running map[uint32]int // unlocks under way by uid
	sources map[string]*bucket
	rest    bucket               // of those who are too many to be told apart
	network bucket               // of all sources together
	friends bucket               // of those who have come in from there lately, on top
	welcome map[string]time.Time // addresses from which somebody came in, and when last
	lines   bucket               // of the log about all of these
	unsaid  int
}

// The bounds.
const (
	maxRoot        = 512
	maxCaller      = 32  // of root's, started by one and the same user
	maxCallers     = 128 // of root's, started by all other users together
	maxAfar        = 128 // of root's, for people on the network
	maxGuests      = 64
	maxPerUID      = 8
	maxUnlocks     = 4  // at a time for one uid
	unlocksAMinute = 10 // for one uid
)

// How many sign-ins from over the network, and of programs that a user has started, are carried to the server, or judged
// offline, in the long run (per second) and at once. The server takes twenty requests
// a second of a machine and the machine hashes one password per core at a time:
// whoever sits at it must find room in both, whatever knocks at its sshd. Half of what
// the network has is for addresses from which somebody has come in within a week: two
// strangers' addresses could otherwise keep out everybody.
const (
	afarRate, afarBurst         = 2, 10 // of all sources
	friendRate, friendBurst     = 2, 10 // of known ones, on top
	sourceRate, sourceBurst     = 2, 15 // of one known address, one /64, or one user of the machine
	strangerRate, strangerBurst = 1, 8  // of an address that is not known
	welcomeFor                  = 7 * 24 * time.Hour
)

// How many lines of the log strangers may cause in the long run (per second) and at
// once: whoever is refused a thousand times a second must not fill the disk with it.
const linesRate, linesBurst = 1, 30

// bucket holds what somebody has left.
type bucket struct {
	left float64
	at   time.Time
}

// fill adds what the time since has given; a clock that was put back gives nothing.
func (b *bucket) fill(now time.Time, perSecond, burst float64) {
	if passed := now.Sub(b.at); passed > 0 {
		b.left = min(burst, b.left+passed.Seconds()*perSecond)
	}
	b.at = now
}

func newLimits(clk clock.Clock) *limits {
	return &limits{
		clk: clk, open: map[uint32]int{}, unlocks: map[uint32]*bucket{}, running: map[uint32]int{}, callers: map[string]int{},
		sources: map[string]*bucket{}, welcome: map[string]time.Time{},
		network: bucket{left: afarBurst, at: clk.Now()}, friends: bucket{left: friendBurst, at: clk.Now()}, lines: bucket{left: linesBurst, at: clk.Now()},
	}
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
	if l.callers[name] >= maxCaller || l.called >= maxCallers {
		return nil, false
	}
	l.callers[name]++
	l.called++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.called--
		if l.callers[name]--; l.callers[name] <= 0 {
			delete(l.callers, name)
		}
	}, true
}

// fromAfar takes a place for a sign-in from over the network: whoever opens a
// thousand of them keeps nobody out who sits at the machine.
func (l *limits) fromAfar() (leave func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.afar >= maxAfar {
		return nil, false
	}
	l.afar++
	return func() { l.mu.Lock(); l.afar--; l.mu.Unlock() }, true
}

// maxSources bounds how many addresses and users are told apart; behind that many they share
// one allowance.
const maxSources = 4096

// judge tells whether one more sign-in of a source may be carried to the server or
// judged here, and counts it. It is asked when the person has answered: whoever hangs
// up at the prompt uses up nothing.
func (l *limits) judge(key string, network bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clk.Now()
	if len(l.sources) >= maxSources {
		for k, b := range l.sources {
			if b.fill(now, sourceRate, sourceBurst); b.left >= sourceBurst {
				delete(l.sources, k)
			}
		}
	}
	b := l.sources[key]
	if b == nil {
		if b = &l.rest; len(l.sources) < maxSources {
			b = &bucket{left: sourceBurst, at: now}
			l.sources[key] = b
		}
	}
	l.network.fill(now, afarRate, afarBurst)
	l.friends.fill(now, friendRate, friendBurst)
	at, known := l.welcome[key]
	known = known && now.Sub(at) < welcomeFor
	purse := &bucket{left: 1} // of what is not from the network
	switch {
	case !network:
		b.fill(now, sourceRate, sourceBurst)
	case known:
		b.fill(now, sourceRate, sourceBurst)
		if purse = &l.friends; purse.left < 1 {
			purse = &l.network
		}
	default:
		b.fill(now, strangerRate, strangerBurst)
		b.left = min(b.left, strangerBurst)
		purse = &l.network
	}
	if b.left < 1 || purse.left < 1 {
		// Whoever goes on regardless waits the longer: it is a program that does.
		b.left = max(-sourceBurst, b.left-1)
		return false
	}
	b.left--
	purse.left--
	return true
}

// cameIn remembers that somebody has come in from an address.
func (l *limits) cameIn(key string) {
	if key == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.clk.Now()
	if _, ok := l.welcome[key]; !ok && len(l.welcome) >= maxSources {
		oldest := key
		for k, at := range l.welcome {
			if oldest == key || at.Before(l.welcome[oldest]) {
				oldest = k
			}
		}
		delete(l.welcome, oldest)
	}
	l.welcome[key] = now
}

// neighbourhood is whom an address stands for: of IPv6 the /64 that one connection to
// the Internet has at least. What is no address is one stranger.
func neighbourhood(host string) string {
	a, err := netip.ParseAddr(host)
	if err != nil {
		return ""
	}
	if a = a.Unmap().WithZone(""); a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// line tells whether one more line about strangers may be logged, and how many were
// not since the last one.
func (l *limits) line() (unsaid int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines.fill(l.clk.Now(), linesRate, linesBurst)
	if l.lines.left < 1 {
		l.unsaid++
		return 0, false
	}
	l.lines.left--
	unsaid, l.unsaid = l.unsaid, 0
	return unsaid, true
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
	b.fill(now, unlocksAMinute/60.0, unlocksAMinute)
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
