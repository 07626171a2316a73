package source

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// OverSQL runs a query through a driver of database/sql: one connection, one
// transaction that reads only, always rolled back. prepare runs statements in it
// before the query; readOnly is false where the driver can not ask for it itself.
func OverSQL(ctx context.Context, c driver.Connector, readOnly bool, prepare []string, query string, columns func([]string) error, each func([][]byte) error) (err error) {
	db := sql.OpenDB(c)
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: readOnly})
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // nothing may be kept
	for _, p := range prepare {
		if _, err := tx.ExecContext(ctx, p); err != nil {
			return err
		}
	}
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return errors.New("the statement gives no columns; allowed is a SELECT")
	}
	if err := columns(names); err != nil {
		return err
	}
	values, places, cells := make([]any, len(names)), make([]any, len(names)), make([][]byte, len(names))
	for i := range values {
		places[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(places...); err != nil {
			return err
		}
		for i, v := range values {
			if cells[i], err = cell(v); err != nil {
				return fmt.Errorf("column %q: %w", names[i], err)
			}
		}
		if err := each(cells); err != nil {
			return err
		}
	}
	return rows.Err()
}

// cell is a value as it would stand in a file.
func cell(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case []byte:
		return v, nil
	case string:
		return []byte(v), nil
	case bool:
		return strconv.AppendBool(nil, v), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64), nil
	case time.Time:
		return []byte(v.UTC().Format(time.RFC3339)), nil
	}
	return nil, fmt.Errorf("values of the type %T are not understood; write CAST(… AS TEXT) or the like", v)
}
