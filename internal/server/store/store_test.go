package store_test

import (
	"context"
	"testing"

	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

func TestWhatWasWrittenIsThereAfterReopening(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		ctx := context.Background()
		s := storetest.Open(t, store.Config{Database: database})
		err := s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			if err := tx.InsertUser(ctx, db.InsertUserParams{ID: "u1", Name: "Alice", NameFold: "alice", CreatedAt: 1, UpdatedAt: 1}); err != nil {
				return err
			}
			_, err := tx.Event(event.Event{Type: event.UserAdded, Actor: "root@local", Subject: "Alice"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = storetest.Open(t, store.Config{Database: database})
		err = s.Read(ctx, func(q *store.Queries) error {
			u, err := q.GetUserByName(ctx, "Alice")
			if err != nil || u.ID != "u1" || u.UID != nil || u.Disabled {
				t.Errorf("%+v, %v", u, err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.VerifyEvents(ctx)
		if err != nil || !r.Whole() || r.Events != 1 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}
