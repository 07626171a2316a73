package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runRules) }

func runRules(c *script) {
	c.do("InsertEvent", db.InsertEventParams{Chain: "rules", Seq: 1, ID: "rue1", Type: "signin.allowed", Subject: "ru", Outcome: "allow", At: 5, ReceivedAt: 5, PrevHash: []byte{0}, Hash: []byte{1}})
	c.do("InsertEvent", db.InsertEventParams{Chain: "rules", Seq: 2, ID: "rue2", Type: "signin.allowed", Subject: "ru", Outcome: "allow", At: 6, ReceivedAt: 6, PrevHash: []byte{1}, Hash: []byte{2}})
	for i, id := range []string{"rue1", "rue2"} {
		c.do("InsertPolicyReport", db.InsertPolicyReportParams{PolicyID: "rup", At: int64(5 + i), EventID: id, Version: 2, UserID: "ru", Outcome: "deny", Change: "denied"})
	}
	c.do("CountPolicyReports", db.CountPolicyReportsParams{PolicyID: "rup", Version: 2, N: 10})
	c.do("CountPolicyReports", db.CountPolicyReportsParams{PolicyID: "rup", Version: 3, N: 10})
	c.do("ListPolicyReports", db.ListPolicyReportsParams{PolicyID: "rup", Change: "denied", BeforeAt: 1 << 60, N: 1})
	c.do("ListPolicyReports", db.ListPolicyReportsParams{PolicyID: "rup", Change: "denied", BeforeAt: 6, BeforeID: "rue2", N: 10})
	c.want("1", "DeleteOldPolicyReports", int64(6))

	view := db.InsertEventViewParams{ID: "ruv", Owner: "ru", Name: "n", Query: "q", MadeBy: "ru", CreatedAt: 1}
	c.do("InsertEventView", view)
	c.do("InsertEventView", db.InsertEventViewParams{ID: "ruw", Name: "n", Query: "q", MadeBy: "ru", CreatedAt: 1})
	c.do("ListEventViews", "ru")
	c.want("1", "CountEventViews", "ru")
	c.do("GetEventView", "ruv")
	c.want("1", "DeleteEventView", "ruv")
	c.do("CountPeopleOfGroup", "nobody")
}
