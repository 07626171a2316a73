package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// script calls queries by name, each in a transaction of its own, and writes down
// what they answer.
type script struct {
	t   *testing.T
	s   *store.Store
	ran map[string]bool
	out []string
}

func (c *script) do(name string, args ...any) {
	c.t.Helper()
	c.ran[name] = true
	var answer any
	err := c.s.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		m := reflect.ValueOf(tx.Queries).MethodByName(name)
		if !m.IsValid() {
			return fmt.Errorf("there is no query %s", name)
		}
		in := []reflect.Value{reflect.ValueOf(ctx)}
		for _, a := range args {
			in = append(in, reflect.ValueOf(a))
		}
		out := m.Call(in)
		if len(out) == 2 {
			answer = out[0].Interface()
		}
		err, _ := out[len(out)-1].Interface().(error)
		if errors.Is(err, sql.ErrNoRows) {
			answer = "no row"
			return nil
		}
		return err
	})
	if err != nil {
		c.t.Errorf("%s(%+v): %v", name, args, err)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		c.t.Fatal(err)
	}
	c.out = append(c.out, name+" "+string(b))
}

// doUnordered is do for an answer that has no order (RETURNING).
func (c *script) doUnordered(name string, args ...any) {
	c.t.Helper()
	c.do(name, args...)
	last := &c.out[len(c.out)-1]
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(strings.TrimPrefix(*last, name)), &list); err != nil {
		c.t.Fatalf("%s: %v", *last, err)
	}
	slices.SortFunc(list, func(a, b json.RawMessage) int { return strings.Compare(string(a), string(b)) })
	b, _ := json.Marshal(list)
	*last = name + " " + string(b)
}

// want runs a query and checks what it answers.
func (c *script) want(want, name string, args ...any) {
	c.t.Helper()
	c.do(name, args...)
	if got := c.out[len(c.out)-1]; got != name+" "+want {
		c.t.Errorf("%s(%+v) answers\n%s, want\n%s", name, args, got, name+" "+want)
	}
}

// TestEveryQueryAnswersTheSameOnBothEngines fails for a query that no script calls:
// whoever adds queries/x.sql adds x_queries_test.go with a script like those below,
// and puts it into scripts.
func TestEveryQueryAnswersTheSameOnBothEngines(t *testing.T) {
	var transcripts [][]string
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		c := &script{t: t, s: s, ran: map[string]bool{}}
		for _, part := range scripts {
			part(c)
		}
		transcripts = append(transcripts, c.out)
		typ := reflect.TypeFor[*db.Queries]()
		for i := range typ.NumMethod() {
			if name := typ.Method(i).Name; name != "WithTx" && !c.ran[name] {
				t.Errorf("the query %s is not called by this test", name)
			}
		}
	})
	if len(transcripts) != 2 {
		t.Fatal("not both engines ran")
	}
	if d := cmp.Diff(transcripts[0], transcripts[1]); d != "" {
		t.Errorf("SQLite (-) and PostgreSQL (+) differ:\n%s", d)
	}
}

// scripts are the parts, in order: later ones use the rows of earlier ones. At the
// end stand the users u1 to u3, the machines m1 and m2 (active) and m3 (revoked).
var scripts = []func(*script){runUsers, runPolicies, runMachines, runSignin, runVaults, runEvents, runSettings}

func runUsers(c *script) {
	uid := int64(1000)
	c.do("InsertUser", db.InsertUserParams{ID: "u1", Name: "alice", NameFold: "alice", Role: "owner", Activation: "now", MFA: "on", UID: &uid, CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertUser", db.InsertUserParams{ID: "u2", Name: "Alice", NameFold: "alice", Role: "none", Activation: "first-login", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertUser", db.InsertUserParams{ID: "u3", Name: "émile", NameFold: "émile", Role: "none", Activation: "now", MFA: "off", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertUser", db.InsertUserParams{ID: "u4", Name: "a_b", NameFold: "a_b", Role: "none", Activation: "now", MFA: "off", Disabled: true, CreatedAt: 1, UpdatedAt: 1})
	c.do("GetUser", "u1")
	c.do("GetUser", "u9")
	c.do("GetUserByName", "alice")
	c.do("GetUserByName", "ALICE")
	c.do("ListUsersByFold", "alice")
	c.do("ListUsersByUID", uid)
	c.do("ListUsers", db.ListUsersParams{N: 10}) // byte order: Alice, a_b, alice, émile
	c.do("ListUsers", db.ListUsersParams{After: "Alice", N: 2})
	c.do("ListUsers", db.ListUsersParams{Prefix: "ém", N: 10})
	c.do("ListUsers", db.ListUsersParams{Prefix: "a_", N: 10})
	c.want("4", "CountUsers")
	c.want("1", "CountActiveOwners", db.CountActiveOwnersParams{At: 5})
	c.want("0", "CountActiveOwners", db.CountActiveOwnersParams{At: 5, OtherThan: "u1"})
	c.want("1", "UpdateUser", db.UpdateUserParams{DisplayName: "Alice A", Mail: "a@x", Role: "owner", Activation: "now", MFA: "off", UpdatedAt: 2, ID: "u1", Rev: 1})
	c.want("0", "UpdateUser", db.UpdateUserParams{DisplayName: "late", Role: "owner", Activation: "now", MFA: "off", UpdatedAt: 3, ID: "u1", Rev: 1})
	c.want("1", "UpdateUser", db.UpdateUserParams{DisplayName: "Alice A", Mail: "a@x", Role: "owner", Activation: "at", ActivateAt: 10, MFA: "off", UpdatedAt: 2, ID: "u1", Rev: 2})
	c.want("0", "CountActiveOwners", db.CountActiveOwnersParams{At: 9}) // not yet
	c.want("1", "CountActiveOwners", db.CountActiveOwnersParams{At: 10})
	c.want("1", "SetUserPassword", db.SetUserPasswordParams{PasswordHash: "h1", At: 5, MustChange: true, ID: "u1"})
	c.want("1", "ActivateUser", db.ActivateUserParams{At: 6, ID: "u2"})
	c.want("0", "ActivateUser", db.ActivateUserParams{At: 7, ID: "u2"})
	c.do("GetUser", "u1")
	c.do("InsertGroup", db.InsertGroupParams{ID: "g1", Name: "staff", MFA: "on", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertGroup", db.InsertGroupParams{ID: "g2", Name: "Guests", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertGroup", db.InsertGroupParams{ID: "g3", Name: "old", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
	c.do("GetGroup", "g1")
	c.do("GetGroupByName", "staff")
	c.do("ListGroups", db.ListGroupsParams{N: 10})
	c.do("ListGroups", db.ListGroupsParams{After: "Guests", N: 1})
	c.want("1", "UpdateGroup", db.UpdateGroupParams{Name: "guests", MFA: "off", UpdatedAt: 2, ID: "g2", Rev: 1})
	c.want("0", "DeleteGroup", db.DeleteGroupParams{ID: "g3", Rev: 2})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "g3", UserID: "u1"})
	c.want("1", "DeleteGroup", db.DeleteGroupParams{ID: "g3", Rev: 1})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "g1", UserID: "u1"})
	c.want("0", "AddGroupMember", db.AddGroupMemberParams{GroupID: "g1", UserID: "u1"})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "g1", UserID: "u2"})
	c.want("1", "AddGroupMember", db.AddGroupMemberParams{GroupID: "g2", UserID: "u1"})
	c.do("ListGroupsOfUser", "u1")
	c.do("ListMembersOfGroup", db.ListMembersOfGroupParams{GroupID: "g1", N: 10})
	c.do("ListMembersOfGroup", db.ListMembersOfGroupParams{GroupID: "g1", After: "Alice", N: 10})
	c.want("1", "RemoveGroupMember", db.RemoveGroupMemberParams{GroupID: "g1", UserID: "u2"})
	c.want("1", "DeleteUser", "u4")
}

func runPolicies(c *script) {
	c.do("InsertPolicy", db.InsertPolicyParams{ID: "p0", Name: "default", IsDefault: true, Body: "{}", CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertPolicy", db.InsertPolicyParams{ID: "p1", Name: "staff", Priority: 10, Body: `{"x":1}`, CreatedAt: 1, UpdatedAt: 1})
	c.do("InsertPolicy", db.InsertPolicyParams{ID: "p2", Name: "guests", Priority: 20, Body: `{"x":2}`, CreatedAt: 1, UpdatedAt: 1})
	c.do("GetPolicy", "p1")
	c.do("GetPolicyByName", "guests")
	c.do("GetDefaultPolicy")
	c.want("1", "AddPolicyGroup", db.AddPolicyGroupParams{PolicyID: "p1", GroupID: "g1"})
	c.want("0", "AddPolicyGroup", db.AddPolicyGroupParams{PolicyID: "p1", GroupID: "g1"})
	c.want("1", "AddPolicyGroup", db.AddPolicyGroupParams{PolicyID: "p1", GroupID: "g2"})
	c.want("1", "AddPolicyGroup", db.AddPolicyGroupParams{PolicyID: "p2", GroupID: "g2"})
	c.do("ListPolicies")
	c.do("ListGroupsOfPolicy", "p1")
	c.do("ListPolicyGroups")
	c.want("1", "UpdatePolicy", db.UpdatePolicyParams{Name: "staff", Priority: 30, Body: `{"x":3}`, UpdatedAt: 2, ID: "p1", Rev: 1})
	c.want("0", "UpdatePolicy", db.UpdatePolicyParams{Name: "staff", Priority: 30, Body: `{"x":3}`, UpdatedAt: 2, ID: "p1", Rev: 1})
	c.do("InsertPolicyVersion", db.InsertPolicyVersionParams{PolicyID: "p1", Version: 1, Name: "staff", Priority: 10, Body: `{"x":1}`, Groups: "[]", Actor: "a", At: 1})
	c.do("InsertPolicyVersion", db.InsertPolicyVersionParams{PolicyID: "p1", Version: 2, Name: "staff", Priority: 30, Body: `{"x":3}`, Groups: "[]", Actor: "a", At: 2, Comment: "why"})
	c.do("GetPolicyVersion", db.GetPolicyVersionParams{PolicyID: "p1", Version: 2})
	c.do("ListPolicyVersions", db.ListPolicyVersionsParams{PolicyID: "p1", N: 10})
	c.want("1", "ClearPolicyGroups", "p2")
	c.want("0", "DeletePolicy", db.DeletePolicyParams{ID: "p0", Rev: 1})
	c.want("1", "DeletePolicy", db.DeletePolicyParams{ID: "p2", Rev: 1})
}

func runMachines(c *script) {
	c.want("1", "NextNumber", "machine")
	c.want("2", "NextNumber", "machine")
	c.want("1", "NextNumber", "other")
	for i, id := range []string{"m1", "m2", "m3"} {
		c.do("InsertMachine", db.InsertMachineParams{
			ID: id, Number: int64(i + 1), Name: "host" + id, Status: "pending", Mode: "normal", UnknownUsers: "deny",
			AllUsers: i > 0, TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1,
		})
	}
	c.do("GetMachine", "m1")
	c.do("GetMachineByNumber", int64(2))
	c.do("ListMachinesByName", "hostm3")
	c.want("1", "SetMachineStatus", db.SetMachineStatusParams{Status: "active", At: 2, ID: "m1", FromStatus: "pending", OrStatus: "pending"})
	c.want("1", "SetMachineStatus", db.SetMachineStatusParams{Status: "active", At: 2, ID: "m2", FromStatus: "pending", OrStatus: "pending"})
	c.want("1", "SetMachineStatus", db.SetMachineStatusParams{Status: "revoked", Refusal: []byte{1, 0, 2}, At: 3, ID: "m3", FromStatus: "pending", OrStatus: "active"})
	c.want("0", "SetMachineStatus", db.SetMachineStatusParams{Status: "active", At: 4, ID: "m3", FromStatus: "pending", OrStatus: "pending"})
	c.do("GetMachine", "m3")
	c.do("ListMachines", db.ListMachinesParams{N: 10})
	c.do("ListMachines", db.ListMachinesParams{After: "m1", Status: "active", N: 10})
	c.do("CountMachinesByStatus")
	c.want("1", "UpdateMachine", db.UpdateMachineParams{Name: "a", Mode: "enforced", UnknownUsers: "skip", OwnerUser: "u1", UpdatedAt: 3, ID: "m1", Rev: 2})
	c.want("0", "UpdateMachine", db.UpdateMachineParams{Name: "b", Mode: "normal", UnknownUsers: "skip", UpdatedAt: 3, ID: "m1", Rev: 2})
	c.want("1", "SeeMachine", db.SeeMachineParams{At: 10, Address: "192.0.2.2", ID: "m1"})
	c.want("0", "SeeMachine", db.SeeMachineParams{At: 8, Address: "192.0.2.2", ID: "m1"})
	c.want("1", "BumpMachine", "m1")
	c.doUnordered("BumpAllMachines")
	c.want("1", "AddMachineUser", db.AddMachineUserParams{MachineID: "m1", UserID: "u1"})
	c.want("0", "AddMachineUser", db.AddMachineUserParams{MachineID: "m1", UserID: "u1"})
	c.want("1", "MachineAllowsUser", db.MachineAllowsUserParams{MachineID: "m1", UserID: "u1"})
	c.want("0", "MachineAllowsUser", db.MachineAllowsUserParams{MachineID: "m1", UserID: "u2"})
	c.want("1", "MachineAllowsUser", db.MachineAllowsUserParams{MachineID: "m2", UserID: "u2"})
	c.want("0", "MachineAllowsUser", db.MachineAllowsUserParams{MachineID: "m9", UserID: "u2"})
	c.do("ListMachineUsers", "m1")
	c.want("1", "RemoveMachineUser", db.RemoveMachineUserParams{MachineID: "m1", UserID: "u1"})
	c.do("InsertMachineCertificate", db.InsertMachineCertificateParams{Serial: "s1", MachineID: "m1", NotBefore: 1, NotAfter: 2, Fingerprint: "f"})
	c.do("GetMachineCertificate", "s1")
	c.do("ListMachineCertificates", "m1")
	c.want("1", "RevokeMachineCertificates", db.RevokeMachineCertificatesParams{At: 5, MachineID: "m1"})
	c.want("0", "RevokeMachineCertificates", db.RevokeMachineCertificatesParams{At: 6, MachineID: "m1"})
	c.do("InsertJoinToken", db.InsertJoinTokenParams{ID: "j1", SecretHash: []byte{1}, Kind: "single", CreatedBy: "a", CreatedAt: 1, ExpiresAt: 100})
	c.do("InsertJoinToken", db.InsertJoinTokenParams{ID: "j2", SecretHash: []byte{2}, Kind: "mass", CreatedBy: "a", CreatedAt: 1, ExpiresAt: 100})
	c.do("InsertJoinToken", db.InsertJoinTokenParams{ID: "j3", SecretHash: []byte{3}, Kind: "single", CreatedBy: "a", CreatedAt: 1, ExpiresAt: 100})
	c.do("GetJoinToken", []byte{1})
	c.want("0", "SpendJoinToken", db.SpendJoinTokenParams{At: 100, MachineID: "m1", ID: "j1"})
	c.want("1", "SpendJoinToken", db.SpendJoinTokenParams{At: 99, MachineID: "m1", ID: "j1"})
	c.want("0", "SpendJoinToken", db.SpendJoinTokenParams{At: 99, MachineID: "m1", ID: "j1"})
	c.want("0", "SpendJoinToken", db.SpendJoinTokenParams{At: 99, MachineID: "m1", ID: "j2"})
	c.do("ListJoinTokens", db.ListJoinTokensParams{After: "j1", N: 10})
	c.want("1", "DeleteJoinToken", "j3")
}

func runSignin(c *script) {
	c.do("InsertConversation", db.InsertConversationParams{ID: "c1", MachineID: "m1", UserID: "u1", UserName: "alice", Scope: "logon", Service: "login", Stage: "begun", Data: []byte{0, 255}, CreatedAt: 10, ExpiresAt: 60})
	c.do("InsertConversation", db.InsertConversationParams{ID: "c2", MachineID: "m1", UserName: "bob", Stage: "begun", CreatedAt: 10, ExpiresAt: 20})
	c.do("GetConversation", "c1")
	c.want("1", "ClaimConversation", db.ClaimConversationParams{Seq: 1, BodyHash: []byte("h"), ID: "c1", Rev: 1})
	c.want("0", "ClaimConversation", db.ClaimConversationParams{Seq: 1, BodyHash: []byte("h"), ID: "c1", Rev: 1})
	c.want("1", "AdvanceConversation", db.AdvanceConversationParams{Stage: "code", Data: []byte{1}, Seq: 1, BodyHash: []byte("h"), Reply: []byte("r"), UserID: "u1", ExpiresAt: 61, ID: "c1", Rev: 2})
	c.want("0", "AdvanceConversation", db.AdvanceConversationParams{Stage: "code", ID: "c1", Rev: 2})
	c.do("GetConversation", "c1")
	c.want("2", "CountOpenConversations", db.CountOpenConversationsParams{MachineID: "m1", Since: 5})
	c.want("1", "DeleteExpiredConversations", int64(30))

	for i, id := range []string{"a1", "a2", "a3"} {
		c.do("InsertAuthenticator", db.InsertAuthenticatorParams{ID: id, UserID: "u1", Kind: []string{"totp", "totp", "fido2"}[i], Name: id, Secret: []byte{byte(i)}, Params: "{}", CreatedAt: 1})
	}
	c.do("GetAuthenticator", "a1")
	c.want("0", "UseAuthenticator", db.UseAuthenticatorParams{At: 2, ID: "a1"}) // it is not confirmed
	c.want("1", "ConfirmAuthenticator", db.ConfirmAuthenticatorParams{At: 2, Step: 50, ID: "a1"})
	c.want("1", "UseAuthenticator", db.UseAuthenticatorParams{At: 3, ID: "a1"})
	c.want("0", "ConfirmAuthenticator", db.ConfirmAuthenticatorParams{At: 3, Step: 51, ID: "a1"})
	c.want("0", "SpendStep", db.SpendStepParams{Step: 50, At: 4, ID: "a1"})
	c.want("1", "SpendStep", db.SpendStepParams{Step: 51, Drift: -1, At: 4, ID: "a1"})
	c.want("0", "SpendStep", db.SpendStepParams{Step: 51, At: 5, ID: "a1"})
	c.do("ListAuthenticators", "u1")
	c.do("ListUsableAuthenticators", "u1")
	c.want("1", "RenameAuthenticator", db.RenameAuthenticatorParams{Name: "phone", ID: "a1"})
	c.want("1", "DeleteAuthenticator", "a3")
	c.want("2", "MarkAuthenticatorsLost", db.MarkAuthenticatorsLostParams{UserID: "u1", Kind: "totp"})
	c.do("ListUsableAuthenticators", "u1")

	c.do("InsertBackupCode", db.InsertBackupCodeParams{ID: "b1", UserID: "u1", SetID: "s", Hash: []byte("h"), CreatedAt: 1})
	c.do("InsertBackupCode", db.InsertBackupCodeParams{ID: "b2", UserID: "u1", SetID: "s", Hash: []byte("i"), CreatedAt: 1})
	c.want("0", "SpendBackupCode", db.SpendBackupCodeParams{At: 2, MachineID: "m1", ID: "b1", UserID: "u2"})
	c.want("1", "SpendBackupCode", db.SpendBackupCodeParams{At: 2, MachineID: "m1", ID: "b1", UserID: "u1"})
	c.want("0", "SpendBackupCode", db.SpendBackupCodeParams{At: 3, MachineID: "m2", ID: "b1", UserID: "u1"})
	c.do("GetBackupCode", "b1")
	c.do("ListUnusedBackupCodes", "u1")
	c.want("2", "DeleteBackupCodes", "u1")

	c.do("InsertBypassCode", db.InsertBypassCodeParams{ID: "y1", UserID: "u1", Hash: []byte("h"), Scope: "logon", Reason: "r", CreatedAt: 1, ExpiresAt: 10, CreatedBy: "a"})
	c.do("ListValidBypassCodes", db.ListValidBypassCodesParams{UserID: "u1", At: 9})
	c.do("ListValidBypassCodes", db.ListValidBypassCodesParams{UserID: "u1", At: 10})
	c.want("0", "SpendBypassCode", db.SpendBypassCodeParams{At: 10, ID: "y1"})
	c.want("1", "SpendBypassCode", db.SpendBypassCodeParams{At: 9, ID: "y1"})
	c.want("0", "SpendBypassCode", db.SpendBypassCodeParams{At: 9, ID: "y1"})
	c.do("InsertEnrolCode", db.InsertEnrolCodeParams{ID: "e1", UserID: "u1", Hash: []byte("h"), CreatedAt: 1, ExpiresAt: 10, CreatedBy: "a"})
	c.do("ListValidEnrolCodes", db.ListValidEnrolCodesParams{UserID: "u1", At: 9})
	c.want("1", "SpendEnrolCode", db.SpendEnrolCodeParams{At: 9, ID: "e1"})
	c.want("0", "SpendEnrolCode", db.SpendEnrolCodeParams{At: 9, ID: "e1"})

	for i, id := range []string{"w1", "w2", "w3", "w4"} {
		c.do("InsertWindow", db.InsertWindowParams{ID: id, UserID: "u1", MachineID: []string{"m1", "m1", "m2", "m1"}[i], Boot: "b1", OpenedAt: int64(10 + i), ExpiresAt: int64(100 + i), Scopes: `["logon"]`, Factors: `["totp"]`})
	}
	c.do("GetWindow", "w1")
	c.do("ListValidWindows", db.ListValidWindowsParams{UserID: "u1", MachineID: "m1", At: 12})
	c.do("ListValidWindows", db.ListValidWindowsParams{UserID: "u1", MachineID: "m1", At: 9})
	c.do("ListWindows", db.ListWindowsParams{At: 50, N: 10})
	c.do("ListWindows", db.ListWindowsParams{At: 50, UserID: "u1", MachineID: "m2", N: 10})
	c.do("ListWindows", db.ListWindowsParams{After: "w1", At: 50, UserID: "u2", N: 10})
	c.want("1", "EndWindow", db.EndWindowParams{At: 50, Reason: "revoked", ID: "w1"})
	c.want("0", "EndWindow", db.EndWindowParams{At: 51, Reason: "revoked", ID: "w1"})
	c.doUnordered("EndWindows", db.EndWindowsParams{At: 52, Reason: "revoked", UserID: "u1"})
	c.doUnordered("EndWindows", db.EndWindowsParams{At: 52, Reason: "revoked", MachineID: "m2"})

	attempt := db.CountAttemptParams{UserID: "u1", MachineID: "m1", At: 10, ForgetBefore: 0}
	c.do("CountAttempt", attempt)
	attempt.At = 20
	c.do("CountAttempt", attempt)
	c.do("CountAttempt", db.CountAttemptParams{UserID: "u1", MachineID: "", At: 20})
	c.want("1", "BlockAttempts", db.BlockAttemptsParams{BlockedUntil: 30, LockedUntil: 100, UserID: "u1", MachineID: "m1"})
	c.want("1", "BlockAttempts", db.BlockAttemptsParams{BlockedUntil: 25, LockedUntil: 0, UserID: "u1", MachineID: "m1"})
	c.do("GetAttempt", db.GetAttemptParams{UserID: "u1", MachineID: "m1"})
	attempt.At, attempt.ForgetBefore = 1000, 900
	c.do("CountAttempt", attempt) // begins anew, stays locked
	c.want("0", "DeleteOldAttempts", db.DeleteOldAttemptsParams{Before: 10, At: 2000})
	c.want("2", "ForgiveAttempts", db.ForgiveAttemptsParams{UserID: "u1", MachineID: "m1"})
	c.do("CountAttempt", attempt)
	c.want("1", "ClearAttemptsOfUser", "u1")
	c.want("0", "ClearAttemptsOfUser", "u1")
}

func runVaults(c *script) {
	c.want("1", "NextVaultGeneration", db.NextVaultGenerationParams{UserID: "u1", MachineID: "m1"})
	v := db.InsertVaultParams{UserID: "u1", MachineID: "m1", Generation: 1, State: "allocated", Class: "tpm", Key: []byte("k"), FailHandle: 100, PassHandle: 101, FailLimit: 10, UseLimit: 50, Period: 30, UsesLeft: 50, CreatedAt: 1, UpdatedAt: 1}
	c.do("InsertVault", v)
	v.Generation, v.FailHandle, v.PassHandle, v.State = 2, 102, 103, "activating"
	c.do("InsertVault", v)
	v.UserID, v.MachineID, v.Generation, v.State = "u2", "m2", 1, "allocated"
	c.do("InsertVault", v)
	c.want("3", "NextVaultGeneration", db.NextVaultGenerationParams{UserID: "u1", MachineID: "m1"})
	c.want("0", "SignVaultFail", db.SignVaultFailParams{At: 2, UserID: "u1", MachineID: "m1", Generation: 1})
	c.want("1", "SignVaultFail", db.SignVaultFailParams{At: 2, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("0", "SignVaultFail", db.SignVaultFailParams{At: 2, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("1", "SignVaultPass", db.SignVaultPassParams{At: 2, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("0", "SignVaultPass", db.SignVaultPassParams{At: 2, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("1", "ActivateVault", db.ActivateVaultParams{At: 3, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("0", "ActivateVault", db.ActivateVaultParams{At: 3, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("1", "RetireOtherVaults", db.RetireOtherVaultsParams{At: 3, UserID: "u1", MachineID: "m1", Generation: 2})
	c.do("GetVault", db.GetVaultParams{UserID: "u1", MachineID: "m1", Generation: 1})
	c.do("GetActiveVault", db.GetActiveVaultParams{UserID: "u1", MachineID: "m1"})
	c.do("GetActiveVault", db.GetActiveVaultParams{UserID: "u2", MachineID: "m2"})
	c.do("ListVaultsOfPair", db.ListVaultsOfPairParams{UserID: "u1", MachineID: "m1"})
	c.do("ListVaultsOfMachine", "m1")
	c.do("ListVaultsOfUser", "u1")
	c.want("1", "ExtendVault", db.ExtendVaultParams{FirstStep: 5, LastStep: 500, LastMFAAt: 4, ExpiresAt: 900, UsesLeft: 50, At: 4, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("0", "ExtendVault", db.ExtendVaultParams{FirstStep: 5, LastStep: 500, LastMFAAt: 4, ExpiresAt: 900, UsesLeft: 50, At: 4, UserID: "u1", MachineID: "m1", Generation: 1})
	c.want("1", "SyncVault", db.SyncVaultParams{UsesLeft: 49, At: 5, UserID: "u1", MachineID: "m1", Generation: 2})
	c.want("1", "WantLift", db.WantLiftParams{Wanted: true, At: 6, UserID: "u1", MachineID: "m1", Generation: 2})
	c.doUnordered("WantDisenrol", db.WantDisenrolParams{At: 7, UserID: "u2"})
	c.want("1", "WipeVault", db.WipeVaultParams{At: 8, UserID: "u1", MachineID: "m1", Generation: 1})
	c.want("0", "WipeVault", db.WipeVaultParams{At: 8, UserID: "u1", MachineID: "m1", Generation: 1})
	c.do("GetVault", db.GetVaultParams{UserID: "u1", MachineID: "m1", Generation: 1})
	c.want("1", "WipeVaultsOfMachine", db.WipeVaultsOfMachineParams{At: 9, MachineID: "m2"})

	c.do("GetJournalHead", "m1")
	c.want("1", "StartJournal", db.StartJournalParams{MachineID: "m1"})
	c.want("0", "StartJournal", db.StartJournalParams{MachineID: "m1"})
	c.want("1", "MoveJournalHead", db.MoveJournalHeadParams{Seq: 3, Hash: []byte("h"), Counter: 7, At: 1, MachineID: "m1", OldSeq: 0, Day: 5, Taken: 2, Folded: 1, Kinds: `{"x":1}`})
	c.want("0", "MoveJournalHead", db.MoveJournalHeadParams{Seq: 3, Hash: []byte("h"), Counter: 7, At: 1, MachineID: "m1", OldSeq: 0})
	c.want("0", "MoveJournalHead", db.MoveJournalHeadParams{Seq: 4, MachineID: "m1", OldSeq: 3, OldDay: 5, OldTaken: 2})
	c.do("ListFoldedJournals", db.ListFoldedJournalsParams{Today: 5, N: 10})
	c.do("ListFoldedJournals", db.ListFoldedJournalsParams{Today: 6, N: 10})
	c.do("GetJournalHead", "m1")
}

func runEvents(c *script) {
	zero := make([]byte, 32)
	for i := range 3 {
		c.do("InsertEvent", db.InsertEventParams{Chain: "other", Seq: int64(i + 1), ID: fmt.Sprint("e", i), Type: "user.added", At: 1, ReceivedAt: 2, Data: "{}", PrevHash: zero, Hash: zero})
	}
	c.do("GetEvent", "e1")
	c.do("ListChainEvents", db.ListChainEventsParams{Chain: "other", After: 1, N: 1})
	c.do("ListEventChains")
	c.want("0", "StartChain", db.StartChainParams{Chain: "main", Hash: zero})
	c.want("1", "StartChain", db.StartChainParams{Chain: "other", Hash: zero})
	c.do("LockChain", "other")
	c.want("1", "MoveChain", db.MoveChainParams{Seq: 3, Hash: zero, Chain: "other", OldSeq: 0})
	c.want("0", "MoveChain", db.MoveChainParams{Seq: 3, Hash: zero, Chain: "other", OldSeq: 0})
	c.do("ListChains")
}

func runSettings(c *script) {
	c.do("GetSetting", "ca")
	c.want("1", "InitSetting", db.InitSettingParams{Key: "ca", Value: []byte("1"), UpdatedAt: 1})
	c.want("0", "InitSetting", db.InitSettingParams{Key: "ca", Value: []byte("2"), UpdatedAt: 2})
	c.do("PutSetting", db.PutSettingParams{Key: "ca", Value: []byte("3"), UpdatedAt: 3})
	c.do("GetSetting", "ca")
	c.want(`["ca"]`, "ListSettingKeys")
	c.want("1", "DeleteSetting", "ca")
	c.want("1", "InsertIdempotency", db.InsertIdempotencyParams{Key: "k", Actor: "a", BodyHash: []byte("h"), Status: 200, Reply: []byte("r"), At: 1})
	c.want("0", "InsertIdempotency", db.InsertIdempotencyParams{Key: "k", Actor: "a", BodyHash: []byte("i"), Status: 200, At: 1})
	c.do("GetIdempotency", "k")
	c.want("1", "DeleteOldIdempotency", int64(2))
}

// The lists in byte order do not follow the database's language.
func TestNamesAreOrderedByteByByte(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		ctx := context.Background()
		names := []string{"Zoe", "a_b", "ab", "b", "émile", "B", "a-b"}
		err := s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			for _, n := range names {
				if err := tx.InsertUser(ctx, db.InsertUserParams{ID: "id-" + n, Name: n, NameFold: strings.ToLower(n)}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for after := ""; ; {
			var page []db.User
			if err := s.Read(ctx, func(q *store.Queries) (err error) {
				page, err = q.ListUsers(ctx, db.ListUsersParams{After: after, N: 2})
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			for _, u := range page {
				got = append(got, u.Name)
			}
			after = page[len(page)-1].Name
		}
		slices.Sort(names)
		if d := cmp.Diff(names, got); d != "" {
			t.Error(d)
		}
	})
}
