package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
)

// TestAnOwnCertificateIsLookedAtByItsFiles: without a signal too, and nothing is said
// twice about the same files.
func TestAnOwnCertificateIsLookedAtByItsFiles(t *testing.T) {
	at := clock.NewManual(time.Now())
	cert, key := pairForTest(t, at.Now(), at.Now().Add(20*24*time.Hour))
	next, nextKey := pairForTest(t, at.Now(), at.Now().Add(90*24*time.Hour))
	dir := t.TempDir()
	write := func(cert, key []byte) {
		t.Helper()
		if os.WriteFile(dir+"/c", cert, 0o644) != nil || os.WriteFile(dir+"/k", key, 0o600) != nil {
			t.Fatal("the files can not be written")
		}
	}
	write(cert, key)
	var log strings.Builder
	c := &ownCert{certFile: dir + "/c", keyFile: dir + "/k", names: []string{"a.example.org"}, clock: at, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	first := c.now.Load()
	c.look(false)
	if c.now.Load() != first || log.Len() > 0 {
		t.Errorf("nothing has changed: %s", &log)
	}
	at.Advance(10 * 24 * time.Hour)
	c.look(false)
	c.look(false)
	if n := strings.Count(log.String(), "ends soon"); n != 1 {
		t.Errorf("that it ends soon is said %d times: %s", n, &log)
	}
	for _, f := range []string{"/c", "/k"} {
		if err := os.Remove(dir + f); err != nil {
			t.Fatal(err)
		}
	}
	c.look(false)
	c.look(false)
	if n := strings.Count(log.String(), "goes on being shown"); n != 1 || c.now.Load() != first {
		t.Errorf("that the files are gone is said %d times: %s", n, &log)
	}
	write(next, nextKey)
	c.look(false)
	if c.now.Load() == first || !strings.Contains(log.String(), "a new certificate for people is shown") {
		t.Errorf("the renewed files were not seen: %s", &log)
	}
}

func pairForTest(t *testing.T, from, until time.Time) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano() + until.Unix()), NotBefore: from.Add(-time.Hour), NotAfter: until, DNSNames: []string{"a.example.org"}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: k})
}

// FuzzJudgePair: whatever lies in the files, it is judged and not believed.
func FuzzJudgePair(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte(""), []byte("x"))
	now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, cert, key []byte) {
		pair, err := judgePair("c", cert, "k", key, now)
		if err == nil && (pair.Leaf == nil || now.After(pair.Leaf.NotAfter) || len(namesOf(pair.Leaf)) == 0) {
			t.Errorf("%q", cert)
		}
	})
}
