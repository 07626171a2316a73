package why

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

// Signins reads the traces out of events.
func Signins(events []rest.Event) []Signin {
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

// sentence is the reason in words, and the code itself where it has none.
func sentence(code string) string {
	if s := Reason(code); s != "" {
		return s
	}
	return code
}

// signinKind colours what became of a sign-in.
func signinKind(e rest.Event) string {
	switch event.Type(e.Type) {
	case event.SigninAllowed:
		return ui.OK
	case event.SigninDenied, event.SigninReplayed:
		return ui.Bad
	}
	return ui.Neutral
}
