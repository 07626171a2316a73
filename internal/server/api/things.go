package api

import (
	"context"
	"net/http"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
)

type PolicyPath struct {
	Policy string `path:"policy" maxLength:"512" doc:"Name or id"`
}

type MachinePath struct {
	Machine string `path:"machine" maxLength:"512" doc:"Name, number such as #7, or id"`
}

type PairQuery struct {
	User    string `query:"user" maxLength:"512" doc:"Only of this user: name or id"`
	Machine string `query:"machine" maxLength:"512" doc:"Only on this machine: name, number or id"`
}

func policyRev(p rest.Policy) int64   { return p.Rev }
func machineRev(m rest.Machine) int64 { return m.Rev }

// things registers policies, machines, offline data, windows and the server itself.
func (x *door) things() {
	d := x.desk
	add(x, op("list-policies", "GET", "/policies", "List policies in the order in which they are looked at", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Page[rest.Policy]], error) {
		return reply(d.ListPolicies(ctx, a))
	})
	add(x, op("add-policy", "POST", "/policies", "Add a policy", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewPolicy }) (*tagged[rest.Policy], error) {
		p, err := d.AddPolicy(ctx, a, in.Body)
		return withTag(p, err, policyRev)
	})
	add(x, op("show-policy", "GET", "/policies/{policy}", "Show a policy", 0), func(ctx context.Context, a desk.Actor, in *PolicyPath) (*tagged[rest.Policy], error) {
		p, err := d.ShowPolicy(ctx, a, in.Policy)
		return withTag(p, err, policyRev)
	})
	add(x, op("change-policy", "PATCH", "/policies/{policy}", "Change a policy", 0), func(ctx context.Context, a desk.Actor, in *struct {
		PolicyPath
		Conditional
		Body rest.PolicyChange
	},
	) (*tagged[rest.Policy], error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		p, err := d.ChangePolicy(ctx, a, in.Policy, rev, in.Body)
		return withTag(p, err, policyRev)
	})
	add(x, op("remove-policy", "DELETE", "/policies/{policy}", "Remove a policy", 0), func(ctx context.Context, a desk.Actor, in *struct {
		PolicyPath
		Conditional
		ShutOut int64 `query:"shut_out" minimum:"0" doc:"Accept that it shuts out so many people at most, as in a change"`
	},
	) (*empty, error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		return nil, d.RemovePolicy(ctx, a, in.Policy, rev, in.ShutOut)
	})
	add(x, op("list-policy-versions", "GET", "/policies/{policy}/versions", "A policy's history, the youngest version first", 0), func(ctx context.Context, a desk.Actor, in *struct {
		PolicyPath
		Paged
	},
	) (*plain[rest.Page[rest.PolicyVersion]], error) {
		return reply(d.PolicyHistory(ctx, a, in.Policy, in.After, in.Limit))
	})
	add(x, op("roll-back-policy", "POST", "/policies/{policy}/rollback", "Bring an older version of a policy back", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		PolicyPath
		Conditional
		Body rest.Rollback
	},
	) (*tagged[rest.Policy], error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		p, err := d.RollbackPolicy(ctx, a, in.Policy, rev, in.Body)
		return withTag(p, err, policyRev)
	})

	add(x, op("list-machines", "GET", "/machines", "List machines", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		Prefix   string `query:"prefix" maxLength:"128" doc:"Only names that begin so"`
		Status   string `query:"status" maxLength:"32" doc:"Only those that are pending, active, revoked or lost"`
		Mode     string `query:"mode" maxLength:"32" doc:"Only those that are normal, enforced or exempt"`
		OS       string `query:"os" maxLength:"64" doc:"Only those whose operating system begins so, whatever the case"`
		TPM      string `query:"tpm" maxLength:"32" doc:"Only those with tpm, software or none"`
		Outdated bool   `query:"outdated" doc:"Only those whose agent is older than the settings ask for"`
		Silent   string `query:"silent" maxLength:"32" doc:"Only those not heard of for so long: a duration such as 72h"`
		Owner    string `query:"owner" maxLength:"512" doc:"Only this user's own: name or id"`
		User     string `query:"user" maxLength:"512" doc:"Only those that this user owns, is assigned to, or has signed in on: name or id"`
		Sort     string `query:"sort" maxLength:"32" doc:"Order: joined, name or seen (when the machine was heard of last), with - before it the other way round; absent: joined"`
	},
	) (*plain[rest.Page[rest.Machine]], error) {
		return reply(d.ListMachines(ctx, a, desk.MachineFilter{
			Prefix: in.Prefix, Status: in.Status, Mode: in.Mode, OS: in.OS, TPM: in.TPM, Outdated: in.Outdated, Silent: in.Silent, Owner: in.Owner, User: in.User, Sort: in.Sort,
		}, in.After, in.Limit))
	})
	add(x, op("show-machine", "GET", "/machines/{machine}", "Show a machine", 0), func(ctx context.Context, a desk.Actor, in *MachinePath) (*tagged[rest.Machine], error) {
		m, err := d.ShowMachine(ctx, a, in.Machine)
		return withTag(m, err, machineRev)
	})
	add(x, op("change-machine", "PATCH", "/machines/{machine}", "Change or approve a machine", 0), func(ctx context.Context, a desk.Actor, in *struct {
		MachinePath
		Conditional
		Body rest.MachineChange
	},
	) (*tagged[rest.Machine], error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		m, err := d.ChangeMachine(ctx, a, in.Machine, rev, in.Body)
		return withTag(m, err, machineRev)
	})
	add(x, op("remove-machine", "DELETE", "/machines/{machine}", "Remove a machine that is no longer trusted", 0), func(ctx context.Context, a desk.Actor, in *struct {
		MachinePath
		Conditional
	},
	) (*empty, error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		return nil, d.RemoveMachine(ctx, a, in.Machine, rev)
	})
	type Dismissal struct {
		MachinePath
		Body rest.Why
	}
	add(x, op("revoke-machine", "POST", "/machines/{machine}/revoke", "Revoke a machine for good", http.StatusOK), func(ctx context.Context, a desk.Actor, in *Dismissal) (*tagged[rest.Machine], error) {
		m, err := d.RevokeMachine(ctx, a, in.Machine, in.Body)
		return withTag(m, err, machineRev)
	})
	add(x, op("lose-machine", "POST", "/machines/{machine}/lost", "Report a machine lost", http.StatusOK), func(ctx context.Context, a desk.Actor, in *Dismissal) (*plain[rest.Lost], error) {
		return reply(d.LoseMachine(ctx, a, in.Machine, in.Body))
	})
	add(x, op("refuse-machine", "POST", "/machines/{machine}/refuse", "Refuse a pending machine", http.StatusOK), func(ctx context.Context, a desk.Actor, in *Dismissal) (*tagged[rest.Machine], error) {
		m, err := d.RefuseMachine(ctx, a, in.Machine, in.Body)
		return withTag(m, err, machineRev)
	})
	add(x, op("list-reseed", "GET", "/machines/{machine}/reseed", "Which authenticators have data on a machine", 0), func(ctx context.Context, a desk.Actor, in *MachinePath) (*plain[rest.Page[rest.Reseed]], error) {
		return reply(d.ListReseed(ctx, a, in.Machine))
	})
	add(x, op("list-tokens", "GET", "/machine-tokens", "List join tokens", 0), func(ctx context.Context, a desk.Actor, in *Paged) (*plain[rest.Page[rest.Token]], error) {
		return reply(d.ListTokens(ctx, a, in.After, in.Limit))
	})
	add(x, op("issue-token", "POST", "/machine-tokens", "Issue a join token", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewToken }) (*plain[rest.Token], error) {
		return reply(d.IssueToken(ctx, a, in.Body))
	})
	add(x, op("withdraw-token", "DELETE", "/machine-tokens/{token}", "Withdraw a join token", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Token string `path:"token" maxLength:"64"`
	},
	) (*empty, error) {
		return nil, d.WithdrawToken(ctx, a, in.Token)
	})

	add(x, op("list-offline", "GET", "/offline", "The offline enrolment report", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		PairQuery
		Class string `query:"class" maxLength:"32" doc:"Only data kept with tpm or in software"`
		Sort  string `query:"sort" maxLength:"32" doc:"Order: user (in order of their creation) or until (when its days are over), with - before it the other way round; absent: user"`
	},
	) (*plain[rest.Page[rest.OfflineEntry]], error) {
		return reply(d.ListOffline(ctx, a, desk.OfflineFilter{User: in.User, Machine: in.Machine, Class: in.Class, Sort: in.Sort}, in.After, in.Limit))
	})
	add(x, op("list-stuck", "GET", "/offline/stuck", "Who could not sign in today if the server were out of reach", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		PairQuery
	},
	) (*plain[rest.Page[rest.Stuck]], error) {
		return reply(d.ListStuck(ctx, a, in.User, in.Machine, in.After, in.Limit))
	})
	add(x, op("disenroll-offline", "POST", "/offline/disenroll", "Wipe offline data", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.Pairs }) (*plain[rest.Done], error) {
		return reply(d.Disenrol(ctx, a, in.Body))
	})
	add(x, op("lift-offline", "POST", "/offline/lift", "Have the counters of offline data lifted", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.Pairs }) (*plain[rest.Done], error) {
		return reply(d.Lift(ctx, a, in.Body))
	})

	add(x, op("list-windows", "GET", "/windows", "List open MFA windows", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		PairQuery
	},
	) (*plain[rest.Page[rest.Window]], error) {
		return reply(d.ListWindows(ctx, a, in.User, in.Machine, in.After, in.Limit))
	})
	add(x, op("revoke-windows", "POST", "/windows/revoke", "End MFA windows: the second factor is asked for again", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.Pairs }) (*plain[rest.Done], error) {
		return reply(d.RevokeWindows(ctx, a, in.Body))
	})
	add(x, op("revoke-window", "DELETE", "/windows/{window}", "End one window", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Window string `path:"window" maxLength:"64"`
	},
	) (*empty, error) {
		return nil, d.RevokeWindow(ctx, a, in.Window)
	})

	add(x, op("explain", "POST", "/explain", "Why a user would (not) be prompted", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.Explain }) (*plain[rest.Explained], error) {
		return reply(d.Explain(ctx, a, in.Body))
	})
	add(x, op("show-settings", "GET", "/settings", "Settings of the server", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*tagged[rest.Settings], error) {
		s, err := d.Settings(ctx, a)
		return settingsTagged(s, err)
	})
	add(x, op("change-settings", "PATCH", "/settings", "Change settings of the server", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Conditional
		Body rest.SettingsChange
	},
	) (*tagged[rest.Settings], error) {
		seen, err := in.tag()
		if err != nil {
			return nil, err
		}
		s, err := d.ChangeSettingsIf(ctx, a, seen, in.Body)
		return settingsTagged(s, err)
	})
	add(x, op("show-dashboard", "GET", "/dashboard", "How things stand, in numbers", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Dashboard], error) {
		return reply(d.Dashboard(ctx, a))
	})
	add(x, op("show-ca", "GET", "/ca", "The certificate of the server's own CA", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.CertificateAuthority], error) {
		return reply(d.CertificateAuthority(ctx, a))
	})
	add(x, op("show-status", "GET", "/status", "How the server is", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Status], error) {
		s, err := d.Status(ctx, a)
		if err == nil && x.notReady != nil {
			s.NotReady = x.notReady(ctx)
		}
		return reply(s, err)
	})
}
