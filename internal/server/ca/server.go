package ca

import (
	"crypto/tls"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// ServerCertificate is a tls.Config's GetCertificate: it shows a certificate with
// these names and makes a new one, with a new key, when half of its life is over.
// Nothing of it is kept on disk.
func (a *Authority) ServerCertificate(names []string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var mu sync.Mutex
	var now *tls.Certificate
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if now != nil {
			leaf := now.Leaf
			half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
			at := a.clock.Now()
			if at.Before(half) && at.After(leaf.NotBefore) {
				return now, nil
			}
		}
		c, err := a.Server(names)
		if err != nil {
			return nil, err
		}
		now = c
		return c, nil
	}
}

// ServerNames lists under which names a server can be reached that listens on the
// address: the configured ones, the host's name, the address itself, or all of the
// host's addresses where it listens on all. addrs are the host's addresses, as
// net.InterfaceAddrs gives them.
func ServerNames(listen, hostname string, addrs []net.Addr, configured []string) []string {
	names := slices.Clone(configured)
	add := func(n string) {
		// A host may be called anything; a certificate takes only ASCII.
		printable := !strings.ContainsFunc(n, func(r rune) bool { return r <= ' ' || r > '~' })
		if n = strings.TrimSuffix(n, "."); n != "" && len(n) <= 253 && printable && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	add(hostname)
	host, _, err := net.SplitHostPort(listen)
	ip, isIP := netip.ParseAddr(host)
	switch {
	case err == nil && isIP == nil && !ip.IsUnspecified():
		add(ip.WithZone("").String())
		if ip.IsLoopback() {
			add("localhost")
		}
	case err == nil && isIP != nil && host != "":
		add(host)
	default:
		add("localhost")
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
				add(n.IP.String())
			}
		}
	}
	return names
}
