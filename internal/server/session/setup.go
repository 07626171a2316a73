package session

import (
	"context"

	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
)

// SetupWanted tells whether there is no owner yet.
func (m *Sessions) SetupWanted(ctx context.Context) (bool, error) { return false, nil }

// SetupCode gives the code for the first owner, and makes one if there is none; an
// empty code means that there is an owner already.
func (m *Sessions) SetupCode(ctx context.Context, a desk.Actor) (secret.Bytes, error) {
	return secret.Bytes{}, fault.New(fault.Unavailable, nil)
}

// Owner is the first owner as typed.
type Owner struct {
	Code     secret.Bytes // of the setup
	Name     string
	Display  string
	Password secret.Bytes
	Again    secret.Bytes
	Address  string
	Agent    string
}

// BeginSetup judges the code and the account, and gives the key that the owner's app
// needs. Nothing is made yet.
func (m *Sessions) BeginSetup(ctx context.Context, o Owner) (factor.Enrolment, Secret, error) {
	return factor.Enrolment{}, Secret{}, fault.New(fault.Unavailable, nil)
}

// ShowSetup shows the key again.
func (m *Sessions) ShowSetup(ctx context.Context, raw string) (name string, e factor.Enrolment, err error) {
	return "", factor.Enrolment{}, fault.New(fault.Unavailable, nil)
}

// FinishSetup judges the first code, makes the owner and signs him in. The backup codes
// are shown once.
func (m *Sessions) FinishSetup(ctx context.Context, raw string, code secret.Bytes, address, agent string) (Opened, []string, error) {
	return Opened{}, nil, fault.New(fault.Unavailable, nil)
}
