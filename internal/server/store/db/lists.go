package db

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"
	"strings"
)

// What follows is written by hand, because the generator can not say it on both
// engines: lists with filters (a clause that is not asked for is left out, so that the
// indices are used) and questions about many rows at once (a page of users or
// machines costs a fixed number of queries, however long it is).

// most is how many ids one query asks for.
const most = 512

// columns are those of a generated query, so that a new one is never forgotten here.
func columns(query, alias string) string {
	_, s, _ := strings.Cut(query, "SELECT ")
	s, _, _ = strings.Cut(s, " FROM ")
	if alias == "" {
		return s
	}
	list := strings.Split(s, ", ")
	for i, c := range list {
		list[i] = alias + "." + c
	}
	return strings.Join(list, ", ")
}

// fields are the places of a row's columns, in their order.
func fields(row any) []any {
	v := reflect.ValueOf(row).Elem()
	out := make([]any, v.NumField())
	for i := range out {
		out[i] = v.Field(i).Addr().Interface()
	}
	return out
}

// all reads the rows.
func all[T any](rows *sql.Rows, err error, places func(*T) []any) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		var x T
		if err := rows.Scan(places(&x)...); err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return out, rows.Close()
}

func plain[T any](x *T) []any { return fields(x) }

// clauses collects the conditions of a query and their arguments.
type clauses struct {
	where []string
	args  []any
}

func (c *clauses) arg(v any) string {
	c.args = append(c.args, v)
	return fmt.Sprintf("$%d", len(c.args))
}

func (c *clauses) add(format string, v ...any) {
	marks := make([]any, len(v))
	for i := range v {
		marks[i] = c.arg(v[i])
	}
	c.where = append(c.where, fmt.Sprintf(format, marks...))
}

func (c *clauses) String() string {
	if len(c.where) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.where, " AND ")
}

// in is the list of the ids as arguments. Their number is rounded up, so that there
// are few texts of a query and they stay prepared.
func (c *clauses) in(ids []string) string {
	n := 1
	for n < len(ids) {
		n *= 8
	}
	marks := make([]string, min(n, most))
	for i := range marks {
		marks[i] = c.arg(ids[min(i, len(ids)-1)])
	}
	return "(" + strings.Join(marks, ", ") + ")"
}

// chunks asks for at most so many ids at a time.
func chunks[T any](ids []string, ask func(ids []string) ([]T, error)) ([]T, error) {
	out := []T{}
	for len(ids) > 0 {
		n := min(len(ids), most)
		rows, err := ask(ids[:n])
		if err != nil {
			return nil, err
		}
		out, ids = append(out, rows...), ids[n:]
	}
	return out, nil
}

// after is the first text behind all that begin with s in byte order.
func after(s string) string { return s + "\U0010FFFF" }

// UserFilter chooses users; what is empty means any.
type UserFilter struct {
	Fold    string // the folded name begins so
	Role    string
	MFA     string
	GroupID string
	Members bool   // the group is large: go through the users, not through its members
	State   string // active, disabled, locked, waiting or unenrolled
	At      int64  // now
	// The last user that was shown.
	AfterFold, AfterName string
	N                    int64
}

// FindUsers lists users in order of their names, whatever the case.
func (q *Queries) FindUsers(ctx context.Context, f UserFilter) ([]User, error) {
	var c clauses
	if f.Fold != "" {
		c.add("name_fold >= %s AND name_fold < %s", f.Fold, after(f.Fold))
	}
	if f.AfterName != "" {
		c.add("name_fold >= %s", f.AfterFold)
		c.add("(name_fold > %s OR name > %s)", f.AfterFold, f.AfterName)
	}
	if f.Role != "" {
		c.add("role = %s", f.Role)
		if f.Role != "none" {
			c.where = append(c.where, "role <> 'none'") // said as the index says it
		}
	}
	if f.MFA != "" {
		c.add("mfa = %s", f.MFA)
	}
	switch {
	case f.GroupID != "" && f.Members:
		c.add("EXISTS (SELECT 1 FROM group_members x WHERE x.group_id = %s AND x.user_id = users.id)", f.GroupID)
	case f.GroupID != "":
		c.add("id IN (SELECT x.user_id FROM group_members x WHERE x.group_id = %s)", f.GroupID)
	}
	switch f.State {
	case "":
	case "active":
		c.add("disabled = FALSE AND NOT (activation = 'at' AND activate_at > %s)", f.At)
	case "disabled":
		c.add("disabled = TRUE")
	case "waiting":
		c.add("disabled = FALSE AND (activation = 'at' AND activate_at > %s OR activation = 'first-login' AND activated_at = 0)", f.At)
	case "locked":
		c.add("id IN (SELECT x.user_id FROM attempts x WHERE x.locked_until > %s OR x.blocked_until > %s)", f.At, f.At)
	case "unenrolled":
		c.add("NOT EXISTS (SELECT 1 FROM authenticators x WHERE x.user_id = users.id AND x.confirmed_at > 0 AND x.lost = FALSE)")
	default:
		return nil, fmt.Errorf("users can not be chosen by the state %q", f.State)
	}
	query := "SELECT " + columns(getUser, "") + " FROM users" + c.String() + " ORDER BY name_fold, name LIMIT " + c.arg(f.N)
	rows, err := q.db.QueryContext(ctx, query, c.args...)
	return all(rows, err, plain[User])
}

// UsersOf gives these users, in no order.
func (q *Queries) UsersOf(ctx context.Context, ids []string) ([]User, error) {
	return chunks(ids, func(ids []string) ([]User, error) {
		var c clauses
		rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getUser, "")+" FROM users WHERE id IN "+c.in(ids), c.args...)
		return all(rows, err, plain[User])
	})
}

// GroupOfUser is a group that a user is in.
type GroupOfUser struct {
	UserID, ID, Name, MFA string
}

// GroupsOfUsers gives the groups of these users, in order of user and name.
func (q *Queries) GroupsOfUsers(ctx context.Context, ids []string) ([]GroupOfUser, error) {
	return chunks(ids, func(ids []string) ([]GroupOfUser, error) {
		var c clauses
		rows, err := q.db.QueryContext(ctx, "SELECT m.user_id, g.id, g.name, g.mfa FROM group_members m JOIN groups g ON g.id = m.group_id WHERE m.user_id IN "+c.in(ids)+" ORDER BY m.user_id, g.name", c.args...)
		return all(rows, err, plain[GroupOfUser])
	})
}

// FactorOfUser says how many factors of a kind a user has that could be used.
type FactorOfUser struct {
	UserID, Kind string
	Confirmed    bool // false: waits for its first code
	N            int64
}

// FactorsOfUsers counts the factors of these users by kind: authenticators that are
// not lost, backup codes that are left, bypass codes that are good at the time.
func (q *Queries) FactorsOfUsers(ctx context.Context, ids []string, at int64) ([]FactorOfUser, error) {
	return chunks(ids, func(ids []string) ([]FactorOfUser, error) {
		var c clauses
		list := c.in(ids)
		rows, err := q.db.QueryContext(ctx, "SELECT user_id, kind, confirmed_at > 0, COUNT(*) FROM authenticators WHERE lost = FALSE AND user_id IN "+list+" GROUP BY user_id, kind, confirmed_at > 0"+
			" UNION ALL SELECT user_id, 'backup', TRUE, COUNT(*) FROM backup_codes WHERE used_at = 0 AND user_id IN "+list+" GROUP BY user_id"+
			" UNION ALL SELECT user_id, 'bypass', TRUE, COUNT(*) FROM bypass_codes WHERE used_at = 0 AND expires_at > "+c.arg(at)+" AND user_id IN "+list+" GROUP BY user_id"+
			" ORDER BY 1, 2, 3", c.args...)
		return all(rows, err, plain[FactorOfUser])
	})
}

// LockOfUser is a pause or lock-out with the name of its machine, empty for the count
// across machines.
type LockOfUser struct {
	Attempt Attempt
	Machine string
}

// LocksOfUsers gives the pauses and lock-outs of these users at the time.
func (q *Queries) LocksOfUsers(ctx context.Context, ids []string, at int64) ([]LockOfUser, error) {
	return chunks(ids, func(ids []string) ([]LockOfUser, error) {
		var c clauses
		rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getAttempt, "a")+", COALESCE(m.name, '') FROM attempts a LEFT JOIN machines m ON m.id = a.machine_id WHERE a.user_id IN "+c.in(ids)+
			" AND (a.locked_until > "+c.arg(at)+" OR a.blocked_until > "+c.arg(at)+") ORDER BY a.user_id, a.machine_id", c.args...)
		return all(rows, err, func(l *LockOfUser) []any { return append(fields(&l.Attempt), &l.Machine) })
	})
}

// LockFilter continues the list of everybody who is locked out or must wait.
type LockFilter struct {
	At                      int64
	AfterName, AfterMachine string // the last that was shown: user's name and machine's id
	N                       int64
}

// LockRow is one of them.
type LockRow struct {
	Attempt       Attempt
	User, Machine string
}

// FindLocks lists who is locked out or must wait, in order of names and machines.
func (q *Queries) FindLocks(ctx context.Context, f LockFilter) ([]LockRow, error) {
	var c clauses
	c.add("(a.locked_until > %s OR a.blocked_until > %s)", f.At, f.At)
	if f.AfterName != "" {
		c.add("u.name >= %s AND (u.name > %s OR a.machine_id > %s)", f.AfterName, f.AfterName, f.AfterMachine)
	}
	rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getAttempt, "a")+", u.name, COALESCE(m.name, '') FROM attempts a JOIN users u ON u.id = a.user_id LEFT JOIN machines m ON m.id = a.machine_id"+
		c.String()+" ORDER BY u.name, a.machine_id LIMIT "+c.arg(f.N), c.args...)
	return all(rows, err, func(l *LockRow) []any { return append(fields(&l.Attempt), &l.User, &l.Machine) })
}

// MachineFilter chooses machines; what is empty means any.
type MachineFilter struct {
	Name       string // it begins so, exactly
	Status     string
	Mode       string
	OS         string // it begins so, whatever the case
	TPM        string // tpm, software or none
	Agents     []string
	SeenBefore int64 // not seen since
	OwnerID    string
	KnowsID    string // this user: assigned, or has signed in there, or its owner
	OnlyID     string
	After      string
	N          int64
}

// MachineRow is a machine with what lists show of it.
type MachineRow struct {
	Machine          Machine
	OwnerName        string
	Vaults           int64
	CertificateUntil int64
}

// FindMachines lists machines in order of ids, which is that of joining.
func (q *Queries) FindMachines(ctx context.Context, f MachineFilter) ([]MachineRow, error) {
	var c clauses
	if f.After != "" {
		c.add("m.id > %s", f.After)
	}
	for _, x := range []struct{ column, v string }{
		{"m.status", f.Status}, {"m.mode", f.Mode}, {"m.tpm_class", f.TPM}, {"m.owner_user", f.OwnerID}, {"m.id", f.OnlyID},
	} {
		if x.v != "" {
			c.add(x.column+" = %s", x.v)
		}
	}
	if f.Name != "" {
		c.add("m.name >= %s AND m.name < %s", f.Name, after(f.Name))
	}
	if f.OS != "" {
		c.add("substr(lower(m.os), 1, %s) = %s", int64(len(f.OS)), strings.ToLower(f.OS))
	}
	if f.Agents != nil {
		if len(f.Agents) == 0 {
			return []MachineRow{}, nil
		}
		c.where = append(c.where, "m.agent_version IN "+c.in(f.Agents[:min(len(f.Agents), most)]))
	}
	if f.SeenBefore != 0 {
		c.add("m.last_seen_at < %s", f.SeenBefore)
	}
	if f.KnowsID != "" {
		c.add("(m.id IN (SELECT x.machine_id FROM machine_users x WHERE x.user_id = %s) OR m.id IN (SELECT x.machine_id FROM machine_known x WHERE x.user_id = %s) OR m.owner_user = %s)", f.KnowsID, f.KnowsID, f.KnowsID)
	}
	rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getMachine, "m")+", COALESCE((SELECT u.name FROM users u WHERE u.id = m.owner_user), ''),"+
		" (SELECT COUNT(DISTINCT v.user_id) FROM vaults v WHERE v.machine_id = m.id AND v.state = 'active'),"+
		" COALESCE((SELECT MAX(x.not_after) FROM machine_certificates x WHERE x.machine_id = m.id AND x.revoked_at = 0), 0)"+
		" FROM machines m"+c.String()+" ORDER BY m.id LIMIT "+c.arg(f.N), c.args...)
	return all(rows, err, func(r *MachineRow) []any {
		return append(fields(&r.Machine), &r.OwnerName, &r.Vaults, &r.CertificateUntil)
	})
}

// MachinesOf gives these machines, in no order.
func (q *Queries) MachinesOf(ctx context.Context, ids []string) ([]Machine, error) {
	return chunks(ids, func(ids []string) ([]Machine, error) {
		var c clauses
		rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getMachine, "")+" FROM machines WHERE id IN "+c.in(ids), c.args...)
		return all(rows, err, plain[Machine])
	})
}

// AgentVersions are those that machines run.
func (q *Queries) AgentVersions(ctx context.Context) ([]string, error) {
	rows, err := q.db.QueryContext(ctx, "SELECT DISTINCT agent_version FROM machines ORDER BY 1")
	return all(rows, err, func(s *string) []any { return []any{s} })
}

// UserOfMachine is a user on a machine's list.
type UserOfMachine struct{ MachineID, UserID, Name string }

// UsersOfMachines gives the assigned users of these machines, in order of machine and name.
func (q *Queries) UsersOfMachines(ctx context.Context, ids []string) ([]UserOfMachine, error) {
	return chunks(ids, func(ids []string) ([]UserOfMachine, error) {
		var c clauses
		rows, err := q.db.QueryContext(ctx, "SELECT x.machine_id, u.id, u.name FROM machine_users x JOIN users u ON u.id = x.user_id WHERE x.machine_id IN "+c.in(ids)+" ORDER BY x.machine_id, u.name", c.args...)
		return all(rows, err, plain[UserOfMachine])
	})
}

// PairFilter continues a list of (machine, user) pairs; empty ids mean any.
type PairFilter struct {
	MachineID, UserID       string
	AfterMachine, AfterUser string
	N                       int64
}

// Pair is one of them.
type Pair struct {
	MachineID, UserID string
	Assigned          bool
}

// KnownPairs lists whom active machines know (assigned, or their first factor was
// accepted there), in order of machine and user.
func (q *Queries) KnownPairs(ctx context.Context, f PairFilter) ([]Pair, error) {
	// One page of either table, each in the order of its key, and then the first of both.
	var c clauses
	part := func(table, assigned string) string {
		c.where = nil
		c.add("EXISTS (SELECT 1 FROM machines m WHERE m.id = x.machine_id AND m.status = 'active')")
		if f.MachineID != "" {
			c.add("x.machine_id = %s", f.MachineID)
		}
		if f.UserID != "" {
			c.add("x.user_id = %s", f.UserID)
		}
		if f.AfterMachine != "" {
			c.add("x.machine_id >= %s", f.AfterMachine)
			c.add("(x.machine_id > %s OR x.user_id > %s)", f.AfterMachine, f.AfterUser)
		}
		return "SELECT * FROM (SELECT x.machine_id AS machine_id, x.user_id AS user_id, " + assigned + " AS assigned FROM " + table + " x" + c.String() + " ORDER BY x.machine_id, x.user_id LIMIT " + c.arg(f.N) + ") AS " + table + "_page"
	}
	first, second := part("machine_users", "1"), part("machine_known", "0")
	query := "SELECT machine_id, user_id, MAX(assigned) FROM (" + first + " UNION ALL " + second + ") AS both_pages GROUP BY machine_id, user_id ORDER BY machine_id, user_id LIMIT " + c.arg(f.N)
	rows, err := q.db.QueryContext(ctx, query, c.args...)
	type row struct {
		Pair
		assigned int64
	}
	list, err := all(rows, err, func(r *row) []any { return []any{&r.MachineID, &r.UserID, &r.assigned} })
	out := make([]Pair, len(list))
	for i, r := range list {
		out[i] = r.Pair
		out[i].Assigned = r.assigned > 0
	}
	return out, err
}

// VaultsOfPairs gives the active offline data and LocksOfPairs the lock-outs of users
// on machines; the caller picks the pairs that were meant.
func (q *Queries) VaultsOfPairs(ctx context.Context, userIDs, machineIDs []string) ([]Vault, error) {
	return chunks(userIDs, func(users []string) ([]Vault, error) {
		return chunks(machineIDs, func(machines []string) ([]Vault, error) {
			var c clauses
			rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getActiveVault, "")+" FROM vaults WHERE state = 'active' AND user_id IN "+c.in(users)+" AND machine_id IN "+c.in(machines)+" ORDER BY user_id, machine_id, generation DESC", c.args...)
			return all(rows, err, plain[Vault])
		})
	})
}

// LocksOfPairs gives what was counted against users on machines: see VaultsOfPairs.
func (q *Queries) LocksOfPairs(ctx context.Context, userIDs, machineIDs []string, at int64) ([]Attempt, error) {
	return chunks(userIDs, func(users []string) ([]Attempt, error) {
		return chunks(machineIDs, func(machines []string) ([]Attempt, error) {
			var c clauses
			rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getAttempt, "")+" FROM attempts WHERE locked_until > "+c.arg(at)+" AND user_id IN "+c.in(users)+" AND machine_id IN "+c.in(machines), c.args...)
			return all(rows, err, plain[Attempt])
		})
	})
}

// PoliciesOfGroup names the policies that belong to the group.
func (q *Queries) PoliciesOfGroup(ctx context.Context, groupID string) ([]string, error) {
	rows, err := q.db.QueryContext(ctx, "SELECT p.name FROM policy_groups x JOIN policies p ON p.id = x.policy_id WHERE x.group_id = $1 ORDER BY p.name", groupID)
	return all(rows, err, func(s *string) []any { return []any{s} })
}

// SomeMembers counts the members of a group up to a number: enough to know whether
// there are many.
func (q *Queries) SomeMembers(ctx context.Context, groupID string, upTo int64) (int64, error) {
	var n int64
	err := q.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM (SELECT 1 FROM group_members WHERE group_id = $1 LIMIT $2) AS few", groupID, upTo).Scan(&n)
	return n, err
}

// VaultRow is offline data with the names of its user and machine.
type VaultRow struct {
	Vault          Vault
	UserName       string
	UserGeneration int64
	MachineName    string
	MachineSeenAt  int64
}

// VaultFilter chooses offline data; what is empty means any.
type VaultFilter struct {
	UserID, MachineID       string
	Class                   string
	EndsBefore              int64 // whose days are over by then
	AfterUser, AfterMachine string
	AfterGeneration         int64
	N                       int64
}

// FindVaults lists offline data that is not wiped, in order of user, machine and generation.
func (q *Queries) FindVaults(ctx context.Context, f VaultFilter) ([]VaultRow, error) {
	var c clauses
	c.add("v.state <> 'wiped'")
	for _, x := range []struct{ column, v string }{{"v.user_id", f.UserID}, {"v.machine_id", f.MachineID}, {"v.class", f.Class}} {
		if x.v != "" {
			c.add(x.column+" = %s", x.v)
		}
	}
	if f.EndsBefore != 0 {
		c.add("v.expires_at < %s", f.EndsBefore)
	}
	if f.AfterUser != "" {
		c.add("v.user_id >= %s", f.AfterUser)
		c.add("(v.user_id > %s OR v.machine_id > %s OR v.machine_id = %s AND v.generation > %s)", f.AfterUser, f.AfterMachine, f.AfterMachine, f.AfterGeneration)
	}
	rows, err := q.db.QueryContext(ctx, "SELECT "+columns(getActiveVault, "v")+", u.name, u.password_generation, m.name, m.last_seen_at"+
		" FROM vaults v JOIN users u ON u.id = v.user_id JOIN machines m ON m.id = v.machine_id"+c.String()+
		" ORDER BY v.user_id, v.machine_id, v.generation LIMIT "+c.arg(f.N), c.args...)
	return all(rows, err, func(r *VaultRow) []any {
		return append(fields(&r.Vault), &r.UserName, &r.UserGeneration, &r.MachineName, &r.MachineSeenAt)
	})
}
