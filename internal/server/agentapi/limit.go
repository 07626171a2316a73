package agentapi

import (
	"context"
	"sync"

	"latchkey/internal/fault"
)

// queues let one at a time of each key go on, and a few of it wait.
type queues struct {
	mu sync.Mutex
	of map[string]*queue
}

type queue struct {
	turn chan struct{}
	n    int
}

// maxQueue is how many of one key go on or wait.
const maxQueue = 4

// enter waits for the turn; leave ends it.
func (q *queues) enter(ctx context.Context, key string) (leave func(), err error) {
	q.mu.Lock()
	if q.of == nil {
		q.of = map[string]*queue{}
	}
	one := q.of[key]
	if one == nil {
		one = &queue{turn: make(chan struct{}, 1)}
		q.of[key] = one
	}
	if one.n >= maxQueue {
		q.mu.Unlock()
		return nil, fault.New(fault.TooMany, nil)
	}
	one.n++
	q.mu.Unlock()
	out := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if one.n--; one.n == 0 {
			delete(q.of, key)
		}
	}
	select {
	case one.turn <- struct{}{}:
		return func() { <-one.turn; out() }, nil
	case <-ctx.Done():
		out()
		return nil, fault.New(fault.TooMany, ctx.Err())
	}
}
