package signin

import (
	"context"
	"crypto/hmac"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file takes a step: it claims the step, or answers it from what is stored, and stores
// what came of it.

// turn is one step on its way through one transaction.
type turn struct {
	s        *Service
	tx       *store.Tx
	m        db.Machine
	addr     netip.Addr
	id       string
	seq      int64
	hash     []byte
	step     wire.Step
	now      time.Time
	takeOver bool

	row  db.Conversation
	talk *talk
	at   stage

	// What begin leaves behind: either a fault or a reply, or the step is ours to
	// judge, or none of these: somebody else is judging it.
	fault   *fault.Fault
	settled bool
	mine    bool

	work    func(context.Context) verdict // slow; outside of the transaction
	counted *attempts.Counted
	block   attempts.Block // why nothing was counted and nothing may be judged
	verdict verdict
	// tellWait: the machine has accepted the first factor, so a pause may be told.
	tellWait bool

	reply wire.StepReply
	noted string // id of the last event that was written
}

// verdict is what the slow part found.
type verdict struct {
	password directory.Outcome
	proposal []byte
	same     bool
	refusal  string // of a new password, for people
	err      error
}

// begin claims the step, or answers it from what is stored.
func (x *turn) begin(ctx context.Context) error {
	row, err := x.tx.GetConversation(ctx, x.id)
	switch {
	case errors.Is(err, sql.ErrNoRows) && x.step.Begin != nil:
		if err := x.open(ctx); err != nil {
			return err
		}
	case errors.Is(err, sql.ErrNoRows):
		return fault.Newf(fault.NotFound, "There is no such conversation. Begin again.")
	case err != nil:
		return fmt.Errorf("conversation: %w", err)
	default:
		x.row = row
		if claimed, err := x.claim(ctx); err != nil || !claimed {
			return err
		}
	}
	x.mine = true
	return x.prepare(ctx)
}

// open writes a new conversation down, before anything about it is looked at.
func (x *turn) open(ctx context.Context) error {
	n, err := x.tx.CountOpenConversations(ctx, db.CountOpenConversationsParams{
		MachineID: x.m.ID, Since: clock.Micros(x.now.Add(-x.s.Lifetime - enrolTime)),
	})
	if err != nil {
		return fmt.Errorf("open conversations: %w", err)
	}
	if n >= maxOpen {
		return fault.Newf(fault.TooMany, "This machine has %d sign-ins open. Wait a little.", n)
	}
	x.talk, x.at = &talk{Opening: newOpening(*x.step.Begin, x.addr)}, judging{}
	o := x.talk.Opening
	data, err := x.sealed(x.talk, x.at)
	if err != nil {
		return err
	}
	x.row = db.Conversation{
		ID: x.id, MachineID: x.m.ID, Rev: 1, Seq: x.seq, BodyHash: x.hash, Stage: x.at.name(), Data: data,
		CreatedAt: clock.Micros(x.now), ExpiresAt: clock.Micros(x.now.Add(x.s.Lifetime)),
	}
	err = x.tx.InsertConversation(ctx, db.InsertConversationParams{
		ID: x.row.ID, MachineID: x.row.MachineID, UserName: o.User, Scope: string(o.Scope), Service: o.Service, Tty: o.TTY, Rhost: o.RHost,
		Stage: x.row.Stage, Data: data, Seq: x.row.Seq, BodyHash: x.row.BodyHash, CreatedAt: x.row.CreatedAt, ExpiresAt: x.row.ExpiresAt,
	})
	if err != nil {
		return fmt.Errorf("open a conversation: %w", err)
	}
	return nil
}

// claim makes the step this turn's own, or answers it.
func (x *turn) claim(ctx context.Context) (bool, error) {
	r := x.row
	again := x.seq == r.Seq && hmac.Equal(x.hash, r.BodyHash)
	switch {
	case r.MachineID != x.m.ID:
		return false, fault.Newf(fault.NotFound, "There is no such conversation. Begin again.")
	case again && r.Reply != nil:
		return false, x.repeat()
	case again && r.Outcome != facts.Open:
		return false, fault.New(fault.Expired, nil)
	case again && !x.takeOver:
		return false, nil
	case again:
	case x.seq == r.Seq:
		return false, x.replayed(ctx)
	case r.Outcome != facts.Open:
		return false, fault.Newf(fault.Conflict, "This sign-in has ended. Begin again.")
	case x.seq != r.Seq+1:
		return false, fault.Newf(fault.Conflict, "Step %d can not follow step %d. Begin again.", x.seq, r.Seq)
	case r.Reply == nil:
		return false, fault.Newf(fault.Conflict, "Step %d is still being judged.", r.Seq)
	}
	if x.now.After(clock.FromMicros(r.ExpiresAt)) {
		_, err := x.giveUp(ctx, "timed-out")
		x.fault = fault.New(fault.Expired, nil)
		return false, err
	}
	n, err := x.tx.ClaimConversation(ctx, db.ClaimConversationParams{ID: r.ID, Rev: r.Rev, Seq: x.seq, BodyHash: x.hash})
	if err != nil {
		return false, fmt.Errorf("claim a step: %w", err)
	}
	if n == 0 {
		return false, nil
	}
	x.row.Rev++
	x.row.Seq, x.row.BodyHash, x.row.Reply = x.seq, x.hash, nil
	return true, x.load()
}

// load opens the state. What can not be read is no stage at all, which is denied.
func (x *turn) load() error {
	var err error
	x.talk, x.at, err = x.opened()
	if err != nil {
		if x.row.Outcome == facts.Open { // of one that has ended nothing is kept
			x.s.Logger.Error("the state of a conversation can not be read", "conversation", x.id, "error", err)
		}
		x.talk, x.at = &talk{Opening: opening{
			User: x.row.UserName, Scope: policy.Scope(x.row.Scope), Service: x.row.Service, TTY: x.row.Tty, RHost: x.row.Rhost,
		}, UserID: x.row.UserID}, nil
	}
	return nil
}

func (x *turn) opened() (*talk, stage, error) {
	b, err := x.s.Keys.Box.Open(x.row.Data, "conversations", "data", x.id)
	if err != nil {
		return nil, nil, err
	}
	defer b.Wipe()
	return decodeState(b.Reveal())
}

func (x *turn) sealed(t *talk, st stage) ([]byte, error) {
	b, err := encodeState(t, st)
	if err != nil {
		return nil, fmt.Errorf("state of a conversation: %w", err)
	}
	if len(b) > maxState {
		return nil, fmt.Errorf("state of a conversation: %d octets", len(b))
	}
	return x.s.Keys.Box.Seal(b, "conversations", "data", x.id), nil
}

// repeat gives the stored reply again.
func (x *turn) repeat() error {
	b, err := x.s.Keys.Box.Open(x.row.Reply, "conversations", "reply", x.id)
	if err != nil {
		return fmt.Errorf("stored reply: %w", err)
	}
	if err := json.Unmarshal(b.Reveal(), &x.reply); err != nil {
		return fmt.Errorf("stored reply: %w", err)
	}
	x.settled = true
	return nil
}

// replayed ends a conversation of which a step came twice with different bodies:
// whoever did that is not the agent that began it.
func (x *turn) replayed(ctx context.Context) error {
	x.fault = fault.New(fault.Replayed, nil)
	if err := x.load(); err != nil {
		return err
	}
	if err := x.note(event.SigninReplayed, "", "replayed", "", nil); err != nil {
		return err
	}
	if x.row.Outcome != facts.Open {
		return nil
	}
	x.at = denied{}
	if err := x.noteEnd(event.SigninDenied, string(policy.Deny), "replayed", ""); err != nil {
		return err
	}
	return x.store(ctx, string(policy.Deny), nil)
}

// giveUp ends a conversation that got no answer in time. done is false if somebody
// else has just ended it.
func (x *turn) giveUp(ctx context.Context, why string) (done bool, err error) {
	if err := x.load(); err != nil {
		return false, err
	}
	if x.talk.UserID == "" {
		// Nobody had to know whose name it was before (askPassword).
		u, _, err := x.resolve(ctx)
		if err != nil {
			return false, err
		}
		x.remember(u)
	}
	x.at = abandoned{}
	n, err := x.advance(ctx, facts.Abandoned, x.row.Reply)
	if err != nil || n == 0 {
		return false, err
	}
	return true, x.noteEnd(event.SigninAbandoned, facts.Abandoned, why, "")
}

// say shows something before the prompt or the end.
func (x *turn) say(kind, s string) {
	x.reply.Messages = append(x.reply.Messages, wire.Message{Kind: kind, Text: text.CleanBlock(s)})
}

// ask stores the stage and asks.
func (x *turn) ask(ctx context.Context, st stage, p wire.Prompt) error {
	x.at = st
	x.reply.Prompt = &p
	return x.store(ctx, facts.Open, &x.reply)
}

// store writes the stage and the reply, if nobody else has moved the conversation.
func (x *turn) store(ctx context.Context, outcome string, reply *wire.StepReply) error {
	var sealed []byte
	if reply != nil {
		b, err := json.Marshal(reply)
		if err != nil {
			return fmt.Errorf("reply: %w", err)
		}
		sealed = x.s.Keys.Box.Seal(b, "conversations", "reply", x.id)
	}
	n, err := x.advance(ctx, outcome, sealed)
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.Newf(fault.Conflict, "The sign-in went on without this step. Begin again.")
	}
	return nil
}

func (x *turn) advance(ctx context.Context, outcome string, reply []byte) (int64, error) {
	var data []byte
	if outcome == facts.Open {
		var err error
		if data, err = x.sealed(x.talk, x.at); err != nil {
			return 0, err
		}
	}
	n, err := x.tx.AdvanceConversation(ctx, db.AdvanceConversationParams{
		ID: x.row.ID, Rev: x.row.Rev, Stage: x.at.name(), Data: data, Seq: x.row.Seq, BodyHash: x.row.BodyHash, Reply: reply, Outcome: outcome,
		MFAAt: x.row.MFAAt, UserID: x.talk.UserID, ExpiresAt: x.row.ExpiresAt,
	})
	if err != nil {
		return 0, fmt.Errorf("store a conversation: %w", err)
	}
	if n > 0 && x.row.Stage == stageAnswer && x.at.name() != stageAnswer {
		return n, x.withdraw(ctx)
	}
	return n, nil
}
