package push_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/policy"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/desk"
	"latchkey/internal/server/desk/desktest"
	"latchkey/internal/server/factor"
	factorpush "latchkey/internal/server/factor/push"
	"latchkey/internal/server/phoneapi"
	"latchkey/internal/server/push"
	"latchkey/internal/server/push/phonetest"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// rig is a server's phones' door on a real TLS listener, and a service that delivers to
// the given place.
type rig struct {
	testing.TB
	*desktest.Rig
	clock   clock.Clock
	service *push.Service
	plug    factor.Waiter
	url     string
	http    *http.Client
	anna    db.User
}

func newRig(t testing.TB, c clock.Clock, database, replica string, roots *x509.CertPool) *rig {
	t.Helper()
	s := storetest.Open(t, store.Config{Database: database, Clock: c, Replica: replica})
	r := &rig{TB: t, Rig: desktest.New(t, s, c), clock: c}
	r.service = push.New(push.Deps{
		Store: s, Box: r.Keys.Box, Pepper: r.Keys.Pepper, Random: rand.Reader, Clock: c, PeopleURL: func() string { return desktest.People },
		Delivery: push.Delivery{Private: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Roots: roots},
	})
	r.plug = factorpush.New(r.service)
	door := phoneapi.New(phoneapi.Deps{
		Push: r.service, Desk: r.Desk, Store: s, Clock: c, PerPhone: rate.Rate{PerSecond: 1e6, Burst: 1e6}, Rate: rate.Rate{PerSecond: 1e6, Burst: 1e6},
	})
	srv := httptest.NewTLSServer(door)
	t.Cleanup(func() {
		door.Stop()
		srv.Close()
	})
	r.url, r.http = srv.URL, srv.Client()
	return r
}

func (r *rig) ok(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) user(name string) (u db.User) {
	r.Helper()
	_, err := r.AddUser(context.Background(), desk.Root(), rest.NewUser{Name: name})
	r.ok(err)
	r.ok(r.Store.Read(context.Background(), func(q *store.Queries) (err error) {
		u, err = q.GetUserByName(context.Background(), name)
		return err
	}))
	return u
}

func (r *rig) phone(user, name string) *phonetest.Phone {
	r.Helper()
	code, err := r.AddPhone(context.Background(), desk.Root(), user)
	r.ok(err)
	p, err := phonetest.New(r.http, r.clock)
	r.ok(err)
	p.Base = r.url
	r.ok(p.Enrol(context.Background(), code.Link.Show(), name))
	return p
}

func ask(u db.User, ticket, machine string, now time.Time) factor.Ask {
	return factor.Ask{
		User: u, Ticket: ticket, Door: factor.AtMachine, Machine: machine, Name: machine, Scope: policy.Logon, Service: "login", Now: now,
	}
}

func (r *rig) send(a factor.Ask) (sent factor.Sent) {
	r.Helper()
	r.ok(r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) (err error) {
		sent, err = r.plug.Send(ctx, tx, a)
		return err
	}))
	return sent
}

func (r *rig) judge(a factor.Ask) (v factor.Verdict) {
	r.Helper()
	r.ok(r.Store.Update(context.Background(), func(ctx context.Context, tx *store.Tx) (err error) {
		v, err = r.plug.Judge(ctx, tx, factor.Try{User: a.User, Machine: a.Machine, Scope: a.Scope, Typed: secret.FromString(""), Now: r.clock.Now(), Ticket: a.Ticket, Door: a.Door})
		return err
	}))
	return v
}
