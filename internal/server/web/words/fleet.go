package words

import "strings"

// Machines: labels.
const (
	FleetStatus       = "Status"
	FleetAgent        = "Agent"
	FleetOS           = "Operating system"
	FleetTPM          = "Protection"
	FleetOwner        = "Owner"
	FleetMode         = "MFA on this machine"
	FleetHostname     = "Host name"
	FleetNumber       = "Number"
	FleetAssigned     = "Assigned users"
	FleetKey          = "Its key"
	FleetCertificate  = "Certificate"
	FleetLink         = "Connection"
	FleetAddress      = "Last address"
	FleetJoined       = "Joined"
	FleetUnknownUsers = "Names that the server does not know"
	FleetOnlyAssigned = "Only the assigned users may sign in"
	FleetTrust        = "Trust"
	FleetKept         = "Kept"
	FleetUrgency      = "How urgent"
	FleetEnrolled     = "Set up"
	FleetSynced       = "Renewed"
	FleetTriesLeft    = "Tries left"
	FleetOpened       = "Opened"
	FleetNextStep     = "Next step"
	FleetChoose       = "Choose"
	FleetChoice       = "Choice"
	FleetMadeBy       = "Made by"
	FleetSilent       = "Not heard of"

	FleetAnyStatus  = "Any status"
	FleetAnySilence = "Heard of at any time"
	FleetAnyOS      = "Any system"
	FleetAnyTPM     = "Any protection"
	FleetAnyMode    = "Any MFA mode"
	FleetAnyClass   = "Kept anywhere"
)

// The words of machines.
var (
	FleetModes      = map[string]string{"normal": "As the policies say", "enforced": "Enforced", "exempt": "Exempt"}
	FleetTPMs       = map[string]string{"tpm": "TPM", "software": "Software", "none": "None"}
	FleetTokenKinds = map[string]string{"single": "One machine", "mass": "Many machines"}
)

// The list of machines.
const (
	FleetJoin         = "Join a machine"
	FleetFilterPrefix = "Name begins with…"
	FleetOutdated     = "Outdated"
	FleetEmptyTitle   = "No machines yet"
	FleetEmptyText    = "Make a join token, then paste it on the machine where the agent is installed."
	FleetNoneTitle    = "No machine fits"
	FleetNoneText     = "No machine matches these filters. Clear them, or type only the beginning of the name as it is written."
	FleetConnected    = "Connected"
	FleetNotConnected = "Not connected"
	FleetNeverSeen    = "Never heard of"
	FleetTPMProblem   = "TPM trouble"
	FleetPendingLink  = "Look at them"

	FleetPending           = "Machines that wait for approval"
	FleetPendingLead       = "They have joined with a token for many machines. Nobody signs in through them before somebody approves. Compare host name and address with what you know."
	FleetPendingEmptyTitle = "No machine waits"
	FleetPendingEmptyText  = "Machines that join with a token for many machines stand here until somebody approves them."
	FleetApprove           = "Approve"
	FleetRefuse            = "Refuse"
	FleetRefuseText        = "It is told so, and may join again with a new token only."
	FleetRemoved           = "The machine was removed. Its events stay."
)

func FleetPendingCount(n int64) string {
	if n == 1 {
		return "1 machine waits for approval"
	}
	return plural(int(n), "machine") + " wait for approval"
}

func FleetSilentFor(span string) string { return "Silent for " + span }

func FleetUsersCount(n int64) string {
	if n == 0 {
		return "—"
	}
	return plural(int(n), "user")
}

func FleetApproveTitle(name string) string { return "Approve " + name + "?" }

func FleetApproveText(hostname, address string) string {
	return "From now on people sign in through it by the policies. It calls itself " + quoted(hostname) + " and was last heard of from " + quoted(address) + "."
}

func quoted(s string) string {
	if s == "" {
		return "nothing"
	}
	return "“" + s + "”"
}

func FleetRefuseTitle(name string) string { return "Refuse " + name + "?" }

func FleetApproved(name string) string { return name + " was approved." }

func FleetRefused(name string) string { return name + " was refused." }

func FleetMachineChanged(name string) string {
	return name + " was changed, and is told at once if it is connected."
}

func FleetModeIsNow(name, mode string) string { return name + ": " + mode + "." }

func FleetRevoked(name string) string {
	return name + " is revoked: it is refused from now on and wipes its offline data as soon as it hears so."
}

func FleetLifted(n int) string {
	if n == 0 {
		return "There was no offline data whose counters could be lifted."
	}
	return "The counters of " + plural(n, "pair") + " of user and machine are lifted as soon as the machine is connected."
}

func FleetWindowsEnded(n int) string { return plural(n, "MFA window") + " ended." }

// A machine's page.
const (
	FleetWaitsTitle       = "This machine waits for approval"
	FleetExemptText       = "This machine is exempt: the password alone lets people in here, also when the server can not be reached."
	FleetSigninsEmptyText = "As soon as somebody signs in here, each try stands here with the reason of its decision."
	FleetOnlyThese        = "Only these"
	FleetEverybody        = "Everybody"
	FleetClaimed          = "Claimed: the machine says so, and the TPM's maker has not been asked to prove it."
	FleetNoCertificate    = "none that is good"
	FleetCertificateOver  = "expired; it may only renew"
	FleetOwnerHint        = "Name of a user, or empty."
	FleetOnlyAssignedHint = "Everybody else is refused here, whatever their factors."
	FleetAssignedHint     = "Names of users, one a line. The machine's offline policy names them even before their first sign-in."
	FleetUnknownDeny      = "Deny"
	FleetUnknownDenyHint  = "Whoever has no account here does not get in."
	FleetUnknownSkip      = "Leave it to the machine"
	FleetUnknownSkipHint  = "The machine's own sign-in decides alone, without a second factor."
	FleetNormalHint       = "The policies of the people who sign in decide."
	FleetEnforcedHint     = "The second factor is asked for whatever users, groups and policies say, also when the server can not be reached."
	FleetExemptHint       = "No second factor is asked for here."
	FleetNoWindows        = "Nobody has an open window here."
	FleetEndWindow        = "End it"
	FleetEndWindows       = "End all windows here"
	FleetEndWindowsText   = "At the next sign-in the second factor is asked for again. Connections that need a window do not come back without one."
	FleetLose             = "Report as lost or stolen"
	FleetLoseText         = "It is refused for good and wipes its offline data when it hears so. Windows and certificates end. You are shown which authenticators have data on it and want to be replaced."
	FleetReasonHint       = "It stands in the event log. May be empty."
	FleetRevoke           = "Revoke"
	FleetRevokeText       = "It is refused for good and wipes its offline data when it hears so. To use it again it has to join with a new token."
	FleetRemove           = "Remove from the list"
	FleetRemoveText       = "The server forgets it. Its events stay."
	FleetReseed           = "Authenticators with data on this machine"
	FleetReseedText       = "Whoever has the machine may try at what lies on it. An authenticator: its user enrols a new one in the portal, then removes the old one. Backup codes: their user makes new ones there, which end the old."
	FleetReseedDo         = "What the help desk does on the user’s page: “Mark as lost” ends an authenticator at once, and an enrolment code lets its user enrol a new one. What is lost or replaced is no longer in this list."
	FleetReseedNone       = "No authenticator and no backup code that is still good has data on this machine. Nothing needs to be replaced."
	FleetUrgent           = "Now: the disk and the password may be enough"
	FleetSoon             = "Soon: the TPM allows few tries"
	FleetBackToMachine    = "To the machine"
	FleetLift             = "Lift the counters"
	FleetLiftText         = "Sign-ins and tries are counted from the start again, as soon as the machine is connected. Days are not added: only a sign-in with a second factor does that."
	FleetLiftWanted       = "being lifted"

	FleetOfflineHere           = "Offline data on this machine"
	FleetOfflineHereEmptyTitle = "Nobody can sign in here offline with a second factor"
	FleetOfflineHereEmptyText  = "Data is set up at a person's next sign-in with a second factor while the server can be reached."
	FleetOfflineGoneTitle      = "No offline data on this machine counts any more"
	FleetOfflineGoneText       = "The machine is no longer trusted: nothing is set up here any more, and it wipes what it has when it hears so. Until then it may still be there; the list above says whose."
)

func FleetWaitsText(hostname, address string) string {
	return "It calls itself " + quoted(hostname) + " and was last heard of from " + quoted(address) + ". Nobody signs in through it before somebody approves."
}

func FleetOutdatedText(version, least string) string {
	return "The agent is outdated: version " + version + ", at least " + least + " is wanted. Update the package on the machine."
}

func FleetKeyWhere(inTPM bool) string {
	if inTPM {
		return "in the TPM (claimed)"
	}
	return "in a file"
}

func FleetVaultProblem(what string) string { return "Its offline data: " + what }

func FleetTPMProblemText(what string) string { return "Its TPM: " + what }

func FleetLoseTitle(name string) string { return "Report " + name + " as lost?" }

func FleetRevokeTitle(name string) string { return "Revoke " + name + "?" }

func FleetRemoveTitle(name string) string { return "Remove " + name + "?" }

func FleetLostTitle(name string) string { return name + " is reported lost" }

func FleetLostText(name string) string {
	return name + " is refused from now on. Its windows and certificates have ended."
}

// Join tokens.
const (
	FleetJoinLead         = "A machine becomes one of this server's with a token: install the agent, then paste the token."
	FleetTokenNew         = "New join token"
	FleetTokenKind        = "For"
	FleetTokenSingle      = "One machine"
	FleetTokenSingleHint  = "Good once. The machine is active as soon as it has joined."
	FleetTokenMass        = "Many machines"
	FleetTokenMassHint    = "Good any number of times, for images and scripts. Each machine waits for approval."
	FleetTokenNameHint    = "The machine's name; empty: its host name."
	FleetServerURL        = "Address of the machines' listener"
	FleetServerURLHint    = "As machines reach it: https://HOST:PORT. The server's own setting stands here."
	FleetNoURL            = "The server does not know under which address machines reach it. Type it below, or set it in the settings."
	FleetTokenMake        = "Make the token"
	FleetTokenTitle       = "Join token"
	FleetTokenJoin        = "On the machine, with the programs latchkey-agent and latchkey installed:"
	FleetTokenPaste       = "It asks for the join token. Paste it:"
	FleetTokenRun         = "Start the agent. It runs in the foreground; at boot it is started by the system, packaging/systemd shows how."
	FleetTokenApprove     = "Approve the machine:"
	FleetTokenTry         = "Try a sign-in in a second terminal, with the name of somebody who has an account there, too. It changes nothing of the machine:"
	FleetTokenThen        = "When that works, let sudo, ssh and login ask Latchkey: packaging/pam holds the lines for /etc/pam.d. Keep a root shell open until a new sign-in has worked."
	FleetGuessedURL       = "The address of the machines' listener is a guess, from the address in your browser. See that the machine can reach it; in the settings you fix it for all."
	FleetTokens           = "Tokens"
	FleetTokensEmptyTitle = "No tokens"
	FleetTokensEmptyText  = "Tokens that were made stand here until a while after they expire. Their texts are kept by nobody."
	FleetTokenHostname    = "(by its host name)"
	FleetTokenMachine     = "the machine"
	FleetTokenUsed        = "used"
	FleetTokenOver        = "expired"
	FleetTokenOpen        = "open"
	FleetWithdraw         = "Withdraw"
	FleetWithdrawTitle    = "Withdraw this token?"
	FleetWithdrawText     = "It becomes worthless. Machines that have joined with it stay."
	FleetTokenWithdrawn   = "The token was withdrawn."
	FleetToMachines       = "To the machines"
)

// The offline report.
const (
	FleetOfflineTitle      = "Offline enrolment"
	FleetOfflineLead       = "Whose data for signing in without the server lies on which machine, and how long it lasts, as far as the machines have told."
	FleetPlaneLink         = "Who would be stuck today"
	FleetExport            = "Export CSV"
	FleetExportCut         = "# The export ended early: this is not all. Try again."
	FleetFilterUser        = "User"
	FleetFilterMachine     = "Machine"
	FleetOfflineEmptyTitle = "No offline data yet"
	FleetOfflineEmptyText  = "At a person's first sign-in with a second factor on a machine the data is set up by itself, where the policy allows it."
	FleetOfflineNoneTitle  = "Nothing fits"
	FleetOfflineNoneText   = "No offline data of this user on this machine. Names are exact: upper and lower case matter."
	FleetWipeChosen        = "Wipe the chosen"
	FleetLiftChosen        = "Lift the counters of the chosen"
	FleetChosenHint        = "Wiping takes effect as soon as the machine is in contact with the server."
	FleetAllOfAll          = "everybody, on all machines"
)

func FleetChoosePair(user, machine string) string { return "Choose " + user + " on " + machine }

func FleetAllOfUser(user string) string { return "all of " + user }

func FleetAllOfMachine(machine string) string { return "all on " + machine }

func FleetAllOfBoth(user, machine string) string { return user + " on " + machine }

func FleetWipe(what string) string { return "Wipe " + what }

func FleetLiftAll(what string) string { return "Lift the counters: " + what }

// On a plane.
const (
	FleetPlaneTitle      = "Who would be stuck on a plane today"
	FleetPlaneLead       = "If the server were out of reach now, these people could not sign in at the seat of machines that know them. Each row says why, and what mends it."
	FleetPlaneEmptyTitle = "Nobody would be stuck"
	FleetPlaneEmptyText  = "Everybody could sign in today on the machines that know them, without the server."
	FleetPlaneEndTitle   = "That is all"
	FleetPlaneEndText    = "There is nobody behind this."
	FleetPlaneMore       = "Nobody among those that were looked at so far. Go on to the next page."
)

func FleetSentence(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// Windows.
const (
	FleetWindowsLead       = "After a full sign-in people are not asked again on the same machine for a while. A window ends at once here."
	FleetWindowsEmptyTitle = "No open windows"
	FleetWindowsEmptyText  = "A window opens when somebody signs in with a second factor, if the policy sets one."
	FleetEndFiltered       = "End these windows"
	FleetEndAll            = "End all windows of everybody"
)
