//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/agent/link"
	"latchkey/internal/clock"
	"latchkey/internal/fault"
	"latchkey/internal/rest"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/keys"
	"latchkey/internal/server/store"
	"latchkey/internal/shim"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// What stands between a machine and its server, and what plays the server: everything
// here happens to the real agent behind the real PAM module.

// front is an address on the server's machine at which a test can put whatever it
// likes in the server's place.
type front struct {
	w    *world
	port string

	mu    sync.Mutex
	l     net.Listener
	talk  func(net.Conn)
	conns map[net.Conn]bool
	tapes []*tape // what the server said on each connection that was passed through
}

// tape is the server's octets of one connection.
type tape struct {
	mu sync.Mutex
	b  []byte
}

// newFront listens and passes everything through to the server.
func newFront(w *world, port string) *front {
	w.t.Helper()
	f := &front{w: w, port: port, conns: map[net.Conn]bool{}}
	f.listen()
	f.play(f.pass)
	w.t.Cleanup(f.hangUp)
	return f
}

func (f *front) listen() {
	f.w.t.Helper()
	l, err := f.w.srv.Listen("tcp", "0.0.0.0:"+f.port)
	if err != nil {
		f.w.t.Fatal(err)
	}
	f.l = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			talk := f.talk
			f.conns[c] = true
			f.mu.Unlock()
			go func() {
				talk(c)
				_ = c.Close()
				f.mu.Lock()
				delete(f.conns, c)
				f.mu.Unlock()
			}()
		}
	}()
}

// play sets what happens to connections from now on, and cuts those that there are.
func (f *front) play(talk func(net.Conn)) {
	f.mu.Lock()
	f.talk = talk
	f.mu.Unlock()
	f.cut()
}

func (f *front) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_ = c.Close()
	}
}

// hangUp listens no more: who connects is refused.
func (f *front) hangUp() {
	_ = f.l.Close()
	f.cut()
}

// pass carries octets to the server and back, and keeps what it said.
func (f *front) pass(c net.Conn) {
	s, err := f.w.srv.Dial("tcp", "127.0.0.1:"+agentPort)
	if err != nil {
		return
	}
	defer s.Close()
	t := &tape{}
	f.mu.Lock()
	f.tapes = append(f.tapes, t)
	f.mu.Unlock()
	go func() {
		_, _ = io.Copy(s, c)
		_ = s.Close()
	}()
	_, _ = io.Copy(io.MultiWriter(c, t), s)
}

func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	return len(b), nil
}

// replay says what the server said yesterday.
func (f *front) replay() func(net.Conn) {
	f.mu.Lock()
	tapes := slices.Clone(f.tapes)
	f.mu.Unlock()
	var n atomic.Int64
	return func(c net.Conn) {
		t := tapes[int(n.Add(1))%len(tapes)]
		t.mu.Lock()
		b := bytes.Clone(t.b)
		t.mu.Unlock()
		_, _ = c.Read(make([]byte, 4096))
		_, _ = c.Write(b)
		_, _ = io.Copy(io.Discard, c)
	}
}

// liar serves HTTPS with a certificate on connections that it is given.
type liar struct {
	conns chan net.Conn
	over  chan struct{}
	asked atomic.Int64 // requests
	mu    sync.Mutex
	steps [][]byte // bodies of conversation steps
}

func newLiar(t testing.TB, cert *tls.Certificate, answer http.HandlerFunc) *liar {
	l := &liar{conns: make(chan net.Conn), over: make(chan struct{})}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			l.asked.Add(1)
			if strings.HasPrefix(r.URL.Path, "/agent/v1/conversations/") {
				b, _ := io.ReadAll(r.Body)
				l.mu.Lock()
				l.steps = append(l.steps, append([]byte(r.URL.Path+" "), b...))
				l.mu.Unlock()
			}
			answer(w, r)
		}),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*cert}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	go func() { _ = srv.Serve(tls.NewListener(l, conf)) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l
}

// play hands a connection over and waits for its end.
func (l *liar) play(c net.Conn) {
	h := &handed{Conn: c, over: make(chan struct{})}
	select {
	case l.conns <- h:
		<-h.over
	case <-l.over:
	}
}

type handed struct {
	net.Conn
	once sync.Once
	over chan struct{}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.over) })
	return h.Conn.Close()
}

func (l *liar) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.over:
		return nil, net.ErrClosed
	}
}

func (l *liar) Close() error {
	close(l.over) // once: the HTTP server closes its listener once
	return nil
}
func (l *liar) Addr() net.Addr { return &net.TCPAddr{} }

func say(w http.ResponseWriter, status int, v any) {
	w.Header().Set(wire.VersionHeader, "1")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// stolen is the server's CA in the wrong hands, at a time.
func (w *world) stolen(at time.Duration) *ca.Authority {
	w.t.Helper()
	dir := w.t.TempDir()
	files, err := filepath.Glob(w.srv.Path(serverData + "/*"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || !info.Mode().IsRegular() || strings.HasSuffix(f, "-shm") {
			continue
		}
		b, err := os.ReadFile(f)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(f)), b, 0o600)
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	clk := clock.NewManual(w.now().Add(at))
	st, err := store.Open(w.t.Context(), store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: clk})
	if err != nil {
		w.t.Fatal(err)
	}
	defer st.Close()
	k, _, err := keys.Open(w.t.Context(), keys.Config{Dir: dir, Store: st, Clock: clk})
	if err != nil {
		w.t.Fatal(err)
	}
	a, made, err := ca.Open(w.t.Context(), ca.Config{Store: st, Keys: k, Clock: clk})
	if err != nil || made {
		w.t.Fatalf("made %v, %v", made, err)
	}
	return a
}

func serverCert(t testing.TB, a *ca.Authority) *tls.Certificate {
	t.Helper()
	c, err := a.Server([]string{"localhost"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// selfMade is a certificate of a CA that a stranger has made for himself.
func selfMade(t testing.TB) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "latchkeyd"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

const portalPage = "<!DOCTYPE html><title>Welcome to our hotel</title><p>Please accept our terms.</p>"

func portal(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html")
	fmt.Fprint(w, portalPage)
}

// octets answers whatever comes with some octets, and hangs up behind them.
func octets(text string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = c.Read(make([]byte, 4096))
		_, _ = io.WriteString(c, text)
	}
}

// mute takes whatever comes and says nothing.
func mute(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// why waits until the machine says why its link is down.
func (s *station) why(want link.Reason) shim.MachineStatus {
	s.t.Helper()
	var st shim.MachineStatus
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if st, err = s.status(); err == nil && st.Link == "down" && st.Reason == string(want) && st.Text == want.Text() {
			return st
		}
	}
	s.t.Fatalf("the link is not down because of %s: %s %s %q %v", want, st.Link, st.Reason, st.Text, err)
	return st
}

// byOwnRules has two people sign in without the server: alice, who has offline data, is
// asked for her second factor; bob, whom the machine does not know, is not told apart
// from somebody who mistypes, and stays outside.
func (s *station) byOwnRules(alice, bob *person) Result {
	s.t.Helper()
	r := s.x(alice, s.full(alice))
	t, ok := s.t.(*testing.T)
	if !ok {
		s.t.Fatal("not in a test")
	}
	opened(t, r, true)
	shows(t, r, text.OfflineNow, true)
	for _, no := range []string{text.WrongCode, text.CodeUsed, text.DeniedFirst, text.DeniedInternal} {
		shows(t, r, no, false)
	}
	if bob == nil {
		return r
	}
	b := s.x(bob, s.full(bob))
	opened(t, b, false)
	shows(t, b, text.OfflineNow, true)
	shows(t, b, text.DeniedOffline, true)
	return r
}

// TestWhatIsNoServer: each way in which what answers is not the server, or not as it
// should be, has its own reason; the second factor is asked for and judged by the
// machine, whom the machine does not know stays outside, and what was done arrives with
// the reason when the server is back (O1, O11).
func TestWhatIsNoServer(t *testing.T) {
	w := newWorld(t, "")
	f := newFront(w, "9444")
	s := &station{w, &seat{name: "desk", state: agentState, spec: "none", port: f.port}}
	w.place(s)
	w.set("window=0s", "offline_signins=500", "offline_tries=50")
	alice, bob := w.addUser("alice"), w.addUser("bob")
	s.enrol(alice)
	f.cut() // one more tape that has an end
	s.online()

	now, old := serverCert(t, w.stolen(0)), serverCert(t, w.stolen(-40*24*time.Hour))
	var strangers []*liar
	foreign := func(cert *tls.Certificate, answer http.HandlerFunc) func(net.Conn) {
		l := newLiar(t, cert, answer)
		strangers = append(strangers, l)
		return l.play
	}
	honest := func(answer http.HandlerFunc) func(net.Conn) { return newLiar(t, now, answer).play }
	machineCert := s.machineCertificate(t)
	unavailable := fault.New(fault.Unavailable, nil)
	huge := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(wire.VersionHeader, "1")
		for part := bytes.Repeat([]byte(" "), 64<<10); ; {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	}
	type trial struct {
		name string
		talk func(net.Conn)
		want link.Reason
	}
	trials := []trial{
		{"the server says 503", honest(func(w http.ResponseWriter, _ *http.Request) {
			say(w, unavailable.Status(), wire.Problem{Code: string(unavailable.Code), Detail: unavailable.Public()})
		}), link.ServerError},
		{"the server says 500 and nothing that can be read", honest(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(wire.VersionHeader, "1")
			http.Error(w, "<h1>Internal Server Error</h1>", 500)
		}), link.ServerError},
		{"a balancer with the server's certificate says 502", honest(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>Bad Gateway</h1>", http.StatusBadGateway)
		}), link.NotLatchkey},
		{"a page with the server's certificate", honest(portal), link.NotLatchkey},
		{"a redirection with the server's certificate", honest(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://login.example/", http.StatusFound)
		}), link.NotLatchkey},
		{"an answer without an end", honest(huge), link.ServerError},
		{"an answer that is cut off", honest(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(wire.VersionHeader, "1")
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"time":`)
			panic(http.ErrAbortHandler)
		}), link.Broken},
		{"an answer that drips", honest(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(wire.VersionHeader, "1")
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, " ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}), link.Silence},
		{"an answer of a thousand brackets", honest(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(wire.VersionHeader, "1")
			_, _ = io.WriteString(w, strings.Repeat(`[`, 100_000))
		}), link.ServerError},
		{"a captive portal with a certificate of its own", foreign(selfMade(t), portal), link.Foreign},
		{"another Latchkey's certificate", foreign(serverCert(t, otherCA(t)), portal), link.Foreign},
		{"a certificate of the right CA that is out of date", foreign(old, portal), link.ServerExpired},
		{"a machine of the right CA in the server's place", foreign(machineCert, portal), link.Foreign},
		{"a captive portal in the clear", octets("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: " + strconv.Itoa(len(portalPage)) + "\r\n\r\n" + portalPage), link.NotLatchkey},
		{"a redirection in the clear", octets("HTTP/1.1 302 Found\r\nLocation: http://portal.example/\r\nContent-Length: 0\r\n\r\n"), link.NotLatchkey},
		{"a portal that speaks an old TLS", func(c net.Conn) {
			conf := &tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*selfMade(t)}} //nolint:gosec // a portal of the test
			_ = tls.Server(c, conf).Handshake()
		}, link.NotLatchkey},
		{"a mail server", octets("220 mail.example ESMTP\r\n"), link.NotLatchkey},
		{"whoever hangs up at once", func(c net.Conn) {
			_ = c.(*net.TCPConn).SetLinger(0)
		}, link.Broken},
		{"a man in the middle with a CA of his own", f.middle(t, &strangers), link.Foreign},
		{"the server's own words of yesterday", f.replay(), link.Foreign},
		{"whoever takes everything and says nothing", mute, link.Silence},
	}
	var want []string
	var peak int64
	for _, c := range trials {
		t.Run(c.name, func(t *testing.T) {
			s := s.In(t)
			f.play(c.talk)
			s.restartAgent()
			s.why(c.want)
			r := s.byOwnRules(alice, bob)
			if len(r.Waits) == 2 {
				t.Logf("%s: prompts after %v and %v", c.want, r.Waits[0].Round(time.Millisecond), r.Waits[1].Round(time.Millisecond))
			}
			peak = max(peak, s.agentMemory())
		})
		want = append(want, string(c.want))
	}
	t.Run("nobody listens", func(t *testing.T) {
		s := s.In(t)
		f.hangUp()
		s.restartAgent()
		s.why(link.ConnectionRefused)
		r := s.byOwnRules(alice, bob)
		t.Logf("refused: prompts after %v", r.Waits)
		want = append(want, string(link.ConnectionRefused))
		f.listen()
	})
	for _, l := range strangers {
		if n := l.asked.Load(); n != 0 {
			t.Errorf("somebody without the server's certificate was asked %d times", n)
		}
	}
	// Argon2id alone takes 64 MiB.
	if t.Logf("the agent's memory at its highest: %d KiB", peak); peak > 200<<10 {
		t.Errorf("the agent needed %d KiB", peak)
	}
	t.Run("a server's certificate that is not valid yet is the clock's fault, not the server's", func(t *testing.T) {
		s := s.In(t)
		l := newLiar(t, serverCert(t, w.stolen(30*24*time.Hour)), func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == wire.PathHello {
				say(w, 200, wire.HelloReply{Time: time.Now().UnixMicro(), JournalSeq: 0})
				return
			}
			<-r.Context().Done()
		})
		f.play(l.play)
		s.restartAgent()
		s.link("up")
	})
	t.Run("what was done arrives once, with its reason", func(t *testing.T) {
		s := s.In(t)
		f.play(f.pass)
		s.restartAgent()
		s.online()
		s.delivered()
		var got []string
		for _, e := range s.events("--type", "signin.allowed") {
			var d struct {
				Why string `json:"link_reason"`
			}
			if err := json.Unmarshal(e.Data, &d); err != nil {
				t.Fatal(err)
			}
			if e.Link == "down" {
				got = append(got, d.Why)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("events of sign-ins without the server:\n%q\nwant\n%q", got, want)
		}
		denied := slices.DeleteFunc(s.events("--type", "signin.denied"), func(e rest.Event) bool { return e.Subject != "bob" || e.Link != "down" })
		if len(denied) != len(want) {
			t.Errorf("%d events of bob's denials, want %d", len(denied), len(want))
		}
		opened(t, s.x(bob, s.full(bob)), true)
	})
}

// middle is a man in the middle: TLS with his own certificate to the machine, TLS to
// the server behind.
func (f *front) middle(t testing.TB, strangers *[]*liar) func(net.Conn) {
	l := newLiar(t, selfMade(t), func(w http.ResponseWriter, r *http.Request) {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // he does not care
		r.URL.Scheme, r.URL.Host, r.RequestURI = "https", "127.0.0.1:"+agentPort, ""
		res, err := tr.RoundTrip(r)
		if err != nil {
			w.WriteHeader(502)
			return
		}
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
	*strangers = append(*strangers, l)
	return l.play
}

// machineCertificate is the machine's own, as somebody who is root there has it.
func (s *station) machineCertificate(t testing.TB) *tls.Certificate {
	t.Helper()
	id, key, err := identity.Load(s.m.Path(s.state), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{id.Certificate, id.CA}, PrivateKey: key}
}

// otherCA is the CA of another Latchkey.
func otherCA(t *testing.T) *ca.Authority {
	t.Helper()
	dir := t.TempDir()
	st, err := store.Open(t.Context(), store.Config{Database: "sqlite:" + filepath.Join(dir, "latchkey.db"), Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	k, _, err := keys.Open(t.Context(), keys.Config{Dir: dir, Store: st, Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	a, _, err := ca.Open(t.Context(), ca.Config{Store: st, Keys: k, Clock: clock.Real})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// agentMemory is the most that the agent has had in memory since it was started, in
// KiB.
func (s *station) agentMemory() int64 {
	s.t.Helper()
	for line := range strings.Lines(s.here().Run("cat", "/proc/"+s.agent.pid+"/status")) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatal("no VmHWM")
	return 0
}
