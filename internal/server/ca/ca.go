// Package ca is the internal certificate authority: the certificate that agents
// pin, the certificates of machines and of users, the short-lived ones that the
// server itself shows, and the list of what was revoked.
//
// A certificate passes validators, which judge the request, modifiers, which write
// the template, and enforcers, which look at the finished template once more and
// know nothing of how it was made. Nothing of a request goes into a certificate but
// its public key.
//
// It promises: the CA's certificate is made once and lasts ten years; a machine's
// certificate names one machine, a user's one user and the machine it was made for,
// and neither is ever taken for the other; both are good for client authentication
// alone; a machine's lasts ninety days, a user's as long as the settings say; a
// certificate tells nothing about whether it may still be used: that is looked up at
// every request, and connections that were opened with one that was revoked are
// closed (Cutter); the revocation list (RFC 5280) is made anew with every revocation.
// Rows: E4, M4, architecture §5 and §6.
package ca

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
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The lives of certificates.
const (
	Life        = 10 * 365 * 24 * time.Hour // of the CA
	MachineLife = 90 * 24 * time.Hour
	ServerLife  = 7 * 24 * time.Hour
	// backdate lets a machine whose clock is a little behind accept what was just
	// issued.
	backdate = time.Hour
)

const settingCertificate = "ca.certificate"

// Authority issues and recognises certificates. It is safe for concurrent use.
type Authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	roots *x509.CertPool
	clock clock.Clock
	store *store.Store

	peopleURL func() string
	list      atomic.Pointer[List] // the revocation list as it was read last
	serving   chan struct{}        // held by whoever answers with a list, for served
	served    served
}

// Config is what Open needs; all fields but PeopleURL are required.
type Config struct {
	Store *store.Store
	Keys  *keys.Keys
	Clock clock.Clock
	// PeopleURL is how people reach the server, where the settings name nothing; nil:
	// certificates then say nothing of where the revocation list is.
	PeopleURL func() string
}

// Open reads the CA's certificate, and makes it at the first start; made tells
// which it was. Of two replicas that start at once one makes it.
func Open(ctx context.Context, c Config) (a *Authority, made bool, err error) {
	der, err := stored(ctx, c.Store)
	if err != nil {
		return nil, false, err
	}
	if der == nil {
		own, err := selfSign(c)
		if err != nil {
			return nil, false, fmt.Errorf("make the CA's certificate: %w", err)
		}
		err = c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			n, err := tx.InitSetting(ctx, db.InitSettingParams{Key: settingCertificate, Value: own, UpdatedAt: clock.Micros(c.Clock.Now())})
			made = n == 1
			return err
		})
		if err != nil {
			return nil, false, fmt.Errorf("keep the CA's certificate: %w", err)
		}
		failpoint.Hit("ca.made")
		if der, err = stored(ctx, c.Store); err != nil {
			return nil, false, err
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, false, fmt.Errorf("the CA's certificate in the database is damaged: %w", err)
	}
	if pub, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(c.Keys.CA.Public()) {
		return nil, false, errors.New("the CA's certificate in the database is not for the CA's key: restore the database from a backup")
	}
	a = &Authority{cert: cert, key: c.Keys.CA, roots: x509.NewCertPool(), clock: c.Clock, store: c.Store, peopleURL: c.PeopleURL, serving: make(chan struct{}, 1)}
	a.roots.AddCert(cert)
	return a, made, nil
}

func stored(ctx context.Context, s *store.Store) (der []byte, err error) {
	err = s.Read(ctx, func(q *store.Queries) error {
		der, err = q.GetSetting(ctx, settingCertificate)
		if store.IsNotFound(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	return der, nil
}

func selfSign(c Config) ([]byte, error) {
	now := c.Clock.Now()
	serial := newSerial()
	t := &x509.Certificate{
		SerialNumber: serial,
		// The number tells the CAs of two installations apart in every listing.
		Subject:               pkix.Name{CommonName: fmt.Sprintf("Latchkey CA %x", serial.Bytes()[:4])},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(Life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return x509.CreateCertificate(rand.Reader, t, t, c.Keys.CA.Public(), c.Keys.CA)
}

// newSerial makes 127 random bits, never zero (RFC 5280 §4.1.2.2).
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// Certificate is the CA's certificate in DER.
func (a *Authority) Certificate() []byte { return bytes.Clone(a.cert.Raw) }

// Fingerprint is what a join token carries and an agent pins.
func (a *Authority) Fingerprint() [32]byte { return sha256.Sum256(a.cert.Raw) }

// Validator judges a request before anything is made of it.
type Validator interface {
	Validate(r *x509.CertificateRequest) error
}

// Modifier writes a part of the template.
type Modifier interface {
	Modify(t *x509.Certificate) error
}

// Enforcer looks at the finished template and refuses what must never be issued.
type Enforcer interface {
	Enforce(t *x509.Certificate) error
}

// Profile is the way of one kind of certificate.
type Profile struct {
	Validators []Validator
	Modifiers  []Modifier
	Enforcers  []Enforcer
}

// ErrRequest is the cause of every refusal of a certificate request; its text can
// be told to who asked.
var ErrRequest = errors.New("the certificate request is refused")

// maxRequest bounds a certificate request in octets.
const maxRequest = 8 << 10

// Sign takes a PKCS#10 request in DER through the profile.
func (a *Authority) Sign(csr []byte, p Profile) (*x509.Certificate, error) {
	if len(csr) > maxRequest {
		return nil, fmt.Errorf("%w: it has %d octets; allowed are %d", ErrRequest, len(csr), maxRequest)
	}
	r, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("%w: it is no PKCS#10 request", ErrRequest)
	}
	for _, v := range p.Validators {
		if err := v.Validate(r); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRequest, err)
		}
	}
	return a.issue(r.PublicKey, p)
}

func (a *Authority) issue(key crypto.PublicKey, p Profile) (*x509.Certificate, error) {
	now := a.clock.Now()
	t := &x509.Certificate{SerialNumber: newSerial(), NotBefore: now.Add(-backdate), BasicConstraintsValid: true}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("a certificate was not issued: %w", err)
	}
	id := sha256.Sum256(spki)
	t.SubjectKeyId = id[:20] // RFC 7093 §2 (4)
	for _, m := range p.Modifiers {
		if err := m.Modify(t); err != nil {
			return nil, err
		}
	}
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	for _, e := range append([]Enforcer{neverCA{}}, p.Enforcers...) {
		if err := e.Enforce(t); err != nil {
			return nil, fmt.Errorf("a certificate was not issued: %w", err)
		}
	}
	if !now.Before(t.NotAfter) {
		return nil, errors.New("a certificate was not issued: the CA's own certificate has expired; this installation is ten years old and needs a new CA")
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// neverCA is in every profile.
type neverCA struct{}

func (neverCA) Enforce(t *x509.Certificate) error {
	switch {
	case t.IsCA || t.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("it would be a CA")
	case t.NotAfter.IsZero() || t.NotAfter.Sub(t.NotBefore) > 400*24*time.Hour:
		return errors.New("it would last for more than 400 days")
	case len(t.ExtKeyUsage) != 1:
		return errors.New("it would be good for more or less than one use")
	case t.SerialNumber == nil || t.SerialNumber.Sign() <= 0 || t.SerialNumber.BitLen() > 159: // RFC 5280 §4.1.2.2
		return errors.New("its serial number would be none")
	case len(t.Subject.CommonName) == 0 || len(t.Subject.CommonName) > 64: // ub-common-name
		return errors.New("its name would be too short or too long")
	}
	return nil
}

// Proof asks that the request is signed by its own key.
type Proof struct{}

// Validate implements Validator.
func (Proof) Validate(r *x509.CertificateRequest) error {
	if err := r.CheckSignature(); err != nil {
		return errors.New("its signature does not fit its key")
	}
	return nil
}

// P256 asks for a key on P-256, which every TPM has.
type P256 struct{}

// Validate implements Validator.
func (P256) Validate(r *x509.CertificateRequest) error {
	if k, ok := r.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return errors.New("its key is not an ECDSA key on P-256")
	}
	return nil
}

// For says how long the certificate lasts.
type For time.Duration

// Modify implements Modifier.
func (f For) Modify(t *x509.Certificate) error {
	t.NotAfter = t.NotBefore.Add(backdate + time.Duration(f))
	return nil
}

// Client makes it good for client authentication with ECDSA.
type Client struct{}

// Modify implements Modifier.
func (Client) Modify(t *x509.Certificate) error {
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return nil
}

// Machine names the machine.
type Machine string

const machineScheme, machinePrefix = "latchkey", "machine/"

// Modify implements Modifier.
func (m Machine) Modify(t *x509.Certificate) error {
	t.Subject = pkix.Name{CommonName: string(m)}
	t.URIs = []*url.URL{{Scheme: machineScheme, Opaque: machinePrefix + string(m)}}
	return nil
}

// Enforce implements Enforcer: the certificate names this machine and nobody else.
func (m Machine) Enforce(t *x509.Certificate) error {
	if id, ok := machineIn(t); !ok || id != string(m) || t.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		return errors.New("it would not be that of one machine")
	}
	return nil
}

// machineIn reads whose certificate it is.
func machineIn(c *x509.Certificate) (id string, ok bool) {
	if len(c.URIs) != 1 || len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) != 0 {
		return "", false
	}
	u := c.URIs[0]
	id, ok = strings.CutPrefix(u.Opaque, machinePrefix)
	if !ok || u.Scheme != machineScheme || id == "" || len(id) > 64 || id != c.Subject.CommonName {
		return "", false
	}
	return id, true
}

// SignMachine issues a machine's certificate for the key of the request.
func (a *Authority) SignMachine(csr []byte, machineID string) (*x509.Certificate, error) {
	m := Machine(machineID)
	return a.Sign(csr, Profile{
		Validators: []Validator{P256{}, Proof{}},
		Modifiers:  []Modifier{For(MachineLife), Client{}, m, a.whereRevoked()},
		Enforcers:  []Enforcer{m},
	})
}

// RenewAfter is when the holder should ask for a new certificate: at two thirds of
// its life.
func RenewAfter(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

// Serial is how a certificate is named in the database.
func Serial(c *x509.Certificate) string { return hex.EncodeToString(c.SerialNumber.Bytes()) }

// Fingerprint of a certificate, for people and events.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// ErrForeign says that a certificate is not one of this CA's machine certificates.
var ErrForeign = errors.New("the certificate is not a machine's certificate of this server")

// Recognise tells whose certificate it is. One that has expired is recognised, and
// said to be: it may renew, and a revoked machine must be told so. So is one that is not
// valid yet: nobody but this server signs them, so that its own clock was put back since.
// Whether the machine may do anything is not asked here.
func (a *Authority) Recognise(c *x509.Certificate) (machineID string, expired bool, err error) {
	expired, _, err = a.signed(c)
	if err != nil {
		return "", false, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	id, ok := machineIn(c)
	if !ok {
		return "", false, ErrForeign
	}
	return id, expired, nil
}

// signed tells whether this CA has signed a client's certificate, and whether it has
// expired, or is not valid yet.
func (a *Authority) signed(c *x509.Certificate) (expired, early bool, err error) {
	at := a.clock.Now()
	switch {
	case at.After(c.NotAfter):
		expired, at = true, c.NotAfter
	case at.Before(c.NotBefore):
		early, at = true, c.NotBefore
	}
	_, err = c.Verify(x509.VerifyOptions{Roots: a.roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return expired, early, err
}

// Server makes a key in memory and issues a certificate for it that shows the
// server's names: host names and addresses.
func (a *Authority) Server(names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err == nil {
		err = keys.Try(key)
	}
	if err != nil {
		return nil, err
	}
	cert, err := a.issue(key.Public(), Profile{
		Modifiers: []Modifier{For(ServerLife), serverNames(names)},
		Enforcers: []Enforcer{serverNames(names)},
	})
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw, a.cert.Raw}, PrivateKey: key, Leaf: cert}, nil
}

type serverNames []string

// Modify implements Modifier.
func (n serverNames) Modify(t *x509.Certificate) error {
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	t.Subject = pkix.Name{CommonName: "latchkeyd"}
	for _, name := range n {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	return nil
}

// Enforce implements Enforcer: it is no client's certificate.
func (n serverNames) Enforce(t *x509.Certificate) error {
	if len(t.URIs) != 0 || t.ExtKeyUsage[0] != x509.ExtKeyUsageServerAuth || len(n) == 0 {
		return errors.New("it would not be a server's")
	}
	return nil
}
