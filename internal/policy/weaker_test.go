package policy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// TestWeaker: each setting, weakened alone, is named; the way back names nothing.
func TestWeaker(t *testing.T) {
	base := NewPolicy()
	base.Offline = OfflineMFA
	base.SoftwareVault = false
	base.OnlineFactors, base.OfflineFactors = []Factor{TOTP}, []Factor{TOTP}
	base.TrustedNetworks = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	base.WindowEndsOn = []WindowEnd{EndLogoff, EndReboot}
	base.ForceDisconnectAfter = Duration(10 * time.Hour)
	cases := map[string][]func(*Policy){
		"scopes":          {func(p *Policy) { p.Scopes = []Scope{Logon} }, func(p *Policy) { p.Scopes = nil }},
		"factors_online":  {func(p *Policy) { p.FactorsOnline = 0 }},
		"factors_offline": {func(p *Policy) { p.FactorsOffline = 0 }},
		"online_factors":  {func(p *Policy) { p.OnlineFactors = []Factor{TOTP, Backup} }},
		"offline_factors": {func(p *Policy) { p.OfflineFactors = []Factor{TOTP, Backup} }},
		"offline":         {func(p *Policy) { p.Offline = OfflineBypass }, func(p *Policy) { p.Offline = OfflineMFAOrBypass }},
		"offline_days":    {func(p *Policy) { p.OfflineDays = 60 }},
		"offline_signins": {func(p *Policy) { p.OfflineSignins = 10000 }},
		"offline_tries":   {func(p *Policy) { p.OfflineTries = 100 }},
		"software_vault":  {func(p *Policy) { p.SoftwareVault = true }},
		"window":          {func(p *Policy) { p.Window = Duration(9 * time.Hour) }},
		"window_silences": {func(p *Policy) { p.WindowSilences = []Scope{Logon, Remote} }},
		"window_ends_on":  {func(p *Policy) { p.WindowEndsOn = []WindowEnd{EndReboot} }},
		"force_disconnect_after": {
			func(p *Policy) { p.ForceDisconnectAfter = 0 }, func(p *Policy) { p.ForceDisconnectAfter = Duration(11 * time.Hour) },
		},
		"exempt_uids":      {func(p *Policy) { p.ExemptUIDs = []uint32{1000} }},
		"exempt_sids":      {func(p *Policy) { p.ExemptSIDs = []string{"S-1-5-21"} }},
		"trusted_networks": {func(p *Policy) { p.TrustedNetworks = append(p.TrustedNetworks, netip.MustParsePrefix("0.0.0.0/0")) }},
		"trusted_scopes":   {func(p *Policy) { p.TrustedScopes = Scopes }},
		"backoff_after":    {func(p *Policy) { p.BackoffAfter = 100 }},
		"lockout_after":    {func(p *Policy) { p.LockoutAfter = 1000 }},
		"lockout_for":      {func(p *Policy) { p.LockoutFor = Duration(time.Second) }},
		"enrol_at_signin":  {func(p *Policy) { p.EnrolAtSignin = true }},
		"enrol_remote":     {func(p *Policy) { p.EnrolAtSignin, p.EnrolRemote = true, true }},
		"report_only":      {func(p *Policy) { p.ReportOnly = true }},
		"offline_enrol":    {func(p *Policy) { p.Offline, p.OfflineEnrol = OfflineMFAOrBypass, EnrolOff }},
	}
	for setting, all := range cases {
		for i, weaken := range all {
			after := base
			after.TrustedNetworks = slices.Clone(base.TrustedNetworks)
			weaken(&after)
			got := Weaker(base, after)
			if !slices.Contains(got, setting) {
				t.Errorf("%s, case %d: Weaker names %v", setting, i, got)
			}
			if back := Weaker(after, base); len(back) > 0 {
				t.Errorf("%s, case %d: the way back is called weaker: %v", setting, i, back)
			}
		}
	}
	narrower := base
	narrower.TrustedNetworks = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	narrower.Offline, narrower.FactorsOnline = OfflineDeny, 2
	if got := Weaker(base, narrower); len(got) > 0 {
		t.Errorf("a stricter policy is called weaker: %v", got)
	}
	// A setting that is new must be thought of.
	b, err := json.Marshal(base)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for name := range all {
		if !slices.ContainsFunc(strengths, func(s struct {
			setting string
			weaker  func(b, a *Policy) bool
		},
		) bool {
			return s.setting == name
		}) {
			t.Errorf("Weaker does not know the setting %s", name)
		}
	}
}
