package session

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"latchkey/internal/clock"
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
	"latchkey/internal/server/touch"
	"latchkey/internal/text"
)

// Attempt is a name and a password, typed at a browser or a program.
type Attempt struct {
	Name     string
	Password secret.Bytes
	Kind     string // Browser or CLI
	Address  string // of the peer
	Agent    string // what the browser calls itself
	Known    string // the value of the cookie KnownCookie; may be empty
}

// Next is what a sign-in asks for.
type Next string

// What may be asked for next.
const (
	AskCode        Next = "code"         // a code of one of Pending.Kinds
	AskEnrolCode   Next = "enrol"        // the user has no factor: an enrolment code (E1)
	AskNewPassword Next = "new-password" // the password is due (S9)
)

// Pending is a sign-in that goes on. Its secret is in the browser's cookie.
type Pending struct {
	Next   Next
	Kinds  []string // TOTP, Backup: what the user may give
	Enrol  bool     // Next is AskEnrolCode
	Why    string   // with AskNewPassword: MustChange or Expired
	UserID string   // without prefix
	Name   string
}

// Why a password is due.
const (
	MustChange = "must-change"
	Expired    = "expired"
)

// Opened is what a step of a sign-in came to: a session with its secret, or what is
// asked for next with the secret of the sign-in.
type Opened struct {
	Session *Session
	Pending *Pending
	Secret  Secret
	Known   Secret // for the cookie KnownCookie of a browser; empty: leave it as it is
	Tell    string // to the person; may be empty
}

// The bounds of what is typed.
const (
	maxName     = 256
	maxCode     = 128
	maxWrong    = 3  // codes of one sign-in
	maxSignins  = 10 // under way of one account
	service     = "console"
	denyOutcome = "deny"
)

// The fields of the forms, as faults name them.
const (
	FieldCode     = "code"
	FieldPassword = "password"
	FieldAgain    = "again"
	FieldName     = "name"
)

// The reasons of session.denied beside those of sign-ins at machines.
const (
	reasonFirst   = "first-factor-rejected"
	reasonUnknown = "user-unknown"
	reasonBackOff = "back-off"
	reasonTooMany = "too-many-wrong"
	reasonChanged = "changed-meanwhile"
)

// state is what a sign-in has come to. It lies sealed in the table and holds neither
// password nor code.
type state struct {
	Kind       string   `json:"kind"`
	Agent      string   `json:"agent"`
	Place      string   `json:"place"`
	PasswordAt int64    `json:"password_at"`
	Kinds      []string `json:"kinds,omitempty"`
	Change     string   `json:"change,omitempty"`
	Given      string   `json:"given,omitempty"` // the factor, with the stage new-password
}

// refused is the one answer to every failure before an accepted password.
func refused() error { return fault.Newf(fault.Unauthorized, text.DeniedFirst) }

func busy() error { return fault.Newf(fault.TooMany, text.DeniedBusy).Because(directory.ErrBusy) }

// over is the answer to what can not go on.
func tooLate() error { return fault.New(fault.Expired, nil) }

func wrongField(field, sentence string) error {
	return fault.New(fault.Invalid, nil).With(field, "%s", sentence)
}

// Begin judges a name and a password. Every failure is the same fault, Unauthorized,
// after the same time; TooMany says that nothing was judged.
func (m *Sessions) Begin(ctx context.Context, a Attempt) (Opened, error) {
	begun := clock.Real.Now()
	o, err := m.begin(ctx, a)
	if fault.Is(err, fault.Unauthorized) && m.Grain > 0 {
		// What is found out about a name differs by some queries and a write. Real time:
		// it hides what was real work.
		past := max(0, clock.Real.Now().Sub(begun))
		_ = clock.Real.Sleep(ctx, m.Grain-past%m.Grain)
	}
	return o, err
}

func (m *Sessions) begin(ctx context.Context, a Attempt) (Opened, error) {
	if a.Kind != Browser && a.Kind != CLI {
		return Opened{}, fault.New(fault.Internal, fmt.Errorf("a sign-in of the kind %q", a.Kind))
	}
	if err := m.limits.take(a.Address); err != nil {
		return Opened{}, err
	}
	browser, err := m.browserOf(ctx, a)
	if err != nil {
		return Opened{}, err
	}
	if err := m.limits.takeName(a.Name, browser); err != nil {
		return Opened{}, err
	}
	dir := m.Directories.Of(nil)
	if dir.Busy() {
		return Opened{}, busy()
	}
	var (
		u       *db.User
		counted *attempts.Counted
		block   attempts.Block
		place   = attempts.Door
	)
	err = m.update(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		u, counted, block, place = nil, nil, attempts.Block{}, attempts.Door
		if len(a.Name) <= maxName {
			if u, _, err = facts.Resolve(ctx, tx.Queries, facts.Name{User: a.Name}); err != nil {
				return err
			}
		}
		if u == nil || !m.Directories.Of(u).Has(*u) {
			return nil
		}
		if id, ok := m.knows(a.Known, u.ID); ok {
			place = attempts.Browser(id)
		}
		p, err := policyOf(ctx, tx.Queries, *u, m.Clock.Now())
		if err != nil {
			return err
		}
		counted, block, err = attempts.Count(ctx, tx, u.ID, place, p, m.Clock.Now())
		return err
	})
	if err != nil {
		return Opened{}, err
	}
	judged := u
	if u != nil && (!dir.Has(*u) || block.On()) {
		judged = nil
	}
	// The queue is short, and whoever is told that there is one can try again.
	waiting, cancel := context.WithTimeout(ctx, signinPatience)
	defer cancel()
	verdict := dir.Verify(waiting, judged, a.Password)

	var out Opened
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out, denied = Opened{}, nil
		now := m.Clock.Now()
		if verdict == directory.Unavailable {
			denied = busy()
			return counted.TakeBack(ctx, tx)
		}
		if u != nil {
			// Somebody may have changed the account while the password was judged.
			row, err := tx.GetUser(ctx, u.ID)
			switch {
			case store.IsNotFound(err):
				u = nil
			case err != nil:
				return err
			default:
				if row.PasswordHash != u.PasswordHash || row.Disabled || facts.NotYet(row, now) {
					verdict = directory.Rejected
				}
				u = &row
			}
		}
		if u == nil || judged == nil || !verdict.Proved() {
			denied = refused()
			return m.deniedFirst(ctx, tx, a, u, counted, block, now)
		}
		if err := counted.TakeBack(ctx, tx); err != nil {
			return err
		}
		st := state{Kind: a.Kind, Agent: text.CleanN(a.Agent, 256), Place: place, PasswordAt: u.PasswordChangedAt}
		switch verdict {
		case directory.MustChange:
			st.Change = MustChange
		case directory.Expired:
			st.Change = Expired
		}
		f, err := facts.User(ctx, tx.Queries, *u, facts.At{Now: now})
		if err != nil {
			return err
		}
		next := AskCode
		for _, k := range []policy.Factor{policy.TOTP, policy.Backup} {
			if slices.Contains(f.Factors, k) {
				st.Kinds = append(st.Kinds, string(k))
			}
		}
		if len(st.Kinds) == 0 {
			next = AskEnrolCode
		}
		n, err := tx.CountSigninsOfUser(ctx, db.CountSigninsOfUserParams{UserID: u.ID, At: clock.Micros(now)})
		if err != nil {
			return err
		}
		if n >= maxSignins {
			// Who knows the password may begin as often as he likes; what he has begun before
			// is over then.
			if _, err := tx.DeleteSigninsOfUser(ctx, u.ID); err != nil {
				return err
			}
		}
		out.Pending = pendingOf(next, st, *u)
		out.Secret, err = m.keepSignin(ctx, tx, u.ID, string(next), st, now, SigninTime)
		return err
	})
	if err == nil {
		err = denied
	}
	if err != nil {
		return Opened{}, err
	}
	return out, nil
}

// browserOf is the id of the browser, where its cookie proves that the account of the
// name has signed in with it; empty else. Without a cookie nothing is looked up.
func (m *Sessions) browserOf(ctx context.Context, a Attempt) (id string, err error) {
	if a.Known == "" || len(a.Name) > maxName {
		return "", nil
	}
	err = m.Store.Read(ctx, func(q *store.Queries) error {
		u, _, err := facts.Resolve(ctx, q, facts.Name{User: a.Name})
		if err == nil && u != nil {
			id, _ = m.knows(a.Known, u.ID)
		}
		return err
	})
	return id, err
}

// signinPatience is how long a password waits for its turn.
const signinPatience = 5 * time.Second

// deniedFirst writes down a refusal before an accepted password.
func (m *Sessions) deniedFirst(ctx context.Context, tx *store.Tx, a Attempt, u *db.User, counted *attempts.Counted, block attempts.Block, now time.Time) error {
	name := text.CleanN(a.Name, maxName)
	e := event.Event{Type: event.SessionDenied, Actor: name, Subject: name, Address: a.Address, Service: service, Outcome: denyOutcome, Reason: reasonUnknown}
	if u != nil {
		e.UserID = u.ID
		switch {
		case block.Locked:
			e.Reason = string(policy.ReasonLocked)
		case block.On():
			e.Reason = reasonBackOff
		case u.Disabled:
			e.Reason = string(policy.ReasonDisabled)
		case facts.NotYet(*u, now):
			e.Reason = string(policy.ReasonNotYet)
		default:
			e.Reason = reasonFirst
		}
	}
	if err := m.note(tx, e, map[string]any{"kind": a.Kind, "agent": text.CleanN(a.Agent, 256)}); err != nil {
		return err
	}
	return m.lockedNow(tx, u, a.Address, counted)
}

// lockedNow notes, once, that this failure has locked the place.
func (m *Sessions) lockedNow(tx *store.Tx, u *db.User, address string, counted *attempts.Counted) error {
	until := counted.LockedOut()
	if until.IsZero() || u == nil {
		return nil
	}
	return m.note(tx, event.Event{Type: event.LockoutBegan, Actor: "server", Subject: u.Name, UserID: u.ID, Address: address, Service: service},
		map[string]any{"until": until.UTC().Format(time.RFC3339), "failures": counted.Failures})
}

// policyOf is the policy whose limits hold for the user.
func policyOf(ctx context.Context, q *db.Queries, u db.User, now time.Time) (policy.Policy, error) {
	ps, err := facts.Policies(ctx, q)
	if err != nil {
		return policy.Policy{}, err
	}
	f, err := facts.User(ctx, q, u, facts.At{Now: now})
	if err != nil {
		return policy.Policy{}, err
	}
	if p, _ := policy.Choose(&f, ps); p != nil {
		return *p, nil
	}
	return policy.NewPolicy(), nil
}

func pendingOf(next Next, st state, u db.User) *Pending {
	return &Pending{Next: next, Kinds: st.Kinds, Enrol: next == AskEnrolCode, Why: st.Change, UserID: u.ID, Name: u.Name}
}

// keepSignin stores a sign-in that goes on, under a new secret.
func (m *Sessions) keepSignin(ctx context.Context, tx *store.Tx, userID, stage string, st any, now time.Time, life time.Duration) (Secret, error) {
	b, err := json.Marshal(st)
	if err != nil {
		return Secret{}, err
	}
	s, hash, err := newSecret(m.Random, signinPrefix)
	if err != nil {
		return Secret{}, err
	}
	id := store.NewID()
	err = tx.InsertSignin(ctx, db.InsertSigninParams{
		ID: id, SecretHash: hash, UserID: userID, Stage: stage, Data: m.Keys.Box.Seal(b, "signins", "data", id),
		CreatedAt: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(life)),
	})
	clear(b)
	if err != nil {
		return Secret{}, fmt.Errorf("keep a sign-in: %w", err)
	}
	return s, nil
}

// signin finds the sign-in of the secret, unless its time is over.
func (m *Sessions) signin(ctx context.Context, q *db.Queries, raw string, now time.Time) (db.Signin, error) {
	hash, ok := parseSecret(signinPrefix, raw)
	if !ok {
		return db.Signin{}, tooLate()
	}
	row, err := q.GetSigninBySecret(ctx, hash)
	switch {
	case store.IsNotFound(err):
		return row, tooLate()
	case err != nil:
		return row, err
	case clock.Micros(now) >= row.ExpiresAt:
		return row, tooLate()
	}
	return row, nil
}

func (m *Sessions) opened(row db.Signin, st any) error {
	b, err := m.Keys.Box.Open(row.Data, "signins", "data", row.ID)
	if err != nil {
		return fmt.Errorf("sign-in under way: %w", err)
	}
	defer b.Wipe()
	if err := json.Unmarshal(b.Reveal(), st); err != nil {
		return fmt.Errorf("sign-in under way: %w", err)
	}
	return nil
}

// resume is a sign-in with its user, who must still be what he was.
func (m *Sessions) resume(ctx context.Context, q *db.Queries, raw string, now time.Time) (row db.Signin, st state, u db.User, err error) {
	if row, err = m.signin(ctx, q, raw, now); err != nil {
		return row, st, u, err
	}
	if row.UserID == "" {
		return row, st, u, tooLate() // a setup
	}
	if err = m.opened(row, &st); err != nil {
		return row, st, u, err
	}
	u, err = q.GetUser(ctx, row.UserID)
	switch {
	case store.IsNotFound(err):
		return row, st, u, tooLate()
	case err != nil:
		return row, st, u, err
	case u.Disabled || facts.NotYet(u, now) || u.PasswordChangedAt != st.PasswordAt:
		return row, st, u, tooLate()
	}
	return row, st, u, nil
}

// Pending is the sign-in whose secret the browser holds; nil without an error if there
// is none, or its time is over.
func (m *Sessions) Pending(ctx context.Context, raw string) (*Pending, error) {
	if raw == "" {
		return nil, nil
	}
	var p *Pending
	err := m.Store.Read(ctx, func(q *store.Queries) error {
		row, st, u, err := m.resume(ctx, q, raw, m.Clock.Now())
		if err != nil {
			return err
		}
		p = pendingOf(Next(row.Stage), st, u)
		return nil
	})
	if fault.Is(err, fault.Expired) {
		return nil, nil
	}
	return p, err
}

// GiveUp ends a sign-in that goes on.
func (m *Sessions) GiveUp(ctx context.Context, raw string) error {
	return m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		row, err := m.signin(ctx, tx.Queries, raw, m.Clock.Now())
		if err != nil {
			return nil //nolint:nilerr // there is nothing to give up
		}
		_, err = tx.DeleteSignin(ctx, row.ID)
		return err
	})
}

// Answer judges a code: kind is TOTP, Backup or Enrol. The fault is Expired when the
// sign-in is over, TooMany when somebody must wait, and Invalid with the field "code"
// when the code was wrong and another may be tried.
func (m *Sessions) Answer(ctx context.Context, raw, kind string, code secret.Bytes, address string) (Opened, error) {
	if err := m.limits.take(address); err != nil {
		return Opened{}, err
	}
	if s, ok := factor.Typed(code); !ok || s == "" || code.Len() > maxCode {
		return Opened{}, wrongField(FieldCode, text.NothingTyped)
	}
	// First the attempt is on the disk.
	var counted *attempts.Counted
	var block attempts.Block
	var claimed int64
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if !asks(row.Stage, st, kind) {
			return fault.New(fault.BadRequest, nil)
		}
		p, err := policyOf(ctx, tx.Queries, u, now)
		if err != nil {
			return err
		}
		if counted, block, err = attempts.Count(ctx, tx, u.ID, st.Place, p, now); err != nil || block.On() {
			return err
		}
		// Of two answers at once one is judged.
		claimed = row.Rev + 1
		n, err := tx.AdvanceSignin(ctx, db.AdvanceSigninParams{ID: row.ID, Rev: row.Rev, Stage: row.Stage, Data: row.Data, Wrong: row.Wrong + 1})
		if err == nil && n == 0 {
			err = fault.New(fault.Conflict, nil)
		}
		return err
	})
	switch {
	case err != nil:
		return Opened{}, err
	case block.On():
		return Opened{}, wait(block, m.Clock.Now())
	}
	var out Opened
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out, denied = Opened{}, nil
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if row.Rev != claimed || !asks(row.Stage, st, kind) {
			return fault.New(fault.Conflict, nil)
		}
		v, enrolCode, err := m.judge(ctx, tx, kind, u, code, now)
		if err != nil {
			return err
		}
		if !v.OK {
			denied, err = m.rejected(ctx, tx, row, st, u, kind, v, counted, address, now)
			return err
		}
		if err := counted.TakeBack(ctx, tx); err != nil {
			return err
		}
		if err := m.noteFactor(tx, event.FactorAccepted, u, kind, "", address, v); err != nil {
			return err
		}
		out.Tell = v.Tell
		if kind == Backup {
			if err := m.noteFactor(tx, event.CodeSpent, u, kind, "", address, v); err != nil {
				return err
			}
		}
		if st.Change != "" && kind != Enrol {
			st.Given = kind
			b, err := json.Marshal(st)
			if err != nil {
				return err
			}
			n, err := tx.AdvanceSignin(ctx, db.AdvanceSigninParams{
				ID: row.ID, Rev: row.Rev, Stage: string(AskNewPassword), Data: m.Keys.Box.Seal(b, "signins", "data", row.ID), Wrong: 0,
			})
			if err == nil && n == 0 {
				err = fault.New(fault.Conflict, nil)
			}
			out.Pending = pendingOf(AskNewPassword, st, u)
			out.Secret = secret.FromString(raw)
			return err
		}
		return m.finish(ctx, tx, row, st, u, kind, enrolCode, address, now, &out)
	})
	if err == nil {
		err = denied
	}
	if err != nil {
		return Opened{}, err
	}
	return out, nil
}

// asks tells whether the stage takes a code of the kind.
func asks(stage string, st state, kind string) bool {
	switch Next(stage) {
	case AskCode:
		return (kind == TOTP || kind == Backup) && slices.Contains(st.Kinds, kind)
	case AskEnrolCode:
		return kind == Enrol
	}
	return false
}

func wait(b attempts.Block, now time.Time) error {
	if b.Locked {
		return fault.Newf(fault.TooMany, "%s", text.Locked(b.Until.Sub(now)))
	}
	return fault.Newf(fault.TooMany, "%s", text.Wait(b.Until.Sub(now)))
}

// judge judges a code in the transaction that stores what comes of it. An enrolment
// code is only found here: it is spent by whoever makes the first authenticator.
func (m *Sessions) judge(ctx context.Context, tx *store.Tx, kind string, u db.User, code secret.Bytes, now time.Time) (v factor.Verdict, enrolCode string, err error) {
	switch kind {
	case TOTP, Backup:
		plug, ok := m.Factors.Get(policy.Factor(kind))
		if !ok {
			return v, "", fault.New(fault.Internal, fmt.Errorf("this program has no factor %q", kind))
		}
		v, err = plug.Judge(ctx, tx, factor.Try{User: u, Machine: attempts.Door, Typed: code, Now: now})
		if err == nil && v.OK && !v.Own {
			err = fault.New(fault.Internal, fmt.Errorf("factor %q is not the user's own", kind))
		}
		return v, "", err
	case Enrol:
		row, err := m.Factors.FindEnrol(ctx, tx.Queries, u.ID, code, now)
		if err != nil {
			return v, "", err
		}
		if row == nil {
			return factor.Verdict{Reason: factor.ReasonWrong, Text: text.EnrolWrong}, "", nil
		}
		return factor.Verdict{OK: true, ID: row.ID, Data: map[string]any{"code": row.ID}}, row.ID, nil
	}
	return v, "", fault.New(fault.BadRequest, nil)
}

// rejected notes a wrong code. Who has had three begins anew.
func (m *Sessions) rejected(ctx context.Context, tx *store.Tx, row db.Signin, st state, u db.User, kind string, v factor.Verdict, counted *attempts.Counted, address string, now time.Time) (denied, err error) {
	if err := m.noteFactor(tx, event.FactorRejected, u, kind, v.Reason, address, v); err != nil {
		return nil, err
	}
	if err := m.lockedNow(tx, &u, address, counted); err != nil {
		return nil, err
	}
	b, err := attempts.Blocked(ctx, tx, u.ID, st.Place, now)
	if err != nil {
		return nil, err
	}
	over, reason := error(nil), ""
	switch {
	case b.On() && b.Locked:
		over, reason = wait(b, now), string(policy.ReasonLocked)
	case row.Wrong >= maxWrong:
		over, reason = fault.Newf(fault.Expired, text.DeniedCodes), reasonTooMany
	case b.On():
		return wrongField(FieldCode, v.Text+" "+text.Wait(b.Until.Sub(now))), nil
	default:
		return wrongField(FieldCode, v.Text), nil
	}
	if _, err := tx.DeleteSignin(ctx, row.ID); err != nil {
		return nil, err
	}
	return over, m.note(tx, event.Event{
		Type: event.SessionDenied, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Outcome: denyOutcome, Reason: reason, Factor: kind,
	}, map[string]any{"kind": st.Kind, "agent": st.Agent})
}

func (m *Sessions) noteFactor(tx *store.Tx, typ event.Type, u db.User, kind, reason, address string, v factor.Verdict) error {
	data := map[string]any{}
	for k, x := range v.Data {
		data[k] = x
	}
	if v.ID != "" && typ == event.FactorRejected {
		data["id"] = v.ID
	}
	if kind == Enrol {
		kind = "enrol-code"
	}
	return m.note(tx, event.Event{Type: typ, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Reason: reason, Factor: kind}, data)
}

// finish opens the session and ends the sign-in.
func (m *Sessions) finish(ctx context.Context, tx *store.Tx, row db.Signin, st state, u db.User, kind, enrolCode, address string, now time.Time, out *Opened) error {
	n, err := tx.DeleteSignin(ctx, row.ID)
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.New(fault.Conflict, nil)
	}
	if kind != Enrol {
		// The failures of this place and across places are forgotten behind what the user
		// holds. A help desk's code is not that.
		if _, err := tx.ForgiveAttempts(ctx, db.ForgiveAttemptsParams{UserID: u.ID, MachineID: st.Place}); err != nil {
			return err
		}
		if err := m.activate(ctx, tx, &u, address, now); err != nil {
			return err
		}
	}
	s, hash, err := newSecret(m.Random, sessionPrefix)
	if err != nil {
		return err
	}
	in := db.InsertSessionParams{
		Kind: st.Kind, Factor: kind, EnrolCode: enrolCode, FreshAt: clock.Micros(now), EndsAt: clock.Micros(now.Add(Absolute)), Address: address, Agent: st.Agent,
	}
	if kind == Enrol {
		in.FreshAt, in.EndsAt = 0, clock.Micros(now.Add(EnrolTime))
	}
	if out.Session, err = m.open(ctx, tx, u, in, hash, now); err != nil {
		return err
	}
	out.Secret, out.Pending = s, nil
	if kind == TOTP && st.Kind == Browser && st.Place == attempts.Door {
		out.Known, err = m.known(u.ID)
	}
	return err
}

// activate notes the first sign-in of a user who was made for that (D1).
func (m *Sessions) activate(ctx context.Context, tx *store.Tx, u *db.User, address string, now time.Time) error {
	if u.ActivatedAt != 0 || u.Activation == facts.ActivationNow {
		return nil
	}
	n, err := tx.ActivateUser(ctx, db.ActivateUserParams{ID: u.ID, At: clock.Micros(now)})
	if err != nil || n == 0 {
		return err
	}
	return m.note(tx, event.Event{Type: event.UserChanged, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Reason: "first-login"}, map[string]any{"activated": true})
}

// NewPassword changes the password that is due, and goes on. The fault is Invalid with
// the field "password" or "again" when another may be tried.
func (m *Sessions) NewPassword(ctx context.Context, raw string, password, again secret.Bytes, address string) (Opened, error) {
	if err := m.limits.take(address); err != nil {
		return Opened{}, err
	}
	var u db.User
	err := m.Store.Read(ctx, func(q *store.Queries) (err error) {
		var row db.Signin
		if row, _, u, err = m.resume(ctx, q, raw, m.Clock.Now()); err == nil && row.Stage != string(AskNewPassword) {
			err = fault.New(fault.BadRequest, nil)
		}
		return err
	})
	if err != nil {
		return Opened{}, err
	}
	proposal, err := m.propose(ctx, u, password, again)
	if err != nil {
		return Opened{}, err
	}
	var out Opened
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out = Opened{}
		now := m.Clock.Now()
		row, st, u, err := m.resume(ctx, tx.Queries, raw, now)
		if err != nil {
			return err
		}
		if row.Stage != string(AskNewPassword) || st.Given == "" {
			return fault.New(fault.BadRequest, nil)
		}
		if err := m.Directories.Of(&u).Apply(ctx, tx, u, proposal, now); err != nil {
			return err
		}
		if err := touch.User(ctx, tx, u.ID); err != nil {
			return err
		}
		err = m.note(tx, event.Event{Type: event.PasswordChanged, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Reason: st.Change}, nil)
		if err != nil {
			return err
		}
		if u, err = tx.GetUser(ctx, u.ID); err != nil {
			return err
		}
		return m.finish(ctx, tx, row, st, u, st.Given, "", address, now, &out)
	})
	return out, err
}

// propose judges a new password that was typed twice.
func (m *Sessions) propose(ctx context.Context, u db.User, password, again secret.Bytes) ([]byte, error) {
	switch {
	case password.Empty():
		return nil, wrongField(FieldPassword, text.NothingTyped)
	case !password.Equal(again):
		return nil, wrongField(FieldAgain, "the two passwords are not the same")
	}
	proposal, err := m.Directories.Of(&u).Propose(ctx, u, password)
	var refusal *directory.Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, wrongField(FieldPassword, refusal.Text)
	case errors.Is(err, directory.ErrBusy):
		return nil, busy()
	}
	return proposal, err
}

// StepUp judges a second factor again. The session has another secret from then on. A
// code of an authenticator (TOTP) is asked for; a session that does not open the
// console takes a backup code too.
func (m *Sessions) StepUp(ctx context.Context, s *Session, kind string, code secret.Bytes, address string) (Secret, error) {
	if s == nil {
		return Secret{}, fault.New(fault.Unauthorized, nil)
	}
	if err := m.limits.take(address); err != nil {
		return Secret{}, err
	}
	if kind != TOTP && (kind != Backup || s.Console) || s.Factor == Enrol {
		return Secret{}, fault.New(fault.BadRequest, nil)
	}
	if t, ok := factor.Typed(code); !ok || t == "" || code.Len() > maxCode {
		return Secret{}, wrongField(FieldCode, text.NothingTyped)
	}
	// Whoever sits at somebody's open session guesses at a place of its own.
	place := attempts.Browser("session:" + s.ID)
	var counted *attempts.Counted
	var block attempts.Block
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		u, err := m.present(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		p, err := policyOf(ctx, tx.Queries, u, m.Clock.Now())
		if err != nil {
			return err
		}
		counted, block, err = attempts.Count(ctx, tx, u.ID, place, p, m.Clock.Now())
		return err
	})
	switch {
	case err != nil:
		return Secret{}, err
	case block.On():
		return Secret{}, wait(block, m.Clock.Now())
	}
	var out Secret
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		out, denied = Secret{}, nil
		now := m.Clock.Now()
		u, err := m.present(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		v, _, err := m.judge(ctx, tx, kind, u, code, now)
		if err != nil {
			return err
		}
		if !v.OK {
			denied = wrongField(FieldCode, v.Text)
			if err := m.noteFactor(tx, event.FactorRejected, u, kind, v.Reason, address, v); err != nil {
				return err
			}
			return m.lockedNow(tx, &u, address, counted)
		}
		if err := counted.TakeBack(ctx, tx); err != nil {
			return err
		}
		if err := m.noteFactor(tx, event.FactorAccepted, u, kind, "", address, v); err != nil {
			return err
		}
		if kind == Backup {
			if err := m.noteFactor(tx, event.CodeSpent, u, kind, "", address, v); err != nil {
				return err
			}
		}
		if out, err = m.rotate(ctx, tx, s, s.Factor, s.EnrolCode, s.Ends, now); err != nil {
			return err
		}
		return m.note(tx, event.Event{Type: event.SessionSteppedUp, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Factor: kind},
			map[string]any{"session": SessionPrefix + s.ID})
	})
	if err == nil {
		err = denied
	}
	return out, err
}

// present is the user of a session that still stands.
func (m *Sessions) present(ctx context.Context, q *db.Queries, s *Session) (db.User, error) {
	row, err := q.GetSession(ctx, s.ID)
	switch {
	case store.IsNotFound(err):
		return db.User{}, fault.New(fault.Unauthorized, nil)
	case err != nil:
		return db.User{}, err
	}
	if sessionOf(row.Session, row.User, m.Clock.Now()) == nil || !hmac.Equal(row.Session.SecretHash, s.hash) {
		return db.User{}, fault.New(fault.Unauthorized, nil)
	}
	return row.User, nil
}

// rotate gives the session another secret; the old one is worth nothing.
func (m *Sessions) rotate(ctx context.Context, tx *store.Tx, s *Session, kind, enrolCode string, ends, now time.Time) (Secret, error) {
	out, hash, err := newSecret(m.Random, sessionPrefix)
	if err != nil {
		return out, err
	}
	n, err := tx.RotateSession(ctx, db.RotateSessionParams{
		ID: s.ID, OldHash: s.hash, NewHash: hash, At: clock.Micros(now), Factor: kind, EnrolCode: enrolCode, EndsAt: clock.Micros(ends),
	})
	if err != nil {
		return out, fmt.Errorf("rotate a session: %w", err)
	}
	if n == 0 {
		return out, fault.New(fault.Unauthorized, nil)
	}
	return out, nil
}

// Enrolled makes a session that an enrolment code has opened a whole one, once the
// first authenticator stands. The session has another secret from then on. Where the
// password is due, the session ends instead: the next sign-in asks for both.
func (m *Sessions) Enrolled(ctx context.Context, s *Session, address string) (Secret, error) {
	if s == nil || s.Factor != Enrol {
		return Secret{}, fault.New(fault.BadRequest, nil)
	}
	var out Secret
	var denied error
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out, denied = Secret{}, nil
		now := m.Clock.Now()
		u, err := m.present(ctx, tx.Queries, s)
		if err != nil {
			return err
		}
		have, err := tx.ListUsableAuthenticators(ctx, u.ID)
		if err != nil {
			return err
		}
		valid, err := tx.ListValidEnrolCodes(ctx, db.ListValidEnrolCodesParams{UserID: u.ID, At: clock.Micros(now)})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(have, func(a db.Authenticator) bool { return a.ConfirmedAt >= clock.Micros(s.Began) && a.Step > 0 }) ||
			slices.ContainsFunc(valid, func(c db.EnrolCode) bool { return c.ID == s.EnrolCode }) {
			return fault.Newf(fault.Forbidden, "Set up your second factor first.")
		}
		if err := m.activate(ctx, tx, &u, address, now); err != nil {
			return err
		}
		if u.MustChange {
			denied = fault.Newf(fault.Unauthorized, "Your second factor is set up. Sign in again with it: then you choose a new password.")
			_, err := tx.DeleteSession(ctx, s.ID)
			return err
		}
		if out, err = m.rotate(ctx, tx, s, TOTP, "", s.Began.Add(Absolute), now); err != nil {
			return err
		}
		return m.note(tx, event.Event{Type: event.SessionSteppedUp, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Factor: TOTP, Reason: "enrolled"},
			map[string]any{"session": SessionPrefix + s.ID})
	})
	if err == nil {
		err = denied
	}
	return out, err
}

// Password judges a user's own password anew, behind a session: counted like a sign-in,
// at a place of its own. The fault is Invalid with the field "old" when it is wrong.
func (m *Sessions) Password(ctx context.Context, userID, address string, password secret.Bytes) error {
	if err := m.limits.take(address); err != nil {
		return err
	}
	const place = "password"
	var u db.User
	var counted *attempts.Counted
	var block attempts.Block
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) (err error) {
		now := m.Clock.Now()
		if u, err = tx.GetUser(ctx, userID); err != nil {
			if store.IsNotFound(err) {
				err = fault.New(fault.Unauthorized, nil)
			}
			return err
		}
		p, err := policyOf(ctx, tx.Queries, u, now)
		if err != nil {
			return err
		}
		counted, block, err = attempts.Count(ctx, tx, u.ID, attempts.Browser(place), p, now)
		return err
	})
	switch {
	case err != nil:
		return err
	case block.On():
		return wait(block, m.Clock.Now())
	}
	waiting, cancel := context.WithTimeout(ctx, signinPatience)
	defer cancel()
	verdict := m.Directories.Of(&u).Verify(waiting, &u, password)
	var denied error
	err = m.update(context.WithoutCancel(ctx), func(ctx context.Context, tx *store.Tx) error {
		denied = nil
		switch {
		case verdict == directory.Unavailable:
			denied = busy()
		case !verdict.Proved():
			denied = wrongField("old", "that is not your password")
			err := m.note(tx, event.Event{
				Type: event.FactorRejected, Actor: u.Name, Subject: u.Name, UserID: u.ID, Address: address, Service: service, Reason: reasonFirst, Factor: "password",
			}, nil)
			if err != nil {
				return err
			}
			return m.lockedNow(tx, &u, address, counted)
		}
		return counted.TakeBack(ctx, tx)
	})
	if err == nil {
		err = denied
	}
	return err
}

// Clear forgets what is over. It is a job for any replica at any time.
func (m *Sessions) Clear(ctx context.Context) error {
	return m.Store.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		now := m.Clock.Now()
		at := clock.Micros(now)
		if _, err := tx.DeleteDeadSessions(ctx, db.DeleteDeadSessionsParams{At: at, SeenBefore: clock.Micros(now.Add(-Idle))}); err != nil {
			return err
		}
		if _, err := tx.DeleteDeadSignins(ctx, at); err != nil {
			return err
		}
		if _, err := tx.DeleteDeadAPITokens(ctx, clock.Micros(now.Add(-keepTokens))); err != nil {
			return err
		}
		_, err := tx.DeleteOldApprovals(ctx, clock.Micros(now.Add(-keepApprovals)))
		return err
	})
}

// How long ended things are kept; the events about them stay.
const (
	keepTokens    = 30 * 24 * time.Hour
	keepApprovals = 24 * time.Hour
)
