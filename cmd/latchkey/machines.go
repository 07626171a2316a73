package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

// span is a policy's duration for people.
func span(d policy.Duration) string { return text.Duration(time.Duration(d)) }

func (a *app) machineCommand() *cobra.Command {
	return noun("machine", "Machines: where people sign in",
		a.machineToken(), a.machineList(), a.machineShow(), a.machineSet(), a.machineRefuse(), a.machineRevoke(), a.machineLost(), a.machineReseed(), a.machineRemove())
}

func (a *app) machineToken() *cobra.Command {
	var in rest.NewToken
	c := &cobra.Command{
		Use: "token", Short: "Issue a token with which a machine joins",
		Long: "Prints a join token once. On the machine, as root: latchkey-agent join - (and paste it:\nas an argument other users of the machine could read it)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var t rest.Token
			if err := cl.call(cmd.Context(), http.MethodPost, "/machine-tokens", nil, in, &t); err != nil {
				return err
			}
			return a.emit(t, func(p *printer) {
				p.raw(t.Token.Show() + "\n")
				there := "the machine"
				if t.Kind == "mass" {
					there = "each machine"
					p.line("For any number of machines until %s; each waits for approval (latchkey machine set MACHINE --status active).", when(t.ExpiresAt))
				} else {
					p.line("Good once, until %s.", when(t.ExpiresAt))
				}
				p.line("On %s, as root: latchkey-agent join - (and paste it), then latchkey-agent run; in a second terminal, for trying out: latchkey signin NAME --service login", there)
			})
		},
	}
	c.Flags().StringVar(&in.Name, "name", "", "the machine's name (default its host name)")
	c.Flags().BoolVar(&in.Mass, "mass", false, "for many machines, which then wait for approval")
	c.Flags().StringVar(&in.ValidFor, "expires", "", "how long it is good: 1m to 720h (default 24h)")
	c.Flags().StringVar(&in.ServerURL, "server-url", "", "https://HOST:PORT of the machines' listener, as machines reach it")
	c.AddCommand(
		&cobra.Command{
			Use: "list", Short: "List join tokens", Aliases: []string{"ls"},
			RunE: func(cmd *cobra.Command, _ []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				tokens, err := list[rest.Token](cmd.Context(), cl, "/machine-tokens", nil, 0)
				if err != nil {
					return err
				}
				return a.emit(tokens, func(p *printer) {
					t := text.NewTable("KIND", "NAME", "STATE", "MADE BY", "MADE", "UNTIL", "ID")
					for _, x := range tokens {
						state := "open"
						switch {
						case !x.UsedAt.IsZero():
							state = "used"
						case !p.now.Before(x.ExpiresAt):
							state = "expired"
						}
						t.Row(x.Kind, dash(x.Name), state, x.CreatedBy, when(x.CreatedAt), when(x.ExpiresAt), x.ID)
					}
					p.table(t, "There are no join tokens.")
				})
			},
		},
		&cobra.Command{
			Use: "withdraw TOKEN-ID", Short: "Make a join token worthless", Args: words("TOKEN-ID"),
			RunE: func(cmd *cobra.Command, args []string) error {
				cl, err := a.client()
				if err != nil {
					return err
				}
				if err := cl.call(cmd.Context(), http.MethodDelete, at("machine-tokens", args[0]), nil, nil, nil); err != nil {
					return err
				}
				return a.emit(struct{}{}, func(p *printer) { p.line("The token was withdrawn.") })
			},
		},
	)
	return c
}

func (a *app) machineList() *cobra.Command {
	var f struct{ prefix, status, mode, os, tpm, silent, owner, user, sort string }
	var outdated bool
	c := &cobra.Command{
		Use: "list", Short: "List machines", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			for name, v := range map[string]string{
				"prefix": f.prefix, "status": f.status, "mode": f.mode, "os": f.os, "tpm": f.tpm, "silent": f.silent, "owner": f.owner, "user": f.user,
			} {
				if v != "" {
					q.Set(name, v)
				}
			}
			if outdated {
				q.Set("outdated", "true")
			}
			chosen := len(q) > 0
			if f.sort != "" {
				q.Set("sort", f.sort)
			}
			machines, err := list[rest.Machine](cmd.Context(), cl, "/machines", q, 0)
			if err != nil {
				return err
			}
			return a.emit(machines, func(p *printer) {
				t := text.NewTable("MACHINE", "STATUS", "MODE", "OWNER", "TPM", "OFFLINE", "AGENT", "SEEN", "OS")
				for _, m := range machines {
					t.Row(m.Name, m.Status, m.Mode, dash(m.Owner), m.TPM, plural(int(m.Vaults), "user"), agentOf(m), p.ago(m.LastSeenAt), m.OS)
				}
				none := "There are no machines yet. Make a join token: latchkey machine token"
				if chosen {
					none = "No machine is so."
				}
				p.table(t, none)
			})
		},
	}
	c.Flags().StringVar(&f.prefix, "prefix", "", "only names that begin so")
	c.Flags().StringVar(&f.status, "status", "", "only pending, active, revoked or lost ones")
	c.Flags().StringVar(&f.mode, "mode", "", "only normal, enforced or exempt ones")
	c.Flags().StringVar(&f.os, "os", "", "only those whose operating system begins so, whatever the case")
	c.Flags().StringVar(&f.tpm, "tpm", "", "only those that keep their data with tpm, software or none")
	c.Flags().StringVar(&f.silent, "silent", "", "only those not heard of for so long, such as 72h")
	c.Flags().StringVar(&f.owner, "owner", "", "only this user's own")
	c.Flags().StringVar(&f.user, "user", "", "only those that know this user")
	c.Flags().BoolVar(&outdated, "outdated", false, "only those whose agent is older than the settings ask for")
	sorted(c, &f.sort, "joined", "name", "seen")
	choose(c, "mode", string(policy.Normal), string(policy.Enforced), string(policy.Exempt))
	choose(c, "tpm", "tpm", "software", "none")
	choose(c, "status", rest.MachinePending, rest.MachineActive, rest.MachineRevoked, rest.MachineLost)
	return c
}

// agentOf is the agent's version, marked if it is outdated (P3).
func agentOf(m rest.Machine) string {
	if m.Outdated {
		return dash(m.AgentVersion) + " outdated"
	}
	return dash(m.AgentVersion)
}

func machineCard(p *printer, m rest.Machine) {
	who := "everybody"
	if m.OnlyAssigned {
		who = "assigned users only"
	}
	cert := ""
	if !m.CertUntil.IsZero() {
		cert = "until " + when(m.CertUntil)
	}
	key := "in a file"
	if m.KeyInTPM {
		key = "in the TPM (claimed)"
	}
	p.card("Machine", m.Name, "Id", m.ID, "Number", fmt.Sprintf("#%d", m.Number), "Status", m.Status, "Mode", m.Mode, "Unknown users", m.UnknownUsers,
		"Owner", m.Owner, "Open to", who, "Assigned", strings.Join(m.Users, ", "), "Host name", m.Hostname, "OS", m.OS, "Agent", agentOf(m),
		"Offline data", m.TPM, "TPM problem", m.TPMProblem, "Data problem", m.VaultProblem, "Machine key", key, "Certificate", cert,
		"Address", m.Address, "Seen", p.ago(m.LastSeenAt), "Joined", when(m.JoinedAt), "Holds data of", plural(int(m.Vaults), "user"))
}

func (a *app) machineShow() *cobra.Command {
	return &cobra.Command{
		Use: "show MACHINE", Short: "Show a machine", Args: words("MACHINE"),
		Long: "Shows a machine. MACHINE is its name, its number such as #7, or its id.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var m rest.Machine
			if err := cl.call(cmd.Context(), http.MethodGet, at("machines", args[0]), nil, nil, &m); err != nil {
				return err
			}
			return a.emit(m, func(p *printer) { machineCard(p, m) })
		},
	}
}

func (a *app) machineSet() *cobra.Command {
	var in rest.MachineChange
	var name, status, mode, unknown, owner string
	var only bool
	var rev int64
	c := &cobra.Command{
		Use: "set MACHINE", Short: "Change a machine, or approve one that waits", Args: words("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			f := cmd.Flags()
			in.Name, in.Status, in.Mode = given(f, "name", name), given(f, "status", status), given(f, "mode", mode)
			in.UnknownUsers, in.Owner, in.OnlyAssigned = given(f, "unknown-users", unknown), given(f, "owner", owner), given(f, "only-assigned", only)
			if in.Owner != nil && owner == "none" {
				*in.Owner = ""
			}
			if !anyChanged(f, "name", "status", "mode", "unknown-users", "owner", "only-assigned", "assign", "unassign") {
				return usageError{errors.New("say what to change"), cmd}
			}
			var m rest.Machine
			if err := cl.callIf(cmd.Context(), http.MethodPatch, at("machines", args[0]), rev, nil, in, &m); err != nil {
				return err
			}
			if m.Mode == string(policy.Exempt) {
				a.say("warning: %s is exempt: no second factor is ever asked there", m.Name)
			}
			return a.emit(m, func(p *printer) { machineCard(p, m) })
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "another name")
	f.StringVar(&status, "status", "", "active approves a machine that waits")
	f.StringVar(&mode, "mode", "", "normal, enforced (wins over every user setting) or exempt (never asks)")
	f.StringVar(&unknown, "unknown-users", "", "deny, or skip: leave users whom the server does not know to the machine")
	f.StringVar(&owner, "owner", "", "user it belongs to, or none")
	f.BoolVar(&only, "only-assigned", false, "only assigned users may sign in")
	f.StringArrayVar(&in.AddUsers, "assign", nil, "user to assign; may be repeated")
	f.StringArrayVar(&in.RemoveUsers, "unassign", nil, "user to take off the list; may be repeated")
	f.Int64Var(&rev, "if-rev", 0, "only if it still has this revision (see show --output json)")
	choose(c, "status", rest.MachineActive)
	choose(c, "mode", string(policy.Normal), string(policy.Enforced), string(policy.Exempt))
	choose(c, "unknown-users", "deny", "skip")
	return c
}

func (a *app) machineRefuse() *cobra.Command {
	var in rest.Why
	c := &cobra.Command{
		Use: "refuse MACHINE", Short: "Refuse a machine that waits for approval", Args: words("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Machine %s is refused: it may join again with a new token only.", args[0]); err != nil {
				return err
			}
			var m rest.Machine
			if err := cl.call(cmd.Context(), http.MethodPost, at("machines", args[0], "refuse"), nil, in, &m); err != nil {
				return err
			}
			return a.emit(m, func(p *printer) { p.line("Machine %s is refused.", m.Name) })
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "why; it stands in the event")
	return a.yesFlag(c)
}

func (a *app) machineReseed() *cobra.Command {
	return &cobra.Command{
		Use: "reseed MACHINE", Short: "Which authenticators have data on a machine, to be renewed if it is lost", Args: words("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var page rest.Page[rest.Reseed]
			if err := cl.call(cmd.Context(), http.MethodGet, at("machines", args[0], "reseed"), nil, nil, &page); err != nil {
				return err
			}
			return a.emit(page.Items, func(p *printer) { reseedTable(p, page.Items, "No authenticator has offline data on it.") })
		},
	}
}

func reseedTable(p *printer, list []rest.Reseed, none string) {
	t := text.NewTable("USER", "KIND", "NAME", "KEPT BY", "URGENT", "ID")
	for _, r := range list {
		urgent, by := "no", "TPM"
		if r.Urgent {
			urgent, by = "yes", "software"
		}
		t.Row(r.User, r.Kind, r.Name, by, urgent, r.ID)
	}
	p.table(t, none)
}

func (a *app) machineRevoke() *cobra.Command {
	var in rest.Why
	c := &cobra.Command{
		Use: "revoke MACHINE", Short: "End a machine's trust for good; it wipes its offline data", Args: words("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Machine %s is revoked for good: nobody signs in there until it joins anew.", args[0]); err != nil {
				return err
			}
			var m rest.Machine
			if err := cl.call(cmd.Context(), http.MethodPost, at("machines", args[0], "revoke"), nil, in, &m); err != nil {
				return err
			}
			return a.emit(m, func(p *printer) { p.line("Machine %s is revoked. It was last seen %s.", m.Name, p.ago(m.LastSeenAt)) })
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "why; it stands in the event")
	return a.yesFlag(c)
}

func (a *app) machineLost() *cobra.Command {
	var in rest.Why
	c := &cobra.Command{
		Use: "lost MACHINE", Short: "Report a machine lost: revokes it, and says which authenticators to renew", Args: words("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Machine %s is reported lost, and revoked for good.", args[0]); err != nil {
				return err
			}
			var l rest.Lost
			if err := cl.call(cmd.Context(), http.MethodPost, at("machines", args[0], "lost"), nil, in, &l); err != nil {
				return err
			}
			return a.emit(l, func(p *printer) {
				p.line("Machine %s is lost and revoked. It was last seen %s.", l.Machine.Name, p.ago(l.Machine.LastSeenAt))
				if len(l.Reseed) == 0 {
					p.line("No authenticator has offline data on it.")
					return
				}
				p.line("Renew these authenticators: their offline data lies on the machine.")
				reseedTable(p, l.Reseed, "")
				p.line("Add a new one (latchkey factor add totp|backup USER); an old authenticator app is then removed with latchkey factor remove USER ID (new backup codes end the old ones by themselves).")
				p.line("The help desk: latchkey factor lost USER ID ends an authenticator at once, latchkey user enrol-code USER lets its user enrol a new one.")
			})
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "why; it stands in the event")
	return a.yesFlag(c)
}

func (a *app) machineRemove() *cobra.Command {
	return a.yesFlag(&cobra.Command{
		Use: "remove MACHINE", Short: "Forget a machine that is no longer trusted", Aliases: []string{"rm"}, Args: words("MACHINE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Machine %s is forgotten.", args[0]); err != nil {
				return err
			}
			if err := cl.call(cmd.Context(), http.MethodDelete, at("machines", args[0]), nil, nil, nil); err != nil {
				return err
			}
			return a.emit(struct{}{}, func(p *printer) { p.line("Machine %s was removed from the list.", args[0]) })
		},
	})
}

// ── offline data and windows ──

// pairFlags adds --user, --machine and, if all is not nil, --all.
func pairFlags(c *cobra.Command, in *rest.Pairs, all bool) {
	c.Flags().StringVar(&in.User, "user", "", "of this user")
	c.Flags().StringVar(&in.Machine, "machine", "", "on this machine")
	if all {
		c.Flags().BoolVar(&in.All, "all", false, "of everybody, everywhere")
		c.MarkFlagsOneRequired("user", "machine", "all")
		c.MarkFlagsMutuallyExclusive("user", "all")
		c.MarkFlagsMutuallyExclusive("machine", "all")
	}
}

func pairQuery(in rest.Pairs) url.Values {
	q := url.Values{}
	if in.User != "" {
		q.Set("user", in.User)
	}
	if in.Machine != "" {
		q.Set("machine", in.Machine)
	}
	return q
}

// whose says what a choice covers, in words.
func whose(in rest.Pairs) string {
	switch {
	case in.All:
		return "of everybody, on all machines"
	case in.User != "" && in.Machine != "":
		return "of " + in.User + " on " + in.Machine
	case in.User != "":
		return "of " + in.User + " on all machines"
	}
	return "of everybody on " + in.Machine
}

func (a *app) offlineCommand() *cobra.Command {
	var order string
	var what rest.Pairs
	ls := &cobra.Command{
		Use: "list", Short: "The offline report: whose data lies on which machine, and how long it lasts", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := pairQuery(what)
			if order != "" {
				q.Set("sort", order)
			}
			rows, err := list[rest.OfflineEntry](cmd.Context(), cl, "/offline", q, 0)
			if err != nil {
				return err
			}
			return a.emit(rows, func(p *printer) {
				t := text.NewTable("USER", "MACHINE", "STATE", "KEPT BY", "DAYS LEFT", "SIGN-INS LEFT", "TRIES LEFT", "LAST MFA", "SYNCED", "MACHINE SEEN")
				shut := false
				for _, r := range rows {
					shut = shut || strings.HasPrefix(r.State, "shut") || r.State == "used up"
					t.Row(r.User, r.Machine, r.State, r.Class, fmt.Sprint(math.Ceil(r.DaysLeft)), fmt.Sprint(r.SigninsLeft), fmt.Sprint(r.TriesLeft), p.ago(r.LastMFAAt), p.ago(r.SyncedAt), p.ago(r.SeenAt))
				}
				p.table(t, "No machine is enrolled for offline sign-in. That happens at the next sign-in with a second factor.")
				if shut {
					p.line("What is shut or used up opens at the next sign-in there while the server is in reach, or with: latchkey offline lift --user USER --machine MACHINE")
				}
			})
		},
	}
	pairFlags(ls, &what, false)
	sorted(ls, &order, "user", "until")
	return noun("offline", "Offline sign-in: what lies on machines", ls, a.offlineStuck(),
		a.pairAction("disenroll", "Wipe offline data", "/offline/disenroll", "The offline data %s is wiped.", func(p *printer, d rest.Done, in rest.Pairs) {
			if d.Count == 0 {
				p.line("There is no offline data %s.", whose(in))
				return
			}
			p.line("%s disenrolled. Connected machines wipe the data now, others at their next contact.", plural(d.Count, "enrolment"))
		}),
		a.pairAction("lift", "Have the counters of offline data lifted, after too many wrong tries", "/offline/lift", "", func(p *printer, d rest.Done, in rest.Pairs) {
			if d.LeftOut > 0 {
				p.line("Left out: %s of people with the same role as you or a higher one. Ask somebody who stands over them.", plural(d.LeftOut, "enrolment"))
			}
			if d.Count == 0 && d.LeftOut == 0 {
				p.line("There is no offline data %s.", whose(in))
			}
			if d.Count == 0 {
				return
			}
			p.line("The counters of %s are lifted as soon as the machines are in contact.", plural(d.Count, "enrolment"))
		}))
}

func (a *app) offlineStuck() *cobra.Command {
	var what rest.Pairs
	c := &cobra.Command{
		Use: "stuck", Short: "Who could not sign in today if the server were out of reach, and why",
		Long: "Lists everybody who is known on a machine and could not sign in there on a plane today.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			rows, err := list[rest.Stuck](cmd.Context(), cl, "/offline/stuck", pairQuery(what), 0)
			if err != nil {
				return err
			}
			return a.emit(rows, func(p *printer) {
				t := text.NewTable("USER", "MACHINE", "WHY", "REASON", "MACHINE SEEN")
				for _, r := range rows {
					if r.Machine == "" {
						p.line("%s", r.Why)
						return
					}
					t.Row(r.User, r.Machine, r.Why, r.Reason, p.ago(r.SeenAt))
				}
				if what.User != "" {
					p.table(t, text.CleanN(what.User, 128)+" could sign in on every machine that knows them.")
					return
				}
				p.table(t, "No machine reports anybody stuck. People who have never signed in on a machine are not in this list (latchkey offline list).")
			})
		},
	}
	pairFlags(c, &what, false)
	return c
}

// pairAction is a verb on (user, machine) pairs; ask empty asks nothing.
func (a *app) pairAction(use, short, path, ask string, tell func(*printer, rest.Done, rest.Pairs)) *cobra.Command {
	var in rest.Pairs
	c := &cobra.Command{
		Use: use, Short: short,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if ask != "" {
				if err := a.confirm(ask, whose(in)); err != nil {
					return err
				}
			}
			var d rest.Done
			if err := cl.call(cmd.Context(), http.MethodPost, path, nil, in, &d); err != nil {
				return err
			}
			return a.emit(d, func(p *printer) { tell(p, d, in) })
		},
	}
	pairFlags(c, &in, true)
	return a.yesFlag(c)
}

func (a *app) windowCommand() *cobra.Command {
	var what rest.Pairs
	ls := &cobra.Command{
		Use: "list", Short: "List open windows", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			rows, err := list[rest.Window](cmd.Context(), cl, "/windows", pairQuery(what), 0)
			if err != nil {
				return err
			}
			return a.emit(rows, func(p *printer) {
				t := text.NewTable("USER", "MACHINE", "FACTORS", "OPENED", "UNTIL", "LEFT", "ID")
				for _, w := range rows {
					t.Row(w.User, w.Machine, strings.Join(w.Factors, ", "), when(w.OpenedAt), when(w.ExpiresAt), text.Duration(w.ExpiresAt.Sub(p.now).Truncate(time.Minute)), w.ID)
				}
				p.table(t, "No window is open.")
			})
		},
	}
	pairFlags(ls, &what, false)
	return noun("window", "MFA windows: who is not asked again for a while", ls,
		a.pairAction("revoke", "End windows at once: the second factor is asked for again", "/windows/revoke", "", func(p *printer, d rest.Done, in rest.Pairs) {
			if d.Count == 0 {
				p.line("No window %s is open.", whose(in))
				return
			}
			p.line("%s ended.", plural(d.Count, "window"))
		}))
}
