package agentapi_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"latchkey/internal/assertion"
	"latchkey/internal/assertion/softkey"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

const keyRP = "latchkey.example.org"

// registers gives the person a security key.
func (u *person) registers(k *softkey.Key) (id string, credential []byte) {
	u.r.Helper()
	id = store.NewID()
	credential, cose := k.Register(keyRP)
	now := clock.Micros(u.r.clock.Now())
	u.r.change(func(tx *store.Tx) error {
		ctx := u.r.Context()
		err := tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{ID: id, UserID: u.id, Kind: "fido2", Params: "{}", ConfirmedAt: now, CreatedAt: now})
		if err != nil {
			return err
		}
		return tx.InsertPasskey(ctx, db.InsertPasskeyParams{
			AuthenticatorID: id, UserID: u.id, CredentialID: credential, PublicKey: cose, RpID: keyRP, Attachment: "cross-platform", Transports: "[]",
		})
	})
	return id, credential
}

// touchedAt is what the journal of a machine says of a key that was touched there.
func touchedAt(t *testing.T, k *softkey.Key, id string, credential []byte, at int64, machineID, userID string) *wire.Spent {
	t.Helper()
	var random [assertion.NonceSize - 8]byte
	if _, err := rand.Read(random[:]); err != nil {
		t.Fatal(err)
	}
	nonce := assertion.OfflineNonce(at, random)
	hash := assertion.OfflineHash(nonce, machineID, userID)
	data, sig, count := k.Sign(keyRP, hash[:], credential, false)
	return &wire.Spent{Key: id, Step: int64(count), Signed: &wire.KeySigned{Nonce: nonce, AuthData: data, Signature: sig}}
}

// A machine holds the public keys, and can report only what a key has signed for it.
func TestASecurityKeyThatWasTouchedOfflineIsVerifiedAnew(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, other := r.joined(), r.joined()
		u, v := r.person("alice"), r.person("bob")
		k := &softkey.Key{}
		id, credential := u.registers(k)
		h := m.enrolSoftware(u)
		m.enrolSoftware(v)
		other.enrolSoftware(u)
		if h.bundle.RPID != keyRP || len(h.bundle.Keys) != 1 || string(h.bundle.Keys[0].Credential) != string(credential) || h.bundle.Keys[0].ID != id {
			t.Fatalf("%+v", h.bundle.Keys)
		}
		allowed := func(c *chain, u *person, s *wire.Spent) {
			c.add(event.Event{Type: event.SigninAllowed, Subject: u.name, UserID: u.id, Scope: "logon", Link: "down", Outcome: "allow", Factor: "fido2"}, s)
		}
		count := func() (n int64) {
			r.read(func(q *store.Queries) error {
				p, err := q.GetPasskey(r.Context(), id)
				n = p.SignCount
				return err
			})
			return n
		}
		moment := clock.Micros(r.clock.Now())
		touched := func(t *testing.T, k *softkey.Key, id string, credential []byte, machineID, userID string) *wire.Spent {
			moment++
			return touchedAt(t, k, id, credential, moment, machineID, userID)
		}
		c := &chain{m: m}
		right := touched(t, k, id, credential, m.id, u.id)
		allowed(c, u, right)
		c.deliver(0, 1)
		if n := len(r.events(event.SigninAllowed)); n != 1 || count() != right.Step || right.Step == 0 {
			t.Fatalf("%d sign-ins, counter %d of %d", n, count(), right.Step)
		}
		for _, bad := range []*wire.Spent{
			right, // told twice
			touched(t, k, id, credential, other.id, u.id), // signed for another machine
			touched(t, k, id, credential, m.id, v.id),     // signed for another person
			func() *wire.Spent { s := *touched(t, k, id, credential, m.id, u.id); s.Step += 1000; return &s }(),
			func() *wire.Spent { // of another day
				return touchedAt(t, k, id, credential, moment-86_400_000_000, m.id, u.id)
			}(),
			func() *wire.Spent { // signed for the server, online
				s := touched(t, k, id, credential, m.id, u.id)
				hash := assertion.ClientHash(s.Signed.Nonce, m.id, u.id)
				s.Signed.AuthData, s.Signed.Signature, _ = k.Sign(keyRP, hash[:], credential, false)
				s.Step++
				return s
			}(),
		} {
			allowed(c, u, bad)
		}
		mine := touched(t, k, id, credential, m.id, v.id)
		allowed(c, v, mine) // bob with alice's key
		c.deliver(1, len(c.list))
		if n := len(r.events(event.SigninAllowed)); n != 1 {
			t.Errorf("%d sign-ins are believed", n)
		}
		forged := r.reasons(event.JournalForged)
		if strings.Count(forged, "code-was-not-typed-here") != 6 || strings.Count(forged, "not-this-users-authenticator") != 1 {
			t.Errorf("forged: %s", forged)
		}
		if got := count(); got != right.Step {
			t.Errorf("the counter moved to %d", got)
		}
		// What comes late, from another machine, is no copy of the key.
		late := touched(t, k, id, credential, other.id, u.id)
		newer := touched(t, k, id, credential, m.id, u.id)
		allowed(c, u, newer)
		c.deliver(len(c.list)-1, len(c.list))
		d := &chain{m: other}
		allowed(d, u, late)
		d.deliver(0, 1)
		if n := len(r.events(event.SigninAllowed)); n != 3 || count() != newer.Step {
			t.Errorf("%d sign-ins, counter %d", n, count())
		}
		// A key without a counter: one touch is one sign-in all the same.
		plain := &softkey.Key{NoCounter: true}
		id2, credential2 := u.registers(plain)
		once := touched(t, plain, id2, credential2, m.id, u.id)
		for range 3 {
			allowed(c, u, once)
		}
		c.deliver(len(c.list)-3, len(c.list))
		if n := len(r.events(event.SigninAllowed)); n != 4 {
			t.Errorf("%d sign-ins by one touch", n-3)
		}
	})
}
