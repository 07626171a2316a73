package browser

import (
	"encoding/json"
	"fmt"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

func quote(s string) string {
	b, _ := json.Marshal(s) // strings are always JSON
	return string(b)
}

// find is a script that gives an element as a person names it: what is seen, or what a screen reader says. kind is "field"
// or "control"; among several the one in an open dialog comes first, then the first one that is exactly so.
func find(kind, name string) string {
	return fmt.Sprintf(`((kind, name) => {
	const norm = s => (s || "").replace(/\s+/g, " ").trim();
	const seen = e => e.checkVisibility ? e.checkVisibility({checkVisibilityCSS: true}) : true;
	const said = e => {
		const by = (e.getAttribute("aria-labelledby") || "").split(/\s+/).filter(Boolean).map(i => document.getElementById(i)).filter(Boolean);
		if (by.length) return norm(by.map(b => b.textContent).join(" "));
		if (e.getAttribute("aria-label")) return norm(e.getAttribute("aria-label"));
		if (kind === "field" && e.labels && e.labels.length) return norm([...e.labels].map(l => l.textContent).join(" "));
		return norm(e.innerText || e.textContent || e.value || e.title);
	};
	const which = kind === "field" ? "input:not([type=hidden]):not([type=submit]), select, textarea" : "button, a[href], summary, input[type=submit], [role=button], [role=option], [role=menuitem]";
	const all = [...document.querySelectorAll(which)].filter(e => kind === "field" && /^(checkbox|radio|file)$/.test(e.type) || seen(e));
	const open = document.querySelector("dialog[open], [popover]:popover-open");
	for (const among of open ? [all.filter(e => open.contains(e)), all] : [all])
		for (const like of [s => s === name, s => s.startsWith(name), s => s.includes(name)])
			for (const e of among) if (like(said(e))) return e;
	return null;
})(%s, %s)`, quote(kind), quote(name))
}

// Has tells whether a control of the name is there now.
func (p *Page) Has(name string) bool {
	var ok bool
	return p.eval(find("control", name)+" !== null", &ok) == nil && ok
}

// Fill types a text into the field with the label, in place of what is in it.
func (p *Page) Fill(label, text string) {
	p.t.Helper()
	p.Until("there is a field "+quote(label), find("field", label)+" !== null")
	e := find("field", label)
	p.Eval(`(e => { e.scrollIntoView({block: "center"}); e.focus(); if (e.select) e.select(); return true })(`+e+`)`, nil)
	p.do("type into "+quote(label), chromedp.KeyEvent(kb.Delete), chromedp.KeyEvent(text))
}

// Value is what is in a field.
func (p *Page) Value(label string) (s string) {
	p.t.Helper()
	p.Until("there is a field "+quote(label), find("field", label)+" !== null")
	p.Eval(find("field", label)+".value", &s)
	return s
}

// Select chooses an option by its text or value.
func (p *Page) Select(label, option string) {
	p.t.Helper()
	p.Until("there is a field "+quote(label), find("field", label)+" !== null")
	var ok bool
	p.Eval(`((e, want) => {
		const o = [...e.options].find(o => o.text.trim() === want || o.value === want);
		if (!o) return false;
		e.value = o.value;
		e.dispatchEvent(new Event("input", {bubbles: true}));
		e.dispatchEvent(new Event("change", {bubbles: true}));
		return true;
	})(`+find("field", label)+`, `+quote(option)+`)`, &ok)
	if !ok {
		p.t.Fatalf("%s has no option %s", quote(label), quote(option))
	}
}

// Check switches a box or a choice on.
func (p *Page) Check(label string) {
	p.t.Helper()
	p.Until("there is a field "+quote(label), find("field", label)+" !== null")
	p.Eval(`(e => { if (!e.checked) e.click(); return true })(`+find("field", label)+`)`, nil)
}

// Click clicks on a button, a link or what else is called so, with the mouse.
func (p *Page) Click(name string) {
	p.t.Helper()
	p.Until("there is a button or link "+quote(name), find("control", name)+" !== null")
	p.click(name, find("control", name))
}

func (p *Page) click(name, element string) {
	p.t.Helper()
	var at struct{ X, Y float64 }
	// Without waiting for a frame: where scripts are switched off none would call back.
	p.Eval(`(e => {
		e.scrollIntoView({block: "center", behavior: "instant"});
		const b = e.getBoundingClientRect();
		return {X: b.left + b.width / 2, Y: b.top + b.height / 2};
	})(`+element+`)`, &at)
	p.do("click on "+quote(name), chromedp.MouseClickXY(at.X, at.Y))
}

// Key types a text, or presses keys of package kb. A single letter is pressed as by a finger: what a script makes of it
// keeps it from being typed.
func (p *Page) Key(keys string, mods ...chromedp.KeyOption) {
	p.t.Helper()
	if len(keys) == 1 && len(mods) == 0 && keys[0] > ' ' && keys[0] < 0x7f {
		p.do("press "+quote(keys),
			input.DispatchKeyEvent(input.KeyDown).WithKey(keys).WithText(keys).WithUnmodifiedText(keys),
			input.DispatchKeyEvent(input.KeyUp).WithKey(keys))
		return
	}
	p.do("press "+quote(keys), chromedp.KeyEvent(keys, mods...))
}

// Focus is how a screen reader would call what has the focus: its tag and its name.
func (p *Page) Focus() (s string) {
	p.t.Helper()
	p.Eval(`(e => !e || e === document.body ? "" : e.tagName.toLowerCase() + " " + ((e.labels && e.labels[0] && e.labels[0].textContent || e.getAttribute("aria-label") || e.innerText || e.textContent || e.name || e.id || "").replace(/\s+/g, " ").trim()))(document.activeElement)`, &s)
	return s
}

// NoScript switches the scripts of pages off, or on again.
func (p *Page) NoScript(off bool) {
	p.t.Helper()
	p.do("switch scripts off", emulation.SetScriptExecutionDisabled(off))
}
