package signin

import (
	"context"
	"slices"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file is about the first factor: a password, or the word of the machine or of sshd (S3-S5).

// preparePassword counts the attempt and leaves the hash to be computed outside.
// Whoever is not judged (nobody, or somebody who must wait) costs the same.
func (x *turn) preparePassword(ctx context.Context, u *db.User, password secret.Bytes) error {
	dir := x.directory(u)
	switch { // and nothing is kept
	case dir.Busy() && x.step.Begin != nil:
		// A 5xx before its first answer is to the machine a server that is gone:
		// whoever fills the queue must not choose the offline rules for everybody.
		return fault.Newf(fault.TooMany, text.DeniedBusy).Because(directory.ErrBusy)
	case dir.Busy():
		return fault.New(fault.Unavailable, directory.ErrBusy)
	}
	judged := u
	if u != nil && dir.Has(*u) {
		p, err := x.policyOf(ctx, *u)
		if err != nil {
			return err
		}
		if x.counted, x.block, err = attempts.Count(ctx, x.tx, u.ID, x.m.ID, p, x.now); err != nil {
			return err
		}
		if x.block.On() {
			judged = nil
		}
	}
	first := x.step.Begin != nil
	x.work = func(ctx context.Context) verdict {
		if first {
			// A machine waits two seconds for its first answer and takes a server that needs
			// longer for one that is gone: it is told that there is a queue.
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, firstPatience)
			defer cancel()
		}
		return verdict{password: dir.Verify(ctx, judged, password)}
	}
	return nil
}

// firstPatience is how long the password of a first step waits for its turn.
const firstPatience = time.Second

// policyOf is the policy whose limits hold for the user.
func (x *turn) policyOf(ctx context.Context, u db.User) (policy.Policy, error) {
	ps, err := facts.Policies(ctx, x.tx.Queries)
	if err != nil {
		return policy.Policy{}, err
	}
	f, err := facts.User(ctx, x.tx.Queries, u, facts.At{MachineID: x.m.ID, Scope: x.talk.Opening.Scope, Now: x.now})
	if err != nil {
		return policy.Policy{}, err
	}
	if p, _ := policy.Choose(&f, ps); p != nil {
		return *p, nil
	}
	return policy.NewPolicy(), nil
}

// onBegin: the first step, with its password judged if there was one to judge.
func (x *turn) onBegin(ctx context.Context, judged bool) error {
	o := x.talk.Opening
	key := o.First == policy.FirstSSHKey && o.Scope == policy.Remote
	if judged || o.Purpose == wire.PurposePassword && o.Mode == modeSecond {
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		if o.Purpose == wire.PurposePassword && o.Mode == modeSecond && (u == nil || !x.directory(u).Has(*u)) {
			// The machine's own password: its own modules change it.
			x.remember(u)
			return x.end(ctx, ignored{}, reasonNotHere, "")
		}
		if judged {
			return x.onFirst(ctx, u)
		}
	}
	switch {
	case o.Purpose == wire.PurposePassword || o.Mode == modeFull && !key:
		return x.askPassword(ctx)
	case key:
		return x.decide(ctx, policy.FirstSSHKey, policy.FirstAccepted)
	case o.First == policy.FirstMachine:
		return x.decide(ctx, policy.FirstMachine, policy.FirstAccepted)
	}
	// mode=second, and nobody has judged anything.
	return x.decide(ctx, policy.FirstNone, policy.FirstRejected)
}

// askPassword asks for the first factor, whoever it may be; only who is exempt, and
// has no password here that could be rejected (S5), is left to the machine before
// that.
//
// Whose name it is is not looked up before it must be: the time of the prompt must
// not tell it either.
func (x *turn) askPassword(ctx context.Context) error {
	if exempt, err := x.mayBeExempt(ctx); err != nil {
		return err
	} else if exempt {
		u, _, err := x.resolve(ctx)
		if err != nil {
			return err
		}
		has := u != nil && x.directory(u).Has(*u)
		_, d, err := x.consult(ctx, policy.FirstNone, policy.FirstPending)
		if err != nil {
			return err
		}
		if !has && d.Outcome == policy.Ignore && d.Reason == policy.ReasonExemptAccount {
			x.talk.Decision = d
			return x.end(ctx, ignored{}, string(d.Reason), "")
		}
	}
	return x.ask(ctx, awaitPassword{}, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForPassword, Text: text.PromptPassword})
}

// mayBeExempt tells whether any policy exempts the account number.
func (x *turn) mayBeExempt(ctx context.Context) (bool, error) {
	uid := x.talk.Opening.UID
	if uid == nil {
		return false, nil
	}
	ps, err := facts.Policies(ctx, x.tx.Queries)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(ps, func(p policy.Policy) bool { return slices.Contains(p.ExemptUIDs, *uid) }), nil
}

func (x *turn) onPassword(ctx context.Context) error {
	u, _, err := x.resolve(ctx)
	if err != nil {
		return err
	}
	return x.onFirst(ctx, u)
}

// onFirst turns what the directory said into the fact that Decide wants.
func (x *turn) onFirst(ctx context.Context, u *db.User) error {
	o := x.talk.Opening
	second := o.Mode == modeSecond && o.Purpose == wire.PurposeSignin
	has := u != nil && x.directory(u).Has(*u)
	switch v := x.verdict.password; {
	case v == directory.Unavailable:
		if err := x.counted.TakeBack(ctx, x.tx); err != nil {
			return err
		}
		x.remember(u)
		return x.end(ctx, denied{}, reasonBusy, text.DeniedBusy)
	case second && !has && o.First == policy.FirstMachine:
		// The server has nothing to judge by: the machine's word stands.
		return x.decide(ctx, policy.FirstMachine, policy.FirstAccepted)
	case second && !has && o.First == policy.FirstSSHKey && o.Scope == policy.Remote:
		return x.decide(ctx, policy.FirstSSHKey, policy.FirstAccepted)
	case !has || x.block.On():
		// What the machine has accepted may be told to wait; anybody else is told
		// nothing.
		x.tellWait = second && has && o.First == policy.FirstMachine
		return x.decide(ctx, policy.FirstNone, policy.FirstPending)
	case v.Proved():
		if err := x.counted.TakeBack(ctx, x.tx); err != nil {
			return err
		}
		x.talk.Judged = true
		switch {
		case v == directory.MustChange:
			x.talk.Change = changeMust
		case v == directory.Expired:
			x.talk.Change = changeExpired
		}
		first := policy.FirstServer
		if second && o.First == policy.FirstMachine {
			first = policy.FirstMachine
		}
		return x.decide(ctx, first, policy.FirstAccepted)
	}
	return x.decide(ctx, policy.FirstServer, policy.FirstRejected)
}

func (x *turn) resolve(ctx context.Context) (*db.User, bool, error) {
	o := x.talk.Opening
	return facts.Resolve(ctx, x.tx.Queries, facts.Name{User: o.User, UID: o.UID, Aliases: o.Aliases})
}

func (x *turn) directory(u *db.User) directory.Directory { return x.s.Directories.Of(u) }
