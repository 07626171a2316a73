package vault

import (
	"context"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/tpm"
	"latchkey/internal/tpm/tpmtest"
	"latchkey/internal/wire"
	"latchkey/test/scale"
)

// The troubles of a TPM on a real emulator: each has a reason of its own, none opens
// the machine, none is a wrong code or a fault of the network, and each is mended (O17).

// behindProxy is a rig whose TPM a test can trouble.
func behindProxy(t *testing.T) *rig {
	r := newRig(t, true)
	ok(t, r.v.Close())
	r.proxy = tpmtest.NewProxy(t, r.emu)
	r.open()
	r.sync()
	r.enrol()
	return r
}

// told lists the reasons of the journal's events of a type.
func (r *rig) told(typ event.Type) (reasons []string) {
	r.Helper()
	for _, e := range r.v.jour.entries {
		if e.Event.Type == typ {
			reasons = append(reasons, e.Event.Reason)
		}
	}
	return reasons
}

func TestO8TheStateKeyIsBoundToSecureBoot(t *testing.T) {
	const pcr7 = 7
	r := newRig(t, true)
	r.sync()
	r.enrol()
	if tpm.BootBound(r.v.st.Key) {
		t.Fatal("bound where Secure Boot is off")
	}
	// Switched on: at the next contact the key is bound, and nothing is lost.
	r.boot = true
	r.emu.Extend(pcr7, "Secure Boot is on")
	r.restart()
	if r.renew(0, nil) || !tpm.BootBound(r.v.st.Key) {
		t.Fatal("a state key is not bound when Secure Boot was switched on")
	}
	r.want(true, OK, policy.Logon, password, r.code())
	r.restart()
	r.later()
	r.want(true, OK, policy.Logon, password, r.code())
	// Another system on the same machine.
	started := func(how string) {
		r.emu.Restart()
		r.emu.Extend(pcr7, how)
		r.restart()
	}
	started("another system")
	r.later()
	r.want(false, string(policy.ReasonTPMBoot), policy.Logon, password, r.code())
	if opened, reason := r.signin(policy.Logon, password, r.code()); opened || reason != string(policy.ReasonTPMBoot) {
		t.Fatal(opened, reason)
	}
	// Started as before: as if nothing had been.
	started("Secure Boot is on")
	r.want(true, OK, policy.Logon, password, r.code())
	// The list of revoked keys was updated: mended by contact, told as what it is, and
	// no way past the second factor.
	started("Secure Boot is on, and dbx is newer")
	r.later()
	r.want(false, string(policy.ReasonTPMBoot), policy.Logon, password, r.code())
	if !r.renew(0, nil) {
		t.Fatal("a contact does not mend it")
	}
	if got := r.told(event.TPMProblem); !slices.Equal(got, []string{string(policy.ReasonTPMBoot)}) {
		t.Errorf("told as %q", got)
	}
	r.srv.pol.Offline = policy.OfflineMFAOrBypass
	r.srv.serial++
	r.sync()
	r.want(false, string(policy.ReasonTPMBoot), policy.Logon, password, r.code())
	r.srv.ready = false
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
	started("Secure Boot is on, and dbx is newer")
	r.later()
	r.want(true, OK, policy.Logon, password, r.code())
	// Switched off by whoever has the firmware's menu.
	r.boot = false
	r.emu.Restart()
	r.restart()
	r.want(false, string(policy.ReasonTPMBoot), policy.Logon, password, r.code())
}

// A TPM that does not bind to Secure Boot leaves the key unbound: that is told, and tried
// again at every contact.
func TestO8AKeyThatIsNotBoundToSecureBootIsTold(t *testing.T) {
	const policyPCR, rcValue = 0x17F, 0x1C4
	r := newRig(t, true)
	ok(t, r.v.Close())
	r.proxy = tpmtest.NewProxy(t, r.emu)
	r.boot = true
	r.open()
	r.sync()
	r.proxy.Hook(func(c []byte) []byte {
		if tpmtest.Command(c) == policyPCR {
			return tpmtest.Answer(rcValue)
		}
		return nil
	})
	for range 2 {
		r.renew(0, nil)
	}
	if got := r.told(event.TPMProblem); !slices.Equal(got, []string{string(notBound)}) || !r.v.Unbound() {
		t.Errorf("told as %q, unbound %v", got, r.v.Unbound())
	}
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
	r.proxy.Hook(nil)
	r.renew(0, nil)
	if r.v.Unbound() || !tpm.BootBound(r.v.st.Key) {
		t.Error("not bound where the TPM can")
	}
}

func TestO17ATPMWithoutRoom(t *testing.T) {
	const others = 0x01000000
	t.Run("for a user, and the policy allows software", func(t *testing.T) {
		r := newRig(t, true)
		r.sync()
		taken := r.emu.Fill(others, false)
		r.enrol()
		us := r.v.led.Users[userID]
		if us.Class != ClassSoftware || us.Generation == 0 || us.Problem != "" {
			t.Fatalf("%+v", us)
		}
		if got := r.told(event.TPMProblem); !slices.Equal(got, []string{string(policy.ReasonTPMNoRoom)}) {
			t.Errorf("told as %q", got)
		}
		if f := r.v.MachineFacts(context.Background()); f.TPMProblem != string(policy.ReasonTPMNoRoom) || f.Class != ClassTPM {
			t.Errorf("the server is told %q, class %s", f.TPMProblem, f.Class)
		}
		code := r.code()
		r.want(true, OK, policy.Logon, password, code)
		r.restart()
		r.want(false, CodeUsed, policy.Logon, password, code)
		r.want(false, WrongPassword, policy.Logon, wrong, r.code())
		// The next day there is still none, then there is room again.
		if did := r.enrol(); did != wire.ActionExtend {
			t.Error("an online MFA does not extend but", did)
		}
		for _, h := range taken {
			r.emu.Undefine(h)
		}
		r.clk.Advance(25 * time.Hour)
		r.srv.force = wire.ActionGeneration
		r.enrol()
		if us := r.v.led.Users[userID]; us.Class != ClassTPM {
			t.Fatalf("with room the data does not move into the TPM: %+v", us)
		}
		if f := r.v.MachineFacts(context.Background()); f.TPMProblem != "" {
			t.Errorf("the server is still told %q", f.TPMProblem)
		}
		r.want(true, OK, policy.Logon, password, r.code())
	})
	t.Run("for a user, and the policy refuses software", func(t *testing.T) {
		r := newRig(t, true)
		r.srv.noSoftware = true
		r.srv.pol.Offline = policy.OfflineMFAOrBypass
		r.sync()
		taken := r.emu.Fill(others, false)
		if did, err := r.tryEnrol(password); err == nil {
			t.Fatal("enrolled:", did)
		}
		r.want(false, string(policy.ReasonTPMNoRoom), policy.Logon, password, r.code())
		r.restart()
		r.want(false, string(policy.ReasonTPMNoRoom), policy.Logon, password, r.code())
		for _, h := range taken {
			r.emu.Undefine(h)
		}
		r.enrol()
		r.want(true, OK, policy.Logon, password, r.code())
	})
	t.Run("for anything at all", func(t *testing.T) {
		r := newRig(t, true)
		// A machine whose TPM is full when the agent starts first.
		ok(t, r.v.Close())
		r.emu.Clear()
		taken := r.emu.Fill(others, true)
		ok(t, RealFS(r.dir).Remove("state"))
		ok(t, RealFS(r.dir).Remove("ledger"))
		r.open()
		r.sync()
		r.enrol()
		if us := r.v.led.Users[userID]; r.v.st.Class != ClassSoftware || us.Class != ClassSoftware {
			t.Fatalf("%s, %+v", r.v.st.Class, us)
		}
		if f := r.v.MachineFacts(context.Background()); f.TPMProblem != string(policy.ReasonTPMNoRoom) || f.Class != ClassSoftware {
			t.Errorf("the server is told %q, class %s", f.TPMProblem, f.Class)
		}
		r.want(true, OK, policy.Logon, password, r.code())
		// A contact wipes nothing while there is no room.
		if r.renew(0, nil) {
			t.Error("moved into a full TPM")
		}
		r.later()
		r.want(true, OK, policy.Logon, password, r.code())
		for _, h := range taken {
			r.emu.Undefine(h)
		}
		if !r.renew(0, nil) || r.v.st.Class != ClassTPM {
			t.Fatal("with room the machine does not move into its TPM")
		}
		r.srv.ready = false
		r.sync()
		r.enrol()
		r.later()
		r.want(true, OK, policy.Logon, password, r.code())
	})
}

func TestO17ATPMThatSparesItsMemoryIsWaitedFor(t *testing.T) {
	const nvRate, nvIncrement = 0x920, 0x134
	r := behindProxy(t)
	n := 0
	r.proxy.Hook(func(c []byte) []byte {
		if n++; n%3 != 0 {
			return tpmtest.Answer(nvRate)
		}
		return nil
	})
	r.want(true, OK, policy.Logon, password, r.code())
	// One that goes on sparing it is busy, and not broken.
	r.proxy.Hook(func(c []byte) []byte {
		if tpmtest.Command(c) == nvIncrement {
			return tpmtest.Answer(nvRate)
		}
		return nil
	})
	r.later()
	tries := r.v.led.Users[userID].Tries
	r.want(false, string(policy.ReasonTPMBusy), policy.Logon, password, r.code())
	r.proxy.Hook(nil)
	if got := r.v.led.Users[userID].Tries; got != tries {
		t.Errorf("an answer that was not judged costs %d tries", got-tries)
	}
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO17TheTPMsOwnLockOutStopsNobody(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	r.emu.LockOut()
	r.restart()
	r.want(true, OK, policy.Logon, password, r.code())
	r.want(false, WrongPassword, policy.Logon, wrong, r.code())
	r.later()
	r.srv.force = wire.ActionGeneration
	r.enrol()
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO17AnotherTPMInTheMiddleIsTold(t *testing.T) {
	r := behindProxy(t)
	other := tpmtest.Start(t)
	r.proxy.Hook(func(c []byte) []byte {
		answer, err := other.Send(c)
		if err != nil {
			return []byte{}
		}
		return answer
	})
	opened, reason := r.signin(policy.Logon, password, r.code())
	if opened || reason != string(policy.ReasonVaultRolledBack) && reason != string(policy.ReasonTPMCleared) {
		t.Errorf("with another TPM: %v %s", opened, reason)
	}
	r.restart()
	r.want(false, string(policy.ReasonTPMCleared), policy.Logon, password, r.code())
	// Its own is put back: nothing was lost by it.
	r.proxy.Hook(nil)
	r.restart()
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO17ATPMClearedBetweenCountAndCheck(t *testing.T) {
	const policySecret = 0x151
	r := behindProxy(t)
	done := false
	r.proxy.Hook(func(c []byte) []byte {
		if tpmtest.Command(c) == policySecret && !done {
			done = true
			r.emu.Clear()
		}
		return nil
	})
	opened, reason := r.signin(policy.Logon, password, r.code())
	if opened || !slices.Contains([]policy.Reason{policy.ReasonTPMCleared, policy.ReasonTPMGone, policy.ReasonTPMReplaced}, policy.Reason(reason)) {
		t.Fatalf("cleared in the middle: %v %s", opened, reason)
	}
	r.restart()
	r.want(false, string(policy.ReasonTPMCleared), policy.Logon, password, r.code())
}

func TestO17AnIndexMadeAnewIsNeverLifted(t *testing.T) {
	for _, which := range []string{"password", "use"} {
		t.Run(which, func(t *testing.T) {
			r := newRig(t, true)
			r.srv.pol.OfflineTries = 2
			r.sync()
			r.enrol()
			us := r.v.led.Users[userID]
			spec, err := r.v.spec(userID, us)
			ok(t, err)
			// Two wrong passwords lock the index; root deletes it and defines it anew with a
			// password of his, then asks for the lift that an administrator has granted.
			for range 2 {
				r.want(false, WrongPassword, policy.Logon, wrong, r.code())
			}
			r.emu.Undefine(us.FailHandle)
			r.emu.Undefine(us.PassHandle)
			mine := tpm.Auths{Password: tpm.AuthValue(wrong), Use: tpm.NewUseAuth()}
			ok(t, r.v.cfg.Device.Define(context.Background(), spec, mine))
			kind := tpm.PasswordIndex
			if which == "use" {
				kind = tpm.UseIndex
			}
			asked := 0
			err = r.v.cfg.Device.Lift(context.Background(), spec, kind, func(ctx context.Context, k tpm.Kind, nonce []byte) (tpm.Permit, error) {
				asked++
				return r.v.permitter("", userID, us.Generation, true, r.srv)(ctx, k, nonce)
			})
			if err == nil || asked > 0 {
				t.Errorf("the agent asks for a lift of an index that is another: %v", err)
			}
			r.srv.lift = true
			r.srv.serial++
			r.sync()
			if err := r.v.Lift(context.Background(), r.srv); err == nil {
				t.Error("an administrator's lift goes through")
			}
			if opened, reason := r.signin(policy.Logon, wrong, r.code()); opened {
				t.Errorf("opened: %s", reason)
			}
		})
	}
}

// The TPM goes away, or answers what is none, at every single command of a sign-in:
// the machine does not open by it, it is told as the TPM's, no code opens twice, no
// try comes back, and with the TPM the machine is usable again.
func TestO17ATPMThatFailsAtEveryCommandOfASignIn(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(7, 11))
	kinds := []struct {
		name  string
		waits bool
		// spoil gives another answer; nil lets it pass, empty hangs up.
		spoil func(answer []byte) []byte
	}{
		{"hangs up", false, func([]byte) []byte { return []byte{} }},
		{"answers in half", true, func(a []byte) []byte { return a[:len(a)/2] }},
		{"answers garbage of the right size", false, func(a []byte) []byte {
			b := append([]byte(nil), a...)
			for i := 10; i < len(b); i++ {
				b[i] = byte(rng.Uint32())
			}
			return b
		}},
		{"answers 4 GiB", false, func(a []byte) []byte {
			b := append([]byte(nil), a...)
			copy(b[2:], []byte{0xFF, 0xFF, 0xFF, 0xF0})
			return b
		}},
		{"answers noise", false, func([]byte) []byte {
			b := make([]byte, 200)
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			return b
		}},
		{"is in failure mode", false, func([]byte) []byte { return tpmtest.Answer(0x101) }},
	}
	r := behindProxy(t)
	r.srv.pol.OfflineTries, r.srv.pol.OfflineSignins = 500, 500
	r.srv.serial++
	r.sync()
	r.enrol()
	commands := 0
	r.proxy.Hook(func([]byte) []byte { commands++; return nil })
	r.later()
	r.want(true, OK, policy.Logon, password, r.code())
	total := commands
	if total < 15 {
		t.Fatalf("a sign-in has %d commands only", total)
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			r.TB = t
			step := scale.N(3, 1)
			if k.waits {
				step *= 6 // each waits for the rest of the answer
			}
			for at := 0; at < total; at += step {
				if n := r.v.led.Users[userID]; n.Signins > 400 || n.Checks > 400 {
					r.enrol()
				}
				r.later()
				code := r.code()
				i := 0
				r.proxy.Hook(func(c []byte) []byte {
					if i++; i-1 != at {
						return nil
					}
					answer, err := r.emu.Send(c)
					if err != nil {
						return []byte{}
					}
					return k.spoil(answer)
				})
				opened, reason := r.signin(policy.Logon, password, code)
				r.proxy.Hook(nil)
				switch {
				case opened && k.name != "answers garbage of the right size" && i-1 <= at:
					t.Errorf("command %d of %d: opened without it", at, total)
				case !opened && (reason == WrongCode || reason == CodeUsed):
					t.Errorf("command %d: told as %s", at, reason)
				case !opened && reason == WrongPassword && k.name != "answers garbage of the right size":
					t.Errorf("command %d: told as %s", at, reason)
				}
				tries := r.v.led.Users[userID].Tries
				if r.v.problem != "" && !passing(r.v.problem) {
					r.restart()
				}
				if again, why := r.signin(policy.Logon, password, code); again && opened {
					t.Errorf("command %d: a code opens twice", at)
				} else if !again && why != CodeUsed {
					t.Errorf("command %d: with the TPM back the machine says %s (before: %s)", at, why, reason)
				}
				if got := r.v.led.Users[userID]; got.Tries < tries && got.Signins == 0 {
					t.Errorf("command %d: %d tries became %d", at, tries, got.Tries)
				}
			}
		})
	}
	r.TB = t
	r.later()
	r.want(true, OK, policy.Logon, password, r.code())
}

func TestO17ASlowTPM(t *testing.T) {
	r := behindProxy(t)
	r.proxy.Slow(10 * time.Millisecond)
	r.want(true, OK, policy.Logon, password, r.code())
	r.proxy.Slow(2500 * time.Millisecond)
	r.later()
	r.want(false, string(policy.ReasonTPMGone), policy.Logon, password, r.code())
	r.proxy.Hook(nil)
	r.want(true, OK, policy.Logon, password, r.code())
}
