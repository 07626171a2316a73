package signin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file is about kinds for which something goes out before they can be answered
// (a mail, a request to a phone, a challenge to a key), and of those the ones whose
// answer comes another way (S2, S12, M6, M7).

const reasonNotSent = "factor-not-sent"

// cannot are the kinds that can not be asked for in this conversation: those for which
// the agent has no prompt, those that this server can not judge, and in an unlock,
// which anybody may begin for their own account, all that goes out to somebody.
func (x *turn) cannot() []policy.Factor {
	o := x.talk.Opening
	var not []policy.Factor
	for _, k := range append(slices.Clone(policy.Kinds), policy.Bypass) {
		plug, ok := x.s.Factors.Get(k)
		_, waits := plug.(factor.Waiter)
		_, sends := plug.(factor.Sender)
		switch {
		case !ok,
			waits && !slices.Contains(o.Can, wire.PromptWait),
			k == policy.FIDO2 && !slices.Contains(o.Can, wire.PromptKey),
			k != policy.FIDO2 && sends && o.Unlock:
			not = append(not, k)
		}
	}
	return not
}

// notHere is what policy.Decide leaves out of a chain, for where it is asked without it.
func (x *turn) notHere() []policy.Factor {
	not := x.cannot()
	if !x.talk.Opening.local() {
		not = append(not, policy.FIDO2)
	}
	return not
}

// send has it sent, in the transaction that stores the prompt.
func (x *turn) send(ctx context.Context, plug factor.Sender) error {
	kind, o := plug.Kind(), x.talk.Opening
	u, err := x.tx.GetUser(ctx, x.talk.UserID)
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	unproven, refused, err := x.unproven(ctx, u)
	if err != nil {
		return err
	}
	var sent factor.Sent
	if refused && kind != policy.FIDO2 { // a challenge goes to whoever sits there
		err = fault.Newf(fault.Unavailable, text.NotSentHere)
	} else {
		sent, err = plug.Send(ctx, x.tx, factor.Ask{
			User: u, Ticket: x.id, Door: factor.AtMachine, Machine: x.m.ID, Name: x.m.Name, Scope: o.Scope, Service: o.Service,
			Address: o.RHost, Unproven: unproven, Now: x.now,
		})
	}
	var f *fault.Fault
	switch {
	case errors.As(err, &f) && (f.Code == fault.TooMany || f.Code == fault.Unavailable):
		if err := x.note(event.FactorRejected, "", reasonNotSent, string(kind), map[string]any{"code": string(f.Code)}); err != nil {
			return err
		}
		if len(x.others(kind)) > 0 { // else it is what the denial says
			x.say(wire.MessageWarn, f.Public())
		}
		return x.elseAsk(ctx, kind, reasonNotSent, f.Public())
	case err != nil:
		return err
	}
	if err := x.note(event.FactorSent, "", "", string(kind), sent.Data); err != nil {
		return err
	}
	if sent.Tell != "" {
		x.say(wire.MessageTell, sent.Tell)
	}
	// What goes out takes time to come back; login gives up after a minute all the same.
	if !sent.Expires.IsZero() {
		most := clock.FromMicros(x.row.CreatedAt).Add(x.s.Lifetime + enrolTime)
		if until := sent.Expires.Add(answerTime); until.After(clock.FromMicros(x.row.ExpiresAt)) {
			x.row.ExpiresAt = min(clock.Micros(until), clock.Micros(most))
		}
	}
	if _, ok := plug.(factor.Waiter); ok {
		words := sent.Prompt
		if words == "" {
			words = plug.Prompt()
		}
		return x.askWait(ctx, kind, x.ofSteps(words))
	}
	p := x.codePrompt(plug, sent.Prompt)
	if kind == policy.FIDO2 {
		p.Kind, p.For, p.Data = wire.PromptKey, wire.ForKey, sent.Public
	}
	return x.ask(ctx, awaitCode{Kind: kind, Asked: &p}, p)
}

// unproven tells whether the machine alone says that the first factor was given, of
// somebody who has never been let in there: whoever holds the machine could say so of
// anybody, have every phone ring and use up what they may be sent (S12). refused: the
// machine could have passed on a password that the server holds, and has not; a key of
// sshd can not be passed on.
func (x *turn) unproven(ctx context.Context, u db.User) (unproven, refused bool, err error) {
	if x.talk.Judged {
		return false, false, nil
	}
	n, err := x.tx.MachineKnowsUser(ctx, db.MachineKnowsUserParams{UserID: u.ID, MachineID: x.m.ID})
	if err != nil {
		return false, false, fmt.Errorf("whom a machine knows: %w", err)
	}
	return n == 0, n == 0 && x.talk.First == policy.FirstMachine && x.directory(&u).Has(u), nil
}

// askWait asks the machine to wait, with words or, when they have been shown, without.
func (x *turn) askWait(ctx context.Context, kind policy.Factor, words string) error {
	p := wire.Prompt{Kind: wire.PromptWait, For: wire.ForPush, Text: words}
	if len(x.others(kind)) > 0 {
		p.Options = []string{wire.Back}
	}
	return x.ask(ctx, awaitAnswer{kind}, p)
}

// codeAgain asks once more for the code that was sent; a challenge is good for one
// answer, and there is another.
func (x *turn) codeAgain(ctx context.Context, st awaitCode) error {
	if st.Asked == nil || st.Kind == policy.FIDO2 {
		return x.askCode(ctx, st.Kind)
	}
	return x.ask(ctx, st, *st.Asked)
}

// others are the kinds that may be given in place of this one.
func (x *turn) others(kind policy.Factor) []policy.Factor {
	left := x.talk.left()
	if len(left) <= x.talk.Count-len(x.talk.Given) {
		return nil // each of them is needed
	}
	return slices.DeleteFunc(left, func(k policy.Factor) bool { return k == kind })
}

// elseAsk goes back to the menu when a kind can not be had now; without another the
// sign-in ends.
func (x *turn) elseAsk(ctx context.Context, kind policy.Factor, reason, told string) error {
	if len(x.others(kind)) == 0 || x.mistake() {
		return x.end(ctx, denied{}, reason, told)
	}
	return x.askChoice(ctx, x.talk.left())
}

// onAnswer looks for what came another way. That is no attempt, unless something came.
func (x *turn) onAnswer(ctx context.Context, u db.User, st awaitAnswer) error {
	plug, ok := x.s.Factors.Get(st.Kind)
	if _, waits := plug.(factor.Waiter); !ok || !waits || !slices.Contains(x.talk.left(), st.Kind) {
		return x.impossible(ctx)
	}
	if x.wantsBack() {
		if len(x.others(st.Kind)) > 0 {
			return x.askChoice(ctx, x.talk.left())
		}
		x.say(wire.MessageWarn, text.NoOtherWay)
		return x.askWait(ctx, st.Kind, "")
	}
	b, err := attempts.Blocked(ctx, x.tx, u.ID, x.m.ID, x.now)
	if err != nil {
		return err
	}
	if b.On() { // by tries elsewhere meanwhile
		return x.wait(ctx, b)
	}
	v, err := plug.Judge(ctx, x.tx, x.try(u))
	if err != nil {
		return err
	}
	switch v.Outcome {
	case factor.Accepted:
		if err := x.accepted(ctx, st.Kind, v); err != nil {
			return err
		}
		return x.behindFactor(ctx, u)
	case factor.Waiting:
		return x.askWait(ctx, st.Kind, "")
	case factor.Over:
		if err := x.note(event.FactorRejected, "", v.Reason, string(st.Kind), idOf(v)); err != nil {
			return err
		}
		told := v.Text
		if told == "" {
			told = text.NobodyThere
		}
		if len(x.others(st.Kind)) > 0 {
			x.say(wire.MessageWarn, told)
		}
		return x.elseAsk(ctx, st.Kind, factor.ReasonExpired, told)
	case factor.Rejected, factor.Ended:
		return x.refused(ctx, st.Kind, v)
	default:
		return x.impossible(ctx)
	}
}

// withdraw ends what still waits for an answer that comes another way: the person has gone
// back to the menu, or the conversation is over.
func (x *turn) withdraw(ctx context.Context) error {
	for _, k := range policy.Kinds {
		plug, _ := x.s.Factors.Get(k)
		if w, ok := plug.(factor.Waiter); ok {
			if err := w.Withdraw(ctx, x.tx, x.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// refused is an answer that was no. It counts as a wrong code does: who makes somebody
// else's phone ring has the password, and is to be slowed down.
func (x *turn) refused(ctx context.Context, kind policy.Factor, v factor.Verdict) error {
	var err error
	if x.counted, _, err = attempts.Count(ctx, x.tx, x.talk.UserID, x.m.ID, x.talk.Policy, x.now); err != nil {
		return err
	}
	if v.Outcome != factor.Ended {
		return x.rejected(ctx, kind, v, func() error { return x.elseAsk(ctx, kind, v.Reason, v.Text) })
	}
	if err := x.note(event.FactorRejected, "", v.Reason, string(kind), idOf(v)); err != nil {
		return err
	}
	if err := x.lockedNow(ctx); err != nil {
		return err
	}
	told := v.Text
	if told == "" {
		told = text.SaidNo
	}
	return x.end(ctx, denied{}, v.Reason, told)
}

// wantsBack tells whether the person wants the menu.
func (x *turn) wantsBack() bool {
	s, ok := factor.Typed(x.step.Answer.Text.Bytes)
	return ok && (s == "0" || strings.EqualFold(s, wire.Back))
}

// leaves tells whether the person wants the menu, or another message, in place of typing
// the code that was sent. No such code looks like that: it is no attempt.
func (x *turn) leaves() bool {
	st, ok := x.at.(awaitCode)
	return ok && st.Asked != nil && st.Kind != policy.FIDO2 && x.wantsBack()
}

// Wait returns when the answer that a conversation of the machine waits for may have
// come, when the context ends, or at once if it waits for none. It is no step, and
// tells nothing: a step with an empty answer does.
func (s *Service) Wait(ctx context.Context, m db.Machine, id string) error {
	var row db.Conversation
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		row, err = q.GetConversation(ctx, id)
		return err
	})
	if err != nil || row.MachineID != m.ID || row.Outcome != facts.Open || row.Stage != stageAnswer {
		// The next step says what is wrong.
		return ctx.Err() //nolint:nilerr // as said
	}
	x := &turn{s: s, row: row, id: id}
	if _, x.at, err = x.opened(); err != nil {
		return fault.New(fault.Internal, err)
	}
	st, _ := x.at.(awaitAnswer)
	plug, _ := s.Factors.Get(st.Kind)
	if w, ok := plug.(factor.Waiter); ok {
		ctx, cancel := context.WithTimeout(ctx, min(wire.WaitTime, max(0, clock.FromMicros(row.ExpiresAt).Sub(s.Clock.Now()))))
		defer cancel()
		w.Wait(ctx, id)
	}
	return nil
}
