package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/text"
)

func (a *app) loginCommand() *cobra.Command {
	var certificate, wanted string
	c := &cobra.Command{
		Use: "login [USER]", Short: "Sign in at a server over the network",
		Long: `Signs in with your password and a second factor, and remembers the session (latchkey
logout ends it): approving on your phone, a code of your authenticator app, one by mail
or text message, or a backup code. Whoever has several chooses one; --factor does so
beforehand. A passkey needs a browser.

Where there is no terminal the name, the password and the code are read as lines of
standard input; with a phone the number to type there is told and waited for. Without
--factor a code is taken if there is a kind with codes that one has at hand.

A server with a CA of its own is trusted by the fingerprint of that: give it with
--ca-fingerprint, or compare it when you are asked.

With --certificate you sign in with a certificate of your own and its key in one file
(latchkey certificate request or install): no password and no code. The session is good
with that certificate alone.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("it takes at most one argument, USER, not %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if certificate != "" && wanted != "" {
				return usagef("--certificate and --factor do not go together: a certificate is all that it takes")
			}
			if certificate != "" && len(args) > 0 {
				return usagef("--certificate says who you are; leave the name out")
			}
			return a.login(cmd.Context(), args, certificate, wanted)
		},
	}
	c.Flags().StringVar(&certificate, "certificate", "", "file of a certificate and its key, in place of password and code")
	c.Flags().StringVar(&wanted, "factor", "", "the second factor to give: push, totp, mail, sms or backup (default: asked, if you have several)")
	choose(c, "factor", "push", "totp", "mail", "sms", "backup")
	return c
}

func (a *app) login(ctx context.Context, args []string, certificate, wanted string) error {
	p, err := a.readProfile()
	if err != nil {
		return err
	}
	named := a.server
	if named == "" {
		named = p.Current
	}
	if named == "" {
		return usagef("say where: --server https://HOST:PORT")
	}
	server, err := parseServer(named)
	if err != nil {
		return usagef("--server: %s", err)
	}
	if a.tokenFile != "" {
		return usagef("--token-file and login do not go together: a token needs no login")
	}
	k := p.Servers[server]
	if k == nil {
		if len(p.Servers) >= maxServers {
			return fmt.Errorf("the profile holds %d servers; forget one with latchkey logout", maxServers)
		}
		k = &known{}
	}
	if err := a.learn(ctx, server, a.caPrint, k); err != nil {
		return err
	}
	if k.Certificate = certificate; certificate != "" {
		if k.Certificate, err = filepath.Abs(certificate); err != nil {
			return err
		}
	}
	c, err := a.overNetwork(server, k)
	if err != nil {
		return err
	}
	if certificate != "" {
		var s rest.SignedIn
		if err := c.call(ctx, http.MethodPost, "/sessions/certificate", nil, nil, &s); err != nil {
			return err
		}
		return a.arrived(p, k, server, s)
	}
	name := k.Name
	switch {
	case len(args) == 1:
		name = args[0]
	case name == "" || !a.terminal():
		if name, err = a.ask("User: "); err != nil {
			return err
		}
	}
	password, err := a.readSecret(fmt.Sprintf("Password of %s: ", text.Clean(name)))
	if err != nil {
		return fmt.Errorf("the password can not be read: %w", err)
	}
	defer password.Wipe()
	var s rest.SignedIn
	err = c.call(ctx, http.MethodPost, "/sessions", nil, rest.Credentials{Name: name, Password: rest.Hide(password)}, &s)
	for err == nil && s.Session == nil {
		s, err = a.step(ctx, c, server, name, wanted, s)
	}
	if err != nil {
		return err
	}
	return a.arrived(p, k, server, s)
}

// arrived remembers the session of a login.
func (a *app) arrived(p *profile, k *known, server string, s rest.SignedIn) error {
	if s.Session == nil {
		return errors.New("the server's answer is not understood; is it of another version than this command?")
	}
	k.Name, k.Session, k.Ends = s.Session.User, s.Secret.Show(), s.Session.EndsAt
	p.Servers[server], p.Current = k, server
	if err := p.write(); err != nil {
		return err
	}
	return a.emit(s.Session, func(p *printer) {
		p.line("Signed in at %s as %s, until %s at the latest.", server, s.Session.User, when(s.Session.EndsAt))
		if !s.Session.Console {
			p.line("This session is for your own things alone.")
		}
	})
}

// ask reads a line that may be seen.
func (a *app) ask(prompt string) (string, error) {
	if a.terminal() {
		fmt.Fprint(a.err, prompt)
	}
	b, err := a.readLine()
	if errors.Is(err, errInterrupted) {
		return "", err
	}
	if err != nil {
		return "", errors.New("there is nothing on standard input; give name, password and code as lines, or sign in at a terminal")
	}
	return string(b.Reveal()), nil
}

// step gives what a sign-in asks for next; wanted is the kind of --factor, or empty.
func (a *app) step(ctx context.Context, c *client, server, name, wanted string, s rest.SignedIn) (next rest.SignedIn, err error) {
	switch s.Next {
	case "code":
		x := &second{
			app: a, server: server, ways: s.Choices, wanted: wanted,
			choose: func(ctx context.Context, kind string, again bool) (asked rest.Asked, err error) {
				err = c.call(ctx, http.MethodPost, "/sessions/choose", nil, rest.Choice{Signin: s.Signin, Kind: kind, Again: again}, &asked)
				return asked, err
			},
			answer: func(ctx context.Context, kind string, code secret.Bytes) (bool, error) {
				next = rest.SignedIn{}
				err := c.call(ctx, http.MethodPost, "/sessions/answer", nil, rest.Answer{Signin: s.Signin, Kind: kind, Code: rest.Hide(code)}, &next)
				return next.Asked == nil, err
			},
			cancel: func(ctx context.Context) error {
				return c.call(ctx, http.MethodPost, "/sessions/cancel", nil, rest.Signin{Signin: s.Signin}, nil)
			},
		}
		err := x.give(ctx)
		if errors.Is(err, errNotGiven) || errors.Is(err, errInterrupted) {
			err = fmt.Errorf("%w; you have not signed in", err)
		}
		return next, err
	case "new-password":
		a.say("your password must be changed first")
		password, err := a.readPassword(name, !a.terminal(), false)
		if err != nil {
			return next, err
		}
		defer password.Wipe()
		err = c.call(ctx, http.MethodPost, "/sessions/password", nil, rest.DuePassword{Signin: s.Signin, Password: rest.Hide(password)}, &next)
		return next, err
	case "enrol":
		return next, fmt.Errorf("you have no second factor yet: set one up at %s/me first, with the enrolment code of your help desk", server)
	case "browser":
		return next, fmt.Errorf("your second factor is a passkey, which only a browser can use: sign in at %s in one. For this command add another factor there (%s/me/factors), or sign in with a certificate (--certificate)", server, server)
	}
	return next, errors.New("the server asks for something that this command does not know; update it")
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "End the session at a server and forget it",
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := a.readProfile()
			if err != nil {
				return err
			}
			named := a.server
			if named == "" {
				named = p.Current
			}
			if named == "" {
				return errors.New("you have not signed in anywhere")
			}
			server, err := parseServer(named)
			if err != nil {
				return usagef("--server: %s", err)
			}
			k := p.Servers[server]
			if k == nil {
				return fmt.Errorf("you have not signed in at %s", server)
			}
			var ended error
			if k.Session != "" {
				c, err := a.overNetwork(server, k)
				if err != nil {
					return err
				}
				c.bearer = secret.FromString(k.Session)
				ended = c.call(cmd.Context(), http.MethodDelete, "/session", nil, nil, nil)
			}
			// The secret goes in any case; a server that is away ends the session by itself.
			delete(p.Servers, server)
			if p.Current == server {
				p.Current = ""
			}
			if err := p.write(); err != nil {
				return err
			}
			var problem *rest.Problem
			if ended != nil && (!errors.As(ended, &problem) || problem.Code != fault.Unauthorized) {
				a.say("the server was not told: %s; the session ends by itself half an hour after its last use", ended)
			}
			return a.emit(struct{}{}, func(p *printer) { p.line("Signed out at %s.", server) })
		},
	}
}

func (a *app) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Who you are at the server, and what you may do",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var w rest.Who
			if err := cl.call(cmd.Context(), http.MethodGet, "/session", nil, nil, &w); err != nil {
				return err
			}
			return a.emit(w, func(p *printer) {
				by, until, proof := "the admin socket", "", ""
				switch {
				case w.Session != nil:
					by, until, proof = "a session", when(w.Session.EndsAt), p.ago(w.Session.FreshAt)
				case w.Token != nil:
					by, until = "the API token "+w.Token.Name, when(w.Token.ExpiresAt)
				}
				p.card("You are", w.Name, "Role", w.Role, "By", by, "At", cl.name, "May", dash(strings.Join(w.Rights, ", ")), "Until", until, "Second factor", proof)
			})
		},
	}
}

func (a *app) tokenCommand() *cobra.Command {
	var in rest.NewAPIToken
	add := &cobra.Command{
		Use: "add NAME", Short: "Make an API token for a program", Args: words("NAME"),
		Long: `Makes an API token and prints it once. A program sends it as "Authorization: Bearer
lk_…"; this command takes it with --token-file. It may do what its scopes and its
maker's role allow, and ends with its time or its maker.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in.Name = args[0]
			var t rest.APIToken
			if err := cl.call(cmd.Context(), http.MethodPost, "/tokens", nil, in, &t); err != nil {
				return err
			}
			return a.emit(t, func(p *printer) {
				p.raw(t.Token.Show() + "\n")
				p.line("For %s, until %s. It is not shown again.", strings.Join(t.Scopes, ", "), when(t.ExpiresAt))
			})
		},
	}
	f := add.Flags()
	f.StringSliceVar(&in.Scopes, "scope", nil, "what it may do: events, read, helpdesk, change, own; may be repeated")
	f.StringVar(&in.Role, "role", "", "the highest role that it shall have (default yours)")
	f.StringVar(&in.ValidFor, "expires", "", "how long it is good: 1h to 8760h (default 2160h, 90 days)")
	choose(add, "scope", "events", "read", "helpdesk", "change", "own")
	if err := add.MarkFlagRequired("scope"); err != nil {
		panic(err)
	}
	var all bool
	ls := &cobra.Command{
		Use: "list", Short: "List API tokens", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if all || cl.path != "" { // root has none of its own
				q.Set("all", "true")
			}
			tokens, err := list[rest.APIToken](cmd.Context(), cl, "/tokens", q, 0)
			if err != nil {
				return err
			}
			return a.emit(tokens, func(p *printer) {
				t := text.NewTable("NAME", "MAKER", "SCOPES", "ROLE", "USED", "UNTIL", "ID")
				for _, x := range tokens {
					until := when(x.ExpiresAt)
					if !p.now.Before(x.ExpiresAt) {
						until = "expired"
					}
					t.Row(x.Name, x.Maker, strings.Join(x.Scopes, ","), x.Now, p.ago(x.LastUsedAt), until, x.ID)
				}
				p.table(t, "There are no API tokens. Make one: latchkey token add NAME --scope read")
			})
		},
	}
	ls.Flags().BoolVar(&all, "all", false, "those of everybody")
	revoke := a.yesFlag(&cobra.Command{
		Use: "revoke TOKEN-ID", Short: "Make an API token worthless at once", Aliases: []string{"rm"}, Args: words("TOKEN-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("The API token %s is worthless from then on.", args[0]); err != nil {
				return err
			}
			if err := cl.call(cmd.Context(), http.MethodDelete, at("tokens", args[0]), nil, nil, nil); err != nil {
				return err
			}
			return a.emit(struct{}{}, func(p *printer) { p.line("The API token was revoked.") })
		},
	})
	return noun("token", "API tokens: programs that act for you", add, ls, revoke)
}

func (a *app) sessionCommand() *cobra.Command {
	var user string
	ls := &cobra.Command{
		Use: "list", Short: "List sessions at console, portal and API", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			path := "/sessions"
			if user != "" {
				path = at("users", user, "sessions")
			}
			var items []rest.Session
			if user != "" {
				var page rest.Page[rest.Session]
				err = cl.call(cmd.Context(), http.MethodGet, path, nil, nil, &page)
				items = page.Items
			} else {
				items, err = list[rest.Session](cmd.Context(), cl, path, nil, 0)
			}
			if err != nil {
				return err
			}
			return a.emit(items, func(p *printer) {
				t := text.NewTable("USER", "KIND", "FACTOR", "BEGAN", "SEEN", "ADDRESS", "WITH", "ID")
				for _, x := range items {
					mine := ""
					if x.Current {
						mine = " (this)"
					}
					t.Row(x.User, x.Kind+mine, x.Factor, when(x.BeganAt), p.ago(x.SeenAt), dash(x.Address), dash(x.Agent), x.ID)
				}
				p.table(t, "Nobody has signed in.")
			})
		},
	}
	ls.Flags().StringVar(&user, "user", "", "only this user's: name or id")
	var of string
	end := a.yesFlag(&cobra.Command{
		Use: "end [SESSION-ID]", Short: "End a session, or with --user sign somebody out everywhere",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 == (of != "") {
				return errors.New("say which: one SESSION-ID, or --user")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if of == "" {
				if err := cl.call(cmd.Context(), http.MethodDelete, at("sessions", args[0]), nil, nil, nil); err != nil {
					return err
				}
				return a.emit(struct{}{}, func(p *printer) { p.line("The session was ended.") })
			}
			var done rest.SignedOut
			if err := cl.call(cmd.Context(), http.MethodDelete, at("users", of, "sessions"), nil, nil, &done); err != nil {
				return err
			}
			return a.emit(done, func(p *printer) {
				p.line("%s, %s, %s and %s ended.", plural(done.Count, "session"), plural(done.Windows, "MFA window"), plural(done.Tokens, "API token"), plural(done.Certificates, "certificate"))
			})
		},
	})
	end.Flags().StringVar(&of, "user", "", "all sessions, MFA windows, API tokens and certificates of this user (of your own: the other sessions); name or id")
	return noun("session", "Sessions: who has signed in at console, portal and API", ls, end)
}

func (a *app) approvalCommand() *cobra.Command {
	show := func(x rest.Approval) error {
		return a.emit(x, func(p *printer) {
			p.card("Approval", x.ID, "State", x.State, "For", x.Action, "About", x.Subject, "Reason", x.Reason, "Asked by", x.Requester, "Decided by", x.Approver, "Until", when(x.ExpiresAt))
		})
	}
	ls := &cobra.Command{
		Use: "list", Short: "List what a second owner was asked for within the last day", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var page rest.Page[rest.Approval]
			if err := cl.call(cmd.Context(), http.MethodGet, "/approvals", nil, nil, &page); err != nil {
				return err
			}
			return a.emit(page.Items, func(p *printer) {
				t := text.NewTable("STATE", "FOR", "ABOUT", "ASKED BY", "DECIDED BY", "REASON", "UNTIL", "ID")
				for _, x := range page.Items {
					t.Row(x.State, x.Action, x.Subject, x.Requester, dash(x.Approver), x.Reason, when(x.ExpiresAt), x.ID)
				}
				p.table(t, "Nobody has asked for an approval.")
			})
		},
	}
	var in rest.NewApproval
	ask := &cobra.Command{
		Use: "ask ACTION USER", Short: "Ask another owner to approve an action on a user", Args: words("ACTION", "USER"),
		Long: "ACTION is the id of an operation of the API, such as remove-factor or issue-bypass-code. When it was given, do it with --approval ID.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in.Action, in.Subject = args[0], args[1]
			var x rest.Approval
			if err := cl.call(cmd.Context(), http.MethodPost, "/approvals", nil, in, &x); err != nil {
				return err
			}
			return show(x)
		},
	}
	ask.Flags().StringVar(&in.Reason, "reason", "", "why; the other owner reads it")
	if err := ask.MarkFlagRequired("reason"); err != nil {
		panic(err)
	}
	decide := func(use, short string, yes bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " APPROVAL-ID", Short: short, Args: words("APPROVAL-ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				var x rest.Approval
				if err := cl.call(cmd.Context(), http.MethodPost, at("approvals", args[0], "decide"), nil, rest.Verdict{Approve: yes}, &x); err != nil {
					return err
				}
				return show(x)
			},
		}
	}
	return noun("approval", "Approvals: what one owner alone may not do", ls, ask, decide("give", "Approve what another owner wants to do", true), decide("deny", "Refuse it, or withdraw your own", false))
}
