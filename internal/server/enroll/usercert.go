package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// noEntitlement is the one answer to a machine that asks for somebody who has not signed
// in there, is nobody, or may not use it: it learns nothing of accounts.
func noEntitlement() error {
	return fault.Newf(fault.Conflict, "There is no sign-in of yours with a second factor on this machine that is still good. Sign in or unlock once with a security key, a phone or an authenticator app, and try again.")
}

// UserCertificate issues a certificate to a user of the machine (M4). It takes a window
// that the user has opened there with a second factor that opens the console (a code by
// mail must not become a certificate that does); to renew one that is good, such an MFA
// there since it was issued. The certificate is bound to the machine: it is revoked with
// it. The one before it stays good until it ends, so that who renews loses nothing, also
// if the answer is lost on its way, again and again.
func (d *Door) UserCertificate(ctx context.Context, m db.Machine, address string, in wire.UserCertificate) (wire.UserCertificateReply, error) {
	var (
		u   *db.User
		set ca.UserSettings
	)
	now := d.c.Clock.Now()
	err := d.c.Store.Read(ctx, func(q *store.Queries) (err error) {
		if set, err = ca.ReadUserSettings(ctx, q); err != nil || !set.On() {
			return err
		}
		if u, _, err = facts.Resolve(ctx, q, facts.Name{User: in.User, UID: in.UID, Aliases: in.Aliases}); err != nil || u == nil {
			return err
		}
		ok, _, err := entitled(ctx, q, *u, m, now)
		if !ok {
			u = nil
		}
		return err
	})
	switch {
	case err != nil:
		return wire.UserCertificateReply{}, err
	case !set.On():
		return wire.UserCertificateReply{}, fault.Newf(fault.Conflict, "Certificates of users are switched off on the server. An owner switches them on: latchkey certificate set --use portal.")
	case u == nil:
		return wire.UserCertificateReply{}, noEntitlement()
	}
	who := ca.User{ID: u.ID, Name: u.Name, MachineID: m.ID}
	cert, err := d.c.CA.SignUser(in.CSR, who, set.Life)
	if errors.Is(err, ca.ErrRequest) {
		return wire.UserCertificateReply{}, fault.Newf(fault.Invalid, "%v.", err).Because(err)
	}
	if err != nil {
		return wire.UserCertificateReply{}, err
	}
	name := text.CleanN(in.Name, 128)
	err = d.c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		// Again, inside: a revocation must not be overtaken.
		row, err := tx.GetUser(ctx, u.ID)
		if store.IsNotFound(err) {
			return noEntitlement()
		} else if err != nil {
			return err
		}
		ok, live, err := entitled(ctx, tx.Queries, row, m, now)
		switch {
		case err != nil:
			return err
		case !ok:
			return noEntitlement()
		}
		for _, old := range replaced(live) {
			if err := ca.RevokeUserCertificate(ctx, tx, old, ca.Replaced, clock.Micros(now)); err != nil {
				return err
			}
		}
		if err := ca.KeepUser(ctx, tx, cert, who, name, ca.KeyFile, clock.Micros(now)); err != nil {
			return err
		}
		reason := ""
		if len(live) > 0 {
			reason = "renewed"
		}
		_, err = tx.Event(event.Event{
			Type: event.CertificateIssued, Actor: u.Name, Subject: u.Name, UserID: u.ID, MachineID: m.ID, Machine: m.Name, Address: address, Outcome: "allow", Reason: reason,
			Data: object(map[string]any{"serial": ca.Serial(cert), "certificate": ca.Fingerprint(cert), "not_after": cert.NotAfter.UTC().Format(time.RFC3339), "key": ca.KeyFile}),
		})
		return err
	})
	if err != nil {
		return wire.UserCertificateReply{}, err
	}
	return wire.UserCertificateReply{Certificate: cert.Raw, CA: d.c.CA.Certificate(), UserName: u.Name, RenewAfter: clock.Micros(ca.RenewAfter(cert))}, nil
}

// replaced are those of the pair, the youngest first, that end with a new one. The youngest
// stays, and the one that was used last: of the two one is what the user holds, whether the
// answer with the youngest has come through or not.
func replaced(live []db.UserCertificate) (out []db.UserCertificate) {
	used := 0
	for i, c := range live {
		if c.LastUsedAt > live[used].LastUsedAt {
			used = i
		}
	}
	for i, c := range live {
		if i != 0 && i != used {
			out = append(out, c)
		}
	}
	return out
}

// entitled tells whether the user may have a certificate on the machine now. live are
// those that he has for it, the youngest first.
func entitled(ctx context.Context, q *db.Queries, u db.User, m db.Machine, now time.Time) (ok bool, live []db.UserCertificate, err error) {
	at := clock.Micros(now)
	if u.Disabled || facts.NotYet(u, now) || m.Status != Active {
		return false, nil, nil
	}
	pair, err := q.MachineAllowsUser(ctx, db.MachineAllowsUserParams{MachineID: m.ID, UserID: u.ID})
	if err != nil || pair == 0 {
		return false, nil, err
	}
	if live, err = q.ListLiveUserCertificates(ctx, db.ListLiveUserCertificatesParams{UserID: u.ID, MachineID: m.ID, At: at}); err != nil {
		return false, nil, err
	}
	windows, err := q.ListValidWindows(ctx, db.ListValidWindowsParams{UserID: u.ID, MachineID: m.ID, At: at})
	if err != nil || slices.ContainsFunc(windows, earns) {
		return err == nil, live, err
	}
	last, err := q.LastWindowOpened(ctx, db.LastWindowOpenedParams{UserID: u.ID, MachineID: m.ID})
	return slices.ContainsFunc(live, func(c db.UserCertificate) bool { return last > c.CreatedAt }), live, err
}

// earns tells whether the window was opened with a factor that opens the console by
// itself: what the certificate may come to open (see session.Strong).
func earns(w db.Window) bool {
	var with []policy.Factor
	return json.Unmarshal([]byte(w.Factors), &with) == nil && slices.ContainsFunc(with, func(f policy.Factor) bool {
		return f == policy.FIDO2 || f == policy.Push || f == policy.TOTP
	})
}
