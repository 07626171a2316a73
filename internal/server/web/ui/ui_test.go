package ui

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/fault"
)

func TestFaultsAreSortedByTheirFields(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		want   map[string]string
		refill bool
	}{
		{"nothing is wrong", nil, map[string]string{}, false},
		{"two fields, one of them twice", fault.New(fault.Invalid, nil).With("name", "is empty").With("mail", "is none").With("name", "is short"), map[string]string{"name": "is empty; is short", "mail": "is none"}, true},
		{"somebody was faster", fault.Newf(fault.Conflict, "Load it again."), map[string]string{"": "Load it again."}, true},
		{"no right", fault.Newf(fault.Forbidden, "No."), map[string]string{"": "No."}, false},
		{"a cause that nobody may see", errors.New("secret"), map[string]string{"": fault.New(fault.Internal, nil).Public()}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, Faults(c.err)); d != "" {
				t.Error(d)
			}
			if c.err != nil && Refill(c.err) != c.refill {
				t.Error("Refill is", !c.refill)
			}
		})
	}
}

// What is offered as a command is one, whatever stands in it: a shell is asked.
func TestACurlCommandIsWhatAShellUnderstands(t *testing.T) {
	text := CurlText(Door{Host: "latchkey.test", OtherCA: true}, &Curl{Method: "PATCH", Path: "/api/v1/users/o'brien $(id)", Body: map[string]string{"display_name": "it's `id` $HOME \\ \"x\""}})
	out, err := exec.Command("sh", "-c", "LATCHKEY_TOKEN='lk_x y'; curl() { for a; do printf '[%s]' \"$a\"; done; }; "+text).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := "[--fail-with-body][--request][PATCH][https://latchkey.test/api/v1/users/o'brien $(id)][--header][Authorization: Bearer lk_x y][--json]" +
		"[{\n    \"display_name\": \"it's `id` $HOME \\\\ \\\"x\\\"\"\n  }]"
	if d := cmp.Diff(want, string(out)); d != "" {
		t.Error(d)
	}
	if strings.Contains(CurlText(Door{Host: "h"}, &Curl{Method: "GET", Path: "/x"}), "--request") {
		t.Error("GET is named")
	}
	if !strings.Contains(CurlText(Door{Host: "h"}, &Curl{Method: "GET", Path: "/x"}), "--cacert "+CAFile+" ") {
		t.Error("a certificate of the server's own CA is not trusted by itself")
	}
}

func TestOnlyADrawingIsShownAsOne(t *testing.T) {
	for s, want := range map[string]bool{
		`<svg viewBox="0 0 1 1" aria-label="key of style=x onload=y"><rect width="1"/><path d="M1 1z"/></svg>`: true,
		`<svg><script>x</script></svg>`: false,
		`<svg onload="x"></svg>`:        false,
		`<svg><path style="x"/></svg>`:  false,
		`<svg><a href="x"></a></svg>`:   false,
		`<svg></svg><img src=x>`:        false,
		`<img src=x>`:                   false,
		``:                              false,
		`<svg><rect fill="url(x)" onclick = "y"/></svg>`:    false,
		`<svg><foreignObject><p></p></foreignObject></svg>`: false,
	} {
		if isPicture(s) != want {
			t.Errorf("%s: %v", s, !want)
		}
	}
}

func TestNumbersAndTimesAreWrittenForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1\u202f000", -1234567: "-1\u202f234\u202f567"} {
		if got := Count(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	now := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{time.Second: "in a moment", 90 * time.Minute: "in 1 h 30 min", 50 * time.Hour: "in 2 d"} {
		if got := ago(now.Add(d), now); !strings.HasPrefix(got, strings.Fields(want)[0]) {
			t.Errorf("%s: %q", d, got)
		}
	}
	if meterKind(0, 50) != Bad || meterKind(10, 50) != Warn || meterKind(11, 50) != OK || share(60, 50) != 100 || share(1, 0) != 0 {
		t.Error("the meter does not warn when a fifth is left")
	}
}

func TestAChartShowsEveryFigure(t *testing.T) {
	p := BarsProps{Labels: []string{"a", "b", "c"}, Series: []Series{{Label: "x", Kind: OK, Values: []int64{1, 0, 3}}, {Label: "y", Kind: "no kind", Values: []int64{1}}}}
	got := bars(p)
	if len(got) != 3 || got[1].kind != Neutral || got[2].y != 6 {
		t.Errorf("%+v", got)
	}
	for _, b := range got {
		if b.x < 0 || b.y < 0 || b.w <= 0 || b.h <= 0 || b.x+b.w > 720 || b.y+b.h > 140.01 {
			t.Errorf("a bar sticks out: %+v", b)
		}
	}
	if len(bars(BarsProps{})) != 0 || points(nil) != "" || points([]int64{0}) == "" {
		t.Error("an empty chart fails")
	}
}
