package vault

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// opener is what opens a user's verifier key: the content of vaults/U. It is
// sealed under the state key, because the use index's value and the software
// key's envelope are for this machine alone.
type opener struct {
	Generation uint64   `json:"generation"`
	Class      string   `json:"class"`
	Salt       []byte   `json:"salt"`
	Cost       Cost     `json:"cost"`
	Blob       tpm.Blob `json:"blob,omitzero"`     // class tpm
	Use        []byte   `json:"use,omitempty"`     // class tpm: authValue of the use index
	Wrapped    []byte   `json:"wrapped,omitempty"` // class software: key under the password
}

// derive turns a password into key material, at most one derivation per core at
// a time. It does not judge anything.
func (v *Vault) derive(ctx context.Context, password secret.Bytes, salt []byte, c Cost) (secret.Bytes, error) {
	select {
	case v.turn <- struct{}{}:
	case <-ctx.Done():
		return secret.Bytes{}, ctx.Err()
	}
	defer func() { <-v.turn }()
	defer v.giveBack(c)
	return secret.New(argon2.IDKey(password.Reveal(), salt, c.Time, c.Memory, 1, 32)), nil
}

const (
	manyKiB  = 16 << 10
	afterUse = 5 * time.Second
)

// giveBack returns the memory of derivations to the system when a few seconds have
// passed. The runtime would keep it for minutes, and an agent that idles is small.
func (v *Vault) giveBack(c Cost) {
	if c.Memory < manyKiB || !v.giving.CompareAndSwap(false, true) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), afterUse)
		defer cancel()
		<-ctx.Done()
		v.giving.Store(false)
		debug.FreeOSMemory()
	}()
}

// Burn does the work of a derivation for nothing, so that the answer for people
// nobody knows takes as long as for others.
func (v *Vault) Burn(ctx context.Context, password secret.Bytes) {
	k, err := v.derive(ctx, password, make([]byte, 16), v.cfg.Cost)
	if err == nil {
		k.Wipe()
	}
}

func vaultFile(userID string) string { return "vaults/" + userID }

func (v *Vault) readOpener(userID string, generation uint64) (*opener, error) {
	if !fileID(userID) {
		return nil, because(policy.ReasonVaultDamaged, "user id %q", userID)
	}
	raw, err := v.fs.ReadFile(vaultFile(userID))
	if err != nil {
		return nil, unread("offline data", err)
	}
	body, _, err := unframe(vaultMagic, raw)
	if err != nil {
		return nil, err
	}
	plain, err := v.boxes.Open(body, "vaults", userID, strconv.FormatUint(generation, 10))
	if err != nil {
		return nil, because(policy.ReasonVaultDamaged, "offline data: %w", err)
	}
	defer plain.Wipe()
	var o opener
	if err := json.Unmarshal(plain.Reveal(), &o); err != nil {
		return nil, because(policy.ReasonVaultDamaged, "offline data: %w", err)
	}
	if o.Generation != generation || o.Cost.Time == 0 || o.Cost.Time > 64 || o.Cost.Memory == 0 || o.Cost.Memory > 4<<20 || len(o.Salt) != 16 {
		return nil, because(policy.ReasonVaultDamaged, "offline data is of another form")
	}
	return &o, nil
}

func (v *Vault) writeOpener(userID string, o opener) error {
	plain, err := json.Marshal(o)
	if err != nil {
		return err
	}
	defer clear(plain)
	return v.fs.WriteFile(vaultFile(userID), frame(vaultMagic, v.boxes.Seal(plain, "vaults", userID, strconv.FormatUint(o.Generation, 10))))
}

func newSalt() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return b
}

// passwordAuth is the authValue of the password index.
func passwordAuth(derived secret.Bytes) (secret.Bytes, error) {
	k, err := seal.Derive(derived, nil, "vault password index")
	if err != nil {
		return k, err
	}
	defer k.Wipe()
	return tpm.AuthValue(k), nil
}

// softBox is the envelope of a software key: password and machine together.
func (v *Vault) softBox(derived secret.Bytes) (*seal.Box, error) {
	k, err := seal.Derive(derived, v.key.Reveal(), "vault software key")
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	return seal.NewBox(k)
}

// mac computes the verifier's answer to a message: in the TPM, which counts the
// password and the use, or with the software key. tpm.ErrWrongPassword is a
// wrong password in both classes.
func (v *Vault) mac(ctx context.Context, userID string, us *userState, o *opener, derived secret.Bytes, message []byte) ([]byte, error) {
	switch o.Class {
	case ClassTPM:
		spec, err := v.spec(userID, us)
		if err != nil {
			return nil, err
		}
		auth, err := passwordAuth(derived)
		if err != nil {
			return nil, err
		}
		defer auth.Wipe()
		return v.cfg.Device.MAC(ctx, spec, o.Blob, tpm.Auths{Password: auth, Use: secret.New(slices.Clone(o.Use))}, message)
	case ClassSoftware:
		box, err := v.softBox(derived)
		if err != nil {
			return nil, err
		}
		k, err := box.Open(o.Wrapped, "vault", userID, strconv.FormatUint(o.Generation, 10))
		if err != nil {
			return nil, tpm.ErrWrongPassword
		}
		defer k.Wipe()
		h := hmac.New(sha256.New, k.Reveal())
		h.Write(message)
		return h.Sum(nil), nil
	}
	return nil, because(policy.ReasonVaultDamaged, "offline data is of class %q", o.Class)
}

func (v *Vault) spec(userID string, us *userState) (tpm.Spec, error) {
	return tpm.NewSpec(tpm.ID{User: userID, Machine: v.cfg.MachineID, Generation: us.Generation}, v.cfg.PermitKey, us.FailHandle, us.PassHandle)
}

// userBundle is the tags of one user's present generation.
type userBundle struct {
	generation uint64
	segments   []wire.Bundle // oldest first
	next       int           // number of the next segment's file
}

// maxSegments bounds the files of one generation; a generation is at most a day
// old when the server makes a new one.
const maxSegments = 64

func bundleFile(userID string, generation uint64, n int) string {
	return fmt.Sprintf("bundles/%s.%d.%d", userID, generation, n)
}

func parseBundleFile(name string) (userID string, generation uint64, n int, ok bool) {
	part := strings.Split(name, ".")
	if len(part) != 3 || !fileID(part[0]) {
		return "", 0, 0, false
	}
	g, err1 := strconv.ParseUint(part[1], 10, 64)
	n, err2 := strconv.Atoi(part[2])
	return part[0], g, n, err1 == nil && err2 == nil && n >= 0 && n < maxSegments
}

// loadBundles reads the tags of all users; what does not verify is left out and
// told, so that its user is "damaged", never "not enrolled".
func (v *Vault) loadBundles() {
	v.bundles, v.unread = map[string]*userBundle{}, map[string]policy.Reason{}
	names, err := v.fs.List("bundles")
	if err != nil {
		v.log.Error("bundles can not be listed", "err", err)
		return
	}
	type file struct {
		user string
		gen  uint64
		n    int
	}
	var files []file
	for _, name := range names {
		u, g, n, ok := parseBundleFile(name)
		if !ok {
			continue
		}
		files = append(files, file{u, g, n})
	}
	slices.SortFunc(files, func(a, b file) int { return a.n - b.n })
	for _, f := range files {
		us := v.led.Users[f.user]
		if us == nil || us.Generation != f.gen {
			_ = v.fs.Remove(bundleFile(f.user, f.gen, f.n)) // of an enrolment that did not end, or was wiped
			continue
		}
		raw, err := v.fs.ReadFile(bundleFile(f.user, f.gen, f.n))
		if err != nil {
			err = unread("bundle", err)
		} else {
			err = v.addSegment(f.user, f.gen, f.n, raw)
		}
		if err != nil {
			v.log.Error("bundle can not be used", "user", f.user, "err", err)
			v.unread[f.user] = reasonOf(err)
			v.tell(event.VaultDamaged, policy.ReasonVaultDamaged, us.Name, err.Error())
		}
	}
}

func (v *Vault) addSegment(userID string, generation uint64, n int, signed []byte) error {
	payload, err := seal.Verify(v.cfg.GrantKey, seal.Bundle, v.cfg.MachineID, signed)
	if err != nil {
		return err
	}
	seg, err := wire.DecodeBundle(payload)
	if err != nil {
		return err
	}
	if seg.UserID != userID || seg.Generation != generation || seg.MachineID != v.cfg.MachineID {
		return errors.New("bundle is of another user, generation or machine")
	}
	b := v.bundles[userID]
	if b == nil || b.generation != generation {
		b = &userBundle{generation: generation}
		v.bundles[userID] = b
	}
	b.segments = append(b.segments, seg)
	b.next = max(b.next, n+1)
	return nil
}

// have tells the last step held for each authenticator.
func (b *userBundle) have() map[string]int64 {
	last := map[string]int64{}
	if b == nil {
		return last
	}
	for _, s := range b.segments {
		for _, a := range s.Authenticators {
			if a.Count > 0 {
				last[a.ID] = max(last[a.ID], a.Last())
			}
		}
	}
	return last
}

// newest is the segment that was issued last: it has the whole present set of
// backup codes and authenticators.
func (b *userBundle) newest() *wire.Bundle {
	var best *wire.Bundle
	for i := range b.segments {
		if best == nil || b.segments[i].IssuedAt >= best.IssuedAt {
			best = &b.segments[i]
		}
	}
	return best
}

// factors are the kinds that the machine could judge at t.
func (b *userBundle) factors(us *userState, t time.Time) []policy.Factor {
	var fs []policy.Factor
	newest := b.newest()
	if newest == nil {
		return nil
	}
	for _, a := range newest.Authenticators {
		if len(b.tags(a.ID, t.Unix()/int64(a.Period))) > 0 {
			fs = append(fs, policy.TOTP)
			break
		}
	}
	for _, c := range newest.Backup {
		if !us.backupUsed(c.ID) {
			fs = append(fs, policy.Backup)
			break
		}
	}
	if len(newest.Keys) > 0 {
		fs = append(fs, policy.FIDO2)
	}
	return fs
}

type stepTags struct {
	auth   wire.CodeTags
	step   int64
	triple [len(wire.Offsets)][wire.TagSize]byte
}

// tags finds an authenticator's tags for a step in all segments.
func (b *userBundle) tags(id string, step int64) (found []stepTags) {
	for _, s := range b.segments {
		for _, a := range s.Authenticators {
			if a.ID != id {
				continue
			}
			if t, ok := a.At(step); ok {
				found = append(found, stepTags{a, step, t})
			}
		}
	}
	return found
}

// nextGeneration is the reason of a wipe that makes room for the next generation.
const nextGeneration = "next-generation"

// wipe removes the offline data of one user, or of all with an empty id: first
// the TPM's indices, so that no copy of the rest is of use, then the files, then
// the ledger's entry.
func (v *Vault) wipe(ctx context.Context, userID, reason string) (wiped []wire.Wiped, err error) {
	var errs []error
	users := map[string]*userState{}
	if v.led != nil {
		users = v.led.Users
	}
	for id, us := range users {
		if userID != "" && id != userID || us.Generation == 0 {
			continue
		}
		if us.Class == ClassTPM {
			v.removeIndices(ctx, id, us)
			failpoint.Hit("vault.wipe.indices")
		}
		wiped = append(wiped, wire.Wiped{UserID: id, Generation: us.Generation, Reason: reason})
		us.Gone = us.Generation
		us.Generation, us.Problem, us.Until, us.Class = 0, "", 0, ""
		if reason == nextGeneration {
			us.Problem = policy.ReasonVaultUnfinished // until it is there
		}
		us.Tries, us.RemoteTries, us.Signins, us.Checks = 0, 0, 0, 0
		delete(v.bundles, id)
	}
	errs = append(errs, v.removeFiles(userID))
	failpoint.Hit("vault.wipe.files")
	if v.led != nil && v.problem == "" && len(wiped) > 0 {
		errs = append(errs, v.save(ctx))
	}
	return wiped, errors.Join(errs...)
}

// removeIndices takes the user's indices out of the TPM; those that can not be
// removed now are noted and removed later. Without the files that are removed
// next they are of no use to anybody.
func (v *Vault) removeIndices(ctx context.Context, userID string, us *userState) {
	spec, err := v.spec(userID, us)
	if err == nil && v.cfg.Device == nil {
		err = tpm.ErrGone
	}
	if err == nil {
		err = v.cfg.Device.Remove(ctx, spec)
	}
	if err != nil {
		v.log.Warn("indices can not be removed from the TPM now", "user", us.Name, "err", err)
		v.led.Pending = append(v.led.Pending, us.FailHandle, us.PassHandle)
	}
}

// removeFiles removes what lies on disk for a user, or for all.
func (v *Vault) removeFiles(userID string) error {
	var errs []error
	for _, dir := range []string{"vaults", "bundles"} {
		names, err := v.fs.List(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, n := range names {
			if userID == "" || n == userID || strings.HasPrefix(n, userID+".") {
				errs = append(errs, v.fs.Remove(dir+"/"+n))
			}
		}
	}
	return errors.Join(errs...)
}

// codeForm says how a typed answer can be read.
func codeForm(typed secret.Bytes) (totp string, backup secret.Bytes) {
	s := string(typed.Reveal())
	for _, digits := range []int{6, 8} {
		if c, ok := (otp.Params{Algorithm: otp.SHA1, Digits: digits, Period: 30}).CleanCode(s); ok {
			return c, secret.Bytes{}
		}
	}
	if b, ok := otp.ParseBackup(s); ok {
		return "", b
	}
	return "", secret.Bytes{}
}
