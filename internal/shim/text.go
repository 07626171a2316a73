package shim

import (
	"strings"
	"unicode/utf8"
)

// Clean makes a text fit for one line of any terminal: tab and newline become a
// blank; every other control character (C0, DEL, C1), every octet that is not
// valid UTF-8, and the marks that reorder or break lines (U+061C, U+200E,
// U+200F, U+2028-U+202E, U+2066-U+2069) become '?'. It is idempotent and never
// makes a text longer.
func Clean(s string) string { return clean(s, false) }

// CleanLines is Clean for texts of several lines: newlines stay.
func CleanLines(s string) string { return clean(s, true) }

func clean(s string, lines bool) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\n' && lines:
			b.WriteByte('\n')
		case r == '\n' || r == '\t':
			b.WriteByte(' ')
		case r == utf8.RuneError && n == 1, unfit(r):
			b.WriteByte('?')
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func unfit(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r <= 0x9f:
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f:
		return true
	case r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return false
}

// IsJunk tells whether b is what sshd hands to PAM in place of the typed
// password when the user is unknown or must not log in: the octets
// "\b\n\r\177INCORRECT", repeated or cut to the length of what was typed.
// Nobody can type it, so refusing it without counting gives nothing away.
func IsJunk(b []byte) bool {
	const pattern = "\b\n\r\x7fINCORRECT"
	if len(b) == 0 {
		return false
	}
	for i, c := range b {
		if c != pattern[i%len(pattern)] {
			return false
		}
	}
	return true
}
