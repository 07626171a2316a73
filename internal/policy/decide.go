package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Decide says what is to be done about a request. It never opens by omission:
// whatever is not recognised is denied. The trace lists every rule that was
// looked at, in order, ending with the one that applied.
func Decide(r Request, f Facts) Decision {
	d := &decider{r: r, f: f}
	for _, rule := range rules {
		if rule.decide(d, rule.name) {
			return d.out
		}
	}
	d.end("S3 nothing matched", Deny, ReasonBadRequest, "no rule applies, so the request is denied")
	return d.out
}

// rules in the order in which they are looked at. Each either ends the decision
// (true) or notes why it passed.
var rules = []struct {
	name   string
	decide func(*decider, string) bool
}{
	{"request is well-formed", (*decider).wellFormed},
	{"O1 machine is not refused", (*decider).refused},
	{"P3 machine is active", (*decider).machineStatus},
	{"O2 signed policy is usable", (*decider).policyFile},
	{"P1 policy that applies", (*decider).choose},
	{"S4 exempt account", (*decider).exemptAccount},
	{"S5 user is known", (*decider).known},
	{"E4 user may use this machine", (*decider).assigned},
	{"D1 user is active", (*decider).active},
	{"S10 user is not locked out", (*decider).locked},
	{"S5 first factor", (*decider).first},
	{"S4 exempt machine", (*decider).exemptMachine},
	{"P2 2FA is on", (*decider).switchedOn},
	{"P1 number of factors", (*decider).factorsAsked},
	{"S3 scope is covered", (*decider).scope},
	{"P6 trusted network", (*decider).trusted},
	{"S2 factors of this seat", (*decider).seat},
	{"O2 server is reachable", (*decider).offline},
	{"W5 window", (*decider).window},
	{"S2 second factor", (*decider).online},
}

type decider struct {
	r   Request
	f   Facts
	p   Policy
	no  []Factor // that can not be given here
	out Decision
}

func (d *decider) end(rule string, o Outcome, reason Reason, why string, a ...any) bool {
	d.out.Outcome, d.out.Reason = o, reason
	d.out.Trace = append(d.out.Trace, Step{rule, Applied, fmt.Sprintf(why, a...)})
	return true
}

func (d *decider) pass(rule, why string, a ...any) bool {
	d.out.Trace = append(d.out.Trace, Step{rule, Passed, fmt.Sprintf(why, a...)})
	return false
}

// alone ends with the first factor alone: accepted already, or left to the
// machine.
func (d *decider) alone(rule string, reason Reason, why string, a ...any) bool {
	if d.r.Link == LinkUp && d.f.FirstResult == FirstAccepted && d.r.First != FirstMachine || d.r.First == FirstSSHKey {
		return d.end(rule, Allow, reason, why, a...)
	}
	return d.end(rule, Ignore, reason, why, a...)
}

func (d *decider) enforced() bool { return d.f.Machine.Mode == Enforced }

func (d *decider) wellFormed(rule string) bool {
	switch {
	case !slices.Contains(Scopes, d.r.Scope):
		return d.end(rule, Deny, ReasonBadRequest, "scope %q is not one of logon, elevation, remote", d.r.Scope)
	case d.r.User == "":
		return d.end(rule, Deny, ReasonBadRequest, "no user name")
	case d.r.Link != LinkUp && d.r.Link != LinkDown && d.r.Link != LinkRefused:
		return d.end(rule, Deny, ReasonBadRequest, "link %q is not one of up, down, refused", d.r.Link)
	case d.f.Machine.Mode != Normal && d.f.Machine.Mode != Enforced && d.f.Machine.Mode != Exempt:
		return d.end(rule, Deny, ReasonBadRequest, "machine mode %q is not one of normal, enforced, exempt", d.f.Machine.Mode)
	}
	return d.pass(rule, "%s through %s", d.r.Scope, orNone(d.r.Service))
}

func orNone(s string) string {
	if s == "" {
		return "no named service"
	}
	return s
}

func (d *decider) refused(rule string) bool {
	if d.r.Link == LinkRefused {
		return d.end(rule, Deny, ReasonRefused, "the server has revoked this machine")
	}
	return d.pass(rule, "no refusal")
}

func (d *decider) machineStatus(rule string) bool {
	if d.f.Machine.Status != "active" {
		return d.end(rule, Deny, ReasonMachineStatus, "the machine is %s", d.f.Machine.Status)
	}
	return d.pass(rule, "the machine is active")
}

func (d *decider) policyFile(rule string) bool {
	if d.r.Link == LinkUp {
		return d.pass(rule, "the server is reachable")
	}
	if d.f.PolicyProblem != "" {
		return d.end(rule, Deny, d.f.PolicyProblem, "the policy on this machine can not be used")
	}
	return d.pass(rule, "the policy on this machine is valid")
}

func (d *decider) choose(rule string) bool {
	best, through := Choose(d.f.User, d.f.Policies)
	if best == nil {
		return d.end(rule, Deny, ReasonNoPolicy, "no policy applies and there is no default policy")
	}
	d.p, d.out.applied, d.out.Policy = *best, best, best.Name
	if best.Default {
		return d.pass(rule, "%q, the default", best.Name)
	}
	return d.pass(rule, "%q (priority %d) through group %q", best.Name, best.Priority, through)
}

// Choose finds the policy that applies to a user, and the name of the group
// through which it does. A nil user gets the default policy.
func Choose(u *User, ps []Policy) (best *Policy, through string) {
	for i := range ps {
		p := &ps[i]
		group, ok := appliesThrough(u, p)
		if !ok || best != nil && !before(p, best) {
			continue
		}
		best, through = p, group
	}
	return best, through
}

// before orders policies: the default last, then by priority, then by name.
func before(a, b *Policy) bool {
	if a.Default != b.Default {
		return b.Default
	}
	if a.Priority != b.Priority {
		return a.Priority < b.Priority
	}
	return a.Name < b.Name
}

func appliesThrough(u *User, p *Policy) (group string, ok bool) {
	if p.Default {
		return "", true
	}
	if p.ReportOnly {
		return "", false
	}
	return belongsThrough(u, p)
}

// belongsThrough tells through which of the user's groups the policy is meant for
// them, whether or not it is in force.
func belongsThrough(u *User, p *Policy) (group string, ok bool) {
	if u == nil {
		return "", false
	}
	for _, g := range u.Groups {
		if slices.Contains(p.Groups, g.ID) {
			return g.Name, true
		}
	}
	return "", false
}

func (d *decider) exemptAccount(rule string) bool {
	exempt := d.r.UID != nil && slices.Contains(d.p.ExemptUIDs, *d.r.UID) ||
		d.r.SID != "" && slices.ContainsFunc(d.p.ExemptSIDs, func(s string) bool { return strings.EqualFold(s, d.r.SID) })
	if !exempt {
		return d.pass(rule, "the account is not on the exempt list")
	}
	if d.f.FirstResult == FirstRejected {
		return d.end(rule, Deny, ReasonFirstRejected, "the account is exempt, but its first factor was rejected")
	}
	return d.alone(rule, ReasonExemptAccount, "the account is on the exempt list")
}

func (d *decider) known(rule string) bool {
	switch {
	case d.f.User != nil:
		return d.pass(rule, "the name is exactly that of a user")
	case d.f.NearMiss:
		return d.end(rule, Deny, ReasonNearMiss, "a user matches only by upper and lower case or by account number; names are exact")
	case d.r.Link != LinkUp:
		return d.end(rule, Deny, ReasonUnknownDenied, "the user is not known on this machine")
	case d.f.FirstResult == FirstRejected:
		return d.end(rule, Deny, ReasonFirstRejected, "the user is unknown and the first factor was rejected")
	case d.f.Machine.SkipUnknown:
		return d.end(rule, Ignore, ReasonUnknownSkipped, "the user is unknown and this machine leaves unknown users to its own sign-in")
	}
	return d.end(rule, Deny, ReasonUnknownDenied, "the user is unknown")
}

func (d *decider) assigned(rule string) bool {
	if d.f.Machine.OnlyAssigned && !d.f.Assigned {
		return d.end(rule, Deny, ReasonNotAssigned, "the machine is for assigned users only and this user is not one of them")
	}
	return d.pass(rule, "the user may use this machine")
}

func (d *decider) active(rule string) bool {
	if d.f.User.Disabled {
		return d.end(rule, Deny, ReasonDisabled, "the user is disabled")
	}
	if d.f.User.NotYet {
		return d.end(rule, Deny, ReasonNotYet, "the user's activation lies in the future")
	}
	return d.pass(rule, "the user is active")
}

func (d *decider) locked(rule string) bool {
	if d.r.At.Before(d.f.User.LockedUntil) {
		return d.end(rule, Deny, ReasonLocked, "the user is locked out here for a time")
	}
	return d.pass(rule, "the user is not locked out")
}

func (d *decider) first(rule string) bool {
	switch d.f.FirstResult {
	case FirstAccepted:
		return d.pass(rule, "accepted by %s", d.r.First)
	case FirstPending:
		if d.r.Link == LinkUp {
			return d.end(rule, AskFirst, ReasonFirstPending, "the first factor has not been given")
		}
		return d.pass(rule, "judged together with the second, offline")
	}
	return d.end(rule, Deny, ReasonFirstRejected, "the first factor was rejected")
}

func (d *decider) exemptMachine(rule string) bool {
	if d.f.Machine.Mode == Exempt {
		return d.alone(rule, ReasonMachineExempt, "the machine is exempt from MFA")
	}
	return d.pass(rule, "the machine is %s", d.f.Machine.Mode)
}

func (d *decider) switchedOn(rule string) bool {
	on, why := twoFactor(*d.f.User)
	if !on && !d.enforced() {
		return d.alone(rule, ReasonTwoFactorOff, "%s", why)
	}
	if !on {
		return d.pass(rule, "%s, but the machine is enforced", why)
	}
	return d.pass(rule, "%s", why)
}

// twoFactor is P2: the user's own setting wins; else one group with "on" is
// enough; else one with "off" switches it off; where nobody says anything it is
// on.
func twoFactor(u User) (on bool, why string) {
	switch u.MFA {
	case On:
		return true, "2FA is on for the user"
	case Off:
		return false, "2FA is off for the user"
	}
	off := ""
	for _, g := range u.Groups {
		switch g.MFA {
		case On:
			return true, fmt.Sprintf("2FA is on for group %q", g.Name)
		case Off:
			if off == "" {
				off = g.Name
			}
		}
	}
	if off != "" {
		return false, fmt.Sprintf("2FA is off for group %q", off)
	}
	return true, "2FA is on unless switched off"
}

func (d *decider) factorsAsked(rule string) bool {
	n, link := d.p.FactorsOnline, "online"
	if d.r.Link != LinkUp {
		n, link = d.p.FactorsOffline, "offline"
	}
	if n <= 0 && d.enforced() {
		n = 1
		d.out.Count = n
		return d.pass(rule, "the policy asks for none %s, but the machine is enforced", link)
	}
	if n <= 0 {
		return d.alone(rule, ReasonNoFactors, "the policy asks for no second factor %s", link)
	}
	d.out.Count = n
	return d.pass(rule, "%d beside the password %s", n, link)
}

func (d *decider) scope(rule string) bool {
	for _, s := range d.r.scopes() {
		switch {
		case !slices.Contains(d.p.Scopes, s):
		case s != d.r.Scope:
			return d.pass(rule, "%s is covered, and so is this %s, which names a remote host", s, d.r.Scope)
		default:
			return d.pass(rule, "%s is covered", s)
		}
	}
	if d.enforced() {
		return d.pass(rule, "%s is not covered, but the machine is enforced", d.r.Scope)
	}
	return d.alone(rule, ReasonScope, "%s is not covered by the policy", d.r.Scope)
}

// trusted is P6: the address of the machine's own connection, and for remote
// sessions the peer that sshd saw, must both lie in a trusted network.
func (d *decider) trusted(rule string) bool {
	in := func(a netip.Addr) bool {
		return a.IsValid() && slices.ContainsFunc(d.p.TrustedNetworks, func(n netip.Prefix) bool { return n.Contains(a.Unmap()) })
	}
	kept := d.unrelaxed(d.p.TrustedScopes)
	switch {
	case len(d.p.TrustedNetworks) == 0:
		return d.pass(rule, "the policy names no trusted network")
	case d.r.Link != LinkUp:
		return d.pass(rule, "no network is trusted while the server is not reachable")
	case kept != "":
		return d.pass(rule, "%s is not relaxed by trusted networks", kept)
	case !in(d.r.MachineAddr):
		return d.pass(rule, "the machine's connection does not come from a trusted network")
	case d.r.afar() && !in(d.r.Peer):
		return d.pass(rule, "the remote peer is not known to be in a trusted network")
	case d.enforced():
		return d.pass(rule, "the network is trusted, but the machine is enforced")
	}
	return d.alone(rule, ReasonTrusted, "the request comes from a trusted network")
}

// seat leaves out what can not be given where the person sits: a security key is at
// the wrong end of a network (M2), and what the agent or the server has no way to ask
// for is not asked.
func (d *decider) seat(rule string) bool {
	of := append(slices.Clone(d.p.OnlineFactors), Bypass)
	if d.r.Link != LinkUp {
		of = d.p.OfflineFactors
	}
	var far, cannot []Factor
	for _, k := range of {
		switch {
		case !slices.Contains(d.f.User.Factors, k):
		case k == FIDO2 && d.r.afar():
			far = append(far, k)
		case slices.Contains(d.r.Cannot, k) && !slices.Contains(cannot, k):
			cannot = append(cannot, k)
		}
	}
	d.no = append(slices.Clone(far), cannot...)
	switch {
	case len(d.no) == 0:
		return d.pass(rule, "nothing that the user has is left out")
	case len(cannot) == 0:
		return d.pass(rule, "without %s: the seat is remote, and a security key is at the other end of the line", list(far))
	case len(far) == 0:
		return d.pass(rule, "without %s: there is no way to ask for it here", list(cannot))
	}
	return d.pass(rule, "without %s, because the seat is remote, and %s, for which there is no way to ask here", list(far), list(cannot))
}

// here keeps what can be given at this seat.
func (d *decider) here(fs []Factor) []Factor {
	return slices.DeleteFunc(slices.Clone(fs), func(k Factor) bool { return slices.Contains(d.no, k) })
}

func (d *decider) window(rule string) bool {
	w, loud := d.f.Window, d.unrelaxed(d.p.WindowSilences)
	switch {
	case d.p.Window <= 0:
		return d.pass(rule, "the policy always asks")
	case w == nil || !d.r.At.Before(w.Expires) || d.r.At.Before(w.Opened):
		return d.pass(rule, "no valid window")
	case loud != "":
		return d.pass(rule, "a window is valid, but it does not silence %s", loud)
	case d.r.Boot == "" || w.Boot != d.r.Boot:
		return d.pass(rule, "a window is valid, but this is the first logon after a boot")
	case countIn(w.Factors, d.p.OnlineFactors) < d.out.Count:
		return d.pass(rule, "a window is valid, but the policy asks for more than it was opened with")
	}
	return d.alone(rule, ReasonWindow, "a window is valid for this user on this machine")
}

// unrelaxed names the first scope of the request that a relaxation for these does not
// reach; empty: it reaches all.
func (d *decider) unrelaxed(these []Scope) string {
	for _, s := range d.r.scopes() {
		switch {
		case slices.Contains(these, s):
		case s != d.r.Scope:
			return fmt.Sprintf("%s, and this %s names a remote host", s, d.r.Scope)
		default:
			return string(s)
		}
	}
	return ""
}

func countIn(have, want []Factor) int {
	n := 0
	for _, h := range have {
		if slices.Contains(want, h) {
			n++
		}
	}
	return n
}

func (d *decider) online(rule string) bool {
	have := d.here(d.f.User.Factors)
	usable := intersect(d.p.OnlineFactors, have)
	if len(usable) >= d.out.Count {
		d.out.Factors = withBypass(usable, have)
		return d.end(rule, MFA, ReasonMFA, "%d of %s", d.out.Count, list(usable))
	}
	if d.out.Count == 1 && slices.Contains(have, Bypass) {
		d.out.Factors = []Factor{Bypass}
		return d.end(rule, MFA, ReasonMFA, "only a one-time bypass code")
	}
	if d.p.EnrolAtSignin && (!d.r.afar() || d.p.EnrolRemote) {
		d.out.Factors = intersect(d.p.OnlineFactors, d.here([]Factor{TOTP}))
		return d.end(rule, EnrolFirst, ReasonEnrol, "the user has %d of %d factors and may enrol now", len(usable), d.out.Count)
	}
	return d.end(rule, Deny, ReasonNotEnrolled, "the user has %d of %d factors that the policy accepts", len(usable), d.out.Count)
}

// withBypass puts an administrator's one-time code last in the menu.
func withBypass(usable, have []Factor) []Factor {
	if slices.Contains(have, Bypass) {
		return append(usable, Bypass)
	}
	return usable
}

// intersect keeps the order of want.
func intersect(want, have []Factor) []Factor {
	var both []Factor
	for _, w := range want {
		if slices.Contains(have, w) && !slices.Contains(both, w) {
			both = append(both, w)
		}
	}
	return both
}

func list(fs []Factor) string {
	s := make([]string, len(fs))
	for i, f := range fs {
		s[i] = string(f)
	}
	return strings.Join(s, ", ")
}

func (d *decider) offline(rule string) bool {
	if d.r.Link == LinkUp {
		return d.pass(rule, "the server is reachable")
	}
	what := d.p.Offline
	if what == OfflineBypass && d.enforced() {
		what = OfflineMFA
		d.pass(rule, "the policy leaves offline sign-ins to the machine, but the machine is enforced")
	}
	if what == OfflineMFAOrBypass && d.enforced() {
		what = OfflineMFA
	}
	switch what {
	case OfflineBypass:
		return d.alone(rule, ReasonOfflineBypass, "the server is not reachable and the policy leaves it to the machine")
	case OfflineMFA, OfflineMFAOrBypass:
		return d.vault("O3 offline MFA", what)
	}
	return d.end(rule, Deny, ReasonOfflineDeny, "the server is not reachable and the policy denies")
}

func (d *decider) vault(rule string, what Offline) bool {
	v := d.f.Vault
	switch {
	case v == nil && d.f.VaultProblem != "":
		// Something that was there is damaged, restored or lost: never a bypass.
		return d.end(rule, Deny, d.f.VaultProblem, "the offline data on this machine can not be used")
	case v == nil && what == OfflineMFAOrBypass:
		return d.alone(rule, ReasonNoVaultBypass, "this machine is not enrolled for the user and the policy leaves it to the machine")
	case v == nil:
		return d.end(rule, Deny, ReasonNoVault, "this machine is not enrolled for the user")
	case v.Stale:
		return d.end(rule, Deny, ReasonVaultStale, "password or authenticators have changed since the offline data was made")
	case v.Class != "tpm" && !d.p.SoftwareVault:
		return d.end(rule, Deny, ReasonVaultSoftware, "the policy refuses offline MFA without a TPM")
	case !d.r.At.Before(v.Until):
		return d.end(rule, Deny, ReasonVaultDays, "the offline days are used up")
	case v.SigninsLeft <= 0:
		return d.end(rule, Deny, ReasonVaultSignins, "the offline sign-ins are used up")
	case v.TriesLeft <= 0:
		return d.end(rule, Deny, ReasonVaultTries, "too many wrong tries since the last success")
	case d.r.afar() && v.RemoteTries <= 0:
		return d.end(rule, Deny, ReasonVaultRemote, "too many wrong tries from remote; a local seat may still try")
	}
	d.out.Factors = intersect(d.p.OfflineFactors, d.here(v.Factors))
	if len(d.out.Factors) < d.out.Count {
		return d.end(rule, Deny, ReasonVaultFactor, "the machine holds %d of %d factors that the policy accepts offline", len(d.out.Factors), d.out.Count)
	}
	return d.end(rule, MFAOffline, ReasonOfflineMFA, "%d of %s", d.out.Count, list(d.out.Factors))
}
