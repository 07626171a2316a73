package desk

import (
	"context"

	"latchkey/internal/server/store"
)

// Can tells whether the actor has the right of that name: "read", "helpdesk",
// "change", "own" and what else stands in the table of rights. A word that is none
// is refused. The desk's functions ask for themselves; this is for doors that want to
// refuse before they read a body, and for pages that leave out what would be refused.
func (a Actor) Can(word string) bool { return a.may(right(word)) == nil }

// UserID finds the account of the name or id for a door that hands it on, without
// prefix. Whoever lacks the right of that name is refused before anything is looked at.
func (d *Desk) UserID(ctx context.Context, a Actor, word, ref string) (string, error) {
	if err := a.may(right(word)); err != nil {
		return "", err
	}
	var id string
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := user(ctx, q, ref)
		id = u.ID
		return err
	})
	return id, err
}
