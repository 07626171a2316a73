package api

import (
	"net/url"
	"strings"
	"testing"
)

// FuzzBearer: what is in the header Authorization is a token, a session, or refused, and
// never longer than what is looked at.
func FuzzBearer(f *testing.F) {
	for _, s := range []string{"Bearer lk_abc", "bearer ls_x", "Basic x", "", "Bearer", "Bearer  lk_x ", "Bearer lk_\x00", strings.Repeat("Bearer ", 50)} {
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, twice bool) {
		values := []string{s}
		if twice {
			values = append(values, s)
		}
		raw, ok, err := bearer(values)
		switch {
		case ok == (err != nil):
			t.Fatal("neither refused nor taken")
		case ok && (twice || len(raw) > maxBearer || !strings.HasPrefix(raw, "lk_") && !strings.HasPrefix(raw, "ls_")):
			t.Fatalf("%q was taken", raw)
		}
	})
}

// FuzzSeen: a tag that stands in the list is found, one that is not there is not.
func FuzzSeen(f *testing.F) {
	f.Add(`"1", W/"2"`)
	f.Add(`*`)
	f.Add(`,,,W/`)
	f.Fuzz(func(t *testing.T, s string) {
		const tag = `W/"aaaaaaaaaaaaaaaaaaaaaaaa"`
		if got, want := seen([]string{s}, tag), strings.Contains(s, `"aaaaaaaaaaaaaaaaaaaaaaaa"`) || strings.TrimSpace(s) == "*"; got && !want {
			t.Fatalf("%q", s)
		}
		if !seen([]string{s, tag}, tag) {
			t.Fatal("it is not found")
		}
	})
}

// FuzzKey: a key that is taken is printable ASCII of bounded length; a rev that is taken
// is what etag writes; an id that is taken is one.
func FuzzKey(f *testing.F) {
	f.Add("k")
	f.Add(`"12"`)
	f.Add("ses_01930000-0000-7000-8000-000000000000")
	f.Fuzz(func(t *testing.T, s string) {
		if validKey(s) && (len(s) > 128 || strings.ContainsAny(s, " \t\r\n\x00") || strings.ToValidUTF8(s, "") != s) {
			t.Fatalf("%q", s)
		}
		if n, err := (Conditional{IfMatch: s}).rev(); err == nil && n != 0 && etag(n) != s {
			t.Fatalf("%q is %d", s, n)
		}
		if id := bare("ses_", s); len(id) != 36 || strings.ContainsAny(id, "'\x00 ") {
			t.Fatalf("%q gives %q", s, id)
		}
		if q, err := url.ParseQuery(s); err == nil {
			for k, v := range q {
				_ = inWordsOf(k, v)
			}
		}
	})
}

func inWordsOf(k string, v []string) string {
	field, what := inWords("query."+k, strings.Join(v, ","))
	return field + what
}
