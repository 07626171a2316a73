// Command latchkey is what people type: administration of a server through its API,
// and on a machine its state (`latchkey status`) and a sign-in from a terminal
// (`latchkey signin`). It opens no database and no vault; it speaks to the API and
// to the agent's socket like anybody else.
//
// How it speaks stands at the head of speech.go, what it can do in docs/cli.md.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, clock: clock.Real}
	return a.run(ctx, os.Args[1:])
}

// app is one run of the command.
type app struct {
	in       *os.File
	out, err *os.File
	clock    clock.Clock

	server    string // unix:PATH or https://HOST:PORT; empty: where somebody has signed in, else the default
	profile   string // file of what is remembered; empty: in the person's own folder
	caPrint   string // of the server's CA, for this run
	tokenFile string // holds an API token
	approval  string // id of a second owner's approval
	output    string // table or json
	yes       bool

	lines *lineReader     // of in, made at the first use
	ended <-chan struct{} // closed when somebody wants the program to end; nil: never
}

// run runs the command line and gives the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	a.ended = ctx.Done()
	root := a.root()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	return a.exit(flagsInWords(cmd, err))
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "latchkey",
		Short: "Administer a Latchkey server, and ask a machine how it is",
		Long: `Latchkey asks for a second factor when a person opens a machine, also when the
server can not be reached.

On the server, as root:  latchkey user | group | factor | policy | machine | offline
                         latchkey window | events | explain | server
Elsewhere the same, behind: latchkey login --server https://HOST:PORT
On a machine:            latchkey status | signin`,
		SilenceErrors: true, SilenceUsage: true,
		Version: buildinfo.Version(),
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if a.output != outputTable && a.output != outputJSON {
				return usagef("--output: %q is not allowed; allowed are table and json", a.output)
			}
			return nil
		},
	}
	root.SetVersionTemplate("latchkey {{.Version}}\n")
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", "", "https://HOST:PORT, or the server's admin socket, unix:PATH (default: where you have signed in, else "+defaultServer+")")
	f.StringVar(&a.caPrint, "ca-fingerprint", "", "SHA-256 of the server's CA, in place of the system's certificates")
	f.StringVar(&a.tokenFile, "token-file", "", "file with an API token, in place of a login")
	f.StringVar(&a.profile, "profile", "", "file that holds your logins (default latchkey/profile.json in your configuration folder)")
	f.StringVar(&a.approval, "approval", "", "id of a second owner's approval (apr_…) that this uses")
	f.StringVarP(&a.output, "output", "o", outputTable, "form of the answer: table or json")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{err, cmd} })
	choose(root, "output", outputTable, outputJSON)
	root.AddCommand(
		a.userCommand(), a.groupCommand(), a.factorCommand(), a.policyCommand(), a.machineCommand(), a.offlineCommand(),
		a.windowCommand(), a.eventsCommand(), a.explainCommand(), a.serverCommand(), a.mailCommand(), a.smsCommand(), a.outboxCommand(), a.statusCommand(), a.signinCommand(), a.versionCommand(),
		a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.tokenCommand(), a.sessionCommand(), a.setupCommand(), a.approvalCommand(), a.importCommand(), a.reportCommand(), a.certificateCommand(),
	)
	strict(root)
	return root
}

// noun is a command that only holds others.
func noun(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short}
	c.AddCommand(verbs...)
	return c
}

// strict makes every mistake in the command line a usage error: an unknown command
// is one at every level, and so is a wrong number of arguments.
func strict(c *cobra.Command) {
	for _, sub := range c.Commands() {
		strict(sub)
	}
	if run := c.RunE; run != nil {
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if err := run(cmd, args); err != nil {
				return ranError{err}
			}
			return nil
		}
	}
	if c.HasSubCommands() && c.Run == nil && c.RunE == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			if cmd.HasParent() {
				cmd.SetOut(cmd.ErrOrStderr())
				_ = cmd.Help()
				return codeError(exitUsage)
			}
			return cmd.Help()
		}
		return
	}
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		if cmd.HasSubCommands() && len(args) > 0 && cmd.Name() != "completion" {
			return unknownCommand(cmd, args[0])
		}
		if err := check(cmd, args); err != nil {
			return usageError{err, cmd}
		}
		return nil
	}
}

func unknownCommand(cmd *cobra.Command, word string) error {
	cmd.SuggestionsMinimumDistance = 2
	msg := "there is no command \"" + cmd.CommandPath() + " " + word + "\""
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		msg += " (did you mean " + near[0] + "?)"
	}
	return usageError{errors.New(msg), cmd}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program",
		RunE: func(*cobra.Command, []string) error {
			return a.emit(map[string]string{"version": buildinfo.Version()}, func(p *printer) { p.line("latchkey %s", buildinfo.Version()) })
		},
	}
}

// choose completes a flag with fixed words.
func choose(c *cobra.Command, flag string, words ...string) {
	complete := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	if err := c.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // a flag that is not there: a mistake of the program
	}
}
