// Command latchkey-agent is the privileged daemon on a machine: it answers the
// sign-in modules, keeps the connection to the server, and judges sign-ins by
// itself while the server can not be reached.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"latchkey/internal/agent"
	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
	"latchkey/internal/config"
	"latchkey/internal/daemon"
	"latchkey/internal/tpm"
)

func main() { daemon.Main(run) }

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

// run is the program without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := daemon.Command("latchkey-agent", "Signs people in to this machine, with and without the server", joinCommand(stdout, stderr), runCommand(stderr), statusCommand())
	return daemon.Run(ctx, root, args, stdout, stderr)
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
				return daemon.Usage("give the join token, and nothing else: latchkey-agent join TOKEN")
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
			var err error
			if token, err = readToken(c.Context(), c.InOrStdin(), stderr); err != nil {
				return err
			}
		}
		device, err := openTPM(j.TPM)
		if err != nil {
			return daemon.Usage("%w", err)
		}
		out, err := agent.Join(c.Context(), agent.Joining{
			Token: token, State: j.State, Name: j.Name, Proxy: j.Proxy, Again: j.Again, Device: device,
			Clock: clock.Real, Built: buildinfo.Time(), Log: daemon.Logger("text", stderr),
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
		run := "latchkey-agent run"
		if j.State != s.State {
			run += " --state " + j.State
		}
		fmt.Fprintln(stdout, "Next, to serve sign-ins: "+run)
		return nil
	}
	return c
}

// readToken reads one line, and asks for it where somebody sits at a terminal. An
// interrupt ends the waiting.
func readToken(ctx context.Context, in io.Reader, prompt io.Writer) (string, error) {
	if f, ok := in.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		fmt.Fprint(prompt, "Join token: ")
	}
	type read struct {
		line string
		err  error
	}
	got := make(chan read, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
		got <- read{line, err}
	}()
	select {
	case r := <-got:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", r.err
		}
		return r.line, nil
	case <-ctx.Done():
		return "", errors.New("interrupted; this machine has not joined")
	}
}

func runCommand(stderr io.Writer) *cobra.Command {
	s := defaults()
	var file string
	c := &cobra.Command{Use: "run", Short: "Serve sign-ins until told to stop", Args: daemon.NoArgs}
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
			return daemon.Usage("%w", err)
		}
		log := daemon.Logger(s.Log, stderr)
		slog.SetDefault(log)
		err = agent.Run(c.Context(), agent.Config{
			State: s.State, Socket: s.Socket, BreakGlass: s.BreakGlass, Device: device, Proxy: s.Proxy,
			Clock: clock.Real, Log: log, Ready: func() { daemon.Notify("READY=1") },
		})
		daemon.Notify("STOPPING=1")
		if agent.NotJoined(err) {
			return fmt.Errorf("%w: ask for a token (latchkey machine token) and run: latchkey-agent join TOKEN", err)
		}
		return err
	}
	return c
}

// statusCommand points those who look for it here to where it is.
func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return daemon.Usage("latchkey-agent has no status (latchkey status shows how this machine is)")
		},
	}
}

// openTPM reads the setting; no TPM is nil.
func openTPM(spec string) (*tpm.Device, error) {
	d, err := tpm.OpenDevice(spec)
	if errors.Is(err, tpm.ErrNone) {
		return nil, nil //nolint:nilnil // there is none
	}
	return d, err
}
