package entry

import (
	"fmt"

	"latchkey/internal/fault"
	"latchkey/internal/server/session"
	"latchkey/internal/server/web/ui"
	"latchkey/internal/server/web/words"
)

// shownBy is whose certificate the browser shows; empty: none that could be used.
func shownBy(r *ui.Request) string {
	return r.Sessions.CertificateName(session.WithPeer(r.Context(), r.TLS))
}

func certificateText(name string) string {
	return fmt.Sprintf(words.CertSignInAs, name) + " " + words.CertSignInText
}

// byCertificate signs in with the client certificate of the connection (M4).
func byCertificate(r *ui.Request) error {
	p := signinPage{next: Next(r.Value("next"))}
	o, err := r.Sessions.OpenCertificate(session.WithPeer(r.Context(), r.TLS), session.Browser, r.Address(), r.UserAgent())
	if fault.Is(err, fault.Unauthorized) || fault.Is(err, fault.TooMany) {
		p.faults = ui.Faults(err)
		return p.show(r, fault.Of(err).Status())
	}
	if err != nil {
		return err
	}
	return arrived(r, o, p.next)
}
