package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/internal/rest"
	"latchkey/internal/text"
)

func (a *app) policyTry() *cobra.Command {
	var in rest.TryPolicy
	var file string
	var priority int64
	var groups []string
	var noGroups bool
	since := whenFlag{now: a.clock.Now}
	c := &cobra.Command{
		Use: "try [POLICY] [SETTING=VALUE…]", Short: "Try a draft of a policy against the last week's sign-ins", Args: cobra.ArbitraryArgs,
		Long: `Judges the sign-ins of the last week twice, with the rules as they are and with the
draft, and tells for whom something changes. Nothing is written. Without POLICY the
draft is a new policy; say its --group.
` + settingHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			list := shutOutCommand(cmd, args...)
			if len(args) > 0 && !strings.Contains(args[0], "=") {
				in.Policy, args = args[0], args[1:]
			}
			if in.Settings, err = a.settingsFrom(file, args); err != nil {
				return err
			}
			in.Priority, in.Since = given(cmd.Flags(), "priority", priority), since.t
			if noGroups {
				groups = []string{}
			}
			if noGroups || cmd.Flags().Changed("group") {
				in.Groups = &groups
			}
			cl.http.Timeout = verifyTime
			var x rest.Tried
			if err := cl.call(cmd.Context(), http.MethodPost, "/policies/try", nil, in, &x); err != nil {
				return err
			}
			return a.emit(x, func(p *printer) { tried(p, x, list) })
		},
	}
	f := c.Flags()
	f.Int64Var(&priority, "priority", 0, "the smallest number wins")
	f.StringArrayVar(&groups, "group", nil, "group that it would belong to; say all of them, the flag may be repeated")
	f.BoolVar(&noGroups, "no-groups", false, "it would belong to no group")
	f.StringVar(&file, "file", "", "JSON object of settings; - is standard input")
	f.BoolVar(&in.Remove, "remove", false, "try without the policy")
	f.Int64Var(&in.Version, "version", 0, "try an older version of the policy")
	f.Var(&since, "since", "from this time on (default 7d)")
	f.IntVar(&in.Limit, "limit", 0, fmt.Sprintf("how many sign-ins at most, the youngest (default %d)", rest.TrySignins))
	f.IntVar(&in.People, "people", 0, fmt.Sprintf("how many people are named for each change (default %d)", rest.TryPeople))
	c.MarkFlagsMutuallyExclusive("group", "no-groups")
	return c
}

// changeWords say what a change means for people.
var changeWords = map[string]string{
	"denied":           "would be denied",
	"asked-to-enrol":   "would have to enrol a factor first",
	"asked-more":       "would be asked for more",
	"asked-less":       "would be asked for less",
	"no-longer-denied": "would no longer be denied",
	"other-factors":    "would be asked for other factors",
	"same":             "nothing changes",
}

// tried prints a trial; shutOut is the command that lists whom the draft shuts out.
func tried(p *printer, x rest.Tried, shutOut string) {
	p.line("%s of %s judged, from %s.", plural(x.Judged, "sign-in"), people(x.People), when(x.Since))
	p.line("Asked for a second factor: %d now, %d with the draft. For %d nothing changes.", x.Before, x.After, x.Same)
	list := func(head string, trials []rest.Trial) {
		for _, c := range trials {
			p.line("")
			p.line("%s: %s in %s %s.", head, people(c.People), plural(c.Signins, "sign-in"), changeWords[string(c.Change)])
			t := text.NewTable("WHO", "SIGN-INS", "FOR EXAMPLE", "MACHINE", "SCOPE", "NOW", "WITH THE DRAFT")
			for _, w := range c.Who {
				t.Row(w.User, strconv.Itoa(w.Signins), when(w.At), w.Machine, w.Scope, decision(w.Before), decision(w.After)+" ("+string(w.After.Reason)+")")
			}
			p.table(t, "")
		}
	}
	list("With the server", x.Changes)
	list("Without the server", x.Offline)
	if s := x.ShutOut; s != nil && s.People > 0 {
		p.line("")
		p.line("Whether they signed in or not, %s.", shutsOut(*s))
		p.line("Who has what: %s", shutOut)
	} else if s != nil {
		p.line("")
		p.line("Nobody who can sign in now would be shut out; %s can not as it is.", people(int(s.Already)))
	}
	if x.Capped != "" {
		p.line("Note: %s", x.Capped)
	}
	for _, l := range x.Unjudged {
		p.line("Not judged: %d. %s", l.N, l.Why)
	}
	if x.Moved > 0 {
		p.line("Note: %s came out by another rule at the time: users, machines or policies have changed since.", plural(x.Moved, "sign-in"))
	}
	for _, n := range x.Notes {
		p.line("Note: %s", n)
	}
	for _, w := range x.Warnings {
		p.line("Warning: %s", w)
	}
}

func people(n int) string {
	if n == 1 {
		return "1 person"
	}
	return fmt.Sprintf("%d people", n)
}

func (a *app) policyEffective() *cobra.Command {
	var user, machine string
	c := &cobra.Command{
		Use: "effective", Short: "Which policy holds for a user, and why",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if machine != "" {
				q.Set("machine", machine)
			}
			var x rest.Effective
			if err := cl.call(cmd.Context(), http.MethodGet, at("users", user, "policy"), q, nil, &x); err != nil {
				return err
			}
			return a.emit(x, func(p *printer) {
				on := "off"
				if x.TwoFactor {
					on = "on"
				}
				p.card("User", x.User, "Machine", x.Machine, "Policy", x.Policy, "Through", x.Through, "2FA", on+": "+x.Because)
				p.line("")
				t := text.NewTable("", "PRIORITY", "POLICY", "WHY")
				for _, c := range x.Considered {
					mark := "  "
					if c.Applies {
						mark = "=>"
					}
					priority := "-" // of the default
					if c.Priority != 0 {
						priority = strconv.FormatInt(c.Priority, 10)
					}
					t.Row(mark, priority, c.Policy, c.Why)
				}
				p.table(t, "")
				for _, d := range x.Raised {
					p.line("The machine changes %s: %s → %s", d.Field, dash(settingWords(d.Old)), dash(settingWords(d.New)))
				}
				for _, n := range x.Notes {
					p.line("Note: %s", n)
				}
				for _, w := range x.Warnings {
					p.line("Warning: %s", w)
				}
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "user: name or id; required")
	c.Flags().StringVar(&machine, "machine", "", "as it holds on this machine: name, number or id")
	if err := c.MarkFlagRequired("user"); err != nil {
		panic(err)
	}
	return c
}

func (a *app) policyCompare() *cobra.Command {
	return &cobra.Command{
		Use: "compare POLICY VERSION [VERSION]", Short: "Compare a version with the present one, or with another", Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			for i, name := range []string{"from", "to"} {
				if len(args) <= i+1 {
					continue
				}
				if n, err := strconv.ParseInt(args[i+1], 10, 64); err != nil || n < 1 {
					return usageError{fmt.Errorf("VERSION: %q is no version; see latchkey policy history", text.CleanN(args[i+1], 40)), cmd}
				}
				q.Set(name, args[i+1])
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var x rest.PolicyComparison
			if err := cl.call(cmd.Context(), http.MethodGet, at("policies", args[0], "compare"), q, nil, &x); err != nil {
				return err
			}
			return a.emit(x, func(p *printer) {
				if len(x.Changes) == 0 {
					p.line("Versions %d and %d of %s are the same.", x.From, x.To, x.Policy)
				}
				for _, d := range x.Changes {
					p.line("%s: %s → %s", d.Field, dash(settingWords(d.Old)), dash(settingWords(d.New)))
				}
			})
		},
	}
}

func (a *app) policyReports() *cobra.Command {
	var change string
	var limit int
	c := &cobra.Command{
		Use: "reports POLICY", Short: "What a policy that only reports would have decided", Args: words("POLICY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{"limit": {strconv.Itoa(limit)}}
			if change != "" {
				q.Set("change", change)
			}
			var x rest.PolicyReports
			if err := cl.call(cmd.Context(), http.MethodGet, at("policies", args[0], "reports"), q, nil, &x); err != nil {
				return err
			}
			return a.emit(x, func(p *printer) {
				if x.Signins == 0 {
					p.line("No reports of version %d of %s yet. A policy reports while report_only is true, for members of its groups.", x.Version, x.Policy)
					return
				}
				p.line("%s since version %d:", plural(x.Signins, "sign-in"), x.Version)
				for _, c := range x.Counts {
					p.line("  %s in %s: %s", people(int(c.People)), plural(int(c.Signins), "sign-in"), changeWords[c.Change])
				}
				t := text.NewTable("TIME", "WHO", "MACHINE", "SCOPE", "CAME OUT", "WOULD HAVE", "EVENT")
				for _, i := range x.Items {
					t.Row(i.At.Local().Format("01-02 15:04:05"), i.User, i.Machine, i.Scope, i.Outcome, i.Would, i.Event)
				}
				p.line("")
				p.table(t, "")
			})
		},
	}
	c.Flags().StringVar(&change, "change", "", "only sign-ins with this change")
	c.Flags().IntVar(&limit, "limit", 20, "how many sign-ins are listed")
	choose(c, "change", "denied", "asked-to-enrol", "asked-more", "asked-less", "no-longer-denied", "other-factors", "same")
	return c
}

// moreEventFlags are the filters of events beside user, machine, type, outcome and time.
var moreEventFlags = []struct{ name, usage string }{
	{"reason", "only with this reason (a code)"},
	{"scope", "only sign-ins of this kind: logon, elevation or remote"},
	{"service", "only through this service"},
	{"link", "only with the link up, down or refused"},
	{"factor", "only with this factor"},
	{"actor", "only what this one did"},
	{"address", "only from this address"},
	{"text", "only with this text in subject, actor, machine, address, service or reason"},
}

func (a *app) eventsExport() *cobra.Command {
	e := eventFlags{since: whenFlag{now: a.clock.Now}, until: whenFlag{now: a.clock.Now}}
	var format, file string
	c := &cobra.Command{
		Use: "export", Short: "Write events to a file, as CSV or as one JSON object a line",
		Long: `Writes the events that match, the youngest first, at most a million. In CSV a cell that
begins like a formula of a spreadsheet has an apostrophe before it.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := e.query()
			q.Set("format", format)
			if e.limit > 0 {
				q.Set("limit", strconv.Itoa(e.limit))
			}
			cl.http.Timeout = 0
			res, err := cl.request(cmd.Context(), http.MethodGet, "/events/export", q, nil, http.Header{})
			if err != nil {
				return err
			}
			defer res.Body.Close()
			w := io.Writer(a.out)
			if file != "" && file != "-" {
				f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return fmt.Errorf("--file: %w", err)
				}
				defer f.Close()
				w = f
			}
			begun := a.clock.Now()
			shown := begun
			n, err := io.Copy(writerFunc(func(b []byte) (int, error) {
				if now := a.clock.Now(); file != "" && now.Sub(shown) > 5*time.Second {
					shown = now
					a.say("still writing to %s", file)
				}
				return w.Write(b)
			}), res.Body)
			if err != nil {
				return fmt.Errorf("the export broke off after %d octets and is not whole: %w", n, err)
			}
			events, more := res.Trailer.Get("Latchkey-Events"), res.Trailer.Get("Latchkey-More") == "true"
			if events == "" {
				return fmt.Errorf("the export broke off after %d octets and is not whole", n)
			}
			if file != "" {
				a.say("%s events were written to %s", events, file)
			}
			if more {
				a.say("there are more: export the rest with --until and the time of the last one")
			}
			return nil
		},
	}
	f := c.Flags()
	e.filters(c)
	f.IntVar(&e.limit, "limit", 0, "how many at most (default and bound: a million)")
	f.StringVar(&format, "format", "csv", "csv or json")
	f.StringVar(&file, "file", "", "file to write, which must not be there yet; absent: standard output")
	choose(c, "format", "csv", "json")
	return c
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
