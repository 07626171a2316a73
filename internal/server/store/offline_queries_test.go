package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runOffline) }

// runOffline brings rows of its own, so that it does not matter which parts ran before.
func runOffline(c *script) {
	for _, id := range []string{"ou1", "ou2", "ou3"} {
		c.do("InsertUser", db.InsertUserParams{ID: id, Name: id, NameFold: id, Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	}
	for i, id := range []string{"om1", "om2"} {
		c.do("InsertMachine", db.InsertMachineParams{ID: id, Number: int64(921 + i), Name: id, Status: "active", Mode: "normal", UnknownUsers: "deny", TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1})
	}
	c.want("1", "KnowUser", db.KnowUserParams{MachineID: "om1", UserID: "ou1", Since: 5})
	c.want("0", "KnowUser", db.KnowUserParams{MachineID: "om1", UserID: "ou1", Since: 6})
	c.do("AddMachineUser", db.AddMachineUserParams{MachineID: "om1", UserID: "ou2"})
	c.do("ListUsersForMachine", "om1")
	c.doUnordered("BumpMachinesKnowing", "ou1")
	c.doUnordered("BumpMachinesKnowing", "ou3")
	c.do("InsertBackupCode", db.InsertBackupCodeParams{ID: "ob1", UserID: "ou1", SetID: "s", Hash: []byte("h"), CreatedAt: 1})
	c.want("1", "SealBackupCode", db.SealBackupCodeParams{Sealed: []byte{0, 1}, ID: "ob1"})
	c.do("GetBackupCode", "ob1")
	c.want("1", "SetMachineFacts", db.SetMachineFactsParams{
		Hostname: "h", OS: "Debian", AgentVersion: "1", WireVersion: 1, TPMClass: "claimed", TPMInfo: "{}", AttestKey: []byte("a"), ParentPublic: []byte("p"),
		KeyInTPM: true, TPMProblem: "locked", VaultProblem: "", Boot: "b", Address: "192.0.2.1", At: 77, ID: "om1",
	})
	c.do("GetMachine", "om1")
	c.want("1", "CountSeenMachines", int64(77))
	c.want("0", "CountSeenMachines", int64(78))
	c.want("1", "MachineNameTaken", "om1")
	c.want("0", "MachineNameTaken", "om9")
	c.want("1", "RaiseMachineSerial", db.RaiseMachineSerialParams{Serial: 50, ID: "om1"})
	c.want("0", "RaiseMachineSerial", db.RaiseMachineSerialParams{Serial: 50, ID: "om1"})

	v := db.AllocateVaultParams{UserID: "ou3", MachineID: "om2", Generation: 1, Class: "tpm", Key: []byte("k"), FailHandle: 1, PassHandle: 2, FailLimit: 10, UseLimit: 50, LastMFAAt: 5, ExpiresAt: 99, UsesLeft: 1, FactorsDigest: "f", ParentDigest: "p", Conversation: "c", CreatedAt: 5, UpdatedAt: 5}
	c.do("AllocateVault", v)
	v.Generation = 2
	c.do("AllocateVault", v)
	c.want("1", "MachineKnowsUser", db.MachineKnowsUserParams{UserID: "ou3", MachineID: "om2"})
	c.want("0", "MachineKnowsUser", db.MachineKnowsUserParams{UserID: "ou2", MachineID: "om2"})
	c.want("1", "ActivateVault", db.ActivateVaultParams{At: 6, UserID: "ou3", MachineID: "om2", Generation: 1})
	c.want("1", "RetireActivating", db.RetireActivatingParams{At: 7, UserID: "ou3", MachineID: "om2"})
	fail := db.LiftVaultFailParams{Cause: "admin", At: 8, UserID: "ou3", MachineID: "om2", Generation: 1}
	pass := db.LiftVaultPassParams(fail)
	c.want("0", "LiftVaultFail", fail) // nobody wished it
	c.want("1", "WantLift", db.WantLiftParams{Wanted: true, At: 8, UserID: "ou3", MachineID: "om2", Generation: 1})
	c.want("1", "LiftVaultFail", fail)
	c.want("0", "LiftVaultFail", fail)
	c.want("0", "EndLift", db.EndLiftParams{At: 9, UserID: "ou3", MachineID: "om2", Generation: 1})
	c.want("1", "LiftVaultPass", pass)
	c.want("1", "EndLift", db.EndLiftParams{At: 9, UserID: "ou3", MachineID: "om2", Generation: 1})
	for _, mfa := range []struct{ cause, want string }{{"0010", "1"}, {"0010", "0"}, {"0009", "0"}, {"0011", "1"}} {
		fail.Cause, pass.Cause = mfa.cause, mfa.cause
		c.want(mfa.want, "LiftVaultFail", fail)
		c.want(mfa.want, "LiftVaultPass", pass)
	}
	c.want("1", "SetVaultSteps", db.SetVaultStepsParams{FirstStep: 1, LastStep: 9, Period: 30, At: 9, UserID: "ou3", MachineID: "om2", Generation: 1})
	c.want("1", "SetVaultLimits", db.SetVaultLimitsParams{FailLimit: 5, UseLimit: 6, UserID: "ou3", MachineID: "om2", Generation: 1})
	use := db.CountVaultParams{Used: 2, Tries: 3, Shut: "x", Signins: 2, At: 9, UserID: "ou3", MachineID: "om2", Generation: 1, CountedFrom: 6}
	c.want("1", "CountVault", use)
	c.want("1", "CountVault", use) // never below nought
	use.CountedFrom = 5
	c.want("0", "CountVault", use) // the counters are fresh since
	c.do("GetVault", db.GetVaultParams{UserID: "ou3", MachineID: "om2", Generation: 1})

	c.do("InsertJoinToken", db.InsertJoinTokenParams{ID: "oj1", SecretHash: []byte("oj1"), Kind: "single", CreatedBy: "a", CreatedAt: 1, ExpiresAt: 2})
	c.want("1", "DeleteOldJoinTokens", int64(3))
	c.do("InsertWindow", db.InsertWindowParams{ID: "ow1", UserID: "ou1", MachineID: "om1", OpenedAt: 1, ExpiresAt: 2, Scopes: "[]", Factors: "[]"})
	c.want("1", "DeleteOldWindows", int64(3))
	c.do("RaiseAllSerials")
}
