//go:build e2e

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"latchkey/internal/rest"
)

// TestM4CertificatesOnARealMachine: a user signs in with a second factor, has a certificate made on the machine, and is
// let in with it; then the machine's own certificate is revoked while its agent is connected.
func TestM4CertificatesOnARealMachine(t *testing.T) {
	w := newWorldAlone(t, "")
	s := w.station("laptop", false)
	alice, bob := w.addUser("alice"), w.addUser("bob")
	install := func(p *person, options ...string) (string, error) {
		return s.here().TryAs(p.name, "", append([]string{"env", "HOME=/tmp/" + p.name, TestProgram(t, "latchkey"), "certificate", "install", "--no-browser", "--socket", Socket, "--output", "json"}, options...)...)
	}
	if out, err := install(alice); err == nil || !strings.Contains(out, "switched off") {
		t.Errorf("they are switched off: %v\n%s", err, out)
	}
	w.cli("certificate", "set", "--use", "portal")
	if out, err := install(alice); err == nil || !strings.Contains(out, "second factor") {
		t.Errorf("without a sign-in: %v\n%s", err, out)
	}
	s.enrol(alice)
	out, err := install(alice)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got struct{ File, Serial, User string }
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.User != "alice" {
		t.Fatalf("%v\n%s", err, out)
	}
	// Whoever has not signed in there gets none, and nobody gets another's.
	if out, err := install(bob); err == nil {
		t.Errorf("bob has not signed in:\n%s", out)
	}
	if mode := strings.TrimSpace(s.here().Run("stat", "-c", "%a %U", got.File)); mode != "600 alice" {
		t.Errorf("%s", mode)
	}
	w.srv.Write("/tmp/alice.pem", s.here().Read(got.File), 0o600)
	w.srv.In(t).Run("curl", "-sSk", "-o", "/tmp/ca.pem", "https://127.0.0.1:"+peoplePort+"/ca.pem")
	me := func() string {
		out, err := w.srv.In(t).Try("curl", "-sS", "--cacert", "/tmp/ca.pem", "--cert", "/tmp/alice.pem", "https://127.0.0.1:"+peoplePort+"/api/v1/me")
		if err != nil {
			t.Errorf("curl: %v\n%s", err, out)
		}
		return out
	}
	if out := me(); !strings.Contains(out, `"name":"alice"`) {
		t.Errorf("%s", out)
	}

	// The machine's own certificate: cut within a second, and told why.
	var page []rest.Certificate
	w.read(&page, "certificate", "list", "--machine", "laptop")
	if len(page) != 1 || page[0].State != rest.CertificateGood {
		t.Fatalf("%+v", page)
	}
	mark := w.mark()
	w.cli("certificate", "revoke", page[0].Serial, "--machine", "laptop", "--reason", "key-compromise")
	begun := time.Now()
	s.here().Until(5*time.Second, "the machine is cut off", func() bool {
		st, err := s.status()
		return err == nil && (st.Link != "up" || st.ServerSays != "")
	})
	t.Logf("the machine is cut off after %v at the latest", time.Since(begun))
	s.here().Until(10*time.Second, "the event", func() bool {
		for _, e := range w.since(mark, "--type", "machine.refused") {
			if e.Reason == "certificate-revoked" {
				return true
			}
		}
		return false
	})
	// Nobody signs in there any more, neither with the server nor as if it were away.
	if r := s.x(alice, s.full(alice)); r.Opened {
		t.Errorf("a machine whose certificate is revoked lets people in: %+v", r)
	}
	// It keeps what users have; a machine that is lost takes it along.
	if out := me(); !strings.Contains(out, `"name":"alice"`) {
		t.Errorf("%s", out)
	}
	w.cli("machine", "lost", "laptop")
	if out := me(); !strings.Contains(out, "can not be used") {
		t.Errorf("the certificate of a lost machine: %s", out)
	}
}
