// Package fleet holds the console's pages about machines: the list and each machine's
// page, approval of pending ones, join tokens, the offline enrolment report, who would be
// stuck on a plane today, and open MFA windows.
//
// It promises: what is outdated, silent or without a TPM stands out and can be filtered;
// a page costs the same number of queries however many machines there are; a token is
// shown once, with the command that uses it; what ends trust or wipes something says
// before what will happen, and needs a second factor given a moment ago; a machine
// reported lost names the authenticators to renew; and two administrators never write
// over each other unseen (package forms).
//
// Rows: P3, E4, O14, O16, W7, S13 (traces of a machine's sign-ins).
package fleet

import (
	"net/url"
	"time"

	"latchkey/internal/server/web/ui"
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	routes := []ui.Route{
		{Pattern: "GET /console/machines", Serve: listMachines},
		{Pattern: "GET /console/machines/pending", Serve: listPending},
		{Pattern: "GET /console/machines/{machine}", Serve: showMachine},
		{Pattern: "GET /console/join", Serve: listTokens},
		{Pattern: "POST /console/join", Fresh: true, Serve: makeToken},
		{Pattern: "POST /console/join/{token}/withdraw", Serve: withdrawToken},
		{Pattern: "GET /console/offline", Serve: report},
		{Pattern: "POST /console/offline", Fresh: true, Serve: changeOffline},
		{Pattern: "GET /console/offline/export.csv", Slow: 2 * time.Minute, Serve: exportOffline},
		{Pattern: "GET /console/offline/plane", Serve: plane},
		{Pattern: "GET /console/windows", Serve: listWindows},
		{Pattern: "POST /console/windows/end", Serve: endWindows},
		{Pattern: "POST /console/windows/{window}/end", Serve: endWindow},
	}
	for _, a := range machineActions {
		routes = append(routes, ui.Route{Pattern: "POST /console/machines/{machine}/" + a.path, Fresh: a.fresh, Serve: a.serve()})
	}
	return routes
}

func machinePath(id string) string { return "/console/machines/" + url.PathEscape(id) }

func userPath(ref string) string { return "/console/users/" + url.PathEscape(ref) }
