package bulk_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	_ "latchkey/internal/server/source/mysql"
	_ "latchkey/internal/server/source/postgresql"
	"latchkey/internal/server/sourcetest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

func TestAQueryIsImportedAsAFile(t *testing.T) {
	r := newRig(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t)}))
	r.group("Sales")
	r.user("old", func(u *rest.NewUser) { u.Mail = "old@example.org" })
	pg, err := url.Parse(storetest.BarePostgreSQL(t))
	r.must(err)
	maria := sourcetest.NewMariaDB(t)
	maria.Exec("CREATE DATABASE hr; CREATE USER reader@localhost IDENTIFIED BY 'geheim'; GRANT SELECT ON hr.* TO reader@localhost")
	adam := r.user("adam", func(u *rest.NewUser) { u.Role = rest.RoleAdministrator })
	admin := administrator(strings.TrimPrefix(adam.ID, rest.UserPrefix))
	for kind, c := range map[string]struct{ address, query string }{
		"postgresql": {
			"postgresql://" + pg.User.Username() + "@" + pg.Path + "?socket=" + pg.Query().Get("host"),
			"SELECT * FROM (VALUES ('pg1', 'Eins', 'Sales', true, timestamp '2026-12-01 08:00'), ('old', NULL, NULL, NULL, NULL), ('bad', 'x', 'Nowhere', false, NULL)) AS x(login, full_name, groups, disabled, activation)",
		},
		"mysql": {
			"mariadb://reader:geheim@/hr?socket=" + maria.Socket,
			"SELECT 'maria1' AS login, 'Zwei' AS full_name, 'Sales' AS groups, 1 AS disabled, TIMESTAMP '2026-12-01 08:00:00' AS activation UNION ALL SELECT 'old', NULL, NULL, NULL, NULL UNION ALL SELECT 'bad', 'x', 'Nowhere', 0, NULL",
		},
	} {
		t.Run(kind, func(t *testing.T) {
			source, err := r.bulk.AddSource(t.Context(), desk.Root(), rest.NewSource{Name: kind, Address: rest.HideText(c.address), Query: c.query})
			r.must(err)
			if strings.Contains(source.Place, "geheim") || source.Driver != kind || !source.Tested {
				t.Errorf("%+v", source)
			}
			i, err := r.bulk.Make(t.Context(), admin, rest.NewImport{OnFaults: rest.FaultsSkip})
			r.must(err)
			i, err = r.bulk.Query(t.Context(), admin, i.ID, rest.ImportQuery{Source: kind})
			r.must(err)
			says(t, i, "checked new=1 changed=0 same=1 faulty=1")
			if rows := r.rows(i.ID, rest.RowFaulty); rows[0].Faults[0].Line != 3 || rows[0].Faults[0].Column != 3 || rows[0].Faults[0].Field != "groups" {
				t.Errorf("%+v", rows)
			}
			says(t, r.apply(admin, i.ID), "done new=1 changed=0 same=1 faulty=1")
			name := map[string]string{"postgresql": "pg1", "mysql": "maria1"}[kind]
			if u := r.show(name); !u.Disabled || u.DisplayName == "" || u.Groups[0] != "Sales" || u.ActivateAt.Format("2006-01-02 15:04") != "2026-12-01 08:00" {
				t.Errorf("%+v", u)
			}
			// An administrator asks what an owner has written, and nothing else.
			for _, q := range []rest.ImportQuery{{Source: kind, Query: "SELECT 'x' AS name"}, {Address: rest.HideText(c.address), Query: c.query}, {Source: kind, CA: "x"}} {
				i, err := r.bulk.Make(t.Context(), admin, rest.NewImport{})
				r.must(err)
				if _, err := r.bulk.Query(t.Context(), admin, i.ID, q); !fault.Is(err, fault.Forbidden) {
					t.Errorf("%+v: %v", q.Query, err)
				}
				r.must(r.bulk.Drop(t.Context(), admin, i.ID))
			}
			i, err = r.bulk.Make(t.Context(), desk.Root(), rest.NewImport{})
			r.must(err)
			if i, err = r.bulk.Query(t.Context(), desk.Root(), i.ID, rest.ImportQuery{Address: rest.HideText(c.address), Query: "SELECT 'once' AS name"}); err != nil || i.New != 1 {
				t.Errorf("%+v, %v", i, err)
			}
			r.must(r.bulk.RemoveSource(t.Context(), desk.Root(), kind))
		})
	}
	if _, err := r.bulk.AddSource(t.Context(), admin, rest.NewSource{Name: "x", Address: rest.HideText("mysql://u:p@db/hr"), Query: "SELECT 1"}); !fault.Is(err, fault.Forbidden) {
		t.Errorf("an administrator keeps an address: %v", err)
	}
}

func TestPasswordsAreForNewUsersAlone(t *testing.T) {
	r := newRig(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t)}))
	r.user("old")
	i := r.check(desk.Root(), rest.NewImport{OnFaults: rest.FaultsSkip}, "name,password,must_change", "new,correct horse battery,yes", "old,correct horse battery,yes", "weak,short,")
	says(t, i, "checked new=1 changed=0 same=1 faulty=1")
	r.apply(desk.Root(), i.ID)
	if u := r.show("new"); !u.HasPassword || !u.MustChange {
		t.Errorf("%+v", u)
	}
	if u := r.show("old"); u.HasPassword || u.MustChange {
		t.Errorf("%+v", u)
	}
	r.must(r.Store.Read(t.Context(), func(q *store.Queries) error {
		id := strings.TrimPrefix(i.ID, rest.ImportPrefix)
		rows, err := q.ListImportRows(t.Context(), listAll(id))
		for _, row := range rows {
			if strings.Contains(row.Input+row.Changes+row.Faults, "horse") || row.PasswordHash != "" {
				t.Errorf("a password is kept: %+v", row)
			}
		}
		return err
	}))
}

// What fails in this server's own database is not told as a fault of the query.
func TestTheQueryIsNotBlamedForTheStore(t *testing.T) {
	r := newRig(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t)}))
	pg, err := url.Parse(storetest.BarePostgreSQL(t))
	r.must(err)
	i, err := r.bulk.Make(t.Context(), desk.Root(), rest.NewImport{})
	r.must(err)
	raw := strings.TrimPrefix(i.ID, rest.ImportPrefix)
	r.must(r.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertImportRow(ctx, db.InsertImportRowParams{ImportID: raw, N: 1, State: rest.RowSame, Name: "in the way", NameFold: "in the way"})
	}))
	in := rest.ImportQuery{
		Address: rest.HideText("postgresql://" + pg.User.Username() + "@" + pg.Path + "?socket=" + pg.Query().Get("host")),
		Query:   "SELECT 'u' || n AS name FROM generate_series(1, 500) AS n",
	}
	if _, err = r.bulk.Query(t.Context(), desk.Root(), i.ID, in); err == nil || fault.Of(err).Code != fault.Internal {
		t.Errorf("%v", err)
	}
	if i, err = r.bulk.Show(t.Context(), desk.Root(), i.ID); err != nil || i.State != rest.ImportFailed || strings.Contains(i.Problem, "query") {
		t.Errorf("%+v, %v", i, err)
	}
}
