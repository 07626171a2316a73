package key

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// connection is a Port over a connection that carries reports: what tests plug in.
type connection struct{ net.Conn }

// Over makes a Port of a connection that carries reports of 64 octets, one after the
// other.
func Over(c net.Conn) Port { return &connection{c} }

func (c *connection) WriteReport(r [reportSize]byte) error {
	_, err := c.Write(r[:])
	return err
}

func (c *connection) ReadReport(until time.Time) (r [reportSize]byte, err error) {
	if err := c.SetReadDeadline(until); err != nil {
		return r, err
	}
	n, err := io.ReadFull(c.Conn, r[:])
	if errors.Is(err, os.ErrDeadlineExceeded) && n == 0 {
		return r, ErrTimeout
	}
	return r, err
}
