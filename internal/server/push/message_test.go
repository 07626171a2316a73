package push_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey/internal/clock"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/store/storetest"
)

// Two answers that differ in anything sign different messages: no part can run into
// another, because none that is let through holds a line feed.
func TestAnAnswerSignsEveryPartOfItself(t *testing.T) {
	type parts struct {
		id string
		a  push.Answer
	}
	draw := func(rt *rapid.T, name string) parts {
		word := rapid.StringMatching(`[0-9a-zA-Z_\-]{0,6}`)
		number := rapid.SampledFrom([]string{"", "10", "42", "99", "4", "2"})
		return parts{word.Draw(rt, name+" id"), push.Answer{
			Decision: rapid.SampledFrom([]string{push.Approve, push.Deny, push.Report, ""}).Draw(rt, name+" decision"), Number: number.Draw(rt, name+" number"),
			Nonce: word.Draw(rt, name+" nonce"), ContentHash: word.Draw(rt, name+" hash"),
		}}
	}
	rapid.Check(t, func(rt *rapid.T) {
		x, y := draw(rt, "x"), draw(rt, "y")
		same := x.id == y.id && x.a.Decision == y.a.Decision && x.a.Number == y.a.Number && x.a.Nonce == y.a.Nonce && x.a.ContentHash == y.a.ContentHash
		mx := string(push.AnswerMessage(x.id, x.a.Decision, x.a.Number, x.a.Nonce, x.a.ContentHash))
		my := string(push.AnswerMessage(y.id, y.a.Decision, y.a.Number, y.a.Nonce, y.a.ContentHash))
		if (mx == my) != same {
			rt.Fatalf("%q and %q", mx, my)
		}
		if mx != phonetest.Message(x.id, x.a) {
			rt.Fatalf("the phone signs %q, the server %q", phonetest.Message(x.id, x.a), mx)
		}
	})
}

// Whatever of an approval that was signed is changed, in any way: the request stays as
// it was, and the right one still counts.
func TestAnApprovalIsBoundToWhatItSigns(t *testing.T) {
	c := clock.NewManual(time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
	r := newRig(t, c, storetest.SQLite(t), "a", nil)
	r.anna = r.user("anna")
	p := r.phone("anna", "phone")
	a := ask(r.anna, "t1", "m1", c.Now())
	sent := r.send(a)
	all, err := p.Requests(t.Context(), 0)
	r.ok(err)
	req := all.Requests[0]
	good := p.Draft(req, push.Approve, sent.Number)
	whole, err := json.Marshal(good)
	r.ok(err)
	rapid.Check(t, func(rt *rapid.T) {
		b := []byte(string(whole))
		for range rapid.IntRange(1, 3).Draw(rt, "changes") {
			i := rapid.IntRange(0, len(b)-1).Draw(rt, "at")
			b[i] = rapid.Byte().Draw(rt, "octet")
		}
		var bent push.Answer
		if json.Unmarshal(b, &bent) != nil {
			return
		}
		again, err := json.Marshal(bent)
		if err != nil || string(again) == string(whole) {
			return
		}
		d, err := r.service.Find(context.Background(), p.Device, "192.0.2.1")
		if err != nil {
			rt.Fatal(err)
		}
		if out, err := r.service.Answer(context.Background(), d, req.ID, bent); err == nil {
			rt.Fatalf("%s: %s", again, out.State)
		}
		if v := r.judge(a); v.Outcome != factor.Waiting {
			rt.Fatalf("%s has moved the request: %+v", again, v)
		}
	})
	r.ok(p.Approve(t.Context(), req, sent.Number))
	if !r.judge(a).OK() {
		t.Error("not accepted")
	}
}

func TestAKeyHasOneForm(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der := func(pub any) []byte {
		b, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := der(&k.PublicKey)
	if _, err := push.ParseKey(good); err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	off := []byte(string(good))
	off[len(off)-1] ^= 1
	for name, b := range map[string][]byte{
		"P-384": der(&other.PublicKey), "RSA": der(&weak.PublicKey), "empty": nil, "behind the end": append([]byte(string(good)), 0), "off the curve": off, "cut": good[:len(good)-1],
	} {
		if _, err := push.ParseKey(b); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestTheNumberIsOneOfNinety(t *testing.T) {
	c := clock.NewManual(time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC))
	r := newRig(t, c, storetest.SQLite(t), "a", nil)
	seen := map[string]int{}
	for range 9000 {
		n, err := r.service.Number()
		if err != nil || len(n) != 2 || n[0] == '0' {
			t.Fatalf("%q %v", n, err)
		}
		seen[n]++
	}
	if len(seen) != 90 {
		t.Errorf("%d numbers", len(seen))
	}
	for n, times := range seen {
		if times < 40 || times > 180 {
			t.Errorf("%s came %d times of 9000", n, times)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Add([]byte{0x30})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := push.ParseKey(b)
		if err != nil {
			return
		}
		if k.Verify([]byte("m"), strings.Repeat("A", 86)) {
			t.Error("zeros are a signature")
		}
	})
}

// FuzzAnswer is the body of an answer: what passes the form can not be two messages.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"decision":"approve","number":"42","nonce":"n","content_hash":"h","signature":"s"}`))
	f.Add([]byte(`{"decision":"deny","number":"","nonce":"n\n","content_hash":"h","signature":"s"}`))
	f.Add([]byte(`{"decision":"approve","number":"42","assertion":{"id":"x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a push.Answer
		if json.Unmarshal(b, &a) != nil || a.Form() != nil {
			return
		}
		if a.Decision == push.Approve != (len(a.Number) == 2) || strings.ContainsAny(a.Decision+a.Number, "\n") {
			t.Errorf("%+v", a)
		}
	})
}

// FuzzEndpoint is an address that a phone has chosen.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{"https://push.example.org/x", "https://127.0.0.1/", "https://[::1]:80/", "https://a@b/", "https://0x7f.1/", "https://ⅼocalhost/", "https://a..b/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if err := (push.Delivery{}).Endpoint(s); err == nil && !strings.HasPrefix(strings.ToLower(s), "https:") {
			t.Errorf("%q is allowed", s)
		}
	})
}

func FuzzVerifyCall(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&k.PublicKey)
	key, err := push.ParseKey(der)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("1000", "AAAA", "GET", "/x")
	f.Fuzz(func(t *testing.T, at, signature, method, uri string) {
		if err := key.VerifyCall(method, uri, at, signature, nil, 1000); err == nil || errors.Is(err, push.ErrTime) {
			t.Errorf("a signature out of nothing: %s", strconv.Quote(signature))
		}
	})
}
