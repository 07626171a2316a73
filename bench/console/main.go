// Command console measures how long the pages of the console and the lists of the API take on a database as large as a
// year of a large organisation (package fill: 100 000 users and machines, 10 million events), on SQLite and PostgreSQL.
//
// It promises: the real latchkeyd of the release build answers over TLS as it does to a browser; a time is that of one
// whole request over an open connection, so it holds the server's time and a little more; every answer is checked; pages
// are those of the server's own list of routes, none is left out. Rows: V2, P3, O14; issue "Console", Speed.
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
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"latchkey/test/fill"
)

type options struct {
	bin     string
	engines string
	part    int
	events  int
	only    *regexp.Regexp
	dir     string
	rounds  int
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	var o options
	f := flag.NewFlagSet("console", flag.ContinueOnError)
	f.SetOutput(stderr)
	root := f.String("root", ".", "folder of the repository")
	f.StringVar(&o.bin, "bin", "", "folder of the release programs (default bin in the repository)")
	f.StringVar(&o.engines, "engines", "sqlite,postgresql", "databases; postgresql needs the Debian package and is left out, loudly, without it")
	f.IntVar(&o.part, "part", 1, "only one part in so many of everything: 10 for a tenth")
	f.IntVar(&o.events, "events", 0, "so many events, where the room does not do for all (1.6 GB a million on SQLite, 2.4 on PostgreSQL)")
	only := f.String("only", "", "only pages and lists whose address matches the expression")
	f.StringVar(&o.dir, "dir", "", "working folder, left behind and used again by the next run (default: a new one that is removed)")
	f.IntVar(&o.rounds, "rounds", 100, "requests of each page")
	if err := f.Parse(args); err != nil {
		return 2
	}
	if f.NArg() > 0 || o.part < 1 || o.part > 1000 || o.rounds < 1 {
		fmt.Fprintln(stderr, "console: allowed are flags only, -part 1 to 1000 and -rounds 1 or more; see console -h")
		return 2
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintf(stderr, "console: -only: %v\n", err)
		return 2
	}
	if o.bin == "" {
		o.bin = filepath.Join(*root, "bin")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := measure(ctx, o, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "console: %v\n", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("/tmp", "latchkey-console-"); err != nil { // a socket's path is short
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	if err := os.MkdirAll(o.dir, 0o711); err != nil { //nolint:gosec // the account postgres walks through
		return err
	}
	if err := os.Chmod(o.dir, 0o711); err != nil { //nolint:gosec // as above
		return err
	}
	size := fill.Full.Part(o.part)
	if o.events > 0 {
		size.Events = o.events
	}
	fmt.Fprintf(stdout, "Console, on %d cores, %s, %s: %d users, %d groups, %d machines, %d events; %d requests of each page\n",
		runtime.NumCPU(), runtime.Version(), time.Now().UTC().Format("2006-01-02 15:04 UTC"), size.Users, size.Groups, size.Machines, size.Events, o.rounds)
	var columns []string
	table := map[string][]string{}
	var order []string
	for engine := range strings.SplitSeq(o.engines, ",") {
		took, err := one(ctx, o, size, engine, stdout, stderr)
		if errors.Is(err, errNoPostgres) {
			fmt.Fprintf(stdout, "\n%s is left out: %v\n", engine, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", engine, err)
		}
		columns = append(columns, engine)
		for _, t := range took {
			if _, ok := table[t.name]; !ok {
				order = append(order, t.name)
			}
			table[t.name] = append(table[t.name], t.String())
		}
	}
	fmt.Fprintf(stdout, "\n| page | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, name := range order {
		fmt.Fprintf(stdout, "| %s | %s |\n", name, strings.Join(table[name], " | "))
	}
	return nil
}

// timed is what one page took.
type timed struct {
	name  string
	times []time.Duration
	size  int
}

func quantile(times []time.Duration, p float64) time.Duration {
	s := slices.Sorted(slices.Values(times))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

func (t timed) String() string {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/1e6) }
	return ms(quantile(t.times, .5)) + " / " + ms(quantile(t.times, .99)) + " ms"
}

// one measures on one engine. What was made is remembered in the folder, for the next run on it.
func one(ctx context.Context, o options, size fill.Size, engine string, stdout, stderr io.Writer) (out []timed, err error) {
	w, fresh, err := openWorld(o.dir, o.bin, engine)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	var named fill.Named
	memory := filepath.Join(w.dir, "named.json")
	if fresh {
		begun := time.Now()
		made, err := fill.Database(ctx, w.data(), w.database(), size)
		if err != nil {
			return nil, err
		}
		named = made.Named
		took := time.Since(begun)
		fmt.Fprintf(stdout, "\n%s: filled in %s (events %s, indices %s), %.1f GB\n", engine, took.Round(time.Second), made.Took["events"].Round(time.Second), made.Took["indices"].Round(time.Second), float64(w.size())/1e9)
		b, err := json.Marshal(struct {
			fill.Named
			Key []byte
		}{named, named.Key.Reveal()})
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(memory, b, 0o600); err != nil {
			return nil, err
		}
	} else if named, err = remember(memory); err != nil {
		return nil, err
	}
	database := w.database()
	if database == "" {
		database = "sqlite:" + filepath.Join(w.data(), "latchkey.db")
	}
	cookie, err := fill.Session(ctx, database, named.Admin, time.Now())
	if err != nil {
		return nil, err
	}
	if err := w.serve(ctx); err != nil {
		return nil, err
	}
	return w.pages(ctx, o, named, cookie, stderr)
}
