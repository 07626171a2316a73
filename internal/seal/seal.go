// Package seal makes the envelopes of data at rest and of signed objects.
//
// A Box encrypts with AES-256-GCM under a fresh random nonce; the additional
// data names what and where (table, column, row), so that a sealed value can not
// be moved to another place. A Signer signs objects with Ed25519; the signature
// covers a type string, the machine it is for, and the payload, so that an
// object is never taken for one of another kind or of another machine.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"latchkey/internal/secret"
)

// KeySize is the length of a Box's key in octets.
const KeySize = 32

// ErrOpen says that a sealed value is damaged, of another place, or of another
// key; which one can not be told.
var ErrOpen = errors.New("sealed value can not be opened: it is damaged, belongs elsewhere, or the key is another one")

// Box seals and opens values under one key.
type Box struct{ aead cipher.AEAD }

// NewBox makes a Box; the key must have KeySize octets.
func NewBox(key secret.Bytes) (*Box, error) {
	if key.Len() != KeySize {
		return nil, fmt.Errorf("key of %d octets, want %d", key.Len(), KeySize)
	}
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead}, nil
}

// boxVersion is the first octet of a sealed value.
const boxVersion = 1

// Seal encrypts plain for the place.
func (b *Box) Seal(plain []byte, place ...string) []byte {
	return b.aead.Seal([]byte{boxVersion}, nil, plain, where(place))
}

// Open decrypts what Seal made for the same place; else ErrOpen.
func (b *Box) Open(sealed []byte, place ...string) (secret.Bytes, error) {
	if len(sealed) < 1 || sealed[0] != boxVersion {
		return secret.Bytes{}, ErrOpen
	}
	plain, err := b.aead.Open(nil, nil, sealed[1:], where(place))
	if err != nil {
		return secret.Bytes{}, ErrOpen
	}
	return secret.New(plain), nil
}

// where puts a length before every part, so that ("ab","c") is not ("a","bc").
func where(place []string) []byte {
	out := []byte("latchkey/seal/1")
	for _, p := range place {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p)))
		out = append(out, p...)
	}
	return out
}

// NewKey makes a random key for a Box.
func NewKey() secret.Bytes {
	k := make([]byte, KeySize)
	_, _ = rand.Read(k) // never fails since Go 1.24: it ends the process instead
	return secret.New(k)
}

// Derive makes a key for one purpose from another (HKDF-SHA-256, RFC 5869).
func Derive(key secret.Bytes, salt []byte, purpose string) (secret.Bytes, error) {
	out, err := hkdf.Key(sha256.New, key.Reveal(), salt, "latchkey/"+purpose, KeySize)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New(out), nil
}

// Kind is the type string of a signed object.
type Kind string

// The kinds of signed objects. Each has a type string of its own.
const (
	Policy     Kind = "latchkey/policy/1"
	Bundle     Kind = "latchkey/bundle/1"
	Refusal    Kind = "latchkey/refusal/1"
	Checkpoint Kind = "latchkey/checkpoint/1"
)

// MaxPayload bounds the payload of a signed object in octets.
const MaxPayload = 64 << 20

// ErrSignature says that a signed object is not what it should be.
var ErrSignature = errors.New("signed object is damaged, of another kind, for another machine, or signed by another key")

var magic = []byte("LKSO")

// Sign makes a signed object: magic, u16 version 1, signature, payload. Kind and
// machine are not in it: the reader must know what it expects.
func Sign(key ed25519.PrivateKey, kind Kind, machine string, payload []byte) []byte {
	out := append([]byte(nil), magic...)
	out = binary.BigEndian.AppendUint16(out, 1)
	out = append(out, ed25519.Sign(key, signed(kind, machine, payload))...)
	return append(out, payload...)
}

// Verify returns the payload of an object that Sign made with the same kind and
// machine; else ErrSignature. A version that is not known is ErrNewer.
func Verify(key ed25519.PublicKey, kind Kind, machine string, object []byte) ([]byte, error) {
	head := len(magic) + 2
	if len(key) != ed25519.PublicKeySize || len(object) < head+ed25519.SignatureSize || len(object) > MaxPayload || string(object[:len(magic)]) != string(magic) {
		return nil, ErrSignature
	}
	if v := binary.BigEndian.Uint16(object[len(magic):]); v != 1 {
		return nil, fmt.Errorf("%w: version %d, this program reads 1", ErrNewer, v)
	}
	sig, payload := object[head:head+ed25519.SignatureSize], object[head+ed25519.SignatureSize:]
	if !ed25519.Verify(key, signed(kind, machine, payload), sig) {
		return nil, ErrSignature
	}
	return payload, nil
}

// ErrNewer says that an object or file was written by a newer program.
var ErrNewer = errors.New("written by a newer version; update this program")

func signed(kind Kind, machine string, payload []byte) []byte {
	out := where([]string{string(kind), machine})
	return append(out, payload...)
}
