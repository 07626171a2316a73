package db

import "context"

// Person is somebody who may sign in now, with the kinds of factors that they could use.
type Person struct {
	ID, Name, Fold, Role, MFA            string
	FIDO2, Push, TOTP, Backup, Mail, SMS bool
}

// mostGroups is how many groups a question about their members names; with more it is
// asked about everybody.
const mostGroups = most

// inGroups is the condition on a column of users' ids that they are members of a group.
func (c *clauses) inGroups(column string, groups []string) {
	if groups != nil && len(groups) <= mostGroups {
		if len(groups) == 0 {
			groups = []string{""}
		}
		c.where = append(c.where, column+" IN (SELECT x.user_id FROM group_members x WHERE x.group_id IN "+c.in(groups)+")")
	}
}

// People gives everybody who is neither disabled nor waits for their activation, in order
// of names, whatever the case: the members of these groups, or all where groups is nil
// (or names so many that asking for all is as good). It is two questions, however many
// they are; they are not one, because an engine that has no figures of its tables yet
// joins them row by row.
func (q *Queries) People(ctx context.Context, groups []string, at int64) ([]Person, error) {
	var c clauses
	c.add("disabled = FALSE AND NOT (activation = 'at' AND activate_at > %s)", at)
	c.inGroups("id", groups)
	rows, err := q.db.QueryContext(ctx, "SELECT id, name, name_fold, role, mfa FROM users"+c.String()+" ORDER BY name_fold, name", c.args...)
	people, err := all(rows, err, func(p *Person) []any { return []any{&p.ID, &p.Name, &p.Fold, &p.Role, &p.MFA} })
	if err != nil {
		return nil, err
	}
	query, args := "", []any(nil)
	for _, part := range []struct{ columns, where string }{
		{"user_id, kind FROM authenticators", "lost = FALSE AND (confirmed_at > 0 OR kind = 'totp')"},
		{"user_id, 'backup' FROM backup_codes", "used_at = 0"},
		{"user_id, '' FROM push_locks", "user_id <> ''"},
	} {
		d := clauses{where: []string{part.where}, args: args}
		d.inGroups("user_id", groups)
		if query != "" {
			query += " UNION ALL "
		}
		query, args = query+"SELECT DISTINCT "+part.columns+d.String(), d.args
	}
	type kind struct{ user, kind string }
	rows, err = q.db.QueryContext(ctx, query, args...)
	kinds, err := all(rows, err, func(k *kind) []any { return []any{&k.user, &k.kind} })
	if err != nil {
		return nil, err
	}
	of := make(map[string]*Person, len(people))
	for i := range people {
		of[people[i].ID] = &people[i]
	}
	var locked []*Person
	for _, k := range kinds {
		p := of[k.user]
		if p == nil {
			continue
		}
		switch k.kind {
		case "fido2":
			p.FIDO2 = true
		case "push":
			p.Push = true
		case "totp":
			p.TOTP = true
		case "mail":
			p.Mail = true
		case "sms":
			p.SMS = true
		case "backup":
			p.Backup = true
		case "":
			locked = append(locked, p)
		}
	}
	for _, p := range locked {
		p.Push = false
	}
	return people, nil
}

// Membership is a user in a group.
type Membership struct{ UserID, GroupID string }

// Memberships tells which members the groups have, of the people of People.
func (q *Queries) Memberships(ctx context.Context, of, groups []string) ([]Membership, error) {
	return chunks(of, func(ids []string) ([]Membership, error) {
		var c clauses
		c.where = append(c.where, "m.group_id IN "+c.in(ids))
		c.inGroups("m.user_id", groups)
		rows, err := q.db.QueryContext(ctx, "SELECT m.user_id, m.group_id FROM group_members m"+c.String(), c.args...)
		return all(rows, err, func(m *Membership) []any { return []any{&m.UserID, &m.GroupID} })
	})
}

// GroupSwitch is a group that switches 2FA on or off for its members.
type GroupSwitch struct{ ID, MFA string }

// GroupSwitches lists the groups that switch 2FA on or off.
func (q *Queries) GroupSwitches(ctx context.Context) ([]GroupSwitch, error) {
	rows, err := q.db.QueryContext(ctx, "SELECT id, mfa FROM groups WHERE mfa <> 'inherit' AND mfa <> '' ORDER BY id")
	return all(rows, err, func(g *GroupSwitch) []any { return []any{&g.ID, &g.MFA} })
}
