package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"latchkey/internal/policy"
	"latchkey/internal/statefile"
)

// FS is the file system as the vault uses it: names are relative to its folder.
// Tests record the operations and replay every prefix of them.
type FS interface {
	ReadFile(name string) ([]byte, error)
	// WriteFile replaces a file: temporary file, sync, rename, sync of the folder.
	WriteFile(name string, data []byte) error
	// Append opens a file for appending with sync after every write.
	Append(name string) (Appender, error)
	Remove(name string) error // a file that is not there is no error
	List(dir string) ([]string, error)
	MkdirAll(dir string) error
	// Lock takes the folder for this process, or says that another has it.
	Lock(name string) (*os.File, error)
}

// Appender writes behind the end of a file.
type Appender interface {
	// Append writes and syncs.
	Append(b []byte) error
	io.Closer
}

// RealFS is the operating system's, below dir.
func RealFS(dir string) FS { return realFS{dir} }

type realFS struct{ dir string }

func (r realFS) path(name string) string { return filepath.Join(r.dir, name) }

// maxFile bounds every file that is read.
const maxFile = 128 << 20

func (r realFS) ReadFile(name string) ([]byte, error) {
	return statefile.Read(r.path(name), maxFile)
}

func (r realFS) WriteFile(name string, data []byte) error {
	return statefile.Replace(r.path(name), data)
}

func (r realFS) Append(name string) (Appender, error) {
	_, statErr := os.Stat(r.path(name))
	f, err := os.OpenFile(r.path(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	if errors.Is(statErr, fs.ErrNotExist) {
		if err := statefile.SyncDir(filepath.Dir(r.path(name))); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return appendFile{f}, nil
}

type appendFile struct{ *os.File }

func (a appendFile) Append(b []byte) error {
	if _, err := a.Write(b); err != nil {
		return err
	}
	return a.Sync()
}

func (r realFS) Remove(name string) error {
	err := os.Remove(r.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return statefile.SyncDir(filepath.Dir(r.path(name)))
}

func (r realFS) List(dir string) ([]string, error) {
	es, err := os.ReadDir(r.path(dir))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return names, nil
}

func (r realFS) MkdirAll(dir string) error {
	if err := os.MkdirAll(r.path(dir), 0o700); err != nil {
		return err
	}
	return statefile.CheckFolder(r.path(dir))
}

func (r realFS) Lock(name string) (*os.File, error) {
	f, err := statefile.OpenLock(r.path(name))
	if err != nil {
		return nil, err
	}
	if err := statefile.Lock(f); err != nil {
		return nil, errors.Join(fmt.Errorf("another latchkey-agent uses this state folder: %w", err), f.Close())
	}
	return f, nil
}

// room proves that something of that size can be written, before anything is given
// up for it or made in the TPM.
func (v *Vault) room(size int) error {
	err := v.fs.WriteFile("room", make([]byte, size))
	if err = errors.Join(err, v.fs.Remove("room")); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}

// The sizes of what is about to be written: a new state, and the offline data of a
// user.
const (
	stateRoom = 64 << 10
	userRoom  = 1 << 20
)

// unread is the error of a file that could not be read: one that is somebody else's,
// or that the disk does not give, is not damaged, and nothing is thrown away for it.
func unread(what string, err error) error {
	reason := policy.ReasonVaultUnread
	switch {
	case errors.Is(err, statefile.ErrForeign):
		reason = policy.ReasonVaultForeign
	case errors.Is(err, statefile.ErrTooLarge), errors.Is(err, fs.ErrNotExist):
		reason = policy.ReasonVaultDamaged
	}
	return because(reason, "%s: %w", what, err)
}

func (v *Vault) exclude() (err error) {
	v.lock, err = v.fs.Lock("lock")
	return err
}
