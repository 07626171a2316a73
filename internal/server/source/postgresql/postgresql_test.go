package postgresql

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/server/source"
	"latchkey/internal/server/sourcetest"
	"latchkey/internal/server/store/storetest"
)

func ask(t *testing.T, address string, ca []byte, query string, limit time.Duration) ([]string, error) {
	t.Helper()
	a, err := source.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	a.CA = ca
	var out []string
	err = source.Run(context.Background(), a, query, source.Limits{Time: limit, Rows: 100, RowSize: 10000, Columns: 10}, func(names []string) error {
		out = append(out, strings.Join(names, ","))
		return nil
	}, func(cells [][]byte) error {
		var line []string
		for _, c := range cells {
			if c == nil {
				c = []byte("NULL")
			}
			line = append(line, string(c))
		}
		out = append(out, strings.Join(line, ","))
		return nil
	})
	return out, err
}

func TestPostgreSQL(t *testing.T) {
	ip := sourcetest.Address(t)
	cert, key, err := sourcetest.Certificate(ip)
	if err != nil {
		t.Fatal(err)
	}
	c := storetest.NewCluster(t, "listen_addresses = '"+ip.String()+"'")
	socket := strings.TrimSuffix(strings.TrimPrefix(c.URL("x"), "postgres://latchkey@/x?host="), "")
	dir, _, _ := strings.Cut(socket, "&")
	for name, b := range map[string][]byte{"server.crt": cert, "server.key": key} {
		path := filepath.Join(dir, "data", name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, "data")); err == nil {
			sourcetest.Own(t, path, info)
		}
	}
	for _, q := range []string{
		"ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()", "CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'p w:@/ß'", "CREATE DATABASE hr",
	} {
		c.Exec(q)
	}
	over := "postgresql://reader:p%20w%3A%40%2F%C3%9F@" + ip.String() + "/hr"
	const all = `SELECT * FROM (VALUES ('anna', 'Anna Müller 日本', true, 1.50::numeric, '2026-01-02 03:04:05'::timestamp, '2026-01-02 03:04:05+02'::timestamptz, 42::bigint, date '2026-03-01'),
		('ben', NULL, false, NULL, NULL, NULL, NULL, NULL)) AS x(name, display_name, active, score, since, at, uid, day);`
	want := "name,display_name,active,score,since,at,uid,day|anna,Anna Müller 日本,true,1.50,2026-01-02T03:04:05Z,2026-01-02T01:04:05Z,42,2026-03-01T00:00:00Z|ben,NULL,false,NULL,NULL,NULL,NULL,NULL"
	// What the account that the server runs as has in its environment is not for it.
	t.Setenv("PGHOST", "192.0.2.1")
	t.Setenv("PGOPTIONS", "-c default_transaction_read_only=off")
	t.Setenv("PGPASSWORD", "wrong")
	for name, address := range map[string]string{
		"over TCP": over, "over its socket": strings.Replace(over, ip.String(), "", 1) + "?socket=" + filepath.Join(dir, ".s.PGSQL.5432"),
		"over the folder of its socket": strings.Replace(over, ip.String(), "", 1) + "?socket=" + dir,
		"encrypted":                     over + "?tls=encrypt", "verified": over + "?tls=verify",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, address, cert, all, 20*time.Second)
			if err != nil || strings.Join(got, "|") != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	for name, x := range map[string]struct {
		address string
		ca      []byte
		query   string
		says    string
	}{
		"a certificate of somebody":    {over + "?tls=verify", nil, all, "certificate"},
		"a database that is not there": {strings.Replace(over, "/hr", "/nowhere", 1), nil, all, "nowhere"},
		"a mistake in the query":       {over, nil, "SELEKT 1", "syntax"},
		"a query that writes":          {over, nil, "CREATE TABLE t (x int)", "read-only"},
		"a query that writes a row":    {over, nil, "WITH x AS (DELETE FROM pg_description RETURNING 1) SELECT * FROM x", "read-only"},
		"two statements":               {over, nil, "SELECT 1; SELECT 2", "multiple commands"},
		"more rights by itself":        {over, nil, "SET TRANSACTION READ WRITE", "gives no columns"},
		"too many rows":                {over, nil, "SELECT generate_series(1, 101)", "more rows than are allowed"},
		"too much in a row":            {over, nil, "SELECT repeat('x', 10001)", "10001 octets"},
		"too many columns":             {over, nil, "SELECT 1,2,3,4,5,6,7,8,9,10,11", "11 columns"},
		"a query that takes too long":  {over, nil, "SELECT pg_sleep(30)", "took more than"},
		"nobody listens":               {strings.Replace(over, ip.String(), ip.String()+":1", 1), nil, all, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, x.address, x.ca, x.query, 2*time.Second)
			if err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("%q, %v, want %q", got, err, x.says)
			}
			if err != nil && (strings.Contains(err.Error(), "p%20w") || strings.Contains(err.Error(), "p w:")) {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
}
