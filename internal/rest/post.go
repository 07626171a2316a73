package rest

import "time"

// The ways in which the connection to a mail server is protected.
const (
	MailStartTLS = "starttls" // required: a server that does not offer it is refused
	MailTLS      = "tls"      // from the first byte (RFC 8314)
	MailPlain    = "none"     // to this host itself alone
)

// MailSecurities lists them.
var MailSecurities = []string{MailStartTLS, MailTLS, MailPlain}

// MailAuths lists how one may sign in at a mail server; empty is the best that it offers.
var MailAuths = []string{"", "plain", "login", "cram-md5", "scram-sha-256"}

// The forms of a request to an SMS gateway.
var (
	SMSMethods = []string{"POST", "PUT", "GET"}
	SMSForms   = []string{"form", "json", "xml", "text", "none"}
)

// MailSettings say how mails go out (M6).
type MailSettings struct {
	On          bool   `json:"on" doc:"Mails are sent; codes by mail can be asked for where a policy names them"`
	Host        string `json:"host" doc:"Name of the mail server (a relay); its certificate must be for this name"`
	Port        int    `json:"port" doc:"0 is the usual one: 587 with starttls, 465 with tls, 25 with none"`
	Security    string `json:"security" doc:"starttls (required, the default), tls (from the first byte), or none, which only goes to this host itself"`
	CA          string `json:"ca" doc:"Certificates in PEM that the server's must come from; empty: those that the system trusts"`
	Auth        string `json:"auth" doc:"How to sign in there: plain, login, cram-md5, scram-sha-256; empty: the best that is offered"`
	Username    string `json:"username" doc:"Empty: no sign-in there"`
	HasPassword bool   `json:"has_password"`
	From        string `json:"from" doc:"The sender's address"`
	FromName    string `json:"from_name" doc:"The sender's name"`
	Hello       string `json:"hello" doc:"How this server greets; empty: the host of the sender's address"`
	Timeout     int    `json:"timeout" doc:"Seconds for one mail, 5 to 120"`
	CodeMinutes int    `json:"code_minutes" doc:"How long a code counts, 5 to 10 minutes: the longer where relays delay mails of strangers"`
	Notices     bool   `json:"notices" doc:"People are told by mail when their factors, password or mail address change"`
}

// MailChange changes them; what is left out stays.
type MailChange struct {
	On          *bool   `json:"on,omitempty"`
	Host        *string `json:"host,omitempty"`
	Port        *int    `json:"port,omitempty"`
	Security    *string `json:"security,omitempty"`
	CA          *string `json:"ca,omitempty"`
	Auth        *string `json:"auth,omitempty"`
	Username    *string `json:"username,omitempty"`
	Password    *Secret `json:"password,omitempty" doc:"Never shown again; empty removes it"`
	From        *string `json:"from,omitempty"`
	FromName    *string `json:"from_name,omitempty"`
	Hello       *string `json:"hello,omitempty"`
	Timeout     *int    `json:"timeout,omitempty"`
	CodeMinutes *int    `json:"code_minutes,omitempty"`
	Notices     *bool   `json:"notices,omitempty"`
}

// SMSHeader is a header of a request to a gateway.
type SMSHeader struct {
	Name  string `json:"name"`
	Value string `json:"value" doc:"May hold {secret} and {from}"`
}

// SMSSettings say how text messages go out: by a request to a gateway (M6).
type SMSSettings struct {
	On          bool        `json:"on" doc:"Text messages are sent; codes by SMS can be asked for where a policy names them"`
	URL         string      `json:"url" doc:"https://…; may hold {to}, {from}, {text} and {secret} in its path and query"`
	Method      string      `json:"method"`
	Form        string      `json:"form" doc:"Of the body: form, json, xml, text or none; says how placeholders are escaped"`
	Body        string      `json:"body" doc:"With {to}, {from}, {text} and {secret}"`
	Headers     []SMSHeader `json:"headers" nullable:"false"`
	Username    string      `json:"username" doc:"Of HTTP Basic authentication, with the secret as password; empty: none"`
	HasSecret   bool        `json:"has_secret"`
	From        string      `json:"from" doc:"What {from} stands for: a number or name that the gateway knows"`
	CA          string      `json:"ca" doc:"Certificates in PEM that the gateway's must come from; empty: those that the system trusts"`
	Networks    []string    `json:"networks" nullable:"false" doc:"Private networks in which the gateway may stand, such as 10.1.2.0/24"`
	PlainHTTP   bool        `json:"plain_http" doc:"Also http://, with which codes cross the network readable"`
	Status      int         `json:"status" doc:"The status that means success; 0: any 2xx"`
	Contains    string      `json:"contains" doc:"What the answer must hold; empty: anything"`
	Field       string      `json:"field" doc:"A field of the answer in JSON, such as messages.0.status; empty: none"`
	Value       string      `json:"value" doc:"What that field must be; several with commas; empty: only there"`
	Timeout     int         `json:"timeout" doc:"Seconds for one message, 5 to 60"`
	CodeMinutes int         `json:"code_minutes" doc:"How long a code counts, 5 to 10 minutes"`
	PerMinute   int         `json:"per_minute" doc:"Codes that the whole server sends in a minute, 1 to 1000: each costs money"`
	PerDay      int         `json:"per_day" doc:"The same in a day, 1 to 100000"`
	Prefixes    []string    `json:"prefixes" nullable:"false" doc:"What numbers must begin with, such as +49; empty: any number"`
}

// SMSChange changes them; what is left out stays.
type SMSChange struct {
	On          *bool        `json:"on,omitempty"`
	URL         *string      `json:"url,omitempty"`
	Method      *string      `json:"method,omitempty"`
	Form        *string      `json:"form,omitempty"`
	Body        *string      `json:"body,omitempty"`
	Headers     *[]SMSHeader `json:"headers,omitempty"`
	Username    *string      `json:"username,omitempty"`
	Secret      *Secret      `json:"secret,omitempty" doc:"Password of the user name, or what {secret} stands for; never shown again; empty removes it"`
	From        *string      `json:"from,omitempty"`
	CA          *string      `json:"ca,omitempty"`
	Networks    *[]string    `json:"networks,omitempty"`
	PlainHTTP   *bool        `json:"plain_http,omitempty"`
	Status      *int         `json:"status,omitempty"`
	Contains    *string      `json:"contains,omitempty"`
	Field       *string      `json:"field,omitempty"`
	Value       *string      `json:"value,omitempty"`
	Timeout     *int         `json:"timeout,omitempty"`
	CodeMinutes *int         `json:"code_minutes,omitempty"`
	PerMinute   *int         `json:"per_minute,omitempty"`
	PerDay      *int         `json:"per_day,omitempty"`
	Prefixes    *[]string    `json:"prefixes,omitempty"`
}

// MessagePrefix is of messages in the queue.
const MessagePrefix = "msg_"

// The channels, and the states of a message in the queue.
const (
	ChannelMail = "mail"
	ChannelSMS  = "sms"

	MessageWaiting = "waiting"
	MessageSent    = "sent"
	MessageFailed  = "failed"
)

// Message is one that is in the queue, or was a while ago. What it says is not shown.
type Message struct {
	ID        string    `json:"id"`
	Channel   string    `json:"channel"`
	Purpose   string    `json:"purpose" doc:"code, confirm, enrol, notice or test"`
	User      string    `json:"user,omitempty"`
	To        string    `json:"to" doc:"The address, masked"`
	State     string    `json:"state"`
	Tries     int64     `json:"tries"`
	Reason    string    `json:"reason,omitempty" doc:"Why it was not sent, in one word"`
	Detail    string    `json:"detail,omitempty" doc:"The same in a sentence, with what the other side said"`
	Again     bool      `json:"again" doc:"It can be sent again"`
	CreatedAt time.Time `json:"created_at"`
	DueAt     time.Time `json:"due_at,omitzero" doc:"When it is tried next"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"When it is given up"`
	DoneAt    time.Time `json:"done_at,omitzero"`
}

// TestMessage asks for a message that shows whether the settings work.
type TestMessage struct {
	To string `json:"to" doc:"A mail address, or a number in the international form"`
}

// Tested is what became of it.
type Tested struct {
	OK      bool   `json:"ok"`
	Reason  string `json:"reason,omitempty"`
	Detail  string `json:"detail" doc:"What happened, and what the other side said"`
	Seconds int    `json:"seconds" doc:"How long it took"`
}

// Queue is how many messages of a channel are in which state.
type Queue struct {
	Waiting int64 `json:"waiting"`
	Failed  int64 `json:"failed" doc:"In the last two weeks"`
	Sent    int64 `json:"sent" doc:"In the last day"`
}

// NewAddress gives a user a mail address or number to which codes go (M6).
type NewAddress struct {
	Address string `json:"address,omitempty" doc:"Mail address, or number in the international form; empty with mail: the address of the account"`
}

// PendingAddress is an address of one's own that waits for the code sent to it.
type PendingAddress struct {
	Ticket    string    `json:"ticket" doc:"To be sent back with the code"`
	To        string    `json:"to" doc:"The address, masked"`
	ExpiresAt time.Time `json:"expires_at"`
}

// ConfirmAddress confirms it.
type ConfirmAddress struct {
	Ticket string `json:"ticket" maxLength:"2048"`
	Code   Secret `json:"code"`
}
