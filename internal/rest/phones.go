package rest

import "time"

// Bodies about phones with Latchkey Authenticator (M3).

// PhoneCode enrols one phone: its owner opens the link there, or scans the QR code.
type PhoneCode struct {
	ID        string    `json:"id"`
	User      string    `json:"user"`
	Link      Secret    `json:"link" doc:"To be opened on the phone; one time"`
	QR        Secret    `json:"qr" doc:"The link as a QR code of half blocks, for a terminal"`
	ExpiresAt time.Time `json:"expires_at"`
}

// PhoneCodePrefix begins the ids of such codes.
const PhoneCodePrefix = "pho_"

// The states of a code.
const (
	PhoneWaiting = "waiting"
	PhoneDone    = "done"
	PhoneOver    = "over"
)

// PhoneProgress is what has become of a code.
type PhoneProgress struct {
	ID     string  `json:"id"`
	State  string  `json:"state" doc:"waiting, done or over"`
	Factor *Factor `json:"factor,omitempty" doc:"The phone, when it is done"`
}

// Phone is what a factor of kind push has beside.
type Phone struct {
	Platform   string    `json:"platform,omitempty" doc:"Android, iOS or desktop"`
	Installed  bool      `json:"installed" doc:"The app was installed before it was enrolled"`
	Notified   bool      `json:"notified" doc:"A push service tells it to look; else it looks by itself while it is open"`
	Verifies   bool      `json:"verifies" doc:"Its own authenticator proves who holds it"`
	LastSeenAt time.Time `json:"last_seen_at,omitzero"`
}
