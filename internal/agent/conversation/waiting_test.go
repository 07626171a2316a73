package conversation

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/policy"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

const number = "Number 42: type it into your phone."

func waitFor(words string, options ...string) wire.StepReply {
	return wire.StepReply{Prompt: &wire.Prompt{Kind: wire.PromptWait, For: wire.ForPush, Text: words, Options: options}}
}

// still is what the server says to a look when nothing has come.
var still = waitFor("", wire.Back)

func answers(s *scriptedServer) (typed []string) {
	for _, st := range s.steps {
		if st.Answer != nil {
			typed = append(typed, string(st.Answer.Text.Reveal()))
		}
	}
	return typed
}

// key sign-ins ask for no password, so that what follows stands alone.
func live(user string) Request {
	r := full(user)
	r.First, r.Live = policy.FirstSSHKey, true
	return r
}

func TestOnATerminalTheSignInGoesOnByItself(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{waitFor(number, wire.Back), still, still, allowed}
	p := &typist{}
	v := r.c.Sign(t.Context(), live("alice"), p)
	r.c.Wait()
	if v.Outcome != policy.Allow {
		t.Fatalf("%+v", v)
	}
	if len(p.prompts) != 0 || !slices.Equal(p.shown, []string{number}) {
		t.Errorf("prompts %q, shown %q", p.prompts, p.shown)
	}
	if got := answers(r.s); !slices.Equal(got, []string{"", "", ""}) {
		t.Errorf("looks %q", got)
	}
	if can := r.s.steps[0].Begin.Can; !slices.Equal(can, []string{wire.PromptWait}) {
		t.Errorf("can %q", can)
	}
}

func TestWhereTextNeedsAPromptTheNumberStandsInIt(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{waitFor(number, wire.Back), still, allowed}
	p := &typist{answers: []string{""}}
	q := live("alice")
	q.Live = false
	v := r.c.Sign(t.Context(), q, p)
	r.c.Wait()
	if v.Outcome != policy.Allow || !slices.Equal(p.prompts, []string{number + " " + text.WaitBack}) || len(p.shown) != 0 {
		t.Errorf("%+v, prompts %q, shown %q", v, p.prompts, p.shown)
	}
}

func TestFromThePromptOneGetsBackToTheMenu(t *testing.T) {
	r := newStageRig(t)
	menu := wire.StepReply{Prompt: &wire.Prompt{Kind: wire.PromptChoose, For: wire.ForChoice, Text: text.PromptFactor, Options: []string{"a", "b"}}}
	r.s.script = []any{waitFor(number, wire.Back), menu, askCode, allowed}
	p := &typist{answers: []string{"m", "2", "123456"}}
	q := live("alice")
	q.Live = false
	v := r.c.Sign(t.Context(), q, p)
	r.c.Wait()
	if v.Outcome != policy.Allow {
		t.Fatalf("%+v", v)
	}
	if got := answers(r.s); !slices.Equal(got, []string{"m", "2", "123456"}) {
		t.Errorf("answers %q", got)
	}
}

func TestWithoutAMenuNoneIsOffered(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{waitFor(number), allowed}
	p := &typist{answers: []string{""}}
	q := live("alice")
	q.Live = false
	r.c.Sign(t.Context(), q, p)
	r.c.Wait()
	if !slices.Equal(p.prompts, []string{number}) {
		t.Errorf("prompts %q", p.prompts)
	}
}

// leaver goes away while the phone is waited for.
type leaver struct{ typist }

func (leaver) Watch(ctx context.Context) (context.Context, func()) {
	return context.WithTimeout(ctx, 20*time.Millisecond)
}

func TestWhoGoesAwayWhileWaitingCancels(t *testing.T) {
	r := newStageRig(t)
	r.s.script = slices.Concat([]any{waitFor(number)}, slices.Repeat([]any{still}, 100))
	began := time.Now()
	v := r.c.Sign(t.Context(), live("alice"), &leaver{})
	r.c.Wait()
	if v.Outcome != policy.Deny || v.Text != text.DeniedGivenUp || !v.Online || r.s.cancels != 1 || time.Since(began) > 2*time.Second {
		t.Errorf("%+v, %d cancels in %s", v, r.s.cancels, time.Since(began))
	}
}

func TestTheServersWordsWhileWaitingAreShown(t *testing.T) {
	r := newStageRig(t)
	expired := wire.StepReply{
		Messages: []wire.Message{{Kind: wire.MessageWarn, Text: text.NobodyThere}},
		Prompt:   &wire.Prompt{Kind: wire.PromptChoose, For: wire.ForChoice, Text: text.PromptFactor, Options: []string{"a", "b"}},
	}
	r.s.script = []any{waitFor(number, wire.Back), still, expired, askCode, allowed}
	p := &typist{answers: []string{"2", "123456"}}
	v := r.c.Sign(t.Context(), live("alice"), p)
	r.c.Wait()
	if v.Outcome != policy.Allow || !slices.Equal(p.shown, []string{number, text.NobodyThere}) {
		t.Errorf("%+v, shown %q", v, p.shown)
	}
}

func TestWhoUnlocksMayHaveNothingSent(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{askCode, allowed}
	q := live("alice")
	q.Unprivileged = true
	r.c.Sign(t.Context(), q, &typist{answers: []string{"123456"}})
	r.c.Wait()
	if can := r.s.steps[0].Begin.Can; len(can) != 0 {
		t.Errorf("can %q", can)
	}
}

// pluggedIn is a key that answers or does not.
type pluggedIn struct {
	answer wire.KeyAnswer
	err    error
	asked  []KeyQuestion
}

func (k *pluggedIn) Assert(_ context.Context, q KeyQuestion, _ Person) (wire.KeyAnswer, error) {
	k.asked = append(k.asked, q)
	return k.answer, k.err
}

func (k *pluggedIn) Present() bool { return true }

func keyPrompt(t *testing.T, change func(*wire.KeyChallenge)) wire.StepReply {
	t.Helper()
	c := wire.KeyChallenge{RPID: "latchkey.example", Challenge: make([]byte, 32), Credentials: [][]byte{{1, 2, 3}}}
	if change != nil {
		change(&c)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return wire.StepReply{Prompt: &wire.Prompt{Kind: wire.PromptKey, For: wire.ForKey, Text: "Touch your key.", Data: raw}}
}

func TestASecurityKeyAnswersAtTheSeatOnly(t *testing.T) {
	k := &pluggedIn{answer: wire.KeyAnswer{Credential: []byte{1, 2, 3}, AuthData: []byte("data"), Signature: []byte("sig")}}
	r := newStageRig(t)
	r.c.cfg.Key = k
	r.s.script = []any{keyPrompt(t, nil), allowed}
	p := &typist{}
	v := r.c.Sign(t.Context(), live("alice"), p)
	r.c.Wait()
	if v.Outcome != policy.Allow || len(k.asked) != 1 || k.asked[0].RPID != "latchkey.example" || !slices.Contains(p.shown, "Touch your key.") {
		t.Fatalf("%+v, asked %+v, shown %q", v, k.asked, p.shown)
	}
	if can := r.s.steps[0].Begin.Can; !slices.Equal(can, []string{wire.PromptWait, wire.PromptKey}) {
		t.Errorf("can %q", can)
	}
	var got wire.KeyAnswer
	if err := json.Unmarshal([]byte(answers(r.s)[0]), &got); err != nil || string(got.Signature) != "sig" {
		t.Errorf("%v %+v", err, got)
	}

	r = newStageRig(t)
	r.c.cfg.Key = k
	r.s.script = []any{keyPrompt(t, nil), allowed}
	q := live("alice")
	q.Scope = policy.Remote
	if v := r.c.Sign(t.Context(), q, &typist{}); v.Outcome != policy.Deny || len(k.asked) != 1 {
		t.Errorf("over the network: %+v", v)
	}
	r.c.Wait()
	if can := r.s.steps[0].Begin.Can; !slices.Equal(can, []string{wire.PromptWait}) {
		t.Errorf("over the network: can %q", can)
	}
}

func TestAKeyThatDoesNotAnswerLeadsBack(t *testing.T) {
	r := newStageRig(t)
	r.c.cfg.Key = &pluggedIn{err: context.DeadlineExceeded}
	r.s.script = []any{keyPrompt(t, nil), askCode, allowed}
	v := r.c.Sign(t.Context(), live("alice"), &typist{answers: []string{"123456"}})
	r.c.Wait()
	if got := answers(r.s); v.Outcome != policy.Allow || !slices.Equal(got, []string{"", "123456"}) {
		t.Errorf("%+v, answers %q", v, got)
	}
}

func TestOddChallengesAreNotCarriedToAKey(t *testing.T) {
	for name, change := range map[string]func(*wire.KeyChallenge){
		"a short challenge":         func(c *wire.KeyChallenge) { c.Challenge = c.Challenge[:31] },
		"no relying party":          func(c *wire.KeyChallenge) { c.RPID = "" },
		"no credential":             func(c *wire.KeyChallenge) { c.Credentials = nil },
		"too many credentials":      func(c *wire.KeyChallenge) { c.Credentials = slices.Repeat([][]byte{{1}}, 65) },
		"a credential without end":  func(c *wire.KeyChallenge) { c.Credentials = [][]byte{make([]byte, 1024)} },
		"a credential of no octets": func(c *wire.KeyChallenge) { c.Credentials = [][]byte{{}} },
		"a name without end":        func(c *wire.KeyChallenge) { c.RPID = strings.Repeat("a", 254) },
	} {
		k := &pluggedIn{}
		r := newStageRig(t)
		r.c.cfg.Key = k
		r.s.script = []any{keyPrompt(t, change)}
		if v := r.c.Sign(t.Context(), live("alice"), &typist{}); v.Outcome != policy.Deny || len(k.asked) != 0 {
			t.Errorf("%s: %+v", name, v)
		}
		r.c.Wait()
	}
}

func FuzzReadChallenge(f *testing.F) {
	f.Add([]byte(`{"rp_id":"a.example","challenge":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","credentials":["AQI="],"verification":true}`))
	f.Add([]byte(`{}x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readChallenge(b)
		if err == nil && (len(c.Challenge) != challengeSize || len(c.Credentials) == 0 || c.RPID == "") {
			t.Errorf("%q is taken for %+v", b, c)
		}
	})
}
