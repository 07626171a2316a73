//go:build e2e

package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"latchkey/internal/text"
)

// message is what a mail server or a gateway has taken.
type message struct{ to, text string }

// letterbox is a mail server and a gateway for text messages on the server's machine, both of somebody else's making, and
// both with TLS alone.
type letterbox struct {
	t testing.TB
	w *world

	mu   sync.Mutex
	got  []message
	read int // of got, what the tests have looked at
}

const (
	mailPort    = "2525"
	gatewayPort = "2526"
)

// letterbox starts them, and has the server send by them.
func (w *world) letterbox() *letterbox {
	w.t.Helper()
	b := &letterbox{t: w.t, w: w}
	cert, ca := selfSigned(w.t)
	config := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	listen := func(port string) net.Listener {
		l, err := w.srv.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			w.t.Fatal(err)
		}
		return l
	}
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &posting{b: b, conn: c}, nil }))
	s.Domain, s.TLSConfig = "localhost", config
	s.ReadTimeout, s.WriteTimeout = 20*time.Second, 20*time.Second
	sms := &http.Server{Handler: b, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(listen(mailPort)) }()
	go func() { _ = sms.Serve(tls.NewListener(listen(gatewayPort), config)) }()
	w.t.Cleanup(func() { _ = s.Close(); _ = sms.Close() })

	file := filepath.Join(w.t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(ca), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.cli("mail", "set", "--host", "localhost", "--port", mailPort, "--ca-file", file, "--from", "latchkey@example.org", "--notices=false", "--on")
	w.cliInput("hush\n", "sms", "set", "--url", "https://localhost:"+gatewayPort+"/messages", "--username", "AC1", "--secret-stdin", "--ca-file", file,
		"--from", "Latchkey", "--network", "127.0.0.0/8", "--on")
	return b
}

// selfSigned makes a certificate for localhost, and the PEM to trust it by.
func selfSigned(t testing.TB) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "letterbox"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// posting is a visit of somebody who hands in mails.
type posting struct {
	b    *letterbox
	conn *smtp.Conn
	to   string
}

func (p *posting) Reset()        { p.to = "" }
func (p *posting) Logout() error { return nil }

func (p *posting) Mail(string, *smtp.MailOptions) error {
	if _, ok := p.conn.TLSConnectionState(); !ok {
		return &smtp.SMTPError{Code: 530, Message: "Must issue a STARTTLS command first"}
	}
	return nil
}

func (p *posting) Rcpt(to string, _ *smtp.RcptOptions) error { p.to = to; return nil }

func (p *posting) Data(r io.Reader) error {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	body := m.Body
	if strings.EqualFold(m.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		body = quotedprintable.NewReader(body)
	}
	b, err := io.ReadAll(body)
	if err == nil {
		p.b.put(message{p.to, string(b)})
	}
	return err
}

// ServeHTTP takes text messages, as gateways with forms do.
func (b *letterbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if user, secret, _ := r.BasicAuth(); user != "AC1" || secret != "hush" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	b.put(message{r.PostFormValue("To"), r.PostFormValue("Body")})
	w.WriteHeader(http.StatusCreated)
}

func (b *letterbox) put(m message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, m)
}

var sentCode = regexp.MustCompile(`\b\d{8}\b`)

// code waits for the next message, which must have gone to the address, and gives the code in it.
func (b *letterbox) code(to string) string {
	b.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		b.mu.Lock()
		if b.read < len(b.got) {
			m := b.got[b.read]
			b.read++
			b.mu.Unlock()
			all := sentCode.FindAllString(m.text, -1)
			if m.to != to || len(all) != 1 {
				b.t.Fatalf("to %s, with codes %v, want one to %s:\n%s", m.to, all, to, m.text)
			}
			return all[0]
		}
		b.mu.Unlock()
	}
	b.t.Fatalf("nothing was sent to %s: %s", to, b.w.cli("outbox", "list"))
	return ""
}

// unread is how many messages nobody has looked at.
func (b *letterbox) unread() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.got) - b.read
}

func (b *letterbox) In(w *world) *letterbox { b.t, b.w = w.t, w; return b }

// other is a code of the same form that is not this one.
func other(code string) string { return code[:7] + fmt.Sprint((code[7]-'0'+1)%10) }

// TestCodesByMessage: a code by mail, and one by text message, opens a real sshd where the policy names them: once, for the
// sign-in that asked for it, and only the newest of several; and it can be one of two factors (M6, S10, P1).
func TestCodesByMessage(t *testing.T) {
	w := newWorld(t, "")
	s := w.station("desk", false)
	w.set("window=0s", "online_factors=totp,mail,sms")
	s.m.SSHD()
	b := w.letterbox()
	const address, phone = "anna@example.org", "+491701234567"
	anna := w.addAccount("anna", "--mail", address)
	w.cli("factor", "add", "mail", "anna")
	ssh := func(s *station) *Terminal { return s.here().SSHTerminal("anna", markerCmd, once...) }
	forgive := func() { w.cli("user", "unlock", "anna") }

	t.Run("by mail", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		before := s.mark()
		mailed := func() string { return b.code(address) }
		r := s.here().SSH("anna", Say("assword: ", anna.pw, text.PromptPost, mailed), once...)
		opened(t, r, true)
		told(t, r, text.PostMailed("a…@example.org"))
		if e := s.last("signin.allowed", "anna", before); e.Factor != "mail" || e.Service != "sshd" || e.Link != "up" {
			t.Errorf("%+v", e)
		}
		if es := s.since(before, "--type", "factor.sent"); len(es) != 1 || es[0].Factor != "mail" || strings.Contains(string(es[0].Data), address) {
			t.Errorf("%s", short(es))
		}
	})
	t.Run("a wrong code, and then the right one", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		code := ""
		r := s.here().SSH("anna", Say("assword: ", anna.pw, text.PromptPost, func() string { code = b.code(address); return other(code) },
			text.PromptPost, func() string { return code }), once...)
		opened(t, r, true)
		shows(t, r, text.WrongCode, true)
		if n := b.unread(); n != 0 {
			t.Errorf("%d further codes were sent", n)
		}
	})
	t.Run("a code that was used, and one of another sign-in, open nothing", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		used := ""
		opened(t, s.here().SSH("anna", Say("assword: ", anna.pw, text.PromptPost, func() string { used = b.code(address); return used }), once...), true)
		before := s.mark()
		// The code of a sign-in that was left hanging is right, and not for this one.
		term := ssh(s)
		dialogue(t, term, "assword: ", anna.pw)
		hanging := b.code(address)
		r := s.here().SSH("anna", Say("assword: ", anna.pw, text.PromptPost, func() string { _ = b.code(address); return used },
			text.PromptPost, hanging, text.PromptPost, used), once...)
		opened(t, r, false)
		if es := s.since(before, "--type", "factor.rejected"); len(es) != 3 {
			t.Errorf("%s", short(es))
		}
		forgive()
		dialogue(t, term, text.PromptPost, hanging)
		ends(t, term, true)
	})
	w.cli("factor", "add", "sms", "anna", "--number", phone)
	const menu = "[1-2]: " // mail stands before text messages
	t.Run("by text message", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		before := s.mark()
		r := s.here().SSH("anna", Say("assword: ", anna.pw, menu, "2", text.PromptPost, func() string { return b.code(phone) }), once...)
		opened(t, r, true)
		if e := s.last("signin.allowed", "anna", before); e.Factor != "sms" || e.Service != "sshd" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("another way, and the first one again", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		term := ssh(s)
		dialogue(t, term, "assword: ", anna.pw, menu, "1")
		first := b.code(address)
		dialogue(t, term, text.PromptPost, "m", menu, "2")
		_ = b.code(phone)
		s.pass(25 * time.Second)
		dialogue(t, term, text.PromptPost, "m", menu, "1")
		second := b.code(address)
		// The newest counts, and the one before does not.
		dialogue(t, term, text.PromptPost, first, text.PromptPost, second)
		ends(t, term, true)
	})
	t.Run("again at once: nothing is sent, and the last code is good", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		term := ssh(s)
		dialogue(t, term, "assword: ", anna.pw, menu, "1")
		first := b.code(address)
		dialogue(t, term, text.PromptPost, "m", menu, "1", text.PromptPost, first)
		ends(t, term, true)
		if n := b.unread(); n != 0 {
			t.Errorf("%d further codes were sent", n)
		}
	})
	w.cli("factor", "remove", "anna", "sms")
	w.addTOTP(anna)
	t.Run("in a chain with the app", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		s.pass(61 * time.Minute) // ten were sent, which is enough for an hour
		s.set("factors_online=2")
		defer s.set("factors_online=1")
		before := s.mark()
		opened(t, s.here().SSH("anna", Say("assword: ", anna.pw, "Step 1 of 2. One-time code: ", s.code(anna), "Step 2 of 2. "+text.PromptPost, func() string { return b.code(address) }), once...), true)
		if e := s.last("signin.allowed", "anna", before); e.Factor != "totp+mail" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("where the policy does not name it, nothing is sent", func(t *testing.T) {
		s := s.In(t)
		b := b.In(s.world)
		s.set("online_factors=totp")
		opened(t, s.here().SSH("anna", Say("assword: ", anna.pw, "One-time code: ", s.code(anna)), once...), true)
		if n := b.unread(); n != 0 {
			t.Errorf("%d codes were sent", n)
		}
	})
	t.Run("no code stands in an event or in the outbox", func(t *testing.T) {
		w, b := w.In(t), b.In(w.In(t))
		all := w.cli("events", "--limit", "0", "--output", "json") + w.cli("outbox", "list", "--output", "json")
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.got) < 10 {
			t.Errorf("%d messages", len(b.got))
		}
		for _, m := range b.got {
			if c := sentCode.FindString(m.text); strings.Contains(all, c) {
				t.Errorf("the code %s", c)
			}
		}
	})
}
