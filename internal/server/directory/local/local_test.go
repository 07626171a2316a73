package local

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/secret"
	"latchkey/internal/server/directory"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/store/db"
)

var (
	cheap = Cost{Memory: 64, Time: 1, Threads: 1}
	start = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
)

func open(t testing.TB, c Config) *Directory {
	t.Helper()
	if c.Clock == nil {
		c.Clock = clock.NewManual(start)
	}
	if c.Cost == (Cost{}) {
		c.Cost = cheap
	}
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func must(t testing.TB, d *Directory, password string) string {
	t.Helper()
	h, err := d.Hash(t.Context(), "somebody", secret.FromString(password))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestVerify(t *testing.T) {
	d := open(t, Config{MaxAge: 90 * 24 * time.Hour})
	good := must(t, d, "correct horse battery")
	now := clock.Micros(start)
	user := func(change func(*db.User)) *db.User {
		u := &db.User{Name: "alice", PasswordHash: good, PasswordChangedAt: now, Activation: facts.ActivationNow}
		if change != nil {
			change(u)
		}
		return u
	}
	for name, c := range map[string]struct {
		user     *db.User
		password string
		want     directory.Outcome
	}{
		"the right password is accepted":               {user(nil), "correct horse battery", directory.Accepted},
		"a wrong password is rejected":                 {user(nil), "correct horse batterz", directory.Rejected},
		"an empty password is rejected":                {user(nil), "", directory.Rejected},
		"a longer one with the right head is rejected": {user(nil), "correct horse battery" + strings.Repeat("x", 300), directory.Rejected},
		"nobody is rejected":                           {nil, "correct horse battery", directory.Rejected},
		"S9 must change":                               {user(func(u *db.User) { u.MustChange = true }), "correct horse battery", directory.MustChange},
		"S9 must change with a wrong password is wrong": {
			user(func(u *db.User) { u.MustChange = true }), "x", directory.Rejected,
		},
		"S9 expired": {
			user(func(u *db.User) { u.PasswordChangedAt -= int64(90 * 24 * time.Hour / time.Microsecond) }), "correct horse battery", directory.Expired,
		},
		"D1 a disabled user is rejected": {user(func(u *db.User) { u.Disabled = true }), "correct horse battery", directory.Rejected},
		"D1 a user of tomorrow is rejected": {
			user(func(u *db.User) { u.Activation, u.ActivateAt = facts.ActivationAt, now+1 }), "correct horse battery", directory.Rejected,
		},
		"D1 an activation nobody knows is rejected": {
			user(func(u *db.User) { u.Activation = "whenever" }), "correct horse battery", directory.Rejected,
		},
		"D1 a user of just now is accepted": {
			user(func(u *db.User) { u.Activation, u.ActivateAt = facts.ActivationAt, now }), "correct horse battery", directory.Accepted,
		},
		"a user without a password is rejected": {user(func(u *db.User) { u.PasswordHash = "" }), "", directory.Rejected},
		"a damaged hash is rejected":            {user(func(u *db.User) { u.PasswordHash = "$argon2id$v=19$m=64,t=1,p=1$AAAA" }), "correct horse battery", directory.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			if got := d.Verify(t.Context(), c.user, secret.FromString(c.password)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNewPasswordsAreJudged(t *testing.T) {
	d := open(t, Config{})
	for name, c := range map[string]struct{ password, want string }{
		"short":             {"elevencharz", "at least 12"},
		"empty":             {"", "at least 12"},
		"long":              {strings.Repeat("ab", 129), "at most 256"},
		"with the name":     {"xxAliCe2026yy", "user name"},
		"one letter":        {strings.Repeat("z", 12), "again and again"},
		"with a line end":   {"twelve\nletters", "line end"},
		"twelve characters": {"zwölfzeichen", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := d.Hash(t.Context(), "alice", secret.FromString(c.password))
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if f := fault.Of(err); f.Code != fault.Invalid || !strings.Contains(f.Public(), c.want) || !strings.Contains(f.Public(), "password: ") {
				t.Errorf("got %v, want a fault of the field password with %q", err, c.want)
			}
		})
	}
}

func TestProposeAndSame(t *testing.T) {
	d := open(t, Config{})
	u := db.User{Name: "alice", PasswordHash: must(t, d, "correct horse battery")}
	var r *directory.Refusal
	if _, err := d.Propose(t.Context(), u, secret.FromString("correct horse battery")); !errors.As(err, &r) || !strings.Contains(r.Text, "old one") {
		t.Errorf("the old password: %v", err)
	}
	p, err := d.Propose(t.Context(), u, secret.FromString("another horse battery"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(p), "horse") {
		t.Error("the proposal holds the password")
	}
	for again, want := range map[string]bool{"another horse battery": true, "another horse batterx": false, "": false} {
		if got, err := d.Same(t.Context(), p, secret.FromString(again)); err != nil || got != want {
			t.Errorf("Same(%q) = %v, %v", again, got, err)
		}
	}
}

func TestOnlyABoundedNumberWaits(t *testing.T) {
	d := open(t, Config{Slots: 1, Queue: 2})
	leave, err := d.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d.Busy() {
		t.Error("busy although two may wait")
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := d.enter(ctx); !errors.Is(err, directory.ErrBusy) {
				t.Errorf("gave up waiting: %v", err)
			}
		})
	}
	for !d.Busy() {
		time.Sleep(time.Millisecond)
	}
	if got := d.Verify(t.Context(), nil, secret.FromString("x")); got != directory.Unavailable {
		t.Errorf("with a full queue: %q", got)
	}
	cancel()
	wg.Wait()
	leave()
	if d.waiting.Load() != 0 || d.Busy() {
		t.Errorf("%d are still counted", d.waiting.Load())
	}
	if got := d.Verify(t.Context(), nil, secret.FromString("x")); got != directory.Rejected {
		t.Errorf("afterwards: %q", got)
	}
}

func TestTheDefaultCostIsThatOfTheDecision(t *testing.T) {
	d, err := New(Config{Clock: clock.NewManual(start)})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(must(t, d, "correct horse battery"), "$argon2id$v=19$m=65536,t=3,p=1$") {
		t.Error("another cost")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(format(cheap, make([]byte, 16), make([]byte, 32)))
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=+64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		c, salt, hash, err := parse(s)
		if err != nil {
			return
		}
		if c.Memory > maxMemory || c.Time > maxTime || c.Threads == 0 {
			t.Errorf("believed %+v", c)
		}
		if c2, salt2, hash2, err := parse(format(c, salt, hash)); err != nil || c2 != c || string(salt2) != string(salt) || string(hash2) != string(hash) {
			t.Errorf("%q does not come back", s)
		}
	})
}
