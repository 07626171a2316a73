package session

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// The lives of tokens.
const (
	TokenFor     = 90 * 24 * time.Hour
	LongestToken = 365 * 24 * time.Hour
	shortToken   = time.Hour
	maxTokens    = 50 // of one account
)

// Token is an API token. Its secret is shown once.
type Token struct {
	ID          string // without prefix
	Name        string
	Maker       string // name of the account
	MakerID     string // without prefix
	Scopes      []string
	Role        string // the highest that it ever has
	Now         string // the role that it has now: not above its maker's; "none" when the maker is disabled
	Created     time.Time
	Expires     time.Time
	LastUsed    time.Time
	LastAddress string
}

// NewToken is what a token is made from.
type NewToken struct {
	Name   string
	Scopes []string      // of desk.Scopes, at least one
	Role   string        // empty: the maker's
	For    time.Duration // 0: 90 days; at most a year
}

// console is the session of somebody who may be at the console.
func console(s *Session) error {
	switch {
	case s == nil:
		return fault.New(fault.Unauthorized, nil)
	case !s.Console:
		return fault.New(fault.Forbidden, nil)
	}
	return nil
}

// fresh asks for a second factor that was given lately.
func (m *Sessions) fresh(s *Session) error {
	if err := console(s); err != nil {
		return err
	}
	if !s.IsFresh(m.Clock.Now()) {
		return fault.New(fault.StepUp, nil)
	}
	return nil
}

func tokenOf(r db.ApiToken, u db.User, now time.Time) (Token, error) {
	t := Token{
		ID: r.ID, Name: r.Name, Maker: u.Name, MakerID: u.ID, Role: r.Role, Now: lower(r.Role, u.Role), Created: rest.Time(r.CreatedAt), Expires: rest.Time(r.ExpiresAt),
		LastUsed: rest.Time(r.LastUsedAt), LastAddress: r.LastAddress,
	}
	if u.Disabled || facts.NotYet(u, now) || !now.Before(t.Expires) {
		t.Now = roleNone
	}
	if err := json.Unmarshal([]byte(r.Scopes), &t.Scopes); err != nil {
		return t, fmt.Errorf("scopes of the token %s: %w", r.ID, err)
	}
	return t, nil
}

// lower is the lower of two roles; a word that is none is the lowest.
func lower(a, b string) string {
	return rest.Roles[max(0, min(slices.Index(rest.Roles, a), slices.Index(rest.Roles, b)))]
}

// MakeToken makes a token for the session's user, with a fresh second factor.
func (m *Sessions) MakeToken(ctx context.Context, s *Session, address string, in NewToken) (Token, Secret, error) {
	var out Token
	if err := m.fresh(s); err != nil {
		return out, Secret{}, err
	}
	f := fault.New(fault.Invalid, nil)
	if err := text.ValidLine("name", in.Name, 64); err != nil || strings.TrimSpace(in.Name) == "" {
		f.With("name", "a name of one line, 1 to 64 octets, says what the token is for")
	}
	if len(in.Scopes) == 0 {
		f.With("scopes", "choose at least one; allowed are %s", strings.Join(desk.Scopes, ", "))
	}
	actor := s.Actor(address)
	scopes := []string{}
	for _, x := range in.Scopes {
		switch {
		case !slices.Contains(desk.Scopes, x):
			f.With("scopes", "%q is not allowed; allowed are %s", text.CleanN(x, 64), strings.Join(desk.Scopes, ", "))
		case !actor.Can(x):
			f.With("scopes", "you do not have %q yourself", x)
		case !slices.Contains(scopes, x):
			scopes = append(scopes, x)
		}
	}
	role := in.Role
	switch {
	case role == "":
		role = s.Role
	case !knownRole(role) || role == roleNone:
		f.With("role", "%q is not allowed; allowed are %s", text.CleanN(role, 64), strings.Join(rest.Roles[1:], ", "))
	case lower(role, s.Role) != role:
		f.With("role", "%s is above your own (%s); a token never has more than its maker", role, s.Role)
	}
	life := in.For
	switch {
	case life == 0:
		life = TokenFor
	case life < shortToken || life > LongestToken:
		f.With("valid_for", "%s is out of range; allowed are %s to %s", life, text.Duration(shortToken), text.Duration(LongestToken))
	}
	if len(f.Fields) > 0 {
		return out, Secret{}, f
	}
	raw, hash, err := newSecret(m.Random, TokenPrefix)
	if err != nil {
		return out, Secret{}, err
	}
	list, err := json.Marshal(scopes)
	if err != nil {
		return out, Secret{}, err
	}
	err = m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		u, err := m.present(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		if lower(role, u.Role) != role {
			return fault.New(fault.Forbidden, nil)
		}
		n, err := tx.CountAPITokensOfUser(ctx, u.ID)
		if err != nil {
			return err
		}
		if n >= maxTokens {
			return fault.Newf(fault.Conflict, "You have %d tokens already; at most %d are allowed. Revoke one first.", n, maxTokens)
		}
		row := db.InsertAPITokenParams{
			ID: store.NewID(), SecretHash: hash, UserID: u.ID, Name: in.Name, Scopes: string(list), Role: role,
			CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(life)),
		}
		if err := tx.InsertAPIToken(ctx, row); err != nil {
			return err
		}
		if out, err = tokenOf(db.ApiToken{
			ID: row.ID, UserID: u.ID, Name: row.Name, Scopes: row.Scopes, Role: row.Role, CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt,
		}, u, now); err != nil {
			return err
		}
		return m.note(tx, event.Event{Type: event.APITokenMade, Actor: u.Name, Subject: in.Name, UserID: u.ID, Address: address}, map[string]any{
			"token": rest.APITokenPrefix + row.ID, "scopes": scopes, "role": role, "expires_at": out.Expires,
		})
	})
	if store.IsDuplicate(err) || fault.Is(err, fault.Exists) {
		return Token{}, Secret{}, fault.New(fault.Invalid, nil).With("name", "you have a token of this name already; choose another")
	}
	if err != nil {
		return Token{}, Secret{}, err
	}
	return out, raw, nil
}

// ListTokens gives the actor's own tokens, or with all those of everybody.
func (m *Sessions) ListTokens(ctx context.Context, a desk.Actor, all bool) ([]Token, error) {
	if err := may(a, "read"); err != nil {
		return nil, err
	}
	p := db.ListAPITokensParams{UserID: a.UserID, N: rest.MaxPage}
	if all {
		p.UserID = ""
	} else if a.UserID == "" {
		return nil, nil
	}
	var out []Token
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		for {
			rows, err := q.ListAPITokens(ctx, p)
			if err != nil {
				return err
			}
			for _, r := range rows {
				t, err := tokenOf(r.ApiToken, r.User, m.Clock.Now())
				if err != nil {
					return err
				}
				out = append(out, t)
				p.After = r.ApiToken.ID
			}
			if len(rows) < rest.MaxPage {
				return nil
			}
		}
	})
	return out, err
}

// RevokeToken ends a token by its id without prefix: one's own, or as an administrator
// that of somebody of a lower role, and as an owner anybody's.
func (m *Sessions) RevokeToken(ctx context.Context, a desk.Actor, id string) error {
	if err := may(a, "read"); err != nil {
		return err
	}
	return m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		missing := fault.Newf(fault.NotFound, "There is no such token, or it was revoked.")
		row, err := tx.GetAPIToken(ctx, id)
		switch {
		case store.IsNotFound(err):
			return missing
		case err != nil:
			return err
		}
		if a.Token || a.UserID == "" || row.User.ID != a.UserID {
			if err := may(a, "change"); err != nil {
				return err
			}
			if err := a.Over(row.User.Name, row.User.ID, row.User.Role); err != nil && a.Role != rest.RoleOwner {
				return err
			}
		}
		n, err := tx.DeleteAPIToken(ctx, id)
		switch {
		case err != nil:
			return err
		case n == 0:
			return missing
		}
		return m.note(tx, event.Event{Type: event.APITokenRevoked, Actor: a.Name, Subject: row.ApiToken.Name, UserID: row.User.ID, Address: a.Address},
			map[string]any{"token": rest.APITokenPrefix + id, "maker": row.User.Name})
	})
}

// TokenActor is who acts with the token, and the token. It has its scopes, and no
// higher role than its maker has at this moment; with a maker who is disabled, not yet
// active or gone it is nobody's.
func (m *Sessions) TokenActor(ctx context.Context, raw, address string) (desk.Actor, *Token, error) {
	nobody := fault.Newf(fault.Unauthorized, "The API token is unknown, expired or revoked, or its maker may not use it any more. Make a new one in the console.")
	hash, ok := parseSecret(TokenPrefix, raw)
	if !ok {
		return desk.Actor{}, nil, nobody
	}
	now := m.Clock.Now()
	var t Token
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		row, err := q.GetAPITokenBySecret(ctx, hash)
		if err != nil {
			return err
		}
		t, err = tokenOf(row.ApiToken, row.User, now)
		return err
	})
	switch {
	case store.IsNotFound(err):
		return desk.Actor{}, nil, nobody
	case err != nil:
		return desk.Actor{}, nil, fault.New(fault.Unavailable, err)
	case t.Now == roleNone || len(t.Scopes) == 0:
		return desk.Actor{}, nil, nobody
	}
	if now.Sub(t.LastUsed) >= seeEvery {
		err := m.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.UseAPIToken(ctx, db.UseAPITokenParams{ID: t.ID, At: clock.Micros(now), Address: text.CleanN(address, 64)})
			return err
		})
		if err != nil {
			m.Logger.WarnContext(ctx, "the use of an API token was not written down", "error", err)
		}
		t.LastUsed = now
	}
	return desk.Actor{
		Name: t.Maker + " (token " + t.Name + ")", Role: t.Now, UserID: t.MakerID, Address: address, Scopes: slices.Clone(t.Scopes), Token: true, TokenID: t.ID,
	}, &t, nil
}
