package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"latchkey/internal/secret"
)

// Token is what a machine needs to join: where the server is, how to know it, and
// the proof that somebody wants this machine (E4). Its text form is
//
//	base64url( version 1 | SHA-256 of the CA's certificate, 32 octets | secret, 32 octets | URL | check, 4 octets )
//
// without padding. The check is the beginning of the SHA-256 of all before it: it
// tells a token that was cut off in copying from one that the server refuses.
type Token struct {
	URL    string       // of the machines' listener: https://HOST:PORT
	CA     [32]byte     // SHA-256 of the CA's certificate in DER: what the agent pins
	Secret secret.Bytes // TokenSecretSize octets; the server holds its SHA-256
}

// The bounds of a join token.
const (
	TokenSecretSize = 32
	tokenVersion    = 1
	tokenCheck      = 4
	tokenHead       = 1 + sha256.Size + TokenSecretSize
	maxTokenURL     = 300
	maxTokenText    = (tokenHead+maxTokenURL+tokenCheck)*4/3 + 4
)

// Errors of DecodeToken.
var (
	// ErrToken: the text is no join token.
	ErrToken = errors.New("this is not a whole join token: copy it again, from its first to its last character")
	// ErrTokenNewer: a newer server made it.
	ErrTokenNewer = errors.New("the join token is of a newer kind: update the agent")
)

// EncodeToken makes the text of a token, which is itself a secret. It fails on a
// URL that is not https://HOST[:PORT].
func EncodeToken(t Token) (string, error) {
	if t.Secret.Len() != TokenSecretSize {
		return "", fmt.Errorf("join token: a secret of %d octets, want %d", t.Secret.Len(), TokenSecretSize)
	}
	if err := CheckServerURL(t.URL); err != nil {
		return "", err
	}
	raw := append([]byte{tokenVersion}, t.CA[:]...)
	raw = append(raw, t.Secret.Reveal()...)
	raw = append(raw, t.URL...)
	sum := sha256.Sum256(raw)
	raw = append(raw, sum[:tokenCheck]...)
	return base64.RawURLEncoding.EncodeToString(raw), nil
}

// DecodeToken reads what EncodeToken made; white space round it and inside it (a
// mail program breaks lines) is dropped. Every text that is read is written back
// the same.
func DecodeToken(typed string) (Token, error) {
	if len(typed) > 4*maxTokenText {
		return Token{}, ErrToken
	}
	text := strings.Join(strings.Fields(typed), "")
	if len(text) > maxTokenText {
		return Token{}, ErrToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) <= tokenHead+tokenCheck || len(raw) > tokenHead+maxTokenURL+tokenCheck {
		return Token{}, ErrToken
	}
	body, check := raw[:len(raw)-tokenCheck], raw[len(raw)-tokenCheck:]
	if sum := sha256.Sum256(body); string(sum[:tokenCheck]) != string(check) {
		return Token{}, ErrToken
	}
	if body[0] != tokenVersion {
		return Token{}, ErrTokenNewer
	}
	t := Token{URL: string(body[tokenHead:]), Secret: secret.New(append([]byte(nil), body[1+sha256.Size:tokenHead]...))}
	copy(t.CA[:], body[1:])
	if err := CheckServerURL(t.URL); err != nil {
		return Token{}, fmt.Errorf("join token: %w", err)
	}
	return t, nil
}

// CheckServerURL says what is wrong with the address of a machines' listener. It
// must be https, because anything else is refused everywhere (E4), and no more
// than host and port.
func CheckServerURL(s string) error {
	const allowed = "allowed is https://HOST:PORT, for example https://latchkey.example.org:8444"
	if len(s) > maxTokenURL {
		return fmt.Errorf("server address: it has %d octets; %s", len(s), allowed)
	}
	for _, r := range s {
		if r <= ' ' || r > '~' {
			return fmt.Errorf("server address: it holds the character U+%04X; %s", r, allowed)
		}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("server address: it is no URL; %s", allowed)
	case u.Scheme != "https":
		return fmt.Errorf("server address: it does not begin with https://; %s", allowed)
	case u.Host == "" || u.Hostname() == "":
		return fmt.Errorf("server address: it names no host; %s", allowed)
	case s != "https://"+u.Host:
		return fmt.Errorf("server address: it says more than host and port; %s", allowed)
	}
	if _, port, err := net.SplitHostPort(u.Host); err == nil {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("server address: its port is none; %s", allowed)
		}
	}
	return nil
}
