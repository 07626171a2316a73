package fault

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestPublicTextNeverShowsTheCause(t *testing.T) {
	f := New(Internal, errors.New("dial tcp 192.0.2.1: secret detail"))
	if strings.Contains(f.Public(), "secret") {
		t.Error(f.Public())
	}
	if !strings.Contains(f.Error(), "secret") {
		t.Error("the log does not show the cause")
	}
	if Of(fmt.Errorf("wrapped: %w", f)) != f || Of(errors.New("x")).Code != Internal {
		t.Error("Of does not find the fault")
	}
	if (&Fault{Code: "unheard of"}).Status() != 500 {
		t.Error("an unknown code is not 500")
	}
	g := Newf(Invalid, "The user can not be added.").With("name", "is empty; allowed are 1 to 128 octets")
	if g.Public() != "The user can not be added. name: is empty; allowed are 1 to 128 octets." || g.Status() != 422 {
		t.Error(g.Public(), g.Status())
	}
}
