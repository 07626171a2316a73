package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
)

// engine is what differs between SQLite and PostgreSQL. The queries do not.
type engine interface {
	name() string
	describe() string // for messages: never with a password
	open(ctx context.Context) (write, read *sql.DB, err error)
	snapshot() sql.IsolationLevel
	wantsPrepared() bool
	ddl(text string) string
	gooseDialect() goose.Dialect
	gooseOptions() []goose.ProviderOption
	copyBefore(ctx context.Context, s *Store, version int64) error
	// tables reads the catalogue: all but goose's own.
	tables(ctx context.Context, tx *sql.Tx) ([]table, error)
	// columns names a table's columns in order, and their types as in a backup.
	columns(ctx context.Context, tx *sql.Tx, table string) (names, types []string, err error)
	// claim takes the replica's name for this store alone.
	claim(ctx context.Context, s *Store) error
	// patience bounds a transaction: a closure that hangs fails its batch.
	patience() time.Duration
	// forget drops idle connections.
	forget(s *Store)
	// listen starts to hear other replicas, until s.life ends.
	listen(s *Store)
	tellReplicas(ctx context.Context, tx *sql.Tx, machineIDs []string) error
	noteEvents()
}

func engineOf(conf Config) (engine, error) {
	scheme, rest, _ := strings.Cut(conf.Database, ":")
	switch scheme {
	case "sqlite":
		if rest == "" || strings.ContainsRune(rest, 0) {
			return nil, fmt.Errorf("the database %q names no file: write sqlite:PATH", conf.Database)
		}
		return newSQLite(rest, conf.Backups)
	case "postgres", "postgresql":
		if _, err := url.Parse(conf.Database); err != nil {
			// url.Error repeats its input, which may hold a password.
			return nil, fmt.Errorf("the database's address is not a URL: write postgres://USER@HOST/NAME")
		}
		return newPostgres(conf.Database)
	}
	return nil, fmt.Errorf("the database %q is neither sqlite:PATH nor postgres://…", scheme)
}

// class is what an error of an engine means to us.
type class int

const (
	other      class = iota
	duplicate        // a unique key stands already
	referenced       // a foreign key
	conflict         // lost against another transaction: try again
	lost             // the database can not be reached, or takes no changes
)

func classify(err error) class {
	if err == nil {
		return other
	}
	if c := classifyPostgres(err); c != other {
		return c
	}
	return classifySQLite(err)
}

// readColumns reads rows of name and declared type.
func readColumns(rows *sql.Rows, err error) (names, types []string, _ error) {
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, declared string
		if err := rows.Scan(&name, &declared); err != nil {
			return nil, nil, err
		}
		t, err := typeOf(declared)
		if err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", name, err)
		}
		names, types = append(names, name), append(types, t)
	}
	return names, types, errors.Join(rows.Err(), rows.Close())
}

// readTables reads rows of a table's name, the columns of its key, and the tables
// that it refers to, both as lists with commas.
func readTables(rows *sql.Rows, err error) ([]table, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []table
	for rows.Next() {
		var t table
		var refs string
		if err := rows.Scan(&t.name, &t.key, &refs); err != nil {
			return nil, err
		}
		if refs != "" {
			t.refs = strings.Split(refs, ",")
		}
		out = append(out, t)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}
