package text

import (
	"bufio"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Table lays out rows under a head so that they fit a terminal. Columns whose cells are all numbers stand to the
// right; when the rows are too wide the widest columns are cut with "…". Cells are cleaned on the way in.
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
	if width > 0 {
		shrink(widths, width-gap*(len(widths)-1))
	}
	bw := bufio.NewWriter(w)
	for _, r := range append([][]string{t.head}, t.rows...) {
		var line strings.Builder
		for c, cell := range r {
			cell = Cut(cell, widths[c])
			pad := strings.Repeat(" ", max(0, widths[c]-Width(cell)))
			if c > 0 {
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

// shrink takes from the widest columns until they fit into total. A column keeps at least three columns, so that
// something can be read; a terminal that is too narrow even for that gets lines that wrap.
func shrink(widths []int, total int) {
	for {
		sum, widest := 0, 0
		for c, w := range widths {
			sum += w
			if w > widths[widest] {
				widest = c
			}
		}
		if sum <= total || widths[widest] <= 3 {
			return
		}
		widths[widest]--
	}
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
