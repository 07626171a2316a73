package offline

import (
	"context"
	"errors"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// maxHave bounds what a machine says that it holds.
const maxHave = 64

// Bundle computes the tags that a machine lacks, up to the end of the offline
// days, and signs them.
func (s *Service) Bundle(ctx context.Context, m db.Machine, in wire.BundleRequest) (reply wire.BundleReply, err error) {
	if !isID(in.UserID) || in.Generation == 0 || in.Generation > 1<<40 {
		return reply, fault.New(fault.Invalid, nil).With("user_id, generation", "they name no generation")
	}
	if len(in.Have) > maxHave {
		return reply, fault.New(fault.Invalid, nil).With("have", "%d entries; allowed are %d", len(in.Have), maxHave)
	}
	var v db.Vault
	var h holding
	var until time.Time
	now := s.Clock.Now()
	err = s.Store.Read(ctx, func(q *store.Queries) error {
		if v, err = q.GetVault(ctx, db.GetVaultParams{UserID: in.UserID, MachineID: m.ID, Generation: int64(in.Generation)}); err != nil {
			return err
		}
		u, err := q.GetUser(ctx, v.UserID)
		if err != nil {
			return err
		}
		f, err := facts.User(ctx, q, u, facts.At{MachineID: m.ID, Now: now})
		if err != nil {
			return err
		}
		ps, err := facts.Policies(ctx, q)
		if err != nil {
			return err
		}
		ok, err := facts.Assigned(ctx, q, m.ID, u.ID)
		if err != nil {
			return err
		}
		p, _ := policy.Choose(&f, ps)
		switch {
		case v.State != Activating && v.State != Active || v.DisenrolWanted || len(v.Key) == 0:
			return errNotEntitled("the generation is not in use")
		case f.Disabled || !ok || p == nil || !wanted(*p):
			return errNotEntitled("the policy wants no offline data any more")
		case v.PasswordGeneration != u.PasswordGeneration:
			return errNotEntitled("the generation is outdated")
		}
		// A policy that became longer does not prolong what the last MFA gave, and
		// one that became shorter shortens it.
		until = clock.FromMicros(min(v.ExpiresAt, clock.Micros(end(v.LastMFAAt, *p))))
		h, err = hold(ctx, q, u.ID, *p)
		return err
	})
	if store.IsNotFound(err) {
		return reply, fault.New(fault.NotFound, err)
	}
	if err != nil {
		return reply, err
	}
	select {
	case s.bundles <- struct{}{}:
		defer func() { <-s.bundles }()
	case <-ctx.Done():
		return reply, fault.New(fault.Unavailable, ctx.Err())
	}
	key, err := s.Keys.Box.Open(v.Key, keyPlace(v.UserID, v.MachineID, v.Generation)...)
	if err != nil {
		return reply, err
	}
	defer key.Wipe()
	b := wire.Bundle{
		UserID: v.UserID, MachineID: m.ID, Generation: in.Generation, IssuedAt: clock.Micros(now), Until: clock.Micros(until),
		Authenticators: []wire.CodeTags{}, Backup: []wire.BackupTagged{},
	}
	var first, last int64
	period := 30
	for _, a := range h.totp {
		params, seed, err := s.Keeper.OpenTOTP(a)
		if err != nil {
			return reply, err
		}
		t := tags(ctx, key, seed, params, in.Have[a.ID], now, until)
		seed.Wipe()
		t.ID = a.ID
		if first == 0 || t.First < first {
			first = t.First
		}
		last, period = max(last, t.Last()), params.Period
		b.Authenticators = append(b.Authenticators, t)
	}
	if err := ctx.Err(); err != nil {
		return reply, fault.New(fault.Unavailable, err)
	}
	for _, c := range h.backup {
		code, err := s.Keeper.OpenBackup(c)
		if err != nil {
			return reply, err
		}
		tag := wire.BackupTag(key, code)
		code.Wipe()
		b.Backup = append(b.Backup, wire.BackupTagged{ID: c.ID, Tag: tag[:]})
	}
	for _, k := range h.keys {
		b.RPID = k.RpID
		b.Keys = append(b.Keys, wire.KeyHeld{ID: k.AuthenticatorID, Credential: k.CredentialID, Public: k.PublicKey, Count: uint32(k.SignCount)})
	}
	payload, err := wire.EncodeBundle(b)
	if err != nil {
		return reply, err
	}
	if len(payload) > wire.MaxReply/2 {
		return reply, errors.New("a bundle is too large to be sent")
	}
	err = s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.SetVaultSteps(ctx, db.SetVaultStepsParams{
			UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, FirstStep: first, LastStep: last, Period: int64(period), At: clock.Micros(now),
		})
		return err
	})
	if err != nil {
		return reply, err
	}
	reply.Bundle = seal.Sign(s.Keys.Grant, seal.Bundle, m.ID, payload)
	failpoint.Hit("offline.bundled")
	return reply, nil
}

// tags computes the tags of one authenticator behind the step have, from a little
// before now until the end of the offline days.
func tags(ctx context.Context, key, seed secret.Bytes, p otp.Params, have int64, now, until time.Time) wire.CodeTags {
	t := wire.CodeTags{Period: p.Period, Digits: p.Digits, First: max(p.Step(now)-early, 0)}
	if have >= t.First && have < 1<<40 {
		t.First = have + 1
	}
	// The last step is the one that has begun when the days end.
	t.Count = int(max(p.Step(until)-t.First+1, 0))
	if t.Count == 0 || !now.Before(until) {
		t.Count = 0
		return t
	}
	t.Tags = make([]byte, 0, t.Count*len(wire.Offsets)*wire.TagSize)
	// A code is needed for three steps and computed once.
	codes := map[int64]string{}
	code := func(step int64) string {
		c, ok := codes[step]
		if !ok {
			c = p.Code(seed, step)
			codes[step] = c
		}
		return c
	}
	for step := t.First; step <= t.Last(); step++ {
		if step%4096 == 0 && ctx.Err() != nil {
			break // the caller looks at the context too
		}
		for _, o := range wire.Offsets {
			tag := wire.CodeTag(key, p.Period, step, code(step+o))
			t.Tags = append(t.Tags, tag[:]...)
		}
		delete(codes, step-1)
	}
	return t
}
