// Package offline is the server's half of signing in without it: the signed policy
// file of each machine, the verifier keys and their tags, the permits to write a
// machine's counters, and what comes back of it all in the machine's journal.
//
// It promises:
//
//   - Offline data is made only for the user of a conversation on this very
//     machine that ended with a full MFA at most five minutes ago (O4).
//   - The permit for the first write of a counter is given once for a (user,
//     machine, generation, kind), and that is on the disk before it is signed. A
//     lift is bound to the index that was activated, and given once for each MFA or
//     each wish of an administrator (O8).
//   - Seeds do not leave the server; a machine gets tags for the allowed days only,
//     counted from the last online MFA, and nothing later prolongs them (O6, O7).
//   - A policy file lists what may stay on the machine; everything else is wiped
//     when the machine sees it (O14).
//   - From a journal it takes only what this machine could know, each entry once,
//     in order; a gap, an edit and a stranger's name in it are events (O11).
package offline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// The states of a vault (vaults.state).
const (
	Activating = "activating" // allocated; its permits may be signed
	Active     = "active"     // the machine has said that it holds it
	Retired    = "retired"    // replaced; the machine has not said yet that it is gone
	Wiped      = "wiped"      // gone, and its key with it
)

// The classes of offline data.
const (
	classTPM      = "tpm"
	classSoftware = "software"
)

// Why the server makes no offline data, beside the reasons of package policy.
const (
	// ReasonPassword: a new generation follows the password, and nobody typed one.
	ReasonPassword = "offline-password-needed"
	// ReasonTPMKey: the import parent is not the one that this machine has shown.
	ReasonTPMKey = "offline-tpm-key-differs"
)

const (
	// rest is how old a generation may be before the next MFA replaces it.
	rest = 24 * time.Hour
	// permitLife is how long the machine's TPM session may use a permit.
	permitLife = 60 * time.Second
	// policyLife is how long a machine believes a policy file.
	policyLife = 90 * 24 * time.Hour
	// early is how many steps before now a bundle begins.
	early = 5
	// bundlesAtOnce bounds how many bundles are computed at a time: a long one
	// keeps a core busy for a second.
	bundlesAtOnce = 2
)

// adminLift is the cause of a lift that an administrator wants.
const adminLift = "admin"

// Config is what a Service needs. All fields are required.
type Config struct {
	Store  *store.Store
	Keys   *keys.Keys
	Keeper *factor.Keeper
	Clock  clock.Clock
	Random io.Reader
	Log    *slog.Logger
}

// Service is the server's half of offline sign-in. It is safe for concurrent use.
type Service struct {
	Config
	bundles, journals chan struct{}
	guesses           guesses
}

// New makes a Service.
func New(c Config) *Service {
	return &Service{Config: c, bundles: make(chan struct{}, bundlesAtOnce), journals: make(chan struct{}, journalsAtOnce)}
}

// PolicyFile makes the machine's signed policy of this moment, and tells its
// serial.
func (s *Service) PolicyFile(ctx context.Context, machineID string) (signed []byte, serial int64, err error) {
	var f wire.PolicyFile
	err = s.Store.Read(ctx, func(q *store.Queries) error {
		m, err := q.GetMachine(ctx, machineID)
		if err != nil {
			return err
		}
		f, err = s.PolicyOf(ctx, q, m)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("policy file of machine %s: %w", machineID, err)
	}
	signed, err = s.Sign(f)
	return signed, f.Serial, err
}

// Sign makes a signed object of a policy file.
func (s *Service) Sign(f wire.PolicyFile) ([]byte, error) {
	payload, err := json.Marshal(f)
	if err != nil {
		return nil, err
	}
	defer failpoint.Hit("offline.policy")
	return seal.Sign(s.Keys.Grant, seal.Policy, f.MachineID, payload), nil
}

// PolicyOf gathers the policy file of a machine as the snapshot has it.
func (s *Service) PolicyOf(ctx context.Context, q *store.Queries, m db.Machine) (f wire.PolicyFile, err error) {
	now := s.Clock.Now()
	f = wire.PolicyFile{
		MachineID: m.ID, Serial: m.Serial, IssuedAt: clock.Micros(now), NotAfter: clock.Micros(now.Add(policyLife)),
		Machine: facts.Machine(m), Users: []policy.User{}, Vaults: []wire.VaultEntry{}, Policies: []policy.Policy{},
	}
	set, err := settings.Read(ctx, q)
	if err != nil {
		return f, err
	}
	f.Contact = set.Contact
	ps, err := facts.Policies(ctx, q)
	if err != nil {
		return f, err
	}
	users, err := q.ListUsersForMachine(ctx, m.ID)
	if err != nil {
		return f, err
	}
	groups := map[string]bool{}
	chosen := map[string]*policy.Policy{}
	generations := map[string]int64{} // of those who may keep offline data
	for _, u := range users {
		// Whom the machine knew once and is no longer for, it forgets (E4).
		if ok, err := facts.Assigned(ctx, q, m.ID, u.ID); err != nil {
			return f, err
		} else if !ok {
			continue
		}
		pu, err := facts.User(ctx, q, u, facts.At{MachineID: m.ID, Now: now})
		if err != nil {
			return f, err
		}
		for _, g := range pu.Groups {
			groups[g.ID] = true
		}
		f.Users = append(f.Users, pu)
		chosen[u.ID], _ = policy.Choose(&pu, ps)
		if !u.Disabled {
			generations[u.ID] = u.PasswordGeneration
		}
	}
	// The machine learns of no policy that can not apply to anybody here.
	// One that only reports it must not get: an agent that knows no such policies would
	// take it for one in force.
	for _, p := range ps {
		if p.ReportOnly && !p.Default {
			continue
		}
		if p.Default || slices.ContainsFunc(p.Groups, func(g string) bool { return groups[g] }) {
			f.Policies = append(f.Policies, p)
		}
	}
	vaults, err := q.ListVaultsOfMachine(ctx, m.ID)
	if err != nil {
		return f, err
	}
	for _, v := range vaults {
		if v.State != Activating && v.State != Active || v.DisenrolWanted {
			continue
		}
		ok, err := facts.Assigned(ctx, q, m.ID, v.UserID)
		if err != nil {
			return f, err
		}
		if !ok {
			continue
		}
		// Made for another password or other authenticators, or for somebody who may no
		// longer sign in: it is wiped (O5).
		if g, ok := generations[v.UserID]; !ok || g != v.PasswordGeneration {
			continue
		}
		until := v.ExpiresAt
		if p := chosen[v.UserID]; p != nil {
			until = min(until, clock.Micros(end(v.LastMFAAt, *p)))
		}
		f.Vaults = append(f.Vaults, wire.VaultEntry{UserID: v.UserID, Generation: uint64(v.Generation), Until: until, Lift: v.LiftWanted && v.State == Active})
	}
	return f, nil
}

// end is when offline sign-in ends that a full MFA at lastMFA has begun (O6).
func end(lastMFA int64, p policy.Policy) time.Time {
	return clock.FromMicros(lastMFA).Add(time.Duration(p.OfflineDays) * 24 * time.Hour)
}

// wanted tells whether the policy wants offline MFA for this person at all.
func wanted(p policy.Policy) bool {
	return (p.Offline == policy.OfflineMFA || p.Offline == policy.OfflineMFAOrBypass) && p.OfflineEnrol != policy.EnrolOff && p.FactorsOffline > 0
}

// holding is what can be checked offline of a user's authenticators.
type holding struct {
	totp   []db.Authenticator
	backup []db.BackupCode
	kinds  []policy.Factor
	keys   []db.Passkey // of one relying party
	digest string
}

// hold gathers it for the policy. The digest changes when the authenticators or
// the kinds that the policy accepts change.
func hold(ctx context.Context, q *db.Queries, userID string, p policy.Policy) (h holding, err error) {
	sum := sha256.New()
	if slices.Contains(p.OfflineFactors, policy.TOTP) {
		auths, err := q.ListUsableAuthenticators(ctx, userID)
		if err != nil {
			return h, err
		}
		for _, a := range auths {
			if a.Kind == string(policy.TOTP) {
				h.totp = append(h.totp, a)
				fmt.Fprintf(sum, "totp %q %q\n", a.ID, a.Params)
			}
		}
	}
	if len(h.totp) > 0 {
		h.kinds = append(h.kinds, policy.TOTP)
	}
	if slices.Contains(p.OfflineFactors, policy.Backup) {
		codes, err := q.ListUnusedBackupCodes(ctx, userID)
		if err != nil {
			return h, err
		}
		set := ""
		for _, c := range codes {
			if len(c.Sealed) == 0 {
				continue
			}
			h.backup = append(h.backup, c)
			if c.SetID != set {
				set = c.SetID
				fmt.Fprintf(sum, "backup %q\n", set)
			}
		}
	}
	if len(h.backup) > 0 {
		h.kinds = append(h.kinds, policy.Backup)
	}
	if slices.Contains(p.OfflineFactors, policy.FIDO2) {
		if h.keys, err = securityKeys(ctx, q, userID); err != nil {
			return h, err
		}
		for _, k := range h.keys {
			fmt.Fprintf(sum, "key %q\n", k.AuthenticatorID)
		}
	}
	if len(h.keys) > 0 {
		h.kinds = append(h.kinds, policy.FIDO2)
	}
	h.digest = hex.EncodeToString(sum.Sum(nil)[:16])
	return h, nil
}

// uses is how many counted uses of the key one attempt costs at the most: one for every
// code of a chain, and as many for each code as the user's authenticators of its length
// have periods. The sign-ins that the policy promises would else end before their number.
func uses(p policy.Policy, h holding) int {
	periods, most := map[int][]int{}, 1
	for _, a := range h.totp {
		var params otp.Params
		if json.Unmarshal([]byte(a.Params), &params) != nil {
			continue // it gets no tags, and so has no codes
		}
		if of := periods[params.Digits]; !slices.Contains(of, params.Period) {
			periods[params.Digits] = append(of, params.Period)
		}
		most = max(most, len(periods[params.Digits]))
	}
	return max(1, p.FactorsOffline) * most
}

// securityKeys are those that can be plugged into a machine: not a passkey that a phone
// or a computer keeps for itself, and of the relying party under which the newest was
// registered.
func securityKeys(ctx context.Context, q *db.Queries, userID string) ([]db.Passkey, error) {
	rows, err := q.ListPasskeysOfUser(ctx, userID)
	if err != nil {
		return nil, err
	}
	var keys []db.Passkey
	for _, r := range slices.Backward(rows) {
		p := r.Passkey
		if r.Authenticator.Lost || r.Authenticator.ConfirmedAt == 0 || !facts.Pluggable(p) ||
			len(keys) > 0 && keys[0].RpID != p.RpID || len(keys) == maxHave {
			continue
		}
		keys = append(keys, p)
	}
	return keys, nil
}

// subject is the person of a conversation, with the policy that applies.
type subject struct {
	conv db.Conversation
	user db.User
	p    policy.Policy
}

// errNotEntitled is the one answer for every conversation that opens no way to
// offline data.
func errNotEntitled(why string) error {
	return fault.Newf(fault.Forbidden, "Offline data is made only right after a full sign-in with a second factor on this machine.").Because(errors.New(why))
}

// entitled finds the person of a conversation that entitles the machine now.
func (s *Service) entitled(ctx context.Context, tx *store.Tx, m db.Machine, conversation string) (b subject, err error) {
	if !isID(conversation) {
		return b, errNotEntitled("no conversation")
	}
	b.conv, err = tx.GetConversation(ctx, conversation)
	if store.IsNotFound(err) {
		return b, errNotEntitled("no such conversation")
	}
	if err != nil {
		return b, err
	}
	if !facts.MayPrepare(b.conv, m.ID, s.Clock.Now()) {
		return b, errNotEntitled("the conversation " + conversation + " does not entitle")
	}
	return s.person(ctx, tx, m, b, b.conv.UserID)
}

func (s *Service) person(ctx context.Context, tx *store.Tx, m db.Machine, b subject, userID string) (subject, error) {
	var err error
	b.user, err = tx.GetUser(ctx, userID)
	if store.IsNotFound(err) {
		return b, errNotEntitled("the user is gone")
	}
	if err != nil {
		return b, err
	}
	now := s.Clock.Now()
	f, err := facts.User(ctx, tx.Queries, b.user, facts.At{MachineID: m.ID, Now: now})
	if err != nil {
		return b, err
	}
	ok, err := facts.Assigned(ctx, tx.Queries, m.ID, userID)
	if err != nil {
		return b, err
	}
	if f.Disabled || f.NotYet || !ok {
		return b, errNotEntitled("the user may not sign in here any more")
	}
	ps, err := facts.Policies(ctx, tx.Queries)
	if err != nil {
		return b, err
	}
	p, _ := policy.Choose(&f, ps)
	if p == nil {
		return b, errNotEntitled("no policy applies")
	}
	b.p = *p
	return b, nil
}

// Prepare says what a machine shall do after an online MFA: nothing, keep its
// generation with fresh counters, or make a new one (O4, O5).
func (s *Service) Prepare(ctx context.Context, m db.Machine, in wire.Prepare) (reply wire.PrepareReply, err error) {
	if in.Class != classTPM && in.Class != classSoftware {
		return reply, fault.New(fault.Invalid, nil).With("class", "allowed are tpm and software")
	}
	parentDigest := ""
	var parent tpm.Parent
	if in.Class == classTPM {
		if parent, err = tpm.ParseParent(in.Parent); err != nil {
			return reply, fault.New(fault.Invalid, err).With("parent", "%v", err)
		}
		sum := sha256.Sum256(parent.Marshal())
		parentDigest = hex.EncodeToString(sum[:16])
	} else {
		in.FailHandle, in.PassHandle = 0, 0
	}
	err = s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		reply = wire.PrepareReply{}
		b, err := s.entitled(ctx, tx, m, in.Conversation)
		if err != nil {
			return err
		}
		reply.UserID = b.user.ID
		if !wanted(b.p) {
			reply.Action = wire.ActionNone
			return nil
		}
		h, err := hold(ctx, tx.Queries, b.user.ID, b.p)
		if err != nil {
			return err
		}
		refuse := func(reason string) error {
			reply.Action, reply.Reason = wire.ActionRefused, reason
			_, err := tx.Event(event.Event{
				Type: event.VaultRefused, Subject: b.user.Name, UserID: b.user.ID, MachineID: m.ID, Machine: m.Name,
				Outcome: "deny", Reason: reason, Data: object(map[string]any{"class": in.Class}),
			})
			return err
		}
		switch {
		case in.Class == classSoftware && !b.p.SoftwareVault:
			return refuse(string(policy.ReasonVaultSoftware))
		case in.Class == classTPM && string(parent.Marshal()) != string(m.ParentPublic):
			return refuse(ReasonTPMKey)
		case len(h.kinds) < b.p.FactorsOffline:
			return refuse(string(policy.ReasonVaultFactor))
		}
		until := end(b.conv.MFAAt, b.p)
		reply.Until, reply.UserGeneration = clock.Micros(until), b.user.PasswordGeneration
		reply.UseLimit = uint32((b.p.OfflineSignins + b.p.OfflineTries) * uses(b.p, h))
		reply.FailLimit = uint32(b.p.OfflineTries)
		now := clock.Micros(s.Clock.Now())

		if in.HaveGeneration != 0 {
			v, err := tx.GetActiveVault(ctx, db.GetActiveVaultParams{UserID: b.user.ID, MachineID: m.ID})
			if err != nil && !store.IsNotFound(err) {
				return err
			}
			same := err == nil && uint64(v.Generation) == in.HaveGeneration && !v.DisenrolWanted && v.Class == in.Class && v.ParentDigest == parentDigest &&
				v.FailHandle == int64(in.FailHandle) && v.PassHandle == int64(in.PassHandle) &&
				v.PasswordGeneration == b.user.PasswordGeneration && v.FactorsDigest == h.digest
			// Old age alone is no reason to leave a person without offline sign-in who
			// came with a key instead of a password.
			if same && (now-v.CreatedAt < rest.Microseconds() || !in.HavePassword) {
				reply.Action, reply.Generation = wire.ActionExtend, in.HaveGeneration
				if reply.Serial, err = s.changed(ctx, tx, m.ID); err != nil {
					return err
				}
				_, err = tx.ExtendVault(ctx, db.ExtendVaultParams{
					UserID: b.user.ID, MachineID: m.ID, Generation: v.Generation, FirstStep: v.FirstStep, LastStep: v.LastStep,
					LastMFAAt: b.conv.MFAAt, ExpiresAt: reply.Until, UsesLeft: int64(b.p.OfflineSignins), At: now,
				})
				if err != nil {
					return err
				}
				_, err = tx.SetVaultLimits(ctx, db.SetVaultLimitsParams{
					UserID: b.user.ID, MachineID: m.ID, Generation: v.Generation, FailLimit: int64(reply.FailLimit), UseLimit: int64(reply.UseLimit),
				})
				if err != nil {
					return err
				}
				_, err = tx.Event(event.Event{
					Type: event.VaultSynced, Subject: b.user.Name, UserID: b.user.ID, MachineID: m.ID, Machine: m.Name, Outcome: "allow",
					Data: object(map[string]any{"generation": v.Generation, "until": until.UTC().Format(time.RFC3339)}),
				})
				return err
			}
		}
		if !in.HavePassword {
			return refuse(ReasonPassword)
		}
		generation, err := nextGeneration(ctx, tx, b.user.ID, m.ID)
		if err != nil {
			return err
		}
		reply.Action, reply.Generation = wire.ActionGeneration, uint64(generation)
		var key secret.Bytes
		if in.Class == classTPM {
			spec, err := s.spec(b.user.ID, m.ID, generation, in.FailHandle, in.PassHandle)
			if err != nil {
				return fault.New(fault.Invalid, err).With("fail_handle, pass_handle", "%v", err)
			}
			k, wrapped, err := tpm.NewKey(spec, parent)
			if err != nil {
				return err
			}
			key = k
			reply.Wrapped = &wire.Wrapped{Public: wrapped.Public, Duplicate: wrapped.Duplicate, Seed: wrapped.Seed}
		} else {
			raw := make([]byte, 32)
			if _, err := io.ReadFull(s.Random, raw); err != nil {
				return err
			}
			key = secret.New(raw)
			reply.Key = wire.Hide(key.Clone())
		}
		defer key.Wipe()
		if _, err := tx.RetireActivating(ctx, db.RetireActivatingParams{UserID: b.user.ID, MachineID: m.ID, At: now}); err != nil {
			return err
		}
		err = tx.AllocateVault(ctx, db.AllocateVaultParams{
			UserID: b.user.ID, MachineID: m.ID, Generation: generation, Class: in.Class, Key: s.Keys.Box.Seal(key.Reveal(), keyPlace(b.user.ID, m.ID, generation)...),
			FailHandle: int64(in.FailHandle), PassHandle: int64(in.PassHandle), FailLimit: int64(reply.FailLimit), UseLimit: int64(reply.UseLimit),
			LastMFAAt: b.conv.MFAAt, ExpiresAt: reply.Until, UsesLeft: int64(b.p.OfflineSignins), PasswordGeneration: b.user.PasswordGeneration,
			FactorsDigest: h.digest, ParentDigest: parentDigest, Conversation: b.conv.ID, CreatedAt: now, UpdatedAt: now,
		})
		if err != nil {
			return err
		}
		reply.Serial, err = s.changed(ctx, tx, m.ID)
		return err
	})
	failpoint.Hit("offline.prepared")
	return reply, err
}

// settingFloor is the row of the setting below which no generation is given out.
const settingFloor = "offline.generation_floor"

// nextGeneration gives a number that this pair has never had, also not in a
// database that is no more: a key that is made again under an old number would
// share its counters with the old key.
func nextGeneration(ctx context.Context, tx *store.Tx, userID, machineID string) (int64, error) {
	next, err := tx.NextVaultGeneration(ctx, db.NextVaultGenerationParams{UserID: userID, MachineID: machineID})
	if err != nil {
		return 0, err
	}
	v, err := tx.GetSetting(ctx, settingFloor)
	if store.IsNotFound(err) {
		return next, nil
	}
	if err != nil {
		return 0, err
	}
	floor, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the setting %s is damaged: %w", settingFloor, err)
	}
	return max(next, floor+1), nil
}

// Restored prepares a database that was filled from a backup: machines have seen
// later policies than it knows of, and hold generations that it does not know of.
func Restored(ctx context.Context, tx *store.Tx, now time.Time) error {
	if _, err := tx.RaiseAllSerials(ctx); err != nil {
		return err
	}
	tx.WakeAll()
	// Far more seconds have passed since 1970 than generations were made.
	return tx.PutSetting(ctx, db.PutSettingParams{Key: settingFloor, Value: []byte(strconv.FormatInt(now.Unix(), 10)), UpdatedAt: clock.Micros(now)})
}

// changed raises the machine's serial and tells it: policy files from it on know
// of the change.
func (s *Service) changed(ctx context.Context, tx *store.Tx, machineID string) (int64, error) {
	if err := touch.Machine(ctx, tx, machineID); err != nil {
		return 0, err
	}
	m, err := tx.GetMachine(ctx, machineID)
	return m.Serial, err
}

func keyPlace(userID, machineID string, generation int64) []string {
	return []string{"vaults", "key", userID, machineID, strconv.FormatInt(generation, 10)}
}

func (s *Service) spec(userID, machineID string, generation int64, fail, pass uint32) (tpm.Spec, error) {
	return tpm.NewSpec(tpm.ID{User: userID, Machine: machineID, Generation: uint64(generation)}, s.Keys.Permit.Public(), fail, pass)
}

// Permit signs one write of one counter. That it is given is on the disk before it
// is signed: if it is lost on its way the machine needs the next generation, or
// for a lift the next MFA.
func (s *Service) Permit(ctx context.Context, m db.Machine, in wire.PermitRequest) (reply wire.Permit, err error) {
	var kind tpm.Kind
	if err := kind.UnmarshalText([]byte(in.Kind)); err != nil {
		return reply, fault.New(fault.Invalid, err).With("kind", "allowed are password and use")
	}
	if len(in.Nonce) != 32 {
		return reply, fault.New(fault.Invalid, nil).With("nonce", "%d octets; it has 32", len(in.Nonce))
	}
	if !isID(in.UserID) || in.Generation == 0 || in.Generation > 1<<40 {
		return reply, fault.New(fault.Invalid, nil).With("user_id, generation", "they name no generation")
	}
	var v db.Vault
	err = s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		if in.Written {
			v, err = s.grantLift(ctx, tx, m, in, kind)
		} else {
			v, err = s.grantActivation(ctx, tx, m, in, kind)
		}
		return err
	})
	if err != nil {
		return reply, err
	}
	failpoint.Hit("offline.granted")
	limit := uint32(v.FailLimit)
	if kind == tpm.UseIndex {
		limit = uint32(v.UseLimit)
	}
	reply = wire.Permit{Limit: limit, Expiration: int32(permitLife / time.Second)}
	if v.Class != classTPM {
		return reply, nil // nothing to sign: the machine counts by itself
	}
	spec, err := s.spec(v.UserID, v.MachineID, v.Generation, uint32(v.FailHandle), uint32(v.PassHandle))
	if err != nil {
		return reply, err
	}
	sign := tpm.SignActivation
	if in.Written {
		sign = tpm.SignLift
	}
	p, err := sign(s.Keys.Permit, spec, kind, tpm.Tally{Limit: limit}, in.Nonce, reply.Expiration)
	if err != nil {
		return reply, err
	}
	failpoint.Hit("offline.signed")
	reply.Count, reply.Signature = p.Value.Count, p.Signature
	return reply, nil
}

var errGiven = errors.New("the permit was given before")

func given() error {
	return fault.Newf(fault.Conflict, "This permit was given before, and is given once. Sign in again with the second factor.").Because(errGiven)
}

func (s *Service) grantActivation(ctx context.Context, tx *store.Tx, m db.Machine, in wire.PermitRequest, kind tpm.Kind) (v db.Vault, err error) {
	b, err := s.entitled(ctx, tx, m, in.Conversation)
	if err != nil {
		return v, err
	}
	v, err = tx.GetVault(ctx, db.GetVaultParams{UserID: in.UserID, MachineID: m.ID, Generation: int64(in.Generation)})
	if store.IsNotFound(err) {
		return v, errNotEntitled("no such generation")
	}
	if err != nil {
		return v, err
	}
	if v.UserID != b.user.ID || v.Conversation != in.Conversation || v.State != Activating || v.Class != classTPM {
		return v, errNotEntitled("the generation was not begun in this conversation, or is not being activated")
	}
	at := clock.Micros(s.Clock.Now())
	var n int64
	if kind == tpm.PasswordIndex {
		n, err = tx.SignVaultFail(ctx, db.SignVaultFailParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, At: at})
	} else {
		n, err = tx.SignVaultPass(ctx, db.SignVaultPassParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, At: at})
	}
	if err != nil {
		return v, err
	}
	if n != 1 {
		return v, given()
	}
	return v, nil
}

func (s *Service) grantLift(ctx context.Context, tx *store.Tx, m db.Machine, in wire.PermitRequest, kind tpm.Kind) (v db.Vault, err error) {
	v, err = tx.GetVault(ctx, db.GetVaultParams{UserID: in.UserID, MachineID: m.ID, Generation: int64(in.Generation)})
	if store.IsNotFound(err) {
		return v, errNotEntitled("no such generation")
	}
	if err != nil {
		return v, err
	}
	cause := adminLift
	b := subject{}
	if in.Conversation != "" {
		if b, err = s.entitled(ctx, tx, m, in.Conversation); err != nil {
			return v, err
		}
		cause = fmt.Sprintf("%020d", b.conv.MFAAt)
	} else {
		if !v.LiftWanted {
			return v, errNotEntitled("nobody wants this lift")
		}
		if b, err = s.person(ctx, tx, m, b, v.UserID); err != nil {
			return v, err
		}
	}
	if v.UserID != b.user.ID || v.State != Active || v.DisenrolWanted || v.PasswordGeneration != b.user.PasswordGeneration {
		return v, errNotEntitled("the generation is not in use, or outdated")
	}
	at := clock.Micros(s.Clock.Now())
	var n int64
	if kind == tpm.PasswordIndex {
		n, err = tx.LiftVaultFail(ctx, db.LiftVaultFailParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, Cause: cause, At: at})
	} else {
		n, err = tx.LiftVaultPass(ctx, db.LiftVaultPassParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, Cause: cause, At: at})
	}
	if err != nil {
		return v, err
	}
	if n != 1 {
		return v, given()
	}
	if cause == adminLift {
		done, err := tx.EndLift(ctx, db.EndLiftParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, At: at})
		if err != nil {
			return v, err
		}
		if done > 0 {
			if _, err := tx.SyncVault(ctx, db.SyncVaultParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, UsesLeft: int64(b.p.OfflineSignins), At: at}); err != nil {
				return v, err
			}
			if err := touch.Machine(ctx, tx, m.ID); err != nil {
				return v, err
			}
		}
	}
	_, err = tx.Event(event.Event{
		Type: event.VaultLifted, Subject: b.user.Name, UserID: b.user.ID, MachineID: m.ID, Machine: m.Name, Outcome: "allow", Reason: cause2reason(cause),
		Data: object(map[string]any{"generation": v.Generation, "counter": kind.String()}),
	})
	return v, err
}

func cause2reason(cause string) string {
	if cause == adminLift {
		return "administrator"
	}
	return "online-mfa"
}

// Ready notes that the machine can use the generation: older ones end (O5).
// Repeated, and for a generation that was extended, it changes nothing.
func (s *Service) Ready(ctx context.Context, m db.Machine, in wire.Ready) error {
	if !isID(in.UserID) || in.Generation == 0 || in.Generation > 1<<40 {
		return fault.New(fault.Invalid, nil).With("user_id, generation", "they name no generation")
	}
	err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		v, err := tx.GetVault(ctx, db.GetVaultParams{UserID: in.UserID, MachineID: m.ID, Generation: int64(in.Generation)})
		if store.IsNotFound(err) {
			return fault.New(fault.NotFound, err)
		}
		if err != nil {
			return err
		}
		switch {
		case v.State == Active:
			return nil
		case v.State != Activating:
			return fault.Newf(fault.Conflict, "This generation of offline data has been replaced. Sign in again.")
		case v.Conversation != in.Conversation:
			return errNotEntitled("the generation was not begun in this conversation")
		case v.Class == classTPM && (v.FailSigned == 0 || v.PassSigned == 0):
			return fault.Newf(fault.Conflict, "The counters of this generation have not been activated.")
		}
		at := clock.Micros(s.Clock.Now())
		n, err := tx.ActivateVault(ctx, db.ActivateVaultParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, At: at})
		if err != nil {
			return err
		}
		if n != 1 {
			return fault.New(fault.Conflict, nil)
		}
		if _, err := tx.RetireOtherVaults(ctx, db.RetireOtherVaultsParams{UserID: v.UserID, MachineID: m.ID, Generation: v.Generation, At: at}); err != nil {
			return err
		}
		u, err := tx.GetUser(ctx, v.UserID)
		if err != nil {
			return err
		}
		_, err = tx.Event(event.Event{
			Type: event.VaultEnrolled, Subject: u.Name, UserID: u.ID, MachineID: m.ID, Machine: m.Name, Outcome: "allow",
			Data: object(map[string]any{"generation": v.Generation, "class": v.Class, "until": clock.FromMicros(v.ExpiresAt).Format(time.RFC3339)}),
		})
		if err != nil {
			return err
		}
		return touch.Machine(ctx, tx, m.ID)
	})
	failpoint.Hit("offline.ready")
	return err
}

// Wiped notes that a generation is gone from the machine; its key is forgotten.
func (s *Service) Wiped(ctx context.Context, m db.Machine, in wire.Wiped) error {
	if !isID(in.UserID) || in.Generation > 1<<40 {
		return fault.New(fault.Invalid, nil).With("user_id, generation", "they name no generation")
	}
	err := s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.WipeVault(ctx, db.WipeVaultParams{UserID: in.UserID, MachineID: m.ID, Generation: int64(in.Generation), At: clock.Micros(s.Clock.Now())})
		if err != nil || n == 0 {
			return err
		}
		name := in.UserID
		u, err := tx.GetUser(ctx, in.UserID)
		switch {
		case err == nil:
			name = u.Name
		case !store.IsNotFound(err):
			return err
		}
		_, err = tx.Event(event.Event{
			Type: event.VaultWiped, Subject: name, UserID: in.UserID, MachineID: m.ID, Machine: m.Name, Reason: reasonWord(in.Reason),
			Data: object(map[string]any{"generation": in.Generation}),
		})
		if err != nil {
			return err
		}
		return touch.Machine(ctx, tx, m.ID)
	})
	failpoint.Hit("offline.wiped")
	return err
}

func object(v map[string]any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil // only texts and numbers go in
	}
	return b
}
