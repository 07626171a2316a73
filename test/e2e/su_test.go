//go:build e2e

package e2e

import "testing"

// TestSuAsksForTheOtherAccountsPasswordToo: S1. The caller's own password and code
// open his own account and no other.
func TestSuAsksForTheOtherAccountsPasswordToo(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s")
	alice := w.addUser("alice")
	s.m.SetPassword("root", "root's own word 9")
	s.here().PAM("su", s.m.Shipped("latchkey-full"))
	leave := Turn{Prompt: "assword: ", Answer: func() string { return "\x03" }, Keys: true}
	opened(t, s.here().Su("alice", "root", append(s.full(alice), leave)), false)
	opened(t, s.here().Su("alice", "root", append(s.full(alice), Say("assword: ", alice.pw)...)), false)
	opened(t, s.here().Su("alice", "root", append(s.full(alice), Say("assword: ", "root's own word 9")...)), true)
	opened(t, s.here().Su("alice", "alice", s.full(alice)), true)
}
