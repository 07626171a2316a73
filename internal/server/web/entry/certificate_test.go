package entry_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/session"
	"latchkey/internal/server/store"
	"latchkey/internal/text"
)

// shows gives the person a certificate, and is a connection that shows it.
func (p person) shows() context.Context {
	r := p.r
	r.Helper()
	r.sessions.Certificates = r.CA
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.must(err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	r.must(err)
	who := ca.User{ID: p.id, Name: p.name}
	c, err := r.CA.SignUser(csr, who, time.Hour*24)
	r.must(err)
	r.update(func(ctx context.Context, tx *store.Tx) error {
		return ca.KeepUser(ctx, tx, c, who, "laptop", ca.KeyFile, clock.Micros(r.clock.Now()))
	})
	return session.WithPeer(r.Context(), &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{c}})
}

func (r *rig) certificates(use string) {
	r.Helper()
	r.update(func(ctx context.Context, tx *store.Tx) error {
		return ca.WriteUserSettings(ctx, tx, ca.UserSettings{Use: use, Life: ca.UserLife}, clock.Micros(r.clock.Now()))
	})
}

// TestALongAnswerEndsWithWhatTheCertificateOpens: also where no session stands behind it.
func TestALongAnswerEndsWithWhatTheCertificateOpens(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.certificates(ca.Console)
		p := r.person("olga", rest.RoleAuditor)
		shown := p.shows()
		o, err := r.sessions.OpenCertificate(shown, session.Browser, "192.0.2.1", "test")
		r.must(err)
		one, err := r.sessions.OfCertificate(shown, "192.0.2.1", "test")
		r.must(err)
		// The session first: switched off, the certificates take their sessions along.
		for _, x := range []struct {
			name string
			ctx  context.Context
			a    desk.Actor
		}{{"a session", r.Context(), o.Session.Actor("")}, {"one request", shown, one.Actor("")}} {
			name := x.name
			if x.a.Role != rest.RoleAuditor {
				t.Fatalf("%s has the role %q", name, x.a.Role)
			}
			r.certificates(ca.Console)
			if err := r.sessions.Still(x.ctx, x.a); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			r.certificates(ca.Portal)
			if err := r.sessions.Still(x.ctx, x.a); !fault.Is(err, fault.Unauthorized) {
				t.Errorf("%s still stands where certificates open no console: %v", name, err)
			}
			r.certificates(ca.Off)
			if err := r.sessions.Still(x.ctx, x.a); !fault.Is(err, fault.Unauthorized) {
				t.Errorf("%s still stands where there are no certificates: %v", name, err)
			}
		}
		r.certificates(ca.Console)
		if err := r.sessions.Still(r.Context(), one.Actor("")); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("nobody shows it: %v", err)
		}
	})
}

// TestS9NoWayRoundADuePassword: a passkey or a certificate alone opens nothing while the
// password is to be changed, and says what to do.
func TestS9NoWayRoundADuePassword(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.certificates(ca.Console)
		p := r.person("olga", rest.RoleAuditor)
		k, shown := p.passkey(), p.shows()
		due := func(yes bool) {
			t.Helper()
			_, err := r.ChangeUser(r.Context(), desk.Root(), "olga", 0, rest.UserChange{MustChange: &yes})
			r.must(err)
		}
		due(true)
		r.browser().alone(k).is(http.StatusUnauthorized).has(text.PasskeyPasswordDue)
		if e := r.last(event.SessionDenied); e.UserID != p.id || e.Reason != "password-due" {
			t.Errorf("the event is %+v", e)
		}
		if _, err := r.sessions.OpenCertificate(shown, session.Browser, "192.0.2.1", "test"); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("a session of a certificate: %v", err)
		}
		if e := r.last(event.SessionDenied); e.Factor != session.Certificate || e.Reason != "password-due" {
			t.Errorf("the event is %+v", e)
		}
		if _, err := r.sessions.OfCertificate(shown, "192.0.2.1", "test"); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("a request with a certificate: %v", err)
		}
		due(false)
		r.browser().alone(k).goes("/console")
		_, err := r.sessions.OpenCertificate(shown, session.Browser, "192.0.2.1", "test")
		r.must(err)
	})
}
