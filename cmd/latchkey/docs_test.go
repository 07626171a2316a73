package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey/internal/clock"
	"latchkey/internal/event"
)

var update = flag.Bool("update", false, "write the reference into the pages anew")

// TestPagesAreFresh: the references in docs/cli.md and docs/events.md are those of
// this program. go test ./cmd/latchkey -run Pages -update writes them.
func TestPagesAreFresh(t *testing.T) {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, clock: clock.Real}
	var cli, events strings.Builder
	reference(&cli, a.root())
	fmt.Fprintf(&events, "| type | meaning |\n|---|---|\n")
	types := make([]string, 0, len(event.Meaning))
	for w := range event.Meaning {
		types = append(types, string(w))
	}
	slices.Sort(types)
	for _, w := range types {
		fmt.Fprintf(&events, "| `%s` | %s |\n", w, event.Meaning[event.Type(w)])
	}
	fmt.Fprintf(&events, "\n## Reasons\n\n| reason | meaning |\n|---|---|\n")
	for _, w := range slices.Sorted(maps.Keys(event.Reasons)) {
		fmt.Fprintf(&events, "| `%s` | %s |\n", w, event.Reasons[w])
	}
	for page, want := range map[string]string{"../../docs/cli.md": cli.String(), "../../docs/events.md": events.String()} {
		const begin, end = "<!-- reference: begin -->\n", "<!-- reference: end -->\n"
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		head, rest, ok := strings.Cut(string(b), begin)
		got, tail, ok2 := strings.Cut(rest, end)
		if !ok || !ok2 {
			t.Fatalf("%s has no place for the reference", page)
		}
		switch {
		case got == want:
		case *update:
			if err := os.WriteFile(page, []byte(head+begin+want+end+tail), 0o644); err != nil {
				t.Fatal(err)
			}
		default:
			t.Errorf("%s is out of date; run go test ./cmd/latchkey -run Pages -update", page)
		}
	}
}

// reference writes every command with its flags: first those that are no noun.
func reference(w *strings.Builder, root *cobra.Command) {
	var nouns []*cobra.Command
	for _, c := range root.Commands() {
		switch {
		case c.Hidden || c.Name() == "completion" || c.Name() == "help":
		case c.Flags().HasFlags() || !c.HasSubCommands():
			entry(w, c)
		default:
			nouns = append(nouns, c)
		}
	}
	for _, c := range nouns {
		fmt.Fprintf(w, "\n### %s\n\n%s.\n\n", c.Name(), c.Short)
		for _, sub := range c.Commands() {
			entry(w, sub)
		}
	}
}

// entry writes a command and those below it. One that only holds others has no line.
func entry(w *strings.Builder, c *cobra.Command) {
	if c.LocalFlags().HasFlags() || !c.HasSubCommands() {
		fmt.Fprintf(w, "* `%s`: %s\n", strings.TrimSuffix(c.UseLine(), " [flags]"), c.Short)
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" || f.Hidden {
				return
			}
			kind, usage := pflag.UnquoteUsage(f)
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			switch kind {
			case "":
			case "time":
				name += " TIME"
			case "int":
				name += " N"
			default:
				name += " …"
			}
			fmt.Fprintf(w, "  * `%s` %s\n", name, usage)
		})
	}
	for _, sub := range c.Commands() {
		entry(w, sub)
	}
}
