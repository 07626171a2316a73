package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

func (a *app) userCommand() *cobra.Command {
	return noun("user", "Users: who may sign in, and how",
		a.userAdd(), a.userList(), a.userShow(), a.userSet(), a.userSwitch("disable", "Keep a user from signing in, everywhere and at once", true),
		a.userSwitch("enable", "Let a disabled user sign in again", false), a.userUnlock(), a.userLocked(), a.userRemove(), a.userPassword(),
		a.userEnrolCode(), a.userBypassCode())
}

func (a *app) userAdd() *cobra.Command {
	var in rest.NewUser
	var fromStdin, none bool
	var uid int64
	activate := whenFlag{now: a.clock.Now, ahead: true}
	c := &cobra.Command{
		Use: "add USER", Short: "Add a user", Args: words("USER"),
		Long: "Adds a user. At a terminal the password is asked for; in a script give it as one line\non standard input with --password-stdin. Without one the user can sign in only where\nthe machine itself judges the password.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in.Name, in.UID, in.ActivateAt = args[0], given(cmd.Flags(), "uid", uid), activate.t
			if !in.ActivateAt.IsZero() && in.Activation == "" {
				in.Activation = rest.ActivateAt
			}
			if !none {
				p, err := a.readPassword(in.Name, fromStdin, true)
				if err != nil {
					return err
				}
				defer p.Wipe()
				in.Password = rest.Hide(p)
			}
			var u rest.User
			if err := cl.call(cmd.Context(), http.MethodPost, "/users", nil, in, &u); err != nil {
				return err
			}
			return a.emit(u, func(p *printer) {
				p.line("User %s was added.", u.Name)
				if !u.HasPassword {
					p.line("There is no password yet: latchkey user password %s", u.Name)
				}
				switch u.Role {
				case rest.RoleNone:
				case rest.RoleOwner:
					// Nobody gives an owner a factor alone (E3).
					p.line("Next, a second factor, without which the console stays shut. To give one to an owner needs the")
					p.line("approval of a second owner; where there is none yet: latchkey user remove %s, add them", u.Name)
					p.line("without --role, latchkey factor add totp %s, and then latchkey user set %s --role owner", quoted(u.Name), quoted(u.Name))
					return
				default:
					p.line("Next, a second factor, without which the console stays shut. They enrol it at the portal with a")
					p.line("code from you: latchkey user enrol-code %s", quoted(u.Name))
					return
				}
				p.line("Next, a second factor: latchkey factor add totp %s", quoted(u.Name))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&in.DisplayName, "display-name", "", "name for people")
	f.StringVar(&in.Mail, "mail", "", "mail address")
	f.StringVar(&in.Role, "role", "", strings.Join(rest.Roles, ", ")+" (default none)")
	f.StringVar(&in.MFA, "2fa", "", "on, off, or inherit from the groups (default inherit)")
	f.StringVar(&in.Activation, "activation", "", "now, first-login or at (default now)")
	f.Var(&activate, "activate-at", "when the user becomes active")
	f.BoolVar(&in.MustChange, "must-change", false, "the password must be changed at the first sign-in")
	f.Int64Var(&uid, "uid", 0, "account number on the machines")
	f.StringArrayVar(&in.Groups, "group", nil, "group to put the user into; may be repeated")
	f.BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input, one line")
	f.BoolVar(&none, "no-password", false, "set no password, and do not ask for one")
	c.MarkFlagsMutuallyExclusive("password-stdin", "no-password")
	choose(c, "role", rest.Roles...)
	choose(c, "2fa", rest.MFASettings...)
	choose(c, "activation", rest.Activations...)
	return c
}

// state is how a user is, in a word or two.
func state(u rest.User, now time.Time) string {
	switch {
	case u.Disabled:
		return "disabled"
	case u.Activation == rest.ActivateAt && now.Before(u.ActivateAt):
		return "from " + when(u.ActivateAt)
	case len(u.Locks) > 0:
		return "locked"
	case u.Activation == rest.ActivateFirst && u.ActivatedAt.IsZero():
		return "first sign-in awaited"
	}
	return "active"
}

// sorted gives a list the flag that says in which order it comes; the first word is its own.
func sorted(c *cobra.Command, sort *string, words ...string) {
	var all []string
	for _, w := range words {
		all = append(all, w, "-"+w)
	}
	c.Flags().StringVar(sort, "sort", "", "order: "+strings.Join(words, ", ")+"; with - before it the other way round (default "+words[0]+")")
	choose(c, "sort", all...)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func usersTable(p *printer, users []rest.User, none string) {
	t := text.NewTable("USER", "NAME", "ROLE", "2FA", "STATE", "FACTORS", "GROUPS")
	for _, u := range users {
		t.Row(u.Name, u.DisplayName, u.Role, u.MFA, state(u, p.now), dash(strings.Join(u.Factors, ", ")), strings.Join(u.Groups, ", "))
	}
	p.table(t, none)
}

func (a *app) userList() *cobra.Command {
	var f struct{ prefix, role, state, mfa, group, sort string }
	c := &cobra.Command{
		Use: "list", Short: "List users", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			for name, v := range map[string]string{"prefix": f.prefix, "role": f.role, "state": f.state, "mfa": f.mfa, "group": f.group} {
				if v != "" {
					q.Set(name, v)
				}
			}
			chosen := len(q)
			if f.sort != "" {
				q.Set("sort", f.sort)
			}
			users, err := list[rest.User](cmd.Context(), cl, "/users", q, 0)
			if err != nil {
				return err
			}
			none := "There are no users yet. Add one: latchkey user add NAME"
			switch {
			case f.prefix != "" && chosen == 1:
				none = fmt.Sprintf("No user's name begins with %q.", f.prefix)
			case chosen > 0:
				none = "No user is so."
			}
			return a.emit(users, func(p *printer) { usersTable(p, users, none) })
		},
	}
	c.Flags().StringVar(&f.prefix, "prefix", "", "only names that begin so, whatever their case")
	c.Flags().StringVar(&f.role, "role", "", "only of this role: "+strings.Join(rest.Roles, ", "))
	c.Flags().StringVar(&f.state, "state", "", "only those that are "+strings.Join(rest.UserStates, ", "))
	c.Flags().StringVar(&f.mfa, "2fa", "", "only with this setting of their own: on, off or inherit")
	c.Flags().StringVar(&f.group, "group", "", "only members of this group")
	sorted(c, &f.sort, "name", "created")
	choose(c, "role", rest.Roles...)
	choose(c, "state", rest.UserStates...)
	choose(c, "2fa", rest.MFASettings...)
	return c
}

func (a *app) userShow() *cobra.Command {
	return &cobra.Command{
		Use: "show USER", Short: "Show a user", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var u rest.User
			if err := cl.call(cmd.Context(), http.MethodGet, at("users", args[0]), nil, nil, &u); err != nil {
				return err
			}
			return a.emit(u, func(p *printer) { userCard(p, u) })
		},
	}
}

func userCard(p *printer, u rest.User) {
	uid, password := "", "none"
	if u.UID != nil {
		uid = fmt.Sprint(*u.UID)
	}
	if u.HasPassword {
		password = "set " + p.ago(u.PasswordChangedAt)
		if u.MustChange {
			password += ", must be changed at the next sign-in"
		}
	}
	p.card("User", u.Name, "Name", u.DisplayName, "Mail", u.Mail, "Id", u.ID, "Role", u.Role, "2FA", u.MFA, "State", state(u, p.now),
		"Password", password, "Account number", uid, "Groups", dash(strings.Join(u.Groups, ", ")), "Factors", dash(strings.Join(u.Factors, ", ")),
		"Added", when(u.CreatedAt), "Changed", when(u.UpdatedAt))
	for _, l := range u.Locks {
		p.line("%s", lockLine(p, l))
	}
}

func lockLine(p *printer, l rest.Lock) string {
	where := "across machines"
	if l.Machine != "" {
		where = "on " + l.Machine
	}
	if !l.LockedUntil.IsZero() {
		return fmt.Sprintf("Locked out %s until %s, after %d failures. Lift it: latchkey user unlock %s", where, when(l.LockedUntil), l.Failures, l.User)
	}
	return fmt.Sprintf("Must wait %s until %s, after %d failures.", where, l.BlockedUntil.Local().Format(time.TimeOnly), l.Failures)
}

func (a *app) userSet() *cobra.Command {
	var display, mail, role, mfa, activation, uid string
	var must bool
	var rev int64
	activate := whenFlag{now: a.clock.Now, ahead: true}
	c := &cobra.Command{
		Use: "set USER", Short: "Change a user", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			f := cmd.Flags()
			in := rest.UserChange{
				DisplayName: given(f, "display-name", display), Mail: given(f, "mail", mail), Role: given(f, "role", role), MFA: given(f, "2fa", mfa),
				Activation: given(f, "activation", activation), ActivateAt: given(f, "activate-at", activate.t), MustChange: given(f, "must-change", must),
			}
			if f.Changed("uid") {
				n := int64(-1)
				if uid != "none" {
					if _, err := fmt.Sscanf(uid, "%d", &n); err != nil || fmt.Sprint(n) != uid {
						return usagef("--uid: %q is not allowed; allowed are a number, or none", text.CleanN(uid, 40))
					}
				}
				in.UID = &n
			}
			if in == (rest.UserChange{}) {
				return usageError{errors.New("say what to change"), cmd}
			}
			var u rest.User
			if err := cl.callIf(cmd.Context(), http.MethodPatch, at("users", args[0]), rev, nil, in, &u); err != nil {
				return err
			}
			return a.emit(u, func(p *printer) { userCard(p, u) })
		},
	}
	f := c.Flags()
	f.StringVar(&display, "display-name", "", "name for people")
	f.StringVar(&mail, "mail", "", "mail address")
	f.StringVar(&role, "role", "", strings.Join(rest.Roles, ", "))
	f.StringVar(&mfa, "2fa", "", "on, off, or inherit from the groups")
	f.StringVar(&activation, "activation", "", "now, first-login or at")
	f.Var(&activate, "activate-at", "when the user becomes active")
	f.BoolVar(&must, "must-change", false, "the password must be changed at the next sign-in")
	f.StringVar(&uid, "uid", "", "account number on the machines, or none")
	f.Int64Var(&rev, "if-rev", 0, "only if it still has this revision (see show --output json)")
	choose(c, "role", rest.Roles...)
	choose(c, "2fa", rest.MFASettings...)
	choose(c, "activation", rest.Activations...)
	return c
}

func (a *app) userSwitch(use, short string, disabled bool) *cobra.Command {
	c := &cobra.Command{
		Use: use + " USER", Short: short, Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var u rest.User
			if err := cl.call(cmd.Context(), http.MethodPatch, at("users", args[0]), nil, rest.UserChange{Disabled: &disabled}, &u); err != nil {
				return err
			}
			return a.emit(u, func(p *printer) { p.line("User %s is %sd.", u.Name, use) })
		},
	}
	return c
}

func (a *app) userUnlock() *cobra.Command {
	return &cobra.Command{
		Use: "unlock USER", Short: "Lift a user's lock-outs and pauses", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var d rest.Done
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "unlock"), nil, nil, &d); err != nil {
				return err
			}
			return a.emit(d, func(p *printer) {
				if d.Count == 0 {
					p.line("User %s was not locked out.", args[0])
					return
				}
				p.line("User %s may try again (%s lifted).", args[0], plural(d.Count, "lock-out"))
			})
		},
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) userLocked() *cobra.Command {
	return &cobra.Command{
		Use: "locked", Short: "List who is locked out or must wait",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var page rest.Page[rest.Lock]
			if err := cl.call(cmd.Context(), http.MethodGet, "/locks", nil, nil, &page); err != nil {
				return err
			}
			return a.emit(page.Items, func(p *printer) {
				t := text.NewTable("USER", "MACHINE", "FAILURES", "LOCKED UNTIL", "WAITS UNTIL")
				for _, l := range page.Items {
					where := l.Machine
					if where == "" {
						where = "(across machines)"
					}
					wait := ""
					if !l.BlockedUntil.IsZero() {
						wait = l.BlockedUntil.Local().Format(time.TimeOnly)
					}
					t.Row(l.User, where, fmt.Sprint(l.Failures), dash(when(l.LockedUntil)), dash(wait))
				}
				p.table(t, "Nobody is locked out.")
			})
		},
	}
}

// yesFlag adds --yes.
func (a *app) yesFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVarP(&a.yes, "yes", "y", false, "do not ask")
	return c
}

func (a *app) userRemove() *cobra.Command {
	return a.yesFlag(&cobra.Command{
		Use: "remove USER", Short: "Remove a user with all factors", Aliases: []string{"rm"}, Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("User %s is removed with all factors, and offline data is wiped everywhere.", args[0]); err != nil {
				return err
			}
			if err := cl.call(cmd.Context(), http.MethodDelete, at("users", args[0]), nil, nil, nil); err != nil {
				return err
			}
			return a.emit(struct{}{}, func(p *printer) { p.line("User %s was removed.", args[0]) })
		},
	})
}

func (a *app) userPassword() *cobra.Command {
	var in rest.NewPassword
	var fromStdin bool
	c := &cobra.Command{
		Use: "password USER", Short: "Set a user's password", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			p, err := a.readPassword(args[0], fromStdin, false)
			if err != nil {
				return err
			}
			defer p.Wipe()
			in.Password = rest.Hide(p)
			if err := cl.call(cmd.Context(), http.MethodPut, at("users", args[0], "password"), nil, in, nil); err != nil {
				return err
			}
			return a.emit(struct{}{}, func(p *printer) {
				p.line("The password of %s was set. Machines that hold offline data made with the old one refuse it.", args[0])
			})
		},
	}
	c.Flags().BoolVar(&in.MustChange, "must-change", false, "it must be changed at the next sign-in")
	c.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input, one line")
	return c
}

func (a *app) codeCard(c rest.Code, what string) error {
	return a.emit(c, func(p *printer) {
		if c.MailedTo != "" {
			p.line("%s for %s: it is on its way to %s, good once until %s.", what, c.User, c.MailedTo, when(c.ExpiresAt))
			return
		}
		p.raw(c.Code.Show() + "\n")
		scope := ""
		if c.Scope != "" {
			scope = ", for " + c.Scope + " only"
		}
		p.line("%s for %s, good once until %s%s. It is not shown again.", what, c.User, when(c.ExpiresAt), scope)
	})
}

func (a *app) userEnrolCode() *cobra.Command {
	var in rest.NewEnrolCode
	c := &cobra.Command{
		Use: "enrol-code USER", Short: "Issue a code with which a user may enrol a first factor", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var out rest.Code
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "enrolment-codes"), nil, in, &out); err != nil {
				return err
			}
			if err := a.codeCard(out, "Enrolment code"); err != nil {
				return err
			}
			a.afterEnrolCode(cmd.Context(), cl, out)
			return nil
		},
	}
	c.Flags().StringVar(&in.ValidFor, "expires", "", "how long it is good: 1m to 168h (default 24h)")
	c.Flags().BoolVar(&in.Mail, "mail", false, "send it to the user's mail address instead of showing it")
	return c
}

// afterEnrolCode says where the code is typed, and what stands in its way. Who may give
// out codes may read this; if not, the code was made all the same.
func (a *app) afterEnrolCode(ctx context.Context, cl *client, c rest.Code) {
	if a.output != outputJSON {
		var s rest.Settings
		where := "in the portal"
		if err := cl.call(ctx, http.MethodGet, "/settings", nil, nil, &s); err == nil && s.PeopleURL != "" {
			where = "at " + s.PeopleURL
		}
		_ = a.emit(nil, func(p *printer) {
			if c.MailedTo == "" {
				p.line("Give it to %s, who signs in %s with the password, then this code.", c.User, where)
			} else {
				p.line("%s signs in %s with the password, then that code.", c.User, where)
			}
		})
	}
	var u rest.User
	if err := cl.call(ctx, http.MethodGet, at("users", c.User), nil, nil, &u); err == nil && !u.HasPassword {
		a.say("%s has no password, without which the code opens nothing: latchkey user password %s", c.User, quoted(c.User))
	}
	var page rest.Page[rest.Factor]
	if err := cl.call(ctx, http.MethodGet, at("users", c.User, "factors"), nil, nil, &page); err != nil {
		return
	}
	for _, f := range page.Items {
		if f.State == "usable" && insteadOfCode(f) {
			a.say("%s still has a factor (%s), which is asked for instead of this code. If it is gone: latchkey factor lost %s %s", c.User, f.Kind, quoted(c.User), f.ID)
		}
	}
}

// insteadOfCode tells whether the portal asks for the factor and for no enrolment code:
// beside backup codes, and codes by mail or text message, it offers both.
func insteadOfCode(f rest.Factor) bool {
	switch policy.Factor(f.Kind) {
	case policy.FIDO2, policy.Push, policy.TOTP:
		return true
	}
	return false
}

// quoted is a name as a shell takes it.
func quoted(name string) string {
	if strings.ContainsAny(name, " '\"\\$&;|<>()*?[]#~`!") {
		return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return name
}

func (a *app) userBypassCode() *cobra.Command {
	var in rest.NewBypassCode
	c := &cobra.Command{
		Use: "bypass-code USER", Short: "Issue a code that stands in for the second factor once", Args: words("USER"),
		Long: "Issues a one-time code that stands in for the second factor of one sign-in, for somebody\nwho can not give one now. The reason stands in the event log.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if in.Reason == "" {
				return usageError{errors.New("--reason is missing: say why, in one line, as it will stand in the event log"), cmd}
			}
			var out rest.Code
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "bypass-codes"), nil, in, &out); err != nil {
				return err
			}
			return a.codeCard(out, "Bypass code")
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "why; required")
	c.Flags().StringVar(&in.Scope, "scope", "", "only for logon, elevation or remote (default any)")
	c.Flags().StringVar(&in.ValidFor, "expires", "", "how long it is good: 1m to 24h (default 1h)")
	choose(c, "scope", scopeWords()...)
	return c
}

func scopeWords() []string {
	out := make([]string, len(policy.Scopes))
	for i, s := range policy.Scopes {
		out[i] = string(s)
	}
	return out
}

// ── groups ──

func (a *app) groupCommand() *cobra.Command {
	return noun("group", "Groups of users: what policies belong to",
		a.groupAdd(), a.groupList(), a.groupShow(), a.groupSet(), a.groupRemove(),
		noun("member", "Members of a group", a.memberList(), a.memberChange("add", "Put users into a group", http.MethodPut), a.memberChange("remove", "Take users out of a group", http.MethodDelete)))
}

func groupCard(p *printer, g rest.Group) {
	p.card("Group", g.Name, "Id", g.ID, "2FA", g.MFA, "Members", fmt.Sprint(g.Members), "Added", when(g.CreatedAt), "Changed", when(g.UpdatedAt))
}

func (a *app) groupAdd() *cobra.Command {
	var in rest.NewGroup
	c := &cobra.Command{
		Use: "add GROUP", Short: "Add a group", Args: words("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in.Name = args[0]
			var g rest.Group
			if err := cl.call(cmd.Context(), http.MethodPost, "/groups", nil, in, &g); err != nil {
				return err
			}
			return a.emit(g, func(p *printer) { p.line("Group %s was added.", g.Name) })
		},
	}
	c.Flags().StringVar(&in.MFA, "2fa", "", "on, off or inherit (default inherit)")
	choose(c, "2fa", rest.MFASettings...)
	return c
}

func (a *app) groupList() *cobra.Command {
	var order string
	c := &cobra.Command{
		Use: "list", Short: "List groups", Aliases: []string{"ls"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			q := url.Values{}
			if order != "" {
				q.Set("sort", order)
			}
			groups, err := list[rest.Group](cmd.Context(), cl, "/groups", q, 0)
			if err != nil {
				return err
			}
			return a.emit(groups, func(p *printer) {
				t := text.NewTable("GROUP", "2FA", "MEMBERS")
				for _, g := range groups {
					t.Row(g.Name, g.MFA, fmt.Sprint(g.Members))
				}
				p.table(t, "There are no groups yet. Add one: latchkey group add NAME")
			})
		},
	}
	sorted(c, &order, "name", "created")
	return c
}

func (a *app) groupShow() *cobra.Command {
	return &cobra.Command{
		Use: "show GROUP", Short: "Show a group", Args: words("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var g rest.Group
			if err := cl.call(cmd.Context(), http.MethodGet, at("groups", args[0]), nil, nil, &g); err != nil {
				return err
			}
			return a.emit(g, func(p *printer) { groupCard(p, g) })
		},
	}
}

func (a *app) groupSet() *cobra.Command {
	var name, mfa string
	var rev int64
	c := &cobra.Command{
		Use: "set GROUP", Short: "Change a group", Args: words("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in := rest.GroupChange{Name: given(cmd.Flags(), "name", name), MFA: given(cmd.Flags(), "2fa", mfa)}
			if in == (rest.GroupChange{}) {
				return usageError{errors.New("say what to change"), cmd}
			}
			var g rest.Group
			if err := cl.callIf(cmd.Context(), http.MethodPatch, at("groups", args[0]), rev, nil, in, &g); err != nil {
				return err
			}
			return a.emit(g, func(p *printer) { groupCard(p, g) })
		},
	}
	c.Flags().StringVar(&name, "name", "", "another name")
	c.Flags().StringVar(&mfa, "2fa", "", "on, off or inherit")
	c.Flags().Int64Var(&rev, "if-rev", 0, "only if it still has this revision (see show --output json)")
	choose(c, "2fa", rest.MFASettings...)
	return c
}

func (a *app) groupRemove() *cobra.Command {
	return a.yesFlag(&cobra.Command{
		Use: "remove GROUP", Short: "Remove a group; its members stay users", Aliases: []string{"rm"}, Args: words("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Group %s is removed; policies that belong to it alone no longer apply to its members.", args[0]); err != nil {
				return err
			}
			if err := cl.call(cmd.Context(), http.MethodDelete, at("groups", args[0]), nil, nil, nil); err != nil {
				return err
			}
			return a.emit(struct{}{}, func(p *printer) { p.line("Group %s was removed.", args[0]) })
		},
	})
}

func (a *app) memberList() *cobra.Command {
	return &cobra.Command{
		Use: "list GROUP", Short: "List a group's members", Aliases: []string{"ls"}, Args: words("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			users, err := list[rest.User](cmd.Context(), cl, at("groups", args[0], "members"), nil, 0)
			if err != nil {
				return err
			}
			return a.emit(users, func(p *printer) { usersTable(p, users, "The group has no members.") })
		},
	}
}

func (a *app) memberChange(use, short, method string) *cobra.Command {
	return &cobra.Command{
		Use: use + " GROUP USER…", Short: short, Args: wordsAndMore("GROUP", "USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var all rest.Done
			for i, u := range args[1:] {
				var d rest.Done
				if err := cl.call(cmd.Context(), method, at("groups", args[0], "members", u), nil, nil, &d); err != nil {
					if i > 0 {
						a.say("the names before %q are done", u)
					}
					return err
				}
				all.Count += d.Count
			}
			return a.emit(all, func(p *printer) {
				if method == http.MethodPut {
					p.line("%s added to %s.", plural(all.Count, "user"), args[0])
				} else {
					p.line("%s taken out of %s.", plural(all.Count, "user"), args[0])
				}
			})
		},
	}
}

// ── factors ──

func (a *app) factorCommand() *cobra.Command {
	return noun("factor", "Second factors of users",
		a.factorList(), noun("add", "Enrol a factor for a user", a.factorAddTOTP(), a.factorAddPhone(), a.factorAddBackup(),
			a.factorAddAddress(rest.ChannelMail, "Give a user a mail address for codes"), a.factorAddAddress(rest.ChannelSMS, "Give a user a telephone number for codes")), a.factorRemove(), a.factorLost(), a.factorUnlockPush())
}

func (a *app) factorList() *cobra.Command {
	return &cobra.Command{
		Use: "list USER", Short: "List a user's factors and codes", Aliases: []string{"ls"}, Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var page rest.Page[rest.Factor]
			if err := cl.call(cmd.Context(), http.MethodGet, at("users", args[0], "factors"), nil, nil, &page); err != nil {
				return err
			}
			return a.emit(page.Items, func(p *printer) {
				t := text.NewTable("KIND", "NAME", "STATE", "DETAIL", "LAST USED", "ID")
				for _, f := range page.Items {
					t.Row(f.Kind, f.Name, f.State, factorDetail(f), p.ago(f.LastUsedAt), f.ID)
				}
				p.table(t, fmt.Sprintf("%s has no factor yet. Enrol one: latchkey factor add totp %s", args[0], quoted(args[0])))
			})
		},
	}
}

func factorDetail(f rest.Factor) string {
	switch {
	case f.Left != nil:
		return fmt.Sprintf("%d left", *f.Left)
	case f.Weak:
		return "weak, to " + f.To
	case f.Phone != nil:
		return phoneDetail(*f.Phone)
	case f.Digits != 0:
		return fmt.Sprintf("%s, %d digits, %d s", f.Algorithm, f.Digits, f.Period)
	case !f.ExpiresAt.IsZero() && f.Scope != "":
		return f.Scope + ", until " + when(f.ExpiresAt)
	case !f.ExpiresAt.IsZero():
		return "until " + when(f.ExpiresAt)
	}
	return ""
}

func (a *app) factorAddTOTP() *cobra.Command {
	var in rest.NewTOTP
	c := &cobra.Command{
		Use: "totp USER", Short: "Enrol an authenticator app; the key is shown once", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var out rest.TOTP
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "factors", "totp"), nil, in, &out); err != nil {
				return err
			}
			return a.emit(out, func(p *printer) {
				p.raw(strings.TrimRight(out.QR.Show(), "\n") + "\n\n")
				p.line("Scan this with an authenticator app, or type the key into it. It is not shown again.")
				p.raw("\nKey:  " + spaced(out.Key.Show()) + "\nURI:  " + out.URI.Show() + "\n")
				if out.State == "unconfirmed" {
					p.line("It counts from the first code on that %s gives at a sign-in.", out.User)
				}
			})
		},
	}
	c.Flags().StringVar(&in.Name, "name", "", "what the user calls it, such as phone")
	c.Flags().StringVar(&in.Algorithm, "algorithm", "", "SHA1, SHA256 or SHA512 (default SHA1, which every app knows)")
	c.Flags().IntVar(&in.Digits, "digits", 0, "6 or 8 (default 6)")
	c.Flags().IntVar(&in.Period, "period", 0, "30 or 60 seconds (default 30)")
	c.Flags().BoolVar(&in.RequireFirstCode, "require-first-code", false, "usable only after its first code was given at a sign-in")
	choose(c, "algorithm", "SHA1", "SHA256", "SHA512")
	choose(c, "digits", "6", "8")
	choose(c, "period", "30", "60")
	return c
}

// spaced writes a key in groups of four.
func spaced(s string) string {
	var b strings.Builder
	for i, r := range s {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func (a *app) factorAddBackup() *cobra.Command {
	return &cobra.Command{
		Use: "backup USER", Short: "Make ten new backup codes, shown once; older ones no longer work", Args: words("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var out rest.BackupCodes
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "factors", "backup"), nil, nil, &out); err != nil {
				return err
			}
			return a.emit(out, func(p *printer) {
				for _, c := range out.Codes {
					p.raw(c.Show() + "\n")
				}
				p.line("Backup codes for %s: each is good once, and older ones no longer work. They are not shown again.", out.User)
				p.line("Machines wipe the offline data of %s that was made before; the next online sign-in with a second factor makes it anew.", out.User)
			})
		},
	}
}

func (a *app) factorRemove() *cobra.Command {
	return a.yesFlag(&cobra.Command{
		Use: "remove USER FACTOR", Short: "Remove a factor, or all of a kind", Aliases: []string{"rm"}, Args: words("USER", "FACTOR"),
		Long: "Removes a factor for good. FACTOR is its id as \"latchkey factor list\" shows it, the beginning\nof one, or its name; or a kind such as totp, for all of it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			if err := a.confirm("Factor %s of %s is removed for good.", args[1], args[0]); err != nil {
				return err
			}
			var d rest.Done
			if err := cl.call(cmd.Context(), http.MethodDelete, at("users", args[0], "factors", args[1]), nil, nil, &d); err != nil {
				return err
			}
			return a.emit(d, func(p *printer) { p.line("%s of %s removed.", plural(d.Count, "factor"), args[0]) })
		},
	})
}

func (a *app) factorLost() *cobra.Command {
	return a.yesFlag(&cobra.Command{
		Use: "lost USER FACTOR", Short: "Mark an authenticator as lost; it is no longer accepted", Args: words("USER", "FACTOR"),
		Long: "Marks an authenticator as lost: no machine accepts it any more. FACTOR is its id as\n\"latchkey factor list\" shows it, the beginning of one, or its name; or its kind, such as totp,\nif the user has only one of it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			var f rest.Factor
			if err := cl.call(cmd.Context(), http.MethodPost, at("users", args[0], "factors", args[1], "lost"), nil, nil, &f); err != nil {
				return err
			}
			return a.emit(f, func(p *printer) {
				p.line("The authenticator is no longer accepted. Enrol another: latchkey factor add totp %s", quoted(args[0]))
			})
		},
	})
}
