// Package oracle reads users from an Oracle database. It was not run against a
// server here: what its tests prove is how addresses become settings of the driver.
// Row: E2.
package oracle

import (
	"context"
	"fmt"

	ora "github.com/sijms/go-ora/v2"

	"latchkey/internal/server/source"
)

func init() {
	source.Register(source.Driver{
		Name: "oracle", Title: "Oracle", Port: 1521, Tested: false, Query: query,
	})
}

// addressOf is the driver's own form. What came from outside is escaped by it.
func addressOf(a source.Address) string {
	options := map[string]string{"CONNECTION TIMEOUT": "10", "PREFETCH_ROWS": "200"}
	switch a.TLS {
	case source.TLSVerify:
		options["SSL"], options["SSL VERIFY"] = "enable", "true"
	case source.TLSEncrypt:
		options["SSL"], options["SSL VERIFY"] = "enable", "false"
	}
	return ora.BuildUrl(a.Host, a.Port, a.Database, a.User, string(a.Password.Reveal()), options)
}

func query(ctx context.Context, a source.Address, q string, columns func([]string) error, each func([][]byte) error) error {
	t, err := a.TLSConfig()
	if err != nil {
		return err
	}
	c, ok := ora.NewConnector(addressOf(a)).(*ora.OracleConnector)
	if !ok {
		return fmt.Errorf("the driver gives a connector of an unknown type")
	}
	if t != nil {
		c.WithTLSConfig(t)
	}
	c.Dialer(source.Only{Host: a.Host}) // a listener may send its clients on
	return source.OverSQL(ctx, c, false, []string{"SET TRANSACTION READ ONLY"}, q, columns, each)
}
