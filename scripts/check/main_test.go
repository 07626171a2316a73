package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadTests(t *testing.T) {
	for _, c := range []struct {
		name string
		in   string
		want outcome
	}{
		{
			"every test counts, a package does not",
			`{"Action":"pass","Package":"p","Test":"A/x"}
			 {"Action":"pass","Package":"p","Test":"A"}
			 {"Action":"pass","Package":"p"}
			 {"Action":"skip","Package":"without/tests"}`,
			outcome{tally: tally{passed: 2}},
		},
		{
			"a skip comes with its reason",
			`{"Action":"output","Package":"latchkey/p","Test":"A","Output":"    a_test.go:7: no TPM here\n"}
			 {"Action":"skip","Package":"latchkey/p","Test":"A"}`,
			outcome{tally: tally{skipped: 1}, skips: []string{"p.A: no TPM here"}},
		},
		{
			"a failing subtest is shown, its parent only counted",
			`{"Action":"output","Package":"p","Test":"A/x","Output":"    a_test.go:9: wrong\n"}
			 {"Action":"output","Package":"p","Test":"A","Output":"a long story\n"}
			 {"Action":"fail","Package":"p","Test":"A/x"}
			 {"Action":"fail","Package":"p","Test":"A"}
			 {"Action":"fail","Package":"p"}`,
			outcome{tally: tally{failed: 2}, tail: []string{"--- p A/x", "    a_test.go:9: wrong"}},
		},
		{
			"a package that does not build is a failure",
			`{"ImportPath":"p","Action":"build-output","Output":"p/a.go:3: undefined: x\n"}
			 {"ImportPath":"p","Action":"build-fail"}
			 {"Action":"fail","Package":"p"}`,
			outcome{tally: tally{failed: 1}, tail: []string{"p/a.go:3: undefined: x", "--- p "}},
		},
		{
			"a package that crashes is a failure, even when its tests passed",
			`{"Action":"pass","Package":"p","Test":"A"}
			 {"Action":"output","Package":"p","Output":"panic: oh\n"}
			 {"Action":"fail","Package":"p"}`,
			outcome{tally: tally{passed: 1, failed: 1}, tail: []string{"--- p ", "panic: oh"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := readTests(strings.NewReader(c.in), nil)
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(outcome{}, tally{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestReadAbuse(t *testing.T) {
	const page = "# Title\n\n## Disks\n\n| case | what happens | test |\n|---|---|---|\n" +
		"| full \\| small | denied | `e2e.TestFull`, case a; `vault.TestFullToo` |\n| slow | nothing |  |\n"
	want := []abuseCase{
		{"Disks", `full ¦ small`, []string{"e2e.TestFull", "vault.TestFullToo"}},
		{"Disks", "slow", nil},
	}
	if d := cmp.Diff(want, readAbuse(page), cmp.AllowUnexported(abuseCase{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestEveryCaseOfAbuseNamesItsTest: that the tests exist is the house test's to see.
func TestEveryCaseOfAbuseNamesItsTest(t *testing.T) {
	b, err := os.ReadFile("../../docs/abuse.md")
	if err != nil {
		t.Fatal(err)
	}
	cases := readAbuse(string(b))
	if len(cases) < 10 {
		t.Errorf("%d cases: the tables are not read", len(cases))
	}
	for _, c := range cases {
		if len(c.tests) == 0 {
			t.Errorf("%s: %s names no test", c.section, c.name)
		}
	}
}
