package conversation

import (
	"context"
	"errors"
	"slices"
	"time"

	"latchkey/internal/agent/link"
	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// opening decides how the conversation begins. The first prompt is there at once,
// whatever the link does.
type opening struct{}

func (opening) next(ctx context.Context, t *talk) stage {
	switch {
	case t.r.BreakGlass:
		return breakGlass{}
	case t.r.User == "":
		return deny("bad-request", text.DeniedFirst)
	case t.r.Purpose == wire.PurposePassword, t.r.HasPassword, t.r.Mode != "full", t.r.First == policy.FirstSSHKey:
		return contact{}
	}
	return askFirst{}
}

// breakGlass lets the machine's own check decide, in every state of link and disk
// (S8). The event goes to the journal, and if that can not be written, to the log.
type breakGlass struct{}

func (breakGlass) next(ctx context.Context, t *talk) stage {
	t.cfg.Log.Warn("break-glass sign-in without second factor", "user", t.r.User, "service", t.r.Service, "tty", t.r.TTY)
	if err := t.cfg.Vault.Record(ctx, t.event(event.BreakGlass, policy.Ignore, "break-glass", nil, "", nil)); err != nil {
		t.cfg.Log.Error("break-glass sign-in can not be journalled; this line is its only record", "user", t.r.User, "service", t.r.Service, "tty", t.r.TTY, "err", err)
	}
	t.cfg.Server.Deliver()
	return end{Verdict{Outcome: policy.Ignore, Reason: "break-glass"}}
}

// askFirst asks for the password, and has the link looked at meanwhile.
type askFirst struct{}

func (askFirst) next(ctx context.Context, t *talk) stage {
	t.wg.Go(func() { t.cfg.Server.Look(t.bg) })
	a, over := t.ask(ctx, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForPassword, Text: text.PromptPassword})
	if over != nil {
		return over
	}
	if isJunk(a) {
		a.Wipe()
		t.r.Junk = true
		return contact{}
	}
	t.password, t.r.HasPassword = a, true
	return contact{}
}

// contact tries the server. Its first answer makes the conversation an online one.
type contact struct{}

func (contact) next(ctx context.Context, t *talk) stage {
	if t.cfg.Admit != nil && !t.cfg.Admit(t.r) {
		return deny("too-many", text.DeniedCrowd)
	}
	b := &wire.Begin{
		Purpose: t.r.Purpose, User: t.r.User, Target: t.r.Target, UID: t.r.UID, Aliases: t.r.Aliases, Scope: t.r.Scope,
		Service: t.r.Service, TTY: t.r.TTY, RHost: t.r.RHost, RemoteSeat: t.r.RemoteSeat, Mode: t.r.Mode, First: t.r.First,
		Boot: t.r.Boot, At: clock.Micros(t.cfg.Clock.Now()), Unlock: t.r.Unprivileged, Can: t.can(),
	}
	if !t.password.Empty() && !t.holdsBack() {
		b.Password = wire.Hide(t.password)
	}
	reply, err := t.step(ctx, 1, wire.Step{Begin: b})
	var down *link.Down
	switch {
	case err == nil && t.r.Junk:
		return sham{online: true, open: reply.Done == nil}
	case err == nil:
		return relay{reply: reply, seq: 1}
	case errors.As(err, &down):
		return offline{link: policy.LinkDown, why: down.Reason}
	}
	return t.failed(ctx, err)
}

// can says which prompts beside questions there are at this seat. Who unlocks their
// own session may not have anything sent.
func (t *talk) can() []string {
	var can []string
	if !t.r.Unprivileged {
		can = append(can, wire.PromptWait)
	}
	if t.cfg.Key != nil && !t.r.remote() {
		can = append(can, wire.PromptKey)
	}
	return can
}

// holdsBack tells whether the password waits until the server asks for it. The
// first step has two seconds, and judging a password is slow on purpose: a server
// with many sign-ins at once must not be taken for one that is gone, or whoever
// keeps it busy could choose the offline rules for everybody. Where the machine
// judges first the server asks for no password, and gets it at once.
func (t *talk) holdsBack() bool {
	return t.r.Mode == "full" && t.r.Purpose == wire.PurposeSignin && t.r.First != policy.FirstSSHKey
}

// failed ends a conversation that the server has heard of, or that it refuses.
func (t *talk) failed(ctx context.Context, err error) stage {
	var (
		refused *link.Refused
		problem *wire.Problem
		down    *link.Down // not of a first step: that is the caller's
	)
	switch {
	case errors.As(err, &refused):
		return offline{link: policy.LinkRefused, note: refused.Text()}
	case errors.As(err, &problem):
		words := problem.Detail
		switch fault.Code(problem.Code) {
		case fault.Expired:
			words = text.DeniedTooLong
		case fault.Replayed:
			words = text.DeniedReplayed
		case fault.TooMany:
			words = text.DeniedBusy
			if problem.Detail == link.Delivering {
				words = text.DeniedDelivering
			}
		}
		if words == "" {
			words = text.DeniedInternal
		}
		return end{Verdict{Outcome: policy.Deny, Reason: problem.Code, Text: words, Online: true}}
	case errors.Is(err, link.ErrTrouble):
		return end{Verdict{Outcome: policy.Deny, Reason: string(link.ServerError), Text: text.DeniedServer, Online: true}}
	case errors.Is(err, link.ErrLost), errors.As(err, &down):
		return end{Verdict{Outcome: policy.Deny, Reason: "server-lost", Text: text.DeniedUnreachable, Online: true}}
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded):
		return deny("too-long", text.DeniedTooLong)
	}
	t.cfg.Log.Error("a sign-in could not be carried to the server", "err", err)
	return deny("internal", text.DeniedInternal)
}

// relay shows what the server says and brings back what is answered.
type relay struct {
	reply wire.StepReply
	seq   int
}

func (s relay) next(ctx context.Context, t *talk) stage {
	for _, m := range s.reply.Messages {
		if m.Kind == wire.MessageTell || m.Kind == wire.MessageWarn {
			t.say(m.Kind, m.Text)
		}
	}
	switch p, d := s.reply.Prompt, s.reply.Done; {
	case d != nil && p == nil:
		return done{*d}
	case p == nil || d != nil || s.seq >= steps:
		t.cancel(s.seq + 1)
		return end{Verdict{Outcome: policy.Deny, Reason: "protocol", Text: text.DeniedInternal, Online: true}}
	}
	p := *s.reply.Prompt
	switch p.Kind {
	case wire.PromptWait:
		return waiting{words: p.Text, back: slices.Contains(p.Options, wire.Back), seq: s.seq}
	case wire.PromptKey:
		return touching{prompt: p, seq: s.seq}
	}
	var a secret.Bytes
	if s.seq == 1 && p.For == wire.ForPassword && p.Kind == wire.PromptSecret && t.holdsBack() && !t.password.Empty() {
		a = t.password.Clone() // typed already
	} else {
		var over stage
		if a, over = t.ask(ctx, p); over != nil {
			t.cancel(s.seq + 1)
			return online(over)
		}
	}
	switch {
	case isJunk(a):
	case p.For == wire.ForPassword:
		t.password.Wipe()
		t.password = a.Clone()
	case p.For == wire.ForNewPassword:
		t.fresh.Wipe()
		t.fresh = a.Clone()
	}
	return relayed(ctx, t, s.seq, a)
}

func fakePassword() stage {
	return end{Verdict{Outcome: policy.Deny, Reason: "user-unknown-here", Text: text.DeniedFirst, Online: true}}
}

// online marks an end as one of an online conversation, and keeps it from going
// on offline.
func online(s stage) stage {
	switch s := s.(type) {
	case end:
		s.v.Online = true
		return s
	case offline:
		if s.link == policy.LinkRefused {
			return s // ends as refused, whatever was said before
		}
	}
	return end{Verdict{Outcome: policy.Deny, Reason: "server-lost", Text: text.DeniedUnreachable, Online: true}}
}

// cancel tells the server that there will be no answer; nobody waits for it.
func (t *talk) cancel(seq int) {
	t.wg.Go(func() {
		ctx, stop := context.WithTimeout(t.bg, 5*time.Second)
		defer stop()
		_, _ = t.cfg.Server.Step(ctx, t.id, seq, wire.Step{Cancel: true})
	})
}

// done carries out the server's word.
type done struct{ d wire.Done }

func (s done) next(ctx context.Context, t *talk) stage {
	d := s.d
	if d.PasswordChanged && !t.fresh.Empty() {
		t.password.Wipe()
		t.password = t.fresh.Clone()
	}
	v := Verdict{Outcome: d.Outcome, Reason: d.Reason, Text: d.Text, Online: true}
	// Also with a denial: a code that was accepted before it is spent.
	if len(d.Spent) > 0 {
		failpoint.Hit("conversation.accepted")
		used := t.spend(ctx, d)
		failpoint.Hit("conversation.spent")
		if used && d.Outcome == policy.Allow {
			return t.usedHere(ctx, d)
		}
	}
	switch d.Outcome {
	case policy.Allow:
		if t.r.Purpose == wire.PurposePassword && d.PasswordChanged && !t.fresh.Empty() {
			v.Authtok, v.HasAuthtok = t.fresh.Clone(), true
		}
		if d.Offline && !t.r.Unprivileged {
			t.enrol(d)
		}
	case policy.Ignore:
	default:
		v.Outcome = policy.Deny
	}
	return end{v}
}

// usedHere denies what the server has allowed with a code that opened this machine
// before: its answer was long on its way, and somebody signed in without it meanwhile
// (S10). The server learns of the collision from the journal.
func (t *talk) usedHere(ctx context.Context, d wire.Done) stage {
	t.cfg.Log.Warn("a code that the server has accepted was used here before, without it; the sign-in is denied", "user", t.r.User)
	s := t.denied(ctx, policy.LinkUp, vault.CodeUsed, &policy.User{ID: d.UserID, Name: d.UserName}, nil, text.CodeUsed)
	return online(s)
}

// spend writes what was accepted online into the ledger, before the shim is
// answered, and tells whether it was used here before. A ledger that can not be
// written does not shut a person out whom the server has let in (he may have come to
// mend the disk): what is owed is kept in memory, and no offline attempt is judged
// before it is written.
func (t *talk) spend(ctx context.Context, d wire.Done) (used bool) {
	if d.UserID == "" || len(d.Spent) == 0 {
		return false
	}
	err := t.cfg.Vault.NoteOnline(ctx, d.UserID, d.Spent)
	if errors.Is(err, vault.ErrSpent) {
		return true
	}
	if err != nil {
		t.mu.Lock()
		t.owing[d.UserID] = append(t.owing[d.UserID], d.Spent...)
		t.mu.Unlock()
		t.cfg.Log.Error("what was accepted online can not be written down; offline sign-ins are denied until it can", "err", err)
		return false
	}
	// The disk can be written: what was owed before goes the same way.
	if err := t.settle(ctx, d.UserID); err != nil {
		t.cfg.Log.Error("what was accepted online before can not be written down", "err", err)
	}
	return false
}

// settle writes what is owed.
func (c *Conversations) settle(ctx context.Context, userID string) error {
	c.mu.Lock()
	owed := c.owing[userID]
	c.mu.Unlock()
	if len(owed) == 0 {
		return nil
	}
	// What it says of codes used before is of no matter: they may be in its memory
	// since the first try.
	if err := c.cfg.Vault.NoteOnline(ctx, userID, owed); err != nil && err != vault.ErrSpent { //nolint:errorlint // with another beside it nothing was written
		return err
	}
	c.mu.Lock()
	c.owing[userID] = c.owing[userID][len(owed):]
	if len(c.owing[userID]) == 0 {
		delete(c.owing, userID)
	}
	c.mu.Unlock()
	return nil
}

// enrol makes or extends the offline data behind the answer (O4, O5). Only a
// password that the server has accepted is of use for it.
func (t *talk) enrol(d wire.Done) {
	o := vault.Offer{Conversation: t.id, UserID: d.UserID, UserName: d.UserName}
	if d.PasswordJudged || d.PasswordChanged {
		o.Password = t.password.Clone()
	}
	t.wg.Go(func() {
		ctx, cancel := context.WithTimeout(t.bg, keepPassword)
		defer cancel()
		defer o.Password.Wipe()
		action, err := t.cfg.Vault.Enrol(ctx, o, t.cfg.Server)
		if err != nil {
			t.cfg.Server.Deliver()
			t.cfg.Log.Warn("offline data could not be made or extended", "user", o.UserName, "action", action, "err", err)
			return
		}
		t.cfg.Log.Info("offline data is up to date", "user", o.UserName, "action", action)
		t.cfg.Server.Deliver()
	})
}

func isJunk(a secret.Bytes) bool { return junk(a.Reveal()) }
