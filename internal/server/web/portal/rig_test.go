package portal_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"html"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/agentapi"
	"latchkey/internal/server/api"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup"
	_ "latchkey/internal/server/factor/bypass"
	factorpush "latchkey/internal/server/factor/push"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/session"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/wire"
)

const password = "correct horse battery"

// movable is the real clock with an offset of the test's own: machines' certificates
// and polls need a clock that runs.
type movable struct {
	clock.Clock
	off time.Duration
}

func (m *movable) Now() time.Time { return m.Clock.Now().Add(m.off) }

// rig is a server with both doors over real TLS: that of people and that of machines.
type rig struct {
	*testing.T
	*desktest.Rig
	clock  *movable
	people *httptest.Server
	agents *agentapi.API
	url    string // of the machines' door
}

func onBoth(t *testing.T, fn func(r *rig)) {
	t.Helper()
	storetest.Databases(t, func(t *testing.T, database string) {
		c := &movable{Clock: clock.Real}
		fn(newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c))
	})
}

func newRig(t *testing.T, s *store.Store, c *movable) *rig {
	t.Helper()
	r := &rig{T: t, Rig: desktest.New(t, s, c), clock: c}
	dirs, err := directory.All(directory.Deps{Clock: c, Settings: map[string]any{
		directory.Local: local.Config{Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}},
	}})
	r.must(err)
	factors := factor.All(r.Keeper, factorpush.New(r.Push))
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	sessions := session.New(session.Config{
		Store: s, Keys: r.Keys, Directories: dirs, Factors: factors, Clock: c, Random: rand.Reader, Logger: log, Grain: -1, PeopleURL: func() string { return desktest.People },
		LongestLook: 200 * time.Millisecond,
	})
	r.Desk.Sessions = sessions
	bare := api.New(api.Deps{Desk: r.Desk, Sessions: sessions, Version: "test", Logger: log})
	r.people = httptest.NewTLSServer(web.New(web.Deps{
		Deps:   ui.Deps{Desk: r.Desk, Sessions: sessions, Clock: c, Log: log, Version: "test"},
		Phones: phoneapi.New(phoneapi.Deps{Push: r.Push, Desk: r.Desk, Store: s, Clock: c, Log: log}),
		API:    api.Front(api.FrontDeps{API: bare, Sessions: sessions, Clock: c, Logger: log}),
	}))
	t.Cleanup(r.people.Close)

	r.agents = agentapi.New(agentapi.Config{
		Store: s, CA: r.CA, Enroll: r.Door, Clock: c, Log: log, Version: "1.2.3",
		Offline: offline.New(offline.Config{Store: s, Keys: r.Keys, Keeper: r.Keeper, Clock: c, Random: rand.Reader, Log: log}),
		Signin:  signin.New(signin.Deps{Store: s, Keys: r.Keys, Directories: dirs, Factors: factors, Clock: c, Grain: -1, Logger: log}),
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	r.must(err)
	r.url = "https://" + ln.Addr().String()
	srv := r.agents.Server()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(r.agents.Listen(ln, r.CA.ServerCertificate([]string{"127.0.0.1"})))
	}()
	t.Cleanup(func() {
		r.agents.Stop()
		_ = srv.Close()
		<-done
	})
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// user makes an account with a password and no factor.
func (r *rig) user(name, role string) string {
	r.Helper()
	u, err := r.AddUser(r.Context(), desk.Root(), rest.NewUser{Name: name, Role: role, Password: rest.HideText(password)})
	r.must(err)
	return strings.TrimPrefix(u.ID, rest.UserPrefix)
}

// enrolCode is what the help desk gives out.
func (r *rig) enrolCode(name string) string {
	r.Helper()
	c, err := r.IssueEnrolCode(r.Context(), desk.Root(), name, rest.NewEnrolCode{})
	r.must(err)
	return c.Code.Show()
}

// types are the types of the events about an account, the oldest first.
func (r *rig) types(name string) string {
	r.Helper()
	l, err := r.ListEvents(r.Context(), desk.Root(), desk.EventFilter{User: name}, "", 500)
	r.must(err)
	var out []string
	for _, e := range l.Items {
		out = append([]string{e.Type}, out...)
	}
	return strings.Join(out, " ")
}

// last is the youngest event of a type.
func (r *rig) last(typ event.Type) rest.Event {
	r.Helper()
	l, err := r.ListEvents(r.Context(), desk.Root(), desk.EventFilter{Types: []string{string(typ)}}, "", 1)
	r.must(err)
	if len(l.Items) == 0 {
		r.Fatalf("no event %s", typ)
	}
	return l.Items[0]
}

// ── an authenticator app ──

// app is what stands on a phone: it knows the typed key and the time.
type app struct {
	r    *rig
	seed secret.Bytes
}

func (r *rig) app(key string) *app {
	r.Helper()
	seed, err := otp.ParseSeed(key)
	r.must(err)
	return &app{r, seed}
}

// code is a code that was not used yet: it waits for the next half minute.
func (a *app) code() string {
	a.r.clock.off += 30 * time.Second
	return a.now()
}

func (a *app) now() string {
	p := otp.DefaultParams
	return p.Code(a.seed, p.Step(a.r.clock.Now()))
}

// wrong is a code that the app shows at none of the steps nearby.
func (a *app) wrong() string {
	for n := 0; ; n++ {
		code := strings.Repeat(strconv.Itoa(n%10), 6)
		if _, ok := otp.DefaultParams.Matches(a.seed, code, a.r.clock.Now(), 0); !ok {
			return code
		}
	}
}

// ── a browser ──

type browser struct {
	r       *rig
	cookies map[string]string
	here    string // the page it shows, for the referer
}

func (r *rig) browser() *browser { return &browser{r: r, cookies: map[string]string{}} }

type answer struct {
	r      *rig
	status int
	to     string
	body   string
}

func (b *browser) do(method, path string, form url.Values) answer {
	b.r.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequest(method, b.r.people.URL+path, body)
	b.r.must(err)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0")
	if b.here != "" {
		req.Header.Set("Referer", b.r.people.URL+b.here)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, value := range b.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	client := *b.r.people.Client()
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
			b.cookies[c.Name] = c.Value
		}
	}
	a := answer{b.r, res.StatusCode, res.Header.Get("Location"), string(text)}
	if method == http.MethodGet && a.status == 200 {
		b.here = path
		a.page(path)
	}
	return a
}

func (b *browser) get(path string) answer {
	b.r.Helper()
	return b.do(http.MethodGet, path, nil)
}

// post sends a form; pairs are names and values.
func (b *browser) post(path string, pairs ...string) answer {
	b.r.Helper()
	form := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return b.do(http.MethodPost, path, form)
}

var heading = regexp.MustCompile(`<h1[ >]`)

// page holds what is true of every page: one h1, nothing inline, one meaning of each id.
func (a answer) page(path string) {
	a.r.Helper()
	if n := len(heading.FindAllString(a.body, -1)); n != 1 {
		a.r.Errorf("%s has %d headings of the first rank", path, n)
	}
	for _, bad := range []string{" style=", "<style", " onclick=", "javascript:", "hx-on"} {
		if strings.Contains(a.body, bad) {
			a.r.Errorf("%s holds %q", path, bad)
		}
	}
	if strings.Contains(a.body, "<script>") {
		a.r.Errorf("%s holds a script", path)
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(a.body, -1) {
		if ids[m[1]] {
			a.r.Errorf("%s has two elements %q", path, m[1])
		}
		ids[m[1]] = true
	}
	// What a label, a hint or a fault belongs to is there.
	for _, m := range regexp.MustCompile(` (?:for|aria-describedby|aria-labelledby)="([^"]+)"`).FindAllStringSubmatch(a.body, -1) {
		for _, id := range strings.Fields(m[1]) {
			if !ids[id] {
				a.r.Errorf("%s speaks of %q, which is not there", path, id)
			}
		}
	}
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

func (a answer) has(texts ...string) answer {
	a.r.Helper()
	for _, s := range texts {
		if !strings.Contains(a.text(), s) {
			a.r.Errorf("%q is not in\n%s", s, a.text())
		}
	}
	return a
}

func (a answer) lacks(texts ...string) answer {
	a.r.Helper()
	for _, s := range texts {
		if strings.Contains(a.text(), s) {
			a.r.Errorf("%q is in\n%s", s, a.text())
		}
	}
	return a
}

// text is the body from its main part on, without entities.
func (a answer) text() string {
	s := a.body
	if i := strings.Index(s, "<main"); i >= 0 {
		s = s[i:]
	}
	return html.UnescapeString(s)
}

// find is what the first group of a pattern finds in the page.
func (a answer) find(pattern string) string {
	a.r.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(a.text())
	if m == nil {
		a.r.Fatalf("no %s in\n%s", pattern, a.text())
	}
	return m[1]
}

func (a answer) ticket() string { a.r.Helper(); return a.find(`name="ticket" value="([^"]+)"`) }

// key is the key that is typed, as the page shows it.
func (a answer) key() string { a.r.Helper(); return a.find(`<code>([A-Z2-7 ]{32,})</code>`) }

// codes are the backup codes on the page.
func (a answer) codes() []string {
	a.r.Helper()
	block := a.find(`(?s)<pre[^>]*><code>(.*?)</code>`)
	var out []string
	for _, line := range strings.Split(block, "\n") {
		if _, ok := otp.ParseBackup(line); ok && line != "" {
			out = append(out, line)
		}
	}
	return out
}

// begins gives name and password.
func (b *browser) begins(name string) *browser {
	b.r.Helper()
	b.post("/signin", "name", name, "password", password).goes("/signin")
	return b
}

// in signs in with password and app.
func (b *browser) in(name string, a *app) *browser {
	b.r.Helper()
	b.begins(name).post("/signin/code", "kind", "totp", "code", a.code()).goes("/")
	return b
}

// enrolled is somebody who has walked through the wizard: a browser with a fresh
// session, and the app.
func (r *rig) enrolled(name, role string) (*browser, *app) {
	r.Helper()
	r.user(name, rest.RoleNone)
	b := r.browser().begins(name)
	b.post("/signin/code", "kind", "enrol", "code", r.enrolCode(name))
	page := b.get("/me/enrol").is(200)
	a := r.app(page.key())
	b.post("/me/enrol", "ticket", page.ticket(), "code", a.now(), "name", "phone").goes("/me/enrol/codes")
	// Nobody gives an owner an enrolment code but another owner (E3): the role comes last.
	_, err := r.ChangeUser(r.Context(), desk.Root(), name, 0, rest.UserChange{Role: &role})
	r.must(err)
	return b, a
}

// ── a machine ──

// machine is a client of the machines' door.
type machine struct {
	r     *rig
	id    string
	key   *ecdsa.PrivateKey
	cert  []byte
	grant ed25519.PublicKey
	http  *http.Client
}

// joined is a machine in good standing, by a real token.
func (r *rig) joined(name string) *machine {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	m := &machine{r: r, key: key}
	m.connect()
	var issued enroll.Issued
	r.must(r.Store.Update(r.Context(), func(ctx context.Context, tx *store.Tx) (err error) {
		issued, err = r.Door.Issue(ctx, tx, enroll.Order{Name: name, ServerURL: r.url, Actor: "root@local"})
		return err
	}))
	token, err := wire.DecodeToken(issued.Text)
	r.must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	r.must(err)
	var reply wire.JoinReply
	m.call("POST", wire.PathJoin, wire.Join{
		Token: wire.Hide(token.Secret), CSR: csr,
		Facts: wire.MachineFacts{Hostname: name + ".example.org", OS: "linux Debian GNU/Linux 13", AgentVersion: "1.2.3", Boot: "boot-1", Class: "software"},
	}, &reply)
	m.id, m.cert, m.grant = reply.MachineID, reply.Certificate, reply.GrantKey
	m.connect()
	return m
}

func (m *machine) connect() {
	roots := x509.NewCertPool()
	authority, err := x509.ParseCertificate(m.r.CA.Certificate())
	m.r.must(err)
	roots.AddCert(authority)
	conf := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, Time: m.r.clock.Now}
	if m.cert != nil {
		c := tls.Certificate{Certificate: [][]byte{m.cert}, PrivateKey: m.key}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	m.http = &http.Client{Transport: tr, Timeout: 70 * time.Second}
	m.r.Cleanup(tr.CloseIdleConnections)
}

func (m *machine) call(method, path string, in, out any) {
	m.r.Helper()
	m.r.must(m.try(method, path, in, out))
}

type refused string

func (e refused) Error() string { return string(e) }

func (m *machine) try(method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, m.r.url+path, body)
	if err != nil {
		return err
	}
	req.Header.Set(wire.VersionHeader, strconv.Itoa(wire.Version))
	res, err := m.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		return refused(method + " " + path + ": " + res.Status + " " + string(raw))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

// signin walks a sign-in with password and code through the machines' door; it gives
// the conversation and how it ended.
func (m *machine) signin(name, pass, code string) (conversation string, done *wire.Done) {
	m.r.Helper()
	id, seq := store.NewID(), 0
	send := func(step wire.Step) wire.StepReply {
		m.r.Helper()
		seq++
		var reply wire.StepReply
		m.call("POST", strings.NewReplacer("{id}", id, "{seq}", strconv.Itoa(seq)).Replace(wire.PathStep), step, &reply)
		return reply
	}
	typed := func(s string) wire.Step {
		return wire.Step{Answer: &wire.Answer{Text: wire.Secret{Bytes: secret.FromString(s)}}}
	}
	reply := send(wire.Step{Begin: &wire.Begin{
		Purpose: wire.PurposeSignin, User: name, Scope: policy.Logon, Service: "login", Mode: "full", Boot: "boot-1", Password: wire.Secret{Bytes: secret.FromString(pass)},
	}})
	for range 3 {
		switch {
		case reply.Done != nil:
			return id, reply.Done
		case reply.Prompt.For == wire.ForChoice:
			reply = send(typed("1"))
		default:
			reply = send(typed(code))
		}
	}
	m.r.Fatalf("the sign-in does not end: %+v", reply)
	return "", nil
}

// prepares makes the offline data of the user, as an agent does behind a sign-in.
func (m *machine) prepares(userID, conversation string) wire.PrepareReply {
	m.r.Helper()
	var p wire.PrepareReply
	m.call("POST", wire.PathPrepare, wire.Prepare{Conversation: conversation, Class: "software", HavePassword: true}, &p)
	m.call("POST", wire.PathBundle, wire.BundleRequest{UserID: userID, Generation: p.Generation}, nil)
	m.call("POST", wire.PathReady, wire.Ready{Conversation: conversation, UserID: userID, Generation: p.Generation}, nil)
	return p
}
