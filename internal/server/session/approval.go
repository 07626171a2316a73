package session

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// ApprovalPrefix begins the id of an approval at the edge.
const ApprovalPrefix = "apr_"

// The states of an approval.
const (
	StateAsked  = "asked"
	StateGiven  = "given"
	StateDenied = "denied"
	StateUsed   = "used"
	stateOver   = "expired"
)

// maxAsked is how many approvals one person may wait for.
const maxAsked = 20

// Approval is what a second owner was asked for (E3).
type Approval struct {
	ID          string // without prefix
	Action      string // one of Actions
	SubjectID   string // without prefix
	Subject     string
	Reason      string
	RequesterID string
	Requester   string
	ApproverID  string
	Approver    string
	State       string
	Asked       time.Time
	Decided     time.Time
	Expires     time.Time
}

// Actions are what can be approved: the ids of the API's operations.
var Actions = []string{
	"set-password", "add-totp", "add-phone", "unlock-push", "add-backup", "remove-factor", "lose-factor", "issue-enrolment-code", "issue-bypass-code",
	"change-user", "remove-user", "unlock-user", "add-member", "remove-member", "change-group", "remove-group", "change-machine", "lift-offline",
}

func approvalOf(r db.Approval, now time.Time) Approval {
	a := Approval{
		ID: r.ID, Action: r.Action, SubjectID: r.SubjectID, Subject: r.Subject, Reason: r.Reason, RequesterID: r.RequesterID, Requester: r.Requester,
		ApproverID: r.ApproverID, Approver: r.Approver, State: r.State, Asked: rest.Time(r.AskedAt), Decided: rest.Time(r.DecidedAt), Expires: rest.Time(r.ExpiresAt),
	}
	if (a.State == StateAsked || a.State == StateGiven) && !now.Before(a.Expires) {
		a.State = stateOver
	}
	return a
}

// owner is a fresh session of an owner, as the account is now.
func (m *Sessions) owner(ctx context.Context, q *db.Queries, s *Session) (db.User, error) {
	u, err := m.present(ctx, q, s)
	if err == nil && u.Role != rest.RoleOwner {
		err = fault.New(fault.Forbidden, nil)
	}
	return u, err
}

// Ask asks the other owners for an approval of the action on the account of the name or
// id. The session must be an owner's, and fresh.
func (m *Sessions) Ask(ctx context.Context, s *Session, address, action, subject, reason string) (Approval, error) {
	var out Approval
	if err := m.fresh(s); err != nil {
		return out, err
	}
	if s.Role != rest.RoleOwner {
		return out, fault.New(fault.Forbidden, nil)
	}
	f := fault.New(fault.Invalid, nil)
	if !slices.Contains(Actions, action) {
		f.With("action", "%q is not allowed; allowed are %s", text.CleanN(action, 64), strings.Join(Actions, ", "))
	}
	if err := text.ValidLine("reason", reason, maxName); err != nil || strings.TrimSpace(reason) == "" {
		f.With("reason", "say why, in one line of at most %d octets", maxName)
	}
	if len(f.Fields) > 0 {
		return out, f
	}
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		me, err := m.owner(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		about, err := desk.Account(ctx, tx.Queries, subject)
		switch {
		case fault.Is(err, fault.NotFound):
			return fault.New(fault.Invalid, nil).With("subject", "there is no user %q", text.CleanN(subject, 128))
		case err != nil:
			return err
		case about.ID == me.ID:
			return fault.New(fault.Invalid, nil).With("subject", "that is you: ask another owner to do it for you, whom a third then approves")
		case about.Role != rest.RoleOwner && action != "change-user": // that may make an owner
			return fault.New(fault.Invalid, nil).With("subject", "%s is no owner: you need no approval", about.Name)
		}
		n, err := tx.CountOpenApprovals(ctx, db.CountOpenApprovalsParams{RequesterID: me.ID, At: clock.Micros(now)})
		if err != nil {
			return err
		}
		if n >= maxAsked {
			return fault.Newf(fault.TooMany, "You wait for %d approvals. Withdraw some first.", n)
		}
		row := db.InsertApprovalParams{
			ID: store.NewID(), Action: action, SubjectID: about.ID, Subject: about.Name, Reason: reason, RequesterID: me.ID, Requester: me.Name,
			AskedAt: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(AskTime)),
		}
		if err := tx.InsertApproval(ctx, row); err != nil {
			return err
		}
		full, err := tx.GetApproval(ctx, row.ID)
		if err != nil {
			return err
		}
		out = approvalOf(full, now)
		return m.noteApproval(tx, event.ApprovalAsked, me.Name, address, full)
	})
	return out, err
}

func (m *Sessions) noteApproval(tx *store.Tx, typ event.Type, actor, address string, r db.Approval) error {
	return m.note(tx, event.Event{Type: typ, Actor: actor, Subject: r.Subject, UserID: r.SubjectID, Address: address}, map[string]any{
		"approval": ApprovalPrefix + r.ID, "action": r.Action, "why": r.Reason, "requester": r.Requester, "approver": r.Approver,
	})
}

// ListApprovals gives the approvals of the last day, the youngest first.
func (m *Sessions) ListApprovals(ctx context.Context, a desk.Actor) ([]Approval, error) {
	if err := may(a, "read"); err != nil {
		return nil, err
	}
	out := []Approval{}
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		now := m.Clock.Now()
		rows, err := q.ListApprovals(ctx, db.ListApprovalsParams{Since: clock.Micros(now.Add(-keepApprovals)), N: rest.MaxPage})
		for _, r := range rows {
			out = append(out, approvalOf(r, now))
		}
		return err
	})
	return out, err
}

// Decide gives or denies an approval. The session must be that of an owner who is
// neither requester nor subject, and fresh; a requester may withdraw his own.
func (m *Sessions) Decide(ctx context.Context, s *Session, address, id string, yes bool) (Approval, error) {
	var out Approval
	if err := m.fresh(s); err != nil {
		return out, err
	}
	if s.Role != rest.RoleOwner {
		return out, fault.New(fault.Forbidden, nil)
	}
	if yes {
		if err := m.ownPerson(ctx, id, s.UserID); err != nil {
			return out, err
		}
	}
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		me, err := m.owner(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		row, err := tx.GetApproval(ctx, id)
		switch {
		case store.IsNotFound(err):
			return fault.Newf(fault.NotFound, "There is no such approval, or it is over.")
		case err != nil:
			return err
		case yes && (me.ID == row.RequesterID || me.ID == row.SubjectID):
			return fault.Newf(fault.Forbidden, "Requester, approver and %s must be three people.", row.Subject)
		}
		p := db.DecideApprovalParams{
			ID: id, State: StateDenied, ApproverID: me.ID, Approver: me.Name, At: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(AskTime)),
		}
		typ := event.ApprovalDenied
		if yes {
			p.State, typ = StateGiven, event.ApprovalGiven
		}
		n, err := tx.DecideApproval(ctx, p)
		switch {
		case err != nil:
			return err
		case n == 0:
			return fault.Newf(fault.Conflict, "This was decided already, or its time is over.")
		}
		if row, err = tx.GetApproval(ctx, id); err != nil {
			return err
		}
		out = approvalOf(row, now)
		return m.noteApproval(tx, typ, me.Name, address, row)
	})
	return out, err
}

// settled is how long an owner must have been one, with a password and factors that
// the requester has not set, before they approve.
const settled = 7 * 24 * time.Hour

// ownPerson refuses an approver who may be the requester under another name: an account
// that was raised to owner lately, or whose password, factors or enrolment code the
// requester has made. Who is it is told by the event log. What root on the server did
// does not count: root could do anything. An empty approver is the one of the approval.
func (m *Sessions) ownPerson(ctx context.Context, approvalID, approver string) error {
	var row db.Approval
	err := m.Store.Read(ctx, func(q *store.Queries) (err error) {
		row, err = q.GetApproval(ctx, approvalID)
		return err
	})
	if approver == "" {
		approver = row.ApproverID
	}
	if store.IsNotFound(err) || err == nil && approver == "" {
		return nil // the transaction says so
	}
	f := store.EventFilter{
		UserID: approver, Since: clock.Micros(m.Clock.Now().Add(-settled)), Limit: rest.MaxPage,
		Types: []string{string(event.UserAdded), string(event.UserChanged), string(event.PasswordChanged), string(event.FactorAdded), string(event.CodeIssued)},
	}
	for err == nil {
		var list []db.Event
		if list, err = m.Store.Events(ctx, f); err != nil || len(list) == 0 {
			break
		}
		for _, e := range list {
			if e.Actor != desk.Root().Name && madeOwner(e) {
				return fault.Newf(fault.Forbidden, "Whoever approves must have been an owner for 7 days. Ask an owner who has been one for longer.")
			}
			if (e.Actor == row.Requester || strings.HasPrefix(e.Actor, row.Requester+" (token ")) && setsSecret(e) {
				return fault.Newf(fault.Forbidden, "%s has set the approver's password, factors or enrolment code within the last 7 days. Ask another owner.", row.Requester)
			}
			f.BeforeAt, f.BeforeID = e.At, e.ID
		}
	}
	return err
}

// madeOwner tells whether the event made its user an owner. Data that can not be read
// counts as that.
func madeOwner(e db.Event) bool {
	var data struct {
		Role    string `json:"role"`
		Changes []struct {
			Field string          `json:"field"`
			New   json.RawMessage `json:"new"`
		} `json:"changes"`
	}
	typ := event.Type(e.Type)
	if typ != event.UserAdded && typ != event.UserChanged {
		return false
	}
	if json.Unmarshal([]byte(e.Data), &data) != nil {
		return true
	}
	for _, c := range data.Changes {
		if c.Field == "role" && string(c.New) == `"`+rest.RoleOwner+`"` {
			return true
		}
	}
	return typ == event.UserAdded && data.Role == rest.RoleOwner
}

// setsSecret tells whether whoever wrote the event knows something with which its user
// signs in.
func setsSecret(e db.Event) bool {
	switch event.Type(e.Type) {
	case event.PasswordChanged, event.FactorAdded, event.CodeIssued, event.UserAdded:
		return true
	}
	return false
}

// Approved runs an action with the approval of that id: act gets the session's actor
// with the approver. The approval is spent before, and given back if act fails. The
// session must be the requester's, and fresh.
func (m *Sessions) Approved(ctx context.Context, s *Session, address, id, action string, act func(desk.Actor) error) error {
	if err := m.fresh(s); err != nil {
		return err
	}
	id = strings.TrimPrefix(id, ApprovalPrefix)
	over := fault.Newf(fault.Forbidden, "This approval is not yours, is for something else, was used, or its time is over. Ask for a new one.")
	actor := s.Actor(address)
	if err := m.ownPerson(ctx, id, ""); err != nil {
		return err
	}
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		me, err := m.owner(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		row, err := tx.GetApproval(ctx, id)
		switch {
		case store.IsNotFound(err):
			return over
		case err != nil:
			return err
		case row.RequesterID != me.ID || row.Action != action || row.State != StateGiven || row.ApproverID == me.ID || row.ApproverID == row.SubjectID:
			return over
		}
		// Who has said yes must still be an owner.
		by, err := tx.GetUser(ctx, row.ApproverID)
		switch {
		case store.IsNotFound(err) || err == nil && (by.Disabled || by.Role != rest.RoleOwner):
			return over
		case err != nil:
			return err
		}
		n, err := tx.UseApproval(ctx, db.UseApprovalParams{ID: id, At: clock.Micros(now)})
		switch {
		case err != nil:
			return err
		case n == 0:
			return over
		}
		actor.Approver, actor.ApprovedFor = &desk.Actor{Name: by.Name, Role: by.Role, UserID: by.ID}, row.SubjectID
		return m.noteApproval(tx, event.ApprovalUsed, me.Name, address, row)
	})
	if err != nil {
		return err
	}
	err = act(actor)
	if err != nil {
		back := m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.GiveBackApproval(ctx, id)
			return err
		})
		if back != nil {
			m.Logger.WarnContext(ctx, "an approval could not be given back", "approval", id, "error", back)
		}
	}
	return err
}
