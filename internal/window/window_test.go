package window

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"latchkey/internal/policy"
)

var t0 = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func TestW1LengthFollowsThePolicy(t *testing.T) {
	p := policy.NewPolicy()
	w, ok := Open(p, "u", "m", "b", policy.Logon, []policy.Factor{policy.TOTP}, t0)
	if !ok || w.Expires != t0.Add(8*time.Hour) {
		t.Fatalf("default window %v, %v; want 8 hours", w.Expires.Sub(w.Opened), ok)
	}
	p.Window = 0
	if _, ok := Open(p, "u", "m", "b", policy.Logon, []policy.Factor{policy.TOTP}, t0); ok {
		t.Error("a length of 0 opens a window")
	}
	p.Window = policy.Duration(time.Hour)
	if _, ok := Open(p, "u", "m", "b", policy.Logon, nil, t0); ok {
		t.Error("a sign-in without a second factor opens a window")
	}
}

func TestW7NeitherForeignNorProlongedByTheClock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := policy.NewPolicy()
		p.Window = policy.Duration(time.Duration(rapid.Int64Range(1, int64(7*24*time.Hour)).Draw(t, "length")))
		w, _ := Open(p, "u", "m", "b", policy.Logon, []policy.Factor{policy.TOTP}, t0)
		at := t0.Add(time.Duration(rapid.Int64Range(-int64(1000*time.Hour), int64(1000*time.Hour)).Draw(t, "at")))
		fact := w.Fact("u", "m", at)
		inside := !at.Before(t0) && at.Before(t0.Add(time.Duration(p.Window)))
		if (fact != nil) != inside {
			t.Fatalf("at %v fact %v, inside %v", at, fact, inside)
		}
		if w.Fact("u", "other", at) != nil || w.Fact("other", "m", at) != nil {
			t.Fatal("window holds for somebody else")
		}
	})
}

func TestW6Ends(t *testing.T) {
	p := policy.NewPolicy()
	if Ends(p, policy.EndReboot) {
		t.Error("the default policy ends windows early")
	}
	p.WindowEndsOn = []policy.WindowEnd{policy.EndLogoff}
	if !Ends(p, policy.EndLogoff) || Ends(p, policy.EndNetwork) {
		t.Error("occasions are mixed up")
	}
}
