package session

import (
	"context"
	"encoding/json"
	"time"

	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Passkeys judges passkeys of whoever comes without a name.
type Passkeys interface {
	// Discover makes the options for a browser, and keeps its challenge under the ticket
	// until the time. A *fault.Fault Unavailable says why nobody can sign in so.
	Discover(ctx context.Context, tx *store.Tx, ticket string, now, until time.Time) (json.RawMessage, error)
	// Found judges the answer to that challenge, which is spent by it, whatever comes of
	// it. The user is zero where the answer names none; the authenticator must have
	// verified who holds it.
	Found(ctx context.Context, tx *store.Tx, ticket string, answer secret.Bytes, now time.Time) (db.User, factor.Verdict, error)
}
