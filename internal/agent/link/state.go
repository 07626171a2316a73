package link

import (
	"crypto/rand"
	"time"

	"latchkey/internal/policy"
)

// State is what is known of the link.
type State struct {
	Link       policy.Link
	Reason     Reason // why it is down
	Detail     string // what was seen, for the log and for administrators
	Since      time.Time
	LastAnswer time.Time // of the pinned server; zero: none yet
	LastFail   time.Time // zero: none since the last answer
	Failures   int       // since the last answer
}

// Event is something that was seen: Answer, Failure or Refusal.
type Event interface{ event() }

// Answer is any answer of the pinned server that is not a 5xx.
type Answer struct{ At time.Time }

// Failure is a request that got none.
type Failure struct {
	At     time.Time
	Reason Reason
	Detail string
}

// Refusal is a refusal signed for this machine.
type Refusal struct{ At time.Time }

func (Answer) event()  {}
func (Failure) event() {}
func (Refusal) event() {}

// Start is the state of a link that has not tried yet.
func Start(at time.Time) State { return State{Link: policy.LinkDown, Reason: Starting, Since: at} }

// maxFailures bounds the count of failures: the pause does not grow beyond it.
const maxFailures = 8

// Next is the state behind s when e was seen. Refused lasts; else the last event
// alone says whether the link is up.
func Next(s State, e Event) State {
	if s.Link == policy.LinkRefused {
		return s
	}
	n := s
	switch e := e.(type) {
	case Answer:
		n.Link, n.Reason, n.Detail = policy.LinkUp, "", ""
		n.LastAnswer, n.LastFail, n.Failures = e.At, time.Time{}, 0
		if s.Link != policy.LinkUp {
			n.Since = e.At
		}
	case Failure:
		n.Link, n.Reason, n.Detail = policy.LinkDown, e.Reason, e.Detail
		n.LastFail, n.Failures = e.At, min(s.Failures+1, maxFailures)
		if s.Link != policy.LinkDown {
			n.Since = e.At
		}
	case Refusal:
		n = State{Link: policy.LinkRefused, Since: e.At, LastAnswer: e.At}
	default:
		n.Link, n.Reason = policy.LinkDown, Broken
	}
	return n
}

// Choice is how a sign-in that begins now treats the link.
type Choice int

// The choices. The zero value refuses.
const (
	BeRefused Choice = iota
	BeOffline        // a try failed just now: offline at once
	TryFirst         // one try, with Timing.First to answer
)

// How long a failed try speaks for the next: a try that meets silence costs two
// seconds, one that is turned away costs nothing. Silence speaks until the loop has
// tried again (a pause and the five seconds of its try), so that a server that
// swallows packets all day costs one sign-in its time and no other.
const (
	silenceSpeaks = lastPause + 7*time.Second
	refusalSpeaks = time.Second
)

// Choose settles doubt.
func (s State) Choose(now time.Time) Choice {
	switch s.Link {
	case policy.LinkUp:
		return TryFirst
	case policy.LinkDown:
		speaks := silenceSpeaks
		if s.Reason.quick() {
			speaks = refusalSpeaks
		}
		age := now.Sub(s.LastFail)
		if !s.LastFail.IsZero() && age >= 0 && age < speaks {
			return BeOffline
		}
		return TryFirst
	}
	return BeRefused
}

// The pauses between tries.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 15 * time.Second
)

// Pause is how long to wait before the next try after so many failures: nothing
// after the first, because a connection that broke is mended at once where the
// server is there, then from 0.5 s doubling to 15 s. dice, 0-255, takes away up to
// a quarter, so that a thousand machines do not come back in the same moment.
func Pause(failures int, dice byte) time.Duration {
	if failures <= 1 {
		return 0
	}
	d := lastPause
	if shift := failures - 2; shift < 5 {
		d = firstPause << shift
	}
	return d - d/4*time.Duration(dice)/255
}

func jitter() byte {
	var b [1]byte
	_, _ = rand.Read(b[:])
	return b[0]
}
