package facts_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// crowd fills a store with people and machines in every state that matters offline.
func crowd(t *testing.T, s *store.Store, r *desktest.Rig, users, machines int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	now := clock.Micros(r.Clock.Now())
	var ms []db.Machine
	for i := range machines {
		ms = append(ms, r.Machine(t, fmt.Sprintf("m%d", i), "active"))
	}
	err := s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		for i, mode := range []string{"on", "off", "inherit"} {
			if err := tx.InsertGroup(ctx, db.InsertGroupParams{ID: fmt.Sprintf("g%d", i), Name: mode, MFA: mode, CreatedAt: 1, UpdatedAt: 1}); err != nil {
				return err
			}
		}
		for i, body := range []string{`{"offline":"deny"}`, `{"offline":"mfa_or_bypass","software_vault":false}`} {
			id := fmt.Sprintf("p%d", i)
			if err := tx.InsertPolicy(ctx, db.InsertPolicyParams{ID: id, Name: id, Priority: int64(i + 1), Body: body, CreatedAt: 1, UpdatedAt: 1}); err != nil {
				return err
			}
			if _, err := tx.AddPolicyGroup(ctx, db.AddPolicyGroupParams{PolicyID: id, GroupID: fmt.Sprintf("g%d", i)}); err != nil {
				return err
			}
		}
		for i := range users {
			id := fmt.Sprintf("u%03d", i)
			err := tx.InsertUser(ctx, db.InsertUserParams{
				ID: id, Name: id, NameFold: id, Role: "none", Activation: pick("now", "now", "at"), ActivateAt: now + int64(rnd.IntN(3)-1)*1e9,
				Disabled: rnd.IntN(6) == 0, MFA: pick("inherit", "inherit", "on", "off"), CreatedAt: 1, UpdatedAt: 1,
			})
			if err != nil {
				return err
			}
			for g := range 3 {
				if rnd.IntN(3) == 0 {
					if _, err := tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: fmt.Sprintf("g%d", g), UserID: id}); err != nil {
						return err
					}
				}
			}
			if rnd.IntN(4) > 0 {
				a := db.InsertAuthenticatorParams{ID: "a" + id, UserID: id, Kind: "totp", Params: "{}", ConfirmedAt: int64(rnd.IntN(2)), CreatedAt: 1}
				if err := tx.InsertAuthenticator(ctx, a); err != nil {
					return err
				}
			}
			for _, kind := range []string{"push", "fido2", "mail"} {
				if rnd.IntN(3) > 0 {
					continue
				}
				a := db.InsertAuthenticatorParams{ID: kind + id, UserID: id, Kind: kind, Params: "{}", ConfirmedAt: int64(rnd.IntN(2)), CreatedAt: 1}
				if err := tx.InsertAuthenticator(ctx, a); err != nil {
					return err
				}
			}
			if rnd.IntN(4) == 0 {
				if _, err := tx.LockPush(ctx, db.LockPushParams{UserID: id, Reason: "reported", At: 1}); err != nil {
					return err
				}
			}
			if rnd.IntN(3) == 0 {
				if err := tx.InsertBackupCode(ctx, db.InsertBackupCodeParams{ID: "b" + id, UserID: id, SetID: "s", Hash: []byte("h"), CreatedAt: 1}); err != nil {
					return err
				}
			}
			for _, m := range ms {
				switch rnd.IntN(4) {
				case 0:
					continue
				case 1:
					if _, err := tx.AddMachineUser(ctx, db.AddMachineUserParams{MachineID: m.ID, UserID: id}); err != nil {
						return err
					}
				default:
					if _, err := tx.KnowUser(ctx, db.KnowUserParams{MachineID: m.ID, UserID: id, Since: 1}); err != nil {
						return err
					}
				}
				for g := range rnd.IntN(3) {
					err := tx.InsertVault(ctx, db.InsertVaultParams{
						UserID: id, MachineID: m.ID, Generation: int64(g + 1), State: pick("active", "retired", "activating"), Class: pick("tpm", "software"), Key: []byte("k"),
						FailLimit: 10, UseLimit: 60, ExpiresAt: now + int64(rnd.IntN(5)-1)*1e9, UsesLeft: int64(rnd.IntN(2)), PasswordGeneration: int64(rnd.IntN(2)), CreatedAt: 1, UpdatedAt: 1,
					})
					if err != nil {
						return err
					}
				}
				if rnd.IntN(5) == 0 {
					if _, err := tx.CountAttempt(ctx, db.CountAttemptParams{UserID: id, MachineID: m.ID, At: now}); err != nil {
						return err
					}
					if _, err := tx.BlockAttempts(ctx, db.BlockAttemptsParams{UserID: id, MachineID: m.ID, LockedUntil: now + int64(rnd.IntN(3)-1)*1e9}); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What is gathered for many at once is what is gathered for each by itself, so that the
// report of who is stuck and the machine's own decision can not differ (O16, S13).
func TestManyAreWhatEachIs(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
		s := storetest.Open(t, store.Config{Database: database, Clock: c})
		crowd(t, s, desktest.New(t, s, c), 60, 4)
		err := s.Read(t.Context(), func(q *store.Queries) error {
			pairs, err := q.KnownPairs(t.Context(), db.PairFilter{N: 1000})
			if err != nil {
				return err
			}
			many, err := facts.Offline(t.Context(), q, pairs, c.Now())
			if err != nil {
				return err
			}
			if len(many) != len(pairs) || len(many) < 100 {
				t.Fatalf("%d of %d pairs", len(many), len(pairs))
			}
			outcomes := map[policy.Outcome]int{}
			for _, p := range many {
				r, f, _, err := facts.Gather(t.Context(), q, p.Machine, facts.Ask{
					Name: facts.Name{User: p.User.Name}, Scope: policy.Logon, At: c.Now(), Link: policy.LinkDown, Boot: p.Machine.Boot,
				})
				if err != nil {
					return err
				}
				if d := cmp.Diff(f, p.Facts, cmpopts.EquateEmpty()); d != "" {
					t.Fatalf("facts about %s on %s (-alone +among many):\n%s", p.User.Name, p.Machine.Name, d)
				}
				if d := cmp.Diff(policy.Decide(r, f), policy.Decide(p.Request, p.Facts), cmpopts.IgnoreUnexported(policy.Decision{})); d != "" {
					t.Fatalf("decisions about %s on %s:\n%s", p.User.Name, p.Machine.Name, d)
				}
				outcomes[policy.Decide(r, f).Outcome]++
			}
			if outcomes[policy.Deny] == 0 || outcomes[policy.MFAOffline] == 0 {
				t.Errorf("the crowd is of one kind: %v", outcomes)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// counter counts the questions to the database.
type counter struct {
	*sql.DB
	n int
}

func (c *counter) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	c.n++
	return c.DB.QueryContext(ctx, q, args...)
}

func (c *counter) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	c.n++
	return c.DB.QueryRowContext(ctx, q, args...)
}

func TestTheNumberOfQueriesDoesNotGrow(t *testing.T) {
	c := clock.NewManual(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	database := storetest.SQLite(t)
	s := storetest.Open(t, store.Config{Database: database, Clock: c})
	crowd(t, s, desktest.New(t, s, c), 100, 3)
	raw, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(strings.TrimPrefix(database, "sqlite:"), "//")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	count := func(n int64) (pairs, queries int) {
		t.Helper()
		k := &counter{DB: raw}
		q := db.New(k)
		list, err := q.KnownPairs(t.Context(), db.PairFilter{N: n})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := facts.Offline(t.Context(), q, list, c.Now()); err != nil {
			t.Fatal(err)
		}
		return len(list), k.n
	}
	few, a := count(2)
	many, b := count(250)
	if few != 2 || many < 150 || a != b || a == 0 {
		t.Errorf("%d pairs cost %d queries, %d pairs %d", few, a, many, b)
	}
}
