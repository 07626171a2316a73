package session

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// SessionPrefix begins the id of a session at the edge.
const SessionPrefix = "ses_"

// seeEvery is how often the use of a session is written down.
const seeEvery = time.Minute

// maxSessions is how many sessions one account may have: the one that was used the
// longest ago makes room.
const maxSessions = 20

// OfRequest is the session of a browser's request; nil without an error if there is
// none, or one that has ended.
func (m *Sessions) OfRequest(r *http.Request) (*Session, error) {
	v := cookie(r, Cookie)
	if v == "" {
		return nil, nil
	}
	return m.find(WithPeer(r.Context(), r.TLS), v, Browser)
}

// OfProgram is the session that a program holds (its secret begins with CLIPrefix);
// nil without an error if there is none, or one that has ended.
func (m *Sessions) OfProgram(ctx context.Context, raw string) (*Session, error) {
	return m.find(ctx, raw, CLI)
}

func (m *Sessions) find(ctx context.Context, raw, kind string) (*Session, error) {
	hash, ok := parseSecret(sessionPrefix, raw)
	if !ok {
		return nil, nil
	}
	var row db.GetSessionBySecretRow
	err := m.Store.Read(ctx, func(q *store.Queries) (err error) {
		row, err = q.GetSessionBySecret(ctx, hash)
		return err
	})
	switch {
	case store.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fault.New(fault.Unavailable, err)
	}
	now := m.Clock.Now()
	s := sessionOf(row.Session, row.User, now)
	if s == nil || s.Kind != kind {
		return nil, nil
	}
	if byCertificate(s.Factor) {
		var ok bool
		err := m.Store.Read(ctx, func(q *store.Queries) (err error) {
			ok, err = m.bound(ctx, q, s, now)
			return err
		})
		switch {
		case err != nil:
			return nil, fault.New(fault.Unavailable, err)
		case !ok:
			return nil, nil
		}
	}
	if now.Sub(s.Seen) >= seeEvery {
		// Who looks at two pages at once writes once.
		err := m.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.SeeSession(ctx, db.SeeSessionParams{ID: s.ID, At: clock.Micros(now)})
			return err
		})
		if err != nil {
			// It goes on without: a full disk must not sign everybody out.
			m.Logger.WarnContext(ctx, "the use of a session was not written down", "error", err)
		}
		s.Seen = now
	}
	return s, nil
}

// sessionOf is the session as it is now, or nil if it is none any more.
func sessionOf(r db.Session, u db.User, now time.Time) *Session {
	s := &Session{
		ID: r.ID, UserID: u.ID, Name: u.Name, Display: u.DisplayName, Role: u.Role, Kind: r.Kind, Factor: r.Factor, EnrolCode: r.EnrolCode,
		Began: rest.Time(r.BeganAt), Seen: rest.Time(r.SeenAt), Fresh: rest.Time(r.FreshAt), Ends: rest.Time(r.EndsAt), Address: r.Address, Agent: r.Agent,
		hash: r.SecretHash,
	}
	switch {
	case u.Disabled || facts.NotYet(u, now) || u.PasswordChangedAt != r.PasswordAt:
		return nil
	case !now.Before(s.Ends) || now.Sub(s.Seen) >= Idle:
		return nil
	// A clock that was put back prolongs nothing.
	case now.Before(s.Began.Add(-time.Minute)):
		return nil
	}
	s.fresh = s.IsFresh(now)
	switch {
	case Strong(s.Factor):
		s.Portal = true
		s.Console = u.Role != rest.RoleNone && knownRole(u.Role)
	case slices.Contains(modest, s.Factor), s.Factor == Enrol, s.Factor == Certificate:
		s.Portal = true
	case s.Factor == CertificateConsole:
		s.Portal = true
		s.Console = u.Role != rest.RoleNone && knownRole(u.Role)
	default:
		return nil
	}
	return s
}

func knownRole(role string) bool {
	for _, r := range rest.Roles {
		if r == role {
			return true
		}
	}
	return false
}

// open makes a session in the transaction. newBrowser: with a browser in which the
// account has not signed in before, as far as one can tell.
func (m *Sessions) open(ctx context.Context, tx *store.Tx, u db.User, n db.InsertSessionParams, hash []byte, newBrowser bool, now time.Time) (*Session, error) {
	mine, err := tx.ListSessionsOfUser(ctx, db.ListSessionsOfUserParams{
		UserID: u.ID, At: clock.Micros(now), SeenAfter: clock.Micros(now.Add(-Idle)), N: rest.MaxPage,
	})
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	for i := maxSessions - 1; i < len(mine); i++ {
		if _, err := tx.DeleteSession(ctx, mine[i].ID); err != nil {
			return nil, fmt.Errorf("end a session: %w", err)
		}
	}
	n.ID, n.SecretHash, n.UserID, n.PasswordAt = store.NewID(), hash, u.ID, u.PasswordChangedAt
	n.BeganAt, n.SeenAt = clock.Micros(now), clock.Micros(now)
	n.Agent, n.Address = text.CleanN(n.Agent, 256), text.CleanN(n.Address, 64)
	if err := tx.InsertSession(ctx, n); err != nil {
		return nil, fmt.Errorf("open a session: %w", err)
	}
	s := sessionOf(db.Session{
		ID: n.ID, SecretHash: n.SecretHash, UserID: n.UserID, Kind: n.Kind, Factor: n.Factor, EnrolCode: n.EnrolCode, PasswordAt: n.PasswordAt,
		BeganAt: n.BeganAt, SeenAt: n.SeenAt, FreshAt: n.FreshAt, EndsAt: n.EndsAt, Address: n.Address, Agent: n.Agent,
	}, u, now)
	if s == nil {
		return nil, fault.New(fault.Unauthorized, nil)
	}
	about := map[string]any{"session": SessionPrefix + n.ID, "kind": n.Kind, "console": s.Console, "agent": n.Agent}
	if newBrowser {
		about["new_browser"] = true
	}
	err = m.note(tx, event.Event{Type: event.SessionOpened, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: n.Address, Outcome: "allow", Factor: n.Factor}, about)
	return s, err
}

// End ends the session: its owner signs out.
func (m *Sessions) End(ctx context.Context, s *Session, address string) error {
	return m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.DeleteSession(ctx, s.ID)
		if err != nil || n == 0 {
			return err
		}
		return m.note(tx, event.Event{Type: event.SessionEnded, Actor: s.Name, Subject: s.Name, UserID: s.UserID, Address: address, Reason: "signed-out"},
			map[string]any{"session": SessionPrefix + s.ID})
	})
}

// List gives the sessions of a user, by id without prefix: one's own, or somebody
// else's to whoever may read.
func (m *Sessions) List(ctx context.Context, a desk.Actor, userID string) ([]Session, error) {
	if a.UserID == "" || a.UserID != userID || a.Token {
		if err := may(a, "read"); err != nil {
			return nil, err
		}
	}
	var out []Session
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		u, err := q.GetUser(ctx, userID)
		if store.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		now := m.Clock.Now()
		rows, err := q.ListSessionsOfUser(ctx, db.ListSessionsOfUserParams{
			UserID: userID, At: clock.Micros(now), SeenAfter: clock.Micros(now.Add(-Idle)), N: rest.MaxPage,
		})
		if err != nil {
			return err
		}
		for _, r := range rows {
			if s := sessionOf(r, u, now); s != nil {
				out = append(out, *s)
			}
		}
		return nil
	})
	return out, err
}

// ListAll gives the sessions of everybody, the youngest first; before is the last id of
// the page before.
func (m *Sessions) ListAll(ctx context.Context, a desk.Actor, before string, limit int) ([]Session, error) {
	if err := may(a, "read"); err != nil {
		return nil, err
	}
	var out []Session
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		now := m.Clock.Now()
		rows, err := q.ListSessions(ctx, db.ListSessionsParams{
			At: clock.Micros(now), SeenAfter: clock.Micros(now.Add(-Idle)), Before: before, N: int64(max(1, min(limit, rest.MaxPage+1))),
		})
		if err != nil {
			return err
		}
		for _, r := range rows {
			if s := sessionOf(r.Session, r.User, now); s != nil {
				out = append(out, *s)
			}
		}
		return nil
	})
	return out, err
}

// Revoke ends a session by its id without prefix: one's own, or as the help desk that
// of somebody of a lower role (an owner's own word is enough: nobody is let in by it).
func (m *Sessions) Revoke(ctx context.Context, a desk.Actor, id string) error {
	missing := fault.Newf(fault.NotFound, "There is no such session, or it has ended.")
	mine := !a.Token && a.UserID != ""
	if !mine {
		if err := may(a, "helpdesk"); err != nil {
			return err
		}
	}
	return m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.GetSession(ctx, id)
		switch {
		case store.IsNotFound(err) && may(a, "helpdesk") != nil:
			return fault.New(fault.Forbidden, nil)
		case store.IsNotFound(err):
			return missing
		case err != nil:
			return err
		}
		if !mine || row.User.ID != a.UserID {
			if err := may(a, "helpdesk"); err != nil {
				return err
			}
			if err := a.Over(row.User.Name, row.User.ID, row.User.Role); err != nil && a.Role != rest.RoleOwner {
				return err
			}
		}
		n, err := tx.DeleteSession(ctx, id)
		switch {
		case err != nil:
			return err
		case n == 0:
			return missing
		}
		return m.note(tx, event.Event{Type: event.SessionEnded, Actor: a.Name, Subject: row.User.Name, UserID: row.User.ID, Address: a.Address, Reason: "session-revoked"},
			map[string]any{"session": SessionPrefix + id})
	})
}

// RevokeAll ends all sessions of a user, by id without prefix, but for one (empty: none is
// spared), and says how many. Where somebody else does it the account may be in other hands:
// then windows, API tokens and certificates end too.
func (m *Sessions) RevokeAll(ctx context.Context, a desk.Actor, userID, but string) (ending.Ended, error) {
	var out ending.Ended
	own := !a.Token && a.UserID != "" && a.UserID == userID
	if !own {
		if err := may(a, "helpdesk"); err != nil {
			return out, err
		}
	}
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.GetUser(ctx, userID)
		if store.IsNotFound(err) {
			return fault.New(fault.NotFound, nil)
		}
		if err != nil {
			return err
		}
		c := ending.Cause{By: a.Name, Address: a.Address, Reason: "session-revoked", At: m.Clock.Now()}
		out = ending.Ended{}
		if own {
			out.Sessions, err = ending.Sessions(ctx, tx, c, u.ID, but)
			return err
		}
		if err := a.Over(u.Name, u.ID, u.Role); err != nil && a.Role != rest.RoleOwner {
			return err
		}
		c.Reason = "revoked"
		out, err = ending.All(ctx, tx, c, u.ID, "")
		return err
	})
	return out, err
}

// Still refuses an actor whose session, certificate or API token has ended, or whose role
// or scopes have changed, since the request began: for answers that last. Root is always there.
func (m *Sessions) Still(ctx context.Context, a desk.Actor) error {
	ended := fault.New(fault.Unauthorized, nil)
	return m.Store.Read(ctx, func(q *store.Queries) error {
		now := m.Clock.Now()
		switch {
		case a.TokenID != "":
			row, err := q.GetAPIToken(ctx, a.TokenID)
			if store.IsNotFound(err) {
				return ended
			} else if err != nil {
				return err
			}
			t, err := tokenOf(row.ApiToken, row.User, now)
			if err != nil {
				return err
			}
			if t.Now != a.Role || !slices.Equal(t.Scopes, a.Scopes) {
				return ended
			}
		case a.Session != "":
			row, err := q.GetSession(ctx, a.Session)
			if store.IsNotFound(err) {
				return ended
			} else if err != nil {
				return err
			}
			s := sessionOf(row.Session, row.User, now)
			if s == nil || s.Actor("").Role != a.Role {
				return ended
			}
			if byCertificate(s.Factor) {
				ok, err := m.stands(ctx, q, s, now)
				if err != nil {
					return err
				}
				if !ok {
					return ended
				}
			}
		case !a.Local:
			ok, err := m.stillShown(ctx, q, a, now)
			if err != nil {
				return err
			}
			if !ok {
				return ended
			}
		}
		return nil
	})
}
