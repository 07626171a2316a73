package post

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	mail "github.com/wneessen/go-mail"

	"latchkey/internal/rest"
	"latchkey/internal/text"
)

// Message is what is sent to one person.
type Message struct {
	To      string `json:"to"`
	Subject string `json:"subject,omitempty"` // of a mail
	Text    string `json:"text"`
}

// Outcome is what became of sending. Reason is empty when the other side has taken it.
type Outcome struct {
	Reason    string
	Detail    string // for administrators; names no address
	Permanent bool   // trying again is of no use
}

// The reasons. They stand in the queue and in events.
const (
	ReasonRefused     = "post-refused"     // the other side does not take it, ever
	ReasonDeferred    = "post-deferred"    // the other side asks to come again
	ReasonUnreachable = "post-unreachable" // no connection, or none in time
	ReasonTLS         = "post-tls"         // no protection, or a certificate that is not right
	ReasonSignin      = "post-sign-in"     // our user name or password is not right
	ReasonSettings    = "post-settings"    // it is switched off, or settings can not be used
	ReasonExpired     = "post-expired"     // it would come too late
)

// maxAnswer bounds what the other side says, as it is kept.
const maxAnswer = 300

// sendMail sends one over SMTP. It takes at most twice the time-out.
func sendMail(ctx context.Context, s Mail, m Message, now time.Time) Outcome {
	msg, problem := compose(s, m, now)
	if problem != "" {
		return Outcome{ReasonSettings, problem, true}
	}
	roots, err := pool(s.CA)
	if err != nil {
		return Outcome{ReasonSettings, "The certificates of the mail server's CA can not be read.", false}
	}
	limit := time.Duration(s.Timeout) * time.Second
	ctx, cancel := context.WithTimeout(ctx, 2*limit)
	defer cancel()
	conf := &tls.Config{ServerName: s.Host, RootCAs: roots, MinVersion: tls.VersionTLS12}
	wire := &wire{tls: conf, direct: s.Security == rest.MailTLS}
	defer wire.close()
	defer context.AfterFunc(ctx, wire.close)()
	o := []mail.Option{
		mail.WithPort(s.port()), mail.WithTimeout(limit), mail.WithTLSConfig(conf), mail.WithHELO(s.hello()), mail.WithDialContextFunc(wire.dial),
		mail.WithoutNoop(), mail.WithTLSPolicy(mail.TLSMandatory),
	}
	switch s.Security {
	case rest.MailStartTLS:
	case rest.MailTLS:
		o = append(o, mail.WithSSL())
	case rest.MailPlain:
		if !here(s.Host) {
			return Outcome{ReasonSettings, "Without TLS mails go to this host itself alone.", false}
		}
		o = append(o, mail.WithTLSPolicy(mail.NoTLS))
	default:
		return Outcome{ReasonSettings, "The protection of the connection is not known.", false}
	}
	if s.Username != "" {
		o = append(o, mail.WithUsername(s.Username), mail.WithPassword(string(s.Password.Reveal())), auth(s.Auth, s.Security != rest.MailPlain))
	}
	c, err := mail.NewClient(s.Host, o...)
	if err != nil {
		return Outcome{ReasonSettings, clean(err.Error(), s, m), false}
	}
	err = c.DialAndSendWithContext(ctx, msg)
	if err == nil || msg.IsDelivered() {
		return Outcome{} // a farewell that went wrong changes nothing
	}
	return judge(ctx, err, s, m)
}

func (m Mail) hello() string {
	if m.Hello != "" {
		return m.Hello
	}
	if i := strings.LastIndexByte(m.From, '@'); i >= 0 {
		return m.From[i+1:]
	}
	return "localhost"
}

// auth chooses how to sign in there.
func auth(word string, protected bool) mail.Option {
	if word == "" {
		best := []mail.SMTPAuthType{mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin, mail.SMTPAuthCramMD5}
		if !protected {
			best = []mail.SMTPAuthType{mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlainNoEnc, mail.SMTPAuthLoginNoEnc, mail.SMTPAuthCramMD5}
		}
		return mail.WithOpportunisticSMTPAuth(best...)
	}
	kind := map[string]mail.SMTPAuthType{
		"plain": mail.SMTPAuthPlain, "login": mail.SMTPAuthLogin, "cram-md5": mail.SMTPAuthCramMD5, "scram-sha-256": mail.SMTPAuthSCRAMSHA256,
	}[word]
	if !protected {
		switch kind {
		case mail.SMTPAuthPlain:
			kind = mail.SMTPAuthPlainNoEnc
		case mail.SMTPAuthLogin:
			kind = mail.SMTPAuthLoginNoEnc
		}
	}
	return mail.WithSMTPAuth(kind)
}

// compose makes the mail, or says for administrators why it can not be made. Addresses
// are judged anew: what lies in the queue is no proof.
func compose(s Mail, m Message, now time.Time) (msg *mail.Msg, problem string) {
	to, err := ParseMail(m.To)
	if err != nil {
		return nil, fmt.Sprintf("The address of the person is not right: %s.", err)
	}
	from, err := ParseMail(s.From)
	if err != nil {
		return nil, fmt.Sprintf("The sender's address is not right: %s.", err)
	}
	msg = mail.NewMsg(mail.WithNoDefaultUserAgent(), mail.WithCharset(mail.CharsetUTF8), mail.WithEncoding(mail.EncodingQP))
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	if err := errors.Join(msg.EnvelopeFrom(from), msg.FromFormat(text.CleanN(s.FromName, 64), from), msg.AddTo(to)); err != nil {
		return nil, fmt.Sprintf("The mail can not be made: %s.", err)
	}
	msg.Subject(text.CleanN(m.Subject, 200))
	msg.SetDateWithValue(now)
	msg.SetMessageIDWithValue(hex.EncodeToString(id) + "@" + from[strings.LastIndexByte(from, '@')+1:])
	// Nobody's absence is told to a machine (RFC 3834).
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetGenHeader("X-Auto-Response-Suppress", "All")
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	return msg, ""
}

// wire makes the one connection of a mail, so that it is closed whatever happens.
type wire struct {
	tls    *tls.Config
	direct bool

	mu   sync.Mutex
	conn net.Conn
	done bool
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	gone := w.done
	w.conn = c
	w.mu.Unlock()
	if gone {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	if !w.direct {
		return c, nil
	}
	t := tls.Client(c, w.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close()
		return nil, err
	}
	return t, nil
}

func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	if w.conn != nil {
		_ = w.conn.Close()
	}
}

// judge says what a failure means. Only what the server says of this mail or of its
// receiver is for ever: everything else may be our own settings, and mended.
func judge(ctx context.Context, err error, s Mail, m Message) Outcome {
	said := clean(err.Error(), s, m)
	var (
		send    *mail.SendError
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		other   x509.HostnameError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		dns     *net.DNSError
		netErr  net.Error
	)
	switch {
	case errors.As(err, &send):
		code := send.ErrorCode()
		said = strconv.Itoa(code) + " " + said
		switch {
		case code >= 500 && (send.Reason == mail.ErrSMTPRcptTo || send.Reason == mail.ErrSMTPData || send.Reason == mail.ErrSMTPDataClose):
			return Outcome{ReasonRefused, "The mail server refuses this mail: " + said, true}
		case code >= 500 && send.Reason == mail.ErrSMTPMailFrom:
			return Outcome{ReasonSettings, "The mail server refuses the sender's address: " + said, false}
		case code >= 400:
			return Outcome{ReasonDeferred, "The mail server asks to come again: " + said, false}
		}
		return Outcome{ReasonUnreachable, "The connection broke off: " + said, false}
	case errors.As(err, &verify), errors.As(err, &unknown), errors.As(err, &other):
		return Outcome{ReasonTLS, "The mail server's certificate is not right: " + said, false}
	case errors.As(err, &record), errors.As(err, &alert):
		return Outcome{ReasonTLS, "The mail server does not speak TLS here: " + said, false}
	case strings.Contains(err.Error(), "STARTTLS"):
		return Outcome{ReasonTLS, "The mail server offers no STARTTLS, which is required: " + said, false}
	case strings.Contains(err.Error(), "AUTH"), strings.Contains(err.Error(), "535 "):
		return Outcome{ReasonSignin, "The mail server does not let us sign in: " + said, false}
	case errors.As(err, &dns):
		return Outcome{ReasonUnreachable, "The mail server's name is not known: " + said, false}
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return Outcome{ReasonUnreachable, "The mail server did not answer in time: " + said, false}
	}
	return Outcome{ReasonUnreachable, "The mail server can not be reached: " + said, false}
}

// clean is what the other side said, without what must not stand in a log: the receiver
// and our password.
func clean(said string, s Mail, m Message) string {
	said = without(said, string(s.Password.Reveal()))
	return masked(said, m.To, MaskMail(m.To))
}

func without(said, hidden string) string {
	if len(hidden) < 4 {
		return said
	}
	return strings.ReplaceAll(said, hidden, "…")
}

// masked puts the mask in the place of an address, however it is written there, and cuts
// what is too long.
func masked(said, address, mask string) string {
	if address != "" {
		low := strings.ToLower(said)
		want := strings.ToLower(address)
		if len(low) == len(said) {
			for i := strings.Index(low, want); i >= 0; i = strings.Index(low, want) {
				said = said[:i] + mask + said[i+len(want):]
				low = strings.ToLower(said)
				if len(low) != len(said) || strings.Contains(strings.ToLower(mask), want) {
					break
				}
			}
		}
	}
	return text.CleanN(said, maxAnswer)
}
