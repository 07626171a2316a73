//go:build unix

package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lockFolder keeps a second server out of the folder. The kernel lets go of the
// lock when the process ends, however it ends.
func lockFolder(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data folder: another latchkeyd works in %s", dir)
		}
		return nil, fmt.Errorf("data folder: lock %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}

// checkFolder says whose the folder must be and who may look in.
func checkFolder(dir string, info fs.FileInfo) error {
	sys, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return fmt.Errorf("data folder %s: its owner can not be read", dir)
	case int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("data folder %s: it belongs to uid %d, not to uid %d that runs the server; run: chown -R %d %s, or start it as its owner",
			dir, sys.Uid, os.Geteuid(), os.Geteuid(), dir)
	case info.Mode().Perm() != 0o700:
		return fmt.Errorf("data folder %s: its mode is %04o and must be 0700, nobody else may look in; run: chmod 0700 %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}
