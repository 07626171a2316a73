package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"latchkey/internal/agent/identity"
	"latchkey/internal/rest"
	"latchkey/internal/secret"
	"latchkey/internal/server/store"
	"latchkey/internal/wire"
)

// machine is a connection to the machines' door, made as the agent makes it: HTTP/2, one connection for everything,
// asked whether it lives after eight seconds of silence.
type machine struct {
	id, base string
	http     *http.Client
}

func dial(addr, id string, roots *x509.CertPool, cert *tls.Certificate, from net.IP) *machine {
	tc := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	if cert != nil {
		tc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	dialer := &net.Dialer{
		Timeout: 60 * time.Second, LocalAddr: &net.TCPAddr{IP: from},
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	return &machine{id: id, base: "https://" + addr, http: &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: tc, TLSHandshakeTimeout: 60 * time.Second, ForceAttemptHTTP2: true,
		DisableCompression: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 8 * time.Second, PingTimeout: 30 * time.Second, WriteByteTimeout: 30 * time.Second},
	}}}
}

// source is one of the addresses that machines come from.
func source(n int) net.IP { return net.IPv4(127, 0, byte(1+n%128), byte(1+n/128%250)) }

func (m *machine) close() { m.http.CloseIdleConnections() }

// refusal is an answer that is not 2xx.
type refusal struct {
	status  int
	problem wire.Problem
}

func (r *refusal) Error() string {
	return fmt.Sprintf("status %d: %s: %s", r.status, r.problem.Code, r.problem.Detail)
}

func (m *machine) call(ctx context.Context, method, path string, in, out any) (size int, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, body)
	if err != nil {
		return 0, err
	}
	req.Header.Set(wire.VersionHeader, strconv.Itoa(wire.Version))
	res, err := m.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err
	}
	if res.StatusCode > 299 {
		r := &refusal{status: res.StatusCode}
		_ = json.Unmarshal(b, &r.problem)
		return len(b), r
	}
	if out == nil || len(b) == 0 {
		return len(b), nil
	}
	return len(b), json.Unmarshal(b, out)
}

// join makes a machine with a key of its own and a token for it alone, as latchkey-agent join does.
func (w *world) join(ctx context.Context, n int) (*machine, error) {
	var token rest.Token
	if err := w.call(ctx, http.MethodPost, "/machine-tokens", rest.NewToken{ServerURL: "https://" + w.machines}, &token); err != nil {
		return nil, err
	}
	t, err := wire.DecodeToken(token.Token.Show())
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := identity.Request(key, "machine")
	if err != nil {
		return nil, err
	}
	// Until it has joined the agent knows the CA by its hash alone.
	var seen []byte
	stranger := dial(w.machines, "", nil, nil, source(n))
	tc := stranger.http.Transport.(*http.Transport).TLSClientConfig
	tc.InsecureSkipVerify = true //nolint:gosec // the CA is compared with the token below
	tc.VerifyConnection = func(cs tls.ConnectionState) error {
		seen = cs.PeerCertificates[len(cs.PeerCertificates)-1].Raw
		return nil
	}
	defer stranger.close()
	var reply wire.JoinReply
	_, err = stranger.call(ctx, http.MethodPost, wire.PathJoin, wire.Join{Token: wire.Hide(t.Secret), CSR: csr, Facts: machineFacts(n)}, &reply)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	if !bytes.Equal(seen, reply.CA) {
		return nil, errors.New("join: the server's CA is another than the one that it names")
	}
	roots, err := pool(reply.CA)
	if err != nil {
		return nil, err
	}
	return dial(w.machines, reply.MachineID, roots, &tls.Certificate{Certificate: [][]byte{reply.Certificate}, PrivateKey: key}, source(n)), nil
}

func machineFacts(n int) wire.MachineFacts {
	return wire.MachineFacts{Hostname: fmt.Sprintf("pc%d.example.org", n), OS: "linux Debian GNU/Linux 12", AgentVersion: "0.0.0", Boot: "boot", Class: "software"}
}

// signin is one whole conversation of mode=second: begin, prompt, code, allowed. It tells the time of the code alone too.
func (m *machine) signin(ctx context.Context, p *person, code string) (judged time.Duration, id string, err error) {
	id = store.NewID()
	path := func(seq string) string { return strings.NewReplacer("{id}", id, "{seq}", seq).Replace(wire.PathStep) }
	var reply wire.StepReply
	_, err = m.call(ctx, http.MethodPost, path("1"), wire.Step{Begin: &wire.Begin{
		Purpose: wire.PurposeSignin, User: p.name, Scope: "remote", Service: "sshd", TTY: "ssh", RHost: "192.0.2.7", Mode: "second", First: "machine",
		Boot: "boot", At: time.Now().UnixMicro(),
	}}, &reply)
	if err != nil {
		return 0, id, err
	}
	if reply.Prompt == nil || reply.Prompt.For != wire.ForCode {
		return 0, id, fmt.Errorf("%s was not asked for a code: %+v %+v", p.name, reply.Prompt, reply.Done)
	}
	begun := time.Now()
	reply = wire.StepReply{}
	if _, err = m.call(ctx, http.MethodPost, path("2"), wire.Step{Answer: &wire.Answer{Text: wire.Hide(secret.FromString(code))}}, &reply); err != nil {
		return 0, id, err
	}
	if reply.Done == nil || reply.Done.Outcome != "allow" || !reply.Done.MFA || len(reply.Done.Spent) != 1 {
		return 0, id, fmt.Errorf("%s with a right code: %+v %+v %+v", p.name, reply.Done, reply.Prompt, reply.Messages)
	}
	return time.Since(begun), id, nil
}
