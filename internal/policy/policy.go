// Package policy decides who must prove what, where. Decide is a pure function
// over plain values: no I/O, no clock, no goroutines. The server calls it while
// the machine is connected, the agent calls it over the signed policy file when
// it is not; both store the same trace.
//
// Rows S3-S5, W5, O2-O6, P1-P3, P6 and E4 of the behaviour live here.
package policy

import (
	"net/netip"
	"strings"
	"time"
)

// Scope is what is being opened.
type Scope string

// The scopes. The words are stored and travel on the wire.
const (
	Logon     Scope = "logon"     // console, graphical sign-in, unlock
	Elevation Scope = "elevation" // sudo, su, polkit, UAC
	Remote    Scope = "remote"    // sshd, RDP server
)

// Scopes lists all scopes in the order in which people read them.
var Scopes = []Scope{Logon, Elevation, Remote}

// Factor is a kind of second factor.
type Factor string

// The kinds of factors, strongest first.
const (
	FIDO2  Factor = "fido2" // a security key or passkey; at a machine: at a local seat only (M2)
	Push   Factor = "push"  // approved in Latchkey Authenticator, with number matching (M3)
	TOTP   Factor = "totp"
	Backup Factor = "backup"
	Mail   Factor = "mail"   // a code by mail (M6): weak, and off by default
	SMS    Factor = "sms"    // a code to a phone (M6): weak, and off by default
	Bypass Factor = "bypass" // an administrator's one-time code (E3); never chosen by a policy
)

// Kinds lists every kind that a policy may name, strongest first.
var Kinds = []Factor{FIDO2, Push, TOTP, Backup, Mail, SMS}

// OfflineKinds lists the kinds that a machine can judge alone.
var OfflineKinds = []Factor{FIDO2, TOTP, Backup}

// Weak tells whether a kind can be had without what the person holds: from a mailbox,
// or from a telephone network.
func (f Factor) Weak() bool { return f == Mail || f == SMS }

// Offline says what happens when the server can not be reached (O2).
type Offline string

// The offline behaviours.
const (
	OfflineMFA         Offline = "mfa"           // offline MFA if enrolled, else deny
	OfflineMFAOrBypass Offline = "mfa_or_bypass" // offline MFA if enrolled, else the first factor alone
	OfflineBypass      Offline = "bypass"        // the first factor alone; the machine's own check decides
	OfflineDeny        Offline = "deny"
)

// Enrol says how a machine is enrolled for offline sign-in (O4).
type Enrol string

// The ways to enrol.
const (
	EnrolAuto Enrol = "auto"
	EnrolAsk  Enrol = "ask"
	EnrolOff  Enrol = "off"
)

// WindowEnd names something that ends the MFA window early (W6).
type WindowEnd string

// The occasions that may end a window.
const (
	EndLogoff  WindowEnd = "logoff"
	EndReboot  WindowEnd = "reboot"
	EndNetwork WindowEnd = "network"
	EndOffline WindowEnd = "offline-signin"
)

// Policy is the list of everything a policy sets (P1). Its JSON form is what the
// store keeps, the API shows and the signed policy file carries.
type Policy struct {
	ID       string   `json:"id,omitempty"`
	Name     string   `json:"name,omitempty"`
	Priority int64    `json:"priority,omitempty"` // the smallest number wins
	Default  bool     `json:"default,omitempty"`  // applies to whom no other policy applies
	Groups   []string `json:"groups,omitempty"`   // ids of the groups it belongs to
	Version  int64    `json:"version,omitempty"`

	Scopes         []Scope  `json:"scopes"`          // in which MFA is asked
	FactorsOnline  int      `json:"factors_online"`  // beside the password, 0-3
	FactorsOffline int      `json:"factors_offline"` // beside the password, 0-3
	OnlineFactors  []Factor `json:"online_factors"`  // accepted kinds, preferred first
	OfflineFactors []Factor `json:"offline_factors"` // accepted kinds, preferred first

	// KeyVerification wants a PIN or a finger of security keys at machines, PushVerification
	// the phone's own check of approvals; without them a touch or a tap is enough.
	KeyVerification  bool `json:"key_verification"`
	PushVerification bool `json:"push_verification"`

	Offline        Offline `json:"offline"`
	OfflineEnrol   Enrol   `json:"offline_enrol"`
	OfflineDays    int     `json:"offline_days"`    // since the last online MFA, 1-60
	OfflineSignins int     `json:"offline_signins"` // between two online MFAs, 1-10000
	OfflineTries   int     `json:"offline_tries"`   // wrong ones since the last success, 1-100
	SoftwareVault  bool    `json:"software_vault"`  // offline MFA also on machines without a TPM

	Window               Duration    `json:"window"`                 // W1; 0 = always ask; at most 7 days
	WindowSilences       []Scope     `json:"window_silences"`        // W5
	WindowEndsOn         []WindowEnd `json:"window_ends_on"`         // W6
	ForceDisconnectAfter Duration    `json:"force_disconnect_after"` // W4; 0 = off

	ExemptUIDs []uint32 `json:"exempt_uids"` // S4, by number, not by text
	ExemptSIDs []string `json:"exempt_sids"` // S4, Windows

	TrustedNetworks []netip.Prefix `json:"trusted_networks"` // P6
	TrustedScopes   []Scope        `json:"trusted_scopes"`   // P6: scopes that a trusted network relaxes

	BackoffAfter int      `json:"backoff_after"` // S10: wrong codes before a pause is demanded
	LockoutAfter int      `json:"lockout_after"` // S10: wrong codes before the lock-out
	LockoutFor   Duration `json:"lockout_for"`   // S10

	EnrolAtSignin bool `json:"enrol_at_signin"` // E1
	EnrolRemote   bool `json:"enrol_remote"`    // E1, also over ssh

	// ReportOnly: the policy decides nothing; what it would have decided is noted with
	// every sign-in that it would have applied to (P5). Machines never get it.
	ReportOnly bool `json:"report_only"`
}

// Duration is a time.Duration that is text ("8h") in JSON.
type Duration time.Duration

// NewPolicy gives the defaults of every setting.
func NewPolicy() Policy {
	return Policy{
		Scopes:         []Scope{Logon, Elevation, Remote},
		FactorsOnline:  1,
		FactorsOffline: 1,
		OnlineFactors:  []Factor{FIDO2, Push, TOTP, Backup},
		OfflineFactors: []Factor{FIDO2, TOTP, Backup},
		Offline:        OfflineMFA,
		OfflineEnrol:   EnrolAuto,
		OfflineDays:    7,
		OfflineSignins: 50,
		OfflineTries:   10,
		SoftwareVault:  true,
		Window:         Duration(8 * time.Hour),
		WindowSilences: []Scope{Logon},
		TrustedScopes:  []Scope{Logon, Elevation},
		BackoffAfter:   3,
		LockoutAfter:   10,
		LockoutFor:     Duration(15 * time.Minute),
	}
}

// Link is what the agent knows of its connection to the server (O1).
type Link string

// The states of the link.
const (
	LinkUp      Link = "up"
	LinkDown    Link = "down"
	LinkRefused Link = "refused" // the pinned server signed that this machine is refused
)

// First says who judged the first factor.
type First string

// The judges of the first factor.
const (
	FirstNone    First = ""        // nobody yet
	FirstServer  First = "server"  // the server, against its directory
	FirstMachine First = "machine" // the machine's own sign-in (pam_unix, Windows)
	FirstSSHKey  First = "sshkey"  // sshd, by public key
)

// FirstResult is the verdict on the first factor.
type FirstResult string

// The verdicts. The zero value is pending.
const (
	FirstPending  FirstResult = ""
	FirstAccepted FirstResult = "accepted"
	FirstRejected FirstResult = "rejected"
)

// Request is one attempt to sign in.
type Request struct {
	User        string     `json:"user"`
	UID         *uint32    `json:"uid,omitempty"` // of User on this machine, if it exists there
	SID         string     `json:"sid,omitempty"` // Windows
	Scope       Scope      `json:"scope"`
	Service     string     `json:"service"`
	At          time.Time  `json:"at"`
	Link        Link       `json:"link"`
	First       First      `json:"first,omitempty"`
	Peer        netip.Addr `json:"peer,omitempty"`         // that sshd saw, for remote and for elevation inside a remote session
	RemoteSeat  bool       `json:"remote_seat,omitempty"`  // the request comes from a remote session, known peer or not
	Host        string     `json:"host,omitempty"`         // remote host that the program or the session named, whatever it is
	MachineAddr netip.Addr `json:"machine_addr,omitempty"` // of the machine's TLS connection; set by the server alone
	Boot        string     `json:"boot,omitempty"`         // the machine's present boot
	Cannot      []Factor   `json:"cannot,omitempty"`       // kinds that can not be asked for at this seat, whoever has them
}

// Elsewhere tells whether what a program names as the remote host is one: nothing is
// none, and neither is the number of a display (":0", ":0.0"), which some screens write
// there. Everything else is, also a name or an address of the machine itself: that is
// where forwarded ports, proxies and forged reverse names come from.
func Elsewhere(host string) bool {
	display, ok := strings.CutPrefix(host, ":")
	if !ok {
		return host != ""
	}
	number, screen, two := strings.Cut(display, ".")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	return !digits(number) || two && !digits(screen)
}

// afar tells whether the person is not at the machine, by whichever of the words for it.
func (r Request) afar() bool { return r.Scope == Remote || r.RemoteSeat || Elsewhere(r.Host) }

// scopes are those by which a request is judged. Whoever sends a host with a logon may
// have taken for one what was none: it is a logon and remote at once, covered where one of
// the two is, and relaxed only where both are.
func (r Request) scopes() []Scope {
	if r.Scope == Logon && Elsewhere(r.Host) {
		return []Scope{Logon, Remote}
	}
	return []Scope{r.Scope}
}

// User is what is known of the account.
type User struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Disabled    bool      `json:"disabled,omitempty"`
	NotYet      bool      `json:"not_yet,omitempty"` // activation lies in the future (D1)
	LockedUntil time.Time `json:"locked_until,omitzero"`
	MFA         Switch    `json:"mfa,omitempty"`
	Groups      []Group   `json:"groups,omitempty"`
	Factors     []Factor  `json:"factors,omitempty"` // enrolled and usable now; Bypass if a live code exists
	MustChange  bool      `json:"must_change,omitempty"`
	Generation  int64     `json:"generation,omitempty"` // rises with password and authenticators; an older vault is refused
}

// Switch is the 2FA setting of a user or group (P2).
type Switch string

// The settings. The zero value inherits.
const (
	Inherit Switch = ""
	On      Switch = "on"
	Off     Switch = "off"
)

// Group is a group of the user.
type Group struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	MFA  Switch `json:"mfa,omitempty"`
}

// Mode is a machine's own setting (P3).
type Mode string

// The modes of a machine.
const (
	Normal   Mode = "normal"
	Enforced Mode = "enforced" // wins over every user setting, also when the server is down
	Exempt   Mode = "exempt"
)

// Machine is what is known of the machine.
type Machine struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Status       string `json:"status"` // pending, active, revoked, lost
	Mode         Mode   `json:"mode"`
	SkipUnknown  bool   `json:"skip_unknown,omitempty"` // unknown_users = skip (S5)
	OnlyAssigned bool   `json:"only_assigned,omitempty"`
}

// Window is a window that the server has on record for the user and machine (W5).
type Window struct {
	Boot    string    `json:"boot"`
	Opened  time.Time `json:"opened"`
	Expires time.Time `json:"expires"`
	Factors []Factor  `json:"factors"` // with which it was opened
}

// Vault is what the machine holds for this user's offline sign-in.
type Vault struct {
	Class       string    `json:"class"` // tpm or software
	Factors     []Factor  `json:"factors"`
	Until       time.Time `json:"until"`        // last online MFA + OfflineDays
	SigninsLeft int       `json:"signins_left"` // of OfflineSignins
	TriesLeft   int       `json:"tries_left"`   // of OfflineTries
	RemoteTries int       `json:"remote_tries"` // left for remote and unprivileged callers
	Stale       bool      `json:"stale"`        // made for an older generation of the user
}

// Facts is everything a decision depends on beside the request.
type Facts struct {
	User        *User       `json:"user,omitempty"` // nil: no user has exactly this name
	NearMiss    bool        `json:"near_miss"`      // a user matches only by case folding, uid or SID
	Assigned    bool        `json:"assigned"`       // the user is assigned to the machine (E4)
	FirstResult FirstResult `json:"first_result,omitempty"`
	Machine     Machine     `json:"machine"`
	Policies    []Policy    `json:"policies"` // all of them; Decide chooses
	Window      *Window     `json:"window,omitempty"`
	Vault       *Vault      `json:"vault,omitempty"`
	// VaultProblem says why there is no usable vault although there was or should
	// be one: a Reason of the offline family, or empty.
	VaultProblem Reason `json:"vault_problem,omitempty"`
	// PolicyProblem says, offline, why the signed policy file can not be used: a
	// Reason, or empty.
	PolicyProblem Reason `json:"policy_problem,omitempty"`
}

// Outcome is what is to be done.
type Outcome string

// The outcomes. The zero value is Deny.
const (
	Deny       Outcome = "deny"
	Allow      Outcome = "allow"       // the first factor was accepted and nothing more is asked
	Ignore     Outcome = "ignore"      // the machine's own check decides alone
	AskFirst   Outcome = "ask-first"   // the first factor has not been given yet
	MFA        Outcome = "mfa"         // Count factors of Factors, judged by the server
	MFAOffline Outcome = "mfa-offline" // password and Count factors of Factors, judged by the vault
	EnrolFirst Outcome = "enrol"       // a factor must be enrolled now, behind an enrolment code (E1)
)

// Reason is a stable code, stored with the event.
type Reason string

// The reasons.
const (
	ReasonRefused         Reason = "machine-refused"
	ReasonMachineStatus   Reason = "machine-not-active"
	ReasonPolicyAbsent    Reason = "offline-policy-absent"
	ReasonPolicyOlder     Reason = "offline-policy-older"
	ReasonPolicyExpired   Reason = "offline-policy-expired"
	ReasonPolicyForeign   Reason = "offline-policy-foreign"
	ReasonNotAssigned     Reason = "user-not-assigned"
	ReasonExemptAccount   Reason = "account-exempt"
	ReasonNearMiss        Reason = "name-differs"
	ReasonUnknownDenied   Reason = "user-unknown"
	ReasonUnknownSkipped  Reason = "user-unknown-skipped"
	ReasonDisabled        Reason = "user-disabled"
	ReasonNotYet          Reason = "user-not-active-yet"
	ReasonLocked          Reason = "locked-out"
	ReasonFirstRejected   Reason = "first-factor-rejected"
	ReasonFirstPending    Reason = "first-factor-pending"
	ReasonMachineExempt   Reason = "machine-exempt"
	ReasonTwoFactorOff    Reason = "2fa-off"
	ReasonNoFactors       Reason = "no-factors-asked"
	ReasonScope           Reason = "scope-not-covered"
	ReasonTrusted         Reason = "trusted-network"
	ReasonWindow          Reason = "window-valid"
	ReasonMFA             Reason = "mfa-required"
	ReasonEnrol           Reason = "enrolment-required"
	ReasonNotEnrolled     Reason = "not-enrolled"
	ReasonOfflineDeny     Reason = "offline-denied"
	ReasonOfflineBypass   Reason = "offline-bypass"
	ReasonOfflineMFA      Reason = "offline-mfa-required"
	ReasonNoVault         Reason = "offline-not-enrolled"
	ReasonNoVaultBypass   Reason = "offline-not-enrolled-bypass"
	ReasonVaultStale      Reason = "offline-data-outdated"
	ReasonVaultSoftware   Reason = "offline-software-refused"
	ReasonVaultDays       Reason = "offline-days-used-up"
	ReasonVaultSignins    Reason = "offline-signins-used-up"
	ReasonVaultTries      Reason = "offline-tries-used-up"
	ReasonVaultRemote     Reason = "offline-remote-tries-used-up"
	ReasonVaultFactor     Reason = "offline-no-factor"
	ReasonVaultRolledBack Reason = "offline-state-restored"
	ReasonVaultDamaged    Reason = "offline-state-damaged"
	ReasonVaultUnfinished Reason = "offline-data-unfinished"
	ReasonVaultNewer      Reason = "offline-state-newer"
	ReasonVaultForeign    Reason = "offline-state-foreign"
	ReasonVaultUnread     Reason = "offline-state-unreadable"
	ReasonStateWrite      Reason = "state-not-writable"
	ReasonJournalFull     Reason = "journal-full"
	ReasonTPMCleared      Reason = "tpm-cleared"
	ReasonTPMLocked       Reason = "tpm-locked"
	ReasonTPMGone         Reason = "tpm-gone"
	ReasonTPMReplaced     Reason = "tpm-index-replaced"
	ReasonTPMBusy         Reason = "tpm-busy"
	ReasonTPMBoot         Reason = "tpm-boot-changed"
	ReasonTPMNoRoom       Reason = "tpm-no-room"
	ReasonNoPolicy        Reason = "no-policy"
	ReasonBadRequest      Reason = "bad-request"
)

// Step is one rule that was looked at.
type Step struct {
	Rule    string `json:"rule"`    // row of the behaviour and name of the rule
	Verdict string `json:"verdict"` // applied or passed
	Why     string `json:"why"`
}

// The verdicts of a Step.
const (
	Applied = "applied" // the rule decided
	Passed  = "passed"  // the rule was looked at and did not decide
)

// Decision is the result, with all the caller needs to carry it out.
type Decision struct {
	Outcome Outcome  `json:"outcome"`
	Reason  Reason   `json:"reason"`
	Policy  string   `json:"policy,omitempty"` // name of the policy that applied
	Factors []Factor `json:"factors,omitempty"`
	Count   int      `json:"count,omitempty"`
	Trace   []Step   `json:"trace"`

	applied *Policy
}

// Applied is the policy that was chosen; the defaults if none was.
func (d Decision) Applied() Policy {
	if d.applied == nil {
		return NewPolicy()
	}
	return *d.applied
}
