package store

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"latchkey/internal/clock"
	"latchkey/internal/server/store/db"
)

func TestSQLiteIsOpenedSoThatACommitSurvivesAPowerCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "with space?#%.db")
	s, err := Open(t.Context(), Config{Database: "sqlite:" + path, Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Update(t.Context(), func(ctx context.Context, tx *Tx) error {
		return tx.PutSetting(ctx, db.PutSettingParams{Key: "k", Value: []byte("v")})
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		st, err := os.Stat(name)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	pragma := func(d *sql.DB, name string) (v string) {
		if err := d.QueryRow("PRAGMA " + name).Scan(&v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return v
	}
	for _, c := range []struct {
		d          *sql.DB
		name, want string
	}{
		{s.write, "journal_mode", "wal"},
		{s.write, "synchronous", "2"},
		{s.write, "foreign_keys", "1"},
		{s.write, "busy_timeout", "10000"},
		{s.read, "query_only", "1"},
		{s.read, "journal_mode", "wal"},
		{s.read, "busy_timeout", "10000"},
	} {
		if got := pragma(c.d, c.name); got != c.want {
			t.Errorf("%s is %s, want %s", c.name, got, c.want)
		}
	}
	if err := s.Read(t.Context(), func(q *Queries) error {
		return q.PutSetting(t.Context(), db.PutSettingParams{Key: "x", Value: []byte("v")})
	}); err == nil {
		t.Error("a read has written")
	}
	var like bool
	if err := s.write.QueryRow("SELECT 'A' LIKE 'a'").Scan(&like); err != nil || like {
		t.Errorf("LIKE folds case: %v, %v", like, err)
	}
}

func TestAWrongAddressIsNamedWithoutItsPassword(t *testing.T) {
	for _, address := range []string{
		"", "mysql://x", "sqlite:", "sqlite", "postgres://u:hunter2@%zz/db", "postgres://u:hunter2@127.0.0.1:1/db?sslmode=disable",
		"postgres://u:hunter2@h/db?sslmode=nonsense", "sqlite:/does/not/exist/hunter2/x.db",
	} {
		s, err := Open(t.Context(), Config{Database: address, Clock: clock.Real})
		if err == nil {
			t.Errorf("%q was opened", address)
			_ = s.Close()
			continue
		}
		if strings.Contains(err.Error(), "hunter2") && !strings.HasPrefix(address, "sqlite") {
			t.Errorf("the password shows in %v", err)
		}
	}
	if _, err := Open(t.Context(), Config{Database: "sqlite:x"}); err == nil {
		t.Error("opened without a clock")
	}
}

// withMore is the shipped migrations and others.
func withMore(t *testing.T, more map[string]string) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	names, err := fs.Glob(shipped(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := fs.ReadFile(shipped(), name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: []byte(b)}
	}
	added := fstest.MapFS{}
	for name, text := range more {
		added[name] = &fstest.MapFile{Data: []byte(text)}
	}
	maps.Copy(files, added)
	return files
}

func TestK3AMigrationCopiesTheDatabaseFirst(t *testing.T) {
	dir := t.TempDir()
	conf := Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: clock.Real}
	conf, _ = conf.complete()
	s, err := Open(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(ctx context.Context, tx *Tx) error {
		return tx.PutSetting(ctx, db.PutSettingParams{Key: "k", Value: []byte("before")})
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if list, _ := filepath.Glob(dir + "/backup/*"); len(list) != 0 {
		t.Errorf("a first start copied %v", list)
	}

	open := func(conf Config) *Store {
		s, err := connect(t.Context(), conf)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.disconnect() })
		return s
	}
	// One that fails leaves everything as it was.
	s = open(conf)
	bad := withMore(t, map[string]string{"00990_bad.sql": "-- +goose Up\nDELETE FROM settings;\nCREATE TABLE users (id TEXT);\n"})
	if err := s.migrate(t.Context(), bad, latest); err == nil {
		t.Error("a migration that can not work has worked")
	}
	if v, err := db.New(s.read).GetSetting(t.Context(), "k"); err != nil || string(v) != "before" {
		t.Errorf("after a failed migration: %s, %v", v, err)
	}
	good := withMore(t, map[string]string{"00990_good.sql": "-- +goose Up\nUPDATE settings SET value = NULL WHERE FALSE;\nDELETE FROM settings;\nCREATE TABLE extra (id TEXT COLLATE \"C\" PRIMARY KEY);\n"})
	careful := conf
	careful.NoMigration = true
	if err := open(careful).migrate(t.Context(), good, latest); !errors.Is(err, ErrOlder) {
		t.Errorf("NoMigration: %v", err)
	}
	if err := s.migrate(t.Context(), good, latest); err != nil {
		t.Fatal(err)
	}
	if _, err := db.New(s.read).GetSetting(t.Context(), "k"); !IsNotFound(err) {
		t.Errorf("not migrated: %v", err)
	}
	list, _ := filepath.Glob(dir + "/backup/*")
	if len(list) != 1 {
		t.Fatalf("copies: %v", list)
	}
	if st, err := os.Stat(list[0]); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	old, err := Open(t.Context(), Config{Database: "sqlite:" + list[0], Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := old.Read(t.Context(), func(q *Queries) error {
		v, err := q.GetSetting(t.Context(), "k")
		if string(v) != "before" {
			t.Errorf("the copy holds %q", v)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	// An older program refuses what the newer one made.
	if _, err := Open(t.Context(), conf); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer schema: %v", err)
	}
}

// An IO error that ends SQLite's transaction in the middle must not let later
// changes of the batch commit one by one.
func TestABrokenTransactionKeepsNothingOfItsBatch(t *testing.T) {
	s, err := Open(t.Context(), Config{Database: "sqlite:" + filepath.Join(t.TempDir(), "x.db"), Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	put := func(key string, then func(tx *Tx)) *job {
		j := &job{turn: make(chan *Tx, 1), played: make(chan error, 1), done: make(chan error, 1)}
		go func() {
			j.play(context.Background(), <-j.turn, func(ctx context.Context, tx *Tx) error {
				err := tx.PutSetting(ctx, db.PutSettingParams{Key: key, Value: []byte("v")})
				if then != nil {
					then(tx)
				}
				return err
			})
		}()
		return j
	}
	jobs := []*job{
		put("a", nil),
		put("b", func(tx *Tx) { _, _ = tx.b.tx.Exec("ROLLBACK") }), // what SQLite does by itself on a full disk
		put("c", nil),
	}
	s.runJobs(jobs)
	for i, j := range jobs {
		if err := <-j.done; err == nil {
			t.Errorf("change %d was answered with success", i)
		}
	}
	if list, err := db.New(s.read).ListSettingKeys(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("kept %v, %v", list, err)
	}
	if err := s.Update(t.Context(), func(ctx context.Context, tx *Tx) error {
		return tx.PutSetting(ctx, db.PutSettingParams{Key: "d", Value: []byte("v")})
	}); err != nil {
		t.Errorf("the next change: %v", err)
	}
}

func FuzzReadBackup(f *testing.F) {
	f.Add([]byte(`{"latchkey_backup":1,"schema":1,"engine":"sqlite","replica":"main","at":1}` + "\n" +
		`{"table":"users","columns":["id","n","b","x"],"types":["text","int","bool","bytes"]}` + "\n" +
		`["a",1,true,"AAE="]` + "\n" + `[null,-5,false,null]` + "\n" + `{"end":true,"rows":2,"sha256":"x"}` + "\n"))
	f.Add([]byte("{\"latchkey_backup\":1}\n[\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newBackupReader(strings.NewReader(string(b)))
		if _, err := d.header(); err != nil {
			return
		}
		var types []string
		_, err := d.tables(func(t backupTable) error {
			types = t.Types
			return nil
		}, func(row []any) error {
			if len(row) != len(types) {
				t.Errorf("%d values for %d columns", len(row), len(types))
			}
			for _, v := range row {
				switch v.(type) {
				case nil, string, int64, bool, []byte:
				default:
					t.Errorf("a value of type %T", v)
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrBackupDamaged) && !errors.Is(err, io.EOF) {
			t.Errorf("%v", err)
		}
	})
}
