package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// counterIndex is the public area of the machine's monotonic counter. It is not
// orderly, so that every step is in the TPM's memory before it is answered, and
// has an empty authValue, so that it works on where the owner later gets one.
func counterIndex(handle uint32, written bool) tpm2.TPMSNVPublic {
	return tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(handle), NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{NT: tpm2.TPMNTCounter, AuthRead: true, AuthWrite: true, NoDA: true, Written: written},
	}
}

func counterNamed(handle uint32, written bool) tpm2.NamedHandle {
	p := counterIndex(handle, written)
	return tpm2.NamedHandle{Handle: p.NVIndex, Name: *must(tpm2.NVName(&p))}
}

func counterAuth(n tpm2.NamedHandle) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(nil)}
}

// DefineCounter makes the machine's counter at the handle and tells its first
// value. The TPM starts it above every counter that it ever had, so a counter
// that was deleted and made again shows. A counter of ours that is there already
// is taken as it is. [ErrTaken]: something else is there.
func (d *Device) DefineCounter(ctx context.Context, handle uint32) (value uint64, err error) {
	if err := checkHandle("counter", handle); err != nil {
		return 0, err
	}
	err = d.do(ctx, d.limits.setup, func(l *line) error {
		_, err := tpm2.NVDefineSpace{AuthHandle: ownerHandle(d.cfg.OwnerAuth), PublicInfo: tpm2.New2B(counterIndex(handle, false))}.Execute(l)
		if err != nil && !errors.Is(err, tpm2.TPMRCNVDefined) {
			return defining("counter", err)
		}
		switch fresh := checkIndex(l, "counter", counterNamed(handle, false)); {
		case fresh == nil:
			// It can not be read before its first step.
			if err := increment(l, handle, false); err != nil {
				return err
			}
		case errors.Is(fresh, ErrReplaced):
			if used := checkIndex(l, "counter", counterNamed(handle, true)); errors.Is(used, ErrReplaced) {
				return fmt.Errorf("%w: counter %#08x", ErrTaken, handle)
			} else if used != nil {
				return used
			}
		default:
			return fresh
		}
		value, err = readCounter(l, handle)
		return err
	})
	return value, err
}

// ReadCounter tells the counter's value. [ErrRemoved]: there is none;
// [ErrReplaced]: what is there is not our counter.
func (d *Device) ReadCounter(ctx context.Context, handle uint32) (value uint64, err error) {
	err = d.do(ctx, d.limits.quick, func(l *line) (err error) {
		value, err = readCounter(l, handle)
		return err
	})
	return value, err
}

// Increment adds one and tells the new value. When it returns without an error
// the new value is in the TPM's memory for good; after an error about the TPM it
// may be or not: read it. Errors are as in [Device.ReadCounter]; [ErrBusy] may
// mean that the TPM spares its memory.
func (d *Device) Increment(ctx context.Context, handle uint32) (value uint64, err error) {
	err = d.do(ctx, d.limits.quick, func(l *line) (err error) {
		if err := increment(l, handle, true); err != nil {
			return err
		}
		value, err = readCounter(l, handle)
		return err
	})
	return value, err
}

// RemoveCounter deletes the counter; one that is gone already is no error.
func (d *Device) RemoveCounter(ctx context.Context, handle uint32) error {
	return d.do(ctx, d.limits.setup, func(l *line) error {
		return undefine(l, ownerHandle(d.cfg.OwnerAuth), "counter", tpm2.TPMHandle(handle), counterNamed(handle, true).Name, counterNamed(handle, false).Name)
	})
}

func increment(t transport.TPM, handle uint32, written bool) error {
	n := counterNamed(handle, written)
	if _, err := (tpm2.NVIncrement{AuthHandle: counterAuth(n), NVIndex: n}).Execute(t); err != nil {
		return countersError(t, n, "incrementing the counter", err)
	}
	return nil
}

func readCounter(t transport.TPM, handle uint32) (uint64, error) {
	n := counterNamed(handle, true)
	// NV_Read names no Name in a password session, so another index at the handle
	// would be read as if it were ours.
	if err := checkIndex(t, "counter", n); err != nil {
		return 0, err
	}
	r, err := tpm2.NVRead{AuthHandle: counterAuth(n), NVIndex: n, Size: 8}.Execute(t)
	if err != nil {
		return 0, countersError(t, n, "reading the counter", err)
	}
	if len(r.Data.Buffer) != 8 {
		return 0, fmt.Errorf("%w: a counter of %d octets", ErrUnavailable, len(r.Data.Buffer))
	}
	return binary.BigEndian.Uint64(r.Data.Buffer), nil
}

// countersError tells an index that is not ours from a TPM that can not.
func countersError(t transport.TPM, n tpm2.NamedHandle, doing string, err error) error {
	if errors.Is(err, tpm2.TPMRCHandle) {
		return fail(ErrRemoved, doing, err)
	}
	var rc tpm2.TPMRC
	if errors.As(err, &rc) && !isAny(err, transient) {
		if c := checkIndex(t, "counter", n); c != nil {
			return c
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Certified is a counter's value as the TPM certified it.
type Certified struct {
	Attest    []byte `json:"attest"`    // TPMS_ATTEST
	Signature []byte `json:"signature"` // TPMT_SIGNATURE
}

// CreateAttestationKey makes a key that signs only what the TPM says about
// itself. The record is to be kept on disk, the public area goes to the server's
// [ParseAttestationKey].
func (d *Device) CreateAttestationKey(ctx context.Context) (record, public []byte, err error) {
	record, p, err := d.createSigning(ctx, attestRecord, attestationTemplate())
	if err != nil {
		return nil, nil, err
	}
	return record, tpm2.Marshal(*p), nil
}

// CertifyCounter lets the TPM say the counter's value over the server's nonce of
// 8 to 32 octets, signed by the attestation key. The server checks it with
// [AttestationKey.VerifyCounter].
func (d *Device) CertifyCounter(ctx context.Context, record []byte, handle uint32, nonce []byte) (c Certified, err error) {
	if err := checkNonce(nonce); err != nil {
		return c, err
	}
	o, _, err := decodeObject(attestRecord, record, tpm2.TPMAlgECC)
	if err != nil {
		return c, err
	}
	err = d.withStorage(ctx, d.limits.setup, o.storage, func(l *line, storage loaded) error {
		return o.with(l, storage, func(k loaded) error {
			n := counterNamed(handle, true)
			if err := checkIndex(l, "counter", n); err != nil {
				return err
			}
			r, err := tpm2.NVCertify{
				SignHandle: tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}, AuthHandle: counterAuth(n), NVIndex: n,
				QualifyingData: tpm2.TPM2BData{Buffer: nonce}, Size: 8,
			}.Execute(l)
			if err != nil {
				return countersError(l, n, "certifying the counter", err)
			}
			c = Certified{Attest: r.CertifyInfo.Bytes(), Signature: tpm2.Marshal(r.Signature)}
			return nil
		})
	})
	return c, err
}

func checkNonce(nonce []byte) error {
	if len(nonce) < 8 || len(nonce) > 32 {
		return fmt.Errorf("nonce of %d octets: want 8 to 32", len(nonce))
	}
	return nil
}
