package text

import (
	"bufio"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Table lays out rows under a head so that they fit a terminal. Columns whose cells are all numbers stand to the
// right. When the rows are too wide, columns without content are left out, the last column goes on in further lines,
// or into a line of its own, and the widest of the others are cut with "…"; but times, ids and types of events, which
// are of no use in part, are never cut. Cells are cleaned on the way in.
type Table struct {
	head []string
	rows [][]string
}

// gap is what separates two columns.
const gap = 2

// NewTable begins a table with the given head, one text per column.
func NewTable(head ...string) *Table {
	t := &Table{head: make([]string, len(head))}
	for i, h := range head {
		t.head[i] = Clean(h)
	}
	return t
}

// Row appends a row. Missing cells are empty, those beyond the head are dropped.
func (t *Table) Row(cells ...string) {
	row := make([]string, len(t.head))
	for i := range row {
		if i < len(cells) {
			row[i] = Clean(cells[i])
		}
	}
	t.rows = append(t.rows, row)
}

// Len returns the number of rows.
func (t *Table) Len() int { return len(t.rows) }

// Write lays the table out for a terminal of width columns; width 0 or less means that nothing is cut (a pipe).
func (t *Table) Write(w io.Writer, width int) error {
	if len(t.head) == 0 {
		return nil
	}
	widths := make([]int, len(t.head))
	right := make([]bool, len(t.head))
	for c, h := range t.head {
		widths[c] = Width(h)
		numbers, filled := true, false
		for _, r := range t.rows {
			widths[c] = max(widths[c], Width(r[c]))
			if r[c] != "" && r[c] != "-" {
				filled = true
				numbers = numbers && isNumber(r[c])
			}
		}
		right[c] = numbers && filled
	}
	columns := make([]int, len(t.head)) // those that are shown
	for c := range columns {
		columns[c] = c
	}
	below := false // the last stands in lines of its own
	if width > 0 && total(widths, columns) > width {
		columns = slices.DeleteFunc(columns, func(c int) bool { return len(t.rows) > 0 && t.blank(c) })
		below = t.fit(widths, columns, width)
	}
	bw := bufio.NewWriter(w)
	for _, r := range append([][]string{t.head}, t.rows...) {
		var line strings.Builder
		for i, c := range columns {
			if i == len(columns)-1 && i > 0 && width > 0 {
				indent := belowIndent
				if !below {
					indent = total(widths, columns[:i]) + gap
				}
				for n, part := range wrap(r[c], widths[c]) {
					if n > 0 || below {
						bw.WriteString(strings.TrimRight(line.String(), " ") + "\n")
						line.Reset()
						line.WriteString(strings.Repeat(" ", indent))
					} else {
						line.WriteString(strings.Repeat(" ", gap))
					}
					if right[c] {
						line.WriteString(strings.Repeat(" ", max(0, widths[c]-Width(part))))
					}
					line.WriteString(part)
				}
				continue
			}
			cell := Cut(r[c], widths[c])
			pad := strings.Repeat(" ", max(0, widths[c]-Width(cell)))
			if i > 0 {
				line.WriteString(strings.Repeat(" ", gap))
			}
			if right[c] {
				line.WriteString(pad + cell)
			} else {
				line.WriteString(cell + pad)
			}
		}
		bw.WriteString(strings.TrimRight(line.String(), " "))
		bw.WriteByte('\n')
	}
	return bw.Flush()
}

const (
	leastLast   = 16 // columns of a terminal that the last column of a table wants beside the others
	leastOther  = 12 // what the others are cut to for that
	belowIndent = 4  // of a last column in a line of its own
)

func total(widths, columns []int) int {
	sum := gap * max(0, len(columns)-1)
	for _, c := range columns {
		sum += widths[c]
	}
	return sum
}

// blank says that a column has no content.
func (t *Table) blank(c int) bool {
	return !slices.ContainsFunc(t.rows, func(r []string) bool { return r[c] != "" && r[c] != "-" })
}

// whole says that a column holds what is of no use in part.
func (t *Table) whole(c int) bool {
	return !t.blank(c) && !slices.ContainsFunc(t.rows, func(r []string) bool {
		return r[c] != "" && r[c] != "-" && !isNumber(r[c]) && !uncut.MatchString(r[c])
	})
}

// uncut is a time, an id, or the type of an event.
var uncut = regexp.MustCompile(`^(([0-9]{4}-)?[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}(:[0-9]{2})?|[a-z]{2,4}_[0-9a-f-]{20,}|[a-z]+(\.[a-z-]+)+)$`)

// fit makes the widths of these columns fit, and says whether the last must go into
// lines of its own.
func (t *Table) fit(widths, columns []int, width int) (below bool) {
	if total(widths, columns) <= width || len(columns) < 2 {
		return false
	}
	last := columns[len(columns)-1]
	others := columns[:len(columns)-1]
	var cuttable []int
	for _, c := range others {
		if !t.whole(c) {
			cuttable = append(cuttable, c)
		}
	}
	need := min(widths[last], leastLast)
	if t.whole(last) {
		need = widths[last]
	}
	tried := slices.Clone(widths)
	shrink(tried, cuttable, leastOther, func() bool { return total(tried, others)+gap+need <= width })
	if room := width - total(tried, others) - gap; room >= need {
		copy(widths, tried)
		widths[last] = min(widths[last], room)
		return false
	}
	shrink(widths, cuttable, 3, func() bool { return total(widths, others) <= width })
	widths[last] = max(leastLast, width-belowIndent)
	return true
}

// shrink takes from the widest of these columns, down to least, until it is enough. A
// terminal that is too narrow even for that gets lines that it wraps itself.
func shrink(widths, columns []int, least int, enough func() bool) {
	for !enough() {
		widest := -1
		for _, c := range columns {
			if widths[c] > least && (widest < 0 || widths[c] > widths[widest]) {
				widest = c
			}
		}
		if widest < 0 {
			return
		}
		widths[widest]--
	}
}

// wrap breaks s into lines of at most n columns, at blanks; a word that is longer stands
// over, because it may be an id. It is at least one line.
func wrap(s string, n int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		if line != "" && Width(line)+1+Width(word) > n {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// isNumber accepts what people put into a column of numbers: digits with a sign, a decimal point, a percent sign.
func isNumber(s string) bool {
	s = strings.TrimPrefix(s, "-")
	s = strings.TrimSuffix(s, "%")
	digits := 0
	for _, r := range s {
		switch {
		case '0' <= r && r <= '9':
			digits++
		case r == '.' || r == ',':
		default:
			return false
		}
	}
	return digits > 0
}

// Cut shortens s to at most n columns of a terminal; a shortened text ends with "…".
func Cut(s string, n int) string {
	if Width(s) <= n {
		return s
	}
	if n <= 0 {
		return ""
	}
	w := 0
	for i, r := range s {
		if w+runeWidth(r) > n-1 {
			return s[:i] + "…"
		}
		w += runeWidth(r)
	}
	return s
}

// Width returns how many columns of a terminal s takes.
func Width(s string) int {
	w := 0
	for _, r := range s {
		w += runeWidth(r)
	}
	return w
}

// wide holds what terminals draw two columns wide (Unicode East Asian Width W and F, in coarse ranges).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115F, 1},
		{0x2E80, 0x303E, 1},
		{0x3041, 0x33FF, 1},
		{0x3400, 0x4DBF, 1},
		{0x4E00, 0x9FFF, 1},
		{0xA000, 0xA4CF, 1},
		{0xAC00, 0xD7A3, 1},
		{0xF900, 0xFAFF, 1},
		{0xFE30, 0xFE6F, 1},
		{0xFF00, 0xFF60, 1},
		{0xFFE0, 0xFFE6, 1},
	},
	R32: []unicode.Range32{{0x1F300, 0x1F64F, 1}, {0x1F680, 0x1F6FF, 1}, {0x1F900, 0x1F9FF, 1}, {0x20000, 0x3FFFD, 1}},
}

func runeWidth(r rune) int {
	switch {
	case r < utf8.RuneSelf:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me) || Invisible(r):
		return 0
	case unicode.Is(wide, r):
		return 2
	default:
		return 1
	}
}
