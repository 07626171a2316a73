package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"

	"github.com/pressly/goose/v3"
)

// engine is what differs between SQLite and PostgreSQL. The queries do not.
type engine interface {
	name() string
	describe() string // for messages: never with a password
	open(ctx context.Context) (write, read *sql.DB, err error)
	snapshot() sql.IsolationLevel
	ddl(text string) string
	gooseDialect() goose.Dialect
	gooseOptions() []goose.ProviderOption
	copyBefore(ctx context.Context, s *Store, version int64) error
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
		u, err := url.Parse(conf.Database)
		if err != nil {
			// url.Error repeats its input, which may hold a password.
			return nil, fmt.Errorf("the database's address is not a URL: write postgres://USER@HOST/NAME")
		}
		return newPostgres(u, conf.Database)
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
