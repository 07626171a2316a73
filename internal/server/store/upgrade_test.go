package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// atFive is what a server of schema 5, the last without a console, left behind. It is SQL and not the queries of today:
// these may know columns that there were not.
var atFive = []string{
	`INSERT INTO users (id, name, name_fold, role, created_at, updated_at) VALUES ('u1', 'Anna', 'anna', 'owner', 1, 1), ('u2', 'ben', 'ben', 'none', 1, 1)`,
	`INSERT INTO groups (id, name, mfa, created_at, updated_at) VALUES ('g1', 'staff', 'on', 1, 1)`,
	`INSERT INTO group_members (group_id, user_id) VALUES ('g1', 'u2')`,
	`INSERT INTO policies (id, name, body, created_at, updated_at) VALUES ('p1', 'staff', '{}', 1, 1)`,
	`INSERT INTO policy_groups (policy_id, group_id) VALUES ('p1', 'g1')`,
	`INSERT INTO policy_versions (policy_id, version, name, priority, body, actor, at) VALUES ('p1', 1, 'staff', 0, '{}', 'root@local', 1)`,
	`INSERT INTO machines (id, number, name, status, owner_user, os, created_at, updated_at) VALUES ('m1', 1, 'mill', 'active', 'u2', 'Debian 13', 1, 1), ('m2', 2, 'barn', 'pending', '', '', 1, 1)`,
	`INSERT INTO machine_known (machine_id, user_id, since) VALUES ('m1', 'u2', 2)`,
	`INSERT INTO authenticators (id, user_id, kind, confirmed_at, created_at) VALUES ('a1', 'u2', 'totp', 2, 2)`,
	`INSERT INTO attempts (user_id, machine_id, failures, first_at, last_at, locked_until) VALUES ('u2', 'm1', 9, 3, 4, 1000)`,
	`INSERT INTO windows (id, user_id, machine_id, opened_at, expires_at) VALUES ('w1', 'u2', 'm1', 5, 1000), ('w2', 'u2', 'm1', 4, 900)`,
	`UPDATE windows SET ended_at = 6, end_reason = 'logout' WHERE id = 'w2'`,
	`INSERT INTO vaults (user_id, machine_id, generation, state, class, created_at, updated_at) VALUES ('u2', 'm1', 1, 'active', 'software', 5, 5)`,
	`INSERT INTO settings (key, value, updated_at) VALUES ('k', '', 1)`,
}

// eventsAtFive writes a chain of n events, by hand as well.
func eventsAtFive(tx *sql.Tx, n int) error {
	st, err := tx.Prepare(`INSERT INTO events (chain, seq, id, type, subject, user_id, machine_id, machine, outcome, reason, at, received_at, data, prev_hash, hash)
		VALUES ('main', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`)
	if err != nil {
		return err
	}
	defer st.Close()
	var prev event.Hash
	for seq := int64(1); seq <= int64(n); seq++ {
		e := event.Event{
			ID: fmt.Sprintf("e%08d", seq), Type: event.SigninAllowed, Subject: "ben", UserID: "u2", MachineID: "m1", Machine: "mill",
			Outcome: "allowed", Reason: []string{"second-factor", "window", "wrong-code"}[seq%3], At: 10 + seq, ReceivedAt: 10 + seq, Data: []byte(`{"n":1}`),
		}
		next := event.Next("main", uint64(seq), prev, e)
		if _, err := st.Exec(seq, e.ID, string(e.Type), e.Subject, e.UserID, e.MachineID, e.Machine, e.Outcome, e.Reason, e.At, e.ReceivedAt, string(e.Data), prev[:], next[:]); err != nil {
			return err
		}
		prev = next
	}
	_, err = tx.Exec(`INSERT INTO chains (chain, seq, hash) VALUES ('main', $1, $2)`, int64(n), prev[:])
	return err
}

// What a server without a console has kept is there when one with a console starts on it, in every list and whole.
func TestADatabaseOfSchemaFiveBecomesTheNewest(t *testing.T) {
	for name, database := range map[string]string{"sqlite": storetest.SQLite(t), "postgresql": storetest.BarePostgreSQL(t)} {
		t.Run(name, func(t *testing.T) {
			const events = 7
			store.AsOf(t, store.Config{Database: database, Clock: clock.Real}, 5, func(tx *sql.Tx) error {
				for _, q := range atFive {
					if _, err := tx.Exec(q); err != nil {
						return fmt.Errorf("%s: %w", q, err)
					}
				}
				return eventsAtFive(tx, events)
			})
			s := storetest.Open(t, store.Config{Database: database})
			if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
				if list, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "backup", "*")); len(list) != 1 {
					t.Errorf("the copies before the migration: %v", list)
				}
			}

			got := map[string]string{}
			err := s.Read(t.Context(), func(q *store.Queries) error {
				ctx := t.Context()
				say := func(what string, list any, err error) {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
					got[what] = fmt.Sprint(list)
				}
				users, err := q.FindUsers(ctx, db.UserFilter{N: 9})
				say("users", names(users, func(u db.User) string { return u.Name }), err)
				users, err = q.FindUsers(ctx, db.UserFilter{Role: "owner", N: 9})
				say("owners", names(users, func(u db.User) string { return u.Name }), err)
				users, err = q.FindUsers(ctx, db.UserFilter{State: "locked", At: 500, N: 9})
				say("locked", names(users, func(u db.User) string { return u.Name }), err)
				groups, err := q.GroupsOfUsers(ctx, []string{"u1", "u2"})
				say("groups", groups, err)
				factors, err := q.FactorsOfUsers(ctx, []string{"u1", "u2"}, 500)
				say("factors", factors, err)
				machines, err := q.FindMachines(ctx, db.MachineFilter{N: 9})
				say("machines", names(machines, func(m db.MachineRow) string { return m.Machine.Name + " " + m.Machine.Status }), err)
				own, err := q.ListOwnMachines(ctx, db.ListOwnMachinesParams{UserID: "u2", At: 500, N: 9})
				say("own machines", len(own), err)
				locks, err := q.FindLocks(ctx, db.LockFilter{At: 500, N: 9})
				say("locks", names(locks, func(l db.LockRow) string { return l.User + " " + l.Machine }), err)
				windows, err := q.FindWindows(ctx, db.WindowFilter{At: 500, N: 9})
				say("windows", names(windows, func(w db.WindowRow) string { return w.Window.ID }), err)
				vaults, err := q.FindVaults(ctx, db.VaultFilter{N: 9})
				say("vaults", names(vaults, func(v db.VaultRow) string { return v.Vault.UserID + " " + v.Vault.MachineID }), err)
				policies, err := q.PoliciesOfGroup(ctx, "g1")
				say("policies of the group", policies, err)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			want := map[string]string{
				"users": "[Anna ben]", "owners": "[Anna]", "locked": "[ben]", "groups": "[{u2 g1 staff on}]", "factors": "[{u2 totp true 1}]",
				"machines": "[mill active barn pending]", "own machines": "1", "locks": "[ben mill]", "windows": "[w1]", "vaults": "[u2 m1]",
				"policies of the group": "[staff]",
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}

			for _, f := range []store.EventFilter{{}, {UserID: "u2"}, {MachineID: "m1"}, {Types: []string{"signin."}}} {
				list, err := s.Events(t.Context(), f)
				if err != nil || len(list) != events {
					t.Errorf("%+v: %d events, %v", f, len(list), err)
				}
			}
			if list, err := s.Events(t.Context(), store.EventFilter{Reason: "window"}); err != nil || len(list) != 3 {
				t.Errorf("of one reason: %d events, %v", len(list), err)
			}
			whole := func(n int64) {
				t.Helper()
				r, err := s.VerifyEvents(t.Context())
				if err != nil || !r.Whole() || r.Events != n {
					t.Errorf("the chain: %+v, %v", r, err)
				}
			}
			whole(events)
			// And it goes on where it was.
			if err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
				seq, err := tx.Event(event.Event{Type: event.SigninAllowed, UserID: "u2"})
				if seq != events+1 {
					t.Errorf("the next event has the place %d", seq)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			whole(events + 1)
		})
	}
}

func names[T any](list []T, name func(T) string) []string {
	out := []string{}
	for _, x := range list {
		out = append(out, name(x))
	}
	return out
}
