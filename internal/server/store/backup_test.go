package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
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

// fill runs the scripts of the queries test, so that every table has rows, and adds
// events to the chain.
func fill(t *testing.T, s *store.Store) {
	t.Helper()
	c := &script{t: t, s: s, ran: map[string]bool{}}
	for _, part := range scripts {
		part(c)
	}
	c.do("PutSetting", setting("ca"))
	c.do("StartJournal", db.StartJournalParams{MachineID: "m1"})
	for range 5 {
		add(t, s, event.Event{Type: event.SigninAllowed, Actor: "alice <&> \u2028", Data: []byte(`{"a":1}`)})
	}
}

// body is a backup without its first line, which names engine and time, and its
// last, which holds the digest.
func body(t *testing.T, s *store.Store) []string {
	t.Helper()
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	return lines[1 : len(lines)-2]
}

func TestABackupIsRestoredIntoTheOtherEngine(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		s := storetest.Open(t, store.Config{Database: database})
		fill(t, s)
		path := filepath.Join(t.TempDir(), "backup")
		info, err := s.BackupFile(t.Context(), path)
		if err != nil || info.Rows < 40 || info.Engine != s.Engine() {
			t.Fatalf("%+v, %v", info, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		if list, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(list) != 1 {
			t.Errorf("left behind: %v", list)
		}
		for name, target := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgresql": storetest.BarePostgreSQL} {
			t.Run("into "+name, func(t *testing.T) {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				conf := store.Config{Database: target(t), Clock: clock.Real}
				got, err := store.Restore(t.Context(), conf, f, nil)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(info, got); d != "" {
					t.Error(d)
				}
				r := storetest.Open(t, conf)
				if d := cmp.Diff(body(t, s), body(t, r)); d != "" {
					t.Errorf("the original (-) and the copy (+) differ:\n%s", d)
				}
				report, err := r.VerifyEvents(t.Context())
				for _, c := range report.Chains {
					if c.Chain == "main" && c.Broken != 0 {
						t.Errorf("%+v, %v", c, err)
					}
				}
				// The copy goes on where the original was.
				add(t, r, event.Event{Type: event.ServerStarted})
				if _, err := store.Restore(t.Context(), conf, strings.NewReader(whole(t, path)), nil); !errors.Is(err, store.ErrNotEmpty) {
					t.Errorf("restored over a full database: %v", err)
				}
			})
		}
	})
}

func whole(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestADamagedBackupRestoresNothing(t *testing.T) {
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	fill(t, s)
	var b bytes.Buffer
	if _, err := s.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	good := b.String()
	lines := strings.SplitAfter(good, "\n")
	drop := func(i int) string { return strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), "") }
	cases := []struct {
		name, text string
		want       error
	}{
		{"nothing", "", store.ErrBackupDamaged},
		{"another file", "hello\n", store.ErrBackupDamaged},
		{"another JSON file", "{}\n", store.ErrBackupDamaged},
		{"a newer format", `{"latchkey_backup":2,"whatever":[]}` + "\n", store.ErrBackupNewer},
		{"a newer schema", strings.Replace(good, `"schema":`, `"schema":99`, 1), store.ErrBackupNewer},
		{"cut off in a line", good[:len(good)/2], store.ErrBackupDamaged},
		{"cut off behind a line", strings.Join(lines[:len(lines)/2], ""), store.ErrBackupDamaged},
		{"without its last line", strings.Join(lines[:len(lines)-2], ""), store.ErrBackupDamaged},
		{"without its last line's end", good[:len(good)-1], store.ErrBackupDamaged},
		{"a row is missing", drop(len(lines) - 4), store.ErrBackupDamaged},
		{"a value was changed", strings.Replace(good, `"owner"`, `"none"`, 1), store.ErrBackupDamaged},
		{"something follows", good + "[]\n", store.ErrBackupDamaged},
		{"a table from elsewhere", strings.Replace(good, `{"table":"users"`, `{"table":"users; DROP TABLE groups"`, 1), store.ErrBackupDamaged},
		{"goose's table", strings.Replace(good, `{"table":"users"`, `{"table":"goose_db_version"`, 1), store.ErrBackupDamaged},
		{"a column from elsewhere", strings.Replace(good, `"name_fold"`, `"name_fold) SELECT"`, 1), store.ErrBackupDamaged},
	}
	storetest.Databases(t, func(t *testing.T, database string) {
		conf := store.Config{Database: database, Clock: clock.Real}
		for _, c := range cases {
			if _, err := store.Restore(t.Context(), conf, strings.NewReader(c.text), nil); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		// After all that the database is still empty, and takes the good one.
		if _, err := store.Restore(t.Context(), conf, strings.NewReader(good), nil); err != nil {
			t.Error(err)
		}
	})
}

func TestABackupIsTakenWhileTheServerWrites(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				add(t, s, event.Event{Type: event.SigninAllowed}, event.Event{Type: event.FactorAccepted})
			}
		}()
		for range 5 {
			var b bytes.Buffer
			if _, err := s.Backup(t.Context(), &b); err != nil {
				t.Error(err)
				break
			}
			conf := store.Config{Database: storetest.SQLite(t), Clock: clock.Real}
			if _, err := store.Restore(t.Context(), conf, &b, nil); err != nil {
				t.Error(err)
				break
			}
			// Each is a moment in which the chain was whole.
			r, err := storetest.Open(t, conf).VerifyEvents(t.Context())
			if err != nil || !r.Whole() || r.Events%2 != 0 {
				t.Errorf("%+v, %v", r, err)
			}
		}
		stop()
		<-done
	})
}

func TestABackupThatCanNotBeWrittenSaysSo(t *testing.T) {
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	full := errors.New("disk full")
	if _, err := s.Backup(t.Context(), failing{full}); !errors.Is(err, full) {
		t.Error(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "b")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.BackupFile(ctx, path); err == nil {
		t.Error("no error")
	}
	if whole(t, path) != "old" {
		t.Error("the old backup is gone")
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

var _ io.Writer = failing{}
