package bulk

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
)

// all reads a file; a row that is bad stands as "!why".
func all(t testing.TB, file string) (out []string, err error) {
	r, err := newTable(strings.NewReader(file))
	if err != nil {
		return nil, err
	}
	for {
		rec, err := r.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if rec.bad != "" {
			out = append(out, fmt.Sprintf("%d!%d %s", rec.line, rec.column, rec.bad))
			continue
		}
		out = append(out, fmt.Sprintf("%d %s", rec.line, strings.Join(rec.cells, "|")))
	}
}

func wide(s string, little bool) string {
	var b []byte
	for _, u := range append([]uint16{0xfeff}, utf16.Encode([]rune(s))...) {
		if little {
			b = append(b, byte(u), byte(u>>8))
		} else {
			b = append(b, byte(u>>8), byte(u))
		}
	}
	return string(b)
}

func TestFiles(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		want []string
	}{
		"commas":                      {"name,mail\r\na,b\r\n", []string{"1 name|mail", "2 a|b"}},
		"semicolons":                  {"name;mail\na;b,c", []string{"1 name|mail", "2 a|b,c"}},
		"tabs":                        {"name\tmail\na\tb", []string{"1 name|mail", "2 a|b"}},
		"a separator that is named":   {"sep=;\r\nx,y;z\r\n", []string{"2 x,y|z"}},
		"a byte order mark":           {"\xef\xbb\xbfname,mail\na,b", []string{"1 name|mail", "2 a|b"}},
		"UTF-16 of a spreadsheet":     {wide("name\tmail\r\nañ\tb\r\n", true), []string{"1 name|mail", "2 añ|b"}},
		"UTF-16 the other way":        {wide("name,mail\nañ,b", false), []string{"1 name|mail", "2 añ|b"}},
		"quoted cells":                {"name,mail\n\"a,\"\"b\"\"\nc\",\"\"\nd,e", []string{"1 name|mail", "2 a,\"b\"\nc|", "4 d|e"}},
		"empty lines":                 {"name,mail\n\n,,\n ,\na,b\n\n", []string{"1 name|mail", "5 a|b"}},
		"a quotation mark inside":     {"name,mail\na,b\"c\nd,e", []string{"1 name|mail", "2!2 " + badQuote, "3 d|e"}},
		"text behind a quoted cell":   {"name,mail\n\"a\"x,b\nd,e", []string{"1 name|mail", "2!1 " + badQuote, "3 d|e"}},
		"a quotation mark left open":  {"name,mail\nd,e\n\"a,b\n", []string{"1 name|mail", "2 d|e", "3!1 " + badOpen}},
		"another encoding":            {"name,mail\nM\xfcller,b\nd,e", []string{"1 name|mail", "2!1 " + badBytes, "3 d|e"}},
		"a NUL":                       {"name,mail\nb,a\x00\nd,e", []string{"1 name|mail", "2!2 " + badNull, "3 d|e"}},
		"line ends of another system": {"name,mail\ra,b\r", []string{"1!2 " + badReturn}},
		"no end of line":              {"name", []string{"1 name"}},
		"nothing":                     {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := all(t, c.file)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%q, %v\nwant %q", got, err, c.want)
			}
		})
	}
	for name, file := range map[string]string{
		"a cell that is too long":   "name\n" + strings.Repeat("x", maxCell+2) + "\nok\n",
		"a row that is too long":    "name\n" + strings.Repeat(strings.Repeat("x", 1000)+",", 100) + "\nok\n",
		"too many cells":            "name\n" + strings.Repeat("x,", MaxColumns+1) + "\nok\n",
		"a quotation mark for ever": "name\n\"" + strings.Repeat("x\n", maxCell) + "ok\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := all(t, file)
			if err != nil || len(got) < 2 || !strings.HasPrefix(got[1], "2!") || got[len(got)-1][strings.IndexByte(got[len(got)-1], ' ')+1:] != "ok" {
				t.Errorf("%.300q, %v", got, err)
			}
		})
	}
	if _, err := all(t, "sep=#\nname"); err == nil {
		t.Error("a separator that is none is taken")
	}
	if _, err := all(t, "name\n"+strings.Repeat(strings.Repeat("x", 4000)+"\n", MaxBytes/4001+2)); !errors.Is(err, errTooLong) {
		t.Errorf("a file without end: %v", err)
	}
}

func TestCellsThatBeginLikeFormulas(t *testing.T) {
	var b strings.Builder
	if err := writeRow(&b, "=1+1", "+1", "-1", "@x", "\tx", "|x", "%x", "a=1", "", "x,\"y\"\nz"); err != nil {
		t.Fatal(err)
	}
	if want := "'=1+1,'+1,'-1,'@x,\"'\tx\",'|x,'%x,a=1,,\"x,\"\"y\"\"\nz\"\r\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestEveryFaultOfARowIsSaidWithItsPlace(t *testing.T) {
	for name, c := range map[string]struct{ head, row, want string }{
		"no name":               {"name,mail", ",x@y.org", "1 name it is missing"},
		"too few cells":         {"name,mail", "x", "it has 1 cells"},
		"too many cells":        {"name,mail", "x,y,z", "it has 3 cells"},
		"a role":                {"name,role", "x,king", "2 role \"king\" is not allowed"},
		"2FA":                   {"name,2fa", "x,maybe", "2 mfa \"maybe\" is not allowed"},
		"an activation":         {"name,activation", "x,soon", "2 activation \"soon\" is not allowed"},
		"a time":                {"name,activate_at", "x,tomorrow", "2 activate_at \"tomorrow\" is no time"},
		"a number":              {"name,uid", "x,-7", "2 uid \"-7\" is no account number"},
		"a number with a dot":   {"name,uid", "x,1.5", "2 uid"},
		"yes or no":             {"name,disabled", "x,perhaps", "2 disabled \"perhaps\" is not allowed"},
		"a column without name": {"name,", "x,y", "2  the cell's column has no name"},
		"too many groups":       {"name,groups", "x," + strings.Repeat("a%d|", 0) + manyGroups(), "2 groups it names 101 groups"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := layoutOf(strings.Split(c.head, ","), false)
			if err != nil {
				t.Fatal(err)
			}
			_, faults := l.read(record{line: 7, cells: strings.Split(c.row, ",")}, false)
			if len(faults) != 1 || faults[0].Line != 7 || !strings.Contains(fmt.Sprintf("%d %s %s", faults[0].Column, faults[0].Field, faults[0].Fault), c.want) {
				t.Errorf("%+v", faults)
			}
		})
	}
	for head, want := range map[string]string{
		"name,shoe size,mail": `"shoe size"`, "mail": "no column", "name,mail,e-mail": "twice",
	} {
		if _, err := layoutOf(strings.Split(head, ","), false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", head, err)
		}
	}
	l, err := layoutOf([]string{"E-Mail", "shoe size", "User Name"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if in, faults := l.read(record{line: 2, cells: []string{"a@b.org", "38", " anna "}}, true); len(faults) > 0 || in.Name != "anna" || *in.Mail != "a@b.org" {
		t.Errorf("%+v %+v", in, faults)
	}
}

func manyGroups() string {
	var out []string
	for i := range maxGroups + 1 {
		out = append(out, fmt.Sprint("g", i))
	}
	return strings.Join(out, "|")
}

// FuzzCSV: whatever a file holds, reading ends, cells are bounded, and what the
// standard library reads is read the same.
func FuzzCSV(f *testing.F) {
	f.Add([]byte("name,mail\r\n\"a\"\"b\",c\n"))
	f.Add([]byte("\xef\xbb\xbfname;mail\n\"x\ny\";z\r\n;\n"))
	f.Add([]byte("sep=\t\nname\tmail\n"))
	f.Add([]byte("\xff\xfen\x00,\x00"))
	f.Add([]byte("name\n\"open\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newTable(bytes.NewReader(b))
		if err != nil {
			return
		}
		var got [][]string
		whole := true
		for n := 0; ; n++ {
			rec, err := r.row()
			if err != nil {
				break
			}
			if n > len(b) {
				t.Fatal("more rows than octets")
			}
			if whole = whole && rec.bad == ""; rec.bad == "" {
				for _, c := range rec.cells {
					if len(c) > maxCell+1 {
						t.Fatal("a cell is not bounded")
					}
				}
				if len(rec.cells) > 1 || rec.cells[0] != "" {
					got = append(got, rec.cells)
				}
			}
		}
		if !whole || r.line > 1 && bytes.HasPrefix(bytes.ToLower(b), []byte("sep=")) || bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")) {
			return
		}
		std := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))))
		std.Comma, std.FieldsPerRecord = rune(r.comma), -1
		want, err := std.ReadAll()
		if err != nil {
			return // it is stricter in one thing: a carriage return at the end of the file
		}
		for i := range want { // it turns \r\n inside quotes into \n
			for j := range want[i] {
				want[i][j] = strings.ReplaceAll(want[i][j], "\r\n", "\n")
			}
		}
		for i := range got {
			for j := range got[i] {
				got[i][j] = strings.ReplaceAll(got[i][j], "\r\n", "\n")
			}
		}
		drop := func(rows [][]string) [][]string {
			return slices.DeleteFunc(rows, func(r []string) bool { return len(r) == 1 && r[0] == "" })
		}
		if got, want := fmt.Sprintf("%q", drop(got)), fmt.Sprintf("%q", drop(want)); got != want {
			t.Fatalf("%q:\n%s\n%s", b, got, want)
		}
	})
}
