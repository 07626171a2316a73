package desk

import (
	"context"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// maxTold bounds what people write into a report, in octets.
const maxTold = 1000

// alert is the severity of what somebody must look after at once.
const alert = "alert"

// told judges what somebody says in his own words; line feeds are allowed.
func (v *faults) told(field, value string) {
	switch {
	case len(value) > maxTold:
		v.add(field, "it has %d octets; allowed are at most %d", len(value), maxTold)
	case !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r != '\n' && r != '\r' && r != '\t' && unicode.IsControl(r) }):
		v.add(field, "it holds control characters; allowed is text")
	}
}

// ReportOwnSignin is "this wasn't me": whoever it was loses what he has. All windows
// of the person end, and all sessions but the one that reports; the help desk is told
// with an alert. It takes no fresh factor: to report must be easy, and it gives nobody
// anything. A second report of the same sign-in is the first one.
func (d *Desk) ReportOwnSignin(ctx context.Context, a Actor, ref string, in rest.NewReport) (rest.Reported, error) {
	var out rest.Reported
	if err := a.act(); err != nil {
		return out, err
	}
	var v faults
	v.told("told", in.Told)
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out = rest.Reported{}
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		e, err := ownSignin(ctx, tx.Queries, u, ref)
		if err != nil {
			return err
		}
		row := db.InsertReportParams{UserID: u.ID, Kind: rest.ReportSignin, EventID: e.ID, MachineID: e.MachineID, Machine: e.Machine, Told: in.Told, Address: a.Address}
		var fresh bool
		if out.Report, fresh, err = d.report(ctx, tx, u, row); err != nil {
			return err
		}
		ended, err := ending.All(ctx, tx, d.cause(a, "reported"), u.ID, a.Session)
		if out.Windows, out.Sessions = ended.Windows, ended.Sessions; err != nil || !fresh {
			return err
		}
		return note(tx, a, event.Event{Type: event.ReportOpened, Subject: u.Name, UserID: u.ID, MachineID: e.MachineID, Machine: e.Machine, Scope: e.Scope, Service: e.Service}, map[string]any{
			"severity": alert, "report": out.Report.ID, "kind": rest.ReportSignin, "event": rest.EventPrefix + e.ID, "signin": e.Type, "outcome": e.Outcome,
			"from": e.Address, "told": in.Told, "windows_ended": out.Windows, "sessions_ended": out.Sessions,
		})
	})
	return out, err
}

// report writes one down, unless the same is open already.
func (d *Desk) report(ctx context.Context, tx *store.Tx, u db.User, row db.InsertReportParams) (out rest.Report, fresh bool, err error) {
	open, err := tx.FindOpenReport(ctx, db.FindOpenReportParams{UserID: row.UserID, Kind: row.Kind, EventID: row.EventID, MachineID: row.MachineID})
	if err != nil {
		return out, false, err
	}
	if len(open) > 0 {
		return reportOf(open[0], u.Name), false, nil
	}
	row.ID, row.CreatedAt = store.NewID(), d.now()
	if err := tx.InsertReport(ctx, row); err != nil {
		return out, false, err
	}
	r, err := tx.GetReport(ctx, row.ID)
	return reportOf(r.Report, r.UserName), true, err
}

func reportOf(r db.Report, name string) rest.Report {
	out := rest.Report{
		ID: rest.ReportPrefix + r.ID, User: name, UserID: rest.UserPrefix + r.UserID, Kind: r.Kind, Machine: r.Machine, Told: r.Told, Address: r.Address,
		State: r.State, CreatedAt: rest.Time(r.CreatedAt), HandledAt: rest.Time(r.HandledAt), HandledBy: r.HandledBy, Answer: r.Answer,
	}
	if r.EventID != "" {
		out.Event = rest.EventPrefix + r.EventID
	}
	if r.MachineID != "" {
		out.MachineID = rest.MachinePrefix + r.MachineID
	}
	return out
}

// LoseOwnMachine is "I lost this machine" (O14). The person's own offline data and
// windows there end at once. A machine that belongs to the person, who proves it with
// a fresh second factor, is revoked as lost; of any other the help desk is asked to,
// because others work on it.
func (d *Desk) LoseOwnMachine(ctx context.Context, a Actor, ref string, in rest.NewReport) (rest.Reported, error) {
	var out rest.Reported
	if err := a.act(); err != nil {
		return out, err
	}
	var v faults
	v.told("told", in.Told)
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out = rest.Reported{}
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		m, id, err := d.ownMachine(ctx, tx.Queries, u, ref)
		if err != nil {
			return err
		}
		if m.Status == rest.MachineLost {
			return fault.Newf(fault.Conflict, "%s is reported lost already, and is no longer trusted.", m.Name)
		}
		mine := m.Mine && (m.Status == rest.MachineActive || m.Status == rest.MachineRevoked)
		if mine {
			if err := a.fresh(); err != nil {
				return err
			}
		}
		// What may be in the thief's hands is looked up before it counts as wiped.
		row, err := tx.GetMachine(ctx, id)
		if err != nil {
			return err
		}
		all, err := reseed(ctx, tx.Queries, row)
		if err != nil {
			return err
		}
		out.Reseed = slices.DeleteFunc(all, func(r rest.Reseed) bool { return r.UserID != rest.UserPrefix+u.ID })
		var fresh bool
		out.Report, fresh, err = d.report(ctx, tx, u, db.InsertReportParams{
			UserID: u.ID, Kind: rest.ReportMachine, MachineID: id, Machine: m.Name, Told: in.Told, Address: a.Address,
		})
		if err != nil {
			return err
		}
		ended, err := d.endWindows(ctx, tx, a, u.ID, id, "reported")
		if err != nil {
			return err
		}
		out.Windows = len(ended)
		done, err := d.disenrolOwn(ctx, tx, a, u.ID, id)
		if err != nil {
			return err
		}
		out.Disenroled = done.Count
		if mine {
			if _, err := d.distrust(ctx, tx, a, row, rest.MachineLost, "reported by "+u.Name+", its owner"); err != nil {
				return err
			}
			out.Revoked = true
		}
		if !fresh {
			return nil
		}
		return note(tx, a, event.Event{Type: event.ReportOpened, Subject: u.Name, UserID: u.ID, MachineID: id, Machine: m.Name}, map[string]any{
			"severity": alert, "report": out.Report.ID, "kind": rest.ReportMachine, "told": in.Told, "windows_ended": out.Windows, "disenrolled": out.Disenroled,
			"revoked": mine,
		})
	})
	return out, err
}

// ListOwnReports gives a page of what the actor has reported, the youngest first.
func (d *Desk) ListOwnReports(ctx context.Context, a Actor, after string, limit int) (rest.Page[rest.Report], error) {
	none := rest.Page[rest.Report]{Items: []rest.Report{}}
	if err := a.look(); err != nil {
		return none, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		_, err := a.me(ctx, q)
		return err
	})
	if err != nil {
		return none, err
	}
	return d.reports(ctx, a.UserID, "", after, limit)
}

// ListReports gives a page of what people have reported, the youngest first; state
// and user empty = any.
func (d *Desk) ListReports(ctx context.Context, a Actor, state, userRef, after string, limit int) (rest.Page[rest.Report], error) {
	out := rest.Page[rest.Report]{Items: []rest.Report{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	var v faults
	if state != "" {
		v.word("state", state, []string{rest.ReportOpen, rest.ReportHandled})
	}
	if err := v.err(); err != nil {
		return out, err
	}
	userID := ""
	if userRef != "" {
		err := d.Store.Read(ctx, func(q *store.Queries) error {
			u, err := user(ctx, q, userRef)
			userID = u.ID
			return err
		})
		if err != nil {
			return out, err
		}
	}
	return d.reports(ctx, userID, state, after, limit)
}

func (d *Desk) reports(ctx context.Context, userID, state, after string, limit int) (rest.Page[rest.Report], error) {
	out := rest.Page[rest.Report]{Items: []rest.Report{}}
	from, err := resume("reports", after, 1)
	if err != nil {
		return out, err
	}
	ask, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.ListReports(ctx, db.ListReportsParams{Before: from[0], State: state, UserID: userID, N: ask})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			out.Next = cursor("reports", rows[show-1].Report.ID)
		}
		for _, r := range rows {
			out.Items = append(out.Items, reportOf(r.Report, r.UserName))
		}
		return nil
	})
	return out, err
}

// ShowReport gives one report.
func (d *Desk) ShowReport(ctx context.Context, a Actor, ref string) (rest.Report, error) {
	var out rest.Report
	if err := a.may(read); err != nil {
		return out, err
	}
	id, ok := cut(rest.ReportPrefix, ref)
	if !ok {
		return out, missing("report", ref)
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		r, err := q.GetReport(ctx, id)
		if store.IsNotFound(err) {
			return missing("report", ref)
		}
		out = reportOf(r.Report, r.UserName)
		return err
	})
	return out, err
}

// HandleReport closes a report with what was done. Whoever has reported something
// does not close it himself.
func (d *Desk) HandleReport(ctx context.Context, a Actor, ref string, in rest.HandleReport) (rest.Report, error) {
	var out rest.Report
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	var v faults
	if in.Answer == "" {
		v.add("answer", "it is missing; say what was done: the person reads it")
	}
	v.told("answer", in.Answer)
	if err := v.err(); err != nil {
		return out, err
	}
	id, ok := cut(rest.ReportPrefix, ref)
	if !ok {
		return out, missing("report", ref)
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		r, err := tx.GetReport(ctx, id)
		if store.IsNotFound(err) {
			return missing("report", ref)
		} else if err != nil {
			return err
		}
		if a.UserID != "" && a.UserID == r.Report.UserID {
			return fault.Newf(fault.Forbidden, "You have reported this yourself: somebody else looks after it.")
		}
		n, err := tx.HandleReport(ctx, db.HandleReportParams{ID: id, At: d.now(), HandledBy: a.Name, Answer: in.Answer})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.Newf(fault.Conflict, "%s has handled this report already.", r.Report.HandledBy)
		}
		if err := note(tx, a, event.Event{Type: event.ReportHandled, Subject: r.UserName, UserID: r.Report.UserID, MachineID: r.Report.MachineID, Machine: r.Report.Machine}, map[string]any{
			"report": ref, "kind": r.Report.Kind, "answer": in.Answer,
		}); err != nil {
			return err
		}
		if r, err = tx.GetReport(ctx, id); err != nil {
			return err
		}
		out = reportOf(r.Report, r.UserName)
		return nil
	})
	return out, err
}
