package ui

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const repo = "../../../.."

// TestAssetsAreFresh computes what tools/assets wrote into the manifest: the hash of all
// sources, of the bundler's program and of its version. Building the bundler takes half a
// minute, so its result is committed.
func TestAssetsAreFresh(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(repo, "tools", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)github\.com/evanw/esbuild (v\S+)`).FindSubmatch(mod)
	if m == nil {
		t.Fatal("tools/go.mod does not name the bundler")
	}
	var names []string
	for _, glob := range []string{"internal/server/web/ui/assets/src/*", "internal/server/web/ui/assets/vendor/*", "tools/assets/*.go"} {
		found, err := filepath.Glob(filepath.Join(repo, glob))
		if err != nil {
			t.Fatal(err)
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
	if got := hex.EncodeToString(h.Sum(nil)); got != assets().manifest.Inputs {
		t.Errorf("assets/dist was made from other sources than these: run scripts/assets and commit what it writes")
	}
}

// What is vendored is what its makers have published: this is the sum of the file in their
// release 4.0.1.
func TestWhatIsVendoredIsUnmodified(t *testing.T) {
	b, err := os.ReadFile("assets/vendor/htmx.min.js")
	if err != nil {
		t.Fatal(err)
	}
	const want = "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != want {
		t.Errorf("htmx.min.js has the sum %s, not %s", got, want)
	}
}

func TestAssetsNameNoOtherHost(t *testing.T) {
	for name, a := range assets().files {
		if strings.HasPrefix(name, "htmx-") { // names the site of its documentation in texts
			continue
		}
		for _, u := range regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.-]+\.[a-z]{2,}`).FindAll(a.plain, -1) {
			if !bytes.Contains(u, []byte("www.w3.org")) { // the name of a namespace is no address
				t.Errorf("%s names %s", name, u)
			}
		}
	}
}

func TestAssetsAreServedAsTheyAre(t *testing.T) {
	for name, a := range assets().files {
		for _, accept := range []string{"", "gzip, br", "gzip;q=0"} {
			r := httptest.NewRequest("GET", AssetBase+name, nil)
			r.Header.Set("Accept-Encoding", accept)
			w := httptest.NewRecorder()
			Assets().ServeHTTP(w, r)
			body := io.Reader(w.Body)
			if w.Header().Get("Content-Encoding") == "gzip" {
				if accept != "gzip, br" {
					t.Errorf("%s is compressed for %q", name, accept)
				}
				z, err := gzip.NewReader(body)
				if err != nil {
					t.Fatal(err)
				}
				body = z
			}
			got, err := io.ReadAll(body)
			if err != nil || !bytes.Equal(got, a.plain) || w.Code != 200 || w.Header().Get("Content-Type") == "" {
				t.Errorf("%s for %q: status %d, %d octets of %d, %v", name, accept, w.Code, len(got), len(a.plain), err)
			}
			if !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
				t.Errorf("%s is not kept by browsers", name)
			}
		}
	}
	w := httptest.NewRecorder()
	Assets().ServeHTTP(w, httptest.NewRequest("GET", AssetBase+"manifest.json", nil))
	if w.Code != 404 {
		t.Errorf("what is no asset is answered with %d", w.Code)
	}
}

// A page is to weigh less than 100 KB on the wire: this is what all pages share.
func TestAssetsLeaveRoomForThePage(t *testing.T) {
	plain, wire := 0, 0
	for name, a := range assets().files {
		plain += len(a.plain)
		n := len(a.plain)
		if a.gzip != nil {
			n = len(a.gzip)
		}
		wire += n
		t.Logf("%-24s %6d octets, %6d on the wire", name, len(a.plain), n)
	}
	t.Logf("%-24s %6d octets, %6d on the wire", "together", plain, wire)
	if wire > 40<<10 || plain > 100<<10 {
		t.Errorf("the assets have %d octets, %d on the wire; allowed are 100 and 40 KiB", plain, wire)
	}
}
