package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/wire"
)

// knocks puts denials of somebody nobody knows into the journal, one a second as the
// quieter lets them through, until it grows no more or is as large as said.
func (r *rig) knocks(size int) (written int) {
	r.Helper()
	d, _ := r.decide(policy.Remote)
	// A trace and some: what matters is how many octets there are, not of how many.
	data, err := json.Marshal(map[string]any{"trace": d.Trace, "policy": "p", "filler": strings.Repeat("x", 16<<10)})
	ok(r, err)
	for r.v.jour.size < size {
		before := r.v.jour.size
		r.clk.Advance(time.Second)
		ok(r, r.v.Record(context.Background(), event.Event{Type: event.SigninDenied, Actor: "nobody", Subject: "nobody", Scope: "remote", Outcome: "deny", Reason: "user-unknown", Data: data}))
		if r.v.jour.size == before {
			break
		}
		written++
	}
	return written
}

// Knocking at sshd without the server uses up its own part of the journal and nobody
// else's: the refusals behind are counted, and the machine goes on opening.
func TestO17StrangersDoNotFillTheJournal(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	r.knocks(maxJournal)
	if r.v.jour.size > roomRefused+maxEntry {
		t.Fatalf("strangers have written %d octets", r.v.jour.size)
	}
	for range 100 {
		r.knocks(maxJournal)
	}
	r.want(false, WrongCode, policy.Logon, password, secretCode("000000"))
	r.want(true, OK, policy.Logon, password, r.code())
	if us := r.v.led.Users[userID]; us.Tries != 0 || us.Signins != 1 {
		t.Errorf("%d tries and %d sign-ins are spent", us.Tries, us.Signins)
	}
	var counted int
	for {
		j, err := r.v.Pending(context.Background(), 200)
		ok(t, err)
		if len(j.Entries) == 0 {
			break
		}
		for _, e := range j.Entries {
			var d struct{ Suppressed int }
			if e.Event.Reason == onlyCounted {
				ok(t, json.Unmarshal(e.Event.Data, &d))
				counted += d.Suppressed
			}
		}
		last := j.Entries[len(j.Entries)-1]
		ok(t, r.v.Delivered(context.Background(), last.Seq, last.Hash))
	}
	if counted < 100 || counted > 110 {
		t.Errorf("%d refusals are told as counted, about a hundred were not written", counted)
	}
}

// A journal that is full whoever filled it is told as that, before anything is judged
// or counted.
func TestO17AFullJournalIsToldAndCostsNothing(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	data := json.RawMessage(`"` + strings.Repeat("x", maxData-2) + `"`)
	open := func(kind event.Type, scope policy.Scope) error {
		return r.v.Record(context.Background(), event.Event{Type: kind, Subject: "mallory", Scope: string(scope), Outcome: "ignore", Data: data})
	}
	for _, c := range []struct {
		scope policy.Scope
		room  int
	}{{policy.Elevation, roomJudged}, {policy.Logon, roomOpened}} {
		var err error
		for err == nil {
			err = open(event.SigninIgnored, c.scope)
		}
		if ReasonOf(err) != policy.ReasonJournalFull || r.v.jour.size > c.room || r.v.jour.size < c.room-maxEntry {
			t.Fatalf("%s ends at %d octets: %v", c.scope, r.v.jour.size, err)
		}
	}
	// What spends a code goes on.
	code := r.code()
	r.want(true, OK, policy.Logon, password, code)
	// Until there is no room for it either.
	for ok := true; ok; {
		ok = open(event.BreakGlass, policy.Logon) == nil
	}
	r.later()
	before := *r.v.led.Users[userID]
	r.want(false, string(policy.ReasonJournalFull), policy.Logon, password, r.code())
	r.want(false, string(policy.ReasonJournalFull), policy.Logon, password, secretCode("000000"))
	if us := r.v.led.Users[userID]; us.Tries != before.Tries || us.Signins != before.Signins || us.Checks != before.Checks {
		t.Errorf("a full journal costs: %+v, before %+v", *us, before)
	}
	if s := r.v.Status(context.Background(), ""); s.Problem != policy.ReasonJournalFull {
		t.Errorf("the status says %q", s.Problem)
	}
	r.restart()
	for range 3 {
		j, err := r.v.Pending(context.Background(), 200)
		ok(t, err)
		last := j.Entries[len(j.Entries)-1]
		ok(t, r.v.Delivered(context.Background(), last.Seq, last.Hash))
	}
	r.want(true, OK, policy.Logon, password, r.code())
}

// What is delivered at a time fits one request, however large the entries are, and one
// that is too large for the journal keeps nothing behind it waiting.
func TestO11LargeEntriesAreDelivered(t *testing.T) {
	r := newRig(t, false)
	r.sync()
	r.enrol()
	data := json.RawMessage(`"` + strings.Repeat(`\u0001`, 5000) + `"`)
	const many = 120
	for i := range many {
		r.clk.Advance(time.Second)
		if i == 20 {
			data := json.RawMessage(`"` + strings.Repeat("x", 2*maxEntry) + `"`)
			ok(t, r.v.Record(context.Background(), event.Event{Type: event.SigninDenied, Subject: "mallory", Data: data}))
			continue
		}
		ok(t, r.v.Record(context.Background(), event.Event{Type: event.SigninDenied, Subject: "mallory", Data: data}))
	}
	r.v.mu.Lock()
	r.v.postpone(event.Event{Type: event.SigninDenied, Subject: strings.Repeat("x", 2*maxEntry)}, ErrState)
	r.v.postpone(event.Event{Type: event.SigninDenied, Subject: "behind"}, ErrState)
	r.v.mu.Unlock()
	n, behind, dropped := 0, false, false
	for {
		j, err := r.v.Pending(context.Background(), 200)
		ok(t, err)
		if len(j.Entries) == 0 {
			break
		}
		raw, err := wire.Encode(j, wire.Servers().Newest)
		ok(t, err)
		if len(raw) > wire.MaxRequest {
			t.Fatalf("a request of %d octets with %d entries", len(raw), len(j.Entries))
		}
		for _, e := range j.Entries {
			behind = behind || e.Event.Subject == "behind"
			dropped = dropped || bytes.Equal(e.Event.Data, fmt.Appendf(nil, `{"dropped_octets":%d}`, 2*maxEntry+2))
		}
		n += len(j.Entries)
		last := j.Entries[len(j.Entries)-1]
		ok(t, r.v.Delivered(context.Background(), last.Seq, last.Hash))
	}
	if n < many || !behind || !dropped {
		t.Errorf("%d entries of %d, what was behind the one that can not be written %v, large data told as left out %v", n, many, behind, dropped)
	}
}

// Whoever starts what opens without spending anything, in a loop, does not wear the TPM
// out; and what the ledger does not know yet is in the journal, on every start.
func TestO9AnEmptyLoopDoesNotWearTheTPM(t *testing.T) {
	r := newRig(t, true)
	r.sync()
	r.enrol()
	counter := func() uint64 {
		n, err := r.v.cfg.Device.ReadCounter(context.Background(), r.v.st.Counter)
		ok(t, err)
		return n
	}
	before, was := counter(), r.v.jour.head().Seq
	const loops = 100
	for range loops {
		r.clk.Advance(time.Second)
		ok(t, r.v.Record(context.Background(), event.Event{Type: event.SigninIgnored, Subject: "mallory", Scope: "elevation", Service: "su", Outcome: "ignore"}))
	}
	if steps := counter() - before; steps > 2*ownSaves {
		t.Errorf("%d sign-ins of somebody for whom nothing is asked made %d steps", loops, steps)
	}
	if r.v.led.Journal.Seq == r.v.jour.head().Seq {
		t.Fatal("the ledger knows all, so that this test says nothing")
	}
	// Killed here: everything is there, and goes on.
	r.restart()
	if n := r.v.jour.head().Seq - was; n != loops || r.v.problem != "" {
		t.Fatalf("%d entries of %d, problem %q", n, loops, r.v.problem)
	}
	r.want(true, OK, policy.Logon, password, r.code())
	if r.v.led.Journal.Seq != r.v.jour.head().Seq {
		t.Error("what spends a code does not write the ledger")
	}
	// What lies behind the ledger's head must be chained to it.
	for range 2 * ownSaves {
		ok(t, r.v.Record(context.Background(), event.Event{Type: event.SigninIgnored, Subject: "mallory", Scope: "elevation"}))
	}
	// It is written later by itself.
	r.clk.Advance(saveEvery + time.Second)
	for range 500 {
		r.v.mu.Lock()
		done := r.v.led.Journal.Seq == r.v.jour.head().Seq
		r.v.mu.Unlock()
		if done {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the ledger is not written by itself")
}
