package ui

import (
	"slices"
	"strings"

	"latchkey/internal/rest"
	"latchkey/internal/server/web/words"
)

// Link is an entry of a menu.
type Link struct {
	Section, Text, Path, Icon string
	Role                      string // the lowest that sees it; empty: everybody
}

// group is a part of the console's menu.
type group struct {
	text  string
	links []Link
}

// console is the menu of the console. Who may not read a page does not see its entry;
// the right itself is judged by the desk.
var console = []group{
	{"", []Link{{"dashboard", words.NavDashboard, "/console", "gauge", ""}}},
	{words.NavGroupPeople, []Link{
		{"users", words.NavUsers, "/console/users", "user", ""},
		{"groups", words.NavGroups, "/console/groups", "users", ""},
		{"locks", words.NavLocks, "/console/locks", "lock", ""},
		{"reports", words.DeskReports, "/console/reports", "warn", ""},
	}},
	{words.NavGroupMachines, []Link{
		{"machines", words.NavMachines, "/console/machines", "machine", ""},
		{"offline", words.NavOffline, "/console/offline", "plane", ""},
		{"windows", words.NavWindows, "/console/windows", "clock", ""},
		{"join", words.NavJoin, "/console/join", "plus", rest.RoleAdministrator},
	}},
	{words.NavGroupRules, []Link{
		{"policies", words.NavPolicies, "/console/policies", "shield", ""},
		{"explain", words.NavExplain, "/console/explain", "help", ""},
	}},
	{words.NavGroupLog, []Link{
		{"events", words.NavEvents, "/console/events", "list", ""},
		{"audit", words.NavAudit, "/console/audit", "eye", ""},
	}},
	{words.NavGroupServer, []Link{
		{"import", words.NavImport, "/console/import", "upload", rest.RoleAdministrator},
		{"approvals", words.NavApprovals, "/console/approvals", "check", rest.RoleHelpDesk},
		{"tokens", words.NavTokens, "/console/tokens", "key", ""},
		{"settings", words.NavSettings, "/console/settings", "gear", ""},
		{"status", words.NavStatus, "/console/status", "heart", ""},
		{"api", words.NavAPI, "/console/api", "code", ""},
	}},
}

// portal is the menu of the portal.
var portal = []Link{
	{"me", words.NavMe, "/me", "user", ""},
	{"factors", words.NavMyFactors, "/me/factors", "key", ""},
	{"machines", words.NavMyMachines, "/me/machines", "machine", ""},
	{"signins", words.NavMySignins, "/me/signins", "list", ""},
	{"password", words.NavMyPassword, "/me/password", "lock", ""},
	{"sessions", words.NavMySessions, "/me/sessions", "clock", ""},
}

// Pages are all pages of the console's menu that a role sees, for the search.
func Pages(role string) []Link {
	var out []Link
	for _, g := range menu(role) {
		out = append(out, g.links...)
	}
	return out
}

// PortalPages are the pages of the portal's menu.
func PortalPages() []Link { return slices.Clone(portal) }

func menu(role string) []group {
	var out []group
	for _, g := range console {
		n := group{text: g.text}
		for _, l := range g.links {
			if l.Role == "" || slices.Index(rest.Roles, role) >= slices.Index(rest.Roles, l.Role) {
				n.links = append(n.links, l)
			}
		}
		if len(n.links) > 0 {
			out = append(out, n)
		}
	}
	return out
}

// shape is which frame a page has.
func shape(r *Request) string {
	at := func(base string) bool { return r.URL.Path == base || strings.HasPrefix(r.URL.Path, base+"/") }
	switch {
	case r.Session == nil:
		return "bare"
	case at("/console") && r.Session.Console:
		return "console"
	case at("/me"):
		return "portal"
	}
	return "bare"
}

// SettingTabs lead from one part of the settings to another.
var SettingTabs = []Link{
	{Section: "server", Text: words.PostTabServer, Path: "/console/settings"},
	{Section: "mail", Text: words.PostTabMail, Path: "/console/settings/mail"},
	{Section: "sms", Text: words.PostTabSMS, Path: "/console/settings/sms"},
	{Section: "certificates", Text: words.PostTabCerts, Path: "/console/settings/certificates"},
}
