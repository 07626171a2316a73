package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey/internal/secret"
	"latchkey/internal/tpm/tpmtest"
)

// rig is one enrolled verifier and both of its sides, below the Device: tests
// that play the attacker need the single commands.
type rig struct {
	*testing.T
	sw     *tpmtest.Emulator
	tpm    transport.TPM
	m      *machine
	spec   Spec
	signer crypto.Signer
	auths  Auths
	key    []byte
	blob   Blob
	bundle Bundle
	limits map[Kind]Tally
}

var (
	right = AuthValue(secret.FromString("correct horse")).Reveal()
	wrong = AuthValue(secret.FromString("battery staple")).Reveal()
)

func p256(t testing.TB) crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// prepare makes a rig that is not defined yet.
func prepare(t *testing.T, signer crypto.Signer, fails, uses uint32) *rig {
	t.Helper()
	r := &rig{T: t, sw: tpmtest.Start(t), signer: signer, limits: map[Kind]Tally{PasswordIndex: {0, fails}, UseIndex: {0, uses}}}
	r.tpm = r.sw
	var err error
	r.spec, err = NewSpec(ID{"anna", "host1", 1}, signer.Public(), 0x01800100, 0x01800101)
	r.ok(err)
	r.m, err = openMachine(r.tpm, nil, nil)
	r.ok(err)
	r.auths = Auths{Password: secret.New(bytes.Clone(right)), Use: NewUseAuth()}
	return r
}

// enrol makes a rig that is ready for use.
func enrol(t *testing.T, signer crypto.Signer, fails, uses uint32) *rig {
	t.Helper()
	r := prepare(t, signer, fails, uses)
	r.ok(r.m.define(r.spec, r.auths))
	r.ok(r.activate(r.spec, r.permit(false)))
	r.makeKey()
	return r
}

func (r *rig) makeKey() {
	r.Helper()
	p, err := ParseParent(tpm2.Marshal(r.m.parent.public))
	r.ok(err)
	key, bundle, err := NewKey(r.spec, p)
	r.ok(err)
	r.key, r.bundle = key.Reveal(), bundle
	r.blob, err = r.m.importKey(r.bundle)
	r.ok(err)
}

// openMachine loads the import parent, which must have the Name wanted.
func openMachine(t transport.TPM, ownerAuth, want []byte) (*machine, error) {
	p, err := makePrimary(t, secret.New(ownerAuth), importParent)
	if err != nil {
		return nil, err
	}
	m := &machine{tpm: t, ownerAuth: secret.New(ownerAuth), parent: p}
	if want != nil && !bytes.Equal(want, p.name.Buffer) {
		m.close()
		return nil, fmt.Errorf("%w: another name", ErrCleared)
	}
	return m, nil
}

func (m *machine) close() { flush(m.tpm, m.parent.handle) }

// asker answers for the server.
type asker func(k Kind, nonce []byte) (Permit, error)

// permit is a server that agrees to everything.
func (r *rig) permit(written bool) asker {
	return func(k Kind, nonce []byte) (Permit, error) {
		return signPermit(r.signer, r.spec, k, written, r.limits[k], nonce, 60)
	}
}

func (r *rig) write(s Spec, k Kind, written bool, ask asker) error {
	p, err := r.m.begin(s, k, written)
	if err != nil {
		return err
	}
	defer p.end()
	permit, err := ask(k, p.nonce.Buffer)
	if err != nil {
		return err
	}
	return p.finish(permit)
}

func (r *rig) activate(s Spec, ask asker) error {
	return errors.Join(r.write(s, PasswordIndex, false, ask), r.write(s, UseIndex, false, ask))
}

func (r *rig) lift(s Spec, k Kind, ask asker) error { return r.write(s, k, true, ask) }

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// try loads the key and computes one HMAC with the password.
func (r *rig) try(password []byte) error {
	k, err := r.m.load(r.spec, r.blob)
	if err != nil {
		return err
	}
	defer k.close()
	_, err = k.mac(Auths{secret.New(password), r.auths.Use}, []byte("x"))
	return err
}

func (r *rig) want(got, want error) {
	r.Helper()
	if want == nil && got != nil || want != nil && !errors.Is(got, want) {
		r.Fatalf("got %v, want %v", got, want)
	}
}

func (r *rig) counts(passwords, uses uint32) {
	r.Helper()
	st, err := r.m.status(r.spec)
	r.ok(err)
	if st.Passwords.Count != passwords || st.Uses.Count != uses {
		r.Fatalf("tallies %+v, want %d and %d", st, passwords, uses)
	}
}

// restart cuts the power and opens the machine anew.
func (r *rig) restart() {
	r.Helper()
	name := r.m.parent.name.Buffer
	r.sw.Restart()
	m, err := openMachine(r.tpm, nil, name)
	r.ok(err)
	r.m = m
}

// raw sends a command that go-tpm lacks: handles, then one session area (nil:
// no sessions), then parameters.
func raw(t transport.TPM, cc tpm2.TPMCC, handles []uint32, auth, parms []byte) (tpm2.TPMRC, []byte) {
	var b []byte
	for _, h := range handles {
		b = binary.BigEndian.AppendUint32(b, h)
	}
	tag := uint16(0x8001)
	if auth != nil {
		tag = 0x8002
		b = binary.BigEndian.AppendUint32(b, uint32(len(auth)))
		b = append(b, auth...)
	}
	b = append(b, parms...)
	h := binary.BigEndian.AppendUint16(nil, tag)
	h = binary.BigEndian.AppendUint32(h, uint32(10+len(b)))
	h = binary.BigEndian.AppendUint32(h, uint32(cc))
	rsp, err := t.Send(append(h, b...))
	if err != nil {
		return tpm2.TPMRCFailure, nil
	}
	return tpm2.TPMRC(binary.BigEndian.Uint32(rsp[6:])), rsp[10:]
}

// emptyAuth is a session area with one empty password.
var emptyAuth = []byte{0x40, 0, 0, 9, 0, 0, 0, 0, 0}

// code is the TPM's raw return code in err.
func code(err error) uint32 {
	var rc tpm2.TPMRC
	if errors.As(err, &rc) {
		return uint32(rc)
	}
	return 0
}

// bus records all that crosses to the TPM and back.
type bus struct {
	transport.TPM
	seen [][]byte
}

func (b *bus) Send(c []byte) ([]byte, error) {
	r, err := b.TPM.Send(c)
	b.seen = append(b.seen, bytes.Clone(c), bytes.Clone(r))
	return r, err
}
