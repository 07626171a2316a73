package text

import "fmt"

// This file is what people read about requests to their phones. Rows: S12, M3, M7.

// What is said at the sign-in.
const (
	OptionPush      = "Approve on my phone"
	PushWaiting     = "Approve the request on your phone."
	PushLocked      = "Requests to your phone are locked, because one was reported. Ask the help desk, or choose another way."
	NotSentHere     = "Nothing is sent: you have not been let in at this machine before, and it has not passed on your password. Use another way, or sign in here with your password once."
	PushNoPhone     = "No phone of yours can be asked now. Choose another way."
	PushTooMany     = "Too many requests have gone to your phone and were not approved. Wait some minutes, or choose another way."
	PushDenied      = "The request was denied on your phone."
	PushWrongNumber = "The number that was typed on the phone is not the one that is shown here. The request is denied."
	PushExpired     = "Nobody answered on the phone in time."
	PushWithdrawn   = "The request to your phone was withdrawn."
)

// Where somebody sits, as the phone shows it.
const (
	PlaceLocal   = "at the machine"
	PlaceSession = "in a session from elsewhere"
	PlaceNetwork = "over the network"
	PlaceBrowser = "in a browser"
	PlaceProgram = "at a command line"
)

// PushPrompt says what to do on the phone.
func PushPrompt(number string) string {
	return fmt.Sprintf("Open Latchkey Authenticator on your phone and type the number %s there.", number)
}

// PushOneAlready is said where a request of another sign-in at the same machine is open.
func PushOneAlready(seconds int) string {
	return fmt.Sprintf("Another request for this machine waits on your phone. Deny it there, or wait %d seconds.", seconds)
}

// PushSlow is said where requests were sent and withdrawn one after the other.
func PushSlow(seconds int) string {
	return fmt.Sprintf("Requests were sent and withdrawn one after the other. Wait %d seconds, or choose another factor.", seconds)
}
