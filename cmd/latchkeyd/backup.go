package main

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"latchkey/internal/clock"
	"latchkey/internal/config"
	"latchkey/internal/daemon"
	"latchkey/internal/secret"
	"latchkey/internal/server"
)

// oneFile takes the name of the backup.
func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return daemon.Usage("give the name of the backup's file, and nothing else")
	}
	return nil
}

func backupCommand(stdout, stderr io.Writer) *cobra.Command {
	s := struct {
		Place
		WithKey    bool   `flag:"with-key" usage:"put the master key beside it, encrypted to a passphrase, as FILE.key"`
		Passphrase string `flag:"passphrase-file" usage:"file whose first line is the passphrase"`
	}{Place: Place{Data: defaultData}}
	var file string
	c := &cobra.Command{
		Use: "backup FILE", Short: "Copy everything into one file, while the server goes on", Args: oneFile,
		Long: "Copy everything into one file, while the server goes on. Secrets are in it as they lie in the\n" +
			"database, sealed under the master key, which is not in it: without --with-key keep a copy of\n" +
			"master.key elsewhere, or the backup opens nothing.",
	}
	config.Bind(c.Flags(), &s)
	c.Flags().StringVar(&file, "config", "", "file of settings of the server")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := loadPlace(c, &s, &s.Place, file); err != nil {
			return err
		}
		b := server.Backup{Data: s.Data, Database: s.Database, Replica: s.Replica, File: args[0], Clock: clock.Real, Log: daemon.Logger("text", stderr)}
		switch {
		case s.WithKey != (s.Passphrase != ""):
			return daemon.Usage("--with-key and --passphrase-file belong together")
		case s.WithKey:
			var err error
			if b.Passphrase, err = passphrase(s.Passphrase); err != nil {
				return err
			}
		}
		rows, err := b.Write(c.Context())
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%s: %d rows", args[0], rows)
		if s.WithKey {
			fmt.Fprintf(stdout, "; %s: the master key, under the passphrase", server.KeyFile(args[0]))
		} else {
			fmt.Fprintf(stdout, "; the master key is not in it")
		}
		fmt.Fprintln(stdout, ".")
		return nil
	}
	return c
}

func restoreCommand(stdout, stderr io.Writer) *cobra.Command {
	s := struct {
		Place
		Passphrase string `flag:"passphrase-file" usage:"file whose first line is the passphrase of FILE.key"`
	}{Place: Place{Data: defaultData}}
	var file string
	c := &cobra.Command{
		Use: "restore FILE", Short: "Fill a new database from a backup", Args: oneFile,
		Long: "Fill a new database from a backup, whole or not at all. The data folder must hold the master key\n" +
			"already, or the key comes from FILE.key with --passphrase-file.",
	}
	config.Bind(c.Flags(), &s)
	c.Flags().StringVar(&file, "config", "", "file of settings of the server")
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := loadPlace(c, &s, &s.Place, file); err != nil {
			return err
		}
		b := server.Backup{Data: s.Data, Database: s.Database, Replica: s.Replica, File: args[0], Clock: clock.Real, Log: daemon.Logger("text", stderr)}
		if s.Passphrase != "" {
			var err error
			if b.Passphrase, err = passphrase(s.Passphrase); err != nil {
				return err
			}
		}
		rows, err := b.Restore(c.Context())
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%d rows restored. Start it: latchkeyd serve --data %s\n", rows, s.Data)
		return nil
	}
	return c
}

// loadPlace reads where the server is, from flags and, for the place alone, from
// the server's own settings, so that a backup is of the database that serves.
func loadPlace(c *cobra.Command, into any, p *Place, file string) error {
	if err := config.Load(c.Flags(), into, ""); err != nil {
		return err
	}
	if file == "" && (elsewhere(c, p.Data) || c.Flags().Changed("database")) {
		return nil
	}
	// All of the server's keys are known in its file; only the place is taken over.
	all := defaults()
	fs := &cobra.Command{}
	config.Bind(fs.Flags(), &all)
	if err := load(fs, &all, file, false); err != nil {
		return err
	}
	take := func(name string, to *string, v string) {
		if !c.Flags().Changed(name) {
			*to = v
		}
	}
	take("data", &p.Data, all.Data)
	take("database", &p.Database, all.Database)
	take("replica", &p.Replica, all.Replica)
	return nil
}

const maxPassphrase = 1 << 10

// passphrase reads the first line of a file that nobody else may read.
func passphrase(file string) (secret.Bytes, error) {
	f, err := os.Open(file)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("passphrase: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("passphrase: %w", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return secret.Bytes{}, fmt.Errorf("passphrase: others may read %s (mode %04o); run: chmod 600 %s", file, info.Mode().Perm(), file)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxPassphrase+1))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("passphrase: %w", err)
	}
	line, _, _ := bytes.Cut(raw, []byte("\n"))
	line = bytes.TrimRight(line, "\r")
	if len(line) > maxPassphrase || len(line) == 0 {
		return secret.Bytes{}, fmt.Errorf("passphrase: the first line of %s has %d octets; allowed are 1 to %d", file, len(line), maxPassphrase)
	}
	return secret.New(line), nil
}
