package passkey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/go-webauthn/webauthn/protocol"

	"latchkey/internal/assertion"
	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/party"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// askTime is how long a challenge of a sign-in waits.
const askTime = 5 * time.Minute

// rejected is a verdict with a reason; detail is for the event.
func rejected(reason, say, detail string) factor.Verdict {
	v := factor.Verdict{Reason: reason, Text: say}
	if detail != "" {
		v.Data = map[string]any{"detail": detail}
	}
	return v
}

// Send makes a challenge for what the user holds: options for a browser
// (PublicKeyCredentialRequestOptionsJSON) or a wire.KeyChallenge for a machine.
func (s *Service) Send(ctx context.Context, tx *store.Tx, a factor.Ask, verification bool) (factor.Sent, error) {
	p, err := s.site(ctx, tx.Queries)
	if err != nil {
		return factor.Sent{}, err
	}
	who, rows, err := s.owner(ctx, tx, a.User, p.ID, a.Now)
	if err != nil {
		return factor.Sent{}, err
	}
	if len(rows) == 0 {
		return factor.Sent{}, fault.Newf(fault.Unavailable, "None of your passkeys was made for %s. Choose another way.", p.ID)
	}
	until := a.Now.Add(askTime)
	if a.Door == factor.AtMachine {
		rows = slices.DeleteFunc(rows, func(r db.ListPasskeysOfUserRow) bool { return !facts.Pluggable(r.Passkey) })
		if len(rows) == 0 {
			return factor.Sent{}, fault.Newf(fault.Unavailable, text.KeyNonePluggable)
		}
		pol, err := facts.PolicyOf(ctx, tx.Queries, a.User.ID)
		if err != nil {
			return factor.Sent{}, err
		}
		verification := verification || pol != nil && pol.KeyVerification
		c := wire.KeyChallenge{UserID: a.User.ID, RPID: p.ID, Challenge: make([]byte, nonceSize), Verification: verification}
		if _, err := io.ReadFull(s.Random, c.Challenge); err != nil {
			return factor.Sent{}, fmt.Errorf("make a challenge: %w", err)
		}
		for _, r := range rows {
			c.Credentials = append(c.Credentials, r.Passkey.CredentialID)
		}
		k := kept{Purpose: toMachine, Machine: a.Machine, Nonce: c.Challenge, Verification: verification}
		if err := keep(ctx, tx, ticketOf(toSign, a.Ticket), a.User.ID, k, a.Now, until); err != nil {
			return factor.Sent{}, err
		}
		b, err := json.Marshal(c)
		return factor.Sent{Expires: until, Public: b}, err
	}
	purpose, wanted := toSign, protocol.VerificationPreferred
	if verification {
		wanted = protocol.VerificationRequired
	}
	if a.Door == factor.AtStepUp {
		purpose = toProve
		// Somebody at an unlocked screen, with the key still in it, must not do: whose keys
		// all can tell who holds them proves that.
		if !slices.ContainsFunc(rows, func(r db.ListPasskeysOfUserRow) bool { return !r.Passkey.VerifiesUser }) {
			wanted = protocol.VerificationRequired
		}
	}
	made, session, err := p.Ask(who, wanted)
	if err != nil {
		return factor.Sent{}, err
	}
	if err := keep(ctx, tx, ticketOf(toSign, a.Ticket), a.User.ID, kept{Purpose: purpose, Session: session}, a.Now, until); err != nil {
		return factor.Sent{}, err
	}
	made.Timeout = int(askTime.Milliseconds())
	b, err := json.Marshal(made)
	return factor.Sent{Expires: until, Public: b}, err
}

// Judge judges what a passkey has answered to the challenge of Try.Ticket
// (AuthenticationResponseJSON or wire.KeyAnswer). The challenge is spent by it, whatever
// comes of it.
func (s *Service) Judge(ctx context.Context, tx *store.Tx, t factor.Try) (factor.Verdict, error) {
	door := purpose("")
	switch t.Door {
	case factor.AtMachine:
		door = toMachine
	case factor.AtPortal:
		door = toSign
	case factor.AtStepUp:
		door = toProve
	}
	k, ok, err := spend(ctx, tx, ticketOf(toSign, t.Ticket), t.User.ID, t.Now, door)
	if err != nil {
		return factor.Verdict{}, err
	}
	if !ok {
		return rejected(ReasonOver, text.PasskeyLate, ""), nil
	}
	p, err := s.site(ctx, tx.Queries)
	if err != nil {
		return factor.Verdict{}, err
	}
	who, rows, err := s.owner(ctx, tx, t.User, p.ID, t.Now)
	if err != nil {
		return factor.Verdict{}, err
	}
	if k.Purpose == toMachine {
		return s.judgeMachine(ctx, tx, t, k, p, rows)
	}
	parsed, v := parse(t.Typed)
	if parsed == nil {
		return v, nil
	}
	// Only what was offered and is still there: one that was taken away meanwhile is none.
	row, ok := find(rows, parsed.RawID)
	if !ok {
		return rejected(ReasonUnknown, text.PasskeyUnknown, ""), nil
	}
	k.Session.AllowedCredentialIDs = slices.DeleteFunc(k.Session.AllowedCredentialIDs, func(id []byte) bool {
		_, still := find(rows, id)
		return !still
	})
	use, err := p.Judge(who, k.Session, parsed)
	if err != nil {
		return refusedBy(err), nil
	}
	return s.accept(ctx, tx, t.User, row, use, t.Now)
}

// parse reads an answer of a browser, or gives the verdict about it.
func parse(answer secret.Bytes) (*protocol.ParsedCredentialAssertionData, factor.Verdict) {
	parsed, err := party.Parse(answer.Reveal())
	if err != nil {
		return nil, rejected(ReasonRefused, text.PasskeyRefused, why(err))
	}
	return parsed, factor.Verdict{}
}

func find(rows []db.ListPasskeysOfUserRow, id []byte) (db.ListPasskeysOfUserRow, bool) {
	i := slices.IndexFunc(rows, func(r db.ListPasskeysOfUserRow) bool { return string(r.Passkey.CredentialID) == string(id) })
	if i < 0 {
		return db.ListPasskeysOfUserRow{}, false
	}
	return rows[i], true
}

// refusedBy tells apart what a person can do something about.
func refusedBy(err error) factor.Verdict {
	if errors.Is(err, party.ErrNotVerified) {
		return rejected(ReasonNotVerified, text.PasskeyNotVerified, why(err))
	}
	return rejected(ReasonRefused, text.PasskeyRefused, why(err))
}

// accept moves the counter on, in the transaction of whoever asks.
func (s *Service) accept(ctx context.Context, tx *store.Tx, u db.User, row db.ListPasskeysOfUserRow, use party.Use, now time.Time) (factor.Verdict, error) {
	if use.Copied {
		return s.copied(ctx, tx, u, row, use.Count, now)
	}
	return s.used(ctx, tx, row, use.Count, use.Verified, use.Credential.Flags.BackupState, now)
}

func (s *Service) copied(ctx context.Context, tx *store.Tx, u db.User, row db.ListPasskeysOfUserRow, count uint32, now time.Time) (factor.Verdict, error) {
	if err := cloned(ctx, tx, u, row.Passkey, row.Authenticator.Name, "", count, now); err != nil {
		return factor.Verdict{}, err
	}
	v := rejected(ReasonCloned, text.PasskeyCloned, "")
	v.ID, v.Data = row.Authenticator.ID, map[string]any{"authenticator": row.Authenticator.ID, "count": count, "known": row.Passkey.SignCount}
	v.Outcome = factor.Ended
	return v, factor.Changed(ctx, tx, u.ID)
}

func (s *Service) used(ctx context.Context, tx *store.Tx, row db.ListPasskeysOfUserRow, count uint32, verified, backedUp bool, now time.Time) (factor.Verdict, error) {
	id := row.Authenticator.ID
	n, err := tx.UsePasskey(ctx, db.UsePasskeyParams{ID: id, SignCount: int64(count), BackedUp: backedUp, Was: row.Passkey.SignCount})
	if err != nil {
		return factor.Verdict{}, fmt.Errorf("use a passkey: %w", err)
	}
	if n == 1 {
		n, err = tx.UseAuthenticator(ctx, db.UseAuthenticatorParams{ID: id, At: clock.Micros(now)})
		if err != nil {
			return factor.Verdict{}, fmt.Errorf("use an authenticator: %w", err)
		}
	}
	if n == 0 {
		return rejected(ReasonUnknown, text.PasskeyUnknown, ""), nil
	}
	return factor.Verdict{
		Outcome: factor.Accepted, Own: true, ID: id,
		Data: map[string]any{"authenticator": id, "name": row.Authenticator.Name, "verified": verified, "count": count},
	}, nil
}

// judgeMachine judges what a key has signed at a machine.
func (s *Service) judgeMachine(ctx context.Context, tx *store.Tx, t factor.Try, k kept, p site, rows []db.ListPasskeysOfUserRow) (factor.Verdict, error) {
	if k.Machine != t.Machine {
		return rejected(ReasonOver, text.PasskeyLate, ""), nil
	}
	if t.Typed.Len() > party.MaxAnswer {
		return rejected(ReasonRefused, text.PasskeyRefused, "its length"), nil
	}
	var a wire.KeyAnswer
	if err := json.Unmarshal(t.Typed.Reveal(), &a); err != nil {
		return rejected(ReasonRefused, text.PasskeyRefused, "its form"), nil
	}
	row, ok := find(rows, a.Credential)
	if !ok {
		return rejected(ReasonUnknown, text.PasskeyUnknown, ""), nil
	}
	r, err := assertion.Verify(row.Passkey.PublicKey, a.AuthData, a.Signature, assertion.Want{
		RPID: p.ID, ClientHash: assertion.ClientHash(k.Nonce, t.Machine, t.User.ID), Verification: k.Verification, Count: uint32(row.Passkey.SignCount), //nolint:gosec // it was one
	})
	switch {
	case errors.Is(err, assertion.ErrCloned):
		return s.copied(ctx, tx, t.User, row, r.Count, t.Now)
	case errors.Is(err, assertion.ErrVerification):
		return rejected(ReasonNotVerified, text.PasskeyNotVerified, ""), nil
	case err != nil:
		return rejected(ReasonRefused, text.PasskeyRefused, err.Error()), nil
	}
	v, err := s.used(ctx, tx, row, r.Count, r.Verified, row.Passkey.BackedUp, t.Now)
	if v.OK() {
		v.Spent = &wire.Spent{Key: row.Authenticator.ID, Step: int64(r.Count)}
	}
	return v, err
}

// Discover makes options for whoever comes without a name, and keeps the challenge under
// the ticket.
func (s *Service) Discover(ctx context.Context, tx *store.Tx, ticket string, now, until time.Time) (json.RawMessage, error) {
	p, err := s.site(ctx, tx.Queries)
	if err != nil {
		return nil, err
	}
	made, session, err := p.Ask(nil, protocol.VerificationRequired)
	if err != nil {
		return nil, err
	}
	if err := keep(ctx, tx, ticketOf(toDiscover, ticket), "", kept{Purpose: toDiscover, Session: session}, now, until); err != nil {
		return nil, err
	}
	made.Timeout = int(until.Sub(now).Milliseconds())
	return json.Marshal(made)
}

// Found judges the answer to Discover: whose passkey it is, and whether it is right. The
// user is zero where the answer names none of this server's.
func (s *Service) Found(ctx context.Context, tx *store.Tx, ticket string, answer secret.Bytes, now time.Time) (db.User, factor.Verdict, error) {
	k, ok, err := spend(ctx, tx, ticketOf(toDiscover, ticket), "", now, toDiscover)
	if err != nil {
		return db.User{}, factor.Verdict{}, err
	}
	if !ok {
		return db.User{}, rejected(ReasonOver, text.PasskeyLate, ""), nil
	}
	p, err := s.site(ctx, tx.Queries)
	if err != nil {
		return db.User{}, factor.Verdict{}, err
	}
	parsed, v := parse(answer)
	if parsed == nil {
		return db.User{}, v, nil
	}
	if n := len(parsed.Response.UserHandle); n == 0 || n > 64 {
		return db.User{}, rejected(ReasonUnknown, text.PasskeyUnknown, "no user handle"), nil
	}
	h, err := tx.GetPasskeyUserByHandle(ctx, parsed.Response.UserHandle)
	if store.IsNotFound(err) {
		return db.User{}, rejected(ReasonUnknown, text.PasskeyUnknown, ""), nil
	}
	if err != nil {
		return db.User{}, factor.Verdict{}, fmt.Errorf("user handle: %w", err)
	}
	u, err := tx.GetUser(ctx, h.UserID)
	if err != nil {
		return db.User{}, factor.Verdict{}, fmt.Errorf("user: %w", err)
	}
	who, rows, err := s.owner(ctx, tx, u, p.ID, now)
	if err != nil {
		return db.User{}, factor.Verdict{}, err
	}
	row, ok := find(rows, parsed.RawID)
	if !ok {
		return u, rejected(ReasonUnknown, text.PasskeyUnknown, ""), nil
	}
	use, err := p.JudgeFound(who, k.Session, parsed)
	if err != nil {
		return u, refusedBy(err), nil
	}
	v, err = s.accept(ctx, tx, u, row, use, now)
	return u, v, err
}
