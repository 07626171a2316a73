package signin

import (
	"context"
	"fmt"
	"slices"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file is about the first factor of a user's own, set up within the sign-in (E1).

const maxFirstCodeTries = 5

// askEnrolment asks for the help desk's code, where the policy takes a kind that can be
// set up here and as many others as it asks for are there.
func (x *turn) askEnrolment(ctx context.Context, f policy.Facts) error {
	t := x.talk
	if t.Opening.Unlock {
		return x.end(ctx, denied{}, reasonUnlock, text.DeniedUnlock)
	}
	b, err := attempts.Blocked(ctx, x.tx, t.UserID, x.m.ID, x.now)
	if err != nil {
		return err
	}
	if b.On() {
		return x.wait(ctx, b)
	}
	kinds, not := x.s.Factors.Known(t.Policy.OnlineFactors), x.notHere()
	t.Kinds, t.Count = slices.DeleteFunc(kinds, func(k policy.Factor) bool {
		return slices.Contains(not, k) || !slices.Contains(f.User.Factors, k) && !slices.Contains(t.Decision.Factors, k)
	}), t.Decision.Count
	for _, k := range x.s.Factors.Known(t.Decision.Factors) {
		if _, ok := x.enroller(k); ok && !slices.Contains(f.User.Factors, k) && len(t.Kinds) >= t.Count {
			x.say(wire.MessageTell, text.EnrolNow)
			return x.askEnrolCode(ctx, k)
		}
	}
	return x.end(ctx, denied{}, string(policy.ReasonNotEnrolled), x.denial(ctx, policy.ReasonNotEnrolled))
}

func (x *turn) askEnrolCode(ctx context.Context, kind policy.Factor) error {
	return x.ask(ctx, awaitEnrolCode{kind}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForEnrolCode, Text: text.PromptEnrolCode})
}

func (x *turn) onEnrolCode(ctx context.Context, u db.User, st awaitEnrolCode) error {
	if x.block.On() {
		return x.wait(ctx, x.block)
	}
	if x.blank() {
		if x.mistake() {
			return x.end(ctx, denied{}, reasonMistakes, text.DeniedCodes)
		}
		x.say(wire.MessageWarn, text.NothingTyped)
		return x.askEnrolCode(ctx, st.Kind)
	}
	code, err := x.s.Factors.FindEnrol(ctx, x.tx.Queries, u.ID, x.step.Answer.Text.Bytes, x.now)
	if err != nil {
		return err
	}
	if code == nil {
		return x.rejected(ctx, "enrol-code", factor.Verdict{Reason: factor.ReasonWrong, Text: text.EnrolWrong},
			func() error { return x.askEnrolCode(ctx, st.Kind) })
	}
	if err := x.counted.TakeBack(ctx, x.tx); err != nil {
		return err
	}
	enroller, ok := x.enroller(st.Kind)
	if !ok {
		return x.impossible(ctx)
	}
	pending, show, err := enroller.Begin(u)
	if err != nil {
		return err
	}
	defer pending.Wipe()
	for _, s := range show {
		x.say(wire.MessageTell, s)
	}
	// Scanning takes time that a sign-in does not have.
	x.row.ExpiresAt = clock.Micros(x.now.Add(enrolTime))
	return x.askFirstCode(ctx, awaitFirstCode{st.Kind, code.ID, slices.Clone(pending.Reveal())})
}

func (x *turn) enroller(kind policy.Factor) (factor.Enroller, bool) {
	plug, _ := x.s.Factors.Get(kind)
	e, ok := plug.(factor.Enroller)
	return e, ok
}

func (x *turn) askFirstCode(ctx context.Context, st awaitFirstCode) error {
	return x.ask(ctx, st, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForFirstCode, Text: text.PromptFirstCode})
}

// onFirstCode: the seed is on the screen, so a wrong code is a slip and no attempt.
// The enrolment code is spent together with the first code: who does not get to the
// end can begin again with it.
func (x *turn) onFirstCode(ctx context.Context, u db.User, st awaitFirstCode) error {
	enroller, ok := x.enroller(st.Kind)
	if !ok {
		return x.impossible(ctx)
	}
	codes, err := x.tx.ListValidEnrolCodes(ctx, db.ListValidEnrolCodesParams{UserID: u.ID, At: clock.Micros(x.now)})
	if err != nil {
		return fmt.Errorf("enrolment codes: %w", err)
	}
	if !slices.ContainsFunc(codes, func(c db.EnrolCode) bool { return c.ID == st.CodeID }) {
		return x.end(ctx, denied{}, reasonEnrolSpent, text.EnrolWrong)
	}
	v, err := enroller.Confirm(ctx, x.tx, secret.New(slices.Clone(st.Pending)), x.try(u))
	if err != nil {
		return err
	}
	if !v.OK() {
		x.talk.Wrong++
		x.say(wire.MessageWarn, v.Text)
		if x.talk.Wrong >= maxFirstCodeTries {
			return x.end(ctx, denied{}, reasonTooMany, text.DeniedCodes)
		}
		return x.askFirstCode(ctx, st)
	}
	n, err := x.tx.SpendEnrolCode(ctx, db.SpendEnrolCodeParams{ID: st.CodeID, At: clock.Micros(x.now)})
	if err != nil {
		return fmt.Errorf("spend an enrolment code: %w", err)
	}
	if n == 0 {
		// Used in this very moment: what Confirm has just made must go with it.
		return errEnrolSpent
	}
	if err := x.note(event.CodeSpent, "", "", "enrol-code", map[string]any{"code": st.CodeID}); err != nil {
		return err
	}
	if err := x.note(event.FactorAdded, "", "", string(st.Kind), map[string]any{"authenticator": v.ID, "at": "sign-in"}); err != nil {
		return err
	}
	if err := x.accepted(ctx, st.Kind, v); err != nil {
		return err
	}
	return x.behindFactor(ctx, u)
}

var errEnrolSpent = fault.Newf(fault.Conflict, "The enrolment code has been used or has expired meanwhile. Begin again with a new one.")
