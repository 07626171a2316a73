package session

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/secret"
)

const roleNone = rest.RoleNone

// The forms of the secrets: a prefix that says what it opens, and 32 random octets in
// base64url. The prefixes let a scanner of sources find one that was left lying.
const (
	sessionPrefix = "ls_"
	signinPrefix  = "ln_"
	// TokenPrefix begins an API token.
	TokenPrefix = "lk_"
	// CLIPrefix begins the secret of a session, as a program sends it.
	CLIPrefix = sessionPrefix

	secretSize = 32
	secretText = 43 // of secretSize octets
)

// The cookies. The prefix __Host- has a browser refuse them from anybody but this
// host, over TLS, for the whole of it.
const (
	Cookie       = "__Host-latchkey"
	SigninCookie = "__Host-latchkey-signin"
)

// newSecret makes a secret and what is stored of it.
func newSecret(random io.Reader, prefix string) (Secret, []byte, error) {
	b := make([]byte, secretSize)
	if _, err := io.ReadFull(random, b); err != nil {
		return Secret{}, nil, fmt.Errorf("make a secret: %w", err)
	}
	s := secret.FromString(prefix + base64.RawURLEncoding.EncodeToString(b))
	clear(b)
	return s, hashOf(s.Reveal()), nil
}

func hashOf(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// parseSecret gives the hash under which a secret of the prefix is stored; ok is false
// if the text is none. There is one way to write each: what decodes to the same octets
// but is written otherwise is none.
func parseSecret(prefix, text string) (hash []byte, ok bool) {
	body, ok := strings.CutPrefix(text, prefix)
	if !ok || len(body) != secretText {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(b) != secretSize || strings.ContainsAny(body, "\r\n") {
		return nil, false
	}
	clear(b)
	return hashOf([]byte(text)), true
}

// cookie finds a cookie's value. Two of one name are an attempt at something, and none.
func cookie(r *http.Request, name string) string {
	found := r.CookiesNamed(name)
	if len(found) != 1 {
		return ""
	}
	return found[0].Value
}

// SetCookie gives the browser the secret of a session.
func SetCookie(w http.ResponseWriter, s Secret) { setCookie(w, Cookie, s, 0) }

// ClearCookies takes the secrets back.
func ClearCookies(w http.ResponseWriter) {
	ClearCookie(w, Cookie)
	ClearCookie(w, SigninCookie)
}

// ClearCookie takes one back.
func ClearCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, &http.Cookie{Name: name, Path: "/", MaxAge: -1, Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// SetSigninCookie gives the browser the secret of a sign-in that goes on.
func SetSigninCookie(w http.ResponseWriter, s Secret) { setCookie(w, SigninCookie, s, SigninTime) }

func setCookie(w http.ResponseWriter, name string, s Secret, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: string(s.Reveal()), Path: "/", MaxAge: int(life / time.Second), Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}
