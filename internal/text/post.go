package text

import "fmt"

// Codes by mail and text message (M6). The texts say the same whatever the address is, so that nothing is told about it.
const (
	OptionMail = "Code by mail (weaker)"
	OptionSMS  = "Code by text message (weaker)"
	PromptPost = "Code from the message: "
	PostBack   = "Type m for another code, or another way."

	PostTooSoon    = "A code was sent a moment ago. Wait a little before you ask for another."
	PostTooMany    = "Too many codes were sent. Use another factor, or wait."
	PostServerBusy = "Too many codes are being sent now. Use another factor, or wait a minute."
	PostAbroad     = "This server sends no text messages to such a number. Use another one, or another factor."
	PostNoAddress  = "There is no confirmed address to send a code to. Use another factor."
	PostTooLate    = "The code has expired. Ask for another one."
	PostTriedOut   = "Too many wrong tries with this code. Ask for another one."
)

// PostMailed tells where a code went.
func PostMailed(mask string) string {
	return fmt.Sprintf("A code is on its way to %s. Only the newest counts.", mask)
}

// PostTexted tells where a code went.
func PostTexted(mask string) string {
	return fmt.Sprintf("A code is on its way to the number %s. Only the newest counts.", mask)
}
