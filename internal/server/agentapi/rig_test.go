package agentapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/otp"
	"latchkey/internal/policy"
	"latchkey/internal/secret"
	"latchkey/internal/server/agentapi"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/factor"
	"latchkey/internal/server/facts"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/settings"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
	"latchkey/internal/server/touch"
	"latchkey/internal/wire"
)

// rig is a server with its machines' door on a real TLS listener.
type rig struct {
	*testing.T
	store   *store.Store
	keys    *keys.Keys
	keeper  *factor.Keeper
	ca      *ca.Authority
	enroll  *enroll.Door
	offline *offline.Service
	api     *agentapi.API
	clock   *movable
	url     string
	step    func(ctx context.Context, m db.Machine, id string, seq int64, body []byte) (wire.StepReply, error)

	occasion func(m db.Machine, o wire.Occasion) error
	wait     func(ctx context.Context, m db.Machine, id string) error
}

// movable is the real clock with an offset of the test's own.
type movable struct {
	clock.Clock
	off time.Duration
}

func (m *movable) Now() time.Time { return m.Clock.Now().Add(m.off) }

func (r *rig) Wait(ctx context.Context, m db.Machine, id string) error {
	if r.wait == nil {
		return nil
	}
	return r.wait(ctx, m, id)
}

// Step lets each test answer conversations as it likes: what happens inside of
// them is another package's.
func (r *rig) Step(ctx context.Context, m db.Machine, _ netip.Addr, id string, seq int64, body []byte) (wire.StepReply, error) {
	return r.step(ctx, m, id, seq, body)
}

func (r *rig) Occasion(_ context.Context, m db.Machine, o wire.Occasion) error {
	if r.occasion == nil {
		return nil
	}
	return r.occasion(m, o)
}

func engines(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	storetest.Engines(t, func(t *testing.T, s *store.Store) { fn(t, newRig(t, s, nil)) })
}

func newRig(t *testing.T, s *store.Store, alter func(*agentapi.Config)) *rig {
	t.Helper()
	r := &rig{T: t, store: s, clock: &movable{Clock: clock.Real}}
	log := slog.New(slog.DiscardHandler)
	var err error
	if r.keys, _, err = keys.Open(t.Context(), keys.Config{Dir: t.TempDir(), Store: s, Clock: r.clock}); err != nil {
		t.Fatal(err)
	}
	if r.ca, _, err = ca.Open(t.Context(), ca.Config{Store: s, Keys: r.keys, Clock: r.clock}); err != nil {
		t.Fatal(err)
	}
	r.keeper = &factor.Keeper{Box: r.keys.Box, Pepper: r.keys.Pepper, Random: rand.Reader}
	r.enroll = enroll.New(enroll.Config{Store: s, Keys: r.keys, CA: r.ca, Clock: r.clock, Log: log})
	r.offline = offline.New(offline.Config{Store: s, Keys: r.keys, Keeper: r.keeper, Clock: r.clock, Random: rand.Reader, Log: log})
	c := agentapi.Config{Store: s, CA: r.ca, Enroll: r.enroll, Offline: r.offline, Signin: r, Clock: r.clock, Log: log, Version: "1.2.3"}
	if alter != nil {
		alter(&c)
	}
	r.api = agentapi.New(c)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "https://" + ln.Addr().String()
	srv := r.api.Server()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(r.api.Listen(ln, r.ca.ServerCertificate([]string{"127.0.0.1"})))
	}()
	t.Cleanup(func() {
		r.api.Stop()
		_ = srv.Close()
		<-done
	})
	r.change(func(tx *store.Tx) error {
		if err := settings.Write(t.Context(), tx, settings.Settings{Contact: "help desk, 123"}, 1); err != nil {
			return err
		}
		p := policy.NewPolicy()
		body, err := json.Marshal(p)
		if err != nil {
			return err
		}
		return tx.InsertPolicy(t.Context(), db.InsertPolicyParams{ID: "pol", Name: "Default", IsDefault: true, Body: string(body), CreatedAt: 1, UpdatedAt: 1})
	})
	return r
}

func (r *rig) change(fn func(tx *store.Tx) error) {
	r.Helper()
	if err := r.store.Update(context.Background(), func(_ context.Context, tx *store.Tx) error { return fn(tx) }); err != nil {
		r.Fatal(err)
	}
}

// setPolicy replaces the default policy.
func (r *rig) setPolicy(alter func(p *policy.Policy)) {
	r.Helper()
	r.change(func(tx *store.Tx) error {
		row, err := tx.GetDefaultPolicy(r.Context())
		if err != nil {
			return err
		}
		p := policy.NewPolicy()
		alter(&p)
		body, err := json.Marshal(p)
		if err != nil {
			return err
		}
		if _, err := tx.UpdatePolicy(r.Context(), db.UpdatePolicyParams{ID: row.ID, Name: row.Name, Body: string(body), Rev: row.Rev}); err != nil {
			return err
		}
		return touch.All(r.Context(), tx)
	})
}

// token makes a join token and gives its secret.
func (r *rig) token(o enroll.Order) secret.Bytes {
	r.Helper()
	o.ServerURL, o.Actor = r.url, "root@local"
	var text string
	r.change(func(tx *store.Tx) error {
		i, err := r.enroll.Issue(r.Context(), tx, o)
		text = i.Text
		return err
	})
	t, err := wire.DecodeToken(text)
	if err != nil {
		r.Fatal(err)
	}
	if t.URL != r.url || t.CA != r.ca.Fingerprint() {
		r.Fatalf("the token says %+v", t)
	}
	return t.Secret
}

// machine is a client of the door, as far as it has got.
type machine struct {
	r       *rig
	id      string
	name    string
	key     *ecdsa.PrivateKey
	cert    []byte
	grant   ed25519.PublicKey
	permit  any
	facts   wire.MachineFacts
	version string
	http    *http.Client
}

func softwareFacts() wire.MachineFacts {
	return wire.MachineFacts{Hostname: "pc1.example.org", OS: "linux Debian GNU/Linux 13", AgentVersion: "1.2.3", Boot: "boot-1", Class: "software"}
}

func (r *rig) newMachine() *machine {
	r.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		r.Fatal(err)
	}
	m := &machine{r: r, key: key, facts: softwareFacts(), version: strconv.Itoa(wire.Version)}
	m.connect()
	return m
}

// connect begins with new connections, with the certificate of now.
func (m *machine) connect() {
	roots := x509.NewCertPool()
	caCert, err := x509.ParseCertificate(m.r.ca.Certificate())
	if err != nil {
		m.r.Fatal(err)
	}
	roots.AddCert(caCert)
	conf := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, Time: m.r.clock.Now}
	if m.cert != nil {
		c := tls.Certificate{Certificate: [][]byte{m.cert}, PrivateKey: m.key}
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c, nil }
	}
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	m.http = &http.Client{Transport: tr, Timeout: 70 * time.Second}
	m.r.Cleanup(tr.CloseIdleConnections)
}

func (m *machine) csr() []byte {
	m.r.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, m.key)
	if err != nil {
		m.r.Fatal(err)
	}
	return der
}

// call makes one request. in may be raw octets or a body.
func (m *machine) call(method, path string, in, out any) (status int, p wire.Problem, err error) {
	var body io.Reader
	switch v := in.(type) {
	case nil:
	case []byte:
		body = bytes.NewReader(v)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			return 0, p, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, m.r.url+path, body)
	if err != nil {
		return 0, p, err
	}
	if m.version != "" {
		req.Header.Set(wire.VersionHeader, m.version)
	}
	res, err := m.http.Do(req)
	if err != nil {
		return 0, p, err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, p, err
	}
	if res.Header.Get(wire.VersionHeader) == "" {
		m.r.Errorf("%s %s: the answer has no version", method, path)
	}
	if res.StatusCode >= 300 {
		if err := json.Unmarshal(raw, &p); err != nil || p.Code == "" || p.Detail == "" {
			m.r.Errorf("%s %s: %d with %q", method, path, res.StatusCode, raw)
		}
		return res.StatusCode, p, nil
	}
	if out != nil {
		if err := json.Unmarshal(raw, out); err != nil {
			m.r.Errorf("%s %s: %q: %v", method, path, raw, err)
		}
	}
	return res.StatusCode, p, nil
}

// must makes a request that succeeds.
func (m *machine) must(method, path string, in, out any) {
	m.r.Helper()
	status, p, err := m.call(method, path, in, out)
	if err != nil || status >= 300 {
		m.r.Fatalf("%s %s: %d %v %v", method, path, status, p, err)
	}
}

// fails makes a request that is refused with the code.
func (m *machine) fails(method, path string, in any, code string) wire.Problem {
	m.r.Helper()
	status, p, err := m.call(method, path, in, nil)
	if err != nil || status < 400 || p.Code != code {
		m.r.Errorf("%s %s: %d %v %v, want %s", method, path, status, p, err, code)
	}
	return p
}

// join makes it a machine, through the door.
func (m *machine) join(token secret.Bytes) wire.JoinReply {
	m.r.Helper()
	var reply wire.JoinReply
	m.must("POST", wire.PathJoin, wire.Join{Token: wire.Hide(token), CSR: m.csr(), Facts: m.facts}, &reply)
	if sha256.Sum256(reply.CA) != m.r.ca.Fingerprint() {
		m.r.Error("the CA is not the one of the token")
	}
	m.id, m.name, m.cert, m.grant = reply.MachineID, reply.Name, reply.Certificate, reply.GrantKey
	var err error
	if m.permit, err = x509.ParsePKIXPublicKey(reply.PermitKey); err != nil {
		m.r.Error(err)
	}
	m.connect()
	return reply
}

// joined is a machine in good standing.
func (r *rig) joined() *machine {
	r.Helper()
	m := r.newMachine()
	m.join(r.token(enroll.Order{}))
	return m
}

// person is a user with an authenticator.
type person struct {
	r    *rig
	id   string
	name string
	seed secret.Bytes
	auth string
}

func (r *rig) person(name string) *person {
	r.Helper()
	u := &person{r: r, id: store.NewID(), name: name}
	now := r.clock.Now()
	r.change(func(tx *store.Tx) error {
		err := tx.InsertUser(r.Context(), db.InsertUserParams{
			ID: u.id, Name: name, NameFold: facts.Fold(name), Role: "none", Activation: "now", MFA: "on", PasswordGeneration: 1, CreatedAt: 1, UpdatedAt: 1,
		})
		if err != nil {
			return err
		}
		if u.seed, err = r.keeper.NewSeed(otp.DefaultParams); err != nil {
			return err
		}
		u.auth, err = r.keeper.AddTOTP(r.Context(), tx, u.id, factor.TOTP{Params: otp.DefaultParams, Seed: u.seed}, now)
		return err
	})
	return u
}

// signedIn leaves what a conversation leaves that ended with a full MFA now.
func (u *person) signedIn(m *machine, alter func(*db.InsertConversationParams)) (conversation string) {
	u.r.Helper()
	now := clock.Micros(u.r.clock.Now())
	c := db.InsertConversationParams{
		ID: store.NewID(), MachineID: m.id, UserID: u.id, UserName: u.name, Scope: "logon", Service: "login", Stage: facts.StageAllowedOffline,
		Seq: 2, Outcome: string(policy.Allow), MFAAt: now, CreatedAt: now, ExpiresAt: now + 50e6,
	}
	if alter != nil {
		alter(&c)
	}
	u.r.change(func(tx *store.Tx) error {
		if err := touch.Known(u.r.Context(), tx, m.id, u.id, u.r.clock.Now()); err != nil {
			return err
		}
		return tx.InsertConversation(u.r.Context(), c)
	})
	return c.ID
}

func (r *rig) machineRow(id string) (m db.Machine) {
	r.Helper()
	r.read(func(q *store.Queries) (err error) { m, err = q.GetMachine(r.Context(), id); return err })
	return m
}

func (r *rig) read(fn func(q *store.Queries) error) {
	r.Helper()
	if err := r.store.Read(context.Background(), fn); err != nil {
		r.Fatal(err)
	}
}

// events lists what was written of these types, oldest first.
func (r *rig) events(types ...event.Type) []event.Event {
	r.Helper()
	f := store.EventFilter{Limit: 500}
	for _, t := range types {
		f.Types = append(f.Types, string(t))
	}
	rows, err := r.store.Events(context.Background(), f)
	if err != nil {
		r.Fatal(err)
	}
	out := make([]event.Event, len(rows))
	for i, row := range rows {
		out[len(rows)-1-i] = store.EventOf(row)
	}
	return out
}

// reasons is events as "type/reason" words.
func (r *rig) reasons(types ...event.Type) string {
	r.Helper()
	var out []string
	for _, e := range r.events(types...) {
		out = append(out, string(e.Type)+"/"+e.Reason)
	}
	return strings.Join(out, " ")
}

// eventually waits for what happens in the background.
func (r *rig) eventually(what string, ok func() bool) {
	r.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	r.Errorf("%s did not happen", what)
}
