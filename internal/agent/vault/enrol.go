package vault

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// Server is what Enrol and Lift ask of the server.
type Server interface {
	Prepare(ctx context.Context, p wire.Prepare) (wire.PrepareReply, error)
	Permit(ctx context.Context, p wire.PermitRequest) (wire.Permit, error)
	Ready(ctx context.Context, r wire.Ready) error
	Bundle(ctx context.Context, b wire.BundleRequest) (wire.BundleReply, error)
}

// Offer is a completed online MFA for which the server lets this machine be
// enrolled (O4, O5).
type Offer struct {
	Conversation string
	UserID       string
	UserName     string
	Password     secret.Bytes
}

// ErrPassword says that offline data could not be made because nobody typed a
// password: the sign-in was by key.
var ErrPassword = errors.New("offline sign-in needs the password once: sign in with it here")

// Enrol makes or extends offline data. It returns what was done, one of the
// wire.Action words.
func (v *Vault) Enrol(ctx context.Context, o Offer, s Server) (string, error) {
	action, err := v.enrol(ctx, o, s)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case errors.Is(err, ErrState):
		// The online sign-in is let in all the same: here is where it is noticed that
		// there will be none without the server.
		v.cramped = err
		v.tell(event.VaultRefused, policy.ReasonStateWrite, o.UserName, err.Error())
	case err == nil && action != wire.ActionNone:
		v.cramped = nil
		delete(v.told, told(event.VaultRefused, policy.ReasonStateWrite, o.UserName))
	}
	return action, err
}

func (v *Vault) enrol(ctx context.Context, o Offer, s Server) (string, error) {
	if !fileID(o.UserID) {
		return "", fmt.Errorf("user id %q can not be a file name", o.UserID)
	}
	v.enrolling.Lock()
	defer v.enrolling.Unlock()
	v.mu.Lock()
	if v.refusal != nil {
		v.mu.Unlock()
		return "", errors.New("this machine is refused")
	}
	if v.led == nil || v.problem != "" {
		defer v.mu.Unlock()
		return "", because(v.problem, "%s", v.detail)
	}
	us := *v.user(o.UserID)
	usable := us.Generation != 0 && us.Problem == "" && v.bundles[o.UserID] != nil
	class := v.st.Class
	if usable && us.Class == ClassSoftware && v.now().Sub(clock.FromMicros(us.EnrolledAt)) < roomAgain {
		class = ClassSoftware // there was no room in the TPM
	}
	v.mu.Unlock()

	for again := false; ; again = true {
		p := wire.Prepare{Conversation: o.Conversation, Class: class, HavePassword: !o.Password.Empty()}
		if usable {
			p.HaveGeneration, p.FailHandle, p.PassHandle = us.Generation, us.FailHandle, us.PassHandle
		}
		if class == ClassTPM {
			p.Parent = v.st.Parent
			if !usable || us.Class != ClassTPM {
				free, err := v.cfg.Device.FreeHandles(ctx, 2)
				if errors.Is(err, tpm.ErrNoSpace) {
					v.noRoom(ctx, o, err)
					class, usable = ClassSoftware, usable && us.Class == ClassSoftware
					continue
				}
				if err != nil {
					return "", err
				}
				p.FailHandle, p.PassHandle = free[0], free[1]
			}
		}
		r, err := s.Prepare(ctx, p)
		if err != nil {
			return "", err
		}
		if r.UserID != o.UserID && r.Action != wire.ActionNone && r.Action != wire.ActionRefused {
			return "", fmt.Errorf("the server answers for user %q", r.UserID)
		}
		switch r.Action {
		case wire.ActionNone:
			return r.Action, v.settled(ctx, o.UserID)
		case wire.ActionRefused:
			return r.Action, errors.New(r.Reason)
		case wire.ActionGeneration:
			if o.Password.Empty() {
				return r.Action, ErrPassword
			}
			if class == ClassTPM && usable && us.Class == ClassTPM {
				// The old generation's handles are in use until it is removed.
				p.FailHandle, p.PassHandle = us.FailHandle, us.PassHandle
			}
			err := v.generation(ctx, o, p, r, s)
			if class == ClassTPM && errors.Is(err, tpm.ErrNoSpace) {
				// Protected by software, if the policy lets the server do that.
				v.noRoom(ctx, o, err)
				class, usable = ClassSoftware, false
				continue
			}
			return r.Action, err
		case wire.ActionExtend:
			err := v.extend(ctx, o, r, s)
			if err != nil && !again && reEnrol(err) && !o.Password.Empty() {
				// The data is there but does not open with this password, or not any
				// more: a new generation follows the password that was typed.
				v.log.Info("offline data is made anew", "user", o.UserName, "because", err.Error())
				usable = false
				continue
			}
			return r.Action, err
		}
		return "", fmt.Errorf("the server wants %q, which this agent does not know: update the agent", r.Action)
	}
}

// roomAgain is when a TPM that had no room for a user is asked again.
const roomAgain = 24 * time.Hour

// noRoom notes that the TPM has no room for a user's indices: for the person, for
// the machine's status, and in the journal.
func (v *Vault) noRoom(ctx context.Context, o Offer, cause error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.log.Warn("the TPM has no room for offline data", "user", o.UserName, "err", cause)
	if v.led == nil || v.problem != "" {
		return
	}
	if us := v.user(o.UserID); us.Generation == 0 {
		us.Name, us.Problem = o.UserName, policy.ReasonTPMNoRoom
	}
	v.tell(event.TPMProblem, policy.ReasonTPMNoRoom, o.UserName, cause.Error())
	if err := v.save(ctx); err != nil {
		v.log.Error("that the TPM has no room can not be written down", "err", err)
	}
}

// settled forgets what was lost of a user for whom the server, behind an online MFA,
// wants no offline data.
func (v *Vault) settled(ctx context.Context, userID string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	us := v.led.Users[userID]
	if us == nil || us.Generation != 0 || us.Problem == "" {
		return nil
	}
	us.Problem = ""
	return v.save(ctx)
}

// reEnrol tells whether a failed extension is mended by a new generation.
func reEnrol(err error) bool {
	for _, e := range []error{tpm.ErrWrongPassword, tpm.ErrRemoved, tpm.ErrReplaced, tpm.ErrLocked, tpm.ErrUsedUp, tpm.ErrRecord, tpm.ErrPermit} {
		if errors.Is(err, e) {
			return true
		}
	}
	// Only what is known to be damaged: a network that breaks off here damages nothing,
	// and what is there must not be given up for it.
	var d damage
	return errors.As(err, &d) && d.reason == policy.ReasonVaultDamaged
}

// generation replaces a user's offline data: the old one is removed first, so
// that there are never two; if the machine stops in between the user is not
// enrolled until the next online MFA.
func (v *Vault) generation(ctx context.Context, o Offer, p wire.Prepare, r wire.PrepareReply, s Server) error {
	v.mu.Lock()
	err := v.room(userRoom) // or what is there stays
	if err == nil {
		err = v.unfinished(ctx, o.UserID)
	}
	if err == nil {
		_, err = v.wipe(ctx, o.UserID, nextGeneration)
	}
	if err == nil && p.Class == ClassTPM {
		v.led.Pending = append(v.led.Pending, p.FailHandle, p.PassHandle)
		err = v.save(ctx)
	}
	v.mu.Unlock()
	if err != nil {
		return err
	}
	failpoint.Hit("vault.enrol.wiped")
	op := opener{Generation: r.Generation, Class: p.Class, Salt: newSalt(), Cost: v.cfg.Cost}
	derived, err := v.derive(ctx, o.Password, op.Salt, op.Cost)
	if err != nil {
		return err
	}
	defer derived.Wipe()
	next := userState{
		Name: o.UserName, Generation: r.Generation, Class: p.Class, FailHandle: p.FailHandle, PassHandle: p.PassHandle,
		Serial: r.Serial, UserGeneration: r.UserGeneration, Until: r.Until, EnrolledAt: clock.Micros(v.now()), CheckLimit: int(r.UseLimit),
	}
	if p.Class == ClassTPM {
		err = v.defineInTPM(ctx, o, &op, next, derived, r, s)
	} else {
		err = v.wrapInSoftware(o, &op, derived, r)
	}
	if err != nil {
		return err
	}
	failpoint.Hit("vault.enrol.imported")
	signed, err := s.Bundle(ctx, wire.BundleRequest{UserID: o.UserID, Generation: r.Generation})
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.writeOpener(o.UserID, op); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := v.keepSegment(o.UserID, r.Generation, signed.Bundle); err != nil {
		return err
	}
	us := v.user(o.UserID)
	next.Steps, next.Drift, next.Backup, next.Lifted = us.Steps, us.Drift, us.Backup, us.Lifted
	*us = next
	v.reclaim(ctx) // what was noted before; the new indices are in use now
	v.led.Pending = nil
	v.seen(v.now())
	if err := v.save(ctx); err != nil {
		return err
	}
	failpoint.Hit("vault.enrol.saved")
	return s.Ready(ctx, wire.Ready{Conversation: o.Conversation, UserID: o.UserID, Generation: r.Generation})
}

// unfinished says in the ledger that a user's data is being made anew, before its
// indices leave the TPM: where the machine stops in between, that is what is told.
func (v *Vault) unfinished(ctx context.Context, userID string) error {
	us := v.user(userID)
	if us.Generation == 0 {
		return nil
	}
	before := us.Problem
	us.Problem = policy.ReasonVaultUnfinished
	err := v.save(ctx)
	if err != nil {
		us.Problem = before
	}
	return err
}

func (v *Vault) defineInTPM(ctx context.Context, o Offer, op *opener, next userState, derived secret.Bytes, r wire.PrepareReply, s Server) error {
	if r.Wrapped == nil {
		return errors.New("the server sent no key for the TPM")
	}
	spec, err := v.spec(o.UserID, &next)
	if err != nil {
		return err
	}
	auth, err := passwordAuth(derived)
	if err != nil {
		return err
	}
	defer auth.Wipe()
	use := tpm.NewUseAuth()
	op.Use = use.Reveal()
	d := v.cfg.Device
	if err := d.Define(ctx, spec, tpm.Auths{Password: auth, Use: use}); err != nil {
		return err
	}
	failpoint.Hit("vault.enrol.defined")
	if err := d.Activate(ctx, spec, v.permitter(o.Conversation, o.UserID, r.Generation, false, s)); err != nil {
		return errors.Join(err, d.Remove(ctx, spec))
	}
	failpoint.Hit("vault.enrol.activated")
	op.Blob, err = d.Import(ctx, tpm.Bundle{Public: r.Wrapped.Public, Duplicate: r.Wrapped.Duplicate, Seed: r.Wrapped.Seed})
	if err != nil {
		return errors.Join(err, d.Remove(ctx, spec))
	}
	return nil
}

func (v *Vault) wrapInSoftware(o Offer, op *opener, derived secret.Bytes, r wire.PrepareReply) error {
	if r.Key.Len() != 32 {
		return fmt.Errorf("the server sent a key of %d octets", r.Key.Len())
	}
	defer r.Key.Wipe()
	box, err := v.softBox(derived)
	if err != nil {
		return err
	}
	op.Wrapped = box.Seal(r.Key.Reveal(), "vault", o.UserID, strconv.FormatUint(op.Generation, 10))
	return nil
}

// permitter asks the server for the signatures of one generation.
func (v *Vault) permitter(conversation, userID string, generation uint64, written bool, s Server) tpm.Permitter {
	return func(ctx context.Context, k tpm.Kind, nonce []byte) (tpm.Permit, error) {
		p, err := s.Permit(ctx, wire.PermitRequest{
			Conversation: conversation, UserID: userID, Generation: generation, Kind: k.String(), Written: written, Nonce: nonce,
		})
		if err != nil {
			return tpm.Permit{}, err
		}
		return tpm.Permit{Value: tpm.Tally{Count: p.Count, Limit: p.Limit}, Expiration: p.Expiration, Signature: p.Signature}, nil
	}
}

// keepSegment stores a signed bundle.
func (v *Vault) keepSegment(userID string, generation uint64, signed []byte) error {
	n := 0
	if b := v.bundles[userID]; b != nil && b.generation == generation {
		n = b.next
	}
	if n >= maxSegments {
		return because(policy.ReasonVaultDamaged, "too many bundles of one generation")
	}
	if err := v.addSegment(userID, generation, n, signed); err != nil {
		return fmt.Errorf("the server's bundle: %w", err)
	}
	if err := v.fs.WriteFile(bundleFile(userID, generation, n), signed); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}

// extend keeps the generation: it proves that the password opens it, lifts the
// counters and adds the missing days.
func (v *Vault) extend(ctx context.Context, o Offer, r wire.PrepareReply, s Server) error {
	if err := v.liftBoth(ctx, o.Conversation, o.UserID, r.Generation, s); err != nil {
		return err
	}
	if !o.Password.Empty() {
		if err := v.prove(ctx, o); err != nil {
			return err
		}
	}
	v.mu.Lock()
	have := v.bundles[o.UserID].have()
	v.mu.Unlock()
	signed, err := s.Bundle(ctx, wire.BundleRequest{UserID: o.UserID, Generation: r.Generation, Have: have})
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.keepSegment(o.UserID, r.Generation, signed.Bundle); err != nil {
		return err
	}
	failpoint.Hit("vault.extend.kept")
	us := v.user(o.UserID)
	us.Until, us.Signins, us.Tries, us.RemoteTries, us.Serial = r.Until, 0, 0, 0, r.Serial
	us.CheckLimit, us.Problem, us.UserGeneration = int(r.UseLimit), "", r.UserGeneration
	v.seen(v.now())
	if err := v.save(ctx); err != nil {
		return err
	}
	return s.Ready(ctx, wire.Ready{Conversation: o.Conversation, UserID: o.UserID, Generation: r.Generation})
}

// prove makes one check for nothing, to see whether the password that was typed
// is the one that opens the data: the vault follows the password of the last
// online MFA.
func (v *Vault) prove(ctx context.Context, o Offer) error {
	v.mu.Lock()
	_, op, err := v.opened(o.UserID)
	v.mu.Unlock()
	if err != nil {
		return err
	}
	derived, err := v.derive(ctx, o.Password, op.Salt, op.Cost)
	if err != nil {
		return err
	}
	defer derived.Wipe()
	nothing := make([]byte, 16)
	_, _ = rand.Read(nothing)
	v.mu.Lock()
	defer v.mu.Unlock()
	us, op, err := v.opened(o.UserID)
	if err != nil {
		return err
	}
	us.Checks++
	_, err = v.mac(ctx, o.UserID, us, op, derived, append([]byte("latchkey/check/1 nothing\x00"), nothing...))
	return err
}

func (v *Vault) liftBoth(ctx context.Context, conversation, userID string, generation uint64, s Server) error {
	v.mu.Lock()
	us := *v.user(userID)
	v.mu.Unlock()
	if us.Generation != generation {
		return because(policy.ReasonVaultDamaged, "the server extends generation %d, the machine has %d", generation, us.Generation)
	}
	ask := v.permitter(conversation, userID, generation, true, s)
	if us.Class == ClassTPM {
		spec, err := v.spec(userID, &us)
		if err != nil {
			return err
		}
		for _, k := range []tpm.Kind{tpm.PasswordIndex, tpm.UseIndex} {
			if err := v.cfg.Device.Lift(ctx, spec, k, ask); err != nil {
				return err
			}
		}
	} else {
		nonce := make([]byte, 32)
		_, _ = rand.Read(nonce)
		for _, k := range []tpm.Kind{tpm.PasswordIndex, tpm.UseIndex} {
			if _, err := ask(ctx, k, nonce); err != nil {
				return err
			}
		}
	}
	failpoint.Hit("vault.lifted")
	v.mu.Lock()
	defer v.mu.Unlock()
	v.user(userID).Checks = 0
	return nil
}

// Lift carries out the lifts that an administrator wants: they stand in the
// signed policy, and each is done once.
func (v *Vault) Lift(ctx context.Context, s Server) error {
	v.enrolling.Lock()
	defer v.enrolling.Unlock()
	v.mu.Lock()
	var todo []wire.VaultEntry
	var serial int64
	if v.led != nil && v.problem == "" && v.pol != nil {
		serial = v.pol.Serial
		for _, e := range v.pol.Vaults {
			us := v.led.Users[e.UserID]
			if e.Lift && us != nil && us.Generation == e.Generation && us.Lifted < serial {
				todo = append(todo, e)
			}
		}
	}
	v.mu.Unlock()
	var errs []error
	for _, e := range todo {
		if err := v.liftBoth(ctx, "", e.UserID, e.Generation, s); err != nil {
			errs = append(errs, err)
			continue
		}
		v.mu.Lock()
		us := v.user(e.UserID)
		us.Tries, us.RemoteTries, us.Signins, us.Lifted = 0, 0, 0, serial
		errs = append(errs, v.save(ctx))
		v.mu.Unlock()
	}
	return errors.Join(errs...)
}
