package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// A certificate of the user's own signs in without a password (M4): at the portal, and
// at the console where the settings say so. Its session lives on connections that show
// the same certificate alone, so that the cookie is worth nothing elsewhere; it is never
// fresh by itself: what is dangerous asks for a second factor first.

// The factors of sessions that a certificate has opened. What it opens stands in the
// row: when the settings change, such sessions end.
const (
	Certificate        = "certificate"
	CertificateConsole = "certificate-console"
)

// Certificates tells whose a client's certificate is: see ca.Authority.
type Certificates interface {
	RecogniseUser(c *x509.Certificate) (ca.User, error)
}

type peerKey struct{}

// WithPeer notes which certificate the other end of a connection has shown; cs may be
// nil. TLS has proven that it has the key.
func WithPeer(ctx context.Context, cs *tls.ConnectionState) context.Context {
	if cs == nil || !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, cs.PeerCertificates[0])
}

// Peer is that certificate; nil if there is none.
func Peer(ctx context.Context) *x509.Certificate {
	c, _ := ctx.Value(peerKey{}).(*x509.Certificate)
	return c
}

func byCertificate(kind string) bool { return kind == Certificate || kind == CertificateConsole }

// shown is a certificate that is good now, with whose it is.
type shown struct {
	row    db.UserCertificate
	user   db.User
	factor string // Certificate or CertificateConsole
}

// denial says why a certificate is none; the person is not told.
type denial struct {
	reason string
	user   db.User // zero: nobody's
	serial string
}

func (d *denial) Error() string { return "certificate: " + d.reason }

// The reasons of session.denied.
const (
	reasonOff         = "certificates-off"
	reasonNotOurs     = "certificate-not-ours"
	reasonNotKnown    = "certificate-unknown"
	reasonCertRevoked = "certificate-revoked"
	reasonCertExpired = "certificate-expired"
	reasonCertEarly   = "certificate-not-yet"
)

// judgeCertificate finds out whose certificate it is, and whether it may be used as
// things are now. The error is a *denial, or the database's.
func (m *Sessions) judgeCertificate(ctx context.Context, q *db.Queries, c *x509.Certificate, now time.Time) (shown, error) {
	if m.Certificates == nil {
		return shown{}, &denial{reason: reasonOff}
	}
	set, err := ca.ReadUserSettings(ctx, q)
	switch {
	case err != nil:
		return shown{}, err
	case !set.On():
		return shown{}, &denial{reason: reasonOff}
	}
	who, err := m.Certificates.RecogniseUser(c)
	if err != nil {
		reason := reasonNotOurs
		switch {
		case now.After(c.NotAfter):
			reason = reasonCertExpired
		case errors.Is(err, ca.ErrNotYet):
			reason = reasonCertEarly
		}
		return shown{}, &denial{reason: reason}
	}
	row, err := q.GetUserCertificate(ctx, ca.Serial(c))
	switch {
	case store.IsNotFound(err):
		return shown{}, &denial{reason: reasonNotKnown, serial: ca.Serial(c)}
	case err != nil:
		return shown{}, err
	}
	if out := row.UserCertificate; out.UserID != who.ID || out.MachineID != who.MachineID || out.Fingerprint != ca.Fingerprint(c) {
		return shown{}, &denial{reason: reasonNotKnown, user: row.User, serial: out.Serial}
	}
	return judgeKept(ctx, q, row, set, now)
}

// judgeKept is judgeCertificate for a certificate as it lies in the table.
func judgeKept(ctx context.Context, q *db.Queries, row db.GetUserCertificateRow, set ca.UserSettings, now time.Time) (shown, error) {
	out := shown{row: row.UserCertificate, user: row.User, factor: Certificate}
	if set.Use == ca.Console {
		out.factor = CertificateConsole
	}
	no := func(reason string) (shown, error) {
		return shown{}, &denial{reason: reason, user: row.User, serial: row.UserCertificate.Serial}
	}
	switch {
	case out.row.RevokedAt != 0:
		return no(reasonCertRevoked)
	case clock.Micros(now) >= out.row.NotAfter:
		return no(reasonCertExpired)
	case out.user.Disabled:
		return no(string(policy.ReasonDisabled))
	case facts.NotYet(out.user, now):
		return no(string(policy.ReasonNotYet))
	}
	if out.row.MachineID != "" {
		machine, err := q.GetMachine(ctx, out.row.MachineID)
		switch {
		case store.IsNotFound(err) || err == nil && machine.Status != enroll.Active:
			return no(string(fault.MachineRefused))
		case err != nil:
			return shown{}, err
		}
	}
	return out, nil
}

// refusedCertificate is the one answer to every certificate that is none.
func refusedCertificate() error {
	return fault.Newf(fault.Unauthorized, "This certificate can not be used to sign in. Sign in another way, or ask the help desk.")
}

// deniedCertificate writes the refusal down: at most one a minute of one network and
// reason.
func (m *Sessions) deniedCertificate(ctx context.Context, c *x509.Certificate, d *denial, kind, address, agent string) error {
	if !m.denials.Take(d.reason + " " + network(address)) {
		return nil
	}
	name := d.user.Name
	if name == "" {
		name = text.CleanN(c.Subject.CommonName, 64)
	}
	return m.update(ctx, func(_ context.Context, tx *store.Tx) error {
		return m.note(tx, event.Event{
			Type: event.SessionDenied, Actor: name, Subject: name, UserID: d.user.ID, Address: address, Service: service, Outcome: denyOutcome, Reason: d.reason, Factor: Certificate,
		}, map[string]any{"kind": kind, "agent": text.CleanN(agent, 256), "certificate": ca.Fingerprint(c), "serial": d.serial, "issuer": text.CleanN(c.Issuer.String(), 128)})
	})
}

// OpenCertificate opens a session with the client certificate of the connection (Peer).
// Every refusal is the same fault, Unauthorized, after the same time.
func (m *Sessions) OpenCertificate(ctx context.Context, kind, address, agent string) (Opened, error) {
	begun := clock.Real.Now()
	o, err := m.openCertificate(ctx, kind, address, agent)
	if fault.Is(err, fault.Unauthorized) && m.Grain > 0 {
		past := max(0, clock.Real.Now().Sub(begun))
		_ = clock.Real.Sleep(ctx, m.Grain-past%m.Grain)
	}
	return o, err
}

func (m *Sessions) openCertificate(ctx context.Context, kind, address, agent string) (Opened, error) {
	if err := m.limits.take(address); err != nil {
		return Opened{}, err
	}
	c := Peer(ctx)
	if c == nil {
		return Opened{}, refusedCertificate()
	}
	var out Opened
	var denied *denial
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out, denied = Opened{}, nil
		now := m.Clock.Now()
		x, err := m.judgeCertificate(ctx, tx.Queries, c, now)
		if errors.As(err, &denied) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.due(x.user) {
			denied = &denial{reason: reasonDue, user: x.user, serial: x.row.Serial}
			return nil
		}
		if err := m.activate(ctx, tx, &x.user, address, now); err != nil {
			return err
		}
		s, hash, err := newSecret(m.Random, sessionPrefix)
		if err != nil {
			return err
		}
		ends := min(clock.Micros(now.Add(Absolute)), x.row.NotAfter)
		out.Session, err = m.open(ctx, tx, x.user, db.InsertSessionParams{Kind: kind, Factor: x.factor, EndsAt: ends, Address: address, Agent: agent}, hash, x.row.LastUsedAt == 0, now)
		if err != nil {
			return err
		}
		out.Secret = s
		if err := tx.InsertCertificateSession(ctx, db.InsertCertificateSessionParams{SessionID: out.Session.ID, Serial: x.row.Serial}); err != nil {
			return err
		}
		_, err = tx.SeeUserCertificate(ctx, db.SeeUserCertificateParams{Serial: x.row.Serial, At: clock.Micros(now), Address: text.CleanN(address, 64)})
		return err
	})
	if err == nil && denied != nil {
		if err = m.deniedCertificate(context.WithoutCancel(ctx), c, denied, kind, address, agent); err == nil {
			err = refusedCertificate()
		}
	}
	if err != nil {
		return Opened{}, err
	}
	return out, nil
}

// CertificateName is whose certificate the connection shows, for a button on the page of
// the sign-in; empty: none that could be used. It opens nothing.
func (m *Sessions) CertificateName(ctx context.Context) string {
	c := Peer(ctx)
	if c == nil || m.Certificates == nil {
		return ""
	}
	if _, err := m.Certificates.RecogniseUser(c); err != nil {
		return ""
	}
	// As it stands in the certificate: whoever shows it knows that. Whether it is good is
	// told behind the button, the same for all.
	return text.CleanN(c.Subject.CommonName, 64)
}

// bound tells whether a session that a certificate has opened still stands: the
// connection shows this certificate, it is good, and the settings let it open what the
// session opens.
func (m *Sessions) bound(ctx context.Context, q *db.Queries, s *Session, now time.Time) (bool, error) {
	c := Peer(ctx)
	if c == nil {
		return false, nil
	}
	row, err := q.GetCertificateSession(ctx, s.ID)
	switch {
	case store.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case row.UserCertificate.Serial != ca.Serial(c):
		return false, nil
	}
	x, err := m.judgeCertificate(ctx, q, c, now)
	var d *denial
	switch {
	case errors.As(err, &d):
		return false, nil
	case err != nil:
		return false, err
	}
	return x.user.ID == s.UserID && x.factor == s.Factor, nil
}

// stands tells whether the certificate that has opened the session lets it open still what
// it opens, for an answer that lasts: its connection has shown the certificate when it
// began.
func (m *Sessions) stands(ctx context.Context, q *db.Queries, s *Session, now time.Time) (bool, error) {
	set, err := ca.ReadUserSettings(ctx, q)
	if err != nil || !set.On() {
		return false, err
	}
	kept, err := q.GetCertificateSession(ctx, s.ID)
	if err == nil {
		var row db.GetUserCertificateRow
		if row, err = q.GetUserCertificate(ctx, kept.UserCertificate.Serial); err == nil {
			x, err := judgeKept(ctx, q, row, set, now)
			if d := (*denial)(nil); errors.As(err, &d) {
				return false, nil
			}
			return x.user.ID == s.UserID && x.factor == s.Factor, err
		}
	}
	if store.IsNotFound(err) {
		return false, nil
	}
	return false, err
}

// stillShown is Still for who has shown a certificate and nothing else (OfCertificate).
func (m *Sessions) stillShown(ctx context.Context, q *db.Queries, a desk.Actor, now time.Time) (bool, error) {
	c := Peer(ctx)
	if c == nil || a.UserID == "" {
		return false, nil
	}
	x, err := m.judgeCertificate(ctx, q, c, now)
	if d := (*denial)(nil); errors.As(err, &d) {
		return false, nil
	}
	if err != nil || x.user.ID != a.UserID || m.due(x.user) {
		return false, err
	}
	return sessionFor(x, now, "", "").Actor("").Role == a.Role, nil
}

// OfCertificate is a session for this one request of a program that shows a certificate
// and nothing else. It has no id, is never fresh, and so does nothing that takes a
// session or a second factor. Nil without an error: no certificate was shown.
func (m *Sessions) OfCertificate(ctx context.Context, address, agent string) (*Session, error) {
	c := Peer(ctx)
	if c == nil {
		return nil, nil
	}
	now := m.Clock.Now()
	var x shown
	err := m.Store.Read(ctx, func(q *store.Queries) (err error) {
		x, err = m.judgeCertificate(ctx, q, c, now)
		if err == nil && m.due(x.user) {
			err = &denial{reason: reasonDue, user: x.user, serial: x.row.Serial}
		}
		return err
	})
	var d *denial
	switch {
	case errors.As(err, &d):
		if err := m.deniedCertificate(context.WithoutCancel(ctx), c, d, CLI, address, agent); err != nil {
			return nil, err
		}
		return nil, refusedCertificate()
	case err != nil:
		return nil, fault.New(fault.Unavailable, err)
	}
	if clock.Micros(now)-x.row.LastUsedAt >= seeEvery.Microseconds() {
		err := m.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.SeeUserCertificate(ctx, db.SeeUserCertificateParams{Serial: x.row.Serial, At: clock.Micros(now), Address: text.CleanN(address, 64)})
			return err
		})
		if err != nil {
			m.Logger.WarnContext(ctx, "the use of a certificate was not written down", "error", err)
		}
	}
	return sessionFor(x, now, address, agent), nil
}

func sessionFor(x shown, now time.Time, address, agent string) *Session {
	return &Session{
		UserID: x.user.ID, Name: x.user.Name, Display: x.user.DisplayName, Role: x.user.Role, Kind: CLI, Factor: x.factor, Began: now, Seen: now, Ends: rest.Time(x.row.NotAfter),
		Address: address, Agent: agent, Portal: true, Console: x.factor == CertificateConsole && x.user.Role != rest.RoleNone && knownRole(x.user.Role),
	}
}
