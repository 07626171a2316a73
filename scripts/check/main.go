// Command check is what `make test` runs: every check of this repository, part by part, with one summary at the end
// that says what ran, what failed, and what was skipped and why. Its last line has the plain form
// "N passed, N failed, N skipped"; a count is one test, one fuzz target or one command.
//
// The full output of each check is kept in artifacts/test/NAME.log; the tail of a failing one is shown.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// part is a group of checks that can be run alone: `make test PART=name`.
type part struct {
	name string
	what string
	run  func(*runner)
	// alone is a part that runs only where it is named.
	alone bool
}

// parts stand in the order in which they run: what fails fast comes first.
var parts = []part{
	{"lint", "formatting, vet, staticcheck, who may import whom", lint, false},
	{"generated", "generated code and module files are fresh", generated, false},
	{"unit", "tests of every package, on SQLite and PostgreSQL", unit, false},
	{"race", "the same under the race detector", race, false},
	{"native", "the PAM module with gcc and clang, sanitizers, fuzzing", native, false},
	{"cross", "linux, windows, darwin on amd64 and arm64", cross, false},
	{"fuzz", "every parser of bytes from outside", fuzz, false},
	{"e2e", "real programs in namespaces", endToEnd, false},
	{"browser", "every page of console and portal in a real browser", inBrowser, false},
	{"demo", "the story of make demo, played by itself", demo, false},
	{"abuse", "the long form of every case of docs/abuse.md, with a report", abuse, true},
}

func main() {
	which := flag.String("part", "all", "part to run")
	fuzztime := flag.String("fuzztime", "5s", "how long each fuzz target runs")
	flag.Parse()
	if _, err := time.ParseDuration(*fuzztime); err != nil {
		fmt.Fprintf(os.Stderr, "FUZZTIME=%s is no duration; allowed are texts such as 5s or 10m\n", *fuzztime)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &runner{ctx: ctx, fuzztime: *fuzztime, logs: filepath.Join("artifacts", "test")}
	if err := os.MkdirAll(r.logs, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	found := false
	for _, p := range parts {
		if *which != p.name && (p.alone || *which != "all" && *which != "") {
			continue
		}
		found = true
		if ctx.Err() != nil {
			break
		}
		r.begin(p)
		p.run(r)
		r.end()
	}
	if !found {
		var names []string
		for _, p := range parts {
			names = append(names, p.name)
		}
		fmt.Fprintf(os.Stderr, "PART=%s is not known; allowed are all, %s\n", *which, strings.Join(names, ", "))
		os.Exit(2)
	}
	os.Exit(r.summary())
}

// tally counts checks.
type tally struct{ passed, failed, skipped int }

func (t *tally) add(o tally) {
	t.passed += o.passed
	t.failed += o.failed
	t.skipped += o.skipped
}

// result is what came of one part.
type result struct {
	name string
	tally
	took time.Duration
}

type runner struct {
	ctx      context.Context
	fuzztime string
	logs     string

	began   time.Time
	results []result
	failed  []string // "part/check: where to read on"
	skipped []string // "part/check: reason"
	// unsteady are tests that failed and then passed when they ran alone.
	unsteady []string
}

func (r *runner) begin(p part) {
	if r.began.IsZero() {
		r.began = time.Now()
	}
	fmt.Printf("== %s: %s\n", p.name, p.what)
	r.results = append(r.results, result{name: p.name, took: -time.Since(r.began)})
}

func (r *runner) end() { r.here().took += time.Since(r.began) }

func (r *runner) here() *result { return &r.results[len(r.results)-1] }

// skip records a check that was not run.
func (r *runner) skip(name, reason string) {
	fmt.Printf("   skip  %-34s %s\n", name, reason)
	r.here().skipped++
	r.skipped = append(r.skipped, r.here().name+"/"+name+": "+reason)
}

// note records a check that failed without a command.
func (r *runner) note(what string) {
	fmt.Println("   FAIL  " + what)
	r.here().failed++
	r.failed = append(r.failed, r.here().name+": "+what)
}

// opt changes how a command is run.
type opt func(*exec.Cmd)

func env(kv ...string) opt { return func(c *exec.Cmd) { c.Env = append(c.Env, kv...) } }

// outcome is what a reader of a command's output makes of it.
type outcome struct {
	tally
	skips []string
	died  bool     // a test program ended before it had run all its tests, or did not build
	raced bool     // the race detector reported something
	tail  []string // what to show when it failed; the last lines of the log if empty
}

// command runs one command as one check. It passes if it exits with 0.
func (r *runner) command(name string, argv []string, opts ...opt) bool {
	return r.run(name, argv, nil, opts...)
}

// silent runs a command that passes only if it exits with 0 and prints nothing, as formatters do.
func (r *runner) silent(name string, argv []string, opts ...opt) bool {
	return r.run(name, argv, func(out io.Reader) outcome {
		b, _ := io.ReadAll(out)
		if len(bytes.TrimSpace(b)) > 0 {
			return outcome{tally: tally{failed: 1}}
		}
		return outcome{tally: tally{passed: 1}}
	}, opts...)
}

// tests runs `go test -json` with the arguments and counts every test and subtest.
func (r *runner) tests(name string, args []string, opts ...opt) bool {
	return r.run(name, slices.Concat([]string{"scripts/go", "test", "-json"}, args), func(in io.Reader) outcome { return readTests(in, nil) }, opts...)
}

// mostRepeated is how many failed tests are run once more.
const mostRepeated = 3

// testsOnReal is tests for what runs beside real programs in real time, on a machine that somebody else may be using:
// at most mostRepeated tests that failed are run once more, alone, unless a data race was seen. The summary names them,
// and the log of the failure stays: what is unsteady is a fault of the test or of the product, and is looked into
// (docs/design/0023).
func (r *runner) testsOnReal(name string, args, pkgs []string, opts ...opt) bool {
	before, failed := r.here().failed, len(r.failed)
	names, in := map[string]bool{}, map[string]bool{}
	ended := func(e testEvent) {
		// A package with a failed test ends as failed itself; one that did not build, or died, says so otherwise.
		if top, _, _ := strings.Cut(e.Test, "/"); e.Action == "fail" && top != "" {
			names[top], in[e.Package] = true, true
		}
	}
	var got outcome
	if r.run(name, slices.Concat([]string{"scripts/go", "test", "-json"}, args, pkgs), func(in io.Reader) outcome {
		got = readTests(in, ended)
		return got
	}, opts...) {
		return true
	}
	if len(names) == 0 || len(names) > mostRepeated || got.died || got.raced || r.ctx.Err() != nil {
		return false
	}
	log := r.failed[len(r.failed)-1]
	if !r.tests(name+", once more", slices.Concat(args, []string{"-count=1", "-run", "^(" + strings.Join(sorted(names), "|") + ")$"}, sorted(in)), opts...) {
		return false
	}
	r.here().failed, r.failed = before, r.failed[:failed]
	r.unsteady = append(r.unsteady, strings.Join(sorted(names), ", ")+": failed first, passed alone; "+log)
	return true
}

func (r *runner) run(name string, argv []string, read func(io.Reader) outcome, opts ...opt) bool {
	if r.ctx.Err() != nil {
		return false
	}
	start := time.Now()
	file := filepath.Join(r.logs, strings.NewReplacer("/", "-", ", ", "-", " ", "-").Replace(r.here().name+"-"+name)+".log")
	log, err := os.Create(file)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer log.Close()
	shown := strings.Join(argv, " ")
	if len(shown) > 400 {
		shown = shown[:400] + "…"
	}
	fmt.Fprintf(log, "$ %s\n", shown)

	cmd := exec.CommandContext(r.ctx, argv[0], argv[1:]...)
	cmd.Env = os.Environ()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	for _, o := range opts {
		o(cmd)
	}
	var got outcome
	if read == nil {
		cmd.Stdout, cmd.Stderr = log, log
		err = r.alive(name, start, cmd.Run)
		if err == nil {
			got.passed = 1
		}
	} else {
		pr, pw := io.Pipe()
		shared := &lockedWriter{w: io.MultiWriter(log, pw)}
		cmd.Stdout, cmd.Stderr = shared, shared
		done := make(chan outcome)
		go func() {
			o := read(pr)
			_, _ = io.Copy(io.Discard, pr)
			done <- o
		}()
		err = r.alive(name, start, cmd.Run)
		pw.Close()
		got = <-done
	}
	if err != nil && got.failed == 0 {
		got.failed = 1
	}
	if err != nil {
		fmt.Fprintf(log, "\n%v\n", err)
	}
	r.here().add(got.tally)
	for _, s := range got.skips {
		r.skipped = append(r.skipped, r.here().name+"/"+name+": "+s)
	}
	took := time.Since(start).Round(time.Second / 10)
	count := ""
	if n := got.passed + got.failed + got.skipped; n != 1 {
		count = fmt.Sprintf("  %d passed", got.passed)
		if got.failed > 0 {
			count += fmt.Sprintf(", %d failed", got.failed)
		}
		if got.skipped > 0 {
			count += fmt.Sprintf(", %d skipped", got.skipped)
		}
	}
	if got.failed == 0 {
		fmt.Printf("   ok    %-34s %7s%s\n", name, took, count)
		return true
	}
	fmt.Printf("   FAIL  %-34s %7s%s\n", name, took, count)
	r.failed = append(r.failed, r.here().name+"/"+name+": see "+file)
	show := got.tail
	if len(show) == 0 {
		show = tail(file, 40)
	}
	for _, l := range show {
		fmt.Println("         | " + l)
	}
	fmt.Println("         all of it: " + file)
	return false
}

// lockedWriter lets standard output and error share one log.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// alive runs f and says every half minute that it is still at work.
func (r *runner) alive(name string, start time.Time, f func() error) error {
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		t := time.NewTicker(30 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				fmt.Printf("   ...   %-34s %7s\n", name, time.Since(start).Round(time.Second))
			case <-stop:
				return
			}
		}
	}()
	return f()
}

func tail(file string, n int) []string {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return lines[max(0, len(lines)-n):]
}

// testEvent is a line of `go test -json`.
type testEvent struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64 // seconds
}

var sourceLine = regexp.MustCompile(`^\s+\w+\.go:\d+: (.*)`)

// readTests counts the tests in a stream of `go test -json`. A package that fails without a failing test (it did not
// build, it crashed) counts as one failure. ended is told of every test that passed, failed or was skipped.
func readTests(in io.Reader, ended func(testEvent)) outcome {
	var got outcome
	output := map[string][]string{} // of each test
	build := map[string][]string{}
	failedIn := map[string]bool{}
	failed := map[string]bool{} // tests with a failed test inside
	sc := bufio.NewScanner(in)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var e testEvent
		if json.Unmarshal(sc.Bytes(), &e) != nil {
			got.tail = append(got.tail, sc.Text())
			continue
		}
		key := e.Package + "\x00" + e.Test
		if ended != nil && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			ended(e)
		}
		switch e.Action {
		case "build-output":
			build[e.ImportPath] = append(build[e.ImportPath], strings.TrimRight(e.Output, "\n"))
		case "build-fail":
			got.tail = append(got.tail, build[e.ImportPath]...)
		case "output":
			got.died = got.died || strings.HasPrefix(e.Output, "panic: ") || e.Test == "" && strings.HasPrefix(e.Output, "exit status ") && e.Output != "exit status 1\n"
			got.raced = got.raced || strings.HasPrefix(e.Output, "WARNING: DATA RACE")
			if o := output[key]; len(o) < 400 {
				output[key] = append(o, strings.TrimRight(e.Output, "\n"))
			}
		case "pass":
			if e.Test != "" {
				got.passed++
			}
			delete(output, key)
		case "skip":
			if e.Test == "" { // a package without tests
				continue
			}
			got.skipped++
			reason := "no reason given"
			for _, l := range output[key] {
				if m := sourceLine.FindStringSubmatch(l); m != nil {
					reason = m[1]
				}
			}
			got.skips = append(got.skips, strings.TrimPrefix(e.Package, "latchkey/")+"."+e.Test+": "+reason)
		case "fail":
			if e.Test == "" && failedIn[e.Package] {
				continue
			}
			got.died = got.died || e.Test == ""
			failedIn[e.Package] = true
			got.failed++
			if failed[key] { // a test inside it failed and said why
				continue
			}
			for i, c := range e.Test {
				if c == '/' {
					failed[e.Package+"\x00"+e.Test[:i]] = true
				}
			}
			got.tail = append(got.tail, "--- "+e.Package+" "+e.Test)
			got.tail = append(got.tail, last(output[key], 60)...)
		}
	}
	if err := sc.Err(); err != nil {
		got.failed++
		got.tail = append(got.tail, err.Error())
	}
	if got.failed == 0 {
		got.tail = nil
	} else if len(got.tail) > 160 {
		got.tail = append(got.tail[:160], "…")
	}
	return got
}

func last(s []string, n int) []string { return s[max(0, len(s)-n):] }

func (r *runner) summary() int {
	var all tally
	fmt.Printf("== summary, after %s\n", time.Since(r.began).Round(time.Second))
	fmt.Printf("   %-12s %7s %7s %7s %9s\n", "part", "passed", "failed", "skipped", "time")
	for _, p := range r.results {
		fmt.Printf("   %-12s %7d %7d %7d %9s\n", p.name, p.passed, p.failed, p.skipped, p.took.Round(time.Second))
		all.add(p.tally)
	}
	for _, s := range r.failed {
		fmt.Println("   failed:  " + s)
	}
	for _, s := range r.skipped {
		fmt.Println("   skipped: " + s)
	}
	for _, s := range r.unsteady {
		fmt.Println("   UNSTEADY: " + s)
	}
	if r.ctx.Err() != nil {
		fmt.Println("   interrupted: the rest did not run")
		all.failed++
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", all.passed, all.failed, all.skipped)
	if all.failed > 0 || all.passed == 0 {
		return 1
	}
	return 0
}

// goList prints the packages that match, one per line of the template.
func goList(args ...string) ([]string, error) {
	out, err := exec.Command("scripts/go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		var ee *exec.ExitError
		if errors.As(err, &ee) {
			err = fmt.Errorf("go list: %s", ee.Stderr)
		}
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

// tagged is every build tag of the tests; what only exists under them is vetted and checked too.
const tagged = "latchkey_test,e2e"

func lint(r *runner) {
	files, err := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "*.go").Output()
	if err != nil {
		r.run("gofumpt", []string{"git", "ls-files"}, nil)
	} else {
		list := slices.DeleteFunc(strings.Fields(string(files)), func(f string) bool {
			_, err := os.Stat(f)
			return err != nil || strings.HasSuffix(f, "_templ.go") // as its tool writes it
		})
		r.silent("gofumpt", append([]string{".cache/tools/gofumpt", "-l"}, list...))
	}
	r.command("go vet", []string{"scripts/go", "vet", "./..."})
	r.command("go vet -tags "+tagged, []string{"scripts/go", "vet", "-tags", tagged, "./..."})
	r.command("staticcheck", []string{".cache/tools/staticcheck", "./..."}, goEnv)
	r.command("staticcheck -tags "+tagged, []string{".cache/tools/staticcheck", "-tags", tagged, "./..."}, goEnv)
	r.tests("house", []string{"-count=1", "./internal/housetest"})
	r.command("shell syntax", []string{"sh", "-c", `for f in scripts/* .ci/run; do
		case $(head -n 1 "$f" 2>/dev/null) in
		"#!/bin/bash") bash -n "$f" || exit 1 ;;
		"#!/bin/sh") sh -n "$f" || exit 1 ;;
		esac; done`})
}

// goEnv gives a tool that calls the go command by itself the settings of scripts/go.
func goEnv(c *exec.Cmd) {
	c.Env = append(c.Env, "CGO_ENABLED=0", "GOFLAGS="+os.Getenv("GOFLAGS")+" -trimpath -buildvcs=false")
}

func generated(r *runner) {
	r.command("go.mod is tidy", []string{"sh", "-c", `scripts/go mod tidy -diff >.cache/tidy.diff && exit 0
		head -n 30 .cache/tidy.diff; echo "run: go mod tidy"; exit 1`})
	// From which folder the tool was run, and whether a formatter went over its output, is no difference.
	r.command("templates", []string{"sh", "-c", `bad=0
		plain() { .cache/tools/gofumpt <"$1" | sed 's/FileName: .[^\x60]*.,//'; }
		for f in $(git ls-files --cached --others --exclude-standard '*.templ'); do
			[ -e "$f" ] || continue
			.cache/tools/templ generate -f "$f" -stdout >.cache/templ.go 2>.cache/templ.log || { cat .cache/templ.log; bad=1; continue; }
			plain .cache/templ.go >.cache/templ.want; plain "${f%.templ}_templ.go" >.cache/templ.have
			cmp -s .cache/templ.want .cache/templ.have || { echo "run: .cache/tools/templ generate -f $f"; bad=1; }
		done; exit $bad`})
	r.tests("generated code", []string{"-count=1", "-run", "Fresh|Generated", "./..."})
}

func unit(r *runner) {
	pkgs, err := goList("./...")
	if err != nil {
		r.command("go list", []string{"scripts/go", "list", "./..."})
		return
	}
	pkgs = slices.DeleteFunc(pkgs, func(p string) bool { return p == "latchkey/internal/housetest" }) // ran as lint
	r.testsOnReal("go test", []string{"-timeout", "10m"}, pkgs)
}

// unraced are the packages that race leaves without the detector: SQLite as C that was translated, which takes minutes
// to build under it and whose own locks are not what is to be found, and the C library below. The driver above them,
// which is Go, must have it: it uses sync.Map, and of a generic type's code the linker takes one copy for the whole
// program. A copy without the detector does not tell it who waited for whom, and races that are none are reported from
// wherever else a sync.Map is, crypto/tls for one. Its pointers into SQLite's memory are not the compiler's to check.
var unraced = []string{
	"-gcflags=modernc.org/libc/...=-race=false",
	"-gcflags=modernc.org/sqlite/lib=-race=false",
	"-gcflags=modernc.org/sqlite=-d=checkptr=0",
}

// race leaves the command out: it does one thing after another, and its scripts start a process a line.
func race(r *runner) {
	pkgs, err := goList("-f", "{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}", "./...")
	if err != nil {
		r.command("go list", []string{"scripts/go", "list", "./..."})
		return
	}
	pkgs = slices.DeleteFunc(pkgs, func(p string) bool { return p == "latchkey/internal/housetest" || p == "latchkey/cmd/latchkey" })
	r.testsOnReal("go test -race", slices.Concat([]string{"-race", "-timeout", "10m"}, unraced), pkgs, env("CGO_ENABLED=1"))
}

func native(r *runner) {
	for _, cc := range []string{"gcc", "clang"} {
		if _, err := exec.LookPath(cc); err != nil {
			r.skip("make test CC="+cc, cc+" is not installed")
			continue
		}
		r.command("make test CC="+cc, []string{"make", "-C", "native/pam", "CC=" + cc, "BIN=../../.cache/native-" + cc, "all", "test"})
	}
	if _, err := exec.LookPath("clang"); err != nil {
		r.skip("make fuzz", "clang is not installed")
		return
	}
	r.command("make fuzz", []string{"make", "-C", "native/pam", "BIN=../../.cache/native-clang", "FUZZTIME=" + seconds(r.fuzztime), "fuzz"})
}

// seconds turns a Go duration into the whole seconds that libFuzzer wants.
func seconds(d string) string {
	v, err := time.ParseDuration(d)
	if err != nil || v < time.Second {
		return "5"
	}
	return fmt.Sprint(int(v.Seconds()))
}

func cross(r *runner) {
	for _, goos := range []string{"linux", "windows", "darwin"} {
		for _, arch := range []string{"amd64", "arm64"} {
			target := env("CGO_ENABLED=0", "GOOS="+goos, "GOARCH="+arch)
			cmds := []string{"./cmd/latchkey-agent", "./cmd/latchkey"}
			if goos == "linux" && arch == "arm64" { // the server is big: one other target stands for all
				cmds = append(cmds, "./cmd/latchkeyd")
			}
			out := filepath.Join(".cache", "cross", goos+"-"+arch) + string(filepath.Separator)
			if err := os.MkdirAll(out, 0o755); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			r.command(goos+"/"+arch, append([]string{"scripts/go", "build", "-o", out}, cmds...), target)
		}
	}
	for _, goos := range []string{"windows", "darwin"} {
		r.command("staticcheck for "+goos, []string{".cache/tools/staticcheck", "-tests=false", "./cmd/latchkey-agent", "./cmd/latchkey", "./internal/agent/..."},
			goEnv, env("GOOS="+goos, "GOARCH=amd64"))
	}
	// Two builds of one commit are the same bytes.
	r.command("reproducible", []string{"sh", "-c", `set -e
		scripts/build >/dev/null; a=$(cd bin && sha256sum latchkey latchkeyd latchkey-agent)
		rm -f bin/latchkey bin/latchkeyd bin/latchkey-agent
		scripts/build >/dev/null; b=$(cd bin && sha256sum latchkey latchkeyd latchkey-agent)
		echo "$a"; test "$a" = "$b"`})
}

// fuzzOnce fuzzes one target. Go's fuzzer sometimes fails with nothing but "context deadline exceeded" when its time is up
// in the middle of a call; without a failing input that says nothing about the target, and it is tried again.
const fuzzOnce = `for try in 1 2 3; do
	out=$(scripts/go test "$@" 2>&1) && { echo "$out"; exit 0; }
	echo "$out"
	case $out in
	*"Failing input"* | *"seed corpus"*) exit 1 ;;
	*"context deadline exceeded"*) ;;
	*) exit 1 ;;
	esac
done
exit 1`

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(\w+ \*testing\.F\)`)

func fuzz(r *runner) {
	found := 0
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != "."):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range fuzzFunc.FindAllSubmatch(b, -1) {
			found++
			pkg, name := "./"+filepath.Dir(path), string(m[1])
			r.command(strings.TrimPrefix(strings.TrimPrefix(pkg, "./internal/"), "./")+" "+name, []string{
				"sh", "-c", fuzzOnce, "fuzz", "-run", "^$", "-fuzz", "^" + name + "$", "-fuzztime", r.fuzztime,
				"-parallel", fmt.Sprint(max(2, runtime.NumCPU())), pkg,
			})
		}
		return nil
	})
	if err != nil || found == 0 {
		fmt.Println("   FAIL  no fuzz target was found", err)
		r.here().failed++
	}
}

// privileged tells whether namespaces and mounts can be made here, and if not, why.
func privileged() (ok bool, why string) {
	if os.Geteuid() != 0 {
		return false, "needs root: it makes namespaces, users and mounts of its own"
	}
	if out, err := exec.Command("unshare", "-m", "-n", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt").CombinedOutput(); err != nil {
		return false, "needs CAP_SYS_ADMIN: " + strings.TrimSpace(string(out))
	}
	return true, ""
}

func endToEnd(r *runner) {
	if ok, why := privileged(); !ok {
		r.skip("everything", why)
		return
	}
	if !r.command("release programs", []string{"scripts/build"}) ||
		!r.command("test programs", []string{"scripts/build", "--test"}) {
		return
	}
	r.testsOnReal("go test", []string{"-tags", tagged, "-count=1", "-timeout", "45m"}, []string{"./test/e2e/..."})
	r.testsOnReal("killed at every point", []string{"-tags", tagged, "-count=1", "-timeout", "15m"}, []string{"./test/kill/..."})
}

func inBrowser(r *runner) {
	if !r.command("axe-core", []string{"scripts/axe"}) || !r.command("test programs", []string{"scripts/build", "--test"}) {
		return
	}
	r.testsOnReal("go test", []string{"-tags", tagged, "-count=1", "-timeout", "15m"}, []string{"./test/browser/..."})
	r.testsOnReal("a large organisation", []string{"-tags", tagged, "-count=1", "-timeout", "15m"}, []string{"./bench/console"})
}

func demo(r *runner) {
	if ok, why := privileged(); !ok {
		r.skip("make demo", why)
		return
	}
	if !r.command("make demo", []string{"make", "--no-print-directory", "demo"}) {
		return
	}
	r.command("without root, without TPM", []string{"sh", "-c", `set -e
		d=$(mktemp -d); trap 'rm -rf "$d"' EXIT; chmod 755 "$d"
		cp .cache/demo bin/latchkeyd bin/latchkey-agent bin/latchkey bin/pam_latchkey.so "$d"
		cd "$d"; setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/ ./demo -bin "$d" -no-tpm </dev/null`})
}
