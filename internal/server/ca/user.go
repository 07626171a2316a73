package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The life of a user's certificate, as settings may say it.
const (
	UserLife    = 30 * 24 * time.Hour
	MinUserLife = time.Hour
	MaxUserLife = 365 * 24 * time.Hour
)

// How a user's certificate names the user, and the machine that it was made for.
const userPrefix, onPrefix = "user/", "on/"

// User names a user. Name is for people; it proves nothing. MachineID is of the
// machine whose agent has made the key; empty for a request of the user's own.
type User struct {
	ID, Name  string
	MachineID string
}

// Modify implements Modifier.
func (u User) Modify(t *x509.Certificate) error {
	name := u.Name
	if name == "" || len(name) > 64 {
		name = u.ID
	}
	t.Subject = pkix.Name{CommonName: name}
	t.URIs = []*url.URL{{Scheme: machineScheme, Opaque: userPrefix + u.ID}}
	if u.MachineID != "" {
		t.URIs = append(t.URIs, &url.URL{Scheme: machineScheme, Opaque: onPrefix + u.MachineID})
	}
	return nil
}

// Enforce implements Enforcer: the certificate names this user, and is no machine's.
func (u User) Enforce(t *x509.Certificate) error {
	got, ok := userIn(t)
	if _, machine := machineIn(t); !ok || machine || got.ID != u.ID || got.MachineID != u.MachineID || t.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth {
		return errors.New("it would not be that of one user")
	}
	return nil
}

// userIn reads whose certificate it is. The name in it is left out: it proves nothing.
func userIn(c *x509.Certificate) (u User, ok bool) {
	if len(c.URIs) < 1 || len(c.URIs) > 2 || len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) != 0 {
		return u, false
	}
	if u.ID, ok = idIn(c.URIs[0], userPrefix); !ok {
		return User{}, false
	}
	if len(c.URIs) == 2 {
		if u.MachineID, ok = idIn(c.URIs[1], onPrefix); !ok {
			return User{}, false
		}
	}
	return u, true
}

func idIn(u *url.URL, prefix string) (string, bool) {
	id, ok := strings.CutPrefix(u.Opaque, prefix)
	if !ok || u.Scheme != machineScheme || u.RawQuery != "" || u.Fragment != "" || id == "" || len(id) > 64 || strings.ContainsAny(id, "/ ") {
		return "", false
	}
	return id, true
}

// StrongKey asks for a key that every browser and token can make: ECDSA on P-256 or
// P-384, or RSA of 2048 to 4096 bits.
type StrongKey struct{}

// Validate implements Validator.
func (StrongKey) Validate(r *x509.CertificateRequest) error {
	const allowed = "allowed are ECDSA on P-256 or P-384, and RSA of 2048 to 4096 bits"
	switch k := r.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() {
			return errors.New("its key is on another curve; " + allowed)
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 4096 || k.E < 65537 {
			return fmt.Errorf("its RSA key has %d bits and the exponent %d; %s, with an exponent of 65537 or more", n, k.E, allowed)
		}
	default:
		return errors.New("its key is of a kind that is not taken; " + allowed)
	}
	return nil
}

// SignUser issues a user's certificate for the key of the request, good for life, which
// is cut to what is allowed.
func (a *Authority) SignUser(csr []byte, u User, life time.Duration) (*x509.Certificate, error) {
	if u.ID == "" {
		return nil, errors.New("a certificate was not issued: it would be nobody's")
	}
	life = min(max(life, MinUserLife), MaxUserLife)
	return a.Sign(csr, Profile{
		Validators: []Validator{StrongKey{}, Proof{}},
		Modifiers:  []Modifier{For(life), Client{}, u, a.whereRevoked()},
		Enforcers:  []Enforcer{u},
	})
}

// ErrNoUser says that a certificate is not one of a user of this server, or has
// expired.
var ErrNoUser = errors.New("the certificate is not a user's certificate of this server")

// ErrNotYet is the ErrNoUser of one that is not valid yet.
var ErrNotYet = fmt.Errorf("%w: it is not valid yet, so that this server's clock was put back", ErrNoUser)

// RecogniseUser tells whose certificate it is. One that has expired, or is not valid yet,
// is nobody's: a user signs in another way and gets a new one. Whether the user may do
// anything with it is not asked here.
func (a *Authority) RecogniseUser(c *x509.Certificate) (User, error) {
	expired, early, err := a.signed(c)
	if err != nil {
		return User{}, fmt.Errorf("%w: %w", ErrNoUser, err)
	}
	u, ok := userIn(c)
	switch {
	case !ok:
		return User{}, ErrNoUser
	case expired:
		return User{}, fmt.Errorf("%w: it has expired", ErrNoUser)
	case early:
		return User{}, ErrNotYet
	}
	return u, nil
}

// whereRevoked writes into a client's certificate where the revocation list is, if the
// address for people is known (RFC 5280 §4.2.1.13).
func (a *Authority) whereRevoked() Modifier { return listAt(a.listURL()) }

type listAt string

// Modify implements Modifier.
func (l listAt) Modify(t *x509.Certificate) error {
	if l != "" {
		t.CRLDistributionPoints = []string{string(l)}
	}
	return nil
}

// ListPath is where both doors give the revocation list.
const ListPath = "/ca.crl"

// listTime bounds how long the settings are waited for before a certificate is signed.
const listTime = 2 * time.Second

func (a *Authority) listURL() string {
	ctx, cancel := context.WithTimeout(context.Background(), listTime)
	defer cancel()
	var at string
	err := a.store.Read(ctx, func(q *store.Queries) (err error) {
		at, err = settings.People(ctx, q, a.peopleURL)
		return err
	})
	if err != nil || settings.CheckPeopleURL(at) != nil {
		return "" // the certificate is as good without
	}
	return at + ListPath
}

// Where the key of a user's certificate was made.
const (
	KeyTPM     = "tpm"     // in a machine's TPM, by its agent
	KeyFile    = "file"    // in a file of the user's on a machine
	KeyRequest = "request" // somewhere else: it came with a request of the user's own
)

// maxLive is how many certificates of one user are good at the same time.
const maxLive = 20

// KeepUser writes an issued certificate of a user down; without this it opens nothing.
// The caller writes the event.
func KeepUser(ctx context.Context, tx *store.Tx, c *x509.Certificate, u User, name, class string, at int64) error {
	n, err := tx.CountLiveUserCertificates(ctx, db.CountLiveUserCertificatesParams{UserID: u.ID, At: at})
	if err != nil {
		return err
	}
	if n >= maxLive {
		return fault.Newf(fault.Conflict, "There are %d certificates of this user already, and can be no more at the same time. Revoke those that are not used.", n)
	}
	return tx.InsertUserCertificate(ctx, db.InsertUserCertificateParams{
		Serial: Serial(c), UserID: u.ID, MachineID: u.MachineID, Name: name, KeyClass: class,
		NotBefore: clock.Micros(c.NotBefore), NotAfter: clock.Micros(c.NotAfter), CreatedAt: at, Fingerprint: Fingerprint(c),
	})
}
