package source

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"latchkey/internal/text"
)

// Only dials nobody but the host that an address names. Some kinds of databases send
// their clients on to another server; whoever controls one would choose whom this server
// speaks to in its own network.
type Only struct {
	Host string
	// Resolve gives the addresses of a name; nil: as the system does.
	Resolve func(ctx context.Context, host string) ([]string, error)
}

// HostName tells drivers to leave names to this dialer.
func (o Only) HostName() string { return o.Host }

// DialContext connects, or refuses.
func (o Only) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(strings.TrimSuffix(host, "."), strings.TrimSuffix(o.Host, ".")) {
		resolve := o.Resolve
		if resolve == nil {
			resolve = net.DefaultResolver.LookupHost
		}
		// A driver may have looked the name up by itself.
		named, err := resolve(ctx, o.Host)
		ip := net.ParseIP(host)
		if err != nil || ip == nil || !slices.ContainsFunc(named, func(s string) bool { return ip.Equal(net.ParseIP(s)) }) {
			return nil, fmt.Errorf("the server that the address names sends us on to %s, which is not followed: name that server in the address, if it is meant", text.CleanN(addr, 128))
		}
	}
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return d.DialContext(ctx, network, net.JoinHostPort(host, port))
}
