package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/wire"
)

// journalPart is how many entries travel at a time.
const journalPart = 200

// chores does what may wait a moment while the link is up: it delivers the
// journal, reports wiped data and occasions, lifts counters, renews the
// certificate.
func (l *Link) chores(ctx context.Context) {
	for ctx.Err() == nil {
		again := 10 * time.Minute
		if l.State().Link == policy.LinkUp {
			if err := l.chore(ctx); err != nil && ctx.Err() == nil {
				again = 15 * time.Second
				var (
					down *Down
					p    *wire.Problem
				)
				waits := errors.As(err, &p) && p.Code == string(fault.MachinePending)
				if !errors.As(err, &down) && !waits {
					again = time.Minute
					l.log.Warn("something is left undone for the server and will be tried again", "err", err)
				}
			}
		}
		select {
		case <-l.work:
		case <-l.clk.After(again):
		case <-ctx.Done():
		}
	}
}

func (l *Link) chore(ctx context.Context) error {
	// A server that does not welcome the machine takes nothing from it.
	if _, trouble := l.Server(); trouble != nil {
		return nil
	}
	err := l.upload(ctx)
	var down *Down
	if errors.As(err, &down) {
		return err
	}
	err = errors.Join(err, l.report(ctx), l.vault.Lift(ctx, l))
	l.renewIfDue(ctx)
	return err
}

// upload delivers the journal, oldest entries first. One at a time does it.
func (l *Link) upload(ctx context.Context) error {
	select {
	case l.bearer <- struct{}{}:
		defer func() { <-l.bearer }()
	case <-ctx.Done():
		return ctx.Err()
	}
	owed := l.owed.Load()
	l.posting.Store(false)
	err := l.deliver(ctx)
	if err == nil {
		// Not before: whoever signs in meanwhile must wait for it.
		l.owed.CompareAndSwap(owed, 0)
	}
	return err
}

// stuckFor is how long sign-ins do not try again to deliver a journal that could not
// be delivered though the server was there: a TPM that does not answer must not cost
// every one of them its time.
const stuckFor = 30 * time.Second

// Delivering is the detail of the problem that the journal is on its way to a server
// that needs more time for it than a sign-in has.
const Delivering = "Offline events are being delivered."

// settle delivers what waits before a conversation begins online: what was accepted
// here without the server it must know before it judges a code for this machine (S10).
// *Down says that there is no server after all, a *wire.Problem that it is at it and
// needs more time.
func (l *Link) settle(ctx context.Context) error {
	now := l.clk.Now()
	l.mu.Lock()
	heard, stuck := l.state.LastAnswer, !l.stuck.IsZero() && now.Sub(l.stuck) >= 0 && now.Sub(l.stuck) < stuckFor
	l.mu.Unlock()
	if l.owed.Load() == 0 || stuck {
		return nil
	}
	tctx, cancel := context.WithTimeout(ctx, l.timing.First)
	defer cancel()
	uploaded := make(chan error, 1)
	go func() { uploaded <- l.upload(tctx) }()
	var (
		err     error
		down    *Down
		refused *Refused
	)
	select {
	case err = <-uploaded:
	case <-tctx.Done(): // also where the vault waits for the TPM and does not look at it
		err = tctx.Err()
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &down), errors.As(err, &refused):
		return err
	case tctx.Err() == nil || !l.posting.Load():
		// Not for want of an answer.
	case l.State().LastAnswer.After(heard):
		return &wire.Problem{Code: string(fault.TooMany), Detail: Delivering}
	default:
		down := NewDown(Silence, fmt.Errorf("no answer within %s", l.timing.First))
		l.enter(Failure{At: l.clk.Now(), Reason: down.Reason, Detail: down.Error()})
		return down
	}
	l.log.Warn("what happened without the server can not be delivered before a sign-in", "err", err)
	l.mu.Lock()
	l.stuck = l.clk.Now()
	l.mu.Unlock()
	return nil
}

func (l *Link) deliver(ctx context.Context) error {
	for ctx.Err() == nil {
		j, err := l.vault.Pending(ctx, journalPart)
		if err != nil || len(j.Entries) == 0 {
			return err
		}
		var reply wire.JournalReply
		l.posting.Store(true)
		err = l.do(ctx, l.timing.Long, "POST", wire.PathJournal, j, &reply)
		if err != nil {
			return err
		}
		l.posting.Store(false)
		failpoint.Hit("link.acknowledged")
		last := j.Entries[len(j.Entries)-1].Seq
		if err := l.vault.Delivered(ctx, reply.Seq, reply.Hash); err != nil {
			return err
		}
		l.log.Info("offline events delivered", "entries", len(j.Entries), "up_to", reply.Seq)
		if reply.Seq < last {
			return errors.New("the server did not take the whole journal")
		}
	}
	return ctx.Err()
}

// report tells what was wiped and what may end windows.
func (l *Link) report(ctx context.Context) error {
	for {
		l.mu.Lock()
		var w *wire.Wiped
		var o *wire.Occasion
		switch {
		case len(l.wiped) > 0:
			first := l.wiped[0]
			w = &first
		case len(l.occasions) > 0:
			first := l.occasions[0]
			o = &first
		}
		l.mu.Unlock()

		var err error
		switch {
		case w != nil:
			err = l.do(ctx, l.timing.Long, "POST", wire.PathWiped, w, nil)
		case o != nil:
			err = l.do(ctx, l.timing.Long, "POST", wire.PathOccasion, o, nil)
		default:
			return nil
		}
		var p *wire.Problem
		if err != nil && !errors.As(err, &p) {
			return err
		}
		if p != nil {
			l.log.Warn("the server does not take a report", "code", p.Code, "detail", p.Detail)
		}
		l.mu.Lock()
		if w != nil {
			l.wiped = l.wiped[1:]
		} else {
			l.occasions = l.occasions[1:]
		}
		l.mu.Unlock()
	}
}
