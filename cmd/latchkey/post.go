package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/internal/rest"
	"latchkey/internal/text"
)

// Mails and text messages: how they go out, and the queue.

// maxCAFile bounds a file of certificates.
const maxCAFile = 64 << 10

// caFile reads certificates that a server must come from; "" removes them.
func caFile(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("--ca-file: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err != nil {
		return "", fmt.Errorf("--ca-file: %w", err)
	}
	if len(b) > maxCAFile {
		return "", fmt.Errorf("--ca-file: %s is longer than %d bytes", path, maxCAFile)
	}
	return string(b), nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (a *app) mailCommand() *cobra.Command {
	card := func(s rest.MailSettings) func(p *printer) {
		return func(p *printer) {
			signin := "no"
			if s.Username != "" {
				signin = s.Username + ", " + or(s.Auth, "the best that is offered")
			}
			ca := "those that the system trusts"
			if s.CA != "" {
				ca = "its own"
			}
			port := "the usual one"
			if s.Port != 0 {
				port = fmt.Sprint(s.Port)
			}
			p.card("Mails are sent", yesNo(s.On), "Mail server", dash(s.Host), "Port", port, "Protection", s.Security, "Certificates", ca, "Sign-in", signin,
				"Sender", dash(strings.TrimSpace(s.FromName+" <"+s.From+">")), "Greeting", dash(s.Hello), "Time-out", fmt.Sprintf("%d s", s.Timeout),
				"Codes count", fmt.Sprintf("%d minutes", s.CodeMinutes), "People are told of changes", yesNo(s.Notices))
		}
	}
	var (
		in        rest.MailSettings
		ca        string
		fromStdin bool
	)
	set := &cobra.Command{
		Use: "set", Short: "Change how mails go out",
		Long: "Changes how mails go out: codes, enrolment codes and notes to people. Mails go over TLS with a\ncertificate that is right, or not at all; --security none is for a mail server on this host.",
		Example: "  latchkey mail set --host mail.example.org --from latchkey@example.org --username latchkey --password-stdin --on < password\n" +
			"  latchkey mail test anna@example.org",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			f := cmd.Flags()
			c := rest.MailChange{
				On: given(f, "on", in.On), Host: given(f, "host", in.Host), Port: given(f, "port", in.Port), Security: given(f, "security", in.Security), Auth: given(f, "auth", in.Auth),
				Username: given(f, "username", in.Username), From: given(f, "from", in.From), FromName: given(f, "from-name", in.FromName), Hello: given(f, "hello", in.Hello),
				Timeout: given(f, "timeout", in.Timeout), CodeMinutes: given(f, "code-minutes", in.CodeMinutes), Notices: given(f, "notices", in.Notices),
			}
			if f.Changed("ca-file") {
				pem, err := caFile(ca)
				if err != nil {
					return err
				}
				c.CA = &pem
			}
			if fromStdin {
				s, err := a.readPassword("the mail server", true, false)
				if err != nil {
					return err
				}
				defer s.Wipe()
				h := rest.Hide(s)
				c.Password = &h
			}
			if c == (rest.MailChange{}) {
				return usageError{errors.New("say what to change"), cmd}
			}
			var s rest.MailSettings
			if err := cl.call(cmd.Context(), http.MethodPatch, "/settings/mail", nil, c, &s); err != nil {
				return err
			}
			return a.emit(s, card(s))
		},
	}
	f := set.Flags()
	f.BoolVar(&in.On, "on", false, "mails are sent (--on=false: not)")
	f.StringVar(&in.Host, "host", "", "name of the mail server; its certificate must be for this name")
	f.IntVar(&in.Port, "port", 0, "0 is the usual one: 587 with starttls, 465 with tls")
	f.StringVar(&in.Security, "security", "", "starttls (required), tls (from the first byte), or none (on this host alone)")
	f.StringVar(&ca, "ca-file", "", "PEM file of certificates that the server's must come from; empty: the system's")
	f.StringVar(&in.Auth, "auth", "", "how to sign in: plain, login, cram-md5 or scram-sha-256; empty: the best that is offered")
	f.StringVar(&in.Username, "username", "", "user name there; empty: no sign-in")
	f.BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input, one line")
	f.StringVar(&in.From, "from", "", "the sender's address")
	f.StringVar(&in.FromName, "from-name", "", "the sender's name")
	f.StringVar(&in.Hello, "hello", "", "how this server greets; empty: the host of the sender's address")
	f.IntVar(&in.Timeout, "timeout", 0, "seconds for one mail, 5 to 120")
	f.IntVar(&in.CodeMinutes, "code-minutes", 0, "how long a code counts, 5 to 10")
	f.BoolVar(&in.Notices, "notices", false, "people are told by mail when their factors, password or address change")
	choose(set, "security", rest.MailSecurities...)
	choose(set, "auth", rest.MailAuths[1:]...)
	return noun("mail", "How mails go out", show(a, "mail", "Show how mails go out", "/settings/mail", card), set, a.testCommand("mail", "ADDRESS"))
}

func (a *app) smsCommand() *cobra.Command {
	card := func(s rest.SMSSettings) func(p *printer) {
		return func(p *printer) {
			var headers []string
			for _, h := range s.Headers {
				headers = append(headers, h.Name)
			}
			success := "any 2xx"
			if s.Status != 0 {
				success = fmt.Sprint(s.Status)
			}
			if s.Contains != "" {
				success += fmt.Sprintf(", holds %q", s.Contains)
			}
			if s.Field != "" {
				success += ", field " + s.Field + " is " + or(s.Value, "there")
			}
			ca := "those that the system trusts"
			if s.CA != "" {
				ca = "its own"
			}
			p.card("Text messages are sent", yesNo(s.On), "Gateway", dash(s.URL), "Request", s.Method+", "+s.Form, "Body", dash(s.Body), "Headers", dash(strings.Join(headers, ", ")),
				"User name", dash(s.Username), "Secret", map[bool]string{true: "set", false: "none"}[s.HasSecret], "Sender", dash(s.From), "Certificates", ca,
				"Private networks", dash(strings.Join(s.Networks, ", ")), "Success", success, "Time-out", fmt.Sprintf("%d s", s.Timeout),
				"Codes count", fmt.Sprintf("%d minutes", s.CodeMinutes), "Codes in a minute", fmt.Sprint(s.PerMinute), "Codes in a day", fmt.Sprint(s.PerDay),
				"Numbers begin with", dash(strings.Join(s.Prefixes, ", ")))
		}
	}
	var (
		in        rest.SMSSettings
		ca        string
		headers   []string
		fromStdin bool
	)
	set := &cobra.Command{
		Use: "set", Short: "Change how text messages go out",
		Long: "Changes how text messages go out: by a request to a gateway. {to}, {from}, {text} and {secret}\nin its address and body, and {from} and {secret} in headers, are filled in and escaped.",
		Example: "  latchkey sms set --url https://sms.example.org/Messages --username AC1 --secret-stdin --from Latchkey --on < secret\n" +
			"  latchkey sms set --form json --body '{\"to\":\"{to}\",\"text\":\"{text}\"}' --header 'Authorization: Bearer {secret}'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			f := cmd.Flags()
			c := rest.SMSChange{
				On: given(f, "on", in.On), URL: given(f, "url", in.URL), Method: given(f, "method", in.Method), Form: given(f, "form", in.Form), Body: given(f, "body", in.Body),
				Username: given(f, "username", in.Username), From: given(f, "from", in.From), Networks: given(f, "network", in.Networks), PlainHTTP: given(f, "plain-http", in.PlainHTTP),
				Status: given(f, "status", in.Status), Contains: given(f, "contains", in.Contains), Field: given(f, "field", in.Field), Value: given(f, "value", in.Value),
				Timeout: given(f, "timeout", in.Timeout), CodeMinutes: given(f, "code-minutes", in.CodeMinutes), PerMinute: given(f, "per-minute", in.PerMinute),
				PerDay: given(f, "per-day", in.PerDay), Prefixes: given(f, "prefix", in.Prefixes),
			}
			if c.Networks != nil && len(*c.Networks) == 1 && (*c.Networks)[0] == "" {
				c.Networks = &[]string{}
			}
			if c.Prefixes != nil && len(*c.Prefixes) == 1 && (*c.Prefixes)[0] == "" {
				c.Prefixes = &[]string{}
			}
			if f.Changed("header") {
				list := []rest.SMSHeader{}
				for _, h := range headers {
					if h == "" && len(headers) == 1 {
						break
					}
					name, value, ok := strings.Cut(h, ":")
					if !ok {
						return usageError{fmt.Errorf("--header: %q is not of the form NAME: VALUE", h), cmd}
					}
					list = append(list, rest.SMSHeader{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
				}
				c.Headers = &list
			}
			if f.Changed("ca-file") {
				pem, err := caFile(ca)
				if err != nil {
					return err
				}
				c.CA = &pem
			}
			if fromStdin {
				s, err := a.readPassword("the gateway", true, false)
				if err != nil {
					return err
				}
				defer s.Wipe()
				h := rest.Hide(s)
				c.Secret = &h
			}
			if c == (rest.SMSChange{}) {
				return usageError{errors.New("say what to change"), cmd}
			}
			var s rest.SMSSettings
			if err := cl.call(cmd.Context(), http.MethodPatch, "/settings/sms", nil, c, &s); err != nil {
				return err
			}
			return a.emit(s, card(s))
		},
	}
	f := set.Flags()
	f.BoolVar(&in.On, "on", false, "text messages are sent (--on=false: not)")
	f.StringVar(&in.URL, "url", "", "https://… of the gateway; may hold placeholders in path and query")
	f.StringVar(&in.Method, "method", "", "POST, PUT or GET")
	f.StringVar(&in.Form, "form", "", "of the body: form, json, xml, text or none; says how placeholders are escaped")
	f.StringVar(&in.Body, "body", "", "with {to}, {from}, {text} and {secret}")
	f.StringArrayVar(&headers, "header", nil, "NAME: VALUE, with {from} and {secret}; repeat it for several, empty for none")
	f.StringVar(&in.Username, "username", "", "of HTTP Basic authentication, with the secret as password; empty: none")
	f.BoolVar(&fromStdin, "secret-stdin", false, "read the secret from standard input, one line")
	f.StringVar(&in.From, "from", "", "what {from} stands for")
	f.StringVar(&ca, "ca-file", "", "PEM file of certificates that the gateway's must come from; empty: the system's")
	f.StringSliceVar(&in.Networks, "network", nil, "private networks in which the gateway may stand; empty for none")
	f.BoolVar(&in.PlainHTTP, "plain-http", false, "also http://, with which codes cross the network readable")
	f.IntVar(&in.Status, "status", 0, "the status that means success; 0: any 2xx")
	f.StringVar(&in.Contains, "contains", "", "what the answer must hold")
	f.StringVar(&in.Field, "field", "", "a field of the answer in JSON, such as messages.0.status")
	f.StringVar(&in.Value, "value", "", "what that field must be; several with commas")
	f.IntVar(&in.Timeout, "timeout", 0, "seconds for one message, 5 to 60")
	f.IntVar(&in.CodeMinutes, "code-minutes", 0, "how long a code counts, 5 to 10")
	f.IntVar(&in.PerMinute, "per-minute", 0, "codes that the whole server sends in a minute, 1 to 1000")
	f.IntVar(&in.PerDay, "per-day", 0, "codes that the whole server sends in a day, 1 to 100000")
	f.StringSliceVar(&in.Prefixes, "prefix", nil, "what numbers must begin with, such as +49; empty for any")
	choose(set, "method", rest.SMSMethods...)
	choose(set, "form", rest.SMSForms...)
	return noun("sms", "How text messages go out", show(a, "sms", "Show how text messages go out", "/settings/sms", card), set, a.testCommand("sms", "NUMBER"))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// show is the verb that shows settings.
func show[T any](a *app, _, short, path string, card func(T) func(*printer)) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: short,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var s T
			if err := cl.call(cmd.Context(), http.MethodGet, path, nil, nil, &s); err != nil {
				return err
			}
			return a.emit(s, card(s))
		},
	}
}

// testCommand sends a message for trying out.
func (a *app) testCommand(channel, to string) *cobra.Command {
	return &cobra.Command{
		Use: "test " + to, Short: "Send a message at once, and say what came of it", Args: words(to),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var t rest.Tested
			if err := cl.call(cmd.Context(), http.MethodPost, at("settings", channel, "test"), nil, rest.TestMessage{To: args[0]}, &t); err != nil {
				return err
			}
			if err := a.emit(t, func(p *printer) { p.line("%s", t.Detail) }); err != nil {
				return err
			}
			if !t.OK {
				return codeError(1)
			}
			return nil
		},
	}
}

func (a *app) outboxCommand() *cobra.Command {
	var channel, state string
	var most int
	ls := &cobra.Command{
		Use: "list", Short: "List mails and text messages that wait, have failed or were sent", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			items, err := list[rest.Message](cmd.Context(), cl, "/messages", url.Values{"channel": {channel}, "state": {state}}, most)
			if err != nil {
				return err
			}
			return a.emit(items, func(p *printer) {
				t := text.NewTable("MADE", "CHANNEL", "FOR", "USER", "TO", "STATE", "TRIES", "WHY", "ID")
				for _, m := range items {
					t.Row(p.ago(m.CreatedAt), m.Channel, m.Purpose, m.User, m.To, m.State, fmt.Sprint(m.Tries), m.Reason, m.ID)
				}
				p.table(t, "Nothing waits, has failed or was sent of late.")
			})
		},
	}
	ls.Flags().StringVar(&channel, "channel", "", "mail or sms")
	ls.Flags().StringVar(&state, "state", "", "waiting, sent or failed")
	ls.Flags().IntVar(&most, "limit", 100, "how many at most; 0 is all")
	choose(ls, "channel", rest.ChannelMail, rest.ChannelSMS)
	choose(ls, "state", rest.MessageWaiting, rest.MessageSent, rest.MessageFailed)
	retry := &cobra.Command{
		Use: "retry MESSAGE", Short: "Send a message again at once", Args: words("MESSAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var m rest.Message
			if err := cl.call(cmd.Context(), http.MethodPost, at("messages", args[0], "retry"), nil, nil, &m); err != nil {
				return err
			}
			return a.emit(m, func(p *printer) { p.line("The message to %s is sent again now.", m.To) })
		},
	}
	remove := a.yesFlag(&cobra.Command{
		Use: "remove MESSAGE", Short: "Remove a message from the queue", Aliases: []string{"rm"}, Args: words("MESSAGE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Message %s is removed and not sent.", args[0]); err != nil {
				return err
			}
			if err := cl.call(cmd.Context(), http.MethodDelete, at("messages", args[0]), nil, nil, nil); err != nil {
				return err
			}
			return a.emit(struct{}{}, func(p *printer) { p.line("Message %s was removed.", args[0]) })
		},
	})
	return noun("outbox", "The queue of mails and text messages", ls, retry, remove)
}

// factorAddAddress gives a user an address for codes.
func (a *app) factorAddAddress(channel, short string) *cobra.Command {
	var in rest.NewAddress
	c := &cobra.Command{
		Use: channel + " USER", Short: short, Args: words("USER"),
		Long: short + ".\nYou answer for the address: no code confirms it. It takes the place of an older one. Codes go there\nonly where a policy names " + channel + " and the server can send them: it is a weak factor.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var f rest.Factor
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "factors", channel), nil, in, &f); err != nil {
				var p *rest.Problem
				if errors.As(err, &p) && channel == rest.ChannelSMS {
					for i := range p.Fields {
						if p.Fields[i].Name == "address" {
							p.Fields[i].Name = "number" // as it is typed here
						}
					}
				}
				return err
			}
			return a.emit(f, func(p *printer) { p.line("Codes for %s can go to %s where a policy names %s.", args[0], f.To, channel) })
		},
	}
	if channel == rest.ChannelMail {
		c.Flags().StringVar(&in.Address, "address", "", "mail address; without it that of the account")
	} else {
		c.Flags().StringVar(&in.Address, "number", "", "in the international form, such as +49 170 1234567")
		_ = c.MarkFlagRequired("number")
	}
	return c
}
