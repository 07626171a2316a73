package desk

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

const kindPasskey = string(policy.FIDO2)

// whole tells whether an authenticator of the kind opens what the account may open: whoever
// has one has a second factor. A code by mail or SMS is none that proves who enrols the
// next.
func whole(kind string) bool {
	return slices.Contains([]string{kindPasskey, string(policy.Push), kindTOTP}, kind)
}

// onPasskeys tells of the passkeys in the list what else is known of them.
func (d *Desk) onPasskeys(ctx context.Context, q *db.Queries, u db.User, out []rest.Factor) error {
	if !slices.ContainsFunc(out, func(f rest.Factor) bool { return f.Kind == kindPasskey }) {
		return nil
	}
	rows, err := q.ListPasskeysOfUser(ctx, u.ID)
	if err != nil {
		return fmt.Errorf("passkeys of user %s: %w", u.ID, err)
	}
	for i := range out {
		id, _ := cut(rest.FactorPrefix, out[i].ID)
		for _, r := range rows {
			if p := r.Passkey; p.AuthenticatorID == id {
				out[i].Passkey = &rest.Passkey{
					Model: passkey.Model(p.Aaguid), AAGUID: p.Aaguid, Host: p.RpID, Verifies: p.VerifiesUser, Synced: p.BackupEligible, BackedUp: p.BackedUp,
					Discoverable: p.Discoverable, Transports: passkey.Transports(p), Attestation: p.Attestation, ClonedAt: rest.Time(p.ClonedAt),
				}
			}
		}
	}
	return nil
}

// passkeyLife is how long a registration may take.
const passkeyLife = 10 * time.Minute

func (d *Desk) mayPasskeys() error {
	if d.Passkeys == nil {
		return fault.Newf(fault.Unavailable, "This server takes no passkeys.")
	}
	return nil
}

// NoPasskeys says why nobody can make a passkey here; empty: they can. It says it to anybody.
func (d *Desk) NoPasskeys(ctx context.Context) (why string, err error) {
	if err := d.mayPasskeys(); err != nil {
		return fault.Of(err).Public(), nil
	}
	err = d.Store.Read(ctx, func(q *store.Queries) error {
		err := d.Passkeys.Ready(ctx, q)
		if fault.Is(err, fault.Unavailable) {
			why, err = fault.Of(err).Public(), nil
		}
		return err
	})
	return why, err
}

// BeginOwnPasskey makes what a browser needs to make a passkey of. It exists from
// ConfirmOwnPasskey on. It takes a fresh second factor, or for the first one an enrolment
// code (E1).
func (d *Desk) BeginOwnPasskey(ctx context.Context, a Actor) (rest.PendingPasskey, error) {
	var out rest.PendingPasskey
	if err := d.mayPasskeys(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := d.mayEnrol(ctx, tx.Queries, a)
		if err != nil {
			return err
		}
		now := d.Clock.Now()
		ticket, options, err := d.Passkeys.Begin(ctx, tx, passkey.Order{User: u, Enrol: a.Enrol, Now: now, Until: now.Add(passkeyLife)})
		if err != nil {
			return err
		}
		out = rest.PendingPasskey{Ticket: rest.HideText(ticket), Options: options, ExpiresAt: now.Add(passkeyLife).UTC()}
		return nil
	})
	return out, err
}

// ConfirmOwnPasskey makes the passkey, if what the browser has answered is right. An
// enrolment code that opened the session is spent with it.
func (d *Desk) ConfirmOwnPasskey(ctx context.Context, a Actor, in rest.ConfirmPasskey) (rest.Factor, error) {
	var out rest.Factor
	if err := d.mayPasskeys(); err != nil {
		return out, err
	}
	if err := a.mine(); err != nil {
		return out, err
	}
	if a.Session == "" || a.Enrol == "" {
		// The ticket is the proof of a fresh factor: it was only given to one.
		if err := a.act(); err != nil {
			return out, err
		}
	}
	var v faults
	v.line("name", in.Name, text.MaxName)
	if in.Credential.Empty() {
		v.add("credential", "it is missing; it is what the browser answers")
	}
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		if a.Enrol != "" {
			if u, err = d.mayEnrol(ctx, tx.Queries, a); err != nil {
				return err
			}
		}
		if err := a.reach(u); err != nil {
			return err
		}
		have, err := tx.ListAuthenticators(ctx, u.ID)
		if err != nil {
			return err
		}
		if len(have) >= maxAuthenticators {
			return fault.Newf(fault.Conflict, "You have %d authenticators already, and can have no more. Remove one that you do not use.", len(have))
		}
		now := d.Clock.Now()
		m, err := d.Passkeys.Finish(ctx, tx, in.Ticket.Show(), in.Credential.Bytes, strings.TrimSpace(in.Name), passkey.Order{User: u, Enrol: a.Enrol, Now: now})
		if err != nil {
			return err
		}
		if a.Enrol != "" {
			if err := d.spendEnrol(ctx, tx, a, u, a.Enrol, m.ID); err != nil {
				return err
			}
		}
		if err := d.newFactors(ctx, tx, a, u.ID); err != nil {
			return err
		}
		if err := note(tx, a, event.Event{Type: event.FactorAdded, Subject: u.Name, UserID: u.ID, Factor: kindPasskey}, map[string]any{
			"authenticator": rest.FactorPrefix + m.ID, "name": m.Name, "model": passkey.Model(m.Model), "aaguid": m.Model, "attestation": m.Attested,
			"synced": m.Eligible, "verifies": m.Verifies, "self": true,
		}); err != nil {
			return err
		}
		out, _, err = d.ownFactor(ctx, tx.Queries, u, rest.FactorPrefix+m.ID)
		return err
	})
	return out, err
}

// RemoveOwnPasskeys removes all passkeys of the actor's. Where they are all that he has
// they stay: nobody would get in any more.
func (d *Desk) RemoveOwnPasskeys(ctx context.Context, a Actor) (rest.Done, error) {
	var out rest.Done
	if err := a.fresh(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out = rest.Done{}
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		have, err := d.ownFactors(ctx, tx.Queries, u)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(have, func(f rest.Factor) bool { return f.Kind == kindPasskey }) {
			return fault.Newf(fault.NotFound, "You have no passkeys.")
		}
		if err := a.reach(u); err != nil {
			return err
		}
		if !slices.ContainsFunc(have, func(f rest.Factor) bool { return f.Kind != kindPasskey && whole(f.Kind) && f.State == factorUsable }) {
			return fault.Newf(fault.Conflict, "Your passkeys are all that you sign in with: without them you could not sign in any more. Add another factor first. One that is lost or stolen you mark as lost instead.")
		}
		for _, f := range have {
			if f.Kind != kindPasskey {
				continue
			}
			id, _ := cut(rest.FactorPrefix, f.ID)
			if _, err := tx.DeleteAuthenticator(ctx, id); err != nil {
				return err
			}
			out.Count++
			if err := note(tx, a, event.Event{Type: event.FactorRemoved, Subject: u.Name, UserID: u.ID, Factor: f.Kind}, map[string]any{
				"authenticator": f.ID, "name": f.Name, "was": f.State, "self": true,
			}); err != nil {
				return err
			}
		}
		return d.lessFactors(ctx, tx, a, u.ID)
	})
	return out, err
}
