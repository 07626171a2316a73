package ui

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/text"
)

// The kinds of badges, notices and tones. Colour never speaks alone: each kind has a
// mark of its own.
const (
	OK      = "ok"
	Info    = "info"
	Warn    = "warn"
	Bad     = "bad"
	Neutral = "neutral"
)

// kinds are the kinds with their icons.
var kinds = map[string]string{OK: "check", Info: "info", Warn: "warn", Bad: "bad", Neutral: "dot"}

func kindOf(kind string) string {
	if kinds[kind] == "" {
		return Neutral
	}
	return kind
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func utc(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") + " UTC" }

func utcShort(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") + " UTC" }

// ago says how long ago or how soon t is, seen from now.
func ago(t, now time.Time) string {
	if t.After(now) {
		d := t.Sub(now)
		if d < time.Minute {
			return "in a moment"
		}
		return "in " + text.Duration(round(d))
	}
	return text.Ago(t, now)
}

// round leaves what a person wants to know of a duration.
func round(d time.Duration) time.Duration {
	switch {
	case d >= 48*time.Hour:
		return d.Round(24 * time.Hour)
	case d >= 2*time.Hour:
		return d.Round(time.Hour)
	case d >= time.Minute:
		return d.Round(time.Minute)
	}
	return d.Round(time.Second)
}

// Count writes a number with its thousands apart.
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	head := ""
	if strings.HasPrefix(s, "-") {
		head, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return head + s
}

// System is the name of an operating system as people say it: agents put its family
// before it.
func System(os string) string {
	for _, family := range []string{"linux ", "windows ", "darwin "} {
		if name, ok := strings.CutPrefix(os, family); ok && name != "" {
			return name
		}
	}
	return os
}

// Door is how this browser reaches the server: where, and whether the certificate that it
// is shown there comes from another CA than the server's own.
type Door struct {
	Host    string
	OtherCA bool
}

// CAFile is what people call the file with the certificate of the server's CA.
const CAFile = "latchkey-ca.pem"

// CurlText writes an operation as a command for a shell of POSIX.
func CurlText(d Door, c *Curl) string {
	var b strings.Builder
	b.WriteString("curl --fail-with-body")
	if c.Method != "GET" {
		b.WriteString(" --request " + c.Method)
	}
	if !d.OtherCA {
		b.WriteString(" --cacert " + CAFile)
	}
	b.WriteString(" " + quote("https://"+d.Host+c.Path))
	b.WriteString(" \\\n  --header \"Authorization: Bearer $LATCHKEY_TOKEN\"")
	if c.Body != nil {
		if j, err := json.MarshalIndent(c.Body, "  ", "  "); err == nil {
			b.WriteString(" \\\n  --json " + quote(string(j)))
		}
	}
	return b.String()
}

// quote makes one word of a shell.
func quote(s string) string {
	if strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:%=,@", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// join makes the value of a class attribute.
func join(classes ...string) string {
	out := classes[:0]
	for _, c := range classes {
		if c != "" {
			out = append(out, c)
		}
	}
	return strings.Join(out, " ")
}

func when(cond bool, s string) string {
	if cond {
		return s
	}
	return ""
}

// ids for what describes a field.
func hintID(name string) string  { return "hint-" + name }
func faultID(name string) string { return "fault-" + name }

func describedBy(name, hint, fault string) string {
	return strings.TrimSpace(when(hint != "", hintID(name)) + " " + when(fault != "", faultID(name)))
}

func fieldID(name string) string { return "f-" + strings.Map(idRune, name) }

func idRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
		return r
	}
	return '-'
}

func itoa(n int) string { return strconv.Itoa(n) }

func f1(x float64) string { return fmt.Sprintf("%.1f", x) }

func sorted(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// Span writes a duration for people: "30 minutes", "12 hours".
func Span(d time.Duration) string { return text.Duration(d) }
