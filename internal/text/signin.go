package text

import (
	"fmt"
	"time"

	"latchkey/internal/policy"
)

// This file is the catalogue of what people read at a sign-in, online and offline: the server and the agent say the
// same thing in the same words. Rows: S2, S5, S8-S10, O6, O16, O17, E1, E3.
//
// The rules: before an accepted first factor there is one text for every failure, DeniedFirst. A denial says what
// happened and what to do next. Nothing here names a mechanism that a person does not see. Texts are one line unless
// they say otherwise.

// Prompts.
const (
	PromptPassword        = "Password: "
	PromptCode            = "One-time code: "
	PromptBackup          = "Backup code: "
	PromptBypass          = "Bypass code from your administrator: "
	PromptEitherCode      = "One-time code or backup code: "
	PromptOfflinePassword = "Latchkey password (the one you last used here online): "
	PromptNewPassword     = "New password: "
	PromptNewPassword2    = "New password again: "
	PromptEnrolCode       = "Enrolment code: "
	PromptFirstCode       = "Code that the app shows now: "
	PromptFactor          = "Second factor"
	PromptOffline         = "Enrol this machine for sign-in without the server?"
)

// Options of menus.
const (
	OptionTOTP   = "Code from an authenticator app"
	OptionBackup = "Backup code"
	OptionBypass = "Bypass code from an administrator"
	OptionYes    = "Yes, enrol this machine"
	OptionNotNow = "Not now"
)

// What is told while a sign-in goes on.
const (
	OfflineNow      = "The server can not be reached: offline sign-in."
	WrongCode       = "That code is not right."
	ClockBehind     = "This machine's clock is wrong: it is behind the time that the machine has seen, so codes of an authenticator app can not be checked. Set the clock, connect this machine to the network, or use a backup code."
	CodeUsed        = "This code has been used already. Wait for the next one."
	BackupUsed      = "This backup code has been used already. Take another one."
	NotAChoice      = "That is none of the choices."
	NothingTyped    = "Nothing was typed."
	MustChangeNow   = "Your password must be changed now."
	ExpiredNow      = "Your password has expired and must be changed now."
	NewDiffers      = "The two passwords are not the same. Begin again."
	PasswordChanged = "The password has been changed."
	EnrolNow        = "A second factor is required and you have none yet. You can set one up now with an enrolment code from your help desk."
	EnrolWrong      = "That enrolment code is not right, or it has expired."
	EnrolDone       = "The authenticator app is set up."
)

// Denials.
const (
	// DeniedFirst is the one text for every failure before an accepted first factor (S5).
	DeniedFirst = "Sign-in failed. Check the user name (upper and lower case matter) and the password."

	DeniedCodes       = "Sign-in denied: too many wrong codes. Begin again."
	DeniedGivenUp     = "The sign-in was given up."
	DeniedTooLong     = "The sign-in took too long. Begin again."
	DeniedUnreachable = "The server became unreachable during the sign-in. Try again."
	DeniedServer      = "The server has a problem of its own and could not finish the sign-in. Try again later; if it stays, tell an administrator."
	DeniedInternal    = "The sign-in failed because of an internal problem. Try again; if it stays, ask an administrator."
	DeniedBusy        = "The server is busy. Try again in a few seconds."
	DeniedDelivering  = "What happened on this machine without the server is still being delivered to it. Try again in a few seconds."
	DeniedCrowd       = "Too many sign-ins at once on this machine. Try again in a few seconds."
	DeniedReplayed    = "The sign-in was interrupted. Begin again."
	DeniedOddRequest  = "The request could not be understood. Begin again; if it stays, ask an administrator to update the agent."
	DeniedJournal     = "The sign-in could not be written down on this machine (disk full or read-only?), so it was denied. Ask an administrator."

	DeniedRemoteChange = "Your password must be changed first. Sign in at the machine itself, not over the network."
	DeniedNoChange     = "The password was not changed."
	DeniedUnlock       = "This needs a full sign-in."
	DeniedOffline      = "Sign-in failed. Check the password (the one you last used here online) and the code."
)

// EnrolScan stands above the QR code, EnrolType with the key below it.
const EnrolScan = "Scan this with your authenticator app:"

// EnrolType offers the key in groups of four to those who can not scan.
func EnrolType(key string) string {
	grouped := ""
	for i, r := range key {
		if i > 0 && i%4 == 0 {
			grouped += " "
		}
		grouped += string(r)
	}
	return "Or type this key into it: " + grouped
}

// Wait says how long to wait after wrong tries (S10).
func Wait(d time.Duration) string {
	return fmt.Sprintf("Too many wrong tries. Wait %s, then begin again.", Duration(seconds(d)))
}

// Locked says how long the account stays locked here (S10).
func Locked(d time.Duration) string {
	return fmt.Sprintf("Too many wrong tries: signing in here is locked for %s. An administrator can unlock it.", Duration(seconds(d)))
}

// seconds rounds up: who waits as long as is said is let try again.
func seconds(d time.Duration) time.Duration {
	if d < time.Second {
		return time.Second
	}
	return (d + time.Second - 1).Truncate(time.Second)
}

// BackupLeft tells how many backup codes are left (M5).
func BackupLeft(n int) string {
	switch n {
	case 0:
		return "That was your last backup code. Have new ones made."
	case 1:
		return "1 backup code is left. Have new ones made."
	}
	return fmt.Sprintf("%d backup codes are left. Have new ones made soon.", n)
}

// OfflineLeft tells what is left of the offline days, sign-ins and tries, when a fifth or less is (O6, O16).
func OfflineLeft(days, signins, tries int) string {
	return fmt.Sprintf("Left for sign-in without the server: %s, %s, %s. Connect before they are used up.",
		plural(days, "day"), plural(signins, "sign-in"), triesLeft(tries))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func triesLeft(n int) string {
	if n == 1 {
		return "1 wrong try"
	}
	return fmt.Sprintf("%d wrong tries", n)
}

const connect = "Connect this machine to the network and sign in online once."

// denied are the texts behind an accepted first factor, and offline for what is judged before any factor.
var denied = map[policy.Reason]string{
	policy.ReasonRefused:       "This machine has been revoked.",
	policy.ReasonMachineStatus: "This machine is not approved for sign-ins.",
	policy.ReasonNotAssigned:   "You are not assigned to this machine.",
	policy.ReasonNearMiss:      "The user name is not written exactly as it was created; upper and lower case matter.",
	policy.ReasonUnknownDenied: "This user name is not known to Latchkey.",
	policy.ReasonDisabled:      "This account is disabled.",
	policy.ReasonNotYet:        "This account is not active yet.",
	policy.ReasonLocked:        "Too many wrong tries: this account is locked here for a time.",
	policy.ReasonFirstRejected: DeniedFirst,
	policy.ReasonNotEnrolled:   "A second factor is required and you have none that is accepted here.",
	policy.ReasonNoPolicy:      "No policy applies to this sign-in.",
	policy.ReasonBadRequest:    DeniedOddRequest,

	policy.ReasonOfflineDeny:   "The server can not be reached, and signing in without it is not allowed. " + connect,
	policy.ReasonPolicyAbsent:  "The server can not be reached, and this machine has no policy from it yet. " + connect,
	policy.ReasonPolicyOlder:   "The server can not be reached, and the policy on this machine is older than one it had before. " + connect,
	policy.ReasonPolicyExpired: "The server has not been reached for too long, or this machine's clock is ahead. " + connect,
	policy.ReasonPolicyForeign: "The server can not be reached, and the policy on this machine is damaged or another machine's. " + connect,

	policy.ReasonNoVault:         "The server can not be reached, and this machine is not enrolled for you. " + connect,
	policy.ReasonVaultStale:      "The server can not be reached, and your password or authenticators have changed since this machine was enrolled. " + connect,
	policy.ReasonVaultSoftware:   "The server can not be reached, and the policy does not allow it on a machine without a TPM. " + connect,
	policy.ReasonVaultDays:       "The days for signing in without the server are used up, or this machine's clock is ahead. " + connect,
	policy.ReasonVaultSignins:    "The sign-ins without the server are used up. " + connect,
	policy.ReasonVaultTries:      "Too many wrong tries without the server. " + connect,
	policy.ReasonVaultRemote:     "Too many wrong tries over the network without the server. Sign in at the machine itself, or connect it.",
	policy.ReasonVaultFactor:     "The server can not be reached, and this machine holds no second factor that is accepted without it. " + connect,
	policy.ReasonVaultRolledBack: "The offline data on this machine is older than it should be: an old copy was put back. " + connect,
	policy.ReasonVaultDamaged:    "The offline data on this machine is damaged. " + connect,
	policy.ReasonVaultNewer:      "The offline data on this machine was written by a newer Latchkey agent. The agent must be updated.",
	policy.ReasonVaultForeign:    "A file of Latchkey's on this machine belongs to somebody else or is not a plain file, so it is not used. The agent's log says which, and what to do.",
	policy.ReasonVaultUnread:     "The offline data on this machine can not be read; its disk may be faulty.",
	policy.ReasonStateWrite:      DeniedJournal,
	policy.ReasonJournalFull:     "So much has happened on this machine without the server that no more sign-ins can be written down. " + connect,
	policy.ReasonTPMCleared:      "The security chip (TPM) of this machine was cleared or exchanged, so the offline data can not be used. " + connect + " If it does not reach the server any more, an administrator must join it again.",
	policy.ReasonTPMLocked:       "The security chip (TPM) of this machine is locked after wrong tries. Wait, or connect this machine to the network and sign in online.",
	policy.ReasonTPMGone:         "The security chip (TPM) of this machine does not answer, so the offline data can not be used. " + connect,
	policy.ReasonTPMReplaced:     "Something in the security chip (TPM) of this machine was replaced, so the offline data can not be used. " + connect,
	policy.ReasonVaultUnfinished: "The offline data on this machine was being renewed and that was not finished. " + connect,
	policy.ReasonTPMBoot:         "This machine was started differently than before (its Secure Boot settings or keys have changed), so the offline data can not be used. " + connect,
	policy.ReasonTPMNoRoom:       "The security chip (TPM) of this machine has no room for your offline data, and without it this machine may not keep any. " + connect,
	policy.ReasonTPMBusy:         "The security chip (TPM) of this machine is busy. Wait a minute and try again.",
	policy.ReasonFirstPending:    DeniedFirst,
	policy.ReasonEnrol:           "A second factor is required and you have none yet. Ask your help desk for an enrolment code.",
	policy.ReasonMFA:             DeniedCodes,
	policy.ReasonOfflineMFA:      DeniedOffline,
	policy.ReasonUnknownSkipped:  DeniedFirst,
	policy.ReasonExemptAccount:   DeniedFirst,
	policy.ReasonMachineExempt:   DeniedFirst,
	policy.ReasonTwoFactorOff:    DeniedFirst,
	policy.ReasonNoFactors:       DeniedFirst,
	policy.ReasonScope:           DeniedFirst,
	policy.ReasonTrusted:         DeniedFirst,
	policy.ReasonWindow:          DeniedFirst,
	policy.ReasonOfflineBypass:   DeniedFirst,
	policy.ReasonNoVaultBypass:   DeniedFirst,
}

// Denied is what a person is told about a denial with this reason behind an accepted first factor; offline also where
// the reason has nothing to do with what was typed. contact names whom to ask and may be empty.
func Denied(reason policy.Reason, contact string) string {
	t, ok := denied[reason]
	if !ok {
		t = DeniedInternal
	}
	switch t {
	case DeniedFirst, DeniedInternal, DeniedCodes, DeniedOddRequest, DeniedOffline, DeniedJournal:
		return t
	}
	return t + " " + ask(contact)
}

func ask(contact string) string {
	if contact = CleanN(contact, 200); contact != "" {
		return "Ask: " + contact
	}
	return "Ask an administrator if you need help."
}

// WhyHead begins what the agent tells latchkey signin, and no sign-in module, of its reasons.
const WhyHead = "Why: "
