package party_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/descope/virtualwebauthn"
	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"latchkey/internal/fault"
	"latchkey/internal/server/party"
)

func TestCredentialsNeedAName(t *testing.T) {
	for _, c := range []struct{ at, want string }{
		{"", "does not know the address"},
		{"https://192.0.2.7:8443", "192.0.2.7"},
		{"https://[2001:db8::1]:8443", "2001:db8::1"},
	} {
		_, err := party.Of(c.at)
		if !fault.Is(err, fault.Unavailable) || !strings.Contains(fault.Of(err).Detail, c.want) || !strings.Contains(fault.Of(err).Detail, "settings") {
			t.Errorf("%q: %v", c.at, err)
		}
	}
	if p, err := party.Of("https://latchkey.test:8443"); err != nil || p.ID != "latchkey.test" {
		t.Errorf("%q, %v", p.ID, err)
	}
}

// user is somebody with the credentials so far.
type user struct{ keys []webauthn.Credential }

func (*user) WebAuthnID() []byte                           { return []byte("a handle of thirty-two octets...") }
func (*user) WebAuthnName() string                         { return "anna" }
func (*user) WebAuthnDisplayName() string                  { return "Anna" }
func (u *user) WebAuthnCredentials() []webauthn.Credential { return u.keys }

const home = "https://latchkey.test:8443"

// device is an authenticator of another maker (virtualwebauthn), at a page of an origin.
type device struct {
	auth virtualwebauthn.Authenticator
	cred virtualwebauthn.Credential
}

func newDevice(kind virtualwebauthn.KeyType) *device {
	d := &device{virtualwebauthn.NewAuthenticator(), virtualwebauthn.NewCredential(kind)}
	d.auth.Options.UserHandle = (&user{}).WebAuthnID()
	d.auth.AddCredential(d.cred)
	return d
}

func at(origin, host string) virtualwebauthn.RelyingParty {
	return virtualwebauthn.RelyingParty{ID: host, Name: "Latchkey", Origin: origin}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// registers runs a registration for which the holder must be verified.
func (d *device) registers(t *testing.T, u *user, where virtualwebauthn.RelyingParty) (*webauthn.Credential, error) {
	t.Helper()
	p, err := party.Of(home)
	must(t, err)
	options, session, err := p.BeginRegistration(u, webauthn.WithAuthenticatorSelection(protocol.AuthenticatorSelection{UserVerification: protocol.VerificationRequired}))
	must(t, err)
	if len(options.Parameters) != 3 || options.RelyingParty.ID != "latchkey.test" {
		t.Errorf("the options are %+v", options)
	}
	answer, err := party.ParseRegistration([]byte(virtualwebauthn.CreateAttestationResponse(where, d.auth, d.cred, virtualwebauthn.AttestationOptions{
		Challenge: options.Challenge, RelyingPartyID: where.ID, UserID: string(u.WebAuthnID()), UserName: "anna",
	})))
	must(t, err)
	return p.Register(u, session, answer)
}

func TestWhatIsRegistered(t *testing.T) {
	right := at(home, "latchkey.test")
	for _, kind := range []virtualwebauthn.KeyType{virtualwebauthn.KeyTypeEC2, virtualwebauthn.KeyTypeRSA} {
		if c, err := newDevice(kind).registers(t, &user{}, right); err != nil || !c.Flags.UserVerified {
			t.Errorf("a good one: %+v, %v", c, err)
		}
	}
	bare := newDevice(virtualwebauthn.KeyTypeEC2)
	bare.auth.Options.UserNotVerified = true
	for name, c := range map[string]struct {
		d     *device
		where virtualwebauthn.RelyingParty
	}{
		"a page elsewhere":   {newDevice(virtualwebauthn.KeyTypeEC2), at("https://latchkey.example", "latchkey.test")},
		"another port":       {newDevice(virtualwebauthn.KeyTypeEC2), at("https://latchkey.test", "latchkey.test")},
		"another host":       {newDevice(virtualwebauthn.KeyTypeEC2), at(home, "latchkey.example")},
		"nobody is verified": {bare, right},
	} {
		if made, err := c.d.registers(t, &user{}, c.where); err == nil {
			t.Errorf("%s: registered %+v", name, made)
		}
	}
}

func TestWhatIsSigned(t *testing.T) {
	right := at(home, "latchkey.test")
	p, err := party.Of(home)
	must(t, err)
	for name, c := range map[string]struct {
		want protocol.UserVerificationRequirement
		do   func(d *device, where *virtualwebauthn.RelyingParty)
		is   error // nil: some other
		ok   bool
	}{
		"all is well":                     {want: protocol.VerificationRequired, ok: true},
		"nobody is verified, nobody asks": {want: protocol.VerificationPreferred, do: func(d *device, _ *virtualwebauthn.RelyingParty) { d.auth.Options.UserNotVerified = true }, ok: true},
		"nobody is verified":              {want: protocol.VerificationRequired, do: func(d *device, _ *virtualwebauthn.RelyingParty) { d.auth.Options.UserNotVerified = true }, is: party.ErrNotVerified},
		"nobody is there":                 {want: protocol.VerificationPreferred, do: func(d *device, _ *virtualwebauthn.RelyingParty) { d.auth.Options.UserNotPresent = true }},
		"a page elsewhere":                {want: protocol.VerificationPreferred, do: func(_ *device, w *virtualwebauthn.RelyingParty) { w.Origin = "https://latchkey.example" }},
		"another host":                    {want: protocol.VerificationPreferred, do: func(_ *device, w *virtualwebauthn.RelyingParty) { w.ID = "latchkey.example" }},
	} {
		for _, found := range []bool{false, true} {
			d, u, where := newDevice(virtualwebauthn.KeyTypeEC2), &user{}, right
			key, err := d.registers(t, u, right)
			must(t, err)
			u.keys = []webauthn.Credential{*key}
			if c.do != nil {
				c.do(d, &where)
			}
			judge, who := p.Judge, webauthn.User(u)
			if found {
				judge, who = p.JudgeFound, nil
			}
			sign := func(count uint32) (party.Use, error) {
				options, session, err := p.Ask(who, c.want)
				must(t, err)
				d.cred.Counter = count
				answer, err := party.Parse([]byte(virtualwebauthn.CreateAssertionResponse(where, d.auth, d.cred, virtualwebauthn.AssertionOptions{
					Challenge: options.Challenge, RelyingPartyID: where.ID,
				})))
				must(t, err)
				return judge(u, session, answer)
			}
			use, err := sign(7)
			switch {
			case (err == nil) != c.ok, c.is != nil && !errors.Is(err, c.is):
				t.Errorf("%s (found by handle: %v): %+v, %v", name, found, use, err)
			case c.ok && (use.Count != 7 || use.Copied || use.Verified == d.auth.Options.UserNotVerified || use.Credential.Authenticator.SignCount != 7):
				t.Errorf("%s (found by handle: %v): %+v", name, found, use)
			case c.ok:
				// A copy of it counts on its own.
				u.keys = []webauthn.Credential{*use.Credential}
				if use, err = sign(7); err != nil || !use.Copied {
					t.Errorf("%s (found by handle: %v): the copy: %+v, %v", name, found, use, err)
				}
			}
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	for name, b := range map[string][]byte{"nothing": nil, "too much": []byte(strings.Repeat(" ", party.MaxAnswer) + "{}")} {
		if _, err := party.Parse(b); !errors.Is(err, party.ErrLength) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := party.ParseRegistration(b); !errors.Is(err, party.ErrLength) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
