package web_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"latchkey/internal/rest"
	"latchkey/internal/server/api"
	"latchkey/internal/server/web"
	"latchkey/internal/server/web/webtest"
)

// asks marks a route that asks for the second factor by itself, in the middle of a form,
// so that nothing is lost of what was typed.
const asks = "itself"

// doors says which operations of the API stand behind every action of the console.
var doors = map[string][]string{
	"/console/approvals":             {"ask-approval"},
	"/console/approvals/{id}/decide": {"decide-approval"},

	"/console/groups":                               {"add-group"},
	"/console/groups/{group}/change":                {"change-group"},
	"/console/groups/{group}/members":               {"add-member"},
	"/console/groups/{group}/members/{user}/remove": {"remove-member"},
	"/console/groups/{group}/remove":                {"remove-group"},

	"/console/import/file":                    {"begin-import", "upload-import"},
	"/console/import/query":                   {"begin-import", "query-import"},
	"/console/import/sources":                 {"add-import-source"},
	"/console/import/sources/{source}/remove": {"remove-import-source"},
	"/console/import/{import}/apply":          {"apply-import"},
	"/console/import/{import}/codes":          {"fetch-import-codes"},
	"/console/import/{import}/drop":           {"drop-import"},

	"/console/join":                  {"issue-token"},
	"/console/join/{token}/withdraw": {"withdraw-token"},
	"/console/locks/{user}/lift":     {"unlock-user"},

	"/console/machines/{machine}/approve":  {"change-machine"},
	"/console/machines/{machine}/change":   {"change-machine"},
	"/console/machines/{machine}/disenrol": {"disenroll-offline"},
	"/console/machines/{machine}/lift":     {"lift-offline"},
	"/console/machines/{machine}/lost":     {"lose-machine"},
	"/console/machines/{machine}/mode":     {"change-machine"},
	"/console/machines/{machine}/refuse":   {"refuse-machine"},
	"/console/machines/{machine}/remove":   {"remove-machine"},
	"/console/machines/{machine}/revoke":   {"revoke-machine"},
	"/console/machines/{machine}/windows":  {"revoke-windows"},

	"/console/offline": {"disenroll-offline", "lift-offline"},

	"/console/policies/new":               {"preview-new-policy", "try-policy", "list-shut-out", "add-policy", asks},
	"/console/policies/{policy}/edit":     {"preview-policy", "try-policy", "list-shut-out", "change-policy", asks},
	"/console/policies/{policy}/remove":   {"remove-policy"},
	"/console/policies/{policy}/rollback": {"roll-back-policy"},
	"/console/policies/{policy}/shut-out": {"list-shut-out"},
	"/console/policies/{policy}/try":      {"try-policy"},

	"/console/reports/{report}/handled": {"handle-report"},
	"/console/settings":                 {"change-settings"},
	"/console/tokens":                   {"make-api-token"},

	"/console/settings/mail":                      {"change-mail"},
	"/console/settings/mail/test":                 {"test-mail"},
	"/console/settings/sms":                       {"change-sms"},
	"/console/settings/sms/test":                  {"test-sms"},
	"/console/settings/messages/{message}/retry":  {"retry-message"},
	"/console/settings/messages/{message}/remove": {"remove-message"},
	"/console/users/{user}/mail":                  {"add-mail"},
	"/console/users/{user}/sms":                   {"add-sms"},

	"/console/tokens/{token}/revoke": {"revoke-api-token"},

	"/console/settings/certificates":                           {"change-certificate-settings"},
	"/console/users/{user}/certificates/{serial}/revoke":       {"revoke-user-certificate"},
	"/console/machines/{machine}/certificates/{serial}/revoke": {"revoke-machine-certificate"},

	"/console/users":                                {"add-user", asks},
	"/console/users/{user}/approval":                {"ask-approval"},
	"/console/users/{user}/backup":                  {"add-backup"},
	"/console/users/{user}/bypass-code":             {"issue-bypass-code"},
	"/console/users/{user}/disable":                 {"change-user"},
	"/console/users/{user}/disenrol":                {"disenroll-offline"},
	"/console/users/{user}/enable":                  {"change-user"},
	"/console/users/{user}/enrolment-code":          {"issue-enrolment-code"},
	"/console/users/{user}/everywhere":              {"revoke-windows", "revoke-user-sessions"},
	"/console/users/{user}/factors/{factor}/lost":   {"lose-factor"},
	"/console/users/{user}/factors/{factor}/remove": {"remove-factor"},
	"/console/users/{user}/groups":                  {"add-member"},
	"/console/users/{user}/groups/{group}/remove":   {"remove-member"},
	"/console/users/{user}/identity":                {"change-user"},
	"/console/users/{user}/mfa":                     {"change-user"},
	"/console/users/{user}/password":                {"set-password"},
	"/console/users/{user}/remove":                  {"remove-user"},
	"/console/users/{user}/role":                    {"change-user"},
	"/console/users/{user}/sessions/{session}/end":  {"revoke-session"},
	"/console/users/{user}/totp":                    {"add-totp"},
	"/console/users/{user}/unlock":                  {"unlock-user"},
	"/console/users/{user}/push/unlock":             {"unlock-push"},
	"/console/users/{user}/phone":                   {"add-phone"},

	"/console/events/views":               {"add-view"},
	"/console/events/views/{view}/remove": {"remove-view"},
	"/console/windows/end":                {"revoke-windows"},
	"/console/windows/{window}/end":       {"revoke-window"},
}

// TestBothDoorsAskForTheSameProof (E3): what the console does with a fresh second factor
// alone, the API with the same cookie does with one alone, and the other way round.
func TestBothDoorsAskForTheSameProof(t *testing.T) {
	fresh, named := api.Fresh(), map[string]bool{}
	for _, area := range web.Areas() {
		for _, r := range area {
			path, ok := strings.CutPrefix(r.Pattern, "POST ")
			if !ok || !strings.HasPrefix(path, "/console/") {
				continue
			}
			ops, ok := doors[path]
			if !ok {
				t.Errorf("POST %s names no operation of the API: add its line", path)
				continue
			}
			delete(doors, path)
			wants := false
			for _, op := range ops {
				named[op] = true
				wants = wants || slices.Contains(fresh, op)
				if r.Fresh && !slices.Contains(fresh, op) {
					t.Errorf("POST %s asks for a second factor, and the API does %s without", path, op)
				}
			}
			if wants && !r.Fresh && !slices.Contains(ops, asks) {
				t.Errorf("POST %s does %v without a fresh second factor, and the API does not", path, ops)
			}
		}
	}
	for path := range doors {
		t.Errorf("there is no POST %s", path)
	}
	for _, op := range fresh {
		if !named[op] {
			t.Errorf("no page does %s", op)
		}
	}
}

// TestFormsThatAskByThemselves: nothing is written with an old second factor, and what
// was typed is there to be sent again.
func TestFormsThatAskByThemselves(t *testing.T) {
	webtest.OnBoth(t, func(r *webtest.Rig) {
		b := r.Person("adam", rest.RoleAdministrator).SignedIn()
		r.Manual.Advance(6 * 60e9)
		user := []string{"user-name", "eve", "user-role", rest.RoleHelpDesk, "user-mfa", rest.MFAInherit, "user-activation", rest.ActivateNow}
		b.Submit("/console/users/new", "/console/users", user...).Is(http.StatusForbidden).Has("needs your second factor again").Has(`value="eve"`)
		policy := b.Submit("/console/policies/new", "/console/policies/new", "name", "lax", "window", "3h", "do", "save").Is(http.StatusForbidden).Has("needs your second factor again")
		b.StepUp().Resubmit(policy, "/console/policies/new", "do", "save").Is(http.StatusSeeOther)
		b.Submit("/console/users/new", "/console/users", user...).Is(http.StatusSeeOther)
	})
}
