package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"latchkey/internal/secret"
)

// A browser with which somebody has signed in keeps a cookie that says so. It opens
// nothing: wrong passwords from it are counted apart from those of strangers, so that
// whoever guesses at the door does not lock the person out of it (S10).
const (
	// KnownCookie names it.
	KnownCookie = "__Host-latchkey-known"
	knownPrefix = "lb_"
	knownLife   = 180 * 24 * time.Hour
	knownID     = 16
)

// known makes the value of the cookie: a random id and its MAC for the user.
func (m *Sessions) known(userID string) (Secret, error) {
	id := make([]byte, knownID)
	if _, err := io.ReadFull(m.Random, id); err != nil {
		return Secret{}, fmt.Errorf("make an id: %w", err)
	}
	return secret.FromString(knownPrefix + base64.RawURLEncoding.EncodeToString(append(id, m.knownMAC(userID, id)...))), nil
}

func (m *Sessions) knownMAC(userID string, id []byte) []byte {
	h := hmac.New(sha256.New, m.Keys.Pepper.Reveal())
	fmt.Fprintf(h, "latchkey/browser/1\x00%d:%s\x00", len(userID), userID)
	h.Write(id)
	return h.Sum(nil)
}

// knows tells whether the cookie's value is of a browser with which the user has signed
// in, and which.
func (m *Sessions) knows(value, userID string) (id string, ok bool) {
	body, ok := strings.CutPrefix(value, knownPrefix)
	if !ok || len(body) != base64.RawURLEncoding.EncodedLen(knownID+sha256.Size) {
		return "", false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil || len(b) != knownID+sha256.Size || !hmac.Equal(b[knownID:], m.knownMAC(userID, b[:knownID])) {
		return "", false
	}
	return hex.EncodeToString(b[:knownID]), true
}

// SetKnownCookie gives the browser what Opened.Known holds, if anything.
func SetKnownCookie(w http.ResponseWriter, s Secret) {
	if !s.Empty() {
		setCookie(w, KnownCookie, s, knownLife)
	}
}
