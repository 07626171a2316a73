package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runPush) }

func runPush(c *script) {
	for _, id := range []string{"pu1", "pu2"} {
		c.do("InsertUser", db.InsertUserParams{ID: id, Name: id, NameFold: id, DisplayName: "P", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	}
	for _, a := range []db.InsertAuthenticatorParams{{ID: "pa1", UserID: "pu1", Kind: "push"}, {ID: "pa2", UserID: "pu1", Kind: "totp"}, {ID: "pa3", UserID: "pu1", Kind: "push"}, {ID: "pa4", UserID: "pu2", Kind: "push"}} {
		a.Params, a.ConfirmedAt, a.CreatedAt = "{}", 5, 5
		c.do("InsertAuthenticator", a)
	}
	c.want("1", "SetAuthenticatorParent", db.SetAuthenticatorParentParams{ID: "pa2", Parent: "pa1"})
	c.want("1", "UseAuthenticator", db.UseAuthenticatorParams{ID: "pa1", At: 6})
	c.do("InsertPushDevice", db.InsertPushDeviceParams{AuthenticatorID: "pa1", UserID: "pu1", PublicKey: []byte{1}, Platform: "Android", Standalone: true, CreatedAt: 5, SeenAt: 5})
	c.do("InsertPushDevice", db.InsertPushDeviceParams{AuthenticatorID: "pa3", UserID: "pu1", PublicKey: []byte{3}, CreatedAt: 5})
	c.do("InsertPushDevice", db.InsertPushDeviceParams{AuthenticatorID: "pa4", UserID: "pu2", PublicKey: []byte{4}, CreatedAt: 5})
	c.want("1", "SeePushDevice", db.SeePushDeviceParams{ID: "pa1", At: 9})
	c.want("0", "SeePushDevice", db.SeePushDeviceParams{ID: "pa1", At: 8})
	c.want("1", "SetPushSubscription", db.SetPushSubscriptionParams{ID: "pa1", Subscription: []byte("s"), At: 10})
	c.do("GetPushDevice", "pa1")
	c.do("GetPushDevice", "pa2") // an app, and no phone
	c.want("0", "DropPushSubscription", db.DropPushSubscriptionParams{ID: "pa1", At: 9})
	c.want("1", "DropPushSubscription", db.DropPushSubscriptionParams{ID: "pa1", At: 10})
	c.want("1", "SetPushCredential", db.SetPushCredentialParams{ID: "pa1", Credential: []byte("c1")})
	c.want("0", "SetPushCredential", db.SetPushCredentialParams{ID: "pa1", Credential: []byte("c2")})
	c.want("0", "MovePushCredential", db.MovePushCredentialParams{ID: "pa1", Credential: []byte("c2"), Was: []byte("c0")})
	c.want("1", "MovePushCredential", db.MovePushCredentialParams{ID: "pa1", Credential: []byte("c2"), Was: []byte("c1")})
	c.do("ListPushDevices", "pu1")

	c.do("InsertPushEnrolment", db.InsertPushEnrolmentParams{ID: "pe1", UserID: "pu1", Hash: []byte("h1"), Generation: 1, ByActor: "pu1", Self: true, CreatedAt: 5, ExpiresAt: 100})
	c.do("InsertPushEnrolment", db.InsertPushEnrolmentParams{ID: "pe2", UserID: "pu1", Hash: []byte("h2"), Generation: 1, EnrolCode: "ec", Session: "ss", ByUser: "pu2", ByToken: "t1", Role: "none", CreatedAt: 5, ExpiresAt: 100})
	c.do("GetPushEnrolment", "pe1")
	c.do("FindPushEnrolment", []byte("h2"))
	c.do("FindPushEnrolment", []byte("h3"))
	c.want("0", "SpendPushEnrolment", db.SpendPushEnrolmentParams{ID: "pe1", DeviceID: "pa1", At: 100})
	c.want("1", "SpendPushEnrolment", db.SpendPushEnrolmentParams{ID: "pe1", DeviceID: "pa1", At: 50})
	c.want("0", "SpendPushEnrolment", db.SpendPushEnrolmentParams{ID: "pe1", DeviceID: "pa1", At: 51})
	c.want("1", "EndPushEnrolments", db.EndPushEnrolmentsParams{UserID: "pu1", At: 52})
	c.want("1", "DeleteOldPushEnrolments", int64(53))

	for i, r := range []db.InsertPushRequestParams{
		{ID: "pr1", Ticket: "t1", Door: "machine", MachineID: "m1"},
		{ID: "pr2", Ticket: "t2", Door: "machine", MachineID: "m2", Verification: true},
		{ID: "pr3", Ticket: "t3", Door: "portal"},
		{ID: "pr4", Ticket: "t4", Door: "step-up"},
	} {
		r.UserID, r.Content, r.Nonce, r.NumberHash, r.CreatedAt, r.ExpiresAt = "pu1", "{}", "n", []byte("n"), int64(10+i), int64(60+i)
		c.do("InsertPushRequest", r)
	}
	c.do("GetPushRequest", "pr2")
	c.do("FindPushRequest", "t1")
	c.do("GetPushState", "t1")
	c.do("GetPushState", "t9")
	c.do("ListOpenPushRequests", db.ListOpenPushRequestsParams{UserID: "pu1", At: 60})
	c.do("OpenPushRequestAt", db.OpenPushRequestAtParams{UserID: "pu1", Door: "machine", MachineID: "m2"})
	c.do("OpenPushRequestAt", db.OpenPushRequestAtParams{UserID: "pu1", Door: "machine", MachineID: "m3"})
	c.do("ListUntoldPushRequests", int64(10))
	c.want("1", "TellPushRequest", db.TellPushRequestParams{ID: "pr1", At: 11})
	c.want("0", "TellPushRequest", db.TellPushRequestParams{ID: "pr1", At: 12})
	c.want("0", "AnswerPushRequest", db.AnswerPushRequestParams{ID: "pr1", State: "approved", DeviceID: "pa1", At: 60})
	c.want("1", "AnswerPushRequest", db.AnswerPushRequestParams{ID: "pr1", State: "approved", DeviceID: "pa1", Verified: true, At: 59})
	c.want("0", "AnswerPushRequest", db.AnswerPushRequestParams{ID: "pr1", State: "denied", DeviceID: "pa1", At: 59})
	c.want("1", "SpendPushRequest", "pr1")
	c.want("0", "SpendPushRequest", "pr1")
	c.want("1", "ClosePushRequest", db.ClosePushRequestParams{ID: "pr4", State: "withdrawn", At: 20})
	c.want("1", "ExpirePushRequests", db.ExpirePushRequestsParams{UserID: "pu1", At: 61})
	c.do("ListPushTickets", "pu1")
	c.want("3", "CountPushRequests", db.CountPushRequestsParams{UserID: "pu1", Since: 0})
	c.want("1", "CountPushRequestsAt", db.CountPushRequestsAtParams{UserID: "pu1", Since: 0, Door: "machine", MachineID: "m2"})
	c.want("0", "CountPushRequestsAt", db.CountPushRequestsAtParams{UserID: "pu1", Since: 0, Door: "machine", MachineID: "m1"})
	c.want("1", "CountPushRequestsOfMachine", db.CountPushRequestsOfMachineParams{MachineID: "m2", Since: 0})
	c.want("1", "CountPushApprovedAt", db.CountPushApprovedAtParams{UserID: "pu1", Since: 0, Door: "machine", MachineID: "m1"})
	c.want("1", "WithdrawPushRequests", db.WithdrawPushRequestsParams{UserID: "pu1", At: 62})
	c.do("GetPushRequest", "pr3")
	c.do("ListPushWithdrawals", db.ListPushWithdrawalsParams{UserID: "pu1", Door: "step-up"})
	c.do("ListPushWithdrawals", db.ListPushWithdrawalsParams{UserID: "pu1", Door: "step-up", Since: 13})
	for _, r := range []struct {
		changed, id string
		since       int64
	}{
		{"0", "pr1", 0},  // answered
		{"0", "pr4", 13}, // too old
		{"1", "pr4", 12},
		{"0", "pr4", 12}, // again
	} {
		c.want(r.changed, "ReportPushRequest", db.ReportPushRequestParams{ID: r.id, DeviceID: "pa1", Reason: "reported", At: 63, Since: r.since})
	}
	c.want("2", "DeleteOldPushRequests", int64(12))

	c.do("InsertPushEnrolment", db.InsertPushEnrolmentParams{ID: "pe3", UserID: "pu1", Hash: []byte("h3"), CreatedAt: 60, ExpiresAt: 200})
	c.want("1", "EndAllPushEnrolments", int64(100))
	c.do("InsertPushRequest", db.InsertPushRequestParams{ID: "pr9", UserID: "pu1", Ticket: "t9", Door: "machine", Content: "{}", Nonce: "n", NumberHash: []byte("n"), CreatedAt: 70, ExpiresAt: 90})
	c.want("1", "WithdrawAllPushRequests")

	c.want("1", "LockPush", db.LockPushParams{UserID: "pu1", Reason: "reported", RequestID: "pr3", ReportID: "rp", At: 70})
	c.want("0", "LockPush", db.LockPushParams{UserID: "pu1", Reason: "again", At: 71})
	c.do("GetPushLock", "pu1")
	c.do("GetPushLock", "pu2")
	c.want("1", "UnlockPush", "pu1")

	c.want("2", "SetAuthenticatorLost", "pa1") // with what lies on it
	c.do("DeleteAuthenticator", "pa1")
	c.do("ListAuthenticators", "pu1") // its seed is gone too
	c.do("ListPushDevices", "pu1")
}
