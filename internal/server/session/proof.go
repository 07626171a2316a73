package session

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Proof is how a session may prove anew who sits there.
type Proof struct {
	Kinds []Kind // strongest first
	Other []Kind // that a browser alone could take
	Asked Asked
}

// proofs are the factors with which the session may do so: one that opens the console
// takes none that does not.
func (m *Sessions) proofs(ctx context.Context, q *db.Queries, s *Session, now time.Time) (db.User, ways, *asked, error) {
	var k ways
	if s == nil || s.Factor == Enrol {
		return db.User{}, k, nil, fault.New(fault.BadRequest, nil)
	}
	row, err := m.standing(ctx, q, s)
	if err != nil {
		return db.User{}, k, nil, err
	}
	if k.here, k.elsewhere, err = m.usable(ctx, q, row.User, s.Kind == CLI, s.Console, now); err != nil {
		return db.User{}, k, nil, err
	}
	if len(row.Session.Proof) == 0 {
		return row.User, k, nil, nil
	}
	b, err := m.Keys.Box.Open(row.Session.Proof, "sessions", "proof", s.ID)
	if err != nil {
		return db.User{}, k, nil, fmt.Errorf("step-up: %w", err)
	}
	defer b.Wipe()
	var a asked
	if err := json.Unmarshal(b.Reveal(), &a); err != nil {
		return db.User{}, k, nil, fmt.Errorf("step-up: %w", err)
	}
	return row.User, k, &a, nil
}

// ways are the factors that a session may be asked for, and those that only a browser
// could take.
type ways struct{ here, elsewhere []string }

func (m *Sessions) proofOf(k ways, a *asked, now time.Time) *Proof {
	return &Proof{Kinds: m.kindsOf(k.here), Other: m.kindsOf(k.elsewhere), Asked: a.shown(now)}
}

// Proof says how the session may prove anew who sits there, and what it was asked for.
func (m *Sessions) Proof(ctx context.Context, s *Session) (*Proof, error) {
	var p *Proof
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		now := m.Clock.Now()
		_, kinds, a, err := m.proofs(ctx, q, s, now)
		if err == nil {
			p = m.proofOf(kinds, a, now)
		}
		return err
	})
	return p, err
}

// ChooseProof is Choose for a step-up.
func (m *Sessions) ChooseProof(ctx context.Context, s *Session, kind string, again bool, address string) (*Proof, error) {
	if err := m.limits.look(address); err != nil {
		return nil, err
	}
	var out *Proof
	var denied error
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out, denied = nil, nil
		now := m.Clock.Now()
		u, kinds, a, err := m.proofs(ctx, tx.Queries, s, now)
		if err != nil {
			return err
		}
		if !slices.Contains(kinds.here, kind) {
			return fault.New(fault.BadRequest, nil)
		}
		if a == nil || a.Kind != kind || a.over(now) || again {
			name, err := m.doorName(ctx, tx.Queries)
			if err != nil {
				return err
			}
			ask := factor.Ask{
				User: u, Ticket: s.ID + ":" + store.NewID(), Door: factor.AtStepUp, Name: name, Service: service, Address: address,
				Program: s.Kind == CLI, Now: now,
			}
			before := a
			if a, denied, err = m.send(ctx, tx, kind, ask); err != nil || denied != nil {
				return err
			}
			if err := m.withdrawOther(ctx, tx, before, kind); err != nil {
				return err
			}
			if err := m.keepProof(ctx, tx, s, a); err != nil {
				return err
			}
		}
		out = m.proofOf(kinds, a, now)
		return nil
	})
	if err == nil {
		err = denied
	}
	return out, err
}

// keepProof stores what the session was asked for; nil: nothing any more.
func (m *Sessions) keepProof(ctx context.Context, tx *store.Tx, s *Session, a *asked) error {
	var sealed []byte
	if a != nil {
		b, err := json.Marshal(a)
		if err != nil {
			return err
		}
		sealed = m.Keys.Box.Seal(b, "sessions", "proof", s.ID)
		clear(b)
	}
	n, err := tx.SetSessionProof(ctx, db.SetSessionProofParams{ID: s.ID, SecretHash: s.hash, Proof: sealed})
	if err == nil && n == 0 {
		err = fault.New(fault.Unauthorized, nil)
	}
	return err
}

// StepUp judges a second factor again; kind is one of Proof.Kinds. The session has
// another secret from then on. Where the answer comes another way it looks whether it has
// come, as Answer does; a Proof says that it has not.
func (m *Sessions) StepUp(ctx context.Context, s *Session, kind string, code secret.Bytes, address string) (Secret, *Proof, error) {
	if s == nil {
		return Secret{}, nil, fault.New(fault.Unauthorized, nil)
	}
	w, waits := m.waits(kind)
	limit := m.limits.take
	if waits {
		limit = m.limits.look
	}
	if err := limit(address); err != nil {
		return Secret{}, nil, err
	}
	out, still, err := m.stepUp(ctx, s, kind, code, w, address)
	if waits && s.Kind == CLI && ctx.Err() != nil { // as in look
		err = errors.Join(err, m.leaving(ctx, func(ctx context.Context) error { return m.leaveProof(ctx, s) }))
	}
	return out, still, err
}

// stepUp does so; w is nil where the answer is the code.
func (m *Sessions) stepUp(ctx context.Context, s *Session, kind string, code secret.Bytes, w factor.Waiter, address string) (Secret, *Proof, error) {
	waits := w != nil
	// Whoever sits at somebody's open session guesses at a place of its own.
	place := attempts.Browser("session:" + s.ID)
	var counted *attempts.Counted
	var block attempts.Block
	var ticket string
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		u, kinds, a, err := m.proofs(ctx, tx.Queries, s, now)
		switch {
		case err != nil:
			return err
		case !slices.Contains(kinds.here, kind):
			return fault.New(fault.BadRequest, nil)
		}
		ticket = a.ticket(kind)
		if waits {
			if ticket == "" {
				return fault.New(fault.BadRequest, nil)
			}
			block, err = attempts.Blocked(ctx, tx, u.ID, place, now)
			return err
		}
		if err := typed(kind, code); err != nil {
			return err
		}
		p, err := policyOf(ctx, tx.Queries, u, now)
		if err != nil {
			return err
		}
		counted, block, err = attempts.Count(ctx, tx, u.ID, place, p, now)
		return err
	})
	switch {
	case err != nil:
		return Secret{}, nil, err
	case block.On():
		return Secret{}, nil, wait(block, m.Clock.Now())
	}
	if waits {
		waiting, cancel := context.WithTimeout(ctx, m.LongestLook)
		w.Wait(waiting, ticket)
		cancel()
		if err := ctx.Err(); err != nil {
			return Secret{}, nil, err
		}
	}
	var out Secret
	var still *Proof
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out, still, denied = Secret{}, nil, nil
		now := m.Clock.Now()
		u, kinds, a, err := m.proofs(ctx, tx.Queries, s, now)
		switch {
		case err != nil:
			return err
		case !slices.Contains(kinds.here, kind) || a.ticket(kind) != ticket:
			return fault.New(fault.Conflict, nil)
		}
		v, _, err := m.judge(ctx, tx, kind, factor.Try{User: u, Machine: attempts.Door, Typed: code, Ticket: ticket, Door: factor.AtStepUp, Now: now})
		if err != nil {
			return err
		}
		switch v.Outcome {
		case factor.Accepted:
		case factor.Waiting:
			still = m.proofOf(kinds, a, now)
			return nil
		case factor.Rejected, factor.Over, factor.Ended:
			denied = wrongField(FieldCode, said(v))
			if err := m.noteFactor(tx, event.FactorRejected, u, kind, v.Reason, address, v); err != nil {
				return err
			}
			if waits || kind == FIDO2 {
				err := m.keepProof(ctx, tx, s, nil)
				if v.Outcome == factor.Ended && fault.Is(err, fault.Unauthorized) {
					// This session has ended with what was found. That must stand.
					denied, err = fault.Newf(fault.Unauthorized, "%s", v.Text), nil
				}
				if err != nil {
					return err
				}
			}
			no := counted
			if waits && v.Outcome != factor.Over { // as in look
				p, err := policyOf(ctx, tx.Queries, u, now)
				if err != nil {
					return err
				}
				if no, _, err = attempts.Count(ctx, tx, u.ID, place, p, now); err != nil {
					return err
				}
			}
			return m.lockedNow(tx, &u, address, no)
		default:
			return fault.New(fault.Internal, fmt.Errorf("factor %q: %s", kind, v.Outcome))
		}
		if counted != nil {
			if err := counted.TakeBack(ctx, tx); err != nil {
				return err
			}
		}
		if err := m.noteFactor(tx, event.FactorAccepted, u, kind, "", address, v); err != nil {
			return err
		}
		if err := m.withdrawOther(ctx, tx, a, kind); err != nil {
			return err
		}
		if kind == Backup {
			if err := m.noteFactor(tx, event.CodeSpent, u, kind, "", address, v); err != nil {
				return err
			}
		}
		if out, err = m.rotate(ctx, tx, s, s.Factor, s.EnrolCode, s.Ends, now); err != nil {
			return err
		}
		return m.note(tx, event.Event{Type: event.SessionSteppedUp, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Factor: kind},
			map[string]any{"session": SessionPrefix + s.ID})
	})
	if err == nil {
		err = denied
	}
	return out, still, err
}

// present is the user of a session that still stands.
func (m *Sessions) present(ctx context.Context, q *db.Queries, s *Session) (db.User, error) {
	row, err := m.standing(ctx, q, s)
	return row.User, err
}

// standing is a session as it lies in the table, if it still stands.
func (m *Sessions) standing(ctx context.Context, q *db.Queries, s *Session) (db.GetSessionRow, error) {
	row, err := q.GetSession(ctx, s.ID)
	switch {
	case store.IsNotFound(err):
		return db.GetSessionRow{}, fault.New(fault.Unauthorized, nil)
	case err != nil:
		return db.GetSessionRow{}, err
	}
	if sessionOf(row.Session, row.User, m.Clock.Now()) == nil || !hmac.Equal(row.Session.SecretHash, s.hash) {
		return db.GetSessionRow{}, fault.New(fault.Unauthorized, nil)
	}
	return row, nil
}

// rotate gives the session another secret; the old one is worth nothing.
func (m *Sessions) rotate(ctx context.Context, tx *store.Tx, s *Session, kind, enrolCode string, ends, now time.Time) (Secret, error) {
	out, hash, err := newSecret(m.Random, sessionPrefix)
	if err != nil {
		return out, err
	}
	n, err := tx.RotateSession(ctx, db.RotateSessionParams{
		ID: s.ID, OldHash: s.hash, NewHash: hash, At: clock.Micros(now), Factor: kind, EnrolCode: enrolCode, EndsAt: clock.Micros(ends),
	})
	if err != nil {
		return out, fmt.Errorf("rotate a session: %w", err)
	}
	if n == 0 {
		return out, fault.New(fault.Unauthorized, nil)
	}
	return out, nil
}

// Enrolled makes a session that an enrolment code has opened a whole one, once the
// first authenticator stands. The session has another secret from then on. Where the
// password is due, the session ends instead: the next sign-in asks for both.
func (m *Sessions) Enrolled(ctx context.Context, s *Session, address string) (Secret, error) {
	if s == nil || s.Factor != Enrol {
		return Secret{}, fault.New(fault.BadRequest, nil)
	}
	var out Secret
	var denied error
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out, denied = Secret{}, nil
		now := m.Clock.Now()
		u, err := m.present(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		// The code that has opened the session was spent for an authenticator of the user:
		// that one makes it whole, and no other.
		code, err := tx.GetEnrolCode(ctx, s.EnrolCode)
		if err != nil && !store.IsNotFound(err) {
			return err
		}
		have, err := tx.ListUsableAuthenticators(ctx, u.ID)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(have, func(a db.Authenticator) bool { return a.ID == code.Made })
		if code.UserID != u.ID || code.UsedAt == 0 || code.Made == "" || i < 0 || !Strong(have[i].Kind) {
			return fault.Newf(fault.Forbidden, "Set up your second factor first.")
		}
		kind := have[i].Kind
		if err := m.activate(ctx, tx, &u, address, now); err != nil {
			return err
		}
		if u.MustChange {
			denied = fault.Newf(fault.Unauthorized, "Your second factor is set up. Sign in again with it: then you choose a new password.")
			_, err := tx.DeleteSession(ctx, s.ID)
			return err
		}
		if out, err = m.rotate(ctx, tx, s, kind, "", s.Began.Add(Absolute), now); err != nil {
			return err
		}
		return m.note(tx, event.Event{Type: event.SessionSteppedUp, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Factor: kind, Reason: "enrolled"},
			map[string]any{"session": SessionPrefix + s.ID})
	})
	if err == nil {
		err = denied
	}
	return out, err
}
