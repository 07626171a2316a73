package desk

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Issuer is what the desk needs of the CA: see ca.Authority.
type Issuer interface {
	SignUser(csr []byte, u ca.User, life time.Duration) (*x509.Certificate, error)
}

func (d *Desk) stateOf(notAfter, revokedAt int64) string {
	switch {
	case revokedAt != 0:
		return rest.CertificateRevoked
	case d.now() >= notAfter:
		return rest.CertificateExpired
	}
	return rest.CertificateGood
}

func (d *Desk) userCertificate(c db.UserCertificate, userName, machineName string) rest.Certificate {
	out := rest.Certificate{
		Serial: c.Serial, Kind: "user", State: d.stateOf(c.NotAfter, c.RevokedAt), Name: c.Name, User: userName, UserID: rest.UserPrefix + c.UserID,
		Machine: machineName, Key: c.KeyClass, NotBefore: rest.Time(c.NotBefore), NotAfter: rest.Time(c.NotAfter), RevokedAt: rest.Time(c.RevokedAt),
		Reason: c.Reason, Print: c.Fingerprint, LastUsedAt: rest.Time(c.LastUsedAt), LastAddress: c.LastAddress,
	}
	if c.MachineID != "" {
		out.MachineID = rest.MachinePrefix + c.MachineID
	}
	return out
}

func (d *Desk) machineCertificate(c db.MachineCertificate, m db.Machine) rest.Certificate {
	key := "file"
	if m.KeyInTPM {
		key = "tpm"
	}
	return rest.Certificate{
		Serial: c.Serial, Kind: "machine", State: d.stateOf(c.NotAfter, c.RevokedAt), Machine: m.Name, MachineID: rest.MachinePrefix + m.ID, Key: key,
		NotBefore: rest.Time(c.NotBefore), NotAfter: rest.Time(c.NotAfter), RevokedAt: rest.Time(c.RevokedAt), Reason: c.Reason, Print: c.Fingerprint,
	}
}

// MachineCertificates gives a machine's certificates, the one that lasts longest first.
func (d *Desk) MachineCertificates(ctx context.Context, a Actor, ref string) (rest.Page[rest.Certificate], error) {
	out := rest.Page[rest.Certificate]{Items: []rest.Certificate{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		m, err := machine(ctx, q, ref)
		if err != nil {
			return err
		}
		rows, err := q.ListMachineCertificates(ctx, m.ID)
		for i, c := range rows {
			if i == rest.MaxPage {
				break
			}
			out.Items = append(out.Items, d.machineCertificate(c, m))
		}
		return err
	})
	return out, err
}

func (d *Desk) certificatesOf(ctx context.Context, q *db.Queries, u db.User) ([]rest.Certificate, error) {
	out := []rest.Certificate{}
	rows, err := q.ListUserCertificates(ctx, db.ListUserCertificatesParams{UserID: u.ID, N: rest.MaxPage})
	for _, r := range rows {
		out = append(out, d.userCertificate(r.UserCertificate, u.Name, r.MachineName))
	}
	return out, err
}

// UserCertificates gives a user's certificates, the youngest first.
func (d *Desk) UserCertificates(ctx context.Context, a Actor, ref string) (rest.Page[rest.Certificate], error) {
	out := rest.Page[rest.Certificate]{Items: []rest.Certificate{}}
	if err := a.may(read); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := user(ctx, q, ref)
		if err != nil {
			return err
		}
		out.Items, err = d.certificatesOf(ctx, q, u)
		return err
	})
	return out, err
}

// ListOwnCertificates gives the actor's certificates, the youngest first.
func (d *Desk) ListOwnCertificates(ctx context.Context, a Actor) (rest.Page[rest.Certificate], error) {
	out := rest.Page[rest.Certificate]{Items: []rest.Certificate{}}
	if err := a.look(); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		out.Items, err = d.certificatesOf(ctx, q, u)
		return err
	})
	return out, err
}

// requestIn takes the one PKCS#10 request out of PEM.
func requestIn(s string) ([]byte, error) {
	const want = "allowed is one PEM block -----BEGIN CERTIFICATE REQUEST-----, as openssl req -new writes it"
	b, rest := pem.Decode([]byte(strings.TrimSpace(s)))
	switch {
	case b == nil:
		return nil, errors.New("it is no PEM; " + want)
	case b.Type != "CERTIFICATE REQUEST" && b.Type != "NEW CERTIFICATE REQUEST":
		return nil, errors.New("it is of another type; " + want)
	case len(strings.TrimSpace(string(rest))) > 0:
		return nil, errors.New("more follows behind it; " + want)
	}
	return b.Bytes, nil
}

// errOff says that there are no users' certificates.
func errOff() error {
	return fault.Newf(fault.Conflict, "Certificates of users are switched off. An owner switches them on (latchkey certificate set --use portal).")
}

// RequestOwnCertificate issues a certificate for a key of the actor's own (M4). It takes
// a second factor that was given a moment ago: the certificate opens the portal without
// one.
func (d *Desk) RequestOwnCertificate(ctx context.Context, a Actor, in rest.NewCertificate) (rest.Certificate, error) {
	var out rest.Certificate
	if err := a.fresh(); err != nil {
		return out, err
	}
	var v faults
	v.line("name", in.Name, maxLine)
	csr, err := requestIn(in.Request)
	if err != nil {
		v.add("request", "%s", err)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	if d.Issuer == nil {
		return out, fault.New(fault.Unavailable, nil)
	}
	var u db.User
	var set ca.UserSettings
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		if u, err = a.me(ctx, q); err != nil {
			return err
		}
		set, err = ca.ReadUserSettings(ctx, q)
		return err
	})
	switch {
	case err != nil:
		return out, err
	case !set.On():
		return out, errOff()
	}
	if err := a.reach(u); err != nil {
		return out, err
	}
	who := ca.User{ID: u.ID, Name: u.Name}
	cert, err := d.Issuer.SignUser(csr, who, set.Life)
	if errors.Is(err, ca.ErrRequest) {
		return out, fault.New(fault.Invalid, err).With("request", "%s", strings.TrimPrefix(err.Error(), ca.ErrRequest.Error()+": "))
	}
	if err != nil {
		return out, err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		if err := ca.KeepUser(ctx, tx, cert, who, in.Name, ca.KeyRequest, d.now()); err != nil {
			return err
		}
		if err := note(tx, a, event.Event{Type: event.CertificateIssued, Subject: u.Name, UserID: u.ID, Outcome: "allow"}, CertificateData(cert, ca.KeyRequest, in.Name)); err != nil {
			return err
		}
		row, err := tx.GetUserCertificate(ctx, ca.Serial(cert))
		out = d.userCertificate(row.UserCertificate, u.Name, "")
		return err
	})
	if err != nil {
		return rest.Certificate{}, err
	}
	out.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	if d.CACert != nil {
		out.CA = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.CACert()}))
	}
	return out, nil
}

// CertificateData is what the events about a certificate tell of it.
func CertificateData(c *x509.Certificate, class, name string) map[string]any {
	return map[string]any{"serial": ca.Serial(c), "certificate": ca.Fingerprint(c), "not_after": c.NotAfter.UTC().Format(time.RFC3339), "key": class, "name": name}
}

// serialIn reads a serial number as people copy it: in either case, with colons.
func serialIn(ref string) (string, bool) {
	s := strings.ToLower(strings.ReplaceAll(ref, ":", ""))
	return s, len(s) >= 2 && len(s) <= 40 && strings.Trim(s, "0123456789abcdef") == ""
}

func (v *faults) reason(value string) string {
	if value == "" {
		return ca.Unspecified
	}
	v.word("reason", value, ca.Reasons)
	return value
}

// noCertificate is the fault for one that is not there, or somebody else's.
func noCertificate(ref string) error {
	return fault.Newf(fault.NotFound, "There is no certificate with the serial number %q here.", text.CleanN(ref, 64))
}

// certificateOf finds a certificate of the user.
func certificateOf(ctx context.Context, q *db.Queries, u db.User, ref string) (db.UserCertificate, error) {
	serial, ok := serialIn(ref)
	if !ok {
		return db.UserCertificate{}, noCertificate(ref)
	}
	row, err := q.GetUserCertificate(ctx, serial)
	if store.IsNotFound(err) || err == nil && row.User.ID != u.ID {
		return db.UserCertificate{}, noCertificate(ref)
	}
	return row.UserCertificate, err
}

// revokeOf revokes a certificate of the user and shows it.
func (d *Desk) revokeOf(ctx context.Context, tx *store.Tx, a Actor, u db.User, ref, reason string) (rest.Certificate, error) {
	c, err := certificateOf(ctx, tx.Queries, u, ref)
	if err != nil {
		return rest.Certificate{}, err
	}
	if err := ca.RevokeUserCertificate(ctx, tx, c, reason, d.now()); err != nil {
		return rest.Certificate{}, err
	}
	err = note(tx, a, event.Event{Type: event.CertificateRevoked, Subject: u.Name, UserID: u.ID, Reason: reason, MachineID: c.MachineID},
		map[string]any{"serial": c.Serial, "certificate": c.Fingerprint, "name": c.Name, "key": c.KeyClass, "approver": a.approver()})
	if err != nil {
		return rest.Certificate{}, err
	}
	row, err := tx.GetUserCertificate(ctx, c.Serial)
	return d.userCertificate(row.UserCertificate, u.Name, ""), err
}

// RevokeOwnCertificate revokes a certificate of the actor's own. It takes no fresh
// factor: whoever has lost a key must not be held up, and nobody is let in by it.
func (d *Desk) RevokeOwnCertificate(ctx context.Context, a Actor, ref string, in rest.RevokeCertificate) (out rest.Certificate, err error) {
	if err := a.act(); err != nil {
		return out, err
	}
	var v faults
	reason := v.reason(in.Reason)
	if err := v.err(); err != nil {
		return out, err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		out, err = d.revokeOf(ctx, tx, a, u, ref, reason)
		return err
	})
	return out, err
}

// RevokeUserCertificate revokes one certificate of a user: the sessions that it has
// opened end, and its connections within a second.
func (d *Desk) RevokeUserCertificate(ctx context.Context, a Actor, userRef, ref string, in rest.RevokeCertificate) (out rest.Certificate, err error) {
	if err := a.may(helpDesk); err != nil {
		return out, err
	}
	var v faults
	reason := v.reason(in.Reason)
	if err := v.err(); err != nil {
		return out, err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.subject(ctx, tx.Queries, userRef)
		if err != nil {
			return err
		}
		out, err = d.revokeOf(ctx, tx, a, u, ref, reason)
		return err
	})
	return out, err
}

// RevokeMachineCertificate revokes one certificate of a machine, and not the machine: it
// is cut off within a second, keeps its place and its data, and joins again with a new
// token, as another machine. To end the machine itself there is RevokeMachine.
func (d *Desk) RevokeMachineCertificate(ctx context.Context, a Actor, machineRef, ref string, in rest.RevokeCertificate) (out rest.Certificate, err error) {
	if err := a.may(change); err != nil {
		return out, err
	}
	var v faults
	reason := v.reason(in.Reason)
	if err := v.err(); err != nil {
		return out, err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		m, err := machine(ctx, tx.Queries, machineRef)
		if err != nil {
			return err
		}
		serial, ok := serialIn(ref)
		if !ok {
			return noCertificate(ref)
		}
		c, err := tx.GetMachineCertificate(ctx, serial)
		if store.IsNotFound(err) || err == nil && c.MachineID != m.ID {
			return noCertificate(ref)
		} else if err != nil {
			return err
		}
		if err := ca.RevokeMachineCertificate(ctx, tx, c, reason, d.now()); err != nil {
			return err
		}
		err = note(tx, a, event.Event{Type: event.CertificateRevoked, Subject: m.Name, MachineID: m.ID, Machine: m.Name, Reason: reason},
			map[string]any{"serial": c.Serial, "certificate": c.Fingerprint})
		if err != nil {
			return err
		}
		c.RevokedAt, c.Reason = d.now(), reason
		out = d.machineCertificate(c, m)
		return nil
	})
	return out, err
}

func certificateSettings(s ca.UserSettings) rest.CertificateSettings {
	return rest.CertificateSettings{Use: s.Use, Life: text.Span(s.Life)}
}

// CertificatesOn tells whether people can have certificates at all. It says it to anybody.
func (d *Desk) CertificatesOn(ctx context.Context) (on bool, err error) {
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		s, err := ca.ReadUserSettings(ctx, q)
		on = s.On()
		return err
	})
	return on, err
}

// CertificateSettings gives what users' certificates may do.
func (d *Desk) CertificateSettings(ctx context.Context, a Actor) (out rest.CertificateSettings, err error) {
	if err := a.may(read); err != nil {
		return out, err
	}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		s, err := ca.ReadUserSettings(ctx, q)
		out = certificateSettings(s)
		return err
	})
	return out, err
}

// ChangeCertificateSettings changes it. What certificates have opened ends when their
// use changes.
func (d *Desk) ChangeCertificateSettings(ctx context.Context, a Actor, in rest.CertificateSettingsChange) (out rest.CertificateSettings, err error) {
	if err := a.may(own); err != nil {
		return out, err
	}
	var v faults
	if in.Use != nil {
		v.word("use", *in.Use, ca.Uses)
	}
	life := time.Duration(0)
	if in.Life != nil {
		life = v.span("life", *in.Life, ca.UserLife, ca.MinUserLife, ca.MaxUserLife)
	}
	if err := v.err(); err != nil {
		return out, err
	}
	err = d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		s, err := ca.ReadUserSettings(ctx, tx.Queries)
		if err != nil {
			return err
		}
		var list []changed
		set(&list, "use", &s.Use, in.Use)
		if in.Life != nil && life != s.Life {
			list = append(list, changed{"life", text.Span(s.Life), text.Span(life)})
			s.Life = life
		}
		out = certificateSettings(s)
		if len(list) == 0 {
			return nil
		}
		if err := ca.WriteUserSettings(ctx, tx, s, clock.Micros(d.Clock.Now())); err != nil {
			return err
		}
		return note(tx, a, event.Event{Type: event.SettingsChanged, Subject: "certificates"}, map[string]any{"changes": list})
	})
	return out, err
}
