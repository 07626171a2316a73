package mysql

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"latchkey/internal/server/source"
	"latchkey/internal/server/sourcetest"
)

// ask runs a query over an address and writes the answer as lines.
func ask(t *testing.T, address, ca, query string, l source.Limits) ([]string, error) {
	t.Helper()
	a, err := source.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	a.CA = []byte(ca)
	var out []string
	if l.Time == 0 {
		l = source.Limits{Time: 20 * time.Second, Rows: 100, RowSize: 10000, Columns: 10}
	}
	err = source.Run(context.Background(), a, query, l, func(names []string) error {
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

func TestMariaDB(t *testing.T) {
	m := sourcetest.NewMariaDB(t)
	m.Exec(`CREATE DATABASE hr; USE hr;
		CREATE TABLE staff (login VARCHAR(64), full_name VARCHAR(128), active BIT(1), admin TINYINT(1), since DATETIME, no BIGINT UNSIGNED, score DECIMAL(5,2)) CHARACTER SET utf8mb4;
		INSERT INTO staff VALUES ('anna', 'Anna Müller 日本', b'1', 0, '2026-01-02 03:04:05', 18446744073709551615, 1.50), ('ben', NULL, b'0', 1, NULL, NULL, NULL);
		CREATE TABLE kept (x INT); CREATE TABLE many (x INT); INSERT INTO many SELECT seq FROM seq_1_to_50000;
		CREATE USER reader@'%' IDENTIFIED BY 'p w:@/ß'; GRANT ALL ON hr.* TO reader@'%';
		CREATE USER secure@'%' IDENTIFIED BY 's' REQUIRE SSL; GRANT SELECT ON hr.* TO secure@'%';`)
	const password = "p%20w%3A%40%2F%C3%9F"
	over := "mysql://reader:" + password + "@127.0.0.1:" + m.Port + "/hr"
	const all = "SELECT login AS name, full_name, active, admin, since, no, score FROM staff ORDER BY login;"
	want := "name,full_name,active,admin,since,no,score|anna,Anna Müller 日本,1,0,2026-01-02 03:04:05,18446744073709551615,1.50|ben,NULL,0,1,NULL,NULL,NULL"
	for name, address := range map[string]string{
		"over TCP": over, "over its socket": "mariadb://reader:" + password + "@/hr?socket=" + m.Socket, "encrypted": over + "?tls=encrypt",
		"verified":                  strings.Replace(over, "127.0.0.1", "localhost", 1) + "?tls=verify",
		"an account that wants TLS": "mysql://secure:s@localhost:" + m.Port + "/hr?tls=verify",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ask(t, address, string(m.CA), all, source.Limits{})
			if err != nil || strings.Join(got, "|") != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	for name, c := range map[string]struct{ address, ca, query, says string }{
		"a wrong password":              {"mysql://reader:wrong@127.0.0.1:" + m.Port + "/hr", "", all, "Access denied"},
		"a database that is not there":  {strings.Replace(over, "/hr", "/nowhere", 1), "", all, "nowhere"},
		"a certificate of somebody":     {strings.Replace(over, "127.0.0.1", "localhost", 1) + "?tls=verify", "", all, "certificate"},
		"a certificate for another":     {over + "?tls=verify", string(m.CA), all, "certificate"},
		"a mistake in the query":        {over, "", "SELEKT 1", "syntax"},
		"a query that writes":           {over, "", "INSERT INTO kept VALUES (1)", "READ ONLY"},
		"a query that makes a table":    {over, "", "CREATE TABLE t (x INT)", "READ ONLY"},
		"two statements":                {over, "", "SELECT 1; DELETE FROM staff", "syntax"},
		"a statement that gives no row": {over, "", "SET @x = 1", "gives no rows"},
		"too many rows":                 {over, "", "SELECT x FROM many", "more rows than are allowed"},
		"a file of this machine":        {over, "", "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE kept", "answers"},
		"a query that takes too long":   {over, "", "SELECT SLEEP(30)", "took more than"},
		"nobody listens":                {"mysql://reader:" + password + "@127.0.0.1:1/hr", "", all, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			l := source.Limits{Time: 2 * time.Second, Rows: 100, RowSize: 10000, Columns: 10}
			_, err := ask(t, c.address, c.ca, c.query, l)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, want %q", err, c.says)
			}
			if err != nil && (strings.Contains(err.Error(), password) || strings.Contains(err.Error(), "p w:")) {
				t.Errorf("the password is told: %v", err)
			}
		})
	}
	rows := 0
	a, _ := source.Parse(over)
	err := source.Run(t.Context(), a, "SELECT x FROM many", source.Limits{Time: 20 * time.Second, Rows: 1 << 20, RowSize: 10, Columns: 1}, func([]string) error { return nil },
		func([][]byte) error { rows++; return nil })
	if err != nil || rows != 50000 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// The published form: https://dev.mysql.com/doc/dev/mysql-server/latest/page_caching_sha2_authentication_exchanges.html.
// The values were computed with another program (Python's hashlib).
func TestProofs(t *testing.T) {
	salt := []byte("01234567890123456789")
	for _, c := range []struct {
		got  []byte
		want string
	}{
		{nativeProof([]byte("secret"), salt), "7abe1a8776b59e931059451f81e596a60dbbf7a8"},
		{sha2Proof([]byte("secret"), salt), "1a2da2573c2faa367e2afddb54cdfd11a95ed22eef0167151196a6fc8e3d3813"},
		{nativeProof(nil, salt), ""},
		{sha2Proof(nil, salt), ""},
	} {
		if fmt.Sprintf("%x", c.got) != c.want {
			t.Errorf("%x, want %s", c.got, c.want)
		}
	}
}

// A MySQL server as its protocol is published: caching_sha2_password with what a
// server does that has not cached the password.
func TestThePasswordItselfGoesOnlyOverVerifiedTLSOrASocket(t *testing.T) {
	for _, c := range []struct {
		name             string
		socket, verified bool
		full             bool
		ok               bool
	}{
		{"known to the server", false, false, false, true},
		{"not known, in the clear", false, false, true, false},
		{"not known, over a socket", true, false, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			_ = near.SetDeadline(time.Now().Add(10 * time.Second))
			_ = far.SetDeadline(time.Now().Add(10 * time.Second))
			salt := []byte("01234567890123456789")
			done := make(chan error, 1)
			go func() {
				defer far.Close()
				done <- func() error {
					if err := send(far, 0, greeting("8.4.0", "caching_sha2_password", salt)); err != nil {
						return err
					}
					b, seq, err := receive(far)
					if err != nil {
						return err
					}
					if !bytes.Contains(b, sha2Proof([]byte("secret"), salt)) || !bytes.Contains(b, []byte("hr\x00")) {
						return errors.New("the answer holds no proof")
					}
					if bytes.Contains(b, []byte("secret")) {
						return errors.New("the answer holds the password")
					}
					word := byte(sha2FastOK)
					if c.full {
						word = sha2FullAuth
					}
					if err := send(far, seq+1, []byte{headMore, word}); err != nil {
						return err
					}
					seq += 2
					if c.full {
						if b, seq, err = receive(far); err != nil {
							return nil // it went away, as it should
						}
						if string(b) != "secret\x00" {
							return fmt.Errorf("%q", b)
						}
						seq++
					}
					return send(far, seq, []byte{headOK, 0, 0, 2, 0, 0, 0})
				}()
			}()
			conn := &conn{rw: near, socket: c.socket, verified: c.verified}
			err := conn.signIn("u", []byte("secret"), "hr")
			_ = near.Close()
			if (err == nil) != c.ok {
				t.Errorf("signed in: %v", err)
			}
			if err := <-done; err != nil {
				t.Errorf("the server: %v", err)
			}
		})
	}
}

// A server that has been taken over may ask for the password in the clear.
func TestThePasswordIsNotGivenToWhoeverAsks(t *testing.T) {
	for _, plugin := range []string{"mysql_clear_password", "dialog", "mysql_old_password", "sha256_password", "unix_socket", "", "client_ed25519"} {
		var said bytes.Buffer
		_ = send(&said, 0, greeting("8.4.0", "mysql_native_password", []byte("01234567890123456789")))
		_ = send(&said, 2, append([]byte{headEOF}, plugin+"\x00"...))
		_ = send(&said, 4, []byte{headOK, 0, 0, 2, 0, 0, 0})
		var heard bytes.Buffer
		c := &conn{rw: both{&said, &heard}, verified: true}
		err := c.signIn("u", []byte("secret"), "hr")
		if err == nil || !strings.Contains(err.Error(), "wants to be signed in to by") || bytes.Contains(heard.Bytes(), []byte("secret")) {
			t.Errorf("%s: %v, it heard %q", plugin, err, heard.Bytes())
		}
	}
}

type both struct {
	io.Reader
	io.Writer
}

func send(w io.Writer, seq byte, b []byte) error {
	_, err := w.Write(append([]byte{byte(len(b)), byte(len(b) >> 8), byte(len(b) >> 16), seq}, b...))
	return err
}

func receive(r io.Reader) ([]byte, byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, 0, err
	}
	b := make([]byte, int(head[0])|int(head[1])<<8|int(head[2])<<16)
	_, err := io.ReadFull(r, b)
	return b, head[3], err
}

func greeting(version, plugin string, salt []byte) []byte {
	b := append([]byte{10}, version+"\x00\x01\x00\x00\x00"...)
	b = append(append(b, salt[:8]...), 0)
	caps := uint32(capProtocol41 | capSecure | capPluginAuth | capTransactions)
	b = append(b, byte(caps), byte(caps>>8), utf8mb4, 2, 0, byte(caps>>16), byte(caps>>24), 21)
	b = append(append(b, make([]byte, 10)...), salt[8:]...)
	return append(append(b, 0), plugin+"\x00"...)
}

// canned is a server that says what it was told to.
type canned struct{ io.Reader }

func (canned) Write(b []byte) (int, error) { return len(b), nil }

// FuzzServer: whatever a server sends, nothing is read beyond it and nothing ends the
// process.
func FuzzServer(f *testing.F) {
	salt := []byte("01234567890123456789")
	var b bytes.Buffer
	_ = send(&b, 0, greeting("5.5.5-10.11", "mysql_native_password", salt))
	_ = send(&b, 2, []byte{headOK, 0, 0})
	_ = send(&b, 1, []byte{1})
	_ = send(&b, 2, []byte("\x03def\x00\x00\x00\x04name\x00\x0c\x2d\x00\x00\x01\x00\x00\xfd\x00\x00\x00\x00\x00"))
	_ = send(&b, 3, []byte{headEOF, 0, 0, 2, 0})
	_ = send(&b, 4, []byte("\x04anna"))
	_ = send(&b, 5, []byte{headEOF, 0, 0, 2, 0})
	f.Add(b.Bytes())
	f.Add([]byte("\x05\x00\x00\x00\xff\x15\x04#28"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &conn{rw: canned{bytes.NewReader(b)}}
		if c.signIn("u", []byte("p"), "d") != nil {
			return
		}
		rows := 0
		_ = c.query("SELECT 1", func([]string) error { return nil }, func(cells [][]byte) error {
			if rows++; rows > len(b) {
				t.Fatal("more rows than octets")
			}
			return nil
		})
	})
}
