// Package fido2 judges passkeys and security keys, row M2: in the browser, where the
// prompt is a challenge for it (WebAuthn), and at a machine's own seat, where the agent
// speaks to the key. What is judged, and how, is package passkey's business.
package fido2

import (
	"context"

	"latchkey/internal/policy"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/store"
	"latchkey/internal/text"
)

type fido2 struct{ keys *passkey.Service }

// New makes the plug-in.
func New(keys *passkey.Service) factor.Sender { return &fido2{keys} }

func (*fido2) Kind() policy.Factor { return policy.FIDO2 }
func (*fido2) Option() string      { return text.OptionPasskey }
func (*fido2) Prompt() string      { return text.PromptPasskey }
func (*fido2) Echo() bool          { return false }

// Send makes a challenge.
func (f *fido2) Send(ctx context.Context, tx *store.Tx, a factor.Ask) (factor.Sent, error) {
	return f.keys.Send(ctx, tx, a, false)
}

// Judge judges the answer to it.
func (f *fido2) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	return f.keys.Judge(ctx, tx, t)
}
