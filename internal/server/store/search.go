package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/server/store/db"
)

// EventFilter chooses events; an empty field means any.
type EventFilter struct {
	Types     []string // exact words, or "signin." for all that begin so
	UserID    string
	MachineID string
	Outcome   string
	Reason    string
	Scope     string
	Service   string
	Link      string
	Factor    string
	Actor     string
	Address   string
	// Text is contained in subject, actor, machine, address, service or reason, whatever
	// the case of ASCII letters.
	Text  string
	Since int64 // at the source, inclusive
	Until int64 // exclusive; 0 = no end
	// Before continues a list: the At and ID of the last event that was shown, or the
	// SearchedTo of an earlier look, with no ID.
	BeforeAt int64
	BeforeID string
	Limit    int // 0 = 50, at most 500
}

// Found is one page of events.
type Found struct {
	Events []db.Event
	// SearchedTo is not 0 if the look ended before the page was full and before the log
	// ended: events of before that time were not looked at.
	SearchedTo int64
}

// searchTime is how long SearchEvents goes on looking for what no index serves.
const searchTime = 120 * time.Millisecond

// mostTypes is how many types are asked for one by one.
const mostTypes = 24

// Events lists events, the youngest (by the time at the source) first, however long that
// takes.
func (s *Store) Events(ctx context.Context, f EventFilter) ([]db.Event, error) {
	found, err := s.search(ctx, f, 0)
	return found.Events, err
}

// SearchEvents is Events for somebody who waits: what an index serves comes at once, and
// for the rest it looks back in slices of time until the page is full or some tenths of a
// second are over. Found.SearchedTo says how far it came; the next look goes on from there.
func (s *Store) SearchEvents(ctx context.Context, f EventFilter) (Found, error) {
	return s.search(ctx, f, searchTime)
}

// clauses are conditions with their arguments, numbered as both engines take them.
type clauses struct {
	where []string
	args  []any
}

func (c *clauses) arg(v any) string {
	c.args = append(c.args, v)
	return fmt.Sprintf("$%d", len(c.args))
}

func (c *clauses) add(column, op string, v any) {
	c.where = append(c.where, column+" "+op+" "+c.arg(v))
}

// look is a search of which it is known how the engine shall go about it.
type look struct {
	f EventFilter
	// column = key is served by an index in the order of the list; "" walks by time.
	column, key string
	// types are asked for one by one, each by its index; nil: not so.
	types []string
	// rest are the other conditions. Their columns are dressed up, so that no engine takes
	// another index for them, which would give no order and make it sort all there is.
	rest []func(*clauses)
}

func newLook(f EventFilter, types []string) look {
	l := look{f: f}
	for _, c := range []struct{ column, v string }{
		{"user_id", f.UserID},
		{"machine_id", f.MachineID},
		{"reason", f.Reason},
		{"outcome", f.Outcome},
		{"scope", f.Scope},
		{"service", f.Service},
		{"link", f.Link},
		{"factor", f.Factor},
		{"actor", f.Actor},
		{"address", f.Address},
	} {
		indexed := c.column == "user_id" || c.column == "machine_id" || c.column == "reason"
		switch {
		case c.v == "":
		case indexed && l.column == "":
			l.column, l.key = c.column, c.v
		default:
			l.rest = append(l.rest, func(q *clauses) { q.add(c.column+" || ''", "=", c.v) })
		}
	}
	switch {
	case len(f.Types) == 0:
	case l.column == "" && len(types) <= mostTypes:
		l.types = types
	default:
		l.rest = append(l.rest, func(q *clauses) {
			var marks []string
			for _, t := range types {
				marks = append(marks, q.arg(t))
			}
			q.where = append(q.where, "type || '' IN ("+strings.Join(marks, ", ")+")")
		})
	}
	if f.Text != "" {
		pattern := "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(lowerASCII(f.Text)) + "%"
		l.rest = append(l.rest, func(q *clauses) {
			q.add(`lower((subject || ' ' || actor || ' ' || machine || ' ' || address || ' ' || service || ' ' || reason) COLLATE "C")`, "LIKE", pattern)
			q.where[len(q.where)-1] += ` ESCAPE '\'`
		})
	}
	return l
}

// lowerASCII is what lower() does on SQLite, and on PostgreSQL by the order of bytes.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// query asks for events from (inclusive) to (exclusive), n at most.
func (l look) query(from, to int64, n int) (string, []any) {
	var q clauses
	one := func(typ string) string {
		q.where = nil
		if l.column != "" {
			q.add(l.column, "=", l.key)
		}
		if typ != "" {
			q.add("type", "=", typ)
		}
		if from != 0 {
			q.add("at", ">=", from)
		}
		if to != 0 {
			q.add("at", "<", to)
		}
		if f := l.f; f.BeforeID != "" {
			at := q.arg(f.BeforeAt)
			q.where = append(q.where, "at <= "+at+" AND (at < "+at+" OR id < "+q.arg(f.BeforeID)+")")
		}
		for _, r := range l.rest {
			r(&q)
		}
		text := "SELECT " + eventColumns + " FROM events"
		if len(q.where) > 0 {
			text += " WHERE " + strings.Join(q.where, " AND ")
		}
		return text + " ORDER BY at DESC, id DESC LIMIT " + q.arg(n)
	}
	if len(l.types) == 0 {
		return one(""), q.args
	}
	var each []string
	for i, t := range l.types {
		each = append(each, fmt.Sprintf("SELECT * FROM (%s) AS t%d", one(t), i))
	}
	if len(each) == 1 {
		return each[0], q.args
	}
	return strings.Join(each, " UNION ALL ") + " ORDER BY at DESC, id DESC LIMIT " + q.arg(n), q.args
}

func (s *Store) search(ctx context.Context, f EventFilter, patience time.Duration) (Found, error) {
	if f.Limit <= 0 {
		f.Limit = 50
	}
	f.Limit = min(f.Limit, 500)
	if f.BeforeAt != 0 && f.BeforeID == "" && (f.Until == 0 || f.BeforeAt < f.Until) {
		f.Until = f.BeforeAt
	}
	out := Found{Events: []db.Event{}}
	types, err := s.typesThere(ctx, f.Types)
	if err != nil || len(f.Types) > 0 && len(types) == 0 {
		return out, err
	}
	l := newLook(f, types)
	ask := func(from, to int64) (bool, error) {
		q, args := l.query(from, to, f.Limit-len(out.Events))
		rows, err := s.read.QueryContext(ctx, s.engine.ddl(q), args...)
		if err != nil {
			return false, fmt.Errorf("list events: %w", err)
		}
		events, err := scanEvents(rows)
		out.Events = append(out.Events, events...)
		return len(out.Events) >= f.Limit, err
	}
	if len(l.rest) == 0 || patience == 0 {
		_, err := ask(f.Since, f.Until)
		return out, err
	}
	// Between the oldest and the youngest of those that the index gives.
	lo, err := s.edge(ctx, l, "at, id", 0)
	if err != nil || lo == 0 {
		return out, err
	}
	lo = max(lo, f.Since)
	hi := f.Until
	if end := f.BeforeAt + 1; end > 1 && (hi == 0 || end < hi) {
		hi = end
	}
	begun := s.conf.Clock.Now()
	for width := int64(24 * time.Hour / time.Microsecond); ; {
		// Where nothing is nobody looks.
		youngest, err := s.edge(ctx, l, "at DESC, id DESC", hi)
		if err != nil || youngest < lo || youngest == 0 {
			return out, err
		}
		hi = youngest + 1
		from := lo
		if hi-lo > width {
			from = hi - width
		}
		before := s.conf.Clock.Now()
		full, err := ask(from, hi)
		if err != nil || full {
			return out, err
		}
		if hi = from; hi <= lo {
			return out, nil
		}
		took := s.conf.Clock.Now().Sub(before)
		if s.conf.Clock.Now().Sub(begun)+took > patience {
			out.SearchedTo = hi
			return out, nil
		}
		switch {
		case took < patience/8:
			width *= 4
		case took > patience/2:
			width = max(width/2, int64(time.Hour/time.Microsecond))
		}
	}
}

// edge is the time of the first event, in that order, of those that the index of the look
// gives; before 0 is no bound. 0 if there is none.
func (s *Store) edge(ctx context.Context, l look, order string, before int64) (at int64, err error) {
	var q clauses
	if l.column != "" {
		q.add(l.column, "=", l.key)
	}
	if before != 0 {
		q.add("at", "<", before)
	}
	text := "SELECT at FROM events"
	if len(q.where) > 0 {
		text += " WHERE " + strings.Join(q.where, " AND ")
	}
	err = s.read.QueryRowContext(ctx, text+" ORDER BY "+order+" LIMIT 1", q.args...).Scan(&at)
	if IsNotFound(err) {
		return 0, nil
	} else if err != nil {
		return 0, fmt.Errorf("list events: %w", err)
	}
	return at, nil
}

// typesThere makes exact words of beginnings: those that there are events of. Each is one
// step in the index.
func (s *Store) typesThere(ctx context.Context, wanted []string) ([]string, error) {
	var out []string
	for _, t := range wanted {
		head, ok := strings.CutSuffix(t, ".")
		if !ok {
			out = append(out, t)
			continue
		}
		// All that begin so: "." is followed by "/" in byte order.
		for at := t; ; {
			var word string
			err := s.read.QueryRowContext(ctx, "SELECT type FROM events WHERE type > $1 AND type < $2 ORDER BY type LIMIT 1", at, head+"/").Scan(&word)
			if IsNotFound(err) {
				break
			} else if err != nil {
				return nil, fmt.Errorf("list events: %w", err)
			}
			out = append(out, word)
			at = word
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
