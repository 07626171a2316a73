package words

import (
	"fmt"
	"math"
)

// The portal: the pages on which people look after their own factors, machines and
// sign-ins.
const (
	MeTitle       = "Your account"
	MeNext        = "What to do next"
	MeNothing     = "Everything is set up"
	MeNothingText = "You can sign in with and without the network, and you have backup codes for the day you lose your phone."
	MeFactors     = "Second factors"
	MeMachines    = "Machines"
	MeSignins     = "Latest sign-ins"
	MeProfile     = "Name and mail"
	MeAllFactors  = "All factors"
	MeAllMachines = "All machines"
	MeAllSignins  = "All sign-ins"
	MeAccountName = "Account name"
	MeDisplayName = "Name to show"
	MeMail        = "Mail address"
	MeMailHint    = "For messages about your account. A change needs your second factor."
	MeNameHint    = "How others see you. Your account name stays as it is."
	MeSaved       = "Saved."
	MeChange      = "Change"
	MeSave        = "Save"
	MePassword    = "Password"
	MePasswordAge = "Changed"
	MeNoPassword  = "This server does not hold your password. Change it where you got it from."
	MeUnknown     = "not known"
	MeNoName      = "none given"
)

// The steps of Me.Steps: what is missing, why it matters, and where it is done.
var MeSteps = map[string]struct{ Title, Text, Do, Path, Kind string }{
	"change-password":      {"Choose a new password", "The one you have must be changed now.", "Change password", "/me/password", "bad"},
	"enrol":                {"Set up an authenticator app", "You have no second factor that can be used. Without one you can not sign in where one is asked for.", "Set up an app", "/me/factors/add", "bad"},
	"unconfirmed":          {"Give the first code", "An authenticator was made for you and has never been used. It becomes yours with its first code at a sign-in. If you do not know it, remove it.", "Show factors", "/me/factors", "warn"},
	"backup-codes":         {"Make backup codes", "They let you in when your phone is lost, broken or empty, also without the network. Do it now: without them only the help desk can help you then.", "Make backup codes", "/me/factors/backup", "warn"},
	"few-backup-codes":     {"Make new backup codes", "Few are left. Make ten new ones before you need them.", "Make new codes", "/me/factors/backup", "warn"},
	"second-authenticator": {"Add a second authenticator", "Set up the app on another phone or tablet too, so that losing one does not lock you out.", "Add another", "/me/factors/add", "info"},
	"offline-soon":         {"Connect a machine", "Signing in without the network will soon end on one of your machines. Sign in there once while it is connected.", "Show machines", "/me/machines", "warn"},
	"open-reports":         {"A report of yours is open", "The help desk has not closed it yet.", "Show reports", "/me/reports", "info"},
}

// Enrolment.
const (
	MyEnrolTitle     = "Set up your second factor"
	MyEnrolLead      = "It takes two minutes and your phone. From then on nobody gets in with your password alone."
	MyEnrolSteps     = "Steps"
	MyEnrolStepScan  = "Scan and confirm"
	MyEnrolStepCodes = "Backup codes"
	MyEnrolStepNext  = "What next"
	MyEnrolOne       = "Install an authenticator app"
	MyEnrolOneText   = "Any app for one-time codes will do, such as Google Authenticator, Microsoft Authenticator, Zoho OneAuth, Aegis or the code field of a password manager. Install it on your phone from the phone’s own store. Have one already? Use that."
	MyEnrolTwo       = "Scan this code with the app"
	MyEnrolTwoText   = "In the app choose “add account” or the plus sign, then “scan QR code”."
	MyEnrolQR        = "QR code for your authenticator app. If you can not scan it, type the key that stands below."
	MyEnrolOnce      = "This one code serves everywhere: in the browser, on every machine you sign in to, and also without the network. You do not scan it again for another machine."
	MyEnrolNoScan    = "I can not scan it"
	MyEnrolTyped     = "Choose “enter a setup key” in the app and type this key. Blanks do not matter."
	MyEnrolKey       = "Key"
	MyEnrolSettings  = "Settings"
	MyEnrolLink      = "On this phone itself"
	MyEnrolOpen      = "Open the app"
	MyEnrolThree     = "Type the code that the app shows"
	MyEnrolCode      = "Code from the app"
	MyEnrolName      = "Name of the app or phone"
	MyEnrolNameHint  = "So that you know it later, such as “work phone”. You may leave it empty."
	MyEnrolConfirm   = "Confirm"
	MyEnrolDifferent = "Other settings"
	MyEnrolDiffHint  = "Only if your device asks for them. Most apps know the first of each alone."
	MyEnrolAlgorithm = "Algorithm"
	MyEnrolDigits    = "Digits"
	MyEnrolPeriod    = "Seconds"
	MyEnrolAgain     = "Show a new code"
	MyEnrolOver      = "This took too long, or something about your account has changed meanwhile. Here is a new code: scan this one, and remove the entry of the old one from the app."
	MyEnrolDone      = "The app is set up."

	MyCodesTitle    = "Your backup codes"
	MyCodesLead     = "Ten codes for the day you do not have your phone. Each works once, at machines and in this portal, also without the network."
	MyCodesWhy      = "Keep them where you find them without your phone and without this computer: on paper in your purse, or in a password manager. Not on the machine that they open."
	MyCodesMake     = "Show my ten backup codes"
	MyCodesOnce     = "They are shown this once. Nobody, not even an administrator, can show them again."
	MyCodesKept     = "I have kept them"
	MyCodesKeptHint = "Copied, saved, printed or written down."
	MyCodesNotKept  = "You have not ticked that you have kept your codes. They can not be shown again: if you have them, go on; if not, make new ones, which end the old."
	MyCodesNext     = "Go on"
	MyCodesHaveThem = "I have them, go on"
	MyCodesMakeNew  = "Make new codes"
	MyCodesLater    = "Later"
	MyCodesReplaced = "The codes that you had before no longer work."
	MyCodesNone     = "You have no backup codes"
	MyCodesNoneText = "With them you get in when your phone is lost, broken or empty. Without them only the help desk can help you then."
	MyCodesAsk      = "Make ten new codes?"
	MyCodesAskText  = "All codes that you have now stop working at once, also those on paper. Machines that are not connected learn it at their next contact."
	MyCodesFile     = "latchkey-backup-codes.txt"
	MyCodesFirst    = "Each code works once. Cross it off when you have used it."
	MyCodesFresh    = "You will be asked for your second factor first."
	MyCodesNoScript = "Mark the codes to copy them, or use your browser’s menu to print this page."

	MyNextTitle     = "You are set up"
	MyNextLead      = "That was all. This is what happens from now on."
	MyNextMachine   = "At your machines"
	MyNextMachText  = "Type your password as always, then the code that the app shows. The same app serves all machines; there is nothing to set up on them."
	MyNextOffline   = "Without the network"
	MyNextOffText   = "After your first sign-in with the code on a machine it is prepared by itself: then password and code work there on a plane too, for some days. How many are left stands under Machines."
	MyNextLost      = "If you lose your phone"
	MyNextLostText  = "Sign in with a backup code, here or at a machine, mark the phone as lost under Factors and add the new one. Without a code ask the help desk."
	MyNextSecond    = "Better with two"
	MyNextSecText   = "Set up the app on a second device too, if you have one."
	MyNextGo        = "To your account"
	MyNextAddSecond = "Add a second device"
)

// Factors.
const (
	MyFactorsTitle       = "Your second factors"
	MyFactorsLead        = "What you give beside your password. One factor serves all your machines, with and without the network."
	MyFactorsApps        = "Apps, phones and addresses"
	MyFactorsAppsCaption = "Your apps, phones and addresses"
	MyFactorsBackup      = "Backup codes"
	MyFactorsAdd         = "Add an authenticator"
	MyFactorsNone        = "No authenticator yet"
	MyFactorsNoneText    = "Set up an app on your phone. It shows a new code every half minute, which you type behind your password."
	MyFactorName         = "Name"
	MyFactorState        = "State"
	MyFactorAdded        = "Added"
	MyFactorUsed         = "Last used"
	MyFactorKind         = "Kind"
	MyFactorUnnamed      = "Authenticator app"
	MyFactorRename       = "Rename"
	MyFactorRenamed      = "The name is changed."
	MyFactorRemove       = "Remove"
	MyFactorRemoveAsk    = "Remove this factor?"
	MyFactorRemoveText   = "It is accepted nowhere any more. Your other sessions end, and machines prepare themselves anew at your next sign-in there."
	MyFactorRemoved      = "The factor is removed, and accepted nowhere any more."
	MyFactorLose         = "I lost this"
	MyFactorLoseAsk      = "Mark this factor as lost?"
	MyFactorLoseText     = "It is refused everywhere from now on, and your other sessions end. Machines that are not connected learn it at their next contact."
	MyFactorLostDone     = "It is refused from now on. Add another factor, and tell the help desk if a machine is gone too."
	MyFactorLastOne      = "This is your only factor beside backup codes. Add another one first; then this one can be removed."
	MyFactorNameLabel    = "Name of the factor"
	MyFactorOpen         = "Open"
	MyFactorUsable       = "ready"
	MyFactorUnconfirmed  = "waits for its first code"
	MyFactorIsLost       = "lost: refused"
	MyFactorBackupLeft   = "Left"
	MyFactorAddTitle     = "Add an authenticator"
	MyFactorAddLead      = "The new one works beside those that you have."
)

// Machines.
const (
	MyMachinesTitle    = "Your machines"
	MyMachinesLead     = "Where you have signed in, and how far you get there without the network."
	MyMachinesCaption  = "Your machines"
	MyMachinesNone     = "No machines yet"
	MyMachinesNoneText = "A machine stands here after your first sign-in on it. Sign in there with your password and the code of your app; nothing else is to be set up."
	MyMachineName      = "Machine"
	MyMachineOffline   = "Without network"
	MyMachineDays      = "Days left"
	MyMachineSignins   = "Sign-ins left"
	MyMachineTries     = "Wrong tries left"
	MyMachineLast      = "Last sign-in"
	MyMachineSeen      = "Last contact"
	MyMachineState     = "State"
	MyMachineWindow    = "signed in"
	MyMachineEnrolled  = "Prepared"
	MyMachineUntil     = "Works until"
	MyMachineOS        = "System"
	MyMachineKnown     = "First sign-in"

	MyMachineDisenrol     = "Stop offline sign-in"
	MyMachineDisenrolAsk  = "Stop offline sign-in on this machine?"
	MyMachineDisenrolText = "What is stored there for you is wiped: at once if the machine is connected, else at its next contact. Without the network you can not sign in there until your next sign-in with it."
	MyMachineDisenrolled  = "Offline sign-in ends there: at once if the machine is connected, else at its next contact."
	MyMachineNoneThere    = "Nothing of you was stored there."
	MyMachineLose         = "I lost this machine"
	MyMachineLoseAsk      = "Report this machine lost?"
	MyMachineLoseMine     = "It is yours: it is no longer trusted from now on, by nobody’s account. What is stored there is useless once it asks the server. This can not be undone; to use the machine again it has to join anew."
	MyMachineLoseOthers   = "Your own data there is withdrawn at once, and the help desk is told to look after the rest, because others work on it too."
	MyMachineTold         = "What happened"
	MyMachineToldHint     = "Where and when, if you know. The help desk reads it."
	MyMachineLost         = "Reported lost"
	MyMachineReseed       = "Replace these factors"
	MyMachineReseedText   = "They are of use on the lost machine to somebody who also knows your password. Add a new one, then remove the old."
	MyMachineUrgent       = "soon: the machine kept it without a security chip"

	MyStatusPending = "waits for approval"
	MyStatusActive  = "in use"
	MyStatusRevoked = "no longer trusted"
	MyStatusLost    = "lost"
)

// OfflineStates say how offline sign-in stands on a machine: a word, what it means, and
// what to do.
var MyOfflineStates = map[string]struct{ Kind, Word, Text string }{
	"none":          {"neutral", "not prepared", "Sign in there once with your code while it is connected: then it is prepared by itself."},
	"activating":    {"info", "being prepared", "The machine prepares itself in the background. Look again in a minute."},
	"active":        {"ok", "works", ""},
	"outdated":      {"warn", "out of date", "Your password or factors have changed since. Sign in there once while it is connected."},
	"expired":       {"bad", "used up", "The days are over. Connect the machine and sign in there once."},
	"used up":       {"bad", "used up", "All sign-ins without network are used. Connect the machine and sign in there once."},
	"shut":          {"bad", "shut", "Too many wrong tries. Connect the machine and sign in there once."},
	"shut remotely": {"warn", "shut from afar", "Too many wrong tries over the network. At the machine itself it still works."},
	"disenrolling":  {"neutral", "is being wiped", "The machine wipes it at its next contact."},
}

// OfflineWarnings are said where little is left (O6, O16).
var MyOfflineWarnings = map[string]string{
	"days":    "Few days are left: sign in there once while it is connected.",
	"signins": "Few sign-ins are left: sign in there once while it is connected.",
	"tries":   "Few wrong tries are left: check what you type, and connect the machine.",
}

// MyDaysLeft is a number of days in words; one that has begun counts.
func MyDaysLeft(d float64) string {
	switch {
	case d <= 0:
		return "0"
	case d < 1:
		return "less than 1"
	}
	return fmt.Sprintf("%.0f", math.Ceil(d))
}

// Sign-ins.
const (
	MySigninsTitle    = "Your sign-ins"
	MySigninsLead     = "Every try in your name, at machines and in the browser, also those that failed. Is one not yours? Open it and say so."
	MySigninsCaption  = "Sign-ins, the youngest first"
	MySigninsNone     = "No sign-ins yet"
	MySigninsNoneText = "Here stands every sign-in in your name, with its place and result."
	MySigninWhen      = "When"
	MySigninWhere     = "Where"
	MySigninWhat      = "What"
	MySigninFrom      = "From"
	MySigninResult    = "Result"
	MySigninWhy       = "Why"
	MySigninFactor    = "Second factor"
	MySigninProgram   = "Program"
	MySigninTitle     = "A sign-in"
	MySigninOK        = "allowed"
	MySigninNo        = "denied"
	MySigninLeft      = "left to the machine"
	MySigninGivenUp   = "given up"
	MySigninWrong     = "a wrong code was given"
	MySigninLocked    = "locked out"
	MySigninEmergency = "emergency account"
	MySigninOffline   = "without network"
	MySigninBrowser   = "In the browser"
	MySigninHere      = "at the machine itself"
	MySigninReported  = "reported"
	MySigninHandled   = "looked after"

	NotMe         = "This wasn’t me"
	NotMeAsk      = "Report this sign-in?"
	NotMeText     = "You are signed out everywhere else at once: on all machines the second factor is asked for anew, and all your other sessions here end. The help desk is alerted. It does no harm if you are mistaken."
	NotMeTold     = "What do you know about it"
	NotMeToldHint = "Optional. The help desk reads it."
	NotMeDone     = "Reported"
	NotMeDoneText = "The help desk is alerted, and you are signed out everywhere but here."
	NotMeNext     = "Do this now"
	NotMePassword = "Change your password"
	NotMePwText   = "Whoever it was may know it."
	NotMeFactors  = "Look through your factors"
	NotMeFacText  = "Remove what you do not know."
	NotMeMachines = "Look through your machines"
	NotMeMacText  = "Stop offline sign-in where you no longer are."
	NotMeAlready  = "You have reported this sign-in."
)

// Scopes in plain words.
var MyScopes = map[string]string{
	"logon":     "sign-in",
	"elevation": "administrator’s rights",
	"remote":    "remote sign-in",
}

// Reports of a person.
const (
	MyReportsTitle    = "Your reports"
	MyReportsLead     = "What you have told the help desk, and what came of it."
	MyReportsCaption  = "Your reports, the youngest first"
	MyReportsNone     = "No reports"
	MyReportsNoneText = "If a sign-in was not yours, open it and say so. If a machine is lost, open it under Machines."
	MyReportWhen      = "Reported"
	MyReportWhat      = "What"
	MyReportState     = "State"
	MyReportAnswer    = "Answer"
	MyReportOpen      = "open"
	MyReportHandled   = "closed"
	MyReportSignin    = "A sign-in that was not mine"
	MyReportMachine   = "A lost machine"

	DeskReports         = "Reports"
	DeskReportsLead     = "What people have reported themselves: sign-ins that were not theirs, and lost machines."
	DeskReportsCaption  = "Reports, the youngest first"
	DeskReportsNone     = "Nothing is reported"
	DeskReportsNoneText = "People report under “Your sign-ins” and “Your machines” in the portal. A report comes with an alert in the events."
	DeskReportsOpen     = "Open"
	DeskReportsAll      = "All"
	DeskReportTitle     = "A report"
	DeskReportSignin    = "A sign-in that was not theirs"
	DeskReportUser      = "User"
	DeskReportEvent     = "Event"
	DeskReportFrom      = "Reported from"
	DeskReportTold      = "In their words"
	DeskReportClose     = "Close the report"
	DeskReportAnswer    = "What was done"
	DeskReportHint      = "The person reads it in the portal."
	DeskReportClosed    = "The report is closed."
	DeskReportBy        = "Closed by"
	DeskReportDone      = "Done already: windows and other sessions of the person have ended, and their own offline data on a lost machine is being wiped. What is left to the help desk: talk to the person, look at the sign-in, and report a lost machine as lost, so that it is no longer trusted."
	DeskReportLoseHint  = "Open the machine to report it as lost for everybody."
)

// The password.
const (
	MyPasswordTitle    = "Change your password"
	MyPasswordLead     = "Your other sessions, API tokens and certificates end, and machines ask for the second factor anew."
	MyPasswordOld      = "Present password"
	MyPasswordNew      = "New password"
	MyPasswordNewHint  = "The longer the better: several words that only you put together. Your account name must not be in it."
	MyPasswordAgain    = "New password once more"
	MyPasswordDiffers  = "it is not the same as the one above; type the new password twice"
	MyPasswordChange   = "Change password"
	MyPasswordChanged  = "Your password is changed. Your other sessions, API tokens and certificates have ended. On your machines the new one works at once while they are connected; without the network it works there after your next sign-in."
	MyPasswordShow     = "Without the network"
	MyPasswordShowText = "A machine that is not connected goes on asking for the old password until you have signed in there once while it is connected."
)

// BackupLeft says how many backup codes are left.
func MyBackupLeft(n int) string {
	switch n {
	case 0:
		return "none left"
	case 1:
		return "1 left"
	}
	return fmt.Sprintf("%d left", n)
}

// Tokens of an app: what it shows.
func MyAppCodes(digits, period int) string {
	return fmt.Sprintf("%d digits every %d seconds", digits, period)
}

// MachineCount and others of the home page.
func MyMachineCount(n, offline int) string {
	if n == 0 {
		return "none yet"
	}
	if n == 1 {
		return fmt.Sprintf("1 machine, %s without network", someOf(offline, 1))
	}
	return fmt.Sprintf("%d machines, %s without network", n, someOf(offline, n))
}

func someOf(n, all int) string {
	switch n {
	case 0:
		return "none works"
	case all:
		if all == 1 {
			return "works also"
		}
		return "all work also"
	}
	return fmt.Sprintf("%d work also", n)
}

// LostDone says what came of a lost machine.
func MyLostDone(revoked bool) string {
	if revoked {
		return "The machine is no longer trusted, and the help desk is told."
	}
	return "The help desk is told. Your own data there is withdrawn: at once if the machine is connected, else at its next contact."
}

// MyStep is a heading with its number.
func MyStep(n int, text string) string { return fmt.Sprintf("%d. %s", n, text) }

// MyFactorRemovedWhat says what came of it, and what is left to do on the person's side.
func MyFactorRemovedWhat(kind string) string {
	switch kind {
	case "totp":
		return MyFactorRemoved + " Delete its entry in the app too."
	case "push":
		return MyFactorRemoved + " Remove the account in Latchkey Authenticator on that phone too."
	case "fido2":
		return MyFactorRemoved + " The passkey itself stays on its device; delete it there too."
	}
	return MyFactorRemoved
}

// MyFactorNamed is a factor without a name of its own.
func MyFactorNamed(kind string) string {
	if s := DeskFactorKinds[kind]; s != "" && kind != "totp" {
		return s
	}
	return MyFactorUnnamed
}
