// Package attempts counts what may be guessed at: passwords and codes, at a machine, at
// the console and the portal. It is the one place that says who must wait (S10).
//
// It promises: an attempt is on the disk as a failure before anybody compares it, and a
// right one takes its own count back and nobody else's; whoever must wait is not judged
// at all. Passwords and codes share one count, because whoever tries one may try the
// other.
package attempts

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// There is one count per (user, place), and one per user across places (place ""). A
// place is a machine, or the people's door as below. The first leads to pauses and then to a lock-out on that
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

// The places at the people's door. One browser that has signed in before has a place of
// its own: a stranger who guesses at the door locks that place, and not the person out
// of it.
const (
	Door          = "console"
	browserPrefix = "browser:"
)

// Browser is the place of a browser that the user has completed a sign-in with; id tells
// it from others.
func Browser(id string) string { return browserPrefix + id }

// Name is what people call a place at their door; empty for a machine, and for all
// places together.
func Name(place string) string {
	switch {
	case place == Door:
		return "console and portal"
	case strings.HasPrefix(place, browserPrefix):
		return "console and portal, own browser"
	}
	return ""
}

// Block says that nothing may be judged now.
type Block struct {
	Until  time.Time
	Locked bool
}

func (b Block) On() bool { return !b.Until.IsZero() }

// Blocked tells whether the pair must wait.
func Blocked(ctx context.Context, tx *store.Tx, userID, machineID string, now time.Time) (Block, error) {
	own, err := own(ctx, tx, userID, machineID, now)
	if err != nil {
		return Block{}, err
	}
	return blockedAt(ctx, tx, userID, machineID, own, now)
}

func blockedAt(ctx context.Context, tx *store.Tx, userID, machineID string, own bool, now time.Time) (Block, error) {
	var b Block
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

// Own tells whether the machine or browser is one of the user's own: the user has lately
// completed an MFA there.
func Own(ctx context.Context, tx *store.Tx, userID, place string, now time.Time) (bool, error) {
	return own(ctx, tx, userID, place, now)
}

// own tells whether the user has lately completed an MFA on the machine: there is a
// window, or offline data from the last week. The pair's own count bounds guesses
// there like everywhere.
func own(ctx context.Context, tx *store.Tx, userID, machineID string, now time.Time) (bool, error) {
	switch {
	case strings.HasPrefix(machineID, browserPrefix):
		return true, nil
	case machineID == Door:
		return false, nil
	}
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

func (b Block) and(a db.Attempt, now time.Time) Block {
	if t := clock.FromMicros(a.LockedUntil); t.After(now) && a.MachineID != everywhere {
		if !b.Locked || t.After(b.Until) {
			return Block{t, true}
		}
		return b
	}
	if t := clock.FromMicros(a.BlockedUntil); t.After(now) && !b.Locked && t.After(b.Until) {
		return Block{t, false}
	}
	return b
}

// Counted is an attempt that was written down as a failure before it is judged.
type Counted struct {
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

// Count writes the attempt down. If another attempt blocked the pair in the
// meantime, nothing is counted and the block is returned.
func Count(ctx context.Context, tx *store.Tx, userID, machineID string, p policy.Policy, now time.Time) (*Counted, Block, error) {
	own, err := own(ctx, tx, userID, machineID, now)
	if err != nil {
		return nil, Block{}, err
	}
	if b, err := blockedAt(ctx, tx, userID, machineID, own, now); err != nil || b.On() {
		return nil, b, err
	}
	c := &Counted{UserID: userID, MachineID: machineID}
	forget := max(time.Duration(p.LockoutFor), shortestTrace)
	var b Block
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
	if b.On() {
		return nil, b, c.TakeBack(ctx, tx)
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

// TakeBack undoes the count: the attempt was right. Other attempts stay counted.
func (c *Counted) TakeBack(ctx context.Context, tx *store.Tx) error {
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

// LockedOut tells until when the attempt, being wrong, locks the pair; zero if it
// does not.
func (c *Counted) LockedOut() time.Time {
	if c == nil || c.Pair.SetLocked == never {
		return time.Time{}
	}
	return clock.FromMicros(c.Pair.SetLocked)
}
