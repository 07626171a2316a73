package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/failpoint"
	"latchkey/internal/server/store/db"
)

const (
	// queueLength bounds the changes that wait; whoever finds it full waits in Update.
	queueLength = 1024
	// batchLength bounds how many changes share a transaction.
	batchLength = 256
	// triesOfOne is how often a change that lost a conflict with another replica is
	// tried alone.
	triesOfOne = 5
)

// Tx is one change under way. It is only valid inside its closure. The first
// statement that fails spoils it, on both engines alike: later ones fail too, and
// nothing of it is kept, whatever the closure returns. A missing row is no failure.
type Tx struct {
	*db.Queries
	b      *batch
	spoilt error
	wakes  []string
}

// Update runs fn as a transaction: all of it is on the disk when Update returns nil,
// nothing of it is kept otherwise. fn runs on the caller's goroutine while the
// writer waits, so it must be quick and do no other I/O; its context carries the
// values but not the deadline of ctx. After a conflict with another replica fn is
// run again: it must not leave traces outside of the transaction before Update
// returned. A panic undoes this change alone. ctx counts until fn begins.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	return s.update(ctx, 0, fn)
}

// UpdateWithin is Update for the rare change that needs longer than others are granted:
// it has a transaction of its own, and as long as limit says (never less than others).
// Whoever wants to change something behind it waits for a while and is then told that
// the database is not available, so that machines sign in offline meanwhile.
func (s *Store) UpdateWithin(ctx context.Context, limit time.Duration, fn func(ctx context.Context, tx *Tx) error) error {
	return s.update(ctx, limit, fn)
}

func (s *Store) update(ctx context.Context, limit time.Duration, fn func(ctx context.Context, tx *Tx) error) error {
	if ctx.Value(inUpdate{}) != nil {
		return ErrNested
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if _, err := s.pulse.within(); err != nil {
		return err
	}
	if s.stuck() {
		return errStuck
	}
	j := newJob()
	j.limit = limit
	if err := s.enqueue(ctx, j); err != nil {
		return err
	}
	inner := context.WithValue(context.WithoutCancel(ctx), inUpdate{}, true)
	cancelled := ctx.Done()
	for {
		select {
		case tx := <-j.turn:
			j.play(inner, tx, fn)
		case err := <-j.done:
			return err
		case <-cancelled:
			if j.state.CompareAndSwap(jobWaits, jobGivenUp) {
				return ctx.Err()
			}
			cancelled = nil // it has begun: the outcome is what counts
		}
	}
}

type inUpdate struct{}

// job is one Update as the writer sees it. The writer hands over the turn, the
// caller plays and says how it went, and after the commit the writer says done.
type job struct {
	state  atomic.Int32
	limit  time.Duration // how long its transaction may take; 0: as all
	turn   chan *Tx
	played chan error
	done   chan error
}

func newJob() *job {
	return &job{turn: make(chan *Tx, 1), played: make(chan error, 1), done: make(chan error, 1)}
}

const (
	jobWaits int32 = iota
	jobBegun
	jobGivenUp
)

var errPanicked = errors.New("the change was interrupted by a panic")

func (j *job) play(ctx context.Context, tx *Tx, fn func(context.Context, *Tx) error) {
	err := errPanicked // stays when fn panics or ends the goroutine
	defer func() { j.played <- err }()
	err = fn(ctx, tx)
}

func (s *Store) enqueue(ctx context.Context, j *job) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	select {
	case s.jobs <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeLoop is the one writer of this replica.
func (s *Store) writeLoop() {
	defer s.stop()
	var jobs, long []*job
	add := func(j *job) {
		if j.limit > 0 {
			long = append(long, j)
		} else {
			jobs = append(jobs, j)
		}
	}
	for first := range s.jobs {
		jobs, long = jobs[:0], long[:0]
		add(first)
	gather:
		for len(jobs)+len(long) < batchLength {
			select {
			case j, ok := <-s.jobs:
				if !ok {
					break gather
				}
				add(j)
			default:
				break gather
			}
		}
		s.runJobs(jobs)
		for _, j := range long {
			s.runJobs([]*job{j})
		}
	}
}

// runJobs runs the jobs as one batch, and alone those that lost a conflict, or the
// connection before the commit.
func (s *Store) runJobs(jobs []*job) {
	begun := jobs[:0]
	for _, j := range jobs {
		if j.state.CompareAndSwap(jobWaits, jobBegun) {
			begun = append(begun, j)
		}
	}
	if len(begun) == 0 {
		return
	}
	b := s.runBatch(begun)
	gone := false // trying again was of no use
	for i, j := range begun {
		err, unsure := b.errs[i], b.unsure
		for try := 0; err != nil && try < triesOfOne; try++ {
			switch {
			case errors.Is(err, errRewound):
				// Once for the whole batch.
				if s.found.locked && s.noteRewind() != nil {
					try = triesOfOne
					continue
				}
			case classify(err) == lost && !unsure && !gone:
				gone = true
			case classify(err) != conflict:
				try = triesOfOne
				continue
			default:
				// At once it would take its rows again before whoever waits for them
				// has woken up, and lose once more.
				var b [1]byte // two that have met do not meet again in step
				_, _ = rand.Read(b[:])
				_ = pause(s.life, time.Duration(try+1)*(5*time.Millisecond+time.Duration(b[0])*80*time.Microsecond))
			}
			again := s.runBatch([]*job{j})
			if err, unsure = again.errs[0], again.unsure; err == nil {
				gone = false
			}
		}
		j.done <- err
	}
}

// batch is one database transaction with the changes of several callers.
type batch struct {
	s     *Store
	ctx   context.Context
	tx    *sql.Tx
	db    session // tx, with what is prepared
	errs  []error
	head  head
	wakes []string
	noted bool // events were added
	// committed: something was written.
	committed bool
	// unsure: the commit was asked for, and its answer is not known.
	unsure bool
}

// runBatch gives every job its turn and commits. errs holds the outcome of each.
func (s *Store) runBatch(jobs []*job) *batch {
	b := &batch{s: s, errs: make([]error, len(jobs))}
	beat, err := s.pulse.within()
	limit := s.engine.patience()
	if len(jobs) == 1 {
		limit = max(limit, jobs[0].limit)
	}
	ctx, cancel := context.WithTimeout(beat, limit)
	defer cancel()
	if err == nil {
		b.ctx = ctx
		begun := clock.Deadline(0)
		s.pulse.since.Store(&begun)
		err = b.run(jobs)
		s.pulse.since.Store(nil)
	}
	s.onWrite.prepare(ctx)
	if err != nil || b.committed {
		s.wrote.note(err)
	}
	for i, e := range b.errs {
		if diskFault(e) { // of a statement, which SQLite then undoes with all others
			s.wrote.note(e)
			b.errs[i] = explain(ctx, e)
		}
	}
	if err != nil {
		// Nothing was kept: everybody is told, but for those who know better.
		for i := range b.errs {
			if b.errs[i] == nil {
				b.errs[i] = err
			}
			b.errs[i] = explain(ctx, b.errs[i])
		}
		return b
	}
	s.hub.wake(b.wakes)
	if b.noted {
		s.hub.noteEvents()
		s.engine.noteEvents()
	}
	return b
}

func (b *batch) run(jobs []*job) (err error) {
	if b.tx, err = b.s.write.BeginTx(b.ctx, nil); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	b.db = session{b.tx, b.s.onWrite}
	defer b.tx.Rollback() //nolint:errcheck // does nothing after a commit
	failpoint.Hit("store.begun")
	kept := 0
	for i, j := range jobs {
		before := b.head
		tx := &Tx{b: b}
		tx.Queries = db.New(statements{tx})
		alone := len(jobs) == 1
		if !alone {
			if _, err := b.db.ExecContext(b.ctx, "SAVEPOINT change"); err != nil {
				return fmt.Errorf("begin a change: %w", err)
			}
		}
		j.turn <- tx
		var outcome error
		select {
		case outcome = <-j.played:
		case <-b.ctx.Done():
			// It may still be running: its statements fail from now on, and its
			// word, which nobody waits for, goes into the channel's one place.
			b.errs[i] = fmt.Errorf("the change took too long: %w", b.ctx.Err())
			return b.errs[i]
		}
		if tx.spoilt != nil && (outcome == nil || classify(tx.spoilt) == conflict || classify(tx.spoilt) == lost || errors.Is(tx.spoilt, errRewound)) {
			outcome = tx.spoilt
		}
		b.errs[i] = outcome
		if outcome == nil {
			kept++
			b.wakes = append(b.wakes, tx.wakes...)
		} else {
			b.head = before
		}
		if alone {
			continue
		}
		if outcome != nil {
			if _, err := b.db.ExecContext(b.ctx, "ROLLBACK TO SAVEPOINT change"); err != nil {
				return fmt.Errorf("undo a change: %w", err)
			}
		}
		if _, err := b.db.ExecContext(b.ctx, "RELEASE SAVEPOINT change"); err != nil {
			return fmt.Errorf("end a change: %w", err)
		}
	}
	if kept == 0 {
		return nil
	}
	if err := b.moveHead(); err != nil {
		return err
	}
	if len(b.wakes) > 0 {
		if err := b.s.engine.tellReplicas(b.ctx, b.tx, b.wakes); err != nil {
			return fmt.Errorf("tell the other servers: %w", err)
		}
	}
	failpoint.Hit("store.committing")
	if err := b.tx.Commit(); err != nil {
		b.unsure = true
		return fmt.Errorf("commit: %w", err)
	}
	if b.head.locked {
		b.s.last = b.head
	}
	b.committed = true
	failpoint.Hit("store.committed")
	return nil
}

// statements runs a change's statements under the batch's context, because a
// cancelled statement would take the whole batch with it, and remembers the first
// that failed.
type statements struct{ tx *Tx }

func (c statements) note(err error) error {
	if err != nil && !errors.Is(err, sql.ErrNoRows) && c.tx.spoilt == nil {
		c.tx.spoilt = err
	}
	return err
}

func (c statements) ExecContext(_ context.Context, q string, args ...any) (sql.Result, error) {
	if c.tx.spoilt != nil {
		return nil, c.tx.spoilt
	}
	r, err := c.tx.b.db.ExecContext(c.tx.b.ctx, q, args...)
	return r, c.note(err)
}

func (c statements) QueryContext(_ context.Context, q string, args ...any) (*sql.Rows, error) {
	if c.tx.spoilt != nil {
		return nil, c.tx.spoilt
	}
	r, err := c.tx.b.db.QueryContext(c.tx.b.ctx, q, args...)
	return r, c.note(err)
}

func (c statements) QueryRowContext(_ context.Context, q string, args ...any) *sql.Row {
	ctx := c.tx.b.ctx
	if c.tx.spoilt != nil {
		// There is no other way to make a Row that fails: the statement is not run.
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		cancel(c.tx.spoilt)
	}
	r := c.tx.b.db.QueryRowContext(ctx, q, args...)
	_ = c.note(r.Err())
	return r
}

func (c statements) PrepareContext(_ context.Context, q string) (*sql.Stmt, error) {
	return c.tx.b.db.PrepareContext(c.tx.b.ctx, q)
}

// Wake makes the long polls of these machines look again once the change is on the
// disk, on every replica. WakeAll stands for all.
func (tx *Tx) Wake(machineIDs ...string) { tx.wakes = append(tx.wakes, machineIDs...) }

// WakeAll wakes the long polls of all machines.
func (tx *Tx) WakeAll() { tx.wakes = append(tx.wakes, everyone) }
