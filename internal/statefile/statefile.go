// Package statefile keeps small files that must outlive a power cut.
//
// It promises: Replace leaves the old file or the new one, never half of one, readable by its owner alone; what was
// renamed before SyncDir stays renamed; a file that Lock took is nobody else's until it is closed. Rows: O10, O17.
package statefile

import (
	"errors"
	"os"
	"path/filepath"

	"latchkey/internal/failpoint"
)

// Replace writes data to path with mode 0600: temporary file beside it (path with .new behind it), sync, rename, sync of
// the folder.
func Replace(path string, data []byte) (err error) {
	part := path + ".new"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	if err := f.Chmod(0o600); err != nil { // one that was left behind may have another
		return errors.Join(err, f.Close())
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	failpoint.Hit("statefile.written")
	if err := os.Rename(part, path); err != nil {
		return err
	}
	failpoint.Hit("statefile.renamed")
	return SyncDir(filepath.Dir(path))
}
