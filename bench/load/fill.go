package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/clock"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

// person is a user with an authenticator app, or with a phone. A code works once, and so do those of the step before and the step after:
// a person signs in three times at once and then every half minute.
type person struct {
	name  string
	seed  secret.Bytes
	phone *phone // in place of the app

	mu   sync.Mutex
	last int64 // step whose code was given last
}

var app = otp.Params{Algorithm: otp.SHA1, Digits: 6, Period: 30}

// code is the next code that the server will take now; false if there is none before the next step.
func (p *person) code(now time.Time) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	step := app.Step(now)
	first := step - 1
	if now.Sub(now.Truncate(30*time.Second)) > 25*time.Second {
		first = step // the oldest would be too old when it arrives
	}
	next := max(first, p.last+1)
	if next > step+1 {
		return "", false
	}
	p.last = next
	return app.Code(p.seed, next), true
}

// member is a machine that the server knows, as its own process hears of it.
type member struct {
	ID   string `json:"id"`
	Cert []byte `json:"cert"`
}

// filling is what fill has made.
type filling struct {
	people  []*person
	members []member
	key     *ecdsa.PrivateKey // of all members
	ca      []byte
}

// stock says what is filled in.
type stock struct {
	users, machines int
	// windows: each machine has an open one of the first user.
	windows bool
	// phones: everybody has a phone in place of an app, and has lately been let in at the machine of the same number.
	phones bool
}

// fill writes users with authenticators, and machines, into the database before the server runs: by the server's own
// store, keys and CA, but without tokens, without an event for each, and with one key for all machines.
func (w *world) fill(ctx context.Context, st stock) (out *filling, err error) {
	if err := os.MkdirAll(w.data(), 0o700); err != nil {
		return nil, err
	}
	database := w.database
	if database == "" {
		database = "sqlite:" + filepath.Join(w.data(), "latchkey.db")
	}
	s, err := store.Open(ctx, store.Config{Database: database, Clock: clock.Real})
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	k, _, err := keys.Open(ctx, keys.Config{Dir: w.data(), Store: s, Clock: clock.Real})
	if err != nil {
		return nil, err
	}
	authority, _, err := ca.Open(ctx, ca.Config{Store: s, Keys: k, Clock: clock.Real})
	if err != nil {
		return nil, err
	}
	out = &filling{ca: authority.Certificate()}
	keeper := &factor.Keeper{Box: k.Box, Pepper: k.Pepper, Random: rand.Reader}
	now := time.Now()
	at := clock.Micros(now)
	ids := make([]string, st.users)
	err = batches(ctx, s, st.users, func(ctx context.Context, tx *store.Tx, i int) error {
		id, name := store.NewID(), fmt.Sprintf("user%05d", i)
		ids[i] = id
		err := tx.InsertUser(ctx, db.InsertUserParams{
			ID: id, Name: name, NameFold: name, Role: "none", Activation: facts.ActivationNow, MFA: facts.MFAInherit, CreatedAt: at, UpdatedAt: at,
		})
		if err != nil {
			return err
		}
		if st.phones {
			p, err := addPhone(ctx, tx, id, at)
			out.people = append(out.people, &person{name: name, phone: p})
			return err
		}
		seed, err := keeper.NewSeed(app)
		if err != nil {
			return err
		}
		if _, err := keeper.AddTOTP(ctx, tx, id, factor.TOTP{Params: app, Seed: seed}, now); err != nil {
			return err
		}
		out.people = append(out.people, &person{name: name, seed: seed})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if out.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	request, err := identity.Request(out.key, "machine")
	if err != nil {
		return nil, err
	}
	err = batches(ctx, s, st.machines, func(ctx context.Context, tx *store.Tx, i int) error {
		id := store.NewID()
		cert, err := authority.SignMachine(request, id)
		if err != nil {
			return err
		}
		number, err := tx.NextNumber(ctx, "machines")
		if err != nil {
			return err
		}
		err = tx.InsertMachine(ctx, db.InsertMachineParams{
			ID: id, Number: number, Name: fmt.Sprintf("pc%05d", i), Status: enroll.Active, Mode: "normal", UnknownUsers: "deny", AllUsers: true,
			TPMClass: "software", TPMInfo: "{}", WireVersion: wire.Version, JoinedAt: at, CreatedAt: at, UpdatedAt: at,
		})
		if err != nil {
			return err
		}
		err = tx.InsertMachineCertificate(ctx, db.InsertMachineCertificateParams{
			Serial: ca.Serial(cert), MachineID: id, NotBefore: clock.Micros(cert.NotBefore), NotAfter: clock.Micros(cert.NotAfter), Fingerprint: ca.Fingerprint(cert),
		})
		if err != nil {
			return err
		}
		if whose := ids[min(i, st.users-1)]; st.windows || st.phones {
			if st.windows {
				whose = ids[0]
			}
			if _, err := tx.KnowUser(ctx, db.KnowUserParams{MachineID: id, UserID: whose, Since: at}); err != nil {
				return err
			}
			err = tx.InsertWindow(ctx, db.InsertWindowParams{
				ID: store.NewID(), UserID: whose, MachineID: id, Boot: "boot", OpenedAt: at, ExpiresAt: clock.Micros(now.Add(8 * time.Hour)),
				Scopes: `["logon"]`, Factors: `["totp"]`,
			})
			if err != nil {
				return err
			}
		}
		out.members = append(out.members, member{id, cert.Raw})
		return nil
	})
	return out, err
}

// addPhone makes a phone with a key of its own, as an enrolment leaves it, without a push service.
func addPhone(ctx context.Context, tx *store.Tx, user string, at int64) (*phone, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p := &phone{device: store.NewID(), key: key}
	err = tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{
		ID: p.device, UserID: user, Kind: string(policy.Push), Name: "phone", Params: "{}", ConfirmedAt: at, CreatedAt: at,
	})
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return p, tx.InsertPushDevice(ctx, db.InsertPushDeviceParams{
		AuthenticatorID: p.device, UserID: user, PublicKey: der, Platform: "Android", Standalone: true, CreatedAt: at, SeenAt: at,
	})
}

// batches runs do for each number, some hundred in one transaction.
func batches(ctx context.Context, s *store.Store, n int, do func(context.Context, *store.Tx, int) error) error {
	const batch = 500
	for from := 0; from < n; from += batch {
		err := s.Update(ctx, func(ctx context.Context, tx *store.Tx) error {
			for i := from; i < min(n, from+batch); i++ {
				if err := do(ctx, tx, i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func pool(der []byte) (*x509.CertPool, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	p.AddCert(c)
	return p, nil
}
