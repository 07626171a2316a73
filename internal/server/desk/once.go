package desk

import (
	"bytes"
	"context"

	"latchkey/internal/fault"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Once is a promise that a request is carried out at most once, however often it is
// sent (Idempotency-Key). The claim stands in the transaction that carries it out, so
// that there is never the one without the other.
type Once struct {
	Key      string // of the table idempotency: of the actor's key
	Actor    string // for whoever looks at the table
	BodyHash []byte // of the whole request
	Mark     []byte // random: tells this request's claim from another's
	At       int64  // unix microseconds
}

type onceKey struct{}

// WithOnce has the first transaction of the desk under the context claim the key.
func WithOnce(ctx context.Context, o *Once) context.Context {
	return context.WithValue(ctx, onceKey{}, o)
}

// ErrClaimed says that another request with the same key has been faster. Nothing was
// done.
var ErrClaimed = fault.Newf(fault.Conflict, "A request with this Idempotency-Key is being carried out. Repeat it in a moment.")

// Claim claims the key of the context, if there is one, in a transaction that carries
// out what was asked for. Doors to the database beside the desk's own call it too.
func Claim(ctx context.Context, tx *store.Tx) error {
	o, _ := ctx.Value(onceKey{}).(*Once)
	if o == nil {
		return nil
	}
	n, err := tx.InsertIdempotency(ctx, db.InsertIdempotencyParams{Key: o.Key, Actor: o.Actor, BodyHash: o.BodyHash, Reply: o.Mark, At: o.At})
	if err != nil || n == 1 {
		return err
	}
	// An action may have several transactions.
	row, err := tx.GetIdempotency(ctx, o.Key)
	if err != nil {
		return err
	}
	if row.Status != 0 || !bytes.Equal(row.Reply, o.Mark) {
		return ErrClaimed
	}
	return nil
}
