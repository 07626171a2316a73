package store_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The generated code was made from these files: see ./gen.
func TestTheGeneratedCodeIsFresh(t *testing.T) {
	fresh, err := os.ReadFile("db/FRESH")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(fresh)), "\n")
	inputs := []string{"sqlc.yaml"}
	for _, pattern := range []string{"migrations/*.sql", "queries/*.sql"} {
		found, _ := filepath.Glob(pattern)
		if len(found) == 0 {
			t.Errorf("no %s", pattern)
		}
		inputs = append(inputs, found...)
	}
	var want []string
	for _, name := range inputs {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%x  %s", sha256.Sum256(b), name))
	}
	if got := strings.Join(lines[1:], "\n"); got != strings.Join(want, "\n") {
		t.Errorf("package db was made from other files: run ./gen\nwas\n%s\nis\n%s", got, strings.Join(want, "\n"))
	}
	made, err := os.ReadFile("db/models.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(made), "sqlc "+lines[0]+"\n") {
		t.Errorf("db/models.go was not made by sqlc %s", lines[0])
	}
}

// forbidden is what one of the engines, or the generator, gets wrong.
var forbidden = []struct {
	re  *regexp.Regexp
	why string
}{
	{regexp.MustCompile(`::`), "a cast is written CAST(x AS TYPE): SQLite knows no ::"},
	{regexp.MustCompile(`(?i)\([^()]+,[^()]+\)\s*(=|<>|<|>|IN\b)`), "a row value: the generator mistypes it"},
	{regexp.MustCompile(`(?i)(=|<>|<|>)\s*\(\s*(\$|sqlc|\w+\s*,)`), "a row value: the generator mistypes it"},
	{regexp.MustCompile(`(?i)sqlc\.slice|\bANY\s*\(|\bARRAY\b|\[\]`), "arrays and lists of variable length belong into Go"},
	{regexp.MustCompile(`(?i)\bSERIAL\b\s+(PRIMARY|NOT)|\bAUTOINCREMENT\b|\bIDENTITY\b`), "ids are made by the program"},
	{regexp.MustCompile(`(?i)\bnow\s*\(|CURRENT_T|CURRENT_DATE|\bTIMESTAMP|\bJSONB?\b`), "times are given by the clock; JSON is TEXT"},
	{regexp.MustCompile(`(?i)\bLIKE\b`), "LIKE has wildcards in names (a_b) and two meanings of case: compare substr()"},
	{regexp.MustCompile(`(?i)\bgreatest\b|\bleast\b|\bmax\s*\([^()]*,|\bmin\s*\([^()]*,`), "write CASE: the functions have other names on SQLite"},
	{regexp.MustCompile(`(?i)\bFOR UPDATE\b|\bSKIP LOCKED\b|\bILIKE\b`), "SQLite does not know it"},
	{regexp.MustCompile(`(?i)\b(INTEGER|INT|VARCHAR|BLOB|DOUBLE|REAL|NUMERIC)\b`), "columns are TEXT, BIGINT, BOOLEAN or BYTEA"},
}

var (
	comment = regexp.MustCompile(`(?m)--.*$`)
	literal = regexp.MustCompile(`'[^']*'`)
)

func TestQueriesKeepToWhatBothEnginesKnow(t *testing.T) {
	files, _ := filepath.Glob("queries/*.sql")
	more, _ := filepath.Glob("migrations/*.sql")
	for _, name := range append(files, more...) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text := literal.ReplaceAllString(comment.ReplaceAllString(string(b), ""), "''")
		for _, f := range forbidden {
			for _, at := range f.re.FindAllStringIndex(text, -1) {
				t.Errorf("%s:%d: %q: %s", name, 1+strings.Count(text[:at[0]], "\n"), text[at[0]:at[1]], f.why)
			}
		}
	}
}

// The test above finds what it is for.
func TestTheConventionsAreFound(t *testing.T) {
	for _, bad := range []string{
		"SELECT x::text", "WHERE (a, b) = ($1, $2)", "WHERE (a,b) > (sqlc.arg(x), sqlc.arg(y))", "WHERE a = ANY($1)", "WHERE a IN (sqlc.slice(ids))",
		"id SERIAL PRIMARY KEY", "DEFAULT now()", "name LIKE 'a%'", "SET a = max(a, $1)", "n INTEGER NOT NULL", "WHERE (a, b) IN (SELECT 1, 2)",
	} {
		found := false
		for _, f := range forbidden {
			found = found || f.re.MatchString(bad)
		}
		if !found {
			t.Errorf("%q is not found", bad)
		}
	}
}
