package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runRewind) }

func runRewind(c *script) {
	c.do("InsertUser", db.InsertUserParams{ID: "wu1", Name: "wu1", NameFold: "wu1", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.want("1", "LockUser", "wu1")
	c.want("0", "LockUser", "wu9")
	c.do("InsertMachine", db.InsertMachineParams{ID: "wm1", Number: 941, Name: "wm1", Status: "active", Mode: "normal", UnknownUsers: "deny", TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1})
	for _, a := range []db.InsertAuthenticatorParams{
		{ID: "wa1", Kind: "totp", Params: `{"algorithm":"SHA1","digits":6,"period":30}`, Step: 3},
		{ID: "wa2", Kind: "totp", Params: `{"algorithm":"SHA1","digits":6,"period":60}`, Step: 3, Drift: 2},
		{ID: "wa3", Kind: "totp", Params: `{"algorithm":"SHA1","digits":6,"period":30}`, Step: 999999999999},
		{ID: "wa4", Kind: "other", Params: `{}`, Step: 3},
	} {
		a.UserID, a.CreatedAt = "wu1", 1
		c.do("InsertAuthenticator", a)
	}
	c.do("ListTOTPParams")
	c.want("1", "SpendAllSteps", db.SpendAllStepsParams{Step: 201, Params: `{"algorithm":"SHA1","digits":6,"period":30}`})
	c.want("1", "SpendAllSteps", db.SpendAllStepsParams{Step: 101, Params: `{"algorithm":"SHA1","digits":6,"period":60}`})
	c.do("ListAuthenticators", "wu1") // 201, 103, as it was, 3
	c.do("ListAccepted", db.ListAcceptedParams{UserID: "wu1", Since: 1, Until: 9, N: 5})
	c.do("AllocateVault", db.AllocateVaultParams{UserID: "wu1", MachineID: "wm1", Generation: 1, Class: "tpm", Key: []byte("k"), FactorsDigest: "f", ParentDigest: "p", Conversation: "c", CreatedAt: 5, UpdatedAt: 5})
	c.want("1", "RetireAllActivating", int64(7))
	c.do("GetVault", db.GetVaultParams{UserID: "wu1", MachineID: "wm1", Generation: 1})
}
