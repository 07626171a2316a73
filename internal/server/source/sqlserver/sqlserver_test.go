package sqlserver

import (
	"strings"
	"testing"

	"github.com/microsoft/go-mssqldb/msdsn"

	"latchkey/internal/server/source"
)

// No SQL Server is run here: what is proven is what the driver is told.
func TestSettingsOfTheDriver(t *testing.T) {
	for address, want := range map[string]struct {
		encryption msdsn.Encryption
		trust      bool
		port       uint64
	}{
		"sqlserver://u:p%20w;=x@db/hr":                {msdsn.EncryptionRequired, false, 1433},
		"sqlserver://u:p%20w;=x@db:1444/hr?tls=off":   {msdsn.EncryptionDisabled, false, 1444},
		"mssql://u:p%20w;=x@db/hr?tls=encrypt":        {msdsn.EncryptionRequired, true, 1433},
		"mssql://u:p%20w;=x@db/hr?instance=PROD":      {msdsn.EncryptionRequired, false, 0},
		"sqlserver://u:p%20w;=x@db/hr%3Buser%20id=sa": {msdsn.EncryptionRequired, false, 1433},
	} {
		a, err := source.Parse(address)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		c, err := config(a)
		if err != nil || c.Encryption != want.encryption || c.TrustServerCertificate != want.trust || c.Port != want.port || c.Host != "db" || c.User != "u" ||
			c.Password != "p w;=x" || !strings.HasPrefix(c.Database, "hr") || !c.ReadOnlyIntent || (c.TLSConfig == nil) != (want.encryption == msdsn.EncryptionDisabled) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
