// Package fault is the one table of errors that leave a process: code, public
// text and HTTP status. The public text says what happened, why and what to do
// next; the cause is for the log and never leaves. Pure.
package fault

import (
	"errors"
	"fmt"
)

// Code names a fault for programs. Codes are stable.
type Code string

// The codes.
const (
	Internal       Code = "internal"
	BadRequest     Code = "bad-request"
	Invalid        Code = "invalid"
	NotFound       Code = "not-found"
	Exists         Code = "exists"
	Conflict       Code = "conflict"
	ShutsOut       Code = "shuts-out"
	Forbidden      Code = "forbidden"
	Unauthorized   Code = "unauthorized"
	StepUp         Code = "step-up"
	TokenSpent     Code = "token-refused"
	MachineUnknown Code = "machine-unknown"
	MachinePending Code = "machine-pending"
	MachineRefused Code = "machine-refused"
	TooOld         Code = "too-old"
	TooNew         Code = "too-new"
	Replayed       Code = "replayed"
	Expired        Code = "conversation-expired"
	TooMany        Code = "too-many"
	Unavailable    Code = "unavailable"
)

type row struct {
	text   string
	status int // of HTTP; a number, because net/http would come along with its names
}

var table = map[Code]row{
	Internal:       {"The server has an internal problem. Try again; if it stays, look into the server's log for this code and time.", 500},
	BadRequest:     {"The request is not of the documented form.", 400},
	Invalid:        {"A value is not allowed.", 422},
	NotFound:       {"There is no such thing, or you may not know of it.", 404},
	Exists:         {"Something with this name exists already. Choose another name.", 409},
	Conflict:       {"Somebody else changed it in the meantime. Load it again and repeat the change.", 409},
	ShutsOut:       {"This would shut people out who could sign in until now. Accept that, or enrol what is accepted for them first.", 409},
	Forbidden:      {"You may not do this. Ask an administrator with a higher role.", 403},
	Unauthorized:   {"Sign in first.", 401},
	StepUp:         {"Give your second factor again: this needs one that was given within the last five minutes.", 403},
	TokenSpent:     {"The join token is unknown, used or expired. Ask an administrator for a new one (latchkey machine token).", 403},
	MachineUnknown: {"The server does not know this machine. Join it again with a new token.", 403},
	MachinePending: {"This machine waits for an administrator's approval (latchkey machine set NAME --status active).", 403},
	MachineRefused: {"This machine has been revoked. Ask an administrator.", 403},
	TooOld:         {"This agent is too old for the server. Update the agent.", 426},
	TooNew:         {"This agent is newer than the server. Update the server.", 426},
	Replayed:       {"This step was sent before with another content. Begin again.", 409},
	Expired:        {"The sign-in took too long. Begin again.", 410},
	TooMany:        {"Too many requests. Wait a little.", 429},
	Unavailable:    {"The server can not answer now. Try again soon.", 503},
}

// Fault is an error with a public side.
type Fault struct {
	Code   Code
	Detail string  // public: what exactly, in one sentence; may be empty
	Fields []Field // public: every faulty field of the input
	About  []byte  // public: what it is about, for programs, as JSON; may be empty
	cause  error
}

// Field is one faulty field of an input.
type Field struct {
	Name  string `json:"field"`
	Fault string `json:"fault"` // the value's fault and what is allowed
}

// New makes a fault with a cause that stays private; cause may be nil.
func New(code Code, cause error) *Fault { return &Fault{Code: code, cause: cause} }

// Newf makes a fault with a public detail.
func Newf(code Code, detail string, a ...any) *Fault {
	return &Fault{Code: code, Detail: fmt.Sprintf(detail, a...)}
}

// Because adds the private cause.
func (f *Fault) Because(cause error) *Fault { f.cause = cause; return f }

// With adds a faulty field.
func (f *Fault) With(name, what string, a ...any) *Fault {
	f.Fields = append(f.Fields, Field{name, fmt.Sprintf(what, a...)})
	return f
}

// Public is the text for people.
func (f *Fault) Public() string {
	text := f.Detail
	if text == "" {
		text = table[f.Code].text
	}
	for _, x := range f.Fields {
		text += fmt.Sprintf(" %s: %s.", x.Name, x.Fault)
	}
	return text
}

// Status is the HTTP status of the code; unknown codes are 500.
func (f *Fault) Status() int {
	if r, ok := table[f.Code]; ok {
		return r.status
	}
	return 500
}

// Error is for logs: it holds the cause.
func (f *Fault) Error() string {
	if f.cause == nil {
		return string(f.Code) + ": " + f.Public()
	}
	return string(f.Code) + ": " + f.cause.Error()
}

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.cause }

// Of finds the fault in err; any other error becomes Internal.
func Of(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return New(Internal, err)
}

// Is tells whether err is a fault of the code.
func Is(err error, code Code) bool {
	var f *Fault
	return errors.As(err, &f) && f.Code == code
}
