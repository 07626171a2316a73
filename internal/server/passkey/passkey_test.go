package passkey_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/descope/virtualwebauthn"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/party"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var start = time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)

const site = "https://latchkey.test:8443"

var home = virtualwebauthn.RelyingParty{Name: "Latchkey", ID: "latchkey.test", Origin: site}

// rig is the service over a real store, with a user, and an authenticator that somebody
// else has written.
type rig struct {
	testing.TB
	desk  *desktest.Rig
	keys  *passkey.Service
	clock *clock.Manual
	user  db.User
	auth  virtualwebauthn.Authenticator
	key   virtualwebauthn.Credential
	id    string                 // of the authenticator that was registered
	doors map[string]factor.Door // at which a ticket was asked for
}

func onBoth(t *testing.T, fn func(r *rig)) {
	t.Helper()
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(start)
		fn(newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c))
	})
}

func newRig(t testing.TB, s *store.Store, c *clock.Manual) *rig {
	t.Helper()
	r := &rig{TB: t, desk: desktest.New(t, s, c), clock: c, doors: map[string]factor.Door{}}
	r.keys = passkey.New(passkey.Config{Random: rand.Reader, URL: func() string { return site }})
	r.user = r.person("anna")
	r.auth = virtualwebauthn.NewAuthenticator()
	copy(r.auth.Aaguid[:], []byte{0x2f, 0xc0, 0x57, 0x9f, 0x81, 0x13, 0x47, 0xea, 0xb1, 0x16, 0xbb, 0x5a, 0x8d, 0xb9, 0x20, 0x2a})
	r.key = newKey()
	r.key.Counter = 5
	return r
}

// newKey is a key whose coordinates have all their octets: the authenticator drops zeros
// at their head, which no real one does.
func newKey() virtualwebauthn.Credential {
	for {
		if k := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2); len(k.Key.AttestationData()) == 77 {
			return k
		}
	}
}

func (r *rig) person(name string) (u db.User) {
	r.Helper()
	_, err := r.desk.AddUser(context.Background(), desk.Root(), rest.NewUser{Name: name, Password: rest.HideText("correct horse battery")})
	r.must(err)
	r.must(r.desk.Store.Read(context.Background(), func(q *store.Queries) (err error) {
		u, err = q.GetUserByName(context.Background(), name)
		return err
	}))
	return u
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) update(fn func(ctx context.Context, tx *store.Tx) error) error {
	return r.desk.Store.Update(context.Background(), fn)
}

// now is the user as he is now.
func (r *rig) now(u db.User) (out db.User) {
	r.Helper()
	r.must(r.desk.Store.Read(context.Background(), func(q *store.Queries) (err error) {
		out, err = q.GetUser(context.Background(), u.ID)
		return err
	}))
	return out
}

func (r *rig) begin(u db.User) (ticket string, options json.RawMessage) {
	r.Helper()
	r.must(r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		now := r.clock.Now()
		ticket, options, err = r.keys.Begin(ctx, tx, passkey.Order{User: r.now(u), Now: now, Until: now.Add(10 * time.Minute)})
		return err
	}))
	return ticket, options
}

// make answers the options of a registration, from the place.
func (r *rig) make(at virtualwebauthn.RelyingParty, options json.RawMessage) secret.Bytes {
	r.Helper()
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	r.must(err)
	return secret.FromString(virtualwebauthn.CreateAttestationResponse(at, r.auth, r.key, *o))
}

func (r *rig) finish(u db.User, ticket string, answer secret.Bytes, name string) (m passkey.Made, err error) {
	u = r.now(u)
	err = r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		m, err = r.keys.Finish(ctx, tx, ticket, answer, name, passkey.Order{User: u, Now: r.clock.Now()})
		return err
	})
	return m, err
}

// register gives the user the key.
func (r *rig) register() passkey.Made {
	r.Helper()
	ticket, options := r.begin(r.user)
	o, err := virtualwebauthn.ParseAttestationOptions(string(options))
	r.must(err)
	m, err := r.finish(r.user, ticket, r.make(home, options), "")
	r.must(err)
	r.auth.Options.UserHandle = []byte(o.UserID)
	r.id = m.ID
	r.user = r.now(r.user)
	return m
}

func (r *rig) send(door factor.Door, ticket string) json.RawMessage {
	r.Helper()
	var sent factor.Sent
	r.must(r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		r.doors[ticket] = door
		sent, err = r.keys.Send(ctx, tx, factor.Ask{User: r.user, Ticket: ticket, Door: door, Machine: "m-1", Now: r.clock.Now()}, false)
		return err
	}))
	return sent.Public
}

// sign answers a challenge, from the place.
func (r *rig) sign(at virtualwebauthn.RelyingParty, options json.RawMessage) secret.Bytes {
	r.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(string(options))
	r.must(err)
	return secret.FromString(virtualwebauthn.CreateAssertionResponse(at, r.auth, r.key, *o))
}

func (r *rig) judge(ticket string, answer secret.Bytes) (v factor.Verdict) {
	r.Helper()
	r.must(r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		v, err = r.keys.Judge(ctx, tx, factor.Try{User: r.user, Ticket: ticket, Typed: answer, Machine: "m-1", Door: r.doors[ticket], Now: r.clock.Now()})
		return err
	}))
	return v
}

func (r *rig) want(what string, v factor.Verdict, reason string) {
	r.Helper()
	if v.OK() != (reason == "") || v.Reason != reason || !v.OK() && v.Text == "" {
		r.Errorf("%s: %+v, want the reason %q", what, v, reason)
	}
}

func (r *rig) row() (p db.Passkey, a db.Authenticator) {
	r.Helper()
	r.must(r.desk.Store.Read(context.Background(), func(q *store.Queries) (err error) {
		if p, err = q.GetPasskey(context.Background(), r.id); err == nil {
			a, err = q.GetAuthenticator(context.Background(), r.id)
		}
		return err
	}))
	return p, a
}

// TestAnAnswerCountsAtItsDoorAlone: M7.
func TestAnAnswerCountsAtItsDoorAlone(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.register()
		r.auth.Options.UserNotVerified = false
		doors := []factor.Door{factor.AtPortal, factor.AtStepUp}
		for i, door := range doors {
			answer := r.sign(home, r.send(door, "t"))
			r.doors["t"] = doors[1-i]
			r.want("an answer for "+string(door)+" at the other door", r.judge("t", answer), passkey.ReasonOver)
			answer = r.sign(home, r.send(door, "t"))
			r.doors["t"] = factor.AtMachine
			r.want("an answer for "+string(door)+" at a machine", r.judge("t", answer), passkey.ReasonOver)
			r.key.Counter++
			r.want("an answer at its door", r.judge("t", r.sign(home, r.send(door, "t"))), "")
		}
	})
}

func TestAPasskeyIsRegisteredAndSigns(t *testing.T) {
	onBoth(t, func(r *rig) {
		before := r.user.PasswordGeneration
		m := r.register()
		if m.Name != "YubiKey 5 NFC" || m.Model != "2fc0579f-8113-47ea-b116-bb5a8db9202a" || !m.Verifies || m.Eligible {
			r.Errorf("it is %+v", m)
		}
		if r.user.PasswordGeneration <= before {
			r.Error("the generation of the user did not rise")
		}
		p, a := r.row()
		if p.RpID != "latchkey.test" || p.SignCount != 5 || a.Kind != "fido2" || a.ConfirmedAt == 0 {
			r.Errorf("it lies as %+v, %+v", p, a)
		}
		r.clock.Advance(time.Minute)
		r.key.Counter++
		v := r.judge("t", r.sign(home, r.send(factor.AtPortal, "t")))
		r.want("its first use", v, "")
		if !v.Own || v.ID != r.id || v.Data["verified"] != true {
			r.Errorf("the verdict is %+v", v)
		}
		if p, a = r.row(); p.SignCount != 6 || a.LastUsedAt != clock.Micros(r.clock.Now()) {
			r.Errorf("behind it it is %+v, %+v", p, a)
		}
		// The next of the model has another name.
		r.key = newKey()
		if m = r.register(); m.Name != "YubiKey 5 NFC 2" {
			r.Errorf("the second is called %q", m.Name)
		}
	})
}

func TestWhatIsRegisteredIsWhatWasAskedFor(t *testing.T) {
	onBoth(t, func(r *rig) {
		other := r.person("otto")
		for _, c := range []struct {
			name   string
			user   db.User
			at     virtualwebauthn.RelyingParty
			change func(ticket string, answer secret.Bytes) (string, secret.Bytes)
			code   fault.Code
		}{
			{"made at another address", r.user, virtualwebauthn.RelyingParty{ID: "latchkey.test", Origin: "https://latchkey.example"}, nil, fault.Invalid},
			{"made at another port", r.user, virtualwebauthn.RelyingParty{ID: "latchkey.test", Origin: "https://latchkey.test"}, nil, fault.Invalid},
			{"made over plain HTTP", r.user, virtualwebauthn.RelyingParty{ID: "latchkey.test", Origin: "http://latchkey.test:8443"}, nil, fault.Invalid},
			{"made for another host", r.user, virtualwebauthn.RelyingParty{ID: "example.org", Origin: site}, nil, fault.Invalid},
			{"somebody else's ticket", other, home, nil, fault.Expired},
			{"another ticket", r.user, home, func(_ string, a secret.Bytes) (string, secret.Bytes) { return store.NewID(), a }, fault.Expired},
			{"no JSON", r.user, home, func(t string, _ secret.Bytes) (string, secret.Bytes) { return t, secret.FromString("{") }, fault.Invalid},
			{"too long", r.user, home, func(t string, _ secret.Bytes) (string, secret.Bytes) {
				return t, secret.FromString(strings.Repeat(" ", party.MaxAnswer) + "{}")
			}, fault.Invalid},
		} {
			ticket, options := r.begin(r.user)
			answer := r.make(c.at, options)
			if c.change != nil {
				ticket, answer = c.change(ticket, answer)
			}
			if _, err := r.finish(c.user, ticket, answer, ""); !fault.Is(err, c.code) {
				r.Errorf("%s: %v, want %s", c.name, err, c.code)
			}
		}
		// Once.
		ticket, options := r.begin(r.user)
		answer := r.make(home, options)
		_, err := r.finish(r.user, ticket, answer, "mine")
		r.must(err)
		if _, err := r.finish(r.user, ticket, answer, "mine"); !fault.Is(err, fault.Expired) {
			r.Errorf("the same answer again: %v", err)
		}
		// The authenticator is told what it holds already, and does not get in by another way.
		ticket, options = r.begin(r.user)
		o, err := virtualwebauthn.ParseAttestationOptions(string(options))
		r.must(err)
		if !r.key.IsExcludedForAttestation(*o) {
			r.Error("the options do not name what is there")
		}
		if _, err := r.finish(r.user, ticket, r.make(home, options), ""); !fault.Is(err, fault.Conflict) {
			r.Errorf("the same key again: %v", err)
		}
		ticket, options = r.begin(other)
		if _, err := r.finish(other, ticket, r.make(home, options), ""); !fault.Is(err, fault.Conflict) {
			r.Errorf("the same key for somebody else: %v", err)
		}
		// Late, or behind a change of the account.
		r.key = virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeRSA)
		ticket, options = r.begin(r.user)
		r.must(r.update(func(ctx context.Context, tx *store.Tx) error { return factor.Changed(ctx, tx, r.user.ID) }))
		if _, err := r.finish(r.user, ticket, r.make(home, options), ""); !fault.Is(err, fault.Expired) {
			r.Errorf("behind a change of factors: %v", err)
		}
		ticket, options = r.begin(r.user)
		r.clock.Advance(10*time.Minute + time.Second)
		if _, err := r.finish(r.user, ticket, r.make(home, options), ""); !fault.Is(err, fault.Expired) {
			r.Errorf("late: %v", err)
		}
		// And so that one sees that all of that was not for another reason.
		ticket, options = r.begin(r.user)
		_, err = r.finish(r.user, ticket, r.make(home, options), "an RSA key")
		r.must(err)
	})
}

func TestModelsThatAServerDoesNotWant(t *testing.T) {
	onBoth(t, func(r *rig) {
		rule := func(word, list string) {
			r.must(r.update(func(ctx context.Context, tx *store.Tx) error {
				return settings.Write(ctx, tx, settings.Settings{Attestation: word, Models: list}, 1)
			}))
		}
		rule("direct", "")
		ticket, options := r.begin(r.user)
		if !strings.Contains(string(options), `"attestation":"direct"`) {
			r.Errorf("the options are %s", options)
		}
		// It attests with the key itself, which says nothing about the model.
		_, err := r.finish(r.user, ticket, r.make(home, options), "")
		if !fault.Is(err, fault.Invalid) || !strings.Contains(fmt.Sprint(fault.Of(err).Fields), "which model") {
			r.Errorf("a model that nobody vouches for: %v", err)
		}
		rule("none", "")
		r.register()
	})
}

func TestWhatAPasskeySignsCountsForOneThing(t *testing.T) {
	elsewhere := virtualwebauthn.RelyingParty{ID: "latchkey.test", Origin: "https://latchkey.test.evil.example"}
	otherHost := virtualwebauthn.RelyingParty{ID: "evil.example", Origin: site}
	onBoth(t, func(r *rig) {
		r.register()
		next := func() { r.key.Counter++ }
		next()
		r.want("from another address", r.judge("t", r.sign(elsewhere, r.send(factor.AtPortal, "t"))), passkey.ReasonRefused)
		next()
		r.want("for another host", r.judge("t", r.sign(otherHost, r.send(factor.AtPortal, "t"))), passkey.ReasonRefused)
		next()
		r.send(factor.AtPortal, "t")
		r.want("to a challenge of somebody's own making", r.judge("t", r.sign(home, json.RawMessage(`{"challenge":"`+base64.RawURLEncoding.EncodeToString(make([]byte, 32))+`"}`))), passkey.ReasonRefused)
		next()
		stale := r.send(factor.AtPortal, "t")
		r.send(factor.AtPortal, "t")
		r.want("to the challenge before", r.judge("t", r.sign(home, stale)), passkey.ReasonRefused)
		next()
		answer := r.sign(home, r.send(factor.AtPortal, "t"))
		r.want("under another ticket", r.judge("u", answer), passkey.ReasonOver)
		r.want("in time", r.judge("t", answer), "")
		r.want("again", r.judge("t", answer), passkey.ReasonOver)
		next()
		answer = r.sign(home, r.send(factor.AtPortal, "t"))
		r.clock.Advance(5*time.Minute + time.Second)
		r.want("late", r.judge("t", answer), passkey.ReasonOver)
		next()
		body := string(r.sign(home, r.send(factor.AtPortal, "t")).Reveal())
		var a struct {
			Response struct {
				Signature string `json:"signature"`
			} `json:"response"`
		}
		r.must(json.Unmarshal([]byte(body), &a))
		bad := strings.Replace(body, a.Response.Signature, a.Response.Signature[:20]+"AAAA"+a.Response.Signature[24:], 1)
		r.want("altered", r.judge("t", secret.FromString(bad)), passkey.ReasonRefused)
		for _, s := range []string{"", "{}", "null", "[]", `{"id":"AA","rawId":"AA","type":"public-key","response":{}}`} {
			r.send(factor.AtPortal, "t")
			if v := r.judge("t", secret.FromString(s)); v.OK() || v.Reason != passkey.ReasonRefused {
				r.Errorf("%q: %+v", s, v)
			}
		}
		next()
		r.auth.Options.UserNotPresent = true
		r.want("nobody was there", r.judge("t", r.sign(home, r.send(factor.AtPortal, "t"))), passkey.ReasonRefused)
		r.auth.Options.UserNotPresent = false
		// Without verification it is a second factor, but no step-up: this key can verify.
		next()
		r.auth.Options.UserNotVerified = true
		r.want("a touch as a second factor", r.judge("t", r.sign(home, r.send(factor.AtPortal, "t"))), "")
		next()
		r.want("a touch as a step-up", r.judge("s", r.sign(home, r.send(factor.AtStepUp, "s"))), passkey.ReasonNotVerified)
		r.auth.Options.UserNotVerified = false
		next()
		r.want("a step-up", r.judge("s", r.sign(home, r.send(factor.AtStepUp, "s"))), "")
		// It was copied to a second device since its registration, as it says.
		next()
		r.auth.Options.BackupEligible = true
		r.want("another kind of key than was registered", r.judge("t", r.sign(home, r.send(factor.AtPortal, "t"))), passkey.ReasonRefused)
		r.auth.Options.BackupEligible = false
		// Taken away while it is asked for.
		next()
		answer = r.sign(home, r.send(factor.AtPortal, "t"))
		r.must(r.update(func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.DeleteAuthenticator(ctx, r.id)
			return err
		}))
		r.want("taken away meanwhile", r.judge("t", answer), passkey.ReasonUnknown)
	})
}

func TestACopyIsFoundAndNeitherIsAccepted(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.register()
		r.key.Counter = 9
		r.want("the key", r.judge("t", r.sign(home, r.send(factor.AtPortal, "t"))), "")
		r.key.Counter = 9 // the copy has the counter of before
		before := r.now(r.user).PasswordGeneration
		answer := r.sign(home, r.send(factor.AtPortal, "t"))
		r.want("the copy", r.judge("t", answer), passkey.ReasonCloned)
		p, a := r.row()
		if p.ClonedAt == 0 || !a.Lost {
			r.Errorf("it is %+v, %+v", p, a)
		}
		if r.now(r.user).PasswordGeneration <= before {
			r.Error("machines are not told")
		}
		n := 0
		all, err := r.desk.Store.EventsAfter(context.Background(), store.Position{}, 1000)
		r.must(err)
		for _, e := range all {
			if e.Type == string(event.FactorCloned) && e.UserID == r.user.ID && strings.Contains(e.Data, `"severity":"alert"`) {
				n++
			}
		}
		if n != 1 {
			r.Errorf("%d events say so", n)
		}
		r.key.Counter = 20
		err = r.update(func(ctx context.Context, tx *store.Tx) error {
			_, err := r.keys.Send(ctx, tx, factor.Ask{User: r.user, Ticket: "t", Door: factor.AtPortal, Now: r.clock.Now()}, false)
			return err
		})
		if !fault.Is(err, fault.Unavailable) {
			r.Errorf("it is still asked for: %v", err)
		}
	})
}

func TestASignInWithoutAName(t *testing.T) {
	onBoth(t, func(r *rig) {
		discover := func(ticket string) (options json.RawMessage) {
			r.must(r.update(func(ctx context.Context, tx *store.Tx) (err error) {
				now := r.clock.Now()
				options, err = r.keys.Discover(ctx, tx, ticket, now, now.Add(5*time.Minute))
				return err
			}))
			return options
		}
		found := func(ticket string, answer secret.Bytes) (u db.User, v factor.Verdict) {
			r.must(r.update(func(ctx context.Context, tx *store.Tx) (err error) {
				u, v, err = r.keys.Found(ctx, tx, ticket, answer, r.clock.Now())
				return err
			}))
			return u, v
		}
		r.register()
		handle := r.auth.Options.UserHandle
		if len(handle) != 32 || strings.Contains(string(handle), r.user.ID) {
			r.Errorf("the handle is %q", handle)
		}
		r.key.Counter++
		options := discover("d")
		if strings.Contains(string(options), "allowCredentials") || !strings.Contains(string(options), `"userVerification":"required"`) {
			r.Errorf("the options are %s", options)
		}
		answer := r.sign(home, options)
		u, v := found("d", answer)
		r.want("a passkey alone", v, "")
		if u.ID != r.user.ID {
			r.Errorf("it is %q", u.ID)
		}
		_, v = found("d", answer)
		r.want("again", v, passkey.ReasonOver)

		r.key.Counter++
		r.auth.Options.UserNotVerified = true
		_, v = found("d", r.sign(home, discover("d")))
		r.want("without verification", v, passkey.ReasonNotVerified)
		r.auth.Options.UserNotVerified = false

		// A challenge of a second factor is none of a sign-in without a password.
		r.key.Counter++
		_, v = found("t", r.sign(home, r.send(factor.AtPortal, "t")))
		r.want("a challenge for something else", v, passkey.ReasonOver)

		r.key.Counter++
		r.auth.Options.UserHandle = []byte("somebody")
		_, v = found("d", r.sign(home, discover("d")))
		r.want("a handle that nobody has", v, passkey.ReasonUnknown)
		r.auth.Options.UserHandle = nil
		_, v = found("d", r.sign(home, discover("d")))
		r.want("no handle", v, passkey.ReasonUnknown)

		// Somebody else's handle with one's own key.
		other := r.person("otto")
		mine, ours := r.key, r.user
		r.key, r.user = newKey(), other
		r.register()
		others := r.auth.Options.UserHandle
		r.key, r.user = mine, ours
		r.auth.Options.UserHandle = others
		_, v = found("d", r.sign(home, discover("d")))
		r.want("another's handle", v, passkey.ReasonUnknown)
	})
}

func TestPasskeysNeedAName(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.register()
		// With another name for the server the old passkeys are asked for no more.
		r.must(r.update(func(ctx context.Context, tx *store.Tx) error {
			return settings.Write(ctx, tx, settings.Settings{PeopleURL: "https://login.example.org"}, 1)
		}))
		err := r.update(func(ctx context.Context, tx *store.Tx) error {
			_, err := r.keys.Send(ctx, tx, factor.Ask{User: r.user, Ticket: "t", Door: factor.AtPortal, Now: r.clock.Now()}, false)
			return err
		})
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Of(err).Detail, "login.example.org") {
			r.Errorf("%v", err)
		}
	})
}

// BenchmarkVerify is a whole judgement without the database's share: that is one
// transaction more.
func BenchmarkVerify(b *testing.B) {
	c := clock.NewManual(start)
	r := newRig(b, storetest.Open(b, store.Config{Database: storetest.SQLite(b), Clock: c}), c)
	r.key.Counter = 0
	r.register()
	options := r.send(factor.AtPortal, "t")
	answer := r.sign(home, options)
	check, err := r.keys.Bench(context.Background(), r.desk.Store, r.user, "t")
	r.must(err)
	b.ResetTimer()
	for b.Loop() {
		if err := check(answer.Reveal()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "verifies/s")
}

// BenchmarkJudge is the same with challenge, counter and transactions.
func BenchmarkJudge(b *testing.B) {
	c := clock.NewManual(start)
	r := newRig(b, storetest.Open(b, store.Config{Database: storetest.SQLite(b), Clock: c}), c)
	r.register()
	for b.Loop() {
		r.key.Counter++
		if v := r.judge("t", r.sign(home, r.send(factor.AtPortal, "t"))); !v.OK() {
			b.Fatalf("%+v", v)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sign-ins/s")
}
