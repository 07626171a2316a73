// Package keys holds the server's own keys: the master key, a file that only the
// server may read, and everything that is sealed under it in the database: the
// grant key (Ed25519), the TPM-policy key (P-256), the key of the internal CA and
// the pepper of code hashes.
//
// It promises: the keys are made once, at the first start, in one transaction; of
// two replicas that start at once one makes them and the other reads them; a
// database that has keys is never given others because the file is missing, is
// another server's or is damaged; and no key can be printed, logged or marshalled.
//
// Rows: E4 (the CA and the machines' door), O8 (TPM-policy key); architecture §6.
package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Keys are the server's keys, opened. They are safe for concurrent use.
type Keys struct {
	// Box seals values of the database under the master key. The place names
	// table, column and row: Box.Seal(plain, "authenticators", "secret", id).
	Box *seal.Box
	// Grant signs what machines believe: policies, bundles, refusals, windows.
	Grant ed25519.PrivateKey
	// Permit signs the first write and the lift of a machine's PIN indices. It is
	// a P-256 key.
	Permit crypto.Signer
	// CA is the P-256 key of the internal certificate authority.
	CA crypto.Signer
	// Pepper is the HMAC key for hashes of backup, bypass and enrolment codes, so
	// that the hashes of a stolen database can not be tried out.
	Pepper secret.Bytes
}

// GrantPublic is what a machine needs to verify what Grant signed.
func (k *Keys) GrantPublic() ed25519.PublicKey { return k.Grant.Public().(ed25519.PublicKey) }

// PermitPublic is the PKIX DER form of the TPM-policy key's public half.
func (k *Keys) PermitPublic() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.Permit.Public())
	if err != nil {
		panic(err) // a P-256 key always has this form
	}
	return der
}

// Format hides the keys from every verb of fmt.
func (k *Keys) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[keys]") }

// LogValue hides the keys from log/slog.
func (k *Keys) LogValue() slog.Value { return slog.StringValue("[keys]") }

// MarshalJSON always fails.
func (k *Keys) MarshalJSON() ([]byte, error) { return nil, secret.ErrMarshal }

// Config says where the keys lie. All fields are required.
type Config struct {
	Dir   string // the folder of the master key
	Store *store.Store
	Clock clock.Clock
}

// Errors of Open.
var (
	// ErrMissing: the database has keys and the folder has no master key.
	ErrMissing = errors.New("the master key is missing, and the database is sealed under it: put the file back, copy it from another server of this database, or restore it from a backup that was made with --with-key")
	// ErrForeign: the master key does not fit the database.
	ErrForeign = errors.New("the master key does not fit the database: every server of one database needs the same file; put back the master.key that this database was made with")
)

// The names of the sealed settings. The one named first decides who made them.
const (
	nameGrant  = "key.grant"
	namePermit = "key.permit"
	nameCA     = "key.ca"
	namePepper = "key.pepper"
)

var names = []string{nameGrant, namePermit, nameCA, namePepper}

// Open opens the keys, and makes them at the first start; made tells which it was.
func Open(ctx context.Context, c Config) (k *Keys, made bool, err error) {
	sealed, err := stored(ctx, c.Store)
	if err != nil {
		return nil, false, err
	}
	master, err := ReadMaster(c.Dir)
	switch {
	case err == nil:
	case !errors.Is(err, ErrNoMaster):
		return nil, false, err
	case sealed != nil:
		return nil, false, fmt.Errorf("%w (%s)", ErrMissing, MasterPath(c.Dir))
	default:
		if master, err = CreateMaster(c.Dir); err != nil {
			return nil, false, err
		}
		failpoint.Hit("keys.master")
		defer func() {
			// Another replica was faster with a key of its own: this one is of no use,
			// and would stand in the way of the right one.
			if errors.Is(err, ErrForeign) {
				_ = os.Remove(MasterPath(c.Dir))
			}
		}()
	}
	defer master.Wipe()
	box, err := seal.NewBox(master)
	if err != nil {
		return nil, false, fmt.Errorf("the master key: %w", err)
	}
	if sealed == nil {
		if made, err = create(ctx, c, box); err != nil {
			return nil, false, fmt.Errorf("make the server's keys: %w", err)
		}
		failpoint.Hit("keys.made")
		if sealed, err = stored(ctx, c.Store); err != nil {
			return nil, false, err
		}
	}
	k, err = open(box, sealed)
	return k, made, err
}

// stored reads the sealed keys; nil if there are none yet.
func stored(ctx context.Context, s *store.Store) (map[string][]byte, error) {
	var found map[string][]byte
	err := s.Read(ctx, func(q *store.Queries) error {
		found = map[string][]byte{}
		for _, name := range names {
			v, err := q.GetSetting(ctx, name)
			switch {
			case err == nil:
				found[name] = v
			case !store.IsNotFound(err):
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the server's keys: %w", err)
	case len(found) == 0:
		return nil, nil
	case len(found) < len(names):
		return nil, fmt.Errorf("the database holds %d of the server's %d keys: restore it from a backup", len(found), len(names))
	}
	return found, nil
}

// Fits tells whether the master key opens what a database holds of the server's keys,
// ErrForeign or what is wrong with them if not. A database that holds none fits every key.
func Fits(master secret.Bytes, setting func(name string) ([]byte, error)) error {
	sealed := map[string][]byte{}
	for _, name := range names {
		v, err := setting(name)
		if err != nil {
			return err
		}
		if v != nil {
			sealed[name] = v
		}
	}
	switch len(sealed) {
	case 0:
		return nil
	case len(names):
	default:
		return fmt.Errorf("it holds %d of the server's %d keys", len(sealed), len(names))
	}
	box, err := seal.NewBox(master)
	if err != nil {
		return fmt.Errorf("the master key: %w", err)
	}
	k, err := open(box, sealed)
	if err == nil {
		k.Pepper.Wipe()
	}
	return err
}

// create makes all keys in one transaction. made is false if another replica was
// faster: then its keys stand.
func create(ctx context.Context, c Config, box *seal.Box) (made bool, err error) {
	_, grant, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return false, err
	}
	permit, err := newP256()
	if err != nil {
		return false, err
	}
	ca, err := newP256()
	if err != nil {
		return false, err
	}
	plain := map[string][]byte{nameGrant: grant.Seed(), namePermit: permit, nameCA: ca, namePepper: seal.NewKey().Reveal()}
	now := clock.Micros(c.Clock.Now())
	err = c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		made = false
		for _, name := range names {
			n, err := tx.InitSetting(ctx, db.InitSettingParams{Key: name, Value: box.Seal(plain[name], "settings", "value", name), UpdatedAt: now})
			if err != nil {
				return err
			}
			if n == 0 {
				if name == names[0] {
					return nil
				}
				return errors.New("the database holds some of the server's keys, but not all: restore it from a backup")
			}
		}
		made = true
		return nil
	})
	for _, v := range plain {
		clear(v)
	}
	return made && err == nil, err
}

func newP256() ([]byte, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(k)
}

func open(box *seal.Box, sealed map[string][]byte) (*Keys, error) {
	plain := map[string]secret.Bytes{}
	for _, name := range names {
		v, err := box.Open(sealed[name], "settings", "value", name)
		if err != nil {
			return nil, fmt.Errorf("%w (%s)", ErrForeign, name)
		}
		plain[name] = v
	}
	k := &Keys{Box: box, Pepper: plain[namePepper]}
	if n := k.Pepper.Len(); n != seal.KeySize {
		return nil, fmt.Errorf("%s has %d octets, want %d", namePepper, n, seal.KeySize)
	}
	seed := plain[nameGrant]
	if seed.Len() != ed25519.SeedSize {
		return nil, fmt.Errorf("%s has %d octets, want %d", nameGrant, seed.Len(), ed25519.SeedSize)
	}
	k.Grant = ed25519.NewKeyFromSeed(seed.Reveal())
	seed.Wipe()
	for name, to := range map[string]*crypto.Signer{namePermit: &k.Permit, nameCA: &k.CA} {
		p, err := parseP256(plain[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		*to = p
	}
	return k, nil
}

func parseP256(der secret.Bytes) (crypto.Signer, error) {
	defer der.Wipe()
	k, err := x509.ParsePKCS8PrivateKey(der.Reveal())
	if err != nil {
		return nil, errors.New("is no private key") // the cause could quote the key
	}
	p, ok := k.(*ecdsa.PrivateKey)
	if !ok || p.Curve != elliptic.P256() {
		return nil, fmt.Errorf("is %T, want a key on P-256", k)
	}
	if err := Try(p); err != nil {
		return nil, err
	}
	return hidden{p}, nil
}

// Try signs and verifies once, so that a key that does not work is found when it
// is loaded and not in somebody's sign-in. It also has the library prepare the
// key before many handshakes ask for that at the same time.
func Try(k *ecdsa.PrivateKey) error {
	digest := sha256.Sum256([]byte("latchkey: a key tried"))
	sig, err := ecdsa.SignASN1(rand.Reader, k, digest[:])
	if err != nil || !ecdsa.VerifyASN1(&k.PublicKey, digest[:], sig) {
		return errors.New("is a key that does not sign what its other half verifies")
	}
	return nil
}

// hidden is a signer whose private half can not be printed, logged or cast back.
type hidden struct{ key *ecdsa.PrivateKey }

func (h hidden) Public() crypto.PublicKey { return h.key.Public() }

func (h hidden) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return h.key.Sign(random, digest, opts)
}

func (h hidden) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, "[key]") }
func (h hidden) LogValue() slog.Value         { return slog.StringValue("[key]") }
func (h hidden) MarshalJSON() ([]byte, error) { return nil, secret.ErrMarshal }
