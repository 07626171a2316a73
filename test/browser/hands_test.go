//go:build e2e

package browser

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"latchkey/internal/otp"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/words"
)

// inDialog tells where the focus is: in the open dialog, nowhere (which is where a browser goes on to its own bars), or
// behind the dialog.
const inDialog = `(d => !d ? "no dialog" : d.contains(document.activeElement) ? "in" : document.activeElement === document.body ? "nowhere" : "behind")(document.querySelector("dialog[open]"))`

// trapped goes round with the tab key: nothing behind the dialog ever has the focus.
func trapped(t *testing.T, p *Page) {
	t.Helper()
	for range 12 {
		p.Key(kb.Tab)
		var where string
		if p.Eval(inDialog, &where); where == "behind" || where == "no dialog" {
			t.Errorf("with the tab key the focus comes to %q, %s the dialog", p.Focus(), where)
			return
		}
	}
}

// TestByKeyboard: somebody who has no mouse signs in, finds people, and is asked before something is done.
func TestByKeyboard(t *testing.T) {
	s, named, _ := filled(t)
	p := Start(t).Open(t, s.base)
	p.Look(Views[0])
	key := otp.FormatSeed(named.Key)

	p.Visit("/", 200)
	p.At("/signin")
	if f := p.Focus(); !strings.Contains(f, words.FieldUserName) {
		t.Errorf("the focus of the sign-in is on %q", f)
	}
	p.Key(named.Admin)
	p.Key(kb.Tab)
	p.Key(named.Password)
	p.Key(kb.Enter)
	p.See(words.CodeTitle)
	if f := p.Focus(); !strings.Contains(f, words.FieldCode) {
		t.Errorf("the focus is on %q when a code is asked for", f)
	}
	p.Expect("401")
	p.Key(s.code(key))
	p.Key(kb.Enter)
	p.At("/console")

	// The first thing that the tab key comes to leads past the menu.
	p.Key(kb.Tab)
	if f := p.Focus(); !strings.Contains(f, words.SkipToContent) {
		t.Errorf("the tab key first comes to %q", f)
	}
	p.Key(kb.Enter)
	p.Until("the focus is in the page's main part", `document.querySelector("main").contains(document.activeElement)`)

	// The palette finds a user, and gives the focus back.
	p.Eval(`document.querySelector("#menu a[href='/console/groups']").focus()`, nil)
	was := p.Focus()
	palette := func() {
		p.Key("k", chromedp.KeyModifiers(input.ModifierCtrl))
		p.Until("the palette is open", `document.querySelector("dialog.palette[open] input") === document.activeElement`)
	}
	palette()
	trapped(t, p)
	p.Key(kb.Escape)
	p.Until("the palette is closed", `document.querySelector("dialog[open]") === null`)
	if f := p.Focus(); f != was {
		t.Errorf("behind the palette the focus is on %q, and was on %q", f, was)
	}
	palette()
	p.Key(named.Usual)
	p.Until("the user is found", `[...document.querySelectorAll("dialog[open] [role=option]")].some(o => o.textContent.includes(`+quote(named.Usual)+`))`)
	p.Key(kb.Enter)
	p.At("/console/users/" + named.Usual)

	// A question is a dialog: it holds the focus, and gives it back.
	open := `document.querySelector("details.confirm > summary")`
	p.Eval(open+".focus()", nil)
	was = p.Focus()
	p.Key(kb.Enter)
	p.Until("the question is asked", `document.querySelector("dialog[open]") !== null`)
	trapped(t, p)
	p.Key(kb.Escape)
	p.Until("the question is gone", `document.querySelector("dialog[open]") === null`)
	p.Until("the focus is back on what had asked", `document.activeElement === `+open)
	if f := p.Focus(); f != was {
		t.Errorf("behind the question the focus is on %q, and was on %q", f, was)
	}

	// Single keys.
	p.Key("g")
	p.Key("u")
	p.At("/console/users")
	p.Key("/")
	p.Until("the filter has the focus", `document.activeElement.matches("input")`)
	p.Key(named.Usual[:5])
	p.Key(kb.Enter)
	p.See(named.Usual)
	p.Eval("document.activeElement.blur()", nil)
	p.Key("?")
	p.Until("the keys are shown", `document.querySelector("dialog[open]") !== null`)
	p.See(words.Keys)
	trapped(t, p)
	p.Key(kb.Escape)
	p.Until("the keys are gone", `document.querySelector("dialog[open]") === null`)
}

// TestWithoutScript: the main work is done with forms and links alone.
func TestWithoutScript(t *testing.T) {
	s, named, _ := filled(t)
	p := Start(t).Open(t, s.base)
	p.Look(Views[0])
	p.NoScript(true)
	key := otp.FormatSeed(named.Key)

	p.Visit("/signin", 200)
	p.Fill(words.FieldUserName, named.Admin)
	p.Fill(words.FieldPassword, "not the password")
	p.Expect("401")
	p.Click(words.SignInGo)
	p.Until("the sign-in is refused", `document.querySelector("[aria-invalid], .notice, .summary, [role=alert]") !== null`)
	p.Fill(words.FieldPassword, named.Password)
	p.Click(words.SignInGo)
	p.See(words.CodeTitle)
	p.Fill(words.FieldCode, s.code(key))
	p.Click(words.Continue)
	p.At("/console")

	// A user is added; what is wrong is said at the field, and what was typed is still there.
	p.Visit("/console/users/new", 200)
	p.Expect("422")
	p.Expect("409")
	p.Fill(words.DeskUserName, "nora")
	p.Fill(words.DeskDisplayName, "Nora Noscript")
	p.Fill(words.DeskPassword, "short")
	p.Fill(words.DeskPasswordAgain, "short")
	p.Click(words.DeskUserAdd)
	p.Until("the password is at fault", `document.querySelector("[aria-invalid=true]") !== null`)
	if v := p.Value(words.DeskDisplayName); v != "Nora Noscript" {
		t.Errorf("what was typed is gone: %q", v)
	}
	p.Click(words.DeskUserAdd)
	p.See(words.DeskUserAdded("nora"))

	// She is found by the filter, and disabled behind a question.
	p.Visit("/console/users", 200)
	p.Eval(`document.querySelector("[data-filter], .filters input").focus()`, nil)
	p.Key("nora")
	p.Key(kb.Enter)
	p.Until("nora is found", `[...document.querySelectorAll("tbody a")].some(a => a.textContent.trim() === "nora")`)
	p.Click("nora")
	p.Until("her page is there", `location.pathname.startsWith("/console/users/") && document.querySelector("h1").textContent.includes("nora")`)
	p.Click(words.DeskDisable)
	p.See(words.DeskDisableText)
	p.click("the button of the question", `[...document.querySelectorAll("details.confirm[open] button")].find(b => b.textContent.trim().startsWith(`+quote(words.DeskDisable)+`))`)
	p.See(words.DeskUserDisabled("nora"))

	// Events are filtered by the address alone.
	p.Visit("/console/events", 200)
	p.See("user.")
	p.Visit("/me", 200)
	p.Visit("/signout", 200)
	p.Click(words.SignOut)
	p.See(words.SignedOut)
	p.Visit("/console", 200)
	p.At("/signin")
}

// TestASessionIsOverEverywhere: what was ended in one browser is ended in the other one, whatever it is doing.
func TestASessionIsOverEverywhere(t *testing.T) {
	s, _, cookie := filled(t)
	b := Start(t)
	one, two := b.Open(t, s.base), b.Open(t, s.base)
	for _, p := range []*Page{one, two} {
		p.Cookie(session.Cookie, cookie)
		p.Visit("/console", 200)
	}
	one.Visit("/signout", 200)
	one.Click(words.SignOut)
	one.See(words.SignedOut)
	two.Visit("/console/users", 200)
	two.At("/signin")
}
