package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/text"
)

type step = policy.Step

func (a *app) explainCommand() *cobra.Command {
	var in rest.Explain
	var uid int64
	when := whenFlag{now: a.clock.Now, ahead: true}
	c := &cobra.Command{
		Use: "explain", Short: "Why a user would (not) be asked for a second factor",
		Long: `Decides as a sign-in would, over the same facts, and prints the deciding rule and every
rule that was passed over. The first factor is taken as right; nothing is changed.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			in.At, in.UID = when.t, given(cmd.Flags(), "uid", uid)
			var x rest.Explained
			if err := cl.call(cmd.Context(), http.MethodPost, "/explain", nil, in, &x); err != nil {
				return err
			}
			return a.emit(x, func(p *printer) {
				d := x.Decision
				p.line("%s on %s, %s, link %s:", x.User, x.Machine, in.Scope, x.Link)
				p.card("Decision", decision(d), "Reason", reason(string(d.Reason)), "Policy", d.Policy)
				p.line("")
				trace(p, d.Trace)
				for _, n := range x.Notes {
					p.line("Note: %s", n)
				}
			})
		},
	}
	f := c.Flags()
	f.StringVar(&in.User, "user", "", "user name as typed, or id; required")
	f.StringVar(&in.Machine, "machine", "", "machine: name, number or id; required")
	f.StringVar(&in.Scope, "scope", "", "logon, elevation or remote; required")
	f.StringVar(&in.Service, "service", "", "PAM service, such as sshd")
	f.StringVar(&in.From, "from", "", "address that sshd saw")
	f.BoolVar(&in.Remote, "remote-seat", false, "inside a remote session")
	f.Var(&when, "at", "at another time than now")
	f.BoolVar(&in.Offline, "offline", false, "while the server can not be reached")
	f.Int64Var(&uid, "uid", 0, "account number on the machine")
	f.StringVar(&in.First, "first", "", "who judges the first factor: server (default), machine or sshkey")
	f.StringVar(&in.Boot, "boot", "", "another boot than the machine's present one")
	f.StringSliceVar(&in.Cannot, "cannot", nil, "kinds of factors that the machine has no way to ask for, such as fido2")
	for _, name := range []string{"user", "machine", "scope"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	choose(c, "scope", scopeWords()...)
	choose(c, "first", string(policy.FirstServer), string(policy.FirstMachine), string(policy.FirstSSHKey))
	return c
}

// decision says in words what would happen.
func decision(d policy.Decision) string {
	kinds := make([]string, len(d.Factors))
	for i, f := range d.Factors {
		kinds[i] = string(f)
	}
	switch d.Outcome {
	case policy.Allow:
		return "allowed without a second factor"
	case policy.Ignore:
		return "left to the machine's own sign-in"
	case policy.MFA:
		return fmt.Sprintf("asked for %d of %s", d.Count, strings.Join(kinds, ", "))
	case policy.MFAOffline:
		return fmt.Sprintf("asked for the password and %d of %s, judged by the machine", d.Count, strings.Join(kinds, ", "))
	case policy.EnrolFirst:
		return "asked to enrol a factor, with an enrolment code"
	case policy.AskFirst:
		return "asked for the password"
	}
	return "denied"
}

// trace prints the rules; the one that decided stands out.
func trace(p *printer, steps []step) {
	t := text.NewTable("", "RULE", "WHY")
	for _, s := range steps {
		mark := "  "
		if s.Verdict == policy.Applied {
			mark = "=>"
		}
		t.Row(mark, s.Rule, s.Why)
	}
	p.table(t, "")
}
