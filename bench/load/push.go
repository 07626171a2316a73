package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// pushes measures from a phone's answer to the sign-in that waits for it, while thousands wait.
func pushes(ctx context.Context, o *options, r *report) error {
	files, err := manyFiles(uint64(o.waiting + spareFiles))
	if err != nil {
		return err
	}
	if most := int(files) - spareFiles; o.waiting > most {
		return fmt.Errorf("%d machines need %d open files in each process, and this system allows %d", o.waiting, o.waiting+spareFiles, files)
	}
	for engine := range strings.SplitSeq(o.engines, ",") {
		r.begin(fmt.Sprintf("%d machines wait for a phone, %s", o.waiting, engine))
		err := pushesOn(ctx, o, r, engine)
		if errors.Is(err, errNoPostgres) {
			r.add("left out", 0, "", err.Error())
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", engine, err)
		}
	}
	return bell(ctx, o, r)
}

func pushesOn(ctx context.Context, o *options, r *report, engine string) (err error) {
	w, err := newWorld(o, engine)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	f, err := w.fill(ctx, stock{users: o.waiting, machines: o.waiting, phones: true})
	if err != nil {
		return err
	}
	if err := w.serve(ctx); err != nil {
		return err
	}
	key, err := x509.MarshalECPrivateKey(f.key)
	if err != nil {
		return err
	}
	st := sitting{gathering: gathering{Addr: w.machines, CA: f.ca, Key: key, Members: f.members}}
	for _, p := range f.people {
		st.Users = append(st.Users, p.name)
	}
	wait := waited{sitting: st, dir: w.dir, pid: w.server.cmd.Process.Pid}
	if w.postgres != nil {
		wait.database = w.postgres.cmd.Process.Pid
	}
	base := "https://" + w.people
	wait.answer = func(ctx context.Context, c *http.Client, i int, number string) (time.Time, error) {
		return f.people[i].phone.approve(ctx, c, base, number)
	}
	in, whole, err := wait.measure(ctx, o, r)
	if err != nil || !whole {
		return err
	}
	return (&room{world: w}).check(ctx, in)
}

// answered is one answer of a phone.
type answered struct {
	phone time.Duration // until the phone has its own answer
	heard time.Duration // until the machine's wait is answered
	in    time.Duration // until the machine is told that somebody is let in
}

// phoneCall plays the phone of a seat: it tells when its answer was sent.
type phoneCall func(ctx context.Context, c *http.Client, seat int, number string) (time.Time, error)

// waited is a server and those who wait there.
type waited struct {
	sitting
	dir      string
	pid      int
	database int // pid, if it is a process of its own
	answer   phoneCall
}

// busy is the processor time of the server and of its database.
func (w *waited) busy() (server usage, database time.Duration, err error) {
	if w.database != 0 {
		u, err := used(w.database, true)
		if err != nil {
			return server, 0, err
		}
		database = u.cpu
	}
	server, err = used(w.pid, false)
	return server, database, err
}

// measure lets everybody sit down and wait, has phones answer at a rate, and reports; in is how many were let in, and
// whole that no phone was left without a good answer.
func (w *waited) measure(ctx context.Context, o *options, r *report) (in int, whole bool, err error) {
	quiet, length := 10*time.Second, time.Minute
	if o.short {
		quiet, length = 2*time.Second, 5*time.Second
	}
	n := len(w.Members)
	none, err := used(w.pid, false)
	if err != nil {
		return 0, false, err
	}
	h, err := startHall(w.dir, w.sitting)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	begun := time.Now()
	if err := h.until(ctx, 5*time.Minute, func() bool { return h.ready == n }); err != nil {
		return 0, false, err
	}
	r.add("all are connected", time.Since(begun).Seconds(), "s", "64 at a time")
	connected, err := used(w.pid, false)
	if err != nil {
		return 0, false, err
	}
	begun = time.Now()
	if err := h.sit(); err != nil {
		return 0, false, err
	}
	// Of many some begin anew at any moment, because nobody has answered them within the minute.
	note := ""
	if err := h.until(ctx, 2*time.Minute, func() bool { return h.waiting >= n-n/50 }); errors.Is(err, errTooLong) {
		note = err.Error()
	} else if err != nil {
		return 0, false, err
	}
	r.add("all have asked for a phone and wait", time.Since(begun).Seconds(), "s", note)
	before, database, err := w.busy()
	if err != nil {
		return 0, false, err
	}
	h.reset()
	begun = time.Now()
	select {
	case <-time.After(quiet):
	case <-ctx.Done():
		return 0, false, ctx.Err()
	}
	idle, databaseIdle, err := w.busy()
	if err != nil {
		return 0, false, err
	}
	took := time.Since(begun)
	share := func(d time.Duration) string { return short(100*d.Seconds()/took.Seconds()) + " %" }
	beside := func(d time.Duration) string {
		if w.database == 0 {
			return ""
		}
		return "database " + share(d) + "; "
	}
	r.add("server's memory while all wait", idle.rss/1e6, "MB", fmt.Sprintf("connected and in their poll %s MB, with nobody connected %s MB", short(connected.rss/1e6), short(none.rss/1e6)))
	r.add("  per machine", (idle.rss-none.rss)/float64(n)/1e3, "KB", "")
	r.add("server's processor time while all wait", 100*(idle.cpu-before.cpu).Seconds()/took.Seconds(), "% core",
		strings.TrimSuffix(beside(databaseIdle-database)+h.said(), "; "))

	mine := own()
	sitters, err := used(h.cmd.Process.Pid, false)
	if err != nil {
		return 0, false, err
	}
	h.reset()
	begun = time.Now()
	all, failed, fewest, err := h.answers(ctx, o.rate, length, w.answer)
	if err != nil {
		return 0, false, err
	}
	took = time.Since(begun)
	after, databaseAfter, err := w.busy()
	if err != nil {
		return 0, false, err
	}
	sittersAfter, err := used(h.cmd.Process.Pid, false)
	if err != nil {
		return 0, false, err
	}
	for why, n := range failed {
		r.add("phones without a good answer", float64(n), "", why)
	}
	of := func(what func(answered) time.Duration) []time.Duration {
		out := make([]time.Duration, len(all))
		for i, a := range all {
			out[i] = what(a)
		}
		return out
	}
	three := func(name string, times []time.Duration, note string) {
		r.add(name+", median", ms(quantile(times, .5)), "ms", note)
		r.add("  99 %", ms(quantile(times, .99)), "ms", "longest "+short(ms(quantile(times, 1)))+" ms")
	}
	three("from the phone's answer sent to the machine's wait answered", of(func(a answered) time.Duration { return a.heard }),
		fmt.Sprintf("%d phones answered, %d a second; at least %d waited all the time", len(all), o.rate, fewest))
	if !w.Bell {
		three("from the phone's answer sent to \"allowed\" at the machine", of(func(a answered) time.Duration { return a.in }), "")
	}
	three("the phone's own answer", of(func(a answered) time.Duration { return a.phone }), h.said())
	r.add("server's processor time meanwhile", 100*(after.cpu-idle.cpu).Seconds()/took.Seconds(), "% core",
		beside(databaseAfter-databaseIdle)+"machines' side "+share(sittersAfter.cpu-sitters.cpu)+", phones "+share(own()-mine))
	return len(all), len(failed) == 0, nil
}

// reset forgets what was counted.
func (h *hall) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks, h.outs, h.fails = nil, map[string]int{}, map[string]int{}
}

// said is what happened beside the answers.
func (h *hall) said() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	if len(h.looks) > 0 {
		out = append(out, fmt.Sprintf("%d looks in vain, median %s ms, 99 %% %s ms", len(h.looks), short(ms(quantile(h.looks, .5))), short(ms(quantile(h.looks, .99)))))
	}
	for why, n := range h.outs {
		out = append(out, fmt.Sprintf("%d ended: %s", n, why))
	}
	for why, n := range h.fails {
		out = append(out, fmt.Sprintf("%d failed: %s", n, why))
	}
	return strings.Join(out, "; ")
}

// answers has phones answer at a rate, however long the ones before take. failed are those without a good answer, by why;
// fewest is how many waited at the least.
func (h *hall) answers(ctx context.Context, rate int, length time.Duration, answer phoneCall) (out []answered, failed map[string]int, fewest int, err error) {
	order := rand.Perm(len(h.seats))
	var next atomic.Int64
	var mu sync.Mutex
	var work sync.WaitGroup
	failed, fewest = map[string]int{}, len(h.seats)
	begun := time.Now()
	for k := range int(length.Seconds() * float64(rate)) {
		select {
		case <-time.After(time.Until(begun.Add(time.Duration(k) * time.Second / time.Duration(rate)))):
		case <-ctx.Done():
			work.Wait() // they still write down what became of them
			return nil, nil, 0, ctx.Err()
		}
		h.mu.Lock()
		fewest = min(fewest, h.waiting)
		h.mu.Unlock()
		work.Go(func() {
			err := errors.New("nobody is there who waits")
			var a answered
			if i, number, told, ok := h.choose(&next, order); ok {
				a, err = one(ctx, i, number, told, answer)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed[err.Error()]++
				return
			}
			out = append(out, a)
		})
	}
	work.Wait()
	if len(out) == 0 {
		return nil, nil, 0, fmt.Errorf("nobody was let in: %v", failed)
	}
	return out, failed, fewest, ctx.Err()
}

// one is one answer, over a connection of its own, as a phone has it.
func one(ctx context.Context, i int, number string, told chan tale, answer phoneCall) (out answered, err error) {
	t := &http.Transport{
		DialContext: (&net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: source(i)}}).DialContext, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // its own server, on loopback
	}
	defer t.CloseIdleConnections()
	sent, err := answer(ctx, &http.Client{Transport: t, Timeout: time.Minute}, i, number)
	if err != nil {
		return out, err
	}
	out.phone = time.Since(sent)
	select {
	case s := <-told:
		if s.Kind != taleIn {
			return out, fmt.Errorf("a phone has approved, and the sign-in came to: %s %s", s.Kind, s.Why)
		}
		out.heard, out.in = time.Unix(0, s.Heard).Sub(sent), time.Unix(0, s.At).Sub(sent)
		return out, nil
	case <-time.After(time.Minute):
		return out, errors.New("a phone has approved, and the machine has not heard of it within a minute")
	case <-ctx.Done():
		return out, context.Cause(ctx)
	}
}
