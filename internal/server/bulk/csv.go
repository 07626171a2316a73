package bulk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
)

// The bounds of a file.
const (
	MaxBytes   = 64 << 20
	MaxRows    = 200_000
	MaxColumns = 64
	maxCell    = 4 << 10
	maxRecord  = 64 << 10
)

// record is one row of a file or of a query.
type record struct {
	line  int64
	cells []string
	// bad is what makes the row unreadable, and in which column (from 1; 0: all of it).
	bad    string
	column int
}

var errTooLong = errors.New("the file is too large")

// table reads a file of RFC 4180: cells between separators, quoted where they hold
// separators, line ends or quotation marks (doubled). What is wrong with a row is
// said of that row, and reading goes on behind it. A cell, a row and the file are
// bounded.
type table struct {
	r     *bufio.Reader
	comma byte
	line  int64 // where the reader stands
	read  *counter
}

// counter counts what was read, and stops at a limit.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	if c.n > MaxBytes {
		return 0, errTooLong
	}
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// newTable looks at the beginning of a file: byte order mark, a line "sep=;" as
// spreadsheets write it, and which separator it uses.
func newTable(r io.Reader) (*table, error) {
	c := &counter{r: r}
	b := bufio.NewReaderSize(c, maxRecord)
	mark, err := b.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(mark, []byte("\xef\xbb\xbf")):
		_, _ = b.Discard(3)
	case bytes.HasPrefix(mark, []byte("\xff\xfe")), bytes.HasPrefix(mark, []byte("\xfe\xff")):
		wide := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewDecoder()
		b = bufio.NewReaderSize(transform.NewReader(b, wide), maxRecord)
	}
	t := &table{r: b, line: 1, read: c, comma: ','}
	head, err := b.Peek(maxCell)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if first, _, _ := bytes.Cut(head, []byte("\n")); len(first) < 8 && bytes.HasPrefix(bytes.ToLower(first), []byte("sep=")) {
		rest := bytes.TrimRight(first[4:], "\r")
		if len(rest) != 1 || !bytes.Contains([]byte(",;\t"), rest) {
			return nil, errors.New("the first line names a separator that is none; allowed are comma, semicolon and tab")
		}
		t.comma = rest[0]
		_, _ = b.Discard(min(len(first)+1, len(head)))
		t.line++
		return t, nil
	}
	t.comma = separator(head)
	return t, nil
}

// separator is the one with which the first line holds the most names of columns
// that are known, then the most cells.
func separator(head []byte) byte {
	first, _, _ := bytes.Cut(head, []byte("\n"))
	best, most := byte(','), -1
	for _, c := range []byte(",;\t") {
		score := 0
		cells := strings.Split(strings.TrimRight(string(first), "\r"), string(c))
		for _, s := range cells {
			if _, ok := columnOf(strings.Trim(s, `" `)); ok {
				score += 1000
			}
		}
		if score += len(cells); score > most {
			best, most = c, score
		}
	}
	return best
}

func (t *table) header() ([]string, error) {
	rec, err := t.next()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("the file is empty; allowed is a first line with the names of columns, and a line for every user")
	case err != nil:
		return nil, err
	case rec.bad != "":
		return nil, fmt.Errorf("line %d: %s", rec.line, rec.bad)
	}
	return rec.cells, nil
}

const (
	badQuote  = `a quotation mark stands inside a cell; allowed are cells that are quoted whole, with quotation marks doubled`
	badOpen   = `a quotation mark is not closed`
	badBytes  = `it is not UTF-8; save the file as UTF-8 ("CSV UTF-8" in spreadsheets)`
	badNull   = `it holds a NUL`
	badReturn = `a carriage return stands without a line feed`
)

// next reads one row. Empty rows are passed over.
func (t *table) next() (record, error) {
	for {
		rec, err := t.row()
		if err != nil {
			return rec, err
		}
		if rec.bad == "" && !slices.ContainsFunc(rec.cells, func(s string) bool { return strings.TrimSpace(s) != "" }) {
			continue
		}
		return rec, nil
	}
}

func (t *table) row() (record, error) {
	rec := record{line: t.line}
	var cell []byte
	size := 0
	const (
		begin = iota // of a cell
		plain
		quoted
		closed // behind the closing quotation mark
	)
	state := begin
	fail := func(why string) {
		if rec.bad == "" {
			rec.bad, rec.column = why, len(rec.cells)+1
		}
	}
	end := func() {
		switch {
		case !utf8.Valid(cell):
			fail(badBytes)
		case bytes.IndexByte(cell, 0) >= 0:
			fail(badNull)
		}
		if len(rec.cells) < MaxColumns {
			rec.cells = append(rec.cells, string(cell))
		} else {
			fail(fmt.Sprintf("it has more than %d cells", MaxColumns))
		}
		cell = cell[:0]
		state = begin
	}
	begun := false
	for {
		b, err := t.r.ReadByte()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return rec, err
			}
			if !begun {
				return rec, io.EOF
			}
			if state == quoted {
				fail(badOpen)
			}
			end()
			return rec, nil
		}
		begun = true
		if size++; size > maxRecord || len(cell) > maxCell {
			fail(fmt.Sprintf("a cell has more than %d octets, or the row more than %d; is a quotation mark not closed?", maxCell, maxRecord))
			return rec, t.skipLine(b)
		}
		if b == '\n' {
			t.line++
		}
		switch {
		case state == quoted && b != '"':
			cell = append(cell, b)
		case state == quoted:
			state = closed
		case state == closed && b == '"':
			cell = append(cell, b)
			state = quoted
		case b == t.comma:
			end()
		case b == '\n':
			end()
			return rec, nil
		case b == '\r':
			next, err := t.r.Peek(1)
			if err == nil && next[0] == '\n' {
				continue
			}
			if err != nil { // at the very end of the file
				continue
			}
			fail(badReturn)
			return rec, t.skipLine(b)
		case state == closed || b == '"' && state == plain:
			fail(badQuote)
			return rec, t.skipLine(b)
		case b == '"':
			state = quoted
		default:
			cell = append(cell, b)
			state = plain
		}
	}
}

// skipLine goes on behind the end of the line in which b was the last octet read.
func (t *table) skipLine(b byte) error {
	for b != '\n' {
		var err error
		if b, err = t.r.ReadByte(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
	t.line++
	return nil
}

// defuse keeps a spreadsheet from taking a cell for a formula, as whoever wrote it
// may have wished: it gets a quotation mark in front, which spreadsheets hide.
func defuse(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r\n|%", rune(s[0])) {
		return "'" + s
	}
	return s
}

// writeRow writes cells as a line of a file, defused.
func writeRow(w io.Writer, cells ...string) error {
	var b strings.Builder
	for i, c := range cells {
		if i > 0 {
			b.WriteByte(',')
		}
		if c = defuse(c); strings.ContainsAny(c, "\",;\r\n\t") || c != strings.TrimSpace(c) {
			c = `"` + strings.ReplaceAll(c, `"`, `""`) + `"`
		}
		b.WriteString(c)
	}
	b.WriteString("\r\n")
	_, err := io.WriteString(w, b.String())
	return err
}
