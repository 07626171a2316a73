package session

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Choose asks for one of the kinds of Pending.Kinds: what must go out goes out now.
// What was asked for already is not asked for again, unless again says so. The fault is
// TooMany or Unavailable when nothing could be sent, and Expired when the sign-in is over.
func (m *Sessions) Choose(ctx context.Context, raw, kind string, again bool, address string) (*Pending, error) {
	if err := m.limits.look(address); err != nil {
		return nil, err
	}
	var out *Pending
	var denied error
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out, denied = nil, nil
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if Next(row.Stage) != AskCode || !asks(row.Stage, st, kind) {
			return fault.New(fault.BadRequest, nil)
		}
		if st.Asked != nil && st.Asked.Kind == kind && !st.Asked.over(now) && !again {
			out = m.pendingOf(AskCode, st, u, now)
			return nil
		}
		name, err := m.doorName(ctx, tx.Queries)
		if err != nil {
			return err
		}
		ask := factor.Ask{User: u, Ticket: row.ID, Door: factor.AtPortal, Name: name, Service: service, Address: address, Program: st.Kind == CLI, Now: now}
		before := st.Asked
		if st.Asked, denied, err = m.send(ctx, tx, kind, ask); err != nil || denied != nil {
			return err
		}
		if err := m.withdrawOther(ctx, tx, before, kind); err != nil {
			return err
		}
		out = m.pendingOf(AskCode, st, u, now)
		return m.keepState(ctx, tx, row, AskCode, st, row.Wrong)
	})
	if err == nil {
		err = denied
	}
	return out, err
}

// doorName is what people call this door, where a phone shows it beside the names of
// machines: the host in their browser's address bar.
func (m *Sessions) doorName(ctx context.Context, q *db.Queries) (string, error) {
	at, err := settings.People(ctx, q, m.PeopleURL)
	if err != nil {
		return "", err
	}
	return cmp.Or(strings.TrimPrefix(at, "https://"), attempts.Name(attempts.Door)), nil
}

// send has a factor send what it must. denied is for the person, with a transaction
// that is stored: what the factor has written, such as an event, stays.
func (m *Sessions) send(ctx context.Context, tx *store.Tx, kind string, ask factor.Ask) (a *asked, denied, err error) {
	plug, err := m.plug(kind)
	if err != nil {
		return nil, nil, err
	}
	a = &asked{Asked: Asked{Kind: kind}, Ticket: ask.Ticket}
	if s, ok := plug.(factor.Sender); ok {
		a.Sent, err = s.Send(ctx, tx, ask)
		switch {
		case fault.Is(err, fault.TooMany) || fault.Is(err, fault.Unavailable):
			return nil, err, nil
		case err != nil:
			return nil, nil, err
		}
		a.Sent.Data = nil
	}
	return a, nil, nil
}

// keepState stores what the sign-in has come to. Of two at once one does.
func (m *Sessions) keepState(ctx context.Context, tx *store.Tx, row db.Signin, stage Next, st state, wrong int64) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	n, err := tx.AdvanceSignin(ctx, db.AdvanceSigninParams{
		ID: row.ID, Rev: row.Rev, Stage: string(stage), Data: m.Keys.Box.Seal(b, "signins", "data", row.ID), Wrong: wrong,
	})
	clear(b)
	if err == nil && n == 0 {
		err = fault.New(fault.Conflict, nil)
	}
	return err
}

// Answer judges an answer: kind is one of Pending.Kinds, or Enrol. Where the answer comes
// another way (Kind.Waits) it looks whether it has come, whatever the code: for up to
// four seconds, and Opened.Pending then says that it goes on. The fault is Expired when
// the sign-in is over, TooMany when somebody must wait, and Invalid with the field "code"
// when the answer was wrong and another may be tried.
func (m *Sessions) Answer(ctx context.Context, raw, kind string, code secret.Bytes, address string) (Opened, error) {
	if w, ok := m.waits(kind); ok {
		return m.look(ctx, raw, kind, w, address)
	}
	if err := m.limits.take(address); err != nil {
		return Opened{}, err
	}
	if err := typed(kind, code); err != nil {
		return Opened{}, err
	}
	// First the attempt is on the disk.
	var counted *attempts.Counted
	var block attempts.Block
	var claimed int64
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if !asks(row.Stage, st, kind) {
			return fault.New(fault.BadRequest, nil)
		}
		p, err := policyOf(ctx, tx.Queries, u, now)
		if err != nil {
			return err
		}
		if counted, block, err = attempts.Count(ctx, tx, u.ID, st.Place, p, now); err != nil || block.On() {
			return err
		}
		// Of two answers at once one is judged.
		claimed = row.Rev + 1
		n, err := tx.AdvanceSignin(ctx, db.AdvanceSigninParams{ID: row.ID, Rev: row.Rev, Stage: row.Stage, Data: row.Data, Wrong: row.Wrong + 1})
		if err == nil && n == 0 {
			err = fault.New(fault.Conflict, nil)
		}
		return err
	})
	switch {
	case err != nil:
		return Opened{}, err
	case block.On():
		return Opened{}, wait(block, m.Clock.Now())
	}
	var out Opened
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out, denied = Opened{}, nil
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if row.Rev != claimed || !asks(row.Stage, st, kind) {
			return fault.New(fault.Conflict, nil)
		}
		v, enrolCode, err := m.judge(ctx, tx, kind, factor.Try{User: u, Machine: attempts.Door, Typed: code, Ticket: st.Asked.ticket(kind), Door: factor.AtPortal, Now: now})
		if err != nil {
			return err
		}
		if !v.OK() {
			denied, err = m.rejected(ctx, tx, row, st, u, kind, v, counted, address, now)
			return err
		}
		if err := counted.TakeBack(ctx, tx); err != nil {
			return err
		}
		return m.accepted(ctx, tx, row, st, u, kind, enrolCode, raw, v, address, now, &out)
	})
	if err == nil {
		err = denied
	}
	if err != nil {
		return Opened{}, err
	}
	return out, nil
}

// look sees whether the answer has come that comes another way. A program that has lost
// its connection meanwhile, at whichever step, does not come back: its sign-in is given up.
// A browser does: on a phone its page sleeps while the request is approved beside it.
func (m *Sessions) look(ctx context.Context, raw, kind string, w factor.Waiter, address string) (Opened, error) {
	if err := m.limits.look(address); err != nil {
		return Opened{}, err
	}
	out, err := m.looked(ctx, raw, kind, w, address)
	if ctx.Err() != nil {
		err = errors.Join(err, m.leaving(ctx, func(ctx context.Context) error { return m.giveUp(ctx, raw, CLI) }))
	}
	return out, err
}

// looked does so. That is no attempt, unless the answer is no: what can be guessed at lies
// on the phone.
func (m *Sessions) looked(ctx context.Context, raw, kind string, w factor.Waiter, address string) (Opened, error) {
	var ticket string
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		row, st, _, err := m.resume(ctx, q, raw, m.Clock.Now())
		if err != nil {
			return err
		}
		if !asks(row.Stage, st, kind) || st.Asked == nil || st.Asked.Kind != kind {
			return fault.New(fault.BadRequest, nil)
		}
		ticket = st.Asked.Ticket
		return nil
	})
	if err != nil {
		return Opened{}, err
	}
	waiting, cancel := context.WithTimeout(ctx, m.LongestLook)
	w.Wait(waiting, ticket)
	cancel()
	if err := ctx.Err(); err != nil {
		return Opened{}, err // nobody is there any more who would get the session
	}
	var out Opened
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out, denied = Opened{}, nil
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if !asks(row.Stage, st, kind) || st.Asked.ticket(kind) != ticket {
			return fault.New(fault.Conflict, nil)
		}
		// Who must wait waits, whatever his phone says.
		block, err := attempts.Blocked(ctx, tx, u.ID, st.Place, now)
		if err != nil {
			return err
		}
		if block.On() {
			denied = wait(block, now)
			return nil
		}
		v, _, err := m.judge(ctx, tx, kind, factor.Try{User: u, Machine: attempts.Door, Ticket: ticket, Door: factor.AtPortal, Now: now})
		if err != nil {
			return err
		}
		switch v.Outcome {
		case factor.Accepted:
			return m.accepted(ctx, tx, row, st, u, kind, "", raw, v, address, now, &out)
		case factor.Waiting:
			out.Pending, out.Secret = m.pendingOf(AskCode, st, u, now), secret.FromString(raw)
			return nil
		case factor.Over:
			st.Asked, denied = nil, wrongField(FieldCode, said(v))
			return errors.Join(m.noteFactor(tx, event.FactorRejected, u, kind, v.Reason, address, v), m.keepState(ctx, tx, row, AskCode, st, row.Wrong))
		case factor.Rejected, factor.Ended:
		default:
			return fault.New(fault.Internal, fmt.Errorf("factor %q: %s", kind, v.Outcome))
		}
		if err := m.noteFactor(tx, event.FactorRejected, u, kind, v.Reason, address, v); err != nil {
			return err
		}
		// Somebody has said no. That counts as a wrong code does: who makes somebody else's
		// phone ring has the password, and is to be slowed down.
		p, err := policyOf(ctx, tx.Queries, u, now)
		if err != nil {
			return err
		}
		counted, _, err := attempts.Count(ctx, tx, u.ID, st.Place, p, now)
		if err != nil {
			return err
		}
		if err := m.lockedNow(tx, &u, address, counted); err != nil {
			return err
		}
		denied = fault.Newf(fault.Expired, "%s", said(v))
		if _, err := tx.DeleteSignin(ctx, row.ID); err != nil {
			return err
		}
		return m.note(tx, event.Event{
			Type: event.SessionDenied, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Outcome: denyOutcome, Reason: v.Reason, Factor: kind,
		}, map[string]any{"kind": st.Kind, "agent": st.Agent})
	})
	if err == nil {
		err = denied
	}
	if err != nil {
		return Opened{}, err
	}
	return out, nil
}

// accepted goes on behind an accepted factor: to the session, or to a password that is
// due.
func (m *Sessions) accepted(ctx context.Context, tx *store.Tx, row db.Signin, st state, u db.User, kind, enrolCode, raw string, v factor.Verdict, address string, now time.Time, out *Opened) error {
	if err := m.noteFactor(tx, event.FactorAccepted, u, kind, "", address, v); err != nil {
		return err
	}
	out.Tell = v.Tell
	if err := m.withdrawOther(ctx, tx, st.Asked, kind); err != nil {
		return err
	}
	if kind == Backup {
		if err := m.noteFactor(tx, event.CodeSpent, u, kind, "", address, v); err != nil {
			return err
		}
	}
	if st.Change != "" && kind != Enrol {
		st.Given, st.Asked = kind, nil
		out.Pending, out.Secret = m.pendingOf(AskNewPassword, st, u, now), secret.FromString(raw)
		return m.keepState(ctx, tx, row, AskNewPassword, st, 0)
	}
	return m.finish(ctx, tx, row, st, u, kind, enrolCode, address, now, out)
}

// ticket is what an answer of the kind is bound to.
func (a *asked) ticket(kind string) string {
	if a == nil || a.Kind != kind {
		return ""
	}
	return a.Ticket
}

// asks tells whether the stage takes a code of the kind.
func asks(stage string, st state, kind string) bool {
	switch Next(stage) {
	case AskCode:
		return slices.Contains(st.Kinds, kind)
	case AskEnrolCode:
		return kind == Enrol
	}
	return false
}

func wait(b attempts.Block, now time.Time) error {
	if b.Locked {
		return fault.Newf(fault.TooMany, "%s", text.Locked(b.Until.Sub(now)))
	}
	return fault.Newf(fault.TooMany, "%s", text.Wait(b.Until.Sub(now)))
}

// judge judges an answer in the transaction that stores what comes of it. An enrolment
// code is only found here: it is spent by whoever makes the first authenticator.
func (m *Sessions) judge(ctx context.Context, tx *store.Tx, kind string, t factor.Try) (v factor.Verdict, enrolCode string, err error) {
	if kind == Enrol {
		row, err := m.Factors.FindEnrol(ctx, tx.Queries, t.User.ID, t.Typed, t.Now)
		if err != nil {
			return v, "", err
		}
		if row == nil {
			return factor.Verdict{Reason: factor.ReasonWrong, Text: text.EnrolWrong}, "", nil
		}
		return factor.Verdict{Outcome: factor.Accepted, ID: row.ID, Data: map[string]any{"code": row.ID}}, row.ID, nil
	}
	if !Strong(kind) && !slices.Contains(modest, kind) {
		return v, "", fault.New(fault.BadRequest, nil)
	}
	plug, err := m.plug(kind)
	if err != nil {
		return v, "", err
	}
	if _, ok := plug.(factor.Sender); ok && t.Ticket == "" {
		// Nothing was sent, so that nothing can answer it.
		return v, "", fault.New(fault.BadRequest, nil)
	}
	v, err = plug.Judge(ctx, tx, t)
	if err == nil && v.OK() && !v.Own {
		err = fault.New(fault.Internal, fmt.Errorf("factor %q is not the user's own", kind))
	}
	return v, "", err
}

// rejected notes a wrong code. Who has had three begins anew.
func (m *Sessions) rejected(ctx context.Context, tx *store.Tx, row db.Signin, st state, u db.User, kind string, v factor.Verdict, counted *attempts.Counted, address string, now time.Time) (denied, err error) {
	if err := m.noteFactor(tx, event.FactorRejected, u, kind, v.Reason, address, v); err != nil {
		return nil, err
	}
	if err := m.lockedNow(tx, &u, address, counted); err != nil {
		return nil, err
	}
	b, err := attempts.Blocked(ctx, tx, u.ID, st.Place, now)
	if err != nil {
		return nil, err
	}
	over, reason := error(nil), ""
	switch {
	case v.Outcome == factor.Ended: // all that was under way has ended with it
		over, reason = fault.Newf(fault.Expired, "%s", v.Text), v.Reason
	case b.On() && b.Locked:
		over, reason = wait(b, now), string(policy.ReasonLocked)
	case row.Wrong >= maxWrong:
		over, reason = fault.Newf(fault.Expired, text.DeniedCodes), reasonTooMany
	case b.On():
		return wrongField(FieldCode, said(v)+" "+text.Wait(b.Until.Sub(now))), m.forget(ctx, tx, row, st, kind)
	default:
		return wrongField(FieldCode, said(v)), m.forget(ctx, tx, row, st, kind)
	}
	if err := m.withdraw(ctx, tx, st.Asked); err != nil {
		return nil, err
	}
	if _, err := tx.DeleteSignin(ctx, row.ID); err != nil {
		return nil, err
	}
	return over, m.note(tx, event.Event{
		Type: event.SessionDenied, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Outcome: denyOutcome, Reason: reason, Factor: kind,
	}, map[string]any{"kind": st.Kind, "agent": st.Agent})
}

// forget drops what was asked for where one answer is all that it takes: a key is asked
// anew, over another challenge.
func (m *Sessions) forget(ctx context.Context, tx *store.Tx, row db.Signin, st state, kind string) error {
	if kind != FIDO2 || st.Asked == nil {
		return nil
	}
	st.Asked = nil
	return m.keepState(ctx, tx, row, Next(row.Stage), st, row.Wrong)
}

func (m *Sessions) noteFactor(tx *store.Tx, typ event.Type, u db.User, kind, reason, address string, v factor.Verdict) error {
	data := map[string]any{}
	for k, x := range v.Data {
		data[k] = x
	}
	if v.ID != "" && typ == event.FactorRejected {
		data["id"] = v.ID
	}
	if kind == Enrol {
		kind = "enrol-code"
	}
	return m.note(tx, event.Event{Type: typ, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Reason: reason, Factor: kind}, data)
}

// finish opens the session and ends the sign-in.
func (m *Sessions) finish(ctx context.Context, tx *store.Tx, row db.Signin, st state, u db.User, kind, enrolCode, address string, now time.Time, out *Opened) error {
	n, err := tx.DeleteSignin(ctx, row.ID)
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.New(fault.Conflict, nil)
	}
	if kind != Enrol {
		// The failures of this place and across places are forgotten behind what the user
		// holds. A help desk's code is not that.
		if _, err := tx.ForgiveAttempts(ctx, db.ForgiveAttemptsParams{UserID: u.ID, MachineID: st.Place}); err != nil {
			return err
		}
		if err := m.activate(ctx, tx, &u, address, now); err != nil {
			return err
		}
	}
	s, hash, err := newSecret(m.Random, sessionPrefix)
	if err != nil {
		return err
	}
	in := db.InsertSessionParams{
		Kind: st.Kind, Factor: kind, EnrolCode: enrolCode, FreshAt: clock.Micros(now), EndsAt: clock.Micros(now.Add(Absolute)), Address: address, Agent: st.Agent,
	}
	if kind == Enrol {
		in.FreshAt, in.EndsAt = 0, clock.Micros(now.Add(EnrolTime))
	}
	if out.Session, err = m.open(ctx, tx, u, in, hash, st.NewBrowser, now); err != nil {
		return err
	}
	out.Secret, out.Pending = s, nil
	if Strong(kind) && st.Kind == Browser && st.Place == attempts.Door {
		out.Known, err = m.known(u.ID)
	}
	return err
}

// activate notes the first sign-in of a user who was made for that (D1).
func (m *Sessions) activate(ctx context.Context, tx *store.Tx, u *db.User, address string, now time.Time) error {
	if u.ActivatedAt != 0 || u.Activation == facts.ActivationNow {
		return nil
	}
	n, err := tx.ActivateUser(ctx, db.ActivateUserParams{ID: u.ID, At: clock.Micros(now)})
	if err != nil || n == 0 {
		return err
	}
	return m.note(tx, event.Event{Type: event.UserChanged, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Reason: "first-login"}, map[string]any{"activated": true})
}
