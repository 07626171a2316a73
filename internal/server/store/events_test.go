package store_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/storetest"
)

func add(t testing.TB, s *store.Store, events ...event.Event) {
	t.Helper()
	err := s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
		for _, e := range events {
			if _, err := tx.Event(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// raw opens the database behind the store's back.
func raw(t testing.TB, database string) *sql.DB {
	t.Helper()
	driver, dsn := "pgx", database
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
		driver, dsn = "sqlite", path
	}
	d, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestV4ATouchedChainIsNamed(t *testing.T) {
	cases := []struct {
		name   string
		sql    []string
		marks  []store.Mark
		broken int64
		why    string
	}{
		{"nothing was touched", nil, nil, 0, ""},
		{"a field was edited", []string{"UPDATE events SET actor = 'mallory' WHERE seq = 3"}, nil, 3, "edited"},
		{"an empty field was filled", []string{"UPDATE events SET link = 'up' WHERE seq = 4"}, nil, 4, "edited"},
		{"the data were edited", []string{"UPDATE events SET data = '{\"n\": 2}' WHERE seq = 2"}, nil, 2, "edited"},
		{"the time was edited", []string{"UPDATE events SET at = at + 1 WHERE seq = 5"}, nil, 5, "edited"},
		{"one was deleted", []string{"DELETE FROM events WHERE seq = 3"}, nil, 3, "missing"},
		{"the first was deleted", []string{"DELETE FROM events WHERE seq = 1"}, nil, 1, "missing"},
		{"the last was deleted", []string{"DELETE FROM events WHERE seq = 6"}, nil, 6, "missing"},
		{"two changed places", []string{
			"UPDATE events SET seq = 100 WHERE seq = 3", "UPDATE events SET seq = 3 WHERE seq = 4", "UPDATE events SET seq = 4 WHERE seq = 100",
		}, nil, 3, "follow"},
		{"one was put in", []string{
			"INSERT INTO events (chain, seq, id, type, at, received_at, prev_hash, hash) SELECT chain, 7, 'x', type, at, received_at, hash, hash FROM events WHERE seq = 6",
		}, nil, 7, "edited"},
		{"the last and the head were cut off", []string{
			"DELETE FROM events WHERE seq = 6",
			"UPDATE chains SET seq = 5, hash = (SELECT hash FROM events WHERE seq = 5)",
		}, []store.Mark{{Chain: "main", Seq: 6}}, 6, "longer"},
		{"the whole chain was removed", []string{"DELETE FROM events", "DELETE FROM chains"}, []store.Mark{{Chain: "main", Seq: 6}}, 6, "chain is missing"},
		{"the head alone was removed", []string{"DELETE FROM chains"}, nil, 1, "no head"},
		{"the head was edited", []string{"UPDATE chains SET hash = prev.h FROM (SELECT prev_hash AS h FROM events WHERE seq = 3) AS prev"}, nil, 6, "recorded end"},
		{"a hash that was kept outside differs", nil, []store.Mark{{Chain: "main", Seq: 4, Hash: event.Hash{1}}}, 4, "outside"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			storetest.Databases(t, func(t *testing.T, database string) {
				s := storetest.Open(t, store.Config{Database: database})
				for i := range 6 {
					add(t, s, event.Event{Type: event.SigninAllowed, Actor: "alice", Data: json.RawMessage(fmt.Sprintf(`{"n": %d}`, i+10))})
				}
				d := raw(t, database)
				for _, q := range c.sql {
					if _, err := d.Exec(q); err != nil {
						t.Fatalf("%s: %v", q, err)
					}
				}
				r, err := s.VerifyEvents(t.Context(), c.marks...)
				if err != nil {
					t.Fatal(err)
				}
				if len(r.Chains) != 1 || r.Chains[0].Broken != c.broken || !strings.Contains(r.Chains[0].Why, c.why) || r.Whole() != (c.broken == 0) {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// Whoever has the database alone, and takes the oldest events away, can write nothing
// into it that makes this look like order.
func TestV4TheOldestEventsAreMissedWhateverTheDatabaseSays(t *testing.T) {
	storetest.Databases(t, func(t *testing.T, database string) {
		s := storetest.Open(t, store.Config{Database: database})
		for range 6 {
			add(t, s, event.Event{Type: event.SigninAllowed})
		}
		before, err := s.VerifyEvents(t.Context())
		if err != nil || !before.Whole() {
			t.Fatalf("%+v, %v", before, err)
		}
		if heads, err := s.Heads(t.Context()); err != nil || len(heads) != 1 || heads[0] != before.Chains[0].Head {
			t.Errorf("heads %v, %v; want %v", heads, err, before.Chains[0].Head)
		}
		d := raw(t, database)
		for _, q := range []string{
			"DELETE FROM events WHERE seq <= 4",
			// The table that once could speak for what was removed, as a server of today would never write it.
			"CREATE TABLE checkpoints (chain TEXT, seq BIGINT, hash BYTEA, at BIGINT, signature BYTEA)",
			"INSERT INTO checkpoints SELECT chain, 4, prev_hash, 1, hash FROM events WHERE seq = 5",
		} {
			if _, err := d.Exec(q); err != nil {
				t.Fatal(err)
			}
		}
		for _, marks := range [][]store.Mark{nil, {before.Chains[0].Head}} {
			if r, err := s.VerifyEvents(t.Context(), marks...); err != nil || r.Whole() || r.Chains[0].Broken != 1 {
				t.Errorf("%+v, %v", r, err)
			}
		}
		if tails, _, err := s.VerifyOn(t.Context(), nil, 1000); err != nil || tails["main"].Broken != 1 {
			t.Errorf("the watch: %+v, %v", tails, err)
		}
	})
}

func TestAnEventComesBackAsItWasGiven(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	storetest.EnginesAt(t, clock.NewManual(now), func(t *testing.T, s *store.Store) {
		full := event.Event{
			ID: "id", Type: event.SigninDenied, Actor: "alice", Subject: "ål\u0301ice <&>", UserID: "u", MachineID: "m", Machine: "host", Address: "192.0.2.1",
			Scope: "logon", Service: "sshd", Link: "up", Outcome: "denied", Reason: "r", Factor: "totp", At: 5, ReceivedAt: 6, Data: json.RawMessage(`{ "b":1, "a":"\u0000<" }`),
		}
		add(t, s, full, event.Event{Type: event.SigninDenied, Subject: "a\x00b\xff"})
		list, err := s.Events(t.Context(), store.EventFilter{})
		if err != nil || len(list) != 2 {
			t.Fatalf("%v, %v", list, err)
		}
		if d := cmp.Diff(full, store.EventOf(list[1])); d != "" {
			t.Error(d)
		}
		hostile := store.EventOf(list[0])
		if hostile.Subject != "a\uFFFDb\uFFFD" || hostile.At != now.UnixMicro() || hostile.ReceivedAt != now.UnixMicro() || hostile.ID == "" {
			t.Errorf("%+v", hostile)
		}
		verify(t, s, 2)
		err = s.Update(t.Context(), func(_ context.Context, tx *store.Tx) error {
			_, err := tx.Event(event.Event{Type: event.SigninDenied, Data: json.RawMessage(`{`)})
			return err
		})
		if err == nil {
			t.Error("data that are not JSON were taken")
		}
		verify(t, s, 2)
	})
}

func TestV2EventsAreFilteredAndPaged(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		types := []event.Type{event.SigninAllowed, event.SigninDenied, event.UserAdded}
		for i := range 30 {
			add(t, s, event.Event{ID: fmt.Sprintf("e%02d", i), Type: types[i%3], UserID: fmt.Sprint("u", i%2), MachineID: fmt.Sprint("m", i%5), Outcome: []string{"allowed", "denied"}[i%2], At: int64(100 + i/4)})
		}
		ids := func(f store.EventFilter) string {
			t.Helper()
			list, err := s.Events(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, e := range list {
				out = append(out, e.ID)
			}
			return strings.Join(out, " ")
		}
		for _, c := range []struct {
			name   string
			filter store.EventFilter
			want   string
		}{
			{"the youngest first", store.EventFilter{Limit: 3}, "e29 e28 e27"},
			{"one type", store.EventFilter{Types: []string{"user.added"}, Limit: 2}, "e29 e26"},
			{"a family of types", store.EventFilter{Types: []string{"signin."}, Limit: 3}, "e28 e27 e25"},
			{"two types", store.EventFilter{Types: []string{"user.added", "signin.allowed"}, Limit: 3}, "e29 e27 e26"},
			{"user and machine", store.EventFilter{UserID: "u1", MachineID: "m2"}, "e27 e17 e07"},
			{"an outcome", store.EventFilter{Outcome: "denied", MachineID: "m0"}, "e25 e15 e05"},
			{"a span", store.EventFilter{Since: 101, Until: 102}, "e07 e06 e05 e04"},
			{"behind the last one", store.EventFilter{BeforeAt: 101, BeforeID: "e06", Limit: 4}, "e05 e04 e03 e02"},
			{"nothing", store.EventFilter{UserID: "u9"}, ""},
		} {
			if got := ids(c.filter); got != c.want {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
		}
		var f store.EventFilter
		f.Limit = 7
		seen := 0
		for {
			list, err := s.Events(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) == 0 {
				break
			}
			seen += len(list)
			f.BeforeAt, f.BeforeID = list[len(list)-1].At, list[len(list)-1].ID
		}
		if seen != 30 {
			t.Errorf("paging shows %d of 30", seen)
		}
	})
}

func TestV2AFollowerMissesNothing(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		add(t, s, event.Event{Type: event.UserAdded, Subject: "before"})
		woken, cancel := s.WatchEvents()
		defer cancel()
		pos, err := s.Position(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const n = 60
		go func() {
			for i := range n {
				add(t, s, event.Event{Type: event.UserAdded, Subject: fmt.Sprint(i)})
			}
		}()
		for got := 0; got < n; {
			select {
			case <-woken:
			case <-time.After(10 * time.Second):
				t.Fatalf("not woken after %d", got)
			}
			for {
				list, err := s.EventsAfter(t.Context(), pos, 7)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range list {
					if e.Subject != fmt.Sprint(got) {
						t.Fatalf("got %s, want %d", e.Subject, got)
					}
					got++
				}
				if len(list) == 0 {
					break
				}
			}
		}
	})
}

func TestAMarkIsReadAsItWasWritten(t *testing.T) {
	m := store.Mark{Chain: "a:b", Seq: 77, Hash: event.Hash{1, 2, 255}}
	got, err := store.ParseMark(m.String())
	if err != nil || got != m {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", ":", "a:1", "a:x:" + strings.Repeat("0", 64), ":1:" + strings.Repeat("0", 64), "a:-1:" + strings.Repeat("0", 64), "a:01:" + strings.Repeat("0", 64), "a:1:00", "a:1:" + strings.Repeat("z", 64)} {
		if m, err := store.ParseMark(bad); err == nil {
			t.Errorf("%q was read as %v", bad, m)
		}
	}
}

func FuzzParseMark(f *testing.F) {
	f.Add(store.Mark{Chain: "main", Seq: 5, Hash: event.Hash{9}}.String())
	f.Add("a:b:1:00")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := store.ParseMark(s)
		if err == nil && !strings.EqualFold(m.String(), s) {
			t.Errorf("%q became %q", s, m)
		}
	})
}
