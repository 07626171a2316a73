package post

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"
)

// The bounds of addresses: RFC 5321 §4.5.3.1 and ITU-T E.164.
const (
	maxMail   = 254
	maxLocal  = 64
	minDigits = 7
	maxDigits = 15
)

// ParseMail judges a mail address as it is typed, and gives it as it is used. What is
// allowed is the plain form of RFC 5321 §4.1.2 alone (no quoted local part, no comment,
// no name beside it, no route), with a host name or, where literal is set, an address in
// brackets: nothing that a mail program could read as two addresses or as a header.
func ParseMail(s string) (string, error) {
	s = strings.TrimSpace(s)
	switch {
	case s == "":
		return "", errors.New("it is empty; allowed is NAME@HOST")
	case len(s) > maxMail:
		return "", errors.New("it is longer than 254 bytes")
	case !utf8.ValidString(s):
		return "", errors.New("it is not UTF-8")
	}
	at := strings.LastIndexByte(s, '@')
	if at < 1 || at == len(s)-1 {
		return "", errors.New("it is no mail address; allowed is NAME@HOST")
	}
	local, host := s[:at], s[at+1:]
	if len(local) > maxLocal {
		return "", errors.New("the part before the @ is longer than 64 bytes")
	}
	for _, part := range strings.Split(local, ".") {
		if part == "" {
			return "", errors.New("the part before the @ begins or ends with a dot, or has two in a row")
		}
		for i := range len(part) {
			if !isAtext(part[i]) {
				return "", errors.New("the part before the @ holds a character that is not allowed; allowed are letters and digits of ASCII, dots, and !#$%&'*+-/=?^_`{|}~")
			}
		}
	}
	if err := checkHost(host); err != nil {
		return "", err
	}
	// A host name is the same in upper and lower case; what stands before the @ may not be.
	return local + "@" + strings.ToLower(host), nil
}

// isAtext is RFC 5322 §3.2.3.
func isAtext(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return c < utf8.RuneSelf && strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0
}

// checkHost judges a host name (RFC 1123 §2.1), or an internationalised one in its ASCII
// form.
func checkHost(host string) error {
	if len(host) > 253 {
		return errors.New("the host is longer than 253 bytes")
	}
	for _, label := range strings.Split(host, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("the host has a part that is empty or longer than 63 bytes")
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("a part of the host begins or ends with a hyphen")
		}
		for i := range len(label) {
			if c := label[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return errors.New("the host holds a character that is not allowed; allowed are letters and digits of ASCII, hyphens and dots")
			}
		}
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return errors.New("the host is an address; allowed is a name")
	}
	return nil
}

// ParseNumber judges a telephone number as it is typed (blanks, hyphens, dots, slashes
// and round brackets are left out), and gives it in the form of ITU-T E.164: a plus, the
// country's code and the rest, 7 to 15 digits together.
func ParseNumber(s string) (string, error) {
	s = strings.TrimSpace(s)
	if len(s) > 64 {
		return "", errors.New("it is too long to be a telephone number")
	}
	rest, ok := strings.CutPrefix(s, "+")
	if !ok {
		// 00 is the prefix of most countries, but not of all: nothing is guessed.
		return "", errors.New("it does not begin with +; allowed is the international form, such as +49 170 1234567")
	}
	digits := make([]byte, 0, maxDigits+1)
	for i := range len(rest) {
		switch c := rest[i]; {
		case c >= '0' && c <= '9':
			if len(digits) > maxDigits {
				return "", errors.New("it has more than 15 digits")
			}
			digits = append(digits, c)
		case c == ' ' || c == '-' || c == '.' || c == '/' || c == '(' || c == ')':
		default:
			return "", errors.New("it holds a character that is no digit; allowed is the international form, such as +49 170 1234567")
		}
	}
	switch {
	case len(digits) > maxDigits:
		return "", errors.New("it has more than 15 digits")
	case len(digits) < minDigits:
		return "", errors.New("it has less than 7 digits")
	case digits[0] == '0':
		return "", errors.New("no country's code begins with 0; leave out the 0 behind the +")
	}
	return "+" + string(digits), nil
}

// MaskMail shows so much of an address that its owner knows it.
func MaskMail(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 1 {
		return "…"
	}
	_, n := utf8.DecodeRuneInString(s)
	return s[:n] + "…@" + s[at+1:]
}

// MaskNumber shows the country and the last two digits.
func MaskNumber(s string) string {
	if len(s) < 1+minDigits {
		return "…"
	}
	return s[:3] + "…" + s[len(s)-2:]
}
