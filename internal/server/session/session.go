// Package session knows who sits at a browser, and who holds an API token: it signs
// people in to the console and the portal, keeps their sessions, asks for the second
// factor again before what is dangerous, and lets a second owner approve what one
// alone may not do.
//
// It promises:
//
//   - A password and a code are judged by the same directory, the same factors and the
//     same counts as at a machine (S10): a code that was used there is refused here
//     and the other way round, and whoever must wait there waits here. A code is spent
//     in the transaction that opens the session.
//   - Count before judging: an attempt is on the disk as a failure before it is
//     compared. Before an accepted password every failure has one text and one time,
//     also for names that nobody has (S5), and each costs one hash.
//   - The console needs the password and a strong factor (a passkey, the phone's
//     approval, a code of an app), or a passkey that has verified who holds it. A backup
//     code, and a code by mail or SMS where somebody's policy accepts one, open the portal
//     alone, an enrolment code a session that can do nothing but enrol (E1), and a bypass
//     code nothing at all (E3).
//   - Of a session, a token and a sign-in under way the database holds a hash alone.
//     What may be done with them is judged at every request by the account as it is
//     then: who is disabled, demoted or has another password is so at once, on every
//     replica.
//   - An approval is given by a third person with a fresh second factor, for one action
//     on one account, and is used once.
//
// Rows: S2 (which factors, and the choice), S5, S9 (a password that is due), S10, E1, E3, M2 (without a password), M5, D1, V1.
package session

import (
	"context"
	"io"
	"log/slog"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
)

// How long things live.
const (
	Idle       = 30 * time.Minute // a session that nobody uses
	Absolute   = 12 * time.Hour   // a session, however much it is used
	FreshFor   = 5 * time.Minute  // a second factor, for what is dangerous
	SigninTime = 5 * time.Minute  // from the password to the end of a sign-in
	EnrolTime  = 30 * time.Minute // a session that an enrolment code has opened
	AskTime    = 15 * time.Minute // an approval: to be given, and then to be used
)

// The kinds of sessions.
const (
	Browser = "browser"
	CLI     = "cli"
)

// The factors with which a session may be opened; see Strong.
const (
	FIDO2  = string(policy.FIDO2)
	Push   = string(policy.Push)
	TOTP   = string(policy.TOTP)
	Backup = string(policy.Backup) // the portal alone, as are the next
	Mail   = string(policy.Mail)
	SMS    = string(policy.SMS)
	Enrol  = "enrol" // the enrolment of a first factor alone
)

// Session is somebody who has signed in. Role, Name, Display, Portal and Console are
// those of this request.
type Session struct {
	ID      string // without prefix
	UserID  string // without prefix
	Name    string
	Display string
	Role    string
	Kind    string // Browser or CLI
	Factor  string // FIDO2 … SMS, or Enrol
	// EnrolCode is the code that has opened a session of the factor Enrol: whoever makes
	// the first authenticator spends it (SpendEnrolCode) in the same transaction.
	EnrolCode string
	Began     time.Time
	Seen      time.Time
	Fresh     time.Time // when a second factor was given last; zero: none
	Ends      time.Time // at the latest
	Address   string
	Agent     string
	Portal    bool // opens the portal
	Console   bool // opens the console

	hash  []byte // of its secret
	fresh bool   // at this request
}

// Actor is who acts with the session.
func (s *Session) Actor(address string) desk.Actor {
	if s == nil {
		return desk.Actor{Address: address}
	}
	a := desk.Actor{Name: s.Name, Role: s.Role, UserID: s.UserID, Address: address, Session: s.ID, Fresh: s.fresh, Enrol: s.EnrolCode}
	if !s.Console {
		// The rights of a role belong to who may open the console; anybody else is there
		// for himself.
		a.Role = roleNone
	}
	return a
}

// IsFresh tells whether a second factor was given within FreshFor.
func (s *Session) IsFresh(now time.Time) bool {
	return s != nil && !s.Fresh.IsZero() && now.Sub(s.Fresh) < FreshFor && !now.Before(s.Fresh)
}

// Config is what sessions stand on. All fields but Passkeys, Certificates, PeopleURL, Logger and Grain are required.
type Config struct {
	Store       *store.Store
	Keys        *keys.Keys
	Directories *directory.Set
	Factors     *factor.Set
	Clock       clock.Clock
	Random      io.Reader
	// Passkeys judges who comes without a name; nil: nobody may.
	Passkeys Passkeys
	// Certificates tells whose client certificates are; nil: nobody signs in with one.
	Certificates Certificates
	// PeopleURL is the address of the people's door, where no setting says another; nil:
	// it is not known.
	PeopleURL func() string
	// SetupFile is where the code for the first owner is written; empty: nowhere.
	SetupFile string
	Logger    *slog.Logger
	// Grain is what the time of a refused password is rounded up to; 0 means half a
	// second, negative none.
	Grain time.Duration
	// LongestLook is how long a look waits for an answer that comes another way; 0 means
	// four seconds.
	LongestLook time.Duration
}

// Sessions keeps them. It has no state of its own but the limits of rates: any number
// of replicas may serve one session.
type Sessions struct {
	Config
	limits  limits
	denials *rate.Keyed // events about certificates that are refused
}

// New makes the keeper of sessions.
func New(c Config) *Sessions {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Grain == 0 {
		c.Grain = grain
	}
	if c.LongestLook == 0 {
		c.LongestLook = longestLook
	}
	return &Sessions{Config: c, limits: newLimits(c.Clock), denials: rate.New(rate.Rate{PerSecond: 1.0 / 60, Burst: 1}, c.Clock)}
}

// Secret is what a browser or program holds of a session, a sign-in or a token.
type Secret = secret.Bytes

type contextKey struct{}

// With puts the session into the context.
func With(ctx context.Context, s *Session) context.Context {
	return context.WithValue(ctx, contextKey{}, s)
}

// From is the session of the context; nil if nobody has signed in.
func From(ctx context.Context) *Session {
	s, _ := ctx.Value(contextKey{}).(*Session)
	return s
}

const grain = 500 * time.Millisecond
