package policy

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestWhatIsAnotherHost(t *testing.T) {
	for host, want := range map[string]bool{
		"": false, ":0": false, ":0.0": false, ":12.1": false,
		"203.0.113.9": true, "2001:db8::7": true, "evil.example": true, "localhost": true, "127.0.0.1": true, "::1": true, "::": true,
		":": true, ":0.": true, ":.0": true, ":0.0.0": true, ":0a": true, ": 0": true, "unix:0": true, "host:0": true, " ": true, "(null)": true,
	} {
		if Elsewhere(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
}

// An agent that takes a sign-in from over the network for one at the machine (a service
// that it does not know, login -h, a display over XDMCP) gains nothing by it: the host
// that it tells counts (S3, W5, P6, M2, E1, O6).
func TestALogonThatNamesAHostIsRemoteToo(t *testing.T) {
	from := func(r *Request, _ *Facts) { r.Host, r.Peer = "203.0.113.9", netip.MustParseAddr("203.0.113.9") }
	near := func(r *Request, _ *Facts) { r.Host, r.Peer = "192.0.2.9", netip.MustParseAddr("192.0.2.9") }
	named := func(r *Request, _ *Facts) { r.Host = "evil.example" }
	display := func(r *Request, _ *Facts) { r.Host = ":0" }
	elevation := func(r *Request, f *Facts) {
		r.Scope = Elevation
		f.Policies[0].WindowSilences = []Scope{Elevation}
	}
	silent := func(_ *Request, f *Facts) { f.Policies[0].WindowSilences = []Scope{Logon, Remote} }
	relaxed := func(_ *Request, f *Facts) { f.Policies[0].TrustedScopes = []Scope{Logon, Remote} }
	covers := func(scopes ...Scope) change {
		return func(_ *Request, f *Facts) { f.Policies[0].Scopes = scopes }
	}
	bare := func(_ *Request, f *Facts) { f.User.Factors, f.Policies[0].EnrolAtSignin = nil, true }
	keyed := func(_ *Request, f *Facts) { f.User.Factors = []Factor{FIDO2} }
	tired := func(_ *Request, f *Facts) { f.Vault.RemoteTries = 0 }
	for name, c := range map[string]struct {
		change  []change
		outcome Outcome
		reason  Reason
		why     string
	}{
		"a window at the desk does not silence it":           {[]change{window, from}, MFA, ReasonMFA, "it does not silence remote, and this logon names a remote host"},
		"nor one that names no address":                      {[]change{window, named}, MFA, ReasonMFA, "remote, and this logon"},
		"a display is no host":                               {[]change{window, display}, Allow, ReasonWindow, ""},
		"a window that silences both does":                   {[]change{window, from, silent}, Allow, ReasonWindow, ""},
		"a trusted network does not relax it":                {[]change{trusted, near}, MFA, ReasonMFA, "remote, and this logon names a remote host is not relaxed"},
		"one that relaxes both does":                         {[]change{trusted, near, relaxed}, Allow, ReasonTrusted, ""},
		"but not for a peer outside":                         {[]change{trusted, from, relaxed}, MFA, ReasonMFA, "the remote peer is not known"},
		"nor for elevation with a foreign host":              {[]change{trusted, from, func(r *Request, _ *Facts) { r.Scope = Elevation }}, MFA, ReasonMFA, "the remote peer is not known"},
		"elevation stays elevation for windows":              {[]change{window, elevation, from}, Allow, ReasonWindow, ""},
		"a policy for remote covers it":                      {[]change{covers(Remote), from}, MFA, ReasonMFA, "remote is covered, and so is this logon"},
		"a policy for logon covers it":                       {[]change{covers(Logon), from}, MFA, ReasonMFA, "logon is covered"},
		"a policy for neither does not":                      {[]change{covers(Elevation), from}, Allow, ReasonScope, ""},
		"a key is at the other end of the line":              {[]change{keyed, from}, Deny, ReasonNotEnrolled, "the seat is remote"},
		"nobody enrols there":                                {[]change{bare, from}, Deny, ReasonNotEnrolled, ""},
		"offline only the remote share of wrong tries is it": {[]change{down, tired, from}, Deny, ReasonVaultRemote, ""},
		"and at the machine all of them":                     {[]change{down, tired}, MFAOffline, ReasonOfflineMFA, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, f := online()
			for _, ch := range c.change {
				ch(&r, &f)
			}
			d := Decide(r, f)
			if d.Outcome != c.outcome || d.Reason != c.reason {
				t.Errorf("%s (%s), want %s (%s)\n%v", d.Outcome, d.Reason, c.outcome, c.reason, d.Trace)
			}
			said := ""
			for _, s := range d.Trace {
				said += s.Why + "\n"
			}
			if !strings.Contains(said, c.why) {
				t.Errorf("nothing says %q:\n%s", c.why, said)
			}
		})
	}
}

// A host that is named never makes a decision milder.
func TestANamedHostOpensNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, f := online()
		for _, ch := range []change{down, window, trusted} {
			if rapid.Bool().Draw(t, "so") {
				ch(&r, &f)
			}
		}
		p := &f.Policies[0]
		scopes := func(what string) []Scope {
			return rapid.SliceOfDistinct(rapid.SampledFrom(Scopes), rapid.ID).Draw(t, what)
		}
		r.Scope = rapid.SampledFrom(Scopes).Draw(t, "scope")
		p.Scopes, p.WindowSilences, p.TrustedScopes = scopes("covered"), scopes("silenced"), scopes("relaxed")
		p.EnrolAtSignin = rapid.Bool().Draw(t, "enrol")
		f.User.Factors = rapid.SliceOfDistinct(rapid.SampledFrom([]Factor{FIDO2, TOTP, Backup, Bypass}), rapid.ID).Draw(t, "has")
		r.Peer = rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("192.0.2.9")}).Draw(t, "peer")
		r.RemoteSeat = rapid.Bool().Draw(t, "remote seat")
		before := Decide(r, f)
		r.Host = rapid.SampledFrom([]string{"192.0.2.9", "localhost", "evil.example"}).Draw(t, "host")
		after := Decide(r, f)
		if c := Compare(before, after); c == AllowedNow || c == AskedLess || before.Outcome != EnrolFirst && after.Outcome == EnrolFirst && before.Outcome == Deny {
			t.Fatalf("%s (%s) became %s (%s)", before.Outcome, before.Reason, after.Outcome, after.Reason)
		}
		again, facts := Remember(r, f).Again(Then{User: r.User, Scope: r.Scope, Service: r.Service, Link: r.Link, At: r.At}, f.User, f.Machine, f.Policies)
		if d := Decide(again, facts); d.Outcome != after.Outcome || d.Reason != after.Reason {
			t.Fatalf("what is remembered decides %s (%s), and it was %s (%s)", d.Outcome, d.Reason, after.Outcome, after.Reason)
		}
	})
}
