package words

import (
	"fmt"
	"strings"
)

// What administrators and the help desk do with users, groups and machines.

// Labels.
const (
	DeskUser          = "User"
	DeskName          = "Name"
	DeskUserName      = "User name"
	DeskDisplayName   = "Display name"
	DeskMail          = "Mail address"
	DeskRole          = "Role"
	DeskState         = "State"
	DeskMFA           = "2FA"
	DeskMFALong       = "Two-factor authentication"
	DeskMFASetting    = "2FA setting"
	DeskFactor        = "Factor"
	DeskFactors       = "Factors"
	DeskFactorsTitle  = "Factors and codes"
	DeskGroup         = "Group"
	DeskMembers       = "Members"
	DeskIdentity      = "Identity"
	DeskPassword      = "Password"
	DeskPasswordAgain = "Password again"
	DeskActivation    = "Becomes active"
	DeskActivateAt    = "Active from"
	DeskUID           = "Account number (uid)"
	DeskAdded         = "Added"
	DeskID            = "Id"
	DeskActions       = "Actions"
	DeskLastUsed      = "Last used"
	DeskLastSeen      = "Last heard of"
	DeskUntil         = "until"
	DeskUntilCol      = "Until"
	DeskTakeOut       = "Take out"
	DeskSince         = "since"
	DeskValidUntil    = "Good until"
	DeskValidFor      = "Good for"
	DeskReason        = "Reason"
	DeskScope         = "For"
	DeskAlgorithm     = "Algorithm"
	DeskDigits        = "Digits"
	DeskPeriod        = "Seconds per code"
	DeskMachine       = "Machine"
	DeskWhere         = "Where"
	DeskFailures      = "Wrong tries"
	DeskSettings      = "Settings"
	DeskOn            = "on"
	DeskOff           = "off"
	DeskSave          = "Save"
	DeskEdit          = "Edit"
	DeskAdd           = "Add"
	DeskRemove        = "Remove"
	DeskUnlock        = "Unlock"
	DeskWhy           = "Why"
	DeskAccount       = "Account"
	DeskHelpDesk      = "Help desk"
	DeskMoreSettings  = "More settings"
	DeskAnyState      = "Any state"
	DeskAnyRole       = "Any role"
	DeskAnyMFA        = "Any 2FA setting"
	DeskAnyScope      = "any sign-in"
)

// The words of states and roles.
var (
	DeskUserStates = map[string]string{
		"active": "Active", "disabled": "Disabled", "locked": "Locked out", "unenrolled": "Without authenticator", "waiting": "Not active yet",
	}
	DeskRoles = map[string]string{
		"none": "None", "auditor": "Auditor", "helpdesk": "Help desk", "administrator": "Administrator", "owner": "Owner",
	}
	DeskRoleHints = map[string]string{
		"none":          "Signs in to machines and uses the portal.",
		"auditor":       "Sees everything but secrets, and changes nothing.",
		"helpdesk":      "Unlocks, hands out codes, reports machines lost, signs people out.",
		"administrator": "Users, groups, policies, machines and offline data.",
		"owner":         "Everything, also the settings of the server.",
	}
	DeskMFASettings   = map[string]string{"inherit": "As the groups say", "on": "On", "off": "Off"}
	DeskActivations   = map[string]string{"now": "At once", "first-login": "At the first sign-in", "at": "At a time"}
	DeskFactorKinds   = map[string]string{"fido2": "Security key or passkey", "push": "Latchkey Authenticator", "totp": "Authenticator app", "mail": "Code by mail", "sms": "Code by text message", "backup": "Backup codes", "bypass": "Bypass code", "enrol": "Enrolment code"}
	DeskFactorStates  = map[string]string{"usable": "Usable", "unconfirmed": "Waits for its first code", "lost": "Lost", "used up": "Used up", "locked": "Locked"}
	DeskScopes        = map[string]string{"logon": "sign-in", "elevation": "elevation", "remote": "remote sign-in"}
	DeskMachineStates = map[string]string{"pending": "Waits for approval", "active": "Active", "revoked": "Revoked", "lost": "Lost"}
	DeskOfflineStates = map[string]string{
		"activating": "Being set up", "active": "Ready", "outdated": "Outdated", "expired": "Days used up", "used up": "Sign-ins used up", "shut": "Shut",
		"shut remotely": "Shut for remote", "disenrolling": "Being wiped", "retired": "Replaced",
	}
)

// Users.
const (
	DeskUserNew            = "Add a user"
	DeskUserAdd            = "Add user"
	DeskUserFilterPrefix   = "Name begins with…"
	DeskUsersEmptyTitle    = "No users yet"
	DeskUsersEmptyText     = "Add the first person by hand, or import many from a file or a database. Then they enrol an authenticator in the portal."
	DeskUsersNoneTitle     = "Nobody fits"
	DeskUsersNoneText      = "No user matches these filters. Clear them, or type only the beginning of the name."
	DeskUserNameHint       = "Exactly as it will be typed at machines; upper and lower case matter."
	DeskDisplayNameHint    = "How people call them."
	DeskMailHint           = "For notes about their account."
	DeskGroupsHint         = "Names of groups, separated by commas. They must exist."
	DeskFirstPassword      = "First password"
	DeskFirstPasswordHint  = "Leave it empty where the machine judges the password itself. Without a password here, nobody signs in to the portal: enrol an authenticator for them on their page, an enrolment code is of no use."
	DeskMustChange         = "Must be changed at the next sign-in"
	DeskMustChangeHint     = "Whoever has a second factor gives it first."
	DeskMustChangeShort    = "must be changed"
	DeskRoleHint           = "What they may do in this console. " + DeskOwnerSteps
	DeskMFASettingHint     = "Their own setting wins over that of their groups."
	DeskActivateAtHint     = "In UTC. Only with “At a time”."
	DeskUIDHint            = "Their number on the machines, where it is the same everywhere. May be empty."
	DeskFirstSigninAwaited = "First sign-in awaited"
	DeskNoPassword         = "no password"
	DeskSetAt              = "set"
)

// DeskUserAdded and the like are the notices after an action.
func DeskUserAdded(name string) string {
	return name + " was added. Next, a second factor: give them an enrolment code (“Factors and codes”), or enrol an authenticator here."
}

func DeskUserChanged(name string) string { return name + " was changed." }

func DeskMFAIsNow(name string, on bool) string {
	if on {
		return "2FA is on for " + name + "."
	}
	return "2FA is off for " + name + ": the password alone lets them in."
}

func DeskRoleIsNow(name, role string) string { return name + " has the role " + role + " now." }

func DeskUserDisabled(name string) string {
	return name + " is disabled: windows and sessions have ended, and machines are told."
}

func DeskUserEnabled(name string) string { return name + " may sign in again." }

func DeskUserRemoved(name string) string { return name + " was removed." }

func DeskUnlocked(n int) string {
	if n == 0 {
		return "There was no lock-out any more."
	}
	return plural(n, "lock-out") + " lifted."
}

func DeskInGroup(name string) string { return "Now in the group " + name + "." }

func DeskOutOfGroup(name string) string { return "No longer in the group " + name + "." }

func DeskSignedOut(windows, sessions, tokens, certificates int) string {
	return plural(windows, "MFA window") + ", " + plural(sessions, "session") + ", " + plural(tokens, "API token") + " and " + plural(certificates, "certificate") + " ended."
}

func DeskSignedOutSelf(windows, sessions int) string {
	return plural(windows, "MFA window") + " and " + plural(sessions, "session") + " ended. API tokens and certificates of your own stay: end those in the portal."
}

func DeskWindowsEndedOnly(n int) string {
	return plural(n, "MFA window") + " ended. Their sessions, API tokens and certificates stay: that needs a higher role."
}

func DeskDisenrolled(n int) string {
	if n == 0 {
		return "There was no offline data to wipe."
	}
	return "Offline data of " + plural(n, "pair") + " of user and machine is wiped: at once where the machine is connected, else at its next contact."
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Notices without a name.
const (
	DeskPasswordSet   = "The password was set. Windows have ended, and offline data made with the old one is refused."
	DeskFactorRemoved = "It was removed. Offline data made with it is wiped at the machines' next contact."
	DeskFactorLost    = "It is marked as lost and accepted nowhere any more."
	DeskSessionEnded  = "The session was ended."
	DeskApprovalAsked = "The other owners were asked. When one of them has approved, come back here and do it."
)

// Of a user's page.
const (
	DeskBlockedTitle  = "Some actions are not offered"
	DeskNotFreshTitle = "Confirm with a code before you change something"
	DeskNotFreshText  = "What lets somebody in or takes something away asks for a second factor of yours that is at most five minutes old."
	DeskNotFreshLink  = "Confirm now"
	DeskLockedTitle   = "Locked out or made to wait"
	DeskLockedUntil   = "Locked until"
	DeskWaitsUntil    = "Waits until"

	DeskFactorsEmptyTitle = "No second factor yet"
	DeskFactorsEmptyText  = "Hand out an enrolment code, with which they enrol an authenticator in the portal, or enrol one here and show them the QR code."
	DeskMarkLost          = "Mark as lost"
	DeskMarkLostTitle     = "Mark this authenticator as lost?"
	DeskMarkLostText      = "It is accepted nowhere any more, at once. Offline data made with it is wiped. It stays in this list until it is removed."
	DeskTOTPAdd           = "New authenticator"
	DeskTOTPAddText       = "Makes a key for an authenticator app. The QR code is shown once: the person should be with you, or you send it over a safe way."
	DeskTOTPMake          = "Make the QR code"
	DeskTOTPNameHint      = "To tell it from others, such as “phone”. May be empty."
	DeskTOTPFirst         = "Usable only after a first code"
	DeskTOTPFirstHint     = "The first right code at a sign-in confirms that the app was set up."
	DeskAlgorithmHint     = "Some apps know SHA1 only."
	DeskBackupAdd         = "New backup codes"
	DeskBackupAddText     = "Makes ten codes, each good once. Codes made earlier no longer work, and windows end."
	DeskBackupMake        = "Make ten codes"

	DeskOfflineReport          = "Offline report"
	DeskUserMachinesEmptyTitle = "No machine knows this user"
	DeskUserMachinesEmptyText  = "A machine gets to know somebody at the first sign-in while the server can be reached, or when they are assigned to it."
	DeskTheirOwn               = "their own"
	DeskOfflineData            = "Offline data"
	DeskDaysLeft               = "Days left"
	DeskSigninsLeft            = "Sign-ins left"
	DeskNotEnrolled            = "none"
	DeskDisenrol               = "Wipe"
	DeskDisenrolAll            = "Wipe offline data on all machines"
	DeskDisenrolText           = "The data is wiped as soon as the machine is in contact with the server. Until the next sign-in with a second factor there, nobody signs in offline with it."

	DeskRecentSignins     = "Recent sign-ins"
	DeskAllEvents         = "All events"
	DeskSigninsEmptyTitle = "No sign-ins yet"
	DeskSigninsEmptyText  = "As soon as they sign in at a machine, each try stands here with the reason of its decision."
	DeskExplainLink       = "Explain what would happen at a sign-in"
	DeskNoTrace           = "This event has no trace: the try ended before a decision."
	DeskWholeEvent        = "The whole event"

	DeskEnrolCode         = "Enrolment code"
	DeskEnrolCodeAsk      = "A one-time code with which they enrol a factor in the portal, beside their password. Make sure that you speak with the right person."
	DeskEnrolCodeTitle    = "Enrolment code"
	DeskEnrolCodeText     = "Tell them this code, and the address. They open the portal, type name and password, and then the code."
	DeskEnrolNoPassword   = "This user has no password here, and the portal asks for it before the code: the code is of no use until you set a password. Or add an authenticator here and show them the QR code."
	DeskEnrolGive         = "Give an enrolment code"
	DeskPortal            = "Portal"
	DeskItsYou            = "This is you"
	DeskItsYouText        = "Your password, factors, machines and sessions are in"
	DeskItsYouElse        = "What belongs to your rank, another person with a higher role changes, or two other owners."
	DeskNeedsOwner        = "These need another owner’s approval first. Ask for it under “Help desk”; when it is given, its form stands here."
	DeskOwnerSteps        = "Another owner is made in steps: add them with the role None, let them enrol a second factor, then give them the role Owner on their page. Once there are two owners, the factors of an owner need an approval."
	DeskBypassCode        = "One-time bypass code"
	DeskBypassCodeAsk     = "Stands in for the second factor of one sign-in at a machine. It never opens the console or the portal. Make sure that you speak with the right person."
	DeskBypassCodeTitle   = "Bypass code"
	DeskBypassCodeText    = "Tell them this code. At the next sign-in they type it where the second factor is asked for."
	DeskMakeCode          = "Make the code"
	DeskReasonHint        = "It stands in the event log, such as a ticket's number."
	DeskSignOutEverywhere = "Sign out everywhere"
	DeskLostMachineLink   = "Report a machine of theirs as lost"
	DeskShownOnce         = "This is shown only now. Whoever loses it needs a new one."
	DeskBackToUser        = "Back to the user"
	DeskTOTPTitle         = "New authenticator"
	DeskTOTPKey           = "Or they type this key into the app:"
	DeskTOTPUnconfirmed   = "It counts as soon as its first code was given at a sign-in."
	DeskBackupTitle       = "Backup codes"
	DeskAskApproval       = "Ask for a second owner's approval"
	DeskAskApprovalText   = "For somebody of your own role you need another owner who says yes. You, the approver and this user are three people. An approval is good for fifteen minutes and for one action."
	DeskApprovalFor       = "To be approved"
	DeskApprovedUse       = "Another owner has approved this. It is used up when you go on."

	DeskNoGroups      = "In no group."
	DeskPutIntoGroup  = "Put into the group"
	DeskSessionsTitle = "Sessions"
	DeskNoSessions    = "Not signed in to the console or the portal."
	DeskThisSession   = "this one"
	DeskEndSession    = "End it"

	DeskChangeRole      = "Change the role"
	DeskChangeRoleText  = "It counts from the next request on, also for sessions and API tokens that are open."
	DeskSetPassword     = "Set a password"
	DeskSetPasswordText = "Windows end, and offline data made with the old password is refused until they sign in with the new one while the server can be reached."
	DeskDisable         = "Disable"
	DeskDisableText     = "They can not sign in anywhere any more. Windows and sessions end at once, connected machines learn it at once, others at their next contact. Nothing is deleted."
	DeskEnable          = "Enable"
	DeskEnableText      = "They can sign in again as before."
	DeskRemoveUser      = "Remove the user"
	DeskRemoveUserText  = "Account, factors and offline data go. Machines wipe it at their next contact. Events stay. This can not be undone."
)

func DeskMFABecause(why string) string {
	if why == "" {
		return ""
	}
	return strings.ToUpper(why[:1]) + why[1:] + "."
}

// The settings of 2FA.
const (
	DeskMFAInheritHint = "On where one of the groups says on; off where one says off and none says on; else on."
	DeskMFAOnHint      = "Whatever the groups say."
	DeskMFAOffHint     = "The password alone lets them in, unless the machine is enforced."
)

func DeskLockedAt(machine string, n int64) string {
	return fmt.Sprintf("%s: %d wrong tries.", machine, n)
}

func DeskLockedAcross(n int64) string {
	return fmt.Sprintf("Across machines: %d wrong tries.", n)
}

func DeskOnlyFor(scope string) string { return "only for " + scope }

func DeskCodesLeft(n int) string { return fmt.Sprintf("%d left", n) }

func DeskFactorRemoveTitle(what string) string { return "Remove: " + what + "?" }

func DeskFactorRemoveText(kind string) string {
	switch kind {
	case "bypass", "enrol":
		return "The code no longer works."
	case "backup":
		return "None of the codes works any more, and offline data made with them is wiped."
	}
	return "Its codes are no longer accepted, windows end, and offline data made with it is wiped. If it was the last one, the user needs an enrolment code."
}

func DeskDisenrolTitle(user, machine string) string {
	return "Wipe the offline data of " + user + " on " + machine + "?"
}

func DeskDisenrolAllTitle(user string) string {
	return "Wipe the offline data of " + user + " on all machines?"
}

func DeskAllMachinesOf(user string) string { return "All machines that know " + user }

func DeskSigninOutcome(typ string) string {
	switch typ {
	case "signin.allowed":
		return "Allowed"
	case "signin.denied":
		return "Denied"
	case "signin.left_to_machine":
		return "Left to the machine"
	case "signin.abandoned":
		return "Given up"
	}
	return "Refused"
}

func DeskSigninWhere(machine, scope, factor string) string {
	out := machine
	if scope != "" {
		out += ", " + scope
	}
	if f := DeskFactorKinds[factor]; f != "" {
		out += ", " + f
	}
	return out
}

func DeskSignOutEverywhereText(windows, sessions int, self bool) string {
	ends := plural(windows, "open MFA window") + ", " + plural(sessions, "session") + ", and all API tokens and certificates"
	if self {
		ends = plural(windows, "open MFA window") + " and your other sessions"
	}
	return ends + " end at once. At the next sign-in the second factor is asked for again, on every machine."
}

func DeskHours(n int) string { return plural(n, "hour") }

func DeskDays(n int) string { return plural(n, "day") }

func DeskMinutes(n int) string { return plural(n, "minute") }

func DeskQRLabel(user string) string { return "QR code for an authenticator app of " + user }

func DeskTOTPText(user string) string {
	return user + " opens an authenticator app, chooses to add an account, and points the camera at this code."
}

func DeskBackupText(user string) string {
	return "Ten codes for " + user + ", each good once. They are to be kept on paper or in a safe place apart from the phone."
}

func DeskOpenWindows(n int) string { return plural(n, "MFA window") + " open." }

// DeskSessionWhere says what somebody is signed in to, and from where.
func DeskSessionWhere(cli, console bool, address string) string {
	switch {
	case cli:
		return SessionCLI + ", from " + address
	case console:
		return "Console, from " + address
	}
	return "Portal, from " + address
}

func DeskEnableTitle(name string) string { return "Let " + name + " sign in again?" }

func DeskDisableTitle(name string) string { return "Disable " + name + "?" }

func DeskRemoveUserTitle(name string) string { return "Remove " + name + " for good?" }

func DeskTypeName(name string) string { return "Type “" + name + "” to confirm" }

// DeskAndMore says how many are not shown.
func DeskAndMore(n int) string { return fmt.Sprintf(" and %d more", n) }

// Groups.
const (
	DeskGroupNew          = "Add a group"
	DeskGroupAdd          = "Add group"
	DeskGroupsEmptyTitle  = "No groups yet"
	DeskGroupsEmptyText   = "Groups carry policies and the 2FA setting of many people at once. Add one, then put people into it."
	DeskSaysNothing       = "Says nothing"
	DeskGroupInheritHint  = "Leaves it to other groups; without any, 2FA is on."
	DeskGroupOnHint       = "2FA is on for every member who has no setting of their own."
	DeskGroupOffHint      = "The password alone lets members in, unless another group says on or they have a setting of their own."
	DeskGroupRemoved      = "The group was removed. Its members stay users."
	DeskMembersEmptyTitle = "Nobody is in this group"
	DeskMembersEmptyText  = "Type names below to put people into it."
	DeskAddMembers        = "Put into the group"
	DeskAddMembersHint    = "Names of users, one a line or separated by commas, at most fifty."
	DeskMemberRemoved     = "The user was taken out of the group."
	DeskPoliciesOfGroup   = "Policies that name this group"
	DeskPoliciesNone      = "None. Members have the policy of another group, or the default policy."
	DeskRemoveGroup       = "Remove the group"
)

func DeskGroupAdded(name string) string {
	return "The group " + name + " was added. Put people into it."
}

func DeskGroupChanged(name string) string { return "The group " + name + " was changed." }

func DeskMembersCount(n int64) string { return plural(int(n), "member") }

func DeskMembersAdded(n int) string {
	if n == 0 {
		return "They were all in the group already."
	}
	return plural(n, "user") + " put into the group."
}

func DeskRemoveGroupTitle(name string) string { return "Remove the group " + name + "?" }

func DeskRemoveGroupText(members int64, policies []string) string {
	out := plural(int(members), "member") + " stay users."
	if len(policies) > 0 {
		out += " These policies no longer apply to them: " + strings.Join(policies, ", ") + "."
	}
	return out
}

// Lock-outs.
const (
	DeskLocksLead       = "Who is locked out after too many wrong codes or passwords, or must wait before the next try."
	DeskLocksEmptyTitle = "Nobody is locked out"
	DeskLocksEmptyText  = "After too many wrong tries people stand here until the time is over or somebody unlocks them."
	DeskAcrossMachines  = "across machines"
	DeskLockedOut       = "locked out"
	DeskMustWait        = "must wait"
)
