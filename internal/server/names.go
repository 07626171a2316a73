package server

import (
	"context"
	"fmt"

	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
)

// warnOfNames says which accounts bear a name by which events tell of others than people.
// No new one may; an older one does things that pass for the server's doing.
func (r *running) warnOfNames(ctx context.Context) {
	err := r.store.Read(ctx, func(q *store.Queries) error {
		for _, name := range desk.Unnamed {
			u, err := q.GetUserByName(ctx, name)
			if store.IsNotFound(err) {
				continue
			} else if err != nil {
				return err
			}
			r.Log.Warn("an account bears a name that events keep for others than people; remove it and add the person under another name", "user", u.Name, "role", u.Role)
			fmt.Fprintf(r.Out, "Warning: the account %q bears a name by which events tell of others than people: what it does is not seen as an administrator's action. "+
				"Remove it, and add the person under another name.\n", u.Name)
		}
		return nil
	})
	if err != nil {
		r.Log.Error("names of accounts can not be read", "error", err)
	}
}
