// Package why shows decisions: the outcome in words, the reason with what it means, and
// the trace of every rule that was looked at. The pages of policies, events and users
// show them alike (S13).
package why

import (
	"strings"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// Text says in words what a decision asks of the person.
func Text(d policy.Decision) string {
	kinds := make([]string, len(d.Factors))
	for i, f := range d.Factors {
		kinds[i] = Factor(string(f))
	}
	return words.DecisionText(string(d.Outcome), d.Count, strings.Join(kinds, ", "))
}

// Factor names a kind of factor.
func Factor(kind string) string {
	if s := words.PolicyFactors[kind]; s != "" {
		return s
	}
	if kind == "bypass" {
		return "bypass code"
	}
	return kind
}

// Kind is how an outcome looks: that of a decision, or of an event.
func Kind(outcome string) string {
	switch outcome {
	case "allow", "mfa", "mfa-offline", "added", "approved", "made":
		return ui.OK
	case "deny":
		return ui.Bad
	case "ignore", "enrol", "abandoned", "noticed":
		return ui.Warn
	}
	return ui.Neutral
}

// Reason is what a code means; empty if it is not known.
func Reason(code string) string { return event.Reasons[code] }

// Kinds names several kinds of factors.
func Kinds(list []policy.Factor) string {
	out := make([]string, len(list))
	for i, f := range list {
		out[i] = Factor(string(f))
	}
	return strings.Join(out, ", ")
}
