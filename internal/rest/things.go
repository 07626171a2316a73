package rest

import (
	"encoding/json"
	"time"

	"latchkey/internal/policy"
)

// Policy is a policy with its settings (P1).
type Policy struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Priority  int64           `json:"priority" doc:"The smallest number wins"`
	Default   bool            `json:"default" doc:"Applies to whom no other policy applies"`
	Groups    []string        `json:"groups" nullable:"false" doc:"Names of the groups it belongs to"`
	Version   int64           `json:"version"`
	Settings  json.RawMessage `json:"settings" doc:"Every setting; see docs/administrators.md"`
	Warnings  []string        `json:"warnings,omitempty" doc:"What is allowed but weakens something (P1, P4)"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
	Rev       int64           `json:"rev" doc:"The ETag"`
}

// NewPolicy makes a policy. Settings that are left out have their defaults.
type NewPolicy struct {
	Name     string          `json:"name"`
	Priority *int64          `json:"priority,omitempty" doc:"The smallest number wins; default 100"`
	Groups   []string        `json:"groups,omitempty"`
	Settings json.RawMessage `json:"settings,omitempty"`
	Comment  string          `json:"comment,omitempty" doc:"Why; it stands in the history"`
	ShutOut  int64           `json:"shut_out,omitempty" minimum:"0" doc:"Accept that it shuts out so many people at most, who could sign in until now; more refuse it with the fault shuts-out, whose about says whom"`
}

// PolicyChange changes a policy; what is left out stays, also inside of
// settings.
type PolicyChange struct {
	Name     *string         `json:"name,omitempty"`
	Priority *int64          `json:"priority,omitempty"`
	Groups   *[]string       `json:"groups,omitempty" doc:"Names of all groups that it shall belong to"`
	Settings json.RawMessage `json:"settings,omitempty"`
	Comment  string          `json:"comment,omitempty" doc:"Why; it stands in the history"`
	ShutOut  int64           `json:"shut_out,omitempty" minimum:"0" doc:"Accept that it shuts out so many people at most, who could sign in until now; more refuse it with the fault shuts-out, whose about says whom"`
}

// PolicyVersion is one step of a policy's history (P5).
type PolicyVersion struct {
	Version  int64           `json:"version"`
	Name     string          `json:"name"`
	Priority int64           `json:"priority"`
	Groups   []string        `json:"groups" nullable:"false"`
	Actor    string          `json:"actor"`
	At       time.Time       `json:"at"`
	Comment  string          `json:"comment,omitempty"`
	Settings json.RawMessage `json:"settings"`
	Changes  []Difference    `json:"changes" nullable:"false" doc:"Against the version before"`
}

// Difference is one setting that changed.
type Difference struct {
	Field string          `json:"field"`
	Old   json.RawMessage `json:"old,omitempty"`
	New   json.RawMessage `json:"new,omitempty"`
}

// Rollback brings an older version back, as a new version.
type Rollback struct {
	Version int64  `json:"version"`
	Comment string `json:"comment,omitempty"`
	ShutOut int64  `json:"shut_out,omitempty" minimum:"0" doc:"Accept that it shuts out so many people at most, as in a change"`
}

// The states of a machine.
const (
	MachinePending = "pending" // joined by a mass token, waits for approval
	MachineActive  = "active"
	MachineRevoked = "revoked"
	MachineLost    = "lost"
)

// The links of a machine as the server sees them.
const (
	LinkUp    = "up"    // heard of within the last two minutes
	LinkDown  = "down"  // not
	LinkNever = "never" // it has joined and not come back
)

// Machine is an enrolled endpoint (P3).
type Machine struct {
	ID           string          `json:"id"`
	Number       int64           `json:"number"`
	Name         string          `json:"name"`
	Status       string          `json:"status" doc:"pending, active, revoked or lost"`
	Mode         string          `json:"mode" doc:"normal, enforced or exempt"`
	UnknownUsers string          `json:"unknown_users" doc:"deny or skip"`
	Owner        string          `json:"owner,omitempty" doc:"Name of the user it belongs to"`
	OnlyAssigned bool            `json:"only_assigned" doc:"Only users in users may sign in"`
	Users        []string        `json:"users" nullable:"false" doc:"Names of the assigned users"`
	Hostname     string          `json:"hostname,omitempty"`
	OS           string          `json:"os,omitempty"`
	AgentVersion string          `json:"agent_version,omitempty"`
	Outdated     bool            `json:"outdated" doc:"The agent is older than the server's min_agent_version"`
	TPM          string          `json:"tpm" doc:"tpm, software or none"`
	TPMInfo      json.RawMessage `json:"tpm_info,omitempty"`
	KeyInTPM     bool            `json:"key_in_tpm" doc:"The machine says that its key lies in the TPM"`
	TPMProblem   string          `json:"tpm_problem,omitempty" doc:"Reason code"`
	VaultProblem string          `json:"vault_problem,omitempty" doc:"Reason code"`
	Address      string          `json:"address,omitempty" doc:"Of its last connection"`
	LastSeenAt   time.Time       `json:"last_seen_at,omitzero"`
	Link         string          `json:"link" doc:"up, down or never: whether it is connected now"`
	JoinedAt     time.Time       `json:"joined_at,omitzero"`
	CertUntil    time.Time       `json:"certificate_until,omitzero"`
	Vaults       int64           `json:"offline_users" doc:"For how many users it holds offline data"`
	Serial       int64           `json:"serial" doc:"Of the policy it should have"`
	Rev          int64           `json:"rev" doc:"The ETag"`
}

// MachineChange changes a machine; what is left out stays.
type MachineChange struct {
	Name         *string   `json:"name,omitempty"`
	Status       *string   `json:"status,omitempty" doc:"active approves a pending machine"`
	Mode         *string   `json:"mode,omitempty"`
	UnknownUsers *string   `json:"unknown_users,omitempty"`
	Owner        *string   `json:"owner,omitempty" doc:"Name of a user; empty: nobody"`
	OnlyAssigned *bool     `json:"only_assigned,omitempty"`
	Users        *[]string `json:"users,omitempty" doc:"Names of all users that shall be assigned"`
	AddUsers     []string  `json:"add_users,omitempty"`
	RemoveUsers  []string  `json:"remove_users,omitempty"`
}

// Why asks for something that has to be explained in the event.
type Why struct {
	Reason string `json:"reason,omitempty"`
}

// Lost is what to do after a machine was lost (O14).
type Lost struct {
	Machine Machine  `json:"machine"`
	Reseed  []Reseed `json:"reseed" nullable:"false" doc:"Authenticators with data on the machine: replace them"`
}

// Reseed is an authenticator whose data lies on a lost machine.
type Reseed struct {
	User   string `json:"user"`
	UserID string `json:"user_id"`
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Name   string `json:"name,omitempty"`
	Class  string `json:"class" doc:"tpm or software: where the machine kept its data"`
	Urgent bool   `json:"urgent" doc:"Kept without a TPM: the disk alone may be enough with the password"`
}

// NewToken asks for a join token (E4).
type NewToken struct {
	Name      string `json:"name,omitempty" doc:"The machine's name; absent: its host name"`
	Mass      bool   `json:"mass,omitempty" doc:"For many machines, which then wait for approval"`
	ValidFor  string `json:"valid_for,omitempty" doc:"Duration such as 24h (default), 1m to 720h"`
	ServerURL string `json:"server_url,omitempty" doc:"https://HOST:PORT of the listener for machines; absent: what the server knows of itself"`
}

// Token is a join token; its text is shown once.
type Token struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind" doc:"single or mass"`
	Name      string    `json:"name,omitempty"`
	ServerURL string    `json:"server_url,omitempty"`
	Token     Secret    `json:"token,omitzero" doc:"Only when it is issued"`
	CreatedBy string    `json:"created_by"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	UsedAt    time.Time `json:"used_at,omitzero"`
	MachineID string    `json:"machine_id,omitempty"`
}

// OfflineEntry is one row of the offline enrolment report (O14).
type OfflineEntry struct {
	User        string    `json:"user"`
	UserID      string    `json:"user_id"`
	Machine     string    `json:"machine"`
	MachineID   string    `json:"machine_id"`
	Generation  int64     `json:"generation"`
	Class       string    `json:"class" doc:"tpm or software"`
	State       string    `json:"state" doc:"activating, active, outdated, expired, used up, shut, shut remotely, disenrolling or retired"`
	EnrolledAt  time.Time `json:"enrolled_at,omitzero"`
	SyncedAt    time.Time `json:"synced_at,omitzero"`
	LastMFAAt   time.Time `json:"last_mfa_at,omitzero"`
	Until       time.Time `json:"until,omitzero"`
	DaysLeft    float64   `json:"days_left"`
	SigninsLeft int64     `json:"signins_left" doc:"As far as the machine has told"`
	TriesLeft   int64     `json:"tries_left" doc:"Wrong answers that are left, as far as the machine has told"`
	SeenAt      time.Time `json:"machine_seen_at,omitzero"`
	LiftWanted  bool      `json:"lift_wanted,omitempty"`
}

// Stuck is somebody who could not sign in on a machine today if the server were out
// of reach (O16).
type Stuck struct {
	User      string    `json:"user"`
	UserID    string    `json:"user_id"`
	Machine   string    `json:"machine" doc:"Empty where no active machine knows the user"`
	MachineID string    `json:"machine_id"`
	Reason    string    `json:"reason" doc:"Code of the deciding rule"`
	Why       string    `json:"why" doc:"The deciding rule in words"`
	Next      string    `json:"next_step" doc:"Who can mend it, and how"`
	SeenAt    time.Time `json:"machine_seen_at,omitzero"`
}

// Pairs chooses (user, machine) pairs: those of a user, those of a machine, one
// pair, several, or, with All, every one.
type Pairs struct {
	User    string `json:"user,omitempty"`
	Machine string `json:"machine,omitempty"`
	All     bool   `json:"all,omitempty"`
	Pairs   []Pair `json:"pairs,omitempty" doc:"These, instead of user and machine"`
}

// Pair is a user on a machine.
type Pair struct {
	User    string `json:"user" doc:"Name or id"`
	Machine string `json:"machine" doc:"Name, number or id"`
}

// Done counts what was done.
type Done struct {
	Count    int      `json:"count"`
	Machines []string `json:"machines,omitempty" doc:"Ids of the machines that must learn it"`
	LeftOut  int      `json:"left_out,omitempty" doc:"How many were left out because they are of people with the same or a higher role"`
}

// Window is an open MFA window (W1).
type Window struct {
	ID        string    `json:"id"`
	User      string    `json:"user"`
	UserID    string    `json:"user_id"`
	Machine   string    `json:"machine"`
	MachineID string    `json:"machine_id"`
	OpenedAt  time.Time `json:"opened_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Factors   []string  `json:"factors" nullable:"false"`
}

// Event is an event with its place in the chain.
type Event struct {
	ID         string          `json:"id"`
	Type       string          `json:"type"`
	Actor      string          `json:"actor,omitempty"`
	Subject    string          `json:"subject,omitempty"`
	UserID     string          `json:"user_id,omitempty"`
	MachineID  string          `json:"machine_id,omitempty"`
	Machine    string          `json:"machine,omitempty"`
	Address    string          `json:"address,omitempty"`
	Scope      string          `json:"scope,omitempty"`
	Service    string          `json:"service,omitempty"`
	Link       string          `json:"link,omitempty"`
	Outcome    string          `json:"outcome,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Factor     string          `json:"factor,omitempty"`
	At         time.Time       `json:"at" doc:"At the source"`
	ReceivedAt time.Time       `json:"received_at" doc:"At the server"`
	Data       json.RawMessage `json:"data,omitempty"`
	Chain      string          `json:"chain"`
	Seq        int64           `json:"seq"`
}

// Verify asks for a check of the event chains against marks that were kept
// outside of the database.
type Verify struct {
	Marks []string `json:"marks,omitempty" doc:"CHAIN:SEQ:HASH"`
}

// Verified is the result.
type Verified struct {
	Whole  bool    `json:"whole"`
	Events int64   `json:"events" doc:"That were checked"`
	Chains []Chain `json:"chains" nullable:"false"`
}

// Chain is one event chain.
type Chain struct {
	Name   string `json:"name"`
	Events int64  `json:"events"`
	Head   string `json:"head,omitempty" doc:"CHAIN:SEQ:HASH: keep it elsewhere and give it to a later check"`
	Broken int64  `json:"broken,omitempty" doc:"The first event that is wrong"`
	Why    string `json:"why,omitempty"`
}

// Explain asks why a user would (not) be prompted (S13).
type Explain struct {
	User    string    `json:"user"`
	Machine string    `json:"machine"`
	Scope   string    `json:"scope"`
	Service string    `json:"service,omitempty"`
	From    string    `json:"from,omitempty" doc:"Address that sshd saw, for remote"`
	Remote  bool      `json:"remote_seat,omitempty" doc:"Inside a remote session"`
	At      time.Time `json:"at,omitzero" doc:"Absent: now"`
	Offline bool      `json:"offline,omitempty" doc:"While the server is not reachable"`
	UID     *int64    `json:"uid,omitempty" doc:"Account number on the machine"`
	First   string    `json:"first,omitempty" doc:"Who judges the first factor: machine, server (default) or sshkey"`
	Boot    string    `json:"boot,omitempty" doc:"Absent: the machine's present boot"`
	Cannot  []string  `json:"cannot,omitempty" doc:"Kinds of factors that the program there has no way to ask for, such as fido2 where the agent can not use security keys"`
}

// Explained is the decision with every rule that was looked at.
type Explained struct {
	User     string          `json:"user"`
	Machine  string          `json:"machine"`
	At       time.Time       `json:"at"`
	Link     string          `json:"link"`
	Decision policy.Decision `json:"decision"`
	Notes    []string        `json:"notes,omitempty" doc:"What this answer could not know"`
	Reports  []policy.Report `json:"reports,omitempty" doc:"What policies that only report would have decided"`
}

// Settings are those of the server as a whole.
type Settings struct {
	Contact     string `json:"contact" doc:"Whom people call; shown with refusals, also offline"`
	ServerURL   string `json:"server_url" doc:"https://HOST:PORT under which machines reach this server; goes into join tokens"`
	MinAgent    string `json:"min_agent_version" doc:"Machines with an older agent are called outdated"`
	PeopleURL   string `json:"people_url" doc:"https://HOST[:PORT] under which browsers and phones reach this server; passkeys are bound to its host"`
	Attestation string `json:"passkey_attestation" doc:"none or direct: new passkeys must say which model they are"`
	Models      string `json:"passkey_models" doc:"With direct: AAGUIDs of the models that may be registered, between commas; empty: any"`

	OutwardProxy string `json:"outward_proxy" doc:"http://HOST:PORT through which notices to phones and text messages go; empty: what the server was started with"`
	PushNetworks string `json:"push_networks" doc:"Networks between commas in which a push service of one's own may stand; empty: what the server was started with"`
}

// SettingsChange changes them; what is left out stays.
type SettingsChange struct {
	Contact     *string `json:"contact,omitempty"`
	ServerURL   *string `json:"server_url,omitempty"`
	MinAgent    *string `json:"min_agent_version,omitempty"`
	PeopleURL   *string `json:"people_url,omitempty"`
	Attestation *string `json:"passkey_attestation,omitempty"`
	Models      *string `json:"passkey_models,omitempty"`

	OutwardProxy *string `json:"outward_proxy,omitempty"`
	PushNetworks *string `json:"push_networks,omitempty"`
}

// CertificateAuthority is the server's own CA.
type CertificateAuthority struct {
	PEM   string `json:"pem" doc:"The certificate, as a file for --cacert or a browser"`
	Print string `json:"sha256" doc:"Its fingerprint, which machines pin"`
}

// Status is how the server is.
type Status struct {
	Version   string           `json:"version"`
	Replica   string           `json:"replica"`
	Engine    string           `json:"engine"`
	Time      time.Time        `json:"time"`
	Users     int64            `json:"users"`
	Machines  map[string]int64 `json:"machines" nullable:"false" doc:"By status"`
	Locked    int64            `json:"locked" doc:"Users locked out or made to wait now"`
	CAPrint   string           `json:"ca_sha256,omitempty" doc:"Fingerprint that machines pin"`
	Actor     string           `json:"actor" doc:"Who you are"`
	ActorRole string           `json:"actor_role"`
	NotReady  string           `json:"not_ready,omitempty" doc:"Why the server can not do its work"`
	Problems  json.RawMessage  `json:"problems,omitempty"`
}
