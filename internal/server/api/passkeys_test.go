package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/descope/virtualwebauthn"

	"latchkey/internal/rest"
	"latchkey/internal/server/desk/desktest"
)

func init() {
	good["begin-own-passkey"] = good["begin-own-totp"]
	good["confirm-own-passkey"] = func(s *scene, c call) []call {
		newcomer := c
		newcomer.name, newcomer.secret = "the first one, with an enrolment code", s.enrolling()
		newcomer.body = s.passkey(newcomer.secret)
		c.body = s.passkey(c.secret)
		return []call{c, newcomer}
	}
	good["remove-own-passkeys"] = called(func(s *scene, c *call) {
		res := s.ask("POST", rest.Base+"/me/passkeys", s.passkey(c.secret), auth(c.secret)...)
		if res.StatusCode != http.StatusCreated {
			s.t.Fatal(res.Status)
		}
	})
}

// passkey begins one and is the body that confirms it.
func (s *scene) passkey(bearer string) string {
	s.t.Helper()
	res := s.ask("POST", rest.Base+"/me/passkeys/begin", "", auth(bearer)...)
	if res.StatusCode != http.StatusOK {
		s.t.Fatal(res.Status)
	}
	var in struct {
		Ticket  string          `json:"ticket"`
		Options json.RawMessage `json:"options"`
	}
	s.must(json.NewDecoder(res.Body).Decode(&in))
	o, err := virtualwebauthn.ParseAttestationOptions(string(in.Options))
	s.must(err)
	at := virtualwebauthn.RelyingParty{ID: "latchkey.test", Origin: desktest.People}
	for {
		// The authenticator drops zeros at the head of a coordinate, which no real one does.
		if k := virtualwebauthn.NewCredential(virtualwebauthn.KeyTypeEC2); len(k.Key.AttestationData()) == 77 {
			return fmt.Sprintf(`{"ticket":%q,"credential":%q,"name":"key"}`, in.Ticket, virtualwebauthn.CreateAttestationResponse(at, virtualwebauthn.NewAuthenticator(), k, *o))
		}
	}
}
