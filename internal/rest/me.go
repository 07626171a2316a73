package rest

import "time"

// ReportPrefix is that of the ids of reports.
const ReportPrefix = "rep_"

// What people should do next for themselves, as Me.Steps names it.
const (
	StepEnrol       = "enrol"                // no second factor at all
	StepBackup      = "backup-codes"         // no backup codes
	StepFewBackup   = "few-backup-codes"     // fewer than 4 are left
	StepSecond      = "second-authenticator" // one app on one phone, and nothing beside
	StepUnconfirmed = "unconfirmed"          // an authenticator whose first code was never given
	StepPassword    = "change-password"      // must be changed
	StepOffline     = "offline-soon"         // offline data of a machine runs out
	StepReports     = "open-reports"         // the help desk still looks after something
	FewBackupCodes  = 4
	ReportSignin    = "signin"
	ReportMachine   = "machine"
	ReportPush      = "push"
	ReportOpen      = "open"
	ReportHandled   = "handled"
	WarnDays        = "days"    // a fifth of the days is left
	WarnSignins     = "signins" // a fifth of the sign-ins
	WarnTries       = "tries"   // a fifth of the tries
	WarnSoftware    = "software"
	OfflineNone     = "none"
)

// Me is what a person sees of himself.
type Me struct {
	ID                string    `json:"id"`
	Name              string    `json:"name"`
	DisplayName       string    `json:"display_name,omitempty"`
	Mail              string    `json:"mail,omitempty"`
	Role              string    `json:"role"`
	HasPassword       bool      `json:"has_password" doc:"The server holds the password, and it can be changed here"`
	MustChange        bool      `json:"must_change" doc:"The password must be changed now"`
	PasswordChangedAt time.Time `json:"password_changed_at,omitzero"`
	Factors           []Factor  `json:"factors" nullable:"false"`
	Authenticators    int       `json:"authenticators" doc:"That can be used now"`
	BackupLeft        int       `json:"backup_left" doc:"Unused backup codes"`
	Machines          int       `json:"machines"`
	Offline           int       `json:"offline" doc:"Machines on which offline sign-in works now"`
	OpenReports       int64     `json:"open_reports"`
	Steps             []string  `json:"steps" nullable:"false" doc:"What to do next, the most important first: change-password, enrol, unconfirmed, backup-codes, few-backup-codes, offline-soon, second-authenticator, open-reports"`
	Contact           string    `json:"contact,omitempty" doc:"Whom to call"`
	Rev               int64     `json:"rev" doc:"The ETag"`
}

// MeChange changes what people may change of themselves; what is left out stays.
type MeChange struct {
	DisplayName *string `json:"display_name,omitempty"`
	Mail        *string `json:"mail,omitempty" doc:"Needs a second factor given a moment ago"`
}

// BeginTOTP asks for a new authenticator of one's own.
type BeginTOTP struct {
	Algorithm string `json:"algorithm,omitempty" doc:"SHA1 (default), SHA256 or SHA512"`
	Digits    int    `json:"digits,omitempty" doc:"6 (default) or 8"`
	Period    int    `json:"period,omitempty" doc:"30 (default) or 60 seconds"`
}

// PendingTOTP is an authenticator that waits for its first code. Nothing is stored
// of it: the ticket holds it, sealed, and is sent back with the code.
type PendingTOTP struct {
	Ticket    Secret    `json:"ticket" doc:"To be sent back with the first code"`
	URI       Secret    `json:"uri" doc:"otpauth URI"`
	Key       Secret    `json:"key" doc:"The key as it is typed: base32"`
	QR        Secret    `json:"qr" doc:"The URI as a QR code of half blocks, for a terminal"`
	Algorithm string    `json:"algorithm"`
	Digits    int       `json:"digits"`
	Period    int       `json:"period"`
	ExpiresAt time.Time `json:"expires_at"`
}

// ConfirmTOTP is the first code of a pending authenticator.
type ConfirmTOTP struct {
	Ticket Secret `json:"ticket"`
	Code   Secret `json:"code"`
	Name   string `json:"name,omitempty" doc:"Of the app or phone"`
}

// FactorChange renames a factor.
type FactorChange struct {
	Name string `json:"name"`
}

// OwnPassword changes one's own password.
type OwnPassword struct {
	Old Secret `json:"old"`
	New Secret `json:"new"`
}

// OwnMachine is a machine as one of its people sees it.
type OwnMachine struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Status       string     `json:"status" doc:"pending, active, revoked or lost"`
	OS           string     `json:"os,omitempty"`
	Mine         bool       `json:"mine" doc:"You are its owner"`
	KnownSince   time.Time  `json:"known_since,omitzero" doc:"Of your first sign-in there"`
	LastSigninAt time.Time  `json:"last_signin_at,omitzero"`
	SeenAt       time.Time  `json:"seen_at,omitzero" doc:"When the machine last spoke to the server"`
	SignedIn     bool       `json:"signed_in" doc:"A window is open: you are not asked again there for a while"`
	Offline      OwnOffline `json:"offline"`
}

// OwnOffline is how far one gets on a machine without the server (O16).
type OwnOffline struct {
	State       string    `json:"state" doc:"none, activating, active, outdated, expired, used up, shut, shut remotely or disenrolling"`
	EnrolledAt  time.Time `json:"enrolled_at,omitzero"`
	Until       time.Time `json:"until,omitzero"`
	DaysLeft    float64   `json:"days_left"`
	SigninsLeft int64     `json:"signins_left" doc:"As far as the machine has told"`
	TriesLeft   int64     `json:"tries_left"`
	Warnings    []string  `json:"warnings,omitempty" doc:"days, signins, tries: a fifth or less is left; software: no TPM protects it"`
}

// OwnSignin is a sign-in as the person sees it.
type OwnSignin struct {
	ID        string    `json:"id"`
	At        time.Time `json:"at"`
	Type      string    `json:"type" doc:"As in docs/events.md"`
	Machine   string    `json:"machine,omitempty" doc:"Absent: a browser"`
	MachineID string    `json:"machine_id,omitempty"`
	Scope     string    `json:"scope,omitempty"`
	Service   string    `json:"service,omitempty"`
	Address   string    `json:"address,omitempty" doc:"Where it came from, as the machine or this server saw it"`
	Offline   bool      `json:"offline" doc:"Judged by the machine, without the server"`
	Allowed   bool      `json:"allowed"`
	Reason    string    `json:"reason,omitempty"`
	Why       string    `json:"why,omitempty" doc:"The reason in words"`
	Factor    string    `json:"factor,omitempty"`
	WrongCode bool      `json:"wrong_code,omitempty" doc:"It came to no end, and a wrong code was given"`
	Report    string    `json:"report,omitempty" doc:"open or handled: you have reported it"`
}

// NewReport says what happened, in one's own words.
type NewReport struct {
	Told string `json:"told,omitempty"`
}

// Reported is what came of a report.
type Reported struct {
	Report     Report   `json:"report"`
	Windows    int      `json:"windows" doc:"Windows that were ended"`
	Sessions   int      `json:"sessions" doc:"Sessions that were ended"`
	Disenroled int      `json:"disenrolled" doc:"Machines whose offline data is wiped at their next contact"`
	Revoked    bool     `json:"revoked" doc:"The machine was yours, and is no longer trusted"`
	Reseed     []Reseed `json:"reseed,omitempty" doc:"Your factors with data on the machine: replace them"`
}

// Report is something that a person has reported.
type Report struct {
	ID        string    `json:"id"`
	User      string    `json:"user"`
	UserID    string    `json:"user_id"`
	Kind      string    `json:"kind" doc:"signin or machine"`
	Event     string    `json:"event,omitempty" doc:"The sign-in that is meant"`
	Machine   string    `json:"machine,omitempty"`
	MachineID string    `json:"machine_id,omitempty"`
	Told      string    `json:"told,omitempty" doc:"In the person's own words"`
	Address   string    `json:"address,omitempty" doc:"From where it was reported"`
	State     string    `json:"state" doc:"open or handled"`
	CreatedAt time.Time `json:"created_at"`
	HandledAt time.Time `json:"handled_at,omitzero"`
	HandledBy string    `json:"handled_by,omitempty"`
	Answer    string    `json:"answer,omitempty" doc:"What was done"`
}

// HandleReport closes a report.
type HandleReport struct {
	Answer string `json:"answer" doc:"What was done; the person sees it"`
}
