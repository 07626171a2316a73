package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

func uid(n uint32) *uint32 { return &n }

// online is a request and facts for which MFA is asked online.
func online() (Request, Facts) {
	r := Request{User: "anna", UID: uid(1001), Scope: Logon, Service: "login", At: now, Link: LinkUp, First: FirstServer, Boot: "b1", MachineAddr: netip.MustParseAddr("192.0.2.7")}
	p := NewPolicy()
	p.ID, p.Name, p.Default = "p0", "default", true
	f := Facts{
		User:        &User{ID: "u1", Name: "anna", Factors: []Factor{TOTP}, Groups: []Group{{ID: "g1", Name: "crew"}}},
		FirstResult: FirstAccepted,
		Machine:     Machine{ID: "m1", Name: "bridge", Status: "active", Mode: Normal},
		Policies:    []Policy{p},
	}
	return r, f
}

func vault() *Vault {
	return &Vault{Class: "tpm", Factors: []Factor{TOTP, Backup}, Until: now.Add(24 * time.Hour), SigninsLeft: 50, TriesLeft: 10, RemoteTries: 2}
}

type change func(*Request, *Facts)

func down(r *Request, f *Facts) {
	r.Link, r.First, f.FirstResult, f.Vault = LinkDown, FirstNone, FirstPending, vault()
}

func window(r *Request, f *Facts) {
	f.Window = &Window{Boot: "b1", Opened: now.Add(-time.Hour), Expires: now.Add(time.Hour), Factors: []Factor{TOTP}}
}

func trusted(r *Request, f *Facts) {
	f.Policies[0].TrustedNetworks = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  []change
		outcome Outcome
		reason  Reason
	}{
		// S3
		{"S3 all conditions hold: MFA is asked", nil, MFA, ReasonMFA},
		{"S3 the first factor has not been given", []change{func(r *Request, f *Facts) { r.First, f.FirstResult = FirstNone, FirstPending }}, AskFirst, ReasonFirstPending},
		{"S3 the first factor was rejected", []change{func(r *Request, f *Facts) { f.FirstResult = FirstRejected }}, Deny, ReasonFirstRejected},
		{"S3 an unheard-of verdict on the first factor denies", []change{func(r *Request, f *Facts) { f.FirstResult = "maybe" }}, Deny, ReasonFirstRejected},
		{"S3 scope is not covered", []change{func(r *Request, f *Facts) { f.Policies[0].Scopes = []Scope{Remote} }}, Allow, ReasonScope},
		{"S3 an unheard-of scope denies", []change{func(r *Request, f *Facts) { r.Scope = "lunch" }}, Deny, ReasonBadRequest},
		{"S3 an unheard-of link denies", []change{func(r *Request, f *Facts) { r.Link = "sideways" }}, Deny, ReasonBadRequest},
		{"S3 an unheard-of machine mode denies", []change{func(r *Request, f *Facts) { f.Machine.Mode = "" }}, Deny, ReasonBadRequest},
		{"S3 no factor enrolled denies", []change{func(r *Request, f *Facts) { f.User.Factors = nil }}, Deny, ReasonNotEnrolled},
		{"S3 two factors asked, one enrolled", []change{func(r *Request, f *Facts) { f.Policies[0].FactorsOnline = 2 }}, Deny, ReasonNotEnrolled},
		{"S3 two factors asked, two enrolled", []change{func(r *Request, f *Facts) {
			f.Policies[0].FactorsOnline = 2
			f.User.Factors = []Factor{Backup, TOTP}
		}}, MFA, ReasonMFA},
		{"S3 a factor that the policy does not accept does not count", []change{func(r *Request, f *Facts) { f.Policies[0].OnlineFactors = []Factor{Backup} }}, Deny, ReasonNotEnrolled},
		{"E1 enrolment at sign-in where the policy wants it", []change{func(r *Request, f *Facts) { f.User.Factors = nil; f.Policies[0].EnrolAtSignin = true }}, EnrolFirst, ReasonEnrol},
		{"E1 never on remote by default", []change{func(r *Request, f *Facts) {
			f.User.Factors, r.Scope = nil, Remote
			f.Policies[0].EnrolAtSignin = true
		}}, Deny, ReasonNotEnrolled},
		{"E1 nor for elevation in a remote session", []change{func(r *Request, f *Facts) {
			f.User.Factors, r.Scope, r.RemoteSeat = nil, Elevation, true
			f.Policies[0].EnrolAtSignin = true
		}}, Deny, ReasonNotEnrolled},
		{"E3 a bypass code alone is enough for one factor", []change{func(r *Request, f *Facts) { f.User.Factors = []Factor{Bypass} }}, MFA, ReasonMFA},

		// S4
		{"S4 2FA off for the user", []change{func(r *Request, f *Facts) { f.User.MFA = Off }}, Allow, ReasonTwoFactorOff},
		{"S4 window valid", []change{window}, Allow, ReasonWindow},
		{"S4 machine exempt", []change{func(r *Request, f *Facts) { f.Machine.Mode = Exempt }}, Allow, ReasonMachineExempt},
		{"S4 account exempt by uid", []change{func(r *Request, f *Facts) { f.Policies[0].ExemptUIDs = []uint32{1001} }}, Allow, ReasonExemptAccount},
		{"S4 account exempt by SID", []change{func(r *Request, f *Facts) {
			r.SID, f.Policies[0].ExemptSIDs = "s-1-5-21-1", []string{"S-1-5-21-1"}
		}}, Allow, ReasonExemptAccount},
		{"S4 exempt, but the first factor was rejected (S5)", []change{func(r *Request, f *Facts) {
			f.Policies[0].ExemptUIDs = []uint32{1001}
			f.FirstResult = FirstRejected
		}}, Deny, ReasonFirstRejected},
		{"S4 exempt and unknown: the machine decides", []change{func(r *Request, f *Facts) {
			f.Policies[0].ExemptUIDs = []uint32{1001}
			f.User, r.First, f.FirstResult = nil, FirstNone, FirstPending
		}}, Ignore, ReasonExemptAccount},
		{"S4 the name of an exempt account is not enough", []change{func(r *Request, f *Facts) {
			f.Policies[0].ExemptUIDs = []uint32{0}
			r.User = "root"
		}}, MFA, ReasonMFA},
		{"S4 first factor by the machine: the machine's verdict stands", []change{func(r *Request, f *Facts) { f.User.MFA, r.First = Off, FirstMachine }}, Ignore, ReasonTwoFactorOff},
		{"S4 first factor by ssh key: allowed", []change{func(r *Request, f *Facts) { f.User.MFA, r.First, r.Scope = Off, FirstSSHKey, Remote }}, Allow, ReasonTwoFactorOff},

		// S5
		{"S5 unknown user is denied", []change{func(r *Request, f *Facts) { f.User = nil; f.FirstResult = FirstPending }}, Deny, ReasonUnknownDenied},
		{"S5 unknown user is skipped where the machine says so", []change{func(r *Request, f *Facts) {
			f.User, f.FirstResult, f.Machine.SkipUnknown = nil, FirstPending, true
		}}, Ignore, ReasonUnknownSkipped},
		{"S5 a near miss is never skipped", []change{func(r *Request, f *Facts) {
			f.User, f.NearMiss, f.FirstResult, f.Machine.SkipUnknown = nil, true, FirstPending, true
		}}, Deny, ReasonNearMiss},
		{"S5 a rejected first factor denies an unknown user in skip mode", []change{func(r *Request, f *Facts) {
			f.User, f.FirstResult, f.Machine.SkipUnknown = nil, FirstRejected, true
		}}, Deny, ReasonFirstRejected},
		{"S10 locked out", []change{func(r *Request, f *Facts) { f.User.LockedUntil = now.Add(time.Minute) }}, Deny, ReasonLocked},
		{"S10 lock-out has ended", []change{func(r *Request, f *Facts) { f.User.LockedUntil = now }}, MFA, ReasonMFA},
		{"D1 disabled", []change{func(r *Request, f *Facts) { f.User.Disabled = true }}, Deny, ReasonDisabled},
		{"D1 not active yet", []change{func(r *Request, f *Facts) { f.User.NotYet = true }}, Deny, ReasonNotYet},
		{"E4 machine for assigned users only", []change{func(r *Request, f *Facts) { f.Machine.OnlyAssigned = true }}, Deny, ReasonNotAssigned},
		{"E4 an assigned user", []change{func(r *Request, f *Facts) { f.Machine.OnlyAssigned, f.Assigned = true, true }}, MFA, ReasonMFA},

		// W5
		{"W5 a window does not silence elevation by default", []change{window, func(r *Request, f *Facts) { r.Scope = Elevation }}, MFA, ReasonMFA},
		{"W5 nor remote", []change{window, func(r *Request, f *Facts) { r.Scope = Remote }}, MFA, ReasonMFA},
		{"W5 a window silences elevation where the policy says so", []change{window, func(r *Request, f *Facts) {
			r.Scope = Elevation
			f.Policies[0].WindowSilences = []Scope{Elevation}
		}}, Allow, ReasonWindow},
		{"W5 never at the first logon after a boot", []change{window, func(r *Request, f *Facts) { r.Boot = "b2" }}, MFA, ReasonMFA},
		{"W5 a machine that does not tell its boot is not silenced", []change{window, func(r *Request, f *Facts) { r.Boot, f.Window.Boot = "", "" }}, MFA, ReasonMFA},
		{"W1 a length of 0 always asks, also with a window from before", []change{window, func(r *Request, f *Facts) { f.Policies[0].Window = 0 }}, MFA, ReasonMFA},
		{"W5 expired window", []change{window, func(r *Request, f *Facts) { f.Window.Expires = now }}, MFA, ReasonMFA},
		{"W7 a window from the future (clock turned back)", []change{window, func(r *Request, f *Facts) { f.Window.Opened = now.Add(time.Second) }}, MFA, ReasonMFA},
		{"W5 opened with fewer factors than are asked now", []change{window, func(r *Request, f *Facts) {
			f.Policies[0].FactorsOnline = 2
			f.User.Factors = []Factor{TOTP, Backup}
		}}, MFA, ReasonMFA},
		{"W5 opened with a factor that is no longer accepted", []change{window, func(r *Request, f *Facts) {
			f.Window.Factors = []Factor{Backup}
			f.Policies[0].OnlineFactors = []Factor{TOTP}
		}}, MFA, ReasonMFA},
		{"W5 never while offline", []change{window, down}, MFAOffline, ReasonOfflineMFA},

		// O1
		{"O1 refused machine, whatever else holds", []change{down, func(r *Request, f *Facts) {
			r.Link, f.Machine.Mode = LinkRefused, Exempt
			f.Policies[0].ExemptUIDs = []uint32{1001}
		}}, Deny, ReasonRefused},

		// O2
		{"O2 mfa, enrolled", []change{down}, MFAOffline, ReasonOfflineMFA},
		{"O2 mfa, not enrolled", []change{down, func(r *Request, f *Facts) { f.Vault = nil }}, Deny, ReasonNoVault},
		{"O2 mfa_or_bypass, enrolled", []change{down, func(r *Request, f *Facts) { f.Policies[0].Offline = OfflineMFAOrBypass }}, MFAOffline, ReasonOfflineMFA},
		{"O2 mfa_or_bypass, not enrolled", []change{down, func(r *Request, f *Facts) { f.Policies[0].Offline, f.Vault = OfflineMFAOrBypass, nil }}, Ignore, ReasonNoVaultBypass},
		{"O2 mfa_or_bypass, restored state is no bypass", []change{down, func(r *Request, f *Facts) {
			f.Policies[0].Offline, f.Vault, f.VaultProblem = OfflineMFAOrBypass, nil, ReasonVaultRolledBack
		}}, Deny, ReasonVaultRolledBack},
		{"O2 mfa_or_bypass, used up is no bypass", []change{down, func(r *Request, f *Facts) {
			f.Policies[0].Offline, f.Vault.SigninsLeft = OfflineMFAOrBypass, 0
		}}, Deny, ReasonVaultSignins},
		{"O2 bypass", []change{down, func(r *Request, f *Facts) { f.Policies[0].Offline = OfflineBypass }}, Ignore, ReasonOfflineBypass},
		{"O2 deny", []change{down, func(r *Request, f *Facts) { f.Policies[0].Offline = OfflineDeny }}, Deny, ReasonOfflineDeny},
		{"O2 an unheard-of word denies", []change{down, func(r *Request, f *Facts) { f.Policies[0].Offline = "party" }}, Deny, ReasonOfflineDeny},
		{"O2 exempt machine offline", []change{down, func(r *Request, f *Facts) { f.Machine.Mode = Exempt }}, Ignore, ReasonMachineExempt},
		{"O2 2FA off offline", []change{down, func(r *Request, f *Facts) { f.User.MFA = Off }}, Ignore, ReasonTwoFactorOff},
		{"O2 scope not covered offline", []change{down, func(r *Request, f *Facts) { f.Policies[0].Scopes = nil }}, Ignore, ReasonScope},
		{"O2 exempt account offline", []change{down, func(r *Request, f *Facts) { f.Policies[0].ExemptUIDs = []uint32{1001} }}, Ignore, ReasonExemptAccount},
		{"O2 unknown users offline: deny, also where skip is set", []change{down, func(r *Request, f *Facts) { f.User, f.Machine.SkipUnknown = nil, true }}, Deny, ReasonUnknownDenied},
		{"O2 disabled user offline", []change{down, func(r *Request, f *Facts) { f.User.Disabled = true }}, Deny, ReasonDisabled},
		{"O2 policy file absent is never a bypass", []change{down, func(r *Request, f *Facts) {
			f.Policies[0].Offline, f.PolicyProblem = OfflineBypass, ReasonPolicyAbsent
		}}, Deny, ReasonPolicyAbsent},
		{"O2 policy file older than the ledger's", []change{down, func(r *Request, f *Facts) {
			f.Policies[0].Offline, f.PolicyProblem = OfflineBypass, ReasonPolicyOlder
		}}, Deny, ReasonPolicyOlder},

		// O3-O6
		{"O3 the offline factors are a setting apart", []change{down, func(r *Request, f *Facts) { f.Policies[0].OfflineFactors = []Factor{Backup} }}, MFAOffline, ReasonOfflineMFA},
		{"O3 no factor that the policy accepts offline", []change{down, func(r *Request, f *Facts) {
			f.Policies[0].OfflineFactors = []Factor{Backup}
			f.Vault.Factors = []Factor{TOTP}
		}}, Deny, ReasonVaultFactor},
		{"O5 data of an older generation", []change{down, func(r *Request, f *Facts) { f.Vault.Stale = true }}, Deny, ReasonVaultStale},
		{"O6 days used up", []change{down, func(r *Request, f *Facts) { f.Vault.Until = now }}, Deny, ReasonVaultDays},
		{"O6 sign-ins used up", []change{down, func(r *Request, f *Facts) { f.Vault.SigninsLeft = 0 }}, Deny, ReasonVaultSignins},
		{"O6 tries used up", []change{down, func(r *Request, f *Facts) { f.Vault.TriesLeft = 0 }}, Deny, ReasonVaultTries},
		{"O6 remote tries used up, remote", []change{down, func(r *Request, f *Facts) { r.Scope, f.Vault.RemoteTries = Remote, 0 }}, Deny, ReasonVaultRemote},
		{"O6 remote tries used up, local seat", []change{down, func(r *Request, f *Facts) { f.Vault.RemoteTries = 0 }}, MFAOffline, ReasonOfflineMFA},
		{"O8 software class refused by the policy", []change{down, func(r *Request, f *Facts) {
			f.Vault.Class = "software"
			f.Policies[0].SoftwareVault = false
		}}, Deny, ReasonVaultSoftware},
		{"O17 TPM gone is told as such", []change{down, func(r *Request, f *Facts) { f.Vault, f.VaultProblem = nil, ReasonTPMGone }}, Deny, ReasonTPMGone},

		// P1, P2, P3
		{"P1 no factor asked online", []change{func(r *Request, f *Facts) { f.Policies[0].FactorsOnline = 0 }}, Allow, ReasonNoFactors},
		{"P1 no factor asked offline", []change{down, func(r *Request, f *Facts) { f.Policies[0].FactorsOffline = 0 }}, Ignore, ReasonNoFactors},
		{"P1 a group's policy goes before the default", []change{func(r *Request, f *Facts) {
			p := NewPolicy()
			p.Name, p.Priority, p.Groups, p.Scopes = "ships", 10, []string{"g1"}, nil
			f.Policies = append(f.Policies, p)
		}}, Allow, ReasonScope},
		{"P1 the smallest priority wins", []change{func(r *Request, f *Facts) {
			p, q := NewPolicy(), NewPolicy()
			p.Name, p.Priority, p.Groups, p.Scopes = "late", 20, []string{"g1"}, nil
			q.Name, q.Priority, q.Groups = "early", 10, []string{"g1"}
			f.Policies = append(f.Policies, p, q)
		}}, MFA, ReasonMFA},
		{"P1 another group's policy does not apply", []change{func(r *Request, f *Facts) {
			p := NewPolicy()
			p.Name, p.Priority, p.Groups, p.Scopes = "ships", 10, []string{"g2"}, nil
			f.Policies = append(f.Policies, p)
		}}, MFA, ReasonMFA},
		{"P1 without any policy nothing opens", []change{func(r *Request, f *Facts) { f.Policies = nil }}, Deny, ReasonNoPolicy},
		{"P2 2FA off for a group", []change{func(r *Request, f *Facts) { f.User.Groups[0].MFA = Off }}, Allow, ReasonTwoFactorOff},
		{"P2 one group on, one off", []change{func(r *Request, f *Facts) {
			f.User.Groups = []Group{{ID: "g1", Name: "a", MFA: Off}, {ID: "g2", Name: "b", MFA: On}}
		}}, MFA, ReasonMFA},
		{"P2 the user's setting wins over the group's off", []change{func(r *Request, f *Facts) { f.User.Groups[0].MFA, f.User.MFA = Off, On }}, MFA, ReasonMFA},
		{"P2 the user's setting wins over the group's on", []change{func(r *Request, f *Facts) { f.User.Groups[0].MFA, f.User.MFA = On, Off }}, Allow, ReasonTwoFactorOff},
		{"P3 enforced wins over 2FA off", []change{func(r *Request, f *Facts) { f.User.MFA, f.Machine.Mode = Off, Enforced }}, MFA, ReasonMFA},
		{"P3 enforced wins over a scope that is not covered", []change{func(r *Request, f *Facts) { f.Policies[0].Scopes, f.Machine.Mode = nil, Enforced }}, MFA, ReasonMFA},
		{"P3 enforced wins over no factors", []change{func(r *Request, f *Facts) { f.Policies[0].FactorsOnline, f.Machine.Mode = 0, Enforced }}, MFA, ReasonMFA},
		{"P3 enforced wins over bypass when the server is down", []change{down, func(r *Request, f *Facts) { f.Policies[0].Offline, f.Machine.Mode = OfflineBypass, Enforced }}, MFAOffline, ReasonOfflineMFA},
		{"P3 enforced, down and not enrolled", []change{down, func(r *Request, f *Facts) {
			f.Policies[0].Offline, f.Machine.Mode, f.Vault = OfflineMFAOrBypass, Enforced, nil
		}}, Deny, ReasonNoVault},
		{"P3 a pending machine", []change{func(r *Request, f *Facts) { f.Machine.Status = "pending" }}, Deny, ReasonMachineStatus},

		// P6
		{"P6 trusted network relaxes logon", []change{trusted}, Allow, ReasonTrusted},
		{"P6 address outside", []change{trusted, func(r *Request, f *Facts) { r.MachineAddr = netip.MustParseAddr("198.51.100.1") }}, MFA, ReasonMFA},
		{"P6 no address", []change{trusted, func(r *Request, f *Facts) { r.MachineAddr = netip.Addr{} }}, MFA, ReasonMFA},
		{"P6 an IPv4 address in IPv6 form is the same address", []change{trusted, func(r *Request, f *Facts) { r.MachineAddr = netip.MustParseAddr("::ffff:192.0.2.7") }}, Allow, ReasonTrusted},
		{"P6 remote is not relaxed by default", []change{trusted, func(r *Request, f *Facts) { r.Scope, r.Peer = Remote, netip.MustParseAddr("192.0.2.9") }}, MFA, ReasonMFA},
		{"P6 remote relaxed where the policy says so and the peer is trusted", []change{trusted, func(r *Request, f *Facts) {
			r.Scope, r.Peer = Remote, netip.MustParseAddr("192.0.2.9")
			f.Policies[0].TrustedScopes = []Scope{Remote}
		}}, Allow, ReasonTrusted},
		{"P6 remote with a foreign peer", []change{trusted, func(r *Request, f *Facts) {
			r.Scope, r.Peer = Remote, netip.MustParseAddr("198.51.100.9")
			f.Policies[0].TrustedScopes = []Scope{Remote}
		}}, MFA, ReasonMFA},
		{"P6 remote without a numeric peer", []change{trusted, func(r *Request, f *Facts) {
			r.Scope = Remote
			f.Policies[0].TrustedScopes = []Scope{Remote}
		}}, MFA, ReasonMFA},
		{"P6 elevation in a remote session needs the peer", []change{trusted, func(r *Request, f *Facts) { r.Scope, r.RemoteSeat = Elevation, true }}, MFA, ReasonMFA},
		{"P6 elevation in a remote session with a trusted peer", []change{trusted, func(r *Request, f *Facts) {
			r.Scope, r.RemoteSeat, r.Peer = Elevation, true, netip.MustParseAddr("192.0.2.9")
		}}, Allow, ReasonTrusted},
		{"P6 no network is trusted while offline", []change{trusted, down}, MFAOffline, ReasonOfflineMFA},
		{"P6 an enforced machine does not trust networks", []change{trusted, func(r *Request, f *Facts) { f.Machine.Mode = Enforced }}, MFA, ReasonMFA},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, f := online()
			for _, ch := range c.change {
				ch(&r, &f)
			}
			d := Decide(r, f)
			if d.Outcome != c.outcome || d.Reason != c.reason {
				t.Errorf("%s (%s), want %s (%s)\n%v", d.Outcome, d.Reason, c.outcome, c.reason, d.Trace)
			}
			for i, s := range d.Trace {
				if (s.Verdict == Applied) != (i == len(d.Trace)-1) {
					t.Errorf("step %d of the trace is %s: %v", i, s.Verdict, d.Trace)
				}
			}
		})
	}
}

// Whatever the facts, nothing opens without an accepted first factor, on a
// refused machine, or by a word that nobody knows.
func TestNothingOpensByOmission(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r, f := online()
		if rapid.Bool().Draw(t, "down") {
			down(&r, &f)
		}
		if rapid.Bool().Draw(t, "window") {
			window(&r, &f)
		}
		r.Link = rapid.SampledFrom([]Link{LinkUp, LinkDown, LinkRefused, "", "x"}).Draw(t, "link")
		r.Scope = rapid.SampledFrom([]Scope{Logon, Elevation, Remote, "", "x"}).Draw(t, "scope")
		r.First = rapid.SampledFrom([]First{FirstNone, FirstServer, FirstMachine}).Draw(t, "first")
		f.FirstResult = rapid.SampledFrom([]FirstResult{FirstPending, FirstAccepted, FirstRejected, "x"}).Draw(t, "result")
		f.Machine.Mode = rapid.SampledFrom([]Mode{Normal, Enforced, Exempt, "", "x"}).Draw(t, "mode")
		f.Machine.Status = rapid.SampledFrom([]string{"active", "pending", "revoked", ""}).Draw(t, "status")
		p := &f.Policies[0]
		p.Offline = rapid.SampledFrom([]Offline{OfflineMFA, OfflineMFAOrBypass, OfflineBypass, OfflineDeny, "", "x"}).Draw(t, "offline")
		p.FactorsOnline = rapid.IntRange(-1, 4).Draw(t, "count")
		p.Scopes = rapid.SliceOfDistinct(rapid.SampledFrom(Scopes), rapid.ID).Draw(t, "scopes")
		if rapid.Bool().Draw(t, "exempt") {
			p.ExemptUIDs = []uint32{1001}
		}
		if rapid.Bool().Draw(t, "no user") {
			f.User = nil
		}
		if rapid.Bool().Draw(t, "no vault") {
			f.Vault = nil
		}
		f.Machine.SkipUnknown = rapid.Bool().Draw(t, "skip")
		f.User = maybeOff(t, f.User)
		d := Decide(r, f)
		known := slices.Contains([]Outcome{Deny, Allow, Ignore, AskFirst, MFA, MFAOffline, EnrolFirst}, d.Outcome)
		switch {
		case !known || d.Reason == "" || len(d.Trace) == 0:
			t.Fatalf("not a decision: %+v", d)
		case d.Outcome == Allow && f.FirstResult != FirstAccepted:
			t.Fatalf("allowed without a first factor: %+v", d)
		case d.Outcome != Deny && (r.Link == LinkRefused || r.Link == "x" || r.Link == "" || f.Machine.Status != "active" || f.FirstResult == FirstRejected || r.Scope == "x"):
			t.Fatalf("opened: %+v", d)
		case d.Outcome == MFAOffline && (r.Link != LinkDown || f.Vault == nil || d.Count < 1 || len(d.Factors) < d.Count):
			t.Fatalf("offline MFA without what it needs: %+v", d)
		case d.Outcome == MFA && (r.Link != LinkUp || d.Count < 1 || len(d.Factors) < d.Count):
			t.Fatalf("MFA without what it needs: %+v", d)
		case f.Machine.Mode == Enforced && (d.Outcome == Allow || d.Outcome == Ignore) &&
			!slices.Contains([]Reason{ReasonExemptAccount, ReasonUnknownSkipped, ReasonWindow}, d.Reason):
			t.Fatalf("an enforced machine opened: %+v", d)
		}
	})
}

func maybeOff(t *rapid.T, u *User) *User {
	if u != nil {
		u.MFA = rapid.SampledFrom([]Switch{Inherit, On, Off}).Draw(t, "2fa")
	}
	return u
}

func TestParseNamesEveryFault(t *testing.T) {
	_, err := Parse([]byte(`{"scopes":["logon","lunch","logon"],"factors_online":7,"offline":"maybe","offline_days":0,"lockout_for":"0s","window":"1s","trusted_networks":["10.0.0.1/8"]}`))
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"lunch", "stands twice", "factors_online: 7", "offline: \"maybe\"", "offline_days: 0", "lockout_for", "window", "10.0.0.1/8"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	for _, bad := range []string{``, `{`, `{"scope":[]}`, `{} {}`, `{"window":5}`, `{"window":"8 hours"}`, `[]`, strings.Repeat(" ", MaxBody+1)} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%.40q is taken", bad)
		}
	}
	p, err := Parse([]byte(`{"offline":"bypass","window":"90m"}`))
	if err != nil || p.OfflineDays != 7 || time.Duration(p.Window) != 90*time.Minute {
		t.Error(p, err)
	}
	if w := p.Warnings(); len(w) == 0 || !strings.Contains(w[0], "unreachable") {
		t.Error("P4: no warning for bypass:", w)
	}
	p.FactorsOffline, p.Offline = 0, OfflineMFA
	if w := p.Warnings(); len(w) == 0 || !strings.Contains(w[0], "weaker") {
		t.Error("P1: no warning for a weaker offline side:", w)
	}
	p = NewPolicy()
	p.OnlineFactors = []Factor{Push}
	if w := p.Warnings(); len(w) != 2 || w[0] != "Codes of an authenticator app (totp) are accepted offline but not online: the offline side is weaker." || !strings.HasPrefix(w[1], "Backup codes (backup) are") {
		t.Error("P1: a key is weaker than nothing, codes are weaker than a phone:", w)
	}
	p.Offline = OfflineDeny
	if w := p.Warnings(); len(w) != 0 {
		t.Error("P1: factors are compared where nobody signs in:", w)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"scopes":["logon"],"window":"8h","trusted_networks":["10.0.0.0/8"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		if p.Validate() != nil {
			t.Fatal("parsed but not valid")
		}
		p.Warnings()
	})
}

func BenchmarkDecide(b *testing.B) {
	r, f := online()
	for b.Loop() {
		Decide(r, f)
	}
}
