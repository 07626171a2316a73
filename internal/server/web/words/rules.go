package words

import (
	"fmt"
	"strings"
)

// Decisions and their traces.
const (
	TraceCaption  = "Every rule that was looked at, in order"
	TraceRule     = "Rule"
	TraceVerdict  = "Verdict"
	TraceWhy      = "Why"
	TraceApplied  = "decided"
	TracePassed   = "passed over"
	TraceNone     = "No trace was kept with this."
	TraceShow     = "Show every rule that was looked at"
	DecisionTitle = "Decision"
)

// Outcomes are what comes of a sign-in, in a word or two.
var Outcomes = map[string]string{
	"allow":       "Allowed without a second factor",
	"ignore":      "Left to the machine’s own sign-in",
	"deny":        "Denied",
	"ask-first":   "Asked for the password",
	"mfa":         "Asked for a second factor",
	"mfa-offline": "Asked for a second factor, judged by the machine",
	"enrol":       "Asked to enrol a factor first",
}

// DecisionText is Outcomes with how many of which factors.
func DecisionText(outcome string, count int, factors string) string {
	switch outcome {
	case "mfa":
		return fmt.Sprintf("Asked for %d of: %s", count, factors)
	case "mfa-offline":
		return fmt.Sprintf("Asked for the password and %d of: %s (judged by the machine)", count, factors)
	}
	if s := Outcomes[outcome]; s != "" {
		return s
	}
	return "Denied"
}

// ScopeNames are the kinds of sign-ins.
var ScopeNames = map[string]string{"logon": "Sign-in", "elevation": "Elevation", "remote": "Remote sign-in"}

// ScopeHints explain them.
var ScopeHints = map[string]string{
	"logon":     "Console, graphical sign-in and unlock.",
	"elevation": "sudo, su, polkit, UAC.",
	"remote":    "ssh and remote desktop.",
}

// PolicyFactors are the kinds of second factors that a policy may name.
var PolicyFactors = map[string]string{
	"fido2": "Security key or passkey", "push": "Latchkey Authenticator (push)", "totp": "Authenticator app (TOTP)",
	"backup": "Backup codes", "mail": "Code by mail", "sms": "Code by text message",
}

// PolicyFactorHints say what a kind protects against, and where it can be given.
var PolicyFactorHints = map[string]string{
	"fido2":  "Can not be phished. At a machine only where the person sits at it, on Linux.",
	"push":   "The person types a number that the sign-in shows. Needs the server.",
	"totp":   "Can be phished by a page that passes the code on at once.",
	"backup": "For the day when the phone is gone; each is good once.",
	"mail":   "Weak: whoever reads the mailbox has it. Needs the server.",
	"sms":    "Weak: telephone networks can be tricked. Needs the server.",
}

// Policies.
const (
	PolicyNew          = "New policy"
	PolicyAddNote      = "The policy was added."
	Policy             = "Policy"
	PolicyPriority     = "Priority"
	PolicyGroups       = "Groups"
	PolicyAsks         = "Asks in"
	PolicyFactorsCol   = "Factors"
	PolicyOffline      = "Without the server"
	PolicyWindow       = "Asked again after"
	PolicyNotes        = "Notes"
	PolicyDefaultFor   = "everybody else"
	PolicyNoGroup      = "no group"
	PolicyDefault      = "default"
	PolicyReportOnly   = "report-only"
	PolicyNoScope      = "nowhere"
	PolicyAlways       = "always asked"
	PolicyLead         = "The first policy that belongs to one of a user’s groups holds for them, from the top. The last one is for everybody else."
	PolicyOnlyDefault  = "Only the default policy so far"
	PolicyOnlyText     = "It holds for everybody. A policy for a group lets you ask more of some people, or try something on a few first."
	PolicyEdit         = "Edit"
	PolicyCopy         = "Copy"
	PolicyCopyReport   = "Copy as report-only"
	PolicyRemove       = "Remove"
	PolicyRemoveTitle  = "Remove this policy?"
	PolicyRemoveText   = "The next policy of their groups, or the default one, holds for its people at once. The history stays."
	PolicyHistory      = "History"
	PolicyHistoryAll   = "Whole history"
	PolicyWarnings     = "What weakens something"
	PolicyReports      = "What it would have done"
	PolicyReportsNone  = "Nothing yet"
	PolicyReportsEmpty = "No sign-in that it would have applied to since this version. It reports on members of its groups, while the server is reachable."
	PolicyReportsList  = "Sign-ins"
	PolicyReportsSince = "Since the present version, of the last 30 days. Sign-ins without the server are not reported: machines get no report-only policies."
	PolicyVersion      = "Version"
	PolicyChanged      = "Changed"

	EditSave           = "Save"
	EditReview         = "Review the change"
	EditTry            = "Try it on last week’s sign-ins"
	EditBack           = "Back to the settings"
	EditComment        = "Comment"
	EditCommentHint    = "Why: it stands in the history."
	EditName           = "Name"
	EditPriority       = "Priority"
	EditPriorityHint   = "The smallest number is looked at first, 1 to 1000000."
	EditGroups         = "Groups"
	EditGroupsHint     = "The policy holds for their members."
	EditGroupsText     = "One name in a line."
	EditNoGroups       = "There are no groups yet. Without one the policy holds for nobody."
	EditReviewTitle    = "Review the change"
	EditReviewNew      = "Review the new policy"
	EditNothing        = "Nothing would change."
	EditPeopleNow      = "Members of its groups"
	EditClashTitle     = "Somebody else changed this policy in the meantime"
	EditClashText      = "Their change stands in the fields below, except where you have changed the same. Look at it, and save again."
	EditBasics         = "Who it is for"
	EditReportOnly     = "Report-only"
	EditReportOnlyHint = "It decides nothing. Each sign-in that it would have applied to notes what it would have decided."

	DiffCaption = "What changes"
	DiffField   = "Setting"
	DiffOld     = "Before"
	DiffNew     = "After"

	HistoryVersion  = "Version"
	HistoryWhen     = "When"
	HistoryWho      = "Who"
	HistoryComment  = "Comment"
	HistoryChanges  = "Changes"
	HistoryFirst    = "first version"
	HistoryCompare  = "Compare"
	HistoryFrom     = "From version"
	HistoryTo       = "To version"
	HistorySame     = "The two versions are the same."
	HistoryRollback = "Go back to this"
	HistoryTry      = "Try"
	HistoryPresent  = "present"
)

// PolicySaved, PolicyRemoved and PolicyRolled say what was done.
func PolicySaved(name string, version int64) string {
	return fmt.Sprintf("%s now has version %d.", name, version)
}

// PolicyRemoved says so.
func PolicyRemoved(name string) string { return fmt.Sprintf("The policy %s was removed.", name) }

// PolicyRolled says so.
func PolicyRolled(name string, from, version int64) string {
	return fmt.Sprintf("%s is back at version %d, as version %d.", name, from, version)
}

// RollbackTitle asks.
func RollbackTitle(version int64) string { return fmt.Sprintf("Go back to version %d?", version) }

// RollbackText says what will happen.
const RollbackText = "Its settings, priority and groups become a new version. Groups that were removed since are left out. Machines learn of it at once."

// CompareTitle is a heading.
func CompareTitle(from, to int64) string { return fmt.Sprintf("Version %d to %d", from, to) }

// EditTitle is a heading.
func EditTitle(name string) string { return "Edit " + name }

// Whom a change of a policy shuts out.
const (
	ShutText       = "They can sign in now. After this they have no factor that the policy accepts, or fewer kinds than it asks for. Let them enrol first."
	ShutAll        = "The whole list"
	ShutBoxHint    = "They can sign in again once they have enrolled what the policy accepts, or once it is changed back. An administrator’s bypass code helps one person for a time."
	ShutLabel      = "Shutting people out"
	ShutFault      = "Tick this if they shall be shut out; else go back to the settings"
	ShutListTitle  = "Who would be shut out"
	ShutNowTitle   = "Who is shut out"
	ShutNow        = "Who can not sign in under it now"
	ShutNobody     = "Nobody"
	ShutNobodyText = "Everybody to whom it applies has the factors that it asks for."
	ShutHasCol     = "Has"
	ShutNone       = "no factor"
	ShutWants      = "The policy asks for"
	ShutWhere      = "Shut out of"
	ShutNext       = "Next page"
)

// PlaceNames are where somebody is shut out.
var PlaceNames = map[string]string{"logon": "Sign-in", "elevation": "Elevation", "remote": "Remote sign-in", "offline": "Sign-in without the server"}

// ShutTitle is a heading.
func ShutTitle(n int64) string { return fmt.Sprintf("This shuts out %s", People(int(n))) }

// ShutBox is what a box to tick says.
func ShutBox(n int64) string { return fmt.Sprintf("Shut out %s", People(int(n))) }

// ShutMore counts whom a list leaves out.
func ShutMore(n int64) string { return fmt.Sprintf("and %d more", n) }

// ShutHas says what somebody has, before what he is shut out of.
func ShutHas(factors string) string {
	if factors == "" {
		factors = ShutNone
	}
	return "has " + factors + "; shut out of:"
}

// ShutWant says how many of which kinds are asked for.
func ShutWant(n int, kinds string) string {
	if kinds == "" {
		kinds = "none"
	}
	return fmt.Sprintf("%d of: %s", n, kinds)
}

// ShutCount counts.
func ShutCount(people, already int64) string {
	s := fmt.Sprintf("%s can sign in now and could not then.", People(int(people)))
	if already > 0 {
		s += fmt.Sprintf(" %s can not as it is, and would not then.", People(int(already)))
	}
	return s
}

// ShutNowCount counts.
func ShutNowCount(already int64) string {
	return fmt.Sprintf("%s to whom this policy applies can not sign in, because they have none of the factors that it accepts, or too few kinds.", People(int(already)))
}

// Trials.
const (
	TryTitle       = "Tried on the last sign-ins"
	TryBefore      = "prompts as it is"
	TryAfter       = "prompts with the draft"
	TryJudged      = "sign-ins judged"
	TrySame        = "nothing changes"
	TryWho         = "Who"
	TryCount       = "Sign-ins"
	TryExample     = "For example"
	TryMachine     = "Machine"
	TryNow         = "As it is"
	TryDraft       = "With the draft"
	TryOnline      = "While the server is reachable"
	TryOffline     = "While the server is not reachable"
	TryNothing     = "Nothing would have changed for anybody."
	TryNone        = "There is no sign-in to judge yet"
	TryNoneText    = "Sign-ins of the last week are judged twice. There was none that could be judged: save the policy as report-only, and look at its page after some days."
	TryNotJudged   = "What could not be judged"
	TryHow         = "Each sign-in is judged twice by the rules that decide real ones: with the policies as they are, and with the draft. Users, groups, factors and machines are taken as they are now; MFA windows are played through on both sides."
	TryOfflineNote = "The same people on the same machines, as far as machines have told what they hold."
)

// ChangeWords say what a change means for people; the first form is a heading.
var ChangeWords = map[string]string{
	"denied":           "Denied, who is not now",
	"asked-to-enrol":   "Asked to enrol a factor first",
	"asked-more":       "Asked for more",
	"asked-less":       "Asked for less",
	"no-longer-denied": "No longer denied",
	"other-factors":    "Asked for other factors",
	"same":             "Nothing changes",
}

// TryMoved counts sign-ins that something else has changed.
func TryMoved(n int) string {
	if n == 1 {
		return "One sign-in came out by another rule at the time: users, machines or policies have changed since."
	}
	return fmt.Sprintf("%d sign-ins came out by another rule at the time: users, machines or policies have changed since.", n)
}

// People counts people, Signins sign-ins.
func People(n int) string {
	if n == 1 {
		return "1 person"
	}
	return fmt.Sprintf("%d people", n)
}

// Signins counts sign-ins.
func Signins(n int) string {
	if n == 1 {
		return "1 sign-in"
	}
	return fmt.Sprintf("%d sign-ins", n)
}

// TryApplies says to how many of those who signed in the draft would apply.
func TryApplies(n, of int) string {
	return fmt.Sprintf("It would apply to %s of the %d who signed in.", People(n), of)
}

// TryCount is one line of what could not be judged.
func TryLeft(n int, why string) string { return fmt.Sprintf("%s: %s", Signins(n), why) }

// Explain.
const (
	ExplainLead      = "Decides as a sign-in would, over the same facts. Nothing is changed and nobody is asked."
	ExplainUser      = "User"
	ExplainUserHint  = "As typed at the machine, or an id."
	ExplainMachine   = "Machine"
	ExplainScope     = "Kind of sign-in"
	ExplainService   = "Service"
	ExplainServiceIs = "Such as sshd; may be empty."
	ExplainFrom      = "From address"
	ExplainFromHint  = "That sshd saw, for remote."
	ExplainAt        = "At (UTC)"
	ExplainAtHint    = "Empty: now."
	ExplainLink      = "The server is"
	ExplainUp        = "reachable"
	ExplainDown      = "not reachable"
	ExplainFirst     = "The password is judged by"
	ExplainServer    = "the server"
	ExplainByMachine = "the machine itself"
	ExplainKey       = "nobody: an ssh key"
	ExplainRemote    = "Inside a remote session"
	ExplainNoKey     = "The machine can not ask for security keys"
	ExplainNoPhone   = "The machine can not wait for a phone"
	ExplainUID       = "Account number"
	ExplainUIDHint   = "On the machine; matters for exempt accounts."
	ExplainBoot      = "Boot"
	ExplainBootHint  = "Empty: the machine’s present one."
	ExplainMore      = "More circumstances"
	ExplainDo        = "Explain"
	ExplainEmpty     = "Say who, where and how"
	ExplainEmptyText = "The answer shows the decision, the rule that decided, and every rule that was passed over. Its address can be sent to a colleague."
	ExplainLinkTo    = "Address of this answer"
	ExplainReason    = "Reason"
	ExplainPolicy    = "Policy"
	ExplainTab       = "A sign-in"
	EffectiveTab     = "A user’s policy"
	EffectiveTitle   = "Effective policy of a user"
	EffectiveDo      = "Show"
	EffectiveEmpty   = "Whose policy?"
	EffectiveText    = "The answer shows which policy holds for the user and why, every policy that was passed over, and the settings as they hold on the machine."
	EffectiveMachine = "On machine"
	EffectiveOption  = "May be left out."
	EffectiveThrough = "Through group"
	EffectiveTwo     = "Two-factor"
	EffectiveAll     = "All policies, in the order in which they are looked at"
	EffectiveRaised  = "Changed by the machine"
	EffectiveApplies = "applies"
	EffectivePassed  = "passed over"
)

// Setting names a setting of a policy and says what it is for, with unit and default.
type Setting struct{ Label, Hint string }

// Settings are all settings of a policy.
var Settings = map[string]Setting{
	"scopes":                 {"Ask for a second factor at", "Where nothing is ticked, no second factor is ever asked for. Default: all."},
	"factors_online":         {"Factors beside the password", "0 to 3. Default: 1."},
	"online_factors":         {"Accepted factors", "An administrator’s bypass code is always accepted while it is valid."},
	"key_verification":       {"Security keys want a PIN or a finger at machines", "Otherwise a touch is enough, beside the password. Default: no."},
	"push_verification":      {"The phone checks who holds it before it approves", "By finger, face or PIN. Phones without such a check can not approve. Default: no."},
	"factors_offline":        {"Factors beside the password, without the server", "0 to 3. Default: 1."},
	"offline_factors":        {"Accepted factors, without the server", "What is ticked only here makes this side the weaker one."},
	"offline":                {"When the server can not be reached", ""},
	"offline_enrol":          {"How a machine is prepared for that", "At the next sign-in with a second factor on it."},
	"offline_days":           {"Days", "Since the last sign-in with the server, 1 to 60. Default: 7."},
	"offline_signins":        {"Sign-ins", "Between two sign-ins with the server, 1 to 10000. Default: 50."},
	"offline_tries":          {"Wrong tries", "Since the last right one, 1 to 100. Default: 10. A quarter of them from afar."},
	"software_vault":         {"Also on machines without a TPM", "There a stolen disk can be attacked as long as the thief likes. Default: yes."},
	"window":                 {"Not asked again for", "Such as 8h or 30m, up to 168h (a week); 0 always asks. Default: 8h."},
	"window_silences":        {"Within that time not asked at", "On the same machine, since its last start. Default: logon."},
	"window_ends_on":         {"That time ends early at", "What machines report. Default: nothing."},
	"force_disconnect_after": {"Disconnect after", "Such as 24h; 0 is off. Has no effect before there is an access connection."},
	"trusted_networks":       {"Trusted networks", "One in a line, such as 192.0.2.0/24 or 2001:db8::/32. The machine’s own connection must come from one."},
	"trusted_scopes":         {"No second factor from there at", "For remote the address that sshd saw must be in a trusted network, too. Default: logon and elevation."},
	"exempt_uids":            {"Exempt accounts, by number", "One uid in a line. They are never asked for a second factor."},
	"exempt_sids":            {"Exempt accounts, by SID", "One Windows SID in a line."},
	"backoff_after":          {"Pause after", "Wrong tries, 1 to 100. Default: 3."},
	"lockout_after":          {"Lock out after", "Wrong tries, 1 to 1000. Default: 10."},
	"lockout_for":            {"Lock out for", "Such as 15m, 1s to 24h. Default: 15m."},
	"enrol_at_signin":        {"Enrol at the sign-in", "Who has no factor enrols one at the sign-in, with an enrolment code."},
	"enrol_remote":           {"Also over ssh", ""},
	"report_only":            {EditReportOnly, EditReportOnlyHint},
}

// SettingParts are the headings of the form, with what stands below them.
var SettingParts = [][2]string{
	{"When a second factor is asked for", ""},
	{"With the server", "While the server can be reached."},
	{"Without the server", "What a machine does alone: on a plane, behind a cut cable. It needs to be no weaker than the other side: whoever wants in can cut the cable."},
	{"The MFA window", "After a completed second factor."},
	{"Who is not asked", ""},
	{"After failures", "Counted for each person and machine."},
	{"Enrolment", ""},
}

// SettingOptions are the choices of settings, as NAME=VALUE.
var SettingOptions = map[string]Setting{
	"offline=mfa":                   {"Ask for a second factor, judged by the machine", "Who is not enrolled on the machine is denied. Default."},
	"offline=mfa_or_bypass":         {"Ask where the machine is enrolled, else the password alone", "Weaker: on machines that are not enrolled, a cut cable skips MFA."},
	"offline=bypass":                {"Skip MFA: the password alone", "Weakest: whoever cuts the network needs only the password."},
	"offline=deny":                  {"Deny", "Nobody signs in without the server."},
	"offline_enrol=auto":            {"By itself", ""},
	"offline_enrol=ask":             {"After asking the person", ""},
	"offline_enrol=off":             {"Not at all", ""},
	"window_ends_on=logoff":         {"Log-off", ""},
	"window_ends_on=reboot":         {"Restart of the machine", ""},
	"window_ends_on=network":        {"Change of network", ""},
	"window_ends_on=offline-signin": {"A sign-in without the server", ""},
}

// SettingUnits stand behind a number.
var SettingUnits = map[string]string{
	"offline_days": " days", "offline_signins": " sign-ins", "offline_tries": " wrong tries", "backoff_after": " wrong tries", "lockout_after": " wrong tries",
	"factors_online": " beside the password", "factors_offline": " beside the password",
}

// SettingZero is what a duration of nothing means.
var SettingZero = map[string]string{"window": PolicyAlways, "force_disconnect_after": "never", "lockout_for": "0s"}

// Values.
const (
	SettingYes  = "yes"
	SettingNo   = "no"
	FaultNumber = "it is no whole number"
)

// FaultNumbers names what is none.
func FaultNumbers(s string) string { return fmt.Sprintf("%q is no whole number", s) }

// Faults of the forms.
const (
	FaultTime    = "it is no time; allowed is such as 2026-11-22T10:00"
	FaultChoice  = "it is none of the choices"
	FaultMissing = "it is missing"
)

// ExplainMachinesKnown names machines that the user knows.
func ExplainMachinesKnown(names []string) string {
	switch n := len(names); {
	case n == 0:
		return ""
	case n > 5:
		return "They know " + strings.Join(names[:5], ", ") + DeskAndMore(n-5) + "."
	}
	return "They know " + strings.Join(names, ", ") + "."
}
