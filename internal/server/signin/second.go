package signin

import (
	"context"
	"slices"
	"strconv"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file is about second factors that are typed (S2, S10, P1); sent.go is about those for which something goes out.

// askFactorUnlessBlocked refuses who must wait before anything is asked.
func (x *turn) askFactorUnlessBlocked(ctx context.Context) error {
	b, err := attempts.Blocked(ctx, x.tx, x.talk.UserID, x.m.ID, x.now)
	if err != nil {
		return err
	}
	if b.On() {
		return x.wait(ctx, b)
	}
	return x.askFactor(ctx)
}

// askFactor asks for the next factor: a menu where there is a choice.
func (x *turn) askFactor(ctx context.Context) error {
	left, need := x.talk.left(), x.talk.Count-len(x.talk.Given)
	switch {
	case need <= 0 || len(left) < need:
		return x.end(ctx, denied{}, string(policy.ReasonNotEnrolled), x.denial(ctx, policy.ReasonNotEnrolled))
	case len(left) == need:
		return x.askCode(ctx, left[0])
	}
	return x.askChoice(ctx, left)
}

func (x *turn) askChoice(ctx context.Context, kinds []policy.Factor) error {
	options := make([]string, len(kinds))
	for i, k := range kinds {
		plug, ok := x.s.Factors.Get(k)
		if !ok {
			return x.impossible(ctx)
		}
		options[i] = plug.Option()
	}
	return x.ask(ctx, awaitChoice{kinds}, wire.Prompt{Kind: wire.PromptChoose, For: wire.ForChoice, Text: x.ofSteps(text.PromptFactor), Options: options})
}

// ofSteps says which of several factors is asked for (P1).
func (x *turn) ofSteps(s string) string { return text.Step(len(x.talk.Given)+1, x.talk.Count, s) }

func (x *turn) askCode(ctx context.Context, kind policy.Factor) error {
	plug, ok := x.s.Factors.Get(kind)
	if !ok {
		return x.impossible(ctx)
	}
	if sender, ok := plug.(factor.Sender); ok {
		return x.send(ctx, sender)
	}
	return x.ask(ctx, awaitCode{Kind: kind}, x.codePrompt(plug, ""))
}

func (x *turn) codePrompt(plug factor.Factor, words string) wire.Prompt {
	if words == "" {
		words = plug.Prompt()
	}
	p := wire.Prompt{Kind: wire.PromptSecret, For: wire.ForCode, Text: x.ofSteps(words)}
	if plug.Echo() {
		p.Kind = wire.PromptAsk
	}
	return p
}

func (x *turn) onChoice(ctx context.Context, st awaitChoice) error {
	if i := x.chosen(len(st.Kinds)); i >= 0 {
		return x.askCode(ctx, st.Kinds[i])
	}
	if x.mistake() {
		return x.end(ctx, denied{}, reasonMistakes, text.DeniedCodes)
	}
	x.say(wire.MessageWarn, text.NotAChoice)
	return x.askChoice(ctx, st.Kinds)
}

// chosen is the place of the chosen option, or -1: the number as people count.
func (x *turn) chosen(n int) int {
	s, ok := factor.Typed(x.step.Answer.Text.Bytes)
	if !ok {
		return -1
	}
	i, err := strconv.Atoi(s)
	if err != nil || i < 1 || i > n {
		return -1
	}
	return i - 1
}

// mistake counts what is neither right nor wrong.
func (x *turn) mistake() (enough bool) {
	x.talk.Mistakes++
	return x.talk.Mistakes >= maxMistakes
}

func (x *turn) onCode(ctx context.Context, u db.User, st awaitCode) error {
	if x.block.On() {
		return x.wait(ctx, x.block)
	}
	if x.blank() || x.leaves() {
		// Not an attempt: back to the menu, where there is one; else it is sent again.
		if x.mistake() {
			return x.end(ctx, denied{}, reasonMistakes, text.DeniedCodes)
		}
		if x.blank() && st.Kind != policy.FIDO2 { // a key that did not answer: the agent has said why
			x.say(wire.MessageWarn, text.NothingTyped)
		}
		return x.askFactor(ctx)
	}
	plug, ok := x.s.Factors.Get(st.Kind)
	if !ok || !slices.Contains(x.talk.left(), st.Kind) {
		return x.impossible(ctx)
	}
	v, err := plug.Judge(ctx, x.tx, x.try(u))
	if err != nil {
		return err
	}
	if !v.OK() {
		return x.rejected(ctx, st.Kind, v, func() error { return x.codeAgain(ctx, st) })
	}
	if err := x.accepted(ctx, st.Kind, v); err != nil {
		return err
	}
	if st.Kind == policy.Backup || st.Kind == policy.Bypass {
		if err := x.note(event.CodeSpent, "", "", string(st.Kind), v.Data); err != nil {
			return err
		}
	}
	return x.behindFactor(ctx, u)
}

func (x *turn) try(u db.User) factor.Try {
	return factor.Try{User: u, Machine: x.m.ID, Scope: x.talk.Opening.Scope, Typed: x.step.Answer.Text.Bytes, Now: x.now, Ticket: x.id, Door: factor.AtMachine}
}

// accepted notes a factor that was given.
func (x *turn) accepted(ctx context.Context, kind policy.Factor, v factor.Verdict) error {
	if err := x.counted.TakeBack(ctx, x.tx); err != nil {
		return err
	}
	t := x.talk
	t.Given = append(t.Given, kind)
	t.Lent = t.Lent || !v.Own
	if v.Spent != nil {
		t.Spent = append(t.Spent, *v.Spent)
	}
	if v.Tell != "" {
		x.say(wire.MessageTell, v.Tell)
	}
	return x.note(event.FactorAccepted, "", "", string(kind), v.Data)
}

// rejected notes a wrong code. It is counted already; who must wait from now on, and
// who has had three, begins anew.
func (x *turn) rejected(ctx context.Context, kind policy.Factor, v factor.Verdict, again func() error) error {
	if err := x.note(event.FactorRejected, "", v.Reason, string(kind), idOf(v)); err != nil {
		return err
	}
	if err := x.lockedNow(ctx); err != nil {
		return err
	}
	b, err := attempts.Blocked(ctx, x.tx, x.talk.UserID, x.m.ID, x.now)
	if err != nil {
		return err
	}
	x.talk.Wrong++
	x.say(wire.MessageWarn, v.Text)
	switch {
	case b.On():
		return x.wait(ctx, b)
	case x.talk.Wrong >= maxWrong:
		return x.end(ctx, denied{}, reasonTooMany, text.DeniedCodes)
	}
	return again()
}

func idOf(v factor.Verdict) map[string]any {
	if v.ID == "" {
		return nil
	}
	return map[string]any{"id": v.ID}
}

// behindFactor goes on when a factor was accepted.
func (x *turn) behindFactor(ctx context.Context, u db.User) error {
	if len(x.talk.Given) < x.talk.Count {
		return x.askFactor(ctx)
	}
	if x.changeDue() {
		return x.change(ctx)
	}
	return x.allow(ctx, u)
}
