package signin_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/factor"
	_ "latchkey/internal/server/factor/backup"
	_ "latchkey/internal/server/factor/bypass"
	_ "latchkey/internal/server/factor/totp"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/signin"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

var start = time.Date(2026, 11, 21, 9, 0, 7, 0, time.UTC)

const password = "correct horse battery"

// rig is a server's sign-in over a real store, with cheap hashes and a clock that
// moves when told.
type rig struct {
	testing.TB
	store   *store.Store
	clock   *clock.Manual
	keys    *keys.Keys
	dirs    *directory.Set
	local   *local.Directory
	factors *factor.Set
	svc     *signin.Service
	machine db.Machine
	n       int64
}

// onBoth runs fn on both engines, and checks afterwards what is true of every run.
func onBoth(t *testing.T, fn func(r *rig)) {
	t.Helper()
	storetest.Databases(t, func(t *testing.T, database string) {
		c := clock.NewManual(start)
		r := newRig(t, storetest.Open(t, store.Config{Database: database, Clock: c}), c)
		fn(r)
		r.eachEndHasOneEvent()
		r.nothingSecretIsStored()
	})
}

// onOne runs fn on SQLite alone: for what does not depend on the engine.
func onOne(t testing.TB, fn func(r *rig)) {
	t.Helper()
	c := clock.NewManual(start)
	r := newRig(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c)
	fn(r)
	r.eachEndHasOneEvent()
	r.nothingSecretIsStored()
}

func newRig(t testing.TB, s *store.Store, c *clock.Manual) *rig {
	t.Helper()
	r := &rig{TB: t, store: s, clock: c}
	var err error
	r.keys, _, err = keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: s, Clock: c})
	r.must(err)
	settings := local.Config{Clock: c, Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}, MaxAge: 365 * 24 * time.Hour}
	r.local, err = local.New(settings)
	r.must(err)
	r.dirs, err = directory.All(directory.Deps{Clock: c, Settings: map[string]any{directory.Local: settings}})
	r.must(err)
	r.factors = factor.All(&factor.Keeper{Box: r.keys.Box, Pepper: r.keys.Pepper, Random: rand.Reader})
	r.svc = r.replica(s)
	r.setPolicy(nil)
	r.machine = r.addMachine("desk-1")
	return r
}

func (r *rig) replica(s *store.Store) *signin.Service {
	return signin.New(signin.Deps{Store: s, Keys: r.keys, Directories: r.dirs, Factors: r.factors, Clock: r.clock, Logger: slog.New(slog.NewTextHandler(r.Output(), nil)), Grain: -1})
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) update(fn func(ctx context.Context, tx *store.Tx) error) {
	r.Helper()
	r.must(r.store.Update(r.Context(), fn))
}

func (r *rig) read(fn func(q *store.Queries) error) {
	r.Helper()
	r.must(r.store.Read(r.Context(), fn))
}

// setPolicy makes the default policy what change makes of the defaults.
func (r *rig) setPolicy(change func(*policy.Policy)) {
	r.Helper()
	p := policy.NewPolicy()
	if change != nil {
		change(&p)
	}
	r.must(p.Validate())
	b, err := json.Marshal(p)
	r.must(err)
	r.update(func(ctx context.Context, tx *store.Tx) error {
		old, err := tx.GetDefaultPolicy(ctx)
		if store.IsNotFound(err) {
			return tx.InsertPolicy(ctx, db.InsertPolicyParams{ID: store.NewID(), Name: "default", IsDefault: true, Body: string(b), CreatedAt: 1, UpdatedAt: 1})
		}
		if err != nil {
			return err
		}
		_, err = tx.UpdatePolicy(ctx, db.UpdatePolicyParams{ID: old.ID, Rev: old.Rev, Name: old.Name, Body: string(b), UpdatedAt: 1})
		return err
	})
}

func (r *rig) addMachine(name string, change ...func(*db.InsertMachineParams)) db.Machine {
	r.Helper()
	r.n++
	p := db.InsertMachineParams{
		ID: store.NewID(), Number: r.n, Name: name, Status: "active", Mode: "normal", UnknownUsers: "deny", AllUsers: true,
		TPMClass: "none", TPMInfo: "{}", CreatedAt: 1, UpdatedAt: 1, JoinedAt: 1,
	}
	for _, c := range change {
		c(&p)
	}
	var m db.Machine
	r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		if err = tx.InsertMachine(ctx, p); err != nil {
			return err
		}
		m, err = tx.GetMachine(ctx, p.ID)
		return err
	})
	return m
}

func (r *rig) addUser(name string, change ...func(*db.InsertUserParams)) db.User {
	r.Helper()
	hash, err := r.local.Hash(r.Context(), "-", secret.FromString(password))
	r.must(err)
	at := clock.Micros(r.clock.Now())
	p := db.InsertUserParams{
		ID: store.NewID(), Name: name, NameFold: facts.Fold(name), Role: "none", PasswordHash: hash, PasswordChangedAt: at,
		Activation: facts.ActivationNow, MFA: facts.MFAInherit, CreatedAt: at, UpdatedAt: at,
	}
	for _, c := range change {
		c(&p)
	}
	r.update(func(ctx context.Context, tx *store.Tx) error { return tx.InsertUser(ctx, p) })
	return r.user(name)
}

func (r *rig) user(name string) (u db.User) {
	r.Helper()
	r.read(func(q *store.Queries) (err error) {
		u, err = q.GetUserByName(context.Background(), name)
		return err
	})
	return u
}

// app is an authenticator app.
type app struct {
	r    *rig
	id   string
	seed secret.Bytes
}

func (r *rig) addTOTP(u db.User) app {
	r.Helper()
	a := app{r: r}
	var err error
	a.seed, err = r.factors.NewSeed(otp.DefaultParams)
	r.must(err)
	r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		a.id, err = r.factors.AddTOTP(ctx, tx, u.ID, factor.TOTP{Params: otp.DefaultParams, Seed: a.seed}, r.clock.Now())
		return err
	})
	return a
}

// code is what the app shows now.
func (a app) code() string {
	return otp.DefaultParams.Code(a.seed, otp.DefaultParams.Step(a.r.clock.Now()))
}

// fresh waits for the next code.
func (a app) fresh() string {
	a.r.clock.Advance(30 * time.Second)
	return a.code()
}

// wrong is a code that the app shows at none of the steps nearby.
func (a app) wrong() string {
	now := otp.DefaultParams.Step(a.r.clock.Now())
	for n := 0; ; n++ {
		c := fmt.Sprintf("%06d", n)
		if !slices.ContainsFunc([]int64{-4, -3, -2, -1, 0, 1, 2, 3, 4}, func(o int64) bool { return otp.DefaultParams.Code(a.seed, now+o) == c }) {
			return c
		}
	}
}

func (r *rig) addBackup(u db.User) (codes []string) {
	r.Helper()
	r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		codes, err = r.factors.IssueBackup(ctx, tx, u.ID, r.clock.Now())
		return err
	})
	return codes
}

func (r *rig) addBypass(u db.User, scope policy.Scope) (code string) {
	r.Helper()
	r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		_, code, err = r.factors.IssueBypass(ctx, tx, factor.BypassCode{
			UserID: u.ID, Scope: scope, Reason: "lost phone", Expires: r.clock.Now().Add(time.Hour), By: "root@local",
		}, r.clock.Now())
		return err
	})
	return code
}

func (r *rig) addEnrolCode(u db.User) (code string) {
	r.Helper()
	r.update(func(ctx context.Context, tx *store.Tx) (err error) {
		_, code, err = r.factors.IssueEnrol(ctx, tx, factor.EnrolCode{UserID: u.ID, Expires: r.clock.Now().Add(time.Hour), By: "root@local"}, r.clock.Now())
		return err
	})
	return code
}

// begin is a sign-in at the console with everything that the agent tells.
func begin(user string, change ...func(*wire.Begin)) wire.Begin {
	b := wire.Begin{
		Purpose: wire.PurposeSignin, User: user, Scope: policy.Logon, Service: "login", TTY: "tty1", Mode: "full", Boot: "boot-1",
		Password: wire.Hide(secret.FromString(password)),
	}
	for _, c := range change {
		c(&b)
	}
	return b
}

func with(p string) func(*wire.Begin) {
	return func(b *wire.Begin) { b.Password = wire.Hide(secret.FromString(p)) }
}

func in(s policy.Scope, service string) func(*wire.Begin) {
	return func(b *wire.Begin) { b.Scope, b.Service = s, service }
}

func boot(id string) func(*wire.Begin) { return func(b *wire.Begin) { b.Boot = id } }

func second(b *wire.Begin) { b.Mode, b.First = "second", policy.FirstMachine }

func ssh(b *wire.Begin) {
	b.Scope, b.Service, b.TTY, b.RHost, b.RemoteSeat = policy.Remote, "sshd", "ssh", "198.51.100.7", true
}

func key(b *wire.Begin) { b.First, b.Password = policy.FirstSSHKey, wire.Secret{} }

// conv is a conversation as an agent leads it.
type conv struct {
	r    *rig
	m    db.Machine
	svc  *signin.Service
	id   string
	seq  int64
	body []byte
	last wire.StepReply
	err  error
}

func (r *rig) talk() *conv { return &conv{r: r, m: r.machine, svc: r.svc, id: store.NewID()} }

// begin opens a new conversation.
func (r *rig) begin(b wire.Begin) *conv {
	r.Helper()
	return r.talk().send(wire.Step{Begin: &b})
}

func (c *conv) on(m db.Machine) *conv { c.m = m; return c }

var addr = netip.MustParseAddr("192.0.2.20")

func (c *conv) send(s wire.Step) *conv {
	c.r.Helper()
	c.seq++
	var err error
	c.body, err = json.Marshal(s)
	c.r.must(err)
	return c.again()
}

// again sends the last step once more.
func (c *conv) again() *conv {
	c.r.Helper()
	c.last, c.err = c.svc.Step(c.r.Context(), c.m, addr, c.id, c.seq, slices.Clone(c.body))
	return c
}

func (c *conv) answer(s string) *conv {
	c.r.Helper()
	if c.err == nil && c.last.Prompt == nil {
		c.r.Fatalf("an answer %q, but nothing was asked: %s", s, c.show())
	}
	return c.send(wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.FromString(s))}})
}

func (c *conv) show() string {
	if c.err != nil {
		return "fault " + c.err.Error()
	}
	b, _ := json.MarshalIndent(c.last, "", "  ")
	return string(b)
}

// asks demands that the last reply asks for this.
func (c *conv) asks(what string) *conv {
	c.r.Helper()
	if c.err != nil || c.last.Prompt == nil || c.last.Prompt.For != what {
		c.r.Fatalf("want a prompt for %s, got %s", what, c.show())
	}
	return c
}

// says demands a message that holds the text.
func (c *conv) says(part string) *conv {
	c.r.Helper()
	for _, m := range c.last.Messages {
		if strings.Contains(m.Text, part) {
			return c
		}
	}
	c.r.Fatalf("want a message with %q, got %s", part, c.show())
	return c
}

func (c *conv) done() *wire.Done {
	c.r.Helper()
	if c.err != nil || c.last.Done == nil {
		c.r.Fatalf("want an end, got %s", c.show())
	}
	return c.last.Done
}

func (c *conv) allowed(mfa bool) *wire.Done {
	c.r.Helper()
	d := c.done()
	if d.Outcome != policy.Allow || d.MFA != mfa {
		c.r.Fatalf("want allow with mfa %v, got %s", mfa, c.show())
	}
	return d
}

// denied demands a denial with this text, and this reason in its event.
func (c *conv) denied(told, reason string) *wire.Done {
	c.r.Helper()
	d := c.done()
	if d.Outcome != policy.Deny || d.Text != told {
		c.r.Fatalf("want a denial %q, got %s", told, c.show())
	}
	if got := c.ending(); got.Type != event.SigninDenied || got.Reason != reason {
		c.r.Fatalf("want an event signin.denied with reason %s, got %s with %s", reason, got.Type, got.Reason)
	}
	return d
}

func (c *conv) ignored(reason string) {
	c.r.Helper()
	if d := c.done(); d.Outcome != policy.Ignore {
		c.r.Fatalf("want ignore, got %s", c.show())
	}
	if got := c.ending(); got.Type != event.SigninIgnored || got.Reason != reason {
		c.r.Fatalf("want signin.left_to_machine with reason %s, got %s with %s", reason, got.Type, got.Reason)
	}
}

func (c *conv) faults(code fault.Code) {
	c.r.Helper()
	if !fault.Is(c.err, code) {
		c.r.Fatalf("want the fault %s, got %s", code, c.show())
	}
}

func (r *rig) events(types ...event.Type) (out []event.Event) {
	r.Helper()
	r.read(func(q *store.Queries) error {
		chains, err := q.ListEventChains(context.Background())
		if err != nil {
			return err
		}
		for _, chain := range chains {
			for after := int64(0); ; {
				rows, err := q.ListChainEvents(context.Background(), db.ListChainEventsParams{Chain: chain, After: after, N: 500})
				if err != nil {
					return err
				}
				if len(rows) == 0 {
					break
				}
				for _, row := range rows {
					after = row.Seq
					if e := store.EventOf(row); len(types) == 0 || slices.Contains(types, e.Type) {
						out = append(out, e)
					}
				}
			}
		}
		return nil
	})
	return out
}

var endings = []event.Type{event.SigninAllowed, event.SigninDenied, event.SigninIgnored, event.SigninAbandoned}

type data struct {
	Conversation string        `json:"conversation"`
	Trace        []policy.Step `json:"trace"`
	Factors      []string      `json:"factors"`
	Until        string        `json:"until"`
}

func of(e event.Event) (d data) {
	_ = json.Unmarshal(e.Data, &d)
	return d
}

// ending is the one event that ended the conversation.
func (c *conv) ending() event.Event {
	c.r.Helper()
	var found []event.Event
	for _, e := range c.r.events(endings...) {
		if of(e).Conversation == c.id {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		c.r.Fatalf("the conversation has %d events of its end", len(found))
	}
	return found[0]
}

func (c *conv) row() (row db.Conversation) {
	c.r.Helper()
	c.r.read(func(q *store.Queries) (err error) {
		row, err = q.GetConversation(context.Background(), c.id)
		return err
	})
	return row
}

func (r *rig) windows() (n int) {
	r.Helper()
	r.read(func(q *store.Queries) error {
		ws, err := q.ListWindows(context.Background(), db.ListWindowsParams{At: clock.Micros(r.clock.Now()), N: 100})
		n = len(ws)
		return err
	})
	return n
}

func (r *rig) attempt(u db.User, machine string) (a db.Attempt) {
	r.Helper()
	r.read(func(q *store.Queries) error {
		var err error
		a, err = q.GetAttempt(context.Background(), db.GetAttemptParams{UserID: u.ID, MachineID: machine})
		if store.IsNotFound(err) {
			return nil
		}
		return err
	})
	return a
}

// eachEndHasOneEvent: S11.
func (r *rig) eachEndHasOneEvent() {
	r.Helper()
	n := map[string]int{}
	for _, e := range r.events(endings...) {
		n[of(e).Conversation]++
	}
	for id, k := range n {
		if k != 1 {
			r.Errorf("conversation %s has %d events of its end", id, k)
		}
	}
	// Every ended row has one, and no open row has.
	r.read(func(q *store.Queries) error {
		rows, err := q.ListOverdueConversations(context.Background(), db.ListOverdueConversationsParams{Before: 1 << 62, N: 10000})
		for _, row := range rows {
			if n[row.ID] != 0 {
				r.Errorf("conversation %s is open and has an event of its end", row.ID)
			}
		}
		return err
	})
}

// nothingSecretIsStored looks for the passwords of these tests in every event and,
// opened, in the state of every conversation.
func (r *rig) nothingSecretIsStored() {
	r.Helper()
	r.read(func(q *store.Queries) error {
		rows, err := q.ListOverdueConversations(context.Background(), db.ListOverdueConversationsParams{Before: 1 << 62, N: 10000})
		for _, row := range rows {
			plain, err := r.keys.Box.Open(row.Data, "conversations", "data", row.ID)
			if err != nil {
				return err
			}
			for _, s := range []string{password, newPassword, wrongPassword} {
				if strings.Contains(string(plain.Reveal()), s) {
					r.Errorf("a conversation holds a password: %s", plain.Reveal())
				}
			}
		}
		return err
	})
	for _, e := range r.events() {
		b, _ := json.Marshal(e)
		for _, s := range []string{password, newPassword, wrongPassword} {
			if strings.Contains(string(b), s) {
				r.Errorf("an event holds a password: %s", b)
			}
		}
	}
}

const (
	newPassword   = "another staple of horses"
	wrongPassword = "wrong horse battery"
)

// setUser changes what an administrator may change.
func (r *rig) setUser(name string, change func(*db.UpdateUserParams)) {
	r.Helper()
	u := r.user(name)
	p := db.UpdateUserParams{
		ID: u.ID, Rev: u.Rev, DisplayName: u.DisplayName, Mail: u.Mail, Role: u.Role, MustChange: u.MustChange, Activation: u.Activation,
		ActivateAt: u.ActivateAt, ActivatedAt: u.ActivatedAt, Disabled: u.Disabled, MFA: u.MFA, UID: u.UID, UpdatedAt: u.UpdatedAt,
	}
	change(&p)
	r.update(func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.UpdateUser(ctx, p)
		if err == nil && n != 1 {
			err = fmt.Errorf("%d rows", n)
		}
		return err
	})
}

var constant = text.DeniedFirst

func answerStep(s string) wire.Step {
	return wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.FromString(s))}}
}
