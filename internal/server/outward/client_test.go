package outward_test

import (
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"latchkey/internal/server/outward"
)

// tunnel is a proxy that leads every CONNECT to one place, and notes what was asked for.
type tunnel struct {
	*httptest.Server
	mu    sync.Mutex
	asked []string
}

func newTunnel(t *testing.T, to string) *tunnel {
	p := &tunnel{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r.Method+" "+r.Host)
		p.mu.Unlock()
		if r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		there, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(there, here) }()
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *tunnel) taken() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.asked = nil }()
	return p.asked
}

func place(t *testing.T) (*httptest.Server, *x509.CertPool) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "/", http.StatusFound)
		}
	}))
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s, pool
}

// ask is the status, or 0 with what is wrong.
func ask(t *testing.T, r outward.Rules, at string) (int, error) {
	t.Helper()
	c := r.Client()
	defer c.CloseIdleConnections()
	res, err := c.Post(at, "text/plain", strings.NewReader("x"))
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

func TestWhereRequestsGo(t *testing.T) {
	s, pool := place(t)
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	port := s.URL[strings.LastIndexByte(s.URL, ':'):]
	for name, c := range map[string]struct {
		rules  outward.Rules
		at     string
		status int
	}{
		"to nowhere but the Internet":         {outward.Rules{Roots: pool}, s.URL, 0},
		"nor by a name":                       {outward.Rules{Roots: pool}, "https://localhost" + port, 0},
		"to a network that is listed":         {outward.Rules{Roots: pool, Private: loopback}, s.URL, 200},
		"at any port there":                   {outward.Rules{Roots: pool, Private: loopback, OnlyHTTPS: true}, s.URL, 200},
		"not to another":                      {outward.Rules{Roots: pool, Private: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, s.URL, 0},
		"and where they are sent on, nowhere": {outward.Rules{Roots: pool, Private: loopback}, s.URL + "/away", 302},
	} {
		status, err := ask(t, c.rules, c.at)
		if status != c.status || (err != nil) != (c.status == 0) || err != nil && !errors.Is(err, outward.ErrPrivate) {
			t.Errorf("%s: %d %v", name, status, err)
		}
	}
	if err := (outward.Rules{OnlyHTTPS: true}).Allowed(netip.MustParseAddrPort("9.9.9.9:8443")); err == nil {
		t.Error("another port of the Internet is allowed")
	}
}

func TestAProxyIsForTheInternetAlone(t *testing.T) {
	s, pool := place(t)
	p := newTunnel(t, s.Listener.Addr().String())
	// What the environment says is nothing here.
	t.Setenv("HTTPS_PROXY", "http://192.0.2.1:1")
	proxy, err := outward.Proxy(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	rules := outward.Rules{Roots: pool, Proxy: proxy}
	own := rules
	own.Private = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	https := rules
	https.OnlyHTTPS = true
	for name, c := range map[string]struct {
		rules  outward.Rules
		at     string
		status int
		asked  []string
	}{
		"a name goes through it, unread":           {rules, "https://example.com/x", 200, []string{"CONNECT example.com:443"}},
		"a number that is nobody's does not":       {rules, s.URL, 0, nil},
		"one of one's own network is met straight": {own, s.URL, 200, nil},
		"plain HTTP does not go there to be read":  {rules, strings.Replace(s.URL, "https", "http", 1), 0, nil},
		"nor does the proxy's own address help it": {rules, p.URL, 0, nil},
		"nor its name":                    {rules, strings.Replace(p.URL, "127.0.0.1", "localhost", 1), 0, nil},
		"nor HTTPS to it":                 {rules, strings.Replace(p.URL, "http", "https", 1), 0, nil},
		"so does another port":            {rules, "https://example.com:8200/x", 200, []string{"CONNECT example.com:8200"}},
		"unless HTTPS's alone is allowed": {https, "https://example.com:8200/x", 0, nil},
		"which may be written":            {https, "https://Example.COM.:443/x", 200, []string{"CONNECT Example.COM.:443"}},
	} {
		status, err := ask(t, c.rules, c.at)
		if asked := p.taken(); status != c.status || (err != nil) != (c.status == 0) || err != nil && !errors.Is(err, outward.ErrPrivate) || !slices.Equal(asked, c.asked) {
			t.Errorf("%s: %d %v, the proxy was asked %q", name, status, err, asked)
		}
	}
}

// A proxy looks names up itself, in a network that is not judged here: it gets no name
// that is one's own network's, and nothing that some program reads as a number.
func TestAProxyGetsNoDisguisedAddress(t *testing.T) {
	s, pool := place(t)
	p := newTunnel(t, s.Listener.Addr().String())
	proxy, err := outward.Proxy(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	rules := outward.Rules{Roots: pool, Proxy: proxy, Private: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, host := range []string{
		"127.1", "127.1.", "2130706433", "0x7f000001", "0X7F.1", "0177.0.0.1", "1.0x7f", "127.0.0.1.", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "a..b", "x.1", "a,b.example",
		"localhost", "LOCALHOST", "localhost.", "x.localhost", "printer", "vault.internal", "Vault.Internal.", "nas.local", "nas.home.arpa",
		"[::1]", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]", "[2606:4700::1111%25eth0]", "169.254.169.254",
	} {
		status, err := ask(t, rules, "https://"+host+":8200/x")
		if asked := p.taken(); status != 0 || len(asked) > 0 || !errors.Is(err, outward.ErrPrivate) {
			t.Errorf("%s: %d %v, the proxy was asked %q", host, status, err, asked)
		}
	}
	// An address of the Internet is what it is. The certificate is another's.
	if _, err := ask(t, rules, "https://9.9.9.9:8200/x"); err == nil || errors.Is(err, outward.ErrPrivate) || !slices.Equal(p.taken(), []string{"CONNECT 9.9.9.9:8200"}) {
		t.Errorf("an address of the Internet: %v", err)
	}
}

func FuzzOutside(f *testing.F) {
	for _, s := range []string{"example.com", "127.1", "0x7f.1", "::1", "9.9.9.9", "vault.internal", "a..b", "xn--a.example"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if outward.Outside(host) != nil {
			return
		}
		if a, err := netip.ParseAddr(host); err == nil {
			if !outward.Public(a) {
				t.Fatalf("%q is handed over", host)
			}
			return
		}
		last := host[strings.LastIndexByte(host, '.')+1:]
		if !strings.Contains(host, ".") || strings.Trim(last, "0123456789") == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || r == '%' || r == '/' || r == ':' || r == '@' }) {
			t.Fatalf("%q is handed over", host)
		}
	})
}

func TestWhatIsReadOfSettings(t *testing.T) {
	for s, good := range map[string]bool{
		"http://proxy.example.org:3128": true, "https://proxy.example.org": true, "http://10.1.2.3:8080/": true, "proxy:3128": false, "socks5://proxy:1080": false,
		"http://": false, "http://u:p@proxy:3128": false, "http://proxy/x": false, "": false,
	} {
		if _, err := outward.Proxy(s); (err == nil) != good {
			t.Errorf("proxy %q: %v", s, err)
		}
	}
	got, err := outward.Networks([]string{"10.1.2.3", "10.1.2.3/8", "fd00::1/64"})
	if want := []netip.Prefix{netip.MustParsePrefix("10.1.2.3/32"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/64")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("networks %v, %v", got, err)
	}
	for _, bad := range [][]string{{"x"}, {""}, {"10.0.0.0/33"}, {"fe80::1%eth0"}, make([]string, 17)} {
		if _, err := outward.Networks(bad); err == nil {
			t.Errorf("networks %q were read", bad)
		}
	}
}
