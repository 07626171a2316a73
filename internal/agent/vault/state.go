package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/tpm"
)

// state is what the rest hangs on. It is not secret, and not signed: the ledger
// is, and repeats what matters.
type state struct {
	MachineID string    `json:"machine_id"`
	Class     string    `json:"class"`
	Key       []byte    `json:"key"` // class tpm: record sealed by the TPM; class software: the key itself
	Counter   uint32    `json:"counter,omitempty"`
	Names     tpm.Names `json:"names,omitzero"`
	Attest    []byte    `json:"attest,omitempty"`        // record of the attestation key
	AttestPub []byte    `json:"attest_public,omitempty"` // its public area
	Parent    []byte    `json:"parent,omitempty"`        // public area of the import parent
	NoRoom    bool      `json:"no_room,omitempty"`       // class software because the TPM has no room for a counter
}

const (
	stateMagic  = "LKST"
	ledgerMagic = "LKLG"
	vaultMagic  = "LKVT"
)

// loadState reads the state, or makes it where there is none.
func (v *Vault) loadState(ctx context.Context) error {
	raw, err := v.fs.ReadFile("state")
	if errors.Is(err, fs.ErrNotExist) {
		if there := v.remains(); there != "" {
			// Made anew it would forget what was enrolled and which policy was the newest:
			// to remove the file must not be a way past the second factor.
			return because(policy.ReasonVaultRolledBack, "the state file is missing, and %s is there", there)
		}
		if err := v.room(stateRoom); err != nil {
			return err
		}
		return v.makeState(ctx, ledger{})
	}
	if err != nil {
		return unread("state file", err)
	}
	body, _, err := unframe(stateMagic, raw)
	if err != nil {
		return err
	}
	var st state
	if err := json.Unmarshal(body, &st); err != nil {
		return because(policy.ReasonVaultDamaged, "state file: %w", err)
	}
	if st.MachineID != v.cfg.MachineID {
		return because(policy.ReasonVaultDamaged, "state file is of another machine")
	}
	v.st = &st
	switch st.Class {
	case ClassSoftware:
		if v.cfg.Device != nil {
			// A TPM has come up since: the next contact makes a state in it.
			v.log.Info("a TPM is here now; offline data moves into it after the next contact with the server")
		}
		if len(st.Key) != tpm.StateKeySize {
			return because(policy.ReasonVaultDamaged, "state key of %d octets", len(st.Key))
		}
		return v.useKey(secret.New(append([]byte(nil), st.Key...)))
	case ClassTPM:
		if v.cfg.Device == nil {
			return because(policy.ReasonTPMGone, "this machine's offline data needs its TPM, and there is none now")
		}
		v.cfg.Device.Pin(st.Names)
		key, err := v.cfg.Device.UnsealState(ctx, st.Key)
		if err != nil {
			return err
		}
		return v.useKey(key)
	}
	return because(policy.ReasonVaultDamaged, "state file names class %q", st.Class)
}

// remains names something that is written only where there is a state already.
func (v *Vault) remains() string {
	if _, err := v.fs.ReadFile("policy"); !errors.Is(err, fs.ErrNotExist) {
		return "the policy"
	}
	for _, dir := range []string{"vaults", "bundles"} {
		if names, err := v.fs.List(dir); err != nil && !errors.Is(err, fs.ErrNotExist) || len(names) > 0 {
			return "offline data of a user"
		}
	}
	return ""
}

func (v *Vault) useKey(key secret.Bytes) error {
	box, err := seal.Derive(key, nil, "vault")
	if err != nil {
		return err
	}
	v.key = key
	v.boxes, err = seal.NewBox(box)
	return err
}

// foundation is what a new state stands on.
type foundation struct {
	st     *state
	key    secret.Bytes
	number uint64
}

// found makes state key and counter, in the TPM where there is one with room.
func (v *Vault) found(ctx context.Context) (f foundation, err error) {
	f = foundation{st: &state{MachineID: v.cfg.MachineID, Class: ClassSoftware}, key: seal.NewKey()}
	if v.cfg.Device != nil {
		err := v.foundInTPM(ctx, &f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, tpm.ErrNoSpace) {
			return f, err
		}
		v.log.Error("the TPM has no room for a counter: offline data is protected by software", "err", err)
		f.st, f.number = &state{MachineID: v.cfg.MachineID, Class: ClassSoftware, NoRoom: true}, 0
	}
	f.st.Key = append([]byte(nil), f.key.Reveal()...)
	return f, nil
}

func (v *Vault) foundInTPM(ctx context.Context, f *foundation) (err error) {
	d, st := v.cfg.Device, f.st
	d.Pin(tpm.Names{})
	if st.Names, err = d.Names(ctx); err != nil {
		return err
	}
	st.Class = ClassTPM
	if st.Key, err = v.sealKey(ctx, f.key); err != nil {
		return err
	}
	if st.Attest, st.AttestPub, err = d.CreateAttestationKey(ctx); err != nil {
		return err
	}
	if st.Parent, err = d.Parent(ctx); err != nil {
		return err
	}
	v.reclaimHalf(ctx)
	free, err := d.FreeHandles(ctx, 1)
	if err != nil {
		return err
	}
	st.Counter = free[0]
	if err := v.fs.WriteFile(halfMade, []byte(strconv.FormatUint(uint64(st.Counter), 10))); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if f.number, err = d.DefineCounter(ctx, st.Counter); err != nil {
		return err
	}
	d.Pin(st.Names)
	return nil
}

// halfMade is the file with the handle of a counter whose state is not written yet.
const halfMade = "counter"

// reclaimHalf removes the counter of a state that was begun and never written, because
// the agent was killed: a TPM has room for few.
func (v *Vault) reclaimHalf(ctx context.Context) {
	raw, err := v.fs.ReadFile(halfMade)
	if err != nil {
		return
	}
	h, err := strconv.ParseUint(string(raw), 10, 32)
	if err != nil || v.st != nil && v.st.Counter == uint32(h) {
		return
	}
	if err := v.cfg.Device.Reclaim(ctx, uint32(h)); err != nil {
		v.log.Warn("a counter left behind can not be removed from the TPM", "err", err)
	}
}

// secureBoot tells whether the firmware checks what it starts.
func (v *Vault) secureBoot() bool { return v.cfg.SecureBoot != nil && v.cfg.SecureBoot() }

// sealKey seals the state key, where Secure Boot is on to its state. A TPM that can
// not do that does what it can.
func (v *Vault) sealKey(ctx context.Context, key secret.Bytes) ([]byte, error) {
	if v.secureBoot() {
		record, err := v.cfg.Device.SealState(ctx, key, tpm.Seal{BootState: true})
		if err == nil || tpm.Transient(err) || tpm.Absent(err) {
			return record, err
		}
		v.log.Warn("the state key can not be bound to Secure Boot", "err", err)
	}
	return v.cfg.Device.SealState(ctx, key, tpm.Seal{})
}

// notBound is the reason that a state key is not bound to Secure Boot though that is on.
const notBound policy.Reason = "tpm-not-boot-bound"

// unbound tells whether that is so.
func (v *Vault) unbound() bool {
	return v.st != nil && v.st.Class == ClassTPM && v.secureBoot() && !tpm.BootBound(v.st.Key)
}

// rebind binds a state key to Secure Boot that was made before it was on.
func (v *Vault) rebind(ctx context.Context) error {
	if !v.unbound() {
		return nil
	}
	record, err := v.sealKey(ctx, v.key)
	if err == nil && !tpm.BootBound(record) {
		v.tell(event.TPMProblem, notBound, "", "")
		return nil
	}
	if err != nil {
		return err
	}
	next := *v.st
	next.Key = record
	return v.writeState(&next)
}

func (v *Vault) writeState(st *state) error {
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := v.fs.WriteFile("state", frame(stateMagic, raw)); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	v.st = st
	return nil
}

// makeState starts anew: state key, counter, ledger. Of before it keeps what is
// given: policy serial, highest time seen, and what was lost of whom.
func (v *Vault) makeState(ctx context.Context, from ledger) error {
	f, err := v.found(ctx)
	if err != nil {
		return err
	}
	if err := v.settleIn(f, from); err != nil {
		return errors.Join(err, v.unsettle(ctx, f))
	}
	return nil
}

// unsettle gives back what a state that could not be written has taken in the TPM.
func (v *Vault) unsettle(ctx context.Context, f foundation) error {
	v.st, v.led = nil, nil
	if f.st.Counter == 0 || v.cfg.Device == nil {
		return nil
	}
	return v.cfg.Device.Reclaim(ctx, f.st.Counter)
}

func (v *Vault) settleIn(f foundation, from ledger) error {
	if err := v.useKey(f.key); err != nil {
		return err
	}
	if f.st.Class == ClassSoftware {
		// Above all numbers of before, known or not, so that neither the journal nor the
		// server takes this for an older ledger.
		f.number = max(from.Counter, v.jour.highest(), uint64(max(0, clock.Micros(v.now()))))
	}
	v.st = f.st
	v.led = &ledger{
		MachineID: v.cfg.MachineID, Counter: f.number, Stepped: true, Handle: f.st.Counter, PolicySerial: from.PolicySerial, Highest: from.Highest,
		Users: from.Users, Lost: from.Lost,
	}
	if v.led.Users == nil {
		v.led.Users = map[string]*userState{}
	}
	v.led.Journal = v.jour.head()
	// The ledger goes first: a state file without its ledger is a restored state,
	// a ledger without its state file is written over at the next start.
	if err := v.write(v.led); err != nil {
		return err
	}
	failpoint.Hit("vault.state.ledger")
	if err := v.writeState(f.st); err != nil {
		return err
	}
	_ = v.fs.Remove(halfMade) // which is of no use any more, and does no harm
	return nil
}

// Renew starts the machine's state anew after a problem, while the server is in
// reach and knows the journal up to seq and hash: all offline data is wiped, so
// that everybody enrols again at the next online sign-in, and the problem is
// journalled. It does nothing if there is no problem, or one that passes. It tells
// whether the machine is another one now, so that the server must be told.
func (v *Vault) Renew(ctx context.Context, seq uint64, hash []byte) (renewed bool, err error) {
	v.enrolling.Lock()
	defer v.enrolling.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if passing(v.problem) {
		v.load(ctx)
	}
	if passing(v.problem) {
		return false, nil
	}
	if v.problem == "" {
		err := v.resume(ctx, seq, hash)
		if reasonOf(err) == policy.ReasonVaultRolledBack && err != nil {
			v.fail(err)
		} else if err != nil {
			return false, err
		}
	}
	if v.problem == "" {
		if v.st.Class == ClassSoftware && v.cfg.Device != nil {
			return v.moveIn(ctx)
		}
		return false, v.rebind(ctx)
	}
	if err := v.room(stateRoom); err != nil {
		return false, err
	}
	was, detail, from, left := v.problem, v.detail, v.inherited(), v.handles()
	if _, err := v.wipe(ctx, "", string(was)); err != nil {
		v.log.Warn("old offline data can not be removed from the TPM", "err", err)
	}
	if len(left) > 0 && v.cfg.Device != nil {
		// Also those of later generations at the same places, of which an older state
		// does not know.
		if err := v.cfg.Device.Reclaim(ctx, left...); err != nil {
			v.log.Warn("old indices can not be removed from the TPM", "err", err)
		}
	}
	// Nobody knows whether the policy here is the newest: the server sends it next.
	v.pol, v.polBad = nil, policy.ReasonPolicyAbsent
	if err := v.fs.Remove("policy"); err != nil {
		return false, fmt.Errorf("%w: %w", ErrState, err)
	}
	v.led = nil
	// More was delivered than the server said when it was asked: what is here is right.
	if seq >= v.jour.base.Seq || v.jour.broken != "" {
		if err := v.jour.restart(seq, hash); err != nil {
			return false, err
		}
	}
	if err := v.makeState(ctx, from); err != nil {
		v.fail(err)
		return false, err
	}
	v.problem, v.detail = "", ""
	v.told = map[string]bool{}
	v.tell(problemEvent(was), was, "", detail)
	v.tellRoom()
	return true, nil
}

// inherited is what the next state keeps of this one.
func (v *Vault) inherited() ledger {
	from := ledger{Users: map[string]*userState{}, Lost: v.problem}
	lost := func(id, name string) {
		if from.Users[id] == nil {
			from.Users[id] = &userState{Name: name, Problem: v.problem}
		}
	}
	if v.led != nil {
		from.Counter, from.PolicySerial, from.Highest = v.led.Counter, v.led.PolicySerial, v.led.Highest
		for id, us := range v.led.Users {
			if us.Generation != 0 || us.Problem != "" {
				lost(id, us.Name)
			}
		}
	}
	if v.pol != nil {
		for _, e := range v.pol.Vaults {
			for _, u := range v.pol.Users {
				if u.ID == e.UserID {
					lost(u.ID, u.Name)
				}
			}
		}
	}
	return from
}

// moveIn takes a machine that has got a TPM, or room in it, into the TPM. Nothing is
// touched before it is known that there is room.
func (v *Vault) moveIn(ctx context.Context) (moved bool, err error) {
	f, err := v.found(ctx)
	if err != nil || f.st.Class != ClassTPM {
		if err == nil && !v.st.NoRoom {
			next := *v.st
			next.NoRoom = true
			err = v.writeState(&next)
			v.tellRoom()
		}
		return false, err
	}
	from := ledger{PolicySerial: v.led.PolicySerial, Highest: v.led.Highest, Users: map[string]*userState{}}
	for id, us := range v.led.Users {
		if us.Generation != 0 {
			from.Users[id] = &userState{Name: us.Name, Problem: policy.ReasonVaultUnfinished}
		}
	}
	if _, err := v.wipe(ctx, "", "moved-into-tpm"); err != nil {
		return false, errors.Join(err, v.cfg.Device.Reclaim(ctx, f.st.Counter))
	}
	if err := v.settleIn(f, from); err != nil {
		v.fail(err)
		return false, err
	}
	return true, nil
}

// tellRoom journals that the TPM has no room, if so.
func (v *Vault) tellRoom() {
	if v.st.NoRoom {
		v.tell(event.TPMProblem, policy.ReasonTPMNoRoom, "", "")
	}
}
