package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/text"
)

// dialTime bounds how long a connection may take to come about.
const dialTime = 10 * time.Second

// trust makes the TLS settings for a server: its CA by fingerprint, or the system's
// certificates where there is none.
//
// With a fingerprint the name in the certificate is not compared: the CA is the server's
// own, and certifies nobody else as a server. The fingerprint says more than a name.
func trust(pin []byte, now func() time.Time) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if pin == nil {
		return c
	}
	c.InsecureSkipVerify = true // in favour of the following, which is stricter
	c.VerifyConnection = func(s tls.ConnectionState) error {
		ca := caOf(s.PeerCertificates, now())
		if ca == nil {
			return errNotCertified
		}
		if h := sha256.Sum256(ca.Raw); subtle.ConstantTimeCompare(h[:], pin) != 1 {
			return &foreignError{hex.EncodeToString(h[:])}
		}
		return nil
	}
	return c
}

var errNotCertified = errors.New("its certificate is not one of a Latchkey server's own CA")

// foreignError: the server is of another CA than the one that is pinned.
type foreignError struct{ print string }

func (e *foreignError) Error() string { return "its CA has another fingerprint: " + e.print }

// caOf is the CA that a server shows and that has certified it as a server; nil if
// there is none.
func caOf(chain []*x509.Certificate, now time.Time) *x509.Certificate {
	if len(chain) < 2 {
		return nil
	}
	ca := chain[len(chain)-1]
	if !ca.IsCA || ca.CheckSignatureFrom(ca) != nil {
		return nil
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca)
	for _, c := range chain[1 : len(chain)-1] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return nil
	}
	return ca
}

// look connects once, to see which CA the server shows. Nothing is sent.
func look(ctx context.Context, server string, now time.Time) (*x509.Certificate, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var ca *x509.Certificate
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, ServerName: u.Hostname(), VerifyConnection: func(s tls.ConnectionState) error {
		if ca = caOf(s.PeerCertificates, now); ca == nil {
			return errNotCertified
		}
		return nil
	}}}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	return ca, c.Close()
}

// learn finds out how the server is to be trusted: by the fingerprint that was given, by
// the one that is remembered, by the system's certificates, or by asking the person.
func (a *app) learn(ctx context.Context, server, given string, k *known) error {
	if given != "" {
		pin, err := parseFingerprint(given)
		if err != nil {
			return usagef("--ca-fingerprint: %s", err)
		}
		k.CA = hex.EncodeToString(pin)
		return nil
	}
	if k.CA != "" {
		return nil
	}
	probe := &http.Client{Timeout: dialTime, Transport: &http.Transport{TLSClientConfig: trust(nil, a.clock.Now)}, CheckRedirect: noRedirect}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/healthz", nil)
	if err != nil {
		return err
	}
	res, err := probe.Do(req)
	if err == nil {
		return res.Body.Close()
	}
	var unknown *tls.CertificateVerificationError
	if !errors.As(err, &unknown) {
		return (&client{name: server}).explainDial(err)
	}
	ca, err := look(ctx, server, a.clock.Now())
	if err != nil {
		return fmt.Errorf("the certificate of %s is not trusted by this system, and %w", server, err)
	}
	h := sha256.Sum256(ca.Raw)
	shown := hex.EncodeToString(h[:])
	if !a.terminal() {
		return fmt.Errorf("the certificate of %s is not trusted by this system; it shows a CA of its own. Compare its fingerprint with what the server prints at its start, and give it: --ca-fingerprint %s", server, shown)
	}
	fmt.Fprintf(a.err, "%s is not known yet. It shows a CA of its own:\n  SHA-256 %s\nThe server prints the same at its start (and `latchkey server status` on it). Is it the same? Type yes: ", text.Clean(server), shown)
	s, err := a.readLine()
	if err != nil || strings.TrimSpace(string(s.Reveal())) != "yes" {
		return errors.New("the server is not trusted; nothing was sent")
	}
	k.CA = shown
	return nil
}

func noRedirect(*http.Request, []*http.Request) error {
	return errors.New("the server answers with a redirection")
}

// overNetwork makes a client for a server that the profile knows.
func (a *app) overNetwork(server string, k *known) (*client, error) {
	var pin []byte
	if k.CA != "" {
		var err error
		if pin, err = parseFingerprint(k.CA); err != nil {
			return nil, err
		}
	}
	conf := trust(pin, a.clock.Now)
	if k.Certificate != "" {
		own, _, err := readCert(k.Certificate)
		if err != nil {
			return nil, fmt.Errorf("you have signed in with a certificate that can not be read: %w; sign in again (latchkey login)", err)
		}
		conf.Certificates = []tls.Certificate{own}
	}
	return &client{app: a, base: server, name: server, http: &http.Client{
		Timeout: answerTime, CheckRedirect: noRedirect,
		Transport: &http.Transport{
			TLSClientConfig: conf, TLSHandshakeTimeout: dialTime, ForceAttemptHTTP2: true,
			DialContext: (&net.Dialer{Timeout: dialTime}).DialContext,
		},
	}}, nil
}

// signedIn is overNetwork with what proves who asks: the token of --token-file, or the
// session of a login.
func (a *app) signedIn(server string) (*client, error) {
	at, err := parseServer(server)
	if err != nil {
		return nil, usagef("--server: %s, or unix:PATH (default %s)", err, defaultServer)
	}
	p, err := a.readProfile()
	if err != nil {
		return nil, err
	}
	k := p.Servers[at]
	if k == nil {
		k = &known{}
	}
	if a.caPrint != "" {
		pin, err := parseFingerprint(a.caPrint)
		if err != nil {
			return nil, usagef("--ca-fingerprint: %s", err)
		}
		k = &known{CA: hex.EncodeToString(pin), Session: k.Session, Name: k.Name, Certificate: k.Certificate}
	}
	c, err := a.overNetwork(at, k)
	if err != nil {
		return nil, err
	}
	switch {
	case a.tokenFile != "":
		if c.bearer, err = readTokenFile(a.tokenFile); err != nil {
			return nil, err
		}
	case k.Session == "":
		return nil, fmt.Errorf("you have not signed in at %s: latchkey login --server %s (or give an API token with --token-file)", at, at)
	default:
		c.bearer = secret.FromString(k.Session)
		c.renewed = func(s string) error {
			// Another run may have signed in elsewhere meanwhile.
			p, err := a.readProfile()
			if err != nil {
				return err
			}
			if k := p.Servers[at]; k != nil {
				k.Session = s
				return p.write()
			}
			return nil
		}
	}
	return c, nil
}

// again deals with what a server wants before it answers: a second factor given anew,
// or a pause. It tells whether to ask again.
func (c *client) again(ctx context.Context, res *http.Response, p error, tries int) bool {
	var problem *rest.Problem
	if !errors.As(p, &problem) || tries > 3 {
		return false
	}
	switch {
	case res.StatusCode == http.StatusTooManyRequests:
		wait, err := time.ParseDuration(res.Header.Get("Retry-After") + "s")
		if err != nil || wait <= 0 || wait > 10*time.Second || c.app == nil {
			return false
		}
		return c.app.clock.Sleep(ctx, wait) == nil
	case problem.Code == fault.StepUp && c.renewed != nil && c.app.terminal() && tries < 3:
		c.app.say("this needs your second factor again")
		if err := c.stepUp(ctx); err != nil {
			c.app.say("%s", err)
			return false
		}
		return true
	}
	return false
}

// explainDial says why the server can not be reached, and what to do.
func (c *client) explainDialNetwork(err error) error {
	var (
		foreign *foreignError
		cert    *tls.CertificateVerificationError
		dns     *net.DNSError
	)
	switch {
	case errors.As(err, &foreign):
		return fmt.Errorf("WARNING: %s is not the server that you know: %w. Somebody may stand in between. If the server was set up anew, compare the fingerprint there and sign in with --ca-fingerprint", c.name, foreign)
	case errors.Is(err, errNotCertified):
		return fmt.Errorf("%s: %w, as it was when you signed in. If it has another certificate now: latchkey logout --server %s, and sign in again", c.name, errNotCertified, c.name)
	case errors.As(err, &cert):
		return fmt.Errorf("the certificate of %s is not trusted: %w; sign in (latchkey login --server %s) to be asked about its CA, or give --ca-fingerprint", c.name, cert.Err, c.name)
	case errors.As(err, &dns):
		return fmt.Errorf("there is no host %s; is the name right?", text.CleanN(dns.Name, 100))
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens at %s; is the port right, and does latchkeyd run?", c.name)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer in time", c.name)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted")
	}
	return fmt.Errorf("%s can not be reached: %w", c.name, err)
}
