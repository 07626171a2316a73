package tpm

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey/internal/secret"
	"latchkey/internal/tpm/tpmtest"
)

// desk is a Device and the server that belongs to it.
type desk struct {
	*testing.T
	sw     *tpmtest.Emulator
	d      *Device
	server crypto.Signer
	spec   Spec
	auths  Auths
	blob   Blob
	key    secret.Bytes
	limits map[Kind]Tally
}

func openDesk(t *testing.T, sw *tpmtest.Emulator, spec string) *desk {
	t.Helper()
	d, err := OpenDevice(spec)
	if err != nil {
		t.Fatal(err)
	}
	// What is tested is what the TPM says, not how loaded the machine is.
	d.limits = times{20 * time.Second, 30 * time.Second, 30 * time.Second}
	return &desk{T: t, sw: sw, d: d, server: p256(t), limits: map[Kind]Tally{PasswordIndex: {0, 3}, UseIndex: {0, 5}}}
}

// enrolled is a desk with one verifier, by nothing but the exported functions.
func enrolled(t *testing.T, sw *tpmtest.Emulator, spec string) *desk {
	t.Helper()
	k := openDesk(t, sw, spec)
	k.enrol("anna", 1)
	return k
}

func (k *desk) enrol(user string, generation uint64) {
	k.Helper()
	ctx := k.Context()
	hs, err := k.d.FreeHandles(ctx, 2)
	k.ok(err)
	public, err := k.d.Parent(ctx)
	k.ok(err)
	k.spec, err = NewSpec(ID{user, "m1", generation}, k.server.Public(), hs[0], hs[1])
	k.ok(err)
	k.auths = Auths{secret.New(bytes.Clone(right)), NewUseAuth()}
	k.ok(k.d.Define(ctx, k.spec, k.auths))
	k.ok(k.d.Activate(ctx, k.spec, k.activation))
	parent, err := ParseParent(public)
	k.ok(err)
	key, bundle, err := NewKey(k.spec, parent)
	k.ok(err)
	k.key = key
	k.blob, err = k.d.Import(ctx, bundle)
	k.ok(err)
}

func (k *desk) activation(_ context.Context, kind Kind, nonce []byte) (Permit, error) {
	return SignActivation(k.server, k.spec, kind, k.limits[kind], nonce, 60)
}

func (k *desk) lift(_ context.Context, kind Kind, nonce []byte) (Permit, error) {
	return SignLift(k.server, k.spec, kind, k.limits[kind], nonce, 60)
}

func (k *desk) try(password []byte) error {
	message := []byte("x")
	mac, err := k.d.MAC(k.Context(), k.spec, k.blob, Auths{secret.New(bytes.Clone(password)), k.auths.Use}, message)
	if want := MAC(k.key, message); err == nil && !bytes.Equal(mac, want[:]) {
		k.Error("the TPM's MAC is not the server's")
	}
	return err
}

func (k *desk) ok(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

// want also holds that an error has one meaning only.
func (k *desk) want(got, want error) {
	k.Helper()
	if !errors.Is(got, want) {
		k.Fatalf("got %v, want %v", got, want)
	}
	for _, other := range []error{
		ErrNone, ErrGone, ErrUnavailable, ErrBusy, ErrCleared, ErrOwner, ErrNoSpace, ErrWrongPassword, ErrLocked,
		ErrUsedUp, ErrRemoved, ErrReplaced, ErrTaken, ErrPermit, ErrRecord, ErrNewer, ErrBootState,
	} {
		if got != nil && other != want && errors.Is(got, other) {
			k.Fatalf("%v is also %v", got, other)
		}
	}
}

func (k *desk) tallies(passwords, uses uint32) {
	k.Helper()
	st, err := k.d.Status(k.Context(), k.spec)
	k.ok(err)
	if want := (Status{Tally{passwords, k.limits[PasswordIndex].Limit}, Tally{uses, k.limits[UseIndex].Limit}}); st != want {
		k.Fatalf("tallies %+v, want %+v", st, want)
	}
}

// clean holds that nothing is left in the TPM.
func (k *desk) clean() {
	k.Helper()
	if n := k.sw.Loaded(); n != 0 {
		k.Fatalf("%d handles left in the TPM", n)
	}
}

func TestASpecSaysWhichTPM(t *testing.T) {
	for _, c := range []struct{ spec, problem string }{
		{"", "want auto, none, device:PATH or socket:PATH"},
		{"tpm0", "want auto"},
		{"Auto", "want auto"},
		{"device:", "must be absolute"},
		{"socket:s", "must be absolute"},
		{"socket:/a\x00b", "must be absolute"},
		{"socket:/" + strings.Repeat("x", 200), "at most 103 octets"},
		{strings.Repeat("x", 10_000), "want auto"},
	} {
		_, err := OpenDevice(c.spec)
		if err == nil || !strings.Contains(err.Error(), c.problem) || len(err.Error()) > 300 {
			t.Errorf("%.50q: %.300v, want %q", c.spec, err, c.problem)
		}
	}
	if _, err := OpenDevice("none"); !errors.Is(err, ErrNone) {
		t.Errorf("none: %v", err)
	}
	if _, err := Open(Config{Spec: "socket:/s", FirstHandle: 0x01C00000, LastHandle: 0x01C00001}); err == nil {
		t.Error("handles outside the owner's range are taken")
	}
	for spec, alone := range map[string]bool{"device:/dev/tpm0": true, "device:/dev/tpmrm0": false, "device:/dev/tpm": false, "socket:/s": true} {
		d, err := OpenDevice(spec)
		if err != nil {
			t.Fatal(err)
		}
		if d.addr.alone() != alone || d.String() != spec {
			t.Errorf("%s: alone %v, printed %s", spec, d.addr.alone(), d)
		}
	}
}

func TestO8TheLifeOfAVerifier(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	k.clean()
	k.ok(k.try(right))
	k.clean()
	k.want(k.try(wrong), ErrWrongPassword)
	k.clean()
	k.want(k.try(wrong), ErrWrongPassword)
	k.tallies(2, 1)
	sw.Restart()
	k.tallies(2, 1) // the power does not give guesses back
	k.want(k.try(wrong), ErrWrongPassword)
	k.want(k.try(right), ErrLocked)
	sw.Restart()
	k.want(k.try(right), ErrLocked)
	k.want(k.try(wrong), ErrLocked)
	k.clean()
	k.ok(k.d.Lift(t.Context(), k.spec, PasswordIndex, k.lift))
	k.clean()
	for range 4 {
		k.ok(k.try(right))
	}
	k.want(k.try(right), ErrUsedUp)
	k.want(k.try(wrong), ErrWrongPassword) // still counted
	k.tallies(1, 5)
	k.ok(k.d.Lift(t.Context(), k.spec, UseIndex, k.lift))
	k.ok(k.try(right))
	k.ok(k.d.Remove(t.Context(), k.spec))
	k.clean()
	k.want(k.try(right), ErrRemoved)
	_, err := k.d.Status(t.Context(), k.spec)
	k.want(err, ErrRemoved)
	k.ok(k.d.Remove(t.Context(), k.spec)) // again: nothing to do
	k.clean()
}

func TestAnIndexThatIsNotTheEnrolledOneIsTold(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	ctx := t.Context()
	password, _ := k.spec.Handles()
	k.want(k.d.Define(ctx, k.spec, k.auths), ErrTaken)
	k.want(k.d.Activate(ctx, k.spec, k.activation), ErrReplaced) // it is active already
	sw.Undefine(password)
	k.want(k.try(right), ErrRemoved)
	k.want(k.d.Lift(ctx, k.spec, PasswordIndex, k.lift), ErrRemoved)
	// Defined anew by root, never activated.
	_, err := tpm2.NVDefineSpace{AuthHandle: ownerHandle(secret.Bytes{}), Auth: tpm2.TPM2BAuth{Buffer: wrong}, PublicInfo: tpm2.New2B(k.spec.index(PasswordIndex, false))}.Execute(sw)
	k.ok(err)
	k.want(k.try(wrong), ErrReplaced)
	k.want(k.try(right), ErrReplaced)
	k.want(k.d.Lift(ctx, k.spec, PasswordIndex, k.lift), ErrReplaced)
	// The use index of another verifier's state.
	k.enrol("bert", 1)
	k.auths.Use = NewUseAuth()
	k.want(k.try(right), ErrRecord)
	k.clean()
}

func TestO17AClearedOrExchangedTPMIsTold(t *testing.T) {
	for name, change := range map[string]func(a, b *tpmtest.Emulator) string{
		"cleared":                  func(a, _ *tpmtest.Emulator) string { a.Clear(); return a.Spec() },
		"cleared and power cycled": func(a, _ *tpmtest.Emulator) string { a.Clear(); a.Restart(); return a.Spec() },
		"exchanged":                func(_, b *tpmtest.Emulator) string { return b.Spec() },
	} {
		t.Run(name, func(t *testing.T) {
			sw, other := tpmtest.Start(t), tpmtest.Start(t)
			k := enrolled(t, sw, sw.Spec())
			ctx := t.Context()
			names, err := k.d.Names(ctx)
			k.ok(err)
			state, err := k.d.SealState(ctx, secret.New(random(StateKeySize)), Seal{})
			k.ok(err)
			machineKey, _, err := k.d.CreateKey(ctx)
			k.ok(err)
			attest, _, err := k.d.CreateAttestationKey(ctx)
			k.ok(err)
			_, err = k.d.DefineCounter(ctx, LastHandle)
			k.ok(err)
			k.ok(k.try(right))

			k.d, err = OpenDevice(change(sw, other))
			k.ok(err)
			k.want(k.try(right), ErrCleared)
			k.want(k.try(wrong), ErrCleared)
			_, err = k.d.UnsealState(ctx, state)
			k.want(err, ErrCleared)
			signer, err := k.d.Signer(machineKey)
			k.ok(err)
			_, err = signer.Sign(nil, random(32), crypto.SHA256)
			k.want(err, ErrCleared)
			_, err = k.d.CertifyCounter(ctx, attest, LastHandle, random(32))
			k.want(err, ErrCleared)
			_, err = k.d.ReadCounter(ctx, LastHandle)
			k.want(err, ErrRemoved)
			_, err = k.d.Status(ctx, k.spec)
			k.want(err, ErrRemoved)
			k.d.Pin(names)
			k.want(k.d.Define(ctx, k.spec, k.auths), ErrCleared) // pinned: no password for a stranger
			_, err = k.d.Parent(ctx)
			k.want(err, ErrCleared)
			_, err = k.d.SealState(ctx, secret.New(random(StateKeySize)), Seal{})
			k.want(err, ErrCleared)
			k.d.Pin(Names{})
			_, err = k.d.Parent(ctx)
			k.ok(err)
			k.clean()
		})
	}
}

func TestO17ATPMThatIsGoneIsTold(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	sw.Kill() // the socket's file stays: nobody listens
	k.want(k.try(right), ErrGone)
	k.want(k.d.Lift(t.Context(), k.spec, UseIndex, k.lift), ErrGone)
	sw.Start()
	k.ok(k.try(right))
	k.want(k.try(wrong), ErrWrongPassword)

	none := openDesk(t, sw, "socket:"+filepath.Join(t.TempDir(), "s"))
	_, err := none.d.Parent(t.Context())
	k.want(err, ErrGone)
	none = openDesk(t, sw, "device:/dev/tpm-that-is-not-there")
	_, err = none.d.Parent(t.Context())
	k.want(err, ErrGone)
	none = openDesk(t, sw, "device:/etc/passwd")
	_, err = none.d.Parent(t.Context())
	k.want(err, ErrUnavailable)
	none = openDesk(t, sw, "device:/dev/zero") // a device, but not a TPM
	_, err = none.d.Parent(t.Context())
	k.want(err, ErrUnavailable)
}

func TestAnEmulatorThatNobodyStartedUpIsStartedUp(t *testing.T) {
	sw := tpmtest.StartRaw(t)
	k := enrolled(t, sw, sw.Spec())
	k.ok(k.try(right))
	sw.Restart()
	k.want(k.try(wrong), ErrWrongPassword)
	k.tallies(1, 1)
	k.clean()
}

func TestASlowTPMIsUnavailableAndNeverAWrongPassword(t *testing.T) {
	sw := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, sw)
	k := enrolled(t, sw, p.Spec())
	for name, delay := range map[string]time.Duration{"each command is slow": 400 * time.Millisecond, "no answer at all": 4 * time.Second} {
		t.Run(name, func(t *testing.T) {
			p.Slow(delay)
			long := k.d.limits
			k.d.limits = times{CommandTime, OperationTime, SetupTime}
			t0 := time.Now()
			err := k.try(wrong)
			took := time.Since(t0)
			k.want(err, ErrUnavailable)
			if took < CommandTime || took > OperationTime+time.Second {
				t.Errorf("took %v, want %v to %v", took, CommandTime, OperationTime)
			}
			k.d.limits = long
			p.Hook(nil)
			time.Sleep(delay / 2) // the proxy is still busy with the last one
			for deadline := time.Now().Add(5 * time.Second); ; {
				if err = k.try(right); err == nil {
					break
				}
				k.want(err, ErrUnavailable)
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			k.clean() // what the interrupted operation left is gone
		})
	}
}

func TestTheCallersContextEndsAnOperation(t *testing.T) {
	sw := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, sw)
	k := enrolled(t, sw, p.Spec())
	p.Slow(10 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	t0 := time.Now()
	_, err := k.d.MAC(ctx, k.spec, k.blob, k.auths, []byte("x"))
	k.want(err, ErrUnavailable)
	if !errors.Is(err, context.Canceled) || time.Since(t0) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(t0))
	}
}

// Every code that says "not now", at every command of a check, and what a broken
// TPM answers: none of it is a verdict about the password, and none is counted.
func TestBusyIsNeverAWrongPassword(t *testing.T) {
	sw := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, sw)
	k := enrolled(t, sw, p.Spec())
	k.ok(k.try(right))
	k.ok(k.d.Lift(t.Context(), k.spec, UseIndex, k.lift))

	before := len(p.Seen())
	k.ok(k.try(right))
	commands := (len(p.Seen()) - before) / 2
	k.ok(k.d.Lift(t.Context(), k.spec, UseIndex, k.lift))
	if commands < 10 {
		t.Fatalf("a check is %d commands", commands)
	}
	at := func(n int, answer []byte) func([]byte) []byte {
		return func([]byte) []byte {
			if n--; n < 0 {
				return answer
			}
			return nil
		}
	}
	for _, c := range []struct {
		what   string
		answer []byte
		want   error
	}{
		{"object memory", tpmtest.Answer(0x902), ErrBusy},
		{"session memory", tpmtest.Answer(0x903), ErrBusy},
		{"session handles", tpmtest.Answer(0x905), ErrBusy},
		{"a session that is gone", tpmtest.Answer(0x918), ErrBusy},
		{"NV unavailable", tpmtest.Answer(0x923), ErrBusy},
		{"failure mode", tpmtest.Answer(0x101), ErrUnavailable},
		{"hangs up", []byte{}, ErrUnavailable},
		{"nonsense", bytes.Repeat([]byte{0xFF}, 10), ErrUnavailable},
		{"an answer cut short", []byte{0x80, 1, 0, 0, 0, 9, 0, 0, 0, 0}, ErrUnavailable},
		{"an answer with nothing in it", tpmtest.Answer(0), nil},
	} {
		for n := range commands {
			p.Hook(at(n, c.answer))
			err := k.try(wrong)
			p.Hook(nil)
			if err == nil || errors.Is(err, ErrLocked) || errors.Is(err, ErrCleared) {
				t.Fatalf("%s at command %d: %v", c.what, n, err)
			}
			// The wrong password is refused at some command: from the next on
			// that verdict stands, whatever becomes of the cleaning up.
			if errors.Is(err, ErrWrongPassword) {
				k.want(err, ErrWrongPassword)
				k.ok(k.d.Lift(t.Context(), k.spec, PasswordIndex, k.lift))
				continue
			}
			if c.want != nil && !errors.Is(err, c.want) {
				t.Fatalf("%s at command %d: %v, want %v", c.what, n, err, c.want)
			}
			st, err := k.d.Status(t.Context(), k.spec)
			k.ok(err)
			if st.Passwords.Count > 1 {
				t.Fatalf("%s at command %d: %+v", c.what, n, st)
			}
			k.ok(k.d.Lift(t.Context(), k.spec, PasswordIndex, k.lift))
		}
	}
	k.clean()
}

func TestACommandToBeRetriedIsRetried(t *testing.T) {
	sw := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, sw)
	k := enrolled(t, sw, p.Spec())
	for _, code := range []uint32{0x922, 0x908, 0x90A, 0x920} {
		n := 0
		p.Hook(func([]byte) []byte {
			if n++; n%2 == 1 {
				return tpmtest.Answer(code)
			}
			return nil
		})
		k.want(k.try(wrong), ErrWrongPassword)
		p.Hook(nil)
		k.ok(k.d.Lift(t.Context(), k.spec, PasswordIndex, k.lift))
	}
	// One that goes on sparing its memory is told as busy, in time.
	p.Hook(func([]byte) []byte { return tpmtest.Answer(0x920) })
	k.d.limits = times{CommandTime, OperationTime, SetupTime}
	t0 := time.Now()
	k.want(k.try(right), ErrBusy)
	if took := time.Since(t0); took > OperationTime+500*time.Millisecond {
		t.Errorf("took %v", took)
	}
	p.Hook(nil)
	k.ok(k.try(right))
	k.clean()
}

func TestWhatAKilledProcessLeftIsCleanedUp(t *testing.T) {
	sw := tpmtest.Start(t)
	for range 2 {
		_, _, err := tpm2.PolicySession(sw, tpm2.TPMAlgSHA256, nonceSize)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = (tpm2.CreatePrimary{PrimaryHandle: ownerHandle(secret.Bytes{}), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(sw); err != nil {
			t.Fatal(err)
		}
	}
	if n := sw.Loaded(); n != 4 {
		t.Fatal(n)
	}
	k := enrolled(t, sw, sw.Spec())
	k.ok(k.try(right))
	k.clean()
}

func TestOperationsRunOneAfterTheOther(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	again, err := OpenDevice(sw.Spec()) // another Device, the same TPM
	k.ok(err)
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		d := []*Device{k.d, again}[i%2]
		wg.Go(func() {
			for range 5 {
				if err := d.Do(t.Context(), func(tpm transport.TPM) error {
					if n := inside.Add(1); n > most.Load() {
						most.Store(n)
					}
					defer inside.Add(-1)
					_, err := tpm2.GetRandom{BytesRequested: 8}.Execute(tpm)
					return err
				}); err != nil {
					t.Error(err)
				}
				if err := k.try(wrong); !errors.Is(err, ErrWrongPassword) && !errors.Is(err, ErrLocked) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d operations at once", most.Load())
	}
	k.tallies(3, 0)
	k.clean()
}

func TestNobodyWaitsWhileTheServerIsAskedForAPermit(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	asked, answer := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- k.d.Lift(t.Context(), k.spec, UseIndex, func(ctx context.Context, kind Kind, nonce []byte) (Permit, error) {
			close(asked)
			<-answer
			return k.lift(ctx, kind, nonce)
		})
	}()
	<-asked
	k.ok(k.try(right)) // takes every slot that the TPM has beside the waiting session
	k.want(k.try(wrong), ErrWrongPassword)
	// An operation that broke down cleans up, but not the waiting session.
	k.d.gate.soil()
	k.ok(k.try(right))
	k.tallies(0, 2)
	close(answer)
	k.ok(<-done)
	k.tallies(0, 0)
	k.clean()
}

func TestAPermitThatDoesNotComeLeavesNothingBehind(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	away := errors.New("server away")
	err := k.d.Lift(t.Context(), k.spec, UseIndex, func(context.Context, Kind, []byte) (Permit, error) { return Permit{}, away })
	k.want(err, away)
	k.clean()
	// The caller goes away while the server thinks.
	ctx, cancel := context.WithCancel(t.Context())
	err = k.d.Lift(ctx, k.spec, UseIndex, func(ctx context.Context, _ Kind, _ []byte) (Permit, error) {
		cancel()
		<-ctx.Done()
		return Permit{}, ctx.Err()
	})
	k.want(err, context.Canceled)
	k.clean()
	// The power goes away.
	err = k.d.Lift(t.Context(), k.spec, UseIndex, func(ctx context.Context, kind Kind, nonce []byte) (Permit, error) {
		sw.Restart()
		return k.lift(ctx, kind, nonce)
	})
	if err == nil || errors.Is(err, ErrPermit) {
		t.Fatalf("a session from before the power cut: %v", err)
	}
	k.clean()
	// The emulator stays away.
	err = k.d.Lift(t.Context(), k.spec, UseIndex, func(ctx context.Context, kind Kind, nonce []byte) (Permit, error) {
		sw.Kill()
		return k.lift(ctx, kind, nonce)
	})
	k.want(err, ErrGone)
	sw.Start()
	k.ok(k.try(right))
	k.clean()
}

func TestAPermitThatDoesNotFitIsRefused(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	for name, change := range map[string]func(kind Kind, nonce []byte) (Permit, error){
		"another value": func(kind Kind, n []byte) (Permit, error) {
			p, err := k.lift(t.Context(), kind, n)
			p.Value.Limit++
			return p, err
		},
		"the other index": func(_ Kind, n []byte) (Permit, error) { return k.lift(t.Context(), PasswordIndex, n) },
		"an activation":   func(kind Kind, n []byte) (Permit, error) { return k.activation(t.Context(), kind, n) },
		"another nonce":   func(kind Kind, n []byte) (Permit, error) { return k.lift(t.Context(), kind, random(32)) },
		"no signature":    func(kind Kind, n []byte) (Permit, error) { return Permit{Value: Tally{0, 5}, Expiration: 60}, nil },
		"never ends": func(kind Kind, n []byte) (Permit, error) {
			p, err := k.lift(t.Context(), kind, n)
			p.Expiration = 0
			return p, err
		},
		"asks for a ticket": func(kind Kind, n []byte) (Permit, error) {
			p, err := k.lift(t.Context(), kind, n)
			p.Expiration = -60
			return p, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := k.d.Lift(t.Context(), k.spec, UseIndex, func(_ context.Context, kind Kind, nonce []byte) (Permit, error) { return change(kind, nonce) })
			k.want(err, ErrPermit)
			k.clean()
		})
	}
	k.tallies(0, 0)
}

func TestThePermitKeyMustBeTheSpecs(t *testing.T) {
	s, err := NewSpec(ID{"u", "m", 1}, p256(t).Public(), FirstHandle, FirstHandle+1)
	if err != nil {
		t.Fatal(err)
	}
	own := p256(t)
	mine, err := NewSpec(ID{"u", "m", 1}, own.Public(), FirstHandle, FirstHandle+1)
	if err != nil {
		t.Fatal(err)
	}
	good := Tally{0, 5}
	for name, f := range map[string]func() error{
		"another key":    func() error { _, err := SignLift(own, s, UseIndex, good, random(32), 60); return err },
		"no kind":        func() error { _, err := SignLift(own, mine, 0, good, random(32), 60); return err },
		"no nonce":       func() error { _, err := SignLift(own, mine, UseIndex, good, nil, 60); return err },
		"a short nonce":  func() error { _, err := SignLift(own, mine, UseIndex, good, random(31), 60); return err },
		"never ends":     func() error { _, err := SignLift(own, mine, UseIndex, good, random(32), 0); return err },
		"a ticket":       func() error { _, err := SignLift(own, mine, UseIndex, good, random(32), -1); return err },
		"no limit":       func() error { _, err := SignLift(own, mine, UseIndex, Tally{}, random(32), 60); return err },
		"above limit":    func() error { _, err := SignLift(own, mine, UseIndex, Tally{6, 5}, random(32), 60); return err },
		"no spec":        func() error { _, err := SignLift(own, Spec{}, UseIndex, good, random(32), 60); return err },
		"key, no spec":   func() error { _, _, err := NewKey(Spec{}, Parent{}); return err },
		"key, no parent": func() error { _, _, err := NewKey(mine, Parent{}); return err },
	} {
		if f() == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if _, err := SignLift(own, mine, UseIndex, good, random(32), 60); err != nil {
		t.Error(err)
	}
}

func TestHandlesAreFoundAndGivenBack(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	var err error
	k.d, err = Open(Config{Spec: sw.Spec(), FirstHandle: 0x01900000, LastHandle: 0x01900004})
	k.ok(err)
	ctx := t.Context()
	// Somebody else's index in our range is neither proposed nor ours.
	_, err = tpm2.NVDefineSpace{AuthHandle: ownerHandle(secret.Bytes{}), PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: 0x01900001, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8, Attributes: tpm2.TPMANV{OwnerRead: true, OwnerWrite: true},
	})}.Execute(sw)
	k.ok(err)
	k.enrol("anna", 1)
	p, u := k.spec.Handles()
	if p != 0x01900000 || u != 0x01900002 {
		t.Fatalf("%#x %#x", p, u)
	}
	_, err = k.d.DefineCounter(ctx, 0x01900003)
	k.ok(err)
	_, err = k.d.FreeHandles(ctx, 2)
	k.want(err, ErrNoSpace)
	list, err := k.d.Owned(ctx)
	k.ok(err)
	if want := "[{26214400 password true} {26214402 use true} {26214403 counter true}]"; fmt.Sprint(list) != want {
		t.Fatal(list)
	}
	k.want(k.d.Reclaim(ctx, 0x01900001), ErrReplaced)
	if k.d.Reclaim(ctx, 0x01800000) == nil {
		t.Error("reclaimed outside its range")
	}
	k.ok(k.d.Reclaim(ctx, p, u, 0x01900003, 0x01900004))
	if list, err = k.d.Owned(ctx); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	k.want(k.try(right), ErrRemoved)
	k.clean()
}

func TestAFullTPMIsTold(t *testing.T) {
	sw := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, sw)
	k := openDesk(t, sw, p.Spec())
	k.limits = nil
	p.Hook(func(c []byte) []byte {
		if tpm2.TPMCC(tpmtest.Command(c)) == tpm2.TPMCCNVDefineSpace {
			return tpmtest.Answer(0x14B)
		}
		return nil
	})
	s, err := NewSpec(ID{"u", "m", 1}, k.server.Public(), FirstHandle, FirstHandle+1)
	k.ok(err)
	k.want(k.d.Define(t.Context(), s, Auths{secret.New(bytes.Clone(right)), NewUseAuth()}), ErrNoSpace)
	_, err = k.d.DefineCounter(t.Context(), LastHandle)
	k.want(err, ErrNoSpace)
	k.clean()
}

func TestAnOwnersPasswordIsToldOrUsed(t *testing.T) {
	sw := tpmtest.Start(t)
	k := enrolled(t, sw, sw.Spec())
	ctx := t.Context()
	_, err := k.d.DefineCounter(ctx, LastHandle)
	k.ok(err)
	sw.SetOwnerAuth([]byte("owner"))
	sw.Restart()
	k.want(k.try(right), ErrOwner)
	_, err = k.d.Status(ctx, k.spec)
	k.want(err, ErrOwner)
	k.want(k.d.Remove(ctx, k.spec), ErrOwner)
	_, err = k.d.Increment(ctx, LastHandle) // the counter has no need of it
	k.ok(err)
	i, err := k.d.Info(ctx)
	k.ok(err)
	if !i.OwnerAuthSet {
		t.Error("Info does not tell the owner's password")
	}
	k.d, err = Open(Config{Spec: sw.Spec(), OwnerAuth: secret.FromString("owner")})
	k.ok(err)
	k.ok(k.try(right))
	k.tallies(0, 1)
	k.ok(k.d.Remove(ctx, k.spec))
	k.clean()
}

func TestO7NothingSecretCrossesTheBus(t *testing.T) {
	sw := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, sw)
	k := enrolled(t, sw, p.Spec())
	message := []byte("a message with the code 123456 in it")
	mac, err := k.d.MAC(t.Context(), k.spec, k.blob, k.auths, message)
	k.ok(err)
	state := secret.New(random(StateKeySize))
	var sealed [][]byte
	for _, s := range []Seal{{}, {BootState: true}} {
		rec, err := k.d.SealState(t.Context(), state, s)
		k.ok(err)
		_, err = k.d.UnsealState(t.Context(), rec)
		k.ok(err)
		sealed = append(sealed, rec)
	}
	k.want(k.try(wrong), ErrWrongPassword)
	secrets := map[string][]byte{
		"password": right, "wrong password": wrong, "use value": k.auths.Use.Reveal(), "verifier key": k.key.Reveal(),
		"MAC": mac, "tag": mac[:8], "message": message, "code": []byte("123456"), "state key": state.Reveal(),
	}
	for _, packet := range append(p.Seen(), sealed...) {
		for what, s := range secrets {
			if bytes.Contains(packet, s) {
				t.Errorf("%s in the clear in %x", what, packet)
			}
		}
	}
	if len(p.Seen()) < 60 {
		t.Errorf("only %d packets seen", len(p.Seen()))
	}
}

// One octet of one answer changes on its way: the agent neither falls over nor
// believes it, and the next operation finds the TPM clean.
func TestAnAnswerDamagedOnItsWayIsNotBelieved(t *testing.T) {
	sw := tpmtest.Start(t)
	p := tpmtest.NewProxy(t, sw)
	k := enrolled(t, sw, p.Spec())
	ctx := t.Context()
	k.limits = map[Kind]Tally{PasswordIndex: {0, 5000}, UseIndex: {0, 5000}}
	k.ok(k.d.Lift(ctx, k.spec, UseIndex, k.lift))
	k.ok(k.d.Lift(ctx, k.spec, PasswordIndex, k.lift))
	state := secret.New(random(StateKeySize))
	record, err := k.d.SealState(ctx, state, Seal{})
	k.ok(err)
	message := []byte("x")
	want := MAC(k.key, message)
	rng := mathrand.New(mathrand.NewPCG(1, 2))
	for i := range 300 {
		at := rng.IntN(14)
		p.Edit(func(_, answer []byte) []byte {
			if at--; at == -1 {
				i := rng.IntN(len(answer) - 4)
				if i >= 2 {
					i += 4 // but not in its size, which would only be waited for
				}
				answer[i] ^= byte(1 + rng.IntN(255))
			}
			return answer
		})
		if i%2 == 0 {
			mac, err := k.d.MAC(ctx, k.spec, k.blob, k.auths, message)
			if err == nil && !bytes.Equal(mac, want[:]) {
				t.Fatalf("trial %d: a wrong MAC is believed", i)
			}
			if errors.Is(err, ErrLocked) || errors.Is(err, ErrUsedUp) {
				t.Fatalf("trial %d: %v", i, err)
			}
			if errors.Is(err, ErrWrongPassword) {
				// A damaged nonce spoils the proof of the password: the TPM has
				// refused it, and counted.
				p.Edit(nil)
				st, err := k.d.Status(ctx, k.spec)
				k.ok(err)
				if st.Passwords.Count == 0 {
					t.Fatalf("trial %d: a wrong password that the TPM did not count", i)
				}
			}
		} else {
			got, err := k.d.UnsealState(ctx, record)
			if err == nil && !got.Equal(state) {
				t.Fatalf("trial %d: a wrong state key is believed", i)
			}
		}
		p.Edit(nil)
	}
	k.ok(k.try(right))
	k.clean()
}

// managed is a connection by way of a resource manager.
type managed struct{ sw *tpmtest.Emulator }

func (m managed) exchange(_ context.Context, command []byte) ([]byte, error) {
	return m.sw.Send(command)
}
func (m managed) close() <-chan struct{} { return nil }

func TestBesideAResourceManagerNothingOfOthersIsTouched(t *testing.T) {
	sw := tpmtest.Start(t)
	k := openDesk(t, sw, sw.Spec())
	k.d.addr, k.d.gate = address{how: "tbs"}, newGate()
	opened := 0
	k.d.dial = func(context.Context) (conn, error) { opened++; return managed{sw}, nil }
	if _, err := (tpm2.CreatePrimary{PrimaryHandle: ownerHandle(secret.Bytes{}), InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}).Execute(sw); err != nil {
		t.Fatal(err)
	}
	k.enrol("anna", 1)
	k.want(k.try(wrong), ErrWrongPassword)
	opened = 0
	// The connection stays while the server is asked, or the manager would end
	// the session; the turn is given up all the same.
	k.ok(k.d.Lift(t.Context(), k.spec, PasswordIndex, func(ctx context.Context, kind Kind, nonce []byte) (Permit, error) {
		st, err := k.d.Status(ctx, k.spec)
		k.ok(err)
		if st.Passwords.Count != 1 {
			t.Errorf("%+v", st)
		}
		return k.lift(ctx, kind, nonce)
	}))
	if opened != 2 {
		t.Errorf("opened %d times for two operations", opened)
	}
	k.tallies(0, 0)
	if n := sw.Loaded(); n != 1 {
		t.Errorf("%d handles loaded, want the other program's one", n)
	}
}
