// Package facts gathers from the tables what policy.Decide wants to know. It is
// the one place that turns rows into facts, so that the sign-in, the signed policy
// file of a machine and "latchkey explain" can not know different things about the
// same person.
//
// It promises: a row that can not be understood (a policy that does not parse, a
// word that is none of the known ones) is an error or the stricter reading, never a
// weaker fact. It changes nothing and reads through the queries it is given, so
// that all facts of one decision come from one snapshot.
//
// Rows: S5, S6 (who is meant by a name), P1-P3, D1, E4, S10 (lock-outs as a fact),
// W1, W5-W7 (the window on record).
package facts

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/store/db"
	"latchkey/internal/window"
)

// The words of users.activation (D1).
const (
	ActivationNow        = "now"
	ActivationFirstLogin = "first-login" // active from the start; activated_at is set by the first sign-in
	ActivationAt         = "at"          // from activate_at on
)

// The words of users.mfa and groups.mfa (P2).
const (
	MFAInherit = "inherit"
	MFAOn      = "on"
	MFAOff     = "off"
)

// The words of machines.unknown_users (S5).
const (
	UnknownDeny = "deny"
	UnknownSkip = "skip"
)

// The outcome column of conversations: the words of policy.Outcome for those that
// ended with an answer ("allow", "ignore", "deny"), Open while one is under way.
const (
	Open      = ""
	Abandoned = "abandoned" // given up or timed out
)

// The stage column of a conversation that was allowed after an MFA. Only the first
// one opens the way to offline data (O4).
const (
	StageAllowedOffline = "allowed-offline" // the policy enrols this machine and the person did not say "not now"
	StageAllowed        = "allowed"
)

// MayPrepare tells whether the conversation entitles its machine to offline data
// for its user at now: allowed after a full MFA with an authenticator of the user,
// at most five minutes ago, and neither an unlock, a bypass code nor "not now".
func MayPrepare(c db.Conversation, machineID string, now time.Time) bool {
	at := clock.FromMicros(c.MFAAt)
	return c.MachineID == machineID && c.UserID != "" && c.Outcome == string(policy.Allow) && c.Stage == StageAllowedOffline &&
		c.MFAAt > 0 && !now.Before(at) && now.Sub(at) <= 5*time.Minute
}

// Fold is the form in which names that differ only by upper and lower case are
// the same: what users.name_fold holds (S5).
func Fold(name string) string { return strings.ToLower(name) }

// At says for which machine, scope and time facts are wanted. An empty machine has
// no lock-outs; an empty scope counts bypass codes of every scope.
type At struct {
	MachineID string
	Scope     policy.Scope
	Now       time.Time
}

// User gathers the facts about an account, as a machine may know them too: nothing
// in them is secret.
func User(ctx context.Context, q *db.Queries, u db.User, at At) (policy.User, error) {
	f := policy.User{
		ID: u.ID, Name: u.Name, Disabled: u.Disabled, NotYet: NotYet(u, at.Now), MustChange: u.MustChange,
		Generation: u.PasswordGeneration,
	}
	var err error
	if f.MFA, err = toggle(u.MFA); err != nil {
		return f, fmt.Errorf("user %s: %w", u.ID, err)
	}
	groups, err := q.ListGroupsOfUser(ctx, u.ID)
	if err != nil {
		return f, fmt.Errorf("groups of user %s: %w", u.ID, err)
	}
	for _, g := range groups {
		s, err := toggle(g.MFA)
		if err != nil {
			return f, fmt.Errorf("group %s: %w", g.ID, err)
		}
		f.Groups = append(f.Groups, policy.Group{ID: g.ID, Name: g.Name, MFA: s})
	}
	if f.Factors, err = factors(ctx, q, u.ID, at); err != nil {
		return f, fmt.Errorf("factors of user %s: %w", u.ID, err)
	}
	if at.MachineID != "" {
		a, err := q.GetAttempt(ctx, db.GetAttemptParams{UserID: u.ID, MachineID: at.MachineID})
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return f, fmt.Errorf("lock-out of user %s: %w", u.ID, err)
		case a.LockedUntil > clock.Micros(at.Now):
			f.LockedUntil = clock.FromMicros(a.LockedUntil)
		}
	}
	return f, nil
}

// NotYet tells whether the account's activation lies in the future (D1). A word
// that is not known counts as that.
func NotYet(u db.User, now time.Time) bool {
	switch u.Activation {
	case ActivationNow, ActivationFirstLogin:
		return false
	case ActivationAt:
		return clock.Micros(now) < u.ActivateAt
	}
	return true
}

func toggle(word string) (policy.Switch, error) {
	switch word {
	case MFAInherit, "":
		return policy.Inherit, nil
	case MFAOn:
		return policy.On, nil
	case MFAOff:
		return policy.Off, nil
	}
	return policy.Inherit, fmt.Errorf("2FA setting %q is not one of inherit, on, off", word)
}

// Usable tells whether an authenticator may be asked for. One for TOTP that waits for
// its first code counts: that code may be given at a sign-in.
func Usable(a db.Authenticator) bool {
	return !a.Lost && (a.ConfirmedAt > 0 || a.Kind == string(policy.TOTP))
}

// factors lists the kinds that the user could use now.
func factors(ctx context.Context, q *db.Queries, userID string, at At) ([]policy.Factor, error) {
	var have []policy.Factor
	auths, err := q.ListAuthenticators(ctx, userID)
	if err != nil {
		return nil, err
	}
	for _, a := range auths {
		if kind := policy.Factor(a.Kind); Usable(a) && !slices.Contains(have, kind) {
			have = append(have, kind)
		}
	}
	if i := slices.Index(have, policy.Push); i >= 0 {
		// Somebody has said "it wasn't me": no more requests until that is cleared up (S12).
		switch _, err := q.GetPushLock(ctx, userID); {
		case err == nil:
			have = slices.Delete(have, i, i+1)
		case !errors.Is(err, sql.ErrNoRows):
			return nil, err
		}
	}
	codes, err := q.ListUnusedBackupCodes(ctx, userID)
	if err != nil {
		return nil, err
	}
	if len(codes) > 0 {
		have = append(have, policy.Backup)
	}
	bypass, err := q.ListValidBypassCodes(ctx, db.ListValidBypassCodesParams{UserID: userID, At: clock.Micros(at.Now)})
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(bypass, func(b db.BypassCode) bool { return BypassCovers(b, at.Scope) }) {
		have = append(have, policy.Bypass)
	}
	strongestFirst(have)
	return have, nil
}

// BypassCovers tells whether the bypass code is for the scope (E3). A code without
// a scope is for all; the empty scope asks for any code.
func BypassCovers(b db.BypassCode, scope policy.Scope) bool {
	return b.Scope == "" || scope == "" || b.Scope == string(scope)
}

// Machine gathers the facts about a machine.
func Machine(m db.Machine) policy.Machine {
	return policy.Machine{
		ID: m.ID, Name: m.Name, Status: m.Status, Mode: policy.Mode(m.Mode),
		SkipUnknown: m.UnknownUsers == UnknownSkip, OnlyAssigned: !m.AllUsers,
	}
}

// Assigned tells whether the user stands on the machine's own list (E4). It is only
// asked where the machine is for assigned users alone.
func Assigned(ctx context.Context, q *db.Queries, machineID, userID string) (bool, error) {
	n, err := q.MachineAllowsUser(ctx, db.MachineAllowsUserParams{MachineID: machineID, UserID: userID})
	return n > 0, err
}

// Policies gives all policies (P1); one that does not parse is an error, because
// the next best could be a weaker one.
func Policies(ctx context.Context, q *db.Queries) ([]policy.Policy, error) {
	rows, err := q.ListPolicies(ctx)
	if err != nil {
		return nil, fmt.Errorf("policies: %w", err)
	}
	pairs, err := q.ListPolicyGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("groups of policies: %w", err)
	}
	groups := map[string][]string{}
	for _, g := range pairs {
		groups[g.PolicyID] = append(groups[g.PolicyID], g.GroupID)
	}
	out := make([]policy.Policy, 0, len(rows))
	for _, r := range rows {
		p, err := Policy(r, groups[r.ID])
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Policy reads one policy from its row. What the row says of name, priority and
// version wins over the body.
func Policy(r db.Policy, groups []string) (policy.Policy, error) {
	p, err := policy.Parse([]byte(r.Body))
	if err != nil {
		return p, fmt.Errorf("policy %s (%q): %w", r.ID, r.Name, err)
	}
	p.ID, p.Name, p.Priority, p.Default, p.Version, p.Groups = r.ID, r.Name, r.Priority, r.IsDefault, r.Version, groups
	return p, nil
}

// Window gives the window on record for the pair (W5, W7), as a fact: of several
// the one of the given boot, then the one opened with most factors, then the
// youngest. nil means none.
func Window(ctx context.Context, q *db.Queries, userID, machineID, boot string, now time.Time) (*policy.Window, error) {
	rows, err := q.ListValidWindows(ctx, db.ListValidWindowsParams{UserID: userID, MachineID: machineID, At: clock.Micros(now)})
	if err != nil {
		return nil, fmt.Errorf("windows: %w", err)
	}
	var best *policy.Window
	for _, r := range rows {
		var fs []policy.Factor
		if err := json.Unmarshal([]byte(r.Factors), &fs); err != nil {
			return nil, fmt.Errorf("window %s: factors: %w", r.ID, err)
		}
		w := window.Window{
			UserID: r.UserID, MachineID: r.MachineID, Boot: r.Boot, Factors: fs,
			Opened: clock.FromMicros(r.OpenedAt), Expires: clock.FromMicros(r.ExpiresAt),
		}
		f := w.Fact(userID, machineID, now)
		if f == nil {
			continue
		}
		if best == nil || better(f, best, boot) {
			best = f
		}
	}
	return best, nil
}

func better(a, b *policy.Window, boot string) bool {
	if (a.Boot == boot) != (b.Boot == boot) {
		return a.Boot == boot
	}
	return len(a.Factors) > len(b.Factors)
}

// Name is how a machine names somebody: as typed, with the account number and the
// other names that its system has for it.
type Name struct {
	User    string
	UID     *uint32
	Aliases []string
}

// Resolve finds the user who has exactly this name (S6). If there is none, near
// tells whether a user matches by case folding, account number or alias (S5).
func Resolve(ctx context.Context, q *db.Queries, n Name) (u *db.User, near bool, err error) {
	if !storable(n.User) {
		return nil, false, nil
	}
	row, err := q.GetUserByName(ctx, n.User)
	switch {
	case err == nil:
		return &row, false, nil
	case !errors.Is(err, sql.ErrNoRows):
		return nil, false, fmt.Errorf("find the user: %w", err)
	}
	for _, name := range append([]string{n.User}, n.Aliases...) {
		if !storable(name) {
			continue
		}
		like, err := q.ListUsersByFold(ctx, Fold(name))
		if err != nil {
			return nil, false, fmt.Errorf("find users with a like name: %w", err)
		}
		if len(like) > 0 {
			return nil, true, nil
		}
	}
	if n.UID == nil {
		return nil, false, nil
	}
	same, err := q.ListUsersByUID(ctx, int64(*n.UID))
	if err != nil {
		return nil, false, fmt.Errorf("find users by account number: %w", err)
	}
	return nil, len(same) > 0, nil
}

// storable tells whether a database can be asked for the name at all; nobody who
// is in one has another.
func storable(name string) bool {
	return name != "" && len(name) <= 256 && utf8.ValidString(name) && !strings.ContainsRune(name, 0)
}

// Ask is a sign-in for which a decision is wanted: a real one, or one that
// somebody wants explained (S13).
type Ask struct {
	Name        Name
	SID         string
	Scope       policy.Scope
	Service     string
	At          time.Time
	Link        policy.Link
	First       policy.First
	Result      policy.FirstResult
	Peer        netip.Addr // that sshd saw
	RemoteSeat  bool
	Host        string     // remote host as it was named, address or not
	MachineAddr netip.Addr // of the machine's own connection
	Boot        string
	Cannot      []policy.Factor // kinds that can not be asked for at this seat
	NoWindow    bool            // leave the window out: a change of the password is never silenced
}

// Peer reads a remote host as a machine reports it. What is no number is no
// address, and so never a trusted one (P6).
func Peer(rhost string) netip.Addr {
	a, err := netip.ParseAddr(rhost)
	if err != nil {
		return netip.Addr{}
	}
	return a.WithZone("").Unmap()
}

// Gather brings everything that policy.Decide wants to know about a sign-in, from
// one snapshot. It is the one place that does: the event of a sign-in and its
// explanation can not know different things. u is nil if nobody has the name.
func Gather(ctx context.Context, q *db.Queries, m db.Machine, a Ask) (r policy.Request, f policy.Facts, u *db.User, err error) {
	r = policy.Request{
		User: a.Name.User, UID: a.Name.UID, SID: a.SID, Scope: a.Scope, Service: a.Service, At: a.At, Link: a.Link, First: a.First,
		Peer: a.Peer, RemoteSeat: a.RemoteSeat, Host: a.Host, MachineAddr: a.MachineAddr, Boot: a.Boot, Cannot: a.Cannot,
	}
	f = policy.Facts{Machine: Machine(m), FirstResult: a.Result}
	if f.Policies, err = Policies(ctx, q); err != nil {
		return r, f, nil, err
	}
	if u, f.NearMiss, err = Resolve(ctx, q, a.Name); err != nil || u == nil {
		return r, f, nil, err
	}
	fu, err := User(ctx, q, *u, At{MachineID: m.ID, Scope: a.Scope, Now: a.At})
	if err != nil {
		return r, f, u, err
	}
	f.User = &fu
	if f.Assigned, err = Assigned(ctx, q, m.ID, u.ID); err != nil {
		return r, f, u, fmt.Errorf("users of machine %s: %w", m.ID, err)
	}
	if a.Link == policy.LinkUp && !a.NoWindow {
		if f.Window, err = Window(ctx, q, u.ID, m.ID, a.Boot, a.At); err != nil {
			return r, f, u, err
		}
	}
	if a.Link == policy.LinkDown {
		if f.Vault, f.VaultProblem, err = Vault(ctx, q, fu, f.Policies, m.ID); err != nil {
			return r, f, u, err
		}
		trouble(m, &f)
	}
	return r, f, u, err
}

// trouble brings in what the machine said at its last contact about its offline state
// and TPM: whoever has offline data there can not use it all the same (O16, O17).
func trouble(m db.Machine, f *policy.Facts) {
	switch tpm := policy.Reason(m.TPMProblem); {
	case m.VaultProblem != "":
		// Without a ledger the machine's policy is of no use either.
		f.PolicyProblem = policy.Reason(m.VaultProblem)
	case tpm == policy.ReasonTPMNoRoom && f.Vault == nil:
		f.VaultProblem = tpm
	case tpm != "" && tpm != policy.ReasonTPMNoRoom && f.Vault != nil && f.Vault.Class == "tpm":
		f.Vault, f.VaultProblem = nil, tpm
	}
}

// ReasonChecks is why a machine refuses whose TPM has counted enough checks.
const ReasonChecks = "offline-checks-used-up"

// Vault is what the server believes the machine to hold for the user's offline
// sign-in, and why it can not be used where it is shut; nil without a reason is
// nothing. Sign-ins and wrong tries are those of which the machine has told.
func Vault(ctx context.Context, q *db.Queries, u policy.User, ps []policy.Policy, machineID string) (*policy.Vault, policy.Reason, error) {
	v, err := q.GetActiveVault(ctx, db.GetActiveVaultParams{UserID: u.ID, MachineID: machineID})
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("offline data: %w", err)
	}
	f, problem := vaultOf(v, u, ps)
	return f, problem, nil
}

func vaultOf(v db.Vault, u policy.User, ps []policy.Policy) (*policy.Vault, policy.Reason) {
	switch {
	case v.DisenrolWanted:
		return nil, ""
	case v.Shut == ReasonChecks:
		return nil, ReasonChecks
	}
	l := LeftOf(v, nil)
	if p, _ := policy.Choose(&u, ps); p != nil {
		l = LeftOf(v, p)
	}
	return &policy.Vault{
		Class: v.Class, Factors: slices.DeleteFunc(slices.Clone(u.Factors), func(f policy.Factor) bool { return !slices.Contains(policy.OfflineKinds, f) }),
		Until: clock.FromMicros(v.ExpiresAt), SigninsLeft: l.Signins, TriesLeft: l.Tries, RemoteTries: l.Remote,
		Stale: v.PasswordGeneration != u.Generation,
	}, ""
}

// Left is what is left of offline data, as far as its machine has told.
type Left struct{ Signins, Tries, Remote int }

// LeftOf counts as the machine does: what the policy allows now, less what was used.
// Without a policy it is what was allowed when the data was made.
func LeftOf(v db.Vault, p *policy.Policy) Left {
	signins, tries := int(v.UsesLeft+v.Used), int(v.FailLimit)
	if p != nil {
		signins, tries = p.OfflineSignins, p.OfflineTries
	}
	l := Left{Signins: max(0, signins-int(v.Used)), Tries: max(0, tries-int(v.Tries))}
	if v.Shut != string(policy.ReasonVaultRemote) {
		l.Remote = min(l.Tries, max(1, tries/4))
	}
	return l
}

// PolicyOf is the policy that applies to the user; nil if none does.
func PolicyOf(ctx context.Context, q *db.Queries, userID string) (*policy.Policy, error) {
	u, err := q.GetUser(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("find the user: %w", err)
	}
	f, err := User(ctx, q, u, At{})
	if err != nil {
		return nil, err
	}
	ps, err := Policies(ctx, q)
	if err != nil {
		return nil, err
	}
	p, _ := policy.Choose(&f, ps)
	return p, nil
}
