package store

import (
	"context"
	"fmt"
	"strings"

	"latchkey/internal/event"
)

// TrialEvent is what is needed of an event to judge a sign-in again.
type TrialEvent struct {
	ID, Type, Subject, UserID, MachineID, Machine, Scope, Service, Link, Outcome, Reason string
	At                                                                                   int64
	Data                                                                                 string
}

// trialTypes are the sign-ins, and what ends windows between them.
var trialTypes = []event.Type{event.SigninAllowed, event.SigninDenied, event.SigninIgnored, event.SigninAbandoned, event.WindowEnded}

// TrialEvents lists sign-ins and ends of windows, the youngest first, behind the place
// (at, id); since is inclusive. It reads the log in the order of time, so that its cost
// is that of the page, whatever the size of the log.
func (s *Store) TrialEvents(ctx context.Context, since, at int64, id string, limit int) ([]TrialEvent, error) {
	args := []any{since, at, id, limit}
	marks := make([]string, len(trialTypes))
	for i, t := range trialTypes {
		args = append(args, string(t))
		marks[i] = fmt.Sprintf("$%d", len(args))
	}
	// type || '' keeps the engines from taking the index by types, which gives no order.
	rows, err := s.read.QueryContext(ctx, "SELECT id, type, subject, user_id, machine_id, machine, scope, service, link, outcome, reason, at, data FROM events"+
		" WHERE at >= $1 AND at <= $2 AND (at < $2 OR id < $3) AND type || '' IN ("+strings.Join(marks, ", ")+") ORDER BY at DESC, id DESC LIMIT $4", args...)
	if err != nil {
		return nil, fmt.Errorf("list sign-ins: %w", err)
	}
	defer rows.Close()
	out := make([]TrialEvent, 0, limit)
	for rows.Next() {
		var e TrialEvent
		if err := rows.Scan(&e.ID, &e.Type, &e.Subject, &e.UserID, &e.MachineID, &e.Machine, &e.Scope, &e.Service, &e.Link, &e.Outcome, &e.Reason, &e.At, &e.Data); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return out, rows.Close()
}
