package words

// API tokens.
const (
	TokensTitle     = "API tokens"
	TokensLead      = "A token lets a program act for you through the API, within its scopes. It never does more than you may, and ends with your account."
	TokensMine      = "Yours"
	TokensAll       = "Everybody’s"
	TokensCaption   = "API tokens"
	TokensNone      = "No tokens yet"
	TokensNoneText  = "Make one for each program that speaks to this server, with the smallest scopes that it needs. A person needs none: “latchkey login”."
	TokensNew       = "Make a token"
	TokensNewText   = "Its secret is shown once. Say what it is for, so that somebody else knows in a year."
	TokensName      = "What it is for"
	TokensNameHint  = "Such as “backup of the user list”"
	TokensScopes    = "Scopes"
	TokensScopeHint = "Each stands for its right alone; reading holds the reading of events."
	TokensDays      = "Good for, in days"
	TokensDaysHint  = "1 to 365; 90 where nothing stands here. Shorter is better: what nobody knows any more should end."
	TokensMake      = "Make the token"
	TokensMade      = "The token"
	TokensMadeText  = "This is its secret. It is shown this once: put it where the program finds it, readable for nobody else. A lost one is replaced by a new one."
	TokensTry       = "To try it"
	TokensBack      = "To the list"
	TokensRevoke    = "Revoke"
	TokensRevokeQ   = "The program that has it is refused from its next request on. This can not be undone."
	TokensRevoked   = "The token was revoked."
	TokensMaker     = "Made by"
	TokensRole      = "Role"
	TokensUsed      = "Last used"
	TokensUntil     = "Until"
	TokensNever     = "never"
	TokensExpired   = "expired"
	TokensAsleep    = "its maker is disabled"
	TokensActions   = "Actions"
)

// TokenScopes says what each scope lets a program do.
var TokenScopes = map[string]string{
	"events":   "Read the event log, and nothing else: for a SIEM or a report",
	"read":     "Read everything but secrets",
	"helpdesk": "Unlock, hand out codes, report machines lost, sign people out",
	"change":   "Change users, groups, policies, machines, offline data",
	"own":      "Change the settings of the server",
}
