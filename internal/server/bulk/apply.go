package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
)

// Apply begins to change users as the import's rows say. It answers at once; Show
// tells how far it is.
func (s *Service) Apply(ctx context.Context, a desk.Actor, ref string) (rest.Import, error) {
	if err := a.MayImport(); err != nil {
		return rest.Import{}, err
	}
	var id string
	err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		i, err := own(ctx, tx.Queries, a, ref)
		if err != nil {
			return err
		}
		id = i.ID
		switch {
		case i.State == rest.ImportReading:
			return fault.Newf(fault.Conflict, "The import's rows are not all there yet. Wait until they are checked.")
		case i.State != rest.ImportChecked:
			return fault.Newf(fault.Conflict, "The import was applied already, or has failed. Begin another one.")
		case i.RowsFaulty > 0 && !i.SkipBad:
			return fault.Newf(fault.Conflict, "%d of %d rows are faulty, and nothing was changed. Correct them and send the file again, or begin an import that leaves faulty rows out.", i.RowsFaulty, i.RowsRead)
		}
		others, err := tx.OtherImportApplies(ctx, id)
		if err != nil {
			return err
		}
		if others > 0 {
			return fault.Newf(fault.Conflict, "Another import is being applied. Try again when it is done.")
		}
		next := db.MoveImportParams{ID: id, OldState: rest.ImportChecked, State: rest.ImportApplying, At: s.now(), LeaseUntil: s.lease(workLease), LeaseBy: s.me}
		return s.moveIn(ctx, tx, next)
	})
	if err != nil {
		return rest.Import{}, err
	}
	s.start(id)
	return s.Show(ctx, a, rest.ImportPrefix+id)
}

// start works on an import in the background.
func (s *Service) start(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil || s.busy[id] {
		return
	}
	s.busy[id] = true
	s.work.Go(func() {
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.busy, id)
		}()
		s.judge(id, s.safely(id))
		// Whoever goes on need not wait for the end of the lease.
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.HoldImport(ctx, db.HoldImportParams{ID: id, LeaseBy: s.me, LeaseUntil: s.now() - 1, At: s.now()})
			return err
		})
	})
}

// safely is proceed, and a panic in it is an error.
func (s *Service) safely(id string) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return s.proceed(s.life, id)
}

// triesOfAll is how often this process goes on with an import that fails before it
// gives up: as long as one is under way no other can be applied, and none can be
// dropped.
const triesOfAll = 5

// judge decides what becomes of an import that has stopped. A database that is out of
// reach is nothing that an import can be blamed for.
func (s *Service) judge(id string, err error) {
	switch {
	case err == nil:
		s.count(id, true)
		return
	case s.life.Err() != nil, errors.Is(err, errDropped):
		return
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		s.c.Log.Warn("an import waits for the database", "import", id, "error", err)
		return
	}
	tries := s.count(id, false)
	s.c.Log.Error("an import stopped", "import", id, "try", tries, "of", triesOfAll, "error", err)
	ctx, cancel := context.WithTimeout(s.life, 10*time.Second)
	defer cancel()
	if err := s.abandon(ctx, id, tries, fault.Of(err)); err != nil {
		s.c.Log.Error("an import's problem could not be kept", "import", id, "error", err)
	} else if tries >= triesOfAll {
		s.count(id, true)
	}
}

// count counts a try that has failed, or forgets them.
func (s *Service) count(id string, forget bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if forget {
		delete(s.tries, id)
		return 0
	}
	s.tries[id]++
	return s.tries[id]
}

// abandon keeps the problem of an import that has failed and, after the last try,
// ends what was begun.
func (s *Service) abandon(ctx context.Context, id string, tries int, why *fault.Fault) error {
	cause := why.Public()
	if why.Code == fault.Internal {
		cause = "The cause stands in the server's log."
	}
	return s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		i, err := tx.GetImport(ctx, id)
		if err != nil {
			return err
		}
		if i.State != rest.ImportApplying && i.State != rest.ImportTelling {
			return nil
		}
		if tries < triesOfAll {
			_, err := tx.SetImportProblem(ctx, db.SetImportProblemParams{ID: id, Problem: fmt.Sprintf("Try %d of %d has failed, and it is tried again soon. %s", tries, triesOfAll, cause)})
			return err
		}
		next := db.MoveImportParams{ID: id, OldState: i.State, State: rest.ImportChecked, At: s.now()}
		switch {
		case i.State == rest.ImportTelling:
			// Its users were changed, so that it is done.
			next.State, next.AppliedAt, next.EndedAt = rest.ImportDone, i.AppliedAt, s.now()
			next.Problem = fmt.Sprintf("The users were changed. Of %d changed rows, the events and enrolment codes of %d could not be written in %d tries. %s", i.RowsNew+i.RowsChanged, i.RowsNew+i.RowsChanged-i.RowsTold, tries, cause)
		case i.SkipBad:
			next.Problem = fmt.Sprintf("It could not be applied to its end in %d tries; %d rows are done. %s Apply it again, or drop it.", tries, i.RowsDone, cause)
		default:
			next.Problem = fmt.Sprintf("It could not be applied in %d tries, and nothing was changed. %s Apply it again, or drop it.", tries, cause)
		}
		return s.moveIn(ctx, tx, next)
	})
}

// errStale: the database is no longer what the plans were made for.
var errStale = errors.New("users or groups were changed meanwhile")

// triesOfOne is how often the plans are made anew before an import gives up against
// somebody who goes on changing the same users.
const triesOfOne = 5

// proceed goes on with an import from where it stands until it has ended.
func (s *Service) proceed(ctx context.Context, id string) error {
	var i db.Import
	load := func() error {
		return s.read(ctx, func(q *store.Queries) (err error) { i, err = q.GetImport(ctx, id); return err })
	}
	if err := load(); err != nil {
		return err
	}
	if i.State == rest.ImportApplying {
		err := s.applyAll(ctx, &i)
		var f *fault.Fault
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errStale):
			err = fault.Newf(fault.Conflict, "Users of this import were changed again and again while it was applied. Try again when nobody changes them.")
			fallthrough
		case errors.As(err, &f) || tooLarge(i, err):
			return s.giveUp(ctx, i, err)
		default:
			return err
		}
		if err := load(); err != nil {
			return err
		}
	}
	if i.State == rest.ImportTelling {
		return s.tellAll(ctx, i)
	}
	return nil
}

// isLarge tells whether an import of all or nothing does not fit into a transaction as
// others have it.
func isLarge(i db.Import) bool { return !i.SkipBad && i.RowsNew+i.RowsChanged > whole }

// tooLarge tells whether an import takes longer than a transaction may.
func tooLarge(i db.Import, err error) bool {
	return isLarge(i) && errors.Is(err, context.DeadlineExceeded)
}

// giveUp puts an import back to where it can be looked at again.
func (s *Service) giveUp(ctx context.Context, i db.Import, why error) error {
	f := fault.Of(why)
	problem := f.Public()
	if f.Code == fault.Internal {
		problem = "There are too many rows for one transaction of this database, and nothing was changed. Leave faulty rows out instead of all or nothing: then it is done in small steps."
		s.c.Log.Warn("an import was too large for one transaction", "import", i.ID, "rows", i.RowsRead, "error", why)
	}
	next := db.MoveImportParams{ID: i.ID, OldState: rest.ImportApplying, State: rest.ImportChecked, At: s.now(), Problem: problem}
	return s.move(ctx, next)
}

// applyAll changes users: in one transaction, or slice by slice.
func (s *Service) applyAll(ctx context.Context, i *db.Import) error {
	for try := 0; ; try++ {
		if err := s.refresh(ctx, i); err != nil {
			return err
		}
		err := s.applyOnce(ctx, i)
		if !errors.Is(err, errStale) && !store.IsDuplicate(err) && !store.IsReferenced(err) {
			return err
		}
		if try == triesOfOne {
			return errStale
		}
	}
}

func (s *Service) applyOnce(ctx context.Context, i *db.Import) error {
	if i.RowsNew+i.RowsChanged == 0 {
		return s.move(ctx, db.MoveImportParams{ID: i.ID, OldState: rest.ImportApplying, State: rest.ImportDone, At: s.now(), EndedAt: s.now(), AppliedAt: s.now()})
	}
	if !i.SkipBad {
		limit := time.Duration(0)
		if isLarge(*i) {
			limit = wholeTime
		}
		defer s.atWork(i.ID, 0)
		return s.c.Store.UpdateWithin(ctx, limit, func(ctx context.Context, tx *store.Tx) error {
			tell := !isLarge(*i)
			if err := s.change(ctx, tx, *i, 0, i.RowsRead, tell); err != nil {
				return err
			}
			state := rest.ImportTelling
			if tell {
				state = rest.ImportDone
			}
			return s.finish(ctx, tx, *i, state)
		})
	}
	for from := int64(0); from < i.RowsRead; from += slice {
		if err := ctx.Err(); err != nil {
			return err
		}
		last := min(from+slice, i.RowsRead)
		if err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error { return s.change(ctx, tx, *i, from, last, true) }); err != nil {
			return err
		}
	}
	return s.update(ctx, func(ctx context.Context, tx *store.Tx) error { return s.finish(ctx, tx, *i, rest.ImportDone) })
}

// finish ends the changes with the one event of the whole.
func (s *Service) finish(ctx context.Context, tx *store.Tx, i db.Import, state string) error {
	next := db.MoveImportParams{ID: i.ID, OldState: rest.ImportApplying, State: state, At: s.now(), AppliedAt: s.now()}
	if state == rest.ImportDone {
		next.EndedAt = next.At
	} else {
		next.LeaseUntil, next.LeaseBy = s.lease(workLease), s.me
	}
	if err := s.moveIn(ctx, tx, next); err != nil {
		return err
	}
	answer := rest.FaultsStop
	if i.SkipBad {
		answer = rest.FaultsSkip
	}
	made := map[string]string{}
	if err := json.Unmarshal([]byte(i.MadeGroups), &made); err != nil {
		return err
	}
	return desk.Note(tx, actorOf(i), event.Event{Type: event.ImportApplied, Subject: or(i.Label, i.Source)}, map[string]any{
		"import": rest.ImportPrefix + i.ID, "source": i.Source, "rows": i.RowsRead, "added": i.RowsNew, "changed": i.RowsChanged,
		"same": i.RowsSame, "left_out": i.RowsFaulty, "on_faults": answer, "groups": sortedKeys(made),
	})
}

// change writes a slice of rows: behind after, up to last. With tell the events and
// codes stand in the same transaction.
func (s *Service) change(ctx context.Context, tx *store.Tx, i db.Import, after, last int64, tell bool) error {
	a := actorOf(i)
	if err := stillMay(ctx, tx, a); err != nil {
		return err
	}
	todo, err := tx.CountImportChanges(ctx, db.CountImportChangesParams{ImportID: i.ID, After: after, Last: last})
	if err != nil {
		return err
	}
	if todo.Changed+todo.Fresh == 0 {
		return nil
	}
	now := s.now()
	made, err := s.makeGroups(ctx, tx, i)
	if err != nil {
		return err
	}
	// In parts, because PostgreSQL knows nothing yet of rows that were just written and
	// plans badly for many of them.
	fresh, fields := int64(0), int64(0)
	for from := after; from < last; from += part {
		if err := s.life.Err(); err != nil {
			return err
		}
		to := min(from+part, last)
		n, err := tx.ImportNewUsers(ctx, db.ImportNewUsersParams{ImportID: i.ID, After: from, Last: to, At: now})
		if err != nil {
			return err
		}
		fresh += n
		if todo.Changed > 0 {
			if n, err = tx.ImportChangedUsers(ctx, db.ImportChangedUsersParams{ImportID: i.ID, After: from, Last: to, At: now}); err != nil {
				return err
			}
			fields += n
			if _, err := tx.ImportRemovedMembers(ctx, db.ImportRemovedMembersParams{ImportID: i.ID, After: from, Last: to}); err != nil {
				return err
			}
		}
		if _, err := tx.ImportAddedMembers(ctx, db.ImportAddedMembersParams{ImportID: i.ID, After: from, Last: to}); err != nil {
			return err
		}
		s.atWork(i.ID, fresh+fields)
	}
	// Events come last: from the first one on the other servers wait with theirs.
	for _, name := range sortedKeys(made) {
		err := desk.Note(tx, a, event.Event{Type: event.GroupAdded, Subject: name}, map[string]any{"group": rest.GroupPrefix + made[name], "mfa": rest.MFAInherit, "import": rest.ImportPrefix + i.ID})
		if err != nil {
			return err
		}
	}
	if fresh != todo.Fresh || fields != todo.Fields {
		return errStale
	}
	if todo.Changed > 0 {
		if err := s.touch(ctx, tx, a, i, after, last); err != nil {
			return err
		}
	}
	n, err := tx.CountDone(ctx, db.CountDoneParams{ID: i.ID, N: todo.Changed + todo.Fresh, At: now, LeaseUntil: s.lease(workLease), LeaseBy: s.me})
	if err == nil && n != 1 {
		err = errDropped // another server goes on with it
	}
	if err != nil {
		return err
	}
	for from := after; tell; {
		told, next, err := s.tell(ctx, tx, i, from, last)
		if err != nil || told == 0 {
			return err
		}
		from = next
	}
	return nil
}

// stillMay: whoever began the import must still be who they were.
func stillMay(ctx context.Context, tx *store.Tx, a desk.Actor) error {
	if a.UserID == "" {
		return nil
	}
	u, err := tx.GetUser(ctx, a.UserID)
	if err != nil && !store.IsNotFound(err) {
		return err
	}
	if err != nil || u.Disabled || u.Role != a.Role {
		return fault.Newf(fault.Forbidden, "The account that began this import was disabled, removed or given another role meanwhile.")
	}
	return nil
}

// makeGroups makes the groups that the rows name and that are not there, and gives them.
// They are the first slice's.
func (s *Service) makeGroups(ctx context.Context, tx *store.Tx, i db.Import) (map[string]string, error) {
	wanted, made := map[string]string{}, map[string]string{}
	if err := json.Unmarshal([]byte(i.MadeGroups), &wanted); err != nil {
		return nil, err
	}
	now := s.now()
	for _, name := range sortedKeys(wanted) {
		if g, err := tx.GetGroupByName(ctx, name); err == nil {
			if g.ID != wanted[name] {
				return nil, errStale
			}
			continue
		} else if !store.IsNotFound(err) {
			return nil, err
		}
		if err := tx.InsertGroup(ctx, db.InsertGroupParams{ID: wanted[name], Name: name, MFA: rest.MFAInherit, CreatedAt: now, UpdatedAt: now}); err != nil {
			return nil, err
		}
		made[name] = wanted[name]
	}
	return made, nil
}

// touch tells machines of users who have changed, and ends what those have who are
// disabled.
func (s *Service) touch(ctx context.Context, tx *store.Tx, a desk.Actor, i db.Import, after, last int64) error {
	gone, err := tx.ListImportedUsers(ctx, db.ListImportedUsersParams{ImportID: i.ID, After: after, Last: last, OnlyDisabled: true})
	if err != nil {
		return err
	}
	for _, id := range gone {
		if err := s.c.Desk.EndDisabled(ctx, tx, a, id); err != nil {
			return err
		}
	}
	all, err := tx.ListImportedUsers(ctx, db.ListImportedUsersParams{ImportID: i.ID, After: after, Last: last})
	if err != nil {
		return err
	}
	if len(all) > 200 {
		return touch.All(ctx, tx)
	}
	return touch.User(ctx, tx, all...)
}

// refresh makes plans anew whose users or groups are no longer what they were made
// for, and counts.
func (s *Service) refresh(ctx context.Context, i *db.Import) error {
	p, err := newPlanner(actorOf(*i), *i)
	if err != nil {
		return err
	}
	p.first = nil // was judged
	var stale []int64
	replaced := map[string]string{} // groups that somebody else has made meanwhile
	err = s.read(ctx, func(q *store.Queries) error {
		for name, id := range p.made {
			g, err := q.GetGroupByName(ctx, name)
			if err == nil && g.ID != id {
				replaced[name] = g.ID
			} else if err != nil && !store.IsNotFound(err) {
				return err
			}
		}
		if stale, err = q.ListStaleImportRows(ctx, i.ID); err != nil {
			return err
		}
		lost, err := q.ListImportRowsWithLostGroups(ctx, i.ID)
		if len(p.made) == 0 {
			stale = append(stale, lost...)
		} else if err == nil { // those of groups that are still to be made are not lost
			for _, n := range lost {
				members, err := q.ListImportMembersOfRow(ctx, db.ListImportMembersOfRowParams{ImportID: i.ID, N: n})
				if err != nil {
					return err
				}
				for _, m := range members {
					if m.GroupName == "" && !holds(p.made, m.GroupID) {
						stale = append(stale, n)
						break
					}
				}
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(stale)
	stale = slices.Compact(stale)
	if len(replaced) > 0 {
		err := s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
			for name, id := range replaced {
				if _, err := tx.ReplaceImportGroup(ctx, db.ReplaceImportGroupParams{ImportID: i.ID, OldID: p.made[name], GroupID: id}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for name := range replaced {
			delete(p.made, name)
		}
	}
	for part := range slices.Chunk(stale, readBatch) {
		if err := s.replan(ctx, p, i.ID, part); err != nil {
			return err
		}
	}
	err = s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		counts, err := tx.CountImportRows(ctx, i.ID)
		if err != nil {
			return err
		}
		set := db.SetImportCountsParams{ID: i.ID}
		for _, c := range counts {
			switch c.State {
			case rest.RowNew:
				set.RowsNew = c.N
			case rest.RowChanged:
				set.RowsChanged = c.N
			case rest.RowSame:
				set.RowsSame = c.N
			case rest.RowFaulty:
				set.RowsFaulty = c.N
			}
		}
		if _, err := tx.SetImportCounts(ctx, set); err != nil {
			return err
		}
		if _, err := tx.SetImportGroups(ctx, db.SetImportGroupsParams{ID: i.ID, MadeGroups: encode(p.made)}); err != nil {
			return err
		}
		hold := workLease
		if set.RowsNew+set.RowsChanged > whole && !i.SkipBad {
			hold += wholeTime // nobody can say that it still works before its end
		}
		n, err := tx.HoldImport(ctx, db.HoldImportParams{ID: i.ID, LeaseBy: s.me, LeaseUntil: s.lease(hold), At: s.now()})
		if err == nil && n != 1 {
			err = errDropped
		}
		if err != nil {
			return err
		}
		*i, err = tx.GetImport(ctx, i.ID)
		return err
	})
	if err == nil && i.RowsFaulty > 0 && !i.SkipBad {
		err = fault.Newf(fault.Conflict, "%d rows were right when they were checked and are faulty now, because somebody has changed users or groups meanwhile. Nothing was changed. Look at them, and begin again.", i.RowsFaulty)
	}
	return err
}

func holds(m map[string]string, id string) bool {
	for _, v := range m {
		if v == id {
			return true
		}
	}
	return false
}

// replan judges rows again.
func (s *Service) replan(ctx context.Context, p *planner, id string, numbers []int64) error {
	return s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		for _, n := range numbers {
			r, err := tx.GetImportRow(ctx, db.GetImportRowParams{ImportID: id, N: n})
			if err != nil {
				return err
			}
			var in input
			if err := json.Unmarshal([]byte(r.Input), &in); err != nil {
				return err
			}
			pl, err := p.plan(ctx, tx.Queries, n, r.Line, in, nil)
			if err != nil {
				return err
			}
			if pl.row.State == rest.RowNew && r.PasswordHash != "" {
				pl.row.PasswordHash = r.PasswordHash
				pl.changes = append(pl.changes, change{"password", "", "set"})
			}
			pl.seal()
			if _, err := tx.DeleteImportMembersOfRow(ctx, db.DeleteImportMembersOfRowParams{ImportID: id, N: n}); err != nil {
				return err
			}
			if _, err := tx.DeleteImportRow(ctx, db.DeleteImportRowParams{ImportID: id, N: n}); err != nil {
				return err
			}
			if err := insert(ctx, tx, pl); err != nil {
				return err
			}
		}
		return nil
	})
}

// tellAll writes the events and codes that did not fit into the one transaction.
func (s *Service) tellAll(ctx context.Context, i db.Import) error {
	for after := int64(0); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var told int
		var next int64
		err := s.update(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
			if told, next, err = s.tell(ctx, tx, i, after, i.RowsRead); err != nil || told > 0 {
				return err
			}
			return s.moveIn(ctx, tx, db.MoveImportParams{ID: i.ID, OldState: rest.ImportTelling, State: rest.ImportDone, At: s.now(), AppliedAt: i.AppliedAt, EndedAt: s.now()})
		})
		if err != nil || told == 0 {
			return err
		}
		after = next
	}
}

// tell writes the events and codes of the next rows whose users were changed; told is
// how many.
func (s *Service) tell(ctx context.Context, tx *store.Tx, i db.Import, after, upTo int64) (told int, last int64, err error) {
	rows, err := tx.ListUntoldImportRows(ctx, db.ListUntoldImportRowsParams{ImportID: i.ID, After: after, Last: upTo, LimitN: tellBatch})
	if err != nil || len(rows) == 0 {
		return 0, after, err
	}
	a, codes := actorOf(i), int64(0)
	for _, r := range rows {
		last = r.N
		var code []byte
		if r.State == rest.RowNew {
			code, err = s.tellNew(ctx, tx, a, i, r)
		} else {
			err = tellChanged(ctx, tx, a, i, r)
		}
		if err != nil {
			return 0, 0, err
		}
		if code != nil {
			codes++
		}
		if _, err := tx.TellImportRow(ctx, db.TellImportRowParams{ImportID: i.ID, N: r.N, Code: code}); err != nil {
			return 0, 0, err
		}
	}
	n, err := tx.CountTold(ctx, db.CountToldParams{ID: i.ID, N: int64(len(rows)), Codes: codes, At: s.now(), LeaseUntil: s.lease(workLease), LeaseBy: s.me})
	if err == nil && n != 1 {
		err = errDropped // another server goes on with it
	}
	return len(rows), last, err
}

func (s *Service) tellNew(ctx context.Context, tx *store.Tx, a desk.Actor, i db.Import, r db.ImportRow) ([]byte, error) {
	groups := []string{}
	members, err := tx.ListImportMembersOfRow(ctx, db.ListImportMembersOfRowParams{ImportID: i.ID, N: r.N})
	if err != nil {
		return nil, err
	}
	for _, m := range members {
		groups = append(groups, m.GroupName)
	}
	slices.Sort(groups)
	about := map[string]any{
		"role": r.Role, "mfa": r.MFA, "activation": r.Activation, "groups": groups, "password": r.PasswordHash != "", "import": rest.ImportPrefix + i.ID,
	}
	if err := desk.Note(tx, a, event.Event{Type: event.UserAdded, Subject: r.Name, UserID: r.UserID}, about); err != nil {
		return nil, err
	}
	if !r.WantCode {
		return nil, nil
	}
	if _, err := tx.GetUser(ctx, r.UserID); store.IsNotFound(err) { // removed before the code was made
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	now := s.c.Clock.Now()
	until := now.Add(time.Duration(i.CodesFor) * time.Microsecond)
	id, shown, err := s.c.Codes.IssueEnrol(ctx, tx, factor.EnrolCode{UserID: r.UserID, Expires: until, By: a.Name}, now)
	if err != nil {
		return nil, err
	}
	err = desk.Note(tx, a, event.Event{Type: event.CodeIssued, Subject: r.Name, UserID: r.UserID, Factor: "enrol"}, map[string]any{
		"code": rest.FactorPrefix + id, "expires_at": rest.Time(clock.Micros(until)), "import": rest.ImportPrefix + i.ID,
	})
	return s.sealCode(i.ID, r.N, codeOf{shown, until}), err
}

// tellChanged writes the events that the same changes would have had one by one.
func tellChanged(ctx context.Context, tx *store.Tx, a desk.Actor, i db.Import, r db.ImportRow) error {
	var list []change
	if err := json.Unmarshal([]byte(r.Changes), &list); err != nil {
		return err
	}
	var fields []change
	for _, c := range list {
		switch c.Field {
		case "groups":
		case "disabled":
			e := event.Event{Type: event.UserEnabled, Subject: r.Name, UserID: r.UserID, Outcome: "enabled"}
			if r.Disabled {
				e.Type, e.Outcome = event.UserDisabled, "disabled"
			}
			if err := desk.Note(tx, a, e, map[string]any{"import": rest.ImportPrefix + i.ID}); err != nil {
				return err
			}
		default:
			fields = append(fields, c)
		}
	}
	if len(fields) > 0 {
		err := desk.Note(tx, a, event.Event{Type: event.UserChanged, Subject: r.Name, UserID: r.UserID}, map[string]any{"changes": fields, "import": rest.ImportPrefix + i.ID})
		if err != nil {
			return err
		}
	}
	members, err := tx.ListImportMembersOfRow(ctx, db.ListImportMembersOfRowParams{ImportID: i.ID, N: r.N})
	if err != nil {
		return err
	}
	for _, m := range members {
		word := "removed"
		if m.Added {
			word = "added"
		}
		err := desk.Note(tx, a, event.Event{Type: event.GroupChanged, Subject: m.GroupName, UserID: r.UserID}, map[string]any{
			"group": rest.GroupPrefix + m.GroupID, "member": r.Name, "was": word, "import": rest.ImportPrefix + i.ID,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func codesTaken(i db.Import) event.Event {
	return event.Event{Type: event.ImportCodesTaken, Subject: text.CleanN(or(i.Label, i.Source), 128)}
}

// Resume goes on with what a server that is gone has left, and clears away what is
// old. Every replica does it, now and then.
func (s *Service) Resume(ctx context.Context) error {
	var left []db.Import
	var old []string
	var codes int64
	now := s.now()
	before := func(d time.Duration) int64 { return clock.Micros(s.c.Clock.Now().Add(-d)) }
	err := s.read(ctx, func(q *store.Queries) (err error) {
		if left, err = q.ListAbandonedImports(ctx, now); err != nil {
			return err
		}
		if codes, err = q.CountOldImportCodes(ctx, before(keepCodes)); err != nil {
			return err
		}
		old, err = q.ListOldImports(ctx, db.ListOldImportsParams{Ended: before(keepEnded), Checked: before(keepChecked)})
		return err
	})
	if err != nil {
		return err
	}
	for _, i := range left {
		if i.State == rest.ImportReading {
			err := s.move(ctx, db.MoveImportParams{
				ID: i.ID, OldState: rest.ImportReading, State: rest.ImportFailed, At: now, EndedAt: now,
				Problem: "The file or query broke off before its end, or the server stopped. Nothing was changed; begin again.",
			})
			if err != nil && !fault.Is(err, fault.Conflict) {
				return err
			}
			continue
		}
		taken := int64(0)
		err := s.update(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
			taken, err = tx.TakeImport(ctx, db.TakeImportParams{ID: i.ID, State: i.State, LeaseBy: s.me, LeaseUntil: s.lease(workLease), At: s.now()})
			return err
		})
		if err != nil {
			return err
		}
		if taken == 1 && s.life.Err() == nil {
			s.c.Log.Info("an import that was left goes on", "import", i.ID, "state", i.State)
			s.start(i.ID)
		}
	}
	for _, id := range old {
		if err := s.remove(ctx, id); err != nil {
			return err
		}
	}
	if codes == 0 { // as nearly always: nobody waits for a transaction of nothing
		return nil
	}
	return s.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.ForgetOldImportCodes(ctx, before(keepCodes)); err != nil {
			return err
		}
		_, err := tx.ForgetOldImportCounts(ctx, before(keepCodes))
		return err
	})
}
