package bulk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"time"
	"unicode/utf8"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/source"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

func sortedKeys(m map[string]string) []string {
	out := slices.Sorted(maps.Keys(m))
	if out == nil {
		out = []string{}
	}
	return out
}

// CSV is the source of an import from a file.
const CSV = "csv"

// intake takes rows in, in batches.
type intake struct {
	s      *Service
	imp    db.Import
	p      *planner
	layout layout
	read   func() int64 // octets so far
	batch  []record
	n      int64
	counts db.CountReadingParams
}

// errDropped: somebody has dropped the import, or another server took it.
var errDropped = errors.New("the import was dropped meanwhile")

func (t *intake) header(ctx context.Context, names []string) error {
	var err error
	if len(names) > MaxColumns {
		return fault.New(fault.Invalid, nil).With("columns", "%d columns; allowed are at most %d", len(names), MaxColumns)
	}
	if t.layout, err = layoutOf(names, t.imp.IgnoreUnknown); err != nil {
		return fault.New(fault.Invalid, nil).With("columns", "%s", err)
	}
	return t.s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.SetImportColumns(ctx, db.SetImportColumnsParams{ID: t.imp.ID, Columns: encode(t.layout.names())})
		return err
	})
}

func (t *intake) row(ctx context.Context, rec record) error {
	if t.n+int64(len(t.batch)) >= MaxRows {
		return fault.New(fault.Invalid, nil).With("rows", "there are more than %d; allowed are that many in one import", MaxRows)
	}
	if t.batch = append(t.batch, rec); len(t.batch) < readBatch {
		return nil
	}
	return t.flush(ctx)
}

// flush judges the rows of a batch and keeps them.
func (t *intake) flush(ctx context.Context) error {
	plans := make([]*plan, 0, len(t.batch))
	made := len(t.p.made)
	err := t.s.read(ctx, func(q *store.Queries) error {
		for _, rec := range t.batch {
			in, faults := t.layout.read(rec, t.imp.IgnoreUnknown)
			t.n++
			pl, err := t.p.plan(ctx, q, t.n, rec.line, in, faults)
			if err != nil {
				return err
			}
			plans = append(plans, pl)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, pl := range plans {
		if err := t.s.hash(ctx, t.p, pl); err != nil {
			return err
		}
		pl.seal()
		switch pl.row.State {
		case rest.RowNew:
			t.counts.RowsNew++
		case rest.RowChanged:
			t.counts.RowsChanged++
		case rest.RowSame:
			t.counts.RowsSame++
		default:
			t.counts.RowsFaulty++
		}
	}
	t.batch = t.batch[:0]
	t.counts.RowsRead, t.counts.BytesRead = t.n, t.read()
	t.counts.At, t.counts.LeaseUntil = t.s.now(), t.s.lease(readLease)
	return t.s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		for _, pl := range plans {
			if err := insert(ctx, tx, pl); err != nil {
				return err
			}
		}
		if len(t.p.made) > made {
			if _, err := tx.SetImportGroups(ctx, db.SetImportGroupsParams{ID: t.imp.ID, MadeGroups: encode(t.p.made)}); err != nil {
				return err
			}
		}
		n, err := tx.CountReading(ctx, t.counts)
		if err == nil && n != 1 {
			err = errDropped
		}
		return err
	})
}

func insert(ctx context.Context, tx *store.Tx, pl *plan) error {
	if err := tx.InsertImportRow(ctx, pl.row); err != nil {
		return err
	}
	for _, m := range pl.members {
		if err := tx.InsertImportMember(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// begin takes an import for one file or query.
func (s *Service) begin(ctx context.Context, a desk.Actor, ref, kind, label string) (*intake, error) {
	if err := a.MayImport(); err != nil {
		return nil, err
	}
	t := &intake{s: s, read: func() int64 { return 0 }}
	err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		i, err := own(ctx, tx.Queries, a, ref)
		if err != nil {
			return err
		}
		n, err := tx.BeginReading(ctx, db.BeginReadingParams{ID: i.ID, Source: kind, Label: text.CleanN(label, 128), At: s.now(), LeaseUntil: s.lease(readLease), LeaseBy: s.me})
		if err == nil && n != 1 {
			err = fault.Newf(fault.Conflict, "This import has its rows already. Begin another one.")
		}
		if err != nil {
			return err
		}
		t.imp, err = tx.GetImport(ctx, i.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	t.counts = db.CountReadingParams{ID: t.imp.ID, LeaseBy: s.me}
	t.p, err = newPlanner(a, t.imp)
	return t, err
}

// end writes down how reading went, and gives the import.
func (t *intake) end(ctx context.Context, a desk.Actor, err error) (rest.Import, error) {
	ctx = context.WithoutCancel(ctx)
	next := db.MoveImportParams{ID: t.imp.ID, State: rest.ImportChecked, OldState: rest.ImportReading, At: t.s.now()}
	if err != nil {
		f := fault.Of(err)
		next.State, next.EndedAt, next.Problem = rest.ImportFailed, next.At, f.Public()
		if f.Code == fault.Internal {
			t.s.c.Log.Error("an import failed", "import", t.imp.ID, "error", err)
		}
	}
	if e := t.s.move(ctx, next); err == nil {
		err = e
	}
	if err != nil {
		return rest.Import{}, err
	}
	return t.s.Show(ctx, a, rest.ImportPrefix+t.imp.ID)
}

// move changes the state of an import.
func (s *Service) move(ctx context.Context, next db.MoveImportParams) error {
	return s.update(ctx, func(ctx context.Context, tx *store.Tx) error { return s.moveIn(ctx, tx, next) })
}

func (s *Service) moveIn(ctx context.Context, tx *store.Tx, next db.MoveImportParams) error {
	n, err := tx.MoveImport(ctx, next)
	if err == nil && n != 1 {
		err = fault.Newf(fault.Conflict, "The import went on meanwhile, or was dropped. Look at it again.")
	}
	return err
}

// Upload reads the rows of an import from a file, and judges each. It changes no user.
func (s *Service) Upload(ctx context.Context, a desk.Actor, ref, label string, file io.Reader) (rest.Import, error) {
	t, err := s.begin(ctx, a, ref, CSV, label)
	if err != nil {
		return rest.Import{}, err
	}
	return t.end(ctx, a, t.file(ctx, file))
}

func (t *intake) file(ctx context.Context, r io.Reader) error {
	file, err := newTable(r)
	if err != nil {
		return broken(err)
	}
	t.read = func() int64 { return file.read.n }
	names, err := file.header()
	if err != nil {
		if err := broken(err); fault.Of(err).Code != fault.Invalid {
			return err
		}
		return fault.New(fault.Invalid, nil).With("file", "%s", err)
	}
	if err := t.header(ctx, names); err != nil {
		return err
	}
	for {
		rec, err := file.next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return broken(err)
		}
		if err := t.row(ctx, rec); err != nil {
			return err
		}
	}
	if t.n == 0 && len(t.batch) == 0 {
		return fault.New(fault.Invalid, nil).With("file", "it has a first line and no users; allowed is a line for every user")
	}
	return t.flush(ctx)
}

// broken is an error of whoever sends the file.
func broken(err error) error {
	var f *fault.Fault
	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, errTooLong):
		return fault.New(fault.Invalid, nil).With("file", "it has more than %d MB; allowed are that many in one import", MaxBytes>>20)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.Canceled), isNetwork(err):
		return fault.Newf(fault.BadRequest, "The file broke off before its end; nothing was changed. Send it again.").Because(err)
	}
	return fault.New(fault.Invalid, nil).With("file", "%s", err)
}

func isNetwork(err error) bool {
	var e net.Error
	return errors.As(err, &e)
}

// limits of a query.
var limits = source.Limits{Time: queryTime, Rows: MaxRows, RowSize: maxRecord, Columns: MaxColumns}

const queryTime = 15 * time.Minute

// Query reads the rows of an import from a database.
func (s *Service) Query(ctx context.Context, a desk.Actor, ref string, in rest.ImportQuery) (rest.Import, error) {
	defer in.Address.Wipe()
	if err := a.MayImport(); err != nil {
		return rest.Import{}, err
	}
	from, err := s.resolve(ctx, a, in)
	if err != nil {
		return rest.Import{}, err
	}
	defer from.at.Password.Wipe()
	t, err := s.begin(ctx, a, ref, from.at.Driver, from.label)
	if err != nil {
		return rest.Import{}, err
	}
	return t.end(ctx, a, t.query(ctx, from))
}

func (t *intake) query(ctx context.Context, from origin) error {
	line, size := int64(0), int64(0)
	t.read = func() int64 { return size }
	// What went wrong here and not there: it is nothing that the query can be blamed for.
	var ours error
	err := source.Run(ctx, from.at, from.query, limits, func(names []string) error {
		ours = t.header(ctx, names)
		return ours
	}, func(cells [][]byte) error {
		line++
		rec := record{line: line, cells: make([]string, len(cells))}
		for i, c := range cells {
			size += int64(len(c))
			switch rec.cells[i] = string(c); {
			case len(c) > maxCell:
				rec.bad, rec.column = fmt.Sprintf("the value has more than %d octets", maxCell), i+1
			case !utf8.Valid(c) || bytes.IndexByte(c, 0) >= 0:
				rec.bad, rec.column = "the value is not text in UTF-8; write a CAST in the query", i+1
			}
		}
		ours = t.row(ctx, rec)
		return ours
	})
	var f *fault.Fault
	switch {
	case err == nil:
	case ours != nil:
		return ours
	case errors.As(err, &f), store.IsUnavailable(err):
		return err
	default:
		return fault.New(fault.Invalid, nil).With("query", "%s", err)
	}
	if err := t.flush(ctx); err != nil {
		return err
	}
	if t.n == 0 {
		return fault.New(fault.Invalid, nil).With("query", "it gives no rows")
	}
	return nil
}
