package entry_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/api"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup"
	_ "latchkey/internal/server/factor/bypass"
	"latchkey/internal/server/factor/fido2"
	factorpush "latchkey/internal/server/factor/push"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/session"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/wire"
)

var start = time.Date(2026, 11, 22, 9, 0, 7, 0, time.UTC)

// people is the address of the people's door, as browsers are told.
const people = "https://latchkey.test"

const password = "correct horse battery"

// rig is the people's door over TLS, and a machine's sign-in, over one real store.
type rig struct {
	*testing.T
	*desktest.Rig
	clock    *clock.Manual
	sessions *session.Sessions
	signin   *signin.Service
	machine  db.Machine
	server   *httptest.Server
	passkeys *passkey.Service
	setup    string // file of the setup code
}

// onBoth runs fn on both engines.
func onBoth(t *testing.T, fn func(r *rig)) {
	t.Helper()
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(start)
		fn(newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c, -1))
	})
}

func newRig(t *testing.T, s *store.Store, c *clock.Manual, grain time.Duration) *rig {
	t.Helper()
	r := &rig{T: t, Rig: desktest.New(t, s, c), clock: c, setup: filepath.Join(t.TempDir(), "setup-code")}
	dirs, err := directory.All(directory.Deps{Clock: c, Settings: map[string]any{
		directory.Local: local.Config{Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}},
	}})
	r.must(err)
	r.passkeys = passkey.New(passkey.Config{Random: rand.Reader, URL: func() string { return people }})
	factors := factor.All(r.Keeper, fido2.New(r.passkeys), factorpush.New(r.Push))
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	r.sessions = session.New(session.Config{
		Store: s, Keys: r.Keys, Directories: dirs, Factors: factors, Clock: c, Random: rand.Reader, Logger: log, Grain: grain, SetupFile: r.setup, Passkeys: r.passkeys,
		LongestLook: 200 * time.Millisecond,
	})
	r.Desk.Sessions = r.sessions
	r.signin = signin.New(signin.Deps{Store: s, Keys: r.Keys, Directories: dirs, Factors: factors, Clock: c, Grain: -1, Logger: log})
	r.machine = r.Machine(t, "desk-1", "active")
	once := sync.OnceValue(func() http.Handler {
		rest := api.New(api.Deps{Desk: r.Desk, Sessions: r.sessions, Version: "test", Logger: log})
		return api.Front(api.FrontDeps{API: rest, Sessions: r.sessions, Clock: c, Logger: log})
	})
	r.server = httptest.NewTLSServer(web.New(web.Deps{
		Deps:   ui.Deps{Desk: r.Desk, Sessions: r.sessions, Clock: c, Log: log, Version: "test"},
		Phones: phoneapi.New(phoneapi.Deps{Push: r.Push, Desk: r.Desk, Store: s, Clock: c, Log: log}),
		API: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			once().ServeHTTP(w, req)
		}),
	}))
	t.Cleanup(r.server.Close)
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// person is an account with an authenticator app.
type person struct {
	r    *rig
	name string
	id   string
	auth string
	seed secret.Bytes
}

func (r *rig) user(name string) (u db.User) {
	r.Helper()
	r.must(r.Store.Read(context.Background(), func(q *store.Queries) (err error) {
		u, err = q.GetUserByName(context.Background(), name)
		return err
	}))
	return u
}

// bare makes an account without a factor.
func (r *rig) bare(name, role string, change ...func(*rest.NewUser)) person {
	r.Helper()
	in := rest.NewUser{Name: name, Role: role, Password: rest.HideText(password)}
	for _, c := range change {
		c(&in)
	}
	_, err := r.AddUser(r.Context(), desk.Root(), in)
	r.must(err)
	return person{r: r, name: name, id: r.user(name).ID}
}

func (r *rig) person(name, role string, change ...func(*rest.NewUser)) person {
	r.Helper()
	p := r.bare(name, role, change...)
	return p.enrol()
}

// enrol gives the person an app.
func (p person) enrol() person {
	p.r.Helper()
	var err error
	p.seed, err = p.r.Keeper.NewSeed(otp.DefaultParams)
	p.r.must(err)
	p.r.must(p.r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) (err error) {
		p.auth, err = p.r.Keeper.AddTOTP(ctx, tx, p.id, factor.TOTP{Params: otp.DefaultParams, Seed: p.seed}, p.r.clock.Now())
		return err
	}))
	return p
}

func (p person) code() string {
	return otp.DefaultParams.Code(p.seed, otp.DefaultParams.Step(p.r.clock.Now()))
}

// fresh waits for the next code.
func (p person) fresh() string {
	p.r.clock.Advance(30 * time.Second)
	return p.code()
}

// wrong is a code that the app shows at none of the steps nearby.
func (p person) wrong() string {
	for n := 0; ; n++ {
		code := strings.Repeat(string(rune('0'+n%10)), 6)
		if _, ok := otp.DefaultParams.Matches(p.seed, code, p.r.clock.Now(), 0); !ok {
			return code
		}
	}
}

func (p person) backup() []string {
	p.r.Helper()
	var codes []string
	p.r.must(p.r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) (err error) {
		codes, err = p.r.Keeper.IssueBackup(ctx, tx, p.id, p.r.clock.Now())
		return err
	}))
	return codes
}

// browser keeps cookies and does not follow where it is sent.
type browser struct {
	r       *rig
	cookies map[string]*http.Cookie
	// site is what it says about where a request comes from.
	site string
}

func (r *rig) browser() *browser {
	return &browser{r: r, cookies: map[string]*http.Cookie{}, site: "same-origin"}
}

// answer is what came back.
type answer struct {
	r      *rig
	status int
	header http.Header
	set    []*http.Cookie
	to     string // Location
	body   string
}

func (b *browser) do(method, path string, form url.Values) answer {
	b.r.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, b.r.server.URL+path, body)
	b.r.must(err)
	req.Header.Set("Sec-Fetch-Site", b.site)
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range b.cookies {
		req.AddCookie(c)
	}
	client := *b.r.server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	res, err := client.Do(req)
	b.r.must(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	b.r.must(err)
	for _, c := range res.Cookies() {
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = &http.Cookie{Name: c.Name, Value: c.Value}
		}
	}
	return answer{b.r, res.StatusCode, res.Header, res.Cookies(), res.Header.Get("Location"), string(text)}
}

func (b *browser) get(path string) answer { return b.do(http.MethodGet, path, nil) }

// post sends a form; pairs are names and values.
func (b *browser) post(path string, pairs ...string) answer {
	b.r.Helper()
	b.r.clock.Advance(3 * time.Second) // people are not quick
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return b.do(http.MethodPost, path, form)
}

func (a answer) is(status int) answer {
	a.r.Helper()
	if a.status != status {
		a.r.Fatalf("status %d, want %d; to %q\n%s", a.status, status, a.to, a.text())
	}
	return a
}

func (a answer) goes(to string) answer {
	a.r.Helper()
	if a.status != http.StatusSeeOther || a.to != to {
		a.r.Fatalf("status %d to %q, want %q\n%s", a.status, a.to, to, a.text())
	}
	return a
}

func (a answer) has(s string) answer {
	a.r.Helper()
	if !strings.Contains(a.text(), s) {
		a.r.Errorf("%q is not in\n%s", s, a.text())
	}
	return a
}

func (a answer) lacks(s string) answer {
	a.r.Helper()
	if strings.Contains(a.body, s) {
		a.r.Errorf("%q is in\n%s", s, a.text())
	}
	return a
}

// text is the body from its main part on, without entities.
func (a answer) text() string {
	s := a.body
	if i := strings.Index(s, "<main"); i >= 0 {
		s = s[i:]
	}
	return strings.NewReplacer("&#39;", "'", "&amp;", "&", "&#34;", `"`).Replace(s)
}

// begins gives name and password, and must get as far as the second factor.
func (b *browser) begins(p person) *browser {
	b.r.Helper()
	b.post("/signin", "name", p.name, "password", password).goes("/signin")
	return b
}

// in signs in with password and app.
func (b *browser) in(p person) *browser {
	b.r.Helper()
	b.begins(p).post("/signin/code", "kind", "totp", "code", p.fresh()).goes("/")
	return b
}

// signedIn is a browser in which the person has signed in.
func (p person) signedIn() *browser {
	p.r.Helper()
	return p.r.browser().in(p)
}

// home is where the start page leads.
func (b *browser) home() string {
	b.r.Helper()
	return b.get("/").to
}

// machineSignin runs a sign-in at the rig's machine with password and code; it gives the
// outcome and the reason of what was decided.
func (r *rig) machineSignin(p person, pass, code string) (outcome policy.Outcome, reason string) {
	r.Helper()
	send := r.conversation()
	reply := send(wire.Step{Begin: &wire.Begin{
		Purpose: wire.PurposeSignin, User: p.name, Scope: policy.Remote, Service: "sshd", Mode: "full", Boot: "b", Password: wire.Secret{Bytes: secret.FromString(pass)},
	}})
	if reply.Done == nil && reply.Prompt != nil && reply.Prompt.For == wire.ForChoice {
		reply = send(wire.Step{Answer: &wire.Answer{Text: wire.Secret{Bytes: secret.FromString("1")}}})
	}
	if reply.Done == nil {
		reply = send(wire.Step{Answer: &wire.Answer{Text: wire.Secret{Bytes: secret.FromString(code)}}})
	}
	if reply.Done == nil {
		send(wire.Step{Cancel: true})
		return "again", ""
	}
	return reply.Done.Outcome, reply.Done.Reason
}

// conversation begins one at the rig's machine, and takes its steps.
func (r *rig) conversation() func(wire.Step) wire.StepReply {
	id, seq := store.NewID(), int64(0)
	return func(step wire.Step) wire.StepReply {
		r.Helper()
		seq++
		b, err := json.Marshal(step)
		r.must(err)
		reply, err := r.signin.Step(context.Background(), r.machine, netip.MustParseAddr("192.0.2.7"), id, seq, b)
		r.must(err)
		return reply
	}
}

// atMachine runs a whole conversation with these answers; nil if it asks for more.
func (r *rig) atMachine(b wire.Begin, answers ...string) *wire.Done {
	r.Helper()
	send := r.conversation()
	reply := send(wire.Step{Begin: &b})
	for _, a := range answers {
		if reply.Done == nil {
			reply = send(wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.FromString(a))}})
		}
	}
	return reply.Done
}

// events are those of a type about a user, the oldest first.
func (r *rig) events(typ event.Type, userID string) []event.Event {
	r.Helper()
	all, err := r.Store.EventsAfter(context.Background(), store.Position{}, 100_000)
	r.must(err)
	var out []event.Event
	for _, e := range all {
		if e.Type == string(typ) && (userID == "" || e.UserID == userID) {
			out = append(out, store.EventOf(e))
		}
	}
	return out
}

func (r *rig) update(fn func(ctx context.Context, tx *store.Tx) error) {
	r.Helper()
	r.must(r.Store.Update(context.Background(), fn))
}
