// Package trace shows sign-ins with the trace of their decisions (S13): which rule
// decided, and every rule that was passed over, as the event holds it.
package trace

import (
	"encoding/json"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
)

// Signin is the event of a sign-in with its trace, which is empty where the try ended
// before a decision.
type Signin struct {
	rest.Event
	Steps []policy.Step
}

// Of reads the traces out of the events.
func Of(events []rest.Event) []Signin {
	out := make([]Signin, len(events))
	for i, e := range events {
		var d struct {
			Trace []policy.Step `json:"trace"`
		}
		if json.Unmarshal(e.Data, &d) != nil {
			d.Trace = nil
		}
		out[i] = Signin{e, d.Trace}
	}
	return out
}

// reason is the reason of the event as a sentence.
func reason(e rest.Event) string {
	if s := event.Reasons[e.Reason]; s != "" {
		return s
	}
	return e.Reason
}

// kind colours the outcome.
func kind(e rest.Event) string {
	switch event.Type(e.Type) {
	case event.SigninAllowed:
		return ui.OK
	case event.SigninDenied, event.SigninReplayed:
		return ui.Bad
	}
	return ui.Neutral
}
