package desk

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"latchkey/internal/buildinfo"
	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
)

// What a dashboard costs must not depend on how many events there are: what is counted
// over many rows is counted by a job (CountFigures) and kept; a request reads it, and the
// few numbers that an index gives at once.
const (
	// figuresLast is how old figures may be before a request counts by itself, which it
	// does only on a server whose job has not come yet.
	figuresLast = 3 * time.Minute
	// lateHours are counted every time; what lies before is counted again each hour,
	// because machines deliver what happened without the server.
	lateHours = 3
	// stuckEvery is how often who would be stuck is counted, and stuckTime how long.
	stuckEvery = 10 * time.Minute
	stuckTime  = 5 * time.Second
	// verifyMost is how many events are verified at a time.
	verifyMost = 50_000
	// SilentFor is from when on a machine counts as offline.
	SilentFor = time.Hour
	weekHours = 7 * 24
)

// counted are the types of events on the dashboard.
var counted = []event.Type{
	event.SigninAllowed, event.SigninDenied, event.SigninIgnored, event.FactorAccepted, event.FactorRejected, event.BreakGlass,
}

// figures are what was counted. The zero value is empty.
type figures struct {
	job sync.Mutex // one counts at a time

	mu       sync.Mutex
	at       time.Time
	hours    map[int64]rest.Activity // by hours since 1970
	whole    time.Time               // when all hours were counted
	machines store.MachineFigures
	stuck    rest.StuckCount
	tails    map[string]store.Tail
	done     bool
	verified time.Time
}

// CountFigures counts what the dashboard shows. A job does it once a minute.
func (d *Desk) CountFigures(ctx context.Context) error {
	d.figures.job.Lock()
	defer d.figures.job.Unlock()
	// Whatever can not be counted: the chain of events is verified.
	return errors.Join(d.countEvents(ctx), d.countStuck(ctx), d.verifyOn(ctx))
}

func (d *Desk) countEvents(ctx context.Context) error {
	now := d.Clock.Now()
	hour := clock.Micros(now) / store.HourMicros
	f := &d.figures
	f.mu.Lock()
	from := hour - lateHours + 1
	all := now.Sub(f.whole) >= time.Hour || f.hours == nil
	f.mu.Unlock()
	if all {
		from = hour - weekHours
	}
	words := make([]string, len(counted))
	for i, t := range counted {
		words[i] = string(t)
	}
	rows, err := d.Store.CountEventHours(ctx, words, from*store.HourMicros, (hour+1)*store.HourMicros)
	if err != nil {
		return err
	}
	machines, err := d.Store.CountMachines(ctx, clock.Micros(now.Add(-SilentFor)))
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	fresh := map[int64]rest.Activity{}
	if !all {
		for h, a := range f.hours {
			if h >= hour-weekHours && h < from {
				fresh[h] = a
			}
		}
	}
	for _, r := range rows {
		a := fresh[r.Hour]
		switch event.Type(r.Type) {
		case event.SigninAllowed:
			a.Allowed += r.N
		case event.SigninDenied:
			a.Denied += r.N
		case event.SigninIgnored:
			a.Left += r.N
		case event.FactorAccepted:
			a.Prompts += r.N
		case event.FactorRejected:
			a.Prompts += r.N
			a.Wrong += r.N
		case event.BreakGlass:
			a.Glass += r.N
		}
		fresh[r.Hour] = a
	}
	f.hours, f.machines, f.at = fresh, machines, now
	if all {
		f.whole = now
	}
	return nil
}

// countStuck goes through the pages of ListStuck as far as its time reaches.
func (d *Desk) countStuck(ctx context.Context) error {
	now := d.Clock.Now()
	d.figures.mu.Lock()
	last := d.figures.stuck.At
	d.figures.mu.Unlock()
	if !last.IsZero() && now.Sub(last) < stuckEvery {
		return nil
	}
	out := rest.StuckCount{At: now.UTC()}
	by := map[string]*rest.StuckReason{}
	for after := ""; ; {
		page, err := d.ListStuck(ctx, Root(), "", "", after, rest.MaxPage)
		if err != nil {
			return err
		}
		for _, s := range page.Items {
			r := by[s.Reason]
			if r == nil {
				r = &rest.StuckReason{Reason: s.Reason, Why: event.Reasons[s.Reason]}
				if r.Why == "" {
					r.Why = s.Why
				}
				by[s.Reason] = r
			}
			r.Count++
			out.Count++
		}
		if after = page.Next; after == "" {
			break
		}
		if d.Clock.Now().Sub(now) > stuckTime {
			out.More = true
			break
		}
	}
	for _, r := range by {
		out.Reasons = append(out.Reasons, *r)
	}
	slices.SortFunc(out.Reasons, func(a, b rest.StuckReason) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Reason, b.Reason))
	})
	d.figures.mu.Lock()
	d.figures.stuck = out
	d.figures.mu.Unlock()
	return nil
}

func (d *Desk) verifyOn(ctx context.Context) error {
	d.figures.mu.Lock()
	from := d.figures.tails
	d.figures.mu.Unlock()
	tails, done, err := d.Store.VerifyOn(ctx, from, verifyMost)
	if err != nil {
		return err
	}
	for name, t := range tails {
		if t.Broken != 0 && from[name].Broken == 0 {
			d.Logger.ErrorContext(ctx, "the event log is not whole; run latchkey events verify", "chain", name, "event", t.Broken, "why", t.Why)
		}
	}
	d.figures.mu.Lock()
	defer d.figures.mu.Unlock()
	d.figures.tails, d.figures.done, d.figures.verified = tails, done, d.Clock.Now()
	return nil
}

// Dashboard says in numbers how things stand.
func (d *Desk) Dashboard(ctx context.Context, a Actor) (rest.Dashboard, error) {
	out := rest.Dashboard{Hours: []rest.Hour{}, Policies: []rest.WeakPolicy{}, Log: []rest.VerifiedChain{}, SilentFor: SilentFor.String()}
	if err := a.may(read); err != nil {
		return out, err
	}
	now := d.Clock.Now()
	f := &d.figures
	f.mu.Lock()
	stale := now.Sub(f.at) > figuresLast || now.Before(f.at)
	f.mu.Unlock()
	if stale {
		f.job.Lock()
		err := d.countEvents(ctx)
		f.job.Unlock()
		if err != nil {
			return out, err
		}
	}
	list, err := d.ListPolicies(ctx, a)
	if err != nil {
		return out, err
	}
	for _, p := range list.Items {
		if len(p.Warnings) > 0 {
			out.Policies = append(out.Policies, rest.WeakPolicy{ID: p.ID, Name: p.Name, Warnings: p.Warnings})
		}
	}
	if out.Pending, out.Reports, err = d.Store.CountWaiting(ctx); err != nil {
		return out, err
	}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		set, err := settings.Read(ctx, q)
		if err != nil {
			return err
		}
		out.MinAgent = set.MinAgent
		if out.Users, err = q.CountUsers(ctx); err != nil {
			return err
		}
		out.Locked, err = q.CountLocked(ctx, clock.Micros(now))
		return err
	})
	if err != nil {
		return out, err
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	out.At = f.at.UTC()
	this := clock.Micros(now) / store.HourMicros
	for h := this - weekHours + 1; h <= this; h++ {
		x := f.hours[h]
		out.Hours = append(out.Hours, rest.Hour{At: clock.FromMicros(h * store.HourMicros), Activity: x})
		out.Week.Add(x)
		if h > this-24 {
			out.Day.Add(x)
		}
	}
	out.Machines, out.Silent = f.machines.Active, f.machines.Silent
	for version, n := range f.machines.Agents {
		if buildinfo.Older(version, out.MinAgent) {
			out.Outdated += n
		}
	}
	out.Stuck = f.stuck
	if out.Stuck.Reasons == nil {
		out.Stuck.Reasons = []rest.StuckReason{}
	}
	for name, t := range f.tails {
		out.Log = append(out.Log, rest.VerifiedChain{Chain: name, Seq: t.Seq, At: f.verified.UTC(), Done: f.done, Broken: t.Broken, Why: t.Why})
	}
	slices.SortFunc(out.Log, func(a, b rest.VerifiedChain) int { return strings.Compare(a.Chain, b.Chain) })
	return out, nil
}
