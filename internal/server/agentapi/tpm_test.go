package agentapi_test

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/secret"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/store"
	"latchkey/internal/tpm"
	"latchkey/internal/tpm/tpmtest"
	"latchkey/internal/wire"
)

// tpmMachine is a machine with an emulated TPM and what lies in it.
type tpmMachine struct {
	*machine
	emulator *tpmtest.Emulator
	tpm      *tpm.Device
	attest   []byte // record of the attestation key
	counter  uint32
}

func (r *rig) tpmMachine() *tpmMachine {
	r.Helper()
	t := &tpmMachine{machine: r.newMachine(), emulator: tpmtest.Start(r)}
	var err error
	if t.tpm, err = tpm.OpenDevice(t.emulator.Spec()); err != nil {
		r.Fatal(err)
	}
	ctx := r.Context()
	t.facts.Class = "tpm"
	if t.facts.Parent, err = t.tpm.Parent(ctx); err != nil {
		r.Fatal(err)
	}
	if t.attest, t.facts.AttestKey, err = t.tpm.CreateAttestationKey(ctx); err != nil {
		r.Fatal(err)
	}
	free, err := t.tpm.FreeHandles(ctx, 1)
	if err != nil {
		r.Fatal(err)
	}
	t.counter = free[0]
	if _, err := t.tpm.DefineCounter(ctx, t.counter); err != nil {
		r.Fatal(err)
	}
	info, err := t.tpm.Info(ctx)
	if err != nil {
		r.Fatal(err)
	}
	info.Counter = t.counter
	if t.facts.TPM, err = json.Marshal(info); err != nil {
		r.Fatal(err)
	}
	t.join(r.token(enroll.Order{}))
	return t
}

// tpmHeld is a generation in the TPM.
type tpmHeld struct {
	held
	spec  tpm.Spec
	auths tpm.Auths
	blob  tpm.Blob
	fail  uint32
	pass  uint32
}

func (m *tpmMachine) permit(conv string, u *person, generation uint64, written bool) tpm.Permitter {
	return func(_ context.Context, k tpm.Kind, nonce []byte) (tpm.Permit, error) {
		var p wire.Permit
		status, problem, err := m.call("POST", wire.PathPermit, wire.PermitRequest{
			Conversation: conv, UserID: u.id, Generation: generation, Kind: k.String(), Written: written, Nonce: nonce,
		}, &p)
		if err == nil && status >= 300 {
			err = problem
		}
		return tpm.Permit{Value: tpm.Tally{Count: p.Count, Limit: p.Limit}, Expiration: p.Expiration, Signature: p.Signature}, err
	}
}

func (m *tpmMachine) prepareTPM(u *person, password string) *tpmHeld {
	m.r.Helper()
	ctx := m.r.Context()
	free, err := m.tpm.FreeHandles(ctx, 2)
	if err != nil {
		m.r.Fatal(err)
	}
	h := &tpmHeld{fail: free[0], pass: free[1]}
	h.PrepareReply, h.conversation = m.prepare(u, func(in *wire.Prepare) {
		in.Class, in.Parent, in.FailHandle, in.PassHandle = "tpm", m.facts.Parent, h.fail, h.pass
	})
	if h.Action != wire.ActionGeneration || h.Wrapped == nil || !h.Key.Empty() {
		m.r.Fatalf("%+v", h.PrepareReply)
	}
	h.spec, err = tpm.NewSpec(tpm.ID{User: u.id, Machine: m.id, Generation: h.Generation}, m.machine.permit.(crypto.PublicKey), h.fail, h.pass)
	if err != nil {
		m.r.Fatal(err)
	}
	h.auths = tpm.Auths{Password: auth(password), Use: tpm.NewUseAuth()}
	return h
}

func auth(password string) secret.Bytes {
	b := make([]byte, 32)
	copy(b, password)
	for i := range b {
		if b[i] == 0 {
			b[i] = 7
		}
	}
	return tpm.AuthValue(secret.New(b))
}

func (m *tpmMachine) enrolTPM(u *person, password string) *tpmHeld {
	m.r.Helper()
	ctx := m.r.Context()
	h := m.prepareTPM(u, password)
	if err := m.tpm.Define(ctx, h.spec, h.auths); err != nil {
		m.r.Fatal(err)
	}
	if err := m.tpm.Activate(ctx, h.spec, m.permit(h.conversation, u, h.Generation, false)); err != nil {
		m.r.Fatal(err)
	}
	var err error
	if h.blob, err = m.tpm.Import(ctx, tpm.Bundle{Public: h.Wrapped.Public, Duplicate: h.Wrapped.Duplicate, Seed: h.Wrapped.Seed}); err != nil {
		m.r.Fatal(err)
	}
	h.bundle = m.bundle(h.held, nil)
	m.must("POST", wire.PathReady, wire.Ready{Conversation: h.conversation, UserID: u.id, Generation: h.Generation}, nil)
	return h
}

// check tries a code with one counted use of the TPM.
func (m *tpmMachine) check(h *tpmHeld, password, code string, step int64) (bool, error) {
	a := h.auths
	a.Password = auth(password)
	tags := h.bundle.Authenticators[0]
	mac, err := m.tpm.MAC(m.r.Context(), h.spec, h.blob, a, wire.CodeMessage(tags.Period, step, code))
	if err != nil {
		return false, err
	}
	want, ok := tags.At(step)
	if !ok {
		m.r.Fatalf("step %d is not in the bundle", step)
	}
	for _, tag := range want {
		if string(tag[:]) == string(mac[:wire.TagSize]) {
			return true, nil
		}
	}
	return false, nil
}

func TestOfflineDataInARealTPM(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.tpmMachine()
	alice := r.person("alice")
	h := m.enrolTPM(alice, "open sesame")
	p := otp.DefaultParams
	step := p.Step(r.clock.Now())
	for _, c := range []struct {
		code string
		want bool
	}{
		{p.Code(alice.seed, step), true},
		{p.Code(alice.seed, step+1), true},
		{p.Code(alice.seed, step-1), true},
		{p.Code(alice.seed, step+5), false},
		{"000000", p.Code(alice.seed, step) == "000000"},
	} {
		if ok, err := m.check(h, "open sesame", c.code, step); err != nil || ok != c.want {
			t.Errorf("%s: %v, %v", c.code, ok, err)
		}
	}
	// The TPM counts to the server's limits.
	for range 10 {
		if _, err := m.check(h, "open barley", "000000", step); err == nil {
			t.Fatal("a wrong password was accepted")
		}
	}
	if _, err := m.check(h, "open sesame", p.Code(alice.seed, step), step); !errors.Is(err, tpm.ErrLocked) {
		t.Fatalf("at the limit the right password gives %v", err)
	}

	// A lift after an MFA opens it again; the same conversation lifts no second time.
	var ext wire.PrepareReply
	conv := alice.signedIn(m.machine, nil)
	m.must("POST", wire.PathPrepare, wire.Prepare{
		Conversation: conv, Class: "tpm", Parent: m.facts.Parent, FailHandle: h.fail, PassHandle: h.pass, HaveGeneration: h.Generation, HavePassword: true,
	}, &ext)
	if ext.Action != wire.ActionExtend {
		t.Fatalf("%+v", ext)
	}
	lift := m.permit(conv, alice, h.Generation, true)
	for _, k := range []tpm.Kind{tpm.PasswordIndex, tpm.UseIndex} {
		if err := m.tpm.Lift(t.Context(), h.spec, k, lift); err != nil {
			t.Fatal(err)
		}
		var problem wire.Problem
		if err := m.tpm.Lift(t.Context(), h.spec, k, lift); !errors.As(err, &problem) || problem.Code != "conflict" {
			t.Errorf("a second lift of the %s index: %v", k, err)
		}
	}
	st, err := m.tpm.Status(t.Context(), h.spec)
	if err != nil || st.Passwords != (tpm.Tally{Limit: 10}) || st.Uses != (tpm.Tally{Limit: 60}) {
		t.Errorf("%+v, %v", st, err)
	}
	if ok, err := m.check(h, "open sesame", p.Code(alice.seed, step), step); err != nil || !ok {
		t.Errorf("after the lift: %v, %v", ok, err)
	}
	if got := r.reasons(event.VaultEnrolled, event.VaultLifted, event.VaultSynced); got != "offline.enrolled/ offline.synced/ offline.lifted/online-mfa offline.lifted/online-mfa" {
		t.Error(got)
	}
}

func TestAnActivationIsPermittedOnce(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.tpmMachine()
		alice := r.person("alice")
		h := m.prepareTPM(alice, "open sesame")
		ask := func(kind, conv string) (int, string) {
			status, p, err := m.call("POST", wire.PathPermit, wire.PermitRequest{
				Conversation: conv, UserID: alice.id, Generation: h.Generation, Kind: kind, Nonce: make([]byte, 32),
			}, nil)
			if err != nil {
				t.Error(err)
			}
			return status, p.Code
		}
		// Not in another conversation of the same person, and not without one.
		for _, conv := range []string{alice.signedIn(m.machine, nil), ""} {
			if status, code := ask("use", conv); status != 403 || code != "forbidden" {
				t.Errorf("conversation %q: %d %s", conv, status, code)
			}
		}
		// Before both are given the generation is not ready.
		m.fails("POST", wire.PathReady, wire.Ready{Conversation: h.conversation, UserID: alice.id, Generation: h.Generation}, "conflict")
		for _, kind := range []string{"password", "use"} {
			var wg sync.WaitGroup
			var mu sync.Mutex
			given, refused := 0, 0
			for range 8 {
				wg.Go(func() {
					status, code := ask(kind, h.conversation)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case status == 200:
						given++
					case code == "conflict":
						refused++
					}
				})
			}
			wg.Wait()
			if given != 1 || refused != 7 {
				t.Errorf("%s: %d given, %d refused", kind, given, refused)
			}
		}
		if status, code := ask("use", h.conversation); status != 409 || code != "conflict" {
			t.Errorf("%d %s", status, code)
		}
		m.fails("POST", wire.PathReady, wire.Ready{Conversation: alice.signedIn(m.machine, nil), UserID: alice.id, Generation: h.Generation}, "forbidden")
		m.must("POST", wire.PathReady, wire.Ready{Conversation: h.conversation, UserID: alice.id, Generation: h.Generation}, nil)
		// In use it is not activated once more either.
		if status, _ := ask("password", h.conversation); status != 403 {
			t.Errorf("%d", status)
		}
	})
}

func TestAGenerationThatWasLeftHalfDoneIsDead(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.tpmMachine()
	alice := r.person("alice")
	first := m.prepareTPM(alice, "open sesame")
	second := m.prepareTPM(alice, "open sesame")
	if second.Generation != first.Generation+1 {
		t.Errorf("generations %d, %d", first.Generation, second.Generation)
	}
	m.fails("POST", wire.PathPermit, wire.PermitRequest{
		Conversation: first.conversation, UserID: alice.id, Generation: first.Generation, Kind: "use", Nonce: make([]byte, 32),
	}, "forbidden")
	for _, n := range []int{0, 16, 31, 33, 64} {
		m.fails("POST", wire.PathPermit, wire.PermitRequest{
			Conversation: second.conversation, UserID: alice.id, Generation: second.Generation, Kind: "use", Nonce: make([]byte, n),
		}, "invalid")
	}
}

func TestALiftIsOfNoUseToAnIndexThatWasDefinedAnew(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.tpmMachine()
	alice := r.person("alice")
	h := m.enrolTPM(alice, "open sesame")
	// Root deletes the indices and defines them anew with a password of his own, and
	// then has a real MFA's lift.
	ctx := t.Context()
	if err := m.tpm.Remove(ctx, h.spec); err != nil {
		t.Fatal(err)
	}
	h.auths.Password = auth("a password of root's own")
	if err := m.tpm.Define(ctx, h.spec, h.auths); err != nil {
		t.Fatal(err)
	}
	conv := alice.signedIn(m.machine, nil)
	for _, k := range []tpm.Kind{tpm.PasswordIndex, tpm.UseIndex} {
		if err := m.tpm.Lift(ctx, h.spec, k, m.permit(conv, alice, h.Generation, true)); err == nil {
			t.Errorf("the %s index was lifted", k)
		}
		if err := m.tpm.Activate(ctx, h.spec, m.permit(conv, alice, h.Generation, false)); err == nil {
			t.Error("it was activated again")
		}
	}
	step := otp.DefaultParams.Step(r.clock.Now())
	if ok, err := m.check(h, "a password of root's own", otp.DefaultParams.Code(alice.seed, step), step); err == nil {
		t.Errorf("the key answers: %v", ok)
	}
}

func TestAnotherTPMsKeyIsNotWrappedFor(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m, other := r.tpmMachine(), r.tpmMachine()
	alice := r.person("alice")
	p, _ := m.prepare(alice, func(in *wire.Prepare) {
		in.Class, in.Parent, in.FailHandle, in.PassHandle = "tpm", other.facts.Parent, 0x01800100, 0x01800101
	})
	if p.Action != wire.ActionRefused || p.Reason != offline.ReasonTPMKey || p.Wrapped != nil {
		t.Errorf("%+v", p)
	}
	for _, handles := range [][2]uint32{{0, 0}, {0x01800100, 0x01800100}, {0x01800100, 0x01C00000}, {0x81000001, 0x01800100}} {
		m.fails("POST", wire.PathPrepare, wire.Prepare{
			Conversation: alice.signedIn(m.machine, nil), Class: "tpm", Parent: m.facts.Parent, FailHandle: handles[0], PassHandle: handles[1], HavePassword: true,
		}, "invalid")
	}
}

func TestTheJournalsCounterIsTheTPMs(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.tpmMachine()
	c := &chain{m: m.machine}
	denied := event.Event{Type: event.SigninDenied, Subject: "x", Outcome: "deny"}
	deliver := func(certify bool, counter func(value uint64) uint64) string {
		t.Helper()
		value, err := m.tpm.Increment(t.Context(), m.counter)
		if err != nil {
			t.Fatal(err)
		}
		before := c.hash
		c.add(denied, nil)
		e := &c.list[len(c.list)-1]
		e.Counter = counter(value)
		c.hash = wire.EntryHash(m.id, before, *e)
		e.Hash = append([]byte(nil), c.hash[:]...)
		j := wire.Journal{Entries: c.list[len(c.list)-1:]}
		if certify {
			cert, err := m.tpm.CertifyCounter(t.Context(), m.attest, m.counter, e.Hash)
			if err != nil {
				t.Fatal(err)
			}
			j.Attest, j.Sig = cert.Attest, cert.Signature
		}
		n := len(r.events(event.JournalForged, event.VaultRolledBack))
		m.must("POST", wire.PathJournal, j, nil)
		var out []string
		for _, e := range r.events(event.JournalForged, event.VaultRolledBack)[n:] {
			out = append(out, e.Reason)
		}
		return strings.Join(out, " ")
	}
	same := func(v uint64) uint64 { return v }
	if got := deliver(true, same); got != "" {
		t.Error(got)
	}
	if got := deliver(false, same); got != "counter-not-certified" {
		t.Error(got)
	}
	if got := deliver(true, func(v uint64) uint64 { return v - 1 }); got != "" {
		t.Errorf("an entry whose write came later: %s", got)
	}
	if got := deliver(true, func(v uint64) uint64 { return v + 5 }); got != "counter-not-certified" {
		t.Errorf("a counter that the TPM does not have: %s", got)
	}
	// A TPM that was cleared, or another one, shows other keys: an event.
	m.emulator.Clear()
	var err error
	if m.facts.Parent, err = m.tpm.Parent(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
	m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
	if got := r.reasons(event.TPMProblem); got != "tpm.problem/tpm-keys-changed" {
		t.Error(got)
	}
	m.facts.TPMProblem = "tpm-gone"
	m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
	m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
	if got := r.reasons(event.TPMProblem); got != "tpm.problem/tpm-keys-changed tpm.problem/tpm-gone" {
		t.Error(got)
	}
	r.read(func(q *store.Queries) error {
		row, err := q.GetMachine(t.Context(), m.id)
		if row.TPMProblem != "tpm-gone" || row.TPMClass != "tpm" {
			t.Errorf("%+v", row)
		}
		return err
	})
}
