package rest

import "time"

// Roles, from the lowest up.
const (
	RoleNone          = "none"          // signs in to machines, no more
	RoleAuditor       = "auditor"       // reads
	RoleHelpDesk      = "helpdesk"      // unlocks, hands out codes, reports machines lost
	RoleAdministrator = "administrator" // everything but roles above and server settings
	RoleOwner         = "owner"         // everything
)

// Roles lists all roles from the lowest up.
var Roles = []string{RoleNone, RoleAuditor, RoleHelpDesk, RoleAdministrator, RoleOwner}

// The 2FA settings of users and groups (P2).
const (
	MFAInherit = "inherit"
	MFAOn      = "on"
	MFAOff     = "off"
)

// MFASettings lists them.
var MFASettings = []string{MFAInherit, MFAOn, MFAOff}

// The ways in which a user becomes active (D1).
const (
	ActivateNow   = "now"
	ActivateFirst = "first-login"
	ActivateAt    = "at"
)

// Activations lists them.
var Activations = []string{ActivateNow, ActivateFirst, ActivateAt}

// The states by which users are chosen.
const (
	UserActive     = "active"     // may sign in
	UserDisabled   = "disabled"   // may not
	UserLocked     = "locked"     // locked out, or must wait
	UserUnenrolled = "unenrolled" // has no authenticator that could be used
	UserWaiting    = "waiting"    // becomes active later: at a time, or at the first sign-in
)

// UserStates lists them.
var UserStates = []string{UserActive, UserDisabled, UserLocked, UserUnenrolled, UserWaiting}

// User is an account.
type User struct {
	ID                string    `json:"id"`
	Name              string    `json:"name" doc:"Exactly as it must be typed; upper and lower case matter"`
	DisplayName       string    `json:"display_name,omitempty"`
	Mail              string    `json:"mail,omitempty"`
	Role              string    `json:"role" doc:"none, auditor, helpdesk, administrator or owner"`
	MFA               string    `json:"mfa" doc:"inherit, on or off"`
	MFAEffective      bool      `json:"mfa_effective" doc:"Whether 2FA is on for the user, after the groups' settings"`
	MFAWhy            string    `json:"mfa_why" doc:"Who says so"`
	Disabled          bool      `json:"disabled"`
	Activation        string    `json:"activation" doc:"now, first-login or at"`
	ActivateAt        time.Time `json:"activate_at,omitzero"`
	ActivatedAt       time.Time `json:"activated_at,omitzero"`
	MustChange        bool      `json:"must_change" doc:"The password must be changed at the next sign-in"`
	HasPassword       bool      `json:"has_password"`
	PasswordChangedAt time.Time `json:"password_changed_at,omitzero"`
	UID               *int64    `json:"uid,omitempty" doc:"Account number on the machines, where it is known"`
	Groups            []string  `json:"groups" nullable:"false" doc:"Names of the groups"`
	Factors           []string  `json:"factors" nullable:"false" doc:"Kinds of factors that can be used now"`
	Locks             []Lock    `json:"locks,omitempty" doc:"Where the user is locked out or must wait"`
	CreatedAt         time.Time `json:"created_at"`
	UpdatedAt         time.Time `json:"updated_at"`
	Rev               int64     `json:"rev" doc:"The ETag"`
}

// Lock is a pause or lock-out of a user (S10).
type Lock struct {
	User         string    `json:"user"`
	UserID       string    `json:"user_id"`
	Machine      string    `json:"machine,omitempty" doc:"Absent: across machines"`
	MachineID    string    `json:"machine_id,omitempty"`
	Failures     int64     `json:"failures"`
	BlockedUntil time.Time `json:"blocked_until,omitzero" doc:"No attempt is judged before"`
	LockedUntil  time.Time `json:"locked_until,omitzero"`
}

// NewUser makes an account. Without a password nobody can sign in yet where the
// server judges the password.
type NewUser struct {
	Name        string    `json:"name"`
	DisplayName string    `json:"display_name,omitempty"`
	Mail        string    `json:"mail,omitempty"`
	Role        string    `json:"role,omitempty"`
	MFA         string    `json:"mfa,omitempty"`
	Activation  string    `json:"activation,omitempty"`
	ActivateAt  time.Time `json:"activate_at,omitzero"`
	MustChange  bool      `json:"must_change,omitempty"`
	Password    Secret    `json:"password,omitzero"`
	UID         *int64    `json:"uid,omitempty"`
	Groups      []string  `json:"groups,omitempty"`
}

// UserChange changes an account; what is left out stays.
type UserChange struct {
	DisplayName *string    `json:"display_name,omitempty"`
	Mail        *string    `json:"mail,omitempty"`
	Role        *string    `json:"role,omitempty"`
	MFA         *string    `json:"mfa,omitempty"`
	Activation  *string    `json:"activation,omitempty"`
	ActivateAt  *time.Time `json:"activate_at,omitempty"`
	MustChange  *bool      `json:"must_change,omitempty"`
	Disabled    *bool      `json:"disabled,omitempty"`
	UID         *int64     `json:"uid,omitempty" doc:"-1 forgets it"`
}

// NewPassword sets a password.
type NewPassword struct {
	Password   Secret `json:"password"`
	MustChange bool   `json:"must_change,omitempty" doc:"It must be changed at the next sign-in"`
}

// Code is a one-time code, shown once.
type Code struct {
	ID        string    `json:"id"`
	User      string    `json:"user"`
	Code      Secret    `json:"code,omitzero" doc:"Absent if it was mailed"`
	MailedTo  string    `json:"mailed_to,omitempty" doc:"The address that it was sent to, masked"`
	ExpiresAt time.Time `json:"expires_at"`
	Scope     string    `json:"scope,omitempty" doc:"Only for this scope; absent: any"`
}

// NewEnrolCode asks for an enrolment code (E1).
type NewEnrolCode struct {
	ValidFor string `json:"valid_for,omitempty" doc:"Duration such as 24h (default), 1m to 168h"`
	Mail     bool   `json:"mail,omitempty" doc:"Send it to the user's mail address instead of showing it"`
}

// NewBypassCode asks for a bypass code (E3).
type NewBypassCode struct {
	Reason   string `json:"reason" doc:"Why; it stands in the event"`
	Scope    string `json:"scope,omitempty" doc:"logon, elevation or remote; absent: any"`
	ValidFor string `json:"valid_for,omitempty" doc:"Duration such as 1h (default), 1m to 24h"`
}

// Group is a group of users.
type Group struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	MFA       string    `json:"mfa" doc:"inherit, on or off"`
	Members   int64     `json:"members"`
	Policies  []string  `json:"policies,omitempty" doc:"Names of the policies that belong to it; only where one group is shown"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	Rev       int64     `json:"rev" doc:"The ETag"`
}

// NewGroup makes a group.
type NewGroup struct {
	Name string `json:"name"`
	MFA  string `json:"mfa,omitempty"`
}

// GroupChange changes a group; what is left out stays.
type GroupChange struct {
	Name *string `json:"name,omitempty"`
	MFA  *string `json:"mfa,omitempty"`
}

// Factor is an authenticator, or a set of backup codes.
type Factor struct {
	ID          string    `json:"id"`
	Kind        string    `json:"kind" doc:"fido2, push, totp, mail, sms, backup, bypass or enrol"`
	Name        string    `json:"name,omitempty"`
	To          string    `json:"to,omitempty" doc:"Where codes go, masked"`
	Weak        bool      `json:"weak,omitempty" doc:"It can be had without what the person holds: from a mailbox or a telephone network"`
	State       string    `json:"state" doc:"usable, unconfirmed, locked, lost or used up"`
	Algorithm   string    `json:"algorithm,omitempty"`
	Digits      int       `json:"digits,omitempty"`
	Period      int       `json:"period,omitempty" doc:"Seconds"`
	Left        *int      `json:"left,omitempty" doc:"Unused codes of the set"`
	Scope       string    `json:"scope,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	ConfirmedAt time.Time `json:"confirmed_at,omitzero"`
	LastUsedAt  time.Time `json:"last_used_at,omitzero"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
	On          string    `json:"on,omitempty" doc:"Id of the phone that it lies on, and goes with"`
	Phone       *Phone    `json:"phone,omitempty"`
	Passkey     *Passkey  `json:"passkey,omitempty"`
}

// NewTOTP enrols an authenticator app (M1).
type NewTOTP struct {
	Name             string `json:"name,omitempty"`
	Algorithm        string `json:"algorithm,omitempty" doc:"SHA1 (default), SHA256 or SHA512"`
	Digits           int    `json:"digits,omitempty" doc:"6 (default) or 8"`
	Period           int    `json:"period,omitempty" doc:"30 (default) or 60 seconds"`
	RequireFirstCode bool   `json:"require_first_code,omitempty" doc:"Usable only after its first code was given at a sign-in"`
}

// TOTP is a new authenticator with its key, shown once.
type TOTP struct {
	Factor
	User string `json:"user"`
	URI  Secret `json:"uri" doc:"otpauth URI"`
	Key  Secret `json:"key" doc:"The key as it is typed: base32"`
	QR   Secret `json:"qr" doc:"The URI as a QR code of half blocks, for a terminal"`
}

// BackupCodes is a new set of backup codes, shown once (M5).
type BackupCodes struct {
	ID    string   `json:"id"`
	User  string   `json:"user"`
	Codes []Secret `json:"codes" nullable:"false"`
}
