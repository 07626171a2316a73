// Package backup judges backup codes, row M5: each is good once, on all replicas,
// because accepting it marks its row and a row that was marked meanwhile is a
// rejection. It says how many are left when there are few.
package backup

import (
	"context"
	"fmt"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

func init() {
	factor.Register(policy.Backup, func(k *factor.Keeper) factor.Factor { return &backup{k} })
}

type backup struct{ keep *factor.Keeper }

func (*backup) Kind() policy.Factor { return policy.Backup }
func (*backup) Option() string      { return text.OptionBackup }
func (*backup) Prompt() string      { return text.PromptBackup }
func (*backup) Echo() bool          { return false }

// few is the number from which on the person is told how many are left.
const few = 3

// Judge accepts one of the user's unused codes.
func (f *backup) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	row, unused, err := f.keep.FindBackup(ctx, tx.Queries, t.User.ID, t.Typed)
	switch {
	case err != nil:
		return factor.Verdict{}, err
	case row == nil:
		return factor.Verdict{Reason: factor.ReasonWrong, Text: text.WrongCode}, nil
	case row.UsedAt != 0:
		return factor.Verdict{Reason: factor.ReasonBackupUsed, Text: text.BackupUsed, ID: row.ID}, nil
	}
	n, err := tx.SpendBackupCode(ctx, db.SpendBackupCodeParams{ID: row.ID, UserID: t.User.ID, MachineID: t.Machine, At: clock.Micros(t.Now)})
	if err != nil {
		return factor.Verdict{}, fmt.Errorf("spend a backup code: %w", err)
	}
	if n == 0 {
		return factor.Verdict{Reason: factor.ReasonBackupUsed, Text: text.BackupUsed, ID: row.ID}, nil
	}
	// Machines that hold its tag must forget it.
	if err := touch.User(ctx, tx, t.User.ID); err != nil {
		return factor.Verdict{}, err
	}
	left := unused - 1
	v := factor.Verdict{
		Outcome: factor.Accepted, Own: true, ID: row.ID,
		Spent: &wire.Spent{Backup: row.ID},
		Data:  map[string]any{"code": row.ID, "left": left},
	}
	if left <= few {
		v.Tell = text.BackupLeft(left)
	}
	return v, nil
}
