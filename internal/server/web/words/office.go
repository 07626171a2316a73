package words

import (
	"fmt"
	"strings"
)

// Dashboard.
const (
	DashLead     = "What happened, and what waits for you."
	Last24       = "Last 24 hours"
	DashSignins  = "Allowed sign-ins"
	DashDenied   = "Denied"
	DashPrompts  = "Factors given"
	DashWrong    = "Wrong factors"
	DashLeft     = "Left to machine"
	DashGlass    = "Break-glass used"
	DashWaiting  = "Waits for you"
	DashLocked   = "Locked out"
	DashPending  = "To approve"
	DashReports  = "Reports of people"
	DashSilent   = "Machines offline"
	DashOutdated = "Outdated agents"
	DashMachines = "Machines"
	DashUsers    = "Users"
	DashFleet    = "People and machines"
	DashChart    = "Sign-ins and denials by the hour, last 7 days"
	DashChart24  = "Sign-ins and denials by the hour, last 24 hours"
	DashActivity = "Sign-ins"

	StuckTitle = "Who would be stuck on a plane today"
	StuckLead  = "People who could not sign in on a machine that they know, if this server were out of reach now."
	StuckNone  = "Nobody: everybody could sign in without the server on the machines they know."
	StuckYet   = "Not counted yet. The first count comes within a minute of the start."
	StuckAll   = "Show them"
	WeakTitle  = "Policies with warnings"
	WeakNone   = "No policy lets somebody in without a second factor when the server is out of reach."
	LogTitle   = "Server and event log"
	LogReady   = "Ready"
	LogWhole   = "Whole"
	LogBroken  = "Not whole"
	LogGoing   = "Being checked"

	FirstTitle      = "First steps"
	FirstLead       = "Four steps to the first protected sign-in."
	FirstUsers      = "Add the people who sign in"
	FirstUsersText  = "One by one, or many from a file or database. Whoever has a password here signs in to the portal."
	FirstFactor     = "Their second factor"
	FirstFactorText = "On each user’s page, give an enrolment code, with which they enrol in the portal, or make an authenticator and show them the QR code."
	FirstFactorDo   = "Show who has none"
	FirstJoin       = "Join a machine"
	FirstJoinText   = "Install the agent on the machine and make a join token; its page says what to type there."
	FirstSign       = "Sign in on it"
	FirstSignText   = "The first sign-in with a second factor stands in the events, with a trace that says why it was asked."
	FirstUsersDo    = "Add a user"
	FirstJoinDo     = "Make a join token"
	FirstSignDo     = "Follow the events"
	FirstDone       = "Done"
)

// Of24 and Of7 note what a figure is about.
func Of7(n string) string { return n + " in 7 days" }

// AsOf says when figures were counted.
const AsOf = "Counted"

// SilentNote says from when on a machine counts as offline.
func SilentNote(d string) string { return "not heard of for " + d }

// OutdatedNote names the minimum.
func OutdatedNote(v string) string {
	if v == "" {
		return "no minimum is set"
	}
	return "older than " + v
}

// PlainPolicyWarning turns a warning of the desk into a sentence.
func PlainPolicyWarning(s string) string {
	if s == "" {
		return ""
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// LogUpTo says how far the log was verified.
func LogUpTo(chain string, seq string) string {
	return fmt.Sprintf("Chain %s is whole up to event %s.", chain, seq)
}

// LogBrokenAt says where it is not.
func LogBrokenAt(chain, seq, why string) string {
	return fmt.Sprintf("Chain %s is not whole: event %s, %s. Run “latchkey events verify” and find out who may write to the database.", chain, seq, why)
}

// Settings.
const (
	SettingsTitle      = "Settings"
	SettingsLead       = "What holds for the server as a whole. Everything else belongs to policies, groups and machines."
	SettingsSaved      = "Settings saved. Machines learn of them at once."
	SettingsSave       = "Save settings"
	SettingsReadOnly   = "Only owners change settings. You see them as they are."
	SetContact         = "Whom people call"
	SetContactHint     = "One line, such as “IT service desk, extension 4711”. It is shown with every refusal, at the sign-in screen too and without the server."
	SetServerURL       = "Address for machines"
	SetServerURLHint   = "https://HOST:PORT under which machines reach this server. It goes into join tokens; machines that have joined keep theirs."
	SetPeopleURL       = "Address for people"
	SetPeopleURLHint   = "https://HOST or https://HOST:PORT under which browsers and phones reach this server. Links and QR codes lead there. Passkeys are bound to its host: with another host name they no longer work, and they need a name, not an IP address."
	SetAttestation     = "New passkeys"
	SetAttestationHint = "Whether a new passkey must say which model of authenticator holds it (attestation). Browsers ask people about that, and passkeys that are copied between devices say nothing."
	SetAttestNone      = "Any: they need not say which model they are"
	SetAttestDirect    = "Only those that say which model they are"
	SetModels          = "Models of authenticators"
	SetModelsHint      = "AAGUIDs between commas: only these may be registered, where models must be said. Empty: any."
	SetProxy           = "Proxy"
	SetProxyHint       = "http://HOST:PORT or https://HOST:PORT through which notices to phones and text messages leave for the Internet. Empty: what the server was started with. What stands in a network of your own is reached straight."
	SetPushNets        = "Networks of a push service of your own"
	SetPushNetsHint    = "Networks between commas, such as 10.1.2.3/32, that notices to phones may reach beside the Internet. A phone chooses host, port and path there: name the push service alone, and none of this server’s own (127.0.0.0/8) but where it stands there. Empty: what the server was started with."
	SetMinAgent        = "Oldest agent version"
	SetMinAgentHint    = "Machines with an older agent are called outdated, here and in lists. Leave it empty to call none so."
	SetFixed           = "Fixed limits"
	SetFixedLead       = "These are part of the program, so that nobody loosens them by mistake."
	SetIdle            = "Session without use"
	SetAbsolute        = "Session altogether"
	SetFresh           = "Second factor counts as fresh for"
	SetApproval        = "Approval by a second owner"
	SetMore            = "Listeners, certificate and database stand in the server’s own configuration file (server.toml): see “latchkeyd serve --help”."
)

// Status.
const (
	StatusTitle    = "Status"
	StatusLead     = "How this server is."
	StatusVersion  = "Version"
	StatusEngine   = "Database"
	StatusReplica  = "This server’s event chain"
	StatusTime     = "Server time"
	StatusCA       = "Fingerprint of the CA (SHA-256)"
	StatusCAHint   = "Machines pin it: compare it with what a join shows."
	StatusCAFile   = "The certificate, for curl --cacert and for browsers (latchkey-ca.pem)"
	StatusMachines = "Machines by state"
	StatusYou      = "You"
	StatusReady0   = "State"
	NotReady       = "Not ready"
	StatusLog      = "Event log"
	StatusLogLead  = "Each event carries the hash of the one before it. This server checks what is new every minute; the whole log, with the marks that you keep elsewhere, is checked by “latchkey events verify”."
)

// API.
const (
	APITitle  = "API"
	APILead   = "Everything that the console does is an operation of this API. Programs use an API token, people can sign in with “latchkey login”."
	APITokens = "API tokens"
	APIFile   = "openapi.json"
	APIParams = "Parameters"
	APIBody   = "Body"
	APIAnswer = "Answer"
	APINone   = "The description of the API is not available at the moment."
	APIFilter = "Find an operation, a path or a word"
	APIStart  = "First steps"
)

// APINotes are the rules that hold for all operations.
var APINotes = []string{
	"Send the token as “Authorization: Bearer lk_…”. It has at most its maker’s rights, and less where its scopes say so.",
	"Lists give at most 50 entries (limit: up to 500) and a cursor: the next page is asked for with after.",
	"What can be changed carries an ETag. Send it as If-Match: when somebody else was faster, the answer is 412 and nothing is changed.",
	"A POST with an Idempotency-Key is done once, however often it is sent within 24 hours.",
	"Every answer that is not 2xx is a problem (RFC 9457) with a stable code, a sentence, and every field at fault.",
	"Wherever a path asks for an id, the exact name will do. Times are RFC 3339 in UTC.",
}

// Search.
const (
	SearchTitle = "Search"
	SearchLabel = "Name of a user, machine or page"
	KindUser    = "User"
	KindMachine = "Machine"
	KindPage    = "Page"
)
