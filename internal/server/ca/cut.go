package ca

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Cutter closes the connections that were opened with a certificate when it is
// revoked, on this replica and by whichever it was revoked. It looks for itself, four times
// a second: no message has to arrive for it.
type Cutter struct {
	c     CutterConfig
	mu    sync.Mutex
	conns map[net.Conn]string // with the serial number
	of    map[string]map[net.Conn]struct{}
	last  int64 // revocation that was seen
}

// CutterConfig is what a Cutter needs; all fields are required.
type CutterConfig struct {
	Store *store.Store
	Clock clock.Clock
	Log   *slog.Logger
}

// The times of the Cutter. Whoever waits for an answer is told first that he is
// refused, and why; the rest of a second is for that.
const (
	cutEvery = 250 * time.Millisecond
	cutGrace = 200 * time.Millisecond
	cutTime  = 5 * time.Second
	cutBatch = 1000
)

// NewCutter makes a Cutter; Run has it work.
func NewCutter(c CutterConfig) *Cutter {
	return &Cutter{c: c, conns: map[net.Conn]string{}, of: map[string]map[net.Conn]struct{}{}}
}

// Hold says that the connection was opened with the certificate of the serial number.
// A connection that is held under another number already is held under the new one.
func (x *Cutter) Hold(serial string, c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if was, ok := x.conns[c]; ok {
		if was == serial {
			return
		}
		x.drop(c)
	}
	x.conns[c] = serial
	if x.of[serial] == nil {
		x.of[serial] = map[net.Conn]struct{}{}
	}
	x.of[serial][c] = struct{}{}
}

// Drop says that the connection has been closed.
func (x *Cutter) Drop(c net.Conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.drop(c)
}

func (x *Cutter) drop(c net.Conn) {
	serial, ok := x.conns[c]
	if !ok {
		return
	}
	delete(x.conns, c)
	delete(x.of[serial], c)
	if len(x.of[serial]) == 0 {
		delete(x.of, serial)
	}
}

// Held is how many connections are held.
func (x *Cutter) Held() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.conns)
}

// Run looks for what was revoked until life ends.
func (x *Cutter) Run(life context.Context) {
	troubled := false
	begun := false
	for {
		err := x.look(life, &begun)
		if life.Err() != nil {
			return
		}
		if err != nil && !troubled {
			x.c.Log.Warn("what was revoked can not be looked up; requests are refused each for itself", "error", err)
		}
		troubled = err != nil
		if x.c.Clock.Sleep(life, cutEvery) != nil {
			return
		}
	}
}

// look closes what was revoked since the look before.
func (x *Cutter) look(ctx context.Context, begun *bool) error {
	ctx, cancel := context.WithTimeout(ctx, cutTime)
	defer cancel()
	var rows []db.RevokedSinceRow
	now := int64(0)
	err := x.c.Store.Read(ctx, func(q *store.Queries) (err error) {
		if now, err = q.LastRevocation(ctx); err != nil || now == x.last {
			return err
		}
		if !*begun {
			return nil // whoever connects from now on is looked up
		}
		if now < x.last {
			x.last = 0 // the database was put back
		}
		rows, err = q.RevokedSince(ctx, db.RevokedSinceParams{Number: x.last, N: cutBatch})
		return err
	})
	if err != nil {
		return err
	}
	if !*begun {
		*begun, x.last = true, now
		return nil
	}
	if len(rows) == 0 {
		x.last = now
		return nil
	}
	var serials []string
	for _, r := range rows {
		serials = append(serials, r.Serial)
		// Those of one number are of one transaction: where the page ends in the middle of
		// one, all of it is read again.
		x.last = max(x.last, r.Number)
	}
	if len(rows) == cutBatch && rows[0].Number < x.last {
		x.last--
	}
	if x.any(serials) && x.c.Clock.Sleep(ctx, cutGrace) != nil {
		return nil
	}
	if n := x.cut(serials); n > 0 {
		x.c.Log.Info("connections were cut: their certificates were revoked", "connections", n, "certificates", len(serials))
	}
	return nil
}

func (x *Cutter) any(serials []string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range serials {
		if len(x.of[s]) > 0 {
			return true
		}
	}
	return false
}

func (x *Cutter) cut(serials []string) int {
	x.mu.Lock()
	var list []net.Conn
	for _, s := range serials {
		for c := range x.of[s] {
			list = append(list, c)
			delete(x.conns, c)
		}
		delete(x.of, s)
	}
	x.mu.Unlock()
	for _, c := range list {
		_ = c.Close() // outside: closing tells others
	}
	return len(list)
}
