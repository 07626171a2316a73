//go:build unix

package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

func TestReadTakesOnlyAPlainFileOfOurs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	whole := func() {
		t.Helper()
		_ = os.RemoveAll(path)
		if err := Replace(path, []byte("12345")); err != nil {
			t.Fatal(err)
		}
	}
	whole()
	if b, err := Read(path, 5); err != nil || string(b) != "12345" {
		t.Errorf("%q %v", b, err)
	}
	if _, err := Read(path, 4); !errors.Is(err, ErrTooLarge) {
		t.Errorf("more than allowed: %v", err)
	}
	if _, err := Read(path+".gone", 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
	for name, spoil := range map[string]func() error{
		"others may read it":  func() error { return os.Chmod(path, 0o640) },
		"others may write it": func() error { return os.Chmod(path, 0o602) },
		"a symbolic link": func() error {
			return errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path))
		},
		"a folder": func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"a pipe that nobody writes to": func() error {
			return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600))
		},
		"somebody else's": func() error {
			if os.Geteuid() != 0 {
				t.Log("as root this also tries a file of another owner")
				return os.Chmod(path, 0o666)
			}
			return os.Chown(path, 20001, -1)
		},
	} {
		whole()
		if err := spoil(); err != nil {
			t.Fatal(name, err)
		}
		if _, err := Read(path, 5); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Replace mends it, but for a folder, and writes through nothing that was put there.
	whole()
	target := filepath.Join(dir, "elsewhere")
	if err := errors.Join(os.WriteFile(target, []byte("mine"), 0o600), os.Remove(path), os.Symlink(target, path), os.Symlink(target, path+".new")); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("anew")); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(path, 5); err != nil || string(b) != "anew" {
		t.Errorf("%q %v", b, err)
	}
	if b, _ := os.ReadFile(target); string(b) != "mine" {
		t.Errorf("the link's target was written: %q", b)
	}
}
