// Package shim is the language of the local socket: what passes between the
// small module inside a sign-in program (native/pam, or `latchkey signin`) and
// the agent. It knows both ends, so that one set of tests holds them together.
//
// A frame is a big-endian u32 length of the body (1..16384), then the body:
// fields separated by one NUL, no NUL at the end. Field 0 is the verb. There
// are at most 64 fields. One frame has one total deadline, not one per read.
//
// The agent leads. A connection carries:
//
//	shim:  hello                         the protocol version, once
//	shim:  begin | account | chauthtok | setcred | session-open | session-close | status | certificate
//	agent: secret | ask | choose | wait  prompt n   → shim: answer n, or cancel
//	agent: tell | warn | authtok | must-change      → nothing
//	agent: allow | deny | ignore | too-old          the verdict, once; then both close
//
// In the account phase must-change is a verdict ("the password has to be
// changed"); in the others it is a remark, and the shim reads on.
//
// Promises: nothing unknown is guessed (an unknown verb, key, mode or a number
// in another spelling is an error, and the reader denies); texts can not carry
// control characters to a terminal (Clean, on both sides); what a person typed
// is a secret.Bytes and its transport buffers are wiped.
//
// Rows: S1 (what the shim hands over), S2 (choose, wait), S8 (too-old and every
// error of this package are denials), S9 (must-change, authtok). Architecture §4.
package shim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"latchkey/internal/secret"
)

// History of the protocol; the number rises with every change of the wire.
//
//	1  2026-11  first version
const Version = 1

// Limits of a frame.
const (
	// MaxBody is the largest body in octets.
	MaxBody = 16384
	// MaxFields is the largest number of fields, the verb included.
	MaxFields = 64
	// MaxNumber is the largest number of a prompt.
	MaxNumber = 999_999_999
)

// Errors of encoding and decoding. All of them end the conversation.
var (
	// ErrLength says that a body is empty or larger than MaxBody.
	ErrLength = errors.New("frame length out of range (1..16384 octets)")
	// ErrFields says that there are more than MaxFields fields.
	ErrFields = errors.New("more than 64 fields in a frame")
	// ErrVerb says that the verb is not known to this side.
	ErrVerb = errors.New("unknown verb")
	// ErrShape says that a known verb came with fields that do not fit it.
	ErrShape = errors.New("malformed message")
)

// FromShim is what a shim may say: Hello, Start, Answer, Cancel, Status or Certificate.
type FromShim interface{ fromShim() [][]byte }

// FromAgent is what the agent may say: Secret, Ask, Choose, Wait, Tell, Warn,
// Authtok, MustChange, or one of the verdicts Allow, Deny, Ignore, TooOld.
type FromAgent interface{ fromAgent() [][]byte }

// Hello opens every connection.
type Hello struct{ Version int }

// Answer answers the prompt with the same number. Value is what was typed, in
// full, possibly empty; for Choose it is the number of the option, from 1, as
// typed: the agent judges it.
type Answer struct {
	N     int
	Value secret.Bytes
}

// Junk tells whether the answer is the fake password that sshd hands to PAM in
// place of the real one when the user is unknown or not allowed to log in. Such
// an answer is refused without being counted.
func (a Answer) Junk() bool { return IsJunk(a.Value.Reveal()) }

// Cancel says that there will be no answer: the person gave up, input ended, or
// the program can not show the prompt.
type Cancel struct{}

// Status asks for the state of the machine; the agent answers one Tell that
// holds JSON and closes.
type Status struct{}

// Certificate asks, in the name of whoever is at the other end, for a certificate of
// his own (M4): Request is JSON of CertificateRequest. The agent answers one Tell that
// holds JSON of CertificateReply and closes.
type Certificate struct{ Request string }

// Secret is a prompt whose answer is not echoed. The text is shown as it is,
// blanks at its end included.
type Secret struct {
	N    int
	Text string
}

// Ask is a prompt whose answer is echoed.
type Ask struct {
	N    int
	Text string
}

// Choose shows a numbered list below Text. It has 1 to 61 options.
type Choose struct {
	N       int
	Text    string
	Options []string
}

// Wait is "press Enter to check": the answer is what was typed, usually nothing.
// It is a prompt because sshd holds plain text back until the next one.
type Wait struct {
	N    int
	Text string
}

// Tell shows Text as information. It may have several lines. What is needed to sign in
// is shown also where the program wants silence (PAM_SILENT), as a prompt is.
type Tell struct {
	Text   string
	Needed bool
}

// Warn shows Text as an error. It may have several lines.
type Warn struct{ Text string }

// Authtok is the password that later modules of the stack shall find.
type Authtok struct{ Value secret.Bytes }

// MustChange says that the password has to be changed before the user goes on.
type MustChange struct{}

// Allow opens. User is the name, SID the identifier on systems that have them
// (else empty).
type Allow struct{ User, SID string }

// Deny shuts. Expired says that the reason is an expired or disabled account.
type Deny struct {
	Text    string
	Expired bool
}

// Ignore leaves the decision to the machine's other modules.
type Ignore struct{}

// TooOld denies because the agent does not speak the shim's version.
type TooOld struct{ Text string }

// Verdict tells whether m ends a conversation in the given phase.
func Verdict(m FromAgent, p Phase) bool {
	switch m.(type) {
	case Allow, Deny, Ignore, TooOld:
		return true
	case MustChange:
		return p == PhaseAccount
	default:
		return false
	}
}

func (m Hello) fromShim() [][]byte { return verb("hello", strconv.Itoa(m.Version)) }

func (m Answer) fromShim() [][]byte {
	return append(verb("answer", strconv.Itoa(m.N)), m.Value.Reveal())
}
func (Cancel) fromShim() [][]byte { return verb("cancel") }
func (Status) fromShim() [][]byte { return verb("status") }

func (c Certificate) fromShim() [][]byte { return verb("certificate", c.Request) }

func (m Secret) fromAgent() [][]byte { return verb("secret", strconv.Itoa(m.N), Clean(m.Text)) }
func (m Ask) fromAgent() [][]byte    { return verb("ask", strconv.Itoa(m.N), Clean(m.Text)) }
func (m Wait) fromAgent() [][]byte   { return verb("wait", strconv.Itoa(m.N), Clean(m.Text)) }

func (m Tell) fromAgent() [][]byte {
	f := verb("tell", CleanLines(m.Text))
	if m.Needed {
		f = append(f, []byte("needed"))
	}
	return f
}
func (m Warn) fromAgent() [][]byte { return verb("warn", CleanLines(m.Text)) }

func (m Choose) fromAgent() [][]byte {
	f := verb("choose", strconv.Itoa(m.N), Clean(m.Text))
	for _, o := range m.Options {
		f = append(f, []byte(Clean(o)))
	}
	return f
}
func (m Authtok) fromAgent() [][]byte  { return append(verb("authtok"), m.Value.Reveal()) }
func (MustChange) fromAgent() [][]byte { return verb("must-change") }
func (m Allow) fromAgent() [][]byte    { return verb("allow", m.User, m.SID) }
func (Ignore) fromAgent() [][]byte     { return verb("ignore") }
func (m TooOld) fromAgent() [][]byte   { return verb("too-old", Clean(m.Text)) }

func (m Deny) fromAgent() [][]byte {
	f := verb("deny", Clean(m.Text))
	if m.Expired {
		f = append(f, []byte("expired"))
	}
	return f
}

func verb(fields ...string) [][]byte {
	out := make([][]byte, 0, len(fields)+1)
	for _, f := range fields {
		out = append(out, []byte(f))
	}
	return out
}

// EncodeFromShim gives the whole frame, length included. The caller wipes it if
// the message held a secret.
func EncodeFromShim(m FromShim) ([]byte, error) {
	fields := m.fromShim()
	// What the other side would refuse is not sent: one check for both directions.
	echo, err := fromShim(fields)
	if err != nil {
		return nil, err
	}
	switch echo := echo.(type) {
	case Answer:
		echo.Value.Wipe()
	case Start:
		echo.Authtok.Wipe()
	}
	return frame(fields)
}

// EncodeFromAgent gives the whole frame, length included. The caller wipes it if
// the message held a secret.
func EncodeFromAgent(m FromAgent) ([]byte, error) {
	fields := m.fromAgent()
	echo, err := fromAgent(fields)
	if err != nil {
		return nil, err
	}
	if echo, ok := echo.(Authtok); ok {
		echo.Value.Wipe()
	}
	return frame(fields)
}

// DecodeFromShim reads the body of a frame, without its length. The message does
// not share memory with body.
func DecodeFromShim(body []byte) (FromShim, error) {
	fields, err := split(body)
	if err != nil {
		return nil, err
	}
	return fromShim(fields)
}

// DecodeFromAgent reads the body of a frame, without its length. The message
// does not share memory with body.
func DecodeFromAgent(body []byte) (FromAgent, error) {
	fields, err := split(body)
	if err != nil {
		return nil, err
	}
	return fromAgent(fields)
}

func frame(fields [][]byte) ([]byte, error) {
	if len(fields) > MaxFields {
		return nil, ErrFields
	}
	size := len(fields) - 1
	for _, f := range fields {
		size += len(f)
		for _, c := range f {
			if c == 0 {
				return nil, fmt.Errorf("%w: a field of %q holds a NUL octet", ErrShape, fields[0])
			}
		}
	}
	if size < 1 || size > MaxBody {
		return nil, fmt.Errorf("%w: %d octets in %q", ErrLength, size, fields[0])
	}
	out := make([]byte, 4, 4+size)
	binary.BigEndian.PutUint32(out, uint32(size)) //nolint:gosec // at most MaxBody
	for i, f := range fields {
		if i > 0 {
			out = append(out, 0)
		}
		out = append(out, f...)
	}
	return out, nil
}

// split cuts a body into fields that alias it.
func split(body []byte) ([][]byte, error) {
	if len(body) < 1 || len(body) > MaxBody {
		return nil, ErrLength
	}
	fields := make([][]byte, 0, 8)
	start := 0
	for i := 0; i <= len(body); i++ {
		if i < len(body) && body[i] != 0 {
			continue
		}
		if len(fields) == MaxFields {
			return nil, ErrFields
		}
		fields = append(fields, body[start:i])
		start = i + 1
	}
	return fields, nil
}

func fromShim(f [][]byte) (FromShim, error) {
	name := string(f[0])
	switch name {
	case "hello":
		if len(f) != 2 {
			return nil, shape(name)
		}
		v, err := number(f[1])
		if err != nil {
			return nil, err
		}
		return Hello{v}, nil
	case "answer":
		if len(f) != 3 {
			return nil, shape(name)
		}
		n, err := number(f[1])
		if err != nil {
			return nil, err
		}
		return Answer{n, secret.New(append([]byte{}, f[2]...))}, nil
	case "cancel":
		if len(f) != 1 {
			return nil, shape(name)
		}
		return Cancel{}, nil
	case "status":
		if len(f) != 1 {
			return nil, shape(name)
		}
		return Status{}, nil
	case "certificate":
		if len(f) != 2 {
			return nil, shape(name)
		}
		return Certificate{string(f[1])}, nil
	}
	for _, p := range phases {
		if p.verb == name {
			return start(p.phase, f[1:])
		}
	}
	return nil, fmt.Errorf("%w %s from a shim", ErrVerb, quote(f[0]))
}

func fromAgent(f [][]byte) (FromAgent, error) {
	name := string(f[0])
	texts := func(n int) bool { return len(f) == n }
	switch name {
	case "secret", "ask", "wait":
		if !texts(3) {
			return nil, shape(name)
		}
		n, err := number(f[1])
		if err != nil {
			return nil, err
		}
		text := Clean(string(f[2]))
		switch name {
		case "secret":
			return Secret{n, text}, nil
		case "ask":
			return Ask{n, text}, nil
		default:
			return Wait{n, text}, nil
		}
	case "choose":
		if len(f) < 4 {
			return nil, shape(name)
		}
		n, err := number(f[1])
		if err != nil {
			return nil, err
		}
		m := Choose{N: n, Text: Clean(string(f[2]))}
		for _, o := range f[3:] {
			m.Options = append(m.Options, Clean(string(o)))
		}
		return m, nil
	case "tell":
		if texts(2) {
			return Tell{Text: CleanLines(string(f[1]))}, nil
		}
		if texts(3) && string(f[2]) == "needed" {
			return Tell{Text: CleanLines(string(f[1])), Needed: true}, nil
		}
	case "warn":
		if texts(2) {
			return Warn{CleanLines(string(f[1]))}, nil
		}
	case "authtok":
		if texts(2) {
			return Authtok{secret.New(append([]byte{}, f[1]...))}, nil
		}
	case "must-change":
		if texts(1) {
			return MustChange{}, nil
		}
	case "allow":
		// An approval that names nobody approves nobody.
		if texts(3) && len(f[1]) > 0 {
			return Allow{string(f[1]), string(f[2])}, nil
		}
	case "deny":
		if texts(2) {
			return Deny{Text: Clean(string(f[1]))}, nil
		}
		if texts(3) && string(f[2]) == "expired" {
			return Deny{Text: Clean(string(f[1])), Expired: true}, nil
		}
	case "ignore":
		if texts(1) {
			return Ignore{}, nil
		}
	case "too-old":
		if texts(2) {
			return TooOld{Clean(string(f[1]))}, nil
		}
	default:
		return nil, fmt.Errorf("%w %s from an agent", ErrVerb, quote(f[0]))
	}
	return nil, shape(name)
}

func shape(verb string) error { return fmt.Errorf("%w: wrong fields for %q", ErrShape, verb) }

func quote(b []byte) string {
	if len(b) > 32 {
		b = b[:32]
	}
	return strconv.Quote(string(b))
}

// number reads 1..MaxNumber in its only spelling: no sign, no leading zero.
func number(b []byte) (int, error) {
	n, err := decimal(b)
	if err != nil || n < 1 || n > MaxNumber {
		return 0, fmt.Errorf("%w: %s is not a number from 1 to %d", ErrShape, quote(b), MaxNumber)
	}
	return int(n), nil
}

// decimal reads 0..4294967295 in its only spelling.
func decimal(b []byte) (uint32, error) {
	if len(b) == 0 || len(b) > 10 || (b[0] == '0' && len(b) > 1) {
		return 0, fmt.Errorf("%w: %s is not a decimal number", ErrShape, quote(b))
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%w: %s is not a decimal number", ErrShape, quote(b))
		}
		n = n*10 + uint64(c-'0')
	}
	if n > 1<<32-1 {
		return 0, fmt.Errorf("%w: %s is too large", ErrShape, quote(b))
	}
	return uint32(n), nil
}
