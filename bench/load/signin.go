package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// signins measures verifications per second, beside a peer in the same run.
func signins(ctx context.Context, o *options, r *report) error {
	for engine := range strings.SplitSeq(o.engines, ",") {
		r.begin("sign-ins, " + engine)
		err := signinsOn(ctx, o, r, engine)
		if errors.Is(err, errNoPostgres) {
			r.add("left out", 0, "", err.Error())
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", engine, err)
		}
	}
	return peer(ctx, o, r)
}

// room is a world with people and machines that are ready to sign in.
type room struct {
	*world
	people   []*person
	machines []*machine
	turn     atomic.Int64
	// ask verifies one code; nil is a whole sign-in of Latchkey.
	ask func(ctx context.Context, m *machine, p *person, code string) (judged time.Duration, err error)
}

func signinsOn(ctx context.Context, o *options, r *report, engine string) (err error) {
	users, machines, span := 9000, 400, 8*time.Second
	if o.short {
		users, machines, span = 1500, 150, time.Second
	}
	w, err := newWorld(o, engine)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	f, err := w.fill(ctx, stock{users: users})
	if err != nil {
		return err
	}
	if err := w.serve(ctx); err != nil {
		return err
	}
	rm := &room{world: w, people: f.people}

	// Joining, for the calculation of a morning on which thousands join.
	before, err := w.clocks()
	if err != nil {
		return err
	}
	begun := time.Now()
	rm.machines = make([]*machine, machines)
	if err := workers(ctx, 16, machines, func(ctx context.Context, i int) (err error) {
		rm.machines[i], err = w.join(ctx, i)
		return err
	}); err != nil {
		return err
	}
	after, err := w.clocks()
	if err != nil {
		return err
	}
	took := time.Since(begun)
	r.add("joins, each with a token of its own", float64(machines)/took.Seconds(), "1/s", after.minus(before).share(machines))

	// The machines' first connection is made by the first request.
	if err := workers(ctx, 16, machines, func(ctx context.Context, i int) error {
		_, err := rm.machines[i].call(ctx, "GET", "/agent/v1/probe", nil, nil)
		return err
	}); err != nil {
		return err
	}
	defer func() {
		for _, m := range rm.machines {
			m.close()
		}
	}()
	total := 0
	// Warm: statements are prepared, connections open.
	n, _, err := rm.closed(ctx, 4, span/8)
	if err != nil {
		return err
	}
	total += n
	for _, callers := range []int{1, 16, 128} {
		before, err := w.clocks()
		if err != nil {
			return err
		}
		length := span
		if callers < 128 {
			length = span / 2
		}
		begun := time.Now()
		n, times, err := rm.closed(ctx, callers, length)
		if err != nil {
			return err
		}
		took := time.Since(begun)
		after, err := w.clocks()
		if err != nil {
			return err
		}
		total += n
		d := after.minus(before)
		r.add(fmt.Sprintf("verifications, %d at a time", callers), float64(n)/took.Seconds(), "1/s", d.share(n))
		r.add(fmt.Sprintf("  per second of the server's processor time, %d at a time", callers), float64(n)/(d.server+d.database).Seconds(), "1/s", "")
		r.add(fmt.Sprintf("  whole sign-in, median and 99 %%, %d at a time", callers), ms(quantile(times, .5)), "ms", "99 %: "+short(ms(quantile(times, .99)))+" ms")
	}
	rate, length := 200, 2*span
	if o.short {
		rate, length = 50, span
	}
	before, err = w.clocks()
	if err != nil {
		return err
	}
	whole, judged, err := rm.open(ctx, rate, length)
	if err != nil {
		return err
	}
	after, err = w.clocks()
	if err != nil {
		return err
	}
	total += len(whole)
	r.add(fmt.Sprintf("at %d/s, arriving on their own: whole sign-in, median", rate), ms(quantile(whole, .5)), "ms", after.minus(before).share(len(whole)))
	r.add("  99 %", ms(quantile(whole, .99)), "ms", "longest "+short(ms(quantile(whole, 1)))+" ms")
	r.add("  the verification alone (code to answer), 99 %", ms(quantile(judged, .99)), "ms", "median "+short(ms(quantile(judged, .5)))+" ms")
	return rm.check(ctx, total)
}

// check compares the number of allowed sign-ins with the events about them.
func (rm *room) check(ctx context.Context, total int) error {
	var last float64
	for range 100 {
		n, err := rm.events(ctx, "signin.allowed", "allow")
		if err != nil {
			return err
		}
		if last = n; n >= float64(total) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if last != float64(total) {
		return fmt.Errorf("%d sign-ins were allowed, and there are %v events about them", total, last)
	}
	return nil
}

// clocks are processor times of the processes that share the machine.
type clocks struct {
	server, database, generator time.Duration
	at                          time.Time
}

func (w *world) clocks() (c clocks, err error) {
	s, err := used(w.server.cmd.Process.Pid, false)
	if err != nil {
		return c, err
	}
	c.server, c.generator, c.at = s.cpu, own(), time.Now()
	if w.postgres != nil {
		p, err := used(w.postgres.cmd.Process.Pid, true)
		if err != nil {
			return c, err
		}
		c.database = p.cpu
	}
	return c, nil
}

func (c clocks) minus(b clocks) clocks {
	return clocks{server: c.server - b.server, database: c.database - b.database, generator: c.generator - b.generator, at: time.Time{}.Add(c.at.Sub(b.at))}
}

// share says how much processor time each process took for one of n.
func (c clocks) share(n int) string {
	per := func(d time.Duration) string { return short(d.Seconds() * 1000 / float64(max(n, 1))) }
	s := "processor ms each: server " + per(c.server)
	if c.database > 0 {
		s += ", database " + per(c.database)
	}
	return s + ", generator " + per(c.generator)
}

// one signs somebody in from some machine.
func (rm *room) one(ctx context.Context) (whole, judged time.Duration, err error) {
	for range len(rm.people) {
		i := rm.turn.Add(1)
		p := rm.people[int(i)%len(rm.people)]
		code, ok := p.code(time.Now())
		if !ok {
			continue
		}
		m, begun := rm.machines[int(i)%len(rm.people)%len(rm.machines)], time.Now() // everybody has one
		if rm.ask != nil {
			judged, err = rm.ask(ctx, m, p, code)
		} else {
			judged, _, err = m.signin(ctx, p, code)
		}
		return time.Since(begun), judged, err
	}
	return 0, 0, errors.New("nobody has a fresh code left: more users are needed")
}

// closed keeps the number of callers busy.
func (rm *room) closed(ctx context.Context, callers int, length time.Duration) (n int, times []time.Duration, err error) {
	until := time.Now().Add(length)
	each := make([][]time.Duration, callers)
	err = workers(ctx, callers, callers, func(ctx context.Context, i int) error {
		for time.Now().Before(until) {
			whole, _, err := rm.one(ctx)
			if err != nil {
				return err
			}
			each[i] = append(each[i], whole)
		}
		return nil
	})
	for _, e := range each {
		times = append(times, e...)
	}
	return len(times), times, err
}

// open lets sign-ins arrive at a rate, however long the ones before take. A time counts from when it was due.
func (rm *room) open(ctx context.Context, rate int, length time.Duration) (whole, judged []time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var all sync.WaitGroup
	begun := time.Now()
	for i := range int(length.Seconds() * float64(rate)) {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			all.Wait()
			return nil, nil, context.Cause(ctx)
		}
		all.Go(func() {
			_, j, err := rm.one(ctx)
			took := time.Since(due)
			if err != nil {
				cancel(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			whole, judged = append(whole, took), append(judged, j)
		})
	}
	all.Wait()
	return whole, judged, context.Cause(ctx)
}

// workers does n things, so many at a time, until one fails.
func workers(ctx context.Context, width, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(width, n) {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}
