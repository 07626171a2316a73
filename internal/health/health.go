// Package health holds what is wrong with a running program right now.
//
// A problem is a registered object: code, severity, text and next step are written once, where the problem can
// happen, and the same words are shown by `latchkey status`, the tray, the console and the metrics. It promises: a
// problem that was cleared is gone, one that persists keeps the moment it began, and reading the list never blocks the
// one who reports. Rows: O16, O17 (each broken state has its own text), P3.
//
// It knows nothing of metrics or HTTP: whoever serves those reads Current.
package health

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"latchkey/internal/text"
)

// Severity says who has to act, and when.
type Severity int

// The severities, from the mildest up. The numbers are not for the wire; String is.
const (
	Notice  Severity = iota // worth knowing; nobody has to act
	Warning                 // works now, will not if nobody acts
	Failure                 // something does not work
)

func (s Severity) String() string {
	switch s {
	case Notice:
		return "notice"
	case Warning:
		return "warning"
	case Failure:
		return "failure"
	default:
		return fmt.Sprintf("severity-%d", int(s))
	}
}

// MarshalText makes JSON carry the word.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText. An unknown word is a Failure: better too loud than silent.
func (s *Severity) UnmarshalText(b []byte) error {
	switch string(b) {
	case "notice":
		*s = Notice
	case "warning":
		*s = Warning
	default:
		*s = Failure
	}
	return nil
}

// Problem describes something that can be wrong. It is a constant of the program.
type Problem struct {
	Code     string   // stable, for machines: "link-down", "tpm-locked"; lower case, digits and hyphens
	Severity Severity // how bad it is
	Text     string   // one sentence: what is wrong
	Next     string   // one sentence: what to do about it
}

// State is a problem that is there now.
type State struct {
	Code     string    `json:"code"`
	Severity Severity  `json:"severity"`
	Text     string    `json:"text"`
	Next     string    `json:"next"`
	Detail   string    `json:"detail,omitempty"` // what was seen this time: a path, an error
	Since    time.Time `json:"since"`            // when it began
}

// Register holds the problems of one program.
type Register struct {
	now func() time.Time

	mu    sync.Mutex
	known map[string]*Item
}

// New makes an empty register; now tells the time (clock.Clock's Now).
func New(now func() time.Time) *Register {
	return &Register{now: now, known: map[string]*Item{}}
}

// Item is one registered problem, in the hands of the code that can notice it.
type Item struct {
	reg     *Register
	problem Problem

	// guarded by reg.mu
	present bool
	detail  string
	since   time.Time
}

// Define registers a problem, which is not there yet. Two problems with one code, a code of a wrong form, or one
// without text or next step are mistakes of the programmer and panic.
func (r *Register) Define(p Problem) *Item {
	switch {
	case p.Code == "" || strings.Trim(p.Code, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		panic(fmt.Sprintf("health: code %q is not lower case letters, digits and hyphens", p.Code))
	case p.Text == "" || p.Next == "":
		panic(fmt.Sprintf("health: %s needs a text and a next step", p.Code))
	case p.Severity < Notice || p.Severity > Failure:
		panic(fmt.Sprintf("health: %s has no severity", p.Code))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[p.Code] != nil {
		panic(fmt.Sprintf("health: %s is defined twice", p.Code))
	}
	it := &Item{reg: r, problem: p}
	r.known[p.Code] = it
	return it
}

// maxDetail bounds what an error of a library may add.
const maxDetail = 512

// Set says that the problem is there. detail says what was seen, without secrets; it may change while the problem
// lasts, the time at which it began does not.
func (it *Item) Set(detail string) {
	it.reg.mu.Lock()
	defer it.reg.mu.Unlock()
	it.detail = text.CleanN(detail, maxDetail)
	if !it.present {
		it.present, it.since = true, it.reg.now()
	}
}

// Clear says that the problem is gone.
func (it *Item) Clear() {
	it.reg.mu.Lock()
	defer it.reg.mu.Unlock()
	it.present, it.detail, it.since = false, "", time.Time{}
}

// Judge sets the problem with the error as detail, or clears it when there is none, and returns the error.
func (it *Item) Judge(err error) error {
	if err != nil {
		it.Set(err.Error())
	} else {
		it.Clear()
	}
	return err
}

// Current returns the problems that are there now, the worst first, then by age and code.
func (r *Register) Current() []State {
	r.mu.Lock()
	out := make([]State, 0, len(r.known))
	for _, it := range r.known {
		if it.present {
			p := it.problem
			out = append(out, State{p.Code, p.Severity, p.Text, p.Next, it.detail, it.since})
		}
	}
	r.mu.Unlock()
	slices.SortFunc(out, func(a, b State) int {
		if a.Severity != b.Severity {
			return int(b.Severity - a.Severity)
		}
		if d := a.Since.Compare(b.Since); d != 0 {
			return d
		}
		return strings.Compare(a.Code, b.Code)
	})
	return out
}

// Known returns every problem that was defined, by code: for documentation and for metrics that must show a zero.
func (r *Register) Known() []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Problem, 0, len(r.known))
	for _, it := range r.known {
		out = append(out, it.problem)
	}
	slices.SortFunc(out, func(a, b Problem) int { return strings.Compare(a.Code, b.Code) })
	return out
}

// OK tells whether nothing has failed: notices and warnings do not count.
func (r *Register) OK() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, it := range r.known {
		if it.present && it.problem.Severity == Failure {
			return false
		}
	}
	return true
}
