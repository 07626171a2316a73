package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"latchkey/internal/clock"
)

const (
	maxCertFile = 1 << 20
	// certLook is how often the files of an own certificate are looked at, expiryWarn
	// from when on before its end the log speaks of it, once a day.
	certLook   = 30 * time.Second
	expiryWarn = 14 * 24 * time.Hour
)

// ownCert is a certificate of one's own at the people's door: from a public CA, or one
// that the browsers of the house know. It is read anew when its files change. What
// can not be used then is said in the log, and the one before goes on being shown: a
// renewal that is half written must not shut the door.
type ownCert struct {
	certFile, keyFile string
	names             []string // by which people reach the server; the first is printed
	clock             clock.Clock
	log               *slog.Logger

	now atomic.Pointer[tls.Certificate]

	// Of the one who looks; nobody else reads them.
	seen   [2]stamp
	failed *[2]stamp // the state that was complained about; nil: none
	warned time.Time // of the end
}

// stamp tells one state of a file from another.
type stamp struct {
	size     int64
	modified time.Time
	info     os.FileInfo
}

func (s stamp) same(t stamp) bool {
	return s.size == t.size && s.modified.Equal(t.modified) && (s.info == nil) == (t.info == nil) && (s.info == nil || os.SameFile(s.info, t.info))
}

func stampOf(path string) (s stamp) {
	if info, err := os.Stat(path); err == nil {
		s = stamp{info.Size(), info.ModTime(), info}
	}
	return s
}

func (c *ownCert) stamps() [2]stamp { return [2]stamp{stampOf(c.certFile), stampOf(c.keyFile)} }

// open reads both files for the first time.
func (c *ownCert) open() error {
	at := c.stamps()
	pair, err := c.read()
	if err != nil {
		return err
	}
	c.seen = at
	c.now.Store(pair)
	c.warn(pair.Leaf)
	for _, n := range c.names {
		if pair.Leaf.VerifyHostname(n) == nil {
			return nil
		}
	}
	c.log.Warn("the certificate for people names no name of this server: browsers will warn whoever opens one of these", "file", c.certFile, "names", c.names,
		"certificate_names", namesOf(pair.Leaf))
	return nil
}

// get is a tls.Config's GetCertificate.
func (c *ownCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.now.Load(), nil }

// look reads the files anew if they have changed, or if asked to.
func (c *ownCert) look(anyway bool) {
	defer func() { c.warn(c.now.Load().Leaf) }()
	at := c.stamps()
	same := func(a, b [2]stamp) bool { return a[0].same(b[0]) && a[1].same(b[1]) }
	if same(at, c.seen) && !anyway {
		return
	}
	pair, err := c.read()
	if err != nil {
		if anyway || c.failed == nil || !same(at, *c.failed) {
			c.log.Error("the new certificate for people can not be used; the one before goes on being shown", "error", err)
		}
		c.failed = &at
		return
	}
	c.seen, c.failed = at, nil
	old := c.now.Swap(pair)
	if !old.Leaf.Equal(pair.Leaf) {
		c.warned = time.Time{}
		c.log.Info("a new certificate for people is shown", "file", c.certFile, "names", namesOf(pair.Leaf), "until", pair.Leaf.NotAfter.UTC())
	}
}

// warn says once a day that the certificate ends soon, or has ended.
func (c *ownCert) warn(leaf *x509.Certificate) {
	now := c.clock.Now()
	if leaf.NotAfter.Sub(now) > expiryWarn || now.Sub(c.warned) < 24*time.Hour {
		return
	}
	c.warned = now
	if now.After(leaf.NotAfter) {
		c.log.Error("the certificate for people has expired: browsers refuse it; put a new one in its place", "file", c.certFile, "since", leaf.NotAfter.UTC())
		return
	}
	c.log.Warn("the certificate for people ends soon; put a new one in its place", "file", c.certFile, "until", leaf.NotAfter.UTC())
}

func namesOf(c *x509.Certificate) []string {
	out := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		out = append(out, ip.String())
	}
	return out
}

// read reads and judges both files.
func (c *ownCert) read() (*tls.Certificate, error) {
	certPEM, err := readPEM("--tls-cert", c.certFile, false)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readPEM("--tls-key", c.keyFile, true)
	if err != nil {
		return nil, err
	}
	defer clear(keyPEM)
	return judgePair(c.certFile, certPEM, c.keyFile, keyPEM, c.clock.Now())
}

// judgePair says of a certificate with its chain and its key whether browsers can take it
// for this server's.
func judgePair(certFile string, certPEM []byte, keyFile string, keyPEM []byte, now time.Time) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert %s and --tls-key %s: %w; allowed are PEM files: the certificate with the ones between it and its CA behind it, and its key, not encrypted", certFile, keyFile, err)
	}
	bad := func(format string, args ...any) (*tls.Certificate, error) {
		return nil, fmt.Errorf("--tls-cert %s: %s", certFile, fmt.Sprintf(format, args...))
	}
	leaf := pair.Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return bad("%s", err)
		}
		pair.Leaf = leaf
	}
	switch {
	case now.After(leaf.NotAfter):
		return bad("it has expired on %s", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return bad("it is not good before %s; is the clock of this host right?", leaf.NotBefore.UTC().Format(time.RFC3339))
	case len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		return bad("it names no host (subjectAltName), so that no browser takes it")
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return bad("it is not for servers (extendedKeyUsage)")
	}
	above := leaf
	for i, der := range pair.Certificate[1:] {
		next, err := x509.ParseCertificate(der)
		if err != nil {
			return bad("certificate %d in it: %s", i+2, err)
		}
		if err := above.CheckSignatureFrom(next); err != nil {
			return bad("certificate %d in it has not signed the one before it; first comes the server's own, then each one's issuer", i+2)
		}
		above = next
	}
	return &pair, nil
}

// readPEM reads a file of settings; a secret one must not be open to others. Its
// group may read it: certificates are often root's, and the server is not root.
func readPEM(flag, path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %s is no file", flag, path)
	}
	if mode := info.Mode().Perm(); secret && mode&0o027 != 0 {
		return nil, fmt.Errorf("%s: others may read or change %s (mode %04o); allowed are 0600, and 0640 with the server's group; run: chmod o=,g-w %s", flag, path, mode, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCertFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	if len(b) > maxCertFile {
		return nil, errors.New(flag + ": " + path + " is larger than a certificate can be (1 MB)")
	}
	return b, nil
}
