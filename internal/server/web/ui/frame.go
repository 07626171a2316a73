package ui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"latchkey/internal/server/web/words"
)

// htmxConfig keeps htmx within the policy of these pages: no style of its own, no
// history of pages in the browser's store, requests to this server alone.
const htmxConfig = `{"includeIndicatorCSS":false,"mode":"same-origin","history":"reload","defaultTimeout":20000}`

func windowTitle(p Page) string {
	if p.Title == "" || p.Title == words.Product {
		return words.Product
	}
	return p.Title + " · " + words.Product
}

func display(display, name string) string {
	if display != "" {
		return display
	}
	return name
}

// initials are one or two letters for a person.
func initials(shown, name string) string {
	out := ""
	for _, w := range strings.Fields(display(shown, name)) {
		r, _ := utf8.DecodeRuneInString(w)
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			out += string(unicode.ToUpper(r))
		}
		if utf8.RuneCountInString(out) == 2 {
			break
		}
	}
	if out == "" {
		return "?"
	}
	return out
}
