package policy

import (
	"slices"
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
		"elevation is not covered":            {change: func(p *Policy) { p.Scopes = []Scope{Logon, Remote} }, want: []Place{"logon", "remote", "offline"}},
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
			if Everywhere(got) != (len(got) >= 3 && slices.Contains(got, Place(Elevation))) {
				t.Errorf("everywhere: %v", got)
			}
			if AtNoMachine(got) != (len(got) >= 3 || name == "elevation is not covered") {
				t.Errorf("at no machine: %v", got)
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

// TestP1ALooseningShutsNobodyOut: whom the policy denied without the server lost nothing
// when it asks for factors there; whoever was let through did.
func TestP1ALooseningShutsNobodyOut(t *testing.T) {
	one := func(change func(*Policy)) []Policy {
		p := NewPolicy()
		p.Name, p.Default = "default", true
		change(&p)
		return []Policy{p}
	}
	asked := one(func(*Policy) {})
	denied := one(func(p *Policy) { p.Offline = OfflineDeny })
	free := one(func(p *Policy) { p.Offline = OfflineBypass })
	nothing, off := User{Name: "anna"}, User{Name: "anna", MFA: Off}
	both := slices.Concat(asked, denied)
	both[1].Name, both[1].Default, both[1].Groups, both[1].Priority = "planes", false, []string{"g"}, 1
	for name, c := range map[string]struct {
		user          User
		before, after []Policy
		want          []Place
	}{
		"denied before, asked after":           {nothing, denied, asked, nil},
		"denied before, for a phone as well":   {User{Factors: []Factor{Push}}, denied, asked, nil},
		"let through before, asked after":      {nothing, free, asked, []Place{Apart}},
		"asked before, denied after":           {User{Factors: []Factor{TOTP}}, asked, denied, nil},
		"denied before, and more is asked":     {User{Factors: []Factor{TOTP}}, denied, one(func(p *Policy) { p.FactorsOnline, p.FactorsOffline = 2, 2 }), []Place{"logon", "elevation", "remote"}},
		"out of a group that was denied":       {User{Groups: []Group{{ID: "g"}}}, both, asked, nil},
		"another group's denial is not theirs": {User{Factors: []Factor{TOTP}}, both, one(func(p *Policy) { p.FactorsOffline = 2 }), []Place{Apart}},
		"2FA was off in spite of it":           {off, denied, asked, nil},
		"nothing changes":                      {nothing, asked, asked, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := NewlyShutOut(c.user, c.before, c.after); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}
