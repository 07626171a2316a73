// Package turnstile bounds how many connections strangers hold open at a door, so
// that whoever opens thousands and says nothing shuts nobody out and costs a bounded
// piece of memory.
//
// A connection is a stranger's until it has shown who it is; then it is a guest's. A
// network of strangers (of IPv6 a /64), all strangers together, and each guest have
// so many places. When all are taken the newcomer gets the place of one of them,
// which is chosen by lot and closed: a stranger who sits there is soon hit, while
// somebody who needs a place for the fraction of a second of a handshake is mostly
// not, and nobody can hold the door by having come first.
//
// It promises that no list grows beyond its bound, and that a connection that is
// closed leaves nothing behind. Rows: O1 (others still sign in), E4.
package turnstile

import (
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
)

// Config holds the places; each must be above zero.
type Config struct {
	PerNetwork int // of strangers of one network
	Strangers  int // of all strangers together
	PerGuest   int
	// Crowded is called, and must not wait, when a network of strangers has taken all
	// its places; it may be nil.
	Crowded func(from netip.Addr)
}

// Turnstile counts the connections of one door. It is safe for concurrent use.
type Turnstile struct {
	c Config

	mu        sync.Mutex
	strangers row
	networks  map[string]*row
	guests    map[string]*row
}

// New makes a turnstile.
func New(c Config) *Turnstile {
	if c.Crowded == nil {
		c.Crowded = func(netip.Addr) {}
	}
	return &Turnstile{c: c, networks: map[string]*row{}, guests: map[string]*row{}}
}

// Network is whom an address stands for: of IPv6 the /64 that one connection to the
// Internet has at least, because whoever has it has all its addresses.
func Network(a netip.Addr) string {
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

// Listen counts what l accepts.
func (t *Turnstile) Listen(l net.Listener) net.Listener { return &listener{l, t} }

// Strangers is how many of them there are now.
func (t *Turnstile) Strangers() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.strangers)
}

// Known says that a connection that Listen's listener has accepted is the guest's.
// Any other connection is left as it is.
func Known(c net.Conn, guest string) {
	if c, ok := c.(*conn); ok {
		c.t.welcome(c, guest)
	}
}

type listener struct {
	net.Listener
	t *Turnstile
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.t.admit(c), nil
}

// row is the connections that share a number of places.
type row []*conn

// place is where in a row a connection stands.
type place int

const (
	ofAll place = iota // strangers, or none
	ofOne              // the network's, or the guest's
	places
)

func (r *row) add(c *conn, p place) {
	c.at[p] = len(*r)
	*r = append(*r, c)
}

func (r *row) remove(c *conn, p place) {
	last := len(*r) - 1
	moved := (*r)[last]
	(*r)[c.at[p]], moved.at[p] = moved, c.at[p]
	(*r)[last] = nil
	*r = (*r)[:last]
}

// lot draws one of the row, which is not empty.
func (r *row) lot() *conn {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return (*r)[binary.BigEndian.Uint64(b[:])%uint64(len(*r))]
}

// conn is a connection with its place.
type conn struct {
	net.Conn
	t       *Turnstile
	addr    netip.Addr
	network string
	guest   string // empty: a stranger
	in      bool   // has a place
	at      [places]int
}

// Close gives the place back.
func (c *conn) Close() error {
	c.t.mu.Lock()
	c.t.leave(c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

// end closes a connection that has lost its place, without waiting for the other end.
func (c *conn) end() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Conn.Close()
}

func (t *Turnstile) admit(nc net.Conn) *conn {
	c := &conn{Conn: nc, t: t}
	if ap, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
		c.addr = ap.Addr().Unmap().WithZone("")
	}
	c.network = Network(c.addr)

	t.mu.Lock()
	own := t.networks[c.network]
	if own == nil {
		own = &row{}
		t.networks[c.network] = own
	}
	var loser *conn
	crowded := len(*own) >= t.c.PerNetwork
	switch {
	case crowded:
		loser = own.lot()
	case len(t.strangers) >= t.c.Strangers:
		loser = t.strangers.lot()
	}
	own.add(c, ofOne) // first, so that the row is not forgotten
	t.strangers.add(c, ofAll)
	c.in = true
	if loser != nil {
		t.leave(loser)
	}
	t.mu.Unlock()

	if loser != nil {
		loser.end()
	}
	if crowded {
		t.c.Crowded(c.addr)
	}
	return c
}

func (t *Turnstile) welcome(c *conn, guest string) {
	t.mu.Lock()
	if !c.in || c.guest != "" {
		t.mu.Unlock()
		return
	}
	t.leave(c)
	own := t.guests[guest]
	if own == nil {
		own = &row{}
		t.guests[guest] = own
	}
	var loser *conn
	if len(*own) >= t.c.PerGuest {
		loser = own.lot()
	}
	c.guest, c.in = guest, true
	own.add(c, ofOne)
	if loser != nil {
		t.leave(loser)
	}
	t.mu.Unlock()
	if loser != nil {
		loser.end()
	}
}

// leave takes a connection out of its rows; the lock is held.
func (t *Turnstile) leave(c *conn) {
	if !c.in {
		return
	}
	c.in = false
	rows, key := t.networks, c.network
	if c.guest != "" {
		rows, key = t.guests, c.guest
	} else {
		t.strangers.remove(c, ofAll)
	}
	own := rows[key]
	own.remove(c, ofOne)
	if len(*own) == 0 {
		delete(rows, key)
	}
}
