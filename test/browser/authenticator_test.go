//go:build e2e

package browser

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cdpbrowser "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/serviceworker"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"rsc.io/qr"

	"latchkey/internal/otp"
	"latchkey/internal/secret"
	"latchkey/internal/server/web/authenticator"
	"latchkey/internal/server/web/words"
	"latchkey/internal/text"
	"latchkey/test/fill"
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
	p.Expect("net::ERR_INTERNET_DISCONNECTED") // the app asks on meanwhile; the browser may say so late
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

// shot is a picture of what the page shows in an element, and of nothing else.
func (p *Page) shot(selector string) image.Image {
	p.t.Helper()
	p.Until(selector+" is there", fmt.Sprintf("document.querySelector(%s) !== null", quote(selector)))
	var b struct{ X, Y, W, H float64 }
	p.Eval(fmt.Sprintf(`(e => { const b = e.getBoundingClientRect(); return {X: b.x + scrollX, Y: b.y + scrollY, W: b.width, H: b.height} })(document.querySelector(%s))`, quote(selector)), &b)
	var raw []byte
	p.do("take a picture of "+selector, chromedp.ActionFunc(func(ctx context.Context) (err error) {
		raw, err = page.CaptureScreenshot().WithCaptureBeyondViewport(true).WithClip(&page.Viewport{X: b.X, Y: b.Y, Width: b.W, Height: b.H, Scale: 1}).Do(ctx)
		return err
	}))
	img, err := png.Decode(bytes.NewReader(raw))
	if err != nil {
		p.t.Fatal(err)
	}
	return img
}

// before a camera: the picture lies on a grey table, somewhat small.
func table(img image.Image, w, h, side int) *image.Gray {
	out := image.NewGray(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			out.SetGray(x, y, color.Gray{uint8(150 + (x+y)%16)})
		}
	}
	x0, y0, b := (w-side)/2+17, (h-side)/2-9, img.Bounds()
	for y := range side {
		for x := range side {
			c := color.GrayModel.Convert(img.At(b.Min.X+x*b.Dx()/side, b.Min.Y+y*b.Dy()/side)).(color.Gray)
			c.Y = uint8(30 + int(c.Y)*200/255) // neither black nor white
			out.SetGray(x0+x, y0+y, c)
		}
	}
	return out
}

// camera is a camera that sees the picture, as settings of a browser.
func camera(t *testing.T, img *image.Gray) []chromedp.ExecAllocatorOption {
	t.Helper()
	var b bytes.Buffer
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	fmt.Fprintf(&b, "YUV4MPEG2 W%d H%d F10:1 Ip A1:1 C420mpeg2\n", w, h)
	for range 3 {
		b.WriteString("FRAME\n")
		b.Write(img.Pix)
		b.Write(bytes.Repeat([]byte{128}, w*h/2))
	}
	file := filepath.Join(t.TempDir(), "camera.y4m")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return []chromedp.ExecAllocatorOption{
		chromedp.Flag("use-fake-device-for-media-stream", true), chromedp.Flag("use-fake-ui-for-media-stream", true), chromedp.Flag("use-file-for-fake-video-capture", file),
	}
}

// upload chooses a picture in the app.
func (p *Page) upload(img image.Image) {
	p.t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "picture.png")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		p.t.Fatal(err)
	}
	p.do("choose a picture", chromedp.SetUploadFiles("input[type=file]", []string{file}, chromedp.ByQuery))
}

// begin types name and password.
func (p *Page) begin(n fill.Named) {
	p.t.Helper()
	p.Visit("/signin", 200)
	p.Fill(words.FieldUserName, n.Admin)
	p.Fill(words.FieldPassword, n.Password)
	p.Click(words.SignInGo)
}

// byPhone begins a sign-in that the phone must approve, and is the number that is shown.
func (p *Page) byPhone(n fill.Named) (number string) {
	p.t.Helper()
	p.begin(n)
	p.Click(text.OptionPush)
	p.Until("a number is shown", `document.querySelector("[data-number]") !== null`)
	p.Eval(`document.querySelector("[data-number]").textContent.trim()`, &number)
	if len(number) != 2 {
		p.t.Fatalf("the number is %q", number)
	}
	return number
}

// other is a number that is not the one.
func other(number string) string {
	if number == "42" {
		return "43"
	}
	return "42"
}

// asked waits for the request and opens it.
func (p *Page) asked() {
	p.t.Helper()
	p.See("waits for your answer")
	p.Click("Look at it")
	p.See("Is this you?")
}

// TestAuthenticatorApproves is the way of a person with a computer and a phone: the phone is set up by what its camera sees
// on the computer's screen; then it approves a sign-in by the number, is not asked any more for one that was left, denies
// one, has one guess at the number, and reports one that was not hers.
func TestAuthenticatorApproves(t *testing.T) {
	s, who := named(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last events:\n%s", s.events())
		}
	})
	desk := Start(t).Open(t, s.base)
	desk.Look(Views[0])
	desk.begin(who)
	desk.Expect("401")
	desk.Fill(words.FieldCode, s.code(otp.FormatSeed(who.Key)))
	desk.Click(words.Continue)
	desk.At("/console")
	desk.Visit("/me/phone", 200)
	desk.Click(words.PhoneShow)
	desk.See(words.PhoneWaiting)
	seen := desk.shot("svg.qr")

	p := Start(t, camera(t, table(seen, 640, 480, 300))...).Open(t, s.base)
	p.Look(phone)
	p.Visit(appPath, 200)
	p.See("Welcome")
	p.screen("#/add")
	p.See("Scan the QR code")
	p.judge("add")

	// A picture without a code, and one of another server's.
	p.upload(table(image.NewGray(image.Rect(0, 0, 1, 1)), 200, 200, 100))
	p.See("There is no QR code in this picture")
	p.judge("add-no-code")
	elsewhere, err := qr.Encode("https://elsewhere.example/authenticator/#e=abcdefghijklmnop", qr.M)
	if err != nil {
		t.Fatal(err)
	}
	p.upload(elsewhere.Image())
	p.See("This code belongs to another server, elsewhere.example")
	p.judge("add-elsewhere")

	p.Click("Open the camera")
	p.See("Add this device")
	var path string
	if p.Eval(`location.href`, &path); strings.Contains(path, "e=") {
		t.Errorf("the code stays in the address: %s", path)
	}
	p.judge("add-device")
	p.Fill("Name of this device", "My pocket")
	p.Click("Add this device")
	p.See(who.Admin + " was added.")
	p.See("Notifications")
	p.judge("account")
	desk.See(words.PhoneCame)
	if ks := p.keys(); len(ks) != 2 || ks[0].Algorithm != "ECDSA" || ks[1].Algorithm != "HMAC" || ks[0].Extractable || ks[1].Extractable || !ks[0].Refused || !ks[1].Refused {
		t.Errorf("the keys are %+v", ks)
	}

	// It approves, by the number. What was sent is kept, to be sent again.
	sent := p.answers()
	p.screen("#/requests")
	p.See("Nothing is waiting")
	p.judge("requests-none")
	p.screen("#/codes")
	p.See("Codes")
	second := Start(t).Open(t, s.base)
	second.Look(Views[0])
	number := second.byPhone(who)
	p.See("waits for your answer")
	p.judge("codes-waiting")
	p.asked()
	for _, want := range []string{"From address", "127.0.0.1", who.Admin} {
		p.See(want)
	}
	p.judge("request")
	p.Fill("Number shown at the sign-in", "4")
	p.Click("Approve")
	p.See("Type the two digits")
	p.Fill("Number shown at the sign-in", number)
	approved := time.Now()
	p.Click("Approve")
	p.See("Approved")
	second.At("/console")
	t.Logf("from the click to the page behind the sign-in: %v", time.Since(approved).Round(time.Millisecond))
	p.judge("approved")
	p.attacks(sent)

	// Who leaves the page that waits takes back what the phone was asked, and chooses anew when they come again.
	third := Start(t).Open(t, s.base)
	third.Look(Views[0])
	third.byPhone(who)
	p.asked()
	if strings.Contains(s.events(), "push.withdrawn") {
		t.Error("a request is withdrawn before its page is left")
	}
	third.Visit(appPath, 200)
	p.See("This request is over")
	if !strings.Contains(s.events(), "push.withdrawn") {
		t.Errorf("the events do not say that it was withdrawn:\n%s", s.events())
	}
	third.Visit("/signin", 200)
	third.See(words.ProofChoose)
	third.Click(text.OptionPush)
	third.Until("a number is shown", `document.querySelector("[data-number]") !== null`)

	// It denies.
	p.asked()
	p.bends(sent)
	p.Click("Deny")
	p.See("Denied")
	third.See(text.PushDenied)

	// One guess.
	number = third.byPhone(who)
	p.asked()
	p.Expect("422")
	p.Fill("Number shown at the sign-in", other(number))
	p.Click("Approve")
	p.See("Wrong number")
	p.judge("wrong-number")
	third.See(text.PushWrongNumber)

	// It was not hers: she is asked once more, and whoever asks goes away at once. She sees what it was, also on a phone that
	// comes too late, and says so; then nothing more is sent to her phone.
	third.byPhone(who)
	p.asked()
	third.Visit(appPath, 200)
	p.See("This request is over")
	p.See("Was it not you?")
	p.See("From address")
	p.judge("request-over")
	p.do("open the app anew", chromedp.Reload())
	p.See("Was it not you?")
	p.See("From address")
	p.Click("It wasn't me")
	p.See("Report this sign-in?")
	p.judge("report-question")
	p.Click("Cancel")
	p.Until("the question is gone", `document.querySelector("dialog") === null`)
	p.Click("It wasn't me")
	p.See("Report this sign-in?")
	p.Click("Report it")
	p.See("your administrators are told")
	p.judge("reported")
	p.Click("Done")
	p.See("Requests are switched off for this account")
	p.judge("requests-locked")
	third.Visit("/signin", 200)
	third.Click("Begin again")
	third.See("To the console or your own account.")
	third.begin(who)
	if third.Has(text.OptionPush) {
		t.Error("a phone is offered that is locked")
	}

	// The code of the same app opens, with the network cut; the app has learnt what time it is at the server.
	s.pass(30 * time.Second)
	p.do("open the app anew", chromedp.Reload())
	p.See("Requests are switched off for this account")
	p.cut(true)
	p.silent(true)
	p.do("open the app anew", chromedp.Reload())
	p.screen("#/codes")
	p.Until("the code is shown", `document.querySelectorAll(".code [data-code]").length === 1`)
	codes, _ := p.shownCodes()
	p.judge("codes-offline")
	p.silent(false)
	third.Fill(words.FieldCode, codes[0])
	third.Click(words.Continue)
	third.At("/console")
	p.cut(false)

	// Who signs out of the portal on the phone still has the phone.
	p.Eval(`fetch("/signout", {method: "POST"}).then(r => r.text()).then(() => true)`, nil)
	if n := len(p.keys()); n != 2 {
		t.Errorf("%d keys are left behind a sign-out", n)
	}

	// She gives the phone another name, and removes it; the portal knows.
	p.screen("#/accounts")
	p.Click(who.Admin)
	p.See("Notifications")
	p.Fill("Name of this device", "Old pocket")
	p.Click("Rename")
	p.See("Renamed.")
	desk.Visit("/me/factors", 200)
	desk.See("Old pocket")
	p.Click("Remove this account")
	p.See("Remove this account?")
	p.Click("Remove")
	p.See(who.Admin + " was removed.")
	desk.Visit("/me/factors", 200)
	if strings.Contains(desk.Text(), "Old pocket") {
		t.Error("the portal still has the phone")
	}
	if n := len(p.keys()); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// answers collects what the app posts as an answer.
func (p *Page) answers() func() (uri, body string) {
	var mu sync.Mutex
	var uri, body string
	chromedp.ListenTarget(p.ctx, func(ev any) {
		e, ok := ev.(*network.EventRequestWillBeSent)
		if !ok || e.Request.Method != "POST" || !strings.HasSuffix(e.Request.URL, "/answer") {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		u, _ := url.Parse(e.Request.URL)
		uri, body = u.RequestURI(), ""
		for _, part := range e.Request.PostDataEntries {
			b, _ := base64.StdEncoding.DecodeString(part.Bytes)
			body += string(b)
		}
	})
	return func() (string, string) {
		mu.Lock()
		defer mu.Unlock()
		return uri, body
	}
}

// says signs a call with the device's key, as a script in the page could, and is the answer.
func (p *Page) says(method, uri, body string) (status int, code string) {
	p.t.Helper()
	var got struct {
		Status int
		Code   string
	}
	p.silent(true)
	defer p.silent(false)
	p.Eval(fmt.Sprintf(`(async (method, uri, body) => {
		const db = await new Promise((y, n) => { const r = indexedDB.open("latchkey-authenticator"); r.onsuccess = () => y(r.result); r.onerror = () => n(r.error); });
		const all = await new Promise((y, n) => { const r = db.transaction("accounts").objectStore("accounts").getAll(); r.onsuccess = () => y(r.result); r.onerror = () => n(r.error); });
		const ahead = await new Promise((y, n) => { const r = db.transaction("state").objectStore("state").get("ahead"); r.onsuccess = () => y(r.result || 0); r.onerror = () => n(r.error); });
		db.close();
		const a = all.find(a => a.key), enc = new TextEncoder();
		const b64 = b => btoa(String.fromCharCode(...new Uint8Array(b))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
		const hex = b => [...new Uint8Array(b)].map(x => x.toString(16).padStart(2, "0")).join("");
		const sign = async text => b64(await crypto.subtle.sign({name: "ECDSA", hash: "SHA-256"}, a.key, enc.encode(text)));
		if (body.includes("SIGN")) {
			const m = JSON.parse(body), id = uri.split("/").at(-2);
			m.signature = await sign(["latchkey-push/1", id, m.decision, m.number, m.nonce, m.content_hash].join("\n"));
			body = JSON.stringify(m);
		}
		const time = String(Math.floor((Date.now() + ahead) / 1000));
		const signature = await sign(["latchkey-authenticator/1", method, uri, time, hex(await crypto.subtle.digest("SHA-256", enc.encode(body)))].join("\n"));
		const r = await fetch(uri, {method, body: body || null, headers: {"Latchkey-Device": a.id, "Latchkey-Time": time, "Latchkey-Signature": signature, ...(body ? {"Content-Type": "application/json"} : {})}});
		const said = await r.json().catch(() => ({}));
		return {Status: r.status, Code: said.code || said.state || ""};
	})(%s, %s, %s)`, quote(method), quote(uri), quote(body)), &got)
	return got.Status, got.Code
}

// attacks sends again what has approved, and bends it, with the phone's own key: nothing is approved twice, or otherwise.
func (p *Page) attacks(sent func() (uri, body string)) {
	p.t.Helper()
	uri, body := sent()
	if uri == "" || !strings.Contains(body, `"decision":"approve"`) {
		p.t.Fatalf("no approval was seen: %s %s", uri, body)
	}
	p.Expect("status of 4")
	for name, bent := range map[string]string{
		"the same once more":    body,
		"another number":        replaced(p.t, body, map[string]string{"number": "11", "signature": "SIGN"}),
		"another nonce":         replaced(p.t, body, map[string]string{"nonce": "AAAAAAAAAAAAAAAAAAAAAA", "signature": "SIGN"}),
		"another content":       replaced(p.t, body, map[string]string{"content_hash": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "signature": "SIGN"}),
		"a report of it":        replaced(p.t, body, map[string]string{"decision": "report", "number": "", "signature": "SIGN"}),
		"no signature":          replaced(p.t, body, map[string]string{"signature": ""}),
		"a decision bent since": replaced(p.t, body, map[string]string{"decision": "deny", "number": ""}),
	} {
		if status, code := p.says("POST", uri, bent); status < 400 || status >= 500 {
			p.t.Errorf("%s: %d %s", name, status, code)
		} else {
			p.t.Logf("%s: %d %s", name, status, code)
		}
	}
}

// bends answers the open request in ways that must not count, with the phone's own key; it stays open.
func (p *Page) bends(sent func() (uri, body string)) {
	p.t.Helper()
	_, old := sent()
	var id string
	p.Eval(`location.hash.split("/")[2]`, &id)
	uri := "/authenticator/v1/requests/" + id + "/answer"
	p.Expect("status of 4")
	if status, code := p.says("POST", uri, old); status < 400 || status >= 500 {
		p.t.Errorf("the approval of another request: %d %s", status, code)
	}
	for name, body := range map[string]string{
		"another's nonce, signed":  replaced(p.t, old, map[string]string{"signature": "SIGN"}),
		"no decision at all":       replaced(p.t, old, map[string]string{"decision": "", "signature": "SIGN"}),
		"three digits":             replaced(p.t, old, map[string]string{"number": "123", "signature": "SIGN"}),
		"a field that nobody asks": strings.Replace(old, "{", `{"force":true,`, 1),
		"not JSON":                 "approve",
	} {
		if status, code := p.says("POST", uri, body); status < 400 || status >= 500 {
			p.t.Errorf("%s: %d %s", name, status, code)
		} else {
			p.t.Logf("%s: %d %s", name, status, code)
		}
	}
	if status, code := p.says("GET", "/authenticator/v1/requests?wait=0&known=", ""); status != 200 {
		p.t.Errorf("behind them: %d %s", status, code)
	}
	p.See("Is this you?")
}

// replaced changes fields of a JSON object.
func replaced(t testing.TB, body string, with map[string]string) string {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range with {
		m[k] = v
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestAuthenticatorOnAComputer: a second device is a computer, set up by the link. The phone's own check (fingerprint, face,
// PIN) is asked for where the policy wants it, and an approval without it counts for nothing; what a push service brings
// becomes a notification; who is removed in the portal is wiped. On an iPhone nothing is set up before the app is installed.
func TestAuthenticatorOnAComputer(t *testing.T) {
	s, who := named(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last events:\n%s", s.events())
		}
	})
	var policies []struct{ Name string }
	if err := json.Unmarshal([]byte(s.cli("policy", "list", "--output", "json")), &policies); err != nil || len(policies) == 0 {
		t.Fatal(policies, err)
	}
	for _, x := range policies {
		s.cli("policy", "set", x.Name, "push_verification=true")
	}
	b := Start(t)
	desk := b.Open(t, s.base)
	desk.Look(Views[0])
	desk.Expect("401")
	desk.begin(who)
	desk.Fill(words.FieldCode, s.code(otp.FormatSeed(who.Key)))
	desk.Click(words.Continue)
	desk.At("/console")
	desk.Visit("/me/phone", 200)
	desk.Click(words.PhoneShow)
	desk.See(words.PhoneWaiting)
	var link string
	desk.Eval(`[...document.querySelectorAll("[data-copy]")].map(e => e.dataset.copy).find(t => t.includes("#e=")) || ""`, &link)
	if !strings.HasPrefix(link, s.base+appPath+"#e=") {
		t.Fatalf("the link is %q", link)
	}
	_, fragment, _ := strings.Cut(link, "#")

	apple := b.Open(t, s.base)
	apple.Look(phone)
	apple.do("be an iPhone", emulation.SetUserAgentOverride("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1"))
	apple.Visit(appPath+"#"+fragment, 200)
	apple.See("Install the app first")
	if apple.Has("Add this device") {
		t.Error("a device can be added in Safari")
	}
	apple.judge("install-first")

	p := b.Open(t, s.base)
	p.Look(Views[0])
	var key webauthn.AuthenticatorID
	p.do("have a fingerprint reader", webauthn.Enable(), chromedp.ActionFunc(func(ctx context.Context) (err error) {
		key, err = webauthn.AddVirtualAuthenticator(&webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal, HasResidentKey: true, HasUserVerification: true,
			IsUserVerified: true, AutomaticPresenceSimulation: true,
		}).Do(ctx)
		return err
	}))
	p.Visit(appPath+"#"+fragment, 200)
	p.See("Add this device")
	p.Fill("Name of this device", "Computer")
	p.Click("Add this device")
	p.See(who.Admin + " was added.")
	desk.See(words.PhoneCame)

	// Without the check it can deny and no more.
	third := b.Open(t, s.base)
	third.Look(Views[0])
	third.Expect("401")
	third.byPhone(who)
	p.asked()
	p.See("It is not set up here")
	if p.Has("Approve") {
		t.Error("it offers to approve without the check")
	}
	p.judge("request-check-missing")
	p.Look(Views[0])
	p.Click("Deny")
	p.See("Denied")
	third.See(text.PushDenied)

	p.screen("#/accounts")
	p.Click(who.Admin)
	p.Click("Set it up")
	p.See("Your device's own check is set up.")
	p.judge("account-check")
	p.Look(Views[0])

	// It is asked for with the number; what does not know the finger approves nothing.
	number := third.byPhone(who)
	p.asked()
	p.See("is asked for when you approve")
	p.do("be another finger", webauthn.SetUserVerified(key, false))
	p.Fill("Number shown at the sign-in", number)
	p.Click("Approve")
	p.See("was not confirmed. Nothing was sent")
	p.do("be the finger", webauthn.SetUserVerified(key, true))
	p.Click("Approve")
	p.See("Approved")
	third.At("/console")
	if !strings.Contains(s.events(), "push.approved") {
		t.Error("no event says who approved")
	}

	// Notifications: the push service is not to be reached from here, which is said; what one brings is shown.
	p.do("allow notifications", cdpbrowser.SetPermission(&cdpbrowser.PermissionDescriptor{Name: "notifications"}, cdpbrowser.PermissionSettingGranted).WithOrigin(s.base).WithBrowserContextID(p.contextID()))
	p.screen("#/accounts")
	p.Click(who.Admin)
	p.Expect("push service")
	p.Expect("Push API in incognito mode") // a window of a test is one
	p.Click("Allow notifications")
	p.See("The push service can not be reached from here.")
	p.knock(s.base, `{"device":"x","request":"r-1","expires":1}`)
	p.Until("a notification is shown", `navigator.serviceWorker.getRegistration().then(r => r.getNotifications()).then(all => all.length === 1 && all[0].title === "A sign-in waits for you" && all[0].tag === "r-1")`)
	p.knock(s.base, `no JSON`)
	p.Until("another one is shown", `navigator.serviceWorker.getRegistration().then(r => r.getNotifications()).then(all => all.length === 2)`)

	// It is removed in the portal, and wipes itself.
	p.Expect("410")
	desk.Visit("/me/factors", 200)
	desk.Click("Computer")
	desk.See(words.PhoneVerifies)
	desk.Click(words.MyFactorRemove)
	desk.See(words.MyFactorRemoveAsk)
	desk.Until("the question is asked", `document.querySelector("dialog[open] button[type=submit]") !== null`)
	desk.Eval(`document.querySelector("dialog[open] button[type=submit]").click()`, nil)
	desk.See(words.MyFactorRemoved)
	p.Eval(`window.dispatchEvent(new Event("online"))`, nil) // it looks at once; by itself within half a minute
	p.See("was removed from this device")
	p.See("No accounts yet")
	p.judge("wiped")
	if n := len(p.keys()); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// contextID is the window's own, in which its cookies and permissions are.
func (p *Page) contextID() cdp.BrowserContextID {
	p.t.Helper()
	var id cdp.BrowserContextID
	p.do("look at the window", chromedp.ActionFunc(func(ctx context.Context) error {
		info, err := target.GetTargetInfo().Do(ctx)
		if err == nil {
			id = info.BrowserContextID
		}
		return err
	}))
	return id
}

// knock gives the service worker what a push service would.
func (p *Page) knock(origin, data string) {
	p.t.Helper()
	found := make(chan serviceworker.RegistrationID, 8)
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	chromedp.ListenTarget(ctx, func(ev any) {
		if e, ok := ev.(*serviceworker.EventWorkerRegistrationUpdated); ok {
			for _, r := range e.Registrations {
				if !r.IsDeleted && strings.HasPrefix(r.ScopeURL, origin) {
					select {
					case found <- r.RegistrationID:
					default:
					}
				}
			}
		}
	})
	p.do("look for the service worker", serviceworker.Disable(), serviceworker.Enable())
	select {
	case id := <-found:
		p.do("knock", serviceworker.DeliverPushMessage(origin, id, data))
	case <-time.After(Patience):
		p.t.Fatal("there is no service worker")
	}
}
