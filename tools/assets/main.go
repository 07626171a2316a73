// Command assets bundles the style sheet and the scripts of the console: it reads
// internal/server/web/ui/assets/src and …/vendor and writes …/dist, where every file
// has the hash of its content in its name, with a manifest. It needs no Node and no
// network; two runs over one tree write the same bytes.
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

const (
	home    = "internal/server/web/ui/assets"
	bundler = "github.com/evanw/esbuild"
)

// entries are the bundles: the name that pages use, and the source.
var entries = [][2]string{{"app.css", "src/app.css"}, {"app.js", "src/app.ts"}, {"theme.js", "src/theme.ts"}}

// copies are sent as they came.
var copies = [][2]string{{"htmx.js", "vendor/htmx.min.js"}, {"icon.svg", "src/icon.svg"}}

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
	files := map[string][]byte{}
	for _, e := range entries {
		r := api.Build(api.BuildOptions{
			EntryPoints: []string{filepath.Join(home, e[1])}, Bundle: true, Write: false, Format: api.FormatIIFE, Charset: api.CharsetUTF8,
			MinifyWhitespace: true, MinifyIdentifiers: true, MinifySyntax: true, LegalComments: api.LegalCommentsNone,
			Target: api.ES2022, Outdir: "out",
			// light-dark() and nesting are left to the browser.
			Supported: map[string]bool{"nesting": true},
			LogLevel:  api.LogLevelWarning,
		})
		if len(r.Errors) > 0 || len(r.Warnings) > 0 || len(r.OutputFiles) != 1 {
			fail(fmt.Errorf("%s: %d errors, %d warnings", e[1], len(r.Errors), len(r.Warnings)))
		}
		files[e[0]] = r.OutputFiles[0].Contents
	}
	for _, c := range copies {
		b, err := os.ReadFile(filepath.Join(home, c[1]))
		if err != nil {
			fail(err)
		}
		files[c[0]] = b
	}

	inputs, err := inputs(version)
	if err != nil {
		fail(err)
	}
	manifest := struct {
		Inputs string            `json:"inputs"`
		Files  map[string]string `json:"files"`
	}{inputs, map[string]string{}}
	dist := filepath.Join(home, "dist")
	if err := os.RemoveAll(dist); err != nil {
		fail(err)
	}
	if err := os.MkdirAll(dist, 0o755); err != nil {
		fail(err)
	}
	for name, body := range files {
		sum := sha256.Sum256(body)
		ext := filepath.Ext(name)
		out := strings.TrimSuffix(name, ext) + "-" + hex.EncodeToString(sum[:])[:12] + ext
		manifest.Files[name] = out
		if err := os.WriteFile(filepath.Join(dist, out), body, 0o644); err != nil {
			fail(err)
		}
		fmt.Printf("%8d  %s\n", len(body), out)
	}
	b, err := json.MarshalIndent(manifest, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(dist, "manifest.json"), append(b, '\n'), 0o644)
	}
	if err != nil {
		fail(err)
	}
}

// inputs is the hash of all sources, this program and the bundler's version. The test
// of package ui computes the same.
func inputs(version string) (string, error) {
	var names []string
	for _, glob := range []string{home + "/src/*", home + "/vendor/*", "tools/assets/*.go"} {
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
