package desk

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"io"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
)

// The formats of an export.
const (
	CSV  = "csv"
	JSON = "json" // one object a line
)

// Export says what an export is to be.
type Export struct {
	Filter EventFilter
	Format string
	Most   int // 0: rest.MaxExport
}

// CheckExport is what ExportTo would refuse, so that a door can say so before the first
// octet of the answer.
func (d *Desk) CheckExport(ctx context.Context, a Actor, x Export) error {
	if err := a.may(events); err != nil {
		return err
	}
	var v faults
	v.word("format", x.Format, []string{CSV, JSON})
	if x.Most < 0 || x.Most > rest.MaxExport {
		v.add("limit", "%d is out of range; allowed are 1 to %d", x.Most, rest.MaxExport)
	}
	if err := v.err(); err != nil {
		return err
	}
	_, err := d.resolveFilter(ctx, x.Filter)
	return err
}

// ExportTo writes the events that match to w, the youngest first, and flushes after
// each page. n are written; more says that the bound ended it.
func (d *Desk) ExportTo(ctx context.Context, a Actor, x Export, w io.Writer, flush func() error) (n int, more bool, err error) {
	if err := d.CheckExport(ctx, a, x); err != nil {
		return 0, false, err
	}
	b := bufio.NewWriterSize(w, 64<<10)
	var write func(rest.Event) error
	rows := csv.NewWriter(b)
	switch x.Format {
	case CSV:
		rows.UseCRLF = true // RFC 4180
		if err := rows.Write(eventColumns); err != nil {
			return 0, false, err
		}
		write = func(e rest.Event) error { return rows.Write(eventRow(e)) }
	case JSON:
		enc := json.NewEncoder(b)
		enc.SetEscapeHTML(false)
		write = func(e rest.Event) error { return enc.Encode(e) }
	default:
		return 0, false, fault.New(fault.Internal, nil)
	}
	at := 0
	out := func() error {
		rows.Flush()
		if err := rows.Error(); err != nil {
			return err
		}
		if err := b.Flush(); err != nil {
			return err
		}
		return flush()
	}
	n, more, err = d.ExportEvents(ctx, a, x.Filter, x.Most, func(e rest.Event) error {
		if at++; at%rest.MaxPage == 0 {
			if err := out(); err != nil {
				return err
			}
		}
		return write(e)
	})
	if err != nil {
		return n, more, err
	}
	return n, more, out()
}

var eventColumns = []string{
	"at", "received_at", "id", "type", "actor", "subject", "user_id", "machine", "machine_id", "address", "scope", "service", "link", "outcome", "reason",
	"factor", "chain", "seq", "data",
}

func eventRow(e rest.Event) []string {
	row := []string{
		stamp(e.At), stamp(e.ReceivedAt), e.ID, e.Type, e.Actor, e.Subject, e.UserID, e.Machine, e.MachineID, e.Address, e.Scope, e.Service, e.Link,
		e.Outcome, e.Reason, e.Factor, e.Chain, strconv.FormatInt(e.Seq, 10), string(e.Data),
	}
	for i, s := range row {
		row[i] = Defuse(s)
	}
	return row
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// Defuse keeps a cell from being a formula where a spreadsheet opens the file: whoever
// types =… as a user name at a sign-in screen writes into this file. A cell that begins
// with one of the dangerous characters gets an apostrophe before it.
func Defuse(cell string) string {
	if s := strings.TrimLeft(cell, " "); s != "" && strings.ContainsRune("=+-@\t\r\n|%", rune(s[0])) {
		return "'" + cell
	}
	return cell
}
