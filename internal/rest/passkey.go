package rest

import (
	"encoding/json"
	"time"
)

// Passkey is what a passkey or security key says of itself.
type Passkey struct {
	Model        string    `json:"model,omitempty" doc:"Guessed from the AAGUID"`
	AAGUID       string    `json:"aaguid"`
	Host         string    `json:"host" doc:"To which it is bound: it is of use under this address alone"`
	Verifies     bool      `json:"verifies" doc:"It has verified who holds it: by PIN, finger or face"`
	Synced       bool      `json:"synced" doc:"It may exist on several devices (backup eligible)"`
	BackedUp     bool      `json:"backed_up" doc:"It does, as it said when it was used last"`
	Discoverable bool      `json:"discoverable" doc:"It signs in without a name and a password"`
	Transports   []string  `json:"transports,omitempty"`
	Attestation  string    `json:"attestation,omitempty" doc:"Format of its attestation; none: it said nothing"`
	ClonedAt     time.Time `json:"cloned_at,omitzero" doc:"Its counter went backwards then: there may be a copy, and it is no longer accepted"`
}

// PendingPasskey is a registration that waits for the browser.
type PendingPasskey struct {
	Ticket    Secret          `json:"ticket" doc:"Sent back with the answer"`
	Options   json.RawMessage `json:"options" doc:"PublicKeyCredentialCreationOptionsJSON (WebAuthn)"`
	ExpiresAt time.Time       `json:"expires_at"`
}

// ConfirmPasskey is what the browser has answered.
type ConfirmPasskey struct {
	Ticket     Secret `json:"ticket" doc:"What the beginning has given"`
	Credential Secret `json:"credential" doc:"RegistrationResponseJSON (WebAuthn), as a text"`
	Name       string `json:"name,omitempty" doc:"As you call it; absent: guessed from the model"`
}
