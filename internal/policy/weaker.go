package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// Weaker names the settings in which the second policy asks less of somebody than the
// first, or lets more pass: who may change policies for others must not take away what
// protects whoever stands over them (E3). The names are those of the JSON form, in
// their order; a policy that reports only asks nothing. Where it can not be told, a
// setting counts as weaker.
func Weaker(before, after Policy) []string {
	var out []string
	for _, s := range strengths {
		if s.weaker(&before, &after) {
			out = append(out, s.setting)
		}
	}
	return out
}

// strengths has an entry for each setting that can weaken anything.
var strengths = []struct {
	setting string
	weaker  func(b, a *Policy) bool
}{
	{"scopes", func(b, a *Policy) bool { return lacks(a.Scopes, b.Scopes) }},
	{"factors_online", func(b, a *Policy) bool { return a.FactorsOnline < b.FactorsOnline }},
	{"factors_offline", func(b, a *Policy) bool { return a.FactorsOffline < b.FactorsOffline }},
	{"online_factors", func(b, a *Policy) bool { return lacks(b.OnlineFactors, a.OnlineFactors) }},
	{"offline_factors", func(b, a *Policy) bool { return lacks(b.OfflineFactors, a.OfflineFactors) }},
	{"key_verification", func(b, a *Policy) bool { return b.KeyVerification && !a.KeyVerification }},
	{"push_verification", func(b, a *Policy) bool { return b.PushVerification && !a.PushVerification }},
	{"offline", func(b, a *Policy) bool { return strictness(a.Offline) < strictness(b.Offline) }},
	// A machine that is not enrolled leaves it to the password alone.
	{"offline_enrol", func(b, a *Policy) bool {
		return a.Offline == OfflineMFAOrBypass && a.OfflineEnrol != b.OfflineEnrol && a.OfflineEnrol != EnrolAuto
	}},
	{"offline_days", func(b, a *Policy) bool { return a.OfflineDays > b.OfflineDays }},
	{"offline_signins", func(b, a *Policy) bool { return a.OfflineSignins > b.OfflineSignins }},
	{"offline_tries", func(b, a *Policy) bool { return a.OfflineTries > b.OfflineTries }},
	// Without one, a machine with no TPM denies, or leaves it to the password alone.
	{"software_vault", func(b, a *Policy) bool {
		return a.SoftwareVault != b.SoftwareVault && (a.SoftwareVault || a.Offline == OfflineMFAOrBypass)
	}},
	{"window", func(b, a *Policy) bool { return a.Window > b.Window }},
	{"window_silences", func(b, a *Policy) bool { return a.Window > 0 && lacks(b.WindowSilences, a.WindowSilences) }},
	{"window_ends_on", func(b, a *Policy) bool { return a.Window > 0 && lacks(a.WindowEndsOn, b.WindowEndsOn) }},
	{"force_disconnect_after", func(b, a *Policy) bool {
		return b.ForceDisconnectAfter > 0 && (a.ForceDisconnectAfter <= 0 || a.ForceDisconnectAfter > b.ForceDisconnectAfter)
	}},
	{"exempt_uids", func(b, a *Policy) bool { return lacks(b.ExemptUIDs, a.ExemptUIDs) }},
	{"exempt_sids", func(b, a *Policy) bool {
		return slices.ContainsFunc(a.ExemptSIDs, func(s string) bool {
			return !slices.ContainsFunc(b.ExemptSIDs, func(t string) bool { return strings.EqualFold(s, t) })
		})
	}},
	{"trusted_networks", func(b, a *Policy) bool {
		return slices.ContainsFunc(a.TrustedNetworks, func(n netip.Prefix) bool {
			return !slices.ContainsFunc(b.TrustedNetworks, func(o netip.Prefix) bool { return o.Bits() <= n.Bits() && o.Contains(n.Addr()) })
		})
	}},
	{"trusted_scopes", func(b, a *Policy) bool { return len(a.TrustedNetworks) > 0 && lacks(b.TrustedScopes, a.TrustedScopes) }},
	{"backoff_after", func(b, a *Policy) bool { return a.BackoffAfter > b.BackoffAfter }},
	{"lockout_after", func(b, a *Policy) bool { return a.LockoutAfter > b.LockoutAfter }},
	{"lockout_for", func(b, a *Policy) bool { return a.LockoutFor < b.LockoutFor }},
	{"enrol_at_signin", func(b, a *Policy) bool { return a.EnrolAtSignin && !b.EnrolAtSignin }},
	{"enrol_remote", func(b, a *Policy) bool {
		return a.EnrolAtSignin && a.EnrolRemote && !(b.EnrolAtSignin && b.EnrolRemote)
	}},
	{"report_only", func(b, a *Policy) bool { return a.ReportOnly && !b.ReportOnly && !a.Default }},
}

// lacks tells whether something of want is not in have.
func lacks[T comparable](have, want []T) bool {
	return slices.ContainsFunc(want, func(w T) bool { return !slices.Contains(have, w) })
}

// strictness orders what happens without the server; a word that is not known denies.
func strictness(o Offline) int {
	switch o {
	case OfflineBypass:
		return 0
	case OfflineMFAOrBypass:
		return 1
	case OfflineMFA:
		return 2
	}
	return 3
}
