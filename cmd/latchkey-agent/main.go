// Command latchkey-agent is the privileged daemon on a machine: it answers the
// sign-in modules, keeps the connection to the server, and judges sign-ins by
// itself while the server can not be reached.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"latchkey/internal/agent"
	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
	"latchkey/internal/config"
	"latchkey/internal/tpm"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// settings are flags and, with the same names, keys of agent.toml.
type settings struct {
	State      string `flag:"state" check:"path" usage:"folder of identity and offline data; nobody else may look in"`
	Socket     string `flag:"socket" check:"path" usage:"socket for sign-in modules"`
	TPM        string `flag:"tpm" check:"nonempty" usage:"auto, none, device:PATH or socket:PATH"`
	Proxy      string `flag:"proxy" usage:"http://HOST:PORT of a proxy that speaks CONNECT"`
	BreakGlass string `flag:"break-glass" check:"path" usage:"list of uids that may always sign in at the machine itself"`
	Log        string `flag:"log" oneof:"auto|text|json" usage:"form of the log"`
}

func defaults() settings {
	s := settings{
		State: "/var/lib/latchkey/agent", Socket: "/run/latchkey/agent.sock", TPM: "auto",
		BreakGlass: "/etc/latchkey/break-glass", Log: "auto",
	}
	if runtime.GOOS == "windows" {
		s.State, s.Socket, s.BreakGlass = `C:\ProgramData\Latchkey\agent`, `C:\ProgramData\Latchkey\agent.sock`, `C:\ProgramData\Latchkey\break-glass`
	}
	return s
}

// errUsage marks errors of the command line: exit status 2.
type errUsage struct{ error }

func (e errUsage) Unwrap() error { return e.error }

// run is the program without the process around it: 0 done, 1 failed, 2 used
// wrongly.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := command(ctx, stdout, stderr)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "latchkey-agent: %v\n", err)
	var (
		usage errUsage
		bad   *config.Error
	)
	if errors.As(err, &usage) || errors.As(err, &bad) {
		return 2
	}
	return 1
}

func command(ctx context.Context, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use: "latchkey-agent", Short: "Signs people in to this machine, with and without the server",
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return errUsage{fmt.Errorf("there is no command %q; there are join, run and version", args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error {
			_ = c.Usage()
			return errUsage{errors.New("name a command: join, run or version")}
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return errUsage{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(joinCommand(stdout, stderr), runCommand(stderr), versionCommand(stdout))
	return root
}

func versionCommand(stdout io.Writer) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		Run: func(*cobra.Command, []string) { fmt.Fprintln(stdout, "latchkey-agent", buildinfo.Get()) },
	}
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errUsage{fmt.Errorf("%q is one word too many", args[0])}
	}
	return nil
}

func joinCommand(stdout, stderr io.Writer) *cobra.Command {
	s := defaults()
	j := struct {
		State string `flag:"state" check:"path" usage:"folder of identity and offline data; it is made with mode 0700"`
		TPM   string `flag:"tpm" check:"nonempty" usage:"auto, none, device:PATH or socket:PATH; the machine key is made in it"`
		Proxy string `flag:"proxy" usage:"http://HOST:PORT of a proxy that speaks CONNECT"`
		Name  string `flag:"name" check:"name" usage:"name of this machine; else the token's, else the host's"`
		Again bool   `flag:"again" usage:"replace the identity that this machine has"`
	}{State: s.State, TPM: s.TPM}
	c := &cobra.Command{
		Use: "join TOKEN", Short: "Make this machine one of a server's",
		Long: "Make this machine one of a server's. The token comes from `latchkey machine token` on the server\n" +
			"and can be used once. With \"-\" it is read from standard input, where nobody else on this machine\n" +
			"can see it.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errUsage{errors.New("give the join token, and nothing else: latchkey-agent join TOKEN")}
			}
			return nil
		},
	}
	config.Bind(c.Flags(), &j)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := config.Load(c.Flags(), &j, ""); err != nil {
			return err
		}
		token := args[0]
		if token == "-" {
			b, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 4096))
			if err != nil {
				return err
			}
			token = string(b)
		}
		device, err := openTPM(j.TPM)
		if err != nil {
			return errUsage{err}
		}
		out, err := agent.Join(c.Context(), agent.Joining{
			Token: token, State: j.State, Name: j.Name, Proxy: j.Proxy, Again: j.Again, Device: device,
			Clock: clock.Real, Built: buildinfo.Time(), Log: logger("text", stderr),
		})
		if err != nil {
			return err
		}
		where := "in a file that only root can read"
		if out.InTPM {
			where = "in the TPM"
		}
		fmt.Fprintf(stdout, "This machine is now %q (number %d) of %s. Its key lies %s.\n", out.Identity.Name, out.Identity.Number, out.Identity.Server, where)
		if out.Pending {
			fmt.Fprintf(stdout, "It waits for approval: latchkey machine set %s --status active\n", out.Identity.Name)
		}
		return nil
	}
	return c
}

func runCommand(stderr io.Writer) *cobra.Command {
	s := defaults()
	var file string
	c := &cobra.Command{Use: "run", Short: "Serve sign-ins until told to stop", Args: noArgs}
	config.Bind(c.Flags(), &s)
	c.Flags().StringVar(&file, "config", "", "file of settings (default /etc/latchkey/agent.toml where it is)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		name, explicit := config.File(file, "agent")
		load := config.LoadIfThere
		if explicit {
			load = config.Load
		}
		if err := load(c.Flags(), &s, name); err != nil {
			return err
		}
		device, err := openTPM(s.TPM)
		if err != nil {
			return errUsage{err}
		}
		log := logger(s.Log, stderr)
		slog.SetDefault(log)
		err = agent.Run(c.Context(), agent.Config{
			State: s.State, Socket: s.Socket, BreakGlass: s.BreakGlass, Device: device, Proxy: s.Proxy,
			Clock: clock.Real, Log: log, Ready: func() { tell("READY=1") },
		})
		tell("STOPPING=1")
		if agent.NotJoined(err) {
			return fmt.Errorf("%w: ask for a token (latchkey machine token) and run: latchkey-agent join TOKEN", err)
		}
		return err
	}
	return c
}

// openTPM reads the setting; no TPM is nil.
func openTPM(spec string) (*tpm.Device, error) {
	d, err := tpm.OpenDevice(spec)
	if errors.Is(err, tpm.ErrNone) {
		return nil, nil //nolint:nilnil // there is none
	}
	return d, err
}

// logger writes text to a terminal and JSON elsewhere.
func logger(form string, w io.Writer) *slog.Logger {
	f, isFile := w.(*os.File)
	if form == "text" || form == "auto" && isFile && isatty.IsTerminal(f.Fd()) {
		return slog.New(slog.NewTextHandler(w, nil))
	}
	return slog.New(slog.NewJSONHandler(w, nil))
}
