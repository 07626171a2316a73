package store

import (
	"context"
	"fmt"
	"strings"

	"latchkey/internal/event"
	"latchkey/internal/server/store/db"
)

// HourMicros is an hour in the unit of the tables.
const HourMicros = 3600 * 1000 * 1000

// HourCount is how many events of a type happened in an hour.
type HourCount struct {
	Type string
	Hour int64 // since 1970, by the time at the source
	N    int64
}

// CountEventHours counts events of the types by hours, from since (inclusive) to until
// (exclusive). It reads an index alone, so many entries as there are such events.
func (s *Store) CountEventHours(ctx context.Context, types []string, since, until int64) ([]HourCount, error) {
	var q clauses
	var marks []string
	for _, t := range types {
		marks = append(marks, q.arg(t))
	}
	text := fmt.Sprintf("SELECT type, at / %d AS hour, COUNT(*) FROM events WHERE type IN (%s) AND at >= %s AND at < %s GROUP BY type, at / %d",
		int64(HourMicros), strings.Join(marks, ", "), q.arg(since), q.arg(until), int64(HourMicros))
	rows, err := s.read.QueryContext(ctx, s.engine.ddl(text), q.args...)
	if err != nil {
		return nil, fmt.Errorf("count events: %w", err)
	}
	defer rows.Close()
	var out []HourCount
	for rows.Next() {
		var c HourCount
		if err := rows.Scan(&c.Type, &c.Hour, &c.N); err != nil {
			return nil, fmt.Errorf("count events: %w", err)
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// MachineFigures is how many machines there are.
type MachineFigures struct {
	Active, Silent, Pending int64
	Agents                  map[string]int64 // active machines by the version of their agent
}

// CountMachines counts machines; silent are active ones that were not heard of since
// before.
func (s *Store) CountMachines(ctx context.Context, before int64) (MachineFigures, error) {
	out := MachineFigures{Agents: map[string]int64{}}
	rows, err := s.read.QueryContext(ctx, s.engine.ddl(`SELECT agent_version, COUNT(*), COALESCE(SUM(CASE WHEN last_seen_at < $1 THEN 1 ELSE 0 END), 0)
FROM machines WHERE status = 'active' GROUP BY agent_version`), before)
	if err != nil {
		return out, fmt.Errorf("count machines: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var version string
		var n, silent int64
		if err := rows.Scan(&version, &n, &silent); err != nil {
			return out, fmt.Errorf("count machines: %w", err)
		}
		out.Agents[version] = n
		out.Active += n
		out.Silent += silent
	}
	return out, rows.Err()
}

// CountWaiting is what waits for somebody: machines for approval, reports of people for
// an answer.
func (s *Store) CountWaiting(ctx context.Context) (machines, reports int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT (SELECT COUNT(*) FROM machines WHERE status = 'pending'), (SELECT COUNT(*) FROM reports WHERE state = 'open')`).Scan(&machines, &reports)
	if err != nil {
		return 0, 0, fmt.Errorf("count what waits: %w", err)
	}
	return machines, reports, nil
}

// Tail is how far a chain was verified.
type Tail struct {
	Chain  string
	Seq    int64
	Hash   event.Hash
	Broken int64  // the first event that does not fit; 0 = none
	Why    string // in words
}

// VerifyOn verifies each chain from where it was left, so many events at most altogether:
// a log that grows all day is read once (V4). It sees edits, gaps and a changed order
// behind the places that are given; what lies before them is VerifyEvents' business. done
// tells that the ends were reached.
func (s *Store) VerifyOn(ctx context.Context, from map[string]Tail, most int) (tails map[string]Tail, done bool, err error) {
	tails = map[string]Tail{}
	done = true
	err = s.Read(ctx, func(q *Queries) error {
		chains, err := q.ListChains(ctx)
		if err != nil {
			return err
		}
		for _, c := range chains {
			t, ok := from[c.Chain]
			if !ok {
				t = Tail{Chain: c.Chain}
			}
			for t.Broken == 0 {
				page, err := q.ListChainEvents(ctx, db.ListChainEventsParams{Chain: c.Chain, After: t.Seq, N: 1000})
				if err != nil {
					return err
				}
				for _, e := range page {
					next := event.Next(c.Chain, uint64(e.Seq), t.Hash, EventOf(e))
					switch {
					case e.Seq != t.Seq+1:
						t.Broken, t.Why = t.Seq+1, "it is missing"
					case string(e.PrevHash) != string(t.Hash[:]):
						t.Broken, t.Why = e.Seq, "it does not follow the event before it"
					case string(e.Hash) != string(next[:]):
						t.Broken, t.Why = e.Seq, "it was edited: its hash does not fit its content"
					default:
						t.Seq, t.Hash = e.Seq, next
						continue
					}
					break
				}
				if len(page) < 1000 {
					break
				}
				if most -= len(page); most <= 0 {
					done = false
					break
				}
			}
			tails[c.Chain] = t
		}
		return nil
	})
	return tails, done, err
}
