package desk

import (
	"context"

	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// RemoveAround removes a policy as RemovePolicy does; before runs at the beginning of
// each transaction that it takes.
func (d *Desk) RemoveAround(ctx context.Context, id string, accepted int64, before func(ctx context.Context, tx *store.Tx) error) error {
	return d.updateCounted(ctx, accepted, func(ctx context.Context, tx *store.Tx, c *count) error {
		if err := before(ctx, tx); err != nil {
			return err
		}
		row, err := tx.GetPolicy(ctx, id)
		if err != nil {
			return err
		}
		_, _, err = d.rewrite(ctx, tx, Root(), id, c, func() error {
			_, err := tx.DeletePolicy(ctx, db.DeletePolicyParams{ID: id, Rev: row.Rev})
			return err
		})
		return err
	})
}
