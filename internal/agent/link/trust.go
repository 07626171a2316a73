package link

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// trust is whom the agent takes for its server: whoever has a certificate for
// servers of the pinned CA. The name in it is not compared: the CA is the
// server's own and gives certificates for servers to nobody else, and the address
// by which a machine reaches it may change.
type trust struct {
	ca  *x509.Certificate // known since the machine joined
	pin [sha256.Size]byte // of the CA while joining, when ca is nil
	now func() time.Time

	// seen receives the CA that fits pin, while joining.
	seen func(*x509.Certificate)
}

func (t trust) config(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// The certificates of the system have no say; verify has, for resumed
		// sessions too.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection pins the CA
		VerifyConnection:   t.verify,
		ClientSessionCache: tls.NewLRUClientSessionCache(4),
	}
}

// verify judges the certificates at the time that now says; one that is not valid
// yet is judged at its beginning, because only our clock can be the reason.
func (t trust) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return foreignError{"there is none"}
	}
	ca := t.ca
	if ca == nil {
		for _, c := range cs.PeerCertificates {
			if sha256.Sum256(c.Raw) == t.pin {
				ca = c
			}
		}
		if ca == nil || !ca.IsCA {
			return foreignError{"its CA is not the one that the token names"}
		}
	}
	leaf := cs.PeerCertificates[0]
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		CurrentTime: latest(t.now(), leaf.NotBefore, ca.NotBefore),
	}
	o.Roots.AddCert(ca)
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(o); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return errServerExpired
		}
		return foreignError{err.Error()}
	}
	if t.seen != nil {
		t.seen(ca)
	}
	return nil
}
