// Package touch tells machines that something they must know has changed. Each
// function raises the serials of the machines concerned and wakes their long
// polls, in the transaction of the change itself: so a machine that is connected
// hears of it as soon as it is on the disk, on any replica, and one that is not
// sees at its next contact that its policy file is old (O5, O14, W7).
//
// Whoever changes a user, group, policy, window, lock-out or vault calls one of
// these before the transaction ends.
package touch

import (
	"context"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// User tells every machine that may know the user: those the user is assigned to,
// those on which the user's first factor was ever accepted, and those with a vault
// or an open window.
func User(ctx context.Context, tx *store.Tx, userIDs ...string) error {
	var all []string
	for _, id := range userIDs {
		machines, err := tx.BumpMachinesKnowing(ctx, id)
		if err != nil {
			return fmt.Errorf("tell the machines of a user: %w", err)
		}
		all = append(all, machines...)
	}
	slices.Sort(all)
	tx.Wake(slices.Compact(all)...)
	return nil
}

// Machine tells these machines.
func Machine(ctx context.Context, tx *store.Tx, machineIDs ...string) error {
	for _, id := range machineIDs {
		if _, err := tx.BumpMachine(ctx, id); err != nil {
			return fmt.Errorf("tell a machine: %w", err)
		}
	}
	tx.Wake(machineIDs...)
	return nil
}

// All tells every active machine: a policy or a group has changed.
func All(ctx context.Context, tx *store.Tx) error {
	if _, err := tx.BumpAllMachines(ctx); err != nil {
		return fmt.Errorf("tell all machines: %w", err)
	}
	tx.WakeAll()
	return nil
}

// Known notes that the user's first factor was accepted on the machine. From the
// first time on the machine's policy file names the user, so that the policy holds
// for this person there without the server too (O2).
func Known(ctx context.Context, tx *store.Tx, machineID, userID string, now time.Time) error {
	n, err := tx.KnowUser(ctx, db.KnowUserParams{MachineID: machineID, UserID: userID, Since: clock.Micros(now)})
	if err != nil {
		return fmt.Errorf("note a user of a machine: %w", err)
	}
	if n == 0 {
		return nil
	}
	// A change of the user that is under way on another replica does not see yet that
	// the machine knows the user, and would not tell it: one waits for the other.
	if _, err := tx.LockUser(ctx, userID); err != nil {
		return fmt.Errorf("note a user of a machine: %w", err)
	}
	return Machine(ctx, tx, machineID)
}
