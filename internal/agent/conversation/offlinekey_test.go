package conversation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"latchkey/internal/agent/vault"
	"latchkey/internal/assertion"
	"latchkey/internal/policy"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// oneKey answers the questions that are for its credential.
type oneKey struct {
	credential string
	absent     bool
	asked      []KeyQuestion
}

func (k *oneKey) Present() bool { return !k.absent }

func (k *oneKey) Assert(_ context.Context, q KeyQuestion, _ Person) (wire.KeyAnswer, error) {
	k.asked = append(k.asked, q)
	if !slices.ContainsFunc(q.Credentials, func(c []byte) bool { return string(c) == k.credential }) {
		return wire.KeyAnswer{}, errors.New(text.KeyNotYours)
	}
	return wire.KeyAnswer{Credential: []byte(k.credential), AuthData: []byte("data"), Signature: []byte("signature")}, nil
}

func keyed(t *testing.T) (*stageRig, *oneKey) {
	r := newStageRig(t)
	k := &oneKey{credential: "mine"}
	r.c.cfg.Key = k
	r.v.facts = enrolled()
	r.v.facts.Vault.Factors = append(r.v.facts.Vault.Factors, policy.FIDO2)
	r.v.facts.Keys = vault.KeysHeld{RPID: "latchkey.example.org", Credentials: [][]byte{[]byte("mine")}}
	return r, k
}

func TestOfflineEnterMeansTheSecurityKey(t *testing.T) {
	r, k := keyed(t)
	r.v.results = []any{vault.Result{OK: true, Reason: vault.OK}}
	p := &typist{answers: []string{"pw", ""}}
	if v := r.c.Sign(context.Background(), full("alice"), p); v.Outcome != policy.Allow {
		t.Fatalf("%+v", v)
	}
	if len(k.asked) != 1 || k.asked[0].UserID != "u1" || k.asked[0].RPID != "latchkey.example.org" {
		t.Fatalf("%+v", k.asked)
	}
	a := r.v.attempts[0]
	if a.Key == nil || len(a.Key.Nonce) != assertion.NonceSize || string(a.Key.Answer.Credential) != "mine" || len(a.Codes) != 1 || !a.Codes[0].Empty() {
		t.Errorf("%+v", a)
	}
	if string(k.asked[0].Challenge) != string(a.Key.Nonce) {
		t.Error("the key signed another nonce")
	}
	if last := p.prompts[len(p.prompts)-1]; last != text.PromptKeyOrCode {
		t.Errorf("asked %q", last)
	}
}

func TestOfflineACodeIsTakenAlsoWithAKeyInPlace(t *testing.T) {
	r, k := keyed(t)
	r.v.results = []any{vault.Result{OK: true, Reason: vault.OK}}
	if v := r.c.Sign(context.Background(), full("alice"), &typist{answers: []string{"pw", "123456"}}); v.Outcome != policy.Allow {
		t.Fatalf("%+v", v)
	}
	if len(k.asked) != 0 || r.v.attempts[0].Key != nil {
		t.Error("the key was asked")
	}
}

// Whoever has no key here, and whoever is nobody, is asked for one all the same, and a
// key that is not theirs is refused with the same words.
func TestOfflineAKeyDoesNotTellWhoIsKnown(t *testing.T) {
	told := map[string]string{}
	for name, change := range map[string]func(f *vault.Facts){
		"somebody else's key": func(f *vault.Facts) { f.Keys.Credentials = [][]byte{[]byte("another")} },
		"nobody":              func(f *vault.Facts) { f.User, f.Vault, f.Keys = nil, nil, vault.KeysHeld{} },
	} {
		r, k := keyed(t)
		change(&r.v.facts)
		r.v.results = []any{vault.Result{Reason: vault.WrongPassword}}
		p := &typist{answers: []string{"pw", "", "123456"}}
		v := r.c.Sign(context.Background(), full("alice"), p)
		if v.Outcome != policy.Deny || len(k.asked) != 1 {
			t.Errorf("%s: %+v, asked %d times", name, v, len(k.asked))
		}
		words := slices.DeleteFunc(slices.Clone(p.shown), func(s string) bool { return s == text.OfflineNow })
		told[name] = strings.Join(words, "|") + "|" + v.Text
	}
	if told["nobody"] != told["somebody else's key"] {
		t.Errorf("told apart: %q", told)
	}
}

func TestOfflineFromAfarNoKeyIsAsked(t *testing.T) {
	r, k := keyed(t)
	r.v.results = []any{vault.Result{Reason: vault.WrongCode}, vault.Result{Reason: vault.WrongCode}, vault.Result{Reason: vault.WrongCode}}
	q := full("alice")
	q.Scope = policy.Remote
	if v := r.c.Sign(context.Background(), q, &typist{answers: []string{"pw", "", "", ""}}); v.Outcome != policy.Deny || len(k.asked) != 0 {
		t.Errorf("%+v, asked %d times", v, len(k.asked))
	}
}
