// Command latchkeyd is the Latchkey server: the door for machines, for people and
// for administrators over one database.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
	"latchkey/internal/config"
	"latchkey/internal/daemon"
	"latchkey/internal/server"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup" // the kinds of factors and directories that this server has
	_ "latchkey/internal/server/factor/bypass"
	"latchkey/internal/server/factor/fido2"
	"latchkey/internal/server/factor/message"
	factorpush "latchkey/internal/server/factor/push"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/outward"
	serversettings "latchkey/internal/server/settings"
	_ "latchkey/internal/server/source/mysql" // and of databases that users are imported from
	_ "latchkey/internal/server/source/oracle"
	_ "latchkey/internal/server/source/postgresql"
	_ "latchkey/internal/server/source/sqlserver"
)

func main() { daemon.Main(run) }

// run is the program without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := daemon.Command("latchkeyd", "The Latchkey server", serveCommand(stdout, stderr), backupCommand(stdout, stderr), restoreCommand(stdout, stderr))
	return daemon.Run(ctx, root, args, stdout, stderr)
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
	AdminSocket string        `flag:"admin-socket" usage:"socket for administrators of this host; default /run/latchkey/admin.sock, or admin.sock in --data if that is another folder"`
	Names       []string      `flag:"names" usage:"host names and addresses by which this server is reached, beside the host's own"`
	PeopleURL   string        `flag:"people-url" usage:"https://HOST[:PORT] as browsers and phones reach it, where the settings name none; without it the first of the names and the port of --listen"`
	TLSCert     string        `flag:"tls-cert" usage:"PEM file of a certificate for people, with its chain; without it one of Latchkey's own CA"`
	TLSKey      string        `flag:"tls-key" usage:"PEM file of its key; both are read anew when they change, or at SIGHUP"`
	Proxy       string        `flag:"outward-proxy" usage:"http://HOST:PORT through which notices to phones and text messages go, where the settings name none"`
	PushNets    []string      `flag:"push-networks" check:"cidr" usage:"networks in which a push service of one's own may stand, where the settings name none; else only public addresses are reached"`
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
	if (s.TLSCert == "") != (s.TLSKey == "") {
		missing := "tls-key"
		if s.TLSCert == "" {
			missing = "tls-cert"
		}
		ps = append(ps, config.Problem{Field: missing, Fault: "it is not given", Allowed: "tls-cert and tls-key belong together: both or none"})
	}
	if s.PeopleURL != "" {
		if err := serversettings.CheckPeopleURL(s.PeopleURL); err != nil {
			fault, allowed, _ := strings.Cut(err.Error(), "; ")
			ps = append(ps, config.Problem{Field: "people-url", Fault: fault, Allowed: allowed})
		}
	}
	if s.Proxy != "" {
		if _, err := outward.Proxy(s.Proxy); err != nil {
			fault, allowed, _ := strings.Cut(err.Error(), "; ")
			ps = append(ps, config.Problem{Field: "outward-proxy", Fault: fault, Allowed: allowed})
		}
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
		Use: "serve", Short: "Serve until told to stop", Args: daemon.NoArgs,
		Long: "Serve until told to stop. The first start makes the master key, the CA, the default policy and the\n" +
			"database, and says what to do next.",
	}
	config.Bind(c.Flags(), &s)
	c.Flags().StringVar(&file, "config", "", "file of settings (default /etc/latchkey/server.toml where it is, unless --data names another folder)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := load(c, &s, file, elsewhere(c, s.Data)); err != nil {
			return err
		}
		if s.AdminSocket == "" {
			s.AdminSocket = adminSocket(s.Data)
		}
		log := daemon.Logger(s.Log, stderr)
		slog.SetDefault(log)
		// Without a receiver SIGHUP would end the server.
		hangup, reload := make(chan os.Signal, 1), make(chan struct{}, 1)
		signal.Notify(hangup, syscall.SIGHUP)
		defer signal.Stop(hangup)
		go func() {
			for {
				select {
				case <-c.Context().Done():
					return
				case <-hangup:
				}
				select {
				case reload <- struct{}{}:
				default:
				}
			}
		}()
		out, err := s.outward()
		if err != nil {
			return err
		}
		err = server.Run(c.Context(), server.Config{
			Outward: out,
			Data:    s.Data, Database: s.Database, Replica: s.Replica, Listen: s.Listen, ListenAgent: s.ListenAgent, AdminSocket: s.AdminSocket,
			Metrics: s.Metrics, Names: s.Names, PeopleURL: s.PeopleURL, Clock: clock.Real, Log: log, Out: stdout, Version: buildinfo.Get().Version,
			TLSCert: s.TLSCert, TLSKey: s.TLSKey, Reload: reload,
			Plugs: func(p server.Parts) []factor.Factor {
				return []factor.Factor{factorpush.New(p.Push), message.Mail(p.Post), message.SMS(p.Post), fido2.New(p.Passkeys)}
			},
			Directories: map[string]any{directory.Local: local.Config{MinLength: s.MinPassword, MaxAge: s.MaxAge}},
			Ready:       func(server.Addresses) { daemon.Notify("READY=1") },
		})
		daemon.Notify("STOPPING=1")
		return err
	}
	return c
}

// outward is where notices and text messages may go until the settings say it.
func (s *settings) outward() (o serversettings.Outward, err error) {
	if s.Proxy != "" {
		if o.Proxy, err = outward.Proxy(s.Proxy); err != nil {
			return o, fmt.Errorf("--outward-proxy: %w", err)
		}
	}
	if o.Push, err = outward.Networks(s.PushNets); err != nil {
		return o, fmt.Errorf("--push-networks: %w", err)
	}
	return o, nil
}

// load reads the settings. Where --data names another server than the host's own,
// the host's file of settings is not for it.
func load(c *cobra.Command, into any, file string, other bool) error {
	if file == "" && other {
		return config.Load(c.Flags(), into, "")
	}
	name, explicit := config.File(file, "server")
	if explicit {
		return config.Load(c.Flags(), into, name)
	}
	return config.LoadIfThere(c.Flags(), into, name)
}
