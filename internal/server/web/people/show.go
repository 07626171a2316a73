package people

import (
	"context"
	"strings"

	"latchkey/internal/rest"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

func waits(ctx context.Context, u rest.User) bool {
	r := ui.From(ctx)
	return r != nil && u.Activation == rest.ActivateAt && r.Clock.Now().Before(u.ActivateAt)
}

func factorNames(kinds []string) string {
	var out []string
	for _, k := range kinds {
		out = append(out, factorName(k))
	}
	return strings.Join(out, ", ")
}

func factorName(kind string) string {
	if s := words.DeskFactorKinds[kind]; s != "" {
		return s
	}
	return kind
}

func userLabels(form string) map[string]string {
	return forms.Labels(form, "name", words.DeskUserName, "display_name", words.DeskDisplayName, "mail", words.DeskMail, "address", words.PostTo, "groups", words.NavGroups,
		"password", words.DeskPassword, "again", words.DeskPasswordAgain, "role", words.DeskRole, "mfa", words.DeskMFASetting, "activation", words.DeskActivation,
		"activate_at", words.DeskActivateAt, "uid", words.DeskUID, "must_change", words.DeskMustChange, "valid_for", words.DeskValidFor, "reason", words.DeskReason,
		"scope", words.DeskScope, "digits", words.DeskDigits, "period", words.DeskPeriod, "algorithm", words.DeskAlgorithm, "confirm", words.DeskUserName, "group", words.DeskGroup, "disabled", words.DeskState)
}
