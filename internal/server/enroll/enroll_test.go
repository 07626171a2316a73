package enroll_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/wire"
)

const url = "https://latchkey.example.org:8444"

func open(t *testing.T, s *store.Store) *enroll.Door {
	t.Helper()
	k, _, err := keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: s, Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := ca.Open(t.Context(), ca.Config{Store: s, Keys: k, Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	return enroll.New(enroll.Config{Store: s, Keys: k, CA: a, Clock: clock.Real, Log: slog.New(slog.DiscardHandler)})
}

func TestE4OrdersOfJoinTokens(t *testing.T) {
	storetest.Engines(t, func(t *testing.T, s *store.Store) {
		d := open(t, s)
		issue := func(o enroll.Order) (i enroll.Issued, err error) {
			err = s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
				i, err = d.Issue(ctx, tx, o)
				return err
			})
			return i, err
		}
		i, err := issue(enroll.Order{Name: "front desk", ServerURL: url, Actor: "root@local"})
		if err != nil {
			t.Fatal(err)
		}
		if life := time.Until(i.ExpiresAt); life < 23*time.Hour || life > 24*time.Hour {
			t.Errorf("it lasts %v", life)
		}
		tok, err := wire.DecodeToken(i.Text)
		if err != nil || tok.URL != url || tok.Secret.Len() != wire.TokenSecretSize {
			t.Errorf("%+v, %v", tok, err)
		}
		// The database holds the hash and not the secret.
		err = s.Read(t.Context(), func(q *store.Queries) error {
			rows, err := q.ListJoinTokens(t.Context(), db.ListJoinTokensParams{N: 10})
			if len(rows) != 1 || strings.Contains(string(rows[0].SecretHash), string(tok.Secret.Reveal())) || rows[0].Kind != enroll.Single {
				t.Errorf("%+v", rows)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name string
			o    enroll.Order
			says []string
		}{
			{"no address", enroll.Order{}, []string{"server_url", "allowed is https://HOST:PORT"}},
			{"plain HTTP", enroll.Order{ServerURL: "http://a:1"}, []string{"server_url", "https://"}},
			{"a name with an escape", enroll.Order{ServerURL: url, Name: "a\x1b[31m"}, []string{"name", "allowed are letters"}},
			{"a name of 10 kB", enroll.Order{ServerURL: url, Name: strings.Repeat("x", 10_000)}, []string{"name", "128"}},
			{"a name that looks like another", enroll.Order{ServerURL: url, Name: "p\u0430ypal"}, []string{"name"}},
			{"a name for many", enroll.Order{ServerURL: url, Name: "pc", Mass: true}, []string{"name", "mass token"}},
			{"too long a life", enroll.Order{ServerURL: url, Life: 31 * 24 * time.Hour}, []string{"expires", "720h"}},
			{"no life", enroll.Order{ServerURL: url, Life: -time.Hour}, []string{"expires"}},
			{"everything at once", enroll.Order{ServerURL: "x", Name: "-", Life: 1}, []string{"server_url", "name", "expires"}},
		} {
			_, err := issue(c.o)
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			for _, word := range c.says {
				if !strings.Contains(fault.Of(err).Public(), word) {
					t.Errorf("%s: it does not say %q: %s", c.name, word, fault.Of(err).Public())
				}
			}
		}
		err = s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := d.Dismiss(ctx, tx, "nobody", enroll.Revoked)
			return err
		})
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("a machine that does not exist: %v", err)
		}
		if err := s.Update(t.Context(), func(ctx context.Context, tx *store.Tx) error {
			_, err := d.Dismiss(ctx, tx, "nobody", enroll.Active)
			return err
		}); err == nil {
			t.Error("a machine was dismissed as active")
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("pc1", "linux", "boot", "software", []byte("{}"), []byte(nil))
	f.Add("\x1b[31m\u202e", strings.Repeat("x", 300), "", "tpm", []byte(`{"a":1}`), []byte{0, 35})
	f.Fuzz(func(t *testing.T, host, system, boot, class string, info, key []byte) {
		got, err := enroll.Clean(wire.MachineFacts{Hostname: host, OS: system, AgentVersion: system, Boot: boot, Class: class, TPM: info, Parent: key, AttestKey: key})
		if err != nil {
			return
		}
		again, err := enroll.Clean(got)
		if err != nil || again.Hostname != got.Hostname || again.OS != got.OS || len(got.Hostname) > 253 || len(got.OS) > 128 {
			t.Errorf("%+v, %v", got, err)
		}
		if strings.ContainsAny(got.Hostname+got.OS+got.Boot, "\x1b\n\x00") {
			t.Errorf("%+v", got)
		}
	})
}
