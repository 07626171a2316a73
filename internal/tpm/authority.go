package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"

	"latchkey/internal/secret"
)

// This file is the server's half of the verifier: pure computation.

// nonceSize is the size of every session nonce in octets. The server refuses any
// other: an empty nonceTPM would make a permit that is not bound to a session.
const nonceSize = 32

// maxPublic bounds a marshalled public area or signature from outside, in octets.
const maxPublic = 1024

// Kind tells the two indices of a verifier apart. The zero value is neither.
type Kind int

const (
	// PasswordIndex counts wrong passwords (TPM_NT_PIN_FAIL).
	PasswordIndex Kind = 1
	// UseIndex counts uses (TPM_NT_PIN_PASS).
	UseIndex Kind = 2
)

// kinds is the order in which the indices are defined, activated and proven.
var kinds = [...]Kind{PasswordIndex, UseIndex}

var (
	_ encoding.TextMarshaler   = Kind(0)
	_ encoding.TextUnmarshaler = (*Kind)(nil)
)

// String is "password" or "use", the form on the wire.
func (k Kind) String() string {
	switch k {
	case PasswordIndex:
		return "password"
	case UseIndex:
		return "use"
	}
	return "unknown"
}

// MarshalText is the form on the wire; it fails for a value that is no kind.
func (k Kind) MarshalText() ([]byte, error) {
	if k != PasswordIndex && k != UseIndex {
		return nil, fmt.Errorf("index kind %d does not exist", int(k))
	}
	return []byte(k.String()), nil
}

// UnmarshalText reads the form on the wire.
func (k *Kind) UnmarshalText(b []byte) error {
	for _, c := range kinds {
		if string(b) == c.String() {
			*k = c
			return nil
		}
	}
	return fmt.Errorf("index kind %.20q: want %q or %q", b, PasswordIndex, UseIndex)
}

// ID names one verifier for ever: a key that is made again gets the next
// generation, or an old key would come back to life with the new indices. User
// and Machine are ids of 1 to 255 octets, Generation counts from 1.
type ID struct {
	User, Machine string
	Generation    uint64
}

// policyRef is SHA-256 over the ID's fields, each with its length before it.
func (id ID) policyRef() []byte {
	h := sha256.New()
	for _, f := range []string{"verifier/1", id.User, id.Machine} {
		writeBig(h, uint32(len(f)))
		h.Write([]byte(f))
	}
	writeBig(h, id.Generation)
	return h.Sum(nil)
}

func writeBig(w io.Writer, v any) {
	if err := binary.Write(w, binary.BigEndian, v); err != nil {
		panic(err) // a hash takes every integer
	}
}

// Spec is all that the Names and policies of a verifier follow from. Server and
// machine make it independently with [NewSpec]. The zero value is refused by
// every function that takes one.
type Spec struct {
	id     ID
	server tpm2.TPMTPublic
	fail   tpm2.TPMHandle
	pass   tpm2.TPMHandle
}

// The NV handles that the owner hierarchy may use (Registry of Reserved TPM 2.0
// Handles, §2.2).
const (
	firstOwnerHandle = 0x01800000
	lastOwnerHandle  = 0x01BFFFFF
)

func checkHandle(what string, h uint32) error {
	if h < firstOwnerHandle || h > lastOwnerHandle {
		return fmt.Errorf("%s handle %#08x is outside %#08x to %#08x", what, h, firstOwnerHandle, lastOwnerHandle)
	}
	return nil
}

// NewSpec checks its arguments and makes a Spec. permitKey is the public part of
// the server's TPM-policy key: P-256, or RSA of 2048 bits with exponent 65537.
// The two handles must differ.
func NewSpec(id ID, permitKey crypto.PublicKey, passwordHandle, useHandle uint32) (Spec, error) {
	for what, v := range map[string]string{"user": id.User, "machine": id.Machine} {
		if len(v) == 0 || len(v) > 255 {
			return Spec{}, fmt.Errorf("verifier's %s id has %d octets: want 1 to 255", what, len(v))
		}
	}
	if id.Generation == 0 {
		return Spec{}, errors.New("verifier's generation is 0: they count from 1")
	}
	if err := errors.Join(checkHandle("password index", passwordHandle), checkHandle("use index", useHandle)); err != nil {
		return Spec{}, err
	}
	if passwordHandle == useHandle {
		return Spec{}, fmt.Errorf("password index and use index have the same handle %#08x", useHandle)
	}
	pub, err := serverPublic(permitKey)
	if err != nil {
		return Spec{}, err
	}
	return Spec{id: id, server: pub, fail: tpm2.TPMHandle(passwordHandle), pass: tpm2.TPMHandle(useHandle)}, nil
}

// ID tells whose verifier it is.
func (s Spec) ID() ID { return s.id }

// Handles are the NV handles of the password index and the use index.
func (s Spec) Handles() (password, use uint32) { return uint32(s.fail), uint32(s.pass) }

// check refuses a Spec that was not made by NewSpec.
func (s Spec) check() error {
	if s.id.Generation == 0 {
		return errors.New("verifier's spec is empty")
	}
	return nil
}

func (s Spec) handle(k Kind) tpm2.TPMHandle {
	if k == PasswordIndex {
		return s.fail
	}
	return s.pass
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // only for computations that cannot fail on a Spec from NewSpec
	}
	return v
}

func digest(cmds ...tpm2.PolicyCommand) tpm2.TPM2BDigest {
	c := must(tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256))
	for _, cmd := range cmds {
		if err := cmd.Update(c); err != nil {
			panic(err) // as in must
		}
	}
	return tpm2.TPM2BDigest{Buffer: c.Hash().Digest}
}

// writePolicy is the indices' authPolicy: PolicySigned(server, policyRef) and
// PolicyCommandCode(NV_Write).
func (s Spec) writePolicy() tpm2.TPM2BDigest {
	return digest(
		tpm2.PolicySigned{AuthObject: tpm2.NamedHandle{Name: *must(tpm2.ObjectName(&s.server))}, PolicyRef: tpm2.TPM2BNonce{Buffer: s.id.policyRef()}},
		tpm2.PolicyCommandCode{Code: tpm2.TPMCCNVWrite})
}

// keyPolicy is the key's authPolicy: PolicySecret on both written indices and
// PolicyCommandCode(HMAC). Without the last one use would give any number of
// HMACs, through a saved HMAC sequence.
func (s Spec) keyPolicy() tpm2.TPM2BDigest {
	return digest(
		tpm2.PolicySecret{AuthHandle: s.named(PasswordIndex, true)},
		tpm2.PolicySecret{AuthHandle: s.named(UseIndex, true)},
		tpm2.PolicyCommandCode{Code: tpm2.TPMCCHMAC})
}

// index is the public area of an index before or after its first write. Neither
// the owner nor the index's own authValue may write it.
func (s Spec) index(k Kind, written bool) tpm2.TPMSNVPublic {
	a := indexAttributes(k)
	a.Written = written
	return tpm2.TPMSNVPublic{NVIndex: s.handle(k), NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: s.writePolicy(), DataSize: 8, Attributes: a}
}

func indexAttributes(k Kind) tpm2.TPMANV {
	nt := tpm2.TPMNTPinFail
	if k == UseIndex {
		nt = tpm2.TPMNTPinPass
	}
	return tpm2.TPMANV{NT: nt, PolicyWrite: true, WriteAll: true, OwnerRead: true, NoDA: true}
}

// name is the index's Name.
func (s Spec) name(k Kind, written bool) tpm2.TPM2BName {
	p := s.index(k, written)
	return *must(tpm2.NVName(&p))
}

func (s Spec) named(k Kind, written bool) tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: s.handle(k), Name: s.name(k, written)}
}

func (s Spec) nvWrite(k Kind, written bool, v Tally, auth tpm2.Session) tpm2.NVWrite {
	n := s.named(k, written)
	return tpm2.NVWrite{
		AuthHandle: tpm2.AuthHandle{Handle: n.Handle, Name: n.Name, Auth: auth}, NVIndex: n,
		Data: tpm2.TPM2BMaxNVBuffer{Buffer: v.marshal()},
	}
}

// cpHash binds a permit to the index's Name as it is before the write, to the
// offset and to the value.
func (s Spec) cpHash(k Kind, written bool, v Tally) (*tpm2.TPM2BDigest, error) {
	return tpm2.CPHash[tpm2.NVWriteResponse](tpm2.TPMAlgSHA256, s.nvWrite(k, written, v, nil))
}

// Tally is the value of a verifier's index: Count of at most Limit.
type Tally struct {
	Count uint32 `json:"count"`
	Limit uint32 `json:"limit"`
}

// Left is how many more the index lets through.
func (t Tally) Left() uint32 {
	if t.Count >= t.Limit {
		return 0
	}
	return t.Limit - t.Count
}

func (t Tally) marshal() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, t.Count), t.Limit)
}

// parentBranches are the only two commands that the import parent allows.
func parentBranches() tpm2.TPMLDigest {
	return tpm2.TPMLDigest{Digests: []tpm2.TPM2BDigest{
		digest(tpm2.PolicyCommandCode{Code: tpm2.TPMCCImport}),
		digest(tpm2.PolicyCommandCode{Code: tpm2.TPMCCLoad}),
	}}
}

// parentTemplate is the import parent: an ECC P-256 storage key that can do
// TPM2_Import and TPM2_Load and nothing else. A common storage key will not do:
// with it anyone can TPM2_Rewrap the server's bundle to no parent and read the
// key.
func parentTemplate() tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.ObjectAttributes.UserWithAuth = false // adminWithPolicy stays clear, so that TPM2_Certify works
	t.AuthPolicy = digest(tpm2.PolicyOr{PHashList: parentBranches()})
	return t
}

// Parent is the public area of a machine's import parent, checked. Only
// [ParseParent] makes one.
type Parent struct{ public tpm2.TPMTPublic }

// ParseParent reads a TPMT_PUBLIC that a machine calls its import parent (see
// [Device.Parent]) and refuses every key that is not made from the one template.
// It cannot tell whether the key lies in a TPM: that takes a certificate of an
// attestation key, and until then a machine's TPM is only claimed.
func ParseParent(b []byte) (Parent, error) {
	if len(b) > maxPublic {
		return Parent{}, fmt.Errorf("import parent of %d octets: at most %d", len(b), maxPublic)
	}
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
	if err != nil {
		return Parent{}, fmt.Errorf("import parent: %w", err)
	}
	t := parentTemplate()
	if err := sameTemplate(&t, p, b); err != nil {
		return Parent{}, fmt.Errorf("not an import parent: %w", err)
	}
	return Parent{t}, nil
}

// Marshal is the inverse of [ParseParent].
func (p Parent) Marshal() []byte { return tpm2.Marshal(p.public) }

// Name is the TPM's Name of the parent: what the machine pins. It is nil for the
// zero value.
func (p Parent) Name() []byte {
	n, err := tpm2.ObjectName(&p.public)
	if err != nil {
		return nil
	}
	return n.Buffer
}

// sameTemplate puts the P-256 point of p into t and reports an error unless t is
// then, octet for octet, what b says and the point is on the curve.
func sameTemplate(t, p *tpm2.TPMTPublic, b []byte) error {
	if p.Type != tpm2.TPMAlgECC {
		return fmt.Errorf("key of type %v", p.Type)
	}
	pt, err := p.Unique.ECC()
	if err != nil {
		return err
	}
	if _, err := point(pt); err != nil {
		return err
	}
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, pt)
	if !bytes.Equal(tpm2.Marshal(*t), b) {
		return errors.New("its template is another one")
	}
	return nil
}

// point is the SEC 1 form of a point that lies on P-256.
func point(pt *tpm2.TPMSECCPoint) ([]byte, error) {
	x, y := pt.X.Buffer, pt.Y.Buffer
	if len(x) > 32 || len(y) > 32 {
		return nil, fmt.Errorf("coordinates of %d and %d octets", len(x), len(y))
	}
	b := make([]byte, 65)
	b[0] = 4
	copy(b[33-len(x):33], x)
	copy(b[65-len(y):], y)
	if _, err := ecdh.P256().NewPublicKey(b); err != nil {
		return nil, err
	}
	return b, nil
}

func eccPoint(b []byte) *tpm2.TPMSECCPoint {
	return &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: b[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: b[33:65]}}
}

// serverPublic is the TPM form of the server's permit key.
func serverPublic(pub crypto.PublicKey) (tpm2.TPMTPublic, error) {
	t := tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, UserWithAuth: true}}
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		if p == nil || p.Curve == nil {
			return t, errors.New("permit key is empty")
		}
		b, err := p.Bytes()
		if err != nil || len(b) != 65 {
			return t, errors.New("permit key must be on P-256")
		}
		t.Type = tpm2.TPMAlgECC
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: ecdsaScheme()})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, eccPoint(b))
	case *rsa.PublicKey:
		if p == nil || p.N == nil || p.N.BitLen() != 2048 || p.E != 65537 {
			return t, errors.New("permit key of RSA must have 2048 bits and the exponent 65537")
		}
		t.Type = tpm2.TPMAlgRSA
		t.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			KeyBits: 2048,
			Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
		})
		t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: p.N.Bytes()})
	default:
		return t, fmt.Errorf("permit key is a %T: want P-256 or RSA", pub)
	}
	return t, nil
}

func ecdsaScheme() tpm2.TPMTECCScheme {
	return tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})}
}

// Permit is the server's leave to write Value once, in one session.
type Permit struct {
	Value Tally `json:"value"`
	// Expiration is in seconds from the start of the session.
	Expiration int32 `json:"expiration"`
	// Signature is a TPMT_SIGNATURE.
	Signature []byte `json:"signature"`
}

// SignActivation makes the permit for the first write of an index.
//
// The server must record that it made one before it hands it out, and must never
// make a second one for the same ID and kind: whoever holds a spare can define
// the index again with a password of his own. Any failure afterwards means the
// next generation.
//
// nonceTPM must have 32 octets. expiration, in seconds, must be positive: zero
// never ends, and with a negative one the TPM would give out a ticket.
func SignActivation(key crypto.Signer, s Spec, k Kind, v Tally, nonceTPM []byte, expiration int32) (Permit, error) {
	return signPermit(key, s, k, false, v, nonceTPM, expiration)
}

// SignLift makes the permit to write an index that was activated. An index that
// was deleted and defined anew can not use it. nonceTPM and expiration are as in
// [SignActivation].
func SignLift(key crypto.Signer, s Spec, k Kind, v Tally, nonceTPM []byte, expiration int32) (Permit, error) {
	return signPermit(key, s, k, true, v, nonceTPM, expiration)
}

func signPermit(key crypto.Signer, s Spec, k Kind, written bool, v Tally, nonceTPM []byte, expiration int32) (p Permit, err error) {
	if err := s.check(); err != nil {
		return p, err
	}
	if k != PasswordIndex && k != UseIndex {
		return p, fmt.Errorf("index kind %d does not exist", int(k))
	}
	if len(nonceTPM) != nonceSize {
		return p, fmt.Errorf("nonce of %d octets: want %d", len(nonceTPM), nonceSize)
	}
	if expiration <= 0 {
		return p, errors.New("a permit must expire")
	}
	if v.Limit == 0 || v.Count > v.Limit {
		return p, fmt.Errorf("tally of %d with a limit of %d", v.Count, v.Limit)
	}
	// A permit by another key would be refused by the TPM, and an activation
	// would be lost with it.
	pub, err := serverPublic(key.Public())
	if err != nil {
		return p, err
	}
	if !bytes.Equal(tpm2.Marshal(pub), tpm2.Marshal(s.server)) {
		return p, errors.New("the key that signs is not the permit key of the spec")
	}
	cp, err := s.cpHash(k, written, v)
	if err != nil {
		return p, err
	}
	h := sha256.New() // aHash = H(nonceTPM || expiration || cpHashA || policyRef), TPM 2.0 part 3 §23.3
	h.Write(nonceTPM)
	writeBig(h, expiration)
	h.Write(cp.Buffer)
	h.Write(s.id.policyRef())
	raw, err := key.Sign(rand.Reader, h.Sum(nil), crypto.SHA256)
	if err != nil {
		return p, fmt.Errorf("signing a permit: %w", err)
	}
	var sig tpm2.TPMTSignature
	switch key.Public().(type) {
	case *rsa.PublicKey:
		sig = tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA,
			&tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: raw}})}
	default: // serverPublic lets only P-256 through else
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(raw, &rs); err != nil {
			return p, err
		}
		sig = tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
			Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: rs.R.FillBytes(make([]byte, 32))},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: rs.S.FillBytes(make([]byte, 32))},
		})}
	}
	return Permit{Value: v, Expiration: expiration, Signature: tpm2.Marshal(sig)}, nil
}

// Bundle is a verifier key wrapped for one import parent. Nothing in it is
// secret to anybody but that TPM.
type Bundle struct {
	Public    []byte `json:"public"`
	Duplicate []byte `json:"duplicate"`
	Seed      []byte `json:"seed"`
}

// NewKey makes a key for the spec, wrapped for the parent, and returns its value
// too, for the tags.
func NewKey(s Spec, parent Parent) (key secret.Bytes, b Bundle, err error) {
	if err := s.check(); err != nil {
		return key, b, err
	}
	if parent.public.Type != tpm2.TPMAlgECC {
		return key, b, errors.New("import parent is empty")
	}
	key = secret.New(random(32))
	b, err = wrapKey(key, s.keyPolicy(), parent.public)
	return key, b, err
}

// random does not fail (crypto/rand since Go 1.24).
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func wrapKey(key secret.Bytes, policy tpm2.TPM2BDigest, parent tpm2.TPMTPublic) (b Bundle, err error) {
	seed := random(sha256.Size)
	unique := sha256.Sum256(append(append([]byte{}, seed...), key.Reveal()...))
	pub := tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: policy,
		ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, AdminWithPolicy: true, NoDA: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{Scheme: tpm2.TPMTKeyedHashScheme{
			Scheme: tpm2.TPMAlgHMAC, Details: tpm2.NewTPMUSchemeKeyedHash(tpm2.TPMAlgHMAC, &tpm2.TPMSSchemeHMAC{HashAlg: tpm2.TPMAlgSHA256}),
		}}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{Buffer: unique[:]}),
	}
	sensitive := tpm2.Marshal(tpm2.TPMTSensitive{
		SensitiveType: tpm2.TPMAlgKeyedHash, SeedValue: tpm2.TPM2BDigest{Buffer: seed},
		Sensitive: tpm2.NewTPMUSensitiveComposite(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BSensitiveData{Buffer: key.Reveal()}),
	})
	defer clear(sensitive)
	name, err := tpm2.ObjectName(&pub)
	if err != nil {
		return b, err
	}
	to, err := tpm2.ImportEncapsulationKey(&parent)
	if err != nil {
		return b, err
	}
	b.Public = tpm2.Marshal(pub)
	b.Duplicate, b.Seed, err = tpm2.CreateDuplicate(rand.Reader, to, name.Buffer, sensitive)
	return b, err
}

// MAC is what the TPM computes with the key, computed by whoever has the key. The
// messages and the tags made of their MACs are the wire package's.
func MAC(key secret.Bytes, message []byte) [sha256.Size]byte {
	h := hmac.New(sha256.New, key.Reveal())
	h.Write(message)
	return [sha256.Size]byte(h.Sum(nil))
}
