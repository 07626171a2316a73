package signin

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Passwords and codes share one count per (user, machine), and one per user across
// machines (machine ""). The first leads to pauses and then to a lock-out on that
// machine; the second only to pauses, at three times the number, and not where the
// user has lately completed an MFA: a stranger who guesses somewhere must not keep a
// person from his own machines (S10).
const (
	everywhere    = ""
	acrossFactor  = 3
	longestPause  = 5 * time.Minute
	shortestTrace = 15 * time.Minute // how long failures are remembered at least
	lately        = 7 * 24 * time.Hour
)

// block says that nothing may be judged now.
type block struct {
	until  time.Time
	locked bool
}

func (b block) on() bool { return !b.until.IsZero() }

// blocked tells whether the pair must wait.
func blocked(ctx context.Context, tx *store.Tx, userID, machineID string, now time.Time) (block, error) {
	own, err := own(ctx, tx, userID, machineID, now)
	if err != nil {
		return block{}, err
	}
	return blockedAt(ctx, tx, userID, machineID, own, now)
}

func blockedAt(ctx context.Context, tx *store.Tx, userID, machineID string, own bool, now time.Time) (block, error) {
	var b block
	counts := []string{machineID, everywhere}
	if own {
		counts = counts[:1]
	}
	for _, m := range counts {
		a, err := tx.GetAttempt(ctx, db.GetAttemptParams{UserID: userID, MachineID: m})
		switch {
		case errors.Is(err, sql.ErrNoRows):
			continue
		case err != nil:
			return b, fmt.Errorf("failed attempts: %w", err)
		}
		b = b.and(a, now)
	}
	return b, nil
}

// own tells whether the user has lately completed an MFA on the machine: there is a
// window, or offline data from the last week. The pair's own count bounds guesses
// there like everywhere.
func own(ctx context.Context, tx *store.Tx, userID, machineID string, now time.Time) (bool, error) {
	w, err := tx.ListValidWindows(ctx, db.ListValidWindowsParams{UserID: userID, MachineID: machineID, At: clock.Micros(now)})
	if err != nil {
		return false, fmt.Errorf("windows: %w", err)
	}
	if len(w) > 0 {
		return true, nil
	}
	v, err := tx.GetActiveVault(ctx, db.GetActiveVaultParams{UserID: userID, MachineID: machineID})
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("offline data: %w", err)
	}
	return !v.DisenrolWanted && now.Sub(clock.FromMicros(v.LastMFAAt)) < lately, nil
}

func (b block) and(a db.Attempt, now time.Time) block {
	if t := clock.FromMicros(a.LockedUntil); t.After(now) && a.MachineID != everywhere {
		if !b.locked || t.After(b.until) {
			return block{t, true}
		}
		return b
	}
	if t := clock.FromMicros(a.BlockedUntil); t.After(now) && !b.locked && t.After(b.until) {
		return block{t, false}
	}
	return b
}

// counted is an attempt that was written down as a failure before it is judged.
type counted struct {
	UserID, MachineID string
	Pair, Across      mark
	Failures          int64
}

// mark is what one count did, so that it can be taken back.
type mark struct {
	SetBlocked, WasBlocked int64
	SetLocked, WasLocked   int64
}

// never is a time that no row has.
const never = -1

// count writes the attempt down. If another attempt blocked the pair in the
// meantime, nothing is counted and the block is returned.
func count(ctx context.Context, tx *store.Tx, userID, machineID string, p policy.Policy, now time.Time) (*counted, block, error) {
	own, err := own(ctx, tx, userID, machineID, now)
	if err != nil {
		return nil, block{}, err
	}
	if b, err := blockedAt(ctx, tx, userID, machineID, own, now); err != nil || b.on() {
		return nil, b, err
	}
	c := &counted{UserID: userID, MachineID: machineID}
	forget := max(time.Duration(p.LockoutFor), shortestTrace)
	var b block
	for _, x := range []struct {
		machine string
		mark    *mark
		pause   int
		lock    int
		forget  time.Duration
	}{
		{machineID, &c.Pair, p.BackoffAfter, p.LockoutAfter, forget},
		{everywhere, &c.Across, acrossFactor * p.BackoffAfter, 0, 4 * forget},
	} {
		row, err := tx.CountAttempt(ctx, db.CountAttemptParams{
			UserID: userID, MachineID: x.machine, At: clock.Micros(now), ForgetBefore: clock.Micros(now.Add(-x.forget)),
		})
		if err != nil {
			return nil, b, fmt.Errorf("count an attempt: %w", err)
		}
		// The row is ours until the transaction ends; what another replica has
		// written between the look above and now is in it.
		if x.machine == machineID || !own {
			b = b.and(row, now)
		}
		if x.machine == machineID {
			c.Failures = row.Failures
		}
		*x.mark = mark{never, row.BlockedUntil, never, row.LockedUntil}
		set := db.BlockAttemptsParams{UserID: userID, MachineID: x.machine}
		if d := pause(row.Failures, x.pause); d > 0 {
			set.BlockedUntil = clock.Micros(now.Add(d))
			if set.BlockedUntil > row.BlockedUntil {
				x.mark.SetBlocked = set.BlockedUntil
			}
		}
		if x.lock > 0 && row.Failures >= int64(x.lock) {
			set.LockedUntil = clock.Micros(now.Add(time.Duration(p.LockoutFor)))
			if set.LockedUntil > row.LockedUntil {
				x.mark.SetLocked = set.LockedUntil
			}
		}
		if set.BlockedUntil == 0 && set.LockedUntil == 0 {
			continue
		}
		if _, err := tx.BlockAttempts(ctx, set); err != nil {
			return nil, b, fmt.Errorf("count an attempt: %w", err)
		}
	}
	if b.on() {
		return nil, b, c.takeBack(ctx, tx)
	}
	return c, b, nil
}

// pause is how long to wait after n failures: nothing before the limit, then 1, 2,
// 4 … seconds, at most five minutes.
func pause(n int64, limit int) time.Duration {
	if limit <= 0 || n < int64(limit) {
		return 0
	}
	over := n - int64(limit)
	if over >= 20 {
		return longestPause
	}
	return min(time.Second<<over, longestPause)
}

// takeBack undoes the count: the attempt was right. Other attempts stay counted.
func (c *counted) takeBack(ctx context.Context, tx *store.Tx) error {
	if c == nil {
		return nil
	}
	for _, x := range []struct {
		machine string
		mark    mark
	}{{c.MachineID, c.Pair}, {everywhere, c.Across}} {
		_, err := tx.UncountAttempt(ctx, db.UncountAttemptParams{
			UserID: c.UserID, MachineID: x.machine,
			SetBlocked: x.mark.SetBlocked, WasBlocked: x.mark.WasBlocked, SetLocked: x.mark.SetLocked, WasLocked: x.mark.WasLocked,
		})
		if err != nil {
			return fmt.Errorf("take back a counted attempt: %w", err)
		}
	}
	return nil
}

// lockedOut tells until when the attempt, being wrong, locks the pair; zero if it
// does not.
func (c *counted) lockedOut() time.Time {
	if c == nil || c.Pair.SetLocked == never {
		return time.Time{}
	}
	return clock.FromMicros(c.Pair.SetLocked)
}
