package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/rest"
)

// idle measures many machines that only wait, and how long news takes to all of them.
func idle(ctx context.Context, o *options, r *report) error {
	var sizes []int
	for s := range strings.SplitSeq(o.machines, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 100_000 {
			return fmt.Errorf("-machines: %q is no number from 1 to 100000", s)
		}
		sizes = append(sizes, n)
	}
	files, err := manyFiles(uint64(slices.Max(sizes) + spareFiles))
	if err != nil {
		return err
	}
	for _, n := range sizes {
		wanted := n
		what := fmt.Sprintf("%d idle machines, sqlite", n)
		if most := int(files) - spareFiles; n > most {
			n = most
			what = fmt.Sprintf("%d idle machines, sqlite (asked for %d: this system allows a process %d open files)", n, wanted, files)
		}
		r.begin(what)
		if err := idleOf(ctx, o, r, n, wanted); err != nil {
			return fmt.Errorf("%d machines: %w", n, err)
		}
	}
	return nil
}

// spareFiles are those that are not machines' connections.
const spareFiles = 1000

func idleOf(ctx context.Context, o *options, r *report, n, wanted int) (err error) {
	window := 55 * time.Second // longer than a poll, so that everybody asks anew once
	if o.short {
		window = 5 * time.Second
	}
	w, err := newWorld(o, "sqlite")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	f, err := w.fill(ctx, stock{users: 400, machines: n, windows: true})
	if err != nil {
		return err
	}
	if err := w.serve(ctx); err != nil {
		return err
	}
	pid := w.server.cmd.Process.Pid
	rm := &room{world: w, people: f.people}
	for i := range 10 {
		m, err := w.join(ctx, i)
		if err != nil {
			return err
		}
		defer m.close()
		rm.machines = append(rm.machines, m)
	}
	if _, _, err := rm.open(ctx, 20, time.Second); err != nil {
		return err
	}
	before, err := used(pid, false)
	if err != nil {
		return err
	}
	begun := time.Now()
	c, err := w.startCrowd(f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if _, err := c.until(ctx, 10*time.Minute, func(s word) bool { return s.Ready == n }); err != nil {
		return err
	}
	took := time.Since(begun)
	in, err := used(pid, false)
	if err != nil {
		return err
	}
	r.add("all connect, say hello and get their policy, 64 at a time", took.Seconds(), "s",
		fmt.Sprintf("server %s processor ms each", short(ms(in.cpu-before.cpu)/float64(n))))

	// Idle.
	start, err := used(pid, false)
	if err != nil {
		return err
	}
	crowdStart, err := used(c.cmd.Process.Pid, false)
	if err != nil {
		return err
	}
	begun = time.Now()
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return ctx.Err()
	}
	end, err := used(pid, false)
	if err != nil {
		return err
	}
	crowdEnd, err := used(c.cmd.Process.Pid, false)
	if err != nil {
		return err
	}
	took = time.Since(begun)
	each := float64(n)
	r.add("server's memory", end.rss/1e6, "MB", "with nobody connected "+short(before.rss/1e6)+" MB")
	r.add("  per machine", (end.rss-before.rss)/each/1e3, "KB", "")
	if n < wanted {
		r.add(fmt.Sprintf("  calculated for %d", wanted), (before.rss+(end.rss-before.rss)/each*float64(wanted))/1e6, "MB", "")
	}
	r.add("server's processor time while all wait", 100*(end.cpu-start.cpu).Seconds()/took.Seconds(), "% core",
		fmt.Sprintf("machines' side %s %%", short(100*(crowdEnd.cpu-crowdStart.cpu).Seconds()/took.Seconds())))
	r.add("  per machine", 1e6*(end.cpu-start.cpu).Seconds()/took.Seconds()/each, "µs/s", "")

	// News for everybody, while people sign in.
	if err := news(ctx, r, rm, c, n, "a policy is changed: until the last machine has it", func() (int, error) {
		days := 5
		b, err := json.Marshal(map[string]int{"offline_days": days})
		if err != nil {
			return 0, err
		}
		return n, w.call(ctx, http.MethodPatch, "/policies/default", rest.PolicyChange{Settings: b}, nil)
	}); err != nil {
		return err
	}
	if err := news(ctx, r, rm, c, n, "one person is signed out everywhere: until the last machine has it", func() (int, error) {
		var done rest.Done
		err := w.call(ctx, http.MethodPost, "/windows/revoke", rest.Pairs{User: f.people[0].name}, &done)
		if err == nil && done.Count < n {
			err = fmt.Errorf("%d windows were ended", done.Count)
		}
		return n, err
	}); err != nil {
		return err
	}
	// One machine of all.
	if _, err := c.ask(true); err != nil {
		return err
	}
	begun = time.Now()
	if err := w.call(ctx, http.MethodPost, "/machines/mch_"+f.members[n/2].ID+"/revoke", rest.Why{Reason: "measured"}, nil); err != nil {
		return err
	}
	s, err := c.until(ctx, time.Minute, func(s word) bool { return len(s.Refused) == 1 })
	if err != nil {
		return err
	}
	r.add("one machine is revoked: until it has its refusal", ms(time.Unix(0, s.Refused[0]).Sub(begun)), "ms", "")
	if s.Failed > 0 {
		r.add("requests of machines that failed", float64(s.Failed), "", s.Why)
	}
	return nil
}

// news tells all machines something and measures until the last has it. People sign in meanwhile.
func news(ctx context.Context, r *report, rm *room, c *crowdProcess, n int, what string, tell func() (int, error)) error {
	if _, err := c.ask(true); err != nil {
		return err
	}
	type result struct {
		times []time.Duration
		err   error
	}
	people := make(chan result, 1)
	go func() {
		whole, _, err := rm.open(ctx, 20, 3*time.Second)
		people <- result{whole, err}
	}()
	time.Sleep(500 * time.Millisecond)
	before, err := used(rm.server.cmd.Process.Pid, false)
	if err != nil {
		return err
	}
	begun := time.Now()
	if _, err := tell(); err != nil {
		return err
	}
	answered := time.Since(begun)
	s, err := c.until(ctx, time.Minute, func(s word) bool { return len(s.Told) >= n })
	if err != nil {
		return err
	}
	after, err := used(rm.server.cmd.Process.Pid, false)
	if err != nil {
		return err
	}
	times := make([]time.Duration, len(s.Told))
	for i, t := range s.Told {
		times[i] = time.Unix(0, t).Sub(begun)
	}
	r.add(what, quantile(times, 1).Seconds(), "s", fmt.Sprintf("half of them %s s, command answered %s s, server %s processor ms each",
		short(quantile(times, .5).Seconds()), short(answered.Seconds()), short(ms(after.cpu-before.cpu)/float64(n))))
	p := <-people
	if p.err != nil {
		return fmt.Errorf("people who sign in meanwhile: %w", p.err)
	}
	r.add("  sign-ins meanwhile, the longest", ms(quantile(p.times, 1)), "ms", "median "+short(ms(quantile(p.times, .5)))+" ms; an agent waits 2 s")
	return nil
}
