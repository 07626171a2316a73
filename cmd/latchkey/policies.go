package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

func (a *app) policyCommand() *cobra.Command {
	return noun("policy", "Policies: who must prove what, where",
		a.policyList(), a.policyShow(), a.policyAdd(), a.policySet(), a.policyRemove(), a.policyHistory(), a.policyRollback(),
		a.policyTry(), a.policyShutOut(), a.policyEffective(), a.policyCompare(), a.policyReports())
}

// warnings go to people in every form of output: they are about what was just done.
func (a *app) warnings(p rest.Policy) {
	for _, w := range p.Warnings {
		a.say("warning: policy %s: %s", p.Name, w)
	}
}

func (a *app) policyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List policies in the order in which they are looked at", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var page rest.Page[rest.Policy]
			if err := cl.call(cmd.Context(), http.MethodGet, "/policies", nil, nil, &page); err != nil {
				return err
			}
			return a.emit(page.Items, func(p *printer) {
				t := text.NewTable("POLICY", "PRIORITY", "GROUPS", "SCOPES", "FACTORS", "OFFLINE", "WINDOW", "WARNINGS")
				for _, x := range page.Items {
					s, _ := policy.Parse(x.Settings)
					groups, priority, warn := strings.Join(x.Groups, ", "), fmt.Sprint(x.Priority), ""
					if x.Default {
						groups, priority = "(everybody else)", "-"
					}
					if len(x.Warnings) > 0 {
						warn = plural(len(x.Warnings), "warning")
					}
					t.Row(x.Name, priority, dash(groups), wordList(s.Scopes), fmt.Sprintf("%d of %s", s.FactorsOnline, wordList(s.OnlineFactors)), string(s.Offline), span(s.Window), warn)
				}
				p.table(t, "There are no policies.")
			})
		},
	}
}

func (a *app) policyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show POLICY", Short: "Show a policy with every setting", Args: words("POLICY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var x rest.Policy
			if err := cl.call(cmd.Context(), http.MethodGet, at("policies", args[0]), nil, nil, &x); err != nil {
				return err
			}
			return a.emit(x, func(p *printer) { policyCard(p, x) })
		},
	}
}

func policyCard(p *printer, x rest.Policy) {
	groups, priority := dash(strings.Join(x.Groups, ", ")), fmt.Sprint(x.Priority)
	if x.Default {
		groups, priority = "everybody to whom no other policy applies", ""
	}
	p.card("Policy", x.Name, "Id", x.ID, "Priority", priority, "Applies to", groups, "Version", fmt.Sprint(x.Version), "Changed", when(x.UpdatedAt))
	p.line("")
	pairs := []string{}
	dec := json.NewDecoder(bytes.NewReader(x.Settings))
	if _, err := dec.Token(); err == nil {
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				break
			}
			var v json.RawMessage
			if err := dec.Decode(&v); err != nil {
				break
			}
			pairs = append(pairs, fmt.Sprint(name), dash(settingWords(v)))
		}
	}
	p.card(pairs...)
	for i, w := range x.Warnings {
		if i == 0 {
			p.line("")
		}
		p.line("Warning: %s", w)
	}
}

// settingWords writes a setting's value as `policy set` takes it.
func settingWords(v json.RawMessage) string {
	var x any
	dec := json.NewDecoder(bytes.NewReader(v))
	dec.UseNumber()
	if err := dec.Decode(&x); err != nil {
		return string(v)
	}
	switch x := x.(type) {
	case nil:
		return ""
	case []any:
		parts := make([]string, len(x))
		for i, e := range x {
			parts[i] = fmt.Sprint(e)
		}
		return strings.Join(parts, ",")
	}
	return fmt.Sprint(x)
}

func wordList[T ~string](list []T) string {
	parts := make([]string, len(list))
	for i, s := range list {
		parts[i] = string(s)
	}
	return dash(strings.Join(parts, ", "))
}

// settingsFrom reads the settings of a file (- is standard input) and of words; the
// words win.
func (a *app) settingsFrom(file string, args []string) (json.RawMessage, error) {
	typed, err := parseSettings(args)
	if err != nil {
		return nil, usageError{error: err}
	}
	if file == "" {
		return typed, nil
	}
	r := io.Reader(a.in)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, policy.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	if len(b) > policy.MaxBody {
		return nil, fmt.Errorf("--file: it has more than %d octets; allowed are at most %d", policy.MaxBody, policy.MaxBody)
	}
	b = bytes.TrimSpace(b)
	if !json.Valid(b) {
		return nil, errors.New("--file: it is not JSON; allowed is an object of settings, as \"settings\" in latchkey policy show --output json")
	}
	if typed == nil {
		return b, nil
	}
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, errors.New("--file: it is not a JSON object of settings")
	}
	if err := json.Unmarshal(typed, &all); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

const settingHelp = `
Settings are words such as window=4h, scopes=logon,remote, offline=mfa_or_bypass,
offline_signins=20, software_vault=false, trusted_networks=192.0.2.0/24; a list may be
empty (exempt_uids=). "latchkey policy show default" lists them all,
docs/administrators.md explains them.`

func (a *app) policyAdd() *cobra.Command {
	var in rest.NewPolicy
	var file string
	var priority int64
	c := &cobra.Command{
		Use: "add POLICY [SETTING=VALUE…]", Short: "Add a policy", Args: wordsAndMore("POLICY"),
		Long: "Adds a policy; what is not said has its default." + "\n" + settingHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if in.Settings, err = a.settingsFrom(file, args[1:]); err != nil {
				return err
			}
			in.Name, in.Priority = args[0], given(cmd.Flags(), "priority", priority)
			var x rest.Policy
			err = a.accepting(in.ShutOut, shutOutCommand(cmd, args[1:]...), func(most int64) error {
				in.ShutOut = most
				return cl.call(cmd.Context(), http.MethodPost, "/policies", nil, in, &x)
			})
			if err != nil {
				return err
			}
			a.warnings(x)
			return a.emit(x, func(p *printer) {
				p.line("Policy %s was added.", x.Name)
				if len(x.Groups) == 0 {
					p.line("It belongs to no group yet: latchkey policy set %s --group GROUP", x.Name)
				}
			})
		},
	}
	c.Flags().Int64Var(&priority, "priority", 0, "the smallest number wins (default 100)")
	c.Flags().StringArrayVar(&in.Groups, "group", nil, "group it belongs to; may be repeated")
	c.Flags().StringVar(&in.Comment, "comment", "", "why; it stands in the history")
	c.Flags().StringVar(&file, "file", "", "JSON object of settings; - is standard input")
	return a.shutOutFlag(c, &in.ShutOut)
}

func (a *app) policySet() *cobra.Command {
	var in rest.PolicyChange
	var file, name string
	var priority, rev int64
	var groups []string
	var noGroups bool
	c := &cobra.Command{
		Use: "set POLICY [SETTING=VALUE…]", Short: "Change a policy", Args: wordsAndMore("POLICY"),
		Long: "Changes a policy; what is not said stays. Every change makes a new version. One that\nshuts out people who could sign in until now is only made when that is accepted: at a\nterminal it asks, else it needs --shut-out or --yes. Whom: latchkey policy shut-out.\n" + settingHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if in.Settings, err = a.settingsFrom(file, args[1:]); err != nil {
				return err
			}
			in.Name, in.Priority = given(cmd.Flags(), "name", name), given(cmd.Flags(), "priority", priority)
			if noGroups {
				groups = []string{}
			}
			if noGroups || cmd.Flags().Changed("group") {
				in.Groups = &groups
			}
			if in.Settings == nil && in.Name == nil && in.Priority == nil && in.Groups == nil {
				return usageError{errors.New("say what to change"), cmd}
			}
			var was, x rest.Policy
			if err := cl.call(cmd.Context(), http.MethodGet, at("policies", args[0]), nil, nil, &was); err != nil {
				return err
			}
			err = a.accepting(in.ShutOut, shutOutCommand(cmd, args...), func(most int64) error {
				in.ShutOut = most
				return cl.callIf(cmd.Context(), http.MethodPatch, at("policies", args[0]), rev, nil, in, &x)
			})
			if err != nil {
				return err
			}
			a.warnings(x)
			return a.emit(x, func(p *printer) {
				if x.Rev == was.Rev {
					p.line("Nothing changed: policy %s is so already, in version %d.", x.Name, x.Version)
					return
				}
				p.line("Policy %s now has version %d.", x.Name, x.Version)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "another name")
	c.Flags().Int64Var(&priority, "priority", 0, "the smallest number wins")
	c.Flags().StringArrayVar(&groups, "group", nil, "group it belongs to; say all of them, the flag may be repeated")
	c.Flags().BoolVar(&noGroups, "no-groups", false, "it belongs to no group")
	c.Flags().StringVar(&in.Comment, "comment", "", "why; it stands in the history")
	c.Flags().StringVar(&file, "file", "", "JSON object of settings; - is standard input")
	c.Flags().Int64Var(&rev, "if-rev", 0, "only if it still has this revision (see show --output json)")
	c.MarkFlagsMutuallyExclusive("group", "no-groups")
	return a.shutOutFlag(c, &in.ShutOut)
}

func (a *app) policyRemove() *cobra.Command {
	var most int64
	return a.shutOutFlag(a.yesFlag(&cobra.Command{
		Use: "remove POLICY", Short: "Remove a policy; its history stays", Aliases: []string{"rm"}, Args: words("POLICY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Policy %s is removed; the next one applies to its groups.", args[0]); err != nil {
				return err
			}
			err = a.accepting(most, shutOutCommand(cmd, args[0], "--remove"), func(most int64) error {
				return cl.call(cmd.Context(), http.MethodDelete, at("policies", args[0]), url.Values{"shut_out": {strconv.FormatInt(most, 10)}}, nil, nil)
			})
			if err != nil {
				return err
			}
			return a.emit(struct{}{}, func(p *printer) { p.line("Policy %s was removed.", args[0]) })
		},
	}), &most)
}

func (a *app) policyHistory() *cobra.Command {
	return &cobra.Command{
		Use: "history POLICY", Short: "Who changed what in a policy, and when", Args: words("POLICY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			versions, err := list[rest.PolicyVersion](cmd.Context(), cl, at("policies", args[0], "versions"), nil, 0)
			if err != nil {
				return err
			}
			return a.emit(versions, func(p *printer) {
				for _, v := range versions {
					p.line("Version %d, %s, by %s%s", v.Version, when(v.At), v.Actor, behind(": ", v.Comment))
					for _, d := range v.Changes {
						p.line("  %s: %s → %s", d.Field, dash(settingWords(d.Old)), dash(settingWords(d.New)))
					}
				}
			})
		},
	}
}

func behind(sep, s string) string {
	if s == "" {
		return ""
	}
	return sep + s
}

func (a *app) policyRollback() *cobra.Command {
	in := rest.Rollback{}
	c := &cobra.Command{
		Use: "rollback POLICY VERSION", Short: "Bring an older version back, as a new one", Args: words("POLICY", "VERSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[1], 10, 64)
			if err != nil || n < 1 {
				return usageError{fmt.Errorf("VERSION: %q is no version; see latchkey policy history", text.CleanN(args[1], 40)), cmd}
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			var x rest.Policy
			in.Version = n
			err = a.accepting(in.ShutOut, shutOutCommand(cmd, args[0], "--version", args[1]), func(most int64) error {
				in.ShutOut = most
				return cl.call(cmd.Context(), http.MethodPost, at("policies", args[0], "rollback"), nil, in, &x)
			})
			if err != nil {
				return err
			}
			a.warnings(x)
			return a.emit(x, func(p *printer) { p.line("Policy %s is back at version %d, as version %d.", x.Name, n, x.Version) })
		},
	}
	c.Flags().StringVar(&in.Comment, "comment", "", "why; it stands in the history")
	return a.shutOutFlag(c, &in.ShutOut)
}
