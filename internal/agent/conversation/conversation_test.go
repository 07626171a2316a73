package conversation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey/internal/agent/link"
	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// scriptedServer answers steps one after the other.
type scriptedServer struct {
	mu      sync.Mutex
	script  []any // wire.StepReply or error; behind the last one: lost
	steps   []wire.Step
	ids     map[string]bool
	cancels int
	looked  int
}

func (s *scriptedServer) Step(_ context.Context, id string, seq int, step wire.Step) (wire.StepReply, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step.Cancel {
		s.cancels++
		return wire.StepReply{}, nil
	}
	if s.ids == nil {
		s.ids = map[string]bool{}
	}
	s.ids[id] = true
	// What is in the step is wiped behind it: keep a copy of what matters.
	raw, err := json.Marshal(step)
	if err != nil {
		panic(err)
	}
	var kept wire.Step
	if err := json.Unmarshal(raw, &kept); err != nil {
		panic(err)
	}
	s.steps = append(s.steps, kept)
	if seq != len(s.steps) {
		panic(fmt.Sprintf("step %d came at place %d", seq, len(s.steps)))
	}
	if len(s.script) == 0 {
		if seq == 1 {
			return wire.StepReply{}, link.NewDown(link.Silence, nil)
		}
		return wire.StepReply{}, link.ErrLost
	}
	next := s.script[0]
	s.script = s.script[1:]
	if err, ok := next.(error); ok {
		return wire.StepReply{}, err
	}
	return next.(wire.StepReply), nil
}

// Wait returns at once, so that each wait is one look.
func (s *scriptedServer) Wait(context.Context, string) error { return nil }

func (s *scriptedServer) Look(context.Context) { s.mu.Lock(); s.looked++; s.mu.Unlock() }
func (s *scriptedServer) Deliver()             {}
func (s *scriptedServer) Prepare(context.Context, wire.Prepare) (wire.PrepareReply, error) {
	return wire.PrepareReply{}, errors.New("not scripted")
}

func (s *scriptedServer) Permit(context.Context, wire.PermitRequest) (wire.Permit, error) {
	return wire.Permit{}, errors.New("not scripted")
}

func (s *scriptedServer) Ready(context.Context, wire.Ready) error { return errors.New("not scripted") }

func (s *scriptedServer) Bundle(context.Context, wire.BundleRequest) (wire.BundleReply, error) {
	return wire.BundleReply{}, errors.New("not scripted")
}

// scriptedVault holds facts and answers attempts one after the other. The real one
// is tested where it lives and in test/agent.
type scriptedVault struct {
	mu        sync.Mutex
	facts     vault.Facts
	results   []any // vault.Result or error
	recordErr error
	noteErr   error

	attempts []vault.Attempt
	typed    []string // "password/code"
	records  []event.Event
	noted    []wire.Spent
	offers   []string // passwords
	burnt    int
}

func (v *scriptedVault) Facts(context.Context, string) vault.Facts { return v.facts }

func (v *scriptedVault) Attempt(_ context.Context, a vault.Attempt) (vault.Result, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.attempts = append(v.attempts, a)
	var codes []string
	for _, c := range a.Codes {
		codes = append(codes, string(c.Reveal()))
	}
	v.typed = append(v.typed, string(a.Password.Reveal())+"/"+strings.Join(codes, ","))
	if len(v.results) == 0 {
		return vault.Result{Reason: vault.WrongCode}, nil
	}
	next := v.results[0]
	v.results = v.results[1:]
	if err, ok := next.(error); ok {
		return vault.Result{}, err
	}
	return next.(vault.Result), nil
}

func (v *scriptedVault) Record(_ context.Context, e event.Event) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.recordErr != nil {
		return v.recordErr
	}
	v.records = append(v.records, e)
	return nil
}

func (v *scriptedVault) NoteOnline(_ context.Context, _ string, s []wire.Spent) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.noteErr != nil {
		return v.noteErr
	}
	v.noted = append(v.noted, s...)
	return nil
}

func (v *scriptedVault) Enrol(_ context.Context, o vault.Offer, _ vault.Server) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.offers = append(v.offers, string(o.Password.Reveal()))
	return wire.ActionNone, nil
}

func (v *scriptedVault) Burn(context.Context, secret.Bytes) { v.mu.Lock(); v.burnt++; v.mu.Unlock() }

// typist answers prompts from a list and keeps what is shown.
type typist struct {
	answers []string
	prompts []string
	shown   []string
	gaveUp  error
}

func (p *typist) Prompt(_ context.Context, q wire.Prompt, within time.Duration) (secret.Bytes, error) {
	if within <= 0 || within > Limit+ScanTime {
		panic("a prompt without an end")
	}
	p.prompts = append(p.prompts, q.Text)
	if len(p.answers) == 0 {
		if p.gaveUp == nil {
			p.gaveUp = ErrGaveUp
		}
		return secret.Bytes{}, p.gaveUp
	}
	a := p.answers[0]
	p.answers = p.answers[1:]
	return secret.FromString(a), nil
}

func (p *typist) Watch(ctx context.Context) (context.Context, func()) {
	return context.WithCancel(ctx)
}

func (p *typist) Tell(m wire.Message) error { p.shown = append(p.shown, m.Text); return nil }

type stageRig struct {
	s *scriptedServer
	v *scriptedVault
	c *Conversations
}

func newStageRig(t testing.TB) *stageRig {
	r := &stageRig{s: &scriptedServer{}, v: &scriptedVault{facts: enrolled()}}
	r.c = New(Config{Server: r.s, Vault: r.v, Clock: clock.Real, Log: slog.New(slog.DiscardHandler), Machine: "m1", Grain: -1})
	return r
}

// enrolled is a machine with a good vault of alice.
func enrolled() vault.Facts {
	p := policy.NewPolicy()
	p.Name, p.Default = "default", true
	return vault.Facts{
		Machine: policy.Machine{ID: "m", Name: "m1", Status: "active", Mode: policy.Normal}, Policies: []policy.Policy{p},
		User: &policy.User{ID: "u1", Name: "alice"},
		Vault: &policy.Vault{
			Class: "software", Factors: []policy.Factor{policy.TOTP}, Until: time.Now().Add(24 * time.Hour), SigninsLeft: 5, TriesLeft: 5, RemoteTries: 1,
		},
	}
}

func full(user string) Request {
	return Request{Purpose: wire.PurposeSignin, User: user, Scope: policy.Logon, Service: "login", Mode: "full"}
}

func prompt(kind, what, words string) wire.StepReply {
	return wire.StepReply{Prompt: &wire.Prompt{Kind: kind, For: what, Text: words}}
}

var (
	askCode = prompt(wire.PromptSecret, wire.ForCode, text.PromptCode)
	allowed = wire.StepReply{Done: &wire.Done{
		Outcome: policy.Allow, Reason: "mfa-required", UserID: "u1", UserName: "alice", MFA: true, PasswordJudged: true, Offline: true,
		Spent: []wire.Spent{{Authenticator: "a", Step: 7}},
	}}
)

func TestOnlineSigninWalksToAllow(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{prompt(wire.PromptSecret, wire.ForPassword, text.PromptPassword), askCode, allowed}
	p := &typist{answers: []string{"pw", "123456"}}
	v := r.c.Sign(t.Context(), full("alice"), p)
	r.c.Wait()
	if !slices.Equal(p.prompts, []string{text.PromptPassword, text.PromptCode}) {
		t.Errorf("prompts %q", p.prompts)
	}
	if v.Outcome != policy.Allow || !v.Online || !v.HasAuthtok || string(v.Authtok.Reveal()) != "pw" {
		t.Fatalf("%+v", v)
	}
	b := r.s.steps[0].Begin
	if b.User != "alice" || !b.Password.Empty() || b.Mode != "full" || b.Scope != policy.Logon || b.At == 0 {
		t.Errorf("begin %+v", b)
	}
	if string(r.s.steps[1].Answer.Text.Reveal()) != "pw" || string(r.s.steps[2].Answer.Text.Reveal()) != "123456" {
		t.Error("another code was sent")
	}
	if len(r.v.noted) != 1 || r.v.noted[0].Step != 7 {
		t.Errorf("noted %v", r.v.noted)
	}
	if !slices.Equal(r.v.offers, []string{"pw"}) {
		t.Errorf("offers %q", r.v.offers)
	}
	if len(r.v.attempts)+len(r.v.records) != 0 {
		t.Error("an online sign-in touched the journal")
	}
	if len(r.s.ids) != 1 {
		t.Error("the conversation has more than one id")
	}
}

// A password that the server asks for a second time, or that is empty, is asked of
// the person: nothing is answered in his name but what he has typed.
func TestThePasswordIsAnsweredOnceForThePerson(t *testing.T) {
	ask := prompt(wire.PromptSecret, wire.ForPassword, "Once more: ")
	r := newStageRig(t)
	r.s.script = []any{ask, ask, allowed}
	p := &typist{answers: []string{"first", "second"}}
	v := r.c.Sign(t.Context(), full("alice"), p)
	r.c.Wait()
	if v.Outcome != policy.Allow || string(r.s.steps[1].Answer.Text.Reveal()) != "first" || string(r.s.steps[2].Answer.Text.Reveal()) != "second" || string(v.Authtok.Reveal()) != "second" {
		t.Errorf("%+v, prompts %q", v, p.prompts)
	}
	r = newStageRig(t)
	r.s.script = []any{ask, allowed}
	p = &typist{answers: []string{"", "typed"}}
	v = r.c.Sign(t.Context(), full("alice"), p)
	r.c.Wait()
	if v.Outcome != policy.Allow || string(r.s.steps[1].Answer.Text.Reveal()) != "typed" {
		t.Errorf("%+v, prompts %q", v, p.prompts)
	}
}

func TestOnlineEndsAreOnline(t *testing.T) {
	for name, c := range map[string]struct {
		script  []any
		outcome policy.Outcome
		text    string
	}{
		"the server denies":              {[]any{wire.StepReply{Done: &wire.Done{Outcome: policy.Deny, Reason: "x", Text: "No."}}}, policy.Deny, "No."},
		"the server leaves it":           {[]any{wire.StepReply{Done: &wire.Done{Outcome: policy.Ignore, Reason: "x"}}}, policy.Ignore, ""},
		"an outcome that nobody knows":   {[]any{wire.StepReply{Done: &wire.Done{Outcome: "perhaps"}}}, policy.Deny, text.DeniedInternal},
		"neither prompt nor end":         {[]any{wire.StepReply{}}, policy.Deny, text.DeniedInternal},
		"prompt and end":                 {[]any{wire.StepReply{Prompt: askCode.Prompt, Done: allowed.Done}}, policy.Deny, text.DeniedInternal},
		"a prompt of an unknown kind":    {[]any{prompt("sing", wire.ForCode, "la")}, policy.Deny, text.DeniedInternal},
		"the server goes away":           {[]any{askCode, link.ErrLost}, policy.Deny, text.DeniedUnreachable},
		"a Down that must not be":        {[]any{askCode, link.NewDown(link.Silence, nil)}, policy.Deny, text.DeniedUnreachable},
		"an unknown error":               {[]any{askCode, errors.New("odd")}, policy.Deny, text.DeniedInternal},
		"the machine waits":              {[]any{&wire.Problem{Code: string(fault.MachinePending), Detail: "Wait for approval."}}, policy.Deny, "Wait for approval."},
		"the conversation took too long": {[]any{askCode, &wire.Problem{Code: string(fault.Expired), Detail: "x"}}, policy.Deny, text.DeniedTooLong},
		"the server never ends":          {slices.Repeat([]any{askCode}, 200), policy.Deny, text.DeniedInternal},
		"the machine is refused midway":  {[]any{askCode, &link.Refused{Note: &wire.RefusalNote{Text: "Stolen."}}}, policy.Deny, text.Denied(policy.ReasonRefused, "") + " Stolen."},
	} {
		t.Run(name, func(t *testing.T) {
			r := newStageRig(t)
			r.s.script = c.script
			v := r.c.Sign(t.Context(), full("alice"), &typist{answers: slices.Repeat([]string{"123456"}, 200)})
			r.c.Wait()
			if v.Outcome != c.outcome || c.text != "" && v.Text != c.text {
				t.Errorf("%+v", v)
			}
			if len(r.v.attempts) != 0 {
				t.Error("the vault judged an online conversation")
			}
		})
	}
}

func TestGivingUpIsToldToTheServer(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{askCode}
	v := r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"pw"}})
	r.c.Wait()
	if v.Outcome != policy.Deny || v.Text != text.DeniedGivenUp || r.s.cancels != 1 {
		t.Errorf("%+v, %d cancels", v, r.s.cancels)
	}
}

func TestAPasswordThatTheServerDidNotJudgeIsNotOffered(t *testing.T) {
	r := newStageRig(t)
	done := *allowed.Done
	done.PasswordJudged = false
	r.s.script = []any{wire.StepReply{Done: &done}}
	q := full("alice")
	q.Mode, q.First, q.HasPassword, q.Password = "second", policy.FirstMachine, true, secret.FromString("unix pw")
	v := r.c.Sign(t.Context(), q, &typist{})
	r.c.Wait()
	if v.Outcome != policy.Allow || v.HasAuthtok || !slices.Equal(r.v.offers, []string{""}) {
		t.Errorf("%+v, offers %q", v, r.v.offers)
	}
	if string(r.s.steps[0].Begin.Password.Reveal()) != "unix pw" {
		t.Error("where the machine judges first the server gets the password at once")
	}
}

func TestAChangedPasswordFollows(t *testing.T) {
	r := newStageRig(t)
	done := *allowed.Done
	done.PasswordChanged = true
	r.s.script = []any{
		askCode, prompt(wire.PromptSecret, wire.ForNewPassword, "New: "), prompt(wire.PromptSecret, wire.ForNewPassword2, "Again: "), wire.StepReply{Done: &done},
	}
	v := r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"old", "123456", "new one", "new one"}})
	r.c.Wait()
	if v.Outcome != policy.Allow || string(v.Authtok.Reveal()) != "new one" || !slices.Equal(r.v.offers, []string{"new one"}) {
		t.Errorf("%+v, offers %q", v, r.v.offers)
	}
}

func TestWhatIsOwedToTheLedgerIsPaidBeforeAnOfflineAttempt(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{allowed}
	r.v.noteErr = fmt.Errorf("%w: disk full", vault.ErrState)
	if v := r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"pw"}}); v.Outcome != policy.Allow {
		t.Fatalf("the server let alice in, the disk shut her out: %+v", v)
	}
	offline := func() Verdict {
		r.s.steps, r.s.script = nil, []any{link.NewDown(link.Silence, nil)}
		r.v.results = []any{vault.Result{OK: true, Reason: vault.OK}}
		return r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"pw", "123456"}})
	}
	if v := offline(); v.Outcome != policy.Deny || v.Text != text.DeniedJournal || len(r.v.attempts) != 0 {
		t.Fatalf("with a full disk: %+v", v)
	}
	r.v.noteErr = nil
	if v := offline(); v.Outcome != policy.Allow || len(r.v.noted) != 1 {
		t.Fatalf("with room again: %+v, noted %v", v, r.v.noted)
	}
	r.c.Wait()
}

// The server's answer was long on its way, and the code has opened the machine without it meanwhile.
func TestACodeThatHasOpenedTheMachineWithoutTheServerDoesNotOpenItAgain(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{allowed}
	r.v.noteErr = vault.ErrSpent
	v := r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"pw"}})
	r.c.Wait()
	if v.Outcome != policy.Deny || v.Text != text.CodeUsed || !v.Online || len(r.v.offers) != 0 {
		t.Errorf("%+v, offers %q", v, r.v.offers)
	}
	if len(r.v.records) != 1 || r.v.records[0].Type != event.SigninDenied || r.v.records[0].Reason != vault.CodeUsed {
		t.Errorf("written down: %+v", r.v.records)
	}
	// A ledger that could not be written at first says so of what it has in its memory.
	r.c.owing["u1"] = []wire.Spent{{Backup: "b"}}
	r.v.noteErr = errors.Join(vault.ErrSpent, vault.ErrState)
	if err := r.c.settle(t.Context(), "u1"); !errors.Is(err, vault.ErrState) || len(r.c.owing) != 1 {
		t.Errorf("what is owed and still can not be written: %v, %v", err, r.c.owing)
	}
	r.v.noteErr = vault.ErrSpent
	if err := r.c.settle(t.Context(), "u1"); err != nil || len(r.c.owing) != 0 {
		t.Errorf("what is owed: %v, %v", err, r.c.owing)
	}
}

func TestOfflineSigninIsJudgedByTheVault(t *testing.T) {
	r := newStageRig(t)
	r.v.results = []any{vault.Result{Reason: vault.WrongCode}, vault.Result{OK: true, Reason: vault.OK, Left: vault.Left{Days: 1, Signins: 2, Tries: 3, Warn: true}}}
	p := &typist{answers: []string{"pw", "000000", "123456"}}
	v := r.c.Sign(t.Context(), full("alice"), p)
	r.c.Wait()
	if v.Outcome != policy.Allow || v.Online || string(v.Authtok.Reveal()) != "pw" {
		t.Fatalf("%+v", v)
	}
	if !slices.Equal(r.v.typed, []string{"pw/000000", "pw/123456"}) {
		t.Errorf("judged %q", r.v.typed)
	}
	want := []string{text.OfflineNow, text.WrongCode, text.OfflineLeft(1, 2, 3)}
	if !slices.Equal(p.shown, want) {
		t.Errorf("shown %q", p.shown)
	}
	e := r.v.attempts[0].Event
	if e.Subject != "alice" || e.Link != "down" || e.Scope != "logon" || e.UserID != "u1" || !strings.Contains(string(e.Data), `"trace"`) || !strings.Contains(string(e.Data), `"silence"`) {
		t.Errorf("event %+v %s", e, e.Data)
	}
	if r.s.looked != 1 {
		t.Error("nobody looked at the link while the password was typed")
	}
}

// Who is not admitted costs neither the server a request nor the machine a hash, online
// and offline, and spends nothing; who has not answered is not asked about.
func TestACrowdIsTurnedAwayBeforeAnythingIsDone(t *testing.T) {
	asked := 0
	for _, down := range []bool{false, true} {
		r := newStageRig(t)
		if !down {
			r.s.script = []any{askCode, allowed}
		}
		r.c.cfg.Admit = func(q Request) bool { asked++; return q.RHost != "192.0.2.1" }
		q := full("alice")
		q.Scope, q.Service, q.RHost = policy.Remote, "sshd", "192.0.2.1"
		v := r.c.Sign(t.Context(), q, &typist{answers: []string{"pw", "123456"}})
		if v.Outcome != policy.Deny || v.Text != text.DeniedCrowd || v.Reason != "too-many" || len(r.s.steps) != 0 || len(r.v.attempts) != 0 || r.v.burnt != 0 {
			t.Errorf("%+v, %d steps, %d attempts", v, len(r.s.steps), len(r.v.attempts))
		}
		before := asked
		if v := r.c.Sign(t.Context(), q, &typist{}); v.Outcome != policy.Deny || asked != before {
			t.Errorf("who said nothing was counted: %+v", v)
		}
	}
}

func TestAUsedBackupCodeIsNotToldAsACodeOfAnApp(t *testing.T) {
	r := newStageRig(t)
	r.v.results = []any{vault.Result{Reason: vault.BackupUsed}, vault.Result{Reason: vault.CodeUsed}, vault.Result{OK: true, Reason: vault.OK}}
	p := &typist{answers: []string{"pw", "aaaa-aaaa", "123456", "654321"}}
	if v := r.c.Sign(t.Context(), full("alice"), p); v.Outcome != policy.Allow {
		t.Fatalf("%+v", v)
	}
	if want := []string{text.OfflineNow, text.BackupUsed, text.CodeUsed}; !slices.Equal(p.shown, want) {
		t.Errorf("shown %q", p.shown)
	}
}

func TestThreeWrongCodesEndAnOfflineSignin(t *testing.T) {
	r := newStageRig(t)
	v := r.c.Sign(t.Context(), full("alice"), &typist{answers: slices.Repeat([]string{"1"}, 20)})
	if v.Outcome != policy.Deny || len(r.v.attempts) != 3 || v.Text != text.DeniedCodes {
		t.Errorf("%+v behind %d attempts", v, len(r.v.attempts))
	}
}

// S5: who has no accepted first factor can not tell an unknown name, a wrong
// password and a spent vault apart: the prompts, the texts and the work are the same.
func TestOfflineBeforeAnAcceptedFirstFactorEverybodyLooksTheSame(t *testing.T) {
	remote := full("alice")
	remote.Scope, remote.Service, remote.RHost = policy.Remote, "sshd", "192.0.2.1"
	type seen struct {
		prompts, shown []string
		text           string
	}
	cases := map[string]struct {
		facts  func(*vault.Facts)
		result vault.Result
		junk   bool
	}{
		"wrong password":       {func(*vault.Facts) {}, vault.Result{Reason: vault.WrongPassword}, false},
		"unknown":              {func(f *vault.Facts) { f.User, f.Vault = nil, nil }, vault.Result{}, false},
		"near miss":            {func(f *vault.Facts) { f.User, f.Vault, f.NearMiss = nil, nil, true }, vault.Result{}, false},
		"disabled":             {func(f *vault.Facts) { f.User.Disabled = true }, vault.Result{}, false},
		"locked":               {func(f *vault.Facts) { f.User.LockedUntil = time.Now().Add(time.Hour) }, vault.Result{}, false},
		"not enrolled":         {func(f *vault.Facts) { f.Vault = nil }, vault.Result{}, false},
		"days used up":         {func(f *vault.Facts) { f.Vault.Until = time.Now() }, vault.Result{}, false},
		"remote tries used up": {func(f *vault.Facts) { f.Vault.RemoteTries = 0 }, vault.Result{}, false},
		"restored":             {func(f *vault.Facts) { f.Vault, f.VaultProblem = nil, policy.ReasonVaultRolledBack }, vault.Result{}, false},
		"sshd refuses":         {func(*vault.Facts) {}, vault.Result{}, true},
		"used up meanwhile":    {func(*vault.Facts) {}, vault.Result{Reason: vault.RemoteUsedUp}, false},
	}
	var want *seen
	for name, c := range cases {
		r := newStageRig(t)
		c.facts(&r.v.facts)
		r.v.results = []any{c.result}
		pw := "wrong"
		if c.junk {
			pw = "\b\n\r\x7fI"
		}
		p := &typist{answers: []string{pw, "123456"}}
		v := r.c.Sign(t.Context(), remote, p)
		if v.Outcome != policy.Deny {
			t.Fatalf("%s: %+v", name, v)
		}
		got := seen{p.prompts, p.shown, v.Text}
		if want == nil {
			want = &got
		}
		if fmt.Sprint(got) != fmt.Sprint(*want) {
			t.Errorf("%s: %q, others %q", name, got, *want)
		}
		if len(r.v.attempts) == 0 && r.v.burnt == 0 {
			t.Errorf("%s: no work was done", name)
		}
		if len(r.v.attempts) == 0 && (len(r.v.records) != 1 || r.v.records[0].Type != event.SigninDenied) {
			t.Errorf("%s: %d records", name, len(r.v.records))
		}
	}
}

// O6, O17: at the machine itself, and behind an accepted first factor, the person is
// told what is the matter.
func TestOfflineDenialsAreTold(t *testing.T) {
	for name, c := range map[string]struct {
		facts  func(*vault.Facts)
		reason policy.Reason
	}{
		"sign-ins used up":   {func(f *vault.Facts) { f.Vault.SigninsLeft = 0 }, policy.ReasonVaultSignins},
		"days used up":       {func(f *vault.Facts) { f.Vault.Until = time.Now() }, policy.ReasonVaultDays},
		"tries used up":      {func(f *vault.Facts) { f.Vault.TriesLeft = 0 }, policy.ReasonVaultTries},
		"not enrolled":       {func(f *vault.Facts) { f.Vault = nil }, policy.ReasonNoVault},
		"outdated":           {func(f *vault.Facts) { f.Vault.Stale = true }, policy.ReasonVaultStale},
		"restored":           {func(f *vault.Facts) { f.Vault, f.VaultProblem = nil, policy.ReasonVaultRolledBack }, policy.ReasonVaultRolledBack},
		"TPM cleared":        {func(f *vault.Facts) { f.Vault, f.VaultProblem = nil, policy.ReasonTPMCleared }, policy.ReasonTPMCleared},
		"TPM gone":           {func(f *vault.Facts) { f.Vault, f.VaultProblem = nil, policy.ReasonTPMGone }, policy.ReasonTPMGone},
		"policy expired":     {func(f *vault.Facts) { f.PolicyProblem = policy.ReasonPolicyExpired }, policy.ReasonPolicyExpired},
		"policy says deny":   {func(f *vault.Facts) { f.Policies[0].Offline = policy.OfflineDeny }, policy.ReasonOfflineDeny},
		"no TPM, not enough": {func(f *vault.Facts) { f.Policies[0].SoftwareVault = false }, policy.ReasonVaultSoftware},
	} {
		for _, first := range []policy.First{"", policy.FirstMachine} {
			t.Run(name+" "+string(first), func(t *testing.T) {
				r := newStageRig(t)
				c.facts(&r.v.facts)
				r.v.facts.Contact = "the help desk, 1234"
				q := full("alice")
				if first != "" {
					q.Mode, q.First = "second", first
				}
				v := r.c.Sign(t.Context(), q, &typist{answers: []string{"pw", "pw", "123456"}})
				if v.Outcome != policy.Deny || v.Text != text.Denied(c.reason, "the help desk, 1234") || v.Reason != string(c.reason) {
					t.Errorf("%+v", v)
				}
				if len(r.v.records) != 1 || r.v.records[0].Reason != string(c.reason) || len(r.v.attempts) != 0 {
					t.Errorf("records %+v", r.v.records)
				}
			})
		}
	}
}

func TestOfflineBypassIsWrittenDownFirst(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*vault.Facts)
		first   policy.First
		outcome policy.Outcome
	}{
		"bypass":            {func(f *vault.Facts) { f.Policies[0].Offline = policy.OfflineBypass }, "", policy.Ignore},
		"bypass behind key": {func(f *vault.Facts) { f.Policies[0].Offline = policy.OfflineBypass }, policy.FirstSSHKey, policy.Allow},
		"exempt machine":    {func(f *vault.Facts) { f.Machine.Mode = policy.Exempt }, "", policy.Ignore},
		"2FA is off":        {func(f *vault.Facts) { f.User.MFA = policy.Off }, policy.FirstMachine, policy.Ignore},
	} {
		t.Run(name, func(t *testing.T) {
			q := full("alice")
			if q.First = c.first; c.first != "" {
				q.Mode = "second"
			}
			r := newStageRig(t)
			c.change(&r.v.facts)
			v := r.c.Sign(t.Context(), q, &typist{answers: []string{"pw"}})
			if v.Outcome != c.outcome || len(r.v.records) != 1 {
				t.Fatalf("%+v, %d records", v, len(r.v.records))
			}
			if q.Mode == "full" && (!v.HasAuthtok || string(v.Authtok.Reveal()) != "pw") {
				t.Error("pam_unix does not get the password")
			}
			r = newStageRig(t)
			c.change(&r.v.facts)
			r.v.recordErr = fmt.Errorf("%w: no space left on device", vault.ErrState)
			if v := r.c.Sign(t.Context(), q, &typist{answers: []string{"pw"}}); v.Outcome != policy.Deny || v.Text != text.DeniedJournal || v.HasAuthtok {
				t.Errorf("with a full disk: %+v", v)
			}
		})
	}
}

func TestTheStateIsTheMatterAndNotTheCode(t *testing.T) {
	r := newStageRig(t)
	r.v.results = []any{fmt.Errorf("%w: no space left on device", vault.ErrState)}
	if v := r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"pw", "123456", "1", "2"}}); v.Outcome != policy.Deny || v.Text != text.DeniedJournal || len(r.v.attempts) != 1 {
		t.Errorf("%+v", v)
	}
}

func TestBreakGlassWorksInEveryState(t *testing.T) {
	for name, change := range map[string]func(*stageRig){
		"all is well": func(r *stageRig) { r.s.script = []any{askCode} },
		"link down":   func(*stageRig) {},
		"refused":     func(r *stageRig) { r.s.script = []any{&link.Refused{}} },
		"disk full":   func(r *stageRig) { r.v.recordErr = vault.ErrState },
	} {
		t.Run(name, func(t *testing.T) {
			r := newStageRig(t)
			change(r)
			q := full("root")
			q.BreakGlass = true
			p := &typist{}
			if v := r.c.Sign(t.Context(), q, p); v.Outcome != policy.Ignore || len(p.prompts) != 0 {
				t.Errorf("%+v", v)
			}
			if r.v.recordErr == nil && (len(r.v.records) != 1 || r.v.records[0].Type != event.BreakGlass) {
				t.Errorf("records %+v", r.v.records)
			}
		})
	}
}

func TestARefusedMachineDenies(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{&link.Refused{Note: &wire.RefusalNote{Text: "It was stolen."}}}
	r.v.facts.Policies[0].Offline = policy.OfflineBypass
	v := r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"pw", "1"}})
	if v.Outcome != policy.Deny || !strings.Contains(v.Text, "revoked") || !strings.Contains(v.Text, "It was stolen.") {
		t.Errorf("%+v", v)
	}
}

func TestAFakePasswordOfSSHDIsNeverSent(t *testing.T) {
	for name, q := range map[string]Request{
		"in the stack": func() Request { q := full("bob"); q.Junk = true; return q }(),
		"typed":        full("bob"),
	} {
		t.Run(name, func(t *testing.T) {
			r := newStageRig(t)
			r.s.script = []any{prompt(wire.PromptSecret, wire.ForPassword, "Password: ")}
			v := r.c.Sign(t.Context(), q, &typist{answers: []string{"\b\n\r\x7fINCORRECT\b\n\r\x7fINC"}})
			r.c.Wait()
			if v.Outcome != policy.Deny || v.Text != text.DeniedFirst || len(r.s.steps) != 1 || !r.s.steps[0].Begin.Password.Empty() || r.s.cancels != 1 {
				t.Errorf("%+v, %d steps", v, len(r.s.steps))
			}
		})
	}
	t.Run("to a prompt of the server", func(t *testing.T) {
		r := newStageRig(t)
		r.s.script = []any{askCode, allowed}
		v := r.c.Sign(t.Context(), full("bob"), &typist{answers: []string{"pw", "\b\n\r\x7fIN"}})
		r.c.Wait()
		if v.Outcome != policy.Deny || len(r.s.steps) != 1 {
			t.Errorf("%+v, %d steps", v, len(r.s.steps))
		}
	})
}

func TestPasswordChangesNeedTheServerUnlessItDoesNotKnowTheUser(t *testing.T) {
	q := full("alice")
	q.Purpose = wire.PurposePassword
	r := newStageRig(t)
	if v := r.c.Sign(t.Context(), q, &typist{}); v.Outcome != policy.Deny {
		t.Errorf("a user of the server: %+v", v)
	}
	r = newStageRig(t)
	r.v.facts.User = nil
	if v := r.c.Sign(t.Context(), q, &typist{}); v.Outcome != policy.Ignore {
		t.Errorf("a user of the machine: %+v", v)
	}
	r = newStageRig(t)
	r.v.facts.User, r.v.facts.PolicyProblem = nil, policy.ReasonPolicyAbsent
	if v := r.c.Sign(t.Context(), q, &typist{}); v.Outcome != policy.Deny {
		t.Errorf("nobody knows: %+v", v)
	}
	r = newStageRig(t)
	r.s.script = []any{&link.Refused{}}
	r.v.facts.User = nil
	if v := r.c.Sign(t.Context(), q, &typist{}); v.Outcome != policy.Deny {
		t.Errorf("refused: %+v", v)
	}
}

func TestDenialsAreRoundedUp(t *testing.T) {
	r := newStageRig(t)
	r.c.cfg.Grain = 200 * time.Millisecond
	r.s.script = []any{wire.StepReply{Done: &wire.Done{Outcome: policy.Deny, Text: "No."}}}
	start := time.Now()
	r.c.Sign(t.Context(), full("alice"), &typist{answers: []string{"pw"}})
	if took := time.Since(start); took < 195*time.Millisecond {
		t.Errorf("%s", took)
	}
}

func TestUnprivilegedCallersGetYesOrNo(t *testing.T) {
	r := newStageRig(t)
	r.s.script = []any{allowed}
	q := full("alice")
	q.Unprivileged = true
	v := r.c.Sign(t.Context(), q, &typist{answers: []string{"pw"}})
	r.c.Wait()
	if v.Outcome != policy.Allow || v.HasAuthtok || len(r.v.offers) != 0 || !r.s.steps[0].Begin.Unlock {
		t.Errorf("%+v, offers %d", v, len(r.v.offers))
	}
	r = newStageRig(t)
	r.v.facts.Vault.RemoteTries = 0
	if v := r.c.Sign(t.Context(), q, &typist{answers: []string{"pw", "1"}}); v.Outcome != policy.Deny || len(r.v.attempts) != 0 {
		t.Errorf("%+v", v)
	}
}

// Whatever server, vault, disk and person do: a verdict opens only for one of the
// four reasons.
func TestNothingOpensWithoutServerVaultPolicyOrBreakGlass(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := newStageRig(t)
		serverOpened := false
		for range rapid.IntRange(0, 5).Draw(rt, "replies") {
			switch rapid.IntRange(0, 9).Draw(rt, "reply") {
			case 0:
				r.s.script = append(r.s.script, link.NewDown(link.Silence, nil))
			case 1:
				r.s.script = append(r.s.script, &link.Refused{})
			case 2:
				r.s.script = append(r.s.script, &wire.Problem{Code: "x", Detail: "y"})
			case 3:
				o := rapid.SampledFrom([]policy.Outcome{policy.Allow, policy.Ignore, policy.Deny, "", policy.MFA, policy.MFAOffline, "root"}).Draw(rt, "outcome")
				r.s.script = append(r.s.script, wire.StepReply{Done: &wire.Done{Outcome: o, UserID: "u1", Offline: rapid.Bool().Draw(rt, "offline")}})
			case 4:
				r.s.script = append(r.s.script, wire.StepReply{})
			case 5:
				r.s.script = append(r.s.script, wire.StepReply{Done: allowed.Done, Prompt: askCode.Prompt})
			default:
				what := rapid.SampledFrom([]string{wire.ForCode, wire.ForPassword, wire.ForNewPassword, wire.ForFirstCode, "?"}).Draw(rt, "for")
				r.s.script = append(r.s.script, prompt(rapid.SampledFrom([]string{wire.PromptSecret, wire.PromptAsk, wire.PromptChoose, "?"}).Draw(rt, "kind"), what, "x: "))
			}
		}
		script := slices.Clone(r.s.script)
		vaultOpened := false
		for range rapid.IntRange(0, 4).Draw(rt, "results") {
			switch rapid.IntRange(0, 3).Draw(rt, "result") {
			case 0:
				r.v.results = append(r.v.results, vault.Result{OK: true, Reason: vault.OK})
			case 1:
				r.v.results = append(r.v.results, errors.New("broken"))
			default:
				r.v.results = append(r.v.results, vault.Result{Reason: rapid.SampledFrom([]string{vault.WrongCode, vault.CodeUsed, vault.WrongPassword, vault.TriesUsedUp, "?"}).Draw(rt, "reason")})
			}
		}
		results := slices.Clone(r.v.results)
		f := &r.v.facts
		if rapid.Bool().Draw(rt, "unknown") {
			f.User, f.Vault = nil, nil
		}
		if rapid.Bool().Draw(rt, "no vault") {
			f.Vault = nil
		}
		f.PolicyProblem = rapid.SampledFrom([]policy.Reason{"", policy.ReasonPolicyAbsent}).Draw(rt, "policy problem")
		f.VaultProblem = rapid.SampledFrom([]policy.Reason{"", policy.ReasonTPMGone}).Draw(rt, "vault problem")
		f.Machine.Mode = rapid.SampledFrom([]policy.Mode{policy.Normal, policy.Enforced, policy.Exempt}).Draw(rt, "mode")
		f.Policies[0].Offline = rapid.SampledFrom([]policy.Offline{policy.OfflineMFA, policy.OfflineBypass, policy.OfflineMFAOrBypass, policy.OfflineDeny}).Draw(rt, "offline")
		if rapid.Bool().Draw(rt, "disk full") {
			r.v.recordErr, r.v.noteErr = vault.ErrState, vault.ErrState
		}
		q := full("alice")
		q.Purpose = rapid.SampledFrom([]string{wire.PurposeSignin, wire.PurposeSignin, wire.PurposePassword}).Draw(rt, "purpose")
		q.Scope = rapid.SampledFrom(policy.Scopes).Draw(rt, "scope")
		q.First = rapid.SampledFrom([]policy.First{"", policy.FirstMachine, policy.FirstSSHKey}).Draw(rt, "first")
		if q.First == policy.FirstMachine {
			q.Mode = "second"
		}
		q.Junk = rapid.Bool().Draw(rt, "junk")
		q.Unprivileged = rapid.Bool().Draw(rt, "unprivileged")
		p := &typist{answers: rapid.SliceOfN(rapid.SampledFrom([]string{"", "pw", "123456", "\b\n\r\x7fIN"}), 0, 8).Draw(rt, "answers")}

		v := r.c.Sign(context.Background(), q, p)
		r.c.Wait()

		// What the server said last, and whether it was asked beyond a Down.
		asked := len(script) - len(r.s.script)
		wasOnline := false
		for _, s := range script[:asked] {
			reply, isReply := s.(wire.StepReply)
			if isReply {
				wasOnline = true
				if reply.Prompt == nil && reply.Done != nil {
					serverOpened = reply.Done.Outcome == policy.Allow || reply.Done.Outcome == policy.Ignore
				}
			}
		}
		for i := range r.v.attempts {
			if i < len(results) {
				if res, ok := results[i].(vault.Result); ok && res.OK {
					vaultOpened = true
				}
			}
		}
		recordedOpening := slices.ContainsFunc(r.v.records, func(e event.Event) bool {
			return e.Type == event.SigninIgnored || e.Type == event.SigninAllowed
		})
		passwordOfStranger := q.Purpose == wire.PurposePassword && v.Outcome == policy.Ignore && f.User == nil && f.PolicyProblem == ""
		if opened := v.Outcome == policy.Allow || v.Outcome == policy.Ignore; opened && !serverOpened && !vaultOpened && !recordedOpening && !passwordOfStranger {
			rt.Fatalf("%+v opened for no reason; script %+v", v, script)
		}
		if wasOnline && (len(r.v.attempts) != 0 || recordedOpening) {
			rt.Fatalf("an online conversation ended offline: %+v", v)
		}
		if v.Outcome == policy.Deny && (v.HasAuthtok || v.Text == "") {
			rt.Fatalf("a denial: %+v", v)
		}
		if q.Junk && (v.Outcome == policy.Allow || v.Outcome == policy.Ignore) && !passwordOfStranger {
			rt.Fatalf("sshd's refusal was overruled: %+v", v)
		}
		if q.Unprivileged && (v.HasAuthtok || len(r.v.offers) != 0) {
			rt.Fatalf("an unprivileged caller got more than yes or no: %+v", v)
		}
		if r.v.recordErr != nil && recordedOpening {
			rt.Fatal("an event was recorded on a full disk")
		}
	})
}
