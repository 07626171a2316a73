package ca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// The reasons for which a certificate is revoked (RFC 5280 §5.3.1, in our words).
const (
	KeyCompromise = "key-compromise"
	Replaced      = "replaced"
	Cessation     = "cessation"
	Unspecified   = "unspecified"
)

// Reasons are what may be given as a reason.
var Reasons = []string{Unspecified, KeyCompromise, Replaced, Cessation}

// reasonCodes are the CRLReason of each; what is not here is left out of the list, as
// RFC 5280 asks for "unspecified".
var reasonCodes = map[string]int{KeyCompromise: 1, Replaced: 4, Cessation: 5}

// counterRevocations numbers revocations, counterLists the lists that were signed.
const counterRevocations, counterLists = "revocations", "revocation-lists"

// revocations writes down several that happen together.
func revocations(ctx context.Context, tx *store.Tx, list []db.ListUnrevokedCertificatesRow, reason string, at int64) error {
	if len(list) == 0 {
		return nil
	}
	number, err := tx.NextNumber(ctx, counterRevocations)
	if err != nil {
		return err
	}
	for _, c := range list {
		_, err := tx.InsertRevocation(ctx, db.InsertRevocationParams{Serial: c.Serial, Number: number, RevokedAt: at, NotAfter: c.NotAfter, Reason: reason})
		if err != nil {
			return fmt.Errorf("revoke a certificate: %w", err)
		}
	}
	return nil
}

// RevokeMachine revokes all certificates of a machine in the transaction, and those
// that users have for it; the caller has judged the right and writes the event. It
// tells how many there were of each.
func RevokeMachine(ctx context.Context, tx *store.Tx, machineID, reason string, at int64) (machines, users int, err error) {
	rows, err := tx.ListMachineCertificates(ctx, machineID)
	if err != nil {
		return 0, 0, err
	}
	var list []db.ListUnrevokedCertificatesRow
	for _, c := range rows {
		if c.RevokedAt == 0 {
			list = append(list, db.ListUnrevokedCertificatesRow{Serial: c.Serial, NotAfter: c.NotAfter})
		}
	}
	if _, err := tx.RevokeMachineCertificates(ctx, db.RevokeMachineCertificatesParams{MachineID: machineID, At: at}); err != nil {
		return 0, 0, err
	}
	if err := revocations(ctx, tx, list, reason, at); err != nil {
		return 0, 0, err
	}
	users, err = revokeUsers(ctx, tx, "", machineID, reason, at)
	return len(list), users, err
}

// RevokeUser revokes all certificates of a user in the transaction, with the sessions
// that they have opened. It tells how many of them had not expired.
func RevokeUser(ctx context.Context, tx *store.Tx, userID, reason string, at int64) (int, error) {
	return revokeUsers(ctx, tx, userID, "", reason, at)
}

func revokeUsers(ctx context.Context, tx *store.Tx, userID, machineID, reason string, at int64) (int, error) {
	if userID == "" && machineID == "" {
		return 0, errors.New("all certificates of everybody are not revoked at once")
	}
	// Those that have expired too: they have not, where the clock is ahead (0038).
	list, err := tx.ListUnrevokedCertificates(ctx, db.ListUnrevokedCertificatesParams{UserID: userID, MachineID: machineID})
	if err != nil {
		return 0, err
	}
	good := 0
	for _, c := range list {
		if c.NotAfter > at {
			good++
		}
		if err := endOfUsers(ctx, tx, c.Serial, reason, at); err != nil {
			return 0, err
		}
	}
	return good, revocations(ctx, tx, list, reason, at)
}

func endOfUsers(ctx context.Context, tx *store.Tx, serial, reason string, at int64) error {
	if _, err := tx.RevokeUserCertificate(ctx, db.RevokeUserCertificateParams{Serial: serial, Reason: reason, At: at}); err != nil {
		return err
	}
	_, err := tx.DeleteSessionsOfCertificate(ctx, serial)
	return err
}

// errRevoked says that there is nothing to revoke any more.
func errRevoked() error {
	return fault.Newf(fault.Conflict, "The certificate was revoked before.")
}

// RevokeUserCertificate revokes one certificate of a user in the transaction, with the
// sessions that it has opened.
func RevokeUserCertificate(ctx context.Context, tx *store.Tx, c db.UserCertificate, reason string, at int64) error {
	if c.RevokedAt != 0 {
		return errRevoked()
	}
	if err := endOfUsers(ctx, tx, c.Serial, reason, at); err != nil {
		return err
	}
	return revocations(ctx, tx, []db.ListUnrevokedCertificatesRow{{Serial: c.Serial, NotAfter: c.NotAfter}}, reason, at)
}

// RevokeMachineCertificate revokes one certificate of a machine in the transaction and
// wakes its poll, which is refused then.
func RevokeMachineCertificate(ctx context.Context, tx *store.Tx, c db.MachineCertificate, reason string, at int64) error {
	n, err := tx.RevokeMachineCertificate(ctx, db.RevokeMachineCertificateParams{Serial: c.Serial, Reason: reason, At: at})
	switch {
	case err != nil:
		return err
	case n == 0:
		return errRevoked()
	}
	tx.Wake(c.MachineID)
	return revocations(ctx, tx, []db.ListUnrevokedCertificatesRow{{Serial: c.Serial, NotAfter: c.NotAfter}}, reason, at)
}

// The life of a revocation list, and at what age the next one is made although nothing
// was revoked.
const (
	ListLife  = 48 * time.Hour
	listRenew = 24 * time.Hour
)

// maxListed bounds a list; a fleet that revokes more within the life of its
// certificates has another problem.
const maxListed = 1_000_000

// listPage is how many revocations are read at once.
const listPage = 5000

// List is a signed revocation list. Number is its CRL number; Upto the number of the
// last revocation in it.
type List struct {
	DER                    []byte
	Number, Upto           int64
	ThisUpdate, NextUpdate time.Time
}

// RevocationList is the present list: the stored one while nothing was revoked since,
// else a new one. Of several replicas that make one at once the last is kept; both say
// the truth.
func (a *Authority) RevocationList(ctx context.Context) (*List, error) {
	now := a.clock.Now()
	good := func(l *List, last int64) bool {
		return l != nil && l.Upto == last && now.Before(l.ThisUpdate.Add(listRenew)) && !now.Before(l.ThisUpdate.Add(-time.Minute))
	}
	var last int64
	stored := a.list.Load()
	err := a.store.Read(ctx, func(q *store.Queries) (err error) {
		if last, err = q.LastRevocation(ctx); err != nil || good(stored, last) {
			return err
		}
		stored = nil
		row, err := q.GetRevocationList(ctx)
		if store.IsNotFound(err) {
			return nil
		}
		if err == nil {
			stored = listOf(row)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the revocation list: %w", err)
	}
	if good(stored, last) {
		a.list.Store(stored)
		return stored, nil
	}
	var made *List
	err = a.store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		made, err = a.makeList(ctx, tx, now)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the revocation list: %w", err)
	}
	a.list.Store(made)
	return made, nil
}

func listOf(r db.RevocationList) *List {
	return &List{DER: r.Der, Number: r.Number, Upto: r.Upto, ThisUpdate: clock.FromMicros(r.ThisUpdate), NextUpdate: clock.FromMicros(r.NextUpdate)}
}

func (a *Authority) makeList(ctx context.Context, tx *store.Tx, now time.Time) (*List, error) {
	var err error
	// Certificates and lists tell times by the second.
	l := &List{ThisUpdate: now.UTC().Truncate(time.Second)}
	l.NextUpdate = l.ThisUpdate.Add(ListLife)
	// First the number: from here on one replica makes a list at a time, and the later
	// one sees more.
	if l.Number, err = tx.NextNumber(ctx, counterLists); err != nil {
		return nil, err
	}
	if l.Upto, err = tx.LastRevocation(ctx); err != nil {
		return nil, err
	}
	t := &x509.RevocationList{Number: big.NewInt(l.Number), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate}
	for after := ""; len(t.RevokedCertificateEntries) < maxListed; {
		rows, err := tx.ListRevocations(ctx, db.ListRevocationsParams{At: clock.Micros(now.Add(-backdate)), After: after, N: listPage})
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			after = r.Serial
			serial, ok := new(big.Int).SetString(r.Serial, 16)
			if !ok || serial.Sign() <= 0 {
				continue // no certificate of ours has such a number
			}
			t.RevokedCertificateEntries = append(t.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: serial, RevocationTime: clock.FromMicros(r.RevokedAt).UTC(), ReasonCode: reasonCodes[r.Reason],
			})
		}
		if len(rows) < listPage {
			break
		}
	}
	if l.DER, err = x509.CreateRevocationList(rand.Reader, t, a.cert, a.key); err != nil {
		return nil, err
	}
	return l, tx.PutRevocationList(ctx, db.PutRevocationListParams{
		Number: l.Number, Upto: l.Upto, Der: l.DER, ThisUpdate: clock.Micros(l.ThisUpdate), NextUpdate: clock.Micros(l.NextUpdate),
	})
}

// The list is served from memory for a second, however many ask: whoever needs no right
// to ask must not reach the database as often as he likes. A failure is remembered as long.
const (
	servedFor = time.Second
	serveTime = 5 * time.Second
)

// served is the answer to whoever asked last.
type served struct {
	list *List
	err  error
	at   time.Time
}

// servedList is the list as it was within the last second. One asks the database; others
// wait for that answer as long as they like.
func (a *Authority) servedList(ctx context.Context) (*List, error) {
	select {
	case a.serving <- struct{}{}:
		defer func() { <-a.serving }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	now := a.clock.Now()
	if age := now.Sub(a.served.at); a.served.at.IsZero() || age < 0 || age >= servedFor {
		// Others wait for it too: it does not end because the first has gone.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), serveTime)
		defer cancel()
		list, err := a.RevocationList(ctx)
		a.served = served{list, err, a.clock.Now()}
	}
	return a.served.list, a.served.err
}

// ServeList answers GET ListPath: it is public.
func (a *Authority) ServeList(w http.ResponseWriter, r *http.Request) {
	l, err := a.servedList(r.Context())
	if err != nil {
		http.Error(w, "The revocation list can not be read now. Try again later.", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/pkix-crl") // RFC 2585 §4.2
	h.Set("Content-Disposition", `attachment; filename="latchkey.crl"`)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "public, max-age=60")
	h.Set("ETag", `"`+strconv.FormatInt(l.Number, 10)+`"`)
	http.ServeContent(w, r, "", l.ThisUpdate, bytes.NewReader(l.DER))
}
