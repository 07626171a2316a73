package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"

	"latchkey/internal/wire"
)

// Reason says why the link is down. The words are stable: they stand in events and
// in the status.
type Reason string

// The reasons.
const (
	Starting          Reason = "starting"               // no try yet
	Silence           Reason = "silence"                // no answer in time
	ConnectionRefused Reason = "connection-refused"     // nobody listens there
	Unreachable       Reason = "network-unreachable"    // no way to that host
	NameUnknown       Reason = "name-unknown"           // its name can not be resolved
	Foreign           Reason = "foreign-certificate"    // somebody else answers
	ServerExpired     Reason = "server-certificate-old" // the server's certificate has expired
	NotLatchkey       Reason = "not-latchkey"           // no TLS, or no Latchkey behind it: a captive portal, a wrong port
	ServerError       Reason = "server-error"           // a 5xx
	ProxyUnreachable  Reason = "proxy-unreachable"
	ProxySilent       Reason = "proxy-silent"        // it takes the connection, and no answer comes
	ProxyRefused      Reason = "proxy-refused"       // it answers CONNECT with anything but 200, or hangs up
	ProxyCredentials  Reason = "proxy-authorisation" // it answers 407
	CertificateDenied Reason = "certificate-denied"  // the server ends the handshake over our certificate
	KeyUnusable       Reason = "machine-key"         // the TPM does not sign
	Broken            Reason = "broken"              // the connection broke off
)

var reasonTexts = map[Reason]string{
	Starting:          "The agent has just started and has not reached the server yet.",
	Silence:           "The server does not answer: packets are lost, or it is frozen or overloaded.",
	ConnectionRefused: "The server's machine answers, but Latchkey does not listen there.",
	Unreachable:       "There is no network, or no way to the server.",
	NameUnknown:       "The server's name can not be resolved.",
	Foreign:           "Somebody answers at the server's address who is not this machine's server. In a network with a sign-in page open that, or use another network; where there is none tell an administrator: it may be an attacker.",
	ServerExpired:     "The server's certificate has expired.",
	NotLatchkey:       "What answers at the server's address is not Latchkey: a captive portal, a proxy, or a wrong port. Open the network's sign-in page, or use another network.",
	ServerError:       "The server has an internal problem.",
	ProxyUnreachable:  "The configured proxy can not be reached.",
	ProxySilent:       "The configured proxy does not answer, or gets no answer from the server.",
	ProxyRefused:      "The configured proxy refuses to connect to the server.",
	ProxyCredentials:  "The configured proxy asks for credentials, and the agent has none to give: it must let this machine through to the server.",
	CertificateDenied: "The server does not accept this machine's certificate.",
	KeyUnusable:       "This machine's key can not be used: its TPM does not sign.",
	Broken:            "The connection to the server broke off.",
}

// Text is the reason for people.
func (r Reason) Text() string {
	if t, ok := reasonTexts[r]; ok {
		return t
	}
	return "The server can not be reached."
}

// quick tells reasons that show at once: trying again costs nothing.
func (r Reason) quick() bool {
	return r != Silence && r != ProxyUnreachable && r != ProxySilent && r != KeyUnusable
}

// Down says that the server did not answer.
type Down struct {
	Reason Reason
	cause  error
}

// NewDown makes a Down; cause may be nil.
func NewDown(r Reason, cause error) *Down { return &Down{Reason: r, cause: cause} }

func (d *Down) Error() string {
	if d.cause == nil {
		return string(d.Reason)
	}
	return fmt.Sprintf("%s: %v", d.Reason, d.cause)
}

func (d *Down) Unwrap() error { return d.cause }

// Refused says that this machine is refused for ever.
type Refused struct {
	Note    *wire.RefusalNote // may be nil
	Problem *wire.Problem     // may be nil
}

func (r *Refused) Error() string { return "the server has revoked this machine" }

// Text is what the server wrote for people, or nothing.
func (r *Refused) Text() string {
	if r.Note != nil {
		return r.Note.Text
	}
	return ""
}

// ErrTrouble says that a conversation began online and the server then could not go
// on: it was there to the end and said so.
var ErrTrouble = errors.New("the server has a problem and could not finish the sign-in")

// ErrLost says that a conversation began online and the server went away.
var ErrLost = errors.New("the server became unreachable during the sign-in")

// The errors of our own checks, which classify knows by type.
type (
	foreignError struct{ why string }
	proxyError   struct{ status int }
	answerError  struct{ why string }
)

func (e foreignError) Error() string {
	return "the server's certificate is not of the pinned CA: " + e.why
}

func (e proxyError) Error() string {
	return fmt.Sprintf("the proxy answers CONNECT with %d", e.status)
}
func (e answerError) Error() string { return "no answer of a Latchkey server: " + e.why }

var errServerExpired = errors.New("the server's certificate has expired")

// classify says what kind of failure err is.
func classify(err error) Reason {
	var (
		foreign foreignError
		proxy   proxyError
		answer  answerError
		op      *net.OpError
		dns     *net.DNSError
		record  tls.RecordHeaderError
		netErr  net.Error
	)
	switch {
	case errors.As(err, &foreign):
		return Foreign
	case errors.Is(err, errServerExpired):
		return ServerExpired
	case errors.As(err, &proxy):
		if proxy.status == http.StatusProxyAuthRequired {
			return ProxyCredentials
		}
		return ProxyRefused
	case errors.As(err, &answer):
		return NotLatchkey
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return ProxyUnreachable
	case strings.Contains(err.Error(), "failed to sign handshake"):
		return KeyUnusable
	case errors.As(err, &op) && op.Op == "remote error":
		// An alert. Only some are about our certificate; a portal that speaks an older
		// TLS sends others.
		if about := op.Err.Error(); strings.Contains(about, "certificate") || strings.Contains(about, "access denied") {
			return CertificateDenied
		}
		return NotLatchkey
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return NotLatchkey
	case errors.As(err, &op) && op.Op == "local error", strings.Contains(err.Error(), ": tls: "):
		// We broke off: what came is no handshake with us, as when somebody plays back
		// what the server has said to somebody else, or earlier.
		return Foreign
	case errors.As(err, &dns) && !dns.IsTimeout:
		return NameUnknown
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout(),
		strings.Contains(err.Error(), "http2: client connection lost"):
		return Silence
	case isErrno(err, connRefused):
		return ConnectionRefused
	case isErrno(err, unreachable):
		return Unreachable
	}
	return Broken
}

func isErrno(err error, list []syscall.Errno) bool {
	for _, e := range list {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
