package link

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"latchkey/internal/agent/identity"
	"latchkey/internal/agent/vault"
	"latchkey/internal/clock"
	"latchkey/internal/health"
	"latchkey/internal/secret"
	"latchkey/internal/wire"
)

// authority is a CA of the tests.
type authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	k := newKey(t)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, k, c}
}

// issue makes a certificate for a key; from and to are relative to now.
func (a *authority) issue(pub crypto.PublicKey, usage x509.ExtKeyUsage, from, to time.Duration) []byte {
	a.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to),
	}, a.cert, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

// scriptedServer is a TLS server that says what a test tells it to say. It is for
// the link's own behaviour; that the real server fits is tested in test/agent.
type scriptedServer struct {
	t    testing.TB
	ca   *authority
	addr string

	mu     sync.Mutex
	steps  [][]byte // bodies of conversation steps as they came
	seen   []string // paths
	onStep func(w http.ResponseWriter, r *http.Request, body []byte)
	routes map[string]func(w http.ResponseWriter, body []byte)
	polled chan struct{} // a poll ends when this is closed
	header bool          // answers carry the version
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// newServer listens with a certificate for a server, unless another is given.
func newServer(t testing.TB, ca *authority, cert ...tls.Certificate) *scriptedServer {
	t.Helper()
	s := &scriptedServer{t: t, ca: ca, header: true, polled: make(chan struct{}), routes: map[string]func(http.ResponseWriter, []byte){}}
	if cert == nil {
		k := newKey(t)
		cert = []tls.Certificate{{Certificate: [][]byte{ca.issue(k.Public(), x509.ExtKeyUsageServerAuth, -time.Hour, time.Hour), ca.cert.Raw}, PrivateKey: k}}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	srv := &http.Server{
		Handler: s, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: cert, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}},
	}
	go func() { _ = srv.ServeTLS(l, "", "") }()
	t.Cleanup(func() { _ = srv.Close() })
	return s
}

func (s *scriptedServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.seen = append(s.seen, r.Method+" "+r.URL.RequestURI())
	header, onStep, polled := s.header, s.onStep, s.polled
	route := s.routes[r.URL.Path]
	s.mu.Unlock()
	if header {
		w.Header().Set(wire.VersionHeader, "1")
	}
	switch {
	case strings.HasPrefix(r.URL.Path, "/agent/v1/conversations/"):
		s.mu.Lock()
		s.steps = append(s.steps, body)
		s.mu.Unlock()
		if onStep == nil {
			reply(w, 200, wire.StepReply{Done: &wire.Done{Outcome: "allow", Reason: "scripted"}})
			return
		}
		onStep(w, r, body)
	case route != nil:
		route(w, body)
	case r.URL.Path == wire.PathHello:
		reply(w, 200, wire.HelloReply{Time: time.Now().UnixMicro(), ServerVersion: "9.9"})
	case r.URL.Path == wire.PathChanges:
		select {
		case <-polled:
			reply(w, 200, wire.Changes{Serial: 1, Time: time.Now().UnixMicro()})
		case <-r.Context().Done():
		case <-time.After(50 * time.Second):
		}
	case r.URL.Path == wire.PathProbe:
		w.WriteHeader(204)
	default:
		reply(w, 404, wire.Problem{Code: "not-found", Detail: "There is no such thing."})
	}
}

func (s *scriptedServer) on(path string, f func(w http.ResponseWriter, body []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.routes[path] = f
}

func (s *scriptedServer) step(f func(w http.ResponseWriter, r *http.Request, body []byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onStep = f
}

func (s *scriptedServer) bodies() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.steps...)
}

func (s *scriptedServer) requests(prefix string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, p := range s.seen {
		if strings.HasPrefix(p, prefix) {
			n++
		}
	}
	return n
}

// gate stands between agent and server: it passes octets, or swallows them without
// a word, as a firewall that drops packets does.
type gate struct {
	to   string
	addr string
	l    net.Listener

	mu     sync.Mutex
	frozen bool
	thaw   chan struct{}
	conns  []net.Conn
}

func newGate(t testing.TB, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{to: to, addr: l.Addr().String(), l: l, thaw: make(chan struct{})}
	t.Cleanup(g.close)
	go g.run()
	return g
}

func (g *gate) run() {
	for {
		c, err := g.l.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", g.to)
		if err != nil {
			_ = c.Close()
			continue
		}
		g.mu.Lock()
		g.conns = append(g.conns, c, s)
		g.mu.Unlock()
		go g.carry(c, s)
		go g.carry(s, c)
	}
}

func (g *gate) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		for {
			g.mu.Lock()
			frozen, thaw := g.frozen, g.thaw
			g.mu.Unlock()
			if !frozen {
				break
			}
			<-thaw
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

func (g *gate) freeze() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.frozen {
		g.frozen, g.thaw = true, make(chan struct{})
	}
}

func (g *gate) melt() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.frozen {
		g.frozen = false
		close(g.thaw)
	}
}

// cutAll breaks what is open, as a server that is killed does.
func (g *gate) cutAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conns {
		_ = c.Close()
	}
	g.conns = nil
}

func (g *gate) close() {
	_ = g.l.Close()
	g.melt()
	g.cutAll()
}

// dead is an address of this machine at which nobody listens, nor will before the
// test ends: a port that was only closed is soon somebody else's.
func dead(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}

// stubVault stands in for the vault: the link only carries things to it.
type stubVault struct {
	mu        sync.Mutex
	applied   [][]byte
	applyErr  error
	pending   []wire.JournalEntry
	delivered uint64
	refusal   *wire.RefusalNote
	highest   time.Time
	serial    int64
	renewed   []uint64
	lifts     int
}

func (v *stubVault) ApplyPolicy(_ context.Context, b []byte) ([]wire.Wiped, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.applied = append(v.applied, b)
	return nil, v.applyErr
}

func (v *stubVault) Pending(_ context.Context, n int) (wire.Journal, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return wire.Journal{Entries: append([]wire.JournalEntry(nil), v.pending[:min(n, len(v.pending))]...)}, nil
}

func (v *stubVault) Delivered(_ context.Context, seq uint64, _ []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for len(v.pending) > 0 && v.pending[0].Seq <= seq {
		v.pending = v.pending[1:]
	}
	v.delivered = seq
	return nil
}

func (v *stubVault) Renew(_ context.Context, seq uint64, _ []byte) (bool, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.renewed = append(v.renewed, seq)
	return false, nil
}

func (v *stubVault) Refuse(_ context.Context, _ []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.refusal = &wire.RefusalNote{Text: "revoked in a test"}
	return errors.New("the disk is full")
}

func (v *stubVault) Refusal() *wire.RefusalNote {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.refusal
}
func (v *stubVault) Contacted(time.Time) {}
func (v *stubVault) HighestTime() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.highest
}

func (v *stubVault) PolicySerial() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.serial
}

func (v *stubVault) Lift(context.Context, vault.Server) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lifts++
	return nil
}

// rig is a link with its surroundings.
type rig struct {
	t     testing.TB
	ca    *authority
	dir   string
	id    *identity.Identity
	key   crypto.Signer
	grant ed25519.PrivateKey
	vault *stubVault
	clk   clock.Clock
	link  *Link
}

var quick3 = Timing{First: 400 * time.Millisecond, Step: 600 * time.Millisecond, Poll: 60 * time.Second, Long: 2 * time.Second, Again: 50 * time.Millisecond, Ping: 300 * time.Millisecond}

// newRig joins a machine by hand to a server at addr.
func newRig(t testing.TB, ca *authority, addr string, change ...func(*rig, *identity.Identity)) *rig {
	t.Helper()
	r := &rig{t: t, ca: ca, dir: t.TempDir(), vault: &stubVault{}, clk: clock.Real}
	if err := os.Chmod(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := identity.NewKey(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.key, err = key.Signer(nil); err != nil {
		t.Fatal(err)
	}
	pub, grant, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r.grant = grant
	permit, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	r.id = &identity.Identity{
		MachineID: "0198c0de-0000-7000-8000-000000000001", Name: "m1", Number: 1, Server: "https://" + addr, CA: ca.cert.Raw,
		Certificate: ca.issue(r.key.Public(), x509.ExtKeyUsageClientAuth, -time.Hour, 24*time.Hour), GrantKey: pub, PermitKey: permit,
	}
	for _, f := range change {
		f(r, r.id)
	}
	if err := identity.Save(r.dir, r.id, key); err != nil {
		t.Fatal(err)
	}
	key.Record.Wipe()
	if r.id, r.key, err = identity.Load(r.dir, nil); err != nil {
		t.Fatal(err)
	}
	r.link = r.newLink()
	return r
}

func (r *rig) newLink() *Link {
	return New(Config{
		Dir: r.dir, Identity: r.id, Key: r.key, Vault: r.vault, Clock: r.clk, Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)),
		Facts:  func(context.Context) wire.MachineFacts { return wire.MachineFacts{Hostname: "m1"} },
		Health: health.New(r.clk.Now), Built: time.Now().Add(-24 * time.Hour), Timing: quick3,
	})
}

// run keeps the link going until the test ends.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { r.link.Run(ctx); close(done) }()
	r.t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			r.t.Error("the link does not stop")
		}
	})
}

// until waits for a condition.
func until(t testing.TB, what string, limit time.Duration, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

func begin(user string) wire.Step {
	return wire.Step{Begin: &wire.Begin{User: user, Password: wire.Hide(secret.FromString("open sesame"))}}
}
