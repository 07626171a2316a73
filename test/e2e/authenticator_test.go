//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"latchkey/internal/text"
	"latchkey/test/browser"
)

// TestTheAppOpensSSH: Latchkey Authenticator itself, in a browser of a phone's size, approves a sign-in on a real sshd by the
// number that stands there, denies one, has one guess, and reports one; its code opens sshd while requests are switched
// off (S12, M3, M7). What is asked of a phone in software is asked in TestPhones.
func TestTheAppOpensSSH(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.m.SSHD()
	p := browser.Start(t).Open(t, w.door())
	p.Look(browser.View{Name: "phone-light", Width: 360, Height: 740})
	_, code, _ := strings.Cut(w.phoneLink(alice), "#")
	p.Visit("/authenticator/#"+code, 200)
	p.Click("Add this device")
	p.See("alice was added.")
	p.Eval(`location.hash = "#/codes"`, nil)

	begin := func() (*Terminal, string) {
		t.Helper()
		term := s.here().SSHTerminal("alice", markerCmd, once...)
		dialogue(t, term, "assword: ", alice.pw, phoneOfTwo, "1")
		n := number(t, term)
		p.See("A sign-in at desk waits for your answer.")
		p.Click("Look at it")
		p.See("Is this you?")
		return term, n
	}
	before := s.mark()
	term, n := begin()
	for _, want := range []string{"desk", "Sign in over the network", "sshd", "127.0.0.1", text.PlaceNetwork} {
		p.See(want)
	}
	p.Screenshot("authenticator-request-of-a-machine")
	p.Fill("Number shown at the sign-in", n)
	p.Click("Approve")
	p.See("Approved")
	dialogue(t, term, "press Enter", "")
	ends(t, term, true)
	if e := s.last("signin.allowed", "alice", before); e.Factor != "push" || e.Service != "sshd" {
		t.Errorf("%+v", e)
	}

	before = s.mark()
	term, _ = begin()
	p.Click("Deny")
	p.See("Denied")
	dialogue(t, term, "press Enter", "")
	ends(t, term, false)
	if e := s.last("signin.denied", "alice", before); e.Reason != "push-denied" {
		t.Errorf("%+v", e)
	}

	w.cli("user", "unlock", "alice")
	before = s.mark()
	term, n = begin()
	wrong := "42"
	if n == wrong {
		wrong = "43"
	}
	p.Expect("422")
	p.Fill("Number shown at the sign-in", wrong)
	p.Click("Approve")
	p.See("Wrong number")
	dialogue(t, term, "press Enter", "")
	ends(t, term, false)
	if e := s.last("signin.denied", "alice", before); e.Reason != "push-wrong-number" {
		t.Errorf("%+v", e)
	}

	w.cli("user", "unlock", "alice")
	before = s.mark()
	term, _ = begin()
	p.Click("It wasn't me")
	p.See("Report this sign-in?")
	p.Click("Report it")
	p.See("your administrators are told")
	dialogue(t, term, "press Enter", "")
	ends(t, term, false)
	if e := s.last("signin.denied", "alice", before); e.Reason != "push-reported" {
		t.Errorf("%+v", e)
	}

	// Nothing more is sent; the code of the app opens.
	w.cli("user", "unlock", "alice")
	p.Click("Done")
	p.See("Requests are switched off for this account")
	p.Eval(`location.hash = "#/codes"`, nil)
	p.Until("a code is shown", `document.querySelector(".code [data-code]") !== null`)
	var shown string
	p.Eval(`document.querySelector(".code [data-code]").dataset.code`, &shown)
	opened(t, s.here().SSH("alice", Say("assword: ", alice.pw, "code: ", shown)), true)
}
