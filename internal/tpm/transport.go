package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// dial opens the connection. It fails with ErrNone, ErrGone or ErrUnavailable.
func (a address) dial(ctx context.Context) (conn, error) {
	var c conn
	var err error
	if a.how == "socket" {
		var s net.Conn
		if s, err = (&net.Dialer{}).DialContext(ctx, "unix", a.path); err == nil {
			c = socketConn{s}
		}
	} else {
		c, err = openDevice(a.path)
	}
	if err != nil {
		if errors.Is(err, ErrNone) {
			return nil, err
		}
		return nil, unreachable(ctx, err)
	}
	return c, nil
}

// isGone tells "not there" from "does not work".
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.ENXIO)
}

// socketConn is an emulator's socket.
type socketConn struct{ net.Conn }

func (c socketConn) exchange(ctx context.Context, command []byte) ([]byte, error) {
	if t, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(t); err != nil {
			return nil, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(command); err != nil {
		return nil, err
	}
	h := make([]byte, headerSize, maxAnswer)
	if _, err := io.ReadFull(c, h); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(h[2:])
	if n < headerSize || n > maxAnswer {
		return nil, fmt.Errorf("an answer that claims %d octets", n)
	}
	rsp := h[:n]
	_, err := io.ReadFull(c, rsp[headerSize:])
	return rsp, err
}

func (c socketConn) close() <-chan struct{} {
	_ = c.Close()
	return nil
}

// blockingConn is a device whose calls can not be cut short. A command that
// takes too long is left to itself in its goroutine; the device is closed when
// it has come back.
type blockingConn struct {
	send    func([]byte) ([]byte, error)
	closeFn func()
	running chan struct{}
}

func (c *blockingConn) exchange(ctx context.Context, command []byte) ([]byte, error) {
	type answer struct {
		rsp []byte
		err error
	}
	got, ended := make(chan answer, 1), make(chan struct{})
	go func() {
		defer close(ended)
		rsp, err := c.send(command)
		got <- answer{rsp, err}
	}()
	select {
	case a := <-got:
		return a.rsp, a.err
	case <-ctx.Done():
		c.running = ended
		return nil, ctx.Err()
	}
}

func (c *blockingConn) close() <-chan struct{} {
	if c.running == nil {
		c.closeFn()
		return nil
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		<-c.running
		c.closeFn()
	}()
	return closed
}
