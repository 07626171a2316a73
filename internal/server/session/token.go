package session

import (
	"context"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/server/desk"
)

// APITokenPrefix begins the id of an API token at the edge.
const APITokenPrefix = "apt_"

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

// MakeToken makes a token for the session's user, with a fresh second factor.
func (m *Sessions) MakeToken(ctx context.Context, s *Session, address string, in NewToken) (Token, Secret, error) {
	return Token{}, Secret{}, fault.New(fault.Unavailable, nil)
}

// ListTokens gives the actor's own tokens, or with all those of everybody.
func (m *Sessions) ListTokens(ctx context.Context, a desk.Actor, all bool) ([]Token, error) {
	return nil, fault.New(fault.Unavailable, nil)
}

// RevokeToken ends a token by its id without prefix: one's own, or as an administrator
// that of somebody of a lower role.
func (m *Sessions) RevokeToken(ctx context.Context, a desk.Actor, id string) error {
	return fault.New(fault.Unavailable, nil)
}

// TokenActor is who acts with the token, and the token.
func (m *Sessions) TokenActor(ctx context.Context, raw, address string) (desk.Actor, *Token, error) {
	return desk.Actor{}, nil, fault.New(fault.Unauthorized, nil)
}
