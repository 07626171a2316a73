package vault

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"

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
		return v.makeState(ctx)
	}
	if err != nil {
		return because(policy.ReasonVaultDamaged, "state file: %w", err)
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

func (v *Vault) useKey(key secret.Bytes) error {
	box, err := seal.Derive(key, nil, "vault")
	if err != nil {
		return err
	}
	v.key = key
	v.boxes, err = seal.NewBox(box)
	return err
}

// makeState starts anew: state key, counter, empty ledger. Nothing of before can
// be used after it.
func (v *Vault) makeState(ctx context.Context) error {
	st := &state{MachineID: v.cfg.MachineID, Class: ClassSoftware}
	key := seal.NewKey()
	var number uint64
	if d := v.cfg.Device; d != nil {
		d.Pin(tpm.Names{})
		names, err := d.Names(ctx)
		if err != nil {
			return err
		}
		st.Class, st.Names = ClassTPM, names
		if st.Key, err = d.SealState(ctx, key, tpm.Seal{}); err != nil {
			return err
		}
		if st.Attest, st.AttestPub, err = d.CreateAttestationKey(ctx); err != nil {
			return err
		}
		if st.Parent, err = d.Parent(ctx); err != nil {
			return err
		}
		free, err := d.FreeHandles(ctx, 1)
		if err != nil {
			return err
		}
		st.Counter = free[0]
		if number, err = d.DefineCounter(ctx, st.Counter); err != nil {
			return err
		}
		d.Pin(names)
	} else {
		st.Key = append([]byte(nil), key.Reveal()...)
	}
	if err := v.useKey(key); err != nil {
		return err
	}
	old := v.led
	v.st = st
	v.led = &ledger{MachineID: v.cfg.MachineID, Counter: number, Stepped: true, Handle: st.Counter, Users: map[string]*userState{}}
	if old != nil {
		v.led.Highest = old.Highest
	}
	v.led.Journal = v.jour.head()
	// The ledger goes first: a state file without its ledger is a restored state,
	// a ledger without its state file is written over at the next start.
	body, err := json.Marshal(v.led)
	if err != nil {
		return err
	}
	if err := v.fs.WriteFile("ledger", signFrame(v.key, ledgerMagic, body)); err != nil {
		return err
	}
	failpoint.Hit("vault.state.ledger")
	raw, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return v.fs.WriteFile("state", frame(stateMagic, raw))
}

// Renew starts the machine's state anew after a problem, while the server is in
// reach and knows the journal up to seq and hash: all offline data is wiped, so
// that everybody enrols again at the next online sign-in, and the problem is
// journalled. It does nothing if there is no problem, or one that passes.
func (v *Vault) Renew(ctx context.Context, seq uint64, hash []byte) error {
	v.enrolling.Lock()
	defer v.enrolling.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if passing(v.problem) {
		v.load(ctx)
	}
	if passing(v.problem) {
		return nil
	}
	if v.problem == "" {
		err := v.resume(seq, hash)
		if reasonOf(err) == policy.ReasonVaultRolledBack && err != nil {
			v.fail(err)
		} else if err != nil {
			return err
		}
	}
	// A machine that has got a TPM moves into it.
	moved := v.problem == "" && v.st.Class == ClassSoftware && v.cfg.Device != nil
	if v.problem == "" && !moved {
		return nil
	}
	was, detail := v.problem, v.detail
	if _, err := v.wipe(ctx, "", string(was)); err != nil {
		v.log.Warn("old offline data can not be removed from the TPM", "err", err)
	}
	if v.st != nil && v.st.Counter != 0 && v.cfg.Device != nil {
		if err := v.cfg.Device.Reclaim(ctx, v.st.Counter); err != nil {
			v.log.Warn("old counter can not be removed from the TPM", "err", err)
		}
	}
	v.led = nil
	if err := v.jour.restart(seq, hash); err != nil {
		return err
	}
	if err := v.makeState(ctx); err != nil {
		v.fail(err)
		return err
	}
	v.problem, v.detail = "", ""
	if was != "" {
		v.tell(problemEvent(was), was, detail)
	}
	return nil
}
