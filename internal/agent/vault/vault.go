// Package vault keeps, on the machine, what an offline sign-in is judged with:
// the signed policy, the bundles of tags, the ledger of counters and the journal
// of offline events. It can check a code but not compute one, and every check is
// written down before it is made and counted by the TPM where there is one.
//
// It may not touch the network: what it needs of the server it asks through the
// Server interface that Enrol and Lift are given, and Attempt has none.
//
// Files in its folder (0700), each written to a temporary name, synced, renamed,
// and the folder synced:
//
//	state     class, sealed state key, counter handle, names of the TPM's keys
//	policy    object signed by the server (wire.PolicyFile)
//	ledger    counters of all users, under an HMAC by the state key; its number
//	          equals the TPM's NV counter, or differs by one after a crash
//	journal   offline events not yet delivered, hash-chained
//	vaults/U  what opens the verifier key of user U, sealed under the state key
//	bundles/U.G.N  signed tags of user U, generation G, segment N
//	refusal   the server's signed refusal, once there was one
//	counter   handle of a counter whose state is not written yet
//
// Rows O5-O12, O16, O17, W7 (what it keeps of it); offline.md in the design.
package vault

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/text"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// The classes of protection.
const (
	ClassTPM      = "tpm"
	ClassSoftware = "software"
)

// Config is what a Vault is opened with.
type Config struct {
	Dir       string
	MachineID string
	Machine   string            // its name, for events
	Device    *tpm.Device       // nil: software class
	GrantKey  ed25519.PublicKey // signs policies, bundles, refusals
	PermitKey crypto.PublicKey  // P-256: the server's TPM-policy key
	Clock     clock.Clock
	Log       *slog.Logger
	FS        FS     // nil: the real file system
	BootID    string // of the operating system; the TPM's reset count is added
	// SecureBoot tells whether the machine's firmware checks what it starts; nil: it
	// does not. Where it does, the state key is bound to that (PCR 7).
	SecureBoot func() bool
	Cost       Cost // of the password derivation; zero: the defaults
}

// Cost is that of Argon2id.
type Cost struct {
	Time   uint32 `json:"time"`
	Memory uint32 `json:"memory"` // KiB
}

// DefaultCost is 64 MiB, three passes.
var DefaultCost = Cost{Time: 3, Memory: 64 << 10}

// ErrState says that the machine's own state can not be written; the sign-in
// must be denied, and it is neither a wrong code nor a network fault (O17).
var ErrState = errors.New("the state folder can not be written")

// Vault is a machine's offline data. Its methods may be called from any
// goroutine.
type Vault struct {
	cfg Config
	fs  FS
	log *slog.Logger

	bg   context.Context // ends with the vault
	stop context.CancelFunc

	turn   chan struct{} // at most one password derivation per core at a time
	giving atomic.Bool   // their memory is about to be given back

	// enrolling keeps Enrol, Lift and the wiping of ApplyPolicy apart.
	enrolling sync.Mutex

	mu      sync.Mutex // guards all below
	st      *state     // nil until the state was made or read
	key     secret.Bytes
	boxes   *seal.Box
	led     *ledger
	kept    *ledger       // as it lies on the disk
	problem policy.Reason // why the ledger can not be used; empty if it can
	detail  string
	pol     *wire.PolicyFile
	polBad  policy.Reason
	polOwed bool // the policy in use could not be written
	jour    *journal
	bundles map[string]*userBundle
	unread  map[string]policy.Reason // why a user's bundles could not be
	refusal *wire.RefusalNote
	told    map[string]bool // problems that were journalled already
	quiet   quieter
	thrift  thrift
	awaited bool          // a write of the ledger is due later
	later   []event.Event // that could not be written yet
	stuck   error         // why the last write failed, nil if it did not
	cramped error         // why offline data could not be written, nil if it could
	lock    *os.File
}

// Open reads the folder, which is made if it is not there. Damaged, restored or
// foreign data is no error: it becomes a problem that Facts and Status tell. The
// error is about the folder itself.
func Open(ctx context.Context, cfg Config) (*Vault, error) {
	if cfg.FS == nil {
		cfg.FS = RealFS(cfg.Dir)
	}
	if cfg.Cost == (Cost{}) {
		cfg.Cost = DefaultCost
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	v := &Vault{
		cfg: cfg, fs: cfg.FS, log: cfg.Log, bundles: map[string]*userBundle{}, told: map[string]bool{},
		turn: make(chan struct{}, runtime.NumCPU()),
	}
	v.bg, v.stop = context.WithCancel(context.Background())
	for _, dir := range []string{"", "vaults", "bundles"} {
		if err := v.fs.MkdirAll(dir); err != nil {
			return nil, fmt.Errorf("the agent's state folder can not be made: %w", err)
		}
	}
	if err := v.exclude(); err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.load(ctx)
	return v, nil
}

// load reads everything; what can not be used becomes v.problem or v.polBad.
func (v *Vault) load(ctx context.Context) {
	v.loadRefusal()
	if v.jour != nil {
		v.jour.close()
	}
	v.jour = loadJournal(v.fs, v.cfg.MachineID)
	v.problem, v.detail = "", ""
	if v.jour.reason != "" {
		v.fail(because(v.jour.reason, "%s", v.jour.broken))
	} else if err := v.loadState(ctx); err != nil {
		v.fail(err)
	} else if err := v.loadLedger(ctx); err != nil {
		v.fail(err)
	}
	v.loadPolicy()
	if v.problem == "" && v.led != nil {
		v.settleJournal()
		v.loadBundles()
		v.reclaim(ctx)
	}
	if v.refusal != nil {
		if err := v.forget(ctx); err != nil {
			v.log.Error("offline data of a refused machine could not be wiped whole", "err", err)
		}
	}
}

// fail notes why the state can not be used.
func (v *Vault) fail(err error) {
	v.problem, v.detail = reasonOf(err), err.Error()
	v.log.Error("offline state can not be used", "reason", string(v.problem), "err", err)
}

// damage is an error with the reason it is told as.
type damage struct {
	reason policy.Reason
	err    error
}

func (d damage) Error() string { return d.err.Error() }
func (d damage) Unwrap() error { return d.err }

func because(reason policy.Reason, format string, a ...any) error {
	return damage{reason, fmt.Errorf(format, a...)}
}

// reasonOf tells the TPM's troubles apart from each other and from damage.
func reasonOf(err error) policy.Reason {
	var d damage
	switch {
	case errors.As(err, &d):
		return d.reason
	case errors.Is(err, ErrState):
		return policy.ReasonStateWrite
	case errors.Is(err, tpm.ErrCleared):
		return policy.ReasonTPMCleared
	case errors.Is(err, tpm.ErrGone), errors.Is(err, tpm.ErrNone), errors.Is(err, tpm.ErrUnavailable):
		return policy.ReasonTPMGone
	case errors.Is(err, tpm.ErrLocked), tpm.LockedOut(err):
		return policy.ReasonTPMLocked
	case errors.Is(err, tpm.ErrRemoved), errors.Is(err, tpm.ErrReplaced):
		return policy.ReasonTPMReplaced
	case errors.Is(err, tpm.ErrBootState):
		return policy.ReasonTPMBoot
	case errors.Is(err, tpm.ErrNoSpace):
		return policy.ReasonTPMNoRoom
	case tpm.Transient(err), errors.Is(err, context.DeadlineExceeded):
		return policy.ReasonTPMBusy
	}
	return policy.ReasonVaultDamaged
}

// passing tells whether a problem may go away without the server, so that the next
// use looks again: by itself, or because somebody mends the disk or updates the
// agent. Until then nothing is thrown away for it.
func passing(r policy.Reason) bool {
	switch r {
	case policy.ReasonTPMGone, policy.ReasonTPMBusy,
		policy.ReasonVaultNewer, policy.ReasonVaultForeign, policy.ReasonVaultUnread, policy.ReasonStateWrite:
		return true
	}
	return false
}

// now is the clock, and judged the clock or the highest time seen, whichever is
// later: no limit is prolonged by turning the clock back (O9).
func (v *Vault) now() time.Time { return v.cfg.Clock.Now() }

func (v *Vault) judged() time.Time {
	now := v.now()
	if v.led != nil {
		if h := clock.FromMicros(v.led.Highest); h.After(now) {
			return h
		}
	}
	return now
}

// Contacted takes over the server's time: contact may lower the highest time
// seen. It is kept with the next write of the ledger.
func (v *Vault) Contacted(server time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.led == nil {
		return
	}
	v.led.Highest = clock.Micros(server)
	if v.problem != "" {
		return
	}
	switch off := v.now().Sub(server); {
	case off < -clockWrong:
		v.tell(event.ClockJump, ClockBehind, "", off.Round(time.Second).String())
	case off > clockWrong:
		v.tell(event.ClockJump, "clock-ahead", "", "+"+off.Round(time.Second).String())
	default:
		delete(v.told, told(event.ClockJump, ClockBehind, ""))
		delete(v.told, told(event.ClockJump, "clock-ahead", ""))
	}
}

// clockWrong is by how much this machine's clock may differ from the server's before
// it is told; codes of authenticator apps match half a minute off, or what the machine
// has learnt.
const clockWrong = 5 * time.Minute

// HighestTime is the highest time seen; zero if there is none.
func (v *Vault) HighestTime() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.led == nil || v.led.Highest == 0 {
		return time.Time{}
	}
	return clock.FromMicros(v.led.Highest)
}

// Facts is what policy.Decide needs of this machine while the link is down.
type Facts struct {
	Machine       policy.Machine
	User          *policy.User
	NearMiss      bool
	Policies      []policy.Policy
	Vault         *policy.Vault
	VaultProblem  policy.Reason
	PolicyProblem policy.Reason
	Contact       string
	Keys          KeysHeld // security keys that this user may be asked for
}

// KeysHeld are the security keys of a user.
type KeysHeld struct {
	RPID        string
	Credentials [][]byte
}

// lookAgain reads again what could not be used, if that may have changed.
func (v *Vault) lookAgain(ctx context.Context) {
	switch {
	case passing(v.problem):
		v.load(ctx)
	case passing(v.polBad):
		v.loadPolicy() // and not the ledger: that in memory may be ahead of the disk
	}
}

// Facts gathers them for a user name exactly as typed.
func (v *Vault) Facts(ctx context.Context, user string) Facts {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lookAgain(ctx)
	f := Facts{Machine: policy.Machine{ID: v.cfg.MachineID, Status: "active", Mode: policy.Normal}, PolicyProblem: v.policyProblem(), VaultProblem: v.problem}
	if v.pol == nil {
		return f
	}
	f.Machine, f.Policies, f.Contact = v.pol.Machine, v.pol.Policies, v.pol.Contact
	f.User, f.NearMiss = findUser(v.pol.Users, user)
	if f.User == nil || v.led == nil || v.problem != "" {
		return f
	}
	f.Vault, f.VaultProblem = v.vaultFacts(f.User)
	if b := v.bundles[f.User.ID]; f.Vault != nil && b != nil {
		newest := b.newest()
		f.Keys.RPID = newest.RPID
		for _, k := range newest.Keys {
			f.Keys.Credentials = append(f.Keys.Credentials, k.Credential)
		}
	}
	return f
}

func (v *Vault) vaultFacts(u *policy.User) (*policy.Vault, policy.Reason) {
	us := v.led.Users[u.ID]
	if us == nil {
		return nil, ""
	}
	p, _ := policy.Choose(u, v.pol.Policies)
	if us.Problem != "" && (us.Generation != 0 || p != nil && p.OfflineEnrol != policy.EnrolOff) {
		// Something that was here is lost: that is not the same as nothing, or losing
		// it would be a way past the second factor (mfa_or_bypass).
		return nil, us.Problem
	}
	if us.Generation == 0 {
		return nil, ""
	}
	if v.bundles[u.ID] == nil {
		v.loadBundles() // somebody may have put them right
	}
	b := v.bundles[u.ID]
	if b == nil || b.generation != us.Generation {
		if r := v.unread[u.ID]; r != "" {
			return nil, r
		}
		return nil, policy.ReasonVaultDamaged
	}
	if p == nil {
		return nil, ""
	}
	until := v.until(u.ID, us)
	if !v.judged().Before(until) {
		until = time.Time{} // over, whatever the clock of the request says
	}
	return &policy.Vault{
		Class: us.Class, Factors: b.factors(us, v.judged()), Until: until,
		SigninsLeft: p.OfflineSignins - us.Signins, TriesLeft: p.OfflineTries - us.Tries,
		RemoteTries: remoteShare(p.OfflineTries) - us.RemoteTries,
		Stale:       us.UserGeneration != u.Generation && v.pol.Serial >= us.Serial,
	}, ""
}

// until is the end of the offline days: the server's policy may shorten what the
// last enrolment said, never extend it.
func (v *Vault) until(userID string, us *userState) time.Time {
	until := us.Until
	for _, e := range v.pol.Vaults {
		if e.UserID == userID && e.Generation == us.Generation && v.pol.Serial >= us.Serial {
			until = min(until, e.Until)
		}
	}
	return clock.FromMicros(until)
}

// remoteShare is a quarter of the tries, at least one: what remote and
// unprivileged callers may spend.
func remoteShare(tries int) int { return max(1, tries/4) }

// Refuse keeps the server's signed refusal and wipes all offline data. It lasts:
// nothing but joining again ends it.
func (v *Vault) Refuse(ctx context.Context, signed []byte) error {
	payload, err := seal.Verify(v.cfg.GrantKey, seal.Refusal, v.cfg.MachineID, signed)
	if err != nil {
		return err
	}
	note, err := parseRefusal(payload)
	if err != nil {
		return err
	}
	v.enrolling.Lock()
	defer v.enrolling.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refusal = note
	err = v.fs.WriteFile("refusal", signed)
	failpoint.Hit("vault.refusal.written")
	return errors.Join(err, v.forget(ctx))
}

// forget wipes all that a refused machine may not keep. It is done again at every
// start, because the machine may have stopped in the middle of it; where it was done
// it does nothing.
func (v *Vault) forget(ctx context.Context) error {
	_, wipeErr := v.wipe(ctx, "", string(policy.ReasonRefused))
	v.pol = nil
	var saveErr error
	if v.led != nil && v.problem == "" && v.led.PolicySerial != math.MaxInt64 {
		// Every policy of this identity is an old one from now on, so that it is of no
		// use to put one back and to delete the refusal.
		v.led.PolicySerial = math.MaxInt64
		saveErr = v.save(ctx)
	}
	return errors.Join(wipeErr, saveErr, v.fs.Remove("policy"))
}

// Refusal is the server's refusal of this machine, or nil.
func (v *Vault) Refusal() *wire.RefusalNote {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refusal
}

// Close releases the folder.
func (v *Vault) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.stop()
	v.key.Wipe()
	v.jour.close()
	if v.lock == nil {
		return nil
	}
	return v.lock.Close()
}

// told is under what a problem is remembered that was told.
func told(t event.Type, reason policy.Reason, subject string) string {
	return string(t) + " " + string(reason) + " " + subject
}

// tell journals a problem once per kind and start, so that the server learns what was
// noticed while it was away. It is about a user, or with an empty name about the
// machine; detail says what was seen.
func (v *Vault) tell(t event.Type, reason policy.Reason, user, detail string) {
	key := told(t, reason, user)
	if t == event.JournalGap {
		key += " " + detail // each is one
	}
	if v.told[key] || v.led == nil {
		return
	}
	v.told[key] = true
	e := event.Event{Type: t, Actor: "agent", Subject: cmp.Or(user, v.cfg.Machine), Outcome: "noticed", Reason: string(reason)}
	if detail = text.CleanN(detail, 512); detail != "" {
		if b, err := json.Marshal(map[string]string{"detail": detail}); err == nil {
			e.Data = b
		}
	}
	if err := v.append(e, nil); err != nil {
		v.postpone(e, err)
	}
}
