package text

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/unicode/norm"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain text stays", "Code for alice: ", "Code for alice: "},
		{"an escape sequence can not reach the terminal", "a\x1b[2Jb\x07\x7f", "a[2Jb"},
		{"C1 controls go too", "a\u0085\u009bb", "ab"},
		{"bytes that are no UTF-8 go", "a\xff\xfe\xc3(b", "a(b"},
		{"text can not be reordered", "a\u202ecod.exe\u2066b\u200f", "acod.exeb"},
		{"zero-width characters go", "al\u200bi\u2060ce\ufeff", "alice"},
		{"several lines become one", "a\nb\tc\r\n", "a b c "},
		{"line separators go", "a\u2028b\u2029c", "abc"},
		{"letters of the world stay", "Zoë 山田 Ольга", "Zoë 山田 Ольга"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Clean(c.in); got != c.want {
				t.Errorf("Clean(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
	if got := CleanBlock("a\nb\x1b\r\n"); got != "a\nb\n" {
		t.Errorf("CleanBlock = %q", got)
	}
	if got := CleanN(strings.Repeat("ü", 100), 11); got != "üüüü…" {
		t.Errorf("CleanN cuts at a character and says so: %q", got)
	}
	if got := Clean(strings.Repeat("x", 1<<20)); len(got) > MaxLine {
		t.Errorf("Clean left %d bytes", len(got))
	}
}

func TestValidName(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"ascii", "alice", ""},
		{"directory forms", `CORP\alice`, ""},
		{"mail form", "alice+admin@corp.example", ""},
		{"spaces inside", "Head Office 2", ""},
		{"Latin with accents", "Zoë Müller", ""},
		{"Cyrillic that can not be Latin", "Ольга", ""},
		{"Japanese writes three scripts", "山田たろうビール", ""},
		{"Korean", "김철수", ""},
		{"Hindi needs its marks", "हिन्दी", ""},
		{"Arabic", "محمد", ""},
		{"as long as may be", strings.Repeat("a", 128), ""},

		{"empty", "", "it is empty"},
		{"10 kB", strings.Repeat("a", 10<<10), "it has 10240 bytes"},
		{"a control character", "al\x07ice", "character U+0007 at place 3 is not allowed"},
		{"a line feed", "alice\n", "character U+000A at place 6 is not allowed"},
		{"NUL", "a\x00", "character U+0000 at place 2 is not allowed"},
		{"no UTF-8", "al\xff", "byte 0xFF at place 3 is not UTF-8"},
		{"a slash", "../etc", "character '/' (U+002F) at place 3 is not allowed"},
		{"a colon would break passwd", "a:b", "character ':' (U+003A) at place 2 is not allowed"},
		{"a flag", "-rf", "it begins with -"},
		{"a space in front", " alice", "the space at place 1 stands at an end or beside another"},
		{"a space behind", "alice ", "the space at place 6 stands at an end or beside another"},
		{"two spaces", "a  b", "the space at place 3 stands at an end or beside another"},
		{"only dots", "..", "it has no letter or digit"},
		{"Cyrillic а in alice", "аlice", "it mixes Cyrillic and Latin letters ('l' (U+006C) at place 2)"},
		{"Greek o in root", "rοot", "it mixes Latin and Greek letters ('ο' (U+03BF) at place 2)"},
		{"all Cyrillic yet Latin to the eye", "сор", `it is written in Cyrillic letters and looks like "cop"`},
		{"full-width letters", "ａｌｉｃｅ", `it is another way to write "alice"`},
		{"a ligature", "ofﬁce", `it is another way to write "office"`},
		{"an accent typed apart", "Zoe\u0308", `it is another way to write "Zoë"`},
		{"a zero-width space", "al\u200bice", "character U+200B at place 3 is not allowed"},
		{"text turned round", "a\u202eb", "character U+202E at place 2 is not allowed"},
		{"a click letter for a bar", "aǀb", "character 'ǀ' (U+01C0) at place 2 is not allowed"},
		{"phonetic g", "ɡreg", "character 'ɡ' (U+0261) at place 1 is not allowed"},
		{"a mark on nothing", "\u0301a", "the mark '\u0301' (U+0301) at place 1 follows no letter"},
		{"a no-break space", "a\u00a0b", "character U+00A0 at place 2 is not allowed"},
		{"a Hangul filler", "a\u3164", "character U+3164 at place 2 is not allowed"},
		{"an emoji", "bob😀", "character '😀' (U+1F600) at place 4 is not allowed"},
		{"other digits", "bob١", "character '١' (U+0661) at place 4 is not allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := ValidName("user name", c.in)
			if c.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var ne *NameError
			if !errors.As(err, &ne) {
				t.Fatalf("ValidName(%q) = %v, want a NameError", c.in, err)
			}
			if ne.Fault != c.want {
				t.Errorf("fault = %s\nwant    %s", ne.Fault, c.want)
			}
			if !strings.HasPrefix(err.Error(), "user name: ") || !strings.Contains(err.Error(), "allowed are") {
				t.Errorf("the sentence names no field or nothing allowed: %v", err)
			}
		})
	}
}

func TestValidLine(t *testing.T) {
	if err := ValidLine("reason", "lost phone, seen by Bob (ticket #12)", 200); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "  ", "a\nb", "a\u202eb", "\xff", strings.Repeat("x", 201)} {
		if err := ValidLine("reason", bad, 200); err == nil {
			t.Errorf("ValidLine(%q) passed", bad)
		}
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                  "0 s",
		time.Microsecond:                   "<1 ms",
		120 * time.Millisecond:             "120 ms",
		2500 * time.Millisecond:            "2.5 s",
		3 * time.Second:                    "3 s",
		59 * time.Second:                   "59 s",
		15 * time.Minute:                   "15 min",
		90 * time.Second:                   "1 min 30 s",
		8 * time.Hour:                      "8 h",
		3*time.Hour + 20*time.Minute + 5e9: "3 h 20 min",
		24 * time.Hour:                     "1 day",
		25 * time.Hour:                     "1 day 1 h",
		7 * 24 * time.Hour:                 "7 days",
		-2 * time.Minute:                   "-2 min",
	} {
		if got := Duration(d); got != want {
			t.Errorf("Duration(%v) = %q, want %q", d, got, want)
		}
	}
	if got := Duration(-1 << 63); got == "" {
		t.Error("the smallest duration has no text")
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		t    time.Time
		want string
	}{
		{time.Time{}, "never"},
		{now.Add(-time.Second), "just now"},
		{now.Add(-5 * time.Minute), "5 min ago"},
		{now.Add(5 * time.Minute), "in 5 min"},
	} {
		if got := Ago(c.t, now); got != c.want {
			t.Errorf("Ago = %q, want %q", got, c.want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for s, want := range map[string]time.Duration{
		"720h": 30 * day, "90m": 90 * time.Minute, "1h30m": 90 * time.Minute, "30d": 30 * day, "30 days": 30 * day, "1 day 3 h": 27 * time.Hour,
		"3 h 20 min": 200 * time.Minute, "45 s": 45 * time.Second, "0 s": 0, "120 ms": 120 * time.Millisecond, "1d12h": 36 * time.Hour,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "d", "30", "days", "30 weeks", "99999999d", "36501d", "1d-3h", "1d3d", "9d2562047h60m", strings.Repeat("1h", 60)} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want a refusal", s, got)
		}
	}
	for d, want := range map[time.Duration]string{30 * day: "720h", 90 * time.Minute: "1h30m", 20 * time.Minute: "20m", time.Hour + 10*time.Second: "1h0m10s", 30 * time.Second: "30s"} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}

// FuzzParseDuration: what was read is read again from the form that programs get, and people's form of it comes near.
func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"30 days", "720h", "1 day 3 h", "3 h 20 min", "9d2562047h60m", "-5m", "1.5h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if again, err := ParseDuration(Span(d)); err != nil || again != d {
			t.Fatalf("%q is %v, whose form %q is %v, %v", s, d, Span(d), again, err)
		}
		if d >= time.Millisecond && d < 36500*24*time.Hour {
			if again, err := ParseDuration(Duration(d)); err != nil || again > d || d-again > time.Hour {
				t.Fatalf("%q is %v, for people %q, read as %v, %v", s, d, Duration(d), again, err)
			}
		}
	})
}

func TestTable(t *testing.T) {
	tab := NewTable("USER", "MACHINE", "LEFT", "NOTE")
	tab.Row("alice", "laptop-of-alice.corp.example", "48", "the last online sign-in was long ago")
	tab.Row("山田", "m2", "7", "")
	tab.Row("mallory\x1b[31m", "m3\nm4")
	var wide, narrow strings.Builder
	if err := tab.Write(&wide, 0); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"USER         MACHINE                       LEFT  NOTE\n" +
		"alice        laptop-of-alice.corp.example    48  the last online sign-in was long ago\n" +
		"山田         m2                               7\n" +
		"mallory[31m  m3 m4\n"
	if d := cmp.Diff(want, wide.String()); d != "" {
		t.Errorf("wide (-want +got):\n%s", d)
	}
	if err := tab.Write(&narrow, 50); err != nil {
		t.Fatal(err)
	}
	want = "" +
		"USER         MACHINE        LEFT  NOTE\n" +
		"alice        laptop-of-al…    48  the last online\n" +
		"                                  sign-in was long\n" +
		"                                  ago\n" +
		"山田         m2                7\n" +
		"mallory[31m  m3 m4\n"
	if d := cmp.Diff(want, narrow.String()); d != "" {
		t.Errorf("narrow (-want +got):\n%s", d)
	}
	for _, l := range strings.Split(narrow.String(), "\n") {
		if Width(l) > 50 {
			t.Errorf("line of %d columns: %s", Width(l), l)
		}
	}
}

func TestTablesOfIds(t *testing.T) {
	const id = "evt_01930000-0000-7000-8000-000000000000"
	tab := NewTable("TIME", "EVENT", "SERVICE", "WHO", "ID")
	tab.Row("11-22 08:15:04", "signin.denied", "-", "somebody with a long name", id)
	var b strings.Builder
	if err := tab.Write(&b, 60); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"TIME            EVENT          WHO\n" +
		"    ID\n" +
		"11-22 08:15:04  signin.denied  somebody with a long name\n" +
		"    " + id + "\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	b.Reset()
	if err := tab.Write(&b, 20); err != nil || !strings.Contains(b.String(), id) || !strings.Contains(b.String(), "11-22 08:15:04  signin.denied") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// FuzzValidName: a name that passes is short, clean, stands for itself and survives a round through Clean.
func FuzzValidName(f *testing.F) {
	for _, s := range []string{"alice", "", "аlice", "山田", "a\x00", "\xff", "Zoe\u0308", "a  b", "ﬁ", "हिन्दी"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := Clean(s)
		if len(c) > MaxLine || !utf8.ValidString(c) || strings.ContainsFunc(c, Invisible) {
			t.Fatalf("Clean(%q) = %q", s, c)
		}
		if again := Clean(c); again != c {
			t.Fatalf("Clean twice: %q, then %q", c, again)
		}
		err := ValidName("name", s)
		if err != nil {
			if m := err.Error(); strings.ContainsFunc(m, Invisible) || !utf8.ValidString(m) {
				t.Fatalf("the refusal of %q carries it on: %q", s, m)
			}
			return
		}
		if len(s) == 0 || len(s) > MaxName || c != s || !norm.NFKC.IsNormalString(s) {
			t.Fatalf("%q passed", s)
		}
		if err := ValidLine("name", s, MaxName); err != nil {
			t.Fatalf("a name is no line: %v", err)
		}
	})
}
