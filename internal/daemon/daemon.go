// Package daemon is what the programs that run for ever share as processes: one command line of subcommands, one meaning
// of exit codes, one form of the log, and the word to the service manager.
//
// It promises: 0 is done, 1 failed, 2 used wrongly (flags, arguments, settings); an error is printed once, behind the
// program's name; the first signal to stop ends the context and the second one the process. Row: K1 (systemd).
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"latchkey/internal/buildinfo"
	"latchkey/internal/config"
)

// Main runs the program with what the process was given, and ends the process.
func Main(run func(ctx context.Context, args []string, stdout, stderr io.Writer) int) {
	withoutCore()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal finds nobody who listens
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// UsageError marks an error of the command line.
type UsageError struct{ error }

// Usage is an error of the command line with a text of its own.
func Usage(format string, a ...any) error { return UsageError{fmt.Errorf(format, a...)} }

// Unwrap gives the error that was marked.
func (e UsageError) Unwrap() error { return e.error }

// Command is the program itself: it only has commands, and version is added to them.
func Command(name, short string, commands ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{Use: name, Short: short, SilenceErrors: true, SilenceUsage: true}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return UsageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(commands...)
	root.AddCommand(&cobra.Command{
		Use: "version", Short: "Print the version", Args: NoArgs,
		Run: func(c *cobra.Command, _ []string) { fmt.Fprintln(c.OutOrStdout(), name, buildinfo.Get()) },
	})
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	most := strings.Join(names, ", ")
	root.Args = func(_ *cobra.Command, args []string) error {
		if len(args) > 0 {
			return Usage("there is no command %q; there are %s and version", args[0], most)
		}
		return nil
	}
	root.RunE = func(c *cobra.Command, _ []string) error {
		_ = c.Usage()
		return Usage("name a command: %s or version", most)
	}
	return root
}

// NoArgs is for commands that take flags alone.
func NoArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage("%q is one word too many", args[0])
	}
	return nil
}

// Run runs the command and gives the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
	var (
		usage UsageError
		bad   *config.Error
	)
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "%s: see: %s --help\n", root.Name(), cmd.CommandPath())
		return 2
	case errors.As(err, &bad):
		return 2
	}
	return 1
}

// Logger writes to w in the form text or json; auto is text to a terminal and JSON elsewhere.
func Logger(form string, w io.Writer) *slog.Logger {
	f, isFile := w.(*os.File)
	if form == "text" || form == "auto" && isFile && isatty.IsTerminal(f.Fd()) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
