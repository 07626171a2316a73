package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"latchkey/internal/policy"
	"latchkey/internal/text"
)

// words takes exactly as many arguments as there are names for them. What can not
// be a name at all is refused here: it could not even be asked for.
func words(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return fmt.Errorf("it takes %s, not %d", count(names), len(args))
		}
		for i, s := range args {
			if err := word(names[i], s); err != nil {
				return err
			}
		}
		return nil
	}
}

// wordsAndMore takes the named ones and at least one more of the last kind.
func wordsAndMore(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return fmt.Errorf("it takes %s or more, not %d", count(names), len(args))
		}
		for i, s := range args {
			if err := word(names[min(i, len(names)-1)], s); err != nil {
				return err
			}
		}
		return nil
	}
}

func count(names []string) string {
	switch len(names) {
	case 0:
		return "no argument"
	case 1:
		return "one argument, " + names[0]
	}
	return fmt.Sprintf("%d arguments, %s", len(names), strings.Join(names, " "))
}

func word(name, s string) error {
	switch {
	case strings.Trim(s, ".") == "":
		return fmt.Errorf("%s: %q names nothing", name, text.CleanN(s, 20))
	case len(s) > 512:
		return fmt.Errorf("%s: it has %d octets; allowed are at most 512", name, len(s))
	}
	return nil
}

// given is a pointer to the value of a flag that was given, else nil.
func given[T any](f *pflag.FlagSet, name string, v T) *T {
	if !f.Changed(name) {
		return nil
	}
	return &v
}

// parseWhen reads a time as people write one: RFC 3339, a date, a date and a time
// (both local), or how long ago or ahead it is ("90m", "7d").
func parseWhen(s string, now time.Time, ahead bool) (time.Time, error) {
	fail := fmt.Errorf("%q is no time; allowed are 2026-12-01, \"2026-12-01 08:00\", 2026-12-01T08:00:00Z, or a distance such as 90m or 7d", text.CleanN(s, 40))
	if len(s) == 0 || len(s) > 64 {
		return time.Time{}, fail
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	d, err := text.ParseDuration(s)
	if err != nil || d < 0 {
		return time.Time{}, fail
	}
	if ahead {
		return now.Add(d), nil
	}
	return now.Add(-d), nil
}

// whenFlag is a flag that holds a time.
type whenFlag struct {
	now   func() time.Time
	ahead bool
	t     time.Time
}

func (w *whenFlag) String() string {
	if w.t.IsZero() {
		return ""
	}
	return w.t.Format(time.RFC3339)
}

func (w *whenFlag) Set(s string) (err error) {
	w.t, err = parseWhen(s, w.now(), w.ahead)
	return err
}

func (*whenFlag) Type() string { return "time" }

// parseSettings makes the JSON object of settings from words such as "window=4h",
// "scopes=logon,remote" or "software_vault=false". Which values are right is the
// server's business; here only the form follows the setting's type. All mistakes
// are told at once.
func parseSettings(args []string) (json.RawMessage, error) {
	if len(args) == 0 {
		return nil, nil
	}
	kinds := settingKinds()
	out := map[string]json.RawMessage{}
	var bad []error
	for _, s := range args {
		name, value, ok := strings.Cut(s, "=")
		name = strings.ReplaceAll(strings.TrimSpace(name), "-", "_")
		switch {
		case !ok || name == "" || len(name) > 64 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789_") != "":
			bad = append(bad, fmt.Errorf("%q is no SETTING=VALUE", text.CleanN(s, 60)))
			continue
		case !utf8.ValidString(value):
			bad = append(bad, fmt.Errorf("%s: the value is not UTF-8", name))
			continue
		case out[name] != nil:
			bad = append(bad, fmt.Errorf("%s stands twice", text.CleanN(name, 60)))
			continue
		}
		v, err := settingValue(kinds[name], value)
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", text.CleanN(name, 60), err))
			continue
		}
		out[name] = v
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	return json.Marshal(out)
}

// settingKinds gives the form of every setting of a policy.
func settingKinds() map[string]reflect.Type {
	out := map[string]reflect.Type{}
	t := reflect.TypeFor[policy.Policy]()
	for i := range t.NumField() {
		name, opts, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if !slices.Contains(strings.Split(opts, ","), "omitempty") { // those are not settings, but stand beside them
			out[name] = t.Field(i).Type
		}
	}
	return out
}

// settingValue writes a word as JSON of the kind; what does not fit goes on as text,
// so that the server's one answer names every fault.
func settingValue(t reflect.Type, s string) (json.RawMessage, error) {
	s = strings.TrimSpace(s)
	if len(s) > policy.MaxBody {
		return nil, fmt.Errorf("the value has %d octets; allowed are at most %d", len(s), policy.MaxBody)
	}
	one := func(t reflect.Type, s string) (json.RawMessage, error) {
		if t != nil && t.Kind() != reflect.String && t != reflect.TypeFor[policy.Duration]() && t.Kind() != reflect.Struct {
			if json.Valid([]byte(s)) && !strings.ContainsAny(s, "\"[{") && s != "null" {
				return json.RawMessage(s), nil
			}
		}
		return json.Marshal(s)
	}
	if t == nil || t.Kind() != reflect.Slice {
		return one(t, s)
	}
	list := []json.RawMessage{}
	if s != "" && s != "none" {
		for part := range strings.SplitSeq(s, ",") {
			v, err := one(t.Elem(), strings.TrimSpace(part))
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
	}
	return json.Marshal(list)
}
