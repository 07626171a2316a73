// Package sqlserver reads users from a Microsoft SQL Server. It was not run against
// a server here: what its tests prove is how addresses become settings of the
// driver. Row: E2.
package sqlserver

import (
	"context"
	"errors"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"

	"latchkey/internal/server/source"
)

func init() {
	source.Register(source.Driver{
		Name: "sqlserver", Aliases: []string{"mssql"}, Title: "Microsoft SQL Server", Port: 1433, Instance: true, Tested: false, Check: check, Query: query,
	})
}

func check(a source.Address) error {
	if a.Instance != "" && a.Port != 1433 {
		return errors.New("it names an instance and a port; allowed is one of them")
	}
	return nil
}

// config builds the settings field by field; the driver's own parser knows options
// that read files.
func config(a source.Address) (msdsn.Config, error) {
	t, err := a.TLSConfig()
	c := msdsn.Config{
		Host: a.Host, Port: uint64(a.Port), Instance: a.Instance, Database: a.Database, User: a.User, Password: string(a.Password.Reveal()),
		Encryption: msdsn.EncryptionRequired, TLSConfig: t, TrustServerCertificate: a.TLS == source.TLSEncrypt,
		ReadOnlyIntent: true, AppName: "latchkey", DialTimeout: 10 * time.Second, ConnTimeout: 0, KeepAlive: 30 * time.Second, PacketSize: 4096,
		Encoding: msdsn.EncodeParameters{Timezone: time.UTC}, Protocols: []string{"tcp"}, ProtocolParameters: map[string]interface{}{},
		Parameters: map[string]string{}, DisableRetry: true,
	}
	if a.Instance != "" {
		c.Port = 0 // the browser service of the host is asked
	}
	if a.TLS == source.TLSOff {
		c.Encryption = msdsn.EncryptionDisabled
	}
	return c, err
}

func query(ctx context.Context, a source.Address, q string, columns func([]string) error, each func([][]byte) error) error {
	c, err := config(a)
	if err != nil {
		return err
	}
	// The server knows no transactions that only read: the account must be one that may
	// do no more, and what the query does is rolled back.
	connector := mssql.NewConnectorConfig(c)
	connector.Dialer = source.Only{Host: a.Host} // a server may send its clients on
	return source.OverSQL(ctx, connector, false, nil, q, columns, each)
}
