// Package wire holds the bodies of the agent API: what passes between
// latchkey-agent and latchkeyd over mutual TLS. Bodies are JSON; times are int64
// unix microseconds; ids are UUIDv7 text. Both sides send Version in the header
// VersionHeader.
package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
)

// The bounds of bodies, in octets.
const (
	MaxRequest    = 1 << 20
	MaxReply      = 32 << 20 // of bundles and policies
	MaxSmallReply = 1 << 20  // of everything else
)

// The paths, as net/http.ServeMux patterns behind the method.
const (
	PathJoin     = "/agent/v1/join"                     // POST Join → JoinReply; no client certificate, the token is the proof
	PathRenew    = "/agent/v1/renew"                    // POST Renew → RenewReply; an expired certificate may call this
	PathProbe    = "/agent/v1/probe"                    // GET → 204; settles doubt about the link
	PathHello    = "/agent/v1/hello"                    // POST Hello → HelloReply; after every (re)connect and when facts change
	PathChanges  = "/agent/v1/changes"                  // GET ?since=SERIAL → Changes; the long poll
	PathStep     = "/agent/v1/conversations/{id}/{seq}" // POST Step → StepReply
	PathWait     = "/agent/v1/conversations/{id}/wait"  // GET → Empty, when what a PromptWait waits for may have come, or after WaitTime
	PathPrepare  = "/agent/v1/offline/prepare"          // POST Prepare → PrepareReply
	PathPermit   = "/agent/v1/offline/permit"           // POST PermitRequest → Permit
	PathReady    = "/agent/v1/offline/ready"            // POST Ready → Empty; the generation is in use from now on
	PathBundle   = "/agent/v1/offline/bundle"           // POST BundleRequest → BundleReply
	PathWiped    = "/agent/v1/offline/wiped"            // POST Wiped → Empty
	PathJournal  = "/agent/v1/journal"                  // POST Journal → JournalReply
	PathOccasion = "/agent/v1/occasion"                 // POST Occasion → Empty (W6)
	PathUserCert = "/agent/v1/user-certificate"         // POST UserCertificate → UserCertificateReply (M4)
)

// MachineHeader holds the id of the machine that the agent takes itself to be. It proves
// nothing; where the certificate names another machine, the request is refused: somebody
// has mixed up state folders. Agents before it send none.
const MachineHeader = "Latchkey-Machine"

// Secret is a password, code or key on the wire: base64 in JSON, hidden from
// logs and formats.
type Secret struct{ secret.Bytes }

// Hide wraps s.
func Hide(s secret.Bytes) Secret { return Secret{s} }

// MarshalJSON writes base64: this type exists to cross the wire.
func (s Secret) MarshalJSON() ([]byte, error) {
	return json.Marshal(base64.StdEncoding.EncodeToString(s.Reveal()))
}

// UnmarshalJSON reads base64.
func (s *Secret) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("a secret must be base64 text")
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return errors.New("a secret must be base64 text")
	}
	s.Bytes = secret.New(raw)
	return nil
}

// MarshalText always fails, so that a Secret is never a map key or XML.
func (s Secret) MarshalText() ([]byte, error) { return nil, secret.ErrMarshal }

// IsZero lets omitzero leave out empty secrets.
func (s Secret) IsZero() bool { return s.Empty() }

// LogValue hides the content.
func (s Secret) LogValue() slog.Value { return s.Bytes.LogValue() }

// Empty is an empty body.
type Empty struct{}

// Problem is the body of every answer that is not 2xx.
type Problem struct {
	Code    string `json:"code"`              // fault.Code
	Detail  string `json:"detail"`            // for people
	Refusal []byte `json:"refusal,omitempty"` // signed object of kind seal.Refusal, with code machine-refused
}

func (p Problem) Error() string { return fmt.Sprintf("%s: %s", p.Code, p.Detail) }

// RefusalNote is the payload of a signed refusal.
type RefusalNote struct {
	MachineID string `json:"machine_id"`
	Status    string `json:"status"` // revoked or lost
	Serial    int64  `json:"serial"`
	At        int64  `json:"at"`
	Text      string `json:"text"` // for people
}

// MachineFacts is what a machine says of itself.
type MachineFacts struct {
	Hostname     string          `json:"hostname"`
	OS           string          `json:"os"` // e.g. "linux Debian GNU/Linux 12"
	AgentVersion string          `json:"agent_version"`
	Boot         string          `json:"boot"`                    // changes with every boot: boot id, and the TPM's resetCount where there is one
	Class        string          `json:"class"`                   // "tpm" or "software": where offline data is kept
	TPM          json.RawMessage `json:"tpm,omitempty"`           // tpm.Info
	Parent       []byte          `json:"parent,omitempty"`        // TPMT_PUBLIC of the import parent
	AttestKey    []byte          `json:"attest_key,omitempty"`    // TPMT_PUBLIC of the attestation key
	KeyInTPM     bool            `json:"key_in_tpm"`              // the machine key lies in the TPM ("claimed")
	TPMProblem   string          `json:"tpm_problem,omitempty"`   // a policy.Reason: tpm-cleared, tpm-gone, tpm-locked, …
	VaultProblem string          `json:"vault_problem,omitempty"` // a policy.Reason: offline-state-restored, …
}

// Join asks to become a machine.
type Join struct {
	Token Secret       `json:"token"` // the secret of the join token
	CSR   []byte       `json:"csr"`   // PKCS#10 DER, P-256; proves possession of the machine key
	Facts MachineFacts `json:"facts"`
}

// JoinReply makes the machine one of the server's.
type JoinReply struct {
	MachineID   string `json:"machine_id"`
	Name        string `json:"name"`
	Number      int64  `json:"number"`
	Status      string `json:"status"`      // active, or pending behind a mass token
	Certificate []byte `json:"certificate"` // DER
	CA          []byte `json:"ca"`          // DER
	GrantKey    []byte `json:"grant_key"`   // Ed25519 public key that signs policies, bundles, refusals
	PermitKey   []byte `json:"permit_key"`  // PKIX DER of the P-256 TPM-policy key
}

// Renew asks for a new certificate for the same machine key or a new one.
type Renew struct {
	CSR []byte `json:"csr"`
}

// RenewReply brings it.
type RenewReply struct {
	Certificate []byte `json:"certificate"`
}

// UserCertificate asks for a certificate of a user who has signed in on this machine with
// a second factor (M4). The key is the user's: it never leaves the machine.
type UserCertificate struct {
	User    string   `json:"user"` // as the system calls whoever asks
	UID     *uint32  `json:"uid,omitempty"`
	Aliases []string `json:"aliases,omitempty"` // other names that the system has for the same uid
	CSR     []byte   `json:"csr"`               // PKCS#10 DER; nothing but its key is taken
	Name    string   `json:"name,omitempty"`    // what the user calls it
}

// UserCertificateReply brings it.
type UserCertificateReply struct {
	Certificate []byte `json:"certificate"` // DER
	CA          []byte `json:"ca"`          // DER
	UserName    string `json:"user_name"`
	RenewAfter  int64  `json:"renew_after"`
}

// Hello says what the machine is now.
type Hello struct {
	Facts MachineFacts `json:"facts"`
}

// HelloReply answers with the server's time and what it has of the journal.
type HelloReply struct {
	Time          int64  `json:"time"`
	ServerVersion string `json:"server_version"`
	JournalSeq    uint64 `json:"journal_seq"`  // last entry that the server has; 0 = none
	JournalHash   []byte `json:"journal_hash"` // its hash
	RenewAfter    int64  `json:"renew_after"`  // when to renew the certificate
}

// Changes answers the long poll: at once if the serial differs, else when
// something changes or the server's patience (at most 60 s) ends. Policy is
// always the whole present state.
type Changes struct {
	Serial int64  `json:"serial"`
	Time   int64  `json:"time"`
	Policy []byte `json:"policy,omitempty"` // signed object of kind seal.Policy; absent if nothing changed and it is fresh
}

// PolicyFile is the payload of the signed policy: everything that the machine
// needs to decide alone.
type PolicyFile struct {
	MachineID string          `json:"machine_id"`
	Serial    int64           `json:"serial"`
	IssuedAt  int64           `json:"issued_at"`
	NotAfter  int64           `json:"not_after"` // 90 days after issue
	Machine   policy.Machine  `json:"machine"`
	Policies  []policy.Policy `json:"policies"`
	Users     []policy.User   `json:"users"`  // those assigned here, or whose first factor was once accepted here
	Vaults    []VaultEntry    `json:"vaults"` // what may stay on this machine; all else is wiped
	Contact   string          `json:"contact,omitempty"`
}

// VaultEntry is one (user, machine, generation) that the server stands by.
type VaultEntry struct {
	UserID     string `json:"user_id"`
	Generation uint64 `json:"generation"`
	Until      int64  `json:"until"`          // end of the offline days: last online MFA + OfflineDays
	Lift       bool   `json:"lift,omitempty"` // an administrator wants the counters lifted: ask for permits
}

// Step is one message of a sign-in conversation. Exactly one field is set. The
// conversation's id is made by the agent (UUIDv7), seq counts from 1.
type Step struct {
	Begin  *Begin  `json:"begin,omitempty"`
	Answer *Answer `json:"answer,omitempty"`
	Cancel bool    `json:"cancel,omitempty"`
}

// Purposes of a conversation.
const (
	PurposeSignin   = "signin"
	PurposePassword = "password" // chauthtok: change the password
)

// Begin opens a conversation (seq 1).
type Begin struct {
	Purpose    string       `json:"purpose"`
	User       string       `json:"user"` // as typed; for su the caller
	Target     string       `json:"target,omitempty"`
	UID        *uint32      `json:"uid,omitempty"`
	Aliases    []string     `json:"aliases,omitempty"` // other names that the system has for the same uid
	Scope      policy.Scope `json:"scope"`
	Service    string       `json:"service"`
	TTY        string       `json:"tty,omitempty"`
	RHost      string       `json:"rhost,omitempty"`
	RemoteSeat bool         `json:"remote_seat,omitempty"`
	Mode       string       `json:"mode"`            // full or second
	First      policy.First `json:"first,omitempty"` // machine, sshkey or none
	Password   Secret       `json:"password,omitzero"`
	Boot       string       `json:"boot"`
	At         int64        `json:"at"`
	Unlock     bool         `json:"unlock,omitempty"` // an unprivileged peer unlocks its own session: yes or no, nothing is opened by it
	Can        []string     `json:"can,omitempty"`    // what this agent can do at this seat beside asking: PromptWait, PromptKey
}

// Answer answers the prompt of the step before.
type Answer struct {
	Text Secret `json:"text"`
}

// Kinds of prompts and messages: the verbs of the shim.
const (
	PromptSecret = "secret"
	PromptAsk    = "ask"
	PromptChoose = "choose"
	// PromptWait waits for an answer that comes another way (push). The agent shows Text
	// once, unless it is empty, hangs on PathWait, and looks with an empty answer until
	// another prompt or the end comes. Where the person can type meanwhile, that is the
	// answer; Options holds what leads somewhere else (Back), if anything does.
	PromptWait = "wait"
	// PromptKey is for a security key at the machine: Data is a KeyChallenge, and the
	// answer is a KeyAnswer, both JSON.
	PromptKey   = "key"
	MessageTell = "tell"
	MessageWarn = "warn"
)

// What a prompt asks for.
const (
	ForPassword      = "password"
	ForCode          = "code"
	ForChoice        = "choice"
	ForNewPassword   = "new-password"
	ForNewPassword2  = "new-password-again"
	ForEnrolCode     = "enrol-code"
	ForFirstCode     = "first-code"
	ForOfflineChoice = "offline-choice"
	ForPush          = "push"
	ForKey           = "key"
	ForKeyPIN        = "key-pin" // of the agent's own; the server never hears the answer
)

// Prompt asks the person something.
type Prompt struct {
	Kind    string   `json:"kind"`
	For     string   `json:"for"`
	Text    string   `json:"text"`
	Options []string `json:"options,omitempty"`
	// Data is of PromptKey.
	Data json.RawMessage `json:"data,omitempty"`
}

// Back is what is typed at a PromptWait to get back to the menu.
const Back = "m"

// WaitTime is the longest that a server hangs on PathWait.
const WaitTime = 20 * time.Second

// KeyChallenge asks a security key for an assertion (CTAP 2.1 §6.2; WebAuthn §6.3.3).
// What the key signs in place of client data is assertion.ClientHash of it.
type KeyChallenge struct {
	UserID       string   `json:"user_id"`
	RPID         string   `json:"rp_id"`
	Challenge    []byte   `json:"challenge"`    // 32 octets
	Credentials  [][]byte `json:"credentials"`  // ids, at most 64
	Verification bool     `json:"verification"` // a PIN or a finger is wanted, not only a touch
}

// KeyAnswer is what the key said.
type KeyAnswer struct {
	Credential []byte `json:"credential"`
	AuthData   []byte `json:"auth_data"`
	Signature  []byte `json:"signature"`
}

// Message is shown to the person before the prompt or the end.
type Message struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// StepReply is what the agent shall do next: exactly one of Prompt and Done.
type StepReply struct {
	Messages []Message `json:"messages,omitempty"`
	Prompt   *Prompt   `json:"prompt,omitempty"`
	Done     *Done     `json:"done,omitempty"`
}

// Done ends a conversation.
type Done struct {
	Outcome         policy.Outcome `json:"outcome"` // allow, ignore or deny
	Reason          string         `json:"reason"`
	Text            string         `json:"text,omitempty"` // for people, with deny
	UserID          string         `json:"user_id,omitempty"`
	UserName        string         `json:"user_name,omitempty"`
	MFA             bool           `json:"mfa"`              // a full MFA was completed just now
	PasswordChanged bool           `json:"password_changed"` // the last answer for new-password is the password now
	PasswordJudged  bool           `json:"password_judged"`  // the server has accepted the password that was given
	Spent           []Spent        `json:"spent,omitempty"`  // into the ledger before the shim is answered
	Offline         bool           `json:"offline"`          // the agent may call PathPrepare with this conversation now
}

// Spent is something that was accepted once and must not be accepted again.
type Spent struct {
	Authenticator string `json:"authenticator,omitempty"`
	Step          int64  `json:"step,omitempty"`
	Backup        string `json:"backup,omitempty"`
	// Key is a security key, by the id of its authenticator; Step is its counter then.
	Key string `json:"key,omitempty"`
	// Proof stands in journals: see SpentProof. That of a key is what it has signed.
	Proof  []byte     `json:"proof,omitempty"`
	Signed *KeySigned `json:"signed,omitempty"`
}

// KeySigned is what a security key has signed on a machine that was offline: see
// assertion.Verify.
type KeySigned struct {
	Nonce     []byte `json:"nonce"`
	AuthData  []byte `json:"auth_data"`
	Signature []byte `json:"signature"`
}

// Prepare asks, after a completed MFA, for offline data. The server answers for
// the user of the conversation only, and only while it is fresh (5 minutes).
type Prepare struct {
	Conversation   string `json:"conversation"`
	Class          string `json:"class"` // tpm or software
	Parent         []byte `json:"parent,omitempty"`
	FailHandle     uint32 `json:"fail_handle,omitempty"`
	PassHandle     uint32 `json:"pass_handle,omitempty"`
	HaveGeneration uint64 `json:"have_generation,omitempty"` // 0: none usable
	HavePassword   bool   `json:"have_password"`             // the agent holds the password of this conversation
}

// What the server wants done after Prepare.
const (
	ActionNone       = "none"       // policy wants no enrolment, or the person chose not now
	ActionExtend     = "extend"     // keep the generation: lift both counters, fetch missing days
	ActionGeneration = "generation" // a new generation: remove the old one first
	ActionRefused    = "refused"    // with a reason for the person and the report
)

// PrepareReply says what to do. With ActionGeneration it brings the key: wrapped
// for the import parent (class tpm) or in clear inside TLS (class software).
type PrepareReply struct {
	Action     string   `json:"action"`
	Reason     string   `json:"reason,omitempty"`
	UserID     string   `json:"user_id"`
	Generation uint64   `json:"generation"`
	Serial     int64    `json:"serial"` // policies older than this do not list the generation yet
	FailLimit  uint32   `json:"fail_limit"`
	UseLimit   uint32   `json:"use_limit"`
	Wrapped    *Wrapped `json:"wrapped,omitempty"`
	Key        Secret   `json:"key,omitzero"`
	Until      int64    `json:"until"`
	// UserGeneration is the account's generation for which it is made (policy.User):
	// data of an older one is outdated.
	UserGeneration int64 `json:"user_generation,omitempty"`
}

// Wrapped is a verifier key for TPM2_Import.
type Wrapped struct {
	Public    []byte `json:"public"`
	Duplicate []byte `json:"duplicate"`
	Seed      []byte `json:"seed"`
}

// PermitRequest asks for the server's signature to write one counter.
type PermitRequest struct {
	Conversation string `json:"conversation,omitempty"` // of the MFA; empty for a lift that an administrator wants
	UserID       string `json:"user_id"`
	Generation   uint64 `json:"generation"`
	Kind         string `json:"kind"`    // password or use
	Written      bool   `json:"written"` // false: activation, given once; true: lift
	Nonce        []byte `json:"nonce"`   // nonceTPM, 32 octets
}

// Permit is the answer; see tpm.Permit.
type Permit struct {
	Count      uint32 `json:"count"`
	Limit      uint32 `json:"limit"`
	Expiration int32  `json:"expiration"`
	Signature  []byte `json:"signature"`
}

// Ready says that the machine holds the generation and can use it.
type Ready struct {
	Conversation string `json:"conversation"`
	UserID       string `json:"user_id"`
	Generation   uint64 `json:"generation"`
}

// BundleRequest asks for the tags of the allowed days, from the step after Have.
type BundleRequest struct {
	UserID     string           `json:"user_id"`
	Generation uint64           `json:"generation"`
	Have       map[string]int64 `json:"have,omitempty"` // authenticator id → last step held
}

// BundleReply brings them as a signed object of kind seal.Bundle, whose payload
// is what EncodeBundle makes.
type BundleReply struct {
	Bundle []byte `json:"bundle"`
}

// Wiped reports that offline data is gone from the machine.
type Wiped struct {
	UserID     string `json:"user_id"`
	Generation uint64 `json:"generation"`
	Reason     string `json:"reason"`
}

// Journal brings offline events, oldest first, at most 200 at a time.
type Journal struct {
	Entries []JournalEntry `json:"entries"`
	Attest  []byte         `json:"attest,omitempty"`    // TPMS_ATTEST of the NV counter, qualified by the hash of the last entry
	Sig     []byte         `json:"signature,omitempty"` // TPMT_SIGNATURE
}

// JournalEntry is one link of the machine's chain.
type JournalEntry struct {
	Seq     uint64      `json:"seq"` // from 1, without gaps
	Counter uint64      `json:"counter"`
	Event   event.Event `json:"event"`
	Spent   *Spent      `json:"spent,omitempty"`
	Hash    []byte      `json:"hash"` // EntryHash
}

// JournalReply says how far the server has it.
type JournalReply struct {
	Seq  uint64 `json:"seq"`
	Hash []byte `json:"hash"`
}

// Occasion reports what may end a window (W6).
type Occasion struct {
	Kind policy.WindowEnd `json:"kind"`
	User string           `json:"user,omitempty"` // empty: all users of the machine
}
