// Package window holds the MFA window as a value: pure, with the time as a
// parameter. A window is opened by a completed online MFA and is only ever
// believed from the server's own record. Rows W1, W5-W7.
package window

import (
	"slices"
	"time"

	"latchkey/internal/policy"
)

// Window is the period after a full MFA in which it is not asked again.
type Window struct {
	UserID    string
	MachineID string
	Boot      string // of the machine at the MFA: for silence the window does not outlive it (W7)
	Opened    time.Time
	Expires   time.Time
	Factors   []policy.Factor // with which it was opened
	Scope     policy.Scope    // in which it was opened
}

// Open makes the window that an MFA completed at now opens under policy p. ok is
// false if the policy opens none (W1: a length of 0 always asks).
func Open(p policy.Policy, userID, machineID, boot string, scope policy.Scope, factors []policy.Factor, now time.Time) (w Window, ok bool) {
	length := time.Duration(p.Window)
	if length <= 0 || len(factors) == 0 {
		return Window{}, false
	}
	return Window{
		UserID: userID, MachineID: machineID, Boot: boot, Opened: now, Expires: now.Add(length),
		Factors: slices.Clone(factors), Scope: scope,
	}, true
}

// Valid tells whether the window holds at now. A clock before its opening does
// not make it valid.
func (w Window) Valid(now time.Time) bool { return !now.Before(w.Opened) && now.Before(w.Expires) }

// Ends tells whether policy p ends a window on the occasion (W6).
func Ends(p policy.Policy, on policy.WindowEnd) bool { return slices.Contains(p.WindowEndsOn, on) }

// Fact is the window as a fact for policy.Decide; nil if it does not hold at now
// or belongs to somebody else or to another machine.
func (w Window) Fact(userID, machineID string, now time.Time) *policy.Window {
	if w.UserID != userID || w.MachineID != machineID || !w.Valid(now) {
		return nil
	}
	return &policy.Window{Boot: w.Boot, Opened: w.Opened, Expires: w.Expires, Factors: slices.Clone(w.Factors)}
}
