package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"latchkey/internal/clock"
	"latchkey/internal/server/store/db"
)

// Errors of a database file that can not be used.
var (
	// ErrExposed: somebody else owns the file or may read it.
	ErrExposed = errors.New("the database's file is not this server's alone")
	// ErrDamaged: what is in the file is no database, or is one no more.
	ErrDamaged = errors.New("the database is damaged: stop the server, keep the file for an examination, and put a backup back (latchkeyd restore)")
)

// diskFault tells whether SQLite could not do its work because of the disk.
func diskFault(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return true
	}
	return false
}

// opening explains an error that a start ends with.
func opening(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if diskFault(err) {
		return fmt.Errorf("its disk is full, read-only or faulty: %w", err)
	}
	return err
}

// checkFile refuses a database that others may read or write: it holds hashes of
// passwords, and whoever writes it decides who may sign in.
func checkFile(path string, st fs.FileInfo) error {
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is no plain file", ErrExposed, path)
	}
	if uid, known := ownerOf(st); known && uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("%w: %s belongs to uid %d; run: chown %d %s, and think about who has had it", ErrExposed, path, uid, os.Geteuid(), path)
	}
	if p := st.Mode().Perm(); p&0o077 != 0 && protected {
		return fmt.Errorf("%w: %s has mode %04o; run: chmod 600 %s, and think about who has read it", ErrExposed, path, p, path)
	}
	return nil
}

// trial is the setting that is written to see whether anything can be.
const trial = "store.trial"

// writing remembers whether the last change could be written.
type writing struct{ failed atomic.Pointer[error] }

func (w *writing) note(err error) {
	if err != nil {
		w.failed.Store(&err)
	} else {
		w.failed.Store(nil)
	}
}

// Writable tells whether changes can be written: the last one could, or a new try
// goes well. Without a failure before it costs nothing.
func (s *Store) Writable(ctx context.Context) error {
	if s.wrote.failed.Load() == nil {
		return nil
	}
	err := s.Update(ctx, func(ctx context.Context, tx *Tx) error {
		return tx.PutSetting(ctx, db.PutSettingParams{Key: trial, Value: []byte{1}, UpdatedAt: clock.Micros(s.conf.Clock.Now())})
	})
	if err != nil {
		return fmt.Errorf("the database %s can not be written: %w", s.engine.describe(), err)
	}
	return nil
}
