package agentapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
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
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"latchkey/internal/event"
	"latchkey/internal/fault"
	"latchkey/internal/server/agentapi"
	"latchkey/internal/server/rate"
	"latchkey/internal/server/store"
	"latchkey/internal/server/store/db"
	"latchkey/internal/wire"
)

func TestBodiesThatAreNone(t *testing.T) {
	r := newRig(t, newStore(t), func(c *agentapi.Config) { c.PerMachine = rate.Rate{PerSecond: 1e6, Burst: 1e6} })
	r.step = func(_ context.Context, _ db.Machine, _ string, _ int64, body []byte) (wire.StepReply, error) {
		var s wire.Step
		return wire.StepReply{}, agentapi.Decode(body, &s)
	}
	m := r.joined()
	paths := closedPaths(m)
	paths[wire.PathHello] = wire.Hello{}
	paths[wire.PathRenew] = wire.Renew{}
	paths[wire.PathJoin] = wire.Join{}
	deep := bytes.Repeat([]byte(`{"a":`), 5000)
	for path := range paths {
		for name, body := range map[string][]byte{
			"nothing":           {},
			"no JSON":           []byte("hello"),
			"another type":      []byte(`[]`),
			"a number":          []byte(`1`),
			"cut off":           []byte(`{"`),
			"an unknown field":  []byte(`{"surprise":1}`),
			"two values":        []byte(`{} {}`),
			"octets":            {0xff, 0xfe, 0, 1},
			"deep":              deep,
			"a megabyte and so": bytes.Repeat([]byte(" "), wire.MaxRequest+1),
		} {
			status, p, err := m.call("POST", path, body, nil)
			if err != nil {
				t.Fatalf("%s, %s: %v", path, name, err)
			}
			if status < 400 || status >= 500 {
				t.Errorf("%s, %s: %d %+v", path, name, status, p)
			}
			if len(p.Detail) > 500 || strings.Contains(p.Detail, "surprise") {
				t.Errorf("%s, %s: the answer repeats the request: %q", path, name, p.Detail)
			}
		}
	}
}

func TestABodyThatNeverComesIsNotWaitedForLong(t *testing.T) {
	t.Parallel()
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	conn := m.dial("http/1.1")
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\nContent-Length: 100\r\n\r\n{", wire.PathHello)
	begun := time.Now()
	_ = conn.SetReadDeadline(begun.Add(15 * time.Second))
	got, _ := io.ReadAll(conn)
	if took := time.Since(begun); took > 8*time.Second || !strings.Contains(string(got), "400") {
		t.Errorf("after %v: %.200q", took, got)
	}
}

// dial makes one connection with the machine's certificate.
func (m *machine) dial(proto string) *tls.Conn {
	m.r.Helper()
	conf := m.http.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.NextProtos = []string{proto}
	conf.ServerName = "127.0.0.1"
	c, err := tls.Dial("tcp", strings.TrimPrefix(m.r.url, "https://"), conf)
	if err != nil {
		m.r.Fatal(err)
	}
	m.r.Cleanup(func() { _ = c.Close() })
	return c
}

func TestVersionsOfTheProtocol(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	for version, code := range map[string]string{"": "bad-request", "x": "bad-request", "-1": "bad-request", "0": "bad-request", "999999999999": "bad-request", "2": "too-new", "77": "too-new"} {
		m.version = version
		m.fails("POST", wire.PathHello, wire.Hello{Facts: m.facts}, code)
		m.fails("POST", wire.PathJoin, wire.Join{}, code)
		m.fails("GET", wire.PathProbe, nil, code)
	}
}

func TestAPollOverOldHTTPHangsLongerThanABodyMay(t *testing.T) {
	t.Parallel()
	r := newRig(t, newStore(t), func(c *agentapi.Config) { c.Patience = 5500 * time.Millisecond })
	m := r.joined()
	serial := m.policy(0).Serial
	conn := m.dial("http/1.1")
	for _, path := range []string{fmt.Sprintf("%s?since=%d", wire.PathChanges, serial), wire.PathProbe} { // the same connection serves again
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nLatchkey-Wire: 1\r\n\r\n", path)
		buf := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(12 * time.Second))
		n, err := conn.Read(buf)
		if err != nil || !bytes.Contains(buf[:n], []byte("HTTP/1.1 20")) {
			t.Fatalf("%q, %v", buf[:n], err)
		}
	}
}

func TestOnlyTLS13IsSpoken(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	addr := strings.TrimPrefix(r.url, "https://")
	if c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 was accepted")
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", wire.PathProbe)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if got, _ := io.ReadAll(c); !strings.Contains(string(got), "400 Bad Request") || strings.Contains(string(got), wire.VersionHeader) {
		t.Errorf("plain HTTP: %q", got)
	}
}

// forge makes a certificate for the machine's key by a CA of the test's own.
func forge(t *testing.T, m *machine, alter func(c *x509.Certificate)) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	real, err := x509.ParseCertificate(m.r.ca.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{
		SerialNumber: real.SerialNumber, Subject: real.Subject, SubjectKeyId: real.SubjectKeyId,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: m.id}, URIs: []*url.URL{{Scheme: "latchkey", Opaque: "machine/" + m.id}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if alter != nil {
		alter(leaf)
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, m.key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestACertificateOfAnotherCAIsTurnedAway(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	m.cert = forge(t, m, nil)
	m.connect()
	if status, p, err := m.call("GET", wire.PathProbe, nil, nil); err == nil {
		t.Errorf("it was answered: %d %+v", status, p)
	}
	// It is an event, once, however often it tries.
	for range 5 {
		m.connect()
		_, _, _ = m.call("GET", wire.PathProbe, nil, nil)
	}
	r.eventually("the event", func() bool { return r.reasons(event.MachineRefused) == "machine.refused/foreign-certificate" })
	time.Sleep(100 * time.Millisecond)
	if n := len(r.events(event.MachineRefused)); n != 1 {
		t.Errorf("%d events", n)
	}
	// The server's own certificate is no machine's either.
	own, err := r.ca.Server([]string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	conf := m.http.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil }
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
	if res, err := client.Get(r.url + wire.PathProbe); err == nil {
		res.Body.Close()
		t.Errorf("the server's own certificate: %s", res.Status)
	}
}

func TestAMachineThatWasRemovedIsUnknown(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.newMachine()
	cert, err := r.ca.SignMachine(m.csr(), store.NewID())
	if err != nil {
		t.Fatal(err)
	}
	m.cert = cert.Raw
	m.connect()
	for range 3 {
		m.fails("POST", wire.PathHello, wire.Hello{Facts: m.facts}, "machine-unknown")
	}
	r.eventually("the event", func() bool { return r.reasons(event.MachineRefused) == "machine.refused/machine-unknown" })
}

func TestARevokedCertificateOfAnActiveMachineIsOfNoUse(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	r.change(func(tx *store.Tx) error {
		_, err := tx.RevokeMachineCertificates(t.Context(), db.RevokeMachineCertificatesParams{MachineID: m.id, At: 1})
		return err
	})
	m.fails("POST", wire.PathHello, wire.Hello{Facts: m.facts}, "machine-unknown")
	m.fails("POST", wire.PathRenew, wire.Renew{CSR: m.csr()}, "machine-unknown")
}

func TestOneMachineCanNotKeepTheOthersOut(t *testing.T) {
	r := newRig(t, newStore(t), func(c *agentapi.Config) { c.PerMachine = rate.Rate{PerSecond: 0.001, Burst: 10} })
	loud, quiet := r.joined(), r.joined()
	refused := 0
	for range 20 {
		status, p, err := loud.call("GET", wire.PathProbe, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if status == 429 && p.Code == string(fault.TooMany) {
			refused++
		}
	}
	if refused != 10 {
		t.Errorf("%d of 20 were refused", refused)
	}
	quiet.must("GET", wire.PathProbe, nil, nil)
}

func TestAPanicCostsOneRequest(t *testing.T) {
	var log lockedBuffer
	r := newRig(t, newStore(t), func(c *agentapi.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	m := r.joined()
	path := strings.NewReplacer("{id}", store.NewID(), "{seq}", "1").Replace(wire.PathStep)
	secret := "Tr0ub4dor-and-3"
	body := []byte(`{"answer":{"text":"` + secret + `"}}`)
	r.step = func(context.Context, db.Machine, string, int64, []byte) (wire.StepReply, error) {
		panic("out of order")
	}
	p := m.fails("POST", path, body, "internal")
	id := p.Detail[strings.LastIndex(p.Detail, " ")+1 : len(p.Detail)-1]
	if !agentapi.ValidID(id) || !strings.Contains(log.String(), id) {
		t.Errorf("%q is not in the log", p.Detail)
	}
	r.step = func(context.Context, db.Machine, string, int64, []byte) (wire.StepReply, error) {
		return wire.StepReply{}, errors.New("the database is on fire")
	}
	if p := m.fails("POST", path, body, "internal"); strings.Contains(p.Detail, "fire") {
		t.Errorf("the cause leaves the house: %q", p.Detail)
	}
	if strings.Contains(log.String(), secret) {
		t.Error("the log holds a password")
	}
	m.must("GET", wire.PathProbe, nil, nil)
}

func TestAStepsBodyArrivesAsItWasSent(t *testing.T) {
	r := newRig(t, newStore(t), nil)
	m := r.joined()
	id := store.NewID()
	sent := []byte(`{"cancel": true}  `)
	var got []byte
	r.step = func(_ context.Context, who db.Machine, conv string, seq int64, body []byte) (wire.StepReply, error) {
		got = bytes.Clone(body)
		if who.ID != m.id || conv != id || seq != 7 {
			t.Errorf("%s %s %d", who.ID, conv, seq)
		}
		return wire.StepReply{Done: &wire.Done{Outcome: "deny", Reason: "x"}}, nil
	}
	var reply wire.StepReply
	m.must("POST", strings.NewReplacer("{id}", id, "{seq}", "7").Replace(wire.PathStep), sent, &reply)
	if !bytes.Equal(got, sent) || reply.Done == nil || reply.Done.Reason != "x" {
		t.Errorf("%q, %+v", got, reply)
	}
	for _, bad := range [][2]string{{"x", "1"}, {strings.ToUpper(id), "1"}, {id, "0"}, {id, "-1"}, {id, "x"}, {id, "201"}, {id, "99999999999"}, {"..%2f..%2f" + id, "1"}} {
		if status, p, err := m.call("POST", strings.NewReplacer("{id}", bad[0], "{seq}", bad[1]).Replace(wire.PathStep), sent, nil); err != nil || status < 400 {
			t.Errorf("%v: %d %+v %v", bad, status, p, err)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// FuzzDecode reads every body of the API from anything. What is read is written
// and read again the same.
func FuzzDecode(f *testing.F) {
	bodies := []any{
		&wire.Join{}, &wire.Renew{}, &wire.Hello{}, &wire.Step{}, &wire.Prepare{}, &wire.PermitRequest{}, &wire.Ready{},
		&wire.BundleRequest{}, &wire.Wiped{}, &wire.Journal{}, &wire.Occasion{}, &wire.UserCertificate{},
	}
	for i, b := range bodies {
		raw, err := json.Marshal(b)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), raw)
	}
	f.Add(uint8(3), []byte(`{"begin":{"purpose":"signin","user":"a","scope":"logon","service":"login","mode":"full","password":"aGk=","boot":"b","at":1}}`))
	f.Add(uint8(9), []byte(`{"entries":[{"seq":1,"counter":1,"event":{"id":"x","type":"signin.allowed","at":1,"received_at":0},"spent":{"step":1},"hash":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		kind := reflect.TypeOf(bodies[int(which)%len(bodies)]).Elem()
		in := reflect.New(kind)
		if agentapi.Decode(raw, in.Interface()) != nil {
			return
		}
		first, err := json.Marshal(in.Interface())
		if err != nil {
			t.Fatalf("%q is read and can not be written: %v", raw, err)
		}
		again := reflect.New(kind)
		if err := agentapi.Decode(first, again.Interface()); err != nil {
			t.Fatalf("%q: %v", first, err)
		}
		second, err := json.Marshal(again.Interface())
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%q became %q", first, second)
		}
	})
}
