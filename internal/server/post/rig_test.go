package post_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/mail"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"latchkey/internal/clock"
	"latchkey/internal/secret"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/post"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/store/storetest"
)

// certificate makes one for the names, and the PEM to trust it by.
func certificate(t testing.TB, until time.Time, names ...string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: names, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: until, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// letter is a mail that a server has taken.
type letter struct {
	from string
	to   []string
	raw  string
	who  string // that had signed in
}

// relay is an SMTP server of another's making (emersion/go-smtp), with what servers do to
// those who send.
type relay struct {
	t  testing.TB
	ca string
	s  *smtp.Server

	host string
	port int

	mu     sync.Mutex
	got    []letter
	refuse func(to string) error // at RCPT
	data   func() error          // at DATA, before the yes
	slow   time.Duration         // before the answer to RCPT
	auth   bool                  // asks for a sign-in
	mechs  []string
}

const (
	relayUser     = "latchkey"
	relayPassword = "pa ss:wörd"
)

type relayOption struct {
	noTLS, implicit, auth, expired, otherName bool
	mechs                                     []string
}

func newRelay(t testing.TB, o relayOption) *relay {
	t.Helper()
	until, name := time.Now().Add(time.Hour), "localhost"
	if o.expired {
		until = time.Now().Add(-time.Hour)
	}
	if o.otherName {
		name = "elsewhere.example.org"
	}
	cert, ca := certificate(t, until, name)
	r := &relay{t: t, ca: ca, host: "localhost", auth: o.auth, mechs: o.mechs}
	if r.mechs == nil {
		r.mechs = []string{sasl.Plain, sasl.Login}
	}
	r.s = smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &visit{r: r}, nil }))
	r.s.Domain = "localhost"
	r.s.ErrorLog = quiet{}
	r.s.ReadTimeout, r.s.WriteTimeout = 20*time.Second, 20*time.Second
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.port = l.Addr().(*net.TCPAddr).Port
	switch {
	case o.noTLS:
	case o.implicit:
		l = tls.NewListener(l, conf)
	default:
		r.s.TLSConfig = conf
	}
	go func() { _ = r.s.Serve(l) }()
	t.Cleanup(func() { _ = r.s.Close() })
	return r
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

type visit struct {
	r   *relay
	now letter
	who string
}

func (v *visit) AuthMechanisms() []string {
	if !v.r.auth {
		return nil
	}
	return v.r.mechs
}

func (v *visit) Auth(mech string) (sasl.Server, error) {
	judge := func(user, password string) error {
		if user != relayUser || password != relayPassword {
			return smtp.ErrAuthFailed
		}
		v.who = user
		return nil
	}
	switch mech {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, user, password string) error { return judge(user, password) }), nil
	case sasl.Login:
		return &loginServer{judge: judge}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// loginServer is the other end of AUTH LOGIN, which was never a standard.
type loginServer struct {
	judge func(user, password string) error
	step  int
	user  string
}

func (s *loginServer) Next(response []byte) ([]byte, bool, error) {
	s.step++
	switch s.step {
	case 1:
		if response == nil {
			return []byte("Username:"), false, nil
		}
		s.step++
		fallthrough
	case 2:
		s.user = string(response)
		return []byte("Password:"), false, nil
	case 3:
		return nil, true, s.judge(s.user, string(response))
	}
	return nil, true, errors.New("out of step")
}

func (v *visit) Reset()        { v.now = letter{} }
func (v *visit) Logout() error { return nil }

func (v *visit) Mail(from string, _ *smtp.MailOptions) error {
	if v.r.auth && v.who == "" {
		return smtp.ErrAuthRequired
	}
	v.now = letter{from: from, who: v.who}
	return nil
}

func (v *visit) Rcpt(to string, _ *smtp.RcptOptions) error {
	v.r.mu.Lock()
	refuse, slow := v.r.refuse, v.r.slow
	v.r.mu.Unlock()
	time.Sleep(slow)
	if refuse != nil {
		if err := refuse(to); err != nil {
			return err
		}
	}
	v.now.to = append(v.now.to, to)
	return nil
}

func (v *visit) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	v.now.raw = string(b)
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	if v.r.data != nil {
		if err := v.r.data(); err != nil {
			return err
		}
	}
	v.r.got = append(v.r.got, v.now)
	return nil
}

func (r *relay) letters() []letter {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]letter(nil), r.got...)
}

func (r *relay) set(fn func(r *relay)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fn(r)
}

// settings are those that fit the relay.
func (r *relay) settings() post.Mail {
	m := post.NewMail()
	m.On, m.Host, m.Port, m.CA, m.From, m.Timeout = true, r.host, r.port, r.ca, "latchkey@example.org", 5
	if r.auth {
		m.Username, m.Password, m.HasPassword = relayUser, secret.FromString(relayPassword), true
	}
	return m
}

// read opens a mail with the standard library, as a mail program would.
func (l letter) read(t testing.TB) (*mail.Message, string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(l.raw))
	if err != nil {
		t.Fatalf("no mail: %v\n%s", err, l.raw)
	}
	return m, bodyOf(t, m)
}

// office is a Post over a store with a user.
type office struct {
	*post.Post
	t     testing.TB
	store *store.Store
	clock clock.Clock
	user  db.User

	machine  string // where codes are asked for, and typed
	unproven bool
}

func newOffice(t testing.TB, s *store.Store, c clock.Clock, dir string) *office {
	t.Helper()
	p, err := poster(t.Context(), s, c, dir)
	if err != nil {
		t.Fatal(err)
	}
	return &office{Post: p, t: t, store: s, clock: c}
}

// poster is the part that is tested, with the keys of the folder.
func poster(ctx context.Context, s *store.Store, c clock.Clock, dir string) (*post.Post, error) {
	k, _, err := keys.Open(ctx, keys.Config{Dir: dir, Store: s, Clock: c})
	if err != nil {
		return nil, err
	}
	return post.New(post.Config{Store: s, Keys: k, Clock: c, Random: rand.Reader}), nil
}

func open(t testing.TB, c clock.Clock) *office {
	t.Helper()
	o := newOffice(t, storetest.Open(t, store.Config{Database: storetest.SQLite(t), Clock: c}), c, t.TempDir())
	o.store.OnEvent(o.Notice)
	o.user = o.person("anna", "anna@example.org")
	return o
}

func (o *office) person(name, address string) db.User {
	o.t.Helper()
	id := store.NewID()
	var u db.User
	o.update(func(ctx context.Context, tx *store.Tx) error {
		err := tx.InsertUser(ctx, db.InsertUserParams{ID: id, Name: name, NameFold: strings.ToLower(name), Mail: address, Role: "none", Activation: "now", MFA: "inherit"})
		if err != nil {
			return err
		}
		u, err = tx.GetUser(ctx, id)
		return err
	})
	return u
}

func (o *office) update(fn func(ctx context.Context, tx *store.Tx) error) {
	o.t.Helper()
	if err := o.store.Update(context.Background(), fn); err != nil {
		o.t.Fatal(err)
	}
}

// address gives a user a confirmed one.
func (o *office) address(u db.User, channel, address string) string {
	o.t.Helper()
	id := store.NewID()
	o.update(func(ctx context.Context, tx *store.Tx) error {
		return tx.InsertAuthenticator(ctx, db.InsertAuthenticatorParams{
			ID: id, UserID: u.ID, Kind: channel, Params: post.ParamsOf(address), ConfirmedAt: clock.Micros(o.clock.Now()), CreatedAt: clock.Micros(o.clock.Now()),
		})
	})
	return id
}

func (o *office) mail(m post.Mail) {
	o.t.Helper()
	if err := m.Judge(); err != nil {
		o.t.Fatal(err)
	}
	o.update(func(ctx context.Context, tx *store.Tx) error {
		_, err := o.WriteMail(ctx, tx, m, 1)
		return err
	})
}

func (o *office) sms(m post.SMS) {
	o.t.Helper()
	if err := m.Judge(); err != nil {
		o.t.Fatal(err)
	}
	o.update(func(ctx context.Context, tx *store.Tx) error {
		_, err := o.WriteSMS(ctx, tx, m, 1)
		return err
	})
}

// step sends one message and tells whether there was one.
func (o *office) step(channel string) bool {
	o.t.Helper()
	did, err := o.Step(o.t.Context(), channel)
	if err != nil {
		o.t.Fatal(err)
	}
	return did
}

// queue is all of it, the oldest first.
func (o *office) queue(channel string) []db.Outbox {
	o.t.Helper()
	var rows []db.Outbox
	err := o.store.Read(o.t.Context(), func(q *store.Queries) (err error) {
		rows, err = q.ListOutbox(o.t.Context(), db.ListOutboxParams{Channel: channel, N: 1000})
		return err
	})
	if err != nil {
		o.t.Fatal(err)
	}
	for i, j := 0, len(rows)-1; i < j; i, j = i+1, j-1 {
		rows[i], rows[j] = rows[j], rows[i]
	}
	return rows
}

var eight = regexp.MustCompile(`\b\d{8}\b`)

// codeIn finds the code of a message.
func codeIn(t testing.TB, s string) string {
	t.Helper()
	c := eight.FindAllString(s, -1)
	if len(c) != 1 {
		t.Fatalf("%d codes in %q", len(c), s)
	}
	return c[0]
}

// typed is an answer.
func typed(s string) secret.Bytes { return secret.FromString(s) }

// fixed is a clock that stands.
type fixed struct{ at time.Time }

func (f fixed) Now() time.Time                                   { return f.at }
func (f fixed) Sleep(ctx context.Context, d time.Duration) error { return clock.Real.Sleep(ctx, d) }
func (f fixed) After(d time.Duration) <-chan time.Time           { return clock.Real.After(d) }
