package words

// Proving who one is: the choice of a second factor, at the sign-in and at a step-up.
const (
	ProofChoose     = "How do you want to prove that it is you?"
	ProofChooseLead = "Choose one. The strongest stands first."
	ProofNow        = "I have answered on the phone"
	ProofWaiting    = "Waiting for your phone …"
	ProofNumber     = "Type this number on your phone"
	ProofNotYet     = "Nobody has answered on the phone yet."
	ProofAgain      = "Send it again"
	ProofMailed     = "Code"
	ProofMailedHint = "The digits that were sent to you."
	ProofKey        = "Use your passkey"
	ProofKeyLead    = "Your browser asks for the passkey or security key: by your fingerprint, your face, the device's PIN, or a touch of the key."
	ProofKeyScript  = "Passkeys need JavaScript in this browser. Switch it on, or choose another way."
	ProofKeyMissing = "This browser can not use passkeys here. Choose another way."
	ProofKeyAborted = "That did not work, or was cancelled. Try again, or choose another way."
	ProofKeyWorking = "Waiting for your passkey …"
	ProofPasskey    = "Sign in with a passkey"
	ProofNoKinds    = "There is no factor of yours that could be asked for here. Sign out and in again, or ask your help desk."
	ProofByPasskey  = "Passkey or security key"
	ProofByPush     = "Approved on the phone"
	ProofByMail     = "Code by mail"
	ProofBySMS      = "Code by SMS"
)
