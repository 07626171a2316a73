package store

import (
	"context"
	"database/sql"
	"errors"
	"testing"
)

// SessionSetting is a setting of the connections that write.
func SessionSetting(t testing.TB, s *Store, name string) (value string) {
	t.Helper()
	if err := s.write.QueryRow("SHOW " + name).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// AsOf makes a database as the program of that schema made it, and lets fn fill it.
func AsOf(t testing.TB, conf Config, schema int64, fn func(tx *sql.Tx) error) {
	t.Helper()
	ctx := context.Background()
	conf, err := conf.complete()
	if err != nil {
		t.Fatal(err)
	}
	s, err := connect(ctx, conf)
	if err != nil {
		t.Fatal(err)
	}
	err = s.migrate(ctx, shipped(), schema)
	if err == nil {
		var tx *sql.Tx
		if tx, err = s.write.BeginTx(ctx, nil); err == nil {
			err = errors.Join(fn(tx), tx.Commit())
		}
	}
	if err := errors.Join(err, s.disconnect()); err != nil {
		t.Fatal(err)
	}
}
