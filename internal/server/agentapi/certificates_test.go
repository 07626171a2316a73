package agentapi_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/server/agentapi"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/wire"
)

// revoke revokes the machine's present certificate, and nothing else of it.
func (r *rig) revoke(s *store.Store, m *machine) {
	r.Helper()
	c, err := x509.ParseCertificate(m.cert)
	if err != nil {
		r.Fatal(err)
	}
	err = s.Update(r.Context(), func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.GetMachineCertificate(ctx, ca.Serial(c))
		if err != nil {
			return err
		}
		return ca.RevokeMachineCertificate(ctx, tx, row, ca.KeyCompromise, clock.Micros(r.clock.Now()))
	})
	if err != nil {
		r.Fatal(err)
	}
}

// cutWithin waits for the other end to close the connection.
func cutWithin(t *testing.T, conn io.Reader, limit time.Duration, begun time.Time) time.Duration {
	t.Helper()
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn)
		close(done)
	}()
	select {
	case <-done:
		return time.Since(begun)
	case <-time.After(limit):
		t.Errorf("the connection is open after %v", limit)
		return limit
	}
}

// TestARevokedCertificateIsCutWithinASecond: an open connection that says nothing, and a
// poll that hangs; by this server and by another on the same database.
func TestARevokedCertificateIsCutWithinASecond(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, other := r.joined(), r.joined()
		// A connection that has shown who it is and is silent since.
		idle, others := m.dial("http/1.1"), other.dial("http/1.1")
		for _, c := range []io.ReadWriter{idle, others} {
			_, _ = io.WriteString(c, "GET "+wire.PathProbe+" HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n")
			buf := make([]byte, 4096)
			if n, err := c.Read(buf); err != nil || !strings.Contains(string(buf[:n]), " 204 ") {
				t.Fatalf("%q, %v", buf[:n], err)
			}
		}
		serial := m.policy(0).Serial
		polled := make(chan wire.Problem, 1)
		go func() {
			_, p, _ := m.call("GET", wire.PathChanges+"?since="+strconv.FormatInt(serial, 10), nil, nil)
			polled <- p
		}()
		r.eventually("the poll", func() bool { return r.api.Polls() == 1 })
		begun := time.Now()
		r.revoke(r.store, m)
		select {
		case p := <-polled:
			if p.Code != "machine-unknown" || !strings.Contains(p.Detail, "revoked") {
				t.Errorf("%+v", p)
			}
			t.Logf("the poll was answered after %v", time.Since(begun))
		case <-time.After(time.Second):
			t.Error("the poll hangs on")
		}
		t.Logf("the connection was cut after %v", cutWithin(t, idle, time.Second, begun))
		// A new connection does not help, and each refusal is an event.
		m.connect()
		m.fails("GET", wire.PathProbe, nil, "machine-unknown")
		m.fails("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, "machine-unknown")
		r.eventually("the event", func() bool { return r.reasons(event.MachineRefused) == "machine.refused/certificate-revoked" })
		// The other machine has noticed nothing.
		_, _ = io.WriteString(others, "GET "+wire.PathProbe+" HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n")
		buf := make([]byte, 4096)
		if n, err := others.Read(buf); err != nil || !strings.Contains(string(buf[:n]), " 204 ") {
			t.Errorf("another machine's connection: %q, %v", buf[:n], err)
		}
		// It joins anew, as another machine.
		m.join(r.token(enroll.Order{}))
		m.must("GET", wire.PathProbe, nil, nil)
	})
}

// TestWhoIsRefusedByWhichCertificate: each with its event, once a minute.
func TestWhoIsRefusedByWhichCertificate(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m, other := r.joined(), r.joined()
	// One for another machine: the state folders were mixed up, or somebody lies.
	req := func(claim string) string {
		t.Helper()
		hr, err := http.NewRequest("GET", r.url+wire.PathProbe, nil)
		if err != nil {
			t.Fatal(err)
		}
		hr.Header.Set(wire.VersionHeader, m.version)
		hr.Header.Set(wire.MachineHeader, claim)
		res, err := m.http.Do(hr)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode == 204 {
			return ""
		}
		var p wire.Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
		return p.Code
	}
	if got := req(m.id); got != "" {
		t.Errorf("its own id: %q", got)
	}
	for range 3 {
		if got := req(other.id); got != "machine-unknown" {
			t.Errorf("another's id: %q", got)
		}
	}
	r.eventually("the event", func() bool { return r.reasons(event.MachineRefused) == "machine.refused/certificate-of-another" })
	if e := r.events(event.MachineRefused); e[0].MachineID != m.id || !strings.Contains(string(e[0].Data), other.id) || e[0].Address != "127.0.0.1" {
		t.Errorf("%+v", e[0])
	}
	// One that the database knows as another machine's.
	cert, err := r.ca.SignMachine(m.csr(), m.id)
	if err != nil {
		t.Fatal(err)
	}
	r.change(func(tx *store.Tx) error {
		return tx.InsertMachineCertificate(t.Context(), db.InsertMachineCertificateParams{
			Serial: ca.Serial(cert), MachineID: other.id, NotBefore: clock.Micros(cert.NotBefore), NotAfter: clock.Micros(cert.NotAfter), Fingerprint: ca.Fingerprint(cert),
		})
	})
	m.cert = cert.Raw
	m.connect()
	m.fails("GET", wire.PathProbe, nil, "machine-unknown")
	m.fails("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, "machine-unknown")

	// A user's certificate is no machine's: the handshake ends.
	user, err := r.ca.SignUser(m.csr(), ca.User{ID: m.id, Name: "alice", MachineID: m.id}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m.cert = user.Raw
	m.connect()
	if status, p, err := m.call("GET", wire.PathProbe, nil, nil); err == nil {
		t.Errorf("a user's certificate: %d %+v", status, p)
	}
	r.eventually("the event", func() bool { return strings.Contains(r.reasons(event.MachineRefused), "foreign-certificate") })

	// An expired one may renew, and nothing else.
	late := r.joined()
	r.clock.off = ca.MachineLife + time.Hour
	late.connect()
	for range 3 {
		late.fails("POST", wire.PathHello, wire.Hello{Facts: late.facts}, "unauthorized")
	}
	r.eventually("the event", func() bool { return strings.Contains(r.reasons(event.MachineRefused), "certificate-expired") })
	var renewed wire.RenewReply
	late.must("POST", wire.PathRenew, wire.Renew{CSR: late.csr()}, &renewed)
	late.cert = renewed.Certificate
	late.connect()
	late.must("GET", wire.PathProbe, nil, nil)
	// A minute has not gone by since each.
	counts := map[string]int{}
	for _, e := range r.events(event.MachineRefused) {
		counts[e.Reason]++
	}
	if counts["certificate-expired"] != 1 || counts["foreign-certificate"] != 1 || counts["certificate-of-another"] != 1 {
		t.Errorf("%v", counts)
	}
}

// TestAnotherReplicaCuts: the certificate is revoked by one server, the machine is
// connected to another.
func TestAnotherReplicaCuts(t *testing.T) {
	database := storetest.PostgreSQL(t)
	stores := [2]*store.Store{
		storetest.Open(t, store.Config{Database: database, Replica: "a"}),
		storetest.Open(t, store.Config{Database: database, Replica: "b"}),
	}
	r := newRig(t, stores[0], func(c *agentapi.Config) { c.Log = slog.New(slog.DiscardHandler) })
	m := r.joined()
	idle := m.dial("http/1.1")
	_, _ = io.WriteString(idle, "GET "+wire.PathProbe+" HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n")
	buf := make([]byte, 4096)
	if n, err := idle.Read(buf); err != nil || !strings.Contains(string(buf[:n]), " 204 ") {
		t.Fatalf("%q, %v", buf[:n], err)
	}
	serial := m.policy(0).Serial
	polled := make(chan wire.Problem, 1)
	go func() {
		_, p, _ := m.call("GET", wire.PathChanges+"?since="+strconv.FormatInt(serial, 10), nil, nil)
		polled <- p
	}()
	r.eventually("the poll", func() bool { return r.api.Polls() == 1 })
	begun := time.Now()
	r.revoke(stores[1], m)
	select {
	case p := <-polled:
		t.Logf("the poll was answered after %v: %s", time.Since(begun), p.Code)
	case <-time.After(time.Second):
		t.Error("the poll hangs on")
	}
	t.Logf("the connection was cut after %v", cutWithin(t, idle, time.Second, begun))
}

func TestTheRevocationListAtTheMachinesDoor(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	r.revoke(r.store, m)
	anybody := r.newMachine()
	res, err := anybody.http.Get(r.url + ca.ListPath)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	der, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res.Status, err)
	}
	if l, err := x509.ParseRevocationList(der); err != nil || len(l.RevokedCertificateEntries) != 1 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestM4AUsersCertificateOverTheMachinesDoor: it takes the setting, a user of the machine
// and a window that the user has opened there.
func TestM4AUsersCertificateOverTheMachinesDoor(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		userID := store.NewID()
		r.change(func(tx *store.Tx) error {
			return tx.InsertUser(t.Context(), db.InsertUserParams{ID: userID, Name: "alice", NameFold: "alice", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
		})
		ask := wire.UserCertificate{User: "alice", CSR: m.csr(), Name: "laptop"}
		off := m.fails("POST", wire.PathUserCert, ask, "conflict")
		set := func(use string) {
			r.change(func(tx *store.Tx) error {
				return ca.WriteUserSettings(t.Context(), tx, ca.UserSettings{Use: use, Life: ca.UserLife}, 1)
			})
		}
		set(ca.Portal)
		no := m.fails("POST", wire.PathUserCert, ask, "conflict")
		if no.Detail == off.Detail {
			t.Errorf("it does not say that they are off: %q", off.Detail)
		}
		// Whoever is nobody is answered the same.
		if other := m.fails("POST", wire.PathUserCert, wire.UserCertificate{User: "nobody", CSR: m.csr()}, "conflict"); other.Detail != no.Detail {
			t.Errorf("%q and %q", other.Detail, no.Detail)
		}
		windowWith := func(from time.Duration, factors string) {
			now := r.clock.Now()
			r.change(func(tx *store.Tx) error {
				return tx.InsertWindow(t.Context(), db.InsertWindowParams{
					ID: store.NewID(), UserID: userID, MachineID: m.id, Boot: "b", OpenedAt: clock.Micros(now.Add(from)), ExpiresAt: clock.Micros(now.Add(from + 8*time.Hour)), Scopes: "[]", Factors: factors,
				})
			})
		}
		window := func(from time.Duration) { windowWith(from, `["totp"]`) }
		window(-9 * time.Hour) // over
		m.fails("POST", wire.PathUserCert, ask, "conflict")
		// A window of factors that do not open the console earns none: the certificate might.
		windowWith(-time.Minute, `["mail","sms","backup"]`)
		m.fails("POST", wire.PathUserCert, ask, "conflict")
		windowWith(-time.Minute, `[]`)
		m.fails("POST", wire.PathUserCert, ask, "conflict")
		window(-time.Minute)
		var got wire.UserCertificateReply
		m.must("POST", wire.PathUserCert, ask, &got)
		c, err := x509.ParseCertificate(got.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		u, err := r.ca.RecogniseUser(c)
		if err != nil || u.ID != userID || u.MachineID != m.id || got.UserName != "alice" {
			t.Errorf("%+v, %v", u, err)
		}
		m.fails("POST", wire.PathUserCert, wire.UserCertificate{User: "alice", CSR: []byte("x")}, "invalid")
		// Another machine has no part in it.
		other := r.joined()
		other.fails("POST", wire.PathUserCert, wire.UserCertificate{User: "alice", CSR: other.csr()}, "conflict")
		// The window is over: a renewal takes a new MFA since the certificate.
		r.clock.off += 20 * 24 * time.Hour
		m.connect()
		m.fails("POST", wire.PathUserCert, ask, "conflict")
		windowWith(-9*time.Hour, `["mail"]`)
		m.fails("POST", wire.PathUserCert, ask, "conflict")
		window(-9 * time.Hour)
		m.must("POST", wire.PathUserCert, ask, &got)
		if e := r.events(event.CertificateIssued); len(e) != 2 || e[0].Reason+e[1].Reason != "renewed" || e[0].MachineID != m.id {
			t.Errorf("%+v", e)
		}
		// With the machine they end.
		r.change(func(tx *store.Tx) error {
			_, err := r.enroll.Dismiss(t.Context(), tx, m.id, enroll.Lost)
			return err
		})
		err = r.store.Read(t.Context(), func(q *store.Queries) error {
			rows, err := q.ListUserCertificates(t.Context(), db.ListUserCertificatesParams{UserID: userID, N: 10})
			for _, row := range rows {
				if row.UserCertificate.RevokedAt == 0 {
					t.Errorf("%s is good on a lost machine", row.UserCertificate.Serial)
				}
			}
			if len(rows) != 2 {
				t.Errorf("%d certificates", len(rows))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// TestAWindowThatWasEndedEarnsNoRenewal: a certificate is renewed for an MFA since it was
// issued, but for none that somebody has ended since because it may have been another's.
func TestAWindowThatWasEndedEarnsNoRenewal(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		r.change(func(tx *store.Tx) error {
			return ca.WriteUserSettings(t.Context(), tx, ca.UserSettings{Use: ca.Portal, Life: ca.UserLife}, 1)
		})
		open := func(user string, from time.Duration) {
			now := r.clock.Now().Add(from)
			r.change(func(tx *store.Tx) error {
				return tx.InsertWindow(t.Context(), db.InsertWindowParams{
					ID: store.NewID(), UserID: user, MachineID: m.id, Boot: "b", OpenedAt: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(8 * time.Hour)), Scopes: "[]", Factors: `["totp"]`,
				})
			})
		}
		users, reasons := map[string]string{}, []string{"", "superseded", "logoff", "revoked", "reported", "factors-changed", "password-changed", "a-word-to-come"}
		for _, reason := range reasons {
			name := "user-" + reason
			id := store.NewID()
			users[reason] = id
			r.change(func(tx *store.Tx) error {
				return tx.InsertUser(t.Context(), db.InsertUserParams{ID: id, Name: name, NameFold: name, Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1})
			})
			open(id, -time.Minute)
			m.must("POST", wire.PathUserCert, wire.UserCertificate{User: name, CSR: m.csr(), Name: "laptop"}, &wire.UserCertificateReply{})
		}
		r.clock.off += 10 * 24 * time.Hour
		m.connect()
		for i, reason := range reasons {
			ask := wire.UserCertificate{User: "user-" + reason, CSR: m.csr(), Name: "laptop"}
			open(users[reason], -20*time.Hour) // over, and before whatever ends the other
			open(users[reason], -time.Hour)
			if reason != "" {
				r.change(func(tx *store.Tx) error {
					rows, err := tx.EndWindows(t.Context(), db.EndWindowsParams{UserID: users[reason], At: clock.Micros(r.clock.Now()), Reason: reason})
					if len(rows) != 1 {
						t.Errorf("%d windows of %s", len(rows), ask.User)
					}
					return err
				})
			}
			if i < 3 {
				m.must("POST", wire.PathUserCert, ask, &wire.UserCertificateReply{})
				continue
			}
			m.fails("POST", wire.PathUserCert, ask, "conflict")
			// The next MFA counts again.
			r.clock.off += time.Minute
			open(users[reason], -time.Second)
			m.must("POST", wire.PathUserCert, ask, &wire.UserCertificateReply{})
		}
	})
}
