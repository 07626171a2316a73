package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runBulk) }

// runBulk brings rows of its own, so that it does not matter which parts ran before.
func runBulk(c *script) {
	uid := int64(7)
	c.do("InsertUser", db.InsertUserParams{ID: "bu1", Name: "bulk-old", NameFold: "bulk-old", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertGroup", db.InsertGroupParams{ID: "bg1", Name: "bulk-group", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertGroup", db.InsertGroupParams{ID: "bg2", Name: "bulk-left", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "bg2", UserID: "bu1"})
	for _, id := range []string{"bi1", "bi2"} {
		c.do("InsertImport", db.InsertImportParams{ID: id, Actor: "root@local", ActorRole: "owner", ActorLocal: true, State: "reading", CodesFor: 60, CreatedAt: 10, UpdatedAt: 10, LeaseUntil: 20})
	}
	c.do("GetImport", "bi1")
	c.do("GetImport", "nowhere")
	c.do("ListImports", db.ListImportsParams{N: 10})
	c.do("ListImports", db.ListImportsParams{Before: "bi2", N: 10})
	c.want("2", "CountOpenImports", "root@local")
	c.want("1", "BeginReading", db.BeginReadingParams{ID: "bi1", Source: "csv", Label: "f", At: 11, LeaseUntil: 30, LeaseBy: "me"})
	c.want("0", "BeginReading", db.BeginReadingParams{ID: "bi1", Source: "csv", Label: "f", At: 11, LeaseUntil: 30, LeaseBy: "me"})
	c.want("1", "SetImportColumns", db.SetImportColumnsParams{ID: "bi1", Columns: `["name"]`})
	c.want("1", "SetImportGroups", db.SetImportGroupsParams{ID: "bi1", MadeGroups: `{}`})
	rows := []db.InsertImportRowParams{
		{N: 1, Line: 2, State: "new", Name: "bulk-new", NameFold: "bulk-new", UserID: "bu2", Role: "none", Activation: "now", MFA: "on", UID: &uid, PasswordHash: "h", WantCode: true},
		{N: 2, Line: 3, State: "changed", Name: "bulk-old", NameFold: "bulk-old", UserID: "bu1", SeenRev: 1, Fields: true, Role: "none", Activation: "now", MFA: "inherit", Mail: "m", Disabled: true, Disables: true},
		{N: 3, Line: 4, State: "faulty", Name: "bulk-bad", NameFold: "bulk-bad"},
		{N: 4, Line: 5, State: "new", Name: "bulk-lost", NameFold: "bulk-lost", UserID: "bu4"},
	}
	for _, r := range rows {
		r.ImportID, r.Input, r.Changes, r.Faults = "bi1", "{}", "[]", "[]"
		c.do("InsertImportRow", r)
	}
	c.want("0", "CountReading", db.CountReadingParams{ID: "bi1", LeaseBy: "another", At: 12})
	c.want("1", "CountReading", db.CountReadingParams{ID: "bi1", LeaseBy: "me", BytesRead: 9, RowsRead: 4, RowsNew: 2, RowsChanged: 1, RowsFaulty: 1, At: 12, LeaseUntil: 31})
	for _, m := range []db.InsertImportMemberParams{
		{UserID: "bu2", GroupID: "bg1", N: 1, Added: true},
		{UserID: "bu1", GroupID: "bg1", N: 2, Added: true},
		{UserID: "bu1", GroupID: "bg2", N: 2},
		{UserID: "bu4", GroupID: "nowhere", N: 4, Added: true},
	} {
		m.ImportID = "bi1"
		c.do("InsertImportMember", m)
	}
	c.do("ListImportMembersOfRow", db.ListImportMembersOfRowParams{ImportID: "bi1", N: 2})
	c.do("ListImportMembersOfRow", db.ListImportMembersOfRowParams{ImportID: "bi1", N: 4})
	c.want("[4]", "ListImportRowsWithLostGroups", "bi1")
	c.want("1", "ReplaceImportGroup", db.ReplaceImportGroupParams{ImportID: "bi1", OldID: "nowhere", GroupID: "elsewhere"})
	c.want("1", "DeleteImportMembersOfRow", db.DeleteImportMembersOfRowParams{ImportID: "bi1", N: 4})
	c.want("1", "DeleteImportRow", db.DeleteImportRowParams{ImportID: "bi1", N: 4})
	c.want("[]", "ListStaleImportRows", "bi1")
	c.do("GetImportRow", db.GetImportRowParams{ImportID: "bi1", N: 1})
	c.do("ListImportRows", db.ListImportRowsParams{ImportID: "bi1", LimitN: 10})
	c.do("ListImportRows", db.ListImportRowsParams{ImportID: "bi1", State: "faulty", After: 1, LimitN: 1})
	c.doUnordered("CountImportRows", "bi1")
	c.want("1", "SetImportCounts", db.SetImportCountsParams{ID: "bi1", RowsNew: 1, RowsChanged: 1, RowsFaulty: 1})
	c.want("1", "MoveImport", db.MoveImportParams{ID: "bi1", OldState: "reading", State: "applying", At: 13, LeaseUntil: 40, LeaseBy: "me"})
	c.want("0", "MoveImport", db.MoveImportParams{ID: "bi1", OldState: "reading", State: "applying", At: 13})
	c.want("0", "DeleteImport", "bi1")
	c.want("1", "OtherImportApplies", "bi2")
	c.want("0", "OtherImportApplies", "bi1")
	c.want("1", "HoldImport", db.HoldImportParams{ID: "bi1", LeaseBy: "me", LeaseUntil: 41, At: 14})
	c.want("0", "TakeImport", db.TakeImportParams{ID: "bi1", State: "applying", LeaseBy: "another", LeaseUntil: 50, At: 30})
	c.want("1", "TakeImport", db.TakeImportParams{ID: "bi1", State: "applying", LeaseBy: "me", LeaseUntil: 50, At: 30})
	c.do("ListAbandonedImports", int64(51))
	c.do("CountImportChanges", db.CountImportChangesParams{ImportID: "bi1", Last: 10})
	c.do("CountImportChanges", db.CountImportChangesParams{ImportID: "bi1", After: 1, Last: 10})
	c.want("1", "ImportNewUsers", db.ImportNewUsersParams{ImportID: "bi1", Last: 10, At: 33})
	c.do("GetUser", "bu2")
	c.want("1", "ImportChangedUsers", db.ImportChangedUsersParams{ImportID: "bi1", Last: 10, At: 33})
	c.want("0", "ImportChangedUsers", db.ImportChangedUsersParams{ImportID: "bi1", Last: 10, At: 33})
	c.do("GetUser", "bu1")
	c.want("[1,2]", "ListStaleImportRows", "bi1")
	c.want("1", "ImportRemovedMembers", db.ImportRemovedMembersParams{ImportID: "bi1", Last: 10})
	c.want("2", "ImportAddedMembers", db.ImportAddedMembersParams{ImportID: "bi1", Last: 10})
	c.want("0", "ImportAddedMembers", db.ImportAddedMembersParams{ImportID: "bi1", Last: 10})
	c.want(`["bu1"]`, "ListImportedUsers", db.ListImportedUsersParams{ImportID: "bi1", Last: 10, OnlyDisabled: true})
	c.want(`["bu1"]`, "ListImportedUsers", db.ListImportedUsersParams{ImportID: "bi1", Last: 10})
	c.want("[]", "ListImportedUsers", db.ListImportedUsersParams{ImportID: "bi1", After: 2, Last: 10})
	c.want("1", "CountDone", db.CountDoneParams{ID: "bi1", LeaseBy: "me", N: 2, At: 34, LeaseUntil: 60})
	c.do("ListUntoldImportRows", db.ListUntoldImportRowsParams{ImportID: "bi1", Last: 1, LimitN: 10})
	c.want("1", "TellImportRow", db.TellImportRowParams{ImportID: "bi1", N: 1, Code: []byte("sealed")})
	c.want("0", "TellImportRow", db.TellImportRowParams{ImportID: "bi1", N: 1, Code: []byte("sealed")})
	c.want("1", "CountTold", db.CountToldParams{ID: "bi1", LeaseBy: "me", N: 1, Codes: 1, At: 35, LeaseUntil: 61})
	c.want("1", "SetImportProblem", db.SetImportProblemParams{ID: "bi1", Problem: "p"})
	c.want("1", "MoveImport", db.MoveImportParams{ID: "bi1", OldState: "applying", State: "done", At: 36, AppliedAt: 36, EndedAt: 36})
	c.do("ListImportCodes", db.ListImportCodesParams{ImportID: "bi1", LimitN: 10})
	c.want("1", "ForgetImportCodes", db.ForgetImportCodesParams{ImportID: "bi1", Last: 10})
	c.want("1", "CountOldImportCodes", int64(37))
	c.want("0", "CountOldImportCodes", int64(36))
	c.want("1", "SetImportCodesLeft", db.SetImportCodesLeftParams{ID: "bi1", N: 1})
	c.want("0", "CountOldImportCodes", int64(37))
	c.want("0", "ForgetOldImportCodes", int64(100))
	c.want("0", "ForgetOldImportCounts", int64(100))
	c.want(`["bi1"]`, "ListOldImports", db.ListOldImportsParams{Ended: 37, Checked: 0})
	c.want("1", "FirstImportRow", "bi1")
	c.want("0", "FirstImportRow", "bi2")
	c.want("3", "DeleteImportMembersUpTo", db.DeleteImportMembersUpToParams{ImportID: "bi1", Last: 10})
	c.want("3", "DeleteImportRowsUpTo", db.DeleteImportRowsUpToParams{ImportID: "bi1", Last: 10})
	c.want("1", "DeleteImport", "bi1")
	c.do("InsertImportSource", db.InsertImportSourceParams{ID: "bs1", Name: "hr", Driver: "mysql", Place: "p", Address: []byte("sealed"), Query: "q", CreatedBy: "root@local", CreatedAt: 1})
	c.do("GetImportSource", "bs1")
	c.do("GetImportSourceByName", "hr")
	c.do("ListImportSources")
	c.want("1", "UseImportSource", db.UseImportSourceParams{ID: "bs1", At: 5})
	c.want("1", "DeleteImportSource", "bs1")
}
