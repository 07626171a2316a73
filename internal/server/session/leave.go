package session

import (
	"context"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/server/store"
)

// This file is about people who do not wait any more for an answer that comes another way:
// what asked for it is withdrawn, so that no phone shows a request behind which there is
// nobody, and the next one goes out at once (S12).

// withdraw ends what was sent and waits for an answer; nil: nothing was asked.
func (m *Sessions) withdraw(ctx context.Context, tx *store.Tx, a *asked) error {
	if !m.waiting(a) {
		return nil
	}
	w, _ := m.waits(a.Kind)
	return w.Withdraw(ctx, tx, a.Ticket)
}

// waiting tells whether something was sent whose answer comes another way.
func (m *Sessions) waiting(a *asked) bool {
	if a == nil {
		return false
	}
	_, ok := m.waits(a.Kind)
	return ok
}

// withdrawOther does so unless it is of this kind.
func (m *Sessions) withdrawOther(ctx context.Context, tx *store.Tx, a *asked, kind string) error {
	if a == nil || a.Kind == kind {
		return nil
	}
	return m.withdraw(ctx, tx, a)
}

// leaveTime bounds what is done for somebody who is not there any more.
const leaveTime = 5 * time.Second

// leaving does it although the caller's context has ended.
func (m *Sessions) leaving(ctx context.Context, do func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTime)
	defer cancel()
	return do(ctx)
}

// Leave withdraws what a sign-in waits for and keeps the sign-in: its page was left, and
// may be opened again.
func (m *Sessions) Leave(ctx context.Context, raw, address string) error {
	if err := m.limits.look(address); err != nil {
		return err
	}
	return m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		row, st, _, err := m.resume(ctx, tx.Queries, raw, m.Clock.Now())
		if fault.Is(err, fault.Expired) {
			return nil // there is nothing any more
		}
		if err != nil {
			return err
		}
		if !m.waiting(st.Asked) {
			return nil
		}
		if err := m.withdraw(ctx, tx, st.Asked); err != nil {
			return err
		}
		st.Asked = nil
		return m.keepState(ctx, tx, row, Next(row.Stage), st, row.Wrong)
	})
}

// LeaveProof does so with a step-up: the session stays.
func (m *Sessions) LeaveProof(ctx context.Context, s *Session, address string) error {
	if err := m.limits.look(address); err != nil {
		return err
	}
	return m.leaveProof(ctx, s)
}

func (m *Sessions) leaveProof(ctx context.Context, s *Session) error {
	return m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, _, a, err := m.proofs(ctx, tx.Queries, s, m.Clock.Now())
		if fault.Is(err, fault.Unauthorized) || fault.Is(err, fault.BadRequest) {
			return nil // the session has ended meanwhile, or is none that could prove anything
		}
		if err != nil {
			return err
		}
		if !m.waiting(a) {
			return nil
		}
		if err := m.withdraw(ctx, tx, a); err != nil {
			return err
		}
		return m.keepProof(ctx, tx, s, nil)
	})
}
