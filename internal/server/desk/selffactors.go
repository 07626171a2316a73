package desk

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/ending"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/push"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/text"
)

// ticketLife is how long scanning, typing and waiting for a code may take.
const ticketLife = 15 * time.Minute

// maxTicket bounds what is opened at all, in characters.
const maxTicket = 2048

// ownFactors is what a person sees of his factors: not the codes that the help desk
// has issued, which are words between administrators until somebody types them.
func (d *Desk) ownFactors(ctx context.Context, q *db.Queries, u db.User) ([]rest.Factor, error) {
	all, err := d.factors(ctx, q, u)
	return slices.DeleteFunc(all, func(f rest.Factor) bool { return f.Kind == kindBypass || f.Kind == kindEnrol }), err
}

// ListOwnFactors gives the actor's factors.
func (d *Desk) ListOwnFactors(ctx context.Context, a Actor) (rest.Page[rest.Factor], error) {
	out := rest.Page[rest.Factor]{Items: []rest.Factor{}}
	if err := a.look(); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		out.Items, err = d.ownFactors(ctx, q, u)
		return err
	})
	return out, err
}

// pending is an authenticator that waits for its first code. It lies sealed in the
// ticket that the person sends back, and nowhere else: who does not get to the end
// leaves nothing behind that a code would be accepted of.
type pending struct {
	ID         string     `json:"id"`
	Params     otp.Params `json:"params"`
	Seed       []byte     `json:"seed"`
	Generation int64      `json:"generation"` // of the user: any change of factors or password ends it
	Enrol      string     `json:"enrol,omitempty"`
	Expires    int64      `json:"expires"`
}

func ticketPlace(userID string) []string { return []string{"self", "totp", userID} }

// mayEnrol tells whether the actor may add an authenticator: with a fresh factor,
// or as his first one with an enrolment code, which is still good (E1).
func (d *Desk) mayEnrol(ctx context.Context, q *db.Queries, a Actor) (db.User, error) {
	if err := a.mine(); err != nil {
		return db.User{}, err
	}
	if a.Enrol == "" {
		if err := a.fresh(); err != nil {
			return db.User{}, err
		}
	} else if a.Session == "" {
		return db.User{}, fault.New(fault.Forbidden, nil)
	}
	u, err := a.me(ctx, q)
	if err != nil {
		return u, err
	}
	if err := a.reach(u); err != nil {
		return u, err
	}
	have, err := q.ListAuthenticators(ctx, u.ID)
	if err != nil {
		return u, err
	}
	if len(have) >= maxAuthenticators {
		return u, fault.Newf(fault.Conflict, "You have %d authenticators already, and can have no more. Remove one that you do not use.", len(have))
	}
	if a.Enrol == "" {
		return u, nil
	}
	if slices.ContainsFunc(have, func(x db.Authenticator) bool { return x.ConfirmedAt > 0 && !x.Lost && whole(x.Kind) }) {
		return u, fault.Newf(fault.Conflict, "You have a second factor by now. Sign in again, with it.")
	}
	codes, err := q.ListValidEnrolCodes(ctx, db.ListValidEnrolCodesParams{UserID: u.ID, At: d.now()})
	if err != nil {
		return u, err
	}
	if !slices.ContainsFunc(codes, func(c db.EnrolCode) bool { return c.ID == a.Enrol }) {
		return u, errEnrolSpent()
	}
	return u, nil
}

// reach keeps a backup code from opening the console by way of an authenticator that
// it has added: a session that does not open it for somebody whose role does adds
// none. The help desk's enrolment code does, which somebody else has answered for.
func (a Actor) reach(u db.User) error {
	if a.Enrol != "" || u.Role == rest.RoleNone || a.Role != rest.RoleNone {
		return nil
	}
	return fault.Newf(fault.Forbidden, "You have signed in with a backup code, and your role opens the console, which a backup code must not. Ask the help desk for an enrolment code, and to mark the lost authenticator as lost if it is your only one, and sign in again.")
}

// keep keeps whoever reads the paper, mail or SIM of somebody with a role from taking all
// the factors away that open the console: such a session (see reach) marks one as lost,
// while another is left. What else goes takes one of those, or the help desk.
func (a Actor) keep(u db.User, f rest.Factor, have []rest.Factor, lose bool) error {
	if a.reach(u) == nil || !whole(f.Kind) {
		return nil
	}
	others := slices.DeleteFunc(slices.Clone(have), func(o rest.Factor) bool { return !whole(o.Kind) || o.ID == f.ID || o.On == f.ID })
	left := slices.ContainsFunc(others, func(o rest.Factor) bool { return o.State == factorUsable })
	gone := slices.ContainsFunc(others, func(o rest.Factor) bool { return o.State == factorLost })
	if lose && (f.State == factorLost || left && !gone) {
		return nil
	}
	return fault.Newf(fault.Forbidden, "Your role opens the console, and you have not signed in with a factor that does. Without one you can mark one authenticator as lost while another is left, and nothing more. Sign in with the other one, or ask the help desk.")
}

func errEnrolSpent() error {
	return fault.Newf(fault.Conflict, "The enrolment code has been used, or has expired. Ask for a new one and sign in again with it.")
}

// BeginOwnTOTP makes what an authenticator app scans. The authenticator exists from
// ConfirmOwnTOTP on.
func (d *Desk) BeginOwnTOTP(ctx context.Context, a Actor, in rest.BeginTOTP) (rest.PendingTOTP, error) {
	var out rest.PendingTOTP
	var u db.User
	err := d.Store.Read(ctx, func(q *store.Queries) (err error) {
		u, err = d.mayEnrol(ctx, q, a)
		return err
	})
	if err != nil {
		return out, err
	}
	p, err := params(in.Algorithm, in.Digits, in.Period)
	if err != nil {
		return out, err
	}
	seed, err := d.Factors.NewSeed(p)
	if err != nil {
		return out, err
	}
	defer seed.Wipe()
	return d.offer(u, pending{
		ID: store.NewID(), Params: p, Seed: seed.Reveal(), Generation: u.PasswordGeneration, Enrol: a.Enrol,
		Expires: clock.Micros(d.Clock.Now().Add(ticketLife)),
	})
}

// params judges the settings of an authenticator; what is empty is what every app
// understands.
func params(algorithm string, digits, period int) (otp.Params, error) {
	p := otp.DefaultParams
	if algorithm != "" {
		p.Algorithm = otp.Algorithm(algorithm)
	}
	if digits != 0 {
		p.Digits = digits
	}
	if period != 0 {
		p.Period = period
	}
	var v faults
	v.word("algorithm", string(p.Algorithm), []string{string(otp.SHA1), string(otp.SHA256), string(otp.SHA512)})
	if p.Digits != 6 && p.Digits != 8 {
		v.add("digits", "%d is not allowed; allowed are 6 and 8", p.Digits)
	}
	if p.Period != 30 && p.Period != 60 {
		v.add("period", "%d is not allowed; allowed are 30 and 60 seconds", p.Period)
	}
	return p, v.err()
}

// offer is a pending authenticator as it is shown, with its ticket.
func (d *Desk) offer(u db.User, p pending) (rest.PendingTOTP, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return rest.PendingTOTP{}, err
	}
	plain := secret.New(b)
	defer plain.Wipe()
	seed := secret.New(slices.Clone(p.Seed))
	defer seed.Wipe()
	shown, err := d.Factors.Show(p.Params, u.Name, seed)
	if err != nil {
		return rest.PendingTOTP{}, err
	}
	return rest.PendingTOTP{
		Ticket: rest.HideText(base64.RawURLEncoding.EncodeToString(d.Keys.Box.Seal(plain.Reveal(), ticketPlace(u.ID)...))),
		URI:    rest.HideText(shown.URI), Key: rest.HideText(shown.Key), QR: rest.HideText(shown.QR),
		Algorithm: string(p.Params.Algorithm), Digits: p.Params.Digits, Period: p.Params.Period, ExpiresAt: rest.Time(p.Expires),
	}, nil
}

// ShowOwnTOTP shows a pending authenticator once more, for a page that comes back
// with a mistake.
func (d *Desk) ShowOwnTOTP(ctx context.Context, a Actor, ticket rest.Secret) (rest.PendingTOTP, error) {
	var out rest.PendingTOTP
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		if err := a.mine(); err != nil {
			return err
		}
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		p, err := d.ticket(a, u, ticket)
		if err != nil {
			return err
		}
		out, err = d.offer(u, p)
		return err
	})
	return out, err
}

// ticket opens what offer has sealed for this user.
func (d *Desk) ticket(a Actor, u db.User, ticket rest.Secret) (pending, error) {
	var p pending
	over := fault.Newf(fault.Expired, "Setting up took too long, or something about your account has changed meanwhile. Begin again: the code on the screen is a new one then.")
	if ticket.Len() == 0 || ticket.Len() > maxTicket {
		return p, over
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(ticket.Show())
	if err != nil {
		return p, over.Because(err)
	}
	plain, err := d.Keys.Box.Open(sealed, ticketPlace(u.ID)...)
	if err != nil {
		return p, over.Because(err)
	}
	defer plain.Wipe()
	if err := json.Unmarshal(plain.Reveal(), &p); err != nil {
		return p, over.Because(err)
	}
	if err := p.Params.Validate(); err != nil {
		return p, over.Because(err)
	}
	if d.now() >= p.Expires || p.Generation != u.PasswordGeneration || p.Enrol != a.Enrol {
		return p, over
	}
	return p, nil
}

// ConfirmOwnTOTP makes the authenticator, if its first code is right. That code is
// spent, and so is the enrolment code that opened the session, in the same
// transaction. A wrong code is a slip and no guess: the seed is on the screen.
func (d *Desk) ConfirmOwnTOTP(ctx context.Context, a Actor, in rest.ConfirmTOTP) (rest.Factor, error) {
	var out rest.Factor
	if err := a.mine(); err != nil {
		return out, err
	}
	if a.Session == "" {
		return out, a.act()
	}
	if a.Enrol == "" {
		// The ticket is the proof of a fresh factor: it was only given to one, for a
		// quarter of an hour.
		if err := a.act(); err != nil {
			return out, err
		}
	}
	var v faults
	v.line("name", in.Name, text.MaxName)
	if in.Code.Empty() {
		v.add("code", "it is missing; type the code that the app shows now")
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
		p, err := d.ticket(a, u, in.Ticket)
		if err != nil {
			return err
		}
		have, err := tx.ListAuthenticators(ctx, u.ID)
		if err != nil {
			return err
		}
		if len(have) >= maxAuthenticators {
			return fault.Newf(fault.Conflict, "You have %d authenticators already, and can have no more. Remove one that you do not use.", len(have))
		}
		seed := secret.New(p.Seed)
		defer seed.Wipe()
		typed, _ := factor.Typed(in.Code.Bytes)
		code, _ := p.Params.CleanCode(typed)
		now := d.Clock.Now()
		step, ok := p.Params.Verify(seed, code, now, 0, 0)
		if !ok {
			return fault.New(fault.Invalid, nil).With("code", "it is not the code that belongs to this QR code now; wait for the next one in the app, and see that the phone sets its time by itself")
		}
		if a.Enrol != "" {
			if err := d.spendEnrol(ctx, tx, a, u, a.Enrol, p.ID); err != nil {
				return err
			}
		}
		id, err := d.Factors.AddTOTP(ctx, tx, u.ID, factor.TOTP{ID: p.ID, Name: in.Name, Params: p.Params, Seed: seed, FirstStep: step}, now)
		if store.IsDuplicate(err) {
			return fault.Newf(fault.Conflict, "This authenticator is set up already.")
		} else if err != nil {
			return err
		}
		if err := d.newFactors(ctx, tx, a, u.ID); err != nil {
			return err
		}
		if err := note(tx, a, event.Event{Type: event.FactorAdded, Subject: u.Name, UserID: u.ID, Factor: kindTOTP}, map[string]any{
			"authenticator": rest.FactorPrefix + id, "name": in.Name, "algorithm": p.Params.Algorithm, "digits": p.Params.Digits, "period": p.Params.Period,
			"confirmed": true, "self": true,
		}); err != nil {
			return err
		}
		out, _, err = d.ownFactor(ctx, tx.Queries, u, rest.FactorPrefix+id)
		return err
	})
	return out, err
}

// ownFactor finds one of the actor's factors, and what else he has. One of somebody
// else, and a code of the help desk, are missing.
func (d *Desk) ownFactor(ctx context.Context, q *db.Queries, u db.User, ref string) (rest.Factor, []rest.Factor, error) {
	have, err := d.ownFactors(ctx, q, u)
	if err != nil {
		return rest.Factor{}, nil, err
	}
	i := slices.IndexFunc(have, func(f rest.Factor) bool { return f.ID == ref })
	if i < 0 {
		return rest.Factor{}, nil, fault.Newf(fault.NotFound, "You have no factor %q.", text.CleanN(ref, 64))
	}
	return have[i], have, nil
}

// ShowOwnFactor gives one of the actor's factors.
func (d *Desk) ShowOwnFactor(ctx context.Context, a Actor, ref string) (rest.Factor, error) {
	var out rest.Factor
	if err := a.look(); err != nil {
		return out, err
	}
	err := d.Store.Read(ctx, func(q *store.Queries) error {
		u, err := a.me(ctx, q)
		if err != nil {
			return err
		}
		out, _, err = d.ownFactor(ctx, q, u, ref)
		return err
	})
	return out, err
}

// RenameOwnFactor gives one of the actor's authenticators another name.
func (d *Desk) RenameOwnFactor(ctx context.Context, a Actor, ref string, in rest.FactorChange) (rest.Factor, error) {
	var out rest.Factor
	if err := a.act(); err != nil {
		return out, err
	}
	var v faults
	if in.Name == "" {
		v.add("name", "it is missing; say which app or phone it is, such as \"work phone\"")
	}
	v.line("name", in.Name, text.MaxName)
	if err := v.err(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		f, _, err := d.ownFactor(ctx, tx.Queries, u, ref)
		if err != nil {
			return err
		}
		if f.Kind == kindBackup {
			return fault.Newf(fault.Conflict, "Backup codes have no name: there is one set of them.")
		}
		was := f.Name
		if out = f; was == in.Name {
			return nil
		}
		out.Name = in.Name
		id, _ := cut(rest.FactorPrefix, f.ID)
		return renameFactor(ctx, tx, a, u.ID, id, in.Name)
	})
	return out, err
}

// RenamePhone gives a phone another name, as it wishes itself.
func (d *Desk) RenamePhone(ctx context.Context, p push.Device, in push.Rename) error {
	var v faults
	if in.Name == "" {
		v.add("name", "it is missing; say which phone it is, such as \"work phone\"")
	}
	v.line("name", in.Name, text.MaxName)
	if err := v.err(); err != nil {
		return err
	}
	return d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		return renameFactor(ctx, tx, Actor{Name: p.User, UserID: p.UserID, Address: p.Address}, p.UserID, p.ID, in.Name)
	})
}

// renameFactor gives an authenticator of the actor's another name, and with a phone what
// lies on it.
func renameFactor(ctx context.Context, tx *store.Tx, a Actor, userID, id, name string) error {
	have, err := tx.ListAuthenticators(ctx, userID)
	if err != nil {
		return err
	}
	for _, f := range have {
		if f.ID != id && f.Parent.String != id || f.Name == name {
			continue
		}
		if _, err := tx.RenameAuthenticator(ctx, db.RenameAuthenticatorParams{Name: name, ID: f.ID}); err != nil {
			return err
		}
		if f.ID != id {
			continue
		}
		if err := note(tx, a, event.Event{Type: event.FactorRenamed, Subject: a.Name, UserID: userID, Factor: f.Kind}, map[string]any{
			"authenticator": rest.FactorPrefix + id, "name": name, "was": f.Name, "self": true,
		}); err != nil {
			return err
		}
	}
	return nil
}

// last tells whether f is the only factor with which the person can sign in
// everywhere: backup codes run out, and open no console.
func last(f rest.Factor, have []rest.Factor) bool {
	if f.Kind == kindBackup || f.State != factorUsable {
		return false
	}
	return !slices.ContainsFunc(have, func(o rest.Factor) bool {
		return o.ID != f.ID && o.On != f.ID && o.Kind != kindBackup && o.State == factorUsable // what lies on a phone goes with it
	})
}

// RemoveOwnFactor removes one of the actor's factors. The last authenticator stays:
// without one nobody gets in any more, and nothing proves who enrols the next.
func (d *Desk) RemoveOwnFactor(ctx context.Context, a Actor, ref string) (rest.Done, error) {
	var out rest.Done
	if err := a.fresh(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		f, have, err := d.ownFactor(ctx, tx.Queries, u, ref)
		if err != nil {
			return err
		}
		if err := a.keep(u, f, have, false); err != nil {
			return err
		}
		if last(f, have) {
			return fault.Newf(fault.Conflict, "This is your only authenticator: without it you could not sign in any more. Add the new one first, then remove this one. If it is lost or stolen, mark it as lost instead.")
		}
		if f.Kind == kindBackup {
			_, err = tx.DeleteBackupCodes(ctx, u.ID)
		} else {
			id, _ := cut(rest.FactorPrefix, f.ID)
			_, err = tx.DeleteAuthenticator(ctx, id)
		}
		if err != nil {
			return err
		}
		out = rest.Done{Count: 1}
		if err := note(tx, a, event.Event{Type: event.FactorRemoved, Subject: u.Name, UserID: u.ID, Factor: f.Kind}, map[string]any{
			"authenticator": f.ID, "name": f.Name, "was": f.State, "self": true,
		}); err != nil {
			return err
		}
		return d.lessFactors(ctx, tx, a, u.ID)
	})
	return out, err
}

// lessFactors ends what the removed factor may have opened.
func (d *Desk) lessFactors(ctx context.Context, tx *store.Tx, a Actor, userID string) error {
	if err := factor.Changed(ctx, tx, userID); err != nil {
		return err
	}
	tx.Wake(push.UserKey(userID)) // as newFactors does
	_, err := ending.All(ctx, tx, d.cause(a, reasonFactors), userID, a.Session)
	return err
}

// LoseOwnFactor marks one of the actor's authenticators as lost: no code of it is
// accepted any more. With a backup code as the fresh factor that is the way from a
// lost phone to a new one, without the help desk; for whoever has a role see keep.
func (d *Desk) LoseOwnFactor(ctx context.Context, a Actor, ref string) (rest.Factor, error) {
	var out rest.Factor
	if err := a.fresh(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		var have []rest.Factor
		if out, have, err = d.ownFactor(ctx, tx.Queries, u, ref); err != nil {
			return err
		}
		if err := a.keep(u, out, have, true); err != nil {
			return err
		}
		if out.Kind == kindBackup {
			return fault.Newf(fault.Conflict, "Make new backup codes instead: the old ones stop working then.")
		}
		id, _ := cut(rest.FactorPrefix, out.ID)
		n, err := tx.SetAuthenticatorLost(ctx, id)
		if err != nil {
			return err
		}
		if out.State = factorLost; n == 0 {
			return nil
		}
		if err := note(tx, a, event.Event{Type: event.FactorLost, Subject: u.Name, UserID: u.ID, Factor: out.Kind}, map[string]any{
			"authenticator": out.ID, "name": out.Name, "self": true,
		}); err != nil {
			return err
		}
		return d.lessFactors(ctx, tx, a, u.ID)
	})
	return out, err
}

// MakeOwnBackup gives the actor ten new backup codes, shown once; the old ones no
// longer work (M5).
func (d *Desk) MakeOwnBackup(ctx context.Context, a Actor) (rest.BackupCodes, error) {
	var out rest.BackupCodes
	if err := a.fresh(); err != nil {
		return out, err
	}
	err := d.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := a.me(ctx, tx.Queries)
		if err != nil {
			return err
		}
		// Codes of the policy's sign-ins at machines: not from a mail that somebody reads.
		if err := a.reach(u); err != nil {
			return err
		}
		old, err := tx.ListUnusedBackupCodes(ctx, u.ID)
		if err != nil {
			return err
		}
		codes, err := d.Factors.IssueBackup(ctx, tx, u.ID, d.Clock.Now())
		if err != nil {
			return err
		}
		if err := d.newFactors(ctx, tx, a, u.ID); err != nil {
			return err
		}
		rows, err := tx.ListBackupCodes(ctx, u.ID)
		if err != nil {
			return err
		}
		out = rest.BackupCodes{User: u.Name, Codes: make([]rest.Secret, len(codes))}
		for i, c := range codes {
			out.Codes[i] = rest.HideText(c)
		}
		if len(rows) > 0 {
			out.ID = rest.FactorPrefix + rows[0].SetID
		}
		return note(tx, a, event.Event{Type: event.FactorAdded, Subject: u.Name, UserID: u.ID, Factor: kindBackup}, map[string]any{
			"set": out.ID, "codes": len(codes), "replaced": len(old), "self": true,
		})
	})
	return out, err
}
