package tpm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"latchkey/internal/secret"
)

// If the use index had the password's authValue, it would tell right passwords
// from wrong ones without any count.
func TestO8AUseValueFromThePasswordWouldBeAnOracle(t *testing.T) {
	r := prepare(t, p256(t), 3, 5)
	r.auths.Use = r.auths.Password.Clone() // as first designed
	r.ok(r.m.define(r.spec, r.auths))
	r.ok(r.activate(r.spec, r.permit(false)))
	n := r.spec.named(UseIndex, true)
	guess := func(p []byte) error {
		return withPolicy(r.tpm, func(ps tpm2.Session) error {
			_, err := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(p)}, PolicySession: ps.Handle()}.Execute(r.tpm)
			return err
		}, func(tpm2.Session) error { return nil })
	}
	t0 := time.Now()
	for range 1000 {
		if err := guess(wrong); !errors.Is(err, tpm2.TPMRCBadAuth) {
			t.Fatal(err)
		}
	}
	r.counts(0, 0)
	r.want(guess(right), nil)
	t.Logf("HOLE with a shared authValue: 1000 wrong guesses in %v, no counter moved, the right one is told apart", time.Since(t0).Round(time.Millisecond))
}

// A common storage root key as the import parent gives the key away.
func TestO7TheImportParentDoesNotRewrap(t *testing.T) {
	r := enrol(t, p256(t), 3, 5)
	srk, err := tpm2.CreatePrimary{PrimaryHandle: r.m.owner(), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(r.tpm)
	r.ok(err)
	pub, err := srk.OutPublic.Contents()
	r.ok(err)
	rewrap := func(parent tpm2.TPMHandle, b Bundle) (tpm2.TPMRC, []byte) {
		p, err := tpm2.Unmarshal[tpm2.TPMTPublic](b.Public)
		r.ok(err)
		parms := tpm2.Marshal(tpm2.TPM2BPrivate{Buffer: b.Duplicate})
		parms = append(parms, tpm2.Marshal(*must(tpm2.ObjectName(p)))...)
		parms = append(parms, tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: b.Seed})...)
		return raw(r.tpm, tpm2.TPMCCRewrap, []uint32{uint32(parent), uint32(tpm2.TPMRHNull)}, emptyAuth, parms)
	}
	key := secret.New(random(32))
	b, err := wrapKey(key, r.spec.keyPolicy(), *pub)
	r.ok(err)
	rc, out := rewrap(srk.ObjectHandle, b)
	t.Logf("bundle for the storage root key: rc %#x, key in the answer: %v", uint32(rc), bytes.Contains(out, key.Reveal()))
	rc, out = rewrap(r.m.parent.handle, r.bundle)
	t.Logf("bundle for the import parent: rc %#x (%v), key in the answer: %v", uint32(rc), rc, bytes.Contains(out, r.key))
	if rc == 0 || bytes.Contains(out, r.key) {
		t.Fatal("rewrapped")
	}
	// Nor with a policy session that is good for TPM2_Import.
	r.want(r.m.asParent(tpm2.TPMCCImport, func(h tpm2.AuthHandle) error {
		auth := binary.BigEndian.AppendUint32(nil, uint32(h.Auth.Handle()))
		auth = append(auth, 0, 0, 1, 0, 0)
		p, err := tpm2.Unmarshal[tpm2.TPMTPublic](r.bundle.Public)
		r.ok(err)
		parms := tpm2.Marshal(tpm2.TPM2BPrivate{Buffer: r.bundle.Duplicate})
		parms = append(parms, tpm2.Marshal(*must(tpm2.ObjectName(p)))...)
		parms = append(parms, tpm2.Marshal(tpm2.TPM2BEncryptedSecret{Buffer: r.bundle.Seed})...)
		rc, _ := raw(r.tpm, tpm2.TPMCCRewrap, []uint32{uint32(h.Handle), uint32(tpm2.TPMRHNull)}, auth, parms)
		return rc
	}), tpm2.TPMRCPolicyCC)
	r.want(r.m.asParent(tpm2.TPMCCImport, func(h tpm2.AuthHandle) error {
		_, err := tpm2.Create{ParentHandle: h, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(r.tpm)
		return err
	}), tpm2.TPMRCPolicyCC)
	if _, err := ParseParent(tpm2.Marshal(*pub)); err == nil {
		t.Fatal("server wraps for a storage root key")
	}
}

// Every other way to use the key object.
func TestO7TheKeyDoesOneCommandOnly(t *testing.T) {
	r := enrol(t, p256(t), 5, 50)
	k, err := r.m.load(r.spec, r.blob)
	r.ok(err)
	auth := func(s tpm2.Session) tpm2.AuthHandle {
		return tpm2.AuthHandle{Handle: k.obj.handle, Name: k.obj.name, Auth: s}
	}
	msg := tpm2.TPM2BMaxBuffer{Buffer: []byte("x")}
	_, err = tpm2.Hmac{Handle: auth(tpm2.PasswordAuth(nil)), Buffer: msg, HashAlg: tpm2.TPMAlgSHA256}.Execute(r.tpm)
	r.want(err, tpm2.TPMRCAuthUnavailable)
	t.Logf("HMAC with the empty password: %#x", code(err))
	with := func(use func(s tpm2.Session) error) error {
		return withPolicy(r.tpm, func(ps tpm2.Session) error { return k.prove(r.auths, ps) }, use)
	}
	r.want(with(func(s tpm2.Session) error {
		_, err := tpm2.HmacStart{Handle: auth(s), HashAlg: tpm2.TPMAlgSHA256}.Execute(r.tpm)
		return err
	}), tpm2.TPMRCPolicyCC)
	r.want(with(func(s tpm2.Session) error {
		_, err := tpm2.Duplicate{ObjectHandle: auth(s), NewParentHandle: tpm2.TPMRHNull, Symmetric: tpm2.TPMTSymDef{Algorithm: tpm2.TPMAlgNull}}.Execute(r.tpm)
		return err
	}), tpm2.TPMRCPolicyCC)
	r.want(with(func(s tpm2.Session) error {
		_, err := tpm2.Sign{
			KeyHandle: auth(s), Digest: tpm2.TPM2BDigest{Buffer: make([]byte, 32)}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgHMAC, Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256})},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(r.tpm)
		return err
	}), tpm2.TPMRCPolicyCC)
	// Use first and password second is another policy.
	r.want(withPolicy(r.tpm, func(ps tpm2.Session) error {
		if err := k.secret(UseIndex, tpm2.PasswordAuth(r.auths.Use.Reveal()), ps); err != nil {
			return err
		}
		if err := k.secret(PasswordIndex, tpm2.PasswordAuth(right), ps); err != nil {
			return err
		}
		_, err := tpm2.PolicyCommandCode{PolicySession: ps.Handle(), Code: tpm2.TPMCCHMAC}.Execute(r.tpm)
		return err
	}, func(s tpm2.Session) error {
		_, err := tpm2.Hmac{Handle: auth(s), Buffer: msg, HashAlg: tpm2.TPMAlgSHA256}.Execute(r.tpm)
		return err
	}), tpm2.TPMRCPolicyFail)
	k.close()
}

// Without PolicyCommandCode(HMAC) one use gives any number of HMACs: a started
// HMAC sequence can be saved and loaded again and again.
func TestO8ASequenceWouldMultiplyUses(t *testing.T) {
	r := enrol(t, p256(t), 5, 50)
	loose := digest(tpm2.PolicySecret{AuthHandle: r.spec.named(PasswordIndex, true)}, tpm2.PolicySecret{AuthHandle: r.spec.named(UseIndex, true)})
	key := secret.New(random(32))
	b, err := wrapKey(key, loose, r.m.parent.public)
	r.ok(err)
	blob, err := r.m.importKey(b)
	r.ok(err)
	k, err := r.m.load(r.spec, blob)
	r.ok(err)
	defer k.close()
	var seq tpm2.TPMHandle
	r.ok(withPolicy(r.tpm, func(ps tpm2.Session) error {
		if err := k.secret(PasswordIndex, tpm2.PasswordAuth(right), ps); err != nil {
			return err
		}
		return k.secret(UseIndex, tpm2.PasswordAuth(r.auths.Use.Reveal()), ps)
	}, func(s tpm2.Session) error {
		h, err := tpm2.HmacStart{Handle: tpm2.AuthHandle{Handle: k.obj.handle, Name: k.obj.name, Auth: s}, HashAlg: tpm2.TPMAlgSHA256}.Execute(r.tpm)
		if err == nil {
			seq = tpm2.TPMHandle(h.SequenceHandle)
		}
		return err
	}))
	saved, err := tpm2.ContextSave{SaveHandle: tpm2.TPMIDHContext(seq)}.Execute(r.tpm)
	r.ok(err)
	tpm2.FlushContext{FlushHandle: seq}.Execute(r.tpm)
	good := 0
	for i := range 10 {
		l, err := tpm2.ContextLoad{Context: saved.Context}.Execute(r.tpm)
		if err != nil {
			t.Logf("load %d: %v (%#x)", i, err, code(err))
			break
		}
		msg := []byte{byte(i)}
		c, err := tpm2.SequenceComplete{SequenceHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(l.LoadedHandle), Auth: tpm2.PasswordAuth(nil)}, Buffer: tpm2.TPM2BMaxBuffer{Buffer: msg}, Hierarchy: tpm2.TPMRHNull}.Execute(r.tpm)
		if err != nil {
			t.Logf("complete %d: %v (%#x)", i, err, code(err))
			break
		}
		if bytes.Equal(c.Result.Buffer, hmacOf(key.Reveal(), msg)) {
			good++
		}
	}
	st, err := r.m.status(r.spec)
	r.ok(err)
	if good != 10 || st.Uses.Count != 1 {
		t.Errorf("without PolicyCommandCode(HMAC): %d HMACs for %d uses; is the command still needed in the policy?", good, st.Uses.Count)
	}
}

// A negative expiration asks for a ticket that stands for the proof later.
func TestO8UsesAreNotGivenAsTickets(t *testing.T) {
	r := enrol(t, p256(t), 5, 50)
	for _, k := range []Kind{PasswordIndex, UseIndex} {
		n := r.spec.named(k, true)
		auth := map[Kind][]byte{PasswordIndex: right, UseIndex: r.auths.Use.Reveal()}[k]
		for _, withNonce := range []bool{false, true} {
			var rsp *tpm2.PolicySecretResponse
			r.ok(withPolicy(r.tpm, func(ps tpm2.Session) (err error) {
				c := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(auth)}, PolicySession: ps.Handle(), Expiration: -1000000}
				if withNonce {
					c.NonceTPM = ps.NonceTPM()
				}
				rsp, err = c.Execute(r.tpm)
				return err
			}, func(tpm2.Session) error { return nil }))
			// Uses must not come as tickets: each would stand for many.
			if got := len(rsp.PolicyTicket.Digest.Buffer) > 0; got != (k == PasswordIndex) {
				t.Errorf("%s index, nonce %v: a ticket is given: %v", k, withNonce, got)
			}
			if len(rsp.PolicyTicket.Digest.Buffer) == 0 {
				continue
			}
			err := withPolicy(r.tpm, func(ps tpm2.Session) error {
				b := tpm2.Marshal(rsp.Timeout)
				b = append(b, 0, 0, 0, 0) // cpHashA, policyRef
				b = append(b, tpm2.Marshal(n.Name)...)
				b = append(b, tpm2.Marshal(rsp.PolicyTicket)...)
				if rc, _ := raw(r.tpm, tpm2.TPMCCPolicyTicket, []uint32{uint32(ps.Handle())}, nil, b); rc != 0 {
					return rc
				}
				return nil
			}, func(tpm2.Session) error { return nil })
			r.ok(err) // known, see the package's promises
		}
	}
	st, err := r.m.status(r.spec)
	r.ok(err)
	if st.Uses.Count != 2 {
		t.Errorf("two uses proven, %d counted", st.Uses.Count)
	}
}

// A ticket for the password index ends with the TPM's next start.
func TestO8ATicketEndsWithTheNextStart(t *testing.T) {
	r := enrol(t, p256(t), 3, 50)
	n := r.spec.named(PasswordIndex, true)
	var rsp *tpm2.PolicySecretResponse
	r.ok(withPolicy(r.tpm, func(ps tpm2.Session) (err error) {
		rsp, err = tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(right)}, PolicySession: ps.Handle(), Expiration: -1 << 31}.Execute(r.tpm)
		return err
	}, func(tpm2.Session) error { return nil }))
	use := func() error {
		k, err := r.m.load(r.spec, r.blob)
		r.ok(err)
		defer k.close()
		return withPolicy(r.tpm, func(ps tpm2.Session) error {
			b := tpm2.Marshal(rsp.Timeout)
			b = append(b, 0, 0, 0, 0)
			b = append(b, tpm2.Marshal(n.Name)...)
			b = append(b, tpm2.Marshal(rsp.PolicyTicket)...)
			if rc, _ := raw(r.tpm, tpm2.TPMCCPolicyTicket, []uint32{uint32(ps.Handle())}, nil, b); rc != 0 {
				return rc
			}
			if err := k.secret(UseIndex, tpm2.PasswordAuth(r.auths.Use.Reveal()), ps); err != nil {
				return err
			}
			_, err := tpm2.PolicyCommandCode{PolicySession: ps.Handle(), Code: tpm2.TPMCCHMAC}.Execute(r.tpm)
			return err
		}, func(s tpm2.Session) error {
			_, err := tpm2.Hmac{Handle: tpm2.AuthHandle{Handle: k.obj.handle, Name: k.obj.name, Auth: s}, Buffer: tpm2.TPM2BMaxBuffer{Buffer: []byte("x")}, HashAlg: tpm2.TPMAlgSHA256}.Execute(r.tpm)
			return err
		})
	}
	for range 3 {
		r.want(r.try(wrong), ErrWrongPassword)
	}
	r.want(r.try(right), ErrLocked)
	err := use()
	t.Logf("ticket while the password is locked: %v (%#x)", err, code(err))
	r.restart()
	err = use()
	r.want(err, tpm2.TPMRCTicket)
	r.ok(r.m.remove(r.spec))
}

// A session that was proved before the index went is good for one HMAC after.
func TestO14AKeyIsDeadOnceItsIndicesAreRemoved(t *testing.T) {
	r := enrol(t, p256(t), 3, 5)
	k, err := r.m.load(r.spec, r.blob)
	r.ok(err)
	defer k.close()
	err = withPolicy(r.tpm, func(ps tpm2.Session) error {
		r.ok(k.prove(r.auths, ps))
		return r.m.remove(r.spec)
	}, func(s tpm2.Session) error {
		_, err := tpm2.Hmac{Handle: tpm2.AuthHandle{Handle: k.obj.handle, Name: k.obj.name, Auth: s}, Buffer: tpm2.TPM2BMaxBuffer{Buffer: []byte("x")}, HashAlg: tpm2.TPMAlgSHA256}.Execute(r.tpm)
		return err
	})
	t.Logf("HMAC in a session proved before the removal: %v (%#x)", err, code(err))
	r.want(r.try(right), ErrRemoved)
}

// The server can have the import parent certified by a key of the TPM.
func TestTheParentCanBeCertified(t *testing.T) {
	r := prepare(t, p256(t), 3, 5)
	akt := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, Restricted: true, SignEncrypt: true, NoDA: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme:  tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
		}),
	}
	ak, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(nil)}, InPublic: tpm2.New2B(akt)}.Execute(r.tpm)
	r.ok(err)
	c, err := tpm2.Certify{
		ObjectHandle: tpm2.AuthHandle{Handle: r.m.parent.handle, Name: r.m.parent.name, Auth: tpm2.PasswordAuth(nil)},
		SignHandle:   tpm2.AuthHandle{Handle: ak.ObjectHandle, Name: ak.Name, Auth: tpm2.PasswordAuth(nil)}, QualifyingData: tpm2.TPM2BData{Buffer: []byte("nonce")},
		InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(r.tpm)
	r.ok(err)
	a, err := c.CertifyInfo.Contents()
	r.ok(err)
	info, err := a.Attested.Certify()
	r.ok(err)
	if !bytes.Equal(info.Name.Buffer, r.m.parent.name.Buffer) {
		t.Fatal("certified another name")
	}
	_, err = ParseParent(tpm2.Marshal(r.m.parent.public))
	r.ok(err)
}

// The verifier works while the whole TPM is in dictionary-attack lockout.
func TestAVerifierWorksWhileTheTPMIsLockedOut(t *testing.T) {
	r := enrol(t, p256(t), 5, 5)
	pub := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true},
	}
	c, err := tpm2.CreatePrimary{PrimaryHandle: r.m.owner(), InPublic: tpm2.New2B(pub), InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
		UserAuth: tpm2.TPM2BAuth{Buffer: []byte("x")}, Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: []byte("y")}),
	}}}.Execute(r.tpm)
	r.ok(err)
	unseal := func() error {
		_, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: c.ObjectHandle, Name: c.Name, Auth: tpm2.PasswordAuth([]byte("bad"))}}.Execute(r.tpm)
		return err
	}
	n := 0
	for ; n < 100 && !errors.Is(unseal(), tpm2.TPMRCLockout); n++ {
	}
	t.Logf("TPM_RC_LOCKOUT for a common object after %d failures", n)
	tpm2.FlushContext{FlushHandle: c.ObjectHandle}.Execute(r.tpm)
	r.want(r.try(wrong), ErrWrongPassword)
	r.want(r.try(right), nil)
}

// The dictionary-attack lock of the whole TPM is never touched.
func TestWrongPasswordsDoNotLockTheTPM(t *testing.T) {
	r := enrol(t, p256(t), 60, 50)
	get := func() uint32 {
		g, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter), PropertyCount: 1}.Execute(r.tpm)
		r.ok(err)
		l, err := g.CapabilityData.Data.TPMProperties()
		r.ok(err)
		return l.TPMProperty[0].Value
	}
	for range 50 {
		r.try(wrong)
	}
	r.counts(50, 0)
	if get() != 0 {
		t.Fatal("lockout counter moved")
	}
}
