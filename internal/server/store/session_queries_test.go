package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runSessions) }

func runSessions(c *script) {
	c.do("InsertUser", db.InsertUserParams{ID: "se-u1", Name: "se-u1", NameFold: "se-u1", Role: "owner", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertUser", db.InsertUserParams{ID: "se-u2", Name: "se-u2", NameFold: "se-u2", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	for i, id := range []string{"se1", "se2", "se3", "se4"} {
		c.do("InsertSession", db.InsertSessionParams{
			ID: id, SecretHash: []byte(id), UserID: []string{"se-u1", "se-u1", "se-u1", "se-u2"}[i], Kind: "browser", Factor: "totp", PasswordAt: 3,
			BeganAt: 10, SeenAt: int64(10 + i), FreshAt: 10, EndsAt: 100, Address: "192.0.2.1", Agent: "a",
		})
	}
	c.do("GetSessionBySecret", []byte("se1"))
	c.do("GetSession", "se4")
	c.do("ListSessionsOfUser", db.ListSessionsOfUserParams{UserID: "se-u1", At: 20, SeenAfter: 10, N: 10})
	c.do("ListSessionsOfUser", db.ListSessionsOfUserParams{UserID: "se-u1", At: 100, SeenAfter: 0, N: 10})
	c.do("ListSessions", db.ListSessionsParams{At: 20, SeenAfter: 0, N: 3})
	c.do("ListSessions", db.ListSessionsParams{At: 20, SeenAfter: 0, Before: "se2", N: 3})
	c.want("1", "SeeSession", db.SeeSessionParams{ID: "se1", At: 50})
	c.want("0", "SeeSession", db.SeeSessionParams{ID: "se1", At: 40})
	c.want("0", "RotateSession", db.RotateSessionParams{ID: "se1", OldHash: []byte("other"), NewHash: []byte("se1b"), At: 60, Factor: "totp", EndsAt: 100})
	c.want("1", "RotateSession", db.RotateSessionParams{ID: "se1", OldHash: []byte("se1"), NewHash: []byte("se1b"), At: 60, Factor: "totp", EndsAt: 100})
	c.do("GetSession", "se1")
	c.want("0", "KeepSession", db.KeepSessionParams{ID: "se1", UserID: "se-u2", PasswordAt: 9})
	c.want("1", "KeepSession", db.KeepSessionParams{ID: "se1", UserID: "se-u1", PasswordAt: 9})
	c.want("1", "DeleteSession", "se2")
	c.want("0", "DeleteSession", "se2")
	c.want("1", "DeleteSessionsOfUser", db.DeleteSessionsOfUserParams{UserID: "se-u1", But: "se1"})
	c.want("1", "DeleteDeadSessions", db.DeleteDeadSessionsParams{At: 50, SeenBefore: 30}) // se4 was not used
	c.want("1", "DeleteSessionsOfUser", db.DeleteSessionsOfUserParams{UserID: "se-u1"})

	c.do("InsertSignin", db.InsertSigninParams{ID: "sn1", SecretHash: []byte("sn1"), UserID: "se-u1", Stage: "code", Data: []byte("d"), CreatedAt: 1, ExpiresAt: 50})
	c.do("InsertSignin", db.InsertSigninParams{ID: "sn2", SecretHash: []byte("sn2"), Stage: "setup", CreatedAt: 1, ExpiresAt: 5})
	c.do("GetSigninBySecret", []byte("sn1"))
	c.do("CountSigninsOfUser", db.CountSigninsOfUserParams{UserID: "se-u1", At: 49})
	c.do("CountSigninsOfUser", db.CountSigninsOfUserParams{UserID: "se-u1", At: 50})
	c.want("0", "AdvanceSignin", db.AdvanceSigninParams{ID: "sn1", Rev: 2, Stage: "x"})
	c.want("1", "AdvanceSignin", db.AdvanceSigninParams{ID: "sn1", Rev: 1, Stage: "new-password", Data: []byte("e"), Wrong: 1})
	c.do("GetSigninBySecret", []byte("sn1"))
	c.want("1", "DeleteDeadSignins", int64(6))
	c.want("1", "DeleteSigninsOfUser", "se-u1")
	c.want("0", "DeleteSignin", "sn1")

	for i, id := range []string{"at1", "at2", "at3"} {
		c.do("InsertAPIToken", db.InsertAPITokenParams{
			ID: id, SecretHash: []byte(id), UserID: []string{"se-u1", "se-u1", "se-u2"}[i], Name: id, Scopes: `["read"]`, Role: "auditor", CreatedAt: 1, ExpiresAt: int64(10 * (i + 1)),
		})
	}
	c.do("GetAPITokenBySecret", []byte("at1"))
	c.do("GetAPIToken", "at3")
	c.do("ListAPITokens", db.ListAPITokensParams{N: 2})
	c.do("ListAPITokens", db.ListAPITokensParams{UserID: "se-u1", After: "at1", N: 2})
	c.do("CountAPITokensOfUser", "se-u1")
	c.want("1", "UseAPIToken", db.UseAPITokenParams{ID: "at1", At: 5, Address: "192.0.2.1"})
	c.want("0", "UseAPIToken", db.UseAPITokenParams{ID: "at1", At: 5, Address: "192.0.2.2"})
	c.want("1", "DeleteDeadAPITokens", int64(11))
	c.want("1", "DeleteAPIToken", "at2")

	for _, id := range []string{"ap1", "ap2"} {
		c.do("InsertApproval", db.InsertApprovalParams{ID: id, Action: "remove-factor", SubjectID: "s", Subject: "sn", Reason: "r", RequesterID: "q", Requester: "qn", AskedAt: 1, ExpiresAt: 50})
	}
	c.do("GetApproval", "ap1")
	c.do("ListApprovals", db.ListApprovalsParams{Since: 49, N: 10})
	c.do("CountOpenApprovals", db.CountOpenApprovalsParams{At: 10, RequesterID: "q"})
	c.want("0", "UseApproval", db.UseApprovalParams{ID: "ap1", At: 10})
	c.want("0", "DecideApproval", db.DecideApprovalParams{ID: "ap1", State: "given", At: 50, ExpiresAt: 99})
	c.want("1", "DecideApproval", db.DecideApprovalParams{ID: "ap1", State: "given", ApproverID: "a", Approver: "an", At: 10, ExpiresAt: 60})
	c.want("0", "DecideApproval", db.DecideApprovalParams{ID: "ap1", State: "denied", At: 11, ExpiresAt: 60})
	c.want("1", "UseApproval", db.UseApprovalParams{ID: "ap1", At: 20})
	c.want("0", "UseApproval", db.UseApprovalParams{ID: "ap1", At: 20})
	c.want("1", "GiveBackApproval", "ap1")
	c.want("1", "UseApproval", db.UseApprovalParams{ID: "ap1", At: 21})
	c.want("2", "DeleteOldApprovals", int64(100))
}
