package outward

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Host is the host of a URL as names are compared: in small letters, without the dot of
// the root.
func Host(u *url.URL) string { return strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) }

// PlainName tells whether a host is a name as it stands, and nothing that somebody else,
// such as a proxy, reads as an address: other letters become digits there, and a last
// label of digits, or of 0x, makes all of it a number (WHATWG URL, "ends in a number").
func PlainName(host string) bool {
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	last := labels[len(labels)-1]
	return strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(last, "0x")
}

// innerNames are the ends of names that are never the Internet's (RFC 6761, RFC 6762,
// RFC 8375, and ICANN's word about .internal).
var innerNames = []string{".localhost", ".local", ".internal", ".home.arpa"}

// InnerName tells whether a name is one of a private network by itself: a single label, or
// one below an end that is kept for such.
func InnerName(host string) bool {
	return !strings.Contains(host, ".") || slices.ContainsFunc(innerNames, func(end string) bool { return strings.HasSuffix("."+host, end) })
}

// Outside judges a host, as far as that is seen without asking anybody: an address is one
// of the Internet's, a name is a plain one and none of a private network. Behind a proxy,
// which looks names up itself, nothing else is judged.
func Outside(host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" || !Public(a) {
			return fmt.Errorf("%w: %s", ErrPrivate, a)
		}
		return nil
	}
	switch {
	case !PlainName(host):
		return fmt.Errorf("%w: %s is neither a name nor an address as they are written", ErrPrivate, strconv.QuoteToASCII(host))
	case InnerName(host):
		return fmt.Errorf("%w: %s is a name of a private network", ErrPrivate, host)
	}
	return nil
}
