package web

import (
	"latchkey/internal/server/web/authenticator"
	"latchkey/internal/server/web/bulk"
	"latchkey/internal/server/web/certs"
	"latchkey/internal/server/web/entry"
	"latchkey/internal/server/web/fleet"
	"latchkey/internal/server/web/log"
	"latchkey/internal/server/web/office"
	"latchkey/internal/server/web/people"
	"latchkey/internal/server/web/portal"
	"latchkey/internal/server/web/rules"
	"latchkey/internal/server/web/ui"
)

// Areas are the routes of all areas. An area stands here and nowhere else.
func Areas() [][]ui.Route {
	return [][]ui.Route{
		authenticator.Routes(),
		bulk.Routes(),
		certs.Routes(),
		entry.Routes(),
		fleet.Routes(),
		office.Routes(),
		portal.Routes(),
		people.Routes(),
		rules.Routes(),
		log.Routes(),
	}
}
