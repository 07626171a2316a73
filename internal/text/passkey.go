package text

// Passkeys and security keys.
const (
	OptionEnrol        = "Enrolment code from the help desk"
	OptionPasskey      = "Passkey or security key"
	PromptPasskey      = "Use your passkey or security key: "
	PasskeyPasswordDue = "Your password is to be changed. Sign in with your name and password: then you choose a new one."
	PasskeyRefused     = "That passkey was not accepted here. Try again, or choose another way."
	PasskeyUnknown     = "That passkey is not registered here any more. Choose another way."
	PasskeyNotVerified = "Your passkey did not check that it is you: it wants your PIN, fingerprint or face. Try again."
	PasskeyCloned      = "That passkey may have been copied, and is no longer accepted. Choose another way, and tell your help desk."
	PasskeyLate        = "That took too long, or was answered already. Try again."
)
