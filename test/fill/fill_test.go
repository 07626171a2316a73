package fill

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// TestWhatWasFilledInIsWhole: the chain verifies, the schema is complete again, and the server's own queries find what the
// generator says is there.
func TestWhatWasFilledInIsWhole(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		empty := storetest.Open(t, store.Config{Database: database})
		if err := empty.Close(); err != nil {
			t.Fatal(err)
		}
		before := indices(t, database)
		size := Size{Users: 200, Groups: 10, Machines: 150, Events: 8000}
		begun := time.Now()
		m, err := Database(context.Background(), t.TempDir(), database, size)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(time.Since(begun), m.Took)
		if d := cmp.Diff(before, indices(t, database)); d != "" {
			t.Errorf("other indices than before (-before +after):\n%s", d)
		}
		s := storetest.Open(t, store.Config{Database: database, Clock: clock.Real})
		r, err := s.VerifyEvents(t.Context())
		if err != nil || !r.Whole() || r.Events != int64(size.Events) {
			t.Fatalf("%+v %v", r, err)
		}
		for name, want := range map[string]bool{m.Quiet: false, m.Busy: true, m.Usual: true} {
			err := s.Read(t.Context(), func(q *store.Queries) error {
				u, err := q.GetUserByName(t.Context(), name)
				if err != nil {
					return err
				}
				es, err := s.Events(t.Context(), store.EventFilter{UserID: u.ID})
				if (len(es) > 0) != want {
					t.Errorf("%s has %d events", name, len(es))
				}
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		rare, err := s.Events(t.Context(), store.EventFilter{Types: []string{m.Rare}})
		if err != nil || len(rare) != 20 || rare[0].At > clock.Micros(m.Now.AddDate(0, 0, -300)) {
			t.Errorf("of the rare type %s there are %d: %v", m.Rare, len(rare), err)
		}
	})
}

// indices are the names of all indices there are.
func indices(t *testing.T, database string) (names []string) {
	t.Helper()
	driver, source, q := "pgx", database, "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname"
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		driver, source, q = "sqlite", path, "SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY name"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(q)
	err = readAll(rows, err, func(scan func(...any) error) error {
		names = append(names, "")
		return scan(&names[len(names)-1])
	})
	if err != nil || len(names) < 10 {
		t.Fatal(names, err)
	}
	return names
}
