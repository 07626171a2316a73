package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// ledger holds the counters that must not be rolled back.
type ledger struct {
	MachineID    string                `json:"machine_id"`
	Counter      uint64                `json:"counter"`           // number of this content: see save
	Stepped      bool                  `json:"stepped,omitempty"` // written behind a step of the counter of its own
	Handle       uint32                `json:"handle,omitempty"`
	PolicySerial int64                 `json:"policy_serial"`
	Highest      int64                 `json:"highest"` // µs, highest time seen
	Journal      journalHead           `json:"journal"`
	Pending      []uint32              `json:"pending,omitempty"` // NV handles of an enrolment that may not have ended
	Users        map[string]*userState `json:"users"`             // by user id
	Lost         policy.Reason         `json:"lost,omitempty"`    // why this state was made anew, until the server has said of whom there was data
}

// userState is the part of the ledger about one user.
type userState struct {
	Name           string           `json:"name"`
	Generation     uint64           `json:"generation"`     // 0: no offline data
	Gone           uint64           `json:"gone,omitempty"` // the generation that was wiped last, of which the server may not know
	Class          string           `json:"class,omitempty"`
	FailHandle     uint32           `json:"fail_handle,omitempty"`
	PassHandle     uint32           `json:"pass_handle,omitempty"`
	Serial         int64            `json:"serial"`          // policies below it do not know this generation
	UserGeneration int64            `json:"user_generation"` // of the account when the data was made
	Until          int64            `json:"until"`
	EnrolledAt     int64            `json:"enrolled_at"`
	Tries          int              `json:"tries"`        // wrong answers since the last success
	RemoteTries    int              `json:"remote_tries"` // of these, from remote and unprivileged callers
	Signins        int              `json:"signins"`      // offline since the last online MFA
	Checks         int              `json:"checks"`       // uses of the key since the last lift
	CheckLimit     int              `json:"check_limit"`
	Steps          map[string]int64 `json:"steps,omitempty"` // authenticator → highest accepted step
	Drift          map[int]int64    `json:"drift,omitempty"` // period → learnt drift in steps
	Backup         []string         `json:"backup,omitempty"`
	Keys           map[string]int64 `json:"keys,omitempty"`   // security key → highest counter
	Lifted         int64            `json:"lifted,omitempty"` // policy serial of the last lift that an administrator wanted
	Problem        policy.Reason    `json:"problem,omitempty"`
}

func (v *Vault) user(id string) *userState {
	us := v.led.Users[id]
	if us == nil {
		us = &userState{}
		v.led.Users[id] = us
	}
	if us.Steps == nil {
		us.Steps = map[string]int64{}
	}
	if us.Drift == nil {
		us.Drift = map[int]int64{}
	}
	if us.Keys == nil {
		us.Keys = map[string]int64{}
	}
	return us
}

// spent tells whether the step, or a later one, or the backup code was used.
func (us *userState) spent(s wire.Spent) bool {
	return s.Authenticator != "" && s.Step <= us.Steps[s.Authenticator] || s.Backup != "" && us.backupUsed(s.Backup)
}

// spend marks steps and backup codes as used.
func (us *userState) spend(s wire.Spent) {
	if s.Authenticator != "" && s.Step > us.Steps[s.Authenticator] {
		us.Steps[s.Authenticator] = s.Step
	}
	if s.Backup != "" && !us.backupUsed(s.Backup) {
		us.Backup = append(us.Backup, s.Backup)
	}
	if s.Key != "" {
		us.Keys[s.Key] = max(us.Keys[s.Key], s.Step)
	}
}

func (us *userState) backupUsed(id string) bool {
	for _, b := range us.Backup {
		if b == id {
			return true
		}
	}
	return false
}

// loadLedger reads the ledger and compares its number with the TPM's counter.
func (v *Vault) loadLedger(ctx context.Context) error {
	raw, err := v.fs.ReadFile("ledger")
	if errors.Is(err, fs.ErrNotExist) {
		return because(policy.ReasonVaultRolledBack, "the ledger is missing")
	}
	if err != nil {
		return unread("ledger", err)
	}
	body, err := openSigned(v.key, ledgerMagic, raw)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	var l ledger
	if err := json.Unmarshal(body, &l); err != nil {
		return because(policy.ReasonVaultDamaged, "ledger: %w", err)
	}
	if l.MachineID != v.cfg.MachineID || l.Handle != v.st.Counter {
		return because(policy.ReasonVaultDamaged, "the ledger is of another machine or state")
	}
	if l.Users == nil {
		l.Users = map[string]*userState{}
	}
	for _, us := range l.Users {
		if us == nil {
			return because(policy.ReasonVaultDamaged, "the ledger has an empty user")
		}
	}
	v.led = &l
	if err := v.keep(body); err != nil {
		return because(policy.ReasonVaultDamaged, "ledger: %w", err)
	}
	return v.fresh(ctx)
}

// fresh compares the ledger's number with the TPM's counter and brings both to
// rest: equal. One ahead is a crash between write and step: the step is made up
// for. One behind is a crash between the step that reserved the next number and the
// write: the same content is written under the next number, so that whatever else
// was written under it in between is dead. Anything else is a restored state, and
// so is a missing counter.
func (v *Vault) fresh(ctx context.Context) error {
	if v.st.Class != ClassTPM {
		return nil
	}
	nv, err := v.cfg.Device.ReadCounter(ctx, v.st.Counter)
	if errors.Is(err, tpm.ErrRemoved) || errors.Is(err, tpm.ErrReplaced) {
		// Clearing a TPM takes its indices away, too: that is told as what it is.
		if key, e := v.cfg.Device.UnsealState(ctx, v.st.Key); errors.Is(e, tpm.ErrCleared) {
			return e
		} else if e == nil {
			key.Wipe()
		}
		return because(policy.ReasonVaultRolledBack, "the TPM's counter is not the one that the ledger goes with: %w", err)
	}
	if err != nil {
		return err
	}
	switch {
	case v.led.Counter == nv:
		return nil
	case v.led.Counter == nv+1:
		return v.count(ctx)
	case v.led.Stepped && v.led.Counter+1 == nv:
		again := *v.kept
		again.Counter = nv + 1
		if err := v.write(&again); err != nil {
			return err
		}
		v.led.Counter = again.Counter
		return v.count(ctx)
	}
	return because(policy.ReasonVaultRolledBack, "the ledger has number %d, the TPM counts %d: an older state was put back", v.led.Counter, nv)
}

// count steps the TPM's counter up to the ledger's number.
func (v *Vault) count(ctx context.Context) error {
	nv, err := v.cfg.Device.Increment(ctx, v.st.Counter)
	if err != nil {
		return err
	}
	if nv != v.led.Counter {
		return because(policy.ReasonVaultRolledBack, "the TPM counts %d behind a ledger of number %d", nv, v.led.Counter)
	}
	return nil
}

// write puts a ledger on the disk, and keeps it as what lies there.
func (v *Vault) write(l *ledger) error {
	body, err := json.Marshal(l)
	if err == nil {
		err = v.fs.WriteFile("ledger", signFrame(v.key, ledgerMagic, body))
	}
	v.stuck = err
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return v.keep(body)
}

// keep remembers what lies on the disk: v.led may be ahead of it.
func (v *Vault) keep(body []byte) error {
	v.kept = &ledger{}
	return json.Unmarshal(body, v.kept)
}

// next is the number that the ledger's next write has.
func (v *Vault) next() uint64 {
	if v.st.Class == ClassTPM && v.led.Stepped {
		return v.led.Counter + 2
	}
	return v.led.Counter + 1
}

// save writes the ledger under a number of its own. In the TPM the counter makes
// two steps: the first reserves the number, then the ledger is written under it,
// the second makes it valid. A number that was reserved and not made valid is never
// used for another content: what was written under it may have been copied, and
// could be put back later. So whatever was judged or answered behind a save can not
// be undone by any file of before (O9).
func (v *Vault) save(ctx context.Context) error {
	if v.problem != "" {
		return because(v.problem, "%s", v.detail)
	}
	// A sign-in that hangs up must not leave a write half done.
	ctx = context.WithoutCancel(ctx)
	if err := v.fresh(ctx); err != nil {
		return v.lost(err)
	}
	if v.st.Class == ClassTPM && v.led.Stepped {
		nv, err := v.cfg.Device.Increment(ctx, v.st.Counter)
		if err != nil {
			return v.lost(err)
		}
		if nv != v.led.Counter+1 {
			return v.lost(because(policy.ReasonVaultRolledBack, "the TPM counts %d before a ledger of number %d: somebody else has stepped it", nv, v.next()))
		}
		failpoint.Hit("vault.ledger.reserved")
	}
	l := *v.led
	l.Counter, l.Stepped, l.Journal = v.next(), true, v.jour.head()
	if err := v.write(&l); err != nil {
		return err
	}
	*v.led = l
	failpoint.Hit("vault.ledger.written")
	if v.st.Class != ClassTPM {
		return nil
	}
	if err := v.count(ctx); err != nil {
		return v.lost(err)
	}
	failpoint.Hit("vault.ledger.counted")
	return nil
}

// How often openings that spend nothing write the ledger, each with one: anybody with an
// account can cause them in a loop, and each write is two of the TPM's memory, which bears
// some hundred thousand.
const (
	ownSaves  = 20              // at once
	saveEvery = 5 * time.Minute // gives one more
	maxBehind = 1000            // entries that the ledger's head may be behind the journal's
)

// thrift is what is left of them.
type thrift struct {
	left int
	at   time.Time
}

// settleLater writes the ledger behind an opening that has spent nothing, or leaves that
// to the next write. The entry is on the disk and chained to those before; a start takes
// over what is behind the ledger's head. What the ledger adds is that the end of the
// journal can not be cut off unnoticed.
func (v *Vault) settleLater(ctx context.Context) error {
	t, now := &v.thrift, v.now()
	if t.at.IsZero() || now.Before(t.at) {
		if t.at.IsZero() {
			t.left = ownSaves
		}
		t.at = now
	}
	if n := int(now.Sub(t.at) / saveEvery); n > 0 {
		t.left, t.at = min(ownSaves, t.left+n), now
	}
	if t.left > 0 {
		t.left--
		return v.save(ctx)
	}
	if v.jour.head().Seq-v.led.Journal.Seq > maxBehind {
		return v.save(ctx)
	}
	if !v.awaited {
		v.awaited = true
		go v.catchUpLedger(t.at.Add(saveEvery).Sub(now))
	}
	return nil
}

// catchUpLedger writes what settleLater has left.
func (v *Vault) catchUpLedger(wait time.Duration) {
	if v.cfg.Clock.Sleep(v.bg, wait) != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.awaited = false
	if v.bg.Err() != nil || v.led == nil || v.problem != "" || v.led.Journal.Seq >= v.jour.head().Seq {
		return
	}
	if v.thrift.left > 0 {
		v.thrift.left--
	}
	if err := v.save(v.bg); err != nil {
		v.log.Error("the ledger can not be written", "err", err)
	}
}

// lost notes an error of the TPM that does not pass.
func (v *Vault) lost(err error) error {
	if r := reasonOf(err); !passing(r) && !errors.Is(err, ErrState) {
		v.fail(err)
	}
	return err
}

// seen moves the highest time seen; on success and contact only.
func (v *Vault) seen(now time.Time) {
	if us := clock.Micros(now); us > v.led.Highest {
		v.led.Highest = us
	}
}

// ErrSpent says that what the server has accepted was accepted here before, without
// it: the two did not know of each other yet.
var ErrSpent = errors.New("the code was used on this machine before, without the server")

// NoteOnline writes what was accepted online, so that it is spent offline too. It
// is called before the shim is answered. After ErrSpent the sign-in must be denied:
// a code opens a machine once (S10). After another error, also beside ErrSpent, nothing
// may be judged offline before it has been called again with the same; ErrSpent means
// nothing then.
func (v *Vault) NoteOnline(ctx context.Context, userID string, spent []wire.Spent) error {
	if len(spent) == 0 {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if passing(v.problem) {
		// What could accept it again is only away. No sign-in waits for it here.
		return because(v.problem, "%s", v.detail)
	}
	if v.led == nil || v.problem != "" {
		// There is nothing on this machine that could accept it again.
		return nil
	}
	us := v.user(userID)
	twice := false
	for _, s := range spent {
		twice = twice || us.spent(s)
		us.spend(s)
	}
	v.seen(v.now())
	err := v.save(ctx)
	switch {
	case !twice:
		return err
	case err != nil:
		return errors.Join(ErrSpent, err)
	}
	return ErrSpent
}

// reclaim removes NV indices that an enrolment or a wipe left behind.
func (v *Vault) reclaim(ctx context.Context) {
	if len(v.led.Pending) == 0 || v.cfg.Device == nil {
		return
	}
	inUse := map[uint32]bool{v.st.Counter: true}
	for _, us := range v.led.Users {
		if us.Generation != 0 {
			inUse[us.FailHandle], inUse[us.PassHandle] = true, true
		}
	}
	for _, h := range v.led.Pending {
		if inUse[h] {
			continue
		}
		if err := v.cfg.Device.Reclaim(ctx, h); err != nil && !errors.Is(err, tpm.ErrReplaced) {
			v.log.Warn("an index left behind can not be removed", "err", err)
			return
		}
	}
	v.led.Pending = nil // kept with the next write
}

// problemEvent is the event that a reason is told as.
func problemEvent(r policy.Reason) event.Type {
	switch r {
	case policy.ReasonVaultRolledBack:
		return event.VaultRolledBack
	case policy.ReasonTPMCleared, policy.ReasonTPMGone, policy.ReasonTPMLocked, policy.ReasonTPMReplaced, policy.ReasonTPMBusy,
		policy.ReasonTPMBoot, policy.ReasonTPMNoRoom:
		return event.TPMProblem
	}
	return event.VaultDamaged
}
