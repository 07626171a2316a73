// Package rest holds the bodies of the API under /api/v1: what programs and the
// command `latchkey` send to a server and get back. It is the vocabulary alone;
// what may be done, and by whom, stands in internal/server/desk.
//
// It promises: times are RFC 3339 in UTC and left out when there is none; ids
// carry a prefix that says what they name (usr_, grp_, pol_, mch_, evt_, …); a
// field that is left out of a change stays as it is; a secret in a body is a
// Secret, which neither prints nor goes into a log.
package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/secret"
)

// Base is the path of this version of the API.
const Base = "/api/v1"

// The prefixes of ids at the edge.
const (
	UserPrefix    = "usr_"
	GroupPrefix   = "grp_"
	PolicyPrefix  = "pol_"
	MachinePrefix = "mch_"
	TokenPrefix   = "tok_"
	FactorPrefix  = "fac_"
	WindowPrefix  = "win_"
	EventPrefix   = "evt_"

	APITokenPrefix = "apt_"
)

// MaxPage is the most that one page of a list holds; DefaultPage is what it
// holds when nobody asks.
const (
	MaxPage     = 500
	DefaultPage = 50
)

// Page is one page of a list.
type Page[T any] struct {
	Items []T    `json:"items" nullable:"false"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page; absent on the last"`
	// SearchedTo is set by lists of events that look for what no index serves.
	SearchedTo time.Time `json:"searched_to,omitzero" doc:"Looking ended here before the page was full, so as not to take long: next goes on from this time"`
}

// Problem is the body of every answer that is not 2xx (RFC 9457), of type
// application/problem+json.
type Problem struct {
	Type   string          `json:"type" doc:"urn:latchkey:fault: and the code"`
	Title  string          `json:"title" doc:"The HTTP status in words"`
	Status int             `json:"status"`
	Code   fault.Code      `json:"code" doc:"Stable name of the fault"`
	Detail string          `json:"detail" doc:"What happened, why, and what to do next"`
	Fields []fault.Field   `json:"fields,omitempty" doc:"Every field that is at fault"`
	About  json.RawMessage `json:"about,omitempty" doc:"What it is about, for programs: of shuts-out, a ShutOut"`
}

func (p *Problem) Error() string { return p.Detail }

// Secret is a password, code or key in a body: a text in JSON, hidden from logs
// and formats.
type Secret struct{ secret.Bytes }

// Hide wraps s.
func Hide(s secret.Bytes) Secret { return Secret{s} }

// HideText wraps a text.
func HideText(s string) Secret { return Secret{secret.FromString(s)} }

// Show is the content as text.
func (s Secret) Show() string { return string(s.Reveal()) }

// MarshalJSON writes the text: this type exists to cross the wire.
func (s Secret) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a URI is full of &
	if err := enc.Encode(string(s.Reveal())); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// UnmarshalJSON reads a text.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("must be text")
	}
	s.Bytes = secret.FromString(text)
	return nil
}

// UnmarshalText reads the text as it is; it also tells the API's description
// that this is a text.
func (s *Secret) UnmarshalText(b []byte) error {
	s.Bytes = secret.New(append([]byte(nil), b...))
	return nil
}

// MarshalText always fails, so that a Secret is never a map key or XML.
func (s Secret) MarshalText() ([]byte, error) { return nil, secret.ErrMarshal }

// IsZero lets omitzero leave out empty secrets.
func (s Secret) IsZero() bool { return s.Empty() }

// LogValue hides the content.
func (s Secret) LogValue() slog.Value { return s.Bytes.LogValue() }

// Time is the unix microseconds us as a time; the zero time for 0.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
