package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey/internal/secret"
)

// This file is what the machine keeps under its storage key: the state key, the
// machine key and the attestation key. The records hold the storage key's Name,
// so that they tell a cleared or exchanged TPM by themselves.

// object is a key or secret under the storage key, as read from a record.
type object struct {
	storage []byte // Name of the storage key
	public  *tpm2.TPMTPublic
	private []byte
}

func (o object) encode(kind string, flags uint16) []byte {
	return encodeRecord(kind, flags, o.storage, tpm2.Marshal(*o.public), o.private)
}

func decodeObject(kind string, record []byte, want tpm2.TPMAlgID) (o object, flags uint16, err error) {
	flags, f, err := decodeRecord(kind, record, 3)
	if err != nil {
		return o, 0, err
	}
	if len(f[0]) != nameSize || len(f[1]) > maxPublic || len(f[2]) == 0 || len(f[2]) > maxBlob {
		return o, 0, fmt.Errorf("%w: %q record with fields of %d, %d and %d octets", ErrRecord, kind, len(f[0]), len(f[1]), len(f[2]))
	}
	pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](f[1])
	if err != nil || pub.Type != want {
		return o, 0, fmt.Errorf("%w: %q record without a public area", ErrRecord, kind)
	}
	return object{storage: f[0], public: pub, private: f[2]}, flags, nil
}

// create makes an object under the storage key. What is sensitive in it crosses
// the bus encrypted.
func create(t transport.TPM, storage loaded, template tpm2.TPMTPublic, sealed []byte) (o object, err error) {
	c := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: storage.handle, Name: storage.name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, storage.salted(), encryptIn)},
		InPublic:     tpm2.New2B(template),
	}
	if sealed != nil {
		c.InSensitive = tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: sealed}),
		}}
	}
	r, err := c.Execute(t)
	if err != nil {
		return o, err
	}
	pub, err := r.OutPublic.Contents()
	if err != nil {
		return o, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return object{storage: bytes.Clone(storage.name.Buffer), public: pub, private: r.OutPrivate.Buffer}, nil
}

// with loads the object, runs use and unloads it.
func (o object) with(t transport.TPM, storage loaded, use func(l loaded) error) error {
	r, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: storage.handle, Name: storage.name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: o.private}, InPublic: tpm2.New2B(*o.public),
	}.Execute(t)
	if err != nil {
		// The storage key is the right one, so the record is not.
		var rc tpm2.TPMRC
		if errors.As(err, &rc) && !isAny(err, transient) {
			return fail(ErrRecord, "loading it", err)
		}
		return err
	}
	defer flush(t, r.ObjectHandle)
	return use(loaded{handle: r.ObjectHandle, name: r.Name, public: *o.public})
}

// underStorage is what everything under the storage key has in common.
var underStorage = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true}

// StateKeySize is the size of a state key, in octets.
const StateKeySize = 32

// Seal says what a state key is bound to beside the TPM.
type Seal struct {
	// BootState binds to PCR 7, the state of Secure Boot. Of use only where it is
	// on; a change of its keys or settings makes the state key unreadable.
	BootState bool
}

// flagBootState marks a sealed state key that is bound to PCR 7.
const flagBootState = 1

// BootBound tells whether a sealed state key is bound to the state of Secure Boot.
func BootBound(record []byte) bool {
	flags, _, err := decodeRecord(stateRecord, record, 3)
	return err == nil && flags&flagBootState != 0
}

// bootPCR selects PCR 7 of the SHA-256 bank.
func bootPCR() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: []byte{0x80, 0, 0}}}}
}

// SealState seals the machine's state key to the storage key. The record is to
// be kept on disk.
func (d *Device) SealState(ctx context.Context, key secret.Bytes, to Seal) (record []byte, err error) {
	if key.Len() != StateKeySize {
		return nil, fmt.Errorf("state key of %d octets: want %d", key.Len(), StateKeySize)
	}
	err = d.withStorage(ctx, d.limits.setup, nil, func(l *line, storage loaded) error {
		template := tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: underStorage}
		var flags uint16
		if to.BootState {
			flags = flagBootState
			policy, err := bootPolicy(l)
			if err != nil {
				return err
			}
			template.AuthPolicy, template.ObjectAttributes.UserWithAuth = policy, false
		}
		o, err := create(l, storage, template, key.Reveal())
		if err != nil {
			return fmt.Errorf("sealing the state key: %w", err)
		}
		record = o.encode(stateRecord, flags)
		return nil
	})
	return record, err
}

// bootPolicy is the digest of PolicyPCR for PCR 7 as it is now.
func bootPolicy(l *line) (digest tpm2.TPM2BDigest, err error) {
	err = withPolicy(l, func(s tpm2.Session) error {
		_, err := tpm2.PolicyPCR{PolicySession: s.Handle(), Pcrs: bootPCR()}.Execute(l)
		return err
	}, func(s tpm2.Session) error {
		r, err := tpm2.PolicyGetDigest{PolicySession: s.Handle()}.Execute(l)
		if err == nil {
			digest = r.PolicyDigest
		}
		return err
	}, tpm2.Trial())
	return digest, err
}

// UnsealState is the inverse of SealState. The error is [ErrCleared] if the
// record was made by another TPM or by this one before it was cleared,
// [ErrBootState] if the state of Secure Boot is another one, [ErrRecord] or
// [ErrNewer] if the record is the matter, or one about the TPM.
func (d *Device) UnsealState(ctx context.Context, record []byte) (key secret.Bytes, err error) {
	o, flags, err := decodeObject(stateRecord, record, tpm2.TPMAlgKeyedHash)
	if err != nil {
		return key, err
	}
	err = d.withStorage(ctx, d.limits.quick, o.storage, func(l *line, storage loaded) error {
		return o.with(l, storage, func(obj loaded) error {
			unseal := func(s tpm2.Session) error {
				r, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: obj.handle, Name: obj.name, Auth: s}}.Execute(l)
				if err != nil {
					if errors.Is(err, tpm2.TPMRCPolicyFail) {
						return fail(ErrBootState, "unsealing the state key", err)
					}
					return fmt.Errorf("unsealing the state key: %w", err)
				}
				if len(r.OutData.Buffer) != StateKeySize {
					return fmt.Errorf("%w: a state key of %d octets", ErrRecord, len(r.OutData.Buffer))
				}
				key = secret.New(r.OutData.Buffer)
				return nil
			}
			if flags&flagBootState == 0 {
				return unseal(tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, storage.salted(), encryptOut))
			}
			return withPolicy(l, func(s tpm2.Session) error {
				_, err := tpm2.PolicyPCR{PolicySession: s.Handle(), Pcrs: bootPCR()}.Execute(l)
				return err
			}, unseal, storage.salted(), encryptOut)
		})
	})
	return key, err
}

// signingTemplate is a P-256 key that signs SHA-256 digests.
func signingTemplate() tpm2.TPMTPublic {
	a := underStorage
	a.SensitiveDataOrigin, a.SignEncrypt = true, true
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: a,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: ecdsaScheme()}),
	}
}

// attestationTemplate is the same, but signs only what the TPM itself says.
func attestationTemplate() tpm2.TPMTPublic {
	t := signingTemplate()
	t.ObjectAttributes.Restricted = true
	return t
}

// createSigning makes a signing key and checks that it is what was asked for.
func (d *Device) createSigning(ctx context.Context, kind string, template tpm2.TPMTPublic) (record []byte, pub *tpm2.TPMTPublic, err error) {
	err = d.withStorage(ctx, d.limits.setup, nil, func(l *line, storage loaded) error {
		o, err := create(l, storage, template, nil)
		if err != nil {
			return fmt.Errorf("making a signing key: %w", err)
		}
		if err := sameTemplate(&template, o.public, tpm2.Marshal(*o.public)); err != nil {
			return fmt.Errorf("%w: signing key: %w", ErrUnavailable, err)
		}
		record, pub = o.encode(kind, 0), o.public
		return nil
	})
	return record, pub, err
}

// CreateKey makes the machine key: ECDSA on P-256, for SHA-256, never to leave
// this TPM. The record is to be kept on disk.
func (d *Device) CreateKey(ctx context.Context) (record []byte, pub *ecdsa.PublicKey, err error) {
	record, p, err := d.createSigning(ctx, signingRecord, signingTemplate())
	if err != nil {
		return nil, nil, err
	}
	pub, err = ecdsaPublic(p)
	return record, pub, err
}

func ecdsaPublic(p *tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	pt, err := p.Unique.ECC()
	if err != nil {
		return nil, err
	}
	b, err := point(pt)
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
}

// Signer gives the machine key as a crypto.Signer, for certificates and TLS. It
// opens the TPM for each signature and does not talk to it before. Its errors
// are those of this package; [ErrRecord] here means that the record is damaged.
func (d *Device) Signer(record []byte) (crypto.Signer, error) {
	o, _, err := decodeObject(signingRecord, record, tpm2.TPMAlgECC)
	if err != nil {
		return nil, err
	}
	template := signingTemplate()
	if err := sameTemplate(&template, o.public, tpm2.Marshal(*o.public)); err != nil {
		return nil, fmt.Errorf("%w: machine key: %w", ErrRecord, err)
	}
	pub, err := ecdsaPublic(o.public)
	if err != nil {
		return nil, fmt.Errorf("%w: machine key: %w", ErrRecord, err)
	}
	return &signer{d, o, pub}, nil
}

type signer struct {
	d   *Device
	o   object
	pub *ecdsa.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.pub }

// Sign signs a SHA-256 digest. The TPM has its own source of randomness.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, errors.New("the machine key signs SHA-256 digests only")
	}
	err = s.d.withStorage(context.Background(), s.d.limits.quick, s.o.storage, func(l *line, storage loaded) error {
		return s.o.with(l, storage, func(k loaded) error {
			r, err := tpm2.Sign{
				KeyHandle: tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}, Digest: tpm2.TPM2BDigest{Buffer: digest},
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
			}.Execute(l)
			if err != nil {
				return fmt.Errorf("signing: %w", err)
			}
			e, err := r.Signature.Signature.ECDSA()
			if err != nil {
				return fmt.Errorf("%w: signing: %w", ErrUnavailable, err)
			}
			sig, err = asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer)})
			return err
		})
	})
	return sig, err
}
