package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/server/api"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// place is the API at the people's door, with somebody who has signed in.
type place struct {
	*desktest.Rig
	http.Handler
	inner    http.Handler
	sessions *session.Sessions
	peer     *x509.Certificate // that the program shows; nil: none
}

// open puts the API behind the people's door. The rates are no matter here.
func openPlace(t *testing.T) *place {
	t.Helper()
	r, deps := newDeps(t, clock.Real)
	wide := rate.Rate{PerSecond: 1e6, Burst: 1e6}
	inner := api.New(deps)
	return &place{r, api.Front(api.FrontDeps{
		API: inner, Sessions: deps.Sessions, Clock: r.Clock, Rates: api.Rates{Address: wide, Refused: wide, Holder: wide},
	}), inner, deps.Sessions, nil}
}

// somebody makes an account of the role with a session of the kind, whose second factor
// was given so long ago, and gives the session's secret.
func (p *place) somebody(t *testing.T, name, role, kind string, ago time.Duration) string {
	t.Helper()
	u, err := p.ShowUser(t.Context(), desk.Root(), name)
	if err != nil {
		if u, err = p.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: name, Role: role}); err != nil {
			t.Fatal(err)
		}
	}
	secret := "ls_" + base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("%-32.32s", store.NewID())))
	hash := sha256.Sum256([]byte(secret))
	now := p.Clock.Now()
	err = p.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertSession(ctx, db.InsertSessionParams{
			ID: store.NewID(), SecretHash: hash[:], UserID: strings.TrimPrefix(u.ID, rest.UserPrefix), Kind: kind, Factor: "totp",
			BeganAt: clock.Micros(now), SeenAt: clock.Micros(now), FreshAt: clock.Micros(now.Add(-ago)), EndsAt: clock.Micros(now.Add(time.Hour)),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// ask makes a request over TLS; header holds names and values.
func (p *place) ask(method, path, body string, header ...string) *http.Response {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req := httptest.NewRequest(method, "https://latchkey.test"+path, reader)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	req.TLS = &tls.ConnectionState{}
	if p.peer != nil {
		req.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{p.peer}}
	}
	limit := 20 * time.Second
	if strings.HasSuffix(req.URL.Path, "/stream") {
		limit = 50 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(req.Context(), limit)
	defer cancel()
	w := httptest.NewRecorder()
	p.ServeHTTP(w, req.WithContext(ctx))
	return w.Result()
}

// leak is what an answer never holds.
var leak = regexp.MustCompile(`goroutine \d|\.go:\d|panic|SQLSTATE|SQL logic|constraint failed|runtime error|reflect\.`)

// check holds an answer against the description: its status, its type, every field.
func (d *description) check(t *testing.T, what string, o *described, res *http.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	fail := func(format string, a ...any) {
		t.Helper()
		t.Errorf("%s: %s %s: %s\n%s", what, o.method, res.Status, fmt.Sprintf(format, a...), clip(b))
	}
	status := fmt.Sprint(res.StatusCode)
	said, ok := o.Responses[status]
	if !ok || said.Description == "" {
		fail("the status is not described")
		return b
	}
	if res.StatusCode >= 500 {
		fail("the server failed")
	}
	if m := leak.Find(b); m != nil && o.OperationID != "explain" {
		fail("it holds %q", m)
	}
	kind, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	switch {
	case len(b) == 0:
		if len(said.Content) > 0 && kind != "application/jsonl" {
			fail("there is no body")
		}
	case said.Content[kind].Schema == nil:
		fail("a body of the type %q is not described", kind)
	case kind == "application/jsonl":
		for line := range bytes.Lines(b) {
			var v any
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if err := json.Unmarshal(line, &v); err != nil {
				fail("%v", err)
				return b
			}
			for _, f := range d.faults(said.Content[kind].Schema, "line", v) {
				fail("%s", f)
			}
		}
	case kind == "application/json" || kind == "application/problem+json":
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			fail("%v", err)
			return b
		}
		for _, f := range d.faults(said.Content[kind].Schema, "body", v) {
			fail("%s", f)
		}
	}
	if res.StatusCode >= 300 {
		var p rest.Problem
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&p); err != nil || p.Status != res.StatusCode || p.Code == "" || p.Detail == "" || p.Title == "" || p.Type != "urn:latchkey:fault:"+string(p.Code) {
			fail("no problem as RFC 9457 has it: %v", err)
		}
		for _, f := range p.Fields {
			if f.Name == "" || f.Fault == "" {
				fail("a field without name or fault")
			}
		}
	}
	return b
}

// TestGoodInput: every operation of the description, called with good input, does what
// it is for and answers as it says, with every list holding something.
func TestGoodInput(t *testing.T) {
	d, ops := describe(t, func() http.Handler { _, h := newAPI(t); return h }())
	for id := range good {
		if !slices.ContainsFunc(ops, func(o *described) bool { return o.OperationID == id }) {
			t.Errorf("good has a line for %s, and there is no such operation", id)
		}
	}
	// What reads shares a place; what changes something, or needs a state of its own,
	// has one of its own.
	shared := openScene(t)
	for _, o := range ops {
		t.Run(o.OperationID, func(t *testing.T) {
			s := shared
			if o.method != "GET" || good[o.OperationID] != nil {
				s = openScene(t)
			}
			s.t = t
			for _, c := range s.calls(d, o) {
				res := s.do(o, c)
				b := d.check(t, "good input "+c.name, o, res)
				if res.StatusCode >= 300 {
					t.Errorf("%s %s %s: %s: give good input in good_test.go\n%s", o.OperationID, c.name, o.path, res.Status, clip(b))
				}
				var list struct{ Items *[]any }
				if json.Unmarshal(b, &list) == nil && list.Items != nil && len(*list.Items) == 0 {
					t.Errorf("%s: the list is empty: nothing of its fields is tested. Put something there in openScene", o.OperationID)
				}
				// And with every parameter that may be given, one at a time.
				path, _, _ := strings.Cut(c.path, "?")
				for _, q := range o.Parameters {
					if q.In == "query" && o.method == "GET" && o.OperationID != "follow-events" {
						for _, v := range []string{"1", "true", "anna", "2026-12-01T08:00:00Z"} {
							c.path = path + "?" + q.Name + "=" + v
							d.check(t, q.Name+"="+v, o, s.do(o, c))
						}
					}
				}
			}
		})
	}
}

// oddNames are names that nothing has, or can have.
var oddNames = []string{
	"nothing-there", "usr_01930000-0000-7000-8000-000000000000", "mch_", "%00", "%ff%fe", "a%2Fb", strings.Repeat("x", 3000), "..%2f..", "%23999",
	"%2399999999999999999999", "%F0%9F%98%80", "%E2%80%AEanna", "'%20OR%201=1", "%0a", "ses_01930000-0000-7000-8000-000000000000",
}

// oddValues are values of JSON that most fields do not take.
var oddValues = []string{
	`null`, `true`, `7`, `-1`, `1.5`, `9223372036854775808`, `-9223372036854775809`, `1e400`, `""`, `"\u0000"`, `"a\u0007b"`, `"\u202eanna"`, `"\ud800"`,
	`"` + strings.Repeat("y", 300) + `"`, `"` + strings.Repeat("y", 70000) + `"`, `[]`, `[null]`, `["a","a"]`, `{}`, `{"a":1}`, `"0000-01-01T00:00:00Z"`, `"9999-12-31T23:59:59.999999999Z"`,
}

// oddFiles are bodies of operations that take a file.
var oddFiles = []string{
	"", "\x00", "\xff\xfe", "\xef\xbb\xbf", "\n\n\n", "name\n\"open", "name\n" + strings.Repeat("x", 2<<20), strings.Repeat("a,", 5000) + "\n", "name,name\na,b\n", "name\na,b,c\n",
	"surprise\n1\n", "name\n=cmd|' /C calc'!A0\n", "name\r\ra\r", "name\n\xff\n", "<html>", `{"name":"a"}`, "PK\x03\x04",
}

// TestBadInput: every operation with what is missing, of the wrong type, too long, no
// text, no number, unknown, broken, about what is there and what is not: no answer is a
// failure of the server, and each is described.
func TestBadInput(t *testing.T) {
	shared := openScene(t)
	d, ops := describe(t, shared.inner)
	if len(ops) < 60 {
		t.Fatalf("%d operations", len(ops))
	}
	asked := 0
	for _, o := range ops {
		t.Run(o.OperationID, func(t *testing.T) {
			p := shared
			if o.method != "GET" {
				p = openScene(t) // it may change something
			}
			who, role := "owner", rest.RoleOwner
			if api.Rights[o.OperationID] == "self" {
				who, role = "anna", rest.RoleNone
			}
			// A session of its own: an operation may end it.
			owner := p.somebody(t, who, role, session.CLI, 0)
			ask := func(what, method, path, body string, header ...string) *http.Response {
				t.Helper()
				asked++
				res := p.ask(method, path, body, append([]string{"Authorization", "Bearer " + owner}, header...)...)
				b := d.check(t, what, o, res)
				if res.StatusCode == http.StatusUnauthorized && api.Rights[o.OperationID] != api.Public { // its password or session was changed by it
					owner = p.somebody(t, who, role, session.CLI, 0)
				}
				res.Body = io.NopCloser(bytes.NewReader(b))
				return res
			}
			path := o.fill(func(string) string { return "nothing-there" })
			good := d.body(o, false)
			if o.OperationID == "follow-events" {
				for _, bad := range []string{"tail=x", "tail=501", "type=nope", "type=a&type=b", "surprise=1", "user=%00", "machine=%ff"} {
					if res := ask(bad, o.method, path+"?"+bad, ""); res.StatusCode < 400 {
						t.Errorf("%s: %s", bad, res.Status)
					}
				}
				return
			}
			if api.Rights[o.OperationID] != api.Public {
				if res := p.ask(o.method, path, good); res.StatusCode != http.StatusUnauthorized || res.Header.Get("WWW-Authenticate") == "" {
					t.Errorf("nobody: %s", res.Status)
				}
			}
			if strings.Contains(o.path, "{") {
				for _, odd := range oddNames {
					if res := ask("the name "+odd[:min(20, len(odd))], o.method, o.fill(func(string) string { return odd }), good); res.StatusCode < 400 && !listsNothing(o) {
						t.Errorf("%s of %s: %s", o.OperationID, odd, res.Status)
					}
				}
			}
			for _, q := range o.Parameters {
				if q.In != "query" {
					continue
				}
				for _, v := range []string{"", "%00", "%ff", "x%07y", strings.Repeat("9", 400), "-1", "x,y,,", "9223372036854775808", "true", "2026-13-01", "null"} {
					ask(q.Name+"="+v, o.method, path+"?"+q.Name+"="+v, good)
				}
				ask(q.Name+" twice", o.method, path+"?"+q.Name+"=1&"+q.Name+"=2", good)
			}
			if res := ask("an unknown parameter", o.method, path+"?surprise=1", good); res.StatusCode < 400 && o.OperationID != "show-import-template" {
				t.Errorf("an unknown parameter: %s", res.Status)
			}
			for _, match := range []string{`"`, `4`, `W/"1"`, `"04"`, `"99999999999999999999"`, "\"1\", \"2\"", strings.Repeat("x", 5000)} {
				ask("If-Match "+match[:min(20, len(match))], o.method, path, good, "If-Match", match)
			}
			if o.method == "POST" {
				for _, key := range []string{"", " ", "a b", "ä", strings.Repeat("k", 129), "\x7f"} {
					if res := ask("a bad key", o.method, path, good, api.KeyHeader, key); res.StatusCode < 400 {
						t.Errorf("the key %q: %s", key, res.Status)
					}
				}
			}
			ask("an approval", o.method, path, good, api.ApprovalHeader, "apr_nothing")
			paths := []string{path}
			if strings.Contains(o.path, "{") {
				paths = append(paths, o.fill(p.named(o)))
			}
			for _, path := range paths {
				if o.RequestBody != nil && o.takes() == nil {
					for _, file := range oddFiles {
						for _, kind := range []string{"text/csv", "application/json", "multipart/form-data; boundary=x", "text/csv; charset=utf-16", "nonsense;;"} {
							res := ask("the file "+file[:min(20, len(file))]+" as "+kind, o.method, path, file, "Content-Type", kind)
							if res.StatusCode < 400 && !strings.HasPrefix(kind, "text/csv") {
								t.Errorf("a file as %s: %s", kind, res.Status)
							}
						}
					}
				}
				if o.takes() != nil {
					badBodies(t, d, o, path, ask)
				}
			}
		})
	}
	t.Logf("%d requests to %d operations", asked, len(ops))
}

// badBodies sends bodies that are broken, and each field with values that are odd.
func badBodies(t *testing.T, d *description, o *described, path string, ask func(what, method, path, body string, header ...string) *http.Response) {
	t.Helper()
	good := d.body(o, false)
	for name, b := range map[string]string{
		"no body": "", "a list": `[]`, "a number": `7`, "null": `null`, "broken": `{"name":`, "two documents": `{} {}`, "no UTF-8": "{\"name\":\"\xff\"}",
		"deep": strings.Repeat("[", 20000), "deep objects": strings.Repeat(`{"a":`, 20000), "an unknown field": strings.TrimSuffix(good, "}") + `,"surprise":1}`,
		"a field twice": `{"name":"a","name":"b"}`, "too large": `{"name":"` + strings.Repeat("x", 6<<20) + `"}`,
	} {
		if name == "an unknown field" && good == "{}" {
			b = `{"surprise":1}`
		}
		if res := ask(name, o.method, path, b); res.StatusCode < 400 && name != "a field twice" && name != "too large" && name != "no body" {
			t.Errorf("%s was taken: %s", name, res.Status)
		}
	}
	for _, kind := range []string{"text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1", "nonsense;;"} {
		if res := ask(kind, o.method, path, "{}", "Content-Type", kind); res.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %s", kind, res.Status)
		}
	}
	whole, _ := d.example(o.takes(), true).(map[string]any)
	for field := range whole {
		for _, v := range oddValues {
			body := map[string]json.RawMessage{}
			for k, x := range whole {
				if k == field || slices.Contains(d.follow(o.takes()).Required, k) {
					b, _ := json.Marshal(x)
					body[k] = b
				}
			}
			body[field] = json.RawMessage(v)
			ask(field+": "+v[:min(30, len(v))], o.method, path, objectOf(body))
		}
		missing := map[string]any{}
		for k, x := range whole {
			if k != field && slices.Contains(d.follow(o.takes()).Required, k) {
				missing[k] = x
			}
		}
		b, _ := json.Marshal(missing)
		res := ask(field+" missing", o.method, path, string(b))
		if slices.Contains(d.follow(o.takes()).Required, field) && res.StatusCode < 400 {
			t.Errorf("without %s: %s", field, res.Status)
		}
	}
}

// listsNothing are the operations that answer with an empty list for what is not there.
func listsNothing(o *described) bool { return false }

// objectOf writes an object as it stands, also with numbers that encoding/json refuses.
func objectOf(m map[string]json.RawMessage) string {
	var b strings.Builder
	b.WriteByte('{')
	for k, v := range m {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%q:%s", k, v)
	}
	b.WriteByte('}')
	return b.String()
}

// TestEveryStatusIsDescribed: each has a sentence, and each body a schema.
func TestEveryStatusIsDescribed(t *testing.T) {
	_, h := newAPI(t)
	_, ops := describe(t, h)
	for _, o := range ops {
		if o.OperationID == "" || o.Summary == "" {
			t.Errorf("%s %s has no id or no summary", o.method, o.path)
		}
		if len(o.Security) == 0 {
			t.Errorf("%s does not say who may", o.OperationID)
		}
		for status, r := range o.Responses {
			if r.Description == "" || status == "default" {
				t.Errorf("%s %s is not described", o.OperationID, status)
			}
			for kind, c := range r.Content {
				if c.Schema == nil {
					t.Errorf("%s %s %s has no schema", o.OperationID, status, kind)
				}
			}
		}
	}
}
