package store_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

func TestEventsAreCountedByTheHour(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		const hour = store.HourMicros
		for i, at := range []int64{5*hour - 1, 5 * hour, 5*hour + 7, 6*hour - 1, 6 * hour, 7 * hour} {
			add(t, s, event.Event{Type: event.SigninAllowed, At: at}, event.Event{Type: []event.Type{event.SigninDenied, event.UserAdded}[i%2], At: at})
		}
		rows, err := s.CountEventHours(t.Context(), []string{"signin.allowed", "signin.denied"}, 5*hour, 7*hour)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int64{}
		for _, r := range rows {
			got[fmt.Sprintf("%s %d", r.Type, r.Hour)] += r.N
		}
		want := map[string]int64{"signin.allowed 5": 3, "signin.allowed 6": 1, "signin.denied 5": 1, "signin.denied 6": 1}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if f, err := s.CountMachines(t.Context(), 1); err != nil || f.Active != 0 || len(f.Agents) != 0 {
			t.Errorf("%+v %v", f, err)
		}
		if m, r, err := s.CountWaiting(t.Context()); err != nil || m+r != 0 {
			t.Errorf("%d %d %v", m, r, err)
		}
	})
}

func TestV4AChainIsVerifiedOnFromWhereItWasLeft(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		s := storetest.Open(t, store.Config{Database: database})
		more := func(n int) {
			for range n {
				add(t, s, event.Event{Type: event.SigninAllowed, Subject: "anna"})
			}
		}
		ctx := t.Context()
		more(5)
		tails, done, err := s.VerifyOn(ctx, nil, 100)
		if err != nil || !done || tails["main"].Seq != 5 || tails["main"].Broken != 0 {
			t.Fatalf("%+v %v %v", tails, done, err)
		}
		more(3)
		tails, done, err = s.VerifyOn(ctx, tails, 100)
		if err != nil || !done || tails["main"].Seq != 8 || tails["main"].Broken != 0 {
			t.Fatalf("%+v %v %v", tails, done, err)
		}
		// What lies before is not read again; what comes is.
		more(2)
		if _, err := raw(t, database).Exec("UPDATE events SET subject = 'mallory' WHERE seq IN (3, 10)"); err != nil {
			t.Fatal(err)
		}
		tails, _, err = s.VerifyOn(ctx, tails, 100)
		if err != nil || tails["main"].Seq != 9 || tails["main"].Broken != 10 || tails["main"].Why == "" {
			t.Fatalf("%+v %v", tails, err)
		}
		// A break stays one.
		more(1)
		if again, _, err := s.VerifyOn(ctx, tails, 100); err != nil || again["main"] != tails["main"] {
			t.Fatalf("%+v %v", again, err)
		}
		if fresh, _, err := s.VerifyOn(ctx, nil, 100); err != nil || fresh["main"].Broken != 3 {
			t.Fatalf("%+v %v", fresh, err)
		}
	})
}

func TestV4VerifyingOnIsBoundedAndComesToTheEnd(t *testing.T) {
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	var all []event.Event
	for range 2500 {
		all = append(all, event.Event{Type: event.SigninAllowed})
	}
	add(t, s, all...)
	var tails map[string]store.Tail
	for look := 1; ; look++ {
		var done bool
		var err error
		if tails, done, err = s.VerifyOn(t.Context(), tails, 1000); err != nil {
			t.Fatal(err)
		}
		if want := int64(min(look*1000, 2500)); tails["main"].Seq != want || tails["main"].Broken != 0 {
			t.Fatalf("look %d came to %+v", look, tails["main"])
		}
		if done != (look >= 3) {
			t.Fatalf("look %d: done %v", look, done)
		}
		if done {
			break
		}
	}
}
