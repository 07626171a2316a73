package main

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// relay stands between the agents and the emulated TPM and adds up how long the TPM takes to answer: from a command that
// has come in whole to its answer.
type relay struct {
	to     string
	waited atomic.Int64
	asked  atomic.Int64
}

func newRelay(at, to string) (*relay, error) {
	l, err := net.Listen("unix", at)
	if err != nil {
		return nil, err
	}
	r := &relay{to: to}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.carry(c)
		}
	}()
	return r, nil
}

// total is what the TPM has taken so far, and how many commands that were.
func (r *relay) total() (time.Duration, int64) {
	return time.Duration(r.waited.Load()), r.asked.Load()
}

func (r *relay) carry(c net.Conn) {
	defer c.Close()
	begun := time.Now() // a connection is a part of the price: the emulator serves one at a time
	t, err := net.Dial("unix", r.to)
	if err != nil {
		return
	}
	defer t.Close()
	r.waited.Add(int64(time.Since(begun)))
	for {
		command, err := message(c)
		if err != nil {
			return
		}
		begun := time.Now()
		if _, err := t.Write(command); err != nil {
			return
		}
		answer, err := message(t)
		r.waited.Add(int64(time.Since(begun)))
		r.asked.Add(1)
		if err != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// message reads a command or an answer: both have their length behind a tag of two octets.
func message(c net.Conn) ([]byte, error) {
	b := make([]byte, 6, 4096)
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(b[2:]))
	if n < len(b) || n > cap(b) {
		return nil, io.ErrUnexpectedEOF
	}
	b = b[:n]
	_, err := io.ReadFull(c, b[6:])
	return b, err
}
