package push

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"unicode/utf8"
)

// What passes between the server and a phone. The bodies are JSON; binary values are
// base64url without padding; times are unix seconds.

// Headers of a signed call.
const (
	HeaderDevice    = "Latchkey-Device"    // id that the enrolment gave
	HeaderTime      = "Latchkey-Time"      // unix seconds of the phone; in answers unix milliseconds of the server
	HeaderSignature = "Latchkey-Signature" // over CallMessage
)

// Base is where the door's paths begin.
const Base = "/authenticator/v1/"

// The decisions of an answer.
const (
	Approve = "approve"
	Deny    = "deny"
	Report  = "report"
)

// EnrolAsk enrols a phone.
type EnrolAsk struct {
	Code       string `json:"code"`
	PublicKey  string `json:"public_key"` // SubjectPublicKeyInfo of a P-256 key
	Proof      string `json:"proof"`      // over EnrolMessage
	Name       string `json:"name"`       // of the phone, as its owner calls it
	Platform   string `json:"platform"`   // "Android", "iOS", "desktop"
	Standalone bool   `json:"standalone"` // the app was installed
	Agent      string `json:"agent"`      // such as "Chrome on Android"
}

// Enrolled is what a phone gets.
type Enrolled struct {
	Device       string `json:"device"`
	User         string `json:"user"`
	Server       string `json:"server"`
	Name         string `json:"name"`
	People       string `json:"people"` // https://HOST[:PORT]
	TOTP         string `json:"totp"`   // otpauth URI of an authenticator of the same account
	VAPID        string `json:"vapid"`  // application server key of subscriptions
	Poll         int    `json:"poll"`   // seconds that a poll may hang
	Verification bool   `json:"verification"`
}

// Account is what a phone is told of its account.
type Account struct {
	Device       string `json:"device"`
	User         string `json:"user"`
	Server       string `json:"server"`
	Name         string `json:"name"`
	Verification bool   `json:"verification"` // an authenticator of the phone is registered
	Wanted       bool   `json:"verification_wanted"`
	Notify       bool   `json:"notify"` // it is told to look by way of its push service
	Locked       bool   `json:"locked"`
	VAPID        string `json:"vapid"`
}

// Rename is a new name of the phone.
type Rename struct {
	Name string `json:"name"`
}

// Content is what a request is about. It is served as the text that was stored, and
// that text is what is signed.
type Content struct {
	Machine string `json:"machine"`
	Place   string `json:"place"`
	Address string `json:"address"`
	Scope   string `json:"scope"`
	Service string `json:"service"`
	Door    string `json:"door"`
	User    string `json:"user"`
	At      int64  `json:"at"`
	Expires int64  `json:"expires"`
	Nonce   string `json:"nonce"`
}

// Request is one that waits for an answer.
type Request struct {
	ID             string `json:"id"`
	Content        string `json:"content"`
	Nonce          string `json:"nonce"`
	Digits         int    `json:"digits"`
	At             int64  `json:"at"`
	Expires        int64  `json:"expires"`
	Verification   bool   `json:"verification"`
	VerificationID string `json:"verification_id"` // of the credential that is asked; empty: this phone has none, and can only deny
}

// Requests are all that wait.
type Requests struct {
	Requests []Request `json:"requests"`
	Locked   bool      `json:"locked"`
	Time     int64     `json:"time"`
}

// Answer is what somebody has decided.
type Answer struct {
	Decision    string          `json:"decision"`
	Number      string          `json:"number"` // that was typed; empty unless it approves
	Nonce       string          `json:"nonce"`
	ContentHash string          `json:"content_hash"`
	Signature   string          `json:"signature"` // over AnswerMessage
	Assertion   json.RawMessage `json:"assertion,omitempty"`
}

// Answered is what became of an answer.
type Answered struct {
	State string `json:"state"`
}

// Subscription is where the phone's push service is told to look (W3C Push API).
type Subscription struct {
	Endpoint string `json:"endpoint"`
	P256DH   string `json:"p256dh"`
	Auth     string `json:"auth"`
}

// VerificationBegun asks the phone's own authenticator for a key.
type VerificationBegun struct {
	Options json.RawMessage `json:"options"` // PublicKeyCredentialCreationOptionsJSON
	Ticket  string          `json:"ticket"`
}

// Verification is that key.
type Verification struct {
	Ticket     string          `json:"ticket"`
	Credential json.RawMessage `json:"credential"` // RegistrationResponseJSON
}

// Verified names it.
type Verified struct {
	ID string `json:"id"`
}

// Notice is what goes through a push service, encrypted for the phone: "look".
type Notice struct {
	Device  string `json:"device"`
	Request string `json:"request"`
	Expires int64  `json:"expires"`
}

// ErrorBody is how the door refuses.
type ErrorBody struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Fields  map[string]string `json:"fields,omitempty"`
}

// EnrolMessage is what Proof signs.
func EnrolMessage(code, publicKey string) []byte {
	return []byte("latchkey-enrol/1\n" + code + "\n" + publicKey)
}

// CallMessage is what the header of a call signs. uri is path and query as sent, at the
// time in the header.
func CallMessage(method, uri, at string, body []byte) []byte {
	h := sha256.Sum256(body)
	return []byte("latchkey-authenticator/1\n" + method + "\n" + uri + "\n" + at + "\n" + hex.EncodeToString(h[:]))
}

// AnswerMessage is what an answer signs, and the challenge of its assertion is the
// SHA-256 of. None of the parts can hold a line feed: all are judged before.
func AnswerMessage(id, decision, number, nonce, contentHash string) []byte {
	return []byte("latchkey-push/1\n" + id + "\n" + decision + "\n" + number + "\n" + nonce + "\n" + contentHash)
}

// ContentHash is the base64url SHA-256 of a content.
func ContentHash(content string) string {
	h := sha256.Sum256([]byte(content))
	return encode(h[:])
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func decode(s string) ([]byte, error) { return base64.RawURLEncoding.Strict().DecodeString(s) }

// Key is the public half of a phone's key.
type Key struct{ k *ecdsa.PublicKey }

// maxKey bounds a key in octets of DER.
const maxKey = 256

// ParseKey reads a P-256 key as SubjectPublicKeyInfo in DER; no other kind, and no other
// form of the same key.
func ParseKey(der []byte) (Key, error) {
	if len(der) == 0 || len(der) > maxKey {
		return Key{}, errors.New("no key of P-256")
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return Key{}, fmt.Errorf("no key of P-256: %w", err)
	}
	k, ok := parsed.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return Key{}, errors.New("no key of P-256")
	}
	if again, err := x509.MarshalPKIXPublicKey(k); err != nil || string(again) != string(der) {
		return Key{}, errors.New("the key is not in its one form")
	}
	return Key{k}, nil
}

// Verify judges a signature as WebCrypto makes it: r and s, 32 octets each, over the
// SHA-256 of the message.
func (k Key) Verify(message []byte, signature string) bool {
	if len(signature) != base64.RawURLEncoding.EncodedLen(64) || k.k == nil {
		return false
	}
	sig, err := decode(signature)
	if err != nil || len(sig) != 64 {
		return false
	}
	h := sha256.Sum256(message)
	return ecdsa.Verify(k.k, h[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

// Skew is how far a phone's clock may be off, in seconds.
const Skew = 90

// ErrTime says that a call was signed at another time.
var ErrTime = errors.New("the phone's clock is off")

// VerifyCall judges the headers of a call.
func (k Key) VerifyCall(method, uri, at, signature string, body []byte, now int64) error {
	if len(at) == 0 || len(at) > 12 {
		return errors.New("no time")
	}
	t, err := strconv.ParseInt(at, 10, 64)
	if err != nil || strconv.FormatInt(t, 10) != at {
		return errors.New("no time")
	}
	if !k.Verify(CallMessage(method, uri, at, body), signature) {
		return errors.New("the signature does not fit")
	}
	if t < now-Skew || t > now+Skew {
		return ErrTime
	}
	return nil
}

// form judges what of an answer needs no request: bounds, and that no part could be
// another of the message that is signed.
func (a Answer) form() error {
	switch a.Decision {
	case Approve:
		if len(a.Number) != 2 || a.Number[0] < '0' || a.Number[0] > '9' || a.Number[1] < '0' || a.Number[1] > '9' {
			return refuse(422, "invalid", "The number has two digits.")
		}
	case Deny, Report:
		if a.Number != "" || len(a.Assertion) > 0 {
			return refuse(422, "invalid", "Only an approval has a number and an assertion.")
		}
	default:
		return refuse(422, "invalid", "The decision is approve, deny or report.")
	}
	if len(a.Nonce) > 64 || len(a.ContentHash) > 64 || len(a.Signature) > 128 || len(a.Assertion) > maxAssertion {
		return refuse(422, "invalid", "A value is too long.")
	}
	return nil
}

// maxAssertion bounds what a WebAuthn client sends, in octets.
const maxAssertion = 8 << 10

func oneLine(s string, most int) bool {
	if len(s) > most || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f {
			return false
		}
	}
	return true
}
