package push

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// ReasonWithdrawn and the like are why a request came to nothing, beside those of
// package factor.
const (
	ReasonWithdrawn = "push-withdrawn"
	reasonLimit     = "push-limit"
	reasonGone      = "push-device-gone"
)

// Send asks the user's phones. It runs in the transaction that stores the prompt.
func (s *Service) Send(ctx context.Context, tx *store.Tx, a factor.Ask) (factor.Sent, error) {
	var out factor.Sent
	now := clock.Micros(a.Now)
	switch _, err := tx.GetPushLock(ctx, a.User.ID); {
	case err == nil:
		return out, errTooMany(text.PushLocked)
	case !store.IsNotFound(err):
		return out, fmt.Errorf("lock of push: %w", err)
	}
	if n, err := s.usable(ctx, tx.Queries, a.User.ID); err != nil {
		return out, err
	} else if n == 0 {
		return out, errTooMany(text.PushNoPhone)
	}
	if _, err := tx.ExpirePushRequests(ctx, db.ExpirePushRequestsParams{UserID: a.User.ID, At: now}); err != nil {
		return out, fmt.Errorf("end requests: %w", err)
	}
	if err := s.clear(ctx, tx, a, now); err != nil {
		return out, err
	}
	if err := s.bounded(ctx, tx, a, now); err != nil {
		return out, err
	}
	number, err := s.number()
	if err != nil {
		return out, err
	}
	p, err := facts.PolicyOf(ctx, tx.Queries, a.User.ID)
	if err != nil {
		return out, err
	}
	id, expires := store.NewID(), a.Now.Add(s.Life)
	nonce, err := s.random(18)
	if err != nil {
		return out, err
	}
	c := Content{
		Machine: text.CleanN(a.Name, text.MaxName), Place: place(a), Address: text.CleanN(a.Address, 64), Scope: string(a.Scope), Service: text.CleanN(a.Service, 64),
		Door: string(a.Door), User: a.User.Name, At: a.Now.Unix(), Expires: expires.Unix(), Nonce: encode(nonce),
	}
	content, err := json.Marshal(c)
	if err != nil {
		return out, err
	}
	err = tx.InsertPushRequest(ctx, db.InsertPushRequestParams{
		ID: id, UserID: a.User.ID, Ticket: a.Ticket, Door: string(a.Door), MachineID: a.Machine, Machine: c.Machine, Scope: c.Scope, Service: c.Service,
		Address: c.Address, Content: string(content), Nonce: c.Nonce, NumberHash: s.numberHash(id, number), Verification: wantsVerification(p),
		CreatedAt: now, ExpiresAt: clock.Micros(expires),
	})
	if err != nil {
		return out, fmt.Errorf("store a request: %w", err)
	}
	tx.Wake(UserKey(a.User.ID), wakeOutbox)
	return factor.Sent{
		Prompt: text.PushPrompt(number), Number: number, Expires: expires, Data: map[string]any{"request": id},
	}, nil
}

// place says in a few words where somebody sits.
func place(a factor.Ask) string {
	switch {
	case a.Program:
		return text.PlaceProgram
	case a.Door == factor.AtPortal || a.Door == factor.AtStepUp:
		return text.PlaceBrowser
	case a.Scope == policy.Remote:
		return text.PlaceNetwork
	case a.Address != "":
		return text.PlaceSession
	}
	return text.PlaceLocal
}

// usable counts the phones that can answer.
func (s *Service) usable(ctx context.Context, q *db.Queries, userID string) (n int, err error) {
	all, err := q.ListPushDevices(ctx, userID)
	if err != nil {
		return 0, fmt.Errorf("phones: %w", err)
	}
	for _, d := range all {
		if !d.Authenticator.Lost && d.Authenticator.ConfirmedAt > 0 {
			n++
		}
	}
	return n, nil
}

// clear makes room for a request: one that is open at the same machine ends if it is of
// the same sign-in, or of one that is over, and else keeps the new one out.
func (s *Service) clear(ctx context.Context, tx *store.Tx, a factor.Ask, now int64) error {
	old, err := tx.OpenPushRequestAt(ctx, db.OpenPushRequestAtParams{UserID: a.User.ID, Door: string(a.Door), MachineID: a.Machine})
	if store.IsNotFound(err) {
		return s.slow(ctx, tx, a, now)
	} else if err != nil {
		return fmt.Errorf("open requests: %w", err)
	}
	if old.Ticket != a.Ticket {
		over, err := s.over(ctx, tx, old, now)
		if err != nil {
			return err
		}
		if !over {
			return errTooMany(text.PushOneAlready(int((old.ExpiresAt - now + 999_999) / 1_000_000)))
		}
	}
	return s.withdraw(ctx, tx, old, a.User.Name, now)
}

// slow keeps a gap behind requests that were withdrawn one after the other at the people's
// door, so that phones show nothing: one that takes the place of another is no such. Machines have narrower bounds, and the person's own are not held up.
func (s *Service) slow(ctx context.Context, tx *store.Tx, a factor.Ask, now int64) error {
	if a.Door == factor.AtMachine {
		return nil
	}
	at, err := tx.ListPushWithdrawals(ctx, db.ListPushWithdrawalsParams{UserID: a.User.ID, Since: now - gapIn.Microseconds(), Door: string(a.Door), MachineID: a.Machine})
	if err != nil {
		return fmt.Errorf("withdrawn requests: %w", err)
	}
	if len(at) < gapAfter || ahead(at[0], now) {
		return nil
	}
	if left := at[0] + gap.Microseconds() - now; left > 0 {
		return errTooMany(text.PushSlow(int((left + 999_999) / 1_000_000)))
	}
	return nil
}

// Withdraw ends the request of a sign-in that does not wait any more: the phones show it
// no longer, and another may be asked for at once. An approval that nobody has taken stays:
// nobody but its sign-in could.
func (s *Service) Withdraw(ctx context.Context, tx *store.Tx, ticket string) error {
	r, err := tx.FindPushRequest(ctx, ticket)
	switch {
	case store.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("find a request: %w", err)
	}
	now := s.now()
	if r.State != StateOpen || r.ExpiresAt <= now {
		return nil
	}
	u, err := tx.GetUser(ctx, r.UserID)
	if err != nil {
		return fmt.Errorf("user of a request: %w", err)
	}
	return s.withdraw(ctx, tx, r, u.Name, now)
}

// withdraw ends a request that is open, with an event.
func (s *Service) withdraw(ctx context.Context, tx *store.Tx, r db.PushRequest, user string, now int64) error {
	n, err := tx.ClosePushRequest(ctx, db.ClosePushRequestParams{ID: r.ID, State: StateWithdrawn, At: now})
	if err != nil {
		return fmt.Errorf("withdraw a request: %w", err)
	}
	if n == 0 {
		return nil
	}
	tx.Wake(ticketKey(r.Ticket), UserKey(r.UserID))
	return note(tx, event.Event{
		Type: event.PushWithdrawn, Actor: user, Subject: user, UserID: r.UserID, MachineID: r.MachineID, Machine: r.Machine, Scope: r.Scope, Service: r.Service,
		Address: r.Address, Factor: string(policy.Push),
	}, map[string]any{"request": r.ID, "door": r.Door})
}

// over tells whether the sign-in of a request has ended. Of the people's door it is not
// known.
func (s *Service) over(ctx context.Context, tx *store.Tx, r db.PushRequest, now int64) (bool, error) {
	if ahead(r.CreatedAt, now) {
		return true, nil
	}
	if r.Door != string(factor.AtMachine) {
		return false, nil
	}
	c, err := tx.GetConversation(ctx, r.Ticket)
	switch {
	case store.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("conversation of a request: %w", err)
	}
	return c.Outcome != facts.Open || c.ExpiresAt <= now, nil
}

// open are the user's requests that wait for an answer.
func open(ctx context.Context, q *db.Queries, userID string, now int64) ([]db.PushRequest, error) {
	rows, err := q.ListOpenPushRequests(ctx, db.ListOpenPushRequestsParams{UserID: userID, At: now})
	if err != nil {
		return nil, fmt.Errorf("open requests: %w", err)
	}
	return slices.DeleteFunc(rows, func(r db.PushRequest) bool { return ahead(r.CreatedAt, now) }), nil
}

// bounded refuses where a user is asked too often. Where the user has lately been let in,
// and at the people's door, only what was asked there counts: a machine that somebody else
// holds must not keep the person's own from asking. Everywhere else all of it counts, and
// one machine gets no more than a part; of everybody together it gets a few in an hour.
func (s *Service) bounded(ctx context.Context, tx *store.Tx, a factor.Ask, now int64) error {
	waiting, err := open(ctx, tx.Queries, a.User.ID, now)
	if err != nil {
		return err
	}
	own, err := s.own(ctx, tx, a)
	if err != nil {
		return err
	}
	most, few, many := 2*maxOpen, int64(fewIn), int64(manyIn)
	switch {
	case own:
	case a.Unproven:
		most, few, many = 1, fewUnproven, manyUnproven
	default:
		most, few, many = maxOpen, fewNew, manyNew
	}
	if len(waiting) >= most {
		return errTooMany(text.PushTooMany)
	}
	at := func(per time.Duration) (int64, error) {
		return tx.CountPushRequestsAt(ctx, db.CountPushRequestsAtParams{UserID: a.User.ID, Since: now - per.Microseconds(), Door: string(a.Door), MachineID: a.Machine})
	}
	all := func(per time.Duration) (int64, error) {
		return tx.CountPushRequests(ctx, db.CountPushRequestsParams{UserID: a.User.ID, Since: now - per.Microseconds()})
	}
	for _, b := range []struct {
		count func(per time.Duration) (int64, error)
		n     int64
		per   time.Duration
		new   bool
	}{{at, few, fewFor, false}, {at, many, manyFor, false}, {all, fewIn, fewFor, true}, {all, manyIn, manyFor, true}} {
		if own && b.new {
			continue
		}
		n, err := b.count(b.per)
		if err != nil {
			return fmt.Errorf("count requests: %w", err)
		}
		if n >= b.n {
			return s.pause(tx, a, event.PushLimited, reasonLimit, n)
		}
	}
	if own {
		return nil
	}
	n, err := tx.CountPushRequestsOfMachine(ctx, db.CountPushRequestsOfMachineParams{MachineID: a.Machine, Since: now - machineFor.Microseconds()})
	if err != nil {
		return fmt.Errorf("count requests: %w", err)
	}
	if n >= machineIn {
		return s.pause(tx, a, event.FactorLimited, factor.ReasonMachine, n)
	}
	return nil
}

// own tells whether the place is one of the user's own: the people's door, which has
// judged the first factor itself, or a machine that has lately let the user in.
func (s *Service) own(ctx context.Context, tx *store.Tx, a factor.Ask) (bool, error) {
	if a.Door != factor.AtMachine {
		return true, nil
	}
	if ok, err := attempts.Own(ctx, tx, a.User.ID, a.Machine, a.Now); ok || err != nil {
		return ok, err
	}
	n, err := tx.CountPushApprovedAt(ctx, db.CountPushApprovedAtParams{
		UserID: a.User.ID, Since: clock.Micros(a.Now.Add(-keep)), Door: string(a.Door), MachineID: a.Machine,
	})
	if err != nil {
		return false, fmt.Errorf("count approvals: %w", err)
	}
	return n > 0, nil
}

// pause refuses, with an event.
func (s *Service) pause(tx *store.Tx, a factor.Ask, what event.Type, reason string, n int64) error {
	data := map[string]any{"requests": n}
	if what == event.FactorLimited {
		data["severity"] = "alert"
	}
	err := note(tx, event.Event{
		Type: what, Actor: a.User.Name, Subject: a.User.Name, UserID: a.User.ID, MachineID: a.Machine, Machine: a.Name, Scope: string(a.Scope),
		Service: a.Service, Address: a.Address, Reason: reason, Factor: string(policy.Push),
	}, data)
	if err != nil {
		return err
	}
	return errTooMany(text.PushTooMany)
}

// note writes an event with its data.
func note(tx *store.Tx, e event.Event, data map[string]any) error {
	for k, v := range data {
		if v == "" {
			delete(data, k)
		}
	}
	if len(data) > 0 {
		b, err := json.Marshal(data)
		if err != nil {
			return err
		}
		e.Data = b
	}
	_, err := tx.Event(e)
	return err
}

// Judge looks at what has come for the ticket. An approval is spent by this.
func (s *Service) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	r, err := tx.FindPushRequest(ctx, t.Ticket)
	switch {
	case store.IsNotFound(err):
		return factor.Verdict{Reason: factor.ReasonNothingThere, Outcome: factor.Over}, nil
	case err != nil:
		return factor.Verdict{}, fmt.Errorf("find a request: %w", err)
	}
	data := map[string]any{"request": r.ID}
	now := clock.Micros(t.Now)
	switch {
	case r.UserID != t.User.ID || r.Door != string(t.Door) || t.Door == factor.AtMachine && r.MachineID != t.Machine:
		return factor.Verdict{Reason: factor.ReasonNothingThere, Outcome: factor.Over}, nil
	case r.State == StateOpen && now < r.ExpiresAt && !ahead(r.CreatedAt, now):
		return factor.Verdict{Outcome: factor.Waiting, Data: data}, nil
	case r.State == StateApproved && now < r.AnsweredAt+claimed.Microseconds() && !ahead(r.AnsweredAt, now):
		return s.spend(ctx, tx, t, r, data)
	case r.State == StateDenied && r.Reason == factor.ReasonWrongNumber:
		return factor.Verdict{Reason: factor.ReasonWrongNumber, Outcome: factor.Ended, Text: text.PushWrongNumber, ID: r.DeviceID, Data: data}, nil
	case r.State == StateDenied:
		return factor.Verdict{Reason: factor.ReasonDenied, Outcome: factor.Ended, Text: text.PushDenied, ID: r.DeviceID, Data: data}, nil
	case r.State == StateReported:
		return factor.Verdict{Reason: factor.ReasonReported, Outcome: factor.Ended, Text: text.PushDenied, ID: r.DeviceID, Data: data}, nil
	case r.State == StateWithdrawn:
		return factor.Verdict{Reason: ReasonWithdrawn, Outcome: factor.Over, Text: text.PushWithdrawn, Data: data}, nil
	}
	return factor.Verdict{Reason: factor.ReasonExpired, Outcome: factor.Over, Text: text.PushExpired, Data: data}, nil
}

// spend takes an approval, if the phone that gave it is still trusted.
func (s *Service) spend(ctx context.Context, tx *store.Tx, t factor.Try, r db.PushRequest, data map[string]any) (factor.Verdict, error) {
	gone := factor.Verdict{Reason: reasonGone, Outcome: factor.Over, Text: text.PushWithdrawn, ID: r.DeviceID, Data: data}
	d, err := tx.GetPushDevice(ctx, r.DeviceID)
	switch {
	case store.IsNotFound(err) || err == nil && (d.Authenticator.Lost || d.PushDevice.UserID != t.User.ID):
		return gone, nil
	case err != nil:
		return factor.Verdict{}, fmt.Errorf("phone: %w", err)
	}
	switch _, err := tx.GetPushLock(ctx, t.User.ID); {
	case err == nil:
		return gone, nil
	case !store.IsNotFound(err):
		return factor.Verdict{}, fmt.Errorf("lock of push: %w", err)
	}
	n, err := tx.SpendPushRequest(ctx, r.ID)
	if err != nil {
		return factor.Verdict{}, fmt.Errorf("spend an approval: %w", err)
	}
	if n == 1 {
		if n, err = tx.UseAuthenticator(ctx, db.UseAuthenticatorParams{ID: r.DeviceID, At: clock.Micros(t.Now)}); err != nil {
			return factor.Verdict{}, fmt.Errorf("note the use of a phone: %w", err)
		}
	}
	if n != 1 {
		return gone, nil
	}
	data["device"], data["verified"] = d.Authenticator.Name, r.Verified
	return factor.Verdict{Outcome: factor.Accepted, ID: r.DeviceID, Own: true, Data: data}, nil
}

// Wait returns when the request of the ticket is answered, withdrawn or over, or ctx ends.
func (s *Service) Wait(ctx context.Context, ticket string) {
	// First this, then the look, so that nothing comes in between.
	woken, unhear := s.Store.Watch(ticketKey(ticket))
	defer unhear()
	// Thousands begin to wait over and over. Their first looks go a few at a time, so that
	// an answer does not stand in a queue behind them; whoever is woken looks at once.
	inside := false
	select {
	case s.looks <- struct{}{}:
		inside = true
	case _, ok := <-woken:
		if !ok {
			return
		}
	case <-ctx.Done():
		return
	}
	for {
		var r db.GetPushStateRow
		err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
			r, err = q.GetPushState(ctx, ticket)
			return err
		})
		if inside {
			inside = false
			<-s.looks
		}
		if err != nil && !store.IsUnavailable(err) {
			return // there is none, or ctx has ended
		}
		now := s.now()
		if err == nil && (r.State != StateOpen || r.ExpiresAt <= now || ahead(r.ExpiresAt-s.Life.Microseconds(), now)) {
			return
		}
		if !s.wait(ctx, woken, time.Duration(r.ExpiresAt-now)*time.Microsecond) {
			return
		}
	}
}

// wait is false when there is nothing more to wait for.
func (s *Service) wait(ctx context.Context, woken <-chan struct{}, left time.Duration) bool {
	if left > 0 {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, left)
		defer done()
	}
	select {
	case _, ok := <-woken:
		return ok // else the store was closed
	case <-ctx.Done():
		return false
	}
}

// Sweep removes what is no longer looked at.
func (s *Service) Sweep(ctx context.Context) error {
	return s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		before := clock.Micros(s.Clock.Now().Add(-keep))
		if _, err := tx.DeleteOldPushRequests(ctx, before); err != nil {
			return fmt.Errorf("remove old requests: %w", err)
		}
		// They would be counted for as long as the clock was ahead.
		if _, err := tx.DeletePushRequestsAhead(ctx, clock.Micros(s.Clock.Now().Add(keep))); err != nil {
			return fmt.Errorf("remove requests of a clock that was ahead: %w", err)
		}
		if _, err := tx.DeleteOldPushEnrolments(ctx, before); err != nil {
			return fmt.Errorf("remove old enrolment codes: %w", err)
		}
		return nil
	})
}
