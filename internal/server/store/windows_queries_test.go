package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runOpenWindows) }

func runOpenWindows(c *script) {
	c.do("InsertUser", db.InsertUserParams{ID: "ow1", Name: "ow1", NameFold: "ow1", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	for i, id := range []string{"owm1", "owm2"} {
		c.do("InsertMachine", db.InsertMachineParams{ID: id, Number: int64(951 + i), Name: id, Status: "active", Mode: "normal", UnknownUsers: "deny", TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1})
	}
	for _, w := range []db.InsertWindowParams{
		{ID: "oww1", MachineID: "owm1", ExpiresAt: 90},
		{ID: "oww2", MachineID: "owm1", ExpiresAt: 20},
		{ID: "oww3", MachineID: "owm1", ExpiresAt: 91},
		{ID: "oww4", MachineID: "owm2", ExpiresAt: 90},
		{ID: "oww5", MachineID: "owm1", ExpiresAt: 92},
	} {
		w.UserID, w.Boot, w.OpenedAt, w.Scopes, w.Factors = "ow1", "b", 1, `["logon"]`, `["totp"]`
		c.do("InsertWindow", w)
	}
	c.want("1", "EndWindow", db.EndWindowParams{ID: "oww5", At: 40, Reason: "revoked"})
	c.do("ListWindowsOfMachine", db.ListWindowsOfMachineParams{MachineID: "owm1", At: 50, N: 10}) // 1, 3
	c.do("ListWindowsOfMachine", db.ListWindowsOfMachineParams{MachineID: "owm1", At: 50, After: "oww1", N: 10})
	c.do("ListWindowsOfMachine", db.ListWindowsOfMachineParams{MachineID: "owm1", At: 50, N: 1})
	for _, f := range []db.WindowFilter{
		{},
		{UserID: "ow1"},
		{MachineID: "owm1"},
		{UserID: "ow1", MachineID: "owm2"},
		{AfterExpires: 90, AfterID: "oww1"},
		{MachineID: "owm1", AfterExpires: 90, AfterID: "oww1"},
	} {
		f.At, f.N = 50, 10
		c.do("FindWindows", f)
	}
}
