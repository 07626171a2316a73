package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// This file is the server's half of the counter: pure computation.

// AttestationKey is the public part of a machine's attestation key, checked.
// Only [ParseAttestationKey] makes one.
type AttestationKey struct {
	public tpm2.TPMTPublic
	key    *ecdsa.PublicKey
}

// ParseAttestationKey reads a TPMT_PUBLIC that a machine calls its attestation
// key (see [Device.CreateAttestationKey]) and refuses every key that is not made
// from the one template. Like [ParseParent] it cannot tell whether the key lies
// in a TPM.
func ParseAttestationKey(b []byte) (AttestationKey, error) {
	if len(b) > maxPublic {
		return AttestationKey{}, fmt.Errorf("attestation key of %d octets: at most %d", len(b), maxPublic)
	}
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil {
		return AttestationKey{}, fmt.Errorf("attestation key: %w", err)
	}
	t := attestationTemplate()
	if err := sameTemplate(&t, p, b); err != nil {
		return AttestationKey{}, fmt.Errorf("not an attestation key: %w", err)
	}
	k, err := ecdsaPublic(&t)
	if err != nil {
		return AttestationKey{}, fmt.Errorf("attestation key: %w", err)
	}
	return AttestationKey{t, k}, nil
}

// Marshal is the inverse of [ParseAttestationKey].
func (k AttestationKey) Marshal() []byte { return tpm2.Marshal(k.public) }

// ErrAttestation means that a certified counter proves nothing.
var ErrAttestation = errors.New("the counter's certificate is not valid")

// CounterValue is what a TPM has certified.
type CounterValue struct {
	Value uint64
	// Boots and Resumes are the TPM's resetCount and restartCount plus a number
	// that is secret and the same for all certificates by one key (TPM 2.0 part
	// 1 §36.7): equal Boots by the same key mean the same boot, and nothing else
	// can be read from them.
	Boots, Resumes uint32
}

// maxAttest bounds a TPMS_ATTEST, in octets.
const maxAttest = 1024

// VerifyCounter tells what the TPM has certified about the counter at the
// handle, which must be the one that was recorded when the machine joined, over
// the nonce. The error is [ErrAttestation].
func (k AttestationKey) VerifyCounter(handle uint32, nonce []byte, c Certified) (CounterValue, error) {
	v, err := k.verifyCounter(handle, nonce, c)
	if err != nil {
		return CounterValue{}, fmt.Errorf("%w: %w", ErrAttestation, err)
	}
	return v, nil
}

func (k AttestationKey) verifyCounter(handle uint32, nonce []byte, c Certified) (v CounterValue, err error) {
	if k.key == nil {
		return v, errors.New("no attestation key")
	}
	if err := errors.Join(checkHandle("counter", handle), checkNonce(nonce)); err != nil {
		return v, err
	}
	if len(c.Attest) > maxAttest {
		return v, fmt.Errorf("attestation of %d octets: at most %d", len(c.Attest), maxAttest)
	}
	sig, err := parseSignature(c.Signature)
	if err != nil {
		return v, err
	}
	e, err := sig.Signature.ECDSA()
	if err != nil {
		return v, err
	}
	sum := sha256.Sum256(c.Attest)
	if !ecdsa.Verify(k.key, sum[:], new(big.Int).SetBytes(e.SignatureR.Buffer), new(big.Int).SetBytes(e.SignatureS.Buffer)) {
		return v, errors.New("its signature does not fit")
	}
	// A restricted key signs nothing that begins like this but what its TPM says.
	a, err := tpm2.Unmarshal[tpm2.TPMSAttest](c.Attest)
	if err != nil {
		return v, err
	}
	if a.Magic != tpm2.TPMGeneratedValue || a.Type != tpm2.TPMSTAttestNV {
		return v, errors.New("it is not about an index")
	}
	if !bytes.Equal(a.ExtraData.Buffer, nonce) {
		return v, errors.New("it is not over this nonce")
	}
	nv, err := a.Attested.NV()
	if err != nil {
		return v, err
	}
	if !bytes.Equal(nv.IndexName.Buffer, counterNamed(handle, true).Name.Buffer) {
		return v, errors.New("it is about another index")
	}
	if nv.Offset != 0 || len(nv.NVContents.Buffer) != 8 {
		return v, errors.New("it is not about the whole index")
	}
	return CounterValue{binary.BigEndian.Uint64(nv.NVContents.Buffer), a.ClockInfo.ResetCount, a.ClockInfo.RestartCount}, nil
}
