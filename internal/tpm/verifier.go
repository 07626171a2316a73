package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey/internal/secret"
)

// This file is the machine's half of the verifier.

// AuthValue turns key material derived from a password (or at random) into a TPM
// authValue of 32 octets without a zero octet. The TPM strips trailing zero
// octets and go-tpm v0.9.8 cuts an authValue at its first zero octet when it
// computes a session HMAC, so a raw digest would fail for one password in nine.
func AuthValue(derived secret.Bytes) secret.Bytes {
	sum := sha256.Sum256(derived.Reveal())
	defer clear(sum[:])
	return secret.New(base64.RawURLEncoding.AppendEncode(nil, sum[:24]))
}

// NewUseAuth makes the authValue of a use index.
func NewUseAuth() secret.Bytes {
	s := secret.New(random(32))
	defer s.Wipe()
	return AuthValue(s)
}

// Auths are the authValues of a verifier's two indices. They must differ in
// origin: Use must not be derived from the password, because a PIN_PASS index
// does not count wrong guesses and would tell right passwords from wrong ones
// without end.
type Auths struct {
	// Password is the password index's, from [AuthValue].
	Password secret.Bytes
	// Use is the use index's, from [NewUseAuth], kept in the machine's state.
	Use secret.Bytes
}

func (a Auths) of(k Kind) secret.Bytes {
	if k == PasswordIndex {
		return a.Password
	}
	return a.Use
}

func (a Auths) check() error {
	for _, k := range kinds {
		v := a.of(k).Reveal()
		if len(v) != 32 || bytes.IndexByte(v, 0) >= 0 {
			return fmt.Errorf("authValue of the %s index was not made by AuthValue", k)
		}
	}
	if a.Password.Equal(a.Use) {
		return errors.New("the two authValues are the same")
	}
	return nil
}

// Blob is an imported verifier key as the TPM gives it out, to be kept on disk.
// It is of use only to the TPM that made it.
type Blob struct {
	Parent  []byte `json:"parent"` // Name of the import parent
	Public  []byte `json:"public"`
	Private []byte `json:"private"`
}

// maxBlob bounds each field of a Blob or Bundle, in octets.
const maxBlob = 2048

func (b Blob) check() error {
	if len(b.Parent) != nameSize || len(b.Public) > maxBlob || len(b.Private) > maxBlob || len(b.Public) == 0 || len(b.Private) == 0 {
		return fmt.Errorf("%w: verifier key", ErrRecord)
	}
	return nil
}

// nameSize is the size of a Name by SHA-256.
const nameSize = 2 + sha256.Size

// Permitter asks the server for a permit to write one index in the session that
// has the given nonceTPM. It is called without the turn at the TPM; its context
// ends after [PermitTime].
type Permitter func(ctx context.Context, kind Kind, nonceTPM []byte) (Permit, error)

// Status is what can be learnt about a verifier without a password.
type Status struct {
	Passwords Tally // wrong passwords since the last right one
	Uses      Tally // uses since the last lift
}

// Define makes the two indices of the spec. They are of no use before Activate.
// The authValues cross the bus encrypted. [ErrNoSpace]: nothing was defined;
// [ErrTaken]: one of the handles is in use, choose others.
func (d *Device) Define(ctx context.Context, s Spec, a Auths) error {
	if err := errors.Join(s.check(), a.check()); err != nil {
		return err
	}
	return d.withMachine(ctx, d.limits.setup, nil, func(m *machine) error { return m.define(s, a) })
}

// Activate makes the first write of both indices, each with its own permit for
// the Name without the WRITTEN attribute. After it the indices have the Names
// that the key's policy is bound to. If it fails, whatever the reason, the
// generation is lost: the server does not sign a second time.
func (d *Device) Activate(ctx context.Context, s Spec, ask Permitter) error {
	for _, k := range kinds {
		if err := d.write(ctx, s, k, false, ask); err != nil {
			return err
		}
	}
	return nil
}

// Lift writes one index of an active verifier with the server's permit.
func (d *Device) Lift(ctx context.Context, s Spec, k Kind, ask Permitter) error {
	return d.write(ctx, s, k, true, ask)
}

func (d *Device) write(ctx context.Context, s Spec, k Kind, written bool, ask Permitter) error {
	if err := s.check(); err != nil {
		return err
	}
	return d.do(ctx, d.limits.setup, func(l *line) error {
		m := &machine{tpm: l}
		p, err := m.begin(s, k, written)
		if err != nil {
			return err
		}
		defer p.end()
		var permit Permit
		if err := l.aside(ctx, p.session.Handle(), d.limits.setup, func() (err error) {
			ctx, cancel := context.WithTimeout(ctx, PermitTime)
			defer cancel()
			permit, err = ask(ctx, k, bytes.Clone(p.nonce.Buffer))
			return err
		}); err != nil {
			return err
		}
		return p.finish(permit)
	})
}

// Status reads both tallies with the owner's authorisation; it changes none.
func (d *Device) Status(ctx context.Context, s Spec) (st Status, err error) {
	if err := s.check(); err != nil {
		return st, err
	}
	err = d.do(ctx, d.limits.quick, func(l *line) (err error) {
		st, err = (&machine{tpm: l, ownerAuth: d.cfg.OwnerAuth}).status(s)
		return err
	})
	return st, err
}

// Import turns the server's bundle into a blob for this TPM.
func (d *Device) Import(ctx context.Context, b Bundle) (blob Blob, err error) {
	err = d.withMachine(ctx, d.limits.setup, nil, func(m *machine) (err error) {
		blob, err = m.importKey(b)
		return err
	})
	return blob, err
}

// MAC computes the HMAC of message with the verifier's key. It costs one use,
// and only if the password was right; a wrong password is counted and costs no
// use. The error is one of [ErrWrongPassword], [ErrLocked], [ErrUsedUp],
// [ErrRemoved], [ErrReplaced], [ErrCleared], [ErrRecord] or one about the TPM.
// After an error about the TPM the caller does not know what was counted.
func (d *Device) MAC(ctx context.Context, s Spec, b Blob, a Auths, message []byte) (mac []byte, err error) {
	if err := errors.Join(s.check(), b.check(), a.check()); err != nil {
		return nil, err
	}
	if len(message) > 512 {
		return nil, fmt.Errorf("message of %d octets: at most 512", len(message))
	}
	err = d.withMachine(ctx, d.limits.quick, b.Parent, func(m *machine) error {
		k, err := m.load(s, b)
		if err != nil {
			return err
		}
		defer k.close()
		mac, err = k.mac(a, message)
		return err
	})
	return mac, err
}

// Remove deletes both indices, if they are the spec's; those that are gone
// already are no error. No copy of the key's blob can be used after it, but for
// sessions that were proved before: each gives one HMAC, was counted as a use,
// and ends with the TPM's next start.
func (d *Device) Remove(ctx context.Context, s Spec) error {
	if err := s.check(); err != nil {
		return err
	}
	return d.do(ctx, d.limits.setup, func(l *line) error { return (&machine{tpm: l, ownerAuth: d.cfg.OwnerAuth}).remove(s) })
}

// machine is an open TPM, for most operations with the import parent loaded.
type machine struct {
	tpm       transport.TPM
	ownerAuth secret.Bytes
	parent    loaded
}

// loaded is an object in the TPM.
type loaded struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

func (l loaded) named() tpm2.NamedHandle { return tpm2.NamedHandle{Handle: l.handle, Name: l.name} }

func (m *machine) owner(o ...tpm2.AuthOption) tpm2.AuthHandle { return ownerHandle(m.ownerAuth, o...) }

func ownerHandle(auth secret.Bytes, o ...tpm2.AuthOption) tpm2.AuthHandle {
	s := tpm2.PasswordAuth(auth.Reveal())
	if len(o) > 0 {
		s = tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, append(o, tpm2.Auth(auth.Reveal()))...)
	}
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: s}
}

// salted makes a session's key unknown to a listener on the bus.
func (l loaded) salted() tpm2.AuthOption { return tpm2.Salted(l.handle, l.public) }

// The parameter encryption of a session. The TPM refuses a direction in which
// the command has no sized buffer as its first parameter.
var (
	encryptIn   = tpm2.AESEncryption(128, tpm2.EncryptIn)
	encryptOut  = tpm2.AESEncryption(128, tpm2.EncryptOut)
	encryptBoth = tpm2.AESEncryption(128, tpm2.EncryptInOut)
)

// flush unloads. An error is of no use: a broken line is told by the operation
// itself and cleaned up after, and one that is gone already is what is wanted.
func flush(t transport.TPM, h tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: h}.Execute(t)
}

// withPolicy opens a policy session, lets prove satisfy it, runs use and always
// flushes the session. (go-tpm's Policy in one shot leaks it on failure.)
func withPolicy(t transport.TPM, prove, use func(s tpm2.Session) error, o ...tpm2.AuthOption) error {
	s, _, err := tpm2.PolicySession(t, tpm2.TPMAlgSHA256, nonceSize, o...)
	if err != nil {
		return fmt.Errorf("starting a policy session: %w", err)
	}
	defer flush(t, s.Handle())
	if err := prove(s); err != nil {
		return err
	}
	return use(s)
}

// asParent runs use with a session that the import parent accepts for command.
func (m *machine) asParent(command tpm2.TPMCC, use func(h tpm2.AuthHandle) error) error {
	return withPolicy(m.tpm, func(s tpm2.Session) error {
		if _, err := (tpm2.PolicyCommandCode{PolicySession: s.Handle(), Code: command}).Execute(m.tpm); err != nil {
			return err
		}
		_, err := tpm2.PolicyOr{PolicySession: s.Handle(), PHashList: parentBranches()}.Execute(m.tpm)
		return err
	}, func(s tpm2.Session) error {
		return use(tpm2.AuthHandle{Handle: m.parent.handle, Name: m.parent.name, Auth: s})
	})
}

func (m *machine) define(s Spec, a Auths) error {
	for _, k := range kinds {
		_, err := tpm2.NVDefineSpace{
			AuthHandle: m.owner(m.parent.salted(), encryptIn), Auth: tpm2.TPM2BAuth{Buffer: a.of(k).Reveal()},
			PublicInfo: tpm2.New2B(s.index(k, false)),
		}.Execute(m.tpm)
		if err == nil {
			continue
		}
		if k == UseIndex {
			_ = m.undefine(s, PasswordIndex) // the cause is told
		}
		return defining(k.String()+" index", err)
	}
	return nil
}

// defining types an error of TPM2_NV_DefineSpace.
func defining(what string, err error) error {
	switch {
	case errors.Is(err, tpm2.TPMRCNVSpace):
		return fail(ErrNoSpace, "defining the "+what, err)
	case errors.Is(err, tpm2.TPMRCNVDefined):
		return fail(ErrTaken, "defining the "+what, err)
	}
	return owning("defining the "+what, err)
}

// owning types an error of a command that the owner authorises.
func owning(doing string, err error) error {
	if isAny(err, []tpm2.TPMRC{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail, tpm2.TPMRCHierarchy}) {
		return fail(ErrOwner, doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// pending is a write of an index that waits for its permit. It has nothing
// loaded but one session, so that another operation finds room beside it.
type pending struct {
	m       *machine
	spec    Spec
	kind    Kind
	written bool
	session tpm2.Session
	nonce   tpm2.TPM2BNonce
}

func (m *machine) begin(s Spec, k Kind, written bool) (*pending, error) {
	if err := m.check(s, k, written); err != nil {
		return nil, err
	}
	ps, _, err := tpm2.PolicySession(m.tpm, tpm2.TPMAlgSHA256, nonceSize)
	if err != nil {
		return nil, fmt.Errorf("starting a policy session: %w", err)
	}
	return &pending{m, s, k, written, ps, ps.NonceTPM()}, nil
}

func (p *pending) end() { flush(p.m.tpm, p.session.Handle()) }

func (p *pending) finish(permit Permit) error {
	t := p.m.tpm
	key, err := tpm2.LoadExternal{InPublic: tpm2.New2B(p.spec.server), Hierarchy: tpm2.TPMRHOwner}.Execute(t)
	if err != nil {
		return fmt.Errorf("loading the server's public key: %w", err)
	}
	defer flush(t, key.ObjectHandle)
	if err := p.m.permit(p.spec, loaded{handle: key.ObjectHandle, name: key.Name}, p.session, p.nonce, p.kind, p.written, permit); err != nil {
		return err
	}
	if _, err := p.spec.nvWrite(p.kind, p.written, permit.Value, p.session).Execute(t); err != nil {
		return refused("writing the "+p.kind.String()+" tally", err)
	}
	return nil
}

// refused types the TPM's refusal of a permit; other failures stay what they are.
func refused(doing string, err error) error {
	var rc tpm2.TPMRC
	if !errors.As(err, &rc) || isAny(err, transient) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fail(ErrPermit, doing, err)
}

// permit satisfies an index's write policy in ps.
func (m *machine) permit(s Spec, key loaded, ps tpm2.Session, nonce tpm2.TPM2BNonce, k Kind, written bool, p Permit) error {
	sig, err := parseSignature(p.Signature)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPermit, err)
	}
	if p.Expiration <= 0 {
		return fmt.Errorf("%w: it does not expire", ErrPermit)
	}
	cp, err := s.cpHash(k, written, p.Value)
	if err != nil {
		return err
	}
	if _, err := (tpm2.PolicySigned{
		AuthObject: key.named(), PolicySession: ps.Handle(), NonceTPM: nonce, CPHashA: *cp,
		PolicyRef: tpm2.TPM2BNonce{Buffer: s.id.policyRef()}, Expiration: p.Expiration, Auth: *sig,
	}).Execute(m.tpm); err != nil {
		return refused("checking its signature", err)
	}
	_, err = tpm2.PolicyCommandCode{PolicySession: ps.Handle(), Code: tpm2.TPMCCNVWrite}.Execute(m.tpm)
	return err
}

// check compares an index's Name with the enrolled one.
func (m *machine) check(s Spec, k Kind, written bool) error {
	return checkIndex(m.tpm, k.String()+" index", s.named(k, written))
}

func checkIndex(t transport.TPM, what string, n tpm2.NamedHandle) error {
	r, err := tpm2.NVReadPublic{NVIndex: n.Handle}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return fail(ErrRemoved, what, err)
	}
	if err != nil {
		return fmt.Errorf("looking at the %s: %w", what, err)
	}
	if !bytes.Equal(r.NVName.Buffer, n.Name.Buffer) {
		return fmt.Errorf("%w: %s", ErrReplaced, what)
	}
	return nil
}

func (m *machine) status(s Spec) (st Status, err error) {
	for _, k := range kinds {
		if err := m.check(s, k, true); err != nil {
			return st, err
		}
		r, err := tpm2.NVRead{AuthHandle: m.owner(), NVIndex: s.named(k, true), Size: 8}.Execute(m.tpm)
		if err != nil {
			return st, owning("reading the "+k.String()+" tally", err)
		}
		if len(r.Data.Buffer) != 8 {
			return st, fmt.Errorf("%w: a tally of %d octets", ErrUnavailable, len(r.Data.Buffer))
		}
		v := Tally{binary.BigEndian.Uint32(r.Data.Buffer), binary.BigEndian.Uint32(r.Data.Buffer[4:])}
		if k == PasswordIndex {
			st.Passwords = v
		} else {
			st.Uses = v
		}
	}
	return st, nil
}

// parsePublic reads the public area of a verifier key from outside.
func parsePublic(b []byte) (*tpm2.TPMTPublic, error) {
	if len(b) > maxPublic {
		return nil, fmt.Errorf("%w: public area of %d octets", ErrRecord, len(b))
	}
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil {
		return nil, fmt.Errorf("%w: public area: %w", ErrRecord, err)
	}
	if p.Type != tpm2.TPMAlgKeyedHash {
		return nil, fmt.Errorf("%w: key of type %v", ErrRecord, p.Type)
	}
	return p, nil
}

func (m *machine) importKey(b Bundle) (blob Blob, err error) {
	pub, err := parsePublic(b.Public)
	if err != nil {
		return blob, err
	}
	if len(b.Duplicate) > maxBlob || len(b.Seed) > maxBlob {
		return blob, fmt.Errorf("%w: wrapped key of %d and %d octets", ErrRecord, len(b.Duplicate), len(b.Seed))
	}
	err = m.asParent(tpm2.TPMCCImport, func(parent tpm2.AuthHandle) error {
		r, err := tpm2.Import{
			ParentHandle: parent, ObjectPublic: tpm2.New2B(*pub),
			Duplicate: tpm2.TPM2BPrivate{Buffer: b.Duplicate}, InSymSeed: tpm2.TPM2BEncryptedSecret{Buffer: b.Seed},
			Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull},
		}.Execute(m.tpm)
		if err != nil {
			return fmt.Errorf("importing the key: %w", err)
		}
		blob = Blob{Parent: bytes.Clone(m.parent.name.Buffer), Public: b.Public, Private: r.OutPrivate.Buffer}
		return nil
	})
	return blob, err
}

// key is a loaded verifier key.
type key struct {
	m    *machine
	spec Spec
	obj  loaded
}

// load loads the key. ErrCleared means that the blob belongs to another TPM or
// to this one before it was cleared.
func (m *machine) load(s Spec, b Blob) (*key, error) {
	pub, err := parsePublic(b.Public)
	if err != nil {
		return nil, err
	}
	k := &key{m: m, spec: s}
	err = m.asParent(tpm2.TPMCCLoad, func(parent tpm2.AuthHandle) error {
		r, err := tpm2.Load{ParentHandle: parent, InPrivate: tpm2.TPM2BPrivate{Buffer: b.Private}, InPublic: tpm2.New2B(*pub)}.Execute(m.tpm)
		if errors.Is(err, tpm2.TPMRCIntegrity) {
			return fail(ErrCleared, "loading the key", err)
		}
		if err != nil {
			return fmt.Errorf("loading the key: %w", err)
		}
		k.obj = loaded{handle: r.ObjectHandle, name: r.Name}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (k *key) close() { flush(k.m.tpm, k.obj.handle) }

// mac costs one use, and only if the password was right.
func (k *key) mac(a Auths, message []byte) (mac []byte, err error) {
	err = withPolicy(k.m.tpm, func(ps tpm2.Session) error { return k.prove(a, ps) }, func(ps tpm2.Session) error {
		r, err := tpm2.Hmac{
			Handle: tpm2.AuthHandle{Handle: k.obj.handle, Name: k.obj.name, Auth: ps},
			Buffer: tpm2.TPM2BMaxBuffer{Buffer: message}, HashAlg: tpm2.TPMAlgSHA256,
		}.Execute(k.m.tpm)
		if err != nil {
			// The proofs went through, so the index Names differ from the key's.
			if errors.Is(err, tpm2.TPMRCPolicyFail) {
				return fail(ErrReplaced, "using the key", err)
			}
			return fmt.Errorf("using the key: %w", err)
		}
		if len(r.OutHMAC.Buffer) != sha256.Size {
			return fmt.Errorf("%w: an HMAC of %d octets", ErrUnavailable, len(r.OutHMAC.Buffer))
		}
		mac = r.OutHMAC.Buffer
		return nil
	}, k.m.parent.salted(), encryptBoth)
	return mac, err
}

// prove satisfies the key's policy in ps: the password first, so that a wrong
// one never costs a use. Parameter encryption always mixes in the session's own
// authValue, hence one session for each proof beside ps.
func (k *key) prove(a Auths, ps tpm2.Session) error {
	if err := k.secret(PasswordIndex, tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, k.m.parent.salted(), tpm2.Auth(a.Password.Reveal())), ps); err != nil {
		return err
	}
	if err := k.secret(UseIndex, tpm2.HMAC(tpm2.TPMAlgSHA256, nonceSize, tpm2.Auth(a.Use.Reveal())), ps); err != nil {
		return err
	}
	_, err := tpm2.PolicyCommandCode{PolicySession: ps.Handle(), Code: tpm2.TPMCCHMAC}.Execute(k.m.tpm)
	return err
}

func (k *key) secret(kind Kind, auth, ps tpm2.Session) error {
	n := k.spec.named(kind, true)
	_, err := tpm2.PolicySecret{
		AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: auth}, PolicySession: ps.Handle(), NonceTPM: ps.NonceTPM(),
	}.Execute(k.m.tpm)
	if err == nil {
		return nil
	}
	doing := "proving the " + kind.String() + " index"
	switch {
	case errors.Is(err, tpm2.TPMRCHandle):
		return fail(ErrRemoved, doing, err)
	case errors.Is(err, tpm2.TPMRCAuthUnavailable):
		// A full tally and an index that was never written look the same.
		if c := k.m.check(k.spec, kind, true); c != nil {
			return c
		}
		if kind == PasswordIndex {
			return fail(ErrLocked, doing, err)
		}
		return fail(ErrUsedUp, doing, err)
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		// The command's HMAC covers the index Name, so another index also
		// looks like a wrong password.
		if c := k.m.check(k.spec, kind, true); c != nil {
			return c
		}
		if kind == PasswordIndex {
			return fail(ErrWrongPassword, doing, err)
		}
		// The value in the machine's state is not the index's.
		return fail(ErrRecord, doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func (m *machine) remove(s Spec) error {
	return errors.Join(m.undefine(s, PasswordIndex), m.undefine(s, UseIndex))
}

func (m *machine) undefine(s Spec, k Kind) error {
	return undefine(m.tpm, m.owner(), k.String()+" index", s.handle(k), s.name(k, true), s.name(k, false))
}

// undefine deletes an index if it has one of the Names, or whatever Name it has
// if none is given. One that is gone is no error.
func undefine(t transport.TPM, owner tpm2.AuthHandle, what string, h tpm2.TPMHandle, names ...tpm2.TPM2BName) error {
	r, err := tpm2.NVReadPublic{NVIndex: h}.Execute(t)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("looking at the %s: %w", what, err)
	}
	found := len(names) == 0
	for _, n := range names {
		found = found || bytes.Equal(n.Buffer, r.NVName.Buffer)
	}
	if !found {
		return fmt.Errorf("%w: %s", ErrReplaced, what)
	}
	if _, err = (tpm2.NVUndefineSpace{AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: h, Name: r.NVName}}).Execute(t); err != nil {
		return owning("deleting the "+what, err)
	}
	return nil
}

// parseSignature reads the TPMT_SIGNATURE of a permit or an attestation.
func parseSignature(b []byte) (*tpm2.TPMTSignature, error) {
	if len(b) > maxPublic {
		return nil, fmt.Errorf("signature of %d octets: at most %d", len(b), maxPublic)
	}
	s, err := tpm2.Unmarshal[tpm2.TPMTSignature](b)
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	var clean tpm2.TPMTSignature
	switch s.SigAlg {
	case tpm2.TPMAlgECDSA:
		e, err := s.Signature.ECDSA()
		if err != nil || e.Hash != tpm2.TPMAlgSHA256 || len(e.SignatureR.Buffer) > 32 || len(e.SignatureS.Buffer) > 32 {
			return nil, errors.New("signature is not ECDSA on P-256 with SHA-256")
		}
		clean = tpm2.TPMTSignature{SigAlg: s.SigAlg, Signature: tpm2.NewTPMUSignature(s.SigAlg, e)}
	case tpm2.TPMAlgRSASSA:
		r, err := s.Signature.RSASSA()
		if err != nil || r.Hash != tpm2.TPMAlgSHA256 || len(r.Sig.Buffer) > 256 {
			return nil, errors.New("signature is not RSASSA of 2048 bits with SHA-256")
		}
		clean = tpm2.TPMTSignature{SigAlg: s.SigAlg, Signature: tpm2.NewTPMUSignature(s.SigAlg, r)}
	default:
		return nil, fmt.Errorf("signature by the algorithm %v", s.SigAlg)
	}
	if !bytes.Equal(tpm2.Marshal(clean), b) {
		return nil, errors.New("signature with something behind it")
	}
	return &clean, nil
}
