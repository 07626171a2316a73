// Package office holds the pages of the server as a whole: dashboard, settings, status,
// the description of the API, and the search.
//
// It promises that every number leads to its list, and that what a page shows costs
// the same however many events there are.
//
// Rows: O16 (who would be stuck today), P3, P4, S10, V4.
package office

import "latchkey/internal/server/web/ui"

// Routes are the pages of this area.
func Routes() []ui.Route {
	api := &apiPages{}
	return []ui.Route{
		{Pattern: "GET /console", Serve: dashboard},
		{Pattern: "GET /console/search", Serve: search},
		{Pattern: "GET /console/settings", Serve: showSettings},
		{Pattern: "POST /console/settings", Fresh: true, Serve: changeSettings},
		{Pattern: "GET /console/status", Serve: status},
		{Pattern: "GET /console/api", Serve: api.list},
		{Pattern: "GET /console/api/{operation}", Serve: api.show},
		{Pattern: "GET /console/tokens", Serve: listTokens},
		{Pattern: "POST /console/tokens", Fresh: true, Serve: makeToken},
		{Pattern: "POST /console/tokens/{token}/revoke", Serve: revokeToken},
	}
}
