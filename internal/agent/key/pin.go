package key

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"latchkey/internal/secret"
)

// The subcommands of authenticatorClientPIN (CTAP 2.1 §6.5.5), and the permission to get
// an assertion.
const (
	pinRetries   = 1
	pinAgreement = 2
	pinToken     = 5
	pinTokenFor  = 9
	permitAssert = 2
)

type pinRequest struct {
	Protocol    uint     `cbor:"1,keyasint,omitempty"`
	Sub         uint     `cbor:"2,keyasint"`
	Agreement   *ecdhKey `cbor:"3,keyasint,omitempty"`
	HashEnc     []byte   `cbor:"6,keyasint,omitempty"`
	Permissions uint     `cbor:"9,keyasint,omitempty"`
	RPID        string   `cbor:"10,keyasint,omitempty"`
}

type pinReply struct {
	Agreement *ecdhKey `cbor:"1,keyasint"`
	Token     []byte   `cbor:"2,keyasint"`
	Retries   uint     `cbor:"3,keyasint"`
}

// ecdhKey is a COSE_Key for key agreement on P-256 (§6.5.6).
type ecdhKey struct {
	Kty int64  `cbor:"1,keyasint"`
	Alg int64  `cbor:"3,keyasint"`
	Crv int64  `cbor:"-1,keyasint"`
	X   []byte `cbor:"-2,keyasint"`
	Y   []byte `cbor:"-3,keyasint"`
}

const algECDH = -25

// retries says how many tries the PIN has left, 0 if the key does not say.
func (d *device) retries(ctx context.Context, protocol uint) (int, error) {
	var r pinReply
	if err := d.call(ctx, ctapPIN, pinRequest{Protocol: protocol, Sub: pinRetries}, &r, nil); err != nil {
		var s status
		if errors.As(err, &s) {
			return 0, refusal(s)
		}
		return 0, err
	}
	return int(min(r.Retries, 100)), nil
}

// token is the key's permission, good for one sign-in.
type token struct {
	protocol uint
	value    []byte
}

func (t *token) wipe() { clear(t.value) }

// authenticate is the protocol's MAC (§6.5.6, §6.5.7).
func (t *token) authenticate(message []byte) []byte {
	return authenticate(t.protocol, t.value, message)
}

func authenticate(protocol uint, key, message []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(message)
	mac := h.Sum(nil)
	if protocol == 1 {
		return mac[:16]
	}
	return mac
}

// maxPIN is the longest PIN in octets of UTF-8 (§6.5.1).
const maxPIN = 63

// token trades the PIN for a permission.
func (d *device) token(ctx context.Context, protocol uint, rpID string, typed secret.Bytes) (*token, error) {
	if !utf8.Valid(typed.Reveal()) {
		return nil, ErrPINWrong
	}
	pin := norm.NFC.Bytes(typed.Reveal())
	defer clear(pin)
	if n := utf8.RuneCount(pin); n < 4 || len(pin) > maxPIN {
		return nil, ErrPINWrong // and not a try
	}
	var r pinReply
	err := d.call(ctx, ctapPIN, pinRequest{Protocol: protocol, Sub: pinAgreement}, &r, nil)
	var s status
	switch {
	case errors.As(err, &s):
		return nil, refusal(s)
	case err != nil:
		return nil, err
	}
	shared, own, err := agree(protocol, r.Agreement)
	if err != nil {
		return nil, err
	}
	defer shared.wipe()
	hash := sha256.Sum256(pin)
	defer clear(hash[:])
	in := pinRequest{Protocol: protocol, Sub: pinToken, Agreement: own}
	if in.HashEnc, err = shared.encrypt(hash[:16]); err != nil {
		return nil, err
	}
	if d.info.Options["pinUvAuthToken"] {
		in.Sub, in.Permissions, in.RPID = pinTokenFor, permitAssert, rpID
	}
	r = pinReply{}
	err = d.call(ctx, ctapPIN, in, &r, nil)
	switch {
	case errors.As(err, &s):
		return nil, refusal(s)
	case err != nil:
		return nil, err
	}
	value, err := shared.decrypt(r.Token)
	switch {
	case err != nil:
		return nil, err
	case len(value) != 16 && len(value) != 32, protocol == 2 && len(value) != 32:
		return nil, fmt.Errorf("%w: a token of %d octets", ErrForm, len(value))
	}
	return &token{protocol, value}, nil
}

// sharedKey is what both sides know behind the agreement.
type sharedKey struct {
	protocol uint
	aes      []byte
}

func (k *sharedKey) wipe() { clear(k.aes) }

// agree makes a key pair and the shared key (§6.5.6 encapsulate).
func agree(protocol uint, peer *ecdhKey) (*sharedKey, *ecdhKey, error) {
	if peer == nil || peer.Kty != 2 || peer.Crv != 1 || len(peer.X) != 32 || len(peer.Y) != 32 {
		return nil, nil, fmt.Errorf("%w: no key to agree with", ErrForm)
	}
	theirs, err := ecdh.P256().NewPublicKey(append(append([]byte{4}, peer.X...), peer.Y...))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	ours, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	z, err := ours.ECDH(theirs)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	defer clear(z)
	k := &sharedKey{protocol: protocol}
	if protocol == 1 {
		sum := sha256.Sum256(z)
		k.aes = sum[:]
	} else if k.aes, err = hkdf.Key(sha256.New, z, make([]byte, 32), "CTAP2 AES key", 32); err != nil {
		return nil, nil, err
	}
	b := ours.PublicKey().Bytes()
	return k, &ecdhKey{Kty: 2, Alg: algECDH, Crv: 1, X: b[1:33], Y: b[33:]}, nil
}

func (k *sharedKey) encrypt(plain []byte) ([]byte, error) {
	block, err := aes.NewCipher(k.aes)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, aes.BlockSize)
	if k.protocol == 1 {
		out := make([]byte, len(plain))
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, plain)
		return out, nil
	}
	if _, err := rand.Read(iv); err != nil {
		return nil, err
	}
	out := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, plain)
	return append(iv, out...), nil
}

func (k *sharedKey) decrypt(sealed []byte) ([]byte, error) {
	block, err := aes.NewCipher(k.aes)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, aes.BlockSize)
	if k.protocol != 1 {
		if len(sealed) < aes.BlockSize {
			return nil, ErrForm
		}
		iv, sealed = sealed[:aes.BlockSize], sealed[aes.BlockSize:]
	}
	if len(sealed) == 0 || len(sealed)%aes.BlockSize != 0 || len(sealed) > 64 {
		return nil, ErrForm
	}
	out := make([]byte, len(sealed))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, sealed)
	return out, nil
}
