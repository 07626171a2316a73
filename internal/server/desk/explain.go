package desk

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Explain decides as a sign-in would, over the same facts, and gives every rule that
// was looked at (S13). The first factor is taken as accepted. Nothing is changed and
// nobody is asked.
func (d *Desk) Explain(ctx context.Context, a Actor, in rest.Explain) (rest.Explained, error) {
	var out rest.Explained
	if err := a.may(read); err != nil {
		return out, err
	}
	ask := facts.Ask{
		Name: facts.Name{User: in.User}, Scope: policy.Scope(in.Scope), Service: in.Service, At: in.At, Link: policy.LinkUp,
		First: policy.FirstServer, Result: policy.FirstAccepted, RemoteSeat: in.Remote || in.Scope == string(policy.Remote), Boot: in.Boot,
	}
	var v faults
	if in.User == "" || len(in.User) > 256 {
		v.add("user", "it has %d octets; allowed are 1 to 256", len(in.User))
	}
	if in.Machine == "" {
		v.add("machine", "it is missing")
	}
	v.scope("scope", in.Scope)
	v.line("service", in.Service, 128)
	v.line("boot", in.Boot, 256)
	v.uid(in.UID)
	if in.UID != nil && *in.UID >= 0 && *in.UID <= 1<<32-2 {
		uid := uint32(*in.UID)
		ask.Name.UID = &uid
	}
	if in.From != "" {
		if ask.Peer = facts.Peer(in.From); !ask.Peer.IsValid() {
			v.add("from", "%q is no address; allowed are addresses such as 192.0.2.7 or 2001:db8::7", text.CleanN(in.From, 64))
		}
		ask.RemoteSeat, ask.Host = true, in.From
	}
	if !in.At.IsZero() && (in.At.Year() < 2000 || in.At.Year() > 2200) {
		v.add("at", "the year %d is out of range; allowed are 2000 to 2200", in.At.Year())
	}
	first := or(in.First, string(policy.FirstServer))
	v.word("first", first, []string{string(policy.FirstMachine), string(policy.FirstServer), string(policy.FirstSSHKey)})
	if len(in.Cannot) > len(policy.Kinds) {
		v.add("cannot", "it names %d kinds; allowed are %d", len(in.Cannot), len(policy.Kinds))
		in.Cannot = nil
	}
	kinds := make([]string, len(policy.Kinds))
	for i, k := range policy.Kinds {
		kinds[i] = string(k)
	}
	for _, k := range in.Cannot {
		v.word("cannot", k, kinds)
		ask.Cannot = append(ask.Cannot, policy.Factor(k))
	}
	if err := v.err(); err != nil {
		return out, err
	}
	ask.First = policy.First(first)
	if ask.At.IsZero() {
		ask.At = d.Clock.Now()
	}
	if in.Offline {
		ask.Link = policy.LinkDown
		if ask.First == policy.FirstServer {
			// Nobody has judged the password yet: the vault does, with the code.
			ask.First, ask.Result = policy.FirstNone, policy.FirstPending
		}
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		// A user id stands for its name; a name that nobody has is explained, too.
		if _, ok := cut(rest.UserPrefix, in.User); ok {
			u, err := user(ctx, q, in.User)
			if err != nil {
				return err
			}
			ask.Name.User = u.Name
		}
		m, err := machine(ctx, q, in.Machine)
		if fault.Is(err, fault.NotFound) {
			v.add("machine", "there is no machine %q", text.CleanN(in.Machine, 128))
			return v.err()
		} else if err != nil {
			return err
		}
		if ask.Boot == "" {
			ask.Boot = m.Boot
		}
		ask.MachineAddr = address(m.Address)
		r, f, u, err := facts.Gather(ctx, q, m, ask)
		if err != nil {
			return err
		}
		if in.Offline {
			if out.Notes, err = offlineNotes(ctx, q, m, u, &f); err != nil {
				return err
			}
		} else if !ask.MachineAddr.IsValid() {
			out.Notes = append(out.Notes, "The machine has not connected yet, so that no address of it is known for trusted networks.")
		}
		out.User, out.Machine, out.At, out.Link = ask.Name.User, m.Name, ask.At.UTC(), string(ask.Link)
		out.Decision = policy.Decide(r, f)
		if n := assumed(out.Decision); n != "" {
			out.Notes = append(out.Notes, n)
		}
		if !in.Offline {
			out.Reports = policy.Reports(r, f, out.Decision)
		}
		return nil
	})
	return out, err
}

// assumed says what the decision takes for granted of the program that asks, which only a
// sign-in tells: agents that are old, or of other systems, can not use keys or wait.
func assumed(d policy.Decision) string {
	var list []string
	for _, k := range d.Factors {
		if k == policy.FIDO2 || k == policy.Push {
			list = append(list, string(k))
		}
	}
	if len(list) == 0 {
		return ""
	}
	return "It is assumed that the machine can ask for " + strings.Join(list, " and ") + ". Each sign-in says whether it can; to decide without it, say that the machine can not ask for it."
}

// A page of ListStuck goes through the pairs of machine and user in looks: the first one
// at stuckLook pairs, later ones at up to stuckMost, because where few are stuck a page
// needs many. Behind stuckLooks of them, or stuckPage, it ends with what it has.
const (
	stuckLook  = 100
	stuckMost  = 400
	stuckLooks = 12
	stuckPage  = 30 * time.Millisecond
)

// ListStuck tells who could not sign in today on the machines that they know, if the
// server were out of reach, why, and what to do about it (O16). A page goes through
// a bounded number of pairs; it may be empty and yet not the last.
func (d *Desk) ListStuck(ctx context.Context, a Actor, userRef, machineRef, after string, limit int) (rest.Page[rest.Stuck], error) {
	out := rest.Page[rest.Stuck]{Items: []rest.Stuck{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	from, err := resume("stuck", after, 2)
	if err != nil {
		return out, err
	}
	_, show := page(limit)
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		userID, machineID, err := pair(ctx, q, userRef, machineRef)
		if err != nil {
			return err
		}
		if userID != "" && from[0] == "" {
			if out.Items, err = stuckEverywhere(ctx, q, userID, machineID); err != nil {
				return err
			}
		}
		begun := d.Clock.Now()
		w := db.PairFilter{UserID: userID, MachineID: machineID, AfterMachine: from[0], AfterUser: from[1], N: max(stuckLook, min(int64(show), stuckMost))}
		for range stuckLooks {
			pairs, err := q.KnownPairs(ctx, w)
			if err != nil {
				return err
			}
			more := int64(len(pairs)) == w.N
			list, err := facts.Offline(ctx, q, pairs, d.Clock.Now())
			if err != nil {
				return err
			}
			for _, p := range list {
				dec := policy.Decide(p.Request, p.Facts)
				if dec.Outcome != policy.Deny {
					continue
				}
				if len(out.Items) >= show {
					out.Next = cursor("stuck", w.AfterMachine, w.AfterUser)
					return nil
				}
				out.Items = append(out.Items, stuckOf(p, dec))
				w.AfterMachine, w.AfterUser = p.Machine.ID, p.User.ID
			}
			if !more {
				out.Next = "" // of the look before
				return nil
			}
			last := pairs[len(pairs)-1]
			w.AfterMachine, w.AfterUser = last.MachineID, last.UserID
			out.Next = cursor("stuck", w.AfterMachine, w.AfterUser)
			took := d.Clock.Now().Sub(begun)
			if took > stuckPage {
				return nil
			}
			if took < stuckPage/4 {
				w.N = min(2*w.N, stuckMost)
			}
		}
		return nil
	})
	return out, err
}

func stuckOf(p facts.Pair, dec policy.Decision) rest.Stuck {
	why := dec.Trace[len(dec.Trace)-1].Why
	if dec.Reason == p.Facts.PolicyProblem || dec.Reason == p.Facts.VaultProblem {
		why = event.Reasons[string(dec.Reason)]
	}
	return rest.Stuck{
		User: p.User.Name, UserID: rest.UserPrefix + p.User.ID, Machine: p.Machine.Name, MachineID: rest.MachinePrefix + p.Machine.ID,
		Reason: string(dec.Reason), Why: why, Next: nextStep(dec.Reason, p), SeenAt: rest.Time(p.Machine.LastSeenAt),
	}
}

// nextStep says who can mend it, and how.
func nextStep(r policy.Reason, p facts.Pair) string {
	user, machine := text.CleanN(p.User.Name, 128), text.CleanN(p.Machine.Name, 128)
	online := user + " signs in once with a second factor on " + machine + " while the server can be reached."
	switch r {
	case policy.ReasonNoVault, policy.ReasonVaultDays, policy.ReasonVaultSignins, policy.ReasonVaultStale:
		if len(p.Facts.User.Factors) == 0 {
			return "Help " + user + " to enrol a second factor first. Then: " + online
		}
		return online
	case policy.ReasonVaultTries, facts.ReasonChecks, policy.ReasonVaultRemote:
		return "Lift the counters (the machine must be connected), or " + online
	case policy.ReasonVaultFactor:
		return "Help " + user + " to enrol a factor that the policy accepts offline. Then: " + online
	case policy.ReasonVaultSoftware:
		return "The machine has no TPM that could be used. Allow offline MFA without one in the policy, or give " + user + " another machine."
	case policy.ReasonOfflineDeny:
		return "The policy lets nobody in without the server. Change it, if that is not meant."
	case policy.ReasonDisabled:
		return "Enable the account, if " + user + " shall sign in."
	case policy.ReasonLocked:
		return "Unlock " + user + ", or wait until the lock-out ends."
	case policy.ReasonNotAssigned:
		return "Assign " + user + " to " + machine + ", if they shall sign in there."
	case policy.ReasonNotYet:
		return "The account becomes active later. Change its activation, if that is too late."
	}
	return "Look at " + machine + ": latchkey status there says what is wrong."
}

// nowhere is the reason of a row without a machine: no active one knows the user.
const nowhere = "known-on-no-machine"

// stuckEverywhere is a row without a machine for somebody whom no active machine knows,
// who would stand in none otherwise.
func stuckEverywhere(ctx context.Context, q *db.Queries, userID, machineID string) ([]rest.Stuck, error) {
	none := []rest.Stuck{}
	n, err := q.CountMachinesKnowing(ctx, db.CountMachinesKnowingParams{UserID: userID, MachineID: machineID})
	if err != nil || n > 0 {
		return none, err
	}
	u, err := q.GetUser(ctx, userID)
	if err != nil {
		return none, err
	}
	why := u.Name + " has not signed in on any active machine, so no machine lets them in without the server."
	if machineID != "" {
		m, err := q.GetMachine(ctx, machineID)
		if err != nil {
			return none, err
		}
		why = u.Name + " has not signed in on " + m.Name + ", or it is not active, so it lets nobody of this name in without the server."
	}
	return append(none, rest.Stuck{
		User: u.Name, UserID: rest.UserPrefix + u.ID, Reason: nowhere, Why: why,
		Next: u.Name + " signs in once with a second factor on the machine while the server can be reached.",
	}), nil
}

// offlineNotes brings the server's facts down to what the machine itself would know,
// and says what only the machine knows.
func offlineNotes(ctx context.Context, q *db.Queries, m db.Machine, u *db.User, f *policy.Facts) ([]string, error) {
	notes := []string{"As of what the machine has reported: what it has counted since then (sign-ins, wrong tries) only the machine knows (latchkey status)."}
	if u == nil {
		return notes, nil
	}
	if f.VaultProblem == facts.ReasonChecks || f.Vault != nil && (f.Vault.TriesLeft <= 0 || f.Vault.SigninsLeft <= 0 || f.Vault.RemoteTries <= 0) {
		notes = append(notes, "The machine has reported that its offline data for the user is shut. A sign-in there while the server is in reach opens it again, or an administrator: latchkey offline lift --user "+
			text.CleanN(u.Name, 128)+" --machine "+text.CleanN(m.Name, 128))
	}
	known, err := q.ListUsersForMachine(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(known, func(k db.User) bool { return k.ID == u.ID }) {
		f.User, f.Vault = nil, nil
		notes = append(notes, "The user is neither assigned to this machine nor has ever signed in on it while the server was there, so that the machine does not know the name.")
	}
	return notes, nil
}

// address reads that of a connection, with or without a port.
func address(s string) netip.Addr {
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	return facts.Peer(strings.Trim(s, "[]"))
}
