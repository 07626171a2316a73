// Package lists holds what pages with lists have in common: the address of a list with its
// filters, its pager, the choices of a filter, and names that are typed one a line.
package lists

import (
	"net/url"
	"strings"

	"latchkey/internal/server/web/ui"
)

// Path is the address of a list with its filters, given as names and values by turns;
// empty values are left out.
func Path(base string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return base
	}
	return base + "?" + q.Encode()
}

// Next is the address of the next page; empty at the last one.
func Next(cursor string, path func(after string) string) string {
	if cursor == "" {
		return ""
	}
	return path(cursor)
}

// First is the address of the first page; empty on it.
func First(after string, path func(after string) string) string {
	if after == "" {
		return ""
	}
	return path("")
}

// Sorted makes the head of a column a link that sorts the list by it, and the other way
// round where the list comes so already. word is that of the API; first is what the first
// click asks for: the word, or with "-" the other way round. now is the order that the list
// has, path the address of the list's first page in an order.
func Sorted(col ui.Col, now, first string, path func(sort string) string) ui.Col {
	word := strings.TrimPrefix(first, "-")
	switch now {
	case word:
		col.Dir, first = "ascending", "-"+word
	case "-" + word:
		col.Dir, first = "descending", word
	}
	col.Sort = path(first)
	return col
}

// Options are the choices of a filter or field, named by labels. whatever names the choice
// of none of them; empty: there is no such choice.
func Options(whatever string, labels map[string]string, values ...string) []ui.Option {
	var out []ui.Option
	if whatever != "" {
		out = append(out, ui.Option{Label: whatever})
	}
	for _, v := range values {
		out = append(out, ui.Option{Value: v, Label: labels[v]})
	}
	return out
}

// Names are the names in a text of several lines, or separated by commas, without blanks
// around them; never nil.
func Names(s string) []string {
	out := []string{}
	for _, l := range strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' || r == ',' }) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return out
}
