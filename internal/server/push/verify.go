package push

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/party"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The phone's own authenticator (WebAuthn, platform) proves who holds the phone. It is
// registered once, soon after the enrolment: else whoever may use the phone's key could
// put an authenticator of his own in its place.

// verificationTime is how long after its enrolment a phone may register one.
const verificationTime = 10 * time.Minute

// holder is the phone as a WebAuthn user: the credential belongs to it alone.
type holder struct {
	d    Device
	have []webauthn.Credential
}

func (h holder) WebAuthnID() []byte {
	id := sha256.Sum256([]byte("latchkey/push-holder/1\x00" + h.d.ID))
	return id[:]
}

func (h holder) WebAuthnName() string                       { return h.d.User + " (" + h.d.Name + ")" }
func (h holder) WebAuthnDisplayName() string                { return h.d.User }
func (h holder) WebAuthnCredentials() []webauthn.Credential { return h.have }

// party is this server as the relying party of phones.
func (s *Service) party(ctx context.Context) (party.Party, error) {
	var people string
	err := s.Store.Read(ctx, func(q *store.Queries) (err error) {
		people, err = s.People(ctx, q)
		return err
	})
	if err != nil {
		return party.Party{}, err
	}
	return party.Of(people)
}

// verificationTicket lies sealed with the phone between the two calls.
type verificationTicket struct {
	Session webauthn.SessionData `json:"session"`
	Expires int64                `json:"expires"`
}

func verificationPlace(id string) []string { return []string{"push_devices", "verification", id} }

func (s *Service) mayVerify(d Device) error {
	switch {
	case d.Verifies:
		return refuse(409, "exists", "An authenticator of this phone is registered already. To register another, enrol the phone anew.")
	case s.now() > d.CreatedAt+verificationTime.Microseconds():
		return refuse(403, "late", "The phone's own authenticator is registered within ten minutes of the enrolment. Enrol the phone anew.")
	}
	return nil
}

// BeginVerification asks the phone's own authenticator for a key.
func (s *Service) BeginVerification(ctx context.Context, d Device) (VerificationBegun, error) {
	var out VerificationBegun
	if err := s.mayVerify(d); err != nil {
		return out, err
	}
	w, err := s.party(ctx)
	if err != nil {
		return out, err
	}
	options, session, err := w.BeginRegistration(holder{d: d}, webauthn.WithConveyancePreference(protocol.PreferNoAttestation),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{
			AuthenticatorAttachment: protocol.Platform, UserVerification: protocol.VerificationRequired, ResidentKey: protocol.ResidentKeyRequirementDiscouraged,
		}))
	if err != nil {
		return out, err
	}
	if out.Options, err = json.Marshal(options); err != nil {
		return out, err
	}
	t, err := json.Marshal(verificationTicket{Session: session, Expires: clock.Micros(s.Clock.Now().Add(5 * time.Minute))})
	if err != nil {
		return out, err
	}
	out.Ticket = encode(s.Box.Seal(t, verificationPlace(d.ID)...))
	return out, nil
}

// FinishVerification registers it.
func (s *Service) FinishVerification(ctx context.Context, d Device, in Verification) (Verified, error) {
	var out Verified
	if err := s.mayVerify(d); err != nil {
		return out, err
	}
	wrong := func(err error) error {
		return refuse(422, "verification", "The phone's authenticator could not be registered. Try again.").because(err)
	}
	if len(in.Ticket) > maxAssertion || len(in.Credential) > maxAssertion {
		return out, wrong(nil)
	}
	sealed, err := decode(in.Ticket)
	if err != nil {
		return out, wrong(err)
	}
	plain, err := s.Box.Open(sealed, verificationPlace(d.ID)...)
	if err != nil {
		return out, wrong(err)
	}
	var t verificationTicket
	if err := json.Unmarshal(plain.Reveal(), &t); err != nil || s.now() >= t.Expires {
		return out, wrong(err)
	}
	w, err := s.party(ctx)
	if err != nil {
		return out, err
	}
	parsed, err := party.ParseRegistration(in.Credential)
	if err != nil {
		return out, wrong(err)
	}
	c, err := w.Register(holder{d: d}, t.Session, parsed)
	if err != nil {
		return out, wrong(err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		return out, err
	}
	err = s.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.SetPushCredential(ctx, db.SetPushCredentialParams{ID: d.ID, Credential: b})
		if err != nil {
			return fmt.Errorf("register an authenticator of a phone: %w", err)
		}
		if n != 1 {
			return refuse(409, "exists", "An authenticator of this phone is registered already.")
		}
		return note(tx, event.Event{Type: event.PushVerification, Actor: d.User, Subject: d.User, UserID: d.UserID, Address: d.Address, Factor: string(policy.Push)}, map[string]any{
			"authenticator": rest.FactorPrefix + d.ID, "name": d.Name,
		})
	})
	out.ID = encode(c.ID)
	return out, err
}

func credentialID(stored []byte) (string, error) {
	var c webauthn.Credential
	if err := json.Unmarshal(stored, &c); err != nil {
		return "", fmt.Errorf("credential of a phone: %w", err)
	}
	return encode(c.ID), nil
}

// verified judges the assertion of an approval. It gives the credential with its
// counter moved, or the *Refusal.
func (s *Service) verified(ctx context.Context, d Device, message []byte, assertion json.RawMessage) ([]byte, error) {
	if !d.Verifies {
		return nil, refuse(422, "unverified-device", "The sign-in wants this phone to prove who holds it, and it has not registered for that. Enrol it anew.")
	}
	wrong := func(err error) error {
		return refuse(422, "verification", "The phone has not proven who holds it. Nothing was approved.").because(err)
	}
	var c webauthn.Credential
	if err := json.Unmarshal(d.credential, &c); err != nil {
		return nil, fmt.Errorf("credential of a phone: %w", err)
	}
	parsed, err := party.Parse(assertion)
	if err != nil {
		return nil, wrong(err)
	}
	w, err := s.party(ctx)
	if err != nil {
		return nil, err
	}
	h := holder{d: d, have: []webauthn.Credential{c}}
	challenge := sha256.Sum256(message)
	use, err := w.Judge(h, w.Session(h, base64.RawURLEncoding.EncodeToString(challenge[:]), c.ID), parsed)
	if err != nil {
		return nil, wrong(err)
	}
	if use.Copied {
		return nil, wrong(errors.New("the counter went back: it may be a copy"))
	}
	return json.Marshal(use.Credential)
}
