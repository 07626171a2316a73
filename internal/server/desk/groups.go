package desk

import (
	"context"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
)

func groupOf(g db.Group, members int64) rest.Group {
	return rest.Group{
		ID: rest.GroupPrefix + g.ID, Name: g.Name, MFA: g.MFA, Members: members,
		CreatedAt: rest.Time(g.CreatedAt), UpdatedAt: rest.Time(g.UpdatedAt), Rev: g.Rev,
	}
}

func showGroup(ctx context.Context, q *db.Queries, g db.Group) (rest.Group, error) {
	n, err := q.CountGroupMembers(ctx, g.ID)
	if err != nil {
		return rest.Group{}, err
	}
	out := groupOf(g, n)
	out.Policies, err = q.PoliciesOfGroup(ctx, g.ID)
	return out, err
}

// ListGroups gives a page of groups, by themselves in order of their names; sort may be
// name or created, with "-" the other way round.
func (d *Desk) ListGroups(ctx context.Context, a Actor, sort, after string, limit int) (rest.Page[rest.Group], error) {
	out := rest.Page[rest.Group]{Items: []rest.Group{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	var v faults
	order, kind := v.order("groups", sort, "name", "created")
	if err := v.err(); err != nil {
		return out, err
	}
	from, err := resume(kind, after, 2)
	if err != nil {
		return out, err
	}
	ask, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		rows, err := q.FindGroups(ctx, db.GroupFilter{Order: order, AfterName: from[0], AfterID: from[1], N: ask})
		if err != nil {
			return err
		}
		if len(rows) > show {
			rows = rows[:show]
			last := rows[show-1].Group
			out.Next = cursor(kind, last.Name, last.ID)
		}
		for _, r := range rows {
			out.Items = append(out.Items, groupOf(r.Group, r.Members))
		}
		return nil
	})
	return out, err
}

// ShowGroup gives one group by name or id.
func (d *Desk) ShowGroup(ctx context.Context, a Actor, ref string) (rest.Group, error) {
	var out rest.Group
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		g, err := group(ctx, q, ref)
		if err != nil {
			return err
		}
		out, err = showGroup(ctx, q, g)
		return err
	})
	return out, err
}

// ListMembers gives a page of a group's members in order of their names, of those
// whose names begin with prefix whatever their case.
func (d *Desk) ListMembers(ctx context.Context, a Actor, ref, prefix, after string, limit int) (rest.Page[rest.User], error) {
	out := rest.Page[rest.User]{Items: []rest.User{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	if prefix != "" && !askable(prefix) {
		return out, nil
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		g, err := group(ctx, q, ref)
		if err != nil {
			return err
		}
		out, err = d.listUsers(ctx, q, "members", db.UserFilter{GroupID: g.ID, Fold: facts.Fold(prefix)}, after, limit)
		return err
	})
	return out, err
}

// AddGroup makes a group.
func (d *Desk) AddGroup(ctx context.Context, a Actor, in rest.NewGroup) (rest.Group, error) {
	var out rest.Group
	if err := a.may(change); err != nil {
		return out, err
	}
	in.MFA = or(in.MFA, rest.MFAInherit)
	var v faults
	v.name("name", in.Name)
	v.word("mfa", in.MFA, rest.MFASettings)
	if err := v.err(); err != nil {
		return out, err
	}
	id, now := store.NewID(), d.now()
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := freeGroup(ctx, tx, in.Name); err != nil {
			return err
		}
		if err := tx.InsertGroup(ctx, db.InsertGroupParams{ID: id, Name: in.Name, MFA: in.MFA, CreatedAt: now, UpdatedAt: now}); err != nil {
			return err
		}
		if err := note(tx, a, event.Event{Type: event.GroupAdded, Subject: in.Name}, map[string]any{"group": rest.GroupPrefix + id, "mfa": in.MFA}); err != nil {
			return err
		}
		g, err := tx.GetGroup(ctx, id)
		out = groupOf(g, 0)
		return err
	})
	return out, err
}

func freeGroup(ctx context.Context, tx *store.Tx, name string) error {
	_, err := tx.GetGroupByName(ctx, name)
	switch {
	case err == nil:
		return fault.Newf(fault.Exists, "There is a group %q already. Choose another name.", name)
	case store.IsNotFound(err):
		return nil
	}
	return err
}

// overMembers applies E3 to every member: switching 2FA off for a group does it for
// all of them.
func overMembers(ctx context.Context, tx *store.Tx, a Actor, groupID string) error {
	for after := ""; ; {
		rows, err := tx.ListMembersOfGroup(ctx, db.ListMembersOfGroupParams{GroupID: groupID, After: after, N: rest.MaxPage})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, u := range rows {
			if err := a.over(u.Name, u.ID, u.Role); err != nil {
				return err
			}
			after = u.Name
		}
	}
}

// ChangeGroup changes a group; rev is the revision that was seen, 0 for any.
func (d *Desk) ChangeGroup(ctx context.Context, a Actor, ref string, rev int64, in rest.GroupChange) (rest.Group, error) {
	var out rest.Group
	if err := a.may(change); err != nil {
		return out, err
	}
	var v faults
	if in.Name != nil {
		v.name("name", *in.Name)
	}
	if in.MFA != nil {
		v.word("mfa", *in.MFA, rest.MFASettings)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		g, err := group(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, g.Rev); err != nil {
			return err
		}
		was := g
		var list []changed
		set(&list, "name", &g.Name, in.Name)
		set(&list, "mfa", &g.MFA, in.MFA)
		if len(list) == 0 {
			out, err = showGroup(ctx, tx.Queries, g)
			return err
		}
		if g.Name != was.Name {
			if err := freeGroup(ctx, tx, g.Name); err != nil {
				return err
			}
		}
		if g.MFA == rest.MFAOff && was.MFA != rest.MFAOff || was.MFA == rest.MFAOn && g.MFA != rest.MFAOn {
			if err := overMembers(ctx, tx, a, g.ID); err != nil {
				return err
			}
		}
		weakens, err := d.regroup(ctx, tx, a, func() error {
			n, err := tx.UpdateGroup(ctx, db.UpdateGroupParams{Name: g.Name, MFA: g.MFA, UpdatedAt: d.now(), ID: g.ID, Rev: was.Rev})
			if err == nil && n != 1 {
				err = fault.New(fault.Conflict, nil)
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := note(tx, a, event.Event{Type: event.GroupChanged, Subject: was.Name}, alarm(map[string]any{"group": rest.GroupPrefix + g.ID, "changes": list}, weakens)); err != nil {
			return err
		}
		if err := touch.All(ctx, tx); err != nil {
			return err
		}
		if g, err = tx.GetGroup(ctx, g.ID); err != nil {
			return err
		}
		out, err = showGroup(ctx, tx.Queries, g)
		return err
	})
	return out, err
}

// RemoveGroup removes a group; its members stay users, and policies lose it.
func (d *Desk) RemoveGroup(ctx context.Context, a Actor, ref string, rev int64) error {
	if err := a.may(change); err != nil {
		return err
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		g, err := group(ctx, tx.Queries, ref)
		if err != nil {
			return err
		}
		if err := stale(rev, g.Rev); err != nil {
			return err
		}
		if g.MFA == rest.MFAOn {
			if err := overMembers(ctx, tx, a, g.ID); err != nil {
				return err
			}
		}
		policies, err := tx.PoliciesOfGroup(ctx, g.ID)
		if err != nil {
			return err
		}
		weakens, err := d.regroup(ctx, tx, a, func() error {
			n, err := tx.DeleteGroup(ctx, db.DeleteGroupParams{ID: g.ID, Rev: g.Rev})
			if err == nil && n != 1 {
				err = fault.New(fault.Conflict, nil)
			}
			return err
		})
		if err != nil {
			return err
		}
		err = note(tx, a, event.Event{Type: event.GroupRemoved, Subject: g.Name}, alarm(map[string]any{"group": rest.GroupPrefix + g.ID, "policies": policies}, weakens))
		if err != nil {
			return err
		}
		return touch.All(ctx, tx)
	})
}

// AddMember puts a user into a group; count is 0 if it was there.
func (d *Desk) AddMember(ctx context.Context, a Actor, groupRef, userRef string) (rest.Done, error) {
	return d.member(ctx, a, groupRef, userRef, true)
}

// RemoveMember takes a user out of a group; count is 0 if it was not there.
func (d *Desk) RemoveMember(ctx context.Context, a Actor, groupRef, userRef string) (rest.Done, error) {
	return d.member(ctx, a, groupRef, userRef, false)
}

func (d *Desk) member(ctx context.Context, a Actor, groupRef, userRef string, in bool) (rest.Done, error) {
	var out rest.Done
	if err := a.may(change); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		g, err := group(ctx, tx.Queries, groupRef)
		if err != nil {
			return err
		}
		u, err := user(ctx, tx.Queries, userRef)
		if err != nil {
			return err
		}
		if in && g.MFA == rest.MFAOff || !in && g.MFA == rest.MFAOn {
			if err := a.over(u.Name, u.ID, u.Role); err != nil {
				return err
			}
		}
		word, n := "removed", int64(0)
		move := func() (err error) {
			if in {
				word = "added"
				n, err = tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: g.ID, UserID: u.ID})
			} else {
				n, err = tx.RemoveGroupMember(ctx, db.RemoveGroupMemberParams{GroupID: g.ID, UserID: u.ID})
			}
			return err
		}
		var weakens []string
		if u.Role == rest.RoleNone {
			err = move()
		} else {
			weakens, err = d.regroup(ctx, tx, a, move)
		}
		if err != nil {
			return err
		}
		if out = (rest.Done{Count: int(n)}); n == 0 {
			return nil
		}
		err = note(tx, a, event.Event{Type: event.GroupChanged, Subject: g.Name, UserID: u.ID}, alarm(map[string]any{
			"group": rest.GroupPrefix + g.ID, "member": u.Name, "was": word,
		}, weakens))
		if err != nil {
			return err
		}
		return touch.User(ctx, tx, u.ID)
	})
	return out, err
}
