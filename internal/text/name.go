package text

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// MaxName is the length of a name in bytes.
const MaxName = 128

// allowedName is said in every refusal, so that the second try succeeds.
const allowedName = "allowed are letters of one script, digits 0-9, space and . _ @ - + \\ between them, at most 128 bytes"

// NameError says why a name was refused. Its text is made for the person who typed the name: it never repeats
// the raw characters.
type NameError struct {
	Kind    string // what was named: "user name"
	Fault   string // what is wrong with it, with the place
	Allowed string // what would be right
}

func (e *NameError) Error() string { return e.Kind + ": " + e.Fault + "; " + e.Allowed }

// ValidName judges a name that was given from outside: of a user, group, machine, policy or authenticator. kind is
// the field's name as the person knows it ("user name"). The error is a *NameError.
//
// A name is 1 to 128 bytes of UTF-8: ASCII letters, digits and space . _ @ - + \, or letters of one Unicode script
// (Japanese and Korean may use the scripts that are written together there). Spaces stand alone and inside, a hyphen
// does not come first (a command would take it for a flag), and something must be a letter or a digit. Refused as
// look-alikes: letters of two scripts, forms that Unicode normalises to another (NFKC: full-width letters, ligatures,
// accents typed apart), invisible characters, and words of another script made only of letters that look Latin.
func ValidName(kind, s string) error {
	fault := func(format string, a ...any) error {
		return &NameError{Kind: kind, Fault: fmt.Sprintf(format, a...), Allowed: allowedName}
	}
	switch {
	case s == "":
		return fault("it is empty")
	case len(s) > MaxName:
		return fault("it has %d bytes", len(s))
	}
	var (
		place   int // of the character, counted from 1, as a person counts
		scripts scriptSet
		prev    rune
		solid   bool // a letter or digit was seen
	)
	for i, r := range s {
		place++
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return fault("byte 0x%02X at place %d is not UTF-8", s[i], i+1)
			}
		}
		switch {
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z':
			solid = true
			if other := scripts.add("Latin"); other != "" {
				return fault("it mixes %s and Latin letters (%s at place %d)", other, show(r), place)
			}
		case '0' <= r && r <= '9':
			solid = true
		case r == ' ' && (prev == ' ' || prev == 0 || i == len(s)-1):
			return fault("the space at place %d stands at an end or beside another", place)
		case r == '-' && prev == 0:
			return fault("it begins with -")
		case strings.ContainsRune(` ._@-+\`, r):
		case r < utf8.RuneSelf || Invisible(r) || forbiddenLetter(r):
			return fault("character %s at place %d is not allowed", show(r), place)
		case unicode.In(r, unicode.Mn, unicode.Mc):
			if prev == 0 || !unicode.In(prev, unicode.L, unicode.Mn, unicode.Mc) {
				return fault("the mark %s at place %d follows no letter", show(r), place)
			}
		case unicode.IsLetter(r):
			solid = true
			sc := script(r)
			if sc == "" {
				return fault("character %s at place %d is not allowed", show(r), place)
			}
			if other := scripts.add(sc); other != "" {
				return fault("it mixes %s and %s letters (%s at place %d)", other, sc, show(r), place)
			}
		default:
			return fault("character %s at place %d is not allowed", show(r), place)
		}
		prev = r
	}
	if !solid {
		return fault("it has no letter or digit")
	}
	if n := norm.NFKC.String(s); n != s {
		return fault("it is another way to write %q", CleanN(n, MaxName))
	}
	if latin := looksLatin(s); latin != "" {
		return fault("it is written in %s letters and looks like %q", scripts.name(), latin)
	}
	return nil
}

// ValidLine judges free text of one line that people will read: a reason, a title, a note. It may hold any visible
// character, must not be empty, and has at most most bytes. The error is a *NameError.
func ValidLine(kind, s string, most int) error {
	allowed := fmt.Sprintf("allowed is one line of text of at most %d bytes", most)
	fault := func(format string, a ...any) error {
		return &NameError{Kind: kind, Fault: fmt.Sprintf(format, a...), Allowed: allowed}
	}
	if strings.TrimSpace(s) == "" {
		return fault("it is empty")
	}
	if len(s) > most {
		return fault("it has %d bytes", len(s))
	}
	place := 0
	for i, r := range s {
		place++
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return fault("byte 0x%02X at place %d is not UTF-8", s[i], i+1)
			}
		}
		if Invisible(r) {
			return fault("character %s at place %d is not allowed", show(r), place)
		}
	}
	return nil
}

// show names a character without printing what could do harm.
func show(r rune) string {
	if Invisible(r) || !unicode.IsPrint(r) {
		return fmt.Sprintf("U+%04X", r)
	}
	return fmt.Sprintf("%q (U+%04X)", r, r)
}

// scriptSet holds the scripts of a name's letters.
type scriptSet map[string]bool

// together are the scripts that one language writes side by side (UTS #39, augmented script sets).
var together = []map[string]bool{
	{"Han": true, "Hiragana": true, "Katakana": true},
	{"Han": true, "Hangul": true},
	{"Han": true, "Bopomofo": true},
}

// add takes one more script in and returns "" or, if the new one is not written beside them, one that was there.
func (s *scriptSet) add(sc string) (clash string) {
	if *s == nil {
		*s = scriptSet{}
	}
	(*s)[sc] = true
	if len(*s) == 1 {
		return ""
	}
next:
	for _, set := range together {
		for have := range *s {
			if !set[have] {
				continue next
			}
		}
		return ""
	}
	for have := range *s {
		if have != sc && (clash == "" || have < clash) {
			clash = have
		}
	}
	return clash
}

// name returns the scripts in a fixed order.
func (s scriptSet) name() string {
	var out string
	for sc := range s {
		if out == "" || sc < out {
			out = sc
		}
	}
	return out
}

// script returns the Unicode script of a letter, or "" for letters that belong to none of their own.
func script(r rune) string {
	if r == 'ー' || r == '々' { // long vowel and repetition: "Common" and "Han", both written among kana
		return "Han"
	}
	for name, table := range unicode.Scripts {
		if name != "Common" && name != "Inherited" && unicode.Is(table, r) {
			return name
		}
	}
	return ""
}

// forbiddenLetter tells letters that pass as Latin but are none that a language writes: click letters, phonetic
// letters and the archaic extensions. They exist in names only to deceive.
func forbiddenLetter(r rune) bool {
	return r >= 0x01C0 && r <= 0x01C3 || r >= 0x0250 && r <= 0x02AF || r >= 0x1D00 && r <= 0x1DBF ||
		r >= 0x2C60 && r <= 0x2C7F || r >= 0xA720 && r <= 0xA7FF || r >= 0xAB30 && r <= 0xAB6F
}

// latinTwins are letters of other scripts that fonts draw like a Latin one.
var latinTwins = map[rune]rune{
	// Cyrillic
	'а': 'a', 'е': 'e', 'о': 'o', 'р': 'p', 'с': 'c', 'у': 'y', 'х': 'x', 'ѕ': 's', 'і': 'i', 'ј': 'j', 'һ': 'h',
	'ԁ': 'd', 'ԛ': 'q', 'ԝ': 'w', 'ӏ': 'l', 'ү': 'y', 'к': 'k', 'г': 'r', 'п': 'n', 'ѵ': 'v', 'ь': 'b',
	'А': 'A', 'В': 'B', 'Е': 'E', 'К': 'K', 'М': 'M', 'Н': 'H', 'О': 'O', 'Р': 'P', 'С': 'C', 'Т': 'T', 'У': 'Y',
	'Х': 'X', 'Ѕ': 'S', 'І': 'I', 'Ј': 'J', 'Ԛ': 'Q', 'Ԝ': 'W', 'Ү': 'Y', 'Ѵ': 'V', 'Ӏ': 'I',
	// Greek
	'α': 'a', 'ο': 'o', 'ν': 'v', 'ι': 'i', 'κ': 'k', 'ρ': 'p', 'υ': 'u', 'χ': 'x', 'γ': 'y', 'ϳ': 'j',
	'Α': 'A', 'Β': 'B', 'Ε': 'E', 'Ζ': 'Z', 'Η': 'H', 'Ι': 'I', 'Κ': 'K', 'Μ': 'M', 'Ν': 'N', 'Ο': 'O', 'Ρ': 'P',
	'Τ': 'T', 'Υ': 'Y', 'Χ': 'X',
	// Armenian
	'օ': 'o', 'ս': 'u', 'հ': 'h', 'ո': 'n', 'ց': 'g', 'զ': 'q', 'Տ': 'S', 'Ս': 'U', 'Օ': 'O', 'Լ': 'L',
	// Cherokee
	'Ꭺ': 'A', 'Ᏼ': 'B', 'Ꮯ': 'C', 'Ꭰ': 'D', 'Ꭼ': 'E', 'Ꮐ': 'G', 'Ꮋ': 'H', 'Ꭻ': 'J', 'Ꮶ': 'K', 'Ꮮ': 'L', 'Ꮇ': 'M',
	'Ꮲ': 'P', 'Ꮢ': 'R', 'Ꮪ': 'S', 'Ꭲ': 'T', 'Ꮩ': 'V', 'Ꮃ': 'W', 'Ꮍ': 'Y', 'Ꮓ': 'Z',
}

// looksLatin returns the Latin word that s is drawn like, or "" if a letter of s gives it away.
func looksLatin(s string) string {
	var b strings.Builder
	foreign := false
	for _, r := range s {
		if r < utf8.RuneSelf {
			b.WriteRune(r)
			continue
		}
		twin, ok := latinTwins[r]
		if !ok {
			return ""
		}
		foreign = true
		b.WriteRune(twin)
	}
	if !foreign {
		return ""
	}
	return b.String()
}
