package rest

import "time"

// Credentials begin a sign-in of a program.
type Credentials struct {
	Name     string `json:"name"`
	Password Secret `json:"password"`
}

// Answer gives what a sign-in asks for next.
type Answer struct {
	Signin Secret `json:"signin" doc:"What the step before has given"`
	Kind   string `json:"kind,omitempty" doc:"One of the choices; absent: totp"`
	Code   Secret `json:"code,omitzero" doc:"Absent where the answer comes another way (waits): then it is looked whether it has come, for up to four seconds"`
}

// Signin names a sign-in that goes on.
type Signin struct {
	Signin Secret `json:"signin" doc:"What the step before has given"`
}

// Way is a factor that a person may choose.
type Way struct {
	Kind    string `json:"kind" doc:"push, totp, mail, sms or backup; fido2 with browser alone"`
	Option  string `json:"option" doc:"How a menu names it"`
	Sends   bool   `json:"sends,omitempty" doc:"Something goes out first: choose it, then answer"`
	Waits   bool   `json:"waits,omitempty" doc:"The answer comes another way, such as from a phone: answer without a code until it has"`
	Browser bool   `json:"browser,omitempty" doc:"It can not be given here, but in a browser"`
}

// Choice chooses a factor, and has sent what it sends.
type Choice struct {
	Signin Secret `json:"signin" doc:"What the step before has given"`
	Kind   string `json:"kind" doc:"One of the choices"`
	Again  bool   `json:"again,omitempty" doc:"Send it once more"`
}

// ProofChoice is Choice of a session that proves anew who sits there.
type ProofChoice struct {
	Kind  string `json:"kind" doc:"One of the choices"`
	Again bool   `json:"again,omitempty" doc:"Send it once more"`
}

// Asked is what somebody was asked for.
type Asked struct {
	Kind      string    `json:"kind"`
	Prompt    string    `json:"prompt" doc:"What to ask the person, or to have done"`
	Tell      string    `json:"tell,omitempty" doc:"To be said before, such as where a code was sent: the address is masked"`
	Number    string    `json:"number,omitempty" doc:"To be typed on the phone"`
	Waits     bool      `json:"waits,omitempty" doc:"The answer comes another way"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"No answer counts from then on"`
}

// Proving is how a session may prove anew who sits there.
type Proving struct {
	Choices []Way  `json:"choices" nullable:"false" doc:"Strongest first"`
	Asked   *Asked `json:"asked,omitempty" doc:"What was chosen, if something was"`
}

// DuePassword replaces a password that is due at a sign-in (S9).
type DuePassword struct {
	Signin   Secret `json:"signin" doc:"What the step before has given"`
	Password Secret `json:"password" doc:"The new one"`
}

// SignedIn is what a step of a sign-in came to: a session, or what comes next.
type SignedIn struct {
	Session  *Session `json:"session,omitempty"`
	Secret   Secret   `json:"secret,omitzero" doc:"Of the session: send it as Authorization: Bearer"`
	Signin   Secret   `json:"signin,omitzero" doc:"Of the sign-in that goes on: send it with the next step"`
	Next     string   `json:"next,omitempty" doc:"code, new-password, enrol: a first factor has to be enrolled in the portal; or browser: there is none that can be given here"`
	Kinds    []string `json:"kinds,omitempty" doc:"Those of the choices that can be given here"`
	Choices  []Way    `json:"choices,omitempty" doc:"Factors, strongest first"`
	Asked    *Asked   `json:"asked,omitempty" doc:"What was chosen: the answer to it has not come yet"`
	Why      string   `json:"why,omitempty" doc:"With new-password: must-change or expired"`
	LastsFor string   `json:"lasts_for,omitempty" doc:"How long the sign-in waits for its next step"`
}

// Session is somebody who has signed in.
type Session struct {
	ID      string    `json:"id"`
	User    string    `json:"user"`
	UserID  string    `json:"user_id"`
	Kind    string    `json:"kind" doc:"browser or cli"`
	Factor  string    `json:"factor" doc:"Kind of the factor, certificate, or enrol; console says whether it opens more than the portal"`
	Console bool      `json:"console" doc:"It has the rights of the role; else only one's own things"`
	BeganAt time.Time `json:"began_at"`
	SeenAt  time.Time `json:"seen_at"`
	FreshAt time.Time `json:"fresh_at,omitzero" doc:"When a second factor was given last"`
	EndsAt  time.Time `json:"ends_at" doc:"At the latest; 30 minutes without use end it before"`
	Address string    `json:"address,omitempty"`
	Agent   string    `json:"agent,omitempty" doc:"What the browser or program calls itself"`
	Current bool      `json:"current,omitempty" doc:"It is this very session"`
}

// SignedOut counts what has ended for somebody who was signed out everywhere.
type SignedOut struct {
	Count        int `json:"count" doc:"Sessions at console, portal and API"`
	Windows      int `json:"windows,omitempty" doc:"MFA windows at machines; as all that follows only where somebody else did it"`
	Tokens       int `json:"tokens,omitempty" doc:"API tokens"`
	Certificates int `json:"certificates,omitempty" doc:"Certificates for the portal"`
}

// Proof gives the second factor again.
type Proof struct {
	Kind string `json:"kind,omitempty" doc:"One of the choices; absent: totp"`
	Code Secret `json:"code,omitzero" doc:"Absent where the answer comes another way (waits): then it is looked whether it has come, for up to four seconds"`
}

// Fresh is a session after its second factor was given again: its secret is another one.
// Where the answer has not come yet Asked is all that there is.
type Fresh struct {
	Secret  Secret    `json:"secret,omitzero" doc:"Replaces the one before"`
	FreshAt time.Time `json:"fresh_at,omitzero"`
	Until   time.Time `json:"fresh_until,omitzero"`
	Asked   *Asked    `json:"asked,omitempty" doc:"The answer to it has not come yet: look again. Nothing has changed"`
}

// Who is who asks.
type Who struct {
	Name    string    `json:"name"`
	UserID  string    `json:"user_id,omitempty"`
	Role    string    `json:"role"`
	By      string    `json:"by" doc:"root: the admin socket; session; or token"`
	Rights  []string  `json:"rights" nullable:"false" doc:"What may be done: events, read, helpdesk, change, own"`
	Session *Session  `json:"session,omitempty"`
	Token   *APIToken `json:"token,omitempty"`
}

// APIToken lets a program act for who made it, within its scopes.
type APIToken struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Maker       string    `json:"maker"`
	MakerID     string    `json:"maker_id"`
	Scopes      []string  `json:"scopes" nullable:"false" doc:"Of events, read, helpdesk, change, own"`
	Role        string    `json:"role" doc:"The highest that it ever has"`
	Now         string    `json:"role_now" doc:"The one that it has now: not above its maker's; none where the maker is disabled"`
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at"`
	LastUsedAt  time.Time `json:"last_used_at,omitzero"`
	LastAddress string    `json:"last_address,omitempty"`
	Token       Secret    `json:"token,omitzero" doc:"Only when it is made: send it as Authorization: Bearer"`
}

// NewAPIToken makes one.
type NewAPIToken struct {
	Name     string   `json:"name" doc:"What it is for"`
	Scopes   []string `json:"scopes" doc:"At least one of events, read, helpdesk, change, own"`
	Role     string   `json:"role,omitempty" doc:"The highest that it shall have; absent: yours"`
	ValidFor string   `json:"valid_for,omitempty" doc:"Duration such as 2160h (90 days, the default), 1h to 8760h"`
}

// Approval is what a second owner was asked for (E3).
type Approval struct {
	ID        string    `json:"id"`
	Action    string    `json:"action" doc:"Id of the operation"`
	Subject   string    `json:"subject"`
	SubjectID string    `json:"subject_id"`
	Reason    string    `json:"reason"`
	Requester string    `json:"requester"`
	Approver  string    `json:"approver,omitempty"`
	State     string    `json:"state" doc:"asked, given, denied, used or expired"`
	AskedAt   time.Time `json:"asked_at"`
	DecidedAt time.Time `json:"decided_at,omitzero"`
	ExpiresAt time.Time `json:"expires_at"`
}

// NewApproval asks for one.
type NewApproval struct {
	Action  string `json:"action" doc:"Id of the operation that shall be done"`
	Subject string `json:"subject" doc:"The user whom it is about: name or id"`
	Reason  string `json:"reason"`
}

// Verdict decides about an approval.
type Verdict struct {
	Approve bool `json:"approve" doc:"false denies it, and withdraws one's own"`
}

// SetupCode lets somebody make the first owner at /setup of the people's door.
type SetupCode struct {
	Wanted bool   `json:"wanted" doc:"There is no owner yet"`
	Code   Secret `json:"code,omitzero"`
}
