package entry_test

import (
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/session"
)

// TestACertificateAndAClockThatIsPutBack: it opens nothing until the clock is right, with an
// event that says why, and the session that it has opened stands no longer either.
func TestACertificateAndAClockThatIsPutBack(t *testing.T) {
	onBoth(t, func(r *rig) {
		r.certificates(ca.Console)
		p := r.person("olga", rest.RoleAuditor)
		shown := p.shows()
		o, err := r.sessions.OpenCertificate(shown, session.Browser, "192.0.2.1", "test")
		r.must(err)
		r.must(r.sessions.Still(r.Context(), o.Session.Actor("")))
		r.clock.Advance(-3 * time.Hour)
		if _, err := r.sessions.OpenCertificate(shown, session.Browser, "192.0.2.1", "test"); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("a session of a certificate of later: %v", err)
		}
		if e := r.last(event.SessionDenied); e.Reason != "certificate-not-yet" {
			t.Errorf("the event is %+v", e)
		}
		if _, err := r.sessions.OfCertificate(shown, "192.0.2.1", "test"); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("a request with it: %v", err)
		}
		if err := r.sessions.Still(r.Context(), o.Session.Actor("")); !fault.Is(err, fault.Unauthorized) {
			t.Errorf("a session of later stands: %v", err)
		}
		r.clock.Advance(3 * time.Hour)
		_, err = r.sessions.OpenCertificate(shown, session.Browser, "192.0.2.1", "test")
		r.must(err)
	})
}
