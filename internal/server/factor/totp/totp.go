// Package totp judges one-time codes of authenticator apps (RFC 6238), row M1.
//
// It promises: all authenticators of the user are computed, whichever matches; a
// code is accepted once on all replicas, because accepting it moves the highest
// accepted step of its row forward, and a row that was moved meanwhile is a replay
// (S10). A phone whose clock is off by up to a minute is learnt, not refused.
package totp

import (
	"context"
	"encoding/json"
	"fmt"

	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

func init() {
	factor.Register(policy.TOTP, func(k *factor.Keeper) factor.Factor { return &totp{k} })
}

type totp struct{ keep *factor.Keeper }

var _ factor.Enroller = (*totp)(nil)

func (*totp) Kind() policy.Factor { return policy.TOTP }
func (*totp) Option() string      { return text.OptionTOTP }
func (*totp) Prompt() string      { return text.PromptCode }
func (*totp) Echo() bool          { return false }

// maxDrift bounds in steps how far an authenticator's clock is followed.
const maxDrift = 2

// Judge accepts a code of any of the user's authenticators.
func (f *totp) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	rows, err := tx.ListAuthenticators(ctx, t.User.ID)
	if err != nil {
		return factor.Verdict{}, fmt.Errorf("authenticators: %w", err)
	}
	var (
		hit      *db.Authenticator
		params   otp.Params
		step     int64
		replayed string
		some     bool
	)
	typed, _ := factor.Typed(t.Typed)
	for i, r := range rows {
		if r.Kind != string(policy.TOTP) || r.Lost {
			continue
		}
		some = true
		p, seed, err := f.keep.OpenTOTP(r)
		if err != nil {
			return factor.Verdict{}, err
		}
		code, _ := p.CleanCode(typed) // what is no code matches none
		s, ok := p.Verify(seed, code, t.Now, r.Drift, r.Step)
		_, old := p.Matches(seed, code, t.Now, r.Drift)
		seed.Wipe()
		switch {
		case ok && hit == nil:
			hit, params, step = &rows[i], p, s
		case !ok && old && replayed == "":
			replayed = r.ID
		}
	}
	switch {
	case hit == nil && replayed != "":
		return factor.Verdict{Reason: factor.ReasonReplayed, Text: text.CodeUsed, ID: replayed}, nil
	case hit == nil && !some:
		return factor.Verdict{Reason: factor.ReasonNothingThere, Text: text.WrongCode}, nil
	case hit == nil:
		return factor.Verdict{Reason: factor.ReasonWrong, Text: text.WrongCode}, nil
	}
	v := accepted(hit.ID, step)
	n, err := int64(0), error(nil)
	if hit.ConfirmedAt > 0 {
		drift := max(-maxDrift, min(maxDrift, step-params.Step(t.Now)))
		n, err = tx.SpendStep(ctx, db.SpendStepParams{ID: hit.ID, Step: step, Drift: drift, At: clock.Micros(t.Now)})
	} else {
		// Its first code: from now on it is the user's, also offline.
		v.Data["first_code"] = true
		n, err = tx.ConfirmAuthenticator(ctx, db.ConfirmAuthenticatorParams{ID: hit.ID, At: clock.Micros(t.Now), Step: step})
	}
	switch {
	case err != nil:
		return factor.Verdict{}, fmt.Errorf("spend a code: %w", err)
	case n == 0:
		return factor.Verdict{Reason: factor.ReasonReplayed, Text: text.CodeUsed, ID: hit.ID}, nil
	case hit.ConfirmedAt == 0:
		return v, factor.Changed(ctx, tx, t.User.ID)
	}
	return v, nil
}

func accepted(id string, step int64) factor.Verdict {
	return factor.Verdict{
		Outcome: factor.Accepted, Own: true, ID: id,
		Spent: &wire.Spent{Authenticator: id, Step: step},
		Data:  map[string]any{"authenticator": id, "step": step},
	}
}

// pending is an authenticator that waits for its first code within a sign-in.
type pending struct {
	Params otp.Params `json:"params"`
	Seed   []byte     `json:"seed"`
}

// Begin makes a seed with the parameters that every app understands.
func (f *totp) Begin(u db.User) (secret.Bytes, []string, error) {
	p := otp.DefaultParams
	seed, err := f.keep.NewSeed(p)
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	defer seed.Wipe()
	e, err := f.keep.Show(p, u.Name, seed)
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	b, err := json.Marshal(pending{p, seed.Reveal()})
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	return secret.New(b), []string{text.EnrolScan, e.QR, text.EnrolType(e.Key)}, nil
}

// Confirm judges the first code and stores the authenticator.
func (f *totp) Confirm(ctx context.Context, tx *store.Tx, kept secret.Bytes, t factor.Try) (factor.Verdict, error) {
	var p pending
	if err := json.Unmarshal(kept.Reveal(), &p); err != nil {
		return factor.Verdict{}, fmt.Errorf("pending authenticator: %w", err)
	}
	if err := p.Params.Validate(); err != nil {
		return factor.Verdict{}, fmt.Errorf("pending authenticator: %w", err)
	}
	seed := secret.New(p.Seed)
	defer seed.Wipe()
	typed, _ := factor.Typed(t.Typed)
	code, _ := p.Params.CleanCode(typed)
	step, ok := p.Params.Verify(seed, code, t.Now, 0, 0)
	if !ok {
		return factor.Verdict{Reason: factor.ReasonWrong, Text: text.WrongCode}, nil
	}
	id, err := f.keep.AddTOTP(ctx, tx, t.User.ID, factor.TOTP{Params: p.Params, Seed: seed, FirstStep: step}, t.Now)
	if err != nil {
		return factor.Verdict{}, err
	}
	v := accepted(id, step)
	v.Tell = text.EnrolDone
	return v, nil
}
