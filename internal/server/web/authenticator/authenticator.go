// Package authenticator serves Latchkey Authenticator, the app for phones: a page that is
// the same for everybody, its style and script, the service worker by which it opens
// without network, and the manifest by which it is installed. What the app says to the
// server goes through the door of package push.
//
// It promises: the first load is light (a test weighs it); nothing comes from another
// host; the page knows nothing of who asks; a browser gets a new version as a whole and
// uses it when the person wants to; the camera, and workers, are allowed here and on no
// other page.
//
// The app keeps an ECDSA key and the seeds of codes as keys that can not be exported, and
// signs each answer over what was shown. Its sources are in src, bundled by tools/assets
// into dist; the reader of QR codes in vendor is loaded when it is needed.
//
// Rows: M3, S12 (number matching, what a request shows, "it wasn't me"), M1 (codes).
package authenticator

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// Base is where the app lives: the scope of its service worker, too.
const Base = "/authenticator/"

// Policy is the Content-Security-Policy of the app: that of all pages, and besides its
// worker, its manifest and the camera's picture.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; media-src 'self' blob: mediastream:; worker-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Permissions is its Permissions-Policy: the camera, for QR codes.
const Permissions = "camera=(self), publickey-credentials-get=(self), publickey-credentials-create=(self), microphone=(), geolocation=(), payment=(), usb=(), serial=(), display-capture=()"

// The ground of a page, as tokens.css has it.
const (
	groundLight = "#f6f7f9"
	groundDark  = "#0f1216"
)

//go:embed dist
var dist embed.FS

// file is one of the app's, as it is sent.
type file struct {
	kind        string
	plain, gzip []byte
	etag        string
	fixed       bool // its name changes with its content
}

// site is all that is served.
type site struct {
	version string
	names   map[string]string // of the bundle: "app.js" → "app-0123456789ab.js"
	files   map[string]file   // by path
}

func (s site) path(name string) string { return Base + s.names[name] }

// bundle reads what is embedded and makes the rest, once. It is part of the program: what
// is wrong with it is a mistake of the build.
var bundle = sync.OnceValue(func() site { return build("") })

// build makes a site; mark makes another version of it, for tests.
func build(mark string) site {
	var manifest struct {
		Files map[string]string `json:"files"`
	}
	raw, err := dist.ReadFile("dist/manifest.json")
	if err == nil {
		err = json.Unmarshal(raw, &manifest)
	}
	if err != nil {
		panic("the authenticator was not built: " + err.Error())
	}
	s := site{names: manifest.Files, files: map[string]file{}}
	for _, name := range manifest.Files {
		body, err := dist.ReadFile("dist/" + name)
		if err != nil {
			panic("the authenticator was not built: " + err.Error())
		}
		if name != manifest.Files["worker.js"] {
			s.add(Base+name, body, true)
		}
	}
	for _, size := range []int{180, 192, 512} {
		s.add(fmt.Sprintf("%sicon-%d.png", Base, size), drawIcon(size), false)
	}
	s.add(Base+"manifest.webmanifest", s.webManifest(), false)

	// The version is that of all that is kept by a browser.
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n", mark, manifest.Files["worker.js"])
	for _, at := range s.kept() {
		fmt.Fprintf(sum, "%s %s\n", at, s.files[at].etag)
	}
	var b bytes.Buffer
	if err := shell(s, "").Render(context.Background(), &b); err != nil {
		panic("the authenticator's page: " + err.Error())
	}
	_, _ = sum.Write(b.Bytes())
	s.version = hex.EncodeToString(sum.Sum(nil))[:12]
	b.Reset()
	if err := shell(s, s.version).Render(context.Background(), &b); err != nil {
		panic("the authenticator's page: " + err.Error())
	}
	s.add(Base, b.Bytes(), false)

	list, err := json.Marshal(map[string]any{"version": s.version, "files": append(s.kept(), Base)})
	if err != nil {
		panic(err)
	}
	worker, err := dist.ReadFile("dist/" + manifest.Files["worker.js"])
	if err != nil {
		panic("the authenticator was not built: " + err.Error())
	}
	s.add(Base+"worker.js", slices.Concat([]byte("self.precache="), list, []byte(";"), worker), false)
	return s
}

// kept are the paths that a browser keeps beside the page, so that the app opens without
// network. The reader of QR codes is fetched when it is needed: adding an account needs
// the network anyway.
func (s site) kept() []string {
	return []string{s.path("app.css"), s.path("app.js"), s.path("icon.svg"), Base + "icon-192.png", Base + "manifest.webmanifest"}
}

func (s site) add(at string, body []byte, fixed bool) {
	kinds := map[string]string{
		".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png",
		".webmanifest": "application/manifest+json", "": "text/html; charset=utf-8",
	}
	sum := sha256.Sum256(body)
	f := file{kind: kinds[path.Ext(at)], plain: body, etag: `"` + hex.EncodeToString(sum[:8]) + `"`, fixed: fixed}
	var z bytes.Buffer
	w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if _, err := w.Write(body); err == nil && w.Close() == nil && z.Len() < len(body) {
		f.gzip = z.Bytes()
	}
	s.files[at] = f
}

// webManifest describes the app to whoever installs it (W3C Web Application Manifest).
func (s site) webManifest() []byte {
	type icon struct {
		Src     string `json:"src"`
		Sizes   string `json:"sizes"`
		Type    string `json:"type"`
		Purpose string `json:"purpose"`
	}
	b, err := json.MarshalIndent(map[string]any{
		"id": Base, "start_url": Base, "scope": Base, "display": "standalone", "lang": "en", "dir": "ltr",
		"name": words.AuthenticatorName, "short_name": words.Product, "description": words.AuthenticatorAbout,
		"theme_color": groundLight, "background_color": groundLight, "categories": []string{"security", "utilities"},
		"icons": []icon{
			{Base + "icon-192.png", "192x192", "image/png", "any"},
			{Base + "icon-512.png", "512x512", "image/png", "any"},
			{Base + "icon-512.png", "512x512", "image/png", "maskable"},
			{s.path("icon.svg"), "any", "image/svg+xml", "any"},
		},
	}, "", " ")
	if err != nil {
		panic(err)
	}
	return b
}

// Routes are the app's pages and files. Nobody needs to have signed in: the page knows
// nobody, and what it asks is signed by a device.
func Routes() []ui.Route {
	s := bundle()
	routes := []ui.Route{{Pattern: "GET " + strings.TrimSuffix(Base, "/"), Needs: ui.Anyone, Serve: func(r *ui.Request) error { return r.Go(Base, "") }}}
	for at := range s.files {
		pattern := "GET " + at
		if strings.HasSuffix(at, "/") {
			pattern += "{$}"
		}
		routes = append(routes, ui.Route{Pattern: pattern, Needs: ui.Anyone, Serve: func(r *ui.Request) error {
			s.serve(r.W, r.Request, at)
			return nil
		}})
	}
	slices.SortFunc(routes, func(a, b ui.Route) int { return strings.Compare(a.Pattern, b.Pattern) })
	return routes
}

// Version is a handler of another version of the app, for tests of how one follows
// another.
func Version(mark string) http.Handler {
	s := build(mark)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := s.files[r.URL.Path]; !ok {
			http.NotFound(w, r)
			return
		}
		s.serve(w, r, r.URL.Path)
	})
}

func (s site) serve(w http.ResponseWriter, r *http.Request, at string) {
	f := s.files[at]
	h := w.Header()
	h.Set("Content-Security-Policy", Policy)
	h.Set("Permissions-Policy", Permissions)
	h.Set("Content-Type", f.kind)
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache")
	if f.fixed {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("ETag", f.etag)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.plain
	if f.gzip != nil && ui.AcceptsGzip(r.Header.Get("Accept-Encoding")) {
		body = f.gzip
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}
