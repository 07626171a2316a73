package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/wire"
)

// ErrOlder says that a policy is older than the one that this machine has seen.
var ErrOlder = errors.New("the policy is older than one this machine has seen")

func parsePolicy(payload []byte, machine string) (*wire.PolicyFile, error) {
	var p wire.PolicyFile
	if err := json.Unmarshal(payload, &p); err != nil {
		return nil, fmt.Errorf("policy file: %w", err)
	}
	if p.MachineID != machine || p.Machine.ID != machine {
		return nil, fmt.Errorf("policy file is for machine %q", p.MachineID)
	}
	return &p, nil
}

func (v *Vault) loadPolicy() {
	v.pol, v.polBad = nil, ""
	raw, err := v.fs.ReadFile("policy")
	if err != nil {
		v.polBad = policy.ReasonPolicyAbsent
		if !errors.Is(err, fs.ErrNotExist) {
			v.log.Error("policy file can not be read", "err", err)
			v.polBad = reasonOf(unread("policy file", err))
		}
		return
	}
	payload, err := seal.Verify(v.cfg.GrantKey, seal.Policy, v.cfg.MachineID, raw)
	if err == nil {
		v.pol, err = parsePolicy(payload, v.cfg.MachineID)
	}
	if err != nil {
		v.log.Error("policy file is not of this machine and server", "err", err)
		v.polBad = policy.ReasonPolicyForeign
	}
}

// policyProblem says why the policy can not be used now, if so.
func (v *Vault) policyProblem() policy.Reason {
	switch {
	case v.problem != "":
		// Without a ledger nobody knows whether the policy is the newest.
		return v.problem
	case v.polBad != "":
		return v.polBad
	case v.pol == nil || v.led == nil:
		return policy.ReasonPolicyAbsent
	case v.pol.Serial < v.led.PolicySerial:
		return policy.ReasonPolicyOlder
	case !v.judged().Before(clock.FromMicros(v.pol.NotAfter)):
		return policy.ReasonPolicyExpired
	}
	return ""
}

// findUser looks for exactly this name (S6); near tells of one that differs only
// by case.
func findUser(users []policy.User, name string) (u *policy.User, near bool) {
	for i := range users {
		if users[i].Name == name {
			return &users[i], false
		}
		near = near || strings.EqualFold(users[i].Name, name)
	}
	return nil, near
}

const withdrawn = "withdrawn-by-server"

// gone lists what was wiped before the agent was started, once: it may have been
// killed before it told the server, which does not mind being told again.
func (v *Vault) gone() (wiped []wire.Wiped) {
	if v.told["gone"] {
		return nil
	}
	v.told["gone"] = true
	for id, us := range v.led.Users {
		if us.Generation == 0 && us.Gone != 0 {
			w := wire.Wiped{UserID: id, Generation: us.Gone, Reason: withdrawn}
			if us.Problem != "" {
				w.Reason = string(us.Problem)
			}
			wiped = append(wiped, w)
		}
	}
	return wiped
}

// ApplyPolicy takes over a policy that the server has sent: it is kept, and
// offline data that it does not list is wiped at once (O14).
func (v *Vault) ApplyPolicy(ctx context.Context, signed []byte) ([]wire.Wiped, error) {
	payload, err := seal.Verify(v.cfg.GrantKey, seal.Policy, v.cfg.MachineID, signed)
	if err != nil {
		return nil, err
	}
	p, err := parsePolicy(payload, v.cfg.MachineID)
	if err != nil {
		return nil, err
	}
	v.enrolling.Lock()
	defer v.enrolling.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.led == nil || v.problem != "" {
		return nil, because(v.problem, "the policy can not be kept: %s", v.detail)
	}
	if p.Serial < v.led.PolicySerial || v.pol != nil && p.Serial == v.pol.Serial && p.IssuedAt < v.pol.IssuedAt {
		return nil, ErrOlder
	}
	// A policy that can not be written holds all the same, and what it takes away is
	// removed: only a restart would go back to the one before.
	var errs []error
	if err := v.fs.WriteFile("policy", signed); err != nil {
		v.stuck = err
		errs = append(errs, fmt.Errorf("%w: %w", ErrState, err))
	}
	failpoint.Hit("vault.policy.written")
	v.pol, v.polBad, v.polOwed = p, "", len(errs) > 0
	listed := map[string]bool{}
	for _, e := range p.Vaults {
		listed[fmt.Sprintf("%s/%d", e.UserID, e.Generation)] = true
	}
	wiped := v.gone()
	changed := p.Serial != v.led.PolicySerial
	v.led.PolicySerial = p.Serial
	for id, us := range v.led.Users {
		if us.Generation == 0 || p.Serial < us.Serial {
			continue
		}
		if !listed[fmt.Sprintf("%s/%d", id, us.Generation)] {
			w, err := v.wipe(ctx, id, withdrawn)
			wiped, errs = append(wiped, w...), append(errs, err)
			continue
		}
	}
	// What the server takes for being here and is not, it is told (O14, O16): an older
	// state was put back, the TPM was cleared, an enrolment was not finished.
	for _, e := range p.Vaults {
		us := v.led.Users[e.UserID]
		if v.led.Lost != "" && (us == nil || us.Generation == 0 && us.Problem == "") {
			us = v.user(e.UserID)
			us.Problem = v.led.Lost
			for _, u := range p.Users {
				if u.ID == e.UserID {
					us.Name = u.Name
				}
			}
		}
		switch {
		case us == nil:
			wiped = append(wiped, wire.Wiped{UserID: e.UserID, Generation: e.Generation, Reason: "not-on-machine"})
		case us.Generation != e.Generation && p.Serial >= us.Serial:
			w := wire.Wiped{UserID: e.UserID, Generation: e.Generation, Reason: "not-on-machine"}
			if us.Problem != "" {
				w.Reason = string(us.Problem)
			}
			wiped = append(wiped, w)
		}
	}
	if v.led.Lost != "" {
		v.led.Lost, changed = "", true
	}
	if changed {
		errs = append(errs, v.save(ctx))
	}
	return wiped, errors.Join(errs...)
}

// PolicySerial is the serial of the policy in use, for the long poll; 0 asks for
// the present one.
func (v *Vault) PolicySerial() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.pol == nil || v.policyProblem() != "" || v.polOwed {
		return 0
	}
	return v.pol.Serial
}

// loadRefusal reads the signed refusal. A file that does not verify is not one.
func (v *Vault) loadRefusal() {
	raw, err := v.fs.ReadFile("refusal")
	if err != nil {
		return
	}
	payload, err := seal.Verify(v.cfg.GrantKey, seal.Refusal, v.cfg.MachineID, raw)
	if err != nil {
		v.log.Error("refusal file is not of this machine and server", "err", err)
		return
	}
	if v.refusal, err = parseRefusal(payload); err != nil {
		v.log.Error("refusal can not be read", "err", err)
	}
}
