// Package secret holds values that must not be printed, logged or marshalled:
// passwords, one-time codes, seeds and keys. It promises that fmt, log/slog,
// encoding/json, encoding.TextMarshaler and gob never show the content; the only
// way to it is Reveal, so that a search for that name finds every use.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// ErrMarshal is returned by every attempt to marshal a secret.
var ErrMarshal = errors.New("a secret can not be marshalled")

const mask = "[secret]"

// Bytes is a secret byte string. The zero value is empty and usable. Copies
// share the same memory, so that Wipe on one wipes all.
type Bytes struct{ p *[]byte }

// New takes over b: the caller must not use b afterwards.
func New(b []byte) Bytes { return Bytes{&b} }

// FromString copies s. The string itself can not be wiped.
func FromString(s string) Bytes { return New([]byte(s)) }

// Reveal returns the content without copying it; it is nil for the zero value
// and after Wipe. The caller must not keep it longer than the secret.
func (b Bytes) Reveal() []byte {
	if b.p == nil {
		return nil
	}
	return *b.p
}

// Len is the number of octets.
func (b Bytes) Len() int { return len(b.Reveal()) }

// Empty tells whether there is no content.
func (b Bytes) Empty() bool { return b.Len() == 0 }

// Clone copies the content into memory of its own.
func (b Bytes) Clone() Bytes { return New(append([]byte(nil), b.Reveal()...)) }

// Equal compares in constant time for equal lengths.
func (b Bytes) Equal(o Bytes) bool { return subtle.ConstantTimeCompare(b.Reveal(), o.Reveal()) == 1 }

// Wipe overwrites the content with zeros and empties the secret and all its
// copies.
func (b Bytes) Wipe() {
	if b.p == nil {
		return
	}
	clear(*b.p)
	*b.p = nil
}

// String hides the content.
func (b Bytes) String() string { return mask }

// GoString hides the content from %#v.
func (b Bytes) GoString() string { return mask }

// Format hides the content from every verb of fmt.
func (b Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(mask)) }

// LogValue hides the content from log/slog.
func (b Bytes) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalJSON always fails with ErrMarshal.
func (b Bytes) MarshalJSON() ([]byte, error) { return nil, ErrMarshal }

// MarshalText always fails with ErrMarshal.
func (b Bytes) MarshalText() ([]byte, error) { return nil, ErrMarshal }

// GobEncode always fails with ErrMarshal.
func (b Bytes) GobEncode() ([]byte, error) { return nil, ErrMarshal }
