package health

import (
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// ticking is a clock that goes on by a second at every look.
func ticking() func() time.Time {
	t := start
	return func() time.Time { t = t.Add(time.Second); return t }
}

func TestProblemsComeAndGo(t *testing.T) {
	r := New(ticking())
	link := r.Define(Problem{"link-down", Warning, "The server does not answer.", "Check the network."})
	tpm := r.Define(Problem{"tpm-locked", Failure, "The TPM is locked.", "Wait or sign in online."})
	old := r.Define(Problem{"agent-old", Notice, "A newer agent is there.", "Update it."})
	if got := r.Current(); len(got) != 0 || !r.OK() {
		t.Fatalf("a new register holds %v", got)
	}
	old.Set("1.2.0")
	link.Set("timeout")
	if !r.OK() {
		t.Error("a warning is no failure")
	}
	link.Set("refused\x1b[2J") // goes on: the beginning stays, the detail is the newest and harmless
	if err := tpm.Judge(errors.New("TPM_RC_LOCKOUT")); err == nil {
		t.Error("Judge swallowed the error")
	}
	if r.OK() {
		t.Error("a failure is there and all is well")
	}
	want := []State{
		{"tpm-locked", Failure, "The TPM is locked.", "Wait or sign in online.", "TPM_RC_LOCKOUT", start.Add(3 * time.Second)},
		{"link-down", Warning, "The server does not answer.", "Check the network.", "refused[2J", start.Add(2 * time.Second)},
		{"agent-old", Notice, "A newer agent is there.", "Update it.", "1.2.0", start.Add(time.Second)},
	}
	if d := cmp.Diff(want, r.Current()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	tpm.Judge(nil)
	link.Clear()
	link.Set("again")
	if got := r.Current(); len(got) != 2 || !got[0].Since.Equal(start.Add(4*time.Second)) {
		t.Errorf("after it was gone a problem begins anew: %+v", got)
	}
	b, err := json.Marshal(r.Current()[0])
	if err != nil || !strings.Contains(string(b), `"severity":"warning"`) {
		t.Errorf("JSON: %s, %v", b, err)
	}
	if n := len(r.Known()); n != 3 {
		t.Errorf("%d problems known", n)
	}
}

func TestMistakesOfTheProgrammerPanic(t *testing.T) {
	for name, p := range map[string]Problem{
		"no code":      {"", Notice, "a", "b"},
		"bad code":     {"Link Down", Notice, "a", "b"},
		"no text":      {"x", Notice, "", "b"},
		"no next step": {"x", Notice, "a", ""},
		"no severity":  {"x", 7, "a", "b"},
		"twice":        {"taken", Notice, "a", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			r := New(ticking())
			r.Define(Problem{"taken", Notice, "a", "b"})
			defer func() {
				if recover() == nil {
					t.Error("did not panic")
				}
			}()
			r.Define(p)
		})
	}
}

func TestAnUnknownSeverityIsLoud(t *testing.T) {
	var s State
	if err := json.Unmarshal([]byte(`{"severity":"apocalypse"}`), &s); err != nil || s.Severity != Failure {
		t.Errorf("%v, %v", s.Severity, err)
	}
}

func TestManyAtOnce(t *testing.T) {
	r := New(func() time.Time { return start })
	it := r.Define(Problem{"x", Failure, "a", "b"})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				it.Set("d")
				r.Current()
				it.Clear()
				r.OK()
			}
		})
	}
	wg.Wait()
	if len(r.Current()) != 0 {
		t.Error("something stayed")
	}
}
