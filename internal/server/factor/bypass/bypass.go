// Package bypass judges an administrator's one-time code, row E3: for its user, in
// its scope, until it expires, once. It stands in for the second factor of one
// sign-in and is nothing that the user holds: it opens no window and no way to
// offline data.
package bypass

import (
	"context"
	"fmt"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

func init() {
	factor.Register(policy.Bypass, func(k *factor.Keeper) factor.Factor { return &bypass{k} })
}

type bypass struct{ keep *factor.Keeper }

func (*bypass) Kind() policy.Factor { return policy.Bypass }
func (*bypass) Option() string      { return text.OptionBypass }
func (*bypass) Prompt() string      { return text.PromptBypass }
func (*bypass) Echo() bool          { return false }

// Judge accepts the code and spends it. A code for another scope is not spent.
func (f *bypass) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	row, err := f.keep.FindBypass(ctx, tx.Queries, t.User.ID, t.Typed, t.Now)
	switch {
	case err != nil:
		return factor.Verdict{}, err
	case row == nil:
		return factor.Verdict{Reason: factor.ReasonWrong, Text: text.WrongCode}, nil
	case t.Scope == "" || !facts.BypassCovers(*row, t.Scope):
		return factor.Verdict{Reason: factor.ReasonWrongScope, Text: text.WrongCode, ID: row.ID}, nil
	}
	n, err := tx.SpendBypassCode(ctx, db.SpendBypassCodeParams{ID: row.ID, At: clock.Micros(t.Now)})
	if err != nil {
		return factor.Verdict{}, fmt.Errorf("spend a bypass code: %w", err)
	}
	if n == 0 {
		return factor.Verdict{Reason: factor.ReasonWrong, Text: text.WrongCode, ID: row.ID}, nil
	}
	return factor.Verdict{
		Outcome: factor.Accepted, ID: row.ID,
		Data: map[string]any{"code": row.ID, "issued_by": row.CreatedBy, "approved_by": row.ApprovedBy, "why": text.CleanN(row.Reason, 500)},
	}, nil
}
