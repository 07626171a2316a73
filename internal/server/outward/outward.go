// Package outward makes the requests that leave for addresses that others have chosen, the
// endpoint of a phone's push service or the gateway for text messages. It promises that they
// do not lead this server into its own network, unless that was allowed: it says which
// addresses are the Internet's, and judges the one that is dialled, behind the look-up of
// the name. There is one client for all, and one proxy.
//
// Rows: S2, M6, M7.
package outward

import (
	"net/netip"
	"slices"
)

// inner are networks that are nobody's, or of one's own, beside those that package netip
// names (IANA special-purpose address registries; RFC 6890): shared by providers, for
// protocols, for measuring, for documents, the future's, those of IPv6 that hold an
// address of IPv4, and site-local ones.
var inner = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("5f00::/16"), netip.MustParsePrefix("fec0::/10"),
}

// Public tells whether an address is one of the Internet.
func Public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return a.IsValid() && a.IsGlobalUnicast() && !a.IsPrivate() && !In(inner, a)
}

// In tells whether an address lies in one of the networks.
func In(list []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
