// Package enroll makes machines the server's own and lets them go again: join
// tokens, certificates, approval, renewal, revocation, and what a machine says of
// itself.
//
// It promises: a single token makes one machine, also when two use it at once; a
// mass token only makes machines that wait for approval; of a token the server
// keeps the SHA-256; a machine that was revoked or lost never comes back, and its
// certificates, windows and offline data end in the same transaction; what a
// machine says of itself is bounded and cleaned before it is kept. Rows: E4, P3,
// O14 ("machine lost").
package enroll

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/seal"
	"latchkey/internal/secret"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// The states of a machine (machines.status).
const (
	Pending = "pending" // waits for approval
	Active  = "active"
	Revoked = "revoked"
	Lost    = "lost" // revoked, and whoever has it is not its owner
)

// The kinds of join tokens (join_tokens.kind).
const (
	Single = "single"
	Mass   = "mass"
)

// The bounds of a join token's life.
const (
	TokenLife    = 24 * time.Hour
	MaxTokenLife = 30 * 24 * time.Hour
)

// maxPending bounds how many machines may wait for approval: a mass token that got
// about must not fill the database.
const maxPending = 1000

// Door enrols machines. It is safe for concurrent use.
type Door struct{ c Config }

// Config is what a Door needs; all fields are required.
type Config struct {
	Store *store.Store
	Keys  *keys.Keys
	CA    *ca.Authority
	Clock clock.Clock
	Log   *slog.Logger
}

// New makes a Door.
func New(c Config) *Door { return &Door{c} }

// Order asks for a join token.
type Order struct {
	Name      string        // of the machine; empty: its host name
	Mass      bool          // any number of machines, which wait for approval
	Life      time.Duration // 0 = TokenLife
	ServerURL string        // of the machines' listener, as machines reach it
	Actor     string
}

// Issued is a new join token. Text is shown once and kept nowhere.
type Issued struct {
	ID        string
	Text      string
	ExpiresAt time.Time
}

// Issue makes a join token in tx. The caller writes the event.
func (d *Door) Issue(ctx context.Context, tx *store.Tx, o Order) (Issued, error) {
	bad := fault.New(fault.Invalid, nil)
	if o.Name != "" {
		if err := text.ValidName("machine name", o.Name); err != nil {
			bad.With("name", "%v", err)
		}
		if o.Mass {
			bad.With("name", "a mass token has none: every machine is called by its host name")
		}
	}
	if o.Life == 0 {
		o.Life = TokenLife
	}
	if o.Life < time.Minute || o.Life > MaxTokenLife {
		bad.With("expires", "%v is not allowed; allowed are 1m to %v", o.Life, MaxTokenLife)
	}
	if err := wire.CheckServerURL(o.ServerURL); err != nil {
		bad.With("server_url", "%v", err)
	}
	if len(bad.Fields) > 0 {
		return Issued{}, bad
	}
	raw := make([]byte, wire.TokenSecretSize)
	_, _ = rand.Read(raw)
	t := wire.Token{URL: o.ServerURL, CA: d.c.CA.Fingerprint(), Secret: secret.New(raw)}
	defer t.Secret.Wipe()
	words, err := wire.EncodeToken(t)
	if err != nil {
		return Issued{}, err
	}
	now := d.c.Clock.Now()
	out := Issued{ID: store.NewID(), Text: words, ExpiresAt: now.Add(o.Life)}
	kind := Single
	if o.Mass {
		kind = Mass
	}
	err = tx.InsertJoinToken(ctx, db.InsertJoinTokenParams{
		ID: out.ID, SecretHash: hash(t.Secret), Kind: kind, MachineName: o.Name, CreatedBy: o.Actor,
		CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(out.ExpiresAt),
	})
	return out, err
}

func hash(s secret.Bytes) []byte {
	sum := sha256.Sum256(s.Reveal())
	return sum[:]
}

// Join makes a machine of whoever brings a valid token. address is that of the
// connection.
func (d *Door) Join(ctx context.Context, address string, in wire.Join) (wire.JoinReply, error) {
	facts, err := Clean(in.Facts)
	if err != nil {
		return wire.JoinReply{}, err
	}
	now := d.c.Clock.Now()
	id := store.NewID()
	// Signing is no work for inside the transaction; a certificate that is never
	// handed out is nobody's.
	cert, err := d.c.CA.SignMachine(in.CSR, id)
	if errors.Is(err, ca.ErrRequest) {
		return wire.JoinReply{}, fault.Newf(fault.Invalid, "%v.", err).Because(err)
	}
	if err != nil {
		return wire.JoinReply{}, err
	}
	reply := wire.JoinReply{
		MachineID: id, Certificate: cert.Raw, CA: d.c.CA.Certificate(), GrantKey: d.c.Keys.GrantPublic(), PermitKey: d.c.Keys.PermitPublic(),
	}
	var refusal error
	failpoint.Hit("enroll.signed")
	err = d.c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		refusal = nil
		t, err := tx.GetJoinToken(ctx, hash(in.Token.Bytes))
		why := ""
		switch {
		case store.IsNotFound(err):
			why = "unknown"
		case err != nil:
			return err
		case clock.Micros(now) >= t.ExpiresAt:
			why = "expired"
		case t.UsedAt != 0:
			why = "used"
		case t.Kind == Single:
			n, err := tx.SpendJoinToken(ctx, db.SpendJoinTokenParams{ID: t.ID, At: clock.Micros(now), MachineID: id})
			if err != nil {
				return err
			}
			if n == 0 {
				why = "used"
			}
		case t.Kind != Mass:
			why = "unknown"
		default:
			n, err := countPending(ctx, tx)
			if err != nil {
				return err
			}
			if n >= maxPending {
				why = "too many machines wait for approval"
			}
		}
		if why != "" {
			refusal = fault.New(fault.TokenSpent, errors.New("the token is "+why))
			_, err := tx.Event(event.Event{
				Type: event.TokenRefused, Subject: text.CleanN(in.Facts.Hostname, 128), Address: address, Outcome: "deny", Reason: strings.ReplaceAll(why, " ", "-"),
				Data: object(map[string]any{"token": t.ID}),
			})
			return err
		}
		reply.Status = Active
		if t.Kind == Mass {
			reply.Status = Pending
		}
		if reply.Number, err = tx.NextNumber(ctx, "machines"); err != nil {
			return err
		}
		if reply.Name, err = freeName(ctx, tx, t.MachineName, facts.Hostname, reply.Number); err != nil {
			return err
		}
		err = tx.InsertMachine(ctx, db.InsertMachineParams{
			ID: id, Number: reply.Number, Name: reply.Name, Status: reply.Status, Mode: "normal", UnknownUsers: "deny", AllUsers: true,
			TPMClass: facts.Class, TPMInfo: "{}", JoinedAt: clock.Micros(now), CreatedAt: clock.Micros(now), UpdatedAt: clock.Micros(now),
		})
		if err != nil {
			return err
		}
		if err := keep(ctx, tx, id, address, wire.Version, facts, now); err != nil {
			return err
		}
		err = tx.InsertMachineCertificate(ctx, db.InsertMachineCertificateParams{
			Serial: ca.Serial(cert), MachineID: id, NotBefore: clock.Micros(cert.NotBefore), NotAfter: clock.Micros(cert.NotAfter), Fingerprint: ca.Fingerprint(cert),
		})
		if err != nil {
			return err
		}
		_, err = tx.Event(event.Event{
			Type: event.MachineJoined, Actor: t.CreatedBy, Subject: reply.Name, MachineID: id, Machine: reply.Name, Address: address, Outcome: "allow", Reason: reply.Status,
			Data: object(map[string]any{"token": t.ID, "kind": t.Kind, "os": facts.OS, "agent": facts.AgentVersion, "class": facts.Class, "certificate": ca.Fingerprint(cert)}),
		})
		return err
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		return wire.JoinReply{}, err
	}
	failpoint.Hit("enroll.joined")
	return reply, nil
}

func countPending(ctx context.Context, tx *store.Tx) (int64, error) {
	rows, err := tx.CountMachinesByStatus(ctx)
	for _, r := range rows {
		if r.Status == Pending {
			return r.N, err
		}
	}
	return 0, err
}

// freeName finds the machine's name: the token's, else the host's first label,
// else its number; with -2, -3 … behind it when others are called so.
func freeName(ctx context.Context, tx *store.Tx, wanted, hostname string, number int64) (string, error) {
	base := wanted
	if base == "" {
		base, _, _ = strings.Cut(hostname, ".")
	}
	if text.ValidName("machine name", base) != nil || len(base) > text.MaxName-8 {
		base = fmt.Sprintf("machine-%d", number)
	}
	name := base
	for i := 2; ; i++ {
		n, err := tx.MachineNameTaken(ctx, name)
		if err != nil || n == 0 {
			return name, err
		}
		if i > 200 { // a fleet of one name: the number is unique
			return fmt.Sprintf("%s-%d", base, number), nil
		}
		name = fmt.Sprintf("%s-%d", base, i)
	}
}

// Renew issues a new certificate for a machine that was recognised by its old
// one, the one of the serial number, be that expired or not.
func (d *Door) Renew(ctx context.Context, m db.Machine, serial, address string, in wire.Renew) (wire.RenewReply, error) {
	if m.Status != Active && m.Status != Pending {
		return wire.RenewReply{}, fault.New(fault.MachineRefused, nil)
	}
	cert, err := d.c.CA.SignMachine(in.CSR, m.ID)
	if errors.Is(err, ca.ErrRequest) {
		return wire.RenewReply{}, fault.Newf(fault.Invalid, "%v.", err).Because(err)
	}
	if err != nil {
		return wire.RenewReply{}, err
	}
	failpoint.Hit("enroll.renewing")
	err = d.c.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		// The status again, inside: a revocation must not be overtaken.
		now, err := tx.GetMachine(ctx, m.ID)
		if err != nil {
			return err
		}
		if now.Status != Active && now.Status != Pending {
			return fault.New(fault.MachineRefused, nil)
		}
		old, err := tx.GetMachineCertificate(ctx, serial)
		switch {
		case store.IsNotFound(err): // of a time that this database has lost: the machine's state decides
		case err != nil:
			return err
		case old.RevokedAt != 0 || old.MachineID != m.ID:
			return fault.New(fault.MachineUnknown, errors.New("the certificate was revoked"))
		}
		err = tx.InsertMachineCertificate(ctx, db.InsertMachineCertificateParams{
			Serial: ca.Serial(cert), MachineID: m.ID, NotBefore: clock.Micros(cert.NotBefore), NotAfter: clock.Micros(cert.NotAfter), Fingerprint: ca.Fingerprint(cert),
		})
		if err != nil {
			return err
		}
		_, err = tx.Event(event.Event{
			Type: event.MachineRenewed, Subject: m.Name, MachineID: m.ID, Machine: m.Name, Address: address, Outcome: "allow",
			Data: object(map[string]any{"certificate": ca.Fingerprint(cert), "not_after": cert.NotAfter.UTC().Format(time.RFC3339)}),
		})
		return err
	})
	if err != nil {
		return wire.RenewReply{}, err
	}
	failpoint.Hit("enroll.renewed")
	return wire.RenewReply{Certificate: cert.Raw}, nil
}

// Approve makes a pending machine active. The caller writes the event.
func (d *Door) Approve(ctx context.Context, tx *store.Tx, machineID string) error {
	n, err := tx.SetMachineStatus(ctx, db.SetMachineStatusParams{
		ID: machineID, Status: Active, FromStatus: Pending, OrStatus: Pending, At: clock.Micros(d.c.Clock.Now()),
	})
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.Newf(fault.Conflict, "The machine does not wait for approval: it is active already, or was revoked.")
	}
	tx.Wake(machineID)
	return nil
}

// Dismiss revokes a machine, or with status Lost reports it lost: it is refused
// from now on with a signed refusal, its certificates and windows end, and its
// offline data counts as gone (the machine wipes it when it hears the refusal). It
// tells whose offline data lay on it: a lost machine's users need new
// authenticators. The caller writes the event. A revoked machine can still be
// reported lost; nothing leads back.
func (d *Door) Dismiss(ctx context.Context, tx *store.Tx, machineID, status string) (holders []string, err error) {
	if status != Revoked && status != Lost {
		return nil, fmt.Errorf("a machine can not be dismissed as %q", status)
	}
	m, err := tx.GetMachine(ctx, machineID)
	if store.IsNotFound(err) {
		return nil, fault.New(fault.NotFound, err)
	}
	if err != nil {
		return nil, err
	}
	now := d.c.Clock.Now()
	refusal, err := d.refusal(m, status, now)
	if err != nil {
		return nil, err
	}
	from, or := m.Status, m.Status
	if m.Status == status || m.Status == Lost {
		return nil, fault.Newf(fault.Conflict, "The machine is %s already.", m.Status)
	}
	n, err := tx.SetMachineStatus(ctx, db.SetMachineStatusParams{ID: machineID, Status: status, Refusal: refusal, FromStatus: from, OrStatus: or, At: clock.Micros(now)})
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fault.New(fault.Conflict, nil)
	}
	vaults, err := tx.ListVaultsOfMachine(ctx, machineID)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, v := range vaults {
		if !seen[v.UserID] {
			seen[v.UserID] = true
			holders = append(holders, v.UserID)
		}
	}
	at := clock.Micros(now)
	reason := ca.Cessation
	if status == Lost {
		reason = ca.KeyCompromise
	}
	if _, _, err := ca.RevokeMachine(ctx, tx, machineID, reason, at); err != nil {
		return nil, err
	}
	if _, err := tx.EndWindows(ctx, db.EndWindowsParams{MachineID: machineID, At: at, Reason: "machine-" + status}); err != nil {
		return nil, err
	}
	if _, err := tx.WipeVaultsOfMachine(ctx, db.WipeVaultsOfMachineParams{MachineID: machineID, At: at}); err != nil {
		return nil, err
	}
	tx.Wake(machineID)
	failpoint.Hit("enroll.dismissed")
	return holders, nil
}

// Refusal is the signed refusal of a machine that was revoked or lost; nil for any
// other.
func (d *Door) Refusal(m db.Machine) []byte {
	if m.Status != Revoked && m.Status != Lost {
		return nil
	}
	if len(m.Refusal) > 0 {
		return m.Refusal
	}
	r, err := d.refusal(m, m.Status, d.c.Clock.Now())
	if err != nil {
		d.c.Log.Error("a refusal could not be signed", "machine", m.ID, "error", err)
	}
	return r
}

func (d *Door) refusal(m db.Machine, status string, now time.Time) ([]byte, error) {
	words := "This machine has been revoked. Ask an administrator."
	if status == Lost {
		words = "This machine was reported lost. If you found it, please give it back to its owner."
	}
	note, err := json.Marshal(wire.RefusalNote{MachineID: m.ID, Status: status, Serial: m.Serial + 1, At: clock.Micros(now), Text: words})
	if err != nil {
		return nil, err
	}
	return seal.Sign(d.c.Keys.Grant, seal.Refusal, m.ID, note), nil
}

func object(v map[string]any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil // only texts and numbers go in
	}
	return b
}
