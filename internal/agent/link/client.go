package link

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"latchkey/internal/fault"
	"latchkey/internal/wire"
)

// client makes requests over connections of its own. It is thrown away when one
// of them fails.
type client struct {
	base string
	id   string // the machine's; empty while joining
	tr   *http.Transport
	http *http.Client

	speaks  *atomic.Int32 // the version that the server understands, as far as is known
	proxied bool          // through a proxy
	through atomic.Bool   // the proxy has let us through, once

	mu    sync.Mutex
	local netip.Addr // our end of the connection that was used last
}

type clientConfig struct {
	server, proxy string
	timing        Timing
	trust         trust
	key           crypto.Signer // nil while joining
	certificate   [][]byte
	machine       string        // its id; empty while joining
	speaks        *atomic.Int32 // kept over clients; nil while joining
}

func newClient(cfg clientConfig) *client {
	u, err := url.Parse(cfg.server) // judged by wire.CheckServerURL before
	if err != nil {
		u = &url.URL{Scheme: "https", Host: "invalid."}
	}
	tc := cfg.trust.config(u.Hostname())
	if cfg.key != nil {
		tc.Certificates = []tls.Certificate{{Certificate: cfg.certificate, PrivateKey: cfg.key}}
		// The server knows our CA; the list of names that it may send is not asked.
		tc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tc.Certificates[0], nil }
	}
	dialer := &net.Dialer{
		Timeout:         10 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	tr := &http.Transport{
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        tc,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		// A connection on which nothing comes is asked whether it lives: a poll must
		// not hang on packets that vanish.
		HTTP2: &http.HTTP2Config{SendPingTimeout: cfg.timing.Ping, PingTimeout: cfg.timing.First, WriteByteTimeout: cfg.timing.Step},
	}
	c := &client{base: cfg.server, id: cfg.machine, tr: tr, proxied: cfg.proxy != "", speaks: cfg.speaks}
	if c.speaks == nil {
		c.speaks = newest()
	}
	if c.proxied {
		if p, err := url.Parse(cfg.proxy); err == nil {
			tr.Proxy = http.ProxyURL(p)
		}
		tr.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode != http.StatusOK {
				return proxyError{res.StatusCode}
			}
			c.through.Store(true)
			return nil
		}
	}
	c.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return c
}

// close ends idle connections; requests that are on their way come to their end.
func (c *client) close() { c.tr.CloseIdleConnections() }

// retire is close for a client that worked.
func (c *client) retire() { c.close() }

// newest is the version that is spoken before anything is known.
func newest() *atomic.Int32 {
	v := &atomic.Int32{}
	v.Store(int32(wire.Servers().Newest))
	return v
}

// letter is a request's body, and in which version it was written. A repetition has
// the same octets, because the server compares them, unless the server has said that
// it does not read this version.
type letter struct {
	v       any
	raw     []byte // nil: not written yet, or no body
	version int
}

// write writes the body for a version, unless it is there.
func (m *letter) write(version int) error {
	if m.version == version {
		return nil
	}
	m.wipe()
	m.version = version
	if m.v == nil {
		return nil
	}
	b, err := wire.Encode(m.v, version)
	if err != nil {
		return err
	}
	if len(b) > wire.MaxRequest {
		clear(b)
		return fmt.Errorf("a request of %d octets, at most %d are allowed", len(b), wire.MaxRequest)
	}
	m.raw = b
	return nil
}

func (m *letter) wipe() {
	clear(m.raw)
	m.raw, m.version = nil, 0
}

// body is a copy of a request's octets that is wiped when the transport is done
// with it, which may be after the request has failed.
type body struct {
	mu sync.Mutex
	b  []byte
	r  *bytes.Reader
}

func newBody(b []byte) *body {
	c := bytes.Clone(b)
	return &body{b: c, r: bytes.NewReader(c)}
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.b == nil {
		return 0, errors.New("body is closed")
	}
	return b.r.Read(p)
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.b)
	b.b = nil
	return nil
}

// call makes one request. The error is *wire.Problem for a 4xx of the server, else
// *Down.
//
// A server that is older than the agent is spoken to in its own version: where it
// says that a request is of a newer one, the request is written anew. An answer
// that names another version is remembered, so that the agent comes up again when
// the server was updated.
func (c *client) call(ctx context.Context, method, path string, m *letter, out any) error {
	if m.version == 0 {
		if err := m.write(int(c.speaks.Load())); err != nil {
			return err
		}
	}
	said, err := c.once(ctx, method, path, m, out)
	if own := wire.Servers(); said >= own.Oldest {
		c.speaks.Store(int32(min(said, own.Newest)))
	}
	var p *wire.Problem
	if errors.As(err, &p) && p.Code == string(fault.TooNew) && said < m.version && wire.Servers().Has(said) {
		if err := m.write(said); err != nil {
			return err
		}
		_, err = c.once(ctx, method, path, m, out)
	}
	return err
}

// once sends a letter and tells the version that the answer names, or 0.
func (c *client) once(ctx context.Context, method, path string, m *letter, out any) (said int, err error) {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if a, err := netip.ParseAddrPort(i.Conn.LocalAddr().String()); err == nil {
			c.mu.Lock()
			c.local = a.Addr().Unmap().WithZone("")
			c.mu.Unlock()
		}
	}})
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set(wire.VersionHeader, strconv.Itoa(m.version))
	req.Header.Set("User-Agent", "latchkey-agent")
	if c.id != "" {
		req.Header.Set(wire.MachineHeader, c.id)
	}
	if in := m.raw; in != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Body, req.ContentLength = newBody(in), int64(len(in))
		req.GetBody = func() (io.ReadCloser, error) { return newBody(in), nil }
	}
	res, err := c.http.Do(req)
	if err != nil {
		return 0, &Down{Reason: c.behind(classify(err)), cause: err}
	}
	defer res.Body.Close()
	// Up to four digits: more is nobody's version.
	if v := res.Header.Get(wire.VersionHeader); len(v) <= 4 {
		said, _ = strconv.Atoi(v)
	}
	return said, answer(res, out, maxReply(path))
}

// behind says whose fault it is where a proxy stands in between: until it has let
// us through nothing that happens is the server's.
func (c *client) behind(r Reason) Reason {
	if !c.proxied || c.through.Load() {
		return r
	}
	switch r {
	case Silence:
		return ProxySilent
	case Broken, NotLatchkey:
		return ProxyRefused // it hangs up, or does not speak CONNECT
	}
	return r
}

// maxReply bounds the answer of a path: only what grows with people and days may
// be large.
func maxReply(path string) int64 {
	if path == wire.PathBundle || strings.HasPrefix(path, wire.PathChanges) {
		return wire.MaxReply
	}
	return wire.MaxSmallReply
}

// answer judges a response of the server whose identity TLS has proven.
func answer(res *http.Response, out any, limit int64) error {
	if v := res.Header.Get(wire.VersionHeader); v == "" || len(v) > 8 {
		return &Down{Reason: NotLatchkey, cause: answerError{"status " + strconv.Itoa(res.StatusCode) + " without " + wire.VersionHeader}}
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	defer clear(raw)
	if err != nil {
		return &Down{Reason: classify(err), cause: err}
	}
	if int64(len(raw)) > limit {
		return &Down{Reason: ServerError, cause: fmt.Errorf("an answer of more than %d octets", limit)}
	}
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		if out == nil || code == http.StatusNoContent {
			return nil
		}
		if err := json.Unmarshal(raw, out); err != nil {
			return &Down{Reason: ServerError, cause: errors.New("an answer that can not be read")}
		}
		return nil
	case code >= 400 && code < 500:
		var p wire.Problem
		if err := json.Unmarshal(raw, &p); err != nil || p.Code == "" {
			return &Down{Reason: NotLatchkey, cause: answerError{"status " + strconv.Itoa(code) + " without a problem"}}
		}
		return &p
	case code >= 500:
		var p wire.Problem
		if json.Unmarshal(raw, &p) == nil && p.Code != "" {
			return &Down{Reason: ServerError, cause: &serverError{p}}
		}
		return &Down{Reason: ServerError, cause: fmt.Errorf("status %d", code)}
	default:
		return &Down{Reason: NotLatchkey, cause: answerError{"status " + strconv.Itoa(code)}}
	}
}

// serverError holds the problem of a 5xx. It is no *wire.Problem, which would be
// an answer.
type serverError struct{ p wire.Problem }

func (e *serverError) Error() string { return e.p.Error() }

// network names the network of our end of the connection, as the interface's
// address says it; empty if it is not known.
func (c *client) network() string {
	c.mu.Lock()
	local := c.local
	c.mu.Unlock()
	if !local.IsValid() {
		return ""
	}
	ifs, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range ifs {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().Unmap().WithZone("") == local {
				return i.Name + " " + p.Masked().String()
			}
		}
	}
	return ""
}
