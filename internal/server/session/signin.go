package session

import (
	"context"

	"latchkey/internal/fault"
	"latchkey/internal/secret"
)

// Attempt is a name and a password, typed at a browser or a program.
type Attempt struct {
	Name     string
	Password secret.Bytes
	Kind     string // Browser or CLI
	Address  string // of the peer
	Agent    string // what the browser calls itself
}

// Next is what a sign-in asks for.
type Next string

// What may be asked for next.
const (
	AskCode        Next = "code"         // a code of one of Pending.Kinds
	AskEnrolCode   Next = "enrol"        // the user has no factor: an enrolment code (E1)
	AskNewPassword Next = "new-password" // the password is due (S9)
)

// Pending is a sign-in that goes on. Its secret is in the browser's cookie.
type Pending struct {
	Next   Next
	Kinds  []string // TOTP, Backup: what the user may give
	Enrol  bool     // Next is AskEnrolCode
	Why    string   // with AskNewPassword: "must-change" or "expired"
	UserID string   // without prefix
	Name   string
}

// Opened is what a step of a sign-in came to: a session with its secret, or what is
// asked for next with the secret of the sign-in.
type Opened struct {
	Session *Session
	Pending *Pending
	Secret  Secret
}

// Begin judges a name and a password.
func (m *Sessions) Begin(ctx context.Context, a Attempt) (Opened, error) {
	return Opened{}, fault.New(fault.Unavailable, nil)
}

// Pending is the sign-in whose secret the browser holds; nil without an error if there
// is none, or its time is over.
func (m *Sessions) Pending(ctx context.Context, raw string) (*Pending, error) {
	return nil, nil
}

// Answer judges a code: kind is TOTP, Backup or Enrol.
func (m *Sessions) Answer(ctx context.Context, raw, kind string, code secret.Bytes, address string) (Opened, error) {
	return Opened{}, fault.New(fault.Unavailable, nil)
}

// NewPassword changes the password that is due, and goes on.
func (m *Sessions) NewPassword(ctx context.Context, raw string, password, again secret.Bytes, address string) (Opened, error) {
	return Opened{}, fault.New(fault.Unavailable, nil)
}

// StepUp judges a second factor again. The session has another secret from then on. A
// code of an authenticator (TOTP) is asked for; a session that does not open the
// console takes a backup code too.
func (m *Sessions) StepUp(ctx context.Context, s *Session, kind string, code secret.Bytes, address string) (Secret, error) {
	return Secret{}, fault.New(fault.Unavailable, nil)
}

// Enrolled makes a session that an enrolment code has opened a whole one, once the
// first authenticator stands. The session has another secret from then on.
func (m *Sessions) Enrolled(ctx context.Context, s *Session, address string) (Secret, error) {
	return Secret{}, fault.New(fault.Unavailable, nil)
}
