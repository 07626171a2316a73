//go:build e2e

package e2e

import (
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"latchkey/internal/shim"
)

// FakeAgent listens where the agent would and says what a test tells it to say. It
// is for tests of the module itself: a script, not an agent.
type FakeAgent struct {
	m *Machine
	l *net.UnixListener

	mu     sync.Mutex
	starts []Caller
	wg     sync.WaitGroup
}

// Caller is one connection of the module, after its hello and its request.
type Caller struct {
	*shim.AgentConn
	shim.Start
	// Peer is who connected, as seen by the test.
	Peer unix.Ucred
	// Raw is for what AgentConn would not send.
	Raw net.Conn

	n int
}

// Socket is where the module looks for the agent.
const Socket = "/run/latchkey/agent.sock"

// FakeAgent starts one. The script is called for each connection, from goroutines
// of their own; the connection closes when it returns.
func (m *Machine) FakeAgent(script func(c *Caller)) *FakeAgent {
	m.t.Helper()
	_ = os.Remove(m.Path(Socket))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: m.Path(Socket), Net: "unix"})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(m.Path(Socket), 0o666); err != nil {
		m.t.Fatal(err)
	}
	f := &FakeAgent{m: m, l: l}
	m.t.Cleanup(f.Stop)
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			f.wg.Add(1)
			go func() {
				defer f.wg.Done()
				defer c.Close()
				f.serve(c, script)
			}()
		}
	}()
	return f
}

func (f *FakeAgent) serve(c *net.UnixConn, script func(*Caller)) {
	who := &Caller{AgentConn: shim.NewAgentConn(c), Raw: c}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if p, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			who.Peer = *p
		}
	})
	if err := who.Greet(5*time.Second, "This module is too old."); err != nil {
		return
	}
	m, err := who.Receive(5 * time.Second)
	if err != nil {
		return
	}
	start, ok := m.(shim.Start)
	if !ok {
		return
	}
	who.Start = start
	f.mu.Lock()
	f.starts = append(f.starts, *who)
	f.mu.Unlock()
	script(who)
}

// Stop ends it: from now on nobody listens.
func (f *FakeAgent) Stop() {
	f.l.Close()
	done := make(chan struct{})
	go func() { f.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(90 * time.Second):
		f.m.t.Error("a script of the fake agent does not end")
	}
}

// Heard are the requests so far, in order.
func (f *FakeAgent) Heard() []Caller {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Caller(nil), f.starts...)
}

// Request is the first request of a phase; the test fails if there was none.
func (f *FakeAgent) Request(t testing.TB, phase shim.Phase) Caller {
	t.Helper()
	for _, c := range f.Heard() {
		if c.Phase == phase {
			return c
		}
	}
	t.Fatalf("the agent heard no %s", phase)
	return Caller{}
}

// Say sends a message.
func (c *Caller) Say(m shim.FromAgent) { _ = c.Send(m, 5*time.Second) }

// Secret asks without echo; false if there was no answer.
func (c *Caller) Secret(text string) (string, bool) {
	c.n++
	return c.prompt(shim.Secret{N: c.n, Text: text})
}

// Ask asks with echo.
func (c *Caller) Ask(text string) (string, bool) {
	c.n++
	return c.prompt(shim.Ask{N: c.n, Text: text})
}

// Choose shows a menu.
func (c *Caller) Choose(text string, options ...string) (string, bool) {
	c.n++
	return c.prompt(shim.Choose{N: c.n, Text: text, Options: options})
}

// Wait says "press Enter".
func (c *Caller) Wait(text string) (string, bool) {
	c.n++
	return c.prompt(shim.Wait{N: c.n, Text: text})
}

func (c *Caller) prompt(m shim.FromAgent) (string, bool) {
	if err := c.Send(m, 5*time.Second); err != nil {
		return "", false
	}
	r, err := c.Receive(Patience)
	if err != nil {
		return "", false
	}
	a, ok := r.(shim.Answer)
	if !ok || a.N != c.n {
		return "", false
	}
	return string(a.Value.Reveal()), true
}
