// Package sms asks for a code that was sent to the person's telephone, row M6.
//
// It is a weak factor: networks can be made to send a message elsewhere, and a number
// can be moved to another card. It is off unless a policy names it and the server has
// settings for it, and it never opens the console.
//
// It promises: a code counts for the sign-in that asked for it, for some minutes, once;
// what is stored of it is a keyed hash; and asking waits for nobody, because the message
// is only put into the queue (package post).
package sms

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

func (plug) Kind() policy.Factor { return policy.SMS }
func (plug) Option() string      { return text.OptionSMS }
func (plug) Prompt() string      { return text.PromptPost }
func (plug) Echo() bool          { return false }

// Send puts a code into the queue.
func (f plug) Send(ctx context.Context, tx *store.Tx, a factor.Ask) (factor.Sent, error) {
	return f.post.SendCode(ctx, tx, rest.ChannelSMS, a)
}

// Judge accepts the newest code of the ticket, once.
func (f plug) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	return f.post.JudgeCode(ctx, tx, rest.ChannelSMS, t)
}
