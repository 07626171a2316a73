package authenticator

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"latchkey/internal/server/web/ui"
)

const repo = "../../../.."

// TestTheBundleIsFresh computes what tools/assets wrote into the manifest: the hash of all
// sources, of the bundler's program and of its version.
func TestTheBundleIsFresh(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(repo, "tools", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)github\.com/evanw/esbuild (v\S+)`).FindSubmatch(mod)
	if m == nil {
		t.Fatal("tools/go.mod does not name the bundler")
	}
	var names []string
	for _, glob := range []string{"internal/server/web/authenticator/src/*", "internal/server/web/authenticator/vendor/*", "tools/assets/*.go", "internal/server/web/ui/assets/src/tokens.css", "internal/server/web/ui/assets/src/icon.svg"} {
		found, err := filepath.Glob(filepath.Join(repo, glob))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d files, %v", glob, len(found), err)
		}
		for _, f := range found {
			rel, err := filepath.Rel(repo, f)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, filepath.ToSlash(rel))
		}
	}
	slices.Sort(names)
	h := sha256.New()
	fmt.Fprintf(h, "github.com/evanw/esbuild %s\n", m[1])
	for _, n := range names {
		b, err := os.ReadFile(filepath.Join(repo, n))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(h, "%s %x\n", n, sha256.Sum256(b))
	}
	var manifest struct{ Inputs string }
	raw, err := dist.ReadFile("dist/manifest.json")
	if err != nil || json.Unmarshal(raw, &manifest) != nil {
		t.Fatal("no manifest", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != manifest.Inputs {
		t.Errorf("dist was made from other sources than these: run scripts/assets and commit what it writes")
	}
}

// What is vendored is what its maker has published: these are the sums of the files in the
// release 0.7.0 of qr.
func TestWhatIsVendoredIsUnmodified(t *testing.T) {
	for name, want := range map[string]string{
		"decode.js":  "00e209820dcb11d624e9a03d6383e580766792b57d1651318f0a29e4e1ff0fe8",
		"index.js":   "a0de370051f94bd74f218f74401fdf197585e3f9ef0143164f87ea941a3fdd6f",
		"qr.LICENSE": "07a9f887e9215644439b808628b09f8eece932d79130ff563f958f3a1783e684",
	} {
		b, err := os.ReadFile("vendor/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != want {
			t.Errorf("%s has the sum %s, not %s", name, got, want)
		}
	}
}

// get asks for a path as a browser does.
func get(t *testing.T, path string) (*httptest.ResponseRecorder, []byte) {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	r.Header.Set("Accept-Encoding", "gzip, br")
	w := httptest.NewRecorder()
	bundle().serve(w, r, path)
	body := w.Body.Bytes()
	if w.Header().Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		if _, err := plain.ReadFrom(z); err != nil {
			t.Fatal(err)
		}
		return w, plain.Bytes()
	}
	return w, body
}

// TestTheFirstLoadIsLight counts what somebody loads who was never here: the page, all that
// it needs, and all that the service worker keeps. The same is weighed in a browser.
func TestTheFirstLoadIsLight(t *testing.T) {
	s := bundle()
	wire := 0
	for _, at := range append(s.kept(), Base, Base+"worker.js", Base+"icon-180.png") {
		w, body := get(t, at)
		wire += w.Body.Len()
		t.Logf("%-44s %6d octets, %6d on the wire", at, len(body), w.Body.Len())
	}
	t.Logf("together %d octets on the wire; the reader of QR codes, when it is needed, %d more", wire, len(s.files[s.path("qr.js")].gzip))
	if wire > 60_000 {
		t.Errorf("the first load has %d octets, more than 60 000", wire)
	}
}

// TestEverythingIsServed: each route answers with what it is, under the app's own policy,
// and what changes is asked for anew.
func TestEverythingIsServed(t *testing.T) {
	s := bundle()
	seen := map[string]bool{}
	for _, r := range Routes() {
		if r.Needs != ui.Anyone {
			t.Errorf("%s needs somebody to have signed in", r.Pattern)
		}
		seen[strings.TrimSuffix(strings.TrimPrefix(r.Pattern, "GET "), "{$}")] = true
	}
	for at, f := range s.files {
		if !seen[at] {
			t.Errorf("%s has no route", at)
		}
		w, body := get(t, at)
		if w.Code != 200 || !bytes.Equal(body, f.plain) || f.kind == "" || w.Header().Get("Content-Type") != f.kind {
			t.Errorf("%s: %d, %d octets of %d, %q", at, w.Code, len(body), len(f.plain), f.kind)
		}
		if w.Header().Get("Content-Security-Policy") != Policy || w.Header().Get("Permissions-Policy") != Permissions {
			t.Errorf("%s has another policy", at)
		}
		if kept := strings.Contains(w.Header().Get("Cache-Control"), "immutable"); kept != regexp.MustCompile(`-[0-9a-f]{12}\.`).MatchString(at) {
			t.Errorf("%s: Cache-Control is %q", at, w.Header().Get("Cache-Control"))
		}
		r := httptest.NewRequest("GET", at, nil)
		r.Header.Set("If-None-Match", w.Header().Get("ETag"))
		again := httptest.NewRecorder()
		if s.serve(again, r, at); again.Code != 304 || again.Body.Len() != 0 {
			t.Errorf("%s is sent again to who has it: %d", at, again.Code)
		}
	}
	if !seen["/authenticator"] {
		t.Error("the path without a slash leads nowhere")
	}
}

// TestEveryClassOfTheAppHasAStyle looks at the elements that the script makes.
func TestEveryClassOfTheAppHasAStyle(t *testing.T) {
	css, err := os.ReadFile("src/app.css")
	if err != nil {
		t.Fatal(err)
	}
	sources, err := filepath.Glob("src/*.ts")
	if err != nil || len(sources) < 10 {
		t.Fatal(sources, err)
	}
	seen := 0
	for _, f := range sources {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("\\bh\\(\\s*[\"`][a-z0-9]+\\.([a-z0-9.-]+)[\"`]").FindAllSubmatch(b, -1) {
			for class := range strings.SplitSeq(string(m[1]), ".") {
				seen++
				if !regexp.MustCompile(`\.` + regexp.QuoteMeta(class) + `\b`).Match(css) {
					t.Errorf("%s uses the class %q, which has no style", f, class)
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d classes were found", seen)
	}
}

// TestEveryWordOfTheAppIsSaid: a text that nothing says is a text that nobody mends.
func TestEveryWordOfTheAppIsSaid(t *testing.T) {
	words, err := os.ReadFile("src/words.ts")
	if err != nil {
		t.Fatal(err)
	}
	sources, _ := filepath.Glob("src/*.ts")
	var all []byte
	for _, f := range sources {
		if b, err := os.ReadFile(f); err == nil && f != "src/words.ts" {
			all = append(all, b...)
		}
	}
	names := regexp.MustCompile(`(?m)^  (\w+):`).FindAllSubmatch(words, -1)
	if len(names) < 100 {
		t.Fatalf("only %d words were found", len(names))
	}
	for _, m := range names {
		if !regexp.MustCompile(`words\.` + string(m[1]) + `\b`).Match(all) {
			t.Errorf("nothing says words.%s", m[1])
		}
	}
}

func TestNothingNamesAnotherHost(t *testing.T) {
	for at, f := range bundle().files {
		for _, u := range regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.-]+\.[a-z]{2,}`).FindAll(f.plain, -1) {
			if !bytes.Contains(u, []byte("www.w3.org")) { // the name of a namespace is no address
				t.Errorf("%s names %s", at, u)
			}
		}
	}
}

// TestAVersionIsAWhole: the worker names what the page loads and a version that changes with
// any of it; the page says the same version.
func TestAVersionIsAWhole(t *testing.T) {
	one, same, other := build(""), build(""), build("other")
	if one.version != same.version || one.version == other.version || len(one.version) != 12 {
		t.Errorf("versions %q, %q, %q", one.version, same.version, other.version)
	}
	_, worker := get(t, Base+"worker.js")
	var list struct {
		Version string
		Files   []string
	}
	text, ok := strings.CutPrefix(string(worker), "self.precache=")
	if !ok || json.NewDecoder(strings.NewReader(text)).Decode(&list) != nil || list.Version != one.version {
		t.Fatalf("the worker begins with %.120s", worker)
	}
	_, page := get(t, Base)
	if !strings.Contains(string(page), `data-version="`+one.version+`"`) {
		t.Error("the page does not say its version")
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/[^"]+)"`).FindAllStringSubmatch(string(page), -1) {
		if _, ok := one.files[m[1]]; !ok {
			t.Errorf("the page names %s, which is not there", m[1])
		}
		if !slices.Contains(list.Files, m[1]) && m[1] != Base+"icon-180.png" {
			t.Errorf("the page names %s, which is not kept", m[1])
		}
	}
	for _, f := range list.Files {
		if _, ok := one.files[f]; !ok {
			t.Errorf("the worker keeps %s, which is not there", f)
		}
	}
}

// TestItCanBeInstalled holds what browsers ask of an app that they install.
func TestItCanBeInstalled(t *testing.T) {
	_, raw := get(t, Base+"manifest.webmanifest")
	var m struct {
		Name      string
		StartURL  string `json:"start_url"`
		Scope, ID string
		Display   string
		Icons     []struct{ Src, Sizes, Type string }
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if m.Name == "" || m.StartURL != Base || m.Scope != Base || m.ID != Base || m.Display != "standalone" {
		t.Errorf("the manifest says %s", raw)
	}
	sizes := map[string]bool{}
	for _, i := range m.Icons {
		sizes[i.Sizes] = true
		w, body := get(t, i.Src)
		if w.Code != 200 || w.Header().Get("Content-Type") != i.Type {
			t.Errorf("%s: %d %s", i.Src, w.Code, w.Header().Get("Content-Type"))
			continue
		}
		if i.Type == "image/png" {
			img, err := png.Decode(bytes.NewReader(body))
			if err != nil || fmt.Sprintf("%dx%d", img.Bounds().Dx(), img.Bounds().Dy()) != i.Sizes {
				t.Errorf("%s is no picture of %s: %v", i.Src, i.Sizes, err)
			}
		}
	}
	if !sizes["192x192"] || !sizes["512x512"] {
		t.Errorf("the icons have the sizes %v", sizes)
	}
}
