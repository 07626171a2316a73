package push

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Why an answer was not accepted, in events.
const (
	reasonReplayed   = "push-replayed"
	reasonLate       = "push-late"
	reasonForeign    = "push-foreign"
	reasonAltered    = "push-altered"
	reasonUnverified = "push-unverified"
)

// Answer judges what a phone has answered to a request. The device was proven by the
// signature of the call. The error is a *Refusal where the phone is told why.
func (s *Service) Answer(ctx context.Context, d Device, id string, a Answer) (Answered, error) {
	var out Answered
	if err := a.form(); err != nil {
		return out, err
	}
	if !oneLine(id, 64) || !oneLine(a.Nonce, 64) || !oneLine(a.ContentHash, 64) {
		return out, errNoRequest()
	}
	var r db.PushRequest
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		r, err = q.GetPushRequest(ctx, id)
		return err
	})
	switch {
	case store.IsNotFound(err):
		return out, errNoRequest()
	case err != nil:
		return out, fmt.Errorf("find a request: %w", err)
	case r.UserID != d.UserID:
		return out, s.refused(ctx, d, r, reasonForeign, errNoRequest())
	}
	// What follows is judged in the order in which it tells least: who has not signed
	// this very request learns nothing of its state.
	if subtle.ConstantTimeCompare([]byte(a.ContentHash), []byte(ContentHash(r.Content))) != 1 ||
		subtle.ConstantTimeCompare([]byte(a.Nonce), []byte(r.Nonce)) != 1 {
		return out, s.refused(ctx, d, r, reasonAltered, refuse(409, "content", "What was signed is not what was asked. Nothing was approved."))
	}
	message := AnswerMessage(r.ID, a.Decision, a.Number, a.Nonce, a.ContentHash)
	if !d.Key.Verify(message, a.Signature) {
		return out, s.refused(ctx, d, r, reasonAltered, refuse(422, "signature", "The signature does not fit. Nothing was approved."))
	}
	now := s.now()
	switch {
	case a.Decision == Report && unanswered(r) && reportable(r, now):
		// Whoever asked may have withdrawn it meanwhile: that takes nobody this word.
	case r.State != StateOpen && r.State != StateExpired:
		return out, s.refused(ctx, d, r, reasonReplayed, refuse(409, "answered", "This request was answered already, or withdrawn."))
	case r.State == StateExpired || now >= r.ExpiresAt || ahead(r.CreatedAt, now):
		return out, s.refused(ctx, d, r, reasonLate, refuse(409, "expired", "This request is over."))
	}
	x := answer{s: s, d: d, r: r, now: now}
	switch a.Decision {
	case Deny:
		x.state, x.reason = StateDenied, factor.ReasonDenied
	case Report:
		x.state, x.reason = StateReported, factor.ReasonReported
	case Approve:
		right := hmac.Equal(s.numberHash(r.ID, a.Number), r.NumberHash)
		// A wrong number is one, whoever has proven to be at the phone.
		if right && r.Verification {
			moved, err := s.verified(ctx, d, message, a.Assertion)
			if err != nil {
				return out, s.refused(ctx, d, r, reasonUnverified, err)
			}
			x.verified, x.credential = true, moved
		}
		if x.state, x.reason = StateApproved, ""; !right {
			x.state, x.reason = StateDenied, factor.ReasonWrongNumber
		}
	}
	err = s.Store.Update(ctx, x.store)
	switch {
	case err != nil:
		return out, err
	case x.faster:
		return out, s.refused(ctx, d, r, reasonReplayed, refuse(409, "answered", "This request was answered already, or withdrawn."))
	case x.reason == factor.ReasonWrongNumber:
		return out, refuse(422, "number", "This is not the number that stands at the sign-in. The request is denied.")
	}
	return Answered{State: x.state}, nil
}

// unanswered tells whether nobody has answered it, be it over or not.
func unanswered(r db.PushRequest) bool {
	return r.State == StateOpen || r.State == StateExpired || r.State == StateWithdrawn
}

// reportable tells whether the request is young enough to say "it wasn't me" to.
func reportable(r db.PushRequest, now int64) bool {
	return now < r.CreatedAt+reportFor.Microseconds() && !ahead(r.CreatedAt, now)
}

// Past is one of the user's requests that is over, as long as it can be reported: a phone
// whose owner comes when it was withdrawn shows what it was.
func (s *Service) Past(ctx context.Context, d Device, id string) (Request, error) {
	if !oneLine(id, 64) {
		return Request{}, errNoRequest()
	}
	var r db.PushRequest
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		r, err = q.GetPushRequest(ctx, id)
		return err
	})
	now := s.now()
	switch {
	case err != nil && !store.IsNotFound(err):
		return Request{}, fmt.Errorf("find a request: %w", err)
	case err != nil || r.UserID != d.UserID || !unanswered(r) || !reportable(r, now) || r.State == StateOpen && now < r.ExpiresAt:
		return Request{}, errNoRequest()
	}
	return shown(r), nil
}

// answer is one that was judged.
type answer struct {
	s          *Service
	d          Device
	r          db.PushRequest
	now        int64
	state      string
	reason     string
	verified   bool
	credential []byte // with its counter moved
	faster     bool   // somebody else was
}

// store writes down what was judged, unless the request, the phone or the lock has
// changed meanwhile.
func (x *answer) store(ctx context.Context, tx *store.Tx) error {
	x.faster = false
	d, err := tx.GetPushDevice(ctx, x.d.ID)
	switch {
	case store.IsNotFound(err) || err == nil && d.Authenticator.Lost:
		return errGone()
	case err != nil:
		return fmt.Errorf("phone: %w", err)
	case d.Disabled:
		return errDisabled()
	}
	if x.state == StateApproved {
		switch _, err := tx.GetPushLock(ctx, x.r.UserID); {
		case err == nil:
			return errLocked()
		case !store.IsNotFound(err):
			return fmt.Errorf("lock of push: %w", err)
		}
		if x.credential != nil {
			n, err := tx.MovePushCredential(ctx, db.MovePushCredentialParams{ID: x.d.ID, Credential: x.credential, Was: x.d.credential})
			if err != nil {
				return fmt.Errorf("note the use of a credential: %w", err)
			}
			if n != 1 {
				x.faster = true
				return nil
			}
		}
	}
	n, err := x.settle(ctx, tx)
	if err != nil {
		return fmt.Errorf("answer a request: %w", err)
	}
	if n != 1 {
		x.faster = true
		return nil
	}
	tx.Wake(ticketKey(x.r.Ticket), UserKey(x.r.UserID))
	switch x.state {
	case StateReported:
		return x.report(ctx, tx)
	case StateDenied:
		return note(tx, x.event(event.PushDenied), map[string]any{"request": x.r.ID, "device": x.d.Name, "from": x.r.Address, "door": x.r.Door})
	}
	return note(tx, x.event(event.PushApproved), map[string]any{"request": x.r.ID, "device": x.d.Name, "from": x.r.Address, "door": x.r.Door, "verified": x.verified})
}

// settle ends the request. 0: somebody was faster, or it is too late.
func (x *answer) settle(ctx context.Context, tx *store.Tx) (int64, error) {
	if x.state == StateReported {
		return tx.ReportPushRequest(ctx, db.ReportPushRequestParams{
			ID: x.r.ID, Reason: x.reason, DeviceID: x.d.ID, At: x.now, Since: x.now - reportFor.Microseconds(),
		})
	}
	return tx.AnswerPushRequest(ctx, db.AnswerPushRequestParams{ID: x.r.ID, State: x.state, Reason: x.reason, DeviceID: x.d.ID, Verified: x.verified, At: x.now})
}

// event is about the answer. Its address is the phone's.
func (x *answer) event(t event.Type) event.Event { return x.s.event(t, x.d, x.r, x.reason) }

func (s *Service) event(t event.Type, d Device, r db.PushRequest, reason string) event.Event {
	return event.Event{
		Type: t, Actor: d.User, Subject: d.User, UserID: d.UserID, MachineID: r.MachineID, Machine: r.Machine, Scope: r.Scope, Service: r.Service,
		Address: d.Address, Reason: reason, Factor: string(policy.Push),
	}
}

// report is "it wasn't me": no phone of the user is asked any more, whatever was
// approved and not yet seen counts for nothing, and the help desk is told with an
// alert. Whoever it was has the password and got no further.
func (x *answer) report(ctx context.Context, tx *store.Tx) error {
	id := store.NewID()
	err := tx.InsertReport(ctx, db.InsertReportParams{
		ID: id, UserID: x.r.UserID, Kind: rest.ReportPush, MachineID: x.r.MachineID, Machine: x.r.Machine, Address: x.d.Address, CreatedAt: x.now,
	})
	if err != nil {
		return fmt.Errorf("store a report: %w", err)
	}
	if _, err := tx.LockPush(ctx, db.LockPushParams{UserID: x.r.UserID, Reason: factor.ReasonReported, RequestID: x.r.ID, ReportID: id, At: x.now}); err != nil {
		return fmt.Errorf("lock push: %w", err)
	}
	open, err := tx.ListPushTickets(ctx, x.r.UserID)
	if err != nil {
		return fmt.Errorf("open requests: %w", err)
	}
	if _, err := tx.WithdrawPushRequests(ctx, db.WithdrawPushRequestsParams{UserID: x.r.UserID, At: x.now}); err != nil {
		return fmt.Errorf("withdraw requests: %w", err)
	}
	for _, o := range open {
		tx.Wake(ticketKey(o.Ticket))
	}
	data := map[string]any{
		"severity": "alert", "report": rest.ReportPrefix + id, "kind": rest.ReportPush, "request": x.r.ID, "device": x.d.Name, "from": x.r.Address, "door": x.r.Door,
		"withdrawn": len(open),
	}
	if err := note(tx, x.event(event.PushReported), data); err != nil {
		return err
	}
	return note(tx, x.event(event.ReportOpened), map[string]any{
		"severity": "alert", "report": rest.ReportPrefix + id, "kind": rest.ReportPush, "from": x.r.Address,
	})
}

// refused writes down that an answer was not accepted, and says why. What can not be
// written down is not told as something else.
func (s *Service) refused(ctx context.Context, d Device, r db.PushRequest, reason string, why error) error {
	h := sha256.Sum256([]byte(r.Content))
	err := s.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
		return note(tx, s.event(event.PushRefused, d, r, reason), map[string]any{
			"request": r.ID, "device": d.Name, "state": r.State, "content": encode(h[:]), "of": r.UserID,
		})
	})
	if err != nil {
		return err
	}
	return why
}
