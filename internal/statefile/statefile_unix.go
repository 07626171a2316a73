//go:build unix

package statefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// SyncDir makes what was renamed, made and removed in dir survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openPlain opens without following a symbolic link and without waiting for the other end of a pipe.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("%w: %s is a symbolic link; remove it, or put the file back", ErrForeign, path)
	}
	return f, err
}

// letGo holds the file at path, whatever it is, until the returned function has been called.
func letGo(path string) func() {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return func() {}
	}
	return func() { go unix.Close(fd) }
}

func checkOwner(path string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("%w: the owner of %s can not be read", ErrForeign, path)
	case int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%w: %s belongs to uid %d; run: chown %d %s", ErrForeign, path, sys.Uid, os.Geteuid(), path)
	case st.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%w: %s has mode %04o; run: chmod go= %s", ErrForeign, path, st.Mode().Perm(), path)
	}
	return nil
}

// OpenLock opens the file that Lock takes, and makes it if it is not there. On a disk that is read-only it need not be
// written to.
func OpenLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if errors.Is(err, unix.EROFS) {
		return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	}
	return f, err
}

// Lock takes the file for this process; closing it gives it back. It fails at once
// if another has it.
func Lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
