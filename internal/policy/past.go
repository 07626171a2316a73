package policy

import (
	"net/netip"
	"slices"
	"time"
)

// PastForm is the form of Past that this program writes. A record without a form is
// of a program that kept none.
const PastForm = 1

// Past is what is kept of a sign-in with its event, so that it can be judged again
// with other rules (P5). Who the user is, which groups and factors they have and how
// the machine is set are not kept: those are taken as they are when it is judged
// again, because the question is what would happen from now on.
type Past struct {
	Form        int         `json:"form"`
	UID         *uint32     `json:"uid,omitempty"`
	SID         string      `json:"sid,omitempty"`
	First       First       `json:"first,omitempty"`
	Result      FirstResult `json:"result,omitempty"`
	Peer        netip.Addr  `json:"peer,omitzero"`
	RemoteSeat  bool        `json:"remote_seat,omitempty"`
	Host        string      `json:"host,omitempty"` // named although the scope was not remote
	MachineAddr netip.Addr  `json:"machine_addr,omitzero"`
	Boot        string      `json:"boot,omitempty"`
	Near        bool        `json:"near,omitempty"`
	Assigned    bool        `json:"assigned,omitempty"`
	LockedUntil time.Time   `json:"locked_until,omitzero"`
	NoWindow    bool        `json:"no_window,omitempty"` // no window was looked for
	Cannot      []Factor    `json:"cannot,omitempty"`
	Window      *Window     `json:"window,omitempty"`
	// Offline: what the machine held.
	Vault         *Vault `json:"vault,omitempty"`
	VaultProblem  Reason `json:"vault_problem,omitempty"`
	PolicyProblem Reason `json:"policy_problem,omitempty"`
}

// Remember keeps what Past needs of a decision's request and facts.
func Remember(r Request, f Facts) Past {
	p := Past{
		Form: PastForm, UID: r.UID, SID: r.SID, First: r.First, Result: f.FirstResult, Peer: r.Peer, RemoteSeat: r.RemoteSeat,
		MachineAddr: r.MachineAddr, Boot: r.Boot, Cannot: r.Cannot, Near: f.NearMiss, Assigned: f.Assigned, Window: f.Window, Vault: f.Vault,
		VaultProblem: f.VaultProblem, PolicyProblem: f.PolicyProblem,
	}
	if r.Scope != Remote {
		p.Host = r.Host
	}
	if f.User != nil {
		p.LockedUntil = f.User.LockedUntil
	}
	return p
}

// Then is what an event says of a sign-in beside its Past.
type Then struct {
	User    string
	Scope   Scope
	Service string
	Link    Link
	At      time.Time
}

// Again is the sign-in as a request and facts, with the user (nil: unknown), machine
// and policies given.
func (p Past) Again(t Then, u *User, m Machine, ps []Policy) (Request, Facts) {
	r := Request{
		User: t.User, UID: p.UID, SID: p.SID, Scope: t.Scope, Service: t.Service, At: t.At, Link: t.Link, First: p.First,
		Peer: p.Peer, RemoteSeat: p.RemoteSeat, Host: p.Host, MachineAddr: p.MachineAddr, Boot: p.Boot, Cannot: p.Cannot,
	}
	f := Facts{
		NearMiss: p.Near, Assigned: p.Assigned, FirstResult: p.Result, Machine: m, Policies: ps, Window: p.Window,
		Vault: p.Vault, VaultProblem: p.VaultProblem, PolicyProblem: p.PolicyProblem,
	}
	if u != nil {
		c := *u
		c.LockedUntil = p.LockedUntil
		f.User = &c
	}
	return r, f
}

// Change says in which way a second decision about the same sign-in differs from the
// first, for the person who signs in.
type Change string

// The changes. Words are stored.
const (
	Same         Change = "same"
	AskedMore    Change = "asked-more" // a second factor where none was asked, or more of them
	AskedLess    Change = "asked-less" // none or fewer
	AskedToEnrol Change = "asked-to-enrol"
	DeniedNow    Change = "denied"
	AllowedNow   Change = "no-longer-denied"
	OtherFactors Change = "other-factors" // as many, of other kinds
)

// Changes lists all but Same, the gravest first.
var Changes = []Change{DeniedNow, AskedToEnrol, AskedMore, AskedLess, AllowedNow, OtherFactors}

// Compare tells how b differs from a.
func Compare(a, b Decision) Change {
	x, y := a.burden(), b.burden()
	switch {
	case (a.Outcome == Deny || a.Outcome == "") != (b.Outcome == Deny || b.Outcome == ""):
		if b.Outcome == Deny || b.Outcome == "" {
			return DeniedNow
		}
		return AllowedNow
	case a.Outcome == Deny || a.Outcome == "":
		return Same
	case b.Outcome == EnrolFirst && a.Outcome != EnrolFirst:
		return AskedToEnrol
	case y > x:
		return AskedMore
	case y < x:
		return AskedLess
	case !sameKinds(a.Factors, b.Factors):
		return OtherFactors
	}
	return Same
}

// burden is how many factors beside the password are asked for.
func (d Decision) burden() int {
	switch d.Outcome {
	case MFA, MFAOffline, EnrolFirst:
		return max(1, d.Count)
	case AskFirst:
		return 1 // not known yet; only compared with another decision on the same facts
	}
	return 0
}

// Prompts tells whether the person is asked for more than the first factor.
func (d Decision) Prompts() bool {
	return d.Outcome == MFA || d.Outcome == MFAOffline || d.Outcome == EnrolFirst
}

func sameKinds(a, b []Factor) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

// Report is what a policy that only reports would have decided about a sign-in.
type Report struct {
	Policy  string   `json:"policy"` // its id
	Name    string   `json:"name"`
	Version int64    `json:"version"`
	Outcome Outcome  `json:"outcome"`
	Reason  Reason   `json:"reason"`
	Count   int      `json:"count,omitempty"`
	Factors []Factor `json:"factors,omitempty"`
	Change  Change   `json:"change"` // against what was decided
}

// MaxReports bounds how many policies report on one sign-in.
const MaxReports = 5

// Reports says what each policy that only reports would have decided, had it been in
// force: of those that would then have been the user's. d is what was decided. The
// strongest come first; at most MaxReports.
func Reports(r Request, f Facts, d Decision) []Report {
	var trial []Policy
	for _, p := range f.Policies {
		if p.ReportOnly && !p.Default {
			if _, ok := belongsThrough(f.User, &p); ok {
				trial = append(trial, p)
			}
		}
	}
	slices.SortFunc(trial, func(a, b Policy) int {
		if before(&a, &b) {
			return -1
		}
		return 1
	})
	var out []Report
	for _, p := range trial {
		live := slices.Clone(f.Policies)
		for i := range live {
			if live[i].ID == p.ID {
				live[i].ReportOnly = false
			}
		}
		if best, _ := Choose(f.User, live); best == nil || best.ID != p.ID {
			continue // another one wins: it would change nothing
		}
		g := f
		g.Policies = live
		w := Decide(r, g)
		out = append(out, Report{p.ID, p.Name, p.Version, w.Outcome, w.Reason, w.Count, w.Factors, Compare(d, w)})
		if len(out) == MaxReports {
			break
		}
	}
	return out
}

// Standing is how a policy stands to a user: in the order in which they are looked at.
type Standing struct {
	Policy     Policy
	Belongs    bool   // it is meant for the user
	Through    string // name of the group
	Applies    bool   // it is the one
	ReportOnly bool
}

// Stand lists all policies in the order in which they are looked at, and how each
// stands to the user (nil: unknown).
func Stand(u *User, ps []Policy) []Standing {
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(a, b Policy) int {
		switch {
		case before(&a, &b):
			return -1
		case before(&b, &a):
			return 1
		}
		return 0
	})
	out := make([]Standing, 0, len(ps))
	done := false
	for _, p := range ps {
		s := Standing{Policy: p, ReportOnly: p.ReportOnly && !p.Default}
		s.Through, s.Belongs = belongsThrough(u, &p)
		if p.Default {
			s.Belongs = true
		}
		s.Applies = s.Belongs && !s.ReportOnly && !done
		done = done || s.Applies
		out = append(out, s)
	}
	return out
}

// TwoFactor is P2: whether 2FA is on for the user, and who says so.
func TwoFactor(u User) (on bool, why string) { return twoFactor(u) }
