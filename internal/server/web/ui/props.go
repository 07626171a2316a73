package ui

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/a-h/templ"
)

// FieldProps describes an input of one line (Field) or of several (Textarea).
type FieldProps struct {
	Name, Label string
	Value       string
	Hint        string // below the label
	Fault       string // what is wrong: Faults(err)[Name]
	Type        string // of the input; empty is "text"
	Auto        string // autocomplete; empty is "off"
	Mode        string // inputmode
	Max         int    // maxlength, 0 = none
	Rows        int    // of a Textarea, 0 = 4
	Required    bool
	Focus       bool // takes the focus when the page opens; once per page
	Mono        bool // in a fixed pitch: codes, addresses
	ReadOnly    bool
	// HideLabel leaves the label to screen readers: for a filter whose place says it.
	HideLabel bool
	Attrs     templ.Attributes // what else stands at the input: hx-*, list, min, …
}

// Option is one choice.
type Option struct{ Value, Label, Hint string }

// Options makes options whose labels are their values.
func Options(values ...string) []Option {
	out := make([]Option, len(values))
	for i, v := range values {
		out[i] = Option{Value: v, Label: v}
	}
	return out
}

// SelectProps describes a choice among options: Select (a list) or Radios (all to be
// seen, with their hints).
type SelectProps struct {
	Name, Label string
	Value       string
	Options     []Option
	Hint, Fault string
	Required    bool
	HideLabel   bool
	Attrs       templ.Attributes
}

// CheckProps describes a box to tick. Value is what is sent when it is ticked; empty
// is "on".
type CheckProps struct {
	Name, Label, Value string
	Hint, Fault        string
	Checked            bool
	Attrs              templ.Attributes
}

// ButtonProps describes a button or, with Path, a link that looks like one.
type ButtonProps struct {
	Label string
	Kind  string // "primary", "danger", "quiet"; empty is plain
	Path  string
	Icon  string
	Name  string // of the field that it sends
	Value string
	Type  string // empty is "submit"
	Small bool
	Attrs templ.Attributes
}

// FormProps describes a form. Faults fill the summary at its head; the fields show
// theirs themselves.
type FormProps struct {
	Action string
	Method string // empty is "post"
	Faults map[string]string
	Labels map[string]string // field → label, for the summary; a field without one is named as it is
	Wrong  string            // head of the summary; empty: words.ErrorSummary
	Multi  bool              // multipart/form-data: for files
	Inline bool              // fields side by side: filters
	ID     string
	Attrs  templ.Attributes
}

// TableProps describes a table. On a phone each row is a card, in which every cell
// names its column: use Cell with the same labels.
type TableProps struct {
	Caption string // for screen readers; says what the rows are
	Cols    []Col
	ID      string // of the body, for htmx and Follow
	// Follow is the address of a stream of new rows (Request.Stream); empty: none.
	Follow string
	Plain  bool // rows are not to be opened
}

// Col is the head of a column.
type Col struct {
	Label string
	Num   bool   // numbers: to the right
	Sort  string // address that sorts by it; empty: fixed
	Dir   string // "ascending", "descending" when sorted by it now
	Quiet bool   // the label is for screen readers alone (actions)
}

// Cols makes columns from labels.
func Cols(labels ...string) []Col {
	out := make([]Col, len(labels))
	for i, l := range labels {
		out[i] = Col{Label: l}
	}
	return out
}

// Pair is a line of a Facts list.
type Pair struct {
	Term string
	Body templ.Component
}

// ConfirmProps describes an action that is asked about before it is done.
type ConfirmProps struct {
	ID     string // unique on the page
	Label  string // of the button that opens it
	Title  string
	Text   string
	Kind   string // of the buttons; empty is "danger"
	Action string // where the form goes
	Button string // of the button that does it; empty is Label
	Icon   string
	Small  bool
	Fields map[string]string // hidden fields
	Faults map[string]string
	Open   bool // it stands open when the page is shown: after a fault
	Attrs  templ.Attributes
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func buttonClass(p ButtonProps) string {
	return join("button", p.Kind, when(p.Small, "small"))
}

// faultList is the summary of a form in the order of the fields' names, what belongs to
// no field first.
type faultLine struct{ field, label, text string }

func faultList(p FormProps) []faultLine {
	var out []faultLine
	for _, name := range sorted(p.Faults) {
		out = append(out, faultLine{name, or(p.Labels[name], name), p.Faults[name]})
	}
	return out
}

// closed ends with one full stop.
func closed(s string) string {
	if s == "" || strings.HasSuffix(s, ".") || strings.HasSuffix(s, "?") || strings.HasSuffix(s, "!") {
		return s
	}
	return s + "."
}

func sentence(s string) string {
	if s == "" {
		return ""
	}
	return closed(strings.ToUpper(s[:1]) + s[1:])
}

// checkKey tells boxes of one name apart by their values.
func checkKey(p CheckProps) string {
	if p.Value == "" {
		return p.Name
	}
	return p.Name + "-" + strings.Map(idRune, p.Value)
}

func checkID(p CheckProps) string { return fieldID(checkKey(p)) }

// Count0 writes a number for programs.
func Count0(n int64) string { return strconv.FormatInt(n, 10) }

// picture is what a drawing may hold: shapes, their sizes and a label. No script, no
// address, no handler.
var picture = regexp.MustCompile(`^<svg(\s[^<>]*)?>(</?(svg|title|desc|g|path|rect|circle)(\s[^<>]*)?/?>|[^<>])*</svg>\s*$`)

var handler = regexp.MustCompile(`(?i)\son[a-z]+\s*=|\sstyle\s*=|href|url\(`)

var quoted = regexp.MustCompile(`"[^"]*"`)

func isPicture(s string) bool {
	return picture.MatchString(s) && !handler.MatchString(quoted.ReplaceAllString(s, `""`))
}
