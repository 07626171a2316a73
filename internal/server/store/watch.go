package store

import (
	"slices"
	"sync"
)

// everyone stands for all keys in a list of those to wake.
const everyone = "*"

// hub wakes those who wait in this process. A wake-up only says "look": the row in
// the table is the truth, and whoever waits also looks by himself now and then.
type hub struct {
	mu     sync.Mutex
	keys   map[string][]chan struct{} // mostly one each
	events map[chan struct{}]struct{}
	closed bool
}

// Watch gives a channel that receives after a change that concerns the key, such as the
// id of a machine, was committed on any replica. Register first, then read the rows, then wait: so
// nothing is missed. Several wake-ups may come as one. cancel must be called. The
// channel is closed with the store.
func (s *Store) Watch(key string) (woken <-chan struct{}, cancel func()) {
	h := &s.hub
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(ch)
		return ch, func() {}
	}
	if h.keys == nil {
		h.keys = map[string][]chan struct{}{}
	}
	h.keys[key] = append(h.keys[key], ch)
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		list := h.keys[key]
		i := slices.Index(list, ch)
		switch {
		case i < 0: // the store was closed
		case len(list) == 1:
			delete(h.keys, key)
		default:
			h.keys[key] = slices.Delete(list, i, i+1)
		}
	}
}

// Watchers counts who watches the key at this replica, for tests that must not be quicker
// than whom they wake.
func (s *Store) Watchers(key string) int {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return len(s.hub.keys[key])
}

// WatchEvents gives a channel that receives after events were added on any replica,
// for EventsAfter. What other replicas add may be told up to a second late.
func (s *Store) WatchEvents() (woken <-chan struct{}, cancel func()) {
	h := &s.hub
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(ch)
		return ch, func() {}
	}
	if h.events == nil {
		h.events = map[chan struct{}]struct{}{}
	}
	h.events[ch] = struct{}{}
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.events, ch)
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it has not looked since the last one
	}
}

func (h *hub) wake(keys []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	for _, key := range keys {
		if key == everyone {
			for _, chans := range h.keys {
				for _, ch := range chans {
					poke(ch)
				}
			}
			return
		}
		for _, ch := range h.keys[key] {
			poke(ch)
		}
	}
}

func (h *hub) noteEvents() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	for ch := range h.events {
		poke(ch)
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, chans := range h.keys {
		for _, ch := range chans {
			close(ch)
		}
	}
	for ch := range h.events {
		close(ch)
	}
	h.keys, h.events = nil, nil
}
