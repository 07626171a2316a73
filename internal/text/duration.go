package text

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration writes d as a person says it, with its two largest units: "3 h 20 min", "6 days", "45 s", "120 ms". Less
// than nothing is written with a minus sign.
func Duration(d time.Duration) string {
	if d < 0 {
		if d == -1<<63 {
			d++
		}
		return "-" + Duration(-d)
	}
	const day = 24 * time.Hour
	two := func(big time.Duration, bigName string, small time.Duration, smallName string) string {
		d = d.Truncate(small)
		if rest := d % big / small; rest != 0 {
			return fmt.Sprintf("%d %s %d %s", d/big, bigName, rest, smallName)
		}
		return fmt.Sprintf("%d %s", d/big, bigName)
	}
	switch {
	case d == 0:
		return "0 s"
	case d < time.Millisecond:
		return "<1 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d/time.Millisecond)
	case d < 10*time.Second && d%time.Second >= 100*time.Millisecond:
		return fmt.Sprintf("%d.%d s", d/time.Second, d%time.Second/(100*time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return two(time.Minute, "min", time.Second, "s")
	case d < day:
		return two(time.Hour, "h", time.Minute, "min")
	case d < 2*day:
		return two(day, "day", time.Hour, "h")
	default:
		return two(day, "days", time.Hour, "h")
	}
}

// ParseDuration reads what time.ParseDuration reads ("90m", "24h"), days ("30d"), and what Duration writes ("30 days",
// "1 day 3 h", "3 h 20 min"): what was shown can be given in again. At most 100 years of days.
func ParseDuration(s string) (time.Duration, error) {
	fail := fmt.Errorf("%q is no duration such as 90m, 24h or 30d", CleanN(s, 64))
	if len(s) > 64 {
		return 0, fail
	}
	rest := strings.ReplaceAll(strings.ReplaceAll(s, " ", ""), "min", "m")
	var days time.Duration
	if end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' }); end > 0 && rest[end] == 'd' {
		n, err := strconv.ParseUint(rest[:end], 10, 16)
		if err != nil || n > 36500 {
			return 0, fail
		}
		days, rest = time.Duration(n)*24*time.Hour, rest[end:]
		for _, unit := range []string{"days", "day", "d"} {
			if r, ok := strings.CutPrefix(rest, unit); ok {
				rest = r
				break
			}
		}
		if rest == "" {
			return days, nil
		}
		if rest[0] < '0' || rest[0] > '9' {
			return 0, fail // a sign between the two
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || days+d < d {
		return 0, fail
	}
	return days + d, nil
}

// Span writes d in the shortest form that time.ParseDuration reads, for what is sent in again: "720h", "1h30m".
func Span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Ago writes how long before now t was ("5 min 3 s ago"), "just now" within two seconds, "in 5 min" for the future,
// and "never" for the zero time.
func Ago(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t)
	switch {
	case d > -2*time.Second && d < 2*time.Second:
		return "just now"
	case d < 0:
		return "in " + Duration(-d)
	default:
		return Duration(d) + " ago"
	}
}
