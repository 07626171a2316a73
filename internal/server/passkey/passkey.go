// Package passkey is the server's side of WebAuthn (Level 2 and 3): it registers passkeys
// and security keys, and judges what they have signed in a browser or at a machine.
//
// It promises: a challenge is made here, lies in the database, is for one sign-in,
// step-up, conversation or registration, and is spent by the first answer, right or
// wrong; an answer counts for the host and the address for people alone, so that a page
// elsewhere gets none that does; a counter that does not rise marks the credential as
// copied, neither copy is accepted any more, and what either may have opened ends; what an authenticator knows of an
// account is a random handle. Where a session begins without a name the authenticator
// must have verified who holds it.
//
// Whom the passkeys are for, and how an answer is judged, is package party's: where the
// address for people is none that browsers bind passkeys to, nothing is offered, and the
// reason is said.
//
// Rows: M2, O3 (the public key lies here as the bundles need it).
package passkey

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/party"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The bounds, in octets and numbers.
const (
	maxKeys    = 64 // that one challenge names
	handleSize = 32
	nonceSize  = 32
)

// Reasons of rejections, as they stand in events.
const (
	ReasonRefused     = "passkey-refused"      // signature, origin, host or challenge are not right
	ReasonUnknown     = "passkey-unknown"      // it is none of the user's, or was taken away
	ReasonNotVerified = "passkey-not-verified" // nobody has proven who holds it
	ReasonCloned      = "passkey-cloned"       // its counter went backwards
	ReasonOver        = "passkey-late"         // the challenge was used or its time is over
)

// Config is what the service stands on.
type Config struct {
	Random io.Reader
	// URL is the address for people that the program knows of itself, where the settings
	// name none; nil: there is none.
	URL func() string
}

// Service registers and judges. It has no state of its own.
type Service struct{ Config }

// New makes one.
func New(c Config) *Service { return &Service{c} }

// site is who passkeys are for, and which of them may be registered.
type site struct {
	party.Party
	direct bool
	models []string // AAGUIDs that may be registered; none: all
}

// site gives the relying party as it is now. The fault is Unavailable where there can
// be none.
func (s *Service) site(ctx context.Context, q *db.Queries) (site, error) {
	at, err := settings.People(ctx, q, s.URL)
	if err != nil {
		return site{}, err
	}
	p, err := party.Of(at)
	if err != nil {
		return site{}, err
	}
	rule, err := settings.Passkeys(ctx, q)
	return site{p, rule.Direct, rule.Models}, err
}

// Ready tells whether passkeys can be used; the fault says why not.
func (s *Service) Ready(ctx context.Context, q *db.Queries) error {
	_, err := s.site(ctx, q)
	return err
}

// owner is a user as the library sees one.
type owner struct {
	u      db.User
	handle []byte
	keys   []webauthn.Credential
}

func (o *owner) WebAuthnID() []byte                         { return o.handle }
func (o *owner) WebAuthnName() string                       { return o.u.Name }
func (o *owner) WebAuthnDisplayName() string                { return display(o.u) }
func (o *owner) WebAuthnCredentials() []webauthn.Credential { return o.keys }

func display(u db.User) string {
	if u.DisplayName != "" {
		return u.DisplayName
	}
	return u.Name
}

// owner gathers what is known of a user's passkeys of this host, and makes a handle for
// whoever has none. rows are those that may be used.
func (s *Service) owner(ctx context.Context, tx *store.Tx, u db.User, host string, now time.Time) (*owner, []db.ListPasskeysOfUserRow, error) {
	h, err := tx.GetPasskeyUser(ctx, u.ID)
	if store.IsNotFound(err) {
		raw := make([]byte, handleSize)
		if _, err := io.ReadFull(s.Random, raw); err != nil {
			return nil, nil, fmt.Errorf("make a user handle: %w", err)
		}
		if _, err := tx.InsertPasskeyUser(ctx, db.InsertPasskeyUserParams{UserID: u.ID, Handle: raw, CreatedAt: clock.Micros(now)}); err != nil {
			return nil, nil, fmt.Errorf("store a user handle: %w", err)
		}
		h, err = tx.GetPasskeyUser(ctx, u.ID)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("user handle: %w", err)
	}
	rows, err := usable(ctx, tx.Queries, u.ID, host)
	if err != nil {
		return nil, nil, err
	}
	o := &owner{u: u, handle: h.Handle}
	for _, r := range rows {
		o.keys = append(o.keys, credential(r.Passkey))
	}
	return o, rows, nil
}

// usable are the user's passkeys of the host that may sign.
func usable(ctx context.Context, q *db.Queries, userID, host string) ([]db.ListPasskeysOfUserRow, error) {
	rows, err := q.ListPasskeysOfUser(ctx, userID)
	if err != nil {
		return nil, fmt.Errorf("passkeys: %w", err)
	}
	rows = slices.DeleteFunc(rows, func(r db.ListPasskeysOfUserRow) bool {
		return r.Authenticator.Lost || r.Authenticator.ConfirmedAt == 0 || r.Passkey.ClonedAt != 0 || r.Passkey.RpID != host
	})
	return rows[:min(len(rows), maxKeys)], nil
}

// credential is a row as the library sees one.
func credential(p db.Passkey) webauthn.Credential {
	var transports []protocol.AuthenticatorTransport
	for _, t := range Transports(p) {
		transports = append(transports, protocol.AuthenticatorTransport(t))
	}
	aaguid, _ := hex.DecodeString(strings.ReplaceAll(p.Aaguid, "-", ""))
	return webauthn.Credential{
		ID: p.CredentialID, PublicKey: p.PublicKey, AttestationType: p.Attestation, Transport: transports,
		Flags:         webauthn.CredentialFlags{UserPresent: true, UserVerified: p.VerifiesUser, BackupEligible: p.BackupEligible, BackupState: p.BackedUp},
		Authenticator: webauthn.Authenticator{AAGUID: aaguid, SignCount: uint32(p.SignCount)}, //nolint:gosec // it was one
	}
}

// Transports are the ways in which a passkey said that it can be reached.
func Transports(p db.Passkey) []string {
	var out []string
	if json.Unmarshal([]byte(p.Transports), &out) != nil {
		return nil // it is a hint for browsers and nothing else
	}
	return out
}

// kept is what lies beside a challenge until it is answered.
type kept struct {
	Purpose purpose              `json:"purpose"`
	Session webauthn.SessionData `json:"session,omitzero"`
	// Of a registration.
	Generation int64  `json:"generation,omitempty"`
	Enrol      string `json:"enrol,omitempty"`
	// At a machine.
	Machine      string `json:"machine,omitempty"`
	Nonce        []byte `json:"nonce,omitempty"`
	Verification bool   `json:"verification,omitempty"`
}

// purpose keeps the challenges of one kind apart from those of another.
type purpose string

const (
	toRegister purpose = "register"
	toSign     purpose = "sign"     // as a second factor
	toProve    purpose = "prove"    // as a step-up
	toDiscover purpose = "discover" // without a name
	toMachine  purpose = "machine"
)

// keep stores a challenge under the ticket; one that waits there is worth nothing any more.
func keep(ctx context.Context, tx *store.Tx, ticket, userID string, k kept, now, until time.Time) error {
	b, err := json.Marshal(k)
	if err != nil {
		return err
	}
	err = tx.PutPasskeyChallenge(ctx, db.PutPasskeyChallengeParams{
		Ticket: ticket, UserID: userID, Data: string(b), CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(until),
	})
	if err != nil {
		return fmt.Errorf("store a challenge: %w", err)
	}
	return nil
}

// spend takes the challenge of the ticket away; ok is false if there is none that still
// counts for the user and purposes.
func spend(ctx context.Context, tx *store.Tx, ticket, userID string, now time.Time, for_ ...purpose) (k kept, ok bool, err error) {
	row, err := tx.GetPasskeyChallenge(ctx, ticket)
	if store.IsNotFound(err) {
		return k, false, nil
	}
	if err != nil {
		return k, false, fmt.Errorf("challenge: %w", err)
	}
	n, err := tx.DeletePasskeyChallenge(ctx, ticket)
	if err != nil {
		return k, false, fmt.Errorf("spend a challenge: %w", err)
	}
	// One of a time that has not come is of a clock that was put back since, which prolongs
	// nothing.
	early := clock.Micros(now) < row.CreatedAt-time.Minute.Microseconds()
	if n == 0 || early || clock.Micros(now) >= row.ExpiresAt || row.UserID != userID {
		return k, false, nil
	}
	if err := json.Unmarshal([]byte(row.Data), &k); err != nil {
		return k, false, fmt.Errorf("challenge: %w", err)
	}
	return k, slices.Contains(for_, k.Purpose), nil
}

// ticketOf names the challenge of a use, so that those of two uses never meet.
func ticketOf(p purpose, ticket string) string {
	h := sha256.Sum256([]byte("latchkey/passkey/1\x00" + string(p) + "\x00" + ticket))
	return hex.EncodeToString(h[:])
}

// cloned marks a passkey whose counter went backwards, and says so: neither it nor its
// copy is accepted any more. Nobody knows which of the two has opened what: all of it
// ends.
func cloned(ctx context.Context, tx *store.Tx, u db.User, p db.Passkey, name, address string, count uint32, now time.Time) error {
	if _, err := tx.MarkPasskeyCloned(ctx, db.MarkPasskeyClonedParams{ID: p.AuthenticatorID, At: clock.Micros(now)}); err != nil {
		return fmt.Errorf("mark a passkey: %w", err)
	}
	if _, err := tx.SetAuthenticatorLost(ctx, p.AuthenticatorID); err != nil {
		return fmt.Errorf("mark an authenticator: %w", err)
	}
	about, err := json.Marshal(map[string]any{
		"authenticator": "fac_" + p.AuthenticatorID, "name": name, "count": count, "known": p.SignCount, "severity": "alert",
	})
	if err != nil {
		return err
	}
	_, err = tx.Event(event.Event{
		Type: event.FactorCloned, Actor: "server", Subject: u.Name, UserID: u.ID, Address: address, Factor: string(policy.FIDO2), Reason: ReasonCloned, Data: about,
		At: clock.Micros(now), ReceivedAt: clock.Micros(now),
	})
	if err != nil {
		return err
	}
	_, err = ending.All(ctx, tx, ending.Cause{By: "server", Address: address, Reason: ReasonCloned, At: now}, u.ID, "")
	return err
}
