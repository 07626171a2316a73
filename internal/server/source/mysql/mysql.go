// Package mysql reads users from a MariaDB or MySQL database. It speaks the client's
// side of the protocol itself, as much of it as one query needs, because what is
// around is either under a licence that is not linked here, or brings along ten
// modules and gives a server that asks for it the password in the clear.
//
// It promises: a server can not make it read a file (LOCAL INFILE is not offered and
// refused), run a second statement, or hand out the password without verified TLS or
// a socket; what a server sends is bounded. Ways to sign in: mysql_native_password,
// caching_sha2_password, and the account's own socket. Run against MariaDB; of MySQL
// the sign-in alone was tested, against its published form. Row: E2.
package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/source"
)

func init() {
	source.Register(source.Driver{
		Name: "mysql", Aliases: []string{"mariadb"}, Title: "MariaDB, MySQL", Port: 3306, Socket: true, Tested: true, Query: query,
	})
}

// dialTime bounds the way to the server, silence how long it may say nothing while it
// signs in; the query itself is bounded by the context.
const (
	dialTime = 10 * time.Second
	silence  = 10 * time.Second
)

func query(ctx context.Context, a source.Address, q string, columns func([]string) error, each func([][]byte) error) (err error) {
	network, where := "tcp", a.HostPort()
	if a.Socket != "" {
		network, where = "unix", a.Socket
	}
	d := net.Dialer{Timeout: dialTime}
	raw, err := d.DialContext(ctx, network, where)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	defer raw.Close()
	_ = raw.SetDeadline(clock.Deadline(silence))
	t, err := a.TLSConfig()
	if err != nil {
		return err
	}
	c := &conn{rw: raw, socket: a.Socket != "", verified: a.TLS == source.TLSVerify && t != nil}
	if t != nil {
		c.secure = func() (io.ReadWriter, error) {
			s := tls.Client(raw, t)
			return s, s.HandshakeContext(ctx)
		}
	}
	if err := c.signIn(a.User, a.Password.Reveal(), a.Database); err != nil {
		return err
	}
	_ = raw.SetDeadline(time.Time{})
	limit := "SET SESSION max_execution_time = "
	unit := time.Millisecond
	if strings.Contains(c.version, "MariaDB") {
		limit, unit = "SET SESSION max_statement_time = ", time.Second
	}
	if end, ok := ctx.Deadline(); ok {
		// A little later than here: what the server ends by itself is what nobody waits
		// for any more.
		left := end.Sub(clock.Deadline(0)) + silence
		if err := c.exec(limit + strconv.FormatInt(max(1, int64(left/unit)), 10)); err != nil {
			return err
		}
	}
	for _, s := range []string{"SET SESSION time_zone = '+00:00'", "SET SESSION TRANSACTION READ ONLY", "START TRANSACTION READ ONLY"} {
		if err := c.exec(s); err != nil {
			return err
		}
	}
	if err := c.query(q, columns, each); err != nil {
		return err
	}
	return errors.Join(c.exec("ROLLBACK"), c.quit())
}

// serverError is what the server says is wrong.
type serverError struct {
	number uint16
	state  string
	text   string
}

func (e serverError) Error() string {
	return fmt.Sprintf("the server answers: %s (%d, %s)", e.text, e.number, e.state)
}
