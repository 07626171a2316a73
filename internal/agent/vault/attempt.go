package vault

import (
	"bytes"
	"context"
	"crypto/hmac"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"latchkey/internal/assertion"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/shim"
	"latchkey/internal/tpm"
	"latchkey/internal/wire"
)

// Attempt is one offline answer: password and Decision.Count codes.
type Attempt struct {
	User     *policy.User
	Decision policy.Decision // of policy.Decide, outcome mfa-offline
	Remote   bool            // from remote or from an unprivileged caller
	Password secret.Bytes
	Codes    []secret.Bytes
	// Key is what a security key has said; the code that it stands for is empty.
	Key *KeyGiven
	// Event is what is journalled: who, where, how, with the trace. Type, outcome,
	// reason, factor and times are set by the vault.
	Event event.Event
}

// KeyGiven is the answer of a security key to a nonce of this attempt.
type KeyGiven struct {
	Nonce  []byte // an assertion.OfflineNonce, made for this attempt
	Answer wire.KeyAnswer
}

// The reasons of a Result, stored with the event.
const (
	OK               = "offline-mfa"
	WrongPassword    = "wrong-password"
	WrongCode        = "wrong-code"
	CodeUsed         = "code-used"
	BackupUsed       = "backup-used"
	ClockBehind      = "clock-behind"
	KeyWrong         = "key-wrong"
	KeyCloned        = "key-cloned"
	TriesUsedUp      = string(policy.ReasonVaultTries)
	RemoteUsedUp     = string(policy.ReasonVaultRemote)
	SigninsUsedUp    = string(policy.ReasonVaultSignins)
	DaysUsedUp       = string(policy.ReasonVaultDays)
	NoLongerEnrolled = string(policy.ReasonNoVault)
	ChecksUsedUp     = "offline-checks-used-up"
)

// Result is how an Attempt came out.
type Result struct {
	OK      bool
	Reason  string
	Problem policy.Reason // of the TPM or the state, if that was the matter
	Factor  policy.Factor
	Kinds   []policy.Factor // that were accepted, in the order in which they were given
	Class   string
	Left    Left
	KDF     time.Duration // that the password's derivation took
	TPM     time.Duration // that was waited for the TPM's answers
}

// Left is what is left until the machine must meet the server again.
type Left = shim.Left

// ReasonOf says what an error of this package is told as.
func ReasonOf(err error) policy.Reason { return reasonOf(err) }

// Attempt judges an offline answer. The attempt is written down, and counted in
// the TPM, before it is judged; the outcome is journalled and counted before
// Attempt returns (O10, O11). An error means that the state or the TPM is the
// matter and the sign-in must be denied; it is never said for a wrong code.
func (v *Vault) Attempt(ctx context.Context, a Attempt) (result Result, err error) {
	if a.Decision.Outcome != policy.MFAOffline || a.User == nil || a.Decision.Count < 1 || len(a.Codes) != a.Decision.Count {
		return Result{}, errors.New("not an offline sign-in")
	}
	// The folder is read before the password is worked on, and not judged.
	v.mu.Lock()
	_, o, err := v.opened(a.User.ID)
	v.mu.Unlock()
	if err != nil {
		return v.refuse(ctx, a, err)
	}
	if d := v.cfg.Device; d != nil {
		before := d.Waited()
		defer func() { result.TPM = d.Waited() - before }()
	}
	begun := v.now()
	derived, err := v.derive(ctx, a.Password, o.Salt, o.Cost)
	if err != nil {
		return Result{}, err
	}
	defer derived.Wipe()
	took := v.now().Sub(begun)
	defer func() { result.KDF = took }()

	v.mu.Lock()
	defer v.mu.Unlock()
	// Somebody may have been here in the meantime.
	us, o2, err := v.opened(a.User.ID)
	if err != nil {
		return v.refuseLocked(a, err)
	}
	if o2.Generation != o.Generation {
		return v.end(ctx, a, us, Result{Reason: NoLongerEnrolled})
	}
	p := a.Decision.Applied()
	switch {
	case us.Tries >= p.OfflineTries:
		return v.end(ctx, a, us, Result{Reason: TriesUsedUp})
	case a.Remote && us.RemoteTries >= remoteShare(p.OfflineTries):
		return v.end(ctx, a, us, Result{Reason: RemoteUsedUp})
	case us.Signins >= p.OfflineSignins:
		return v.end(ctx, a, us, Result{Reason: SigninsUsedUp})
	case v.pol == nil || !v.judged().Before(v.until(a.User.ID, us)):
		return v.end(ctx, a, us, Result{Reason: DaysUsedUp})
	}

	if err := v.full(len(a.Codes) + 1); err != nil {
		// What could not be written down behind the check is not checked.
		return v.refuseLocked(a, err)
	}

	// Written down before it is judged (O10).
	us.Tries++
	if a.Remote {
		us.RemoteTries++
	}
	checks := v.checks(a)
	us.Checks += checks
	if err := v.save(ctx); err != nil {
		us.Tries--
		us.Checks -= checks
		if a.Remote {
			us.RemoteTries--
		}
		return v.refuseLocked(a, err)
	}
	failpoint.Hit("vault.attempt.counted")

	r, spent, err := v.judge(ctx, a, us, o, derived)
	failpoint.Hit("vault.attempt.judged")
	if err != nil {
		if tpm.Transient(err) || tpm.Absent(err) {
			// The TPM did not say whether it was right: the attempt stays counted.
			return v.refuseLocked(a, err)
		}
		switch reason := reasonOf(err); reason {
		case policy.ReasonTPMCleared, policy.ReasonTPMReplaced:
			us.Problem = reason
		}
		return v.refuseLocked(a, err)
	}
	return v.conclude(ctx, a, us, r, spent)
}

// opened gives the ledger's entry and the opener of a user, or why there is
// none.
func (v *Vault) opened(userID string) (*userState, *opener, error) {
	if v.led == nil || v.problem != "" {
		return nil, nil, because(v.problem, "%s", v.detail)
	}
	us := v.led.Users[userID]
	if us == nil || us.Generation == 0 || v.bundles[userID] == nil {
		return nil, nil, because(policy.ReasonNoVault, "no offline data for this user")
	}
	o, err := v.readOpener(userID, us.Generation)
	return v.user(userID), o, err
}

// judge makes the counted check. Whatever the codes look like, the password is
// checked with every one, so that neither time nor counters tell more.
func (v *Vault) judge(ctx context.Context, a Attempt, us *userState, o *opener, derived secret.Bytes) (Result, []wire.Spent, error) {
	var spent []wire.Spent
	var kinds []policy.Factor
	used, learnt := policy.Factor(""), map[int]int64{} // used: of which kind a code was right, but used before
	keyed := ""                                        // what was wrong with the answer of a security key
	for _, typed := range a.Codes {
		s, kind, wasUsed, err := v.check(ctx, a, us, o, derived, typed, learnt)
		switch {
		case errors.Is(err, errKey), errors.Is(err, assertion.ErrCloned):
			keyed = KeyWrong
			if errors.Is(err, assertion.ErrCloned) {
				keyed = KeyCloned
			}
			continue
		case errors.Is(err, tpm.ErrWrongPassword):
			return Result{Reason: WrongPassword}, nil, nil
		case errors.Is(err, tpm.ErrUsedUp):
			return Result{Reason: ChecksUsedUp}, nil, nil
		case errors.Is(err, tpm.ErrLocked):
			return Result{Reason: TriesUsedUp, Problem: policy.ReasonTPMLocked}, nil, nil
		case err != nil:
			return Result{}, nil, err
		}
		if wasUsed && (used == "" || kind == policy.TOTP) {
			used = kind
		}
		if s != nil && !slices.Contains(kinds, kind) && slices.Contains(a.Decision.Factors, kind) {
			spent, kinds = append(spent, *s), append(kinds, kind)
		}
	}
	switch {
	case len(kinds) >= a.Decision.Count:
		maps.Copy(us.Drift, learnt)
		return Result{OK: true, Reason: OK, Factor: kinds[0], Kinds: kinds}, spent, nil
	case keyed != "":
		return Result{Reason: keyed}, nil, nil
	case used == policy.Backup:
		return Result{Reason: BackupUsed}, nil, nil // waiting for the next one is of no use
	case used != "":
		return Result{Reason: CodeUsed}, nil, nil
	}
	if v.clockBehind() && slices.ContainsFunc(a.Codes, ofApp) {
		// The clock lies before the highest time seen, so that codes of an authenticator
		// app can not match: that is not the person's mistake.
		return Result{Reason: ClockBehind}, nil, nil
	}
	return Result{Reason: WrongCode}, nil, nil
}

// checks is how many counted uses of the key an attempt costs at the most, as the server
// reckons them when it sets the limit.
func (v *Vault) checks(a Attempt) (n int) {
	newest := v.bundles[a.User.ID].newest()
	for _, typed := range a.Codes {
		code, backup := codeForm(typed)
		if !backup.Empty() || typed.Empty() {
			n++
			continue
		}
		n += len(periods(newest, len(code)))
	}
	return n
}

// check compares one typed code. A code that no authenticator or backup code has
// the form of costs its check all the same.
func (v *Vault) check(ctx context.Context, a Attempt, us *userState, o *opener, derived, typed secret.Bytes, learnt map[int]int64) (spent *wire.Spent, kind policy.Factor, used bool, err error) {
	b := v.bundles[a.User.ID]
	newest := b.newest()
	if typed.Empty() && a.Key != nil {
		return v.checkKey(ctx, a, us, o, derived, newest)
	}
	code, backup := codeForm(typed)
	if !backup.Empty() {
		mac, err := v.mac(ctx, a.User.ID, us, o, derived, wire.BackupMessage(backup))
		if err != nil {
			return nil, "", false, err
		}
		for _, c := range newest.Backup {
			if hmac.Equal(c.Tag, mac[:wire.BackupTagSize]) {
				if us.backupUsed(c.ID) {
					return nil, policy.Backup, true, nil
				}
				return v.proved(wire.Spent{Backup: c.ID}, backup.Reveal()), policy.Backup, false, nil
			}
		}
		return nil, "", false, nil
	}
	// One use for every period that the user's authenticators have: mostly one.
	for _, period := range periods(newest, len(code)) {
		step := v.judged().Unix()/int64(period) + us.Drift[period]
		mac, err := v.mac(ctx, a.User.ID, us, o, derived, wire.CodeMessage(period, step, code))
		if err != nil {
			return nil, "", false, err
		}
		for _, auth := range newest.Authenticators {
			if auth.Period != period || auth.Digits != len(code) {
				continue
			}
			for _, t := range b.tags(auth.ID, step) {
				for i, o := range wire.Offsets {
					if !hmac.Equal(t.triple[i][:], mac[:wire.TagSize]) {
						continue
					}
					matched := step + o
					if matched <= us.Steps[auth.ID] {
						used = true
						continue
					}
					if drift := us.Drift[period] + o; drift >= -maxDrift && drift <= maxDrift {
						learnt[period] = drift
					}
					return v.proved(wire.Spent{Authenticator: auth.ID, Step: matched}, []byte(code)), policy.TOTP, false, nil
				}
			}
		}
	}
	return nil, policy.TOTP, used, nil
}

// errKey says that the answer of a security key is no good.
var errKey = errors.New("the security key's answer was not accepted")

// checkKey judges the answer of a security key. The password is checked with it, and the
// use counted, before the signature is looked at.
func (v *Vault) checkKey(ctx context.Context, a Attempt, us *userState, o *opener, derived secret.Bytes, b *wire.Bundle) (*wire.Spent, policy.Factor, bool, error) {
	g := a.Key
	if len(g.Nonce) != assertion.NonceSize {
		return nil, policy.FIDO2, false, errors.New("a nonce of a wrong length")
	}
	if _, err := v.mac(ctx, a.User.ID, us, o, derived, wire.KeyMessage(g.Nonce)); err != nil {
		return nil, policy.FIDO2, false, err
	}
	if v.clockBehind() {
		return nil, policy.FIDO2, false, nil // the server could not tell this touch from an older one
	}
	at := slices.IndexFunc(b.Keys, func(k wire.KeyHeld) bool { return bytes.Equal(k.Credential, g.Answer.Credential) })
	if at < 0 {
		return nil, policy.FIDO2, false, errKey
	}
	k := b.Keys[at]
	r, err := assertion.Verify(k.Public, g.Answer.AuthData, g.Answer.Signature, assertion.Want{
		RPID: b.RPID, ClientHash: assertion.OfflineHash(g.Nonce, v.cfg.MachineID, a.User.ID), Verification: a.Decision.Applied().KeyVerification,
		Count: max(k.Count, uint32(us.Keys[k.ID])),
	})
	switch {
	case errors.Is(err, assertion.ErrCloned):
		return nil, policy.FIDO2, false, err
	case err != nil:
		return nil, policy.FIDO2, false, errKey
	}
	return &wire.Spent{
		Key: k.ID, Step: int64(r.Count),
		Signed: &wire.KeySigned{Nonce: g.Nonce, AuthData: g.Answer.AuthData, Signature: g.Answer.Signature},
	}, policy.FIDO2, false, nil
}

// proved is what the journal says of a code that was typed here.
func (v *Vault) proved(s wire.Spent, code []byte) *wire.Spent {
	s.Proof = wire.SpentProof(v.cfg.MachineID, s, code)
	return &s
}

// ofApp tells whether a code has the form of an authenticator app's.
func ofApp(code secret.Bytes) bool {
	_, backup := codeForm(code)
	return backup.Empty()
}

// clockBehind tells whether the clock lies so far before the highest time seen
// that codes of an authenticator app can not match.
func (v *Vault) clockBehind() bool { return v.judged().Sub(v.now()) > 90*time.Second }

// maxDrift bounds the learnt difference between the machine's clock and the
// person's authenticator, in steps.
const maxDrift = 10

// periods lists the periods of authenticators with that many digits; one if
// there is none, so that the password is checked and counted all the same.
func periods(b *wire.Bundle, digits int) []int {
	var ps []int
	for _, a := range b.Authenticators {
		if a.Digits == digits && !slices.Contains(ps, a.Period) {
			ps = append(ps, a.Period)
		}
	}
	if ps == nil {
		return []int{30}
	}
	return ps
}

// conclude journals the outcome and writes it into the ledger; only then is it
// known.
func (v *Vault) conclude(ctx context.Context, a Attempt, us *userState, r Result, spent []wire.Spent) (Result, error) {
	r.Class = us.Class
	if !r.OK {
		return v.end(ctx, a, us, r)
	}
	// Spent in memory first: whatever fails from here on, the code is not good again.
	for _, s := range spent {
		us.spend(s)
	}
	us.Tries, us.RemoteTries = 0, 0
	us.Signins++
	v.seen(v.now())
	e := a.Event
	e.Type, e.Outcome, e.Reason, e.Factor = event.SigninAllowed, "allow", r.Reason, joined(r.Kinds)
	for i := range spent[1:] {
		f := e
		f.Type, f.Data, f.Factor = event.FactorAccepted, nil, string(r.Kinds[i+1])
		if err := v.append(f, &spent[i+1]); err != nil {
			return v.refuseLocked(a, err)
		}
	}
	if err := v.append(e, &spent[0]); err != nil {
		return v.refuseLocked(a, err)
	}
	if err := v.save(ctx); err != nil {
		// The journal says that it was right, and behind it that nobody was let in.
		return v.refuseLocked(a, err)
	}
	r.Left = v.left(a.User, us)
	return r, nil
}

// joined names the kinds of a chain as the server does.
func joined(kinds []policy.Factor) string {
	s := make([]string, len(kinds))
	for i, k := range kinds {
		s[i] = string(k)
	}
	return strings.Join(s, "+")
}

// end journals a refusal and writes it into the ledger.
func (v *Vault) end(ctx context.Context, a Attempt, us *userState, r Result) (Result, error) {
	r.OK = false
	e := a.Event
	e.Type, e.Outcome, e.Reason = event.SigninDenied, "deny", r.Reason
	if err := v.append(e, nil); err != nil {
		v.postpone(e, err)
		return Result{}, err
	}
	// What was refused without a check costs no write of the TPM's memory.
	if !slices.Contains([]string{TriesUsedUp, RemoteUsedUp, SigninsUsedUp, DaysUsedUp, NoLongerEnrolled}, r.Reason) || r.Problem != "" {
		if err := v.save(ctx); err != nil {
			return Result{}, err
		}
	}
	if us != nil {
		r.Class, r.Left = us.Class, v.left(a.User, us)
	}
	return r, nil
}

// refuse journals an attempt that could not be judged.
func (v *Vault) refuse(ctx context.Context, a Attempt, err error) (Result, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	_ = ctx
	return v.refuseLocked(a, err)
}

func (v *Vault) refuseLocked(a Attempt, err error) (Result, error) {
	e := a.Event
	e.Type, e.Outcome, e.Reason = event.SigninDenied, "deny", string(ReasonOf(err))
	if v.led != nil && v.problem == "" {
		if err := v.append(e, nil); err != nil { // the cause is returned below, whether or not this can be written
			v.postpone(e, err)
		}
		// Not only a sign-in that was denied: a machine that wants looking after.
		switch r := ReasonOf(err); r {
		case policy.ReasonTPMGone, policy.ReasonTPMLocked, policy.ReasonTPMReplaced:
			v.tell(event.TPMProblem, r, "", err.Error())
		}
	} else if err := v.journalOnly(e); err != nil {
		v.postpone(e, err)
	}
	return Result{}, err
}

// left computes what a person is told.
func (v *Vault) left(u *policy.User, us *userState) Left {
	p, _ := policy.Choose(u, v.policies())
	if p == nil {
		return Left{}
	}
	const day = 24 * time.Hour
	span := max(0, time.UnixMicro(us.Until).Sub(v.judged()))
	days := int((span + day - 1) / day) // one that has begun counts: seven are seven a moment later
	if span < day {
		days = 0 // but for the last one, of which minutes may be left
	}
	l := Left{Days: days, Signins: max(0, p.OfflineSignins-us.Signins), Tries: max(0, p.OfflineTries-us.Tries), Checks: max(0, us.CheckLimit-us.Checks)}
	l.Warn = int(span/day)*5 <= p.OfflineDays || l.Signins*5 <= p.OfflineSignins || us.CheckLimit > 0 && l.Checks*5 <= us.CheckLimit
	return l
}

func (v *Vault) policies() []policy.Policy {
	if v.pol == nil {
		return nil
	}
	return v.pol.Policies
}
