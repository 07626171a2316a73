package bulk_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// rig is an import over a real store, keys, directory and factors.
type rig struct {
	t testing.TB
	*desktest.Rig
	bulk *bulk.Service
}

func newRig(t testing.TB, s *store.Store) *rig {
	r := desktest.New(t, s, clock.Real)
	return &rig{t, r, service(t, r)}
}

func service(t testing.TB, r *desktest.Rig) *bulk.Service {
	b := bulk.New(bulk.Config{Store: r.Store, Desk: r.Desk, Box: r.Keys.Box, Clock: r.Clock, Passwords: r.Passwords, Codes: r.Keeper})
	t.Cleanup(b.Close)
	return b
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) user(name string, change ...func(*rest.NewUser)) rest.User {
	r.t.Helper()
	in := rest.NewUser{Name: name}
	for _, f := range change {
		f(&in)
	}
	u, err := r.AddUser(context.Background(), desk.Root(), in)
	r.must(err)
	return u
}

func (r *rig) group(name string) {
	r.t.Helper()
	_, err := r.AddGroup(context.Background(), desk.Root(), rest.NewGroup{Name: name})
	r.must(err)
}

// upload begins an import and gives it a file.
func (r *rig) upload(a desk.Actor, in rest.NewImport, file string) (rest.Import, error) {
	r.t.Helper()
	i, err := r.bulk.Make(context.Background(), a, in)
	r.must(err)
	return r.bulk.Upload(context.Background(), a, i.ID, "users.csv", strings.NewReader(file))
}

// check is upload of a file that can be read.
func (r *rig) check(a desk.Actor, in rest.NewImport, lines ...string) rest.Import {
	r.t.Helper()
	i, err := r.upload(a, in, strings.Join(lines, "\n"))
	r.must(err)
	return i
}

func (r *rig) apply(a desk.Actor, id string) rest.Import {
	r.t.Helper()
	_, err := r.bulk.Apply(context.Background(), a, id)
	r.must(err)
	return r.wait(id)
}

// wait waits until nothing goes on with the import.
func (r *rig) wait(id string) rest.Import {
	r.t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		i, err := r.bulk.Show(context.Background(), desk.Root(), id)
		r.must(err)
		if i.State != rest.ImportApplying && i.State != rest.ImportTelling {
			return i
		}
		if time.Now().After(end) {
			r.t.Fatalf("it does not end: %+v", i)
		}
	}
}

func (r *rig) rows(id, state string) []rest.ImportRow {
	r.t.Helper()
	var out []rest.ImportRow
	for after := ""; ; {
		p, err := r.bulk.Rows(context.Background(), desk.Root(), id, state, after, 500)
		r.must(err)
		if out = append(out, p.Items...); p.Next == "" {
			return out
		}
		after = p.Next
	}
}

// events are the words of the events since a place in the chain, and where it ends.
func (r *rig) events(since int64) (words []string, end int64) {
	r.t.Helper()
	r.must(r.Store.Read(context.Background(), func(q *store.Queries) error {
		rows, err := q.ListChainEvents(context.Background(), db.ListChainEventsParams{Chain: r.Store.Replica(), After: since, N: 1 << 20})
		for _, e := range rows {
			words, end = append(words, e.Type+" "+e.Subject), e.Seq
		}
		return err
	}))
	return words, max(end, since)
}

func (r *rig) show(name string) rest.User {
	r.t.Helper()
	u, err := r.ShowUser(context.Background(), desk.Root(), name)
	r.must(err)
	return u
}

func says(t testing.TB, i rest.Import, want string) {
	t.Helper()
	if got := fmt.Sprintf("%s new=%d changed=%d same=%d faulty=%d", i.State, i.New, i.Changed, i.Same, i.Faulty); got != want {
		t.Errorf("%s, want %s (%s)", got, want, i.Problem)
	}
}

func administrator(id string) desk.Actor {
	return desk.Actor{Name: "adam", Role: rest.RoleAdministrator, UserID: id, Address: "192.0.2.4"}
}

func TestAnImportIsJudgedAppliedAndRepeated(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := newRig(t, s)
		r.group("Sales")
		r.group("Berlin")
		r.user("old", func(u *rest.NewUser) { u.DisplayName = "Old"; u.Groups = []string{"Berlin"} })
		r.user("gone")
		r.user("same", func(u *rest.NewUser) { u.Mail = "same@example.org" })
		_, begun := r.events(0)
		file := []string{
			"mail;Display Name;name;groups;uid;disabled;activation;code;must_change",
			`new@example.org;"Núñez; Ana";ana;Sales|Berlin;1001;no;first-login;yes;yes`,
			`old@example.org;;old;Sales;;;;;yes`,
			`;;gone;;;yes;;;`,
			`same@example.org;;same;;;;;yes;`,
			`;;later;;;;2026-12-01T08:00:00Z;;`,
		}
		i := r.check(desk.Root(), rest.NewImport{}, file...)
		says(t, i, "checked new=2 changed=2 same=1 faulty=0")
		if words, _ := r.events(begun); len(words) > 0 {
			t.Errorf("a dry run writes events: %q", words)
		}
		if u := r.show("old"); u.Mail != "" {
			t.Error("a dry run changes users")
		}
		changed := r.rows(i.ID, rest.RowChanged)
		if got := fmt.Sprint(changed[0].Changes); got != "[{mail  old@example.org} {groups Berlin Sales}]" {
			t.Error(got)
		}
		i = r.apply(desk.Root(), i.ID)
		says(t, i, "done new=2 changed=2 same=1 faulty=0")
		ana := r.show("ana")
		if ana.DisplayName != "Núñez; Ana" || ana.Mail != "new@example.org" || ana.UID == nil || *ana.UID != 1001 || ana.Activation != "first-login" ||
			!ana.MustChange || !slices.Equal(ana.Groups, []string{"Berlin", "Sales"}) || !ana.ActivatedAt.IsZero() {
			t.Errorf("%+v", ana)
		}
		if u := r.show("later"); u.Activation != "at" || u.ActivateAt.Format(time.RFC3339) != "2026-12-01T08:00:00Z" {
			t.Errorf("%+v", u)
		}
		if u := r.show("old"); u.Mail != "old@example.org" || u.DisplayName != "Old" || !slices.Equal(u.Groups, []string{"Sales"}) || u.MustChange {
			t.Errorf("%+v", u)
		}
		words, begun := r.events(begun)
		slices.Sort(words)
		want := []string{
			"code.issued ana", "group.changed Berlin", "group.changed Sales", "import.applied users.csv", "user.added ana", "user.added later",
			"user.changed old", "user.disabled gone",
		}
		if !slices.Equal(words, want) {
			t.Errorf("events %q", words)
		}
		// The code opens what an enrolment code opens, and is fetched once.
		var codes strings.Builder
		r.must(r.bulk.WriteCodes(t.Context(), desk.Root(), i.ID, &codes))
		lines := strings.Split(codes.String(), "\r\n")
		if len(lines) != 3 || !strings.HasPrefix(lines[1], `ana,"Núñez; Ana",new@example.org,`) {
			t.Fatalf("%q", lines)
		}
		if err := r.bulk.WriteCodes(t.Context(), desk.Root(), i.ID, &codes); !fault.Is(err, fault.Conflict) {
			t.Errorf("codes are given twice: %v", err)
		}
		words, begun = r.events(begun)
		if !slices.Equal(words, []string{"import.codes_taken users.csv"}) {
			t.Errorf("%q", words)
		}
		// Again: nothing.
		i = r.apply(desk.Root(), r.check(desk.Root(), rest.NewImport{Codes: true}, file...).ID)
		says(t, i, "done new=0 changed=0 same=5 faulty=0")
		if words, _ := r.events(begun); len(words) > 0 || i.CodesLeft != 0 {
			t.Errorf("the second run writes %q and has %d codes", words, i.CodesLeft)
		}
	})
}

func TestNothingOrAllOfIt(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := newRig(t, s)
		file := []string{"name,mail", "right,right@example.org", "wrong,no mail at all", "good,"}
		i := r.check(desk.Root(), rest.NewImport{}, file...)
		says(t, i, "checked new=2 changed=0 same=0 faulty=1")
		if _, err := r.bulk.Apply(t.Context(), desk.Root(), i.ID); !fault.Is(err, fault.Conflict) {
			t.Fatalf("a faulty row is passed over: %v", err)
		}
		if _, err := r.ShowUser(t.Context(), desk.Root(), "right"); !fault.Is(err, fault.NotFound) {
			t.Fatal("something was changed")
		}
		i = r.check(desk.Root(), rest.NewImport{OnFaults: rest.FaultsSkip}, file...)
		i = r.apply(desk.Root(), i.ID)
		says(t, i, "done new=2 changed=0 same=0 faulty=1")
		r.show("right")
		r.show("good")
		if _, err := r.ShowUser(t.Context(), desk.Root(), "wrong"); !fault.Is(err, fault.NotFound) {
			t.Error("a faulty row was taken")
		}
	})
}

func TestNobodyOfEqualOrHigherRoleIsTouched(t *testing.T) {
	r := newRig(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t)}))
	adam := r.user("adam", func(u *rest.NewUser) { u.Role = rest.RoleAdministrator })
	r.user("beth", func(u *rest.NewUser) { u.Role = rest.RoleAdministrator })
	r.user("olga", func(u *rest.NewUser) { u.Role = rest.RoleOwner })
	r.user("hank", func(u *rest.NewUser) { u.Role = rest.RoleHelpDesk })
	a := administrator(strings.TrimPrefix(adam.ID, rest.UserPrefix))
	i := r.check(a, rest.NewImport{},
		"name,role,mail,disabled",
		"adam,,adam@example.org,",   // himself
		"beth,,beth@example.org,",   // equal
		"olga,none,,yes",            // higher
		"hank,administrator,,",      // raised to his own
		"new,owner,,",               // made above him
		"beth2,administrator,,",     // made beside him
		"olga2,auditor,,",           // fine
		"hank2,,hank2@example.org,", // fine
	)
	says(t, i, "checked new=2 changed=0 same=0 faulty=6")
	if i = r.check(a, rest.NewImport{}, "name,role", "beth,administrator", "hank,auditor"); i.Same != 0 || i.Changed != 1 || i.Faulty != 1 {
		t.Errorf("%+v", i)
	}
	// An owner has no second approver here, root on the server neither.
	i = r.check(desk.Root(), rest.NewImport{}, "name,role,disabled", "olga,,yes", "root2,owner,", "beth,none,")
	says(t, i, "checked new=0 changed=1 same=0 faulty=2")
	for _, role := range []string{rest.RoleNone, rest.RoleAuditor, rest.RoleHelpDesk} {
		if _, err := r.bulk.Make(t.Context(), desk.Actor{Name: "x", Role: role}, rest.NewImport{}); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s: %v", role, err)
		}
	}
	// What one has begun no other goes on with.
	if _, err := r.bulk.Apply(t.Context(), a, i.ID); !fault.Is(err, fault.Forbidden) {
		t.Errorf("another goes on with an import: %v", err)
	}
}

func TestWhatSomebodyElseChangesMeanwhileIsTakenInOrStopsAllOfIt(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		ctx := context.Background()
		r := newRig(t, s)
		r.group("Sales")
		r.user("one", func(u *rest.NewUser) { u.DisplayName = "One" })
		r.user("two")
		i := r.check(desk.Root(), rest.NewImport{}, "name,mail,groups", "one,one@example.org,", "two,two@example.org,", "three,,Sales", "four,,")
		says(t, i, "checked new=2 changed=2 same=0 faulty=0")
		mail, display := "two@example.org", "Uno"
		_, err := r.ChangeUser(ctx, desk.Root(), "two", 0, rest.UserChange{Mail: &mail})
		r.must(err)
		_, err = r.ChangeUser(ctx, desk.Root(), "one", 0, rest.UserChange{DisplayName: &display})
		r.must(err)
		r.user("three", func(u *rest.NewUser) { u.DisplayName = "Third" })
		i = r.apply(desk.Root(), i.ID)
		says(t, i, "done new=1 changed=2 same=1 faulty=0")
		if u := r.show("one"); u.DisplayName != "Uno" || u.Mail != "one@example.org" {
			t.Errorf("somebody's change was overwritten: %+v", u)
		}
		if u := r.show("three"); u.DisplayName != "Third" || !slices.Equal(u.Groups, []string{"Sales"}) {
			t.Errorf("%+v", u)
		}

		i = r.check(desk.Root(), rest.NewImport{}, "name,groups", "five,Sales", "six,")
		r.must(r.RemoveGroup(ctx, desk.Root(), "Sales", 0))
		i = r.apply(desk.Root(), i.ID)
		if i.State != rest.ImportChecked || i.Faulty != 1 || !strings.Contains(i.Problem, "Nothing was changed") {
			t.Errorf("%+v", i)
		}
		if _, err := r.ShowUser(ctx, desk.Root(), "six"); !fault.Is(err, fault.NotFound) {
			t.Error("half of it was written")
		}
	})
}

// TestWhoIsRaisedMeanwhileGetsNoGroups: rows that change groups alone are bound to the
// revision that was judged, too.
func TestWhoIsRaisedMeanwhileGetsNoGroups(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		ctx := context.Background()
		r := newRig(t, s)
		r.group("Lax")
		r.user("one")
		i := r.check(desk.Root(), rest.NewImport{}, "name,groups", "one,Lax")
		says(t, i, "checked new=0 changed=1 same=0 faulty=0")
		role := rest.RoleAdministrator
		_, err := r.ChangeUser(ctx, desk.Root(), "one", 0, rest.UserChange{Role: &role})
		r.must(err)
		id := strings.TrimPrefix(i.ID, rest.ImportPrefix)
		r.must(s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			todo, err := tx.CountImportChanges(ctx, db.CountImportChangesParams{ImportID: id, Last: 10})
			if err != nil {
				return err
			}
			n, err := tx.ImportChangedUsers(ctx, db.ImportChangedUsersParams{ImportID: id, Last: 10, At: 1})
			if todo.Fields != 1 || n != 0 {
				t.Errorf("of %d rows bound to a revision %d were written", todo.Fields, n)
			}
			return err
		}))
	})
}

// TestAnImportByATokenGivesNoRoles: else a token that may change things made itself an
// administrator.
func TestAnImportByATokenGivesNoRoles(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := newRig(t, s)
		r.user("low")
		r.user("mid", func(u *rest.NewUser) { u.Role = rest.RoleAuditor })
		token := desk.Actor{Name: "otto (token hr)", Role: rest.RoleOwner, Token: true, Scopes: []string{"read", "change"}}
		i := r.check(token, rest.NewImport{OnFaults: rest.FaultsSkip}, "name,role,mail", "low,administrator,", "mid,,mid@example.org", "new,helpdesk,", "plain,,")
		says(t, i, "checked new=1 changed=0 same=0 faulty=3")
	})
}

func TestGroupsThatAreMissingAreNamedOrMade(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := newRig(t, s)
		i := r.check(desk.Root(), rest.NewImport{}, "name,groups", "a,North|South")
		if rows := r.rows(i.ID, rest.RowFaulty); len(rows) != 1 || len(rows[0].Faults) != 2 || rows[0].Faults[0].Column != 2 || rows[0].Faults[0].Field != "groups" {
			t.Fatalf("%+v", rows)
		}
		i = r.check(desk.Root(), rest.NewImport{MakeGroups: true}, "name,groups,add_groups", "a,North|South,", "b,,North", "c,-,")
		if !slices.Equal(i.NewGroups, []string{"North", "South"}) {
			t.Errorf("%+v", i)
		}
		r.group("South") // somebody else is faster
		_, begun := r.events(0)
		i = r.apply(desk.Root(), i.ID)
		says(t, i, "done new=3 changed=0 same=0 faulty=0")
		if words, _ := r.events(begun); slices.Contains(words, "group.added South") || !slices.Contains(words, "group.added North") {
			t.Errorf("%q", words)
		}
		if u := r.show("a"); !slices.Equal(u.Groups, []string{"North", "South"}) {
			t.Errorf("%q", u.Groups)
		}
		i = r.apply(desk.Root(), r.check(desk.Root(), rest.NewImport{}, "name,add_groups,groups", "a,,-", "b,South,").ID)
		if u := r.show("a"); len(u.Groups) != 0 || i.Changed != 2 {
			t.Errorf("%q", u.Groups)
		}
		if u := r.show("b"); len(u.Groups) != 2 {
			t.Errorf("%q", u.Groups)
		}
	})
}

// end is how many events there are.
func (r *rig) end() (count, same int64) {
	r.t.Helper()
	r.must(r.Store.Read(context.Background(), func(q *store.Queries) error {
		chains, err := q.ListChains(context.Background())
		for _, c := range chains {
			count += c.Seq
		}
		return err
	}))
	return count, count
}

// nothing is the smallest change that somebody else may wish to make.
func nothing(ctx context.Context, tx *store.Tx) error {
	_, err := tx.DeleteOldIdempotency(ctx, 0)
	return err
}

func listAll(id string) db.ListImportRowsParams {
	return db.ListImportRowsParams{ImportID: id, LimitN: 1000}
}

// What can not go on ends with its problem told, and stands in nobody's way.
func TestAnImportThatCanNotGoOnEndsAndOthersAreApplied(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		ctx := context.Background()
		r := newRig(t, s)
		until := func(id string) rest.Import {
			t.Helper()
			for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				i, err := r.bulk.Show(ctx, desk.Root(), id)
				r.must(err)
				if i.State != rest.ImportApplying && i.State != rest.ImportTelling {
					return i
				}
				if time.Now().After(end) {
					t.Fatalf("it goes on for ever: %+v", i)
				}
				r.must(r.bulk.Resume(ctx))
			}
		}
		// In the middle of all or nothing.
		i := r.check(desk.Root(), rest.NewImport{}, "name", "one", "two")
		raw := strings.TrimPrefix(i.ID, rest.ImportPrefix)
		r.must(s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.SetImportGroups(ctx, db.SetImportGroupsParams{ID: raw, MadeGroups: "damaged"})
			return err
		}))
		_, err := r.bulk.Apply(ctx, desk.Root(), i.ID)
		r.must(err)
		i = until(i.ID)
		if i.State != rest.ImportChecked || !strings.Contains(i.Problem, "nothing was changed") || !strings.Contains(i.Problem, "5 tries") {
			t.Errorf("%+v", i)
		}
		if _, err := r.ShowUser(ctx, desk.Root(), "one"); !fault.Is(err, fault.NotFound) {
			t.Errorf("something was changed: %v", err)
		}
		other := r.check(desk.Root(), rest.NewImport{}, "name", "three")
		says(t, r.apply(desk.Root(), other.ID), "done new=1 changed=0 same=0 faulty=0")
		r.must(r.bulk.Drop(ctx, desk.Root(), i.ID))

		// Behind it, while events are written.
		r.user("four")
		i = r.check(desk.Root(), rest.NewImport{}, "name,mail", "four,four@example.org")
		raw = strings.TrimPrefix(i.ID, rest.ImportPrefix)
		r.must(s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			rows, err := tx.ListImportRows(ctx, listAll(raw))
			if err != nil {
				return err
			}
			if _, err := tx.DeleteImportRow(ctx, db.DeleteImportRowParams{ImportID: raw, N: rows[0].N}); err != nil {
				return err
			}
			rows[0].Changes = "damaged"
			if err := tx.InsertImportRow(ctx, rowOf(rows[0])); err != nil {
				return err
			}
			_, err = tx.MoveImport(ctx, db.MoveImportParams{ID: raw, OldState: rest.ImportChecked, State: rest.ImportTelling, At: 1, AppliedAt: 1})
			return err
		}))
		i = until(i.ID)
		if i.State != rest.ImportDone || !strings.Contains(i.Problem, "events and enrolment codes of 1 ") {
			t.Errorf("%+v", i)
		}
		r.must(r.bulk.Drop(ctx, desk.Root(), i.ID))
		other = r.check(desk.Root(), rest.NewImport{}, "name", "five")
		says(t, r.apply(desk.Root(), other.ID), "done new=1 changed=0 same=0 faulty=0")
	})
}

// rowOf is a row as it is written.
func rowOf(r db.ImportRow) db.InsertImportRowParams {
	return db.InsertImportRowParams{
		ImportID: r.ImportID, N: r.N, Line: r.Line, State: r.State, Name: r.Name, NameFold: r.NameFold, Input: r.Input, UserID: r.UserID, SeenRev: r.SeenRev,
		Fields: r.Fields, DisplayName: r.DisplayName, Mail: r.Mail, Role: r.Role, PasswordHash: r.PasswordHash, MustChange: r.MustChange,
		Activation: r.Activation, ActivateAt: r.ActivateAt, Disabled: r.Disabled, MFA: r.MFA, UID: r.UID, Disables: r.Disables, Changes: r.Changes,
		Faults: r.Faults, Note: r.Note, WantCode: r.WantCode,
	}
}

// Codes that nobody has fetched within a day are forgotten; without any, nothing is written.
func TestCodesThatNobodyFetchesAreForgotten(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		ctx := context.Background()
		r := newRig(t, s)
		i := r.check(desk.Root(), rest.NewImport{Codes: true}, "name", "one", "two")
		i = r.apply(desk.Root(), i.ID)
		r.must(r.bulk.Resume(ctx))
		raw := strings.TrimPrefix(i.ID, rest.ImportPrefix)
		left := func() (n int, counted int64) {
			r.must(s.Read(ctx, func(q *store.Queries) error {
				rows, err := q.ListImportCodes(ctx, db.ListImportCodesParams{ImportID: raw, LimitN: 10})
				if err != nil {
					return err
				}
				i, err := q.GetImport(ctx, raw)
				n, counted = len(rows), i.CodesLeft
				return err
			}))
			return n, counted
		}
		if n, counted := left(); n != 2 || counted != 2 {
			t.Fatalf("%d codes, %d counted", n, counted)
		}
		r.must(s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			at := clock.Micros(time.Now().Add(-25 * time.Hour))
			_, err := tx.MoveImport(ctx, db.MoveImportParams{ID: raw, OldState: rest.ImportDone, State: rest.ImportDone, At: at, AppliedAt: at, EndedAt: at})
			return err
		}))
		r.must(r.bulk.Resume(ctx))
		if n, counted := left(); n != 0 || counted != 0 {
			t.Errorf("%d codes, %d counted", n, counted)
		}
	})
}
