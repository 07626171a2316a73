package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

func setting(key string) db.PutSettingParams {
	return db.PutSettingParams{Key: key, Value: []byte(key), UpdatedAt: 1}
}

func keys(t *testing.T, s *store.Store) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	err := s.Read(context.Background(), func(q *store.Queries) error {
		list, err := q.ListSettingKeys(context.Background())
		for _, k := range list {
			out[k] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func verify(t *testing.T, s *store.Store, want int64) {
	t.Helper()
	r, err := s.VerifyEvents(context.Background())
	if err != nil || !r.Whole() || r.Events != want {
		t.Errorf("want %d events in whole chains, got %+v, %v", want, r, err)
	}
}

func TestChangesOfOneBatchSucceedAndFailApart(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		const n = 200
		refused := errors.New("refused")
		var wg sync.WaitGroup
		errs := make([]error, n)
		// The first holds the writer until the others wait, so that they form one batch.
		gate := make(chan struct{})
		wg.Go(func() {
			errs[0] = s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				<-gate
				return tx.PutSetting(ctx, setting("0"))
			})
		})
		for i := 1; i < n; i++ {
			wg.Go(func() {
				defer func() {
					if p := recover(); p != nil {
						errs[i] = fmt.Errorf("panic %v", p)
					}
				}()
				errs[i] = s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
					if err := tx.PutSetting(ctx, setting(strconv.Itoa(i))); err != nil {
						return err
					}
					if _, err := tx.Event(event.Event{Type: event.UserChanged, Subject: strconv.Itoa(i)}); err != nil {
						return err
					}
					switch i % 5 {
					case 1:
						return refused
					case 2: // violates a foreign key
						_, err := tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: "no", UserID: "one"})
						return err
					case 3: // the same, and its author looked away
						_, _ = tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: "no", UserID: "one"})
						if _, err := tx.GetUser(ctx, "u"); err == nil || store.IsNotFound(err) {
							t.Error("a spoilt change still runs statements")
						}
						return nil
					case 4:
						panic(i)
					}
					return nil
				})
			})
		}
		time.Sleep(100 * time.Millisecond)
		close(gate)
		wg.Wait()
		kept := keys(t, s)
		for i, err := range errs {
			var want bool
			switch {
			case i == 0 || i%5 == 0:
				want = err == nil
			case i%5 == 1:
				want = errors.Is(err, refused)
			case i%5 == 2, i%5 == 3:
				want = store.IsReferenced(err)
			case i%5 == 4:
				want = err != nil && err.Error() == fmt.Sprintf("panic %d", i)
			}
			if !want {
				t.Errorf("change %d ended with %v", i, err)
			}
			if kept[strconv.Itoa(i)] != (i%5 == 0) {
				t.Errorf("change %d: kept = %v", i, kept[strconv.Itoa(i)])
			}
		}
		verify(t, s, n/5-1)
	})
}

func TestAChangeAloneThatFailsLeavesNothing(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		refused := errors.New("refused")
		for _, fn := range []func(tx *store.Tx) error{
			func(*store.Tx) error { return refused },
			func(*store.Tx) error { panic(refused) },
			func(tx *store.Tx) error {
				_, _ = tx.AddGroupMember(t.Context(), db.AddGroupMemberParams{GroupID: "no", UserID: "one"})
				return nil
			},
		} {
			err := func() (err error) {
				defer func() {
					if p := recover(); p != nil {
						err = p.(error)
					}
				}()
				return s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
					if err := tx.PutSetting(ctx, setting("x")); err != nil {
						t.Error(err)
					}
					if _, err := tx.Event(event.Event{Type: event.UserChanged}); err != nil {
						t.Error(err)
					}
					return fn(tx)
				})
			}()
			if err == nil {
				t.Error("no error")
			}
		}
		// A closure that ends its goroutine does not end the writer.
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Update(t.Context(), func(context.Context, *store.Tx) error { runtime.Goexit(); return nil })
		}()
		<-done
		if err := s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.PutSetting(ctx, setting("y")) }); err != nil {
			t.Error(err)
		}
		if k := keys(t, s); k["x"] || !k["y"] {
			t.Errorf("kept %v", k)
		}
		verify(t, s, 0)
	})
}

func TestTheCallersContextCountsUntilTheChangeBegins(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		begun, gate := make(chan struct{}), make(chan struct{})
		first, cancelFirst := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			err := s.Update(first, func(ctx context.Context, tx *store.Tx) error {
				close(begun)
				<-gate
				if ctx.Err() != nil {
					t.Error("the closure's context was cancelled")
				}
				// Even the caller's own, cancelled context does not harm the batch.
				return tx.PutSetting(first, setting("first"))
			})
			if err != nil {
				t.Errorf("a change that had begun: %v", err)
			}
		})
		<-begun
		cancelFirst()
		waiting, cancelWaiting := context.WithCancel(t.Context())
		wg.Go(func() {
			time.Sleep(20 * time.Millisecond)
			cancelWaiting()
		})
		err := s.Update(waiting, func(context.Context, *store.Tx) error { t.Error("it ran"); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a change that waited: %v", err)
		}
		close(gate)
		wg.Wait()
		if err := s.Update(waiting, func(context.Context, *store.Tx) error { t.Error("it ran"); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("a change that came late: %v", err)
		}
		err = s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			if err := s.Update(ctx, func(context.Context, *store.Tx) error { return nil }); !errors.Is(err, store.ErrNested) {
				t.Errorf("a change inside a change: %v", err)
			}
			return tx.PutSetting(ctx, setting("last"))
		})
		if k := keys(t, s); err != nil || !k["first"] || !k["last"] {
			t.Errorf("%v, %v", k, err)
		}
	})
}

func TestCloseFinishesWhatWaitsAndRefusesWhatComes(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		s := storetest.Open(t, store.Config{Database: database})
		var wg sync.WaitGroup
		var ok, refused atomic.Int64
		for i := range 100 {
			wg.Go(func() {
				err := s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error { return tx.PutSetting(ctx, setting(strconv.Itoa(i))) })
				switch {
				case err == nil:
					ok.Add(1)
				case errors.Is(err, store.ErrClosed):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Errorf("closed twice: %v", err)
		}
		s = storetest.Open(t, store.Config{Database: database})
		if n := int64(len(keys(t, s))); n != ok.Load() || n+refused.Load() != 100 {
			t.Errorf("%d answered with success, %d refused, %d kept", ok.Load(), refused.Load(), n)
		}
	})
}

// The queries that spend something once are the ground of "a code is accepted
// once" (S10): of many at the same time exactly one gets it.
func TestOfManyAtOnceOneSpends(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		stores := []*store.Store{storetest.Open(t, store.Config{Database: database, Replica: "a"})}
		if strings.HasPrefix(database, "postgres") {
			stores = append(stores, storetest.Open(t, store.Config{Database: database, Replica: "b"}))
		}
		scripts := &script{t: t, s: stores[0], ran: map[string]bool{}}
		scripts.do("InsertUser", db.InsertUserParams{ID: "u1", Name: "alice", NameFold: "alice"})
		scripts.do("InsertMachine", db.InsertMachineParams{ID: "m1", Number: 1, Name: "m"})
		scripts.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: "a1", UserID: "u1", Kind: "totp", Params: "{}"})
		scripts.do("InsertBackupCode", db.InsertBackupCodeParams{ID: "b1", UserID: "u1", SetID: "s", Hash: []byte("h")})
		scripts.do("InsertConversation", db.InsertConversationParams{ID: "c1", MachineID: "m1", Stage: "code"})
		scripts.do("InsertJoinToken", db.InsertJoinTokenParams{ID: "j1", SecretHash: []byte("h"), Kind: "single", ExpiresAt: 10})
		spend := map[string]func(ctx context.Context, tx *store.Tx) (int64, error){
			"a time step": func(ctx context.Context, tx *store.Tx) (int64, error) {
				return tx.SpendStep(ctx, db.SpendStepParams{Step: 7, ID: "a1"})
			},
			"a backup code": func(ctx context.Context, tx *store.Tx) (int64, error) {
				return tx.SpendBackupCode(ctx, db.SpendBackupCodeParams{At: 1, ID: "b1", UserID: "u1"})
			},
			"a conversation": func(ctx context.Context, tx *store.Tx) (int64, error) {
				return tx.ClaimConversation(ctx, db.ClaimConversationParams{Seq: 1, ID: "c1", Rev: 1})
			},
			"a join token": func(ctx context.Context, tx *store.Tx) (int64, error) {
				return tx.SpendJoinToken(ctx, db.SpendJoinTokenParams{At: 1, MachineID: "m1", ID: "j1"})
			},
		}
		for name, fn := range spend {
			var wg sync.WaitGroup
			var won atomic.Int64
			for i := range 60 {
				wg.Go(func() {
					var n int64
					err := stores[i%len(stores)].Update(t.Context(), func(ctx context.Context, tx *store.Tx) (err error) {
						n, err = fn(ctx, tx)
						return err
					})
					if err != nil {
						t.Error(err)
					}
					won.Add(n)
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Errorf("%s was spent %d times", name, won.Load())
			}
		}
		// Numbers are drawn without gaps or doubles.
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen := map[int64]bool{}
		for i := range 40 {
			wg.Go(func() {
				var n int64
				if err := stores[i%len(stores)].Update(t.Context(), func(ctx context.Context, tx *store.Tx) (err error) {
					n, err = tx.NextNumber(ctx, "machine")
					return err
				}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				seen[n] = true
				mu.Unlock()
			})
		}
		wg.Wait()
		if len(seen) != 40 || !seen[1] || !seen[40] {
			t.Errorf("drew %v", seen)
		}
	})
}

// What was answered before the process was killed is there afterwards.
func TestAnsweredChangesSurviveAKill(t *testing.T) {
	if database := os.Getenv("STORE_TEST_KILL"); database != "" {
		writeUntilKilled(database)
		return
	}
	storetest.Databases(t, func(t *testing.T, database string) {
		for round := range 3 {
			cmd := exec.Command(os.Args[0], "-test.run=^TestAnsweredChangesSurviveAKill$")
			cmd.Env = append(os.Environ(), "STORE_TEST_KILL="+database, fmt.Sprintf("STORE_TEST_ROUND=%d", round))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			answered := map[string]bool{}
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				if k, ok := strings.CutPrefix(lines.Text(), "kept "); ok {
					answered[k] = true
				}
				if len(answered) == 200 {
					_ = cmd.Process.Kill()
				}
			}
			_ = cmd.Wait()
			if len(answered) < 200 {
				t.Fatalf("only %d changes were answered", len(answered))
			}
			s := storetest.Open(t, store.Config{Database: database})
			kept := keys(t, s)
			for k := range answered {
				if !kept[k] {
					t.Errorf("round %d: %s was answered and is not there", round, k)
				}
			}
			if r, err := s.VerifyEvents(t.Context()); err != nil || !r.Whole() || r.Events < int64(len(answered)) || r.Events != int64(len(kept)) {
				t.Errorf("round %d: %d kept, chain %+v, %v", round, len(kept), r, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func writeUntilKilled(database string) {
	s, err := store.Open(context.Background(), store.Config{Database: database, Clock: clock.Real})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for g := range 16 {
		go func() {
			for i := 0; ; i++ {
				k := fmt.Sprintf("%s-%d-%d", os.Getenv("STORE_TEST_ROUND"), g, i)
				err := s.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
					if _, err := tx.Event(event.Event{Type: event.UserChanged, Subject: k}); err != nil {
						return err
					}
					return tx.PutSetting(ctx, setting(k))
				})
				if err != nil {
					fmt.Println(err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println("kept " + k)
				mu.Unlock()
			}
		}()
	}
	select {}
}

// TestAChangeThatNeedsLongerHasItAndOthersAreTold: on PostgreSQL a transaction has ten
// seconds. One that asks for more has it; whoever comes behind it meanwhile is told
// instead of kept waiting.
func TestAChangeThatNeedsLongerHasItAndOthersAreTold(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes eleven seconds")
	}
	s := storetest.Open(t, store.Config{Database: storetest.PostgreSQL(t)})
	told := make(chan error, 1)
	slow := func(ctx context.Context, tx *store.Tx) error {
		for range 110 {
			time.Sleep(100 * time.Millisecond)
			if err := tx.PutSetting(ctx, setting("long")); err != nil { // an idle transaction is ended by the database
				return err
			}
		}
		return nil
	}
	go func() {
		time.Sleep(6 * time.Second)
		told <- s.Update(context.Background(), func(context.Context, *store.Tx) error { return nil })
	}()
	if err := s.UpdateWithin(context.Background(), time.Minute, slow); err != nil {
		t.Errorf("the long change: %v", err)
	}
	if err := <-told; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("who waited: %v", err)
	}
	if !keys(t, s)["long"] {
		t.Error("it is not there")
	}
	if err := s.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error { return tx.PutSetting(ctx, setting("after")) }); err != nil {
		t.Errorf("behind it: %v", err)
	}
}
