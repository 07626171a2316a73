package post_test

import (
	"bufio"
	"io"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/post"
)

func bodyOf(t testing.TB, m *mail.Message) string {
	t.Helper()
	r := m.Body
	if strings.EqualFold(m.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
		r = quotedprintable.NewReader(r)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

var hello = post.Message{To: "anna@example.org", Subject: "Grüße", Text: "Your code is 12345678.\nÄ line.\n.a dot\n"}

func TestAMailGoesOut(t *testing.T) {
	for name, o := range map[string]relayOption{
		"with STARTTLS": {}, "with TLS from the first byte": {implicit: true}, "signed in with the best that is offered": {auth: true},
		"signed in over TLS from the first byte": {auth: true, implicit: true}, "signed in with LOGIN alone": {auth: true, mechs: []string{"LOGIN"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t, o)
			m := r.settings()
			if o.implicit {
				m.Security = rest.MailTLS
			}
			if out := post.SendMail(t.Context(), m, hello, time.Now()); out != (post.Outcome{}) {
				t.Fatal(out)
			}
			got := r.letters()
			if len(got) != 1 || got[0].from != "latchkey@example.org" || len(got[0].to) != 1 || got[0].to[0] != "anna@example.org" {
				t.Fatalf("%+v", got)
			}
			if o.auth && got[0].who != relayUser {
				t.Error("nobody had signed in")
			}
			msg, body := got[0].read(t)
			if body != hello.Text {
				t.Errorf("the text is %q", body)
			}
			for h, want := range map[string]string{"Auto-Submitted": "auto-generated", "To": "<anna@example.org>", "From": `"Latchkey" <latchkey@example.org>`} {
				if msg.Header.Get(h) != want {
					t.Errorf("%s: %q, want %q", h, msg.Header.Get(h), want)
				}
			}
			if id := msg.Header.Get("Message-ID"); !strings.HasSuffix(id, "@example.org>") {
				t.Errorf("Message-ID %s", id)
			}
			for _, bad := range []string{"go-mail", "User-Agent", "X-Mailer"} {
				if strings.Contains(got[0].raw, bad) {
					t.Errorf("the mail says %s", bad)
				}
			}
		})
	}
}

func TestAMailDoesNotGoOut(t *testing.T) {
	for name, c := range map[string]struct {
		o         relayOption
		change    func(m *post.Mail)
		refuse    error
		data      error
		reason    string
		permanent bool
	}{
		"where no STARTTLS is offered":             {o: relayOption{noTLS: true}, reason: post.ReasonTLS},
		"to a certificate that nobody vouches for": {change: func(m *post.Mail) { m.CA = "" }, reason: post.ReasonTLS},
		"to a certificate of another name":         {o: relayOption{otherName: true}, reason: post.ReasonTLS},
		"to a certificate that has expired":        {o: relayOption{expired: true}, reason: post.ReasonTLS},
		"over TLS to a door without":               {change: func(m *post.Mail) { m.Security = rest.MailTLS }, reason: post.ReasonTLS},
		"with a wrong password":                    {o: relayOption{auth: true}, change: func(m *post.Mail) { m.Password = secret.FromString("wrong wrong") }, reason: post.ReasonSignin},
		"with a password where none is asked for":  {change: func(m *post.Mail) { m.Username, m.Password = "x", secret.FromString("y") }, reason: post.ReasonSignin},
		"with a way to sign in that is not there":  {o: relayOption{auth: true}, change: func(m *post.Mail) { m.Auth = "scram-sha-256" }, reason: post.ReasonSignin},
		"to somebody who is not there":             {refuse: &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user anna@example.org here"}, reason: post.ReasonRefused, permanent: true},
		"to somebody who is greylisted":            {refuse: &smtp.SMTPError{Code: 451, Message: "come again"}, reason: post.ReasonDeferred},
		"when the text is refused":                 {data: &smtp.SMTPError{Code: 554, Message: "spam"}, reason: post.ReasonRefused, permanent: true},
		"when the disk is full there":              {data: &smtp.SMTPError{Code: 452, Message: "full"}, reason: post.ReasonDeferred},
		"when nobody listens":                      {change: func(m *post.Mail) { m.Port = 1 }, reason: post.ReasonUnreachable},
		"without TLS to another host":              {change: func(m *post.Mail) { m.Security, m.Host = rest.MailPlain, "mail.example.org" }, reason: post.ReasonSettings},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRelay(t, c.o)
			r.refuse = func(string) error { return c.refuse }
			r.data = func() error { return c.data }
			m := r.settings()
			if c.change != nil {
				c.change(&m)
			}
			out := post.SendMail(t.Context(), m, hello, time.Now())
			if out.Reason != c.reason || out.Permanent != c.permanent {
				t.Errorf("%+v, want %s", out, c.reason)
			}
			for _, bad := range []string{"anna@example.org", relayPassword, "wrong wrong", "12345678"} {
				if strings.Contains(out.Detail, bad) {
					t.Errorf("the reason says %q: %s", bad, out.Detail)
				}
			}
			if len(r.letters()) != 0 {
				t.Error("it went out")
			}
		})
	}
}

// TestAServerThatSaysNothing: one that is slow, or hangs up, costs the time-out and no
// more, at whichever step.
func TestAServerThatSaysNothing(t *testing.T) {
	for name, talk := range map[string]func(c net.Conn, r *bufio.Reader){
		"at all":       func(c net.Conn, _ *bufio.Reader) { time.Sleep(time.Minute) },
		"after EHLO":   func(c net.Conn, r *bufio.Reader) { _, _ = io.WriteString(c, "220 x\r\n"); time.Sleep(time.Minute) },
		"and hangs up": func(c net.Conn, _ *bufio.Reader) { _ = c.Close() },
		"that makes sense": func(c net.Conn, _ *bufio.Reader) {
			for range 100 {
				_, _ = io.WriteString(c, strings.Repeat("x", 4000)+"\r\n")
			}
			_ = c.Close()
		},
		"but drips": func(c net.Conn, _ *bufio.Reader) {
			for {
				if _, err := io.WriteString(c, "2"); err != nil {
					return
				}
				time.Sleep(200 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = l.Close() })
			closed := make(chan struct{})
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
					b := make([]byte, 4096)
					for {
						if _, err := c.Read(b); err != nil {
							close(closed)
							return
						}
					}
				}()
				talk(c, nil)
			}()
			m := post.NewMail()
			m.On, m.Host, m.Port, m.From, m.Timeout = true, "localhost", l.Addr().(*net.TCPAddr).Port, "latchkey@example.org", 1
			begun := time.Now()
			out := post.SendMail(t.Context(), m, hello, time.Now())
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("it took %s", took)
			}
			if out.Reason != post.ReasonUnreachable || out.Permanent {
				t.Errorf("%+v", out)
			}
			select {
			case <-closed:
			case <-time.After(5 * time.Second):
				t.Error("the connection was left open")
			}
		})
	}
}

// TestNobodyWritesHeaders: whatever stands in what is not ours, one mail with the headers
// that are ours goes to one person.
func TestNobodyWritesHeaders(t *testing.T) {
	r := newRelay(t, relayOption{})
	m := r.settings()
	for _, to := range []string{
		"anna@example.org\r\nBcc: eve@example.org", "anna@example.org,eve@example.org", "<anna@example.org>", "Anna <anna@example.org>", "anna@example.org>", "\"a b\"@example.org",
		"anna@example.org ORCPT=x", "anna@[127.0.0.1]", "anna@127.0.0.1", "@a:anna@example.org", "änna@example.org", "anna@exämple.org", "anna@example.org\x00", "a@b@c",
	} {
		out := post.SendMail(t.Context(), m, post.Message{To: to, Subject: "x", Text: "y"}, time.Now())
		if out.Reason == "" || !out.Permanent {
			t.Errorf("%q: %+v", to, out)
		}
	}
	if len(r.letters()) != 0 {
		t.Fatalf("%+v", r.letters())
	}
	out := post.SendMail(t.Context(), m, post.Message{To: "anna@example.org", Subject: "x\r\nBcc: eve@example.org\r\n\r\nhello", Text: "a\r\n.\r\nMAIL FROM:<eve@example.org>\r\n"}, time.Now())
	if out.Reason != "" {
		t.Fatal(out)
	}
	got := r.letters()
	if len(got) != 1 {
		t.Fatalf("%d mails", len(got))
	}
	msg, body := got[0].read(t)
	if msg.Header.Get("Bcc") != "" || len(got[0].to) != 1 || !strings.Contains(body, "MAIL FROM:<eve@example.org>") {
		t.Errorf("%+v", got[0])
	}
}
