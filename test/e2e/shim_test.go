//go:build e2e

package e2e

import (
	"testing"

	"latchkey/internal/shim"
)

// passwordAndCode is the usual script: password "latchkey pw", code "123456", three
// tries each.
func passwordAndCode(c *Caller) {
	if c.Phase != shim.PhaseAuth {
		c.Say(shim.Allow{User: c.User})
		return
	}
	if c.Mode == shim.ModeFull && c.First != shim.FirstSSHKey && !c.HasAuthtok {
		pw, ok := c.Secret("Password: ")
		if !ok {
			return
		}
		if pw != "latchkey pw" {
			c.Say(shim.Deny{Text: "Sign-in failed."})
			return
		}
	}
	for range 3 {
		code, ok := c.Ask("One-time code: ")
		if !ok {
			return
		}
		if code == "123456" {
			c.Say(shim.Allow{User: c.User})
			return
		}
		c.Say(shim.Warn{Text: "This code is wrong."})
	}
	c.Say(shim.Deny{Text: "Too many wrong codes."})
}

func TestPamtesterWithPasswordAndCode(t *testing.T) {
	m := NewMachine(t)
	m.AddUser("alice", "unix pw")
	m.PAM("latchkey-test", m.Shipped("latchkey-full"))
	f := m.FakeAgent(passwordAndCode)
	r := m.Pamtester(nil, "latchkey-test", "alice", []string{"authenticate", "acct_mgmt"}, Say("assword: ", "latchkey pw", "code: ", "123456"))
	if !r.Opened {
		t.Fatalf("%+v", r)
	}
	t.Log(r.Output, r.Took, r.Waits)
	q := f.Request(t, shim.PhaseAuth)
	t.Logf("%+v", q.Request)
}
