package session

import (
	"context"
	"encoding/json"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// Passkeys judges passkeys of whoever comes without a name: see passkey.Service.
type Passkeys interface {
	// Discover makes the options for a browser, and keeps its challenge under the ticket
	// until the time. A *fault.Fault Unavailable says why nobody can sign in so.
	Discover(ctx context.Context, tx *store.Tx, ticket string, now, until time.Time) (json.RawMessage, error)
	// Found judges the answer to that challenge, which is spent by it, whatever comes of
	// it. The user is zero where the answer names none; the authenticator must have
	// verified who holds it.
	Found(ctx context.Context, tx *store.Tx, ticket string, answer secret.Bytes, now time.Time) (db.User, factor.Verdict, error)
}

// stagePasskey is a sign-in without a name. Its row has no user.
const stagePasskey = "passkey"

// passkeyState is what such a sign-in has come to.
type passkeyState struct {
	Agent string `json:"agent"`
}

// BeginPasskey begins a sign-in without name and password: the options for the browser,
// and the secret of the sign-in. Nothing depends on who comes. The fault is Unavailable
// where nobody can sign in so, and TooMany when somebody must wait.
func (m *Sessions) BeginPasskey(ctx context.Context, address, agent string) (json.RawMessage, Secret, error) {
	if m.Passkeys == nil {
		return nil, Secret{}, fault.Newf(fault.Unavailable, "Nobody can sign in with a passkey alone here.")
	}
	if err := m.limits.look(address); err != nil {
		return nil, Secret{}, err
	}
	var options json.RawMessage
	var raw Secret
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		now := m.Clock.Now()
		if raw, err = m.keepSignin(ctx, tx, "", stagePasskey, passkeyState{text.CleanN(agent, 256)}, now, SigninTime); err != nil {
			return err
		}
		row, err := m.signin(ctx, tx.Queries, string(raw.Reveal()), now)
		if err != nil {
			return err
		}
		options, err = m.Passkeys.Discover(ctx, tx, row.ID, now, now.Add(SigninTime))
		return err
	})
	if err != nil {
		return nil, Secret{}, err
	}
	return options, raw, nil
}

// FinishPasskey judges what the browser has answered, once, and opens a session. known is
// the value of the cookie KnownCookie. The fault is Expired when the sign-in is over,
// Unauthorized when the passkey is not accepted, and TooMany when the account must wait.
func (m *Sessions) FinishPasskey(ctx context.Context, raw string, answer secret.Bytes, address, known string) (Opened, error) {
	if m.Passkeys == nil {
		return Opened{}, fault.New(fault.BadRequest, nil)
	}
	if err := m.limits.take(address); err != nil {
		return Opened{}, err
	}
	if err := typed(FIDO2, answer); err != nil {
		return Opened{}, err
	}
	var out Opened
	var denied error
	err := m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out, denied = Opened{}, nil
		now := m.Clock.Now()
		row, err := m.signin(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if row.Stage != stagePasskey || row.UserID != "" {
			return fault.New(fault.BadRequest, nil)
		}
		var st passkeyState
		if err := m.opened(row, &st); err != nil {
			return err
		}
		u, v, err := m.Passkeys.Found(ctx, tx, row.ID, answer, now)
		if err != nil {
			return err
		}
		place := attempts.Door
		if u.ID != "" {
			if id, ok := m.knows(known, u.ID); ok {
				place = attempts.Browser(id)
			}
		}
		refuse := func(reason string, told error) error {
			if _, err := tx.DeleteSignin(ctx, row.ID); err != nil {
				return err
			}
			denied = told
			return m.note(tx, event.Event{
				Type: event.SessionDenied, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Outcome: denyOutcome, Reason: reason, Factor: FIDO2,
			}, map[string]any{"kind": Browser, "agent": st.Agent, "detail": v.Data["detail"], "authenticator": v.Data["authenticator"]})
		}
		if !v.OK() {
			return refuse(v.Reason, fault.Newf(fault.Unauthorized, "%s", v.Text))
		}
		// The passkey is right: what follows may be said to whoever holds it.
		block, err := attempts.Blocked(ctx, tx, u.ID, place, now)
		switch {
		case err != nil:
			return err
		case u.Disabled:
			return refuse(string(policy.ReasonDisabled), refusedPasskey())
		case facts.NotYet(u, now):
			return refuse(string(policy.ReasonNotYet), refusedPasskey())
		case !m.Directories.Of(&u).Has(u):
			return refuse(reasonUnknown, refusedPasskey())
		case block.On():
			return refuse(string(policy.ReasonLocked), wait(block, now))
		case m.due(u):
			return refuse(reasonDue, fault.Newf(fault.Unauthorized, "%s", text.PasskeyPasswordDue))
		case !v.Own || v.Data["verified"] != true:
			return fault.New(fault.Internal, nil) // it would be the whole proof
		}
		if err := m.noteFactor(tx, event.FactorAccepted, u, FIDO2, "", address, v); err != nil {
			return err
		}
		out.Tell = v.Tell
		full := state{Kind: Browser, Agent: st.Agent, Place: place, PasswordAt: u.PasswordChangedAt, NewBrowser: place == attempts.Door}
		return m.finish(ctx, tx, row, full, u, FIDO2, "", address, now, &out)
	})
	if err == nil {
		err = denied
	}
	if err != nil {
		return Opened{}, err
	}
	return out, nil
}

// due tells whether the user's password is to be changed now (S9). It is changed by whoever
// knows it: a way in that takes none must not lead past that, nor to a new one.
func (m *Sessions) due(u db.User) bool {
	dir := m.Directories.Of(&u)
	return dir.Has(u) && dir.Due(u) != directory.Accepted
}

// reasonDue is why such a way in is shut.
const reasonDue = "password-due"

// refusedPasskey tells no more than that: why is in the log.
func refusedPasskey() error { return fault.Newf(fault.Unauthorized, "%s", text.PasskeyRefused) }
