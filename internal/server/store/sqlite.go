package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"latchkey/internal/statefile"
)

// lite is the embedded engine: one connection writes, a pool reads.
type lite struct{ path, backups string }

func newSQLite(path, backups string) (engine, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if backups == "" {
		backups = filepath.Join(filepath.Dir(abs), "backup")
	}
	return &lite{path: abs, backups: backups}, nil
}

func (e *lite) name() string     { return "sqlite" }
func (e *lite) describe() string { return "sqlite:" + e.path }

func (e *lite) open(ctx context.Context) (write, read *sql.DB, err error) {
	// The file is made here, so that nobody else may read it; -wal and -shm take its
	// mode over.
	f, err := os.OpenFile(e.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	if err := checkFile(e.path, st); err != nil {
		return nil, nil, err
	}
	dsn := func(more url.Values) string {
		for k, v := range map[string]string{"_dqs": "false", "_defensive": "true", "_busy_timeout": "10000", "_foreign_keys": "true"} {
			more.Set(k, v)
		}
		// LIKE is case-sensitive on PostgreSQL.
		more.Add("_pragma", "case_sensitive_like(true)")
		return (&url.URL{Scheme: "file", Path: e.path, RawQuery: more.Encode()}).String()
	}
	// synchronous=FULL: a commit that was answered survives a power cut, in WAL too.
	write, err = sql.Open("sqlite", dsn(url.Values{"_txlock": {"immediate"}, "_journal_mode": {"WAL"}, "_synchronous": {"FULL"}}))
	if err != nil {
		return nil, nil, err
	}
	write.SetMaxOpenConns(1)
	if err := write.PingContext(ctx); err != nil {
		_ = write.Close()
		return nil, nil, err
	}
	read, err = sql.Open("sqlite", dsn(url.Values{"_query_only": {"true"}}))
	if err != nil {
		_ = write.Close()
		return nil, nil, err
	}
	read.SetMaxOpenConns(8)
	read.SetMaxIdleConns(8)
	return write, read, nil
}

// SQLite's transactions are snapshots; the driver knows no levels.
func (e *lite) snapshot() sql.IsolationLevel { return sql.LevelDefault }

func (e *lite) wantsPrepared() bool                  { return true }
func (e *lite) ddl(text string) string               { return strings.ReplaceAll(text, ` COLLATE "C"`, "") }
func (e *lite) gooseDialect() goose.Dialect          { return goose.DialectSQLite3 }
func (e *lite) gooseOptions() []goose.ProviderOption { return nil }

func (e *lite) tables(ctx context.Context, tx *sql.Tx) ([]table, error) {
	return readTables(tx.QueryContext(ctx, `SELECT m.name,
		(SELECT group_concat(name, ', ') FROM (SELECT name FROM pragma_table_info(m.name) WHERE pk > 0 ORDER BY pk)),
		COALESCE((SELECT group_concat(DISTINCT "table") FROM pragma_foreign_key_list(m.name)), '')
		FROM sqlite_schema m WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name <> 'goose_db_version'`))
}

func (e *lite) columns(ctx context.Context, tx *sql.Tx, table string) (names, types []string, err error) {
	return readColumns(tx.QueryContext(ctx, "SELECT name, type FROM pragma_table_info($1) ORDER BY cid", table))
}

// copyBefore leaves a copy of the whole database beside it. An older copy of the
// same version comes from a migration that failed and is replaced.
func (e *lite) copyBefore(ctx context.Context, s *Store, version int64) error {
	if err := os.MkdirAll(e.backups, 0o700); err != nil {
		return err
	}
	path := filepath.Join(e.backups, fmt.Sprintf("pre-migration-%d.db", version))
	if err := copySQLite(ctx, s.write, path); err != nil {
		return err
	}
	s.log.Info("copied the database before its migration", "path", path)
	return nil
}

// copySQLite writes a consistent copy to path, whole or not at all.
func copySQLite(ctx context.Context, from *sql.DB, path string) error {
	part := path + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// An empty file is a valid target, and keeps the mode it was made with.
	if _, err := from.ExecContext(ctx, "VACUUM INTO $1", part); err != nil {
		_ = os.Remove(part)
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return statefile.SyncDir(filepath.Dir(path))
}

func (e *lite) patience() time.Duration { return 30 * time.Second }

// One process owns the file: there is nobody else to tell, and its name is its own.
func (e *lite) claim(context.Context, *Store) error                   { return nil }
func (e *lite) forget(*Store)                                         {}
func (e *lite) listen(*Store)                                         {}
func (e *lite) tellReplicas(context.Context, *sql.Tx, []string) error { return nil }
func (e *lite) noteEvents()                                           {}

func classifySQLite(err error) class {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return other
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return duplicate
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return referenced
	}
	// BUSY is no conflict that a second try would mend: BEGIN IMMEDIATE has waited
	// for ten seconds already, and later statements do not meet it.
	return other
}
