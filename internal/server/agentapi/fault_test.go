package agentapi_test

import (
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey/internal/assertion/softkey"
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

// The answer to a renewal is lost on its way, as where the server is killed behind the
// commit, again and again: the certificate that the machine holds stays good, and the first
// that arrives takes its place. What was revoked meanwhile is not renewed.
func TestARenewalWhoseAnswerIsLostIsAskedForAgain(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		var reply wire.RenewReply
		for range 4 {
			m.must("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, &reply) // nobody hears it
			m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
		}
		held := m.cert
		m.must("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, &reply)
		m.cert = reply.Certificate
		m.connect()
		m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
		if n := len(r.events(event.MachineRenewed)); n != 5 {
			t.Errorf("%d renewals were written down", n)
		}
		// All of them end with the machine.
		r.change(func(tx *store.Tx) error {
			_, err := r.enroll.Dismiss(t.Context(), tx, m.id, enroll.Lost)
			return err
		})
		for _, cert := range [][]byte{m.cert, held} {
			m.cert = cert
			m.connect()
			m.fails("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, "machine-refused")
		}
		r.read(func(q *store.Queries) error {
			rows, err := q.ListMachineCertificates(t.Context(), m.id)
			for _, c := range rows {
				if c.RevokedAt == 0 {
					t.Errorf("%s is good", c.Serial)
				}
			}
			if len(rows) != 6 {
				t.Errorf("%d certificates", len(rows))
			}
			return err
		})
	})
}

// The same for a user's: the one that the user has and uses stays good until another has
// arrived, however often that is asked for.
func TestAUsersRenewalWhoseAnswerIsLostTakesNothingAway(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m := r.joined()
		userID := store.NewID()
		r.change(func(tx *store.Tx) error {
			if err := tx.InsertUser(t.Context(), db.InsertUserParams{ID: userID, Name: "alice", NameFold: "alice", Role: "none", Activation: "now", MFA: "inherit", CreatedAt: 1, UpdatedAt: 1}); err != nil {
				return err
			}
			now := r.clock.Now()
			if err := tx.InsertWindow(t.Context(), db.InsertWindowParams{
				ID: store.NewID(), UserID: userID, MachineID: m.id, Boot: "b", OpenedAt: clock.Micros(now), ExpiresAt: clock.Micros(now.Add(8 * time.Hour)), Scopes: "[]", Factors: `["totp"]`,
			}); err != nil {
				return err
			}
			return ca.WriteUserSettings(t.Context(), tx, ca.UserSettings{Use: ca.Portal, Life: ca.UserLife}, 1)
		})
		get := func() string {
			t.Helper()
			r.clock.off += time.Minute
			var got wire.UserCertificateReply
			m.must("POST", wire.PathUserCert, wire.UserCertificate{User: "alice", CSR: m.csr(), Name: "laptop"}, &got)
			c, err := x509.ParseCertificate(got.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			return ca.Serial(c)
		}
		good := func(serial string) (yes bool) {
			r.read(func(q *store.Queries) error {
				row, err := q.GetUserCertificate(t.Context(), serial)
				yes = row.UserCertificate.RevokedAt == 0
				return err
			})
			return yes
		}
		use := func(serial string) {
			r.change(func(tx *store.Tx) error {
				_, err := tx.SeeUserCertificate(t.Context(), db.SeeUserCertificateParams{Serial: serial, At: clock.Micros(r.clock.Now())})
				return err
			})
		}
		held := get()
		use(held)
		var lost []string
		for range 4 {
			lost = append(lost, get())
			if !good(held) {
				t.Fatalf("what the user holds has ended, and its %d. renewal was lost", len(lost))
			}
		}
		for _, serial := range lost[:2] {
			if good(serial) {
				t.Error("one that nobody has is good beside two others")
			}
		}
		arrived := get()
		use(arrived)
		if get(); !good(arrived) || good(held) {
			t.Errorf("the one in use is good: %v; the one before it: %v", good(arrived), good(held))
		}
	})
}

// The server's clock is put back, also behind the day on which a machine's certificate was
// issued: the machine is no stranger, and renews. One that is revoked is refused as before.
func TestMachinesAreKnownToAServerWhoseClockIsPutBack(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, out := r.joined(), r.joined()
		r.revoke(r.store, out)
		// The machine's own clock is right, and it knows the server by the name of its CA.
		connect := func(m *machine) {
			m.connect()
			m.http.Transport.(*http.Transport).TLSClientConfig.Time = time.Now
		}
		for _, back := range []time.Duration{2 * time.Hour, 5 * 24 * time.Hour} {
			r.clock.off = -back
			connect(m)
			m.must("POST", wire.PathHello, wire.Hello{Facts: m.facts}, nil)
			m.must("GET", wire.PathProbe, nil, nil)
			connect(out)
			out.fails("GET", wire.PathProbe, nil, "machine-unknown")
			out.fails("POST", wire.PathRenew, wire.Renew{CSR: out.csr()}, "machine-unknown")
		}
		for _, e := range r.events(event.MachineRefused) {
			if e.Reason != "certificate-revoked" {
				t.Errorf("an event: %+v", e)
			}
		}
		var reply wire.RenewReply
		m.must("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, &reply)
		r.clock.off = 0
		m.connect()
		m.must("GET", wire.PathProbe, nil, nil)
	})
}

// A server is gone right behind a revocation, before it could cut anything. The next one
// refuses the certificate from its first request, and cuts what is revoked from then on.
func TestARevokedCertificateIsRefusedByTheNextServer(t *testing.T) {
	database := storetest.PostgreSQL(t)
	var conf agentapi.Config
	r := newRig(t, storetest.Open(t, store.Config{Database: database, Replica: "one"}), func(c *agentapi.Config) { conf = *c })
	m, other := r.joined(), r.joined()
	var early []*machine
	for range 10 {
		early = append(early, r.joined())
	}
	r.revoke(r.store, m)
	r.api.Stop()

	conf.Store = storetest.Open(t, store.Config{Database: database, Replica: "two"})
	conf.Enroll = enroll.New(enroll.Config{Store: conf.Store, Keys: r.keys, CA: r.ca, Clock: r.clock, Log: conf.Log})
	next := agentapi.New(conf)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := next.Server()
	go func() { _ = srv.Serve(next.Listen(ln, r.ca.ServerCertificate([]string{"127.0.0.1"}))) }()
	t.Cleanup(func() {
		next.Stop()
		_ = srv.Close()
	})
	r.url = "https://" + ln.Addr().String()
	for _, x := range []*machine{m, other} {
		x.connect()
	}
	m.fails("GET", wire.PathProbe, nil, "machine-unknown")
	known := func(m *machine) io.ReadWriter {
		t.Helper()
		c := m.dial("http/1.1")
		_, _ = io.WriteString(c, "GET "+wire.PathProbe+" HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n")
		buf := make([]byte, 4096)
		if n, err := c.Read(buf); err != nil || !strings.Contains(string(buf[:n]), " 204 ") {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		return c
	}
	// What was revoked before its first look is not cut: it has looked when one is.
	cuts := false
	for ; !cuts && len(early) > 0; early = early[1:] {
		early[0].connect()
		c, closed := known(early[0]), make(chan struct{})
		r.revoke(conf.Store, early[0])
		go func() {
			_, _ = io.Copy(io.Discard, c)
			close(closed)
		}()
		select {
		case <-closed:
			cuts = true
		case <-time.After(2 * time.Second):
		}
	}
	if !cuts {
		t.Fatal("nothing is cut")
	}
	idle := known(other)
	begun := time.Now()
	r.revoke(conf.Store, other)
	t.Logf("the connection was cut after %v", cutWithin(t, idle, 10*time.Second, begun))
	other.connect()
	other.fails("GET", wire.PathProbe, nil, "machine-unknown")
}

// A machine whose clock goes wrong makes no forger of the person who touches a key there:
// each touch is told once, whatever the clock said, and a touch that is told twice is
// believed once.
func TestAMachinesWrongClockMakesNoForgeriesOfTouches(t *testing.T) {
	engines(t, func(t *testing.T, r *rig) {
		m, u := r.joined(), r.person("alice")
		k, plain := &softkey.Key{}, &softkey.Key{NoCounter: true}
		id, credential := u.registers(k)
		id2, credential2 := u.registers(plain)
		m.enrolSoftware(u)
		c := &chain{m: m}
		// told tells of a touch, so often, and gives how many sign-ins and forgeries came of it.
		told := func(s *wire.Spent, at int64, times int) (believed int, forged string) {
			t.Helper()
			allowed, before := len(r.events(event.SigninAllowed)), r.reasons(event.JournalForged)
			from := len(c.list)
			for range times {
				c.add(event.Event{Type: event.SigninAllowed, Subject: u.name, UserID: u.id, Scope: "logon", Link: "down", Outcome: "allow", Factor: "fido2", At: at}, s)
			}
			c.deliver(from, len(c.list))
			return len(r.events(event.SigninAllowed)) - allowed, strings.TrimSpace(strings.Replace(r.reasons(event.JournalForged), before, "", 1))
		}
		moment := func(by time.Duration) int64 { return clock.Micros(r.clock.Now().Add(by)) }
		for _, x := range []struct {
			name string
			by   time.Duration
		}{{"right", 0}, {"back an hour", -time.Hour}, {"a dead battery", -50 * 365 * 24 * time.Hour}, {"two months ahead", 60 * 24 * time.Hour}, {"right again", time.Minute}} {
			at := moment(x.by)
			if n, forged := told(touchedAt(t, k, id, credential, at, m.id, u.id), at, 1); n != 1 || forged != "" {
				t.Errorf("%s: %d sign-ins, forged %q", x.name, n, forged)
			}
			at = moment(x.by)
			if n, _ := told(touchedAt(t, k, id, credential, at, m.id, u.id), at, 3); n != 1 {
				t.Errorf("%s: %d sign-ins by one touch", x.name, n)
			}
		}
		// A key that does not count: what has not come is not believed, and does no harm.
		at := moment(0)
		if n, forged := told(touchedAt(t, plain, id2, credential2, at, m.id, u.id), at, 3); n != 1 {
			t.Errorf("%d sign-ins by one touch, forged %q", n, forged)
		}
		at = moment(60 * 24 * time.Hour)
		if n, forged := told(touchedAt(t, plain, id2, credential2, at, m.id, u.id), at, 1); n != 0 || !strings.Contains(forged, "step-in-the-future") {
			t.Errorf("of the future: %d sign-ins, forged %q", n, forged)
		}
		at = moment(time.Second)
		if n, forged := told(touchedAt(t, plain, id2, credential2, at, m.id, u.id), at, 1); n != 1 || forged != "" {
			t.Errorf("when the clock is right again: %d sign-ins, forged %q", n, forged)
		}
	})
}

// Two machines have taken the same backup code while they were cut off. The server's
// database is away when the first tells of it, the answers are lost, and both tell again:
// there are two sign-ins and one alert, and the code is spent everywhere.
func TestABackupCodeOfTwoMachinesIsToldOnce(t *testing.T) {
	database, link := storetest.Linked(t)
	r := newRig(t, storetest.Open(t, store.Config{Database: database}), nil)
	one, two, alice := r.joined(), r.joined(), r.person("alice")
	var codes []db.BackupCode
	r.change(func(tx *store.Tx) error {
		_, err := r.keeper.IssueBackup(t.Context(), tx, alice.id, r.clock.Now())
		if err == nil {
			codes, err = tx.ListUnusedBackupCodes(t.Context(), alice.id)
		}
		return err
	})
	var chains []*chain
	for _, m := range []*machine{one, two} {
		m.enrolSoftware(alice)
		c := &chain{m: m}
		c.add(event.Event{Type: event.SigninAllowed, Subject: alice.name, UserID: alice.id, Scope: "logon", Outcome: "allow", Link: "down", Factor: "backup"}, &wire.Spent{Backup: codes[2].ID})
		chains = append(chains, c)
	}
	link.Cut()
	one.fails("POST", wire.PathJournal, wire.Journal{Entries: chains[0].list}, "unavailable")
	link.Mend()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if status, _, err := one.call("POST", wire.PathJournal, wire.Journal{Entries: chains[0].list}, nil); err == nil && status < 300 {
			break
		}
	}
	for range 3 {
		for _, c := range chains {
			c.deliver(0, 1)
		}
	}
	if n, got := len(r.events(event.SigninAllowed)), r.reasons(event.BackupCollision, event.JournalForged); n != 2 || got != "backup.double_spend/" {
		t.Errorf("%d sign-ins, %q", n, got)
	}
	r.change(func(tx *store.Tx) error {
		n, err := tx.SpendBackupCode(t.Context(), db.SpendBackupCodeParams{ID: codes[2].ID, UserID: alice.id, MachineID: one.id, At: 1})
		if n != 0 {
			t.Error("the code opens online too")
		}
		return err
	})
}
