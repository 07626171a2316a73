package post

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/outward"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Mail is how mails go out, with the password.
type Mail struct {
	rest.MailSettings
	Password secret.Bytes
}

// SMS is how text messages go out, with the secret of the gateway.
type SMS struct {
	rest.SMSSettings
	Secret secret.Bytes
	Proxy  *url.URL // of the server's settings; nil: straight
}

// The rows of the table settings. Each is sealed as a whole: passwords stand in them.
const (
	rowMail = "post.mail"
	rowSMS  = "post.sms"
)

// NewMail gives the settings that count before anybody has set any.
func NewMail() Mail {
	return Mail{MailSettings: rest.MailSettings{Security: rest.MailStartTLS, FromName: "Latchkey", Timeout: 30, CodeMinutes: 5, Notices: true}}
}

// NewSMS gives the same for text messages: the common form of a POST with the fields To,
// From and Body, and HTTP Basic authentication.
func NewSMS() SMS {
	return SMS{SMSSettings: rest.SMSSettings{
		Method: "POST", Form: FormBody, Body: "To={to}&From={from}&Body={text}", Headers: []rest.SMSHeader{}, Networks: []string{}, Prefixes: []string{},
		Timeout: 20, CodeMinutes: 5, PerMinute: 30, PerDay: 1000,
	}}
}

// stored is the plaintext of a row.
type stored[T any] struct {
	Settings T      `json:"settings"`
	Secret   []byte `json:"secret,omitempty"`
}

// Tag stands for settings as they are, as a revision does for a thing that has one.
type Tag string

func readRow[T any](ctx context.Context, p *Post, q *db.Queries, row string, to *stored[T]) (Tag, error) {
	sealed, err := q.GetSetting(ctx, row)
	if store.IsNotFound(err) {
		return tagOf(nil), nil
	}
	if err != nil {
		return "", fmt.Errorf("read the setting %s: %w", row, err)
	}
	plain, err := p.Keys.Box.Open(sealed, "settings", "value", row)
	if err != nil {
		return "", fmt.Errorf("the setting %s: %w", row, err)
	}
	defer plain.Wipe()
	if err := json.Unmarshal(plain.Reveal(), to); err != nil {
		return "", fmt.Errorf("the setting %s: %w", row, err)
	}
	return tagOf(sealed), nil
}

func tagOf(sealed []byte) Tag {
	h := sha256.Sum256(sealed)
	return Tag(hex.EncodeToString(h[:12]))
}

func (p *Post) writeRow(ctx context.Context, tx *store.Tx, row string, v any, at int64) (Tag, error) {
	plain, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	defer clear(plain)
	sealed := p.Keys.Box.Seal(plain, "settings", "value", row)
	if err := tx.PutSetting(ctx, db.PutSettingParams{Key: row, Value: sealed, UpdatedAt: at}); err != nil {
		return "", fmt.Errorf("write the setting %s: %w", row, err)
	}
	return tagOf(sealed), nil
}

// ReadMail gives the settings of mails.
func (p *Post) ReadMail(ctx context.Context, q *db.Queries) (Mail, Tag, error) {
	m := NewMail()
	s := stored[rest.MailSettings]{Settings: m.MailSettings}
	tag, err := readRow(ctx, p, q, rowMail, &s)
	m.MailSettings, m.Password = s.Settings, secret.New(s.Secret)
	m.HasPassword = len(s.Secret) > 0
	return m, tag, err
}

// WriteMail replaces them. The caller has judged them, and writes the event.
func (p *Post) WriteMail(ctx context.Context, tx *store.Tx, m Mail, at int64) (Tag, error) {
	return p.writeRow(ctx, tx, rowMail, stored[rest.MailSettings]{m.MailSettings, m.Password.Reveal()}, at)
}

// ReadSMS gives the settings of text messages.
func (p *Post) ReadSMS(ctx context.Context, q *db.Queries) (SMS, Tag, error) {
	m := NewSMS()
	s := stored[rest.SMSSettings]{Settings: m.SMSSettings}
	tag, err := readRow(ctx, p, q, rowSMS, &s)
	if err == nil {
		var o settings.Outward
		o, err = settings.ReadOutward(ctx, q, settings.Outward{Proxy: p.Proxy})
		m.Proxy = o.Proxy
	}
	m.SMSSettings, m.Secret = s.Settings, secret.New(s.Secret)
	m.HasSecret = len(s.Secret) > 0
	if m.Headers == nil {
		m.Headers = []rest.SMSHeader{}
	}
	if m.Networks == nil {
		m.Networks = []string{}
	}
	if m.Prefixes == nil {
		m.Prefixes = []string{}
	}
	return m, tag, err
}

// WriteSMS replaces them.
func (p *Post) WriteSMS(ctx context.Context, tx *store.Tx, m SMS, at int64) (Tag, error) {
	return p.writeRow(ctx, tx, rowSMS, stored[rest.SMSSettings]{m.SMSSettings, m.Secret.Reveal()}, at)
}

// ── what may be set ──

// The bounds of settings.
const (
	maxPEM      = 64 << 10
	maxSecret   = 1024
	maxPrefixes = 64
)

type faults struct{ f *fault.Fault }

func (v *faults) add(field, what string, a ...any) {
	if v.f == nil {
		v.f = fault.New(fault.Invalid, nil)
	}
	v.f.With(field, what, a...)
}

func (v *faults) err() error {
	if v.f == nil {
		return nil
	}
	return v.f
}

func (v *faults) because(field string, err error) {
	if err != nil {
		v.add(field, "%s", err)
	}
}

func (v *faults) between(field string, n, low, high int) {
	if n < low || n > high {
		v.add(field, "%d is out of range; allowed are %d to %d", n, low, high)
	}
}

func (v *faults) word(field, value string, allowed []string) {
	if !slices.Contains(allowed, value) {
		v.add(field, "%.40q is not allowed; allowed are %s", value, strings.Trim(strings.Join(allowed, ", "), ", "))
	}
}

func (v *faults) line(field, value string, most int) {
	if value != "" {
		v.because(field, text.ValidLine(field, value, most))
	}
}

// secret judges a password: it goes into a line of a protocol.
func (v *faults) secret(field string, s secret.Bytes) {
	if s.Len() > maxSecret {
		v.add(field, "it is longer than %d bytes", maxSecret)
	}
	for _, c := range s.Reveal() {
		if c < 0x20 || c == 0x7f {
			v.add(field, "it holds a control character")
			return
		}
	}
}

// pool reads certificates; empty gives nil, which is the system's.
func pool(pemText string) (*x509.CertPool, error) {
	if strings.TrimSpace(pemText) == "" {
		return nil, nil
	}
	if len(pemText) > maxPEM {
		return nil, fmt.Errorf("it is longer than %d bytes", maxPEM)
	}
	out, rest, n := x509.NewCertPool(), []byte(pemText), 0
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, errors.New("it holds something else than certificates; a private key has no place here")
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, errors.New("it holds a certificate that can not be read")
		}
		out.AddCert(c)
		n++
	}
	if n == 0 || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("it is not PEM; allowed are texts that begin with -----BEGIN CERTIFICATE-----")
	}
	return out, nil
}

// here tells whether a name is this host itself.
func here(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Judge says what is wrong with settings of mails, every field at once.
func (m Mail) Judge() error {
	var v faults
	switch {
	case m.Host == "" && m.On:
		v.add("host", "it is missing; name the mail server")
	case m.Host != "":
		if _, err := netip.ParseAddr(m.Host); err != nil {
			v.because("host", checkHost(m.Host))
		}
	}
	v.between("port", m.Port, 0, 65535)
	v.word("security", m.Security, rest.MailSecurities)
	if m.Security == rest.MailPlain {
		if m.Host != "" && !here(m.Host) {
			v.add("security", "none is for a mail server on this host alone (localhost, 127.0.0.1 or ::1); codes cross no network readable")
		}
	}
	if _, err := pool(m.CA); err != nil {
		v.because("ca", err)
	}
	v.word("auth", m.Auth, rest.MailAuths)
	v.line("username", m.Username, 256)
	v.secret("password", m.Password)
	if m.Username != "" && m.Password.Empty() {
		v.add("password", "it is missing; the user name needs one")
	}
	if m.From != "" || m.On {
		if _, err := ParseMail(m.From); err != nil {
			v.because("from", err)
		}
	}
	v.line("from_name", m.FromName, 64)
	if strings.ContainsAny(m.FromName, "\"<>@,;:\\") {
		v.add("from_name", "it holds a character that is not allowed; allowed are names without quotation marks, brackets and @")
	}
	if m.Hello != "" {
		v.because("hello", checkHost(m.Hello))
	}
	v.between("timeout", m.Timeout, 5, 120)
	v.between("code_minutes", m.CodeMinutes, 5, 10)
	return v.err()
}

// port is the one to use.
func (m Mail) port() int {
	switch {
	case m.Port != 0:
		return m.Port
	case m.Security == rest.MailTLS:
		return 465
	case m.Security == rest.MailPlain:
		return 25
	}
	return 587
}

// Judge says what is wrong with settings of text messages, every field at once.
func (m SMS) Judge() error {
	var v faults
	var address template
	if m.URL != "" || m.On {
		t, u, err := parseURL(m.URL, m.PlainHTTP)
		address = t
		if v.because("url", err); err == nil && !m.PlainHTTP && len(m.Networks) == 0 {
			if err := outward.Outside(outward.Host(u)); err != nil {
				v.add("url", "%s; list its network under networks if that is meant", err)
			}
		}
	}
	v.word("method", m.Method, rest.SMSMethods)
	if m.Method == "GET" && m.Form != NoBody {
		v.add("form", "GET has no body; allowed is none")
	}
	body, err := parseBody(m.Form, m.Body)
	v.because("body", err)
	if err == nil && m.On {
		for _, name := range []string{holdTo, holdText} {
			if !body.holds(name) && !address.holds(name) {
				v.add("body", "{%s} stands neither in the body nor in the address", name)
			}
		}
	}
	if len(m.Headers) > maxHeaders {
		v.add("headers", "%d are too many; allowed are %d", len(m.Headers), maxHeaders)
	}
	for _, h := range m.Headers {
		v.because("headers", Header(h).check())
	}
	v.line("username", m.Username, 256)
	if strings.Contains(m.Username, ":") {
		v.add("username", "it holds a colon, which HTTP Basic authentication can not carry")
	}
	v.secret("secret", m.Secret)
	if m.Username != "" && m.Secret.Empty() {
		v.add("secret", "it is missing; the user name needs one")
	}
	v.line("from", m.From, 64)
	if _, err := pool(m.CA); err != nil {
		v.because("ca", err)
	}
	if _, err := outward.Networks(m.Networks); err != nil {
		v.because("networks", err)
	}
	if m.Status != 0 {
		v.between("status", m.Status, 200, 299)
	}
	v.line("contains", m.Contains, 256)
	v.line("field", m.Field, 128)
	v.line("value", m.Value, 256)
	if m.Value != "" && m.Field == "" {
		v.add("field", "it is missing; the value is that of a field")
	}
	v.between("timeout", m.Timeout, 5, 60)
	v.between("code_minutes", m.CodeMinutes, 5, 10)
	v.between("per_minute", m.PerMinute, 1, 1000)
	v.between("per_day", m.PerDay, 1, 100_000)
	if len(m.Prefixes) > maxPrefixes {
		v.add("prefixes", "%d are too many; allowed are %d", len(m.Prefixes), maxPrefixes)
	}
	for _, p := range m.Prefixes {
		if digits, plus := strings.CutPrefix(p, "+"); !plus || digits == "" || len(digits) > 15 || strings.Trim(digits, "0123456789") != "" {
			v.add("prefixes", "%q is none; write + and digits, such as +49", p)
			break
		}
	}
	return v.err()
}
