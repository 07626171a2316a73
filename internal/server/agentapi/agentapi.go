// Package agentapi is the door for machines: HTTP/1.1 and 2 over TLS 1.3 with
// client certificates of the internal CA, JSON bodies, one long poll.
//
// It promises:
//
//   - Who calls is read from the certificate alone, and looked up at every
//     request: a machine that was revoked a moment ago is refused, with a signed
//     refusal, on every path, and a poll that hangs is ended at once.
//   - TLS is finished with every machine's certificate that the CA ever issued, so
//     that a revoked machine can be told and an expired one can renew; nothing else
//     can be done with an expired one. Every other certificate ends the handshake. Of
//     each kind of refusal there is an event, at most one a minute.
//   - Connections that were opened with a certificate are closed within a second of
//     its revocation, whichever replica it was revoked by.
//   - A machine that waits for approval may say hello and poll.
//   - Bodies are bounded, strict and never logged; every error leaves as a
//     wire.Problem with a code of package fault; a panic costs one request.
//   - A POST is answered within seconds, a poll within a minute, and all of them
//     when the server stops.
//   - Connections of whoever has not shown a machine's certificate have bounded
//     places, and so have those of one machine (package turnstile). A handshake, a
//     header and a body have seconds each.
//
// Rows: E4, O1 (probe, refusal), O5 and O14 (the poll), W6; architecture §5.
package agentapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/event"
	"latchkey/internal/failpoint"
	"latchkey/internal/fault"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/enroll"
	"latchkey/internal/server/offline"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/server/turnstile"
	"latchkey/internal/text"
	"latchkey/internal/wire"
)

// Signin carries the sign-in conversations.
type Signin interface {
	// Step answers one step of a conversation of the machine. body is the request
	// as it came, to be compared with a repetition; it is wiped after the call.
	Step(ctx context.Context, m db.Machine, addr netip.Addr, id string, seq int64, body []byte) (wire.StepReply, error)
	// Wait returns when the answer that the conversation waits for may have come, or
	// when the context ends. It changes nothing.
	Wait(ctx context.Context, m db.Machine, id string) error
	// Occasion ends the windows that a policy ends on what the machine reports.
	Occasion(ctx context.Context, m db.Machine, o wire.Occasion) error
}

// Config is what an API needs. All fields but Observe, Patience and Limits are
// required.
type Config struct {
	Store   *store.Store
	CA      *ca.Authority
	Enroll  *enroll.Door
	Offline *offline.Service
	Signin  Signin
	Clock   clock.Clock
	Log     *slog.Logger
	Version string // of this program
	// Observe is called after each request with the route's pattern; it may be nil.
	Observe func(route string, status int, took time.Duration)
	// Patience is how long a poll hangs; 0 is 50 s, and at most 55 s are taken.
	Patience time.Duration
	// PerMachine bounds what one machine may ask; the zero value is a default.
	PerMachine, PerAddress rate.Rate
	// Places bounds connections; the zero value of a field is a default. Crowded is
	// the door's own.
	Places turnstile.Config
}

// The places for connections. An agent has one or two connections, and for a while
// those that a bad network has cut without telling the server.
const (
	placesPerNetwork = 256
	placesStrangers  = 2048
	placesPerMachine = 32
)

// The times of requests.
const (
	patience    = 50 * time.Second
	maxPatience = 55 * time.Second
	postTime    = 5 * time.Second
	longTime    = 18 * time.Second // bundles and journals; agents wait 20 s for them
	writeTime   = 10 * time.Second
)

// API is the door. It is safe for concurrent use.
type API struct {
	c        Config
	mux      *http.ServeMux
	machines *rate.Keyed
	joins    *rate.Keyed
	notices  *rate.Keyed // of refused strangers, per address or machine
	crowds   *rate.Keyed // of networks that are too many
	entries  *rate.Keyed // of journals, per machine
	journals queues      // one journal at a time of each machine
	places   *turnstile.Turnstile
	cut      *ca.Cutter // connections whose certificate is revoked

	polls     atomic.Int64
	gate      chan struct{} // polls that look
	herd      herd
	sightings sightings
	stop      chan struct{}
	life      context.Context // ends with stop
	end       context.CancelFunc
	stopped   sync.Once
	work      sync.WaitGroup
}

// New makes the door.
func New(c Config) *API {
	if c.Patience <= 0 {
		c.Patience = patience
	}
	c.Patience = min(c.Patience, maxPatience)
	if c.Observe == nil {
		c.Observe = func(string, int, time.Duration) {}
	}
	a := &API{
		c: c, mux: http.NewServeMux(), stop: make(chan struct{}), gate: gates(),
		machines: rate.New(c.PerMachine.Or(rate.Rate{PerSecond: 20, Burst: 60}), c.Clock),
		joins:    rate.New(c.PerAddress.Or(rate.Rate{PerSecond: 5, Burst: 50}), c.Clock),
		notices:  rate.New(rate.Rate{PerSecond: 1.0 / 60, Burst: 1}, c.Clock),
		crowds:   rate.New(rate.Rate{PerSecond: 1.0 / 60, Burst: 1}, c.Clock),
		entries:  rate.New(rate.Rate{PerSecond: 200, Burst: 2000}, c.Clock),
	}
	set := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	set(&c.Places.PerNetwork, placesPerNetwork)
	set(&c.Places.Strangers, placesStrangers)
	set(&c.Places.PerGuest, placesPerMachine)
	c.Places.Crowded = a.crowded
	a.places = turnstile.New(c.Places)
	a.cut = ca.NewCutter(ca.CutterConfig{Store: c.Store, Clock: c.Clock, Log: c.Log})
	a.life, a.end = context.WithCancel(context.Background())
	a.mux.HandleFunc("GET "+ca.ListPath, a.revocationList)
	a.handle("POST "+wire.PathJoin, nobody, postTime, a.join)
	a.handle("POST "+wire.PathRenew, expired, postTime, a.renew)
	a.handle("GET "+wire.PathProbe, pending, postTime, a.probe)
	a.handle("POST "+wire.PathHello, pending, postTime, a.hello)
	a.handle("GET "+wire.PathChanges, waiting, maxPatience+writeTime, a.changes)
	a.handle("POST "+wire.PathStep, active, postTime, a.step)
	a.handle("GET "+wire.PathWait, active, wire.WaitTime, a.await)
	a.handle("POST "+wire.PathPrepare, active, postTime, a.prepare)
	a.handle("POST "+wire.PathPermit, active, postTime, a.permit)
	a.handle("POST "+wire.PathReady, active, postTime, a.ready)
	a.handle("POST "+wire.PathBundle, active, longTime, a.bundle)
	a.handle("POST "+wire.PathWiped, active, postTime, a.wiped)
	a.handle("POST "+wire.PathJournal, active, longTime, a.journal)
	a.handle("POST "+wire.PathOccasion, active, postTime, a.occasion)
	a.handle("POST "+wire.PathUserCert, active, postTime, a.userCertificate)
	return a
}

// Polls is how many polls hang now.
func (a *API) Polls() int64 { return a.polls.Load() }

// Stop answers all polls, now and from now on, and waits for what the door does in
// the background. It is called before the HTTP server is shut down.
func (a *API) Stop() {
	a.stopped.Do(func() { close(a.stop); a.end() })
	a.work.Wait()
}

// Listen makes the door of a listener: TLS, and places for connections, which are cut
// when their certificates are revoked. certificate shows the server's own.
func (a *API) Listen(l net.Listener, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) net.Listener {
	a.work.Go(func() { a.cut.Run(a.life) })
	return tls.NewListener(a.places.Listen(l), a.conf(certificate))
}

// Strangers is how many connections there are of whoever has not shown a machine's
// certificate.
func (a *API) Strangers() int { return a.places.Strangers() }

func (a *API) conf(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	conf := a.tls(certificate)
	// A configuration for each connection, because VerifyConnection is not told from
	// where it comes.
	conf.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c := conf.Clone()
		c.GetConfigForClient = nil
		from := hello.Conn.RemoteAddr() // hello itself would live as long as the connection
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			err := a.verify(cs)
			if err != nil {
				a.foreign(from, cs.PeerCertificates[0], err)
			}
			return err
		}
		return c, nil
	}
	return conf
}

func (a *API) tls(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: certificate,
		NextProtos:     []string{"h2", "http/1.1"},
		// Expired and revoked certificates must get through to be answered; who does
		// not belong to this CA is sent away here.
		ClientAuth:       tls.RequestClientCert,
		VerifyConnection: a.verify,
	}
}

// verify is asked at every handshake, also of resumed sessions. It comes before the
// proof that the other end has the certificate's key.
func (a *API) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil // it may join
	}
	_, _, err := a.c.CA.Recognise(cs.PeerCertificates[0])
	return err
}

// crowded leaves an event about a network whose strangers have taken all places, at
// most one a minute for each.
func (a *API) crowded(addr netip.Addr) {
	if !a.crowds.Take(turnstile.Network(addr)) {
		return
	}
	a.c.Log.Warn("a network opens more connections without a machine's certificate than it has places", "address", addr.String())
	a.note(event.Event{
		Type: event.MachineRefused, Subject: addr.String(), Address: addr.String(), Link: "refused", Outcome: "deny", Reason: "too-many-connections",
	})
}

// foreign leaves an event about a certificate of another CA, at most one a minute
// for each address.
func (a *API) foreign(from net.Addr, c *x509.Certificate, cause error) {
	addr := address(from.String())
	a.c.Log.Debug("a foreign certificate was turned away", "address", addr.String(), "error", cause)
	if !a.notices.Take(turnstile.Network(addr)) {
		return
	}
	data, err := json.Marshal(map[string]string{"certificate": ca.Fingerprint(c), "issuer": text.CleanN(c.Issuer.String(), 128)})
	if err != nil {
		data = nil
	}
	a.note(event.Event{
		Type: event.MachineRefused, Subject: text.CleanN(c.Subject.CommonName, 64), Address: addr.String(), Link: "refused", Outcome: "deny",
		Reason: "foreign-certificate", Data: data,
	})
}

// address is the IP address of an address with a port.
func address(s string) netip.Addr {
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// Server makes the HTTP server of the listener.
func (a *API) Server() *http.Server {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetHTTP2(true)
	return &http.Server{
		Handler:   a,
		Protocols: p,
		// The table for the headers of answers is small: there is one for each machine.
		// That for requests is as large as callers take it to be before they have heard
		// of our settings; a smaller one ends connections of callers that are quick.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 64, MaxReadFrameSize: 64 << 10, MaxEncoderHeaderTableSize: 256},
		// No ReadTimeout: it would end a poll over HTTP/1.1. Each body has its own.
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if tc, ok := c.(*tls.Conn); ok {
				ctx = context.WithValue(ctx, connection{}, &caller{conn: tc.NetConn()})
			}
			return ctx
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if tc, ok := c.(*tls.Conn); ok && (s == http.StateClosed || s == http.StateHijacked) {
				a.cut.Drop(tc.NetConn())
			}
		},
		ErrorLog: slog.NewLogLogger(a.c.Log.Handler(), slog.LevelDebug),
	}
}

// connection is the key of a request's connection in its context.
type connection struct{}

// caller is who is at the other end of a connection.
type caller struct {
	conn  net.Conn
	known atomic.Pointer[known]
}

type known struct {
	cert *x509.Certificate
	id   string
}

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	begun := a.c.Clock.Now()
	sw := &statusWriter{ResponseWriter: w}
	_, route := a.mux.Handler(r)
	w.Header().Set(wire.VersionHeader, strconv.Itoa(wire.Agents().Newest))
	w.Header().Set("Cache-Control", "no-store")
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler {
				panic(v)
			}
			a.panicked(sw, route, v)
		}
		a.c.Observe(route, sw.status, a.c.Clock.Now().Sub(begun))
	}()
	if r.ContentLength != 0 {
		// Also a body that nobody reads, because the caller may not ask this, is waited
		// for no longer: the library looks for its end.
		_ = http.NewResponseController(sw).SetReadDeadline(clock.Deadline(postTime))
	}
	if len(r.TransferEncoding) > 0 {
		// Agents say how long a body is. Where length and chunks are both said, two
		// readers could see two requests: nothing behind this one is read.
		w.Header().Set("Connection", "close")
		a.problem(sw, nil, fault.Newf(fault.BadRequest, "The length of the body must be said in Content-Length."))
		return
	}
	if route == "" {
		a.nowhere(sw)
		return
	}
	a.mux.ServeHTTP(sw, r)
}

// What a poll has on its stack while it waits is there once for each machine: what
// is not needed then is kept out of line.

//go:noinline
func (a *API) panicked(sw *statusWriter, route string, v any) {
	id := store.NewID()
	a.c.Log.Error("a request panicked", "id", id, "route", route, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if sw.status == 0 {
		a.problem(sw, nil, fault.Newf(fault.Internal, "The server has an internal problem. Look into its log for %s.", id))
	}
}

//go:noinline
func (a *API) nowhere(sw *statusWriter) {
	a.problem(sw, nil, fault.Newf(fault.NotFound, "There is no such address here. This is the machines' door of a Latchkey server."))
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// may says who is let through to a route.
type may int

const (
	active  may = iota // machines in good standing
	pending            // and those that wait for approval
	expired            // and those whose certificate has expired
	nobody             // and those without a certificate
	waiting            // as pending: the long poll
)

// request is one call as the routes see it.
type request struct {
	*http.Request
	w       *statusWriter
	addr    netip.Addr
	version int64
	cert    *x509.Certificate
	m       db.Machine // zero with may nobody
	poll    *poll      // only of a poll
}

// route answers with a body, or nil for 204.
type route func(ctx context.Context, r *request) (any, error)

func (a *API) handle(pattern string, who may, limit time.Duration, do route) {
	a.mux.HandleFunc(pattern, func(w http.ResponseWriter, hr *http.Request) {
		sw := w.(*statusWriter) //nolint:forcetypeassert // ServeHTTP is the only way here
		r := &request{Request: hr, w: sw}
		ctx, cancel := context.WithTimeout(hr.Context(), limit)
		defer cancel()
		// A client that reads or writes slowly costs no more than the limit.
		rc := http.NewResponseController(sw)
		if who == waiting { // which writes nothing for a long time
			defer a.depart(r) // whatever happens
		} else {
			_ = rc.SetWriteDeadline(clock.Deadline(limit + writeTime))
		}
		out, err := a.serve(ctx, r, who, do)
		if who == waiting {
			a.depart(r) // whoever reads the answer slowly holds no place
			_ = rc.SetWriteDeadline(clock.Deadline(writeTime))
		}
		failpoint.Hit("agentapi.answering")
		if err != nil {
			a.fail(hr.Context(), r, err)
			return
		}
		if out == nil {
			sw.WriteHeader(http.StatusNoContent)
			return
		}
		body, err := json.Marshal(out)
		if err != nil {
			a.fail(hr.Context(), r, err)
			return
		}
		defer clear(body)
		sw.Header().Set("Content-Type", "application/json")
		_, _ = sw.Write(body)
	})
}

func (a *API) serve(ctx context.Context, r *request, who may, do route) (any, error) {
	r.addr = address(r.RemoteAddr)
	v, err := strconv.ParseInt(r.Header.Get(wire.VersionHeader), 10, 32)
	if err != nil || v < 1 {
		return nil, fault.Newf(fault.BadRequest, "The header %s with the version of the protocol is missing or no number.", wire.VersionHeader)
	}
	r.version = v
	if who == nobody {
		if !a.joins.Take(turnstile.Network(r.addr)) {
			return nil, fault.New(fault.TooMany, nil)
		}
		if err := r.understood(); err != nil {
			return nil, err
		}
		return do(ctx, r)
	}
	if err := a.identify(ctx, r, who); err != nil {
		return nil, err
	}
	// Behind the name: a machine that was revoked is told so in every version, and
	// the event about one that is too old says which it is.
	if err := r.understood(); err != nil {
		return nil, err
	}
	if !a.machines.Take(r.m.ID) {
		return nil, fault.New(fault.TooMany, nil)
	}
	return do(ctx, r)
}

// understood tells whether the request is of a version that the server speaks.
func (r *request) understood() error {
	switch own := wire.Agents(); {
	case r.version < int64(own.Oldest):
		return fault.New(fault.TooOld, nil)
	case r.version > int64(own.Newest):
		return fault.New(fault.TooNew, nil)
	}
	return nil
}

// identify finds out who calls, and whether it may.
func (a *API) identify(ctx context.Context, r *request, who may) error {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return fault.Newf(fault.Unauthorized, "Machines show their certificate here.")
	}
	r.cert = r.TLS.PeerCertificates[0]
	id, over, err := a.recognise(r)
	if err != nil {
		return fault.New(fault.MachineUnknown, err)
	}
	if who == waiting {
		if err := a.arrive(ctx, r, id); err != nil {
			return err
		}
		a.hear(r, id)
	}
	if r.m, err = a.standing(ctx, id, ca.Serial(r.cert), r.poll); err != nil {
		return err
	}
	switch claims := r.Header.Values(wire.MachineHeader); {
	case len(claims) > 1 || len(claims) == 1 && claims[0] != id:
		return fault.Newf(fault.MachineUnknown, "The certificate is that of another machine than the one that asks. Put the state folder back from a backup of this machine, or join again with a new token.").Because(
			&refusal{reasonOther, text.CleanN(strings.Join(claims, ","), 64)})
	case over && who != expired:
		return fault.Newf(fault.Unauthorized, "The machine's certificate has expired. It can be renewed, and nothing else can be done with it.").Because(&refusal{reason: reasonExpired})
	case who == active && r.m.Status != enroll.Active:
		return fault.New(fault.MachinePending, nil)
	}
	return nil
}

// recognise tells whose certificate it is, and whether it has expired. The signature
// was looked at once for each connection; what changes with time is looked at now.
func (a *API) recognise(r *request) (id string, over bool, err error) {
	c, ok := r.Context().Value(connection{}).(*caller)
	now := a.c.Clock.Now()
	if ok {
		if k := c.known.Load(); k != nil && k.cert == r.cert && now.After(r.cert.NotBefore) && now.Before(r.cert.NotAfter) {
			return k.id, false, nil
		}
	}
	if id, over, err = a.c.CA.Recognise(r.cert); err != nil || !ok {
		return id, over, err
	}
	turnstile.Known(c.conn, id) // a request is behind the proof that it has the key
	a.cut.Hold(ca.Serial(r.cert), c.conn)
	if !over {
		c.known.Store(&known{r.cert, id})
	}
	return id, over, nil
}

// standing looks the machine up as it is now, and for a poll what is new to it.
// Whatever is not active or waiting is refused.
func (a *API) standing(ctx context.Context, id, serial string, p *poll) (m db.Machine, err error) {
	revoked, other := false, false
	err = a.c.Store.Read(ctx, func(q *store.Queries) error {
		if m, err = q.GetMachine(ctx, id); err != nil {
			return err
		}
		c, err := q.GetMachineCertificate(ctx, serial)
		switch {
		case store.IsNotFound(err):
			// Issued after the backup from which this database was restored: the
			// machine's own state decides.
		case err != nil:
			return err
		}
		revoked, other = c.RevokedAt != 0, c.Serial != "" && c.MachineID != id
		if p == nil || revoked || other || m.Status != enroll.Active && m.Status != enroll.Pending {
			return nil
		}
		return a.news(ctx, q, p, m)
	})
	switch {
	case store.IsNotFound(err):
		return db.Machine{ID: id}, fault.New(fault.MachineUnknown, err)
	case err != nil:
		return db.Machine{ID: id}, err
	case m.Status != enroll.Active && m.Status != enroll.Pending:
		return m, fault.New(fault.MachineRefused, errors.New("the machine is "+m.Status))
	case revoked:
		return m, fault.Newf(fault.MachineUnknown, "This machine's certificate was revoked. Join again with a new token (latchkey-agent join --again).").Because(&refusal{reason: reasonRevoked})
	case other:
		return m, fault.New(fault.MachineUnknown, &refusal{reason: reasonOther})
	}
	return m, nil
}

// Why a certificate of this CA is refused, as events say it.
const (
	reasonRevoked = "certificate-revoked"
	reasonExpired = "certificate-expired"
	reasonOther   = "certificate-of-another"
)

// refusal is the cause of a fault for which an event gives a reason of its own.
type refusal struct {
	reason string
	claims string // to be this machine
}

func (r *refusal) Error() string { return "refused: " + r.reason }

// fail turns an error into an answer.
func (a *API) fail(ctx context.Context, r *request, err error) {
	if f := (*fault.Fault)(nil); store.IsUnavailable(err) && !errors.As(err, &f) {
		err = fault.New(fault.Unavailable, err)
	}
	f := fault.Of(err)
	var why *refusal
	errors.As(err, &why)
	switch {
	case ctx.Err() != nil: // most likely nobody is there to be answered
	case f.Status() >= 500:
		id := store.NewID()
		a.c.Log.Error("a request failed", "id", id, "path", r.URL.Path, "machine", r.m.ID, "error", err)
		if f.Code == fault.Internal {
			f = fault.Newf(fault.Internal, "The server has an internal problem. Look into its log for %s.", id)
		}
	case f.Code == fault.MachineRefused || f.Code == fault.MachineUnknown || f.Code == fault.TooOld || why != nil:
		if f.Code == fault.MachineRefused || f.Code == fault.MachineUnknown {
			// Whoever is refused for good comes back on a connection of its own, if at all.
			r.w.Header().Set("Connection", "close")
		}
		a.refused(r, f, why)
	case f.Code == fault.TooNew && r.PathValue("id") != "":
		// A sign-in that fails by it. At a greeting it is how a newer agent learns
		// what the server speaks.
		a.refused(r, f, nil)
	case f.Code == fault.Forbidden:
		a.overreach(r, err)
	default:
		a.c.Log.Debug("a request was refused", "path", r.URL.Path, "machine", r.m.ID, "error", err)
	}
	a.problem(r.w, &r.m, f)
}

func (a *API) problem(w *statusWriter, m *db.Machine, f *fault.Fault) {
	p := wire.Problem{Code: string(f.Code), Detail: f.Public()}
	if f.Code == fault.MachineRefused && m != nil {
		p.Refusal = a.c.Enroll.Refusal(*m)
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte(`{"code":"internal","detail":""}`)
	}
	w.Header().Set("Content-Type", "application/json")
	if f.Code == fault.TooMany {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(f.Status())
	_, _ = w.Write(body)
}

// refused leaves an event about a machine that was refused, at most one a minute
// for each and each reason: a revoked machine that does not understand must not fill
// the log. why may be nil.
func (a *API) refused(r *request, f *fault.Fault, why *refusal) {
	key, reason := r.m.ID, string(f.Code)
	if key == "" {
		key = turnstile.Network(r.addr)
	}
	data := map[string]string{}
	if why != nil {
		reason = why.reason
		data["certificate"] = ca.Fingerprint(r.cert)
		if why.claims != "" {
			data["claims"] = why.claims
		}
	}
	if !a.notices.Take(reason + " " + key) {
		return
	}
	e := event.Event{
		Type: event.MachineRefused, Subject: r.m.Name, MachineID: r.m.ID, Machine: r.m.Name, Address: r.addr.String(),
		Link: "refused", Outcome: "deny", Reason: reason,
	}
	if e.Subject == "" {
		e.Subject = r.m.ID
	}
	if len(data) > 0 {
		if b, err := json.Marshal(data); err == nil {
			e.Data = b
		}
	}
	a.note(e)
}

// overreach leaves an event about a machine that asked for offline data to which no
// sign-in entitles it, at most one a minute for each.
func (a *API) overreach(r *request, cause error) {
	a.c.Log.Warn("a machine asked for offline data to which no sign-in entitles it", "machine", r.m.ID, "path", r.URL.Path, "error", cause)
	if a.notices.Take("forbidden " + r.m.ID) {
		a.note(event.Event{
			Type: event.VaultRefused, Subject: r.m.Name, MachineID: r.m.ID, Machine: r.m.Name, Address: r.addr.String(), Outcome: "deny",
			Reason: reasonNotEntitled,
		})
	}
}

// reasonNotEntitled is why offline data is refused to a machine (O4).
const reasonNotEntitled = "no-sign-in-entitles"

// note writes an event that nobody waits for.
func (a *API) note(e event.Event) {
	a.work.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), postTime)
		defer cancel()
		err := a.c.Store.Update(ctx, func(_ context.Context, tx *store.Tx) error {
			_, err := tx.Event(e)
			return err
		})
		if err != nil {
			a.c.Log.Error("an event could not be written", "type", string(e.Type), "error", err)
		}
	})
}

// read takes a body: bounded, one JSON value, no field that is not known. The
// octets are wiped: they hold passwords and codes.
func (r *request) read(into any) error {
	body, err := r.body()
	if err != nil {
		return err
	}
	defer clear(body)
	return Decode(body, into)
}

func (r *request) body() ([]byte, error) {
	if r.ContentLength > wire.MaxRequest {
		return nil, fault.Newf(fault.BadRequest, "The request has more than %d octets.", wire.MaxRequest)
	}
	rc := http.NewResponseController(r.w)
	_ = rc.SetReadDeadline(clock.Deadline(postTime))
	// Memory is taken as octets come, not as they are announced.
	size := min(max(r.ContentLength, 512), 16<<10)
	buf := make([]byte, 0, size+1)
	for {
		if len(buf) == cap(buf) {
			if len(buf) > wire.MaxRequest {
				clear(buf)
				return nil, fault.Newf(fault.BadRequest, "The request has more than %d octets.", wire.MaxRequest)
			}
			// By hand, because append would leave a copy of a password behind.
			next := make([]byte, len(buf), 2*cap(buf)+1)
			copy(next, buf)
			clear(buf)
			buf = next
		}
		n, err := r.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			clear(buf)
			// The deadline stays: nobody waits for the rest of it.
			r.w.Header().Set("Connection", "close")
			return nil, fault.Newf(fault.BadRequest, "The request could not be read to its end.").Because(err)
		}
	}
	if len(buf) > wire.MaxRequest {
		clear(buf)
		return nil, fault.Newf(fault.BadRequest, "The request has more than %d octets.", wire.MaxRequest)
	}
	_ = rc.SetReadDeadline(time.Time{})
	return buf, nil
}

// revocationList gives the list to whoever asks; it needs neither certificate nor
// version.
func (a *API) revocationList(w http.ResponseWriter, r *http.Request) {
	if !a.joins.Take(turnstile.Network(address(r.RemoteAddr))) {
		http.Error(w, "Too many requests.", http.StatusTooManyRequests)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(clock.Deadline(longTime))
	a.c.CA.ServeList(w, r)
}

func (a *API) join(ctx context.Context, r *request) (any, error) {
	var in wire.Join
	if err := r.read(&in); err != nil {
		return nil, err
	}
	defer in.Token.Wipe()
	reply, err := a.c.Enroll.Join(ctx, r.addr.String(), in)
	if err != nil {
		return nil, err
	}
	a.c.Log.Info("a machine joined", "machine", reply.MachineID, "name", reply.Name, "status", reply.Status, "address", r.addr.String())
	return reply, nil
}

func (a *API) renew(ctx context.Context, r *request) (any, error) {
	var in wire.Renew
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return a.c.Enroll.Renew(ctx, r.m, ca.Serial(r.cert), r.addr.String(), in)
}

func (a *API) probe(context.Context, *request) (any, error) { return nil, nil }

func (a *API) hello(ctx context.Context, r *request) (any, error) {
	var in wire.Hello
	if err := r.read(&in); err != nil {
		return nil, err
	}
	if err := a.c.Enroll.Hello(ctx, r.m, r.addr.String(), r.version, in); err != nil {
		return nil, err
	}
	out := wire.HelloReply{
		Time: clock.Micros(a.c.Clock.Now()), ServerVersion: a.c.Version, RenewAfter: clock.Micros(ca.RenewAfter(r.cert)),
	}
	err := a.c.Store.Read(ctx, func(q *store.Queries) error {
		h, err := q.GetJournalHead(ctx, r.m.ID)
		if store.IsNotFound(err) {
			return nil
		}
		out.JournalSeq, out.JournalHash = uint64(h.Seq), h.Hash
		return err
	})
	return out, err
}

// maxSteps bounds a conversation.
const maxSteps = 200

func (a *API) step(ctx context.Context, r *request) (any, error) {
	id := r.PathValue("id")
	seq, err := strconv.ParseInt(r.PathValue("seq"), 10, 32)
	if !ValidID(id) || err != nil || seq < 1 || seq > maxSteps {
		return nil, fault.Newf(fault.BadRequest, "The address names no step of a conversation.")
	}
	body, err := r.body()
	if err != nil {
		return nil, err
	}
	defer clear(body)
	return a.c.Signin.Step(ctx, r.m, r.addr, id, seq, body)
}

// await hangs until what the conversation waits for may have come (S2).
func (a *API) await(ctx context.Context, r *request) (any, error) {
	id := r.PathValue("id")
	if !ValidID(id) {
		return nil, fault.Newf(fault.BadRequest, "The address names no conversation.")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a server that stops answers
		select {
		case <-a.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := a.c.Signin.Wait(ctx, r.m, id)
	if ctx.Err() != nil {
		err = nil // nothing came, which is no failure
	}
	return wire.Empty{}, err
}

// ValidID tells whether s has the form of a UUID in lower case.
func ValidID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		if slices.Contains([]int{8, 13, 18, 23}, i) {
			if c != '-' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func (a *API) prepare(ctx context.Context, r *request) (any, error) {
	var in wire.Prepare
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return a.c.Offline.Prepare(ctx, r.m, in)
}

func (a *API) permit(ctx context.Context, r *request) (any, error) {
	var in wire.PermitRequest
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return a.c.Offline.Permit(ctx, r.m, in)
}

func (a *API) ready(ctx context.Context, r *request) (any, error) {
	var in wire.Ready
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return wire.Empty{}, a.c.Offline.Ready(ctx, r.m, in)
}

func (a *API) bundle(ctx context.Context, r *request) (any, error) {
	var in wire.BundleRequest
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return a.c.Offline.Bundle(ctx, r.m, in)
}

func (a *API) wiped(ctx context.Context, r *request) (any, error) {
	var in wire.Wiped
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return wire.Empty{}, a.c.Offline.Wiped(ctx, r.m, in)
}

// journal takes a machine's journals one after the other, and its entries at a pace: a
// long absence is delivered quickly, and nobody keeps the database busy for the others.
func (a *API) journal(ctx context.Context, r *request) (any, error) {
	leave, err := a.journals.enter(ctx, r.m.ID)
	if err != nil {
		return nil, err
	}
	defer leave()
	var in wire.Journal
	if err := r.read(&in); err != nil {
		return nil, err
	}
	if err := a.entries.Wait(ctx, r.m.ID, len(in.Entries)); err != nil {
		return nil, err
	}
	return a.c.Offline.Journal(ctx, r.m, in)
}

func (a *API) userCertificate(ctx context.Context, r *request) (any, error) {
	var in wire.UserCertificate
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return a.c.Enroll.UserCertificate(ctx, r.m, r.addr.String(), in)
}

func (a *API) occasion(ctx context.Context, r *request) (any, error) {
	var in wire.Occasion
	if err := r.read(&in); err != nil {
		return nil, err
	}
	return wire.Empty{}, a.c.Signin.Occasion(ctx, r.m, in)
}
