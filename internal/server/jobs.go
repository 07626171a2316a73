package server

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/checkpoint"
	"latchkey/internal/server/store"
)

// job is something that nobody asks for. Every replica does every job: each is
// written so that doing it twice does no harm.
type job struct {
	name  string
	every time.Duration
	do    func(ctx context.Context) error
}

// How long ended things are kept in the tables; the events about them stay.
const (
	keepTokens      = 30 * 24 * time.Hour
	keepWindows     = 30 * 24 * time.Hour
	keepIdempotency = 24 * time.Hour
	keepReports     = 30 * 24 * time.Hour // of policies that only report

	keepCertificates = 30 * 24 * time.Hour // that have expired
	// keepRevocations is longer than a certificate can last: a clock that is ahead for a
	// while takes none out of the list that is good, and revoked, when it is right again.
	keepRevocations = 400 * 24 * time.Hour
)

func (r *running) jobs() []job {
	return []job{
		{"end overdue sign-ins", 10 * time.Second, func(ctx context.Context) error {
			_, err := r.sign.Expire(ctx)
			return err
		}},
		{"make room for garbage", roomEvery, func(context.Context) error {
			r.makeRoom()
			return nil
		}},
		{"record the head of the event chain", time.Hour, func(ctx context.Context) error {
			return checkpoint.Write(ctx, checkpoint.Config{Store: r.store, Keys: r.keys, Clock: r.Clock, Log: r.Log})
		}},
		{"count what the dashboard shows", time.Minute, r.desk.CountFigures},
		{"close the days of machines' journals", time.Hour, r.off.CloseDays},
		{"go on with imports", 10 * time.Second, r.bulk.Resume},
		{"clear away", time.Hour, r.clearAway},
		{"forget ended sessions", 10 * time.Minute, r.sessions.Clear},
		{"forget messages that were sent", time.Hour, r.post.Clear},
		{"forget what phones were asked", time.Hour, r.push.Sweep},
	}
}

func (r *running) clearAway(ctx context.Context) error {
	now := r.Clock.Now()
	before := func(d time.Duration) int64 { return clock.Micros(now.Add(-d)) }
	return r.store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.DeleteOldJoinTokens(ctx, before(keepTokens)); err != nil {
			return err
		}
		if _, err := tx.DeleteOldWindows(ctx, before(keepWindows)); err != nil {
			return err
		}
		if _, err := tx.DeleteOldPolicyReports(ctx, before(keepReports)); err != nil {
			return err
		}
		if _, err := tx.DeleteOldRevocations(ctx, before(keepRevocations)); err != nil {
			return err
		}
		if _, err := tx.DeleteOldUserCertificates(ctx, before(keepCertificates)); err != nil {
			return err
		}
		_, err := tx.DeleteOldIdempotency(ctx, before(keepIdempotency))
		return err
	})
}

// startJobs runs the jobs until life ends; wait waits for those under way.
func (r *running) startJobs(life context.Context) (wait func()) {
	var work sync.WaitGroup
	work.Go(func() { r.stats.follow(life, r) })
	work.Go(func() { r.followCertificate(life) })
	work.Go(func() { r.certs.cut.Run(life) })
	work.Go(func() { r.post.Run(life) })
	work.Go(func() { r.push.Run(life) })
	for _, j := range r.jobs() {
		work.Go(func() {
			for r.Clock.Sleep(life, j.every) == nil {
				if err := r.once(life, j); err != nil && life.Err() == nil {
					r.Log.Error("a job failed and will be tried again", "job", j.name, "error", err)
				}
			}
		})
	}
	return work.Wait
}

// once does a job; a panic costs this one try.
func (r *running) once(ctx context.Context, j job) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return j.do(ctx)
}
