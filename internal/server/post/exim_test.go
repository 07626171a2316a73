package post_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/post"
)

// exim is a mail server as organisations run it: Exim, which takes mails over STARTTLS from
// those who have signed in, for anna and for nobody else, into a maildir.
type exim struct {
	dir, ca string
	port    int
}

const eximConf = `
primary_hostname = localhost
spool_directory = DIR/spool
log_file_path = DIR/log/%slog
pid_file_path = DIR/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = PORT
tls_advertise_hosts = *
tls_certificate = DIR/cert.pem
tls_privatekey = DIR/key.pem
auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}
host_lookup =
rfc1413_hosts =
acl_smtp_rcpt = rcpt
deliver_drop_privilege = true
begin acl
rcpt:
  deny !authenticated = *
       message = sign in first
  deny !local_parts = anna
       message = no such user here
  accept
begin routers
local:
  driver = accept
  domains = example.org
  local_parts = anna
  transport = box
begin transports
box:
  driver = appendfile
  maildir_format
  directory = DIR/mail/$local_part_data
  create_directory
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{latchkey}}{eq{$auth3}{exim hush}}}}
  server_set_id = $auth2
`

func newExim(t *testing.T) *exim {
	t.Helper()
	const program = "/usr/sbin/exim4"
	if _, err := os.Stat(program); err != nil {
		t.Fatal("this test needs a real mail server (Debian package \"exim4-daemon-light\")")
	}
	dir, err := os.MkdirTemp("/tmp", "latchkey-exim-") // its account must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cert, ca := certificate(t, time.Now().Add(time.Hour), "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &exim{dir: dir, ca: ca, port: l.Addr().(*net.TCPAddr).Port}
	_ = l.Close()
	conf := strings.NewReplacer("DIR", dir, "PORT", strconv.Itoa(e.port)).Replace(eximConf)
	for name, content := range map[string][]byte{
		"conf": []byte(conf), "cert.pem": []byte(ca), "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"spool", "log", "mail"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		// Exim goes down to its own account.
		u, err := user.Lookup("Debian-exim")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		for _, name := range []string{"spool", "log", "mail"} {
			if err := os.Chown(filepath.Join(dir, name), uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out bytes.Buffer
	cmd := exec.Command(program, "-C", filepath.Join(dir, "conf"), "-bdf")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			for _, name := range []string{"mainlog", "paniclog", "rejectlog"} {
				b, _ := os.ReadFile(filepath.Join(dir, "log", name))
				t.Logf("%s: %s", name, b)
			}
			t.Logf("exim said: %s", out.String())
		}
	})
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", e.port))
		if err == nil {
			_ = c.Close()
			return e
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("Exim does not start: %v: %s", err, out.String())
		}
	}
}

// box waits for so many mails of anna.
func (e *exim) box(t *testing.T, n int) []letter {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		files, err := filepath.Glob(filepath.Join(e.dir, "mail", "anna", "new", "*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(files) >= n {
			var out []letter
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				out = append(out, letter{raw: string(b)})
			}
			return out
		}
		if time.Since(begun) > 20*time.Second {
			t.Fatalf("%d mails in the maildir, want %d", len(files), n)
		}
	}
}

// TestThroughARealMailServer: a code and a note through Exim over STARTTLS, a receiver
// whom it refuses, and a password that it does not know.
func TestThroughARealMailServer(t *testing.T) {
	e := newExim(t)
	o := open(t, fixed{start})
	m := post.NewMail()
	m.On, m.Host, m.Port, m.CA, m.From, m.Timeout = true, "localhost", e.port, e.ca, "latchkey@example.org", 10
	m.Username, m.Password = "latchkey", secret.FromString("exim hush")
	o.mail(m)
	o.address(o.user, rest.ChannelMail, "anna@example.org")
	if _, err := o.ask(rest.ChannelMail, "t", start); err != nil {
		t.Fatal(err)
	}
	if !o.step(rest.ChannelMail) {
		t.Fatal("nothing was sent")
	}
	if q := o.queue(rest.ChannelMail)[0]; q.State != "sent" {
		t.Fatalf("%+v", q)
	}
	msg, body := e.box(t, 1)[0].read(t)
	if !strings.Contains(msg.Header.Get("Received"), "esmtpsa") { // over TLS, signed in
		t.Errorf("it went %q", msg.Header.Get("Received"))
	}
	if v := o.answer(rest.ChannelMail, "t", codeIn(t, body), start); !v.OK() {
		t.Errorf("the code of the maildir: %+v", v)
	}
	o.note(event.Event{Type: event.PasswordChanged, UserID: o.user.ID})
	o.step(rest.ChannelMail)
	e.box(t, 2)

	ben := o.person("ben", "ben@example.org")
	o.note(event.Event{Type: event.PasswordChanged, UserID: ben.ID, Subject: "ben"})
	o.step(rest.ChannelMail)
	q := o.queue(rest.ChannelMail)
	if last := q[len(q)-1]; last.State != "failed" || last.Reason != post.ReasonRefused || !strings.Contains(last.Detail, "550") || strings.Contains(last.Detail, "ben@") {
		t.Errorf("%+v", last)
	}
	if got := o.events(event.PostRefused); len(got) != 1 || got[0].UserID != ben.ID {
		t.Errorf("%+v", got)
	}

	m.Password = secret.FromString("wrong")
	out := post.SendMail(t.Context(), m, hello, time.Now())
	if out.Reason != post.ReasonSignin || out.Permanent {
		t.Errorf("%+v", out)
	}
	m.CA = ""
	if out := post.SendMail(t.Context(), m, hello, time.Now()); out.Reason != post.ReasonTLS {
		t.Errorf("%+v", out)
	}
}
