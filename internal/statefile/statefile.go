// Package statefile keeps small files that must outlive a power cut.
//
// It promises: Replace leaves the old file or the new one, never half of one, readable by its owner alone; Read takes
// nothing that somebody else could have put there or could change meanwhile; what was renamed before SyncDir stays
// renamed; a file that Lock took is nobody else's until it is closed. Rows: O10, O17.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"latchkey/internal/failpoint"
)

// ErrForeign says that a file is not a plain one that belongs to this process's user alone. The error around it names
// the file and the command that mends it.
var ErrForeign = errors.New("not a plain file of this user alone")

// ErrTooLarge says that a file is larger than its reader allows.
var ErrTooLarge = errors.New("too large")

// Read reads a file of up to limit octets that must be a plain one (a symbolic link is not followed, a pipe is not
// waited for), owned by this process's user, and closed to all others.
func Read(path string, limit int64) ([]byte, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is a %s; remove it, or put the file back", ErrForeign, path, what(st.Mode()))
	}
	if err := checkOwner(path, st); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is %w: it has more than %d octets", path, ErrTooLarge, limit)
	}
	return b, err
}

// CheckFolder refuses what is not a real folder of this process's user alone.
func CheckFolder(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%w: %s is no folder (a symbolic link is not followed); remove it, or put the folder back", ErrForeign, path)
	}
	return checkOwner(path, st)
}

func what(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&os.ModeNamedPipe != 0:
		return "pipe"
	}
	return "special file"
}

// Replace writes data to path with mode 0600: temporary file beside it (path with .new behind it), sync, rename, sync of
// the folder.
func Replace(path string, data []byte) (err error) {
	part := path + ".new"
	// What was left behind there, or put there, is not written through.
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(part)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	failpoint.Hit("statefile.written")
	// To free what the old file holds can take longer than all the rest (a millisecond on ext4, more on a disk that is
	// told of free blocks). It is done when nobody has the file open any more, and nobody waits for that.
	defer letGo(path)()
	if err := os.Rename(part, path); err != nil {
		return err
	}
	failpoint.Hit("statefile.renamed")
	return SyncDir(filepath.Dir(path))
}
