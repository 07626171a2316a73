package vault

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/tpm"
	"latchkey/internal/tpm/tpmtest"
	"latchkey/internal/wire"
)

var wrong = secret.FromString("battery staple")

func TestO3SignInOnceWithACode(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.want(false, string(policy.ReasonNoVault), policy.Logon, password, r.code())
		if did := r.enrol(); did != wire.ActionGeneration {
			t.Fatal(did)
		}
		code := r.code()
		r.want(true, OK, policy.Logon, password, code)
		r.want(false, CodeUsed, policy.Logon, password, code)
		r.want(false, WrongCode, policy.Logon, password, secret.FromString("000000"))
		r.want(false, WrongCode, policy.Logon, password, secret.FromString("not a code"))
		r.later()
		r.want(false, WrongPassword, policy.Logon, wrong, r.code())
		r.restart()
		r.want(false, CodeUsed, policy.Logon, password, code)
		r.want(true, OK, policy.Logon, password, r.code())
	})
}

func TestM5BackupCodeOfflineOnce(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		c := secret.FromString(formatted(r.srv.backup[0]))
		r.want(true, OK, policy.Logon, password, c)
		r.want(false, BackupUsed, policy.Logon, password, c)
		r.restart()
		r.want(false, BackupUsed, policy.Logon, password, c)
		// Spent online: spent here too.
		ok(t, r.v.NoteOnline(context.Background(), userID, []wire.Spent{{Backup: "backup1"}}))
		r.want(false, BackupUsed, policy.Logon, password, secret.FromString(formatted(r.srv.backup[1])))
	})
}

func TestTwoFactorsOfflineAreTwoKinds(t *testing.T) {
	r := newRig(t, false)
	r.srv.pol.FactorsOffline = 2
	r.sync()
	r.enrol()
	b0, b1 := secret.FromString(formatted(r.srv.backup[0])), secret.FromString(formatted(r.srv.backup[1]))
	if got, reason := r.signin(policy.Logon, password, b0, b1); got {
		t.Fatal("two codes of one kind are taken for two factors", reason)
	}
	if got, reason := r.signin(policy.Logon, password, r.code(), b0); !got {
		t.Fatal(reason)
	}
	if got, reason := r.signin(policy.Logon, password, r.code(), b1); got || reason != CodeUsed {
		t.Fatal(got, reason)
	}
}

func TestWhatWasAcceptedOnlineIsSpentOffline(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		step := r.srv.params.Step(r.clk.Now())
		ok(t, r.v.NoteOnline(context.Background(), userID, []wire.Spent{{Authenticator: "totp1", Step: step}}))
		r.enrol()
		r.want(false, CodeUsed, policy.Logon, password, r.code())
		r.later()
		r.want(true, OK, policy.Logon, password, r.code())
	})
}

func TestO6Limits(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.srv.pol.OfflineSignins, r.srv.pol.OfflineTries, r.srv.pol.OfflineDays = 3, 4, 2
		r.sync()
		r.enrol()
		// A remote caller may spend a quarter of the tries; the seat may still try.
		r.want(false, WrongPassword, policy.Remote, wrong, r.code())
		r.want(false, string(policy.ReasonVaultRemote), policy.Remote, password, r.code())
		for range 3 {
			r.want(true, OK, policy.Logon, password, r.code())
			r.later()
		}
		r.want(false, string(policy.ReasonVaultSignins), policy.Logon, password, r.code())
		if did := r.enrol(); did != wire.ActionExtend {
			t.Fatal("an online MFA does not extend but", did)
		}
		for i := range 4 {
			r.want(false, WrongCode, policy.Logon, password, secret.FromString("12345"+string(rune('0'+i))))
		}
		r.want(false, string(policy.ReasonVaultTries), policy.Logon, password, r.code())
		r.restart()
		r.want(false, string(policy.ReasonVaultTries), policy.Logon, password, r.code())
		r.enrol()
		r.want(true, OK, policy.Logon, password, r.code())
		r.clk.Advance(49 * time.Hour)
		r.want(false, string(policy.ReasonVaultDays), policy.Logon, password, r.code())
		// A clock turned back does not bring the days again, once the later time was
		// met in a contact or a sign-in.
		r.v.Contacted(r.clk.Now())
		r.clk.Advance(-40 * time.Hour)
		r.want(false, string(policy.ReasonVaultDays), policy.Logon, password, r.code())
	})
}

func TestO8WrongPasswordsAreCountedByTheTPM(t *testing.T) {
	r := newRig(t, true)
	r.srv.pol.OfflineTries = 3
	r.sync()
	r.enrol()
	// Limits of the ledger alone would stop at three as well, so the policy is
	// widened afterwards: what refuses is the TPM.
	r.srv.pol.OfflineTries = 50
	r.srv.serial++
	r.sync()
	r.want(false, WrongPassword, policy.Logon, wrong, r.code())
	r.want(false, WrongPassword, policy.Logon, wrong, r.code())
	ok(t, r.v.Close())
	r.emu.Kill()
	r.emu.Restart()
	r.open()
	r.want(false, WrongPassword, policy.Logon, wrong, r.code())
	r.want(false, TriesUsedUp, policy.Logon, password, r.code())
	r.srv.lift = true
	r.srv.serial++
	r.sync()
	ok(t, r.v.Lift(context.Background(), r.srv))
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO8ChecksAreCountedByTheTPM(t *testing.T) {
	r := newRig(t, true)
	r.srv.pol.OfflineSignins, r.srv.pol.OfflineTries = 1, 2
	r.sync()
	r.enrol()
	r.srv.pol.OfflineSignins, r.srv.pol.OfflineTries = 50, 50
	r.srv.serial++
	r.sync()
	for range 3 {
		r.want(false, WrongCode, policy.Logon, password, secret.FromString("000000"))
	}
	r.want(false, ChecksUsedUp, policy.Logon, password, r.code())
}

// Each code of a chain is a counted use: as many sign-ins as the policy promises are
// there all the same, and what is told of the checks is what the TPM has counted.
func TestO8AChainHasAsManySigninsAsThePolicyPromises(t *testing.T) {
	r := newRig(t, true)
	r.srv.pol.FactorsOffline, r.srv.pol.OfflineSignins, r.srv.pol.OfflineTries = 2, 3, 2
	r.sync()
	r.enrol()
	for i := range 3 {
		r.later()
		if in, why := r.signin(policy.Logon, password, r.code(), secret.FromString(formatted(r.srv.backup[i]))); !in {
			t.Fatalf("sign-in %d of 3: %s", i+1, why)
		}
	}
	if us := r.v.led.Users[userID]; us.Checks != 6 || us.CheckLimit != 10 {
		t.Errorf("%d checks of %d", us.Checks, us.CheckLimit)
	}
	r.later()
	if in, why := r.signin(policy.Logon, password, r.code(), secret.FromString(formatted(r.srv.backup[0]))); in || why != SigninsUsedUp {
		t.Errorf("behind the last: %v, %s", in, why)
	}
}

func TestO9AnOldLedgerIsNoticed(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	before := r.snapshot()
	r.want(true, OK, policy.Logon, password, r.code())
	r.restore(before, "ledger")
	r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, r.code())
	r.later()
	r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, r.code())
	// The whole folder, journal and all.
	r.restore(before)
	r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, r.code())
	// The server mends it: everything is wiped, and the matter is journalled.
	r.renew(0, nil)
	r.sync()
	// What was lost is not as if there had never been anything: no way past the second
	// factor for a policy that leaves people without offline data to the machine.
	r.srv.pol.Offline = policy.OfflineMFAOrBypass
	r.srv.serial++
	r.sync()
	r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, r.code())
	j, err := r.v.Pending(context.Background(), 100)
	ok(t, err)
	if !journalHas(j, event.VaultRolledBack) {
		t.Error("the rollback is not journalled")
	}
	r.srv.ready = false
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO9WithoutATPMTheServerNotices(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	before := r.snapshot()
	r.want(true, OK, policy.Logon, password, r.code())
	j, err := r.v.Pending(context.Background(), 100)
	ok(t, err)
	last := j.Entries[len(j.Entries)-1]
	ok(t, r.v.Delivered(context.Background(), last.Seq, last.Hash))
	r.restore(before)
	r.renew(last.Seq, last.Hash)
	r.srv.serial++
	r.sync()
	// What was lost is not as if there had never been anything: no way past the second
	// factor for a policy that leaves people without offline data to the machine.
	r.srv.pol.Offline = policy.OfflineMFAOrBypass
	r.srv.serial++
	r.sync()
	r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, r.code())
}

func TestO9ACounterThatIsMissingIsARollback(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	before := r.snapshot()
	r.want(true, OK, policy.Logon, password, r.code())
	handle := r.v.st.Counter
	ok(t, r.v.Close())
	r.emu.Undefine(handle)
	r.open()
	r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, r.code())
	// One made anew in its place counts on from where the old one was: no older
	// ledger fits it, however often it is done.
	d, err := tpm.OpenDevice(r.emu.Spec())
	ok(t, err)
	for range 3 {
		_, err = d.DefineCounter(context.Background(), handle)
		ok(t, err)
		r.restore(before)
		r.want(false, string(policy.ReasonVaultRolledBack), policy.Logon, password, r.code())
		r.emu.Undefine(handle)
	}
}

func TestO8TheFolderOnASecondMachineIsUseless(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	ok(t, r.v.Close())
	second := tpmtest.Start(t)
	r.emu = second
	r.open()
	r.want(false, string(policy.ReasonTPMCleared), policy.Logon, password, r.code())
	// And without any TPM.
	ok(t, r.v.Close())
	r.emu = nil
	r.open()
	r.want(false, string(policy.ReasonTPMGone), policy.Logon, password, r.code())
}

func TestO17TroublesOfTheTPMAreToldApart(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	r.emu.Kill()
	r.want(false, string(policy.ReasonTPMGone), policy.Logon, password, r.code())
	r.restart()
	r.want(false, string(policy.ReasonTPMGone), policy.Logon, password, r.code())
	r.emu.Start()
	// It comes back by itself, and no try was given back.
	r.want(true, OK, policy.Logon, password, r.code())
	r.later()
	r.emu.Clear()
	r.restart()
	r.want(false, string(policy.ReasonTPMCleared), policy.Logon, password, r.code())
	r.renew(0, nil)
	r.srv.serial++
	r.srv.ready = false
	r.sync()
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
}

// A TPM that sleeps while somebody signs in online forgets nothing: the caller is
// told that the code is not marked yet, and keeps it until it is.
func TestACodeAcceptedOnlineIsNotForgottenWhileTheTPMIsAway(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	r.later()
	code := r.code()
	spent := []wire.Spent{{Authenticator: "totp1", Step: r.srv.params.Step(r.clk.Now())}}
	r.emu.Kill()
	r.restart()
	if err := r.v.NoteOnline(context.Background(), userID, spent); ReasonOf(err) != policy.ReasonTPMGone {
		t.Fatalf("an accepted code was not written down, and nobody is told: %v", err)
	}
	r.emu.Start()
	r.decide(policy.Logon) // looks again
	ok(t, r.v.NoteOnline(context.Background(), userID, spent))
	r.want(false, CodeUsed, policy.Logon, password, code)
}

func TestO8APasswordIndexMadeAnewIsNoUse(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	us := r.v.led.Users[userID]
	r.emu.Undefine(us.FailHandle)
	r.want(false, string(policy.ReasonTPMReplaced), policy.Logon, password, r.code())
	// mended by the next online MFA
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO14DisenrolmentWipesAtOnce(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		r.srv.disenrol = true
		r.srv.serial++
		if w := r.sync(); len(w) != 1 || w[0].UserID != userID {
			t.Fatal(w)
		}
		for _, dir := range []string{"vaults", "bundles"} {
			if es, err := os.ReadDir(filepath.Join(r.dir, dir)); err != nil || len(es) > 0 {
				t.Errorf("%s still holds %v %v", dir, es, err)
			}
		}
		if r.emu != nil {
			d, _ := tpm.OpenDevice(r.emu.Spec())
			own, err := d.Owned(context.Background())
			ok(t, err)
			if len(own) != 1 || own[0].What != "counter" {
				t.Error("indices are left in the TPM:", own)
			}
		}
		r.want(false, string(policy.ReasonNoVault), policy.Logon, password, r.code())
	})
}

func TestAPolicyMadeBeforeAnEnrolmentDoesNotWipeIt(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	old := r.srv.policyFile()
	_, err := r.tryEnrol(password)
	ok(t, err)
	_, err = r.v.ApplyPolicy(context.Background(), old)
	ok(t, err)
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO2PolicyFiles(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.want(false, string(policy.ReasonPolicyAbsent), policy.Logon, password, r.code())
		r.srv.pol.Offline = policy.OfflineBypass
		r.sync()
		r.want(false, string(policy.ReasonOfflineBypass), policy.Logon, password, r.code())
		before := r.snapshot()
		r.srv.pol.Offline = policy.OfflineMFA
		r.srv.serial = 9
		r.sync()
		// Last month's policy is put back, or removed.
		r.restore(before, "policy")
		r.want(false, string(policy.ReasonPolicyOlder), policy.Logon, password, r.code())
		ok(t, os.Remove(filepath.Join(r.dir, "policy")))
		r.restart()
		r.want(false, string(policy.ReasonPolicyAbsent), policy.Logon, password, r.code())
		if _, err := r.v.ApplyPolicy(context.Background(), before["policy"]); !errors.Is(err, ErrOlder) {
			t.Error("an older policy is taken over:", err)
		}
		ok(t, os.WriteFile(filepath.Join(r.dir, "policy"), seal.Sign(r.grant, seal.Policy, "another machine", []byte("{}")), 0o600))
		r.restart()
		r.want(false, string(policy.ReasonPolicyForeign), policy.Logon, password, r.code())
		r.sync()
		r.clk.Advance(91 * 24 * time.Hour)
		r.want(false, string(policy.ReasonPolicyExpired), policy.Logon, password, r.code())
	})
}

func TestO1ARefusalWipesAndLasts(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		note := []byte(`{"machine_id":"` + machineID + `","status":"revoked","serial":5,"at":1,"text":"revoked by root"}`)
		if r.v.Refuse(context.Background(), seal.Sign(r.grant, seal.Refusal, "another", note)) == nil {
			t.Fatal("another machine's refusal is taken")
		}
		ok(t, r.v.Refuse(context.Background(), seal.Sign(r.grant, seal.Refusal, machineID, note)))
		r.want(false, string(policy.ReasonPolicyAbsent), policy.Logon, password, r.code())
		r.restart()
		if n := r.v.Refusal(); n == nil || n.Status != "revoked" {
			t.Error("the refusal does not outlive a restart")
		}
		if es, _ := os.ReadDir(filepath.Join(r.dir, "vaults")); len(es) != 0 {
			t.Error("offline data is left")
		}
		if _, err := r.tryEnrol(password); err == nil {
			t.Error("a refused machine enrols")
		}
	})
}

// Neither the policy put back nor the refusal deleted makes a refused machine one in
// good standing.
func TestO1ARefusedMachineTakesNoPolicyAgain(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.srv.pol.Offline = policy.OfflineBypass
		r.sync()
		before := r.snapshot()
		note := []byte(`{"machine_id":"` + machineID + `","status":"revoked","serial":5,"at":1,"text":"revoked by root"}`)
		ok(t, r.v.Refuse(context.Background(), seal.Sign(r.grant, seal.Refusal, machineID, note)))
		ok(t, os.Remove(filepath.Join(r.dir, "refusal")))
		r.restore(before, "policy")
		if d, f := r.decide(policy.Logon); d.Outcome != policy.Deny || d.Reason != policy.ReasonPolicyOlder || len(f.Policies) == 0 {
			t.Errorf("%s, %s", d.Outcome, d.Reason)
		}
	})
}

func TestO5TheVaultFollowsThePassword(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		next := secret.FromString("another password")
		did, err := r.tryEnrol(next)
		ok(t, err)
		if did != wire.ActionGeneration {
			t.Fatal("the data was", did)
		}
		r.sync()
		r.want(false, WrongPassword, policy.Logon, password, r.code())
		r.want(true, OK, policy.Logon, next, r.code())
		// A key login brings no password: what is there is extended.
		if did, err := r.tryEnrol(secret.Bytes{}); err != nil || did != wire.ActionExtend {
			t.Error(did, err)
		}
		r.srv.ready = false
		if _, err := r.tryEnrol(secret.Bytes{}); !errors.Is(err, ErrPassword) {
			t.Error("a new generation without a password:", err)
		}
	})
}

func TestAnEnrolmentThatFailsHalfWayLeavesNothingUsable(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		for _, step := range []string{"permit", "bundle"} {
			if step == "permit" && r.emu == nil {
				continue
			}
			r.srv.fail[step] = errors.New("the server went away")
			r.srv.force = wire.ActionGeneration
			if _, err := r.tryEnrol(password); err == nil {
				t.Fatal(step, "did not fail")
			}
			r.want(false, string(policy.ReasonVaultUnfinished), policy.Logon, password, r.code())
			r.restart()
			r.want(false, string(policy.ReasonVaultUnfinished), policy.Logon, password, r.code())
			delete(r.srv.fail, step)
			r.srv.force = ""
			r.srv.ready = false
			r.enrol()
			r.want(true, OK, policy.Logon, password, r.code())
			r.later()
		}
		if r.emu != nil {
			r.restart()
			d, _ := tpm.OpenDevice(r.emu.Spec())
			own, err := d.Owned(context.Background())
			ok(t, err)
			if len(own) != 3 {
				t.Errorf("%d indices in the TPM, want a counter and two of one user: %v", len(own), own)
			}
		}
	})
}

func TestO11JournalIsAChainDeliveredOnce(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		ctx := context.Background()
		r.sync()
		r.enrol()
		r.want(true, OK, policy.Logon, password, r.code())
		r.want(false, CodeUsed, policy.Logon, password, r.code())
		ok(t, r.v.Record(ctx, event.Event{Type: event.SigninIgnored, Subject: "root", Reason: "account-exempt"}))
		r.restart()
		j, err := r.v.Pending(ctx, 100)
		ok(t, err)
		var prev event.Hash
		for i, e := range j.Entries {
			h := wire.EntryHash(machineID, prev, e)
			if e.Seq != uint64(i+1) || string(h[:]) != string(e.Hash) {
				t.Fatalf("entry %d breaks the chain", e.Seq)
			}
			prev = h
		}
		if len(j.Entries) != 3 || j.Entries[0].Spent == nil || j.Entries[0].Event.Type != event.SigninAllowed {
			t.Fatalf("%+v", j.Entries)
		}
		if r.emu != nil {
			ak, err := tpm.ParseAttestationKey(r.v.MachineFacts(ctx).AttestKey)
			ok(t, err)
			val, err := ak.VerifyCounter(r.v.st.Counter, j.Entries[2].Hash, tpm.Certified{Attest: j.Attest, Signature: j.Sig})
			ok(t, err)
			if val.Value < j.Entries[2].Counter {
				t.Errorf("the TPM certifies %d, the journal says %d", val.Value, j.Entries[2].Counter)
			}
		}
		if err := r.v.Delivered(ctx, 2, []byte("not its hash")); err == nil {
			t.Error("a foreign acknowledgement is taken")
		}
		ok(t, r.v.Delivered(ctx, 2, j.Entries[1].Hash))
		r.restart()
		r.renew(2, j.Entries[1].Hash)
		j2, err := r.v.Pending(ctx, 100)
		ok(t, err)
		if len(j2.Entries) != 1 || j2.Entries[0].Seq != 3 {
			t.Fatalf("%+v", j2.Entries)
		}
		ok(t, r.v.Delivered(ctx, 3, j2.Entries[0].Hash))
		ok(t, r.v.Record(ctx, event.Event{Type: event.SigninIgnored}))
		r.restart()
		j3, err := r.v.Pending(ctx, 100)
		ok(t, err)
		if len(j3.Entries) != 1 || j3.Entries[0].Seq != 4 || journalHas(j3, event.JournalGap) {
			t.Fatalf("%+v", j3.Entries)
		}
	})
}

func TestO11AnEditedJournalIsNoticed(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
	r.want(false, CodeUsed, policy.Logon, password, r.code())
	for _, edit := range []func([]byte) []byte{
		func(b []byte) []byte { return []byte(strings.Replace(string(b), `"deny"`, `"alow"`, 1)) },
		func(b []byte) []byte { return b[:len(b)/2] },
		func([]byte) []byte { return nil },
		func([]byte) []byte { return []byte("garbage") },
	} {
		files := r.snapshot()
		files["journal"] = edit(files["journal"])
		r.restore(files, "journal")
		j, err := r.v.Pending(context.Background(), 100)
		ok(t, err)
		if !journalHas(j, event.JournalGap) {
			t.Errorf("nothing was noticed: %d entries", len(j.Entries))
		}
		r.later()
		r.want(true, OK, policy.Logon, password, r.code())
	}
}

func TestO17AStateThatCanNotBeWrittenDenies(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	real := r.v.fs
	r.v.fs = failingFS{real}
	r.v.jour.fs = failingFS{real}
	r.v.jour.close()
	r.want(false, string(policy.ReasonStateWrite), policy.Logon, password, r.code())
	if err := r.v.Record(context.Background(), event.Event{Type: event.SigninIgnored}); !errors.Is(err, ErrState) {
		t.Error("a bypass that can not be recorded:", err)
	}
	if st := r.v.Status(context.Background(), ""); st.Problem != policy.ReasonStateWrite {
		t.Errorf("the status tells nothing: %+v", st)
	}
	r.v.fs, r.v.jour.fs = real, real
	// What could not be written while it lasted is journalled behind it.
	j, err := r.v.Pending(context.Background(), 100)
	ok(t, err)
	var told []string
	for _, e := range j.Entries {
		if e.Event.Reason == string(policy.ReasonStateWrite) {
			told = append(told, string(e.Event.Type))
		}
	}
	if len(told) != 2 || told[0] != string(event.SigninDenied) || told[1] != string(event.SigninDenied) {
		t.Errorf("journalled afterwards: %q", told)
	}
	if st := r.v.Status(context.Background(), ""); st.Problem != "" {
		t.Errorf("the problem stays: %+v", st)
	}
	r.want(true, OK, policy.Logon, password, r.code())
}

type failingFS struct{ FS }

func (failingFS) WriteFile(string, []byte) error  { return errors.New("no space left on device") }
func (failingFS) Append(string) (Appender, error) { return nil, errors.New("read-only file system") }

func TestTwoAgentsDoNotShareAFolder(t *testing.T) {
	r := newRig(t, false)
	if _, err := Open(context.Background(), r.config()); err == nil {
		t.Fatal("a second agent opens the folder")
	}
}

func TestAStrangerCanNotFillTheJournal(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	for range 10 * quietBurst {
		ok(t, r.v.Record(context.Background(), event.Event{Type: event.SigninDenied, Reason: "user-unknown"}))
	}
	r.clk.Advance(time.Minute)
	ok(t, r.v.Record(context.Background(), event.Event{Type: event.SigninDenied, Reason: "user-unknown"}))
	j, err := r.v.Pending(context.Background(), 10000)
	ok(t, err)
	counted := 0
	for _, e := range j.Entries {
		var d struct{ Suppressed int }
		if e.Event.Reason == onlyCounted {
			ok(t, json.Unmarshal(e.Event.Data, &d))
			counted += d.Suppressed
		}
	}
	if len(j.Entries) > quietBurst+3 || counted != 9*quietBurst {
		t.Errorf("%d entries, %d refusals of %d are told as counted", len(j.Entries), counted, 9*quietBurst)
	}
}

func TestStatusAndFacts(t *testing.T) {
	both(t, func(t *testing.T, r *rig) {
		r.sync()
		r.enrol()
		s := r.v.Status(context.Background(), "anna")
		if len(s.Users) != 1 || !s.Users[0].Enrolled || s.Users[0].Left.Signins != 50 || s.Users[0].Left.Days != 7 || s.Users[0].Left.Warn {
			t.Errorf("%+v", s)
		}
		r.clk.Advance(time.Minute)
		if s := r.v.Status(context.Background(), "anna"); s.Users[0].Left.Days != 7 {
			t.Errorf("a moment later %d of 7 days are left", s.Users[0].Left.Days)
		}
		r.clk.Advance(6*24*time.Hour + 23*time.Hour)
		if s := r.v.Status(context.Background(), "anna"); s.Users[0].Left.Days != 0 || !s.Users[0].Left.Warn {
			t.Errorf("an hour before the end %+v", s.Users[0].Left)
		}
		r.clk.Advance(-6*24*time.Hour - 23*time.Hour)
		if s := r.v.Status(context.Background(), "bert"); len(s.Users) != 0 {
			t.Error("somebody else's status is told")
		}
		f := r.v.MachineFacts(context.Background())
		if (f.Class == ClassTPM) != (r.emu != nil) || f.Boot == "" || f.VaultProblem != "" {
			t.Errorf("%+v", f)
		}
		if _, facts := r.decide(policy.Logon); facts.User == nil || facts.Vault == nil {
			t.Error("no facts")
		}
		if f := r.v.Facts(context.Background(), "ANNA"); f.User != nil || !f.NearMiss {
			t.Error("S6: another case is the same name")
		}
		if r.emu != nil {
			b1 := r.v.Boot(context.Background())
			r.emu.Restart()
			if b2 := r.v.Boot(context.Background()); b1 == b2 {
				t.Error("W5: a TPM that was started again is the same boot")
			}
		}
	})
}

func journalHas(j wire.Journal, typ event.Type) bool {
	for _, e := range j.Entries {
		if e.Event.Type == typ {
			return true
		}
	}
	return false
}

func TestO5DataOfAnOlderPasswordIsRefused(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	r.srv.user.Generation++
	r.srv.serial++
	r.sync()
	r.want(false, string(policy.ReasonVaultStale), policy.Logon, password, r.code())
}
