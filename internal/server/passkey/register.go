package passkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-webauthn/webauthn/metadata"
	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"github.com/google/uuid"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/party"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Order is what a registration is for.
type Order struct {
	User  db.User
	Enrol string // the enrolment code that it spends; empty: none
	Now   time.Time
	Until time.Time
}

// Begin makes the options of a registration (PublicKeyCredentialCreationOptionsJSON) and
// its ticket.
func (s *Service) Begin(ctx context.Context, tx *store.Tx, o Order) (ticket string, options json.RawMessage, err error) {
	p, err := s.site(ctx, tx.Queries)
	if err != nil {
		return "", nil, err
	}
	who, _, err := s.owner(ctx, tx, o.User, p.ID, o.Now)
	if err != nil {
		return "", nil, err
	}
	// Also one that was lost is not registered twice: its owner is told to take it away first.
	all, err := tx.ListPasskeysOfUser(ctx, o.User.ID)
	if err != nil {
		return "", nil, fmt.Errorf("passkeys: %w", err)
	}
	var have []protocol.CredentialDescriptor
	for _, r := range all {
		if c := credential(r.Passkey); r.Passkey.RpID == p.ID {
			have = append(have, c.Descriptor())
		}
	}
	conveyance := protocol.PreferNoAttestation
	if p.direct {
		conveyance = protocol.PreferDirectAttestation
	}
	made, session, err := p.BeginRegistration(who,
		webauthn.WithExtensions(webauthn.WithExtensionCredProps()), webauthn.WithExclusions(have), webauthn.WithConveyancePreference(conveyance),
		webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationPreferred}),
	)
	if err != nil {
		return "", nil, err
	}
	ticket = store.NewID()
	k := kept{Purpose: toRegister, Session: session, Generation: o.User.PasswordGeneration, Enrol: o.Enrol}
	if err := keep(ctx, tx, ticketOf(toRegister, ticket), o.User.ID, k, o.Now, o.Until); err != nil {
		return "", nil, err
	}
	made.Timeout = int(o.Until.Sub(o.Now).Milliseconds())
	options, err = json.Marshal(made)
	return ticket, options, err
}

// Made is a passkey that was registered.
type Made struct {
	ID         string // of the authenticator, without prefix
	Name       string
	Model      string // AAGUID
	Verifies   bool
	Eligible   bool // it can be copied by whom its maker lets (a synced passkey)
	Attested   string
	Discovered bool // it can be found without a name
}

// Finish judges the answer of the browser (RegistrationResponseJSON) and stores the
// passkey; name empty: guessed. The fault is Expired when the ticket is over, and Invalid
// with the field "credential" when the answer is not right.
func (s *Service) Finish(ctx context.Context, tx *store.Tx, ticket string, answer secret.Bytes, name string, o Order) (Made, error) {
	k, ok, err := spend(ctx, tx, ticketOf(toRegister, ticket), o.User.ID, o.Now, toRegister)
	if err != nil {
		return Made{}, err
	}
	if !ok || k.Generation != o.User.PasswordGeneration || k.Enrol != o.Enrol {
		return Made{}, fault.Newf(fault.Expired, "Setting up took too long, or something about your account has changed meanwhile. Begin again.")
	}
	p, err := s.site(ctx, tx.Queries)
	if err != nil {
		return Made{}, err
	}
	who, _, err := s.owner(ctx, tx, o.User, p.ID, o.Now)
	if err != nil {
		return Made{}, err
	}
	wrong := func(cause error, sentence string, args ...any) error {
		return fault.New(fault.Invalid, nil).With("credential", sentence, args...).Because(cause)
	}
	parsed, err := party.ParseRegistration(answer.Reveal())
	switch {
	case errors.Is(err, party.ErrLength):
		return Made{}, wrong(nil, "it is empty, or longer than any authenticator's answer")
	case err != nil:
		return Made{}, wrong(err, "it is not what a browser answers to a registration")
	}
	c, err := p.Register(who, k.Session, parsed)
	switch {
	case errors.Is(err, party.ErrID):
		return Made{}, wrong(nil, "its id or key is longer than any authenticator's")
	case errors.Is(err, party.ErrKey):
		return Made{}, wrong(err, "its key is of a kind that this server does not take")
	case err != nil:
		return Made{}, wrong(err, "it was refused: it is not the answer to this registration, or was made for another address than %s", p.ID)
	}
	model, err := uuid.FromBytes(c.Authenticator.AAGUID)
	if err != nil {
		model = uuid.Nil
	}
	if p.direct {
		switch {
		case c.AttestationFormat == "" || c.AttestationFormat == string(protocol.AttestationFormatNone) || c.AttestationType == string(metadata.BasicSurrogate):
			return Made{}, wrong(nil, "this server takes only authenticators that say which model they are, and this one does not")
		case len(p.models) > 0 && !slices.Contains(p.models, model.String()):
			return Made{}, wrong(nil, "this server takes only certain models of authenticators, and this one (%s) is none of them", modelName(model.String()))
		}
	}
	transports := []string{}
	for _, t := range c.Transport {
		if len(transports) < 8 {
			transports = append(transports, text.CleanN(string(t), 32))
		}
	}
	m := Made{
		ID: store.NewID(), Model: model.String(), Verifies: c.Flags.UserVerified, Eligible: c.Flags.BackupEligible, Attested: text.CleanN(c.AttestationFormat, 32),
		Discovered: c.Extensions.RK != nil && *c.Extensions.RK,
	}
	if m.Name = text.CleanN(name, text.MaxName); m.Name == "" {
		if m.Name, err = s.guess(ctx, tx, o.User.ID, m.Model, string(c.Authenticator.Attachment), c.Flags.BackupEligible); err != nil {
			return Made{}, err
		}
	}
	ways, err := json.Marshal(transports)
	if err != nil {
		return Made{}, err
	}
	at := clock.Micros(o.Now)
	err = tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{
		ID: m.ID, UserID: o.User.ID, Kind: string(policy.FIDO2), Name: m.Name, Params: "{}", ConfirmedAt: at, CreatedAt: at,
	})
	if err == nil {
		err = tx.InsertPasskey(ctx, db.InsertPasskeyParams{
			AuthenticatorID: m.ID, UserID: o.User.ID, CredentialID: c.ID, PublicKey: c.PublicKey, RpID: p.ID, Aaguid: m.Model, Attestation: m.Attested,
			Transports: string(ways), Attachment: text.CleanN(string(c.Authenticator.Attachment), 32), SignCount: int64(c.Authenticator.SignCount),
			VerifiesUser: m.Verifies, BackupEligible: m.Eligible, BackedUp: c.Flags.BackupState, Discoverable: m.Discovered,
		})
	}
	if store.IsDuplicate(err) {
		return Made{}, fault.Newf(fault.Conflict, "This passkey is registered already.").Because(err)
	}
	if err != nil {
		return Made{}, fmt.Errorf("store a passkey: %w", err)
	}
	return m, factor.Changed(ctx, tx, o.User.ID)
}

// guess names a passkey by its model, and counts where there are several.
func (s *Service) guess(ctx context.Context, tx *store.Tx, userID, model, attachment string, synced bool) (string, error) {
	name := models[model]
	switch {
	case name != "":
	case synced:
		name = "Passkey"
	case attachment == string(protocol.Platform):
		name = "This device"
	default:
		name = "Security key"
	}
	have, err := tx.ListAuthenticators(ctx, userID)
	if err != nil {
		return "", fmt.Errorf("authenticators: %w", err)
	}
	taken := func(n string) bool {
		return slices.ContainsFunc(have, func(a db.Authenticator) bool { return a.Name == n })
	}
	out := name
	for i := 2; taken(out); i++ {
		out = fmt.Sprintf("%s %d", name, i)
	}
	return out, nil
}

// why is what the library says of an answer, for the log; nothing secret is in it.
func why(err error) string {
	var e *protocol.Error
	if errors.As(err, &e) {
		return text.CleanN(e.Details+": "+e.DevInfo, 200)
	}
	return text.CleanN(err.Error(), 200)
}
