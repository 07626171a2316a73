package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/statefile"
)

// Folder makes the state folder if it is not there, and refuses one that others
// could write to or read: what lies in it decides who may sign in.
func Folder(dir string) error {
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("state folder %q: allowed is an absolute path", dir)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("state folder: %w", err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	if !st.IsDir() {
		return fmt.Errorf("state folder %s: it is not a folder (a symbolic link is not followed); give another with --state", dir)
	}
	return checkOwner(dir, st)
}

// Writable proves that a file can be written into dir, before a token is spent.
func Writable(dir string) error {
	path := filepath.Join(dir, "write-test")
	if err := statefile.Replace(path, []byte("x")); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return os.Remove(path)
}

// lockTries and lockPause: an agent that was killed needs a moment to be gone.
const (
	lockTries = 20
	lockPause = 100 * time.Millisecond
)

// Lock takes the folder for this process; close the file to give it back. The
// error says that another agent has it.
func Lock(ctx context.Context, dir string) (*os.File, error) {
	f, err := statefile.OpenLock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	for range lockTries {
		if err = statefile.Lock(f); err == nil {
			return f, nil
		}
		if clock.Real.Sleep(ctx, lockPause) != nil {
			break
		}
	}
	return nil, errors.Join(fmt.Errorf("another latchkey-agent uses %s; stop it first (systemctl stop latchkey-agent)", dir), f.Close())
}

// Read gives the identity without opening its key.
func Read(dir string) (*Identity, error) { return read(dir) }

// VaultDir is where the offline data of the machine with this identity lies. Its
// name holds the machine's id, so that data of an earlier identity is never taken
// for the present one's.
func (i *Identity) VaultDir(dir string) string { return filepath.Join(dir, vaultPrefix+i.MachineID) }

const vaultPrefix = "vault-"

// OldVaults lists folders with offline data of earlier identities, by machine id.
func (i *Identity) OldVaults(dir string) map[string]string {
	all, err := filepath.Glob(filepath.Join(dir, vaultPrefix+"*"))
	if err != nil {
		return nil
	}
	old := map[string]string{}
	for _, v := range all {
		if v != i.VaultDir(dir) {
			old[strings.TrimPrefix(filepath.Base(v), vaultPrefix)] = v
		}
	}
	return old
}
