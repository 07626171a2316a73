package entry_test

import (
	"context"
	"encoding/json"
	"html"
	"net/http"
	"regexp"
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
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

var home = virtualwebauthn.RelyingParty{Name: "Latchkey", ID: "latchkey.test", Origin: people}

// token is what a person carries: an authenticator that somebody else has written.
type token struct {
	r    *rig
	auth virtualwebauthn.Authenticator
	key  virtualwebauthn.Credential
	id   string
}

// passkey gives the person one.
func (p person) passkey() *token {
	p.r.Helper()
	k := &token{r: p.r, auth: virtualwebauthn.NewAuthenticator(), key: newKey()}
	p.r.must(p.r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.GetUser(ctx, p.id)
		if err != nil {
			return err
		}
		now := p.r.clock.Now()
		o := passkey.Order{User: u, Now: now, Until: now.Add(time.Minute)}
		ticket, options, err := p.r.passkeys.Begin(ctx, tx, o)
		if err != nil {
			return err
		}
		asked, err := virtualwebauthn.ParseAttestationOptions(string(options))
		if err != nil {
			return err
		}
		m, err := p.r.passkeys.Finish(ctx, tx, ticket, secret.FromString(virtualwebauthn.CreateAttestationResponse(home, k.auth, k.key, *asked)), "", o)
		k.id, k.auth.Options.UserHandle = m.ID, []byte(asked.UserID)
		return err
	}))
	return k
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

// sign answers options.
func (k *token) sign(options string) string {
	k.r.Helper()
	o, err := virtualwebauthn.ParseAssertionOptions(options)
	k.r.must(err)
	k.key.Counter++
	return virtualwebauthn.CreateAssertionResponse(home, k.auth, k.key, *o)
}

var optionsIn = regexp.MustCompile(`data-options="([^"]*)"`)

// options are those that a page holds for its script.
func (a answer) options() string {
	a.r.Helper()
	m := optionsIn.FindStringSubmatch(a.body)
	if m == nil || m[1] == "" {
		a.r.Fatalf("no options in %s", a.body)
	}
	return html.UnescapeString(m[1])
}

// alone signs in without name and password.
func (b *browser) alone(k *token) answer {
	b.r.Helper()
	a := b.post("/signin/passkey/begin").is(http.StatusOK)
	var said struct {
		Options json.RawMessage `json:"options"`
	}
	b.r.must(json.Unmarshal([]byte(a.body), &said))
	return b.post("/signin/passkey", "code", k.sign(string(said.Options)), "next", "/console")
}

func TestASignInByPasskey(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		k := olga.passkey()

		// With a password: the choice stands first, the passkey at its head.
		b := r.browser()
		b.post("/signin", "name", "olga", "password", password).goes("/signin")
		page := b.get("/signin").is(http.StatusOK)
		if i, j := strings.Index(page.body, text.OptionPasskey), strings.Index(page.body, text.OptionTOTP); i < 0 || j < i {
			t.Errorf("the choice is %s", page.body)
		}
		b.post("/signin/code", "kind", "fido2", "code", "{}").is(http.StatusUnauthorized) // nobody was asked
		b = r.browser()
		b.post("/signin", "name", "olga", "password", password).goes("/signin")
		b.post("/signin/choose", "kind", "push").is(http.StatusUnauthorized)
		b = r.browser()
		b.post("/signin", "name", "olga", "password", password).goes("/signin")
		b.post("/signin/choose", "kind", "fido2").goes("/signin")
		first := b.get("/signin").options()
		b.post("/signin/code", "kind", "fido2", "code", "{}").is(http.StatusUnprocessableEntity).has(text.PasskeyRefused)
		// One answer is all that a challenge takes.
		b.post("/signin/code", "kind", "fido2", "code", k.sign(first)).is(http.StatusUnauthorized)

		b = r.browser()
		b.post("/signin", "name", "olga", "password", password).goes("/signin")
		b.post("/signin/choose", "kind", "fido2").goes("/signin")
		b.post("/signin/code", "kind", "fido2", "code", k.sign(b.get("/signin").options()), "next", "/console").goes("/console")
		b.get("/console/approvals").is(http.StatusOK)

		// A step-up is bound to its session.
		b.post("/stepup/choose", "kind", "fido2", "next", "/me").goes("/stepup?next=%2Fme")
		other := r.browser()
		other.alone(k).goes("/console")
		proof := k.sign(b.get("/stepup").options())
		other.post("/stepup/choose", "kind", "fido2").goes("/stepup")
		other.post("/stepup", "kind", "fido2", "code", proof).is(http.StatusUnprocessableEntity)
		before := b.cookies[session.Cookie].Value
		b.post("/stepup", "kind", "fido2", "code", proof, "next", "/me").goes("/me")
		if b.cookies[session.Cookie].Value == before {
			t.Error("the session has the same secret behind a step-up")
		}
		// A session that opens the console takes no less than what does.
		b.post("/stepup/choose", "kind", "backup").is(http.StatusBadRequest)
	})
}

func TestASignInByPasskeyAlone(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		k := olga.passkey()
		b := r.browser()
		b.alone(k).goes("/console")
		b.get("/console/approvals").is(http.StatusOK)
		last := r.last(event.SessionOpened)
		if last.Factor != "fido2" || last.UserID != olga.id || !strings.Contains(last.Data, `"new_browser":true`) {
			t.Errorf("the event is %+v", last)
		}
		// The browser is known from then on.
		b.post("/signout").goes("/signin")
		b.alone(k).goes("/console")
		if last = r.last(event.SessionOpened); strings.Contains(last.Data, "new_browser") {
			t.Errorf("the event is %+v", last)
		}
		// A sign-in that somebody else has begun.
		mine, others := r.browser(), r.browser()
		begun := mine.post("/signin/passkey/begin").is(http.StatusOK)
		others.post("/signin/passkey/begin").is(http.StatusOK)
		var said struct {
			Options json.RawMessage `json:"options"`
		}
		r.must(json.Unmarshal([]byte(begun.body), &said))
		signed := k.sign(string(said.Options))
		others.post("/signin/passkey", "code", signed).is(http.StatusUnauthorized)
		mine.post("/signin/passkey", "code", signed).goes("/")
		// What is disabled is not let in, and the page says no more than that.
		disabled := true
		_, err := r.ChangeUser(r.Context(), desk.Root(), "olga", 0, rest.UserChange{Disabled: &disabled})
		if err != nil && !fault.Is(err, fault.Conflict) {
			t.Fatal(err)
		}
		adam := r.person("adam", rest.RoleNone)
		ka := adam.passkey()
		_, err = r.ChangeUser(r.Context(), desk.Root(), "adam", 0, rest.UserChange{Disabled: &disabled})
		r.must(err)
		r.browser().alone(ka).is(http.StatusUnauthorized).has(text.PasskeyRefused)
		if e := r.last(event.SessionDenied); e.Reason != "user-disabled" && e.Reason != "disabled" || e.UserID != adam.id {
			t.Errorf("the event is %+v", e)
		}
	})
}

// A copy is found at the sign-in, and both are out.
func TestACopiedPasskeyAtTheSignIn(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		k := olga.passkey()
		copied := *k
		thief := r.browser()
		thief.alone(k).goes("/console")
		_, raw, err := r.sessions.MakeToken(r.Context(), thief.session(), "", session.NewToken{Name: "thief", Scopes: []string{"read"}})
		r.must(err)
		r.update(func(ctx context.Context, tx *store.Tx) error {
			return tx.InsertWindow(ctx, db.InsertWindowParams{
				ID: store.NewID(), UserID: olga.id, MachineID: r.machine.ID, Boot: "b", OpenedAt: clock.Micros(r.clock.Now()), ExpiresAt: clock.Micros(r.clock.Now().Add(time.Hour)),
				Scopes: "[]", Factors: `["fido2"]`,
			})
		})
		r.browser().alone(&copied).is(http.StatusUnauthorized).has(text.PasskeyCloned)
		r.browser().alone(k).is(http.StatusUnauthorized).has(text.PasskeyUnknown)
		if e := r.last(event.FactorCloned); e.UserID != olga.id {
			t.Errorf("the event is %+v", e)
		}
		// What either of the two has opened ends with it.
		if at := thief.home(); at != "/signin" {
			t.Errorf("the session of the other is led to %s", at)
		}
		if status, _ := r.call("GET", "/users", string(raw.Reveal()), ""); status != http.StatusUnauthorized {
			t.Errorf("its token is answered %d", status)
		}
		if e := r.last(event.WindowEnded); e.UserID != olga.id || e.Reason != "passkey-cloned" {
			t.Errorf("no window has ended: %+v", e)
		}
		r.must(r.Store.Read(r.Context(), func(q *store.Queries) error {
			p, err := q.GetPasskey(r.Context(), k.id)
			if err == nil && p.ClonedAt == 0 {
				t.Error("it is not marked")
			}
			return err
		}))
	})
}

// TestACopiedPasskeyBehindAPassword and at a step-up: what was found stands, although the
// session or sign-in in which it was found ends with it.
func TestACopiedPasskeyBehindAPassword(t *testing.T) {
	onBoth(t, func(r *rig) {
		marked := func(k *token) {
			t.Helper()
			r.must(r.Store.Read(r.Context(), func(q *store.Queries) error {
				p, err := q.GetPasskey(r.Context(), k.id)
				if err == nil && p.ClonedAt == 0 {
					t.Error("it is not marked")
				}
				return err
			}))
		}
		olga := r.person("olga", rest.RoleOwner)
		k := olga.passkey()
		copied := *k
		thief := r.browser()
		thief.alone(k).goes("/console")
		b := r.browser()
		b.post("/signin", "name", "olga", "password", password).goes("/signin")
		b.post("/signin/choose", "kind", "fido2").goes("/signin")
		b.post("/signin/code", "kind", "fido2", "code", copied.sign(b.get("/signin").options())).is(http.StatusUnauthorized)
		marked(k)
		if at := thief.home(); at != "/signin" {
			t.Errorf("the session of the other is led to %s", at)
		}

		adam := r.person("adam", rest.RoleNone)
		k = adam.passkey()
		copied = *k
		b, thief = r.browser(), r.browser()
		b.alone(k).goes("/me")
		thief.alone(k).goes("/me")
		b.post("/stepup/choose", "kind", "fido2", "next", "/me").goes("/stepup?next=%2Fme")
		b.post("/stepup", "kind", "fido2", "code", copied.sign(b.get("/stepup").options()), "next", "/me")
		marked(k)
		for _, x := range []*browser{b, thief} {
			if at := x.home(); at != "/signin" {
				t.Errorf("a session is led to %s", at)
			}
		}
	})
}

// last is the event of the type that was written last.
func (r *rig) last(typ event.Type) (out db.Event) {
	r.Helper()
	all, err := r.Store.EventsAfter(r.Context(), store.Position{}, 10_000)
	r.must(err)
	for _, e := range all {
		if e.Type == string(typ) {
			out = e
		}
	}
	return out
}

// TestALostPhoneOfWhoHasARole: backup codes open the portal alone; the help desk's code,
// given beside them, leads to a new factor, and with it back to the console.
func TestALostPhoneOfWhoHasARole(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.person("olga", rest.RoleOwner)
		adam := r.person("adam", rest.RoleAdministrator)
		adam.backup()
		b := r.browser()
		b.post("/signin", "name", "adam", "password", password).goes("/signin")
		b.get("/signin").lacks(text.OptionEnrol)
		_, err := r.LoseFactor(r.Context(), desk.Root(), "adam", rest.FactorPrefix+adam.auth)
		r.must(err)
		b = r.browser()
		b.post("/signin", "name", "adam", "password", password).goes("/signin")
		b.get("/signin").lacks(text.OptionEnrol) // there is no code
		code, err := r.IssueEnrolCode(r.Context(), desk.Root(), "adam", rest.NewEnrolCode{})
		r.must(err)
		b = r.browser()
		b.post("/signin", "name", "adam", "password", password).goes("/signin")
		b.get("/signin").has(text.OptionEnrol)
		b.post("/signin/code", "kind", "enrol", "code", "ABCD-EFGH").is(http.StatusUnprocessableEntity)
		b.post("/signin/code", "kind", "enrol", "code", code.Code.Show()).goes("/")
		b.get("/console/approvals").is(http.StatusForbidden)
		b.get("/me/enrol/passkey").is(http.StatusOK)
	})
}
