package session

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"strings"
	"testing"

	"latchkey/internal/secret"
	"latchkey/internal/server/keys"
)

func TestASecretIsWrittenInOneWay(t *testing.T) {
	for _, prefix := range []string{sessionPrefix, signinPrefix, TokenPrefix} {
		s, hash, err := newSecret(rand.Reader, prefix)
		if err != nil {
			t.Fatal(err)
		}
		text := string(s.Reveal())
		if got, ok := parseSecret(prefix, text); !ok || !bytes.Equal(got, hash) {
			t.Errorf("%s is not read back", prefix)
		}
		last := text[len(text)-1]
		for _, wrong := range []string{
			"", prefix, text + "A", text[:len(text)-1], text + "=", " " + text, text + "\n", strings.ToUpper(text), "xx_" + text[3:],
			text[:len(text)-1] + string(last+1), // other bits behind the last octet
			text[:10] + "\n" + text[10:], text[:10] + "+" + text[11:],
		} {
			if h, ok := parseSecret(prefix, wrong); ok && bytes.Equal(h, hash) {
				t.Errorf("%q is read as the secret", wrong)
			}
		}
	}
}

func FuzzSecret(f *testing.F) {
	s, _, _ := newSecret(rand.Reader, sessionPrefix)
	f.Add(string(s.Reveal()))
	f.Add("ls_")
	f.Add("lk_" + strings.Repeat("A", 43))
	f.Fuzz(func(t *testing.T, text string) {
		for _, prefix := range []string{sessionPrefix, signinPrefix, TokenPrefix} {
			h, ok := parseSecret(prefix, text)
			if ok != (h != nil) || ok && (len(h) != 32 || len(text) != len(prefix)+secretText || !strings.HasPrefix(text, prefix)) {
				t.Fatalf("%q: %x %v", text, h, ok)
			}
		}
	})
}

func FuzzKnownCookie(f *testing.F) {
	m := &Sessions{Config: Config{Keys: &keys.Keys{Pepper: secret.FromString(strings.Repeat("p", 32))}, Random: strings.NewReader("the workers of a fuzz test have the same")}}
	s, err := m.known("user-1")
	if err != nil {
		f.Fatal(err)
	}
	good := string(s.Reveal())
	if _, ok := m.knows(good, "user-1"); !ok {
		f.Fatal("the cookie is not known")
	}
	if _, ok := m.knows(good, "user-2"); ok {
		f.Fatal("the cookie is known for somebody else")
	}
	f.Add(good)
	f.Add("lb_")
	f.Fuzz(func(t *testing.T, value string) {
		if id, ok := m.knows(value, "user-1"); ok && (value != good || len(id) != 2*knownID) {
			t.Fatalf("%q is known as %q", value, id)
		}
	})
}

// Two cookies of one name are an attempt at something: none counts.
func FuzzCookie(f *testing.F) {
	f.Add("__Host-latchkey=a; __Host-latchkey=b")
	f.Add("__Host-latchkey=a")
	f.Add("__host-latchkey=a; x=;;=")
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"Cookie": {header}}}
		v := cookie(r, Cookie)
		if n := len(r.CookiesNamed(Cookie)); v != "" && n != 1 {
			t.Fatalf("%q: %q of %d", header, v, n)
		}
	})
}
