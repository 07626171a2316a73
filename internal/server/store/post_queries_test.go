package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runPost) }

func runPost(c *script) {
	c.do("InsertUser", db.InsertUserParams{ID: "pu1", Name: "post-one", NameFold: "post-one", Mail: "one@example.org", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	for _, m := range []db.InsertOutboxParams{
		{ID: "pm1", Channel: "mail", Purpose: "notice", UserID: "pu1", Subject: "post-one", Mask: "o…@example.org", Body: []byte{1}, DueAt: 10, ExpiresAt: 100, CreatedAt: 1},
		{ID: "pm2", Channel: "mail", Purpose: "code", Urgent: true, UserID: "pu1", Subject: "post-one", Mask: "o…@example.org", Body: []byte{2}, DueAt: 11, ExpiresAt: 100, CreatedAt: 1},
		{ID: "pm3", Channel: "sms", Purpose: "code", Urgent: true, UserID: "pu1", Subject: "post-one", Mask: "+49…17", Body: []byte{3}, DueAt: 10, ExpiresAt: 100, CreatedAt: 1},
	} {
		c.do("InsertOutbox", m)
	}
	c.want("2", "CountOutboxWaiting", db.CountOutboxWaitingParams{Channel: "mail", Most: 10})
	c.want("1", "CountOutboxWaiting", db.CountOutboxWaitingParams{Channel: "mail", Most: 1})
	c.want("[]", "ListOutboxDue", db.ListOutboxDueParams{Channel: "mail", At: 9, N: 10})
	c.want(`["pm2","pm1"]`, "ListOutboxDue", db.ListOutboxDueParams{Channel: "mail", At: 11, N: 10})
	c.want(`["pm2"]`, "ListOutboxDue", db.ListOutboxDueParams{Channel: "mail", At: 11, N: 10, OnlyUrgent: true})
	c.want("1", "LeaseOutbox", db.LeaseOutboxParams{ID: "pm1", Lease: "a", Until: 30, At: 11})
	c.want("0", "LeaseOutbox", db.LeaseOutboxParams{ID: "pm1", Lease: "b", Until: 30, At: 11})
	c.want(`["pm2"]`, "ListOutboxDue", db.ListOutboxDueParams{Channel: "mail", At: 11, N: 10})
	c.want("0", "DeferOutbox", db.DeferOutboxParams{ID: "pm1", Lease: "b", DueAt: 40, Reason: "r", Detail: "d"})
	c.want("1", "DeferOutbox", db.DeferOutboxParams{ID: "pm1", Lease: "a", DueAt: 40, Reason: "r", Detail: "d"})
	c.do("GetOutbox", "pm1")
	c.want("1", "LeaseOutbox", db.LeaseOutboxParams{ID: "pm1", Lease: "b", Until: 60, At: 40})
	c.want("0", "FailOutbox", db.FailOutboxParams{ID: "pm1", Lease: "a", At: 41, Reason: "refused", Detail: "550"})
	c.want("0", "RetryOutbox", db.RetryOutboxParams{ID: "pm1", At: 41, ExpiresAt: 200})
	c.want("1", "FailOutbox", db.FailOutboxParams{ID: "pm1", Lease: "b", At: 41, Reason: "refused", Detail: "550"})
	c.want("1", "RetryOutbox", db.RetryOutboxParams{ID: "pm1", At: 42, ExpiresAt: 200})
	c.want("1", "LeaseOutbox", db.LeaseOutboxParams{ID: "pm1", Lease: "c", Until: 60, At: 42})
	c.want("1", "FailOutbox", db.FailOutboxParams{ID: "pm1", Lease: "c", At: 43})
	c.want("1", "ForgetOutboxBody", "pm1")
	c.want("0", "RetryOutbox", db.RetryOutboxParams{ID: "pm1", At: 44, ExpiresAt: 200})
	c.want("1", "LeaseOutbox", db.LeaseOutboxParams{ID: "pm2", Lease: "a", Until: 60, At: 42})
	c.want("0", "FinishOutbox", db.FinishOutboxParams{ID: "pm2", Lease: "b", At: 50})
	c.want("1", "FinishOutbox", db.FinishOutboxParams{ID: "pm2", Lease: "a", At: 50})
	c.do("ListOutbox", db.ListOutboxParams{N: 10})
	c.do("ListOutbox", db.ListOutboxParams{Before: "pm3", Channel: "mail", State: "sent", N: 10})
	c.do("CountOutbox", "mail")
	c.want("1", "DeleteOutbox", "pm3")
	c.want("0", "PurgeOutbox", db.PurgeOutboxParams{SentBefore: 50, FailedBefore: 43})
	c.want("2", "PurgeOutbox", db.PurgeOutboxParams{SentBefore: 51, FailedBefore: 44})

	for i, id := range []string{"pc1", "pc2"} {
		c.do("InsertPostCode", db.InsertPostCodeParams{
			ID: id, UserID: "pu1", Kind: "mail", Ticket: "t", AuthenticatorID: "pa1", Hash: []byte{9}, Place: []byte{8}, Door: "machine", MachineID: "m1", CreatedAt: int64(10 + i), ExpiresAt: 100,
		})
	}
	c.do("NewestPostCode", db.NewestPostCodeParams{Ticket: "t", UserID: "pu1", Kind: "mail"})
	c.want("1", "CountPostCodeTry", "pc2")
	c.want("1", "SpendPostCode", db.SpendPostCodeParams{ID: "pc2", At: 20})
	c.want("0", "SpendPostCode", db.SpendPostCodeParams{ID: "pc2", At: 20})
	c.want("2", "CountPostCodesOfTicket", db.CountPostCodesOfTicketParams{Ticket: "t", Kind: "mail"})
	c.do("InsertPostCode", db.InsertPostCodeParams{ID: "pc0", UserID: "pu1", Kind: "mail", Ticket: "c", Hash: []byte{9}, Place: []byte{8}, Door: "confirm", CreatedAt: 11, ExpiresAt: 100})
	c.want("1", "CountPostCodesOfUser", db.CountPostCodesOfUserParams{UserID: "pu1", Since: 10})
	c.want("2", "CountPostCodesOfPlace", db.CountPostCodesOfPlaceParams{Place: []byte{8}, UserID: "pu1", Since: 9})
	c.want("0", "CountPostCodesOfPlace", db.CountPostCodesOfPlaceParams{Place: []byte{8}, UserID: "pu2", Since: 9})
	c.want("2", "CountPostCodesAt", db.CountPostCodesAtParams{UserID: "pu1", Since: 9, Door: "machine", MachineID: "m1"})
	c.want("0", "CountPostCodesAt", db.CountPostCodesAtParams{UserID: "pu1", Since: 9, Door: "machine", MachineID: "m2"})
	c.want("1", "CountPostCodesUsedAt", db.CountPostCodesUsedAtParams{UserID: "pu1", Since: 9, Door: "machine", MachineID: "m1"})
	c.want("1", "CountPostCodesOfMachine", db.CountPostCodesOfMachineParams{MachineID: "m1", Since: 9})
	c.want("1", "CountPostConfirmations", db.CountPostConfirmationsParams{UserID: "pu1", Since: 9})
	c.want("1", "CountPostConfirmationsOfPlace", db.CountPostConfirmationsOfPlaceParams{Place: []byte{8}, Since: 9})
	c.want("0", "CountPostCodesOfKind", db.CountPostCodesOfKindParams{Kind: "sms", Since: 9})
	c.want("1", "DeleteOldPostCodes", int64(11))

	c.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: "pa1", UserID: "pu1", Kind: "mail", Params: "{}", ConfirmedAt: 5, CreatedAt: 5})
	c.want("1", "UseAuthenticator", db.UseAuthenticatorParams{ID: "pa1", At: 30})
	c.want("1", "SetAuthenticatorLost", "pa1")
	c.want("0", "UseAuthenticator", db.UseAuthenticatorParams{ID: "pa1", At: 31})

	// Whose word the mail address is.
	c.want("1", "SetUserFace", db.SetUserFaceParams{Mail: "one@example.org", At: 2, ID: "pu1", Rev: 1})
	c.do("GetUser", "pu1")
	c.want("1", "SetUserFace", db.SetUserFaceParams{Mail: "own@example.org", At: 2, ID: "pu1", Rev: 2})
	c.do("GetUser", "pu1")
	c.want("1", "UpdateUser", db.UpdateUserParams{Mail: "own@example.org", Role: "none", Activation: "now", MFA: "inherit", UpdatedAt: 3, ID: "pu1", Rev: 3})
	c.do("GetUser", "pu1")
	c.want("1", "UpdateUser", db.UpdateUserParams{Mail: "office@example.org", Role: "none", Activation: "now", MFA: "inherit", UpdatedAt: 3, ID: "pu1", Rev: 4})
	c.do("GetUser", "pu1")
	c.want("1", "DeleteUser", "pu1")
	c.want("0", "DeleteOldPostCodes", int64(1000))
}
