// Package text is the last gate before a stranger's words reach a screen, a log or a database, and the hand that
// lays out what the commands print.
//
// It promises: what leaves Clean can not move a cursor, hide or reorder other text, or be longer than asked; a name
// that passes ValidName is short, is written in one script, and looks like no other name that passes it by a trick of
// encoding. Rows: S6 (names are compared byte for byte, so look-alikes are refused where names are made), "Bad input".
//
// It is pure, and it knows nothing of either side.
package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLine is the number of bytes that Clean and CleanBlock leave at most: enough for a QR code in a terminal, and
// well inside one frame of the local socket.
const MaxLine = 8 << 10

// Clean makes one harmless line of s: invalid UTF-8, control characters (C0, C1, DEL), line and paragraph separators,
// text that reorders (bidirectional controls) and other invisible formatting are dropped, line feeds and tabs become
// one space, and the result has at most MaxLine bytes.
func Clean(s string) string { return clean(s, MaxLine, false) }

// CleanN is Clean with a bound of n bytes. A text that had to be cut ends with "…" if n leaves room for it.
func CleanN(s string, n int) string { return clean(s, n, false) }

// CleanBlock is Clean for texts of several lines: line feeds stay. It is meant for our own texts that hold a
// stranger's words, such as the QR code with an account's name below it.
func CleanBlock(s string) string { return clean(s, MaxLine, true) }

func clean(s string, n int, lines bool) string {
	if n <= 0 {
		return ""
	}
	var b strings.Builder
	b.Grow(min(len(s), n))
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		switch {
		case r == utf8.RuneError && size == 1:
			continue
		case r == '\n' && lines:
		case r == '\n' || r == '\t':
			r = ' '
		case Invisible(r):
			continue
		}
		if b.Len()+utf8.RuneLen(r) > n {
			return ellipsis(b.String(), n)
		}
		b.WriteRune(r)
	}
	return b.String()
}

// ellipsis shortens s so that "…" fits behind it within n bytes.
func ellipsis(s string, n int) string {
	const dots = "…"
	if n < len(dots) {
		return s
	}
	for len(s)+len(dots) > n {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s + dots
}

// Invisible tells whether r takes no place of its own on a screen and may change how its neighbours look: control
// characters, format characters (among them all bidirectional ones, zero-width joiners and tags), line and paragraph
// separators, surrogates, private use, fillers and variation selectors.
func Invisible(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Co,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point)
}
