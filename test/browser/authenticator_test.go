//go:build e2e

package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"latchkey/internal/otp"
	"latchkey/internal/secret"
	"latchkey/internal/server/web/authenticator"
)

// phone is how the app is looked at in the hand; small is the narrowest that it must fit.
var (
	phone = View{"phone-light", 360, 740, false}
	small = View{"small", 320, 568, false}
)

const appPath = "/authenticator/"

// appOnly is a server that has the app and no door: what the app does without one.
func appOnly(t *testing.T) (*httptest.Server, *atomic.Pointer[http.Handler]) {
	t.Helper()
	var now atomic.Pointer[http.Handler]
	first := authenticator.Version("")
	now.Store(&first)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*now.Load()).ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	return srv, &now
}

// screen opens one screen of the app.
func (p *Page) screen(hash string) {
	p.t.Helper()
	p.Eval(fmt.Sprintf("location.hash = %s", quote(hash)), nil)
}

// judge looks at the open screen in all views: axe, the width, and a picture of each.
func (p *Page) judge(name string) {
	p.t.Helper()
	for _, v := range append([]View{small}, Views...) {
		p.Look(v)
		if v != small {
			rules := []string{"color-contrast"}
			if !v.Dark {
				rules = nil
			}
			for _, f := range p.Axe(rules...) {
				p.t.Errorf("%s, %s: %s", name, v.Name, f)
			}
		}
		if by, what := p.Sideways(); by > 0 {
			p.t.Errorf("%s, %s: it is %d pixels too wide: %s", name, v.Name, by, what)
		}
		if v != small {
			p.Screenshot("authenticator-" + name + "-" + v.Name)
		}
	}
	p.Look(phone)
}

// cut cuts the network of the page, or gives it back.
func (p *Page) cut(off bool) {
	p.t.Helper()
	p.do("cut the network", network.EmulateNetworkConditions(off, 0, -1, -1))
}

// oath is the code by a program that is not ours.
func oath(t testing.TB, at time.Time, seed, hash string, digits, period int) string {
	t.Helper()
	out, err := exec.Command("oathtool", "--totp="+hash, "-b", "-d", strconv.Itoa(digits), "-s", fmt.Sprintf("%ds", period), "--now", "@"+strconv.FormatInt(at.Unix(), 10), seed).CombinedOutput()
	if err != nil {
		t.Fatalf("oathtool: %v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// shownCodes are the codes on the screen, with the page's time when they were read.
func (p *Page) shownCodes() (codes []string, at time.Time) {
	p.t.Helper()
	var got struct {
		Codes []string
		At    float64
	}
	p.Eval(`({Codes: [...document.querySelectorAll(".code [data-code]")].map(e => e.dataset.code), At: Date.now()})`, &got)
	return got.Codes, time.UnixMilli(int64(got.At))
}

// TestAuthenticatorCodes: codes of every kind that authenticator apps know are those of oathtool, in the hand of somebody
// who has no network; the app is there within a second; its keys can be used and not read; a new version comes when it is
// wanted.
func TestAuthenticatorCodes(t *testing.T) {
	srv, now := appOnly(t)
	p := Start(t).Open(t, srv.URL)
	p.Look(phone)
	p.Weight()
	p.Visit(appPath, 200)
	p.See("Welcome")
	p.Until("the app keeps itself", `navigator.serviceWorker.controller !== null`)
	if w := p.Weight(); w > 60_000 {
		t.Errorf("the first load weighs %.0f octets", w)
	} else {
		t.Logf("the first load weighs %.0f octets on the wire, with headers", w)
	}
	p.judge("welcome")

	kinds := []struct {
		user, hash     string
		digits, period int
	}{{"ada@example.org", "SHA1", 6, 30}, {"grace", "SHA256", 8, 60}, {"hedy", "SHA512", 6, 30}}
	seeds := make([]string, len(kinds))
	for i, k := range kinds {
		seeds[i] = strings.ReplaceAll(otp.FormatSeed(secret.FromString(strings.Repeat(k.user+"-12345678901234567890", 3)[:20+12*i])), " ", "")
		p.screen("#/add")
		p.Fill("Or paste the link", fmt.Sprintf("otpauth://totp/Example%%20Corp:%s?secret=%s&issuer=Example%%20Corp&algorithm=%s&digits=%d&period=%d", k.user, seeds[i], k.hash, k.digits, k.period))
		p.Click("Go on")
		p.See("The QR code holds codes of " + k.user)
		if i == 0 {
			p.judge("add-codes")
		}
		p.Click("Keep the codes")
		p.See(k.user + " was added.")
	}
	right := func(when string) {
		t.Helper()
		p.Until("all codes are shown", fmt.Sprintf(`document.querySelectorAll(".code [data-code]").length === %d`, len(kinds)))
		codes, at := p.shownCodes()
		for i, k := range kinds {
			// Between the code's making and its reading a step may begin.
			before := oath(t, at.Add(-500*time.Millisecond), seeds[i], k.hash, k.digits, k.period)
			if want := oath(t, at, seeds[i], k.hash, k.digits, k.period); codes[i] != want && codes[i] != before {
				t.Errorf("%s: the code of %s is %s, and oathtool says %s", when, k.user, codes[i], want)
			}
		}
	}
	right("online")
	p.judge("codes")

	// The network is cut, and the server is gone: the app opens.
	p.cut(true)
	srv.CloseClientConnections()
	served := *now.Load()
	dead := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			c.Close()
		}
	}))
	now.Store(&dead)
	best := 1e9
	p.silent(true) // what can not be loaded is no fault now
	for range 3 {
		p.do("open the app anew", chromedp.Reload())
		p.settle()
		right("offline")
		var ms float64
		p.Eval(`performance.getEntriesByName("shown")[0].startTime`, &ms)
		best = min(best, ms)
	}
	p.silent(false)
	t.Logf("offline, codes are shown after %.0f ms", best)
	if best > 1000 {
		t.Errorf("offline, codes are shown after %.0f ms", best)
	}

	// Each key can be used and not read, in the page's own hands.
	for _, k := range p.keys() {
		if k.Extractable || !k.Refused {
			t.Errorf("a key can be read: %+v", k)
		}
	}
	if n := len(p.keys()); n != len(kinds) {
		t.Errorf("%d keys are kept, not %d", n, len(kinds))
	}

	// A new version is fetched as a whole, and waits until it is wanted.
	p.cut(false)
	now.Store(&served)
	p.do("open the app anew", chromedp.Reload())
	p.settle()
	var was string
	p.Eval(`document.body.dataset.version`, &was)
	next := authenticator.Version("the next one")
	now.Store(&next)
	p.Eval(`navigator.serviceWorker.getRegistration().then(r => r.update()).then(() => true)`, nil)
	p.See("A new version is ready.")
	p.judge("update")
	p.Click("Use it now")
	p.Until("the new version runs", fmt.Sprintf(`document.body && document.body.dataset.version !== %s && document.querySelector(".code") !== null`, quote(was)))
	right("in the new version")

	// An account is removed behind a question.
	p.screen("#/accounts")
	p.See("Add an account")
	p.judge("accounts")
	p.Click("hedy")
	p.See("hedy at Example Corp")
	p.judge("account-codes")
	p.Click("Remove this account")
	p.Until("a question is asked", `document.querySelector("dialog[open]") !== null`)
	p.judge("remove-question")
	p.Click("Cancel")
	p.Until("the question is gone", `document.querySelector("dialog") === null`)
	p.Click("Remove this account")
	p.Until("a question is asked", `document.querySelector("dialog[open]") !== null`)
	p.Click("Remove")
	p.See("hedy was removed.")
	if n := len(p.keys()); n != len(kinds)-1 {
		t.Errorf("%d keys are left", n)
	}
}

// keptKey is what the page can learn of a key that it keeps.
type keptKey struct {
	Account, Algorithm   string
	Extractable, Refused bool
}

// keys tries to read every key that the app keeps, as the page itself could.
func (p *Page) keys() (out []keptKey) {
	p.t.Helper()
	var raw string
	p.Eval(`(async () => {
		const db = await new Promise((y, n) => { const r = indexedDB.open("latchkey-authenticator"); r.onsuccess = () => y(r.result); r.onerror = () => n(r.error); });
		const all = await new Promise((y, n) => { const r = db.transaction("accounts").objectStore("accounts").getAll(); r.onsuccess = () => y(r.result); r.onerror = () => n(r.error); });
		db.close();
		const out = [];
		for (const a of all) for (const k of [a.key, a.seed && a.seed.key]) {
			if (!k) continue;
			let refused = true;
			for (const form of ["raw", "jwk", "pkcs8"]) await crypto.subtle.exportKey(form, k).then(() => refused = false, () => {});
			const wrapper = await crypto.subtle.generateKey({name: "AES-GCM", length: 256}, true, ["wrapKey"]);
			for (const form of ["raw", "jwk", "pkcs8"]) await crypto.subtle.wrapKey(form, k, wrapper, {name: "AES-GCM", iv: new Uint8Array(12)}).then(() => refused = false, () => {});
			out.push({Account: a.id, Algorithm: k.algorithm.name, Extractable: k.extractable, Refused: refused});
		}
		return JSON.stringify(out);
	})()`, &raw)
	if err := json.Unmarshal([]byte(raw), &out); err != nil {
		p.t.Fatal(err)
	}
	return out
}

var _ = context.Background
