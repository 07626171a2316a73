package fill

import (
	"net/url"
	"strings"

	"latchkey/internal/server/web"
	"latchkey/internal/server/web/ui"
)

// notPages are GET routes that give something else than a page, and what; so are those that end in .csv.
var notPages = map[string]string{
	"/console/events/export": "a file",
	"/console/events/stream": "events as they come",

	"/me/phone/{code}":       "what has become of a code that was shown a moment ago",
	"/me/enrol/phone":        "whoever has a factor is led to /me/phone, which shows the same",
	"/me/enrol/phone/{code}": "the same, of a first enrolment",
}

// Page is a page of the server with an address that shows something.
type Page struct {
	Pattern string // of the route
	Path    string
	Anyone  bool // it is for whoever has not signed in
}

// Pages are all pages of the server, by its own list of routes, with addresses that show what was filled in. missing are
// routes with a part in their path of which nobody has said here what could stand there.
func Pages(n Named) (pages []Page, missing []string) {
	for _, area := range web.Areas() {
		for _, r := range area {
			path, ok := strings.CutPrefix(r.Pattern, "GET ")
			if !ok || notPages[path] != "" || strings.HasSuffix(path, ".csv") || appFile(path) {
				continue
			}
			if path, ok = n.address(path); !ok {
				missing = append(missing, r.Pattern)
				continue
			}
			pages = append(pages, Page{r.Pattern, path, r.Needs == ui.Anyone})
		}
	}
	return pages, missing
}

// appFile tells the files of the authenticator app, which is one page.
func appFile(path string) bool {
	return strings.HasPrefix(path, "/authenticator") && path != "/authenticator/{$}"
}

// address puts what there is in place of the parts of a pattern.
func (n Named) address(pattern string) (string, bool) {
	own := strings.HasPrefix(pattern, "/me/")
	machine := n.Machine
	if own {
		machine = n.OwnMachine
	}
	for part, value := range map[string]string{
		"{$}": "", "{user}": n.Usual, "{group}": n.Group, "{machine}": machine, "{policy}": n.Policy, "{event}": n.Event, "{signin}": n.Own, "{factor}": n.Factor,
		"{report}": n.Report, "{import}": n.Import, "{version}": "150", "{operation}": "add-user",
	} {
		pattern = strings.ReplaceAll(pattern, part, url.PathEscape(value))
	}
	return pattern, !strings.Contains(pattern, "{")
}
