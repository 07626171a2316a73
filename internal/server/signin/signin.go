// Package signin is the server's side of a sign-in conversation: it judges the first
// factor with the user's directory, asks policy.Decide, judges second factors, lets
// people change a password that is due and enrol a first factor, and writes down how
// it ended.
//
// It promises:
//
//   - Nothing is judged twice for one step. The step is claimed by a comparison on
//     the row's revision; a repeat of the same step gets the same reply, also when
//     the server died between commit and reply; the same step with another body
//     ends the conversation (S10).
//   - Count before judging. A password or code is written down as a failure, on the
//     disk, before it is compared; a right one takes its count back. Who must wait is
//     not judged at all.
//   - A code is spent in the transaction that stores what came of it: of two
//     sign-ins with one code, on any replica, one wins.
//   - Before an accepted first factor every failure has one text and one answer time:
//     the name is not looked up before a password is there, each costs one hash, also
//     for names that nobody has, and the time is rounded up (S5).
//   - Every conversation ends with exactly one event: allowed, denied, left to the
//     machine, or abandoned. The default arm denies and says so.
//   - Neither a password nor a code is stored or logged; of a new password a hash is
//     kept, sealed, until it is typed again. The hash of a step's body is keyed.
//
// What counts together: wrong passwords and wrong codes of one (user, machine) share
// one count, because whoever tries one may try the other.
//
// A bypass code (E3) stands in for the second factor of one sign-in. It is not
// something the user holds: it opens no window and no way to offline data, and
// Done.MFA is false.
//
// What is answered another way than through the prompt is looked for: the machine
// hangs on Wait, which holds neither a transaction nor the conversation, and takes a
// step with an empty answer when it returns. Such a look is no attempt.
//
// Rows: S1, S2, S3-S6, S9-S12, W1, W5-W7 (the record), D1, E1, E3, P1, M1, M5-M7.
package signin

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/occasion"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// Deps is what the sign-in stands on. All fields but Logger and Lifetime are
// required.
type Deps struct {
	Store       *store.Store
	Keys        *keys.Keys
	Directories *directory.Set
	Factors     *factor.Set
	Clock       clock.Clock
	Logger      *slog.Logger
	// Lifetime of a conversation; 0 means 50 s, because login gives up after 60.
	Lifetime time.Duration
	// Grain is what the time of a denial before an accepted first factor is rounded
	// up to; 0 means half a second, so that a machine that rounds to whole ones still
	// answers in one. Negative means none.
	Grain time.Duration
}

const (
	lifetime = 50 * time.Second
	grain    = 500 * time.Millisecond
	// enrolTime is what scanning a QR code gets on top.
	enrolTime = 2 * time.Minute
	// answerTime is what is left behind the last moment of an answer, for another way
	// where nobody has answered.
	answerTime = 45 * time.Second
	// patience is how long a repeated step waits for the reply of the first before it
	// takes the judging over: whoever had it is gone.
	patience = 4 * time.Second
	// maxOpen bounds the conversations that one machine may have open.
	maxOpen = 256
	// kept is how long ended conversations answer repeats.
	kept = 24 * time.Hour

	maxWrong    = 3 // codes of one conversation
	maxMistakes = 5 // blanks, no choices, refused passwords
)

// Service holds conversations. It has no state of its own: any number of replicas
// may serve the steps of one conversation.
type Service struct {
	Deps
	patience time.Duration
}

// New makes the service.
func New(d Deps) *Service {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Lifetime == 0 {
		d.Lifetime = lifetime
	}
	if d.Grain == 0 {
		d.Grain = grain
	}
	return &Service{d, patience}
}

// Step takes one step of a conversation of the machine, which the caller has
// authenticated; addr is the address of its connection and body is the request as it
// came, a wire.Step. The error is a *fault.Fault. After a fault of code unavailable
// nothing was judged or stored and the same step may be sent again.
func (s *Service) Step(ctx context.Context, m db.Machine, addr netip.Addr, id string, seq int64, body []byte) (wire.StepReply, error) {
	begun := clock.Real.Now()
	r, err := s.step(ctx, m, addr, id, seq, body)
	if d := r.Done; err == nil && d != nil && d.Outcome == policy.Deny && d.Text == text.DeniedFirst {
		s.roundUp(ctx, clock.Real.Now().Sub(begun))
	}
	return r, err
}

// roundUp waits until a multiple of the grain, and at least one grain, is full. What is
// found out about a name that nobody has, or that is disabled or locked out, differs by
// some queries and one write, and a machine that was taken over could time them. A
// repeated step waits as long as any: else repeats that come staggered would tell when
// the first was decided. It waits in real time: it hides what was real work.
func (s *Service) roundUp(ctx context.Context, past time.Duration) {
	if s.Grain > 0 {
		_ = clock.Real.Sleep(ctx, s.Grain-max(0, past)%s.Grain)
	}
}

func (s *Service) step(ctx context.Context, m db.Machine, addr netip.Addr, id string, seq int64, body []byte) (wire.StepReply, error) {
	var step wire.Step
	if err := strict(body, &step); err != nil {
		return wire.StepReply{}, fault.New(fault.BadRequest, nil) // the cause could repeat a secret
	}
	defer wipe(step)
	if err := wellFormed(id, seq, step); err != nil {
		return wire.StepReply{}, err
	}
	hash := s.bodyHash(m.ID, id, seq, body)
	var takeOver bool
	for waited := time.Duration(0); ; waited += pollEvery {
		var x *turn
		err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			x = &turn{s: s, tx: tx, m: m, addr: addr, id: id, seq: seq, hash: hash, step: step, now: s.Clock.Now(), takeOver: takeOver}
			return x.begin(ctx)
		})
		switch {
		case store.IsDuplicate(err): // the same beginning twice at once: the other one has it
		case err != nil:
			return wire.StepReply{}, s.fault(ctx, err)
		case x.fault != nil:
			failpoint.Hit("signin.replayed")
			return wire.StepReply{}, x.fault
		case x.settled:
			failpoint.Hit("signin.settled")
			return x.reply, nil
		case x.mine:
			failpoint.Hit("signin.claimed")
			return s.judge(ctx, x)
		}
		// Somebody else is judging this very step.
		if waited >= s.patience {
			takeOver = true
		}
		// Real time: this waits for another goroutine or replica, not for a date.
		if err := clock.Real.Sleep(ctx, pollEvery); err != nil {
			return wire.StepReply{}, fault.New(fault.Unavailable, err)
		}
	}
}

func wipe(step wire.Step) {
	if step.Begin != nil {
		step.Begin.Password.Wipe()
	}
	if step.Answer != nil {
		step.Answer.Text.Wipe()
	}
}

const pollEvery = 50 * time.Millisecond

// judge does the slow part of a claimed step outside of the transaction and stores
// what came of it. The caller's connection may be gone by then: the outcome counts
// all the same.
func (s *Service) judge(ctx context.Context, claimed *turn) (wire.StepReply, error) {
	ctx = context.WithoutCancel(ctx)
	var result verdict
	if claimed.work != nil {
		result = claimed.work(ctx)
		failpoint.Hit("signin.worked")
	}
	var x *turn
	err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		x = &turn{
			s: s, tx: tx, m: claimed.m, addr: claimed.addr, id: claimed.id, seq: claimed.seq, hash: claimed.hash, step: claimed.step,
			now: s.Clock.Now(), counted: claimed.counted, block: claimed.block, verdict: result, talk: claimed.talk, at: claimed.at,
		}
		claimed.talk = nil // good for one try: the next reads it anew
		err := x.finish(ctx, claimed.row.Rev)
		failpoint.Hit("signin.judged")
		return err
	})
	if err != nil {
		return wire.StepReply{}, s.fault(ctx, err)
	}
	failpoint.Hit("signin.stored")
	if x.fault != nil {
		return wire.StepReply{}, x.fault
	}
	return x.reply, nil
}

func (s *Service) fault(ctx context.Context, err error) *fault.Fault {
	f := fault.Of(err)
	switch {
	case store.IsUnavailable(err) || errors.Is(err, context.Canceled):
		return fault.New(fault.Unavailable, err)
	case f.Code == fault.Internal:
		s.Logger.ErrorContext(ctx, "a sign-in could not be judged", "error", err)
	}
	return f
}

// bodyHash tells repeats from forgeries. It is keyed, because the body may hold a
// password that could else be guessed from a stolen database.
func (s *Service) bodyHash(machineID, id string, seq int64, body []byte) []byte {
	h := hmac.New(sha256.New, s.Keys.Pepper.Reveal())
	for _, p := range [][]byte{[]byte("latchkey/step/1"), []byte(machineID), []byte(id), body} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	_ = binary.Write(h, binary.BigEndian, seq)
	return h.Sum(nil)
}

// The bounds of what a machine tells.
const (
	maxSeq     = 1000
	maxLine    = 256
	maxAliases = 16
	maxAnswer  = 4096
	maxCan     = 8
)

// wellFormed refuses what no agent sends, before anything is stored.
func wellFormed(id string, seq int64, step wire.Step) error {
	u, err := uuid.Parse(id)
	if err != nil || u.String() != id || u.Version() != 7 {
		return fault.Newf(fault.BadRequest, "The id of a conversation is a UUID of version 7 in its usual form.")
	}
	set := 0
	for _, is := range []bool{step.Begin != nil, step.Answer != nil, step.Cancel} {
		if is {
			set++
		}
	}
	switch {
	case seq < 1 || seq > maxSeq:
		return fault.Newf(fault.BadRequest, "A step has a number from 1 to %d.", maxSeq)
	case set != 1:
		return fault.Newf(fault.BadRequest, "A step is exactly one of begin, answer and cancel.")
	case (step.Begin != nil) != (seq == 1):
		return fault.Newf(fault.BadRequest, "A conversation begins with step 1, and no other step begins it.")
	case step.Answer != nil && step.Answer.Text.Len() > maxAnswer:
		return fault.Newf(fault.BadRequest, "An answer has at most %d octets.", maxAnswer)
	}
	if b := step.Begin; b != nil {
		return wellFormedBegin(*b)
	}
	return nil
}

func wellFormedBegin(b wire.Begin) error {
	f := fault.New(fault.BadRequest, nil)
	one := func(field, v string, allowed ...string) {
		if !slices.Contains(allowed, v) {
			f.With(field, "%q is not allowed; allowed are %q", text.CleanN(v, 64), allowed)
		}
	}
	one("purpose", b.Purpose, wire.PurposeSignin, wire.PurposePassword)
	one("mode", b.Mode, modeFull, modeSecond)
	one("first", string(b.First), "", firstNone, string(policy.FirstMachine), string(policy.FirstSSHKey))
	one("scope", string(b.Scope), string(policy.Logon), string(policy.Elevation), string(policy.Remote))
	if b.Password.Len() > maxAnswer {
		f.With("password", "longer than %d octets", maxAnswer)
	}
	if len(b.Aliases) > maxAliases {
		f.With("aliases", "%d entries; allowed are at most %d", len(b.Aliases), maxAliases)
	}
	if len(b.Can) > maxCan {
		f.With("can", "%d entries; allowed are at most %d", len(b.Can), maxCan)
	}
	if b.Unlock && b.Purpose != wire.PurposeSignin {
		f.With("unlock", "only a sign-in can be an unlock")
	}
	if len(f.Fields) > 0 {
		return f
	}
	return nil
}

const (
	modeFull   = "full"
	modeSecond = "second"
	firstNone  = "none"
)

// newOpening keeps of a beginning what may be stored: cleaned and bounded. A name
// that has to be cut is nobody's.
func newOpening(b wire.Begin, addr netip.Addr) opening {
	o := opening{
		Purpose: b.Purpose, User: text.CleanN(b.User, maxLine), Target: text.CleanN(b.Target, maxLine), UID: b.UID, Scope: b.Scope,
		Service: text.CleanN(b.Service, 64), TTY: text.CleanN(b.TTY, 64), RHost: text.CleanN(b.RHost, maxLine), RemoteSeat: b.RemoteSeat,
		Mode: b.Mode, First: b.First, Boot: text.CleanN(b.Boot, 128), Unlock: b.Unlock, MachineAddr: addr.Unmap(),
	}
	if o.First == firstNone {
		o.First = policy.FirstNone
	}
	if o.User != b.User {
		// What was cleaned away makes it another name (S6): a mark that no name has.
		o.User = text.CleanN(o.User, maxLine-4) + " (?)"
	}
	// What this server does not know, it does not ask for.
	for _, k := range []string{wire.PromptWait, wire.PromptKey} {
		if slices.Contains(b.Can, k) {
			o.Can = append(o.Can, k)
		}
	}
	for _, a := range b.Aliases {
		o.Aliases = append(o.Aliases, text.CleanN(a, maxLine))
	}
	return o
}

// Expire ends the conversations whose time is over, each with its event, and forgets
// those that nobody will ask about again. It is a job for any replica at any time.
func (s *Service) Expire(ctx context.Context) (ended int, err error) {
	const batch = 100
	for {
		n := 0
		err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			now := s.Clock.Now()
			rows, err := tx.ListOverdueConversations(ctx, db.ListOverdueConversationsParams{Before: clock.Micros(now), N: batch})
			if err != nil {
				return fmt.Errorf("overdue conversations: %w", err)
			}
			n = 0
			for _, r := range rows {
				m, err := tx.GetMachine(ctx, r.MachineID)
				if err != nil {
					return fmt.Errorf("machine of a conversation: %w", err)
				}
				x := &turn{s: s, tx: tx, m: m, id: r.ID, row: r, seq: r.Seq, hash: r.BodyHash, now: now}
				done, err := x.giveUp(ctx, "timed-out")
				if err != nil {
					return err
				}
				if done {
					n++
				}
			}
			return nil
		})
		if err != nil {
			return ended, err
		}
		ended += n
		if n > 0 {
			failpoint.Hit("signin.expired")
		}
		if n < batch {
			break
		}
	}
	return ended, s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := s.Clock.Now()
		if _, err := tx.DeleteExpiredConversations(ctx, clock.Micros(now.Add(-kept))); err != nil {
			return fmt.Errorf("forget conversations: %w", err)
		}
		_, err := tx.DeleteOldAttempts(ctx, db.DeleteOldAttemptsParams{Before: clock.Micros(now.Add(-kept)), At: clock.Micros(now)})
		if err != nil {
			return fmt.Errorf("forget attempts: %w", err)
		}
		return nil
	})
}

// Occasion ends the windows that a policy ends on what the machine reports (W6). A
// user whom the server does not know is nobody's window.
func (s *Service) Occasion(ctx context.Context, m db.Machine, o wire.Occasion) error {
	if !occasion.Valid(o.Kind) {
		return fault.New(fault.BadRequest, nil).With("kind", "%q is not an occasion", text.CleanN(string(o.Kind), 64))
	}
	err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		w := occasion.What{Kind: o.Kind, Boot: m.Boot}
		if o.User != "" {
			u, _, err := facts.Resolve(ctx, tx.Queries, facts.Name{User: o.User})
			if err != nil || u == nil {
				return err
			}
			w.UserID = u.ID
		}
		_, err := occasion.Report(ctx, tx, m, w, s.Clock.Now())
		return err
	})
	if err != nil {
		return s.fault(ctx, err)
	}
	return nil
}
