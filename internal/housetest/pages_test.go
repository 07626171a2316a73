package housetest

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const webDir = "internal/server/web"

// The authenticator is an app of its own: its style and script are not those of the pages.
const appDir = webDir + "/authenticator"

// pageFiles are the templates and the sources of the assets.
func pageFiles(t *testing.T, exts ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, webDir), func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains(exts, filepath.Ext(p)) || strings.Contains(p, "/assets/dist/") || strings.Contains(p, "/assets/vendor/") ||
			strings.Contains(p, "/authenticator/dist/") || strings.Contains(p, "/authenticator/vendor/") {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(root, p)
		out[filepath.ToSlash(rel)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) == 0 {
		t.Fatalf("only %d files were found below %s", len(out), webDir)
	}
	return out
}

// What the Content-Security-Policy forbids must not be written: a browser would leave it out
// without a word.
var notInPages = []struct {
	expr *regexp.Regexp
	what string
}{
	{regexp.MustCompile(`(?i)\sstyle\s*=`), "a style attribute: the policy of the pages forbids it; use or add a class"},
	{regexp.MustCompile(`(?i)<style\b`), "a style element: the policy of the pages forbids it"},
	{regexp.MustCompile(`(?i)\son[a-z]+\s*=`), "a handler in an attribute: the policy of the pages forbids it"},
	{regexp.MustCompile(`(?i)\s(data-)?hx-on`), "hx-on: it needs eval, which the policy forbids"},
	{regexp.MustCompile(`(?i)hx-(vals|headers)\s*=\s*["{ ]*['"]?(js|javascript):`), "script in an attribute: it needs eval, which the policy forbids"},
	{regexp.MustCompile(`(?i)hx-trigger\s*=\s*"[^"]*\[`), "a filter in hx-trigger: it needs eval, which the policy forbids"},
	{regexp.MustCompile(`(?i)javascript:`), "a javascript: address"},
	{regexp.MustCompile(`templ\.Raw|@templ\.JSONScript|templ\.JSFuncCall|templ\.SafeCSS|^css \w+\(`), "something that is not escaped, or script within the page"},
	{regexp.MustCompile(`(?i)(src|href|action)="(https?:)?//`), "an address of another host: a page needs nothing from elsewhere"},
}

var scriptTag = regexp.MustCompile(`(?i)<script\b[^>]*>`)

func TestPagesKeepTheirPolicy(t *testing.T) {
	for file, body := range pageFiles(t, ".templ") {
		for i, l := range strings.Split(body, "\n") {
			for _, n := range notInPages {
				if strings.Contains(l, "@templ.Raw(svg)") && strings.HasSuffix(file, "/ui/components.templ") {
					continue // QR looks at what it shows
				}
				if n.expr.MatchString(l) {
					t.Errorf("%s:%d has %s", file, i+1, n.what)
				}
			}
			for _, s := range scriptTag.FindAllString(l, -1) {
				if !strings.Contains(s, "src=") {
					t.Errorf("%s:%d has script within the page: the policy forbids it", file, i+1)
				}
			}
		}
	}
	for file, body := range pageFiles(t, ".ts", ".css") {
		for i, l := range strings.Split(body, "\n") {
			if regexp.MustCompile(`\beval\(|new Function|document\.write|insertAdjacentHTML|outerHTML\s*=|setAttribute\("style"|@import\s+url|url\(\s*["']?(https?:)?//`).MatchString(l) {
				t.Errorf("%s:%d has what the policy of the pages forbids, or what writes unescaped text", file, i+1)
			}
		}
	}
	// A class that an area makes up has no style.
	for file := range pageFiles(t, ".css") {
		if !strings.HasPrefix(file, webDir+"/ui/assets/src/") && !strings.HasPrefix(file, appDir+"/src/") {
			t.Errorf("%s: styles stand in %s/ui/assets/src", file, webDir)
		}
	}
}

// classes of the style sheet that templates use.
var classAttr = regexp.MustCompile(`class="([^"{}]*)"`)

func TestEveryClassHasAStyle(t *testing.T) {
	css := map[bool]string{}
	for file, body := range pageFiles(t, ".css") {
		css[strings.HasPrefix(file, appDir)] += body
	}
	for file, body := range pageFiles(t, ".templ") {
		css := css[strings.HasPrefix(file, appDir)]
		for _, m := range classAttr.FindAllStringSubmatch(body, -1) {
			for _, c := range strings.Fields(m[1]) {
				if !regexp.MustCompile(`\.` + regexp.QuoteMeta(c) + `\b`).MatchString(css) {
					t.Errorf("%s uses the class %q, of which the style sheet knows nothing", file, c)
				}
			}
		}
	}
}

// Texts for people stand in the catalogue. A template may hold a word or two, no sentence.
var templText = regexp.MustCompile(`>\s*([A-Z][a-z]+(?: [A-Za-z’',;:-]+){4,}[^<>{}]*)<`)

func TestSentencesStandInTheCatalogue(t *testing.T) {
	for file, body := range pageFiles(t, ".templ") {
		for _, m := range templText.FindAllStringSubmatch(body, -1) {
			t.Errorf("%s holds the sentence %q: it belongs to %s/words", file, strings.TrimSpace(m[1]), webDir)
		}
	}
}

// The catalogue holds words and nothing that could fail.
func TestTheCatalogueIsPure(t *testing.T) {
	allowed := []string{"fmt", "math", "strings", "strconv", "time", "latchkey/internal/text", "latchkey/internal/event", "latchkey/internal/policy", "latchkey/internal/rest"}
	seen := false
	for _, s := range allSources(t) {
		if s.pkg != module+"/"+webDir+"/words" || s.test {
			continue
		}
		seen = true
		for im, pos := range s.imports {
			if !slices.Contains(allowed, im) {
				t.Errorf("%s: the catalogue imports %s; allowed are %s", s.at(pos), im, strings.Join(allowed, ", "))
			}
		}
	}
	if !seen {
		t.Error("no catalogue was found: the rule looks in the wrong place")
	}
}

// Areas stand on package ui and on small packages that several share; never on each other.
var areaPackages = []string{"entry", "portal", "office", "people", "fleet", "rules", "log", "bulk", "certs", "authenticator"}

func TestAreasDoNotImportEachOther(t *testing.T) {
	for _, s := range allSources(t) {
		name, ok := strings.CutPrefix(s.pkg, module+"/"+webDir+"/")
		if !ok || s.test {
			continue
		}
		for im, pos := range s.imports {
			other, ok := strings.CutPrefix(im, module+"/"+webDir+"/")
			if ok && other != name && slices.Contains(areaPackages, other) {
				t.Errorf("%s: %s must not import %s, because what areas share stands in ui or in a package of its own", s.at(pos), s.pkg, im)
			}
			if im == module+"/internal/server/store" || im == module+"/internal/server/store/db" {
				t.Errorf("%s: %s must not import %s, because pages ask the desk, which asks for the right", s.at(pos), s.pkg, im)
			}
		}
	}
}
