package api

import (
	"context"
	"net/http"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
)

func init() {
	for _, id := range []string{
		"show-me", "change-me", "change-own-password", "list-own-factors", "begin-own-totp", "confirm-own-totp", "make-own-backup", "rename-own-factor",
		"remove-own-factor", "lose-own-factor", "list-own-machines", "show-own-machine", "disenrol-own-machine", "lose-own-machine", "list-own-signins",
		"show-own-signin", "report-own-signin", "list-own-reports",
	} {
		rights[id] = "self"
	}
	rights["list-reports"], rights["show-report"], rights["handle-report"] = "read", "read", "helpdesk"
	secrets["begin-own-totp"], secrets["make-own-backup"] = true, true
}

func meRev(m rest.Me) int64 { return m.Rev }

// self registers what people do for themselves, and the reports that come of it.
func (x *door) self() {
	d := x.desk
	add(x, op("show-me", "GET", "/me", "What you have, and what to do next", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*tagged[rest.Me], error) {
		m, err := d.Me(ctx, a)
		return withTag(m, err, meRev)
	})
	add(x, op("change-me", "PATCH", "/me", "Change your name to show or your mail address", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Conditional
		Body rest.MeChange
	},
	) (*tagged[rest.Me], error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		m, err := d.ChangeMe(ctx, a, rev, in.Body)
		return withTag(m, err, meRev)
	})
	add(x, op("change-own-password", "PUT", "/me/password", "Change your password", 0), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.OwnPassword }) (*empty, error) {
		defer in.Body.Old.Wipe()
		defer in.Body.New.Wipe()
		return nil, d.ChangeOwnPassword(ctx, a, in.Body)
	})

	add(x, op("list-own-factors", "GET", "/me/factors", "List your factors", 0), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.Page[rest.Factor]], error) {
		return reply(d.ListOwnFactors(ctx, a))
	})
	add(x, op("begin-own-totp", "POST", "/me/factors/totp", "Begin to set up an authenticator app", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.BeginTOTP }) (*plain[rest.PendingTOTP], error) {
		return reply(d.BeginOwnTOTP(ctx, a, in.Body))
	})
	add(x, op("confirm-own-totp", "POST", "/me/factors/totp/confirm", "Give the first code of an authenticator app", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.ConfirmTOTP }) (*plain[rest.Factor], error) {
		return reply(d.ConfirmOwnTOTP(ctx, a, in.Body))
	})
	add(x, op("make-own-backup", "POST", "/me/factors/backup", "Make ten new backup codes of your own", http.StatusCreated), func(ctx context.Context, a desk.Actor, _ *empty) (*plain[rest.BackupCodes], error) {
		return reply(d.MakeOwnBackup(ctx, a))
	})
	type FactorPath struct {
		Factor string `path:"factor" maxLength:"64" doc:"Id"`
	}
	add(x, op("rename-own-factor", "PATCH", "/me/factors/{factor}", "Rename one of your factors", 0), func(ctx context.Context, a desk.Actor, in *struct {
		FactorPath
		Body rest.FactorChange
	},
	) (*plain[rest.Factor], error) {
		return reply(d.RenameOwnFactor(ctx, a, in.Factor, in.Body))
	})
	add(x, op("remove-own-factor", "DELETE", "/me/factors/{factor}", "Remove one of your factors", http.StatusOK), func(ctx context.Context, a desk.Actor, in *FactorPath) (*plain[rest.Done], error) {
		return reply(d.RemoveOwnFactor(ctx, a, in.Factor))
	})
	add(x, op("lose-own-factor", "POST", "/me/factors/{factor}/lost", "Mark one of your authenticators as lost", http.StatusOK), func(ctx context.Context, a desk.Actor, in *FactorPath) (*plain[rest.Factor], error) {
		return reply(d.LoseOwnFactor(ctx, a, in.Factor))
	})

	type MachinePath struct {
		Machine string `path:"machine" maxLength:"64" doc:"Id"`
	}
	add(x, op("list-own-machines", "GET", "/me/machines", "List the machines that you use", 0), func(ctx context.Context, a desk.Actor, in *Paged) (*plain[rest.Page[rest.OwnMachine]], error) {
		return reply(d.ListOwnMachines(ctx, a, in.After, in.Limit))
	})
	add(x, op("show-own-machine", "GET", "/me/machines/{machine}", "Show one of your machines", 0), func(ctx context.Context, a desk.Actor, in *MachinePath) (*plain[rest.OwnMachine], error) {
		return reply(d.ShowOwnMachine(ctx, a, in.Machine))
	})
	add(x, op("disenrol-own-machine", "POST", "/me/machines/{machine}/disenrol", "Wipe your offline data from a machine", http.StatusOK), func(ctx context.Context, a desk.Actor, in *MachinePath) (*plain[rest.Done], error) {
		return reply(d.DisenrolOwn(ctx, a, in.Machine))
	})
	add(x, op("lose-own-machine", "POST", "/me/machines/{machine}/lost", "Report one of your machines lost", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		MachinePath
		Body rest.NewReport
	},
	) (*plain[rest.Reported], error) {
		return reply(d.LoseOwnMachine(ctx, a, in.Machine, in.Body))
	})

	type SigninPath struct {
		Signin string `path:"signin" maxLength:"64" doc:"Id of its event"`
	}
	add(x, op("list-own-signins", "GET", "/me/signins", "List your sign-ins, the youngest first", 0), func(ctx context.Context, a desk.Actor, in *Paged) (*plain[rest.Page[rest.OwnSignin]], error) {
		return reply(d.ListOwnSignins(ctx, a, in.After, in.Limit))
	})
	add(x, op("show-own-signin", "GET", "/me/signins/{signin}", "Show one of your sign-ins", 0), func(ctx context.Context, a desk.Actor, in *SigninPath) (*plain[rest.OwnSignin], error) {
		return reply(d.ShowOwnSignin(ctx, a, in.Signin))
	})
	add(x, op("report-own-signin", "POST", "/me/signins/{signin}/report", "Report a sign-in that was not yours", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		SigninPath
		Body rest.NewReport
	},
	) (*plain[rest.Reported], error) {
		return reply(d.ReportOwnSignin(ctx, a, in.Signin, in.Body))
	})
	add(x, op("list-own-reports", "GET", "/me/reports", "List what you have reported, the youngest first", 0), func(ctx context.Context, a desk.Actor, in *Paged) (*plain[rest.Page[rest.Report]], error) {
		return reply(d.ListOwnReports(ctx, a, in.After, in.Limit))
	})

	type ReportPath struct {
		Report string `path:"report" maxLength:"64" doc:"Id"`
	}
	add(x, op("list-reports", "GET", "/reports", "List what people have reported, the youngest first", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		State string `query:"state" maxLength:"16" doc:"open or handled; absent: both"`
		User  string `query:"user" maxLength:"512" doc:"Name or id"`
	},
	) (*plain[rest.Page[rest.Report]], error) {
		return reply(d.ListReports(ctx, a, in.State, in.User, in.After, in.Limit))
	})
	add(x, op("show-report", "GET", "/reports/{report}", "Show a report", 0), func(ctx context.Context, a desk.Actor, in *ReportPath) (*plain[rest.Report], error) {
		return reply(d.ShowReport(ctx, a, in.Report))
	})
	add(x, op("handle-report", "POST", "/reports/{report}/handled", "Close a report with what was done", http.StatusOK), func(ctx context.Context, a desk.Actor, in *struct {
		ReportPath
		Body rest.HandleReport
	},
	) (*plain[rest.Report], error) {
		return reply(d.HandleReport(ctx, a, in.Report, in.Body))
	})
}
