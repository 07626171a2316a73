// Package otp computes and checks one-time codes: HOTP (RFC 4226), TOTP (RFC
// 6238) and backup codes. Pure: the time and the random source are parameters.
// Rows M1, M5.
package otp

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/secret"
)

// Algorithm is the hash of a TOTP authenticator.
type Algorithm string

// The algorithms of RFC 6238 §1.2, written as in otpauth URIs.
const (
	SHA1   Algorithm = "SHA1"
	SHA256 Algorithm = "SHA256"
	SHA512 Algorithm = "SHA512"
)

// Params are the public parameters of a TOTP authenticator.
type Params struct {
	Algorithm Algorithm `json:"algorithm"`
	Digits    int       `json:"digits"` // 6 or 8
	Period    int       `json:"period"` // seconds: 30 or 60
}

// DefaultParams are what every authenticator app understands.
var DefaultParams = Params{SHA1, 6, 30}

// Validate says which parameter is not allowed.
func (p Params) Validate() error {
	switch p.Algorithm {
	case SHA1, SHA256, SHA512:
	default:
		return fmt.Errorf("algorithm: %q is not allowed; allowed are SHA1, SHA256, SHA512", p.Algorithm)
	}
	if p.Digits != 6 && p.Digits != 8 {
		return fmt.Errorf("digits: %d is not allowed; allowed are 6 and 8", p.Digits)
	}
	if p.Period != 30 && p.Period != 60 {
		return fmt.Errorf("period: %d is not allowed; allowed are 30 and 60 seconds", p.Period)
	}
	return nil
}

func (p Params) hash() func() hash.Hash {
	switch p.Algorithm {
	case SHA256:
		return sha256.New
	case SHA512:
		return sha512.New
	}
	return sha1.New
}

// SeedSize is the length of a new seed in octets for the algorithm: that of the
// hash (RFC 4226 §4 R6 asks for at least 16 and recommends 20).
func (p Params) SeedSize() int { return p.hash()().Size() }

// Step is the time step at t (RFC 6238 §4.2): unix seconds divided by the period.
func (p Params) Step(t time.Time) int64 {
	s := t.Unix()
	if s < 0 {
		return 0
	}
	return s / int64(p.Period)
}

// Code is the code of the step, with leading zeros (RFC 4226 §5.3).
func (p Params) Code(seed secret.Bytes, step int64) string {
	var msg [8]byte
	binary.BigEndian.PutUint64(msg[:], uint64(step))
	mac := hmac.New(p.hash(), seed.Reveal())
	mac.Write(msg[:])
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	v := binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
	mod := uint32(1_000_000)
	if p.Digits == 8 {
		mod = 100_000_000
	}
	return fmt.Sprintf("%0*d", p.Digits, v%mod)
}

// Skew is how many steps before and behind the clock's are accepted.
const Skew = 1

// Verify compares code with the codes of the steps around the clock's step plus
// drift, and returns the step that matched. Steps at or below after are never
// accepted, so that a code is good once. Every step is computed, whether or not
// an earlier one matched, so that the time does not tell.
func (p Params) Verify(seed secret.Bytes, code string, now time.Time, drift, after int64) (step int64, ok bool) {
	at := p.Step(now) + drift
	// From late to early: a code that is right for two steps counts as the earlier.
	for s := at + Skew; s >= at-Skew; s-- {
		match := subtle.ConstantTimeCompare([]byte(p.Code(seed, s)), []byte(code)) == 1
		if match && s > after && s >= 0 {
			step, ok = s, true
		}
	}
	return step, ok
}

// Matches tells which step around the clock's the code belongs to, used or not.
// It is for telling a replay from a wrong code in an event, after Verify failed.
func (p Params) Matches(seed secret.Bytes, code string, now time.Time, drift int64) (step int64, ok bool) {
	return p.Verify(seed, code, now, drift, -1)
}

// CleanCode drops the spaces and dashes that people type in a code and says
// whether what is left has the right number of digits.
func (p Params) CleanCode(typed string) (string, bool) {
	if len(typed) > 64 {
		return "", false
	}
	code := strings.Map(func(r rune) rune {
		if r == ' ' || r == '-' || r == '\u00a0' {
			return -1
		}
		return r
	}, typed)
	if len(code) != p.Digits || strings.Trim(code, "0123456789") != "" {
		return "", false
	}
	return code, true
}

var seedText = base32.StdEncoding.WithPadding(base32.NoPadding)

// FormatSeed is the key as people type it: base32 without padding.
func FormatSeed(seed secret.Bytes) string { return seedText.EncodeToString(seed.Reveal()) }

// ParseSeed reads a typed key: base32, either case, spaces and dashes allowed.
func ParseSeed(typed string) (secret.Bytes, error) {
	if len(typed) > 512 {
		return secret.Bytes{}, errors.New("key: longer than 512 characters")
	}
	clean := strings.TrimRight(strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(typed)), "=")
	b, err := seedText.DecodeString(clean)
	if err != nil {
		return secret.Bytes{}, errors.New("key: not base32 (letters A-Z and digits 2-7)")
	}
	if len(b) < 16 {
		return secret.Bytes{}, fmt.Errorf("key: %d octets; allowed are at least 16", len(b))
	}
	return secret.New(b), nil
}

// URI is the otpauth URI that an authenticator app reads from a QR code. It
// holds the seed.
func (p Params) URI(issuer, account string, seed secret.Bytes) string {
	q := url.Values{}
	q.Set("secret", FormatSeed(seed))
	q.Set("issuer", issuer)
	q.Set("algorithm", string(p.Algorithm))
	q.Set("digits", strconv.Itoa(p.Digits))
	q.Set("period", strconv.Itoa(p.Period))
	return "otpauth://totp/" + url.PathEscape(issuer) + ":" + url.PathEscape(account) + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

// The form of backup codes: ten of 64 bits, written as 13 characters of a base32
// alphabet without letters that look like digits, in groups (M5).
const (
	BackupCount  = 10
	backupOctets = 8
)

var backupText = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewBackup makes one backup code of 64 bits from random.
func NewBackup(random io.Reader) (secret.Bytes, error) {
	b := make([]byte, backupOctets)
	if _, err := io.ReadFull(random, b); err != nil {
		return secret.Bytes{}, fmt.Errorf("making a backup code: %w", err)
	}
	return secret.New(b), nil
}

// FormatBackup writes a backup code for people: XXXXX-XXXX-XXXX.
func FormatBackup(code secret.Bytes) string {
	s := backupText.EncodeToString(code.Reveal())
	if len(s) != 13 {
		return s
	}
	return s[:5] + "-" + s[5:9] + "-" + s[9:]
}

// ParseBackup reads a typed backup code: either case, spaces and dashes allowed,
// I and L read as 1, O as 0. Every typed form of one code gives the same octets.
func ParseBackup(typed string) (secret.Bytes, bool) {
	if len(typed) > 64 {
		return secret.Bytes{}, false
	}
	clean := strings.NewReplacer(" ", "", "-", "", "I", "1", "L", "1", "O", "0").Replace(strings.ToUpper(typed))
	if len(clean) != 13 {
		return secret.Bytes{}, false
	}
	b, err := backupText.DecodeString(clean)
	// 13 characters hold 65 bits: the spare one must be zero, or two texts would
	// be one code.
	if err != nil || len(b) != backupOctets || backupText.EncodeToString(b) != clean {
		return secret.Bytes{}, false
	}
	return secret.New(b), true
}
