package desk

import (
	"context"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/push"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
)

// UserFilter chooses users; what is empty means any.
type UserFilter struct {
	Prefix string // of the name, whatever its case
	Role   string
	MFA    string // their own setting
	State  string // one of rest.UserStates
	Group  string // name or id
	Sort   string // name or created, with "-" the other way round
}

// manyMembers is from how many members on a group is gone through user by user.
const manyMembers = 2000

// ListUsers gives a page of users, by themselves in order of their names, whatever the case.
func (d *Desk) ListUsers(ctx context.Context, a Actor, f UserFilter, after string, limit int) (rest.Page[rest.User], error) {
	out := rest.Page[rest.User]{Items: []rest.User{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	var v faults
	if f.Role != "" {
		v.word("role", f.Role, rest.Roles)
	}
	if f.MFA != "" {
		v.word("mfa", f.MFA, rest.MFASettings)
	}
	if f.State != "" {
		v.word("state", f.State, rest.UserStates)
	}
	order, kind := v.order("users", f.Sort, "name", "created")
	if err := v.err(); err != nil {
		return out, err
	}
	if f.Prefix != "" && !askable(f.Prefix) {
		return out, nil
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		groupID := ""
		if f.Group != "" {
			g, err := group(ctx, q, f.Group)
			if err != nil {
				return err
			}
			groupID = g.ID
		}
		var err error
		out, err = d.listUsers(ctx, q, kind, db.UserFilter{Fold: facts.Fold(f.Prefix), Role: f.Role, MFA: f.MFA, State: f.State, GroupID: groupID, Order: order}, after, limit)
		return err
	})
	return out, err
}

// listUsers is a page of users with what lists show of them. However long it is, it
// costs the same number of queries.
func (d *Desk) listUsers(ctx context.Context, q *db.Queries, kind string, f db.UserFilter, after string, limit int) (rest.Page[rest.User], error) {
	out := rest.Page[rest.User]{Items: []rest.User{}}
	from, err := resume(kind, after, 1)
	if err != nil {
		return out, err
	}
	ask, show := page(limit)
	f.At, f.N = d.now(), ask
	if f.Order.By == "created" {
		f.AfterID = from[0]
	} else {
		f.AfterName, f.AfterFold = from[0], facts.Fold(from[0])
	}
	if f.GroupID != "" {
		n, err := q.SomeMembers(ctx, f.GroupID, manyMembers)
		if err != nil {
			return out, err
		}
		f.Members = n >= manyMembers
	}
	rows, err := q.FindUsers(ctx, f)
	if err != nil {
		return out, err
	}
	if len(rows) > show {
		rows = rows[:show]
		last := rows[show-1].Name
		if f.Order.By == "created" {
			last = rows[show-1].ID
		}
		out.Next = cursor(kind, last)
	}
	out.Items, err = d.showMany(ctx, q, rows)
	return out, err
}

// showMany is these users as they are shown, in their order.
func (d *Desk) showMany(ctx context.Context, q *db.Queries, rows []db.User) ([]rest.User, error) {
	out := make([]rest.User, len(rows))
	at := map[string]*rest.User{}
	ids := make([]string, len(rows))
	for i, r := range rows {
		out[i], ids[i] = userOf(r), r.ID
		at[r.ID] = &out[i]
	}
	known, err := facts.Users(ctx, q, rows, d.Clock.Now())
	if err != nil {
		return nil, err
	}
	for id, u := range at {
		u.MFAEffective, u.MFAWhy = policy.TwoFactor(*known[id])
		for _, g := range known[id].Groups {
			u.Groups = append(u.Groups, g.Name)
		}
	}
	factors, err := q.FactorsOfUsers(ctx, ids, d.now())
	if err != nil {
		return nil, err
	}
	for _, f := range factors {
		if u := at[f.UserID]; f.Confirmed && !slices.Contains(u.Factors, f.Kind) {
			u.Factors = append(u.Factors, f.Kind)
		}
	}
	locks, err := q.LocksOfUsers(ctx, ids, d.now())
	if err != nil {
		return nil, err
	}
	for _, l := range locks {
		u := at[l.Attempt.UserID]
		u.Locks = append(u.Locks, lockOf(l.Attempt, u.Name, l.Machine, d.now()))
	}
	return out, nil
}

// userOf is the part of a user that stands in its row.
func userOf(u db.User) rest.User {
	return rest.User{
		ID: rest.UserPrefix + u.ID, Name: u.Name, DisplayName: u.DisplayName, Mail: u.Mail, Role: u.Role, MFA: u.MFA,
		Disabled: u.Disabled, Activation: u.Activation, ActivateAt: rest.Time(u.ActivateAt), ActivatedAt: rest.Time(u.ActivatedAt),
		MustChange: u.MustChange, HasPassword: u.PasswordHash != "", PasswordChangedAt: rest.Time(u.PasswordChangedAt), UID: u.UID,
		Groups: []string{}, Factors: []string{}, CreatedAt: rest.Time(u.CreatedAt), UpdatedAt: rest.Time(u.UpdatedAt), Rev: u.Rev,
	}
}

// show is one user.
func (d *Desk) show(ctx context.Context, q *db.Queries, u db.User) (rest.User, error) {
	many, err := d.showMany(ctx, q, []db.User{u})
	if err != nil {
		return rest.User{}, err
	}
	return many[0], nil
}

func lockOf(a db.Attempt, user, machine string, now int64) rest.Lock {
	l := rest.Lock{User: user, UserID: rest.UserPrefix + a.UserID, Machine: machine, Failures: a.Failures}
	if door := attempts.Name(a.MachineID); door != "" {
		l.Machine = door // no machine: the people's door
	} else if a.MachineID != "" {
		l.MachineID = rest.MachinePrefix + a.MachineID
	}
	if a.BlockedUntil > now {
		l.BlockedUntil = rest.Time(a.BlockedUntil)
	}
	if a.LockedUntil > now {
		l.LockedUntil = rest.Time(a.LockedUntil)
	}
	return l
}

// ListLocks gives a page of everybody who is locked out or must wait now, in order of
// names (S10).
func (d *Desk) ListLocks(ctx context.Context, a Actor, after string, limit int) (rest.Page[rest.Lock], error) {
	out := rest.Page[rest.Lock]{Items: []rest.Lock{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	from, err := resume("locks", after, 2)
	if err != nil {
		return out, err
	}
	ask, show := page(limit)
	now := d.now()
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.FindLocks(ctx, db.LockFilter{At: now, AfterName: from[0], AfterMachine: from[1], N: ask})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			out.Next = cursor("locks", rows[show-1].User, rows[show-1].Attempt.MachineID)
		}
		for _, r := range rows {
			out.Items = append(out.Items, lockOf(r.Attempt, r.User, r.Machine, now))
		}
		return nil
	})
	return out, err
}

// ShowUser gives one user by name or id.
func (d *Desk) ShowUser(ctx context.Context, a Actor, ref string) (rest.User, error) {
	var out rest.User
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := user(ctx, q, ref)
		if err != nil {
			return err
		}
		out, err = d.show(ctx, q, u)
		return err
	})
	return out, err
}

// activation judges the pair of fields (D1).
func (v *faults) activation(word string, at time.Time) {
	v.word("activation", word, rest.Activations)
	switch {
	case word == rest.ActivateAt && at.IsZero():
		v.add("activate_at", "it is missing; with activation \"at\" say when, such as 2026-12-01T08:00:00Z")
	case word != rest.ActivateAt && !at.IsZero():
		v.add("activate_at", "it only goes with activation \"at\"")
	case !at.IsZero() && (at.Year() < 2000 || at.Year() > 2200):
		v.add("activate_at", "the year %d is out of range; allowed are 2000 to 2200", at.Year())
	}
}

func (v *faults) uid(uid *int64) {
	if uid != nil && (*uid < 0 || *uid > 1<<32-2) {
		v.add("uid", "%d is out of range; allowed are 0 to 4294967294", *uid)
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// AddUser makes an account (D1).
func (d *Desk) AddUser(ctx context.Context, a Actor, in rest.NewUser) (rest.User, error) {
	var out rest.User
	if err := a.may(change); err != nil {
		return out, err
	}
	in.Role, in.MFA, in.Activation = or(in.Role, rest.RoleNone), or(in.MFA, rest.MFAInherit), or(in.Activation, rest.ActivateNow)
	var v faults
	v.userName("name", in.Name)
	v.line("display_name", in.DisplayName, maxLine)
	v.mail("mail", in.Mail)
	v.word("role", in.Role, rest.Roles)
	v.word("mfa", in.MFA, rest.MFASettings)
	v.activation(in.Activation, in.ActivateAt)
	v.uid(in.UID)
	v.count("groups", len(in.Groups))
	row := db.InsertUserParams{
		ID: store.NewID(), Name: in.Name, NameFold: facts.Fold(in.Name), DisplayName: in.DisplayName, Mail: in.Mail, Role: in.Role,
		MustChange: in.MustChange, Activation: in.Activation, MFA: in.MFA, UID: in.UID,
	}
	if v.f == nil && !in.Password.Empty() {
		hash, err := d.Passwords.Hash(ctx, in.Name, in.Password.Bytes)
		if err != nil && !v.merge(err) {
			return out, err
		}
		row.PasswordHash = hash
	}
	if err := v.err(); err != nil {
		return out, err
	}
	if err := a.grant(in.Role); err != nil {
		return out, err
	}
	if in.MFA == rest.MFAOff {
		if err := a.over(in.Name, "", in.Role); err != nil {
			return out, err
		}
	}
	now := d.now()
	row.CreatedAt, row.UpdatedAt = now, now
	if row.PasswordHash != "" {
		row.PasswordChangedAt = now
	}
	switch in.Activation {
	case rest.ActivateAt:
		row.ActivateAt = clock.Micros(in.ActivateAt)
	case rest.ActivateNow:
		row.ActivatedAt = now
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if in.Role == rest.RoleOwner {
			if err := d.raise(ctx, tx.Queries, a, in.Name, ""); err != nil {
				return err
			}
		}
		if _, err := tx.GetUserByName(ctx, in.Name); err == nil {
			return fault.Newf(fault.Exists, "There is a user %q already. Choose another name.", in.Name)
		} else if !store.IsNotFound(err) {
			return err
		}
		var groups []string
		for i, ref := range in.Groups {
			g, err := group(ctx, tx.Queries, ref)
			if fault.Is(err, fault.NotFound) {
				v.add(fmt.Sprintf("groups[%d]", i), "there is no group %q", ref)
				continue
			} else if err != nil {
				return err
			}
			groups = append(groups, g.ID)
		}
		if err := v.err(); err != nil {
			return err
		}
		if err := tx.InsertUser(ctx, row); err != nil {
			return err
		}
		for _, g := range groups {
			if _, err := tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: g, UserID: row.ID}); err != nil {
				return err
			}
		}
		err := note(tx, a, event.Event{Type: event.UserAdded, Subject: in.Name, UserID: row.ID}, map[string]any{
			"role": in.Role, "mfa": in.MFA, "activation": in.Activation, "groups": in.Groups, "password": row.PasswordHash != "",
		})
		if err != nil {
			return err
		}
		u, err := tx.GetUser(ctx, row.ID)
		if err != nil {
			return err
		}
		out, err = d.show(ctx, tx.Queries, u)
		return err
	})
	return out, err
}

// change is one setting that was changed, for events.
type changed struct {
	Field string `json:"field"`
	Old   any    `json:"old"`
	New   any    `json:"new"`
}

// set writes a new value and notes the difference.
func set[T comparable](list *[]changed, field string, to *T, value *T) {
	if value == nil || *to == *value {
		return
	}
	*list = append(*list, changed{field, *to, *value})
	*to = *value
}

// ChangeUser changes an account; rev is the revision that was seen, 0 for any.
func (d *Desk) ChangeUser(ctx context.Context, a Actor, ref string, rev int64, in rest.UserChange) (rest.User, error) {
	var out rest.User
	if err := a.may(change); err != nil {
		return out, err
	}
	var v faults
	if in.DisplayName != nil {
		v.line("display_name", *in.DisplayName, maxLine)
	}
	if in.Mail != nil {
		v.mail("mail", *in.Mail)
	}
	if in.Role != nil {
		v.word("role", *in.Role, rest.Roles)
	}
	if in.MFA != nil {
		v.word("mfa", *in.MFA, rest.MFASettings)
	}
	if in.UID != nil && *in.UID != -1 {
		v.uid(in.UID)
	}
	if in.Activation != nil {
		at := time.Time{}
		if in.ActivateAt != nil {
			at = *in.ActivateAt
		}
		v.activation(*in.Activation, at)
	} else if in.ActivateAt != nil {
		v.activation(rest.ActivateAt, *in.ActivateAt)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := user(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, u.Rev); err != nil {
			return err
		}
		was := u
		var list []changed
		set(&list, "display_name", &u.DisplayName, in.DisplayName)
		set(&list, "mail", &u.Mail, in.Mail)
		set(&list, "role", &u.Role, in.Role)
		set(&list, "mfa", &u.MFA, in.MFA)
		set(&list, "must_change", &u.MustChange, in.MustChange)
		set(&list, "disabled", &u.Disabled, in.Disabled)
		if in.UID != nil {
			old, next := int64(-1), *in.UID
			if u.UID != nil {
				old = *u.UID
			}
			set(&list, "uid", &old, &next)
			if u.UID = &next; next == -1 {
				u.UID = nil
			}
		}
		if in.Activation != nil || in.ActivateAt != nil {
			word, at := rest.ActivateAt, int64(0)
			if in.Activation != nil {
				word = *in.Activation
			}
			if in.ActivateAt != nil {
				at = clock.Micros(*in.ActivateAt)
			}
			set(&list, "activation", &u.Activation, &word)
			set(&list, "activate_at", &u.ActivateAt, &at)
		}
		if len(list) == 0 {
			out, err = d.show(ctx, tx.Queries, u)
			return err
		}
		if was.Role != u.Role {
			if err := a.over(u.Name, u.ID, was.Role); err != nil {
				return err
			}
			if err := a.grant(u.Role); err != nil {
				return err
			}
			if u.Role == rest.RoleOwner {
				if err := d.raise(ctx, tx.Queries, a, u.Name, u.ID); err != nil {
					return err
				}
			}
		}
		// Each field but the displayed name can shut somebody out or weaken what they are
		// asked: "inherit" may switch 2FA off through a group, an activation may lie in the
		// future, a uid may be exempt, and a mail address may get codes. Root on the server
		// may all of it but take 2FA or a role away.
		if slices.ContainsFunc(list, func(c changed) bool { return c.Field != "display_name" }) && (!a.Local || was.MFA != u.MFA && u.MFA != rest.MFAOn) {
			if err := a.over(u.Name, u.ID, was.Role); err != nil {
				return err
			}
		}
		var guarded owners
		if was.Role == rest.RoleOwner && was.MFA != u.MFA {
			if guarded, err = d.owners(ctx, tx.Queries); err != nil {
				return err
			}
		}
		n, err := tx.UpdateUser(ctx, db.UpdateUserParams{
			DisplayName: u.DisplayName, Mail: u.Mail, Role: u.Role, MustChange: u.MustChange, Activation: u.Activation,
			ActivateAt: u.ActivateAt, ActivatedAt: u.ActivatedAt, Disabled: u.Disabled, MFA: u.MFA, UID: u.UID,
			UpdatedAt: d.now(), ID: u.ID, Rev: was.Rev,
		})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.New(fault.Conflict, nil)
		}
		// Who is disabled or loses the role as well is no matter of what 2FA asks.
		if was.Disabled == u.Disabled && was.Role == u.Role {
			if err := d.keepsAnOwner(ctx, tx.Queries, guarded); err != nil {
				return err
			}
		}
		if was.Disabled != u.Disabled {
			e := event.Event{Type: event.UserEnabled, Subject: u.Name, UserID: u.ID, Outcome: "enabled"}
			if u.Disabled {
				e.Type, e.Outcome = event.UserDisabled, "disabled"
				if err := d.EndDisabled(ctx, tx, a, u.ID); err != nil {
					return err
				}
			}
			if err := note(tx, a, e, nil); err != nil {
				return err
			}
		}
		if rest := slices.DeleteFunc(list, func(c changed) bool { return c.Field == "disabled" }); len(rest) > 0 {
			if err := note(tx, a, event.Event{Type: event.UserChanged, Subject: u.Name, UserID: u.ID}, map[string]any{"changes": rest}); err != nil {
				return err
			}
		}
		if err := touch.User(ctx, tx, u.ID); err != nil {
			return err
		}
		if u, err = tx.GetUser(ctx, u.ID); err != nil {
			return err
		}
		out, err = d.show(ctx, tx.Queries, u)
		return err
	})
	return out, err
}

// SetPassword sets a user's password. Vaults made with the old one are refused by
// machines from their next contact on (O5), and windows end.
func (d *Desk) SetPassword(ctx context.Context, a Actor, ref string, in rest.NewPassword) error {
	if err := a.may(change); err != nil {
		return err
	}
	// The name is needed to judge the password, and hashing takes too long for a
	// transaction.
	var name string
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.subject(ctx, q, ref)
		name = u.Name
		return err
	})
	if err != nil {
		return err
	}
	hash, err := d.Passwords.Hash(ctx, name, in.Password.Bytes)
	if err != nil {
		return err
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if u.Name != name {
			return fault.New(fault.Conflict, nil)
		}
		if _, err := tx.SetUserPassword(ctx, db.SetUserPasswordParams{PasswordHash: hash, At: d.now(), MustChange: in.MustChange, ID: u.ID}); err != nil {
			return err
		}
		return ending.Password(ctx, tx, a.changes(u), map[string]any{"must_change": in.MustChange}, "", d.Clock.Now())
	})
}

// Unlock lifts every pause and lock-out of a user (S10).
func (d *Desk) Unlock(ctx context.Context, a Actor, ref string) (rest.Done, error) {
	var out rest.Done
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := user(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		// Whoever knows a password and lifts the lock again and again may guess codes
		// without end: a lock ends by itself. Root on the server may.
		if err := a.over(u.Name, u.ID, u.Role); err != nil && !a.Local {
			return err
		}
		was, err := tx.LocksOfUsers(ctx, []string{u.ID}, d.now())
		if err != nil {
			return err
		}
		if _, err := tx.ClearAttemptsOfUser(ctx, u.ID); err != nil {
			return err
		}
		out = rest.Done{Count: len(was)}
		if len(was) == 0 {
			return nil
		}
		var where []string
		for _, l := range was {
			where = append(where, or(l.Machine, "across machines"))
		}
		if err := note(tx, a, event.Event{Type: event.LockoutLifted, Subject: u.Name, UserID: u.ID}, map[string]any{"where": where}); err != nil {
			return err
		}
		return touch.User(ctx, tx, u.ID)
	})
	return out, err
}

// RemoveUser removes an account with its factors. Machines wipe its offline data
// at their next contact, because their policy file no longer names it. Its events
// stay.
func (d *Desk) RemoveUser(ctx context.Context, a Actor, ref string, rev int64) error {
	if err := a.may(change); err != nil {
		return err
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := user(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, u.Rev); err != nil {
			return err
		}
		if err := a.over(u.Name, u.ID, u.Role); err != nil && !a.Local {
			return err
		}
		// First the machines that hold something are told: afterwards nobody knows which.
		if err := touch.User(ctx, tx, u.ID); err != nil {
			return err
		}
		if _, err := d.endWindows(ctx, tx, a, u.ID, "", "user-removed"); err != nil {
			return err
		}
		vaults, err := tx.DeleteVaultsOfUser(ctx, u.ID)
		if err != nil {
			return err
		}
		if _, err := tx.ClearAttemptsOfUser(ctx, u.ID); err != nil {
			return err
		}
		if _, err := ca.RevokeUser(ctx, tx, u.ID, ca.Cessation, d.now()); err != nil {
			return err
		}
		if _, err := tx.DeleteUser(ctx, u.ID); err != nil {
			return err
		}
		tx.Wake(push.UserKey(u.ID))
		return note(tx, a, event.Event{Type: event.UserRemoved, Subject: u.Name, UserID: u.ID}, map[string]any{"role": u.Role, "offline": vaults})
	})
}
