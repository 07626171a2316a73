package push

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"latchkey/internal/server/store/db"
)

// The bounds of what is under way to push services.
const (
	// perService are the notices that are under way at once to one push service.
	perService = 16
	// senders are those to all of them.
	senders = 256
	// strange are those of them to services of which the last word was none. Phones choose
	// the names, and may choose as many as they like of one that is silent.
	strange = senders / 2
	// maxAnswered bounds the names that are known for their answer.
	maxAnswered = 64
	// maxQueued is how many wait for one push service. Behind it the oldest are dropped:
	// their requests end first, and a phone whose app is open looks by itself.
	maxQueued = 2000
)

// notice is one that is to go to a phone.
type notice struct {
	request db.ListUntoldPushRequestsRow
	device  db.PushDevice
	to      Subscription
	people  string
	by      *outlet
	since   int64 // when it was queued
}

// outcome is what came of a notice at its push service.
type outcome int

const (
	notSent outcome = iota
	wasAnswered
	wasSilent
)

// lanes has the notices for each push service go by themselves: one that is slow, or
// answers nothing at all, holds up its own and nobody else's.
type lanes struct {
	ctx  context.Context //nolint:containedctx // of Run, which waits for work
	send func(ctx context.Context, n notice) outcome
	log  *slog.Logger

	mu    sync.Mutex
	order []*lane // who was served last stands at the end
	busy  int
	// mute are those of busy to services that had not answered when it began, and answered
	// the services that have, who did so last at the end.
	mute     int
	answered []string
	work     sync.WaitGroup
}

// lane is what goes to one push service.
type lane struct {
	service string // host and port
	queue   []notice
	busy    int
	dropped bool // since it was empty
}

// put queues a notice for a push service.
func (x *lanes) put(service string, n notice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	i := slices.IndexFunc(x.order, func(l *lane) bool { return l.service == service })
	if i < 0 {
		i = len(x.order)
		x.order = append(x.order, &lane{service: service})
	}
	l := x.order[i]
	if len(l.queue) >= maxQueued {
		if !l.dropped {
			x.log.WarnContext(x.ctx, "a push service is too slow: the oldest notices for it are dropped", "service", service, "waiting", len(l.queue))
		}
		l.queue, l.dropped = l.queue[1:], true
	}
	l.queue = append(l.queue, n)
	x.start()
}

// start has as many go as may, the lanes by turns. The lock is held.
func (x *lanes) start() {
	for x.busy < senders && x.ctx.Err() == nil {
		i := slices.IndexFunc(x.order, func(l *lane) bool {
			return len(l.queue) > 0 && l.busy < perService && (x.mute < strange || slices.Contains(x.answered, l.service))
		})
		if i < 0 {
			return
		}
		l := x.order[i]
		x.order = append(slices.Delete(x.order, i, i+1), l)
		n := l.queue[0]
		l.queue = l.queue[1:]
		l.busy++
		x.busy++
		mute := !slices.Contains(x.answered, l.service)
		if mute {
			x.mute++
		}
		x.work.Go(func() { x.done(l, mute, x.send(x.ctx, n)) })
	}
}

// done makes room for the next.
func (x *lanes) done(l *lane, mute bool, came outcome) {
	x.mu.Lock()
	defer x.mu.Unlock()
	l.busy--
	x.busy--
	if mute {
		x.mute--
	}
	if came != notSent {
		x.answered = slices.DeleteFunc(x.answered, func(s string) bool { return s == l.service })
	}
	if came == wasAnswered {
		x.answered = append(x.answered, l.service)
		x.answered = x.answered[max(0, len(x.answered)-maxAnswered):]
	}
	if l.busy == 0 && len(l.queue) == 0 {
		x.order = slices.DeleteFunc(x.order, func(o *lane) bool { return o == l })
	}
	x.start()
}
