package tpm

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

func hmacOf(key, msg []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(msg)
	return h.Sum(nil)
}

// Property 1: the right password gives the server's HMAC, with both key types.
func TestO8TheRightPasswordGivesTheServersHMAC(t *testing.T) {
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []crypto.Signer{p256(t), rk} {
		t.Run(fmt.Sprintf("%T", s), func(t *testing.T) {
			r := enrol(t, s, 5, 10)
			k, err := r.m.load(r.spec, r.blob)
			r.ok(err)
			defer k.close()
			mac, err := k.mac(r.auths, []byte("hello"))
			r.ok(err)
			if !bytes.Equal(mac, hmacOf(r.key, []byte("hello"))) {
				t.Fatal("HMAC differs from the server's")
			}
			r.counts(0, 1)
		})
	}
}

// Property 2: wrong passwords are counted, lock, and survive a power cut.
func TestO8WrongPasswordsAreCountedAndLock(t *testing.T) {
	r := enrol(t, p256(t), 3, 20)
	r.want(r.try(wrong), ErrWrongPassword)
	r.want(r.try(wrong), ErrWrongPassword)
	r.counts(2, 0)
	r.restart()
	r.counts(2, 0)
	r.want(r.try(right), nil)
	r.counts(0, 1)
	for range 3 {
		r.want(r.try(wrong), ErrWrongPassword)
	}
	r.counts(3, 1)
	r.want(r.try(right), ErrLocked)
	r.restart()
	r.want(r.try(right), ErrLocked)
	r.want(r.try(wrong), ErrLocked)
	r.counts(3, 1)
	r.ok(r.lift(r.spec, PasswordIndex, r.permit(true)))
	r.want(r.try(right), nil)
	r.counts(0, 2)
}

// What exactly changes the counters: the authorisation alone, whatever becomes
// of the command that carries it.
func TestO8TheAuthorisationAloneCounts(t *testing.T) {
	r := enrol(t, p256(t), 5, 20)
	secret := func(k Kind, auth []byte, nonce tpm2.TPM2BNonce, o ...tpm2.AuthOption) error {
		n := r.spec.named(k, true)
		return withPolicy(r.tpm, func(ps tpm2.Session) error {
			_, err := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(auth)}, PolicySession: ps.Handle(), NonceTPM: nonce}.Execute(r.tpm)
			return err
		}, func(tpm2.Session) error { return nil }, o...)
	}
	bad := tpm2.TPM2BNonce{Buffer: make([]byte, 32)}
	r.want(r.try(wrong), ErrWrongPassword)
	r.want(secret(PasswordIndex, right, bad), tpm2.TPMRCNonce)
	r.counts(0, 0)
	t.Log("right password in a failing PolicySecret: resets the password counter")
	r.want(secret(UseIndex, r.auths.Use.Reveal(), bad), tpm2.TPMRCNonce)
	r.counts(0, 1)
	t.Log("right use ticket in a failing PolicySecret: costs a use")
	r.want(secret(UseIndex, r.auths.Use.Reveal(), tpm2.TPM2BNonce{}, tpm2.Trial()), nil)
	r.counts(0, 2)
	t.Log("trial session: costs a use")
	r.want(secret(PasswordIndex, wrong, tpm2.TPM2BNonce{}, tpm2.Trial()), tpm2.TPMRCBadAuth)
	r.counts(1, 2)
	// swtpm lets the index's authValue read it though AUTHREAD is clear; that
	// use of the authValue counts like any other.
	n := r.spec.named(PasswordIndex, true)
	_, err := tpm2.NVRead{AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(right)}, NVIndex: n, Size: 8}.Execute(r.tpm)
	t.Logf("NV_Read with the index's authValue: %v (%#x)", err, code(err))
	st, _ := r.m.status(r.spec)
	if want := (map[bool]uint32{true: 0, false: 1})[err == nil]; st.Passwords.Count != want || st.Uses.Count != 2 {
		t.Fatal(st)
	}
	_, err = tpm2.NVRead{AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(wrong)}, NVIndex: n, Size: 8}.Execute(r.tpm)
	t.Logf("NV_Read with a wrong authValue: %v (%#x)", err, code(err))
	if st, _ = r.m.status(r.spec); err == nil || st.Passwords.Count == 0 {
		t.Fatal("a wrong guess that is not counted", st)
	}
	// Status itself changes nothing.
	st2, _ := r.m.status(r.spec)
	if st != st2 {
		t.Fatal("Status changes a counter")
	}
}

// Property 3: N uses, whatever the password.
func TestO8UsesAreLimited(t *testing.T) {
	r := enrol(t, p256(t), 5, 4)
	for range 4 {
		r.want(r.try(right), nil)
	}
	r.counts(0, 4)
	r.want(r.try(right), ErrUsedUp)
	r.want(r.try(wrong), ErrWrongPassword)
	r.counts(1, 4)
	r.restart()
	r.want(r.try(right), ErrUsedUp)
	r.counts(0, 4) // the password proof alone resets its counter
	r.ok(r.lift(r.spec, UseIndex, r.permit(true)))
	r.want(r.try(right), nil)
	// A session gives one HMAC: it is empty after it.
	k, err := r.m.load(r.spec, r.blob)
	r.ok(err)
	defer k.close()
	r.want(withPolicy(r.tpm, func(ps tpm2.Session) error { return k.prove(r.auths, ps) }, func(ps tpm2.Session) error {
		h := tpm2.Hmac{Handle: tpm2.AuthHandle{Handle: k.obj.handle, Name: k.obj.name, Auth: ps}, Buffer: tpm2.TPM2BMaxBuffer{Buffer: []byte("a")}, HashAlg: tpm2.TPMAlgSHA256}
		if _, err := h.Execute(r.tpm); err != nil {
			return err
		}
		_, err := h.Execute(r.tpm)
		return err
	}), tpm2.TPMRCPolicyFail)
}

// Property 4: who can write the counters.
func TestO8OnlyTheServerWritesTheTallies(t *testing.T) {
	t.Run("a: activation needs the unwritten Name", func(t *testing.T) {
		r := prepare(t, p256(t), 3, 5)
		r.ok(r.m.define(r.spec, r.auths))
		r.want(r.lift(r.spec, PasswordIndex, r.permit(true)), ErrReplaced) // our own check
		// The TPM's check: a permit for the written Name on an unwritten index.
		r.want(r.m.writeAs(r.spec, PasswordIndex, true, false, r.permit(true)), tpm2.TPMRCPolicyFail)
		r.ok(r.activate(r.spec, r.permit(false)))
		// And the other way round on a written one.
		r.want(r.m.writeAs(r.spec, PasswordIndex, false, true, r.permit(false)), tpm2.TPMRCPolicyFail)
		r.counts(0, 0)
	})
	t.Run("b: redefined index", func(t *testing.T) {
		r := enrol(t, p256(t), 3, 5)
		r.want(r.try(wrong), ErrWrongPassword)
		mine := AuthValue(secret.FromString("mallory")).Reveal()
		r.ok(r.m.undefine(r.spec, PasswordIndex))
		pub := r.spec.index(PasswordIndex, false)
		_, err := tpm2.NVDefineSpace{AuthHandle: r.m.owner(), Auth: tpm2.TPM2BAuth{Buffer: mine}, PublicInfo: tpm2.New2B(pub)}.Execute(r.tpm)
		r.ok(err)
		r.want(r.try(mine), ErrReplaced)
		r.want(r.lift(r.spec, PasswordIndex, r.permit(true)), ErrReplaced)
		r.want(r.m.writeAs(r.spec, PasswordIndex, true, false, r.permit(true)), tpm2.TPMRCPolicyFail)
		// PolicySecret on the unwritten index itself is refused.
		r.want(r.proveAs(mine, r.spec.name(PasswordIndex, false)), tpm2.TPMRCAuthUnavailable)
		// A policy digest with the written Name cannot be had by lying about it:
		// the TPM uses its own Name.
		r.want(r.proveAs(mine, r.spec.name(PasswordIndex, true)), tpm2.TPMRCAuthUnavailable)
	})
	t.Run("b2: a spare activation permit", func(t *testing.T) {
		r := enrol(t, p256(t), 3, 5)
		mine := AuthValue(secret.FromString("mallory")).Reveal()
		r.ok(r.m.undefine(r.spec, PasswordIndex))
		_, err := tpm2.NVDefineSpace{AuthHandle: r.m.owner(), Auth: tpm2.TPM2BAuth{Buffer: mine}, PublicInfo: tpm2.New2B(r.spec.index(PasswordIndex, false))}.Execute(r.tpm)
		r.ok(err)
		r.ok(r.write(r.spec, PasswordIndex, false, r.permit(false))) // the server signs a second activation
		if err := r.try(mine); err != nil {
			t.Fatalf("expected the key to open for mallory: %v", err)
		}
		t.Log("HOLE if the server ever signs a second activation: the key opens with mallory's password")
	})
	t.Run("c: owner and own authValue cannot write", func(t *testing.T) {
		r := enrol(t, p256(t), 3, 5)
		for _, k := range []Kind{PasswordIndex, UseIndex} {
			n := r.spec.named(k, true)
			for what, a := range map[string]tpm2.AuthHandle{
				"owner": r.m.owner(),
				"index": {Handle: n.Handle, Name: n.Name, Auth: tpm2.PasswordAuth(map[Kind][]byte{PasswordIndex: right, UseIndex: r.auths.Use.Reveal()}[k])},
			} {
				_, err := tpm2.NVWrite{AuthHandle: a, NVIndex: n, Data: tpm2.TPM2BMaxNVBuffer{Buffer: Tally{0, 99}.marshal()}}.Execute(r.tpm)
				t.Logf("%s, %s authorisation: %v (%#x)", k, what, err, code(err))
				if err == nil {
					t.Fatal("written")
				}
			}
			_, err := tpm2.NVWriteLock{AuthHandle: r.m.owner(), NVIndex: n}.Execute(r.tpm)
			t.Logf("%s, NV_WriteLock by owner: %v (%#x)", k, err, code(err))
			// TPM2_NV_ChangeAuth wants a policy for that command; ours is for NV_Write.
			rc, _ := raw(r.tpm, tpm2.TPMCCNVChangeAuth, []uint32{uint32(n.Handle)}, emptyAuth, []byte{0, 1, 'x'})
			t.Logf("%s, NV_ChangeAuth with a password: %v (%#x)", k, rc, uint32(rc))
			if rc == 0 {
				t.Fatal("auth changed")
			}
		}
		st, err := r.m.status(r.spec)
		r.ok(err)
		if st.Passwords.Limit != 3 || st.Uses.Limit != 5 {
			t.Fatal(st)
		}
	})
	t.Run("d: replay, forgery, expiry", func(t *testing.T) {
		r := enrol(t, p256(t), 3, 5)
		var old Permit
		r.ok(r.lift(r.spec, PasswordIndex, func(k Kind, n []byte) (p Permit, err error) { old, err = r.permit(true)(k, n); return old, err }))
		r.want(r.lift(r.spec, PasswordIndex, func(Kind, []byte) (Permit, error) { return old, nil }), tpm2.TPMRCSignature)
		r.want(r.lift(r.spec, PasswordIndex, func(k Kind, n []byte) (Permit, error) { // another value
			p, err := r.permit(true)(k, n)
			p.Value.Limit = 99
			return p, err
		}), tpm2.TPMRCSignature)
		r.want(r.lift(r.spec, PasswordIndex, func(k Kind, n []byte) (Permit, error) { return r.permit(true)(UseIndex, n) }), tpm2.TPMRCSignature)
		other := r.spec
		other.id.Generation++
		r.want(r.lift(r.spec, PasswordIndex, func(k Kind, n []byte) (Permit, error) {
			return signPermit(r.signer, other, k, true, r.limits[k], n, 60)
		}), tpm2.TPMRCSignature)
		evil := p256(t)
		r.want(r.lift(r.spec, PasswordIndex, func(k Kind, n []byte) (Permit, error) {
			return signPermit(imposter{r.signer, evil}, r.spec, k, true, r.limits[k], n, 60)
		}), tpm2.TPMRCSignature)
		t0 := time.Now()
		r.want(r.m.writeAfter(r.spec, PasswordIndex, 2500*time.Millisecond, func(k Kind, n []byte) (Permit, error) {
			return signPermit(r.signer, r.spec, k, true, r.limits[k], n, 1)
		}), tpm2.TPMRCExpired)
		t.Logf("expiry of 1 s refused after %v", time.Since(t0).Round(time.Millisecond))
		_, err := signPermit(r.signer, r.spec, PasswordIndex, true, Tally{0, 9}, nil, 60)
		if err == nil {
			t.Fatal("permit without a nonce")
		}
		// The same session used again: its nonce has moved on.
		r.want(r.twice(), tpm2.TPMRCNonce)
	})
}

// writeAs writes with a permit made for the Name permitted while the index has
// the Name actual, without the package's own check of it.
func (m *machine) writeAs(s Spec, k Kind, permitted, actual bool, ask asker) error {
	key, err := tpm2.LoadExternal{InPublic: tpm2.New2B(s.server), Hierarchy: tpm2.TPMRHOwner}.Execute(m.tpm)
	if err != nil {
		return err
	}
	defer tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(m.tpm)
	var p Permit
	return withPolicy(m.tpm, func(ps tpm2.Session) error {
		n := ps.NonceTPM()
		if p, err = ask(k, n.Buffer); err != nil {
			return err
		}
		return m.permit(s, loaded{handle: key.ObjectHandle, name: key.Name}, ps, n, k, permitted, p)
	}, func(ps tpm2.Session) error {
		_, err := s.nvWrite(k, actual, p.Value, ps).Execute(m.tpm)
		return err
	})
}

func (m *machine) writeAfter(s Spec, k Kind, d time.Duration, ask asker) error {
	key, err := tpm2.LoadExternal{InPublic: tpm2.New2B(s.server), Hierarchy: tpm2.TPMRHOwner}.Execute(m.tpm)
	if err != nil {
		return err
	}
	defer tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(m.tpm)
	var p Permit
	return withPolicy(m.tpm, func(ps tpm2.Session) error {
		n := ps.NonceTPM()
		if p, err = ask(k, n.Buffer); err != nil {
			return err
		}
		return m.permit(s, loaded{handle: key.ObjectHandle, name: key.Name}, ps, n, k, true, p)
	}, func(ps tpm2.Session) error {
		time.Sleep(d)
		_, err := s.nvWrite(k, true, p.Value, ps).Execute(m.tpm)
		return err
	})
}

// imposter shows one key and signs with another.
type imposter struct {
	crypto.Signer
	signs crypto.Signer
}

func (i imposter) Sign(rand io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return i.signs.Sign(rand, digest, o)
}

// twice uses one permit twice in the same session.
func (r *rig) twice() error {
	key, err := tpm2.LoadExternal{InPublic: tpm2.New2B(r.spec.server), Hierarchy: tpm2.TPMRHOwner}.Execute(r.tpm)
	r.ok(err)
	defer tpm2.FlushContext{FlushHandle: key.ObjectHandle}.Execute(r.tpm)
	k := loaded{handle: key.ObjectHandle, name: key.Name}
	return withPolicy(r.tpm, func(ps tpm2.Session) error {
		n := tpm2.TPM2BNonce{Buffer: append([]byte{}, ps.NonceTPM().Buffer...)}
		p, err := r.permit(true)(PasswordIndex, n.Buffer)
		r.ok(err)
		r.ok(r.m.permit(r.spec, k, ps, n, PasswordIndex, true, p))
		_, err = r.spec.nvWrite(PasswordIndex, true, p.Value, ps).Execute(r.tpm)
		r.ok(err)
		return r.m.permit(r.spec, k, ps, n, PasswordIndex, true, p)
	}, func(tpm2.Session) error { return nil })
}

// proveAs does PolicySecret on the password index under a given Name.
func (r *rig) proveAs(auth []byte, name tpm2.TPM2BName) error {
	return withPolicy(r.tpm, func(ps tpm2.Session) error {
		_, err := tpm2.PolicySecret{AuthHandle: tpm2.AuthHandle{Handle: r.spec.fail, Name: name, Auth: tpm2.PasswordAuth(auth)}, PolicySession: ps.Handle()}.Execute(r.tpm)
		return err
	}, func(tpm2.Session) error { return nil })
}

// Property 5: no index, no key; and a later one with the next generation does
// not bring it back.
func TestO14NoIndexNoKey(t *testing.T) {
	r := enrol(t, p256(t), 3, 5)
	r.want(r.try(right), nil)
	r.ok(r.m.remove(r.spec))
	r.want(r.try(right), ErrRemoved)
	next := r.spec
	next.id.Generation++
	r.ok(r.m.define(next, r.auths))
	r.ok(r.activate(next, func(k Kind, n []byte) (Permit, error) {
		return signPermit(r.signer, next, k, false, r.limits[k], n, 60)
	}))
	r.want(r.try(right), ErrReplaced)
	k, err := r.m.load(r.spec, r.blob)
	r.ok(err)
	defer k.close()
	r.want(r.m.remove(r.spec), ErrReplaced) // the old spec does not delete the new indices
	k.spec = next                           // even with true proofs on the new indices
	_, err = k.mac(r.auths, []byte("x"))
	r.want(err, tpm2.TPMRCPolicyFail)
}

// Property 6: what is seen after TPM2_Clear, next to the other refusals.
func TestO17WhatAClearedTPMAnswers(t *testing.T) {
	r := enrol(t, p256(t), 3, 5)
	name := r.m.parent.name.Buffer
	_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(r.tpm)
	r.ok(err)
	// The parent that was loaded is flushed by the TPM.
	_, err = tpm2.ReadPublic{ObjectHandle: r.m.parent.handle}.Execute(r.tpm)
	t.Logf("loaded parent after Clear: %v (%#x)", err, code(err))
	_, err = openMachine(r.tpm, nil, name)
	r.want(err, ErrCleared)
	m, err := openMachine(r.tpm, nil, nil) // an agent that forgot the name
	r.ok(err)
	r.m = m
	_, err = m.status(r.spec)
	r.want(err, ErrRemoved)
	r.want(r.try(right), ErrCleared)
	_, err = m.importKey(r.bundle)
	t.Logf("import of the old bundle: %v (%#x)", err, code(err))
	if err == nil {
		t.Fatal("old bundle imported")
	}
	// The same indices again: they are no help, the blob is dead.
	r.ok(m.define(r.spec, r.auths))
	r.ok(r.activate(r.spec, r.permit(false)))
	r.want(r.try(right), ErrCleared)
}

// Property 7: neither the authValues nor the code nor the HMAC cross the bus.
func TestO7NeitherPasswordNorCodeCrossesTheBus(t *testing.T) {
	r := prepare(t, p256(t), 3, 5)
	b := &bus{TPM: r.tpm}
	r.m.tpm = b
	r.ok(r.m.define(r.spec, r.auths))
	r.ok(r.activate(r.spec, r.permit(false)))
	r.makeKey()
	key := r.key
	k, err := r.m.load(r.spec, r.blob)
	r.ok(err)
	defer k.close()
	msg := wire.CodeMessage(30, 1, "123456")
	mac, err := k.mac(r.auths, msg)
	r.ok(err)
	if !bytes.Equal(mac, hmacOf(key, msg)) {
		t.Fatal("wrong HMAC")
	}
	n := 0
	for _, p := range b.seen {
		n += len(p)
		for what, s := range map[string][]byte{"password": right, "use": r.auths.Use.Reveal(), "hmac": mac, "tag": mac[:8], "message": msg, "code": []byte("123456"), "key": key} {
			if bytes.Contains(p, s) {
				t.Errorf("%s in the clear in %x", what, p)
			}
		}
	}
	t.Logf("%d packets, %d octets, nothing found", len(b.seen), n)
}

// With an owner password everything goes on, given that the agent knows it; a
// check needs it only for Open.
func TestAnOwnersPassword(t *testing.T) {
	r := enrol(t, p256(t), 3, 5)
	own := []byte("owner")
	_, err := tpm2.HierarchyChangeAuth{AuthHandle: r.m.owner(), NewAuth: tpm2.TPM2BAuth{Buffer: own}}.Execute(r.tpm)
	r.ok(err)
	r.want(r.try(right), nil)
	_, err = r.m.status(r.spec)
	r.want(err, tpm2.TPMRCBadAuth)
	_, err = openMachine(r.tpm, nil, nil)
	r.want(err, tpm2.TPMRCBadAuth)
	r.m.close()
	m, err := openMachine(r.tpm, own, r.m.parent.name.Buffer)
	r.ok(err)
	r.m = m
	r.want(r.try(right), nil)
	r.counts(0, 2)
	r.ok(m.remove(r.spec))
	r.ok(m.define(r.spec, r.auths))
}

// go-tpm mixes a session's authValue into the parameter encryption even where
// the session authorises nothing; so one session cannot serve both ends.
func TestOneSessionCannotServeBothEnds(t *testing.T) {
	r := enrol(t, p256(t), 3, 5)
	for _, auth := range [][]byte{nil, right} {
		s, end, err := tpm2.HMACSession(r.tpm, tpm2.TPMAlgSHA256, nonceSize, r.m.parent.salted(), tpm2.AESEncryption(128, tpm2.EncryptOut), tpm2.Auth(auth))
		r.ok(err)
		_, err = tpm2.GetRandom{BytesRequested: 8}.Execute(r.tpm, s)
		if (err == nil) != (len(auth) == 0) {
			t.Errorf("encrypting session with an authValue of %d octets: %v", len(auth), err)
		}
		r.ok(end())
	}
}

// go-tpm cuts an authValue at its first zero octet; AuthValue avoids that.
func TestAZeroOctetInAnAuthValue(t *testing.T) {
	r := prepare(t, p256(t), 9, 9)
	a := bytes.Repeat([]byte{0x41}, 32)
	a[7] = 0
	r.auths.Password = secret.New(a)
	r.ok(r.m.define(r.spec, r.auths))
	r.ok(r.activate(r.spec, r.permit(false)))
	r.makeKey()
	r.want(r.try(a), ErrWrongPassword)
	r.counts(1, 0)
	for i := range 5000 {
		if v := AuthValue(secret.New(binary.BigEndian.AppendUint32(nil, uint32(i)))).Reveal(); bytes.IndexByte(v, 0) >= 0 || len(v) != 32 {
			t.Fatalf("%x", v)
		}
	}
}

// Property 8: a signed ledger. An HMAC key without a policy signs the machine's
// state; a counter tells an old state.
func TestO9ASignedLedger(t *testing.T) {
	r := prepare(t, p256(t), 3, 5)
	srk, err := tpm2.CreatePrimary{PrimaryHandle: r.m.owner(), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(r.tpm)
	r.ok(err)
	pub := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, SignEncrypt: true, NoDA: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{
			Scheme: tpm2.TPMAlgHMAC, Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256}),
		}}),
	}
	parent := tpm2.AuthHandle{Handle: srk.ObjectHandle, Name: srk.Name, Auth: tpm2.PasswordAuth(nil)}
	c, err := tpm2.Create{ParentHandle: parent, InPublic: tpm2.New2B(pub)}.Execute(r.tpm)
	r.ok(err)
	l, err := tpm2.Load{ParentHandle: parent, InPrivate: c.OutPrivate, InPublic: c.OutPublic}.Execute(r.tpm)
	r.ok(err)
	idx := tpm2.TPMSNVPublic{
		NVIndex: 0x01800180, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
		Attributes: tpm2.TPMANV{NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, NoDA: true},
	}
	_, err = tpm2.NVDefineSpace{AuthHandle: r.m.owner(), PublicInfo: tpm2.New2B(idx)}.Execute(r.tpm)
	r.ok(err)
	name := func() tpm2.TPM2BName { return *must(tpm2.NVName(&idx)) }
	inc := func() {
		_, err := tpm2.NVIncrement{AuthHandle: r.m.owner(), NVIndex: tpm2.NamedHandle{Handle: idx.NVIndex, Name: name()}}.Execute(r.tpm)
		r.ok(err)
		idx.Attributes.Written = true
	}
	read := func() uint64 {
		v, err := tpm2.NVRead{AuthHandle: r.m.owner(), NVIndex: tpm2.NamedHandle{Handle: idx.NVIndex, Name: name()}, Size: 8}.Execute(r.tpm)
		r.ok(err)
		return binary.BigEndian.Uint64(v.Data.Buffer)
	}
	sign := func(b []byte) []byte {
		h, err := tpm2.Hmac{Handle: tpm2.AuthHandle{Handle: l.ObjectHandle, Name: l.Name, Auth: tpm2.PasswordAuth(nil)}, Buffer: tpm2.TPM2BMaxBuffer{Buffer: b}, HashAlg: tpm2.TPMAlgSHA256}.Execute(r.tpm)
		r.ok(err)
		return h.OutHMAC.Buffer
	}
	inc()
	rate(t, "NV_Increment", inc)
	rate(t, "NV_Read of the counter", func() { read() })
	d := sha256.Sum256([]byte("state"))
	rate(t, "HMAC of the state's digest", func() { sign(d[:]) })
	rate(t, "one ledger step (increment + HMAC)", func() { inc(); sign(d[:]) })
	before := read()
	r.sw.Restart()
	if got := read(); got != before {
		t.Fatalf("counter %d after SIGKILL, want %d", got, before)
	}
}

func rate(t *testing.T, what string, f func()) {
	t.Helper()
	n, t0 := 0, time.Now()
	for time.Since(t0) < 100*time.Millisecond {
		f()
		n++
	}
	e := time.Since(t0)
	t.Logf("%-44s %8.1f/s %8.3f ms", what, float64(n)/e.Seconds(), e.Seconds()*1000/float64(n))
}

// Property 9: speed, leaks, room.
func TestSpeed(t *testing.T) {
	r := enrol(t, p256(t), 5, 1<<30)
	k, err := r.m.load(r.spec, r.blob)
	r.ok(err)
	rate(t, "check, key loaded (2 salted sessions)", func() { _, err := k.mac(r.auths, []byte("x")); r.ok(err) })
	w := &watch{TPM: r.tpm, spent: map[tpm2.TPMCC]time.Duration{}}
	r.m.tpm = w
	for range 100 {
		_, err = k.mac(r.auths, []byte("x"))
		r.ok(err)
	}
	t.Logf("commands in one check: %d", w.n/100)
	var all time.Duration
	for cc, d := range w.spent {
		t.Logf("  command %#x: %6d us in one check", uint32(cc), d.Microseconds()/100)
		all += d
	}
	t.Logf("  all commands:  %6d us", all.Microseconds()/100)
	r.m.tpm = r.tpm
	k.close()
	rate(t, "check, key loaded and flushed each time", func() { r.ok(r.try(right)) })
	rate(t, "lift", func() { r.ok(r.lift(r.spec, PasswordIndex, r.permit(true))) })
	rate(t, "wrong password (lifted when full)", func() {
		if err := r.try(wrong); errors.Is(err, ErrLocked) {
			r.ok(r.lift(r.spec, PasswordIndex, r.permit(true)))
		}
	})
	name := r.m.parent.name.Buffer
	r.m.close()
	rate(t, "open (CreatePrimary) and close", func() { m, err := openMachine(r.tpm, nil, name); r.ok(err); m.close() })
}

// watch measures commands.
type watch struct {
	transport.TPM
	spent map[tpm2.TPMCC]time.Duration
	n     int
}

func (w *watch) Send(c []byte) ([]byte, error) {
	t0 := time.Now()
	r, err := w.TPM.Send(c)
	w.spent[tpm2.TPMCC(binary.BigEndian.Uint32(c[6:]))] += time.Since(t0)
	w.n++
	return r, err
}

// A TPM with no free slot answers with a transient error, not a wrong password.
func TestATPMWithoutAFreeSlotIsBusy(t *testing.T) {
	r := enrol(t, p256(t), 3, 5)
	for range 3 {
		_, end, err := tpm2.PolicySession(r.tpm, tpm2.TPMAlgSHA256, nonceSize)
		r.ok(err)
		defer end()
	}
	err := r.try(right)
	if !Transient(err) || errors.Is(err, ErrWrongPassword) {
		t.Fatal(err)
	}
	r.want(err, tpm2.TPMRCSessionMemory)
	r.counts(0, 0)
}

func TestNothingLeaks(t *testing.T) {
	r := enrol(t, p256(t), 1000, 1000)
	count := func() int {
		hs, err := handles(r.tpm, 0x02000000, 0x03000000, 0x80000000)
		r.ok(err)
		return len(hs)
	}
	before := count()
	for range 100 {
		if err := r.try(wrong); !errors.Is(err, ErrWrongPassword) {
			t.Fatal(err)
		}
	}
	r.counts(100, 0)
	for range 20 {
		r.lift(r.spec, PasswordIndex, func(Kind, []byte) (Permit, error) { return Permit{}, errors.New("server away") })
		r.lift(r.spec, PasswordIndex, func(k Kind, n []byte) (Permit, error) { return r.permit(true)(UseIndex, n) })
	}
	if after := count(); before != 1 || after != 1 {
		t.Fatalf("%d handles before, %d after, want the parent alone", before, after)
	}
	r.want(r.try(right), nil)
	// Sessions that a killed process left behind.
	for range 2 {
		_, _, err := tpm2.PolicySession(r.tpm, tpm2.TPMAlgSHA256, nonceSize)
		r.ok(err)
	}
	if n := count(); n != 3 {
		t.Fatal(n)
	}
	r.ok(flushLoaded(r.tpm, map[tpm2.TPMHandle]struct{}{r.m.parent.handle: {}}))
	if n := count(); n != 1 {
		t.Fatal(n)
	}
}

func TestAFullTPMKeepsNoHalfVerifier(t *testing.T) {
	r := prepare(t, p256(t), 5, 5)
	props := func() string {
		s := ""
		for _, p := range []tpm2.TPMPT{tpm2.TPMPTHRNVIndex, tpm2.TPMPTNVCountersMax, tpm2.TPMPTNVCounters, tpm2.TPMPTNVCountersAvail, tpm2.TPMPTNVIndexMax, tpm2.TPMPTHRTransientMin, tpm2.TPMPTHRLoadedAvail} {
			g, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(p), PropertyCount: 1}.Execute(r.tpm)
			r.ok(err)
			l, err := g.CapabilityData.Data.TPMProperties()
			r.ok(err)
			if len(l.TPMProperty) > 0 && l.TPMProperty[0].Property == p {
				s += fmt.Sprintf(" %#x=%d", uint32(p), l.TPMProperty[0].Value)
			}
		}
		return s
	}
	t.Log("properties:", props())
	// Somebody else's big indices take most of the room.
	filler := tpm2.TPMSNVPublic{NVIndex: 0x01A00000, NameAlg: tpm2.TPMAlgSHA256, DataSize: 2048, Attributes: tpm2.TPMANV{OwnerRead: true, OwnerWrite: true, NoDA: true}}
	big := 0
	for ; ; big++ {
		if _, err := (tpm2.NVDefineSpace{AuthHandle: r.m.owner(), PublicInfo: tpm2.New2B(filler)}).Execute(r.tpm); err != nil {
			r.want(err, tpm2.TPMRCNVSpace)
			break
		}
		filler.NVIndex++
	}
	r.sw.Undefine(uint32(filler.NVIndex - 1))
	users := 0
	for ; users < 2000; users++ {
		s := r.spec
		s.id.User = fmt.Sprint("user", users)
		s.fail += tpm2.TPMHandle(2 * users)
		s.pass += tpm2.TPMHandle(2 * users)
		err := r.m.define(s, r.auths)
		if err == nil {
			err = r.activate(s, func(k Kind, n []byte) (Permit, error) { return signPermit(r.signer, s, k, false, r.limits[k], n, 60) })
		}
		if err != nil {
			r.want(err, ErrNoSpace)
			break
		}
	}
	hs, err := handles(r.tpm, nvHandles)
	r.ok(err)
	t.Logf("%d users fit beside %d others, %d indices", users, big-1, len(hs))
	t.Log("properties:", props())
	if users == 0 || len(hs) != 2*users+big-1 {
		t.Errorf("%d indices: the half of a verifier that found no room is left behind", len(hs))
	}
}

// Property 10: three time steps with one HMAC.
func TestO7ThreeStepsOneUse(t *testing.T) {
	r := enrol(t, p256(t), 5, 20)
	code := func(step int64) string { return fmt.Sprintf("%06d", (step*7919)%1000000) }
	now := int64(58_000_000)
	var tags [len(wire.Offsets)][wire.TagSize]byte
	for i, o := range wire.Offsets {
		tags[i] = wire.CodeTag(secret.New(r.key), 30, now, code(now+o))
	}
	k, err := r.m.load(r.spec, r.blob)
	r.ok(err)
	defer k.close()
	for i, step := range []int64{now, now - 1, now + 1, now + 2} {
		mac, err := k.mac(r.auths, wire.CodeMessage(30, now, code(step)))
		r.ok(err)
		want := MAC(secret.New(r.key), wire.CodeMessage(30, now, code(step)))
		if !bytes.Equal(mac, want[:]) {
			t.Fatal("MAC differs from the TPM's")
		}
		matched := false
		for j, o := range wire.Offsets {
			if bytes.Equal(tags[j][:], mac[:wire.TagSize]) {
				matched = true
				if now+o != step {
					t.Fatalf("step %d taken for %d", step, now+o)
				}
			}
		}
		if matched != (step != now+2) {
			t.Fatalf("step %d: matched %v", step, matched)
		}
		r.counts(0, uint32(i+1))
	}
}
