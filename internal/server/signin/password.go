package signin

import (
	"context"
	"errors"
	"fmt"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file is about a new password that is due, or was asked for (S9).

// Why a new password is asked for.
const (
	changeMust    = "must-change"
	changeExpired = "expired"
	changeAsked   = "asked"
)

const maxProposalTries = 4

// changeDue tells whether a new password is to be chosen now. An unlock changes
// nothing.
func (x *turn) changeDue() bool {
	t := x.talk
	return t.Change != "" && !t.Changed && t.Judged && !t.Opening.Unlock
}

// change asks for a new password: behind a factor of the user's own, or at a local
// seat.
func (x *turn) change(ctx context.Context) error {
	t := x.talk
	if !t.proven() && !t.Opening.local() {
		return x.end(ctx, denied{}, reasonRemote, text.DeniedRemoteChange)
	}
	switch t.Change {
	case changeMust:
		x.say(wire.MessageTell, text.MustChangeNow)
	case changeExpired:
		x.say(wire.MessageTell, text.ExpiredNow)
	}
	return x.askNewPassword(ctx)
}

func (x *turn) askNewPassword(ctx context.Context) error {
	return x.ask(ctx, awaitNewPassword{}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForNewPassword, Text: text.PromptNewPassword})
}

func (x *turn) prepareNewPassword(u db.User, st stage) error {
	dir, typed := x.directory(&u), x.step.Answer.Text.Bytes
	if dir.Busy() {
		return fault.New(fault.Unavailable, directory.ErrBusy)
	}
	if st, ok := st.(awaitNewPassword2); ok {
		x.work = func(ctx context.Context) (v verdict) {
			v.same, v.err = dir.Same(ctx, st.Proposal, typed)
			return v
		}
		return nil
	}
	x.work = func(ctx context.Context) (v verdict) {
		var refusal *directory.Refusal
		v.proposal, v.err = dir.Propose(ctx, u, typed)
		if errors.As(v.err, &refusal) {
			v.refusal, v.err = refusal.Text, nil
		}
		return v
	}
	return nil
}

func (x *turn) onNewPassword(ctx context.Context) error {
	switch v := x.verdict; {
	case x.blank():
		return x.notChosen(ctx, text.NothingTyped)
	case errors.Is(v.err, directory.ErrBusy):
		return x.notChosen(ctx, text.DeniedBusy)
	case v.err != nil:
		return v.err
	case v.refusal != "":
		return x.notChosen(ctx, v.refusal)
	}
	return x.ask(ctx, awaitNewPassword2{x.verdict.proposal}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForNewPassword2, Text: text.PromptNewPassword2})
}

func (x *turn) notChosen(ctx context.Context, why string) error {
	x.talk.Mistakes++
	x.say(wire.MessageWarn, why)
	if x.talk.Mistakes >= maxProposalTries {
		return x.end(ctx, denied{}, reasonNotChanged, text.DeniedNoChange)
	}
	return x.askNewPassword(ctx)
}

func (x *turn) onNewPassword2(ctx context.Context, u db.User, st awaitNewPassword2) error {
	switch v := x.verdict; {
	case errors.Is(v.err, directory.ErrBusy):
		return x.notChosen(ctx, text.DeniedBusy)
	case v.err != nil:
		return v.err
	case !v.same:
		return x.notChosen(ctx, text.NewDiffers)
	}
	if err := x.directory(&u).Apply(ctx, x.tx, u, st.Proposal, x.now); err != nil {
		return err
	}
	x.talk.Changed = true
	changed := x.event(event.PasswordChanged)
	changed.Reason = x.talk.Change
	if err := ending.Password(ctx, x.tx, changed, map[string]any{"conversation": x.id}, "", x.now); err != nil {
		return err
	}
	x.say(wire.MessageTell, text.PasswordChanged)
	u, err := x.tx.GetUser(ctx, u.ID)
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	return x.allow(ctx, u)
}
