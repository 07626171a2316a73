package ui

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed assets/dist
var dist embed.FS

// Manifest says which file of assets/dist stands for which name, and what they were
// made from: tools/assets writes it.
type Manifest struct {
	Inputs string            `json:"inputs"` // SHA-256 of all sources and of the bundler's version
	Files  map[string]string `json:"files"`
}

// asset is a file as it is sent.
type asset struct {
	kind        string
	plain, gzip []byte
}

type bundle struct {
	manifest Manifest
	files    map[string]asset
}

// assets reads what is embedded, once, and compresses it. The bundle is part of the
// program: what is wrong with it is a mistake of the build.
var assets = sync.OnceValue(func() bundle {
	b := bundle{files: map[string]asset{}}
	raw, err := dist.ReadFile("assets/dist/manifest.json")
	if err == nil {
		err = json.Unmarshal(raw, &b.manifest)
	}
	if err != nil {
		panic("the assets were not built: " + err.Error())
	}
	for _, name := range b.manifest.Files {
		body, err := fs.ReadFile(dist, "assets/dist/"+name)
		if err != nil {
			panic("the assets were not built: " + err.Error())
		}
		a := asset{plain: body, kind: mime.TypeByExtension(path.Ext(name))}
		switch path.Ext(name) {
		case ".js":
			a.kind = "text/javascript; charset=utf-8"
		case ".css":
			a.kind = "text/css; charset=utf-8"
		case ".svg":
			a.kind = "image/svg+xml"
		}
		var z bytes.Buffer
		w, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
		if _, err := w.Write(body); err == nil && w.Close() == nil && z.Len() < len(body) {
			a.gzip = z.Bytes()
		}
		b.files[name] = a
	}
	return b
})

// AssetBase is where assets are served.
const AssetBase = "/assets/"

// AssetPath is the path of an asset by its name in the manifest, such as "app.css".
// It changes with the content.
func AssetPath(name string) string { return AssetBase + assets().manifest.Files[name] }

// Assets serves the files of the bundle. Their names change with what is in them, so
// browsers keep them for a year.
func Assets() http.Handler {
	all := assets()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := all.files[strings.TrimPrefix(r.URL.Path, AssetBase)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.kind)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("Vary", "Accept-Encoding")
		body := a.plain
		if a.gzip != nil && AcceptsGzip(r.Header.Get("Accept-Encoding")) {
			body = a.gzip
			h.Set("Content-Encoding", "gzip")
		}
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if r.Method != http.MethodHead {
			_, _ = w.Write(body)
		}
	})
}

func AcceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		name, param, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") && strings.ReplaceAll(param, " ", "") != "q=0" {
			return true
		}
	}
	return false
}
