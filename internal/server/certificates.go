package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"latchkey/internal/clock"
	"latchkey/internal/server/ca"
	"latchkey/internal/server/store"
)

// shownCerts are the client certificates that people show at their door (M4). The door
// asks for one only while the settings let users have them, and names Latchkey's own CA
// alone, so that nobody else's browser offers anything. A certificate that is none of
// ours breaks no handshake: it opens nothing.
type shownCerts struct {
	r     *running
	cut   *ca.Cutter
	on    atomic.Bool
	until atomic.Int64 // unix microseconds: as long on is believed
}

// settingsTime is how long a change of the settings may take to be seen in handshakes.
// What a certificate opens is looked up at every request.
const settingsTime = time.Second

func newShownCerts(r *running) *shownCerts {
	return &shownCerts{r: r, cut: ca.NewCutter(ca.CutterConfig{Store: r.store, Clock: r.Clock, Log: r.Log})}
}

// asked tells whether browsers are asked for a certificate now.
func (s *shownCerts) asked(ctx context.Context) bool {
	now := clock.Micros(s.r.Clock.Now())
	was := s.until.Load()
	if d := was - now; d > 0 && d <= settingsTime.Microseconds() || !s.until.CompareAndSwap(was, now+settingsTime.Microseconds()) {
		return s.on.Load()
	}
	ctx, cancel := context.WithTimeout(ctx, settingsTime)
	defer cancel()
	err := s.r.store.Read(ctx, func(q *store.Queries) error {
		set, err := ca.ReadUserSettings(ctx, q)
		if err == nil {
			s.on.Store(set.On())
		}
		return err
	})
	if err != nil {
		s.r.Log.Warn("whether users have certificates can not be read", "error", err)
	}
	return s.on.Load()
}

// tls is the configuration of the people's door.
func (s *shownCerts) tls(shown func(*tls.ClientHelloInfo) (*tls.Certificate, error)) (*tls.Config, error) {
	own, err := x509.ParseCertificate(s.r.ca.Certificate())
	if err != nil {
		return nil, err
	}
	plain := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: shown, NextProtos: []string{"h2", "http/1.1"}}
	asking := plain.Clone()
	asking.ClientAuth, asking.ClientCAs = tls.RequestClientCert, x509.NewCertPool()
	asking.ClientCAs.AddCert(own)
	plain.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if s.asked(hello.Context()) {
			return asking, nil
		}
		return nil, nil //nolint:nilnil // as it stands
	}
	return plain, nil
}

type connKey struct{}

// hold prepares the door's server: connections with a certificate are closed when it is
// revoked.
func (s *shownCerts) hold(srv *http.Server) {
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if tc, ok := c.(*tls.Conn); ok {
			ctx = context.WithValue(ctx, connKey{}, tc.NetConn())
		}
		return ctx
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		if tc, ok := c.(*tls.Conn); ok && (state == http.StateClosed || state == http.StateHijacked) {
			s.cut.Drop(tc.NetConn())
		}
	}
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
				s.cut.Hold(ca.Serial(r.TLS.PeerCertificates[0]), c)
			}
		}
		next.ServeHTTP(w, r)
	})
}
