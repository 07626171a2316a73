package outward_test

import (
	"net/netip"
	"testing"

	"latchkey/internal/server/outward"
)

func TestWhatIsPrivate(t *testing.T) {
	for _, s := range []string{
		"127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "0.1.2.3", "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
		"::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fec0::1", "2001:db8::1",
		"192.88.99.1", "100::1", "2001:10::1", "3fff::1", "5f00::1", "::a00:1",
	} {
		if outward.Public(netip.MustParseAddr(s)) {
			t.Errorf("%s counts as public", s)
		}
	}
	for _, s := range []string{"1.1.1.1", "9.9.9.9", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"} {
		if !outward.Public(netip.MustParseAddr(s)) {
			t.Errorf("%s counts as private", s)
		}
	}
}
