// Package postgresql reads users from a PostgreSQL database. Row: E2.
package postgresql

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"latchkey/internal/server/source"
)

func init() {
	source.Register(source.Driver{
		Name: "postgresql", Aliases: []string{"postgres"}, Title: "PostgreSQL", Port: 5432, Socket: true, Tested: true, Query: query,
	})
}

// config builds the settings field by field: pgx would take what the address leaves
// out from the environment and from files of the account that the server runs as.
func config(a source.Address) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig("host=localhost sslmode=disable passfile=" + os.DevNull + " servicefile=" + os.DevNull)
	if err != nil {
		return nil, err
	}
	c.Host, c.Port, c.User, c.Password, c.Database = a.Host, uint16(a.Port), a.User, string(a.Password.Reveal()), a.Database
	c.Fallbacks, c.RuntimeParams = nil, map[string]string{
		"application_name": "latchkey", "client_encoding": "UTF8", "default_transaction_read_only": "on", "TimeZone": "UTC", "DateStyle": "ISO",
	}
	if a.Socket != "" {
		c.Host = a.Socket
		if info, err := os.Stat(a.Socket); err == nil && !info.IsDir() { // the socket itself was named
			c.Host = filepath.Dir(a.Socket)
			if p, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(a.Socket), ".s.PGSQL.")); err == nil {
				c.Port = uint16(p)
			}
		}
	}
	c.ConnectTimeout = 10 * time.Second
	d := &net.Dialer{Timeout: c.ConnectTimeout}
	c.DialFunc = d.DialContext
	c.ValidateConnect = nil
	if c.TLSConfig, err = a.TLSConfig(); err != nil {
		return nil, err
	}
	// With the plain protocol the database gives every type as the text that people
	// know, and streams the rows; only one statement is allowed by the form of Query.
	c.DefaultQueryExecMode = pgx.QueryExecModeExec
	return c, nil
}

func query(ctx context.Context, a source.Address, q string, columns func([]string) error, each func([][]byte) error) error {
	c, err := config(a)
	if err != nil {
		return err
	}
	return source.OverSQL(ctx, stdlib.GetConnector(*c), true, nil, q, columns, each)
}
