//go:build e2e

package browser

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"

	"latchkey/internal/otp"
	"latchkey/internal/server/web/words"
	"latchkey/internal/text"
)

// key is an authenticator that the browser makes believe it has.
type key struct {
	p  *Page
	id webauthn.AuthenticatorID
}

// key plugs one into the window: with a finger that it knows.
func (p *Page) key() *key {
	p.t.Helper()
	k := &key{p: p}
	p.do("plug a key in", chromedp.ActionFunc(func(ctx context.Context) (err error) {
		if err := webauthn.Enable().Do(ctx); err != nil {
			return err
		}
		k.id, err = webauthn.AddVirtualAuthenticator(&webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true,
			IsUserVerified: true, AutomaticPresenceSimulation: true,
		}).Do(ctx)
		return err
	}))
	return k
}

func (k *key) do(what string, fn func(ctx context.Context) error) {
	k.p.t.Helper()
	k.p.do(what, chromedp.ActionFunc(fn))
}

// only is the one credential that it holds.
func (k *key) only() *webauthn.Credential {
	k.p.t.Helper()
	var all []*webauthn.Credential
	k.do("look into the key", func(ctx context.Context) (err error) {
		all, err = webauthn.GetCredentials(k.id).Do(ctx)
		return err
	})
	if len(all) != 1 {
		k.p.t.Fatalf("the key holds %d credentials", len(all))
	}
	return all[0]
}

// put replaces what the key holds.
func (k *key) put(c *webauthn.Credential) {
	k.p.t.Helper()
	k.do("copy the key", func(ctx context.Context) error {
		if err := webauthn.ClearCredentials(k.id).Do(ctx); err != nil {
			return err
		}
		return webauthn.AddCredential(k.id, c).Do(ctx)
	})
}

func (p *Page) signOut() {
	p.t.Helper()
	p.Visit("/signout", 200)
	p.Click(words.SignOut)
	p.See(words.SignedOut)
}

// hand is what a page does that is not this server's: it asks the key for the challenge of a sign-in, with the demands
// that it likes, and hands the answer in.
const hand = `(async (challenge, rpId, verification) => {
	const b = (s) => Uint8Array.from(atob(s.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
	const t = (d) => btoa(String.fromCharCode(...new Uint8Array(d))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
	try {
		const c = await navigator.credentials.get({publicKey: {challenge: b(challenge), rpId, userVerification: verification}});
		return JSON.stringify({id: c.id, rawId: t(c.rawId), type: c.type, clientExtensionResults: {}, response: {clientDataJSON: t(c.response.clientDataJSON),
			authenticatorData: t(c.response.authenticatorData), signature: t(c.response.signature), userHandle: t(c.response.userHandle)}});
	} catch (e) { return "refused: " + e.name; }
})`

// challenge begins a sign-in without a name.
func (p *Page) challenge() (challenge string) {
	p.t.Helper()
	p.Eval(`fetch("/signin/passkey/begin", {method: "POST"}).then(r => r.json()).then(o => o.options.challenge)`, &challenge)
	return challenge
}

// handIn sends an answer as the page's form does.
func (p *Page) handIn(answer string) {
	p.t.Helper()
	p.Eval(`(() => {
		const f = document.querySelector("form[action='/signin/passkey']");
		f.elements.namedItem("code").value = `+quote(answer)+`;
		f.submit();
	})()`, nil)
}

// TestPasskeys is what somebody does with a passkey, and what others try with it.
func TestPasskeys(t *testing.T) {
	s, named := named(t)
	b := Start(t)
	p := b.Open(t, s.base)
	for _, code := range []string{"401", "403", "409", "422", "503", "a request to another place"} {
		p.Expect(code)
	}
	k := p.key()
	seed := otp.FormatSeed(named.Key)

	// It is made behind a fresh second factor, and has the name that was given.
	p.begin(named)
	p.Fill(words.FieldCode, s.code(seed))
	p.Click(words.Continue)
	p.At("/console")
	p.Visit("/me/factors/passkey", 200)
	p.Fill(words.PasskeyName, "a laptop")
	p.Click(words.PasskeyMake)
	p.See(words.PasskeyDone)
	p.See("a laptop")
	if c := k.only(); c.RpID != "localhost" || !c.IsResidentCredential || c.UserHandle == "" {
		t.Fatalf("the key holds %+v", c)
	}

	// The same authenticator makes no second one.
	p.Visit("/me/factors/passkey", 200)
	p.Click(words.PasskeyMake)
	p.See(words.PasskeyKnown)

	// As a second factor: it is offered first, and asked for at once when it was chosen.
	p.signOut()
	p.begin(named)
	p.See(words.ProofChoose)
	p.Click(text.OptionPasskey)
	p.At("/console")

	// To prove anew who sits there.
	p.Visit("/stepup?next=/me", 200)
	p.Click(text.OptionPasskey)
	p.See(words.StepUpDone)

	// Without name and password.
	p.signOut()
	p.Visit("/signin", 200)
	p.Click(words.ProofPasskey)
	p.At("/console")
	p.signOut()

	// A browser that can not tell who holds the key does not even answer.
	k.do("forget the finger", func(ctx context.Context) error { return webauthn.SetUserVerified(k.id, false).Do(ctx) })
	p.Visit("/signin", 200)
	p.Click(words.ProofPasskey)
	p.See(words.ProofKeyAborted)
	// Nor is an answer accepted that was made without.
	p.Visit("/signin", 200)
	var answer string
	p.Eval(hand+`(`+quote(p.challenge())+`, "localhost", "discouraged")`, &answer)
	p.handIn(answer)
	p.See(text.PasskeyNotVerified)
	k.do("know the finger", func(ctx context.Context) error { return webauthn.SetUserVerified(k.id, true).Do(ctx) })

	// Another signature than the key's.
	k.do("sign wrongly", func(ctx context.Context) error {
		return webauthn.SetResponseOverrideBits(k.id).WithIsBogusSignature(true).Do(ctx)
	})
	p.Visit("/signin", 200)
	p.Click(words.ProofPasskey)
	p.See(text.PasskeyRefused)
	k.do("sign rightly", func(ctx context.Context) error { return webauthn.SetResponseOverrideBits(k.id).Do(ctx) })

	// A page of somebody else's on the same host: it gets an answer of the key, which is worth nothing here.
	evil := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte("<!doctype html><title>Sign in</title><h1>Sign in</h1>"))
	}))
	t.Cleanup(evil.Close)
	at, err := url.Parse(evil.URL)
	if err != nil {
		t.Fatal(err)
	}
	p.Visit("/signin", 200)
	challenge := p.challenge()
	p.do("open somebody else's page", chromedp.Navigate("https://localhost:"+at.Port()+"/"))
	p.Eval(hand+`(`+quote(challenge)+`, "localhost", "required")`, &answer)
	if len(answer) < 100 {
		t.Fatalf("the key answered %q", answer)
	}
	// Under another name the browser asks no key for ours.
	var refused string
	p.do("open it under another name", chromedp.Navigate("https://127.0.0.1:"+at.Port()+"/"))
	p.Eval(hand+`(`+quote(challenge)+`, "localhost", "required")`, &refused)
	if refused != "refused: SecurityError" {
		t.Errorf("under another name: %.100s", refused)
	}
	p.Visit("/signin", 200)
	p.handIn(answer)
	p.See(text.PasskeyRefused)

	// And again what was good once.
	p.Visit("/signin", 200)
	p.Eval(hand+`(`+quote(p.challenge())+`, "localhost", "required")`, &answer)
	p.handIn(answer)
	p.At("/console")
	p.signOut()
	p.Visit("/signin", 200)
	p.challenge()
	p.handIn(answer)
	p.See(text.PasskeyRefused)

	// It is taken away while it is asked for: from another window, in which its owner is signed in.
	other := b.Open(t, s.base)
	other.Expect("401")
	other.begin(named)
	other.Click(text.OptionTOTP)
	other.Fill(words.FieldCode, s.code(seed))
	other.Click(words.Continue)
	other.At("/console")
	p.Visit("/signin", 200)
	p.begin(named)
	p.See(words.ProofChoose)
	var asked string
	p.Eval(`fetch("/signin/choose", {method: "POST", body: new URLSearchParams({kind: "fido2", next: "/"})}).then(() => fetch("/signin")).then(r => r.text()).then(t =>
		JSON.parse(new DOMParser().parseFromString(t, "text/html").querySelector("form[data-passkey]").dataset.options).challenge)`, &asked)
	p.Eval(hand+`(`+quote(asked)+`, "localhost", "required")`, &answer)
	other.Visit("/me/factors", 200)
	other.Click("a laptop")
	other.Click(words.MyFactorRemove)
	other.Until("the question is asked", `document.querySelector("dialog.confirm-dialog[open]") !== null`)
	other.click("the button of the question", `document.querySelector("dialog.confirm-dialog[open] button[type=submit]")`)
	other.See(words.MyFactorRemoved)
	p.Eval(`(() => {
		const f = document.createElement("form");
		f.method = "post";
		f.action = "/signin/code";
		for (const [name, value] of Object.entries({kind: "fido2", next: "/", code: `+quote(answer)+`})) {
			const i = document.createElement("input");
			i.type = "hidden";
			i.name = name;
			i.value = value;
			f.append(i);
		}
		document.body.append(f);
		f.submit();
	})()`, nil)
	p.See(words.SigninOver)
	p.Visit("/signin", 200)
	p.Click(words.ProofPasskey)
	p.See(text.PasskeyUnknown)

	// A copy: whoever uses it second is found out, and it opens nothing any more.
	k.do("empty the key", func(ctx context.Context) error { return webauthn.ClearCredentials(k.id).Do(ctx) })
	p.begin(named)
	p.Fill(words.FieldCode, s.code(seed))
	p.Click(words.Continue)
	p.At("/console")
	p.Visit("/me/factors/passkey", 200)
	p.Fill(words.PasskeyName, "to be copied")
	p.Click(words.PasskeyMake)
	p.See(words.PasskeyDone)
	p.signOut()
	copied := *k.only()
	p.Visit("/signin", 200)
	p.Click(words.ProofPasskey)
	p.At("/console")
	p.signOut()
	k.put(&copied)
	p.Visit("/signin", 200)
	p.Click(words.ProofPasskey)
	p.See(text.PasskeyCloned)
	p.begin(named)
	p.Fill(words.FieldCode, s.code(seed))
	p.Click(words.Continue)
	p.At("/console")
	p.Visit("/me/factors", 200)
	p.See(words.PasskeyCloned)
	p.Visit("/console/events?type=factor.cloned", 200)
	p.See("factor.cloned")
}
