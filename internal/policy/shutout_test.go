package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestP1WhoHasNotWhatIsAskedIsShutOut: by place, and only where factors decide.
func TestP1WhoHasNotWhatIsAskedIsShutOut(t *testing.T) {
	everywhere := []Place{"logon", "elevation", "remote", "offline"}
	for name, c := range map[string]struct {
		has    []Factor
		change func(*Policy)
		user   func(*User)
		want   []Place
	}{
		"a factor that is accepted":           {has: []Factor{TOTP}},
		"none at all":                         {want: everywhere},
		"a bypass code is gone tomorrow":      {has: []Factor{Bypass}, want: everywhere},
		"none that is accepted":               {has: []Factor{TOTP}, change: func(p *Policy) { p.OnlineFactors = []Factor{Push} }, want: []Place{"logon", "elevation", "remote"}},
		"too few for a chain":                 {has: []Factor{TOTP}, change: func(p *Policy) { p.FactorsOnline = 2 }, want: []Place{"logon", "elevation", "remote"}},
		"enough for a chain":                  {has: []Factor{TOTP, Backup}, change: func(p *Policy) { p.FactorsOnline, p.FactorsOffline = 2, 2 }},
		"a key opens nothing from afar":       {has: []Factor{FIDO2}, want: []Place{"remote"}},
		"a phone does nothing on a plane":     {has: []Factor{Push}, want: []Place{"offline"}},
		"too few for a chain on a plane":      {has: []Factor{TOTP, Push}, change: func(p *Policy) { p.FactorsOffline = 2 }, want: []Place{"offline"}},
		"nobody signs in on a plane":          {has: []Factor{TOTP}, change: func(p *Policy) { p.Offline = OfflineDeny }},
		"a plane where nothing is asked":      {has: []Factor{Push}, change: func(p *Policy) { p.Offline = OfflineBypass }},
		"a scope that is not covered":         {change: func(p *Policy) { p.Scopes = []Scope{Remote} }, want: []Place{"remote"}},
		"no scope is covered":                 {change: func(p *Policy) { p.Scopes = nil }},
		"no factor is asked":                  {change: func(p *Policy) { p.FactorsOnline, p.FactorsOffline = 0, 0 }},
		"2FA is off":                          {user: func(u *User) { u.MFA = Off }},
		"may enrol at the sign-in":            {change: func(p *Policy) { p.EnrolAtSignin = true }, want: []Place{"remote", "offline"}},
		"may enrol what is not accepted":      {change: func(p *Policy) { p.EnrolAtSignin, p.OnlineFactors = true, []Factor{Push} }, want: everywhere},
		"disabled, which is another question": {has: []Factor{TOTP}, user: func(u *User) { u.Disabled, u.NotYet = true, true }},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewPolicy()
			p.Name, p.Default = "default", true
			if c.change != nil {
				c.change(&p)
			}
			u := User{ID: "u", Name: "alice", Factors: c.has}
			if c.user != nil {
				c.user(&u)
			}
			got := ShutOut(u, []Policy{p})
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if Everywhere(got) != (len(got) >= 3) {
				t.Errorf("everywhere: %v", got)
			}
		})
	}
	if SameAsked(NewPolicy(), Policy{}) {
		t.Error("another policy asks the same")
	}
	p := NewPolicy()
	p.Window, p.LockoutAfter, p.OfflineDays = 0, 3, 2
	if !SameAsked(NewPolicy(), p) {
		t.Error("a window changes who is shut out")
	}
}
