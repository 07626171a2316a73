package agent

import (
	"context"
	"errors"
	"sync"

	"latchkey/internal/agent/conversation"
	"latchkey/internal/agent/key"
	"latchkey/internal/assertion"
	"latchkey/internal/secret"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// seat asks the security keys that are plugged into this machine (M2). One sign-in at a
// time has them: a key has one button, and it must be clear for whom it is touched.
type seat struct {
	keys      *key.Keys
	machineID string
	turn      chan struct{}
}

func newSeat(keys *key.Keys, machineID string) *seat {
	return &seat{keys: keys, machineID: machineID, turn: make(chan struct{}, 1)}
}

// Assert implements conversation.Key.
func (s *seat) Assert(ctx context.Context, q conversation.KeyQuestion, p conversation.Person) (wire.KeyAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, q.Within)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	default:
		return wire.KeyAnswer{}, told(text.KeyBusy)
	}
	h := &holder{person: p, q: q, ctx: ctx}
	watched := h.watch()
	defer h.unwatch()
	hash := assertion.ClientHash
	if q.Offline {
		hash = assertion.OfflineHash
	}
	a, err := s.keys.Assert(watched, key.Ask{
		RPID: q.RPID, ClientHash: hash(q.Challenge, s.machineID, q.UserID), Credentials: q.Credentials, Verification: q.Verification,
	}, h)
	switch {
	case err == nil:
		return a, nil
	case h.gaveUp(), errors.Is(err, conversation.ErrGaveUp):
		return a, conversation.ErrGaveUp
	}
	for _, t := range keyTexts {
		if errors.Is(err, t.err) {
			return a, told(t.words)
		}
	}
	return a, told(text.KeyGone)
}

// Present implements conversation.Key.
func (s *seat) Present() bool {
	ports, err := s.keys.Find()
	for _, p := range ports {
		_ = p.Close()
	}
	return err == nil && len(ports) > 0
}

// told is an error whose text is for the person.
type told string

func (t told) Error() string { return string(t) }

var keyTexts = []struct {
	err   error
	words string
}{
	{key.ErrNotYours, text.KeyNotYours},
	{key.ErrOld, text.KeyOld},
	{key.ErrNoPIN, text.KeyNoPIN},
	{key.ErrPINWrong, text.KeyPINWrong},
	{key.ErrPINBlocked, text.KeyPINBlocked},
	{key.ErrPINPower, text.KeyPINPower},
	{key.ErrFingerUsedUp, text.KeyFinger},
	{key.ErrTouch, text.KeyUntouched},
	{key.ErrRefused, text.KeyRefused},
	{key.ErrNone, text.KeyNone},
	{context.DeadlineExceeded, text.KeyUntouched},
}

// holder is the person, as a key sees one. While nothing is asked a watch tells whether
// the person has given up; it rests while the PIN is typed.
type holder struct {
	person conversation.Person
	q      conversation.KeyQuestion
	ctx    context.Context

	mu   sync.Mutex
	ends context.CancelFunc // of what watched gave
	rest func()             // ends the present watch
	gone bool
}

// watch gives a context that ends when the person gives up.
func (h *holder) watch() context.Context {
	ctx, cancel := context.WithCancel(h.ctx)
	h.ends = cancel
	h.begin()
	return ctx
}

func (h *holder) begin() {
	watched, unwatch := h.person.Watch(h.ctx)
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-watched.Done():
			if h.ctx.Err() == nil {
				h.mu.Lock()
				h.gone = true
				h.mu.Unlock()
			}
			h.ends()
		case <-stop:
		}
	}()
	h.rest = func() { close(stop); <-done; unwatch() }
}

func (h *holder) unwatch() { h.rest(); h.ends() }

func (h *holder) gaveUp() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.gone
}

func (h *holder) say(words string) {
	h.rest()
	defer h.begin()
	_ = h.person.Tell(wire.Message{Kind: conversation.Needed, Text: words})
}

func (h *holder) Insert() { h.say(text.KeyInsert) }
func (h *holder) Touch()  { h.say(text.KeyTouch) }

func (h *holder) PIN(ctx context.Context, left int) (secret.Bytes, error) {
	h.rest()
	defer h.begin()
	return h.person.Prompt(ctx, wire.Prompt{Kind: wire.PromptSecret, For: wire.ForKeyPIN, Text: text.PromptKeyPIN(left)}, h.q.Within)
}
