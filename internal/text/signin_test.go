package text

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"latchkey/internal/policy"
)

// Every reason that policy knows has a text of its own, so that no new one is told as an internal problem.
func TestEveryReasonHasAText(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../policy/policy.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		v, ok := node.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 {
			return true
		}
		typ, ok := v.Type.(*ast.Ident)
		if !ok || typ.Name != "Reason" {
			return true
		}
		n++
		word := strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`)
		if _, ok := denied[policy.Reason(word)]; !ok {
			t.Errorf("no text for %s", word)
		}
		return true
	})
	if n < 40 {
		t.Fatalf("found only %d reasons", n)
	}
}

func TestDenialsSayWhatToDoNext(t *testing.T) {
	for r := range denied {
		got := Denied(r, "")
		if got != Clean(got) || !strings.HasSuffix(got, ".") {
			t.Errorf("%s: not one clean sentence: %q", r, got)
		}
	}
	if got := Denied(policy.ReasonVaultDays, "it\x1b[31m@example.org"); !strings.HasSuffix(got, "Ask: it[31m@example.org") {
		t.Errorf("contact: %q", got)
	}
	if got := Denied("no-such-reason", ""); got != DeniedInternal {
		t.Errorf("unknown reason: %q", got)
	}
}

func TestWhoWaitsAsLongAsIsSaidMayTryAgain(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "1 s", 1: "1 s", time.Second: "1 s", time.Second + 1: "2 s", 15 * time.Minute: "15 min",
	} {
		if got := Wait(d); !strings.Contains(got, "Wait "+want+",") {
			t.Errorf("Wait(%v) = %q, want %q", d, got, want)
		}
		if got := Locked(d); !strings.Contains(got, "for "+want+".") {
			t.Errorf("Locked(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestCountsAreWrittenAsPeopleSayThem(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{BackupLeft(0), "That was your last backup code. Have new ones made."},
		{BackupLeft(1), "1 backup code is left. Have new ones made."},
		{BackupLeft(3), "3 backup codes are left. Have new ones made soon."},
		{OfflineLeft(1, 2, 1), "Left for sign-in without the server: 1 day, 2 sign-ins, 1 wrong try. Connect before they are used up."},
		{EnrolType("ABCDEFGHIJ"), "Or type this key into it: ABCD EFGH IJ"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
