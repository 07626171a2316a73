// Package bulk imports users in bulk: from a file or from a query on a database of
// others (internal/server/source). Row: E2, under the rules of E3.
//
// An import goes through states that stand in the database. Rows are read and judged
// as they come (reading), each with what it would change; that is the dry run
// (checked). When it is applied (applying), what has changed meanwhile is judged
// again, and then users, memberships and one event of the whole are written. What
// does not fit into that transaction, the events of each user and the enrolment
// codes, follows in small ones (telling). A server that dies in between is followed
// by another, or by itself, which goes on from the rows: every step is taken once.
//
// It promises:
//
//   - One that fails again and again ends with its problem told: it never stands in the
//     way of all others.
//   - All or nothing (the default) is one transaction, however many rows: what
//     somebody else changed meanwhile is either taken into the plan or stops all of it.
//   - With faulty rows left out, rows go in slices of 500, each one transaction with
//     its events; sign-ins go on between them.
//   - Repeating an import changes nothing and writes nothing, neither events nor codes:
//     passwords, must_change and codes are only for users who are new.
//   - It never touches, makes or raises somebody whose role is not below the actor's.
//   - Memory does not grow with rows but for a fingerprint of each name; a password is
//     in no row that is kept, an enrolment code only sealed, until it is fetched once.
package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/seal"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Config is what a Service stands on. All fields but Log are required.
type Config struct {
	Store     *store.Store
	Desk      *desk.Desk
	Box       *seal.Box // seals codes and addresses
	Clock     clock.Clock
	Passwords desk.Passwords
	Codes     Codes
	Log       *slog.Logger
}

// Codes makes enrolment codes: see factor.Keeper.
type Codes interface {
	IssueEnrol(ctx context.Context, tx *store.Tx, e factor.EnrolCode, now time.Time) (id, shown string, err error)
}

// How long things are kept, and how often a server says that it still works.
const (
	keepEnded   = 7 * 24 * time.Hour
	keepChecked = 24 * time.Hour
	keepCodes   = 24 * time.Hour
	readLease   = 2 * time.Minute
	workLease   = time.Minute
	// wholeTime is how long the one transaction of all or nothing may take.
	wholeTime = 3 * time.Minute
	codesFor  = 7 * 24 * time.Hour
)

const (
	readBatch = 200
	// slice is how many rows are changed in one transaction where faulty rows are left
	// out; whole is up to how many the events of each user fit into the one transaction
	// of all or nothing.
	slice     = 500
	part      = 1000 // rows of one statement
	whole     = 2000
	tellBatch = 200
	// maxOpen bounds the imports that one administrator has begun and not ended.
	maxOpen = 10
)

// Service imports users. It is safe for concurrent use.
type Service struct {
	c    Config
	me   string // this process, in leases
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu    sync.Mutex
	busy  map[string]bool  // imports that this process works on
	tries map[string]int   // imports that failed here, and how often
	under map[string]int64 // rows that are changed in a transaction that is under way
}

// New makes a Service. Close ends what it does in the background.
func New(c Config) *Service {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{c: c, me: store.NewID(), busy: map[string]bool{}, tries: map[string]int{}, under: map[string]int64{}}
	s.life, s.end = context.WithCancel(context.Background())
	return s
}

// Close stops what goes on in the background, between two steps; the next start, or
// another server, goes on from there.
func (s *Service) Close() {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.work.Wait()
}

func (s *Service) now() int64 { return clock.Micros(s.c.Clock.Now()) }

func (s *Service) lease(d time.Duration) int64 { return clock.Micros(s.c.Clock.Now().Add(d)) }

func (s *Service) read(ctx context.Context, fn func(q *store.Queries) error) error {
	return s.c.Store.Read(ctx, fn)
}

func (s *Service) update(ctx context.Context, fn func(ctx context.Context, tx *store.Tx) error) error {
	return s.c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := desk.Claim(ctx, tx); err != nil {
			return err
		}
		return fn(ctx, tx)
	})
}

// atWork notes how far a transaction that is under way has come. The database can not
// tell before it is committed; this process can.
func (s *Service) atWork(id string, rows int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rows == 0 {
		delete(s.under, id)
	} else {
		s.under[id] = rows
	}
}

func (s *Service) importOf(i db.Import) rest.Import {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := importOf(i)
	if i.State == rest.ImportApplying {
		out.Done = min(max(out.Done, s.under[i.ID]), i.RowsNew+i.RowsChanged)
	}
	return out
}

// importOf is an import as people see it.
func importOf(i db.Import) rest.Import {
	out := rest.Import{
		ID: rest.ImportPrefix + i.ID, State: i.State, Problem: i.Problem, Source: i.Source, Label: i.Label, Actor: i.Actor, OnFaults: rest.FaultsStop,
		Codes: i.Codes, CodesValidFor: text.Duration(time.Duration(i.CodesFor) * time.Microsecond), MakeGroups: i.MakeGroups, IgnoreUnknown: i.IgnoreUnknown,
		Columns: []string{}, NewGroups: []string{}, Bytes: i.BytesRead, Rows: i.RowsRead, New: i.RowsNew, Changed: i.RowsChanged, Same: i.RowsSame,
		Faulty: i.RowsFaulty, Done: i.RowsDone, Told: i.RowsTold, CodesLeft: i.CodesLeft, CreatedAt: rest.Time(i.CreatedAt), UpdatedAt: rest.Time(i.UpdatedAt),
		AppliedAt: rest.Time(i.AppliedAt), EndedAt: rest.Time(i.EndedAt),
	}
	if i.SkipBad {
		out.OnFaults = rest.FaultsSkip
	}
	_ = json.Unmarshal([]byte(i.Columns), &out.Columns)
	made := map[string]string{}
	_ = json.Unmarshal([]byte(i.MadeGroups), &made)
	out.NewGroups = sortedKeys(made)
	return out
}

func missing(ref string) error {
	return fault.Newf(fault.NotFound, "There is no import %q. Look with: latchkey import list.", text.CleanN(ref, 128))
}

// find finds an import by its id.
func find(ctx context.Context, q *db.Queries, ref string) (db.Import, error) {
	id, ok := strings.CutPrefix(ref, rest.ImportPrefix)
	if !ok || len(id) != 36 || strings.ToValidUTF8(id, "") != id || strings.ContainsRune(id, 0) {
		return db.Import{}, missing(ref)
	}
	i, err := q.GetImport(ctx, id)
	if store.IsNotFound(err) {
		return i, missing(ref)
	}
	return i, err
}

// own finds an import that the actor has begun: what was judged for one is not
// applied by another, who may have another role.
func own(ctx context.Context, q *db.Queries, a desk.Actor, ref string) (db.Import, error) {
	i, err := find(ctx, q, ref)
	if err == nil && (i.Actor != a.Name || i.ActorUser != a.UserID || i.ActorRole != a.Role) {
		err = fault.Newf(fault.Forbidden, "This import was begun by %s, with the role %s. Only that account goes on with it; begin one of your own.", i.Actor, i.ActorRole)
	}
	return i, err
}

// actorOf is who began the import. A program is known by its name, which no user can
// have; whatever its scopes, its imports give no roles and touch nobody who has one.
func actorOf(i db.Import) desk.Actor {
	return desk.Actor{
		Name: i.Actor, Role: i.ActorRole, UserID: i.ActorUser, Local: i.ActorLocal, Address: i.Address,
		Token: strings.Contains(i.Actor, " (token "),
	}
}

// Make begins an import. Its rows are given by Upload or Query.
func (s *Service) Make(ctx context.Context, a desk.Actor, in rest.NewImport) (rest.Import, error) {
	var out rest.Import
	if err := a.MayImport(); err != nil {
		return out, err
	}
	bad := fault.New(fault.Invalid, nil)
	if in.OnFaults = or(in.OnFaults, rest.FaultsStop); in.OnFaults != rest.FaultsStop && in.OnFaults != rest.FaultsSkip {
		bad.With("on_faults", "%q is not allowed; allowed are stop and skip", text.CleanN(in.OnFaults, 64))
	}
	span := codesFor
	if in.CodesValidFor != "" {
		d, err := time.ParseDuration(in.CodesValidFor)
		if err != nil || d < time.Minute || d > codesFor {
			bad.With("codes_valid_for", "%q is not allowed; allowed are durations such as 24h, from 1m to 168h", text.CleanN(in.CodesValidFor, 64))
		}
		span = d
	}
	if len(bad.Fields) > 0 {
		return out, bad
	}
	id, now := store.NewID(), s.now()
	err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.CountOpenImports(ctx, a.Name)
		if err != nil {
			return err
		}
		if n >= maxOpen {
			return fault.Newf(fault.Conflict, "You have %d imports that were begun and not ended. Apply or drop one first.", n)
		}
		err = tx.InsertImport(ctx, db.InsertImportParams{
			ID: id, Actor: a.Name, ActorUser: a.UserID, ActorRole: a.Role, ActorLocal: a.Local, Address: a.Address, State: rest.ImportReading,
			SkipBad: in.OnFaults == rest.FaultsSkip, Codes: in.Codes, CodesFor: span.Microseconds(), MakeGroups: in.MakeGroups, IgnoreUnknown: in.IgnoreUnknown,
			CreatedAt: now, UpdatedAt: now, LeaseUntil: s.lease(10 * time.Minute),
		})
		if err != nil {
			return err
		}
		i, err := tx.GetImport(ctx, id)
		out = importOf(i)
		return err
	})
	return out, err
}

// Show gives an import.
func (s *Service) Show(ctx context.Context, a desk.Actor, ref string) (rest.Import, error) {
	var out rest.Import
	if err := a.MayImport(); err != nil {
		return out, err
	}
	err := s.read(ctx, func(q *store.Queries) error {
		i, err := find(ctx, q, ref)
		out = s.importOf(i)
		return err
	})
	if err != nil {
		return rest.Import{}, err
	}
	return out, nil
}

// List gives the imports, the youngest first.
func (s *Service) List(ctx context.Context, a desk.Actor, after string, limit int) (rest.Page[rest.Import], error) {
	out := rest.Page[rest.Import]{Items: []rest.Import{}}
	if err := a.MayImport(); err != nil {
		return out, err
	}
	before := ""
	if after != "" {
		var ok bool
		if before, ok = strings.CutPrefix(after, rest.ImportPrefix); !ok || len(before) != 36 {
			return out, fault.New(fault.Invalid, nil).With("after", "it is no cursor of this list; allowed is the \"next\" of the page before")
		}
	}
	show := pageSize(limit)
	err := s.read(ctx, func(q *store.Queries) error {
		rows, err := q.ListImports(ctx, db.ListImportsParams{Before: before, N: int64(show + 1)})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			out.Next = rest.ImportPrefix + rows[show-1].ID
		}
		for _, r := range rows {
			out.Items = append(out.Items, s.importOf(r))
		}
		return nil
	})
	return out, err
}

func pageSize(limit int) int {
	if limit <= 0 {
		return rest.DefaultPage
	}
	return min(limit, rest.MaxPage)
}

// Rows gives a page of an import's rows; state empty is any.
func (s *Service) Rows(ctx context.Context, a desk.Actor, ref, state, after string, limit int) (rest.Page[rest.ImportRow], error) {
	out := rest.Page[rest.ImportRow]{Items: []rest.ImportRow{}}
	if err := a.MayImport(); err != nil {
		return out, err
	}
	from := int64(0)
	if after != "" {
		if _, err := fmt.Sscanf(after, "row%d", &from); err != nil || fmt.Sprintf("row%d", from) != after {
			return out, fault.New(fault.Invalid, nil).With("after", "it is no cursor of this list; allowed is the \"next\" of the page before")
		}
	}
	if state != "" && oneOf(state, rest.RowStates) != "" {
		return out, fault.New(fault.Invalid, nil).With("state", "%s", oneOf(state, rest.RowStates))
	}
	show := pageSize(limit)
	err := s.read(ctx, func(q *store.Queries) error {
		i, err := find(ctx, q, ref)
		if err != nil {
			return err
		}
		rows, err := q.ListImportRows(ctx, db.ListImportRowsParams{ImportID: i.ID, After: from, State: state, LimitN: int64(show + 1)})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			out.Next = fmt.Sprintf("row%d", rows[show-1].N)
		}
		for _, r := range rows {
			out.Items = append(out.Items, rowOf(r))
		}
		return nil
	})
	return out, err
}

func rowOf(r db.ImportRow) rest.ImportRow {
	out := rest.ImportRow{N: r.N, Line: r.Line, State: r.State, User: r.Name, Changes: []rest.ImportChange{}, Faults: []rest.ImportFault{}, Note: r.Note, Code: r.WantCode, Done: r.Done}
	var list []change
	_ = json.Unmarshal([]byte(r.Changes), &list)
	for _, c := range list {
		out.Changes = append(out.Changes, rest.ImportChange{Field: c.Field, Old: shown(c.Field, c.Old), New: shown(c.Field, c.New)})
	}
	_ = json.Unmarshal([]byte(r.Faults), &out.Faults)
	return out
}

// shown is a value of a change as people read it.
func shown(field string, v any) string {
	switch v := v.(type) {
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case float64: // numbers come back from JSON so
		switch {
		case field == "activate_at":
			return when(int64(v))
		case field == "uid" && v < 0:
			return ""
		}
		return fmt.Sprintf("%.0f", v)
	case string:
		return v
	}
	return ""
}

// Drop removes an import that is not being applied, with its rows.
func (s *Service) Drop(ctx context.Context, a desk.Actor, ref string) error {
	if err := a.MayImport(); err != nil {
		return err
	}
	var id string
	err := s.read(ctx, func(q *store.Queries) error {
		i, err := own(ctx, q, a, ref)
		id = i.ID
		if err == nil && (i.State == rest.ImportApplying || i.State == rest.ImportTelling) {
			err = fault.Newf(fault.Conflict, "The import is being applied. Wait until it is done.")
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.remove(ctx, id)
}

// remove removes an import in small steps.
func (s *Service) remove(ctx context.Context, id string) error {
	for {
		over := false
		err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
			first, err := tx.FirstImportRow(ctx, id)
			if err != nil {
				return err
			}
			if first == 0 {
				over = true
				_, err := tx.DeleteImport(ctx, id)
				return err
			}
			if _, err := tx.DeleteImportMembersUpTo(ctx, db.DeleteImportMembersUpToParams{ImportID: id, Last: first + 2000}); err != nil {
				return err
			}
			_, err = tx.DeleteImportRowsUpTo(ctx, db.DeleteImportRowsUpToParams{ImportID: id, Last: first + 2000})
			return err
		})
		if err != nil || over {
			return err
		}
	}
}

// Template writes a file with the header and two users as an example.
func Template(w io.Writer) error {
	var head, one, two []string
	for _, c := range columns {
		head, one = append(head, c.name), append(one, c.example)
		two = append(two, map[string]string{"name": "john.smith", "display_name": "John Smith", "groups": "Sales", "activation": "2026-12-01T08:00:00Z"}[c.name])
	}
	return errors.Join(writeRow(w, head...), writeRow(w, one...), writeRow(w, two...))
}

// WriteFaults writes every fault of an import as a line of a file.
func (s *Service) WriteFaults(ctx context.Context, a desk.Actor, ref string, w io.Writer) error {
	if err := a.MayImport(); err != nil {
		return err
	}
	first, after := true, int64(0)
	for {
		var rows []db.ImportRow
		err := s.read(ctx, func(q *store.Queries) error {
			i, err := find(ctx, q, ref)
			if err != nil {
				return err
			}
			rows, err = q.ListImportRows(ctx, db.ListImportRowsParams{ImportID: i.ID, After: after, State: rest.RowFaulty, LimitN: 500})
			return err
		})
		if err != nil {
			return err
		}
		if first {
			if err := writeRow(w, "line", "column", "field", "user", "fault"); err != nil {
				return err
			}
			first = false
		}
		for _, r := range rows {
			after = r.N
			var faults []rest.ImportFault
			if err := json.Unmarshal([]byte(r.Faults), &faults); err != nil {
				return err
			}
			for _, f := range faults {
				column := ""
				if f.Column > 0 {
					column = fmt.Sprint(f.Column)
				}
				if err := writeRow(w, fmt.Sprint(f.Line), column, f.Field, r.Name, f.Fault); err != nil {
					return err
				}
			}
		}
		if len(rows) < 500 {
			return nil
		}
	}
}

// codeOf is what stands sealed beside a row.
type codeOf struct {
	Code  string    `json:"code"`
	Until time.Time `json:"until"`
}

// WriteCodes writes the enrolment codes that an import has made, and forgets them:
// what does not arrive is lost, and is made anew for each user.
func (s *Service) WriteCodes(ctx context.Context, a desk.Actor, ref string, w io.Writer) error {
	if err := a.MayImport(); err != nil {
		return err
	}
	after, first := int64(0), true
	for {
		var rows []db.ListImportCodesRow
		var id string
		err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
			i, err := own(ctx, tx.Queries, a, ref)
			if err != nil {
				return err
			}
			id = i.ID
			switch {
			case first && i.State != rest.ImportDone:
				return fault.Newf(fault.Conflict, "The import is not done yet: there are codes when it is.")
			case first && i.CodesLeft == 0:
				return fault.Newf(fault.Conflict, "There are no codes to fetch: none were made, or they were fetched already, or they are older than a day. Make one for a user with: latchkey user enrol-code NAME.")
			}
			if rows, err = tx.ListImportCodes(ctx, db.ListImportCodesParams{ImportID: id, After: after, LimitN: 500}); err != nil || len(rows) == 0 {
				return err
			}
			n, err := tx.ForgetImportCodes(ctx, db.ForgetImportCodesParams{ImportID: id, After: after, Last: rows[len(rows)-1].N})
			if err != nil {
				return err
			}
			if _, err := tx.SetImportCodesLeft(ctx, db.SetImportCodesLeftParams{ID: id, N: n}); err != nil || !first {
				return err
			}
			return desk.Note(tx, a, codesTaken(i), map[string]any{"import": rest.ImportPrefix + id, "codes": i.CodesLeft})
		})
		if err != nil {
			return err
		}
		if first {
			if err := writeRow(w, "name", "display_name", "mail", "code", "expires_at"); err != nil {
				return err
			}
			first = false
		}
		for _, r := range rows {
			after = r.N
			plain, err := s.c.Box.Open(r.Code, "import_rows", "code", fmt.Sprintf("%s/%d", id, r.N))
			if err != nil {
				return fmt.Errorf("the code of row %d: %w", r.N, err)
			}
			var c codeOf
			err = json.Unmarshal(plain.Reveal(), &c)
			plain.Wipe()
			if err != nil {
				return fmt.Errorf("the code of row %d: %w", r.N, err)
			}
			if err := writeRow(w, r.Name, r.DisplayName, r.Mail, c.Code, c.Until.UTC().Format(time.RFC3339)); err != nil {
				return err
			}
		}
		if len(rows) < 500 {
			return nil
		}
	}
}

func (s *Service) sealCode(id string, n int64, c codeOf) []byte {
	plain := []byte(encode(c))
	defer clear(plain)
	return s.c.Box.Seal(plain, "import_rows", "code", fmt.Sprintf("%s/%d", id, n))
}
