package session

import (
	"context"
	"errors"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// NewPassword changes the password that is due, and goes on. The fault is Invalid with
// the field "password" or "again" when another may be tried.
func (m *Sessions) NewPassword(ctx context.Context, raw string, password, again secret.Bytes, address string) (Opened, error) {
	if err := m.limits.take(address); err != nil {
		return Opened{}, err
	}
	var u db.User
	err := m.Store.Read(ctx, func(q *store.Queries) (err error) {
		var row db.Signin
		if row, _, u, err = m.resume(ctx, q, raw, m.Clock.Now()); err == nil && row.Stage != string(AskNewPassword) {
			err = fault.New(fault.BadRequest, nil)
		}
		return err
	})
	if err != nil {
		return Opened{}, err
	}
	proposal, err := m.propose(ctx, u, password, again)
	if err != nil {
		return Opened{}, err
	}
	var out Opened
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out = Opened{}
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if row.Stage != string(AskNewPassword) || st.Given == "" {
			return fault.New(fault.BadRequest, nil)
		}
		if err := m.Directories.Of(&u).Apply(ctx, tx, u, proposal, now); err != nil {
			return err
		}
		if u, err = tx.GetUser(ctx, u.ID); err != nil {
			return err
		}
		if err := m.finish(ctx, tx, row, st, u, st.Given, "", address, now, &out); err != nil {
			return err
		}
		changed := event.Event{Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Reason: st.Change}
		return ending.Password(ctx, tx, changed, nil, out.Session.ID, now)
	})
	return out, err
}

// propose judges a new password that was typed twice.
func (m *Sessions) propose(ctx context.Context, u db.User, password, again secret.Bytes) ([]byte, error) {
	switch {
	case password.Empty():
		return nil, wrongField(FieldPassword, text.NothingTyped)
	case !password.Equal(again):
		return nil, wrongField(FieldAgain, "the two passwords are not the same")
	}
	proposal, err := m.Directories.Of(&u).Propose(ctx, u, password)
	var refusal *directory.Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, wrongField(FieldPassword, refusal.Text)
	case errors.Is(err, directory.ErrBusy):
		return nil, busy()
	}
	return proposal, err
}

// Password judges a user's own password anew, behind a session: counted like a sign-in,
// at a place of its own. The fault is Invalid with the field "old" when it is wrong.
func (m *Sessions) Password(ctx context.Context, userID, address string, password secret.Bytes) error {
	if err := m.limits.take(address); err != nil {
		return err
	}
	const place = "password"
	var u db.User
	var counted *attempts.Counted
	var block attempts.Block
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		now := m.Clock.Now()
		if u, err = tx.GetUser(ctx, userID); err != nil {
			if store.IsNotFound(err) {
				err = fault.New(fault.Unauthorized, nil)
			}
			return err
		}
		p, err := policyOf(ctx, tx.Queries, u, now)
		if err != nil {
			return err
		}
		counted, block, err = attempts.Count(ctx, tx, u.ID, attempts.Browser(place), p, now)
		return err
	})
	switch {
	case err != nil:
		return err
	case block.On():
		return wait(block, m.Clock.Now())
	}
	waiting, cancel := context.WithTimeout(ctx, signinPatience)
	defer cancel()
	verdict := m.Directories.Of(&u).Verify(waiting, &u, password)
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		denied = nil
		switch {
		case verdict == directory.Unavailable:
			denied = busy()
		case !verdict.Proved():
			denied = wrongField("old", "that is not your password")
			err := m.note(tx, event.Event{
				Type: event.FactorRejected, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Reason: reasonFirst, Factor: "password",
			}, nil)
			if err != nil {
				return err
			}
			return m.lockedNow(tx, &u, address, counted)
		}
		return counted.TakeBack(ctx, tx)
	})
	if err == nil {
		err = denied
	}
	return err
}
