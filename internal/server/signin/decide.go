package signin

import (
	"context"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// This file asks policy.Decide, and carries out what it says.

// consult asks Decide.
func (x *turn) consult(ctx context.Context, first policy.First, result policy.FirstResult) (policy.Facts, policy.Decision, error) {
	o := x.talk.Opening
	r, f, u, err := facts.Gather(ctx, x.tx.Queries, x.m, facts.Ask{
		Name:  facts.Name{User: o.User, UID: o.UID, Aliases: o.Aliases},
		Scope: o.Scope, Service: o.Service, At: x.now, Link: policy.LinkUp, First: first, Result: result,
		Peer: facts.Peer(o.RHost), RemoteSeat: o.RemoteSeat, Host: o.RHost, MachineAddr: o.MachineAddr, Boot: o.Boot, Cannot: x.cannot(),
		NoWindow: o.Purpose == wire.PurposePassword,
	})
	if err != nil {
		return f, policy.Decision{}, err
	}
	x.remember(u)
	d := policy.Decide(r, f)
	x.talk.Policy, x.talk.Past, x.talk.Reports = d.Applied(), policy.Remember(r, f), policy.Reports(r, f, d)
	x.talk.Past.NoWindow = o.Purpose == wire.PurposePassword
	return f, d, nil
}

func (x *turn) remember(u *db.User) {
	if u != nil {
		x.talk.UserID, x.talk.UserName = u.ID, u.Name
	}
}

// decide carries the decision out.
func (x *turn) decide(ctx context.Context, first policy.First, result policy.FirstResult) error {
	f, d, err := x.consult(ctx, first, result)
	if err != nil {
		return err
	}
	if d.Outcome == policy.AskFirst {
		// It was given and could not be judged: that is a rejection, or a pause.
		if !x.block.On() {
			if f, d, err = x.consult(ctx, first, policy.FirstRejected); err != nil {
				return err
			}
		} else {
			d = x.waiting(d)
		}
	}
	t := x.talk
	t.First, t.Decision, t.Accepted = first, d, result == policy.FirstAccepted
	if !t.Accepted {
		if err := x.lockedNow(ctx); err != nil {
			return err
		}
	} else if f.User != nil && (t.Judged && d.Outcome != policy.Deny || d.Outcome == policy.Ignore || d.Outcome == policy.Allow) {
		if err := x.known(ctx); err != nil {
			return err
		}
	}
	if t.Opening.Purpose == wire.PurposePassword && t.Accepted && t.Judged {
		t.Change = changeAsked
		// Who has no factor at all changes the password at a local seat, whatever the
		// policy asks of a sign-in (S9).
		if d.Outcome == policy.EnrolFirst || d.Reason == policy.ReasonNotEnrolled {
			owned, err := x.owned(ctx)
			if err != nil {
				return err
			}
			if len(owned) == 0 && len(f.User.Factors) == 0 {
				return x.change(ctx)
			}
		}
	}
	switch d.Outcome {
	case policy.Ignore:
		return x.end(ctx, ignored{}, string(d.Reason), "")
	case policy.Allow:
		return x.firstAlone(ctx, f)
	case policy.MFA:
		t.Kinds, t.Count = x.s.Factors.Known(d.Factors), d.Count
		return x.askFactorUnlessBlocked(ctx)
	case policy.EnrolFirst:
		return x.askEnrolment(ctx, f)
	case policy.Deny:
		return x.deny(ctx, d.Reason, f)
	}
	return x.impossible(ctx)
}

// known notes that the user is one of this machine's, whose policy file names him and
// whose journal may speak of him. While a second factor is asked for, the machine's
// word alone that it has judged a password is not enough: it could say so of anybody.
func (x *turn) known(ctx context.Context) error {
	if x.talk.Opening.Unlock {
		return nil
	}
	return touch.Known(ctx, x.tx, x.m.ID, x.talk.UserID, x.now)
}

// waiting is the decision for somebody who must wait: Decide knows of lock-outs, the
// pause is noted behind its trace.
func (x *turn) waiting(d policy.Decision) policy.Decision {
	d.Outcome, d.Reason = policy.Deny, reasonBackOff
	d.Trace = append(slices.Clone(d.Trace), policy.Step{
		Rule: "S10 pause after failures", Verdict: policy.Applied,
		Why: fmt.Sprintf("nothing is judged before %s", x.block.Until.UTC().Format(time.RFC3339)),
	})
	return d
}

// deny tells the truth behind an accepted first factor, and the one text before it.
func (x *turn) deny(ctx context.Context, reason policy.Reason, f policy.Facts) error {
	switch {
	case !x.talk.Accepted && x.tellWait && x.block.On():
		return x.wait(ctx, x.block)
	case !x.talk.Accepted:
		return x.end(ctx, denied{}, string(reason), text.DeniedFirst)
	case reason == policy.ReasonLocked && f.User != nil:
		return x.end(ctx, denied{}, string(reason), text.Locked(f.User.LockedUntil.Sub(x.now)))
	}
	return x.end(ctx, denied{}, string(reason), x.denial(ctx, reason))
}

// denial is the text of a denial, with whom to ask.
func (x *turn) denial(ctx context.Context, reason policy.Reason) string {
	// A failure to read spoils the transaction, which then says so.
	set, _ := settings.Read(ctx, x.tx.Queries)
	return text.Denied(reason, set.Contact)
}

func (x *turn) wait(ctx context.Context, b attempts.Block) error {
	if b.Locked {
		return x.end(ctx, denied{}, string(policy.ReasonLocked), text.Locked(b.Until.Sub(x.now)))
	}
	return x.end(ctx, denied{}, reasonBackOff, text.Wait(b.Until.Sub(x.now)))
}

// lockedNow notes, once, that this failure has locked the pair.
func (x *turn) lockedNow(ctx context.Context) error {
	until := x.counted.LockedOut()
	if until.IsZero() {
		return nil
	}
	err := x.note(event.LockoutBegan, "", "", "", map[string]any{"until": until.UTC().Format(time.RFC3339), "failures": x.counted.Failures})
	if err != nil {
		return err
	}
	return touch.Machine(ctx, x.tx, x.m.ID) // lock-outs hold without the server too
}

// firstAlone: no second factor is asked. But whoever must change the password and
// has a factor gives it first (S9): as many as the policy asks, of the kinds that it
// accepts, or else of those that open the console. It is for the change alone, and no
// MFA otherwise. Whoever has one that can not be given here and now changes nothing:
// the password alone must not become a new one.
func (x *turn) firstAlone(ctx context.Context, f policy.Facts) error {
	t := x.talk
	if t.UserID == "" { // an exempt account that the server does not know
		return x.end(ctx, allowed{}, string(t.Decision.Reason), "")
	}
	if !x.changeDue() {
		u, err := x.tx.GetUser(ctx, t.UserID)
		if err != nil {
			return fmt.Errorf("user: %w", err)
		}
		return x.allow(ctx, u)
	}
	owned, err := x.owned(ctx)
	if err != nil {
		return err
	}
	if len(owned) == 0 {
		return x.change(ctx)
	}
	not := append(x.notHere(), policy.Bypass)
	for _, accepted := range [][]policy.Factor{t.Policy.OnlineFactors, {policy.FIDO2, policy.Push, policy.TOTP}} {
		own := slices.DeleteFunc(x.s.Factors.Known(accepted), func(k policy.Factor) bool { return !slices.Contains(owned, k) })
		here := slices.DeleteFunc(slices.Clone(own), func(k policy.Factor) bool { return slices.Contains(not, k) || !slices.Contains(f.User.Factors, k) })
		if len(here) > 0 {
			t.Kinds, t.Count, t.ForChange = here, min(max(1, t.Policy.FactorsOnline), len(own)), true
			return x.askFactorUnlessBlocked(ctx)
		}
	}
	return x.deny(ctx, policy.ReasonNotEnrolled, f)
}

// owned are the kinds of which the user has, or had, an authenticator or codes, whether
// they can be used now or not: who locks somebody's phone, or sits where no key can be
// asked, has not taken the factor away.
func (x *turn) owned(ctx context.Context) ([]policy.Factor, error) {
	if x.talk.UserID == "" {
		return nil, nil
	}
	rows, err := x.tx.ListAuthenticators(ctx, x.talk.UserID)
	if err != nil {
		return nil, fmt.Errorf("authenticators: %w", err)
	}
	var out []policy.Factor
	for _, a := range rows {
		kind := policy.Factor(a.Kind)
		// What nobody has confirmed has never been a factor; see facts.Usable.
		if (a.ConfirmedAt > 0 || kind == policy.TOTP) && !slices.Contains(out, kind) {
			out = append(out, kind)
		}
	}
	codes, err := x.tx.ListBackupCodes(ctx, x.talk.UserID)
	if err != nil {
		return nil, fmt.Errorf("backup codes: %w", err)
	}
	if len(codes) > 0 {
		out = append(out, policy.Backup)
	}
	return out, nil
}
