package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/store/db"
)

// head is the end of this replica's chain as the batch has it.
type head struct {
	locked bool
	was    int64 // seq in the table
	seq    int64
	hash   event.Hash
}

func (s *Store) startChain(ctx context.Context) error {
	_, err := db.New(s.write).StartChain(ctx, db.StartChainParams{Chain: s.conf.Replica, Hash: make([]byte, len(event.Hash{}))})
	return err
}

// Event writes e into the log, in this transaction, at the next place of this
// replica's chain, which it returns. It fills in ID and ReceivedAt, and At when it
// is 0. Text that PostgreSQL could not keep (NUL, broken UTF-8) is replaced, so that
// a hostile name can not keep an event out of the log.
func (tx *Tx) Event(e event.Event) (seq int64, err error) {
	if tx.spoilt != nil {
		return 0, tx.spoilt
	}
	b := tx.b
	h := &b.head
	ctx := b.ctx
	if err := tx.lockChain(ctx); err != nil {
		return 0, err
	}
	if e.ID == "" {
		e.ID = NewID()
	}
	if e.ReceivedAt == 0 {
		e.ReceivedAt = clock.Micros(b.s.conf.Clock.Now())
	}
	if e.At == 0 {
		e.At = e.ReceivedAt
	}
	for _, f := range []*string{
		&e.ID, (*string)(&e.Type), &e.Actor, &e.Subject, &e.UserID, &e.MachineID, &e.Machine, &e.Address,
		&e.Scope, &e.Service, &e.Link, &e.Outcome, &e.Reason, &e.Factor,
	} {
		*f = storable(*f)
	}
	if len(e.Data) > 0 {
		if !json.Valid(e.Data) {
			return 0, tx.spoil(fmt.Errorf("event %s: its data is not JSON", e.Type))
		}
		e.Data = json.RawMessage(storable(string(e.Data)))
	}
	prev := h.hash
	next := event.Next(b.s.conf.Replica, uint64(h.seq+1), prev, e)
	err = tx.InsertEvent(ctx, db.InsertEventParams{
		Chain: b.s.conf.Replica, Seq: h.seq + 1, ID: e.ID, Type: string(e.Type), Actor: e.Actor, Subject: e.Subject,
		UserID: e.UserID, MachineID: e.MachineID, Machine: e.Machine, Address: e.Address, Scope: e.Scope, Service: e.Service,
		Link: e.Link, Outcome: e.Outcome, Reason: e.Reason, Factor: e.Factor, At: e.At, ReceivedAt: e.ReceivedAt,
		Data: string(e.Data), PrevHash: prev[:], Hash: next[:],
	})
	if err != nil {
		return 0, tx.spoil(fmt.Errorf("write the event %s: %w", e.Type, err))
	}
	h.seq++
	h.hash = next
	b.noted = true
	seq = h.seq
	if on := b.s.onEvent.Load(); on != nil {
		if err := (*on)(ctx, tx, e); err != nil {
			return 0, tx.spoil(fmt.Errorf("what follows from the event %s: %w", e.Type, err))
		}
	}
	return seq, nil
}

// OnEvent has fn called for every event of this server, in the transaction that
// writes it: what fn writes stands or falls with what the event speaks of. fn does no
// other I/O, and must be quick for the many events that it has nothing to do with. There
// is one fn; it is set before the store is used by several.
func (s *Store) OnEvent(fn func(ctx context.Context, tx *Tx, e event.Event) error) {
	s.onEvent.Store(&fn)
}

// lockChain takes this replica's chain for the transaction.
func (tx *Tx) lockChain(ctx context.Context) error {
	b := tx.b
	if b.head.locked {
		return nil
	}
	row, err := tx.LockChain(ctx, b.s.conf.Replica)
	if err != nil {
		return tx.spoil(fmt.Errorf("the event chain %q: %w", b.s.conf.Replica, err))
	}
	h := head{locked: true, was: row.Seq, seq: row.Seq}
	copy(h.hash[:], row.Hash)
	if last := b.s.last; !b.s.rewinding && (h.seq < last.seq || h.seq == last.seq && last.seq > 0 && h.hash != last.hash) {
		b.s.found = h
		return tx.spoil(errRewound)
	}
	b.head = h
	return nil
}

func (tx *Tx) spoil(err error) error {
	if tx.spoilt == nil {
		tx.spoilt = err
	}
	return err
}

func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// moveHead writes the new end of the chain, once for the whole batch.
func (b *batch) moveHead() error {
	h := b.head
	if !h.locked || h.seq == h.was {
		return nil
	}
	n, err := db.New(b.db).MoveChain(b.ctx, db.MoveChainParams{Chain: b.s.conf.Replica, Seq: h.seq, Hash: h.hash[:], OldSeq: h.was})
	if err != nil {
		return fmt.Errorf("move the event chain %q: %w", b.s.conf.Replica, err)
	}
	if n != 1 {
		return fmt.Errorf("the event chain %q was moved by somebody else: is its name used by two servers?", b.s.conf.Replica)
	}
	return nil
}

// EventOf is the event as it was given to Tx.Event.
func EventOf(r db.Event) event.Event {
	e := event.Event{
		ID: r.ID, Type: event.Type(r.Type), Actor: r.Actor, Subject: r.Subject, UserID: r.UserID, MachineID: r.MachineID,
		Machine: r.Machine, Address: r.Address, Scope: r.Scope, Service: r.Service, Link: r.Link, Outcome: r.Outcome,
		Reason: r.Reason, Factor: r.Factor, At: r.At, ReceivedAt: r.ReceivedAt,
	}
	if r.Data != "" {
		e.Data = json.RawMessage(r.Data)
	}
	return e
}

// The order of db.Event's fields.
const eventColumns = "chain, seq, id, type, actor, subject, user_id, machine_id, machine, address, scope, service, link, outcome, reason, factor, at, received_at, data, prev_hash, hash"

func scanEvents(rows *sql.Rows) ([]db.Event, error) {
	defer rows.Close()
	out := []db.Event{}
	for rows.Next() {
		var e db.Event
		if err := rows.Scan(&e.Chain, &e.Seq, &e.ID, &e.Type, &e.Actor, &e.Subject, &e.UserID, &e.MachineID, &e.Machine, &e.Address,
			&e.Scope, &e.Service, &e.Link, &e.Outcome, &e.Reason, &e.Factor, &e.At, &e.ReceivedAt, &e.Data, &e.PrevHash, &e.Hash); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, errors.Join(rows.Err(), rows.Close())
}

// Position is how far a follower has read: the last seq of every chain.
type Position map[string]int64

// Position is the end of all chains now.
func (s *Store) Position(ctx context.Context) (Position, error) {
	p := Position{}
	return p, s.Read(ctx, func(q *Queries) error {
		chains, err := q.ListChains(ctx)
		for _, c := range chains {
			p[c.Chain] = c.Seq
		}
		return err
	})
}

// EventsAfter gives up to limit events behind p in the order of their chains, and
// moves p. No event is missed or given twice, whatever the clocks of the replicas say.
func (s *Store) EventsAfter(ctx context.Context, p Position, limit int) ([]db.Event, error) {
	var out []db.Event
	err := s.Read(ctx, func(q *Queries) error {
		chains, err := q.ListChains(ctx)
		if err != nil {
			return err
		}
		for _, c := range chains {
			if c.Seq <= p[c.Chain] || len(out) >= limit {
				continue
			}
			events, err := q.ListChainEvents(ctx, db.ListChainEventsParams{Chain: c.Chain, After: p[c.Chain], N: int64(limit - len(out))})
			if err != nil {
				return err
			}
			for _, e := range events {
				p[c.Chain] = e.Seq
			}
			out = append(out, events...)
		}
		return nil
	})
	return out, err
}

// Mark is a place in a chain that was recorded elsewhere (a checkpoint, the SIEM):
// the event at Seq has this hash.
type Mark struct {
	Chain string
	Seq   int64
	Hash  event.Hash
}

// ParseMark reads "CHAIN:SEQ:HASH", as Mark.String writes it.
func ParseMark(s string) (Mark, error) {
	var m Mark
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return m, fmt.Errorf("the mark %q is not CHAIN:SEQ:HASH", s)
	}
	raw, err := hex.DecodeString(s[i+1:])
	j := strings.LastIndexByte(s[:i], ':')
	if err != nil || len(raw) != len(m.Hash) || j < 1 {
		return m, fmt.Errorf("the mark %q is not CHAIN:SEQ:HASH with a hash of %d hexadecimal digits", s, 2*len(m.Hash))
	}
	if _, err := fmt.Sscanf(s[j+1:i], "%d", &m.Seq); err != nil || m.Seq < 0 || fmt.Sprint(m.Seq) != s[j+1:i] {
		return m, fmt.Errorf("the mark %q has no number in its middle", s)
	}
	m.Chain = s[:j]
	copy(m.Hash[:], raw)
	return m, nil
}

func (m Mark) String() string { return fmt.Sprintf("%s:%d:%x", m.Chain, m.Seq, m.Hash[:]) }

// Heads are the ends of all chains now: what is worth recording elsewhere every
// hour (V4).
func (s *Store) Heads(ctx context.Context) ([]Mark, error) {
	var out []Mark
	err := s.Read(ctx, func(q *Queries) error {
		chains, err := q.ListChains(ctx)
		for _, c := range chains {
			m := Mark{Chain: c.Chain, Seq: c.Seq}
			copy(m.Hash[:], c.Hash)
			out = append(out, m)
		}
		return err
	})
	return out, err
}

// ChainReport says whether one chain is whole.
type ChainReport struct {
	Chain  string
	Events int64 // that were checked
	Head   Mark  // where the chain ends
	// Broken is the first seq that is wrong, 0 if the chain is whole; Why says how.
	Broken int64
	Why    string
}

// Report is the outcome of VerifyEvents.
type Report struct {
	Chains []ChainReport
	Events int64
}

// Whole tells whether every chain is whole.
func (r Report) Whole() bool {
	for _, c := range r.Chains {
		if c.Broken != 0 {
			return false
		}
	}
	return true
}

// VerifyEvents recomputes every chain from its first event and compares it with the
// heads in the table and with the marks that were kept outside of the database. An edit,
// a missing or inserted event, a changed order, a cut-off end and a beginning that is gone
// are seen: nothing in the database can say that events were rightly removed. The marks
// make a chain visible that was rewritten as a whole. The signed checkpoints among the
// events are package checkpoint's business.
func (s *Store) VerifyEvents(ctx context.Context, marks ...Mark) (Report, error) {
	var r Report
	err := s.Read(ctx, func(q *Queries) error {
		chains, err := q.ListChains(ctx)
		if err != nil {
			return err
		}
		known := map[string]bool{}
		for _, c := range chains {
			known[c.Chain] = true
			cr, err := verifyChain(ctx, q, c, marks)
			if err != nil {
				return err
			}
			r.Chains = append(r.Chains, cr)
			r.Events += cr.Events
		}
		for _, m := range marks {
			if !known[m.Chain] {
				known[m.Chain] = true
				r.Chains = append(r.Chains, ChainReport{Chain: m.Chain, Broken: m.Seq, Why: "the whole chain is missing"})
			}
		}
		// Events of a chain that has no head were put in by hand.
		others, err := q.ListEventChains(ctx)
		if err != nil {
			return err
		}
		for _, name := range others {
			if !known[name] {
				r.Chains = append(r.Chains, ChainReport{Chain: name, Broken: 1, Why: "there are events but no head of the chain"})
			}
		}
		return nil
	})
	if err != nil {
		return Report{}, fmt.Errorf("verify the events: %w", err)
	}
	return r, nil
}

func verifyChain(ctx context.Context, q *Queries, c db.Chain, marks []Mark) (ChainReport, error) {
	r := ChainReport{Chain: c.Chain}
	var seq int64
	var hash event.Hash
	at := map[int64]event.Hash{}
	for _, m := range marks {
		if m.Chain == c.Chain {
			at[m.Seq] = m.Hash
		}
	}
	broken := func(seq int64, why string) (ChainReport, error) {
		r.Broken, r.Why = seq, why
		return r, nil
	}
	if m, ok := at[0]; ok && m != hash {
		return broken(1, "it differs from the hash that was recorded outside")
	}
	for {
		page, err := q.ListChainEvents(ctx, db.ListChainEventsParams{Chain: c.Chain, After: seq, N: 1000})
		if err != nil {
			return r, err
		}
		for _, e := range page {
			if e.Seq != seq+1 {
				return broken(seq+1, "it is missing")
			}
			next := event.Next(c.Chain, uint64(e.Seq), hash, EventOf(e))
			switch {
			case string(e.PrevHash) != string(hash[:]):
				return broken(e.Seq, "it does not follow the event before it")
			case string(e.Hash) != string(next[:]):
				return broken(e.Seq, "it was edited: its hash does not fit its content")
			}
			if m, ok := at[e.Seq]; ok && m != next {
				return broken(e.Seq, "it differs from the hash that was recorded outside")
			}
			seq, hash = e.Seq, next
			r.Events++
		}
		if len(page) < 1000 {
			break
		}
	}
	r.Head = Mark{Chain: c.Chain, Seq: seq, Hash: hash}
	for s := range at {
		if s > seq {
			return broken(seq+1, "it is missing: the chain was longer when its end was recorded outside")
		}
	}
	switch {
	case c.Seq > seq:
		return broken(seq+1, "it is missing: the chain's recorded end lies behind it")
	case c.Seq < seq || string(c.Hash) != string(hash[:]):
		return broken(seq, "the chain's recorded end is another")
	}
	return r, nil
}
