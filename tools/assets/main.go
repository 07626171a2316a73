// Command assets bundles what browsers load: the style sheet and the scripts of console
// and portal, and those of the authenticator. For each it reads src and vendor and writes
// dist, where every file has the hash of its content in its name, with a manifest. It
// needs no Node and no network; two runs over one tree write the same bytes.
//
// Run it as scripts/assets, at the top of the repository.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

const bundler = "github.com/evanw/esbuild"

// shelf is a folder of sources and what is made of them.
type shelf struct {
	home    string // holds src and vendor
	dist    string
	entries []entry
	copies  [][2]string // sent as they came: the name that pages use, and the file
	more    []string    // patterns of further sources, from the top of the repository
}

// entry is a bundle: the name that pages use, and the source.
type entry struct {
	name, source string
	module       bool // it is loaded by import(), when it is needed
}

const ui = "internal/server/web/ui/assets"

var shelves = []shelf{
	{
		home: ui, dist: ui + "/dist",
		entries: []entry{{"app.css", "src/app.css", false}, {"app.js", "src/app.ts", false}, {"theme.js", "src/theme.ts", false}},
		copies:  [][2]string{{"htmx.js", ui + "/vendor/htmx.min.js"}, {"icon.svg", ui + "/src/icon.svg"}},
	},
	{
		home: "internal/server/web/authenticator", dist: "internal/server/web/authenticator/dist",
		entries: []entry{{"app.css", "src/app.css", false}, {"app.js", "src/app.ts", false}, {"worker.js", "src/worker.ts", false}, {"qr.js", "src/qr.ts", true}},
		copies:  [][2]string{{"icon.svg", ui + "/src/icon.svg"}},
		more:    []string{ui + "/src/tokens.css", ui + "/src/icon.svg"},
	},
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: assets TOP-OF-THE-REPOSITORY")
		os.Exit(2)
	}
	if err := os.Chdir(os.Args[1]); err != nil {
		fail(err)
	}
	version, err := version()
	if err != nil {
		fail(err)
	}
	for _, sh := range shelves {
		if err := sh.bundle(version); err != nil {
			fail(err)
		}
	}
}

// bundle writes dist anew.
func (sh shelf) bundle(version string) error {
	files := map[string][]byte{}
	for _, e := range sh.entries {
		format := api.FormatIIFE
		if e.module {
			format = api.FormatESModule
		}
		r := api.Build(api.BuildOptions{
			EntryPoints: []string{filepath.Join(sh.home, e.source)}, Bundle: true, Write: false, Format: format, Charset: api.CharsetUTF8,
			MinifyWhitespace: true, MinifyIdentifiers: true, MinifySyntax: true, LegalComments: api.LegalCommentsNone,
			Target: api.ES2022, Outdir: "out",
			// light-dark() and nesting are left to the browser.
			Supported: map[string]bool{"nesting": true},
			LogLevel:  api.LogLevelWarning,
		})
		if len(r.Errors) > 0 || len(r.Warnings) > 0 || len(r.OutputFiles) != 1 {
			return fmt.Errorf("%s: %d errors, %d warnings", e.source, len(r.Errors), len(r.Warnings))
		}
		files[e.name] = r.OutputFiles[0].Contents
	}
	for _, c := range sh.copies {
		b, err := os.ReadFile(c[1])
		if err != nil {
			return err
		}
		files[c[0]] = b
	}
	inputs, err := sh.inputs(version)
	if err != nil {
		return err
	}
	manifest := struct {
		Inputs string            `json:"inputs"`
		Files  map[string]string `json:"files"`
	}{inputs, map[string]string{}}
	if err := os.RemoveAll(sh.dist); err != nil {
		return err
	}
	if err := os.MkdirAll(sh.dist, 0o755); err != nil {
		return err
	}
	for name, body := range files {
		sum := sha256.Sum256(body)
		ext := filepath.Ext(name)
		out := strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:])[:12] + ext
		manifest.Files[name] = out
		if err := os.WriteFile(filepath.Join(sh.dist, out), body, 0o644); err != nil {
			return err
		}
		fmt.Printf("%8d  %s\n", len(body), filepath.Join(sh.dist, out))
	}
	b, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(sh.dist, "manifest.json"), append(b, '\n'), 0o644)
}

// inputs is the hash of all sources, this program and the bundler's version. The tests of
// the packages that embed dist compute the same.
func (sh shelf) inputs(version string) (string, error) {
	var names []string
	for _, glob := range append([]string{sh.home + "/src/*", sh.home + "/vendor/*", "tools/assets/*.go"}, sh.more...) {
		found, err := filepath.Glob(glob)
		if err != nil {
			return "", err
		}
		names = append(names, found...)
	}
	slices.Sort(names)
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", bundler, version)
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %x\n", filepath.ToSlash(n), sha256.Sum256(b))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// version is the bundler's, as tools/go.mod names it; this program must have been
// built with it.
func version() (string, error) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", fmt.Errorf("no build information")
	}
	for _, d := range info.Deps {
		if d.Path == bundler {
			return d.Version, nil
		}
	}
	return "", fmt.Errorf("%s is not linked", bundler)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "assets:", err)
	os.Exit(1)
}
