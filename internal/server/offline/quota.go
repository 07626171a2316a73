package offline

import (
	"context"
	"encoding/json"
	"slices"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// What the journal of one machine may make of itself in a day of the server's clock.
// Beyond dayEvents whatever has opened nothing is acknowledged and counted, and one
// event at the day's end says how many of which. What has opened the machine, or has
// spent a code, stays an event of its own; beyond dayOpenings it is not taken over
// before the next day, and the machine keeps it. So an honest machine loses the details
// of the two thousandth refusal and nothing else, and root on another fills no disk.
const (
	dayEvents   = 2000
	dayOpenings = 5000
	// maxKinds bounds what is told apart in a day's count.
	maxKinds = 64
	// keptData is how much of an entry's data an event keeps; a trace has three
	// kilobytes.
	keptData = 8 << 10
)

// Reasons of event.JournalFolded.
const (
	reasonDayEvents   = "day-events-used-up"
	reasonDayOpenings = "day-openings-used-up"
	reasonDayCount    = "day-count"
)

// held is the kind under which a day's count says that entries had to wait.
const held = "held"

// opening tells entries that say that the machine was opened or a code spent.
func opening(e wire.JournalEntry) bool {
	return e.Spent != nil || slices.Contains([]event.Type{event.SigninAllowed, event.SigninIgnored, event.BreakGlass, event.FactorAccepted}, e.Event.Type)
}

// tally is a machine's count of one day.
type tally struct {
	day, taken, folded int64
	kinds              map[string]int64
}

func tallyOf(h db.JournalHead) tally {
	t := tally{day: h.Day, taken: h.Taken, folded: h.Folded, kinds: map[string]int64{}}
	if h.Kinds != "" {
		_ = json.Unmarshal([]byte(h.Kinds), &t.kinds) // damaged: the number is there all the same
	}
	return t
}

func (t tally) column() string {
	if len(t.kinds) == 0 {
		return ""
	}
	b, err := json.Marshal(t.kinds)
	if err != nil {
		return "" // only texts and numbers go in
	}
	return string(b)
}

func today(micros int64) int64 { return micros / (24 * 3600 * 1_000_000) }

// begin makes the count one of today, and closes that of an earlier day.
func (r *reader) begin() error {
	r.tally = tallyOf(r.head)
	day := today(clock.Micros(r.now))
	if r.tally.day == day {
		return nil
	}
	was := r.tally
	r.tally = tally{day: day, kinds: map[string]int64{}}
	return r.counted(was)
}

// counted is the event of a day that is over.
func (r *reader) counted(t tally) error {
	if t.folded == 0 {
		return nil
	}
	kinds := map[string]int64{}
	for k, n := range t.kinds {
		if k != held {
			kinds[k] = n
		}
	}
	_, err := r.tx.Event(r.about(event.JournalFolded, reasonDayCount, map[string]any{
		"day": clock.FromMicros(t.day * 24 * 3600 * 1_000_000).UTC().Format("2006-01-02"), "events": t.taken, "counted": t.folded, "kinds": kinds,
	}))
	return err
}

// full tells whether an entry that has opened something must wait for tomorrow.
func (r *reader) full(e wire.JournalEntry) (bool, error) {
	if !opening(e) || r.tally.taken < dayOpenings {
		return false, nil
	}
	if r.tally.kinds[held] > 0 {
		return true, nil
	}
	r.tally.kinds[held] = 1
	r.changed = true
	_, err := r.tx.Event(r.about(event.JournalFolded, reasonDayOpenings, map[string]any{"events": r.tally.taken}))
	return true, err
}

// emit makes an event, or counts it where the day has had its events.
func (r *reader) emit(e event.Event, opened bool) error {
	r.changed = true
	if r.tally.taken < dayEvents || opened {
		r.tally.taken++
		_, err := r.tx.Event(e)
		return err
	}
	kind := string(e.Type)
	if e.Reason != "" {
		kind += " " + e.Reason
	}
	if _, ok := r.tally.kinds[kind]; !ok && len(r.tally.kinds) >= maxKinds {
		kind = "other"
	}
	r.tally.kinds[kind]++
	if r.tally.folded++; r.tally.folded > 1 {
		return nil
	}
	_, err := r.tx.Event(r.about(event.JournalFolded, reasonDayEvents, map[string]any{"events": r.tally.taken}))
	return err
}

// clip bounds the data of an entry.
func clip(data json.RawMessage) json.RawMessage {
	if len(data) <= keptData {
		return data
	}
	return object(map[string]any{"dropped_octets": len(data)})
}

// about is an event about the machine's journal.
func (r *reader) about(t event.Type, reason string, data map[string]any) event.Event {
	return event.Event{
		Type: t, Subject: r.m.Name, MachineID: r.m.ID, Machine: r.m.Name, Outcome: "noticed", Reason: text.CleanN(reason, 64), Data: object(data),
	}
}

// CloseDays makes the events of days that are over and of which entries were only
// counted, also of machines that do not come back. It is a job for any replica at any
// time.
func (s *Service) CloseDays(ctx context.Context) error {
	const batch = 100
	for {
		n := 0
		err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			now := s.Clock.Now()
			heads, err := tx.ListFoldedJournals(ctx, db.ListFoldedJournalsParams{Today: today(clock.Micros(now)), N: batch})
			if err != nil {
				return err
			}
			n = len(heads)
			for _, h := range heads {
				m, err := tx.GetMachine(ctx, h.MachineID)
				if err != nil {
					return err
				}
				r := &reader{Service: s, tx: tx, m: m, now: now, head: h}
				if err := r.begin(); err != nil {
					return err
				}
				if _, err := r.keep(ctx, h); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n < batch {
			return err
		}
	}
}

// keep writes the head and the count, if nobody else has moved them since was.
func (r *reader) keep(ctx context.Context, was db.JournalHead) (int64, error) {
	return r.tx.MoveJournalHead(ctx, db.MoveJournalHeadParams{
		MachineID: r.m.ID, Seq: r.head.Seq, Hash: r.head.Hash, Counter: r.head.Counter, At: r.head.EntriesAt,
		Day: r.tally.day, Taken: r.tally.taken, Folded: r.tally.folded, Kinds: r.tally.column(),
		OldSeq: was.Seq, OldDay: was.Day, OldTaken: was.Taken, OldFolded: was.Folded,
	})
}
