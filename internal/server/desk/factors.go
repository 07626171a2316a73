package desk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/post"
	"latchkey/internal/server/push"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// The kinds and states of a factor as lists show them.
const (
	kindTOTP   = string(policy.TOTP)
	kindBackup = string(policy.Backup)
	kindBypass = string(policy.Bypass)
	kindEnrol  = "enrol"

	factorUsable      = "usable"
	factorUnconfirmed = "unconfirmed"
	factorLost        = "lost"
	factorUsedUp      = "used up"
)

// maxAuthenticators bounds how many one user may have: each costs a machine about
// 240 KB of offline data.
const maxAuthenticators = 10

// factors lists what a user has: authenticators, backup codes as one set, and codes
// that were issued and are still good.
func (d *Desk) factors(ctx context.Context, q *db.Queries, u db.User) ([]rest.Factor, error) {
	out := []rest.Factor{}
	auths, err := q.ListAuthenticators(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	for _, a := range auths {
		f := rest.Factor{
			ID: rest.FactorPrefix + a.ID, Kind: a.Kind, Name: a.Name, State: factorUsable,
			CreatedAt: rest.Time(a.CreatedAt), ConfirmedAt: rest.Time(a.ConfirmedAt), LastUsedAt: rest.Time(a.LastUsedAt),
		}
		switch {
		case a.Lost:
			f.State = factorLost
		case a.ConfirmedAt == 0:
			f.State = factorUnconfirmed
		}
		if a.Kind == kindTOTP {
			var p otp.Params
			if err := json.Unmarshal([]byte(a.Params), &p); err != nil {
				return nil, fmt.Errorf("authenticator %s: parameters: %w", a.ID, err)
			}
			f.Algorithm, f.Digits, f.Period = string(p.Algorithm), p.Digits, p.Period
		}
		if f.Weak = policy.Factor(a.Kind).Weak(); f.Weak {
			f.To = post.Mask(a.Kind, post.AddressOf(a))
		}
		out = append(out, f)
	}
	if err := d.onPhones(ctx, q, u, auths, out); err != nil {
		return nil, err
	}
	if err := d.onPasskeys(ctx, q, u, out); err != nil {
		return nil, err
	}
	codes, err := q.ListBackupCodes(ctx, u.ID)
	if err != nil {
		return nil, err
	}
	if len(codes) > 0 {
		f := rest.Factor{ID: rest.FactorPrefix + codes[0].SetID, Kind: kindBackup, State: factorUsable, CreatedAt: rest.Time(codes[0].CreatedAt)}
		left, used := 0, int64(0)
		for _, c := range codes {
			if c.UsedAt == 0 {
				left++
			}
			used = max(used, c.UsedAt)
		}
		if f.Left, f.LastUsedAt = &left, rest.Time(used); left == 0 {
			f.State = factorUsedUp
		}
		out = append(out, f)
	}
	bypass, err := q.ListValidBypassCodes(ctx, db.ListValidBypassCodesParams{UserID: u.ID, At: d.now()})
	if err != nil {
		return nil, err
	}
	for _, c := range bypass {
		out = append(out, rest.Factor{
			ID: rest.FactorPrefix + c.ID, Kind: kindBypass, Name: c.Reason, State: factorUsable, Scope: c.Scope,
			CreatedAt: rest.Time(c.CreatedAt), ExpiresAt: rest.Time(c.ExpiresAt),
		})
	}
	enrol, err := q.ListValidEnrolCodes(ctx, db.ListValidEnrolCodesParams{UserID: u.ID, At: d.now()})
	if err != nil {
		return nil, err
	}
	for _, c := range enrol {
		out = append(out, rest.Factor{
			ID: rest.FactorPrefix + c.ID, Kind: kindEnrol, State: factorUsable, CreatedAt: rest.Time(c.CreatedAt), ExpiresAt: rest.Time(c.ExpiresAt),
		})
	}
	return out, nil
}

// ListFactors gives what a user has.
func (d *Desk) ListFactors(ctx context.Context, a Actor, ref string) (rest.Page[rest.Factor], error) {
	out := rest.Page[rest.Factor]{Items: []rest.Factor{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := user(ctx, q, ref)
		if err != nil {
			return err
		}
		out.Items, err = d.factors(ctx, q, u)
		return err
	})
	return out, err
}

// AddTOTP enrols an authenticator app for a user; the key is shown once (M1). It is
// usable at once, unless its first code is asked for.
func (d *Desk) AddTOTP(ctx context.Context, a Actor, ref string, in rest.NewTOTP) (rest.TOTP, error) {
	var out rest.TOTP
	if err := a.may(change); err != nil {
		return out, err
	}
	p := otp.DefaultParams
	if in.Algorithm != "" {
		p.Algorithm = otp.Algorithm(in.Algorithm)
	}
	if in.Digits != 0 {
		p.Digits = in.Digits
	}
	if in.Period != 0 {
		p.Period = in.Period
	}
	var v faults
	if in.Name != "" {
		v.name("name", in.Name)
	}
	v.word("algorithm", string(p.Algorithm), []string{string(otp.SHA1), string(otp.SHA256), string(otp.SHA512)})
	if p.Digits != 6 && p.Digits != 8 {
		v.add("digits", "%d is not allowed; allowed are 6 and 8", p.Digits)
	}
	if p.Period != 30 && p.Period != 60 {
		v.add("period", "%d is not allowed; allowed are 30 and 60 seconds", p.Period)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	seed, err := d.Factors.NewSeed(p)
	if err != nil {
		return out, err
	}
	defer seed.Wipe()
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		have, err := tx.ListAuthenticators(ctx, u.ID)
		if err != nil {
			return err
		}
		if len(have) >= maxAuthenticators {
			return fault.Newf(fault.Conflict, "%s has %d authenticators already; at most %d are allowed. Remove one first (latchkey factor remove).", u.Name, len(have), maxAuthenticators)
		}
		id, err := d.Factors.AddTOTP(ctx, tx, u.ID, factor.TOTP{Name: in.Name, Params: p, Seed: seed, Waiting: in.RequireFirstCode}, d.Clock.Now())
		if err != nil {
			return err
		}
		if err := d.newFactors(ctx, tx, a, u.ID); err != nil {
			return err
		}
		shown, err := d.Factors.Show(p, u.Name, seed)
		if err != nil {
			return err
		}
		row, err := tx.GetAuthenticator(ctx, id)
		if err != nil {
			return err
		}
		out = rest.TOTP{
			User: u.Name, URI: rest.HideText(shown.URI), Key: rest.HideText(shown.Key), QR: rest.HideText(shown.QR),
			Factor: rest.Factor{
				ID: rest.FactorPrefix + id, Kind: kindTOTP, Name: row.Name, State: factorUsable, Algorithm: string(p.Algorithm),
				Digits: p.Digits, Period: p.Period, CreatedAt: rest.Time(row.CreatedAt), ConfirmedAt: rest.Time(row.ConfirmedAt),
			},
		}
		if in.RequireFirstCode {
			out.State = factorUnconfirmed
		}
		return note(tx, a, event.Event{Type: event.FactorAdded, Subject: u.Name, UserID: u.ID, Factor: kindTOTP}, map[string]any{
			"authenticator": out.ID, "name": in.Name, "algorithm": p.Algorithm, "digits": p.Digits, "period": p.Period, "confirmed": !in.RequireFirstCode,
		})
	})
	return out, err
}

// AddBackup gives a user ten new backup codes, shown once; older ones no longer
// work (M5).
func (d *Desk) AddBackup(ctx context.Context, a Actor, ref string) (rest.BackupCodes, error) {
	var out rest.BackupCodes
	if err := a.may(change); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		old, err := tx.ListUnusedBackupCodes(ctx, u.ID)
		if err != nil {
			return err
		}
		codes, err := d.Factors.IssueBackup(ctx, tx, u.ID, d.Clock.Now())
		if err != nil {
			return err
		}
		if err := d.newFactors(ctx, tx, a, u.ID); err != nil {
			return err
		}
		rows, err := tx.ListBackupCodes(ctx, u.ID)
		if err != nil {
			return err
		}
		out = rest.BackupCodes{User: u.Name, Codes: make([]rest.Secret, len(codes))}
		for i, c := range codes {
			out.Codes[i] = rest.HideText(c)
		}
		if len(rows) > 0 {
			out.ID = rest.FactorPrefix + rows[0].SetID
		}
		return note(tx, a, event.Event{Type: event.FactorAdded, Subject: u.Name, UserID: u.ID, Factor: kindBackup}, map[string]any{
			"set": out.ID, "codes": len(codes), "replaced": len(old),
		})
	})
	return out, err
}

// RemoveFactor removes an authenticator, a set of backup codes or an issued code. ref is
// its id, the beginning of one, its name, or a kind for all of that.
func (d *Desk) RemoveFactor(ctx context.Context, a Actor, userRef, ref string) (rest.Done, error) {
	var out rest.Done
	if err := a.may(change); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, userRef)
		if err != nil {
			return err
		}
		have, err := d.factors(ctx, tx.Queries, u)
		if err != nil {
			return err
		}
		out = rest.Done{}
		generation := false
		meant := meantFactors(have, ref)
		if len(meant) > 1 && meant[0].Kind != ref {
			return whichFactor(u, ref, meant)
		}
		for _, f := range meant {
			id, _ := cut(rest.FactorPrefix, f.ID)
			switch f.Kind {
			case kindBackup:
				generation = true
				_, err = tx.DeleteBackupCodes(ctx, u.ID)
			case kindBypass:
				_, err = tx.DeleteBypassCode(ctx, id)
			case kindEnrol:
				_, err = tx.DeleteEnrolCode(ctx, id)
			default:
				generation = true
				_, err = tx.DeleteAuthenticator(ctx, id)
			}
			if err != nil {
				return err
			}
			out.Count++
			if err := note(tx, a, event.Event{Type: event.FactorRemoved, Subject: u.Name, UserID: u.ID, Factor: f.Kind}, map[string]any{
				"authenticator": f.ID, "name": f.Name, "was": f.State,
			}); err != nil {
				return err
			}
		}
		switch {
		case out.Count == 0:
			return noFactor(u, ref)
		case generation:
			return errors.Join(factor.Changed(ctx, tx, u.ID), d.newFactors(ctx, tx, a, u.ID))
		}
		return nil
	})
	return out, err
}

const reasonFactors = "factors-changed"

// newFactors ends a user's windows where factors have changed: machines wipe the
// offline data made with the old ones (O5), and a window that silenced the next
// sign-in would keep the new from being made. What an administrator changes ends the
// user's sessions at the people's door too: the old factor may be in other hands. The
// user's phones look again: one that was removed wipes itself at once where it is open.
func (d *Desk) newFactors(ctx context.Context, tx *store.Tx, a Actor, userID string) error {
	tx.Wake(push.UserKey(userID))
	if a.UserID == userID {
		_, err := d.endWindows(ctx, tx, a, userID, "", reasonFactors)
		return err
	}
	_, err := ending.All(ctx, tx, d.cause(a, reasonFactors), userID, "")
	return err
}

// minFactorRef is how much of a factor's id stands for it, if it fits no other.
const minFactorRef = len(rest.FactorPrefix) + 4

// meantFactors are those of a user's factors that ref may mean: the one with this id; else
// those of this kind; else those of this name; else those whose ids begin so.
func meantFactors(have []rest.Factor, ref string) []rest.Factor {
	for _, fits := range []func(f rest.Factor) bool{
		func(f rest.Factor) bool { return f.ID == ref },
		func(f rest.Factor) bool { return f.Kind == ref },
		func(f rest.Factor) bool {
			// A bypass code's name is the reason that it was given for.
			return f.Name != "" && f.Name == ref && f.Kind != kindBypass
		},
		func(f rest.Factor) bool { return len(ref) >= minFactorRef && strings.HasPrefix(f.ID, ref) },
	} {
		var meant []rest.Factor
		for _, f := range have {
			if fits(f) {
				meant = append(meant, f)
			}
		}
		if len(meant) > 0 {
			return meant
		}
	}
	return nil
}

func noFactor(u db.User, ref string) error {
	return fault.Newf(fault.NotFound, "%s has no factor %q. Allowed are an id, the beginning of one, a name or a kind, as in: latchkey factor list %s.", u.Name, text.CleanN(ref, 64), u.Name)
}

func whichFactor(u db.User, ref string, meant []rest.Factor) error {
	list := make([]string, len(meant))
	for i, f := range meant {
		if list[i] = f.ID; f.Name != "" && f.Name != ref {
			list[i] += " (" + text.CleanN(f.Name, 32) + ")"
		}
	}
	return fault.Newf(fault.Conflict, "%s has %d factors that %q fits: %s. Name one by its id.", u.Name, len(meant), text.CleanN(ref, 64), strings.Join(list, ", "))
}

// LoseFactor marks an authenticator as lost: it is not accepted any more, on no
// machine, but stays in the list until it is removed. ref is its id, the beginning of
// one, its name, or its kind if there is only one of it.
func (d *Desk) LoseFactor(ctx context.Context, a Actor, userRef, ref string) (rest.Factor, error) {
	var out rest.Factor
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, userRef)
		if err != nil {
			return err
		}
		have, err := d.factors(ctx, tx.Queries, u)
		if err != nil {
			return err
		}
		meant := meantFactors(have, ref)
		if len(meant) > 1 {
			// One that is lost already is not meant by a word that fits others too.
			if good := slices.DeleteFunc(slices.Clone(meant), func(f rest.Factor) bool { return f.State == factorLost }); len(good) > 0 {
				meant = good
			}
		}
		switch len(meant) {
		case 0:
			return noFactor(u, ref)
		case 1:
		default:
			return whichFactor(u, ref, meant)
		}
		if out = meant[0]; out.Kind == kindBackup || out.Kind == kindBypass || out.Kind == kindEnrol {
			return fault.Newf(fault.Conflict, "Codes can not be marked as lost. Remove them (latchkey factor remove %s %s).", u.Name, out.ID)
		}
		id, _ := cut(rest.FactorPrefix, out.ID)
		n, err := tx.SetAuthenticatorLost(ctx, id)
		if err != nil {
			return err
		}
		if out.State = factorLost; n == 0 {
			return nil
		}
		err = note(tx, a, event.Event{Type: event.FactorLost, Subject: u.Name, UserID: u.ID, Factor: out.Kind}, map[string]any{
			"authenticator": out.ID, "name": out.Name,
		})
		if err != nil {
			return err
		}
		return errors.Join(factor.Changed(ctx, tx, u.ID), d.newFactors(ctx, tx, a, u.ID))
	})
	return out, err
}

// IssueEnrolCode gives out a one-time code with which a user may enrol a first
// factor (E1). It needs the password beside it.
func (d *Desk) IssueEnrolCode(ctx context.Context, a Actor, ref string, in rest.NewEnrolCode) (rest.Code, error) {
	var out rest.Code
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	var v faults
	span := v.span("valid_for", in.ValidFor, 24*time.Hour, time.Minute, 7*24*time.Hour)
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		now := d.Clock.Now()
		id, shown, err := d.Factors.IssueEnrol(ctx, tx, factor.EnrolCode{UserID: u.ID, Expires: now.Add(span), By: a.Name}, now)
		if err != nil {
			return err
		}
		out = rest.Code{ID: rest.FactorPrefix + id, User: u.Name, ExpiresAt: rest.Time(clock.Micros(now.Add(span)))}
		if in.Mail {
			p, err := d.posts()
			if err != nil {
				return err
			}
			if out.MailedTo, err = p.MailEnrolCode(ctx, tx, u, shown, now.Add(span)); err != nil {
				return err
			}
		} else {
			out.Code = rest.HideText(shown)
		}
		return note(tx, a, event.Event{Type: event.CodeIssued, Subject: u.Name, UserID: u.ID, Factor: kindEnrol}, map[string]any{
			"code": out.ID, "expires_at": out.ExpiresAt, "mail": out.MailedTo,
		})
	})
	return out, err
}

// IssueBypassCode gives out a one-time code that stands in for the second factor of
// one sign-in (E3). The user's machines need not learn of it: it is only ever
// judged by the server.
func (d *Desk) IssueBypassCode(ctx context.Context, a Actor, ref string, in rest.NewBypassCode) (rest.Code, error) {
	var out rest.Code
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	var v faults
	if in.Reason == "" {
		v.add("reason", "it is missing; say why, in one line of at most %d bytes", maxLine)
	}
	v.line("reason", in.Reason, maxLine)
	if in.Scope != "" {
		v.scope("scope", in.Scope)
	}
	span := v.span("valid_for", in.ValidFor, time.Hour, time.Minute, 24*time.Hour)
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		now := d.Clock.Now()
		id, shown, err := d.Factors.IssueBypass(ctx, tx, factor.BypassCode{
			UserID: u.ID, Scope: policy.Scope(in.Scope), Reason: in.Reason, Expires: now.Add(span), By: a.Name, ApprovedBy: a.approver(),
		}, now)
		if err != nil {
			return err
		}
		out = rest.Code{ID: rest.FactorPrefix + id, User: u.Name, Code: rest.HideText(shown), ExpiresAt: rest.Time(clock.Micros(now.Add(span))), Scope: in.Scope}
		return note(tx, a, event.Event{Type: event.CodeIssued, Subject: u.Name, UserID: u.ID, Factor: kindBypass, Scope: in.Scope}, map[string]any{
			"code": out.ID, "why": in.Reason, "expires_at": out.ExpiresAt, "approved_by": a.approver(),
		})
	})
	return out, err
}

// scope judges a scope.
func (v *faults) scope(field, value string) {
	words := make([]string, len(policy.Scopes))
	for i, s := range policy.Scopes {
		words[i] = string(s)
	}
	if value == "login" {
		v.add(field, "%q is not allowed; did you mean logon? Allowed are %s", value, strings.Join(words, ", "))
		return
	}
	v.word(field, value, words)
}

// Keeper is what the desk needs of the factors: see factor.Keeper.
type Keeper interface {
	NewSeed(p otp.Params) (secret.Bytes, error)
	Show(p otp.Params, account string, seed secret.Bytes) (factor.Enrolment, error)
	AddTOTP(ctx context.Context, tx *store.Tx, userID string, a factor.TOTP, now time.Time) (string, error)
	IssueBackup(ctx context.Context, tx *store.Tx, userID string, now time.Time) ([]string, error)
	IssueBypass(ctx context.Context, tx *store.Tx, b factor.BypassCode, now time.Time) (id, shown string, err error)
	IssueEnrol(ctx context.Context, tx *store.Tx, e factor.EnrolCode, now time.Time) (id, shown string, err error)
}
