package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math/big"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"latchkey/internal/secret"
)

// softKey is a P-256 key and its public area from a template.
func softKey(f testing.TB, template tpm2.TPMTPublic) (*ecdsa.PrivateKey, []byte) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	b, err := k.PublicKey.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	template.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, eccPoint(b))
	return k, tpm2.Marshal(template)
}

// FuzzParseParent: what a machine calls its import parent is refused or is one,
// and then a key can be wrapped for it.
func FuzzParseParent(f *testing.F) {
	_, good := softKey(f, parentTemplate())
	_, srk := softKey(f, tpm2.ECCSRKTemplate)
	f.Add(good)
	f.Add(srk)
	f.Add(tpm2.Marshal(tpm2.RSASRKTemplate))
	f.Add([]byte{})
	s := testSpec(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseParent(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Marshal(), b) || len(p.Name()) != nameSize {
			t.Fatal("another parent after parsing")
		}
		if _, _, err := NewKey(s, p); err != nil {
			t.Fatalf("a parent that passed can not be wrapped for: %v", err)
		}
	})
}

func testSpec(f testing.TB) Spec {
	s, err := NewSpec(ID{"u", "m", 1}, p256(f).Public(), FirstHandle, FirstHandle+1)
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// FuzzParseAttestationKey: the same for attestation keys.
func FuzzParseAttestationKey(f *testing.F) {
	_, good := softKey(f, attestationTemplate())
	_, loose := softKey(f, signingTemplate())
	f.Add(good)
	f.Add(loose)
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseAttestationKey(b)
		if err == nil && !bytes.Equal(k.Marshal(), b) {
			t.Fatal("another key after parsing")
		}
	})
}

// FuzzVerifyCounter: an attestation with a good signature and any content.
func FuzzVerifyCounter(f *testing.F) {
	key, public := softKey(f, attestationTemplate())
	ak, err := ParseAttestationKey(public)
	if err != nil {
		f.Fatal(err)
	}
	nonce := bytes.Repeat([]byte{7}, 32)
	attest := func(magic tpm2.TPMGenerated, name []byte, contents []byte) []byte {
		return tpm2.Marshal(tpm2.TPMSAttest{
			Magic: magic, Type: tpm2.TPMSTAttestNV, ExtraData: tpm2.TPM2BData{Buffer: nonce},
			Attested: tpm2.NewTPMUAttest(tpm2.TPMSTAttestNV, &tpm2.TPMSNVCertifyInfo{
				IndexName: tpm2.TPM2BName{Buffer: name}, NVContents: tpm2.TPM2BData{Buffer: contents},
			}),
		})
	}
	name := counterNamed(FirstHandle, true).Name.Buffer
	good := attest(tpm2.TPMGeneratedValue, name, []byte{0, 0, 0, 0, 0, 0, 0, 9})
	f.Add(good)
	f.Add(attest(tpm2.TPMGeneratedValue, name, nil))
	f.Add(attest(0, name, make([]byte, 8)))
	f.Add(attest(tpm2.TPMGeneratedValue, nil, make([]byte, 8)))
	f.Add(bytes.Repeat([]byte{0xFF}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.FillBytes(make([]byte, 32))}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.FillBytes(make([]byte, 32))},
		})})
		v, err := ak.VerifyCounter(FirstHandle, nonce, Certified{b, sig})
		switch {
		case err != nil && !errors.Is(err, ErrAttestation):
			t.Fatal(err)
		case err != nil && bytes.Equal(b, good):
			t.Fatalf("a good one is refused: %v", err)
		case err == nil && (!bytes.Contains(b, nonce) || !bytes.Contains(b, name) || !bytes.Contains(b, binary.BigEndian.AppendUint64(nil, v.Value))):
			t.Fatalf("%x is taken for %+v", b, v)
		}
	})
}

// FuzzSignature: the signature of a permit or an attestation.
func FuzzSignature(f *testing.F) {
	s := testSpec(f)
	key := p256(f)
	mine, err := NewSpec(s.id, key.Public(), FirstHandle, FirstHandle+1)
	if err != nil {
		f.Fatal(err)
	}
	p, err := SignActivation(key, mine, UseIndex, Tally{0, 9}, random(32), 60)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Signature)
	f.Add(append(bytes.Clone(p.Signature), 0))
	f.Add(tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA,
		&tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)}})}))
	f.Add(tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgHMAC, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgHMAC,
		&tpm2.TPMTHA{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)})}))
	f.Fuzz(func(t *testing.T, b []byte) {
		sig, err := parseSignature(b)
		if err == nil && !bytes.Equal(tpm2.Marshal(*sig), b) {
			t.Fatal("another signature after parsing")
		}
	})
}

// FuzzRecord: what lies on the machine's disk.
func FuzzRecord(f *testing.F) {
	_, public := softKey(f, signingTemplate())
	for _, kind := range []string{stateRecord, signingRecord, attestRecord} {
		f.Add(encodeRecord(kind, 0, make([]byte, nameSize), public, make([]byte, 100)))
	}
	d, err := OpenDevice("socket:/nobody-listens-here")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, kind := range []string{stateRecord, signingRecord, attestRecord} {
			flags, fields, err := decodeRecord(kind, b, 3)
			if err == nil && !bytes.Equal(encodeRecord(kind, flags, fields...), b) {
				t.Fatal("another record after decoding")
			}
		}
		_, err1 := d.Signer(b)
		_, err2 := d.UnsealState(t.Context(), b)
		_, err3 := d.CertifyCounter(t.Context(), b, FirstHandle, make([]byte, 8))
		for _, err := range []error{err1, err2, err3} {
			if err != nil && !errors.Is(err, ErrRecord) && !errors.Is(err, ErrNewer) && !errors.Is(err, ErrGone) {
				t.Fatal(err)
			}
		}
	})
}

// FuzzBundle: a bundle from the server, and the public area of a blob from disk,
// as far as the machine reads them itself.
func FuzzBundle(f *testing.F) {
	_, parent := softKey(f, parentTemplate())
	p, err := ParseParent(parent)
	if err != nil {
		f.Fatal(err)
	}
	_, b, err := NewKey(testSpec(f), p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Public, b.Duplicate, b.Seed)
	f.Add(parent, b.Duplicate, b.Seed)
	s := testSpec(f)
	m := &machine{tpm: &scripted{}, parent: loaded{name: tpm2.TPM2BName{Buffer: p.Name()}, public: p.public}}
	f.Fuzz(func(t *testing.T, public, duplicate, seed []byte) {
		m.tpm.(*scripted).answers = nil
		if _, err := m.importKey(Bundle{public, duplicate, seed}); err == nil {
			t.Fatal("imported by no TPM")
		}
		if _, err := m.load(s, Blob{p.Name(), public, duplicate}); err == nil {
			t.Fatal("loaded by no TPM")
		}
	})
}

// scripted is a TPM that answers every command with the next part of the script,
// in a frame that fits.
type scripted struct{ answers []byte }

func (s *scripted) exchange(_ context.Context, command []byte) ([]byte, error) {
	return s.Send(command)
}
func (s *scripted) close() <-chan struct{} { return nil }

func (s *scripted) Send(command []byte) ([]byte, error) {
	if len(s.answers) < 4 {
		return nil, errors.New("end of the script")
	}
	n := min(int(binary.BigEndian.Uint16(s.answers)), len(s.answers)-4, maxAnswer-headerSize)
	rc := uint32(binary.BigEndian.Uint16(s.answers[2:]))
	body := s.answers[4 : 4+n]
	s.answers = s.answers[4+n:]
	tag := []byte{0x80, 0x01}
	if be16(command) == 0x8002 {
		tag = []byte{0x80, 0x02}
	}
	rsp := binary.BigEndian.AppendUint32(tag, uint32(headerSize+n))
	return append(binary.BigEndian.AppendUint32(rsp, rc), body...), nil
}

// FuzzAnswers: a TPM that says what it likes can not make the agent fall over,
// nor say yes.
func FuzzAnswers(f *testing.F) {
	step := func(rc uint16, body []byte) []byte {
		b := binary.BigEndian.AppendUint16(nil, uint16(len(body)))
		return append(binary.BigEndian.AppendUint16(b, rc), body...)
	}
	_, parent := softKey(f, parentTemplate())
	p, _ := ParseParent(parent)
	_, srk := softKey(f, tpm2.ECCSRKTemplate)
	srkPublic, err := tpm2.Unmarshal[tpm2.TPMTPublic](srk)
	if err != nil {
		f.Fatal(err)
	}
	srkName, err := tpm2.ObjectName(srkPublic)
	if err != nil {
		f.Fatal(err)
	}
	created := func(public, name []byte) []byte {
		parms := append(binary.BigEndian.AppendUint16(nil, uint16(len(public))), public...)
		parms = append(parms, 0, 0, 0, 0)                      // no creation data, no digest of it
		parms = append(parms, 0x80, 0x21, 0x40, 0, 0, 7, 0, 0) // its ticket
		parms = append(binary.BigEndian.AppendUint16(parms, nameSize), name...)
		b := binary.BigEndian.AppendUint32([]byte{0x80, 0, 0, 0}, uint32(len(parms)))
		return step(0, append(append(b, parms...), 0, 0, 1, 0, 0))
	}
	session := append([]byte{3, 0, 0, 0, 0, 32}, make([]byte, 32)...)
	for _, first := range [][]byte{created(parent, p.Name()), created(srk, srkName.Buffer)} {
		f.Add(first)
		f.Add(append(bytes.Clone(first), bytes.Repeat(step(0, session), 9)...))
		f.Add(append(append(bytes.Clone(first), step(0x101, nil)...), bytes.Repeat(step(0, session), 9)...))
		f.Add(append(append(bytes.Clone(first), step(0, make([]byte, 200))...), bytes.Repeat(step(0, []byte{0, 0, 0, 0, 0, 0, 1, 0, 0}), 9)...))
	}
	f.Add(step(0x9A2, nil))
	f.Add(bytes.Repeat(step(0, nil), 30))
	f.Add(bytes.Repeat(step(0, make([]byte, 40)), 30))
	s := testSpec(f)
	blob := Blob{p.Name(), tpm2.Marshal(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{}),
	}), make([]byte, 80)}
	a := Auths{secret.New(bytes.Clone(right)), NewUseAuth()}
	_, signing := softKey(f, signingTemplate())
	signingRec := encodeRecord(signingRecord, 0, srkName.Buffer, signing, make([]byte, 100))
	sealed := encodeRecord(stateRecord, flagBootState, srkName.Buffer, blob.Public, make([]byte, 100))
	f.Fuzz(func(t *testing.T, answers []byte) {
		d, err := OpenDevice("socket:/scripted")
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		for name, op := range map[string]func() error{
			"mac":    func() error { _, err := d.MAC(ctx, s, blob, a, []byte("x")); return err },
			"unseal": func() error { _, err := d.UnsealState(ctx, sealed); return err },
			"sign": func() error {
				k, err := d.Signer(signingRec)
				if err == nil {
					_, err = k.Sign(nil, make([]byte, 32), crypto.SHA256)
				}
				return err
			},
			"status":  func() error { _, err := d.Status(ctx, s); return err },
			"define":  func() error { _ = d.Define(ctx, s, a); return errors.New("no verdict") },
			"counter": func() error { _, err := d.Increment(ctx, FirstHandle); return err },
			"owned":   func() error { _, _ = d.Owned(ctx); return errors.New("no verdict") },
			"info":    func() error { _, _ = d.Info(ctx); return errors.New("no verdict") },
			"seal": func() error {
				_, _ = d.SealState(ctx, secret.New(make([]byte, 32)), Seal{true})
				return errors.New("no verdict")
			},
		} {
			d.gate = newGate()
			d.gate.dirty = false
			d.dial = func(context.Context) (conn, error) { return &scripted{bytes.Clone(answers)}, nil }
			if err := op(); err == nil && name != "status" && name != "counter" {
				t.Fatalf("%s: nonsense is taken for success", name)
			}
		}
	})
}

// FuzzSpec: a Spec of values from outside is refused or computes without panic.
func FuzzSpec(f *testing.F) {
	der, err := x509.MarshalPKIXPublicKey(p256(f).Public())
	if err != nil {
		f.Fatal(err)
	}
	f.Add("anna", "m1", uint64(1), uint32(FirstHandle), uint32(FirstHandle+1), der, uint32(0), uint32(5))
	f.Add("", "m", uint64(0), uint32(0), uint32(0), []byte{}, uint32(1), uint32(0))
	weird, _ := asn1.Marshal(struct{ N, E *big.Int }{big.NewInt(15), big.NewInt(3)})
	f.Add("u", "m", uint64(1), uint32(FirstHandle), uint32(FirstHandle), weird, uint32(9), uint32(9))
	_, public := softKey(f, parentTemplate())
	parent, err := ParseParent(public)
	if err != nil {
		f.Fatal(err)
	}
	own := p256(f)
	f.Fuzz(func(t *testing.T, user, machine string, generation uint64, fail, pass uint32, der []byte, count, limit uint32) {
		var pub crypto.PublicKey = own.Public()
		if k, err := x509.ParsePKIXPublicKey(der); err == nil {
			pub = k
		}
		s, err := NewSpec(ID{user, machine, generation}, pub, fail, pass)
		if err != nil {
			if s.check() == nil {
				t.Fatal("a refused spec is usable")
			}
			return
		}
		for _, k := range kinds {
			if len(s.name(k, true).Buffer) != nameSize || bytes.Equal(s.name(k, true).Buffer, s.name(k, false).Buffer) {
				t.Fatal("Names")
			}
			if _, err := SignLift(own, s, k, Tally{count, limit}, make([]byte, nonceSize), 60); err == nil && (limit == 0 || count > limit) {
				t.Fatal("a bad tally is signed")
			}
		}
		if _, _, err := NewKey(s, parent); err != nil {
			t.Fatal(err)
		}
	})
}
