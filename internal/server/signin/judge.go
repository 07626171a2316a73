package signin

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file says what becomes of a step by where its conversation stands: prepare before
// the slow part, act behind it. What that is stands in first.go (the first factor),
// decide.go (the policy), second.go and sent.go (second factors), enrol.go, password.go
// and end.go, in the order of a sign-in.

// Reasons beside those of package policy.
const (
	reasonBackOff    = "back-off"            // who must wait was not judged
	reasonTooMany    = "too-many-wrong"      // codes in one conversation
	reasonMistakes   = "too-many-mistakes"   // blanks and no choices
	reasonCancelled  = "cancelled"           // by the person
	reasonState      = "state-damaged"       // the default arm
	reasonBusy       = "server-busy"         // nothing was judged
	reasonNotHere    = "no-password-here"    // a change of a password that the server does not hold
	reasonRemote     = "change-needs-local"  // S9
	reasonNotChanged = "password-not-chosen" // S9
	reasonUnlock     = "unlock-needs-more"   // an unlock enrols nothing
	reasonChanged    = "changed-meanwhile"   // the user was disabled or removed between two steps
	reasonSuperseded = "superseded"          // a window by a newer one
	reasonActivated  = "first-login"
	reasonEnrolSpent = "enrol-code-spent"
)

// prepare decides, in the transaction of the claim, what judging the step takes: it
// counts what is to be compared, and leaves the slow part behind. What takes neither
// is settled at once.
func (x *turn) prepare(ctx context.Context) error {
	if x.step.Cancel {
		return x.settle(ctx)
	}
	switch st := x.at.(type) {
	case judging:
		o, b := x.talk.Opening, x.step.Begin
		if b.Password.Empty() {
			return x.settle(ctx)
		}
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		server := o.Mode == modeFull || o.Purpose == wire.PurposePassword
		if !server && u != nil && !x.directory(u).Has(*u) {
			return x.settle(ctx)
		}
		return x.preparePassword(ctx, u, b.Password.Bytes)
	case awaitPassword:
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		return x.preparePassword(ctx, u, x.step.Answer.Text.Bytes)
	case awaitCode, awaitEnrolCode:
		if x.blank() || x.leaves() {
			return x.settle(ctx)
		}
		var err error
		x.counted, x.block, err = attempts.Count(ctx, x.tx, x.talk.UserID, x.m.ID, x.talk.Policy, x.now)
		if err != nil {
			return err
		}
		if x.block.On() {
			return x.settle(ctx)
		}
		return nil // judged behind the commit of the count
	case awaitNewPassword, awaitNewPassword2:
		if x.blank() {
			return x.settle(ctx)
		}
		u, err := x.tx.GetUser(ctx, x.talk.UserID)
		if errors.Is(err, sql.ErrNoRows) {
			return x.settle(ctx)
		}
		if err != nil {
			return fmt.Errorf("user: %w", err)
		}
		return x.prepareNewPassword(u, st)
	}
	return x.settle(ctx)
}

func (x *turn) blank() bool {
	s, ok := factor.Typed(x.step.Answer.Text.Bytes)
	return ok && s == ""
}

// settle judges in the transaction of the claim.
func (x *turn) settle(ctx context.Context) error {
	x.mine, x.settled = false, true
	return x.act(ctx, false)
}

// finish stores what came of a step that was claimed at the revision.
func (x *turn) finish(ctx context.Context, rev int64) error {
	row, err := x.tx.GetConversation(ctx, x.id)
	if err != nil {
		return fmt.Errorf("conversation: %w", err)
	}
	x.row = row
	if row.Rev != rev || row.Outcome != facts.Open {
		// Somebody took the step over, or time was up: what we found does not count.
		return fault.Newf(fault.Conflict, "The sign-in went on without this step. Begin again.")
	}
	// What the claim has read is what lies in the row, for nobody has moved it.
	if x.talk == nil {
		if err := x.load(); err != nil {
			return err
		}
	}
	return x.act(ctx, true)
}

// act takes the step. judged says that the slow part, or the count, lies behind us.
func (x *turn) act(ctx context.Context, judged bool) error {
	if x.step.Cancel {
		return x.end(ctx, abandoned{}, reasonCancelled, text.DeniedGivenUp)
	}
	switch x.at.(type) {
	case judging:
		return x.onBegin(ctx, judged)
	case awaitPassword:
		return x.onPassword(ctx)
	case nil:
		return x.impossible(ctx)
	}
	// Behind the first factor: the user must still be there.
	u, err := x.tx.GetUser(ctx, x.talk.UserID)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && (u.Disabled || facts.NotYet(u, x.now)):
		return x.end(ctx, denied{}, reasonChanged, x.denial(ctx, policy.ReasonDisabled))
	case err != nil:
		return fmt.Errorf("user: %w", err)
	}
	switch st := x.at.(type) {
	case awaitChoice:
		return x.onChoice(ctx, st)
	case awaitCode:
		return x.onCode(ctx, u, st)
	case awaitAnswer:
		return x.onAnswer(ctx, u, st)
	case awaitEnrolCode:
		return x.onEnrolCode(ctx, u, st)
	case awaitFirstCode:
		return x.onFirstCode(ctx, u, st)
	case awaitNewPassword:
		return x.onNewPassword(ctx)
	case awaitNewPassword2:
		return x.onNewPassword2(ctx, u, st)
	case awaitOfflineChoice:
		x.talk.Offline = answerNo
		if x.chosen(2) == 0 {
			x.talk.Offline = answerYes
		}
		return x.allow(ctx, u)
	}
	return x.impossible(ctx)
}

// impossible is the default arm: what can not be denies, and says so.
func (x *turn) impossible(ctx context.Context) error {
	return x.end(ctx, denied{}, reasonState, text.DeniedInternal)
}
