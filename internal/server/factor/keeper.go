package factor

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
)

// Keeper knows how seeds and codes lie in the tables. All fields but Issuer are
// required.
type Keeper struct {
	Box    *seal.Box
	Pepper secret.Bytes // HMAC key of code hashes
	Random io.Reader
	Issuer string // what authenticator apps show beside the account; empty means "Latchkey"
}

func (k *Keeper) issuer() string {
	if k.Issuer == "" {
		return "Latchkey"
	}
	return k.Issuer
}

// ── TOTP seeds ──

// Enrolment is shown to the person once.
type Enrolment struct {
	ID  string // of the authenticator
	URI string // otpauth
	Key string // base32, to be typed
	QR  string // the URI as a QR code in half blocks, several lines
}

// NewSeed makes a seed for the parameters.
func (k *Keeper) NewSeed(p otp.Params) (secret.Bytes, error) {
	if err := p.Validate(); err != nil {
		return secret.Bytes{}, err
	}
	b := make([]byte, p.SeedSize())
	if _, err := io.ReadFull(k.Random, b); err != nil {
		return secret.Bytes{}, fmt.Errorf("make a seed: %w", err)
	}
	return secret.New(b), nil
}

// Show is what an authenticator app needs of a seed.
func (k *Keeper) Show(p otp.Params, account string, seed secret.Bytes) (Enrolment, error) {
	uri := p.URI(k.issuer(), account, seed)
	qr, err := QR(uri)
	if err != nil {
		return Enrolment{}, err
	}
	return Enrolment{URI: uri, Key: otp.FormatSeed(seed), QR: qr}, nil
}

// TOTP is a new authenticator.
type TOTP struct {
	ID     string // of the authenticator; empty makes one
	Name   string // as the user calls it; may be empty
	Params otp.Params
	Seed   secret.Bytes
	// FirstStep is the step of the code that confirmed it, which is spent; 0 if
	// there was none.
	FirstStep int64
	// Waiting leaves it unconfirmed: it is used for sign-ins, and put on machines,
	// from its first code on.
	Waiting bool
}

// AddTOTP gives the user one more authenticator and returns its id. The user's
// generation rises, unless the authenticator waits for its first code.
func (k *Keeper) AddTOTP(ctx context.Context, tx *store.Tx, userID string, a TOTP, now time.Time) (string, error) {
	if err := a.Params.Validate(); err != nil {
		return "", err
	}
	params, err := json.Marshal(a.Params)
	if err != nil {
		return "", err
	}
	id := a.ID
	if id == "" {
		id = store.NewID()
	}
	at := clock.Micros(now)
	row := db.InsertAuthenticatorParams{
		ID: id, UserID: userID, Kind: string(policy.TOTP), Name: text.CleanN(a.Name, text.MaxName), Params: string(params),
		Secret: k.Box.Seal(a.Seed.Reveal(), seedPlace(id)...), Step: a.FirstStep, ConfirmedAt: at, CreatedAt: at,
	}
	if a.Waiting {
		row.ConfirmedAt = 0
	}
	if err := tx.InsertAuthenticator(ctx, row); err != nil {
		return "", fmt.Errorf("add an authenticator: %w", err)
	}
	if a.Waiting {
		return id, nil
	}
	return id, Changed(ctx, tx, userID)
}

func seedPlace(id string) []string { return []string{"authenticators", "secret", id} }

// OpenTOTP gives parameters and seed of a row of kind totp.
func (k *Keeper) OpenTOTP(a db.Authenticator) (p otp.Params, seed secret.Bytes, err error) {
	if a.Kind != string(policy.TOTP) {
		return p, seed, fmt.Errorf("authenticator %s is of kind %q, not totp", a.ID, a.Kind)
	}
	if err := json.Unmarshal([]byte(a.Params), &p); err != nil {
		return p, seed, fmt.Errorf("authenticator %s: parameters: %w", a.ID, err)
	}
	if err := p.Validate(); err != nil {
		return p, seed, fmt.Errorf("authenticator %s: %w", a.ID, err)
	}
	if seed, err = k.Box.Open(a.Secret, seedPlace(a.ID)...); err != nil {
		return p, seed, fmt.Errorf("authenticator %s: %w", a.ID, err)
	}
	return p, seed, nil
}

// Changed raises the user's generation, so that machines refuse older offline data
// (O5), and tells them.
func Changed(ctx context.Context, tx *store.Tx, userID string) error {
	if _, err := tx.RaiseUserGeneration(ctx, userID); err != nil {
		return fmt.Errorf("raise the generation of a user: %w", err)
	}
	return touch.User(ctx, tx, userID)
}

// SpendAll spends every one-time code that could be accepted now, for when the
// database has lost what it knew of the last ones (S10). Whoever signs in waits for
// the next code but one at most.
func SpendAll(ctx context.Context, tx *store.Tx, now time.Time) error {
	all, err := tx.ListTOTPParams(ctx)
	if err != nil {
		return fmt.Errorf("spend all codes: %w", err)
	}
	for _, s := range all {
		var p otp.Params
		if err := json.Unmarshal([]byte(s), &p); err != nil || p.Validate() != nil {
			continue // no code of it is ever accepted
		}
		if _, err := tx.SpendAllSteps(ctx, db.SpendAllStepsParams{Params: s, Step: p.Step(now) + otp.Skew}); err != nil {
			return fmt.Errorf("spend all codes: %w", err)
		}
	}
	return nil
}

// ── codes ──

// Purpose keeps the hashes of one kind of code apart from those of another.
type Purpose string

// The purposes of codes.
const (
	ForBackup Purpose = "backup"
	ForBypass Purpose = "bypass"
	ForEnrol  Purpose = "enrol"
)

// Hash is what is stored of a code: HMAC-SHA-256 under the pepper, over purpose,
// user and code.
func (k *Keeper) Hash(p Purpose, userID string, code secret.Bytes) []byte {
	h := hmac.New(sha256.New, k.Pepper.Reveal())
	for _, s := range [][]byte{[]byte("latchkey/code/1"), []byte(p), []byte(userID), code.Reveal()} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(s)))
		h.Write(n[:])
		h.Write(s)
	}
	return h.Sum(nil)
}

// match finds the place of the hash that the typed text has, looking at all. -1
// means none; ok is false if the text is not a code at all.
func (k *Keeper) match(p Purpose, userID string, typed secret.Bytes, n int, hash func(int) []byte) int {
	code, ok := otp.ParseBackup(string(typed.Reveal()))
	if !ok {
		// The same work for what can not be a code.
		code = secret.New(make([]byte, 8))
	}
	defer code.Wipe()
	want := k.Hash(p, userID, code)
	found := -1
	for i := range n {
		if subtle.ConstantTimeCompare(hash(i), want) == 1 {
			found = i
		}
	}
	if !ok {
		return -1
	}
	return found
}

// newCode makes one code and its text.
func (k *Keeper) newCode() (code secret.Bytes, shown string, err error) {
	if code, err = otp.NewBackup(k.Random); err != nil {
		return code, "", err
	}
	return code, otp.FormatBackup(code), nil
}

// IssueBackup replaces the user's backup codes by ten new ones and returns their
// texts, which are shown once (M5).
func (k *Keeper) IssueBackup(ctx context.Context, tx *store.Tx, userID string, now time.Time) ([]string, error) {
	if _, err := tx.DeleteBackupCodes(ctx, userID); err != nil {
		return nil, fmt.Errorf("remove the old backup codes: %w", err)
	}
	set := store.NewID()
	shown := make([]string, otp.BackupCount)
	for i := range shown {
		code, s, err := k.newCode()
		if err != nil {
			return nil, err
		}
		id := store.NewID()
		err = tx.InsertBackupCode(ctx, db.InsertBackupCodeParams{
			ID: id, UserID: userID, SetID: set, Hash: k.Hash(ForBackup, userID, code), CreatedAt: clock.Micros(now),
		})
		if err != nil {
			return nil, fmt.Errorf("store a backup code: %w", err)
		}
		_, err = tx.SealBackupCode(ctx, db.SealBackupCodeParams{ID: id, Sealed: k.Box.Seal(code.Reveal(), codePlace(id)...)})
		code.Wipe()
		if err != nil {
			return nil, fmt.Errorf("store a backup code: %w", err)
		}
		shown[i] = s
	}
	return shown, Changed(ctx, tx, userID)
}

func codePlace(id string) []string { return []string{"backup_codes", "sealed", id} }

// OpenBackup gives the code itself, for the tags of a machine's bundle (O7).
func (k *Keeper) OpenBackup(c db.BackupCode) (secret.Bytes, error) {
	code, err := k.Box.Open(c.Sealed, codePlace(c.ID)...)
	if err != nil {
		return code, fmt.Errorf("backup code %s: %w", c.ID, err)
	}
	return code, nil
}

// FindBackup finds the user's backup code that was typed, used or not.
func (k *Keeper) FindBackup(ctx context.Context, q *db.Queries, userID string, typed secret.Bytes) (found *db.BackupCode, unused int, err error) {
	rows, err := q.ListBackupCodes(ctx, userID)
	if err != nil {
		return nil, 0, fmt.Errorf("backup codes: %w", err)
	}
	for _, r := range rows {
		if r.UsedAt == 0 {
			unused++
		}
	}
	if i := k.match(ForBackup, userID, typed, len(rows), func(i int) []byte { return rows[i].Hash }); i >= 0 {
		found = &rows[i]
	}
	return found, unused, nil
}

// BypassCode is an administrator's one-time code to be issued (E3).
type BypassCode struct {
	UserID     string
	Scope      policy.Scope // empty: every scope
	Reason     string
	Expires    time.Time
	By         string
	ApprovedBy string
}

// IssueBypass stores a bypass code and returns its text, which is shown once.
func (k *Keeper) IssueBypass(ctx context.Context, tx *store.Tx, b BypassCode, now time.Time) (id, shown string, err error) {
	if !b.Expires.After(now) {
		return "", "", errors.New("a bypass code must expire in the future")
	}
	code, shown, err := k.newCode()
	if err != nil {
		return "", "", err
	}
	defer code.Wipe()
	id = store.NewID()
	err = tx.InsertBypassCode(ctx, db.InsertBypassCodeParams{
		ID: id, UserID: b.UserID, Hash: k.Hash(ForBypass, b.UserID, code), Scope: string(b.Scope), Reason: b.Reason,
		CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(b.Expires), CreatedBy: b.By, ApprovedBy: b.ApprovedBy,
	})
	if err != nil {
		return "", "", fmt.Errorf("store a bypass code: %w", err)
	}
	return id, shown, nil
}

// FindBypass finds the user's valid bypass code that was typed.
func (k *Keeper) FindBypass(ctx context.Context, q *db.Queries, userID string, typed secret.Bytes, now time.Time) (*db.BypassCode, error) {
	rows, err := q.ListValidBypassCodes(ctx, db.ListValidBypassCodesParams{UserID: userID, At: clock.Micros(now)})
	if err != nil {
		return nil, fmt.Errorf("bypass codes: %w", err)
	}
	if i := k.match(ForBypass, userID, typed, len(rows), func(i int) []byte { return rows[i].Hash }); i >= 0 {
		return &rows[i], nil
	}
	return nil, nil
}

// EnrolCode is a one-time code that lets a person enrol a first factor (E1).
type EnrolCode struct {
	UserID  string
	Expires time.Time
	By      string
}

// IssueEnrol stores an enrolment code and returns its text, which is shown once.
func (k *Keeper) IssueEnrol(ctx context.Context, tx *store.Tx, e EnrolCode, now time.Time) (id, shown string, err error) {
	if !e.Expires.After(now) {
		return "", "", errors.New("an enrolment code must expire in the future")
	}
	code, shown, err := k.newCode()
	if err != nil {
		return "", "", err
	}
	defer code.Wipe()
	id = store.NewID()
	err = tx.InsertEnrolCode(ctx, db.InsertEnrolCodeParams{
		ID: id, UserID: e.UserID, Hash: k.Hash(ForEnrol, e.UserID, code),
		CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(e.Expires), CreatedBy: e.By,
	})
	if err != nil {
		return "", "", fmt.Errorf("store an enrolment code: %w", err)
	}
	return id, shown, nil
}

// FindEnrol finds the user's valid enrolment code that was typed. It is spent by
// SpendEnrolCode in the transaction that makes the authenticator.
func (k *Keeper) FindEnrol(ctx context.Context, q *db.Queries, userID string, typed secret.Bytes, now time.Time) (*db.EnrolCode, error) {
	rows, err := q.ListValidEnrolCodes(ctx, db.ListValidEnrolCodesParams{UserID: userID, At: clock.Micros(now)})
	if err != nil {
		return nil, fmt.Errorf("enrolment codes: %w", err)
	}
	if i := k.match(ForEnrol, userID, typed, len(rows), func(i int) []byte { return rows[i].Hash }); i >= 0 {
		return &rows[i], nil
	}
	return nil, nil
}

// Typed is an answer as a factor reads it: at most 128 octets, without blanks at
// its ends.
func Typed(s secret.Bytes) (string, bool) {
	if s.Len() > 128 {
		return "", false
	}
	return strings.TrimSpace(string(s.Reveal())), true
}
