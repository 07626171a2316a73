package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// Root is the root of the repository.
var Root = sync.OnceValue(func() string {
	dir, err := os.Getwd()
	for err == nil {
		if _, e := os.Stat(filepath.Join(dir, "go.mod")); e == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			break
		}
		dir = up
	}
	panic("the tests run outside of the repository")
})

// Artifacts is the folder for what the tests leave behind.
func Artifacts() string { return filepath.Join(Root(), "artifacts", "screens") }

// View is how a page is looked at.
type View struct {
	Name          string
	Width, Height int64
	Dark          bool
}

// Views are those in which every page must be fit to be seen.
var Views = []View{
	{"wide-light", 1280, 900, false},
	{"wide-dark", 1280, 900, true},
	{"phone-light", 360, 740, false},
	{"phone-dark", 360, 740, true},
}

// Look changes the view of the open page.
func (p *Page) Look(v View) {
	p.t.Helper()
	scheme := "light"
	if v.Dark {
		scheme = "dark"
	}
	p.do("look at it as "+v.Name,
		emulation.SetDeviceMetricsOverride(v.Width, v.Height, 1, v.Width < 600),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}))
	p.Eval("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(true))))", nil)
}

// Screenshot writes a picture of the whole page to artifacts/screens.
func (p *Page) Screenshot(name string) {
	p.t.Helper()
	if err := os.MkdirAll(Artifacts(), 0o755); err != nil {
		p.t.Fatal(err)
	}
	var size struct{ W, H float64 }
	p.Eval("({W: document.documentElement.clientWidth, H: Math.max(document.documentElement.scrollHeight, innerHeight)})", &size)
	var png []byte
	p.do("take a picture", chromedp.ActionFunc(func(ctx context.Context) (err error) {
		png, err = page.CaptureScreenshot().WithCaptureBeyondViewport(true).
			WithClip(&page.Viewport{Width: size.W, Height: min(size.H, 4000), Scale: 1}).Do(ctx)
		return err
	}))
	if err := os.WriteFile(filepath.Join(Artifacts(), name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// Sideways is by how many pixels the page is wider than the window, and what sticks out.
func (p *Page) Sideways() (by int, what string) {
	p.t.Helper()
	var out struct {
		By   int
		What string
	}
	p.Eval(`(() => {
		const w = document.documentElement.clientWidth, by = document.documentElement.scrollWidth - w;
		if (by <= 0) return {By: 0, What: ""};
		const out = [...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > w + 1 && !e.closest(".table-wrap, pre"));
		return {By: by, What: out.slice(0, 4).map(e => e.tagName.toLowerCase() + "." + [...e.classList].join(".")).join(", ")};
	})()`, &out)
	return out.By, out.What
}

var axe = sync.OnceValues(func() (string, error) {
	found, err := filepath.Glob(filepath.Join(Root(), ".cache", "assets", "axe-core-*.min.js"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("axe-core is not in .cache/assets: run scripts/axe (%v)", err)
	}
	b, err := os.ReadFile(found[0])
	return string(b), err
})

// Axe judges the open page by the rules of WCAG 2.2, levels A and AA, and those of axe-core for good practice, and gives
// what breaks them; with rules it judges by these alone.
func (p *Page) Axe(rules ...string) []string {
	p.t.Helper()
	script, err := axe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.silent(true)
	defer p.silent(false)
	p.Eval("typeof axe === 'undefined' && (() => { "+script+"; return true })()", nil)
	only := `{type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]}`
	if len(rules) > 0 {
		list, _ := json.Marshal(rules)
		only = `{type: "rule", values: ` + string(list) + `}`
	}
	var found []struct {
		ID, Help string
		Nodes    []struct {
			Target         []any
			HTML           string
			FailureSummary string
		}
	}
	p.Eval(`axe.run(document, {resultTypes: ["violations"], runOnly: `+only+`}).then(r => r.violations.map(v => ({ID: v.id, Help: v.help,
		Nodes: v.nodes.map(n => ({Target: n.target, HTML: n.html, FailureSummary: n.failureSummary}))})))`, &found)
	var out []string
	for _, v := range found {
		for i, n := range v.Nodes {
			if i == 5 {
				out = append(out, fmt.Sprintf("%s: … and %d more", v.ID, len(v.Nodes)-i))
				break
			}
			out = append(out, fmt.Sprintf("%s (%s): %v %.160s: %s", v.ID, v.Help, n.Target, n.HTML, strings.Join(strings.Fields(n.FailureSummary), " ")))
		}
	}
	return out
}

// silent passes over what the test's own scripts do.
func (p *Page) silent(on bool) {
	p.mu.Lock()
	p.quiet = on
	p.mu.Unlock()
}
