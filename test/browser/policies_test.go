//go:build e2e

package browser

import (
	"testing"

	"latchkey/internal/server/session"
	"latchkey/internal/server/web/words"
)

// TestP1WhoIsShutOutIsSeenFirst: by hand, from the editor to the list: who is shut out is named, the change is not made before
// the box is ticked, and each of the pages is fit to be seen, on a phone too.
func TestP1WhoIsShutOutIsSeenFirst(t *testing.T) {
	s, _, cookie := filled(t)
	s.cli("user", "add", "zora")
	s.cli("factor", "add", "totp", "zora")
	s.cli("group", "add", "couriers")
	s.cli("group", "member", "add", "couriers", "zora")
	s.cli("policy", "add", "couriers", "--group", "couriers", "--priority", "1")
	p := Start(t).Open(t, s.base)
	p.Look(Views[0])
	p.Cookie(session.Cookie, cookie)
	seen := func(name string) {
		t.Helper()
		for _, v := range Views {
			p.Look(v)
			for _, f := range p.Axe() {
				t.Errorf("%s, %s: %s", name, v.Name, f)
			}
			if by, what := p.Sideways(); by > 0 {
				t.Errorf("%s, %s: it is %d pixels too wide: %s", name, v.Name, by, what)
			}
			p.Screenshot("policy-" + name + "-" + v.Name)
		}
		p.Look(Views[0])
	}

	p.Visit("/console/policies", 200)
	p.Click("couriers")
	p.See(words.ShutNow)
	p.Click(words.PolicyEdit)
	p.See(words.EditTitle("couriers"))
	p.Eval(`document.querySelectorAll("input[name=online_factors]").forEach(e => e.checked = e.value === "push")`, nil)
	p.Click(words.EditReview)
	p.See(words.ShutTitle(1))
	p.See("zora")
	seen("shuts-out")
	p.Expect("409")
	p.Click(words.EditSave)
	p.See(words.ShutFault)
	seen("shuts-out-unticked")
	p.Click(words.ShutAll)
	p.See(words.ShutListTitle)
	p.See(words.ShutCount(1, 0))
	seen("shut-out-list")
	p.Click(words.EditReview)
	p.See(words.ShutTitle(1))
	p.Check(words.ShutBox(1))
	p.Click(words.EditSave)
	p.See(words.PolicySaved("couriers", 2))
	p.Click(words.ShutNow)
	p.See(words.ShutNowTitle)
	p.See("zora")
	seen("shut-out-now")

	// Back to what she has is no question.
	p.Click("couriers")
	p.See(words.ShutNow)
	s.cli("policy", "rollback", "couriers", "1")
	p.Click(words.ShutNow)
	p.See(words.ShutNobody)
	for _, f := range p.Faults() {
		t.Error(f)
	}
}
