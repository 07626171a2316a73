package signin

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/policy"
	"latchkey/internal/wire"
)

var behind = talk{
	Opening: opening{Purpose: "signin", User: "alice", Scope: policy.Logon, Service: "login", Mode: "full"},
	UserID:  "u", UserName: "alice", Accepted: true, Policy: policy.NewPolicy(), Count: 1, Given: []policy.Factor{policy.TOTP},
}

func samples() []stage {
	return []stage{
		judging{},
		awaitPassword{},
		awaitChoice{[]policy.Factor{policy.TOTP, policy.Backup}},
		awaitCode{Kind: policy.TOTP},
		awaitCode{policy.Mail, &wire.Prompt{Kind: wire.PromptSecret, For: wire.ForCode, Text: "Code from the mail: "}},
		awaitAnswer{policy.Push},
		awaitEnrolCode{policy.TOTP},
		awaitFirstCode{policy.TOTP, "code", []byte("pending")},
		awaitNewPassword{},
		awaitNewPassword2{[]byte("$argon2id$")},
		awaitOfflineChoice{},
	}
}

func talkFor(st stage) *talk {
	t := behind
	switch st.(type) {
	case judging, awaitPassword:
		t.Accepted, t.Given = false, nil
	}
	return &t
}

func TestStagesComeBackAsTheyWent(t *testing.T) {
	for _, st := range samples() {
		b, err := encodeState(talkFor(st), st)
		if err != nil {
			t.Fatal(err)
		}
		talk, got, err := decodeState(b)
		if err != nil {
			t.Errorf("%s: %v", st.name(), err)
			continue
		}
		if diff := cmp.Diff(st, got); diff != "" {
			t.Errorf("%s:\n%s", st.name(), diff)
		}
		again, err := encodeState(talk, got)
		if err != nil || !slices.Equal(b, again) {
			t.Errorf("%s: %v\n%s\n%s", st.name(), err, b, again)
		}
	}
}

// What could not have come about is not believed, sealed or not.
func TestStatesThatCanNotBe(t *testing.T) {
	for name, c := range map[string]struct {
		stage  stage
		change func(*talk)
	}{
		"a code before the first factor":           {awaitCode{Kind: policy.TOTP}, func(t *talk) { t.Accepted = false }},
		"a code for nobody":                        {awaitCode{Kind: policy.TOTP}, func(t *talk) { t.UserID = "" }},
		"a code of no kind":                        {awaitCode{}, nil},
		"a wait for nobody":                        {awaitAnswer{policy.Push}, func(t *talk) { t.UserID = "" }},
		"a wait for no kind":                       {awaitAnswer{}, nil},
		"a menu of one":                            {awaitChoice{[]policy.Factor{policy.TOTP}}, nil},
		"a new password before the second factor":  {awaitNewPassword{}, func(t *talk) { t.Given = nil }},
		"a confirmation before the second factor":  {awaitNewPassword2{[]byte("x")}, func(t *talk) { t.Given = nil }},
		"a confirmation of nothing":                {awaitNewPassword2{}, nil},
		"the last question before the factor":      {awaitOfflineChoice{}, func(t *talk) { t.Count = 2 }},
		"one factor twice":                         {awaitOfflineChoice{}, func(t *talk) { t.Given, t.Count = []policy.Factor{policy.TOTP, policy.TOTP}, 2 }},
		"the first prompt behind the first factor": {awaitPassword{}, func(t *talk) { t.Accepted = true }},
		"an enrolment of nothing":                  {awaitFirstCode{policy.TOTP, "", nil}, nil},
		"negative counts":                          {awaitCode{Kind: policy.TOTP}, func(t *talk) { t.Wrong = -1 }},
		"an ended one":                             {allowed{}, nil},
		"a denied one":                             {denied{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			tk := talkFor(c.stage)
			if c.change != nil {
				c.change(tk)
			}
			b, err := encodeState(tk, c.stage)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := decodeState(b); err == nil {
				t.Errorf("believed %s", b)
			}
		})
	}
}

func FuzzDecodeState(f *testing.F) {
	for _, st := range samples() {
		b, err := encodeState(talkFor(st), st)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":1,"stage":"await-code","state":{"kind":"totp"},"talk":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		talk, st, err := decodeState(b)
		if err != nil {
			return
		}
		if err := talk.check(st); err != nil {
			t.Error("believed what can not be")
		}
		again, err := encodeState(talk, st)
		if err != nil {
			t.Fatal(err)
		}
		talk2, st2, err := decodeState(again)
		if err != nil {
			t.Fatalf("%s does not come back: %v", again, err)
		}
		a, _ := json.Marshal([]any{talk, st})
		c, _ := json.Marshal([]any{talk2, st2})
		if string(a) != string(c) {
			t.Errorf("%s\n%s", a, c)
		}
	})
}
