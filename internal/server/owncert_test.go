package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/server"
)

// authority is somebody else's CA.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func signed(t *testing.T, c *x509.Certificate, by *authority, key crypto.Signer) *x509.Certificate {
	t.Helper()
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t *testing.T, by *authority) *authority {
	t.Helper()
	k := newKey(t)
	return &authority{signed(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "House CA"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, by, k), k}
}

// files are what a server is told to show.
type files struct{ cert, key string }

func (a *authority) issue(t *testing.T, dir string, alter func(c *x509.Certificate), above ...*x509.Certificate) (files, *x509.Certificate) {
	t.Helper()
	k := newKey(t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		DNSNames: []string{"login.example.org"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if alter != nil {
		alter(c)
	}
	leaf := signed(t, c, a, k)
	var chain bytes.Buffer
	for _, c := range append([]*x509.Certificate{leaf}, above...) {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	f := files{filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")}
	put(t, f.cert, chain.Bytes(), 0o644)
	put(t, f.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	return f, leaf
}

// put replaces a file as a renewal does.
func put(t *testing.T, path string, b []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// shown is the certificate that a door shows.
func shown(t *testing.T, addr string) []*x509.Certificate {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates
}

func TestACertificateOfOnesOwnForPeople(t *testing.T) {
	root := newAuthority(t, nil)
	between := newAuthority(t, root)
	dir := t.TempDir()
	f, first := between.issue(t, dir, nil, between.cert)
	c := conf(folder(t))
	reload := make(chan struct{})
	c.TLSCert, c.TLSKey, c.Reload, c.Names = f.cert, f.key, reload, []string{"login.example.org"}
	s := start(t, c)
	if !strings.Contains(s.out.String(), "Certificate for people: login.example.org") {
		t.Errorf("it does not say what it shows:\n%s", s.out)
	}
	// A browser that knows the CA of the house is content, by name and by address.
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	for _, name := range []string{"login.example.org", "127.0.0.1"} {
		browser := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: name}}}
		if status, body := get(t, browser, "https://"+s.addrs.Listen+"/healthz"); status != 200 || body != "ok\n" {
			t.Errorf("%s: %d %q", name, status, body)
		}
	}
	// Machines pin Latchkey's own CA, as ever.
	machines := shown(t, s.addrs.ListenAgent)
	own := sha256.Sum256(machines[len(machines)-1].Raw)
	if hex.EncodeToString(own[:]) != s.addrs.CA {
		t.Error("the machines' door does not show Latchkey's own CA")
	}

	tell := func() {
		t.Helper()
		// The second is taken when the first is done.
		for range 2 {
			select {
			case reload <- struct{}{}:
			case <-time.After(10 * time.Second):
				t.Fatal("nobody reads it anew")
			}
		}
	}
	// A renewal that is half done: the key is new, the certificate is not. The door
	// goes on, and the log says why.
	old, err := os.ReadFile(f.cert)
	if err != nil {
		t.Fatal(err)
	}
	_, second := between.issue(t, dir, nil, between.cert)
	whole, err := os.ReadFile(f.cert)
	if err != nil {
		t.Fatal(err)
	}
	put(t, f.cert, old, 0o644)
	tell()
	if got := shown(t, s.addrs.Listen)[0]; !got.Equal(first) {
		t.Error("a half renewal changes what is shown")
	}
	if !strings.Contains(s.log.String(), "goes on being shown") {
		t.Error("the log says nothing of a renewal that can not be used")
	}
	put(t, f.cert, whole, 0o644)
	tell()
	if got := shown(t, s.addrs.Listen)[0]; !got.Equal(second) {
		t.Error("the renewed certificate is not shown")
	}
	// An expired one does not take the place of a good one.
	between.issue(t, dir, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	tell()
	if got := shown(t, s.addrs.Listen)[0]; !got.Equal(second) {
		t.Error("an expired certificate is shown")
	}
}

func TestCertificatesThatAreRefusedAtTheStart(t *testing.T) {
	house := newAuthority(t, nil)
	for name, x := range map[string]struct {
		make func(dir string) files
		says string
	}{
		"a key of another": {func(dir string) files {
			f, _ := house.issue(t, dir, nil)
			other, _ := house.issue(t, t.TempDir(), nil)
			return files{f.cert, other.key}
		}, "does not match"},
		"an expired one": {func(dir string) files {
			f, _ := house.issue(t, dir, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
			return f
		}, "it has expired on"},
		"one of tomorrow": {func(dir string) files {
			f, _ := house.issue(t, dir, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
			return f
		}, "it is not good before"},
		"one without a name": {func(dir string) files {
			f, _ := house.issue(t, dir, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil })
			return f
		}, "it names no host"},
		"a client's": {func(dir string) files {
			f, _ := house.issue(t, dir, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
			return f
		}, "it is not for servers"},
		"a chain of somebody else": {func(dir string) files {
			f, _ := house.issue(t, dir, nil, newAuthority(t, nil).cert)
			return f
		}, "has not signed the one before it"},
		"a key that others may read": {func(dir string) files {
			f, _ := house.issue(t, dir, nil)
			if err := os.Chmod(f.key, 0o644); err != nil {
				t.Fatal(err)
			}
			return f
		}, "others may read or change"},
		"a file that is not there": {func(dir string) files {
			f, _ := house.issue(t, dir, nil)
			return files{f.cert + "x", f.key}
		}, "no such file"},
		"a folder": {func(dir string) files {
			f, _ := house.issue(t, dir, nil)
			return files{dir, f.key}
		}, "is no file"},
		"a certificate alone": {func(dir string) files {
			f, _ := house.issue(t, dir, nil)
			return files{cert: f.cert}
		}, "needs both --tls-cert and --tls-key"},
	} {
		c := conf(folder(t))
		c.Log = slog.New(slog.DiscardHandler)
		f := x.make(t.TempDir())
		c.TLSCert, c.TLSKey = f.cert, f.key
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := server.Run(ctx, c); err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, want %q", name, err, x.says)
		}
		cancel()
		if left, err := os.ReadDir(c.Data); err != nil || len(left) > 1 { // the lock
			t.Errorf("%s: a start that was refused leaves %v, %v", name, left, err)
		}
	}
	// What the group may read is good: a server that is not root reads root's key so.
	f, _ := house.issue(t, t.TempDir(), nil)
	if err := os.Chmod(f.key, 0o640); err != nil {
		t.Fatal(err)
	}
	c := conf(folder(t))
	c.TLSCert, c.TLSKey, c.Names = f.cert, f.key, []string{"elsewhere.example.org"}
	c.Listen = "localhost:0"
	s := start(t, c)
	if !strings.Contains(s.log.String(), "names no name of this server") {
		t.Errorf("the log does not say that the certificate is another's:\n%s", s.log)
	}
}
