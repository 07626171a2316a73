// Package party is this server as a relying party of WebAuthn (Level 2 and 3): the one
// place that knows which host its credentials are bound to and from which address answers
// come, that says which keys are taken, and that reads and judges what authenticators
// answer. Passkeys (package passkey) and the phones' own authenticators (package push) keep
// their challenges and credentials themselves.
//
// It promises: an answer is bounded before it is read; a key that machines could not judge
// alone (package assertion) is not registered; what was asked for with user verification
// counts with it alone, whatever the library says; and a counter that has not risen is
// told, never passed over.
//
// A credential is bound to the host of the address for people: where that is none that
// clients bind credentials to (an IP address), there is no party, and the fault says why.
//
// Rows: M2, S12.
package party

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"latchkey/internal/assertion"
	"latchkey/internal/fault"
)

// The bounds, in octets.
const (
	MaxAnswer = 16 << 10 // of a browser or a phone
	maxID     = 1023     // of a credential (WebAuthn §4)
)

// What is wrong with an answer, beside what the library says.
var (
	ErrLength      = errors.New("its length")
	ErrID          = errors.New("the length of its id")
	ErrKey         = errors.New("its key is of a kind that this server does not take")
	ErrNotVerified = errors.New("nobody has proven who holds the authenticator")
)

// Party is the server under one address.
type Party struct {
	ID string // the host
	w  *webauthn.WebAuthn
}

// Of gives the party under the address for people. The fault is Unavailable where there can
// be none.
func Of(people string) (Party, error) {
	u, err := url.Parse(people)
	if people == "" || err != nil || u.Hostname() == "" {
		return Party{}, unavailable("Passkeys can not be used yet: this server does not know the address under which people reach it. An owner sets it in the settings (Address for people).")
	}
	host := u.Hostname()
	if _, err := netip.ParseAddr(host); err == nil || net.ParseIP(host) != nil {
		return Party{}, unavailable("Passkeys need a host name, and people reach this server by the address %s. An owner sets a name in the settings (Address for people), for which the server's certificate is good.", host)
	}
	w, err := webauthn.New(&webauthn.Config{RPID: host, RPDisplayName: "Latchkey", RPOrigins: []string{people}})
	if err != nil {
		return Party{}, unavailable("Passkeys can not be used: the address for people, %s, is none that browsers bind them to. An owner sets another in the settings.", people).Because(err)
	}
	return Party{ID: host, w: w}, nil
}

func unavailable(format string, args ...any) *fault.Fault {
	return fault.Newf(fault.Unavailable, format, args...)
}

// algorithms are those of public keys, the better first: what machines can judge alone
// too (package assertion).
func algorithms() []protocol.CredentialParameter {
	var out []protocol.CredentialParameter
	for _, a := range []webauthncose.COSEAlgorithmIdentifier{webauthncose.AlgEdDSA, webauthncose.AlgES256, webauthncose.AlgRS256} {
		out = append(out, protocol.CredentialParameter{Type: protocol.PublicKeyCredentialType, Algorithm: a})
	}
	return out
}

// BeginRegistration makes the options of a registration, and what is kept until it is
// answered.
func (p Party) BeginRegistration(u webauthn.User, o ...webauthn.RegistrationOption) (protocol.PublicKeyCredentialCreationOptions, webauthn.SessionData, error) {
	made, session, err := p.w.BeginRegistration(u, append([]webauthn.RegistrationOption{webauthn.WithCredentialParameters(algorithms())}, o...)...)
	if err != nil {
		return protocol.PublicKeyCredentialCreationOptions{}, webauthn.SessionData{}, fmt.Errorf("begin a registration: %w", err)
	}
	return made.Response, *session, nil
}

// ParseRegistration reads the answer to one (RegistrationResponseJSON).
func ParseRegistration(answer []byte) (*protocol.ParsedCredentialCreationData, error) {
	if len(answer) == 0 || len(answer) > MaxAnswer {
		return nil, ErrLength
	}
	return protocol.ParseCredentialCreationResponseBytes(answer)
}

// Register judges the answer, and gives the credential.
func (p Party) Register(u webauthn.User, s webauthn.SessionData, answer *protocol.ParsedCredentialCreationData) (*webauthn.Credential, error) {
	c, err := p.w.CreateCredential(u, s, answer)
	if err != nil {
		return nil, err
	}
	switch {
	case s.UserVerification == protocol.VerificationRequired && !c.Flags.UserVerified:
		return nil, ErrNotVerified
	case len(c.ID) == 0 || len(c.ID) > maxID || len(c.PublicKey) > assertion.MaxKey:
		return nil, ErrID
	}
	// What the library takes and machines could not judge alone is none of ours.
	if _, err := assertion.ParseKey(c.PublicKey); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return c, nil
}

// Ask makes the options of a sign-in with one of the user's credentials; nil: with whichever
// the client finds.
func (p Party) Ask(u webauthn.User, verification protocol.UserVerificationRequirement) (protocol.PublicKeyCredentialRequestOptions, webauthn.SessionData, error) {
	var made *protocol.CredentialAssertion
	var session *webauthn.SessionData
	var err error
	if u == nil {
		made, session, err = p.w.BeginDiscoverableLogin(webauthn.WithUserVerification(verification))
	} else {
		made, session, err = p.w.BeginLogin(u, webauthn.WithUserVerification(verification))
	}
	if err != nil {
		return protocol.PublicKeyCredentialRequestOptions{}, webauthn.SessionData{}, fmt.Errorf("make a challenge: %w", err)
	}
	return made.Response, *session, nil
}

// Session is what Ask would have kept of a challenge that both sides make of themselves: it
// is for this credential of the user, whose holder must be verified.
func (p Party) Session(u webauthn.User, challenge string, credential []byte) webauthn.SessionData {
	return webauthn.SessionData{
		Challenge: challenge, RelyingPartyID: p.ID, UserID: u.WebAuthnID(), AllowedCredentialIDs: [][]byte{credential}, UserVerification: protocol.VerificationRequired,
	}
}

// Use is what an authenticator has signed.
type Use struct {
	Credential *webauthn.Credential // as it is now, with its counter moved
	Count      uint32
	Verified   bool // who holds it was verified
	// Copied: the counter has not risen. There may be two of it; nothing was proven.
	Copied bool
}

// Parse reads the answer to a challenge (AuthenticationResponseJSON).
func Parse(answer []byte) (*protocol.ParsedCredentialAssertionData, error) {
	if len(answer) == 0 || len(answer) > MaxAnswer {
		return nil, ErrLength
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return nil, err
	}
	if len(parsed.RawID) == 0 || len(parsed.RawID) > maxID {
		return nil, ErrID
	}
	return parsed, nil
}

// Judge judges an answer of the user's.
func (p Party) Judge(u webauthn.User, s webauthn.SessionData, answer *protocol.ParsedCredentialAssertionData) (Use, error) {
	c, err := p.w.ValidateLogin(u, s, answer)
	return use(c, err, s, answer)
}

// JudgeFound judges the answer of whoever came without a name; the user is the one whose
// handle the answer tells.
func (p Party) JudgeFound(u webauthn.User, s webauthn.SessionData, answer *protocol.ParsedCredentialAssertionData) (Use, error) {
	_, c, err := p.w.ValidatePasskeyLogin(func(_, _ []byte) (webauthn.User, error) { return u, nil }, s, answer)
	return use(c, err, s, answer)
}

func use(c *webauthn.Credential, err error, s webauthn.SessionData, answer *protocol.ParsedCredentialAssertionData) (Use, error) {
	data := answer.Response.AuthenticatorData
	// The library was asked for it; what a sign-in rests on is judged here once more.
	if s.UserVerification == protocol.VerificationRequired && !data.Flags.HasUserVerified() {
		return Use{}, errors.Join(ErrNotVerified, err)
	}
	if err != nil {
		return Use{}, err
	}
	return Use{Credential: c, Count: data.Counter, Verified: data.Flags.HasUserVerified(), Copied: c.Authenticator.CloneWarning}, nil
}
