package db

import "context"

// WindowRow is an open window with the names of its user and machine.
type WindowRow struct {
	Window                Window
	UserName, MachineName string
}

// WindowFilter chooses open windows; what is empty means any. AfterExpires and AfterID
// are those of the last one that was shown.
type WindowFilter struct {
	UserID, MachineID string
	At                int64
	AfterExpires      int64
	AfterID           string
	N                 int64
}

// FindWindows lists open windows, those that end first at the beginning.
func (q *Queries) FindWindows(ctx context.Context, f WindowFilter) ([]WindowRow, error) {
	var c clauses
	c.add("w.ended_at = 0 AND w.expires_at > %s", f.At)
	for _, x := range []struct{ column, v string }{{"w.user_id", f.UserID}, {"w.machine_id", f.MachineID}} {
		if x.v != "" {
			c.add(x.column+" = %s", x.v)
		}
	}
	if f.AfterID != "" {
		c.add("w.expires_at >= %s AND (w.expires_at > %s OR w.id > %s)", f.AfterExpires, f.AfterExpires, f.AfterID)
	}
	rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getWindow, "w")+", u.name, m.name FROM windows w JOIN users u ON u.id = w.user_id JOIN machines m ON m.id = w.machine_id"+
		c.String()+" ORDER BY w.expires_at, w.id LIMIT "+c.arg(f.N), c.args...)
	return all(rows, err, func(r *WindowRow) []any { return append(fields(&r.Window), &r.UserName, &r.MachineName) })
}
