package otp

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey/internal/secret"
)

func TestRFC6238AppendixB(t *testing.T) {
	seeds := map[Algorithm]string{
		SHA1:   "12345678901234567890",
		SHA256: "12345678901234567890123456789012",
		SHA512: "1234567890123456789012345678901234567890123456789012345678901234",
	}
	for _, c := range []struct {
		at   int64
		alg  Algorithm
		code string
	}{
		{59, SHA1, "94287082"},
		{59, SHA256, "46119246"},
		{59, SHA512, "90693936"},
		{1111111109, SHA1, "07081804"},
		{1111111109, SHA256, "68084774"},
		{1111111109, SHA512, "25091201"},
		{1234567890, SHA1, "89005924"},
		{2000000000, SHA256, "90698825"},
		{20000000000, SHA512, "47863826"},
	} {
		p := Params{c.alg, 8, 30}
		if got := p.Code(secret.FromString(seeds[c.alg]), p.Step(time.Unix(c.at, 0))); got != c.code {
			t.Errorf("%s at %d: %s, want %s", c.alg, c.at, got, c.code)
		}
	}
}

func TestACodeIsGoodOnceAndOnlyNearItsTime(t *testing.T) {
	seed := secret.FromString("12345678901234567890")
	rapid.Check(t, func(t *rapid.T) {
		p := Params{rapid.SampledFrom([]Algorithm{SHA1, SHA256, SHA512}).Draw(t, "alg"), rapid.SampledFrom([]int{6, 8}).Draw(t, "digits"), rapid.SampledFrom([]int{30, 60}).Draw(t, "period")}
		now := time.Unix(rapid.Int64Range(1<<20, 1<<33).Draw(t, "now"), 0)
		off := rapid.Int64Range(-3, 3).Draw(t, "offset")
		after := p.Step(now) + rapid.Int64Range(-4, 3).Draw(t, "after")
		code := p.Code(seed, p.Step(now)+off)
		step, ok := p.Verify(seed, code, now, 0, after)
		if ok && step <= after {
			t.Fatalf("step %d accepted after %d", step, after)
		}
		if ok && p.Code(seed, step) != code {
			t.Fatal("the step that matched has another code")
		}
		if off >= -1 && off <= 1 && p.Step(now)+off > after && !ok {
			t.Fatal("a fresh code was refused")
		}
		if ok {
			if _, again := p.Verify(seed, code, now, 0, step); again && p.Code(seed, step+1) != code && p.Code(seed, step+2) != code {
				t.Fatal("accepted twice")
			}
		}
	})
}

func TestBackupCodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "raw")
		code, err := NewBackup(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		text := FormatBackup(code)
		got, ok := ParseBackup(" " + text + " ")
		if !ok || !bytes.Equal(got.Reveal(), raw) {
			t.Fatalf("%q does not read back", text)
		}
	})
	if _, err := NewBackup(bytes.NewReader([]byte("short"))); err == nil {
		t.Error("a code from too few random octets")
	}
	for _, bad := range []string{"", "ABCDE-FGHJ-KMN", "ABCDE-FGHJ-KMNPQ", "UUUUU-UUUU-UUUU", "\x00", "ZZZZZ-ZZZZ-ZZZZ"} {
		if _, ok := ParseBackup(bad); ok {
			t.Errorf("%q is accepted", bad)
		}
	}
	if a, _ := ParseBackup("00000-0000-0000"); a.Empty() {
		t.Error("zeros are refused")
	}
	if a, ok := ParseBackup("OOOOO-oooo-0000"); !ok || a.Len() != 8 {
		t.Error("O is not read as 0")
	}
}

func TestTypedCodes(t *testing.T) {
	for typed, want := range map[string]string{"123456": "123456", "123 456": "123456", "123-456": "123456", "12345": "", "1234567": "", "12345a": "", "": "", "１２３４５６": ""} {
		if got, ok := DefaultParams.CleanCode(typed); got != want || ok != (want != "") {
			t.Errorf("%q: %q %v", typed, got, ok)
		}
	}
}

func FuzzParseSeed(f *testing.F) {
	f.Add("JBSW Y3DP-EHPK3PXP JBSWY3DPEHPK3PXP")
	f.Fuzz(func(t *testing.T, s string) {
		seed, err := ParseSeed(s)
		if err != nil {
			return
		}
		again, err := ParseSeed(FormatSeed(seed))
		if err != nil || !again.Equal(seed) {
			t.Fatal("does not read back")
		}
	})
}

func FuzzParseBackup(f *testing.F) {
	f.Add("00000-0000-0000")
	f.Fuzz(func(t *testing.T, s string) {
		if c, ok := ParseBackup(s); ok {
			if d, ok := ParseBackup(FormatBackup(c)); !ok || !d.Equal(c) {
				t.Fatal("does not read back")
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	seed := make([]byte, 20)
	_, _ = rand.Read(seed)
	s := secret.New(seed)
	now := time.Unix(1_800_000_000, 0)
	for b.Loop() {
		DefaultParams.Verify(s, "000000", now, 0, 0)
	}
}
