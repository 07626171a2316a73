package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// abuseCase is a row of docs/abuse.md.
type abuseCase struct {
	section, name string
	tests         []string // "package.TestName", the package by the last element of its path
}

var namedTest = regexp.MustCompile("`(\\w+)\\.(Test\\w+)`")

// readAbuse finds the rows of the page's tables: the first cell is the case, the last names its tests.
func readAbuse(page string) (cases []abuseCase) {
	section := ""
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if t, ok := strings.CutPrefix(line, "## "); ok {
			section = t
		}
		cells := strings.Split(strings.Trim(strings.ReplaceAll(line, `\|`, "¦"), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) < 2 {
			continue
		}
		c := abuseCase{section: section, name: strings.TrimSpace(cells[0])}
		for _, m := range namedTest.FindAllStringSubmatch(cells[len(cells)-1], -1) {
			c.tests = append(c.tests, m[1]+"."+m[2])
		}
		if strings.Trim(c.name, "-: ") == "" || strings.TrimSpace(cells[len(cells)-1]) == "test" {
			continue // the line under the heading, and the heading
		}
		cases = append(cases, c)
	}
	return cases
}

// abuse runs the long form of every test that docs/abuse.md names and writes a report, case by case.
func abuse(r *runner) {
	const report = "artifacts/abuse-report.md"
	b, err := os.ReadFile("docs/abuse.md")
	if err != nil {
		r.note(err.Error())
		return
	}
	cases := readAbuse(string(b))
	if len(cases) == 0 {
		r.note("docs/abuse.md has no case")
		return
	}
	if ok, why := privileged(); !ok {
		r.skip("everything", why)
		return
	}
	paths, err := goList("-tags", tagged, "./...")
	if err != nil {
		r.note(err.Error())
		return
	}
	where := map[string][]string{}
	for _, p := range paths {
		where[path.Base(p)] = append(where[path.Base(p)], p)
	}
	names, packages := map[string]bool{}, map[string]bool{}
	for _, c := range cases {
		for _, t := range c.tests {
			pkg, name, _ := strings.Cut(t, ".")
			names[name] = true
			for _, p := range where[pkg] {
				packages[p] = true
			}
		}
	}
	if !r.command("release programs", []string{"scripts/build"}) || !r.command("test programs", []string{"scripts/build", "--test"}) {
		return
	}
	done := map[string]testEvent{}
	keep := func(e testEvent) {
		if e.Test != "" && !strings.Contains(e.Test, "/") {
			done[path.Base(e.Package)+"."+e.Test] = e
		}
	}
	args := []string{
		"scripts/go", "test", "-json", "-tags", tagged, "-count=1", "-timeout", "6h", "-p", "1",
		"-run", "^(" + strings.Join(sorted(names), "|") + ")$",
	}
	began := time.Now()
	before, failed := r.here().failed, len(r.failed)
	var got outcome
	read := func(in io.Reader) outcome {
		got = readTests(in, keep)
		return got
	}
	if !r.run("long form", append(args, sorted(packages)...), read, env("LATCHKEY_TEST_LONG=1")) {
		// As testsOnReal does: hours of real programs on a machine that others use, too.
		bad := map[string]bool{}
		for _, e := range done {
			if e.Action == "fail" {
				bad[e.Test], packages[e.Package] = true, false
			}
		}
		for p, others := range packages {
			if others {
				delete(packages, p)
			}
		}
		if len(bad) > 0 && len(bad) <= mostRepeated && !got.died {
			log := r.failed[len(r.failed)-1]
			args[len(args)-1] = "^(" + strings.Join(sorted(bad), "|") + ")$"
			if r.run("long form, once more", append(args, sorted(packages)...), read, env("LATCHKEY_TEST_LONG=1")) {
				r.here().failed, r.failed = before, r.failed[:failed]
				r.unsteady = append(r.unsteady, strings.Join(sorted(bad), ", ")+": failed first, passed alone; "+log)
			}
		}
	}

	var out strings.Builder
	version, _ := os.ReadFile("VERSION")
	fmt.Fprintf(&out, "# Abuse, the long form\n\nVersion %s, begun %s, %s long. The cases and their outcomes are in docs/abuse.md.\n",
		strings.TrimSpace(string(version)), began.UTC().Format(time.RFC3339), time.Since(began).Round(time.Second))
	section, missing := "", 0
	for _, c := range cases {
		if c.section != section {
			section = c.section
			fmt.Fprintf(&out, "\n## %s\n\n| case | result | test |\n|---|---|---|\n", section)
		}
		verdict, tests := "", []string{}
		for _, t := range c.tests {
			e, ok := done[t]
			if !ok {
				e.Action = "NOT RUN"
			}
			if e.Action != "pass" {
				missing++
				e.Action = strings.ToUpper(e.Action)
			}
			verdict = cmp.Or(verdict, e.Action)
			if e.Action != "pass" {
				verdict = e.Action
			}
			tests = append(tests, fmt.Sprintf("%s (%.1f s)", t, e.Elapsed))
		}
		if len(c.tests) == 0 {
			verdict, missing = "NO TEST", missing+1
		}
		fmt.Fprintf(&out, "| %s | %s | %s |\n", c.name, verdict, strings.Join(tests, ", "))
	}
	for _, u := range r.unsteady {
		fmt.Fprintf(&out, "\nUnsteady: %s\n", u)
	}
	fmt.Fprintf(&out, "\n%d cases, %d tests that did not pass or did not run.\n", len(cases), missing)
	if err = os.MkdirAll(filepath.Dir(report), 0o755); err == nil {
		err = os.WriteFile(report, []byte(out.String()), 0o644)
	}
	if err != nil {
		r.note(err.Error())
		return
	}
	fmt.Printf("   %d cases; the report is %s\n", len(cases), report)
	if missing > 0 {
		r.note(fmt.Sprintf("%d tests of the list did not pass or did not run, see %s", missing, report))
	}
}

func sorted(m map[string]bool) []string {
	var s []string
	for k := range m {
		s = append(s, k)
	}
	slices.Sort(s)
	return s
}
