package desk

import (
	"context"
	"errors"
	"fmt"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/push"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Phones with Latchkey Authenticator (M3). A phone is an authenticator of kind push,
// and beside it one of kind totp, which goes with it.

const (
	kindPush     = string(policy.Push)
	factorLocked = "locked"
)

var errNoPush = errors.New("this desk has no service for phones")

// onPhones says of the factors what is a phone, and what lies on one.
func (d *Desk) onPhones(ctx context.Context, q *db.Queries, u db.User, auths []db.Authenticator, list []rest.Factor) error {
	some := false
	for i, a := range auths {
		if a.Parent.Valid {
			list[i].On = rest.FactorPrefix + a.Parent.String
		}
		some = some || a.Kind == kindPush
	}
	if !some {
		return nil
	}
	phones, err := q.ListPushDevices(ctx, u.ID)
	if err != nil {
		return err
	}
	_, err = q.GetPushLock(ctx, u.ID)
	if err != nil && !store.IsNotFound(err) {
		return err
	}
	locked := err == nil
	for i := range auths {
		if list[i].Kind != kindPush {
			continue
		}
		if locked && list[i].State == factorUsable {
			list[i].State = factorLocked
		}
		for _, p := range phones {
			if p.PushDevice.AuthenticatorID == auths[i].ID {
				list[i].Phone = &rest.Phone{
					Platform: p.PushDevice.Platform, Installed: p.PushDevice.Standalone, Notified: len(p.PushDevice.Subscription) > 0,
					Verifies: len(p.PushDevice.Credential) > 0, LastSeenAt: rest.Time(p.PushDevice.SeenAt),
				}
			}
		}
	}
	return nil
}

// BeginOwnPhone makes the code with which the actor enrols a phone, within ten minutes.
// It replaces the one before.
func (d *Desk) BeginOwnPhone(ctx context.Context, a Actor) (rest.PhoneCode, error) {
	var out rest.PhoneCode
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := d.mayEnrol(ctx, tx.Queries, a)
		if err != nil {
			return err
		}
		out, err = d.phoneCode(ctx, tx, a, u, true)
		return err
	})
	return out, err
}

// AddPhone makes such a code for somebody: whoever gets the link is the user on that
// phone.
func (d *Desk) AddPhone(ctx context.Context, a Actor, ref string) (rest.PhoneCode, error) {
	var out rest.PhoneCode
	if err := a.may(change); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		out, err = d.phoneCode(ctx, tx, a, u, false)
		return err
	})
	return out, err
}

func (d *Desk) phoneCode(ctx context.Context, tx *store.Tx, a Actor, u db.User, self bool) (out rest.PhoneCode, err error) {
	if d.Push == nil {
		return out, errNoPush
	}
	have, err := tx.ListAuthenticators(ctx, u.ID)
	if err != nil {
		return out, err
	}
	if len(have)+2 > maxAuthenticators {
		return out, push.ErrFull(len(have))
	}
	people, err := d.Push.People(ctx, tx.Queries)
	if err != nil {
		return out, err
	}
	if people == "" {
		return out, fault.Newf(fault.Conflict, "This server does not know the address under which phones reach it. An administrator sets it under Settings (address for people).")
	}
	code, hash, err := d.Push.NewCode()
	if err != nil {
		return out, err
	}
	now := d.Clock.Now()
	if _, err := tx.EndPushEnrolments(ctx, db.EndPushEnrolmentsParams{UserID: u.ID, At: clock.Micros(now)}); err != nil {
		return out, err
	}
	row := db.InsertPushEnrolmentParams{
		ID: store.NewID(), UserID: u.ID, Hash: hash, Generation: u.PasswordGeneration, EnrolCode: a.Enrol, Session: a.Session, ByActor: a.Name, ByUser: a.UserID, ByToken: a.TokenID, Role: u.Role, Self: self,
		CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(push.CodeLife)),
	}
	if err := tx.InsertPushEnrolment(ctx, row); err != nil {
		return out, err
	}
	link := push.Link(people, code)
	qr, err := factor.QR(link)
	if err != nil {
		return out, err
	}
	out = rest.PhoneCode{ID: rest.PhoneCodePrefix + row.ID, User: u.Name, Link: rest.HideText(link), QR: rest.HideText(qr), ExpiresAt: rest.Time(row.ExpiresAt)}
	return out, note(tx, a, event.Event{Type: event.CodeIssued, Subject: u.Name, UserID: u.ID, Factor: kindPush}, map[string]any{
		"code": out.ID, "expires_at": out.ExpiresAt, "self": self,
	})
}

// ShowOwnPhoneCode tells what has become of a code of one's own, for the page that shows
// it.
func (d *Desk) ShowOwnPhoneCode(ctx context.Context, a Actor, ref string) (rest.PhoneProgress, error) {
	out := rest.PhoneProgress{ID: ref, State: rest.PhoneOver}
	if err := a.mine(); err != nil {
		return out, err
	}
	if a.Session == "" {
		return out, a.act()
	}
	id, ok := cut(rest.PhoneCodePrefix, ref)
	if !ok {
		return out, missing("code", ref)
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		e, err := q.GetPushEnrolment(ctx, id)
		if store.IsNotFound(err) || err == nil && e.UserID != u.ID {
			return missing("code", ref)
		} else if err != nil {
			return err
		}
		switch {
		case e.UsedAt != 0:
			out.State = rest.PhoneDone
			f, _, err := d.ownFactor(ctx, q, u, rest.FactorPrefix+e.DeviceID)
			if err == nil {
				out.Factor = &f
			} else if !fault.Is(err, fault.NotFound) {
				return err
			}
		case d.now() < e.ExpiresAt && e.Generation == u.PasswordGeneration:
			out.State = rest.PhoneWaiting
		}
		return nil
	})
	return out, err
}

// EnrolPhone makes the phone that has brought a code. The code is the right: it was
// given to somebody with a fresh factor or an enrolment code, or by an administrator. An
// enrolment code of the help desk is spent in the same transaction.
func (d *Desk) EnrolPhone(ctx context.Context, address string, in push.EnrolAsk) (push.Enrolled, error) {
	var out push.Enrolled
	if d.Push == nil {
		return out, errNoPush
	}
	der, err := in.Judge()
	if err != nil {
		return out, err
	}
	seed, err := d.Factors.NewSeed(otp.DefaultParams)
	if err != nil {
		return out, err
	}
	defer seed.Wipe()
	userID := ""
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		e, u, err := d.Push.Redeem(ctx, tx, in.Code)
		if err != nil {
			return err
		}
		userID = u.ID
		if err := d.stands(ctx, tx.Queries, e, u); err != nil {
			return err
		}
		a := Actor{Name: e.ByActor, Address: address}
		if e.Self {
			a.Name, a.UserID, a.Session = u.Name, u.ID, e.Session
		}
		have, err := tx.ListAuthenticators(ctx, u.ID)
		if err != nil {
			return err
		}
		if len(have)+2 > maxAuthenticators {
			return push.ErrFull(len(have))
		}
		id, err := d.Push.Add(ctx, tx, e, in, der)
		if store.IsDuplicate(err) {
			return fault.Newf(fault.Conflict, "This phone's key is enrolled already.")
		} else if err != nil {
			return err
		}
		if e.EnrolCode != "" {
			if err := d.spendEnrol(ctx, tx, a, u, e.EnrolCode, id); err != nil {
				return err
			}
		}
		app, err := d.Factors.AddTOTP(ctx, tx, u.ID, factor.TOTP{Name: in.Name, Params: otp.DefaultParams, Seed: seed}, d.Clock.Now())
		if err != nil {
			return err
		}
		if _, err := tx.SetAuthenticatorParent(ctx, db.SetAuthenticatorParentParams{ID: app, Parent: id}); err != nil {
			return fmt.Errorf("put an authenticator on a phone: %w", err)
		}
		if err := d.newFactors(ctx, tx, a, u.ID); err != nil {
			return err
		}
		shown, err := d.Factors.Show(otp.DefaultParams, u.Name, seed)
		if err != nil {
			return err
		}
		out = push.Enrolled{Device: id, User: u.Name, Name: in.Name, TOTP: shown.URI}
		return note(tx, a, event.Event{Type: event.FactorAdded, Subject: u.Name, UserID: u.ID, Factor: kindPush}, map[string]any{
			"authenticator": rest.FactorPrefix + id, "name": in.Name, "totp": rest.FactorPrefix + app, "platform": in.Platform, "installed": in.Standalone,
			"self": e.Self, "code": rest.PhoneCodePrefix + e.ID,
		})
	})
	if err != nil {
		return push.Enrolled{}, err
	}
	return out, d.Push.Welcome(ctx, &out, userID)
}

// stands refuses a code when what let somebody make it is over: the session of the user's
// own, the right of somebody else, or their token. A user who has got a higher role
// meanwhile is another one to have power over, and for a weaker factor to reach.
func (d *Desk) stands(ctx context.Context, q *db.Queries, e db.PushEnrolment, u db.User) error {
	if rank(u.Role) > rank(e.Role) {
		return push.ErrCode()
	}
	if e.Self {
		row, err := q.GetSession(ctx, e.Session)
		switch {
		case store.IsNotFound(err):
			return push.ErrCode()
		case err != nil:
			return err
		case row.Session.UserID != u.ID || row.Session.EndsAt <= d.now() || row.Session.PasswordAt != u.PasswordChangedAt:
			return push.ErrCode()
		}
		return nil
	}
	if e.ByToken != "" {
		row, err := q.GetAPIToken(ctx, e.ByToken)
		switch {
		case store.IsNotFound(err):
			return push.ErrCode()
		case err != nil:
			return err
		case row.ApiToken.ExpiresAt <= d.now():
			return push.ErrCode()
		}
	}
	if e.ByUser == "" {
		return nil // root at the server
	}
	by, err := q.GetUser(ctx, e.ByUser)
	switch {
	case store.IsNotFound(err):
		return push.ErrCode()
	case err != nil:
		return err
	case by.Disabled || rank(by.Role) < rank(lowest[change]) || rank(by.Role) <= rank(u.Role) && by.Role != rest.RoleOwner:
		return push.ErrCode()
	}
	return nil
}

// spendEnrol spends the code of the help desk that has opened the session of a first
// enrolment.
func (d *Desk) spendEnrol(ctx context.Context, tx *store.Tx, a Actor, u db.User, id, made string) error {
	n, err := tx.SpendEnrolCode(ctx, db.SpendEnrolCodeParams{ID: id, At: d.now()})
	if err != nil {
		return err
	}
	if n != 1 {
		return errEnrolSpent()
	}
	if _, err := tx.SetEnrolCodeMade(ctx, db.SetEnrolCodeMadeParams{ID: id, Made: made}); err != nil {
		return err
	}
	return note(tx, a, event.Event{Type: event.CodeSpent, Subject: u.Name, UserID: u.ID, Factor: "enrol-code"}, map[string]any{
		"code": rest.FactorPrefix + id, "at": "portal",
	})
}

// RemovePhone removes a phone as it wishes itself: its key is gone there. What it may
// have opened ends, also where it was the only one.
func (d *Desk) RemovePhone(ctx context.Context, p push.Device) error {
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		a := Actor{Name: p.User, UserID: p.UserID, Address: p.Address}
		n, err := tx.DeleteAuthenticator(ctx, p.ID)
		if err != nil || n == 0 {
			return err
		}
		if err := note(tx, a, event.Event{Type: event.FactorRemoved, Subject: p.User, UserID: p.UserID, Factor: kindPush}, map[string]any{
			"authenticator": rest.FactorPrefix + p.ID, "name": p.Name, "self": true, "by": "phone",
		}); err != nil {
			return err
		}
		return d.lessFactors(ctx, tx, a, p.UserID)
	})
}

// UnlockPush lets requests go to a user's phones again, after "it wasn't me".
func (d *Desk) UnlockPush(ctx context.Context, a Actor, ref string) (rest.Done, error) {
	var out rest.Done
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out = rest.Done{}
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		l, err := tx.GetPushLock(ctx, u.ID)
		if store.IsNotFound(err) {
			return nil
		} else if err != nil {
			return err
		}
		n, err := tx.UnlockPush(ctx, u.ID)
		if err != nil || n == 0 {
			return err
		}
		out.Count = int(n)
		data := map[string]any{"locked_at": rest.Time(l.At), "why": l.Reason}
		if l.ReportID != "" {
			data["report"] = rest.ReportPrefix + l.ReportID
		}
		return note(tx, a, event.Event{Type: event.PushUnlocked, Subject: u.Name, UserID: u.ID, Factor: kindPush}, data)
	})
	return out, err
}
