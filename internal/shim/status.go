package shim

import (
	"time"

	"latchkey/internal/health"
	"latchkey/internal/policy"
)

// MachineStatus is the answer to [Status]: JSON in one tell. Times are RFC 3339 here and
// unix microseconds inside "offline".
type MachineStatus struct {
	Link       string         `json:"link"` // up, down or refused
	Reason     string         `json:"reason,omitempty"`
	Text       string         `json:"text,omitempty"`
	Since      time.Time      `json:"since"`
	LastAnswer time.Time      `json:"last_answer,omitzero"`
	Machine    string         `json:"machine"`
	MachineID  string         `json:"machine_id"`
	Number     int64          `json:"number"`
	Server     string         `json:"server"`
	Standing   string         `json:"machine_status,omitempty"` // pending, active, …, as the policy on the disk says
	ServerSays string         `json:"server_says,omitempty"`    // why it does not welcome the machine
	Version    string         `json:"version"`
	ServerIs   string         `json:"server_version,omitempty"`
	Class      string         `json:"class"` // tpm or software
	KeyInTPM   bool           `json:"key_in_tpm"`
	Until      time.Time      `json:"certificate_until"`
	Health     []health.State `json:"health"`
	Offline    Offline        `json:"offline"`
	More       int            `json:"more,omitempty"` // users that did not fit
}

// Offline is what is told of offline sign-in.
type Offline struct {
	Class         string        `json:"class"`
	Problem       policy.Reason `json:"problem,omitempty"`
	Detail        string        `json:"detail,omitempty"`
	PolicySerial  int64         `json:"policy_serial"`
	PolicyIssued  time.Time     `json:"policy_issued,omitzero"`
	PolicyProblem policy.Reason `json:"policy_problem,omitempty"`
	Undelivered   int           `json:"undelivered"` // journal entries
	ClockBehind   bool          `json:"clock_behind,omitempty"`
	Refused       string        `json:"refused,omitempty"`
	Users         []OfflineUser `json:"users"`
}

// OfflineUser is one user's part of it.
type OfflineUser struct {
	User       string        `json:"user"`
	Enrolled   bool          `json:"enrolled"`
	Class      string        `json:"class,omitempty"`
	Generation uint64        `json:"generation,omitempty"`
	EnrolledAt time.Time     `json:"enrolled_at,omitzero"`
	Until      time.Time     `json:"until,omitzero"`
	Left       Left          `json:"left,omitzero"`
	Problem    policy.Reason `json:"problem,omitempty"`
}

// Left is what is left until the machine must meet the server again.
type Left struct {
	Days    int  `json:"days"`
	Signins int  `json:"signins"`
	Tries   int  `json:"tries"`
	Checks  int  `json:"checks"`
	Warn    bool `json:"warn"` // a fifth or less is left of one of them (O6)
}
