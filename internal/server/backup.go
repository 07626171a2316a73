package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/secret"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/statefile"
)

// Backup copies a server's database into a file and back (K3).
type Backup struct {
	Data, Database, Replica string
	File                    string
	// Passphrase is for the master key beside it; empty: the key is left where it is.
	Passphrase secret.Bytes
	Clock      clock.Clock
	Log        *slog.Logger
}

// settingBackup is when the last backup was made, in seconds since 1970.
const settingBackup = "backup.last"

// KeyFile is where the master key of a backup lies.
func KeyFile(backup string) string { return backup + ".key" }

func (b Backup) conf() store.Config {
	return store.Config{
		Database: DatabaseOf(b.Data, b.Database), Replica: b.Replica, Backups: filepath.Join(b.Data, "backup"), NoMigration: true, Clock: b.Clock, Logger: b.Log,
	}
}

// Write makes the backup, beside a server that may be running, and tells how many
// rows are in it. The master key goes first: a backup without its key looks whole
// and is not.
func (b Backup) Write(ctx context.Context) (rows int64, err error) {
	if b.Database == "" {
		if _, err := os.Stat(filepath.Join(b.Data, "latchkey.db")); err != nil {
			return 0, fmt.Errorf("the database can not be read; give the server's folder with --data, or name the PostgreSQL with --database: %w", err)
		}
	}
	if _, err := os.Stat(b.File); err == nil {
		return 0, fmt.Errorf("%s is there already; name another file, or remove it first", b.File)
	}
	s, err := store.Open(ctx, b.conf())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if !b.Passphrase.Empty() {
		if err := b.writeKey(ctx, s); err != nil {
			return 0, err
		}
	}
	info, err := s.BackupFile(ctx, b.File)
	if err != nil {
		return 0, err
	}
	err = s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := b.Clock.Now()
		at := strconv.FormatInt(now.Unix(), 10)
		if err := tx.PutSetting(ctx, db.PutSettingParams{Key: settingBackup, Value: []byte(at), UpdatedAt: clock.Micros(now)}); err != nil {
			return err
		}
		_, err := tx.Event(event.Event{Type: event.BackupMade, Actor: "root@local", Subject: filepath.Base(b.File), Outcome: "allow"})
		return err
	})
	if err != nil {
		return info.Rows, fmt.Errorf("the backup was made, but its event was not written: %w", err)
	}
	return info.Rows, nil
}

func (b Backup) writeKey(ctx context.Context, s *store.Store) error {
	// Opened once, so that the key that is put aside is the one of this database.
	if _, _, err := keys.Open(ctx, keys.Config{Dir: b.Data, Store: s, Clock: b.Clock}); err != nil {
		return err
	}
	master, err := keys.ReadMaster(b.Data)
	if err != nil {
		return err
	}
	defer master.Wipe()
	raw, err := keys.LockMaster(master, b.Passphrase)
	if err != nil {
		return err
	}
	return statefile.Replace(KeyFile(b.File), raw)
}

// Restore fills a new database from the backup, and the data folder's master key
// from the one beside the backup where there is none.
func (b Backup) Restore(ctx context.Context) (rows int64, err error) {
	// The backup is opened before anything is made.
	f, err := os.Open(b.File)
	if err != nil {
		return 0, fmt.Errorf("the backup can not be read: %w", err)
	}
	defer f.Close()
	if err := prepareFolder(b.Data); err != nil {
		return 0, err
	}
	unlock, err := lockFolder(b.Data)
	if err != nil {
		return 0, err
	}
	defer unlock()
	master, have := keys.ReadMaster(b.Data)
	switch {
	case have == nil && !b.Passphrase.Empty():
		return 0, fmt.Errorf("%s holds a master key already: leave out the passphrase, or give an empty folder", b.Data)
	case have == nil:
	case !errors.Is(have, keys.ErrNoMaster):
		return 0, have
	case b.Passphrase.Empty():
		return 0, fmt.Errorf("%w: put master.key into %s first, or restore it from %s with --passphrase-file", keys.ErrNoMaster, b.Data, KeyFile(b.File))
	default:
		raw, err := readBounded(KeyFile(b.File))
		if err != nil {
			return 0, err
		}
		if master, err = keys.UnlockMaster(raw, b.Passphrase); err != nil {
			return 0, err
		}
	}
	defer master.Wipe()
	conf := b.conf()
	conf.NoMigration = false
	info, err := store.Restore(ctx, conf, f, func(ctx context.Context, filled store.Filling) error {
		err := keys.Fits(master, func(name string) ([]byte, error) { return filled.Setting(ctx, name) })
		switch {
		case errors.Is(err, keys.ErrForeign) && have == nil:
			return &wrongKey{fmt.Sprintf("the master key in %s is not the one of this backup; nothing was restored. Put the right master.key there, or move it away and use %s with --passphrase-file",
				b.Data, KeyFile(b.File))}
		case errors.Is(err, keys.ErrForeign):
			return &wrongKey{fmt.Sprintf("the master key in %s is not the one of this backup; nothing was restored. Put the right master.key into %s", KeyFile(b.File), b.Data)}
		case err != nil:
			return err
		}
		// Kept with the rows: whoever opens the database next finishes what is broken off.
		return filled.PutSetting(ctx, settingRestored, []byte(filepath.Base(b.File)), clock.Micros(b.Clock.Now()))
	})
	var wrong *wrongKey
	if errors.As(err, &wrong) {
		return 0, wrong
	} else if err != nil {
		return 0, err
	}
	if have != nil {
		if err := keys.WriteMaster(b.Data, master); err != nil {
			return 0, fmt.Errorf("the database was restored, the master key could not be written: %w", err)
		}
	}
	s, err := store.Open(ctx, conf)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, _, err := keys.Open(ctx, keys.Config{Dir: b.Data, Store: s, Clock: b.Clock}); err != nil {
		return 0, fmt.Errorf("the database was restored: %w", err)
	}
	return info.Rows, finishRestore(ctx, s, b.Clock)
}

// wrongKey says that a backup is sealed under another key.
type wrongKey struct{ text string }

func (w *wrongKey) Error() string { return w.text }
func (w *wrongKey) Unwrap() error { return keys.ErrForeign }

// settingRestored marks a database that was filled from a backup and of which machines
// do not know yet. Its value is the file's name.
const settingRestored = "restore.unfinished"

// finishRestore raises what machines compare, once, in a database that was filled from
// a backup; in any other it does nothing. The server does it too, for a restore that
// was broken off.
func finishRestore(ctx context.Context, s *store.Store, c clock.Clock) error {
	marked := false
	err := s.Read(ctx, func(q *store.Queries) error {
		_, err := q.GetSetting(ctx, settingRestored)
		marked = err == nil
		if store.IsNotFound(err) {
			return nil
		}
		return err
	})
	if err != nil || !marked {
		return err
	}
	return s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		file, err := tx.GetSetting(ctx, settingRestored)
		if store.IsNotFound(err) {
			return nil // another server was faster
		} else if err != nil {
			return err
		}
		if err := offline.Restored(ctx, tx, c.Now()); err != nil {
			return err
		}
		if _, err := tx.DeleteSetting(ctx, settingRestored); err != nil {
			return err
		}
		_, err = tx.Event(event.Event{Type: event.ServerStarted, Actor: "root@local", Subject: string(file), Reason: "restored"})
		return err
	})
}

func readBounded(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > 1<<10 {
		return nil, fmt.Errorf("%s is too large to hold a master key", path)
	}
	return os.ReadFile(path)
}
