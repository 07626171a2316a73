package fill

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"

	_ "modernc.org/sqlite"
)

// lite writes into a file without journal and without waiting for the disk.
type lite struct {
	db    *sql.DB
	conn  *sql.Conn
	again dropped
}

func openSQLite(ctx context.Context, path string) (bulk, error) {
	q := url.Values{"_pragma": {"synchronous(off)", "cache_size(-400000)", "temp_store(memory)", "foreign_keys(off)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	l := &lite{db: db, conn: conn}
	for _, p := range []string{"PRAGMA journal_mode = OFF", "PRAGMA locking_mode = EXCLUSIVE"} {
		if err := l.exec(ctx, p); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	return l, nil
}

func (l *lite) exec(ctx context.Context, q string, args ...any) error {
	_, err := l.conn.ExecContext(ctx, q, args...)
	return err
}

func (l *lite) bare(ctx context.Context) error {
	var names []string
	rows, err := l.conn.QueryContext(ctx, "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND sql NOT LIKE 'CREATE UNIQUE%'")
	err = readAll(rows, err, func(scan func(...any) error) error {
		var name, text string
		err := scan(&name, &text)
		names, l.again = append(names, name), append(l.again, text)
		return err
	})
	for _, n := range names {
		err = errors.Join(err, l.exec(ctx, "DROP INDEX "+n))
	}
	return err
}

func (l *lite) index(ctx context.Context) error {
	for _, q := range l.again {
		if err := l.exec(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// perStatement is how many rows one statement inserts: beyond some dozens it gets no faster.
const perStatement = 40

// table goes past database/sql, which takes half of the time of an insert.
func (l *lite) table(ctx context.Context, name, columns string, next func() ([]any, error)) error {
	width := strings.Count(columns, ",") + 1
	statement := func(rows int) string {
		one := "(" + strings.TrimSuffix(strings.Repeat("?,", width), ",") + ")"
		return "INSERT INTO " + name + " (" + columns + ") VALUES " + strings.TrimSuffix(strings.Repeat(one+",", rows), ",")
	}
	if err := l.exec(ctx, "BEGIN"); err != nil {
		return err
	}
	err := l.conn.Raw(func(c any) error {
		prepare := c.(driver.ConnPrepareContext).PrepareContext
		many, err := prepare(ctx, statement(perStatement))
		if err != nil {
			return err
		}
		defer many.Close()
		args := make([]driver.NamedValue, 0, perStatement*width)
		flush := func(s driver.Stmt) error {
			_, err := s.(driver.StmtExecContext).ExecContext(ctx, args)
			args = args[:0]
			return err
		}
		for {
			row, err := next()
			if err != nil {
				return err
			}
			if row == nil {
				break
			}
			for _, v := range row {
				args = append(args, driver.NamedValue{Ordinal: len(args) + 1, Value: value(v)})
			}
			if len(args) == perStatement*width {
				if err := flush(many); err != nil {
					return err
				}
			}
		}
		if len(args) == 0 {
			return nil
		}
		rest, err := prepare(ctx, statement(len(args)/width))
		if err != nil {
			return err
		}
		defer rest.Close()
		return flush(rest)
	})
	if err != nil {
		return fmt.Errorf("table %s: %w", name, err)
	}
	return l.exec(ctx, "COMMIT")
}

// value is v as the driver takes it.
func value(v any) driver.Value {
	switch v := v.(type) {
	case int:
		return int64(v)
	case nil, int64, string, bool, []byte:
		return v
	}
	panic(fmt.Sprintf("fill: a value of type %T", v))
}

func (l *lite) close() error {
	return errors.Join(l.conn.Close(), l.db.Close())
}
