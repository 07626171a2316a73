package offline

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"slices"
	"sync"
	"unicode/utf8"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// What the journal of one machine may make of itself in a day of the server's clock.
// Beyond dayEvents whatever has opened nothing is acknowledged and counted, and one
// event at the day's end says how many of which. A code that was good until the journal
// came is always an event of its own. What has opened the machine without one is an
// event of its own up to a number for each user and type: what one person does over and
// over hides nothing of another's. Nothing waits on the machine: an answer that could
// say "no further" would say which code was right. So an honest machine loses the
// details of the two thousandth refusal and of one person's five hundredth sign-in
// without a code, and root on another fills no disk.
const (
	dayEvents = 2000
	// dayOpenings are of one user and type; freeOpenings of them are events also where
	// the machine has made mostOpenings of all.
	dayOpenings  = 500
	freeOpenings = 10
	mostOpenings = 5000
	// maxKinds bounds what is told apart in a day's count.
	maxKinds = 64
	// keptData is how much of an entry's data an event keeps; a trace has three
	// kilobytes.
	keptData = 8 << 10
	// dayWrong is how many wrong proofs of one user a machine may show in a day. An
	// honest one shows none: it makes them of codes that its own tags have accepted. A
	// guesser has five tries in a million at a code, instead of millions.
	dayWrong = 5
)

// Reasons of event.JournalFolded.
const (
	reasonDayEvents   = "day-events-used-up"
	reasonDayOpenings = "day-openings-used-up"
	reasonDayCount    = "day-count"
)

// opening tells entries that say that the machine was opened or a code spent.
func opening(e wire.JournalEntry) bool {
	return e.Spent != nil || slices.Contains([]event.Type{event.SigninAllowed, event.SigninIgnored, event.BreakGlass, event.FactorAccepted}, e.Event.Type)
}

// tally is a machine's count of one day.
type tally struct {
	day, taken, folded int64
	counts
}

// counts are what a day's count tells apart.
type counts struct {
	Kinds    map[string]int64 `json:"kinds"`              // what was only counted
	Openings map[string]int64 `json:"openings,omitempty"` // by type and user
	Wrong    map[string]int64 `json:"wrong,omitempty"`    // proofs, by user
	Told     map[string]bool  `json:"told,omitempty"`     // reasons of journal.folded
}

func newTally(day int64) tally {
	return tally{day: day, counts: counts{Kinds: map[string]int64{}, Openings: map[string]int64{}, Wrong: map[string]int64{}, Told: map[string]bool{}}}
}

func tallyOf(h db.JournalHead) tally {
	t := newTally(h.Day)
	t.taken, t.folded = h.Taken, h.Folded
	if h.Kinds != "" {
		_ = json.Unmarshal([]byte(h.Kinds), &t.counts) // damaged: the numbers are there all the same
	}
	return t
}

func (t tally) column() string {
	if len(t.Kinds)+len(t.Openings)+len(t.Wrong) == 0 {
		return ""
	}
	b, err := json.Marshal(t.counts)
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
	r.tally = newTally(day)
	return r.counted(was)
}

// counted is the event of a day that is over.
func (r *reader) counted(t tally) error {
	if t.folded == 0 {
		return nil
	}
	_, err := r.tx.Event(r.about(event.JournalFolded, reasonDayCount, map[string]any{
		"day": clock.FromMicros(t.day * 24 * 3600 * 1_000_000).UTC().Format("2006-01-02"), "events": t.taken, "counted": t.folded, "kinds": t.Kinds,
	}))
	return err
}

// emit makes an event, or counts it where the day has had its events. own: always an
// event.
func (r *reader) emit(e event.Event, own bool) error {
	r.changed = true
	if own || r.tally.taken < dayEvents {
		r.tally.taken++
		_, err := r.tx.Event(e)
		return err
	}
	return r.fold(e, reasonDayEvents)
}

// open makes an event of what has opened the machine, or counts it where the user has
// had his of that type.
func (r *reader) open(e event.Event) error {
	r.changed = true
	key := string(e.Type) + " " + e.UserID
	r.tally.Openings[key]++
	if n := r.tally.Openings[key]; n <= freeOpenings || n <= dayOpenings && r.tally.taken < mostOpenings {
		r.tally.taken++
		_, err := r.tx.Event(e)
		return err
	}
	return r.fold(e, reasonDayOpenings)
}

// fold counts what becomes no event, and says once a day that it does.
func (r *reader) fold(e event.Event, why string) error {
	kind := string(e.Type)
	if e.Reason != "" {
		kind += " " + e.Reason
	}
	if _, ok := r.tally.Kinds[kind]; !ok && len(r.tally.Kinds) >= maxKinds {
		kind = "other"
	}
	r.tally.Kinds[kind]++
	r.tally.folded++
	if r.tally.Told[why] {
		return nil
	}
	r.tally.Told[why] = true
	data := map[string]any{"events": r.tally.taken}
	if why == reasonDayOpenings {
		data["type"], data["user_id"] = e.Type, e.UserID
	}
	_, err := r.tx.Event(r.about(event.JournalFolded, why, data))
	return err
}

// guesses are the wrong proofs of a day, counted before they are judged and in memory:
// a transaction that is undone gives none back. The counts of other servers and of
// before this one's start are in the machine's row.
type guesses struct {
	mu  sync.Mutex
	day int64
	n   map[string]int64
}

// take counts a guess; false: there were enough of them.
func (g *guesses) take(key string, day, known int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n == nil || day > g.day {
		g.day, g.n = day, map[string]int64{}
	}
	n := max(g.n[key], known)
	if n >= dayWrong {
		return false
	}
	g.n[key] = n + 1
	return true
}

// right takes back what was none, and wrong tells how many there were.
func (g *guesses) right(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n[key]--
}

func (g *guesses) wrong(key string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.n[key]
}

// proved compares a proof; a reason says why it does not count.
func (r *reader) proved(u *db.User, sp wire.Spent, want []byte) (reason string) {
	if len(sp.Proof) != wire.ProofSize {
		return reasonProof // no guess
	}
	key := r.m.ID + " " + u.ID
	if !r.guesses.take(key, r.tally.day, r.tally.Wrong[u.ID]) {
		return reasonGuesses
	}
	if hmac.Equal(sp.Proof, want) {
		r.guesses.right(key)
		return ""
	}
	r.tally.Wrong[u.ID] = r.guesses.wrong(key)
	return reasonProof
}

// clip bounds the data of an entry.
func clip(data json.RawMessage) json.RawMessage {
	if len(data) <= keptData && utf8.Valid(data) {
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
