// Package people holds the console's pages about users, groups and lock-outs.
//
// A user's page is a workbench: who it is and in what state, whether 2FA is on and who
// says so, factors, machines with what is left offline, windows, lock-outs, sessions,
// the last sign-ins with the trace of their decisions, and what a help desk does. It
// promises: a page costs the same number of queries however many users there are; a
// secret is shown once, on the answer that made it; what weakens or destroys something
// needs a second factor given a moment ago and says before what will happen; whoever may
// not do something is told so where they tried, and nothing is half-written; and two
// administrators never write over each other unseen (package forms).
//
// Rows: S10 (unlock), S13 (traces), W7 (sign out everywhere), O14 (machines and offline
// data of a user), P2, E1, E3, M1, M5, D1.
package people

import (
	"net/url"

	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	routes := []ui.Route{
		{Pattern: "GET /console/users", Serve: listUsers},
		{Pattern: "GET /console/users/new", Serve: newUser},
		{Pattern: "POST /console/users", Serve: addUser},
		{Pattern: "GET /console/users/{user}", Serve: showUser},
		{Pattern: "GET /console/groups", Serve: listGroups},
		{Pattern: "GET /console/groups/new", Serve: newGroup},
		{Pattern: "POST /console/groups", Serve: addGroup},
		{Pattern: "GET /console/groups/{group}", Serve: showGroup},
		{Pattern: "GET /console/locks", Serve: listLocks},
		{Pattern: "POST /console/locks/{user}/lift", Serve: liftLock},
	}
	for _, a := range userActions {
		routes = append(routes, ui.Route{Pattern: "POST /console/users/{user}/" + a.path, Fresh: a.fresh, Serve: a.serve()})
	}
	for _, a := range groupActions {
		routes = append(routes, ui.Route{Pattern: "POST /console/groups/{group}/" + a.path, Fresh: a.fresh, Serve: a.serve()})
	}
	return routes
}

// userPath is the address of a user's page, by id: it stays when a name changes.
func userPath(id string) string { return "/console/users/" + url.PathEscape(id) }

func groupPath(id string) string { return "/console/groups/" + url.PathEscape(id) }

func below(role string) []string {
	for i, r := range rest.Roles {
		if r == role {
			if role == rest.RoleOwner {
				return rest.Roles
			}
			return rest.Roles[:i]
		}
	}
	return nil
}

// pathWord is a name within a path.
func pathWord(s string) string { return url.PathEscape(s) }
