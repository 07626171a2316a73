package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

func benchCA(b *testing.B) (*ca.Authority, *store.Store, *ecdsa.PrivateKey, []byte) {
	b.Helper()
	s := storetest.Open(b, store.Config{Database: storetest.SQLite(b), Clock: clock.Real})
	k, _, err := keys.Open(b.Context(), keys.Config{Dir: b.TempDir(), Store: s, Clock: clock.Real})
	if err != nil {
		b.Fatal(err)
	}
	a, _, err := ca.Open(b.Context(), ca.Config{Store: s, Keys: k, Clock: clock.Real})
	if err != nil {
		b.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		b.Fatal(err)
	}
	return a, s, key, csr
}

func BenchmarkIssue(b *testing.B) {
	a, _, _, csr := benchCA(b)
	for b.Loop() {
		if _, err := a.SignUser(csr, ca.User{ID: "u1", Name: "alice"}, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecognise(b *testing.B) {
	a, _, _, csr := benchCA(b)
	c, err := a.SignUser(csr, ca.User{ID: "u1", Name: "alice"}, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := a.RecogniseUser(c); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList makes a list of ten thousand revocations anew, from the database.
func BenchmarkList(b *testing.B) {
	a, s, _, _ := benchCA(b)
	err := s.Update(b.Context(), func(ctx context.Context, tx *store.Tx) error {
		for i := range 10_000 {
			_, err := tx.InsertRevocation(ctx, db.InsertRevocationParams{Serial: fmt.Sprintf("4%031x", i), Number: 1, RevokedAt: 1, NotAfter: 1 << 60})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		err := s.Update(b.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.NextNumber(ctx, "revocations")
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		if l, err := a.RevocationList(b.Context()); err != nil || len(l.DER) < 100_000 {
			b.Fatal(err)
		}
	}
}

// BenchmarkHandshake is TLS 1.3 over loopback, both ends, with and without the client's
// certificate.
func BenchmarkHandshake(b *testing.B) {
	a, _, key, csr := benchCA(b)
	c, err := a.SignUser(csr, ca.User{ID: "u1", Name: "alice"}, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	own := tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("certificate=%v", with), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			conf := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: a.ServerCertificate([]string{"127.0.0.1"}), SessionTicketsDisabled: true}
			if with {
				conf.ClientAuth = tls.RequestClientCert
				conf.VerifyConnection = func(cs tls.ConnectionState) error {
					_, err := a.RecogniseUser(cs.PeerCertificates[0])
					return err
				}
			}
			defer l.Close()
			go func() {
				for {
					n, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer n.Close()
						t := tls.Server(n, conf)
						if t.Handshake() == nil {
							_, _ = t.Write([]byte{1})
						}
					}()
				}
			}()
			client := &tls.Config{InsecureSkipVerify: true}
			if with {
				client.Certificates = []tls.Certificate{own}
			}
			for b.Loop() {
				t, err := tls.Dial("tcp", l.Addr().String(), client)
				if err != nil {
					b.Fatal(err)
				}
				var one [1]byte
				if _, err := t.Read(one[:]); err != nil {
					b.Fatal(err)
				}
				_ = t.Close()
			}
		})
	}
}
