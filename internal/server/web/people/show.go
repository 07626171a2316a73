package people

import (
	"context"
	"strings"

	"latchkey/internal/rest"
	"latchkey/internal/server/web/forms"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// next and first are the addresses of a list's pager.
func next(cursor string, path func(after string) string) string {
	if cursor == "" {
		return ""
	}
	return path(cursor)
}

func first(after string, path func(after string) string) string {
	if after == "" {
		return ""
	}
	return path("")
}

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
	if s := words.FactorKinds[kind]; s != "" {
		return s
	}
	return kind
}

func userLabels(form string) map[string]string {
	return forms.Labels(form, "name", words.UserName, "display_name", words.DisplayName, "mail", words.Mail, "groups", words.NavGroups,
		"password", words.Password, "again", words.PasswordAgain, "role", words.Role, "mfa", words.MFASetting, "activation", words.Activation,
		"activate_at", words.ActivateAt, "uid", words.UID, "must_change", words.MustChange, "valid_for", words.ValidFor, "reason", words.Reason,
		"scope", words.Scope, "digits", words.Digits, "period", words.Period, "algorithm", words.Algorithm, "confirm", words.UserName, "group", words.Group, "disabled", words.State)
}
