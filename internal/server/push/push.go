// Package push is the server's side of Latchkey Authenticator: the phones of people,
// what they are asked, and what their answers are worth.
//
// It promises:
//
//   - An answer counts for the one request that it signs: its signature covers the
//     exact content that was served, the request's id, the decision, the number and a
//     nonce. What was altered, sent twice, sent late or sent by a phone of somebody
//     else changes nothing, and is an event.
//   - To approve, the number must be typed that stands at the sign-in. A wrong one
//     denies the request: there is one guess.
//   - There is one open request for a user and machine, three for a user, and behind a
//     few that came to nothing there is a pause: nobody is worn out with requests
//     (S12). A machine that has not let the user in lately can neither use up what the
//     user's own machines may ask nor ring the phones of everybody. "It wasn't me" locks the user's push until the help desk unlocks it,
//     also when whoever asked has withdrawn the request meanwhile.
//   - An approval is spent by the sign-in that asked, once, within the transaction that
//     stores what came of it.
//   - What goes to a push service says "look", and neither who nor where. It goes to
//     names of the public internet alone, over HTTPS, without following redirects.
//   - Whoever waits hears of an answer as soon as it is on the disk, on any replica.
//
// Where a policy wants it, an approval also holds an assertion of the phone's own
// authenticator (WebAuthn, user verified) over the same message.
//
// Rows: S2, S12, M3, M7.
package push

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/store"
)

// Deps is what the service stands on. All fields but those that say so are required.
type Deps struct {
	Store  *store.Store
	Box    *seal.Box
	Pepper secret.Bytes // HMAC key of the numbers
	Random io.Reader
	Clock  clock.Clock
	Log    *slog.Logger // may be nil
	// PeopleURL is https://HOST[:PORT] of the people's door where the settings name
	// none; may be nil.
	PeopleURL func() string
	// Life is how long a request may be answered; 0 means Life.
	Life time.Duration
	// Delivery bounds where notices go where the settings name nothing; the zero value
	// reaches public names alone.
	Delivery Delivery
}

// The numbers.
const (
	// Life is how long a request may be answered.
	Life = time.Minute
	// reportFor is how long "it wasn't me" can be said to a request that nobody answered.
	reportFor = 15 * time.Minute
	// gap is how long nobody is asked at a people's door where gapAfter requests were
	// withdrawn within gapIn: whoever asks and withdraws over and over rings phones whose
	// owners find nothing.
	gap, gapAfter, gapIn = 15 * time.Second, 2, time.Minute
	// claimed is how long an approval waits for the sign-in to look at it.
	claimed = time.Minute
	// maxOpen bounds the open requests of one user, at all machines.
	maxOpen = 3
	// fewIn and fewFor bound the requests that came to nothing, against fatigue; so do
	// manyIn and manyFor over a day.
	fewIn, fewFor   = 5, 10 * time.Minute
	manyIn, manyFor = 25, 24 * time.Hour
	// fewNew and manyNew are the part of these that one machine gets which has not let
	// the user in lately, and fewUnproven and manyUnproven that of one which alone says
	// that the first factor was given.
	fewNew, manyNew           = 4, 10
	fewUnproven, manyUnproven = 2, 5
	// machineIn and machineFor bound what one machine asks of all people who are new
	// there.
	machineIn, machineFor = 20, time.Hour
	// keep is how long requests lie in the table: the figures above are counted there. One
	// that is as far ahead is of a clock that was.
	keep = 48 * time.Hour
	// lowest and highest are the numbers that are shown.
	lowest, highest = 10, 99
)

// States of a request.
const (
	StateOpen      = "open"
	StateApproved  = "approved"
	StateDenied    = "denied"
	StateReported  = "reported"
	StateExpired   = "expired"
	StateWithdrawn = "withdrawn"
)

// Service is all of it. It is safe for concurrent use.
type Service struct {
	Deps
	vapidOnce sync.Mutex
	vapid     *vapid
	outletMu  sync.Mutex
	out       *outlet
	looks     chan struct{} // of those who begin to wait
}

// New makes a service. Run delivers, until it ends.
func New(d Deps) *Service {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Life == 0 {
		d.Life = Life
	}
	return &Service{Deps: d, looks: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)))}
}

func (s *Service) now() int64 { return clock.Micros(s.Clock.Now()) }

// ahead tells whether what began at a time is of one that has not come: the clock was put
// back since. It counts no more, so that nothing lasts longer by that.
func ahead(at, now int64) bool { return now < at-time.Minute.Microseconds() }

// What is woken. The store carries the words to all replicas; none holds a comma.
const (
	wakeOutbox = "push:outbox"
	wakeUser   = "push:user:"
)

func ticketKey(ticket string) string {
	h := sha256.Sum256([]byte(ticket))
	return "push:ticket:" + hex.EncodeToString(h[:16])
}

// UserKey is what the store wakes when the user's requests have changed.
func UserKey(userID string) string { return wakeUser + userID }

// numberHash is what is stored of the number. There are ninety: the key is what keeps
// the number from whoever reads the table.
func (s *Service) numberHash(requestID, number string) []byte {
	h := hmac.New(sha256.New, s.Pepper.Reveal())
	fmt.Fprintf(h, "latchkey/push-number/1\x00%s\x00%s", requestID, number)
	return h.Sum(nil)
}

// number draws one of two digits.
func (s *Service) number() (string, error) {
	for {
		var b [1]byte
		if _, err := io.ReadFull(s.Random, b[:]); err != nil {
			return "", fmt.Errorf("draw a number: %w", err)
		}
		if n := highest - lowest + 1; int(b[0]) < 256/n*n {
			return fmt.Sprint(lowest + int(b[0])%n), nil
		}
	}
}

func (s *Service) random(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s.Random, b); err != nil {
		return nil, fmt.Errorf("random: %w", err)
	}
	return b, nil
}

// Refusal is why a phone was refused. Its code is for the app, and stable; the message
// is for people.
type Refusal struct {
	Status  int
	Code    string
	Message string
	cause   error
}

func (r *Refusal) Error() string {
	if r.cause != nil {
		return r.Code + ": " + r.cause.Error()
	}
	return r.Code + ": " + r.Message
}

// Unwrap gives the private cause.
func (r *Refusal) Unwrap() error { return r.cause }

func refuse(status int, code, message string) *Refusal {
	return &Refusal{Status: status, Code: code, Message: message}
}

func (r *Refusal) because(err error) *Refusal { r.cause = err; return r }

// The refusals of the door. Each call makes its own, because a cause may be added.
func errGone() *Refusal {
	return refuse(410, "gone", "This phone is no longer enrolled. Remove the account here and enrol again in the portal.")
}

func errDisabled() *Refusal {
	return refuse(403, "disabled", "Your account is disabled. Ask the help desk.")
}

func errNoRequest() *Refusal { return refuse(404, "not-found", "There is no such request.") }

func errLocked() *Refusal {
	return refuse(403, "locked", "Requests to your phones are locked, because one was reported. Ask the help desk to unlock them.")
}

// errTooMany is told at the sign-in.
func errTooMany(text string) error { return fault.Newf(fault.TooMany, "%s", text) }

func ended(ctx context.Context) bool { return ctx.Err() != nil }
