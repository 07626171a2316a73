package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWeakFactorsAreWarnedOf(t *testing.T) {
	for name, c := range map[string]struct {
		online []Factor
		count  int
		want   []string // parts, in order
	}{
		"none of them":                   {[]Factor{FIDO2, Push, TOTP, Backup}, 1, nil},
		"mail alone is enough":           {[]Factor{TOTP, Mail}, 1, []string{"by mail", "alone is enough"}},
		"text messages alone are enough": {[]Factor{SMS}, 1, []string{"by text message", "alone is enough"}},
		"one of two may be weak":         {[]Factor{TOTP, Backup, Mail}, 2, []string{"by mail"}},
		"both may be weak":               {[]Factor{TOTP, Mail, SMS}, 2, []string{"by mail", "by text message", "All 2 factors"}},
		"nothing is asked":               {[]Factor{Mail}, 0, []string{"by mail", "no second factor"}},
		"a chain that needs a key":       {[]Factor{FIDO2, TOTP}, 2, []string{"over the network"}},
		"two that one phone can have":    {[]Factor{Push, TOTP, Backup}, 2, []string{"one phone can have both"}},
		"three, two of one phone":        {[]Factor{FIDO2, Push, TOTP, Backup}, 3, []string{"two of 3 factors"}},
		"a phone and no codes of it":     {[]Factor{Push, Backup}, 2, nil},
		"a phone, one factor asked":      {[]Factor{Push, TOTP}, 1, nil},
		"a key alone":                    {[]Factor{FIDO2}, 1, []string{"over the network"}},
	} {
		p := NewPolicy()
		p.OnlineFactors, p.FactorsOnline, p.FactorsOffline, p.OfflineFactors = c.online, c.count, c.count, nil
		got := p.Warnings()
		ok := len(got) == len(c.want)
		for i := 0; ok && i < len(got); i++ {
			ok = strings.Contains(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestS2FactorsOfTheSeat: M2 and S2: what can not be given where the person sits is left
// out, and the trace names it only if the person has it.
func TestS2FactorsOfTheSeat(t *testing.T) {
	for name, c := range map[string]struct {
		scope   Scope
		seat    bool // remote
		cannot  []Factor
		have    []Factor
		count   int
		outcome Outcome
		factors []Factor
		why     string
	}{
		"at the machine a key comes first": {Logon, false, nil, []Factor{TOTP, FIDO2}, 1, MFA, []Factor{FIDO2, TOTP}, "nothing that the user has is left out"},
		"over ssh it is at the other end":  {Remote, false, nil, []Factor{TOTP, FIDO2}, 1, MFA, []Factor{TOTP}, "without fido2: the seat is remote"},
		"sudo inside ssh too":              {Elevation, true, nil, []Factor{TOTP, FIDO2}, 1, MFA, []Factor{TOTP}, "without fido2: the seat is remote"},
		"whoever has only a key":           {Remote, false, nil, []Factor{FIDO2}, 1, Deny, nil, "without fido2"},
		"an agent that can not wait":       {Logon, false, []Factor{Push}, []Factor{Push, TOTP}, 1, MFA, []Factor{TOTP}, "without push: there is no way"},
		"what nobody has is not told":      {Logon, false, []Factor{Push, Mail}, []Factor{TOTP}, 1, MFA, []Factor{TOTP}, "nothing that the user has is left out"},
		"both":                             {Remote, false, []Factor{Push}, []Factor{FIDO2, Push, TOTP}, 1, MFA, []Factor{TOTP}, "without fido2, because the seat is remote, and push"},
		"too few are left for a chain":     {Remote, false, nil, []Factor{FIDO2, TOTP}, 2, Deny, nil, "without fido2"},
		"enough are":                       {Logon, false, nil, []Factor{FIDO2, TOTP}, 2, MFA, []Factor{FIDO2, TOTP}, "nothing"},
		"no bypass where it can not be":    {Logon, false, []Factor{Bypass}, []Factor{Bypass}, 1, Deny, nil, "without bypass"},
	} {
		p := NewPolicy()
		p.Default, p.FactorsOnline = true, c.count
		r := Request{User: "alice", Scope: c.scope, RemoteSeat: c.seat, Cannot: c.cannot, At: time.Unix(1, 0), Link: LinkUp, First: FirstServer}
		f := Facts{
			User: &User{ID: "u", Name: "alice", Factors: c.have}, Machine: Machine{Status: "active", Mode: Normal},
			Policies: []Policy{p}, FirstResult: FirstAccepted,
		}
		d := Decide(r, f)
		why := ""
		for _, s := range d.Trace {
			if s.Rule == "S2 factors of this seat" {
				why = s.Why
			}
		}
		if d.Outcome != c.outcome || !slices.Equal(d.Factors, c.factors) || !strings.Contains(why, c.why) {
			t.Errorf("%s: %s of %v, %q", name, d.Outcome, d.Factors, why)
		}
		// The same sign-in judged again knows what the seat could not do.
		r2, f2 := Remember(r, f).Again(Then{User: "alice", Scope: c.scope, Link: LinkUp, At: r.At}, f.User, f.Machine, f.Policies)
		if again := Decide(r2, f2); again.Outcome != d.Outcome || !slices.Equal(again.Factors, d.Factors) {
			t.Errorf("%s, again: %s of %v", name, again.Outcome, again.Factors)
		}
	}
	// Offline the key is left out in the same way.
	p := NewPolicy()
	p.Default = true
	r := Request{User: "alice", Scope: Remote, At: time.Unix(1, 0), Link: LinkDown, First: FirstSSHKey}
	f := Facts{
		User: &User{ID: "u", Name: "alice", Factors: []Factor{FIDO2, TOTP}}, Machine: Machine{Status: "active", Mode: Normal}, Policies: []Policy{p}, FirstResult: FirstAccepted,
		Vault: &Vault{Class: "tpm", Factors: []Factor{FIDO2, TOTP}, Until: time.Unix(9, 0), SigninsLeft: 1, TriesLeft: 1, RemoteTries: 1},
	}
	if d := Decide(r, f); d.Outcome != MFAOffline || !slices.Equal(d.Factors, []Factor{TOTP}) {
		t.Errorf("offline over ssh: %s of %v", d.Outcome, d.Factors)
	}
	r.Scope = Logon
	if d := Decide(r, f); d.Outcome != MFAOffline || !slices.Equal(d.Factors, []Factor{FIDO2, TOTP}) {
		t.Errorf("offline at the machine: %s of %v", d.Outcome, d.Factors)
	}
}
