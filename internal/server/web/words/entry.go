package words

import (
	"fmt"
	"strings"
)

// Sign-in, step-up, setup, own sessions and approvals.
const (
	SignInTitle       = "Sign in"
	SignInLead        = "To the console or your own account."
	FieldUserName     = "User name"
	FieldPassword     = "Password"
	FieldNewPassword  = "New password"
	FieldAgainLabel   = "The same again"
	FieldCode         = "Code from your authenticator app"
	FieldBackup       = "Backup code"
	FieldEnrol        = "Enrolment code"
	HintCode          = "The six or eight digits that the app shows now."
	HintBackup        = "One of the codes that you kept. Each works once."
	HintEnrol         = "From your help desk. It opens your first enrolment."
	HintPassword      = "At least 12 characters, without your user name."
	SignInGo          = "Sign in"
	Continue          = "Continue"
	StartAgain        = "Begin again"
	CodeTitle         = "Second factor"
	UseBackup         = "Use a backup code instead"
	UseApp            = "Use the authenticator app instead"
	BackupIsPortal    = "A backup code opens your own account and does not open the console."
	NoCodesLeft       = "Lost both? Ask your help desk."
	SigninEnrolTitle  = "Set up a second factor"
	SigninEnrolLead   = "You have none yet. With the enrolment code you set one up now; it takes a minute and an authenticator app on your phone."
	NewPasswordTitle  = "Choose a new password"
	PasswordMust      = "Your password must be changed before you go on."
	PasswordExpired   = "Your password has expired. Choose a new one to go on."
	SignedOut         = "You have signed out."
	SignOutTitle      = "Sign out"
	SignOutLead       = "The session in this browser ends."
	SigninOver        = "The sign-in took too long or was begun elsewhere. Begin again."
	StepUpTitle       = "Is it still you?"
	StepUpLead        = "What you are about to do needs a second factor that was given within the last five minutes."
	StepUpGo          = "Confirm"
	StepUpDone        = "Confirmed for five minutes. Go on where you were."
	StepUpWait        = "A code works once: wait for the next one if you have just used it."
	SetupTitle        = "Set up this server"
	SetupLead         = "Latchkey has no owner yet. Make the first one: a name, a password and an authenticator app."
	SetupCodeLabel    = "Setup code"
	SetupCodeHint     = "It shows that you have access to the server. There, as root: latchkey setup-code"
	SetupDisplay      = "Full name"
	SetupAccount      = "Your account"
	SetupStep1        = "Account"
	SetupStep2        = "Second factor"
	SetupStep3        = "Backup codes"
	SetupScanTitle    = "Scan this with your authenticator app"
	SetupScanText     = "Google Authenticator, Microsoft Authenticator, Zoho OneAuth or any other for one-time codes."
	SetupKey          = "Or type this key"
	SetupConfirm      = "Code that the app shows now"
	SetupMake         = "Make the account"
	SetupCodesTitle   = "Keep these backup codes"
	SetupCodesText    = "Each replaces your phone once. They are shown this one time: print them or put them into a password store. A backup code opens your own account, not the console."
	SetupKept         = "I have kept them; to the console"
	SetupGone         = "This server has an owner already."
	SetupGoneText     = "Sign in, or ask an owner to add you."
	SetupStepsLabel   = "Setting up"
	SessionsTitle     = "Where you are signed in"
	SessionsLead      = "A session ends after 30 minutes without use, and after 12 hours."
	SessionsCaption   = "Your sessions"
	SessionThis       = "this one"
	SessionBrowser    = "Browser"
	SessionCLI        = "Command line"
	SessionEnd        = "End"
	SessionEndOthers  = "End all others"
	SessionEnded      = "The session has ended."
	SessionUnknown    = "unknown"
	ColWhat           = "What"
	ColFrom           = "From"
	ColBegan          = "Signed in"
	ColSeen           = "Last used"
	ColFactor         = "With"
	ColActions        = "Actions"
	WithTOTP          = "Authenticator app"
	WithBackup        = "Backup code"
	WithEnrol         = "Enrolment code"
	ApprovalsTitle    = "Approvals"
	ApprovalsLead     = "What an owner does to another owner needs a second owner's yes. The three are three people, and each yes is for one action, within 15 minutes."
	ApprovalsOpen     = "Waiting for a yes"
	ApprovalsPast     = "Of the last day"
	ApprovalAskTitle  = "Ask for an approval"
	ApprovalAction    = "What you want to do"
	ApprovalSubject   = "For which owner"
	ApprovalReason    = "Why"
	ApprovalReasonTip = "The other owners and the audit see it."
	ApprovalAsk       = "Ask"
	ApprovalAsked     = "Asked. Another owner finds it on this page."
	ApprovalGive      = "Approve"
	ApprovalDeny      = "Refuse"
	ApprovalWithdraw  = "Withdraw"
	ApprovalGiven     = "Approved. It can be used once within 15 minutes."
	ApprovalDenied    = "Refused."
	ApprovalNotYours  = "needs somebody else"
	ApprovalEmpty     = "Nobody waits"
	ApprovalEmptyText = "When an owner wants to reset, recover or change another owner, the request stands here. With only two owners nobody can approve: make a third, or use the command line on the server."
	ApprovalOnlyOwner = "Only owners ask and approve."
	ColAction         = "Action"
	ColSubject        = "About"
	ColRequester      = "Asked by"
	ColWhen           = "When"
	ColState          = "State"
	ColReason         = "Why"
)

// ApprovalState is the state of an approval in words.
func ApprovalState(s string) string {
	switch s {
	case "asked":
		return "waiting"
	case "given":
		return "approved"
	case "denied":
		return "refused"
	case "used":
		return "used"
	}
	return "over"
}

// Operation is what an approval allows, in words: "set-password" → "Set the password".
// All of it is done to the owner that the approval is about.
func Operation(id string) string {
	if w, ok := operations[id]; ok {
		return w
	}
	s := strings.ReplaceAll(id, "-", " ")
	return strings.ToUpper(s[:1]) + s[1:]
}

var operations = map[string]string{
	"set-password":         "Set the password",
	"add-totp":             "Add an authenticator",
	"add-phone":            "Set up a phone",
	"unlock-push":          "Let requests go to the phones again",
	"add-backup":           "Give new backup codes",
	"remove-factor":        "Remove a factor",
	"lose-factor":          "Mark an authenticator as lost",
	"issue-enrolment-code": "Issue an enrolment code",
	"issue-bypass-code":    "Issue a bypass code",
	"change-user":          "Change the account (role, 2FA, disabling)",
	"remove-user":          "Remove the user",
	"unlock-user":          "Lift lock-outs",
	"add-member":           "Put into a group",
	"remove-member":        "Take out of a group",
	"change-group":         "Change a group in which they are",
	"remove-group":         "Remove a group in which they are",
	"change-machine":       "Exempt their machine",
	"lift-offline":         "Lift offline counters",
	"disenroll-offline":    "Wipe offline data",
}

// SessionsEnded says how many.
func SessionsEnded(n int) string {
	switch n {
	case 0:
		return "There was no other session."
	case 1:
		return "One other session has ended."
	}
	return fmt.Sprintf("%d other sessions have ended.", n)
}
