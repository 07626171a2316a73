package rules

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"latchkey/internal/policy"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// kind is how a setting is asked for.
type kind int

const (
	whole    kind = iota // a whole number
	span                 // a duration
	yes                  // a box to tick
	some                 // several of a few words
	one                  // one of a few words
	numbers              // a list of whole numbers, one a line
	entries              // a list of texts, one a line
	ordered              // several of a few words, whose order counts
	maxLines = 1000
)

// field is one setting of a policy as people see it.
type field struct {
	name    string // as in JSON
	part    int    // which group of the form it stands in
	kind    kind
	options []ui.Option
}

func (f field) label() string { return words.Settings[f.name].Label }
func (f field) hint() string  { return words.Settings[f.name].Hint }

func scopeOptions() []ui.Option {
	var out []ui.Option
	for _, s := range policy.Scopes {
		out = append(out, ui.Option{Value: string(s), Label: words.ScopeNames[string(s)], Hint: words.ScopeHints[string(s)]})
	}
	return out
}

func factorOptions(kinds []policy.Factor) []ui.Option {
	var out []ui.Option
	for _, k := range kinds {
		out = append(out, ui.Option{Value: string(k), Label: words.PolicyFactors[string(k)], Hint: words.PolicyFactorHints[string(k)]})
	}
	return out
}

func optionsOf(setting string, values ...string) []ui.Option {
	var out []ui.Option
	for _, v := range values {
		w := words.SettingOptions[setting+"="+v]
		out = append(out, ui.Option{Value: v, Label: w.Label, Hint: w.Hint})
	}
	return out
}

// The parts of the form.
const (
	partWhen = iota
	partFactors
	partOffline
	partWindow
	partTrust
	partFailures
	partEnrol
	parts
)

// fields are all settings in the order of the form. A test proves that none is missing.
var fields = []field{
	{"scopes", partWhen, some, scopeOptions()},
	{"factors_online", partFactors, whole, nil},
	{"online_factors", partFactors, ordered, factorOptions(policy.Kinds)},
	{"key_verification", partFactors, yes, nil},
	{"push_verification", partFactors, yes, nil},
	{"factors_offline", partOffline, whole, nil},
	{"offline_factors", partOffline, ordered, factorOptions(policy.OfflineKinds)},
	{"offline", partOffline, one, optionsOf("offline", "mfa", "mfa_or_bypass", "bypass", "deny")},
	{"offline_enrol", partOffline, one, optionsOf("offline_enrol", "auto", "ask", "off")},
	{"offline_days", partOffline, whole, nil},
	{"offline_signins", partOffline, whole, nil},
	{"offline_tries", partOffline, whole, nil},
	{"software_vault", partOffline, yes, nil},
	{"window", partWindow, span, nil},
	{"window_silences", partWindow, some, scopeOptions()},
	{"window_ends_on", partWindow, some, optionsOf("window_ends_on", "logoff", "reboot", "network", "offline-signin")},
	{"force_disconnect_after", partWindow, span, nil},
	{"trusted_networks", partTrust, entries, nil},
	{"trusted_scopes", partTrust, some, scopeOptions()},
	{"exempt_uids", partTrust, numbers, nil},
	{"exempt_sids", partTrust, entries, nil},
	{"backoff_after", partFailures, whole, nil},
	{"lockout_after", partFailures, whole, nil},
	{"lockout_for", partFailures, span, nil},
	{"enrol_at_signin", partEnrol, yes, nil},
	{"enrol_remote", partEnrol, yes, nil},
	{"report_only", parts, yes, nil},
}

func fieldOf(name string) (field, bool) {
	i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
	if i < 0 {
		return field{}, false
	}
	return fields[i], true
}

// labelOf names a field of a difference.
func labelOf(name string) string {
	if f, ok := fieldOf(name); ok {
		return f.label()
	}
	switch name {
	case "name":
		return words.EditName
	case "priority":
		return words.EditPriority
	case "groups":
		return words.EditGroups
	}
	return name
}

// raw gives the values of the form for a setting.
func (f field) raw(v json.RawMessage) []string {
	switch f.kind {
	case yes:
		if string(v) == "true" {
			return []string{"on"}
		}
		return nil
	case some, ordered:
		var list []string
		_ = json.Unmarshal(v, &list)
		return list
	case numbers, entries:
		var list []any
		dec := json.NewDecoder(strings.NewReader(string(v)))
		dec.UseNumber()
		_ = dec.Decode(&list)
		lines := make([]string, len(list))
		for i, x := range list {
			lines[i] = fmt.Sprint(x)
		}
		return []string{strings.Join(lines, "\n")}
	}
	var s string
	if json.Unmarshal(v, &s) == nil {
		if f.kind == span {
			s = short(s)
		}
		return []string{s}
	}
	return []string{string(v)}
}

// short writes "8h0m0s" as "8h".
func short(s string) string {
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// value reads the values of the form; fault says what is wrong with them.
func (f field) value(in []string) (v json.RawMessage, fault string) {
	last := ""
	if len(in) > 0 {
		last = strings.TrimSpace(in[len(in)-1])
	}
	var x any
	switch f.kind {
	case whole:
		n, err := strconv.Atoi(last)
		if err != nil {
			return nil, words.FaultNumber
		}
		x = n
	case yes:
		x = last != ""
	case some, ordered:
		list := []string{}
		for _, o := range f.options { // in their order
			if slices.Contains(in, o.Value) {
				list = append(list, o.Value)
			}
		}
		for _, w := range in {
			if !slices.ContainsFunc(f.options, func(o ui.Option) bool { return o.Value == w }) {
				list = append(list, w) // the rules say what is wrong with it
			}
		}
		x = list
	case numbers:
		list := []int64{}
		for _, l := range lines(last) {
			n, err := strconv.ParseInt(l, 10, 64)
			if err != nil {
				return nil, words.FaultNumbers(l)
			}
			list = append(list, n)
		}
		x = list
	case entries:
		x = lines(last)
	case span:
		s := strings.ReplaceAll(last, " ", "")
		if s == "0" || s == "" {
			s = "0s"
		}
		x = s
	default:
		x = last
	}
	b, err := json.Marshal(x)
	if err != nil {
		return nil, words.FaultNumber
	}
	return b, ""
}

// lines are those of a text that are not empty, without blanks around them.
func lines(s string) []string {
	out := []string{}
	for l := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '\n' || r == '\r' || r == ',' || r == ';' }) {
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
		if len(out) > maxLines {
			break
		}
	}
	return out
}

// settingText is the value of a setting for people.
func settingText(name string, v json.RawMessage) string {
	f, ok := fieldOf(name)
	if !ok {
		var list []string
		var s string
		switch {
		case json.Unmarshal(v, &list) == nil:
			return orNone(strings.Join(list, ", "))
		case json.Unmarshal(v, &s) == nil:
			return orNone(s)
		}
		return string(v)
	}
	raw := f.raw(v)
	switch f.kind {
	case yes:
		if len(raw) > 0 {
			return words.SettingYes
		}
		return words.SettingNo
	case some, ordered, one:
		var out []string
		for _, w := range raw {
			label := w
			for _, o := range f.options {
				if o.Value == w {
					label = o.Label
				}
			}
			out = append(out, label)
		}
		return orNone(strings.Join(out, ", "))
	case numbers, entries:
		return orNone(strings.ReplaceAll(strings.Join(raw, ""), "\n", ", "))
	case span:
		if s := strings.Join(raw, ""); s != "0s" {
			return s
		}
		return words.SettingZero[name]
	}
	return strings.Join(raw, "") + words.SettingUnits[name]
}

func orNone(s string) string {
	if s == "" {
		return words.None
	}
	return s
}

// draft is a policy as it stands in the form.
type draft struct {
	Name     string
	Priority string
	Groups   []string
	Comment  string
	Values   map[string][]string // of settings, as the form has them
	Default  bool
}

// draftOf fills the form with a policy.
func draftOf(name string, priority int64, groups []string, settings json.RawMessage, isDefault bool) draft {
	d := draft{Name: name, Priority: number(priority), Groups: groups, Values: map[string][]string{}, Default: isDefault}
	var all map[string]json.RawMessage
	_ = json.Unmarshal(settings, &all)
	for _, f := range fields {
		d.Values[f.name] = f.raw(all[f.name])
	}
	return d
}

// draftFrom reads the form that was sent.
func draftFrom(v url.Values, isDefault bool) draft {
	d := draft{
		Name: strings.TrimSpace(v.Get("name")), Priority: strings.TrimSpace(v.Get("priority")), Comment: strings.TrimSpace(v.Get("comment")),
		Values: map[string][]string{}, Default: isDefault,
	}
	for _, g := range v["groups"] {
		d.Groups = append(d.Groups, lines(g)...)
	}
	for _, f := range fields {
		d.Values[f.name] = v[f.name]
	}
	return d
}

// settings is the JSON of what was filled in; faults are by field.
func (d draft) settings(faults map[string]string) json.RawMessage {
	out := map[string]json.RawMessage{}
	for _, f := range fields {
		v, fault := f.value(d.Values[f.name])
		if fault != "" {
			faults[f.name] = fault
			continue
		}
		out[f.name] = v
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil
	}
	return b
}

func (d draft) first(name string) string {
	if v := d.Values[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

func (d draft) has(name, word string) bool { return slices.Contains(d.Values[name], word) }

// hidden are all fields, for a page on which they are not to be seen.
func (d draft) hidden() [][2]string {
	out := [][2]string{{"name", d.Name}, {"priority", d.Priority}}
	for _, g := range d.Groups {
		out = append(out, [2]string{"groups", g})
	}
	for _, f := range fields {
		for _, v := range d.Values[f.name] {
			out = append(out, [2]string{f.name, v})
		}
	}
	return out
}

// labels name the fields in the summary of what is wrong.
func labels() map[string]string {
	out := map[string]string{"name": words.EditName, "priority": words.EditPriority, "groups": words.EditGroups, "comment": words.EditComment}
	for _, f := range fields {
		out[f.name] = f.label()
	}
	return out
}
