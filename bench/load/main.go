// Command load measures a Latchkey server under load, with the release programs over real mutual TLS: TOTP
// verifications per second with durable events on SQLite and PostgreSQL, thousands of idle machines and the time
// until all of them know of a change, thousands that wait for a phone and the time until they know its answer, what
// offline data costs, joining, and the sizes of the programs.
//
// It promises: every figure comes from this run, beside the processor time of each process, because generator and
// server share the machine; every answer is checked, and one that is not what it must be ends the run; a shortcut
// stands in the figure's note. Rows: O5, O7, O14, W7, S2, S11; architecture §8.
//
// Parts of it run as processes of their own: the machines (`load crowd`, `load sitters`), and the peers (`load peer`,
// `load bell`).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// figure is one line of the report.
type figure struct {
	Part  string  `json:"part"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Note  string  `json:"note,omitempty"`
}

// report collects figures; the table is printed as they come, so that a long run shows where it is.
type report struct {
	out     io.Writer
	form    string // table, markdown or json
	part    string
	Figures []figure `json:"figures"`
}

func (r *report) begin(part string) {
	r.part = part
	switch r.form {
	case "table":
		fmt.Fprintf(r.out, "\n%s\n", part)
	case "markdown":
		fmt.Fprintf(r.out, "\n### %s\n\n| what | figure | beside it |\n|---|---|---|\n", part)
	}
}

func (r *report) add(name string, value float64, unit, note string) {
	r.Figures = append(r.Figures, figure{r.part, name, value, unit, note})
	switch r.form {
	case "json":
		return
	case "markdown":
		fmt.Fprintf(r.out, "| %s | %s %s | %s |\n", strings.Replace(name, "  ", "… ", 1), short(value), unit, note)
		return
	}
	if note != "" {
		note = "  " + note
	}
	pad := strings.Repeat(" ", max(0, 58-utf8.RuneCountInString(name)))
	fmt.Fprintf(r.out, "  %s%s %10s %-7s%s\n", name, pad, short(value), unit, note)
}

// short writes three significant digits, and whole numbers whole.
func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// options are the settings of a run.
type options struct {
	root     string
	bin      string
	short    bool
	output   string
	parts    string
	machines string
	waiting  int
	rate     int
	engines  string
	keep     bool
}

// parts in the order in which they run.
var parts = []struct {
	name string
	do   func(context.Context, *options, *report) error
}{
	{"sizes", sizes},
	{"signin", signins},
	{"bundle", bundles},
	{"idle", idle},
	{"push", pushes},
}

func main() {
	if len(os.Args) == 2 {
		switch os.Args[1] {
		case crowdCommand:
			os.Exit(crowdMain(os.Stdin, os.Stdout, os.Stderr))
		case sittersCommand:
			os.Exit(sittersMain(os.Stdin, os.Stdout, os.Stderr))
		case bellCommand:
			os.Exit(bellMain(os.Stdin, os.Stdout, os.Stderr))
		case peerCommand:
			os.Exit(peerMain(os.Stdin, os.Stdout, os.Stderr))
		}
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	var o options
	f := flag.NewFlagSet("load", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.root, "root", ".", "folder of the repository")
	f.StringVar(&o.bin, "bin", "", "folder of the release programs (default bin in the repository)")
	f.BoolVar(&o.short, "short", false, "a small run of everything: shows that it works, its figures mean little")
	f.StringVar(&o.output, "output", "table", "table, markdown or json")
	f.StringVar(&o.parts, "parts", strings.Join(names, ","), "which parts to run")
	f.StringVar(&o.machines, "machines", "", "how many idle machines, one run each (default 1000,10000,50000; short: 200)")
	f.IntVar(&o.waiting, "waiting", 0, "how many machines wait for a phone (default 10000; short: 200)")
	f.IntVar(&o.rate, "rate", 0, "how many phones answer in a second (default 50; short: 20)")
	f.StringVar(&o.engines, "engines", "sqlite,postgresql", "databases for sign-ins and phones; postgresql needs the Debian package and is left out, loudly, without it")
	f.BoolVar(&o.keep, "keep", false, "leave the working folder behind")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if f.NArg() > 0 || !slices.Contains([]string{"table", "markdown", "json"}, o.output) {
		fmt.Fprintln(stderr, "load: allowed are flags only, and --output table, markdown or json; see load -h")
		return 2
	}
	if o.bin == "" {
		o.bin = filepath.Join(o.root, "bin")
	}
	wanted := strings.Split(o.parts, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			fmt.Fprintf(stderr, "load: -parts: %q is not known; allowed are %s\n", w, strings.Join(names, ", "))
			return 2
		}
	}
	if o.machines == "" {
		o.machines = "1000,10000,50000"
		if o.short {
			o.machines = "200"
		}
	}
	if o.waiting < 0 || o.waiting > 100_000 || o.rate < 0 || o.rate > 10_000 {
		fmt.Fprintln(stderr, "load: -waiting is a number up to 100000, -rate one up to 10000")
		return 2
	}
	if o.waiting == 0 {
		if o.waiting = 10_000; o.short {
			o.waiting = 200
		}
	}
	if o.rate == 0 {
		if o.rate = 50; o.short {
			o.rate = 20
		}
	}
	for _, p := range []string{"latchkeyd", "latchkey-agent", "latchkey", "pam_latchkey.so"} {
		if _, err := os.Stat(filepath.Join(o.bin, p)); err != nil {
			fmt.Fprintf(stderr, "load: %v: build the programs first with make build, or name their folder with -bin\n", err)
			return 2
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := &report{out: stdout, form: o.output}
	if r.form != "json" {
		fmt.Fprintf(stdout, "Load, on %s, %d cores, %s, %s\n", cpuModel(), runtime.NumCPU(), runtime.Version(), time.Now().UTC().Format("2006-01-02 15:04 UTC"))
	}
	var failed error
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) || failed != nil {
			continue
		}
		if err := p.do(ctx, &o, r); err != nil {
			failed = fmt.Errorf("%s: %w", p.name, err)
		}
	}
	if r.form == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		failed = errors.Join(failed, enc.Encode(map[string]any{
			"at": time.Now().UTC().Format(time.RFC3339), "cpu": cpuModel(), "cores": runtime.NumCPU(), "go": runtime.Version(), "short": o.short, "figures": r.Figures,
		}))
	}
	if failed != nil {
		fmt.Fprintf(stderr, "load: %v\n", failed)
		return 1
	}
	return 0
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
