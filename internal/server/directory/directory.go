// Package directory is where first factors are judged: one small interface, and a
// plug-in per kind of directory in the folders below (row S1).
//
// It promises: a judge never says "accepted" by omission (the zero Outcome is a
// rejection), and does the same work for a user who does not exist as for one who
// does, so that the time does not tell (S5).
//
// The plug-ins register themselves and cmd/latchkeyd chooses them by importing
// them; nobody else names them. Every user belongs to the directory "local" until
// others exist.
package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/secret"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Outcome is what a directory says about a password.
type Outcome string

// The outcomes. The zero value is a rejection.
const (
	Rejected    Outcome = ""
	Accepted    Outcome = "accepted"
	MustChange  Outcome = "must-change" // right, and to be changed now (S9)
	Expired     Outcome = "expired"     // right, but too old: to be changed now (S9)
	Locked      Outcome = "locked"      // by the directory itself
	Disabled    Outcome = "disabled"    // by the directory itself
	Unavailable Outcome = "unavailable" // nothing was judged
)

// Proved tells whether the password was right.
func (o Outcome) Proved() bool { return o == Accepted || o == MustChange || o == Expired }

// MaxPassword is the length of a password in octets; longer ones are wrong.
const MaxPassword = 256

// Directory judges the passwords of its users.
type Directory interface {
	// Has tells whether the directory could accept any password of this user.
	Has(u db.User) bool
	// Busy tells that Verify would have to say Unavailable now.
	Busy() bool
	// Verify judges. A nil user, and one whom the directory does not let in, costs
	// the same time and is rejected.
	Verify(ctx context.Context, u *db.User, password secret.Bytes) Outcome
	// Due tells, for ways in that take no password, whether the user's is to be changed:
	// MustChange, Expired, or Accepted.
	Due(u db.User) Outcome
	// Propose judges a new password by the directory's rules and gives what may be
	// kept of it until it is typed again. What is wrong with it is a *Refusal.
	Propose(ctx context.Context, u db.User, password secret.Bytes) (proposal []byte, err error)
	// Same tells whether the password is the proposed one.
	Same(ctx context.Context, proposal []byte, again secret.Bytes) (bool, error)
	// Apply makes the proposed password the user's, in the transaction.
	Apply(ctx context.Context, tx *store.Tx, u db.User, proposal []byte, now time.Time) error
}

// Refusal says what is wrong with a new password, and what would be right.
type Refusal struct{ Text string }

func (r *Refusal) Error() string { return r.Text }

// ErrBusy says that nothing was judged because too many wait.
var ErrBusy = errors.New("too many passwords wait to be judged")

// Deps are what plug-ins stand on.
type Deps struct {
	Clock  clock.Clock
	Logger *slog.Logger
	// Settings are those of the plug-in, by its name; a missing one means defaults.
	Settings map[string]any
}

// New makes a plug-in.
type New func(Deps) (Directory, error)

var (
	mu         sync.Mutex
	registered = map[string]New{}
)

// Register makes a kind of directory known.
func Register(name string, plug New) {
	mu.Lock()
	defer mu.Unlock()
	if _, ok := registered[name]; ok {
		panic("directory " + name + " is registered twice")
	}
	registered[name] = plug
}

// Local is the name of the server's own directory.
const Local = "local"

// Set holds the directories of this program.
type Set struct{ by map[string]Directory }

// All makes a Set of everything that is registered. "local" must be.
func All(d Deps) (*Set, error) {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	mu.Lock()
	defer mu.Unlock()
	s := &Set{map[string]Directory{}}
	for name, plug := range registered {
		dir, err := plug(d)
		if err != nil {
			return nil, fmt.Errorf("directory %s: %w", name, err)
		}
		s.by[name] = dir
	}
	if s.by[Local] == nil {
		return nil, errors.New("this program has no directory of local users")
	}
	return s, nil
}

// Of is the directory of the user; nil stands for a user whom nobody knows.
func (s *Set) Of(*db.User) Directory { return s.by[Local] }
