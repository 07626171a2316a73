package facts_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

var now = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

func update(t *testing.T, s *store.Store, fn func(ctx context.Context, tx *store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s *store.Store, fn func(q *store.Queries) error) {
	t.Helper()
	if err := s.Read(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func addUser(t *testing.T, s *store.Store, id, name string, change ...func(*db.InsertUserParams)) {
	t.Helper()
	p := db.InsertUserParams{ID: id, Name: name, NameFold: facts.Fold(name), Activation: facts.ActivationNow, MFA: facts.MFAInherit, CreatedAt: 1, UpdatedAt: 1}
	for _, c := range change {
		c(&p)
	}
	update(t, s, func(ctx context.Context, tx *store.Tx) error { return tx.InsertUser(ctx, p) })
}

func addMachine(t *testing.T, s *store.Store, id string, n int64) {
	t.Helper()
	update(t, s, func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertMachine(ctx, db.InsertMachineParams{
			ID: id, Number: n, Name: id, Status: "active", Mode: "enforced", UnknownUsers: facts.UnknownSkip, TPMClass: "none", TPMInfo: "{}",
			CreatedAt: 1, UpdatedAt: 1,
		})
	})
}

func TestS5S6WhoIsMeant(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		uid := uint32(1000)
		addUser(t, s, "u1", "Alice")
		addUser(t, s, "u2", "Émile")
		addUser(t, s, "u3", "carol", func(p *db.InsertUserParams) { n := int64(uid); p.UID = &n })
		other := uint32(1001)
		for name, c := range map[string]struct {
			ask  facts.Name
			want string
			near bool
		}{
			"exactly":                      {facts.Name{User: "Alice"}, "u1", false},
			"exactly, with an odd number":  {facts.Name{User: "Alice", UID: &uid}, "u1", false},
			"another case":                 {facts.Name{User: "alice"}, "", true},
			"another case beyond ASCII":    {facts.Name{User: "éMILE"}, "", true},
			"the number of somebody":       {facts.Name{User: "x", UID: &uid}, "", true},
			"the number of nobody":         {facts.Name{User: "x", UID: &other}, "", false},
			"an alias":                     {facts.Name{User: "x", Aliases: []string{"y", "ALICE"}}, "", true},
			"nobody":                       {facts.Name{User: "alicia"}, "", false},
			"the empty name":               {facts.Name{User: ""}, "", false},
			"a name with NUL":              {facts.Name{User: "Alice\x00"}, "", false},
			"a name that is not UTF-8":     {facts.Name{User: "Alice\xff"}, "", false},
			"a very long name":             {facts.Name{User: strings.Repeat("Alice", 1000)}, "", false},
			"an alias that is not UTF-8":   {facts.Name{User: "x", Aliases: []string{"Alice\xff", "\x00"}}, "", false},
			"a pattern":                    {facts.Name{User: "Al%"}, "", false},
			"one character for any":        {facts.Name{User: "Alic_"}, "", false},
			"a name with a blank behind":   {facts.Name{User: "Alice "}, "", false},
			"a name with another encoding": {facts.Name{User: "E\u0301mile"}, "", false},
		} {
			read(t, s, func(q *store.Queries) error {
				u, near, err := facts.Resolve(t.Context(), q, c.ask)
				got := ""
				if u != nil {
					got = u.ID
				}
				if got != c.want || near != c.near {
					t.Errorf("%s: got %q, near %v", name, got, near)
				}
				return err
			})
		}
	})
}

func TestFactsOfAUser(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		addUser(t, s, "u1", "alice", func(p *db.InsertUserParams) { p.MFA, p.MustChange, p.PasswordGeneration = facts.MFAOn, true, 7 })
		addMachine(t, s, "m1", 1)
		at, later := clock.Micros(now), clock.Micros(now.Add(time.Hour))
		update(t, s, func(ctx context.Context, tx *store.Tx) error {
			for _, err := range []error{
				tx.InsertGroup(ctx, db.InsertGroupParams{ID: "g1", Name: "staff", MFA: facts.MFAOff, CreatedAt: 1, UpdatedAt: 1}),
				tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{ID: "a1", UserID: "u1", Kind: "totp", Params: "{}", ConfirmedAt: 1, CreatedAt: 1}),
				tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{ID: "a2", UserID: "u1", Kind: "totp", Params: "{}", CreatedAt: 1}),
				tx.InsertBackupCode(ctx, db.InsertBackupCodeParams{ID: "b1", UserID: "u1", SetID: "s", Hash: []byte("x"), CreatedAt: 1}),
				tx.InsertBypassCode(ctx, db.InsertBypassCodeParams{ID: "y1", UserID: "u1", Hash: []byte("x"), Scope: "remote", Reason: "r", CreatedAt: 1, ExpiresAt: later, CreatedBy: "x"}),
			} {
				if err != nil {
					return err
				}
			}
			if _, err := tx.AddGroupMember(ctx, db.AddGroupMemberParams{GroupID: "g1", UserID: "u1"}); err != nil {
				return err
			}
			if _, err := tx.CountAttempt(ctx, db.CountAttemptParams{UserID: "u1", MachineID: "m1", At: at}); err != nil {
				return err
			}
			_, err := tx.BlockAttempts(ctx, db.BlockAttemptsParams{UserID: "u1", MachineID: "m1", BlockedUntil: later, LockedUntil: later})
			return err
		})
		get := func(at facts.At) (f policy.User) {
			read(t, s, func(q *store.Queries) error {
				u, err := q.GetUser(t.Context(), "u1")
				if err != nil {
					return err
				}
				f, err = facts.User(t.Context(), q, u, at)
				return err
			})
			return f
		}
		want := policy.User{
			ID: "u1", Name: "alice", MFA: policy.On, MustChange: true, Generation: 7, LockedUntil: now.Add(time.Hour),
			Groups: []policy.Group{{ID: "g1", Name: "staff", MFA: policy.Off}}, Factors: []policy.Factor{policy.TOTP, policy.Backup, policy.Bypass},
		}
		if diff := cmp.Diff(want, get(facts.At{MachineID: "m1", Scope: policy.Remote, Now: now})); diff != "" {
			t.Error(diff)
		}
		want.LockedUntil = time.Time{}
		if diff := cmp.Diff(want, get(facts.At{MachineID: "m2", Now: now})); diff != "" {
			t.Errorf("another machine, any scope: %s", diff)
		}
		want.Factors = want.Factors[:2]
		if diff := cmp.Diff(want, get(facts.At{MachineID: "m1", Scope: policy.Logon, Now: now.Add(time.Hour)})); diff != "" {
			t.Errorf("when lock and code are over: %s", diff)
		}
		// A used backup code and a lost authenticator are none.
		update(t, s, func(ctx context.Context, tx *store.Tx) error {
			if _, err := tx.SpendBackupCode(ctx, db.SpendBackupCodeParams{ID: "b1", UserID: "u1", At: at}); err != nil {
				return err
			}
			_, err := tx.MarkAuthenticatorsLost(ctx, db.MarkAuthenticatorsLostParams{UserID: "u1", Kind: "totp"})
			return err
		})
		if f := get(facts.At{Scope: policy.Logon, Now: now}); len(f.Factors) != 0 {
			t.Errorf("factors: %v", f.Factors)
		}
		read(t, s, func(q *store.Queries) error {
			m, err := q.GetMachine(t.Context(), "m1")
			if diff := cmp.Diff(policy.Machine{ID: "m1", Name: "m1", Status: "active", Mode: policy.Enforced, SkipUnknown: true, OnlyAssigned: true}, facts.Machine(m)); diff != "" {
				t.Error(diff)
			}
			return err
		})
	})
}

func TestAWordThatIsNotKnownIsNeverTheWeakerOne(t *testing.T) {
	s := storetest.Open(t, store.Config{Database: storetest.SQLite(t)})
	addUser(t, s, "u1", "alice", func(p *db.InsertUserParams) { p.MFA = "offf" })
	addUser(t, s, "u2", "bob", func(p *db.InsertUserParams) { p.Activation = "soon" })
	read(t, s, func(q *store.Queries) error {
		u, err := q.GetUser(t.Context(), "u1")
		if err != nil {
			return err
		}
		if _, err := facts.User(t.Context(), q, u, facts.At{Now: now}); err == nil {
			t.Error("a 2FA setting that nobody knows was read")
		}
		u, err = q.GetUser(t.Context(), "u2")
		if !facts.NotYet(u, now) {
			t.Error("an activation that nobody knows is not yet")
		}
		return err
	})
	update(t, s, func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertPolicy(ctx, db.InsertPolicyParams{ID: "p1", Name: "broken", Body: `{"factors_online":"none"}`, CreatedAt: 1, UpdatedAt: 1})
	})
	read(t, s, func(q *store.Queries) error {
		if _, err := facts.Policies(t.Context(), q); err == nil {
			t.Error("a policy that does not parse was left out")
		}
		return nil
	})
}

func TestW5TheBestWindowIsTaken(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		addUser(t, s, "u1", "alice")
		addMachine(t, s, "m1", 1)
		add := func(id, boot string, opened, expires time.Duration, with ...policy.Factor) {
			b, _ := json.Marshal(with)
			update(t, s, func(ctx context.Context, tx *store.Tx) error {
				return tx.InsertWindow(ctx, db.InsertWindowParams{
					ID: id, UserID: "u1", MachineID: "m1", Boot: boot, OpenedAt: clock.Micros(now.Add(opened)), ExpiresAt: clock.Micros(now.Add(expires)),
					Scopes: "[]", Factors: string(b),
				})
			})
		}
		window := func(boot string) (w *policy.Window) {
			read(t, s, func(q *store.Queries) (err error) {
				w, err = facts.Window(t.Context(), q, "u1", "m1", boot, now)
				return err
			})
			return w
		}
		if window("b1") != nil {
			t.Error("a window out of nothing")
		}
		add("w1", "b1", -3*time.Hour, 0, policy.TOTP)                   // over
		add("w2", "b1", time.Minute, time.Hour, policy.TOTP)            // of the future
		add("w3", "b0", -time.Minute, time.Hour, policy.TOTP, "x", "y") // of another boot
		add("w4", "b1", -2*time.Hour, time.Hour, policy.TOTP, "backup") // the best
		add("w5", "b1", -time.Hour, time.Hour, policy.TOTP)             // younger, but opened with less
		if w := window("b1"); w == nil || !w.Opened.Equal(now.Add(-2*time.Hour)) || len(w.Factors) != 2 {
			t.Errorf("took %+v", w)
		}
		if w := window("b0"); w == nil || w.Boot != "b0" {
			t.Errorf("took %+v", w)
		}
		update(t, s, func(ctx context.Context, tx *store.Tx) error {
			_, err := tx.EndWindows(ctx, db.EndWindowsParams{UserID: "u1", At: clock.Micros(now), Reason: "admin"})
			return err
		})
		if w := window("b1"); w != nil {
			t.Errorf("W7: an ended window was taken: %+v", w)
		}
	})
}

func TestPeer(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "fe80::1%eth0": "fe80::1", "2001:db8::1": "2001:db8::1",
		"": "invalid IP", "host.example.org": "invalid IP", "192.0.2.1:22": "invalid IP", "0300.0.2.1": "invalid IP",
	} {
		if got := facts.Peer(in).String(); got != want {
			t.Errorf("Peer(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestMayPrepare(t *testing.T) {
	good := db.Conversation{MachineID: "m", UserID: "u", Outcome: "allow", Stage: facts.StageAllowedOffline, MFAAt: clock.Micros(now)}
	for name, c := range map[string]struct {
		change func(*db.Conversation)
		after  time.Duration
		want   bool
	}{
		"just now":                      {nil, 0, true},
		"five minutes ago":              {nil, 5 * time.Minute, true},
		"more than five minutes ago":    {nil, 5*time.Minute + 1, false},
		"in the future":                 {nil, -time.Second, false},
		"without an MFA":                {func(c *db.Conversation) { c.MFAAt = 0 }, 0, false},
		"of another machine":            {func(c *db.Conversation) { c.MachineID = "m2" }, 0, false},
		"of nobody":                     {func(c *db.Conversation) { c.UserID = "" }, 0, false},
		"under way":                     {func(c *db.Conversation) { c.Outcome = facts.Open }, 0, false},
		"denied":                        {func(c *db.Conversation) { c.Outcome = "deny" }, 0, false},
		"left to the machine":           {func(c *db.Conversation) { c.Outcome = "ignore" }, 0, false},
		"the person said not now":       {func(c *db.Conversation) { c.Stage = facts.StageAllowed }, 0, false},
		"a stage that nobody knows yet": {func(c *db.Conversation) { c.Stage = "" }, 0, false},
	} {
		conv := good
		if c.change != nil {
			c.change(&conv)
		}
		if got := facts.MayPrepare(conv, "m", now.Add(c.after)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
