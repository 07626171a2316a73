package bulk

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/text"
)

// column is a column that is known.
type column struct {
	name    string
	also    []string // other names for it
	example string
	help    string
	read    func(in *input, cell string) (fault string)
}

// nothing is the cell that empties a setting; an empty cell leaves it as it is.
const nothing = "-"

// input is what a row says. What it does not say is nil, and stays as it is. It is
// kept until the import is over; the password is not.
type input struct {
	Name        string     `json:"name,omitempty"`
	DisplayName *string    `json:"display_name,omitempty"`
	Mail        *string    `json:"mail,omitempty"`
	Groups      *[]string  `json:"groups,omitempty"` // exactly these
	AddGroups   []string   `json:"add_groups,omitempty"`
	Role        *string    `json:"role,omitempty"`
	MFA         *string    `json:"mfa,omitempty"`
	Activation  *string    `json:"activation,omitempty"`
	ActivateAt  *time.Time `json:"activate_at,omitempty"`
	UID         *int64     `json:"uid,omitempty"` // -1: none
	Disabled    *bool      `json:"disabled,omitempty"`
	MustChange  *bool      `json:"must_change,omitempty"`
	Code        *bool      `json:"code,omitempty"`

	password secret.Bytes
	columns  map[string]int // of the cells that say something, from 1
}

// columns are all that a file or query may have.
var columns = []column{
	{"name", []string{"user", "username", "user_name", "login"}, "jane.doe", "How the user signs in, exactly. The one column that must be there.", func(in *input, s string) string {
		in.Name = s
		return ""
	}},
	{"display_name", []string{"displayname", "full_name"}, "Jane Doe", "Name for people.", func(in *input, s string) string {
		in.DisplayName = line(s)
		return ""
	}},
	{"mail", []string{"email", "e_mail", "mail_address"}, "jane.doe@example.org", "Mail address.", func(in *input, s string) string {
		in.Mail = line(s)
		return ""
	}},
	{"groups", []string{"group"}, "Sales|Berlin", "The user's groups, exactly these, with | between them.", func(in *input, s string) string {
		list, fault := groupList(s)
		in.Groups = &list
		return fault
	}},
	{"add_groups", []string{"add_group"}, "", "Groups that the user is put into beside those that are there already.", func(in *input, s string) string {
		list, fault := groupList(s)
		in.AddGroups = list
		return fault
	}},
	{"role", nil, "none", "none, auditor, helpdesk or administrator; only below your own.", func(in *input, s string) string {
		in.Role = &s
		return oneOf(s, rest.Roles)
	}},
	{"mfa", []string{"2fa"}, "inherit", "on, off, or inherit from the groups.", func(in *input, s string) string {
		in.MFA = &s
		return oneOf(s, rest.MFASettings)
	}},
	{"activation", nil, "now", "now, first-login, or a time such as 2026-12-01T08:00:00Z.", func(in *input, s string) string {
		if slices.Contains(rest.Activations, s) {
			in.Activation = &s
			return ""
		}
		if readTime(in, s) != "" {
			return fmt.Sprintf("%q is not allowed; allowed are now, first-login, and times such as 2026-12-01T08:00:00Z", text.CleanN(s, 64))
		}
		return ""
	}},
	{"activate_at", nil, "", "The same time, in a column of its own.", readTime},
	{"uid", []string{"uid_number", "account_number"}, "", "Account number on the machines.", func(in *input, s string) string {
		n := int64(-1)
		if s != nothing {
			var err error
			if n, err = strconv.ParseInt(s, 10, 64); err != nil || n < 0 {
				return fmt.Sprintf("%q is no account number; allowed are 0 to 4294967294", text.CleanN(s, 64))
			}
		}
		in.UID = &n
		return ""
	}},
	{"disabled", nil, "no", "yes or no.", func(in *input, s string) string { return yesNo(&in.Disabled, s) }},
	{"must_change", nil, "yes", "Whether the password must be changed at the first sign-in: yes or no. Only of new users.", func(in *input, s string) string { return yesNo(&in.MustChange, s) }},
	{"password", nil, "", "First password. Only of new users, and of at most " + strconv.Itoa(maxPasswords) + " in one import.", func(in *input, s string) string {
		in.password = secret.FromString(s)
		return ""
	}},
	{"code", []string{"enrolment_code", "enrol_code"}, "yes", "Whether an enrolment code is made: yes or no. Only of new users.", func(in *input, s string) string { return yesNo(&in.Code, s) }},
}

// columnOf finds a column by a name as people write it.
func columnOf(name string) (column, bool) {
	name = strings.NewReplacer(" ", "_", "-", "_", ".", "_").Replace(strings.ToLower(strings.TrimSpace(name)))
	for _, c := range columns {
		if c.name == name || slices.Contains(c.also, name) {
			return c, true
		}
	}
	return column{}, false
}

// ColumnHelp is a column as pages explain it.
type ColumnHelp struct{ Name, Help, Example string }

// Columns lists what a file or query may have.
func Columns() []ColumnHelp {
	var out []ColumnHelp
	for _, c := range columns {
		out = append(out, ColumnHelp{c.name, c.help, c.example})
	}
	return out
}

func columnNames() string {
	var out []string
	for _, c := range columns {
		out = append(out, c.name)
	}
	return strings.Join(out, ", ")
}

// layout is which column stands where; a zero column is left out.
type layout []column

// layoutOf reads the header.
func layoutOf(header []string, ignoreUnknown bool) (layout, error) {
	var out layout
	var unknown []string
	seen := map[string]bool{}
	for _, name := range header {
		c, ok := columnOf(name)
		switch {
		case !ok && strings.TrimSpace(name) == "":
			// A spreadsheet's empty column: a cell in it is a fault of its row.
		case !ok && !ignoreUnknown:
			unknown = append(unknown, strconv.Quote(text.CleanN(name, 40)))
		case ok && seen[c.name]:
			return nil, fmt.Errorf("the column %q stands there twice", c.name)
		}
		seen[c.name] = ok
		out = append(out, c)
	}
	switch {
	case len(unknown) > 0:
		if len(unknown) > 10 {
			unknown = append(unknown[:10], fmt.Sprintf("and %d more", len(unknown)-10))
		}
		return nil, fmt.Errorf("columns are not known: %s. Known are %s. They can be left out by asking for it", strings.Join(unknown, ", "), columnNames())
	case !seen["name"]:
		return nil, fmt.Errorf("there is no column \"name\" in the first line. Known are %s", columnNames())
	}
	return out, nil
}

func (l layout) names() []string {
	out := []string{}
	for _, c := range l {
		if c.name != "" {
			out = append(out, c.name)
		}
	}
	return out
}

// read reads a row's cells. faults say what could not be understood.
func (l layout) read(rec record, ignoreUnknown bool) (in input, faults []rest.ImportFault) {
	in.columns = map[string]int{}
	if rec.bad != "" {
		f := rest.ImportFault{Line: rec.line, Column: rec.column, Fault: rec.bad}
		if i := rec.column - 1; i >= 0 && i < len(l) {
			f.Field = l[i].name
		}
		return in, []rest.ImportFault{f}
	}
	if len(rec.cells) != len(l) {
		return in, []rest.ImportFault{{Line: rec.line, Fault: fmt.Sprintf("it has %d cells, and the first line has %d; is a separator in a cell that is not quoted?", len(rec.cells), len(l))}}
	}
	for i, s := range rec.cells {
		if s = strings.TrimSpace(s); s == "" {
			continue
		}
		c := l[i]
		if c.read == nil {
			if !ignoreUnknown {
				faults = append(faults, rest.ImportFault{Line: rec.line, Column: i + 1, Fault: "the cell's column has no name in the first line"})
			}
			continue
		}
		in.columns[c.name] = i + 1
		if why := c.read(&in, s); why != "" {
			faults = append(faults, rest.ImportFault{Line: rec.line, Column: i + 1, Field: c.name, Fault: why})
		}
	}
	if in.Name == "" {
		faults = append(faults, rest.ImportFault{Line: rec.line, Column: 1 + slices.IndexFunc(l, func(c column) bool { return c.name == "name" }), Field: "name", Fault: "it is missing"})
	}
	return in, faults
}

func line(s string) *string {
	if s == nothing {
		s = ""
	}
	return &s
}

// groupList reads names with | between them.
func groupList(s string) ([]string, string) {
	list := []string{}
	if s == nothing {
		return list, ""
	}
	for name := range strings.SplitSeq(s, "|") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	if len(list) > maxGroups {
		return nil, fmt.Sprintf("it names %d groups; allowed are at most %d", len(list), maxGroups)
	}
	return list, ""
}

// maxGroups bounds the groups of a row, maxPasswords the rows with a password: each
// costs a tenth of a second and 64 MiB.
const (
	maxGroups    = 100
	maxPasswords = 1000
)

func oneOf(s string, words []string) string {
	if slices.Contains(words, s) {
		return ""
	}
	return fmt.Sprintf("%q is not allowed; allowed are %s", text.CleanN(s, 64), strings.Join(words, ", "))
}

func yesNo(to **bool, s string) string {
	v := false
	switch strings.ToLower(s) {
	case "yes", "true", "1", "y", "t":
		v = true
	case "no", "false", "0", "n", "f":
	default:
		return fmt.Sprintf("%q is not allowed; allowed are yes and no", text.CleanN(s, 64))
	}
	*to = &v
	return ""
}

// readTime reads a time as files and databases write it; without a zone it is UTC.
func readTime(in *input, s string) string {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(form, s); err == nil {
			t = t.UTC().Truncate(time.Microsecond)
			in.ActivateAt = &t
			return ""
		}
	}
	return fmt.Sprintf("%q is no time; allowed are times such as 2026-12-01T08:00:00Z or 2026-12-01", text.CleanN(s, 64))
}
