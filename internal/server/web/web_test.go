package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/a-h/templ"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
)

// serve gives the routes a session without a database: who sits there is another
// package's business and tested there.
func serve(t *testing.T, who *session.Session, d Deps, routes ...ui.Route) http.Handler {
	t.Helper()
	d.Areas = [][]ui.Route{routes}
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	var log bytes.Buffer
	d.Log = slog.New(slog.NewTextHandler(&log, nil))
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	d.Who = func(*http.Request) (*session.Session, error) { return who, nil }
	return New(d)
}

func ask(h http.Handler, method, path string, body io.Reader, head ...string) *http.Response {
	r := httptest.NewRequest(method, "https://latchkey.test"+path, body)
	for i := 0; i+1 < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func hello(r *ui.Request) error {
	return r.Show(ui.Page{Title: "Hello <there>", Section: "users"}, ui.Text("body & soul"))
}

var (
	admin  = &session.Session{Name: "olivia", Display: "Olivia Owner", Role: "owner", Console: true, Portal: true, Fresh: time.Now()}
	person = &session.Session{Name: "anna", Role: "none", Portal: true}
)

func TestEveryAnswerForbidsWhatIsForeign(t *testing.T) {
	h := serve(t, admin, Deps{}, ui.Route{Pattern: "GET /console", Serve: hello}, ui.Route{Pattern: "POST /console/panic", Serve: func(*ui.Request) error { panic("no") }})
	for _, path := range []string{"/console", "/nowhere", ui.AssetPath("app.css"), ui.AssetPath("app.js"), "/"} {
		r := ask(h, "GET", path, nil)
		for name, want := range map[string]string{
			"Content-Security-Policy": Policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, not %q", path, name, got, want)
			}
		}
		if cache := r.Header.Get("Cache-Control"); strings.HasPrefix(path, ui.AssetBase) != strings.Contains(cache, "immutable") || !strings.HasPrefix(path, ui.AssetBase) && cache != "no-store" {
			t.Errorf("%s: Cache-Control is %q", path, cache)
		}
		if r.Header.Get("Strict-Transport-Security") == "" {
			t.Errorf("%s: nothing keeps the browser at HTTPS", path)
		}
	}
	if strings.Contains(Policy, "unsafe") || strings.Contains(Policy, "*") {
		t.Error("the policy is not strict")
	}
	r := ask(h, "POST", "/console/panic", nil)
	if text := body(t, r); r.StatusCode != 500 || strings.Contains(text, "goroutine") || !strings.Contains(text, "<h1>") || r.Header.Get("Content-Security-Policy") != Policy {
		t.Errorf("a page that panics is answered with %d: %s", r.StatusCode, text)
	}
}

func TestWhoMayOpenWhat(t *testing.T) {
	routes := []ui.Route{
		{Pattern: "GET /console/x", Serve: hello},
		{Pattern: "GET /me/x", Needs: ui.Person, Serve: hello},
		{Pattern: "GET /open", Needs: ui.Anyone, Serve: hello},
		{Pattern: "GET /console/odd", Needs: ui.Needs(7), Serve: hello},
	}
	for _, c := range []struct {
		name   string
		who    *session.Session
		path   string
		status int
		to     string
	}{
		{"nobody at the console is sent to sign in and comes back", nil, "/console/x?a=b", 303, "/signin?next=%2Fconsole%2Fx%3Fa%3Db"},
		{"nobody at a page that is none learns the same", nil, "/console/none", 303, "/signin?next=%2Fconsole%2Fnone"},
		{"nobody at the portal", nil, "/me/x", 303, "/signin?next=%2Fme%2Fx"},
		{"nobody at an open page", nil, "/open", 200, ""},
		{"a person at the console", person, "/console/x", 403, ""},
		{"a person at the portal", person, "/me/x", 200, ""},
		{"an administrator at the console", admin, "/console/x", 200, ""},
		{"a need that is not known is refused", admin, "/console/odd", 403, ""},
		{"an administrator at the start", admin, "/", 303, "/console"},
		{"a person at the start", person, "/", 303, "/me"},
		{"nobody at the start", nil, "/", 303, "/signin"},
		{"an administrator at a page that is none", admin, "/console/none", 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := ask(serve(t, c.who, Deps{}, routes...), "GET", c.path, nil)
			if r.StatusCode != c.status || r.Header.Get("Location") != c.to {
				t.Errorf("%d %s, not %d %s", r.StatusCode, r.Header.Get("Location"), c.status, c.to)
			}
		})
	}
	// A script that asks for a part is sent to sign in as a whole.
	r := ask(serve(t, nil, Deps{}, routes...), "GET", "/console/x", nil, "HX-Request", "true", "Referer", "https://latchkey.test/console/users")
	if r.StatusCode != 401 || r.Header.Get("HX-Redirect") != "/signin?next=%2Fconsole%2Fusers" {
		t.Errorf("%d, %q", r.StatusCode, r.Header.Get("HX-Redirect"))
	}
}

func TestAnActionOfAnotherSiteIsRefused(t *testing.T) {
	done := 0
	h := serve(t, admin, Deps{}, ui.Route{Pattern: "POST /console/do", Serve: func(r *ui.Request) error { done++; return r.Go("/console", "Done.") }})
	for _, c := range []struct {
		name string
		head []string
		want int
	}{
		{"from here, by a browser", []string{"Sec-Fetch-Site", "same-origin"}, 303},
		{"from here, by an old browser", []string{"Origin", "https://latchkey.test"}, 303},
		{"from another site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"from another host of this site", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"from another site, by an old browser", []string{"Origin", "https://evil.example"}, 403},
		{"from a page without a place", []string{"Origin", "null"}, 403},
	} {
		before := done
		r := ask(h, "POST", "/console/do", strings.NewReader("a=b"), append(c.head, "Content-Type", "application/x-www-form-urlencoded")...)
		if r.StatusCode != c.want || (done > before) != (c.want == 303) {
			t.Errorf("%s: %d, done: %v", c.name, r.StatusCode, done > before)
		}
	}
}

func TestWhatIsDangerousWantsAFreshFactor(t *testing.T) {
	stale := *admin
	stale.Fresh = time.Now().Add(-time.Hour)
	h := serve(t, &stale, Deps{},
		ui.Route{Pattern: "GET /console/secret", Fresh: true, Serve: hello}, ui.Route{Pattern: "POST /console/do", Fresh: true, Serve: hello})
	r := ask(h, "GET", "/console/secret?x=1", nil)
	if r.StatusCode != 303 || r.Header.Get("Location") != "/stepup?next=%2Fconsole%2Fsecret%3Fx%3D1" {
		t.Errorf("%d %s", r.StatusCode, r.Header.Get("Location"))
	}
	r = ask(h, "POST", "/console/do", nil, "Referer", "https://latchkey.test/console/users/anna")
	if r.Header.Get("Location") != "/stepup?next=%2Fconsole%2Fusers%2Fanna" {
		t.Errorf("an action comes back to %s", r.Header.Get("Location"))
	}
	r = ask(h, "POST", "/console/do", nil, "Referer", "https://evil.example/console/users/anna")
	if r.Header.Get("Location") != "/stepup?next=%2F" {
		t.Errorf("an action comes back to %s", r.Header.Get("Location"))
	}
	if r := ask(serve(t, admin, Deps{}, ui.Route{Pattern: "GET /console/secret", Fresh: true, Serve: hello}), "GET", "/console/secret", nil); r.StatusCode != 200 {
		t.Errorf("with a fresh factor: %d", r.StatusCode)
	}
}

func TestAPageIsWhole(t *testing.T) {
	for path, who := range map[string]*session.Session{"/console/x": admin, "/me/x": person, "/open": nil} {
		h := serve(t, who, Deps{}, ui.Route{Pattern: "GET " + path, Needs: ui.Anyone, Serve: hello})
		text := body(t, ask(h, "GET", path, nil))
		for _, want := range []string{"<!doctype html>", `<html lang="en">`, "<title>Hello &lt;there&gt; · Latchkey</title>", "<main ", `href="#main"`, "<h1>Hello &lt;there&gt;</h1>", "body &amp; soul", `name="viewport"`} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %s", path, want)
			}
		}
		if n := strings.Count(text, "<h1"); n != 1 {
			t.Errorf("%s has %d first headings", path, n)
		}
		for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(m[1], "/") || strings.HasPrefix(m[1], "//") {
				t.Errorf("%s asks for %s", path, m[1])
			}
		}
		if len(text) > 60<<10 {
			t.Errorf("the frame of %s has %d octets", path, len(text))
		}
	}
}

func TestANoticeIsShownOnceOnTheNextPage(t *testing.T) {
	h := serve(t, admin, Deps{},
		ui.Route{Pattern: "POST /console/do", Serve: func(r *ui.Request) error { return r.Go("/console", "Saved <b>.") }},
		ui.Route{Pattern: "POST /console/away", Serve: func(r *ui.Request) error { return r.Go("//evil.example/", "") }},
		ui.Route{Pattern: "GET /console", Serve: hello})
	r := ask(h, "POST", "/console/do", nil)
	c := r.Cookies()[0]
	if r.StatusCode != 303 || r.Header.Get("Location") != "/console" || !c.Secure || !c.HttpOnly || c.Path != "/" || !strings.HasPrefix(c.Name, "__Host-") {
		t.Fatalf("%d %v", r.StatusCode, c)
	}
	r = ask(h, "GET", "/console", nil, "Cookie", c.Name+"="+c.Value)
	if text := body(t, r); !strings.Contains(text, "Saved &lt;b&gt;.") || strings.Contains(text, "Saved <b>") {
		t.Error("the notice is not shown, or not escaped")
	}
	if gone := r.Cookies(); len(gone) != 1 || gone[0].MaxAge >= 0 {
		t.Errorf("the notice stays: %v", gone)
	}
	for _, junk := range []string{"x", "!!!", "bm90aWNl", strings.Repeat("A", 5000)} {
		if r := ask(h, "GET", "/console", nil, "Cookie", c.Name+"="+junk); r.StatusCode != 200 {
			t.Errorf("a notice %.10q makes %d", junk, r.StatusCode)
		}
	}
	if r := ask(h, "POST", "/console/do", nil, "HX-Request", "true"); r.Header.Get("HX-Redirect") != "/console" || r.StatusCode != 200 {
		t.Errorf("to a script: %d %q", r.StatusCode, r.Header.Get("HX-Redirect"))
	}
	if r := ask(h, "POST", "/console/away", nil); r.StatusCode != 500 || r.Header.Get("Location") != "" {
		t.Errorf("a redirect leaves the server: %d %s", r.StatusCode, r.Header.Get("Location"))
	}
}

func TestErrorsAreSentences(t *testing.T) {
	h := serve(t, admin, Deps{}, ui.Route{Pattern: "GET /console/{what}", Serve: func(r *ui.Request) error {
		switch r.PathValue("what") {
		case "cause":
			return errors.New("dial tcp 192.0.2.1: the secret cause")
		case "gone":
			return fault.Newf(fault.NotFound, "There is no user <anna>.")
		}
		return fault.New(fault.Forbidden, nil)
	}})
	for path, want := range map[string]int{"cause": 500, "gone": 404, "no": 403} {
		r := ask(h, "GET", "/console/"+path, nil)
		text := body(t, r)
		if r.StatusCode != want || strings.Contains(text, "secret cause") || !strings.Contains(text, "<h1>") {
			t.Errorf("%s: %d %s", path, r.StatusCode, text)
		}
		if path == "gone" && !strings.Contains(text, "There is no user &lt;anna&gt;.") {
			t.Error("the sentence is missing, or not escaped")
		}
		r = ask(h, "GET", "/console/"+path, nil, "HX-Request", "true")
		if text := body(t, r); strings.Contains(text, "<html") || r.Header.Get("HX-Retarget") != "#notices" || r.StatusCode != want {
			t.Errorf("%s to a script: %d %s", path, r.StatusCode, text)
		}
	}
}

func TestWhatIsSentIsBounded(t *testing.T) {
	read := func(r *ui.Request) error {
		v, err := r.Values()
		if err != nil {
			return err
		}
		return r.Go("/"+v.Get("to"), "")
	}
	h := serve(t, admin, Deps{}, ui.Route{Pattern: "POST /console/small", Serve: read}, ui.Route{Pattern: "POST /console/large", MaxBody: 1 << 20, Serve: read})
	form := func(n int) io.Reader { return strings.NewReader("to=me&x=" + strings.Repeat("y", n)) }
	for _, c := range []struct {
		path   string
		n      int
		status int
	}{{"small", 1000, 303}, {"small", 100 << 10, 400}, {"large", 100 << 10, 303}, {"large", 2 << 20, 400}} {
		if r := ask(h, "POST", "/console/"+c.path, form(c.n), "Content-Type", "application/x-www-form-urlencoded"); r.StatusCode != c.status {
			t.Errorf("%s with %d: %d, not %d", c.path, c.n, r.StatusCode, c.status)
		}
	}
	for _, bad := range []string{"a=%zz", "a;b=c"} {
		if r := ask(h, "POST", "/console/small", strings.NewReader(bad), "Content-Type", "application/x-www-form-urlencoded"); r.StatusCode != 400 {
			t.Errorf("%s: %d", bad, r.StatusCode)
		}
	}
}

func TestOneNetworkCanNotKeepTheServerBusy(t *testing.T) {
	h := serve(t, nil, Deps{Rate: rate.Rate{PerSecond: 0.001, Burst: 5}}, ui.Route{Pattern: "GET /open", Needs: ui.Anyone, Serve: hello})
	from := func(addr, path string) *http.Response {
		r := httptest.NewRequest("GET", "https://latchkey.test"+path, nil)
		r.RemoteAddr = addr
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	for range 5 {
		if r := from("[2001:db8::1]:1000", "/open"); r.StatusCode != 200 {
			t.Fatalf("within the allowance: %d", r.StatusCode)
		}
	}
	if r := from("[2001:db8::ffff]:1", "/open"); r.StatusCode != 429 || r.Header.Get("Retry-After") == "" {
		t.Errorf("behind it, from the same network: %d", r.StatusCode)
	}
	if r := from("[2001:db8:0:1::1]:1", "/open"); r.StatusCode != 200 {
		t.Errorf("from another network: %d", r.StatusCode)
	}
	if r := from("[2001:db8::1]:1000", ui.AssetPath("app.css")); r.StatusCode != 200 {
		t.Errorf("assets count: %d", r.StatusCode)
	}
}

func TestAStreamSaysWhatIsNewUntilItsTimeIsOver(t *testing.T) {
	h := serve(t, admin, Deps{},
		ui.Route{Pattern: "GET /console/stream", Slow: 5100 * time.Millisecond, Serve: func(r *ui.Request) error {
			return r.Stream(func(ctx context.Context, send func(string, templ.Component) error) error {
				if err := send("1\nid: 9", ui.Text("<a>\ndata: x")); err != nil {
					return err
				}
				<-ctx.Done()
				return send("2", ui.Text("late"))
			})
		}},
		ui.Route{Pattern: "GET /console/quick", Serve: func(r *ui.Request) error { return r.Stream(nil) }})
	s := httptest.NewServer(h)
	defer s.Close()
	r, err := http.Get(s.URL + "/console/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	got := body(t, r)
	want := "retry: 2000\n\nid: 1id: 9\ndata: &lt;a&gt;\ndata: data: x\n\n"
	if got != want || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") {
		t.Errorf("%q, not %q", got, want)
	}
	if r := ask(h, "GET", "/console/quick", nil); r.StatusCode != 500 {
		t.Errorf("a stream that is not slow: %d", r.StatusCode)
	}
}

func TestRedirectsStayInside(t *testing.T) {
	for path, want := range map[string]bool{
		"/": true, "/console?a=b": true, "": false, "console": false, "//evil.example": false, "/\\evil.example": false, "https://evil.example": false,
		"/a\r\nb": false, "/%2f/evil.example": true,
	} {
		if ui.Inside(path) != want {
			t.Errorf("%q: %v", path, !want)
		}
	}
}

func FuzzInside(f *testing.F) {
	for _, s := range []string{"/console", "//x", "/\\x", "/%5cx", "\t//x", "/\x00", "/a?b=//c"} {
		f.Add(s)
	}
	base, err := url.Parse("https://latchkey.test/console")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !ui.Inside(s) {
			return
		}
		u, err := base.Parse(s)
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme {
			t.Errorf("%q leads to %v, %v", s, u, err)
		}
	})
}

func TestEveryEntryOfTheMenusIsAPage(t *testing.T) {
	there := patterns(Areas())
	for _, l := range append(ui.Pages("owner"), ui.PortalPages()...) {
		if !slices.Contains(there, "GET "+l.Path) {
			t.Errorf("the menu leads to %s, which nobody serves", l.Path)
		}
	}
}

func TestNoTwoAreasServeOnePage(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range patterns(Areas()) {
		if seen[p] {
			t.Errorf("%s is served twice", p)
		}
		seen[p] = true
		if method, path, _ := strings.Cut(p, " "); method != "GET" && method != "POST" || !strings.HasPrefix(path, "/") {
			t.Errorf("%s: pages are asked for with GET and sent with POST", p)
		}
	}
	New(Deps{Deps: ui.Deps{Log: slog.New(slog.DiscardHandler), Clock: clock.Real}}) // would panic if two patterns met
}

// The API has one front, which is neither the pages' nor passed by: it also gives the
// description, though it speaks to nobody without TLS.
func TestTheAPIStandsBesideThePages(t *testing.T) {
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "TLS alone", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"path":"`+r.URL.Path+`"}`)
	})
	h := serve(t, admin, Deps{API: api}, ui.Route{Pattern: "GET /console", Serve: func(r *ui.Request) error {
		b, err := r.OpenAPI()
		if err != nil {
			return err
		}
		return r.Show(ui.Page{Title: "API", Section: "users"}, ui.Text(string(b)))
	}})
	for _, method := range []string{"GET", "POST"} {
		res := ask(h, method, "/api/v1/users", nil, "Sec-Fetch-Site", "cross-site")
		if got := body(t, res); res.StatusCode != 200 || got != `{"path":"/api/v1/users"}` || res.Header.Get("Content-Security-Policy") != "" {
			t.Errorf("%s: %d %s %v", method, res.StatusCode, got, res.Header)
		}
	}
	if got := body(t, ask(h, "GET", "/console", nil)); !strings.Contains(got, "openapi.json") {
		t.Errorf("no description: %.300s", got)
	}
}
