package conversation

import (
	"context"
	"strings"
	"time"

	"latchkey/internal/secret"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// liveTime is how long an answer from elsewhere is waited for before the person is
// asked whether to wait on, and pause the least time between two looks.
const (
	liveTime = 20 * time.Second
	pause    = 250 * time.Millisecond
)

// waiting waits for an answer that comes another way (S2, M7). Where the program
// shows text as it comes, the words are told and the sign-in goes on by itself. Where
// it shows text only with a prompt behind it (sshd), and after a while everywhere, the
// words stand in a prompt: Enter waits on, and something else may be chosen there.
type waiting struct {
	words string // with what is to be typed on the phone; kept from prompt to prompt
	back  bool   // to a menu
	seq   int
	asked bool // the words have been shown, in one way or the other
}

func (s waiting) next(ctx context.Context, t *talk) stage {
	t.limit = max(t.limit, Limit+ScanTime)
	if t.r.Live && !s.asked {
		t.say(Needed, s.words)
		s.asked = true
		return s.hang(ctx, t)
	}
	p := wire.Prompt{Kind: wire.PromptWait, For: wire.ForPush, Text: s.words}
	if s.back {
		p.Text += " " + text.WaitBack
	}
	if s.asked {
		p.Text = text.StillWaiting + " " + p.Text
	}
	a, over := t.ask(ctx, p)
	if over != nil {
		t.cancel(s.seq + 1)
		return online(over)
	}
	s.asked = true
	if isJunk(a) || strings.TrimSpace(string(a.Reveal())) != "" {
		return relayed(ctx, t, s.seq, a)
	}
	a.Wipe()
	return s.hang(ctx, t)
}

// hang waits for the server to have something, and looks.
func (s waiting) hang(ctx context.Context, t *talk) stage {
	watched, unwatch := t.person.Watch(ctx)
	defer unwatch()
	until := t.cfg.Clock.Now().Add(liveTime)
	for {
		begun := t.cfg.Clock.Now()
		wctx, cancel := context.WithTimeout(watched, max(0, min(until.Sub(begun), t.left())))
		err := t.cfg.Server.Wait(wctx, t.id)
		cancel()
		switch {
		case watched.Err() != nil && ctx.Err() == nil:
			t.cancel(s.seq + 1)
			return online(deny("given-up", text.DeniedGivenUp))
		case ctx.Err() != nil || t.left() <= 0:
			t.cancel(s.seq + 1)
			return online(deny("too-long", text.DeniedTooLong))
		case err != nil:
			// Whether the server is gone the next step finds out.
			_ = t.cfg.Clock.Sleep(watched, pause)
		}
		t.heard = t.cfg.Clock.Now()
		reply, err := t.step(ctx, s.seq+1, wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.Bytes{})}})
		if err != nil {
			return online(t.failed(ctx, err))
		}
		s.seq++
		if p := reply.Prompt; p == nil || reply.Done != nil || p.Kind != wire.PromptWait || p.Text != "" || len(reply.Messages) > 0 || s.seq >= steps {
			return relay{reply: reply, seq: s.seq}
		}
		now := t.cfg.Clock.Now()
		if !now.Before(until) {
			return s
		}
		if now.Sub(begun) < pause { // a server that does not hang
			_ = t.cfg.Clock.Sleep(watched, pause)
		}
	}
}

// relayed carries an answer to the server and shows what comes back.
func relayed(ctx context.Context, t *talk, seq int, a secret.Bytes) stage {
	// sshd's fake password is no answer to anything.
	if isJunk(a) {
		a.Wipe()
		t.cancel(seq + 1)
		return fakePassword()
	}
	reply, err := t.step(ctx, seq+1, wire.Step{Answer: &wire.Answer{Text: wire.Hide(a)}})
	a.Wipe()
	if err != nil {
		return online(t.failed(ctx, err))
	}
	return relay{reply: reply, seq: seq + 1}
}
