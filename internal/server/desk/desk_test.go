package desk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var start = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// onBoth runs fn over an empty store of either engine, and checks afterwards that
// the event chains are whole.
func onBoth(t *testing.T, fn func(t *testing.T, r *desktest.Rig, c *clock.Manual)) {
	t.Helper()
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(start)
		s := storetest.Open(t, store.Config{Database: database, Clock: c})
		r := desktest.New(t, s, c)
		fn(t, r, c)
		if v, err := r.Desk.VerifyEvents(t.Context(), desk.Root(), rest.Verify{}); err != nil || !v.Whole {
			t.Errorf("the event chains: %+v, %v", v, err)
		}
	})
}

func ok[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Fatalf("error %v, want code %s", err, code)
	}
}

func addUser(t *testing.T, r *desktest.Rig, name, role string) rest.User {
	t.Helper()
	return ok(r.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: name, Role: role}))(t)
}

func id(prefixed string) string {
	_, s, _ := strings.Cut(prefixed, "_")
	return s
}

// actions is every function of the desk that an administrator may call, with an
// input that is right, and the lowest role that may.
func actions(r *desktest.Rig) map[string]struct {
	lowest string
	do     func(ctx context.Context, a desk.Actor) error
} {
	type row = struct {
		lowest string
		do     func(ctx context.Context, a desk.Actor) error
	}
	d := r.Desk
	str := func(s string) *string { return &s }
	one := func(v any, err error) error { return err }
	return map[string]row{
		"ListUsers": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ListUsers(ctx, a, desk.UserFilter{}, "", 0))
		}},
		"ListLocks":     {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListLocks(ctx, a, "", 0)) }},
		"ShowUser":      {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ShowUser(ctx, a, "anna")) }},
		"ListGroups":    {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListGroups(ctx, a, "", "", 0)) }},
		"ShowGroup":     {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ShowGroup(ctx, a, "staff")) }},
		"ListMembers":   {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListMembers(ctx, a, "staff", "", "", 0)) }},
		"ListFactors":   {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListFactors(ctx, a, "anna")) }},
		"ListPolicies":  {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListPolicies(ctx, a)) }},
		"ShowPolicy":    {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ShowPolicy(ctx, a, "default")) }},
		"PolicyHistory": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.PolicyHistory(ctx, a, "default", "", 0)) }},
		"ListMachines": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ListMachines(ctx, a, desk.MachineFilter{}, "", 0))
		}},
		"ShowMachine": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ShowMachine(ctx, a, "laptop")) }},
		"ListTokens":  {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListTokens(ctx, a, "", 0)) }},
		"ListOffline": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ListOffline(ctx, a, desk.OfflineFilter{}, "", 0))
		}},
		"ListStuck":   {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListStuck(ctx, a, "", "", "", 0)) }},
		"ListWindows": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListWindows(ctx, a, "", "", "", 0)) }},
		"ListEvents": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ListEvents(ctx, a, desk.EventFilter{}, "", 0))
		}},
		"ShowEvent": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ShowEvent(ctx, a, rest.EventPrefix+"01930000-0000-7000-8000-000000000000"))
		}},
		"FollowEventsFrom": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return d.FollowEventsFrom(ctx, a, desk.EventFilter{}, "", 0, func(string) {}, nil, func() error { return errors.New("enough") })
		}},
		"FollowEvents": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return d.FollowEvents(ctx, a, desk.EventFilter{}, 0, nil, func() error { return errors.New("enough") })
		}},
		"VerifyEvents": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.VerifyEvents(ctx, a, rest.Verify{})) }},
		"Explain": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.Explain(ctx, a, rest.Explain{User: "anna", Machine: "laptop", Scope: "logon"}))
		}},
		"MachineCertificates": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.MachineCertificates(ctx, a, "laptop"))
		}},
		"UserCertificates": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.UserCertificates(ctx, a, "anna"))
		}},
		"CertificateSettings": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.CertificateSettings(ctx, a)) }},
		"RevokeUserCertificate": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error {
			return one(d.RevokeUserCertificate(ctx, a, "anna", "00", rest.RevokeCertificate{}))
		}},
		"RevokeMachineCertificate": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.RevokeMachineCertificate(ctx, a, "laptop", "00", rest.RevokeCertificate{}))
		}},
		"ChangeCertificateSettings": {rest.RoleOwner, func(ctx context.Context, a desk.Actor) error {
			return one(d.ChangeCertificateSettings(ctx, a, rest.CertificateSettingsChange{}))
		}},
		"ListShutOut": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ListShutOut(ctx, a, rest.ShutOutDraft{Policy: "default"}))
		}},
		"TryPolicy": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.TryPolicy(ctx, a, rest.TryPolicy{Policy: "default"}))
		}},
		"EffectivePolicy": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.EffectivePolicy(ctx, a, "anna", ""))
		}},
		"PreviewPolicy": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.PreviewPolicy(ctx, a, "default", rest.PolicyChange{}))
		}},
		"ComparePolicies": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ComparePolicies(ctx, a, "default", 0, 0))
		}},
		"PolicyReports": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.PolicyReports(ctx, a, "default", "", "", 0))
		}},
		"ExportEvents": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			_, _, err := d.ExportEvents(ctx, a, desk.EventFilter{}, 0, func(rest.Event) error { return nil })
			return err
		}},
		"ExportTo": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			_, _, err := d.ExportTo(ctx, a, desk.Export{Format: desk.CSV}, io.Discard, func() error { return nil })
			return err
		}},
		"CheckExport": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return d.CheckExport(ctx, a, desk.Export{Format: desk.CSV})
		}},
		"ListViews": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListViews(ctx, a)) }},
		"AddView": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.AddView(ctx, a, rest.NewView{Name: "n"}))
		}},
		"RemoveView": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return d.RemoveView(ctx, a, "viw_01930000-0000-7000-8000-000000000000")
		}},
		"Settings":             {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.Settings(ctx, a)) }},
		"Dashboard":            {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.Dashboard(ctx, a)) }},
		"UserID":               {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.UserID(ctx, a, "read", "anna")) }},
		"CertificateAuthority": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.CertificateAuthority(ctx, a)) }},
		"Status":               {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.Status(ctx, a)) }},

		"Unlock": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error { return one(d.Unlock(ctx, a, "anna")) }},
		"IssueEnrolCode": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error {
			return one(d.IssueEnrolCode(ctx, a, "anna", rest.NewEnrolCode{}))
		}},
		"IssueBypassCode": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error {
			return one(d.IssueBypassCode(ctx, a, "anna", rest.NewBypassCode{Reason: "r"}))
		}},
		"LoseFactor": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error { return one(d.LoseFactor(ctx, a, "anna", "fac_x")) }},
		"LoseMachine": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error {
			return one(d.LoseMachine(ctx, a, "nowhere", rest.Why{}))
		}},
		"RevokeWindows": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error {
			return one(d.RevokeWindows(ctx, a, rest.Pairs{User: "anna"}))
		}},
		"RevokeWindow": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error {
			return d.RevokeWindow(ctx, a, rest.WindowPrefix+"01930000-0000-7000-8000-000000000000")
		}},

		"AddUser": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.AddUser(ctx, a, rest.NewUser{Name: "new-" + a.Role}))
		}},
		"ChangeUser": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.ChangeUser(ctx, a, "anna", 0, rest.UserChange{DisplayName: str(a.Role)}))
		}},
		"SetPassword": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return d.SetPassword(ctx, a, "anna", rest.NewPassword{Password: rest.Hide(desktest.Password())})
		}},
		"RemoveUser": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return d.RemoveUser(ctx, a, "nobody", 0) }},
		"AddPhone":   {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.AddPhone(ctx, a, "anna")) }},
		"UnlockPush": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error { return one(d.UnlockPush(ctx, a, "anna")) }},
		"AddTOTP": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.AddTOTP(ctx, a, "anna", rest.NewTOTP{}))
		}},
		"AddBackup":    {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.AddBackup(ctx, a, "anna")) }},
		"RemoveFactor": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.RemoveFactor(ctx, a, "anna", "x")) }},
		"AddGroup": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.AddGroup(ctx, a, rest.NewGroup{Name: "new-" + a.Role}))
		}},
		"ChangeGroup": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.ChangeGroup(ctx, a, "staff", 0, rest.GroupChange{MFA: str("on")}))
		}},
		"RemoveGroup":  {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return d.RemoveGroup(ctx, a, "none", 0) }},
		"AddMember":    {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.AddMember(ctx, a, "staff", "anna")) }},
		"RemoveMember": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.RemoveMember(ctx, a, "none", "anna")) }},
		"AddPolicy": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.AddPolicy(ctx, a, rest.NewPolicy{Name: "new-" + a.Role}))
		}},
		"ChangePolicy": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.ChangePolicy(ctx, a, "default", 0, rest.PolicyChange{Comment: "c"}))
		}},
		"RemovePolicy": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return d.RemovePolicy(ctx, a, "none", 0, 0) }},
		"RollbackPolicy": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.RollbackPolicy(ctx, a, "default", 0, rest.Rollback{Version: 7}))
		}},
		"ChangeMachine": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.ChangeMachine(ctx, a, "laptop", 0, rest.MachineChange{Mode: str("enforced")}))
		}},
		"RevokeMachine": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.RevokeMachine(ctx, a, "nowhere", rest.Why{}))
		}},
		"RefuseMachine": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.RefuseMachine(ctx, a, "nowhere", rest.Why{}))
		}},
		"ListReseed":    {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListReseed(ctx, a, "laptop")) }},
		"RemoveMachine": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return d.RemoveMachine(ctx, a, "laptop", 0) }},
		"IssueToken":    {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.IssueToken(ctx, a, rest.NewToken{})) }},
		"WithdrawToken": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return d.WithdrawToken(ctx, a, "tok_x") }},
		"Disenrol":      {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.Disenrol(ctx, a, rest.Pairs{All: true})) }},
		"Lift":          {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.Lift(ctx, a, rest.Pairs{All: true})) }},

		"ListReports": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error {
			return one(d.ListReports(ctx, a, "", "", "", 0))
		}},
		"ShowReport": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ShowReport(ctx, a, "rep_x")) }},
		"HandleReport": {rest.RoleHelpDesk, func(ctx context.Context, a desk.Actor) error {
			return one(d.HandleReport(ctx, a, "rep_x", rest.HandleReport{Answer: "a"}))
		}},

		"ChangeSettings": {rest.RoleOwner, func(ctx context.Context, a desk.Actor) error {
			return one(d.ChangeSettings(ctx, a, rest.SettingsChange{Contact: str("x")}))
		}},
		"MailSettings": {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { _, _, err := d.MailSettings(ctx, a); return err }},
		"SMSSettings":  {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { _, _, err := d.SMSSettings(ctx, a); return err }},
		"ChangeMailSettings": {rest.RoleOwner, func(ctx context.Context, a desk.Actor) error {
			_, _, err := d.ChangeMailSettings(ctx, a, "", rest.MailChange{FromName: str("x")})
			return err
		}},
		"ChangeSMSSettings": {rest.RoleOwner, func(ctx context.Context, a desk.Actor) error {
			_, _, err := d.ChangeSMSSettings(ctx, a, "", rest.SMSChange{From: str("x")})
			return err
		}},
		"TestChannel": {rest.RoleOwner, func(ctx context.Context, a desk.Actor) error {
			return one(d.TestChannel(ctx, a, rest.ChannelMail, rest.TestMessage{To: "a@example.org"}))
		}},
		"Queue":         {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.Queue(ctx, a, rest.ChannelMail)) }},
		"ListMessages":  {rest.RoleAuditor, func(ctx context.Context, a desk.Actor) error { return one(d.ListMessages(ctx, a, "", "", "", 0)) }},
		"RetryMessage":  {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return one(d.RetryMessage(ctx, a, "x")) }},
		"RemoveMessage": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error { return d.RemoveMessage(ctx, a, "x") }},
		"AddAddress": {rest.RoleAdministrator, func(ctx context.Context, a desk.Actor) error {
			return one(d.AddAddress(ctx, a, "anna", rest.ChannelMail, rest.NewAddress{Address: "a@example.org"}))
		}},
		"ChangeSettingsIf": {rest.RoleOwner, func(ctx context.Context, a desk.Actor) error {
			return one(d.ChangeSettingsIf(ctx, a, "", rest.SettingsChange{Contact: str("x")}))
		}},
	}
}

func TestEveryActionHasItsRight(t *testing.T) {
	c := clock.NewManual(start)
	r := desktest.New(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c)
	addUser(t, r, "anna", rest.RoleNone)
	ok(r.AddGroup(t.Context(), desk.Root(), rest.NewGroup{Name: "staff"}))(t)
	r.Machine(t, "laptop", rest.MachineActive)
	all := actions(r)

	// The table is complete.
	for name := range methods(r.Desk) {
		if _, ok := all[name]; !ok && selfActions[name] == nil {
			t.Errorf("the action %s is not in this table", name)
		}
	}
	order := map[string]int{}
	for i, role := range rest.Roles {
		order[role] = i
	}
	for name, action := range all {
		for _, role := range append([]string{"", "root", "Owner"}, rest.Roles...) {
			i, known := order[role]
			may := known && i >= order[action.lowest]
			before := count(t, r)
			err := action.do(t.Context(), desk.Actor{Name: "somebody", Role: role})
			if fault.Is(err, fault.Forbidden) == may {
				t.Errorf("%s as %q: %v, may = %v", name, role, err, may)
			}
			if fault.Is(err, fault.Internal) {
				t.Errorf("%s as %q: %v", name, role, err)
			}
			if !may && count(t, r) != before {
				t.Errorf("%s as %q was refused and left an event", name, role)
			}
		}
		if err := action.do(t.Context(), desk.Actor{Role: rest.RoleOwner}); !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s by nobody: %v", name, err)
		}
	}
}

func count(t *testing.T, r *desktest.Rig) int64 {
	t.Helper()
	return ok(r.VerifyEvents(t.Context(), desk.Root(), rest.Verify{}))(t).Events
}

// TestNobodyResetsAnEqual is E3: equal or higher roles need a second approver who is
// a third person, whatever the way.
func TestNobodyResetsAnEqual(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		people := map[string]rest.User{}
		for _, role := range rest.Roles {
			people[role] = addUser(t, r, "a-"+role, role)
		}
		off, none := rest.MFAOff, rest.RoleNone
		group := ok(r.AddGroup(ctx, desk.Root(), rest.NewGroup{Name: "free", MFA: rest.MFAOff}))(t)
		ways := map[string]func(a desk.Actor, who string) error{
			"password": func(a desk.Actor, who string) error {
				return r.SetPassword(ctx, a, who, rest.NewPassword{Password: rest.Hide(desktest.Password())})
			},
			"bypass code": func(a desk.Actor, who string) error {
				_, err := r.IssueBypassCode(ctx, a, who, rest.NewBypassCode{Reason: "r"})
				return err
			},
			"enrolment code": func(a desk.Actor, who string) error {
				_, err := r.IssueEnrolCode(ctx, a, who, rest.NewEnrolCode{})
				return err
			},
			"authenticator": func(a desk.Actor, who string) error {
				_, err := r.AddTOTP(ctx, a, who, rest.NewTOTP{})
				return err
			},
			"backup codes": func(a desk.Actor, who string) error {
				_, err := r.AddBackup(ctx, a, who)
				return err
			},
			"removing factors": func(a desk.Actor, who string) error {
				_, err := r.RemoveFactor(ctx, a, who, "backup")
				return err
			},
			"2fa off": func(a desk.Actor, who string) error {
				_, err := r.ChangeUser(ctx, a, who, 0, rest.UserChange{MFA: &off})
				return err
			},
			"a group without 2fa": func(a desk.Actor, who string) error {
				_, err := r.AddMember(ctx, a, group.Name, who)
				return err
			},
			"role": func(a desk.Actor, who string) error {
				_, err := r.ChangeUser(ctx, a, who, 0, rest.UserChange{Role: &none})
				return err
			},
			"disabling": func(a desk.Actor, who string) error {
				yes := true
				_, err := r.ChangeUser(ctx, a, who, 0, rest.UserChange{Disabled: &yes})
				return err
			},
			"removing": func(a desk.Actor, who string) error { return r.RemoveUser(ctx, a, who, 0) },
		}
		admin := desk.Actor{Name: "adam", UserID: "adam-id", Role: rest.RoleAdministrator}
		owner := desk.Actor{Name: "otto", UserID: "otto-id", Role: rest.RoleOwner}
		with := func(a desk.Actor, p desk.Actor, about string) desk.Actor {
			a.Approver, a.ApprovedFor = &p, id(about)
			return a
		}
		olga := desk.Actor{Name: "olga", UserID: "olga-id", Role: rest.RoleOwner}
		victim := people[rest.RoleOwner]
		for name, way := range ways {
			for what, a := range map[string]desk.Actor{
				"an administrator":                           admin,
				"an administrator whom an owner approves":    with(admin, owner, victim.ID),
				"an owner alone":                             owner,
				"an owner who approves himself":              with(owner, owner, victim.ID),
				"an owner whom the subject approves":         with(owner, desk.Actor{Name: victim.Name, UserID: id(victim.ID), Role: rest.RoleOwner}, victim.ID),
				"an owner whom an administrator approves":    with(owner, admin, victim.ID),
				"an owner whom nobody with a name approves":  with(owner, desk.Actor{Name: "otto", Role: rest.RoleOwner}, victim.ID),
				"an owner who was approved for another":      with(owner, olga, people[rest.RoleAdministrator].ID),
				"an owner who is the subject":                with(desk.Actor{Name: victim.Name, UserID: id(victim.ID), Role: rest.RoleOwner}, olga, victim.ID),
				"an owner's token with an approval":          with(desk.Actor{Name: "otto", UserID: "otto-id", Role: rest.RoleOwner, Token: true, Scopes: desk.Scopes}, olga, victim.ID),
				"an owner whom a token approves":             with(owner, desk.Actor{Name: "olga", UserID: "olga-id", Role: rest.RoleOwner, Token: true}, victim.ID),
				"a help desk that calls itself owner's peer": {Name: "hilda", Role: rest.RoleHelpDesk},
			} {
				if err := way(a, victim.Name); !fault.Is(err, fault.Forbidden) {
					t.Errorf("%s of an owner by %s: %v", name, what, err)
				}
			}
			if err := way(admin, people[rest.RoleAdministrator].Name); !fault.Is(err, fault.Forbidden) {
				t.Errorf("%s of an administrator by an administrator: %v", name, err)
			}
		}
		// An administrator may for lower roles, and an owner whom another owner approves
		// for an owner. "removing" comes last: it takes the user away.
		delete(ways, "removing")
		for name, way := range ways {
			if err := way(admin, people[rest.RoleHelpDesk].Name); err != nil && !fault.Is(err, fault.NotFound) {
				t.Errorf("%s of a help desk by an administrator: %v", name, err)
			}
			third := addUser(t, r, "third-"+strings.ReplaceAll(name, " ", "-"), rest.RoleOwner)
			if err := way(with(owner, olga, third.ID), third.Name); err != nil && !fault.Is(err, fault.NotFound) {
				t.Errorf("%s of an owner by an owner whom a third approves: %v", name, err)
			}
		}
		// A code that two gave out names both.
		zed := addUser(t, r, "zed", rest.RoleOwner)
		code := ok(r.IssueBypassCode(ctx, with(owner, olga, zed.ID), zed.Name, rest.NewBypassCode{Reason: "r"}))(t)
		e := ok(r.ListEvents(ctx, desk.Root(), desk.EventFilter{Types: []string{string(event.CodeIssued)}}, "", 1))(t).Items[0]
		if !strings.Contains(string(e.Data), `"approved_by":"olga"`) || e.Actor != "otto" {
			t.Errorf("the event of code %s: %s by %s", code.ID, e.Data, e.Actor)
		}
		// Nobody gives away more than they have.
		_, err := r.AddUser(ctx, admin, rest.NewUser{Name: "peer", Role: rest.RoleAdministrator})
		wantCode(t, err, fault.Forbidden)
		role := rest.RoleAdministrator
		_, err = r.ChangeUser(ctx, admin, people[rest.RoleNone].Name, 0, rest.UserChange{Role: &role})
		wantCode(t, err, fault.Forbidden)
	})
}

// TestGroupsDoNotSwitchOffEquals: what a group does to its members is done to each.
func TestGroupsDoNotSwitchOffEquals(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		admin := desk.Actor{Name: "adam", Role: rest.RoleAdministrator}
		off, on, inherit := rest.MFAOff, rest.MFAOn, rest.MFAInherit
		g := ok(r.AddGroup(ctx, admin, rest.NewGroup{Name: "all", MFA: on}))(t)
		boss := addUser(t, r, "boss", rest.RoleOwner)
		ok(r.AddMember(ctx, admin, g.Name, boss.Name))(t)
		for name, mfa := range map[string]string{"off": off, "no longer on": inherit} {
			if _, err := r.ChangeGroup(ctx, admin, g.Name, 0, rest.GroupChange{MFA: &mfa}); !fault.Is(err, fault.Forbidden) {
				t.Errorf("switched %s: %v", name, err)
			}
		}
		if err := r.RemoveGroup(ctx, admin, g.Name, 0); !fault.Is(err, fault.Forbidden) {
			t.Errorf("removing a group that forces 2FA on an owner: %v", err)
		}
		_, err := r.RemoveMember(ctx, admin, g.Name, boss.Name)
		wantCode(t, err, fault.Forbidden)
	})
}

// TestExemptingAnOwnersMachine is E3 by way of the machine.
func TestExemptingAnOwnersMachine(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		m := r.Machine(t, "laptop", rest.MachineActive)
		boss := addUser(t, r, "boss", rest.RoleOwner)
		ok(r.ChangeMachine(t.Context(), desk.Root(), m.Name, 0, rest.MachineChange{Owner: &boss.Name}))(t)
		exempt := "exempt"
		_, err := r.ChangeMachine(t.Context(), desk.Actor{Name: "adam", Role: rest.RoleAdministrator}, m.Name, 0, rest.MachineChange{Mode: &exempt})
		wantCode(t, err, fault.Forbidden)
		if got := ok(r.ShowMachine(t.Context(), desk.Root(), m.Name))(t).Mode; got != "normal" {
			t.Errorf("mode %s", got)
		}
	})
}

func TestTwoAdministratorsDoNotOverwriteEachOther(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		u := addUser(t, r, "anna", "")
		g := ok(r.AddGroup(ctx, desk.Root(), rest.NewGroup{Name: "staff"}))(t)
		p := ok(r.ShowPolicy(ctx, desk.Root(), "default"))(t)
		m := ok(r.ShowMachine(ctx, desk.Root(), rest.MachinePrefix+r.Machine(t, "laptop", rest.MachineActive).ID))(t)
		for name, change := range map[string]func(i int) error{
			"user": func(i int) error {
				s := fmt.Sprint(i)
				_, err := r.ChangeUser(ctx, desk.Root(), u.ID, u.Rev, rest.UserChange{DisplayName: &s})
				return err
			},
			"group": func(i int) error {
				s := fmt.Sprintf("staff-%d", i)
				_, err := r.ChangeGroup(ctx, desk.Root(), g.ID, g.Rev, rest.GroupChange{Name: &s})
				return err
			},
			"policy": func(i int) error {
				_, err := r.ChangePolicy(ctx, desk.Root(), p.ID, p.Rev, rest.PolicyChange{Settings: json.RawMessage(fmt.Sprintf(`{"offline_days": %d}`, 10+i))})
				return err
			},
			"machine": func(i int) error {
				s := fmt.Sprintf("laptop-%d", i)
				_, err := r.ChangeMachine(ctx, desk.Root(), m.ID, m.Rev, rest.MachineChange{Name: &s})
				return err
			},
		} {
			t.Run(name, func(t *testing.T) {
				var wg sync.WaitGroup
				errs := make([]error, 8)
				for i := range errs {
					wg.Go(func() { errs[i] = change(i) })
				}
				wg.Wait()
				won := 0
				for _, err := range errs {
					switch {
					case err == nil:
						won++
					case !fault.Is(err, fault.Conflict):
						t.Error(err)
					}
				}
				if won != 1 {
					t.Errorf("%d changes of the same revision were kept", won)
				}
			})
		}
	})
}

// TestOneNameIsGivenOnce: of several who add the same name at once one does.
func TestOneNameIsGivenOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { _, errs[i] = r.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: "anna"}) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !fault.Is(err, fault.Exists) {
				t.Error(err)
			}
		}
		if won != 1 || count(t, r) != 1 {
			t.Errorf("%d users, %d events", won, count(t, r))
		}
	})
}

// TestMachinesLearn: after each change the machines concerned have a higher serial
// and their long polls are woken, and the others have not.
func TestMachinesLearn(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		root := desk.Root()
		near, far := r.Machine(t, "near", rest.MachineActive), r.Machine(t, "far", rest.MachineActive)
		anna := addUser(t, r, "anna", "")
		ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		uid := id(anna.ID)
		r.Vault(t, uid, near.ID, "software", clock.Micros(c.Now().Add(time.Hour)), 5)
		yes, on := true, "on"
		only, everybody := []string{near.ID}, []string{near.ID, far.ID}
		for _, step := range []struct {
			name string
			who  []string
			do   func() error
		}{
			{"a disabled user", only, func() error { return second(r.ChangeUser(ctx, root, "anna", 0, rest.UserChange{Disabled: &yes})) }},
			{"a user's 2FA", only, func() error { return second(r.ChangeUser(ctx, root, "anna", 0, rest.UserChange{MFA: &on})) }},
			{"a password", only, func() error {
				return r.SetPassword(ctx, root, "anna", rest.NewPassword{Password: rest.Hide(desktest.Password())})
			}},
			{"an authenticator", only, func() error { return second(r.AddTOTP(ctx, root, "anna", rest.NewTOTP{})) }},
			{"backup codes", only, func() error { return second(r.AddBackup(ctx, root, "anna")) }},
			{"removed backup codes", only, func() error { return second(r.RemoveFactor(ctx, root, "anna", "backup")) }},
			{"a membership", only, func() error { return second(r.AddMember(ctx, root, "staff", "anna")) }},
			{"a lost membership", only, func() error { return second(r.RemoveMember(ctx, root, "staff", "anna")) }},
			{"a lifted lock-out", only, func() error {
				r.Lock(t, uid, near.ID, clock.Micros(c.Now().Add(time.Hour)))
				return second(r.Unlock(ctx, root, "anna"))
			}},
			{"a revoked window", only, func() error {
				r.Window(t, uid, near.ID, "b", clock.Micros(c.Now().Add(time.Hour)))
				return second(r.RevokeWindows(ctx, root, rest.Pairs{User: "anna"}))
			}},
			{"a wanted lift", only, func() error { return second(r.Lift(ctx, root, rest.Pairs{User: "anna"})) }},
			{"a machine's mode", only, func() error {
				return second(r.ChangeMachine(ctx, root, "near", 0, rest.MachineChange{Mode: ptr("enforced")}))
			}},
			{"an assigned user", only, func() error {
				return second(r.ChangeMachine(ctx, root, "near", 0, rest.MachineChange{AddUsers: []string{"anna"}}))
			}},
			{"a group's 2FA", everybody, func() error { return second(r.ChangeGroup(ctx, root, "staff", 0, rest.GroupChange{MFA: &on})) }},
			{"a removed group", everybody, func() error { return r.RemoveGroup(ctx, root, "staff", 0) }},
			{"a new policy", everybody, func() error { return second(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "p"})) }},
			{"a changed policy", everybody, func() error {
				return second(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"offline_days": 3}`)}))
			}},
			{"a policy rolled back", everybody, func() error { return second(r.RollbackPolicy(ctx, root, "default", 0, rest.Rollback{Version: 1})) }},
			{"a removed policy", everybody, func() error { return r.RemovePolicy(ctx, root, "p", 0, 0) }},
			{"the contact", everybody, func() error {
				return second(r.ChangeSettings(ctx, root, rest.SettingsChange{Contact: ptr("call Bob")}))
			}},
			{"a disenrolment", only, func() error { return second(r.Disenrol(ctx, root, rest.Pairs{Machine: "near"})) }},
			{"a removed user", only, func() error { return r.RemoveUser(ctx, root, "anna", 0) }},
			{"a revoked machine", only, func() error { return second(r.RevokeMachine(ctx, root, "near", rest.Why{})) }},
		} {
			was := map[string]int64{near.ID: serial(t, r, near.ID), far.ID: serial(t, r, far.ID)}
			woken := map[string]<-chan struct{}{}
			for m := range was {
				ch, cancel := r.Store.Watch(m)
				defer cancel()
				woken[m] = ch
			}
			if err := step.do(); err != nil {
				t.Errorf("%s: %v", step.name, err)
				continue
			}
			for m, before := range was {
				told := serial(t, r, m) > before
				if told != slices.Contains(step.who, m) {
					t.Errorf("%s: machine %s told: %v", step.name, name(m, near), told)
				}
				// Somebody may be woken for nothing, but nobody waits in vain.
				if told {
					select {
					case <-woken[m]:
					case <-time.After(3 * time.Second):
						t.Errorf("%s: machine %s not woken", step.name, name(m, near))
					}
				}
			}
		}
	})
}

func ptr[T any](v T) *T             { return &v }
func second(_ any, err error) error { return err }

func name(m string, near db.Machine) string {
	if m == near.ID {
		return "near"
	}
	return "far"
}

func serial(t *testing.T, r *desktest.Rig, machineID string) int64 {
	t.Helper()
	return ok(r.ShowMachine(t.Context(), desk.Root(), rest.MachinePrefix+machineID))(t).Serial
}

// TestGenerations: what makes offline data worthless raises the user's generation.
func TestGenerations(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		anna := addUser(t, r, "anna", "")
		gen := func() (n int64) {
			must(t, r.Store.Read(ctx, func(q *store.Queries) error {
				u, err := q.GetUser(ctx, id(anna.ID))
				n = u.PasswordGeneration
				return err
			}))
			return n
		}
		var factor string
		for _, step := range []struct {
			name  string
			rises bool
			do    func() error
		}{
			{"a password", true, func() error {
				return r.SetPassword(ctx, root, "anna", rest.NewPassword{Password: rest.Hide(desktest.Password())})
			}},
			{"an authenticator", true, func() error {
				f, err := r.AddTOTP(ctx, root, "anna", rest.NewTOTP{})
				factor = f.ID
				return err
			}},
			{"an authenticator that waits for its first code", false, func() error {
				return second(r.AddTOTP(ctx, root, "anna", rest.NewTOTP{RequireFirstCode: true}))
			}},
			{"backup codes", true, func() error { return second(r.AddBackup(ctx, root, "anna")) }},
			{"a lost authenticator", true, func() error { return second(r.LoseFactor(ctx, root, "anna", factor)) }},
			{"a removed authenticator", true, func() error { return second(r.RemoveFactor(ctx, root, "anna", factor)) }},
			{"a bypass code", false, func() error { return second(r.IssueBypassCode(ctx, root, "anna", rest.NewBypassCode{Reason: "r"})) }},
			{"a removed bypass code", false, func() error { return second(r.RemoveFactor(ctx, root, "anna", "bypass")) }},
			{"a new mail address", false, func() error { return second(r.ChangeUser(ctx, root, "anna", 0, rest.UserChange{Mail: ptr("a@b")})) }},
		} {
			before := gen()
			if err := step.do(); err != nil {
				t.Errorf("%s: %v", step.name, err)
			} else if (gen() > before) != step.rises {
				t.Errorf("%s: generation %d, was %d", step.name, gen(), before)
			}
		}
	})
}

func TestPagesFollowEachOther(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		var want []string
		for i := range 7 {
			want = append(want, addUser(t, r, fmt.Sprintf("user-%d", i), "").Name)
		}
		var got []string
		after := ""
		for pages := 0; ; pages++ {
			p := ok(r.ListUsers(ctx, root, desk.UserFilter{}, after, 3))(t)
			for _, u := range p.Items {
				got = append(got, u.Name)
			}
			if after = p.Next; after == "" {
				if pages != 2 {
					t.Errorf("%d pages", pages+1)
				}
				break
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		// Events go backwards, and the cursor of one list is none of another.
		var types []string
		after = ""
		for {
			p := ok(r.ListEvents(ctx, root, desk.EventFilter{}, after, 2))(t)
			for _, e := range p.Items {
				types = append(types, e.Subject)
			}
			if after = p.Next; after == "" {
				break
			}
		}
		slices.Reverse(types)
		if d := cmp.Diff(want, types); d != "" {
			t.Error(d)
		}
		p := ok(r.ListUsers(ctx, root, desk.UserFilter{}, "", 1))(t)
		_, err := r.ListGroups(ctx, root, "", p.Next, 0)
		wantCode(t, err, fault.Invalid)
		for _, bad := range []string{"x", "e30", "W10", p.Next + "A", strings.Repeat("A", 5000), "WyJ1c2VycyIsIlx1MDAwMCJd"} {
			if _, err := r.ListUsers(ctx, root, desk.UserFilter{}, bad, 1); !fault.Is(err, fault.Invalid) {
				t.Errorf("cursor %q: %v", bad, err)
			}
		}
		// The limit is kept.
		if n := len(ok(r.ListUsers(ctx, root, desk.UserFilter{}, "", 100000))(t).Items); n != 7 {
			t.Errorf("%d users", n)
		}
	})
}

// TestListsComeInOtherOrders: each order of each list, gone through page by page, shows
// every row once and in that order, and its cursor continues no other order.
func TestListsComeInOtherOrders(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		for i, name := range []string{"mill", "Anna", "zoe", "anna", "ben"} {
			u := addUser(t, r, name, "")
			ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "g-" + name}))(t)
			m := r.Machine(t, "m-"+name, rest.MachineActive)
			seen := c.Now().Add([]time.Duration{3, 1, 1, 2, 5}[i] * time.Hour)
			ok(true, r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
				_, err := tx.SeeMachine(ctx, db.SeeMachineParams{ID: m.ID, At: clock.Micros(seen), Address: "192.0.2.1"})
				return err
			}))(t)
			r.Vault(t, id(u.ID), m.ID, "software", clock.Micros(c.Now().Add([]time.Duration{40, 30, 30, 60, 50}[i]*time.Hour)), 5)
		}
		type page struct {
			names []string
			next  string
		}
		named := func(names []string, next string, err error) (page, error) { return page{names, next}, err }
		users := func(sort, after string) (page, error) {
			p, err := r.ListUsers(ctx, root, desk.UserFilter{Sort: sort}, after, 2)
			return named(each(p.Items, func(u rest.User) string { return u.Name }), p.Next, err)
		}
		groups := func(sort, after string) (page, error) {
			p, err := r.ListGroups(ctx, root, sort, after, 2)
			return named(each(p.Items, func(g rest.Group) string { return g.Name }), p.Next, err)
		}
		machines := func(sort, after string) (page, error) {
			p, err := r.ListMachines(ctx, root, desk.MachineFilter{Sort: sort}, after, 2)
			return named(each(p.Items, func(m rest.Machine) string { return m.Name }), p.Next, err)
		}
		offline := func(sort, after string) (page, error) {
			p, err := r.ListOffline(ctx, root, desk.OfflineFilter{Sort: sort}, after, 2)
			return named(each(p.Items, func(e rest.OfflineEntry) string { return e.User }), p.Next, err)
		}
		for _, x := range []struct {
			what string
			list func(sort, after string) (page, error)
			sort string
			want string
		}{
			{"users", users, "", "Anna anna ben mill zoe"},
			{"users", users, "created", "mill Anna zoe anna ben"},
			{"groups", groups, "", "g-Anna g-anna g-ben g-mill g-zoe"},
			{"groups", groups, "created", "g-mill g-Anna g-zoe g-anna g-ben"},
			{"machines", machines, "", "m-mill m-Anna m-zoe m-anna m-ben"},
			{"machines", machines, "name", "m-Anna m-anna m-ben m-mill m-zoe"},
			{"machines", machines, "seen", "m-Anna m-zoe m-anna m-mill m-ben"},
			{"offline", offline, "", "mill Anna zoe anna ben"},
			{"offline", offline, "until", "Anna zoe mill ben anna"},
		} {
			own := map[string]string{"users": "name", "groups": "name", "machines": "joined", "offline": "user"}[x.what]
			want := strings.Fields(x.want)
			back := slices.Clone(want)
			slices.Reverse(back)
			other := "-" + x.sort
			if x.sort == "" {
				other += own
			}
			cursors := map[string]string{}
			for sort, want := range map[string][]string{x.sort: want, other: back} {
				var got []string
				for after := ""; ; {
					p, err := x.list(sort, after)
					if err != nil {
						t.Fatalf("%s by %q: %v", x.what, sort, err)
					}
					got = append(got, p.names...)
					if after = p.next; after == "" {
						break
					}
					cursors[sort] = after
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s by %q:\n%s", x.what, sort, d)
				}
			}
			if _, err := x.list(x.sort, cursors[other]); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s by %q took a cursor of the other way round: %v", x.what, x.sort, err)
			}
			for _, bad := range []string{"mail", "--name", "-", "NAME", own + "s"} {
				if _, err := x.list(bad, ""); !fault.Is(err, fault.Invalid) {
					t.Errorf("%s by %q: %v", x.what, bad, err)
				}
			}
		}
	})
}

func each[T any](list []T, name func(T) string) []string {
	var out []string
	for _, x := range list {
		out = append(out, name(x))
	}
	return out
}

// TestATextThatIsANameGivesTheEventsOfThatName: about the one who has the name, whatever
// else contains it; and somebody with a role is found by what they did, too.
func TestATextThatIsANameGivesTheEventsOfThatName(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		anna, boss := addUser(t, r, "anna", ""), addUser(t, r, "boss", rest.RoleAdministrator)
		addUser(t, r, "annabel", "")
		m := r.Machine(t, "mill", rest.MachineActive)
		ok(true, r.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
			for _, e := range []event.Event{
				{Type: event.SigninAllowed, Subject: "anna-before", UserID: id(anna.ID), MachineID: m.ID, Machine: "mill"},
				{Type: event.SigninDenied, Subject: "stranger", Machine: "windmill"},
				{Type: event.UserChanged, Subject: "annabel", Actor: "boss"},
				{Type: event.UserChanged, Subject: "boss", UserID: id(boss.ID), Actor: "root@local"},
			} {
				if _, err := tx.Event(e); err != nil {
					return err
				}
			}
			return nil
		}))(t)
		for text, want := range map[string]string{
			"anna": "anna-before anna", "\"anna\"": "annabel anna-before annabel anna", "ann": "annabel anna-before annabel anna", "mill": "anna-before",
			"\"mill\"": "stranger anna-before", "boss": "boss annabel boss", "windmil": "stranger", "nobody": "",
		} {
			got := each(ok(r.ListEvents(ctx, root, desk.EventFilter{Text: text}, "", 0))(t).Items, func(e rest.Event) string { return e.Subject })
			if strings.Join(got, " ") != want {
				t.Errorf("%s: %v, not %s", text, got, want)
			}
		}
		// A name beside a chosen user stays text.
		if got := ok(r.ListEvents(ctx, root, desk.EventFilter{User: "anna", Text: "mill"}, "", 0))(t).Items; len(got) != 1 {
			t.Errorf("%+v", got)
		}
	})
}

// TestFollowersMissNothing: events that are written while somebody begins to follow
// come once each, in order.
func TestFollowersMissNothing(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		r := desktest.New(t, s, clock.Real)
		const n = 60
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := range n {
				if _, err := r.AddGroup(ctx, desk.Root(), rest.NewGroup{Name: fmt.Sprintf("g%03d", i)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
		for range 4 {
			wg.Go(func() {
				var got []string
				err := r.FollowEvents(ctx, desk.Root(), desk.EventFilter{Types: []string{"group."}}, rest.MaxPage, func(e rest.Event) error {
					if got = append(got, e.Subject); e.Subject == fmt.Sprintf("g%03d", n-1) {
						return errDone
					}
					return nil
				}, func() error { return nil })
				if !errors.Is(err, errDone) {
					t.Error(err)
				}
				if len(got) != n || !slices.IsSorted(got) {
					t.Errorf("%d events: %v", len(got), got)
				}
			})
			time.Sleep(20 * time.Millisecond)
		}
		wg.Wait()
	})
}

var errDone = errors.New("done")

// TestHistory: versions, differences and the way back (P5).
func TestHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		g := ok(r.AddGroup(ctx, root, rest.NewGroup{Name: "staff"}))(t)
		p := ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "strict", Groups: []string{"staff"}, Settings: json.RawMessage(`{"window": "0s"}`), Comment: "first"}))(t)
		c.Advance(time.Hour)
		ok(r.ChangePolicy(ctx, root, "strict", 0, rest.PolicyChange{
			Name: ptr("stricter"), Priority: ptr(int64(7)), Groups: &[]string{}, Settings: json.RawMessage(`{"scopes": ["remote"], "factors_online": 2}`), Comment: "audit",
		}))(t)
		h := ok(r.PolicyHistory(ctx, root, p.ID, "", 0))(t).Items
		want := []rest.Difference{
			{Field: "name", Old: json.RawMessage(`"strict"`), New: json.RawMessage(`"stricter"`)},
			{Field: "priority", Old: json.RawMessage(`100`), New: json.RawMessage(`7`)},
			{Field: "groups", Old: json.RawMessage(`["staff"]`), New: json.RawMessage(`[]`)},
			{Field: "scopes", Old: json.RawMessage(`["logon","elevation","remote"]`), New: json.RawMessage(`["remote"]`)},
			{Field: "factors_online", Old: json.RawMessage(`1`), New: json.RawMessage(`2`)},
		}
		if len(h) != 2 || h[0].Version != 2 || h[0].Comment != "audit" || h[0].Actor != "root@local" || !h[0].At.Equal(start.Add(time.Hour)) {
			t.Fatalf("%+v", h)
		}
		if d := cmp.Diff(want, h[0].Changes); d != "" {
			t.Error(d)
		}
		back := ok(r.RollbackPolicy(ctx, root, "stricter", 0, rest.Rollback{Version: 1}))(t)
		if back.Version != 3 || back.Name != "stricter" || back.Priority != 100 || !slices.Equal(back.Groups, []string{"staff"}) || !strings.Contains(string(back.Settings), `"window":"0s"`) {
			t.Errorf("%+v", back)
		}
		// A group that is gone can not come back with a version.
		must(t, r.RemoveGroup(ctx, root, g.Name, 0))
		ok(r.ChangePolicy(ctx, root, "stricter", 0, rest.PolicyChange{Priority: ptr(int64(9))}))(t)
		back = ok(r.RollbackPolicy(ctx, root, "stricter", 0, rest.Rollback{Version: 1}))(t)
		if len(back.Groups) != 0 {
			t.Errorf("groups %v", back.Groups)
		}
		h = ok(r.PolicyHistory(ctx, root, p.ID, "", 0))(t).Items
		if last := h[len(h)-1]; len(last.Groups) != 1 || !strings.HasPrefix(last.Groups[0], rest.GroupPrefix) {
			t.Errorf("a removed group is shown by its id: %v", last.Groups)
		}
		// Going back to where it is changes nothing.
		again := ok(r.RollbackPolicy(ctx, root, "stricter", 0, rest.Rollback{Version: back.Version}))(t)
		if again.Version != back.Version {
			t.Errorf("version %d after %d", again.Version, back.Version)
		}
	})
}

// TestDismissedMachinesStayAway: nothing leads back from revoked and lost.
func TestDismissedMachinesStayAway(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		r.Machine(t, "laptop", rest.MachineActive)
		ok(r.RevokeMachine(ctx, root, "laptop", rest.Why{Reason: "sold"}))(t)
		_, err := r.ChangeMachine(ctx, root, "laptop", 0, rest.MachineChange{Status: ptr(rest.MachineActive)})
		wantCode(t, err, fault.Conflict)
		_, err = r.RevokeMachine(ctx, root, "laptop", rest.Why{})
		wantCode(t, err, fault.Conflict)
		ok(r.LoseMachine(ctx, root, "laptop", rest.Why{}))(t)
		_, err = r.RevokeMachine(ctx, root, "laptop", rest.Why{})
		wantCode(t, err, fault.Conflict)
		must(t, r.RemoveMachine(ctx, root, "laptop", 0))
	})
}

// TestSecretsAreNotInEvents: what is shown once stands nowhere else.
func TestSecretsAreNotInEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		ok(r.AddUser(ctx, root, rest.NewUser{Name: "anna", Password: rest.HideText("correct horse battery")}))(t)
		totp := ok(r.AddTOTP(ctx, root, "anna", rest.NewTOTP{}))(t)
		backup := ok(r.AddBackup(ctx, root, "anna"))(t)
		enrol := ok(r.IssueEnrolCode(ctx, root, "anna", rest.NewEnrolCode{}))(t)
		bypass := ok(r.IssueBypassCode(ctx, root, "anna", rest.NewBypassCode{Reason: "r"}))(t)
		token := ok(r.IssueToken(ctx, root, rest.NewToken{}))(t)
		secrets := []string{"correct horse battery", totp.Key.Show(), enrol.Code.Show(), bypass.Code.Show(), token.Token.Show()}
		for _, c := range backup.Codes {
			secrets = append(secrets, c.Show())
		}
		page := ok(r.ListEvents(ctx, root, desk.EventFilter{}, "", 100))(t)
		all, err := json.Marshal(page)
		must(t, err)
		tokens, err := json.Marshal(ok(r.ListTokens(ctx, root, "", 0))(t))
		must(t, err)
		factors, err := json.Marshal(ok(r.ListFactors(ctx, root, "anna"))(t))
		must(t, err)
		for _, s := range secrets {
			if s == "" || strings.Contains(string(all)+string(tokens)+string(factors), s) {
				t.Errorf("%q is empty, or stands in an event or a list", s)
			}
		}
		if len(page.Items) != 6 {
			t.Errorf("%d events", len(page.Items))
		}
		for _, x := range []any{totp, backup, enrol, bypass, token, rest.HideText("x")} {
			if s := fmt.Sprintf("%v %+v %#v", x, x, x); strings.Contains(s, "otpauth") || strings.Contains(s, enrol.Code.Show()) {
				t.Errorf("printed: %s", s)
			}
		}
	})
}

func TestPasswordsAreJudged(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		for name, pw := range map[string]string{"short": "abc", "the user's name": "my name is annabella", "long": strings.Repeat("x", 300), "one letter": strings.Repeat("x", 30)} {
			_, err := r.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: "annabella", Mail: "nowhere", Password: rest.Hide(secret.FromString(pw))})
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", name, err)
			}
			_, err = r.AddUser(t.Context(), desk.Root(), rest.NewUser{Name: "annabella", Password: rest.Hide(secret.FromString(pw))})
			var f *fault.Fault
			if !errors.As(err, &f) || len(f.Fields) != 1 || f.Fields[0].Name != "password" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n := len(ok(r.ListUsers(t.Context(), desk.Root(), desk.UserFilter{}, "", 0))(t).Items); n != 0 {
			t.Errorf("%d users were added", n)
		}
	})
}

// TestOfflineReportStates: data that is there and yet useless is told apart.
func TestOfflineReportStates(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		m := r.Machine(t, "laptop", rest.MachineActive)
		until := clock.Micros(c.Now().Add(60 * time.Hour))
		states := func() map[string]string {
			out := map[string]string{}
			for _, e := range ok(r.ListOffline(ctx, root, desk.OfflineFilter{User: "", Machine: "laptop"}, "", 0))(t).Items {
				out[e.User] = e.State
			}
			return out
		}
		for name, uses := range map[string]int64{"fresh": 5, "empty": 0, "changed": 5, "wiped": 5} {
			u := addUser(t, r, name, "")
			r.Vault(t, id(u.ID), m.ID, "software", until, uses)
		}
		ok(r.AddBackup(ctx, root, "changed"))(t)
		ok(r.Disenrol(ctx, root, rest.Pairs{User: "wiped"}))(t)
		want := map[string]string{"fresh": "active", "empty": "used up", "changed": "outdated", "wiped": "disenrolling"}
		if d := cmp.Diff(want, states()); d != "" {
			t.Error(d)
		}
		if e := ok(r.ListOffline(ctx, root, desk.OfflineFilter{User: "fresh", Machine: ""}, "", 0))(t).Items[0]; e.DaysLeft != 2.5 || e.SigninsLeft != 5 {
			t.Errorf("%+v", e)
		}
		c.Advance(61 * time.Hour)
		if got := states()["fresh"]; got != "expired" {
			t.Errorf("after the days: %s", got)
		}
		// Paging by three fields.
		var got []string
		after := ""
		for {
			p := ok(r.ListOffline(ctx, root, desk.OfflineFilter{}, after, 1))(t)
			for _, e := range p.Items {
				got = append(got, e.User)
			}
			if after = p.Next; after == "" {
				break
			}
		}
		if len(got) != 4 {
			t.Errorf("paged: %v", got)
		}
	})
}

// TestStuck is O16: who could not sign in on a plane today, and why.
func TestStuck(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		laptop := r.Machine(t, "laptop", rest.MachineActive)
		r.Machine(t, "tablet", rest.MachineActive)
		until := clock.Micros(c.Now().Add(60 * time.Hour))
		var fine rest.User
		for _, name := range []string{"fine", "empty", "changed", "disabled", "unknown-there"} {
			u := addUser(t, r, name, "")
			if name == "fine" {
				fine = u
			}
			ok(r.AddTOTP(ctx, root, name, rest.NewTOTP{}))(t)
			if name != "unknown-there" {
				uses := int64(5)
				if name == "empty" {
					uses = 0
				}
				r.Vault(t, id(u.ID), laptop.ID, "software", until, uses)
			}
		}
		ok(r.AddBackup(ctx, root, "changed"))(t)
		ok(r.ChangeUser(ctx, root, "disabled", 0, rest.UserChange{Disabled: ptr(true)}))(t)
		ok(r.ChangeMachine(ctx, root, "tablet", 0, rest.MachineChange{AddUsers: []string{"fine"}}))(t)
		stuck := func(user, machine string) map[string]string {
			out := map[string]string{}
			after := ""
			for {
				p := ok(r.ListStuck(ctx, root, user, machine, after, 1))(t)
				for _, s := range p.Items {
					out[s.User+" on "+s.Machine] = s.Reason
				}
				if after = p.Next; after == "" {
					return out
				}
			}
		}
		want := map[string]string{
			"empty on laptop": "offline-signins-used-up", "changed on laptop": "offline-data-outdated", "disabled on laptop": "user-disabled",
			"fine on tablet": "offline-not-enrolled",
		}
		if d := cmp.Diff(want, stuck("", "")); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(map[string]string{"fine on tablet": "offline-not-enrolled"}, stuck("fine", "")); d != "" {
			t.Error(d)
		}
		// Whom no active machine knows is stuck everywhere, and stands in no machine's list.
		nowhere := map[string]string{"unknown-there on ": "known-on-no-machine"}
		if d := cmp.Diff(nowhere, stuck("unknown-there", "")); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(map[string]string{"fine on ": "known-on-no-machine"}, stuck("fine", r.Machine(t, "new", rest.MachineActive).Name)); d != "" {
			t.Error(d)
		}
		if got := stuck("", "laptop"); len(got) != 3 {
			t.Errorf("%v", got)
		}
		// What the machine has told of wrong tries is known here, too.
		for _, x := range []struct {
			tries  int64
			shut   string
			reason string
			state  string
			left   int64
			notes  int
		}{
			{3, "", "", "active", 7, 1},
			{3, "offline-remote-tries-used-up", "", "shut remotely", 7, 2},
			{10, "", "offline-tries-used-up", "shut", 0, 2},
			{0, "offline-checks-used-up", "offline-checks-used-up", "shut", 10, 2},
			{0, "", "", "active", 10, 1},
		} {
			must(t, r.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
				v, err := tx.GetActiveVault(ctx, db.GetActiveVaultParams{UserID: id(fine.ID), MachineID: laptop.ID})
				if err != nil {
					return err
				}
				n, err := tx.CountVault(ctx, db.CountVaultParams{
					UserID: v.UserID, MachineID: v.MachineID, Generation: v.Generation, CountedFrom: v.CountedFrom, Used: v.Used, Tries: x.tries, Shut: x.shut,
				})
				if n != 1 {
					t.Errorf("%d rows", n)
				}
				return err
			}))
			if got := stuck("fine", "laptop")["fine on laptop"]; got != x.reason {
				t.Errorf("%+v: stuck for %q", x, got)
			}
			row := ok(r.ListOffline(ctx, root, desk.OfflineFilter{User: "fine", Machine: "laptop"}, "", 0))(t).Items[0]
			if row.State != x.state || row.TriesLeft != x.left {
				t.Errorf("%+v: %+v", x, row)
			}
			e := ok(r.Explain(ctx, root, rest.Explain{User: "fine", Machine: "laptop", Scope: "logon", Offline: true}))(t)
			if len(e.Notes) != x.notes || x.notes > 1 && !strings.Contains(e.Notes[1], "latchkey offline lift --user fine --machine laptop") {
				t.Errorf("%+v: %q", x, e.Notes)
			}
		}
		c.Advance(61 * time.Hour)
		if got := stuck("fine", "laptop"); got["fine on laptop"] != "offline-days-used-up" {
			t.Errorf("after the days: %v", got)
		}
		ok(r.ChangePolicy(ctx, root, "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"offline": "bypass"}`)}))(t)
		if got := stuck("", ""); len(got) != 1 || got["disabled on laptop"] != "user-disabled" {
			t.Errorf("with bypass: %v", got)
		}
	})
}

// TestChangedFactorsEndWindows: machines wipe the offline data made with the old
// factors, so the next sign-in must ask again, or the new would not be made (O5).
func TestChangedFactorsEndWindows(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx, root := t.Context(), desk.Root()
		m := r.Machine(t, "near", rest.MachineActive)
		anna := addUser(t, r, "anna", "")
		var totp rest.TOTP
		for _, change := range []struct {
			name string
			do   func() error
		}{
			{"a new authenticator", func() (err error) { totp, err = r.AddTOTP(ctx, root, "anna", rest.NewTOTP{}); return err }},
			{"new backup codes", func() error { return second(r.AddBackup(ctx, root, "anna")) }},
			{"removed backup codes", func() error { return second(r.RemoveFactor(ctx, root, "anna", "backup")) }},
			{"a lost authenticator", func() error { return second(r.LoseFactor(ctx, root, "anna", totp.Factor.ID)) }},
		} {
			r.Window(t, id(anna.ID), m.ID, "b", clock.Micros(c.Now().Add(time.Hour)))
			if err := change.do(); err != nil {
				t.Fatal(change.name, err)
			}
			left := ok(r.ListWindows(ctx, root, "anna", "", "", 0))(t)
			if len(left.Items) != 0 {
				t.Errorf("%s leaves %d windows open", change.name, len(left.Items))
			}
		}
	})
}
