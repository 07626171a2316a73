package policy

import (
	"slices"
	"time"
)

// Place is where somebody may be shut out: a scope while the server is reachable,
// or Apart.
type Place string

// Apart is the place of a machine that can not reach the server.
const Apart Place = "offline"

// Places lists all places in the order in which people read them.
var Places = []Place{Place(Logon), Place(Elevation), Place(Remote), Apart}

// ShutOut names the places at which the person can not give what is asked there, by the
// rule that decides sign-ins: on a machine that is neither exempt nor enforced, at its
// own seat (remotely for Remote), outside of trusted networks, without a window. That
// the account is disabled, locked or not active yet does not count, and neither does an
// administrator's bypass code, which is gone tomorrow. Whoever may enrol a factor at the
// sign-in is not shut out. Without the server it is judged over offline data that is all
// there, so that factors alone decide; a policy that denies there in words is not about
// factors. ps is all policies.
func ShutOut(u User, ps []Policy) []Place {
	u, f := plainly(u, ps)
	var out []Place
	for _, s := range Scopes {
		d := Decide(Request{User: u.Name, Scope: s, Link: LinkUp, First: FirstServer}, f)
		switch d.Outcome {
		case MFA, Allow, Ignore:
		case EnrolFirst:
			if len(d.Factors) == 0 {
				out = append(out, Place(s))
			}
		default:
			out = append(out, Place(s))
		}
	}
	if apart(u, ps) == ReasonVaultFactor {
		out = append(out, Apart)
	}
	return out
}

// plainly are the facts about the person that factors are judged by.
func plainly(u User, ps []Policy) (User, Facts) {
	u.Disabled, u.NotYet, u.LockedUntil = false, false, time.Time{}
	u.Factors = slices.DeleteFunc(slices.Clone(u.Factors), func(f Factor) bool { return f == Bypass })
	if u.Name == "" {
		u.Name = "-" // the rules want one, and none looks at it
	}
	return u, Facts{User: &u, Assigned: true, FirstResult: FirstAccepted, Machine: Machine{Status: "active", Mode: Normal}, Policies: ps}
}

// apart tells how the person is decided about without the server, over offline data that
// is all there.
func apart(u User, ps []Policy) Reason {
	u, f := plainly(u, ps)
	have := slices.DeleteFunc(slices.Clone(u.Factors), func(f Factor) bool { return !slices.Contains(OfflineKinds, f) })
	const plenty = 1 << 20
	f.FirstResult, f.Vault = FirstPending, &Vault{Class: "tpm", Factors: have, SigninsLeft: plenty, TriesLeft: plenty, RemoteTries: plenty}
	r := Request{User: u.Name, Scope: Logon, Link: LinkDown}
	f.Vault.Until = r.At.AddDate(1, 0, 0)
	return Decide(r, f).Reason
}

// NewlyShutOut names the places, of those that ShutOut names after a change, at which the
// person could sign in before it. Whom the policy denied without the server lost nothing
// there when it begins to ask for factors.
func NewlyShutOut(u User, before, after []Policy) []Place {
	was := ShutOut(u, before)
	out := slices.DeleteFunc(ShutOut(u, after), func(p Place) bool { return slices.Contains(was, p) })
	if i := slices.Index(out, Apart); i >= 0 && apart(u, before) == ReasonOfflineDeny {
		out = slices.Delete(out, i, i+1)
	}
	return out
}

// AtNoMachine tells whether somebody who is shut out of these places gets into no machine,
// while the server is reachable: neither at its seat nor from afar. Elevation is for who is
// in already.
func AtNoMachine(places []Place) bool {
	return slices.Contains(places, Place(Logon)) && slices.Contains(places, Place(Remote))
}

// Everywhere tells whether somebody who is shut out of these places can sign in nowhere
// while the server is reachable.
func Everywhere(places []Place) bool {
	return !slices.ContainsFunc(Scopes, func(s Scope) bool { return !slices.Contains(places, Place(s)) })
}

// SameAsked tells whether a change from one state of a policy to the other leaves alone
// what ShutOut depends on: it can shut nobody out.
func SameAsked(a, b Policy) bool {
	same := slices.Clone(a.Groups)
	slices.Sort(same)
	other := slices.Clone(b.Groups)
	slices.Sort(other)
	return slices.Equal(same, other) && a.Name == b.Name && a.Priority == b.Priority && a.Default == b.Default && a.ReportOnly == b.ReportOnly &&
		slices.Equal(a.Scopes, b.Scopes) && a.FactorsOnline == b.FactorsOnline && a.FactorsOffline == b.FactorsOffline &&
		slices.Equal(a.OnlineFactors, b.OnlineFactors) && slices.Equal(a.OfflineFactors, b.OfflineFactors) && a.Offline == b.Offline &&
		a.EnrolAtSignin == b.EnrolAtSignin && a.EnrolRemote == b.EnrolRemote
}
