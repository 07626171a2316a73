package session

import (
	"context"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/server/desk"
)

// ApprovalPrefix begins the id of an approval at the edge.
const ApprovalPrefix = "apr_"

// The states of an approval.
const (
	StateAsked  = "asked"
	StateGiven  = "given"
	StateDenied = "denied"
	StateUsed   = "used"
	StateOver   = "expired"
)

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
	"add-totp", "add-backup", "lose-factor", "remove-factor", "issue-enrolment-code", "issue-bypass-code", "set-password",
	"change-user", "remove-user", "add-member", "remove-member", "change-machine", "disenroll-offline",
}

// Ask asks the other owners for an approval of the action on the account of the name or
// id. The session must be an owner's, and fresh.
func (m *Sessions) Ask(ctx context.Context, s *Session, address, action, subject, reason string) (Approval, error) {
	return Approval{}, fault.New(fault.Unavailable, nil)
}

// ListApprovals gives the approvals of the last day, the youngest first.
func (m *Sessions) ListApprovals(ctx context.Context, a desk.Actor) ([]Approval, error) {
	return nil, fault.New(fault.Unavailable, nil)
}

// Decide gives or denies an approval. The session must be that of an owner who is
// neither requester nor subject, and fresh; a requester may deny his own.
func (m *Sessions) Decide(ctx context.Context, s *Session, address, id string, yes bool) (Approval, error) {
	return Approval{}, fault.New(fault.Unavailable, nil)
}

// Approved runs an action with the approval of that id: act gets the session's actor
// with the approver. The approval is spent before, and given back if act fails.
func (m *Sessions) Approved(ctx context.Context, s *Session, address, id, action string, act func(desk.Actor) error) error {
	return fault.New(fault.Unavailable, nil)
}
