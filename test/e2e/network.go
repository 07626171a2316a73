//go:build e2e

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var links atomic.Int64

// Connect lays a cable between two machines and returns their addresses on it.
func Connect(t testing.TB, a, b *Machine) (addrA, addrB string) {
	t.Helper()
	n := links.Add(1)
	name := fmt.Sprintf("cable%d", n)
	// From outside: a process id of another machine means nothing inside.
	for _, c := range [][]string{
		{"ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", strconv.Itoa(b.pid)},
	} {
		if out, err := a.networkOnly(c...); err != nil {
			t.Fatalf("%s: %v %s", strings.Join(c, " "), err, out)
		}
	}
	addrA, addrB = addresses(t, n)
	a.Run("ip", "addr", "add", addrA+"/30", "dev", name)
	b.Run("ip", "addr", "add", addrB+"/30", "dev", name)
	a.Run("ip", "link", "set", name, "up")
	b.Run("ip", "link", "set", name, "up")
	return addrA, addrB
}

// addresses are those of the ends of a cable, of the networks for examples and, behind
// them, of that for measurements (RFC 5737, RFC 2544).
func addresses(t testing.TB, n int64) (a, b string) {
	t.Helper()
	const each = 60 // cables of a network
	nets := []string{"192.0.2", "198.51.100", "203.0.113"}
	for i := range 100 {
		nets = append(nets, fmt.Sprintf("198.18.%d", i))
	}
	if n > int64(each*len(nets)) {
		t.Fatal("out of addresses")
	}
	net, at := nets[(n-1)/each], 4*((n-1)%each+1)
	return fmt.Sprintf("%s.%d", net, at+1), fmt.Sprintf("%s.%d", net, at+2)
}

// Weather is what becomes of packets on a rough cable.
type Weather struct {
	Loss  int           // of a hundred packets, each way, by lot
	Delay time.Duration // of those that arrive, each way
}

// Rough is a cable of two TUN devices with a relay of the test's between them, which
// loses and delays packets. It is not the kernel's netem: there is no jitter, no
// reordering and no limit of bandwidth; what is lost is drawn from a seed.
type Rough struct {
	mu      sync.Mutex
	weather Weather
	dice    *rand.Rand
	passed  atomic.Int64
	lost    atomic.Int64
}

// Turn changes the weather and counts anew.
func (r *Rough) Turn(w Weather) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.weather = w
	r.passed.Store(0)
	r.lost.Store(0)
}

// Counts tells how many packets have arrived and how many were lost in this weather.
func (r *Rough) Counts() (passed, lost int64) { return r.passed.Load(), r.lost.Load() }

// ConnectRough is Connect by a rough cable.
func ConnectRough(t testing.TB, a, b *Machine, seed uint64, w Weather) (r *Rough, addrA, addrB string) {
	t.Helper()
	n := links.Add(1)
	r = &Rough{weather: w, dice: rand.New(rand.NewPCG(seed, uint64(n)))} //nolint:gosec // a test's weather can be repeated
	name := fmt.Sprintf("cable%d", n)
	addrA, addrB = addresses(t, n)
	var ends []*os.File
	for _, e := range []struct {
		m    *Machine
		addr string
	}{{a, addrA}, {b, addrB}} {
		f, err := e.m.tun(name)
		if err != nil {
			t.Fatalf("no TUN device can be made (/dev/net/tun and CAP_NET_ADMIN are needed): %v", err)
		}
		t.Cleanup(func() { _ = f.Close() })
		e.m.Run("ip", "addr", "add", e.addr+"/30", "dev", name)
		e.m.Run("ip", "link", "set", name, "up")
		ends = append(ends, f)
	}
	go r.carry(ends[0], ends[1])
	go r.carry(ends[1], ends[0])
	return r, addrA, addrB
}

// carry takes packets from one end to the other until an end is closed.
func (r *Rough) carry(from, to *os.File) {
	type packet struct {
		due time.Time
		b   []byte
	}
	way := make(chan packet, 4096)
	defer close(way)
	go func() {
		for p := range way {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.b); err == nil {
				r.passed.Add(1)
			}
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		r.mu.Lock()
		w, lost := r.weather, r.dice.IntN(100) < r.weather.Loss
		r.mu.Unlock()
		if lost {
			r.lost.Add(1)
			continue
		}
		select {
		case way <- packet{time.Now().Add(w.Delay), append([]byte(nil), b[:n]...)}:
		default:
			r.lost.Add(1) // as a full queue does
		}
	}
}

// tun makes a TUN device in the machine's network and returns its other end.
func (m *Machine) tun(name string) (f *os.File, err error) {
	err = m.InNetwork(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), "/dev/net/tun")
		return nil
	})
	return f, err
}

// InNetwork runs a function of the test in the machine's network: sockets that it
// opens are the machine's, also when it has returned.
func (m *Machine) InNetwork(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: the thread goes with the goroutine
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", m.pid))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return <-done
}

// Dial connects from the machine.
func (m *Machine) Dial(network, addr string) (c net.Conn, err error) {
	err = m.InNetwork(func() (err error) {
		c, err = net.DialTimeout(network, addr, 10*time.Second)
		return err
	})
	return c, err
}

// Listen listens in the machine.
func (m *Machine) Listen(network, addr string) (l net.Listener, err error) {
	err = m.InNetwork(func() (err error) {
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

// DropServer black-holes a TCP address ("192.0.2.6:8443", "127.0.0.1:8443"): packets
// to and from it vanish, nobody is refused, and open connections hang.
func (m *Machine) DropServer(addr string) {
	m.t.Helper()
	m.mu.Lock()
	m.dropped[addr] = true
	m.mu.Unlock()
	m.filter()
}

// RestoreServer undoes DropServer.
func (m *Machine) RestoreServer(addr string) {
	m.t.Helper()
	m.mu.Lock()
	delete(m.dropped, addr)
	m.mu.Unlock()
	m.filter()
}

func (m *Machine) filter() {
	m.t.Helper()
	rules := "table inet e2e\ndelete table inet e2e\ntable inet e2e {\n"
	m.mu.Lock()
	for _, hook := range []string{"output", "input"} {
		rules += "chain " + hook + " { type filter hook " + hook + " priority 0; policy accept;\n"
		for addr := range m.dropped {
			host, port, err := net.SplitHostPort(addr)
			ip := net.ParseIP(host)
			if err != nil || ip == nil {
				m.mu.Unlock()
				m.t.Fatalf("%q is not an IP address with a port", addr)
			}
			family := "ip6"
			if ip.To4() != nil {
				family = "ip"
			}
			rules += fmt.Sprintf("%[1]s daddr %[2]s tcp dport %[3]s drop\n%[1]s saddr %[2]s tcp sport %[3]s drop\n", family, ip, port)
		}
		rules += "}\n"
	}
	m.mu.Unlock()
	rules += "}\n"
	if out, err := m.TryInput(rules, "nft", "-f", "-"); err != nil {
		m.t.Fatalf("nft: %v %s\n%s", err, out, rules)
	}
}
