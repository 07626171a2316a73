// Command latchkeyd is the Latchkey server: the door for machines, for people and
// for administrators over one database.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
	"latchkey/internal/config"
	"latchkey/internal/server"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	_ "latchkey/internal/server/factor/backup" // the kinds of factors and directories that this server has
	_ "latchkey/internal/server/factor/bypass"
	_ "latchkey/internal/server/factor/totp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// errUsage marks errors of the command line: exit status 2.
type errUsage struct{ error }

func (e errUsage) Unwrap() error { return e.error }

// run is the program without the process around it: 0 done, 1 failed, 2 used
// wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command(stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "latchkeyd: %v\n", err)
	var (
		usage errUsage
		bad   *config.Error
	)
	if errors.As(err, &usage) || errors.As(err, &bad) {
		return 2
	}
	return 1
}

func command(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "latchkeyd", Short: "The Latchkey server", SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return errUsage{fmt.Errorf("there is no command %q; there are serve, backup, restore and version", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Usage()
			return errUsage{errors.New("name a command: serve, backup, restore or version")}
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errUsage{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(serveCommand(stdout, stderr), backupCommand(stdout, stderr), restoreCommand(stdout, stderr), versionCommand(stdout))
	return root
}

func versionCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		Run: func(*cobra.Command, []string) { fmt.Fprintln(stdout, "latchkeyd", buildinfo.Get()) },
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errUsage{fmt.Errorf("%q is one word too many", args[0])}
	}
	return nil
}

const defaultData = "/var/lib/latchkey/server"

// Place says where a server keeps its things; every command needs it.
type Place struct {
	Data     string `flag:"data" check:"nonempty" usage:"folder of the master key and of the database"`
	Database string `flag:"database" usage:"sqlite:PATH or postgres://USER@HOST/NAME; without it latchkey.db in the data folder"`
	Replica  string `flag:"replica" check:"name" usage:"name of this server, where several share a database"`
}

// settings are flags and, with the same names, keys of server.toml.
type settings struct {
	Place
	Listen      string        `flag:"listen" check:"hostport" usage:"address for people, HTTPS"`
	ListenAgent string        `flag:"listen-agent" check:"hostport" usage:"address for machines, mutual TLS"`
	AdminSocket string        `flag:"admin-socket" usage:"socket for administrators of this host"`
	Names       []string      `flag:"names" usage:"host names and addresses by which this server is reached, beside the host's own"`
	Metrics     string        `flag:"metrics" check:"hostport" usage:"loopback address for Prometheus"`
	MinPassword int           `flag:"password-length" min:"8" max:"64" usage:"shortest new password of local users, in characters"`
	MaxAge      time.Duration `flag:"password-age" min:"0s" max:"87600h" usage:"after which passwords of local users expire; 0s is never"`
	Log         string        `flag:"log" oneof:"auto|text|json" usage:"form of the log"`
}

func defaults() settings {
	return settings{
		Place: Place{Data: defaultData}, Listen: ":8443", ListenAgent: ":8444", MinPassword: 12, Log: "auto",
	}
}

// Check implements config.Checker.
func (s *settings) Check() []config.Problem {
	var ps []config.Problem
	if s.Listen == s.ListenAgent && !ownPort(s.Listen) {
		ps = append(ps, config.Problem{Field: "listen-agent", Fault: "it is the address for people too", Allowed: "people and machines have a listener each"})
	}
	for _, n := range s.Names {
		if !hostName(n) {
			ps = append(ps, config.Problem{Field: "names", Fault: fmt.Sprintf("%q is no host name and no address", n), Allowed: "allowed are names such as latchkey.example.org and addresses such as 192.0.2.7, without a port"})
		}
	}
	return ps
}

func serveCommand(stdout, stderr io.Writer) *cobra.Command {
	s := defaults()
	var file string
	c := &cobra.Command{
		Use: "serve", Short: "Serve until told to stop", Args: noArgs,
		Long: "Serve until told to stop. The first start makes the master key, the CA, the default policy and the\n" +
			"database, and says what to do next.",
	}
	config.Bind(c.Flags(), &s)
	c.Flags().StringVar(&file, "config", "", "file of settings (default /etc/latchkey/server.toml where it is, unless --data is given)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		elsewhere := c.Flags().Changed("data")
		if err := load(c, &s, file, elsewhere); err != nil {
			return err
		}
		if s.AdminSocket == "" {
			s.AdminSocket = adminSocket(s.Data, elsewhere)
		}
		log := logger(s.Log, stderr)
		slog.SetDefault(log)
		err := server.Run(c.Context(), server.Config{
			Data: s.Data, Database: s.Database, Replica: s.Replica, Listen: s.Listen, ListenAgent: s.ListenAgent, AdminSocket: s.AdminSocket,
			Metrics: s.Metrics, Names: s.Names, Clock: clock.Real, Log: log, Out: stdout, Version: buildinfo.Get().Version,
			Directories: map[string]any{directory.Local: local.Config{MinLength: s.MinPassword, MaxAge: s.MaxAge}},
			Ready:       func(server.Addresses) { tell("READY=1") },
		})
		tell("STOPPING=1")
		return err
	}
	return c
}

// load reads the settings. Where --data names another server than the host's own,
// the host's file of settings is not for it.
func load(c *cobra.Command, into any, file string, elsewhere bool) error {
	if file == "" && elsewhere {
		return config.Load(c.Flags(), into, "")
	}
	name, explicit := config.File(file, "server")
	if explicit {
		return config.Load(c.Flags(), into, name)
	}
	return config.LoadIfThere(c.Flags(), into, name)
}

// logger writes text to a terminal and JSON elsewhere.
func logger(form string, w io.Writer) *slog.Logger {
	f, isFile := w.(*os.File)
	if form == "text" || form == "auto" && isFile && isatty.IsTerminal(f.Fd()) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
