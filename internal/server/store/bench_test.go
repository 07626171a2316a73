package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// BenchmarkCommits measures changes like those of a sign-in (a row is advanced, an
// event is written), each of which is on the disk before it is answered, by one
// caller alone and by many at once.
func BenchmarkCommits(b *testing.B) {
	for name, fresh := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgresql": storetest.PostgreSQL} {
		for _, callers := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("%s/callers=%d", name, callers), func(b *testing.B) {
				if name == "postgresql" {
					storetest.Durable(b)
				}
				s := storetest.Open(b, store.Config{Database: fresh(b), Logger: slog.New(slog.DiscardHandler)})
				ctx := b.Context()
				err := s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
					if err := tx.InsertMachine(ctx, db.InsertMachineParams{ID: "m", Number: 1, Name: "m"}); err != nil {
						return err
					}
					for i := range callers {
						if err := tx.InsertConversation(ctx, db.InsertConversationParams{ID: fmt.Sprint(i), MachineID: "m", Stage: "s"}); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
				var left atomic.Int64
				left.Store(int64(b.N))
				var wg sync.WaitGroup
				b.ResetTimer()
				for i := range callers {
					wg.Go(func() {
						for rev := int64(1); left.Add(-1) >= 0; rev++ {
							err := s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
								n, err := tx.ClaimConversation(ctx, db.ClaimConversationParams{Seq: rev, ID: fmt.Sprint(i), Rev: rev})
								if err != nil || n != 1 {
									return fmt.Errorf("%d rows, %w", n, err)
								}
								_, err = tx.Event(event.Event{Type: event.SigninAllowed, Actor: "alice", MachineID: "m", Data: []byte(`{"trace":[]}`)})
								return err
							})
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
			})
		}
	}
}

// BenchmarkRead is one row by its key, in a snapshot.
func BenchmarkRead(b *testing.B) {
	for name, fresh := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgresql": storetest.PostgreSQL} {
		b.Run(name, func(b *testing.B) {
			s := storetest.Open(b, store.Config{Database: fresh(b), Logger: slog.New(slog.DiscardHandler)})
			if err := s.Update(b.Context(), func(ctx context.Context, tx *store.Tx) error {
				return tx.InsertMachine(ctx, db.InsertMachineParams{ID: "m", Number: 1, Name: "m"})
			}); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := s.Read(b.Context(), func(q *store.Queries) error {
						_, err := q.GetMachine(b.Context(), "m")
						return err
					}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
