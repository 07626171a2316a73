package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/shim"
	"latchkey/internal/statefile"
	"latchkey/internal/text"
)

// Certificates of users and machines (M4, E4). One's own lies with its key in one file
// of mode 0600, so that a renewal replaces both at once.

// maxCertFile bounds the file in octets.
const maxCertFile = 64 << 10

// certFile is where one's own certificate lies.
func certFile(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("there is no place for your certificate: %w; name a file with --file", err)
	}
	return filepath.Join(dir, "latchkey", "certificate.pem"), nil
}

// readCert reads the file; fs.ErrNotExist says that there is none.
func readCert(path string) (c tls.Certificate, leaf *x509.Certificate, err error) {
	b, err := statefile.Read(path, maxCertFile)
	if err != nil {
		return c, nil, err
	}
	defer clear(b)
	if c, err = tls.X509KeyPair(b, b); err != nil {
		return c, nil, fmt.Errorf("%s holds no certificate with its key: %w", path, err)
	}
	leaf, err = x509.ParseCertificate(c.Certificate[0])
	return c, leaf, err
}

// newKey makes a key and a request for it.
func newKey() (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}

// writeCert puts key and certificate into the file, whole or not at all.
func writeCert(path string, key *ecdsa.PrivateKey, cert []byte) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(der)
	b := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...)
	defer clear(b)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("the certificate can not be kept: %w", err)
	}
	if err := statefile.Replace(path, b); err != nil {
		return fmt.Errorf("the certificate can not be kept: %w", err)
	}
	return nil
}

func (a *app) certificateCommand() *cobra.Command {
	c := noun("certificate", "Certificates that sign users in, and those of machines",
		a.certificateList(), a.certificateShow(), a.certificateRequest(), a.certificateInstall(), a.certificateUninstall(), a.certificateRenew(), a.certificateRevoke(), a.certificateSettings(), a.certificateSet())
	for _, verb := range c.Commands() {
		if verb.ValidArgsFunction == nil { // no file is an argument of any
			verb.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	return c
}

// ownSerial completes with the certificate that lies on this computer.
func ownSerial(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	path, err := certFile("")
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	_, leaf, err := readCert(path)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{cobra.CompletionWithDesc(hex.EncodeToString(leaf.SerialNumber.Bytes()), "of "+text.Clean(leaf.Subject.CommonName)+", on this computer")}, cobra.ShellCompDirectiveNoFileComp
}

// certificatesAt is where the certificates of whom the flags name are.
func certificatesAt(user, machine string) ([]string, error) {
	switch {
	case user != "" && machine != "":
		return nil, usagef("--user and --machine do not go together")
	case user != "":
		return []string{"users", user, "certificates"}, nil
	case machine != "":
		return []string{"machines", machine, "certificates"}, nil
	}
	return []string{"me", "certificates"}, nil
}

func ofWhom(c *cobra.Command, user, machine *string) {
	c.Flags().StringVar(user, "user", "", "those of this user, in place of your own")
	c.Flags().StringVar(machine, "machine", "", "those of this machine")
}

func (a *app) certificateList() *cobra.Command {
	var user, machine string
	c := &cobra.Command{
		Use: "list", Short: "List your certificates, or those of a user or machine",
		RunE: func(cmd *cobra.Command, _ []string) error {
			where, err := certificatesAt(user, machine)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var page rest.Page[rest.Certificate]
			if err := cl.call(cmd.Context(), http.MethodGet, at(where...), nil, nil, &page); err != nil {
				var p *rest.Problem
				if errors.As(err, &p) && p.Code == fault.Forbidden && where[0] == "me" {
					p.Detail += " Or say whose: --user USER or --machine MACHINE."
				}
				return err
			}
			return a.emit(page.Items, func(p *printer) {
				byAgent := false
				t := text.NewTable("SERIAL", "STATE", "NAME", "MACHINE", "KEY", "UNTIL", "RENEWAL", "USED")
				for _, c := range page.Items {
					used := ""
					if !c.LastUsedAt.IsZero() {
						used = p.ago(c.LastUsedAt)
					}
					renewal := ""
					if c.State == "good" && c.Key != "request" {
						renewal = "from " + when(twoThirds(c.NotBefore, c.NotAfter))
						byAgent = byAgent || c.Kind == "user"
					}
					t.Row(c.Serial, c.State, c.Name, c.Machine, c.Key, when(c.NotAfter), renewal, used)
				}
				none := "There are none."
				if user == "" && machine == "" {
					none = "You have none. On a machine of Latchkey's: latchkey certificate install. Elsewhere: latchkey certificate request."
				}
				p.table(t, none)
				if byAgent && user == "" && machine == "" {
					p.line("Timer on this computer: %s", timerWords(hasTimer(cmd.Context())))
				}
			})
		},
	}
	ofWhom(c, &user, &machine)
	return c
}

func (a *app) certificateShow() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "show", Short: "Show the certificate that lies on this computer, and which browsers have it",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := certFile(file)
			if err != nil {
				return err
			}
			_, leaf, err := readCert(path)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no certificate in %s; latchkey certificate install or request gets one", path)
			} else if err != nil {
				return err
			}
			out := struct {
				File      string     `json:"file"`
				Serial    string     `json:"serial"`
				Name      string     `json:"name"`
				NotAfter  time.Time  `json:"not_after"`
				Renew     time.Time  `json:"renew_after"`
				Timer     bool       `json:"timer"`
				Expired   bool       `json:"expired"`
				Databases []database `json:"databases"`
				Problems  []string   `json:"problems"`
			}{
				File: path, Serial: hex.EncodeToString(leaf.SerialNumber.Bytes()), Name: leaf.Subject.CommonName, NotAfter: leaf.NotAfter, Renew: renewAfter(leaf),
				Timer: hasTimer(cmd.Context()), Expired: a.clock.Now().After(leaf.NotAfter), Databases: []database{}, Problems: []string{},
			}
			found, problems := inBrowsers(cmd.Context(), leaf)
			out.Databases, out.Problems = append(out.Databases, found...), append(out.Problems, problems...)
			return a.emit(out, func(p *printer) {
				state := "good, if the server has not revoked it"
				if out.Expired {
					state = "expired"
				}
				p.card("File", path, "Serial", out.Serial, "Name", out.Name, "State", state, "Until", when(out.NotAfter), "Renewal", "from "+when(out.Renew), "Timer", timerWords(out.Timer))
				if len(out.Databases) > 0 {
					p.line("Browsers:")
					p.databases(out.Databases)
				}
				for _, why := range out.Problems {
					a.say("%s", why)
				}
			})
		},
	}
	c.Flags().StringVar(&file, "file", "", "file of certificate and key (default latchkey/certificate.pem in your configuration folder)")
	return c
}

// inWords says a database's state.
var inWords = map[string]string{
	nssWritten: "has it now", nssMade: "has it now; the database was made", nssRemoved: "taken out", nssNone: "has none",
	nssThere: "has it", nssOther: "has an older one", nssFailed: "NOT DONE", nssUnknown: "unknown",
}

// databases writes a line for each.
func (p *printer) databases(all []database) {
	for _, d := range all {
		p.line("  %s: %s (%s)", d.name(), inWords[d.State], d.Path)
	}
}

// renewAfter is two thirds of its life.
func renewAfter(c *x509.Certificate) time.Time { return twoThirds(c.NotBefore, c.NotAfter) }

func twoThirds(from, to time.Time) time.Time { return from.Add(to.Sub(from) * 2 / 3) }

func (a *app) certificateRequest() *cobra.Command {
	var file, name, csrFile string
	c := &cobra.Command{
		Use: "request", Short: "Ask the server for a certificate of your own",
		Long: `Makes a key on this computer and asks the server for a certificate for it, or with
--csr for a key that you have. You must have signed in (latchkey login) with a second
factor within the last minutes. Certificate and key lie in one file that nobody else
may read; with --csr the certificate alone is printed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in := rest.NewCertificate{Name: name}
			var out rest.Certificate
			if csrFile != "" {
				b, err := os.ReadFile(csrFile)
				if err != nil {
					return err
				}
				in.Request = string(b)
				if err := cl.call(cmd.Context(), http.MethodPost, "/me/certificates", nil, in, &out); err != nil {
					return err
				}
				return a.emit(out, func(p *printer) { p.raw(out.PEM) })
			}
			path, err := certFile(file)
			if err != nil {
				return err
			}
			key, csr, err := newKey()
			if err != nil {
				return err
			}
			in.Request = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))
			if err := cl.call(cmd.Context(), http.MethodPost, "/me/certificates", nil, in, &out); err != nil {
				return err
			}
			b, _ := pem.Decode([]byte(out.PEM))
			if b == nil {
				return errors.New("the server's answer holds no certificate; is it of another version than this command?")
			}
			if err := writeCert(path, key, b.Bytes); err != nil {
				return err
			}
			return a.emit(out, func(p *printer) {
				p.line("The certificate %s is good until %s. It lies with its key in %s.", out.Serial, when(out.NotAfter), path)
				p.line("To sign in with it: latchkey login --certificate %s", shellWord(path))
				p.line("No browser has it yet; %s", byHand(path))
			})
		},
	}
	c.Flags().StringVar(&file, "file", "", "where certificate and key go (default latchkey/certificate.pem in your configuration folder)")
	c.Flags().StringVar(&csrFile, "csr", "", "file with a PKCS#10 request in PEM, for a key that you have")
	c.Flags().StringVar(&name, "name", "", "what to call it")
	return c
}

func (a *app) certificateInstall() *cobra.Command {
	var file, socket string
	var noBrowser, noTimer bool
	c := &cobra.Command{
		Use: "install", Short: "Get a certificate from this machine's agent, and put it where browsers find it",
		Long: `Makes a key of yours on this machine and asks the agent for a certificate, which the
server issues if you have signed in here with a second factor. It is bound to this
machine.

On Linux it is put into the databases of Chromium and of every Firefox profile, where
certutil and pk12util (libnss3-tools) and openssl are installed, and a timer of your own
systemd (latchkey-certificate.timer) renews it by itself. Where you have no systemd, the
command says what to put into cron. It says which databases were written; latchkey
certificate show says it later, and latchkey certificate uninstall undoes all of this.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := certFile(file)
			if err != nil {
				return err
			}
			again, err := newRenewal(file, socket, noBrowser)
			if err != nil {
				return err
			}
			out, leaf, err := a.install(cmd.Context(), path, socket, noBrowser)
			if err != nil {
				return err
			}
			if !noTimer {
				var problem string
				if out.Timer, problem = startTimer(cmd.Context(), again, leaf.SerialNumber.Bytes()); problem != "" {
					out.Problems = append(out.Problems, problem)
				}
			}
			return a.tellInstalled(out, noBrowser)
		},
	}
	certFlags(c, &file, &socket, &noBrowser)
	c.Flags().BoolVar(&noTimer, "no-timer", false, "set up no timer that renews it")
	return c
}

func certFlags(c *cobra.Command, file, socket *string, noBrowser *bool) {
	c.Flags().StringVar(file, "file", "", "where certificate and key lie (default latchkey/certificate.pem in your configuration folder)")
	c.Flags().StringVar(socket, "socket", defaultAgent, "the agent's socket")
	c.Flags().BoolVar(noBrowser, "no-browser", false, "leave the browsers' databases alone")
}

// installed is what install and renew tell.
type installed struct {
	File     string    `json:"file"`
	Serial   string    `json:"serial"`
	User     string    `json:"user"`
	NotAfter time.Time `json:"not_after"`
	Renew    time.Time `json:"renew_after"`
	Timer    bool      `json:"timer"`    // one that renews it is switched on
	Browsers []string  `json:"browsers"` // the folders of the databases that were written
	Problems []string  `json:"problems"`
	Renewed  bool      `json:"renewed"`

	Databases []database `json:"databases"` // all of them, and what was done
}

// certRefused is the agent's or the server's own word that there is no certificate now.
type certRefused struct{ why string }

func (r certRefused) Error() string { return "no certificate was issued: " + r.why }

// install gets a certificate for a new key, and puts both where they belong.
func (a *app) install(ctx context.Context, path, socket string, noBrowser bool) (out installed, leaf *x509.Certificate, err error) {
	conn, err := agent(ctx, socket)
	if err != nil {
		return out, nil, err
	}
	defer conn.Close()
	key, csr, err := newKey()
	if err != nil {
		return out, nil, err
	}
	host, _ := os.Hostname()
	r, err := conn.Certificate(shim.CertificateRequest{CSR: csr, Name: cmp.Or(host, "this machine")})
	if err != nil {
		return out, nil, fmt.Errorf("the agent gives no certificate: %w", err)
	}
	if r.Problem != "" {
		return out, nil, certRefused{text.Clean(r.Problem)}
	}
	leaf, err = x509.ParseCertificate(r.Certificate)
	if err != nil || !key.PublicKey.Equal(leaf.PublicKey) {
		return out, nil, errors.New("the agent's answer is not a certificate for this key; is it of another version than this command?")
	}
	if err := writeCert(path, key, r.Certificate); err != nil {
		return out, nil, err
	}
	out = installed{
		File: path, Serial: hex.EncodeToString(leaf.SerialNumber.Bytes()), User: text.Clean(r.User), NotAfter: leaf.NotAfter, Renew: renewAfter(leaf),
		Browsers: []string{}, Problems: []string{}, Databases: []database{}, Renewed: true,
	}
	if !noBrowser {
		done, problems := intoBrowsers(ctx, path, leaf)
		out.Databases, out.Problems = append(out.Databases, done...), append(out.Problems, problems...)
		for _, d := range done {
			if d.State != nssFailed {
				out.Browsers = append(out.Browsers, d.Path)
			}
		}
	}
	return out, leaf, nil
}

func (a *app) tellInstalled(out installed, noBrowser bool) error {
	return a.emit(out, func(p *printer) {
		p.line("The certificate of %s is good until %s.", out.User, when(out.NotAfter))
		p.line("It lies with its key in %s, which only you may read.", out.File)
		switch {
		case noBrowser:
			p.line("The browsers were left alone (--no-browser).")
		case len(out.Databases) == 0:
			p.line("No browser has it yet.")
		default:
			p.line("Browsers:")
			p.databases(out.Databases)
			if !slices.ContainsFunc(out.Databases, func(d database) bool { return d.Profile != "" }) {
				p.line("  %s: no profile was found. If you use it, start it once and run latchkey certificate install again.", firefox)
			}
			if len(out.Browsers) > 0 {
				p.line("Close browsers that are open and start them again: then the portal's sign-in page offers it.")
			}
		}
		if out.Timer {
			p.line("It is renewed by itself from %s on (%s).", when(out.Renew), timerUnit)
		}
		p.line("To undo this: latchkey certificate uninstall")
		for _, why := range out.Problems {
			a.say("%s", why)
		}
	})
}

// uninstalled is what uninstall tells.
type uninstalled struct {
	File      string     `json:"file"`
	Deleted   bool       `json:"deleted"`          // the file was there, and is not any more
	Serial    string     `json:"serial,omitempty"` // of the certificate that was in it
	NotAfter  *time.Time `json:"not_after,omitempty"`
	Timer     bool       `json:"timer_removed"`
	Databases []database `json:"databases"`
	Problems  []string   `json:"problems"`
}

func (a *app) certificateUninstall() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "uninstall", Short: "Undo install: take the certificate out of browsers, timer and folder",
		Long: `Takes the certificate out of the browsers' databases, switches off the timer that renews
it, and deletes the file with its key. Where the file is gone already, every certificate
whose name in a browser begins with "Latchkey " is taken out.

The server is not told: whoever has a copy of the key could use it until the certificate
runs out. latchkey certificate revoke SERIAL ends it at once.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := certFile(file)
			if err != nil {
				return err
			}
			if path, err = filepath.Abs(path); err != nil {
				return err
			}
			out := uninstalled{File: path, Databases: []database{}, Problems: []string{}}
			which := nssKey.ours
			_, leaf, err := readCert(path)
			none := errors.Is(err, fs.ErrNotExist)
			switch {
			case err == nil:
				out.Serial, out.NotAfter = hex.EncodeToString(leaf.SerialNumber.Bytes()), &leaf.NotAfter
				name := nickname(leaf)
				which = func(k nssKey) bool { return k.called(name) }
			case !none:
				return fmt.Errorf("nothing was changed: %w; if it is what you want gone, delete it and run latchkey certificate uninstall again", err)
			}
			if err := a.confirm("The certificate in %s and its key are deleted, and taken out of your browsers.", path); err != nil {
				return err
			}
			// The timer first, or it would come in between.
			var problem string
			if out.Timer, problem = stopTimer(cmd.Context(), path); problem != "" {
				out.Problems = append(out.Problems, problem)
			}
			done, problems := outOfBrowsers(cmd.Context(), which)
			out.Databases, out.Problems = append(out.Databases, done...), append(out.Problems, problems...)
			if !none {
				if err := os.Remove(path); err != nil {
					out.Problems = append(out.Problems, fmt.Sprintf("the file could not be deleted: %v; delete it yourself", err))
				} else {
					out.Deleted = true
				}
			}
			if err := a.emit(out, func(p *printer) { a.tellUninstalled(p, out, none) }); err != nil {
				return err
			}
			if len(out.Problems) > 0 {
				if a.output == outputJSON {
					return codeError(exitFailed)
				}
				for _, why := range out.Problems {
					a.say("%s", why)
				}
				return codeError(exitFailed)
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "file", "", "file of certificate and key (default latchkey/certificate.pem in your configuration folder)")
	return a.yesFlag(c)
}

func (a *app) tellUninstalled(p *printer, out uninstalled, none bool) {
	switch {
	case none:
		p.line("There is no certificate in %s.", out.File)
	case out.Deleted:
		p.line("Certificate and key were deleted: %s", out.File)
	}
	if len(out.Databases) > 0 {
		p.line("Browsers:")
		p.databases(out.Databases)
	}
	switch {
	case out.Timer:
		p.line("Nothing renews it any more: %s was switched off.", timerUnit)
	case !none:
		p.line("No timer of it was found. If you have put a line into cron, take it out: crontab -e")
	}
	if out.NotAfter != nil && a.clock.Now().Before(*out.NotAfter) {
		p.line("The server takes it until %s from whoever has a copy. To end that: latchkey certificate revoke %s (after latchkey login)", when(*out.NotAfter), out.Serial)
	}
}

func (a *app) certificateRenew() *cobra.Command {
	var file, socket string
	var noBrowser, quiet bool
	c := &cobra.Command{
		Use: "renew", Short: "Renew the certificate of this machine's agent, when two thirds of its life are over",
		Long: `Does nothing before that, and nothing where there is no certificate: a timer calls it
every day (latchkey certificate install switches it on). It takes a sign-in on this
machine with a second factor since the certificate was issued.

With --quiet it writes nothing but lines for a log, and only when it did something or
could not. That the server does not agree yet is no failure while the certificate is
good: the timer comes again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := certFile(file)
			if err != nil {
				return err
			}
			_, leaf, err := readCert(path)
			none := errors.Is(err, fs.ErrNotExist)
			if err != nil && !none {
				return err
			}
			if none || a.clock.Now().Before(renewAfter(leaf)) {
				if quiet {
					return nil
				}
				out := installed{File: path, Browsers: []string{}, Problems: []string{}, Databases: []database{}, Timer: hasTimer(cmd.Context())}
				if !none {
					out.Serial, out.User, out.NotAfter, out.Renew = hex.EncodeToString(leaf.SerialNumber.Bytes()), leaf.Subject.CommonName, leaf.NotAfter, renewAfter(leaf)
				}
				return a.emit(out, func(p *printer) {
					if none {
						p.line("There is no certificate in %s, and so nothing to renew. latchkey certificate install gets one.", path)
						return
					}
					p.line("It is good until %s, and is renewed from %s on.", when(leaf.NotAfter), when(renewAfter(leaf)))
				})
			}
			out, fresh, err := a.install(cmd.Context(), path, socket, noBrowser)
			if no := (certRefused{}); quiet && errors.As(err, &no) && a.clock.Now().Before(leaf.NotAfter) {
				a.say("the certificate was not renewed; it is good until %s. %s", when(leaf.NotAfter), no.why)
				return nil
			}
			if err != nil {
				return err
			}
			if quiet {
				a.say("the certificate of %s was renewed; it is good until %s", out.User, when(fresh.NotAfter))
				for _, why := range out.Problems {
					a.say("%s", why)
				}
				return nil
			}
			out.Timer = hasTimer(cmd.Context())
			return a.tellInstalled(out, noBrowser)
		},
	}
	certFlags(c, &file, &socket, &noBrowser)
	c.Flags().BoolVar(&quiet, "quiet", false, "for a timer: write nothing but lines for a log")
	return c
}

func (a *app) certificateRevoke() *cobra.Command {
	var user, machine, reason string
	c := &cobra.Command{
		Use: "revoke SERIAL", Short: "Revoke one certificate: yours, a user's or a machine's", Args: words("SERIAL"), ValidArgsFunction: ownSerial,
		Long: "What it has opened ends at once, its connections within a second. A machine whose certificate\nis revoked stays in the list, and joins again with a new token.",
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := certificatesAt(user, machine)
			if err != nil {
				return err
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var out rest.Certificate
			if err := cl.call(cmd.Context(), http.MethodPost, at(append(where, args[0], "revoke")...), nil, rest.RevokeCertificate{Reason: reason}, &out); err != nil {
				return err
			}
			return a.emit(out, func(p *printer) { p.line("The certificate %s is revoked.", out.Serial) })
		},
	}
	ofWhom(c, &user, &machine)
	c.Flags().StringVar(&reason, "reason", "", "unspecified (default), key-compromise, replaced or cessation")
	choose(c, "reason", "unspecified", "key-compromise", "replaced", "cessation")
	return c
}

func certificateCard(s rest.CertificateSettings) func(*printer) {
	return func(p *printer) { p.card("Opens", s.Use, "Life", s.Life) }
}

// certificateSettings shows them. The verb show is taken by one's own certificate.
func (a *app) certificateSettings() *cobra.Command {
	c := show(a, "certificate", "Show what users' certificates may do", "/settings/certificates", certificateCard)
	c.Use = "settings"
	return c
}

func (a *app) certificateSet() *cobra.Command {
	var use, life string
	c := &cobra.Command{
		Use: "set", Short: "Change what users' certificates may do",
		Example: "  latchkey certificate set --use portal\n  latchkey certificate set --life 240h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in := rest.CertificateSettingsChange{Use: given(cmd.Flags(), "use", use), Life: given(cmd.Flags(), "life", life)}
			if in == (rest.CertificateSettingsChange{}) {
				return usageError{errors.New("say what to change"), cmd}
			}
			var out rest.CertificateSettings
			if err := cl.call(cmd.Context(), http.MethodPatch, "/settings/certificates", nil, in, &out); err != nil {
				return err
			}
			return a.emit(out, certificateCard(out))
		},
	}
	c.Flags().StringVar(&use, "use", "", "off, portal or console: what a user's certificate opens")
	c.Flags().StringVar(&life, "life", "", "how long a new one lasts, for example 720h")
	choose(c, "use", "off", "portal", "console")
	return c
}
