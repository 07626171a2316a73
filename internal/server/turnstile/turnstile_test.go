package turnstile

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// pipe is a connection from an address; it remembers that it was closed.
type pipe struct {
	net.Conn
	from string

	mu     sync.Mutex
	closed bool
}

func (p *pipe) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(p.from))
}

func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

func (p *pipe) open() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed
}

// TestPlacesAreBounded: whatever comes, goes and shows who it is, no row outgrows its
// places, what has a place is open and what has none is closed, and nothing is left
// when all have gone.
func TestPlacesAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Config{
			PerNetwork: rapid.IntRange(1, 4).Draw(t, "per network"), Strangers: rapid.IntRange(1, 8).Draw(t, "strangers"),
			PerGuest: rapid.IntRange(1, 3).Draw(t, "per guest"),
		}
		crowds := 0
		c.Crowded = func(netip.Addr) { crowds++ }
		ts := New(c)
		var all []*conn
		look := func() {
			in := 0
			for _, c := range all {
				if p := c.Conn.(*pipe); p.open() != c.in {
					t.Fatalf("a connection of %s is open: %v, and has a place: %v", p.from, p.open(), c.in)
				}
				if c.in {
					in++
				}
			}
			counted := 0
			for name, rows := range map[string]map[string]*row{"network": ts.networks, "guest": ts.guests} {
				most := c.PerNetwork
				if name == "guest" {
					most = c.PerGuest
				}
				for key, r := range rows {
					if n := len(*r); n == 0 || n > most {
						t.Fatalf("%s %s has %d of %d places", name, key, n, most)
					}
					for i, c := range *r {
						if c.at[ofOne] != i || !c.in {
							t.Fatalf("%s %s: a connection is lost", name, key)
						}
					}
					counted += len(*r)
				}
			}
			if ts.Strangers() > c.Strangers || counted != in {
				t.Fatalf("%d strangers, %d connections in rows of %d", ts.Strangers(), counted, in)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				from := rapid.SampledFrom([]string{"192.0.2.1:1", "192.0.2.2:1", "[::ffff:192.0.2.1]:2", "[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8:1::1]:1"}).Draw(t, "from")
				all = append(all, ts.admit(&pipe{from: from}))
				if newest := all[len(all)-1]; !newest.in {
					t.Fatal("the newcomer has no place")
				}
			},
			"show": func(t *rapid.T) {
				if len(all) > 0 {
					Known(rapid.SampledFrom(all).Draw(t, "who"), rapid.SampledFrom([]string{"a", "b"}).Draw(t, "guest"))
				}
			},
			"go": func(t *rapid.T) {
				if len(all) > 0 {
					_ = rapid.SampledFrom(all).Draw(t, "who").Close()
				}
			},
			"": func(*rapid.T) { look() },
		})
		for _, c := range all {
			_ = c.Close()
		}
		if ts.Strangers() != 0 || len(ts.networks) != 0 || len(ts.guests) != 0 {
			t.Fatalf("left behind: %d %v %v", ts.Strangers(), ts.networks, ts.guests)
		}
	})
}

func TestWhoeverSitsThereGivesWay(t *testing.T) {
	told := 0
	ts := New(Config{PerNetwork: 8, Strangers: 100, PerGuest: 1, Crowded: func(from netip.Addr) {
		told++
		if from.String() != "192.0.2.1" {
			t.Errorf("crowded from %s", from)
		}
	}})
	first := &pipe{from: "192.0.2.1:1"}
	guest := ts.admit(first)
	Known(guest, "machine")
	other := &pipe{from: "192.0.2.2:1"}
	ts.admit(other)
	var sitters []*pipe
	for range 500 {
		p := &pipe{from: "192.0.2.1:9"}
		sitters = append(sitters, p)
		ts.admit(p)
	}
	open := 0
	for _, p := range sitters {
		if p.open() {
			open++
		}
	}
	if open != 8 || told != 492 || !first.open() || !other.open() {
		t.Errorf("%d of the sitters are open, told %d times, the guest %v, somebody else %v", open, told, first.open(), other.open())
	}
}

// TestAListener over real connections: who loses his place is told at once.
func TestAListener(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ts := New(Config{PerNetwork: 1, Strangers: 9, PerGuest: 9})
	l := ts.Listen(inner)
	defer l.Close()
	dial := func() (far, near net.Conn) {
		far, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = far.Close() })
		if near, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return far, near
	}
	lost, _ := dial()
	_, near := dial()
	_ = lost.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := lost.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("who lost his place reads %v", err)
	}
	Known(near, "machine")
	last, _ := dial()
	_ = last.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := last.Read(make([]byte, 1)); err == io.EOF || !os.IsTimeout(err) {
		t.Errorf("behind a guest there is a place, and yet %v", err)
	}
	if ts.Strangers() != 1 {
		t.Errorf("%d strangers", ts.Strangers())
	}
	if _, err := near.Write([]byte("x")); err != nil {
		t.Error(err)
	}
}
