package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runDesk) }

// runDesk brings rows of its own, so that it does not matter which parts ran before.
func runDesk(c *script) {
	c.do("InsertUser", db.InsertUserParams{ID: "du1", Name: "desk-one", NameFold: "desk-one", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertUser", db.InsertUserParams{ID: "du2", Name: "desk-two", NameFold: "desk-two", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertGroup", db.InsertGroupParams{ID: "dg1", Name: "desk-group", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "dg1", UserID: "du1"})
	for i, id := range []string{"dm1", "dm2"} {
		c.do("InsertMachine", db.InsertMachineParams{
			ID: id, Number: int64(901 + i), Name: id, Status: []string{"active", "revoked"}[i], Mode: "normal", UnknownUsers: "deny",
			OwnerUser: "du1", TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1,
		})
	}
	c.want("1", "AddMachineUser", db.AddMachineUserParams{MachineID: "dm1", UserID: "du2"})
	c.do("InsertMachineCertificate", db.InsertMachineCertificateParams{Serial: "dc1", MachineID: "dm1", NotBefore: 1, NotAfter: 99, Fingerprint: "f"})
	c.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: "da1", UserID: "du1", Kind: "totp", Name: "phone", Params: "{}", ConfirmedAt: 5, CreatedAt: 5})
	c.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: "da2", UserID: "du1", Kind: "totp", Params: "{}", CreatedAt: 5})
	for _, id := range []string{"db1", "db2"} {
		c.do("InsertBackupCode", db.InsertBackupCodeParams{ID: id, UserID: "du1", SetID: "ds1", Hash: []byte(id), CreatedAt: 5})
	}
	c.do("InsertBypassCode", db.InsertBypassCodeParams{ID: "dy1", UserID: "du1", Hash: []byte("x"), Reason: "r", CreatedAt: 5, ExpiresAt: 500, CreatedBy: "root@local"})
	c.do("InsertEnrolCode", db.InsertEnrolCodeParams{ID: "de1", UserID: "du2", Hash: []byte("x"), CreatedAt: 5, ExpiresAt: 500, CreatedBy: "root@local"})
	c.do("CountAttempt", db.CountAttemptParams{UserID: "du1", MachineID: "dm1", At: 10})
	c.do("CountAttempt", db.CountAttemptParams{UserID: "du2", MachineID: "", At: 10})
	c.do("BlockAttempts", db.BlockAttemptsParams{UserID: "du1", MachineID: "dm1", LockedUntil: 1 << 50})
	c.do("BlockAttempts", db.BlockAttemptsParams{UserID: "du2", MachineID: "", BlockedUntil: 1 << 50})

	c.do("FindGroups", db.GroupFilter{AfterName: "desk", N: 1})
	c.want("1", "CountGroupMembers", "dg1")
	c.do("ListLocks", db.ListLocksParams{At: 1 << 49, N: 10, UserID: "du1"})
	c.do("ListLocks", db.ListLocksParams{At: 1 << 49, N: 10})
	c.do("CountLocked", int64(1<<49))

	for _, m := range []string{"dm1", "dm2"} {
		c.do("InsertVault", db.InsertVaultParams{UserID: "du1", MachineID: m, Generation: 1, State: "active", Class: "software", ExpiresAt: 900, UsesLeft: 5, CreatedAt: 6, UpdatedAt: 7})
	}
	c.do("CountMachinesKnowing", db.CountMachinesKnowingParams{UserID: "du1"})
	c.do("CountMachinesKnowing", db.CountMachinesKnowingParams{UserID: "du1", MachineID: "dm1"})
	c.do("CountVaultTrouble", int64(900))
	c.do("ListEnrolledOnMachine", db.ListEnrolledOnMachineParams{MachineID: "dm1", Since: 1 << 60})
	c.do("ListBackupSetsOnMachine", db.ListBackupSetsOnMachineParams{MachineID: "dm1", Since: 1 << 60})
	c.do("WipeVaultsOfMachine", db.WipeVaultsOfMachineParams{MachineID: "dm2", At: 20})
	c.want("[]", "ListEnrolledOnMachine", db.ListEnrolledOnMachineParams{MachineID: "dm2", Since: 21})
	c.do("ListEnrolledOnMachine", db.ListEnrolledOnMachineParams{MachineID: "dm2", Since: 20})
	c.do("ListBackupSetsOnMachine", db.ListBackupSetsOnMachineParams{MachineID: "dm2", Since: 20})
	c.doUnordered("WantLifts", db.WantLiftsParams{At: 8, UserID: "du1", Spared: 5})
	c.do("CountLiftsSpared", db.CountLiftsSparedParams{Spared: 0})
	c.want("0", "CountLiftsSpared", db.CountLiftsSparedParams{Spared: 5})
	c.want("[]", "WantLifts", db.WantLiftsParams{At: 8, Spared: 0})
	c.want("1", "SetAuthenticatorLost", "da1")
	c.want("0", "SetAuthenticatorLost", "da1")
	c.want("[]", "ListEnrolledOnMachine", db.ListEnrolledOnMachineParams{MachineID: "dm1", Since: 1 << 60})
	c.do("ListBackupCodes", "du1")
	c.want("1", "RaiseUserGeneration", "du1")
	c.want("1", "DeleteBypassCode", "dy1")
	c.want("1", "DeleteEnrolCode", "de1")
	c.want("1", "DeleteVaultsOfMachine", "dm2")
	c.want("1", "DeleteVaultsOfUser", "du1")
	c.want("0", "DeleteMachine", "dm1")
	c.want("1", "DeleteMachine", "dm2")
	c.do("ClearAttemptsOfUser", "du1")
	c.do("ClearAttemptsOfUser", "du2")
}
