package housetest

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"latchkey/internal/policy"
)

var (
	docLink  = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	docTest  = regexp.MustCompile("`(\\w+)\\.((?:Test|Fuzz)\\w+)`")
	docTitle = regexp.MustCompile(`^# (\d{4}) · `)
)

// TestDocsNameWhatIsThere: links between pages lead somewhere, and the tests that a page names exist in that package.
func TestDocsNameWhatIsThere(t *testing.T) {
	tests := map[string]bool{}
	for _, s := range allSources(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && strings.HasSuffix(s.file, "_test.go") {
				tests[filepath.Base(s.pkg)+"."+f.Name.Name] = true
			}
		}
	}
	for _, page := range pages(t) {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range docLink.FindAllSubmatch(b, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), string(m[1]))); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
		for _, m := range docTest.FindAllSubmatch(b, -1) {
			if name := string(m[1]) + "." + string(m[2]); !tests[name] {
				t.Errorf("%s names the test %s, which is not there", page, name)
			}
		}
	}
}

// TestEveryPageIsFound: from the README, or from a page that it links to.
func TestEveryPageIsFound(t *testing.T) {
	links := func(page string) []string {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, m := range docLink.FindAllSubmatch(b, -1) {
			out = append(out, filepath.Join(filepath.Dir(page), string(m[1])))
		}
		return out
	}
	found := links(filepath.Join(root, "README.md"))
	for _, page := range found {
		if strings.HasSuffix(page, ".md") {
			found = append(found, links(page)...)
		}
	}
	all, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(all) < 10 {
		t.Fatalf("only %d pages were found (%v)", len(all), err)
	}
	for _, page := range all {
		if !slices.Contains(found, page) {
			t.Errorf("%s is linked from neither README.md nor a page that it links to", page)
		}
	}
	if notes := filepath.Join(root, "docs", "design"); !slices.Contains(found, notes) {
		t.Errorf("%s is not linked", notes)
	}
}

// TestDesignNotesAreNumbered: one after the other, and the number in the title is that of the file.
func TestDesignNotesAreNumbered(t *testing.T) {
	notes, err := filepath.Glob(filepath.Join(root, "docs", "design", "[0-9]*.md"))
	if err != nil || len(notes) == 0 {
		t.Fatalf("no design notes were found (%v)", err)
	}
	for i, note := range notes {
		want := fmt.Sprintf("%04d", i+1)
		b, err := os.ReadFile(note)
		if err != nil {
			t.Fatal(err)
		}
		m := docTitle.FindSubmatch(b)
		if !strings.HasPrefix(filepath.Base(note), want+"-") || m == nil || string(m[1]) != want {
			t.Errorf("%s should be note %s, in its name and in its title", note, want)
		}
	}
}

// TestSettingsOfPoliciesAreExplained: the page for administrators has every setting.
func TestSettingsOfPoliciesAreExplained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "administrators.md"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(policy.NewPolicy())
	if err != nil {
		t.Fatal(err)
	}
	var settings map[string]json.RawMessage
	if err := json.Unmarshal(b, &settings); err != nil {
		t.Fatal(err)
	}
	if len(settings) < 10 {
		t.Fatalf("a policy has only %d settings", len(settings))
	}
	for name := range settings {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/administrators.md does not explain the setting %s", name)
		}
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, glob := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(glob)))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	if len(out) < 10 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}
