package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runAhead) }

func runAhead(c *script) {
	c.do("InsertUser", db.InsertUserParams{ID: "ahu", Name: "ahead", NameFold: "ahead", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	for i, id := range []string{"ah1", "ah2", "ah3"} {
		c.do("InsertOutbox", db.InsertOutboxParams{ID: id, Channel: "mail", Purpose: "notice", UserID: "ahu", Subject: "ahead", Body: []byte{1}, DueAt: int64(100 * i), ExpiresAt: 1000, CreatedAt: 1})
	}
	c.want("1", "LeaseOutbox", db.LeaseOutboxParams{ID: "ah1", Lease: "a", Until: 600, At: 1})
	c.want("0", "BringOutboxBack", db.BringOutboxBackParams{At: 10, Later: 600})
	c.want("2", "BringOutboxBack", db.BringOutboxBackParams{At: 10, Later: 199})
	c.want(`["ah1","ah3"]`, "ListOutboxDue", db.ListOutboxDueParams{Channel: "mail", At: 10, N: 10})
	c.want("1", "DeleteOutbox", "ah1")
	c.want("1", "DeleteOutbox", "ah2")
	c.want("1", "DeleteOutbox", "ah3")

	c.do("InsertPostCode", db.InsertPostCodeParams{ID: "ah4", UserID: "ahu", Kind: "mail", Ticket: "ah", Hash: []byte{9}, Place: []byte{8}, Door: "machine", MachineID: "m1", CreatedAt: 50, ExpiresAt: 100})
	c.want("0", "DeletePostCodesAhead", int64(50))
	c.want("1", "DeletePostCodesAhead", int64(49))
	c.do("InsertPushRequest", db.InsertPushRequestParams{ID: "ah5", UserID: "ahu", Ticket: "ah", Door: "machine", Content: "{}", Nonce: "n", NumberHash: []byte("n"), CreatedAt: 50, ExpiresAt: 90})
	c.want("0", "DeletePushRequestsAhead", int64(50))
	c.want("1", "DeletePushRequestsAhead", int64(49))
	c.want("1", "DeleteUser", "ahu")
}
