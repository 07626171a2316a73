// Package office holds the pages of the server as a whole: dashboard, settings, status,
// the description of the API, and the search.
//
// It promises that every number leads to its list, and that what a page shows costs
// the same however many events there are.
//
// Rows: O16 (who would be stuck today), P3, P4, S10, V4.
package office

import (
	"latchkey/internal/rest"
	"latchkey/internal/server/web/ui"
)

// Routes are the pages of this area.
func Routes() []ui.Route {
	api := &apiPages{}
	return []ui.Route{
		{Pattern: "GET /console", Serve: dashboard},
		{Pattern: "GET /console/search", Serve: search},
		{Pattern: "GET /console/settings", Serve: showSettings},
		{Pattern: "POST /console/settings", Fresh: true, Serve: changeSettings},
		{Pattern: "GET /console/settings/mail", Serve: showPost(rest.ChannelMail)},
		{Pattern: "POST /console/settings/mail", Fresh: true, MaxBody: 128 << 10, Serve: changeMail},
		{Pattern: "POST /console/settings/mail/test", Fresh: true, Serve: tryPost(rest.ChannelMail)},
		{Pattern: "GET /console/settings/sms", Serve: showPost(rest.ChannelSMS)},
		{Pattern: "POST /console/settings/sms", Fresh: true, MaxBody: 128 << 10, Serve: changeSMS},
		{Pattern: "POST /console/settings/sms/test", Fresh: true, Serve: tryPost(rest.ChannelSMS)},
		{Pattern: "POST /console/settings/messages/{message}/retry", Fresh: true, Serve: retryMessage},
		{Pattern: "POST /console/settings/messages/{message}/remove", Fresh: true, Serve: removeMessage},
		{Pattern: "GET /console/status", Serve: status},
		{Pattern: "GET /console/api", Serve: api.list},
		{Pattern: "GET /console/api/{operation}", Serve: api.show},
		{Pattern: "GET /console/tokens", Serve: listTokens},
		{Pattern: "POST /console/tokens", Fresh: true, Serve: makeToken},
		{Pattern: "POST /console/tokens/{token}/revoke", Serve: revokeToken},
	}
}
