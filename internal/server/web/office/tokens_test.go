package office_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
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
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/directory"
	_ "latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/web"
	"latchkey/internal/server/web/ui"
)

// console is the people's door with somebody of the role who has just signed in.
type console struct {
	http.Handler
	*desktest.Rig
	sessions *session.Sessions
}

func openConsole(t *testing.T) *console {
	t.Helper()
	r := desktest.New(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t)}), clock.Real)
	directories, err := directory.All(directory.Deps{Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	sessions := session.New(session.Config{
		Store: r.Store, Keys: r.Keys, Directories: directories, Factors: factor.All(r.Keeper), Clock: clock.Real, Random: rand.Reader, Grain: -1,
	})
	return &console{web.New(web.Deps{Deps: ui.Deps{
		Desk: r.Desk, Sessions: sessions, Clock: clock.Real, Log: slog.New(slog.DiscardHandler), Version: "test",
	}}), r, sessions}
}

// signedIn gives the cookie of somebody whose second factor was given so long ago.
func (c *console) signedIn(t *testing.T, name, role string, ago time.Duration) string {
	t.Helper()
	u, err := c.ShowUser(t.Context(), desk.Root(), name)
	if err != nil {
		if u, err = c.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: name, Role: role}); err != nil {
			t.Fatal(err)
		}
	}
	secret := "ls_" + base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("%-32.32s", store.NewID())))
	hash := sha256.Sum256([]byte(secret))
	now := clock.Real.Now()
	err = c.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertSession(ctx, db.InsertSessionParams{
			ID: store.NewID(), SecretHash: hash[:], UserID: strings.TrimPrefix(u.ID, rest.UserPrefix), Kind: session.Browser, Factor: session.TOTP,
			BeganAt: clock.Micros(now), SeenAt: clock.Micros(now), FreshAt: clock.Micros(now.Add(-ago)), EndsAt: clock.Micros(now.Add(time.Hour)),
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func (c *console) visit(method, path, cookie string, form url.Values) (*http.Response, string) {
	req := httptest.NewRequest(method, "https://latchkey.test"+path, strings.NewReader(form.Encode()))
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	req.AddCookie(&http.Cookie{Name: session.Cookie, Value: cookie})
	req.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, req)
	b, _ := io.ReadAll(w.Result().Body)
	return w.Result(), string(b)
}

// TestTokensPage: a token is made with a fresh second factor, shown once, listed without
// its secret, and revoked.
func TestTokensPage(t *testing.T) {
	c := openConsole(t)
	admin := c.signedIn(t, "adam", rest.RoleAdministrator, 0)
	res, body := c.visit("GET", "/console/tokens", admin, nil)
	if res.StatusCode != 200 || !strings.Contains(body, "No tokens yet") || strings.Contains(body, `value="own"`) || !strings.Contains(body, `value="change"`) {
		t.Fatalf("%s\n%s", res.Status, body)
	}
	good := url.Values{"name": {"backup <script>"}, "scopes": {"read", "events"}, "days": {"7"}}
	stale := c.signedIn(t, "adam", rest.RoleAdministrator, time.Hour)
	if res, _ := c.visit("POST", "/console/tokens", stale, good); res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(res.Header.Get("Location"), "/stepup") {
		t.Errorf("without a fresh factor: %s %s", res.Status, res.Header.Get("Location"))
	}
	for name, form := range map[string]url.Values{
		"no scope":        {"name": {"x"}},
		"no name":         {"scopes": {"read"}},
		"no number":       {"name": {"x"}, "scopes": {"read"}, "days": {"soon"}},
		"too long":        {"name": {"x"}, "scopes": {"read"}, "days": {"366"}},
		"more than he is": {"name": {"x"}, "scopes": {"own"}},
	} {
		if res, body := c.visit("POST", "/console/tokens", admin, form); res.StatusCode != 422 && res.StatusCode != 403 || strings.Contains(body, "lk_") {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
	res, body = c.visit("POST", "/console/tokens", admin, good)
	found := regexp.MustCompile(`lk_[A-Za-z0-9_-]{43}`).FindString(body)
	if res.StatusCode != 200 || found == "" || strings.Contains(body, "<script>") {
		t.Fatalf("%s\n%s", res.Status, body)
	}
	actor, token, err := c.sessions.TokenActor(t.Context(), found, "192.0.2.1")
	if err != nil || !strings.HasPrefix(actor.Name, "adam") || !actor.Can("read") || actor.Can("change") {
		t.Fatalf("%+v %v", actor, err)
	}
	_, body = c.visit("GET", "/console/tokens", admin, nil)
	if strings.Contains(body, found) || !strings.Contains(body, "backup &lt;script&gt;") {
		t.Error(body)
	}
	auditor := c.signedIn(t, "audrey", rest.RoleAuditor, 0)
	if _, body := c.visit("GET", "/console/tokens", auditor, nil); strings.Contains(body, "backup &lt;") {
		t.Error("another's tokens stand among one's own")
	}
	if res, body := c.visit("GET", "/console/tokens?of=all", auditor, nil); res.StatusCode != 200 || !strings.Contains(body, "backup &lt;") || strings.Contains(body, "/revoke") {
		t.Errorf("%s\n%s", res.Status, body)
	}
	path := "/console/tokens/apt_" + token.ID + "/revoke"
	if res, _ := c.visit("POST", path, auditor, url.Values{}); res.StatusCode != 403 {
		t.Errorf("an auditor revokes it: %s", res.Status)
	}
	if res, _ := c.visit("POST", path, admin, url.Values{}); res.StatusCode != http.StatusSeeOther {
		t.Errorf("it is not revoked: %s", res.Status)
	}
	if _, _, err := c.sessions.TokenActor(t.Context(), found, "192.0.2.1"); err == nil {
		t.Error("it is good for something still")
	}
}
