//go:build e2e

package browser

import (
	"strings"
	"testing"

	"latchkey/internal/server/session"
	"latchkey/test/fill"
)

// maxWeight is what a page may weigh on the wire, with everything that it loads, for somebody who was never here.
const maxWeight = 100_000

// TestEveryPage opens every page that the server has a route for, as it is seen in the dark and in the light, on a wide
// screen and on a phone: WCAG 2.2 AA holds by the rules of axe-core, no script fails, the content security policy stops
// nothing, nobody else is asked for anything, nothing sticks out, and the page is light. Pictures go to artifacts/screens.
func TestEveryPage(t *testing.T) {
	s, named, cookie := filled(t)
	empty := start(t, short(t))
	b := Start(t)
	pages, missing := fill.Pages(named)
	for _, m := range missing {
		t.Errorf("nobody has said what stands in the path of %s: add it to Named.address in test/fill/paths.go", m)
	}
	windows, whole := map[string]*Page{}, t
	for _, pg := range pages {
		name := strings.Trim(strings.NewReplacer("/", "-", "{", "", "}", "", "$", "").Replace(strings.TrimPrefix(pg.Pattern, "GET ")), "-")
		t.Run(name, func(t *testing.T) {
			who := "owner"
			switch {
			case pg.Path == "/setup":
				who = "nobody yet"
			case pg.Anyone:
				who = "guest"
			}
			if windows[who] == nil {
				base := s.base
				if who == "nobody yet" {
					base = empty.base
				}
				windows[who] = b.Open(whole, base)
				if who == "owner" {
					windows[who].Cookie(session.Cookie, cookie)
				}
			}
			windows[who].In(t, func(p *Page) { look(t, p, name, pg.Path) })
		})
	}
}

// look judges one page in all views.
func look(t *testing.T, p *Page, name, path string) {
	p.Look(Views[0])
	p.Weight()
	p.Visit(path, 200)
	if got, _, _ := strings.Cut(p.Path(), "?"); got != path {
		t.Errorf("%s leads to %s", path, p.Path())
	}
	for i, v := range Views {
		p.Look(v)
		rules := []string{"color-contrast"} // the dark side differs by its colours alone
		if !v.Dark {
			rules = nil
		}
		for _, f := range p.Axe(rules...) {
			t.Errorf("%s, %s: %s", path, v.Name, f)
		}
		if by, what := p.Sideways(); by > 0 {
			t.Errorf("%s, %s: it is %d pixels too wide: %s", path, v.Name, by, what)
		}
		p.Screenshot(name + "-" + v.Name)
		if i == 0 {
			if w := p.Weight(); w > maxWeight {
				t.Errorf("%s weighs %.0f octets, more than %d", path, w, maxWeight)
			}
		}
	}
	for _, f := range p.Faults() {
		t.Errorf("%s: %s", path, f)
	}
	if t.Failed() {
		p.dump()
	}
}
