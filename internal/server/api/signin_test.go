package api_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/text"
)

// phone enrols one of anna's, in software.
func (s *scene) phone() *phonetest.Phone {
	s.t.Helper()
	door := phoneapi.New(phoneapi.Deps{Push: s.Push, Desk: s.Rig.Desk, Store: s.Store, Clock: s.Clock})
	srv := httptest.NewServer(door)
	s.t.Cleanup(func() { door.Stop(); srv.Close() })
	code, err := s.AddPhone(s.t.Context(), desk.Root(), "anna")
	s.must(err)
	p, err := phonetest.New(http.DefaultClient, s.Clock)
	s.must(err)
	p.Base = srv.URL
	s.must(p.Enrol(s.t.Context(), code.Link.Show(), "phone"))
	return p
}

// TestS2SignInByPhone: a program signs somebody in by the phone, and proves the session
// anew so: the number, the waiting, the approval.
func TestS2SignInByPhone(t *testing.T) {
	s := openScene(t)
	p := s.phone()
	post := func(path, body string, want int, header ...string) *http.Response {
		t.Helper()
		res := s.ask("POST", rest.Base+path, body, header...)
		if res.StatusCode != want {
			t.Fatalf("%s: %s %+v", path, res.Status, read[rest.Problem](t, res))
		}
		return res
	}
	approve := func(number string) {
		t.Helper()
		r, c, err := p.Next(t.Context(), 5*time.Second)
		s.must(err)
		if c.Place != text.PlaceProgram {
			t.Errorf("the phone shows %q", c.Place)
		}
		s.must(p.Approve(t.Context(), r, number))
	}
	begun := read[rest.SignedIn](t, post("/sessions", `{"name":"anna","password":"`+annasPassword+`"}`, 200))
	in := begun.Signin.Show()
	want := []rest.Way{
		{Kind: "push", Option: text.OptionPush, Sends: true, Waits: true},
		{Kind: "totp", Option: text.OptionTOTP},
		{Kind: "backup", Option: text.OptionBackup},
	}
	if d := cmp.Diff(want, begun.Choices); d != "" || begun.Next != "code" || !slices.Equal(begun.Kinds, []string{"push", "totp", "backup"}) {
		t.Errorf("choices: %s%+v", d, begun)
	}
	// What was not chosen is not answered; what is none of the kinds is not chosen.
	for path, body := range map[string]string{
		"/sessions/answer": `{"signin":%q,"kind":"push"}`, "/sessions/choose": `{"signin":%q,"kind":"mail"}`,
	} {
		status(t, post(path, fmt.Sprintf(body, in), 422), 422, "invalid")
	}
	for _, kind := range []string{"fido2", "bypass", "enrol", "", "x"} {
		if kind != "" { // which is an app's
			status(t, post("/sessions/answer", fmt.Sprintf(`{"signin":%q,"kind":%q,"code":"1"}`, in, kind), 422), 422, "invalid")
		}
	}
	asked := read[rest.Asked](t, post("/sessions/choose", fmt.Sprintf(`{"signin":%q,"kind":"push"}`, in), 200))
	if asked.Kind != "push" || !asked.Waits || asked.Number == "" || asked.Prompt != text.PushPrompt(asked.Number) || !asked.ExpiresAt.After(s.Clock.Now()) {
		t.Errorf("asked: %+v", asked)
	}
	still := read[rest.SignedIn](t, post("/sessions/answer", fmt.Sprintf(`{"signin":%q,"kind":"push"}`, in), 200))
	if still.Session != nil || still.Next != "code" || still.Asked == nil || still.Asked.Number != asked.Number || !still.Secret.Empty() {
		t.Errorf("before the answer: %+v", still)
	}
	approve(asked.Number)
	done := read[rest.SignedIn](t, post("/sessions/answer", fmt.Sprintf(`{"signin":%q,"kind":"push"}`, in), 200))
	if done.Session == nil || done.Session.Factor != session.Push || done.Asked != nil {
		t.Fatalf("behind the answer: %+v", done)
	}
	status(t, post("/sessions/answer", fmt.Sprintf(`{"signin":%q,"kind":"push"}`, in), 410), 410, "conversation-expired")

	// The same for a session.
	bearer := auth(done.Secret.Show())
	proving := read[rest.Proving](t, s.ask("GET", rest.Base+"/session/proof", "", bearer...))
	if len(proving.Choices) == 0 || proving.Choices[0].Kind != "push" || proving.Asked != nil {
		t.Errorf("how to prove it: %+v", proving)
	}
	status(t, post("/session/proof", `{"kind":"push"}`, 422, bearer...), 422, "invalid")
	asked = read[rest.Asked](t, post("/session/proof/choose", `{"kind":"push"}`, 200, bearer...))
	waits := read[rest.Fresh](t, post("/session/proof", `{"kind":"push"}`, 200, bearer...))
	if waits.Asked == nil || !waits.Secret.Empty() || !waits.FreshAt.IsZero() {
		t.Errorf("a proof before the answer: %+v", waits)
	}
	approve(asked.Number)
	fresh := read[rest.Fresh](t, post("/session/proof", `{"kind":"push"}`, 200, bearer...))
	if fresh.Secret.Empty() || fresh.Asked != nil {
		t.Fatalf("a proof behind the answer: %+v", fresh)
	}
	status(t, s.ask("GET", rest.Base+"/session", "", bearer...), 401, "unauthorized") // the secret is another one
	// A browser's session and a token prove nothing here.
	browser := s.somebody(t, "anna", rest.RoleNone, session.Browser, 0)
	status(t, s.ask("GET", rest.Base+"/session/proof", "", auth(browser)...), 401, "unauthorized")
}

// TestAPasskeyIsNamedForTheBrowser: a program is told of a passkey, and can not ask for it.
// Who has nothing else is sent to a browser, and not to an enrolment.
func TestAPasskeyIsNamedForTheBrowser(t *testing.T) {
	s := openScene(t)
	res := s.ask("POST", rest.Base+"/me/passkeys", s.passkey(s.anna), auth(s.anna)...)
	if res.StatusCode != http.StatusCreated {
		t.Fatal(res.Status)
	}
	begin := func() rest.SignedIn {
		t.Helper()
		res := s.ask("POST", rest.Base+"/sessions", `{"name":"anna","password":"`+annasPassword+`"}`)
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		return read[rest.SignedIn](t, res)
	}
	key := rest.Way{Kind: "fido2", Option: text.OptionPasskey, Browser: true}
	in := begin()
	if in.Next != "code" || !slices.Contains(in.Choices, key) || slices.Contains(in.Kinds, "fido2") {
		t.Errorf("beside other factors: %+v", in)
	}
	status(t, s.ask("POST", rest.Base+"/sessions/choose", fmt.Sprintf(`{"signin":%q,"kind":"fido2"}`, in.Signin.Show())), 422, "invalid")
	for _, kind := range []string{"totp", "backup"} {
		_, err := s.RemoveFactor(t.Context(), desk.Root(), "anna", kind)
		s.must(err)
	}
	in = begin()
	if in.Next != "browser" || in.Kinds != nil || !slices.Equal(in.Choices, []rest.Way{key}) {
		t.Errorf("alone: %+v", in)
	}
	for _, step := range []string{"/sessions/choose", "/sessions/answer"} {
		status(t, s.ask("POST", rest.Base+step, fmt.Sprintf(`{"signin":%q,"kind":"totp"%s}`, in.Signin.Show(), map[string]string{"/sessions/answer": `,"code":"000000"`}[step])), 422, "invalid")
	}
}

// TestAProgramThatGivesUpLeavesNothingOnThePhone (S12): by saying so, and by going away
// within a look; between two looks it is waited for.
func TestAProgramThatGivesUpLeavesNothingOnThePhone(t *testing.T) {
	s := openScene(t)
	p := s.phone()
	open := func(what string, want int) {
		t.Helper()
		all, err := p.Requests(t.Context(), 0)
		s.must(err)
		if len(all.Requests) != want {
			t.Errorf("%s: %d requests on the phone, want %d", what, len(all.Requests), want)
		}
	}
	// So many that were withdrawn one after the other hold up the next.
	forget := func() {
		t.Helper()
		s.must(s.Store.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.DeleteOldPushRequests(ctx, clock.Micros(time.Now().Add(time.Minute)))
			return err
		}))
	}
	begin := func() (answer string) {
		t.Helper()
		forget()
		in := s.signin()
		status(t, s.ask("POST", rest.Base+"/sessions/choose", fmt.Sprintf(`{"signin":%q,"kind":"push"}`, in)), 200, "")
		open("asked", 1)
		return fmt.Sprintf(`{"signin":%q,"kind":"push"}`, in)
	}
	// gone makes the request, and is away before it is answered: so long after it was made.
	// A look that was over before is made anew.
	gone := func(after time.Duration, path, body string, header ...string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if after == 0 {
			cancel()
		}
		time.AfterFunc(after, cancel)
		for code := http.StatusOK; code == http.StatusOK; {
			req := httptest.NewRequestWithContext(ctx, "POST", "https://latchkey.test"+rest.Base+path, strings.NewReader(body))
			req.TLS = &tls.ConnectionState{}
			req.Header.Set("Content-Type", "application/json")
			for i := 0; i+1 < len(header); i += 2 {
				req.Header.Set(header[i], header[i+1])
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, req)
			code = w.Code
		}
		if ctx.Err() == nil {
			t.Fatal("it was refused before")
		}
	}
	answer := begin()
	status(t, s.ask("POST", rest.Base+"/sessions/answer", answer), 200, "")
	open("between two looks", 1)
	status(t, s.ask("POST", rest.Base+"/sessions/cancel", answer), 422, "") // it takes the sign-in alone
	status(t, s.ask("POST", rest.Base+"/sessions/cancel", strings.Replace(answer, `,"kind":"push"`, "", 1)), 204, "")
	open("given up", 0)
	status(t, s.ask("POST", rest.Base+"/sessions/answer", answer), 410, "conversation-expired")

	for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
		answer = begin()
		gone(after, "/sessions/answer", answer)
		open(fmt.Sprint("gone after ", after), 0)
		status(t, s.ask("POST", rest.Base+"/sessions/answer", answer), 410, "conversation-expired")
	}

	raw := s.somebody(t, "anna", rest.RoleNone, session.CLI, 0)
	bearer := auth(raw)
	for what, leave := range map[string]func(){
		"a proof given up": func() { status(t, s.ask("POST", rest.Base+"/session/proof/cancel", "", bearer...), 204, "") },
		"gone at a proof":  func() { gone(20*time.Millisecond, "/session/proof", `{"kind":"push"}`, bearer...) },
		"gone as it was known": func() {
			own, err := s.sessions.OfProgram(t.Context(), raw)
			s.must(err)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, _, err := s.sessions.StepUp(ctx, own, session.Push, secret.FromString(""), "192.0.2.1"); !errors.Is(err, context.Canceled) {
				t.Errorf("gone as it was known: %v", err)
			}
		},
	} {
		forget()
		status(t, s.ask("POST", rest.Base+"/session/proof/choose", `{"kind":"push"}`, bearer...), 200, "")
		open("a proof", 1)
		leave()
		open(what, 0)
		status(t, s.ask("GET", rest.Base+"/session", "", bearer...), 200, "")
	}
}
