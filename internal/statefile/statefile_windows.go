package statefile

import (
	"os"

	"golang.org/x/sys/windows"
)

// SyncDir has nothing to do: NTFS journals renames, and folders can not be synced.
func SyncDir(string) error { return nil }

// Lock takes the file for this process; closing it gives it back. It fails at once
// if another has it.
func Lock(f *os.File) error {
	return windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
}
