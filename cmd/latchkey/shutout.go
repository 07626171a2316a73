package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

// shutOutFlag adds --shut-out and --yes: what a change of a policy needs that shuts
// people out.
func (a *app) shutOutFlag(c *cobra.Command, most *int64) *cobra.Command {
	c.Flags().Int64Var(most, "shut-out", 0, "accept that so many people at most are shut out, who could sign in until now")
	if c.Flags().Lookup("yes") == nil {
		c.Flags().BoolVarP(&a.yes, "yes", "y", false, "do not ask, and accept whomever it shuts out")
	}
	return c
}

// accepting makes a change that may shut people out. The server refuses more than were
// accepted and says whom; at a terminal it is asked then, and --yes has said so already.
// Where nobody can be asked and nothing was said, it stays refused. list is the command
// that lists all of them.
func (a *app) accepting(most int64, list string, change func(most int64) error) error {
	err := change(most)
	var p *rest.Problem
	var s rest.ShutOut
	if !errors.As(err, &p) || p.Code != fault.ShutsOut || json.Unmarshal(p.About, &s) != nil || s.People < 1 {
		return err
	}
	a.say("%s", shutsOut(s))
	if s.People > int64(len(s.Who)) {
		a.say("all of them: %s", list)
	}
	if !a.yes {
		if !a.terminal() {
			p.Detail = fmt.Sprintf("Nothing was changed. Enrol for them what the policy accepts first, or accept it: --shut-out %d (or --yes for any number). Who has what: %s", s.People, list)
			return p
		}
		if err := a.confirm("Shut them out?"); err != nil {
			return err
		}
	}
	return change(s.People)
}

// shutOutCommand is the command that lists whom a draft of a policy shuts out: the words of
// the draft, and those flags of cmd that say what it is.
func shutOutCommand(cmd *cobra.Command, draft ...string) string {
	words := append([]string{"latchkey policy shut-out"}, draft...)
	for i := 1; i < len(words); i++ {
		words[i] = shellWord(words[i])
	}
	cmd.Flags().Visit(func(f *pflag.Flag) { // those that were given, in order of their names
		switch f.Name {
		case "remove", "no-groups":
			words = append(words, "--"+f.Name)
		case "priority", "version", "file":
			words = append(words, "--"+f.Name, shellWord(f.Value.String()))
		case "group":
			if groups, ok := f.Value.(pflag.SliceValue); ok {
				for _, g := range groups.GetSlice() {
					words = append(words, "--group", shellWord(g))
				}
			}
		}
	})
	return strings.Join(words, " ")
}

// shutsOut says whom a change shuts out.
func shutsOut(s rest.ShutOut) string {
	names := make([]string, len(s.Who))
	for i, w := range s.Who {
		names[i] = w.User
		if len(w.New) == 1 && w.New[0] == policy.Apart {
			names[i] += " (offline)" // alone
		}
	}
	list := strings.Join(names, ", ")
	if more := s.People - int64(len(names)); more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("this shuts out %s, who could sign in until now: %s", people(int(s.People)), list)
}

// placeWords name where somebody is shut out.
var placeWords = map[policy.Place]string{
	policy.Place(policy.Logon): "sign-in", policy.Place(policy.Elevation): "elevation", policy.Place(policy.Remote): "remote", policy.Apart: "offline",
}

func placesInWords(list []policy.Place) string {
	if policy.Everywhere(list) && len(list) == len(policy.Places) {
		return "everything"
	}
	out := make([]string, len(list))
	for i, x := range list {
		out[i] = placeWords[x]
	}
	return strings.Join(out, ", ")
}

func (a *app) policyShutOut() *cobra.Command {
	var in rest.ShutOutDraft
	var file string
	var priority int64
	var groups []string
	var noGroups bool
	var limit int
	c := &cobra.Command{
		Use: "shut-out [POLICY] [SETTING=VALUE…]", Short: "List whom a change of a policy would shut out, or who is shut out now", Args: cobra.ArbitraryArgs,
		Long: `Lists who could sign in now and could not after the change, because they have no factor
that the policy would accept, or too few. Nothing is written. With --all also who can not
sign in as it is: "latchkey policy shut-out default --all" asks who is shut out now.
Without POLICY the draft is a new policy; say its --group.
` + settingHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if len(args) > 0 && !strings.Contains(args[0], "=") {
				in.Policy, args = args[0], args[1:]
			}
			if in.Settings, err = a.settingsFrom(file, args); err != nil {
				return err
			}
			in.Priority = given(cmd.Flags(), "priority", priority)
			if noGroups {
				groups = []string{}
			}
			if noGroups || cmd.Flags().Changed("group") {
				in.Groups = &groups
			}
			cl.http.Timeout = verifyTime
			var out rest.ShutOut
			for {
				in.Limit = rest.MaxPage
				if limit > 0 {
					in.Limit = min(limit-len(out.Who), rest.MaxPage)
				}
				var x rest.ShutOut
				if err := cl.call(cmd.Context(), http.MethodPost, "/policies/shut-out", nil, in, &x); err != nil {
					return err
				}
				x.Who = append(out.Who, x.Who...)
				if out = x; x.Next == "" || limit > 0 && len(out.Who) >= limit {
					break
				}
				in.After = x.Next
			}
			return a.emit(out, func(p *printer) {
				t := text.NewTable("WHO", "ROLE", "HAS", "POLICY", "WANTS", "SHUT OUT OF", "NEWLY")
				for _, w := range out.Who {
					t.Row(w.User, dash(w.Role), dash(strings.Join(w.Has, ", ")), w.Policy, fmt.Sprintf("%d of %s", w.Needs, wordList(w.Accepts)), placesInWords(w.Where), dash(placesInWords(w.New)))
				}
				p.table(t, "Nobody.")
				p.line("")
				p.line("%s would be shut out who can sign in now; %s can not as it is.", people(int(out.People)), people(int(out.Already)))
				if out.Next != "" {
					p.line("There are more: say a greater --limit.")
				}
			})
		},
	}
	f := c.Flags()
	f.Int64Var(&priority, "priority", 0, "the smallest number wins")
	f.StringArrayVar(&groups, "group", nil, "group that it would belong to; say all of them, the flag may be repeated")
	f.BoolVar(&noGroups, "no-groups", false, "it would belong to no group")
	f.StringVar(&file, "file", "", "JSON object of settings; - is standard input")
	f.BoolVar(&in.Remove, "remove", false, "without the policy")
	f.Int64Var(&in.Version, "version", 0, "an older version of the policy")
	f.BoolVar(&in.All, "all", false, "also who is shut out as it is")
	f.IntVar(&limit, "limit", 0, "how many are listed at most (default: all)")
	c.MarkFlagsMutuallyExclusive("group", "no-groups")
	return c
}
