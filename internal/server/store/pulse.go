package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/internal/clock"
)

// ErrUnavailable: the database can not be reached, does not answer, or takes no
// changes now. Nobody waits for it: what was asked may be asked again later.
var ErrUnavailable = errors.New("the database does not answer")

// IsUnavailable tells whether err means that the database, not what was asked of
// it, is in trouble. What was asked may still have happened: the word that a commit
// is on the disk can be lost too. A change that has lost against others too often is
// meant, too.
func IsUnavailable(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrClosed) || errors.Is(err, errRewound) || errors.Is(err, context.DeadlineExceeded) || classify(err) == lost || classify(err) == conflict
}

// pulse knows whether the database answers. An engine that can not tell never says
// that it is silent.
type pulse struct {
	mu    sync.Mutex
	cause error           // why it is silent; nil: it is not
	beat  context.Context // ends when it falls silent
	stop  context.CancelCauseFunc
	since atomic.Pointer[time.Time] // when the transaction under way began
}

// start makes the context of what is under way, within life.
func (p *pulse) start(life context.Context) {
	p.beat, p.stop = context.WithCancelCause(life)
}

// silent says that the database does not answer: whatever waits for it ends. It
// tells whether this is news.
func (p *pulse) silent(cause error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause != nil {
		return false
	}
	p.cause = fmt.Errorf("%w: %w", ErrUnavailable, cause)
	p.stop(p.cause)
	return true
}

// answers says that it is back; it tells whether this is news.
func (p *pulse) answers(life context.Context) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause == nil {
		return false
	}
	p.cause = nil
	p.start(life)
	return true
}

// within is the context of something that is to be done now, or the reason why it
// need not be tried.
func (p *pulse) within() (context.Context, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beat, p.cause
}

// stuck tells whether the transaction under way takes so long that later changes are
// better refused than queued behind it.
func (s *Store) stuck() bool {
	since := s.pulse.since.Load()
	return since != nil && clock.Deadline(0).Sub(*since) > s.engine.patience()*2/5
}

// errStuck is what they are told.
var errStuck = fmt.Errorf("%w: a transaction does not end", ErrUnavailable)

// silent notes that the database does not answer, ends what waits for it, and
// forgets the connections: after a fail-over none of them is of use.
func (s *Store) silent(cause error) {
	if !s.pulse.silent(cause) {
		return
	}
	s.log.Error("the database does not answer; machines sign in offline, as their policies say, until it does", "database", s.engine.describe(), "error", cause)
	s.engine.forget(s)
}

// answers notes that it answers again.
func (s *Store) answers() {
	if s.pulse.answers(s.life) {
		s.log.Warn("the database answers again", "database", s.engine.describe())
	}
}

// bound bounds ctx by the pulse.
func (s *Store) bound(ctx context.Context) (context.Context, context.CancelFunc, error) {
	beat, err := s.pulse.within()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	undo := context.AfterFunc(beat, func() { cancel(context.Cause(beat)) })
	return ctx, func() { undo(); cancel(nil) }, nil
}

// explain says ErrUnavailable of an error that comes from the silence, or of the
// disk.
func explain(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	if cause := context.Cause(ctx); errors.Is(cause, ErrUnavailable) || classify(err) == lost {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if diskFault(err) {
		return fmt.Errorf("%w: its disk is full, read-only or faulty: %w", ErrUnavailable, err)
	}
	return err
}
