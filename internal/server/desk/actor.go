package desk

import (
	"context"
	"slices"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/store/db"
)

// Actor is who asks. The door fills it in from what it has proven: the peer of the
// admin socket, later a session or an API token.
type Actor struct {
	Name    string // as it stands in events: "root@local", or a user's name
	Role    string // one of rest.Roles
	UserID  string // of the account, if it is one
	Local   bool   // root on the server itself
	Address string
	// Session is the id of the session at a browser or of the CLI's login; empty for
	// the admin socket and for API tokens, which do nothing for people themselves.
	Session string
	// Fresh says that the person has given a second factor within the last minutes.
	Fresh bool
	// Enrol is the id of the enrolment code that opened the session of somebody who
	// has no second factor yet (E1): such a session enrols one, and does nothing else.
	Enrol string
	// Scopes are the rights that an API token was given, of those that its role has;
	// nil means all of the role, and an empty list none.
	Scopes []string
	// Token says that a program asks, with an API token: it never approves, is never
	// approved (E3) and does nothing for a person themself.
	Token bool
	// TokenID is the id of that token.
	TokenID string
	// Approver is the second person whose fresh step-up the door has seen (E3); nil
	// for none. The admin socket can not prove one.
	Approver *Actor
	// ApprovedFor is the id of the account for which Approver has said yes, and for no
	// other.
	ApprovedFor string
}

// Root is whoever may open the admin socket: root on the server, or the account
// that the server runs as. It has an owner's rights.
func Root() Actor { return Actor{Name: "root@local", Role: rest.RoleOwner, Local: true} }

// right names what an action needs.
type right string

// The rights, each with the lowest role that has it.
const (
	read     right = "read"     // look at anything but secrets
	helpDesk right = "helpdesk" // unlock, codes, machine lost, sign out everywhere
	change   right = "change"   // users, groups, policies, machines, offline data
	own      right = "own"      // settings of the server as a whole
	events   right = "events"   // the event log alone, for whoever collects it
	self     right = "self"     // one's own factors, machines and password
)

var lowest = map[right]string{
	read:     rest.RoleAuditor,
	helpDesk: rest.RoleHelpDesk,
	change:   rest.RoleAdministrator,
	own:      rest.RoleOwner,
	events:   rest.RoleAuditor,
	self:     rest.RoleNone,
}

// Scopes are the words that an API token may be narrowed to, from the least up. Each
// stands for its right alone, but reading holds the reading of events.
var Scopes = []string{string(events), string(read), string(helpDesk), string(change), string(own)}

// rank orders the roles; a word that is none has no rank.
func rank(role string) int { return slices.Index(rest.Roles, role) }

// may refuses whoever does not have the right. A role or right that is not known
// is refused.
func (a Actor) may(r right) error {
	need, ok := lowest[r]
	if !ok || a.Name == "" || rank(a.Role) < rank(need) || !a.scoped(r) {
		return fault.New(fault.Forbidden, nil)
	}
	return nil
}

// scoped tells whether the actor's scopes hold the right. A program is nobody: it has
// no factors of its own.
func (a Actor) scoped(r right) bool {
	switch {
	case r == self:
		return !a.Token && a.Scopes == nil
	case a.Scopes == nil:
		return !a.Token // a token without scopes is a mistake of the door
	}
	return slices.Contains(a.Scopes, string(r)) || r == events && slices.Contains(a.Scopes, string(read))
}

// over is E3: nobody may reset, bypass, recover, exempt, switch 2FA off or change
// the role for someone of equal or higher role, except an owner with a second
// approver who is a third person.
func (a Actor) over(name, userID, role string) error {
	if err := a.bounded(name, role); err != nil {
		return err
	}
	if rank(role) < rank(a.Role) {
		return nil
	}
	if a.Role != rest.RoleOwner {
		return fault.Newf(fault.Forbidden, "%s has the role %s, and you have no higher one. Ask somebody with a higher role.", name, role)
	}
	if a.Local {
		return a.second(name, userID, name+" is an owner: not even "+a.Name+" does this. An owner who is signed in does it with a second owner's approval (latchkey approval ask, latchkey approval give; in the console under Approvals). Where there is none, remove the user here and add it anew.")
	}
	return a.second(name, userID, name+" is an owner like you: this needs a second owner's approval (latchkey approval ask, latchkey approval give; in the console under Approvals). On the server itself the user can be removed and added anew.")
}

// second demands the approval of an owner who is a third person; without says what to
// do where there is none.
func (a Actor) second(name, userID, without string) error {
	p := a.Approver
	switch {
	case p == nil || a.Token:
		return fault.Newf(fault.Forbidden, "%s", without)
	case a.ApprovedFor != userID:
		return fault.Newf(fault.Forbidden, "What was approved is about somebody else than %s. Ask for an approval of this.", name)
	case p.Role != rest.RoleOwner || p.Token || p.Name == a.Name || p.UserID == "" || p.UserID == a.UserID || p.UserID == userID || a.UserID == userID:
		return fault.Newf(fault.Forbidden, "Requester, approver and %s must be three people, and the approver an owner.", name)
	}
	return nil
}

// raise is grant for a new owner: where there are other owners, one of them must have
// approved it. Else an owner could raise accounts whose passwords and factors are his
// own, and be requester, approver and subject in one person. userID is empty for an
// account that is only being made, about which nothing can be approved. Root on the
// server may.
func (d *Desk) raise(ctx context.Context, q *db.Queries, a Actor, name, userID string) error {
	if a.Local {
		return nil
	}
	n, err := q.CountActiveOwners(ctx, db.CountActiveOwnersParams{At: d.now(), OtherThan: a.UserID})
	switch {
	case err != nil || n == 0:
		return err
	case userID == "":
		return fault.Newf(fault.Forbidden, "There are other owners, so a new owner needs the approval of one. Add %s with a lower role first, and raise them with an approval.", name)
	}
	return a.second(name, userID, "There are other owners, so making "+name+" an owner needs the approval of one, which is asked for in the console under Approvals (change-user).")
}

// standsUnder is the rank of the lowest role that the actor does not stand over, where
// nobody is named whom an approval could be about.
func (a Actor) standsUnder() int64 {
	for i, role := range rest.Roles {
		b := a
		b.Approver = nil
		if b.over("", "", role) != nil {
			return int64(i)
		}
	}
	return int64(len(rest.Roles))
}

// subject is the user that ref names, if the actor stands over them.
func (a Actor) subject(ctx context.Context, q *db.Queries, ref string) (db.User, error) {
	u, err := user(ctx, q, ref)
	if err != nil {
		return u, err
	}
	return u, a.over(u.Name, u.ID, u.Role)
}

// bounded keeps programs away from whoever has a role and from giving one: somebody
// whom a program gave a role, a password or a factor could do what the program may
// not. A token with the scope own is held to its maker's role alone.
func (a Actor) bounded(name, role string) error {
	if !a.Token || role == rest.RoleNone || slices.Contains(a.Scopes, string(own)) {
		return nil
	}
	return fault.Newf(fault.Forbidden, "%s has or would have the role %s. An API token acts on people with a role, and gives one, only with the scope %s.", name, role, own)
}

// grant says whether the actor may give somebody the role.
func (a Actor) grant(role string) error {
	if err := a.bounded("Somebody", role); err != nil {
		return err
	}
	if rank(role) < rank(a.Role) || a.Role == rest.RoleOwner {
		return nil
	}
	return fault.Newf(fault.Forbidden, "You may give roles below your own (%s), not %s.", a.Role, role)
}

func (a Actor) approver() string {
	if a.Approver == nil {
		return ""
	}
	return a.Approver.Name
}

// Over is E3 for doors that act beside the desk: it refuses whoever does not stand
// over the account.
func (a Actor) Over(name, userID, role string) error { return a.over(name, userID, role) }

// Account is the user of the name or id, for doors that have judged the right.
func Account(ctx context.Context, q *db.Queries, ref string) (db.User, error) {
	return user(ctx, q, ref)
}

// Whom events tell by the name alone, as they do root.
const (
	actorServer = "server"
	actorAgent  = "agent"
	actorSetup  = "setup" // whoever has the code for the first owner
)

// Unnamed are the names that no account may have, in upper or lower case: what it did would
// pass for the doing of another. A server that was used before they were kept free may
// have one; its start says so.
var Unnamed = []string{actorServer, actorAgent, actorSetup}

// userName judges the name of a new user.
func (v *faults) userName(field, value string) {
	v.name(field, value)
	if slices.ContainsFunc(Unnamed, func(s string) bool { return strings.EqualFold(s, value) }) {
		v.add(field, "events tell of others than people by it; allowed are other names than %s", strings.Join(Unnamed, ", "))
	}
}

// ValidUserName says what is wrong with the name of a new user, as a field of a fault.
func ValidUserName(name string) error {
	var v faults
	v.userName("name", name)
	return v.err()
}
