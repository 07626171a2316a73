package text

import "fmt"

// Security keys at a machine (M2).
const (
	KeyInsert        = "Plug in your security key."
	KeyTouch         = "Touch your security key now."
	KeyNonePluggable = "None of your passkeys is a security key that can be plugged in here. Choose another way."
	KeyBusy          = "Somebody else is being asked for a security key at this machine. Wait until that is over, or take another way."
	KeyNone          = "No security key of yours was found. Plug one in and choose it again, or take another way."
	KeyNotYours      = "This security key is not registered for you. Plug in another one, or register it in the portal."
	KeyOld           = "This security key speaks U2F only. A FIDO2 key is needed here."
	KeyNoPIN         = "This security key has no PIN, and one is wanted here. Set one with the maker's program, or take another way."
	KeyPINWrong      = "The PIN of the security key was wrong."
	KeyPINBlocked    = "The PIN of the security key is blocked. The key must be reset and registered anew; take another way for now."
	KeyPINPower      = "Too many wrong PINs in a row. Pull the security key out, plug it in again, and choose it once more."
	KeyFinger        = "The fingerprint was not recognised. Choose the security key again to use its PIN."
	KeyUntouched     = "The security key was not touched in time."
	KeyRefused       = "The security key has refused. Take another way, or ask for help."
	KeyNotAccepted   = "The security key's answer was not accepted."
	KeyCloned        = "The security key's answer was not accepted: its counter has gone back, so that it may have been copied. Tell an administrator."
	PromptKeyAlone   = "Press Enter to use your security key: "
	PromptKeyOrCode  = "One-time code, backup code, or Enter for the security key: "
	KeyGone          = "The security key was pulled out, or does not answer. Plug it in again and choose it once more."
)

// PromptKeyPIN asks for a key's PIN; left is how many tries it has, 0 if it does not say.
func PromptKeyPIN(left int) string {
	switch {
	case left == 1:
		return "PIN of the security key (the last try before it is blocked): "
	case left > 1 && left <= 5:
		return fmt.Sprintf("PIN of the security key (%d tries left): ", left)
	}
	return "PIN of the security key: "
}
