// Package factor is the server's side of second factors: what a plug-in per kind
// must be able to do, and the form in which seeds and codes lie in the tables.
//
// It promises: a code is accepted at most once, because accepting spends it in the
// caller's transaction and a row that was spent meanwhile is a rejection; which row
// of several matched can not be told from the time it took; what can be tried out
// (codes) is stored under a keyed hash, what must be read again (seeds, and codes
// that machines hold tags of) is sealed; and a new or removed authenticator raises
// the user's generation and tells the machines.
//
// The kinds are plug-ins in the folders below. They register themselves and
// cmd/latchkeyd chooses them by importing them; nobody else names them.
//
// Rows: S2, S10 (a code once), M1 (TOTP), M5 (backup codes), E1 (enrolment), E3
// (bypass codes).
package factor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// Reasons of rejections, stored with the event.
const (
	ReasonWrong        = "wrong-code"
	ReasonReplayed     = "totp-replayed"
	ReasonBackupUsed   = "backup-used"
	ReasonWrongScope   = "bypass-other-scope"
	ReasonNothingThere = "not-enrolled"
	ReasonDenied       = "push-denied"       // the person said no
	ReasonReported     = "push-reported"     // the person said that it was somebody else (S12)
	ReasonWrongNumber  = "push-wrong-number" // the number typed on the phone was another
	ReasonExpired      = "nobody-answered"   // nobody answered in time
	ReasonMachine      = "machine-limit"     // too much of what the machine had sent came to nothing
)

// Try is one answer to be judged.
type Try struct {
	User    db.User
	Machine string // id
	Scope   policy.Scope
	Typed   secret.Bytes
	Now     time.Time
	// Ticket is what Sender.Send was given: an answer counts for that alone, and at the
	// door where it was asked for.
	Ticket string
	Door   Door
}

// Ask is a kind that a person has chosen, where something must happen before it can
// be answered.
type Ask struct {
	User db.User
	// Ticket names the conversation, sign-in or step-up that asks. It is no secret.
	Ticket  string
	Door    Door
	Machine string // id, at a machine
	Name    string // of the machine, or of the door, for people
	Scope   policy.Scope
	Service string
	Address string // from where: the peer that sshd or the browser's door saw; may be empty
	Program bool   // at the browser's door: the command line asks
	// Unproven: nobody but the machine says that the first factor was given, and the
	// person has never been seen there. Little is sent then.
	Unproven bool
	Now      time.Time
}

// Door says where a factor is asked for.
type Door string

// The doors.
const (
	AtMachine Door = "machine"
	AtPortal  Door = "portal"  // a sign-in of a browser or of the command line
	AtStepUp  Door = "step-up" // a session proves anew who sits there
)

// Sent is what came of an Ask.
type Sent struct {
	Prompt  string          // in place of Factor.Prompt; empty: that
	Tell    string          // for people, before the prompt; may be empty
	Number  string          // to be matched on the phone; empty: none
	Expires time.Time       // after which no answer counts
	Data    map[string]any  // for the event; nothing secret
	Public  json.RawMessage // what a program at the other end needs, such as a challenge; may be nil
}

// Outcome is what became of a Try. The set is closed: a switch over it has an arm for
// each, and a default arm that denies.
type Outcome int

// The outcomes.
const (
	Rejected Outcome = iota // not right: an attempt, behind which another may be made
	Accepted                // right, and spent by that
	Waiting                 // of a Waiter: nobody has answered yet; no attempt
	Over                    // of a Waiter: nobody will answer any more; no attempt, and something else may be chosen
	Ended                   // not to go on: the user has said so, or a copy was found; an attempt
)

func (o Outcome) String() string {
	switch o {
	case Rejected:
		return "rejected"
	case Accepted:
		return "accepted"
	case Waiting:
		return "waiting"
	case Over:
		return "over"
	case Ended:
		return "ended"
	}
	return fmt.Sprintf("outcome %d", int(o))
}

// Verdict is an Outcome and what belongs to it. The zero value is a rejection.
type Verdict struct {
	Outcome Outcome
	Reason  string         // why it was not accepted
	Text    string         // for people, where it was not accepted
	Tell    string         // for people, with an acceptance; may be empty
	ID      string         // of the authenticator or code
	Spent   *wire.Spent    // what the machine must write down before it answers
	Own     bool           // something the user holds, not an administrator's word: opens windows and offline data
	Data    map[string]any // for the event; nothing secret
}

// OK tells whether the factor was given.
func (v Verdict) OK() bool { return v.Outcome == Accepted }

// Factor judges one kind. Judge runs in the transaction in which the outcome is
// stored and changes something only when it accepts.
type Factor interface {
	Kind() policy.Factor
	// Option is how a menu names it, Prompt what is asked, and Echo whether the
	// answer may be seen.
	Option() string
	Prompt() string
	Echo() bool
	Judge(ctx context.Context, tx *store.Tx, t Try) (Verdict, error)
}

// Sender is a Factor for which something must go out before the person can answer: a
// mail, a request to a phone, a challenge to a key.
type Sender interface {
	Factor
	// Send runs in the transaction that stores the prompt, and binds what it makes to
	// Ask.Ticket. A *fault.Fault of code TooMany or Unavailable is told to the person, who
	// gets back to the menu: the caller stores the transaction all the same, so that what
	// was written before, such as an event, stays. Any other error undoes it.
	Send(ctx context.Context, tx *store.Tx, a Ask) (Sent, error)
}

// Waiter is a Sender whose answer comes another way than through the prompt. Judge then
// looks at what has come for Try.Ticket, whatever was typed.
type Waiter interface {
	Sender
	// Wait returns when something about the ticket may have changed, or the context ends.
	// It holds no transaction and no lock. Judge tells what came.
	Wait(ctx context.Context, ticket string)
	// Withdraw ends what was sent for the ticket and has not been answered, because whoever
	// waited has given up or gives something else. It runs in the transaction that says so,
	// and where there is nothing it does nothing.
	Withdraw(ctx context.Context, tx *store.Tx, ticket string) error
}

// Enroller is a Factor that a person can set up within a sign-in (E1).
type Enroller interface {
	Factor
	// Begin makes what is to be enrolled: pending is secret and is kept, sealed, by
	// the caller; show is for the person.
	Begin(u db.User) (pending secret.Bytes, show []string, err error)
	// Confirm judges the first code. If it is right the authenticator exists from
	// now on and the code is spent.
	Confirm(ctx context.Context, tx *store.Tx, pending secret.Bytes, t Try) (Verdict, error)
}

// New makes a plug-in; each gets the same Keeper.
type New func(*Keeper) Factor

var (
	mu         sync.Mutex
	registered = map[policy.Factor]New{}
)

// Register makes a kind known. It is called by the plug-ins' init functions; a kind
// that is registered twice is a mistake of the program.
func Register(kind policy.Factor, plug New) {
	mu.Lock()
	defer mu.Unlock()
	if _, ok := registered[kind]; ok {
		panic(fmt.Sprintf("factor %s is registered twice", kind))
	}
	registered[kind] = plug
}

// Set holds the kinds of this program.
type Set struct {
	*Keeper
	kinds map[policy.Factor]Factor
}

// All makes a Set of everything that is registered, and of those that were made with
// more than a Keeper. One kind twice is a mistake of the program.
func All(k *Keeper, more ...Factor) *Set {
	mu.Lock()
	defer mu.Unlock()
	s := &Set{Keeper: k, kinds: map[policy.Factor]Factor{}}
	for kind, plug := range registered {
		s.kinds[kind] = plug(k)
	}
	for _, f := range more {
		if _, ok := s.kinds[f.Kind()]; ok {
			panic(fmt.Sprintf("factor %s is there twice", f.Kind()))
		}
		s.kinds[f.Kind()] = f
	}
	return s
}

// Get gives the plug-in of a kind.
func (s *Set) Get(kind policy.Factor) (Factor, bool) {
	f, ok := s.kinds[kind]
	return f, ok
}

// Known keeps the kinds that this program can judge, in the given order.
func (s *Set) Known(kinds []policy.Factor) []policy.Factor {
	return slices.DeleteFunc(slices.Clone(kinds), func(k policy.Factor) bool {
		_, ok := s.kinds[k]
		return !ok
	})
}
