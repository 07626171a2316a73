// Package event is the one vocabulary of what happens: sign-ins, factors,
// offline data, machines, administrators' actions. It also computes the hash
// chain that makes a missing or edited event visible. Pure: no I/O, no clock.
// Rows V1, V4, O11.
package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
)

// Event is one thing that happened. Times are unix microseconds.
type Event struct {
	ID         string          `json:"id"`
	Type       Type            `json:"type"`
	Actor      string          `json:"actor,omitempty"`      // who did it: a user's name, "root@local", "agent", "server"
	Subject    string          `json:"subject,omitempty"`    // whom or what it was about, as typed or named
	UserID     string          `json:"user_id,omitempty"`    // the account, if it is known
	MachineID  string          `json:"machine_id,omitempty"` // the machine, if one is involved
	Machine    string          `json:"machine,omitempty"`    // its name at the time
	Address    string          `json:"address,omitempty"`    // remote host as the machine saw it, or of the machine's connection
	Scope      string          `json:"scope,omitempty"`
	Service    string          `json:"service,omitempty"`
	Link       string          `json:"link,omitempty"` // up, down or refused at the time
	Outcome    string          `json:"outcome,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Factor     string          `json:"factor,omitempty"`
	At         int64           `json:"at"`          // at the source
	ReceivedAt int64           `json:"received_at"` // at the server
	Data       json.RawMessage `json:"data,omitempty"`
}

// Type is a word of the vocabulary.
type Type string

// The vocabulary. The words are stored for years: they never change meaning.
const (
	SigninAllowed    Type = "signin.allowed"
	SigninDenied     Type = "signin.denied"
	SigninIgnored    Type = "signin.left_to_machine"
	SigninAbandoned  Type = "signin.abandoned"
	SigninReplayed   Type = "signin.replayed"
	FactorAccepted   Type = "factor.accepted"
	FactorRejected   Type = "factor.rejected"
	FactorSent       Type = "factor.sent"
	FactorLimited    Type = "factor.limited"
	PushApproved     Type = "push.approved"
	PushDenied       Type = "push.denied"
	PushReported     Type = "push.reported"
	PushRefused      Type = "push.refused"
	PushLimited      Type = "push.limited"
	PushUnlocked     Type = "push.unlocked"
	PushUnreachable  Type = "push.unreachable"
	PushWithdrawn    Type = "push.withdrawn"
	PushVerification Type = "push.verification_added"
	LockoutBegan     Type = "lockout.began"
	LockoutLifted    Type = "lockout.lifted"
	BreakGlass       Type = "breakglass.used"
	PasswordChanged  Type = "password.changed"
	WindowOpened     Type = "window.opened"
	WindowEnded      Type = "window.ended"

	VaultEnrolled   Type = "offline.enrolled"
	VaultRefused    Type = "offline.enrol_refused"
	VaultSynced     Type = "offline.synced"
	VaultLifted     Type = "offline.lifted"
	VaultLiftWanted Type = "offline.lift_wanted"
	VaultDisenroled Type = "offline.disenrolled"
	VaultWiped      Type = "offline.wiped"
	VaultRolledBack Type = "offline.state_restored"
	VaultDamaged    Type = "offline.state_damaged"
	TPMProblem      Type = "tpm.problem"
	JournalGap      Type = "journal.gap"
	JournalForged   Type = "journal.forged"
	JournalFolded   Type = "journal.folded"
	CodeCollision   Type = "totp.collision"
	BackupCollision Type = "backup.double_spend"
	ClockJump       Type = "clock.jump"

	MachineJoined   Type = "machine.joined"
	MachineApproved Type = "machine.approved"
	MachineChanged  Type = "machine.changed"
	MachineRevoked  Type = "machine.revoked"
	MachineLost     Type = "machine.lost"
	MachineRefused  Type = "machine.refused"
	MachineRenewed  Type = "machine.certificate_renewed"
	MachineRemoved  Type = "machine.removed"
	TokenIssued     Type = "token.issued"
	TokenRefused    Type = "token.refused"
	TokenWithdrawn  Type = "token.withdrawn"

	CertificateIssued  Type = "certificate.issued"
	CertificateRevoked Type = "certificate.revoked"

	UserAdded       Type = "user.added"
	UserChanged     Type = "user.changed"
	UserDisabled    Type = "user.disabled"
	UserEnabled     Type = "user.enabled"
	UserRemoved     Type = "user.removed"
	GroupAdded      Type = "group.added"
	GroupChanged    Type = "group.changed"
	GroupRemoved    Type = "group.removed"
	PolicyChanged   Type = "policy.changed"
	FactorAdded     Type = "factor.added"
	FactorRemoved   Type = "factor.removed"
	FactorLost      Type = "factor.lost"
	FactorRenamed   Type = "factor.renamed"
	FactorCloned    Type = "factor.cloned"
	ReportOpened    Type = "report.opened"
	ReportHandled   Type = "report.handled"
	CodeIssued      Type = "code.issued"
	CodeSpent       Type = "code.spent"
	ServerStarted   Type = "server.started"
	ServerStopped   Type = "server.stopped"
	BackupMade      Type = "server.backup"
	ChainCheckpoint Type = "chain.checkpoint"
	ChainRewound    Type = "chain.rewound"
	SettingsChanged Type = "settings.changed"

	SessionOpened    Type = "session.opened"
	SessionDenied    Type = "session.denied"
	SessionSteppedUp Type = "session.stepped_up"
	SessionEnded     Type = "session.ended"
	APITokenMade     Type = "apitoken.made"
	APITokenRevoked  Type = "apitoken.revoked"
	ApprovalAsked    Type = "approval.asked"
	ApprovalGiven    Type = "approval.given"
	ApprovalDenied   Type = "approval.denied"
	ApprovalUsed     Type = "approval.used"
	OwnerMade        Type = "setup.owner_made"

	PostRefused Type = "post.refused"
	PostGivenUp Type = "post.given_up"
	PostRemoved Type = "post.removed"
	PostRetried Type = "post.retried"

	ImportApplied    Type = "import.applied"
	ImportCodesTaken Type = "import.codes_taken"
	SourceAdded      Type = "import.source_added"
	SourceRemoved    Type = "import.source_removed"
)

// Meaning explains every type of the vocabulary in one sentence.
var Meaning = map[Type]string{
	SigninAllowed:      "A sign-in was allowed; data.trace says why.",
	SigninDenied:       "A sign-in was denied; reason and data.trace say why.",
	SigninIgnored:      "The decision was left to the machine's own sign-in: a bypass, an exemption or an unknown user.",
	SigninAbandoned:    "A sign-in was begun and given up or timed out.",
	SigninReplayed:     "A step of a conversation was sent again with another body.",
	FactorAccepted:     "A second factor was accepted.",
	FactorRejected:     "A second factor was rejected.",
	FactorSent:         "A second factor was sent out: a request to a phone, a mail, a text message, or a challenge to a key.",
	FactorLimited:      "A machine may have nothing sent for a while to people who are new there: too much of it came to nothing; data.severity is alert.",
	PushApproved:       "A request was approved on a phone; the address is the phone's, and data.from is where the sign-in came from.",
	PushDenied:         "A request was denied on a phone, by the person or by a wrong number.",
	PushReported:       "Somebody has said on the phone that a sign-in was not theirs: their requests are locked until the help desk unlocks them.",
	PushRefused:        "An answer of a phone was not accepted: sent twice, late, altered, for somebody else's request, or without proof of who holds the phone.",
	PushLimited:        "A request was not sent to phones, because too many had gone there and come to nothing.",
	PushUnlocked:       "The help desk lets requests go to a user's phones again.",
	PushUnreachable:    "A phone's push service no longer knows it; the app must be opened there.",
	PushWithdrawn:      "A request to a user's phones was withdrawn before it was answered: nobody waits for it any more, or another took its place.",
	PushVerification:   "A phone has registered its own authenticator, which proves who holds it.",
	LockoutBegan:       "Too many failures: a user was locked out for a time.",
	LockoutLifted:      "An administrator lifted a lock-out.",
	BreakGlass:         "A break-glass account signed in at a local seat.",
	PasswordChanged:    "A password was changed; data counts what ended with it: windows, sessions, API tokens, certificates.",
	WindowOpened:       "A completed MFA opened a window.",
	WindowEnded:        "A window was ended before its time.",
	VaultEnrolled:      "A machine was enrolled for a user's offline sign-in.",
	VaultRefused:       "A machine could not be enrolled for offline sign-in; reason says why.",
	VaultSynced:        "Offline data was extended or corrected.",
	VaultLifted:        "Counters of a machine's TPM were lifted.",
	VaultLiftWanted:    "An administrator wants the counters of a machine's TPM lifted for a user.",
	VaultDisenroled:    "An administrator or the user disenrolled offline sign-in.",
	VaultWiped:         "A machine wiped offline data.",
	VaultRolledBack:    "A machine found an older state of its offline data put back.",
	VaultDamaged:       "A machine found its offline data damaged.",
	TPMProblem:         "A machine's TPM is cleared, replaced, locked, gone or out of room; reason says which.",
	JournalGap:         "Entries are missing in a machine's offline journal.",
	JournalForged:      "A machine's offline journal names what the machine could not know, or its chain is broken.",
	JournalFolded:      "A machine's offline journal had more entries in a day than events are made of: what is beyond is only counted, and data says how many of which.",
	CodeCollision:      "One TOTP code was accepted on two machines that could not meet.",
	BackupCollision:    "One backup code was accepted on two machines that could not meet.",
	ClockJump:          "A machine's clock went far back or forward.",
	MachineJoined:      "A machine joined.",
	MachineApproved:    "A pending machine was approved.",
	MachineChanged:     "A machine's settings were changed.",
	MachineRevoked:     "A machine was revoked.",
	MachineLost:        "A machine was reported lost; data.reseed names the authenticators to renew.",
	MachineRefused:     "A revoked or foreign machine was refused.",
	MachineRenewed:     "A machine's certificate was renewed.",
	MachineRemoved:     "A machine that was no longer trusted was removed from the list.",
	TokenIssued:        "A join token was issued.",
	TokenRefused:       "A join token was refused.",
	TokenWithdrawn:     "A join token was withdrawn.",
	CertificateIssued:  "A certificate was issued to a user, or renewed.",
	CertificateRevoked: "One certificate of a user or a machine was revoked; its connections are closed.",
	UserAdded:          "A user was added.",
	UserChanged:        "A user was changed.",
	UserDisabled:       "A user was disabled.",
	UserEnabled:        "A user who was disabled was enabled again.",
	UserRemoved:        "A user was removed.",
	GroupAdded:         "A group was added.",
	GroupChanged:       "A group or its members were changed.",
	GroupRemoved:       "A group was removed.",
	PolicyChanged:      "A policy was changed; data holds version and difference.",
	FactorAdded:        "A factor was enrolled.",
	FactorRemoved:      "A factor was removed.",
	FactorLost:         "An authenticator was marked as lost and is no longer accepted.",
	FactorRenamed:      "A factor was given another name.",
	FactorCloned:       "The counter of a passkey or security key went backwards: there may be a copy of it. It is marked and no longer accepted.",
	ReportOpened:       "A person has reported a sign-in that was somebody else's, or a lost machine; data.severity is alert.",
	ReportHandled:      "Somebody has looked after a report and closed it; data.answer says what was done.",
	CodeIssued:         "A bypass or enrolment code was issued.",
	CodeSpent:          "A backup, bypass or enrolment code was spent.",
	ServerStarted:      "A server process started.",
	ServerStopped:      "A server process stopped.",
	BackupMade:         "A backup was made.",
	ChainCheckpoint:    "The head of the event chain was recorded.",
	ChainRewound:       "The database has lost changes that it had committed: a standby took over without them.",
	SettingsChanged:    "Settings of the server as a whole were changed.",

	SessionOpened:    "Somebody signed in to the console or the portal.",
	SessionDenied:    "A sign-in to the console or the portal was denied, or a code that was asked for there; reason says why.",
	SessionSteppedUp: "A second factor was given again before something dangerous.",
	SessionEnded:     "Sessions at the console or the portal were ended before their time.",
	APITokenMade:     "An API token was made.",
	APITokenRevoked:  "An API token was revoked.",
	ApprovalAsked:    "An owner asked another for an approval.",
	ApprovalGiven:    "A second owner approved what was asked for.",
	ApprovalDenied:   "A second owner refused what was asked for, or it was withdrawn.",
	ApprovalUsed:     "What was approved was done.",
	OwnerMade:        "The first owner was made with the setup code.",

	PostRefused: "A mail or text message was refused for ever by the mail server or the gateway; data.detail says with which words.",
	PostGivenUp: "A mail or text message could not be sent in the time in which it was of use; reason and data.detail say why.",
	PostRemoved: "An administrator has removed a message from the queue.",
	PostRetried: "An administrator has had a message sent again.",

	ImportApplied:    "Users were imported in bulk; data holds how many were added, changed and left out. Every user has an event beside it.",
	ImportCodesTaken: "The enrolment codes of an import were fetched; they are not shown again.",
	SourceAdded:      "The address of a database that users are imported from was kept.",
	SourceRemoved:    "The address of a database that users were imported from was removed.",
}

// Hash is the hash of an event in its chain.
type Hash [sha256.Size]byte

// Next computes the hash of the event at place seq (from 1) of the named chain,
// behind prev (all zero before the first). It covers every field: each is
// preceded by its length, so that no two events have the same preimage.
func Next(chain string, seq uint64, prev Hash, e Event) Hash {
	h := sha256.New()
	var n [8]byte
	str := func(s string) {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	num := func(v uint64) {
		binary.BigEndian.PutUint64(n[:], v)
		h.Write(n[:])
	}
	str("latchkey/event/1")
	str(chain)
	num(seq)
	h.Write(prev[:])
	for _, s := range []string{
		e.ID, string(e.Type), e.Actor, e.Subject, e.UserID, e.MachineID, e.Machine, e.Address,
		e.Scope, e.Service, e.Link, e.Outcome, e.Reason, e.Factor,
	} {
		str(s)
	}
	num(uint64(e.At))
	num(uint64(e.ReceivedAt))
	str(string(e.Data))
	var out Hash
	h.Sum(out[:0])
	return out
}
