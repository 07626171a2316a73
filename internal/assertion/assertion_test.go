package assertion

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
)

const rpID = "latchkey.example.org"

// signer is a security key's credential.
type signer struct {
	cose []byte
	sign func(data []byte) []byte
}

func signers(t testing.TB) map[string]signer {
	t.Helper()
	mar := func(m map[int]any) []byte {
		b, err := cbor.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	must := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	digest := func(b []byte) []byte { d := sha256.Sum256(b); return d[:] }
	point := must(ec.PublicKey.Bytes())
	return map[string]signer{
		"ES256": {
			mar(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}),
			func(b []byte) []byte { return must(ecdsa.SignASN1(rand.Reader, ec, digest(b))) },
		},
		"EdDSA": {mar(map[int]any{1: 1, 3: -8, -1: 6, -2: []byte(edPub)}), func(b []byte) []byte { return ed25519.Sign(ed, b) }},
		"RS256": {
			mar(map[int]any{1: 3, 3: -257, -1: rs.N.Bytes(), -2: big.NewInt(int64(rs.E)).Bytes()}),
			func(b []byte) []byte { return must(rsa.SignPKCS1v15(rand.Reader, rs, crypto.SHA256, digest(b))) },
		},
	}
}

func data(rp string, flags byte, count uint32) []byte {
	h := sha256.Sum256([]byte(rp))
	return binary.BigEndian.AppendUint32(append(h[:], flags), count)
}

func TestAnAssertionIsJudgedByWhatTheKeySigned(t *testing.T) {
	nonce := make([]byte, NonceSize)
	hash := ClientHash(nonce, "m1", "u1")
	other := ClientHash(nonce, "m2", "u1")
	for alg, k := range signers(t) {
		for name, c := range map[string]struct {
			rp     string
			flags  byte
			count  uint32
			tail   []byte
			signed [32]byte
			verify bool
			known  uint32
			want   error
		}{
			"touched":                              {rp: rpID, flags: 1, count: 5, signed: hash, known: 4},
			"touched and verified":                 {rp: rpID, flags: 5, count: 5, signed: hash, verify: true},
			"a key without a counter":              {rp: rpID, flags: 1, signed: hash},
			"for another machine":                  {rp: rpID, flags: 1, count: 5, signed: other, want: ErrSignature},
			"for another server":                   {rp: "evil.example", flags: 1, count: 5, signed: hash, want: ErrRelyingParty},
			"nobody there":                         {rp: rpID, flags: 4, count: 5, signed: hash, want: ErrPresence},
			"touched where a PIN is wanted":        {rp: rpID, flags: 1, count: 5, signed: hash, verify: true, want: ErrVerification},
			"the counter stands still":             {rp: rpID, flags: 1, count: 5, signed: hash, known: 5, want: ErrCloned},
			"the counter is gone":                  {rp: rpID, flags: 1, signed: hash, known: 5, want: ErrCloned},
			"a registration given as an assertion": {rp: rpID, flags: 1 | 1<<6, count: 5, tail: []byte{1}, signed: hash, want: ErrForm},
			"octets behind the end":                {rp: rpID, flags: 1, count: 5, tail: []byte{1}, signed: hash, want: ErrForm},
			"extensions":                           {rp: rpID, flags: 1 | 1<<7, count: 5, tail: []byte{0xa0}, signed: hash},
		} {
			t.Run(alg+" "+name, func(t *testing.T) {
				ad := append(data(c.rp, c.flags, c.count), c.tail...)
				sig := k.sign(append(slices.Clone(ad), c.signed[:]...))
				r, err := Verify(k.cose, ad, sig, Want{RPID: rpID, ClientHash: hash, Verification: c.verify, Count: c.known})
				if !errors.Is(err, c.want) {
					t.Fatalf("%v; want %v", err, c.want)
				}
				if err == nil && (r.Count != c.count || r.Verified != (c.flags&4 != 0)) {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

func TestEveryChangedOctetIsRefused(t *testing.T) {
	hash := ClientHash(make([]byte, NonceSize), "m1", "u1")
	for alg, k := range signers(t) {
		ad := data(rpID, 5, 9)
		sig := k.sign(append(slices.Clone(ad), hash[:]...))
		for i := range ad {
			bad := slices.Clone(ad)
			bad[i] ^= 1
			if _, err := Verify(k.cose, bad, sig, Want{RPID: rpID, ClientHash: hash}); err == nil {
				t.Errorf("%s: octet %d of the data can be changed", alg, i)
			}
		}
	}
}

// A browser's client data is JSON: nothing that it hashes can be what is hashed here.
func TestTheHashIsOfNoJSONAndOfEachPart(t *testing.T) {
	seen := map[[32]byte]string{OfflineHash([]byte("n"), "m", "u"): "offline"}
	for _, c := range [][3]string{{"n", "m", "u"}, {"n", "mu", ""}, {"nm", "", "u"}, {"n", "", "mu"}, {"", "nm", "u"}} {
		h := ClientHash([]byte(c[0]), c[1], c[2])
		if was, ok := seen[h]; ok {
			t.Errorf("%q and %q have one hash", was, c)
		}
		seen[h] = c[0] + "|" + c[1] + "|" + c[2]
	}
}

func FuzzParseKey(f *testing.F) {
	for _, k := range signers(f) {
		f.Add(k.cose)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b)
		if err != nil {
			return
		}
		// A second reader of the same format must not refuse what this one takes.
		if _, err := webauthncose.ParsePublicKey(b); err != nil {
			t.Errorf("%x: %v", b, err)
		}
		if k.verify([]byte("x"), []byte("y")) {
			t.Errorf("%x verifies what nobody signed", b)
		}
	})
}

func FuzzVerify(f *testing.F) {
	k := signers(f)["ES256"]
	hash := ClientHash(make([]byte, NonceSize), "m1", "u1")
	ad := data(rpID, 1, 1)
	f.Add(ad, k.sign(append(slices.Clone(ad), hash[:]...)))
	f.Fuzz(func(t *testing.T, authData, sig []byte) {
		if _, err := Verify(k.cose, authData, sig, Want{RPID: rpID, ClientHash: hash, Verification: true}); err == nil {
			t.Error("accepted without verification")
		}
	})
}

func TestANonceOfAMachineHoldsItsTime(t *testing.T) {
	n := OfflineNonce(1_700_000_000_000_001, [NonceSize - 8]byte{1})
	if at, ok := NonceTime(n); !ok || at != 1_700_000_000_000_001 || len(n) != NonceSize {
		t.Errorf("%d %v, %d octets", at, ok, len(n))
	}
	for _, bad := range [][]byte{nil, n[1:], make([]byte, NonceSize), append([]byte{0xff}, n[1:]...)} {
		if _, ok := NonceTime(bad); ok {
			t.Errorf("%x has a time", bad)
		}
	}
}
