package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runCertificates) }

func runCertificates(c *script) {
	c.do("InsertUser", db.InsertUserParams{ID: "ceu", Name: "ceu", NameFold: "ceu", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertMachine", db.InsertMachineParams{
		ID: "cem", Number: 7001, Name: "cem", Status: "revoked", Mode: "normal", UnknownUsers: "deny", TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1,
	})
	for i, serial := range []string{"ce1", "ce2", "ce3"} {
		machine := ""
		if i > 0 {
			machine = "cem"
		}
		c.do("InsertUserCertificate", db.InsertUserCertificateParams{
			Serial: serial, UserID: "ceu", MachineID: machine, Name: "n", KeyClass: "file", NotBefore: 1, NotAfter: int64(100 * (i + 1)), CreatedAt: int64(i), Fingerprint: "f" + serial,
		})
	}
	c.do("GetUserCertificate", "ce1")
	c.do("ListUserCertificates", db.ListUserCertificatesParams{UserID: "ceu", N: 10})
	c.do("ListLiveUserCertificates", db.ListLiveUserCertificatesParams{UserID: "ceu", MachineID: "cem", At: 250})
	c.want("3", "CountLiveUserCertificates", db.CountLiveUserCertificatesParams{UserID: "ceu", At: 50})
	c.want("1", "SeeUserCertificate", db.SeeUserCertificateParams{Serial: "ce1", At: 5, Address: "192.0.2.1"})
	c.want("0", "SeeUserCertificate", db.SeeUserCertificateParams{Serial: "ce1", At: 5, Address: "192.0.2.1"})
	c.do("ListUnrevokedCertificates", db.ListUnrevokedCertificatesParams{MachineID: "cem"})
	c.do("ListUnrevokedCertificates", db.ListUnrevokedCertificatesParams{UserID: "ceu"})
	c.want("1", "RevokeUserCertificate", db.RevokeUserCertificateParams{Serial: "ce1", At: 6, Reason: "key-compromise"})
	c.want("0", "RevokeUserCertificate", db.RevokeUserCertificateParams{Serial: "ce1", At: 7, Reason: "superseded"})
	c.do("InsertMachineCertificate", db.InsertMachineCertificateParams{Serial: "ce4", MachineID: "cem", NotBefore: 1, NotAfter: 2, Fingerprint: "f"})
	c.want("1", "RevokeMachineCertificate", db.RevokeMachineCertificateParams{Serial: "ce4", At: 8, Reason: "superseded"})
	c.want("0", "RevokeMachineCertificate", db.RevokeMachineCertificateParams{Serial: "ce4", At: 9, Reason: "superseded"})

	c.want("0", "LastRevocation")
	c.do("NextNumber", "revocations")
	c.want("1", "LastRevocation")
	c.want("1", "InsertRevocation", db.InsertRevocationParams{Serial: "ce1", Number: 1, RevokedAt: 6, NotAfter: 100, Reason: "key-compromise"})
	c.want("0", "InsertRevocation", db.InsertRevocationParams{Serial: "ce1", Number: 2, RevokedAt: 7, NotAfter: 100})
	c.want("1", "InsertRevocation", db.InsertRevocationParams{Serial: "ce4", Number: 2, RevokedAt: 8, NotAfter: 200})
	c.do("ListRevocations", db.ListRevocationsParams{At: 50, N: 1})
	c.do("ListRevocations", db.ListRevocationsParams{At: 150, After: "ce1", N: 10})
	c.do("RevokedSince", db.RevokedSinceParams{Number: 1, N: 10})
	c.want("1", "DeleteOldRevocations", int64(150))
	c.do("PutRevocationList", db.PutRevocationListParams{Number: 1, Upto: 1, Der: []byte{0, 1}, ThisUpdate: 1, NextUpdate: 2})
	c.do("PutRevocationList", db.PutRevocationListParams{Number: 2, Upto: 2, Der: []byte{0, 2}, ThisUpdate: 3, NextUpdate: 4})
	c.do("GetRevocationList")

	for i, id := range []string{"ces1", "ces2"} {
		c.do("InsertSession", db.InsertSessionParams{ID: id, SecretHash: []byte("ces" + id), UserID: "ceu", Kind: "browser", Factor: "certificate", BeganAt: 1, SeenAt: 1, EndsAt: 1000})
		c.do("InsertCertificateSession", db.InsertCertificateSessionParams{SessionID: id, Serial: []string{"ce1", "ce2"}[i]})
	}
	c.do("GetCertificateSession", "ces1")
	c.want("1", "DeleteSessionsOfCertificate", "ce1")
	c.want("1", "DeleteCertificateSessions")
	c.want("1", "DeleteOldUserCertificates", int64(150))
	c.want("0", "LastWindowOpened", db.LastWindowOpenedParams{UserID: "ceu", MachineID: "cem"})
	c.do("InsertWindow", db.InsertWindowParams{ID: "cew", UserID: "ceu", MachineID: "cem", OpenedAt: 7, ExpiresAt: 9, Scopes: "[]", Factors: `["totp"]`})
	c.do("InsertWindow", db.InsertWindowParams{ID: "cew2", UserID: "ceu", MachineID: "cem", OpenedAt: 8, ExpiresAt: 9, Scopes: "[]", Factors: `["mail","backup"]`})
	c.want("7", "LastWindowOpened", db.LastWindowOpenedParams{UserID: "ceu", MachineID: "cem"})
	c.want("1", "EndWindow", db.EndWindowParams{ID: "cew", At: 8, Reason: "logoff"})
	c.want("7", "LastWindowOpened", db.LastWindowOpenedParams{UserID: "ceu", MachineID: "cem"})
	c.want("1", "EndWindow", db.EndWindowParams{ID: "cew2", At: 9, Reason: "revoked"})
	c.want("0", "LastWindowOpened", db.LastWindowOpenedParams{UserID: "ceu", MachineID: "cem"})
	c.do("InsertWindow", db.InsertWindowParams{ID: "cew3", UserID: "ceu", MachineID: "cem", OpenedAt: 10, ExpiresAt: 12, Scopes: "[]", Factors: `["push"]`})
	c.want("10", "LastWindowOpened", db.LastWindowOpenedParams{UserID: "ceu", MachineID: "cem"})
	c.want("1", "DeleteUser", "ceu")
	c.want("1", "DeleteMachine", "cem")
}
