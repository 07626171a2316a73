package agentapi

import (
	"context"
	"math"
	"runtime"
	"strconv"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// A change of a policy wakes ten thousand polls in one moment. They go to the
// database a few at a time, through a gate of their own, so that a sign-in meanwhile
// finds a processor and a connection and not a server that looks dead (O1). While it
// waits a poll holds no more than it must: there are as many as machines.

// poll is what a poll has beside a request.
type poll struct {
	since  int64
	woken  <-chan struct{} // a change that concerns the machine is on the disk
	unhear func()
	inside bool             // it holds a place in the gate
	id     string           // the machine's
	ended  chan struct{}    // closed when the machine has begun two newer ones
	file   *wire.PolicyFile // what the last look has found newer than since
}

// gates are the polls that may look at the same time.
func gates() chan struct{} { return make(chan struct{}, max(2, runtime.GOMAXPROCS(0))) }

// enter waits for a place in the gate.
func (a *API) enter(ctx context.Context, p *poll) error {
	select {
	case a.gate <- struct{}{}:
		p.inside = true
		return nil
	case <-p.ended:
		return fault.New(fault.TooMany, nil)
	case <-ctx.Done():
		return fault.New(fault.Unavailable, ctx.Err())
	}
}

// herd are the polls of each machine, the older one first. A machine has one; another
// stands for a connection that was cut without telling the server. Whoever begins more
// ends his own, and takes nobody else's place in the gate.
type herd struct {
	mu sync.Mutex
	of map[string][2]*poll
}

func (h *herd) add(p *poll) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[string][2]*poll{}
	}
	two := h.of[p.id]
	if two[0] != nil && two[1] != nil {
		close(two[0].ended)
		two[0] = nil
	}
	if two[0] == nil {
		two[0], two[1] = two[1], nil
	}
	if two[0] == nil {
		two[0] = p
	} else {
		two[1] = p
	}
	h.of[p.id] = two
}

func (h *herd) remove(p *poll) {
	h.mu.Lock()
	defer h.mu.Unlock()
	two := h.of[p.id]
	for i := range two {
		if two[i] == p {
			two[i] = nil
		}
	}
	if two == [2]*poll{} {
		delete(h.of, p.id)
		return
	}
	h.of[p.id] = two
}

// leave gives the place back, if there is one.
func (a *API) leave(p *poll) {
	if p.inside {
		p.inside = false
		<-a.gate
	}
}

// arrive begins a poll of the machine of the certificate: before it is looked up.
func (a *API) arrive(ctx context.Context, r *request, id string) error {
	since, err := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64)
	if err != nil || since < 0 {
		return fault.New(fault.Invalid, err).With("since", "allowed is the serial of the policy that the machine has, or 0")
	}
	r.poll = &poll{since: since, unhear: func() {}, id: id, ended: make(chan struct{})}
	a.herd.add(r.poll)
	return a.enter(ctx, r.poll)
}

// depart ends it.
func (a *API) depart(r *request) {
	if r.poll != nil {
		a.leave(r.poll)
		a.herd.remove(r.poll)
		r.poll.unhear()
	}
}

// hear makes the poll hear of changes of the machine: first this, then the look, so
// that nothing comes in between.
func (a *API) hear(r *request, id string) {
	r.poll.woken, r.poll.unhear = a.c.Store.Watch(id)
}

// behind tells whether the machine has seen more than this database.
func (p *poll) behind(serial int64) bool { return serial < p.since && p.since < math.MaxInt32 }

// news is a part of the look at the machine: what it does not know yet.
func (a *API) news(ctx context.Context, q *store.Queries, p *poll, m db.Machine) error {
	if p.file = nil; m.Serial == p.since || p.behind(m.Serial) {
		return nil
	}
	f, err := a.c.Offline.PolicyOf(ctx, q, m)
	p.file = &f
	return err
}

// changes is the long poll. The machine was looked up on the way here.
func (a *API) changes(ctx context.Context, r *request) (any, error) {
	a.polls.Add(1)
	defer a.polls.Add(-1)
	ctx, end := context.WithTimeout(ctx, a.c.Patience)
	defer end()
	a.seen(r)
	for {
		c, err := a.decide(ctx, r)
		if c != nil || err != nil {
			return c, err
		}
		if !a.wait(ctx, r.poll) || a.enter(ctx, r.poll) != nil {
			return a.unchanged(r)
		}
		if err := a.lookAgain(ctx, r); err != nil {
			return nil, err
		}
	}
}

// decide answers by what the last look has found; without an answer the poll waits,
// outside of the gate.
//
//go:noinline
func (a *API) decide(ctx context.Context, r *request) (any, error) {
	p := r.poll
	for p.behind(r.m.Serial) {
		if err := a.catchUp(ctx, r.m, p.since); err != nil {
			return nil, err
		}
		if err := a.lookAgain(ctx, r); err != nil {
			return nil, err
		}
	}
	if p.file != nil {
		signed, err := a.c.Offline.Sign(*p.file)
		if err != nil {
			return nil, err
		}
		return wire.Changes{Serial: p.file.Serial, Time: clock.Micros(a.c.Clock.Now()), Policy: signed}, nil
	}
	a.leave(p)
	r.m = db.Machine{ID: r.m.ID, Name: r.m.Name}
	return nil, nil //nolint:nilnil // neither is: wait
}

//go:noinline
func (a *API) unchanged(r *request) (any, error) {
	return wire.Changes{Serial: r.poll.since, Time: clock.Micros(a.c.Clock.Now())}, nil
}

// lookAgain looks the machine up.
//
//go:noinline
func (a *API) lookAgain(ctx context.Context, r *request) error {
	// The patience must not end in the middle of a look.
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), postTime)
	defer done()
	m, err := a.standing(ctx, r.m.ID, ca.Serial(r.cert), r.poll)
	r.m = m
	return err
}

// catchUp raises the serial of a machine that has seen a higher one: the database
// was restored from a backup, and the machine takes nothing older than it has.
func (a *API) catchUp(ctx context.Context, m db.Machine, since int64) error {
	a.c.Log.Warn("a machine has seen a later policy than this database: was it restored from a backup?", "machine", m.ID, "serial", m.Serial, "seen", since)
	return a.c.Store.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.RaiseMachineSerial(ctx, db.RaiseMachineSerialParams{ID: m.ID, Serial: since + 1})
		tx.Wake(m.ID)
		return err
	})
}

// wait waits for a change; false: the patience ends, or the server stops. Every poll
// begins with a look, so one that hears nothing needs no other.
func (a *API) wait(ctx context.Context, p *poll) bool {
	select {
	case _, ok := <-p.woken:
		return ok // else the store was closed
	case <-p.ended:
		return false
	case <-a.stop:
		return false
	case <-ctx.Done():
		return false
	}
}

// sightings are the machines that were seen and not yet noted so. Thousands of
// machines that wait would else be a change of the database each.
type sightings struct {
	mu      sync.Mutex
	of      map[string]db.SeeMachineParams
	writing bool
}

const (
	sightEvery = 5 * time.Second
	sightBatch = 200
)

// seen notes that the machine is there, at most once a minute, a few seconds later.
func (a *API) seen(r *request) {
	now := clock.Micros(a.c.Clock.Now())
	if now-r.m.LastSeenAt < time.Minute.Microseconds() {
		return
	}
	s := &a.sightings
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = map[string]db.SeeMachineParams{}
	}
	s.of[r.m.ID] = db.SeeMachineParams{ID: r.m.ID, At: now, Address: r.addr.String()}
	if !s.writing {
		s.writing = true
		a.work.Go(a.writeSightings)
	}
}

// writeSightings waits a moment and writes what has come together.
func (a *API) writeSightings() {
	pause, done := context.WithTimeout(context.Background(), sightEvery)
	defer done()
	select {
	case <-pause.Done():
	case <-a.stop:
	}
	s := &a.sightings
	s.mu.Lock()
	of := s.of
	s.of, s.writing = nil, false
	s.mu.Unlock()
	var list []db.SeeMachineParams
	for _, p := range of {
		list = append(list, p)
	}
	for len(list) > 0 {
		part := list[:min(len(list), sightBatch)]
		list = list[len(part):]
		ctx, cancel := context.WithTimeout(context.Background(), postTime)
		err := a.c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			for _, p := range part {
				if _, err := tx.SeeMachine(ctx, p); err != nil {
					return err
				}
			}
			return nil
		})
		cancel()
		if err != nil {
			a.c.Log.Warn("when machines were seen could not be noted", "machines", len(part), "error", err)
		}
	}
}
