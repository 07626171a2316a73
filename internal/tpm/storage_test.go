package tpm

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"latchkey/internal/secret"
	"latchkey/internal/tpm/tpmtest"
)

func TestAStateKeyComesBackOnlyOnItsTPM(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	ctx := t.Context()
	state := secret.New(random(StateKeySize))
	record, err := k.d.SealState(ctx, state, Seal{})
	k.ok(err)
	k.clean()
	sw.Restart()
	got, err := k.d.UnsealState(ctx, record)
	k.ok(err)
	if !got.Equal(state) {
		t.Fatal("another state key")
	}
	k.clean()
	if _, err := k.d.SealState(ctx, secret.FromString("short"), Seal{}); err == nil {
		t.Error("a short key is sealed")
	}
	// Damage is told, in the Name as another TPM; the flags' unused bits are free.
	for i := range record {
		bad := bytes.Clone(record)
		bad[i] ^= 0x40
		got, err := k.d.UnsealState(ctx, bad)
		switch {
		case i == 6 || i == 7:
		case i >= 10 && i < 10+nameSize:
			k.want(err, ErrCleared)
		case i < 6 && errors.Is(err, ErrNewer):
		default:
			k.want(err, ErrRecord)
			if !got.Empty() {
				t.Fatalf("octet %d damaged: unsealed", i)
			}
		}
	}
	for n := range record {
		if _, err := k.d.UnsealState(ctx, record[:n]); !errors.Is(err, ErrRecord) {
			t.Fatalf("cut to %d octets: %v", n, err)
		}
	}
	newer := bytes.Clone(record)
	newer[5]++
	_, err = k.d.UnsealState(ctx, newer)
	k.want(err, ErrNewer)
	key, _, err := k.d.CreateKey(ctx)
	k.ok(err)
	_, err = k.d.UnsealState(ctx, key)
	k.want(err, ErrRecord)
	k.clean()
}

func TestAStateKeyCanBeBoundToTheBootState(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	ctx := t.Context()
	state := secret.New(random(StateKeySize))
	record, err := k.d.SealState(ctx, state, Seal{BootState: true})
	k.ok(err)
	got, err := k.d.UnsealState(ctx, record)
	k.ok(err)
	if !got.Equal(state) {
		t.Fatal("another state key")
	}
	// A record that says it is not bound does not help.
	loose := bytes.Clone(record)
	loose[7] = 0
	if _, err := k.d.UnsealState(ctx, loose); err == nil {
		t.Fatal("unsealed without the policy")
	}
	sum := sha256.Sum256([]byte("Secure Boot off"))
	if _, err := (tpm2.PCRExtend{PCRHandle: tpm2.AuthHandle{Handle: 7, Auth: tpm2.PasswordAuth(nil)}, Digests: tpm2.TPMLDigestValues{
		Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: sum[:]}},
	}}).Execute(sw); err != nil {
		t.Fatal(err)
	}
	_, err = k.d.UnsealState(ctx, record)
	k.want(err, ErrBootState)
	k.clean()
	sw.Restart()
	_, err = k.d.UnsealState(ctx, record)
	k.ok(err)
}

func TestTheCounterGoesUpAndStaysUp(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	ctx := t.Context()
	_, err := k.d.ReadCounter(ctx, LastHandle)
	k.want(err, ErrRemoved)
	_, err = k.d.Increment(ctx, LastHandle)
	k.want(err, ErrRemoved)
	v, err := k.d.DefineCounter(ctx, LastHandle)
	k.ok(err)
	for i := range uint64(5) {
		got, err := k.d.Increment(ctx, LastHandle)
		k.ok(err)
		if got != v+i+1 {
			t.Fatalf("%d after %d steps from %d", got, i+1, v)
		}
		sw.Restart() // the power goes right after each step
	}
	got, err := k.d.DefineCounter(ctx, LastHandle) // a join that is repeated
	k.ok(err)
	if got != v+5 {
		t.Fatalf("%d, want %d", got, v+5)
	}
	// Defined but never written: a join that was cut off there.
	_, err = tpm2.NVDefineSpace{AuthHandle: ownerHandle(secret.Bytes{}), PublicInfo: tpm2.New2B(counterIndex(LastHandle-1, false))}.Execute(sw)
	k.ok(err)
	_, err = k.d.ReadCounter(ctx, LastHandle-1)
	k.want(err, ErrReplaced)
	_, err = k.d.DefineCounter(ctx, LastHandle-1)
	k.ok(err)
	// Deleted and made again: it shows.
	sw.Undefine(LastHandle)
	_, err = k.d.ReadCounter(ctx, LastHandle)
	k.want(err, ErrRemoved)
	again, err := k.d.DefineCounter(ctx, LastHandle)
	k.ok(err)
	if again <= v+5 {
		t.Fatalf("a new counter starts at %d, the old one was at %d", again, v+5)
	}
	// Something else in its place.
	k.ok(k.d.RemoveCounter(ctx, LastHandle))
	k.ok(k.d.RemoveCounter(ctx, LastHandle))
	_, err = tpm2.NVDefineSpace{AuthHandle: ownerHandle(secret.Bytes{}), PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: LastHandle, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8, Attributes: tpm2.TPMANV{AuthRead: true, AuthWrite: true, NoDA: true},
	})}.Execute(sw)
	k.ok(err)
	_, err = k.d.DefineCounter(ctx, LastHandle)
	k.want(err, ErrTaken)
	_, err = k.d.Increment(ctx, LastHandle)
	k.want(err, ErrReplaced)
	_, err = k.d.ReadCounter(ctx, LastHandle)
	k.want(err, ErrReplaced)
	k.want(k.d.RemoveCounter(ctx, LastHandle), ErrReplaced)
	k.clean()
}

func TestACertifiedCounterIsCheckedByTheServer(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	ctx := t.Context()
	value, err := k.d.DefineCounter(ctx, LastHandle)
	k.ok(err)
	record, public, err := k.d.CreateAttestationKey(ctx)
	k.ok(err)
	ak, err := ParseAttestationKey(public)
	k.ok(err)
	if !bytes.Equal(ak.Marshal(), public) {
		t.Error("another key after parsing")
	}
	nonce := random(32)
	c, err := k.d.CertifyCounter(ctx, record, LastHandle, nonce)
	k.ok(err)
	k.clean()
	v, err := ak.VerifyCounter(LastHandle, nonce, c)
	k.ok(err)
	if v.Value != value {
		t.Fatalf("certified %d, read %d", v.Value, value)
	}

	_, otherPublic, err := k.d.CreateAttestationKey(ctx)
	k.ok(err)
	other, err := ParseAttestationKey(otherPublic)
	k.ok(err)
	_, err = k.d.DefineCounter(ctx, LastHandle-1)
	k.ok(err)
	beside, err := k.d.CertifyCounter(ctx, record, LastHandle-1, nonce)
	k.ok(err)
	for name, f := range map[string]func() error{
		"another nonce":   func() error { _, err := ak.VerifyCounter(LastHandle, random(32), c); return err },
		"another key":     func() error { _, err := other.VerifyCounter(LastHandle, nonce, c); return err },
		"no key":          func() error { _, err := (AttestationKey{}).VerifyCounter(LastHandle, nonce, c); return err },
		"another counter": func() error { _, err := ak.VerifyCounter(LastHandle, nonce, beside); return err },
		"nothing":         func() error { _, err := ak.VerifyCounter(LastHandle, nonce, Certified{}); return err },
	} {
		if err := f(); !errors.Is(err, ErrAttestation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range c.Attest {
		bad := Certified{bytes.Clone(c.Attest), c.Signature}
		bad.Attest[i] ^= 1
		if _, err := ak.VerifyCounter(LastHandle, nonce, bad); !errors.Is(err, ErrAttestation) {
			t.Fatalf("octet %d changed: %v", i, err)
		}
	}

	// An index that anybody can write what he likes into, in the counter's place.
	sw.Undefine(LastHandle)
	fake := tpm2.TPMSNVPublic{NVIndex: LastHandle, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8, Attributes: tpm2.TPMANV{AuthRead: true, AuthWrite: true, NoDA: true}}
	_, err = tpm2.NVDefineSpace{AuthHandle: ownerHandle(secret.Bytes{}), PublicInfo: tpm2.New2B(fake)}.Execute(sw)
	k.ok(err)
	fakeName, err := tpm2.NVName(&fake)
	k.ok(err)
	n := tpm2.NamedHandle{Handle: LastHandle, Name: *fakeName}
	_, err = tpm2.NVWrite{AuthHandle: counterAuth(n), NVIndex: n, Data: tpm2.TPM2BMaxNVBuffer{Buffer: make([]byte, 8)}}.Execute(sw)
	k.ok(err)
	_, err = k.d.CertifyCounter(ctx, record, LastHandle, nonce)
	k.want(err, ErrReplaced)
	forged := forceCertify(t, sw, record, LastHandle, nonce)
	if _, err := ak.VerifyCounter(LastHandle, nonce, forged); !errors.Is(err, ErrAttestation) {
		t.Fatalf("a common index passes for the counter: %v", err)
	}
}

// forceCertify is TPM2_NV_Certify by somebody who does not look what he certifies.
func forceCertify(t *testing.T, sw *tpmtest.Emulator, record []byte, handle uint32, nonce []byte) (c Certified) {
	t.Helper()
	o, _, err := decodeObject(attestRecord, record, tpm2.TPMAlgECC)
	if err != nil {
		t.Fatal(err)
	}
	storage, err := makePrimary(sw, secret.Bytes{}, storageKey)
	if err != nil {
		t.Fatal(err)
	}
	defer flush(sw, storage.handle)
	if err := o.with(sw, storage, func(k loaded) error {
		p, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(handle)}.Execute(sw)
		if err != nil {
			return err
		}
		n := tpm2.NamedHandle{Handle: tpm2.TPMHandle(handle), Name: p.NVName}
		r, err := tpm2.NVCertify{
			SignHandle: tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.PasswordAuth(nil)}, AuthHandle: counterAuth(n), NVIndex: n,
			QualifyingData: tpm2.TPM2BData{Buffer: nonce}, Size: 8,
		}.Execute(sw)
		if err != nil {
			return err
		}
		c = Certified{r.CertifyInfo.Bytes(), tpm2.Marshal(r.Signature)}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestW5ABootIsToldApart(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	ctx := t.Context()
	_, err := k.d.DefineCounter(ctx, LastHandle)
	k.ok(err)
	record, public, err := k.d.CreateAttestationKey(ctx)
	k.ok(err)
	ak, err := ParseAttestationKey(public)
	k.ok(err)
	see := func() (boots, certified uint32) {
		boots, err := k.d.ResetCount(ctx)
		k.ok(err)
		nonce := random(16)
		c, err := k.d.CertifyCounter(ctx, record, LastHandle, nonce)
		k.ok(err)
		v, err := ak.VerifyCounter(LastHandle, nonce, c)
		k.ok(err)
		return boots, v.Boots
	}
	b1, c1 := see()
	b2, c2 := see()
	if b1 != b2 || c1 != c2 {
		t.Fatalf("one boot, told as %d and %d, certified as %d and %d", b1, b2, c1, c2)
	}
	sw.Restart()
	b3, c3 := see()
	if b3 != b1+1 || c3 != c1+1 {
		t.Fatalf("the next boot is %d after %d, certified %d after %d", b3, b1, c3, c1)
	}
}

func TestTheTPMTellsAboutItself(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	_, err := k.d.DefineCounter(t.Context(), LastHandle)
	k.ok(err)
	i, err := k.d.Info(t.Context())
	k.ok(err)
	if i.Version != "2.0" || i.Manufacturer != "IBM" || i.VendorString == "" || i.Firmware == "0.0.0.0" || i.ResetCount == 0 ||
		i.MaxAuthFail == 0 || i.InLockout || i.OwnerAuthSet || i.LockoutAuthSet || i.NVIndices != 1 {
		t.Errorf("%+v", i)
	}
	k.clean()
}

func TestE4TheMachineKeyServesTLS(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	record, pub, err := k.d.CreateKey(t.Context())
	k.ok(err)
	k.clean()
	sw.Restart()
	signer, err := k.d.Signer(record)
	k.ok(err)
	if !pub.Equal(signer.Public()) {
		t.Fatal("the record holds another key")
	}
	// A request for a certificate proves possession.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "m1"}}, signer)
	k.ok(err)
	csr, err := x509.ParseCertificateRequest(der)
	k.ok(err)
	k.ok(csr.CheckSignature())

	caKey := p256(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, DNSNames: []string{"server"},
	}
	der, err = x509.CreateCertificate(rand.Reader, template, template, caKey.Public(), caKey)
	k.ok(err)
	ca, err := x509.ParseCertificate(der)
	k.ok(err)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: csr.Subject, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, csr.PublicKey, caKey)
	k.ok(err)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		a, b := net.Pipe()
		server := tls.Server(a, &tls.Config{
			Certificates: []tls.Certificate{{Certificate: [][]byte{ca.Raw}, PrivateKey: caKey}}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
			MinVersion: version, MaxVersion: version,
		})
		client := tls.Client(b, &tls.Config{RootCAs: pool, ServerName: "server", Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: signer}}})
		done := make(chan error, 1)
		go func() {
			err := server.HandshakeContext(t.Context())
			if err == nil {
				_, err = server.Write([]byte("hello " + server.ConnectionState().PeerCertificates[0].Subject.CommonName))
			}
			done <- errors.Join(err, a.Close())
		}()
		got, err := io.ReadAll(client)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || string(got) != "hello m1" {
			t.Errorf("TLS %x: %q %v", version, got, err)
		}
		k.ok(<-done)
		_ = b.Close()
	}
	k.clean()
	if _, err := signer.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("signs SHA-384")
	}
	if _, err := signer.Sign(nil, make([]byte, 20), crypto.SHA256); err == nil {
		t.Error("signs a short digest")
	}
	if _, err := k.d.Signer(record[:len(record)-1]); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
	attest, _, err := k.d.CreateAttestationKey(t.Context())
	k.ok(err)
	if _, err := k.d.Signer(attest); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
}
