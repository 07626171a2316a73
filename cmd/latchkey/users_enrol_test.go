package main

import (
	"testing"

	"latchkey/internal/rest"
)

// TestWhatIsAskedForInsteadOfAnEnrolmentCode: the portal offers the code beside backup
// codes and codes by mail or text message, and the command says so of none of them.
func TestWhatIsAskedForInsteadOfAnEnrolmentCode(t *testing.T) {
	for kind, want := range map[string]bool{
		"totp": true, "push": true, "fido2": true,
		"backup": false, "mail": false, "sms": false, "enrol": false, "bypass": false, "": false,
	} {
		if got := insteadOfCode(rest.Factor{Kind: kind, State: "usable"}); got != want {
			t.Errorf("a factor %q is asked for instead: %v", kind, got)
		}
	}
}
