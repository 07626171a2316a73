package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func open(t *testing.T) (*ca.Authority, *clock.Manual) {
	t.Helper()
	c := clock.NewManual(start)
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c})
	k, _, err := keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: s, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	a, made, err := ca.Open(t.Context(), ca.Config{Store: s, Keys: k, Clock: c})
	if err != nil || !made {
		t.Fatal(made, err)
	}
	b, made, err := ca.Open(t.Context(), ca.Config{Store: s, Keys: k, Clock: c})
	if err != nil || made || a.Fingerprint() != b.Fingerprint() {
		t.Fatal("the CA is another after a restart", made, err)
	}
	return a, c
}

func csr(t *testing.T, key crypto.Signer, alter func(*x509.CertificateRequest)) []byte {
	t.Helper()
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "anything"}}
	if alter != nil {
		alter(r)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func p256(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestAMachinesCertificate(t *testing.T) {
	a, now := open(t)
	key := p256(t)
	// Nothing that the request asks for gets into the certificate.
	cert, err := a.SignMachine(csr(t, key, func(r *x509.CertificateRequest) {
		r.DNSNames = []string{"server.example.org"}
		r.URIs = []*url.URL{{Scheme: "latchkey", Opaque: "machine/other"}}
	}), "m1")
	if err != nil {
		t.Fatal(err)
	}
	if cert.IsCA || len(cert.DNSNames) != 0 || len(cert.URIs) != 1 || cert.URIs[0].String() != "latchkey:machine/m1" || cert.Subject.CommonName != "m1" ||
		!slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || !key.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("%+v", cert)
	}
	if got := cert.NotAfter.Sub(start); got != 90*24*time.Hour {
		t.Errorf("it lasts %v", got)
	}
	if got := ca.RenewAfter(cert).Sub(start); got < 59*24*time.Hour || got > 61*24*time.Hour {
		t.Errorf("it is to be renewed after %v", got)
	}
	id, expired, err := a.Recognise(cert)
	if id != "m1" || expired || err != nil {
		t.Error(id, expired, err)
	}
	now.Advance(200 * 24 * time.Hour)
	if id, expired, err = a.Recognise(cert); id != "m1" || !expired || err != nil {
		t.Error("after its end:", id, expired, err)
	}
	now.Advance(-400 * 24 * time.Hour)
	// A clock that was put back makes no strangers of machines (docs/design/0038).
	if id, expired, err = a.Recognise(cert); id != "m1" || expired || err != nil {
		t.Error("before its begin:", id, expired, err)
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	a, _ := open(t)
	good := csr(t, p256(t), nil)
	broken := bytes.Clone(good)
	broken[len(broken)-1] ^= 1
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"nothing":           nil,
		"garbage":           []byte("garbage"),
		"too long":          make([]byte, 9<<10),
		"broken signature":  broken,
		"a key on P-384":    csr(t, p384, nil),
		"an RSA key":        csr(t, rsaKey, nil),
		"an Ed25519 key":    csr(t, ed, nil),
		"something behind":  append(bytes.Clone(good), 0),
		"half of a request": good[:len(good)/2],
	} {
		if _, err := a.SignMachine(der, "m1"); !errors.Is(err, ca.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range []string{"", "a/../b" + string(make([]byte, 80))} {
		if c, err := a.SignMachine(good, id); err == nil {
			if got, _, err := a.Recognise(c); err == nil && got != id {
				t.Errorf("a certificate for %q says %q", id, got)
			}
		}
	}
}

func TestCertificatesThatAreNotMachines(t *testing.T) {
	a, _ := open(t)
	b, _ := open(t)
	theirs, err := b.SignMachine(csr(t, p256(t), nil), "m1")
	if err != nil {
		t.Fatal(err)
	}
	server, err := a.Server([]string{"latchkey.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	own, err := x509.ParseCertificate(a.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*x509.Certificate{"another CA's": theirs, "the server's own": server.Leaf, "the CA's own": own} {
		if _, _, err := a.Recognise(c); !errors.Is(err, ca.ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type leave func(*x509.Certificate)

func (l leave) Modify(t *x509.Certificate) error { l(t); return nil }

func TestEnforcersStopWhatModifiersGotWrong(t *testing.T) {
	a, _ := open(t)
	for name, wrong := range map[string]leave{
		"a CA":          func(c *x509.Certificate) { c.IsCA = true },
		"signs others":  func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		"two machines":  func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) },
		"a server too":  func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) },
		"for two years": func(c *x509.Certificate) { c.NotAfter = c.NotAfter.AddDate(2, 0, 0) },
		"another name":  func(c *x509.Certificate) { c.Subject.CommonName = "m2" },
	} {
		m := ca.Machine("m1")
		_, err := a.Sign(csr(t, p256(t), nil), ca.Profile{
			Modifiers: []ca.Modifier{ca.For(ca.MachineLife), ca.Client{}, m, wrong},
			Enforcers: []ca.Enforcer{m},
		})
		if err == nil {
			t.Errorf("%s: it was issued", name)
		}
	}
}

func TestTheServersCertificateIsRenewedByItself(t *testing.T) {
	a, now := open(t)
	get := a.ServerCertificate([]string{"latchkey.example.org", "192.0.2.1"})
	first, err := get(nil)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	own, _ := x509.ParseCertificate(a.Certificate())
	roots.AddCert(own)
	for _, name := range []string{"latchkey.example.org", "192.0.2.1"} {
		if _, err := first.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: start}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	same := func(c *tls.Certificate) bool { return bytes.Equal(c.Leaf.Raw, first.Leaf.Raw) }
	now.Advance(3 * 24 * time.Hour)
	if c, err := get(nil); err != nil || !same(c) {
		t.Error("it was renewed too early", err)
	}
	now.Advance(24 * time.Hour)
	c, err := get(nil)
	if err != nil || same(c) || c.Leaf.NotAfter.Before(now.Now().Add(6*24*time.Hour)) {
		t.Error("it was not renewed", err)
	}
}

func TestServerNames(t *testing.T) {
	addrs := []net.Addr{
		&net.IPNet{IP: net.ParseIP("127.0.0.1"), Mask: net.CIDRMask(8, 32)},
		&net.IPNet{IP: net.ParseIP("192.0.2.7"), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.ParseIP("fe80::1"), Mask: net.CIDRMask(64, 128)},
	}
	for listen, want := range map[string][]string{
		":8444":            {"x.example", "host", "localhost", "127.0.0.1", "192.0.2.7"},
		"0.0.0.0:8444":     {"x.example", "host", "localhost", "127.0.0.1", "192.0.2.7"},
		"127.0.0.1:0":      {"x.example", "host", "127.0.0.1", "localhost"},
		"192.0.2.7:8444":   {"x.example", "host", "192.0.2.7"},
		"door.example:444": {"x.example", "host", "door.example"},
	} {
		if got := ca.ServerNames(listen, "host.", addrs, []string{"x.example"}); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", listen, got, want)
		}
	}
}
