package rest

import (
	"net/netip"
	"net/url"
	"strings"
)

// PlaceRemark says what does not work under an address for people, https://HOST[:PORT] with
// whatever behind it: one of this computer alone, an IP address, a name of one network.
// Passkeys and phones are bound to it, so that it is better said before any is enrolled. It
// is empty where there is nothing to say.
func PlaceRemark(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Unmap().IsLoopback(), host == "localhost", strings.HasSuffix(host, ".localhost"):
		return u.Host + " is this computer alone: no phone and no other computer reaches it."
	case err == nil && ip.IsUnspecified():
		return u.Host + " is the address of nobody: no phone and no computer reaches it."
	case err == nil && ip.Unmap().IsLinkLocalUnicast():
		return u.Host + " counts on one cable or in one radio network alone: no phone elsewhere reaches it."
	case err == nil:
		return u.Host + " is an IP address: passkeys need a name, and phones that were enrolled under another address are enrolled anew."
	case !strings.Contains(host, "."):
		return u.Host + " is a name without a domain: phones and computers of other networks do not know it."
	case strings.HasSuffix(host, ".local"):
		return u.Host + " is a name of one network alone: phones and computers of other networks do not know it."
	}
	return ""
}

// SetPlace is how the address for people is set, at the command line.
const SetPlace = "latchkey server set --people-url https://NAME"
