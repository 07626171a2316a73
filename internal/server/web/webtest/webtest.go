// Package webtest gives tests the people's door as it is: over TLS, with a real store,
// real keys, directory, sessions and factors, and browsers in which people have signed
// in with password and authenticator. Every page that a browser gets is looked at: one
// h1, labels for all fields, ids that are unique, nothing that the security policy
// forbids.
package webtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup" // kinds of factors that people may give
	_ "latchkey/internal/server/factor/bypass"
	"latchkey/internal/server/factor/message"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web"
	"latchkey/internal/server/web/ui"
)

// Start is the time at which a rig begins.
var Start = time.Date(2026, 11, 22, 9, 0, 7, 0, time.UTC)

// Password is everybody's.
const Password = "correct horse battery"

// Rig is the people's door over one store.
type Rig struct {
	*testing.T
	*desktest.Rig
	Manual   *clock.Manual
	Sessions *session.Sessions
	server   *httptest.Server
}

// OnBoth runs fn over an empty store of either engine.
func OnBoth(t *testing.T, fn func(r *Rig)) {
	t.Helper()
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(Start)
		fn(New(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c))
	})
}

// New makes a rig over the store.
func New(t *testing.T, s *store.Store, c *clock.Manual) *Rig {
	t.Helper()
	r := &Rig{T: t, Rig: desktest.New(t, s, c), Manual: c}
	dirs, err := directory.All(directory.Deps{Clock: c, Settings: map[string]any{
		directory.Local: local.Config{Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}},
	}})
	r.Must(err)
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	r.Sessions = session.New(session.Config{
		Store: s, Keys: r.Keys, Directories: dirs, Factors: factor.All(r.Keeper, message.Mail(r.Post), message.SMS(r.Post)), Clock: c, Random: rand.Reader, Logger: log, Grain: -1,
	})
	r.Desk.Sessions = r.Sessions
	imports := bulk.New(bulk.Config{Store: s, Desk: r.Desk, Box: r.Keys.Box, Clock: c, Passwords: r.Passwords, Codes: r.Keeper, Log: log})
	t.Cleanup(imports.Close)
	r.server = httptest.NewTLSServer(web.New(web.Deps{Deps: ui.Deps{Desk: r.Desk, Sessions: r.Sessions, Bulk: imports, Clock: c, Log: log, Version: "test"}}))
	t.Cleanup(r.server.Close)
	return r
}

// Must ends the test on an error.
func (r *Rig) Must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// Person is an account with an authenticator app.
type Person struct {
	r    *Rig
	Name string
	ID   string // without prefix
	Ref  string // with it
	seed secret.Bytes
}

// Bare makes an account without a factor.
func (r *Rig) Bare(name, role string) Person {
	r.Helper()
	u, err := r.AddUser(r.Context(), desk.Root(), rest.NewUser{Name: name, Role: role, Password: rest.HideText(Password)})
	r.Must(err)
	return Person{r: r, Name: name, ID: strings.TrimPrefix(u.ID, rest.UserPrefix), Ref: u.ID}
}

// Person makes an account with an app.
func (r *Rig) Person(name, role string) Person {
	r.Helper()
	p := r.Bare(name, role)
	var err error
	p.seed, err = r.Keeper.NewSeed(otp.DefaultParams)
	r.Must(err)
	r.Must(r.Store.Update(r.Context(), func(ctx context.Context, tx *store.Tx) error {
		_, err := r.Keeper.AddTOTP(ctx, tx, p.ID, factor.TOTP{Params: otp.DefaultParams, Seed: p.seed}, r.Manual.Now())
		return err
	}))
	return p
}

// User is the row of an account.
func (r *Rig) User(name string) (u db.User) {
	r.Helper()
	r.Must(r.Store.Read(r.Context(), func(q *store.Queries) (err error) {
		u, err = q.GetUserByName(r.Context(), name)
		return err
	}))
	return u
}

func (p Person) code() string {
	p.r.Manual.Advance(30 * time.Second)
	return otp.DefaultParams.Code(p.seed, otp.DefaultParams.Step(p.r.Manual.Now()))
}

// Browser keeps cookies and does not follow where it is sent.
type Browser struct {
	r       *Rig
	p       Person
	cookies map[string]*http.Cookie
}

// SignedIn is a browser in which the person has signed in, just now.
func (p Person) SignedIn() *Browser {
	p.r.Helper()
	b := &Browser{r: p.r, p: p, cookies: map[string]*http.Cookie{}}
	b.Post("/signin", "name", p.Name, "password", Password).Is(http.StatusSeeOther)
	b.Post("/signin/code", "kind", "totp", "code", p.code()).Goes("/")
	return b
}

// Nobody is a browser in which nobody has signed in.
func (r *Rig) Nobody() *Browser { return &Browser{r: r, cookies: map[string]*http.Cookie{}} }

// StepUp gives the second factor again.
func (b *Browser) StepUp() *Browser {
	b.r.Helper()
	b.Post("/stepup", "kind", "totp", "code", b.p.code()).Is(http.StatusSeeOther)
	return b
}

// Answer is what came back.
type Answer struct {
	r      *Rig
	Status int
	Header http.Header
	To     string // Location
	Body   string
}

// Do sends a request with a form, or none.
func (b *Browser) Do(method, path string, form url.Values) Answer {
	b.r.Helper()
	if form == nil {
		return b.Raw(method, path, "", nil)
	}
	return b.Raw(method, path, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()))
}

// Raw sends a request with a body of any type.
func (b *Browser) Raw(method, path, contentType string, body io.Reader) Answer {
	b.r.Helper()
	req, err := http.NewRequest(method, b.r.server.URL+path, body)
	b.r.Must(err)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for _, c := range b.cookies {
		req.AddCookie(c)
	}
	client := *b.r.server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	b.r.Must(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	b.r.Must(err)
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = &http.Cookie{Name: c.Name, Value: c.Value}
		}
	}
	a := Answer{b.r, res.StatusCode, res.Header, res.Header.Get("Location"), string(text)}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") && res.StatusCode != http.StatusSeeOther {
		for _, wrong := range Wrong(a.Body) {
			b.r.Errorf("%s %s: %s", method, path, wrong)
		}
	}
	return a
}

// Get asks for a page.
func (b *Browser) Get(path string) Answer {
	b.r.Helper()
	return b.Do(http.MethodGet, path, nil)
}

// Post sends a form; pairs are names and values.
func (b *Browser) Post(path string, pairs ...string) Answer {
	b.r.Helper()
	b.r.Manual.Advance(time.Second)
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return b.Do(http.MethodPost, path, form)
}

// Submit sends the form of the page at path whose action is that, as a browser does:
// with all its fields as they stand, changed by the pairs.
func (b *Browser) Submit(path, action string, pairs ...string) Answer {
	b.r.Helper()
	return b.Resubmit(b.Get(path).Is(http.StatusOK), action, pairs...)
}

// Resubmit is Submit of a page that is there.
func (b *Browser) Resubmit(a Answer, action string, pairs ...string) Answer {
	b.r.Helper()
	form, ok := Form(a.Body, action)
	if !ok {
		b.r.Fatalf("there is no form for %s in\n%s", action, a.Text())
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" && !form.Has(pairs[i]) {
			continue
		}
		form.Set(pairs[i], pairs[i+1])
	}
	b.r.Manual.Advance(time.Second)
	return b.Do(http.MethodPost, action, form)
}

// Is checks the status.
func (a Answer) Is(status int) Answer {
	a.r.Helper()
	if a.Status != status {
		a.r.Fatalf("status %d, want %d; to %q\n%s", a.Status, status, a.To, a.Text())
	}
	return a
}

// Goes checks where the browser is sent.
func (a Answer) Goes(to string) Answer {
	a.r.Helper()
	if a.Status != http.StatusSeeOther || a.To != to {
		a.r.Fatalf("status %d to %q, want %q\n%s", a.Status, a.To, to, a.Text())
	}
	return a
}

// Has checks that a text stands on the page.
func (a Answer) Has(s string) Answer {
	a.r.Helper()
	if !strings.Contains(html.UnescapeString(a.Body), s) {
		a.r.Errorf("%q is not in\n%s", s, a.Text())
	}
	return a
}

// Lacks checks that it does not.
func (a Answer) Lacks(s string) Answer {
	a.r.Helper()
	if strings.Contains(html.UnescapeString(a.Body), s) {
		a.r.Errorf("%q is in\n%s", s, a.Text())
	}
	return a
}

// FaultAt checks that the page says what is wrong at the field: its input is marked,
// and described by a fault that holds the text.
func (a Answer) FaultAt(field, text string) Answer {
	a.r.Helper()
	m := regexp.MustCompile(`(?s)<p class="fault" id="fault-` + regexp.QuoteMeta(field) + `">(.*?)</p>`).FindStringSubmatch(a.Body)
	if m == nil || !strings.Contains(strings.ToLower(html.UnescapeString(m[1])), strings.ToLower(text)) {
		a.r.Errorf("no fault %q at %s in\n%s", text, field, a.Text())
	}
	return a
}

// Text is the main part of the page without its marks, for messages.
func (a Answer) Text() string {
	s := a.Body
	if i := strings.Index(s, "<main"); i >= 0 {
		s = s[i:]
	}
	s = regexp.MustCompile(`(?s)<svg.*?</svg>|<[^>]*>`).ReplaceAllString(s, " ")
	return strings.Join(strings.Fields(html.UnescapeString(s)), " ")
}

var (
	attrRE   = regexp.MustCompile(`([a-zA-Z_-]+)(?:="([^"]*)")?`)
	tagRE    = regexp.MustCompile(`<(input|select|textarea|button|option)\b((?:[^>"]|"[^"]*")*)>`)
	formRE   = regexp.MustCompile(`(?s)<form\b((?:[^>"]|"[^"]*")*)>(.*?)</form>`)
	idRE     = regexp.MustCompile(`\sid="([^"]*)"`)
	forRE    = regexp.MustCompile(`<label[^>]*\sfor="([^"]*)"`)
	textRE   = regexp.MustCompile(`(?s)<textarea\b((?:[^>"]|"[^"]*")*)>(.*?)</textarea>`)
	selectRE = regexp.MustCompile(`(?s)<select\b((?:[^>"]|"[^"]*")*)>(.*?)</select>`)
)

func attrs(s string) map[string]string {
	out := map[string]string{}
	for _, m := range attrRE.FindAllStringSubmatch(s, -1) {
		out[m[1]] = html.UnescapeString(m[2])
	}
	return out
}

// Form reads what a browser would send of the form with the action.
func Form(page, action string) (url.Values, bool) {
	for _, m := range formRE.FindAllStringSubmatch(page, -1) {
		if attrs(m[1])["action"] != action {
			continue
		}
		out := url.Values{}
		for _, t := range tagRE.FindAllStringSubmatch(m[2], -1) {
			at := attrs(t[2])
			_, checked := at["checked"]
			switch {
			case t[1] != "input" || at["name"] == "":
			case at["type"] == "checkbox" || at["type"] == "radio":
				if checked {
					out.Add(at["name"], at["value"])
				}
			default:
				out.Add(at["name"], at["value"])
			}
		}
		for _, t := range textRE.FindAllStringSubmatch(m[2], -1) {
			out.Add(attrs(t[1])["name"], html.UnescapeString(t[2]))
		}
		for _, t := range selectRE.FindAllStringSubmatch(m[2], -1) {
			value, chosen := "", false
			for _, o := range tagRE.FindAllStringSubmatch(t[2], -1) {
				at := attrs(o[2])
				if _, ok := at["selected"]; ok || !chosen && value == "" {
					value, chosen = at["value"], ok
				}
			}
			out.Add(attrs(t[1])["name"], value)
		}
		return out, true
	}
	return nil, false
}

// Wrong tells what is wrong with a page's marks.
func Wrong(page string) (out []string) {
	if n := strings.Count(page, "<h1"); strings.Contains(page, "<html") && n != 1 {
		out = append(out, fmt.Sprintf("%d h1", n))
	}
	seen := map[string]bool{}
	for _, m := range idRE.FindAllStringSubmatch(page, -1) {
		if seen[m[1]] {
			out = append(out, fmt.Sprintf("the id %q stands twice", m[1]))
		}
		seen[m[1]] = true
	}
	labels := map[string]bool{}
	for _, m := range forRE.FindAllStringSubmatch(page, -1) {
		labels[m[1]] = true
	}
	for _, m := range tagRE.FindAllStringSubmatch(page, -1) {
		at := attrs(m[2])
		if m[1] == "option" || m[1] == "button" || at["type"] == "hidden" || at["aria-label"] != "" || at["aria-labelledby"] != "" {
			continue
		}
		if !labels[at["id"]] {
			out = append(out, fmt.Sprintf("the field %q has no label", at["name"]))
		}
	}
	for what, re := range map[string]*regexp.Regexp{
		"an inline style":  regexp.MustCompile(`<[^>]*\sstyle="|<style`),
		"an inline script": regexp.MustCompile(`<script(?:[^>"]|"[^"]*")*>[^<\s]|\son[a-z]+="|javascript:`),
		"a part of Go":     regexp.MustCompile(`%!|\(\*|<nil>|0x[0-9a-f]{6}`),
	} {
		if m := re.FindString(page); m != "" {
			out = append(out, fmt.Sprintf("%s: %q", what, m))
		}
	}
	return out
}
