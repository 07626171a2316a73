package main

import (
	"os"
	"path/filepath"
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
			outcome{died: true, tally: tally{failed: 1}, tail: []string{"p/a.go:3: undefined: x", "--- p "}},
		},
		{
			"a package that crashes is a failure, even when its tests passed",
			`{"Action":"pass","Package":"p","Test":"A"}
			 {"Action":"output","Package":"p","Output":"panic: oh\n"}
			 {"Action":"fail","Package":"p"}`,
			outcome{died: true, tally: tally{passed: 1, failed: 1}, tail: []string{"--- p ", "panic: oh"}},
		},
		{
			"a data race is seen",
			`{"Action":"output","Package":"p","Test":"A","Output":"WARNING: DATA RACE\n"}
			 {"Action":"output","Package":"p","Test":"A","Output":"Read at 0x1 by goroutine 1:\n"}
			 {"Action":"output","Package":"p","Test":"A","Output":"==================\n"}
			 {"Action":"fail","Package":"p","Test":"A"}`,
			outcome{raced: true, tally: tally{failed: 1}, tail: []string{"--- p A", "WARNING: DATA RACE", "Read at 0x1 by goroutine 1:", "=================="}},
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

// TestOnceMore: what failed is run again alone, but not what died, nor many.
func TestOnceMore(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("scripts/go", "#!/bin/sh\nexec go \"$@\"\n")
	write("go.mod", "module sample\n\ngo 1.26\n")
	const head = "package sample\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestGood(*testing.T) {}\n\n"
	const once = "func TestUnsteady(t *testing.T) {\n\tif os.Mkdir(\"seen\", 0o755) == nil {\n\t\tt.Fatal(\"the first time\")\n\t}\n}\n"
	t.Chdir(dir)
	for _, c := range []struct {
		name, source string
		good         bool
		unsure       int
	}{
		{"unsteady", once, true, 1},
		{"fails twice", once + "func TestBad(t *testing.T) { _ = os.Args; t.Fail() }\n", false, 0},
		{"dies", "func TestDies(*testing.T) { _ = os.Args; panic(\"gone\") }\n", false, 0},
		{"does not build", "func TestNone(*testing.T) { nothing }\n", false, 0},
		{"many", once + "func TestA(t *testing.T) { t.Fail() }\nfunc TestB(t *testing.T) { t.Fail() }\nfunc TestC(t *testing.T) { t.Fail() }\n", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_ = os.Remove("seen")
			write("a_test.go", head+c.source)
			r := &runner{ctx: t.Context(), logs: t.TempDir(), results: []result{{name: "sample"}}}
			good := r.testsOnReal("go test", []string{"-count=1"}, []string{"."})
			if h := r.here(); good != c.good || c.good == (h.failed > 0) || len(r.unsteady) != c.unsure || c.good != (len(r.failed) == 0) {
				t.Errorf("good %v, %d failed, unsteady %q, failed %q", good, h.failed, r.unsteady, r.failed)
			}
		})
	}
}
