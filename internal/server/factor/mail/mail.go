// Package mail asks for a code that was sent to the person's mailbox, row M6.
//
// It is a weak factor: whoever reads the mailbox has it, and mail crosses relays that this
// server does not know. It is off unless a policy names it and the server has
// settings for it, and it never opens the console.
//
// It promises: a code counts for the sign-in that asked for it, for some minutes, once;
// what is stored of it is a keyed hash; and asking waits for nobody, because the message
// is only put into the queue (package post).
package mail

import (
	"context"

	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/store"
	"latchkey/internal/text"
)

// Post sends codes and judges them: see post.Post.
type Post interface {
	SendCode(ctx context.Context, tx *store.Tx, channel string, a factor.Ask) (factor.Sent, error)
	JudgeCode(ctx context.Context, tx *store.Tx, channel string, t factor.Try) (factor.Verdict, error)
}

// Plug makes the plug-in.
func Plug(p Post) factor.Factor { return plug{p} }

type plug struct{ post Post }

var _ factor.Sender = plug{}

func (plug) Kind() policy.Factor { return policy.Mail }
func (plug) Option() string      { return text.OptionMail }
func (plug) Prompt() string      { return text.PromptPost }
func (plug) Echo() bool          { return false }

// Send puts a code into the queue.
func (f plug) Send(ctx context.Context, tx *store.Tx, a factor.Ask) (factor.Sent, error) {
	return f.post.SendCode(ctx, tx, rest.ChannelMail, a)
}

// Judge accepts the newest code of the ticket, once.
func (f plug) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	return f.post.JudgeCode(ctx, tx, rest.ChannelMail, t)
}
