package api_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/server/api"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/web/ui"
)

func auth(secret string) []string { return []string{"Authorization", "Bearer " + secret} }

func status(t *testing.T, res *http.Response, want int, code string) {
	t.Helper()
	b, _ := io.ReadAll(res.Body)
	res.Body = io.NopCloser(strings.NewReader(string(b)))
	var p rest.Problem
	_ = json.Unmarshal(b, &p)
	if res.StatusCode != want || code != "" && string(p.Code) != code {
		t.Errorf("%s %s, want %d %s: %s", res.Status, p.Code, want, code, clip(b))
	}
}

// TestWhoAsks: what a request proves, and what it does not.
func TestWhoAsks(t *testing.T) {
	p := openPlace(t)
	program := p.somebody(t, "owner", rest.RoleOwner, session.CLI, 0)
	browser := p.somebody(t, "owner", rest.RoleOwner, session.Browser, 0)
	const list = rest.Base + "/groups"
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"nobody":                              {nil, 401},
		"a session of a program":              {auth(program), 200},
		"the scheme in capitals":              {[]string{"Authorization", "BEARER " + program}, 200},
		"another scheme":                      {[]string{"Authorization", "Basic " + program}, 401},
		"no scheme":                           {[]string{"Authorization", program}, 401},
		"nothing behind the scheme":           {[]string{"Authorization", "Bearer "}, 401},
		"a browser's secret as a bearer":      {auth(browser), 401},
		"a program's secret as a cookie":      {[]string{"Cookie", session.Cookie + "=" + program}, 401},
		"a browser's cookie":                  {[]string{"Cookie", session.Cookie + "=" + browser}, 200},
		"two cookies of one name":             {[]string{"Cookie", session.Cookie + "=" + browser + "; " + session.Cookie + "=" + browser}, 401},
		"a cookie without its prefix":         {[]string{"Cookie", "latchkey=" + browser}, 401},
		"a secret that is none":               {auth("ls_" + strings.Repeat("A", 43)), 401},
		"a token that is none":                {auth("lk_" + strings.Repeat("A", 43)), 401},
		"a bad bearer beside a good cookie":   {[]string{"Authorization", "Bearer lk_x", "Cookie", session.Cookie + "=" + browser}, 401},
		"a very long secret":                  {auth("lk_" + strings.Repeat("A", 9000)), 401},
		"who it is, in a header of a proxy's": {[]string{"X-Forwarded-User", "owner", "X-Remote-User", "owner"}, 401},
	} {
		t.Run(name, func(t *testing.T) {
			res := p.ask("GET", list, "", c.header...)
			status(t, res, c.status, "")
			for _, h := range []string{"Strict-Transport-Security", "X-Content-Type-Options", "Content-Security-Policy", "Cache-Control"} {
				if res.Header.Get(h) == "" {
					t.Errorf("no header %s", h)
				}
			}
		})
	}
	// Another site has the browser send its cookie.
	cookie := []string{"Cookie", session.Cookie + "=" + browser}
	for name, c := range map[string]struct {
		header []string
		status int
	}{
		"from this site":                {[]string{"Sec-Fetch-Site", "same-origin"}, 201},
		"an old browser, this origin":   {[]string{"Origin", "https://latchkey.test"}, 201},
		"from another site":             {[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		"from a sister of this host":    {[]string{"Sec-Fetch-Site", "same-site"}, 403},
		"typed into the address bar":    {[]string{"Sec-Fetch-Site", "none"}, 403},
		"another origin":                {[]string{"Origin", "https://evil.test"}, 403},
		"this origin without TLS":       {[]string{"Origin", "http://latchkey.test"}, 403},
		"no origin":                     {[]string{"Origin", "null"}, 403},
		"nothing said":                  {nil, 403},
		"said to be both, and is not":   {[]string{"Sec-Fetch-Site", "cross-site", "Origin", "https://latchkey.test"}, 403},
		"a form of another site's type": {[]string{"Sec-Fetch-Site", "same-origin", "Content-Type", "text/plain"}, 415},
	} {
		t.Run(name, func(t *testing.T) {
			body := fmt.Sprintf(`{"name":%q}`, "g "+strings.ReplaceAll(name, ",", ""))
			status(t, p.ask("POST", list, body, append(cookie, c.header...)...), c.status, "")
		})
	}
	// Without TLS there is nothing.
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest("GET", "http://latchkey.test"+list, nil))
	status(t, w.Result(), 403, "forbidden")
}

// TestBounds: one network, one guesser and one token have bounds, and are told how
// long to wait.
func TestBounds(t *testing.T) {
	p := openPlace(t)
	owner := p.somebody(t, "owner", rest.RoleOwner, session.CLI, 0)
	for name, c := range map[string]struct {
		rates  api.Rates
		header []string
		first  int
	}{
		"a network":  {api.Rates{Address: rate.Rate{PerSecond: 0.01, Burst: 3}}, nil, 401},
		"a guesser":  {api.Rates{Refused: rate.Rate{PerSecond: 0.01, Burst: 3}}, auth("lk_" + strings.Repeat("A", 43)), 401},
		"one holder": {api.Rates{Holder: rate.Rate{PerSecond: 0.01, Burst: 3}}, auth(owner), 200},
	} {
		t.Run(name, func(t *testing.T) {
			q := *p
			q.Handler = api.Front(api.FrontDeps{API: p.inner, Sessions: p.sessions, Clock: p.Clock, Rates: c.rates})
			for i := range 4 {
				res := q.ask("GET", rest.Base+"/session", "", c.header...)
				if i < 3 {
					status(t, res, c.first, "")
					continue
				}
				status(t, res, 429, "too-many")
				if res.Header.Get("Retry-After") == "" {
					t.Error("it is not told how long to wait")
				}
			}
			// Who guesses does not shut out who has the right secret.
			if name == "a guesser" {
				status(t, q.ask("GET", rest.Base+"/session", "", auth(owner)...), 200, "")
			}
		})
	}
}

// TestFreshProof: what is dangerous asks a person for the second factor again, and a
// program's token for nothing that it could not give.
func TestFreshProof(t *testing.T) {
	p := openPlace(t)
	if _, err := p.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: "anna"}); err != nil {
		t.Fatal(err)
	}
	// Nobody gives an owner a factor alone (E3): she has it before she becomes one.
	if _, err := p.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: "olga"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.AddTOTP(t.Context(), desk.Root(), "olga", rest.NewTOTP{}); err != nil {
		t.Fatal(err)
	}
	owner := rest.RoleOwner
	if _, err := p.ChangeUser(t.Context(), desk.Root(), "olga", 0, rest.UserChange{Role: &owner}); err != nil {
		t.Fatal(err)
	}
	old := p.somebody(t, "olga", rest.RoleOwner, session.CLI, time.Hour)
	now := p.somebody(t, "olga", rest.RoleOwner, session.CLI, 0)
	path := rest.Base + "/users/anna/enrolment-codes"
	status(t, p.ask("POST", path, "{}", auth(old)...), 403, "step-up")
	status(t, p.ask("GET", rest.Base+"/users/anna", "", auth(old)...), 200, "")
	status(t, p.ask("POST", path, "{}", auth(now)...), 201, "")
	for _, c := range [][3]string{
		{"PATCH", "/users/anna", `{"mfa":"off"}`},
		{"POST", "/users", `{"name":"eve"}`},
		{"PATCH", "/groups/staff", `{"mfa":"off"}`},
		{"PUT", "/groups/staff/members/anna", ""},
		{"POST", "/machine-tokens", "{}"},
		{"POST", "/policies", `{"name":"lax"}`},
		{"PATCH", "/policies/default", "{}"},
		{"DELETE", "/policies/default", ""},
		{"PATCH", "/machines/laptop", "{}"},
		{"POST", "/offline/lift", "{}"},
	} {
		status(t, p.ask(c[0], rest.Base+c[1], c[2], auth(old)...), 403, "step-up")
	}
	status(t, p.ask("PATCH", rest.Base+"/users/anna", `{"display_name":"Anna"}`, auth(now)...), 200, "")
	status(t, p.ask("POST", rest.Base+"/session/proof", `{"code":"000000"}`, auth(old)...), 422, "invalid")
}

// TestTokens: a token does what its scopes and its maker's present role allow, and ends.
func TestTokens(t *testing.T) {
	p := openPlace(t)
	admin := p.somebody(t, "adam", rest.RoleAdministrator, session.CLI, 0)
	make := func(body string) rest.APIToken {
		t.Helper()
		res := p.ask("POST", rest.Base+"/tokens", body, auth(admin)...)
		status(t, res, 201, "")
		return read[rest.APIToken](t, res)
	}
	all := make(`{"name":"all","scopes":["read","helpdesk","change"]}`)
	reads := make(`{"name":"reads","scopes":["read"]}`)
	log := make(`{"name":"log","scopes":["events"],"valid_for":"24h"}`)
	group := func(name string, token rest.APIToken) *http.Response {
		return p.ask("POST", rest.Base+"/groups", `{"name":"`+name+`"}`, auth(token.Token.Show())...)
	}
	status(t, group("one", all), 201, "")
	status(t, group("two", reads), 403, "forbidden")
	status(t, p.ask("GET", rest.Base+"/groups", "", auth(reads.Token.Show())...), 200, "")
	status(t, p.ask("GET", rest.Base+"/events", "", auth(log.Token.Show())...), 200, "")
	status(t, p.ask("GET", rest.Base+"/groups", "", auth(log.Token.Show())...), 403, "forbidden")
	// A scope beyond the maker's role, none, one that is not known, one that would be for ever.
	for _, bad := range []string{`{"name":"x","scopes":["own"]}`, `{"name":"x","scopes":[]}`, `{"name":"x","scopes":["all"]}`, `{"name":"x","scopes":["read"],"valid_for":"9000h"}`, `{"name":"x","scopes":["read"],"role":"owner"}`, `{"name":"all","scopes":["read"]}`} {
		if res := p.ask("POST", rest.Base+"/tokens", bad, auth(admin)...); res.StatusCode != 422 && res.StatusCode != 409 && res.StatusCode != 403 {
			t.Errorf("%s: %s", bad, res.Status)
		}
	}
	// No token makes another, or approves.
	status(t, p.ask("POST", rest.Base+"/tokens", `{"name":"child","scopes":["read"]}`, auth(all.Token.Show())...), 403, "forbidden")
	status(t, p.ask("PATCH", rest.Base+"/groups/one", `{"mfa":"on"}`, append(auth(all.Token.Show()), api.ApprovalHeader, "apr_x")...), 403, "forbidden")
	// The list shows no secret.
	res := p.ask("GET", rest.Base+"/tokens", "", auth(admin)...)
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 || strings.Contains(string(b), "lk_") || !strings.Contains(string(b), `"name":"reads"`) {
		t.Errorf("%s %s", res.Status, clip(b))
	}
	// The maker is demoted: so is the token, at once.
	role := rest.RoleAuditor
	if _, err := p.ChangeUser(t.Context(), desk.Root(), "adam", 0, rest.UserChange{Role: &role}); err != nil {
		t.Fatal(err)
	}
	status(t, group("three", all), 403, "forbidden")
	status(t, p.ask("GET", rest.Base+"/groups", "", auth(all.Token.Show())...), 200, "")
	status(t, p.ask("DELETE", rest.Base+"/tokens/"+reads.ID, "", auth(admin)...), 204, "")
	status(t, p.ask("GET", rest.Base+"/groups", "", auth(reads.Token.Show())...), 401, "unauthorized")
	// And is disabled.
	off := true
	if _, err := p.ChangeUser(t.Context(), desk.Root(), "adam", 0, rest.UserChange{Disabled: &off}); err != nil {
		t.Fatal(err)
	}
	status(t, p.ask("GET", rest.Base+"/groups", "", auth(all.Token.Show())...), 401, "unauthorized")
	status(t, p.ask("GET", rest.Base+"/groups", "", auth(admin)...), 401, "unauthorized")
}

// TestApproval: what one owner alone may not do is done with another's approval, once.
func TestApproval(t *testing.T) {
	p := openPlace(t)
	one, two := p.somebody(t, "one", rest.RoleOwner, session.CLI, 0), p.somebody(t, "two", rest.RoleOwner, session.CLI, 0)
	p.somebody(t, "three", rest.RoleOwner, session.CLI, 0)
	path := rest.Base + "/users/three/enrolment-codes"
	status(t, p.ask("POST", path, "{}", auth(one)...), 403, "forbidden")
	res := p.ask("POST", rest.Base+"/approvals", `{"action":"issue-enrolment-code","subject":"three","reason":"new phone"}`, auth(one)...)
	status(t, res, 201, "")
	a := read[rest.Approval](t, res)
	with := append(auth(one), api.ApprovalHeader, a.ID)
	status(t, p.ask("POST", path, "{}", with...), 403, "forbidden") // not given yet
	if res := p.ask("POST", rest.Base+"/approvals/"+a.ID+"/decide", `{"approve":true}`, auth(one)...); res.StatusCode < 400 {
		t.Error("an owner approves what he asked for")
	}
	status(t, p.ask("POST", rest.Base+"/approvals/"+a.ID+"/decide", `{"approve":true}`, auth(two)...), 200, "")
	if res := p.ask("POST", rest.Base+"/users/three/bypass-codes", `{"reason":"x"}`, with...); res.StatusCode < 400 {
		t.Error("an approval is good for another action")
	}
	if res := p.ask("POST", path, `{"valid_for":"forever"}`, with...); res.StatusCode != 422 { // it is given back
		t.Error(res.Status)
	}
	status(t, p.ask("POST", path, "{}", with...), 201, "")
	status(t, p.ask("POST", path, "{}", with...), 403, "forbidden")
}

// TestOnce: a POST with a key is done once, however often and at once it is sent.
func TestOnce(t *testing.T) {
	p := openPlace(t)
	owner, other := p.somebody(t, "owner", rest.RoleOwner, session.CLI, 0), p.somebody(t, "other", rest.RoleOwner, session.CLI, 0)
	post := func(who, path, body, key string) *http.Response {
		return p.ask("POST", rest.Base+path, body, append(auth(who), api.KeyHeader, key)...)
	}
	t.Run("the same answer", func(t *testing.T) {
		first := post(owner, "/groups", `{"name":"staff"}`, "k1")
		again := post(owner, "/groups", `{"name":"staff"}`, "k1")
		status(t, first, 201, "")
		status(t, again, 201, "")
		a, _ := io.ReadAll(first.Body)
		b, _ := io.ReadAll(again.Body)
		if string(a) != string(b) || first.Header.Get("ETag") != again.Header.Get("ETag") || again.Header.Get(api.ReplayedHeader) != "true" || first.Header.Get(api.ReplayedHeader) != "" {
			t.Errorf("%s\n%s\n%v", a, b, again.Header)
		}
		status(t, post(owner, "/groups", `{"name":"staff"}`, "k2"), 409, "exists")
	})
	t.Run("another request with the same key", func(t *testing.T) {
		status(t, post(owner, "/groups", `{"name":"others"}`, "k1"), 422, "invalid")
		status(t, post(owner, "/users", `{"name":"staff"}`, "k1"), 422, "invalid")
	})
	t.Run("the same key of another person", func(t *testing.T) {
		status(t, post(other, "/groups", `{"name":"guests"}`, "k1"), 201, "")
	})
	t.Run("a refused request keeps no key", func(t *testing.T) {
		status(t, post(owner, "/groups", `{"name":""}`, "k3"), 422, "invalid")
		status(t, post(owner, "/groups", `{"name":"later"}`, "k3"), 201, "")
	})
	t.Run("what writes nothing", func(t *testing.T) {
		status(t, post(owner, "/events/verify", `{}`, "k4"), 200, "")
		if res := post(owner, "/events/verify", `{}`, "k4"); res.Header.Get(api.ReplayedHeader) != "true" {
			t.Error(res.Status)
		}
	})
	t.Run("a secret is not shown twice, and not kept", func(t *testing.T) {
		res := post(owner, "/users", `{"name":"anna","password":"correct horse battery"}`, "k5")
		status(t, res, 201, "")
		res = post(owner, "/users/anna/factors/backup", ``, "k6")
		status(t, res, 201, "")
		codes := read[rest.BackupCodes](t, res)
		status(t, post(owner, "/users/anna/factors/backup", ``, "k6"), 409, "conflict")
		err := p.Store.Read(t.Context(), func(q *store.Queries) error {
			for _, key := range []string{"k5", "k6"} {
				if _, err := q.GetIdempotency(t.Context(), key); !store.IsNotFound(err) {
					t.Errorf("the key lies there as it is: %v", err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if left, err := p.ListFactors(t.Context(), desk.Root(), "anna"); err != nil || len(left.Items) != 1 || *left.Items[0].Left != len(codes.Codes) {
			t.Errorf("%+v %v", left, err)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		var wait sync.WaitGroup
		var mu sync.Mutex
		got := map[int]int{}
		for range 12 {
			wait.Go(func() {
				res := post(owner, "/machine-tokens", `{"name":"bridge"}`, "k7")
				mu.Lock()
				got[res.StatusCode]++
				mu.Unlock()
			})
		}
		wait.Wait()
		list, err := p.ListTokens(t.Context(), desk.Root(), "", 0)
		if err != nil || len(list.Items) != 1 || got[201] != 1 || got[409] != 11 {
			t.Errorf("%d tokens, answers %v, %v", len(list.Items), got, err)
		}
	})
	t.Run("what the sessions do, too", func(t *testing.T) {
		var wait sync.WaitGroup
		for range 6 {
			wait.Go(func() { post(owner, "/tokens", `{"name":"one","scopes":["read"]}`, "k9") })
		}
		wait.Wait()
		status(t, post(owner, "/tokens", `{"name":"one","scopes":["read"]}`, "k9"), 409, "conflict")
		if res := p.ask("GET", rest.Base+"/tokens", "", auth(owner)...); len(read[rest.Page[rest.APIToken]](t, res).Items) != 1 {
			t.Error("there is not one token")
		}
	})
	t.Run("no other method", func(t *testing.T) {
		status(t, p.ask("PATCH", rest.Base+"/groups/staff", `{"mfa":"on"}`, append(auth(owner), api.KeyHeader, "k8")...), 422, "invalid")
	})
}

// TestSeenBefore: a GET that was seen has no body.
func TestSeenBefore(t *testing.T) {
	p := openPlace(t)
	owner := p.somebody(t, "owner", rest.RoleOwner, session.CLI, 0)
	for _, path := range []string{"/users/owner", "/groups", "/settings", "/policies/default", "/openapi.json"} {
		res := p.ask("GET", rest.Base+path, "", auth(owner)...)
		tag := res.Header.Get("ETag")
		if res.StatusCode != 200 || tag == "" {
			t.Fatalf("%s: %s, ETag %q", path, res.Status, tag)
		}
		for match, want := range map[string]int{tag: 304, `"x", ` + tag: 304, "W/" + strings.TrimPrefix(tag, "W/"): 304, "*": 304, `"x"`: 200, "": 200} {
			res := p.ask("GET", rest.Base+path, "", append(auth(owner), "If-None-Match", match)...)
			b, _ := io.ReadAll(res.Body)
			if res.StatusCode != want || want == 304 && (len(b) > 0 || res.Header.Get("ETag") != tag) {
				t.Errorf("%s, If-None-Match %s: %s, %d octets", path, match, res.Status, len(b))
			}
		}
	}
	before := p.ask("GET", rest.Base+"/groups", "", auth(owner)...).Header.Get("ETag")
	if _, err := p.AddGroup(t.Context(), desk.Root(), rest.NewGroup{Name: "staff"}); err != nil {
		t.Fatal(err)
	}
	status(t, p.ask("GET", rest.Base+"/groups", "", append(auth(owner), "If-None-Match", before)...), 200, "")
}

// TestShownCommandsWork: what the console shows as "copy as curl" does what it says, with
// a token, in a shell.
func TestShownCommandsWork(t *testing.T) {
	p := openPlace(t)
	admin := p.somebody(t, "adam", rest.RoleAdministrator, session.CLI, 0)
	res := p.ask("POST", rest.Base+"/tokens", `{"name":"t","scopes":["read","change"]}`, auth(admin)...)
	status(t, res, 201, "")
	token := read[rest.APIToken](t, res).Token.Show()
	srv := httptest.NewTLSServer(p)
	defer srv.Close()
	home := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := errors.Join(os.WriteFile(filepath.Join(home, ".curlrc"), []byte("silent\n"), 0o600), os.WriteFile(filepath.Join(home, ui.CAFile), ca, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		curl ui.Curl
		want string
	}{
		{ui.Curl{Method: "POST", Path: rest.Base + "/groups", Body: map[string]string{"name": "night shift"}}, `"name":"night shift"`},
		{ui.Curl{Method: "GET", Path: rest.Base + "/groups?limit=1"}, `"items":[{`},
		{ui.Curl{Method: "PATCH", Path: rest.Base + "/groups/night%20shift", Body: map[string]string{"mfa": "on"}}, `"mfa":"on"`},
		{ui.Curl{Method: "POST", Path: rest.Base + "/users", Body: map[string]any{"name": "berta", "display_name": "it's \\ $(id) \"\u00e4\""}}, `"display_name":"it's \\ $(id) \"ä\""`},
		{ui.Curl{Method: "POST", Path: rest.Base + "/users/berta/factors/backup"}, `"codes":[`},
		{ui.Curl{Method: "DELETE", Path: rest.Base + "/users/berta"}, ""},
	} {
		text := ui.CurlText(ui.Door{Host: strings.TrimPrefix(srv.URL, "https://")}, &c.curl)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd := exec.CommandContext(ctx, "sh", "-c", text)
		cmd.Dir = home
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LATCHKEY_TOKEN=" + token, "CURL_HOME=" + home, "HOME=" + home}
		out, err := cmd.CombinedOutput()
		cancel()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s\n%v\n%s", text, err, out)
		}
	}
}

// TestSettingsTag: two owners do not overwrite each other's settings.
func TestSettingsTag(t *testing.T) {
	p := openPlace(t)
	owner := p.somebody(t, "owner", rest.RoleOwner, session.CLI, 0)
	const path = rest.Base + "/settings"
	seen := p.ask("GET", path, "", auth(owner)...).Header.Get("ETag")
	res := p.ask("PATCH", path, `{"contact":"extension 1"}`, append(auth(owner), "If-Match", seen)...)
	status(t, res, 200, "")
	if next := res.Header.Get("ETag"); next == seen || next != p.ask("GET", path, "", auth(owner)...).Header.Get("ETag") {
		t.Errorf("%s and then %s", seen, next)
	}
	status(t, p.ask("PATCH", path, `{"contact":"extension 2"}`, append(auth(owner), "If-Match", seen)...), 412, "conflict")
	status(t, p.ask("PATCH", path, `{"contact":"extension 2"}`, append(auth(owner), "If-Match", `"7"`)...), 422, "invalid")
	status(t, p.ask("PATCH", path, `{"contact":"extension 2"}`, append(auth(owner), "If-Match", "*")...), 200, "")
}
