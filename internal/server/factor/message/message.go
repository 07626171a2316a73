// Package message asks for a code that was sent to the person's mailbox or telephone, row
// M6.
//
// These are weak factors: whoever reads the mailbox has the one, and mail crosses relays
// that this server does not know; networks can be made to send a text message elsewhere,
// and a number can be moved to another card. Each is off unless a policy names it and the
// server has settings for it, and neither ever opens the console.
//
// It promises: a code counts for the sign-in that asked for it, for some minutes, once;
// what is stored of it is a keyed hash; and asking waits for nobody, because the message
// is only put into the queue (package post).
package message

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

// Mail makes the plug-in of codes by mail.
func Mail(p Post) factor.Factor {
	return plug{post: p, kind: policy.Mail, channel: rest.ChannelMail, option: text.OptionMail}
}

// SMS makes the plug-in of codes by text message.
func SMS(p Post) factor.Factor {
	return plug{post: p, kind: policy.SMS, channel: rest.ChannelSMS, option: text.OptionSMS}
}

type plug struct {
	post            Post
	kind            policy.Factor
	channel, option string
}

var _ factor.Sender = plug{}

func (f plug) Kind() policy.Factor { return f.kind }
func (f plug) Option() string      { return f.option }
func (plug) Prompt() string        { return text.PromptPost }
func (plug) Echo() bool            { return false }

// Send puts a code into the queue.
func (f plug) Send(ctx context.Context, tx *store.Tx, a factor.Ask) (factor.Sent, error) {
	return f.post.SendCode(ctx, tx, f.channel, a)
}

// Judge accepts the newest code of the ticket, once.
func (f plug) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	return f.post.JudgeCode(ctx, tx, f.channel, t)
}
