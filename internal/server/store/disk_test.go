//go:build linux

package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// A disk that is really full: changes are refused with ErrUnavailable and leave
// nothing, what was acknowledged is there, the store says that it can not be written,
// and goes on by itself when there is room again (O17).
func TestO17AFullDiskRefusesChangesAndPasses(t *testing.T) {
	dir := storetest.Small(t, 8<<20)
	if dir == "" {
		return // it went well in there
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	change := func(k string) error {
		return s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			return tx.PutSetting(ctx, db.PutSettingParams{Key: "disk." + k, Value: []byte(strings.Repeat("x", 20_000)), UpdatedAt: 1})
		})
	}
	if err := change("before"); err != nil {
		t.Fatal(err)
	}
	if err := s.Writable(ctx); err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		room := storetest.Fill(t, dir)
		refused := 0
		for i := range 20 {
			if err := change(fmt.Sprint("full", round, i)); err != nil {
				if !store.IsUnavailable(err) {
					t.Fatalf("refused as %v", err)
				}
				refused++
			}
		}
		if refused < 10 {
			t.Fatalf("only %d changes were refused on a full disk", refused)
		}
		if err := s.Writable(ctx); err == nil || !strings.Contains(err.Error(), "full") {
			t.Errorf("it says of itself: %v", err)
		}
		if err := s.Ping(ctx); err != nil {
			t.Errorf("it can not even be read: %v", err)
		}
		room()
		if err := s.Writable(ctx); err != nil {
			t.Errorf("there is room again: %v", err)
		}
		if err := change(fmt.Sprint("after", round)); err != nil {
			t.Fatalf("there is room again: %v", err)
		}
	}
	err = s.Read(ctx, func(q *store.Queries) error {
		_, err1 := q.GetSetting(ctx, "disk.before")
		_, err2 := q.GetSetting(ctx, "disk.after2")
		return errors.Join(err1, err2)
	})
	if err != nil {
		t.Error(err)
	}
	if r, err := s.VerifyEvents(ctx); err != nil || !r.Whole() {
		t.Errorf("%v %+v", err, r)
	}
}

// A database file that can not be trusted or read is refused with what to do; none is
// made anew in its place (O17, K3).
func TestO17ADatabaseFileThatIsNotRightIsRefusedWithWhatToDo(t *testing.T) {
	ctx := context.Background()
	good := filepath.Join(t.TempDir(), "latchkey.db")
	open := func(path string) error {
		s, err := store.Open(ctx, store.Config{Database: "sqlite:" + path, Clock: clock.Real})
		if err == nil {
			var report store.Report
			if report, err = s.VerifyEvents(ctx); err == nil && !report.Whole() {
				err = errors.New("the chain is broken")
			}
			err = errors.Join(err, s.Close())
		}
		return err
	}
	if err := open(good); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		spoil func(path string) error
		is    error
		says  string
	}{
		{"cut in the middle", func(p string) error { return os.Truncate(p, int64(len(content)/2)) }, store.ErrDamaged, "latchkeyd restore"},
		{"overwritten", func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("no database ", 1000)), 0o600) }, store.ErrDamaged, "latchkeyd restore"},
		{"its schema overwritten", func(p string) error {
			b := append([]byte(nil), content...)
			for i := 100; i < 4096; i++ {
				b[i] = 0xa5
			}
			return os.WriteFile(p, b, 0o600)
		}, store.ErrDamaged, "latchkeyd restore"},
		{"somebody else's", func(p string) error { return os.Chown(p, 20001, -1) }, store.ErrExposed, "chown 0 "},
		{"open to others", func(p string) error { return os.Chmod(p, 0o640) }, store.ErrExposed, "chmod 600 "},
		{"a folder", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) }, nil, "is a directory"},
	} {
		if c.what == "somebody else's" && os.Geteuid() != 0 {
			t.Log("only root can give a file away: not tried")
			continue
		}
		path := filepath.Join(t.TempDir(), "latchkey.db")
		if err := errors.Join(os.WriteFile(path, content, 0o600), c.spoil(path)); err != nil {
			t.Fatal(c.what, err)
		}
		err := open(path)
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
