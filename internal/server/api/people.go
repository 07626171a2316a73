package api

import (
	"context"
	"net/http"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
)

type UserPath struct {
	User string `path:"user" maxLength:"512" doc:"Name or id"`
}

type GroupPath struct {
	Group string `path:"group" maxLength:"512" doc:"Name or id"`
}

type empty struct{}

func userRev(u rest.User) int64   { return u.Rev }
func groupRev(g rest.Group) int64 { return g.Rev }

// people registers users, groups and factors.
func (x *door) people() {
	d := x.desk
	add(x, op("list-users", "GET", "/users", "List users", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		Prefix string `query:"prefix" maxLength:"128" doc:"Only names that begin so, whatever their case"`
		Role   string `query:"role" maxLength:"32" doc:"Only of this role"`
		State  string `query:"state" maxLength:"32" doc:"Only those that are active, disabled, locked, unenrolled or waiting"`
		MFA    string `query:"mfa" maxLength:"32" doc:"Only with this setting of their own: inherit, on or off"`
		Group  string `query:"group" maxLength:"512" doc:"Only members of this group: name or id"`
		Sort   string `query:"sort" maxLength:"32" doc:"Order: name or created, with - before it the other way round; absent: name"`
	},
	) (*plain[rest.Page[rest.User]], error) {
		return reply(d.ListUsers(ctx, a, desk.UserFilter{Prefix: in.Prefix, Role: in.Role, State: in.State, MFA: in.MFA, Group: in.Group, Sort: in.Sort}, in.After, in.Limit))
	})
	add(x, op("add-user", "POST", "/users", "Add a user", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewUser }) (*tagged[rest.User], error) {
		u, err := d.AddUser(ctx, a, in.Body)
		return withTag(u, err, userRev)
	})
	add(x, op("show-user", "GET", "/users/{user}", "Show a user", 0), func(ctx context.Context, a desk.Actor, in *UserPath) (*tagged[rest.User], error) {
		u, err := d.ShowUser(ctx, a, in.User)
		return withTag(u, err, userRev)
	})
	add(x, op("change-user", "PATCH", "/users/{user}", "Change a user", 0), func(ctx context.Context, a desk.Actor, in *struct {
		UserPath
		Conditional
		Body rest.UserChange
	},
	) (*tagged[rest.User], error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		u, err := d.ChangeUser(ctx, a, in.User, rev, in.Body)
		return withTag(u, err, userRev)
	})
	add(x, op("remove-user", "DELETE", "/users/{user}", "Remove a user", 0), func(ctx context.Context, a desk.Actor, in *struct {
		UserPath
		Conditional
	},
	) (*empty, error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		return nil, d.RemoveUser(ctx, a, in.User, rev)
	})
	add(x, op("set-password", "PUT", "/users/{user}/password", "Set a user's password", 0), func(ctx context.Context, a desk.Actor, in *struct {
		UserPath
		Body rest.NewPassword
	},
	) (*empty, error) {
		defer in.Body.Password.Wipe()
		return nil, d.SetPassword(ctx, a, in.User, in.Body)
	})
	add(x, op("unlock-user", "POST", "/users/{user}/unlock", "Lift all pauses and lock-outs of a user", http.StatusOK), func(ctx context.Context, a desk.Actor, in *UserPath) (*plain[rest.Done], error) {
		return reply(d.Unlock(ctx, a, in.User))
	})
	add(x, op("issue-enrolment-code", "POST", "/users/{user}/enrolment-codes", "Issue an enrolment code", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct {
		UserPath
		Body rest.NewEnrolCode
	},
	) (*plain[rest.Code], error) {
		return reply(d.IssueEnrolCode(ctx, a, in.User, in.Body))
	})
	add(x, op("issue-bypass-code", "POST", "/users/{user}/bypass-codes", "Issue a bypass code", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct {
		UserPath
		Body rest.NewBypassCode
	},
	) (*plain[rest.Code], error) {
		return reply(d.IssueBypassCode(ctx, a, in.User, in.Body))
	})
	add(x, op("list-locks", "GET", "/locks", "Who is locked out or must wait", 0), func(ctx context.Context, a desk.Actor, in *Paged) (*plain[rest.Page[rest.Lock]], error) {
		return reply(d.ListLocks(ctx, a, in.After, in.Limit))
	})

	add(x, op("list-factors", "GET", "/users/{user}/factors", "List a user's factors", 0), func(ctx context.Context, a desk.Actor, in *UserPath) (*plain[rest.Page[rest.Factor]], error) {
		return reply(d.ListFactors(ctx, a, in.User))
	})
	add(x, op("add-totp", "POST", "/users/{user}/factors/totp", "Enrol an authenticator app", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct {
		UserPath
		Body rest.NewTOTP
	},
	) (*plain[rest.TOTP], error) {
		return reply(d.AddTOTP(ctx, a, in.User, in.Body))
	})
	add(x, op("add-backup", "POST", "/users/{user}/factors/backup", "Make ten new backup codes", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *UserPath) (*plain[rest.BackupCodes], error) {
		return reply(d.AddBackup(ctx, a, in.User))
	})
	type FactorPath struct {
		UserPath
		Factor string `path:"factor" maxLength:"128" doc:"Id, the beginning of one, or name; or a kind: to remove all of it, or to mark the only one as lost"`
	}
	add(x, op("remove-factor", "DELETE", "/users/{user}/factors/{factor}", "Remove a factor", http.StatusOK), func(ctx context.Context, a desk.Actor, in *FactorPath) (*plain[rest.Done], error) {
		return reply(d.RemoveFactor(ctx, a, in.User, in.Factor))
	})
	add(x, op("lose-factor", "POST", "/users/{user}/factors/{factor}/lost", "Mark an authenticator as lost", http.StatusOK), func(ctx context.Context, a desk.Actor, in *FactorPath) (*plain[rest.Factor], error) {
		return reply(d.LoseFactor(ctx, a, in.User, in.Factor))
	})

	add(x, op("list-groups", "GET", "/groups", "List groups", 0), func(ctx context.Context, a desk.Actor, in *struct {
		Paged
		Sort string `query:"sort" maxLength:"32" doc:"Order: name or created, with - before it the other way round; absent: name"`
	},
	) (*plain[rest.Page[rest.Group]], error) {
		return reply(d.ListGroups(ctx, a, in.Sort, in.After, in.Limit))
	})
	add(x, op("add-group", "POST", "/groups", "Add a group", http.StatusCreated), func(ctx context.Context, a desk.Actor, in *struct{ Body rest.NewGroup }) (*tagged[rest.Group], error) {
		g, err := d.AddGroup(ctx, a, in.Body)
		return withTag(g, err, groupRev)
	})
	add(x, op("show-group", "GET", "/groups/{group}", "Show a group", 0), func(ctx context.Context, a desk.Actor, in *GroupPath) (*tagged[rest.Group], error) {
		g, err := d.ShowGroup(ctx, a, in.Group)
		return withTag(g, err, groupRev)
	})
	add(x, op("change-group", "PATCH", "/groups/{group}", "Change a group", 0), func(ctx context.Context, a desk.Actor, in *struct {
		GroupPath
		Conditional
		Body rest.GroupChange
	},
	) (*tagged[rest.Group], error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		g, err := d.ChangeGroup(ctx, a, in.Group, rev, in.Body)
		return withTag(g, err, groupRev)
	})
	add(x, op("remove-group", "DELETE", "/groups/{group}", "Remove a group", 0), func(ctx context.Context, a desk.Actor, in *struct {
		GroupPath
		Conditional
	},
	) (*empty, error) {
		rev, err := in.rev()
		if err != nil {
			return nil, err
		}
		return nil, d.RemoveGroup(ctx, a, in.Group, rev)
	})
	add(x, op("list-members", "GET", "/groups/{group}/members", "List a group's members", 0), func(ctx context.Context, a desk.Actor, in *struct {
		GroupPath
		Paged
		Prefix string `query:"prefix" maxLength:"128" doc:"Only names that begin so, whatever their case"`
	},
	) (*plain[rest.Page[rest.User]], error) {
		return reply(d.ListMembers(ctx, a, in.Group, in.Prefix, in.After, in.Limit))
	})
	type MemberPath struct {
		GroupPath
		UserPath
	}
	add(x, op("add-member", "PUT", "/groups/{group}/members/{user}", "Put a user into a group", http.StatusOK), func(ctx context.Context, a desk.Actor, in *MemberPath) (*plain[rest.Done], error) {
		return reply(d.AddMember(ctx, a, in.Group, in.User))
	})
	add(x, op("remove-member", "DELETE", "/groups/{group}/members/{user}", "Take a user out of a group", http.StatusOK), func(ctx context.Context, a desk.Actor, in *MemberPath) (*plain[rest.Done], error) {
		return reply(d.RemoveMember(ctx, a, in.Group, in.User))
	})
}
