package store_test

import (
	"cmp"
	"fmt"

	"latchkey/internal/server/store/db"
)

func init() { scripts = append(scripts, runLists) }

// runLists asks the questions about many rows, with every filter.
func runLists(c *script) {
	for i, name := range []string{"List-B", "list-a", "list-c"} {
		c.do("InsertUser", db.InsertUserParams{
			ID: fmt.Sprintf("lu%d", i), Name: name, NameFold: []string{"list-b", "list-a", "list-c"}[i], Role: []string{"none", "none", "auditor"}[i],
			Activation: []string{"now", "at", "first-login"}[i], ActivateAt: []int64{0, 500, 0}[i], MFA: []string{"inherit", "off", "inherit"}[i],
			Disabled: false, CreatedAt: 1, UpdatedAt: 1,
		})
	}
	c.do("InsertGroup", db.InsertGroupParams{ID: "lg1", Name: "list-group", MFA: "on", CreatedAt: 1, UpdatedAt: 1})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "lg1", UserID: "lu0"})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "lg1", UserID: "lu2"})
	c.do("InsertPolicy", db.InsertPolicyParams{ID: "lp1", Name: "list-policy", Body: "{}", CreatedAt: 1, UpdatedAt: 1})
	c.do("AddPolicyGroup", db.AddPolicyGroupParams{PolicyID: "lp1", GroupID: "lg1"})
	for i := range 3 {
		c.do("InsertMachine", db.InsertMachineParams{
			ID: fmt.Sprintf("lm%d", i), Number: int64(9001 + i), Name: fmt.Sprintf("list-%d", i), Status: []string{"active", "active", "pending"}[i],
			Mode: []string{"normal", "exempt", "normal"}[i], UnknownUsers: "deny", OwnerUser: []string{"lu0", "", ""}[i], OS: []string{"Debian 13", "Windows 11", ""}[i],
			AgentVersion: []string{"1.0", "2.0", "1.0"}[i], TPMClass: []string{"tpm", "none", "none"}[i], TPMInfo: "{}", LastSeenAt: int64(10 * i), CreatedAt: 1, UpdatedAt: 1,
		})
	}
	c.want("1", "AddMachineUser", db.AddMachineUserParams{MachineID: "lm0", UserID: "lu1"})
	c.want("1", "AddMachineUser", db.AddMachineUserParams{MachineID: "lm2", UserID: "lu1"})
	c.want("1", "KnowUser", db.KnowUserParams{MachineID: "lm0", UserID: "lu1", Since: 1})
	c.want("1", "KnowUser", db.KnowUserParams{MachineID: "lm0", UserID: "lu0", Since: 1})
	c.want("1", "KnowUser", db.KnowUserParams{MachineID: "lm1", UserID: "lu2", Since: 1})
	c.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: "la1", UserID: "lu0", Kind: "totp", Params: "{}", ConfirmedAt: 5, CreatedAt: 5})
	c.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: "la2", UserID: "lu1", Kind: "totp", Params: "{}", CreatedAt: 5})
	c.do("InsertBackupCode", db.InsertBackupCodeParams{ID: "lb1", UserID: "lu0", SetID: "ls1", Hash: []byte("x"), CreatedAt: 5})
	c.do("InsertBypassCode", db.InsertBypassCodeParams{ID: "ly1", UserID: "lu2", Hash: []byte("x"), Reason: "r", CreatedAt: 5, ExpiresAt: 500, CreatedBy: "root@local"})
	for _, m := range []string{"", "lm0"} {
		c.do("CountAttempt", db.CountAttemptParams{UserID: "lu0", MachineID: m, At: 10})
		c.do("BlockAttempts", db.BlockAttemptsParams{UserID: "lu0", MachineID: m, LockedUntil: 1 << 51})
	}
	for i, m := range []string{"lm0", "lm1"} {
		c.do("InsertVault", db.InsertVaultParams{UserID: "lu0", MachineID: m, Generation: 1, State: "active", Class: []string{"tpm", "software"}[i], ExpiresAt: 900, UsesLeft: 5, CreatedAt: 6, UpdatedAt: 7})
	}

	// Who could be shut out, with the kinds that each could use.
	c.want(`[{"ID":"lu0","Name":"List-B","Fold":"list-b","Role":"none","MFA":"inherit","FIDO2":false,"Push":false,"TOTP":true,"Backup":true,"Mail":false,"SMS":false},`+
		`{"ID":"lu2","Name":"list-c","Fold":"list-c","Role":"auditor","MFA":"inherit","FIDO2":false,"Push":false,"TOTP":false,"Backup":false,"Mail":false,"SMS":false}]`,
		"People", []string{"lg1"}, int64(100))
	c.do("People", []string(nil), int64(100))
	c.want("[]", "People", []string{}, int64(100))
	c.do("Memberships", []string{"lg1"}, []string(nil))
	c.do("Memberships", []string{"lg1"}, []string{"lg1"})
	c.want("[]", "Memberships", []string{"lg1"}, []string{"nowhere"})
	c.do("GroupSwitches")

	users := []string{"lu0", "lu1", "lu2"}
	machines := []string{"lm0", "lm1", "lm2"}
	for _, f := range []db.UserFilter{
		{},
		{Role: "auditor"},
		{MFA: "off"},
		{GroupID: "lg1"},
		{GroupID: "lg1", Members: true},
		{State: "active"},
		{State: "disabled"},
		{State: "locked"},
		{State: "waiting"},
		{State: "unenrolled"},
		{AfterName: "list-a", AfterFold: "list-a"},
		{AfterName: "List-B", AfterFold: "list-b", State: "active"},
		{AfterName: "List-B", AfterFold: "list-b", Order: db.Order{Desc: true}},
		{Order: db.Order{By: "created"}},
		{AfterID: "lu0", Order: db.Order{By: "created"}},
		{AfterID: "lu2", Order: db.Order{By: "created", Desc: true}},
	} {
		f.Fold, f.At, f.N = "list-", 100, 10
		c.do("FindUsers", f)
	}
	c.do("FindUsers", db.UserFilter{Fold: "list-", N: 2})
	c.do("GroupsOfUsers", users)
	c.do("FactorsOfUsers", users, int64(100))
	c.do("FactorsOfUsers", users, int64(600))
	c.do("LocksOfUsers", users, int64(100))
	c.want("[]", "PushLockedOf", users)
	c.want("[]", "LocksOfUsers", users, int64(1<<52))
	c.want("[]", "GroupsOfUsers", []string{})
	c.do("FindLocks", db.LockFilter{At: 1 << 50, N: 1})
	c.do("FindLocks", db.LockFilter{At: 1 << 50, N: 5, AfterName: "List-B"})
	for _, f := range []db.MachineFilter{
		{},
		{Status: "pending"},
		{Mode: "exempt"},
		{OS: "WINDOWS"},
		{TPM: "tpm"},
		{Agents: []string{"1.0"}},
		{Agents: []string{}},
		{SeenBefore: 10},
		{OwnerID: "lu0"},
		{KnowsID: "lu0"},
		{KnowsID: "lu1"},
		{AfterID: "lm1"},
		{AfterID: "lm1", Order: db.Order{Desc: true}},
		{AfterID: "lm0", AfterName: "list-0", Order: db.Order{By: "name"}},
		{AfterID: "lm1", AfterName: "list-1", Order: db.Order{By: "name", Desc: true}},
		{AfterID: "lm0", Order: db.Order{By: "seen"}},
		{AfterID: "lm2", AfterSeen: 20, Order: db.Order{By: "seen", Desc: true}},
	} {
		f.Name, f.N = "list-", 10
		c.do("FindMachines", f)
	}
	c.do("FindMachines", db.MachineFilter{OnlyID: "lm0", N: 1})
	c.doUnordered("MachinesOf", machines)
	c.doUnordered("UsersOf", users)
	c.do("AgentVersions")
	c.do("UsersOfMachines", machines)
	for i, e := range []db.InsertEventParams{{MachineID: "lm0", At: 3}, {MachineID: "lm0", At: 7}, {MachineID: "lm0", At: 9, Type: "signin.denied"}, {MachineID: "lm1", At: 4}, {MachineID: "lm1", At: 8, UserID: "lu1"}} {
		e.Chain, e.Seq, e.ID, e.PrevHash, e.Hash = "lists", int64(i+1), fmt.Sprintf("le%d", i), []byte{0}, []byte{0}
		e.UserID, e.Type = cmp.Or(e.UserID, "lu0"), cmp.Or(e.Type, "signin.allowed")
		c.do("InsertEvent", e)
	}
	c.want(`[{"MachineID":"lm0","At":7},{"MachineID":"lm1","At":4}]`, "LastOfUser", "lu0", "signin.allowed", machines)
	c.want("[]", "LastOfUser", "lu2", "signin.allowed", machines)
	c.do("KnownPairs", db.PairFilter{MachineID: "lm0", N: 10})
	c.do("KnownPairs", db.PairFilter{MachineID: "lm0", N: 1})
	c.do("KnownPairs", db.PairFilter{AfterMachine: "lm0", AfterUser: "lu0", N: 2})
	c.do("KnownPairs", db.PairFilter{UserID: "lu1", N: 9})
	c.do("PoliciesOfGroup", "lg1")
	for _, f := range []db.GroupFilter{{}, {Order: db.Order{Desc: true}}, {AfterName: "list-group", Order: db.Order{Desc: true}}, {Order: db.Order{By: "created"}}, {AfterID: "lg1", Order: db.Order{By: "created", Desc: true}}} {
		f.N = 10
		c.do("FindGroups", f)
	}
	c.want("2", "SomeMembers", "lg1", int64(10))
	c.want("1", "SomeMembers", "lg1", int64(1))
	for _, f := range []db.VaultFilter{
		{UserID: "lu0"},
		{UserID: "lu0", Class: "tpm"},
		{MachineID: "lm1"},
		{UserID: "lu0", EndsBefore: 900},
		{AfterUser: "lu0", AfterMachine: "lm0", AfterGeneration: 1},
		{AfterUntil: 900, AfterUser: "lu0", AfterMachine: "lm0", AfterGeneration: 1, Order: db.Order{By: "until"}},
		{AfterUntil: 900, AfterUser: "lu0", AfterMachine: "lm1", AfterGeneration: 1, Order: db.Order{By: "until", Desc: true}},
	} {
		f.N = 10
		c.do("FindVaults", f)
	}
	// Nothing stays, so that it does not matter which part runs next.
	for _, m := range machines {
		c.do("DeleteVaultsOfMachine", m)
	}
	for _, u := range users {
		c.do("ClearAttemptsOfUser", u)
	}
}
