//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

var links atomic.Int64

// Connect lays a cable between two machines and returns their addresses on it.
func Connect(t testing.TB, a, b *Machine) (addrA, addrB string) {
	t.Helper()
	n := links.Add(1)
	if n > 60 {
		t.Fatal("out of addresses")
	}
	name := fmt.Sprintf("cable%d", n)
	// From outside: a process id of another machine means nothing inside.
	for _, c := range [][]string{
		{"ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", strconv.Itoa(b.pid)},
	} {
		if out, err := a.networkOnly(c...); err != nil {
			t.Fatalf("%s: %v %s", strings.Join(c, " "), err, out)
		}
	}
	addrA, addrB = fmt.Sprintf("192.0.2.%d", 4*n+1), fmt.Sprintf("192.0.2.%d", 4*n+2)
	a.Run("ip", "addr", "add", addrA+"/30", "dev", name)
	b.Run("ip", "addr", "add", addrB+"/30", "dev", name)
	a.Run("ip", "link", "set", name, "up")
	b.Run("ip", "link", "set", name, "up")
	return addrA, addrB
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
