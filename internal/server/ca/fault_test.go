package ca_test

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// days is what a clock is wrong by.
const days = 24 * time.Hour

// listed are the serial numbers of the list as it is now.
func listed(t *testing.T, a *ca.Authority) (*ca.List, map[string]bool) {
	t.Helper()
	l, err := a.RevocationList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseRevocationList(l.DER)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, e := range parsed.RevokedCertificateEntries {
		out[ca.Serial(&x509.Certificate{SerialNumber: e.SerialNumber})] = true
	}
	return l, out
}

func revokedAt(t *testing.T, s *store.Store, serial string) (at int64) {
	t.Helper()
	err := s.Read(t.Context(), func(q *store.Queries) error {
		row, err := q.GetUserCertificate(t.Context(), serial)
		at = row.UserCertificate.RevokedAt
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// A clock that is ahead lets certificates look expired. Who loses his rights then loses
// them for good: none of his certificates is good again when the clock is right.
func TestWhatIsRevokedByAClockThatIsAheadStaysRevoked(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		now := clock.NewManual(time.Now().UTC().Truncate(time.Second))
		a := openOn(t, s, now)
		member(t, s)
		mine, err := a.SignUser(csr(t, p256(t), nil), ca.User{ID: "u1", Name: "alice"}, 30*days)
		if err != nil {
			t.Fatal(err)
		}
		keep(t, s, mine, "u1", "")
		machine, err := a.SignMachine(csr(t, p256(t), nil), "m1")
		if err != nil {
			t.Fatal(err)
		}
		keep(t, s, machine, "", "m1")
		before, _ := listed(t, a)

		now.Advance(120 * days)
		change(t, s, func(ctx context.Context, tx *store.Tx) error {
			n, err := ca.RevokeUser(ctx, tx, "u1", ca.Unspecified, clock.Micros(now.Now()))
			if n != 0 {
				t.Errorf("%d certificates are said to have been good", n)
			}
			if err != nil {
				return err
			}
			_, _, err = ca.RevokeMachine(ctx, tx, "m1", ca.Cessation, clock.Micros(now.Now()))
			return err
		})
		ahead, list := listed(t, a)
		if len(list) != 0 {
			t.Errorf("the list holds what has expired: %v", list)
		}

		now.Advance(-120 * days)
		if revokedAt(t, s, ca.Serial(mine)) == 0 {
			t.Error("a user's certificate is good again")
		}
		right, list := listed(t, a)
		if !list[ca.Serial(mine)] || !list[ca.Serial(machine)] {
			t.Errorf("the list lacks what was revoked: %v", list)
		}
		if before.Number >= ahead.Number || ahead.Number >= right.Number || right.NextUpdate.After(now.Now().Add(ca.ListLife)) || right.ThisUpdate.After(now.Now()) {
			t.Errorf("lists %d, %d, %d; the last of %s until %s", before.Number, ahead.Number, right.Number, right.ThisUpdate, right.NextUpdate)
		}
	})
}

// A clock that is put back behind the beginning of a certificate: a machine's is still
// known, because nobody but this server could have signed it and its row says whether it is
// good; a user's opens nothing until the clock is right.
func TestACertificateThatIsNotValidYet(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		now := clock.NewManual(time.Now().UTC().Truncate(time.Second))
		a := openOn(t, s, now)
		now.Advance(2 * days)
		mine, err := a.SignUser(csr(t, p256(t), nil), ca.User{ID: "u1", Name: "alice"}, 30*days)
		if err != nil {
			t.Fatal(err)
		}
		machine, err := a.SignMachine(csr(t, p256(t), nil), "m1")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			back time.Duration
			is   error
		}{{time.Hour, nil}, {3 * time.Hour, ca.ErrNotYet}, {30 * days, ca.ErrNotYet}, {20 * 365 * days, ca.ErrNotYet}} {
			now.Advance(-c.back)
			if id, expired, err := a.Recognise(machine); id != "m1" || expired || err != nil {
				t.Errorf("back %s: a machine: %q, expired %v, %v", c.back, id, expired, err)
			}
			_, err := a.RecogniseUser(mine)
			if !errors.Is(err, c.is) || c.is != nil && !errors.Is(err, ca.ErrNoUser) {
				t.Errorf("back %s: a user: %v", c.back, err)
			}
			now.Advance(c.back)
		}
		// Another CA's is foreign at every time.
		k, _, err := keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: storetest.Open(t, store.Config{Database: storetest.SQLite(t)}), Clock: now})
		if err != nil {
			t.Fatal(err)
		}
		other, _, err := ca.Open(t.Context(), ca.Config{Store: storetest.Open(t, store.Config{Database: storetest.SQLite(t)}), Keys: k, Clock: now})
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := other.SignMachine(csr(t, p256(t), nil), "m1")
		if err != nil {
			t.Fatal(err)
		}
		for _, back := range []time.Duration{0, 30 * days} {
			now.Advance(-back)
			if _, _, err := a.Recognise(theirs); !errors.Is(err, ca.ErrForeign) {
				t.Errorf("back %s: %v", back, err)
			}
			now.Advance(back)
		}
	})
}

// cutsNow waits until the Cutter has begun: what was revoked before its first look is not
// cut, so that certificates of a machine are revoked until the connection of one is.
func cutsNow(t *testing.T, s *store.Store, a *ca.Authority, x *ca.Cutter) {
	t.Helper()
	for range 40 {
		cert, err := a.SignMachine(csr(t, p256(t), nil), "m1")
		if err != nil {
			t.Fatal(err)
		}
		keep(t, s, cert, "", "m1")
		n, _ := net.Pipe()
		p := &pipe{n, make(chan struct{})}
		x.Hold(ca.Serial(cert), p)
		change(t, s, func(ctx context.Context, tx *store.Tx) error {
			_, _, err := ca.RevokeMachine(ctx, tx, "m1", ca.Cessation, clock.Micros(time.Now()))
			return err
		})
		select {
		case <-p.closed:
			return
		case <-time.After(time.Second):
			x.Drop(p)
		}
	}
	t.Fatal("nothing is cut")
}

// The list and the revocation are of one transaction each: a server that could not write
// the list serves none that lacks a revocation, and its number never goes back.
func TestARevocationThatCanNotBeWrittenIsNone(t *testing.T) {
	database, link := storetest.Linked(t)
	s := storetest.Open(t, store.Config{Database: database, Clock: clock.Real})
	a := openOn(t, s, clock.Real)
	member(t, s)
	mine, err := a.SignUser(csr(t, p256(t), nil), ca.User{ID: "u1", Name: "alice"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	keep(t, s, mine, "u1", "")
	x := ca.NewCutter(ca.CutterConfig{Store: s, Clock: clock.Real, Log: slog.New(slog.DiscardHandler)})
	n, _ := net.Pipe()
	p := &pipe{n, make(chan struct{})}
	x.Hold(ca.Serial(mine), p)
	go x.Run(t.Context())
	cutsNow(t, s, a, x)
	first, _ := listed(t, a)

	link.Cut()
	revoke := func() error {
		return s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := ca.RevokeUser(ctx, tx, "u1", ca.KeyCompromise, clock.Micros(time.Now()))
			return err
		})
	}
	if err := revoke(); !store.IsUnavailable(err) {
		t.Errorf("a revocation without a database: %v", err)
	}
	if _, err := a.RevocationList(t.Context()); err == nil {
		t.Error("a list is served although nobody knows what was revoked")
	}
	link.Mend()
	var failed error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if failed = revoke(); failed == nil {
			break
		}
	}
	if failed != nil {
		t.Fatal(failed)
	}
	begun := time.Now()
	select {
	case <-p.closed:
		t.Logf("cut after %v", time.Since(begun))
	case <-time.After(10 * time.Second):
		t.Error("the connection was not cut after the database came back")
	}
	l, list := listed(t, a)
	if !list[ca.Serial(mine)] || l.Number <= first.Number {
		t.Errorf("list %d behind %d: %v", l.Number, first.Number, list)
	}
	var row db.GetUserCertificateRow
	err = s.Read(t.Context(), func(q *store.Queries) (err error) {
		row, err = q.GetUserCertificate(t.Context(), ca.Serial(mine))
		return err
	})
	if err != nil || row.UserCertificate.Reason != ca.KeyCompromise {
		t.Errorf("%+v, %v", row.UserCertificate, err)
	}
}
