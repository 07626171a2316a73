package words

// The page around the authenticator app and its entry in a phone's list of apps. What the
// app itself says stands in web/authenticator/src/words.ts.
const (
	AuthenticatorName     = "Latchkey Authenticator"
	AuthenticatorShort    = "Authenticator"
	AuthenticatorAbout    = "Approves sign-ins and shows codes."
	AuthenticatorUpdates  = "Updates"
	AuthenticatorNotices  = "Notices"
	AuthenticatorWaiting  = "Waiting requests"
	AuthenticatorNoScript = "The authenticator is an app and needs JavaScript: its keys are made and kept by the browser. Switch it on for this page."
)
