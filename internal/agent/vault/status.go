package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/shim"
	"latchkey/internal/wire"
)

// Status and UserStatus are what the local socket tells of offline sign-in.
type (
	Status     = shim.Offline
	UserStatus = shim.OfflineUser
)

// Status tells the state; with a name only that user's part.
func (v *Vault) Status(ctx context.Context, only string) Status {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lookAgain(ctx)
	if v.stuck != nil {
		v.stuck = v.room(stateRoom)
	}
	if v.cramped != nil && v.room(userRoom) == nil {
		v.cramped = nil
	}
	s := Status{Problem: v.problem, Detail: v.detail, PolicyProblem: v.policyProblem(), Undelivered: len(v.jour.entries), Users: []UserStatus{}}
	if s.Problem == "" && v.stuck != nil {
		s.Problem, s.Detail = policy.ReasonStateWrite, v.stuck.Error()
	}
	if s.Problem == "" && v.cramped != nil {
		s.Problem, s.Detail = policy.ReasonStateWrite, v.cramped.Error()
	}
	if err := v.full(2); s.Problem == "" && err != nil {
		s.Problem, s.Detail = reasonOf(err), err.Error()
	}
	if v.st != nil {
		s.Class = v.st.Class
	}
	if v.pol != nil {
		s.PolicySerial, s.PolicyIssued = v.pol.Serial, clock.FromMicros(v.pol.IssuedAt)
	}
	if v.refusal != nil {
		s.Refused = v.refusal.Text
		if s.Refused == "" {
			s.Refused = "the server has revoked this machine"
		}
	}
	if v.led == nil {
		return s
	}
	s.ClockBehind = v.clockBehind()
	for id, us := range v.led.Users {
		if us.Name == "" || only != "" && us.Name != only {
			continue
		}
		u := UserStatus{User: us.Name, Enrolled: us.Generation != 0, Class: us.Class, Generation: us.Generation, Problem: us.Problem}
		if u.Enrolled {
			u.EnrolledAt, u.Until = clock.FromMicros(us.EnrolledAt), clock.FromMicros(us.Until)
		}
		if v.pol != nil && us.Generation != 0 {
			for i := range v.pol.Users {
				if v.pol.Users[i].ID == id {
					u.Left = v.left(&v.pol.Users[i], us)
				}
			}
		}
		s.Users = append(s.Users, u)
	}
	slices.SortFunc(s.Users, func(a, b UserStatus) int { return strings.Compare(a.User, b.User) })
	return s
}

// Unbound tells whether Secure Boot is on and the state key is not bound to it: another
// system on this machine could have it unsealed.
func (v *Vault) Unbound() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.problem == "" && v.unbound()
}

// Boot names the present boot: that of the operating system, and the TPM's count
// of starts, so that neither alone can be turned back.
func (v *Vault) Boot(ctx context.Context) string {
	if v.cfg.Device == nil {
		return v.cfg.BootID
	}
	n, err := v.cfg.Device.ResetCount(ctx)
	if err != nil {
		// Without an answer this boot is like no other: no window silences (W5).
		return fmt.Sprintf("%s:unknown-%d", v.cfg.BootID, clock.Micros(v.now()))
	}
	return fmt.Sprintf("%s:%d", v.cfg.BootID, n)
}

// MachineFacts is what the vault knows of the machine for the server; the caller
// fills in the rest.
func (v *Vault) MachineFacts(ctx context.Context) wire.MachineFacts {
	f := wire.MachineFacts{Boot: v.Boot(ctx), Class: ClassSoftware}
	v.mu.Lock()
	st, problem := v.st, v.problem
	full := st != nil && st.NoRoom
	if v.led != nil && problem == "" {
		for _, us := range v.led.Users {
			full = full || us.Problem == policy.ReasonTPMNoRoom || st.Class == ClassTPM && us.Class == ClassSoftware
		}
	}
	if problem == "" && v.stuck != nil {
		problem = policy.ReasonStateWrite
	}
	v.mu.Unlock()
	if v.cfg.Device != nil {
		if full {
			f.TPMProblem = string(policy.ReasonTPMNoRoom)
		}
		if st == nil || !st.NoRoom {
			f.Class = ClassTPM
		}
		info, err := v.cfg.Device.Info(ctx)
		if err != nil {
			f.TPMProblem = string(reasonOf(err))
		}
		if st != nil {
			info.Counter, f.Parent, f.AttestKey = st.Counter, st.Parent, st.AttestPub
		}
		if raw, err := json.Marshal(info); err == nil {
			f.TPM = raw
		}
	}
	if st != nil && st.Class == ClassTPM && v.cfg.Device == nil {
		f.TPMProblem = string(policy.ReasonTPMGone)
	}
	f.VaultProblem = string(problem)
	return f
}
