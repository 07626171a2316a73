package session

import (
	"cmp"
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/statefile"
	"latchkey/internal/text"
)

// The first owner is made by whoever holds the setup code: it lies in a file that the
// server's account alone can read, and "latchkey setup-code" shows it to whoever may
// open the admin socket. All replicas have the same; it goes with the first owner.
const (
	setupKey   = "session.setup_code" // of the row in settings; the value is sealed
	stageSetup = "setup"
)

// FieldSetup is the field of the setup code.
const FieldSetup = "setup"

func ownerless(ctx context.Context, q *db.Queries, at time.Time) (bool, error) {
	n, err := q.CountActiveOwners(ctx, db.CountActiveOwnersParams{At: clock.Micros(at)})
	return n == 0, err
}

// SetupWanted tells whether there is no owner yet.
func (m *Sessions) SetupWanted(ctx context.Context) (wanted bool, err error) {
	err = m.Store.Read(ctx, func(q *store.Queries) (err error) {
		wanted, err = ownerless(ctx, q, m.Clock.Now())
		return err
	})
	return wanted, err
}

// SetupCode gives the code for the first owner, and makes one if there is none; an empty
// code means that there is an owner already. It asks for an owner's right, which nobody
// has then but root on the server.
func (m *Sessions) SetupCode(ctx context.Context, a desk.Actor) (secret.Bytes, error) {
	if err := may(a, "own"); err != nil {
		return secret.Bytes{}, err
	}
	return m.setupCode(ctx)
}

func (m *Sessions) setupCode(ctx context.Context) (shown secret.Bytes, err error) {
	fresh, err := otp.NewBackup(m.Random)
	if err != nil {
		return shown, err
	}
	defer fresh.Wipe()
	err = m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		shown = secret.Bytes{}
		wanted, err := ownerless(ctx, tx.Queries, m.Clock.Now())
		if err != nil {
			return err
		}
		if !wanted {
			_, err := tx.DeleteSetting(ctx, setupKey)
			return err
		}
		if shown, err = m.readSetup(ctx, tx.Queries); err != nil || !shown.Empty() {
			return err
		}
		shown = secret.FromString(otp.FormatBackup(fresh))
		return tx.PutSetting(ctx, db.PutSettingParams{
			Key: setupKey, Value: m.Keys.Box.Seal(shown.Reveal(), "settings", "value", setupKey), UpdatedAt: clock.Micros(m.Clock.Now()),
		})
	})
	return shown, err
}

func (m *Sessions) readSetup(ctx context.Context, q *db.Queries) (secret.Bytes, error) {
	sealed, err := q.GetSetting(ctx, setupKey)
	switch {
	case store.IsNotFound(err):
		return secret.Bytes{}, nil
	case err != nil:
		return secret.Bytes{}, err
	}
	return m.Keys.Box.Open(sealed, "settings", "value", setupKey)
}

// WriteSetup writes the file of the setup code at the server's start, or takes it away
// where there is an owner. It gives the code's file, empty if there is none.
func (m *Sessions) WriteSetup(ctx context.Context) (file string, err error) {
	code, err := m.setupCode(ctx)
	if err != nil || m.SetupFile == "" {
		return "", err
	}
	defer code.Wipe()
	if code.Empty() {
		m.dropSetupFile()
		return "", nil
	}
	if err := statefile.Replace(m.SetupFile, append([]byte(string(code.Reveal())), '\n')); err != nil {
		return "", fmt.Errorf("write the setup code: %w", err)
	}
	return m.SetupFile, nil
}

func (m *Sessions) dropSetupFile() {
	if m.SetupFile == "" {
		return
	}
	if err := os.Remove(m.SetupFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.Logger.Warn("the file of the setup code is still there, and is worth nothing", "error", err)
	}
}

// Owner is the first owner as typed.
type Owner struct {
	Code     secret.Bytes // of the setup
	Name     string
	Display  string
	Password secret.Bytes
	Again    secret.Bytes
	Address  string
	Agent    string
}

// setup is what the making of the first owner has come to; it lies sealed.
type setup struct {
	Code    string `json:"code"`
	Name    string `json:"name"`
	Display string `json:"display"`
	Hash    string `json:"hash"`
	Seed    []byte `json:"seed"`
}

// done says that there is an owner.
func done() error {
	return fault.Newf(fault.Forbidden, "There is an owner already. Sign in, or ask an owner to add you.")
}

// rightCode compares the setup code; both ways take the same time.
func (m *Sessions) rightCode(ctx context.Context, q *db.Queries, typed secret.Bytes) error {
	wanted, err := ownerless(ctx, q, m.Clock.Now())
	if err != nil {
		return err
	}
	if !wanted {
		return done()
	}
	stored, err := m.readSetup(ctx, q)
	if err != nil {
		return err
	}
	defer stored.Wipe()
	want, have := otp.ParseBackup(string(stored.Reveal()))
	got, ok := otp.ParseBackup(string(typed.Reveal()))
	if !have || !ok || typed.Len() > maxCode || !hmac.Equal(want.Reveal(), got.Reveal()) {
		return wrongField(FieldSetup, "that is not the setup code; \"latchkey setup-code\" shows it on the server")
	}
	return nil
}

// BeginSetup judges the code and the account, and gives the key that the owner's app
// needs. Nothing is made yet.
func (m *Sessions) BeginSetup(ctx context.Context, o Owner) (factor.Enrolment, Secret, error) {
	var none factor.Enrolment
	if err := m.limits.take(o.Address); err != nil {
		return none, Secret{}, err
	}
	if err := m.Store.Read(ctx, func(q *store.Queries) error { return m.rightCode(ctx, q, o.Code) }); err != nil {
		if fault.Is(err, fault.Invalid) {
			m.deny(ctx, event.Event{Actor: "setup", Subject: "setup", Address: o.Address, Reason: "setup-code-wrong"}, o.Agent)
		}
		return none, Secret{}, err
	}
	f := fault.New(fault.Invalid, nil)
	if err := desk.ValidUserName(o.Name); err != nil {
		f.Fields = append(f.Fields, fault.Of(err).Fields...)
	}
	if o.Display != "" {
		if err := text.ValidLine("display_name", o.Display, maxName); err != nil {
			f.With("display", "it must be one line of at most %d octets", maxName)
		}
	}
	var proposal []byte
	if len(f.Fields) == 0 {
		var err error
		proposal, err = m.propose(ctx, db.User{Name: o.Name}, o.Password, o.Again)
		switch {
		case fault.Is(err, fault.Invalid):
			f.Fields = append(f.Fields, fault.Of(err).Fields...)
		case err != nil:
			return none, Secret{}, err
		}
	} else if !o.Password.Equal(o.Again) {
		f.With(FieldAgain, "the two passwords are not the same")
	}
	if len(f.Fields) > 0 {
		return none, Secret{}, f
	}
	seed, err := m.Factors.NewSeed(otp.DefaultParams)
	if err != nil {
		return none, Secret{}, err
	}
	defer seed.Wipe()
	e, err := m.Factors.Show(otp.DefaultParams, o.Name, seed)
	if err != nil {
		return none, Secret{}, err
	}
	var raw Secret
	err = m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if err := m.rightCode(ctx, tx.Queries, o.Code); err != nil {
			return err
		}
		if _, err := tx.GetUserByName(ctx, o.Name); err == nil {
			return fault.New(fault.Invalid, nil).With(fieldName, "there is a user %q already; choose another name", o.Name)
		} else if !store.IsNotFound(err) {
			return err
		}
		raw, err = m.keepSignin(ctx, tx, "", stageSetup, setup{
			Code: string(o.Code.Reveal()), Name: o.Name, Display: o.Display, Hash: string(proposal), Seed: seed.Reveal(),
		}, m.Clock.Now(), 2*SigninTime)
		return err
	})
	return e, raw, err
}

// deny writes a refusal down that happened outside of a transaction.
func (m *Sessions) deny(ctx context.Context, e event.Event, agent string) {
	e.Type, e.Service, e.Outcome = event.SessionDenied, service, denyOutcome
	err := m.update(ctx, func(_ context.Context, tx *store.Tx) error {
		return m.note(tx, e, map[string]any{"agent": text.CleanN(agent, 256)})
	})
	if err != nil {
		m.Logger.WarnContext(ctx, "a refusal was not written down", "error", err)
	}
}

func (m *Sessions) setup(ctx context.Context, q *db.Queries, raw string) (row db.Signin, st setup, err error) {
	if row, err = m.signin(ctx, q, raw, m.Clock.Now()); err != nil {
		return row, st, err
	}
	if row.Stage != stageSetup || row.UserID != "" {
		return row, st, tooLate()
	}
	return row, st, m.opened(row, &st)
}

// ShowSetup shows the key again.
func (m *Sessions) ShowSetup(ctx context.Context, raw string) (name string, e factor.Enrolment, err error) {
	err = m.Store.Read(ctx, func(q *store.Queries) error {
		_, st, err := m.setup(ctx, q, raw)
		if err != nil {
			return err
		}
		seed := secret.New(st.Seed)
		defer seed.Wipe()
		name = st.Name
		e, err = m.Factors.Show(otp.DefaultParams, st.Name, seed)
		return err
	})
	return name, e, err
}

// FinishSetup judges the first code, makes the owner and signs him in. The backup codes
// are shown once.
func (m *Sessions) FinishSetup(ctx context.Context, raw string, code secret.Bytes, address, agent string) (Opened, []string, error) {
	if err := m.limits.take(address); err != nil {
		return Opened{}, nil, err
	}
	var out Opened
	var codes []string
	var denied error
	err := m.update(ctx, func(ctx context.Context, tx *store.Tx) error {
		out, codes, denied = Opened{}, nil, nil
		now := m.Clock.Now()
		at := clock.Micros(now)
		row, st, err := m.setup(ctx, tx.Queries, raw)
		if err != nil {
			return err
		}
		if err := m.rightCode(ctx, tx.Queries, secret.FromString(st.Code)); err != nil {
			return err
		}
		// The key is on the screen: a wrong code is a slip and no attempt.
		seed := secret.New(st.Seed)
		defer seed.Wipe()
		typed, _ := factor.Typed(code)
		clean, _ := otp.DefaultParams.CleanCode(typed)
		step, ok := otp.DefaultParams.Verify(seed, clean, now, 0, 0)
		if !ok {
			denied = wrongField(FieldCode, text.WrongCode)
			n, err := tx.AdvanceSignin(ctx, db.AdvanceSigninParams{ID: row.ID, Rev: row.Rev, Stage: row.Stage, Data: row.Data, Wrong: row.Wrong + 1})
			if err == nil && (n == 0 || row.Wrong >= maxSetupTries) {
				denied = tooLate()
				_, err = tx.DeleteSignin(ctx, row.ID)
			}
			return err
		}
		if n, err := tx.DeleteSignin(ctx, row.ID); err != nil || n == 0 {
			return cmp.Or(err, error(fault.New(fault.Conflict, nil)))
		}
		if n, err := tx.DeleteSetting(ctx, setupKey); err != nil || n == 0 {
			// Of two who finish at once one has taken it away.
			return cmp.Or(err, done())
		}
		u := db.InsertUserParams{
			ID: store.NewID(), Name: st.Name, NameFold: facts.Fold(st.Name), DisplayName: st.Display, Role: rest.RoleOwner, PasswordHash: st.Hash,
			PasswordChangedAt: at, Activation: facts.ActivationNow, ActivatedAt: at, MFA: facts.MFAInherit, CreatedAt: at, UpdatedAt: at,
		}
		if err := tx.InsertUser(ctx, u); err != nil {
			return err
		}
		id, err := m.Factors.AddTOTP(ctx, tx, u.ID, factor.TOTP{Params: otp.DefaultParams, Seed: seed, FirstStep: step}, now)
		if err != nil {
			return err
		}
		if codes, err = m.Factors.IssueBackup(ctx, tx, u.ID, now); err != nil {
			return err
		}
		by := event.Event{Actor: "setup", Subject: u.Name, UserID: u.ID, Address: address}
		for _, e := range []struct {
			typ    event.Type
			factor policy.Factor
			data   map[string]any
		}{
			{event.UserAdded, "", map[string]any{"role": u.Role, "mfa": u.MFA, "activation": u.Activation, "password": true}},
			{event.FactorAdded, policy.TOTP, map[string]any{"authenticator": rest.FactorPrefix + id, "confirmed": true}},
			{event.FactorAdded, policy.Backup, map[string]any{"codes": len(codes)}},
			{event.OwnerMade, "", nil},
		} {
			by.Type, by.Factor = e.typ, string(e.factor)
			if err := m.note(tx, by, e.data); err != nil {
				return err
			}
		}
		full, err := tx.GetUser(ctx, u.ID)
		if err != nil {
			return err
		}
		s, hash, err := newSecret(m.Random, sessionPrefix)
		if err != nil {
			return err
		}
		out.Session, err = m.open(ctx, tx, full, db.InsertSessionParams{
			Kind: Browser, Factor: TOTP, FreshAt: at, EndsAt: clock.Micros(now.Add(Absolute)), Address: address, Agent: agent,
		}, hash, false, now)
		if err != nil {
			return err
		}
		out.Secret = s
		out.Known, err = m.known(u.ID)
		return err
	})
	if err == nil {
		err = denied
	}
	if err != nil {
		return Opened{}, nil, err
	}
	m.dropSetupFile()
	return out, codes, nil
}

const maxSetupTries = 10
