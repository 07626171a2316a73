package api_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/server/api"
	"latchkey/internal/server/bulk"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/directory"
	_ "latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup"
	"latchkey/internal/server/factor/fido2"
	"latchkey/internal/server/factor/message"
	factorpush "latchkey/internal/server/factor/push"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

func newAPI(t *testing.T) (*desktest.Rig, http.Handler) {
	t.Helper()
	r, d := newDeps(t, clock.Real)
	return r, api.New(d)
}

// newDeps is what the API stands on, all of it real but the cost of a password's hash.
func newDeps(t *testing.T, c clock.Clock) (*desktest.Rig, api.Deps) {
	t.Helper()
	r := desktest.New(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t)}), c)
	directories, err := directory.All(directory.Deps{Clock: c})
	if err != nil {
		t.Fatal(err)
	}
	sessions := session.New(session.Config{
		Certificates: r.CA,
		Store:        r.Store, Keys: r.Keys, Directories: directories, Factors: factor.All(r.Keeper, fido2.New(passkey.New(passkey.Config{Random: rand.Reader, URL: func() string { return desktest.People }})), factorpush.New(r.Push), message.Mail(r.Post), message.SMS(r.Post)), Clock: c, Random: rand.Reader, Grain: -1, LongestLook: 200 * time.Millisecond,
	})
	imports := bulk.New(bulk.Config{Store: r.Store, Desk: r.Desk, Box: r.Keys.Box, Clock: c, Passwords: r.Passwords, Codes: r.Keeper})
	t.Cleanup(imports.Close)
	return r, api.Deps{Desk: r.Desk, Version: "test", Sessions: sessions, Bulk: imports}
}

// as makes a request; a nil actor is nobody.
func as(h http.Handler, a *desk.Actor, method, path, body string, header ...string) *http.Response {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if body == "" {
		req = httptest.NewRequest(method, path, nil)
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	// Only a stream is not done long before.
	ctx, cancel := context.WithTimeout(req.Context(), 10*time.Second)
	defer cancel()
	if strings.HasSuffix(req.URL.Path, "/stream") {
		ctx, cancel = context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
	}
	if a != nil {
		ctx = api.WithActor(ctx, *a)
	}
	req = req.WithContext(ctx)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Result()
}

func root() *desk.Actor { a := desk.Root(); return &a }

func read[T any](t *testing.T, res *http.Response) T {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v T
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%s: %v\n%s", res.Status, err, b)
	}
	return v
}

// TestAllFaultsAtOnce: what the door finds and what the desk finds has one form, and
// comes with the field as the caller wrote it.
func TestAllFaultsAtOnce(t *testing.T) {
	_, h := newAPI(t)
	for name, c := range map[string]struct {
		method, path, body string
		want               map[string]string
	}{
		"missing": {"POST", "/users", `{}`, map[string]string{"name": "it is missing"}},
		"unknown fields": {"POST", "/users", `{"name":"anna","pasword":"x","rôle":"y"}`, map[string]string{
			"pasword": "there is no such field", "rôle": "there is no such field",
		}},
		"wrong types": {"POST", "/users", `{"name":1,"must_change":"yes","groups":"staff","activate_at":"tomorrow"}`, map[string]string{
			"name": "it is not text", "must_change": "it is not true or false", "groups": "it is not a list", "activate_at": "it is no time such as 2026-12-01T08:00:00Z",
		}},
		"wrong values": {"POST", "/users", `{"name":"a b ","mfa":"x","role":"y"}`, map[string]string{
			"name": "the space at place 4 stands at an end", "mfa": `"x" is not allowed; allowed are inherit, on, off`, "role": `"y" is not allowed`,
		}},
		"parameters":         {"GET", "/events?limit=x&since=never", ``, map[string]string{"limit": "it is not a whole number", "since": "it is no time such as"}},
		"unknown parameters": {"GET", "/events?nonsense=1&more=2", ``, map[string]string{"nonsense": "there is no such parameter", "more": "there is no such parameter"}},
		"a policy": {"POST", "/policies", `{"name":"p","settings":{"window":"x","scopes":["moon"],"widow":1}}`, map[string]string{
			"settings.window": "is not a duration", "settings.scopes": `"moon" is not allowed`, "settings.widow": "did you mean window?",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			res := as(h, root(), c.method, rest.Base+c.path, c.body)
			p := read[rest.Problem](t, res)
			if res.StatusCode != 422 || p.Code != "invalid" {
				t.Errorf("%s %+v", res.Status, p)
			}
			got := map[string]string{}
			for _, f := range p.Fields {
				got[f.Name] = f.Fault
			}
			for field, fault := range c.want {
				if !strings.Contains(got[field], fault) {
					t.Errorf("%s: %q, want %q", field, got[field], fault)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("faults %v", got)
			}
		})
	}
}

func TestETags(t *testing.T) {
	_, h := newAPI(t)
	res := as(h, root(), "POST", rest.Base+"/users", `{"name":"anna"}`)
	if res.StatusCode != 201 || res.Header.Get("ETag") != `"1"` {
		t.Fatalf("%s, ETag %s", res.Status, res.Header.Get("ETag"))
	}
	u := read[rest.User](t, res)
	path := rest.Base + "/users/" + u.ID
	for _, c := range []struct {
		name, match string
		status      int
	}{
		{"the one that was seen", `"1"`, 200},
		{"the same again", `"1"`, 412},
		{"any", `*`, 200},
		{"none", ``, 200},
		{"a weak one", `W/"4"`, 422},
		{"no ETag at all", `4`, 422},
		{"with zeros", `"04"`, 422},
		{"of the future", `"99"`, 412},
	} {
		args := []string{}
		if c.match != "" {
			args = []string{"If-Match", c.match}
		}
		res := as(h, root(), "PATCH", path, `{"display_name":"`+c.name+`"}`, args...)
		if res.StatusCode != c.status {
			t.Errorf("%s: %s", c.name, res.Status)
		}
	}
	if res := as(h, root(), "GET", path, ""); res.Header.Get("ETag") != `"4"` {
		t.Errorf("ETag %s", res.Header.Get("ETag"))
	}
	if res := as(h, root(), "DELETE", path, "", "If-Match", `"1"`); res.StatusCode != 412 {
		t.Errorf("delete: %s", res.Status)
	}
	if res := as(h, root(), "DELETE", path, "", "If-Match", `"4"`); res.StatusCode != 204 {
		t.Errorf("delete: %s", res.Status)
	}
}

// TestDescription: what the description says of the answers is what comes, down to
// the names of fields (read refuses unknown ones), and no body has $schema.
func TestDescription(t *testing.T) {
	_, h := newAPI(t)
	raw, _ := io.ReadAll(as(h, nil, "GET", rest.Base+"/openapi.json", "").Body)
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("$schema")) {
		t.Error("the description speaks of $schema")
	}
	res := as(h, root(), "POST", rest.Base+"/users", `{"name":"anna","password":"correct horse battery"}`)
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 201 || bytes.Contains(body, []byte("$schema")) || bytes.Contains(body, []byte("horse")) || res.Header.Get("Link") != "" {
		t.Errorf("%s %s %v", res.Status, body, res.Header)
	}
	props := doc["components"].(map[string]any)["schemas"].(map[string]any)["User"].(map[string]any)["properties"].(map[string]any)
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil {
		t.Fatal(err)
	}
	for f := range fields {
		if props[f] == nil {
			t.Errorf("the field %s is not described", f)
		}
	}
	if res := as(h, root(), "GET", rest.Base+"/nothing", ""); res.StatusCode != 404 || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s", res.Status, res.Header.Get("Content-Type"))
	}
	if res := as(h, root(), "GET", "/", ""); res.StatusCode != 404 {
		t.Error(res.Status)
	}
}

// TestStream: events come as they are written, with signs of life, over HTTP/1.1 and
// HTTP/2, and the stream ends with its reader.
func TestStream(t *testing.T) {
	r, h := newAPI(t)
	withRoot := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		h.ServeHTTP(w, req.WithContext(api.WithActor(req.Context(), desk.Root())))
	})
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewUnstartedServer(withRoot)
			srv.EnableHTTP2 = h2
			srv.Config.WriteTimeout = 500 * time.Millisecond // the stream outlives the listener's own
			srv.StartTLS()
			defer srv.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", srv.URL+rest.Base+"/events/stream?type=group.", nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/jsonl" || (res.ProtoMajor == 2) != h2 {
				t.Fatalf("%s %s %s", res.Proto, res.Status, res.Header.Get("Content-Type"))
			}
			dec := json.NewDecoder(res.Body)
			for i, g := range []string{"one", "two"} {
				if i == 1 {
					time.Sleep(time.Second)
				}
				if _, err := r.AddGroup(ctx, desk.Root(), rest.NewGroup{Name: g + strings.ReplaceAll(name, "/", "-")}); err != nil {
					t.Fatal(err)
				}
				var e rest.Event
				if err := dec.Decode(&e); err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(e.Subject, g) || e.Type != "group.added" {
					t.Errorf("%+v", e)
				}
			}
		})
	}
	for _, bad := range []string{"tail=x", "tail=501", "since=1", "type=nope", "type=a&type=b"} {
		if res := as(h, root(), "GET", rest.Base+"/events/stream?"+bad, ""); res.StatusCode != 422 {
			t.Errorf("%s: %s", bad, res.Status)
		}
	}
}

// TestAStreamEndsAndGoesOn: it ends by itself, and who asks again with its place misses
// nothing that was written in between.
func TestAStreamEndsAndGoesOn(t *testing.T) {
	r, h := newAPI(t)
	defer api.StreamTime(300 * time.Millisecond)()
	follow := func(query string) (ids []string, begin, end string) {
		t.Helper()
		req := httptest.NewRequest("GET", rest.Base+"/events/stream?type=group."+query, nil)
		w := httptest.NewRecorder()
		begun := time.Now()
		h.ServeHTTP(w, req.WithContext(api.WithActor(req.Context(), desk.Root())))
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("it ended after %v", took)
		}
		res := w.Result()
		for dec := json.NewDecoder(res.Body); ; {
			var e rest.Event
			if err := dec.Decode(&e); err != nil {
				break
			}
			ids = append(ids, e.Subject)
		}
		if begin, end = res.Header.Get(api.PlaceHeader), res.Trailer.Get(api.PlaceHeader); begin == "" || end == "" || res.StatusCode != 200 {
			t.Fatal(res.Status, begin, end)
		}
		return ids, begin, end
	}
	add := func(names ...string) {
		t.Helper()
		for _, n := range names {
			if _, err := r.AddGroup(t.Context(), desk.Root(), rest.NewGroup{Name: n}); err != nil {
				t.Fatal(err)
			}
		}
	}
	add("one")
	got, _, end := follow("&tail=5")
	if strings.Join(got, " ") != "one" {
		t.Errorf("%q", got)
	}
	add("two", "three")
	got, begin, end := follow("&after=" + end)
	if strings.Join(got, " ") != "two three" {
		t.Errorf("%q", got)
	}
	add("four")
	if got, _, _ = follow("&after=" + end); strings.Join(got, " ") != "four" {
		t.Errorf("%q", got)
	}
	if got, _, _ = follow("&after=" + begin); strings.Join(got, " ") != "two three four" { // as if it had broken off
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"after=x", "after=e30&tail=3", "after=bnVsbA", "after=" + strings.Repeat("e", 5000), "after=eyJhIjotMX0"} {
		if res := as(h, root(), "GET", rest.Base+"/events/stream?"+bad, ""); res.StatusCode != 422 {
			t.Errorf("%s: %s", bad, res.Status)
		}
	}
}
