package wire_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

func someToken() wire.Token {
	t := wire.Token{URL: "https://latchkey.example.org:8444", Secret: secret.New(bytes.Repeat([]byte{7}, 32))}
	copy(t.CA[:], bytes.Repeat([]byte{9}, 32))
	return t
}

func TestATokenIsReadAsItWasWritten(t *testing.T) {
	want := someToken()
	text, err := wire.EncodeToken(want)
	if err != nil {
		t.Fatal(err)
	}
	for name, typed := range map[string]string{
		"as it is":             text,
		"with white space":     "  " + text + "\n",
		"broken by a mail":     text[:60] + "\r\n  " + text[60:],
		"with every character": strings.Join(strings.Split(text, ""), " "),
	} {
		if name == "with every character" && len(typed) > 1200 {
			continue
		}
		got, err := wire.DecodeToken(typed)
		if err != nil || got.URL != want.URL || got.CA != want.CA || !got.Secret.Equal(want.Secret) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestATokenThatWasCutOrAlteredIsToldApartFromARefusedOne(t *testing.T) {
	text, err := wire.EncodeToken(someToken())
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(text) {
		if _, err := wire.DecodeToken(text[:i]); !errors.Is(err, wire.ErrToken) {
			t.Fatalf("%d characters of it: %v", i, err)
		}
		for _, c := range "A_z" {
			other := text[:i] + string(c) + text[i+1:]
			if other == text {
				continue
			}
			if _, err := wire.DecodeToken(other); err == nil {
				t.Fatalf("character %d altered: it was taken", i)
			}
		}
	}
	for _, s := range []string{"", "hello", strings.Repeat("A", 1<<20), text + "A", base64.URLEncoding.EncodeToString([]byte(text))} {
		if _, err := wire.DecodeToken(s); !errors.Is(err, wire.ErrToken) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

func TestOnlyAnHTTPSAddressGoesIntoAToken(t *testing.T) {
	for _, good := range []string{"https://a:1", "https://10.0.0.1:8444", "https://[::1]:8444", "https://latchkey.example.org"} {
		if err := wire.CheckServerURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a", "http://a:1", "https://", "https://:1", "https://a:0", "https://a:70000", "https://a:x", "https://a/", "https://a/b", "https://u@a",
		"https://a?x", "https://a#x", "https://a b", "https://\x00", "https://ä.example", "HTTPS://a:1", "https://" + strings.Repeat("a", 400),
	} {
		err := wire.CheckServerURL(bad)
		if err == nil || !strings.Contains(err.Error(), "allowed is https://HOST:PORT") {
			t.Errorf("%.40q: %v", bad, err)
		}
		bearer := someToken()
		bearer.URL = bad
		if _, err := wire.EncodeToken(bearer); err == nil {
			t.Errorf("a token was made for %.40q", bad)
		}
	}
}

func FuzzDecodeToken(f *testing.F) {
	text, err := wire.EncodeToken(someToken())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:80])
	f.Add("")
	f.Fuzz(func(t *testing.T, typed string) {
		tok, err := wire.DecodeToken(typed)
		if err != nil {
			return
		}
		again, err := wire.EncodeToken(tok)
		if err != nil || again != strings.Join(strings.Fields(typed), "") {
			t.Errorf("%q is read and written as %q, %v", typed, again, err)
		}
	})
}
