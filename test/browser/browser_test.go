//go:build e2e

package browser

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestTheBrowserNoticesWhatIsWrong: each thing that a page must not do is seen by the harness, and a good page has none.
func TestTheBrowserNoticesWhatIsWrong(t *testing.T) {
	const good = `<!DOCTYPE html><html lang="en"><head><title>A page</title><meta name="viewport" content="width=device-width"></head>
		<body><main><h1>A page</h1><form><label for="n">Name</label> <input id="n"><button>Save</button></form>%s</main></body></html>`
	pages := map[string]string{
		"/good":     "",
		"/script":   `<script src="/broken.js"></script>`,
		"/policy":   `<p style="color:red">x</p>`,
		"/outside":  `<img src="https://latchkey.example/x.png" alt="x">`,
		"/missing":  `<img src="/missing.png" alt="x">`,
		"/unnamed":  `<input>`,
		"/sideways": `<pre>` + strings.Repeat("x", 400) + `</pre>`,
	}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https:")
		body, ok := pages[r.URL.Path]
		switch {
		case r.URL.Path == "/broken.js":
			w.Header().Set("Content-Type", "text/javascript")
			fmt.Fprint(w, "nothing.there()")
		case !ok:
			http.NotFound(w, r)
		default:
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(w, good, body)
		}
	}))
	defer srv.Close()
	b := Start(t)
	for path, want := range map[string]string{
		"/good": "", "/script": "a script failed", "/policy": "content security policy", "/outside": "a request to another place", "/missing": "404",
		"/unnamed": "label", "/sideways": "sideways",
	} {
		p := b.Open(t, srv.URL)
		p.Expect("/favicon.ico")
		p.Visit(path, 200)
		p.Look(Views[3])
		if path == "/good" {
			p.Fill("Name", "Zoë")
			if v := p.Value("Name"); v != "Zoë" || p.Focus() != "input Name" {
				t.Errorf("the field holds %q, the focus is on %q", v, p.Focus())
			}
		}
		var found []string
		found = append(found, p.Axe()...)
		if by, what := p.Sideways(); by > 0 {
			found = append(found, fmt.Sprintf("sideways by %d: %s", by, what))
		}
		// What the browser tells comes when it likes; a good page is given a moment to be
		// found wrong.
		told := func() bool { return strings.Contains(strings.ToLower(strings.Join(found, "\n")), want) }
		end := time.Now().Add(Patience)
		if want == "" {
			end = time.Now().Add(time.Second)
		}
		for found = append(found, p.Faults()...); (want == "" || !told()) && time.Now().Before(end); time.Sleep(25 * time.Millisecond) {
			found = append(found, p.Faults()...)
		}
		if all := strings.Join(found, "\n"); (all == "") != (want == "") || !strings.Contains(strings.ToLower(all), want) {
			t.Errorf("%s: want %q, found: %s", path, want, all)
		}
		if w := p.Weight(); w < 100 || w > 5000 {
			t.Errorf("%s weighs %v octets", path, w)
		}
	}
}
