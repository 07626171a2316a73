// Package assertion verifies what a security key has signed at a machine: the
// authenticator's side of a WebAuthn assertion (WebAuthn Level 2 §6.1 and §6.3.3,
// CTAP 2.1 §6.2), without a browser between. The server verifies online with it, the
// agent offline.
//
// It promises: an assertion counts for one nonce, one machine and one user; what a web
// page can make a key sign is never one, because the hash that a key signs here is of
// octets that are not JSON; a key that does not say that somebody was present, or was
// verified where that is wanted, proves nothing; a counter that does not rise is told
// apart, for it may be a copy. It does no I/O and asks no clock.
//
// It does not promise that the key was at that machine: a key signs whatever hash it is
// handed, for the relying party that it is told. Root on a machine into which it is
// plugged can have a touch sign the hash of another machine, or of a browser's sign-in
// (docs/design/0036-what-a-key-at-a-machine-proves.md).
//
// Rows: M2, O3.
package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/fxamacker/cbor/v2"
)

// The bounds of what is read, in octets.
const (
	MaxKey       = 1024
	MaxAuthData  = 4096
	MaxSignature = 1024
	NonceSize    = 32
)

// What is wrong with an assertion.
var (
	ErrForm         = errors.New("the assertion is not of the form that security keys make")
	ErrKey          = errors.New("the public key is damaged or of a kind that is not known")
	ErrRelyingParty = errors.New("the assertion is for another server")
	ErrPresence     = errors.New("nobody has touched the security key")
	ErrVerification = errors.New("the security key has not verified who holds it")
	ErrSignature    = errors.New("the signature is not of this security key")
	ErrCloned       = errors.New("the counter of the security key has not risen: it may have been copied")
)

// ClientHash is what stands in place of the hash of a browser's client data, for a nonce
// of the server.
func ClientHash(nonce []byte, machineID, userID string) [sha256.Size]byte {
	return hash("latchkey/machine-key/1\x00", nonce, machineID, userID)
}

// OfflineHash is the same for a nonce that a machine has made of itself: what was signed
// for the server is never told as an offline sign-in.
func OfflineHash(nonce []byte, machineID, userID string) [sha256.Size]byte {
	return hash("latchkey/machine-key-offline/1\x00", nonce, machineID, userID)
}

func hash(word string, nonce []byte, machineID, userID string) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(word))
	for _, p := range [][]byte{nonce, []byte(machineID), []byte(userID)} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// OfflineNonce is a machine's own nonce: the time, in unix microseconds, and random
// octets behind it. One touch so proves one moment.
func OfflineNonce(at int64, random [NonceSize - 8]byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, NonceSize), uint64(at)), random[:]...)
}

// NonceTime is the time that an OfflineNonce holds.
func NonceTime(nonce []byte) (at int64, ok bool) {
	if len(nonce) != NonceSize {
		return 0, false
	}
	at = int64(binary.BigEndian.Uint64(nonce))
	return at, at > 0
}

// Want is what an assertion must be for.
type Want struct {
	RPID         string
	ClientHash   [sha256.Size]byte
	Verification bool
	Count        uint32 // the highest counter that is known
}

// Result is what a good assertion tells.
type Result struct {
	Count    uint32 // the key's counter now; 0: it has none
	Verified bool   // a PIN or a finger was checked
}

// The flags of the authenticator data (WebAuthn §6.1).
const (
	flagPresent    = 1 << 0
	flagVerified   = 1 << 2
	flagAttested   = 1 << 6
	flagExtensions = 1 << 7
	fixedSize      = 32 + 1 + 4
)

// Verify judges an assertion by the credential's public key, a COSE_Key. The signature
// is judged before what it covers, so that the other errors are the key's own words.
func Verify(key, authData, signature []byte, w Want) (Result, error) {
	switch {
	case len(authData) < fixedSize || len(authData) > MaxAuthData || len(signature) == 0 || len(signature) > MaxSignature:
		return Result{}, ErrForm
	}
	pub, err := ParseKey(key)
	if err != nil {
		return Result{}, err
	}
	signed := append(append(make([]byte, 0, len(authData)+sha256.Size), authData...), w.ClientHash[:]...)
	if !pub.verify(signed, signature) {
		return Result{}, ErrSignature
	}
	rp := sha256.Sum256([]byte(w.RPID))
	flags, count := authData[32], binary.BigEndian.Uint32(authData[33:fixedSize])
	r := Result{Count: count, Verified: flags&flagVerified != 0}
	switch {
	case w.RPID == "" || subtle.ConstantTimeCompare(rp[:], authData[:32]) != 1:
		return Result{}, ErrRelyingParty
	case flags&flagAttested != 0, flags&flagExtensions == 0 && len(authData) != fixedSize:
		return Result{}, ErrForm
	case flags&flagPresent == 0:
		return Result{}, ErrPresence
	case w.Verification && !r.Verified:
		return Result{}, ErrVerification
	case (count != 0 || w.Count != 0) && count <= w.Count:
		return r, ErrCloned
	}
	return r, nil
}

// Key is a credential's public key.
type Key struct{ pub crypto.PublicKey }

// The registered numbers (IANA COSE; RFC 9053).
const (
	algES256 = -7
	algEdDSA = -8
	algRS256 = -257
	ktyOKP   = 1
	ktyEC2   = 2
	ktyRSA   = 3
	crvP256  = 1
	crvEd    = 6
)

// coseKey holds the fields of all kinds; -1 is the curve, or the modulus of RSA.
type coseKey struct {
	Kty int64           `cbor:"1,keyasint"`
	Alg int64           `cbor:"3,keyasint"`
	M1  cbor.RawMessage `cbor:"-1,keyasint"`
	M2  []byte          `cbor:"-2,keyasint"`
	M3  []byte          `cbor:"-3,keyasint"`
}

var strict = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, MaxNestedLevels: 4, MaxMapPairs: 16, MaxArrayElements: 16,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// ParseKey reads a COSE_Key: ES256 on P-256, EdDSA on Ed25519, or RS256 with 2048 to
// 4096 bits.
func ParseKey(b []byte) (Key, error) {
	var k coseKey
	if len(b) == 0 || len(b) > MaxKey {
		return Key{}, ErrKey
	}
	if err := strict.Unmarshal(b, &k); err != nil {
		return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
	}
	curve := func(want int64) bool {
		var crv int64
		return strict.Unmarshal(k.M1, &crv) == nil && crv == want
	}
	switch {
	case k.Kty == ktyEC2 && k.Alg == algES256 && curve(crvP256) && len(k.M2) == 32 && len(k.M3) == 32:
		point := append(append([]byte{4}, k.M2...), k.M3...)
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		if err != nil {
			return Key{}, fmt.Errorf("%w: %w", ErrKey, err)
		}
		return Key{pub}, nil
	case k.Kty == ktyOKP && k.Alg == algEdDSA && curve(crvEd) && len(k.M2) == ed25519.PublicKeySize && k.M3 == nil:
		return Key{ed25519.PublicKey(k.M2)}, nil
	case k.Kty == ktyRSA && k.Alg == algRS256 && k.M3 == nil:
		var n []byte
		if strict.Unmarshal(k.M1, &n) != nil || len(n) < 256 || len(n) > 512 || n[0] == 0 || len(k.M2) == 0 || len(k.M2) > 4 {
			return Key{}, ErrKey
		}
		e := new(big.Int).SetBytes(k.M2).Int64()
		if e < 3 || e > 1<<31-1 || e%2 == 0 {
			return Key{}, ErrKey
		}
		return Key{&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(e)}}, nil
	}
	return Key{}, ErrKey
}

func (k Key) verify(signed, signature []byte) bool {
	digest := sha256.Sum256(signed)
	switch pub := k.pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(pub, signed, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, crypto.SHA256, digest[:], signature) == nil
	}
	return false
}
