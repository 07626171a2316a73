package store_test

import "latchkey/internal/server/store/db"

func init() { scripts = append(scripts, runPasskeys) }

func runPasskeys(c *script) {
	for _, id := range []string{"pk-u1", "pk-u2"} {
		c.do("InsertUser", db.InsertUserParams{ID: id, Name: id, NameFold: id, Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	}
	c.want("1", "InsertPasskeyUser", db.InsertPasskeyUserParams{UserID: "pk-u1", Handle: []byte("h1"), CreatedAt: 1})
	c.want("0", "InsertPasskeyUser", db.InsertPasskeyUserParams{UserID: "pk-u1", Handle: []byte("h2"), CreatedAt: 2})
	c.do("GetPasskeyUser", "pk-u1")
	c.do("GetPasskeyUser", "pk-u2")
	c.do("GetPasskeyUserByHandle", []byte("h1"))
	c.do("GetPasskeyUserByHandle", []byte("h2"))
	for _, id := range []string{"pk1", "pk2"} {
		c.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: id, UserID: "pk-u1", Kind: "fido2", Name: id, Params: "{}", ConfirmedAt: 1, CreatedAt: 1})
		c.do("InsertPasskey", db.InsertPasskeyParams{
			AuthenticatorID: id, UserID: "pk-u1", CredentialID: []byte(id), PublicKey: []byte("cose"), RpID: "latchkey.test", Aaguid: "a", Attestation: "none", Transports: `["usb"]`,
			Attachment: "cross-platform", SignCount: 4, VerifiesUser: true, BackupEligible: true, BackedUp: false, Discoverable: true,
		})
	}
	c.do("GetPasskey", "pk1")
	c.do("ListPasskeysOfUser", "pk-u1")
	c.do("ListPasskeysOfUser", "pk-u2")
	c.want("0", "UsePasskey", db.UsePasskeyParams{ID: "pk1", SignCount: 6, Was: 5})
	c.want("1", "UsePasskey", db.UsePasskeyParams{ID: "pk1", SignCount: 6, BackedUp: true, Was: 4})
	c.want("1", "UseAuthenticator", db.UseAuthenticatorParams{ID: "pk1", At: 7})
	c.do("InsertMachine", db.InsertMachineParams{ID: "pk-m", Number: 990011, Name: "pk-m", Status: "revoked", Mode: "normal", UnknownUsers: "deny", AllUsers: true, TPMClass: "none", TPMInfo: "{}", CreatedAt: 1})
	use := db.RaisePasskeyUseParams{MachineID: "pk-m", AuthenticatorID: "pk1", At: 5}
	c.want("1", "RaisePasskeyUse", use)
	c.want("0", "RaisePasskeyUse", use) // told twice
	use.At = 6
	c.want("1", "RaisePasskeyUse", use)
	c.do("GetPasskeyUse", db.GetPasskeyUseParams{MachineID: "pk-m", AuthenticatorID: "pk1"})
	c.want("1", "DeleteMachine", "pk-m")
	c.want("1", "MarkPasskeyCloned", db.MarkPasskeyClonedParams{ID: "pk1", At: 9})
	c.want("0", "MarkPasskeyCloned", db.MarkPasskeyClonedParams{ID: "pk1", At: 10})
	c.want("0", "UsePasskey", db.UsePasskeyParams{ID: "pk1", SignCount: 7, Was: 6})
	c.want("1", "SetAuthenticatorLost", "pk1")
	c.want("0", "UseAuthenticator", db.UseAuthenticatorParams{ID: "pk1", At: 11})
	c.do("ListPasskeysOfUser", "pk-u1")
	c.want("1", "DeleteAuthenticator", "pk2")
	c.do("GetPasskey", "pk2") // it goes with its authenticator

	c.do("PutPasskeyChallenge", db.PutPasskeyChallengeParams{Ticket: "pt1", UserID: "pk-u1", Data: "{}", CreatedAt: 1, ExpiresAt: 5})
	c.do("PutPasskeyChallenge", db.PutPasskeyChallengeParams{Ticket: "pt1", Data: `{"x":1}`, CreatedAt: 2, ExpiresAt: 6})
	c.do("PutPasskeyChallenge", db.PutPasskeyChallengeParams{Ticket: "pt2", Data: "{}", CreatedAt: 2, ExpiresAt: 3})
	c.do("GetPasskeyChallenge", "pt1")
	c.want("1", "DeleteOldPasskeyChallenges", int64(4))
	c.do("GetPasskeyChallenge", "pt2")
	c.want("1", "DeletePasskeyChallenge", "pt1")
	c.want("0", "DeletePasskeyChallenge", "pt1")

	c.do("InsertSession", db.InsertSessionParams{ID: "pk-s", SecretHash: []byte("pk-s"), UserID: "pk-u1", Kind: "browser", Factor: "fido2", BeganAt: 1, SeenAt: 1, EndsAt: 100})
	c.want("0", "SetSessionProof", db.SetSessionProofParams{ID: "pk-s", SecretHash: []byte("other"), Proof: []byte("p")})
	c.want("1", "SetSessionProof", db.SetSessionProofParams{ID: "pk-s", SecretHash: []byte("pk-s"), Proof: []byte("p")})
	c.do("GetSession", "pk-s")
	c.want("1", "RotateSession", db.RotateSessionParams{ID: "pk-s", OldHash: []byte("pk-s"), NewHash: []byte("pk-t"), At: 2, Factor: "fido2", EndsAt: 100})
	c.do("GetSession", "pk-s") // what was asked for is answered
	c.do("InsertEnrolCode", db.InsertEnrolCodeParams{ID: "pk-e", UserID: "pk-u1", Hash: []byte("e"), CreatedAt: 1, ExpiresAt: 50, CreatedBy: "root"})
	c.want("1", "SetEnrolCodeMade", db.SetEnrolCodeMadeParams{ID: "pk-e", Made: "pk1"})
	c.want("0", "SetEnrolCodeMade", db.SetEnrolCodeMadeParams{ID: "pk-x", Made: "pk1"})
	c.do("GetEnrolCode", "pk-e")
	c.want("1", "DeleteSession", "pk-s")
	c.want("1", "DeleteUser", "pk-u1")
	c.want("1", "DeleteUser", "pk-u2")
}
