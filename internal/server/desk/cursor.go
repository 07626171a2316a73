package desk

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"latchkey/internal/fault"
	"latchkey/internal/server/store/db"
)

// order reads in which order a list shall come: one of the words, with "-" before it the
// other way round. own is the list's own order. kind names the list in cursors:
// one of another order does not continue it.
func (v *faults) order(kind, sort string, own string, words ...string) (db.Order, string) {
	if sort == "" || sort == own {
		return db.Order{}, kind
	}
	word, desc := strings.CutPrefix(sort, "-")
	if word == own {
		return db.Order{Desc: true}, kind + "/" + sort
	}
	if slices.Contains(words, word) {
		return db.Order{By: word, Desc: desc}, kind + "/" + sort
	}
	var all []string
	for _, w := range append([]string{own}, words...) {
		all = append(all, w, "-"+w)
	}
	v.word("sort", sort, all)
	return db.Order{}, kind
}

// maxCursor bounds a cursor in octets.
const maxCursor = 1024

// cursor makes the opaque text that continues a list of the kind.
func cursor(kind string, parts ...string) string {
	b, _ := json.Marshal(append([]string{kind}, parts...)) // strings are always JSON
	return base64.RawURLEncoding.EncodeToString(b)
}

var errCursor = errors.New("no cursor of this list")

// resume reads what cursor made for a list of the same kind with n parts. An empty
// cursor gives n empty parts: the beginning.
func resume(kind, s string, n int) ([]string, error) {
	if s == "" {
		return make([]string, n), nil
	}
	parts, err := parseCursor(kind, s, n)
	if err != nil {
		return nil, fault.New(fault.Invalid, err).With("after", "it is not a cursor of this list; allowed is the \"next\" of an earlier page, or nothing")
	}
	return parts, nil
}

func parseCursor(kind, s string, n int) ([]string, error) {
	if len(s) > maxCursor {
		return nil, errCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || !utf8.Valid(b) {
		return nil, errCursor
	}
	var parts []string
	if err := json.Unmarshal(b, &parts); err != nil || len(parts) != n+1 || parts[0] != kind {
		return nil, errCursor
	}
	for _, p := range parts {
		if !askable(p) && p != "" {
			return nil, errCursor
		}
	}
	return parts[1:], nil
}

// cursorNumber reads a number of a cursor; an empty one is 0.
func cursorNumber(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, err).With("after", "it is not a cursor of this list")
	}
	return n, nil
}
