// Package words is the catalogue of the texts that people read in the console and the
// portal, in English. Each area has a file of its own. A text is a constant, or a
// function where it has to count or to name something.
//
// It promises that a page's words stand nowhere else, so that another language is
// another catalogue. The rules of speech: say what is, why, and what to do next; name
// things as the command line names them; no exclamation marks; sentences end with a
// full stop, labels do not.
package words

// The frame.
const (
	Product       = "Latchkey"
	SkipToContent = "Skip to content"
	MenuOpen      = "Menu"
	MenuClose     = "Close menu"
	MainMenu      = "Main menu"
	Breadcrumbs   = "Where you are"
	Search        = "Search or jump to…"
	SearchShort   = "Search"
	SearchEmpty   = "Nothing found. Try the beginning of a name."
	SearchHint    = "Users, machines and pages. Arrow keys choose, Enter opens."
	Account       = "Account"
	Theme         = "Appearance"
	ThemeSystem   = "As the system"
	ThemeLight    = "Light"
	ThemeDark     = "Dark"
	SignOut       = "Sign out"
	SignIn        = "Sign in"
	MyPages       = "My account"
	ToConsole     = "Console"
	Keys          = "Keyboard"
	Copy          = "Copy"
	Copied        = "Copied"
	Download      = "Download"
	Print         = "Print"
	Close         = "Close"
	Cancel        = "Cancel"
	NextPage      = "Next page"
	FirstPage     = "First page"
	ApplyFilter   = "Apply"
	ClearFilter   = "Clear"
	Never         = "never"
	None          = "none"
	Required      = "required"
	AsCurl        = "As API call"
	AsCurlLead    = "The same through the API. Put a token into LATCHKEY_TOKEN first (API tokens)."
	FollowOn      = "Follow live"
	FollowOff     = "Stop following"
	FollowLost    = "The connection was lost; trying again."
	NewRows       = "new rows"
	KeysOn        = "Single keys work (/, ?, j, k, g)"
)

// The sections of the menus.
const (
	NavDashboard = "Dashboard"
	NavUsers     = "Users"
	NavGroups    = "Groups"
	NavLocks     = "Lock-outs"
	NavMachines  = "Machines"
	NavJoin      = "Join tokens"
	NavOffline   = "Offline"
	NavWindows   = "MFA windows"
	NavPolicies  = "Policies"
	NavExplain   = "Explain a decision"
	NavEvents    = "Events"
	NavAudit     = "Admin actions"
	NavImport    = "Import"
	NavApprovals = "Approvals"
	NavTokens    = "API tokens"
	NavAPI       = "API"
	NavSettings  = "Settings"
	NavStatus    = "Status"

	NavGroupPeople   = "People"
	NavGroupMachines = "Machines"
	NavGroupRules    = "Rules"
	NavGroupLog      = "Log"
	NavGroupServer   = "Server"

	NavMe         = "Overview"
	NavMyFactors  = "Factors"
	NavMyMachines = "Machines"
	NavMySignins  = "Sign-ins"
	NavMyPassword = "Password"
	NavMySessions = "Sessions"
)

// Errors.
const (
	ErrorSummary = "Please correct this."
	SigninFailed = "The sign-in failed."
	ErrorBack    = "Go back"
	ErrorHome    = "Start page"
)

// ErrorTitle is the heading of an error page.
func ErrorTitle(status int) string {
	switch status {
	case 400:
		return "This request can not be read"
	case 401:
		return "Please sign in"
	case 403:
		return "You may not do this"
	case 404:
		return "Not found"
	case 405:
		return "This page can not do that"
	case 409:
		return "Somebody was faster"
	case 413:
		return "Too large"
	case 422:
		return "A value is not allowed"
	case 429:
		return "Too many requests"
	case 503:
		return "Not available at the moment"
	}
	return "Something went wrong"
}

// The keys of the ? dialog.
var KeyTable = [][2]string{
	{"Ctrl K", "Search users, machines and pages"},
	{"/", "Go to the filter of the page"},
	{"g d", "Dashboard"},
	{"g u", "Users"},
	{"g m", "Machines"},
	{"g e", "Events"},
	{"g p", "Policies"},
	{"j  k", "Next and previous row of a table"},
	{"Enter", "Open the row"},
	{"Esc", "Close a dialog or leave a field"},
	{"?", "Show these keys"},
}

// Foreign is for a request that a browser says another site has made.
const Foreign = "This request came from another site and was refused. Open the page here and do it again."

// NotForConsole is for who has a session that does not open the console.
const NotForConsole = "The console is for administrators who have signed in with an authenticator. A backup code or an enrolment code opens the portal alone."
