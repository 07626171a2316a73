// Package source reads rows of users from databases of others with one query: it is
// what an import (internal/server/bulk) reads beside files. The kinds of databases
// are plug-ins below this folder that register themselves; cmd/latchkeyd chooses.
//
// It promises: an address has one form for all kinds, is parsed here, and no option
// in it makes the server read a file, run a program or speak to anybody but the host
// that it names; the environment of the server adds nothing to it; a password is in
// no error, log or list; the connection is verified TLS unless the address says
// otherwise or stays on this machine; a query runs in a transaction that reads only,
// as far as the database knows such a thing, and is always rolled back; time, rows
// and the size of a row are bounded. Row: E2.
package source

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"latchkey/internal/secret"
	"latchkey/internal/text"
)

// The bounds of what an administrator may say.
const (
	MaxAddress = 2048
	MaxQuery   = 16 << 10
	MaxCA      = 64 << 10
)

// The ways of a connection.
const (
	TLSVerify  = "verify"  // the certificate must be right for the host
	TLSEncrypt = "encrypt" // any certificate will do: whoever is in between can read
	TLSOff     = "off"
)

// Address says where a database is and who asks.
type Address struct {
	Driver   string // name of the plug-in
	Host     string // empty with Socket
	Port     int
	Socket   string // absolute path of a Unix socket or, for PostgreSQL, of its folder
	User     string
	Password secret.Bytes
	Database string // or Oracle's service
	Instance string // of SQL Server
	TLS      string
	CA       []byte // PEM; empty: the system's certificates
}

// Driver is a kind of database.
type Driver struct {
	Name  string // as in the address, before ://
	Title string // for people
	// Aliases are other words before ://.
	Aliases []string
	Port    int // the usual
	Socket  bool
	// Instance: the address may name an instance.
	Instance bool
	// Tested tells whether it was run against a real server here. What was not is said
	// to be so wherever the kind is shown.
	Tested bool
	// Check finds what is wrong with the address for this kind; may be nil.
	Check func(Address) error
	// Query runs the query and gives the columns once, then every row. A NULL is nil.
	// It ends when each returns an error, with that error.
	Query func(ctx context.Context, a Address, query string, columns func([]string) error, each func([][]byte) error) error
}

var (
	mu      sync.Mutex
	drivers = map[string]Driver{}
)

// Register adds a kind of database; plug-ins call it from init.
func Register(d Driver) {
	mu.Lock()
	defer mu.Unlock()
	for _, name := range append([]string{d.Name}, d.Aliases...) {
		if _, ok := drivers[name]; ok {
			panic("source: " + name + " is registered twice")
		}
		drivers[name] = d
	}
}

// Drivers lists the kinds in order of their names.
func Drivers() []Driver {
	mu.Lock()
	defer mu.Unlock()
	var out []Driver
	for _, name := range slices.Sorted(maps.Keys(drivers)) {
		if d := drivers[name]; d.Name == name {
			out = append(out, d)
		}
	}
	return out
}

// Find finds a kind by its name.
func Find(name string) (Driver, bool) {
	mu.Lock()
	defer mu.Unlock()
	d, ok := drivers[name]
	return d, ok
}

func names() string {
	var out []string
	for _, d := range Drivers() {
		out = append(out, d.Name)
	}
	return strings.Join(out, ", ")
}

var errForm = errors.New("it is no address of a database; allowed is KIND://USER:PASSWORD@HOST:PORT/DATABASE, with special letters of the password written as %XX")

// Parse reads an address. Errors never repeat what could be a password.
func Parse(s string) (Address, error) {
	var a Address
	if len(s) > MaxAddress {
		return a, fmt.Errorf("it has %d octets; allowed are at most %d", len(s), MaxAddress)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return a, errForm
	}
	kind, _, ok := strings.Cut(s, "://")
	if !ok {
		return a, errForm
	}
	d, ok := Find(strings.ToLower(kind))
	if !ok {
		return a, fmt.Errorf("the kind of database %q is not known; allowed are %s", text.CleanN(kind, 20), names())
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.Fragment != "" || u.User == nil || u.User.Username() == "" {
		return a, errForm // url's own error repeats its input
	}
	a = Address{Driver: d.Name, Host: u.Hostname(), Port: d.Port, User: u.User.Username(), Database: strings.TrimPrefix(u.Path, "/")}
	if p, ok := u.User.Password(); ok {
		a.Password = secret.FromString(p)
	}
	if p := u.Port(); p != "" {
		if a.Port, err = strconv.Atoi(p); err != nil || a.Port < 1 || a.Port > 65535 {
			return a, errors.New("the port is out of range; allowed are 1 to 65535")
		}
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return a, errForm
	}
	for key, values := range q {
		value := values[0]
		if len(values) > 1 {
			return a, fmt.Errorf("the option %q stands there twice", text.CleanN(key, 20))
		}
		switch {
		case key == "tls":
			a.TLS = value
		case key == "socket" && d.Socket:
			a.Socket = value
		case key == "instance" && d.Instance:
			a.Instance = value
		default:
			return a, fmt.Errorf("the option %q is not known; allowed are %s", text.CleanN(key, 20), options(d))
		}
	}
	return a, a.check(d)
}

func options(d Driver) string {
	out := "tls"
	if d.Socket {
		out += ", socket"
	}
	if d.Instance {
		out += ", instance"
	}
	return out
}

func (a *Address) check(d Driver) error {
	switch {
	case a.Socket != "" && a.Host != "":
		return errors.New("it names a host and a socket; allowed is one of them")
	case a.Socket == "" && a.Host == "":
		return errors.New("it names no host")
	case a.Socket != "" && (!strings.HasPrefix(a.Socket, "/") || len(a.Socket) > 100):
		return errors.New("the socket is no absolute path of at most 100 octets")
	case len(a.Host) > 253 || strings.ContainsAny(a.Host, " ,/\\@"):
		return errors.New("the host is no name and no address")
	case a.Database == "" || strings.Contains(a.Database, "/") || len(a.Database) > 128:
		return errors.New("it names no database; allowed is one name behind the host")
	case len(a.User) > 128 || len(a.Instance) > 128:
		return errors.New("a name in it has more than 128 octets")
	}
	if a.TLS == "" {
		a.TLS = TLSVerify
		if a.here() {
			a.TLS = TLSOff
		}
	}
	if a.TLS != TLSVerify && a.TLS != TLSEncrypt && a.TLS != TLSOff {
		return fmt.Errorf("tls=%s is not allowed; allowed are verify (default), encrypt (any certificate will do) and off", text.CleanN(a.TLS, 20))
	}
	if d.Check != nil {
		return d.Check(*a)
	}
	return nil
}

// here tells whether the connection stays on this machine.
func (a *Address) here() bool {
	ip, err := netip.ParseAddr(a.Host)
	return a.Socket != "" || a.Host == "localhost" || err == nil && ip.IsLoopback()
}

// String is the address for people, without its password.
func (a Address) String() string {
	u := url.URL{Scheme: a.Driver, User: url.User(a.User), Path: "/" + a.Database}
	q := url.Values{}
	if a.Host != "" {
		u.Host = a.HostPort()
	}
	if a.Socket != "" {
		q.Set("socket", a.Socket)
	}
	if a.Instance != "" {
		q.Set("instance", a.Instance)
	}
	q.Set("tls", a.TLS)
	u.RawQuery = q.Encode()
	return u.String()
}

// HostPort is host and port as a dialer wants them.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// CheckCA judges certificates in PEM.
func CheckCA(pem []byte) error {
	if len(pem) == 0 {
		return nil
	}
	if len(pem) > MaxCA || !x509.NewCertPool().AppendCertsFromPEM(pem) {
		return fmt.Errorf("there is no certificate in it; allowed are certificates in PEM of at most %d octets together", MaxCA)
	}
	return nil
}

// TLSConfig is how a connection to the address is protected; nil: it is not.
func (a Address) TLSConfig() (*tls.Config, error) {
	if a.TLS == TLSOff {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: a.Host}
	if a.TLS == TLSEncrypt {
		c.InsecureSkipVerify = true // said in the address, by whoever may say to whom the server connects
		return c, nil
	}
	if len(a.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(a.CA) {
			return nil, errors.New("the certificates of the address are not readable")
		}
	}
	return c, nil
}

// Limits bound a query.
type Limits struct {
	Time    time.Duration // all of it
	Rows    int
	RowSize int // octets of all cells of a row
	Columns int
}

// ErrTooMany ends a query with more rows than are allowed.
var ErrTooMany = errors.New("the query gives more rows than are allowed")

// Run runs a query over the address within the limits.
func Run(ctx context.Context, a Address, query string, l Limits, columns func([]string) error, each func([][]byte) error) error {
	d, ok := Find(a.Driver)
	if !ok {
		return fmt.Errorf("this server has no driver for %s", a.Driver)
	}
	if err := CheckQuery(query); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, l.Time)
	defer cancel()
	rows := 0
	var own error // of whoever reads, or of a limit: it is said as it is
	err := d.Query(ctx, a, query, func(names []string) error {
		if len(names) > l.Columns {
			own = fmt.Errorf("the query gives %d columns; allowed are at most %d", len(names), l.Columns)
			return own
		}
		own = columns(names)
		return own
	}, func(cells [][]byte) error {
		rows++
		size := 0
		for _, c := range cells {
			size += len(c)
		}
		switch {
		case rows > l.Rows:
			own = fmt.Errorf("%w (%d)", ErrTooMany, l.Rows)
		case size > l.RowSize:
			own = fmt.Errorf("row %d has %d octets; allowed are at most %d", rows, size, l.RowSize)
		default:
			own = each(cells)
		}
		return own
	})
	switch {
	case own != nil:
		return own
	case err != nil && ctx.Err() != nil && context.Cause(ctx) == context.DeadlineExceeded:
		return fmt.Errorf("the database took more than %s", text.Duration(l.Time))
	case err != nil:
		return fmt.Errorf("%s: %w", a, Hide(err, a.Password))
	}
	return nil
}

// CheckQuery judges the text of a query roughly; the database has the last word.
func CheckQuery(query string) error {
	switch {
	case strings.TrimSpace(query) == "":
		return errors.New("there is no query; allowed is one SELECT whose columns are named as in the file")
	case len(query) > MaxQuery:
		return fmt.Errorf("the query has %d octets; allowed are at most %d", len(query), MaxQuery)
	case !utf8.ValidString(query) || strings.ContainsRune(query, 0):
		return errors.New("the query is not UTF-8 text")
	}
	return nil
}

// hidden is an error of a driver without the password, should one repeat it.
type hidden struct{ text string }

func (h hidden) Error() string { return h.text }

// Hide makes an error that does not repeat the password.
func Hide(err error, password secret.Bytes) error {
	s := err.Error()
	if p := string(password.Reveal()); p != "" {
		for _, form := range []string{p, url.QueryEscape(p), url.PathEscape(p)} {
			s = strings.ReplaceAll(s, form, "…")
		}
	}
	return hidden{text.CleanN(s, 500)}
}
