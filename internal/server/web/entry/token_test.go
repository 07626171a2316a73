package entry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// session is the browser's own, as the door sees it.
func (b *browser) session() *session.Session {
	b.r.Helper()
	req, _ := http.NewRequest(http.MethodGet, "/", nil)
	req.AddCookie(b.cookies[session.Cookie])
	s, err := b.r.sessions.OfRequest(req)
	b.r.must(err)
	if s == nil {
		b.r.Fatal("the browser has no session")
	}
	return s
}

// call asks the API with a token or the secret of a session.
func (r *rig) call(method, path, bearer, body string) (status int, out string) {
	r.Helper()
	req, err := http.NewRequest(method, r.server.URL+rest.Base+path, strings.NewReader(body))
	r.must(err)
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := r.server.Client().Do(req)
	r.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	r.must(err)
	return res.StatusCode, string(b)
}

func TestATokenHasItsScopesAndNoMoreThanItsMaker(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		b := olga.signedIn()
		make := func(in session.NewToken) (session.Token, string) {
			t.Helper()
			tok, raw, err := r.sessions.MakeToken(r.Context(), b.session(), "192.0.2.1", in)
			r.must(err)
			return tok, string(raw.Reveal())
		}
		for what, in := range map[string]session.NewToken{
			"no name":       {Scopes: []string{"read"}},
			"a long name":   {Name: strings.Repeat("x", 65), Scopes: []string{"read"}},
			"no scope":      {Name: "a"},
			"a wrong scope": {Name: "a", Scopes: []string{"everything"}},
			"self":          {Name: "a", Scopes: []string{"self"}},
			"a wrong role":  {Name: "a", Scopes: []string{"read"}, Role: "king"},
			"no role":       {Name: "a", Scopes: []string{"read"}, Role: rest.RoleNone},
			"too long":      {Name: "a", Scopes: []string{"read"}, For: 366 * 24 * time.Hour},
			"too short":     {Name: "a", Scopes: []string{"read"}, For: time.Minute},
		} {
			if _, _, err := r.sessions.MakeToken(r.Context(), b.session(), "", in); !fault.Is(err, fault.Invalid) {
				t.Errorf("a token with %s: %v", what, err)
			}
		}
		reader, readRaw := make(session.NewToken{Name: "reader", Scopes: []string{"read"}})
		_, eventsRaw := make(session.NewToken{Name: "siem", Scopes: []string{"events"}})
		_, lowRaw := make(session.NewToken{Name: "low", Scopes: []string{"read", "change"}, Role: rest.RoleAuditor})
		if _, _, err := r.sessions.MakeToken(r.Context(), b.session(), "", session.NewToken{Name: "reader", Scopes: []string{"read"}}); !fault.Is(err, fault.Invalid) {
			t.Errorf("two tokens of one name: %v", err)
		}
		if !strings.HasPrefix(readRaw, "lk_") || len(readRaw) != 46 || reader.Expires.Sub(reader.Created) != session.TokenFor {
			t.Errorf("the token is %+v", reader)
		}
		for _, c := range []struct {
			raw, method, path, body string
			want                    int
		}{
			{readRaw, "GET", "/users", "", 200},
			{readRaw, "GET", "/events", "", 200},
			{readRaw, "POST", "/users", `{"name":"x"}`, 403},
			{readRaw, "GET", "/settings", "", 200},
			{readRaw, "POST", "/users/olga/unlock", "", 403},
			{eventsRaw, "GET", "/events", "", 200},
			{eventsRaw, "GET", "/users", "", 403},
			{lowRaw, "GET", "/users", "", 200},
			{lowRaw, "POST", "/users", `{"name":"x"}`, 403}, // its role is too low
			{"", "GET", "/users", "", 401},
			{readRaw + "x", "GET", "/users", "", 401},
			{strings.Replace(readRaw, "lk_", "ls_", 1), "GET", "/users", "", 401},
			{b.cookies[session.Cookie].Value, "GET", "/users", "", 401}, // a browser's session is no program's
		} {
			if got, body := r.call(c.method, c.path, c.raw, c.body); got != c.want {
				t.Errorf("%s %s with %.6s…: %d, want %d: %s", c.method, c.path, c.raw, got, c.want, body)
			}
		}
		// It signs nobody in, approves nothing and makes no other.
		for _, c := range [][2]string{{"/tokens", `{"name":"y","scopes":["read"]}`}, {"/approvals", `{"action":"set-password","subject":"olga","reason":"r"}`}} {
			if got, body := r.call("POST", c[0], readRaw, c[1]); got != 403 {
				t.Errorf("a token at %s: %d %s", c[0], got, body)
			}
		}
		actor, tok, err := r.sessions.TokenActor(r.Context(), readRaw, "192.0.2.1")
		r.must(err)
		if actor.Name != "olga (token reader)" || !actor.Token || actor.Role != rest.RoleOwner || actor.Session != "" || actor.Fresh || tok.LastUsed.IsZero() {
			t.Errorf("the actor is %+v", actor)
		}

		// With its maker it rises never, and falls at once.
		role := func(role string, disabled bool) {
			t.Helper()
			_, err := r.ChangeUser(r.Context(), desk.Actor{
				Name: "root@local", Role: rest.RoleOwner, Local: true, Approver: &desk.Actor{Name: "o", UserID: "o", Role: rest.RoleOwner}, ApprovedFor: olga.id,
			}, "olga", 0, rest.UserChange{Role: &role, Disabled: &disabled})
			r.must(err)
		}
		status := func(raw, path string) int {
			s, _ := r.call("GET", path, raw, "")
			return s
		}
		role(rest.RoleAuditor, false)
		if s := status(readRaw, "/users"); s != 200 {
			t.Errorf("the token of an auditor: %d", s)
		}
		role(rest.RoleNone, false)
		if s := status(readRaw, "/users"); s != 401 {
			t.Errorf("the token of somebody without a role: %d", s)
		}
		role(rest.RoleOwner, false)
		if s, _ := r.call("POST", "/users", lowRaw, `{"name":"x"}`); s != 403 {
			t.Errorf("a token rose with its maker: %d", s)
		}
		role(rest.RoleOwner, true)
		if s := status(readRaw, "/users"); s != 401 {
			t.Errorf("the token of somebody disabled: %d", s)
		}
		role(rest.RoleOwner, false)
		if s := status(readRaw, "/users"); s != 401 {
			t.Errorf("enabling brought a token back: %d", s)
		}
		b = olga.signedIn()
		_, old := make(session.NewToken{Name: "old", Scopes: []string{"read"}})
		if s := status(old, "/users"); s != 200 {
			t.Errorf("a new token: %d", s)
		}
		r.clock.Advance(session.TokenFor)
		if s := status(old, "/users"); s != 401 {
			t.Errorf("an expired token: %d", s)
		}
		// Fresh or not at all.
		b = olga.signedIn()
		r.clock.Advance(session.FreshFor)
		if _, _, err := r.sessions.MakeToken(r.Context(), b.session(), "", session.NewToken{Name: "late", Scopes: []string{"read"}}); !fault.Is(err, fault.StepUp) {
			t.Errorf("a token was made without a fresh second factor: %v", err)
		}
		b = olga.signedIn()
		revoked, raw := make(session.NewToken{Name: "gone", Scopes: []string{"read"}})
		bob := r.person("bob", rest.RoleAuditor).signedIn().session()
		if err := r.sessions.RevokeToken(r.Context(), bob.Actor(""), revoked.ID); !fault.Is(err, fault.Forbidden) {
			t.Errorf("an auditor revoked somebody's token: %v", err)
		}
		r.must(r.sessions.RevokeToken(r.Context(), b.session().Actor(""), revoked.ID))
		if s := status(raw, "/users"); s != 401 {
			t.Errorf("a revoked token: %d", s)
		}
		if n := len(r.events(event.APITokenMade, olga.id)); n != 5 {
			t.Errorf("%d tokens are written down", n)
		}
		if n := len(r.events(event.APITokenRevoked, olga.id)); n != 4 { // three with the account, one by hand
			t.Errorf("%d revocations are written down", n)
		}
	})
}

// The command line signs in over the network with the same factors, and has a session
// that a browser can not use.
func TestAProgramSignsInWithPasswordAndCode(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		status, body := r.call("POST", "/sessions", "", `{"name":"olga","password":"wrong wrong wrong"}`)
		if status != 401 {
			t.Errorf("a wrong password: %d %s", status, body)
		}
		r.clock.Advance(3 * time.Second)
		status, body = r.call("POST", "/sessions", "", `{"name":"olga","password":"`+password+`"}`)
		var step struct{ Signin, Next, Secret string }
		r.must(json.Unmarshal([]byte(body), &step))
		if status != 200 || step.Next != "code" || step.Secret != "" {
			t.Fatalf("a right password: %d %s", status, body)
		}
		status, body = r.call("POST", "/sessions/answer", "", `{"signin":"`+step.Signin+`","code":"`+olga.fresh()+`"}`)
		r.must(json.Unmarshal([]byte(body), &step))
		if status != 200 || !strings.HasPrefix(step.Secret, session.CLIPrefix) {
			t.Fatalf("a right code: %d %s", status, body)
		}
		if status, body := r.call("GET", "/users", step.Secret, ""); status != 200 {
			t.Errorf("with the session: %d %s", status, body)
		}
		thief := r.browser()
		thief.cookies[session.Cookie] = &http.Cookie{Name: session.Cookie, Value: step.Secret}
		thief.get("/console/approvals").goes("/signin?next=%2Fconsole%2Fapprovals")
		if s, err := r.sessions.OfProgram(r.Context(), step.Secret); err != nil || s == nil || s.Kind != session.CLI {
			t.Errorf("the session is %+v, %v", s, err)
		}
		if status, _ := r.call("DELETE", "/session", step.Secret, ""); status >= 300 {
			t.Errorf("signing out: %d", status)
		}
		if status, _ := r.call("GET", "/users", step.Secret, ""); status != 401 {
			t.Errorf("behind the end: %d", status)
		}
	})
}

// A person's own password is judged again behind a session, and counted.
func TestTheOwnPasswordIsJudgedAndCounted(t *testing.T) {
	onBoth(t, func(r *rig) {
		bob := r.person("bob", "none")
		judge := func(p string) error {
			r.clock.Advance(3 * time.Second)
			return r.sessions.Password(r.Context(), bob.id, "192.0.2.1", secret.FromString(p))
		}
		r.must(judge(password))
		waits := false
		for range 12 {
			err := judge("wrong wrong wrong")
			waits = waits || fault.Is(err, fault.TooMany)
			if !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.TooMany) {
				t.Fatalf("a wrong password: %v", err)
			}
		}
		if !waits {
			t.Error("nobody has to wait")
		}
		bob.signedIn() // it locks this question and nothing else
	})
}

// TestW7NoTokenOutlivesTheHandsThatMadeIt: whoever had somebody's account for an hour has
// left a token or a certificate for a year. What takes the account back takes these too,
// wherever it is done, and enabling the account revives nothing.
func TestW7NoTokenOutlivesTheHandsThatMadeIt(t *testing.T) {
	onBoth(t, func(r *rig) {
		yes, no := true, false
		root := desk.Root()
		r.certificates(ca.Console)
		due := func(p person) {
			t.Helper()
			_, err := r.ChangeUser(r.Context(), root, p.name, 0, rest.UserChange{MustChange: &yes})
			r.must(err)
		}
		const better = "violet kettle marsh"
		for name, c := range map[string]struct {
			do   func(p person, b *browser) error
			ends bool
		}{
			"ends the other sessions": {func(p person, b *browser) error {
				_, err := r.sessions.RevokeAll(r.Context(), b.session().Actor(""), p.id, b.session().ID)
				return err
			}, false},
			"is signed out everywhere": {func(p person, b *browser) error {
				ended, err := r.sessions.RevokeAll(r.Context(), root, p.id, "")
				if want := (ending.Ended{Windows: 1, Sessions: 2, Tokens: 1, Certificates: 1}); ended != want {
					t.Errorf("ended %+v, want %+v", ended, want)
				}
				return err
			}, true},
			"changes their own password": {func(p person, b *browser) error {
				return r.ChangeOwnPassword(r.Context(), b.session().Actor(""), rest.OwnPassword{Old: rest.HideText(password), New: rest.HideText(better)})
			}, true},
			"reports a sign-in": {func(p person, b *browser) error {
				id := store.NewID()
				r.update(func(ctx context.Context, tx *store.Tx) error {
					_, err := tx.Event(event.Event{ID: id, Type: event.SigninAllowed, Subject: p.name, UserID: p.id})
					return err
				})
				_, err := r.ReportOwnSignin(r.Context(), b.session().Actor(""), rest.EventPrefix+id, rest.NewReport{})
				return err
			}, true},
			"has a password set": {func(p person, b *browser) error {
				return r.SetPassword(r.Context(), root, p.name, rest.NewPassword{Password: rest.HideText(better)})
			}, true},
			"changes a due password at the sign-in": {func(p person, _ *browser) error {
				due(p)
				b := r.browser().begins(p)
				b.post("/signin/code", "kind", "totp", "code", p.fresh()).goes("/signin")
				b.post("/signin/password", "password", better, "again", better).goes("/")
				b.get("/me").is(http.StatusOK)
				return nil
			}, true},
			"changes a due password at a machine": {func(p person, b *browser) error {
				due(p)
				d := r.atMachine(wire.Begin{
					Purpose: wire.PurposeSignin, User: p.name, Scope: policy.Remote, Service: "sshd", Mode: "full", Boot: "b", Password: wire.Hide(secret.FromString(password)),
				}, p.fresh(), better, better)
				if d == nil || d.Outcome != policy.Allow || !d.PasswordChanged {
					t.Errorf("at the machine: %+v", d)
				}
				return nil
			}, true},
			"loses a factor": {func(p person, b *browser) error {
				_, err := r.LoseFactor(r.Context(), root, p.name, rest.FactorPrefix+p.auth)
				return err
			}, true},
			"is disabled and enabled again": {func(p person, b *browser) error {
				_, err := r.ChangeUser(r.Context(), root, p.name, 0, rest.UserChange{Disabled: &yes})
				if err == nil {
					_, err = r.ChangeUser(r.Context(), root, p.name, 0, rest.UserChange{Disabled: &no})
				}
				return err
			}, true},
		} {
			p := r.person(strings.ReplaceAll(name, " ", "-"), rest.RoleAdministrator)
			b, other, shown := p.signedIn(), p.signedIn(), p.shows()
			r.update(func(ctx context.Context, tx *store.Tx) error {
				return tx.InsertWindow(ctx, db.InsertWindowParams{
					ID: store.NewID(), UserID: p.id, MachineID: r.machine.ID, Boot: "b", OpenedAt: 1, ExpiresAt: clock.Micros(r.clock.Now().Add(time.Hour)), Scopes: "[]", Factors: "[]",
				})
			})
			_, raw, err := r.sessions.MakeToken(r.Context(), b.session(), "", session.NewToken{Name: "thief", Scopes: []string{"read"}})
			r.must(err)
			r.must(c.do(p, b))
			status, _ := r.call("GET", "/users", string(raw.Reveal()), "")
			if want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusOK}[c.ends]; status != want {
				t.Errorf("somebody %s: the token is answered %d, want %d", name, status, want)
			}
			if n := len(r.events(event.APITokenRevoked, p.id)); n != map[bool]int{true: 1}[c.ends] {
				t.Errorf("somebody %s: %d events of revoked tokens", name, n)
			}
			_, err = r.sessions.OfCertificate(shown, "192.0.2.1", "test")
			if ended := err != nil; ended != c.ends {
				t.Errorf("somebody %s: with the certificate: %v", name, err)
			}
			if e := r.events(event.PasswordChanged, p.id); len(e) > 0 {
				want := map[string]any{"windows_ended": 1.0, "sessions_ended": 2.0, "tokens_ended": 1.0, "certificates_ended": 1.0}
				if b.home() != "/signin" { // the session that goes on
					want["sessions_ended"] = 1.0
				}
				got := map[string]any{}
				r.must(json.Unmarshal(e[0].Data, &got))
				maps.DeleteFunc(got, func(k string, _ any) bool { return !strings.HasSuffix(k, "_ended") })
				if diff := cmp.Diff(want, got); len(e) != 1 || diff != "" {
					t.Errorf("somebody %s: %d events: %s", name, len(e), diff)
				}
			}
			if at := other.home(); at != "/signin" {
				t.Errorf("somebody %s: another browser is led to %s", name, at)
			}
		}
	})
}

// TestS10StrangersDoNotKeepANamedPersonOut: whoever tries somebody's name from many networks
// uses up the strangers' attempts, not those of the person's own browser; and what a
// stranger makes up is no such browser.
func TestS10StrangersDoNotKeepANamedPersonOut(t *testing.T) {
	onBoth(t, func(r *rig) {
		olga := r.person("olga", rest.RoleOwner)
		b := olga.signedIn()
		known := b.cookies[session.KnownCookie].Value
		try := func(i int, cookie string) error {
			_, err := r.sessions.Begin(r.Context(), session.Attempt{
				Name: "olga", Password: secret.FromString("guess"), Kind: session.Browser, Address: fmt.Sprintf("192.0.%d.1", i), Known: cookie,
			})
			return err
		}
		for i := range 30 {
			_ = try(i, "")
		}
		for what, cookie := range map[string]string{"nothing": "", "one made up": known[:len(known)-6] + "AAAAAA"} {
			if err := try(40, cookie); !fault.Is(err, fault.TooMany) {
				t.Errorf("a stranger with %s: %v", what, err)
			}
		}
		_, err := r.sessions.Begin(r.Context(), session.Attempt{Name: "olga", Password: secret.FromString(password), Kind: session.Browser, Address: "192.0.2.1", Known: known})
		if err != nil {
			t.Errorf("her own browser: %v", err)
		}
		for range 30 {
			err = try(50, known)
		}
		if !fault.Is(err, fault.TooMany) {
			t.Errorf("a known browser guesses on: %v", err)
		}
	})
}

// TestALongAnswerEndsWithItsSession: a stream and an export do not outlive the session, the
// token or the role that they began with.
func TestALongAnswerEndsWithItsSession(t *testing.T) {
	onBoth(t, func(r *rig) {
		none, yes := rest.RoleNone, true
		for name, end := range map[string]func(p person, a desk.Actor) error{
			"the session is ended": func(p person, a desk.Actor) error { return r.sessions.Revoke(r.Context(), desk.Root(), a.Session) },
			"the role is taken": func(p person, _ desk.Actor) error {
				_, err := r.ChangeUser(r.Context(), desk.Root(), p.name, 0, rest.UserChange{Role: &none})
				return err
			},
			"the user is disabled": func(p person, _ desk.Actor) error {
				_, err := r.ChangeUser(r.Context(), desk.Root(), p.name, 0, rest.UserChange{Disabled: &yes})
				return err
			},
			"the token is revoked": func(p person, a desk.Actor) error { return r.sessions.RevokeToken(r.Context(), desk.Root(), a.TokenID) },
		} {
			p := r.person(strings.ReplaceAll(name, " ", "-"), rest.RoleAuditor)
			b := p.signedIn()
			actor := b.session().Actor("")
			if strings.Contains(name, "token") {
				_, raw, err := r.sessions.MakeToken(r.Context(), b.session(), "", session.NewToken{Name: "log", Scopes: []string{"events"}})
				r.must(err)
				actor, _, err = r.sessions.TokenActor(r.Context(), string(raw.Reveal()), "")
				r.must(err)
			}
			r.clock.Advance(16 * time.Second)
			r.must(r.sessions.Still(r.Context(), actor))
			given := 0
			_, _, err := r.ExportEvents(r.Context(), actor, desk.EventFilter{}, 0, func(rest.Event) error {
				if given++; given == 1 {
					r.must(end(p, actor))
					r.clock.Advance(16 * time.Second)
				}
				return nil
			})
			if !fault.Is(err, fault.Unauthorized) || given != 1 {
				t.Errorf("%s: %d events were exported: %v", name, given, err)
			}
			if !fault.Is(r.sessions.Still(r.Context(), actor), fault.Unauthorized) {
				t.Errorf("%s: and it still stands", name)
			}
		}
		// A stream ends at its next sign of life.
		p := r.person("watcher", rest.RoleAuditor)
		a := p.signedIn().session().Actor("")
		stood, over := make(chan bool, 1), make(chan error, 1)
		go func() {
			over <- r.FollowEvents(r.Context(), a, desk.EventFilter{Types: []string{"server."}}, 0, func(rest.Event) error { return nil }, func() error {
				select {
				case stood <- true:
				default:
				}
				return nil
			})
		}()
		<-stood
		r.must(r.sessions.Revoke(r.Context(), desk.Root(), a.Session))
		for {
			r.clock.Advance(16 * time.Second)
			select {
			case err := <-over:
				if !fault.Is(err, fault.Unauthorized) {
					t.Errorf("the stream ended with %v", err)
				}
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
}
