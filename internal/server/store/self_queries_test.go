package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runSelf) }

func runSelf(c *script) {
	for _, id := range []string{"se1", "se2"} {
		c.do("InsertUser", db.InsertUserParams{ID: id, Name: id, NameFold: id, Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	}
	for i, m := range []db.InsertMachineParams{{ID: "sem1"}, {ID: "sem2", OwnerUser: "se1"}, {ID: "sem3"}, {ID: "sem4"}, {ID: "sem5", OwnerUser: "se2"}} {
		m.Number, m.Name, m.Status, m.Mode, m.UnknownUsers, m.TPMClass, m.TPMInfo, m.CreatedAt, m.UpdatedAt = int64(961+i), m.ID, "active", "normal", "deny", "none", "{}", 1, 1
		c.do("InsertMachine", m)
	}
	c.do("KnowUser", db.KnowUserParams{MachineID: "sem1", UserID: "se1", Since: 5})
	c.do("KnowUser", db.KnowUserParams{MachineID: "sem4", UserID: "se2", Since: 5})
	c.do("AddMachineUser", db.AddMachineUserParams{MachineID: "sem3", UserID: "se1"})
	c.do("InsertWindow", db.InsertWindowParams{ID: "sew1", UserID: "se1", MachineID: "sem1", Boot: "b", OpenedAt: 1, ExpiresAt: 90, Scopes: "[]", Factors: "[]"})
	c.do("ListOwnMachines", db.ListOwnMachinesParams{UserID: "se1", At: 50, N: 10}) // 1, with a window, 2, 3
	c.do("ListOwnMachines", db.ListOwnMachinesParams{UserID: "se1", At: 95, After: "sem1", N: 1})
	c.do("ListOwnMachines", db.ListOwnMachinesParams{UserID: "se1", At: 50, OnlyID: "sem4", N: 10}) // somebody else's: none
	c.want("1", "SetUserFace", db.SetUserFaceParams{ID: "se1", DisplayName: "Anna", Mail: "a@x", At: 9, Rev: 1})
	c.want("0", "SetUserFace", db.SetUserFaceParams{ID: "se1", DisplayName: "late", At: 9, Rev: 1})

	c.do("InsertReport", db.InsertReportParams{ID: "rp1", UserID: "se1", Kind: "signin", EventID: "ev1", MachineID: "sem1", Machine: "sem1", Told: "no", Address: "192.0.2.1", CreatedAt: 7})
	c.do("InsertReport", db.InsertReportParams{ID: "rp2", UserID: "se1", Kind: "machine", MachineID: "sem1", Machine: "sem1", CreatedAt: 8})
	c.do("InsertReport", db.InsertReportParams{ID: "rp3", UserID: "se2", Kind: "machine", MachineID: "sem4", Machine: "sem4", CreatedAt: 9})
	c.do("FindOpenReport", db.FindOpenReportParams{UserID: "se1", Kind: "signin", EventID: "ev1", MachineID: "sem1"})
	c.do("FindOpenReport", db.FindOpenReportParams{UserID: "se2", Kind: "signin", EventID: "ev1", MachineID: "sem1"})
	c.do("ListReportedEvents", "se1")
	c.do("GetReport", "rp1")
	c.do("GetReport", "rp9")
	c.do("ListReports", db.ListReportsParams{N: 10})
	c.do("ListReports", db.ListReportsParams{Before: "rp3", UserID: "se1", State: "open", N: 1})
	c.want("1", "HandleReport", db.HandleReportParams{ID: "rp1", At: 20, HandledBy: "root", Answer: "called"})
	c.want("0", "HandleReport", db.HandleReportParams{ID: "rp1", At: 21, HandledBy: "late"})
	c.want("1", "CountOpenReportsOfUser", "se1")
	c.do("ListReports", db.ListReportsParams{State: "handled", N: 10})
}
