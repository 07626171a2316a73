package seal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"latchkey/internal/secret"
)

func TestASealedValueOpensOnlyInItsPlace(t *testing.T) {
	box, err := NewBox(NewKey())
	if err != nil {
		t.Fatal(err)
	}
	other, _ := NewBox(NewKey())
	sealed := box.Seal([]byte("seed"), "authenticators", "secret", "1")
	if got, err := box.Open(sealed, "authenticators", "secret", "1"); err != nil || string(got.Reveal()) != "seed" {
		t.Fatal(got, err)
	}
	for _, place := range [][]string{{"authenticators", "secret", "2"}, {"authenticators", "secret1"}, {"authenticatorss", "ecret", "1"}, nil} {
		if _, err := box.Open(sealed, place...); !errors.Is(err, ErrOpen) {
			t.Errorf("opens at %q", place)
		}
	}
	if _, err := other.Open(sealed, "authenticators", "secret", "1"); !errors.Is(err, ErrOpen) {
		t.Error("opens under another key")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := box.Open(bad, "authenticators", "secret", "1"); !errors.Is(err, ErrOpen) {
			t.Errorf("opens with octet %d changed", i)
		}
	}
	if _, err := NewBox(secret.FromString("short")); err == nil {
		t.Error("a short key is taken")
	}
}

func TestASignedObjectIsOfOneKindForOneMachine(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		machine := rapid.String().Draw(t, "machine")
		o := Sign(priv, Policy, machine, payload)
		got, err := Verify(pub, Policy, machine, o)
		if err != nil || !bytes.Equal(got, payload) {
			t.Fatal(err)
		}
		if _, err := Verify(pub, Bundle, machine, o); err == nil {
			t.Fatal("another kind is taken")
		}
		if _, err := Verify(pub, Policy, machine+"x", o); err == nil {
			t.Fatal("another machine's is taken")
		}
		i := rapid.IntRange(0, len(o)-1).Draw(t, "octet")
		o[i] ^= 1
		if _, err := Verify(pub, Policy, machine, o); err == nil {
			t.Fatalf("octet %d changed and taken", i)
		}
	})
	o := Sign(priv, Policy, "m", nil)
	o[5] = 9
	if _, err := Verify(pub, Policy, "m", o); !errors.Is(err, ErrNewer) {
		t.Error("a newer version is called damaged:", err)
	}
}

func FuzzVerify(f *testing.F) {
	pub, priv, _ := ed25519.GenerateKey(nil)
	f.Add(Sign(priv, Policy, "m", []byte("x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := Verify(pub, Policy, "m", b); err == nil && !bytes.Equal(Sign(priv, Policy, "m", p), b) {
			t.Fatal("an object that was not signed is taken")
		}
	})
}

func FuzzOpen(f *testing.F) {
	box, _ := NewBox(NewKey())
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := box.Open(b, "p"); err == nil {
			t.Fatal("opens garbage")
		}
	})
}
