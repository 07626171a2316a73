package source_test

import (
	"context"
	"net"
	"strings"
	"testing"

	"latchkey/internal/server/source"
)

// TestNobodyElseIsDialled: a server that sends its clients on does not choose whom we
// speak to.
func TestNobodyElseIsDialled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	names := func(_ context.Context, host string) ([]string, error) {
		return map[string][]string{"db.example.org": {"127.0.0.1", "::1"}}[host], nil
	}
	for _, c := range []struct {
		host, addr string
		ok         bool
	}{
		{"127.0.0.1", "127.0.0.1", true},
		{"localhost", "LOCALHOST", true},
		{"db.example.org", "127.0.0.1", true}, // looked up by the driver
		{"db.example.org", "127.0.0.2", false},
		{"db.example.org", "localhost", false}, // a name that was not named, whatever it leads to
		{"127.0.0.2", "127.0.0.1", false},
		{"", "127.0.0.1", false},
	} {
		conn, err := source.Only{Host: c.host, Resolve: names}.DialContext(t.Context(), "tcp", net.JoinHostPort(c.addr, port))
		if err == nil {
			_ = conn.Close()
		}
		if c.ok != (err == nil) || !c.ok && !strings.Contains(err.Error(), "which is not followed") {
			t.Errorf("%s named, %s dialled: %v", c.host, c.addr, err)
		}
	}
}
