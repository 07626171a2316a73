package passkey_test

import (
	"context"
	"testing"

	"github.com/descope/virtualwebauthn"

	"latchkey/internal/clock"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

// FuzzAnswer: whatever a browser answers to a challenge or a registration is judged without
// harm, and what was not made for it is not accepted. (What a machine answers: package
// assertion.)
func FuzzAnswer(f *testing.F) {
	c := clock.NewManual(start)
	r := newRig(f, storetest.Open(f, store.Config{Database: storetest.SQLite(f), Clock: c}), c)
	ticket, options := r.begin(r.user)
	made := r.make(home, options)
	f.Add(string(made.Reveal()))
	_, err := r.finish(r.user, ticket, made, "key")
	r.must(err)
	r.user = r.now(r.user)
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	r.must(err)
	r.auth.Options.UserHandle = []byte(o.UserID)
	r.key.Counter++
	f.Add(string(r.sign(home, r.send(factor.AtPortal, "old")).Reveal()))
	f.Add(`{"credential":"AA==","auth_data":"AA==","signature":"AA=="}`)
	f.Add(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AA","signature":"AA","userHandle":"AA"}}`)
	f.Add(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","attestationObject":"oA"}}`)
	r.send(factor.AtPortal, "t")
	sign, err := r.keys.Bench(context.Background(), r.desk.Store, r.user, "t")
	r.must(err)
	ticket, _ = r.begin(r.user)
	register, err := r.keys.BenchFinish(context.Background(), r.desk.Store, r.user, ticket)
	r.must(err)
	f.Fuzz(func(t *testing.T, answer string) {
		if sign([]byte(answer)) == nil {
			t.Errorf("%q is accepted", answer)
		}
		if register([]byte(answer)) == nil {
			t.Errorf("%q is registered", answer)
		}
	})
}
