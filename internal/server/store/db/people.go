package db

import "context"

// Person is somebody who may sign in now, with the kinds of factors that they could use.
type Person struct {
	ID, Name, Fold, Role, MFA            string
	FIDO2, Push, TOTP, Backup, Mail, SMS bool
}

// places are those of the columns of People.
func (p *Person) places() []any {
	return []any{&p.ID, &p.Name, &p.Fold, &p.Role, &p.MFA, &p.FIDO2, &p.Push, &p.TOTP, &p.Mail, &p.SMS, &p.Backup}
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
// (or names so many that asking for all is as good). It is one question, however many
// they are.
func (q *Queries) People(ctx context.Context, groups []string, at int64) ([]Person, error) {
	var c clauses
	c.add("u.disabled = FALSE AND NOT (u.activation = 'at' AND u.activate_at > %s)", at)
	c.inGroups("u.id", groups)
	has := func(kind string) string {
		return "COALESCE(a." + kind + ", 0) = 1"
	}
	one := func(kind string) string {
		return "MAX(CASE kind WHEN '" + kind + "' THEN 1 ELSE 0 END) AS " + kind
	}
	var d clauses
	d.args = c.args
	d.where = []string{"y.lost = FALSE", "(y.confirmed_at > 0 OR y.kind = 'totp')"}
	d.inGroups("y.user_id", groups)
	query := "SELECT u.id, u.name, u.name_fold, u.role, u.mfa, " + has("fido2") + ", " + has("push") + " AND NOT EXISTS (SELECT 1 FROM push_locks l WHERE l.user_id = u.id), " +
		has("totp") + ", " + has("mail") + ", " + has("sms") + ", EXISTS (SELECT 1 FROM backup_codes b WHERE b.user_id = u.id AND b.used_at = 0)" +
		" FROM users u LEFT JOIN (SELECT y.user_id, " + one("fido2") + ", " + one("push") + ", " + one("totp") + ", " + one("mail") + ", " + one("sms") +
		" FROM authenticators y" + d.String() + " GROUP BY y.user_id) a ON a.user_id = u.id" + c.String() + " ORDER BY u.name_fold, u.name"
	rows, err := q.db.QueryContext(ctx, query, d.args...)
	return all(rows, err, (*Person).places)
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
