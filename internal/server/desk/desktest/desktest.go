// Package desktest gives tests a desk with everything that it stands on: a real
// store, real keys, CA, enrolment, factors and the directory of local users. Only
// the hash of passwords is made cheap.
package desktest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/directory/local"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/passkey"
	"latchkey/internal/server/post"
	"latchkey/internal/server/push"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
)

// Rig is a desk and its parts.
type Rig struct {
	*desk.Desk
	Store  *store.Store
	Clock  clock.Clock
	Keys   *keys.Keys
	CA     *ca.Authority
	Door   *enroll.Door
	Keeper *factor.Keeper
	Push   *push.Service
	Post   *post.Post
}

// URL is the address of the machines' listener that the rig's tokens name.
const URL = "https://latchkey.test:8444"

// People is the address of the people's listener, as links to phones name it.
const People = "https://latchkey.test"

// New makes a rig over an empty store, with a default policy.
func New(t testing.TB, s *store.Store, c clock.Clock) *Rig {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	k, _, err := keys.Open(ctx, keys.Config{Dir: t.TempDir(), Store: s, Clock: c})
	must(err)
	authority, _, err := ca.Open(ctx, ca.Config{Store: s, Keys: k, Clock: c})
	must(err)
	door := enroll.New(enroll.Config{Store: s, Keys: k, CA: authority, Clock: c, Log: slog.New(slog.DiscardHandler)})
	keeper := &factor.Keeper{Box: k.Box, Pepper: k.Pepper, Random: rand.Reader}
	passwords, err := local.New(local.Config{Clock: c, Cost: local.Cost{Memory: 64, Time: 1, Threads: 1}})
	must(err)
	sender := post.New(post.Config{Store: s, Keys: k, Clock: c, Random: rand.Reader})
	s.OnEvent(sender.Notice)
	phones := push.New(push.Deps{
		Store: s, Box: k.Box, Pepper: k.Pepper, Random: rand.Reader, Clock: c, PeopleURL: func() string { return People },
		Delivery: push.Delivery{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	})
	d := desk.New(desk.Config{
		Post:  sender,
		Store: s, Keys: k, Clock: c, Random: rand.Reader, Passwords: passwords, Factors: keeper, Door: door, Push: phones, PeopleURL: func() string { return People },
		Passkeys: passkey.New(passkey.Config{Random: rand.Reader, URL: func() string { return People }}),
		CA:       authority.Fingerprint, Issuer: authority, ServerURL: URL, Version: "test",
	})
	must(s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.GetDefaultPolicy(ctx); err == nil {
			return nil
		} else if !store.IsNotFound(err) {
			return err
		}
		return tx.InsertPolicy(ctx, db.InsertPolicyParams{
			ID: store.NewID(), Name: "default", IsDefault: true, Body: "{}", CreatedAt: clock.Micros(c.Now()), UpdatedAt: clock.Micros(c.Now()),
		})
	}))
	return &Rig{Desk: d, Store: s, Clock: c, Keys: k, CA: authority, Door: door, Keeper: keeper, Push: phones, Post: sender}
}

// Machine makes a machine of the status, as if it had joined.
func (r *Rig) Machine(t testing.TB, name, status string) db.Machine {
	t.Helper()
	var m db.Machine
	now := clock.Micros(r.Clock.Now())
	err := r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		n, err := tx.NextNumber(ctx, "machines")
		if err != nil {
			return err
		}
		id := store.NewID()
		err = tx.InsertMachine(ctx, db.InsertMachineParams{
			ID: id, Number: n, Name: name, Status: status, Mode: "normal", UnknownUsers: "deny", AllUsers: true, OS: "linux Debian",
			AgentVersion: "1.0", TPMClass: "software", TPMInfo: "{}", Boot: "boot-1", Address: "192.0.2.10:5555", JoinedAt: now, LastSeenAt: now,
			CreatedAt: now, UpdatedAt: now,
		})
		if err != nil {
			return err
		}
		err = tx.InsertMachineCertificate(ctx, db.InsertMachineCertificateParams{Serial: id, MachineID: id, NotBefore: now, NotAfter: now + 1<<40, Fingerprint: id})
		if err != nil {
			return err
		}
		m, err = tx.GetMachine(ctx, id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Vault makes offline data of the class, as if the user had enrolled the machine.
func (r *Rig) Vault(t testing.TB, userID, machineID, class string, until int64, uses int64) {
	t.Helper()
	now := clock.Micros(r.Clock.Now())
	err := r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		u, err := tx.GetUser(ctx, userID)
		if err != nil {
			return err
		}
		if _, err := tx.KnowUser(ctx, db.KnowUserParams{MachineID: machineID, UserID: userID, Since: now}); err != nil {
			return err
		}
		g, err := tx.NextVaultGeneration(ctx, db.NextVaultGenerationParams{UserID: userID, MachineID: machineID})
		if err != nil {
			return err
		}
		return tx.InsertVault(ctx, db.InsertVaultParams{
			UserID: userID, MachineID: machineID, Generation: g, State: "active", Class: class, Key: []byte("k"), FailLimit: 10, UseLimit: 60,
			Period: 30, EnrolledAt: now, SyncedAt: now, LastMFAAt: now, ExpiresAt: until, UsesLeft: uses, Used: max(0, int64(policy.NewPolicy().OfflineSignins)-uses), PasswordGeneration: u.PasswordGeneration,
			CreatedAt: now, UpdatedAt: now,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Window opens a window, as if the user had completed an MFA.
func (r *Rig) Window(t testing.TB, userID, machineID, boot string, until int64, factors ...policy.Factor) string {
	t.Helper()
	list := `["totp"]`
	if len(factors) > 0 {
		list = `["` + string(factors[0]) + `"]`
	}
	id := store.NewID()
	err := r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertWindow(ctx, db.InsertWindowParams{
			ID: id, UserID: userID, MachineID: machineID, Boot: boot, OpenedAt: clock.Micros(r.Clock.Now()), ExpiresAt: until, Scopes: "[]", Factors: list,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Lock locks a user out on a machine (empty: across machines) until a time.
func (r *Rig) Lock(t testing.TB, userID, machineID string, until int64) {
	t.Helper()
	err := r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		if _, err := tx.CountAttempt(ctx, db.CountAttemptParams{UserID: userID, MachineID: machineID, At: clock.Micros(r.Clock.Now())}); err != nil {
			return err
		}
		_, err := tx.BlockAttempts(ctx, db.BlockAttemptsParams{UserID: userID, MachineID: machineID, LockedUntil: until})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Password is a password that the directory accepts for anybody.
func Password() secret.Bytes { return secret.FromString("correct horse battery") }

// Certificate issues a certificate to the user of the id, made on the machine of the id
// (empty: by request).
func (r *Rig) Certificate(t testing.TB, userID, machineID string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	who := ca.User{ID: userID, Name: "somebody", MachineID: machineID}
	c, err := r.CA.SignUser(csr, who, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) error {
		return ca.KeepUser(ctx, tx, c, who, "a browser", ca.KeyRequest, clock.Micros(r.Clock.Now()))
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
