package desk_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// has gives somebody authenticators of the kinds.
func has(t *testing.T, r *desktest.Rig, u rest.User, kinds ...policy.Factor) rest.User {
	t.Helper()
	must(t, r.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		for _, k := range kinds {
			var err error
			if k == policy.Backup {
				err = tx.InsertBackupCode(ctx, db.InsertBackupCodeParams{ID: store.NewID(), UserID: id(u.ID), SetID: "s", Hash: []byte(u.ID), CreatedAt: 1})
			} else {
				err = tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{ID: store.NewID(), UserID: id(u.ID), Kind: string(k), Params: "{}", ConfirmedAt: 1, CreatedAt: 1})
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return u
}

func names(s rest.ShutOut) string { return strings.Join(namesOf(s), " ") }

func namesOf(s rest.ShutOut) []string {
	var out []string
	for _, w := range s.Who {
		out = append(out, w.User)
	}
	return out
}

// shutsOut is what a refusal is about.
func shutsOut(t *testing.T, err error) rest.ShutOut {
	t.Helper()
	wantCode(t, err, fault.ShutsOut)
	var s rest.ShutOut
	must(t, json.Unmarshal(fault.Of(err).About, &s))
	return s
}

func settings(words string) json.RawMessage { return json.RawMessage(words) }

// TestP1AChangeThatShutsPeopleOutIsAccepted: by whichever way it comes, it is refused with
// whom it hits until that many are accepted, and the event says whom.
func TestP1AChangeThatShutsPeopleOutIsAccepted(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		has(t, r, addUser(t, r, "anna", rest.RoleAuditor), policy.TOTP)
		has(t, r, addUser(t, r, "Bert", ""), policy.TOTP, policy.Backup)
		has(t, r, addUser(t, r, "carl", ""), policy.Push, policy.Backup)
		addUser(t, r, "dora", "") // has none: shut out already
		addUser(t, r, "emil", "")
		ok(r.ChangeUser(ctx, root, "emil", 0, rest.UserChange{MFA: ptr("off")}))(t)
		gone := addUser(t, r, "frieda", "")
		has(t, r, gone, policy.TOTP)
		ok(r.ChangeUser(ctx, root, "frieda", 0, rest.UserChange{Disabled: ptr(true)}))(t)
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		for _, n := range []string{"anna", "Bert"} {
			ok(r.AddMember(ctx, root, "staff", n))(t)
		}
		version := func() int64 { return ok(r.ShowPolicy(ctx, root, "default"))(t).Version }

		// A change of accepted factors.
		only := rest.PolicyChange{Settings: settings(`{"online_factors":["push"],"offline_factors":["totp","backup"]}`)}
		s := shutsOut(t, second(r.ChangePolicy(ctx, root, "default", 0, only)))
		if s.People != 2 || s.Already != 1 || names(s) != "anna Bert" {
			t.Errorf("only push: %+v", s)
		}
		if w := s.Who[0]; w.Role != rest.RoleAuditor || !slices.Equal(w.Has, []string{"totp"}) || fmt.Sprint(w.New) != "[logon elevation remote]" || w.Needs != 1 || fmt.Sprint(w.Accepts) != "[push]" || w.Policy != "default" {
			t.Errorf("anna: %+v", w)
		}
		if version() != 1 {
			t.Error("it was written all the same")
		}
		p := ok(r.PreviewPolicy(ctx, root, "default", only))(t)
		if p.ShutOut == nil || p.ShutOut.People != 2 {
			t.Errorf("the preview: %+v", p.ShutOut)
		}
		// Fewer than there are is not enough.
		only.ShutOut = 1
		if err := second(r.ChangePolicy(ctx, root, "default", 0, only)); shutsOut(t, err).People != 2 || !strings.Contains(fault.Of(err).Public(), "Accepted were 1.") {
			t.Errorf("one accepted: %v", err)
		}
		only.ShutOut = 2
		ok(r.ChangePolicy(ctx, root, "default", 0, only))(t)
		e := ok(r.ListEvents(ctx, root, desk.EventFilter{Types: []string{string(event.PolicyChanged)}}, "", 1))(t).Items[0]
		if d := string(e.Data); !strings.Contains(d, `"shut_out":2`) || !strings.Contains(d, `"shut_out_first":["anna","Bert"]`) {
			t.Errorf("the event: %s", d)
		}
		// Whoever is shut out already is no reason to ask again, and neither is what has nothing to do with it.
		ok(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: settings(`{"window":"1h"}`)}))(t)
		ok(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: settings(`{"push_verification":true}`)}))(t)
		now := ok(r.ListShutOut(ctx, root, rest.ShutOutDraft{Policy: "default", All: true}))(t)
		if now.People != 0 || now.Already != 3 || names(now) != "anna Bert dora" {
			t.Errorf("who is shut out now: %+v", now)
		}
		// Back again opens, a roll-back to it shuts out.
		ok(r.RollbackPolicy(ctx, root, "default", 0, rest.Rollback{Version: 1}))(t)
		if s := shutsOut(t, second(r.RollbackPolicy(ctx, root, "default", 0, rest.Rollback{Version: 2}))); s.People != 2 {
			t.Errorf("rolled back: %+v", s)
		}
		if x := ok(r.ListShutOut(ctx, root, rest.ShutOutDraft{Policy: "default", Version: 2}))(t); x.People != 2 || names(x) != "anna Bert" {
			t.Errorf("an older version: %+v", x)
		}
		ok(r.RollbackPolicy(ctx, root, "default", 0, rest.Rollback{Version: 2, ShutOut: 5}))(t)
		ok(r.RollbackPolicy(ctx, root, "default", 0, rest.Rollback{Version: 1}))(t)

		// A chain of two, for a group: who has one kind is shut out; without the server too.
		chain := rest.NewPolicy{Name: "strict", Groups: []string{"staff"}, Settings: settings(`{"factors_online":2,"factors_offline":2}`)}
		if s := shutsOut(t, second(r.AddPolicy(ctx, root, chain))); names(s) != "anna" || fmt.Sprint(s.Who[0].New) != "[logon elevation remote offline]" {
			t.Errorf("a new policy: %+v", s)
		}
		if x := ok(r.TryPolicy(ctx, root, rest.TryPolicy{Groups: &chain.Groups, Settings: chain.Settings}))(t); x.ShutOut == nil || x.ShutOut.People != 1 || names(*x.ShutOut) != "anna" {
			t.Errorf("a trial: %+v", x.ShutOut)
		}
		// One that only reports decides nothing, and shuts nobody out; put into force it does.
		trial := chain
		trial.Name, trial.Settings = "trial", settings(`{"factors_online":2,"report_only":true}`)
		ok(r.AddPolicy(ctx, root, trial))(t)
		if s := shutsOut(t, second(r.ChangePolicy(ctx, root, "trial", 0, rest.PolicyChange{Settings: settings(`{"report_only":false}`)}))); names(s) != "anna" {
			t.Errorf("put into force: %+v", s)
		}
		// Groups, priority and removal decide who it is for.
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "easy", Groups: []string{"staff"}, Priority: ptr(int64(5)), Settings: settings(`{"factors_online":1}`)}))(t)
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "hard", Groups: []string{"staff"}, Priority: ptr(int64(9)), Settings: settings(`{"factors_online":3}`)}))(t)
		if s := shutsOut(t, r.RemovePolicy(ctx, root, "easy", 0, 0)); names(s) != "anna Bert" || s.Who[0].Policy != "hard" {
			t.Errorf("removed: %+v", s)
		}
		if s := shutsOut(t, second(r.ChangePolicy(ctx, root, "hard", 0, rest.PolicyChange{Priority: ptr(int64(1))}))); s.People != 2 {
			t.Errorf("put first: %+v", s)
		}
		if s := shutsOut(t, second(r.ChangePolicy(ctx, root, "easy", 0, rest.PolicyChange{Groups: &[]string{}}))); s.People != 2 {
			t.Errorf("without its group: %+v", s)
		}
		must(t, r.RemovePolicy(ctx, root, "easy", 0, 2))
	})
}

// TestP1TheWholeListHasPages: everybody once, in order of names.
func TestP1TheWholeListHasPages(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		var want []string
		for i := range 25 {
			u := addUser(t, r, fmt.Sprintf("%c-%02d", "aB"[i%2], i), "")
			has(t, r, u, policy.TOTP)
			want = append(want, u.Name)
		}
		slices.SortFunc(want, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
		in := rest.ShutOutDraft{Policy: "default", Settings: settings(`{"online_factors":["push"]}`), Limit: 10}
		var got []string
		for {
			x := ok(r.ListShutOut(ctx, root, in))(t)
			if x.People != 25 {
				t.Fatalf("%d people", x.People)
			}
			got = append(got, namesOf(x)...)
			if in.After = x.Next; x.Next == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		err := second(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: in.Settings}))
		if s := shutsOut(t, err); len(s.Who) != 20 || !strings.Contains(fault.Of(err).Public(), "and 5 more") {
			t.Errorf("a refusal names %d: %v", len(s.Who), err)
		}
		in.After = "x"
		wantCode(t, second(r.ListShutOut(ctx, root, in)), fault.Invalid)
		wantCode(t, second(r.ListShutOut(ctx, root, rest.ShutOutDraft{Policy: "moon"})), fault.NotFound)
	})
}

// TestP1NobodyShutsAllOwnersOut: not root, and not whoever accepts it.
func TestP1NobodyShutsAllOwnersOut(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		has(t, r, addUser(t, r, "olga", rest.RoleOwner), policy.TOTP)
		otto := has(t, r, addUser(t, r, "otto", rest.RoleOwner), policy.TOTP)
		none := rest.PolicyChange{Settings: settings(`{"online_factors":["push"]}`), ShutOut: 100}
		err := second(r.ChangePolicy(ctx, root, "default", 0, none))
		wantCode(t, err, fault.Forbidden)
		if !strings.Contains(fault.Of(err).Public(), "olga, otto") {
			t.Error(err)
		}
		// One who can is enough; then it is a question of accepting it.
		has(t, r, otto, policy.Push)
		none.ShutOut = 0
		if s := shutsOut(t, second(r.ChangePolicy(ctx, root, "default", 0, none))); names(s) != "olga" {
			t.Errorf("%+v", s)
		}
		none.ShutOut = 1
		ok(r.ChangePolicy(ctx, root, "default", 0, none))(t)
		// The last one by way of a policy of their own, and by its removal.
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "chiefs"}))(t)
		ok(r.AddMember(ctx, root, "chiefs", "otto"))(t)
		wantCode(t, second(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "chiefs", Groups: []string{"chiefs"}, Settings: settings(`{"factors_online":3}`), ShutOut: 9})), fault.Forbidden)
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "chiefs", Groups: []string{"chiefs"}, Settings: settings(`{"online_factors":["totp","push"]}`)}))(t)
		ok(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: settings(`{"factors_online":2,"online_factors":["fido2","sms"]}`), ShutOut: 9}))(t)
		wantCode(t, r.RemovePolicy(ctx, root, "chiefs", 0, 9), fault.Forbidden)
	})
}

// TestP1GoingBackFromDenyingWithoutTheServer asks nobody: under it nobody could sign in there.
func TestP1GoingBackFromDenyingWithoutTheServer(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		addUser(t, r, "anna", "")
		has(t, r, addUser(t, r, "bert", ""), policy.Push)
		ok(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: settings(`{"offline":"deny"}`)}))(t)
		ok(r.RollbackPolicy(ctx, root, "default", 0, rest.Rollback{Version: 1}))(t)
		if x := ok(r.ListShutOut(ctx, root, rest.ShutOutDraft{Policy: "default", All: true}))(t); x.People != 0 || names(x) != "anna bert" {
			t.Errorf("%+v", x)
		}
	})
}

// TestP1NobodyShutsAllOwnersOutThroughAGroup: neither by its members, nor by its 2FA, its
// removal or the 2FA of an owner; and a kind of sign-in that no policy covers is no way in.
func TestP1NobodyShutsAllOwnersOutThroughAGroup(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		admin := desk.Actor{Name: "ada", UserID: "ada", Role: rest.RoleAdministrator}
		olga := has(t, r, addUser(t, r, "olga", rest.RoleOwner), policy.TOTP)
		addUser(t, r, "otto", rest.RoleOwner) // has nothing, and could not before either
		add := func(group, settingsOf string) {
			t.Helper()
			ok(r.AddGroup(ctx, root, rest.NewGroup{Name: group}))(t)
			ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: group, Groups: []string{group}, Settings: settings(settingsOf)}))(t)
		}
		refused := func(what string, err error) {
			t.Helper()
			if !fault.Is(err, fault.Forbidden) || !strings.Contains(fault.Of(err).Public(), "No owner could sign in at a machine any more: olga.") {
				t.Errorf("%s: %v", what, err)
			}
		}

		// Nobody is in it yet: the policy itself shuts nobody out.
		add("strict", `{"online_factors":["push"]}`)
		refused("a member", second(r.AddMember(ctx, admin, "strict", "olga")))
		refused("a member, by root", second(r.AddMember(ctx, root, "strict", "olga")))
		if g := ok(r.ShowGroup(ctx, root, "strict"))(t); g.Members != 0 {
			t.Error("it was written all the same")
		}
		// Elevation that is not covered opens no machine.
		add("narrow", `{"online_factors":["push"],"scopes":["logon","remote"]}`)
		refused("a member, where elevation is not covered", second(r.AddMember(ctx, root, "narrow", "olga")))
		refused("elevation is not covered", second(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: settings(`{"online_factors":["push"],"scopes":["logon","remote"]}`), ShutOut: 9})))
		// One way in is enough.
		add("near", `{"online_factors":["push"],"scopes":["remote"]}`)
		ok(r.AddMember(ctx, root, "near", "olga"))(t)
		ok(r.RemoveMember(ctx, root, "near", "olga"))(t)

		// A group of the owners lets them in; without it, or out of it, they are out.
		add("chiefs", `{"online_factors":["totp"]}`)
		ok(r.AddMember(ctx, root, "chiefs", "olga"))(t)
		ok(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: settings(`{"online_factors":["push"]}`), ShutOut: 9}))(t)
		refused("out of the group", second(r.RemoveMember(ctx, root, "chiefs", "olga")))
		refused("the group removed", r.RemoveGroup(ctx, root, "chiefs", 0))

		// 2FA that was off, and is on.
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "free", MFA: rest.MFAOff}))(t)
		raw := func(do func(context.Context, *store.Tx) error) { t.Helper(); must(t, r.Store.Update(ctx, do)) }
		raw(func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.RemoveGroupMember(ctx, db.RemoveGroupMemberParams{GroupID: id(ok(r.ShowGroup(ctx, root, "chiefs"))(t).ID), UserID: id(olga.ID)}); err != nil {
				return err
			}
			_, err := tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: id(ok(r.ShowGroup(ctx, root, "free"))(t).ID), UserID: id(olga.ID)})
			return err
		})
		refused("2FA of a group", second(r.ChangeGroup(ctx, root, "free", 0, rest.GroupChange{MFA: ptr(rest.MFAInherit)})))
		refused("2FA of the owner", second(r.ChangeUser(ctx, root, "olga", 0, rest.UserChange{MFA: ptr(rest.MFAOn)})))
		ok(r.ChangeGroup(ctx, root, "free", 0, rest.GroupChange{Name: ptr("freed")}))(t)

		// A lock of the phones is lifted tomorrow: it hides nobody from the rule.
		has(t, r, olga, policy.Push)
		raw(func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.LockPush(ctx, db.LockPushParams{UserID: id(olga.ID), Reason: "denials", At: 1})
			return err
		})
		ok(r.ChangeGroup(ctx, root, "freed", 0, rest.GroupChange{MFA: ptr(rest.MFAInherit)}))(t)
		add("keys", `{"online_factors":["fido2"]}`)
		refused("while push is locked", second(r.AddMember(ctx, root, "keys", "olga")))
		// What others do in groups is none of this.
		addUser(t, r, "carl", "")
		ok(r.AddMember(ctx, root, "keys", "carl"))(t)
		ok(r.RemoveMember(ctx, root, "keys", "carl"))(t)
	})
}

// TestP1WhatWasCountedBeforeIsWhatIsWritten: everybody is counted while others may write.
// Where policies were changed since, it is counted once more.
func TestP1WhatWasCountedBeforeIsWhatIsWritten(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		has(t, r, addUser(t, r, "anna", ""), policy.TOTP)
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		ok(r.AddMember(ctx, root, "staff", "anna"))(t)
		easy := ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "easy", Groups: []string{"staff"}, Settings: settings(`{"online_factors":["totp"]}`)}))(t)
		runs := 0
		err := r.RemoveAround(ctx, id(easy.ID), 0, func(ctx context.Context, tx *store.Tx) error {
			if runs++; runs < 2 {
				return nil
			}
			d, err := tx.GetPolicyByName(ctx, "default")
			if err != nil {
				return err
			}
			_, err = tx.UpdatePolicy(ctx, db.UpdatePolicyParams{Name: d.Name, Priority: d.Priority, Body: `{"online_factors":["push"]}`, UpdatedAt: d.UpdatedAt, ID: d.ID, Rev: d.Rev})
			return err
		})
		if s := shutsOut(t, err); names(s) != "anna" || runs != 2 {
			t.Errorf("%+v after %d runs", s, runs)
		}
		if p := ok(r.ListPolicies(ctx, root))(t); len(p.Items) != 2 {
			t.Errorf("%d policies", len(p.Items))
		}
		runs = 0
		must(t, r.RemoveAround(ctx, id(easy.ID), 0, func(ctx context.Context, tx *store.Tx) error {
			runs++
			return nil
		}))
		if p := ok(r.ListPolicies(ctx, root))(t); len(p.Items) != 1 || runs != 2 {
			t.Errorf("%d policies after %d runs", len(p.Items), runs)
		}
	})
}

// BenchmarkShutOut counts among 100 000 people with 2 kinds and 3 groups each.
func BenchmarkShutOut(b *testing.B) {
	for engine, fresh := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgresql": storetest.PostgreSQL} {
		b.Run(engine, func(b *testing.B) {
			c := clock.NewManual(start)
			database := fresh(b)
			s := storetest.Open(b, store.Config{Database: database, Clock: c})
			r := desktest.New(b, s, c)
			ctx, root := b.Context(), desk.Root()
			for i := range 10 {
				if _, err := r.AddGroup(ctx, root, rest.NewGroup{Name: fmt.Sprint("g", i)}); err != nil {
					b.Fatal(err)
				}
			}
			groups, err := r.ListGroups(ctx, root, "", "", 50)
			if err != nil {
				b.Fatal(err)
			}
			driver, address := "pgx", database
			if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
				driver, address = "sqlite", path
			}
			raw, err := sql.Open(driver, address)
			if err != nil {
				b.Fatal(err)
			}
			defer raw.Close()
			ids := make([]string, 10)
			for i, g := range groups.Items {
				ids[i] = "WHEN " + fmt.Sprint(i) + " THEN '" + id(g.ID) + "'"
			}
			const n = "WITH RECURSIVE n(i) AS (SELECT 100000 UNION ALL SELECT i + 1 FROM n WHERE i < 199999) "
			for _, q := range []string{
				"INSERT INTO users (id, name, name_fold, role, created_at, updated_at) " + n + "SELECT 'u' || i, 'u' || i, 'u' || i, 'none', 1, 1 FROM n",
				"INSERT INTO group_members (group_id, user_id) " + n + "SELECT CASE (i + k) % 10 " + strings.Join(ids, " ") + " END, 'u' || i FROM n, (SELECT 0 AS k UNION SELECT 3 UNION SELECT 6) g",
				"INSERT INTO authenticators (id, user_id, kind, confirmed_at, created_at) " + n + "SELECT k || i, 'u' || i, k, 1, 1 FROM n, (SELECT 'totp' AS k UNION SELECT 'push') a",
				"INSERT INTO backup_codes (id, user_id, set_id, hash, created_at) " + n + "SELECT 'b' || i, 'u' || i, 's', CAST('u' || i AS " + map[string]string{"pgx": "BYTEA", "sqlite": "BLOB"}[driver] + "), 1 FROM n",
			} {
				if _, err := raw.ExecContext(ctx, q); err != nil {
					b.Fatal(q, err)
				}
			}
			for i := range 10 {
				if _, err := r.AddPolicy(ctx, root, rest.NewPolicy{Name: fmt.Sprint("p", i), Groups: []string{fmt.Sprint("g", i)}, ShutOut: 1 << 30}); err != nil {
					b.Fatal(err)
				}
			}
			for what, in := range map[string]rest.ShutOutDraft{
				"everybody": {Policy: "default", Settings: settings(`{"online_factors":["sms"]}`)},
				"a group":   {Policy: "p3", Settings: settings(`{"online_factors":["sms"]}`)},
			} {
				b.Run(what, func(b *testing.B) {
					for b.Loop() {
						x, err := r.ListShutOut(ctx, root, in)
						if err != nil || what == "a group" && x.People == 0 {
							b.Fatal(x.People, err)
						}
					}
				})
			}
		})
	}
}
