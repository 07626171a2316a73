package session

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/attempts"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
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
	AskCode        Next = "code"         // one of Pending.Kinds
	AskEnrolCode   Next = "enrol"        // the user has no factor: an enrolment code (E1)
	AskNewPassword Next = "new-password" // the password is due (S9)
	AskElsewhere   Next = "browser"      // a program can be given none of the user's factors, a browser can
)

// Pending is a sign-in that goes on. Its secret is in the browser's cookie.
type Pending struct {
	Next   Next
	Kinds  []Kind // what the user may give, strongest first
	Other  []Kind // what he may give in a browser alone
	Asked  Asked  // which of them was chosen, and what was sent for it
	Enrol  bool   // Next is AskEnrolCode
	Why    string // with AskNewPassword: MustChange or Expired
	UserID string // without prefix
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
	fieldName     = "name"
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
	Other      []string `json:"other,omitempty"` // kinds that a browser could take
	Asked      *asked   `json:"asked,omitempty"`
	NewBrowser bool     `json:"new_browser,omitempty"`
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
		st := state{Kind: a.Kind, Agent: text.CleanN(a.Agent, 256), Place: place, PasswordAt: u.PasswordChangedAt, NewBrowser: a.Kind == Browser && place == attempts.Door}
		switch verdict {
		case directory.MustChange:
			st.Change = MustChange
		case directory.Expired:
			st.Change = Expired
		}
		var err error
		if st.Kinds, st.Other, err = m.usable(ctx, tx.Queries, *u, a.Kind == CLI, false, now); err != nil {
			return err
		}
		next := AskCode
		if len(st.Kinds) == 0 && len(st.Other) > 0 {
			next = AskElsewhere
		} else if len(st.Kinds) == 0 {
			next = AskEnrolCode
		} else if a.Kind == Browser {
			// Who has a role and has lost the phone may have backup codes left, which open
			// neither the console nor the enrolment of a new one.
			enrols, err := m.enrols(ctx, tx.Queries, *u, now)
			if err != nil {
				return err
			}
			if enrols {
				st.Kinds = append(st.Kinds, Enrol)
			}
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
		out.Pending = m.pendingOf(next, st, *u, now)
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

func (m *Sessions) pendingOf(next Next, st state, u db.User, now time.Time) *Pending {
	return &Pending{
		Next: next, Kinds: m.kindsOf(st.Kinds), Other: m.kindsOf(st.Other), Asked: st.Asked.shown(now), Enrol: next == AskEnrolCode, Why: st.Change, UserID: u.ID, Name: u.Name,
	}
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
		p = m.pendingOf(Next(row.Stage), st, u, m.Clock.Now())
		return nil
	})
	if fault.Is(err, fault.Expired) {
		return nil, nil
	}
	return p, err
}

// GiveUp ends a sign-in that goes on, and withdraws what waits for an answer.
func (m *Sessions) GiveUp(ctx context.Context, raw, address string) error {
	if err := m.limits.look(address); err != nil {
		return err
	}
	return m.giveUp(ctx, raw, "")
}

// giveUp does so where the sign-in is of this kind; empty: whatever it is.
func (m *Sessions) giveUp(ctx context.Context, raw, kind string) error {
	return m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		row, err := m.signin(ctx, tx.Queries, raw, m.Clock.Now())
		if fault.Is(err, fault.Expired) {
			return nil // there is nothing to give up
		}
		if err != nil {
			return err
		}
		var st state
		if row.UserID != "" { // else a setup, or a passkey without a name: nothing went out
			if err := m.opened(row, &st); err != nil {
				return err
			}
		}
		if kind != "" && st.Kind != kind {
			return nil
		}
		if err := m.withdraw(ctx, tx, st.Asked); err != nil {
			return err
		}
		_, err = tx.DeleteSignin(ctx, row.ID)
		return err
	})
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
		if _, err := tx.DeleteOldPasskeyChallenges(ctx, at); err != nil {
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
