package conversation

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"latchkey/internal/secret"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// Key is the security keys that are plugged into this machine (M2).
type Key interface {
	// Assert has one of them answer the challenge. It says what the person is to do, asks
	// for a PIN where one is wanted, and returns when the person gives up or the
	// context ends. The error's text is for people: what happened and what to do next.
	Assert(ctx context.Context, q KeyQuestion, p Person) (wire.KeyAnswer, error)
	// Present tells whether one is plugged in now, whosesoever it is.
	Present() bool
}

// KeyQuestion is a challenge and whose it is.
type KeyQuestion struct {
	wire.KeyChallenge
	User    string        // as typed
	Offline bool          // the challenge is the machine's own (assertion.OfflineHash)
	Within  time.Duration // what the conversation has left
}

// The bounds of a challenge.
const (
	maxCredentials = 64
	maxCredential  = 1023 // WebAuthn §4
	challengeSize  = 32
)

// readChallenge reads what the server asks of a key.
func readChallenge(b []byte) (c wire.KeyChallenge, err error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&c); err != nil {
		return c, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return c, errors.New("text behind the end")
	}
	switch {
	case c.RPID == "" || len(c.RPID) > 253:
		return c, errors.New("no relying party")
	case len(c.Challenge) != challengeSize:
		return c, errors.New("a challenge of another length")
	case len(c.Credentials) == 0 || len(c.Credentials) > maxCredentials:
		return c, errors.New("no credentials, or too many")
	}
	for _, id := range c.Credentials {
		if len(id) == 0 || len(id) > maxCredential {
			return c, errors.New("a credential of a length that none has")
		}
	}
	return c, nil
}

// touching has a security key answer. One that does not is told to the server as an
// empty answer, which leads back to the menu.
type touching struct {
	prompt wire.Prompt
	seq    int
}

func (s touching) next(ctx context.Context, t *talk) stage {
	c, err := readChallenge(s.prompt.Data)
	if err != nil || t.cfg.Key == nil || t.r.remote() {
		t.cfg.Log.Error("a security key was asked for that can not be", "err", err)
		t.cancel(s.seq + 1)
		return online(deny("prompt-unknown", text.DeniedInternal))
	}
	t.limit = max(t.limit, Limit+ScanTime)
	if s.prompt.Text != "" {
		t.say(Needed, s.prompt.Text)
	}
	answer, err := t.cfg.Key.Assert(ctx, KeyQuestion{KeyChallenge: c, User: t.r.User, Within: t.left()}, t.person)
	t.heard = t.cfg.Clock.Now()
	switch {
	case errors.Is(err, ErrGaveUp):
		t.cancel(s.seq + 1)
		return online(deny("given-up", text.DeniedGivenUp))
	case ctx.Err() != nil || t.left() <= 0:
		t.cancel(s.seq + 1)
		return online(deny("too-long", text.DeniedTooLong))
	case err != nil:
		t.say(wire.MessageWarn, err.Error())
		return relayed(ctx, t, s.seq, secret.Bytes{})
	}
	raw, err := json.Marshal(answer)
	if err != nil {
		t.cancel(s.seq + 1)
		return online(deny("internal", text.DeniedInternal))
	}
	return relayed(ctx, t, s.seq, secret.New(raw))
}
