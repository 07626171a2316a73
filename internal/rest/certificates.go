package rest

import "time"

// The states of a certificate.
const (
	CertificateGood    = "good"
	CertificateExpired = "expired"
	CertificateRevoked = "revoked"
)

// Certificate is one that this server's CA has issued to a user or a machine.
type Certificate struct {
	Serial      string    `json:"serial" doc:"Serial number in hexadecimal; it names the certificate"`
	Kind        string    `json:"kind" doc:"user or machine"`
	State       string    `json:"state" doc:"good, expired or revoked"`
	Name        string    `json:"name,omitempty" doc:"As its owner calls it"`
	User        string    `json:"user,omitempty"`
	UserID      string    `json:"user_id,omitempty"`
	Machine     string    `json:"machine,omitempty" doc:"The machine, or for a user's the one that the key was made on"`
	MachineID   string    `json:"machine_id,omitempty"`
	Key         string    `json:"key,omitempty" doc:"Where the key was made: tpm, file (both by the agent of the machine), or request (the user's own request)"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	RevokedAt   time.Time `json:"revoked_at,omitzero"`
	Reason      string    `json:"reason,omitempty" doc:"Why it was revoked"`
	Print       string    `json:"sha256" doc:"Fingerprint of the certificate"`
	LastUsedAt  time.Time `json:"last_used_at,omitzero"`
	LastAddress string    `json:"last_address,omitempty"`
	PEM         string    `json:"pem,omitempty" doc:"The certificate; given once, when it is issued: the server keeps its fingerprint"`
	CA          string    `json:"ca,omitempty" doc:"The certificate of the CA beside it"`
}

// NewCertificate asks for a certificate of one's own.
type NewCertificate struct {
	Request string `json:"request" maxLength:"16384" doc:"PKCS#10 request in PEM. Nothing of it goes into the certificate but the key: ECDSA on P-256 or P-384, or RSA of 2048 to 4096 bits"`
	Name    string `json:"name,omitempty" maxLength:"256" doc:"What to call it, for example the browser or machine that it is for"`
}

// RevokeCertificate says why.
type RevokeCertificate struct {
	Reason string `json:"reason,omitempty" doc:"unspecified (the default), key-compromise, replaced or cessation"`
}

// CertificateSettings say what users' certificates may do.
type CertificateSettings struct {
	Use  string `json:"use" doc:"off: none are issued, and none opens anything; portal: they open the portal and the API for oneself; console: and the console, for who has a role"`
	Life string `json:"life" doc:"How long a new certificate lasts, for example 720h"`
}

// CertificateSettingsChange changes them; what is left out stays.
type CertificateSettingsChange struct {
	Use  *string `json:"use,omitempty"`
	Life *string `json:"life,omitempty"`
}
