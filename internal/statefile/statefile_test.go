//go:build unix

package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceLeavesTheOldFileOrTheNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := os.WriteFile(path+".new", []byte("left behind by a crash, and longer than what comes"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "second"} {
		if err := Replace(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path); string(b) != want {
			t.Fatalf("the file holds %q (%v), want %q", b, err, want)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v), want 0600", st.Mode(), err)
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(filepath.Join(dir, "folder"), []byte("x")); err == nil {
		t.Error("a folder was replaced by a file")
	}
	for _, name := range []string{"state.new", "folder.new"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s was left behind (%v)", name, err)
		}
	}
}

func TestALockIsForOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	one, two := open(), open()
	if err := Lock(one); err != nil {
		t.Fatal(err)
	}
	if err := Lock(two); err == nil {
		t.Fatal("two have the lock")
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Lock(two); err != nil {
		t.Errorf("the lock was not given back: %v", err)
	}
}
