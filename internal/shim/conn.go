package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/secret"
)

// ErrVersion is returned by AgentConn.Greet for a shim of another version.
var ErrVersion = errors.New("the shim speaks another version of the protocol")

// link reads and writes bodies. Each frame has one deadline for all its octets,
// so that a peer that trickles them gains nothing.
type link struct{ c net.Conn }

// read returns the body of one frame; the caller wipes it.
func (l link) read(within time.Duration) ([]byte, error) {
	if err := l.c.SetReadDeadline(clock.Deadline(within)); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(l.c, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < 1 || size > MaxBody {
		return nil, fmt.Errorf("%w: %d octets announced", ErrLength, size)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(l.c, body); err != nil {
		clear(body)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return body, nil
}

// write sends one frame and wipes it.
func (l link) write(frame []byte, within time.Duration) error {
	defer clear(frame)
	if err := l.c.SetWriteDeadline(clock.Deadline(within)); err != nil {
		return err
	}
	_, err := l.c.Write(frame)
	return err
}

// AgentConn is the agent's end of a connection.
type AgentConn struct{ link }

// NewAgentConn takes over c.
func NewAgentConn(c net.Conn) *AgentConn { return &AgentConn{link{c}} }

// Greet reads the shim's hello. To a shim of another version it says TooOld with
// the given text and returns ErrVersion.
func (a *AgentConn) Greet(within time.Duration, tooOld string) error {
	m, err := a.Receive(within)
	if err != nil {
		return err
	}
	h, ok := m.(Hello)
	if !ok {
		return fmt.Errorf("%w: the first message was not hello", ErrShape)
	}
	if h.Version != Version {
		if err := a.Send(TooOld{tooOld}, within); err != nil {
			return err
		}
		return fmt.Errorf("%w: %d instead of %d", ErrVersion, h.Version, Version)
	}
	return nil
}

// Receive reads one message; all of it must arrive within the given time. It
// returns io.EOF when the shim closed between two frames.
func (a *AgentConn) Receive(within time.Duration) (FromShim, error) {
	body, err := a.read(within)
	if err != nil {
		return nil, err
	}
	defer clear(body)
	return DecodeFromShim(body)
}

// Listen tells, while nothing is asked, when the shim says something or goes: gone is
// closed then. stop ends the listening and waits for its end.
func (a *AgentConn) Listen() (gone <-chan struct{}, stop func()) {
	lost, over := make(chan struct{}), make(chan struct{})
	if err := a.c.SetReadDeadline(time.Time{}); err != nil {
		close(lost)
		return lost, func() {}
	}
	go func() {
		defer close(over)
		var head [1]byte
		// Whatever it says now, it has given up: only an answer is expected of it, and
		// nothing was asked.
		if n, err := a.c.Read(head[:]); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			close(lost)
		}
	}()
	return lost, func() {
		_ = a.c.SetReadDeadline(clock.Deadline(0))
		<-over
	}
}

// Send writes one message within the given time.
func (a *AgentConn) Send(m FromAgent, within time.Duration) error {
	f, err := EncodeFromAgent(m)
	if err != nil {
		return err
	}
	return a.write(f, within)
}

// Close ends the connection.
func (a *AgentConn) Close() error { return a.c.Close() }

// ShimConn is the shim's end of a connection.
type ShimConn struct{ link }

// NewShimConn takes over c.
func NewShimConn(c net.Conn) *ShimConn { return &ShimConn{link{c}} }

// Receive reads one message; all of it must arrive within the given time.
func (s *ShimConn) Receive(within time.Duration) (FromAgent, error) {
	body, err := s.read(within)
	if err != nil {
		return nil, err
	}
	defer clear(body)
	return DecodeFromAgent(body)
}

// Send writes one message within the given time.
func (s *ShimConn) Send(m FromShim, within time.Duration) error {
	f, err := EncodeFromShim(m)
	if err != nil {
		return err
	}
	return s.write(f, within)
}

// Close ends the connection.
func (s *ShimConn) Close() error { return s.c.Close() }

// ErrGaveUp is what a Person returns when there will be no answer.
var ErrGaveUp = errors.New("no answer from the person")

// Person shows prompts and collects what is typed. A prompt that can not be
// answered returns ErrGaveUp.
type Person interface {
	// Secret asks without echo.
	Secret(text string) (secret.Bytes, error)
	// Ask asks with echo; the text may have several lines, the last one is the prompt.
	Ask(text string) (secret.Bytes, error)
	// Tell shows information.
	Tell(text string)
	// Warn shows an error.
	Warn(text string)
}

// Limits of a conversation as the PAM module keeps them.
const (
	// FrameTime is the longest wait for one frame of the agent.
	FrameTime = 60 * time.Second
	// SendTime is the longest time that sending a frame may take.
	SendTime = 5 * time.Second
)

// Result is how a conversation ended.
type Result struct {
	// Verdict is Allow, Deny, Ignore, TooOld, or MustChange in the account phase.
	Verdict FromAgent
	// MustChange says that the agent remarked so on the way.
	MustChange bool
	// Authtok is the password for later modules, if HasAuthtok.
	Authtok    secret.Bytes
	HasAuthtok bool
}

// Converse walks through one phase as a shim does it: hello, start, prompts,
// verdict. An error means no verdict, which is a denial. It does not show the
// text of a Deny or TooOld: the caller does.
func (s *ShimConn) Converse(start Start, p Person) (Result, error) {
	var r Result
	if err := s.Send(Hello{Version}, SendTime); err != nil {
		return r, err
	}
	if err := s.Send(start, SendTime); err != nil {
		return r, err
	}
	for {
		m, err := s.Receive(FrameTime)
		if err != nil {
			return r, err
		}
		if Verdict(m, start.Phase) {
			r.Verdict = m
			return r, nil
		}
		var (
			n   int
			val secret.Bytes
		)
		switch m := m.(type) {
		case Tell:
			p.Tell(m.Text)
			continue
		case Warn:
			p.Warn(m.Text)
			continue
		case MustChange:
			r.MustChange = true
			continue
		case Authtok:
			r.Authtok.Wipe()
			r.Authtok, r.HasAuthtok = m.Value, true
			continue
		case Secret:
			n = m.N
			val, err = p.Secret(m.Text)
		case Ask:
			n = m.N
			val, err = p.Ask(m.Text)
		case Choose:
			n = m.N
			val, err = p.Ask(m.Menu())
		case Wait:
			n = m.N
			val, err = p.Secret(m.Text + WaitHint)
		default:
			return r, fmt.Errorf("%w: %T out of place", ErrShape, m)
		}
		if err != nil {
			_ = s.Send(Cancel{}, SendTime)
			return r, err
		}
		err = s.Send(Answer{n, val}, SendTime)
		val.Wipe()
		if err != nil {
			if m := s.lastWord(p); m != nil {
				r.Verdict = m
				return r, nil
			}
			return r, err
		}
	}
}

// lastWord reads what an agent has said that no longer waited for an answer: why it
// refuses. Nothing but a refusal counts: no answer has reached the agent. It is nil
// without one.
func (s *ShimConn) lastWord(p Person) FromAgent {
	for range 8 {
		m, err := s.Receive(SendTime)
		if err != nil {
			return nil
		}
		switch m := m.(type) {
		case Deny, TooOld:
			return m
		case Tell:
			p.Tell(m.Text)
		case Warn:
			p.Warn(m.Text)
		case Authtok:
			m.Value.Wipe()
			return nil
		default:
			return nil
		}
	}
	return nil
}

// Status asks for the state of the machine and returns the agent's JSON, which is
// not parsed.
func (s *ShimConn) Status() (string, error) {
	if err := s.Send(Hello{Version}, SendTime); err != nil {
		return "", err
	}
	if err := s.Send(Status{}, SendTime); err != nil {
		return "", err
	}
	m, err := s.Receive(FrameTime)
	if err != nil {
		return "", err
	}
	switch m := m.(type) {
	case Tell:
		return m.Text, nil
	case TooOld:
		return "", fmt.Errorf("%w: %s", ErrVersion, m.Text)
	default:
		return "", fmt.Errorf("%w: %T in answer to status", ErrShape, m)
	}
}

// WaitHint stands behind the text of a Wait.
const WaitHint = " (press Enter to check): "

// Menu is the prompt of a Choose: its text, one line per option, and the range
// of the numbers.
func (m Choose) Menu() string {
	s := m.Text + "\n"
	for i, o := range m.Options {
		s += fmt.Sprintf("  %d) %s\n", i+1, o)
	}
	return s + fmt.Sprintf("[1-%d]: ", len(m.Options))
}
