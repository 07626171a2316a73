//go:build e2e

package kill

import (
	"io"
	"net"
	"sync"
	"testing"
)

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// cable is the way from a machine to the server. While it is cut whoever connects is hung up on.
type cable struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

func layCable(t testing.TB, to string) *cable {
	t.Helper()
	c := &cable{l: listen(t), to: to, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { c.l.Close(); c.pull() })
	go func() {
		for {
			in, err := c.l.Accept()
			if err != nil {
				return
			}
			go c.carry(in)
		}
	}()
	return c
}

func (c *cable) addr() string { return c.l.Addr().String() }

func (c *cable) carry(in net.Conn) {
	defer in.Close()
	if !c.add(in) {
		return
	}
	defer c.drop(in)
	out, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer out.Close()
	if !c.add(out) {
		return
	}
	defer c.drop(out)
	done := make(chan struct{}, 2)
	pass := func(dst, src net.Conn) {
		_, _ = io.Copy(dst, src)
		_ = dst.Close()
		_ = src.Close()
		done <- struct{}{}
	}
	go pass(out, in)
	go pass(in, out)
	<-done
	<-done
}

func (c *cable) add(n net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false
	}
	c.conns[n] = true
	return true
}

func (c *cable) drop(n net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, n)
}

// pull cuts the cable.
func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for n := range c.conns {
		_ = n.Close()
	}
}

// plug mends it.
func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}
