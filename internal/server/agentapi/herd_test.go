package agentapi_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/store"
	"latchkey/internal/server/touch"
	"latchkey/internal/wire"
)

// More polls than may look at the same time: none keeps a place while it waits, and
// none that fails keeps it for good.
func TestPollsThatWaitOrFailHoldNoPlace(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	places := max(2, runtime.GOMAXPROCS(0))
	var herd []*machine
	var serials []int64
	for range 2*places + 4 {
		m := r.joined()
		herd = append(herd, m)
		serials = append(serials, m.policy(0).Serial)
	}
	gone := r.joined()
	r.change(func(tx *store.Tx) error {
		_, err := r.enroll.Dismiss(t.Context(), tx, gone.id, enroll.Revoked)
		return err
	})
	for range 3 {
		for range places + 1 {
			gone.fails("GET", wire.PathChanges+"?since=0", nil, "machine-refused")
			herd[0].fails("GET", wire.PathChanges+"?since=x", nil, "invalid")
		}
		var answers []<-chan polled
		for i, m := range herd {
			answers = append(answers, m.poll(serials[i]))
		}
		r.joined().policy(0) // somebody else finds a place while all of them wait
		r.change(func(tx *store.Tx) error { return touch.All(t.Context(), tx) })
		for i, a := range answers {
			c := <-a
			if c.status != 200 || c.Serial != serials[i]+1 || len(c.Policy) == 0 || c.took > 20*time.Second {
				t.Fatalf("machine %d: %+v", i, c)
			}
			herd[i].open(c.Changes)
			serials[i] = c.Serial
		}
	}
}

// A change between the look of one poll and the next is told by the next, though
// nobody waited for it.
func TestAChangeBetweenTwoPollsIsNotMissed(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	serial := m.policy(0).Serial
	for range 20 {
		r.change(func(tx *store.Tx) error { return touch.Machine(t.Context(), tx, m.id) })
		var c wire.Changes
		begun := time.Now()
		m.must("GET", fmt.Sprintf("%s?since=%d", wire.PathChanges, serial), nil, &c)
		if c.Serial != serial+1 || time.Since(begun) > 20*time.Second {
			t.Fatalf("serial %d behind %d, after %v", c.Serial, serial, time.Since(begun))
		}
		serial = c.Serial
	}
}

// The certificate's signature is looked at once for each connection; its end counts
// on one that is open too.
func TestACertificateExpiresOnAnOpenConnection(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	m.must("GET", wire.PathProbe, nil, nil)
	m.must("GET", wire.PathProbe, nil, nil)
	r.clock.off = 100 * 24 * time.Hour
	m.fails("GET", wire.PathProbe, nil, "unauthorized")
	m.fails("GET", wire.PathChanges+"?since=0", nil, "unauthorized")
	var renewed wire.RenewReply
	m.must("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, &renewed)
}

func TestWhenMachinesWereSeenIsWrittenTogether(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		a, b := r.joined(), r.joined()
		r.clock.off = 5 * time.Minute
		now := clock.Micros(r.clock.Now())
		a.policy(0)
		b.policy(0)
		r.api.Stop() // what is not written yet is written now
		for _, m := range []*machine{a, b} {
			if row := r.machineRow(m.id); row.LastSeenAt < now || row.Address != "127.0.0.1" {
				t.Errorf("seen at %d from %q, and it is %d", row.LastSeenAt, row.Address, now)
			}
		}
	})
}
