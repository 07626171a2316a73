package mysql

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"latchkey/internal/text"
)

// The bounds of what a server may send.
const (
	maxPacket  = 1 << 20
	maxColumns = 1024
)

// Capabilities of the protocol (CLIENT_…). Not among those that are asked for:
// LOCAL_FILES, MULTI_STATEMENTS, COMPRESS.
const (
	capLongPassword = 1 << 0
	capLongFlag     = 1 << 2
	capWithDB       = 1 << 3
	capProtocol41   = 1 << 9
	capSSL          = 1 << 11
	capTransactions = 1 << 13
	capSecure       = 1 << 15
	capPluginAuth   = 1 << 19
)

// utf8mb4 is the number of utf8mb4_general_ci.
const utf8mb4 = 45

const (
	comQuit  = 0x01
	comQuery = 0x03

	headOK       = 0x00
	headMore     = 0x01
	headLocal    = 0xfb
	headEOF      = 0xfe
	headErr      = 0xff
	typeBit      = 0x10
	sha2FastOK   = 0x03
	sha2FullAuth = 0x04
)

var errBroken = errors.New("the server's answer is not of the MySQL protocol")

// conn is a connection that is being used by one goroutine.
type conn struct {
	rw       io.ReadWriter
	secure   func() (io.ReadWriter, error) // goes over to TLS; nil: it is not wanted
	socket   bool
	verified bool // TLS with a certificate that was verified
	seq      byte
	version  string
}

func (c *conn) read() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.rw, head[:]); err != nil {
		return nil, fmt.Errorf("the server ended the connection: %w", err)
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if n > maxPacket {
		return nil, fmt.Errorf("the server sends %d octets at once; allowed are at most %d", n, maxPacket)
	}
	if head[3] != c.seq {
		return nil, errBroken
	}
	c.seq++
	b := make([]byte, n)
	if _, err := io.ReadFull(c.rw, b); err != nil {
		return nil, fmt.Errorf("the server ended the connection: %w", err)
	}
	return b, nil
}

func (c *conn) write(b []byte) error {
	if len(b) > maxPacket {
		return errors.New("what is to be sent is too long")
	}
	head := []byte{byte(len(b)), byte(len(b) >> 8), byte(len(b) >> 16), c.seq}
	c.seq++
	_, err := c.rw.Write(append(head, b...))
	return err
}

// cutter takes fields off a packet; bad sticks.
type cutter struct {
	b   []byte
	bad bool
}

func (c *cutter) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cutter) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cutter) word() string { // ends with NUL
	i := bytes.IndexByte(c.b, 0)
	if i < 0 {
		c.bad = true
		return ""
	}
	out := c.take(uint64(i))
	c.take(1)
	return string(out)
}

func (c *cutter) uint(size uint64) (n uint64) {
	for i, b := range c.take(size) {
		n |= uint64(b) << (8 * i)
	}
	return n
}

// number is a length-encoded integer.
func (c *cutter) number() uint64 {
	switch b := c.byte(); b {
	case 0xfc:
		return c.uint(2)
	case 0xfd:
		return c.uint(3)
	case 0xfe:
		return c.uint(8)
	case 0xfb, 0xff:
		c.bad = true
		return 0
	default:
		return uint64(b)
	}
}

func (c *cutter) text() []byte { return c.take(c.number()) }

func failure(b []byte) error {
	c := cutter{b: b}
	c.byte()
	e := serverError{number: uint16(c.uint(2)), state: "HY000"}
	if len(c.b) > 0 && c.b[0] == '#' {
		c.byte()
		e.state = text.Clean(string(c.take(5)))
	}
	if c.bad {
		return errBroken
	}
	e.text = text.CleanN(string(c.b), 300)
	return e
}

// signIn goes through the handshake.
func (c *conn) signIn(user string, password []byte, database string) error {
	b, err := c.read()
	if err != nil {
		return err
	}
	if len(b) > 0 && b[0] == headErr {
		return failure(b)
	}
	g := cutter{b: b}
	if g.byte() != 10 {
		return errBroken
	}
	c.version = text.CleanN(g.word(), 100)
	g.take(4)
	salt := bytes.Clone(g.take(8))
	g.take(1)
	offered := g.uint(2)
	g.take(3) // character set, status
	offered |= g.uint(2) << 16
	more := int(g.byte()) - 8
	g.take(10)
	salt = saltOf(append(salt, g.take(uint64(max(13, more)))...))
	plugin := "mysql_native_password"
	if offered&capPluginAuth != 0 && !g.bad {
		plugin = g.word()
	}
	if g.bad || offered&capProtocol41 == 0 || offered&capSecure == 0 {
		return errBroken
	}
	caps := uint32(capLongPassword | capLongFlag | capWithDB | capProtocol41 | capTransactions | capSecure | capPluginAuth)
	head := func() []byte {
		out := binary.LittleEndian.AppendUint32(nil, caps)
		out = binary.LittleEndian.AppendUint32(out, maxPacket)
		return append(append(out, utf8mb4), make([]byte, 23)...)
	}
	encrypted := false
	if c.secure != nil {
		if offered&capSSL == 0 {
			return errors.New("the server offers no TLS, and the address asks for it; set it up there, or write tls=off for a connection that everybody in between can read")
		}
		caps |= capSSL
		if err := c.write(head()); err != nil {
			return err
		}
		if c.rw, err = c.secure(); err != nil {
			return err
		}
		encrypted = true
	}
	answer, err := c.prove(plugin, password, salt)
	if err != nil {
		// The server says with an answer that does not fit which way it wants.
		plugin, answer = "mysql_native_password", nil
	}
	out := head()
	out = append(append(out, user...), 0)
	out = append(append(out, byte(len(answer))), answer...)
	out = append(append(out, database...), 0)
	out = append(append(out, plugin...), 0)
	if err := c.write(out); err != nil {
		return err
	}
	for range 8 { // a server that goes on asking is not one
		b, err := c.read()
		if err != nil {
			return err
		}
		if len(b) == 0 {
			return errBroken
		}
		switch b[0] {
		case headOK:
			return nil
		case headErr:
			return failure(b)
		case headEOF:
			g := cutter{b: b[1:]}
			plugin = g.word()
			if g.bad {
				return errors.New("the server asks for a way to sign in that is older than MySQL 4.1")
			}
			salt = saltOf(g.b)
			if answer, err = c.prove(plugin, password, salt); err != nil {
				return err
			}
			if err := c.write(answer); err != nil {
				return err
			}
		case headMore:
			if plugin != "caching_sha2_password" || len(b) != 2 {
				return errBroken
			}
			switch b[1] {
			case sha2FastOK:
			case sha2FullAuth:
				// The password itself goes to the server, which has not cached it yet.
				if !c.socket && !(encrypted && c.verified) {
					return errors.New("the server wants the password itself, which goes only over verified TLS or a socket: write tls=verify, or let somebody sign in there once with this account so that the server knows its hash")
				}
				if err := c.write(append(bytes.Clone(password), 0)); err != nil {
					return err
				}
			default:
				return errBroken
			}
		default:
			return errBroken
		}
	}
	return errBroken
}

// saltOf is the challenge without what stands behind it.
func saltOf(b []byte) []byte { return bytes.Clone(b[:min(len(b), 20)]) }

// prove answers the server's challenge.
func (c *conn) prove(plugin string, password, salt []byte) ([]byte, error) {
	switch plugin {
	case "mysql_native_password":
		return nativeProof(password, salt), nil
	case "caching_sha2_password":
		return sha2Proof(password, salt), nil
	case "unix_socket", "auth_socket":
		if c.socket {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("the server wants to be signed in to by %q; allowed are mysql_native_password, caching_sha2_password and, over a socket, unix_socket: make an account with one of them", text.CleanN(plugin, 40))
}

// nativeProof is SHA1(password) XOR SHA1(salt, SHA1(SHA1(password))).
func nativeProof(password, salt []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	one := sha1.Sum(password)
	two := sha1.Sum(one[:])
	mask := sha1.Sum(append(bytes.Clone(salt), two[:]...))
	for i := range one {
		one[i] ^= mask[i]
	}
	return one[:]
}

// sha2Proof is SHA256(password) XOR SHA256(SHA256(SHA256(password)), salt).
func sha2Proof(password, salt []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	one := sha256.Sum256(password)
	two := sha256.Sum256(one[:])
	mask := sha256.Sum256(append(two[:], salt...))
	for i := range one {
		one[i] ^= mask[i]
	}
	return one[:]
}

func (c *conn) command(kind byte, s string) error {
	c.seq = 0
	return c.write(append([]byte{kind}, s...))
}

func (c *conn) quit() error { return c.command(comQuit, "") }

// exec runs a statement that gives no rows.
func (c *conn) exec(s string) error {
	if err := c.command(comQuery, s); err != nil {
		return err
	}
	b, err := c.read()
	switch {
	case err != nil:
		return err
	case len(b) > 0 && b[0] == headOK:
		return nil
	case len(b) > 0 && b[0] == headErr:
		return failure(b)
	}
	return errBroken
}

func isEOF(b []byte) bool { return len(b) > 0 && len(b) < 9 && b[0] == headEOF }

// query runs a statement and gives its columns and rows as they come.
func (c *conn) query(s string, columns func([]string) error, each func([][]byte) error) error {
	if err := c.command(comQuery, s); err != nil {
		return err
	}
	b, err := c.read()
	switch {
	case err != nil:
		return err
	case len(b) == 0:
		return errBroken
	case b[0] == headErr:
		return failure(b)
	case b[0] == headOK:
		return errors.New("the statement gives no rows; allowed is a SELECT")
	case b[0] == headLocal:
		return errors.New("the server wants to read a file of this machine, which it may not")
	}
	g := cutter{b: b}
	n := g.number()
	if g.bad || len(g.b) > 0 || n == 0 || n > maxColumns {
		return errBroken
	}
	names, bit := make([]string, n), make([]bool, n)
	for i := range names {
		if b, err = c.read(); err != nil {
			return err
		}
		g := cutter{b: b}
		for range 4 { // catalogue, schema, table, original table
			g.text()
		}
		names[i] = string(g.text())
		g.text() // original name
		if g.number() < 12 {
			return errBroken
		}
		g.take(6) // character set, length
		bit[i] = g.byte() == typeBit
		if g.bad {
			return errBroken
		}
	}
	if b, err = c.read(); err != nil {
		return err
	}
	if !isEOF(b) {
		return errBroken
	}
	if err := columns(names); err != nil {
		return err
	}
	cells := make([][]byte, n)
	for {
		if b, err = c.read(); err != nil {
			return err
		}
		switch {
		case isEOF(b):
			return nil
		case len(b) > 0 && b[0] == headErr:
			return failure(b)
		}
		g := cutter{b: b}
		for i := range cells {
			if len(g.b) > 0 && g.b[0] == headLocal { // here: NULL
				g.byte()
				cells[i] = nil
				continue
			}
			if cells[i] = g.text(); bit[i] {
				v := uint64(0)
				for _, x := range cells[i] {
					v = v<<8 | uint64(x)
				}
				cells[i] = strconv.AppendUint(nil, v, 10)
			}
		}
		if g.bad || len(g.b) > 0 {
			return errBroken
		}
		if err := each(cells); err != nil {
			return err
		}
	}
}
