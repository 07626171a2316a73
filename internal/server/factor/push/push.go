// Package push makes requests to phones a kind of factor: internal/server/push is what
// answers.
//
// It promises: nothing of its own.
//
// Rows: S2, S12, M7.
package push

import (
	"latchkey/internal/policy"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/push"
	"latchkey/internal/text"
)

type plug struct{ *push.Service }

var _ factor.Waiter = plug{}

// New makes the plug-in, for factor.All.
func New(s *push.Service) factor.Waiter { return plug{s} }

func (plug) Kind() policy.Factor { return policy.Push }
func (plug) Option() string      { return text.OptionPush }
func (plug) Prompt() string      { return text.PushWaiting }
func (plug) Echo() bool          { return true }
