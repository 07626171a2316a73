package ca_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// openOn is a CA on a store, which knows how people reach the server.
func openOn(t *testing.T, s *store.Store, c clock.Clock) *ca.Authority {
	t.Helper()
	k, _, err := keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: s, Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := ca.Open(t.Context(), ca.Config{Store: s, Keys: k, Clock: c, PeopleURL: func() string { return "https://latchkey.example.org" }})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestM4AUsersCertificate(t *testing.T) {
	now := clock.NewManual(start)
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: now})
	a := openOn(t, s, now)
	request := csr(t, p256(t), func(r *x509.CertificateRequest) {
		r.URIs = []*url.URL{{Scheme: "latchkey", Opaque: "user/somebody-else"}}
		r.EmailAddresses = []string{"root@example.org"}
	})
	c, err := a.SignUser(request, ca.User{ID: "u1", Name: "alice", MachineID: "m1"}, ca.UserLife)
	if err != nil {
		t.Fatal(err)
	}
	u, err := a.RecogniseUser(c)
	if err != nil || u.ID != "u1" || u.MachineID != "m1" {
		t.Errorf("%+v, %v", u, err)
	}
	if len(c.URIs) != 2 || c.URIs[0].String() != "latchkey:user/u1" || len(c.EmailAddresses) != 0 || c.IsCA || c.Subject.CommonName != "alice" {
		t.Errorf("%v %v %v", c.URIs, c.EmailAddresses, c.Subject)
	}
	if got := c.NotAfter.Sub(now.Now()); got != ca.UserLife {
		t.Errorf("it lasts %v", got)
	}
	if len(c.SubjectKeyId) != 20 || len(c.AuthorityKeyId) == 0 || len(c.CRLDistributionPoints) != 1 || c.CRLDistributionPoints[0] != "https://latchkey.example.org/ca.crl" {
		t.Errorf("%x %x %v", c.SubjectKeyId, c.AuthorityKeyId, c.CRLDistributionPoints)
	}
	if c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		t.Errorf("%v %v", c.KeyUsage, c.ExtKeyUsage)
	}
	// Neither is ever taken for the other.
	if _, _, err := a.Recognise(c); !errors.Is(err, ca.ErrForeign) {
		t.Errorf("a user's certificate is taken for a machine's: %v", err)
	}
	m, err := a.SignMachine(csr(t, p256(t), nil), "u1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.RecogniseUser(m); !errors.Is(err, ca.ErrNoUser) {
		t.Errorf("a machine's certificate is taken for a user's: %v", err)
	}
	now.Advance(ca.UserLife + time.Minute)
	if _, err := a.RecogniseUser(c); !errors.Is(err, ca.ErrNoUser) {
		t.Errorf("an expired one: %v", err)
	}
	other := openOn(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: now}), now)
	foreign, err := other.SignUser(request, ca.User{ID: "u1", Name: "alice"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.RecogniseUser(foreign); !errors.Is(err, ca.ErrNoUser) {
		t.Errorf("one of another CA: %v", err)
	}
	long, err := a.SignUser(request, ca.User{ID: "u1", Name: strings.Repeat("é", 60)}, 10*365*24*time.Hour)
	if err != nil || long.Subject.CommonName != "u1" || long.NotAfter.Sub(now.Now()) > ca.MaxUserLife {
		t.Errorf("%v, %v", long, err)
	}
}

func TestKeysOfUsers(t *testing.T) {
	a, _ := open(t)
	key := func(k crypto.Signer, err error) crypto.Signer {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	for name, x := range map[string]struct {
		key crypto.Signer
		ok  bool
	}{
		"P-256":    {key(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), true},
		"P-384":    {key(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), true},
		"P-521":    {key(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), false},
		"RSA 2048": {key(rsa.GenerateKey(rand.Reader, 2048)), true},
		"Ed25519":  {key(ed, err), false},
	} {
		_, err := a.SignUser(csr(t, x.key, nil), ca.User{ID: "u1", Name: "alice"}, time.Hour)
		if x.ok != (err == nil) || err != nil && !errors.Is(err, ca.ErrRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// member is a user and a machine in the database.
func member(t *testing.T, s *store.Store) {
	t.Helper()
	change(t, s, func(ctx context.Context, tx *store.Tx) error {
		if err := tx.InsertUser(ctx, db.InsertUserParams{ID: "u1", Name: "alice", NameFold: "alice", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1}); err != nil {
			return err
		}
		return tx.InsertMachine(ctx, db.InsertMachineParams{ID: "m1", Number: 1, Name: "pc", Status: "active", Mode: "normal", UnknownUsers: "deny", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1})
	})
}

func change(t *testing.T, s *store.Store, fn func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func keep(t *testing.T, s *store.Store, c *x509.Certificate, userID, machineID string) {
	t.Helper()
	change(t, s, func(ctx context.Context, tx *store.Tx) error {
		if userID == "" {
			return tx.InsertMachineCertificate(ctx, db.InsertMachineCertificateParams{
				Serial: ca.Serial(c), MachineID: machineID, NotBefore: clock.Micros(c.NotBefore), NotAfter: clock.Micros(c.NotAfter), Fingerprint: ca.Fingerprint(c),
			})
		}
		return tx.InsertUserCertificate(ctx, db.InsertUserCertificateParams{
			Serial: ca.Serial(c), UserID: userID, MachineID: machineID, KeyClass: "file", NotBefore: clock.Micros(c.NotBefore), NotAfter: clock.Micros(c.NotAfter),
			CreatedAt: 1, Fingerprint: ca.Fingerprint(c),
		})
	})
}

// TestTheRevocationList goes through both engines, and OpenSSL reads what comes of it.
func TestTheRevocationList(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is not installed: it verifies the list (apt-get install openssl)")
	}
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		now := clock.NewManual(time.Now().UTC().Truncate(time.Second))
		a := openOn(t, s, now)
		member(t, s)
		user := func() *x509.Certificate {
			c, err := a.SignUser(csr(t, p256(t), nil), ca.User{ID: "u1", Name: "alice", MachineID: "m1"}, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			keep(t, s, c, "u1", "m1")
			return c
		}
		machine, err := a.SignMachine(csr(t, p256(t), nil), "m1")
		if err != nil {
			t.Fatal(err)
		}
		keep(t, s, machine, "", "m1")
		one, two := user(), user()
		list := func() (*ca.List, *x509.RevocationList) {
			t.Helper()
			l, err := a.RevocationList(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := x509.ParseRevocationList(l.DER)
			if err != nil {
				t.Fatal(err)
			}
			issuer, err := x509.ParseCertificate(a.Certificate())
			if err != nil {
				t.Fatal(err)
			}
			if err := parsed.CheckSignatureFrom(issuer); err != nil {
				t.Fatal(err)
			}
			return l, parsed
		}
		first, parsed := list()
		if len(parsed.RevokedCertificateEntries) != 0 || parsed.Number.Int64() != first.Number {
			t.Errorf("%+v", parsed)
		}
		if again, _ := list(); again.Number != first.Number {
			t.Error("a list is made anew although nothing was revoked")
		}
		change(t, s, func(ctx context.Context, tx *store.Tx) error {
			row, err := tx.GetUserCertificate(ctx, ca.Serial(one))
			if err != nil {
				return err
			}
			return ca.RevokeUserCertificate(ctx, tx, row.UserCertificate, ca.KeyCompromise, clock.Micros(now.Now()))
		})
		second, parsed := list()
		if second.Number <= first.Number || len(parsed.RevokedCertificateEntries) != 1 || parsed.RevokedCertificateEntries[0].ReasonCode != 1 ||
			parsed.RevokedCertificateEntries[0].SerialNumber.Cmp(one.SerialNumber) != 0 {
			t.Errorf("%+v", parsed.RevokedCertificateEntries)
		}
		verify(t, openssl, a, second.DER, one, "revoked")
		verify(t, openssl, a, second.DER, two, "")
		verify(t, openssl, a, second.DER, machine, "")
		// The machine takes along what users have for it.
		change(t, s, func(ctx context.Context, tx *store.Tx) error {
			machines, users, err := ca.RevokeMachine(ctx, tx, "m1", ca.Cessation, clock.Micros(now.Now()))
			if machines != 1 || users != 1 {
				t.Errorf("%d and %d", machines, users)
			}
			return err
		})
		third, _ := list()
		verify(t, openssl, a, third.DER, two, "revoked")
		verify(t, openssl, a, third.DER, machine, "revoked")
		// Whoever is removed stays in the list.
		change(t, s, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.DeleteMachine(ctx, "m1")
			return err
		})
		now.Advance(25 * time.Hour)
		fourth, parsed := list()
		// The users' certificates lasted an hour.
		if fourth.Number <= third.Number || len(parsed.RevokedCertificateEntries) != 1 || !fourth.NextUpdate.After(now.Now().Add(47*time.Hour)) {
			t.Errorf("%+v", parsed)
		}
		w := httptest.NewRecorder()
		a.ServeList(w, httptest.NewRequest("GET", ca.ListPath, nil))
		if w.Code != 200 || w.Header().Get("Content-Type") != "application/pkix-crl" || w.Body.Len() != len(fourth.DER) {
			t.Errorf("%d %v", w.Code, w.Header())
		}
		again := httptest.NewRequest("GET", ca.ListPath, nil)
		again.Header.Set("If-None-Match", w.Header().Get("ETag"))
		w = httptest.NewRecorder()
		if a.ServeList(w, again); w.Code != 304 {
			t.Errorf("%d", w.Code)
		}
	})
}

// Whoever asks for the list needs no right: the database is asked once a second, however
// many do.
func TestTheListIsServedFromMemoryForASecond(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		now := clock.NewManual(time.Now().UTC().Truncate(time.Second))
		s := storetest.Open(t, store.Config{Database: database, Clock: now})
		a := openOn(t, s, now)
		member(t, s)
		c, err := a.SignUser(csr(t, p256(t), nil), ca.User{ID: "u1", Name: "alice", MachineID: "m1"}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		keep(t, s, c, "u1", "m1")
		serve := func() (int, string) {
			w := httptest.NewRecorder()
			a.ServeList(w, httptest.NewRequest("GET", ca.ListPath, nil))
			return w.Code, w.Header().Get("ETag")
		}
		_, first := serve()
		change(t, s, func(ctx context.Context, tx *store.Tx) error {
			_, err := ca.RevokeUser(ctx, tx, "u1", ca.Unspecified, clock.Micros(now.Now()))
			return err
		})
		if code, tag := serve(); code != 200 || tag != first {
			t.Errorf("%d %s within the second, want %s", code, tag, first)
		}
		now.Advance(time.Second)
		code, second := serve()
		if code != 200 || second == first {
			t.Errorf("%d %s behind the second", code, second)
		}
		// Nobody reaches the database: it is gone.
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if code, tag := serve(); code != 200 || tag != second {
					t.Errorf("%d %s from memory, want %s", code, tag, second)
				}
			})
		}
		wg.Wait()
		now.Advance(time.Second)
		if code, _ := serve(); code != 503 {
			t.Errorf("%d without a database", code)
		}
	})
}

// verify has OpenSSL judge the certificate by the list; says is what it must complain
// of, empty: nothing.
func verify(t *testing.T, openssl string, a *ca.Authority, crl []byte, c *x509.Certificate, says string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	out, err := exec.Command(openssl, "verify", "-x509_strict", "-crl_check", "-purpose", "sslclient", "-CAfile", write("ca.pem", "CERTIFICATE", a.Certificate()),
		"-CRLfile", write("crl.pem", "X509 CRL", crl), write("c.pem", "CERTIFICATE", c.Raw)).CombinedOutput()
	switch {
	case says == "" && err != nil:
		t.Errorf("openssl: %v\n%s", err, out)
	case says != "" && (err == nil || !strings.Contains(string(out), says)):
		t.Errorf("openssl says nothing of %q: %v\n%s", says, err, out)
	}
}

// pipe is a connection that tells when it is closed.
type pipe struct {
	net.Conn
	closed chan struct{}
}

func (p *pipe) Close() error { close(p.closed); return p.Conn.Close() }

func TestConnectionsAreCutWhenTheirCertificateIsRevoked(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		a := openOn(t, s, clock.Real)
		member(t, s)
		x := ca.NewCutter(ca.CutterConfig{Store: s, Clock: clock.Real, Log: slog.New(slog.DiscardHandler)})
		hold := func() (serial string, p *pipe) {
			c, err := a.SignUser(csr(t, p256(t), nil), ca.User{ID: "u1", Name: "alice"}, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			keep(t, s, c, "u1", "")
			n, _ := net.Pipe()
			p = &pipe{n, make(chan struct{})}
			x.Hold(ca.Serial(c), p)
			x.Hold(ca.Serial(c), p)
			return ca.Serial(c), p
		}
		serial, one := hold()
		_, two := hold()
		_, gone := hold()
		x.Drop(gone)
		if x.Held() != 2 {
			t.Errorf("%d are held", x.Held())
		}
		go x.Run(t.Context())
		time.Sleep(50 * time.Millisecond)
		change(t, s, func(ctx context.Context, tx *store.Tx) error {
			row, err := tx.GetUserCertificate(ctx, serial)
			if err != nil {
				return err
			}
			return ca.RevokeUserCertificate(ctx, tx, row.UserCertificate, "", clock.Micros(time.Now()))
		})
		begun := time.Now()
		select {
		case <-one.closed:
		case <-time.After(time.Second):
			t.Fatal("not within a second")
		}
		t.Logf("cut after %v", time.Since(begun))
		select {
		case <-two.closed:
			t.Error("another's connection was cut")
		case <-gone.closed:
			t.Error("a connection that was dropped was closed")
		default:
		}
		if x.Held() != 1 {
			t.Errorf("%d are held", x.Held())
		}
	})
}

// FuzzRequest reads certificate requests from anything. What is issued is a certificate
// of this user, whatever the request asks for.
func FuzzRequest(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range []*x509.CertificateRequest{{}, {DNSNames: []string{"a"}}, {URIs: []*url.URL{{Scheme: "latchkey", Opaque: "user/x"}}}} {
		der, err := x509.CreateCertificateRequest(rand.Reader, r, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add([]byte{0x30, 0x80})
	s := storetest.Open(f, store.Config{Database: storetest.SQLite(f), Clock: clock.Real})
	k, _, err := keys.Open(f.Context(), keys.Config{Dir: f.TempDir(), Store: s, Clock: clock.Real})
	if err != nil {
		f.Fatal(err)
	}
	a, _, err := ca.Open(f.Context(), ca.Config{Store: s, Keys: k, Clock: clock.Real})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := a.SignUser(der, ca.User{ID: "u1", Name: "alice"}, time.Hour)
		if err != nil {
			if !errors.Is(err, ca.ErrRequest) {
				t.Errorf("%v", err)
			}
			return
		}
		if u, err := a.RecogniseUser(c); err != nil || u.ID != "u1" || c.IsCA || len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) != 0 || c.SerialNumber.Cmp(big.NewInt(0)) <= 0 {
			t.Errorf("%+v, %v", c, err)
		}
	})
}

// FuzzRecognise reads certificates from anything: what is not of this CA is nobody's.
func FuzzRecognise(f *testing.F) {
	s := storetest.Open(f, store.Config{Database: storetest.SQLite(f), Clock: clock.Real})
	k, _, err := keys.Open(f.Context(), keys.Config{Dir: f.TempDir(), Store: s, Clock: clock.Real})
	if err != nil {
		f.Fatal(err)
	}
	a, _, err := ca.Open(f.Context(), ca.Config{Store: s, Keys: k, Clock: clock.Real})
	if err != nil {
		f.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.Fatal(err)
	}
	c, err := a.SignUser(der, ca.User{ID: "u1", Name: "alice"}, time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Raw)
	f.Add(a.Certificate())
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if u, err := a.RecogniseUser(got); err == nil && (u.ID != "u1" || got.SerialNumber.Cmp(c.SerialNumber) != 0) {
			t.Errorf("%+v", u)
		}
		if id, _, err := a.Recognise(got); err == nil {
			t.Errorf("a machine %q", id)
		}
	})
}
