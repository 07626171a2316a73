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

// lanes has the notices for each push service go by themselves: one that is slow, or
// answers nothing at all, holds up its own and nobody else's.
type lanes struct {
	ctx  context.Context //nolint:containedctx // of Run, which waits for work
	send func(ctx context.Context, n notice)
	log  *slog.Logger

	mu    sync.Mutex
	order []*lane // who was served last stands at the end
	busy  int
	work  sync.WaitGroup
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
		i := slices.IndexFunc(x.order, func(l *lane) bool { return len(l.queue) > 0 && l.busy < perService })
		if i < 0 {
			return
		}
		l := x.order[i]
		x.order = append(slices.Delete(x.order, i, i+1), l)
		n := l.queue[0]
		l.queue = l.queue[1:]
		l.busy++
		x.busy++
		x.work.Go(func() {
			x.send(x.ctx, n)
			x.done(l)
		})
	}
}

// done makes room for the next.
func (x *lanes) done(l *lane) {
	x.mu.Lock()
	defer x.mu.Unlock()
	l.busy--
	x.busy--
	if l.busy == 0 && len(l.queue) == 0 {
		x.order = slices.DeleteFunc(x.order, func(o *lane) bool { return o == l })
	}
	x.start()
}
