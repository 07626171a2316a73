package desk_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
)

// The people of these tests, who need no account of their own.
var (
	adam = desk.Actor{Name: "adam", UserID: "adam-id", Role: rest.RoleAdministrator}
	otto = desk.Actor{Name: "otto", UserID: "otto-id", Role: rest.RoleOwner}
	olga = desk.Actor{Name: "olga", UserID: "olga-id", Role: rest.RoleOwner}
)

// approved is the actor with olga's approval about the user.
func approved(a desk.Actor, u rest.User) desk.Actor {
	a.Approver, a.ApprovedFor = &olga, id(u.ID)
	return a
}

// TestNobodyShutsAnEqualOut: every field of an account but its displayed name can shut
// somebody out or help to get in as them (E3).
func TestNobodyShutsAnEqualOut(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		boss, peer, low := addUser(t, r, "boss", rest.RoleOwner), addUser(t, r, "peer", rest.RoleAdministrator), addUser(t, r, "low", rest.RoleHelpDesk)
		at, late, mail, yes, uid, on, shown := rest.ActivateAt, time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC), "evil@corp.example", true, int64(1000), rest.MFAOn, "The Boss"
		for name, in := range map[string]rest.UserChange{
			"activation": {Activation: &at, ActivateAt: &late}, "activate_at": {ActivateAt: &late}, "mail": {Mail: &mail},
			"must_change": {MustChange: &yes}, "uid": {UID: &uid}, "mfa": {MFA: &on}, "disabled": {Disabled: &yes},
		} {
			for _, u := range []rest.User{boss, peer} {
				if _, err := r.ChangeUser(ctx, adam, u.Name, 0, in); !fault.Is(err, fault.Forbidden) {
					t.Errorf("%s of %s by an administrator: %v", name, u.Name, err)
				}
			}
			if _, err := r.ChangeUser(ctx, otto, boss.Name, 0, in); !fault.Is(err, fault.Forbidden) {
				t.Errorf("%s of an owner by an owner alone: %v", name, err)
			}
			if _, err := r.ChangeUser(ctx, adam, low.Name, 0, in); err != nil {
				t.Errorf("%s of a help desk by an administrator: %v", name, err)
			}
		}
		ok(r.ChangeUser(ctx, adam, boss.Name, 0, rest.UserChange{DisplayName: &shown}))(t)
		ok(r.ChangeUser(ctx, approved(otto, boss), boss.Name, 0, rest.UserChange{Mail: &mail}))(t)
		ok(r.ChangeUser(ctx, desk.Root(), boss.Name, 0, rest.UserChange{ActivateAt: &late}))(t)
	})
}

// TestNobodyUnlocksAnEqual: whoever lifts locks again and again guesses codes without
// end.
func TestNobodyUnlocksAnEqual(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		boss, low := addUser(t, r, "boss", rest.RoleOwner), addUser(t, r, "low", "")
		peer := addUser(t, r, "peer", rest.RoleHelpDesk)
		hilda := desk.Actor{Name: "hilda", UserID: "hilda-id", Role: rest.RoleHelpDesk}
		for who, u := range map[*desk.Actor]rest.User{&hilda: boss, &adam: boss, &otto: boss} {
			_, err := r.Unlock(ctx, *who, u.Name)
			if !fault.Is(err, fault.Forbidden) {
				t.Errorf("an owner unlocked by %s: %v", who.Name, err)
			}
		}
		_, err := r.Unlock(ctx, hilda, peer.Name)
		wantCode(t, err, fault.Forbidden)
		ok(r.Unlock(ctx, hilda, low.Name))(t)
		ok(r.Unlock(ctx, adam, peer.Name))(t)
		ok(r.Unlock(ctx, desk.Root(), boss.Name))(t)
		ok(r.Unlock(ctx, approved(otto, boss), boss.Name))(t)
	})
}

// TestATokenNeitherGivesRolesNorTouchesWhoeverHasOne: a token that may change things
// would otherwise make its holder an owner.
func TestATokenNeitherGivesRolesNorTouchesWhoeverHasOne(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		token := func(scopes ...string) desk.Actor {
			a := otto
			a.Token, a.Scopes = true, scopes
			return a
		}
		low, mid := addUser(t, r, "low", ""), addUser(t, r, "mid", rest.RoleAuditor)
		for i, role := range rest.Roles {
			err := func(a desk.Actor, name string) error {
				_, err := r.AddUser(ctx, a, rest.NewUser{Name: name, Role: role})
				return err
			}
			got := err(token("read", "helpdesk", "change"), "added-"+role)
			if forbidden := fault.Is(got, fault.Forbidden); forbidden != (role != rest.RoleNone) || !forbidden && got != nil {
				t.Errorf("a token with the scope change adds a user of the role %s: %v", role, got)
			}
			if i < len(rest.Roles)-1 {
				must(t, err(token(desk.Scopes...), "owned-"+role))
			}
			if role == rest.RoleNone {
				continue
			}
			_, got = r.ChangeUser(ctx, token("change"), low.Name, 0, rest.UserChange{Role: &role})
			if !fault.Is(got, fault.Forbidden) {
				t.Errorf("a token with the scope change raises somebody to %s: %v", role, got)
			}
		}
		err := r.SetPassword(ctx, token("change"), mid.Name, rest.NewPassword{Password: rest.Hide(desktest.Password())})
		wantCode(t, err, fault.Forbidden)
		must(t, r.SetPassword(ctx, token("change"), low.Name, rest.NewPassword{Password: rest.Hide(desktest.Password())}))
		must(t, r.SetPassword(ctx, token("change", "own"), mid.Name, rest.NewPassword{Password: rest.Hide(desktest.Password())}))
		if token("change").Above(rest.RoleAuditor) || !token("change").Above(rest.RoleNone) || !token(slices.Clone(desk.Scopes)...).Above(rest.RoleAuditor) {
			t.Error("an import by a token is not bounded as single changes are")
		}
	})
}

// TestALiftForAllLeavesEqualsOut: what is refused for one is not done for all (E3).
func TestALiftForAllLeavesEqualsOut(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		m := r.Machine(t, "laptop", rest.MachineActive)
		until := clock.Micros(c.Now().Add(24 * time.Hour))
		for _, role := range rest.Roles {
			r.Vault(t, id(addUser(t, r, "a-"+role, role).ID), m.ID, "software", until, 5)
		}
		token := otto
		token.Token, token.Scopes = true, []string{"change"}
		lifted := func() (out []string) {
			for _, e := range ok(r.ListOffline(ctx, desk.Root(), desk.OfflineFilter{}, "", 0))(t).Items {
				if e.LiftWanted {
					out = append(out, e.User)
				}
			}
			slices.Sort(out)
			return out
		}
		for _, x := range []struct {
			who  desk.Actor
			in   rest.Pairs
			left int
			all  []string // lifted by then
		}{
			{token, rest.Pairs{All: true}, 4, []string{"a-none"}},
			{adam, rest.Pairs{Machine: m.Name}, 2, []string{"a-auditor", "a-helpdesk", "a-none"}},
			{otto, rest.Pairs{All: true}, 1, []string{"a-administrator", "a-auditor", "a-helpdesk", "a-none"}},
		} {
			got := ok(r.Lift(ctx, x.who, x.in))(t)
			if now := lifted(); got.Count != 5-x.left || got.LeftOut != x.left || !slices.Equal(now, x.all) {
				t.Errorf("%s lifts %+v: %+v, lifted %v; want %d left out, %v", x.who.Name, x.in, got, now, x.left, x.all)
			}
		}
		_, err := r.Lift(ctx, otto, rest.Pairs{User: "a-owner"})
		wantCode(t, err, fault.Forbidden)
	})
}

// TestPoliciesAndGroupsDoNotWeakenEquals: what E3 refuses for an account is not done
// through the policies and groups that reach it, the actor's own account included.
func TestPoliciesAndGroupsDoNotWeakenEquals(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		root := desk.Root()
		me := addUser(t, r, "adam", rest.RoleAdministrator)
		admin := desk.Actor{Name: me.Name, UserID: id(me.ID), Role: rest.RoleAdministrator}
		boss := addUser(t, r, "boss", rest.RoleOwner)
		addUser(t, r, "low", "")
		for _, g := range []string{"chiefs", "admins", "staff", "lax"} {
			ok(r.AddGroup(ctx, root, rest.NewGroup{Name: g}))(t)
		}
		ok(r.AddMember(ctx, root, "chiefs", boss.Name))(t)
		ok(r.AddMember(ctx, root, "admins", me.Name))(t)
		ok(r.AddMember(ctx, root, "staff", "low"))(t)
		strict := json.RawMessage(`{"window":"0s","factors_online":1}`)
		first, next := int64(10), int64(20)
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "strict", Priority: &first, Groups: []string{"chiefs"}, Settings: json.RawMessage(`{"window":"1h"}`)}))(t)
		ok(r.ChangePolicy(ctx, root, "strict", 0, rest.PolicyChange{Settings: strict}))(t)
		ok(r.AddPolicy(ctx, root, rest.NewPolicy{Name: "lax", Priority: &next, Groups: []string{"lax"}, Settings: json.RawMessage(`{"scopes":[]}`)}))(t)
		last := int64(1000)
		zero := int64(1)
		chiefs := []string{"chiefs"}
		both := []string{"lax", "chiefs"}
		ways := map[string]func(a desk.Actor) error{
			"a new policy for owners": func(a desk.Actor) error {
				return second(r.AddPolicy(ctx, a, rest.NewPolicy{Name: "none", Priority: &zero, Groups: chiefs, Settings: json.RawMessage(`{"factors_online":0}`)}))
			},
			"a new policy for himself": func(a desk.Actor) error {
				return second(r.AddPolicy(ctx, a, rest.NewPolicy{Name: "mine", Priority: &zero, Groups: []string{"admins"}, Settings: json.RawMessage(`{"exempt_uids":[1000]}`)}))
			},
			"scopes": func(a desk.Actor) error {
				return second(r.ChangePolicy(ctx, a, "strict", 0, rest.PolicyChange{Settings: json.RawMessage(`{"scopes":["logon"]}`)}))
			},
			"the default": func(a desk.Actor) error {
				return second(r.ChangePolicy(ctx, a, "default", 0, rest.PolicyChange{Settings: json.RawMessage(`{"offline":"bypass"}`)}))
			},
			"report only": func(a desk.Actor) error {
				return second(r.ChangePolicy(ctx, a, "strict", 0, rest.PolicyChange{Settings: json.RawMessage(`{"report_only":true}`)}))
			},
			"other groups": func(a desk.Actor) error {
				return second(r.ChangePolicy(ctx, a, "strict", 0, rest.PolicyChange{Groups: &[]string{}}))
			},
			"the lax policy for owners": func(a desk.Actor) error {
				return second(r.ChangePolicy(ctx, a, "lax", 0, rest.PolicyChange{Priority: &zero, Groups: &both}))
			},
			"an older version": func(a desk.Actor) error {
				return second(r.RollbackPolicy(ctx, a, "strict", 0, rest.Rollback{Version: 1}))
			},
			"removing the policy": func(a desk.Actor) error { return r.RemovePolicy(ctx, a, "strict", 0, 0) },
			"into a lax group":    func(a desk.Actor) error { return second(r.AddMember(ctx, a, "lax", me.Name)) },
			"out of a strict one": func(a desk.Actor) error { return second(r.RemoveMember(ctx, a, "chiefs", boss.Name)) },
			"removing the group":  func(a desk.Actor) error { return r.RemoveGroup(ctx, a, "chiefs", 0) },
		}
		before := ok(r.ListEvents(ctx, root, desk.EventFilter{}, "", 500))(t)
		for name, way := range ways {
			err := way(admin)
			if !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "boss (owner)") && !strings.Contains(err.Error(), "adam (administrator)") {
				t.Errorf("%s by an administrator: %v", name, err)
			}
		}
		if after := ok(r.ListEvents(ctx, root, desk.EventFilter{}, "", 500))(t); len(after.Items) != len(before.Items) {
			t.Error("what was refused has left events")
		}
		// Stricter, or for others: that is an administrator's work.
		ok(r.ChangePolicy(ctx, admin, "strict", 0, rest.PolicyChange{Priority: &last, Settings: json.RawMessage(`{"lockout_after":5}`)}))(t)
		ok(r.ChangePolicy(ctx, admin, "strict", 0, rest.PolicyChange{Priority: &first}))(t)
		ok(r.AddPolicy(ctx, admin, rest.NewPolicy{Name: "staff", Groups: []string{"staff"}, Settings: json.RawMessage(`{"scopes":[]}`)}))(t)
		ok(r.AddMember(ctx, admin, "lax", "low"))(t)
		// An owner may, and it is an alert that names them.
		must(t, ways["scopes"](otto))
		e := ok(r.ListEvents(ctx, root, desk.EventFilter{Types: []string{string(event.PolicyChanged)}}, "", 1))(t).Items[0]
		if !strings.Contains(string(e.Data), `"severity":"alert"`) || !strings.Contains(string(e.Data), `"boss (owner): scopes"`) {
			t.Errorf("the event of an owner who weakens owners: %s", e.Data)
		}
	})
}

// TestMachinesOfEqualsKeepTheirMFA is E3 by way of the machine: its owner before and
// after a change, and whoever is assigned to it by name.
func TestMachinesOfEqualsKeepTheirMFA(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		boss, low := addUser(t, r, "boss", rest.RoleOwner), addUser(t, r, "low", "")
		m, free := r.Machine(t, "laptop", rest.MachineActive), r.Machine(t, "free", rest.MachineActive)
		desk1 := r.Machine(t, "desk-1", rest.MachineActive)
		ok(r.ChangeMachine(ctx, desk.Root(), m.Name, 0, rest.MachineChange{Owner: &boss.Name}))(t)
		ok(r.ChangeMachine(ctx, desk.Root(), desk1.Name, 0, rest.MachineChange{AddUsers: []string{boss.Name}}))(t)
		exempt, skip, nobody, enforced := "exempt", "skip", "", "enforced"
		for name, x := range map[string]struct {
			machine string
			in      rest.MachineChange
			owners  bool // refused to an owner alone too
		}{
			"exempt and owned by another in one request": {m.Name, rest.MachineChange{Mode: &exempt, Owner: &low.Name}, true},
			"exempt and owned by nobody":                 {m.Name, rest.MachineChange{Mode: &exempt, Owner: &nobody}, true},
			"owned by another":                           {m.Name, rest.MachineChange{Owner: &low.Name}, true},
			"owned by nobody":                            {m.Name, rest.MachineChange{Owner: &nobody}, true},
			"unknown users":                              {m.Name, rest.MachineChange{UnknownUsers: &skip}, true},
			"enforced":                                   {m.Name, rest.MachineChange{Mode: &enforced}, false},
			"given to an owner":                          {free.Name, rest.MachineChange{Owner: &boss.Name}, false},
			"exempt with an owner on its list":           {desk1.Name, rest.MachineChange{Mode: &exempt}, true},
			"exempt, and off its list":                   {desk1.Name, rest.MachineChange{Mode: &exempt, RemoveUsers: []string{boss.Name}}, true},
			"exempt, and onto its list":                  {free.Name, rest.MachineChange{Mode: &exempt, AddUsers: []string{boss.Name}}, true},
		} {
			if _, err := r.ChangeMachine(ctx, adam, x.machine, 0, x.in); !fault.Is(err, fault.Forbidden) {
				t.Errorf("%s by an administrator: %v", name, err)
			}
			if !x.owners {
				continue
			}
			if _, err := r.ChangeMachine(ctx, otto, x.machine, 0, x.in); !fault.Is(err, fault.Forbidden) {
				t.Errorf("%s by an owner alone: %v", name, err)
			}
		}
		ok(r.ChangeMachine(ctx, adam, free.Name, 0, rest.MachineChange{Mode: &exempt, Owner: &low.Name, AddUsers: []string{low.Name}}))(t)
		_, err := r.ChangeMachine(ctx, adam, free.Name, 0, rest.MachineChange{Owner: &boss.Name})
		wantCode(t, err, fault.Forbidden)
		_, err = r.ChangeMachine(ctx, adam, free.Name, 0, rest.MachineChange{AddUsers: []string{boss.Name}})
		wantCode(t, err, fault.Forbidden)
		ok(r.ChangeMachine(ctx, approved(otto, boss), m.Name, 0, rest.MachineChange{Mode: &exempt, Owner: &nobody}))(t)
	})
}

// TestNobodyRenamesAnEqualsMachine: the phone of whoever is asked shows the machine's name.
func TestNobodyRenamesAnEqualsMachine(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, _ *clock.Manual) {
		ctx := t.Context()
		boss, low := addUser(t, r, "boss", rest.RoleOwner), addUser(t, r, "low", "")
		eve, self := addUser(t, r, "eve", rest.RoleAdministrator), addUser(t, r, "self", rest.RoleAdministrator)
		me := desk.Actor{Name: self.Name, UserID: id(self.ID), Role: rest.RoleAdministrator}
		token := me
		token.Token, token.Scopes = true, desk.Scopes
		names := 0
		rename := func(a desk.Actor, machine string) error {
			names++
			name := fmt.Sprintf("renamed-%d", names)
			_, err := r.ChangeMachine(ctx, a, machine, 0, rest.MachineChange{Name: &name})
			return err
		}
		add := func(name string, in rest.MachineChange) string {
			m := r.Machine(t, name, rest.MachineActive)
			ok(r.ChangeMachine(ctx, desk.Root(), m.Name, 0, in))(t)
			return rest.MachinePrefix + m.ID
		}
		for _, x := range []struct {
			name      string
			machine   string
			by        desk.Actor
			forbidden bool
		}{
			{"an owner's, by an administrator", add("a", rest.MachineChange{Owner: &boss.Name}), me, true},
			{"another administrator's, by one", add("b", rest.MachineChange{Owner: &eve.Name}), me, true},
			{"another administrator's, by an owner", add("c", rest.MachineChange{Owner: &eve.Name}), otto, false},
			{"an owner's, by another alone", add("d", rest.MachineChange{Owner: &boss.Name}), otto, true},
			{"an owner's, by another with an approval", add("e", rest.MachineChange{Owner: &boss.Name}), approved(otto, boss), false},
			{"an owner's, by root", add("f", rest.MachineChange{Owner: &boss.Name}), desk.Root(), false},
			{"one with an owner on its list, by an administrator", add("g", rest.MachineChange{AddUsers: []string{low.Name, boss.Name}}), me, true},
			{"one with an owner on its list, by another", add("h", rest.MachineChange{AddUsers: []string{low.Name, boss.Name}}), otto, false},
			{"one's own", add("i", rest.MachineChange{Owner: &self.Name, AddUsers: []string{self.Name}}), me, false},
			{"one's own, by a program", add("j", rest.MachineChange{Owner: &self.Name}), token, true},
			{"one of somebody without a role", add("k", rest.MachineChange{Owner: &low.Name, AddUsers: []string{low.Name}}), me, false},
			{"nobody's", add("l", rest.MachineChange{}), token, false},
		} {
			if err := rename(x.by, x.machine); fault.Is(err, fault.Forbidden) != x.forbidden || err != nil && !x.forbidden {
				t.Errorf("%s: %v", x.name, err)
			}
		}
	})
}

// TestANewOwnerNeedsAnother: an owner alone could otherwise be requester, approver and
// subject in one person.
func TestANewOwnerNeedsAnother(t *testing.T) {
	onBoth(t, func(t *testing.T, r *desktest.Rig, c *clock.Manual) {
		ctx := t.Context()
		first, low := addUser(t, r, "first", rest.RoleOwner), addUser(t, r, "low", "")
		alone := desk.Actor{Name: first.Name, UserID: id(first.ID), Role: rest.RoleOwner}
		role, at, late := rest.RoleOwner, rest.ActivateAt, c.Now().Add(time.Hour)
		ok(r.AddUser(ctx, desk.Root(), rest.NewUser{Name: "later", Role: rest.RoleOwner, Activation: at, ActivateAt: late}))(t)
		// The only one makes the second; one who is not active yet does not count.
		second := ok(r.ChangeUser(ctx, alone, low.Name, 0, rest.UserChange{Role: &role}))(t)
		// From then on it takes both.
		third := addUser(t, r, "third", rest.RoleAdministrator)
		_, err := r.AddUser(ctx, alone, rest.NewUser{Name: "new", Role: rest.RoleOwner})
		wantCode(t, err, fault.Forbidden)
		_, err = r.ChangeUser(ctx, alone, third.Name, 0, rest.UserChange{Role: &role})
		wantCode(t, err, fault.Forbidden)
		with := alone
		with.Approver, with.ApprovedFor = &desk.Actor{Name: second.Name, UserID: id(second.ID), Role: rest.RoleOwner}, id(third.ID)
		ok(r.ChangeUser(ctx, with, third.Name, 0, rest.UserChange{Role: &role}))(t)
		ok(r.AddUser(ctx, desk.Root(), rest.NewUser{Name: "by-root", Role: rest.RoleOwner}))(t)
		// Events tell root by the name alone.
		_, err = r.AddUser(ctx, alone, rest.NewUser{Name: "Root@local"})
		wantCode(t, err, fault.Invalid)
	})
}
