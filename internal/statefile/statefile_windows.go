package statefile

import (
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// SyncDir has nothing to do: NTFS journals renames, and folders can not be synced.
func SyncDir(string) error { return nil }

// openPlain opens a file. Who may put one there the folder's access list says.
func openPlain(path string) (*os.File, error) { return os.Open(path) }

// letGo does nothing: a file that is open can not be replaced.
func letGo(string) func() { return func() {} }

func checkOwner(string, fs.FileInfo) error { return nil }

// OpenLock opens the file that Lock takes, and makes it if it is not there.
func OpenLock(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) }

// Lock takes the file for this process; closing it gives it back. It fails at once
// if another has it.
func Lock(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
}
