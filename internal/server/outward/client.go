package outward

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Rules say where requests may go, and how. The zero value reaches the Internet's
// addresses, straight, with the system's authorities.
type Rules struct {
	// Private are networks that may be reached although they are not the Internet's.
	Private []netip.Prefix
	// OnlyHTTPS: at the Internet's addresses the port of HTTPS alone. In a network of one's
	// own any port may be meant.
	OnlyHTTPS bool
	// Proxy is where requests go through; nil: straight. Only HTTPS goes there, which it can
	// not read. What it reaches is its own business: then the host is judged as it is
	// written (Outside), and one that is a number within Private is reached straight.
	Proxy *url.URL
	// Roots are the authorities that are trusted; nil: the system's.
	Roots *x509.CertPool
	// Timeout bounds each part of a request, and the whole; 0: its context alone does.
	Timeout time.Duration
	// Conns is how many connections to one host there are at most, and are kept; 0: one for
	// each request, which ends with it.
	Conns int
}

// ErrPrivate says that an address is neither the Internet's nor one of Private, or that its
// port is not allowed there.
var ErrPrivate = errors.New("the address is not public")

const (
	portHTTPS   = 443
	maxHeaders  = 64 << 10
	schemeHTTPS = "https"
)

// Allowed judges an address that is about to be dialled.
func (r Rules) Allowed(at netip.AddrPort) error {
	if In(r.Private, at.Addr()) || Public(at.Addr()) && (!r.OnlyHTTPS || at.Port() == portHTTPS) {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrPrivate, at.Addr().Unmap().WithZone(""))
}

// Client makes requests by the rules. It follows no redirect: where somebody else sends it
// is nothing that was judged. Environment variables about proxies are not read.
func (r Rules) Client() *http.Client {
	judged := &net.Dialer{Timeout: r.Timeout, Control: func(_, address string, _ syscall.RawConn) error {
		// The name was looked up by now: this is the address itself, so that no other
		// answer of the name service comes in between.
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return ErrPrivate
		}
		return r.Allowed(at)
	}}
	straight := &http.Transport{
		DialContext: judged.DialContext, TLSHandshakeTimeout: r.Timeout, ResponseHeaderTimeout: r.Timeout, MaxResponseHeaderBytes: maxHeaders,
		TLSClientConfig:   &tls.Config{RootCAs: r.Roots, MinVersion: tls.VersionTLS12},
		DisableKeepAlives: r.Conns == 0, MaxConnsPerHost: r.Conns, MaxIdleConnsPerHost: r.Conns, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
	}
	c := &http.Client{
		Transport: straight, Timeout: r.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if r.Proxy != nil {
		through := straight.Clone()
		through.Proxy = http.ProxyURL(r.Proxy)
		through.DialContext = (&net.Dialer{Timeout: r.Timeout}).DialContext
		c.Transport = &ways{rules: r, straight: straight, through: through}
	}
	return c
}

// ways sends what is outside through the proxy and the rest straight. They are two
// transports: the one dials nothing but the proxy, the other nothing that is not judged,
// also where a request names the proxy as the place that it wants to go to.
type ways struct {
	rules             Rules
	straight, through *http.Transport
}

func (w *ways) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != schemeHTTPS || w.rules.own(req.URL) {
		return w.straight.RoundTrip(req)
	}
	if err := w.rules.handed(req.URL); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	return w.through.RoundTrip(req)
}

// CloseIdleConnections is what the client's calls.
func (w *ways) CloseIdleConnections() {
	w.straight.CloseIdleConnections()
	w.through.CloseIdleConnections()
}

// handed judges a host and its port before they are handed to the proxy.
func (r Rules) handed(u *url.URL) error {
	if err := Outside(Host(u)); err != nil {
		return err
	}
	if p := u.Port(); r.OnlyHTTPS && p != "" && p != strconv.Itoa(portHTTPS) {
		return fmt.Errorf("%w: port %s is not that of HTTPS", ErrPrivate, p)
	}
	return nil
}

// own tells whether the host is an address of a network of one's own.
func (r Rules) own(u *url.URL) bool {
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && In(r.Private, a)
}

// maxNetworks bounds a list of networks.
const maxNetworks = 16

// Networks reads networks, and addresses as networks of one.
func Networks(list []string) ([]netip.Prefix, error) {
	if len(list) > maxNetworks {
		return nil, fmt.Errorf("%d are too many; allowed are %d", len(list), maxNetworks)
	}
	out := make([]netip.Prefix, 0, len(list))
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, err := netip.ParseAddr(s)
			if err != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%.64q is no network; allowed are such as 10.1.2.0/24", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// Proxy reads the address of a proxy: http://HOST:PORT or https://HOST:PORT.
func Proxy(s string) (*url.URL, error) {
	const allowed = "allowed is http://HOST:PORT, for example http://proxy.example.org:3128"
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > 256:
		return nil, fmt.Errorf("it is no URL; %s", allowed)
	case u.Scheme != "http" && u.Scheme != schemeHTTPS:
		return nil, fmt.Errorf("it does not begin with http://; %s", allowed)
	case u.Hostname() == "" || strings.TrimSuffix(s, "/") != u.Scheme+"://"+u.Host:
		return nil, fmt.Errorf("it says more or less than host and port; %s", allowed)
	}
	u.Path = ""
	return u, nil
}
