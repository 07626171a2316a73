package enroll

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/occasion"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// The classes of offline data that a machine can keep.
const (
	ClassTPM      = "tpm"
	ClassSoftware = "software"
)

// maxTPMInfo bounds what a machine tells of its TPM, in octets.
const maxTPMInfo = 8 << 10

// Clean bounds and cleans what a machine says of itself. What it can not be is a
// fault that names the field; nothing is quietly made up.
func Clean(f wire.MachineFacts) (wire.MachineFacts, error) {
	bad := fault.New(fault.Invalid, nil)
	f.Hostname = text.CleanN(f.Hostname, 253)
	f.OS = text.CleanN(f.OS, 128)
	f.AgentVersion = text.CleanN(f.AgentVersion, 64)
	if f.Boot == "" || len(f.Boot) > 128 || text.Clean(f.Boot) != f.Boot {
		bad.With("facts.boot", "allowed are 1 to 128 characters")
	}
	if f.Class != ClassTPM && f.Class != ClassSoftware {
		bad.With("facts.class", "allowed are tpm and software")
	}
	if len(f.TPM) > maxTPMInfo {
		bad.With("facts.tpm", "%d octets; allowed are %d", len(f.TPM), maxTPMInfo)
	}
	if t := bytes.TrimSpace(f.TPM); len(t) == 0 || bytes.Equal(t, []byte("null")) {
		f.TPM = json.RawMessage("{}")
	} else if t[0] != '{' || !json.Valid(t) {
		bad.With("facts.tpm", "it is no JSON object")
	}
	if len(f.Parent) > 0 {
		if _, err := tpm.ParseParent(f.Parent); err != nil {
			bad.With("facts.parent", "%v", err)
		}
	}
	// A machine with a TPM may have no parent: before its first greeting, and while its
	// TPM does not answer. Offline data is made for the parent that is stored alone.
	if len(f.AttestKey) > 0 {
		if _, err := tpm.ParseAttestationKey(f.AttestKey); err != nil {
			bad.With("facts.attest_key", "%v", err)
		}
	}
	for name, p := range map[string]string{"facts.tpm_problem": f.TPMProblem, "facts.vault_problem": f.VaultProblem} {
		if !word(p) {
			bad.With(name, "allowed is a reason code of at most 64 letters and hyphens")
		}
	}
	if len(bad.Fields) > 0 {
		return f, bad
	}
	return f, nil
}

// word tells whether s has the form of a reason code.
func word(s string) bool {
	if len(s) > 64 {
		return false
	}
	for _, c := range s {
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func keep(ctx context.Context, tx *store.Tx, id, address string, version int64, f wire.MachineFacts, now time.Time) error {
	_, err := tx.SetMachineFacts(ctx, db.SetMachineFactsParams{
		ID: id, Hostname: f.Hostname, OS: f.OS, AgentVersion: f.AgentVersion, WireVersion: version, TPMClass: f.Class, TPMInfo: string(f.TPM),
		AttestKey: f.AttestKey, ParentPublic: f.Parent, KeyInTPM: f.KeyInTPM, TPMProblem: f.TPMProblem, VaultProblem: f.VaultProblem,
		Boot: f.Boot, Address: address, At: clock.Micros(now),
	})
	return err
}

// Hello keeps what a machine says of itself at a contact, and tells of what has
// become of its TPM and offline data since the last one (O9, O17).
func (d *Door) Hello(ctx context.Context, m db.Machine, address string, version int64, in wire.Hello) error {
	f, err := Clean(in.Facts)
	if err != nil {
		return err
	}
	now := d.c.Clock.Now()
	return d.c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		was, err := tx.GetMachine(ctx, m.ID)
		if err != nil {
			return err
		}
		if err := keep(ctx, tx, m.ID, address, version, f, now); err != nil {
			return err
		}
		note := func(t event.Type, reason string, data map[string]any) error {
			_, err := tx.Event(event.Event{
				Type: t, Subject: m.Name, MachineID: m.ID, Machine: m.Name, Address: address, Link: string(policy.LinkUp), Reason: reason, Data: object(data),
			})
			return err
		}
		if f.TPMProblem != "" && f.TPMProblem != was.TPMProblem {
			if err := note(event.TPMProblem, f.TPMProblem, nil); err != nil {
				return err
			}
		}
		if f.VaultProblem != "" && f.VaultProblem != was.VaultProblem {
			t := event.VaultDamaged
			switch {
			case f.VaultProblem == string(policy.ReasonVaultRolledBack):
				t = event.VaultRolledBack
			case strings.HasPrefix(f.VaultProblem, "tpm-"):
				t = event.TPMProblem
			}
			if err := note(t, f.VaultProblem, nil); err != nil {
				return err
			}
		}
		// Another parent or attestation key is another TPM, or the same one cleared.
		// What was wrapped for the old one is useless; that this machine keeps no
		// longer what it kept in the old one is for people to judge.
		changed := len(was.ParentPublic) > 0 && !bytes.Equal(was.ParentPublic, f.Parent) || len(was.AttestKey) > 0 && !bytes.Equal(was.AttestKey, f.AttestKey)
		if changed && f.TPMProblem == "" {
			reason := "tpm-keys-changed"
			if len(was.ParentPublic) > 0 && bytes.Equal(was.ParentPublic, f.Parent) {
				reason = "tpm-counter-anew"
			}
			if err := note(event.TPMProblem, reason, map[string]any{"class": f.Class, "class_before": was.TPMClass}); err != nil {
				return err
			}
		}
		if was.Boot == f.Boot {
			return nil
		}
		_, err = occasion.Report(ctx, tx, was, occasion.What{Kind: policy.EndReboot, Boot: f.Boot}, now)
		return err
	})
}
