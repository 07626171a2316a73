package store

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

func shipped() fs.FS {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // only for a name that is no path
	}
	return files
}

// latest stands for the newest migration there is.
const latest int64 = -1

// migrate brings the schema forward to a version (K3). SQLite is copied first;
// PostgreSQL runs each migration in a transaction, so that a failed one leaves
// nothing behind, and its administrator has backups of his own.
func (s *Store) migrate(ctx context.Context, files fs.FS, to int64) error {
	opts := append(s.engine.gooseOptions(), goose.WithDisableGlobalRegistry(true))
	p, err := goose.NewProvider(s.engine.gooseDialect(), s.write, forEngine{files, s.engine}, opts...)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	current, target, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema's version: %w", err)
	}
	if to != latest {
		target = min(target, to)
	}
	switch {
	case current == target:
		return nil
	case current > target:
		return fmt.Errorf("%w (schema %d, known %d)", ErrNewer, current, target)
	case current > 0 && s.conf.NoMigration:
		return fmt.Errorf("%w (schema %d, known %d)", ErrOlder, current, target)
	case current > 0:
		s.log.Info("migrating the database", "from", current, "to", target)
		if err := s.engine.copyBefore(ctx, s, current); err != nil {
			return fmt.Errorf("copy the database before its migration: %w", err)
		}
	}
	if _, err := p.UpTo(ctx, target); err != nil {
		return fmt.Errorf("migrate the schema from %d to %d: %w", current, target, err)
	}
	return nil
}

// schemaVersion is the version of the newest migration that was applied.
func schemaVersion(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
},
) (int64, error) {
	var v int64
	err := q.QueryRowContext(ctx, "SELECT MAX(version_id) FROM goose_db_version").Scan(&v)
	return v, err
}

// forEngine gives goose the migrations in the engine's dialect.
type forEngine struct {
	fs.FS
	engine engine
}

func (f forEngine) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".sql") {
		return file, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	text, err := fs.ReadFile(f.FS, name)
	if err != nil {
		return nil, err
	}
	return &sqlFile{*bytes.NewReader([]byte(f.engine.ddl(string(text)))), info}, nil
}

type sqlFile struct {
	bytes.Reader
	info fs.FileInfo
}

func (f *sqlFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *sqlFile) Close() error               { return nil }
