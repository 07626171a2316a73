package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"latchkey/internal/event"
	"latchkey/internal/secret"
)

// The form of offline tags (O7). For every time step T a bundle holds one tag
// for each of the codes of T+Offsets: one HMAC of the period, T and the typed
// code is compared with the three and says which step the code belongs to. The
// authenticator is not in the message, so that one counted use of the key checks
// all authenticators of one period.
const (
	TagSize       = 4  // octets of a code's tag
	BackupTagSize = 16 // octets of a backup code's tag
)

// Offsets are the steps that a check covers, relative to the clock's.
var Offsets = [...]int64{0, -1, 1}

// CodeMessage is what the verifier key authenticates for a TOTP code.
func CodeMessage(period int, step int64, code string) []byte {
	b := []byte("latchkey/check/1 code\x00")
	b = binary.BigEndian.AppendUint32(b, uint32(period))
	b = binary.BigEndian.AppendUint64(b, uint64(step))
	return append(b, code...)
}

// BackupMessage is what the verifier key authenticates for a backup code.
func BackupMessage(code secret.Bytes) []byte {
	return append([]byte("latchkey/check/1 backup\x00"), code.Reveal()...)
}

// CodeTag is the stored proof that code is right while the clock shows step.
func CodeTag(key secret.Bytes, period int, step int64, code string) (t [TagSize]byte) {
	copy(t[:], mac(key, CodeMessage(period, step, code)))
	return t
}

// BackupTag is the stored proof of a backup code.
func BackupTag(key, code secret.Bytes) (t [BackupTagSize]byte) {
	copy(t[:], mac(key, BackupMessage(code)))
	return t
}

func mac(key secret.Bytes, message []byte) []byte {
	h := hmac.New(sha256.New, key.Reveal())
	h.Write(message)
	return h.Sum(nil)
}

// ProofSize is the length of a SpentProof in octets.
const ProofSize = 16

// SpentProof shows that the code itself was typed on the machine: digits of an
// authenticator app, or the octets of a backup code. A machine that was never given a
// code can report none as spent (O11), also not those of the next minutes.
func SpentProof(machineID string, s Spent, code []byte) []byte {
	h := hmac.New(sha256.New, code)
	h.Write([]byte("latchkey/spent/1\x00"))
	for _, part := range []string{machineID, s.Authenticator, s.Backup} {
		_ = binary.Write(h, binary.BigEndian, uint32(len(part)))
		h.Write([]byte(part))
	}
	_ = binary.Write(h, binary.BigEndian, s.Step)
	return h.Sum(nil)[:ProofSize]
}

// Bundle is the payload of a signed bundle: the tags of some days of one
// generation. Nothing in it is secret.
type Bundle struct {
	UserID         string          `json:"user_id"`
	MachineID      string          `json:"machine_id"`
	Generation     uint64          `json:"generation"`
	IssuedAt       int64           `json:"issued_at"`
	Until          int64           `json:"until"` // last online MFA + OfflineDays
	Authenticators []CodeTags      `json:"authenticators"`
	Backup         []BackupTagged  `json:"backup"`          // always the whole present set
	RPID           string          `json:"rp_id,omitempty"` // the relying party of Keys
	Keys           []KeyHeld       `json:"keys,omitempty"`  // always the whole present set
	Extra          json.RawMessage `json:"extra,omitempty"`
}

// KeyHeld is a security key of the user that the machine may ask (M2).
type KeyHeld struct {
	ID         string `json:"id"`         // of the authenticator
	Credential []byte `json:"credential"` // id that the key knows, at most 1023 octets
	Public     []byte `json:"public"`     // COSE_Key
	Count      uint32 `json:"count"`      // the highest counter that the server has seen
}

// KeyMessage is what the verifier key authenticates for an answer of a security key: the
// use is counted, and only behind the right password, as with a typed code.
func KeyMessage(nonce []byte) []byte { return append([]byte("latchkey/check/1 key\x00"), nonce...) }

// CodeTags are the tags of one TOTP authenticator for the steps from First.
type CodeTags struct {
	ID     string `json:"id"`
	Period int    `json:"period"`
	Digits int    `json:"digits"`
	First  int64  `json:"first"`
	Count  int    `json:"count"`
	Tags   []byte `json:"-"` // Count × len(Offsets) × TagSize octets
}

// Last is the last step covered; First-1 if none is.
func (c CodeTags) Last() int64 { return c.First + int64(c.Count) - 1 }

const perStep = len(Offsets) * TagSize

// At gives the tags of a step.
func (c CodeTags) At(step int64) (tags [len(Offsets)][TagSize]byte, ok bool) {
	if step < c.First || step > c.Last() {
		return tags, false
	}
	at := int(step-c.First) * perStep
	for i := range tags {
		copy(tags[i][:], c.Tags[at+i*TagSize:])
	}
	return tags, true
}

// BackupTagged is the tag of one backup code.
type BackupTagged struct {
	ID  string `json:"id"`
	Tag []byte `json:"tag"` // BackupTagSize octets
}

// The bounds of a bundle.
const (
	maxBundleHeader = 1 << 20
	maxBundleSteps  = 70 * 24 * 120 // 70 days of 30 s
	maxBundleParts  = 64
	maxRPID         = 253
	maxCredential   = 1023
	maxPublic       = 1024
)

// EncodeBundle writes a u32 length, the header as JSON, and the tags of all
// authenticators.
func EncodeBundle(b Bundle) ([]byte, error) {
	head, err := json.Marshal(b)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(head)))
	out = append(out, head...)
	for _, a := range b.Authenticators {
		if len(a.Tags) != a.Count*perStep {
			return nil, fmt.Errorf("authenticator %s: %d octets of tags for %d steps", a.ID, len(a.Tags), a.Count)
		}
		out = append(out, a.Tags...)
	}
	return out, nil
}

// DecodeBundle reads what EncodeBundle made; the tags alias raw.
func DecodeBundle(raw []byte) (b Bundle, err error) {
	if len(raw) < 4 {
		return b, errors.New("bundle is cut short")
	}
	n := binary.BigEndian.Uint32(raw)
	if n > maxBundleHeader || int(n) > len(raw)-4 {
		return b, fmt.Errorf("bundle header of %d octets", n)
	}
	dec := json.NewDecoder(bytes.NewReader(raw[4 : 4+n]))
	if err := dec.Decode(&b); err != nil {
		return b, fmt.Errorf("bundle header: %w", err)
	}
	if len(b.Authenticators) > maxBundleParts || len(b.Backup) > maxBundleParts {
		return b, errors.New("bundle has too many parts")
	}
	rest := raw[4+n:]
	for i := range b.Authenticators {
		a := &b.Authenticators[i]
		if a.Count < 0 || a.Count > maxBundleSteps || a.First < 0 || a.First > 1<<40 || a.Period != 30 && a.Period != 60 || a.Digits != 6 && a.Digits != 8 {
			return b, fmt.Errorf("bundle: authenticator %d is out of bounds", i)
		}
		size := a.Count * perStep
		if size > len(rest) {
			return b, errors.New("bundle is cut short")
		}
		a.Tags, rest = rest[:size:size], rest[size:]
	}
	if len(rest) != 0 {
		return b, errors.New("bundle has octets after its end")
	}
	if len(b.Keys) > maxBundleParts || len(b.RPID) > maxRPID || len(b.Keys) > 0 && b.RPID == "" {
		return b, errors.New("bundle: security keys out of bounds")
	}
	for _, k := range b.Keys {
		if len(k.Credential) == 0 || len(k.Credential) > maxCredential || len(k.Public) == 0 || len(k.Public) > maxPublic {
			return b, errors.New("bundle: a security key is out of bounds")
		}
	}
	for _, c := range b.Backup {
		if len(c.Tag) != BackupTagSize {
			return b, errors.New("bundle: a backup tag has a wrong length")
		}
	}
	return b, nil
}

// EntryHash is the hash of a journal entry behind prev (zero before the first):
// event.Next over the chain "journal/<machine>", with the NV counter and what
// was spent folded in.
func EntryHash(machineID string, prev event.Hash, e JournalEntry) event.Hash {
	inner := event.Next("journal/"+machineID, e.Seq, prev, e.Event)
	h := sha256.New()
	h.Write(inner[:])
	_ = binary.Write(h, binary.BigEndian, e.Counter)
	if e.Spent != nil {
		for _, s := range []string{e.Spent.Authenticator, e.Spent.Backup} {
			_ = binary.Write(h, binary.BigEndian, uint32(len(s)))
			h.Write([]byte(s))
		}
		_ = binary.Write(h, binary.BigEndian, e.Spent.Step)
		h.Write(e.Spent.Proof)
		if k := e.Spent.Signed; e.Spent.Key != "" && k != nil {
			for _, b := range [][]byte{[]byte(e.Spent.Key), k.Nonce, k.AuthData, k.Signature} {
				_ = binary.Write(h, binary.BigEndian, uint32(len(b)))
				h.Write(b)
			}
		}
	}
	var out event.Hash
	h.Sum(out[:0])
	return out
}
